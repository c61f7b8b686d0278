"""A small text transformer: a caption's words in, one vector out, through the blocks of the vision transformer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslcourse import device as devices
from sslcourse.errors import CourseError
from sslcourse.vit import Block, init_weights


class TextTransformer(nn.Module):
    """Words to tokens, a token in front that reads them, positions added, blocks, a last norm: (N, L) -> (N, width).

    words   of the vocabulary, V; token numbers lie in 0..V - 1, and number 0 fills captions up
    length  words of a caption, L
    width, depth, heads   of the transformer; heads divide the width

    Every word sees every other, as in SigLIP (Zhai et al., 2023, 2303.15343); CLIP's text transformer looks back alone, and
    reads its last token (Radford et al., 2021, 2103.00020). What fills a caption up is seen as well: a word that says nothing.
    `seed` decides the weights.
    """

    def __init__(self, words: int, length: int, *, width: int = 64, depth: int = 2, heads: int = 4, seed: int = 0):
        super().__init__()
        if width % heads:
            raise CourseError(
                f"heads share a transformer's width, and {heads} heads don't divide {width}; choose others."
            )
        with devices.seeded(seed):
            self.words = nn.Parameter(0.02 * torch.randn(words, width))  # (V, width)
            self.reader = nn.Parameter(0.02 * torch.randn(1, 1, width))
            self.positions = nn.Parameter(0.01 * torch.randn(1, 1 + length, width))
            self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
            self.norm = nn.LayerNorm(width, eps=1e-6)
            self.apply(init_weights)
        self.register_buffer("numbers", torch.arange(words), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        # By a product rather than by looking them up: a GPU adds a look-up's gradients in any order.
        chosen = (tokens[..., None] == self.numbers).to(self.words.dtype)  # (N, L, V), one 1 in each row
        x = (
            torch.cat([self.reader.expand(len(tokens), -1, -1), chosen @ self.words], dim=1) + self.positions
        )  # (N, 1 + L, width)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[:, 0]
