"""Pretext tasks: one file each, found by looking into this folder, so that there is no list to keep."""

from __future__ import annotations

import inspect
import pkgutil
from importlib import import_module
from typing import Any

from sslcourse.backbones import Backbone
from sslcourse.errors import CourseError, suggest
from sslcourse.pretext.base import PretextTask, option_defaults

__all__ = ["PretextTask", "build", "every_task", "find", "option_defaults", "tasks"]


def tasks(captioned: bool = False) -> dict[str, type[PretextTask]]:
    """The pretext tasks of the package by name, in alphabetical order: those that learn from images alone.

    captioned  instead of these, the ones that learn from captions beside the images
    """
    return {name: kind for name, kind in every_task().items() if kind.captioned is captioned}


def every_task() -> dict[str, type[PretextTask]]:
    """All pretext tasks of the package, whatever they learn from."""
    found = {}
    for module in pkgutil.iter_modules(__path__):
        for member in vars(import_module(f"{__name__}.{module.name}")).values():
            if inspect.isclass(member) and issubclass(member, PretextTask) and "name" in vars(member):
                found[member.name] = member
    return dict(sorted(found.items()))


def find(name: str) -> type[PretextTask]:
    """The class of the task called `name`; CourseError, with the nearest name, where there is none."""
    known = every_task()
    if name not in known:
        raise CourseError(f"task {name!r} is unknown{suggest(name, known)}; choose one of {', '.join(known)}.")
    return known[name]


def build(name: str, backbone: Backbone, **options: Any) -> PretextTask:
    """The task called `name` on `backbone`. Raises CourseError for a name or an option that it doesn't have."""
    task = find(name)
    allowed = option_defaults(task)
    for option in options:
        if option not in allowed:
            choices = ", ".join(allowed) or "none"
            raise CourseError(
                f"task {name!r} has no option {option!r}{suggest(option, allowed)}; its options are: {choices}."
            )
    return task(backbone, **options)
