"""What a pretext task is worth: the figures in benchmarks/README.md.

    python benchmarks/tasks.py rotation --steps 900 --seeds 5 --labels-per-class 10 --record world
    python benchmarks/tasks.py rotation --data folder:PATH --steps 4000 --seeds 3 --labels-per-class 100 --no-finetune

Seed s draws the weights, the order and the views of pretraining, the labelled images, and the weights of both
baselines. The probe's penalty and the learning rate of fine-tuning are chosen on validation, for each seed and each
side of a comparison on its own; test is touched once per seed.
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

RESULTS = Path(__file__).with_name("tasks.json")
RATES = (1e-3, 3e-3, 1e-2)  # learning rates of fine-tuning


def measure(given: argparse.Namespace) -> dict:
    """Every seed's accuracies by row, pretraining's seconds and the last record of each history."""
    splits = load(given.data, size=given.size)
    side = splits.train.images.shape[-1]
    pixels = evaluate.Features(
        *(part.images.flatten(1).float() / 255 for part in (splits.train, splits.val, splits.test))
    )
    recipe = pretext.find(given.task).recipe
    options = {name: json.loads(value) for name, value in (pair.split("=", 1) for pair in given.option)}
    accuracies: dict[str, list[float]] = {}
    seconds, last = [], []
    for seed in range(given.seeds):
        config = train.TrainConfig(**recipe | {"steps": given.steps, "batch_size": given.batch_size, "seed": seed})
        backbone = backbones.build(given.backbone, image_size=side, seed=seed)
        task = pretext.build(given.task, backbone, **options)
        random = backbones.build(given.backbone, image_size=side, seed=1000 + seed)
        begin = time.perf_counter()
        last.append(train.pretrain(task, splits.unlabeled, config).last)
        seconds.append(time.perf_counter() - begin)
        measured = {"raw pixels, linear probe": evaluate.probe_accuracy(pixels, splits, given.labels_per_class, seed)}
        for name, network in (("random features", random), (given.task, task.backbone)):
            features = evaluate.Features.of(network, splits)
            for protocol in ("knn", "linear"):
                measured[f"{name}, {protocol}"] = evaluate.probe_accuracy(
                    features, splits, given.labels_per_class, seed, protocol
                )
            if given.stages:
                for stage in (1, 2, 3, 4):
                    features = evaluate.Features.of(network, splits, stage=stage)
                    measured[f"{name}, stage {stage}"] = evaluate.probe_accuracy(
                        features, splits, given.labels_per_class, seed
                    )
            if not given.no_finetune:
                row = "from scratch" if network is random else f"{name}, finetune"
                measured[row] = evaluate.finetune_accuracy(
                    network, splits, given.labels_per_class, seed, rates=RATES, progress=False
                )
        for name, value in measured.items():
            accuracies.setdefault(name, []).append(value)
        print(f"seed {seed}: " + ", ".join(f"{n} {v:.3f}" for n, v in measured.items()), file=sys.stderr, flush=True)
    return {"seconds": seconds, "last": last, "accuracies": accuracies}


def report(given: argparse.Namespace, results: dict) -> None:
    """The table, with paired differences to the baselines."""
    accuracies = results["accuracies"]
    print(f"{given.task} on {given.data}, {given.steps} steps of {given.batch_size} images, {devices.report()}")
    print(f"pretraining took {evaluate.Summary(tuple(results['seconds'])).mean:.0f} s, and ended with")
    print("  " + ", ".join(f"{k} {sum(r[k] for r in results['last']) / given.seeds:.4g}" for k in results["last"][0]))
    print(f"{given.labels_per_class} labels per class, {given.seeds} seeds: mean ± standard deviation of test accuracy")
    for name, values in accuracies.items():
        print(f"  {name:<32} {evaluate.Summary(tuple(values))}")
    pairs = [(f"{given.task}, {p}", f"random features, {p}") for p in ("knn", "linear")]
    pairs += [] if given.no_finetune else [(f"{given.task}, finetune", "from scratch")]
    for ours, baseline in pairs if given.seeds > 1 else []:
        gain = evaluate.paired_difference(accuracies[ours], accuracies[baseline])
        low, high = (100 * end for end in gain.interval)
        print(f"  {ours} - {baseline}: {100 * gain.mean:+.1f} points, 95% interval {low:+.1f} to {high:+.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task")
    parser.add_argument("--data", default="world")
    parser.add_argument("--size", type=int)
    parser.add_argument("--backbone", default="resnet-tiny")
    parser.add_argument("--option", action="append", default=[], help="an option of the task, NAME=JSON; repeatable")
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--labels-per-class", type=int, default=10)
    parser.add_argument("--no-finetune", action="store_true")
    parser.add_argument("--stages", action="store_true", help="probe each stage alone, too")
    parser.add_argument("--record", help="keep the results under this name in tasks.json")
    given = parser.parse_args()
    results = measure(given)
    report(given, results)
    if given.record:
        known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        about = {name: value for name, value in vars(given).items() if name not in ("record", "data")}
        known[f"{given.task} on {given.record}"] = about | results
        RESULTS.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n")


if __name__ == "__main__":
    main()
