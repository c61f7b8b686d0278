"""A backbone written for others, in one of three layouts, where nobody else's files are."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from sslcourse import backbones, record
from sslcourse.backbones import Backbone
from sslcourse.console import printable, say, shown
from sslcourse.errors import CourseError, suggest
from sslcourse.files import write_atomically
from sslcourse.locking import HIDDEN, claimed
from sslcourse.paths import typed
from sslcourse.weights import huggingface
from sslcourse.weights.networks import ResNetMeasures, VitMeasures, measures_of

AUTO = "auto"
FORMATS = ("torchvision", "huggingface", "sslcourse")
ABOUT = (
    "sslcourse"  # the entry of config.json by which a directory of ours is known; it holds what the run's folder knew
)
FILES = {  # of a directory in each layout
    "huggingface": {"config.json", "model.safetensors", "preprocessor_config.json"},
    "sslcourse": {"config.json", "backbone.safetensors"},
}


def save(
    backbone: Backbone,
    path: str | Path,
    format: str = "huggingface",
    *,
    image_size: int | None = None,
    overwrite: bool = False,
) -> str:
    """Write a backbone so that others read it; returns the format that was taken.

    huggingface   a directory for `AutoModel.from_pretrained` and `AutoImageProcessor.from_pretrained`, which then give the
                  same features (`huggingface.save` says in which of the model's outputs). Not for small stems.
                  `image_size` is the side in pixels that the image processor will bring images to (default: what the
                  run's folder says, else 224 for a ResNet, which doesn't know; a transformer takes its own alone)
    torchvision   a file (.pth, or .safetensors) for `load_state_dict` of torchvision.models' ResNets, whose `fc` must be
                  replaced by an nn.Identity, and of a small stem also `conv1` and `maxpool`. Mean and std have no place in
                  such a file: they are said on standard error
    sslcourse     a directory with backbone.safetensors, torchvision's or timm's names behind `trunk.`, which this course
                  reads, and config.json, which says in words and numbers what they are. For every network of the course
    auto          huggingface, or where that can't express the backbone, sslcourse, with a line on standard error

    A directory that this function wrote is written anew; whatever else is at `path` stays, unless `overwrite` is given.
    Raises CourseError for that, for an unknown format, for what it can't express, where the path can't be written, and
    where another process is writing to it.
    """
    path, measures, asked = typed(path), measures_of(backbone), format
    format = _chosen(format, backbone, measures)
    size = _image_size(backbone, measures, format, image_size)
    with _claimed(path, file=format == "torchvision"):
        if not overwrite:
            _refuse_foreign(path, format)
        if _is_ours(path):  # of an export in another layout nothing may stay: it would be read in place of this one
            _clear(path, keep=FILES[format])
        if format == "torchvision":
            _save_file(backbone, path)
        elif format == "huggingface":
            huggingface.save(backbone, path, measures, size, {ABOUT: _about(backbone, size)})
        else:
            _save_ours(backbone, path, size)
    if asked == AUTO and format == "sslcourse":
        limit = huggingface.limit(measures)
        say(f"{limit}; so it was written in the course's own layout, which `sslcourse` reads. {huggingface.WAY_OUT}")
    return format


def notes_of(config: dict[str, Any]) -> dict[str, Any]:
    """What the run's folder knew, from the config.json of a directory that `save` wrote; {} of any other."""
    about = config.get(ABOUT)
    return dict(about["notes"]) if isinstance(about, dict) and isinstance(about.get("notes"), dict) else {}


# --- what is asked for --------------------------------------------------------------------------------------------


def _chosen(format: str, backbone: Backbone, measures: ResNetMeasures | VitMeasures) -> str:
    """The format to write, one that can express the backbone."""
    if format not in (*FORMATS, AUTO):
        raise CourseError(
            f"format {format!r} is unknown{suggest(str(format), FORMATS)}; choose one of {', '.join(FORMATS)} or {AUTO}."
        )
    limit = huggingface.limit(measures)
    if format == AUTO and limit and _builds(measures):
        return "sslcourse"
    if format in (AUTO, "huggingface"):
        if limit:
            raise CourseError(f"{limit}. {huggingface.WAY_OUT}")
        return "huggingface"
    if format == "torchvision" and not _torchvision_can(measures):
        raise CourseError(
            f"torchvision has no {backbone.arch} with the stem {backbone.stem}; save format='huggingface' instead."
        )
    if format == "sslcourse" and not _builds(measures):
        raise CourseError(
            f"the course's own layout is for {', '.join(backbones.names())}, and this is a {backbone.arch} with the stem "
            f"{backbone.stem}; keep the file that it came in, or save format='torchvision'."
        )
    return format


def _builds(m: ResNetMeasures | VitMeasures) -> bool:
    """Whether `backbones.build` makes the same network."""
    return m.name in backbones.names()


def _torchvision_can(m: ResNetMeasures | VitMeasures) -> bool:
    """Whether torchvision's ResNet class computes the same, once conv1 and maxpool are those of the stem."""
    if not isinstance(m, ResNetMeasures):
        return False
    return not m.stride_in_first and m.first_stride == 1 and m.stem in backbones.STEMS


def _image_size(
    backbone: Backbone, measures: ResNetMeasures | VitMeasures, format: str, asked: int | None
) -> int | None:
    """The side of images in pixels that a directory keeps; None where it doesn't say or has no place for it."""
    if asked is not None and (
        format == "torchvision" or isinstance(asked, bool) or not isinstance(asked, int) or asked < 1
    ):
        raise CourseError(
            f"image_size is a number of pixels that a directory keeps, and {asked!r} was given for the format {format!r}; "
            "leave it out, or give the side of the images that the backbone was trained with."
        )
    if isinstance(measures, VitMeasures):
        if asked not in (None, measures.image_size):
            raise CourseError(
                f"{backbone.arch} takes images of {measures.image_size} pixels alone, and image_size {asked} was given; "
                "leave it out."
            )
        return measures.image_size
    source = shown(backbone.report.path) if hasattr(backbone, "report") else f"this {backbone.arch}"
    return record.settled(source, record.of(backbone), image_size=asked).image_size


# --- where it goes ------------------------------------------------------------------------------------------------


@contextmanager
def _claimed(path: Path, file: bool) -> Iterator[None]:
    """`path` for this process alone."""
    if not file and path.is_file():
        raise CourseError(f"{shown(path)} is a file, and a directory is written; give another name.")
    if file and path.is_dir():
        raise CourseError(f"{shown(path)} is a directory, and a file is written; give a name such as weights.pth.")
    try:
        with claimed(path, file=file):
            yield
    except OSError as error:
        raise CourseError(
            f"{shown(path)} can't be written ({error.strerror or error}); choose another place."
        ) from None


def _refuse_foreign(path: Path, format: str) -> None:
    """CourseError where someone else's files would be replaced or mixed with."""
    if format == "torchvision":
        if path.exists():  # such a file doesn't say who wrote it
            raise CourseError(f"{shown(path)} is there already; choose another name, or replace it with overwrite.")
        return
    there = {entry.name for entry in path.iterdir()} - {HIDDEN}
    if there and not _is_ours(path):
        some = ", ".join(map(shown, sorted(there)[:3]))
        raise CourseError(
            f"{shown(path)} holds other files already ({some}); choose another name, or write into it with overwrite."
        )


def _is_ours(path: Path) -> bool:
    """Whether a path is a directory that `save` wrote, with nothing else in it."""
    try:
        about = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return (
        isinstance(about, dict)
        and ABOUT in about
        and {entry.name for entry in path.iterdir()} <= {HIDDEN}.union(*FILES.values())
    )


def _clear(folder: Path, keep: set[str]) -> None:
    for name in set().union(*FILES.values()) - keep:
        (folder / name).unlink(missing_ok=True)


# --- layouts ------------------------------------------------------------------------------------------------------


def _about(backbone: Backbone, size: int | None) -> dict[str, Any]:
    """What a run's folder knows, for people and for `notes_of`."""
    notes = backbone.notes | ({"image_size": size} if size is not None else {})
    return {"arch": backbone.arch, "stem": backbone.stem, "notes": notes}


def _save_file(backbone: Backbone, path: Path) -> None:
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in backbone.trunk.state_dict().items()}
    if path.suffix == ".safetensors":
        content = safetensors.torch.save(weights, metadata={"format": "pt"})
    else:
        buffer = io.BytesIO()
        torch.save(weights, buffer)
        content = buffer.getvalue()
    write_atomically(path, content)
    mean, std = (", ".join(f"{v:.4g}" for v in x.flatten()) for x in (backbone.mean, backbone.std))
    line = f"{path}: images must be normalized with mean ({mean}) and std ({std}), which it can't hold."
    print(printable(line, sys.stderr), file=sys.stderr)


def _save_ours(backbone: Backbone, folder: Path, size: int | None) -> None:
    about = _about(backbone, size)
    stem = backbones.STEMS.get(backbone.stem)
    if stem is not None:
        about["first_convolution"] = dict(zip(("kernel_size", "stride", "max_pooling"), stem, strict=True))
    about |= {"mean": backbone.mean.flatten().tolist(), "std": backbone.std.flatten().tolist()}
    write_atomically(folder / "config.json", huggingface.as_json({ABOUT: about}))
    backbones.save(backbone, folder / "backbone.safetensors", **about["notes"])
