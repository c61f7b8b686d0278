"""The mistakes that an author of a check foresees: by their results, by what they do beside, by what they call.

A `Wrong` is recognized by its results, a `Mistake` by a predicate, a `Forbidden` call by watching the answer run.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sslcourse.checks.source import Change, ChangeError, source_once

Case = tuple[Any, ...]
Answer = Any  # a function, a class, or (ValueCheck) a value
Changes = Change | tuple[Change, ...]


@dataclass(frozen=True)
class Wrong:
    """A typical wrong answer, recognized by its results.

    name: the mistake in two or three words. answer: the mistake as code, for a wrong idea. change: the mistake as a change
    of the reference's source instead, ("what stands there", "what the learner wrote"), or several such pairs. hint: what
    its author reads: what they did, what is needed and why, in one or two sentences; line breaks don't count. also: the
    same mistake written differently, as answers or changes.
    """

    name: str
    answer: Any = None
    hint: str = ""
    also: tuple[Answer | Changes, ...] = ()
    change: Changes | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "hint", prose(self.hint))

    def answers(self, reference: Answer) -> list[Answer]:
        """The mistake as answers that can be called, the reference's source changed. Raises ChangeError."""
        first = self.answer if self.change is None else self.change
        return [changed(reference, item) if is_change(item) else item for item in (first, *self.also)]


def pairs_of(change: Changes) -> tuple[Change, ...]:
    """One change is a tuple of one."""
    return (change,) if isinstance(change[0], str) else change


def is_change(item: Any) -> bool:
    """Is it ("old", "new"), or a tuple of such pairs?"""
    if not isinstance(item, tuple) or not item:
        return False
    pair = len(item) == 2 and all(isinstance(text, str) for text in item)
    return pair or all(isinstance(part, tuple) and is_change(part) for part in item)


@functools.cache
def changed(reference: Answer, changes: Changes) -> Answer:
    """The reference with these changes in its source. Raises ChangeError."""
    source = source_once(reference)
    if source is None:
        raise ChangeError(
            f"{getattr(reference, '__name__', reference)!s} has no source that could be changed: write the mistake as a function."
        )
    return source.changed(pairs_of(changes))


def prose(text: str) -> str:
    """A text without the line breaks and the indentation that it has in the code."""
    return " ".join(text.split())


@dataclass(frozen=True)
class Mistake:
    """A mistake that results alone don't show, recognized by `recognizes(answer, cases)`; `example` is one who makes it.

    It is looked for in right and in wrong results, after every Wrong, and after types, shapes and dtypes are right. A
    predicate that raises counts as "no". The example may be a change of the reference, as for a Wrong.
    """

    name: str
    recognizes: Callable[[Answer, list[Case]], bool]
    hint: str
    example: Answer | Changes

    def __post_init__(self) -> None:
        object.__setattr__(self, "hint", prose(self.hint))


@dataclass(frozen=True)
class Forbidden:
    """A function that the exercise's text forbids, because the answer is to do its work.

    calls: the functions (torch.nn.functional.cross_entropy), names of tensors' methods ("cross"), or names of modules and
    packages ("sslcourse.losses", "sslcourse.transfer") for all that they and what lies in them define. They are seen however they were imported, and also when a module
    (nn.CrossEntropyLoss) calls them.
    """

    name: str
    calls: tuple[Callable | str, ...]
    hint: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "hint", prose(self.hint))

    def seen_in(self, run: Callable[[], Any]) -> bool:
        """Does run() call one of them? What it raises doesn't matter."""
        codes = {code for call in self.calls if (code := getattr(call, "__code__", None)) is not None}
        built_in = [call for call in self.calls if not isinstance(call, str) and not hasattr(call, "__code__")]
        names = {call for call in self.calls if isinstance(call, str)}
        within = tuple(f"{name}." for name in names)
        seen: list[str] = []

        def watch(frame: Any, event: str, called: Any) -> None:
            module = frame.f_globals.get("__name__") or ""
            if event == "call" and (frame.f_code in codes or module in names or module.startswith(within)):
                seen.append(frame.f_code.co_name)
            elif event == "c_call":
                of_tensor = getattr(called, "__name__", None) in names and hasattr(
                    getattr(called, "__self__", None), "dtype"
                )
                if of_tensor or any(called is other or called == other for other in built_in):
                    seen.append(called.__name__)

        before = sys.getprofile()
        sys.setprofile(watch)
        try:
            run()
        except Exception:  # a learner's code may raise anything
            pass
        finally:
            sys.setprofile(before)
        return bool(seen)


def yourself(*modules: str) -> Forbidden:
    """Forbids all functions of modules whose work the answer is to do."""
    those = " and ".join(modules)
    return Forbidden(f"{those} used", modules, f"The text asks you to do without {those}: write out what it does.")
