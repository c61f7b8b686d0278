"""VICReg: views agree, every dimension varies, no two dimensions vary together."""

from __future__ import annotations

import torch
from torch import Tensor

from sslcourse import distributed, heads, losses
from sslcourse.backbones import Backbone
from sslcourse.pretext.two_views import TwoViews


class VICReg(TwoViews):
    """Variance, invariance and covariance, each a term of its own (Bardes, Ponce and LeCun, 2021, 2105.04906).

    invariance, variance, covariance   weights of the three terms; with variance=0 all embeddings become one
    hidden, dim                        of the projector
    crop, jitter, gray, blur           as SimCLR's
    """

    name = "vicreg"
    recipe = {"learning_rate": 5e-3, "weight_decay": 0.05}
    settings = {"steps": 1000, "seconds": 32}

    def __init__(
        self,
        backbone: Backbone,
        *,
        invariance: float = 25.0,
        variance: float = 25.0,
        covariance: float = 1.0,
        hidden: int = 256,
        dim: int = 256,
        **view_options: float,
    ):
        super().__init__(backbone, **view_options)
        self.invariance, self.variance, self.covariance = invariance, variance, covariance
        self.projector = heads.projector((backbone.dim, hidden, dim))

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        z = self.projector(self.backbone(torch.cat([first, second]))).float()  # (2N, dim)
        both = [distributed.gather(view) for view in z.chunk(2)]  # (N, dim) each, of all processes
        loss = losses.vicreg(*both, self.invariance, self.variance, self.covariance)
        return loss, {"spread": losses.spread(z), "deviation": z.detach().std(dim=0).mean()}
