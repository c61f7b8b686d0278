"""Inpainting: what was in the hole?"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from sslcourse import augment, heads
from sslcourse import device as devices
from sslcourse.backbones import Backbone
from sslcourse.errors import CourseError, one_of
from sslcourse.pretext.base import PretextTask

MASKS = ("random", "central")


class Inpainting(PretextTask):
    """Predict the pixels inside a hole from those around it: the context encoder (Pathak et al., 2016, 1604.07379).

    The squared error counts inside the hole only. The paper adds an adversarial loss, for sharper pictures; its features
    for other tasks come from the squared error alone, as here.

    mask    "random" blocks until they cover `share` of the picture or a little more, or one "central" square
    share   of the picture that is taken out, in (0, 1)
    """

    name = "inpainting"
    settings = {"steps": 600, "seconds": 48}

    def __init__(self, backbone: Backbone, *, mask: str = "random", share: float = 0.4):
        super().__init__(backbone)
        one_of("mask", mask, MASKS)
        if not 0 < share < 1:
            raise CourseError(
                f"share is the part of the picture that is taken out, above 0 and below 1, and is {share!r}."
            )
        self.mask, self.share = mask, share
        self.head = heads.Decoder(backbone.channels, 3 * 4, side=16)  # four pixels from each place of a 16x16 map

    def views(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """uint8 (N, 3, H, W) -> whole float images (N, 3, H, W) in [0, 1] and holes, bool (N, 1, H, W), True inside."""
        images = augment.random_flip(augment.to_float(images), generator)
        count, _, height, width = images.shape
        if self.mask == "central":
            return images, central_hole(count, height, width, self.share, images.device)
        return images, random_holes(count, height, width, self.share, generator)

    def forward(self, images: Tensor, hole: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        loss = inside_error(self.reconstruct(images, hole), images, hole)
        return loss, {"error": loss.detach().sqrt()}

    def reconstruct(self, images: Tensor, hole: Tensor) -> Tensor:
        """The head's picture, (N, 3, H, W); what it sees inside the hole is the mean colour, whatever `images` has there."""
        seen = torch.where(hole, self.backbone.mean, images)  # the mean colour is zero after the preprocessing
        out = functional.pixel_shuffle(self.head(self.backbone.stages(seen)), 2)  # (N, 12, 16, 16) -> (N, 3, 32, 32)
        out = augment.resize(out, images.shape[-2:])
        return self.backbone.mean + out * self.backbone.std

    @torch.no_grad()
    def fill(self, images: Tensor, hole: Tensor) -> Tensor:
        """Float images (N, 3, H, W) with what the head sees in the hole, bool (N, 1, H, W); outside, they are unchanged.

        Computes where the task is; the result is on the CPU.
        """
        images, hole = (x.to(self.backbone.mean.device) for x in (images, hole))
        with devices.evaluating(self):
            return torch.where(hole, self.reconstruct(images, hole).clamp(0, 1), images).cpu()


def inside_error(predicted: Tensor, truth: Tensor, hole: Tensor) -> Tensor:
    """Mean squared error over the pixels inside the hole: (N, 3, H, W) twice and bool (N, 1, H, W) -> a scalar."""
    squared = (predicted - truth).square() * hole  # (N, 3, H, W), 0 outside
    return squared.sum() / (hole.sum() * truth.shape[1]).clamp(min=1)


def central_hole(count: int, height: int, width: int, share: float, device: torch.device) -> Tensor:
    """One block in the middle that covers `share` of the picture, to the row: bool (count, 1, height, width)."""
    top, left = (round(side * (1 - share**0.5) / 2) for side in (height, width))
    hole = torch.zeros(count, 1, height, width, dtype=torch.bool, device=device)
    hole[:, :, top : height - top, left : width - left] = True
    return hole


def random_holes(
    count: int, height: int, width: int, share: float, generator: torch.Generator, blocks: int = 8
) -> Tensor:
    """Rectangles at random places, taken one after the other until they cover `share`: bool (count, 1, height, width).

    Each covers a share between a quarter and all of what two evenly cut blocks would, so that some holes are small and
    some large; after `blocks` of them no more are added.
    """
    place = generator.device
    top, left, tall, wide = augment.random_boxes(
        count * blocks, height, width, generator, scale=(share / 8, share / 2), ratio=(0.5, 2.0)
    )
    row = torch.arange(height, device=place) + 0.5
    column = torch.arange(width, device=place) + 0.5
    in_rows = (row >= top[:, None]) & (row < (top + tall)[:, None])  # (count * blocks, height)
    in_columns = (column >= left[:, None]) & (column < (left + wide)[:, None])
    block = (in_rows[:, :, None] & in_columns[:, None]).view(count, blocks, height, width)
    hole = block.cumsum(dim=1, dtype=torch.int16) > 0  # (count, blocks, height, width): the union of the first ones
    enough = hole.flatten(2).sum(dim=2) / (height * width) >= share  # (count, blocks)
    last = torch.where(enough.any(dim=1), enough.int().argmax(dim=1), blocks - 1)  # (count,)
    return hole[torch.arange(count, device=place), last][:, None]
