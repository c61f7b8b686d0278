"""Inspecting the pieces of several products: what is normal is learned for each product on its own.

The labels of an ImageSet say which product a picture shows. Every set that is learned from holds good pieces alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from sslcourse.data.imageset import ImageSet
from sslcourse.errors import CourseError
from sslcourse.summary import Summary
from sslcourse.transfer import defects

GOOD, ALL = "good", "all"
LEAST = 2  # held-out pieces of a product: fewer have no spread


class Inspector:
    """A one-class scorer for each product, all in the same units.

    features_of   uint8 images (N, 3, H, W) to what the scorers take
    make          a new scorer, with `fit` and `score`, such as `defects.Mahalanobis`

    A score is how many standard deviations a piece lies above the mean of good pieces of its product that nothing was
    learned from. So scores of different products can be compared, and those of different inspectors added.
    """

    def __init__(self, features_of: Callable[[Tensor], Tensor], make: Callable[[], Any]):
        self.features_of, self.make = features_of, make
        self.scorers: dict[int, Any] = {}
        self.units: dict[int, tuple[Tensor, Tensor]] = {}  # mean and standard deviation of held-out good pieces

    def fit(self, normal: ImageSet, held_out: ImageSet) -> Inspector:
        """Learn from `normal`, and take the units from `held_out`: good pieces, at least two of each product, in each."""
        products, others = _products(normal), _products(held_out)
        known, good = self.features_of(normal.images), self.features_of(held_out.images)
        for product in products.unique().tolist():
            if (others == product).sum() < LEAST:
                raise CourseError(
                    f"product {product} has {int((others == product).sum())} held-out good pieces, and its units need "
                    f"at least {LEAST}; hold out some of every product."
                )
            self.scorers[product] = self.make().fit(known[products == product])
            scores = self.scorers[product].score(good[others == product])
            self.units[product] = scores.mean(), scores.std().clamp(min=1e-12)
        return self

    def score(self, images: Tensor, products: Tensor) -> Tensor:
        """images uint8 (N, 3, H, W) of products int64 (N,) -> float (N,); larger is stranger."""
        products = products.cpu()
        unknown = set(products.tolist()) - set(self.scorers)
        if unknown:
            raise CourseError(
                f"this inspector knows nothing normal of product {min(unknown)}; call fit with good pieces of it first."
            )
        features, scores = self.features_of(images), torch.zeros(len(images))
        for product in products.unique().tolist():
            mine, (mean, spread) = products == product, self.units[product]
            scores[mine] = (self.scorers[product].score(features[mine]) - mean) / spread
        return scores

    def inspect(self, pieces: ImageSet, spoiled: Mapping[str, defects.Planted]) -> dict[str, Tensor]:
        """Scores of N good pieces, and of the same pieces with each kind of defect: {"good": (N,), kind: (N,), ...}."""
        products = _products(pieces)
        images = {GOOD: pieces.images, **{kind: made.images for kind, made in spoiled.items()}}
        return {name: self.score(its, products) for name, its in images.items()}


def areas(scores: Mapping[str, Tensor], products: Tensor) -> dict[str, Summary]:
    """AUROC of each kind of defect, and of "all" of them together, with a value for each product.

    scores as `Inspector.inspect` gives them, products int64 (N,).
    """
    kinds = {kind: scores[kind][None] for kind in scores if kind != GOOD}  # (1, N) each
    if not kinds or GOOD not in scores:
        raise CourseError(
            f"AUROC compares {GOOD!r} with kinds of defects, and there are only {', '.join(scores) or 'none'}."
        )
    kinds[ALL] = torch.cat(list(kinds.values()))  # (K, N)
    return {kind: Summary(tuple(_each_auroc(scores[GOOD], bad, products))) for kind, bad in kinds.items()}


def _each_auroc(good: Tensor, bad: Tensor, products: Tensor) -> list[float]:
    """AUROC of each product: good (N,), bad (K, N), products (N,)."""
    values = []
    for product in products.unique().tolist():
        mine = products == product
        scores = torch.cat([good[mine], bad[:, mine].flatten()])  # ((1 + K) * n,)
        values.append(defects.auroc(scores, torch.arange(len(scores)) >= mine.sum()))
    return values


def _products(pieces: ImageSet) -> Tensor:
    if pieces.labels is None:
        raise CourseError(
            f"{pieces.name} has no labels, and they say which product a piece is; give every piece one, 0 if there is "
            "a single product."
        )
    return pieces.labels.cpu()
