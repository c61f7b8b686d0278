"""A run's folder: checkpoints written so that a kill at any moment loses nothing that was saved."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import pickle
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sslcourse import distributed
from sslcourse.errors import CourseError
from sslcourse.files import write_atomically

if TYPE_CHECKING:
    from sslcourse.data.stream import ImageFiles
    from sslcourse.pretext.base import PretextTask

FORMAT = "sslcourse checkpoint 1"
FREE = {"log_every", "checkpoint_every"}  # what may differ between a run and its continuation


class Store:
    """The folder of one run: `checkpoint.pt`, the one before it in `checkpoint.previous.pt`, and `history.jsonl`.

    Raises CourseError when the folder holds a run and `resume` is False, or when that run isn't this one.
    """

    def __init__(
        self, folder: str | Path, task: PretextTask, config: Any, pixels: Tensor | ImageFiles, *, resume: bool
    ):
        self.folder = Path(folder)
        self.path, self.previous = self.folder / "checkpoint.pt", self.folder / "checkpoint.previous.pt"
        self.last_saved = 0
        self.run = run_identity(task, config, pixels)
        if self.folder.exists() and not self.folder.is_dir():
            raise CourseError(f"{folder} is a file; --out needs a folder.")
        for leftover in self.folder.glob(".*.part") if distributed.rank() == 0 else ():  # of a run that was killed
            leftover.unlink(missing_ok=True)
        if not resume and (self.path.exists() or self.previous.exists()):
            raise CourseError(
                f"{folder} already holds a run; go on with it by --resume, or choose another folder for a new one."
            )

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int, records: list[dict]) -> None:
        """Write the state after `step` steps. A state that isn't finite is refused: the good one before it stays."""
        refuse_bad_weights(model, step)
        self.last_saved = step
        if distributed.rank():
            return
        state = {
            "format": FORMAT,
            "run": self.run,
            "step": step,
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "history": records,
            "random": torch.get_rng_state(),
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_atomically(self.path, buffer.getvalue(), keep=self.previous)
        self.write_history(records)

    def write_history(self, records: list[dict]) -> None:
        lines = "".join(json.dumps(record) + "\n" for record in records)
        write_atomically(self.folder / "history.jsonl", lines.encode())

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[list[dict], int]:
        """Load the newest good checkpoint into model and optimizer; returns the history and the steps done.

        ([], 0) where there is none. A damaged newest one is passed over, with a notice, for the one before it.
        """
        found = [path for path in (self.path, self.previous) if path.exists()]
        problems = []
        for path in found:
            try:
                state = read(path)
            except CourseError as error:
                problems.append(str(error))
                continue
            self.refuse_other_run(state["run"])
            for problem in problems:
                print(f"{problem} Going on from the one before it, of step {state['step']}.", file=sys.stderr)
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            torch.set_rng_state(state["random"])
            self.last_saved = state["step"]
            if distributed.rank() == 0:
                self.write_history(state["history"])  # the kill may have come between checkpoint and history
            return state["history"], state["step"]
        if problems:
            raise CourseError(f"{problems[0]} Nothing was overwritten; start anew in another folder.")
        return [], 0

    def refuse_other_run(self, run: dict[str, Any]) -> None:
        """The checkpoint must come from the same task, images and configuration, or the result would be neither run's."""
        ours, theirs = _flat(self.run), _flat(run)
        for name in sorted(ours.keys() | theirs.keys()):
            if name.split(".")[-1] not in FREE and ours.get(name) != theirs.get(name):
                raise CourseError(
                    f"the run in {self.folder} has {name} {theirs.get(name)!r}, and this one {ours.get(name)!r}; "
                    "resume with the same settings, or choose another folder."
                )


def run_identity(task: PretextTask, config: Any, pixels: Tensor | ImageFiles) -> dict[str, Any]:
    """What makes two runs the same: task and options, architecture, configuration, and a digest of the images."""
    return {
        "task": task.name,
        "options": task.options(),
        "backbone": f"{task.backbone.arch} with {task.backbone.stem} stem",
        "config": dataclasses.asdict(config),
        "images": _digest(pixels) if isinstance(pixels, Tensor) else pixels.fingerprint(),
    }


def _digest(pixels: Tensor) -> str:
    """Shape and content of uint8 images (N, 3, H, W)."""
    digest = hashlib.blake2b(digest_size=16)
    for part in pixels.split(4096):
        digest.update(part.cpu().contiguous().numpy())
    return f"{tuple(pixels.shape)} {digest.hexdigest()}"


def read(path: Path) -> dict[str, Any]:
    """A checkpoint as plain tensors, numbers and strings. Nothing in the file is ever executed.

    Raises CourseError when the file is cut short, damaged, or not one of ours.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                raise zipfile.BadZipFile("checksum")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (zipfile.BadZipFile, EOFError, RuntimeError, OSError) as error:
        raise CourseError(f"{path} is damaged or not a checkpoint ({type(error).__name__}).") from None
    except pickle.UnpicklingError:
        raise CourseError(
            f"{path} holds more than tensors, numbers and strings; loading it could run foreign code, so it was refused."
        ) from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CourseError(f"{path} is not a checkpoint that this version of sslcourse wrote.")
    return state


def refuse_bad_weights(model: nn.Module, step: int) -> None:
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise CourseError(
                f"{name} was no longer finite after step {step}, and training has stopped; "
                "a lower learning rate is the usual way out. The checkpoint before it is unharmed."
            )


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"config": {"steps": 5}} to {"config.steps": 5}."""
    flat = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
