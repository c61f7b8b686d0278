"""The main job, start to end: pictures without labels, a pretext task, a backbone, and what it is worth with few labels."""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sslcourse import backbones, evaluate, files, locking, pretext, train
from sslcourse import device as devices
from sslcourse.console import printable
from sslcourse.data import load
from sslcourse.data.splits import Splits
from sslcourse.errors import whole_number
from sslcourse.paths import typed
from sslcourse.summary import Summary, paired_difference

BUDGETS = (1, 5, 10, 20, 50)  # labels per class of the curve
LABELS = 10  # labels per class of the table, where every class has as many
STEPS, BATCH = 350, 64
PRETRAINED, SCRATCH = "rotation, fine-tuned", "from scratch"


def run(
    data: str = "world",
    *,
    seeds: int = 5,
    steps: int | None = None,
    out: str | Path = "sslcourse-demo",
    size: int | None = 32,
    seed: int = 0,
    device: str = "auto",
) -> dict[str, Any]:
    """Pretrain on rotation, probe and fine-tune against random features and training from scratch.

    Writes `figure.png` and `results.json` to `out`, and returns the results. Notices and bars go to standard error.
    Raises CourseError for data without labels or with a class that has no image, and where another run writes `out` or
    something else lies there.
    """
    seeds = whole_number("at least one seed is needed to measure anything: their number", seeds)
    begin, where = time.perf_counter(), devices.pick_device(device)
    out = typed(out)
    numbers, figure = out / "results.json", out / "figure.png"
    with locking.claimed(out):
        files.refuse_foreign(numbers, lambda path: files.begins_with(path, '{\n  "data"'), "the result of a demo")
        files.refuse_foreign(
            figure, lambda path: numbers.is_file(), "the figure of a demo, whose results.json lies beside"
        )
        say(devices.report(where))
        splits = load(data, size=size)
        for note in splits.notes:
            say(note)
        labels, budgets = affordable(splits)
        task, history = pretrained(splits, steps, seed, where)
        curves, tuned = measured(task.backbone, splits, labels, budgets, seeds, where)
        classifier, _ = train.finetune(task.backbone, splits.train.sample_per_class(labels, seed=0), device=where)
        table = {name: curve[labels] for name, curve in curves.items()} | tuned
        results = {
            "data": data,
            "labels_per_class": labels,
            "test_images": len(splits.test),
            "pretext_accuracy": history.last["accuracy"],
            "table": {name: summary.record() for name, summary in table.items()},
            "gain_of_pretraining": paired_difference(tuned[PRETRAINED], tuned[SCRATCH]).record(),
            "curves": {name: {str(b): one.record() for b, one in curve.items()} for name, curve in curves.items()},
            "figure": str(figure),
            "seconds": round(time.perf_counter() - begin, 1),
        }
        draw(curves, tuned, labels, splits, classifier, figure)
        files.write_atomically(numbers, json.dumps(results, indent=2).encode())
    return results


def affordable(splits: Splits) -> tuple[int, list[int]]:
    """Labels per class of the table, and those of the curve, the table's among them: what the smallest class can give."""
    evaluate.refuse_unlabelled(splits)
    most = evaluate.labels_at_most(splits)
    labels = min(LABELS, most)
    return labels, sorted({labels, *(budget for budget in BUDGETS if budget <= most)})


def pretrained(
    splits: Splits, steps: int | None, seed: int, device: torch.device
) -> tuple[pretext.PretextTask, train.History]:
    """The pretext task after training on the pictures without labels."""
    say(f"1/3  pretraining on {len(splits.unlabeled)} pictures without labels: which way up is each?")
    config = train.TrainConfig(
        steps=STEPS if steps is None else steps, batch_size=min(BATCH, len(splits.unlabeled)), seed=seed
    )
    task = pretext.build("rotation", backbones.build("resnet-tiny", image_size=splits.size[1], seed=seed))
    return task, train.pretrain(task, splits.unlabeled, config, device=device)


def measured(
    backbone: backbones.Backbone,
    splits: Splits,
    labels: int,
    budgets: list[int],
    seeds: int,
    device: torch.device,
) -> tuple[dict[str, dict[int, Summary]], dict[str, Summary]]:
    """Curves of linear probes, {name: {labels per class: accuracies}}, and what fine-tuning gives, {name: accuracies}."""

    def random(seed: int) -> backbones.Backbone:
        return backbones.build("resnet-tiny", image_size=splits.size[1], seed=1000 + seed)

    options = {"seeds": seeds, "device": device, "progress": True}
    say(f"2/3  linear probes on frozen features, {seeds} draws of the labels")
    curves = {
        name: evaluate.label_efficiency(network, splits, budgets, **options)
        for name, network in {"rotation, linear probe": backbone, "random features, linear probe": random}.items()
    }
    say(f"3/3  fine-tuning with {labels} labels per class, {seeds} draws of the labels")
    tuned = {
        name: evaluate.evaluate(network, splits, protocol="finetune", labels_per_class=labels, **options)
        for name, network in {PRETRAINED: backbone, SCRATCH: random}.items()
    }
    return curves, tuned


def text(results: dict[str, Any]) -> str:
    """The results as a table to read, with where to go next."""
    gain = results["gain_of_pretraining"]
    sure = ""
    if gain["interval95"] is not None:
        low, high = (100 * end for end in gain["interval95"])
        sure = f" (95% interval {low:+.1f} to {high:+.1f})"
    lines = [
        f"\n{results['data']}, {results['labels_per_class']} labels per class: test accuracy on "
        f"{results['test_images']:,} pictures, mean ± standard deviation over seeds",
        *(f"  {name:<32} {row['mean']:.3f}{_spread(row['std'])}" for name, row in results["table"].items()),
        f"  pretraining gains {100 * gain['mean']:+.1f} points in fine-tuning{sure}",
        *([f"  {gain['caution']}"] if gain["caution"] else []),
        f"\nfigure: {results['figure']}    ({results['seconds']:.0f} s)",
        "open the course: make lab, or python -m sslcourse lab",
    ]
    return "\n".join(lines)


def _spread(std: float | None) -> str:
    """A single seed has none."""
    return "" if std is None else f" ± {std:.3f}"


def say(line: str) -> None:
    """A notice on standard error: standard output is for results."""
    print(printable(line, sys.stderr), file=sys.stderr, flush=True)


def draw(
    curves: Mapping[str, Mapping[int, Summary]],
    tuned: Mapping[str, Summary],
    labels: int,
    splits: Splits,
    classifier: train.Classifier,
    path: Path,
) -> None:
    """Left the label-efficiency curve, right what the fine-tuned classifier says of two dozen test pictures."""
    os.environ.setdefault("MPLBACKEND", "Agg")
    import matplotlib.pyplot as plt

    from sslcourse import plots

    with plt.rc_context(plots.STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a letter that no font here has becomes a box
        figure = plt.figure(figsize=(12.5, 5.2))
        left, right = figure.subfigures(1, 2, width_ratios=(1, 1.15))
        axis = plots.label_efficiency(curves, axis=left.subplots())
        for i, (name, summary) in enumerate(tuned.items(), start=len(curves)):
            low, high = plots.interval_or_mean(summary)
            axis.errorbar(
                labels,
                summary.mean,
                yerr=[[summary.mean - low], [high - summary.mean]],
                label=plots.as_text(name),
                marker=plots.MARKERS[i],
                color=plots.PALETTE[i],
                capsize=3,
                linestyle="",
            )
        axis.axhline(1 / len(splits.test.classes), color="black", linestyle=":", linewidth=1, label="chance")
        axis.legend(frameon=False, fontsize=8)
        axis.set_title("What pretraining without labels is worth")
        right.suptitle(f"Fine-tuned with {labels} labels per class: predictions on test pictures", fontweight="bold")
        draw_answers(list(right.subplots(4, 6).flat), splits, classifier)
        with files.written(path) as temporary:
            figure.savefig(temporary, dpi=110, format="png")
        plt.close(figure)


def draw_answers(axes: list, splits: Splits, classifier: train.Classifier) -> None:
    """On each axis a test picture, with what the classifier takes it for, and where that is wrong, what it is."""
    from sslcourse import plots

    shown = torch.randperm(len(splits.test), generator=devices.generator(0))[: len(axes)]
    images, truth = splits.test.images[shown], splits.test.labels[shown]
    names = [plots.as_text(name, longest=18) for name in splits.test.classes]
    for axis in axes:
        axis.axis("off")
    for axis, image, t, p in zip(axes, images, truth, classifier.predict(images), strict=False):
        axis.imshow(plots.to_picture(image))
        title = f"✓ {names[p]}" if p == t else f"✗ {names[p]}\n({names[t]})"
        axis.set_title(title, fontsize=8, fontweight="normal", color=plots.PALETTE[2 if p == t else 1])
