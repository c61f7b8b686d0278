"""A classifier from a backbone and a few labelled pictures, of which none is wasted.

Every labelled picture is used twice, and never at once: the final model learns from all of them, and what is said of it
comes from models that learned without the picture they are asked about (`folds`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch.nn import functional

from sslcourse import device as devices
from sslcourse import evaluate, record, train
from sslcourse.backbones import Backbone
from sslcourse.classify import calibration
from sslcourse.classify.folds import FOLDS, Folds
from sslcourse.classify.measures import Answers, Measures
from sslcourse.classify.model import LinearHead, Model, NeighbourHead
from sslcourse.data.imageset import ImageSet
from sslcourse.data.splits import Splits
from sslcourse.errors import CourseError
from sslcourse.summary import Summary, of_accuracies

MISSING = -30.0  # logit of a class that none of the pictures learned from is of
Scorer = Callable[[Tensor], Tensor]  # numbers of pictures (M,) -> logits (M, C)


@dataclass(frozen=True)
class Fitted:
    """A model, and what was measured of models like it that hadn't seen the pictures.

    logits     float32 (N, C), each picture's from the fold that didn't learn from it, before calibration
    measures   of these logits
    error      expected calibration error (without, with temperature) of such logits of models with the final model's
               setting, to whose scale a temperature belongs; that of a fold's pictures comes from the other folds
    setting    the penalty, number of neighbours or learning rate that the final model has
    folds      how many there were
    """

    model: Model
    logits: Tensor
    measures: Measures
    error: tuple[float, float]
    setting: float | int
    folds: int

    def answers(self, images: ImageSet) -> Answers:
        """What the folds said of the images that it was fitted to."""
        shares = (self.logits / self.model.temperature).softmax(dim=1)  # (N, C)
        return Answers.of([shares], images, self.measures.independent)


def fit(
    backbone: Backbone,
    images: ImageSet,
    *,
    protocol: str = "finetune",
    stage: int | str | None = None,
    folds: int = FOLDS,
    groups: Tensor | None = None,
    settings: Sequence[float] | None = None,
    config: train.TrainConfig = train.FINETUNE,
    seed: int = 0,
    device: str | torch.device = "auto",
    progress: bool = False,
) -> Fitted:
    """A classifier from labelled images, measured by cross-validation; the backbone is left as it was.

    protocol   "finetune" tunes a copy of the backbone and a linear head, "linear" fits the head alone on frozen
               features, "knn" keeps the features of all pictures
    stage      where features are read: 1..4, "all", or "class" (a transformer's class token). Default: for frozen features
               what the backbone's record says, or "all"; 4 for fine-tuning, which knows no other
    groups     int64 (N,): pictures of one group (one patient, one scene) are never on both sides, beside those that
               `images.groups` and identical pixels put together
    settings   what is chosen among within the folds: penalties (C), numbers of neighbours, or learning rates. One alone
               is taken as it is. Default: the probes' own lists, and the rate of `config`
    seed       decides the folds, and order, views and head of fine-tuning

    A class with fewer pictures than folds lowers their number. Raises CourseError without labels, with one class, for a
    class with fewer than two pictures, and for features that aren't finite.
    """
    evaluate.refuse_unknown_protocol(protocol)
    device = devices.pick_device(device)
    stage, cut = _stage(stage, protocol, backbone), Folds.of(images, folds, groups, seed)
    learner = _learner(backbone, images, protocol, stage, dataclasses.replace(config, seed=seed), device, progress)
    settings = tuple(settings or learner.settings)
    logits, fold_of = cut.judged(learner, settings)
    everything = torch.arange(len(images))
    setting = cut.chosen(learner, settings, everything)
    alike = logits if len(settings) == 1 else cut.judged(learner, (setting,))[0]  # another penalty, another scale
    made = learner.make(everything, setting)
    model = Model(
        made.backbone, made.head, images.classes, image_size=images.size[0], stage=stage,
        temperature=calibration.fit_temperature(alike, cut.labels),
    )  # fmt: skip
    measures = Measures.of(logits.argmax(dim=1), cut.labels, images.classes, cut.independent)
    error = _calibration_error(alike, cut.labels, fold_of)
    return Fitted(model.eval(), logits, measures, error, setting, cut.count)


def label_efficiency(
    backbone: Backbone | Callable[[int], Backbone],
    images: ImageSet,
    budgets: Sequence[int | None] = (None,),
    *,
    protocol: str = "linear",
    stage: int | str | None = None,
    folds: int = FOLDS,
    seeds: int | Iterable[int] = 5,
    settings: Sequence[float] | None = None,
    config: train.TrainConfig = train.FINETUNE,
    device: str | torch.device = "auto",
    progress: bool = False,
    seen: Callable[[int | None, Tensor], None] | None = None,
) -> dict[int | None, Summary]:
    """Accuracy against labels per class by cross-validation, a value per seed: {budget: how sure its mean is}.

    `evaluate.label_efficiency` keeps a validation and a test split aside; here every labelled picture is tested once per
    seed, so that the interval knows as many test images as there are labels. Pictures that belong together count as fewer
    (`ImageSet.independent`).

    budgets   labels of each class that a model learns from; None: all that the other folds have
    seeds     how many, or which: a seed draws the folds and the few, and the weights where `backbone` is a function of it
    seen      is given what each measurement counted: labels per class, and probabilities (N, C) of all the images

    The other arguments are those of `fit`. The models of a seed share most of the pictures that they learn from, which
    the interval doesn't know (Bengio and Grandvalet, 2004). Raises CourseError as `fit` does.
    """
    evaluate.refuse_unknown_protocol(protocol)
    if not budgets:
        raise CourseError("at least one number of labels per class is needed; give one or more.")
    device, values, learner = devices.pick_device(device), {budget: [] for budget in budgets}, None
    first = Folds.of(images, folds)
    for seed in evaluate.seeds_of(seeds):
        cut = dataclasses.replace(first, seed=seed)
        network = backbone if isinstance(backbone, Backbone) else backbone(seed)
        if learner is None or protocol == "finetune" or network is not backbone:
            read_at, seeded = _stage(stage, protocol, network), dataclasses.replace(config, seed=seed)
            learner = _learner(network, images, protocol, read_at, seeded, device, progress)
        for budget in values:
            logits, _ = cut.judged(learner, tuple(settings or learner.settings), budget)
            values[budget].append((logits.argmax(dim=1) == cut.labels).double().mean().item())
            if seen is not None:
                seen(budget, logits.double().softmax(dim=1))
    return {budget: of_accuracies(found, first.independent) for budget, found in values.items()}


def together(splits: Splits, *, test: bool = True) -> ImageSet:
    """All labelled images of train and val, and with `test` of test, in one set: folds do the measuring.

    Raises CourseError where there are no labels.
    """
    chosen = (splits.train, splits.val, splits.test) if test else (splits.train, splits.val)
    sets = [part for part in chosen if part is not None and len(part)]
    labelled = [part for part in sets if part.labels is not None]
    if not labelled:
        raise CourseError(f"{splits.name or 'this data'} has no labels; name them with --labels, or by class folders.")
    images, labels = torch.cat([s.images for s in labelled]), torch.cat([s.labels for s in labelled])
    grouped = all(part.groups is not None for part in labelled)
    groups = torch.cat([part.groups for part in labelled]) if grouped else None
    named = all(part.names is not None for part in labelled)
    names = [name for part in labelled for name in part.names] if named else None
    return ImageSet(images, labels, classes=splits.classes, name=splits.name or "images", groups=groups, names=names)


def _calibration_error(logits: Tensor, labels: Tensor, fold_of: Tensor) -> tuple[float, float]:
    """Expected calibration error without and with temperature, each fold's temperature from the other folds."""
    scaled = logits.clone()
    for fold in fold_of.unique():
        here = fold_of == fold
        scaled[here] /= calibration.fit_temperature(logits[~here], labels[~here])
    error = calibration.expected_calibration_error
    return error(logits.softmax(dim=1), labels), error(scaled.softmax(dim=1), labels)


# --- what is made of some of the pictures ------------------------------------------------------------------------


@dataclass(frozen=True)
class _Made:
    """A backbone with its head, and the logits of any of the pictures."""

    backbone: Backbone
    head: nn.Module
    scores: Scorer


class _Frozen:
    """On features (N, d), computed once."""

    settings: tuple

    def __init__(self, backbone: Backbone, features: Tensor, labels: Tensor, classes: int):
        self.backbone, self.features, self.labels, self.classes = backbone, features, labels, classes

    def make(self, chosen: Tensor, setting: Any) -> _Made:
        head = self.head(self.features[chosen], self.labels[chosen], setting).eval()

        @torch.no_grad()
        def scores(numbers: Tensor) -> Tensor:
            return head(self.features[numbers])

        return _Made(self.backbone, head, scores)

    def head(self, features: Tensor, labels: Tensor, setting: Any) -> nn.Module:
        raise NotImplementedError


class _Linear(_Frozen):
    """Logistic regression on standardized features, the standardization folded into the weights; setting: C."""

    settings = evaluate.PENALTIES

    def head(self, features: Tensor, labels: Tensor, setting: float) -> LinearHead:
        there = labels.unique()  # of a few pictures in groups, a class may be missing; its score is then low
        head = LinearHead(features.shape[1], self.classes)
        if len(there) < 2:
            with torch.no_grad():
                head.bias[there] += -MISSING
            return head
        scaler = StandardScaler().fit(features.double().numpy())
        with threadpool_limits(1, user_api="blas"):  # matrices this small: several threads wait for each other
            fitted = LogisticRegression(C=setting, max_iter=1000)
            fitted.fit(scaler.transform(features.double().numpy()), labels.numpy())
        weight, bias = fitted.coef_, fitted.intercept_  # (C, d), (C,)
        if len(fitted.classes_) == 2:  # one row: the log of the odds, which two rows share between them
            weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        weight = weight / scaler.scale_
        bias = bias - weight @ scaler.mean_
        with torch.no_grad():
            head.bias.fill_(MISSING)
            head.weight[there], head.bias[there] = (torch.from_numpy(part).float() for part in (weight, bias))
        return head


class _Neighbours(_Frozen):
    """The features themselves; setting: how many neighbours vote."""

    settings = evaluate.NEIGHBOURS

    def head(self, features: Tensor, labels: Tensor, setting: int) -> NeighbourHead:
        head = NeighbourHead(features.shape[1], self.classes, len(features), setting)
        head.bank.copy_(functional.normalize(features, dim=1))
        head.labels.copy_(labels)
        return head


class _FineTuning:
    """The whole network; setting: the learning rate."""

    def __init__(
        self, backbone: Backbone, images: ImageSet, config: train.TrainConfig, device: torch.device, progress: bool
    ):
        self.backbone, self.images, self.config, self.device, self.progress = backbone, images, config, device, progress
        self.settings = (config.learning_rate,)

    def make(self, chosen: Tensor, setting: float) -> _Made:
        config = dataclasses.replace(self.config, learning_rate=setting)
        classifier, _ = train.finetune(
            self.backbone, self.images.select(chosen), config, device=self.device, progress=self.progress
        )
        classifier.cpu()
        head = LinearHead(classifier.backbone.dim, len(self.images.classes))
        head.load_state_dict({"weight": classifier.head.weight.detach(), "bias": classifier.head.bias.detach()})
        model = Model(classifier.backbone, head, self.images.classes, image_size=self.images.size[0])
        return _Made(
            classifier.backbone, head, lambda numbers: model.logits(self.images.images[numbers], device=self.device)
        )


def _learner(
    backbone: Backbone,
    images: ImageSet,
    protocol: str,
    stage: int | str,
    config: train.TrainConfig,
    device: torch.device,
    progress: bool,
) -> _Frozen | _FineTuning:
    """What learns from some of the images by a protocol."""
    if protocol == "finetune":
        return _FineTuning(backbone, images, config, device, progress)
    kind, labels = _Linear if protocol == "linear" else _Neighbours, images.require_labels().cpu()
    return kind(backbone, _features(backbone, images, stage, device), labels, len(images.classes))


def _features(backbone: Backbone, images: ImageSet, stage: int | str, device: torch.device) -> Tensor:
    """float32 (N, d) on the CPU."""
    features = evaluate.extract(backbone, images, stage=stage, device=device)
    if not bool(torch.isfinite(features).all()):
        bad = int((~torch.isfinite(features)).any(dim=1).sum())
        raise CourseError(
            f"the features of {bad} of {len(features)} images aren't finite; take a backbone whose training went well."
        )
    return features


def _stage(stage: int | str | None, protocol: str, backbone: Backbone) -> int | str:
    if stage is None:
        return 4 if protocol == "finetune" else record.of(backbone).stage or "all"
    backbone.refuse_stage(stage)
    if protocol == "finetune" and stage != 4:
        raise CourseError(
            f"fine-tuning reads the last stage, 4, and {stage!r} was asked for; take linear or knn for it."
        )
    return stage
