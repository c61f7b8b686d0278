"""Which small mistakes come to exactly these results? A search among the mutants of a reference, within a second.

A mutant is tried on the smallest case that is wrong, and only where it fits there on all the others, and once more on cases
drawn anew. What no mutant explains may be one with a constant factor or a sign, or two at once: these are tried as long as
there is time.
"""

from __future__ import annotations

import contextlib
import gc
import io
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sslcourse.checks.answers import Raised
from sslcourse.checks.compare import Closeness, as_float, equal, is_number, pairs
from sslcourse.checks.diagnose import Diagnosis
from sslcourse.checks.mutants import Mutant, Place, mutants, mutated, watched
from sslcourse.checks.source import Source

SINGLE, WHOLE = 0.5, 0.7  # seconds for single mutants, and for everything
ALONE = ("nothing done", "works on a copy")  # kinds that say enough, whatever else comes to the same
FAR = (
    "one for the other",
    "order of steps",
    "a factor of 255",
    "a factor of 90",
    "rounded down",
)  # said where nothing nearer fits
NAN = "nothing but NaN"
ONE = 0.1  # for one mutant: a change can make a loop endless
Case = tuple[Any, ...]


class OutOfTime(BaseException):
    """Raised inside a mutant that runs for too long; no `except Exception` in a reference catches it."""


@dataclass(frozen=True)
class Draw:
    """The cases of one seed, and what the learner's answer gave on them. fresh: makes the cases anew."""

    fresh: Callable[[], Sequence[Case]]
    got: Sequence[Any]
    want: Sequence[Any]
    key: Any


class Written:
    """A right answer as it is written, its mutants, and what each came to in the cases so far."""

    def __init__(self, source: Source, arguments: Sequence[str]):
        self.source = source
        self.place = Place(watched(source.text, source.name, arguments), arguments)
        self.mutants = mutants(self.place)
        self.results: dict[Any, Any] = {}

    def with_changes(self, changes: Sequence[Mutant], tick: Callable[[], None]) -> Any:
        tree = mutated(self.place, [change for mutant in changes for change in mutant.changes])
        return self.source.built(tree, __tick__=tick)


@dataclass
class Search:
    """The mutants of the right answers to one exercise: of the reference, and then of those written differently.

    play(answer, case): what a case comes to. arguments: the names a learner knows. noun: what the learner's results are
    called, with a verb.
    """

    sources: Sequence[Source]
    play: Callable[[Any, Case], Any]
    arguments: Sequence[str]
    close: Closeness
    noun: str = "results are"
    _written: list[Written] = field(default_factory=list, repr=False)
    _cases: dict[Any, Sequence[Case]] = field(default_factory=dict, repr=False)

    def written(self) -> Iterator[Written]:
        """The right answers, each read when it is first needed."""
        for index, source in enumerate(self.sources):
            if index == len(self._written):
                self._written.append(Written(source, self.arguments))
            yield self._written[index]

    def find(self, draw: Draw, again: Callable[[], Draw]) -> Diagnosis | None:
        """The mistake that comes to these results, or None."""
        both = enumerate(zip(draw.got, draw.want, strict=True))
        wrong = [i for i, (a, b) in both if not (_unusable(a) or equal(a, b, self.close))]
        if not wrong:
            return None
        with _no_garbage_collection():
            return self._explained(draw, again, min(wrong, key=lambda i: _size(draw.got[i])))

    def _explained(self, draw: Draw, again: Callable[[], Draw], index: int) -> Diagnosis | None:
        begin = time.perf_counter()
        tried: list[tuple[Written, list[tuple[Mutant, Any]]]] = []
        for written in self.written():
            firsts = self._firsts(written, draw, index, begin + SINGLE)
            fits = [(m,) for m, first in firsts if equal(draw.got[index], first, self.close)]
            if found := self._confirmed(written, fits, draw, again):
                return self._told(found)
            tried.append((written, firsts))
        for written, firsts in tried:
            for mutant, words in self._scaled(written, firsts, draw, index, begin + WHOLE):
                return self._told([(mutant,)], words)
        for left, (written, firsts) in zip(range(len(tried), 0, -1), tried, strict=True):
            now = time.perf_counter()
            together = self._two(written, firsts, draw, index, now + (begin + WHOLE - now) / left)
            if found := self._confirmed(written, together, draw, again, enough=1):
                return self._told(found)
        return None

    def _firsts(self, written: Written, draw: Draw, index: int, end: float) -> list[tuple[Mutant, Any]]:
        """Every mutant with its result in one case; those that stop there are left out."""
        found = []
        for mutant in written.mutants:
            if time.perf_counter() > end:
                break
            result = self._result(written, (mutant,), draw, index)
            if not isinstance(result, _Stopped):
                found.append((mutant, result))
        return found

    def _confirmed(
        self, written: Written, candidates, draw: Draw, again: Callable[[], Draw], enough: int = 12
    ) -> list[tuple[Mutant, ...]]:
        """Those that come to the same results in every case, and in every case of another draw."""
        found, second = [], None
        for changes in candidates:
            if self._fits(written, changes, draw):
                second = second or again()
                if self._fits(written, changes, second):
                    found.append(changes)
            if len(found) == enough:
                break
        return found

    def _fits(self, written: Written, changes: tuple[Mutant, ...], draw: Draw) -> bool:
        return all(self._same(got, self._result(written, changes, draw, i)) for i, got in enumerate(draw.got))

    def _same(self, got: Any, result: Any) -> bool:
        if isinstance(got, Raised):
            return isinstance(result, _Stopped) and result.why == got.type
        if isinstance(result, _Stopped) and result.why == NAN:
            return _unusable(got)
        return not isinstance(result, _Stopped) and equal(got, result, self.close)

    def _scaled(self, written: Written, firsts, draw: Draw, index: int, end: float) -> Iterator[tuple[Mutant, str]]:
        """Mutants with all of their values multiplied by the same number."""
        got = _numbers(draw.got[index])
        if got is None or self._multiple(draw):
            return
        for mutant, first in firsts:
            alike = _paths(draw.got[index]) == _paths(first)
            ratio = _ratio(got, _numbers(first)) if alike else None
            if time.perf_counter() > end:
                return
            if ratio is None or math.isclose(ratio, 1, rel_tol=1e-4) or equal(first, draw.want[index], self.close):
                continue
            others = (
                _ratio(_numbers(g), _numbers(self._result(written, (mutant,), draw, i))) for i, g in enumerate(draw.got)
            )
            if all(r is not None and math.isclose(r, ratio, rel_tol=1e-3) for r in others):
                words = (
                    "and the sign is the other one"
                    if math.isclose(ratio, -1, rel_tol=1e-3)
                    else f"and everything is multiplied by {ratio:.4g}"
                )
                yield mutant, words

    def _multiple(self, draw: Draw) -> bool:
        """Are the results the right ones, multiplied by one number? Then no other mistake is needed to explain them."""
        ratios = [_ratio(_numbers(a), _numbers(b)) for a, b in zip(draw.got, draw.want, strict=True)]
        return None not in ratios and all(math.isclose(r, ratios[0], rel_tol=1e-3) for r in ratios)

    def _two(self, written: Written, firsts, draw: Draw, index: int, end: float) -> Iterator[tuple[Mutant, Mutant]]:
        """Pairs of mutants that fit in one case, the likeliest first, until the time is over."""
        distinct: list[tuple[Mutant, Any]] = []
        seen: set[str] = set()
        for mutant, first in firsts:
            mark = _mark(first)
            if mark not in seen and not equal(first, draw.want[index], self.close):
                seen.add(mark)
                distinct.append((mutant, first))
        for total in range(1, 2 * len(distinct)):
            for a in range(max(0, total - len(distinct) + 1), (total + 1) // 2):
                if time.perf_counter() > end:
                    return
                pair = distinct[a][0], distinct[total - a][0]
                apart = {id(c.node) for c in pair[0].changes}.isdisjoint(id(c.node) for c in pair[1].changes)
                if apart and equal(draw.got[index], self._result(written, pair, draw, index), self.close):
                    yield pair

    # -- one mutant in one case ---------------------------------------------------------------------------------------------

    def _result(self, written: Written, changes: tuple[Mutant, ...], draw: Draw, index: int) -> Any:
        """What a case comes to; worked out once for a single mutant."""
        if len(changes) > 1:
            return self._run(written, changes, draw, index)
        key = (draw.key, index, id(changes[0]))
        if key not in written.results:
            written.results[key] = self._run(written, changes, draw, index)
        return written.results[key]

    def _run(self, written: Written, changes: tuple[Mutant, ...], draw: Draw, index: int) -> Any:
        over = time.perf_counter() + ONE

        def tick() -> None:
            if time.perf_counter() > over:
                raise OutOfTime

        case = self._case(draw, index)
        torch.random.default_generator.manual_seed(0)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                result = self.play(written.with_changes(changes, tick), case)
        except (Exception, OutOfTime, SystemExit) as error:
            return _Stopped(type(error).__name__)
        return _Stopped(NAN) if _unusable(result) else result

    def _case(self, draw: Draw, index: int) -> Case:
        """A case that no other mutant has touched."""
        if draw.key not in self._cases:
            self._cases[draw.key] = draw.fresh()
        try:
            return tuple(duplicate(value) for value in self._cases[draw.key][index])
        except TypeError:
            return tuple(draw.fresh()[index])

    def _told(self, found: list[tuple[Mutant, ...]], words: str = "") -> Diagnosis:
        """One sentence about what fits; where several kinds of mistake do, what they have in common."""
        kinds: dict[str, str] = {}
        for changes in found:
            name = " and ".join(dict.fromkeys(change.kind for change in changes))
            says = ", and in which ".join(dict.fromkeys(change.says for change in changes))
            if says not in kinds.values():
                kinds.setdefault(name, f"{says}, {words}" if words else says)
        near = {name: clause for name, clause in kinds.items() if name not in FAR}
        kinds = near or kinds
        names, clauses = list(kinds)[:2], list(kinds.values())[:2]
        if names[0] in ALONE:
            names, clauses = names[:1], clauses[:1]
        begin = f"Your {self.noun} exactly those of an answer in which {clauses[0]}"
        if len(clauses) == 1:
            return Diagnosis(begin + ".", names[0])
        return Diagnosis(
            f"{begin}; or, which comes to the same in every case here, in which {clauses[1]}.", " or ".join(names)
        )


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Thousands of small trees would each time make Python look through all of PyTorch's objects."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


class _Stopped:
    """A mutant without a result."""

    def __init__(self, why: str):
        self.why = why


def duplicate(value: Any) -> Any:
    """A copy that an answer may change. Raises TypeError for what isn't plain data, such as a module."""
    if isinstance(value, Tensor) and type(value) is Tensor and value.is_leaf:
        return value.detach().clone().requires_grad_(value.requires_grad)
    if isinstance(value, torch.Generator):
        return torch.Generator().set_state(value.get_state())
    if type(value) in (list, tuple):
        return type(value)(map(duplicate, value))
    if type(value) is dict:
        return {key: duplicate(item) for key, item in value.items()}
    if (
        value is None
        or isinstance(value, int | float | str | bool | complex | range)
        or callable(value)
        and not hasattr(value, "parameters")
    ):
        return value
    raise TypeError(f"no copy of {type(value)}")


def _paths(result: Any) -> list[Any]:
    return [path for path, _, _ in pairs(result, result)]


def _leaves(result: Any) -> list[Any]:
    return [leaf for _, leaf, _ in pairs(result, result)]


def _unusable(result: Any) -> bool:
    """Is it no value at all, or nothing but NaN?"""
    leaves = [
        leaf for leaf in _leaves(result) if leaf is not None and type(leaf).__name__ not in ("_Stopped", "Raised")
    ]
    floats = [as_float(leaf) for leaf in leaves if isinstance(leaf, Tensor) or is_number(leaf)]
    nan = bool(floats) and all(bool(f.isnan().all()) for f in floats if f.numel())
    return not leaves or nan and len(floats) == len(leaves)


def _numbers(result: Any) -> list[Tensor] | None:
    """Every number of a result, or None if something in it is no number."""
    leaves = _leaves(result)
    if not leaves or not all(isinstance(leaf, Tensor) and not leaf.is_meta or is_number(leaf) for leaf in leaves):
        return None
    numbers = [as_float(leaf).flatten() for leaf in leaves]
    return None if any(n.is_complex() for n in numbers) else numbers


def _ratio(got: list[Tensor] | None, want: list[Tensor] | None) -> float | None:
    """The number that `want` is to be multiplied by, everywhere, to give `got`."""
    if got is None or want is None or [len(a) for a in got] != [len(b) for b in want]:
        return None
    a, b = torch.cat(got), torch.cat(want)
    if not len(b) or not b.isfinite().all() or not a.isfinite().all() or b.abs().max() < 1e-9:
        return None
    at = int(b.abs().argmax())
    ratio = float(a[at] / b[at])
    close = (
        torch.allclose(a, b * ratio, rtol=1e-4, atol=1e-7 + 1e-6 * float(b.abs().max()) * abs(ratio))
        for a, b in zip(got, want, strict=True)  # each by its own size: a value may be much larger than its gradients
        if len(b)
    )
    return ratio if abs(ratio) > 1e-6 and all(close) else None


def _mark(result: Any) -> str:
    """The same for results that are the same, up to rounding."""
    numbers = _numbers(result)
    return repr([[f"{x:.4g}" for x in n[:64].tolist()] for n in numbers]) if numbers else repr(result)[:400]


def _size(result: Any) -> int:
    return sum(leaf.numel() if isinstance(leaf, Tensor) else 1 for leaf in _leaves(result))
