"""Paths: what a person types as one, and the folders that this package keeps things in."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import platformdirs

from sslcourse.console import shown
from sslcourse.errors import CourseError


def typed(text: str | os.PathLike[str]) -> Path:
    """The path that a person means: `~` and `~NAME` at its beginning are home folders.

    Everything that is typed as a path goes through here: options of the command line, data specifications, environment
    variables, arguments in a notebook. Whether something lies there is for the caller to ask.

    Raises CourseError for what can't be a path: nothing at all, a home folder that isn't known, a character or a length
    that no file system takes.
    """
    try:
        name = os.fsdecode(text)
    except TypeError:
        raise CourseError(f"a path is text such as 'photos', and {text!r} was given.") from None
    if not name.strip():
        raise CourseError("a path is needed, and an empty one was given; . is the folder that you are in.")
    path = Path(os.path.expanduser(name))
    if name.startswith("~") and path == Path(name):
        raise CourseError(
            f"the home folder that {shown(name)} begins with isn't known here; write the whole path, "
            f"or ./{shown(name)} where that is its name."
        )
    try:
        os.lstat(path)
    except ValueError:
        raise CourseError(f"{shown(name)} holds a character that no path can have; leave it out.") from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise CourseError(f"{shown(name[:40])}… is too long for a path; choose a shorter one.") from None
    return path


def cache_folder() -> Path:
    """Where drawn and decoded images and trained backbones are kept: $SSLCOURSE_CACHE, or the user's cache folder."""
    return _folder("SSLCOURSE_CACHE", platformdirs.user_cache_dir)


def data_folder() -> Path:
    """Where downloads lie: $SSLCOURSE_DATA, or the user's data folder."""
    return _folder("SSLCOURSE_DATA", platformdirs.user_data_dir)


def work_folder() -> Path:
    """Where a person's own copies of the notebooks lie: $SSLCOURSE_WORK, or `sslcourse-work` in the home folder."""
    return _folder("SSLCOURSE_WORK", lambda *_, **__: os.path.join("~", "sslcourse-work"))


def _folder(variable: str, default: Callable[..., str]) -> Path:
    """The folder that an environment variable names; otherwise the user's, or, without a home folder, a temporary one.

    Raises CourseError, naming the variable, where it can't be a path.
    """
    chosen = os.environ.get(variable, "")
    if chosen.strip():
        try:
            return typed(chosen)
        except CourseError as error:
            raise CourseError(f"{variable}: {error}") from None
    try:
        return typed(default("sslcourse", appauthor=False))
    except CourseError:  # containers run as users that nobody has heard of
        return Path(tempfile.gettempdir(), f"sslcourse-{os.getuid() if hasattr(os, 'getuid') else 'user'}")
