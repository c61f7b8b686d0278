"""SwAV: say of one view in which cluster the other one is."""

from __future__ import annotations

import torch
from torch import Tensor

from sslcourse import distributed, heads, losses
from sslcourse.backbones import Backbone
from sslcourse.pretext.two_views import TwoViews, refuse_low


class SwAV(TwoViews):
    """Swap the assignments of two views to prototypes (Caron et al., 2020, 2006.09882).

    Assignments come from Sinkhorn's algorithm, which uses all prototypes equally; without that, one prototype would take
    everything.

    prototypes           learned directions to which views are assigned
    temperature          of the prediction
    epsilon, iterations  of Sinkhorn: the smaller epsilon, the sharper
    hidden, dim, crop, jitter, gray, blur   as SimCLR's
    """

    name = "swav"
    recipe = {"learning_rate": 5e-3, "weight_decay": 0.05}
    settings = {"steps": 1000, "seconds": 32}

    def __init__(
        self,
        backbone: Backbone,
        *,
        prototypes: int = 64,
        temperature: float = 0.1,
        epsilon: float = 0.05,
        iterations: int = 3,
        hidden: int = 256,
        dim: int = 64,
        crop: float = 0.85,
        **view_options: float,
    ):
        super().__init__(backbone, crop=crop, **view_options)
        refuse_low(temperature=temperature, epsilon=epsilon)
        self.temperature, self.epsilon, self.iterations = temperature, epsilon, iterations
        self.projector = heads.projector((backbone.dim, hidden, dim), last_norm=True)
        self.prototypes = heads.Prototypes(dim, prototypes)

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        z = self.projector(self.backbone(torch.cat([first, second]))).float()  # (2N, dim)
        scores = self.prototypes(z)  # (2N, P), cosines
        a, b = (distributed.gather(view) for view in scores.chunk(2))  # (N, P) each, of all processes
        assigned = [losses.sinkhorn(s, self.epsilon, self.iterations) for s in (b, a)]  # of the other view
        loss = sum(losses.distillation(s, q, self.temperature) for s, q in zip((a, b), assigned, strict=True)) / 2
        used = assigned[0].mean(dim=0)  # (P,) share of each prototype
        return loss, {"spread": losses.spread(z), "used": (-(used * (used + 1e-9).log()).sum()).exp()}
