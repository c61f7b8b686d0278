"""Masked autoencoding: most patches are taken away; what was in them?"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslcourse import augment, patches, vit
from sslcourse import device as devices
from sslcourse.backbones import Backbone
from sslcourse.errors import CourseError
from sslcourse.pretext.base import PretextTask


class MaskedAutoencoder(PretextTask):
    """The encoder sees the few patches that are left, a small decoder predicts the others (He et al., 2021, 2111.06377).

    mask         share of the patches that is taken away; int(L * (1 - mask)) of L are kept
    normalize    predict the pixels of each patch after taking off their mean and dividing by their standard deviation
    width, depth of the decoder, which is thrown away afterwards
    """

    name = "mae"
    arch = "vit-tiny"
    recipe = {"learning_rate": 2e-3, "weight_decay": 0.05}
    settings = {"steps": 2600, "batch_size": 16, "options": {"normalize": False}, "seconds": 75}

    may_be_zero = ("depth",)

    def __init__(
        self, backbone: Backbone, *, mask: float = 0.75, normalize: bool = True, width: int = 64, depth: int = 1
    ):
        super().__init__(backbone)
        self.refuse_without_patches("masked autoencoding leaves patches out of its input")
        trunk = backbone.trunk
        self.mask, self.normalize, self.width, self.depth = mask, normalize, width, depth
        refuse_mask(mask, trunk.side**2)
        with devices.seeded(0):
            self.decoder_embed = nn.Linear(trunk.dim, width)
            self.mask_token = nn.Parameter(0.02 * torch.randn(1, 1, width))
            self.decoder_blocks = nn.ModuleList(vit.Block(width, heads=4) for _ in range(depth))
            self.decoder_norm = nn.LayerNorm(width, eps=1e-6)
            self.decoder_pred = nn.Linear(width, trunk.patch**2 * 3)
            for part in (self.decoder_embed, self.decoder_blocks, self.decoder_pred):
                part.apply(vit.init_weights)
        self.register_buffer("decoder_pos_embed", vit.sine_positions(trunk.side, width)[:, 1:], persistent=False)

    def views(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """uint8 (N, 3, H, H) -> float images in [0, 1]; int64 (N, K), patches kept; int64 (N, L), where each then stands."""
        images = augment.random_flip(augment.to_float(images), generator)
        keep, restore = random_masking(len(images), self.backbone.trunk.side**2, self.mask, generator)
        return images, keep, restore

    def forward(self, images: Tensor, keep: Tensor, restore: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        predicted = self.decode(self.encode(images, keep), restore)  # (N, L, p * p * 3)
        target = self.target(images)
        hidden = restore >= keep.shape[1]  # (N, L), True where the patch was taken away
        error = (predicted - target).square().mean(dim=2)  # (N, L)
        loss = (error * hidden).sum() / hidden.sum()
        return loss, {"error": loss.detach().sqrt()}

    def encode(self, images: Tensor, keep: Tensor) -> Tensor:
        """The backbone on the kept patches alone: (N, 1 + K, d), class token first."""
        trunk = self.backbone.trunk
        tokens = trunk.embed(self.backbone.preprocess(images))  # (N, L, d)
        return trunk.encode(vit.pick(tokens, keep))

    def decode(self, tokens: Tensor, restore: Tensor) -> Tensor:
        """Tokens (N, 1 + K, d), mask tokens in the other places, through the decoder: (N, L, p * p * 3)."""
        tokens = self.decoder_embed(tokens[:, 1:])  # (N, K, width)
        count, places = restore.shape
        blanks = self.mask_token.expand(count, places - tokens.shape[1], -1)
        every = torch.cat([tokens, blanks], dim=1)  # (N, L, width), kept ones first
        every = vit.pick(every, restore) + self.decoder_pos_embed
        for block in self.decoder_blocks:
            every = block(every)
        return self.decoder_pred(self.decoder_norm(every))

    def target(self, images: Tensor) -> Tensor:
        """What the decoder is asked for: (N, L, p * p * 3), of each patch its pixels, normalized or as they are."""
        pixels = patches.patchify(self.backbone.preprocess(images), self.backbone.trunk.patch)
        if not self.normalize:
            return pixels
        spread, mean = _spread_and_mean(pixels)
        return (pixels - mean) / spread

    @torch.no_grad()
    def reconstruct(self, images: Tensor, keep: Tensor, restore: Tensor) -> Tensor:
        """Float images (N, 3, H, H) in [0, 1] with the hidden patches as predicted, the kept ones as they are.

        Computes where the task is; the result is on the CPU.
        With a normalized target the decoder doesn't say how light and how contrasted a patch is: these two numbers are
        taken from the true patch.
        """
        trunk = self.backbone.trunk
        images, keep, restore = (x.to(self.backbone.mean.device) for x in (images, keep, restore))
        with devices.evaluating(self):
            predicted = self.decode(self.encode(images, keep), restore)
        pixels = patches.patchify(self.backbone.preprocess(images), trunk.patch)
        if self.normalize:
            spread, mean = _spread_and_mean(pixels)
            predicted = predicted * spread + mean
        hidden = restore >= keep.shape[1]  # (N, L)
        whole = patches.unpatchify(torch.where(hidden[:, :, None], predicted, pixels), trunk.patch, *images.shape[-2:])
        return (whole * self.backbone.std + self.backbone.mean).clamp(0, 1).cpu()


def refuse_mask(mask: float, places: int) -> None:
    """CourseError for a share that leaves none of so many patches, or hides none."""
    if not 0 < mask < 1 or not 1 <= kept(places, mask) < places:
        raise CourseError(
            f"mask is the share of patches that is taken away, above 0 and below 1, and of the {places} at least one must "
            f"go and one be left; it is {mask!r}."
        )


def kept(count: int, mask: float) -> int:
    """How many of `count` patches are left: int(count * (1 - mask)), safe from rounding such as 10 * (1 - 0.9)."""
    return int(count * (1 - mask) + 1e-6)


def random_masking(count: int, places: int, mask: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Which patches of each image are kept, int64 (count, K), and where each patch stands then, int64 (count, places).

    The patches are shuffled, and the first K stay: patch j stands at place restore[j] of the shuffled row, so it is kept
    if restore[j] < K, and gathering a shuffled row by `restore` brings it back in order.
    """
    shuffle = torch.rand(count, places, generator=generator, device=generator.device).argsort(dim=1)
    return shuffle[:, : kept(places, mask)], shuffle.argsort(dim=1)


def hide(images: Tensor, keep: Tensor, restore: Tensor, patch: int, fill: float = 1.0) -> Tensor:
    """Float images (N, 3, H, W) as the encoder gets them, for looking at: the hidden patches are white, or `fill`."""
    cut = patches.patchify(images, patch)  # (N, L, p * p * 3)
    gone = (restore >= keep.shape[1])[:, :, None]  # (N, L, 1)
    return patches.unpatchify(torch.where(gone, fill, cut), patch, *images.shape[-2:])


def _spread_and_mean(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Standard deviation and mean of each patch of (N, L, P), as the reference code takes them: (N, L, 1) each."""
    variance, mean = torch.var_mean(pixels, dim=2, keepdim=True)
    return (variance + 1e-6).sqrt(), mean
