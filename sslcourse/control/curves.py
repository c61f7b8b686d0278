"""How lesson 18's agents are compared: the sizes of a run, and the curves that `benchmarks/control.py` measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sslcourse import backbones, pretext, train
from sslcourse.backbones import Backbone
from sslcourse.control import pretraining
from sslcourse.data.imageset import ImageSet
from sslcourse.errors import CourseError, one_of
from sslcourse.summary import Summary

FORMAT = "sslcourse control 1"
STORED = Path(__file__).parents[2] / "benchmarks" / "control.json"
FRAMES, PLAY, STEPS = 5_000, 2_000, 200  # in all, of these random play, and the steps of pretraining on it
CORRIDOR = {"rooms": 24, "steps": 200, "screen": False}  # of `Fetch`: where the reward is far away
EXPLORED = 20_000  # frames of an explorer's training
OF_PLAY = {kind.name: kind for kind in (pretraining.TemporalContrast, pretraining.InverseDynamics)}
TASKS = ("random", "rotation", "simclr", *OF_PLAY)  # what a frozen backbone has learned from; random weights first


def pretrained(task: str, play: ImageSet, seed: int = 0) -> Backbone:
    """A backbone after STEPS steps of one of TASKS on frames of random play. Raises CourseError for another task."""
    one_of("task", task, TASKS)
    backbone = backbones.build(seed=seed)
    if task == "random":
        return backbone
    mild = {"crop": 0.6} if task == "simclr" else {}  # a smaller crop would lose the screen or the hand
    built = OF_PLAY[task](backbone) if task in OF_PLAY else pretext.build(task, backbone, **mild)
    config = train.TrainConfig(**built.recipe | {"steps": STEPS, "batch_size": 64, "seed": seed})
    train.pretrain(built, play, config, device="cpu", progress=False)
    return backbone


def stored(path: Path = STORED) -> dict[str, Any]:
    """What `benchmarks/control.py` measured. Raises CourseError where the checkout isn't there, or the file another one."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise CourseError(f"there are no stored curves at {path.name}; `python benchmarks/control.py` measures them.")
    return found


def at_the_end(found: dict[str, Any], way: str) -> Summary:
    """The returns of one way at the end of its curves, over seeds."""
    return Summary(tuple(run["returns"][-1] for run in found["runs"][way].values()))


def ratio(found: dict[str, Any], one: str, other: str) -> float:
    """One way's mean return at the end over another's, of the seeds that both have: the same rooms, weights and play.

    Raises CourseError where they share none.
    """
    sides = [{seed: run["returns"][-1] for seed, run in found["runs"][way].items()} for way in (one, other)]
    shared = sides[0].keys() & sides[1].keys()
    if not shared:
        raise CourseError(f"{one} and {other} share no seed; measure them with the same ones.")
    above, below = (sum(side[seed] for seed in shared) for side in sides)
    return above / below


def along(found: dict[str, Any], way: str) -> tuple[list[int], list[Summary]]:
    """Frames, and the returns over seeds at each of them."""
    runs = list(found["runs"][way].values())
    return runs[0]["frames"], [Summary(values) for values in zip(*(run["returns"] for run in runs), strict=True)]


def cells(found: dict[str, Any], who: str) -> Summary:
    """The different cells of the corridor that were come to in EXPLORED frames, over seeds."""
    return Summary(tuple(run["cells"][-1] for run in found["runs"][who].values()))
