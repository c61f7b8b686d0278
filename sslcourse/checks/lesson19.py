"""Checks of lesson 19's exercises: shards, bytes, micro-batches, loss scaling, a gather, joint statistics."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from sslcourse.checks.compare import EXACT, Closeness
from sslcourse.checks.framework import Check, Wrong, yourself

THE_COURSE = yourself("sslcourse.distributed")  # the text above all of them


def my_part(order: Tensor, step: int, batch: int, rank: int, world: int) -> Tensor:
    """order (N,), a shuffle of all images; what process `rank` of `world` takes at `step`: (batch / world,)."""
    whole = order[step * batch : (step + 1) * batch]  # (batch,)
    return whole[rank::world]


def _orders(generator: torch.Generator) -> list[tuple[Tensor, int, int, int, int]]:
    sizes = [(24, 0, 8, 1, 2), (31, 2, 6, 0, 3), (40, 1, 12, 3, 4), (50, 3, 10, 4, 5), (17, 1, 8, 1, 2)]
    return [(torch.randperm(n, generator=generator), *rest) for n, *rest in sizes]


def _part_loop(order, step, batch, rank, world):
    return torch.stack([order[step * batch + i] for i in range(batch) if i % world == rank])


def _part_reshaped(order, step, batch, rank, world):
    return order.narrow(0, step * batch, batch).view(batch // world, world)[:, rank]


my_part_of_the_batch = Check(
    name="19.1 my part of the batch", reference=my_part, cases=_orders, close=EXACT,
    forbidden=(THE_COURSE,),
    rights=(_part_loop, _part_reshaped),
    wrongs=(
        Wrong("in blocks", change=("whole[rank::world]", "whole.chunk(world)[rank]"), hint="""You give each process a
            block of neighbours. That is a fair division, too, and not the one asked for: process r takes the batch's
            images r, r + world, r + 2 * world, ..., so that the parts put side by side give the batch again."""),
        Wrong("the whole batch", change=("[rank::world]", ""), hint="""Every process gets the whole batch: all do the
            same work, and nothing is gained. Each takes its own part of it."""),
        Wrong("a batch for each", change=(("[rank::world]", ""), ("order[step", "order[rank::world][step")),
            hint="""You divide the order, and then give each process `batch` images: together that is world times the
            batch that the learning rate was chosen for. `batch` is what all take together."""),
        Wrong("always the first step", change=("step * batch : (step + 1) * batch", ":batch"),
            hint="You leave `step` out: every step takes the epoch's first images. Step s begins at s * batch."),
        Wrong("a step of one image", change=("step * batch : (step + 1) * batch", "step : step + batch"),
            hint="You begin at image number `step`: steps overlap in all images but one. Step s begins at s * batch."),
        Wrong("everyone is rank 0", change=("rank::world", "::world"),
            hint="You leave `rank` out: all processes take the same images. Begin at `rank`, and take every world-th."),
        Wrong("ranks from one", change=("rank::world", "rank + 1 :: world"),
            hint="You count ranks from 1. They begin at 0; this way the batch's first image belongs to nobody."),
        Wrong("positions", change=("order[step", "torch.arange(len(order))[step"),
            hint="You return places in the order, and the images that stand there are asked for: order[those places]."),
    ),
    hints=(
        "First the batch that all take together, then your part of it. Where in `order` does step 3 begin?",
        "whole = the `batch` entries from step * batch on. Of them, every world-th, beginning at rank.",
        "order[step * batch : (step + 1) * batch][rank::world]",
    ),
)


def training_bytes(network: nn.Module) -> int:
    """Bytes of weights, buffers, gradients and AdamW's two moments; a frozen parameter has weights alone."""
    size = lambda tensors: sum(t.numel() * t.element_size() for t in tensors)  # noqa: E731
    learned = [p for p in network.parameters() if p.requires_grad]
    return size(network.parameters()) + size(network.buffers()) + 3 * size(learned)


def _networks(generator: torch.Generator) -> list[tuple[nn.Module]]:
    plain = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(20, 7))
    normed = nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 1))
    frozen = nn.Sequential(nn.Linear(9, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    for p in frozen[0].parameters():
        p.requires_grad_(False)
    half = nn.Sequential(nn.Linear(11, 6), nn.BatchNorm1d(6)).to(torch.bfloat16)
    return [(plain,), (normed,), (frozen,), (half,)]


def _bytes_loop(network):
    total = 0
    for p in network.parameters():
        copies = 4 if p.requires_grad else 1  # weight, gradient, two moments
        total += copies * p.nbytes
    for b in network.buffers():
        total += b.nbytes
    return total


def _bytes_of_state(network):
    state = sum(t.untyped_storage().nbytes() for t in network.state_dict().values())
    for p in network.parameters():
        state += 3 * p.nbytes * p.requires_grad
    return state


count_the_bytes = Check(
    name="19.2 count the bytes", reference=training_bytes, cases=_networks, close=Closeness(plain=True),
    forbidden=(THE_COURSE,),
    rights=(_bytes_loop, _bytes_of_state),
    wrongs=(
        Wrong("weights alone", change=(" + 3 * size(learned)", ""), hint="""You count weights and buffers. Training
            keeps more: a gradient for each weight that is learned, and AdamW's two moments."""),
        Wrong("two copies for three", change=("3 * size", "2 * size"), hint="""One of three is missing: beside the
            weights there are gradients *and* two moments, each as large as the learned weights."""),
        Wrong("buffers forgotten", change=(" + size(network.buffers())", ""), hint="""You forget the buffers: batch
            norm's running mean and variance, and its counter, are memory, too (network.buffers())."""),
        Wrong("frozen weights trained", change=("3 * size(learned)", "3 * size(network.parameters())"),
            hint="""You give frozen weights gradients and moments. Where requires_grad is False there are none, which is
            why a frozen backbone is so cheap."""),
        Wrong("frozen weights left out", change=("size(network.parameters()) +", "size(learned) +"),
            hint="You leave frozen weights out altogether. They have no gradient and no moments, but they are there."),
        Wrong("buffers trained", change=("+ size(network.buffers())", "+ 4 * size(network.buffers())"),
            hint="You give buffers gradients and moments. They are kept up by the forward pass, not learned."),
        Wrong("four bytes for each", change=(("t.numel() * t.element_size()", "4 * t.numel()"),
            ("size(network.buffers())", "sum(b.nbytes for b in network.buffers())")),
            also=(("t.numel() * t.element_size()", "4 * t.numel()"),),
            hint="""You take four bytes for each value. A bfloat16 weight has two, and batch norm's counter has eight:
            ask each tensor, by element_size() or nbytes."""),
        Wrong("values, not bytes", change=(" * t.element_size()", ""),
            hint="You count values. Bytes are asked for: each tensor's numel() times its element_size(), or nbytes."),
    ),
    hints=(
        """Make a list for one weight that is learned: what else is kept that has its shape? Then for a frozen one, then
        for a buffer.""",
        """Learned: four tensors of its size (weight, gradient, two moments). Frozen: one. Buffer: one. Bytes:
        tensor.nbytes.""",
        """sum((4 if p.requires_grad else 1) * p.nbytes for p in network.parameters()) + sum(b.nbytes for b in
        network.buffers())""",
    ),
)


def accumulate(network: nn.Module, images: Tensor, labels: Tensor, size: int) -> Tensor:
    """Gradient of the mean cross-entropy over N images, from micro-batches of at most `size`: one flat (P,) tensor."""
    network.zero_grad()
    for some, theirs in zip(images.split(size), labels.split(size), strict=True):
        loss = functional.cross_entropy(network(some), theirs)
        (loss * len(some) / len(images)).backward()
    return _gradient(network)


def _gradient(network: nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in network.parameters()])


def _batches(generator: torch.Generator) -> Iterator[tuple[nn.Module, Tensor, Tensor, int]]:
    for count, size in ((8, 4), (10, 4), (7, 3), (9, 2)):
        network = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.Tanh(), nn.Linear(6, 5))
        network(torch.rand(4, 3, 2, 2)).square().sum().backward()  # gradients of something before
        labels = torch.randint(5, (count,), generator=generator)
        yield network, torch.randn(count, 3, 2, 2, generator=generator), labels, size


def _accumulate_sums(network, images, labels, size):
    for p in network.parameters():
        p.grad = None
    for i in range(0, len(images), size):
        logits = network(images[i : i + size])
        functional.cross_entropy(logits, labels[i : i + size], reduction="sum").div(len(images)).backward()
    return torch.cat([p.grad.reshape(-1) for p in network.parameters()])


def _accumulate_functional(network, images, labels, size):
    total = torch.zeros(sum(p.numel() for p in network.parameters()))
    for i in range(0, len(images), size):
        loss = functional.cross_entropy(network(images[i : i + size]), labels[i : i + size])
        grads = torch.autograd.grad(loss, list(network.parameters()))
        total += torch.cat([g.flatten() for g in grads]) * len(labels[i : i + size]) / len(labels)
    return total


micro_batches = Check(
    name="19.3 micro-batches", reference=accumulate, cases=_batches, rights=(_accumulate_sums, _accumulate_functional),
    forbidden=(THE_COURSE,),
    wrongs=(
        Wrong("mean of means", change=("len(some) / len(images)", "1 / len(images.split(size))"),
            hint="""You divide by the number of micro-batches, which is right where all are equally large. The last one
            may be smaller, and then its images count for more: weight each part by its share of the images."""),
        Wrong("means added up", change=(" * len(some) / len(images)", ""),
            hint="""You add up the gradients of means, so that the result grows with the number of micro-batches. Each
            part's mean counts with its share, len(part) / len(images)."""),
        Wrong("sums added up", change=((" * len(some) / len(images)", ""), ("theirs)\n", 'theirs, reduction="sum")\n')),
            hint="You have the gradient of the sum over all images. The mean is asked for: divide by len(images)."),
        Wrong("gradients of before", change=("network.zero_grad()", "pass"), also=((("network.zero_grad()", "pass"),
            ("len(some) / len(images)", "1 / len(images.split(size))")), (("network.zero_grad()", "pass"),
            (" * len(some) / len(images)", ""))), hint="""Gradients of before are still there: `backward` adds to them.
            Set them to zero, once, before the loop."""),
        Wrong("zeroed in the loop", change=("loss = ", "network.zero_grad(); loss = "),
            also=((("loss = ", "network.zero_grad(); loss = "), (" * len(some) / len(images)", "")),
            (("loss = ", "network.zero_grad(); loss = "), ("len(some) / len(images)", "1 / len(images.split(size))"))),
            hint="""You set gradients to zero inside the loop: only the last micro-batch is left. Once, before the
            loop."""),
        Wrong("the rest left out", change=("(loss *", "((len(some) == size) * loss *"),
            also=(("loss * len(some) / len(images)",
            "(len(some) == size) * loss * size / (len(images) - len(images) % size)"),),
            hint="You leave the last, smaller micro-batch out. Its images belong to the batch as well."),
        Wrong("weighted by the full size", change=("len(some) /", "size /"),
            hint="You weight every part as if it had `size` images. The last one may have fewer: take len(part)."),
    ),
    hints=(
        """`backward` adds to what is in .grad. What must be there before the first, and what do you want there after
        the last?""",
        """Zero once. For each part: the mean loss times len(part) / len(images), backward. No optimizer step in
        between.""",
        """network.zero_grad(); for some, theirs in zip(images.split(size), labels.split(size)):
        (functional.cross_entropy(network(some), theirs) * len(some) / len(images)).backward()""",
    ),
)


def unscale(gradient: Tensor, scale: float, good: int, patience: int) -> tuple[Tensor | None, float, int]:
    """float16 gradient (P,) of the scaled loss -> (float32 gradient or None to skip, next scale, good steps)."""
    if not torch.isfinite(gradient).all():
        return None, scale / 2, 0
    good += 1
    if good == patience:
        return gradient.float() / scale, scale * 2, 0
    return gradient.float() / scale, scale, good


def _scaled(generator: torch.Generator) -> list[tuple[Tensor, float, int, int]]:
    def gradient(size, factor, *bad):
        g = (torch.randn(size, generator=generator) * factor).half()
        for place, value in bad:
            g[place] = value
        return g

    inf, nan = float("inf"), float("nan")
    return [
        (gradient(6, 3), 1024.0, 0, 3),
        (gradient(5, 1e-3), 65536.0, 2, 3),
        (gradient(7, 30, (2, inf)), 2048.0, 1, 4),
        (gradient(4, 30, (0, -inf), (1, inf)), 512.0, 3, 4),
        (gradient(5, 2, (4, nan)), 256.0, 0, 2),
        (gradient(8, 100), 4096.0, 1, 5),
    ]


def _unscale_other(gradient, scale, good, patience):
    full = gradient.to(torch.float32)
    if full.isnan().any() or full.isinf().any():
        return None, 0.5 * scale, 0
    grown = good + 1 >= patience
    return full * (1 / scale), scale * (2 if grown else 1), 0 if grown else good + 1


def _unscale_by_sum(gradient, scale, good, patience):
    full = gradient.double()
    if not bool(torch.isfinite(full.sum())):
        return (None, scale / 2, 0)
    result = (full / scale).float()
    return (result, 2 * scale, 0) if good + 1 == patience else (result, scale, good + 1)


a_loss_scale = Check(
    name="19.4 a loss scale that finds itself", reference=unscale, cases=_scaled,
    forbidden=(THE_COURSE,),
    close=Closeness(rtol=1e-5, atol=0.0, dtype="exact"), rights=(_unscale_other, _unscale_by_sum),
    wrongs=(
        Wrong("divided in float16", change=("gradient.float() / scale", "(gradient / scale).float()"),
            hint="""You divide in float16: there the small ones become zero again, which the scale was to prevent. First
            .float(), then divide."""),
        Wrong("not divided", change=("gradient.float() / scale", "gradient.float()"),
            hint="You return the gradient of the *scaled* loss, thousands of times too long. Divide by the scale."),
        Wrong("multiplied", change=("gradient.float() / scale", "gradient.float() * scale"),
            hint="You multiply by the scale once more. The loss was multiplied before `backward`; now divide."),
        Wrong("not skipped", change=("return None", "return gradient.float() / scale"), hint="""A gradient with an
            infinity or a NaN is returned, and would ruin the weights in one step. Return None in its place."""),
        Wrong("infinity passed", change=("not torch.isfinite(gradient).all()", "gradient.isnan().any()"),
            hint="You look for NaN alone. float16 overflows to infinity first; torch.isfinite asks for both."),
        Wrong("NaN passed", change=("not torch.isfinite(gradient).all()", "gradient.isinf().any()"),
            hint="You look for infinity alone. Infinity minus infinity is NaN; torch.isfinite asks for both."),
        Wrong("count never begins again", change=(("/ 2, 0", "/ 2, good"), ("* 2, 0", "* 2, good")),
            hint="The count of good steps must begin again at 0 after a growth and after an overflow."),
        Wrong("count outlives an overflow", change=("/ 2, 0", "/ 2, good"),
            hint="After an overflow the count goes on. It counts good steps *in a row*: back to 0."),
        Wrong("doesn't grow in time", change=("scale * 2, 0", "scale, good"), also=((("good += 1", "pass"),
            (", scale, good", ", scale, good + 1")),), hint="""Your scale stays where it should double: after `patience`
            good steps in a row, of which this is one. Count this step first, then compare with `patience`; a scale that
            never grows is too small for ever after its first overflows."""),
        Wrong("divided by the next scale",
            change=("gradient.float() / scale, scale * 2", "gradient.float() / (scale * 2), scale * 2"),
            hint="You divide by the *next* scale. This gradient was made with the present one."),
        Wrong("wrong way", change=("scale / 2", "scale * 2"),
            hint="After an overflow you make the scale larger still. It was too large: halve it."),
    ),
    hints=(
        "Two questions, in this order: is every number finite? And, if so, is it time to try a larger scale?",
        """Not finite: (None, scale / 2, 0). Finite: divide in float32, count one more; when the count reaches
        `patience`, double the scale and begin to count again.""",
        """if not torch.isfinite(gradient).all(): return None, scale / 2, 0; otherwise gradient.float() / scale, with
        scale * 2 and 0 where good + 1 == patience, and scale and good + 1 elsewhere""",
    ),
)


def gather_backward(arrived: Tensor, rank: int) -> Tensor:
    """arrived (world, world * n, d): from each process's loss, its gradient for all gathered rows -> ours (n, d)."""
    world = len(arrived)
    return arrived.sum(dim=0).chunk(world)[rank]


def _arrivals(generator: torch.Generator) -> list[tuple[Tensor, int]]:
    sizes = ((2, 3, 4, 0), (2, 3, 4, 1), (3, 2, 5, 1), (4, 3, 2, 2))
    return [(torch.randn(w, w * n, d, generator=generator), r) for w, n, d, r in sizes]


def _backward_loop(arrived, rank):
    n = arrived.shape[1] // arrived.shape[0]
    mine = torch.zeros_like(arrived[0, :n])
    for one in arrived:
        mine += one[rank * n : (rank + 1) * n]
    return mine


def _backward_view(arrived, rank):
    world, rows, d = arrived.shape
    return arrived.view(world, world, rows // world, d)[:, rank].sum(dim=0)


the_way_back = Check(
    name="19.5 the way back through a gather", reference=gather_backward, cases=_arrivals,
    forbidden=(THE_COURSE,),
    rights=(_backward_loop, _backward_view),
    wrongs=(
        Wrong("own loss only", lambda arrived, rank: arrived[rank].chunk(len(arrived))[rank], """You take what your own
            loss says of your rows. The other processes' losses depend on your rows as well, as negatives: add up what
            all of them say. (This is what remains when own rows are put back into a gather without gradient.)"""),
        Wrong("mean", lambda arrived, rank: arrived.mean(dim=0).chunk(len(arrived))[rank],
            "You take the mean over processes. DDP divides by their number afterwards, once; here the sum is needed."),
        Wrong("everybody's rows", lambda arrived, rank: arrived.sum(dim=0), """The sum is right, and it is still the
            gradient of everybody's rows. You sent n of them: rows rank * n to (rank + 1) * n."""),
        Wrong("every world-th row", lambda arrived, rank: arrived.sum(dim=0)[rank :: len(arrived)], """You take every
            world-th row. The gather put the processes' rows one block after the other, so yours are a block, too."""),
        Wrong("own loss, all rows",
            lambda arrived, rank: arrived[rank].view(len(arrived), -1, arrived.shape[-1]).sum(dim=0),
            """You add up what your own loss says of everybody's rows. It is the other way round: what everybody's
            losses say of yours."""),
        Wrong("the others only", change=("arrived.sum(dim=0)", "(arrived.sum(dim=0) - arrived[rank])"),
            hint="You leave your own loss out. It depends on your rows, too."),
        Wrong("rows of rank 0", lambda arrived, rank: arrived.sum(dim=0).chunk(len(arrived))[0],
            "You return the first block, which is right for rank 0 alone. Block `rank` is yours."),
        Wrong("no gradient", lambda arrived, rank: torch.zeros_like(arrived[0].chunk(len(arrived))[0]), """You return
            zeros: that is the gather without gradient, and from the others' losses your network learns nothing."""),
    ),
    hints=(
        "Whose loss depends on the rows that you sent out? And which of the gathered rows are yours?",
        "Sum over the first dimension, which runs over the losses. Then the block of n rows number `rank`.",
        "arrived.sum(dim=0).chunk(len(arrived))[rank]",
    ),
)


def joint_statistics(means: Tensor, variances: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """means, variances (world, C), biased, counts (world,) -> mean and variance (C,) over all processes' values."""
    share = (counts / counts.sum())[:, None]  # (world, 1)
    mean = (share * means).sum(dim=0)
    return mean, (share * (variances + (means - mean).square())).sum(dim=0)


def _statistics(generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    for channels, counts in ((3, (6, 6)), (4, (5, 9)), (2, (4, 7, 12)), (5, (8, 3, 8, 2))):
        parts = [torch.randn(n, channels, generator=generator) * (1 + i) + 2 * i for i, n in enumerate(counts)]
        means = torch.stack([part.mean(dim=0) for part in parts])
        variances = torch.stack([part.var(dim=0, correction=0) for part in parts])
        yield means, variances, torch.tensor(counts, dtype=torch.float32)


def _joint_by_squares(means, variances, counts):
    weight = counts.unsqueeze(1) / counts.sum()
    mean = (weight * means).sum(0)
    squares = (weight * (variances + means**2)).sum(0)
    return mean, squares - mean**2


def _joint_loop(means, variances, counts):
    total = sum(counts)
    mean = sum(n * m for n, m in zip(counts, means, strict=True)) / total
    spread = sum(n * (v + (m - mean) ** 2) for n, m, v in zip(counts, means, variances, strict=True))
    return mean, spread / total


statistics_together = Check(
    name="19.6 batch norm's statistics, together", reference=joint_statistics, cases=_statistics,
    forbidden=(THE_COURSE,),
    close=Closeness(rtol=1e-4, atol=1e-5), rights=(_joint_by_squares, _joint_loop),
    wrongs=(
        Wrong("mean of variances", change=(" + (means - mean).square()", ""),
            hint="""The variance is the mean of the processes' variances, and so too small: their means differ as well,
            and that spread belongs to it. Add (mean of the process - joint mean) squared."""),
        Wrong("processes count alike", change=("(counts / counts.sum())[:, None]", "1 / len(counts)"),
            also=((("(share * means).sum(dim=0)", "means.mean(0)"),
            ("(share * (variances + (means - mean).square())).sum(dim=0)",
            "(share * (variances + (means - mean) ** 2)).sum(0)")),), hint="""You give every process the same weight.
            They have different numbers of values: weight by counts / counts.sum()."""),
        Wrong("plain means", lambda means, variances, counts: (means.mean(0), variances.mean(0)),
            """You average means and variances plainly. Two things are missing: each process counts with its number of
            values, and the spread between the means belongs to the variance."""),
        Wrong("between processes only", change=(("(share * means).sum(dim=0)", "(share * means).sum(0)"),
            ("(share * (variances + (means - mean).square())).sum(dim=0)", "(share * (means - mean) ** 2).sum(0)")),
            hint="""You have the spread between the processes' means. The spread within each of them, `variances`, is
            missing."""),
        Wrong("unbiased", change=("square())).sum(dim=0)", "square())).sum(dim=0) * counts.sum() / (counts.sum() - 1)"),
            hint="""You divide by the number of values minus one. Batch norm divides by their number when it normalizes
            (and by one less only in its running variance)."""),
        Wrong("standard deviation", change=("square())).sum(dim=0)", "square())).sum(dim=0).sqrt()"),
            hint="You return the standard deviation. The variance is asked for, before the root."),
        Wrong("mean's square left in", change=("(means - mean)", "means"),
            hint="That is the mean of the squares. For the variance, take the square of the joint mean off."),
        Wrong("sums", change=(("return mean,", "return mean * counts.sum(),"),
            ("square())).sum(dim=0)", "square())).sum(dim=0) * counts.sum()")),
            hint="You return sums over all values. Divide by counts.sum()."),
    ),
    hints=(
        """Two processes, each with variance 0, one with mean 0 and one with mean 10. What is the variance of all values
        together?""",
        """Joint mean: weighted by share = counts / counts.sum(). Joint variance: the weighted mean of (variance + (mean
        - joint mean)²).""",
        """share = (counts / counts.sum())[:, None]; mean = (share * means).sum(0); variance = (share * (variances +
        (means - mean) ** 2)).sum(0)""",
    ),
)
