"""The border of everything that learns from features or compares them: tables of finite numbers, a row for each image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sslcourse import device as devices
from sslcourse.backbones import Backbone
from sslcourse.errors import CourseError, whole_number

MOST_AT_ONCE = 512  # images
ROOM = 512 * 2**20  # bytes that a forward pass may take beside the weights
ALIVE = 4  # outputs as large as the largest one that a forward pass holds at one time


def checked_features(features: Any, name: str = "the features", *, least: int = 1, width: int | None = None) -> Tensor:
    """Features (N, d), finite, on the CPU and without a gradient, in their own precision.

    least  how many rows are needed;  width: how many columns, where that is known

    Raises CourseError for another shape, and says how many rows aren't finite.
    """
    features = torch.as_tensor(features)
    if features.dim() != 2 or len(features) < least or features.shape[1] == 0 or features.is_complex():
        raise CourseError(
            f"{name} must be numbers (N, d) with at least {least} rows, one per image, and are {features.dtype} of the "
            f"shape {tuple(features.shape)}."
        )
    if width is not None and features.shape[1] != width:
        raise CourseError(
            f"{name} have {features.shape[1]} columns, and those learned from had {width}; take both from the same "
            "stages of the same backbone."
        )
    refuse_not_finite(features, name)
    return features.detach().cpu()


def refuse_not_finite(rows: Tensor, name: str = "the features") -> None:
    """CourseError, with how many, where rows (N, ...) hold NaN or infinity."""
    if rows.sum().isfinite():  # NaN and infinity survive a sum, which is a tenth of the work of looking at each number
        return
    wrong = (
        int((~torch.isfinite(rows)).flatten(1).any(dim=1).sum()) if rows.dim() > 1 else int((~rows.isfinite()).sum())
    )
    if wrong:
        raise CourseError(
            f"{name} are not all finite numbers: {wrong} of {len(rows)} rows hold NaN or infinity; look at the weights "
            "and the images that they come from, since nothing can be learned from these."
        )


def refuse_not_finite_weights(network: nn.Module) -> None:
    """CourseError, with how many, where parameters or buffers of a network hold NaN or infinity."""
    tensors = network.state_dict()
    wrong = [name for name, value in tensors.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    if wrong:
        raise CourseError(
            f"{len(wrong)} of the backbone's {len(tensors)} tensors hold NaN or infinity ({wrong[0]} is the first), so "
            "that it can't be trained; load the weights of a run that went well."
        )


def checked_labels(labels: Any, count: int | None = None, classes: int | None = None) -> Tensor:
    """Labels int64 (N,), from 0, on the CPU.

    count  how many there must be;  classes: how many there are to choose from

    Raises CourseError for what are no classes, or other ones.
    """
    labels = torch.as_tensor(labels)
    fractions = labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool
    if labels.dim() != 1 or not len(labels) or fractions:
        raise CourseError(
            f"labels must be whole numbers (N,), one per image, and are {labels.dtype} of the shape {tuple(labels.shape)}."
        )
    if count is not None and len(labels) != count:
        raise CourseError(
            f"there are {len(labels)} labels, and there are {count} rows of features; give one label each."
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or (classes is not None and high >= classes):
        wanted = "count from 0" if classes is None else f"lie in 0..{classes - 1}"
        raise CourseError(f"labels must {wanted}, and these lie in {low}..{high}; leave the other images out.")
    return labels.cpu().long()


def in_batches(backbone: Backbone, images: Tensor, most: int | None = None) -> Sequence[Tensor]:
    """Images (N, 3, H, W) in parts for one forward pass each, of at most `most` images (default: `batch_size`).

    The parts are as equal as can be: the products of two or three images left over would be rounded otherwise.
    """
    most = whole_number("batch_size", batch_size(backbone, images.shape[-2:]) if most is None else most)
    return images.tensor_split(max(1, -(-len(images) // most)))


@torch.no_grad()
def batch_size(backbone: Backbone, size: Sequence[int], most: int = MOST_AT_ONCE) -> int:
    """How many images of `size` (height, width) go through a backbone at once, so that a forward pass takes about ROOM.

    One black image is sent through, and the outputs of all layers are measured. The answer depends on the network and
    the size alone, and not on what memory is free: the last bits of a feature may change with the number of images that
    are multiplied together, and the same command gives the same bits anywhere. From 1 to `most`.
    """
    outputs: list[int] = []
    leaves = [part for part in backbone.modules() if not any(part.children())]
    hooks = [
        leaf.register_forward_hook(lambda _, __, out: outputs.append(out.nbytes if isinstance(out, Tensor) else 0))
        for leaf in leaves
    ]
    try:
        with devices.evaluating(backbone):
            maps = backbone.stages(torch.zeros(1, 3, *size, device=backbone.mean.device))
    finally:
        for hook in hooks:
            hook.remove()
    one = ALIVE * max(outputs, default=0) + sum(m.nbytes for m in maps) + 2 * 3 * 4 * size[0] * size[1]
    return max(1, min(most, ROOM // one))
