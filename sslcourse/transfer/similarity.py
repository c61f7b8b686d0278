"""Do two networks see alike? Centered kernel alignment of their features on the same images.

Features of two networks can't be compared number by number: their axes mean different things, and there may be more of
them in one than in the other. What can be compared is which images each network finds similar.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sslcourse.errors import CourseError
from sslcourse.features import checked_features


def linear_cka(x: Tensor, y: Tensor) -> float:
    """Linear centered kernel alignment (Kornblith, Norouzi, Lee and Hinton, 2019, 1905.00414), in [0, 1].

    x (N, d) and y (N, e) are features of the same N images, in the same order; d and e may differ. 1 where one is a
    rotated, mirrored, shifted and evenly scaled copy of the other. With few images it is too high: features that have
    nothing in common come out near d e / ((N + d) (N + e)) to the power of a half, so take N much larger than d and e.

    Raises CourseError for features that aren't two tables with as many rows, are not finite, or don't vary.
    """
    x, y = _centered(x, "first"), _centered(y, "second")
    if len(x) != len(y):
        raise CourseError(
            f"features are compared image by image, and the first has {len(x)} rows and the second {len(y)}; take both on "
            "the same images."
        )
    cross, own_x, own_y = x.T @ y, x.T @ x, y.T @ y  # (d, e), (d, d), (e, e)
    return (cross.square().sum() / (own_x.norm() * own_y.norm())).item()


def cka_table(rows: Mapping[str, Tensor], columns: Mapping[str, Tensor] | None = None) -> Tensor:
    """linear_cka of all features in `rows` with all in `columns` (default: with each other): (R, C), float64."""
    columns = rows if columns is None else columns
    return torch.tensor([[linear_cka(x, y) for y in columns.values()] for x in rows.values()], dtype=torch.float64)


def _centered(features: Tensor, which: str) -> Tensor:
    """(N, d) in float64 with every column's mean taken off."""
    x = checked_features(features, f"the {which} features", least=2).double()
    x = x - x.mean(dim=0)
    if not bool((x.abs() > 1e-9 * features.abs().max().clamp(min=1e-30)).any()):
        raise CourseError(f"the {which} features are the same for every image, so there is nothing to compare.")
    return x
