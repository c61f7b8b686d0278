"""Which small mistakes come to exactly these results? A search among the mutants of a reference, within a second.

A mutant is tried on the smallest case that is wrong, and only where it fits there on all the others, and once more on cases
drawn anew. What no mutant explains may be one with a constant factor or a sign, or two at once: these are tried as long as
there is time. Time is that of this thread's own computing, so that a busy machine doesn't change what is recognized.
"""

from __future__ import annotations

import ast
import contextlib
import io
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sslcourse.checks.compare import Closeness, as_float, equal, is_number, pairs
from sslcourse.checks.diagnose import Diagnosis
from sslcourse.checks.mutants import Mutant, mutants, mutated
from sslcourse.checks.source import Source

SECONDS = 0.5  # of computing, for all mutants of one answer
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
    key: Any = None


@dataclass
class Search:
    """The mutants of one reference. play(answer, case): what a case comes to; arguments: the names a learner knows."""

    source: Source
    play: Callable[[Any, Case], Any]
    arguments: Sequence[str]
    close: Closeness
    noun: str = "results are"
    _tree: ast.Module | None = field(default=None, repr=False)
    _singles: list[Mutant] = field(default_factory=list, repr=False)
    _memory: dict[Any, Any] = field(default_factory=dict, repr=False)

    def singles(self) -> list[Mutant]:
        if self._tree is None:
            self._tree = ast.parse(self.source.text)
            self._singles = mutants(self._tree, self.arguments)
        return self._singles

    def find(self, draw: Draw, again: Callable[[], Draw], seconds: float = SECONDS) -> Diagnosis | None:
        """The mistake that comes to these results, or None."""
        index = min(
            (i for i, (a, b) in enumerate(zip(draw.got, draw.want, strict=True)) if not equal(a, b, self.close)),
            key=lambda i: _size(draw.got[i]),
            default=None,
        )
        if index is None or _unusable(draw.got[index]):
            return None
        end = time.thread_time() + seconds
        firsts = self._firsts(draw, index, end)
        fits = [(m,) for m, first in firsts if equal(draw.got[index], first, self.close)]
        for found, words in (
            ((self._confirmed(fits, draw, again)), ""),
            *self._scaled(firsts, draw, index),
            (self._confirmed(self._two(firsts, draw, index, end), draw, again, enough=1), ""),
        ):
            if found:
                return self._told(found, words)
        return None

    def _firsts(self, draw: Draw, index: int, end: float) -> list[tuple[Mutant, Any]]:
        """Every mutant with its result in one case; those that stop there, or change nothing in any case, are left out."""
        known = self._memory.setdefault((draw.key, index), {})
        found = []
        for number, mutant in enumerate(self.singles()):
            if number not in known:
                if time.thread_time() > end:
                    break
                known[number] = self._result((mutant,), draw, index)
            if not isinstance(known[number], _Stopped):
                found.append((mutant, known[number]))
        return found

    def _confirmed(
        self, candidates, draw: Draw, again: Callable[[], Draw], enough: int = 12
    ) -> list[tuple[Mutant, ...]]:
        """Those that come to the same results in every case, and in every case of another draw."""
        found, second = [], None
        for changes in candidates:
            if self._fits(changes, draw):
                second = second or again()
                if self._fits(changes, second):
                    found.append(changes)
            if len(found) == enough:
                break
        return found

    def _fits(self, changes: tuple[Mutant, ...], draw: Draw) -> bool:
        return all(equal(got, self._result(changes, draw, i), self.close) for i, got in enumerate(draw.got))

    def _scaled(self, firsts, draw: Draw, index: int) -> Iterator[tuple[list[tuple[Mutant, ...]], str]]:
        """Mutants with all of their values multiplied by the same number."""
        got = _numbers(draw.got[index])
        if got is None:
            return
        for mutant, first in firsts:
            ratio = _ratio(got, _numbers(first))
            if ratio is None or math.isclose(ratio, 1, rel_tol=1e-4) or equal(first, draw.want[index], self.close):
                continue
            others = (_ratio(_numbers(g), _numbers(self._result((mutant,), draw, i))) for i, g in enumerate(draw.got))
            if all(r is not None and math.isclose(r, ratio, rel_tol=1e-3) for r in others):
                words = (
                    "and the sign is the other one"
                    if math.isclose(ratio, -1, rel_tol=1e-3)
                    else f"and everything is multiplied by {ratio:.4g}"
                )
                yield [(mutant,)], words

    def _two(self, firsts, draw: Draw, index: int, end: float) -> Iterator[tuple[Mutant, Mutant]]:
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
                if time.thread_time() > end:
                    return
                pair = distinct[a][0], distinct[total - a][0]
                if pair[0].node is not pair[1].node and equal(
                    draw.got[index], self._result(pair, draw, index), self.close
                ):
                    yield pair

    # -- one mutant in one case ---------------------------------------------------------------------------------------------

    def _result(self, changes: tuple[Mutant, ...], draw: Draw, index: int) -> Any:
        over = time.thread_time() + ONE

        def tick() -> bool:
            if time.thread_time() > over:
                raise OutOfTime
            return True

        case = self._case(draw, index)
        torch.random.default_generator.manual_seed(0)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                answer = self.source.built(watched(mutated(self._tree, changes)), __tick__=tick)
                result = self.play(answer, case)
        except (Exception, OutOfTime, SystemExit, RecursionError) as error:
            return _Stopped(type(error).__name__)
        return _Stopped("nothing but NaN") if _unusable(result) else result

    def _case(self, draw: Draw, index: int) -> Case:
        """A case that no other mutant has touched."""
        kept = self._memory.get(("cases", draw.key))
        if kept is None:
            kept = self._memory["cases", draw.key] = list(draw.fresh())
        try:
            return tuple(duplicate(value) for value in kept[index])
        except TypeError:
            return tuple(draw.fresh()[index])

    def _told(self, found: list[tuple[Mutant, ...]], words: str) -> Diagnosis:
        """One sentence about what fits; where several kinds of mistake do, what they have in common."""
        kinds: dict[str, str] = {}
        for changes in found:
            name = " and ".join(dict.fromkeys(change.kind for change in changes))
            says = ", and in which ".join(dict.fromkeys(change.says for change in changes))
            kinds.setdefault(name, f"{says}, {words}" if words else says)
        names, clauses = list(kinds)[:2], list(kinds.values())[:2]
        begin = f"Your {self.noun} exactly those of an answer in which {clauses[0]}"
        if len(clauses) == 1:
            return Diagnosis(begin + ".", names[0])
        return Diagnosis(
            f"{begin}; or, which comes to the same in every case here, in which {clauses[1]}.", " or ".join(names)
        )


class _Stopped:
    """A mutant without a result."""

    def __init__(self, why: str):
        self.why = why


class _Watch(ast.NodeTransformer):
    def visit_While(self, node: ast.While) -> ast.While:
        self.generic_visit(node)
        tick = ast.Call(ast.Name("__tick__", ast.Load()), [], [])
        node.test = ast.BoolOp(ast.And(), [tick, node.test])
        return node

    def visit_For(self, node: ast.For) -> ast.For:
        self.generic_visit(node)
        node.body = [ast.Expr(ast.Call(ast.Name("__tick__", ast.Load()), [], [])), *node.body]
        return node


def watched(tree: ast.Module) -> ast.Module:
    """The tree with a look at the clock in every round of every loop."""
    return ast.fix_missing_locations(_Watch().visit(tree))


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
    good = all(
        isinstance(leaf, Tensor) and not leaf.is_complex() and not leaf.is_meta or is_number(leaf) for leaf in leaves
    )
    return [as_float(leaf).flatten() for leaf in leaves] if leaves and good else None


def _ratio(got: list[Tensor] | None, want: list[Tensor] | None) -> float | None:
    """The number that `want` is to be multiplied by, everywhere, to give `got`."""
    if got is None or want is None or [len(a) for a in got] != [len(b) for b in want]:
        return None
    a, b = torch.cat(got), torch.cat(want)
    if not len(b) or not b.isfinite().all() or not a.isfinite().all() or b.abs().max() < 1e-9:
        return None
    at = int(b.abs().argmax())
    ratio = float(a[at] / b[at])
    fits = abs(ratio) > 1e-6 and torch.allclose(a, b * ratio, rtol=1e-4, atol=1e-6 * float(b.abs().max()) * abs(ratio))
    return ratio if fits else None


def _mark(result: Any) -> str:
    """The same for results that are the same, up to rounding."""
    numbers = _numbers(result)
    return repr([[f"{x:.4g}" for x in n[:64].tolist()] for n in numbers]) if numbers else repr(result)[:400]


def _size(result: Any) -> int:
    return sum(leaf.numel() if isinstance(leaf, Tensor) else 1 for leaf in _leaves(result))
