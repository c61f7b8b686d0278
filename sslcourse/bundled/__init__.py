"""Backbones that come with the package: trained for longer than a lesson can wait, each with a record of how.

Beside each file of weights, with 16 bits a number, lies its record as JSON: task, backbone, options, budget (its steps as
a multiple of the recipe's), command, commit, device, seconds, the loss against the step, what was measured, and the
file's SHA-256. A backbone is found by its name alone, whatever the code that trains has become since; the record says
which code that was. `benchmarks/long.py --bundle` writes both.
"""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sslcourse.errors import CourseError, Damaged
from sslcourse.files import write_atomically

if TYPE_CHECKING:
    from sslcourse.backbones import Backbone

FOLDER = Path(__file__).parent
BANK, ASKED = 500, 500  # pictures of pocket world, of train and of validation, on which a file is recognized


@dataclass(frozen=True)
class Bundled:
    """One backbone that comes with the package, and its record."""

    path: Path
    record: dict[str, Any]

    @property
    def task(self) -> str:
        return self.record["task"]

    @property
    def backbone(self) -> str:
        return self.record["backbone"]

    @property
    def budget(self) -> int:
        return self.record["budget"]

    def load(self) -> Backbone:
        """The backbone, on the CPU and in evaluation mode. Raises Damaged where the file isn't the recorded one."""
        from sslcourse import backbones

        if not self.path.is_file() or _digest(self.path) != self.record["sha256"]:
            raise Damaged(f"{self.path} isn't the file that its record describes; install the package again.")
        return backbones.load(self.path).eval()


def listed() -> list[Bundled]:
    """All of them, by task, backbone and budget."""
    found = [
        Bundled(path.with_suffix(".safetensors"), json.loads(path.read_text("utf-8"))) for path in FOLDER.glob("*.json")
    ]
    return sorted(found, key=lambda one: (one.task, one.backbone, one.budget))


def find(task: str, backbone: str, budget: int) -> Bundled:
    """The backbone of this task, architecture and budget. Raises CourseError, with those that there are, otherwise."""
    of_task = [one for one in listed() if one.task == task]
    for one in of_task:
        if (one.backbone, one.budget) == (backbone, budget):
            return one
    there = ", ".join(f"budget={one.budget} (backbone={one.backbone!r})" for one in of_task) or "none"
    raise CourseError(
        f"no {backbone} that learned {task} for a budget of {budget} comes with the package; of {task} there is {there}. "
        "Leave the budget out to train one for the lesson's, or give steps to train one for longer."
    )


def put(backbone: Backbone, record: dict[str, Any]) -> Path:
    """Write a backbone with 16 bits, and its record beside it; gives the file. Another budget of the same row goes."""
    from sslcourse import backbones

    name = "-".join(str(record[part]) for part in ("task", "backbone"))
    for old in FOLDER.glob(f"{name}-budget*"):
        old.unlink()
    path = FOLDER / f"{name}-budget{record['budget']}.safetensors"
    small = copy.deepcopy(backbone).cpu().half()
    backbones.save(small, path, **{part: record[part] for part in ("task", "data", "steps", "seed", "budget")})
    record |= {"sha256": _digest(path), "recognized by": recognition(backbones.load(path))}
    write_atomically(path.with_suffix(".json"), (json.dumps(record, indent=1) + "\n").encode())
    return path


def recognition(backbone: Backbone) -> dict[str, float]:
    """Validation kNN on a few hundred pictures of pocket world, drawn in a second: a file's weights are known by it."""
    from sslcourse import evaluate
    from sslcourse.data import world

    bank, asked = world.draw("train", BANK), world.draw("val", ASKED)
    features = [evaluate.extract(backbone, part, device="cpu") for part in (bank, asked)]
    scores = evaluate.knn_scores(features[0], bank.labels, features[1], classes=len(bank.classes))
    return {"bank": BANK, "asked": ASKED, "knn": (scores.argmax(dim=1) == asked.labels).float().mean().item()}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
