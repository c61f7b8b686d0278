"""The shape of a cloud of features: are views near each other, are pictures spread out, how many dimensions are used?"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from sslcourse import augment
from sslcourse import device as devices
from sslcourse.backbones import Backbone
from sslcourse.data.imageset import ImageSet
from sslcourse.errors import CourseError
from sslcourse.vit import VisionTransformer


def alignment(first: Tensor, second: Tensor) -> float:
    """Mean squared distance of two views of the same picture on the unit sphere: (N, d) twice; 0 is best, 2 is chance.

    Wang and Isola (2020, 2005.10242).
    """
    a, b = functional.normalize(first, dim=1), functional.normalize(second, dim=1)
    return (a - b).square().sum(dim=1).mean().item()


def uniformity(features: Tensor) -> float:
    """Log of the mean of exp(-2 * squared distance) over pairs of different rows of (N, d), on the unit sphere.

    0 when all are the same, about -4 when they are spread evenly (Wang and Isola, 2020, 2005.10242).
    """
    distance = torch.pdist(functional.normalize(features, dim=1))  # (N * (N - 1) / 2,)
    return (-2 * distance.square()).exp().mean().log().item()


def effective_rank(features: Tensor) -> float:
    """How many dimensions the centred features (N, d) use: exp of the entropy of their singular values' shares.

    Between 1, where all lie on a line, and min(N - 1, d) (Roy and Vetterli, 2007, The effective rank). Where all are
    the same it is 0.
    """
    values = torch.linalg.svdvals((features - features.mean(dim=0)).double())  # (min(N, d),)
    if values[0] <= 1e-6 * features.double().abs().max().clamp(min=1e-30) * len(features) ** 0.5:
        return 0.0
    share = values / values.sum()
    return float(torch.exp(-(share * share.clamp(min=1e-30).log()).sum()))


@torch.no_grad()
def attention_maps(
    backbone: Backbone, images: ImageSet | Tensor, batch_size: int = 256, *, device: str | torch.device = "auto"
) -> Tensor:
    """How much the class token of a vision transformer looks at each patch, mean over heads: (N, side, side), each map summing to 1.

    The maps are on the CPU. Raises CourseError for a backbone without attention.
    """
    if not isinstance(backbone.trunk, VisionTransformer):
        raise CourseError(f"{backbone.arch} has no attention to look at; take a vision transformer, such as vit-tiny.")
    pixels = images.images if isinstance(images, ImageSet) else images
    device, parts = devices.pick_device(device), []
    with devices.on(device, backbone):
        for part in pixels.split(batch_size):
            x = backbone.preprocess(augment.to_float(part.to(device)))  # (n, 3, H, W)
            parts.append(backbone.trunk.attention(x).mean(dim=1).cpu())  # (n, heads, s, s) -> (n, s, s)
    maps = torch.cat(parts)
    return maps / maps.sum(dim=(1, 2), keepdim=True)


def share_inside(maps: Tensor, masks: Tensor) -> Tensor:
    """The share of each map's mass that lies on the object: maps (N, s, s), masks (N, H, W), not 0 on it -> (N,) in [0, 1].

    A patch counts by the share of its pixels that are on the object. A map that is the same everywhere gets the
    object's share of the picture.
    """
    covered = functional.adaptive_avg_pool2d((masks != 0).float()[:, None], maps.shape[-2:])[:, 0]  # (N, s, s)
    return (maps * covered).sum(dim=(1, 2)) / maps.sum(dim=(1, 2))
