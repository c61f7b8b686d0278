"""Why doesn't lesson 16's network know whose colour it is? Hard negatives for every caption, with three controls.

    python benchmarks/binding.py --runs RUNS

All captions of a run say "a red boat beside a blue car", and each has its double with the colours exchanged. Three things vary.
*Pictures*: how many crowds there are to learn from. *Who reads*: the text transformer, which has to find out that a colour belongs
to the thing behind it; or a table with a vector for each colour and thing together, which is told so. *Doubles*: without them, nobody
asks whose colour it is. What a table brings, the words were in the way of; what more pictures bring, the pictures were; what goes
without doubles, the doubles brought. The image tower is the lesson's, with its mean over all places. One more run asks for places: "a
red boat left of a blue car", with doubles of either kind.

Each network is asked blind as well: the mean of all pictures in the place of each. Goes on where it was stopped: a run has its folder
in RUNS, and what stands in the file isn't measured again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from sslcourse import backbones, pretext, train
from sslcourse import device as devices
from sslcourse.data import words, world_captions
from sslcourse.data.imageset import ImageSet
from sslcourse.files import write_atomically
from sslcourse.pretext.clip import CLIP
from sslcourse.transfer import language

STEPS = 3000
PICTURES = (12_000, 48_000)  # crowds drawn; two in five have two things whose colours can be exchanged
COLOURS, THINGS = (1, 5), (2, 6)  # their places in "a red boat beside a blue car"


class Told(CLIP):
    """CLIP whose text tower is a table: a vector for every colour and thing together, and a sentence is the sum of its two."""

    def __init__(self, backbone: backbones.Backbone, *, dim: int = 64, swapped: bool = True):
        super().__init__(backbone, dim=dim, swapped=swapped)
        del self.text, self.text_map
        with devices.seeded(0):
            self.pairs = nn.Parameter(0.2 * torch.randn(len(words.WORDS), len(words.WORDS), dim))  # (V, V, dim)

    def of_texts(self, tokens: Tensor) -> Tensor:
        return self.pairs[tokens[:, COLOURS], tokens[:, THINGS]].sum(dim=1)  # (N, 2, dim) -> (N, dim)


@dataclass(frozen=True)
class Run:
    """Who reads, what is exchanged in the captions that it is tested on, and from how many crowds it learns."""

    reader: str
    swapped: str
    pictures: int

    def task(self) -> CLIP:
        backbone = backbones.build(seed=0)
        if self.reader == TABLE:
            return Told(backbone)
        return pretext.build("clip", backbone, swapped=self.reader == WORDS)

    def folder(self, runs: Path, steps: int) -> Path:
        return runs / "_".join([*self.reader.replace(",", "").split(), self.swapped, str(self.pictures), str(steps)])


WORDS, UNASKED, TABLE = "words", "words, no doubles", "a table of pairs"
RUNS = [Run(reader, "colours", pictures) for pictures in PICTURES for reader in (WORDS, TABLE)]
RUNS += [Run(UNASKED, "colours", PICTURES[-1]), Run(WORDS, "places", PICTURES[-1])]


def told_apart(task: CLIP, choice: world_captions.Choice, *, blind: bool = False) -> float:
    """Of pictures, the share that is nearer to its own sentence than to its double."""
    return language.preferred(task, choice.images, choice.right, choice.wrong, blind=blind).double().mean().item()


def measured(run: Run, steps: int, folder: Path) -> dict:
    """One run: what it tells apart of the pictures that it learned from, and of the test split's."""
    seen = world_captions.swapped(run.swapped, "unlabeled", run.pictures)
    new = world_captions.swapped(run.swapped, "test", 2000)
    task = run.task()
    images = ImageSet(seen.images, name="crowds", captions=tuple((sentence,) for sentence in seen.right))
    config = train.TrainConfig(steps=steps, batch_size=128, **task.recipe)
    train.pretrain(task, images, config, out=folder, resume=True, device="cpu")
    few = dataclasses.replace(seen, images=seen.images[:2000], right=seen.right[:2000], wrong=seen.wrong[:2000])
    shares = {
        "learned from": told_apart(task, few),
        "new": told_apart(task, new),
        "blind": told_apart(task, new, blind=True),
    }
    found = {"pairs": len(seen.right), "new pairs": len(new.right)} | {k: round(v, 4) for k, v in shares.items()}
    return dataclasses.asdict(run) | {"steps": steps} | found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--runs", type=Path, required=True, help="a folder for checkpoints")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("binding.json"))
    options = parser.parse_args()
    rows = json.loads(options.out.read_text())["rows"] if options.out.exists() else []
    for run in RUNS:
        asked = dataclasses.asdict(run) | {"steps": options.steps}
        if any(asked.items() <= row.items() for row in rows):
            continue
        rows.append(measured(run, options.steps, run.folder(options.runs, options.steps)))
        print(rows[-1], flush=True)
        about = {"device": devices.report(torch.device("cpu")), "rows": rows}
        write_atomically(options.out, (json.dumps(about, indent=1) + "\n").encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
