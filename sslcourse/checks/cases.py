"""What the cases of a check are drawn from. All randomness comes from the generator that a check passes in."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

_times = [1]


@contextlib.contextmanager
def larger(times: int) -> Iterator[None]:
    """Every size above 1 of what is drawn here is so many times as large."""
    _times.append(times)
    try:
        yield
    finally:
        _times.pop()


def _sizes(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n * _times[-1] if n > 1 else n for n in shape)


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    """Standard normal numbers."""
    return torch.randn(_sizes(shape), generator=generator)


def uniform(generator: torch.Generator, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Numbers from [low, high)."""
    return torch.rand(_sizes(shape), generator=generator) * (high - low) + low


def whole(generator: torch.Generator, below: int, *shape: int) -> Tensor:
    """Whole numbers from 0 to below - 1 (int64)."""
    return torch.randint(below, _sizes(shape), generator=generator)


def pictures(generator: torch.Generator, *shape: int) -> Tensor:
    """Bytes (uint8), the darkest and the brightest among them."""
    drawn = torch.randint(256, _sizes(shape), generator=generator, dtype=torch.uint8)
    drawn.view(-1)[:2] = torch.tensor([0, 255], dtype=torch.uint8)
    return drawn


def seed(generator: torch.Generator) -> int:
    """A seed that no one's manual_seed(0) meets, for what takes no generator, such as the weights of a layer."""
    return int(torch.randint(2**31, (), generator=generator))


def another(generator: torch.Generator) -> torch.Generator:
    """A generator of its own, for an answer that draws from one."""
    return torch.Generator().manual_seed(seed(generator))
