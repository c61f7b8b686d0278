"""Semantic segmentation: which class does every pixel show? On a pretrained backbone, with few annotated images.

The model is torchvision's FCN (Long, Shelhamer and Darrell, 2014, 1411.4038) on a feature pyramid of the backbone, and the
score torchmetrics' Jaccard index: intersection over union of each class over all pixels of a set, averaged over classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.segmentation import FCN
from torchvision.ops import Conv2dNormActivation

from sslcourse import device as devices
from sslcourse import losses
from sslcourse.augment import resize, to_float
from sslcourse.backbones import Backbone
from sslcourse.data.imageset import ImageSet
from sslcourse.data.splits import Splits
from sslcourse.errors import CourseError, whole_number
from sslcourse.evaluate import best_of_rates
from sslcourse.supervised import tuned
from sslcourse.train import History, TrainConfig, fit_supervised
from sslcourse.transfer import dense

TRAIN = TrainConfig(steps=100, batch_size=16, learning_rate=1e-2, weight_decay=0.05, log_every=20)


def semantic_masks(images: ImageSet) -> Tensor:
    """The class of every pixel, int64 (N, H, W): 0 for the background, 1 + c for an object of class c.

    Made of `instances` (which object a pixel shows) and `box_labels` (of which class each object is). An object without a
    class counts as background. Raises CourseError for a set without either.
    """
    if images.instances is None or images.box_labels is None:
        raise CourseError(
            f"{images.name} says of no pixel what it shows (segmentation needs instances and box_labels); "
            'load("world:crowd") has both.'
        )
    objects = images.box_labels.shape[1]  # K
    if len(images) and int(images.instances.max()) > objects:
        raise CourseError(
            f"a pixel shows object {int(images.instances.max())}, and box_labels has room for {objects} objects; "
            "give each object a label."
        )
    classes = functional.pad(images.box_labels + 1, (1, 0))  # (N, 1 + K): the class of object k is in column k
    return classes.gather(1, images.instances.long().flatten(1)).view(images.instances.shape)


class Segmenter(FCN):
    """torchvision's FCN on a pyramid of the backbone: float images (N, 3, H, W) in [0, 1] to {"out": (N, 1 + C, H, W)}.

    classes  C, of objects; class 0 of the output is the background. The head is a convolution and a linear map on the
             pyramid's finest map; torchvision's FCN scales its answer up to the images' size. `seed` decides the new weights.
    pyramid  `dense.Pyramid`'s options: stages and enlarge
    """

    def __init__(
        self, backbone: Backbone, classes: int, *, channels: int = dense.CHANNELS, seed: int = 0, **pyramid: Any
    ):
        classes = whole_number("a segmenter needs at least one class of objects: their number", classes)
        with devices.seeded(seed):
            maps = dense.Pyramid(backbone, channels, **pyramid)
            head = nn.Sequential(Conv2dNormActivation(channels, channels), nn.Conv2d(channels, 1 + classes, 1))
        super().__init__(_Finest(maps), head)
        self.to(backbone.mean.device)
        self.classes = classes

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """As torchvision's, scaled up in a way whose gradient a GPU adds up in one order."""
        return {"out": resize(self.classifier(self.backbone(images)["out"]), images.shape[-2:])}

    @torch.no_grad()
    def predict(
        self, images: ImageSet | Tensor, batch_size: int = 256, *, device: str | torch.device = "auto"
    ) -> Tensor:
        """The likeliest class of each pixel of uint8 images: int64 (N, H, W), on the CPU. The model stays where and as it was."""
        pixels = images.images if isinstance(images, ImageSet) else images
        device = devices.pick_device(device)
        with devices.on(device, self), devices.evaluating(self):
            found = [self(to_float(part.to(device)))["out"].argmax(dim=1).cpu() for part in pixels.split(batch_size)]
        return torch.cat(found)


class _Finest(nn.Module):
    """The finest map of a pyramid, under the name that torchvision's segmentation models ask for."""

    def __init__(self, pyramid: dense.Pyramid):
        super().__init__()
        self.pyramid = pyramid

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"out": next(iter(self.pyramid(images).values()))}  # (N, channels, H_1, W_1)


def loss(segmenter: nn.Module, images: Tensor, masks: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The cross-entropy of every pixel, in nats, averaged, and the share of pixels that are right."""
    logits = segmenter(images)["out"].float()  # (N, 1 + C, H, W)
    right = logits.detach().argmax(dim=1) == masks  # (N, H, W)
    return losses.cross_entropy(logits, masks), {"pixel accuracy": right.float().mean()}


def train_segmenter(
    backbone: Backbone,
    images: ImageSet,
    config: TrainConfig = TRAIN,
    *,
    tune: str = "all",
    augment: bool = True,
    enlarge: int | None = None,
    device: str | torch.device = "auto",
    progress: bool = True,
    on_log: Callable[[dict[str, float]], None] | None = None,
) -> tuple[Segmenter, History]:
    """Train a segmenter on annotated images, on top of a copy of the backbone.

    tune     "all" of it, the "last stage" of the backbone and the head, or the "head" (the pyramid is part of it) alone
    augment  mirror and shift pictures and masks together
    enlarge  how many times as large the backbone sees the images; by default as `dense.fitted` says

    From scratch is the same call with a backbone of random weights. Raises CourseError for images without masks, without
    names of classes, and for an unknown `tune`.
    """
    masks = semantic_masks(images)
    backbone = dense.copied(backbone)
    segmenter = Segmenter(backbone, len(images.classes), seed=config.seed, **dense.fitted(backbone, images, enlarge))

    def views(pictures: Tensor, masks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        if not augment:
            return pictures, masks
        move = dense.Move.fitting(pictures, generator)
        return move.images(pictures), move.masks(masks)

    options = {"device": device, "progress": progress, "on_log": on_log}
    with tuned(backbone, tune):
        history = fit_supervised(
            segmenter, loss, images, (masks,), config, views=views, label="segmentation", **options
        )
    return segmenter.eval(), history


def iou(predicted: Tensor, truth: Tensor, classes: int) -> Tensor:
    """Intersection over union of each class over all pixels of a set: float (1 + classes,); NaN where neither has any.

    predicted, truth  whole numbers of the same shape, 0 for the background
    """
    if predicted.shape != truth.shape:
        raise CourseError(
            f"masks must have the same shape, and got {tuple(predicted.shape)} and {tuple(truth.shape)}; "
            "compare predictions with the masks of the same images."
        )
    for masks in (predicted, truth):
        if masks.is_floating_point() or (masks.numel() and not 0 <= int(masks.min()) <= int(masks.max()) <= classes):
            raise CourseError(
                f"masks hold whole numbers, 0 for the background and 1 to {classes} for the classes, and got {masks.dtype} "
                f"from {masks.min().item():g} to {masks.max().item():g}; argmax over the classes gives such masks."
            )
    from torchmetrics.functional.classification import multiclass_jaccard_index  # seconds to import

    scores = multiclass_jaccard_index(predicted, truth, 1 + classes, average="none")  # (1 + C,)
    there = torch.bincount(torch.cat([predicted.flatten(), truth.flatten()]), minlength=1 + classes) > 0
    return torch.where(there, scores, torch.nan)


def mean_iou(predicted: Tensor, images: ImageSet) -> float:
    """mIoU, in [0, 1]: `iou` of predicted classes (N, H, W) averaged over the classes that occur, background included.

    Pixels of all images are counted together, as in PASCAL VOC (Everingham et al., 2010). The mean over images of each
    image's own IoU is another number.
    """
    return iou(predicted.cpu(), semantic_masks(images).cpu(), len(images.classes)).nanmean().item()


def finetune_mean_iou(
    backbone: Backbone,
    splits: Splits,
    annotated: int,
    seed: int,
    config: TrainConfig = TRAIN,
    rates: Sequence[float] = (),
    **options: Any,
) -> float:
    """mIoU on test after training with `annotated` images drawn from train by `seed`, which decides the head, too.

    With several learning `rates` in place of the one in `config`, the segmenter that is best on validation is tested.
    `options` are `train_segmenter`'s. The protocol of `evaluate.finetune_accuracy`.
    """
    few = dense.sample(splits.train, annotated, seed)
    device = options.get("device", "auto")
    segmenter = best_of_rates(
        lambda trial: train_segmenter(backbone, few, trial, **options)[0],
        lambda segmenter: mean_iou(segmenter.predict(splits.val, device=device), splits.val),
        dataclasses.replace(config, seed=seed),
        rates,
    )
    return mean_iou(segmenter.predict(splits.test, device=device), splits.test)
