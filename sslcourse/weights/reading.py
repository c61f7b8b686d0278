"""Files of weights, read without running anything that is in them.

A pickle is a program. `torch.load(weights_only=True)` executes none of it but the building of tensors, numbers, strings
and containers; the one class allowed beyond these is `argparse.Namespace`, the options of a training run, which DINO and
the masked autoencoder save beside their weights and which is a bag of plain values.
"""

from __future__ import annotations

import argparse
import json
import math
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from torch import Tensor

from sslcourse.console import shown
from sslcourse.errors import CourseError
from sslcourse.files import reading

HUGGING_FACE_FILES = ("model.safetensors", "pytorch_model.bin")
OPEN_CLIP_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
OPEN_CLIP = "open_clip"  # where a configuration of OpenCLIP stands in `Contents.config`
TOWER = "vision_config"  # of the image tower, in a configuration of images and texts
WEIGHTS = (".pth", ".pt", ".ckpt", ".torch", ".bin", ".safetensors", ".tar", ".npz")
TENSORFLOW = re.compile(r"\.(index|meta|pb|h5|hdf5|keras|msgpack|data-\d+-of-\d+)$|^checkpoint$")
# What a checkpoint holds beside networks; it is left, and not looked into.
DEEPEST = 30  # dictionaries within dictionaries; a checkpoint has three or four, and one that holds itself has no end
BOOKKEEPING = re.compile(r"^(optimizer|lr_scheduler|scheduler|callbacks|loops|fp16_scaler|scaler|amp|args|hyper_)")


@dataclass
class Contents:
    """What was found in a file or a directory.

    tensors   every tensor of every network, by its dotted path: {"state_dict.module.encoder_q.conv1.weight": ...}
    entries   the names at the top of the file
    config, preprocessor   config.json and preprocessor_config.json beside the weights, or empty. Of a network for images
                           and texts, the image tower's configuration is among the others; OpenCLIP's own stands in OPEN_CLIP
    """

    path: Path
    tensors: dict[str, Tensor]
    entries: list[str]
    config: dict[str, Any] = field(default_factory=dict)
    preprocessor: dict[str, Any] = field(default_factory=dict)


def read(path: Path) -> Contents:
    """The tensors of a file, or of a directory that `save_pretrained` wrote; a config.json beside them is read as well.

    Raises CourseError for what is missing, empty, damaged, of TensorFlow, unsafe, or holds no tensors.
    """
    folder = path if path.is_dir() else path.parent
    described = (folder / "config.json").is_file() and (path.is_dir() or path.name in HUGGING_FACE_FILES)
    openclip = (folder / f"{OPEN_CLIP}_config.json").is_file() and (path.is_dir() or path.name in OPEN_CLIP_FILES)
    with reading(shown(path)):
        tree = _tree(path)
    try:
        tensors = flatten(tree)
    except RecursionError:
        raise CourseError(
            f"{shown(path)} holds dictionaries in more than {DEEPEST} levels; save model.state_dict() instead."
        ) from None
    if not tensors:
        raise CourseError(
            f"{shown(path)} can be read, but there are no weights in it; give the file that holds the network."
        )
    contents = Contents(path, tensors, [entry for entry in tree if isinstance(entry, str)])
    if described:
        contents.config = _settings(folder / "config.json")
        contents.preprocessor = _settings(folder / "preprocessor_config.json")
    if openclip:
        contents.config = contents.config | {OPEN_CLIP: _settings(folder / f"{OPEN_CLIP}_config.json")}
    return contents


def flatten(tree: Mapping, prefix: str = "", depth: int = 0) -> dict[str, Tensor]:
    """{"model": {"conv1.weight": t}, "epoch": 3} to {"model.conv1.weight": t}. RecursionError below DEEPEST levels."""
    if depth > DEEPEST:
        raise RecursionError
    flat = {}
    for key, value in tree.items():
        if not isinstance(key, str) or BOOKKEEPING.match(key) and not prefix:
            continue
        if isinstance(value, Tensor):
            flat[prefix + key] = value
        elif isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.", depth + 1)
    return flat


def refuse_unusual(name: str, tensor: Tensor, path: Path) -> None:
    """CourseError for a tensor that doesn't hold its numbers one by one, or whose numbers aren't of a network."""
    kind = (
        "sparse"
        if tensor.layout is not torch.strided
        else "quantized"
        if tensor.is_quantized
        else "nested"
        if tensor.is_nested
        else "complex"
        if tensor.is_complex()
        else "without numbers (on the device meta)"
        if tensor.is_meta
        else "empty"
        if not tensor.numel()
        else "one number repeated"
        if tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size()
        else ""
    )
    if kind:
        raise CourseError(
            f"{shown(name)} in {shown(path)} is {kind}, and a network here has plain numbers; save its state_dict as dense "
            "float32 tensors."
        )


def _tree(path: Path) -> Mapping:
    """Whatever lies at a path, as a tree of names and tensors."""
    if path.is_dir():
        return _directory(path)
    if path.is_file():
        return _file(path)
    if path.with_name(f"{path.name}.index").is_file():
        raise _tensorflow(path)
    raise CourseError(
        f"there is no backbone at {shown(path)}; give a file of weights or a directory, or let `sslcourse pretrain TASK "
        "--out DIR` write one to DIR."
    )


def _file(path: Path) -> Mapping:
    """Whatever tree of names and tensors a file holds."""
    with path.open("rb") as file:
        start = file.read(16)
    if not start:
        raise CourseError(f"{path} is empty; it was not written or not copied to the end: get it again.")
    if TENSORFLOW.search(path.name) or start.startswith(b"\x89HDF"):
        raise _tensorflow(path)
    if path.suffix == ".safetensors" or start[8:9] == b"{":
        return _safetensors(path)
    if path.suffix == ".npz":
        return _arrays(path)
    return _pickle(path)


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}
    except PermissionError:
        raise
    except Exception as error:  # a damaged header may raise anything
        raise CourseError(
            f"{path} is not a readable safetensors file ({error}); it is damaged or was not copied to the end: get it again."
        ) from None


def _arrays(path: Path) -> dict[str, Tensor]:
    """A file of `numpy.savez`, as big_vision (SigLIP) writes them: "params/img/embedding/kernel" to "params.img.embedding.kernel".

    Blocks that lie stacked in one array, (depth, …), become one entry each.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name.replace("/", "."): _tensor(file[name]) for name in file.files}
    except PermissionError:
        raise
    except Exception as error:  # a damaged archive may raise anything, and so does an array of Python's objects
        raise CourseError(
            f"{path} is damaged, or no file of arrays ({type(error).__name__}); give what `numpy.savez` wrote of numbers alone, "
            "and compare its size with the original's."
        ) from None
    tree = {}
    for name, tensor in found.items():
        before, stacked, rest = name.partition(".encoderblock.")
        parts = enumerate(tensor.unbind()) if stacked and tensor.dim() else ()
        tree |= {f"{before}.encoderblock_{i}.{rest}": part for i, part in parts} if stacked else {name: tensor}
    return tree


def _tensor(array: np.ndarray) -> Tensor:
    """NumPy has no bfloat16: such numbers are saved as two bytes each, the upper half of a float32."""
    if array.dtype == np.dtype("V2"):
        array = (array.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return torch.from_numpy(np.array(array))  # a copy: the archive is closed


def _pickle(path: Path) -> Mapping:
    """A file of `torch.save`. Nothing in it is ever executed."""
    if _is_program(path):
        raise CourseError(
            f"{path} is a TorchScript archive, a program that brings its weights, and no program is run here; take the weights "
            "out of it: torch.save(torch.jit.load(OLD).state_dict(), NEW)."
        )
    try:
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refusal(path, str(error)) from None
    except Exception as error:  # a damaged pickle may raise anything
        raise _damaged(path, error) from None
    if not isinstance(tree, Mapping):
        raise CourseError(
            f"{path} holds a {type(tree).__name__} and not a dictionary of weights; save model.state_dict() instead."
        )
    return tree


def _is_program(path: Path) -> bool:
    """Whether a file is one of torch.jit.save, which keeps its constants beside the weights."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.rpartition("/")[2] == "constants.pkl" for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError):
        return False


def _damaged(path: Path, error: Exception) -> CourseError:
    return CourseError(
        f"{path} is damaged, or not a file of weights ({type(error).__name__}); give what `torch.save` or safetensors "
        "wrote, and compare its size with the original's."
    )


def _refusal(path: Path, error: str) -> CourseError:
    """Why a pickle was not read: it names something that would have to be imported, or it is no pickle at all."""
    wanted = re.search(r"GLOBAL ([\w.]+)", error)
    if not wanted:
        return CourseError(
            f"{path} is damaged, or not a file of weights; give what `torch.save` or safetensors wrote, and compare its "
            "size with the original's."
        )
    return CourseError(
        f"{path} holds more than tensors, numbers and strings ({wanted[1]}); loading it could run foreign code, "
        "so it was refused. Where you trust it, open it in the environment that wrote it and save its state_dict alone."
    )


def _directory(path: Path) -> Mapping:
    """The weights of a `save_pretrained` directory: one file, or several with an index beside them."""
    for name in (*HUGGING_FACE_FILES, *OPEN_CLIP_FILES):
        if (path / name).is_file():
            return _file(path / name)
        index = path / f"{name}.index.json"
        if index.is_file():
            tree: dict[str, Tensor] = {}
            for shard in _shards(index):
                if Path(shard).name != shard or not (path / shard).is_file():
                    raise CourseError(f"{index} names {shard!r}, which isn't in {path}; get the whole directory again.")
                tree |= _file(path / shard)
            return tree
    found = sorted(entry.name for entry in path.iterdir() if entry.suffix in WEIGHTS)
    if found:
        raise CourseError(f"{path} holds {', '.join(found[:5])}: give one of them with its name.")
    if any(TENSORFLOW.search(entry.name) for entry in path.iterdir()):
        raise _tensorflow(path)
    raise CourseError(
        f"there are no weights in {path}; a directory needs backbone.safetensors (of `sslcourse pretrain`), or config.json "
        "and model.safetensors (of `save_pretrained`)."
    )


def _shards(index: Path) -> list[str]:
    """The names of the files that an index divides the weights among."""
    places = _json(index).get("weight_map", {})
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise CourseError(f"{index} doesn't say in which file each entry lies; get the whole directory again.")
    return sorted(set(places.values()))


def _json(path: Path) -> dict[str, Any]:
    """A file of settings; {} where there is none."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise CourseError(f"{path} is not readable JSON with names and values; get it again.")
    return found


def _settings(path: Path) -> dict[str, Any]:
    """A configuration, without what is null in it. Raises CourseError for a value of another kind than it must be."""
    settings = {name: value for name, value in _json(path).items() if value is not None}
    if isinstance(tower := settings.get(TOWER), dict):
        settings |= {name: value for name, value in tower.items() if value is not None and name != "model_type"}
    for name, value in settings.items():
        if name in KINDS and not KINDS[name][0](value):
            raise CourseError(
                f"{path} says {name} {value!r}, which is no {KINDS[name][1]}; get the whole directory again."
            )
    return settings


Kind = tuple[Callable[[Any], bool], str]


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _numbers(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(x, int | float) and math.isfinite(x) for x in value)


def _counts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_count, value))


# What is read of config.json and preprocessor_config.json, and what each must be.
WORD: Kind = (lambda value: isinstance(value, str), "word")
FLAG: Kind = (lambda value: isinstance(value, bool), "true or false")
COUNT: Kind = (_count, "whole number above 0")
COUNTS: Kind = (_counts, "list of whole numbers above 0")
SIDE: Kind = (lambda value: _count(value) or _counts(value), "number of pixels")
NAMES: Kind = (lambda value: isinstance(value, dict), "names with values")
KINDS: dict[str, Kind] = {
    **dict.fromkeys(("model_type", "hidden_act", "layer_type"), WORD),
    **dict.fromkeys(("use_swiglu_ffn", "use_gated_mlp", "downsample_in_bottleneck", "downsample_in_first_stage"), FLAG),
    **dict.fromkeys(("do_rescale", "do_normalize"), FLAG),
    **dict.fromkeys(("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"), COUNT),
    **dict.fromkeys(("image_size", "patch_size"), SIDE),
    **dict.fromkeys(("pretrained_cfg", "model_args", "model_cfg", "preprocess_cfg", TOWER), NAMES),
    **dict.fromkeys(("layer_norm_eps", "rescale_factor", "rope_theta"), (_number, "number above 0")),
    **dict.fromkeys(("image_mean", "image_std"), (_numbers, "list of numbers")),
    "depths": COUNTS,
}


def _tensorflow(path: Path) -> CourseError:
    return CourseError(
        f"{path} is a checkpoint of TensorFlow, Keras or Flax, which this course doesn't read; convert it to PyTorch, or "
        "take the PyTorch file of the same network."
    )
