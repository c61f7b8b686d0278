"""I-JEPA: from a part of a picture, predict what a teacher who sees all of it makes of other parts: features, not pixels."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from sslcourse import augment, losses, schedules, teacher, vit
from sslcourse import device as devices
from sslcourse.backbones import Backbone
from sslcourse.errors import CourseError
from sslcourse.pretext.base import PretextTask
from sslcourse.pretext.two_views import refuse_outside

ASPECT = 0.75  # height over width of every other block, and width over height of those between


class IJEPA(PretextTask):
    """A joint-embedding predictive architecture for images (Assran et al., 2023, 2301.08243).

    The teacher sees the whole picture. The student sees patches outside of a few blocks, and a narrow predictor is told
    the places of one block and must say the teacher's features there. No crops, no colours, no made-up answers: the
    pictures are only mirrored.

    blocks   how many are predicted, each on its own
    block    the share of the picture that one takes
    momentum of the teacher at the start, in [0, 1]; it rises to 1 along a cosine
    width, depth   of the predictor, which is thrown away afterwards
    """

    name = "ijepa"
    scheduled = True
    arch = "vit-tiny"
    recipe = {"learning_rate": 2e-3, "weight_decay": 0.05}
    settings = {"steps": 1200, "batch_size": 16, "seconds": 85}

    may_be_zero = ("depth",)

    def __init__(
        self,
        backbone: Backbone,
        *,
        blocks: int = 4,
        block: float = 0.1875,
        momentum: float = 0.99,
        width: int = 64,
        depth: int = 2,
    ):
        super().__init__(backbone)
        self.refuse_without_patches("I-JEPA leaves patches out of its input")
        refuse_outside(block=block, momentum=momentum)
        side = backbone.trunk.side
        self.blocks, self.momentum = blocks, momentum
        self.shape = block_shape(block, side)
        self.kept = side**2 - blocks * self.shape[0] * self.shape[1]  # so many are outside of any blocks
        if min(self.shape) < 1 or max(self.shape) > side or self.kept < 1:
            raise CourseError(
                f"{blocks} blocks of a share of {block!r} leave none of {side} x {side} patches to predict from, or have no "
                "patch; ask for fewer or smaller blocks, such as 4 of 0.1875."
            )
        self.predictor = Predictor(backbone.trunk, width, depth)
        self.teacher = teacher.copy_of(self.backbone)

    def views(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """uint8 (N, 3, H, H) -> float images in [0, 1]; int64 (N, K), patches that the student sees; int64 (N, B, P), blocks."""
        images = augment.random_flip(augment.to_float(images), generator)
        side = self.backbone.trunk.side
        targets = random_blocks(len(images), side, self.blocks, self.shape, generator)
        return images, outside(targets, side**2, self.kept, generator), targets

    def forward(self, images: Tensor, context: Tensor, targets: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        target, features = self.target(images, targets)
        tokens = self.encode(images, context)[:, 1:]  # (N, K, d)
        predicted = self.predictor(tokens, context, targets).float()  # (N, B, P, d)
        loss = functional.smooth_l1_loss(predicted, target)
        return loss, {"spread": losses.spread(features), "error": (predicted - target).detach().square().mean().sqrt()}

    @torch.no_grad()
    def target(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The teacher's features at the targets, each with its mean taken off and divided by its deviation: (N, B, P, d).

        And beside them the mean of all features of each picture (N, d), to see a collapse by.
        """
        trunk = self.teacher.trunk
        seen = trunk.encode(trunk.embed(self.teacher.preprocess(images)))[:, 1:].float()  # (N, L, d)
        normal = functional.layer_norm(seen, seen.shape[-1:])
        return vit.pick(normal, targets.flatten(1)).unflatten(1, targets.shape[1:]), seen.mean(dim=1)

    def encode(self, images: Tensor, context: Tensor) -> Tensor:
        """The backbone on the patches of the context alone: (N, 1 + K, d), class token first."""
        trunk = self.backbone.trunk
        return trunk.encode(vit.pick(trunk.embed(self.backbone.preprocess(images)), context))

    def after_step(self, progress: float) -> None:
        teacher.follow(self.teacher, self.backbone, schedules.cosine(progress, self.momentum, 1.0))


class Predictor(nn.Module):
    """A narrow transformer: from some tokens and where they stand, the features at other places."""

    def __init__(self, trunk: vit.VisionTransformer, width: int, depth: int):
        super().__init__()
        with devices.seeded(0):
            self.embed = nn.Linear(trunk.dim, width)
            self.mask_token = nn.Parameter(0.02 * torch.randn(1, 1, width))
            self.blocks = nn.ModuleList(vit.Block(width, heads=4) for _ in range(depth))
            self.norm = nn.LayerNorm(width, eps=1e-6)
            self.out = nn.Linear(width, trunk.dim)
            for part in (self.embed, self.blocks, self.out):
                part.apply(vit.init_weights)
        self.register_buffer("places", vit.sine_positions(trunk.side, width)[0, 1:], persistent=False)  # (L, width)

    def forward(self, tokens: Tensor, context: Tensor, targets: Tensor) -> Tensor:
        """Tokens (N, K, d) of the patches `context` (N, K) -> features at `targets` (N, B, P): (N, B, P, d).

        Each block is predicted on its own, as if nobody had asked for the others.
        """
        count, blocks, size = targets.shape
        known = self.embed(tokens) + self.places[context]  # (N, K, width)
        known = known[:, None].expand(-1, blocks, -1, -1)  # (N, B, K, width)
        asked = self.mask_token[:, None] + self.places[targets]  # (N, B, P, width)
        x = torch.cat([known, asked], dim=2).flatten(0, 1)  # (N * B, K + P, width)
        for block in self.blocks:
            x = block(x)
        return self.out(self.norm(x[:, -size:])).unflatten(0, (count, blocks))


def block_shape(share: float, side: int) -> tuple[int, int]:
    """Height and width, in patches, of a block that takes this share of side x side patches: (3, 4) of 8 x 8 at 0.1875."""
    return round(side * math.sqrt(share * ASPECT)), round(side * math.sqrt(share / ASPECT))


def random_blocks(count: int, side: int, blocks: int, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Which patches, of side x side numbered rows first, each block has: int64 (count, blocks, height * width).

    Blocks lie anywhere, and may share patches. Every other one is turned: its height is the others' width.
    """
    place, drawn = generator.device, []
    for i in range(blocks):
        tall, wide = shape if i % 2 == 0 else shape[::-1]
        top = torch.randint(side - tall + 1, (count,), generator=generator, device=place)
        left = torch.randint(side - wide + 1, (count,), generator=generator, device=place)
        rows = top[:, None] + torch.arange(tall, device=place)  # (count, tall)
        columns = left[:, None] + torch.arange(wide, device=place)  # (count, wide)
        drawn.append((rows[:, :, None] * side + columns[:, None]).flatten(1))
    return torch.stack(drawn, dim=1)


def outside(targets: Tensor, places: int, kept: int, generator: torch.Generator) -> Tensor:
    """`kept` patches of each picture that lie in none of its blocks, at random: int64 (N, kept).

    targets  int64 (N, B, P), numbers of patches below `places`; at most places - kept of them differ
    """
    numbers = torch.arange(places, device=targets.device)
    taken = (targets.flatten(1)[:, :, None] == numbers).any(dim=1)  # (N, places)
    order = torch.rand(taken.shape, generator=generator, device=generator.device) + taken  # what is taken comes last
    return order.argsort(dim=1)[:, :kept]
