"""Checks of lesson 21's exercises: what is hidden, the patches' loss, the blocks, SIGReg's statistic, KoLeo, Gram."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from sslcourse.checks import cases
from sslcourse.checks.framework import Check, Wrong, value_and_gradients, yourself


def hide(patches: Tensor, hidden: Tensor, token: Tensor, places: Tensor) -> Tensor:
    """patches (N, L, d), hidden bool (N, L), token (d,), places (L, d) -> the student's tokens (N, L, d)."""
    return torch.where(hidden[:, :, None], token, patches) + places


def _patches(generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    for n, l, d in [(2, 4, 3), (3, 5, 2), (4, 3, 6)]:
        hidden = cases.uniform(generator, n, l) < 0.5
        hidden[0, 0], hidden[0, 1] = True, False
        token = cases.normal(generator, d)
        yield cases.normal(generator, n, l, d), hidden, token, cases.normal(generator, l, d)


def _hide_in_loop(patches, hidden, token, places):
    rows = []
    for picture, gone in zip(patches, hidden, strict=True):
        rows.append(torch.stack([(token if g else p) + q for p, g, q in zip(picture, gone, places, strict=True)]))
    return torch.stack(rows)


def _hide_by_mask(patches, hidden, token, places):
    tokens = patches.clone()
    tokens[hidden] = token
    return tokens + places


hide_the_patches = Check(
    name="21.1 hide the patches", reference=hide, cases=_patches, rights=(_hide_in_loop, _hide_by_mask),
    wrongs=(
        Wrong("the wrong patches hidden", change=("token, patches", "patches, token"),
            hint="""You hide what should be seen, and show what should be hidden. Where `hidden` is True the token
            stands: torch.where(hidden[:, :, None], token, patches)."""),
        Wrong("no place for what is hidden", change=("patches) + places", "patches + places)"),
            hint="""Your hidden patches have no place, so that all of them look alike, and nobody could say what belongs
            where. The place is added to every token, the hidden ones too: first hide, then add."""),
        Wrong("no places", change=(" + places", ""), hint="""You leave out the places. Without them a transformer sees a
            bag of patches: add `places` to every token."""),
        Wrong("places for what is hidden alone", change=("token, patches) + places", "token + places, patches)"),
            hint="""You add the places to the hidden patches alone. Every token gets its place: add `places` to all of
            them."""),
        Wrong("zeros in place of the token", change=("token, patches", "torch.zeros_like(token), patches"),
            hint="You put zeros where something is hidden. The learned token stands there."),
        Wrong("token added to the patch", change=("token, patches", "patches + token, patches"), hint="""You add the
            token to the hidden patch, which is still in it: nothing is hidden. The token takes its place."""),
    ),
    hints=(
        "A transformer takes tokens in any number and order. What tells it that a patch is missing, and where?",
        """torch.where(condition, this, that) chooses for each number; the condition needs a third axis. What every
        token gets, hidden or not, is its place.""",
        "torch.where(hidden[:, :, None], token, patches) + places",
    ),
)


def patch_loss(student: Tensor, teacher: Tensor, hidden: Tensor, temperature: float) -> Tensor:
    """Logits student (N, L, K), distributions teacher (N, L, K), hidden bool (N, L) -> the loss, a scalar."""
    cost = -(teacher * (student / temperature).log_softmax(dim=2)).sum(dim=2)  # (N, L)
    return ((cost * hidden).sum(dim=1) / hidden.sum(dim=1)).mean()


def _hidden(generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor, Tensor, float]]:
    for n, l, k, temperature in [(3, 5, 4, 0.5), (2, 6, 3, 0.3), (4, 7, 2, 0.8)]:
        hidden = torch.arange(l) <= torch.arange(n)[:, None]  # of the n-th picture n + 1 patches
        student, teacher = cases.normal(generator, n, l, k), cases.normal(generator, n, l, k)
        yield student, (2 * teacher).softmax(dim=2), hidden, temperature


def _patch_loss_in_loop(student, teacher, hidden, temperature):
    pictures = []
    for s, t, gone in zip(student, teacher, hidden, strict=True):
        log_q = s / temperature - (s / temperature).logsumexp(dim=1, keepdim=True)
        pictures.append(-(t[gone] * log_q[gone]).sum() / gone.sum())
    return sum(pictures) / len(pictures)


def _patch_loss_by_weights(student, teacher, hidden, temperature):
    weight = hidden / hidden.sum(dim=1, keepdim=True) / len(hidden)  # (N, L)
    log_q = functional.log_softmax(student / temperature, dim=-1)
    return -(weight[:, :, None] * teacher * log_q).sum()


the_patches_loss = Check(
    name="21.2 the loss of the patches", reference=patch_loss, cases=_hidden, forbidden=(yourself("sslcourse.losses"),),
    rights=(_patch_loss_in_loop, _patch_loss_by_weights),
    wrongs=(
        Wrong("all patches asked", change=("(cost * hidden).sum(dim=1) / hidden.sum(dim=1)", "cost.mean(dim=1)"),
            hint="You ask about every patch. What the student sees it can copy: only the hidden ones count."),
        Wrong("the visible patches asked", change=("hidden).sum(dim=1) / hidden", "~hidden).sum(dim=1) / (~hidden)"),
            hint="""You ask about the patches that the student sees, and of those it must say nothing new. Ask about the
            hidden ones."""),
        Wrong("one mean over all hidden patches", change=("((cost * hidden).sum(dim=1) / hidden.sum(dim=1)).mean()",
            "(cost * hidden).sum() / hidden.sum()"),
            hint="""You take one mean over the hidden patches of all pictures, so that a picture with many of them
            counts more. A mean for each picture first, and then the mean of these."""),
        Wrong("divided by all patches", change=("/ hidden.sum(dim=1)", "/ hidden.shape[1]"), hint="""You divide by the
            number of all patches. Divide each picture's sum by how many of its patches are hidden."""),
        Wrong("not divided", change=(" / hidden.sum(dim=1)", ""),
            hint="You add up the hidden patches of a picture; their mean is asked for: divide by hidden.sum(dim=1)."),
        Wrong("temperature forgotten", change=("(student / temperature)", "student"),
            hint="The temperature has no effect on your result: divide the student's logits by it before log_softmax."),
        Wrong("temperature multiplied", change=("/ temperature", "* temperature"),
            hint="You multiply by the temperature. Divide the logits by it."),
        Wrong("softmax over the wrong axis", change=("log_softmax(dim=2)", "log_softmax(dim=1)"), hint="""Your softmax
            runs along the patches, dim=1. Each patch has a distribution over the K answers: dim=2."""),
        Wrong("logarithm forgotten", change=("log_softmax", "softmax"), hint="""You multiply probabilities by
            probabilities. The student's side of a cross-entropy are logarithms: log_softmax."""),
        Wrong("sign", change=("-(teacher", "(teacher"),
            hint="Your value is negative. Logarithms of probabilities are below 0: put a minus in front."),
        Wrong("sum over pictures", change=(".mean()", ".sum()"),
            hint="You add the pictures up; the mean over them is asked for."),
    ),
    hints=(
        "A cross-entropy for every patch is easy to compute at once, (N, L). Which of them count, and by how much?",
        """cost = -(teacher * log_softmax(student / temperature)).sum(2). Multiply by `hidden`, sum over patches, divide
        by the number of hidden patches of each picture, then the mean over pictures.""",
        "((cost * hidden).sum(1) / hidden.sum(1)).mean()",
    ),
)


def context(blocks: Tensor, side: int) -> Tensor:
    """blocks int64 (N, B, 4): top, left, height and width, in patches -> bool (N, side, side), True outside of all."""
    top, left, tall, wide = blocks[..., None, None].unbind(dim=2)  # (N, B, 1, 1) each
    row, column = torch.arange(side)[:, None], torch.arange(side)
    inside = (row >= top) & (row < top + tall) & (column >= left) & (column < left + wide)  # (N, B, side, side)
    return ~inside.any(dim=1)


def _blocks(generator: torch.Generator) -> Iterator[tuple[Tensor, int]]:
    for n, b, side in [(3, 2, 6), (2, 4, 8), (5, 3, 7)]:
        tall, wide = 1 + cases.whole(generator, 3, n, b), 2 + cases.whole(generator, 3, n, b)
        top = (cases.uniform(generator, n, b) * (side - tall + 1)).long()
        left = (cases.uniform(generator, n, b) * (side - wide + 1)).long()
        top[0, 0], left[0, 0] = side - tall[0, 0], 0
        yield torch.stack([top, left, tall, wide], dim=2), side


def _context_in_loop(blocks, side):
    seen = torch.ones(len(blocks), side, side, dtype=torch.bool)
    for n, picture in enumerate(blocks.tolist()):
        for top, left, tall, wide in picture:
            seen[n, top : top + tall, left : left + wide] = False
    return seen


def _context_cell_by_cell(blocks, side):
    def free(picture, row, column):
        return all(not (0 <= row - t < h and 0 <= column - l < w) for t, l, h, w in picture)

    rows = [[[free(p, i, j) for j in range(side)] for i in range(side)] for p in blocks.tolist()]
    return torch.tensor(rows)


what_is_left_to_see = Check(
    name="21.3 what is left to see", reference=context, cases=_blocks, rights=(_context_in_loop, _context_cell_by_cell),
    wrongs=(
        Wrong("the blocks themselves", change=("~inside", "inside"),
            hint="Your result is True inside the blocks: the student would see what it is asked about. Turn it round."),
        Wrong("outside of some block", change=("any", "all"), hint="""You hide only what lies in *all* blocks of a
            picture. What lies in any of them is asked about, so it must be hidden."""),
        Wrong("the first block alone", change=("inside.any(dim=1)", "inside[:, 0]"),
            hint="You hide the first block alone. All of them are asked about."),
        Wrong("rows and columns exchanged", change=("top, left, tall, wide =", "left, top, wide, tall ="),
            hint="""Your blocks are mirrored at the diagonal: top and height belong to rows, the first axis of a
            picture, left and width to columns."""),
        Wrong("height and width exchanged", change=("top, left, tall, wide =", "top, left, wide, tall ="),
            hint="Height and width are exchanged: the third number is the height, in rows."),
        Wrong("one too many", change=(("row < top + tall", "row <= top + tall"),
            ("column < left + wide", "column <= left + wide")), hint="""Your blocks have a row and a column too many: a
            block of height h that begins at row t ends before t + h."""),
        Wrong("ends instead of sizes", change=(("row < top + tall", "row < tall"),
            ("column < left + wide", "column < wide")), hint="""You take height and width for the block's last row and
            column. They are sizes: it ends before top + height."""),
        Wrong("one too few", change=(("row >= top", "row > top"), ("column >= left", "column > left")),
            hint="Your blocks lack their first row and column: a block begins at `top`, which belongs to it."),
    ),
    hints=(
        "Begin with a picture in which everything may be seen, and take away one block after the other.",
        """With slices: seen[n, top : top + tall, left : left + wide] = False. Or all at once: a patch lies in a block
        if its row and its column do.""",
        "two loops, over pictures and over their blocks, around the line with the slices",
    ),
)


def statistic(numbers: Tensor, t: Tensor) -> Tensor:
    """numbers (N,), t (K,) rising from 0 -> N times the integral from -t_K to t_K, by trapezoids; a scalar."""
    angle = numbers[:, None] * t  # (N, K)
    normal = (-t.square() / 2).exp()  # (K,)
    error = (angle.cos().mean(dim=0) - normal).square() + angle.sin().mean(dim=0).square()  # (K,)
    return 2 * len(numbers) * torch.trapezoid(error * normal, t)


def _numbers(generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    for n, knots, reach in [(3, 9, 3.0), (5, 6, 2.0), (8, 17, 4.0)]:
        yield cases.normal(generator, n) * 1.5 + 0.7, torch.linspace(0, reach, knots)


def _statistic_in_loop(numbers, t):
    def integrand(x):
        cosine = sum(math.cos(x * s) for s in numbers.tolist()) / len(numbers)
        sine = sum(math.sin(x * s) for s in numbers.tolist()) / len(numbers)
        normal = math.exp(-(x**2) / 2)
        return ((cosine - normal) ** 2 + sine**2) * normal

    height, total = [integrand(x) for x in t.tolist()], 0.0
    for k in range(len(t) - 1):
        total += (height[k] + height[k + 1]) / 2 * float(t[k + 1] - t[k])
    return torch.tensor(2 * len(numbers) * total)


def _statistic_by_complex(numbers, t):
    seen = torch.polar(torch.ones(len(numbers), len(t)), numbers[:, None] * t).mean(dim=0)  # (K,), complex
    normal = torch.exp(-(t**2) / 2)
    height = (seen - normal).abs() ** 2 * normal
    return len(numbers) * ((height[1:] + height[:-1]) * t.diff()).sum()


the_statistic = Check(
    name="21.4 how far from normal", reference=statistic, cases=_numbers, forbidden=(yourself("sslcourse.losses"),),
    rights=(_statistic_in_loop, _statistic_by_complex),
    wrongs=(
        Wrong("sines forgotten", change=(" + angle.sin().mean(dim=0).square()", ""), hint="""You leave out the sines,
            and with them the signs: a number and its negative have the same cosine, so a cloud folded onto one side of 0
            looks normal. A normal distribution has no sine, so that the mean of the sines is all error: add its square."""),
        Wrong("half of the integral", change=("2 * len", "len"), hint="""Your integral runs from 0 upwards alone. The
            other half is as large, since the integrand is even: twice."""),
        Wrong("not times N", change=("2 * len(numbers) *", "2 *"), hint="""Multiply by N, the number of embeddings.
            Without it the statistic of a normal cloud falls as there are more of them, and with it it stays."""),
        Wrong("weight forgotten", change=("error * normal", "error"), hint="""You leave out the weight exp(-t^2 / 2),
            which makes the far frequencies count little: multiply the error by it before you integrate."""),
        Wrong("squares before the mean",
            change=(("(angle.cos().mean(dim=0) - normal).square()", "(angle.cos() - normal).square().mean(dim=0)"),
            ("angle.sin().mean(dim=0).square()", "angle.sin().square().mean(dim=0)")), hint="""You square before you
            take the mean over the numbers: then each number alone should look like a whole distribution. The mean over
            the numbers comes first, it is the characteristic function; then the square."""),
        Wrong("another normal distribution", change=("-t.square() / 2", "-t.square()"), hint="""The characteristic
            function of the standard normal distribution is exp(-t^2 / 2); yours belongs to one that is wider."""),
        Wrong("mean over the frequencies", change=("mean(dim=0)", "mean(dim=1)"), hint="""You take the mean over the
            frequencies. It goes over the numbers, one for each frequency t: dim=0 of (N, K)."""),
        Wrong("cosine and sine exchanged", change=(("angle.cos()", "angle.tan()"), ("angle.sin()", "angle.cos()"),
            ("angle.tan()", "angle.sin()")), hint="""Cosine and sine are exchanged: exp(i t s) is cos(ts) + i sin(ts),
            and a normal distribution's part is the real one, the cosine."""),
        Wrong("a sum instead of an integral", change=("torch.trapezoid(error * normal, t)", "(error * normal).sum()"),
            hint="""You add up the heights, and their number changes with the number of knots. An integral has widths:
            trapezoids between the knots, torch.trapezoid(height, t)."""),
    ),
    hints=(
        """At each t: the mean of cos(ts) and of sin(ts) over the numbers s. What are these two means for a normal
        distribution?""",
        """They are exp(-t^2 / 2) and 0. Square both errors, add them, weight by exp(-t^2 / 2), integrate from 0 by
        trapezoids; twice, and times N.""",
        "2 * len(numbers) * torch.trapezoid(((cosine - normal) ** 2 + sine**2) * normal, t)",
    ),
)


def koleo(z: Tensor) -> Tensor:
    """z (N, d) -> minus the mean logarithm of each row's distance from its nearest other, on the unit sphere."""
    z = functional.normalize(z, dim=1)
    distance = (z[:, None] - z).square().sum(dim=2).sqrt()  # (N, N)
    distance = distance.masked_fill(torch.eye(len(z), dtype=torch.bool), math.inf)
    return -distance.min(dim=1).values.log().mean()


def _scattered(generator: torch.Generator) -> list[tuple[Tensor]]:
    near = [(cases.normal(generator, n, d) + 0.5,) for n, d in [(5, 3), (7, 2), (4, 6)]]
    return [*near, (torch.eye(6) + 0.05 * torch.randn(6, 6, generator=generator),)]  # so far apart that it is below 0


def _koleo_in_loop(z):
    unit = [row / row.norm() for row in z]
    nearest = [min(float((a - b).norm()) for j, b in enumerate(unit) if j != i) for i, a in enumerate(unit)]
    return torch.tensor(-sum(map(math.log, nearest)) / len(nearest))


def _koleo_by_cosines(z):
    z = z / z.norm(dim=1, keepdim=True)
    cosine = (z @ z.T).fill_diagonal_(-2)
    return -(2 - 2 * cosine.max(dim=1)[0]).log().mean() / 2


room_for_everyone = Check(
    name="21.5 room for everyone", reference=koleo, cases=_scattered, forbidden=(yourself("sslcourse.losses"),),
    rights=(_koleo_in_loop, _koleo_by_cosines),
    wrongs=(
        Wrong("everyone nearest to itself",
            change=("distance = distance.masked_fill(torch.eye(len(z), dtype=torch.bool), math.inf)", "pass"),
            hint="""Everybody is nearest to itself, at distance 0, and the logarithm of that is infinite. Take the
            diagonal out before you look for the nearest: fill it with infinity."""),
        Wrong("lengths kept", change=("z = functional.normalize(z, dim=1)", "pass"),
            hint="""You measure distances of embeddings of any length: they could run away from each other for ever.
            Bring every row to length 1 first."""),
        Wrong("the farthest", change=(("math.inf", "-math.inf"), ("distance.min", "distance.max")),
            hint="You take the farthest other. The *nearest* counts: that is whom one must get away from."),
        Wrong("everyone counts", change=("-distance.min(dim=1).values.log().mean()",
            "-distance[~torch.eye(len(z), dtype=torch.bool)].log().mean()"), hint="""You take the mean over all others.
            Only the nearest other of each row counts: the minimum of its row."""),
        Wrong("sign", change=("-distance.min", "distance.min"), hint="""The sign is the other way: a loss is to fall
            when neighbours move apart, so it is *minus* the logarithm."""),
        Wrong("logarithm forgotten", change=(".values.log()", ".values"),
            hint="You leave out the logarithm. With it those who are nearly the same are pushed by far the most."),
        Wrong("logarithm of the mean", change=(".log().mean()", ".mean().log()"),
            hint="You take the logarithm of the mean distance. First the logarithm of each distance, then their mean."),
        Wrong("squared distances", change=(".sqrt()", ""),
            hint="You take the logarithm of squared distances, which is twice as much. The distance has a root."),
        Wrong("sum over rows", change=(".mean()", ".sum()"), hint="You add the rows up; their mean is asked for."),
    ),
    hints=(
        "For each embedding, who is its nearest other? And what makes the loss grow without end as the two meet?",
        """Normalize the rows; all distances as (N, N); infinity on the diagonal; the minimum of each row; minus the
        mean of the logarithms.""",
        "-distance.min(dim=1).values.log().mean()",
    ),
)


def gram(student: Tensor, anchor: Tensor) -> Tensor:
    """Features (N, L, d) of the student and of its anchor -> mean squared difference of their patches' cosines."""
    own, kept = functional.normalize(student, dim=2), functional.normalize(anchor.detach(), dim=2)
    return (own @ own.mT - kept @ kept.mT).square().mean()


def _gram_by_einsum(student, anchor):
    def alike(x):
        return torch.einsum("nid,njd->nij", x, x) / (x.norm(dim=2)[:, :, None] * x.norm(dim=2)[:, None])

    return (alike(student) - alike(anchor.detach())).pow(2).mean()


def _gram_in_loop(student, anchor):
    total = 0.0
    for own, kept in zip(student, anchor.detach(), strict=True):
        for i in range(len(own)):
            for j in range(len(own)):
                cosines = [functional.cosine_similarity(x[i], x[j], dim=0) for x in (own, kept)]
                total = total + (cosines[0] - cosines[1]) ** 2
    return total / len(student) / student.shape[1] ** 2


the_gram_anchor = Check(
    name="21.6 as alike as before", reference=gram,
    cases=lambda g: [(cases.normal(g, *s) + 0.3, cases.normal(g, *s)) for s in [(2, 4, 3), (3, 2, 5), (4, 5, 2)]],
    run=value_and_gradients, forbidden=(yourself("sslcourse.losses"),), rights=(_gram_by_einsum, _gram_in_loop),
    wrongs=(
        Wrong("the anchor learns", change=(".detach()", ""),
            hint="The value is right, and a gradient reaches the anchor. It stands for how things were: .detach() it."),
        Wrong("the student stands still", change=(("anchor.detach()", "anchor"), ("(student,", "(student.detach(),")),
            hint="You stop the student's gradient, and it is the student that must learn. Detach the anchor."),
        Wrong("dimensions compared", change=("own @ own.mT - kept @ kept.mT", "own.mT @ own - kept.mT @ kept"),
            hint="""You compare dimensions with dimensions, (d, d). The Gram matrix of *patches* is (L, L) for each
            picture."""),
        Wrong("lengths kept", change=(("functional.normalize(student, dim=2)", "student"),
            ("functional.normalize(anchor.detach(), dim=2)", "anchor.detach()")), hint="""You compare products of
            features of any length. Cosines are asked for: bring every patch to length 1 first."""),
        Wrong("normalized over the wrong axis",
            change=(("functional.normalize(student, dim=2)", "functional.normalize(student, dim=1)"),
            ("functional.normalize(anchor.detach(), dim=2)", "functional.normalize(anchor.detach(), dim=1)")),
            hint="You normalize along the patches. A patch's feature is a row of d numbers: dim=2."),
        Wrong("features compared", change=("own @ own.mT - kept @ kept.mT", "own - kept"),
            hint="""You compare the features themselves, which ties the student to the anchor wholly. Only which patches
            are alike is to stay: compare the matrices of cosines."""),
        Wrong("student against anchor", change=("own @ own.mT - kept @ kept.mT", "own @ kept.mT"),
            hint="""You multiply the student's patches by the anchor's. Each has a Gram matrix of its own, with itself;
            then their difference."""),
        Wrong("sum of squares", change=(".square().mean()", ".square().sum()"),
            hint="You add up the squares; their mean over pictures and pairs is asked for."),
        Wrong("absolute differences", change=(".square()", ".abs()"),
            hint="You take absolute differences; squared ones are asked for."),
    ),
    hints=(
        "For each picture a table, patch by patch: how alike are these two? Once by the student, once by the anchor.",
        """Normalize along d. own @ own.mT is (N, L, L), the cosines of all pairs. The anchor's side is data: no
        gradient.""",
        "(own @ own.mT - kept @ kept.mT).square().mean(), with kept from anchor.detach()",
    ),
)
