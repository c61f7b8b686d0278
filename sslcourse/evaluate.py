"""What a backbone is worth: kNN, linear probe, fine-tuning, with few labels, over seeds, with intervals.

The protocol everywhere: labelled images are drawn from `train`, choices are made on `val`, and `test` is touched once.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import stats
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import Tensor
from tqdm.auto import tqdm

from sslcourse import augment, train
from sslcourse import device as devices
from sslcourse.backbones import Backbone
from sslcourse.data.imageset import ImageSet
from sslcourse.errors import CourseError, suggest

PROTOCOLS = ("knn", "linear", "finetune")
PENALTIES = (0.001, 0.01, 0.1, 1.0, 10.0)  # inverse strengths C of the probe's L2 penalty, chosen among on validation
NEIGHBOURS = (1, 5, 20)  # k, chosen among on validation
STAGES = (1, 2, 3, 4, "all")  # where features are read


# --- features ----------------------------------------------------------------------------------------------------


@torch.no_grad()
def extract(
    backbone: Backbone,
    images: ImageSet | Tensor,
    *,
    stage: int | str = "all",
    device: str | torch.device = "auto",
    batch_size: int = 512,
    progress: bool = False,
) -> Tensor:
    """Features of uint8 images: float32 (N, d) on the CPU. The backbone and its batch-norm statistics stay unchanged.

    stage   1..4 for the average over positions of that stage's map, (N, C_stage); 4 is the backbone's output.
            "all" puts the four side by side, (N, C_1 + C_2 + C_3 + C_4): the last stage serves the pretext task, and
            what a class needs may lie before it (Kolesnikov et al., 2019, 1901.09005, compare layers; Caron et al.,
            2021, 2104.14294, probe the last four together)
    """
    if stage not in STAGES:
        raise CourseError(f"stage must be one of {', '.join(map(str, STAGES))}, and is {stage!r}.")
    pixels = images.images if isinstance(images, ImageSet) else images
    if len(pixels) == 0:
        raise CourseError("there are no images to take features from; give at least one.")
    device = devices.pick_device(device)
    mode = backbone.training
    backbone.to(device, memory_format=devices.memory_format(device)).eval()
    parts = []
    for part in tqdm(pixels.split(batch_size), desc="features", disable=not progress, leave=False, delay=1.0):
        x = augment.to_float(part.to(device))
        means = [m.mean(dim=(2, 3)) for m in backbone.stages(x)]  # (n, C_stage) each
        z = torch.cat(means, dim=1) if stage == "all" else means[stage - 1]
        parts.append(z.float().cpu())
    backbone.train(mode)
    return torch.cat(parts)


# --- protocols on features ---------------------------------------------------------------------------------------


def knn_scores(
    bank: Tensor, labels: Tensor, queries: Tensor, *, classes: int, k: int = 20, temperature: float = 0.1
) -> Tensor:
    """Weighted k-nearest-neighbour votes (Wu et al., 2018, 1805.01978): queries (M, d) -> scores (M, classes).

    bank (N, d) holds the labelled features, labels (N,) their classes. Similarity is the cosine; each of the k nearest
    votes for its class with weight exp(similarity / temperature).
    """
    k = min(k, len(bank))
    similarity = _normalize(queries) @ _normalize(bank).T  # (M, N)
    nearest, index = similarity.topk(k, dim=1)  # (M, k)
    weights = ((nearest - nearest[:, :1]) / temperature).exp()  # (M, k), the nearest weighs 1: no overflow
    return torch.zeros(len(queries), classes).scatter_add_(1, labels[index], weights)


def _normalize(features: Tensor) -> Tensor:
    return torch.nn.functional.normalize(features.float(), dim=1)


class LinearProbe:
    """Logistic regression on standardized, frozen features; the L2 penalty is chosen on validation."""

    def __init__(self, penalties: Sequence[float] = PENALTIES):
        self.penalties = penalties

    def fit(self, features: Tensor, labels: Tensor, val_features: Tensor, val_labels: Tensor) -> LinearProbe:
        """features (N, d) and labels (N,) to learn from; the validation pair to choose the penalty on."""
        self.scaler = StandardScaler().fit(features.double().numpy())  # in float32 the solver may stop short
        x, x_val = (self.scaler.transform(f.double().numpy()) for f in (features, val_features))
        best = -1.0
        with threadpool_limits(1, user_api="blas"):  # matrices this small: several threads wait for each other
            for penalty in self.penalties:
                model = LogisticRegression(C=penalty, max_iter=1000).fit(x, labels.numpy())
                score = model.score(x_val, val_labels.numpy())
                if score > best:  # at a tie the stronger penalty stays
                    best, self.penalty, self.model = score, penalty, model
        return self

    def predict(self, features: Tensor) -> Tensor:
        """features (M, d) -> classes int64 (M,)."""
        return torch.from_numpy(self.model.predict(self.scaler.transform(features.double().numpy())))


# --- one measurement ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Features:
    """The features of the three labelled splits under one backbone: computed once, probed many times."""

    train: Tensor  # (N, d)
    val: Tensor
    test: Tensor

    @classmethod
    def of(cls, backbone: Backbone, splits: Any, **options: Any) -> Features:
        return cls(*(extract(backbone, part, **options) for part in (splits.train, splits.val, splits.test)))


def probe_accuracy(
    features: Features, splits: Any, labels_per_class: int, seed: int, protocol: str = "linear"
) -> float:
    """Test accuracy, in [0, 1], of a linear probe or kNN on `labels_per_class` labelled images drawn by `seed`."""
    refuse_unlabelled(splits)
    chosen = splits.train.indices_per_class(labels_per_class, seed)  # (C * K,)
    bank, labels = features.train[chosen], splits.train.labels[chosen]
    if protocol == "linear":
        predicted = LinearProbe().fit(bank, labels, features.val, splits.val.labels).predict(features.test)
    else:
        classes = len(splits.train.classes)
        val = {k: knn_scores(bank, labels, features.val, classes=classes, k=k).argmax(1) for k in NEIGHBOURS}
        k = max(NEIGHBOURS, key=lambda k: (val[k] == splits.val.labels).float().mean().item())
        predicted = knn_scores(bank, labels, features.test, classes=classes, k=k).argmax(1)
    return (predicted == splits.test.labels).float().mean().item()


def finetune_accuracy(
    backbone: Backbone,
    splits: Any,
    labels_per_class: int,
    seed: int,
    config: train.TrainConfig = train.FINETUNE,
    rates: Sequence[float] = (),
    **options: Any,
) -> float:
    """Test accuracy, in [0, 1], after fine-tuning a copy of the whole backbone on few labels drawn by `seed`.

    With several learning `rates` in place of the one in `config`, the classifier that is best on validation is tested.
    """
    refuse_unlabelled(splits)
    few = splits.train.sample_per_class(labels_per_class, seed)
    best, chosen = -1.0, None
    for rate in rates or (config.learning_rate,):
        trial = dataclasses.replace(config, seed=seed, learning_rate=rate)
        classifier, _ = train.finetune(backbone, few, trial, **options)
        score = _accuracy(classifier, splits.val) if len(rates) > 1 else 0.0
        if score > best:
            best, chosen = score, classifier
    return _accuracy(chosen, splits.test)


def _accuracy(classifier: train.Classifier, images: ImageSet) -> float:
    return (classifier.predict(images) == images.labels).float().mean().item()


def refuse_unknown_protocol(protocol: str) -> None:
    if protocol not in PROTOCOLS:
        raise CourseError(
            f"protocol {protocol!r} is unknown{suggest(protocol, PROTOCOLS)}; choose one of {', '.join(PROTOCOLS)}."
        )


def refuse_unlabelled(splits: Any) -> None:
    """Evaluation needs labels in all three splits and at least two classes."""
    for name in ("train", "val", "test"):
        part = getattr(splits, name)
        if part is None or len(part) == 0 or part.labels is None:
            raise CourseError(
                f"measuring a backbone needs labelled images in train, val and test, and {name} has none; "
                "sort some images into one folder per class."
            )


# --- over seeds --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Summary:
    """Values over seeds: mean, standard deviation (n - 1), and the half-width of the 95% interval of the mean (t)."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return float(np.mean(self.values))

    @property
    def std(self) -> float:
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else math.nan

    @property
    def half_width(self) -> float:
        n = len(self.values)
        return float(stats.t.ppf(0.975, n - 1) * self.std / math.sqrt(n)) if n > 1 else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        return self.mean - self.half_width, self.mean + self.half_width

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {self.std:.3f}" if len(self.values) > 1 else f"{self.mean:.3f}"


def paired_difference(a: Sequence[float], b: Sequence[float]) -> Summary:
    """a - b seed by seed: the same seed drew the same labels for both, so that their common luck cancels."""
    if len(a) != len(b):
        raise CourseError(f"a paired difference needs as many values on both sides, and got {len(a)} and {len(b)}.")
    return Summary(tuple(x - y for x, y in zip(a, b, strict=True)))


def label_efficiency(
    backbone: Backbone | Callable[[int], Backbone],
    splits: Any,
    budgets: Sequence[int] = (1, 2, 5, 10, 20, 50, 100),
    *,
    protocol: str = "linear",
    seeds: int | Iterable[int] = 5,
    config: train.TrainConfig = train.FINETUNE,
    rates: Sequence[float] = (),
    device: str | torch.device = "auto",
    progress: bool = False,
) -> dict[int, Summary]:
    """Test accuracy against labels per class: {labels_per_class: a value per seed}.

    protocol   "knn" or "linear" on frozen features, or "finetune" for the whole network (with `config`; of
               several learning `rates`, each seed takes the one that is best on validation)
    seeds      how many, or which. A seed draws the labelled images; where `backbone` is a function of the seed
               (random and from-scratch baselines), it draws the weights too

    Raises CourseError for an unknown protocol, more labels than there are, or a set without labels.
    """
    refuse_unknown_protocol(protocol)
    refuse_unlabelled(splits)
    for budget in budgets:
        splits.train.indices_per_class(budget, 0)  # asks for too much? Say so before computing anything
    seeds = list(range(seeds) if isinstance(seeds, int) else seeds)
    if len(seeds) < 1:
        raise CourseError("at least one seed is needed to measure anything; ask for one or more.")
    options = {"device": device, "progress": progress}
    values: dict[int, list[float]] = {budget: [] for budget in budgets}
    features = None
    with tqdm(total=len(seeds) * len(budgets), desc=protocol, disable=not progress, leave=False, delay=1.0) as bar:
        for seed in seeds:
            network = backbone if isinstance(backbone, Backbone) else backbone(seed)
            if protocol != "finetune" and (features is None or network is not backbone):
                features = Features.of(network, splits, **options)
            for budget in budgets:
                if protocol == "finetune":
                    value = finetune_accuracy(network, splits, budget, seed, config, rates, **options)
                else:
                    value = probe_accuracy(features, splits, budget, seed, protocol)
                values[budget].append(value)
                bar.update()
    return {budget: Summary(tuple(accuracies)) for budget, accuracies in values.items()}


def evaluate(
    backbone: Backbone | Callable[[int], Backbone], splits: Any, *, labels_per_class: int = 10, **options: Any
) -> Summary:
    """Test accuracy with one number of labels per class, a value per seed; `options` are `label_efficiency`'s."""
    return label_efficiency(backbone, splits, (labels_per_class,), **options)[labels_per_class]


# --- what was kept, not only how well ----------------------------------------------------------------------------


def factor_probe(features: Features, splits: Any) -> dict[str, dict[str, float]]:
    """How much of each known factor of the images a linear model reads from frozen features.

    Returns {factor: {"score", "chance"}}. A category's score is its test accuracy and its chance the share of the most
    frequent value; a quantity's score is R² on test, and its chance 0. Penalties are chosen on validation.
    """
    result = {}
    for name, values in splits.train.factors.items():
        if values.is_floating_point():
            result[name] = {"score": _ridge_score(features, splits, name), "chance": 0.0}
        elif len(values.unique()) > 1:
            val, test = splits.val.factors[name], splits.test.factors[name]
            predicted = LinearProbe((0.01, 0.1)).fit(features.train, values, features.val, val).predict(features.test)
            chance = torch.bincount(test).max().item() / len(test)
            result[name] = {"score": (predicted == test).float().mean().item(), "chance": chance}
    return result


def _ridge_score(features: Features, splits: Any, name: str) -> float:
    scaler = StandardScaler().fit(features.train.numpy())
    x, x_val, x_test = (scaler.transform(f.numpy()) for f in (features.train, features.val, features.test))
    y, y_val, y_test = (getattr(splits, part).factors[name].numpy() for part in ("train", "val", "test"))
    if np.ptp(y) == 0:
        return 0.0
    models = [Ridge(alpha).fit(x, y) for alpha in (1.0, 10.0, 100.0, 1000.0)]
    return float(max(models, key=lambda model: model.score(x_val, y_val)).score(x_test, y_test))
