"""Which small mistakes come to exactly these results? A search among the mutants of a reference.

A mutant is tried on the smallest case that is wrong, and only where it fits there on all the others, and once more on cases
drawn anew. Where none fits, mutants of the learner's own answer are tried: one may make it right. What is left may be one
after which something was done to all values (a factor, a sign, a logarithm), or two at once, as long as there is work left.
Work is counted in calls of functions, and loops in rounds, so that an answer is told the same on a busy laptop: about a
second's worth.
"""

from __future__ import annotations

import ast
import contextlib
import gc
import io
import itertools
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from sslcourse.checks.answers import Raised
from sslcourse.checks.compare import Closeness, as_float, equal, is_number, pairs
from sslcourse.checks.diagnose import Diagnosis
from sslcourse.checks.mistakes import Wrong, is_change, pairs_of
from sslcourse.checks.mutants import Mutant, mutants
from sslcourse.checks.source import Source, reaches_out
from sslcourse.checks.tree import Place, mutated, watched

# million calls of functions for single mutants, for the learner's own, and for everything: a second on two cores
SINGLE, OWN, WHOLE = 0.8, 0.25, 1.2
MAKING = 500e-6  # what making a mutant takes, in the same unit
# rounds of a mutant's loops, for each that the right answer goes through, and beside: a change can make a loop endless
ROUNDS = 10, 200
# elements or bits, and letters or items: what a loop makes 255 times as long in each round fills the memory in a few
HUGE, LONG = 10**6, 10**4
GUARD = 20.0  # seconds, however little was done by then
ALONE = ("nothing done", "works on a copy")  # kinds that say enough, whatever else comes to the same
FAR = ("one for the other", "order of steps", "a factor of 255", "a factor of 90", "rounded down", "an argument for it",
       "another comparison", "1 less an argument", "a constant for it", "zeros for it", "a factor of 2", "squared", "amax for mean",
       "median for mean", "prod for sum", "amax for sum")  # fmt: skip # said where nothing nearer fits
# what makes a slip right by chance: a size that is larger than it need be
UNLIKELY = {f"{one} for {other}" for one in ("sum", "prod", "mean") for other in ("max", "min", "amax", "amin")}
NAN = "nothing but NaN"
Case = tuple[Any, ...]


class Endless(BaseException):
    """Raised inside a mutant that goes on for too long; no `except Exception` in a reference catches it."""


@dataclass(frozen=True)
class Draw:
    """The cases of one seed, and what the learner's answer gave on them. fresh: makes the cases anew."""

    fresh: Callable[[], Sequence[Case]]
    got: Sequence[Any]
    want: Sequence[Any]
    key: Any


@dataclass(frozen=True)
class Effort:
    """What running a right answer in one case takes: calls of functions, in millions, and rounds of its loops."""

    calls: float
    rounds: int


class Written:
    """A right answer as it is written, its mutants, and what each came to in the cases so far."""

    def __init__(self, source: Source, arguments: Sequence[str], inline: bool = True):
        self.source, self.arguments = source, arguments
        self.settled = not inline
        self.read(inline)

    def read(self, inline: bool) -> None:
        """inline: values that are used once stand where they are used, unless that changes what comes out."""
        self.place = Place(watched(self.source.text, self.source.name, self.arguments, inline), self.arguments)
        self.mutants = mutants(self.place)
        nth: dict[str, int] = {}
        ranks: list[tuple[int, int]] = []
        for place, mutant in enumerate(self.mutants):
            nth[mutant.kind] = nth.get(mutant.kind, -1) + 1
            ranks.append((nth[mutant.kind] // 4, place))
        self.order = [place for _, place in sorted(ranks)]
        self.results: dict[Any, Any] = {}
        self.efforts: dict[Any, Effort] = {}

    def with_changes(self, changes: Sequence[Mutant], tick: Callable[[], None]) -> Any:
        tree = mutated(self.place, [change for mutant in changes for change in mutant.changes])
        return self.source.built(tree, __tick__=tick)


class Foreseen:
    """The reference as it is written, and an author's typical mistakes that are changes of it."""

    def __init__(self, source: Source, wrongs: Sequence[Wrong]):
        self.source, self.wrongs = source, [wrong for wrong in wrongs if is_change(wrong.change)]
        self.efforts: dict[Any, Effort] = {}

    def with_changes(self, changes: Sequence[Wrong], tick: Callable[[], None]) -> Any:
        text = self.source.with_changes([change for wrong in changes for change in pairs_of(wrong.change)])
        return self.source.built(watched(text, self.source.name, ()), __tick__=tick)


@dataclass
class Search:
    """The mutants of the right answers to one exercise: of the reference, and then of those written differently.

    play(answer, case): what a case comes to. arguments: the names a learner knows. noun: what the learner's results are
    called, with a verb. foreseen: the author's mistakes. stopped: did the last search end before its work was done?
    """

    sources: Sequence[Source]
    play: Callable[[Any, Case], Any]
    arguments: Sequence[str]
    close: Closeness
    noun: str = "results are"
    foreseen: Foreseen | None = None
    stopped: bool = field(default=False, init=False)
    _work: float = field(default=0.0, init=False, repr=False)
    _end: float = field(default=math.inf, init=False, repr=False)
    _written: list[Written] = field(default_factory=list, repr=False)
    _cases: dict[Any, Sequence[Case]] = field(default_factory=dict, repr=False)

    def written(self) -> Iterator[Written]:
        """The right answers, each read when it is first needed."""
        for index, source in enumerate(self.sources):
            if index == len(self._written):
                self._written.append(Written(source, self.arguments))
            yield self._written[index]

    def find(
        self,
        draw: Draw,
        again: Callable[[], Draw],
        relation: Callable[[], Diagnosis | None] = lambda: None,
        own: Source | None = None,
    ) -> Diagnosis | None:
        """The mistake that comes to these results, or None. relation: what they are of the right ones, if it has a name.
        own: what the learner wrote, where it can be read."""
        self._work, self.stopped, self._end = 0.0, False, time.perf_counter() + GUARD
        both = enumerate(zip(draw.got, draw.want, strict=True))
        wrong = [i for i, (a, b) in both if not (_unusable(a) or equal(a, b, self.close))]
        if not wrong:
            return None
        with _no_garbage_collection():
            return self._explained(draw, again, relation, own, min(wrong, key=lambda i: _size(draw.got[i])))

    def _explained(self, draw: Draw, again: Callable[[], Draw], relation, own, index: int) -> Diagnosis | None:
        tried: list[tuple[Written, list[tuple[Mutant, Any]]]] = []
        for written in self.written():
            self._settle(written, draw, index)
            firsts = self._firsts(written, draw, index)
            fits = [(m,) for m, first in firsts if equal(draw.got[index], first, self.close)]
            if found := self._confirmed(written, fits, draw, again):
                return self._told(written, found)
            tried.append((written, firsts))
        if known := relation():
            return known  # nearer than two mistakes at once
        if self.foreseen is not None and (two := self._two_foreseen(self.foreseen, draw, again, index)):
            return two
        if own is not None and (slip := self._own_slip(own, draw, again, index)):
            return slip
        for written, firsts in tried:
            for mutant, words in self._worked_on(written, firsts, draw, index):
                return self._told(written, [(mutant,)], words)
        for left, (written, firsts) in zip(range(len(tried), 0, -1), tried, strict=True):
            together = self._two(written, firsts, draw, index, self._work + (WHOLE - self._work) / left)
            if found := self._confirmed(written, together, draw, again, enough=1):
                return self._told(written, found)
        return None

    def _two_foreseen(self, foreseen: Foreseen, draw: Draw, again: Callable[[], Draw], index: int) -> Diagnosis | None:
        """Two of the author's mistakes, both made."""
        likely = (two for two in itertools.combinations(foreseen.wrongs, 2) if not self._over(WHOLE))
        fits = (two for two in likely if self._same(draw.got[index], self._result(foreseen, two, draw, index)))
        for one, other in self._confirmed(foreseen, fits, draw, again, enough=1):
            told = f'Two mistakes at once come to exactly your {self.noun.split()[0]}, "{one.name}" and "{other.name}"'
            return Diagnosis(f"{told}. About the first: {one.hint}", f"{one.name} and {other.name}")
        return None

    def _own_slip(self, own: Source, draw: Draw, again: Callable[[], Draw], index: int) -> Diagnosis | None:
        """The line of the learner's own answer in which one small change makes all of it right, or None.

        It finds slips in ways of writing that no right answer of the check's takes.
        """
        try:
            if reaches_out(own):  # nobody knows what a change would do there
                return None
            written = Written(own, (), inline=False)  # a change has to be in the line that the learner wrote
        except SyntaxError:  # of a cell's magic, say
            return None
        aim, end = replace(draw, got=draw.want, key=(draw.key, "own")), self._work + OWN
        for place in written.order:
            if self._over(end):
                break
            change = (written.mutants[place],)
            if change[0].kind in UNLIKELY:
                continue
            if self._same(aim.got[index], self._result(written, change, aim, index)):
                other = again()
                if all(self._fits(written, change, d) for d in (aim, replace(other, got=other.want))):
                    return _of_own(change[0], own)
        return None

    def _settle(self, written: Written, draw: Draw, index: int) -> None:
        """Read the answer as it is written where its values, put in place, come to something else (what draws at random)."""
        if not written.settled:
            written.settled = True
            if not equal(self._run(written, (), draw, index), draw.want[index], self.close):
                written.read(inline=False)

    def _over(self, work: float) -> bool:
        """Is so much work done, or the machine too slow for it?"""
        self.stopped = self.stopped or time.perf_counter() > self._end
        return self.stopped or self._work > work

    def _firsts(self, written: Written, draw: Draw, index: int) -> list[tuple[Mutant, Any]]:
        """Every mutant with its result in one case; those that stop there are left out."""
        found = {}
        for place in written.order:  # some of every kind first: it may be too much work to try all
            if self._over(SINGLE):
                break
            result = self._result(written, (written.mutants[place],), draw, index)
            if not isinstance(result, _Stopped):
                found[place] = written.mutants[place], result
        return [found[place] for place in sorted(found)]

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

    def _worked_on(self, written: Written, firsts, draw: Draw, index: int) -> Iterator[tuple[Mutant, str]]:
        """Mutants to all of whose values the same was done afterwards, and what that was."""
        got = [_numbers(g) for g in draw.got]
        enough = None not in got and sum(len(n) for numbers in got for n in numbers) > 3
        if not enough:
            return
        for mutant, first in firsts:
            if self._over(WHOLE):
                return
            ways = _ways(got[index], _numbers(first)) if _paths(draw.got[index]) == _paths(first) else {}
            if not ways or equal(first, draw.want[index], self.close):
                continue
            for i, numbers in enumerate(got):
                theirs = _ways(numbers, _numbers(self._result(written, (mutant,), draw, i))) if i != index else ways
                ways = {way: words for way, words in ways.items() if way in theirs}
            if ways:
                yield mutant, next(iter(ways.values()))

    def _two(self, written: Written, firsts, draw: Draw, index: int, end: float) -> Iterator[tuple[Mutant, Mutant]]:
        """Pairs of mutants that fit in one case, the likeliest first, until so much work is done."""
        distinct: list[tuple[int, Mutant]] = []
        seen: set[str] = set()
        counted: dict[str, int] = {}
        right = self._right_parts(draw.got[index], draw.want[index])
        for mutant, first in firsts:
            mark = _mark(first)
            # what changes a part that is right can't be one of two
            if mark not in seen and right <= self._right_parts(first, draw.want[index]):
                if not equal(first, draw.want[index], self.close):
                    seen.add(mark)
                    counted[mutant.kind] = counted.get(mutant.kind, 0) + 1
                    distinct.append((counted[mutant.kind], mutant))
        distinct.sort(key=lambda one: one[0])  # some of every kind first
        for total in range(1, 2 * len(distinct)):
            for a in range(max(0, total - len(distinct) + 1), (total + 1) // 2):
                if self._over(end):
                    return
                pair = distinct[a][1], distinct[total - a][1]
                apart = {id(c.node) for c in pair[0].changes}.isdisjoint(id(c.node) for c in pair[1].changes)
                if apart and equal(draw.got[index], self._result(written, pair, draw, index), self.close):
                    yield pair

    def _right_parts(self, got: Any, want: Any) -> set[Any]:
        return {path for path, a, b in pairs(got, want) if path and equal(a, b, self.close)}

    # -- one mutant in one case ---------------------------------------------------------------------------------------------

    def _result(self, written: Written, changes: tuple[Mutant, ...], draw: Draw, index: int) -> Any:
        """What a case comes to; worked out once for a single mutant, and counted as work each time: what was asked
        before changes nothing."""
        self._work += self._effort(written, draw, index).calls
        if len(changes) > 1:
            return self._run(written, changes, draw, index)
        key = (draw.key, index, id(changes[0]))
        if key not in written.results:
            written.results[key] = self._run(written, changes, draw, index)
        return written.results[key]

    def _run(self, written: Written, changes: tuple[Mutant, ...], draw: Draw, index: int) -> Any:
        left = self._effort(written, draw, index).rounds

        def tick() -> None:
            nonlocal left
            left -= 1
            around = sys._getframe(1).f_locals.values()
            if left < 0 or time.perf_counter() > self._end or any(map(_huge, around)):
                raise Endless

        return self._played(written, changes, draw, index, tick)

    def _effort(self, written: Written, draw: Draw, index: int) -> Effort:
        """What a mutant may take in a case: as many calls as the right answer, and some times its rounds."""
        if (draw.key, index) not in written.efforts:
            calls = rounds = 0

            def watch(frame: Any, event: str, called: Any) -> None:
                nonlocal calls
                calls += event in ("call", "c_call")

            def tick() -> None:
                nonlocal rounds
                rounds += 1

            before = sys.getprofile()
            sys.setprofile(watch)
            try:
                self._played(written, (), draw, index, tick)
            finally:
                sys.setprofile(before)
            effort = Effort(MAKING + calls / 1e6, ROUNDS[0] * rounds + ROUNDS[1])
            written.efforts[draw.key, index] = effort
        return written.efforts[draw.key, index]

    def _played(
        self, written: Written, changes: tuple[Mutant, ...], draw: Draw, index: int, tick: Callable[[], None]
    ) -> Any:
        case = self._case(draw, index)
        torch.random.default_generator.manual_seed(0)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                result = self.play(written.with_changes(changes, tick), case)
        except (Exception, Endless, SystemExit) as error:
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

    def _told(self, written: Written, found: list[tuple[Mutant, ...]], words: str = "") -> Diagnosis:
        """One sentence about what fits; where several kinds of mistake do, the nearest, and what all have in common."""
        kinds: dict[str, tuple[str, list[Any]]] = {}
        near: set[str] = set()
        for changes in found:
            name = " and ".join(dict.fromkeys(change.kind for change in changes))
            says = ", and in which ".join(dict.fromkeys(change.says for change in changes))
            nodes = [c.node for change in changes for c in change.changes]
            kinds.setdefault(name, (says, []))[1].extend(nodes)
            near |= set() if any(change.far or change.kind in FAR for change in changes) else {name}
        kinds = {name: fit for name, fit in kinds.items() if name in near} or kinds
        name, (clause, _) = next(iter(kinds.items()))
        sentence = f"Your {self.noun} exactly those of an answer in which {clause}{', ' if words else ''}{words}."
        if len(kinds) > 1 and name not in ALONE:
            common = written.place.words(written.place.around([n for _, nodes in kinds.values() for n in nodes]))
            if "`" in common and common not in sentence:
                sentence += f" Other slips come to the same, all of them in {common}."
        return Diagnosis(sentence, name)


# what to look for in a line of the learner's, by the kind of change that makes it right: the first part that is in its name
LOOK = {
    "another dim": "Over which dim is it to go?", "size": "Which size is needed there?",
    "off by one": "Is something one too many there, or one too few?", "at equality": "What is to happen at equality?",
    "sign": "Look at the signs.", "brackets": "Which step comes first?", "order of steps": "Which step comes first?",
    " swapped": "Something there has changed places with something else.", "constant": "Is the number right?",
    "a factor of": "A factor is missing there, or is one too many.",
    "missing": "Something is done there that isn't to be done.", "too much": "Something that is to be done isn't done there.",
    "twice": "Something is done there less often than it is to be.", " for ": "Something there stands in place of what is needed.",
    "turned round": "Is it the other way round?", "the other ": "Is it the other way round?",
}  # fmt: skip
# parts of the names of kinds that are mistakes of the same kind when they are undone
BOTH_WAYS = ("another ", "off by one", "at equality", "sign", "order of steps", " swapped", "a factor of ", "misplaced",
             "turned round", "the other ", "transposes")  # fmt: skip


LONG_LINE = 50  # letters, beyond which the part of it is named


def _of_own(change: Mutant, own: Source) -> Diagnosis:
    """Where in their answer a learner should look, and what for; not what should stand there."""
    nodes = [c.node[0] if isinstance(c.node, list) else c.node for c in change.changes]
    numbers = sorted({getattr(node, "lineno", 1) for node in nodes})
    lines = [own.text.splitlines()[number - 1].strip() for number in numbers]
    where = "this line" if len(lines) == 1 else "these lines"
    if len(nodes) == 1 and isinstance(nodes[0], ast.expr) and len(lines[0]) > LONG_LINE:
        part = ast.get_source_segment(own.text, nodes[0]) or ""
        where = f"`{part}` in this line" if 0 < len(part) < len(lines[0]) / 2 and "\n" not in part else where
    told = "All of your answer is right but for one small thing"
    if not any(line.startswith(("def ", "class ")) for line in lines):
        told += f"; look at {where}:\n    " + "\n    ".join(lines) + "\n"
    else:
        told += ". "
    look = next((words for part, words in LOOK.items() if part in change.kind), "")
    return Diagnosis((told + look).strip(), _undone(change.kind))


def _undone(kind: str) -> str:
    """What sort of mistake it is that a change of this kind makes right."""
    for one, other in ((" missing", " too much"), (" too much", " missing")):
        if kind.endswith(one):
            return kind.removesuffix(one) + other
    if any(part in kind for part in BOTH_WAYS):
        return kind
    return " for ".join(reversed(kind.split(" for "))) if " for " in kind else "a slip in one line"


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


def _huge(value: Any) -> bool:
    if isinstance(value, int):
        return value.bit_length() > HUGE
    if isinstance(value, Tensor):
        return value.numel() > HUGE
    return isinstance(value, str | list | tuple | dict) and len(value) > LONG


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
    leaves = [x for x in _leaves(result) if x is not None and type(x).__name__ not in ("_Stopped", "Raised")]
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


WAYS = {
    "and one minus that is given": lambda x: 1 - x,
    "and one divided by that is given": lambda x: 1 / x,
    "and the exponential of that is taken": math.exp,
    "and the logarithm of that is taken": math.log,
    "and the square root of that is taken": math.sqrt,
    "and the square of that is taken": lambda x: x * x,
    "and the absolute value of that is taken": abs,
}


def _ways(got: list[Tensor] | None, first: list[Tensor] | None) -> dict[Any, str]:
    """What could have been done to every number of `first` to give `got`, in words."""
    if got is None or first is None:
        return {}
    if sum(map(len, got)) == 1 and len(first) == 1 and len(first[0]) > 1:
        ends = {"mean": first[0].mean(), "sum": first[0].sum(), "largest value": first[0].max()}
        return {n: f"and the {n} of that is given" for n, t in ends.items() if torch.allclose(got[0], t, 1e-4, 1e-6)}
    if [len(a) for a in got] != [len(b) for b in first] or not got or not sum(map(len, got)):
        return {}
    ratio = _ratio(got, first)
    if ratio is not None and not math.isclose(ratio, 1, rel_tol=1e-4):
        many = f"and everything is multiplied by {ratio:.4g}"
        return {f"{ratio:.3g}": "and the sign is the other one" if math.isclose(ratio, -1, rel_tol=1e-3) else many}
    a, b = torch.cat(got), torch.cat(first)
    near, found = int(b.abs().argmax()), {}
    for words, way in WAYS.items():
        with contextlib.suppress(ValueError, ZeroDivisionError, OverflowError):
            signed = way is not abs or bool((b < 0).any())
            if signed and math.isclose(way(float(b[near])), float(a[near]), rel_tol=1e-4, abs_tol=1e-7):
                made = torch.tensor([way(x) for x in b[:256].tolist()], dtype=torch.float64)
                if torch.allclose(a[:256], made, 1e-4, 1e-6):
                    found[words] = words
    return found


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
