"""Checks of lesson 00's gaps: the loss by hand, and exercise 2.1's turn of a batch.

The loss is exercise 2.3's without its trap: for moderate logits -log(softmax) is right; a first lesson asks no more.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from sslcourse.checks.framework import Check, Forbidden, Wrong, yourself
from sslcourse.checks.lesson02 import rotate_batch

__all__ = ["cross_entropy", "rotate_batch"]


def mean_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """logits (N, C), labels int64 (N,) -> the mean of -log softmax(logits)[label], a scalar."""
    log_p = logits.log_softmax(dim=1)  # (N, C)
    return -log_p[torch.arange(len(labels)), labels].mean()


def _batches(generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    """No fewer pictures than classes: a label taken for a row's number is wrong, and no index out of range."""
    return [
        (torch.randn(n, c, generator=generator), torch.randint(c, (n,), generator=generator))
        for n, c in [(4, 3), (7, 4), (5, 2)]
    ]


def _by_softmax_and_log(logits, labels):
    p = logits.softmax(dim=1).gather(1, labels[:, None])
    return -torch.log(p).mean()


def _by_one_hot(logits, labels):
    return -(functional.one_hot(labels, logits.shape[1]) * logits.log_softmax(dim=1)).sum(dim=1).mean()


def _in_loop(logits, labels):
    return sum(row.logsumexp(dim=0) - row[label] for row, label in zip(logits, labels, strict=True)) / len(labels)


cross_entropy = Check(
    name="0.1 cross-entropy by hand", reference=mean_cross_entropy, cases=_batches,
    rights=(_by_softmax_and_log, _by_one_hot, _in_loop),
    praise="Exercise 2.3 asks for it again, for logits of a thousand.",
    forbidden=(
        Forbidden("written by PyTorch", (functional.cross_entropy, functional.nll_loss), hint="""That is PyTorch's own
            loss: the result is right, and the lesson asks you to write it, from softmax or log_softmax."""),
        yourself("sslcourse.losses"),
    ),
    wrongs=(
        Wrong("sum", change=("mean()", "sum()"), hint="""You add up over the batch. The loss is the mean over the
            pictures, so that it doesn't grow with them."""),
        Wrong("not averaged", change=(".mean()", ""),
            hint="You return one number per picture; the loss is their mean, one number for the batch."),
        Wrong("sign", change=("-log_p", "log_p"),
            hint="The minus is missing: log p is at most 0, and the loss is -log p, at least 0."),
        Wrong("softmax over the batch", change=("dim=1", "dim=0"),
            also=(("log_softmax(dim=1)", "flatten().log_softmax(dim=0).view_as(logits)"),),
            hint="""Your softmax runs over the batch, so that pictures compete. The probabilities of the answers to
            *one* picture add up to 1: dim=1."""),
        Wrong("labels taken for numbers of rows", change=("torch.arange(len(labels)), labels", "labels"),
            hint="""p[labels] takes whole rows: those of the pictures whose number is a label. Of row i the column
            labels[i] is wanted: p[torch.arange(len(labels)), labels]."""),
        Wrong("every label for every picture", change=("torch.arange(len(labels)), labels", ":, labels"),
            hint="""p[:, labels] takes every picture's label for every picture, N x N numbers. Pair row i with
            labels[i]: p[torch.arange(len(labels)), labels]."""),
        Wrong("every class", change=("[torch.arange(len(labels)), labels]", ""), hint="""You average over all answers,
            and the labels have no effect. Only each picture's right answer counts: one entry of each row."""),
        Wrong("the network's own choice", change=("[torch.arange(len(labels)), labels]", ".amax(dim=1)"),
            hint="""You take the largest probability of each row, which is what the network believes. The right answer's
            is asked for, labels[i]."""),
        Wrong("no logarithm", change=("log_softmax", "softmax"), also=((("log_softmax", "softmax"),
            ("-log_p[torch.arange(len(labels)), labels]", "(1 - log_p[torch.arange(len(labels)), labels])")),),
            hint="The logarithm is missing: the loss is the mean of -log p, not of -p or 1 - p."),
        Wrong("no softmax", change=(".log_softmax(dim=1)", ""), hint="""You take the logit itself for a log-probability.
            A softmax makes probabilities of a row of logits first, and then comes the logarithm."""),
        Wrong("softmax twice", change=("log_softmax(dim=1)", "softmax(dim=1).log_softmax(dim=1)"),
            hint="The softmax is taken twice: log_softmax wants logits, not probabilities."),
        Wrong("logarithm of the mean", change=(("log_softmax", "softmax"), ("mean()", "mean().log()")),
            hint="""You take the logarithm of the mean probability. The loss is the mean of the logarithms, so that one
            picture with p near 0 costs much."""),
        Wrong("another base", change=("mean()", "mean() / 2.302585"), also=(("mean()", "mean() / 0.693147"),),
            hint="Your logarithm has another base: the loss is in nats, with the natural logarithm, torch.log."),
    ),
    hints=(
        """A softmax along each row makes probabilities. Which one number of each row says how much the right answer was
        believed?""",
        """p = logits.softmax(dim=1) is (N, C). p[torch.arange(N), labels] picks one entry of each row: of row i the one
        in column labels[i]. Then the logarithm, the minus, the mean.""",
        "-logits.log_softmax(dim=1)[torch.arange(len(labels)), labels].mean()",
    ),
)
