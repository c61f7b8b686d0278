"""`sslcourse demo`, `evaluate`, `compare`, `bench`: what a backbone is worth, and how fast it all is."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sslcourse.cli import options, texts
from sslcourse.cli.running import command
from sslcourse.errors import CourseError

if TYPE_CHECKING:
    from torch import Tensor

    from sslcourse import backbones
    from sslcourse.classify.measures import Answers, Measures
    from sslcourse.data.imageset import ImageSet
    from sslcourse.data.splits import Splits
    from sslcourse.summary import Summary

BASELINES = ("random", "scratch")  # in place of a run: weights of chance, frozen or trained with the labels
BASELINE_BACKBONE = "resnet-tiny"


@command(stopped=texts.demo_stopped)
def demo(
    data: options.Spec = "world",
    seeds: options.Seeds = 3,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Pretraining steps (default: what fits into two minutes).")
    ] = None,
    out: Annotated[Path, options.path_option(help="Folder for the figure and the numbers.")] = Path("sslcourse-demo"),
    size: options.Size = 32,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """The whole course in two minutes: pretrain on rotation, then measure what it is worth with few labels."""
    from sslcourse import demo as the_demo

    os.environ["MPLBACKEND"] = "Agg"  # whatever a person's is for: nothing is shown here
    results = the_demo.run(data, seeds=seeds, steps=steps, out=out, size=size, seed=seed, device=device)
    texts.show(results, the_demo.text(results), as_json, indent=2)


@command(stopped=texts.evaluation_stopped)
def evaluate(
    source: Annotated[
        str,
        typer.Argument(
            help="A run's folder, a file of weights (the course's or other people's), or random or scratch."
        ),
    ],
    data: Annotated[
        str | None, typer.Option("--data", help="Default: what the run was pretrained on, or world.")
    ] = None,
    labels: options.Labels = None,
    protocol: Annotated[
        str | None, typer.Option(help="knn, linear or finetune (default: linear; scratch: finetune)")
    ] = None,
    labels_per_class: Annotated[
        str | None,
        typer.Option(help="Labelled images per class; several, with commas, give a curve (default: 10, by folds all)."),
    ] = None,
    folds: Annotated[
        int | None, typer.Option(help="Cross-validation on all labelled images, for where they are few.")
    ] = None,
    seeds: options.Seeds = 5,
    backbone: options.Backbone = None,
    stage: options.Stage = None,
    size: Annotated[
        int | None, typer.Option(help="Height and width in pixels (default: the run's, or the data's own).")
    ] = None,
    network: options.Network = None,
    prefix: options.Prefix = None,
    heads: options.Heads = None,
    stem: options.Stem = None,
    activation: options.Activation = None,
    normalize: options.Normalize = None,
    mistakes: options.Mistakes = None,
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """Measure a backbone with few labels: kNN, linear probe or fine-tuning, over several draws of the labels."""
    from sslcourse import backbones, locking, record, weights
    from sslcourse import device as devices
    from sslcourse.classify import pages
    from sslcourse.data.spec import load_labelled

    protocol = _protocol(source, protocol)
    budgets = None if labels_per_class is None else options.whole_numbers(labels_per_class, "--labels-per-class")
    where = devices.pick_device(device)
    fixed, used = None, record.Record(data, labels, size)
    if source not in BASELINES:
        hints = {"heads": heads, "stem": stem, "activation": activation, "normalize": normalize}
        fixed = weights.load(source, network=network, prefix=prefix, **hints)
        _say_whose_network(source, backbone, fixed)
        used = record.settled_for_data(source, record.of(fixed), data, labels, size)
    elif backbone is not None:
        backbones.refuse_unknown(backbone)
    read_at = _stage(source, stage, protocol, fixed)
    if mistakes is not None:
        pages.refuse_foreign(mistakes)
    splits = load_labelled(used.data or "world", size=used.image_size, labels=used.labels)
    texts.notices(splits.notes if folds is None else splits.notes_of_all)
    measured = fixed or _baseline(backbone, splits)
    asked = {"protocol": protocol, "seeds": seeds, "stage": read_at, "device": where, "progress": True}
    with locking.claimed_files(mistakes):
        curve, answers, tested, folds = _curve(measured, splits, budgets, folds, **asked)
        if mistakes is not None:
            pages.wrong(mistakes, answers, pages.of_images(tested), texts.asked_of(seeds))
    result = {
        "source": source,
        "data": used.data or "world",
        "protocol": protocol,
        "seeds": seeds,
        "stage": read_at,
        "folds": folds,
        "backbone": fixed.arch if fixed else backbone or BASELINE_BACKBONE,
        "image_size": list(splits.size),
        "classes": len(splits.classes),
        "test_images": len(tested),
        "device": str(where),
        **curve[-1],  # of the most labels
        "measures": _by_class(answers.measures),
    }
    if len(curve) > 1:
        result["curve"] = curve
    if mistakes is not None:
        result["mistakes"] = int(answers.wrong.sum())
    texts.show(result, texts.evaluated(result, answers.measures.by_class(), mistakes), as_json)


@command(stopped=texts.comparison_stopped)
def compare(
    tasks: Annotated[
        str, typer.Option(help="Pretext tasks, with commas between them (default: all; with --weights none).")
    ] = "",
    data: options.Spec = "world",
    labels: options.Labels = None,
    seeds: Annotated[
        int, typer.Option(max=options.MOST_SEEDS, help="How many seeds: of weights, order, views and labels alike.")
    ] = 5,
    labels_per_class: Annotated[int, typer.Option(help="Labelled images per class of the table.")] = 10,
    budgets: Annotated[str, typer.Option(help="Labels per class of the curves.")] = "1,2,5,10,20,50,100,500",
    finetune: Annotated[bool, typer.Option(help="Fine-tune as well, beside training from scratch.")] = True,
    factors: Annotated[bool, typer.Option(help="Probe the known factors of the images, where there are any.")] = True,
    steps: Annotated[int | None, typer.Option(help="Pretraining steps (default: the course's, task by task).")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images per step of pretraining (default: likewise).")] = None,
    backbone: options.Backbone = None,
    stem: Annotated[
        str | None, typer.Option(help="Of --backbone: imagenet, small or tiny (default: by the images' size).")
    ] = None,
    option: options.TaskOption = [],  # noqa: B006
    weights: Annotated[
        list[str],
        typer.Option(help="Published weights to compare as well: a file, a directory or a run's folder; repeatable."),
    ] = [],  # noqa: B006
    network: options.Network = None,
    prefix: options.Prefix = None,
    heads: options.Heads = None,
    stage: Annotated[
        str | None,
        typer.Option(help="Where features of --weights are read: 1 to 4, all, or class (default: as their file says)."),
    ] = None,
    their_stem: Annotated[
        str | None, typer.Option(help="Of --weights, as evaluate's --stem: small, tiny or solo-learn.")
    ] = None,
    activation: options.Activation = None,
    normalize: options.Normalize = None,
    out: Annotated[
        Path | None,
        options.path_option(help="JSON file, written after each measurement; what is in it is not repeated."),
    ] = None,
    size: options.Size = None,
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """Compare pretext tasks and published weights: the same probe, labels and seeds for each, beside baselines."""
    from sslcourse import compare as comparison
    from sslcourse import pretext

    curve = options.whole_numbers(budgets, "--budgets")
    hints = {"network": network, "prefix": prefix, "heads": heads, "stem": their_stem}
    hints |= {"activation": activation, "normalize": normalize}
    options.refuse_idle(hints | {"stage": stage}, weights, "--weights")
    names = [name.strip() for name in tasks.split(",")] if tasks else None if not weights else []
    known = {
        name: pretext.option_defaults(pretext.find(name)) for name in (pretext.tasks() if names is None else names)
    }
    results = comparison.run(
        names,
        data,
        seeds=seeds,
        labels=labels_per_class,
        budgets=curve,
        finetune=[labels_per_class] if finetune else [],
        scratch=curve if finetune else [],
        factors=factors,
        steps=steps,
        batch_size=batch_size,
        backbone=backbone,
        stem=stem,
        options=options.options_by_task(option, known),
        published=weights,
        reading=hints,
        stage=options.stage(stage),
        out=out,
        labels_file=labels,
        size=size,
        device=device,
    )
    texts.show(results, comparison.text(results), as_json)


@command(stopped=texts.bench_stopped)
def bench(
    as_json: options.Json = False,
    seconds: Annotated[float, typer.Option(min=0.01, max=600, help="Time for each measurement.")] = 4.0,
) -> None:
    """Measure speed: every figure a ratio of two things timed side by side on this machine."""
    from sslcourse import bench as the_bench

    results = the_bench.run(seconds=seconds)
    texts.show(results, the_bench.text(results), as_json, indent=2)


def _protocol(source: str, protocol: str | None) -> str:
    """The protocol that was asked for, or what suits the source."""
    from sslcourse import evaluate as evaluation

    if source == "scratch" and protocol not in (None, "finetune"):
        raise CourseError(
            f"scratch trains the whole network on the labels, so its protocol is finetune, and {protocol!r} was asked for; "
            "for frozen features without training use random."
        )
    protocol = protocol or ("finetune" if source == "scratch" else "linear")
    evaluation.refuse_unknown_protocol(protocol)
    return protocol


def _stage(source: str, asked: str | None, protocol: str, found: backbones.Backbone | None) -> int | str:
    """Where features are read: as asked for, else where the run's folder says, else at all stages."""
    from sslcourse import record

    stage = options.stage(asked)
    if protocol == "finetune":
        if stage not in (None, 4):
            raise CourseError(
                f"fine-tuning reads the last stage, 4, and {stage!r} was asked for; take linear or knn for it."
            )
        return 4
    if found is None:
        return "all" if stage is None else stage
    return record.stage_of(source, found, stage)


def _curve(
    network: backbones.Backbone | Callable[[int], backbones.Backbone],
    splits: Splits,
    budgets: list[int] | None,
    folds: int | None,
    **asked: Any,
) -> tuple[list[dict[str, Any]], Answers, ImageSet, int | None]:
    """What was measured with each number of labels per class, the largest last; what the models of the largest, one for each
    seed, said of which images; and by how many folds."""
    from sslcourse import classify
    from sslcourse import evaluate as evaluation
    from sslcourse.classify import fitting
    from sslcourse.classify import folds as cut
    from sslcourse.classify.measures import Answers

    scores: dict[int | None, list[Tensor]] = {}  # of each number of labels (N, C), a seed each
    asked["seen"] = lambda budget, found: scores.setdefault(budget, []).append(found)
    if folds is None:
        tested = splits.test
        found = evaluation.label_efficiency(network, splits, [10] if budgets is None else budgets, **asked)
    else:
        tested, asked_for = fitting.together(splits), folds
        folds = cut.Folds.of(tested, asked_for).count
        if folds < asked_for:
            texts.notices([f"{asked_for} folds were asked for, and the smallest class is enough for {folds}."])
        found = classify.label_efficiency(network, tested, [None] if budgets is None else budgets, folds=folds, **asked)
    curve = [_measured(budget, found[budget]) for budget in sorted(found, key=lambda budget: budget or 0)]
    most = curve[-1]
    return curve, Answers.of(scores[most["labels_per_class"]], tested, most["independent"]), tested, folds


def _by_class(measures: Measures) -> dict[str, Any]:
    """For JSON: all but the accuracy and its interval, which the result itself says, over seeds."""
    return {name: found for name, found in measures.as_json().items() if name not in ("accuracy", "interval95")}


def _measured(labels_per_class: int | None, summary: Summary) -> dict[str, Any]:
    """A summary for JSON. labels_per_class: None for all that there are."""
    return {
        "labels_per_class": labels_per_class,
        "accuracies": list(summary.values),
        "mean": summary.mean,
        "std": texts.finite(summary.std),
        "interval95": [texts.finite(end) for end in summary.interval],
        "independent": summary.test_images,
        "caution": summary.caution,
    }


def _say_whose_network(source: str, backbone: str | None, found: backbones.Backbone) -> None:
    """A run or a file brings its architecture; --backbone is of the baselines."""
    if backbone not in (None, found.arch):
        texts.notices([f"{source} is a {found.arch}; --backbone {backbone} says what random and scratch are made of."])


def _baseline(arch: str | None, splits: Splits) -> Callable[[int], backbones.Backbone]:
    """Networks of chance for these images, each from its seed."""
    from sslcourse import backbones

    return lambda seed: backbones.build(arch or BASELINE_BACKBONE, image_size=splits.size[1], seed=seed)
