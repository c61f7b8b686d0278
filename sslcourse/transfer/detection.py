"""Object detection: which things are there, and in which boxes? On a pretrained backbone, with few annotated images.

The model is torchvision's FCOS (Tian et al., 2019, 1904.01355) on a feature pyramid of the backbone: every cell of every map
says which class it sees, and how far the box's four sides are. The score is torchmetrics' average precision, as COCO's.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOSHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import box_iou

from sslcourse import device as devices
from sslcourse.augment import to_float
from sslcourse.backbones import Backbone
from sslcourse.data.imageset import ImageSet
from sslcourse.data.splits import Splits
from sslcourse.errors import CourseError, whole_number
from sslcourse.evaluate import best_of_rates
from sslcourse.supervised import tuned
from sslcourse.train import History, TrainConfig, fit_supervised
from sslcourse.transfer import dense

Boxes = dict[str, Tensor]  # of one image: "boxes" (K, 4), "labels" (K,), and for what was found "scores" (K,)

TRAIN = TrainConfig(steps=100, batch_size=16, learning_rate=3e-3, weight_decay=0.05, log_every=20)
GROUPS = 32  # torchvision's FCOS head normalizes its channels in so many groups
CONVS = 2  # convolutions in each branch of the head; the paper has four, for pictures of 800 pixels
REACH = 2.0  # cells from the middle to each side of the first boxes: at 0, torchvision's, half of the sides can't learn (ReLU)
MOST = 100  # boxes per image at most, as COCO counts


def targets(images: ImageSet) -> list[Boxes]:
    """The true boxes in torchvision's form, {"boxes": float (K_i, 4), "labels": int64 (K_i,)} for image i.

    Places without an object (label -1) and boxes without an area are left out: torchvision refuses them.
    """
    if images.boxes is None:
        raise CourseError(f'{images.name} has no boxes, and detection needs them; load("world:crowd") has some.')
    boxes, labels = images.boxes.cpu(), images.box_labels.cpu()
    return [target(*one) for one in zip(boxes, labels, strict=True)]


def target(boxes: Tensor, labels: Tensor) -> Boxes:
    """Boxes (K, 4) and labels (K,) of one image without the empty ones."""
    there = (labels >= 0) & (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    return {"boxes": boxes[there], "labels": labels[there]}


class AsTheyAre(GeneralizedRCNNTransform):
    """torchvision's transform of a detector that only puts images into one batch: no resizing, no normalization.

    Left to itself it makes the shorter side 800 pixels, and normalizes; a backbone of this course normalizes on its own.
    """

    def __init__(self, divisible: int):
        super().__init__(800, 1333, image_mean=[0.0] * 3, image_std=[1.0] * 3, size_divisible=divisible)

    def resize(self, image: Tensor, target: Boxes | None = None) -> tuple[Tensor, Boxes | None]:
        return image, target


def build(
    backbone: Backbone,
    classes: int,
    *,
    channels: int = dense.CHANNELS,
    stages: tuple[int, ...] | None = None,
    enlarge: int = 1,
    seed: int = 0,
    **options: Any,
) -> FCOS:
    """torchvision's FCOS for `classes` classes of objects on a pyramid of the backbone; `seed` decides the new weights.

    Takes a list of float images (3, H, W) in [0, 1], of any size; in training mode also targets, and gives losses; in
    evaluation mode gives boxes, labels and scores. stages and enlarge: as of `dense.Pyramid`; boxes are in pixels of
    the images as given. options: FCOS's own, such as score_thresh and nms_thresh.
    """
    classes = whole_number("a detector needs at least one class of objects: their number", classes)
    if channels % GROUPS or channels < GROUPS:
        raise CourseError(f"channels must be a multiple of {GROUPS}, and is {channels!r}; {dense.CHANNELS} is usual.")
    with devices.seeded(seed):
        pyramid = dense.Pyramid(backbone, channels, stages, enlarge)
        anchors = AnchorGenerator(tuple((stride,) for stride in pyramid.strides), ((1.0,),) * len(pyramid.strides))
        options = {"score_thresh": 0.05, "detections_per_img": MOST} | options
        detector = FCOS(
            pyramid, classes, anchor_generator=anchors, head=FCOSHead(channels, 1, classes, CONVS), **options
        )
    detector.transform = AsTheyAre(pyramid.strides[-1])
    detector.to(backbone.mean.device)
    torch.nn.init.constant_(detector.head.regression_head.bbox_reg.bias, REACH)
    return detector


def loss(detector: nn.Module, images: Tensor, boxes: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Focal loss of the classes, GIoU loss of the boxes, and centre-ness, added up."""
    truth = [target(*one) for one in zip(boxes, labels, strict=True)]
    losses = detector(list(images), truth)
    return sum(losses.values()), {name: value.detach() for name, value in losses.items()}


def train_detector(
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
) -> tuple[FCOS, History]:
    """Train a detector on annotated images, on top of a copy of the backbone.

    tune     "all" of it, the "last stage" of the backbone and the head, or the "head" (the pyramid is part of it) alone
    augment  mirror and shift pictures and boxes together
    enlarge  how many times as large the backbone sees the images; by default as `dense.fitted` says

    From scratch is the same call with a backbone of random weights. Raises CourseError for images without boxes and for an
    unknown `tune`.
    """
    targets(images.select(slice(0, 0)))  # no boxes? Say so before computing anything
    backbone = dense.copied(backbone)
    detector = build(backbone, len(images.classes), seed=config.seed, **dense.fitted(backbone, images, enlarge))

    def views(pictures: Tensor, boxes: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        if not augment:
            return pictures, boxes, labels
        move = dense.Move.fitting(pictures, generator)
        return move.images(pictures), *move.boxes(boxes, labels, images.size)

    annotations = (images.boxes, images.box_labels)
    options = {"device": device, "progress": progress, "on_log": on_log}
    with tuned(backbone, tune):
        history = fit_supervised(detector, loss, images, annotations, config, views=views, label="detection", **options)
    return detector.eval(), history


@torch.no_grad()
def detect(
    detector: torch.nn.Module,
    images: ImageSet | Tensor,
    batch_size: int = 128,
    *,
    device: str | torch.device = "auto",
) -> list[Boxes]:
    """What a detector finds in uint8 images, best first, on the CPU: {"boxes", "labels", "scores"} for each image.

    Any detector in torchvision's form will do. It stays where and as it was.
    """
    pixels = images.images if isinstance(images, ImageSet) else images
    device = devices.pick_device(device)
    parts = pixels.split(batch_size) if len(pixels) else ()
    with devices.on(device, detector), devices.evaluating(detector):
        found = [one for part in parts for one in detector(list(to_float(part.to(device))))]
    return [{name: value.cpu() for name, value in one.items()} for one in found]


def hits(found: Sequence[Boxes], images: ImageSet, overlap: float = 0.5) -> list[Tensor]:
    """Which found boxes are right: bool (K_i,) for image i.

    Best score first, each takes the true box of its class that it overlaps most, if that is at least `overlap` (IoU) and
    no better one has taken it: a second box around the same thing is wrong.
    """
    if not 0 < overlap <= 1:
        raise CourseError(f"overlap is an IoU, above 0 and at most 1, and is {overlap!r}; 0.5 is usual.")
    truth = targets(images)
    refuse_other_images(found, truth)
    return [_hits_of_one(one, real, overlap) for one, real in zip(found, truth, strict=True)]


def _hits_of_one(found: Boxes, truth: Boxes, overlap: float) -> Tensor:
    right = torch.zeros(len(found["scores"]), dtype=torch.bool)
    same = found["labels"][:, None] == truth["labels"]  # (K, T)
    free = torch.where(same, box_iou(found["boxes"], truth["boxes"]), 0.0)  # (K, T): what is taken becomes 0
    if free.shape[1]:
        for k in found["scores"].argsort(descending=True, stable=True).tolist():
            best = int(free[k].argmax())
            if free[k, best] >= overlap:
                right[k] = True
                free[:, best] = 0
    return right


def precision_and_recall(
    found: Sequence[Boxes], images: ImageSet, threshold: float, overlap: float = 0.5
) -> tuple[float, float]:
    """Of the boxes with a score of at least `threshold`, the share that is right; and the share of true boxes found.

    Precision is NaN where no box is left, recall where no true one is. All classes count together here.
    """
    kept = [{name: value[one["scores"] >= threshold] for name, value in one.items()} for one in found]
    right = sum(int(one.sum()) for one in hits(kept, images, overlap))
    claimed = sum(len(one["scores"]) for one in kept)
    true = sum(len(one["labels"]) for one in targets(images))
    return (right / claimed if claimed else math.nan), (right / true if true else math.nan)


def refuse_other_images(found: Sequence[Boxes], truth: Sequence[Boxes]) -> None:
    """CourseError unless there is a dictionary of boxes, labels and scores for each image."""
    if len(found) != len(truth):
        raise CourseError(
            f"what was found in {len(found)} images was given for {len(truth)} images; give one for each."
        )
    for i, one in enumerate(found):
        if missing := {"boxes", "labels", "scores"} - set(one):
            raise CourseError(
                f"what was found in image {i} lacks {' and '.join(sorted(missing))}; `detection.detect` gives boxes, labels "
                "and scores."
            )


def average_precision(found: Sequence[Boxes], images: ImageSet) -> dict[str, float]:
    """Average precision of what was found in these images, in [0, 1], averaged over the classes that occur.

    {"AP50": a box counts as found at an IoU of 0.5; "AP75": at 0.75; "AP": the mean over 0.5, 0.55, ..., 0.95}: COCO's
    definition (Lin et al., 2014, 1405.0312), worked out by torchmetrics with pycocotools.
    """
    truth = targets(images)
    refuse_other_images(found, truth)
    if not any(len(one["labels"]) for one in truth):
        raise CourseError("there is no true box in these images, so that precision has no meaning; give others.")
    from torchmetrics.detection import MeanAveragePrecision  # seconds to import, and nothing else here needs it

    metric = MeanAveragePrecision()
    metric.warn_on_many_detections = False  # past the hundredth box of an image, COCO doesn't count
    metric.update(list(found), truth)
    scores = metric.compute()
    return {"AP": float(scores["map"]), "AP50": float(scores["map_50"]), "AP75": float(scores["map_75"])}


def finetune_average_precision(
    backbone: Backbone,
    splits: Splits,
    annotated: int,
    seed: int,
    config: TrainConfig = TRAIN,
    rates: Sequence[float] = (),
    **options: Any,
) -> dict[str, float]:
    """`average_precision` on test after training with `annotated` images drawn from train by `seed`, which decides the
    head, too.

    With several learning `rates` in place of the one in `config`, the detector with the best AP50 on validation is tested.
    `options` are `train_detector`'s. The protocol of `evaluate.finetune_accuracy`.
    """
    few = dense.sample(splits.train, annotated, seed)
    device = options.get("device", "auto")
    detector = best_of_rates(
        lambda trial: train_detector(backbone, few, trial, **options)[0],
        lambda detector: average_precision(detect(detector, splits.val, device=device), splits.val)["AP50"],
        dataclasses.replace(config, seed=seed),
        rates,
    )
    return average_precision(detect(detector, splits.test, device=device), splits.test)
