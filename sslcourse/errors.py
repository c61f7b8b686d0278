"""Errors at the border: one sentence with what was given, what is needed, and the way out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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
