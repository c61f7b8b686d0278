"""Pretext tasks that need time: which frames are of one episode, and what was done between two frames?"""

from __future__ import annotations

import torch
from torch import Tensor

from sslcourse import augment, heads, losses
from sslcourse.backbones import Backbone
from sslcourse.control.environment import MOVES
from sslcourse.control.play import companions, followers
from sslcourse.data.imageset import ImageSet
from sslcourse.pretext.base import PretextTask


class OfPlay(PretextTask):
    """A task on pairs of frames of one episode: it needs random play, and not its frames alone.

    stage  of the backbone whose map is read, with its positions: where a hand is matters as much as what is there
    """

    least_batch = 2

    def __init__(self, backbone: Backbone, *, stage: int = 3):
        super().__init__(backbone)
        backbone.refuse_stage(stage)
        self.stage = stage
        self.dim = flat_features(backbone, torch.zeros(1, 3, 32, 32), stage).shape[1]

    def read(self, *frames: Tensor) -> tuple[Tensor, ...]:
        """Features (N, dim) of several batches of frames, which pass the network together."""
        return flat_features(self.backbone, torch.cat(frames), self.stage).chunk(len(frames))


class TemporalContrast(OfPlay):
    """Find one of the next two frames among those of the batch: near in time is alike, as in van den Oord et al. (2018,
    1807.03748) and, for play, in Anand et al. (2019, 1906.08226). The negatives are the batch's other frames, most of other episodes.
    """

    name = "temporal"
    recipe = {"learning_rate": 4e-3, "weight_decay": 0.05}

    def __init__(
        self, backbone: Backbone, *, temperature: float = 0.2, hidden: int = 256, dim: int = 64, stage: int = 3
    ):
        super().__init__(backbone, stage=stage)
        self.temperature = temperature
        self.projector = heads.projector((self.dim, hidden, dim))

    def beside(self, images: ImageSet) -> tuple[Tensor]:
        """uint8 (N, K, 3, H, W): other frames of each one's episode."""
        others = companions(images)  # (N, K)
        return (images.images[others],)

    def views(self, images: Tensor, generator: torch.Generator, others: Tensor) -> tuple[Tensor, ...]:
        """A frame and one of the others, each moved by up to two pixels: float (N, 3, H, W) in [0, 1] twice."""
        count, device = others.shape[1], images.device
        which = torch.randint(count, (len(images),), generator=generator, device=device)  # (N,)
        other = others[torch.arange(len(images), device=device), which]  # (N, 3, H, W)
        return tuple(augment.random_shift(augment.to_float(x), generator, 2) for x in (images, other))

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        z = self.projector(torch.cat(self.read(first, second))).float()  # (2N, dim)
        return losses.nt_xent(*z.chunk(2), self.temperature), {"spread": losses.spread(z)}


class InverseDynamics(OfPlay):
    """Say what was done between two frames (Agrawal et al., 2016, 1606.07419; Pathak et al., 2017, 1705.05363)."""

    name = "inverse"
    recipe = {"learning_rate": 2e-3, "weight_decay": 0.05}

    def __init__(self, backbone: Backbone, *, hidden: int = 256, stage: int = 3):
        super().__init__(backbone, stage=stage)
        self.head = heads.mlp(2 * self.dim, hidden, len(MOVES))

    def beside(self, images: ImageSet) -> tuple[Tensor, Tensor, Tensor]:
        """uint8 (N, 3, H, W) twice, a frame and its follower, and int64 (N,), the action between them."""
        first, second, action = followers(images)
        return images.images[first], images.images[second], action

    def views(
        self, images: Tensor, generator: torch.Generator, first: Tensor, second: Tensor, action: Tensor
    ) -> tuple[Tensor, ...]:
        """A frame and its follower, float (N, 3, H, W) in [0, 1] twice, and the action (N,)."""
        return augment.to_float(first), augment.to_float(second), action

    def forward(self, first: Tensor, second: Tensor, action: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        logits = self.head(torch.cat(self.read(first, second), dim=1))  # (N, 4)
        return losses.cross_entropy(logits, action), {"accuracy": losses.accuracy(logits, action).detach()}


def flat_features(backbone: Backbone, frames: Tensor, stage: int) -> Tensor:
    """The map of a stage with its positions side by side: float (N, 3, H, W) -> (N, C * h * w); of stage 0, the pixels."""
    if stage == 0:
        return frames.flatten(1)
    return backbone.stages(frames)[stage - 1].flatten(1)
