"""A run's folder: checkpoints written so that a kill at any moment loses nothing that was saved."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import pickle
import signal
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sslcourse import backbones, distributed
from sslcourse.errors import CourseError, Damaged, Diverged
from sslcourse.files import begins_with, reading, refuse_foreign, write_atomically
from sslcourse.locking import claimed

if TYPE_CHECKING:
    from sslcourse.data.stream import ImageFiles
    from sslcourse.pretext.base import PretextTask
    from sslcourse.validation import Validation

FORMAT = "sslcourse checkpoint 1"
HISTORY = "history.jsonl"
PARTS = {"run", "step", "model", "optimizer", "history", "random"}
FLAGS = {"validation.every": "--validate-every", "validation.signal": "--signal"}  # how the command line asks for it
FLAGS |= {
    f"config.{name}": f"--{name.replace('_', '-')}"
    for name in ("steps", "batch_size", "optimizer", "learning_rate", "schedule", "warmup", "weight_decay", "seed")
}
FREE = {"log_every", "checkpoint_every"}  # what may differ between a run and its continuation
SINCE = {"config.schedule": "cosine"}  # what checkpoints of earlier versions don't name, and what their runs did
RESUME = ", and go on with --resume"  # after an error that a run survives


def claim(folder: str | Path | None) -> contextlib.AbstractContextManager:
    """Within it, the folder of a run is this run's alone: `locking.claimed`, by the process that writes to it."""
    return contextlib.nullcontext() if folder is None or distributed.rank() else claimed(folder)


class Stop:
    """A wish to stop, from Ctrl-C, a cluster's scheduler or a closed terminal, that waits until a step has ended and can be saved.

    Only one waits: the second stops at once. Processes that torchrun started don't wait, since each would stop at
    another step, nor do threads, which get no signals.
    """

    SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]

    def __init__(self):
        self.asked: int | None = None  # the signal that came
        self.before: dict[int, Any] = {}  # signal -> what it did

    @contextlib.contextmanager
    def waits(self) -> Iterator[None]:
        """Within it, signals are noted; afterwards they do what they did before."""
        if threading.current_thread() is threading.main_thread() and distributed.size() == 1:
            handlers = {number: signal.getsignal(number) for number in self.SIGNALS}
            self.before = {n: h for n, h in handlers.items() if h not in (None, signal.SIG_IGN)}
        for number in self.before:
            signal.signal(number, self._note)
        try:
            yield
        finally:
            self._give_back()
        if self.asked is not None:  # after the last step had looked for it
            self.now()

    def now(self) -> None:
        """Do what the signal would have done at once; where that is to die, clean up on the way."""
        if callable(self.before[self.asked]):
            signal.raise_signal(self.asked)
        else:
            raise SystemExit(128 + self.asked)

    def _note(self, number: int, frame: Any) -> None:
        self.asked = number
        self._give_back()

    def _give_back(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)


class Store:
    """The folder of one run: `checkpoint.pt`, the one before it in `checkpoint.previous.pt`, and `history.jsonl`.

    run         what makes it this run (`run_identity`)
    shorter     how many steps the run that is gone on from was to have, where this one has more; otherwise None
    lengthened  the steps at which it was made longer so that the weights are no other run's

    Raises CourseError when the folder holds a run and `resume` is False, when that run isn't this one, or when there are
    weights without a checkpoint, which would be replaced.
    """

    def __init__(self, folder: str | Path, run: dict[str, Any], *, resume: bool):
        self.folder = Path(folder)
        self.path, self.previous = self.folder / "checkpoint.pt", self.folder / "checkpoint.previous.pt"
        self.last_saved = 0
        self.run = run
        self.shorter: int | None = None
        self.lengthened: list[int] = []
        begun = self.path.exists() or self.previous.exists()
        if begun and not resume:
            raise CourseError(
                f"{folder} already holds a run; go on with it by --resume, or choose another folder for a new one."
            )
        if not begun and (self.folder / backbones.FILE).exists():
            raise CourseError(
                f"{folder} holds a {backbones.FILE} and no checkpoint to go on from; choose another folder, so that it stays."
            )
        if not begun and distributed.rank() == 0:
            refuse_foreign(self.folder / HISTORY, lambda path: begins_with(path, '{"step": '), "the history of a run")
        for name in (self.path.name, self.previous.name, HISTORY, backbones.FILE) if distributed.rank() == 0 else ():
            for leftover in self.folder.glob(f".{name}.*.part"):  # of a run that was killed
                leftover.unlink(missing_ok=True)

    def save(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        step: int,
        records: list[dict],
        validation: Validation | None = None,
    ) -> None:
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
            "lengthened": self.lengthened,
            "best": validation.best if validation is not None else {},
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_atomically(self.path, buffer.getvalue(), self.previous, RESUME)
        self.write_history(records)

    def write_history(self, records: list[dict]) -> None:
        lines = "".join(json.dumps(record) + "\n" for record in records)
        write_atomically(self.folder / HISTORY, lines.encode(), then=RESUME)

    def restore(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, validation: Validation | None = None
    ) -> tuple[list[dict], int]:
        """Load the newest good checkpoint into model, optimizer and validation; returns the history and the steps done.

        ([], 0) where there is none. A damaged newest one is passed over, with a notice, for the one before it.
        """
        found = [path for path in (self.path, self.previous) if path.exists()]
        problems = []
        for path in found:
            try:
                state = read(path)
            except Damaged as error:
                problems.append(str(error))
                continue
            self.refuse_other_run(state["run"])
            for problem in problems:
                print(f"{problem} Going on from the one before it, of step {state['step']}.", file=sys.stderr)
            try:
                model.load_state_dict(state["model"])
                optimizer.load_state_dict(state["optimizer"])
            except (RuntimeError, ValueError, KeyError) as error:
                reason = str(error).strip().splitlines()[-1].strip()
                raise Damaged(f"{path} doesn't fit the network that it names ({reason}).") from None
            torch.set_rng_state(state["random"])
            if validation is not None:
                validation.best = state.get("best", {})
            self.last_saved, self.lengthened = state["step"], list(state.get("lengthened", []))
            steps = state["run"]["config"]["steps"]
            self.shorter = steps if steps < self.run["config"]["steps"] else None
            if distributed.rank() == 0:
                self.write_history(state["history"])  # the kill may have come between checkpoint and history
            return state["history"], state["step"]
        if problems:
            raise Damaged(f"{problems[0]} Nothing was overwritten; start anew in another folder.")
        return [], 0

    def refuse_other_run(self, run: dict[str, Any]) -> None:
        """The checkpoint must come from the same task, images and configuration, or the result would be neither run's.

        It may have been meant to end earlier.
        """
        asked, found = _flat(self.run), SINCE | _flat(run)
        for name in sorted(asked.keys() | found.keys(), key=lambda name: (name.startswith("config."), name)):
            if name == "config.steps" and isinstance(found.get(name), int) and found[name] < asked[name]:
                continue
            if name.split(".")[-1] not in FREE and asked.get(name) != found.get(name):
                raise CourseError(
                    f"the run in {self.folder} has {name} {found.get(name)!r}, and this one {asked.get(name)!r}; "
                    f"resume with the same settings{_typed(name, found.get(name))}, or choose another folder."
                )


def _typed(name: str, value: Any) -> str:
    """How the command line asks for a setting of a run, in brackets; nothing where it doesn't."""
    if name.startswith("options."):
        return f" (--option {name.removeprefix('options.')}={value})"
    if name not in FLAGS:
        return ""
    return f" (without {FLAGS[name]})" if value is None else f" ({FLAGS[name]} {value})"


def recorded_steps(folder: str | Path) -> int | None:
    """How many steps the run in a folder is to have; None where there is no checkpoint that can be read."""
    for name in ("checkpoint.pt", "checkpoint.previous.pt"):
        with contextlib.suppress(CourseError, KeyError, TypeError):
            return int(read(Path(folder) / name)["run"]["config"]["steps"])
    return None


def run_identity(
    task: PretextTask, config: Any, pixels: Tensor | ImageFiles, rows: tuple[Tensor, ...] = ()
) -> dict[str, Any]:
    """What makes two runs the same: task and options, architecture, configuration, and a digest of the images.

    rows  what else the task takes of each image (`PretextTask.beside`)
    """
    beside = {"beside the images": " ".join(map(_digest, rows))} if rows else {}
    return beside | {
        "task": task.name,
        "options": task.options(),
        "backbone": f"{task.backbone.arch} with {task.backbone.stem} stem",
        "config": dataclasses.asdict(config),
        "images": _digest(pixels) if isinstance(pixels, Tensor) else pixels.fingerprint(),
    }


def _digest(pixels: Tensor) -> str:
    """Shape and content of a tensor with a row for each image, such as uint8 (N, 3, H, W)."""
    digest = hashlib.blake2b(digest_size=16)
    for part in pixels.split(4096):
        digest.update(part.cpu().contiguous().numpy())
    return f"{tuple(pixels.shape)} {digest.hexdigest()}"


def read(path: Path) -> dict[str, Any]:
    """A checkpoint as plain tensors, numbers and strings. Nothing in the file is ever executed.

    Raises Damaged when the file is cut short, altered, or not one of ours, and CourseError when it can't be read.
    """
    with reading(path):
        content = io.BytesIO(path.read_bytes())
    try:
        with zipfile.ZipFile(content) as archive:
            if archive.testzip() is not None:
                raise zipfile.BadZipFile("checksum")
        content.seek(0)
        state = torch.load(content, map_location="cpu", weights_only=True)
    except (zipfile.BadZipFile, EOFError, RuntimeError, OSError) as error:
        raise Damaged(f"{path} is damaged or not a checkpoint ({type(error).__name__}).") from None
    except pickle.UnpicklingError:
        raise Damaged(
            f"{path} holds more than tensors, numbers and strings; loading it could run foreign code, so it was refused."
        ) from None
    if not isinstance(state, dict) or state.get("format") != FORMAT or not state.keys() >= PARTS:
        raise Damaged(f"{path} is not a checkpoint that this version of sslcourse wrote.")
    return state


def refuse_bad_weights(model: nn.Module, step: int) -> None:
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise Diverged(
                f"{name} was no longer finite after step {step}, and training has stopped; "
                "a lower learning rate is the usual way out. The checkpoint before it is unharmed."
            )


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"config": {"steps": 5}} to {"config.steps": 5}."""
    flat = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
