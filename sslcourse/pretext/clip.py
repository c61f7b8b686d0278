"""CLIP: which caption of the batch is this picture's, and which picture is this caption's?"""

from __future__ import annotations

from torch import Tensor

from sslcourse import losses
from sslcourse.pretext.image_text import ImageText


class CLIP(ImageText):
    """Contrastive language-image pretraining (Radford et al., 2021, 2103.00020): InfoNCE from both sides.

    dim, width, depth, heads, swapped, crop, jitter   as `ImageText`'s
    """

    name = "clip"
    recipe = {"learning_rate": 5e-3, "weight_decay": 0.05}
    settings = {"steps": 1500, "batch_size": 128, "seconds": 60}

    def loss(self, images: Tensor, texts: Tensor, wrong: tuple[Tensor, Tensor] | None) -> Tensor:
        return losses.clip(images, texts, self.log_scale.exp(), wrong)
