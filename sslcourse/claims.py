"""What a lesson claims: a sentence, and the measured values that bear it out.

    holds("fine-tuning gains more than 0.06 over the head alone", above(whole - head, 0.06))
    holds("the loop and the matrix agree", exact(torch.allclose(by_loop, by_matrix)))

A value that comes out of a training differs from one processor, seed or number of threads to the next. So a claim about
it states value and threshold, and `tools/claims.py` measures how many spreads lie between the two. `exact` is for what
is computed without any training: there, and nowhere else, a truth value is enough.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sslcourse.errors import CourseError

RECORD = "SSLCOURSE_CLAIMS"  # the environment variable that names a file for records; its stem is the lesson's name


@dataclass(frozen=True)
class Part:
    """One measured value of a claim, and the open interval in which it must lie."""

    direction: str  # "above", "below", "between" or "exact"
    value: float
    thresholds: tuple[float, ...]

    @property
    def true(self) -> bool:
        """Whether the value lies where the claim says; not a number lies nowhere."""
        low, high = interval(self.direction, self.thresholds)
        return low < self.value < high


def interval(direction: str, thresholds: tuple[float, ...]) -> tuple[float, float]:
    """The open interval in which a part of this direction must lie."""
    if direction == "between":
        return thresholds[0], thresholds[1]
    return (-float("inf"), thresholds[0]) if direction == "below" else (thresholds[0], float("inf"))


def above(value: Any, threshold: float) -> Part:
    """The value (a number, or a tensor of one element) is greater than the threshold."""
    return Part("above", float(value), (float(threshold),))


def below(value: Any, threshold: float) -> Part:
    """The value (a number, or a tensor of one element) is less than the threshold."""
    return Part("below", float(value), (float(threshold),))


def between(value: Any, low: float, high: float) -> Part:
    """The value (a number, or a tensor of one element) is greater than `low` and less than `high`."""
    return Part("between", float(value), (float(low), float(high)))


def exact(truth: Any) -> Part:
    """Something computed without training, which is true on every machine."""
    return Part("exact", float(bool(truth)), (0.5,))


def holds(sentence: str, *parts: Part) -> None:
    """Print the claim, and whether all of its parts are true.

    When the environment variable SSLCOURSE_CLAIMS names a file, a line of JSON is appended to it: the lesson (the
    file's stem), the sentence, whether the claim holds, whether it is exact throughout, and each part with its
    direction, value and thresholds. Raises CourseError for a claim without parts, and for a bare truth value.
    """
    if not parts or not all(isinstance(part, Part) for part in parts):
        raise CourseError(
            f"the claim {sentence!r} needs measured values with thresholds, such as above(gain, 0.06), below(...) or "
            "between(...); a truth value goes into exact(...), if no training is behind it."
        )
    truth = all(part.true for part in parts)
    if os.environ.get(RECORD):
        _record(Path(os.environ[RECORD]), sentence, truth, parts)
    print(f"{'holds' if truth else 'FAILS'}: {sentence}")


def _record(path: Path, sentence: str, truth: bool, parts: tuple[Part, ...]) -> None:
    record = {
        "lesson": path.stem,
        "sentence": sentence,
        "holds": truth,
        "exact": all(part.direction == "exact" for part in parts),
        "parts": [asdict(part) for part in parts],
    }
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
