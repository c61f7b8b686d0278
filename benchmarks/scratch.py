"""What training from scratch reaches with so many labels, tuned in rate and length: the figures in scratch.json.

    python benchmarks/scratch.py --seeds 5

The floor of every table and bar chart of the course, and one curve. `compare` trains from scratch for as many steps as it
fine-tunes, so that both sides cost the same; whoever has no pretraining would train for longer. So each seed and number of
labels has every learning rate of `compare` with each length of `LENGTHS`, and the one that is best on validation is tested,
once. Weights and drawn labels are those of `compare`. What is done is written at once, and not done again.

Beside it stands a ceiling that lesson 04 asks for: the same network trained on scenes with every label that there is.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from pathlib import Path

from sslcourse import backbones, compare, comparison, evaluate, train
from sslcourse import device as devices
from sslcourse.data import load

RESULTS = comparison.TUNED
LENGTHS = (200, 800)  # steps of training
CEILING = dataclasses.replace(train.FINETUNE, steps=2400, batch_size=64)  # nothing is chosen


def measure(given: argparse.Namespace) -> comparison.Results:
    splits = load("world")
    empty = {"format": comparison.FORMAT, "data": "world", "runs": {}, "records": []}
    found = comparison.read(given.out) if given.out.exists() else empty
    found |= {
        "learning_rates": list(compare.RATES), "lengths": list(LENGTHS), "test_images": len(splits.test),
        "independent": splits.test.independent, "device": devices.report(given.device),
    }  # fmt: skip
    known = {(one["seed"], one["labels"]) for one in found["records"]}
    for labels, seed in itertools.product(given.labels, range(given.seeds)):
        if (seed, labels) not in known:
            network = backbones.build("resnet-tiny", image_size=splits.size[0], seed=1000 + seed)
            value = evaluate.finetune_accuracy(
                network, splits, labels, seed, rates=compare.RATES, lengths=LENGTHS, device=given.device, progress=False
            )
            found["records"].append(comparison.record(comparison.SCRATCH, seed, "finetune", labels, value))
            comparison.write(found, given.out)
            print(f"{labels} labels per class, seed {seed}: {value:.3f}", flush=True)
    return found


def ceiling(found: comparison.Results, given: argparse.Namespace) -> None:
    """Test accuracy on scenes after training with all labels, one seed, added to the records."""
    if comparison.accuracies(found, comparison.SCENES, "finetune", 500):
        return
    scenes = load("world:scenes")
    network = backbones.build("resnet-tiny", image_size=scenes.size[0], seed=0)
    value = evaluate.finetune_accuracy(network, scenes, 500, 0, CEILING, device=given.device, progress=False)
    found["records"].append(comparison.record(comparison.SCENES, 0, "finetune", 500, value))
    comparison.write(found, given.out)
    print(f"{comparison.SCENES}: {value:.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--labels", type=int, nargs="+", default=[10, 100, 1, 2, 5, 20, 50, 500], help="per class")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    found = measure(given)
    ceiling(found, given)
    for labels, summary in comparison.curve(found, comparison.SCRATCH, "finetune").items():
        print(f"{labels:>4} labels per class: {summary}")


if __name__ == "__main__":
    main()
