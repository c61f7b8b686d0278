"""What a classifier gets right, class by class, with intervals that know how many pictures there were."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor


def wilson_interval(right: float, count: int, level: float = 0.95) -> tuple[float, float]:
    """The interval of a share, `right` of `count` (Wilson, 1927): within [0, 1], and never of no width.

    (nan, nan) for a count of 0.
    """
    if count == 0:
        return math.nan, math.nan
    z = stats.norm.ppf((1 + level) / 2)
    share, scale = right / count, 1 + z * z / count
    middle = (share + z * z / (2 * count)) / scale
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / scale
    return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True)
class Measures:
    """How predictions and labels agree.

    confusion    int64 (C, C), pictures of the row's class named as the column's
    independent  as how many unrelated pictures these count, where some belong together (`imageset.effective_count`);
                 None: all of them
    """

    confusion: Tensor
    classes: tuple[str, ...]
    independent: int | None = None

    @classmethod
    def of(
        cls, predicted: Tensor, labels: Tensor, classes: tuple[str, ...], independent: int | None = None
    ) -> Measures:
        """predicted and labels: int64 (N,) in [0, C)."""
        pairs = torch.bincount(labels * len(classes) + predicted, minlength=len(classes) ** 2)
        return cls(pairs.view(len(classes), len(classes)), tuple(classes), independent)

    @property
    def count(self) -> int:
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float:
        return int(self.confusion.diagonal().sum()) / self.count if self.count else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval of the accuracy, for pictures drawn like these."""
        count = self.count if self.independent is None else self.independent
        return wilson_interval(self.accuracy * count if count else 0, count)

    def per_class(self) -> list[dict[str, float | int | str]]:
        """For each class: precision, recall (nan where nothing was named so, or nothing is so), F1, and its pictures."""
        rows = []
        for c, name in enumerate(self.classes):
            hit, named, true = (
                int(t) for t in (self.confusion[c, c], self.confusion[:, c].sum(), self.confusion[c].sum())
            )
            precision, recall = (hit / named if named else math.nan), (hit / true if true else math.nan)
            f1 = 2 * hit / (named + true) if named + true else math.nan
            rows.append({"class": name, "precision": precision, "recall": recall, "f1": f1, "images": true})
        return rows

    def as_json(self) -> dict:
        """Everything, for JSON: what isn't known is None."""
        rows = [{key: _known(value) for key, value in row.items()} for row in self.per_class()]
        return {
            "images": self.count,
            "independent": self.count if self.independent is None else self.independent,
            "accuracy": _known(self.accuracy),
            "interval95": [_known(end) for end in self.interval],
            "per_class": rows,
            "confusion": self.confusion.tolist(),
        }

    def text(self) -> str:
        """A table of the classes, and the pairs that are confused most often."""
        low, high = self.interval
        width = min(24, max(5, *(len(name) for name in self.classes)))
        fewer = "" if self.independent in (None, self.count) else f", in groups that count as {self.independent:,}"
        lines = [f"accuracy {self.accuracy:.3f} (95% interval {low:.3f} to {high:.3f}; {self.count:,} images{fewer})"]
        lines.append(f"{'class':<{width}}  precision  recall  images")
        for row in self.per_class():
            lines.append(
                f"{row['class'][:width]:<{width}}  {_share(row['precision']):>9}  {_share(row['recall']):>6}  {row['images']:>6}"
            )
        off = self.confusion.clone().fill_diagonal_(0)
        for place in off.flatten().argsort(descending=True, stable=True)[:3].tolist():
            true, named = divmod(place, len(self.classes))
            if off[true, named]:
                lines.append(f"{off[true, named]} of {self.classes[true]} were called {self.classes[named]}")
        return "\n".join(lines)


def _known(value: float | int | str) -> float | int | str | None:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _share(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "-"
