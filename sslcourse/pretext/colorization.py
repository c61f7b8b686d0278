"""Colorization: given the light of a picture, what are its colours?"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from sslcourse import augment, color, heads, losses
from sslcourse import device as devices
from sslcourse.backbones import Backbone
from sslcourse.errors import CourseError, one_of
from sslcourse.pretext.base import PretextTask

OBJECTIVES = ("classification", "regression")
GRAY = 1.0  # chroma in units of Lab: below it, nobody sees a colour
LOOKED_AT = 1000  # images, evenly spread over the set, from which the frequency of colours is estimated


class Colorization(PretextTask):
    """Predict the ab of Lab from its L (Zhang, Isola and Efros, 2016, 1603.08511), at a quarter of the resolution.

    objective   "classification" into bins of the ab plane, or "regression" on ab with the squared error, whose best
                answer is the mean of what is possible: gray, where a thing may have any colour
    rebalance   in [0, 1]: 0 weighs every pixel alike, 1 every colour, however rare. The paper takes 0.5
    width       side of a bin, in units of Lab

    Refuses a data set of gray pictures.
    """

    name = "colorization"
    settings = {"steps": 400, "seconds": 23}

    def __init__(
        self, backbone: Backbone, *, objective: str = "classification", rebalance: float = 0.5, width: int = 10
    ):
        super().__init__(backbone)
        one_of("objective", objective, OBJECTIVES)
        if not 0 <= rebalance <= 1:
            raise CourseError(f"rebalance is a share, in [0, 1], and is {rebalance!r}.")
        self.objective, self.rebalance, self.width = objective, rebalance, width
        centres = color.bins(width)  # (Q, 2)
        self.register_buffer("centres", centres)
        self.register_buffer("weights", torch.ones(len(centres)))  # of each bin in the loss; `prepare` sets them
        index, share = color.soft_assignment(width)
        self.register_buffer("index", index, persistent=False)  # (S * S, 5): a table, made again from `width`
        self.register_buffer("share", share, persistent=False)
        self.head = heads.Decoder(backbone.channels, len(centres) if objective == "classification" else 2, side=8)

    def prepare(self, images: Tensor) -> None:
        """Refuse gray pictures, and weigh the bins by how rare their colours are among these images."""
        step = max(1, len(images) // LOOKED_AT)
        lab = self.sampled(images[::step].cpu())  # there, sums have one order: the same weights on every machine
        if color.chroma(lab).max() < GRAY:
            raise CourseError(
                "colorization needs pictures in colour, and all of these are gray: there is no colour to predict; "
                "give colour pictures, or choose another task (`sslcourse tasks` lists them)."
            )
        rows = color.table_rows(lab[:, 1:]).flatten()
        index, share = self.index.cpu()[rows], self.share.cpu()[rows]
        frequency = torch.zeros(len(self.centres))
        frequency.scatter_add_(0, index.flatten(), share.flatten())
        self.weights.copy_(rebalancing(frequency / frequency.sum(), self.rebalance))

    def views(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """uint8 (N, 3, H, W) -> light (N, 3, H, W) in [0, 1], three times the same, and ab (N, 2, 8, 8)."""
        images = augment.random_flip(images, generator)
        return gray(images), self.sampled(images)[:, 1:]

    def sampled(self, images: Tensor) -> Tensor:
        """Lab of the middle pixel of each of 8 x 8 squares, (N, 3, 8, 8): a mean over the square would wash colours out."""
        side = self.head.side
        rows, columns = (
            torch.arange(side, device=images.device) * length // side + length // side // 2
            for length in images.shape[-2:]
        )
        return color.rgb_to_lab(images[:, :, rows[:, None], columns])

    def forward(self, light: Tensor, ab: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        predicted = self.head(self.backbone.stages(light)).float()  # (N, Q or 2, 8, 8)
        if self.objective == "regression":
            loss = (predicted - ab / 100).square().sum(dim=1).mean()  # ab in units of 100: about as large as 1
            return loss, {"distance": 100 * loss.detach().sqrt()}
        logits = predicted.permute(0, 2, 3, 1).flatten(0, 2)  # (N * 64, Q)
        rows = color.table_rows(ab).flatten()
        index, share = self.index[rows], self.share[rows]  # (N * 64, 5)
        weight = self.weights[index[:, 0]]  # (N * 64,): of the nearest bin
        loss = losses.soft_cross_entropy(logits, index, share, weight)
        return loss, {"accuracy": losses.accuracy(logits, index[:, 0]).detach()}

    @torch.no_grad()
    def colorize(self, images: Tensor, temperature: float = 0.38) -> Tensor:
        """Colour the light of uint8 or float images (N, 3, H, W): float RGB (N, 3, H, W) in [0, 1], on the CPU.

        Computes where the task is. Classification answers with the annealed mean: the mean ab under softmax(logits / temperature). Near 0 it is the
        most likely colour, at 1 the mean of the distribution; Zhang et al. take 0.38. Regression knows no temperature.
        """
        if not temperature > 0:
            raise CourseError(
                f"temperature must be above 0, and is {temperature!r}; take 0.01 for the most likely colour."
            )
        images = augment.to_float(images).to(self.centres.device)
        with devices.evaluating(self):
            predicted = self.head(self.backbone.stages(gray(images))).float()
        if self.objective == "regression":
            ab = 100 * predicted  # (N, 2, 8, 8)
        else:
            share = (predicted / temperature).softmax(dim=1)  # (N, Q, 8, 8)
            ab = torch.einsum("nqhw,qc->nchw", share, self.centres)
        ab = functional.interpolate(ab, images.shape[-2:], mode="bilinear")
        return color.lab_to_rgb(torch.cat([color.lightness(images), ab], dim=1)).cpu()


def gray(images: Tensor) -> Tensor:
    """The light of a picture alone, as an image: L / 100 three times, (N, 3, H, W) in [0, 1]."""
    return (color.lightness(images) / 100).clamp(0, 1).expand(-1, 3, -1, -1)


def rebalancing(frequency: Tensor, strength: float) -> Tensor:
    """Weights of the bins, (Q,), from their frequencies (Q,), which sum to 1; the mean weight of a pixel is 1.

    A bin weighs as the inverse of its frequency, after that is mixed with the uniform one: strength 1 is the inverse
    itself, 1/2 is Zhang et al.'s, and with 0 all bins weigh the same. Without the mixture, a colour seen once would
    outweigh everything else.
    """
    mixed = strength * frequency + (1 - strength) / len(frequency)
    weights = 1 / mixed.clamp(min=1e-6)
    return weights / (frequency * weights).sum()
