"""The main job, start to end: pictures without labels, a pretext task, a backbone, and what it is worth with few labels."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch

from sslcourse import backbones, evaluate, pretext, train
from sslcourse import device as devices
from sslcourse.data import load
from sslcourse.errors import CourseError
from sslcourse.files import write_atomically

BUDGETS = (1, 5, 10, 20, 50)  # labels per class of the curve
LABELS = 10  # labels per class of the table
STEPS, BATCH = 350, 64


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
    """
    if seeds < 1:
        raise CourseError(f"at least one seed is needed to measure anything, and {seeds} were asked for.")
    begin, where = time.perf_counter(), devices.pick_device(device)
    say(devices.report(where))
    splits = load(data, size=size)
    for note in splits.notes:
        say(note)
    evaluate.refuse_unlabelled(splits)
    most = int(torch.bincount(splits.train.labels).min())
    labels, budgets = min(LABELS, most), [b for b in BUDGETS if b <= most]
    say(f"1/3  pretraining on {len(splits.unlabeled)} pictures without labels: which way up is each?")
    side = splits.size[1]
    config = train.TrainConfig(steps=steps or STEPS, batch_size=min(BATCH, len(splits.unlabeled)), seed=seed)
    task = pretext.build("rotation", backbones.build("resnet-tiny", image_size=side, seed=seed))
    history = train.pretrain(task, splits.unlabeled, config, device=where)

    say(f"2/3  linear probes on frozen features, {seeds} draws of the labels")
    random = lambda s: backbones.build("resnet-tiny", image_size=side, seed=1000 + s)  # noqa: E731
    options = {"seeds": seeds, "device": where, "progress": True}
    curves = {
        name: evaluate.label_efficiency(network, splits, budgets, **options)
        for name, network in {
            "rotation, linear probe": task.backbone,
            "random features, linear probe": random,
        }.items()
    }
    say(f"3/3  fine-tuning with {labels} labels per class, {seeds} draws of the labels")
    tuned = {
        name: evaluate.evaluate(network, splits, protocol="finetune", labels_per_class=labels, **options)
        for name, network in {"rotation, fine-tuned": task.backbone, "from scratch": random}.items()
    }
    table = {name: curve[labels] for name, curve in curves.items()} | tuned
    gain = evaluate.paired_difference(tuned["rotation, fine-tuned"].values, tuned["from scratch"].values)
    few = splits.train.sample_per_class(labels, seed=0)
    classifier, _ = train.finetune(task.backbone, few, device=where)

    out = Path(out)
    results = {
        "data": data,
        "labels_per_class": labels,
        "pretext_accuracy": history.last["accuracy"],
        "table": {name: _record(summary) for name, summary in table.items()},
        "gain_of_pretraining": _record(gain),
        "curves": {n: {str(b): _record(s) for b, s in c.items()} for n, c in curves.items()},
        "figure": str(out / "figure.png"),
        "seconds": round(time.perf_counter() - begin, 1),
    }
    _figure(curves, tuned, labels, splits, classifier, out / "figure.png")
    write_atomically(out / "results.json", json.dumps(results, indent=2).encode())
    return results


def text(results: dict[str, Any]) -> str:
    """The results as a table to read, with where to go next."""
    k, spread = results["labels_per_class"], results["gain_of_pretraining"]
    lines = [
        f"\n{results['data']}, {k} labels per class: test accuracy, mean ± standard deviation over seeds",
        *(f"  {name:<32} {row['mean']:.3f} ± {row['std'] or 0:.3f}" for name, row in results["table"].items()),
        f"  pretraining gains {100 * spread['mean']:+.1f} points in fine-tuning"
        + (f" (95% interval {100 * spread['interval95'][0]:+.1f} to {100 * spread['interval95'][1]:+.1f})"
           if spread["std"] is not None else ""),
        f"\nfigure: {results['figure']}    ({results['seconds']:.0f} s)",
        "open the course: make lab, or python -m sslcourse lab",
    ]  # fmt: skip
    return "\n".join(lines)


def say(line: str) -> None:
    """A notice on standard error: standard output is for results."""
    print(line, file=sys.stderr, flush=True)


def _record(summary: evaluate.Summary) -> dict[str, Any]:
    alone = len(summary.values) == 1
    return {
        "mean": summary.mean,
        "std": None if alone else summary.std,
        "interval95": None if alone else list(summary.interval),
        "values": list(summary.values),
    }


def _figure(curves: dict, tuned: dict, labels: int, splits: Any, classifier: train.Classifier, path: Path) -> None:
    """Left the label-efficiency curve, right what the fine-tuned classifier says of two dozen test pictures."""
    os.environ.setdefault("MPLBACKEND", "Agg")
    import matplotlib.pyplot as plt

    from sslcourse import plots

    shown = torch.randperm(len(splits.test), generator=devices.generator(0))[:24]
    images, truth = splits.test.images[shown], splits.test.labels[shown]
    predicted = classifier.predict(images)
    with plt.rc_context(plots.STYLE):
        figure = plt.figure(figsize=(12.5, 5.2))
        left, right = figure.subfigures(1, 2, width_ratios=(1, 1.15))
        axis = plots.label_efficiency(curves, axis=left.subplots())
        for i, (name, summary) in enumerate(tuned.items(), start=len(curves)):
            axis.errorbar(
                labels, summary.mean, yerr=summary.half_width if len(summary.values) > 1 else None, label=name,
                marker=plots.MARKERS[i], color=plots.PALETTE[i], capsize=3, linestyle="",
            )  # fmt: skip
        axis.axhline(1 / len(splits.test.classes), color="black", linestyle=":", linewidth=1, label="chance")
        axis.legend(frameon=False, fontsize=8)
        axis.set_title("What pretraining without labels is worth")
        names = splits.test.classes
        right.suptitle(f"Fine-tuned with {labels} labels per class: predictions on test pictures", fontweight="bold")
        for axis, image, t, p in zip(right.subplots(4, 6).flat, images, truth, predicted, strict=False):
            axis.imshow(plots.to_picture(image))
            axis.axis("off")
            says = f"✓ {names[p]}" if p == t else f"✗ {names[p]}\n({names[t]})"
            axis.set_title(says, fontsize=8, fontweight="normal", color=plots.PALETTE[2 if p == t else 1])
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
