"""A classifier from a backbone and a few labelled pictures, of which none is wasted.

Every labelled picture is used twice, and never at once: the final model learns from all of them, and what is said of it
comes from models that learned without the picture they are asked about (cross-validation; Stone, 1974). Choices, such as
a penalty, are made within the pictures that a fold learns from, and so are no part of what is measured.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch.nn import functional

from sslcourse import device as devices
from sslcourse import evaluate, train
from sslcourse.backbones import Backbone
from sslcourse.classify import calibration
from sslcourse.classify.measures import Measures
from sslcourse.classify.model import LinearHead, Model, NeighbourHead
from sslcourse.data import splits as partitions
from sslcourse.data.imageset import ImageSet
from sslcourse.data.splits import Splits
from sslcourse.errors import CourseError, whole_number

FOLDS = 5
Scorer = Callable[[Tensor], Tensor]  # numbers of pictures (M,) -> logits (M, C)


@dataclass(frozen=True)
class Fitted:
    """A model, and what was measured of models like it that hadn't seen the pictures.

    logits     float32 (N, C), each picture's from the fold that didn't learn from it, before calibration
    measures   of these logits
    error      expected calibration error of these logits: (without, with) temperature; the temperature of a fold's
               pictures comes from the other folds
    setting    the penalty, number of neighbours or learning rate that the final model has
    folds      how many there were
    """

    model: Model
    logits: Tensor
    measures: Measures
    error: tuple[float, float]
    setting: float | int
    folds: int


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
    stage      where features are read: 1..4, "all", or "class" (a transformer's class token). Default: "all" for frozen
               features, 4 for fine-tuning, which knows no other
    groups     int64 (N,): pictures of one group (one patient, one scene) are never on both sides. Identical pictures
               always are one group
    settings   what is chosen among within the folds: penalties (C), numbers of neighbours, or learning rates. One alone
               is taken as it is. Default: the probes' own lists, and the rate of `config`
    seed       decides the folds, and order, views and head of fine-tuning

    A class with fewer pictures than folds lowers their number. Raises CourseError without labels, with one class, for a
    class with fewer than two pictures, and for features that aren't finite.
    """
    evaluate.refuse_unknown_protocol(protocol)
    labels, device = images.require_labels().cpu(), devices.pick_device(device)
    stage = _stage(stage, protocol, backbone)
    groups = _groups(images, groups)
    folds = _possible(images, groups, folds)
    if protocol == "finetune":
        makers: _Maker = _FineTuning(backbone, images, dataclasses.replace(config, seed=seed), device, progress)
    else:
        kind = _Linear if protocol == "linear" else _Neighbours
        makers = kind(backbone, _features(backbone, images, stage, device), labels, len(images.classes))
    settings = tuple(settings or makers.settings)
    logits, fold_of = torch.zeros(len(images), len(images.classes)), torch.zeros(len(images), dtype=torch.int64)
    for number, (learned, held) in enumerate(parts(labels, groups, folds, seed)):
        setting = _chosen(makers, settings, learned, labels, groups, folds, seed)
        logits[held] = makers.make(learned, setting).scores(held)
        fold_of[held] = number
    everything = torch.arange(len(images))
    setting = _chosen(makers, settings, everything, labels, groups, folds, seed)
    made = makers.make(everything, setting)
    model = Model(
        made.backbone, made.head, images.classes, image_size=images.size[0], stage=stage,
        temperature=calibration.fit_temperature(logits, labels),
    )  # fmt: skip
    measures = Measures.of(logits.argmax(dim=1), labels, images.classes)
    return Fitted(model.eval(), logits, measures, _calibration_error(logits, labels, fold_of), setting, folds)


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
    return ImageSet(images, labels, classes=splits.classes, name=splits.name or "images")


def parts(labels: Tensor, groups: Tensor, folds: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """`folds` pairs (numbers to learn from, numbers held out), stratified by class, no group on both sides."""
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=devices.derive_seed(seed, "folds") % 2**32)
    for learned, held in splitter.split(np.zeros(len(labels)), labels.numpy(), groups.numpy()):
        yield torch.from_numpy(learned), torch.from_numpy(held)


def _chosen(
    makers: _Maker, settings: tuple, learned: Tensor, labels: Tensor, groups: Tensor, folds: int, seed: int
) -> Any:
    """The setting that is most often right on inner folds of the pictures `learned`; at a tie the first."""
    if len(settings) == 1:
        return settings[0]
    right = dict.fromkeys(settings, 0)
    for inner, held in parts(labels[learned], groups[learned], folds, seed):
        for setting in settings:
            named = makers.make(learned[inner], setting).scores(learned[held]).argmax(dim=1)
            right[setting] += int((named == labels[learned[held]]).sum())
    return max(settings, key=lambda setting: right[setting])


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


class _Maker:
    """Makes a classifier from some pictures, with a setting. settings: what is chosen among."""

    settings: tuple

    def make(self, chosen: Tensor, setting: Any) -> _Made:
        raise NotImplementedError


class _Frozen(_Maker):
    """On features (N, d), computed once."""

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
        scaler = StandardScaler().fit(features.double().numpy())
        with threadpool_limits(1, user_api="blas"):  # matrices this small: several threads wait for each other
            fitted = LogisticRegression(C=setting, max_iter=1000)
            fitted.fit(scaler.transform(features.double().numpy()), labels.numpy())
        weight, bias = fitted.coef_, fitted.intercept_  # (C, d), (C,)
        if len(fitted.classes_) == 2:  # one row: the log of the odds, which two rows share between them
            weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        weight = weight / scaler.scale_
        bias = bias - weight @ scaler.mean_
        head = LinearHead(features.shape[1], self.classes)
        with torch.no_grad():
            head.weight.copy_(torch.from_numpy(weight))
            head.bias.copy_(torch.from_numpy(bias))
        return head


class _Neighbours(_Frozen):
    """The features themselves; setting: how many neighbours vote."""

    settings = evaluate.NEIGHBOURS

    def head(self, features: Tensor, labels: Tensor, setting: int) -> NeighbourHead:
        head = NeighbourHead(features.shape[1], self.classes, len(features), setting)
        head.bank.copy_(functional.normalize(features, dim=1))
        head.labels.copy_(labels)
        return head


class _FineTuning(_Maker):
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
        return 4 if protocol == "finetune" else "all"
    backbone.refuse_stage(stage)
    if protocol == "finetune" and stage != 4:
        raise CourseError(
            f"fine-tuning reads the last stage, 4, and {stage!r} was asked for; take linear or knn for it."
        )
    return stage


def _groups(images: ImageSet, groups: Tensor | None) -> Tensor:
    """int64 (N,): what must stay together. Groups that share an identical picture become one."""
    alike = partitions.groups_of(partitions.fingerprints(images.images.cpu()))
    if groups is None:
        return alike
    groups = torch.as_tensor(groups)
    if groups.shape != (len(images),):
        raise CourseError(
            f"groups are one number per image, {len(images)} in all, and {tuple(groups.shape)} was given."
        )
    _, groups = groups.unique(return_inverse=True)
    for _ in range(len(images)):  # the smallest number that any chain of shared pictures reaches; two rounds as a rule
        least = torch.full((int(alike.max()) + 1,), len(images)).scatter_reduce(0, alike, groups, "amin")[alike]
        joined = torch.full((int(groups.max()) + 1,), len(images)).scatter_reduce(0, groups, least, "amin")[groups]
        if torch.equal(joined, groups):
            break
        groups = joined
    return groups


def _possible(images: ImageSet, groups: Tensor, folds: int) -> int:
    """How many folds there can be: as asked, or as many as the smallest class has groups."""
    whole_number("folds", folds, 2)
    if len(images.classes) < 2:
        raise CourseError(f"{images.name} has {len(images.classes)} class; telling apart needs two or more.")
    labels = images.require_labels().cpu()
    counts = {name: len(groups[labels == c].unique()) for c, name in enumerate(images.classes)}
    smallest = min(counts, key=lambda name: counts[name])
    if counts[smallest] < 4:  # two outer folds leave two pictures, which two inner folds need
        raise CourseError(
            f"class {smallest!r} has {counts[smallest]} different labelled images, and folds need 4 of each class; "
            "label some more, or leave the class out."
        )
    return min(folds, counts[smallest] // 2)
