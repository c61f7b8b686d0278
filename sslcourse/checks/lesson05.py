"""Checks of the exercises of lesson 05: light, one answer, colourfulness, annealed mean, soft labels."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sslcourse.checks.cases import normal, pictures, uniform, whole
from sslcourse.checks.compare import Closeness
from sslcourse.checks.framework import Check, Mistake, Wrong


def to_light(images: Tensor) -> Tensor:
    """uint8 sRGB of any shape -> the amount of light, float32 in [0, 1]."""
    x = images.float() / 255
    return torch.where(x > 0.04045, ((x + 0.055) / 1.055) ** 2.4, x / 12.92)


def _bytes(generator: torch.Generator) -> list[tuple[Tensor]]:
    """Every byte there is, random pictures in which both branches occur, one all dark, and one all bright."""
    cases = [(torch.arange(258).clamp(max=255).to(torch.uint8).view(2, 3, 1, 43),)]
    for shape in [(2, 3, 4, 5), (1, 3, 7, 3), (5, 3, 2, 2)]:
        dark = whole(generator, 11, *shape).to(torch.uint8)
        cases.append((torch.where(uniform(generator, *shape) < 0.3, dark, pictures(generator, *shape)),))
    dark, bright = whole(generator, 11, 1, 3, 3, 2), 11 + whole(generator, 245, 1, 3, 2, 4)
    return [*cases, (dark.to(torch.uint8),), (bright.to(torch.uint8),)]


def _light_by_mask(images):
    x = images.float() / 255
    light = x / 12.92
    bright = x > 0.04045
    light[bright] = ((x[bright] + 0.055) / 1.055).pow(2.4)
    return light


def _light_by_table(images):
    table = torch.tensor([v / 255 / 12.92 if v <= 10 else ((v / 255 + 0.055) / 1.055) ** 2.4 for v in range(256)])
    return table[images.long()]


def _light_by_bytes(images):
    bright = images > 10
    share = images / 255.0
    return bright * ((share + 0.055) / 1.055) ** 2.4 + ~bright * share / 12.92


light_behind_a_number = Check(
    name="5.1 the light behind a number", reference=to_light, cases=_bytes,
    close=Closeness(rtol=1e-4, atol=1e-6, dtype="exact"), rights=(_light_by_mask, _light_by_table, _light_by_bytes),
    wrongs=(
        Wrong("no curve at all", lambda images: images / 255,
            """You only divide by 255. A screen's number isn't proportional to its light: 128 gives about a fifth of the
            light of 255, not half. Undo the curve, ((x + 0.055) / 1.055) ** 2.4."""),
        Wrong("0 to 255", change=("/ 255", ""),
            hint="The curve is defined on [0, 1], and you give it values up to 255: divide by 255 first."),
        Wrong("the wrong way",
            change=(("x > 0.04045, ((x + 0.055) / 1.055) ** 2.4", "x > 0.0031308, 1.055 * x ** (1 / 2.4) - 0.055"),
            ("x / 12.92", "x * 12.92")), also=((("** 2.4", "** (1 / 2.4)"), ("x / 12.92", "x * 12.92")),),
            hint="""You apply the curve that turns light into a screen's number. Needed is its inverse: exponent 2.4,
            not 1/2.4."""),
        Wrong("branches swapped", change=("x > 0.04045", "x <= 0.04045"),
            hint="""The two branches are swapped: in torch.where(mask, a, b), a is taken where the mask is True. Above
            0.04045 belongs the power, below it the straight line."""),
        Wrong("no straight line", change=("x > 0.04045", "x >= 0"), hint="""Bright pixels are right and dark ones
            aren't: up to 0.04045 (byte values up to 10) the curve is a straight line, x / 12.92."""),
        Wrong("the picture decides", change=("torch.where(x > 0.04045, ((x + 0.055) / 1.055) ** 2.4, x / 12.92)",
            "((x + 0.055) / 1.055) ** 2.4 if x.mean() > 0.04045 else x / 12.92"), hint="""You choose one branch for the
            whole picture. Each value of each pixel chooses for itself: torch.where."""),
        Wrong("gamma 2.2", lambda images: (images / 255) ** 2.2, also=(("((x + 0.055) / 1.055) ** 2.4", "x**2.2"),),
            hint="""x ** 2.2 is the usual shortcut, and close. sRGB's own curve is ((x + 0.055) / 1.055) ** 2.4, with a
            straight line near black."""),
        Wrong("no offset", change=("((x + 0.055) / 1.055) ** 2.4", "x**2.4"), hint="""You leave out the offset: it is
            ((x + 0.055) / 1.055) ** 2.4, which meets the straight line where the two change over."""),
    ),
    hints=(
        "Three steps: bytes to [0, 1], then two formulas, then a choice between them for each value.",
        """x = images.float() / 255. Above 0.04045: ((x + 0.055) / 1.055) ** 2.4. Otherwise: x / 12.92.
        torch.where(mask, a, b) chooses.""",
        "torch.where(x > 0.04045, ((x + 0.055) / 1.055) ** 2.4, x / 12.92)",
    ),
    praise="Whoever averages pixels, blurs or resizes without this step averages numbers, not light.",
)


def best_answers(share: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """share (M, Q), rows summing to 1, centres (Q, 2) -> the least squared error's answer and the likeliest, (M, 2)."""
    return share @ centres, centres[share.argmax(dim=1)]


def _distributions(generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    for m, q in [(3, 4), (1, 6), (7, 5), (4, 9)]:
        yield (1.5 * normal(generator, m, q)).softmax(dim=1), 20 * normal(generator, q, 2)
    two = torch.tensor([[70.0, 50.0], [20.0, -60.0]])  # the balloons of the lesson: red and blue
    yield torch.tensor([[0.6, 0.4], [0.3, 0.7], [0.55, 0.45]]), two


def _best_in_loop(share, centres):
    means, modes = [], []
    for row in share:
        means.append(sum(p * c for p, c in zip(row, centres, strict=True)))
        modes.append(centres[max(range(len(row)), key=lambda q: row[q].item())])
    return torch.stack(means), torch.stack(modes)


def _best_by_broadcast(share, centres):
    mean = (share[:, :, None] * centres[None]).sum(dim=1)
    top = share.topk(1, dim=1).indices[:, 0]
    return mean, centres.index_select(0, top)


def _best_by_einsum(share, centres):
    onehot = torch.nn.functional.one_hot(share.max(dim=1).indices, share.shape[1]).to(centres)
    return torch.einsum("mq,qc->mc", share, centres), onehot @ centres


mean_and_mode = Check(
    name="5.2 the mean and the mode", reference=best_answers, cases=_distributions,
    rights=(_best_in_loop, _best_by_broadcast, _best_by_einsum),
    wrongs=(
        Wrong("swapped", lambda share, centres: best_answers(share, centres)[::-1], """The two are swapped: the mean has
            the least expected squared error, and comes first; the most likely colour comes second."""),
        Wrong("mean for both", change=("centres[share.argmax(dim=1)]", "share @ centres"), hint="""Your second answer is
            the mean again. The most likely colour is one of the centres: the one with the largest share."""),
        Wrong("mode for both", change=("share @ centres", "centres[share.argmax(dim=1)]"),
            hint="""Your first answer is the most likely colour again. What has the least expected squared error is the
            mean, sum of share times centre."""),
        Wrong("mean without shares", change=("share @ centres", "centres.mean(dim=0).expand(len(share), 2)"),
            hint="""Your mean counts every colour alike, so it is the same for every pixel: each centre counts by its
            share, share @ centres."""),
        Wrong("divided by the number of colours", change=("share @ centres", "share @ centres / share.shape[1]"),
            hint="""Your mean is too small by a factor of Q. The shares sum to 1 already: take the sum of share times
            centre, not the mean."""),
        Wrong("number of the bin", change=("centres[share.argmax(dim=1)]", "share.argmax(dim=1)"), hint="""Your second
            answer is the number of the most likely bin; needed is its colour: centres[that number]."""),
        Wrong("the share itself", change=("centres[share.argmax(dim=1)]", "share.max(dim=1).values"),
            hint="""Your second answer is how likely the most likely colour is; needed is which it is: argmax gives its
            number, centres[...] its colour."""),
        Wrong("one mode for all",
            change=("[share.argmax(dim=1)]", "[share.sum(dim=0).argmax()].expand(len(share), 2).clone()"),
            hint="""You give every pixel the colour that is most likely over all of them: take the argmax along
            dimension 1, for each pixel alone."""),
        Wrong("argmax along the pixels", change=("argmax(dim=1)", "argmax(dim=0)[: len(share)]"),
            hint="You take the argmax along dimension 0, over the pixels: it must run over the colours, dimension 1."),
        Wrong("nearest to the mean", change=("return share @ centres, centres[share.argmax(dim=1)]",
            "mean = share @ centres; return mean, centres[torch.cdist(mean, centres).argmin(dim=1)]"),
            hint="""Your second answer is the centre that lies nearest to the mean, which may be a colour that hardly
            ever occurs. Needed is the one with the largest share."""),
        Wrong("least likely", change=("argmax", "argmin"),
            hint="Your second answer is the least likely colour: argmax, not argmin."),
    ),
    hints=(
        """The first answer is derived in the lesson: set the derivative of the expected squared error to zero. It is an
        average in which each colour counts by its share.""",
        """The mean of a row is sum over q of share[m, q] * centres[q]: a matrix product. The mode is the centre at
        share.argmax(dim=1).""",
        "return share @ centres, centres[share.argmax(dim=1)]",
    ),
    praise="Regression can give the first alone. A network that gives you the shares leaves the choice to you.",
)


def colorfulness(images: Tensor) -> Tensor:
    """RGB float (N, 3, H, W) in [0, 1] -> Hasler and Süsstrunk's colourfulness, (N,)."""
    red, green, blue = images.unbind(1)
    rg, yb = red - green, (red + green) / 2 - blue  # (N, H, W) each
    spread = torch.hypot(rg.std(dim=(1, 2), correction=0), yb.std(dim=(1, 2), correction=0))
    return spread + 0.3 * torch.hypot(rg.mean(dim=(1, 2)), yb.mean(dim=(1, 2)))


def _float_pictures(generator: torch.Generator) -> list[tuple[Tensor]]:
    cases = []
    for n, h, w in [(2, 2, 3), (1, 4, 4), (4, 5, 2), (3, 1, 6)]:
        tint = uniform(generator, n, 3, 1, 1)  # a mean that is far from gray
        cases.append((0.5 * uniform(generator, n, 3, h, w) + 0.5 * tint,))
    return [*cases, (cases[0][0][:1, :1].expand(-1, 3, -1, -1).clone(),)]


def _opponents(images):
    red, green, blue = images.unbind(1)
    return red - green, (red + green) / 2 - blue


def _colorful_in_loop(images):
    found = []
    for image in images:
        rg, yb = _opponents(image[None])
        spread = (rg.var(correction=0) + yb.var(correction=0)) ** 0.5
        found.append(spread + 0.3 * (rg.mean() ** 2 + yb.mean() ** 2) ** 0.5)
    return torch.stack(found)


def _colorful_by_hypot(images):
    rg, yb = (part.flatten(1) for part in _opponents(images))
    spread = torch.hypot(rg.std(1, unbiased=False), yb.std(1, unbiased=False))
    return spread + 0.3 * torch.hypot(rg.mean(1), yb.mean(1))


def _colorful_by_moments(images):
    both = torch.stack(_opponents(images), dim=1).flatten(2).double()  # (N, 2, H*W)
    mean = both.mean(2)
    variance = ((both - mean[:, :, None]) ** 2).mean(2)
    return (variance.sum(1).sqrt() + 0.3 * mean.norm(dim=1)).float()


how_colourful = Check(
    name="5.3 how colourful", reference=colorfulness, cases=_float_pictures,
    rights=(_colorful_in_loop, _colorful_by_hypot, _colorful_by_moments),
    wrongs=(
        Wrong("no mean", change=("0.3 *", "0.0 *"), hint="""You give the spread alone: a picture that is one strong
            colour all over would count as gray. Add 0.3 times the length of the mean."""),
        Wrong("no spread", change=("spread +", ""),
            hint="You give the mean's part alone: red and green in equal amounts would count as gray. Add the spread."),
        Wrong("0.3 forgotten", change=("0.3 *", ""), hint="You add spread and mean alike: the mean counts 0.3."),
        Wrong("0.3 at the spread", change=("spread + 0.3 *", "0.3 * spread +"),
            hint="The factor 0.3 is at the spread: it belongs to the mean."),
        Wrong("deviations added", change=(("spread = torch.hypot", "spread = torch.add"),
            ("torch.hypot(rg.mean(dim=(1, 2)), yb.mean(dim=(1, 2)))",
            "(rg.mean((1, 2)).abs() + yb.mean((1, 2)).abs())")), also=(("spread = torch.hypot", "spread = torch.add"),
            ("hypot", "add")), hint="""You add the two axes' numbers; they are the sides of a right-angled triangle, and
            its long side is needed: the root of the sum of squares."""),
        Wrong("no root", change=("torch.hypot", "(lambda a, b: a**2 + b**2)"), hint="""You forget the square roots: the
            spread is sqrt(std_rg**2 + std_yb**2), and the mean's length likewise."""),
        Wrong("yellow not halved", change=(" / 2 - blue", " - blue"), hint="""Yellow is the *mean* of red and green: (R
            + G) / 2 - B. As you have it, gray pictures would count as yellow."""),
        Wrong("yellow minus blue halved", change=("/ 2 - blue", "/ 2 - blue / 2"),
            hint="You halve blue as well: (R + G) / 2 - B, the half belongs to red and green alone."),
        Wrong("n minus 1", change=("correction=0", "correction=1"), hint="""Your standard deviation divides by n - 1,
            PyTorch's default. All pixels are there, not a sample of them: unbiased=False (or correction=0)."""),
        Wrong("one number for the batch", change=(("dim=(1, 2)", "dim=(0, 1, 2)"),
            ("return spread", "return torch.zeros(len(images)) + spread")), also=(("dim=(1, 2)", "dim=(0, 1, 2)"),),
            hint="""You measure the batch as if it were one picture: each picture has its own number, so keep dimension
            0."""),
    ),
    hints=(
        """Two numbers for each pixel, red minus green and yellow minus blue. Then the spread and the mean of both over
        the picture.""",
        """Take them apart: r, g, b = images.unbind(1). rg = r - g, yb = (r + g) / 2 - b. Over dim=(1, 2):
        std(correction=0) and mean. Each pair becomes one number by sqrt(x**2 + y**2).""",
        """torch.hypot(rg.std((1, 2), correction=0), yb.std((1, 2), correction=0)) + 0.3 * torch.hypot(rg.mean((1, 2)),
        yb.mean((1, 2)))""",
    ),
    praise="A number for 'how gray is it?', without anybody's taste in it.",
)


def annealed_mean(logits: Tensor, centres: Tensor, temperature: float) -> Tensor:
    """logits (N, Q, H, W), centres (Q, 2): the mean colour under softmax(logits / temperature), (N, 2, H, W)."""
    return torch.einsum("nqhw,qc->nchw", (logits / temperature).softmax(dim=1), centres)


def _logit_maps(generator: torch.Generator) -> list[tuple[Tensor, Tensor, float]]:
    sizes = [(2, 4, 3, 5, 0.38), (1, 6, 2, 2, 0.6), (3, 5, 4, 2, 1.7), (2, 7, 5, 4, 0.2)]
    return [(1.5 * normal(generator, n, q, h, w), 20 * normal(generator, q, 2), t) for n, q, h, w, t in sizes]


def _anneal_in_loop(logits, centres, temperature):
    n, _, h, w = logits.shape
    result = torch.zeros(n, 2, h, w)
    for i in range(n):
        for y in range(h):
            for x in range(w):
                p = torch.softmax(logits[i, :, y, x] / temperature, dim=0)
                result[i, :, y, x] = (p[:, None] * centres).sum(dim=0)
    return result


def _anneal_by_powers(logits, centres, temperature):
    """As the paper writes it: exp(log(p) / T), and then divided by the sum."""
    powered = torch.exp(logits.log_softmax(dim=1) / temperature)
    share = powered / powered.sum(dim=1, keepdim=True)
    return (share.movedim(1, -1) @ centres).movedim(-1, 1)


def _anneal_flat(logits, centres, temperature):
    n, q, h, w = logits.shape
    share = torch.softmax(logits.div(temperature).permute(0, 2, 3, 1).reshape(-1, q), dim=-1)
    return share.mm(centres).view(n, h, w, 2).permute(0, 3, 1, 2)


annealed_mean_of_maps = Check(
    name="5.4 the annealed mean", reference=annealed_mean, cases=_logit_maps, close=Closeness(rtol=1e-4, atol=1e-4),
    rights=(_anneal_in_loop, _anneal_by_powers, _anneal_flat),
    wrongs=(
        Wrong("no temperature", change=("(logits / temperature)", "logits"), hint="""Your result is the plain mean, at
            temperature 1: divide the logits by the temperature before the softmax."""),
        Wrong("multiplied", change=("/ temperature", "* temperature"), hint="""You multiply the logits by the
            temperature: then a low one makes the distribution flat. Divide, so that a low one makes it sharp."""),
        Wrong("softmax too early", change=("logits / temperature", "logits.softmax(dim=1) / temperature"),
            hint="""You take the softmax twice: probabilities divided by the temperature and put through a softmax again
            lie close together, whatever the logits were. Divide the *logits* (or the logarithms of the probabilities),
            and take one softmax."""),
        Wrong("probabilities divided",
            change=("(logits / temperature).softmax(dim=1)", "logits.softmax(dim=1) / temperature"),
            hint="""You divide the probabilities by the temperature: they no longer sum to 1, and the colours leave the
            plane. Divide the logits, and then take the softmax."""),
        Wrong("not normalized again",
            change=("(logits / temperature).softmax(dim=1)", "(logits.log_softmax(dim=1) / temperature).exp()"),
            also=((".softmax(dim=1)", ".exp()"),), hint="""Your shares don't sum to 1: after raising probabilities to
            the power 1/T, divide by their sum. The softmax of logits / T does both at once."""),
        Wrong("divided twice", change=("/ temperature", "/ temperature**2"),
            hint="""The temperature acts twice, as its square: logits divided by T are annealed already; dividing their
            log-softmax by T again anneals once more."""),
        Wrong("argmax", lambda logits, centres, temperature: centres[logits.argmax(dim=1)].permute(0, 3, 1, 2),
            """You take the most likely colour: that is the limit of temperature 0. Needed is the mean under
            softmax(logits / temperature)."""),
        Wrong("softmax over the batch", change=("dim=1", "dim=0"), hint="""Your softmax runs over the pictures,
            dimension 0: for each pixel the shares of the colours must sum to 1, dimension 1."""),
        Wrong("softmax over the columns", change=("dim=1", "dim=-1"), hint="""Your softmax runs over the last dimension,
            the columns of the picture: for each pixel the shares of the colours must sum to 1, dimension 1."""),
        Wrong("a and b swapped", change=(", centres)", ", centres.flip(1))"),
            hint="a and b are swapped: channel c of the result belongs to centres[:, c]."),
        Wrong("divided by the number of colours", change=(", centres)", ", centres) / logits.shape[1]"),
            hint="""Your result is too small by a factor of Q: the shares sum to 1 already, so sum over the colours
            instead of averaging."""),
    ),
    hints=(
        "Two steps: from logits to shares, and from shares to a mean colour. The temperature belongs into the first.",
        """share = (logits / temperature).softmax(dim=1), (N, Q, H, W). Then sum over q of share[n, q, h, w] *
        centres[q, c]: torch.einsum does it in one line.""",
        'torch.einsum("nqhw,qc->nchw", (logits / temperature).softmax(dim=1), centres)',
    ),
    praise="At T = 1 it is the mean, at T near 0 the mode; Zhang et al. took 0.38.",
)


def weights_of_bins(frequency: Tensor, strength: float) -> Tensor:
    """frequency (Q,), summing to 1 -> weights (Q,), inverse to the mixed frequency; the mean weight of a pixel is 1."""
    mixed = strength * frequency + (1 - strength) / len(frequency)  # (Q,)
    weights = 1 / mixed
    return weights / (frequency * weights).sum()


def _frequencies(generator: torch.Generator) -> list[tuple[Tensor, float]]:
    sizes = ((4, 0.5), (7, 0.8), (5, 0.3), (9, 0.5), (6, 0.9), (3, 0.15))
    rare = torch.tensor([0.0, 0.3, 0.6, 0.1, 0.0])  # bins that never occur still have a weight
    return [*(((1.2 * normal(generator, q)).softmax(dim=0), strength) for q, strength in sizes), (rare, 0.5)]


def _weigh_in_loop(frequency, strength):
    raw = [1 / (strength * p + (1 - strength) / len(frequency)) for p in frequency.tolist()]
    total = sum(p * w for p, w in zip(frequency.tolist(), raw, strict=True))
    return torch.tensor([w / total for w in raw])


def _weigh_by_lerp(frequency, strength):
    uniform = torch.full_like(frequency, 1 / frequency.numel())
    weights = torch.lerp(uniform, frequency, strength).reciprocal()
    return weights / torch.dot(frequency, weights)


def _weigh_scaled(frequency, strength):
    """Any common factor cancels."""
    q = frequency.shape[0]
    weights = (q * strength * frequency + 1 - strength) ** -1
    return weights / (weights @ frequency)


rebalancing_weights = Check(
    name="5.5 the weight of a rare colour", reference=weights_of_bins, cases=_frequencies,
    rights=(_weigh_in_loop, _weigh_by_lerp, _weigh_scaled),
    wrongs=(
        Wrong("not normalized", change=(" / (frequency * weights).sum()", ""),
            hint="""The ratios are right, the scale isn't: divide by the mean weight of a pixel, (frequency *
            weights).sum(), so that the loss keeps its size."""),
        Wrong("mean over bins", change=("(frequency * weights).sum()", "weights.mean()"),
            hint="""Your weights have mean 1 over the *bins*. Over the *pixels* it must be 1, and frequent bins have
            more of them: divide by (frequency * weights).sum()."""),
        Wrong("sum 1", change=("(frequency * weights).sum()", "weights.sum()"), hint="""Your weights sum to 1. They are
            no probabilities: what must be 1 is the mean weight of a pixel, (frequency * weights).sum()."""),
        Wrong("by frequency", change=("1 / mixed", "mixed"), hint="""Your weights grow with the frequency: gray, which
            is everywhere, would count most. Take the inverse of the mixed frequency."""),
        Wrong("mixed the wrong way round",
            change=("strength * frequency + (1 - strength)", "(1 - strength) * frequency + strength"),
            hint="""The mixture is the wrong way round: strength belongs to the frequency, 1 - strength to the uniform
            1/Q. Test: strength 0 must give equal weights. (Zhang et al.'s lambda is our 1 - strength.)"""),
        Wrong("no mixture",
            change=("strength * frequency + (1 - strength) / len(frequency)", "frequency.clamp(min=1e-6)"),
            also=(("strength * frequency + (1 - strength) / len(frequency)", "frequency"),),
            hint="""You take the inverse of the frequency itself, whatever the strength: a bin that hardly occurs then
            outweighs all the others. Mix with the uniform 1/Q first."""),
        Wrong("uniform without Q", change=(" / len(frequency)", ""), hint="""You mix with 1 in place of 1/Q: the uniform
            distribution over Q bins has 1/Q for each, and sums to 1 as the frequency does."""),
        Wrong("mixed after the inverse", change=(("strength * frequency", "strength / frequency.clamp(min=1e-6)"),
            (" / len(frequency)", ""), ("1 / mixed", "mixed")),
            also=((("(1 - strength) / len(frequency)", "(1 - strength) * len(frequency)"),
            ("strength * frequency", "strength / frequency.clamp(min=1e-6)"), ("1 / mixed", "mixed")),),
            hint="""You take the inverse first, and mix afterwards: a rare bin's huge inverse survives that. Mix the
            frequencies, then take the inverse."""),
        Wrong("a power instead",
            change=(("strength * frequency + (1 - strength) / len(frequency)", "frequency.clamp(min=1e-6)"),
            ("1 / mixed", "mixed**-strength")), hint="""You take the frequency to the power of -strength: a weighting
            that exists, but another one. Here the frequency is mixed with 1/Q, and then inverted."""),
        Wrong("square root of the inverse", change=("1 / mixed", "mixed**-0.5"),
            hint="You take the square root of the inverse; the inverse itself is asked for."),
    ),
    hints=(
        "Three steps: mix the frequency with the uniform distribution, take the inverse, and set the scale.",
        """mixed = strength * frequency + (1 - strength) / Q with Q = len(frequency); weights = 1 / mixed. The mean
        weight of a pixel is (frequency * weights).sum().""",
        """weights = 1 / (strength * frequency + (1 - strength) / len(frequency)); return weights / (frequency *
        weights).sum()""",
    ),
    praise="Because the mean weight of a pixel is 1, the learning rate needs no change.",
)


def soft_labels(ab: Tensor, centres: Tensor, neighbours: int = 5, sigma: float = 5.0) -> Tensor:
    """ab (M, 2), centres (Q, 2) -> (M, Q): Gaussian weights on the nearest centres, rows summing to 1, else 0."""
    distance = torch.cdist(ab, centres)
    nearest, index = distance.topk(neighbours, dim=1, largest=False)
    weight = torch.exp(-(nearest**2) / (2 * sigma**2))
    label = torch.zeros(len(ab), len(centres)).scatter(1, index, weight)
    return label / label.sum(dim=1, keepdim=True)


def _plane(generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor, int, float]]:
    for m, side, neighbours, sigma in ((3, 4, 5, 5.0), (6, 3, 4, 5.0), (4, 5, 5, 7.0), (1, 4, 3, 4.0)):
        line = 10.0 * torch.arange(side)
        centres = torch.cartesian_prod(line, line)
        centres = centres[torch.randperm(len(centres), generator=generator)][: len(centres) - 1]  # not a full square
        yield uniform(generator, m, 2, high=10.0 * (side - 1)), centres, neighbours, sigma


def _soft_in_loop(ab, centres, neighbours, sigma):
    rows = []
    for point in ab:
        squared = ((centres - point) ** 2).sum(dim=1)
        weight = torch.exp(-squared / (2 * sigma**2))
        keep = squared.argsort()[:neighbours]
        row = torch.zeros(len(centres))
        row[keep] = weight[keep] / weight[keep].sum()
        rows.append(row)
    return torch.stack(rows)


def _soft_by_softmax(ab, centres, neighbours, sigma):
    score = -torch.cdist(ab, centres).square() / (2 * sigma * sigma)
    limit = score.topk(neighbours, dim=1).values[:, -1:]
    return score.masked_fill(score < limit, float("-inf")).softmax(dim=1)


def _soft_by_mask(ab, centres, neighbours, sigma):
    squared = (ab[:, None] - centres[None]).pow(2).sum(-1)
    rank = squared.argsort(dim=1).argsort(dim=1)
    weight = (-squared / sigma**2 / 2).exp() * (rank < neighbours)
    return weight / weight.sum(dim=1, keepdim=True)


def _same_neighbours_for_all(answer, cases):
    """Each point alone is right; together all have shares at the same centres."""
    ab, centres, neighbours, sigma = cases[1]
    alone = torch.cat([answer(point[None], centres, neighbours, sigma) for point in ab])
    chosen = answer(ab, centres, neighbours, sigma) > 0  # (M, Q)
    return bool((chosen == chosen[:1]).all()) and torch.allclose(alone, soft_labels(*cases[1]), atol=1e-4)


soft_labels_of_colours = Check(
    name="5.6 soft labels", reference=soft_labels, cases=_plane, close=Closeness(rtol=1e-3, atol=1e-5),
    rights=(_soft_in_loop, _soft_by_softmax, _soft_by_mask),
    wrongs=(
        Wrong("not normalized", change=(" / label.sum(dim=1, keepdim=True)", ""), hint="""Your rows don't sum to 1: a
            label is a distribution. Divide the weights of the nearest centres by their sum."""),
        Wrong("normalized too early", change=("label.sum(dim=1, keepdim=True)",
            "torch.exp(-(distance**2) / (2 * sigma**2)).sum(dim=1, keepdim=True)"),
            hint="""You divide by the sum over *all* centres, and keep the nearest afterwards: what is left no longer
            sums to 1. Choose first, then divide."""),
        Wrong("all centres", change=("topk(neighbours", "topk(len(centres)"), hint="""Every centre gets a share. Only
            the nearest few count, the others get 0: topk(neighbours, largest=False) finds them."""),
        Wrong("hard label", change=("topk(neighbours", "topk(1"), hint="""You give everything to the nearest centre:
            that is the hard label. A colour between two bins belongs to both, by distance."""),
        Wrong("farthest centres", change=("largest=False", "largest=True"),
            hint="You take the farthest centres: topk takes the largest unless you say largest=False."),
        Wrong("2 forgotten", change=("2 * sigma**2", "sigma**2"),
            hint="The Gaussian's exponent is -d**2 / (2 * sigma**2): the 2 is missing."),
        Wrong("sigma not squared", change=("2 * sigma**2", "2 * sigma"),
            hint="sigma isn't squared: the Gaussian's exponent is -d**2 / (2 * sigma**2)."),
        Wrong("distance not squared", change=("nearest**2", "nearest"),
            also=(("(nearest**2) / (2 * sigma**2)", "nearest / sigma"),), hint="""The distance isn't squared: the
            Gaussian's exponent is -d**2 / (2 * sigma**2). (torch.cdist gives distances, not their squares.)"""),
        Wrong("by inverse distance", change=("torch.exp(-(nearest**2) / (2 * sigma**2))", "1 / nearest"),
            hint="""You weigh by the inverse of the distance, which is infinite at a centre. Use the Gaussian, exp(-d**2
            / (2 * sigma**2))."""),
        Wrong("equal shares", change=("torch.exp(-(nearest**2) / (2 * sigma**2))", "torch.ones_like(nearest)"),
            hint="The nearest centres all get the same share: weigh them by a Gaussian of their distance."),
        Wrong("softmax of the weights", change=("index, weight", "index, weight.softmax(dim=1)"),
            hint="""You put the Gaussian weights through a softmax, which is exp once more: divide them by their sum
            instead. (A softmax of -d**2 / (2 * sigma**2) would do both at once.)"""),
        Wrong("columns sum to 1",
            change=("label.sum(dim=1, keepdim=True)", "label.sum(dim=0, keepdim=True).clamp(min=1e-12)"),
            also=(("label.sum(dim=1, keepdim=True)", "label.sum(dim=0, keepdim=True)"),), hint="""You divide by the sum
            over the pixels, dimension 0: the shares of one pixel, a row, must sum to 1: dim=1, keepdim=True."""),
        Wrong("all together sum to 1", change=("label.sum(dim=1, keepdim=True)", "label.sum()"),
            hint="""You divide by the sum over all pixels together, so the whole table sums to 1. The shares of each
            pixel, a row, must sum to 1: sum(dim=1, keepdim=True)."""),
        Wrong("weights without their places",
            change=("torch.zeros(len(ab), len(centres)).scatter(1, index, weight)", "weight"),
            hint="""You return the weights of the nearest centres, (M, neighbours), without saying which they belong to:
            put them at their places in zeros of (M, Q), scatter(1, index, weight)."""),
    ),
    mistakes=(
        Mistake("one set of neighbours for all", _same_neighbours_for_all,
            example=("nearest, index = distance.topk(neighbours, dim=1, largest=False)",
            "index = distance[0].topk(neighbours, largest=False).indices.expand(len(ab), -1); "
            "nearest = distance.gather(1, index)"), hint="""Each colour alone is right, a batch of them isn't: every
            colour has neighbours of its own, so look for them along dimension 1 of the (M, Q) distances."""),
    ),
    hints=(
        """Distances first, (M, Q). Then the nearest few of each row, their weights, their sum, and back to their
        places.""",
        """distance.topk(neighbours, dim=1, largest=False) gives (nearest, index). Weights are exp(-nearest**2 / (2 *
        sigma**2)), divided by their sum over dim=1. zeros(M, Q).scatter(1, index, weights) puts them in place.""",
        """nearest, index = torch.cdist(ab, centres).topk(neighbours, dim=1, largest=False); w = torch.exp(-nearest**2 /
        (2 * sigma**2)); return torch.zeros(len(ab), len(centres)).scatter(1, index, w / w.sum(dim=1, keepdim=True))""",
    ),
    praise="sslcourse does this once for every whole-numbered colour, and looks it up ever after.",
)
