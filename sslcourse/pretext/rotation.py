"""Rotation prediction: by how many quarter turns was this picture turned?"""

from __future__ import annotations

import torch
from torch import Tensor

from sslcourse import augment, heads, losses
from sslcourse.backbones import Backbone
from sslcourse.errors import CourseError
from sslcourse.pretext.base import PretextTask

TURNS = 4  # 0, 90, 180 and 270 degrees, counter-clockwise


class Rotation(PretextTask):
    """Predict which of the four rotations was applied (Gidaris, Singh and Komodakis, 2018, 1803.07728).

    With `all_rotations` every image is shown in all four rotations, so the expectation over the rotation is a sum
    without chance; without, one rotation is drawn per image: the same expectation, estimated with more variance for the same images (lesson 02 compares them at equal work).
    With `flip`, each image is first mirrored with probability 1/2, which teaches the backbone that mirrors are alike.
    The head has two hidden layers of `hidden` units; with `hidden=0` it is linear, as the mathematics has it, and the
    backbone's last stage then specializes more in rotations.
    """

    name = "rotation"
    settings = {"steps": 900, "seconds": 51}

    may_be_zero = ("hidden",)

    def __init__(self, backbone: Backbone, *, all_rotations: bool = True, flip: bool = True, hidden: int = 256):
        super().__init__(backbone)
        self.all_rotations = all_rotations
        self.flip = flip
        self.head = heads.mlp(backbone.dim, hidden, TURNS) if hidden else heads.linear(backbone.dim, TURNS)

    def views(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """uint8 (N, 3, H, H) -> rotated float images (M, 3, H, H) in [0, 1] and quarter turns int64 (M,); M is 4N or N."""
        require_square(images, self.name)
        images = augment.to_float(images)
        if self.flip:
            images = augment.random_flip(images, generator)
        if not self.all_rotations:
            turns = torch.randint(TURNS, (len(images),), generator=generator, device=images.device)  # (N,)
            return augment.rotate90(images, turns), turns
        rotated = torch.cat([torch.rot90(images, t, dims=(-2, -1)) for t in range(TURNS)])  # (4N, 3, H, H)
        return rotated, torch.arange(TURNS, device=images.device).repeat_interleave(len(images))  # (4N,)

    def forward(self, rotated: Tensor, turns: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        z = self.backbone(rotated)  # (M, d)
        logits = self.head(z)  # (M, 4)
        return losses.cross_entropy(logits, turns), {"accuracy": losses.accuracy(logits, turns).detach()}


def require_square(images: Tensor, task: str) -> None:
    """A quarter turn swaps height and width, so a batch of turned images has one shape only if they are equal."""
    if images.shape[-1] != images.shape[-2]:
        height, width = images.shape[-2:]
        raise CourseError(f"{task} needs square images, and these are {height}x{width}; crop or resize them first.")
