"""BYOL: predict what a slow teacher sees in another view; nothing is a negative."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslcourse import heads, losses, schedules, teacher
from sslcourse.backbones import Backbone
from sslcourse.pretext.two_views import TwoViews, refuse_outside


class BYOL(TwoViews):
    """Bootstrap your own latent (Grill et al., 2020, 2006.07733).

    The student's projection of one view goes through a predictor, which is to give the teacher's projection of the other
    view. All projections could be equal and the loss at its minimum; that this doesn't happen is due to the predictor,
    and to the teacher, through which no gradient flows.

    momentum        of the teacher at the start, in [0, 1]; it rises to 1 along a cosine
    predictor       False takes the predictor away, and the features collapse
    last_norm       of the projector, as `heads.projector` has it. Without it a collapse is complete: all embeddings are one
    hidden, dim, crop, jitter, gray, blur   as SimCLR's
    """

    name = "byol"
    scheduled = True
    recipe = {"learning_rate": 3e-3, "weight_decay": 0.05}
    settings = {"steps": 1500, "seconds": 60}

    def __init__(
        self,
        backbone: Backbone,
        *,
        momentum: float = 0.98,
        predictor: bool = True,
        last_norm: bool = True,
        hidden: int = 256,
        dim: int = 64,
        crop: float = 0.85,
        **view_options: float,
    ):
        super().__init__(backbone, crop=crop, **view_options)
        refuse_outside(momentum=momentum)
        self.momentum = momentum
        self.projector = heads.projector((backbone.dim, hidden, dim), last_norm=last_norm)
        self.predictor = heads.projector((dim, hidden, dim), bias=True, seed=1) if predictor else nn.Identity()
        self.teacher = teacher.copy_of(self.student())

    def student(self) -> nn.Module:
        """What the teacher is a copy of: all but the predictor."""
        return nn.Sequential(self.backbone, self.projector)

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        both = torch.cat([first, second])  # (2N, 3, H, H)
        projected = self.projector(self.backbone(both)).float()  # (2N, dim)
        predicted = self.predictor(projected)
        with torch.no_grad():
            target = self.teacher(both).float()  # (2N, dim)
        loss = 2 + 2 * losses.negative_cosine(predicted, target.roll(len(first), dims=0))  # the other view's
        return loss, {"spread": losses.spread(projected)}

    def after_step(self, progress: float) -> None:
        teacher.follow(self.teacher, self.student(), schedules.cosine(progress, self.momentum, 1.0))
