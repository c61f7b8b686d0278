"""What people hold numbers and images in, as plain tensors: arrays of any layout, lists of arrays, pictures of Pillow's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sslcourse.errors import CourseError

UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)  # for which torch has next to no arithmetic


def as_tensor(values: Any, name: str) -> Tensor:
    """`values` as a dense tensor in memory, of the same type where torch has it.

    values  a tensor of any kind; an array of any layout and byte order; a sequence of numbers, of tensors or arrays of
            one shape, or of Pillow's pictures of one size, which become uint8 (N, 3, H, W)
    name    what they are called in messages, in the plural

    Raises CourseError for anything else.
    """
    if isinstance(values, list | tuple) and len(values):
        if all(isinstance(value, Image.Image) for value in values):
            return _stacked([torch.from_numpy(np.array(picture.convert("RGB"))) for picture in values], name).permute(
                0, 3, 1, 2
            )
        if any(isinstance(value, Tensor | np.ndarray) for value in values):
            return _stacked([as_tensor(value, name) for value in values], name)
    return _dense(values, name) if isinstance(values, Tensor) else _from_array(values, name)


def described(values: Tensor) -> str:
    """Type and shape, such as "uint8 (4, 3, 32, 32)"."""
    return f"{str(values.dtype).removeprefix('torch.')} {tuple(values.shape)}"


def _stacked(parts: Sequence[Tensor], name: str) -> Tensor:
    """Tensors of one shape and type as one (N, …)."""
    first = parts[0]
    for part in parts:
        if part.shape != first.shape or part.dtype != first.dtype:
            raise CourseError(
                f"{name} given one by one must be alike, and these are {described(first)} and {described(part)}; "
                "bring them to one shape and type first."
            )
    return torch.stack([part.to(first.device) for part in parts])


def _dense(values: Tensor, name: str) -> Tensor:
    if values.is_nested or values.layout != torch.strided or values.is_quantized or values.device.type == "meta":
        kind = "meta" if values.device.type == "meta" else "quantized" if values.is_quantized else "sparse or nested"
        raise CourseError(f"{name} must be a dense tensor, and got a {kind} one; make a plain tensor of them first.")
    return values.detach().as_subclass(Tensor)


def _from_array(values: Any, name: str) -> Tensor:
    try:
        array = values if isinstance(values, np.ma.MaskedArray) else np.asarray(values)
    except Exception:  # an array is made by code of the object itself, and lists may be ragged
        array = np.empty(0, object)
    if isinstance(array, np.ma.MaskedArray) and array.mask.any():
        raise CourseError(f"{name} have masked values, which nothing can be learnt from; fill or drop them first.")
    if array.dtype.kind not in "biufc":
        raise CourseError(f"{name} must be a tensor or an array of numbers, and got {_kind(values)}.")
    if array.dtype.kind in "fc" and array.dtype.itemsize > (8 if array.dtype.kind == "f" else 16):
        array = array.astype(np.float64 if array.dtype.kind == "f" else np.complex128)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    plain = array.flags.writeable and all(stride >= 0 for stride in array.strides) and type(array) is np.ndarray
    return torch.from_numpy(array if plain else np.array(array, order="C", subok=False))


def _kind(values: Any) -> str:
    kind = type(values).__name__
    if isinstance(values, np.ndarray):
        return f"an array of {values.dtype.name} {values.shape}"
    if isinstance(values, list | tuple) and len(values):
        return f"a {kind} of {type(values[0]).__name__} that isn't one"
    return kind
