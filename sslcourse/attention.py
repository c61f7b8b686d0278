"""Does attention find the object? Scores of a map against a mask, and the controls that have to be beaten.

A score of the *ranking* of the patches (`auc`) doesn't change when a map is made sharper, as the share of its mass on the
object does. And a score alone says little: things lie in the middle, and stand out by colour. So the same scores of a
map that never saw the picture (`mean_mask`, `others`) and of one that knows colours alone (`colour_contrast`) belong
beside it.

Masks are (N, H, W), not 0 on the object; a patch belongs to it by the share of its pixels that do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from sslcourse import augment
from sslcourse import device as devices
from sslcourse.backbones import PATCHES, Backbone
from sslcourse.data.imageset import ImageSet
from sslcourse.errors import CourseError
from sslcourse.vit import VisionTransformer

Scores = dict[str, dict[str, float]]  # {map: {"AUC", "Jaccard"}}
MASS = 0.6  # of a map, that is kept to compare it with a mask (Caron et al., 2021, 2104.14294)


@torch.no_grad()
def by_head(
    backbone: Backbone, images: ImageSet | Tensor, batch_size: int = 256, *, device: str | torch.device = "auto"
) -> Tensor:
    """How much each head of the last block looks from the class token at each patch: (N, heads, s, s), on the CPU.

    What is missing to 1 it looks at itself. Raises CourseError for a backbone without attention.
    """
    if not isinstance(backbone.trunk, VisionTransformer):
        raise CourseError(f"{backbone.arch} has no attention to look at; take a vision transformer, such as vit-tiny.")
    pixels = images.images if isinstance(images, ImageSet) else images
    device, parts = devices.pick_device(device), []
    with devices.on(device, backbone), devices.evaluating(backbone):
        for part in pixels.split(batch_size):
            parts.append(backbone.trunk.attention(backbone.preprocess(augment.to_float(part.to(device)))).cpu())
    return torch.cat(parts)


def attention_maps(
    backbone: Backbone, images: ImageSet | Tensor, batch_size: int = 256, *, device: str | torch.device = "auto"
) -> Tensor:
    """The mean over the heads (`by_head`): (N, s, s), each map summing to 1, on the CPU."""
    maps = by_head(backbone, images, batch_size, device=device).mean(dim=1)
    return maps / maps.sum(dim=(1, 2), keepdim=True)


# --- scores ------------------------------------------------------------------------------------------------------


def covered(masks: Tensor, side: int) -> Tensor:
    """The share of each of side x side patches that is on the object: masks (N, H, W) -> (N, side, side) in [0, 1]."""
    return functional.adaptive_avg_pool2d((masks != 0).float()[:, None], side)[:, 0]


def share_inside(maps: Tensor, masks: Tensor) -> Tensor:
    """The share of each map's mass that lies on the object: maps (N, s, s), masks (N, H, W) -> (N,) in [0, 1].

    A map that is the same everywhere gets the object's share of the picture. It grows with the sharpness of a map whose
    ranking stays: `auc` doesn't.
    """
    return (maps * covered(masks, maps.shape[-1])).sum(dim=(1, 2)) / maps.sum(dim=(1, 2))


def auc(maps: Tensor, masks: Tensor) -> Tensor:
    """How often a pixel of the object has more attention than one beside it: maps (N, s, s), masks (N, H, W) -> (N,).

    The area under the ROC curve, a tie counting half: 0.5 for a map that knows nothing, 1 where every pixel of the object
    comes first. Any increasing function of a map gives the same. NaN for a picture that is all object, or has none.
    """
    on = covered(masks, maps.shape[-1]).flatten(1)  # (N, L)
    level = maps.flatten(1)
    more = (level[:, :, None] > level[:, None]).float() + 0.5 * (
        level[:, :, None] == level[:, None]
    ).float()  # (N, L, L)
    pairs = on[:, :, None] * (1 - on)[:, None]  # (N, L, L): object here, not there
    return (more * pairs).sum(dim=(1, 2)) / pairs.sum(dim=(1, 2))


def jaccard(maps: Tensor, masks: Tensor, mass: float = MASS) -> Tensor:
    """Intersection over union of the object and the fewest patches that hold more than `mass` of a map: (N,) in [0, 1].

    As in DINO's evaluation: from the least patch up, those that add up to 1 - mass are left out.
    """
    on, level = covered(masks, maps.shape[-1]).flatten(1), maps.flatten(1)  # (N, L)
    values, index = (level / level.sum(dim=1, keepdim=True)).sort(dim=1)
    kept = torch.zeros_like(on).scatter(1, index, (values.cumsum(dim=1) > 1 - mass).to(on.dtype))  # (N, L)
    both = (kept * on).sum(dim=1)
    return both / (kept.sum(dim=1) + on.sum(dim=1) - both)


def mean_scores(maps: Tensor, masks: Tensor, mass: float = MASS) -> dict[str, float]:
    """Both scores, the mean over the pictures that have something beside their object: {"AUC", "Jaccard"}."""
    return {"AUC": auc(maps, masks).nanmean().item(), "Jaccard": jaccard(maps, masks, mass).mean().item()}


# --- controls: maps that haven't looked at this picture, or at colours alone -------------------------------------------


def mean_mask(masks: Tensor, count: int, side: int) -> Tensor:
    """Where objects lie on average, the same map for each of `count` pictures: masks of *other* pictures -> (count, s, s)."""
    return covered(masks, side).mean(dim=0).expand(count, side, side)


def others(maps: Tensor) -> Tensor:
    """Every picture with the map of the one before it, (N, ..., s, s): what is left is where things usually lie."""
    return maps.roll(1, dims=0)


def colour_contrast(images: Tensor, side: int) -> Tensor:
    """How far each patch's mean colour is from the picture's: uint8 or float (N, 3, H, W) -> (N, side, side)."""
    colours = functional.adaptive_avg_pool2d(augment.to_float(images), side)  # (N, 3, s, s)
    return (colours - colours.mean(dim=(2, 3), keepdim=True)).square().sum(dim=1).sqrt()


def compared(networks: Mapping[str, Backbone], shown: ImageSet, other: ImageSet, **options: Any) -> Scores:
    """{map: both scores} on `shown`: of each transformer's best head and of the same head on another picture, and controls.

    shown, other  pictures with masks, different ones: on `other` the head is chosen (the highest AUC), and the mean mask taken
    options       device and batch_size, as `by_head` takes them

    Raises CourseError for pictures without masks.
    """
    for part in (shown, other):
        if part.instances is None:
            raise CourseError(f"{part.name or 'this set'} has no masks to compare with; pocket world's splits have.")
    masks, side, found = shown.instances, PATCHES, {}
    for name, network in networks.items():
        here, there = (by_head(network, part, **options) for part in (shown, other))
        best = max(range(here.shape[1]), key=lambda h: auc(there[:, h], other.instances).nanmean().item())
        found[name] = mean_scores(here[:, best], masks)
        found[f"{name}, another picture's"] = mean_scores(others(here[:, best]), masks)
    found["mean mask"] = mean_scores(mean_mask(other.instances, len(masks), side), masks)
    found["colour contrast"] = mean_scores(colour_contrast(shown.images, side), masks)
    return found
