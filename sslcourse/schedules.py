"""Pure functions of progress (0 at the first step, 1 after the last): a schedule that has no state can't be resumed wrong."""

from __future__ import annotations

import math


def cosine(progress: float, start: float = 1.0, end: float = 0.0) -> float:
    """Half a cosine wave from `start` at progress 0 to `end` at progress 1 (Loshchilov and Hutter, 2016, 1608.03983)."""
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))


def warmup_cosine(progress: float, warmup: float = 0.1, end: float = 0.0) -> float:
    """A factor for the learning rate: linear from 0 to 1 over the share `warmup` of training, then a cosine to `end`.

    `warmup` is a share of the whole run, in [0, 1). The value is in [0, 1].
    """
    if progress < warmup:
        return progress / warmup
    return cosine((progress - warmup) / (1.0 - warmup), 1.0, end)
