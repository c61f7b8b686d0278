"""Around an answer that runs: global randomness kept, exceptions held, the learner's own line found."""

from __future__ import annotations

import contextlib
import inspect
import linecache
import os
import random
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any

import numpy as np
import torch
from torch import Tensor

PACKAGE = Path(__file__).resolve().parents[1]
# the names that modules usually have
USUAL = {"F": "torch.nn.functional", "functional": "torch.nn.functional", "nn": "torch.nn", "np": "numpy"}


@dataclass(frozen=True)
class Raised:
    """What a case came to when the answer raised an exception."""

    type: str
    text: str
    error: BaseException | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Raised) and (self.type, self.text) == (other.type, other.text)

    __hash__ = None


def seed_everything(seed: int) -> None:
    """The global generators in a known state, so that answers which wrongly use them can be compared."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the legacy generator is just what a learner may have used
    torch.random.default_generator.manual_seed(seed)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Leave the learner's global generators and gradient mode as they were."""
    state = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    try:
        with torch.enable_grad():
            yield
    finally:
        random.setstate(state[0])
        np.random.set_state(state[1])  # noqa: NPY002
        torch.set_rng_state(state[2])


def is_stub(raised: Raised) -> bool:
    """Is it an exercise's stub, and not one of PyTorch's own (it raises NotImplementedError for the mean of uint8)?"""
    says_so = not raised.text or raised.text.lower().startswith(("not solved", "not implemented", "exercise not"))
    return isinstance(raised.error, NotImplementedError) and says_so


def comparable(value: Any) -> bool:
    """Can a change of it be seen? Generators are there to be changed, and modules to be trained."""
    return isinstance(value, Tensor | np.ndarray | list | tuple | dict | int | float | str)


def name_of(answer: Any) -> str:
    return getattr(answer, "__name__", None) or type(answer).__name__


def code_files(answer: Any) -> set[str]:
    """The files (or notebook cells) in which the answer is written."""
    with contextlib.suppress(Exception):
        answer = inspect.unwrap(answer)
    if inspect.isclass(answer):
        members = [member for cls in inspect.getmro(answer)[:-1] for member in vars(cls).values()]
    else:
        members = [
            answer,
            getattr(answer, "func", None),
            *(vars(type(answer)).get(method) for method in ("__call__", "forward")),
        ]
    codes = [getattr(member, "__code__", None) for member in members]
    return {code.co_filename for code in codes if isinstance(code, CodeType)}


def is_library(filename: str) -> bool:
    """Is the file part of Python, of an installed package, or of this one?"""
    if filename.startswith("<") and "ipython" not in filename:
        return True
    roots = [str(PACKAGE), *(sysconfig.get_paths()[key] for key in ("stdlib", "platstdlib", "purelib", "platlib"))]
    return any(os.path.abspath(filename).startswith(root + os.sep) for root in roots) or "site-packages" in filename


def known_as(error: BaseException | None) -> str:
    """ " (torch.nn.functional is called functional here)", if a name isn't known that a module usually has; or ""."""
    if not isinstance(error, NameError) or error.name not in USUAL or error.__traceback__ is None:
        return ""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    module = USUAL[error.name]
    names = [name for name, value in frame.f_globals.items() if value is sys.modules.get(module, error)]
    return f" ({module} is called {names[0]} here)" if names else ""


def learners_line(error: BaseException | None, answer: Any) -> str:
    """ "line 3 of your cell:  return x + y", the last line of the learner's own code on the way to the exception; or ""."""
    own = code_files(answer)
    frames = traceback.extract_tb(error.__traceback__) if error is not None else []
    # the code of a known wrong answer lies in this package; a learner's never does
    theirs = [f for f in frames if not is_library(f.filename)] or [
        f for f in frames if f.filename in own and not f.filename.startswith(str(PACKAGE / "checks" / "framework"))
    ]
    if not theirs:
        return ""
    frame = theirs[-1]
    line = (frame.line or linecache.getline(frame.filename, frame.lineno or 0)).strip()
    in_cell = "ipykernel" in frame.filename or frame.filename.startswith("<ipython")
    file = "your cell" if in_cell else Path(frame.filename).name
    return f"line {frame.lineno} of {file}" + (f":  {line}" if line else "")
