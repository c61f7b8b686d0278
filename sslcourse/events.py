"""A run's history for TensorBoard: event files that show every recorded figure against the step."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sslcourse.errors import CourseError

FOLDER = "tensorboard"  # within a run's folder


def writer(run: str | Path) -> Callable[[dict[str, float]], None]:
    """A function that writes each record that it is given to RUN/tensorboard: what `on_log` of `train.pretrain` takes.

    At its first call it writes what `history.jsonl` holds of the steps before, in place of all that earlier event files
    show, so that a run that went on is one line. Raises CourseError without TensorBoard.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise CourseError(
            "TensorBoard isn't installed here; run `python -m pip install tensorboard`, or leave --tensorboard out: "
            "history.jsonl holds the same figures."
        ) from None
    opened: list[Any] = []

    def write(record: dict[str, float]) -> None:
        records = [record]
        if not opened:
            try:
                opened.append(SummaryWriter(str(Path(run) / FOLDER), purge_step=0))
            except OSError as error:
                raise CourseError(
                    f"{Path(run) / FOLDER} can't be written ({error.strerror or error}); move what is there, and go on with "
                    "--resume."
                ) from None
            records = [*_before(Path(run) / "history.jsonl", record["step"]), record]
        for one in records:
            for name, value in one.items():
                if name != "step":
                    opened[0].add_scalar(name, value, int(one["step"]))
        opened[0].flush()

    return write


def _before(history: Path, step: float) -> list[dict[str, float]]:
    """The records of a history file before a step; none where there is no file yet."""
    try:
        records = [json.loads(line) for line in history.read_text().splitlines()]
    except (OSError, ValueError):
        return []
    return [record for record in records if record["step"] < step]
