"""Everyone else's weights: read into a Backbone, and written so that torchvision and Transformers read them.

`load` recognizes the checkpoints of torchvision, MoCo, DINO, MAE, VISSL, SimCLR, lightly, solo-learn, timm and
Transformers (`layouts` has the table), and the course's own backbone.safetensors. The network's measures come from the
shapes of the weights. What the weights can't say is looked up in the configuration beside them, assumed and reported, or
asked for: the number of attention heads, the stride of a small stem, mean and standard deviation of the pixels.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from sslcourse import backbones
from sslcourse.backbones import Backbone, ResNet
from sslcourse.errors import CourseError, suggest
from sslcourse.files import write_atomically
from sslcourse.vit import VisionTransformer
from sslcourse.weights import huggingface, layouts, networks, preprocessing
from sslcourse.weights.layouts import Found
from sslcourse.weights.networks import MeasuredResNet, MeasuredVit, ResNetMeasures, VitMeasures
from sslcourse.weights.reading import Contents, read

FORMATS = ("torchvision", "huggingface")
EPS = {"VISSL": 1e-5}  # of its vision transformer's layer norms: PyTorch's default; everyone else's is 1e-6
UNTRAINED = "num_batches_tracked"  # a count that no feature depends on; files from before 2018 don't have it


@dataclass(frozen=True)
class Report:
    """What became of a checkpoint. Names are the file's own, except in `missing`.

    used, left   entries that are in the backbone; entries that are not: heads, teachers, optimizers
    missing      entries that the file doesn't have: its head's
    """

    path: str
    source: str
    network: str
    used: tuple[str, ...]
    left: tuple[str, ...]
    missing: tuple[str, ...]
    normalization: str

    def __str__(self) -> str:
        return (
            f"{self.path}: {self.source}, {self.network}; {len(self.used)} entries used, {len(self.left)} left"
            f"{_groups(self.left, self.used)}, {len(self.missing)} missing{_groups(self.missing)}; normalization: {self.normalization}"
        )


def load(
    source: str | Path,
    *,
    network: str | None = None,
    prefix: str | None = None,
    heads: int | None = None,
    stem: str | None = None,
    normalize: str | tuple[Sequence[float], Sequence[float]] | None = None,
    quiet: bool = False,
) -> Backbone:
    """A Backbone from a file or directory of weights, with the preprocessing that they were trained with.

    network    "teacher" or "student", where a checkpoint holds both (default: DINO's teacher, MoCo's query encoder)
    prefix     the dotted path of the network, where a checkpoint holds several more
    heads      attention heads of a vision transformer whose width isn't a usual one
    stem       of a 3x3 stem: "small" (stride 1), "tiny" (stride 2) or "solo-learn" (stride 1, padded by 2)
    normalize  "imagenet", "none" (pixels in [0, 1], as SimCLR), "half" (pixels in [-1, 1]), "cifar", or
               (mean, std). A plain state_dict doesn't say: ImageNet's is assumed, and the report says so
    quiet      leaves out the line on standard error

    The backbone carries a `report` of what was used, left and missing. Nothing in a file is ever executed. Raises
    CourseError for a file that can't be read, isn't known, or lacks anything but a head.
    """
    path = Path(source)
    own = path / "backbone.safetensors" if path.is_dir() else path
    if _is_ours(own) or path.is_dir() and own.exists():
        backbone = backbones.load(own)
        used = tuple(backbone.state_dict())
        backbone.report = Report(str(own), "this course", backbone.arch, used, (), (), "the file's own")
        return backbone
    contents = read(path)
    found = layouts.find(contents, network, prefix)
    whose = layouts.source(contents, found)
    try:
        measures, trunk = _trunk(contents, found, whose, heads, stem)
    except (KeyError, IndexError, TypeError, RuntimeError, ZeroDivisionError):
        raise CourseError(
            f"{path} has the names of a {found.layout.kind}, but the shapes of its weights don't fit together; the file is "
            "damaged, or of another kind of network."
        ) from None
    _fill(trunk, found, contents)
    stem_name = measures.stem if isinstance(measures, ResNetMeasures) else f"patch{measures.patch}"
    normalization = preprocessing.choose(normalize, whose, contents, stem_name in ("small", "solo-learn"))
    backbone = Backbone(trunk, measures.name, stem_name, normalization.mean, normalization.std)
    backbone.report = _report(contents, found, whose, backbone, str(normalization))
    if not quiet:
        print(backbone.report, file=sys.stderr)
    return backbone


def save(backbone: Backbone, path: str | Path, format: str = "huggingface", *, image_size: int | None = None) -> None:
    """Write a backbone so that others read it.

    huggingface   a directory for `AutoModel.from_pretrained` and `AutoImageProcessor.from_pretrained`, which then give the
                  same features (`huggingface.save` says in which of the model's outputs). Not for small stems.
                  `image_size` is the side in pixels that the image processor will bring images to: give the one that
                  the backbone was trained with (default: a transformer's own; 224 for a ResNet, which doesn't know)
    torchvision   a file (.pth, or .safetensors) for `load_state_dict` of torchvision.models' ResNets, whose `fc` must be
                  replaced by an nn.Identity, and of a small stem also `conv1` and `maxpool`. Mean and std have no place in
                  such a file: they are said on standard error
    Raises CourseError for an unknown format, for what it can't express, and where the file can't be written.
    """
    path = Path(path)
    if format not in FORMATS:
        raise CourseError(
            f"format {format!r} is unknown{suggest(format, FORMATS)}; choose one of {', '.join(FORMATS)}."
        )
    measures = measures_of(backbone)
    if image_size is not None and (format != "huggingface" or image_size < 1):
        raise CourseError(
            f"image_size is a number of pixels that a Transformers directory keeps, and {image_size} was given for the "
            f"format {format!r}; leave it out, or give the side of the images that the backbone was trained with."
        )
    if format == "huggingface":
        return huggingface.save(backbone, path, measures, image_size)
    if not isinstance(measures, ResNetMeasures) or not _torchvision_can(measures):
        raise CourseError(
            f"torchvision has no {backbone.arch} with the stem {backbone.stem}; save format='huggingface' instead."
        )
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in backbone.trunk.state_dict().items()}
    if path.suffix == ".safetensors":
        content = safetensors.torch.save(weights, metadata={"format": "pt"})
    else:
        buffer = io.BytesIO()
        torch.save(weights, buffer)
        content = buffer.getvalue()
    write_atomically(path, content)
    mean, std = (", ".join(f"{v:.4g}" for v in x.flatten()) for x in (backbone.mean, backbone.std))
    print(
        f"{path}: images must be normalized with mean ({mean}) and std ({std}), which it can't hold.", file=sys.stderr
    )


def measures_of(backbone: Backbone) -> ResNetMeasures | VitMeasures:
    """What decides a backbone's function, its weights apart. Raises CourseError for a trunk that isn't known."""
    trunk = backbone.trunk
    if isinstance(trunk, (MeasuredResNet, MeasuredVit)):
        return trunk.measures
    weights = trunk.state_dict()
    if isinstance(trunk, ResNet):
        return networks.resnet_measures(weights, backbone.stem)
    if isinstance(trunk, VisionTransformer):
        return networks.vit_measures(weights, eps=trunk.norm.eps, heads=trunk.blocks[0].attn.heads)
    raise CourseError(
        f"a trunk of the kind {type(trunk).__name__} can't be written; ResNets and vision transformers can."
    )


def _is_ours(path: Path) -> bool:
    """Whether a file is a safetensors file of this course."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return "sslcourse" in (file.metadata() or {})
    except (safetensors.SafetensorError, OSError):
        return False


def _trunk(
    contents: Contents, found: Found, whose: str, heads: int | None, stem: str | None
) -> tuple[ResNetMeasures | VitMeasures, nn.Module]:
    """A trunk in the measures of what was found; without numbers yet."""
    config, kind = contents.config, found.layout.kind
    theirs = found.layout.name == "huggingface"
    if theirs:
        huggingface.refuse_unknown(config, kind)
    if kind == "resnet":
        if stem is None and whose == "solo-learn" and found.weights["conv1.weight"].shape[-1] == 3:
            stem = "solo-learn"
        measures = networks.resnet_measures(found.weights, stem)
        if theirs:
            measures = huggingface.resnet_measures(measures, config)
        with torch.device("meta"):
            return measures, MeasuredResNet(measures)
    eps = config.get("layer_norm_eps", huggingface.EPS[config["model_type"]]) if theirs else EPS.get(whose, 1e-6)
    said = config.get("num_attention_heads") or (config.get("model_args") or {}).get("num_heads")
    measures = networks.vit_measures(found.weights, eps=eps, heads=heads or said)
    if theirs:
        huggingface.refuse_vit_contradiction(measures, config)
    with torch.device("meta"):
        return measures, MeasuredVit(measures)


def _fill(trunk: nn.Module, found: Found, contents: Contents) -> None:
    """Put the weights into the trunk. Each of its entries must be there in its shape, and whatever else stands behind the
    prefix must be a head: an entry of an unknown kind means another network than the one that was built."""
    wanted = trunk.state_dict()
    missing = [name for name in wanted if name not in found.weights and not name.endswith(UNTRAINED)]
    if missing:
        raise CourseError(
            f"{contents.path} lacks {_some(missing)} of the network; only a head may be missing: get the whole file again."
        )
    strange = [name for name in found.weights if name not in wanted and not layouts.HEAD.match(name)]
    if strange:
        raise CourseError(
            f"{contents.path} has {_some(found.origins(strange))}, which is neither part of a network that this course knows "
            "nor a head; without it the features would be others."
        )
    state: dict[str, Tensor] = {}
    for name, place in wanted.items():
        tensor = found.weights.get(name, torch.zeros((), dtype=torch.int64))
        if tensor.shape != place.shape:
            raise CourseError(
                f"{found.sources[name][0]} in {contents.path} has the shape {tuple(tensor.shape)}, and the rest of the network "
                f"needs {tuple(place.shape)}; the file is damaged, or of another kind of network."
            )
        state[name] = tensor.detach().to(place.dtype, copy=True, memory_format=torch.contiguous_format)
        if not bool(torch.isfinite(state[name]).all()):
            raise CourseError(f"{found.sources[name][0]} in {contents.path} isn't finite; take an earlier checkpoint.")
    trunk.load_state_dict(state, assign=True)


def _report(contents: Contents, found: Found, whose: str, backbone: Backbone, normalization: str) -> Report:
    entries = [name for name in backbone.trunk.state_dict() if name in found.sources]
    used = found.origins(entries)
    kept = set(used)
    beside = [e for e in contents.entries if e not in contents.tensors and not _within(e, contents.tensors)]
    left = [key for key in contents.tensors if key not in kept] + beside
    has_head = any(layouts.HEAD.match(name) and "mask_token" not in name for name in found.sources)
    head = (
        [] if has_head else ["fc.weight", "fc.bias"] if found.layout.kind == "resnet" else ["head.weight", "head.bias"]
    )
    missing = [name for name in backbone.trunk.state_dict() if name not in found.sources] + head
    where = found.prefix.rstrip(".") or "at the top"
    shown = f"{backbone.arch} with stem {backbone.stem} ({where})"
    return Report(str(contents.path), whose, shown, tuple(used), tuple(left), tuple(missing), normalization)


def _within(entry: str, tensors: Iterable[str]) -> bool:
    """Whether there are tensors in an entry at the top of a file."""
    return any(name.startswith(f"{entry}.") for name in tensors)


def _torchvision_can(m: ResNetMeasures) -> bool:
    """Whether torchvision's ResNet class computes the same, once conv1 and maxpool are those of the stem."""
    return not m.stride_in_first and m.first_stride == 1 and m.stem in backbones.STEMS


def _groups(names: Iterable[str], apart: Iterable[str] = ()) -> str:
    """(module.encoder_k, module.queue): what a long list of names has in common, and no name in `apart` begins with."""
    taken = {".".join(name.split(".")[:k]) for name in apart for k in range(1, name.count(".") + 1)}

    def group(name: str) -> str:
        parts = name.split(".")
        beginnings = (".".join(parts[:k]) for k in range(3, len(parts)))
        return next((start for start in beginnings if start not in taken), name) if len(parts) > 3 else name

    groups = list(dict.fromkeys(map(group, names)))
    return f" ({', '.join(groups[:4])}{', …' if len(groups) > 4 else ''})" if groups else ""


def _some(names: Sequence[str]) -> str:
    return f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
