"""Context prediction: where does the second patch lie, seen from the first?"""

from __future__ import annotations

import torch
from torch import Tensor

from sslcourse import augment, heads, losses, patches
from sslcourse.backbones import Backbone
from sslcourse.device import constant
from sslcourse.errors import CourseError, one_of
from sslcourse.pretext.base import PretextTask

# The eight neighbours as (rows down, columns right), numbered as one reads.
OFFSETS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
POSITION_NAMES = (
    "above left",
    "above",
    "above right",
    "left",
    "right",
    "below left",
    "below",
    "below right",
)
COLOURS = ("keep", "project", "drop")
SMALLEST = 4  # pixels: the side of the smallest patch that shows anything


class Context(PretextTask):
    """Predict which of its eight neighbours a patch is (Doersch, Gupta and Efros, 2015, 1505.05192).

    Two patches of one picture go through the same backbone, one after the other, and the head sees both features. Every
    picture asks all eight questions, each about a first patch at another place.

    patch    side of a patch, as a share of the image's
    gap      least distance of two patches, as a share of the patch: an edge that runs across the border would tell
    jitter   by how much the second patch may lie further away, in each direction, likewise
    colour   "keep"; or, against chromatic aberration, "project" (take off the axis from green to magenta) or "drop"
             (keep one colour channel, drawn at random, and put noise in place of the others)
    """

    name = "context"
    settings = {"steps": 400, "seconds": 37}

    def __init__(
        self,
        backbone: Backbone,
        *,
        patch: float = 0.375,
        gap: float = 0.15,
        jitter: float = 0.3,
        colour: str = "keep",
        hidden: int = 256,
    ):
        super().__init__(backbone)
        self.refuse_fixed_size()
        one_of("colour", colour, COLOURS)
        if not (0 < patch and 0 <= gap and 0 <= jitter and patch * (2 + gap + jitter) <= 1):
            raise CourseError(
                f"two patches with their gap must fit into the picture: patch * (2 + gap + jitter) may be 1 at most, and "
                f"is {patch} * (2 + {gap} + {jitter}) = {patch * (2 + gap + jitter):.2f}; take a smaller patch or gap."
            )
        self.patch, self.gap, self.jitter, self.colour = patch, gap, jitter, colour
        self.head = heads.mlp(2 * backbone.dim, hidden, len(OFFSETS))

    def prepare(self, images: Tensor) -> None:
        """Refuse images whose patches would be too small to show anything."""
        if round(self.patch * min(images.shape[-2:])) < SMALLEST:
            height, width = images.shape[-2:]
            raise CourseError(
                f"patches of {self.patch:g} of an image of {height}x{width} have fewer than {SMALLEST} pixels a side; "
                "use larger images (--size) or a larger share (--option patch=...)."
            )

    def views(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """uint8 (N, 3, H, W) -> first and second patches (8N, 3, p, p) in [0, 1], and positions int64 (8N,) in OFFSETS."""
        position = torch.arange(len(OFFSETS), device=images.device).repeat_interleave(len(images))  # (8N,)
        images = images.repeat(len(OFFSETS), 1, 1, 1)  # (8N, 3, H, W)
        size, first, second = place_pairs(
            position, images.shape[-2:], self.patch, self.gap, self.jitter, generator
        )  # (8N, 2) each: row and column of the upper left corner
        pair = [augment.to_float(patches.windows(images, *corner.T, size)) for corner in (first, second)]
        if self.colour == "project":
            pair = [project_colour(patch) for patch in pair]
        elif self.colour == "drop":
            pair = [drop_colour(patch, generator) for patch in pair]
        return *pair, position

    def forward(self, first: Tensor, second: Tensor, position: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        z = self.backbone(torch.cat([first, second]))  # (2M, d): the same backbone for both
        logits = self.head(torch.cat(z.chunk(2), dim=1))  # (M, 2d) -> (M, 8)
        return losses.cross_entropy(logits, position), {"accuracy": losses.accuracy(logits, position).detach()}


def place_pairs(
    position: Tensor, shape: tuple[int, int], patch: float, gap: float, jitter: float, generator: torch.Generator
) -> tuple[int, Tensor, Tensor]:
    """Where the patches of each pair lie: the side p in pixels, and the upper left corners, int64 (M, 2) each.

    position is int64 (M,), places in OFFSETS; shape is (height, width). In each direction of its offset the second
    patch is p + gap to p + gap + jitter away, in the other up to half of the jitter to either side, so that the patches
    never overlap. The pair as a whole lies anywhere in the image.
    """
    size = max(1, round(patch * min(shape)))
    apart, loose = size + round(gap * size), round(jitter * size)
    place = position.device
    offset = constant(OFFSETS, place, torch.int64)[position]  # (M, 2)
    further = torch.randint(loose + 1, offset.shape, generator=generator, device=place)  # (M, 2)
    aside = further - (loose + 1) // 2
    step = torch.where(offset == 0, aside, offset * (apart + further))  # (M, 2) from first to second
    room = (
        constant(tuple(shape), place, torch.int64) - size - step.abs()
    )  # (M, 2) whole pixels that the pair can move by
    share = torch.rand(step.shape, generator=generator, device=place)
    low = (share * (room + 1)).long().minimum(room)  # (M, 2), in [0, room]
    first = low + (-step).clamp(min=0)
    return size, first, first + step


def project_colour(images: Tensor) -> Tensor:
    """Take off the axis from green to magenta: each pixel moves along (-1, 2, -1) until that component is gone.

    Lenses shift green against red and blue, outwards from the centre; without this axis a patch doesn't say how far
    out it lies (Doersch et al., 2015). (N, 3, H, W) -> (N, 3, H, W), about in [0, 1].
    """
    axis = constant((-1.0, 2.0, -1.0), images.device, images.dtype)
    matrix = torch.eye(3, device=images.device) - axis[:, None] * axis / axis.square().sum()  # (3, 3)
    return torch.einsum("ij,njhw->nihw", matrix, images)


def drop_colour(images: Tensor, generator: torch.Generator) -> Tensor:
    """Keep one channel of each image, drawn at random; the others become noise around its mean, a hundredth of its spread.

    (N, 3, H, W) -> (N, 3, H, W), about in [0, 1] (Doersch et al., 2015).
    """
    count = len(images)
    kept = torch.randint(3, (count,), generator=generator, device=images.device)  # (N,)
    channel = images[torch.arange(count, device=images.device), kept][:, None]  # (N, 1, H, W)
    noise = torch.randn(images.shape, generator=generator, device=images.device)
    spread, mean = torch.std_mean(channel, dim=(2, 3), keepdim=True, correction=0)  # (N, 1, 1, 1)
    is_kept = torch.arange(3, device=images.device) == kept[:, None]  # (N, 3)
    return torch.where(is_kept[:, :, None, None], images, mean + spread / 100 * noise)


def chromatic_aberration(images: Tensor, strength: float = 0.03) -> Tensor:
    """What a simple lens does: red is magnified by 1 + strength about the centre, and blue shrunk by 1 - strength.

    (N, 3, H, W) in [0, 1] -> the same. Green stays as it is.
    """
    count, _, height, width = images.shape
    channels = []
    for c, grow in enumerate((1 + strength, 1.0, 1 - strength)):
        whole = constant((height, width), images.device, images.dtype)
        start, length = (whole - whole / grow) / 2, whole / grow
        rows, columns = (
            augment.resampling_matrix(start[i].expand(count), length[i].expand(count), side, side)
            for i, side in enumerate((height, width))
        )
        channels.append(augment.resample(images[:, c : c + 1], rows, columns))
    return torch.cat(channels, dim=1)
