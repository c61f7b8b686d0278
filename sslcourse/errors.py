"""Errors at the border: one sentence with what was given, what is needed, and the way out."""

from __future__ import annotations

import difflib
import math
import numbers
from collections.abc import Iterable
from typing import Any

LARGEST = 1e30  # of real numbers: well within what float32 holds


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


def whole_number(name: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """`value` as an int in [least, most]; NumPy's integers are whole numbers, True and 3.0 aren't. CourseError otherwise."""
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        if least <= value and (most is None or value <= most):
            return int(value)
    wanted = f"of at least {least}" if most is None else f"from {least} to {most}"
    raise CourseError(f"{name} must be a whole number {wanted}, and is {value!r}.")


def real_number(
    name: str, value: Any, least: float = 0.0, most: float = math.inf, *, above: float | None = None
) -> float:
    """`value` as a finite float in [least, most], or larger than `above`. CourseError otherwise."""
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        if (value > above if above is not None else value >= least) and value <= min(most, LARGEST):
            return float(value)
    wanted = f"above {above:g}" if above is not None else f"of at least {least:g}"
    wanted += f" and at most {most:g}" if most < math.inf else ""
    raise CourseError(f"{name} must be a finite number {wanted}, and is {value!r}.")


def truth(name: str, value: Any) -> bool:
    """`value` as a bool: True or False. CourseError otherwise."""
    if type(value).__name__ not in ("bool", "bool_"):  # NumPy's is called bool_, or bool like Python's
        raise CourseError(f"{name} must be True or False, and is {value!r}.")
    return bool(value)


def one_of(name: str, value: Any, options: Iterable[str]) -> str:
    """`value`, which must be among the options. CourseError, with the nearest of them, otherwise."""
    options = list(options)
    if not isinstance(value, str) or value not in options:
        raise CourseError(f"{name} {value!r} is unknown{suggest(value, options)}; choose one of {', '.join(options)}.")
    return value
