"""Values over seeds, and how sure their mean is: seeds differ, and a test set has so many images and no more."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from sslcourse.errors import CourseError

SEEDS = 3  # with fewer, a standard deviation is little more than a guess
IMAGES = 100  # with fewer of them in a test set, each is worth more than a point
ANYTHING, SHARE, DIFFERENCE = (-math.inf, math.inf), (0.0, 1.0), (-1.0, 1.0)  # what a value can be


@dataclass(frozen=True)
class Summary:
    """Values over seeds: mean, standard deviation (n - 1), and the 95% interval of the mean.

    test_images  on how many images each value was measured, the same ones for all; None where nobody said so, and then
                 the interval is about these very images
    sampling     variance of the mean that comes from which images the test set happens to hold
    limits       the least and the largest value that there can be; the interval keeps within them

    The interval is mean ± t √(s²/n + sampling). The first part comes from the n seeds, and t is the 97.5% quantile of
    Student's distribution with (s²/n + sampling)² / ((s²/n)² / (n - 1)) degrees of freedom (Satterthwaite, 1946), the
    second part being taken as known. Without it, this is the usual interval with n - 1 degrees of freedom.
    """

    values: tuple[float, ...]
    test_images: int | None = None
    sampling: float = 0.0
    limits: tuple[float, float] = ANYTHING

    @property
    def mean(self) -> float:
        return float(np.mean(self.values))

    @property
    def std(self) -> float:
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else math.nan

    @property
    def half_width(self) -> float:
        """Half of the interval, before it meets the limits; NaN for a single value."""
        n = len(self.values)
        if n < 2:
            return math.nan
        between = self.std**2 / n
        whole = between + self.sampling
        freedom = (n - 1) * (whole / between) ** 2 if between > 0 else math.inf
        return float(stats.t.ppf(0.975, freedom) * math.sqrt(whole))

    @property
    def interval(self) -> tuple[float, float]:
        low, high = np.clip((self.mean - self.half_width, self.mean + self.half_width), *self.limits)
        return float(low), float(high)

    @property
    def caution(self) -> str:
        """Why these values are too few to tell much, in a sentence; "" where they are enough."""
        reasons = []
        if len(self.values) < SEEDS:
            count = "1 seed" if len(self.values) == 1 else f"{len(self.values)} seeds"
            reasons.append(f"{count} can't say how much the luck of a seed matters")
        if self.test_images is not None and self.test_images < IMAGES:
            reasons.append(f"one of {self.test_images} test images is worth {100 / self.test_images:.1f} points")
        return f"too few to tell: {' and '.join(reasons)}." if reasons else ""

    def record(self) -> dict[str, Any]:
        """The summary as plain numbers for JSON; None where a single value has no spread."""
        alone = len(self.values) < 2
        return {
            "mean": self.mean,
            "std": None if alone else self.std,
            "interval95": None if alone else list(self.interval),
            "values": list(self.values),
            "test_images": self.test_images,
            "caution": self.caution,
        }

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {self.std:.3f}" if len(self.values) > 1 else f"{self.mean:.3f}"


def of_accuracies(values: Sequence[float], test_images: int | None) -> Summary:
    """Accuracies in [0, 1], a value per seed, all measured on the same `test_images` images of a test set.

    The test set's part of the variance is that of a share of N images, p (1 - p) / N, at p = (N mean + 2) / (N + 4), so
    that it isn't 0 where all or none were right (Agresti and Coull, 1998). More seeds don't lower it, since they share
    the images. It is a little too large: the part of p (1 - p) that one image owes to the seeds is in s² already.
    """
    values = tuple(float(value) for value in values)
    if test_images is None:
        return Summary(values, limits=SHARE)
    share = (test_images * float(np.mean(values)) + 2) / (test_images + 4)
    return Summary(values, test_images, share * (1 - share) / test_images, SHARE)


def paired_difference(a: Sequence[float] | Summary, b: Sequence[float] | Summary) -> Summary:
    """a - b seed by seed: the same seed drew the same labels for both, so that their common luck cancels.

    Of two summaries of accuracies, the test set's parts are added up, as if the two were right on unrelated images.
    Where the same images are hard for both, as they usually are, the interval is wider than it need be: how much, only
    their answers image by image would tell (McNemar, 1947).
    """
    a, b = (side if isinstance(side, Summary) else Summary(tuple(side)) for side in (a, b))
    if len(a.values) != len(b.values) or not a.values:
        raise CourseError(
            "a paired difference needs as many values on both sides, at least one, and got "
            f"{len(a.values)} and {len(b.values)}."
        )
    values = tuple(x - y for x, y in zip(a.values, b.values, strict=True))
    if a.test_images is None or a.test_images != b.test_images:
        return Summary(values, limits=DIFFERENCE if a.limits == b.limits == SHARE else ANYTHING)
    return Summary(values, a.test_images, a.sampling + b.sampling, DIFFERENCE)


def rank_correlation(
    first: Sequence[float], second: Sequence[float], draws: int = 2000, seed: int = 0
) -> tuple[float, tuple[float, float]]:
    """Spearman's correlation of N pairs of values, in [-1, 1], and its 95% interval.

    Equal values share their mean rank. The interval is that of `draws` draws of N pairs with replacement (the bootstrap's
    percentiles: Efron, 1979): with fifteen pairs it is wide, and says so. Raises CourseError for fewer than four pairs, and
    where one side is the same throughout.
    """
    pairs = np.array([first, second], dtype=float) if len(first) == len(second) else np.empty((2, 0))
    if pairs.shape[1] < 4 or (pairs.min(axis=1) == pairs.max(axis=1)).any():
        raise CourseError(
            f"a rank correlation needs at least four pairs, and values that differ on both sides; got {len(first)} and "
            f"{len(second)} values."
        )
    chosen = np.random.default_rng(seed).integers(pairs.shape[1], size=(draws, pairs.shape[1]))  # (draws, N)
    chosen = np.concatenate([np.arange(pairs.shape[1])[None], chosen])  # the pairs as they are come first
    ranks = stats.rankdata(pairs[:, chosen], axis=2)  # (2, 1 + draws, N)
    ranks -= ranks.mean(axis=2, keepdims=True)
    length = np.sqrt((ranks**2).sum(axis=2)).prod(axis=0)  # (1 + draws,), 0 where a draw is one pair again and again
    values = ((ranks[0] * ranks[1]).sum(axis=1)[length > 0] / length[length > 0]).clip(-1, 1)
    low, high = np.percentile(values[1:], (2.5, 97.5))
    return float(values[0]), (float(low), float(high))
