"""Checks of the exercises of lesson 02: turning pictures, cross-entropy, its gradient, the lowest loss, variance."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcourse import augment, losses
from sslcourse.checks.cases import normal, pictures, uniform, whole
from sslcourse.checks.compare import EXACT, Closeness, equal, snapshot
from sslcourse.checks.framework import Check, Forbidden, Mistake, Wrong, value_and_gradients

CLOCKWISE = (
    "You rotate clockwise; the convention is counter-clockwise, as torch.rot90's: after one quarter turn, what was the "
    "right edge is the top."
)


def rotate_each(images: Tensor, quarter_turns: Tensor) -> Tensor:
    """images (N, C, H, H), turned counter-clockwise by quarter_turns, int64 (N,): each picture by its own."""
    turned = [torch.rot90(image, int(k), dims=(1, 2)) for image, k in zip(images, quarter_turns, strict=True)]
    return torch.stack(turned)


def _pictures_and_turns(generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    cases = []
    for n, c, h in [(4, 1, 2), (6, 3, 3), (5, 3, 4), (9, 2, 5)]:
        turns = torch.cat([torch.arange(4), whole(generator, 4, n - 4)])  # every turn is there
        cases.append((pictures(generator, n, c, h, h), turns[torch.randperm(n, generator=generator)]))
    (few, turns), (many, others) = cases[1], cases[3]
    return [*cases, (few.float() / 255, turns.clone()), (many.double() / 255, others.clone())]


def _turn_by_transpose(images, quarter_turns):
    turned = torch.stack([images, images.mT.flip(-2), images.flip(-1, -2), images.mT.flip(-1)])  # (4, N, C, H, H)
    return turned[quarter_turns, torch.arange(len(images))]


def _turn_by_masks(images, quarter_turns):
    turned = images.clone()
    for k in (1, 2, 3):
        turned[quarter_turns == k] = images[quarter_turns == k].rot90(k, (2, 3))
    return turned


def _turn_pixel_by_pixel(images, quarter_turns):
    side = images.shape[-1]
    turned = images
    for done in range(3):
        once = torch.zeros_like(turned)
        for i in range(side):
            for j in range(side):
                once[:, :, i, j] = turned[:, :, j, side - 1 - i]
        turned = torch.where((quarter_turns > done)[:, None, None, None], once, turned)
    return turned


rotate_batch = Check(
    name="2.1 rotate a batch", reference=rotate_each, cases=_pictures_and_turns, close=EXACT,
    rights=(augment.rotate90, _turn_by_transpose, _turn_by_masks, _turn_pixel_by_pixel),
    wrongs=(
        Wrong("clockwise", change=("int(k)", "-int(k)"), hint=CLOCKWISE),
        Wrong("one turn for all", change=("int(k)", "int(quarter_turns[0])"),
            also=(("int(k)", "int(quarter_turns[-1])"), ("int(k)", "int(quarter_turns.sum())")),
            hint="""The whole batch is turned by one picture's number: quarter_turns[i] belongs to images[i], and
            differs from picture to picture."""),
        Wrong("wrong dimensions", change=(", dims=(1, 2)", ""), also=(("(1, 2)", "(0, 2)"),
            lambda images, quarter_turns: torch.rot90(images, int(quarter_turns[0])),
            (("rot90(image,", "rot90(image[None],"), ("stack", "cat"))), hint="""You rotate in a plane with the channels
            or the batch in it. A picture (C, H, W) turns in its dimensions 1 and 2, a batch (N, C, H, W) in 2 and 3:
            torch.rot90(x, k, dims=(-2, -1)) fits both (its default is the first two)."""),
        Wrong("not turned", change=("torch.rot90(image, int(k), dims=(1, 2))", "image"),
            also=(("int(k)", "int(k) // 90"), ("torch.stack(turned)", "images")), hint="""The pictures come back as they
            were: torch.rot90 returns a new tensor and leaves its argument alone, so its result must be kept."""),
        Wrong("half turns", change=("int(k)", "2 * int(k)"), also=(("int(k)", "90 * int(k)"),),
            hint="You turn by k half turns: torch.rot90's k counts quarter turns already."),
        Wrong("one turn too many", change=("int(k)", "int(k) + 1"), hint="""Every picture is turned once too often:
            quarter_turns counts from 0, and 0 leaves a picture as it is."""),
        Wrong("one turn too few", change=("int(k)", "int(k) - 1"), hint="""Every picture is turned once too little:
            quarter_turns counts from 0, and 1 is one quarter turn already."""),
        Wrong("transpose alone", change=("torch.rot90(image, int(k), dims=(1, 2))",
            "[image, image.mT, image.flip(1, 2), image.mT.flip(1, 2)][k]"),
            also=(("torch.rot90(image, int(k), dims=(1, 2))", "[image, image.mT, image.flip(1, 2), image.mT][k]"),),
            hint="""A transpose is a mirror image (along the diagonal), no rotation: a quarter turn is a transpose and
            then a flip of the rows."""),
        Wrong("one flip for half a turn", change=("torch.rot90(image, int(k), dims=(1, 2))",
            "[image, image.mT.flip(1), image.flip(1), image.mT.flip(2)][k]"),
            also=(("torch.rot90(image, int(k), dims=(1, 2))",
            "[image, image.mT.flip(1), image.flip(2), image.mT.flip(2)][k]"),),
            hint="Half a turn flips rows and columns; with one flip alone you get a mirror image."),
        Wrong("all turns at once", lambda images, quarter_turns: torch.rot90(images, quarter_turns, (2, 3)),
            also=(lambda images, quarter_turns: images.rot90(quarter_turns, (2, 3)),), hint="""torch.rot90 takes one
            whole number k for all that it is given, and no tensor of them: turn picture by picture, with k =
            int(quarter_turns[i])."""),
        Wrong("order of the batch lost",
            lambda images, quarter_turns: torch.cat([images[quarter_turns == k].rot90(k, (2, 3)) for k in range(4)]),
            """Each picture is turned rightly, but they come back sorted by their turn: write each one to the place
            where it was (turned[quarter_turns == k] = ...)."""),
    ),
    hints=(
        "What does torch.rot90 do to one picture (3, H, W), and in which of its dimensions is up and down?",
        """Turn picture by picture, torch.rot90(image, k, dims=(1, 2)) with k a Python number, and stack. Or do the
        batch in four portions: those with quarter_turns == 0, == 1, == 2, == 3.""",
        "torch.stack([torch.rot90(image, int(k), dims=(1, 2)) for image, k in zip(...)])",
    ),
    praise="No pixel changed its value: only places were exchanged.",
)


def all_four(images: Tensor) -> tuple[Tensor, Tensor]:
    """images (N, C, H, H) -> all turned by 0, then all by 1, 2, 3 quarter turns (4N, C, H, H), and which (4N,)."""
    rotated = torch.cat([torch.rot90(images, t, dims=(-2, -1)) for t in range(4)])
    return rotated, torch.arange(4).repeat_interleave(len(images))


def _batches(generator: torch.Generator) -> list[tuple[Tensor]]:
    batches = [pictures(generator, n, c, h, h) for n, c, h in [(2, 1, 2), (3, 3, 3), (6, 2, 5)]]
    return [(batch,) for batch in (*batches, normal(generator, 5, 3, 4, 4), normal(generator, 1, 2, 3, 3).double())]


def _four_by_rotate90(images):
    turns = torch.tensor([t for t in range(4) for _ in images])
    return augment.rotate90(images.repeat(4, 1, 1, 1), turns), turns


def _four_by_stack(images):
    stacked = torch.stack([images, images.mT.flip(-2), images.flip(-2, -1), images.mT.flip(-1)])  # (4, N, C, H, H)
    turns = torch.arange(4)[:, None].expand(4, len(images))
    return stacked.flatten(0, 1), turns.flatten()


def _four_in_loop(images):
    rotated, turns = [], []
    for t in range(4):
        for image in images:
            rotated.append(torch.rot90(image, t, (1, 2)))
            turns.append(t)
    return torch.stack(rotated), torch.tensor(turns)


four_rotations = Check(
    name="2.2 all four rotations of a batch", reference=all_four, cases=_batches, close=EXACT,
    rights=(_four_by_rotate90, _four_by_stack, _four_in_loop),
    wrongs=(
        Wrong("labels interleaved", change=("repeat_interleave", "repeat"), hint="""Your pictures come in blocks (all
            unturned, then all turned once, ...), but your labels run 0, 1, 2, 3, 0, 1, 2, 3: almost every picture has
            another's label. repeat_interleave repeats each label, repeat the whole row."""),
        Wrong("pictures interleaved", change=(("torch.cat(", "torch.stack("),
            ("range(4)]", "range(4)], dim=1).flatten(0, 1")), hint="""Your labels come in blocks (0, 0, ..., 1, 1, ...),
            but your pictures come picture by picture in four rotations: almost every picture has another's label. Join
            along the batch with torch.cat, one block per rotation."""),
        Wrong("pictures repeated one by one", lambda images: (augment.rotate90(images.repeat_interleave(4, dim=0),
            turns := torch.arange(4).repeat_interleave(len(images))), turns), """You repeat each picture four times in a
            row, and turn by the labels of blocks (0, 0, ..., 1, 1, ...): images.repeat(4, 1, 1, 1) repeats the whole
            batch, so that each block holds every picture."""),
        Wrong("pictures not repeated",
            lambda images: (augment.rotate90(images, turns := torch.arange(4).repeat_interleave(len(images))), turns),
            """You have 4N turns for N pictures. Every picture is wanted four times, once for each turn:
            images.repeat(4, 1, 1, 1)."""),
        Wrong("picture by picture", change=(("torch.cat(", "torch.stack("),
            ("range(4)]", "range(4)], dim=1).flatten(0, 1"), ("repeat_interleave", "repeat")),
            hint="""Pictures and labels match each other, so a network could learn from this; but the order asked for is
            by rotation: first all pictures unturned, then all turned once, and so on."""),
        Wrong("clockwise", change=("images, t", "images, -t"), hint=CLOCKWISE),
        Wrong("starts with one turn", change=("range(4)", "range(1, 5)"), hint="""Your first block is turned once
            already, though its label says 0: begin with the pictures as they are."""),
        Wrong("labels from one", change=("torch.arange(4)", "torch.arange(1, 5)"),
            hint="Your labels run from 1 to 4; cross-entropy counts classes from 0, so they are 0, 1, 2, 3."),
        Wrong("labels in degrees", change=("torch.arange(4)", "torch.arange(0, 360, 90)"),
            hint="Your labels are degrees; cross-entropy takes the number of the class: 0, 1, 2 or 3 quarter turns."),
        Wrong("turned turns", change=("images, t", "images, t * (t + 1) // 2"), hint="""You turn what has been turned
            before, so block t is turned 0 + 1 + ... + t times: turn the pictures as they came."""),
        Wrong("wrong dimensions", change=(", dims=(-2, -1)", ""), also=(("(-2, -1)", "(1, 2)"),),
            hint="""You rotate in a plane with the channels or the batch in it (the default of torch.rot90 is the first
            two dimensions): in (N, C, H, W), height and width are dims=(2, 3)."""),
        Wrong("four labels in all", change=(".repeat_interleave(len(images))", ""), hint="""There are four labels in
            all, but every one of the 4N pictures needs its own: repeat each label N times."""),
        Wrong("one-hot labels", change=("torch.arange(4).repeat_interleave(len(images))",
            "F.one_hot(torch.arange(4).repeat_interleave(len(images)))"),
            also=(("torch.arange(4).repeat_interleave(len(images))",
            "torch.eye(4).repeat_interleave(len(images), dim=0)"),),
            hint="Your labels are one-hot rows; what is needed are the numbers of the classes, int64 of shape (4N,)."),
        Wrong("not turned", change=("torch.rot90(images, t, dims=(-2, -1))", "images"), hint="""All four blocks hold the
            pictures as they were: torch.rot90 returns a new tensor, and block t needs the one with k=t."""),
        Wrong("turned once, all of them", change=("images, t", "images, 1"),
            hint="All four blocks are turned once, whatever their label says: block t is turned t times."),
        Wrong("pictures alone", change=("return rotated, torch.arange(4).repeat_interleave(len(images))",
            "return rotated"), hint="You return the pictures alone; the labels go with them: return rotated, turns."),
        Wrong("all labels zero", change=("torch.arange(4)", "torch.zeros(4, dtype=torch.int64)"),
            hint="All labels are 0: block t has the label t."),
        Wrong("one drawn", lambda images: (augment.rotate90(images, turns := torch.randint(4, (len(images),))), turns),
            """You draw one rotation per picture; here every picture is wanted in all four, so that nothing is left to
            chance."""),
        Wrong("stacked", change=("torch.cat", "torch.stack"), also=((("torch.cat", "torch.stack"),
            (".repeat_interleave(len(images))", "")),), hint="""torch.stack makes a new dimension of four, (4, N, C, H,
            W), and a backbone takes (4N, C, H, W): torch.cat joins along the batch."""),
        Wrong("labels first", change=("rotated, torch.arange(4).repeat_interleave(len(images))",
            "torch.arange(4).repeat_interleave(len(images)), rotated"),
            hint="The two results are in the wrong order: first the pictures, then the labels."),
    ),
    hints=(
        """Four blocks of N pictures, each block turned by its own number of quarter turns. Which labels does the first
        block have, and how many?""",
        """torch.cat joins a list of four batches (N, C, H, H) to one (4N, C, H, H). The labels are 0 N times, then 1 N
        times, ...: compare torch.arange(4).repeat(N) and torch.arange(4).repeat_interleave(N).""",
        """rotated = torch.cat([torch.rot90(images, t, dims=(2, 3)) for t in range(4)]); turns =
        torch.arange(4).repeat_interleave(len(images))""",
    ),
    praise="This is the whole data set of the task: no one was asked for a label.",
)


LARGE = 50.0  # logits beyond it break a softmax that doesn't subtract the largest first


def _logits_and_labels(generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    cases = []
    for n, c, scale in [(2, 4, 1.0), (5, 4, 3.0), (3, 7, 2.0), (6, 4, 1000.0), (5, 3, 400.0), (4, 6, 1.5)]:
        turns = whole(generator, c, n)
        turns[:2] = torch.tensor([1, 0])
        cases.append((scale * normal(generator, n, c), turns))
    return [*cases[:-1], (cases[-1][0].double(), cases[-1][1])]


def mean_cross_entropy(logits: Tensor, turns: Tensor) -> Tensor:
    """logits (N, C), turns int64 (N,) -> the mean over the batch of -log p, in nats: a scalar."""
    log_p = logits.log_softmax(dim=1)  # (N, C)
    return -log_p[torch.arange(len(turns)), turns].mean()


def _entropy_by_gather(logits, turns):
    shifted = logits - logits.max(dim=1, keepdim=True).values
    chosen = shifted.gather(1, turns[:, None]).squeeze(1)
    return (shifted.exp().sum(dim=1).log() - chosen).mean()


def _entropy_by_difference(logits, turns):
    return (torch.logsumexp(logits, dim=1) - logits[torch.arange(len(turns)), turns]).mean()


def _entropy_by_one_hot(logits, turns):
    one_hot = F.one_hot(turns, logits.shape[1])
    return -(one_hot * torch.log_softmax(logits, 1)).sum() / len(logits)


def _entropy_in_loop(logits, turns):
    total = 0.0
    for row, t in zip(logits, turns, strict=True):
        total = total + torch.logsumexp(row, 0) - row[t]
    return total / len(turns)


def _fails_only_when_large(finite: bool):
    """Is the answer right for moderate logits, and for large ones wrong, with finite values or without?"""

    def recognizes(answer, cases: list) -> bool:
        near = Closeness(1e-3, 1e-4, "any")
        got = [snapshot(value_and_gradients(answer, case)) for case in cases]
        want = [snapshot(value_and_gradients(mean_cross_entropy, case)) for case in cases]
        large = [bool(case[0].abs().max() > LARGE) for case in cases]
        right = [equal(a["value"], b["value"], near) for a, b in zip(got, want, strict=True)]
        broken = [not all(bool(torch.isfinite(t).all()) for t in a.values()) for a in got]
        moderate = all(r and not b for r, b, big in zip(right, broken, large, strict=True) if not big)
        beyond = [(b if not finite else not r and not b) for r, b, big in zip(right, broken, large, strict=True) if big]
        return moderate and any(beyond)

    return recognizes


cross_entropy = Check(
    name="2.3 cross-entropy from logits", reference=mean_cross_entropy, cases=_logits_and_labels,
    run=value_and_gradients,
    forbidden=(
        Forbidden("written by PyTorch", (F.cross_entropy, F.nll_loss), hint="""
            You call F.cross_entropy or F.nll_loss (nn.CrossEntropyLoss and nn.NLLLoss do, too): here the loss is to be
            written by hand, from log_softmax or torch.logsumexp."""),
    ),
    rights=(losses.cross_entropy, _entropy_by_gather, _entropy_by_difference, _entropy_by_one_hot, _entropy_in_loop),
    wrongs=(
        Wrong("sum", change=("mean()", "sum()"),
            hint="""You add up over the batch where the mean is meant: the expectation over x and t divides by their
            number, so that the loss (and the step) doesn't grow with the batch."""),
        Wrong("softmax over the batch", change=("dim=1", "dim=0"),
            also=(("logits.log_softmax(dim=1)", "logits.flatten().log_softmax(dim=0).view_as(logits)"),),
            hint="""Your softmax runs over dimension 0, the batch: the four probabilities of one picture must add up to
            1, so it runs over dim=1."""),
        Wrong("sign", change=("-log_p", "log_p"),
            hint="The minus is missing: log p is at most 0, and the loss is -log p, at least 0."),
        Wrong("logarithm to base 2", change=("mean()", "mean() / math.log(2)"), hint="""You take the logarithm to base
            2, which measures in bits: the loss is in nats, with the natural logarithm (torch.log)."""),
        Wrong("logarithm to base 10", change=("mean()", "mean() / math.log(10)"),
            hint="You take the logarithm to base 10: the loss is in nats, with the natural logarithm (torch.log)."),
        Wrong("every label for every picture", change=("torch.arange(len(turns)), turns", ":, turns"),
            hint="""logp[:, turns] takes every picture's label for every picture, (N, N) numbers: pair row i with
            turns[i], by logp[torch.arange(N), turns] or gather."""),
        Wrong("every class", change=("[torch.arange(len(turns)), turns]", ""),
            also=(("[torch.arange(len(turns)), turns]", ".sum(dim=1)"),), hint="""You average -log p over all classes;
            only the true class of each picture counts, so turns must choose one entry per row."""),
        Wrong("divided by the classes too", change=("mean()", "mean() / logits.shape[1]"),
            hint="""You divide by N times the number of classes (a mean over a one-hot product does that): one number
            per picture counts, so divide by N alone."""),
        Wrong("softmax twice", change=("log_softmax(dim=1)", "softmax(dim=1).log_softmax(dim=1)"),
            also=(lambda logits, turns: F.cross_entropy(logits.softmax(dim=1), turns),),
            hint="The softmax is applied twice: F.cross_entropy and log_softmax take logits, not probabilities."),
        Wrong("no logarithm", change=("log_softmax", "softmax"), also=((("log_softmax", "softmax"),
            ("-log_p[torch.arange(len(turns)), turns]", "(1 - log_p[torch.arange(len(turns)), turns])")),),
            hint="The logarithm is missing: the loss is the mean of -log p, not of -p or 1 - p."),
        Wrong("logit alone", change=(".log_softmax(dim=1)", ""), hint="""You take the true class's logit for its
            log-probability: log p is the logit minus the log-sum-exp of its row."""),
        Wrong("log-sum-exp alone", lambda logits, turns: torch.logsumexp(logits, dim=1).mean(),
            "That is the log-sum-exp alone: the logit of the true class must still be subtracted."),
        Wrong("the network's own choice", change=("[torch.arange(len(turns)), turns]", ".amax(dim=1)"),
            hint="""You take the largest probability of each row: what the network believes. The loss asks for the
            probability of the true class, turns[i]."""),
        Wrong("always class 0", change=("torch.arange(len(turns)), turns", ":, 0"),
            hint="You take column 0 for every picture: the column is turns[i]."),
        Wrong("logarithm of the mean", change=("-log_p[torch.arange(len(turns)), turns].mean()",
            "math.log(len(turns)) - log_p[torch.arange(len(turns)), turns].logsumexp(dim=0)"),
            also=((("log_softmax", "softmax"), ("mean()", "mean().log()")),),
            hint="""You take the logarithm of the mean probability; the loss is the mean of the logarithms. The order
            matters: one picture with p near 0 must cost much."""),
        Wrong("entropy of the answer",
            change=("log_p[torch.arange(len(turns)), turns]", "(log_p.exp() * log_p).sum(dim=1)"),
            hint="""That is the entropy of the network's answer: it never looks at turns. Weigh -log p with the one-hot
            label, not with p."""),
        Wrong("not averaged", change=(".mean()", ""),
            hint="You return one number per picture; the loss is their mean, one number for the batch."),
    ),
    mistakes=(
        Mistake("overflow", _fails_only_when_large(finite=False),
            example=("log_softmax(dim=1)", "softmax(dim=1).log()"),
            hint="""Right for moderate logits, but for large ones exp overflows or p rounds to 0, and its logarithm is
            infinite. Don't go by way of p: log p = logit - logsumexp(row), and logsumexp subtracts the row's own
            largest logit first (torch.logsumexp does it for you)."""),
        Mistake("epsilon", _fails_only_when_large(finite=True),
            example=("log_softmax(dim=1)", "softmax(dim=1).add(1e-8).log()"), hint="""Right for moderate logits, but an
            epsilon (or a clamp) inside the logarithm caps the loss of a picture that the network gets very wrong, and
            its gradient vanishes. Stay in logarithms, and none is needed: log p = logit - logsumexp(row)."""),
    ),
    hints=(
        "Write log p for one picture, with p = exp(l_t) / sum of exp(l_k): what becomes of the quotient?",
        """log p = l_t - log(sum of exp(l_k)). torch.logsumexp(logits, dim=1) is the second term for every row, safely;
        gather or logits[torch.arange(N), turns] picks the first.""",
        "(torch.logsumexp(logits, dim=1) - logits[torch.arange(len(turns)), turns]).mean()",
    ),
    praise="It holds for logits of a thousand, too.",
)


def gradient_of_logits(logits: Tensor, turns: Tensor) -> Tensor:
    """The gradient of the mean cross-entropy with respect to the logits (N, C): (softmax - one-hot) / N."""
    return (logits.softmax(dim=1) - F.one_hot(turns, logits.shape[1])) / len(logits)


def _run_without_autograd(answer, case):
    with torch.inference_mode():
        return answer(*(tensor.clone() for tensor in case)).clone()


def _gradient_in_place(logits, turns):
    gradient = torch.softmax(logits, 1)
    gradient[torch.arange(len(turns)), turns] -= 1
    return gradient.div(len(turns))


def _gradient_in_loop(logits, turns):
    rows = []
    for row, t in zip(logits, turns, strict=True):
        share = (row - row.max()).exp()
        share = share / share.sum()
        share[t] = share[t] - 1.0
        rows.append(share / len(logits))
    return torch.stack(rows)


def _gradient_by_scatter(logits, turns):
    share = (logits - torch.logsumexp(logits, dim=1, keepdim=True)).exp()
    target = torch.zeros_like(logits).scatter_(1, turns.unsqueeze(1), 1.0)
    return share / logits.size(0) - target / logits.size(0)


def _gradient_by_autograd(logits, turns):
    logits = logits.detach().requires_grad_()
    return torch.autograd.grad(F.cross_entropy(logits, turns), logits)[0]


def _uses_autograd(answer, cases) -> bool:
    """Is it right with autograd, and impossible without?"""
    case = cases[0]
    try:
        _run_without_autograd(answer, case)
    except RuntimeError:
        return equal(answer(*case), gradient_of_logits(*case), Closeness(dtype="any"))
    return False


def _gradient_overflows(answer, cases) -> bool:
    got = [(_run_without_autograd(answer, case), case) for case in cases]
    moderate = [equal(g, gradient_of_logits(*c), Closeness(dtype="any")) for g, c in got if c[0].abs().max() <= LARGE]
    return all(moderate) and any(not torch.isfinite(g).all() for g, c in got)


logits_gradient = Check(
    name="2.4 the gradient by hand", reference=gradient_of_logits, cases=_logits_and_labels, run=_run_without_autograd,
    rights=(_gradient_in_place, _gradient_in_loop, _gradient_by_scatter),
    wrongs=(
        Wrong("not divided by N", change=(" / len(logits)", ""),
            hint="The 1/N is missing: the loss is a mean over the batch, so each picture's gradient counts 1/N."),
        Wrong("sign", change=("return (", "return -("), also=((("return (", "return -("), (" / len(logits)", "")),),
            hint="""The sign is turned about: it is p minus one-hot. A gradient step goes *against* it, and so raises
            the true class's logit."""),
        Wrong("plus one-hot", change=(") - F", ") + F"), also=(((") - F", ") + F"), (" / len(logits)", "")),),
            hint="""You add the one-hot label to p, and it is subtracted. A test: each row of the gradient must add up
            to 0, since adding the same number to all logits of a row changes no probability."""),
        Wrong("no one-hot", change=(" - F.one_hot(turns, logits.shape[1])", ""),
            also=(((" - F.one_hot(turns, logits.shape[1])", ""), (" / len(logits)", "")),),
            hint="""That is the gradient of the log-sum-exp alone; the true class's logit is subtracted in the loss, and
            brings a -1 at its place."""),
        Wrong("softmax over the batch", change=("dim=1", "dim=0"), also=((("dim=1", "dim=0"), (" / len(logits)", "")),),
            hint="""Your softmax runs over dimension 0, the batch: the probabilities of one picture must add up to 1, so
            it runs over dim=1."""),
        Wrong("divided by all elements", change=("len(logits)", "logits.numel()"),
            hint="You divide by N times the number of classes: the loss is a mean over the N pictures alone."),
        Wrong("divided by the classes", change=("len(logits)", "logits.shape[1]"),
            hint="You divide by the number of classes: the mean in the loss is over the N pictures, len(logits)."),
        Wrong("true class alone", change=("/ len(logits)", "/ len(logits) * F.one_hot(turns, logits.shape[1])"),
            hint="""You leave the gradient at the other classes 0, but their logits are in the log-sum-exp too: each is
            pushed down by its own p."""),
        Wrong("with respect to p", change=("logits.softmax(dim=1) - F.one_hot(turns, logits.shape[1])",
            "-F.one_hot(turns, logits.shape[1]) / logits.softmax(dim=1)"),
            hint="""That is the derivative with respect to the probabilities (-1/p at the true class); go on through the
            softmax to the logits, by the chain rule, and it becomes shorter."""),
        Wrong("label as a number", change=("F.one_hot(turns, logits.shape[1])", "turns[:, None]"),
            hint="""You subtract the label's number (0, 1, 2, 3) from every entry of the row: subtract 1 at the label's
            place, the one-hot vector."""),
        Wrong("logits instead of p", change=(".softmax(dim=1)", ""),
            hint="The softmax is missing: it is the probabilities, not the logits, minus one-hot."),
        Wrong("log p instead of p", change=("softmax", "log_softmax"),
            hint="You take log_softmax, and so log p: it is the probabilities themselves (softmax) minus one-hot."),
        Wrong("every label in every row", change=("return (logits.softmax(dim=1) - F.one_hot(turns, logits.shape[1]))",
            "share = logits.softmax(dim=1); share[:, turns] = share[:, turns] - 1; return share"),
            hint="""An index [:, turns] reaches every row at every picture's label: pair row i with turns[i], by
            [torch.arange(N), turns]."""),
        Wrong("whole rows", change=("return (logits.softmax(dim=1) - F.one_hot(turns, logits.shape[1]))",
            "share = logits.softmax(dim=1); share[turns] = share[turns] - 1; return share"),
            hint="""An index [turns] alone takes whole rows, and the rows of other pictures: in row i the place turns[i]
            is meant, [torch.arange(N), turns]."""),
        Wrong("softmax over everything",
            change=("logits.softmax(dim=1)", "logits.flatten().softmax(dim=0).view_as(logits)"),
            also=(("logits.softmax(dim=1)", "logits.exp() / logits.exp().sum()"),), hint="""All your probabilities
            together add up to 1; those of each picture must: softmax(dim=1), or sum(dim=1, keepdim=True)."""),
        Wrong("squared error", change=(("return (", "gap = ("), (" / len(logits)",
            "; p = logits.softmax(dim=1); return 2 * p * (gap - (p * gap).sum(dim=1, keepdim=True)) / len(logits)")),
            hint="""That is the gradient of the squared error between p and one-hot, through the softmax's Jacobian; the
            loss is -log p, and with it the Jacobian cancels: only p minus one-hot remains."""),
        Wrong("added up over the batch", change=(" / len(logits)", ".sum(dim=0) / len(logits)"),
            also=((" / len(logits)", ".sum(dim=0)"),),
            hint="You add up over the batch: the gradient has the shape of the logits, a row for each picture."),
    ),
    mistakes=(
        Mistake("autograd", _uses_autograd, example=_gradient_by_autograd, hint="""The numbers are right, but autograd
            found them: the exercise is to write the formula, with a softmax and a one-hot vector. (The check calls your
            function in torch.inference_mode, where autograd is switched off.)"""),
        Mistake("overflow", _gradient_overflows,
            example=("logits.softmax(dim=1)", "logits.exp() / logits.exp().sum(1, keepdim=True)"),
            hint="""Right for moderate logits, but exp of a large one is infinite: logits.softmax(dim=1) subtracts the
            row's largest first."""),
    ),
    hints=(
        """The loss of one picture is logsumexp(l) - l_t. What is the derivative of each of the two terms with respect
        to l_k?""",
        """d logsumexp / d l_k = p_k, the softmax; d l_t / d l_k is 1 where k = t and 0 elsewhere. And the loss is a
        mean over N pictures.""",
        "(logits.softmax(dim=1) - F.one_hot(turns, logits.shape[1])) / len(logits)",
    ),
    praise="Each row adds up to 0: what one logit gains, the others lose.",
)


def _stabilizer(picture: Tensor) -> list[int]:
    """The quarter turns that leave a picture (C, H, H) as it is."""
    return [t for t in range(4) if torch.equal(torch.rot90(picture, t, (1, 2)), picture)]


def bayes_optimal(pictures: Tensor) -> float:
    """The lowest loss, in nats, of any network on pictures (N, C, H, H) of which none is another one turned."""
    return sum(math.log(len(_stabilizer(picture))) for picture in pictures) / len(pictures)


def _symmetric(generator: torch.Generator, kinds: str, c: int, h: int) -> Tensor:
    """Pictures (N, c, h, h), each as its letter says.

    n: no symmetry, h: half turn, f: all four, m: mirror only, c: one channel symmetric, p: one pixel away from f.
    """
    drawn = []
    for kind in kinds:
        x = pictures(generator, c, h, h) // 4  # four of them can be added
        half = x + x.rot90(2, (1, 2))
        full = half + half.rot90(1, (1, 2))
        by_kind = {"m": x + x.flip(2), "h": half, "f": full, "p": full.clone(), "c": torch.cat([full[:1], x[1:]])}
        by_kind["p"][-1, 0, 0] += 1
        drawn.append(by_kind.get(kind, x))
    return torch.stack(drawn)


def _symmetric_pictures(generator: torch.Generator) -> list[tuple[Tensor]]:
    cases = [("nhf", 1, 2), ("hfn", 3, 4), ("nnmhc", 3, 5), ("hhfp", 3, 4), ("fffhnnm", 2, 5), ("ff", 3, 4)]
    return [(_symmetric(generator, *case),) for case in (*cases, ("pmn", 3, 4))]


def _bayes_vectorized(pictures):
    turned = torch.stack([pictures.rot90(t, (2, 3)) for t in range(4)])  # (4, N, C, H, H)
    size = (turned == pictures).flatten(2).all(dim=2).sum(dim=0)  # (N,) of the stabilizer
    return size.double().log().mean()


def _bayes_by_orbit(pictures):
    total = 0.0
    for picture in pictures:
        orbit = {tuple(torch.rot90(picture, t, (1, 2)).flatten().tolist()) for t in range(4)}
        total -= math.log(len(orbit) / 4)
    return total / len(pictures)


def _bayes_by_posterior(pictures):
    """From the definition: among all that could have been shown, which turns look like this?"""
    shown = [(t, torch.rot90(picture, t, (1, 2))) for picture in pictures for t in range(4)]
    total = 0.0
    for t, view in shown:
        alike = [other for other, candidate in shown if torch.equal(candidate, view)]
        total -= math.log(alike.count(t) / len(alike))
    return total / len(shown)


def _bayes_by_cases(pictures):
    values = []
    for x in pictures:
        if (x == x.rot90(1, (1, 2))).all():
            values.append(math.log(4))
        else:
            values.append(math.log(2) if (x == x.flip(1, 2)).all() else 0.0)
    return torch.tensor(values).mean()


bayes_loss = Check(
    name="2.5 the lowest loss there can be", reference=bayes_optimal, cases=_symmetric_pictures,
    rights=(_bayes_vectorized, _bayes_by_orbit, _bayes_by_posterior, _bayes_by_cases),
    wrongs=(
        Wrong("size of the group", lambda pictures: math.log(4),
            """log 4 is the loss of a network that knows nothing, for any picture. What can't be known depends on the
            picture: count the turns that leave *this* picture as it is."""),
        Wrong("orbit instead of stabilizer", change=("len(_stabilizer(picture))", "4 / len(_stabilizer(picture))"),
            hint="""You count the different pictures that turning makes (the orbit): many of them mean that the turn can
            be seen, and costs nothing. Count the turns that leave the picture as it is (the stabilizer); the two
            numbers multiply to 4."""),
        Wrong("logarithm to base 2", change=("math.log(", "math.log2("), hint="""You take the logarithm to base 2, which
            measures in bits; the loss is in nats, with the natural logarithm (math.log)."""),
        Wrong("logarithm to base 4", change=("len(_stabilizer(picture))", "len(_stabilizer(picture)), 4"),
            hint="You take the logarithm to base 4; the loss is in nats, with the natural logarithm (math.log)."),
        Wrong("logarithm of the mean",
            lambda pictures: math.log(sum(len(_stabilizer(x)) for x in pictures) / len(pictures)),
            "You take the logarithm of the mean size; the loss is a mean of logarithms, one per picture."),
        Wrong("sum", change=(" / len(pictures)", ""),
            hint="You add up over the pictures; the loss is an expectation, so it is their mean."),
        Wrong("identity not counted", change=("len(_stabilizer(picture))", "max(len(_stabilizer(picture)) - 1, 1)"),
            also=(("range(4)", "range(1, 4)"),
            lambda pictures: torch.tensor([len(_stabilizer(x)) - 1.0 for x in pictures]).log().mean().item()),
            hint="""You leave out the turn by 0, which leaves every picture as it is: a picture without symmetry has one
            such turn, and costs log 1 = 0."""),
        Wrong("half turn alone", change=("range(4)", "(0, 2)"),
            hint="You try the half turn alone; a picture that a quarter turn leaves as it is costs log 4, not log 2."),
        Wrong("quarter turn alone", change=("len(_stabilizer(picture))", "4 if 1 in _stabilizer(picture) else 1"),
            hint="You try the quarter turn alone; a picture that only the half turn leaves as it is costs log 2."),
        Wrong("every symmetry costs log 4",
            change=("len(_stabilizer(picture))", "4 if 2 in _stabilizer(picture) else 1"), hint="""A picture that only
            the half turn leaves as it is costs log 2: two of the four answers remain possible, not all."""),
        Wrong("no logarithm", change=("math.log(len(_stabilizer(picture)))", "len(_stabilizer(picture))"),
            hint="""You return the mean number of turns that look alike; with k equally likely answers the loss is
            -log(1/k) = log k."""),
        Wrong("error rate", change=("math.log(len(_stabilizer(picture)))", "1 - 1 / len(_stabilizer(picture))"),
            hint="""That is the lowest error rate, 1 - 1/k; the loss with k equally likely answers is -log(1/k) = log
            k."""),
        Wrong("accuracy", change=("math.log(len(_stabilizer(picture)))", "1 / len(_stabilizer(picture))"),
            hint="That is the best accuracy, 1/k; the loss with k equally likely answers is -log(1/k) = log k."),
        Wrong("sign", change=("return sum", "return -sum"),
            hint="The sign is turned about: the loss is -log(1/k) = log k, at least 0."),
        Wrong("mirror images", change=(("(picture, t", "(x, t"),
            ("in range(4)", "in range(4) for x in (picture, picture.flip(2))")),
            also=((("torch.rot90(picture, t, (1, 2))", "picture.flip(t)"), ("range(4)", "([], [1], [2], [1, 2])")),),
            hint="""You count mirror images as well: no quarter turn makes one, so they don't blur the answer. Only the
            four rotations count."""),
        Wrong("the batch at once",
            lambda pictures: math.log(sum(torch.equal(pictures.rot90(t, (2, 3)), pictures) for t in range(4))),
            """You compare the whole batch at once, so one picture without symmetry hides the others': compare picture
            by picture."""),
        Wrong("any pixel", change=("torch.equal(torch.rot90(picture, t, (1, 2)), picture)",
            "(torch.rot90(picture, t, (1, 2)) == picture).any()"),
            hint="You ask whether *any* pixel stays the same; a picture is left as it is when *all* do."),
        Wrong("first channel alone", change=("in pictures)", "in pictures[:, :1])"), hint="""You look at the first
            channel alone: a picture whose red is symmetric can still show its turn in green or blue."""),
        Wrong("nearly equal", change=("torch.equal(torch.rot90(picture, t, (1, 2)), picture)",
            "torch.allclose(torch.rot90(picture, t, (1, 2)).float(), picture.float(), atol=1)"),
            hint="""You take nearly equal pictures for equal: these are exact pixels, and a difference of one step in
            one pixel gives the turn away."""),
    ),
    hints=(
        """For one picture: which of the four rotations can't be told from the one that was applied? How likely is each
        of them then?""",
        """Count, for each picture, the t in 0..3 with torch.equal(torch.rot90(picture, t, (1, 2)), picture). If there
        are k, the best answer gives each possible turn 1/k, and costs -log(1/k).""",
        """The mean over the pictures of math.log(sum(torch.equal(torch.rot90(picture, t, (1, 2)), picture) for t in
        range(4))).""",
    ),
    praise="No network, however large and however long it trains, goes below this.",
)


def both_variances(table: Tensor, n: int) -> tuple[float, float]:
    """table (M, 4): the loss of each picture of a world of M pictures, under each of the four rotations.

    The variance of the mean loss of n pictures (drawn with replacement) in all four rotations, and of 4n pictures in
    one drawn rotation each. Both look at 4n turned pictures.
    """
    table = table.double()
    all_four = table.mean(dim=1).var(correction=0) / n
    one_drawn = table.var(correction=0) / (4 * n)  # every (picture, rotation) is equally likely
    return all_four.item(), one_drawn.item()


def _worlds(generator: torch.Generator) -> list[tuple[Tensor, int]]:
    cases = []
    settings = [(3, 2, 1.0, 1.0), (6, 5, 2.0, 0.3), (9, 3, 0.2, 1.5), (5, 1, 1.0, 0.7), (2, 7, 0.6, 0.9)]
    for m, n, between, within in settings:
        hard, turn = between * uniform(generator, m, 1), torch.tensor([0.0, 0.3, 0.7, 0.1])  # some rotations cost more
        cases.append((hard + within * uniform(generator, m, 4) + turn, n))
    return cases


def _variances_by_law(table, n):
    between = ((table.mean(1) - table.mean()) ** 2).mean()
    within = ((table - table.mean(1, keepdim=True)) ** 2).mean()
    return between / n, (between + within) / (4 * n)


def _variances_by_moments(table, n):
    table = table.double()
    square = table.mean() ** 2
    return ((table.mean(1) ** 2).mean() - square) / n, ((table**2).mean() - square) / (4 * n)


def _variances_by_enumeration(table, n):
    rows = [sum(row) / 4 for row in table.tolist()]
    cells = [value for row in table.tolist() for value in row]

    def spread(values):
        middle = sum(values) / len(values)
        return sum((v - middle) ** 2 for v in values) / len(values)

    return spread(rows) / n, spread(cells) / n / 4


estimator_variances = Check(
    name="2.6 two estimators of one loss", reference=both_variances, cases=_worlds,
    close=Closeness(rtol=1e-3, atol=1e-7, dtype="any"),
    rights=(_variances_by_law, _variances_by_moments, _variances_by_enumeration),
    wrongs=(
        Wrong("equal pictures", change=("(4 * n)", "n"), hint="""Your second variance is that of n pictures in one
            rotation each: a quarter of the work. At equal work there are 4n of them, so it is four times smaller."""),
        Wrong("sample variance", change=("correction=0", ""), also=((("dim=1).var(correction=0)", "dim=1).var()"),
            ("table.var(correction=0)", "(table.mean(dim=1).var() + table.var(dim=1, correction=0).mean())")),),
            hint="""var() divides by M - 1 unless told otherwise, to estimate the variance of a larger world from a
            sample. Here the table is the whole world: correction=0."""),
        Wrong("within alone", change=("table.var(correction=0)", "table.var(dim=1, correction=0).mean()"),
            hint="""Your second variance has the spread between the rotations of a picture alone; the pictures are drawn
            too, so the spread between pictures must be added (the law of total variance)."""),
        Wrong("between alone", change=("table.var(", "table.mean(dim=1).var("),
            hint="""Your second variance has the spread between pictures alone; each picture's rotation is drawn too, so
            the spread between the rotations of a picture must be added (the law of total variance)."""),
        Wrong("4n independent losses",
            change=("table.mean(dim=1).var(correction=0) / n", "table.var(correction=0) / (4 * n)"),
            hint="""Your first variance takes all 4n losses for independent, but the four of one picture belong
            together: only n things are drawn, each with its mean over the four rotations."""),
        Wrong("over the rotations", change=("dim=1", "dim=0"),
            hint="""Your first variance is over the four rotations of the average picture; what is drawn are pictures,
            so take the mean over dim=1 first and then the variance over the pictures."""),
        Wrong("mean of variances",
            change=("table.mean(dim=1).var(correction=0)", "table.var(dim=1, correction=0).mean()"),
            hint="""Your first value is the mean of each picture's own variance; with all four rotations shown, that
            spread is averaged away. Needed is the variance of the pictures' means."""),
        Wrong("standard deviation", change=(".item()", ".sqrt().item()"),
            hint="You return standard deviations; asked for are variances, their squares."),
        Wrong("not divided", change=((" / n", ""), (" / (4 * n)", "")), hint="""You return the variance of a single
            draw; the mean of k independent draws has 1/k of it, with k = n and k = 4n here."""),
        Wrong("wrong order", change=("all_four.item(), one_drawn.item()", "one_drawn.item(), all_four.item()"), hint="""
            The two are in the wrong order: first all four rotations of n pictures, then one rotation each of 4n."""),
        Wrong("divided by four as well", change=(" / n", " / (4 * n)"),
            hint="""Your first variance is divided by 4n, but only n things are drawn at random: averaging over the four
            rotations is in the picture's mean already."""),
        Wrong("divided by the size of the world", change=((" / n", " / len(table)"), ("4 * n", "4 * len(table)")),
            hint="You divide by M, the number of pictures there are; what counts is how many are drawn, n and 4n."),
        Wrong("divided twice", change=((" / n", " / n**2"), ("(4 * n)", "(4 * n) ** 2")),
            hint="""You divide by the number of draws twice: the variance of a mean of k draws is 1/k of a single one's
            (the standard deviation goes with the square root of that)."""),
    ),
    hints=(
        "What is drawn at random in each of the two, how often, and what is the value of one draw?",
        """First: n draws, each a row's mean. Second: 4n draws, each an entry of the table, all equally likely. A mean
        of k independent draws has 1/k of the variance of one. The table is the whole world, so correction=0.""",
        "table.mean(dim=1).var(correction=0) / n, and table.var(correction=0) / (4 * n)",
    ),
    praise="Now you can say beforehand which of the two is worth its computing.",
)
