"""Linear segmentation: what can be read of a single patch of a frozen network by one linear map, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from sslcourse.data.imageset import ImageSet
from sslcourse.errors import CourseError
from sslcourse.transfer.segmentation import iou, semantic_masks

PENALTIES = (1.0, 10.0, 100.0, 1000.0)  # of the ridge regression, chosen among on validation


def patch_classes(images: ImageSet, side: int) -> Tensor:
    """What most pixels of each patch show, 0 for the background and 1 + c for class c: int64 (N, side, side).

    Raises CourseError where `side` doesn't divide the images' sides, and for images without masks.
    """
    masks = semantic_masks(images)  # (N, H, W)
    if masks.shape[1] % side or masks.shape[2] % side:
        raise CourseError(f"{side} patches in a row don't tile masks of {masks.shape[1]}x{masks.shape[2]} pixels.")
    pixels = functional.one_hot(masks, 1 + len(images.classes)).movedim(3, 1).float()  # (N, 1 + C, H, W)
    return functional.adaptive_avg_pool2d(pixels, side).argmax(dim=1)


class PatchProbe:
    """Ridge regression from a patch's feature to its class, in closed form: the largest of 1 + C answers wins."""

    def __init__(self, penalties: Sequence[float] = PENALTIES):
        self.penalties = penalties

    def fit(self, maps: Tensor, images: ImageSet, val_maps: Tensor, val_images: ImageSet) -> PatchProbe:
        """Maps (N, d, s, s) of annotated images, to learn from; the validation pair to choose the penalty on, by mIoU."""
        self.classes, side = len(images.classes), maps.shape[-1]
        x = maps.movedim(1, 3).flatten(0, 2).double()  # (N * s * s, d)
        self.mean, self.scale = x.mean(dim=0), x.std(dim=0).clamp(min=1e-6)
        x = self._standardized(x)
        y = functional.one_hot(patch_classes(images, side).flatten(), 1 + self.classes).double()  # (N * s * s, 1 + C)
        square, along, best = x.T @ x, x.T @ y, -1.0
        for penalty in self.penalties:
            ridge = penalty * torch.eye(len(square), dtype=square.dtype)
            weight = torch.linalg.solve(square + ridge, along)  # (1 + d, 1 + C)
            score = self._score(weight, val_maps, val_images)
            if score > best:
                best, self.penalty, self.weight = score, penalty, weight
        return self

    def predict(self, maps: Tensor) -> Tensor:
        """Maps (N, d, s, s) -> the class of each patch, int64 (N, s, s)."""
        return self._predict(self.weight, maps)

    def mean_iou(self, maps: Tensor, images: ImageSet) -> float:
        """mIoU in [0, 1] over all patches of a set, and over the classes that occur, background included."""
        return self._score(self.weight, maps, images)

    def _standardized(self, x: Tensor) -> Tensor:
        return functional.pad((x - self.mean) / self.scale, (0, 1), value=1.0)  # (M, d + 1): the last one is the bias

    def _predict(self, weight: Tensor, maps: Tensor) -> Tensor:
        return (self._standardized(maps.movedim(1, 3).double()) @ weight).argmax(dim=3)

    def _score(self, weight: Tensor, maps: Tensor, images: ImageSet) -> float:
        truth = patch_classes(images, maps.shape[-1])
        return iou(self._predict(weight, maps), truth, self.classes).nanmean().item()
