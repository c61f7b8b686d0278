"""LeJEPA: views of a picture agree, and all embeddings together look like a normal distribution. Nothing else is needed."""

from __future__ import annotations

import torch
from torch import Tensor

from sslcourse import distributed, heads, losses
from sslcourse.backbones import Backbone
from sslcourse.pretext.two_views import TwoViews, refuse_outside

LARGE = 2  # views of each image that take most of it


class LeJEPA(TwoViews):
    """Joint embedding without a teacher, a stopped gradient or a schedule (Balestriero and LeCun, 2025, 2511.08544).

    Every view is drawn to the mean of its picture's large ones, and SIGReg holds the embeddings of each view, seen along
    random directions, to a standard normal distribution: they can't all be one.

    weight        of SIGReg, in [0, 1]; of the distance to the mean it is 1 - weight
    slices        random directions that each picture of a batch brings along; they are drawn anew at each step
    local         small views of half the side; `local_crop` is the largest share of the picture that they take
    hidden, dim   of the projector
    crop, jitter, gray, blur   as SimCLR's
    """

    name = "lejepa"
    arch = "vit-tiny"
    recipe = {"learning_rate": 2e-3, "weight_decay": 0.05}
    settings = {"steps": 750, "batch_size": 16, "seconds": 85}

    may_be_zero = ("local",)

    def __init__(
        self,
        backbone: Backbone,
        *,
        weight: float = 0.05,
        slices: int = 4,
        local: int = 0,
        local_crop: float = 0.4,
        hidden: int = 256,
        dim: int = 64,
        **view_options: float,
    ):
        super().__init__(backbone, **view_options)
        refuse_outside(weight=weight, local_crop=local_crop)
        self.weight, self.slices, self.local, self.local_crop, self.dim = weight, slices, local, local_crop, dim
        self.projector = heads.projector((backbone.dim, hidden, dim))

    def views(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """uint8 (N, 3, H, W) -> two large views (2N, 3, H, H), first ones first; directions (N, slices, dim); with `local`,
        small views (local * N, 3, H/2, H/2)."""
        large = self.drawn(images, generator)
        small = (self.drawn_small(images, generator, self.local, self.local_crop),) if self.local else ()
        shape = (len(images), self.slices, self.dim)
        return large, torch.randn(shape, generator=generator, device=generator.device), *small

    def forward(
        self, large: Tensor, directions: Tensor, small: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        features = self.backbone(large)
        if small is not None:  # one pass of the backbone for each size, one of the projector for all
            features = torch.cat([features, self.backbone(small)])
        z = self.projector(features).float().unflatten(0, (-1, len(directions)))  # (V, N, dim)
        z = distributed.gather(z.transpose(0, 1).contiguous()).transpose(0, 1)  # of all processes
        along = distributed.gather(directions).flatten(0, 1)  # (N * slices, dim)
        normal, apart = losses.sigreg(z, along), losses.to_centre(z, LARGE)
        loss = self.weight * normal + (1 - self.weight) * apart
        told = {"sigreg": normal.detach(), "apart": apart.detach(), "deviation": z[0].detach().std(dim=0).mean()}
        return loss, told | {"spread": losses.spread(z[0])}
