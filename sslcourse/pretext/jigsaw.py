"""Jigsaw: in which order were the tiles of this picture laid?"""

from __future__ import annotations

import itertools
from functools import lru_cache

import torch
from torch import Tensor

from sslcourse import augment, heads, losses, patches
from sslcourse.backbones import Backbone
from sslcourse.errors import CourseError
from sslcourse.pretext.base import PretextTask

GRIDS = (2, 3)
SMALLEST = 4  # pixels: the side of the smallest tile that shows anything


class Jigsaw(PretextTask):
    """Predict the permutation of shuffled tiles (Noroozi and Favaro, 2016, 1603.09246).

    Every tile goes through the backbone alone (the context-free network: no feature sees two tiles), and the head sees
    the features of all of them in the order in which they lie.

    grid           2 or 3 tiles in a row
    permutations   how many are asked about: all 24 of a 2x2 grid, or as many of the 362,880 of a 3x3 grid, far apart
    tile           side of a tile, as a share of its cell's: what is left free is the gap, and tiles lie anywhere in
                   their cell, so that an edge that runs across the border doesn't tell
    standardize    give each tile mean 0.45 and standard deviation 0.225 in each channel, so that shades don't tell
    puzzles        how many puzzles of each picture
    """

    name = "jigsaw"
    settings = {"steps": 600, "seconds": 33}

    def __init__(
        self,
        backbone: Backbone,
        *,
        grid: int = 2,
        permutations: int = 24,
        tile: float = 0.875,
        standardize: bool = False,
        puzzles: int = 4,
        hidden: int = 256,
    ):
        super().__init__(backbone)
        self.refuse_fixed_size()
        if grid not in GRIDS:
            raise CourseError(f"grid must be 2 or 3, tiles in a row, and is {grid!r}.")
        if not 0 < tile <= 1:
            raise CourseError(f"tile is a share of its cell, above 0 and at most 1, and is {tile!r}.")
        self.grid, self.tile, self.standardize, self.puzzles = grid, tile, standardize, puzzles
        self.register_buffer("orders", permutation_set(grid * grid, permutations), persistent=False)  # (P, grid * grid)
        self.head = heads.mlp(grid * grid * backbone.dim, hidden, permutations)

    def prepare(self, images: Tensor) -> None:
        """Refuse images whose tiles would be too small to show anything."""
        height, width = images.shape[-2:]
        if self.side(height, width) < SMALLEST:
            raise CourseError(
                f"tiles of a {self.grid}x{self.grid} grid on images of {height}x{width} have fewer than {SMALLEST} "
                "pixels a side; use larger images (--size) or a larger share (--option tile=...)."
            )

    def side(self, height: int, width: int) -> int:
        """The side of a tile, in pixels."""
        return round(self.tile * (min(height, width) // self.grid))

    def views(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """uint8 (N, 3, H, W) -> tiles as they lie, (M, grid * grid, 3, t, t) in [0, 1], and int64 (M,) in `orders`.

        Place i of puzzle m shows tile orders[answer[m], i] of the picture; M = puzzles * N.
        """
        images = images.repeat(self.puzzles, 1, 1, 1)  # (M, 3, H, W)
        cut = patches.tiles(images, self.grid, self.side(*images.shape[-2:]), generator)  # (M, grid * grid, 3, t, t)
        answer = torch.randint(len(self.orders), (len(images),), generator=generator, device=images.device)
        order = self.orders.to(images.device)[answer]  # (M, grid * grid)
        laid = augment.to_float(lay(cut, order))
        return standardized(laid) if self.standardize else laid, answer

    def forward(self, laid: Tensor, answer: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        z = self.backbone(laid.flatten(0, 1))  # (M * grid * grid, d): each tile alone
        logits = self.head(z.view(len(laid), -1))  # (M, grid * grid * d) -> (M, P)
        return losses.cross_entropy(logits, answer), {"accuracy": losses.accuracy(logits, answer).detach()}


def lay(tiles: Tensor, order: Tensor) -> Tensor:
    """Tiles (M, T, ...) in another order: place i of the result shows tile order[m, i]; order is int64 (M, T)."""
    return tiles[torch.arange(len(tiles), device=tiles.device)[:, None], order]


def inverse(order: Tensor) -> Tensor:
    """The order (M, T) that undoes `order`: lay(lay(tiles, order), inverse(order)) is tiles."""
    return order.argsort(dim=1)


def standardized(tiles: Tensor) -> Tensor:
    """Each tile (M, T, C, t, t) with mean 0.45 and standard deviation 0.225 in each channel, about as photographs have."""
    spread, mean = torch.std_mean(tiles, dim=(3, 4), keepdim=True, correction=0)
    return 0.45 + 0.225 * (tiles - mean) / spread.clamp(min=0.02)  # flat tiles stay flat: their noise isn't a pattern


@lru_cache(maxsize=8)
def permutation_set(tiles: int, count: int) -> Tensor:
    """`count` permutations of `tiles` places, far from each other: int64 (count, tiles), the identity first.

    Chosen one after the other, each the farthest from its nearest among those before it, by Hamming distance (the
    number of places that differ); at a tie the farthest on the whole, then the first in alphabetical order. Noroozi and
    Favaro's Algorithm 1 takes the farthest on average from those before it. Raises CourseError when there are fewer than `count`.
    """
    everything = torch.tensor(list(itertools.permutations(range(tiles))), dtype=torch.int8)  # (tiles!, tiles)
    if not 2 <= count <= len(everything):
        raise CourseError(
            f"a puzzle of {tiles} tiles has {len(everything):,} permutations, and {count} were asked for; "
            f"choose between 2 and {len(everything):,}."
        )
    chosen = [0]
    nearest = torch.full((len(everything),), tiles + 1, dtype=torch.int64)  # distance to the nearest chosen one
    total = torch.zeros_like(nearest)  # the sum of distances to all chosen ones
    while len(chosen) < count:
        distance = (everything != everything[chosen[-1]]).sum(dim=1)  # (tiles!,)
        nearest, total = torch.minimum(nearest, distance), total + distance
        chosen.append(int((nearest * (tiles * count + 1) + total).argmax()))
    return everything[chosen].long()
