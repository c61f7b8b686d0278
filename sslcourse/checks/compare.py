"""Is one result equal to another? Tensors, numbers, text, and tuples, lists and dicts of them."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Closeness:
    """How near is equal: |got - want| <= atol + rtol * |want| for floats; integers exactly, unless atol is 1 or more.

    dtype: "exact" (float32 is not float64), "kind" (floating, integer or boolean must agree, the width not) or "any".
    plain: a tensor without dimensions is no number, where the text promises a float or an int.
    """

    rtol: float = 1e-4
    atol: float = 1e-5
    dtype: Literal["exact", "kind", "any"] = "kind"
    plain: bool = False


EXACT = Closeness(dtype="exact")  # where numbers only change places, or are counted: no value and no dtype changes


def is_number(value: Any) -> bool:
    """Python and NumPy numbers, and tensors without dimensions; not booleans."""
    if isinstance(value, Tensor):
        return value.dim() == 0 and value.dtype != torch.bool
    return isinstance(value, numbers.Number) and not isinstance(value, bool | np.bool_)


def is_truth(value: Any) -> bool:
    """True or False, from Python, NumPy or as a tensor without dimensions."""
    if isinstance(value, Tensor):
        return value.dim() == 0 and value.dtype == torch.bool
    return isinstance(value, bool | np.bool_)


def as_float(value: Any) -> Tensor:
    """Any tensor, array or number as a float64 tensor on the CPU, so that differences don't overflow."""
    if isinstance(value, int) and abs(value) >= 2**63:
        value = float(value) if abs(value) < 2**1023 else math.inf if value > 0 else -math.inf  # too large for a tensor
    tensor = torch.as_tensor(value).detach()
    tensor = torch.full(tensor.shape, torch.nan) if tensor.is_meta else tensor.cpu()
    return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)


def kind(dtype: torch.dtype) -> str:
    """ "boolean", "integer", "floating" or "complex"."""
    if dtype == torch.bool:
        return "boolean"
    if dtype.is_complex:
        return "complex"
    return "floating" if dtype.is_floating_point else "integer"


def same_type(got: Any, want: Any) -> bool:
    """May `got` stand where `want` is needed? A list for a tuple and a 0-d tensor for a number may; None may not."""
    if isinstance(want, Tensor):
        return isinstance(got, Tensor)
    if isinstance(want, np.ndarray):
        return isinstance(got, np.ndarray | Tensor)
    if is_truth(want):
        return is_truth(got)
    if is_number(want):
        return is_number(got)
    if isinstance(want, Mapping):
        return isinstance(got, Mapping)
    if isinstance(want, list | tuple):
        return isinstance(got, list | tuple)
    return isinstance(got, type(want))


def same_dtype(got: torch.dtype, want: torch.dtype, close: Closeness) -> bool:
    if close.dtype == "exact":
        return got == want
    return close.dtype == "any" or kind(got) == kind(want)


def values_close(got: Any, want: Any, close: Closeness) -> Tensor:
    """Where the two are equal: a boolean tensor of their (equal) shape. NaN equals NaN, infinity equals itself."""
    a, b = as_float(got), as_float(want)
    if a.is_complex() != b.is_complex():
        a, b = a.to(torch.complex128), b.to(torch.complex128)
    whole = isinstance(want, int) or kind(torch.as_tensor(want).dtype) in ("integer", "boolean")
    atol, rtol = (close.atol if close.atol >= 1 else 0.0, 0.0) if whole else (close.atol, close.rtol)
    return torch.isclose(a, b, rtol=rtol, atol=atol, equal_nan=True)


def leaf_equal(got: Any, want: Any, close: Closeness) -> bool:
    """Equality of two things that are no containers."""
    if not same_type(got, want) or close.plain and isinstance(got, Tensor) and not isinstance(want, Tensor):
        return False
    if isinstance(want, Tensor | np.ndarray):
        a, b = torch.as_tensor(got), torch.as_tensor(want)
        if a.shape != b.shape or not same_dtype(a.dtype, b.dtype, close) or a.device.type != b.device.type:
            return False
        return bool(values_close(a, b, close).all())
    if is_truth(want):
        return bool(got) == bool(want)
    if is_number(want):
        return bool(values_close(got, want, close))
    try:
        return bool(got == want)
    except Exception:  # a learner's object may define any __eq__
        return False


Path = tuple[Any, ...]  # the indices and keys that lead to a part of a result


def pairs(got: Any, want: Any, path: Path = ()) -> Iterator[tuple[Path, Any, Any]]:
    """Walk two results together: (path, got, want) for every leaf, and for every container that doesn't fit."""
    if isinstance(want, Mapping) and isinstance(got, Mapping) and set(got) == set(want):
        for key in want:
            yield from pairs(got[key], want[key], (*path, key))
    elif isinstance(want, list | tuple) and isinstance(got, list | tuple) and len(got) == len(want):
        for index, (a, b) in enumerate(zip(got, want, strict=True)):
            yield from pairs(a, b, (*path, index))
    else:
        yield path, got, want


def equal(got: Any, want: Any, close: Closeness) -> bool:
    """Is the whole result `got` equal to `want`?"""
    return first_difference(got, want, close) is None


def first_difference(got: Any, want: Any, close: Closeness) -> tuple[Path, Any, Any] | None:
    """The first leaf (path, got, want) that differs, or None."""
    for path, a, b in pairs(got, want):
        containers = isinstance(b, Mapping | list | tuple)  # here only when the two don't fit, or both are empty
        fits = same_type(a, b) and len(a) == len(b) == 0 if containers else leaf_equal(a, b, close)
        if not fits:
            return path, a, b
    return None


def snapshot(value: Any) -> Any:
    """A copy that no later call can change: tensors detached and cloned, containers rebuilt."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, Mapping):
        return {key: snapshot(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(snapshot, value)) if type(value) in (list, tuple) else tuple(map(snapshot, value))
    return value
