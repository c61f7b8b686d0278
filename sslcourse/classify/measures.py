"""What a classifier gets right, class by class, with intervals that know how many pictures there were."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor

from sslcourse.data.imageset import ImageSet

MATRIX = 12  # classes, up to which the confusion matrix is shown in words


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
    models       how many were asked about each picture: all of their answers are in `confusion`, and make no more pictures
    """

    confusion: Tensor
    classes: tuple[str, ...]
    independent: int | None = None
    models: int = 1

    @classmethod
    def of(
        cls, predicted: Tensor, labels: Tensor, classes: tuple[str, ...], independent: int | None = None
    ) -> Measures:
        """predicted: int64 (N,) in [0, C), or (S, N) of S models; labels: int64 (N,) in [0, C)."""
        pairs = torch.bincount((labels * len(classes) + predicted).flatten(), minlength=len(classes) ** 2)
        models = 1 if predicted.dim() == 1 else len(predicted)
        return cls(pairs.view(len(classes), len(classes)), tuple(classes), independent, models)

    @property
    def count(self) -> int:
        return int(self.confusion.sum()) // self.models

    @property
    def accuracy(self) -> float:
        return int(self.confusion.diagonal().sum()) / int(self.confusion.sum()) if self.count else math.nan

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
            rows.append(
                {"class": name, "precision": precision, "recall": recall, "f1": f1, "images": true // self.models}
            )
        return rows

    def as_json(self) -> dict:
        """Everything, for JSON: what isn't known is None."""
        rows = [{key: _known(value) for key, value in row.items()} for row in self.per_class()]
        return {
            "images": self.count,
            "independent": self.count if self.independent is None else self.independent,
            "models": self.models,
            "accuracy": _known(self.accuracy),
            "interval95": [_known(end) for end in self.interval],
            "per_class": rows,
            "confusion": self.confusion.tolist(),
        }

    def text(self) -> str:
        """The accuracy with its interval, and `by_class`."""
        low, high = self.interval
        fewer = "" if self.independent in (None, self.count) else f", in groups that count as {self.independent:,}"
        first = f"accuracy {self.accuracy:.3f} (95% interval {low:.3f} to {high:.3f}; {self.count:,} images{fewer})"
        return f"{first}\n{self.by_class()}"

    def by_class(self) -> str:
        """A table of the classes, with the confusion matrix where they are few, and the pairs that are confused most often.

        The matrix has a row and a column for each class, in the same order.
        """
        width = min(24, max(5, *(len(name) for name in self.classes)))
        digits = max(4, len(str(int(self.confusion.max()))) + 2)  # of a column of the matrix
        few = len(self.classes) <= MATRIX
        matrix = [
            f"{c + 1:>3}{''.join(f'{n:>{digits}}' for n in row)}" for c, row in enumerate(self.confusion.tolist())
        ]
        head = f"    #{''.join(f'{c + 1:>{digits}}' for c in range(len(self.classes)))}" if few else ""
        lines = [
            f"{'class':<{width}}  precision  recall  images{head}{'  (columns: what it was called)' if few else ''}"
        ]
        for row, counts in zip(self.per_class(), matrix, strict=True):
            lines.append(
                f"{row['class'][:width]:<{width}}  {_share(row['precision']):>9}  {_share(row['recall']):>6}  {row['images']:>6}"
                + (f"  {counts}" if few else "")
            )
        return "\n".join([*lines, *self._confused()])

    def _confused(self) -> list[str]:
        """The three pairs that are confused most often, a line each."""
        lines, off = [], self.confusion.clone().fill_diagonal_(0)
        for place in off.flatten().argsort(descending=True, stable=True)[:3].tolist():
            true, named = divmod(place, len(self.classes))
            answers = int(self.confusion[true].sum())
            asked, called = ("", "called ") if self.models == 1 else (f"{answers} answers about ", "")
            if off[true, named]:
                lines.append(f"{off[true, named]} of {asked}{self.classes[true]} were {called}{self.classes[named]}")
        return lines


@dataclass(frozen=True)
class Answers:
    """What S models said of N labelled pictures, each of all of them.

    named        int64 (S, N) in [0, C)
    confidence   float (S, N): the probability of the class that was said, in [0, 1]
    labels       int64 (N,) in [0, C)
    classes      C names;  names: of the pictures, or None
    independent  as in `Measures`
    """

    named: Tensor
    confidence: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    names: tuple[str, ...] | None = None
    independent: int | None = None

    @classmethod
    def of(cls, scores: Sequence[Tensor], images: ImageSet, independent: int | None = None) -> Answers:
        """Of each model scores (N, C), 0 or more, of labelled images: what share of a row is its class's."""
        found = [each.max(dim=1) for each in scores]
        confidence = torch.stack([top.values / each.sum(dim=1) for top, each in zip(found, scores, strict=True)])
        named = torch.stack([top.indices for top in found])
        labels = images.require_labels().cpu()
        return cls(named, confidence, labels, images.classes, images.names, independent)

    @property
    def wrong(self) -> Tensor:
        """Which of the pictures some model took for another class: bool (N,)."""
        return (self.named != self.labels).any(dim=0)

    @property
    def measures(self) -> Measures:
        return Measures.of(self.named, self.labels, self.classes, self.independent)


def _known(value: float | int | str) -> float | int | str | None:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _share(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "-"
