"""From photographs without labels to a classifier: what 200 labels give, and what choosing them adds.

    python benchmarks/practice.py --data folder:PATH --record "CIFAR-10 (JPEG)"

One backbone is pretrained on all pictures of the pool without labels. For each seed 200 pictures get a label, drawn at
random or chosen on the backbone's features; everything is trained on these alone. Learning rate and length of training
are chosen, for each row on its own, on a fifth of the labels, and then all of them are trained on. Test is touched once
for each figure. What is done already is kept in --out, so that the command goes on after an interruption.

"then FixMatch" goes on from the fine-tuned classifier with the pool's other pictures, still without labels (lesson 17: 600
steps). "choosing" is a linear classifier on frozen features against the number of labels, drawn or chosen.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import functools
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import torch
from long import Clock
from torch import Tensor

from sslcourse import backbones, classify, evaluate, explore, pretext, train
from sslcourse import device as devices
from sslcourse.classify import fitting, folds
from sslcourse.data import load
from sslcourse.data.imageset import ImageSet
from sslcourse.summary import Summary
from sslcourse.transfer import semisupervised

RESULTS = Path(__file__).with_name("practice.json")
TUNING = [(rate, steps) for steps in (200, 600) for rate in (1e-3, 3e-3, 1e-2)]  # learning rate, steps
FIXMATCH = dataclasses.replace(semisupervised.SEMI, steps=600)
CHOOSING = (50, 100, 200)  # labels
GAINS = (  # rows of which the first is compared with the second
    ("pretrained, fine-tuned", "scratch, fine-tuned"),
    ("pretrained, then FixMatch", "scratch, fine-tuned"),
    ("pretrained, then FixMatch", "scratch, then FixMatch"),
    ("pretrained, fine-tuned, typiclust", "pretrained, fine-tuned"),
    ("pretrained, linear, typiclust", "pretrained, linear"),
)


def pretrained(given: argparse.Namespace, images: ImageSet) -> tuple[backbones.Backbone, dict[str, float]]:
    """The backbone, and the seconds that its training took: of the wall and of processors, over all interruptions."""
    kind = pretext.find(given.task)
    config = train.TrainConfig(**kind.recipe | {"steps": given.steps, "batch_size": given.batch_size})
    task = pretext.build(given.task, backbones.build("resnet-tiny", image_size=images.size[0]))
    clock = Clock(given.out / "seconds.json")
    train.pretrain(task, images.without_labels(), config, out=given.out, resume=True, on_log=clock)
    return task.backbone, clock.seconds


def labelled(images: ImageSet, features: torch.Tensor, how: str, given: argparse.Namespace, seed: int) -> ImageSet:
    """The pictures that get a label: random ones, or those that `explore.choose` takes."""
    return images.select(explore.choose(features, given.labels, how=how, seed=seed))


def right(images: ImageSet, model: train.Classifier, device: torch.device) -> float:
    return (model.predict(images, device=device) == images.labels).float().mean().item()


def tuned(backbone: backbones.Backbone, few: ImageSet, seed: int, device: torch.device) -> train.Classifier:
    """Fine-tuned on all of `few`, with the rate and length that are best on a fifth of it."""
    learned, held = next(folds.parts(few.labels, torch.arange(len(few)), 5, seed))

    def classifier(images: ImageSet, rate: float, steps: int) -> train.Classifier:
        config = dataclasses.replace(train.FINETUNE, learning_rate=rate, steps=steps, seed=seed)
        return train.finetune(backbone, images, config, device=device, progress=False)[0]

    judged = few.select(held)
    scores = {choice: right(judged, classifier(few.select(learned), *choice), device) for choice in TUNING}
    return classifier(few, *max(TUNING, key=scores.__getitem__))


def matched(
    start: train.Classifier, few: ImageSet, pool: ImageSet, seed: int, device: torch.device
) -> train.Classifier:
    """A copy of a classifier after FixMatch on the few and on the whole pool, whose labels are hidden."""
    config, objective = dataclasses.replace(FIXMATCH, seed=seed), semisupervised.FixMatch(copy.deepcopy(start))
    return semisupervised.learn(objective, few, pool.without_labels(), config, device=device, progress=False)[0]


def probed(backbone: backbones.Backbone, few: ImageSet, test: ImageSet, seed: int, device: torch.device) -> float:
    """Test accuracy of a linear classifier on frozen features, as `sslcourse finetune --protocol linear` makes it."""
    model = classify.fit(backbone, few, protocol="linear", seed=seed, device=device).model
    return (model.logits(test.images, device=device).argmax(dim=1) == test.labels).float().mean().item()


def pixels(few: ImageSet, test: ImageSet, seed: int) -> float:
    flat = [images.images.flatten(1).float() / 255 for images in (few, test)]  # (N, 3 * H * W) each
    return linear(*flat, few.labels, test.labels, seed)


def linear(learned: Tensor, tested: Tensor, known: Tensor, truth: Tensor, seed: int) -> float:
    """Test accuracy of a linear probe on features (N, d) and (M, d), its penalty chosen on a fifth of the labels."""
    inner, held = next(folds.parts(known, torch.arange(len(known)), 5, seed))
    probe = evaluate.LinearProbe().fit(learned[inner], known[inner], learned[held], known[held])
    return (probe.predict(tested) == truth).float().mean().item()


def choosing(pool: ImageSet, test: ImageSet, features: tuple[Tensor, Tensor], given: argparse.Namespace) -> dict:
    """{how: {labels: accuracies over seeds}} of a linear classifier on features of the pool and of test; kept as it goes."""
    state = given.out / "choosing.json"
    found: dict[str, dict[str, list[float]]] = json.loads(state.read_text()) if state.exists() else {}
    for seed, count, how in itertools.product(range(given.seeds), CHOOSING, ("random", "typiclust", "k-center")):
        values = found.setdefault(how, {}).setdefault(str(count), [])
        if len(values) == seed:
            numbers = explore.choose(features[0], count, how=how, seed=seed)
            values.append(linear(features[0][numbers], features[1], pool.labels[numbers], test.labels, seed))
            state.write_text(json.dumps(found))
            print(f"seed {seed}, {count} labels, {how}: {values[-1]:.3f}", flush=True)
    return found


def ways(
    backbone: backbones.Backbone,
    pool: ImageSet,
    features: torch.Tensor,
    test: ImageSet,
    seed: int,
    given: argparse.Namespace,
    device: torch.device,
) -> dict[str, Callable[[], float]]:
    """Every row of the table, as a function that measures it."""
    fresh = backbones.build("resnet-tiny", image_size=pool.size[0], seed=seed)
    drawn, typical, covering = (
        labelled(pool, features, how, given, seed) for how in ("random", "typiclust", "k-center")
    )
    learned = functools.cache(lambda network: tuned(network, drawn, seed, device))
    grown = lambda network: matched(learned(network), drawn, pool, seed, device)  # noqa: E731
    return {
        "raw pixels, linear": lambda: pixels(drawn, test, seed),
        "scratch, fine-tuned": lambda: right(test, learned(fresh), device),
        "pretrained, linear": lambda: probed(backbone, drawn, test, seed, device),
        "pretrained, fine-tuned": lambda: right(test, learned(backbone), device),
        "pretrained, linear, typiclust": lambda: probed(backbone, typical, test, seed, device),
        "pretrained, fine-tuned, typiclust": lambda: right(test, tuned(backbone, typical, seed, device), device),
        "pretrained, linear, k-center": lambda: probed(backbone, covering, test, seed, device),
        "scratch, then FixMatch": lambda: right(test, grown(fresh), device),
        "pretrained, then FixMatch": lambda: right(test, grown(backbone), device),
    }


def measure(given: argparse.Namespace) -> dict:
    device = devices.pick_device(given.device)
    splits = load(given.data, size=given.size)
    pool = fitting.together(splits, test=False)
    backbone, seconds = pretrained(given, pool)
    features = evaluate.extract(backbone, pool, device=device)
    state = given.out / "rows.json"
    rows: dict[str, list[float]] = json.loads(state.read_text()) if state.exists() else {}
    for seed in range(given.seeds):
        for name, way in ways(backbone, pool, features, splits.test, seed, given, device).items():
            if len(rows.setdefault(name, [])) == seed:
                rows[name].append(way())
                state.write_text(json.dumps(rows))
                print(f"seed {seed}, {name}: {rows[name][-1]:.3f}", flush=True)
    tested = evaluate.extract(backbone, splits.test, device=device)
    chosen = choosing(pool, splits.test, (features, tested), given)
    return {
        "task": given.task, "steps": given.steps, "batch_size": given.batch_size, "labels": given.labels,
        "pool": len(pool), "test": len(splits.test), **seconds, "device": devices.report(device), "rows": rows,
        "choosing": chosen,
    }  # fmt: skip


def gains(result: dict) -> list[list[str]]:
    """Cells: the paired differences in points, with their intervals, of the rows that were measured."""
    rows, lines = result["rows"], []
    for a, b in GAINS:
        if a in rows and b in rows:
            difference = evaluate.paired_difference(rows[a], rows[b])
            low, high = difference.interval
            lines.append([a, b, f"{100 * difference.mean:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"])
    return lines


def chosen_table(result: dict) -> list[list[str]]:
    """Cells: a linear classifier's accuracy against the number of labels, drawn or chosen."""
    counts = [str(count) for count in CHOOSING]
    lines = [[how, *(str(Summary(tuple(found[c]))) for c in counts)] for how, found in result["choosing"].items()]
    return [["labels", *counts], *lines]


def text(result: dict) -> str:
    lines = [
        f"{result['labels']} labels, {result['task']}, {result['steps']} steps, {result['processor_seconds']:.0f} s of a processor"
    ]
    lines += [f"{name:<36} {Summary(tuple(values))}" for name, values in result["rows"].items()]
    lines += [f"{a} - {b}: {points} points" for a, b, points in gains(result)]
    return "\n".join([*lines, *map("  ".join, chosen_table(result))])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a folder of photographs, as sslcourse takes it")
    parser.add_argument("--task", default="rotation")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--labels", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--size", type=int)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path("runs/practice"), help="where the run is kept")
    parser.add_argument("--record", help="write the figures to practice.json under this name")
    given = parser.parse_args()
    result = measure(given)
    print(text(result))
    if given.record:
        known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        RESULTS.write_text(json.dumps(known | {given.record: result}, indent=1) + "\n")


if __name__ == "__main__":
    main()
