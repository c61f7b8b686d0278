"""What can be typed: the options that several commands share, and text turned into values."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sslcourse.errors import CourseError, suggest
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
Mistakes = Annotated[Path | None, path_option(help="An HTML page of the pictures that were taken for another class.")]
Size = Annotated[int | None, typer.Option(help="Height and width in pixels to bring the images to.")]
Seed = Annotated[int, typer.Option(min=-(2**63), max=2**63 - 1, help="Decides everything random.")]
Seeds = Annotated[int, typer.Option(max=MOST_SEEDS, help="How many draws of the labelled images.")]

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
    typer.Option(
        help="imagenet, small or tiny (default: by the images' size). Transformers reads imagenet alone. "
        "With --init: their 3x3 stem, as evaluate takes it."
    ),
]
Start = Annotated[
    Path | None,
    path_option(
        "--init", "--weights", help="Go on from this backbone, the course's or other people's, instead of chance."
    ),
]
BatchSize = Annotated[int, typer.Option(help="Images per step.")]
Steps = Annotated[
    int | None,
    typer.Option(help="Optimizer steps (default: 600). With --resume, more of them make a run longer."),
]
Epochs = Annotated[float | None, typer.Option(help="In place of --steps: passes over the images.")]
Optimizer = Annotated[str | None, typer.Option(help="adamw or sgd (default: adamw).")]
LearningRate = Annotated[float | None, typer.Option(help="Peak learning rate (default: what suits the task).")]
Schedule = Annotated[
    str | None,
    typer.Option(help="cosine falls to zero at the end; constant stays, so that a run can be made longer exactly."),
]
Warmup = Annotated[
    str | None, typer.Option(help="How long the rate rises: a share of the steps, such as 0.1, or a number of them.")
]
WeightDecay = Annotated[float | None, typer.Option(help="Decay of matrices and filters (default: likewise).")]
TaskOption = Annotated[list[str], typer.Option(help="An option of the task, as NAME=VALUE; repeatable.")]
Stream = Annotated[
    bool | None,
    typer.Option("--stream/--no-stream", help="Leave photographs on disk (default: where memory is short)."),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on from the checkpoint in --out; with more --steps, beyond its end.")
]
ValidateEvery = Annotated[
    int | None,
    typer.Option(help="Steps between measurements without labels; the best weights are kept (default: none)."),
]
Signal = Annotated[
    str,
    typer.Option(help="Which measurement decides: retrieval (a view's own picture is nearest) or rankme (dimensions)."),
]
Patience = Annotated[
    int | None, typer.Option(help="End early after so many measurements without a better one (default: never).")
]
TensorBoard = Annotated[
    bool, typer.Option("--tensorboard", help="Write events to the folder tensorboard in --out as well.")
]
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
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 4 else text


def refuse_idle(hints: dict[str, Any], files: object, flag: str) -> None:
    """CourseError for hints on how to read a file of weights where none is named by `flag`."""
    given = [name for name, value in hints.items() if value is not None]
    if given and not files:
        raise CourseError(f"{', '.join(given)} says how to read a file of weights; name the file with {flag}.")


def options_by_task(pairs: list[str], defaults: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Options of several tasks: each goes to every task that knows it, and there must be one.

    defaults  task -> its options with their defaults
    """
    known = {name for options in defaults.values() for name in options}
    for name in (pair.partition("=")[0] for pair in pairs if "=" in pair):
        if name not in known:
            raise CourseError(
                f"none of {', '.join(defaults) or 'no tasks'} has an option {name!r}{suggest(name, known)}; "
                "`sslcourse tasks` lists them."
            )
    own = {
        task: [p for p in pairs if "=" not in p or p.partition("=")[0] in options] for task, options in defaults.items()
    }
    return {task: task_options(own[task], options) for task, options in defaults.items()}


def share_or_count(text: str | None, option: str) -> float | int | None:
    """ "0.1" to 0.1, a share; "60" to 60, a number of steps."""
    if text is None:
        return None
    try:
        return int(text) if text.strip().isdecimal() else float(text)
    except ValueError:
        raise CourseError(
            f"{option} takes a share of the steps, such as 0.1, or a whole number of them, and {text!r} was given."
        ) from None


def whole_numbers(text: str, option: str) -> list[int]:
    """ "1,10" to [1, 10]."""
    try:
        numbers = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        numbers = [0]
    if any(number < 1 for number in numbers):
        raise CourseError(f"{option} takes whole numbers from 1 on with commas between them, and {text!r} was given.")
    return numbers
