"""Everyone else's weights: read into a Backbone, and written so that torchvision and Transformers read them.

`load` recognizes the checkpoints of torchvision, MoCo, SwAV, DINO, iBOT, MAE, I-JEPA, CLIP, SigLIP, VISSL, SimCLR,
lightly, solo-learn, timm and Transformers (`layouts` has the table), the course's own backbone.safetensors, and the
backbone of a classifier that `sslcourse finetune` wrote. The network's measures come from the shapes of the weights. What
the weights can't say is looked up in the configuration beside them, assumed and reported, or asked for: the number of
attention heads, the activation in the blocks, the stride of a small stem, mean and standard deviation of the pixels.

Of a network for images and texts, the image tower is kept, without its projection to the space that both share. Its class
token (CLIP), or what its attention pooling saw (SigLIP), is what `Backbone.summary` gives, and its patches go through the
last norm, as they do in all other transformers here; CLIP itself normalizes the class token alone.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor, nn

from sslcourse import backbones
from sslcourse.backbones import Backbone
from sslcourse.console import printable, say, shown
from sslcourse.errors import CourseError, one_of, whole_number
from sslcourse.paths import typed
from sslcourse.vit import ACTIVATIONS
from sslcourse.weights import classifiers, huggingface, layouts, networks, openclip, preprocessing, sources, writing
from sslcourse.weights.layouts import Found
from sslcourse.weights.networks import MeasuredResNet, MeasuredVit, ResNetMeasures, VitMeasures, measures_of
from sslcourse.weights.reading import Contents, read
from sslcourse.weights.sources import Source
from sslcourse.weights.writing import save

__all__ = ["Report", "load", "measures_of", "save"]

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
            f"{shown(self.path)}: {self.source}, {shown(self.network)}; {len(self.used)} entries used, {len(self.left)} left"
            f"{_groups(self.left, self.used)}, {len(self.missing)} missing{_groups(self.missing)}; normalization: {self.normalization}"
        )


def load(
    source: str | Path,
    *,
    network: str | None = None,
    prefix: str | None = None,
    heads: int | None = None,
    stem: str | None = None,
    activation: str | None = None,
    normalize: str | tuple[Sequence[float], Sequence[float]] | None = None,
    quiet: bool = False,
) -> Backbone:
    """A Backbone from a file or directory of weights, with the preprocessing that they were trained with.

    network    "teacher" or "student", where a checkpoint holds both (default: DINO's teacher, MoCo's query encoder)
    prefix     the dotted path of the network, where a checkpoint holds several more
    heads      attention heads of a vision transformer whose width isn't a usual one
    stem       of a 3x3 stem: "small" (stride 1), "tiny" (stride 2) or "solo-learn" (stride 1, padded by 2)
    activation "gelu", "gelu-tanh" or "quick-gelu", of a vision transformer whose file and kind don't say (OpenCLIP's)
    normalize  "imagenet", "none" (pixels in [0, 1], as SimCLR), "half" (pixels in [-1, 1]), "clip", "swav", "cifar", or
               (mean, std). A plain state_dict doesn't say: ImageNet's is assumed, and the report says so
    quiet      leaves out the line on standard error

    The six options are for files that don't say: the course's own say everything, and a line on standard error says which
    option is left unused. The backbone carries a `report` of what was used, left and missing. Nothing in a file is ever
    executed. Raises CourseError for a file that can't be read, isn't known, or lacks anything but a head.
    """
    path = typed(source)
    hints = {"network": network, "prefix": prefix, "heads": heads, "stem": stem, "activation": activation}
    hints["normalize"] = normalize
    _refuse_odd(hints)
    own = path / "backbone.safetensors" if path.is_dir() else path
    if _is_ours(own) or path.is_dir() and own.exists():
        return _load_ours(own, hints)
    if (description := classifiers.about(own)) is not None:
        return _load_classifier(own, description, hints, quiet)
    contents = read(path)
    found = layouts.find(contents, network, prefix)
    origin = sources.of(contents, found)
    try:
        measures, trunk = _trunk(contents, found, origin, hints)
    except (KeyError, IndexError, TypeError, RuntimeError, ZeroDivisionError):
        raise CourseError(
            f"{shown(path)} has the names of a {found.layout.kind}, but the shapes of its weights don't fit together; the "
            "file is damaged, or of another kind of network."
        ) from None
    _fill(trunk, found, contents)
    stem_name = measures.stem if isinstance(measures, ResNetMeasures) else f"patch{measures.patch}"
    normalization = preprocessing.choose(normalize, origin, contents, stem_name in ("small", "solo-learn"))
    backbone = Backbone(trunk, measures.name, stem_name, normalization.mean, normalization.std)
    backbone.notes = writing.notes_of(contents.config)
    backbone.report = _report(contents, found, origin, backbone, str(normalization))
    if not quiet:
        print(printable(str(backbone.report), sys.stderr), file=sys.stderr)
    return backbone


def _refuse_odd(hints: dict[str, Any]) -> None:
    """CourseError for options of `load` that are of another kind than they must be."""
    for name in ("network", "prefix", "stem", "activation"):
        if not isinstance(hints[name], str | None):
            raise CourseError(f"{name} is a word, and {hints[name]!r} was given; leave it out where you aren't sure.")
    if hints["heads"] is not None:
        whole_number("heads", hints["heads"])
    if hints["activation"] is not None:
        one_of("activation", hints["activation"], ACTIVATIONS)


def _load_ours(path: Path, hints: dict[str, Any]) -> Backbone:
    """A backbone that this course wrote, which says everything about itself."""
    backbone = backbones.load(path)
    _say_unused(path, backbone, hints)
    entries = tuple(backbone.state_dict())
    backbone.report = Report(str(path), "this course", backbone.arch, entries, (), (), "the file's own")
    return backbone


def _load_classifier(path: Path, description: dict[str, Any], hints: dict[str, Any], quiet: bool) -> Backbone:
    """The backbone of a classifier that this course wrote. It may have learned from labels, which the report says."""
    backbone = classifiers.backbone_of(path, description)
    _say_unused(path, backbone, hints)
    with safetensors.safe_open(path, framework="pt") as file:
        left = tuple(name for name in file.keys() if not name.startswith(classifiers.BACKBONE))
    used = tuple(classifiers.BACKBONE + name for name in backbone.state_dict())
    source = "the backbone of a classifier, which may have learned from labels"
    backbone.report = Report(str(path), source, backbone.arch, used, left, (), "the file's own")
    if not quiet:
        print(printable(str(backbone.report), sys.stderr), file=sys.stderr)
    return backbone


def _say_unused(path: Path, backbone: Backbone, hints: dict[str, Any]) -> None:
    """One line on standard error where options were given to a file that says itself what it is."""
    unused = [name for name, value in hints.items() if value is not None]
    if unused:
        say(
            f"{shown(path)} says itself what it is: {backbone.arch} with stem {backbone.stem}, with its own preprocessing; "
            f"{', '.join(unused)}, as asked for, {'is' if len(unused) == 1 else 'are'} not used."
        )


def _is_ours(path: Path) -> bool:
    """Whether a file is a safetensors file of this course."""
    if not path.is_file():  # of a pipe, opening it would wait for a writer for ever
        return False
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return "sslcourse" in (file.metadata() or {})
    except Exception:  # a damaged header may raise anything
        return False


def _trunk(
    contents: Contents, found: Found, origin: Source, hints: dict[str, Any]
) -> tuple[ResNetMeasures | VitMeasures, nn.Module]:
    """A trunk in the measures of what was found; without numbers yet."""
    config, stem = contents.config, hints["stem"]
    if origin.configured:
        huggingface.refuse_unknown(config, found.layout.kind)
    if found.layout.kind == "resnet":
        small = found.weights["conv1.weight"].shape[-1] == 3
        measures = networks.resnet_measures(found.weights, stem or (origin.stem if small else None))
        if origin.configured:
            measures = huggingface.resnet_measures(measures, config)
        with torch.device("meta"):
            return measures, MeasuredResNet(measures)
    measures = _vit_measures(config, found, origin, hints)
    with torch.device("meta"):
        return measures, MeasuredVit(measures)


def _vit_measures(config: dict[str, Any], found: Found, origin: Source, hints: dict[str, Any]) -> VitMeasures:
    """What decides a vision transformer: shapes, and beside them its configuration, its source and what was asked for."""
    width = found.weights["patch_embed.proj.weight"].shape[0]
    if origin.configured:
        if (periods := huggingface.periods(config, width)) is not None:
            found.weights["rope.periods"], found.sources["rope.periods"] = periods, []
        size = config.get("image_size")
        measures = networks.vit_measures(
            found.weights, eps=huggingface.epsilon(config), heads=hints["heads"] or huggingface.heads(config),
            activation=huggingface.activation(config), image_size=size[0] if isinstance(size, list) else size,
        )  # fmt: skip
        huggingface.refuse_vit_contradiction(measures, config)
        return measures
    known = (
        found.heads
        or config.get("model_args", {}).get("num_heads")
        or openclip.heads(config, width)
        or origin.heads.get(width)
    )
    return networks.vit_measures(
        found.weights, eps=origin.epsilon, heads=hints["heads"] or known, activation=_activation(config, origin, hints)
    )


def _activation(config: dict[str, Any], origin: Source, hints: dict[str, Any]) -> str:
    """The activation of the blocks. CourseError where nothing says it."""
    timm = config.get("architecture", "") if config.get("pretrained_cfg") else ""
    named = "quick-gelu" if "quickgelu" in str(timm) else "gelu" if timm else openclip.activation(config)
    found = hints["activation"] or named or origin.activation
    if found is None:
        raise CourseError(
            f"the blocks of {origin.name} have one of two activations, which the weights don't tell; give it as activation="
            "'quick-gelu' (OpenAI's networks, and OpenCLIP's with quickgelu in their name) or 'gelu' (OpenCLIP's others)."
        )
    return found


def _fill(trunk: nn.Module, found: Found, contents: Contents) -> None:
    """Put the weights into the trunk. Each of its entries must be there in its shape, and whatever else stands behind the
    prefix must be a head: an entry of an unknown kind means another network than the one that was built."""
    wanted = trunk.state_dict()
    missing = [name for name in wanted if name not in found.weights and not name.endswith(UNTRAINED)]
    if missing:
        raise CourseError(
            f"{shown(contents.path)} lacks {_some(missing)} of the network; only a head may be missing: get the whole file again."
        )
    strange = [name for name in found.weights if name not in wanted and not layouts.HEAD.match(name)]
    if strange:
        raise CourseError(
            f"{shown(contents.path)} has {_some(found.origins(strange))}, which is neither part of a network that this course knows "
            "nor a head; without it the features would be others."
        )
    state: dict[str, Tensor] = {}
    for name, place in wanted.items():
        tensor = found.weights.get(name, torch.zeros((), dtype=torch.int64))
        if tensor.shape != place.shape:
            raise CourseError(
                f"{found.origin(name)} in {shown(contents.path)} has the shape {tuple(tensor.shape)}, and the rest of the network "
                f"needs {tuple(place.shape)}; the file is damaged, or of another kind of network."
            )
        if place.is_floating_point() and not tensor.is_floating_point():
            raise CourseError(
                f"{found.origin(name)} in {shown(contents.path)} holds {tensor.dtype}, and a network here "
                "has floating-point numbers; save its state_dict as float32."
            )
        state[name] = tensor.detach().to(place.dtype, copy=True, memory_format=torch.contiguous_format)
        if not backbones.is_sound(name, state[name]):
            raise CourseError(
                f"{found.origin(name)} in {shown(contents.path)} isn't finite, or a variance below 0; "
                "take an earlier checkpoint."
            )
    trunk.load_state_dict(state, assign=True)


def _report(contents: Contents, found: Found, origin: Source, backbone: Backbone, normalization: str) -> Report:
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
    network = f"{backbone.arch} with stem {backbone.stem} ({where})"
    return Report(str(contents.path), origin.name, network, tuple(used), tuple(left), tuple(missing), normalization)


def _within(entry: str, tensors: Iterable[str]) -> bool:
    """Whether there are tensors in an entry at the top of a file."""
    return any(name.startswith(f"{entry}.") for name in tensors)


def _groups(names: Iterable[str], apart: Iterable[str] = ()) -> str:
    """(module.encoder_k, module.queue): what a long list of names has in common, and no name in `apart` begins with."""
    taken = {".".join(name.split(".")[:k]) for name in apart for k in range(1, name.count(".") + 1)}

    def group(name: str) -> str:
        parts = name.split(".")
        beginnings = (".".join(parts[:k]) for k in range(3, len(parts)))
        return next((start for start in beginnings if start not in taken), name) if len(parts) > 3 else name

    groups = list(dict.fromkeys(map(group, names)))
    return f" ({', '.join(map(layouts.named, groups[:4]))}{', …' if len(groups) > 4 else ''})" if groups else ""


def _some(names: Sequence[str]) -> str:
    return f"{', '.join(map(layouts.named, names[:3]))}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
