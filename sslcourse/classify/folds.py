"""Every labelled picture judged by a model that hadn't seen it, with choices made inside the folds.

The pictures are cut into folds; a model learns from all but one of them and is asked about that one (cross-validation;
Stone, 1974). What is chosen on the way, such as a penalty, is chosen by folds within the pictures that a model learns
from, and so is no part of what is measured. Pictures that belong together are never on both sides.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from sklearn.model_selection import StratifiedGroupKFold
from torch import Tensor

from sslcourse import device as devices
from sslcourse.data import splits
from sslcourse.data.imageset import ImageSet, effective_count
from sslcourse.errors import CourseError, told, whole_number

FOLDS = 5


class Judge(Protocol):
    """Numbers of pictures (M,) -> logits (M, C)."""

    def scores(self, numbers: Tensor) -> Tensor: ...


class Learner(Protocol):
    """Learns from some of the pictures, with a setting. settings: what is chosen among."""

    settings: tuple

    def make(self, chosen: Tensor, setting: Any) -> Judge: ...


@dataclass(frozen=True)
class Folds:
    """How N labelled pictures are cut. Raises CourseError as `of` says.

    labels   int64 (N,)
    groups   int64 (N,): pictures that are never on both sides
    classes  names
    count    of folds
    seed     decides them, and which few are learned from
    """

    labels: Tensor
    groups: Tensor
    classes: tuple[str, ...]
    count: int
    seed: int

    @classmethod
    def of(cls, images: ImageSet, count: int = FOLDS, groups: Tensor | None = None, seed: int = 0) -> Folds:
        """The folds of labelled images: `count` of them, or as many as the smallest class has groups for, from 2 on.

        groups   int64 (N,), beside what the images themselves say of it (`ImageSet.groups`); identical pictures always
                 are one group

        Raises CourseError without labels, with one class, and for a class with fewer than four groups.
        """
        labels, together = images.require_labels().cpu(), splits.together(images)
        if groups is not None:
            together = splits.joined(together, _whole(groups, len(images)))
        whole_number("folds", count, 2)
        if len(images.classes) < 2:
            raise CourseError(f"{images.name} has {len(images.classes)} class; telling apart needs two or more.")
        counts = {name: len(together[labels == c].unique()) for c, name in enumerate(images.classes)}
        smallest = min(counts, key=lambda name: counts[name])
        if counts[smallest] < 4:  # two outer folds leave two pictures, which two inner folds need
            what = "labelled images" if images.groups is None and groups is None else "groups of labelled images"
            raise CourseError(
                f"class {smallest!r} has {counts[smallest]} different {what}, and folds need 4 of each class; "
                "label some more, or leave the class out."
            )
        return cls(labels, together, images.classes, min(count, counts[smallest] // 2), seed)

    @property
    def independent(self) -> int:
        """As how many unrelated pictures these count: those of one group are no evidence of their own."""
        return effective_count(self.groups)

    def parts(self) -> Iterator[tuple[Tensor, Tensor]]:
        """(numbers to learn from, numbers held out) for each fold."""
        return parts(self.labels, self.groups, self.count, self.seed)

    def few(self, learned: Tensor, per_class: int, fold: int) -> Tensor:
        """`per_class` pictures of each class among `learned`; a larger number adds to what a smaller one drew."""
        chosen = []
        for c, name in enumerate(self.classes):
            members = learned[self.labels[learned] == c]
            if len(members) < per_class:
                raise CourseError(
                    f"{per_class} labels per class were asked for, and of {name!r} a fold leaves {len(members)} to learn "
                    "from; ask for fewer."
                )
            generator = devices.generator(devices.derive_seed(self.seed, "few", fold, c))
            chosen.append(members[torch.randperm(len(members), generator=generator)[:per_class]])
        return torch.cat(chosen)

    def judged(self, learner: Learner, settings: tuple, per_class: int | None = None) -> tuple[Tensor, Tensor]:
        """Logits (N, C) of every picture, from a model that learned without its fold, and the number of its fold (N,).

        per_class   how many pictures of each class a model learns from; default: all that the other folds have
        """
        logits = torch.zeros(len(self.labels), len(self.classes))
        fold_of = torch.zeros(len(self.labels), dtype=torch.int64)
        for fold, (learned, held) in enumerate(self.parts()):
            learned = learned if per_class is None else self.few(learned, per_class, fold)
            logits[held] = learner.make(learned, self.chosen(learner, settings, learned)).scores(held)
            fold_of[held] = fold
        return logits, fold_of

    def chosen(self, learner: Learner, settings: tuple, learned: Tensor) -> Any:
        """The setting that is most often right on inner folds of the pictures `learned`; at a tie the first.

        Where they are too few for folds, the one in the middle.
        """
        labels, groups = self.labels[learned], self.groups[learned]
        inner_folds = min(self.count, *(len(groups[labels == c].unique()) for c in range(len(self.classes))))
        if len(settings) == 1 or inner_folds < 2:
            return settings[len(settings) // 2]
        right = dict.fromkeys(settings, 0)
        for inner, held in parts(labels, groups, inner_folds, self.seed):
            for setting in settings:
                named = learner.make(learned[inner], setting).scores(learned[held]).argmax(dim=1)
                right[setting] += int((named == labels[held]).sum())
        return max(settings, key=lambda setting: right[setting])


def _whole(groups: Any, count: int) -> Tensor:
    """int64 (N,) of what may be groups; CourseError for anything else."""
    try:
        numbers = torch.as_tensor(groups)
        plain = numbers.shape == (count,) and not (numbers.is_floating_point() or numbers.is_complex())
    except (TypeError, ValueError, RuntimeError):
        plain = False
    if not plain:
        raise CourseError(f"groups are one number per image, whole ones, {count} in all, and {told(groups)} was given.")
    return numbers.cpu()


def parts(labels: Tensor, groups: Tensor, folds: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """`folds` pairs (numbers to learn from, numbers held out), stratified by class, no group on both sides."""
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=devices.derive_seed(seed, "folds") % 2**32)
    for learned, held in splitter.split(np.zeros(len(labels)), labels.numpy(), groups.numpy()):
        yield torch.from_numpy(learned), torch.from_numpy(held)
