"""Heads: what pretraining puts on top of the backbone, and throws away afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from sslcourse import device as devices
from sslcourse.augment import resize


def linear(dim: int, outputs: int) -> nn.Linear:
    """A linear classifier, (N, dim) -> (N, outputs), that starts by saying nothing: all weights and biases zero.

    Every class then gets probability 1/outputs, so the first loss is log(outputs) exactly. The gradient with
    respect to the weights isn't zero, so training leaves this point at the first step.
    """
    head = nn.utils.skip_init(nn.Linear, dim, outputs)  # the usual start would draw from the global generator
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def mlp(dim: int, hidden: int, outputs: int, seed: int = 0) -> nn.Sequential:
    """Two hidden layers with batch norm, then a classifier that starts at zero: (N, dim) -> (N, outputs).

    The last layers of a network specialize in its task. With layers to spare in the head, the backbone, which is what
    stays, has to specialize less (measured by Chen et al., 2020, 2002.05709, for SimCLR's projector). `seed` decides
    the hidden layers' weights.
    """
    with devices.seeded(seed):
        return nn.Sequential(
            nn.Linear(dim, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
            linear(hidden, outputs),
        )


def projector(
    dims: Sequence[int], *, norm: bool = True, last_norm: bool = False, bias: bool = False, seed: int = 0
) -> nn.Sequential:
    """Linear layers (N, dims[0]) -> ... -> (N, dims[-1]) with batch norm and ReLU between them.

    norm        False puts a GELU alone between them, so that no image sees the others of its batch
    last_norm   batch norm without scale and shift after the last layer, as SimSiam's authors have it (Chen and He, 2020,
                2011.10566). It takes away what the embeddings of a batch have in common: the features of a young network
                point nearly all the same way, and without it so do their projections, and all cosines are near 1
    bias        whether the last linear layer has one
    """
    with devices.seeded(seed):
        layers: list[nn.Module] = []
        for width, out in pairwise(dims[:-1]):
            layers.append(nn.Linear(width, out, bias=not norm))
            layers += [nn.BatchNorm1d(out), nn.ReLU(inplace=True)] if norm else [nn.GELU()]
        layers.append(nn.Linear(dims[-2], dims[-1], bias=bias))
        layers += [nn.BatchNorm1d(dims[-1], affine=False)] if last_norm else []
        return nn.Sequential(*layers)


class Prototypes(nn.Module):
    """Cosines with `count` learned directions: (N, dim) -> (N, count), in [-1, 1]."""

    def __init__(self, dim: int, count: int, seed: int = 0):
        super().__init__()
        start = torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))
        self.weight = nn.Parameter(functional.normalize(start, dim=1))

    def forward(self, z: Tensor) -> Tensor:
        return functional.normalize(z, dim=1) @ functional.normalize(self.weight, dim=1).T


class Decoder(nn.Module):
    """From the maps of a backbone's stages back to a map: for tasks whose answer is a picture.

    Each stage's map goes through a 1x1 convolution and is brought to `side` x `side`; their sum goes through a 3x3
    convolution to `outputs` channels, which start at zero. Maps (N, C_s, H_s, W_s) -> (N, outputs, side, side).
    `seed` decides the weights.
    """

    def __init__(self, channels: list[int], outputs: int, side: int, width: int = 64, seed: int = 0):
        super().__init__()
        self.side = side
        with devices.seeded(seed):
            self.lateral = nn.ModuleList(nn.Conv2d(channel, width, 1, bias=False) for channel in channels)
            self.smooth = nn.Sequential(
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
                nn.Conv2d(width, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            )
            self.last = nn.Conv2d(width, outputs, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, maps: list[Tensor]) -> Tensor:
        size = (self.side, self.side)
        joined = 0
        for lateral, m in zip(self.lateral, maps, strict=True):
            if m.shape[-1] < self.side:
                brought = resize(lateral(m), size)
            else:  # the small map goes through the convolution, as it costs less
                brought = lateral(resize(m, size, mode="area"))
            joined = joined + brought  # (N, width, side, side)
        return self.last(self.smooth(joined))
