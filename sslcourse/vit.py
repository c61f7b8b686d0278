"""A small vision transformer (Dosovitskiy et al., 2020, 2010.11929); parameter names and shapes are timm's."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from sslcourse.augment import resize
from sslcourse.errors import CourseError

STAGES = 4


class Attention(nn.Module):
    """Multi-head self-attention: tokens (N, T, d) -> (N, T, d)."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (N, heads, T, d / heads)."""
        count, tokens, dim = x.shape
        qkv = self.qkv(x).view(count, tokens, 3, self.heads, dim // self.heads)
        return qkv.permute(2, 0, 3, 1, 4).unbind(0)

    def weights(self, x: Tensor) -> Tensor:
        """How much each token looks at each other: (N, heads, T, T), rows summing to 1."""
        q, k, _ = self.split(x)
        return (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        mixed = functional.scaled_dot_product_attention(*self.split(x))  # (N, heads, T, d / heads)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(x)))


class Block(nn.Module):
    """Attention and a two-layer network, each on normalized tokens and added to what came in: (N, T, d) -> (N, T, d)."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, 4 * dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    """Each patch through the same linear map, written as a convolution: (N, 3, H, W) -> (N, L, d)."""

    def __init__(self, patch: int, dim: int):
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch, stride=patch)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)


class VisionTransformer(nn.Module):
    """Patches to tokens, a class token in front, positions added, `depth` blocks, a last norm.

    `forward` gives the tokens of the patches after a quarter, half, three quarters and all of the blocks, as maps
    (N, d, H / patch, W / patch), so that it can stand where a residual network stands.
    """

    def __init__(self, image_size: int, patch: int, dim: int, depth: int, heads: int):
        super().__init__()
        if image_size % patch:
            raise CourseError(
                f"patches of {patch} pixels don't tile images of {image_size} pixels; choose sides that {patch} divides."
            )
        self.image_size, self.patch, self.dim, self.depth = image_size, patch, dim, depth
        self.side = image_size // patch  # patches in a row
        self.channels = [dim] * STAGES
        self.patch_embed = PatchEmbed(patch, dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(sine_positions(self.side, dim))  # (1, 1 + L, d)
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        nn.init.normal_(self.cls_token, std=0.02)
        self.apply(init_weights)

    def embed(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) to the tokens of their patches, positions added: (N, L, d). No class token yet.

        Sides other than `image_size` get positions in between (as in Caron et al., 2021, 2104.14294, for small crops).
        """
        height, width = images.shape[-2:]
        if height % self.patch or width % self.patch:
            raise CourseError(
                f"this vision transformer cuts images into patches of {self.patch} pixels, and got images of "
                f"{height}x{width}; resize them to multiples of {self.patch} (--size {self.image_size})."
            )
        return self.patch_embed(images) + self.positions(height // self.patch, width // self.patch)

    def positions(self, rows: int, columns: int) -> Tensor:
        """Positions of rows x columns patches, interpolated where the grid isn't the usual one: (1, rows * columns, d)."""
        place = self.pos_embed[:, 1:]
        if (rows, columns) == (self.side, self.side):
            return place
        grid = place.transpose(1, 2).unflatten(2, (self.side, self.side))  # (1, d, side, side)
        return resize(grid, (rows, columns), mode="bicubic").flatten(2).transpose(1, 2)

    def with_class_token(self, tokens: Tensor) -> Tensor:
        """(N, T, d) -> (N, 1 + T, d)."""
        return torch.cat([(self.cls_token + self.pos_embed[:, :1]).expand(len(tokens), -1, -1), tokens], dim=1)

    def forward(self, images: Tensor) -> list[Tensor]:
        grid = (images.shape[-2] // self.patch, images.shape[-1] // self.patch)
        x = self.with_class_token(self.embed(images))  # (N, 1 + L, d)
        ends = [self.depth * (s + 1) // STAGES for s in range(STAGES)]
        maps = []
        for i, block in enumerate(self.blocks, start=1):
            x = block(x)
            for _ in range(ends.count(i)):
                tokens = (self.norm(x) if i == self.depth else x)[:, 1:]  # (N, L, d)
                maps.append(tokens.transpose(1, 2).unflatten(2, grid))
        return maps

    def encode(self, tokens: Tensor) -> Tensor:
        """Tokens as `embed` gives them, of all patches or of some, through all blocks and the norm.

        (N, T, d) -> (N, 1 + T, d), the class token first.
        """
        x = self.with_class_token(tokens)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def class_token(self, images: Tensor) -> Tensor:
        """The class token after all blocks and the norm: (N, d)."""
        return self.encode(self.embed(images))[:, 0]

    @torch.no_grad()
    def attention(self, images: Tensor) -> Tensor:
        """How much the class token looks at each patch in the last block: (N, heads, H / patch, W / patch)."""
        grid = (images.shape[-2] // self.patch, images.shape[-1] // self.patch)
        x = self.with_class_token(self.embed(images))
        for block in self.blocks[:-1]:
            x = block(x)
        weights = self.blocks[-1].attn.weights(self.blocks[-1].norm1(x))  # (N, heads, 1 + L, 1 + L)
        return weights[:, :, 0, 1:].unflatten(2, grid)


def pick(tokens: Tensor, places: Tensor) -> Tensor:
    """The tokens at these places of each row: (N, T, d) and int64 (N, K) -> (N, K, d)."""
    return tokens.gather(1, places[:, :, None].expand(-1, -1, tokens.shape[2]))


def init_weights(module: nn.Module) -> None:
    """Xavier for linear maps and the patch embedding, as in the masked autoencoder's reference code."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        nn.init.xavier_uniform_(module.weight.view(len(module.weight), -1))
        nn.init.zeros_(module.bias)


def sine_positions(side: int, dim: int) -> Tensor:
    """Sines and cosines of the place of each patch, zeros for the class token: (1, 1 + side * side, dim).

    A quarter of the numbers each for sine and cosine of row and column, at geometrically spaced frequencies
    (Vaswani et al., 2017, 1706.03762, in two dimensions). Raises CourseError when 4 doesn't divide dim.
    """
    if dim % 4:
        raise CourseError(f"positions in two dimensions need a width that 4 divides, and got {dim}.")
    frequency = 10000 ** -(torch.arange(dim // 4) / (dim // 4))  # (dim / 4,)
    angle = torch.arange(side)[:, None] * frequency  # (side, dim / 4)
    line = torch.cat([angle.sin(), angle.cos()], dim=1)  # (side, dim / 2)
    rows, columns = line[:, None].expand(-1, side, -1), line[None].expand(side, -1, -1)
    place = torch.cat([columns, rows], dim=2).reshape(1, side * side, dim)
    return torch.cat([torch.zeros(1, 1, dim), place], dim=1)
