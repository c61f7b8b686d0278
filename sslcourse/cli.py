"""The command line: `sslcourse` or `python -m sslcourse`.

Modules that need torch are imported inside the commands, so that `--help` and `doctor` answer at once and everywhere.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from sslcourse.console import let_print
from sslcourse.errors import CourseError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Self-supervised vision, hands on: pretrain without labels, fine-tune with few.",
)

Spec = Annotated[
    str,
    typer.Option(
        "--data",
        help="world (also world:scenes, world:crowd, world:sketch, …), digits, cifar10, stl10, fashion-mnist, imagenette, "
        "flowers, folder:PATH, huggingface:PATH",
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on standard output and nothing else there.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps")]
Arch = Annotated[str, typer.Option("--backbone", help="resnet-tiny, resnet18, resnet34, resnet50 or vit-tiny")]
Size = Annotated[int | None, typer.Option(help="Height and width in pixels to bring the images to.")]
Seed = Annotated[int, typer.Option(help="Decides everything random.")]
Network = Annotated[str | None, typer.Option(help="teacher or student, where other people's file holds both")]
Prefix = Annotated[str | None, typer.Option(help="Dotted path of the network, where their file holds several.")]
Heads = Annotated[int | None, typer.Option(help="Attention heads of their vision transformer, where it must be said.")]
Stem = Annotated[str | None, typer.Option(help="Their 3x3 stem, which shapes don't tell: small, tiny or solo-learn")]
Normalize = Annotated[
    str | None,
    typer.Option(help="Their pixels: imagenet, none, half or cifar (default: what the file or its kind says)"),
]


def main() -> None:
    """Run a command; an error at the border is one sentence on standard error and exit code 2, not a traceback."""
    let_print(sys.stdout, sys.stderr)
    try:
        app()
    except CourseError as error:
        print(f"sslcourse: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(
            "\nsslcourse: stopped; what was saved is still there, and --resume goes on from it.",
            file=sys.stderr,
        )
        sys.exit(130)


@app.command()
def demo(
    data: Spec = "world",
    seeds: Annotated[int, typer.Option(help="How many draws of the labelled images.")] = 3,
    steps: Annotated[int | None, typer.Option(help="Pretraining steps (default: what fits into two minutes).")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the figure and the numbers.")] = Path("sslcourse-demo"),
    size: Size = 32,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """The whole course in two minutes: pretrain on rotation, then measure what it is worth with few labels."""
    from sslcourse import demo as the_demo

    results = the_demo.run(data, seeds=seeds, steps=steps, out=out, size=size, seed=seed, device=device)
    print(json.dumps(results, indent=2) if as_json else the_demo.text(results))


@app.command()
def lab(
    lesson: Annotated[str, typer.Argument(help="Number of the lesson to open.")] = "00",
    browser: Annotated[bool, typer.Option(help="Open a browser.")] = True,
) -> None:
    """Open the course in JupyterLab, at lesson 00 or the one that is named."""
    notebooks = Path(__file__).resolve().parent.parent / "notebooks"
    found = sorted(notebooks.glob(f"{lesson.zfill(2)}_*.ipynb"))
    if not found:
        known = ", ".join(path.name[:2] for path in sorted(notebooks.glob("[0-9]*.ipynb")))
        raise CourseError(
            f"there is no lesson {lesson!r} in {notebooks}"
            + (
                f"; there are {known}."
                if known
                else "; the notebooks come with the repository, so run this from a clone."
            )
        )
    command = [sys.executable, "-m", "jupyterlab", str(found[0])] + ([] if browser else ["--no-browser"])
    sys.exit(subprocess.call(command, cwd=notebooks.parent))


@app.command()
def doctor(
    quick: Annotated[
        bool, typer.Option("--quick", help="Leave out the ten seconds in which speed is measured.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Look at this machine and say what works, what doesn't, and what to do about it."""
    from sslcourse import doctor as the_doctor

    sys.exit(the_doctor.run(json=as_json, quick=quick))


@app.command()
def tasks(as_json: Json = False) -> None:
    """List the pretext tasks and their options."""
    from sslcourse import pretext

    found = [
        {
            "task": name,
            "about": task.__doc__.split("\n\n")[0].strip(),
            "backbone": task.arch,
            "options": pretext.option_defaults(task),
        }
        for name, task in pretext.tasks().items()
    ]
    if as_json:
        print(json.dumps(found, indent=2))
        return
    for entry in found:
        print(f"{entry['task']}\n    {entry['about']}")
        for option, default in entry["options"].items():
            print(f"    --option {option}={default}")
        if entry["backbone"] != "resnet-tiny":
            print(f"    --backbone {entry['backbone']} where none is named")


@app.command()
def pretrain(
    task: Annotated[str, typer.Argument(help="A pretext task; `sslcourse tasks` lists them.")],
    out: Annotated[Path, typer.Option(help="Folder for checkpoint.pt, backbone.safetensors and history.jsonl.")],
    data: Spec = "world",
    backbone: Annotated[str | None, typer.Option(help="Default: what the task is made for.")] = None,
    stem: Annotated[
        str | None,
        typer.Option(help="imagenet, small or tiny (default: by the images' size). `export` needs imagenet."),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Go on from this backbone, the course's or other people's, instead of chance.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Optimizer steps.")] = 600,
    batch_size: Annotated[int, typer.Option(help="Images per step.")] = 64,
    learning_rate: Annotated[
        float | None, typer.Option(help="Peak learning rate (default: what suits the task).")
    ] = None,
    weight_decay: Annotated[
        float | None, typer.Option(help="Decay of matrices and filters (default: likewise).")
    ] = None,
    option: Annotated[list[str], typer.Option(help="An option of the task, as NAME=VALUE; repeatable.")] = [],  # noqa: B006
    seed: Seed = 0,
    size: Size = None,
    device: Device = "auto",
    stream: Annotated[
        bool | None,
        typer.Option("--stream/--no-stream", help="Leave photographs on disk (default: where memory is short)."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in --out.")] = False,
    checkpoint_every: Annotated[int, typer.Option(help="Steps between checkpoints.")] = 100,
    log_every: Annotated[int, typer.Option(help="Steps between records in history.jsonl.")] = 20,
    compile: Annotated[bool, typer.Option("--compile", help="torch.compile the forward pass.")] = False,
    as_json: Json = False,
) -> None:
    """Pretrain a backbone on images without labels."""
    from sslcourse import backbones, distributed, pretext, train
    from sslcourse import device as devices
    from sslcourse.data import load
    from sslcourse.data.stream import report, source

    kind = pretext.find(task)  # a wrong name is said before the data is loaded
    start = _start(weights, backbone, stem)
    recipe, backbone = dict(kind.recipe), start.arch if start else backbone or kind.arch
    given = {"learning_rate": learning_rate, "weight_decay": weight_decay}
    recipe |= {name: value for name, value in given.items() if value is not None}
    config = train.TrainConfig(
        steps=steps, batch_size=batch_size, seed=seed, log_every=log_every, checkpoint_every=checkpoint_every,
        compile=compile, **recipe,
    )  # fmt: skip
    where = devices.pick_device(device)
    backbones.refuse_unknown(backbone)
    splits = load(
        data, size=size, stream=stream
    )  # the splits don't move with the seed: evaluate must see the same ones
    network = start or backbones.build(backbone, stem=stem, image_size=splits.size[1], seed=seed)
    model = pretext.build(task, network, **_options(option, pretext.option_defaults(kind)))
    first = int(os.environ.get("RANK", 0)) == 0  # of the processes that torchrun started, one speaks
    said = (devices.report(where), report(source(splits.unlabeled), where), *splits.notes)
    for note in said if first else ():
        print(note, file=sys.stderr)
    resume = resume or distributed.restarted()
    history = train.pretrain(model, splits.unlabeled, config, out=out, resume=resume, device=where)
    if not first:
        return
    result = {
        "task": task, "data": data, "backbone": backbone, "images": len(splits.unlabeled), "steps": steps,
        "device": str(where), "out": str(out), **history.last,
    }  # fmt: skip
    if as_json:
        print(json.dumps(result))
        return
    shown = ", ".join(f"{name} {value:.4g}" for name, value in history.last.items() if name != "step")
    print(f"{task} on {data}, {steps} steps: {shown}")
    print(f"backbone: {out / 'backbone.safetensors'}")
    print(f"measure it: sslcourse evaluate {out} --data {data}")


@app.command()
def evaluate(
    source: Annotated[
        str,
        typer.Argument(
            help="A run's folder, a file of weights (the course's or other people's), or random or scratch."
        ),
    ],
    data: Spec = "world",
    protocol: Annotated[
        str | None, typer.Option(help="knn, linear or finetune (default: linear; scratch: finetune)")
    ] = None,
    labels_per_class: Annotated[int, typer.Option(help="Labelled images per class.")] = 10,
    seeds: Annotated[int, typer.Option(help="How many draws of the labelled images.")] = 5,
    backbone: Arch = "resnet-tiny",
    size: Size = None,
    network: Network = None,
    prefix: Prefix = None,
    heads: Heads = None,
    stem: Stem = None,
    normalize: Normalize = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Measure a backbone with few labels: kNN, linear probe or fine-tuning, over several draws of the labels."""
    from sslcourse import backbones, weights
    from sslcourse import device as devices
    from sslcourse import evaluate as evaluation
    from sslcourse.data import load

    if source == "scratch" and protocol not in (None, "finetune"):
        raise CourseError(
            f"scratch trains the whole network on the labels, so its protocol is finetune, and {protocol!r} was asked for; "
            "for frozen features without training use random."
        )
    protocol = protocol or ("finetune" if source == "scratch" else "linear")
    evaluation.refuse_unknown_protocol(protocol)
    where = devices.pick_device(device)
    theirs = {"network": network, "prefix": prefix, "heads": heads, "stem": stem, "normalize": normalize}
    fixed = None if source in ("random", "scratch") else weights.load(source, **theirs)
    backbones.refuse_unknown(backbone)
    splits = load(data, size=size)
    for note in splits.notes:
        print(note, file=sys.stderr)
    if fixed is None:
        side = splits.size[1]
        measured = lambda s: backbones.build(backbone, image_size=side, seed=s)  # noqa: E731
    else:
        measured = fixed
    summary = evaluation.evaluate(
        measured,
        splits,
        protocol=protocol,
        labels_per_class=labels_per_class,
        seeds=seeds,
        device=where,
        progress=True,
    )
    result = {
        "source": source, "data": data, "protocol": protocol, "labels_per_class": labels_per_class, "seeds": seeds,
        "backbone": fixed.arch if fixed else backbone, "classes": len(splits.test.classes), "test_images": len(splits.test),
        "accuracies": list(summary.values), "mean": summary.mean, "std": _finite(summary.std),
        "interval95": [_finite(end) for end in summary.interval], "device": str(where),
    }  # fmt: skip
    if as_json:
        print(json.dumps(result))
        return
    print(f"{source} on {data}, {protocol}, {labels_per_class} labels per class, {seeds} seeds:")
    print(f"test accuracy {summary}  (mean ± standard deviation over seeds; chance {1 / len(splits.test.classes):.3f})")


@app.command()
def export(
    source: Annotated[
        str, typer.Argument(help="A run's folder, or a file of weights (the course's or other people's).")
    ],
    out: Annotated[
        Path, typer.Argument(help="A directory for huggingface, a .pth or .safetensors file for torchvision.")
    ],
    format: Annotated[str, typer.Option(help="huggingface or torchvision")] = "huggingface",
    image_size: Annotated[
        int | None, typer.Option(help="Pixels a side that the image processor brings images to: as in training.")
    ] = None,
    network: Network = None,
    prefix: Prefix = None,
    heads: Heads = None,
    stem: Stem = None,
    normalize: Normalize = None,
) -> None:
    """Write a backbone so that Transformers' AutoModel.from_pretrained, or torchvision, reads it."""
    from sslcourse import weights

    theirs = {"network": network, "prefix": prefix, "heads": heads, "stem": stem, "normalize": normalize}
    backbone = weights.load(source, **theirs)
    weights.save(backbone, out, format, image_size=image_size)
    print(f"{out}: {backbone.arch} in the layout of {format}")


@app.command()
def compare(
    tasks: Annotated[str, typer.Option(help="Pretext tasks, with commas between them (default: all).")] = "",
    data: Spec = "world",
    seeds: Annotated[int, typer.Option(help="How many seeds: of weights, order, views and labels alike.")] = 5,
    labels_per_class: Annotated[int, typer.Option(help="Labelled images per class of the table.")] = 10,
    budgets: Annotated[str, typer.Option(help="Labels per class of the curves.")] = "1,2,5,10,20,50,100,500",
    finetune: Annotated[bool, typer.Option(help="Fine-tune as well, beside training from scratch.")] = True,
    factors: Annotated[bool, typer.Option(help="Probe the known factors of the images, where there are any.")] = True,
    steps: Annotated[int | None, typer.Option(help="Pretraining steps (default: the course's, task by task).")] = None,
    out: Annotated[
        Path | None, typer.Option(help="JSON file, written after each measurement; what is in it is not repeated.")
    ] = None,
    size: Size = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Compare pretext tasks: the same probe, labels and seeds for each, beside baselines, with intervals."""
    from sslcourse import compare as comparison

    curve = _whole_numbers(budgets, "--budgets")
    results = comparison.run(
        [name.strip() for name in tasks.split(",")] if tasks else None, data, seeds=seeds, labels=labels_per_class,
        budgets=curve, finetune=[labels_per_class] if finetune else [], scratch=curve if finetune else [],
        factors=factors, steps=steps, out=out, size=size, device=device,
    )  # fmt: skip
    print(json.dumps(results) if as_json else comparison.text(results))


@app.command(name="data")
def show_data(
    spec: Annotated[str, typer.Argument(help="Which data; see --data of the other commands.")],
    preview: Annotated[Path | None, typer.Option(help="Save a labelled grid of images to this PNG file.")] = None,
    size: Size = None,
    as_json: Json = False,
) -> None:
    """Say what is in a data set, and show it."""
    from sslcourse.data import load

    splits = load(spec, size=size)
    about = _about(spec, splits)
    if preview is not None:
        _save_preview(splits, preview)
        about["preview"] = str(preview)
    if as_json:
        print(json.dumps(about))
        return
    print(f"{spec}: {about['image_size'][0]}x{about['image_size'][1]} pixels")
    for part, count in about["splits"].items():
        print(f"  {part:<10} {count:>7} images")
    if about["classes"]:
        print(f"  {len(about['classes'])} classes: {', '.join(about['classes'])}")
    if about["factors"]:
        print(f"  known factors: {', '.join(about['factors'])}")
    if about["annotations"]:
        print(f"  annotations: {', '.join(about['annotations'])}")
    for note in about["notes"]:
        print(f"  note: {note}")
    if preview is not None:
        print(f"  picture: {preview}")


@app.command()
def bench(
    as_json: Json = False,
    seconds: Annotated[float, typer.Option(help="Time for each measurement.")] = 4.0,
) -> None:
    """Measure speed: every figure a ratio of two things timed side by side on this machine."""
    from sslcourse import bench as the_bench

    results = the_bench.run(seconds=seconds)
    print(json.dumps(results, indent=2) if as_json else the_bench.text(results))


def _options(pairs: list[str], defaults: dict[str, Any]) -> dict[str, Any]:
    """["flip=false"] to {"flip": False}, each value read as its default's type."""
    options = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise CourseError(f"an option of a task is NAME=VALUE, and {pair!r} was given.")
        kind = type(defaults.get(name, ""))
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        try:
            options[name] = words[text.lower()] if kind is bool else kind(text)
        except (KeyError, ValueError):
            raise CourseError(
                f"option {name!r} needs a value like {defaults[name]!r}, and {text!r} was given."
            ) from None
    return options


def _start(path: Path | None, backbone: str | None, stem: str | None) -> Any:
    """The backbone that pretraining goes on from; None for a new one."""
    if path is None:
        return None
    if backbone or stem:
        raise CourseError("--weights brings a whole network, its stem included; leave --backbone and --stem out.")
    from sslcourse import backbones, weights

    found = weights.load(path)
    if found.arch not in backbones.names():
        raise CourseError(
            f"{path} holds a {found.arch} with the stem {found.stem}, and pretraining goes on from one of "
            f"{', '.join(backbones.names())}; measure this one with `sslcourse evaluate`."
        )
    return found


def _whole_numbers(text: str, option: str) -> list[int]:
    """ "1,10" to [1, 10]."""
    try:
        numbers = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        numbers = [0]
    if any(number < 1 for number in numbers):
        raise CourseError(f"{option} takes whole numbers from 1 on with commas between them, and {text!r} was given.")
    return numbers


def _finite(value: float) -> float | None:
    """JSON has no NaN: the spread of a single seed is null."""
    return value if value == value else None


def _about(spec: str, splits: Any) -> dict[str, Any]:
    """What is in a data set, as plain numbers and words."""
    sets = {part: getattr(splits, part) for part in ("unlabeled", "train", "val", "test")}
    labelled = splits.train
    return {
        "data": spec,
        "image_size": list(splits.size),
        "splits": {part: len(images) for part, images in sets.items()},
        "classes": list(labelled.classes),
        "images_per_class": labelled.counts() if labelled.labels is not None else {},
        "factors": list(labelled.factors),
        "annotations": [name for name in ("boxes", "instances", "captions") if getattr(labelled, name) is not None],
        "notes": list(splits.notes),
        "warnings": list(splits.warnings),
    }


def _save_preview(splits: Any, path: Path) -> None:
    if path.suffix.lower() != ".png":
        raise CourseError(f"a preview is a PNG file, and {path} doesn't end in .png.")
    os.environ.setdefault("MPLBACKEND", "Agg")
    from sslcourse import plots

    part = splits.train if splits.train is not None and len(splits.train) else splits.unlabeled
    if part.labels is None:
        figure = plots.grid(part.images[:40], title=part.name)
    else:
        per_class = [(part.labels == c).nonzero().squeeze(1)[:4] for c in range(min(len(part.classes), 20))]
        chosen = [int(i) for members in per_class for i in members]
        names = [part.classes[int(part.labels[i])] for i in chosen]
        figure = plots.grid(part.images[chosen], names, title=part.name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    except OSError as error:
        raise CourseError(f"could not write {path} ({error.strerror}); choose another place.") from None
