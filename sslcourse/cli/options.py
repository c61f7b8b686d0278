"""What can be typed: the options that several commands share, and text turned into values."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sslcourse.errors import CourseError
from sslcourse.paths import typed

MOST_SEEDS = 1000


def path_option(*names: str, help: str) -> Any:
    """An option whose value is a path that a person typed."""
    return typer.Option(*names, help=help, parser=typed, metavar="PATH")


Spec = Annotated[
    str,
    typer.Option(
        "--data",
        help="world (also world:scenes, world:crowd, world:sketch, …), digits, cifar10, stl10, fashion-mnist, imagenette, "
        "flowers, folder:PATH, huggingface:PATH, shards:PATTERN",
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on standard output and nothing else there.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps")]
Labels = Annotated[
    Path | None, path_option(help="A CSV of paths and classes, for the pictures of a folder that isn't sorted.")
]
Size = Annotated[int | None, typer.Option(help="Height and width in pixels to bring the images to.")]
Seed = Annotated[int, typer.Option(min=-(2**63), max=2**63 - 1, help="Decides everything random.")]
Seeds = Annotated[int, typer.Option(max=MOST_SEEDS, help="How many draws of the labelled images.")]
LabelsPerClass = Annotated[int, typer.Option(help="Labelled images per class.")]

# How to read other people's weights, where their file doesn't say.
Network = Annotated[str | None, typer.Option(help="teacher or student, where other people's file holds both")]
Prefix = Annotated[str | None, typer.Option(help="Dotted path of the network, where their file holds several.")]
Heads = Annotated[
    int | None, typer.Option(min=1, help="Attention heads of their vision transformer, where it must be said.")
]
Stem = Annotated[str | None, typer.Option(help="Their 3x3 stem, which shapes don't tell: small, tiny or solo-learn")]
Activation = Annotated[
    str | None,
    typer.Option(help="Of their vision transformer, where it must be said (OpenCLIP): gelu, gelu-tanh or quick-gelu"),
]
Normalize = Annotated[
    str | None,
    typer.Option(
        help="Their pixels: imagenet, none, half, clip, swav or cifar (default: what the file or its kind says)"
    ),
]
Stage = Annotated[str | None, typer.Option(help="Where features are read: 1 to 4, all, or class (a class token).")]

# Pretraining.
Task = Annotated[str, typer.Argument(help="A pretext task; `sslcourse tasks` lists them.")]
RunFolder = Annotated[Path, path_option(help="Folder for checkpoint.pt, backbone.safetensors and history.jsonl.")]
Backbone = Annotated[str | None, typer.Option(help="resnet-tiny, resnet18, resnet34, resnet50 or vit-tiny")]
NewStem = Annotated[
    str | None,
    typer.Option(help="imagenet, small or tiny (default: by the images' size). Transformers reads imagenet alone."),
]
Start = Annotated[
    Path | None,
    path_option(help="Go on from this backbone, the course's or other people's, instead of chance."),
]
BatchSize = Annotated[int, typer.Option(help="Images per step.")]
Steps = Annotated[int, typer.Option(help="Optimizer steps.")]
LearningRate = Annotated[float | None, typer.Option(help="Peak learning rate (default: what suits the task).")]
WeightDecay = Annotated[float | None, typer.Option(help="Decay of matrices and filters (default: likewise).")]
TaskOption = Annotated[list[str], typer.Option(help="An option of the task, as NAME=VALUE; repeatable.")]
Stream = Annotated[
    bool | None,
    typer.Option("--stream/--no-stream", help="Leave photographs on disk (default: where memory is short)."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in --out.")]
CheckpointEvery = Annotated[int, typer.Option(help="Steps between checkpoints.")]
LogEvery = Annotated[int, typer.Option(help="Steps between records in history.jsonl.")]
Compile = Annotated[bool, typer.Option("--compile", help="torch.compile the forward pass.")]

WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def task_options(pairs: list[str], defaults: dict[str, Any]) -> dict[str, Any]:
    """["flip=false"] to {"flip": False}, each value read as its default's type."""
    options = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise CourseError(f"an option of a task is NAME=VALUE, and {pair!r} was given.")
        kind = type(defaults.get(name, ""))
        try:
            options[name] = WORDS[text.strip().lower()] if kind is bool else kind(text)
        except (KeyError, ValueError):
            raise CourseError(
                f"option {name!r} needs a value like {defaults[name]!r}, and {text!r} was given."
            ) from None
    return options


def stage(text: str | None) -> int | str | None:
    """ "4" to 4; words as they are."""
    return int(text) if text and text.isascii() and text.isdigit() else text


def whole_numbers(text: str, option: str) -> list[int]:
    """ "1,10" to [1, 10]."""
    try:
        numbers = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        numbers = [0]
    if any(number < 1 for number in numbers):
        raise CourseError(f"{option} takes whole numbers from 1 on with commas between them, and {text!r} was given.")
    return numbers
