"""Barlow Twins: the same numbers for both views, and each number its own."""

from __future__ import annotations

import torch
from torch import Tensor

from sslcourse import distributed, heads, losses
from sslcourse.backbones import Backbone
from sslcourse.pretext.two_views import TwoViews


class BarlowTwins(TwoViews):
    """Bring the cross-correlation of two views' embeddings to the identity (Zbontar et al., 2021, 2103.03230).

    redundancy   weight of what is beside the diagonal; 0 asks for agreement alone, and dimensions repeat each other
    hidden, dim  of the projector
    crop, jitter, gray, blur   as SimCLR's
    """

    name = "barlow"
    recipe = {"learning_rate": 5e-3, "weight_decay": 0.05}
    settings = {"steps": 1000, "seconds": 32}

    def __init__(
        self, backbone: Backbone, *, redundancy: float = 0.005, hidden: int = 256, dim: int = 256, **view_options: float
    ):
        super().__init__(backbone, **view_options)
        self.redundancy = redundancy
        self.projector = heads.projector((backbone.dim, hidden, dim))

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        z = self.projector(self.backbone(torch.cat([first, second]))).float()  # (2N, dim)
        both = [distributed.gather(view) for view in z.chunk(2)]  # (N, dim) each, of all processes
        loss = losses.barlow_twins(*both, self.redundancy)
        return loss, {"spread": losses.spread(z)}
