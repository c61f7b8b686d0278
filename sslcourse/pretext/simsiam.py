"""SimSiam: predict one's own other view, and stop the gradient on the side that is predicted."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslcourse import heads, losses
from sslcourse.backbones import Backbone
from sslcourse.pretext.two_views import TwoViews


class SimSiam(TwoViews):
    """BYOL without the slow teacher: the network itself, without gradient, is the teacher (Chen and He, 2020, 2011.10566).

    stop_gradient   False lets the gradient flow into the target as well, and the features collapse
    predictor       False takes the predictor away: they collapse, too
    last_norm       of the projector, as `heads.projector` has it. Without it a collapse is complete: all embeddings are one
    hidden, dim     of the projector
    predictor_hidden   width of the predictor between its two layers. Its authors' narrows to dim / 4; on small pictures
                       and short runs the wide one, as BYOL has it, learned more and failed less often
    crop, jitter, gray, blur   as SimCLR's
    """

    name = "simsiam"
    recipe = {"learning_rate": 3e-3, "weight_decay": 0.05}
    settings = {"steps": 1000, "seconds": 35}

    def __init__(
        self,
        backbone: Backbone,
        *,
        stop_gradient: bool = True,
        predictor: bool = True,
        last_norm: bool = True,
        hidden: int = 256,
        dim: int = 64,
        predictor_hidden: int = 256,
        crop: float = 0.85,
        **view_options: float,
    ):
        super().__init__(backbone, crop=crop, **view_options)
        self.stop_gradient = stop_gradient
        self.projector = heads.projector((backbone.dim, hidden, dim), last_norm=last_norm)
        dims = (dim, predictor_hidden, dim)
        self.predictor = heads.projector(dims, bias=True, seed=1) if predictor else nn.Identity()

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        projected = self.projector(self.backbone(torch.cat([first, second]))).float()  # (2N, dim)
        predicted = self.predictor(projected)
        target = projected.detach() if self.stop_gradient else projected
        loss = losses.negative_cosine(predicted, target.roll(len(first), dims=0))  # the other view's
        return loss, {"spread": losses.spread(projected)}
