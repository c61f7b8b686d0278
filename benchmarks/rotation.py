"""What rotation prediction is worth: the figures in benchmarks/README.md.

    python benchmarks/rotation.py --data world --steps 800 --seeds 5 --labels-per-class 10
    python benchmarks/rotation.py --data folder:PATH --steps 4000 --seeds 3 --labels-per-class 100 --no-finetune

Seed s draws the weights, the order and the views of pretraining, the labelled images, and the weights of both
baselines. The probe's penalty is chosen on validation; test is touched once per seed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from sslcourse import backbones, evaluate, pretext, train
from sslcourse import device as devices
from sslcourse.data import load


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="world")
    parser.add_argument("--task", default="rotation")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--labels-per-class", type=int, default=10)
    parser.add_argument("--no-finetune", action="store_true")
    parser.add_argument("--out", type=Path, help="write the results to this JSON file")
    given = parser.parse_args()

    splits = load(given.data)
    results: dict[str, list[float]] = {}
    seconds, pretext_accuracy = [], []
    for seed in range(given.seeds):
        config = train.TrainConfig(steps=given.steps, batch_size=given.batch_size, seed=seed)
        task = pretext.build(given.task, backbones.build(seed=seed))
        begin = time.perf_counter()
        history = train.pretrain(task, splits.unlabeled, config)
        seconds.append(time.perf_counter() - begin)
        pretext_accuracy.append(history.last["accuracy"])
        rows = {
            "linear probe": (task.backbone, "linear"),
            "kNN": (task.backbone, "knn"),
            "random features, linear probe": (backbones.build(seed=1000 + seed), "linear"),
            "random features, kNN": (backbones.build(seed=1000 + seed), "knn"),
        }
        if not given.no_finetune:
            rows["fine-tuned"] = (task.backbone, "finetune")
            rows["from scratch"] = (backbones.build(seed=1000 + seed), "finetune")
        for name, (backbone, protocol) in rows.items():
            value = evaluate.evaluate(
                backbone, splits, protocol=protocol, labels_per_class=given.labels_per_class, seeds=[seed]
            ).mean
            results.setdefault(name, []).append(value)
        print(f"seed {seed}: " + ", ".join(f"{n} {v[-1]:.3f}" for n, v in results.items()), file=sys.stderr, flush=True)

    print(f"{given.task} on {given.data}, {given.steps} steps of {given.batch_size} images, {devices.report()}")
    print(
        f"pretraining took {evaluate.Summary(tuple(seconds)).mean:.0f} s, pretext accuracy {sum(pretext_accuracy) / given.seeds:.3f}"
    )
    print(f"{given.labels_per_class} labels per class, {given.seeds} seeds: mean ± standard deviation of test accuracy")
    for name, values in results.items():
        print(f"  {name:<32} {evaluate.Summary(tuple(values))}")
    pairs = [("linear probe", "random features, linear probe"), ("kNN", "random features, kNN")]
    pairs += [] if given.no_finetune else [("fine-tuned", "from scratch")]
    for ours, baseline in pairs:
        gain = evaluate.paired_difference(results[ours], results[baseline])
        low, high = gain.interval
        print(
            f"  {ours} - {baseline}: {100 * gain.mean:+.1f} points, 95% interval {100 * low:+.1f} to {100 * high:+.1f}"
        )
    if given.out:
        about = {"data": given.data, "task": given.task, "steps": given.steps, "batch_size": given.batch_size}
        about |= {"labels_per_class": given.labels_per_class, "seconds": seconds, "accuracies": results}
        given.out.write_text(json.dumps(about, indent=2) + "\n")


if __name__ == "__main__":
    main()
