"""Pictures that are not like those one learned from: the same things with noise, out of focus, faded, or coarse.

After four of the corruptions of Hendrycks and Dietterich (2019, 1903.12261), for small pictures and on the device. Nothing
of these is seen in training; a classifier is asked about them as it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from sslcourse import augment
from sslcourse import device as devices
from sslcourse.data.imageset import ImageSet
from sslcourse.errors import one_of, real_number, whole_number


def noise(images: Tensor, severity: float, generator: torch.Generator) -> Tensor:
    """Gaussian noise on every value, of standard deviation 0.2 at severity 1."""
    drawn = torch.randn(images.shape, generator=generator, device=images.device)
    return images + 0.2 * severity * drawn


def blur(images: Tensor, severity: float, generator: torch.Generator) -> Tensor:
    """Out of focus: a Gaussian of a sixteenth of the height, at severity 1."""
    sigma = torch.full((len(images),), severity * images.shape[-1] / 16, device=images.device)
    rows, columns = (augment.blur_matrix(sigma, side) for side in images.shape[-2:])
    return augment.resample(images, rows, columns)


def contrast(images: Tensor, severity: float, generator: torch.Generator) -> Tensor:
    """Faded towards the picture's mean, of which at severity 1 a fifth of the difference is left."""
    mean = images.mean(dim=(1, 2, 3), keepdim=True)  # (N, 1, 1, 1)
    return mean + (1 - 0.8 * severity) * (images - mean)


def pixelate(images: Tensor, severity: float, generator: torch.Generator) -> Tensor:
    """Coarse: at severity 1, a third of the pixels in each direction, and these large."""
    size = tuple(max(1, round(side / (1 + 2 * severity))) for side in images.shape[-2:])
    small = augment.resize(images, size, mode="area")
    return augment.resize(small, tuple(images.shape[-2:]))


CORRUPTIONS: dict[str, Callable[[Tensor, float, torch.Generator], Tensor]] = {
    "noise": noise, "blur": blur, "contrast": contrast, "pixelate": pixelate,
}  # fmt: skip


@torch.no_grad()
def corrupted(images: ImageSet, name: str, severity: float = 1.0, seed: int = 0) -> ImageSet:
    """The same set with every picture corrupted: labels and all that is known of it stay.

    name      one of CORRUPTIONS
    severity  in [0, 1]: 0 leaves the pictures as they are
    seed      decides the noise; the same for the same set, on every device

    Raises CourseError for another name, and a severity outside [0, 1].
    """
    change = CORRUPTIONS[one_of("corruption", name, CORRUPTIONS)]
    severity = real_number("severity", severity, most=1.0)
    generator = devices.generator(whole_number("seed", seed, *devices.SEEDS))
    parts = []
    for part in images.images.split(512):
        changed = change(augment.to_float(part.cpu()), severity, generator).clamp(0, 1)
        parts.append((changed * 255).round().to(torch.uint8))
    moved = torch.cat(parts).to(images.device) if parts else images.images
    return dataclasses.replace(images, images=moved, name=f"{images.name}, {name}")
