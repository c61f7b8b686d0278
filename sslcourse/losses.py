"""Losses, each written as its formula. Natural logarithms throughout: values are in nats."""

from __future__ import annotations

import torch
from torch import Tensor


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean of -log softmax(logits)[label], as log-sum-exp minus the label's logit.

    logits (N, C) float, labels (N,) int64 in [0, C). Returns a scalar, at least 0; log(C) for equal logits.
    Equal to torch.nn.functional.cross_entropy.
    """
    chosen = logits.gather(1, labels[:, None]).squeeze(1)  # (N,)
    return (torch.logsumexp(logits, dim=1) - chosen).mean()


def soft_cross_entropy(logits: Tensor, index: Tensor, share: Tensor, weight: Tensor) -> Tensor:
    """Mean of -weight * sum_k share_k log softmax(logits)[index_k]: labels that are spread over a few classes.

    logits (M, C); index (M, K) int64, the classes that have a share; share (M, K), rows summing to 1; weight (M,).
    """
    expected = (share * logits.gather(1, index)).sum(dim=1)  # (M,)
    return (weight * (torch.logsumexp(logits, dim=1) - expected)).mean()


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """The share of rows of logits (N, C) whose largest entry is at the label (N,); a scalar in [0, 1]."""
    return (logits.argmax(dim=1) == labels).float().mean()
