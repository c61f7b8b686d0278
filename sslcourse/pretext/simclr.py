"""SimCLR: which two of these views are of the same picture?"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslcourse import distributed, heads, losses
from sslcourse.backbones import Backbone
from sslcourse.pretext.two_views import TwoViews, refuse_low


class SimCLR(TwoViews):
    """Find the other view of a picture among all views of the batch (Chen et al., 2020, 2002.05709).

    temperature          divides the cosines: the lower, the more the nearest negatives count
    hidden, dim          of the projector, which is thrown away; hidden=0 compares the features themselves
    crop, jitter, gray, blur   of `augment.view`: smallest crop's share, strength, probabilities
    """

    name = "simclr"
    recipe = {"learning_rate": 5e-3, "weight_decay": 0.05}
    settings = {"steps": 1000, "seconds": 30}

    may_be_zero = ("hidden",)

    def __init__(
        self, backbone: Backbone, *, temperature: float = 0.2, hidden: int = 256, dim: int = 64, **view_options: float
    ):
        super().__init__(backbone, **view_options)
        refuse_low(temperature=temperature)
        self.temperature = temperature
        self.projector = heads.projector((backbone.dim, hidden, dim)) if hidden else nn.Identity()

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        z = self.projector(self.backbone(torch.cat([first, second]))).float()  # (2N, dim)
        both = [distributed.gather(view) for view in z.chunk(2)]  # (N, dim) each, of all processes
        loss = losses.nt_xent(*both, self.temperature)
        return loss, {"spread": losses.spread(z)}
