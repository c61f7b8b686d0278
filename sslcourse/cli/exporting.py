"""`sslcourse export`: a backbone or a classifier in the form that others read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sslcourse.cli import options, texts
from sslcourse.cli.running import command
from sslcourse.errors import CourseError
from sslcourse.paths import typed

if TYPE_CHECKING:
    from sslcourse.classify import Model


@command(stopped=texts.export_stopped)
def export(
    source: Annotated[
        str,
        typer.Argument(
            help="A run's folder, a file of weights (the course's or other people's), or a classifier that finetune wrote."
        ),
    ],
    out: Annotated[
        Path,
        typer.Argument(
            help="A new directory; for torchvision, onnx and torch-export a file.", parser=typed, metavar="OUT"
        ),
    ],
    format: Annotated[
        str,
        typer.Option(
            help="huggingface, torchvision, sslcourse, onnx or torch-export (default: huggingface, or sslcourse where that "
            "can't). The last two hold preprocessing and classifier, too"
        ),
    ] = "auto",
    image_size: Annotated[
        int | None,
        typer.Option(
            "--image-size",
            "--size",
            help="Pixels a side of the images that the network is to get (default: as in training).",
        ),
    ] = None,
    stage: options.Stage = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what others wrote to OUT.")] = False,
    network: options.Network = None,
    prefix: options.Prefix = None,
    heads: options.Heads = None,
    stem: options.Stem = None,
    activation: options.Activation = None,
    normalize: options.Normalize = None,
) -> None:
    """Write a backbone or a classifier so that Transformers, torchvision, ONNX or PyTorch alone reads it."""
    from sslcourse import weights
    from sslcourse.classify import deployment, model

    hints = {"network": network, "prefix": prefix, "heads": heads, "stem": stem}
    hints |= {"activation": activation, "normalize": normalize}
    classifier = model.is_classifier(typed(source))
    if format in deployment.FORMATS:
        made = (
            _classifier(source, image_size, stage, hints) if classifier else _reader(source, image_size, stage, hints)
        )
        about = deployment.save(made, out, format, overwrite=overwrite)
        print(texts.deployed(out, about, format))
        return
    if classifier or stage is not None:
        what = f"{source} is a classifier" if classifier else "--stage says where features are read"
        raise CourseError(
            f"{what}, and --format {format} keeps a whole backbone alone; choose {' or '.join(deployment.FORMATS)} for it."
        )
    backbone = weights.load(source, **hints)
    taken = weights.save(backbone, out, format, image_size=image_size, overwrite=overwrite)
    print(texts.exported(out, backbone.arch, taken))


def _classifier(source: str, image_size: int | None, stage: str | None, hints: dict[str, Any]) -> Model:
    """A classifier as its file says it is; CourseError for options that would make it another."""
    from sslcourse import classify

    found = classify.load(typed(source))
    given = [f"--{name}" for name, value in hints.items() if value is not None]
    given += ["--image-size"] * (image_size not in (None, found.image_size))
    given += ["--stage"] * (options.stage(stage) not in (None, found.stage))
    if given:
        raise CourseError(
            f"{source} says itself what it is: a classifier of images of {found.image_size} pixels, which reads stage "
            f"{found.stage}; leave {', '.join(given)} out."
        )
    return found


def _reader(source: str, image_size: int | None, stage: str | None, hints: dict[str, Any]) -> Model:
    """A backbone that gives the features of a stage: as asked for, else where the run's probes read them."""
    from torch import nn

    from sslcourse import record, weights
    from sslcourse.classify import Model

    backbone = weights.load(source, **hints)
    used = record.settled(source, record.of(backbone), image_size=image_size)
    side = record.own_size(backbone) if used.image_size is None else used.image_size
    if side is None:
        raise CourseError(
            f"{source} doesn't say for images of which size it is, and a file of this format is for one; give it as "
            "--image-size PIXELS."
        )
    read_at = record.stage_of(source, backbone, options.stage(stage))
    return Model(backbone, nn.Identity(), (), image_size=side, stage=read_at)
