"""What is wrong with a result that no known mistake explains? The most telling true sentence about it.

From the coarse to the fine: nothing returned, wrong type, wrong shape, wrong dtype, wrong device, NaN, and then relations
between what was given and what is needed (negated, a constant factor, transposed, rows in another order, ...) that hold in
every case. When none holds: the largest difference, and the first place where there is one.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sslcourse.checks.compare import (
    Closeness,
    Path,
    as_float,
    equal,
    first_difference,
    is_number,
    is_truth,
    pairs,
    same_dtype,
    same_type,
    values_close,
)

Case = tuple[Any, ...]


@dataclass(frozen=True)
class Diagnosis:
    """A sentence for the learner. name: of the mistake, where one was recognized; None where the sentence only describes.
    alone: is all but that right, so that nothing nearer is to be looked for?"""

    sentence: str
    name: str | None = None
    alone: bool = False

    def __add__(self, more: str) -> Diagnosis:
        return replace(self, sentence=self.sentence + more)


@dataclass(frozen=True)
class Results:
    """What an answer gave and what is needed, in every case; at least one differs.

    names: of the arguments, None where a part of a case has none. noun: what the learner wrote ("function", "class" or
    "value").
    """

    got: Sequence[Any]
    want: Sequence[Any]
    cases: Sequence[Case]
    names: Sequence[str | None]
    close: Closeness
    noun: str

    def wrong(self) -> list[int]:
        """The cases that are wrong, the smallest first: it is the easiest to think about."""
        differing = [i for i, (a, b) in enumerate(zip(self.got, self.want, strict=True)) if not equal(a, b, self.close)]
        return sorted(differing, key=lambda i: size(self.cases[i]))

    def subject(self, path: Path) -> str:
        """What a part of a result is called, as the beginning of a sentence."""
        whole = "Your value" if self.noun == "value" else f"Your {self.noun}'s result"
        if not path or path == ("value",):
            return whole
        *above, last = path
        gradient = next((key for key in path if isinstance(key, str) and key.startswith("gradient of argument ")), None)
        if gradient is not None:
            place = int(gradient.split()[-1])
            name = self.names[place - 1] if place <= len(self.names) else None
            return f"The gradient with respect to the {ORDINALS[place - 1]} argument" + (f", `{name}`," if name else "")
        what = f"the {ordinal(last)} part" if isinstance(last, int) else f"the {last}"
        what = f"what stands under {last!r}" if isinstance(last, str) and last.isidentifier() else what
        parts = [f"the {ordinal(key)} part" if isinstance(key, int) else f"the {key}" for key in reversed(above)]
        words = " of ".join([what, *parts, *([] if above and isinstance(above[0], str) else ["your result"])])
        return words[0].upper() + words[1:]


ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")


def ordinal(index: int) -> str:
    return ORDINALS[index] if index < len(ORDINALS) else f"{index + 1}th"


def coarse(results: Results) -> Diagnosis | None:
    """What is wrong with the type, the shape, the dtype or the device, or None."""
    wrong = results.wrong()
    for index in wrong:
        path, a, b = first_difference(results.got[index], results.want[index], results.close)
        subject = results.subject(path)
        found = of_type(a, b, subject, results.noun, results.close) or _looked_up(results, subject)
        found = found or of_shape(a, b, subject, results.close)
        found = found or of_dtype(a, b, subject, results.close)
        if found is not None:
            others = (first_difference(results.got[i], results.want[i], results.close) for i in wrong)
            alone = all(_right_but_for_shape(a, b, results.close) for _, a, b in others)
            found += where(results.cases[index], results.names, len(wrong), len(results.want))
            return replace(found, alone=alone)
    return None


def fine(results: Results) -> Diagnosis:
    """What is wrong with the numbers."""
    wrong = results.wrong()
    path, a, b = first_difference(results.got[wrong[0]], results.want[wrong[0]], results.close)
    subject = results.subject(path)
    together = [pair for got, want in zip(results.got, results.want, strict=True) for pair in at_path(got, want, path)]
    found = _swapped_parts(results) or of_nan(a, b, subject) or _looked_up(results, subject)
    found = found or of_relation(together, results.cases, results.names, subject, results.close)
    found = found or of_values(a, b, subject, results.close)
    return found + where(results.cases[wrong[0]], results.names, len(wrong), len(results.want))


def _swapped_parts(results: Results) -> Diagnosis | None:
    """The parts of a tuple in another order."""
    length = min((len(r) if isinstance(r, list | tuple) else 0 for r in (*results.got, *results.want)), default=0)
    for order in itertools.permutations(range(length)) if 1 < length < 5 else ():
        same = all(
            len(a) == len(b) == length and all(equal(a[i], b[j], results.close) for i, j in enumerate(order))
            for a, b in zip(results.got, results.want, strict=True)
        )
        if same:
            return Diagnosis("The parts of your result are right, in another order than is needed.", "another order")
    return None


# what stands in place of numbers of rows: what it is of an argument, in words, and as a function of that
LOOKED_UP: tuple[tuple[str, str, Callable[[Tensor], Tensor]], ...] = (
    ("not the numbers", "what stands in {} there; the numbers of these places are needed", lambda rows: rows),
    ("places among the sorted", "places in {}, sorted; the places before sorting are needed", lambda rows: rows.argsort(0, descending=True).argsort(0)),
    ("places among the sorted", "places in {}, sorted; the places before sorting are needed", lambda rows: rows.argsort(0).argsort(0)),
)  # fmt: skip


def _looked_up(results: Results, subject: str) -> Diagnosis | None:
    """What stands at the numbers that are needed, or the places of these numbers among an argument's sorted values."""
    every = list(zip(results.got, results.want, results.cases, strict=True))
    for position in range(len(results.cases[0])):
        if not all(_numbers_into(case, position, want) for _, want, case in every):
            continue
        # who counts 0, 1, 2, ... may not have sorted at all
        if not all(equal(got, torch.arange(len(want)), results.close) for got, want, _ in every):
            name = results.names[position] if position < len(results.names) else None
            told = f"`{name}`" if name else f"the {ordinal(position)} argument"
            for kind, words, way in LOOKED_UP:
                if all(equal(got, way(case[position])[want], results.close) for got, want, case in every):
                    return Diagnosis(f"{subject} is {words.format(told)}.", kind)
    return None


def _numbers_into(case: Case, position: int, numbers: Any) -> bool:
    """Are these numbers of rows of an argument?"""
    rows = case[position] if position < len(case) else None
    if not isinstance(rows, Tensor) or not rows.dim() or not isinstance(numbers, Tensor) or numbers.dim() != 1:
        return False
    return numbers.dtype == torch.int64 and bool(((numbers >= 0) & (numbers < len(rows))).all())


def at_path(got: Any, want: Any, path: Path) -> list[tuple[Any, Any]]:
    return [(a, b) for other, a, b in pairs(got, want) if other == path]


# -- what to call things ------------------------------------------------------------------------------------------------


def shape(value: Any) -> str:
    """ "(3, 4)", and "()" in words."""
    sizes = tuple(torch.as_tensor(value).shape)
    return str(sizes) if sizes else "() (a single number)"


def describe(value: Any, names_values: bool = False) -> str:
    """One line about a value: "a float32 tensor of shape (3, 4)", "a tuple of 2", "the number 0.5", "text 'abc'"."""
    if value is None:
        return "None"
    if isinstance(value, Tensor):
        dtype = str(value.dtype).removeprefix("torch.")
        text = f"{'an' if dtype.startswith('int') else 'a'} {dtype} tensor of shape {tuple(value.shape)}"
        small = names_values and value.numel() <= 12 and value.device.type != "meta"
        return f"{text} = {compact(value)}" if small else text
    if isinstance(value, np.ndarray):
        return f"a NumPy array of shape {value.shape}"
    if is_truth(value):
        return str(bool(value))
    if is_number(value):
        return f"the number {number(value)}"
    if isinstance(value, Mapping):
        return "a dict with the keys " + (", ".join(repr(key)[:40] for key in value) or "(none)")
    if isinstance(value, list | tuple):
        short = names_values and len(value) <= 8 and all(is_number(item) or isinstance(item, str) for item in value)
        return repr(value) if short else f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, str):
        return f"the text {value[:60]!r}"
    if isinstance(value, torch.Generator):
        return "a torch.Generator"
    if isinstance(value, nn.Module):
        return f"a module of the class {type(value).__name__}"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if callable(value):
        return f"the function {getattr(value, '__name__', '')}".rstrip()
    return f"an object of the type {type(value).__name__}"


def compact(tensor: Tensor) -> str:
    """A small tensor's numbers as nested lists, rounded to four digits."""

    def walk(item: Any) -> str:
        return "[" + ", ".join(map(walk, item)) + "]" if isinstance(item, list) else number(item)

    return walk(tensor.detach().cpu().tolist())


def number(value: Any) -> str:
    """A number to four digits, whole numbers in full."""
    value = value.item() if isinstance(value, Tensor | np.generic) else value
    if isinstance(value, bool | int | complex):
        return str(value)
    return f"{value:.4g}"


def size(value: Any) -> int:
    """How much there is to look at in a case."""
    if isinstance(value, Tensor | np.ndarray):
        return math.prod(value.shape)
    if isinstance(value, Mapping):
        return sum(map(size, value.values()))
    return sum(map(size, value)) if isinstance(value, list | tuple) else 1


def described(case: Case, names: Sequence[str | None]) -> str:
    """ "images: a float32 tensor of shape (2, 3), scale: the number 4"."""
    named = itertools.zip_longest(names[: len(case)], case)
    return ", ".join((f"{name}: " if name else "") + describe(value, names_values=True) for name, value in named)


def where(case: Case, names: Sequence[str | None], wrong: int, total: int) -> str:
    """The case where it happens, and in how many of the cases it does."""
    if not case:
        return ""
    some = f"{wrong} of {total} cases are" if wrong < total else "every case is"
    count = f" ({some} wrong)" if total > 1 else ""
    return f"\nA case where it happens{count}: {described(case, names)}."


# -- coarse: type, shape, dtype, NaN ------------------------------------------------------------------------------------


def of_type(got: Any, want: Any, subject: str, noun: str, close: Closeness) -> Diagnosis | None:
    """Nothing, or the wrong kind of thing, was given."""
    if got is None and want is not None:
        if noun == "function" and subject == "Your function's result":
            return Diagnosis(
                f"Your function returned nothing (None), but {describe(want)} is needed: did you forget `return`?",
                "nothing returned",
            )
        if "gradient" in subject:
            return Diagnosis(
                f"{subject} is None: the result doesn't depend on it by way of autograd. Does .detach(), .item(), torch.no_grad() or a new torch.tensor(...) cut the graph?",
                "no gradient",
            )
        return Diagnosis(f"{subject} is None, but {describe(want)} is needed.")
    if isinstance(want, Mapping | list | tuple) and same_type(got, want):
        if isinstance(want, Mapping):
            missing, extra = set(want) - set(got), set(got) - set(want)
            both = (("lacks", missing), ("has too much:", extra))
            parts = [f"{label} {', '.join(map(repr, keys))}" for label, keys in both if keys]
            return Diagnosis(
                f"{subject} is a dict that {' and '.join(parts)}; the keys needed are {', '.join(map(repr, want))}.",
                "other keys",
            )
        return Diagnosis(f"{subject} has {len(got)} parts, but {len(want)} are needed.", "another number of parts")
    plain = close.plain and is_number(want) and not isinstance(want, Tensor) and isinstance(got, Tensor)
    if same_type(got, want) and not plain:
        return None
    tip, name = "", None
    if isinstance(want, Mapping) and isinstance(got, list | tuple) and list(got) == list(want):
        tip, name = " The names are right; what belongs to them is missing.", "names alone"
    if isinstance(want, Tensor):
        if isinstance(got, np.ndarray):
            tip = " Stay in PyTorch all the way: torch.from_numpy would lose the device and the gradient."
            name = "a NumPy array"
        elif is_number(got) and want.dim() == 0:
            tip, name = " Leave out .item() and float(): they cut the gradient.", "a number for a tensor"
        elif isinstance(got, list | tuple) and got and all(isinstance(item, Tensor) for item in got):
            tip, name = _of_list(got, want)
    if is_number(want) and isinstance(got, Tensor | np.ndarray) and math.prod(got.shape) == 1:
        tip, name = " .item() makes a number of a tensor with one element.", "a tensor for a number"
    if callable(got) and not isinstance(got, nn.Module | type):
        tip, name = " Did you forget to call it?", "not called"
    return Diagnosis(f"{subject} is {describe(got)}, but {describe(want)} is needed.{tip}", name)


def _of_list(got: Sequence[Tensor], want: Tensor) -> tuple[str, str | None]:
    """A list of tensors where a tensor is needed: which way of joining gives the shape, if one does."""
    for name, join in (("stack", torch.stack), ("cat", torch.cat)):
        with contextlib.suppress(RuntimeError, TypeError, IndexError):
            if join(list(got)).shape == want.shape:
                return f" torch.{name} joins its parts.", "not joined"
    return "", None


def of_shape(got: Any, want: Any, subject: str, close: Closeness) -> Diagnosis | None:
    """The shapes differ: how, and what usually does that, where the numbers bear it out."""
    if not isinstance(want, Tensor | np.ndarray) or tuple(got.shape) == tuple(want.shape):
        return None
    a, b = tuple(got.shape), tuple(want.shape)
    tip, name = "", None
    given, needed = as_float(got), as_float(want)
    if sorted(a) == sorted(b) and len(a) > 1 and (order := _permutation(given, needed, close)) is not None:
        tip = f" The values are right, with the dimensions in another order: permute{order} would put them right."
        name = "another order of dimensions"
        if len(a) == 2:
            tip, name = " The values are right, but rows and columns are swapped: it is the transpose.", "transposed"
    elif tuple(n for n in a if n != 1) == tuple(n for n in b if n != 1):
        tip = " The dimension of 1 is in another place: see squeeze and unsqueeze."
        if len(a) > len(b):
            tip = " It has a dimension of 1 too many: see keepdim and squeeze."
        elif len(a) < len(b):
            tip = " It lacks a dimension of 1: see keepdim and unsqueeze."
        name = "a dimension of 1"
    elif not b and math.prod(a) > 1:
        for which, reduce in (("mean", Tensor.mean), ("sum", Tensor.sum)):
            if values_close(reduce(given), needed, close).all():
                return Diagnosis(
                    f"{subject} has the shape {shape(got)}, but {shape(want)} is needed. What is missing is the {which} of its elements.",
                    f"{which} missing",
                )
        tip = " One number is needed for the whole batch."
    elif part := _part(given, needed, close):
        return Diagnosis(f"{subject} has the shape {shape(got)}, but {shape(want)} is needed: yours is {part}.", part)
    elif not a:
        tip = " You reduce over too many dimensions: see the argument dim of mean and sum."
    elif _right_but_for_shape(got, want, close):
        tip, name = " The values are right, in another shape: see reshape.", "another shape"
    elif len(a) == len(b) - 1 and a == b[1:] and b[0] not in b[1:]:
        tip = " The batch dimension is missing: is one image handled where a batch comes in?"
    return Diagnosis(f"{subject} has the shape {shape(got)}, but {shape(want)} is needed.{tip}", name)


def _right_but_for_shape(got: Any, want: Any, close: Closeness) -> bool:
    """Are the values right, in another shape or with the dimensions in another order?"""
    if not isinstance(got, Tensor | np.ndarray) or not isinstance(want, Tensor | np.ndarray):
        return False
    given, needed = as_float(got), as_float(want)
    if given.numel() != needed.numel() or not given.numel():
        return False
    same = bool(values_close(given.reshape(needed.shape), needed, close).all())
    return same or given.dim() == needed.dim() and _permutation(given, needed, close) is not None


def _part(given: Tensor, needed: Tensor, close: Closeness) -> str | None:
    """What a result in another shape is of the one that is needed, in words; or None."""

    def alike(a: Tensor, b: Tensor) -> bool:
        return a.shape == b.shape and a.numel() > 1 and bool(values_close(a, b, close).all())

    if needed.dim() == 2 and needed.shape[0] == needed.shape[1] and alike(given, needed.diagonal()):
        return "its diagonal alone"
    for dim in range(needed.dim()):
        reductions = {"mean": needed.mean, "sum": needed.sum, "maximum": needed.amax, "minimum": needed.amin}
        for name, less in reductions.items():
            if alike(given, less(dim)):
                return f"its {name} over dimension {dim}"
        if given.dim() == needed.dim() and given.shape[dim] != needed.shape[dim]:
            less = max(1, min(given.shape[dim], needed.shape[dim]))
            more = "more places" if given.shape[dim] > needed.shape[dim] else "fewer places"
            for which, at in (("the first", 0), ("the last", -less)):
                ends = (t[(slice(None),) * dim + (slice(at, at + less or None),)] for t in (given, needed))
                if alike(*ends):
                    return f"right in {which} {less} places along dimension {dim}, with {more} than needed"
        elif given.dim() == needed.dim() - 1:
            for index in range(needed.shape[dim]):
                if alike(given, needed.select(dim, index)):
                    return f"what stands at place {index} of dimension {dim} alone"
    return None


def _permutation(given: Tensor, needed: Tensor, close: Closeness) -> tuple[int, ...] | None:
    """The order of dimensions that makes `needed` of `given`, or None."""
    for order in itertools.permutations(range(given.dim())) if given.dim() < 6 else ():
        turned = given.permute(order)
        if turned.shape == needed.shape and values_close(turned, needed, close).all():
            return order
    return None


def of_dtype(got: Any, want: Any, subject: str, close: Closeness) -> Diagnosis | None:
    """The dtype or the device differs."""
    if not isinstance(want, Tensor | np.ndarray):
        return None
    got, want = torch.as_tensor(got), torch.as_tensor(want)
    given, needed = (str(t.dtype).removeprefix("torch.") for t in (got, want))
    if got.device.type != want.device.type:
        return Diagnosis(
            f"{subject} is on the device {got.device}, but its arguments and so its result belong on {want.device}: make new tensors with device=x.device.",
            "another device",
        )
    if same_dtype(got.dtype, want.dtype, close):
        return None
    right = bool(values_close(got, want, close).all())
    sentence = f"{subject} has the dtype {given}, but {needed} is needed."
    if not right:
        return Diagnosis(sentence)
    tip = f" The numbers are right: .to(torch.{needed}) or dtype=torch.{needed} is all that is missing."
    return Diagnosis(sentence + tip, "another dtype")


def of_nan(got: Any, want: Any, subject: str) -> Diagnosis | None:
    """NaN or infinity where there should be a number."""
    if not isinstance(want, Tensor | np.ndarray) and not is_number(want):
        return None
    a, b = as_float(got), as_float(want)
    for name, there in (("NaN", torch.isnan), ("infinity", torch.isinf)):
        if there(a).any() and not there(b).any():
            share = f" ({int(there(a).sum())} of {a.numel()} elements)" if a.numel() > 1 else ""
            return Diagnosis(
                f"{subject} contains {name}{share}: look for a division by zero, the logarithm of zero, or exp of something large.",
                name,
            )
    return None


# -- fine: relations that hold in every case ----------------------------------------------------------------------------


def of_relation(
    together: list[tuple[Any, Any]], cases: Sequence[Case], names: Sequence[str | None], subject: str, close: Closeness
) -> Diagnosis | None:
    """A sentence about a relation between given and needed that holds in every case, or None."""
    if any(not same_type(a, b) or not isinstance(b, Tensor | np.ndarray) and not is_number(b) for a, b in together):
        return None
    flat = [(as_float(a), as_float(b)) for a, b in together]
    if any(a.shape != b.shape or a.is_complex() for a, b in flat) or not flat:
        return None
    loose = Closeness(max(close.rtol, 1e-4), max(close.atol, 1e-6) if close.atol < 1 else 1e-6, "any")
    telling = sum(b.numel() for _, b in flat) > 1

    def holds(relation: Callable[[Tensor], Tensor]) -> bool:
        return telling and all(_matches(a, relation, b, loose) for a, b in flat)

    if holds(torch.neg):
        return Diagnosis(
            f"{subject} has the right size and the wrong sign: it is the negative of what is needed.", "sign"
        )
    return (
        _factor(flat, cases, names, subject, loose)
        or _offset(flat, subject, loose)
        or next(
            (Diagnosis(f"{subject} is {words} of what is needed.", words) for words, way in SHAPES if holds(way)), None
        )
        or _cut_anew(flat, subject, loose)
        or _shifted(flat, subject, loose)
        or _spread_mean(flat, subject, loose)
        or _order(flat, subject, loose)
        or _unfinished(flat, subject, loose)
        or _an_argument(flat, cases, names, subject, loose)
    )


def _matches(got: Tensor, relation: Callable[[Tensor], Tensor], want: Tensor, close: Closeness) -> bool:
    other = relation(want)
    return other.shape == got.shape and bool(values_close(got, other, close).all())


SHAPES: tuple[tuple[str, Callable[[Tensor], Tensor]], ...] = (
    ("the logarithm", lambda t: t.log()),
    ("the exponential", lambda t: t.exp()),
    ("the square", lambda t: t.square()),
    ("the square root", lambda t: t.sqrt()),
    ("the reciprocal (1/x)", lambda t: 1 / t),
    ("the absolute value", lambda t: t.abs()),
    ("the complement (1 - x)", lambda t: 1 - t),
    ("the cumulative sum", lambda t: t.cumsum(0) if t.dim() else t * torch.nan),
    ("the cumulative sum along the last dimension", lambda t: t.cumsum(-1) if t.dim() else t * torch.nan),
    ("the softmax over the last dimension", lambda t: t.softmax(-1) if t.dim() else t * torch.nan),
    ("the transpose (the last two dimensions swapped)", lambda t: t.mT if t.dim() > 1 else t * torch.nan),
)


def _cut_anew(flat, subject: str, close: Closeness) -> Diagnosis | None:
    """The right values, with reshape where dimensions were to be moved."""
    dims = {b.dim() for _, b in flat}
    for order in itertools.permutations(range(n)) if len(dims) == 1 and 1 < (n := dims.pop()) < 6 else ():
        moved = any(b.permute(order).shape != b.shape for _, b in flat)
        if moved and all(_matches(a, lambda t, o=order: t.permute(o).reshape(t.shape), b, close) for a, b in flat):
            return Diagnosis(
                f"{subject} has the right values in wrong places: reshape() and view() cut anew what lies in memory, where dimensions are to be moved, by permute() or transpose().",
                "reshape for permute",
            )
    return None


def _factor(flat, cases, names, subject: str, close: Closeness) -> Diagnosis | None:
    """A constant factor: the same in all cases, or the size or value of an argument in each. Zeros are zeros in both."""
    ratios = _ratios(flat, close)
    if not ratios or all(math.isclose(r, 1, rel_tol=1e-6) for r in ratios.values()):
        return None
    first = next(iter(ratios.values()))
    alike = all(math.isclose(r, first, rel_tol=1e-3) for r in ratios.values())
    if (not alike or len(ratios) == 1) and (found := _factor_of_size(ratios, cases, names, subject)):
        return found
    if not (len(flat) > 1 and alike or all(b.numel() > 1 for _, b in flat)):
        return None
    if not alike:
        return _factor_that_varies(ratios, cases, subject)
    same = "in every case" if len(ratios) > 1 else "everywhere"
    known = (words for factor, words in KNOWN.items() if math.isclose(first, factor, rel_tol=1e-3))
    why = next(known, "a constant factor is missing or too much")
    return Diagnosis(f"{subject} is {_times(first)}, {same}: {why}.", f"a factor of {number(first)}")


def _times(factor: float) -> str:
    if abs(factor) >= 1:
        return f"{number(factor)} times what is needed"
    return f"what is needed divided by {number(1 / factor)}"


def _factor_that_varies(ratios: dict[int, float], cases, subject: str) -> Diagnosis:
    """Another factor in each case, that of the case which is shown; in some it may be 1."""
    wrong = [index for index, ratio in ratios.items() if not math.isclose(ratio, 1, rel_tol=1e-6)]
    shown = min(wrong, key=lambda index: size(cases[index]))
    why = "does a fixed number, or the size of another dimension, stand where a size is needed?"
    return Diagnosis(
        f"{subject} is {_times(ratios[shown])} in this case, and off by another factor in others: {why}",
        "a factor that varies",
    )


def _ratios(flat, close: Closeness) -> dict[int, float]:
    """By what every case is multiplied; empty if one isn't."""
    ratios: dict[int, float] = {}
    for index, (a, b) in enumerate(flat):
        if not b.numel() or not b.abs().max() > 1e-9:
            if a.numel() and a.abs().max() > max(close.atol, 1e-9):
                return {}
            continue  # nothing but zeros: whatever the factor
        at = b.abs().argmax()
        ratio = float(a.flatten()[at] / b.flatten()[at])
        if not math.isfinite(ratio) or abs(ratio) < 1e-9 or not _matches(a, lambda t, r=ratio: t * r, b, close):
            return {}
        ratios[index] = ratio
    return ratios


def _factor_of_size(ratios: dict[int, float], cases, names, subject: str) -> Diagnosis | None:
    """A factor that is the size or the value of an argument, or the square of it, whichever case it is."""
    for power, (value, index, sizes) in itertools.product((1, -1, 2, -2), list(_sizes(cases, names))):
        theirs = [(ratios[i], sizes[i]) for i in ratios if i < len(sizes)]
        fits = (n not in (0, 1) and math.isclose(r, n**power, rel_tol=1e-3) for r, n in theirs)
        if len(theirs) < len(ratios) or not all(fits):
            continue
        direction = "large" if power > 0 else "small"
        name = f"a factor of {index or value}"
        if abs(power) == 2:
            whole = f"{index} of {value}" if index else value
            return Diagnosis(f"{subject} is too {direction} by the square of {whole}.", name)
        size = number(sizes[next(iter(ratios))])
        one, other = ("sum", "mean") if power > 0 else ("mean", "sum")
        meant = f": is a {one} taken where a {other} is meant? ({size} is {index} of {value}.)"
        tip = meant if index else f". ({value} is {size}.)"
        return Diagnosis(f"{subject} is exactly {size} times too {direction}{tip}", name)
    return None


def _sizes(cases: Sequence[Case], names: Sequence[str | None]):
    """(argument, which size in words or "" for its value, that in every case) for tensors' dimensions and for numbers."""
    for position, first in enumerate(cases[0] if cases else ()):
        name = names[position] if position < len(names) else None
        called = f"`{name}`" if name else f"the {ordinal(position)} argument"
        column = [case[position] for case in cases if len(case) > position]
        shaped = isinstance(first, Tensor) and first.dim()
        if shaped and all(isinstance(t, Tensor) and t.dim() == first.dim() for t in column):
            for dim in range(first.dim()):
                yield called, f"the size of dimension {dim}", [t.shape[dim] for t in column]
            if first.dim() > 1:
                yield called, "the number of all elements", [t.numel() for t in column]
        elif all(is_number(value) for value in column):
            yield called, "", [float(value) for value in column]


def _offset(flat, subject: str, close: Closeness) -> Diagnosis | None:
    """The same number added everywhere."""
    offsets = [a - b for a, b in flat]
    first = offsets[0].flatten()[0] if offsets[0].numel() else None
    if first is None or first.is_complex() or sum(o.numel() for o in offsets) < 2 or not abs(float(first)) > 1e-6:
        return None
    if not all(_matches(a, lambda t: t + first, b, close) for a, b in flat):
        return None
    direction = "too large" if float(first) > 0 else "too small"
    amount = number(abs(float(first)))
    return Diagnosis(f"{subject} is {amount} {direction} everywhere, in every case.", f"{amount} {direction}")


KNOWN = {
    1 / math.log(2): "that is a logarithm to base 2 for the natural one", math.log(2): "that is a natural logarithm for one to base 2",
    1 / math.log(10): "that is a logarithm to base 10 for the natural one", 100: "that is in percent", 0.01: "that is percent for shares",
    180 / math.pi: "those are degrees for radians", math.pi / 180: "those are radians for degrees", 255: "bytes are in [0, 255]",
    1 / 255: "bytes are in [0, 255]",
}  # fmt: skip


def _unfinished(flat, subject: str, close: Closeness) -> Diagnosis | None:
    """Right values that were rounded, limited, or set to 0 in places."""
    for digits in range(5):
        if all(_matches(a, lambda t, d=digits: (t * 10**d).round() / 10**d, b, close) for a, b in flat):
            what = f"rounded to {digits} digits" if digits else "rounded to whole numbers"
            return Diagnosis(f"{subject} is {what}: the values themselves are needed.", "rounded")
    low, high = (min(float(a.min()) for a, _ in flat if a.numel()), max(float(a.max()) for a, _ in flat if a.numel()))
    if low < high and all(_matches(a, lambda t: t.clamp(low, high), b, close) for a, b in flat):
        inside = sum(int(((b > low) & (b < high)).sum()) for _, b in flat)
        if inside > 2:
            ends = f"{number(low)} and {number(high)}"
            return Diagnosis(f"{subject} is right between {ends}, and limited to that.", "limited")
    kept = [(a != 0) for a, _ in flat]
    if all(_matches(a, lambda t, k=k: t * k, b, close) for (a, b), k in zip(flat, kept, strict=True)):
        if sum(int((a != 0).sum()) for a, _ in flat) > 2:
            square = all(a.dim() == 2 and a.shape[0] == a.shape[1] for a, _ in flat)
            diagonal = square and all(bool((a != 0)[~torch.eye(len(a), dtype=torch.bool)].any()) for a, _ in flat)
            diagonal = diagonal and all(_matches(a, lambda t: t - t.diagonal().diag(), b, close) for a, b in flat)
            where_ = "on the diagonal" if diagonal else "in some places"
            return Diagnosis(f"{subject} is right but for zeros {where_}, where there are values.", "zeros in places")
    return None


def _an_argument(flat, cases, names, subject: str, close: Closeness) -> Diagnosis | None:
    """One of the arguments, as it came."""
    for position, first in enumerate(cases[0] if cases else ()):
        theirs = [case[position] for case in cases if len(case) > position]
        if isinstance(first, Tensor) and len(theirs) == len(flat) and all(isinstance(t, Tensor) for t in theirs):
            if all(_matches(a, lambda t, x=x: as_float(x), b, close) for (a, b), x in zip(flat, theirs, strict=True)):
                name = names[position] if position < len(names) else None
                called = f"`{name}`" if name else f"the {ordinal(position)} argument"
                return Diagnosis(f"{subject} is {called} as it came: nothing is done to it.", "nothing done")
    return None


def _spread_mean(flat, subject: str, close: Closeness) -> Diagnosis | None:
    """A mean over a dimension of the result, in all places along it."""
    for dim in range(min(a.dim() for a, _ in flat)):
        varies = any(b.shape[dim] > 1 and not b.isclose(b.mean(dim, keepdim=True)).all() for _, b in flat)
        if varies and all(_matches(a, lambda t, d=dim: t.mean(d, True).expand_as(t), b, close) for a, b in flat):
            return Diagnosis(
                f"{subject} is the same everywhere along dimension {dim}: the mean over it of what is needed. Each place along it has a value of its own.",
                "a mean for all",
            )
    return None


def _order(flat, subject: str, close: Closeness) -> Diagnosis | None:
    """The right rows in another order, or the right values of each row."""
    for dim in range(1, min((a.dim() for a, _ in flat), default=0)):
        if all(_matches(a.sort(dim).values, lambda t, d=dim: t.sort(d).values, b, close) for a, b in flat):
            rising = all(bool((a.diff(dim=dim) >= 0).all()) for a, _ in flat)
            how = "sorted from small to large" if rising else "in another order"
            return Diagnosis(f"{subject} has the right values along dimension {dim}, {how}.", "another order")
    for a, b in flat:
        if a.dim() == 0 or len(a) < 2 or len(a) > 512 or a.is_complex():
            return None
        rows = torch.cdist(a.reshape(len(a), -1), b.reshape(len(b), -1), p=math.inf)
        limit = close.atol + close.rtol * b.abs().max()
        if not ((rows <= limit).any(0).all() and (rows <= limit).any(1).all()):
            return None
    if flat[0][0].dim() == 1 and all(bool((a.diff() >= 0).all()) for a, _ in flat):
        return Diagnosis(f"{subject} has the right elements, sorted from small to large.", "sorted")
    rest = "" if flat[0][0].dim() == 1 else " (rows along dimension 0)"
    return Diagnosis(f"{subject} has the right elements{rest} in another order.", "another order")


def _shifted(flat, subject: str, close: Closeness) -> Diagnosis | None:
    """Mirrored or shifted along a dimension."""
    for dim in range(min(a.dim() for a, _ in flat)):
        if all(_matches(a, lambda t, d=dim: t.flip(d), b, close) for a, b in flat):
            return Diagnosis(f"{subject} is mirrored along dimension {dim}.", "mirrored")
        for shift in (1, -1):
            if all(_matches(a, lambda t, d=dim, s=shift: t.roll(s, d), b, close) for a, b in flat):
                return Diagnosis(f"{subject} is shifted by one along dimension {dim}: see the ends.", "shifted by one")
    return None


def of_values(got: Any, want: Any, subject: str, close: Closeness) -> Diagnosis:
    """The largest difference and the first place where there is one."""
    if not isinstance(want, Tensor | np.ndarray):
        describe_ = number if is_number(want) else describe
        return Diagnosis(f"{subject} is {describe_(got)}, but {describe_(want)} is needed.")
    a, b = as_float(got), as_float(want)
    off = ~values_close(got, want, close)
    place = tuple(int(i) for i in off.nonzero()[0])
    if a.numel() == 1:
        return Diagnosis(f"{subject} is {number(a[place])}, but {number(b[place])} is needed.")
    gap = (a - b).abs().nan_to_num(posinf=math.inf).max()
    share = "every element" if off.all() else f"{int(off.sum())} of {off.numel()} elements"
    at = f"[{', '.join(map(str, place))}]"
    return Diagnosis(
        f"{subject} has the right shape and dtype, but {share} of it differ{'s' if off.all() else ''} from what is needed, by up to {number(gap)}. "
        f"The first place is {at}: yours is {number(a[place])}, needed is {number(b[place])}."
    )
