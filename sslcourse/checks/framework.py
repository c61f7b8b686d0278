"""Checks that name the mistake.

A check of an exercise holds the reference answer, other right ones, cases to try an answer on, and the typical mistakes. A
learner's answer runs on every case, and on those of a second draw. When all results equal the reference's, it passes.
Otherwise it is looked for, from the sure to the general:

1. an author's `Wrong`, a wrong answer with the same results, written as a change of the reference or as a function;
2. a `Mistake` or a `Forbidden` call, which results don't show;
3. a small change of the reference or of another right answer that comes to the same results (`mutants`, `recognize`);
4. what is wrong with the type, shape or dtype, and exact relations such as a factor of 2 (`diagnose`);
5. a small change of the learner's own answer that makes all of it right: its line is shown, not the change (`recognize`).

    rotate_batch = Check(
        name="2.1 rotate a batch",
        reference=augment.rotate90,
        cases=lambda generator: [...],              # tuples of arguments, drawn from the generator; or what yields them
        rights=(rotate_by_flips, rotate_in_loop),   # at least two other right ways to write it
        wrongs=(Wrong("clockwise", change=("k", "-k"), hint="You rotate clockwise; ..."), ...),    # at least four
        hints=("a nudge", "the way", "nearly the answer"),
    )

    rotate_batch(my_rotate)     # prints one line, or raises CheckFailed with the hint and no traceback
    rotate_batch.hint(1)        # the first of three hints

tests/test_checks.py proves for every check in `sslcourse.checks.lesson*` that the right answers pass and that each wrong one
fails with its own hint; tests/test_mutants.py, that it asks for what the text says, and that mutants which differ elsewhere
are refused on its cases.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import io
import re
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sslcourse.checks.answers import (
    Raised,
    comparable,
    is_stub,
    known_as,
    learners_line,
    name_of,
    seed_everything,
    undisturbed,
)
from sslcourse.checks.compare import Closeness, equal, first_difference, is_number, pairs, same_type, snapshot
from sslcourse.checks.diagnose import Diagnosis, Results, coarse, describe, described, fine
from sslcourse.checks.mistakes import Answer, Case, Forbidden, Mistake, Wrong, changed, is_change, prose, yourself
from sslcourse.checks.recognize import Draw, Foreseen, Search
from sslcourse.checks.source import Source, source_of, source_once

__all__ = ["Check", "CheckFailed", "Forbidden", "Mistake", "NotSolvedYet", "ValueCheck", "Wrong", "changed", "is_change", "value_and_gradients", "yourself"]  # fmt: skip

STOPPED = "\n(This machine is slow just now, and a search for the slip behind it was stopped: run the check again when it is idle.)"
MISTAKEN = ("a tensor for a number", "no gradient")  # an author's Mistake says more about these
WIDTH = 72  # columns: JupyterLab shows as many beside its list of files at 1024 pixels, and cuts in mid-word
# other values of an argument, from its own and from those of all cases
OTHERWISE = (
    lambda value, every: value.flip(0) if isinstance(value, Tensor) and value.dim() else value,
    lambda value, every: value[:1].expand_as(value).clone() if isinstance(value, Tensor) and value.dim() else value,
    lambda value, every: value * 0.5 if isinstance(value, Tensor) and value.is_floating_point() else value,
    lambda value, every: next((n for n in every if n != value), value) if is_number(value) else value,
)
SECOND = 1000  # what passes the cases of one seed is tried on those of another
OWN = 0x5E1F0000  # below 2**32: torch takes no more of a seed; with it, an answer's own manual_seed(0) doesn't draw what a case holds


class _Quiet:
    """Shown by IPython as its message alone: the traceback would lead into this package, where no learner has business."""

    def __init__(self, message: str):
        super().__init__(wrapped(message))

    def _render_traceback_(self) -> list[str]:
        return str(self).splitlines()


class CheckFailed(_Quiet, AssertionError):
    """The answer isn't right yet. `mistake` names the mistake that was recognized, by an author's Wrong, as a small change
    of the reference, or as an exact relation such as a factor of 2; None when none was."""

    def __init__(self, message: str, mistake: str | None = None):
        super().__init__(message)
        self.mistake = mistake


class NotSolvedYet(_Quiet, NotImplementedError):
    """The exercise still holds its stub."""


def wrapped(text: str) -> str:
    """The text in lines of at most WIDTH columns, broken between words; a line break in it stays one."""
    fill = functools.partial(textwrap.fill, width=WIDTH, break_long_words=False, break_on_hyphens=False)
    return "\n".join(map(fill, text.splitlines()))


@dataclass(frozen=True, kw_only=True)
class Check:
    """The check of one exercise; call it with the learner's answer.

    name: number and title. reference: the right answer. cases(generator): at least one tuple of arguments; called anew for
    every answer with the generator in the same state, so it must take all randomness from it. Draw several cases, with
    sizes that differ from each other (N, C, H and W too): what is right by accident must be wrong somewhere.
    rights: other right answers. wrongs, mistakes: see `Wrong` and `Mistake`; the first that fits wins, so order them from
    the special to the general. hints: three, from a nudge to nearly the answer. run(answer, case): what to compare, by
    default `answer(*case)`; for a class, build an instance and use it. close: rtol, atol and how strict dtypes are.
    kind: what the answer is. praise: said when it passes. forbidden: functions that the text forbids. source: the
    reference written out for mutation, where the reference itself does its work elsewhere. arguments: what the parts of a
    case are called, where they aren't the reference's own arguments. gradients: are gradients with respect to the
    arguments compared, too? By default those of a loss: where the reference and all other right answers give a tensor
    without dimensions that carries one.
    """

    name: str
    reference: Answer
    cases: Callable[[torch.Generator], Iterable[Case]] = lambda generator: [()]
    rights: tuple[Answer, ...] = ()
    wrongs: tuple[Wrong, ...] = ()
    mistakes: tuple[Mistake, ...] = ()
    hints: tuple[str, str, str] | tuple[()] = ()
    run: Callable[[Answer, Case], Any] | None = None
    close: Closeness = Closeness()
    kind: Literal["function", "class", "value"] = "function"
    praise: str = ""
    may_change_arguments: bool = False
    forbidden: tuple[Forbidden, ...] = ()
    source: Answer = None
    arguments: tuple[str, ...] = ()
    gradients: bool | None = None
    _memory: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "hints", tuple(map(prose, self.hints)))
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
        with undisturbed():
            error, count = self._judge(answer, seed)
        if error is not None:
            raise error from None
        cases = "" if self.kind == "value" or count == 1 else f" in all {count} cases"
        print(wrapped(f"{self.name}: passed{cases}.{' ' + self.praise if self.praise else ''}"))

    def hint(self, step: int = 1) -> None:
        """Print hint 1 (a nudge), 2 (the way) or 3 (nearly the answer)."""
        if not self.hints:
            print(f"{self.name} has no hints: the check's own messages are all there is.")
        elif step not in (1, 2, 3):
            print(f"There are three hints: .hint(1), .hint(2) and .hint(3); not {step!r}.")
        else:
            more = f" (There is more: {self.called()}.hint({step + 1}))" if step < 3 else ""
            print(wrapped(f"Hint {step} of 3: {self.hints[step - 1]}{more}"))

    def __repr__(self) -> str:
        return f"<the check of exercise {self.name}: call it with your {self.kind}>"

    # -- the judgement ------------------------------------------------------------------------------------------------

    def _judge(self, answer: Answer, seed: int) -> tuple[Exception | None, int]:
        """(what to raise or None, how many cases there were)."""
        if problem := self._not_an_answer(answer):
            return self._failed(Diagnosis(problem)), 0
        if answer is Ellipsis or answer is NotImplemented:
            return self._unsolved(), 0
        count = len(self._kept("reference", self.reference, seed))
        for draw in (seed, seed + SECOND) if count else ():
            verdict = self._verdict(answer, draw, show_first=draw == seed)
            if verdict is not None:
                return verdict if isinstance(verdict, Exception) else self._failed(verdict), count
        return None, count

    def _verdict(self, answer: Answer, seed: int, show_first: bool) -> Diagnosis | NotSolvedYet | None:
        """What is wrong on the cases of one seed, the most telling first; None if nothing is."""
        want = self._kept("reference", self.reference, seed)
        got, after = self._results(answer, seed, show_first)
        if any(isinstance(result, Raised) and is_stub(result) for result in got):
            return self._unsolved()
        if self._alike(got, want, self.close):
            changed = None if self.may_change_arguments else self._changed(after, seed)
            return self._known_mistake(answer, seed) or changed
        results = self._whole(got, want, seed)
        rough, search = coarse(results), self._search()
        if search is not None:
            search.stopped = False
        # what isn't even a tensor has no gradient, either: mistakes only where nothing coarse is wrong
        told = (
            self._known_wrong(got, want, seed)
            or (self._known_mistake(answer, seed) if rough is None or rough.name in MISTAKEN else None)
            or (rough if rough is not None and rough.alone else None)
            or self._small_change(
                answer, got, want, seed, lambda: self._relation(results, rough) or self._unused(answer, seed)
            )
            or rough
            or self._unknown(answer, got, want, results, seed)
        )
        return told + STOPPED if search is not None and search.stopped else told

    def _whole(self, got: list[Any], want: list[Any], seed: int) -> Results:
        """The results of the cases in which no exception was raised."""
        cases = self._fresh(seed)
        whole = [index for index, result in enumerate(got) if not isinstance(result, Raised)]
        pick = [[things[index] for index in whole] for things in (got, want, cases)]
        return Results(*pick, self._names(99), self.close, self.kind)

    def _fresh(self, seed: int) -> list[Case]:
        """The cases, made anew, so that no answer sees what another did to its arguments; modules in them start alike."""
        seed_everything(OWN + 7 + seed)
        return [tuple(case) for case in self.cases(torch.Generator().manual_seed(OWN + seed))]

    def _results(
        self, answer: Answer, seed: int, show_first: bool = False, chance: int = 0
    ) -> tuple[list[Any], list[Case]]:
        """What the answer comes to in every case, and the arguments as it left them.

        chance: the state of the global random generators, always the same unless asked. Prints are shown for the first
        case only: who debugs by printing wants them once.
        """
        cases, results = self._fresh(seed), []
        for index, case in enumerate(cases):
            with contextlib.nullcontext() if show_first and index == 0 else contextlib.redirect_stdout(io.StringIO()):
                seed_everything(chance)
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
            return self._plain(answer, case)
        except Exception as error:  # a learner's code may raise anything
            return Raised(type(error).__name__, str(error), error)

    def _plain(self, answer: Answer, case: Case) -> Any:
        if self.run is None and self._compares_gradients():
            given = value_and_gradients(answer, case)
            asked = self._memory.get("asked", set(given))
            return snapshot({name: item for name, item in given.items() if name in asked})
        return snapshot(self.run(answer, case) if self.run else answer(*case))

    def _compares_gradients(self) -> bool:
        """Where every right answer carries a gradient, one that cuts it off is wrong."""
        if self.gradients is None and "asked" not in self._memory:
            function = self.kind == "function"
            asked = set.intersection(*map(self._carried, (self.reference, *self.rights))) if function else set()
            self._memory["asked"] = asked | {"value"} if asked else asked
        return bool(self._memory["asked"]) if self.gradients is None else self.gradients

    def _carried(self, answer: Answer) -> set[str]:
        """The names of the gradients that a loss carries."""
        with contextlib.suppress(Exception), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            seed_everything(0)
            given = value_and_gradients(answer, self._fresh(0)[0])
            if isinstance(given["value"], Tensor) and given["value"].dim() == 0:
                return {n for n, g in given.items() if n != "value" and any(t is not None for _, t, _ in pairs(g, g))}
        return set()

    @staticmethod
    def _alike(got: list[Any], want: list[Any], close: Closeness) -> bool:
        """Are the results the same in every case, exceptions included?"""
        return all(
            a == b if isinstance(a, Raised) or isinstance(b, Raised) else equal(a, b, close)
            for a, b in zip(got, want, strict=True)
        )

    def _known_wrong(self, got: list[Any], want: list[Any], seed: int) -> Diagnosis | None:
        """The first typical wrong answer with these results in every case.

        First with dtypes as strict as the check is; then, if more than the dtype is wrong, whatever the dtype: who rotates
        the wrong way *and* returns floats should hear of the rotation first. Then, of a wrong loss, whatever the gradients.
        """
        known = [(w, index, a) for w in self.wrongs for index, a in enumerate(w.answers(self.reference))]
        theirs = [(w, self._kept(f"{w.name} {index}", a, seed)) for w, index, a in known]
        theirs = [(w, results) for w, results in theirs if not self._alike(results, want, self.close)]
        loose = Closeness(self.close.rtol, self.close.atol, "any")
        tries: list[tuple[Closeness, Callable]] = [(self.close, list)]
        tries += [(loose, part) for part in (list, _values) if not self._alike(part(got), part(want), loose)]
        for close, part in tries:
            for wrong, results in theirs:
                if self._alike(part(got), part(results), close):
                    return Diagnosis(wrong.hint, wrong.name)
        return None

    @staticmethod
    def _relation(results: Results, rough: Diagnosis | None) -> Diagnosis | None:
        """What results are of the right ones, where that has a name."""
        found = rough or (fine(results) if results.got and results.wrong() else None)
        return found if found is not None and found.name else None

    def _unused(self, answer: Answer, seed: int) -> Diagnosis | None:
        """An argument that plays a part in the right results, and none in the learner's."""
        for position, name in enumerate(self._names(len(self._fresh(seed)[0]))):
            if name and self._matters(self.reference, position, seed) and not self._matters(answer, position, seed):
                told = f"Your results don't depend on `{name}`: they stay the same whatever it is."
                return Diagnosis(told, "an argument unused")
        return None

    def _matters(self, answer: Answer, position: int, seed: int) -> bool:
        """Does another value of an argument change what an answer comes to?"""
        there, _ = self._results(answer, seed)
        for way in OTHERWISE:
            cases = self._fresh(seed)
            given = [way(case[position], [c[position] for c in cases if len(c) > position]) for case in cases]
            for index, (case, other) in enumerate(zip(cases, given, strict=True)):
                seed_everything(0)
                result = self._result(answer, (*case[:position], other, *case[position + 1 :]))
                if not self._alike([result], [there[index]], self.close):
                    return True
        return False

    def _small_change(
        self, answer: Answer, got: list[Any], want: list[Any], seed: int, relation: Callable[[], Diagnosis | None]
    ) -> Diagnosis | None:
        """The small changes of the reference that come to these results in every case."""
        alike = len(got) > 1 and all(equal(result, got[0], self.close) for result in got[1:])
        both = [(g, w) for g, w in zip(got, want, strict=True) if not isinstance(g, Raised)]
        one = any(isinstance(g, Tensor) and isinstance(w, list | tuple) for g, w in both)
        typed = not both or one or any(self._typed(g, w) for g, w in both)
        search = self._search()
        right = self._alike(got, want, Closeness(self.close.rtol, self.close.atol, "any"))  # but for the dtype
        if search is None or alike or right or not typed:
            return None

        def draw(number: int) -> Draw:
            theirs = got if number == seed else self._results(answer, number)[0]
            return Draw(lambda: self._fresh(number), theirs, self._kept("reference", self.reference, number), number)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return search.find(draw(seed), lambda: draw(seed + SECOND + 1), relation, _own_source(answer))

    def _typed(self, got: Any, want: Any) -> bool:
        """Is every part of the type that is needed? A gradient may be missing where a value before it is wrong."""
        different = first_difference(got, want, self.close)
        value_first = different is not None and different[1] is not None
        return all(same_type(a, b) or path and a is None and value_first for path, a, b in pairs(got, want))

    def _search(self) -> Search | None:
        """The search among the mutants of the right answers, made once; None where there is no source."""
        if "search" not in self._memory:
            # what the package has is longer than what a learner writes
            rights = [r for r in self.rights if not re.match(r"sslcourse\.(?!checks)", getattr(r, "__module__", ""))]
            written = (self.reference if self.source is None else self.source, *rights)
            sources = [source for answer in written if (source := source_once(answer)) is not None]
            noun = "value is" if self.kind == "value" else "results are"
            own = list(self.arguments)
            if not own and inspect.isfunction(self.reference):
                own = list(inspect.signature(self.reference).parameters)
            source = source_once(self.reference)
            foreseen = Foreseen(source, self.wrongs) if source is not None else None
            self._memory["search"] = Search(sources, self._plain, own, self.close, noun, foreseen) if sources else None
        return self._memory["search"]

    def _known_mistake(self, answer: Answer, seed: int) -> Diagnosis | None:
        """A mistake that isn't seen in the results: by its predicate, or a forbidden call in the first case."""
        with contextlib.redirect_stdout(io.StringIO()):
            for mistake in self.mistakes:
                seed_everything(0)
                with contextlib.suppress(Exception):
                    if mistake.recognizes(answer, self._fresh(seed)):
                        return Diagnosis(mistake.hint, mistake.name)
            for forbidden in self.forbidden:
                case = self._fresh(seed)[0]
                if forbidden.seen_in(lambda case=case: self._plain(answer, case)):
                    return Diagnosis(forbidden.hint, forbidden.name)
        return None

    def _changed(self, after: list[Case], seed: int) -> Diagnosis | None:
        """The sentence about an argument that the answer changed in place."""
        exact = Closeness(0.0, 0.0, "exact")
        for case, before in zip(after, self._fresh(seed), strict=True):
            for name, a, b in zip(self._names(len(case)), case, before, strict=True):
                if comparable(b) and first_difference(a, b, exact) is not None:
                    which = f"its argument `{name}`" if name else "one of its arguments"
                    return Diagnosis(
                        f"The result is right, but your {self.kind} changes {which} in place, and whoever called it still needs that: work on a copy, x.clone().",
                        "an argument changed",
                    )
        return None

    # -- answers that no author foresaw ---------------------------------------------------------------------------------

    def _not_an_answer(self, answer: Answer) -> str | None:
        """The sentence about something that can't be tried at all."""
        name = name_of(self.reference)
        if self.kind == "function" and not callable(answer):
            return f"The check needs your function itself, without parentheses and arguments, so that it can call it: check(my_{name}), not check(my_{name}(...)). It was given {describe(answer)}."
        if self.kind == "class" and not inspect.isclass(answer):
            return f"The check needs your class itself, without parentheses, so that it can build instances of it. It was given {describe(answer)}."
        if self.kind == "value":
            if callable(answer) and not isinstance(answer, nn.Module | Tensor):
                return f"The check needs a value here, and was given {describe(answer)}: call it, and pass what it returns."
            if answer is None:
                return "The check was given None: put your value there. (A function without `return` returns None.)"
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
                names = ", ".join(name or "..." for name in self._names(len(cases[0])))
                return f"Your function is called as {name_of(self.reference)}({names}), but it is defined with the arguments {signature}: {error}."
        return None

    def _unknown(self, answer: Answer, got: list[Any], want: list[Any], results: Results, seed: int) -> Diagnosis:
        """The most telling sentence about results that no known mistake explains."""
        raised = [index for index, result in enumerate(got) if isinstance(result, Raised)]
        if raised and (raised[0] == 0 or not results.wrong()):
            case = self._fresh(seed)[raised[0]]
            return Diagnosis(self._exception(answer, got[raised[0]], case, len(raised), len(got)))
        again, _ = self._results(answer, seed, chance=1)
        reference_again, _ = self._results(self.reference, seed, chance=1)
        if not self._alike(again, got, self.close) and self._alike(reference_again, want, self.close):
            return Diagnosis(
                f"Your {self.kind} gives another result on the same arguments when it is called again: it draws from global randomness. Pass the generator on to every random function (generator=generator), or leave chance out if none is asked for.",
                "global randomness",
            )
        return fine(results)

    def _exception(self, answer: Answer, raised: Raised, case: Case, count: int, total: int) -> str:
        """The sentence about an exception: where in the learner's code, which, in which case."""
        text = raised.text.strip().splitlines()
        what = (f"{raised.type}: {text[0]}" if text else raised.type) + known_as(raised.error)
        place = learners_line(raised.error, answer)
        how_often = "" if count == total else f" It happened in {count} of {total} cases; in the others all went well."
        given = described(case, self._names(len(case)))
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

    def _names(self, count: int) -> list[str | None]:
        """What the parts of a case are called: as the reference calls its arguments, if that is what they are."""
        names: list[str | None] = list(self.arguments)
        if not names and self.kind == "function":
            with contextlib.suppress(ValueError, TypeError):
                names = list(inspect.signature(self.reference).parameters)
            if self.run not in (None, value_and_gradients) and len(names) != len(self._fresh(0)[0]):
                names = []
        return (names + [None] * count)[:count]

    def called(self) -> str:
        """How a notebook calls this check: "check.rotate_batch" after `from sslcourse.checks import lesson02 as check`."""
        for module in [m for n, m in list(sys.modules.items()) if n.startswith("sslcourse.checks.")]:
            for name, value in vars(module).items():
                if value is self:
                    return f"check.{name}"
        return "check"

    def _failed(self, found: Diagnosis) -> CheckFailed:
        more = f"\nMore help: {self.called()}.hint(1)" if self.hints else ""
        return CheckFailed(f"{self.name}: not yet.\n{found.sentence}{more}", found.name)

    def _unsolved(self) -> NotSolvedYet:
        more = f" Where to begin: {self.called()}.hint(1)" if self.hints else ""
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


def _values(results: list[Any]) -> list[Any]:
    """The results without the gradients beside them."""
    return [result.get("value", result) if isinstance(result, dict) else result for result in results]


def _own_source(answer: Answer) -> Source | None:
    """What the learner wrote; None where it can't be read."""
    with contextlib.suppress(Exception):  # a cell may hold anything
        return source_of(answer)
    return None


def value_and_gradients(answer: Answer, case: Case) -> dict[str, Any]:
    """For `run`: the result, and the gradient of its sum with respect to every floating-point tensor among the arguments.

    A list of tensors among them has a list of gradients. A result cut off from the graph has None for a gradient, and the
    diagnosis says so.
    """

    leaves: list[Tensor] = []

    def fresh(value: Any) -> Any:
        if type(value) in (list, tuple) and value and all(isinstance(item, Tensor) for item in value):
            return type(value)(map(fresh, value))
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        leaves.append(value.detach().requires_grad_())
        return leaves[-1]

    def gradient(value: Any) -> Any:
        return list(map(gradient, value)) if isinstance(value, list | tuple) else grads.get(id(value))

    case = tuple(map(fresh, case))
    with torch.enable_grad():
        value = answer(*case)
        connected = isinstance(value, Tensor) and value.requires_grad
        theirs = torch.autograd.grad(value.sum(), leaves, allow_unused=True) if connected and leaves else []
    grads = {id(leaf): its for leaf, its in zip(leaves, theirs, strict=False)}
    ids = set(map(id, leaves))
    asked = [i for i, part in enumerate(case) if id(part[0] if type(part) in (list, tuple) and part else part) in ids]
    return {"value": value, **{f"gradient of argument {i + 1}": gradient(case[i]) for i in asked}}
