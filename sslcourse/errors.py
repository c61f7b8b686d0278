"""Errors at the border: one sentence with what was given, what is needed, and the way out."""

from __future__ import annotations

import difflib
import numbers
from collections.abc import Iterable
from typing import Any

LARGEST = 1e30  # of real numbers: well within what float32 holds
LONGEST = 60  # characters of a value in a message


class CourseError(ValueError):
    """Something that was asked for can't be done as asked. The message is for people; the command line prints it alone."""


class Diverged(CourseError):
    """Training has left the finite numbers: a loss, or a weight."""


class Damaged(CourseError):
    """A file is cut short, altered, or not of the kind that its name says."""


def suggest(word: str, options: Iterable[str]) -> str:
    """ ", did you mean 'x'?" for the option nearest to `word`, or "" when none is near."""
    near = difflib.get_close_matches(str(word).lower(), list(options), n=1, cutoff=0.5)
    return f" (did you mean {near[0]!r}?)" if near else ""


# --- what a value must be; each gives it back as Python's own int, float, bool or str ------------------------------


def is_whole(value: Any, least: int = 1, most: int | None = None) -> bool:
    """Whether `value` is a whole number in [least, most]: NumPy's integers are, True and 3.0 aren't."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return whole and least <= value and (most is None or value <= most)


def whole_number(name: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """`value` as an int, which must be whole and in [least, most]. CourseError otherwise."""
    if not is_whole(value, least, most):
        wanted = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise CourseError(f"{name} must be a whole number {wanted}, and is {told(value)}.")
    return int(value)


def real_number(name: str, value: Any, least: float = 0.0, most: float = LARGEST) -> float:
    """`value` as a float, which must be a number in [least, most]. CourseError otherwise."""
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not (real and least <= value <= most):
        raise CourseError(f"{name} must be a finite number from {least:g} to {most:g}, and is {told(value)}.")
    return float(value)


def truth(name: str, value: Any) -> bool:
    """`value` as a bool: True or False. CourseError otherwise."""
    if type(value).__name__ not in ("bool", "bool_"):  # NumPy's is called bool_, or bool like Python's
        raise CourseError(f"{name} must be True or False, and is {told(value)}.")
    return bool(value)


def one_of(name: str, value: Any, options: Iterable[str]) -> str:
    """`value`, which must be among the options. CourseError, with the nearest of them, otherwise."""
    options = list(options)
    if not isinstance(value, str) or value not in options:
        near = suggest(value, options) if isinstance(value, str) else ""
        raise CourseError(f"{name} {told(value)} is unknown{near}; choose one of {', '.join(options)}.")
    return value


def told(value: Any) -> str:
    """`value` as a message shows it: on one line, and no longer than that."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # a number of too many digits, or an object whose own words fail
        text = f"{type(value).__name__} that can't be shown"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
