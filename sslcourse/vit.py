"""A vision transformer (Dosovitskiy et al., 2020, 2010.11929); parameter names and shapes are timm's.

Beside it stand the parts that other people's transformers have and the course's own don't: rotary positions, attention
pooling, other activations. `weights.networks` puts them together.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from sslcourse.augment import resize
from sslcourse.errors import CourseError

STAGES = 4
ACTIVATIONS = {
    "gelu": functional.gelu,
    "gelu-tanh": functools.partial(functional.gelu, approximate="tanh"),
    "quick-gelu": lambda x: x * torch.sigmoid(1.702 * x),
}
Angles = tuple[Tensor, Tensor]  # sines and cosines (L, e), by which the queries and keys of L patches are turned


class Attention(nn.Module):
    """Multi-head self-attention: tokens (N, T, d) -> (N, T, d); with `angles`, positions are turned into the last L."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def split(self, x: Tensor, angles: Angles | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (N, heads, T, d / heads)."""
        count, tokens, dim = x.shape
        qkv = self.qkv(x).view(count, tokens, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return (q, k, v) if angles is None else (turned(q, angles), turned(k, angles), v)

    def weights(self, x: Tensor, angles: Angles | None = None) -> Tensor:
        """How much each token looks at each other: (N, heads, T, T), rows summing to 1."""
        q, k, _ = self.split(x, angles)
        return (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(dim=-1)

    def forward(self, x: Tensor, angles: Angles | None = None) -> Tensor:
        mixed = functional.scaled_dot_product_attention(*self.split(x, angles))  # (N, heads, T, d / heads)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two linear maps with an activation between them, one of ACTIVATIONS."""

    def __init__(self, dim: int, hidden: int, activation: str = "gelu"):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(ACTIVATIONS[self.activation](self.fc1(x)))


class Block(nn.Module):
    """Attention and a two-layer network, each on normalized tokens and added to what came in: (N, T, d) -> (N, T, d)."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, 4 * dim)

    def forward(self, x: Tensor, angles: Angles | None = None) -> Tensor:
        x = x + self.attn(self.norm1(x), angles)
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    """Each patch through the same linear map, written as a convolution: (N, 3, H, W) -> (N, L, d)."""

    def __init__(self, patch: int, dim: int, bias: bool = True):
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch, stride=patch, bias=bias)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)


class VisionTransformer(nn.Module):
    """Patches to tokens, a class token in front, positions added, `depth` blocks, a last norm.

    `forward` gives the tokens of the patches after a quarter, half, three quarters and all of the blocks, as maps
    (N, d, H / patch, W / patch), so that it can stand where a residual network stands.

    Other people's transformers may lack the class token, and may have more, each None here:

    reg_token  (1, R, d), registers: tokens after the class token that stand for no patch (Darcet et al., 2023, 2309.16588)
    rope       RotaryPositions, in place of learned ones
    norm_pre   a norm before the first block (CLIP: Radford et al., 2021, 2103.00020)
    attn_pool  AttentionPool, after the last norm (SigLIP: Zhai et al., 2023, 2303.15343)
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
        self.reg_token = self.rope = self.norm_pre = self.attn_pool = None
        self.placed = 1  # tokens before the patches that have a position of their own
        self.antialias = False  # whether positions in between are smoothed
        nn.init.normal_(self.cls_token, std=0.02)
        self.apply(init_weights)

    @property
    def extra(self) -> int:
        """Tokens before those of the patches."""
        return sum(token.shape[1] for token in (self.cls_token, self.reg_token) if token is not None)

    @property
    def sums_up(self) -> bool:
        """Whether `class_token` gives something: a class token, or what attention pooling saw."""
        return self.cls_token is not None or self.attn_pool is not None

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
        tokens = self.patch_embed(images)
        return tokens if self.rope is not None else tokens + self.positions(*self.grid(images))

    def grid(self, images: Tensor) -> tuple[int, int]:
        """Rows and columns of patches."""
        return images.shape[-2] // self.patch, images.shape[-1] // self.patch

    def positions(self, rows: int, columns: int) -> Tensor:
        """Positions of rows x columns patches, interpolated where the grid isn't the usual one: (1, rows * columns, d)."""
        place = self.pos_embed[:, self.placed :]
        if (rows, columns) == (self.side, self.side):
            return place
        grid = place.transpose(1, 2).unflatten(2, (self.side, self.side))  # (1, d, side, side)
        return resize(grid, (rows, columns), mode="bicubic", antialias=self.antialias).flatten(2).transpose(1, 2)

    def angles(self, images: Tensor) -> Angles | None:
        """What the blocks turn their queries and keys by; None where positions are added to the tokens."""
        return None if self.rope is None else self.rope(*self.grid(images))

    def with_class_token(self, tokens: Tensor) -> Tensor:
        """(N, T, d) -> (N, P + T, d): the class token and the registers, where there are some, in front."""
        if self.extra:
            extra = torch.cat([t for t in (self.cls_token, self.reg_token) if t is not None], dim=1)  # (1, P, d)
            if self.placed:
                placed = extra[:, : self.placed] + self.pos_embed[:, : self.placed]
                extra = torch.cat([placed, extra[:, self.placed :]], dim=1)
            tokens = torch.cat([extra.expand(tokens.shape[0], -1, -1), tokens], dim=1)
        return tokens if self.norm_pre is None else self.norm_pre(tokens)

    def forward(self, images: Tensor) -> list[Tensor]:
        grid, angles = self.grid(images), self.angles(images)
        x = self.with_class_token(self.embed(images))  # (N, P + L, d)
        ends = [self.depth * (s + 1) // STAGES for s in range(STAGES)]
        maps = []
        for i, block in enumerate(self.blocks, start=1):
            x = block(x, angles)
            for _ in range(ends.count(i)):
                tokens = (self.norm(x) if i == self.depth else x)[:, self.extra :]  # (N, L, d)
                maps.append(tokens.transpose(1, 2).unflatten(2, grid))
        return maps

    def encode(self, tokens: Tensor, angles: Angles | None = None) -> Tensor:
        """Tokens as `embed` gives them, of all patches or of some, through all blocks and the norm.

        (N, T, d) -> (N, P + T, d), the class token first.
        """
        x = self.with_class_token(tokens)
        for block in self.blocks:
            x = block(x, angles)
        return self.norm(x)

    def class_token(self, images: Tensor) -> Tensor:
        """The class token after all blocks and the norm, or what attention pooling makes of all tokens: (N, d).

        Raises CourseError where there is neither.
        """
        self._require_class_token(pooled=True)
        x = self.encode(self.embed(images), self.angles(images))
        return x[:, 0] if self.attn_pool is None else self.attn_pool(x)

    @torch.no_grad()
    def attention(self, images: Tensor) -> Tensor:
        """How much the class token looks at each patch in the last block: (N, heads, H / patch, W / patch)."""
        self._require_class_token(pooled=False)
        grid, angles = self.grid(images), self.angles(images)
        x = self.with_class_token(self.embed(images))
        for block in self.blocks[:-1]:
            x = block(x, angles)
        weights = self.blocks[-1].attn.weights(self.blocks[-1].norm1(x), angles)  # (N, heads, P + L, P + L)
        return weights[:, :, 0, self.extra :].unflatten(2, grid)

    def _require_class_token(self, pooled: bool) -> None:
        if self.cls_token is None and not (pooled and self.attn_pool is not None):
            raise CourseError(
                "this vision transformer has no class token; read its patches, at a stage of 1 to 4 or all of them."
            )


class RotaryPositions(nn.Module):
    """Where a patch is, as angles by which its queries and keys are turned (Su et al., 2021, 2104.09864), in two
    dimensions as in DINOv3 (Siméoni et al., 2025, 2508.10104). `width` is that of a head, and 4 must divide it."""

    def __init__(self, width: int, base: float = 100.0):
        super().__init__()
        self.register_buffer("periods", base ** (torch.arange(width // 4) * 4 / width))  # (e / 4,)

    def forward(self, rows: int, columns: int) -> Angles:
        """Sines and cosines, each (rows * columns, e), of places in [-1, 1] whatever the size of the image."""
        lines = [(torch.arange(n, device=self.periods.device) + 0.5) * (2 / n) - 1 for n in (rows, columns)]
        places = torch.stack(torch.meshgrid(*lines, indexing="ij"), dim=-1).flatten(0, 1)  # (L, 2)
        angles = 2 * math.pi * places[:, :, None] / self.periods  # (L, 2, e / 4)
        angles = angles.flatten(1).tile(2)  # (L, e)
        return angles.sin(), angles.cos()


def turned(x: Tensor, angles: Angles) -> Tensor:
    """x (N, heads, T, e) with its last L tokens turned, each in e / 2 planes: that of number i and number i + e / 2."""
    sines, cosines = angles
    extra, patches = x.split([x.shape[2] - len(sines), len(sines)], dim=2)
    first, second = patches.chunk(2, dim=3)
    patches = patches * cosines + torch.cat([-second, first], dim=3) * sines  # (N, heads, L, e)
    return torch.cat([extra, patches], dim=2)


class AttentionPool(nn.Module):
    """One learned query that looks at all tokens, and a two-layer network on what it saw: (N, T, d) -> (N, d).

    From Zhai et al., 2021, 2106.04560 (there: multi-head attention pooling).
    """

    def __init__(self, dim: int, heads: int, hidden: int, eps: float = 1e-6, activation: str = "gelu"):
        super().__init__()
        self.heads = heads
        self.latent = nn.Parameter(torch.zeros(1, 1, dim))
        self.q, self.kv = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, hidden, activation)

    def forward(self, x: Tensor) -> Tensor:
        count, tokens, dim = x.shape
        q = self.q(self.latent).view(1, 1, self.heads, dim // self.heads).transpose(1, 2).expand(count, -1, -1, -1)
        k, v = self.kv(x).view(count, tokens, 2, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(q, k, v)  # (N, heads, 1, d / heads)
        seen = self.proj(seen.transpose(1, 2).flatten(1))  # (N, d)
        return seen + self.mlp(self.norm(seen))


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
