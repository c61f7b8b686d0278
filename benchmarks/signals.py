"""Does a signal without labels know when to stop? The figures in benchmarks/README.md.

    python benchmarks/signals.py rotation simclr --steps 1200 --seeds 3 --record world

Each run is measured every so many steps, by `validation`'s signals and, in secret from them, by a linear probe with few
labels. Then each way of choosing a step (the last one, the best by a signal, the best by the probe itself, which nobody
without labels can know) is asked what its backbone is worth, on the same seeds.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from sslcourse import backbones, evaluate, pretext, train
from sslcourse import device as devices
from sslcourse.data import load
from sslcourse.data.splits import Splits
from sslcourse.summary import paired_difference
from sslcourse.validation import SIGNALS, Validation

RESULTS = Path(__file__).with_name("signals.json")


class Watched(Validation):
    """Notes what a probe with labels says beside what the signals say, which don't hear of it."""

    def __init__(self, splits: Splits, labels_per_class: int, **options: object):
        super().__init__(splits.val, **options)
        self.splits, self.labels_per_class = splits, labels_per_class

    def measure(self, backbone: backbones.Backbone, step: int, records: list) -> dict[str, float]:
        found = super().measure(backbone, step, records)
        if not found:
            return found
        features = evaluate.Features.of(backbone, self.splits, device=next(backbone.parameters()).device)
        values = [evaluate.probe_accuracy(features, self.splits, self.labels_per_class, seed) for seed in range(3)]
        return found | {"probe": sum(values) / len(values)}


def run(task: str, splits: Splits, seed: int, given: argparse.Namespace) -> list[dict[str, float]]:
    """What one run's measurements say, in order."""
    kind = pretext.find(task)
    config = train.TrainConfig(**kind.recipe | {"steps": given.steps, "batch_size": 64, "seed": seed})
    network = backbones.build(kind.arch, image_size=splits.size[1], seed=seed)
    watched = Watched(splits, given.labels_per_class, every=given.every)
    history = train.pretrain(
        pretext.build(task, network), splits.unlabeled, config, device=given.device, progress=False, validation=watched
    )
    return [record for record in history.records if "probe" in record]


def chosen(records: list[dict[str, float]]) -> dict[str, float]:
    """The probe's accuracy at the step that each way chooses."""
    best = {name: max(records, key=lambda record: record[name])["probe"] for name in (*SIGNALS, "probe")}
    return {"last step": records[-1]["probe"]} | best


def text(results: dict) -> str:
    lines = []
    for task, runs in results.items():
        rows = [chosen(records) for records in runs]
        for name in rows[0]:
            gain = paired_difference([row[name] for row in rows], [row["last step"] for row in rows])
            mean = sum(row[name] for row in rows) / len(rows)
            low, high = gain.interval
            lines.append(
                f"{task:<14} {name:<10} {mean:.3f}  {100 * gain.mean:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="+")
    parser.add_argument("--data", default="world")
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--every", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--labels-per-class", type=int, default=10)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--record", help="write the figures to signals.json under this name")
    given = parser.parse_args()
    splits, results = load(given.data), {}
    for task in given.tasks:
        results[task] = [run(task, splits, seed, given) for seed in range(given.seeds)]
        print(text({task: results[task]}), flush=True)
    if given.record:
        known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        about = {"steps": given.steps, "every": given.every, "labels": given.labels_per_class, "tasks": results}
        RESULTS.write_text(
            json.dumps(known | {given.record: about | {"device": devices.report(given.device)}}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
