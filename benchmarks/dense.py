"""Segmentation and detection with few annotated images: the recorded figures of lesson 14.

    python benchmarks/dense.py              measure what dense.json lacks, then print its tables in Markdown
    python benchmarks/dense.py --report     print the tables of dense.json

Data are "world:crowd". Seed s draws the annotated images, the new weights of pyramid and head, the order and the moves, and
the weights of the random backbones; the pretrained backbones are the store's, of seed 0. Each row's learning rate is
chosen on the first 500 validation images, with a draw that isn't measured (seed 1000), at 20 images for segmentation and
50 for detection. Test is touched once per measurement: all of it for masks, its first 1,000 images for boxes. Every
measurement is kept at once, so that a stopped run goes on where it was. All of it takes about 45 minutes on one core.
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
CHOOSING = 1000  # the seed whose draw chooses the learning rates
SCRATCH, BEST, LONGER = "from scratch", "rotation, fine-tuned", ", 3 x the steps"
# row: (pretext task or None for random weights, what is trained, steps as a multiple of the usual ones)
ROWS = {
    SCRATCH: (None, "all", 1),
    SCRATCH + LONGER: (None, "all", 3),
    "random weights, frozen": (None, "head", 1),
    "vicreg, frozen": ("vicreg", "head", 1),
    "vicreg, fine-tuned": ("vicreg", "all", 1),
    "rotation, frozen": ("rotation", "head", 1),
    BEST: ("rotation", "all", 1),
    BEST + LONGER: ("rotation", "all", 3),
}
CURVES = (SCRATCH, BEST, SCRATCH + LONGER, BEST + LONGER)  # against the number of annotated images
# kind: settings, training, learning rates to choose from, annotated images, the scores of the table
KINDS = {
    "segmentation": (segmentation.TRAIN, segmentation.train_segmenter, (3e-3, 1e-2), 20, ("mIoU",)),
    "detection": (detection.TRAIN, detection.train_detector, (1e-3, 3e-3), 50, ("AP50", "AP")),
}
# (kind, annotated images, rows, seeds), in this order
PARTS = (
    ("segmentation", 20, tuple(ROWS), 5),
    ("detection", 50, tuple(ROWS), 5),
    *(("segmentation", count, CURVES, 3) for count in (5, 100, 400)),
)


class Record:
    """dense.json: {"rates": {"kind, row": rate}, "scores": {"kind, row, annotated, seed": {name: value}}}."""

    def __init__(self):
        self.found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"rates": {}, "scores": {}}

    def keep(self, table: str, key: str, value) -> None:
        self.found[table][key] = value
        text = json.dumps({name: dict(sorted(self.found[name].items())) for name in ("rates", "scores")}, indent=1)
        write_atomically(RESULTS, (text + "\n").encode())


def trained(kind: str, row: str, splits, annotated: int, seed: int, rate: float):
    """A segmenter or detector of this row."""
    task, tune, factor = ROWS[row]
    backbone = store.pretrained(task, progress=False) if task else backbones.build("resnet-tiny", seed=seed)
    config, learn = KINDS[kind][:2]
    config = dataclasses.replace(config, steps=factor * config.steps, seed=seed, learning_rate=rate)
    few = dense.sample(splits.train, annotated, seed)
    return learn(backbone, few, config, tune=tune, device="cpu", progress=False)[0]


def scores(kind: str, model, images) -> dict[str, float]:
    if kind == "segmentation":
        return {"mIoU": segmentation.mean_iou(model.predict(images), images)}
    return detection.average_precision(detection.detect(model, images), images)


def chosen_rate(record: Record, kind: str, row: str, splits) -> float:
    """The learning rate that is best on validation; a row with more steps takes that of the row without."""
    row = row.removesuffix(LONGER)
    key = f"{kind}, {row}"
    if key not in record.found["rates"]:
        _, _, rates, usual, (first, *_) = KINDS[kind]
        val = splits.val.select(slice(0, 500))
        tried = {rate: scores(kind, trained(kind, row, splits, usual, CHOOSING, rate), val)[first] for rate in rates}
        record.keep("rates", key, max(tried, key=tried.get))
        print(f"{key}: " + ", ".join(f"{rate:g}: {value:.3f}" for rate, value in tried.items()), flush=True)
    return record.found["rates"][key]


def measure(record: Record, splits) -> None:
    tests = {"segmentation": splits.test, "detection": splits.test.select(slice(0, 1000))}
    for kind, annotated, rows, seeds in PARTS:
        for seed in range(seeds):  # seed by seed, so that a stopped run has whole pairs
            for row in rows:
                key = f"{kind}, {row}, {annotated}, {seed}"
                if key in record.found["scores"]:
                    continue
                rate, begin = chosen_rate(record, kind, row, splits), time.process_time()
                found = scores(kind, trained(kind, row, splits, annotated, seed, rate), tests[kind])
                found = {name: round(value, 5) for name, value in found.items()}
                record.keep("scores", key, found)
                print(f"{key}: {found} ({time.process_time() - begin:.0f} CPU s)", flush=True)


def values(found: dict, kind: str, row: str, annotated: int, name: str) -> tuple[float, ...]:
    """The recorded scores of a row, seed by seed."""
    start = f"{kind}, {row}, {annotated}, "
    seeds = sorted(int(key.removeprefix(start)) for key in found["scores"] if key.startswith(start))
    return tuple(found["scores"][f"{start}{seed}"][name] for seed in seeds)


def report(found: dict) -> str:
    """Tables in Markdown: every row of both kinds at the usual number of images, and curves against that number."""
    lines = []
    for kind, (_, _, _, annotated, names) in KINDS.items():
        lines += [
            f"{kind.capitalize()}, {annotated} annotated images, test, mean ± standard deviation over five seeds:",
            "",
        ]
        lines.append(
            f"| backbone | {' | '.join(names)} | points of {names[0]} above scratch with as many steps, 95% interval |"
        )
        lines.append("|---|" + "---|" * (len(names) + 1))
        for row in ROWS:
            columns = [values(found, kind, row, annotated, name) for name in names]
            alike = SCRATCH + LONGER * row.endswith(LONGER)  # as many steps
            scratch = values(found, kind, alike, annotated, names[0])
            gain = ""
            if row != alike and len(columns[0]) == len(scratch) > 1:
                difference = evaluate.paired_difference(columns[0], scratch)
                low, high = (100 * end for end in difference.interval)
                gain = f"{100 * difference.mean:+.1f} ({low:+.1f} to {high:+.1f})"
            if columns[0]:
                lines.append(f"| {row} | {' | '.join(str(evaluate.Summary(column)) for column in columns)} | {gain} |")
        lines.append("")
    counts = sorted({count for kind, count, _, _ in PARTS if kind == "segmentation"})
    lines += ["Segmentation, mIoU against the number of annotated images, mean over three seeds:", ""]
    lines.append(f"| backbone | {' | '.join(map(str, counts))} |\n|---|" + "---|" * len(counts))
    for row in CURVES:
        cells = [values(found, "segmentation", row, count, "mIoU")[:3] for count in counts]
        lines.append(f"| {row} | " + " | ".join(f"{sum(v) / len(v):.3f}" if v else "" for v in cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", action="store_true", help="measure nothing, print the tables")
    given = parser.parse_args()
    record = Record()
    if not given.report:
        measure(record, load("world:crowd"))
    print(report(record.found))


if __name__ == "__main__":
    main()
