"""What the methods that compare views have in common: two random views of each picture."""

from __future__ import annotations

import torch
from torch import Tensor

from sslcourse import augment
from sslcourse.backbones import Backbone
from sslcourse.errors import CourseError
from sslcourse.pretext.base import PretextTask


class TwoViews(PretextTask):
    """A task whose views are two random views of each image; a subclass says in `forward` what is made of them.

    crop         the least share of the picture that a crop takes, in (0, 1]; with 1 its shape alone trims one side, by up to 13%
    jitter       strength of the colour jitter, at least 0
    gray, blur   probabilities
    """

    least_batch = 2  # a loss that compares images, or a norm that does

    def __init__(
        self, backbone: Backbone, *, crop: float = 0.7, jitter: float = 0.5, gray: float = 0.2, blur: float = 0.0
    ):
        super().__init__(backbone)
        if not 0 < crop <= 1:
            raise CourseError(f"crop is the least share of a picture that a view takes, in (0, 1], and is {crop!r}.")
        refuse_outside(gray=gray, blur=blur)
        self.crop, self.jitter, self.gray, self.blur = crop, jitter, gray, blur

    def views(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """uint8 (N, 3, H, W) -> two random views of each image, (N, 3, H, H) each, in [0, 1]."""
        return self.drawn(images, generator).chunk(2)

    def drawn(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Both views in one tensor (2N, 3, H, H), the first ones first."""
        how = {"scale": (self.crop, 1.0), "jitter": self.jitter, "gray": self.gray, "blur": self.blur}
        return augment.view(images, generator, times=2, **how)

    def drawn_small(self, images: Tensor, generator: torch.Generator, times: int, most: float) -> Tensor:
        """Small crops of half the side, which take a tenth of the picture to `most` of it: (times * N, 3, H/2, H/2)."""
        how = {"size": images.shape[-1] // 2, "scale": (0.1, most), "jitter": self.jitter, "gray": self.gray}
        return augment.view(images, generator, times=times, **how)


def refuse_outside(**shares: float) -> None:
    """CourseError for what should be in [0, 1] and isn't."""
    for name, value in shares.items():
        if not 0 <= value <= 1:
            raise CourseError(f"{name} must be in [0, 1], and is {value!r}.")


def refuse_low(**temperatures: float) -> None:
    """CourseError for what should be above 0 and isn't."""
    for name, value in temperatures.items():
        if not value > 0:
            raise CourseError(f"{name} must be above 0, and is {value!r}.")
