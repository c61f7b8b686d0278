"""Control from pixels: return against frames of every way to learn it, and the cells that an explorer comes to.

    python benchmarks/control.py --seeds 5 --minutes 10 --out benchmarks/control.json

Goes on where it was stopped: what is in the file already isn't measured again. A curve that begins with random play begins at as
many frames as that took, so that every way has seen the same number at its end.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch

from sslcourse import device as devices
from sslcourse.control import curiosity, learning
from sslcourse.control.curves import CORRIDOR, EXPLORED, FORMAT, FRAMES, PLAY, STEPS, pretrained
from sslcourse.control.environment import Fetch
from sslcourse.control.learning import ENVS
from sslcourse.control.play import random_play
from sslcourse.files import write_atomically

WAYS = (
    "from scratch", "temporal, frozen", "random, frozen", "pixels, frozen", "inverse, frozen", "simclr, frozen",
    "rotation, frozen", "temporal, fine-tuned", "from scratch, CURL",
)  # fmt: skip
EXPLORERS = ("random play", "explorer", "explorer, screen on")
UNTAUGHT = ("from scratch", "random", "pixels")  # they need no random play


def fetched(way: str, seed: int) -> dict:
    """The curve of one way and one seed: frames (random play counted in, where it was learned from) and mean returns."""
    task, how = way.split(", ") if ", " in way else (way, "")
    play = random_play(Fetch(), PLAY, seed=seed)
    before = 0 if task in UNTAUGHT else PLAY
    backbone = pretrained("random" if task in UNTAUGHT else task, play, seed)
    options = {
        "stage": 0 if task == "pixels" else 3,
        "frozen": how == "frozen",
        "contrast": how == "CURL",
        "seed": seed,
    }
    agent, wrap = learning.agent(backbone, play.images, **options)
    points = learning.curve(agent, wrap, FRAMES - before)
    return {"frames": [before + n for n, _ in points], "returns": [round(r, 4) for _, r in points]}


def explored(who: str, seed: int) -> dict:
    """How many cells of the corridor were come to, along EXPLORED frames: by random play, or by an explorer without reward."""
    options = CORRIDOR | {"screen": who.endswith("screen on")}
    if who == "random play":
        counts = curiosity.explore(None, None, EXPLORED, seed=seed, **options)
    else:
        play = random_play(Fetch(**options), PLAY, seed=seed)
        counts = curiosity.explore(pretrained("inverse", play, seed), play.images, EXPLORED, seed=seed, **options)
    every = len(counts) // 20
    return {"frames": [ENVS * k * every for k in range(1, 21)], "cells": counts[every - 1 :: every][:20]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=1e9, help="begin nothing after so long")
    parser.add_argument("--ways", nargs="*", default=[*WAYS, *EXPLORERS])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("control.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)  # the networks are too small for more
    found = json.loads(options.out.read_text()) if options.out.exists() else {"format": FORMAT, "runs": {}}
    found |= {
        "device": devices.report(torch.device("cpu")),
        "frames": FRAMES,
        "random play": PLAY,
        "pretraining steps": STEPS,
    }
    begin = time.perf_counter()
    for seed in range(options.seeds):
        for way in options.ways:
            runs = found["runs"].setdefault(way, {})
            if str(seed) in runs or time.perf_counter() - begin > 60 * options.minutes:
                continue
            started = time.perf_counter()
            runs[str(seed)] = (explored if way in EXPLORERS else fetched)(way, seed)
            runs[str(seed)]["seconds"] = round(time.perf_counter() - started)
            write_atomically(options.out, (json.dumps(found, indent=1) + "\n").encode())
            print(way, seed, runs[str(seed)], flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
