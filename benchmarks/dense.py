"""Segmentation and detection with few annotated images: the recorded figures of lesson 14 and benchmarks/README.md.

    python benchmarks/dense.py                        measure what dense.json lacks, then print the tables
    python benchmarks/dense.py --part main            the two comparisons that the course promises, alone
    python benchmarks/dense.py --report               print the tables of dense.json

Data are "world:crowd". Seed s draws the annotated images, the new weights of pyramid and head, the order and the moves, and
the weights of the random backbones; the pretrained backbones are the store's, of seed 0. Each row's learning rate is
chosen on the first 500 validation images, with a draw that isn't measured (seed 1000), at 20 images for segmentation and
50 for detection. Test is touched once per seed: all of it for masks, its first 1,000 images for boxes. Every
measurement is kept at once, so that a stopped run goes on where it was.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path

from sslcourse import backbones, evaluate, load, store
from sslcourse.files import write_atomically
from sslcourse.transfer import dense, detection, segmentation

RESULTS = Path(__file__).with_name("dense.json")
RATES = (1e-3, 3e-3, 1e-2)
CHOOSING = 1000  # the seed whose draw chooses the learning rates
# row: (pretext task or None for random weights, what is trained, steps as a multiple of the usual ones)
ROWS = {
    "from scratch": (None, "all", 1),
    "from scratch, 3 x the steps": (None, "all", 3),
    "random weights, frozen": (None, "head", 1),
    "vicreg, frozen": ("vicreg", "head", 1),
    "vicreg, fine-tuned": ("vicreg", "all", 1),
    "rotation, fine-tuned": ("rotation", "all", 1),
    "simclr, fine-tuned": ("simclr", "all", 1),
}
SOME = ("from scratch", "vicreg, frozen", "vicreg, fine-tuned")
# part: (kind, annotated images, rows, seeds)
PARTS = {
    "main": [("segmentation", 20, SOME, 5), ("detection", 50, SOME, 5)],
    "rows": [("segmentation", 20, tuple(ROWS), 5), ("detection", 50, tuple(ROWS), 5)],
    "curve": [("segmentation", n, SOME, 3) for n in (5, 20, 100, 500)]
    + [("detection", n, SOME, 3) for n in (10, 50, 200, 1000)],
}
KINDS = {
    "segmentation": (segmentation.TRAIN, segmentation.train_segmenter),
    "detection": (detection.TRAIN, detection.train_detector),
}


class Record:
    """dense.json: {"rates": {"kind, row": rate}, "scores": {"kind, row, annotated, seed": {name: value}}}."""

    def __init__(self):
        self.found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"rates": {}, "scores": {}}

    def keep(self, table: str, key: str, value) -> None:
        self.found[table][key] = value
        text = json.dumps({name: dict(sorted(self.found[name].items())) for name in ("rates", "scores")}, indent=1)
        write_atomically(RESULTS, (text + "\n").encode())


def train(kind: str, row: str, splits, annotated: int, seed: int, rate: float):
    task, tune, factor = ROWS[row]
    backbone = store.pretrained(task) if task else backbones.build("resnet-tiny", seed=seed)
    config, learn = KINDS[kind]
    config = dataclasses.replace(config, steps=factor * config.steps, seed=seed, learning_rate=rate)
    model, _ = learn(backbone, dense.sample(splits.train, annotated, seed), config, tune=tune, progress=False)
    return model


def scores(kind: str, model, images) -> dict[str, float]:
    if kind == "segmentation":
        return {"mIoU": segmentation.mean_iou(model.predict(images), images)}
    return detection.average_precision(detection.detect(model, images), images)


def measure(record: Record, part: str, splits) -> None:
    val = splits.val.select(slice(0, 500))
    tests = {"segmentation": splits.test, "detection": splits.test.select(slice(0, 1000))}
    for kind, annotated, rows, seeds in PARTS[part]:
        first, usual = ("mIoU", 20) if kind == "segmentation" else ("AP50", 50)
        for row in rows:
            chosen = f"{kind}, {row.removesuffix(', 3 x the steps')}"
            if chosen not in record.found["rates"]:
                tried = {r: scores(kind, train(kind, row, splits, usual, CHOOSING, r), val)[first] for r in RATES}
                record.keep("rates", chosen, max(tried, key=tried.get))
                print(f"{chosen}: " + ", ".join(f"{r:g}: {value:.3f}" for r, value in tried.items()), flush=True)
        for seed in range(seeds):  # seed by seed, so that a stopped run has whole pairs
            for row in rows:
                key = f"{kind}, {row}, {annotated}, {seed}"
                if key in record.found["scores"]:
                    continue
                begin = time.process_time()
                rate = record.found["rates"][f"{kind}, {row.removesuffix(', 3 x the steps')}"]
                found = scores(kind, train(kind, row, splits, annotated, seed, rate), tests[kind])
                record.keep("scores", key, {name: round(value, 5) for name, value in found.items()})
                print(f"{key}: {found} ({time.process_time() - begin:.0f} CPU s)", flush=True)


def values(found: dict, kind: str, row: str, annotated: int, name: str) -> tuple[float, ...]:
    """The recorded scores of a row, seed by seed."""
    start = f"{kind}, {row}, {annotated}, "
    seeds = sorted(int(key.removeprefix(start)) for key in found["scores"] if key.startswith(start))
    return tuple(found["scores"][f"{start}{seed}"][name] for seed in seeds)


def report(found: dict) -> None:
    for kind, annotated, names in (("segmentation", 20, ("mIoU",)), ("detection", 50, ("AP50", "AP"))):
        print(f"\n{kind}, {annotated} annotated images: mean ± standard deviation over seeds")
        for row in ROWS:
            columns = [values(found, kind, row, annotated, name) for name in names]
            if not columns[0]:
                continue
            line = "   ".join(f"{name} {evaluate.Summary(column)}" for name, column in zip(names, columns, strict=True))
            scratch = values(found, kind, "from scratch", annotated, names[0])
            if row != "from scratch" and len(columns[0]) == len(scratch) > 1:
                gain = evaluate.paired_difference(columns[0], scratch)
                low, high = (100 * end for end in gain.interval)
                line += (
                    f"   to scratch {100 * gain.mean:+.1f} points of {names[0]}, 95% interval {low:+.1f} to {high:+.1f}"
                )
            print(f"  {row:<28} {line}   ({len(columns[0])} seeds, rate {_rate(found, kind, row):g})")
    print("\nagainst the number of annotated images: mean over three seeds")
    for kind, name in (("segmentation", "mIoU"), ("detection", "AP50")):
        for row in SOME:
            counts = sorted({n for k, n, _, _ in PARTS["curve"] if k == kind})
            cells = {n: values(found, kind, row, n, name)[:3] for n in counts}
            told = "   ".join(f"{n}: {evaluate.Summary(v).mean:.3f}" for n, v in cells.items() if v)
            print(f"  {kind + ', ' + row:<36} {name} {told}")


def _rate(found: dict, kind: str, row: str) -> float:
    return found["rates"][f"{kind}, {row.removesuffix(', 3 x the steps')}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=tuple(PARTS), help="by default all")
    parser.add_argument("--report", action="store_true", help="measure nothing, print the tables")
    given = parser.parse_args()
    record = Record()
    if not given.report:
        splits = load("world:crowd")
        for part in [given.part] if given.part else PARTS:
            measure(record, part, splits)
    report(record.found)


if __name__ == "__main__":
    main()
