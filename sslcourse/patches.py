"""Pieces of images: windows cut at any place, tiles of a grid, and the patches of a vision transformer."""

from __future__ import annotations

import torch
from torch import Tensor

from sslcourse.errors import CourseError


def windows(images: Tensor, top: Tensor, left: Tensor, size: int) -> Tensor:
    """A square window of each image, cut at whole pixels: (N, C, H, W) -> (N, C, size, size); any dtype.

    top and left are int64 (N,), in [0, H - size] and [0, W - size].
    """
    offset = torch.arange(size, device=images.device)
    rows, columns = top[:, None] + offset, left[:, None] + offset  # (N, size) each
    each = torch.arange(len(images), device=images.device)[:, None, None]
    moved = images.permute(0, 2, 3, 1)  # (N, H, W, C): the indexed dimensions stand together
    return moved[each, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def tiles(images: Tensor, grid: int, size: int, generator: torch.Generator | None = None) -> Tensor:
    """A grid x grid puzzle: (N, C, H, W) -> (N, grid * grid, C, size, size), rows first; any dtype.

    Each tile is a window of its cell, whose side is H // grid. What the tile leaves free of its cell is the gap: with a
    `generator` the window lies anywhere in the cell, without in its middle. With size = H // grid nothing is left out.
    Raises CourseError when the tile is larger than its cell.
    """
    count, _, height, width = images.shape
    tall, wide = height // grid, width // grid
    if not 1 <= size <= min(tall, wide):
        raise CourseError(
            f"a tile of {size} pixels doesn't fit the {tall}x{wide} pixels that a {grid}x{grid} grid leaves of images "
            f"of {height}x{width}; choose a smaller tile or larger images."
        )
    cut = []
    for row in range(grid):
        for column in range(grid):
            if generator is None:
                down = torch.full((count,), (tall - size) // 2, device=images.device)
                right = torch.full((count,), (wide - size) // 2, device=images.device)
            else:
                down = torch.randint(tall - size + 1, (count,), generator=generator, device=images.device)
                right = torch.randint(wide - size + 1, (count,), generator=generator, device=images.device)
            cut.append(windows(images, row * tall + down, column * wide + right, size))
    return torch.stack(cut, dim=1)  # (N, grid * grid, C, size, size)


def patchify(images: Tensor, patch: int) -> Tensor:
    """Images (N, C, H, W) to flat patches (N, L, patch * patch * C), L = (H / patch) * (W / patch), rows first.

    Raises CourseError when the patch doesn't divide the sides.
    """
    count, channels, height, width = images.shape
    if height % patch or width % patch:
        raise CourseError(f"patches of {patch} pixels don't tile images of {height}x{width}: choose a divisor of both.")
    cut = images.reshape(count, channels, height // patch, patch, width // patch, patch)
    return cut.permute(0, 2, 4, 3, 5, 1).reshape(count, -1, patch * patch * channels)


def unpatchify(patches: Tensor, patch: int, height: int, width: int) -> Tensor:
    """The inverse of `patchify`: (N, L, patch * patch * C) -> (N, C, height, width)."""
    count = len(patches)
    cut = patches.reshape(count, height // patch, width // patch, patch, patch, -1)
    return cut.permute(0, 5, 1, 3, 2, 4).reshape(count, -1, height, width)
