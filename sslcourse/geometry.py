"""The shape of a cloud of features: are views near each other, are pictures spread out, how many dimensions are used?"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from sslcourse.attention import attention_maps, share_inside  # noqa: F401 (lessons take them from here)
from sslcourse.errors import CourseError


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


def partner_accuracy(first: Tensor, second: Tensor, pictures: int = 128) -> float:
    """How often the other view of a picture is the nearest, by cosine, of all views of a batch: a share, in [0, 1].

    first, second   embeddings (N, d) of two views of the same pictures, cut into batches of so many pictures; those of a
                    last, shorter batch don't count. Each view has 2 * pictures - 1 candidates, itself left out

    Raises CourseError where there are fewer pictures than a batch has.
    """
    if len(first) < pictures:
        raise CourseError(
            f"{len(first)} pictures are less than a batch of {pictures}; give more, or pictures={len(first)}."
        )
    own = torch.arange(2 * pictures)
    right = []
    for a, b in zip(first.split(pictures), second.split(pictures), strict=True):
        if len(a) == pictures:
            z = functional.normalize(torch.cat([a, b]), dim=1)  # (2 * pictures, d)
            nearest = (z @ z.T).fill_diagonal_(-2).argmax(dim=1)  # a cosine is at least -1
            right.append(nearest.cpu() == (own + pictures) % (2 * pictures))
    return torch.cat(right).float().mean().item()


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
