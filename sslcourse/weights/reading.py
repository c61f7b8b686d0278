"""Files of weights, read without running anything that is in them.

A pickle is a program. `torch.load(weights_only=True)` executes none of it but the building of tensors, numbers, strings
and containers; the one class allowed beyond these is `argparse.Namespace`, the options of a training run, which DINO and
the masked autoencoder save beside their weights and which is a bag of plain values.
"""

from __future__ import annotations

import argparse
import json
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from sslcourse.errors import CourseError

HUGGING_FACE_FILES = ("model.safetensors", "pytorch_model.bin")
WEIGHTS = (".pth", ".pt", ".ckpt", ".torch", ".bin", ".safetensors", ".tar")
TENSORFLOW = re.compile(r"\.(index|meta|pb|h5|hdf5|keras|msgpack|data-\d+-of-\d+)$|^checkpoint$")
# What a checkpoint holds beside networks; it is left, and not looked into.
BOOKKEEPING = re.compile(r"^(optimizer|lr_scheduler|scheduler|callbacks|loops|fp16_scaler|scaler|amp|args|hyper_)")


@dataclass
class Contents:
    """What was found in a file or a directory.

    tensors   every tensor of every network, by its dotted path: {"state_dict.module.encoder_q.conv1.weight": ...}
    entries   the names at the top of the file
    config, preprocessor   config.json and preprocessor_config.json beside the weights, or empty
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
    if path.is_dir():
        tree = _directory(path)
    elif path.is_file():
        tree = _file(path)
    elif list(path.parent.glob(f"{path.name}.index")):
        raise _tensorflow(path)
    else:
        raise CourseError(
            f"there is no backbone at {path}; give a file of weights or a directory, or let `sslcourse pretrain TASK "
            "--out DIR` write one to DIR."
        )
    tensors = flatten(tree)
    if not tensors:
        raise CourseError(f"{path} can be read, but there are no weights in it; give the file that holds the network.")
    contents = Contents(path, tensors, [entry for entry in tree if isinstance(entry, str)])
    if described:
        contents.config, contents.preprocessor = (
            _json(folder / "config.json"),
            _json(folder / "preprocessor_config.json"),
        )
    return contents


def flatten(tree: Mapping, prefix: str = "") -> dict[str, Tensor]:
    """{"model": {"conv1.weight": t}, "epoch": 3} to {"model.conv1.weight": t}."""
    flat = {}
    for key, value in tree.items():
        if not isinstance(key, str) or BOOKKEEPING.match(key) and not prefix:
            continue
        if isinstance(value, Tensor):
            flat[prefix + key] = value
        elif isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
    return flat


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
    return _pickle(path)


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}
    except (safetensors.SafetensorError, OSError) as error:
        raise CourseError(
            f"{path} is not a readable safetensors file ({error}); it is damaged or was not copied to the end: get it again."
        ) from None


def _pickle(path: Path) -> Mapping:
    """A file of `torch.save`. Nothing in it is ever executed."""
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            tree = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refusal(path, str(error)) from None
    except Exception as error:  # a damaged pickle may raise anything
        raise CourseError(
            f"{path} is damaged, or not a file of weights ({type(error).__name__}); give what `torch.save` or safetensors "
            "wrote, and compare its size with the original's."
        ) from None
    if not isinstance(tree, Mapping):
        raise CourseError(
            f"{path} holds a {type(tree).__name__} and not a dictionary of weights; save model.state_dict() instead."
        )
    return tree


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
    for name in HUGGING_FACE_FILES:
        if (path / name).is_file():
            return _file(path / name)
        index = path / f"{name}.index.json"
        if index.is_file():
            tree: dict[str, Tensor] = {}
            for shard in sorted(set(_json(index).get("weight_map", {}).values())):
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


def _json(path: Path) -> dict[str, Any]:
    """A file of settings; {} where there is none."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError):
        found = None
    if not isinstance(found, dict):
        raise CourseError(f"{path} is not readable JSON with names and values; get it again.")
    return found


def _tensorflow(path: Path) -> CourseError:
    return CourseError(
        f"{path} is a checkpoint of TensorFlow, Keras or Flax, which this course doesn't read; convert it to PyTorch, or "
        "take the PyTorch file of the same network."
    )
