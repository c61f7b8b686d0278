"""SigLIP: does this caption belong to this picture? Asked of each pair by itself."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslcourse import losses
from sslcourse.backbones import Backbone
from sslcourse.pretext.image_text import ImageText


class SigLIP(ImageText):
    """Sigmoid loss for language-image pretraining (Zhai et al., 2023, 2303.15343).

    Of a batch's N * N pairs, N belong together. So each pair starts as a confident no, by a bias of -10 that is learned.

    dim, width, depth, heads, swapped, crop, jitter   as `ImageText`'s
    """

    name = "siglip"
    recipe = {"learning_rate": 5e-3, "weight_decay": 0.05}
    settings = {"steps": 1500, "batch_size": 128, "seconds": 60}
    first_scale = 10.0

    def __init__(self, backbone: Backbone, **image_text_options: float):
        super().__init__(backbone, **image_text_options)
        self.bias = nn.Parameter(torch.tensor(-10.0))

    def loss(self, images: Tensor, texts: Tensor, wrong: tuple[Tensor, Tensor] | None) -> Tensor:
        return losses.siglip(images, texts, self.log_scale.exp(), self.bias, wrong)
