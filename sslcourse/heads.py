"""Heads: what pretraining puts on top of the backbone, and throws away afterwards."""

from __future__ import annotations

import torch
from torch import nn


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
    with torch.random.fork_rng(devices=[]):  # modules draw from the global generator: borrow it, give it back
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(dim, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
            linear(hidden, outputs),
        )
