"""Lesson 17's table: every way of learning from few labels and many pictures, on the same labels, over seeds.

    python benchmarks/joint.py --runs RUNS                  # all that isn't measured yet, the most important first
    python benchmarks/joint.py --runs RUNS --minutes 5      # as many of these as begin within five minutes
    python benchmarks/joint.py --signals --runs RUNS        # what is said of each pretext task without a label

Writes benchmarks/joint.json after each measurement, and goes on where it was stopped (RUNS holds checkpoints of
pretraining). A seed decides the labelled pictures, the order of everything and random weights; the pretrained backbones are
those of seed 0, so that an interval says how far labels and training matter, and not how far pretraining does.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import functools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from sslcourse import augment, backbones, evaluate, geometry, load, pretext, store, train, validation
from sslcourse import device as devices
from sslcourse.backbones import Backbone
from sslcourse.data import world
from sslcourse.data.imageset import ImageSet
from sslcourse.files import write_atomically
from sslcourse.locking import claimed
from sslcourse.pretext.together import Together
from sslcourse.supervised import Classifier
from sslcourse.transfer import semisupervised, shifts

RESULTS = Path(__file__).with_name("joint.json")
LABELS, SEEDS, PRETRAINED = 10, 5, 0
WEIGHTS = (0.3, 1.0, 3.0)
SEVERITY = 0.4  # of the corruptions; at 1 nothing is left to compare
LONG = 600  # steps, three times the usual number
FIRST = 3  # rows of which all seeds are measured before the others' first one
SCRATCH_RATE = 1e-2  # random weights prefer it, pretrained ones 3e-3
TOGETHER_STEPS = 600  # of 384 pictures: as many through the backbone as in rotation's 900 steps of 256


def together(images: ImageSet, runs: Path, device: str) -> Backbone:
    """Rotation and VICReg at once, for as many pictures through the backbone as rotation alone."""
    network = backbones.build(seed=PRETRAINED)
    task = Together(pretext.build("rotation", network), pretext.build("vicreg", network))
    config = train.TrainConfig(**pretext.find("rotation").recipe, steps=TOGETHER_STEPS, batch_size=64, seed=PRETRAINED)
    train.pretrain(task, images, config, out=runs / "together", resume=True, device=device, progress=False)
    return network.cpu().eval()


class Bench:
    """What all measurements of a seed share, made when it is first asked for."""

    def __init__(self, seed: int, runs: Path, device: str):
        self.seed, self.runs, self.device = seed, runs, device
        self.splits = load("world")
        self.few = self.splits.train.sample_per_class(LABELS, seed)
        self.config = dataclasses.replace(semisupervised.SEMI, seed=seed)

    @functools.cached_property
    def rotation(self) -> Backbone:
        return store.pretrained("rotation", seed=PRETRAINED, device=self.device, progress=False)

    @functools.cached_property
    def both(self) -> Backbone:
        return together(self.splits.unlabeled, self.runs, self.device)

    @functools.cached_property
    def tuned(self) -> Classifier:
        return self.finetuned(self.rotation)

    @functools.cached_property
    def joined(self) -> Classifier:
        return self.joint(self.rotation, 1.0, every_turn=True)

    def finetuned(
        self, start: Backbone, few: ImageSet | None = None, strong: bool = False, **changes: float
    ) -> Classifier:
        config = dataclasses.replace(self.config, **changes)
        options = {"augmentation": semisupervised.strong_augment} if strong else {}
        return train.finetune(start, few or self.few, config, device=self.device, progress=False, **options)[0]

    def learned(
        self,
        objective: semisupervised.Objective,
        few: ImageSet | None = None,
        unlabelled: ImageSet | None = None,
        **changes: float,
    ) -> Classifier:
        config = dataclasses.replace(self.config, **changes)
        pictures = unlabelled or self.splits.unlabeled
        return semisupervised.learn(objective, few or self.few, pictures, config, device=self.device, progress=False)[0]

    def random(self) -> Backbone:
        return backbones.build(seed=self.seed)

    def joint(self, start: Backbone, weight: float, every_turn: bool = False, **changes: float) -> Classifier:
        """Labels and rotation at once: each picture in one rotation, or in all four, which costs four times as much."""
        task = pretext.build("rotation", copy.deepcopy(start), all_rotations=every_turn)
        return self.learned(semisupervised.Joint(task, len(self.few.classes), weight=weight), **changes)

    def half(self, images: ImageSet, first: bool = True) -> ImageSet:
        """The pictures of the first five classes, or of the other ones, which keep no labels."""
        chosen = (images.labels < 5) == first
        part = images.select(chosen.nonzero().flatten())
        return dataclasses.replace(part, classes=part.classes[:5]) if first else part.without_labels()

    def of_five(self, pictures: str) -> Classifier:
        """Five classes labelled; unlabelled pictures of the same five, of the five others, or none."""
        few = self.half(self.few)
        if pictures == "none":
            return self.finetuned(self.rotation, few)
        known = world.split("unlabeled", labels=True)
        unlabelled = self.half(known, first=pictures == "same").without_labels()
        return self.learned(semisupervised.FixMatch(begun(self.rotation, 5)), few, unlabelled)


def begun(start: Backbone, classes: int = 10) -> Classifier:
    """A fresh head on a copy of the backbone."""
    return Classifier(copy.deepcopy(start), classes)


def methods() -> dict[str, Callable[[Bench], Classifier]]:
    """Name of a row to what trains it, the most important first."""
    s, slow = semisupervised, {"learning_rate": SCRATCH_RATE}
    found: dict[str, Callable[[Bench], Classifier]] = {
        "rotation, fine-tuned": lambda b: b.tuned,
        "rotation, joint": lambda b: b.joined,
        "rotation, joint, then FixMatch": lambda b: b.learned(s.FixMatch(copy.deepcopy(b.joined)), steps=LONG),
        "rotation, fine-tuned on strong views": lambda b: b.finetuned(b.rotation, steps=LONG, strong=True),
        "rotation, distilled": lambda b: b.learned(s.Distillation(begun(b.rotation), b.tuned)),
        "from scratch": lambda b: b.finetuned(b.random(), **slow),
        "rotation and VICReg, fine-tuned": lambda b: b.finetuned(b.both),
        "rotation, fine-tuned, then FixMatch": lambda b: b.learned(s.FixMatch(copy.deepcopy(b.tuned)), steps=LONG),
        "rotation, FixMatch": lambda b: b.learned(s.FixMatch(begun(b.rotation))),
        "rotation, pseudo-labels": lambda b: b.learned(s.PseudoLabels(begun(b.rotation))),
        "rotation, supervised contrast": lambda b: b.learned(s.SupervisedContrast(begun(b.rotation))),
        "rotation, fine-tuned three times as long": lambda b: b.finetuned(b.rotation, steps=LONG),
        "scratch, FixMatch": lambda b: b.learned(s.FixMatch(begun(b.random())), **slow),
        "scratch, pseudo-labels": lambda b: b.learned(s.PseudoLabels(begun(b.random())), **slow),
    }
    for weight in WEIGHTS:
        found[f"scratch, joint {weight:g}"] = functools.partial(lambda b, w: b.joint(b.random(), w, **slow), w=weight)
    for pictures in ("none", "same", "other"):
        found[f"five classes, {pictures}"] = functools.partial(lambda b, p: b.of_five(p), p=pictures)
    return found


def asked(name: str, size: int = 1000) -> dict[str, ImageSet]:
    """What a classifier is tested on: test pictures as they come, and shifted ones."""
    sets = {"test": world.split("test")}
    if not name.startswith("five"):
        sets |= {domain: world.split("test", size, domain=domain) for domain in ("sketch", "night")}
        sets |= {
            kind: shifts.corrupted(sets["test"].select(slice(0, size)), kind, SEVERITY) for kind in shifts.CORRUPTIONS
        }
    return sets


def accuracies(name: str, classifier: Classifier, bench: Bench) -> dict[str, float]:
    """The share of right answers on each set."""
    found = {}
    for which, images in asked(name).items():
        images = bench.half(images) if name.startswith("five") else images
        right = classifier.predict(images, device=bench.device) == images.labels
        found[which] = round(right.double().mean().item(), 4)
    return found


def signals(task: str, seed: int, device: str) -> dict[str, float]:
    """What can be said of a pretrained backbone without a label, and beside it what few labels say by a linear probe.

    Each task is pretrained for a quarter of the course's steps. The signals are taken on pictures that it didn't see.
    """
    splits, images = load("world"), world.split("val", 1000, labels=False)
    recipe = store.recipe(task, seed=seed)
    network = store.pretrained(task, seed=seed, steps=recipe.config.steps // 4, device=device, progress=False)
    views = (
        augment.view(images.images, devices.generator(0), times=2, scale=(0.7, 1.0)).mul(255).round().to(torch.uint8)
    )
    first, second = evaluate.extract(network, views, device=device).float().chunk(2)  # (N, d) each
    whole = evaluate.extract(network, images, device=device).float()
    features = evaluate.Features.of(network, splits, device=device)
    return {
        "arch": network.arch, "dim": whole.shape[1],
        "rankme": validation.rankme(whole), "effective rank": geometry.effective_rank(whole),
        "alignment": geometry.alignment(first, second), "uniformity": geometry.uniformity(whole),
        "retrieval": validation.retrieval(first, second),
        "linear probe": sum(evaluate.probe_accuracy(features, splits, LABELS, s) for s in range(3)) / 3,
    }  # fmt: skip


def read(path: Path = RESULTS) -> dict:
    if path.is_file():
        return json.loads(path.read_text())
    return {
        "about": "lesson 17, by benchmarks/joint.py",
        "labels per class": LABELS,
        "runs": {},
        "seconds": {},
        "signals": {},
    }


def record(kind: str, name: str, seed: int, found: dict, seconds: float, device: str, out: Path) -> None:
    """Put one measurement into the file as it is now: two of these commands may run side by side."""
    with claimed(out, file=True, wait=True):
        results = read(out) | {"device": device}
        if kind == "runs":
            results["runs"].setdefault(name, {})[str(seed)] = found
        else:
            results["signals"][name] = found
        results["seconds"].setdefault(name, {})[str(seed)] = round(seconds, 1)
        write_atomically(out, (json.dumps(results, indent=1) + "\n").encode())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True, help="a folder for checkpoints of pretraining")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the file of results")
    parser.add_argument("--minutes", type=float, default=1e6, help="begin nothing new after so many")
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--signals", action="store_true", help="measure the pretext tasks without labels")
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    results, begin = read(given.out), time.monotonic()
    device = devices.report(devices.pick_device(given.device))
    bench = functools.cache(lambda seed: Bench(seed, given.runs, given.device))
    if given.signals:
        tabled = json.loads(RESULTS.with_name("results.json").read_text())["tasks"]
        jobs = [("signals", task, 0) for task in tabled if task not in results["signals"]]
    else:
        rows, done = [name for name in methods() if given.only in name], results["runs"]
        jobs = [("runs", name, s) for name in rows for s in range(given.seeds) if str(s) not in done.get(name, {})]
        first = list(methods())[:FIRST]
        jobs.sort(key=lambda job: (job[1] not in first, job[2]))
    for kind, name, seed in jobs:
        started = time.monotonic()
        if started - begin > 60 * given.minutes:
            break
        if name in read(given.out)["signals"] or str(seed) in read(given.out)["runs"].get(name, {}):
            continue  # measured meanwhile by another process
        if kind == "signals":
            found = signals(name, seed, given.device)
        else:
            found = accuracies(name, methods()[name](bench(seed)), bench(seed))
        record(kind, name, seed, found, time.monotonic() - started, device, given.out)
        print(name, seed, found, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
