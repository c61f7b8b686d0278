"""What a backbone is worth: kNN, linear probe, fine-tuning, with few labels, over seeds, with intervals.

The protocol everywhere: labelled images are drawn from `train`, choices are made on `val`, and `test` is touched once.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import Tensor
from tqdm.auto import tqdm

from sslcourse import augment, record, train
from sslcourse import device as devices
from sslcourse.backbones import Backbone
from sslcourse.data.imageset import ImageSet
from sslcourse.data.splits import Splits
from sslcourse.errors import CourseError, one_of, suggest, whole_number
from sslcourse.features import checked_features, checked_labels, in_batches
from sslcourse.summary import Summary, of_accuracies, paired_difference  # noqa: F401 (lessons take them from here)

PROTOCOLS = ("knn", "linear", "finetune")
PENALTIES = (0.001, 0.01, 0.1, 1.0, 10.0)  # inverse strengths C of the probe's L2 penalty, chosen among on validation
NEIGHBOURS = (1, 5, 20)  # k, chosen among on validation

Model = TypeVar("Model")


# --- features ----------------------------------------------------------------------------------------------------


@torch.no_grad()
def extract(
    backbone: Backbone,
    images: ImageSet | Tensor,
    *,
    stage: int | str = "all",
    device: str | torch.device = "auto",
    batch_size: int | None = None,
    progress: bool = False,
) -> Tensor:
    """Features of uint8 images: float32 (N, d) on the CPU. The backbone stays where and as it was.

    stage   1..4 for the average over positions of that stage's map, (N, C_stage); 4 is the backbone's output.
            "all" puts the four side by side, (N, C_1 + C_2 + C_3 + C_4): the last stage serves the pretext task, and
            what a class needs may lie before it (Kolesnikov et al., 2019, 1901.09005, compare layers; Caron et al.,
            2021, 2104.14294, probe the last four together). "class" is a transformer's class token, (N, d)
    batch_size   images at a time; by default `features.batch_size` estimates how many
    """
    backbone.refuse_stage(stage)
    pixels = images.images if isinstance(images, ImageSet) else images
    if len(pixels) == 0:
        raise CourseError("there are no images to take features from; give at least one.")
    device, parts = devices.pick_device(device), []
    with devices.on(device, backbone), devices.evaluating(backbone):
        batches = in_batches(backbone, pixels, batch_size)
        for part in tqdm(batches, desc="features", disable=not progress, leave=False, delay=1.0):
            parts.append(backbone.features(augment.to_float(part.to(device)), stage).float().cpu())
    return torch.cat(parts)


# --- protocols on features ---------------------------------------------------------------------------------------


def knn_scores(
    bank: Tensor, labels: Tensor, queries: Tensor, *, classes: int, k: int = 20, temperature: float = 0.1
) -> Tensor:
    """Weighted k-nearest-neighbour votes (Wu et al., 2018, 1805.01978): queries (M, d) -> scores (M, classes).

    bank (N, d) holds the labelled features, labels (N,) their classes. Similarity is the cosine; each of the k nearest
    votes for its class with weight exp(similarity / temperature); a k larger than N is N.

    Raises CourseError for features that aren't finite or don't fit together, labels outside 0..classes - 1, and a
    temperature that isn't above 0.
    """
    k, classes = whole_number("k", k), whole_number("classes", classes)
    bank = checked_features(bank, "the labelled features")
    queries = checked_features(queries, "the features that are asked about", width=bank.shape[1])
    labels = checked_labels(labels, len(bank), classes)
    if not (math.isfinite(temperature) and temperature > 0):
        raise CourseError(f"the temperature must be a finite number above 0, and is {temperature!r}.")
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
        """features (N, d) and labels (N,) to learn from; the validation pair to choose the penalty on.

        Raises CourseError for features that aren't finite or don't fit together, and for labels of one class alone.
        """
        features = checked_features(features)
        val_features = checked_features(val_features, "the validation features", width=features.shape[1])
        labels, val_labels = checked_labels(labels, len(features)), checked_labels(val_labels, len(val_features))
        if len(labels.unique()) < 2:
            raise CourseError(
                f"a probe tells classes apart, and all {len(labels)} labels are {int(labels[0])}; give images of two "
                "classes or more."
            )
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
        x = self._standardized(features)
        return torch.from_numpy(self.model.predict(x))

    def probabilities(self, features: Tensor, classes: int) -> Tensor:
        """features (M, d) -> float64 (M, classes), 0 for a class that the probe has learned nothing of."""
        x = self._standardized(features)
        found = torch.from_numpy(self.model.predict_proba(x))
        return torch.zeros(len(found), classes, dtype=found.dtype).index_copy_(
            1, torch.from_numpy(self.model.classes_), found
        )

    def _standardized(self, features: Tensor) -> np.ndarray:
        if not hasattr(self, "model"):
            raise CourseError("this probe has learned nothing yet; call fit(features, labels, ...) first.")
        features = checked_features(features, width=self.scaler.n_features_in_)
        return self.scaler.transform(features.double().numpy())


# --- one measurement ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Features:
    """The features of the three labelled splits under one backbone: computed once, probed many times."""

    train: Tensor  # (N, d)
    val: Tensor
    test: Tensor

    @classmethod
    def of(cls, backbone: Backbone, splits: Splits, **options: Any) -> Features:
        return cls(*(extract(backbone, part, **options) for part in (splits.train, splits.val, splits.test)))

    def stage(self, stage: int, channels: Sequence[int]) -> Features:
        """The columns of one stage, from 1 on, of all the stages side by side; `channels` are the backbone's."""
        stage = whole_number("a stage", stage, 1, len(channels))
        last = sum(channels[:stage])
        columns = slice(last - channels[stage - 1], last)
        return Features(*(part[:, columns] for part in (self.train, self.val, self.test)))


def probe_accuracy(
    features: Features,
    splits: Splits,
    labels_per_class: int,
    seed: int,
    protocol: str = "linear",
    seen: Callable[[Tensor], None] | None = None,
) -> float:
    """Test accuracy, in [0, 1], of a linear probe or kNN on `labels_per_class` labelled images drawn by `seed`.

    seen   is given what was counted: how much speaks for each class of each test image, (N, C), 0 or more. Of a linear
           probe they are probabilities, of kNN the weights of the votes
    """
    if protocol not in ("linear", "knn"):
        raise CourseError(f"a probe is linear or knn, and {protocol!r} was asked for{suggest(protocol, PROTOCOLS)}.")
    refuse_unlabelled(splits)
    for name in ("train", "val", "test"):
        rows, images = len(getattr(features, name)), len(getattr(splits, name))
        if rows != images:
            raise CourseError(
                f"the features have {rows} rows for {name}, and there are {images} images; take them from these splits."
            )
    chosen = splits.train.indices_per_class(labels_per_class, seed)  # (C * K,)
    bank, labels = features.train[chosen], splits.train.labels[chosen]
    classes = len(splits.train.classes)
    if protocol == "linear":
        probe = LinearProbe().fit(bank, labels, features.val, splits.val.labels)
        return _share_right(probe.probabilities(features.test, classes), splits.test, seen)
    val = {k: knn_scores(bank, labels, features.val, classes=classes, k=k) for k in NEIGHBOURS}
    k = max(NEIGHBOURS, key=lambda k: _share_right(val[k], splits.val))
    return _share_right(knn_scores(bank, labels, features.test, classes=classes, k=k), splits.test, seen)


def probe_accuracies(
    features: Features | Sequence[Features],
    splits: Splits,
    labels_per_class: int = 10,
    protocol: str = "linear",
    seeds: int = 5,
) -> Summary:
    """`probe_accuracy` for each of the first seeds: of the same features, or of those in a sequence, a seed for each."""
    sets = [features] * len(seeds_of(seeds)) if isinstance(features, Features) else features
    values = (probe_accuracy(each, splits, labels_per_class, seed, protocol) for seed, each in enumerate(sets))
    return Summary(tuple(values))


def finetune_accuracy(
    backbone: Backbone,
    splits: Splits,
    labels_per_class: int,
    seed: int,
    config: train.TrainConfig = train.FINETUNE,
    rates: Sequence[float] = (),
    seen: Callable[[Tensor], None] | None = None,
    *,
    lengths: Sequence[int] = (),
    **options: Any,
) -> float:
    """Test accuracy, in [0, 1], after fine-tuning a copy of the whole backbone on few labels drawn by `seed`.

    With several learning `rates`, and `lengths` in steps, in place of those in `config`, each rate is tried with each
    length, and the classifier that is best on validation is tested.
    `seen` is given what was counted: probabilities of the classes of each test image, float64 (N, C).
    """
    refuse_unlabelled(splits)
    few = splits.train.sample_per_class(labels_per_class, seed)
    where = options.get("device", "auto")
    trials = itertools.product(rates or [config.learning_rate], lengths or [config.steps])
    classifier = best_of(
        [dataclasses.replace(config, seed=seed, learning_rate=rate, steps=steps) for rate, steps in trials],
        lambda trial: train.finetune(backbone, few, trial, **options)[0],
        lambda classifier: _share_right(classifier.logits(splits.val, device=where), splits.val),
    )
    return _share_right(classifier.logits(splits.test, device=where).double().softmax(dim=1), splits.test, seen)


def best_of_rates(
    trained: Callable[[train.TrainConfig], Model],
    score: Callable[[Model], float],
    config: train.TrainConfig,
    rates: Sequence[float] = (),
) -> Model:
    """The model that is best on validation, of one for each learning rate in `rates` in place of that of `config`."""
    return best_of([dataclasses.replace(config, learning_rate=rate) for rate in rates] or [config], trained, score)


def best_of(
    trials: Sequence[train.TrainConfig],
    trained: Callable[[train.TrainConfig], Model],
    score: Callable[[Model], float],
) -> Model:
    """The model that is best on validation, of one for each of one configuration or more.

    trained  a configuration to a model;  score: a model to how good it is on validation, larger is better; it isn't
             asked where there is no choice. A score that is NaN loses, and at a tie the first one stays
    """
    if len(trials) == 1:
        return trained(trials[0])
    best, chosen = -math.inf, None
    for trial in trials:
        model = trained(trial)
        found = score(model)
        if chosen is None or found > best:
            best, chosen = (-math.inf if math.isnan(found) else found), model
    return chosen


def _share_right(scores: Tensor, images: ImageSet, seen: Callable[[Tensor], None] | None = None) -> float:
    """scores (N, C): for which share of the images the highest one is that of their class."""
    if seen is not None:
        seen(scores)
    return (scores.argmax(dim=1) == images.labels.cpu()).float().mean().item()


def refuse_unknown_protocol(protocol: str) -> None:
    if protocol not in PROTOCOLS:
        raise CourseError(
            f"protocol {protocol!r} is unknown{suggest(protocol, PROTOCOLS)}; choose one of {', '.join(PROTOCOLS)}."
        )


def refuse_unlabelled(splits: Splits) -> None:
    """CourseError unless all three splits have labelled images, and train has images of at least two classes.

    Every class of train needs some: one that has none can't be learned, and is named.
    """
    for name in ("train", "val", "test"):
        part = getattr(splits, name)
        if part is None or part.labels is None:
            raise CourseError(
                f"measuring a backbone needs labelled images in train, val and test, and {name} has none; "
                "sort some images into one folder per class."
            )
        if len(part) == 0:
            raise CourseError(
                f"measuring a backbone needs labelled images in train, val and test, and {name} has none; "
                "with three different images or more of each class, every split gets some."
            )
    if len(splits.train.classes) < 2:
        raise CourseError(
            f"measuring a backbone needs two classes or more, and {splits.name or 'this set'} has "
            f"{', '.join(map(repr, splits.train.classes)) or 'none'} alone."
        )
    labels_at_most(splits)


def labels_at_most(splits: Splits) -> int:
    """How many labelled images every class of train has: its smallest class decides. CourseError where one has none."""
    counts = splits.train.counts()
    if empty := [name for name, count in counts.items() if count == 0]:
        raise CourseError(
            f"train has no image of {', '.join(map(repr, empty))}; give each class some, or leave such classes out."
        )
    return min(counts.values())


# --- over seeds --------------------------------------------------------------------------------------------------


def seeds_of(seeds: int | Iterable[int]) -> list[int]:
    """How many seeds, or which ones, as a list; CourseError for none."""
    if isinstance(seeds, Iterable) and not isinstance(seeds, str):
        seeds = [whole_number("a seed", seed, 0) for seed in seeds]
        if not seeds:
            raise CourseError("at least one seed is needed to measure anything; ask for one or more.")
        return seeds
    return list(range(whole_number("at least one seed is needed to measure anything: their number", seeds)))


def label_efficiency(
    backbone: Backbone | Callable[[int], Backbone],
    splits: Splits,
    budgets: Sequence[int] = (1, 2, 5, 10, 20, 50, 100),
    *,
    protocol: str = "linear",
    seeds: int | Iterable[int] = 5,
    config: train.TrainConfig = train.FINETUNE,
    rates: Sequence[float] = (),
    stage: int | str = "all",
    device: str | torch.device = "auto",
    progress: bool = False,
    seen: Callable[[int, Tensor], None] | None = None,
) -> dict[int, Summary]:
    """Test accuracy against labels per class: {labels_per_class: a value per seed, and how sure their mean is}.

    protocol   "knn" or "linear" on frozen features, or "finetune" for the whole network (with `config`; of
               several learning `rates`, each seed takes the one that is best on validation)
    seeds      how many, or which. A seed draws the labelled images; where `backbone` is a function of the seed
               (random and from-scratch baselines), it draws the weights too
    stage      where frozen features are read, as in `extract`; fine-tuning reads the last one
    seen       is given what each measurement counted: labels per class, and scores (N, C) of the test images, 0 or more

    Raises CourseError for an unknown protocol or stage, more labels than there are, or a set without labels.
    """
    refuse_unknown_protocol(protocol)
    refuse_unlabelled(splits)
    budgets = list(dict.fromkeys(whole_number("labels per class", budget) for budget in budgets))
    if not budgets:
        raise CourseError("at least one number of labels per class is needed; give one or more.")
    splits.train.indices_per_class(max(budgets), 0)  # asks for too much? Say so before computing anything
    if isinstance(backbone, Backbone):
        record.say_other_size(backbone, splits.size[1])
    seeds = seeds_of(seeds)
    options = {"device": device, "progress": progress}
    values: dict[int, list[float]] = {budget: [] for budget in budgets}
    features = None
    with tqdm(total=len(seeds) * len(budgets), desc=protocol, disable=not progress, leave=False, delay=1.0) as bar:
        for seed in seeds:
            network = backbone if isinstance(backbone, Backbone) else backbone(seed)
            if protocol != "finetune" and (features is None or network is not backbone):
                features = Features.of(network, splits, stage=stage, **options)
            for budget in budgets:
                told = None if seen is None else functools.partial(seen, budget)
                if protocol == "finetune":
                    value = finetune_accuracy(network, splits, budget, seed, config, rates, told, **options)
                else:
                    value = probe_accuracy(features, splits, budget, seed, protocol, told)
                values[budget].append(value)
                bar.update()
    return {budget: of_accuracies(accuracies, splits.test.independent) for budget, accuracies in values.items()}


def evaluate(
    backbone: Backbone | Callable[[int], Backbone], splits: Splits, *, labels_per_class: int = 10, **options: Any
) -> Summary:
    """Test accuracy with one number of labels per class, a value per seed; `options` are `label_efficiency`'s."""
    return label_efficiency(backbone, splits, (labels_per_class,), **options)[labels_per_class]


# --- what was kept, not only how well ----------------------------------------------------------------------------


def factor_probe(features: Features, splits: Splits, names: Sequence[str] = ()) -> dict[str, dict[str, float]]:
    """How much of each known factor of the images, or of those named, a linear model reads from frozen features.

    Returns {factor: {"score", "chance"}}. A category's score is its test accuracy and its chance the share of the most
    frequent value; a quantity's score is R² on test, and its chance 0. Penalties are chosen on validation.
    Raises CourseError for a name that isn't among `known_factors`.
    """
    result, known = {}, known_factors(splits)
    for name in [one_of("factor", name, known) for name in names] or known:
        values = splits.train.factors[name]
        if values.is_floating_point():
            result[name] = {"score": _ridge_score(features, splits, name), "chance": 0.0}
        else:
            val, test = splits.val.factors[name], splits.test.factors[name].cpu()
            predicted = LinearProbe((0.01, 0.1)).fit(features.train, values, features.val, val).predict(features.test)
            chance = torch.bincount(test).max().item() / len(test)
            result[name] = {"score": (predicted == test).float().mean().item(), "chance": chance}
    return result


def known_factors(splits: Splits) -> list[str]:
    """The factors of the images that can be probed: quantities, and categories of which train has two or more."""
    factors = splits.train.factors
    return [name for name, values in factors.items() if values.is_floating_point() or len(values.unique()) > 1]


def _ridge_score(features: Features, splits: Splits, name: str) -> float:
    parts = [checked_features(part) for part in (features.train, features.val, features.test)]
    scaler = StandardScaler().fit(parts[0].numpy())
    x, x_val, x_test = (scaler.transform(part.numpy()) for part in parts)
    y, y_val, y_test = (getattr(splits, part).factors[name].cpu().numpy() for part in ("train", "val", "test"))
    if np.ptp(y) == 0:
        return 0.0
    models = [Ridge(alpha).fit(x, y) for alpha in (1.0, 10.0, 100.0, 1000.0)]
    return float(max(models, key=lambda model: model.score(x_val, y_val)).score(x_test, y_test))
