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
from sslcourse.control.curves import CORRIDOR, EXPLORED, FORMAT, FRAMES, PLAY, STEPS, TASKS, pretrained
from sslcourse.control.environment import Fetch
from sslcourse.control.play import random_play
from sslcourse.files import write_atomically

WAYS = ("from scratch", *(f"{task}, frozen" for task in TASKS), "temporal, fine-tuned", "from scratch, CURL")


def fetched(way: str, seed: int) -> dict:
    """The curve of one way and one seed: frames (random play counted in, where it was learned from) and mean returns."""
    task, how = way.split(", ") if ", " in way else (way, "")
    play = random_play(Fetch(), PLAY, seed=seed)
    before = 0 if task in ("random", "from scratch") else PLAY
    backbone = pretrained("random" if task == "from scratch" else task, play, seed)
    options = {"frozen": how == "frozen", "contrast": how == "CURL", "seed": seed}
    agent, wrap = learning.agent(backbone, play.images[:1000], **options)
    points = learning.curve(agent, wrap, FRAMES - before)
    return {"frames": [before + n for n, _ in points], "returns": [round(r, 4) for _, r in points]}


def explored(way: str, seed: int) -> dict:
    """Cells that an episode of 200 steps comes to, on average: by random play, or by an explorer that was never rewarded."""
    if way == "random play":
        cells = curiosity.cells_visited(None, None, seed=seed, **CORRIDOR)
    else:
        play = random_play(Fetch(**CORRIDOR), PLAY, seed=seed)
        backbone = pretrained("inverse", play, seed)
        found = curiosity.explorer(backbone, play.images[:1000], EXPLORED, seed=seed, **CORRIDOR)
        cells = curiosity.cells_visited(*found, seed=seed, **CORRIDOR)
    return {"cells": sum(cells) / len(cells)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=1e9, help="begin nothing after so long")
    parser.add_argument("--ways", nargs="*", default=[*WAYS, "random play", "explorer"])
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
            runs[str(seed)] = (explored if way in ("random play", "explorer") else fetched)(way, seed)
            runs[str(seed)]["seconds"] = round(time.perf_counter() - started)
            write_atomically(options.out, (json.dumps(found, indent=1) + "\n").encode())
            print(way, seed, runs[str(seed)], flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
