"""Transformation prediction: which symmetry of the square was applied?"""

from __future__ import annotations

import torch
from torch import Tensor

from sslcourse import augment, heads, losses
from sslcourse.backbones import Backbone
from sslcourse.device import constant
from sslcourse.errors import one_of
from sslcourse.pretext.base import PretextTask
from sslcourse.pretext.rotation import require_square

# Elements as `augment.square_symmetry` numbers them: mirror left and right if e >= 4, then e % 4 quarter turns.
GROUPS: dict[str, tuple[int, ...]] = {
    "square": (0, 1, 2, 3, 4, 5, 6, 7),
    "flips": (0, 4, 6, 2),  # nothing, left-right, up-down, both (which is the half turn)
    "mirror": (0, 4),  # nothing, left-right
    "upside-down": (0, 6),  # nothing, up-down
}
ELEMENT_NAMES = (
    "identity",
    "90°",
    "180°",
    "270°",
    "left-right",
    "left-right, 90°",
    "up-down",
    "left-right, 270°",
)


class Transformation(PretextTask):
    """Predict which element of a group of symmetries was applied: the eight of the square, or flips alone.

    Rotation prediction (1803.07728) with a larger group; the question is what each group can teach, since an image
    that is its own mirror makes some answers indistinguishable. `group` is one of GROUPS; with `all_elements` every
    image is shown under every element, otherwise under one drawn at random.
    """

    name = "transformation"
    settings = {"steps": 500, "batch_size": 32, "seconds": 25}

    def __init__(self, backbone: Backbone, *, group: str = "square", all_elements: bool = True):
        super().__init__(backbone)
        one_of("group", group, GROUPS)
        self.group, self.elements, self.all_elements = group, GROUPS[group], all_elements
        self.head = heads.linear(backbone.dim, len(self.elements))

    def views(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """uint8 (N, 3, H, H) -> moved float images (M, 3, H, H) in [0, 1] and places in `elements`, int64 (M,)."""
        require_square(images, self.name)
        images, count = augment.to_float(images), len(self.elements)
        if self.all_elements:
            moved = torch.cat([augment.one_symmetry(images, e) for e in self.elements])  # (count * N, 3, H, H)
            return moved, torch.arange(count, device=images.device).repeat_interleave(len(images))
        answer = torch.randint(count, (len(images),), generator=generator, device=images.device)  # (N,)
        elements = constant(tuple(self.elements), images.device, torch.int64)[answer]  # (N,)
        return augment.square_symmetry(images, elements), answer

    def forward(self, moved: Tensor, answer: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        logits = self.head(self.backbone(moved))  # (M, count)
        return losses.cross_entropy(logits, answer), {"accuracy": losses.accuracy(logits, answer).detach()}
