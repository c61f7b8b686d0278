"""Checks that name the mistake.

A check of an exercise holds the reference answer, cases to try it on, and the typical wrong answers *as code*, each with
the hint that helps who wrote it. A learner's answer runs on every case. When all results equal the reference's, it passes.
When they equal those of a known wrong answer in every case, the learner reads that answer's hint: not "wrong", but "you
rotate clockwise; the convention is counter-clockwise".

    rotate_batch = Check(
        name="2.1 rotate a batch",
        reference=augment.rotate90,
        cases=lambda generator: [...],              # tuples of arguments, drawn from the generator
        rights=(rotate_by_flips, rotate_in_loop),   # at least two other right ways to write it
        wrongs=(Wrong("clockwise", rotate_clockwise, "You rotate clockwise; ..."), ...),    # at least four
        hints=("a nudge", "the way", "nearly the answer"),
    )

    rotate_batch(my_rotate)     # prints one line, or raises CheckFailed with the hint and no traceback
    rotate_batch.hint(1)        # the first of three hints

What output alone can't show (an argument changed in place, a gradient cut off) is a `Mistake`, recognized by a predicate.
What no author foresaw gets a diagnosis all the same: see `sslcourse.checks.diagnose`.
tests/test_checks.py proves for every check in `sslcourse.checks.lesson*` that the right answers pass, and that each wrong
one fails with its own hint.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import linecache
import os
import random
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from sslcourse.checks.compare import Closeness, equal, first_difference, snapshot
from sslcourse.checks.diagnose import Results, coarse, describe, fine
from sslcourse.checks.source import Change, ChangeError, source_once

Case = tuple[Any, ...]
Answer = Any  # a function, a class, or (ValueCheck) a value

PACKAGE = Path(__file__).resolve().parents[1]


class _Quiet:
    """Shown by IPython as its message alone: the traceback would lead into this package, where no learner has business."""

    def _render_traceback_(self) -> list[str]:
        return str(self).splitlines()


class CheckFailed(_Quiet, AssertionError):
    """The answer isn't right yet. `mistake` is the name of the known mistake, or None when none was recognized."""

    def __init__(self, message: str, mistake: str | None = None):
        super().__init__(message)
        self.mistake = mistake


class NotSolvedYet(_Quiet, NotImplementedError):
    """The exercise still holds its stub."""


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
    answer: Answer = None
    hint: str = ""
    also: tuple[Answer | Changes, ...] = ()
    change: Changes | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "hint", _prose(self.hint))

    def answers(self, reference: Answer) -> list[Answer]:
        """The mistake as answers that can be called, the reference's source changed. Raises ChangeError."""
        first = self.answer if self.change is None else self.change
        return [changed(reference, item) if is_change(item) else item for item in (first, *self.also)]


def is_change(item: Any) -> bool:
    """Is it ("old", "new"), or a tuple of such pairs?"""
    if not isinstance(item, tuple) or not item:
        return False
    pair = len(item) == 2 and all(isinstance(text, str) for text in item)
    return pair or all(isinstance(part, tuple) and is_change(part) for part in item)


def changed(reference: Answer, changes: Changes) -> Answer:
    """The reference with these changes in its source. Raises ChangeError."""
    source = source_once(reference)
    if source is None:
        raise ChangeError(f"{_name(reference)} has no source that could be changed: write the mistake as a function.")
    return source.changed((changes,) if isinstance(changes[0], str) else changes)


def _prose(text: str) -> str:
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
        object.__setattr__(self, "hint", _prose(self.hint))


@dataclass(frozen=True)
class Raised:
    """What a case came to when the answer raised an exception."""

    type: str
    text: str
    error: BaseException | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Raised) and (self.type, self.text) == (other.type, other.text)

    __hash__ = None


@dataclass(frozen=True, kw_only=True)
class Check:
    """The check of one exercise; call it with the learner's answer.

    name: number and title. reference: the right answer. cases(generator): at least one tuple of arguments; called anew for
    every answer with the generator in the same state, so it must take all randomness from it. Draw several cases, with
    sizes that differ from each other (N, C, H and W too): what is right by accident must be wrong somewhere.
    rights: other right answers. wrongs, mistakes: see `Wrong` and `Mistake`; the first that fits wins, so order them from
    the special to the general. hints: three, from a nudge to nearly the answer. run(answer, case): what to compare, by
    default `answer(*case)`; for a class, build an instance and use it. close: rtol, atol and how strict dtypes are.
    kind: what the answer is. praise: said when it passes.
    """

    name: str
    reference: Answer
    cases: Callable[[torch.Generator], Sequence[Case]] = lambda generator: [()]
    rights: tuple[Answer, ...] = ()
    wrongs: tuple[Wrong, ...] = ()
    mistakes: tuple[Mistake, ...] = ()
    hints: tuple[str, str, str] | tuple[()] = ()
    run: Callable[[Answer, Case], Any] | None = None
    close: Closeness = Closeness()
    kind: Literal["function", "class", "value"] = "function"
    praise: str = ""
    may_change_arguments: bool = False
    _memory: dict[tuple[str, int], list[Any]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "hints", tuple(map(_prose, self.hints)))
        if len(self.hints) not in (0, 3):
            raise ValueError(
                f"{self.name}: {len(self.hints)} hints were given; three are needed, from a nudge to nearly the answer."
            )
        if self.kind == "class" and self.run is None:
            raise ValueError(
                f"{self.name}: a check of a class needs run(answer, case), which builds an instance and uses it."
            )

    def __call__(self, answer: Answer, *, seed: int = 0) -> None:
        """Print one line when `answer` is right; raise CheckFailed or NotSolvedYet when it isn't. seed: draws other cases."""
        with _undisturbed():
            error, count = self._judge(answer, seed)
        if error is not None:
            raise error from None
        cases = "" if self.kind == "value" or count == 1 else f" in all {count} cases"
        print(f"{self.name}: passed{cases}.{' ' + self.praise if self.praise else ''}")

    def hint(self, step: int = 1) -> None:
        """Print hint 1 (a nudge), 2 (the way) or 3 (nearly the answer)."""
        if not self.hints:
            print(f"{self.name} has no hints: the check's own messages are all there is.")
        elif step not in (1, 2, 3):
            print(f"There are three hints: .hint(1), .hint(2) and .hint(3); not {step!r}.")
        else:
            more = f" (There is more: {self._called()}.hint({step + 1}))" if step < 3 else ""
            print(f"Hint {step} of 3: {self.hints[step - 1]}{more}")

    def __repr__(self) -> str:
        return f"<the check of exercise {self.name}: call it with your {self.kind}>"

    # -- the judgement ------------------------------------------------------------------------------------------------

    def _judge(self, answer: Answer, seed: int) -> tuple[Exception | None, int]:
        """(what to raise or None, how many cases there were)."""
        if problem := self._not_an_answer(answer):
            return self._failed(problem), 0
        if answer is Ellipsis or answer is NotImplemented:
            return self._unsolved(), 0
        want = self._kept("reference", self.reference, seed)
        got, after = self._results(answer, seed, show_first=True)
        if any(isinstance(result, Raised) and _is_stub(result) for result in got):
            return self._unsolved(), len(want)
        if self._alike(got, want, self.close):
            mistake = self._known_mistake(answer, seed)
            if mistake is not None:
                return self._failed(mistake.hint, mistake.name), len(want)
            changed = None if self.may_change_arguments else self._changed(after, seed)
            return self._failed(changed) if changed else None, len(want)
        if (wrong := self._known_wrong(got, want, seed)) is not None:
            return self._failed(wrong.hint, wrong.name), len(want)
        results = self._whole(got, want, seed)
        # before mistakes: what isn't even a tensor has no gradient, either
        if (sentence := coarse(results)) is not None:
            return self._failed(sentence), len(want)
        if (mistake := self._known_mistake(answer, seed)) is not None:
            return self._failed(mistake.hint, mistake.name), len(want)
        return self._failed(self._unknown(answer, got, want, results, seed)), len(want)

    def _whole(self, got: list[Any], want: list[Any], seed: int) -> Results:
        """The results of the cases in which no exception was raised."""
        cases = self._fresh(seed)
        whole = [index for index, result in enumerate(got) if not isinstance(result, Raised)]
        pick = [[things[index] for index in whole] for things in (got, want, cases)]
        return Results(*pick, self._names(99), self.close, self.kind)

    def _fresh(self, seed: int) -> list[Case]:
        """The cases, made anew, so that no answer sees what another did to its arguments; modules in them start alike."""
        _seed_everything(seed)
        return [tuple(case) for case in self.cases(torch.Generator().manual_seed(seed))]

    def _results(
        self, answer: Answer, seed: int, show_first: bool = False, chance: int = 0
    ) -> tuple[list[Any], list[Case]]:
        """What the answer comes to in every case, and the arguments as it left them.

        chance: the state of the global random generators, always the same unless asked. Prints are shown for the first
        case only: who debugs by printing wants them once.
        """
        cases, results = self._fresh(seed), []
        _seed_everything(chance)
        for index, case in enumerate(cases):
            with contextlib.nullcontext() if show_first and index == 0 else contextlib.redirect_stdout(io.StringIO()):
                results.append(self._result(answer, case))
        return results, cases

    def _kept(self, name: str, answer: Answer, seed: int) -> list[Any]:
        """The results of the reference or of a known wrong answer, worked out once for each seed."""
        if (name, seed) not in self._memory:
            results, _ = self._results(answer, seed)
            # an exception would keep all that was in reach where it was raised
            self._memory[name, seed] = [Raised(r.type, r.text) if isinstance(r, Raised) else r for r in results]
        return self._memory[name, seed]

    def _result(self, answer: Answer, case: Case) -> Any:
        try:
            return snapshot(self.run(answer, case) if self.run else answer(*case))
        except Exception as error:  # a learner's code may raise anything
            return Raised(type(error).__name__, str(error), error)

    @staticmethod
    def _alike(got: list[Any], want: list[Any], close: Closeness) -> bool:
        """Are the results the same in every case, exceptions included?"""
        return all(
            a == b if isinstance(a, Raised) or isinstance(b, Raised) else equal(a, b, close)
            for a, b in zip(got, want, strict=True)
        )

    def _known_wrong(self, got: list[Any], want: list[Any], seed: int) -> Wrong | None:
        """The first typical wrong answer with these results in every case.

        First with dtypes as strict as the check is; then, if more than the dtype is wrong, whatever the dtype: who rotates
        the wrong way *and* returns floats should hear of the rotation first.
        """
        known = [(w, index, a) for w in self.wrongs for index, a in enumerate(w.answers(self.reference))]
        theirs = [(w, self._kept(f"{w.name} {index}", a, seed)) for w, index, a in known]
        theirs = [(w, results) for w, results in theirs if not self._alike(results, want, self.close)]
        loose = Closeness(self.close.rtol, self.close.atol, "any")
        for close in (self.close, loose) if not self._alike(got, want, loose) else (self.close,):
            for wrong, results in theirs:
                if self._alike(got, results, close):
                    return wrong
        return None

    def _known_mistake(self, answer: Answer, seed: int) -> Mistake | None:
        for mistake in self.mistakes:
            _seed_everything(0)
            with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(Exception):
                if mistake.recognizes(answer, self._fresh(seed)):
                    return mistake
        return None

    def _changed(self, after: list[Case], seed: int) -> str | None:
        """The sentence about an argument that the answer changed in place."""
        exact = Closeness(0.0, 0.0, "exact")
        for case, before in zip(after, self._fresh(seed), strict=True):
            for name, a, b in zip(self._names(len(case)), case, before, strict=True):
                if _comparable(b) and first_difference(a, b, exact) is not None:
                    return f"The result is right, but your {self.kind} changes its argument `{name}` in place, and whoever called it still needs that: work on a copy (x.clone()), and use x = x + 1 where you have x += 1 or a method ending in _."
        return None

    # -- answers that no author foresaw ---------------------------------------------------------------------------------

    def _not_an_answer(self, answer: Answer) -> str | None:
        """The sentence about something that can't be tried at all."""
        name = _name(self.reference)
        if self.kind == "function" and not callable(answer):
            return f"The check needs your function itself, without parentheses and arguments, so that it can call it: check(my_{name}), not check(my_{name}(...)). It was given {describe(answer)}."
        if self.kind == "class" and not inspect.isclass(answer):
            return f"The check needs your class itself, without parentheses, so that it can build instances of it. It was given {describe(answer)}."
        if self.kind == "value":
            if callable(answer) and not isinstance(answer, nn.Module | Tensor):
                return f"The check needs a value here, and was given {describe(answer)}: call it, and pass what it returns."
            if answer is None:
                return (
                    "The check was given None: put your value in its place. (A function without `return` returns None.)"
                )
            return None
        if self.run is None and (mismatch := self._mismatch(answer)):
            return mismatch
        return None

    def _mismatch(self, answer: Answer) -> str | None:
        """The sentence about a function that can't take the arguments."""
        cases = self._fresh(0)
        with contextlib.suppress(ValueError, TypeError):  # built-ins have no signature: let them be called
            signature = inspect.signature(answer)
            try:
                signature.bind(*cases[0])
            except TypeError as error:
                names = ", ".join(self._names(len(cases[0])))
                return f"Your function is called as {_name(self.reference)}({names}), but it is defined with the arguments {signature}: {error}."
        return None

    def _unknown(self, answer: Answer, got: list[Any], want: list[Any], results: Results, seed: int) -> str:
        """The most telling sentence about results that no known mistake explains."""
        raised = [index for index, result in enumerate(got) if isinstance(result, Raised)]
        if raised and (raised[0] == 0 or not results.wrong()):
            return self._exception(answer, got[raised[0]], self._fresh(seed)[raised[0]], len(raised), len(got))
        again, _ = self._results(answer, seed, chance=1)
        reference_again, _ = self._results(self.reference, seed, chance=1)
        if not self._alike(again, got, self.close) and self._alike(reference_again, want, self.close):
            return f"Your {self.kind} gives another result on the same arguments when it is called again: it draws from global randomness. Pass the generator on to every random function (generator=generator), or leave chance out if none is asked for."
        return fine(results)

    def _exception(self, answer: Answer, raised: Raised, case: Case, count: int, total: int) -> str:
        """The sentence about an exception: where in the learner's code, which, in which case."""
        text = raised.text.strip().splitlines()
        what = f"{raised.type}: {text[0]}" if text else raised.type
        place = _learners_line(raised.error, answer)
        how_often = "" if count == total else f" It happened in {count} of {total} cases; in the others all went well."
        given = ", ".join(
            f"{name}: {describe(value, True)}" for name, value in zip(self._names(len(case)), case, strict=True)
        )
        given = f"\nA case where it happens: {given}." if case else ""
        if place:
            how_often = f"\n{how_often.strip()}" if how_often else ""
            return f"Your code stopped with {what}\nIt arose in {place}{how_often}{given}"
        if self.run is not None and self.kind == "function" and self._returns_none(answer, case):
            return f"Your function returned nothing (None): did you forget `return`?{given}"
        return f"What your {self.kind} gives can't be used as the exercise asks: the check stopped with {what}.{how_often}{given}"

    @staticmethod
    def _returns_none(answer: Answer, case: Case) -> bool:
        with contextlib.suppress(Exception), contextlib.redirect_stdout(io.StringIO()):
            return answer(*case) is None
        return False

    def _names(self, count: int) -> list[str]:
        """What the arguments are called: as the reference calls them."""
        try:
            names = (
                list(inspect.signature(self.reference).parameters)
                if self.run is None and self.kind == "function"
                else []
            )
        except (ValueError, TypeError):
            names = []
        return (names + [f"argument {index + 1}" for index in range(len(names), count)])[:count]

    def _called(self) -> str:
        """How a notebook calls this check: "check.rotate_batch" after `from sslcourse.checks import lesson02 as check`."""
        for module in [m for n, m in list(sys.modules.items()) if n.startswith("sslcourse.checks.")]:
            for name, value in vars(module).items():
                if value is self:
                    return f"check.{name}"
        return "check"

    def _failed(self, sentence: str, mistake: str | None = None) -> CheckFailed:
        more = f"\nMore help: {self._called()}.hint(1)" if self.hints else ""
        return CheckFailed(f"{self.name}: not yet.\n{sentence}{more}", mistake)

    def _unsolved(self) -> NotSolvedYet:
        more = f" Where to begin: {self._called()}.hint(1)" if self.hints else ""
        return NotSolvedYet(
            f"{self.name}: not solved yet. Write your answer in place of the line `raise NotImplementedError(...)`, run that cell, then run this check again.{more}"
        )


@dataclass(frozen=True, kw_only=True)
class ValueCheck(Check):
    """The check of a number, tensor, text, tuple or dict that the learner worked out, by hand or by code.

    `reference`, `rights` and the answers of `wrongs` are values, or functions without arguments that make them (for what
    is expensive or needs room). A float is compared with `close`, for instance Closeness(atol=0.005) for "two digits".
    """

    kind: Literal["function", "class", "value"] = "value"
    run: Callable[[Answer, Case], Any] | None = lambda answer, case: answer() if inspect.isfunction(answer) else answer


def value_and_gradients(answer: Answer, case: Case) -> dict[str, Any]:
    """For `run`: the result, and the gradient of its sum with respect to every floating-point tensor among the arguments.

    A result cut off from the graph has None for a gradient, and the diagnosis says so.
    """
    case = tuple(a.detach().requires_grad_() if isinstance(a, Tensor) and a.is_floating_point() else a for a in case)
    leaves = {
        f"gradient of argument {i + 1}": a for i, a in enumerate(case) if isinstance(a, Tensor) and a.requires_grad
    }
    with torch.enable_grad():
        value = answer(*case)
        connected = isinstance(value, Tensor) and value.requires_grad
        grads = (
            torch.autograd.grad(value.sum(), list(leaves.values()), allow_unused=True)
            if connected
            else [None] * len(leaves)
        )
    return {"value": value, **dict(zip(leaves, grads, strict=True))}


# -- around an answer ---------------------------------------------------------------------------------------------------


def _seed_everything(seed: int) -> None:
    """The global generators in a known state, so that answers which wrongly use them can be compared."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the legacy generator is just what a learner may have used
    torch.random.default_generator.manual_seed(seed)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Leave the learner's global generators and gradient mode as they were."""
    state = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    try:
        with torch.enable_grad():
            yield
    finally:
        random.setstate(state[0])
        np.random.set_state(state[1])  # noqa: NPY002
        torch.set_rng_state(state[2])


def _is_stub(raised: Raised) -> bool:
    """Is it an exercise's stub, and not one of PyTorch's own (it raises NotImplementedError for the mean of uint8)?"""
    says_so = not raised.text or raised.text.lower().startswith(("not solved", "not implemented", "exercise not"))
    return isinstance(raised.error, NotImplementedError) and says_so


def _comparable(value: Any) -> bool:
    """Can a change of it be seen? Generators are there to be changed, and modules to be trained."""
    return isinstance(value, Tensor | np.ndarray | list | tuple | dict | int | float | str)


def _name(answer: Answer) -> str:
    return getattr(answer, "__name__", None) or type(answer).__name__


def _code_files(answer: Answer) -> set[str]:
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


def _is_library(filename: str) -> bool:
    """Is the file part of Python, of an installed package, or of this one?"""
    if filename.startswith("<") and "ipython" not in filename:
        return True
    roots = [str(PACKAGE), *(sysconfig.get_paths()[key] for key in ("stdlib", "platstdlib", "purelib", "platlib"))]
    return any(os.path.abspath(filename).startswith(root + os.sep) for root in roots) or "site-packages" in filename


def _learners_line(error: BaseException | None, answer: Answer) -> str:
    """ "line 3 of your cell:  return x + y", the last line of the learner's own code on the way to the exception; or ""."""
    own = _code_files(answer)
    frames = traceback.extract_tb(error.__traceback__) if error is not None else []
    # the code of a known wrong answer lies in this package; a learner's never does
    theirs = [f for f in frames if not _is_library(f.filename)] or [
        f for f in frames if f.filename in own and not f.filename.startswith(str(PACKAGE / "checks" / "framework"))
    ]
    if not theirs:
        return ""
    frame = theirs[-1]
    line = (frame.line or linecache.getline(frame.filename, frame.lineno or 0)).strip()
    in_cell = "ipykernel" in frame.filename or frame.filename.startswith("<ipython")
    file = "your cell" if in_cell else Path(frame.filename).name
    return f"line {frame.lineno} of {file}" + (f":  {line}" if line else "")
