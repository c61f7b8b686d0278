"""MoCo: find the key of the same picture among a long queue of keys, made by a teacher that moves slowly."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from sslcourse import distributed, heads, losses, teacher
from sslcourse.backbones import Backbone
from sslcourse.pretext.two_views import TwoViews, refuse_low, refuse_outside


class MoCo(TwoViews):
    """Momentum contrast, version 2 (He et al., 2019, 1911.05722; Chen et al., 2020, 2003.04297).

    The batch's own keys are the positives, and those of earlier batches, in the queue, the negatives. On one device
    batch norm sees the whole batch, whatever its order, so shuffling keys between devices, as the paper does, would
    change nothing. (Its statistics do differ from batch to batch, and so do those of the negatives from the positives'.)

    queue         keys that are remembered
    momentum      of the teacher, in [0, 1]; it follows the student after each step. The paper calls the student the query
                  encoder and the teacher the key encoder
    temperature, hidden, dim, crop, jitter, gray, blur   as SimCLR's
    """

    name = "moco"
    recipe = {"learning_rate": 5e-3, "weight_decay": 0.05}
    settings = {"steps": 1000, "seconds": 27}

    def __init__(
        self,
        backbone: Backbone,
        *,
        queue: int = 1024,
        momentum: float = 0.99,
        temperature: float = 0.2,
        hidden: int = 256,
        dim: int = 64,
        **view_options: float,
    ):
        super().__init__(backbone, **view_options)
        refuse_low(temperature=temperature)
        refuse_outside(momentum=momentum)
        self.momentum, self.temperature, self.dim = momentum, temperature, dim
        self.projector = heads.projector((backbone.dim, hidden, dim), last_norm=True)
        self.teacher = teacher.copy_of(self.student())
        noise = torch.randn(queue, dim, generator=torch.Generator().manual_seed(0))
        self.register_buffer("queue", functional.normalize(noise, dim=1))  # (K, dim): noise, until keys replace it
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))  # the row that is written next

    def student(self) -> nn.Module:
        return nn.Sequential(self.backbone, self.projector)

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        queries = self.projector(self.backbone(first)).float()  # (N, dim)
        with torch.no_grad():
            keys = functional.normalize(self.teacher(second).float(), dim=1)  # (N, dim)
        negatives = self.queue.clone()  # the loss needs it as it is now, and it is about to be written
        loss = losses.info_nce(queries, keys, negatives, self.temperature)
        if self.training:
            self.enqueue(distributed.gather(keys))
        return loss, {"spread": losses.spread(queries)}

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        """Write keys (N, dim) over the oldest ones. The pointer stays on the device, and N needn't divide the queue."""
        keys = keys[-len(self.queue) :]
        place = (self.pointer + torch.arange(len(keys), device=keys.device)) % len(self.queue)
        self.queue[place] = keys
        self.pointer.add_(len(keys)).remainder_(len(self.queue))

    def after_step(self, progress: float) -> None:
        teacher.follow(self.teacher, self.student(), self.momentum)
