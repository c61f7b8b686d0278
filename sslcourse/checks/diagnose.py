"""What is wrong with a result that no known mistake explains? The most telling true sentence about it.

From the coarse to the fine: nothing returned, wrong type, wrong shape, wrong dtype, wrong device, NaN, and then relations
between what was given and what is needed (negated, a constant factor, transposed, rows in another order, ...) that hold in
every case. When none holds: the largest difference, and the first place where there is one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sslcourse.checks.compare import (
    Closeness,
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
class Results:
    """What an answer gave and what is needed, in every case; at least one differs.

    names: of the arguments. noun: what the learner wrote ("function", "class" or "value").
    """

    got: Sequence[Any]
    want: Sequence[Any]
    cases: Sequence[Case]
    names: Sequence[str]
    close: Closeness
    noun: str

    def wrong(self) -> list[int]:
        """The cases that are wrong, the smallest first: it is the easiest to think about."""
        differing = [i for i, (a, b) in enumerate(zip(self.got, self.want, strict=True)) if not equal(a, b, self.close)]
        return sorted(differing, key=lambda i: size(self.cases[i]))

    def subject(self, path: str) -> str:
        return ("Your value" if self.noun == "value" else f"Your {self.noun}'s result") + path


def coarse(results: Results) -> str | None:
    """What is wrong with the type, the shape, the dtype or the device, or None."""
    wrong = results.wrong()
    for index in wrong:
        path, a, b = first_difference(results.got[index], results.want[index], results.close)
        subject = results.subject(path)
        sentence = of_type(a, b, subject, results.noun) or of_shape(a, b, subject)
        sentence = sentence or of_dtype(a, b, subject, results.close)
        if sentence is not None:
            return sentence + where(results.cases[index], results.names, len(wrong), len(results.want))
    return None


def fine(results: Results) -> str:
    """What is wrong with the numbers."""
    wrong = results.wrong()
    path, a, b = first_difference(results.got[wrong[0]], results.want[wrong[0]], results.close)
    subject = results.subject(path)
    together = [pair for got, want in zip(results.got, results.want, strict=True) for pair in at_path(got, want, path)]
    sentence = of_nan(a, b, subject) or of_relation(together, results.cases, results.names, subject, results.close)
    sentence = sentence or of_values(a, b, subject, results.close)
    return sentence + where(results.cases[wrong[0]], results.names, len(wrong), len(results.want))


def at_path(got: Any, want: Any, path: str) -> list[tuple[Any, Any]]:
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


def where(case: Case, names: Sequence[str], wrong: int, total: int) -> str:
    """ " That was in the case: images = ...", and in how many of the cases."""
    if not case:
        return ""
    arguments = ", ".join(
        f"{name}: {describe(value, names_values=True)}"
        for name, value in itertools.zip_longest(names[: len(case)], case, fillvalue="argument")
    )
    count = (
        "" if total == 1 else f" ({wrong} of {total} cases are wrong)" if wrong < total else " (every case is wrong)"
    )
    return f"\nA case where it happens{count}: {arguments}."


# -- coarse: type, shape, dtype, NaN ------------------------------------------------------------------------------------


def of_type(got: Any, want: Any, subject: str, noun: str) -> str | None:
    """Nothing, or the wrong kind of thing, was given."""
    if got is None and want is not None:
        if noun == "function" and subject.endswith("result"):
            return f"Your function returned nothing (None), but {describe(want)} is needed: did you forget `return`?"
        if "gradient" in subject:
            return f"{subject} is None: the result doesn't depend on it by way of autograd. Does .detach(), .item(), torch.no_grad() or a new torch.tensor(...) cut the graph?"
        return f"{subject} is None, but {describe(want)} is needed."
    if isinstance(want, Mapping | list | tuple) and same_type(got, want):
        if isinstance(want, Mapping):
            missing, extra = set(want) - set(got), set(got) - set(want)
            parts = [
                f"{label} {', '.join(map(repr, keys))}"
                for label, keys in (("lacks", missing), ("has too much:", extra))
                if keys
            ]
            return f"{subject} is a dict that {' and '.join(parts)}; the keys needed are {', '.join(map(repr, want))}."
        return f"{subject} has {len(got)} parts, but {len(want)} are needed."
    if same_type(got, want):
        return None
    tip = ""
    if isinstance(want, Tensor):
        if isinstance(got, np.ndarray):
            tip = " Stay in PyTorch all the way: torch.from_numpy would lose the device and the gradient."
        elif is_number(got):
            tip = " Leave out .item() and float(): they cut the gradient." if want.dim() == 0 else ""
        elif isinstance(got, list | tuple) and got and all(isinstance(item, Tensor) for item in got):
            tip = " torch.stack joins tensors along a new dimension, torch.cat along one that exists."
    if callable(got) and not isinstance(got, nn.Module | type):
        tip = " Did you forget to call it?"
    return f"{subject} is {describe(got)}, but {describe(want)} is needed.{tip}"


def of_shape(got: Any, want: Any, subject: str) -> str | None:
    """The shapes differ: how, and what usually does that."""
    if not isinstance(want, Tensor | np.ndarray) or tuple(got.shape) == tuple(want.shape):
        return None
    a, b = tuple(got.shape), tuple(want.shape)
    tip = ""
    if sorted(a) == sorted(b) and len(a) > 1:
        tip = " The dimensions are there, in another order: see permute and transpose."
    elif tuple(n for n in a if n != 1) == tuple(n for n in b if n != 1):
        tip = (
            " It has a dimension of 1 too many: see keepdim and squeeze."
            if len(a) > len(b)
            else " It lacks a dimension of 1: see keepdim and unsqueeze."
            if len(a) < len(b)
            else " The dimension of 1 is in another place: see squeeze and unsqueeze."
        )
    elif not b and math.prod(a) > 1:
        tip = " One number is needed for the whole batch: is there a mean or a sum to take?"
    elif not a:
        tip = " You reduce over too many dimensions: see the argument dim of mean and sum."
    elif math.prod(a) == math.prod(b):
        tip = " The number of elements is right: see reshape, and mind the order in which it reads."
    elif len(a) == len(b) - 1 and a == b[1:]:
        tip = " The batch dimension is missing: is one image handled where a batch comes in?"
    return f"{subject} has the shape {shape(got)}, but {shape(want)} is needed.{tip}"


def of_dtype(got: Any, want: Any, subject: str, close: Closeness) -> str | None:
    """The dtype or the device differs."""
    if not isinstance(want, Tensor | np.ndarray):
        return None
    got, want = torch.as_tensor(got), torch.as_tensor(want)
    given, needed = (str(t.dtype).removeprefix("torch.") for t in (got, want))
    if got.device.type != want.device.type:
        return f"{subject} is on the device {got.device}, but its arguments and so its result belong on {want.device}: make new tensors with device=x.device."
    if same_dtype(got.dtype, want.dtype, close):
        return None
    right = bool(values_close(got, want, close).all())
    tip = (
        f" The numbers are right: .to(torch.{needed}) or dtype=torch.{needed} is all that is missing." if right else ""
    )
    return f"{subject} has the dtype {given}, but {needed} is needed.{tip}"


def of_nan(got: Any, want: Any, subject: str) -> str | None:
    """NaN or infinity where there should be a number."""
    if not isinstance(want, Tensor | np.ndarray) and not is_number(want):
        return None
    a, b = as_float(got), as_float(want)
    for name, there in (("NaN", torch.isnan), ("infinity", torch.isinf)):
        if there(a).any() and not there(b).any():
            share = f" ({int(there(a).sum())} of {a.numel()} elements)" if a.numel() > 1 else ""
            return f"{subject} contains {name}{share}: look for a division by zero, the logarithm of zero, or exp of something large."
    return None


# -- fine: relations that hold in every case ----------------------------------------------------------------------------


def of_relation(
    together: list[tuple[Any, Any]], cases: Sequence[Case], names: Sequence[str], subject: str, close: Closeness
) -> str | None:
    """A sentence about a relation between given and needed that holds in every case, or None."""
    if any(not same_type(a, b) or not isinstance(b, Tensor | np.ndarray) and not is_number(b) for a, b in together):
        return None
    flat = [(as_float(a), as_float(b)) for a, b in together]
    if any(a.shape != b.shape for a, b in flat) or not flat:
        return None
    loose = Closeness(max(close.rtol, 1e-4), max(close.atol, 1e-6) if close.atol < 1 else 1e-6, "any")

    def holds(relation: Callable[[Tensor], Tensor]) -> bool:
        return all(_matches(a, relation, b, loose) for a, b in flat)

    if holds(torch.neg):
        return f"{subject} has the right size and the wrong sign: it is the negative of what is needed."
    return (
        _factor(flat, cases, names, subject, loose)
        or _offset(flat, subject, loose)
        or next((f"{subject} is {words} of what is needed." for words, relation in SHAPES if holds(relation)), None)
        or _order(flat, subject, loose)
        or _shifted(flat, subject, loose)
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
    ("the softmax over the last dimension", lambda t: t.softmax(-1) if t.dim() else t * torch.nan),
    ("the transpose (the last two dimensions swapped)", lambda t: t.mT if t.dim() > 1 else t * torch.nan),
)


def _factor(flat, cases, names, subject: str, close: Closeness) -> str | None:
    """A constant factor: the same in all cases, or the size of an argument in each."""
    ratios = []
    for a, b in flat:
        largest = b.abs().argmax() if b.numel() else None
        if largest is None or not b.flatten()[largest].abs() > 1e-9 or a.is_complex():
            return None
        ratio = float(a.flatten()[largest] / b.flatten()[largest])
        if not math.isfinite(ratio) or abs(ratio) < 1e-9 or not _matches(a, lambda t, r=ratio: t * r, b, close):
            return None
        ratios.append(ratio)
    alike = all(math.isclose(r, ratios[0], rel_tol=1e-3) for r in ratios)
    informative = len(flat) > 1 and alike or all(b.numel() > 1 for _, b in flat)
    for name, index, sizes in _sizes(cases, names) if len(set(map(size, cases))) > 1 or len(cases) == 1 else ():
        for power, words in (
            (1, "too large: is a sum taken where a mean is meant"),
            (-1, "too small: is a mean taken where a sum is meant"),
        ):
            if (
                len(sizes) == len(ratios)
                and min(sizes) > 1
                and all(math.isclose(r, n**power, rel_tol=1e-3) for r, n in zip(ratios, sizes, strict=True))
            ):
                return f"{subject} is exactly {sizes[0]} times {words}? ({sizes[0]} is {index} of `{name}`.)"
    if not informative:
        return None
    ratio = ratios[0]
    amount = (
        f"{number(ratio)} times what is needed" if abs(ratio) >= 1 else f"what is needed divided by {number(1 / ratio)}"
    )
    same = (
        "in every case"
        if alike and len(ratios) > 1
        else "in this case (another factor in others)"
        if not alike
        else "everywhere"
    )
    return f"{subject} is {amount}, {same}: a constant factor is missing or too much. Is there a sum where a mean is meant, or a mean where a sum is?"


def _sizes(cases: Sequence[Case], names: Sequence[str]):
    """(argument's name, which size in words, its value in every case) for every dimension of every tensor argument."""
    for position, first in enumerate(cases[0] if cases else ()):
        name = names[position] if position < len(names) else f"argument {position}"
        column = [case[position] for case in cases if len(case) > position]
        if isinstance(first, Tensor) and all(isinstance(t, Tensor) and t.dim() == first.dim() for t in column):
            for dim in range(first.dim()):
                yield name, f"the size of dimension {dim}", [t.shape[dim] for t in column]
            if first.dim() > 1:
                yield name, "the number of all elements", [t.numel() for t in column]


def _offset(flat, subject: str, close: Closeness) -> str | None:
    """The same number added everywhere."""
    offsets = [a - b for a, b in flat]
    first = offsets[0].flatten()[0] if offsets[0].numel() else None
    if first is None or first.is_complex() or sum(o.numel() for o in offsets) < 2 or not abs(float(first)) > 1e-6:
        return None
    if not all(_matches(a, lambda t: t + first, b, close) for a, b in flat):
        return None
    direction = "too large" if float(first) > 0 else "too small"
    return f"{subject} is {number(abs(float(first)))} {direction} everywhere, in every case."


def _order(flat, subject: str, close: Closeness) -> str | None:
    """The right rows in another order."""
    for a, b in flat:
        if a.dim() == 0 or len(a) < 2 or len(a) > 512 or a.is_complex():
            return None
        rows = torch.cdist(a.reshape(len(a), -1), b.reshape(len(b), -1), p=math.inf)
        limit = close.atol + close.rtol * b.abs().max()
        if not ((rows <= limit).any(0).all() and (rows <= limit).any(1).all()):
            return None
    rest = "" if flat[0][0].dim() == 1 else " (rows along dimension 0)"
    return f"{subject} has the right elements{rest} in another order."


def _shifted(flat, subject: str, close: Closeness) -> str | None:
    """Mirrored or shifted along a dimension."""
    for dim in range(min(a.dim() for a, _ in flat)):
        if all(_matches(a, lambda t, d=dim: t.flip(d), b, close) for a, b in flat):
            return f"{subject} is mirrored along dimension {dim}."
        for shift in (1, -1):
            if all(_matches(a, lambda t, d=dim, s=shift: t.roll(s, d), b, close) for a, b in flat):
                return f"{subject} is shifted by one along dimension {dim}: count from 0, and look at the ends."
    return None


def of_values(got: Any, want: Any, subject: str, close: Closeness) -> str:
    """The largest difference and the first place where there is one."""
    if not isinstance(want, Tensor | np.ndarray):
        if is_number(want):
            return f"{subject} is {number(got)}, but {number(want)} is needed."
        return f"{subject} is {describe(got)}, but {describe(want)} is needed."
    a, b = as_float(got), as_float(want)
    off = ~values_close(got, want, close)
    place = tuple(int(i) for i in off.nonzero()[0])
    at = f"[{', '.join(map(str, place))}]" if place else ""
    if a.numel() == 1:
        return f"{subject} is {number(a[place])}, but {number(b[place])} is needed."
    gap = (a - b).abs().nan_to_num(posinf=math.inf).max()
    share = "every element" if off.all() else f"{int(off.sum())} of {off.numel()} elements"
    return (
        f"{subject} has the right shape and dtype, but {share} of it differ{'s' if off.all() else ''} from what is needed, by up to {number(gap)}. "
        f"The first place is {at}: yours is {number(a[place])}, needed is {number(b[place])}."
    )
