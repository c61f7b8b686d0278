"""Probabilities that mean what they say: of all pictures called with 80%, about 80% are right."""

from __future__ import annotations

import math

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional

from sslcourse.errors import CourseError

RANGE = (0.02, 50.0)  # temperatures that are looked among
BINS = 15  # of the expected calibration error, as in Guo et al.


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The number T > 0 for which softmax(logits / T) fits the labels best (Guo et al., 2017, 1706.04599).

    logits (N, C) of pictures that the classifier wasn't trained on, labels int64 (N,). T above 1 softens. Which class
    is named doesn't change. A few pictures that are all right would ask for T = 0, and so for certainty; so the targets
    are those of Platt (1999): the labels, and one more picture of each class at every picture, (N + 1) / (N + C) for
    the label and 1 / (N + C) for each other class. Raises CourseError without pictures, and for logits that aren't finite.
    """
    _refuse_unfit(logits, labels)
    count, classes = logits.shape
    target = torch.full((count, classes), 1 / (count + classes), dtype=torch.float64)  # (N, C), rows sum to 1
    target[torch.arange(count), labels] = (count + 1) / (count + classes)
    scores = logits.double()

    def loss(log_temperature: float) -> float:
        return functional.cross_entropy(scores / math.exp(log_temperature), target).item()

    low, high = map(math.log, RANGE)  # the loss is convex in 1 / T, so that there is one minimum
    return math.exp(minimize_scalar(loss, bounds=(low, high), method="bounded").x)


def expected_calibration_error(probabilities: Tensor, labels: Tensor, bins: int = BINS) -> float:
    """Mean distance of confidence and accuracy, in [0, 1]: probabilities (N, C), labels int64 (N,); 0 is best.

    Pictures are grouped by the probability of the class that is named, in `bins` of equal width; each bin's distance
    counts by its share of the pictures (Naeini et al., 2015; Guo et al., 2017, 1706.04599). With few pictures even a
    perfect classifier doesn't reach 0: a bin of n pictures is off by about sqrt(p (1 - p) / n).
    """
    _refuse_unfit(probabilities, labels)
    confidence, named = probabilities.double().max(dim=1)  # (N,) each
    right = (named == labels).double()
    place = (confidence * bins).ceil().long().clamp(1, bins) - 1  # bin b holds (b / bins, (b + 1) / bins]
    distance = torch.zeros(bins, dtype=torch.float64).index_add_(0, place, confidence - right)  # (bins,), times n
    return distance.abs().sum().item() / len(labels)


def _refuse_unfit(scores: Tensor, labels: Tensor) -> None:
    if scores.dim() != 2 or labels.shape != scores.shape[:1] or len(labels) == 0:
        raise CourseError(
            f"calibration takes scores (N, C) and labels (N,) of at least one picture, and got {tuple(scores.shape)} "
            f"and {tuple(labels.shape)}."
        )
    if not bool(torch.isfinite(scores).all()):
        bad = int((~torch.isfinite(scores)).any(dim=1).sum())
        raise CourseError(
            f"the scores of {bad} of {len(scores)} pictures aren't finite; train again with a lower learning rate."
        )
