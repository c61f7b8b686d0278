"""Checks of the exercises of lesson 05: light, the best single answer, colourfulness, annealed mean, rebalancing, soft labels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sslcourse import color
from sslcourse.checks.compare import Closeness
from sslcourse.checks.framework import Check, Mistake, Wrong
from sslcourse.pretext.colorization import rebalancing


def to_light(images: Tensor) -> Tensor:
    """uint8 sRGB of any shape -> the amount of light, float32 in [0, 1]."""
    x = images.float() / 255
    return torch.where(x > 0.04045, ((x + 0.055) / 1.055) ** 2.4, x / 12.92)


def _bytes(generator: torch.Generator) -> list[tuple[Tensor]]:
    """Random pictures in which both branches occur, one all dark, and one all bright."""
    shapes = [(2, 3, 4, 5), (1, 3, 7, 3), (5, 3, 2, 2)]
    cases = []
    for shape in shapes:
        images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        dark = torch.randint(1, 11, shape, generator=generator, dtype=torch.uint8)
        cases.append((torch.where(torch.rand(shape, generator=generator) < 0.3, dark, images),))
    dark = torch.randint(1, 11, (1, 3, 3, 2), generator=generator, dtype=torch.uint8)
    return [*cases, (dark,), (torch.randint(11, 256, (1, 3, 2, 4), generator=generator, dtype=torch.uint8),)]


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


def _light_with(formula: Callable[[Tensor], Tensor]) -> Callable:
    def light(images):
        return formula(images.float() / 255)

    return light


def _curve(x: Tensor) -> Tensor:
    return ((x + 0.055) / 1.055) ** 2.4


light_behind_a_number = Check(
    name="5.1 the light behind a number",
    reference=to_light, cases=_bytes, rights=(_light_by_mask, _light_by_table, _light_by_bytes),
    wrongs=(
        Wrong("no curve at all", _light_with(lambda x: x), """
            You only divide by 255. A screen's number isn't proportional to its light: 128 gives about a fifth of the
            light of 255, not half. Undo the curve, ((x + 0.055) / 1.055) ** 2.4."""),
        Wrong("0 to 255", change=("/ 255", ""), hint="""
            The curve is defined on [0, 1], and you give it values up to 255: divide by 255 first."""),
        Wrong("the wrong way",
            _light_with(
                lambda x: torch.where(x > 0.0031308, 1.055 * x.clamp(min=1e-8) ** (1 / 2.4) - 0.055, 12.92 * x)
            ),
            also=(_light_with(lambda x: torch.where(x > 0.04045, _curve(x) ** (1 / 5.76), x * 12.92)),), hint="""
            You apply the curve that turns light into a screen's number. Needed is its inverse: exponent 2.4, not
            1/2.4."""),
        Wrong("branches swapped", _light_with(lambda x: torch.where(x > 0.04045, x / 12.92, _curve(x))), """
            The two branches are swapped: in torch.where(mask, a, b), a is taken where the mask is True. Above 0.04045
            belongs the power, below it the straight line."""),
        Wrong("no straight line", _light_with(_curve), """
            Bright pixels are right and dark ones aren't: up to 0.04045 (byte values up to 10) the curve is a straight
            line, x / 12.92."""),
        Wrong("the picture decides",
            change=("torch.where(x > 0.04045, ((x + 0.055) / 1.055) ** 2.4, x / 12.92)",
            "((x + 0.055) / 1.055) ** 2.4 if x.mean() > 0.04045 else x / 12.92"), hint="""
            You choose one branch for the whole picture. Each value of each pixel chooses for itself: torch.where."""),
        Wrong("gamma 2.2", _light_with(lambda x: x**2.2),
            also=(_light_with(lambda x: torch.where(x > 0.04045, x**2.2, x / 12.92)),), hint="""
            x ** 2.2 is the usual shortcut, and close. sRGB's own curve is ((x + 0.055) / 1.055) ** 2.4, with a
            straight line near black."""),
        Wrong("no offset", _light_with(lambda x: torch.where(x > 0.04045, x**2.4, x / 12.92)), """
            You leave out the offset: it is ((x + 0.055) / 1.055) ** 2.4, which meets the straight line where the two
            change over."""),
    ),
    hints=(
        "Three steps: bytes to [0, 1], then two formulas, then a choice between them for each value.",
        """x = images.float() / 255. Above 0.04045: ((x + 0.055) / 1.055) ** 2.4. Otherwise: x / 12.92.
        torch.where(mask, a, b) chooses.""",
        "torch.where(x > 0.04045, ((x + 0.055) / 1.055) ** 2.4, x / 12.92)",
    ),
    close=Closeness(rtol=1e-4, atol=1e-6),
    praise="Whoever averages pixels, blurs or resizes without this step averages numbers, not light.",
)  # fmt: skip


def best_answers(share: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """share (M, Q), rows summing to 1, and centres (Q, 2): the least squared error's answer and the most likely, (M, 2) each."""
    return share @ centres, centres[share.argmax(dim=1)]


def _distributions(generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    cases = []
    for m, q in [(3, 4), (1, 6), (7, 5), (4, 9)]:
        centres = 20 * torch.randn(q, 2, generator=generator)
        cases.append((torch.randn(m, q, generator=generator).mul(1.5).softmax(dim=1), centres))
    two = torch.tensor([[70.0, 50.0], [20.0, -60.0]])  # the balloons of the lesson: red and blue
    return [*cases, (torch.tensor([[0.6, 0.4], [0.3, 0.7], [0.55, 0.45]]), two)]


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


def _mean_unweighted(share, centres):
    return centres.mean(dim=0).expand(len(share), 2).clone(), best_answers(share, centres)[1]


def _mode_twice(share, centres):
    mode = best_answers(share, centres)[1]
    return mode, mode


mean_and_mode = Check(
    name="5.2 the mean and the mode",
    reference=best_answers, cases=_distributions, rights=(_best_in_loop, _best_by_broadcast, _best_by_einsum),
    wrongs=(
        Wrong("swapped", lambda share, centres: best_answers(share, centres)[::-1], """
            The two are swapped: the mean has the least expected squared error, and comes first; the most likely
            colour comes second."""),
        Wrong("mean for both", change=("centres[share.argmax(dim=1)]", "share @ centres"), hint="""
            Your second answer is the mean again. The most likely colour is one of the centres: the one with the
            largest share."""),
        Wrong("mode for both", _mode_twice, """
            Your first answer is the most likely colour again. What has the least expected squared error is the mean,
            sum of share times centre."""),
        Wrong("mean without shares", _mean_unweighted, """
            Your mean counts every colour alike, so it is the same for every pixel: each centre counts by its share,
            share @ centres."""),
        Wrong("divided by the number of colours",
            lambda share, centres: ((share[:, :, None] * centres).mean(dim=1), best_answers(share, centres)[1]), """
            Your mean is too small by a factor of Q. The shares sum to 1 already: take the sum of share times centre,
            not the mean."""),
        Wrong("number of the bin", change=("centres[share.argmax(dim=1)]", "share.argmax(dim=1)"), hint="""
            Your second answer is the number of the most likely bin; needed is its colour: centres[that number]."""),
        Wrong("the share itself", change=("centres[share.argmax(dim=1)]", "share.max(dim=1).values"), hint="""
            Your second answer is how likely the most likely colour is; needed is which it is: argmax gives its
            number, centres[...] its colour."""),
        Wrong("one mode for all",
            change=("[share.argmax(dim=1)]", "[share.sum(dim=0).argmax()].expand(len(share), 2).clone()"), hint="""
            You give every pixel the colour that is most likely over all of them: take the argmax along dimension 1,
            for each pixel alone."""),
        Wrong("argmax along the pixels", change=("argmax(dim=1)", "argmax(dim=0)[: len(share)]"), hint="""
            You take the argmax along dimension 0, over the pixels: it must run over the colours, dimension 1."""),
        Wrong("nearest to the mean", change=("return share @ centres, centres[share.argmax(dim=1)]",
            "mean = share @ centres; return mean, centres[torch.cdist(mean, centres).argmin(dim=1)]"), hint="""
            Your second answer is the centre that lies nearest to the mean, which may be a colour that hardly ever
            occurs. Needed is the one with the largest share."""),
        Wrong("least likely", change=("argmax", "argmin"), hint="""
            Your second answer is the least likely colour: argmax, not argmin."""),
    ),
    hints=(
        """The first answer is derived in the lesson: set the derivative of the expected squared error to zero. It is
        an average in which each colour counts by its share.""",
        """The mean of a row is sum over q of share[m, q] * centres[q]: a matrix product. The mode is the centre at
        share.argmax(dim=1).""",
        "return share @ centres, centres[share.argmax(dim=1)]",
    ),
    praise="Regression can give the first alone. A network that gives you the shares leaves the choice to you.",
)  # fmt: skip


def colorfulness(images: Tensor) -> Tensor:
    """RGB float (N, 3, H, W) in [0, 1] -> Hasler and Süsstrunk's colourfulness, (N,)."""
    return color.colorfulness(images)


def _float_pictures(generator: torch.Generator) -> list[tuple[Tensor]]:
    shapes = [(2, 3, 2, 3), (1, 3, 4, 4), (4, 3, 5, 2), (3, 3, 1, 6)]
    cases = []
    for shape in shapes:
        tint = torch.rand(shape[0], 3, 1, 1, generator=generator)  # a mean that is far from gray
        cases.append((0.5 * torch.rand(shape, generator=generator) + 0.5 * tint,))
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


def _colorful_with(
    spread_of: Callable = lambda a, b: torch.hypot(a, b),
    mean_of: Callable = lambda a, b: torch.hypot(a, b),
    weights: tuple[float, float] = (1.0, 0.3),
    yellow_blue: Callable = lambda r, g, b: (r + g) / 2 - b,
    correction: int = 0,
    dims: tuple[int, ...] = (1, 2),
) -> Callable:
    def colorful(images):
        r, g, b = images.unbind(1)
        both = r - g, yellow_blue(r, g, b)
        spread = spread_of(*(p.std(dim=dims, correction=correction) for p in both))
        return weights[0] * spread + weights[1] * mean_of(*(p.mean(dim=dims) for p in both))

    return colorful


how_colourful = Check(
    name="5.3 how colourful",
    reference=colorfulness, cases=_float_pictures,
    rights=(_colorful_in_loop, _colorful_by_hypot, _colorful_by_moments),
    wrongs=(
        Wrong("no mean", _colorful_with(weights=(1.0, 0.0)), """
            You give the spread alone: a picture that is one strong colour all over would count as gray. Add 0.3 times
            the length of the mean."""),
        Wrong("no spread", _colorful_with(weights=(0.0, 0.3)), """
            You give the mean's part alone: red and green in equal amounts would count as gray. Add the spread."""),
        Wrong("0.3 forgotten", _colorful_with(weights=(1.0, 1.0)), """
            You add spread and mean alike: the mean counts 0.3."""),
        Wrong("0.3 at the spread", _colorful_with(weights=(0.3, 1.0)), """
            The factor 0.3 is at the spread: it belongs to the mean."""),
        Wrong("deviations added",
            _colorful_with(spread_of=lambda a, b: a + b, mean_of=lambda a, b: a.abs() + b.abs()),
            also=(_colorful_with(spread_of=lambda a, b: a + b),
            _colorful_with(spread_of=lambda a, b: a + b, mean_of=lambda a, b: a + b)), hint="""
            You add the two axes' numbers; they are the sides of a right-angled triangle, and its long side is needed:
            the root of the sum of squares."""),
        Wrong("no root", _colorful_with(spread_of=lambda a, b: a**2 + b**2, mean_of=lambda a, b: a**2 + b**2), """
            You forget the square roots: the spread is sqrt(std_rg**2 + std_yb**2), and the mean's length likewise."""),
        Wrong("yellow not halved", _colorful_with(yellow_blue=lambda r, g, b: r + g - b), """
            Yellow is the *mean* of red and green: (R + G) / 2 - B. As you have it, gray pictures would count as
            yellow."""),
        Wrong("yellow minus blue halved", _colorful_with(yellow_blue=lambda r, g, b: (r + g - b) / 2), """
            You halve blue as well: (R + G) / 2 - B, the half belongs to red and green alone."""),
        Wrong("n minus 1", _colorful_with(correction=1), """
            Your standard deviation divides by n - 1, PyTorch's default. All pixels are there, not a sample of them:
            unbiased=False (or correction=0)."""),
        Wrong("one number for the batch",
            lambda images: _colorful_with(dims=(0, 1, 2))(images).expand(len(images)).clone(),
            also=(_colorful_with(dims=(0, 1, 2)),), hint="""
            You measure the batch as if it were one picture: each picture has its own number, so keep dimension 0."""),
    ),
    hints=(
        """Two numbers for each pixel, red minus green and yellow minus blue. Then the spread and the mean of both
        over the picture.""",
        """Take them apart: r, g, b = images.unbind(1). rg = r - g, yb = (r + g) / 2 - b. Over dim=(1, 2):
        std(correction=0) and mean. Each pair becomes one number by sqrt(x**2 + y**2).""",
        """torch.hypot(rg.std((1, 2), correction=0), yb.std((1, 2), correction=0)) + 0.3 * torch.hypot(rg.mean((1,
        2)), yb.mean((1, 2)))""",
    ),
    praise="A number for 'how gray is it?', without anybody's taste in it.",
)  # fmt: skip


def annealed_mean(logits: Tensor, centres: Tensor, temperature: float) -> Tensor:
    """logits (N, Q, H, W), centres (Q, 2): the mean colour under softmax(logits / temperature), (N, 2, H, W)."""
    return torch.einsum("nqhw,qc->nchw", (logits / temperature).softmax(dim=1), centres)


def _logit_maps(generator: torch.Generator) -> list[tuple[Tensor, Tensor, float]]:
    cases = []
    for (n, q, h, w), temperature in zip(
        [(2, 4, 3, 5), (1, 6, 2, 2), (3, 5, 4, 3), (2, 7, 5, 4)], (0.38, 0.6, 1.7, 0.2), strict=True
    ):
        logits = 1.5 * torch.randn(n, q, h, w, generator=generator)
        cases.append((logits, 20 * torch.randn(q, 2, generator=generator), temperature))
    return cases


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


def _anneal_with(share_of: Callable) -> Callable:
    def anneal(logits, centres, temperature):
        return torch.einsum("nqhw,qc->nchw", share_of(logits, temperature), centres)

    return anneal


def _powers_not_normalized(logits, temperature):
    return torch.exp(logits.log_softmax(dim=1) / temperature)


annealed_mean_of_maps = Check(
    name="5.4 the annealed mean",
    reference=annealed_mean, cases=_logit_maps, rights=(_anneal_in_loop, _anneal_by_powers, _anneal_flat),
    wrongs=(
        Wrong("no temperature", _anneal_with(lambda z, t: z.softmax(dim=1)), """
            Your result is the plain mean, at temperature 1: divide the logits by the temperature before the softmax."""),
        Wrong("multiplied", _anneal_with(lambda z, t: (z * t).softmax(dim=1)), """
            You multiply the logits by the temperature: then a low one makes the distribution flat. Divide, so that a
            low one makes it sharp."""),
        Wrong("softmax too early", _anneal_with(lambda z, t: (z.softmax(dim=1) / t).softmax(dim=1)), """
            You take the softmax twice: probabilities divided by the temperature and put through a softmax again lie
            close together, whatever the logits were. Divide the *logits* (or the logarithms of the probabilities),
            and take one softmax."""),
        Wrong("probabilities divided", _anneal_with(lambda z, t: z.softmax(dim=1) / t),
            also=(('einsum("nqhw,qc->nchw", (logits / temperature).softmax(dim=1), centres)', 'einsum("nqhw,qc->nchw", logits.softmax(dim=1), centres) / temperature'),), hint="""
            You divide the probabilities by the temperature: they no longer sum to 1, and the colours leave the plane.
            Divide the logits, and then take the softmax."""),
        Wrong("not normalized again", _anneal_with(_powers_not_normalized),
            also=(_anneal_with(lambda z, t: (z / t).exp()),), hint="""
            Your shares don't sum to 1: after raising probabilities to the power 1/T, divide by their sum. The softmax
            of logits / T does both at once."""),
        Wrong("divided twice", _anneal_with(lambda z, t: ((z / t).log_softmax(dim=1) / t).softmax(dim=1)), """
            The temperature acts twice, as its square: logits divided by T are annealed already; dividing their
            log-softmax by T again anneals once more."""),
        Wrong("argmax", lambda logits, centres, temperature: centres[logits.argmax(dim=1)].permute(0, 3, 1, 2), """
            You take the most likely colour: that is the limit of temperature 0. Needed is the mean under
            softmax(logits / temperature)."""),
        Wrong("softmax over the batch", _anneal_with(lambda z, t: (z / t).softmax(dim=0)), """
            Your softmax runs over the pictures, dimension 0: for each pixel the shares of the colours must sum to 1,
            dimension 1."""),
        Wrong("softmax over the columns", _anneal_with(lambda z, t: (z / t).softmax(dim=-1)), """
            Your softmax runs over the last dimension, the columns of the picture: for each pixel the shares of the
            colours must sum to 1, dimension 1."""),
        Wrong("a and b swapped",
            lambda logits, centres, temperature: annealed_mean(logits, centres.flip(1), temperature), """
            a and b are swapped: channel c of the result belongs to centres[:, c]."""),
        Wrong("divided by the number of colours",
            lambda logits, centres, temperature: annealed_mean(logits, centres, temperature) / logits.shape[1], """
            Your result is too small by a factor of Q: the shares sum to 1 already, so sum over the colours instead of
            averaging."""),
    ),
    hints=(
        "Two steps: from logits to shares, and from shares to a mean colour. The temperature belongs into the first.",
        """share = (logits / temperature).softmax(dim=1), (N, Q, H, W). Then sum over q of share[n, q, h, w] *
        centres[q, c]: torch.einsum does it in one line.""",
        'torch.einsum("nqhw,qc->nchw", (logits / temperature).softmax(dim=1), centres)',
    ),
    close=Closeness(rtol=1e-4, atol=1e-4),
    praise="At T = 1 it is the mean, at T near 0 the mode; Zhang et al. took 0.38.",
)  # fmt: skip


def weights_of_bins(frequency: Tensor, strength: float) -> Tensor:
    """frequency (Q,), summing to 1 -> weights (Q,), inverse to the mixed frequency; the mean weight of a pixel is 1."""
    return rebalancing(frequency, strength)


def _frequencies(generator: torch.Generator) -> list[tuple[Tensor, float]]:
    cases = []
    for q, strength in ((4, 0.5), (7, 0.8), (5, 0.3), (9, 0.5), (6, 0.9), (3, 0.15)):
        frequency = (1.2 * torch.randn(q, generator=generator)).softmax(dim=0)
        cases.append((frequency, strength))
    rare = torch.tensor([0.0, 0.3, 0.6, 0.1, 0.0])  # bins that never occur still have a weight
    return [*cases, (rare, 0.5)]


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


def _weigh_with(
    mixed_of: Callable = lambda p, s: s * p + (1 - s) / len(p),
    invert: Callable = lambda m: 1 / m,
    scale: Callable = lambda w, p: w / (w * p).sum(),
) -> Callable:
    def weigh(frequency, strength):
        weights = invert(mixed_of(frequency, strength))
        return scale(weights, frequency)

    return weigh


rebalancing_weights = Check(
    name="5.5 the weight of a rare colour",
    reference=weights_of_bins, cases=_frequencies, rights=(_weigh_in_loop, _weigh_by_lerp, _weigh_scaled),
    wrongs=(
        Wrong("not normalized", _weigh_with(scale=lambda w, p: w), """
            The ratios are right, the scale isn't: divide by the mean weight of a pixel, (frequency * weights).sum(),
            so that the loss keeps its size."""),
        Wrong("mean over bins", _weigh_with(scale=lambda w, p: w / w.mean()), """
            Your weights have mean 1 over the *bins*. Over the *pixels* it must be 1, and frequent bins have more of
            them: divide by (frequency * weights).sum()."""),
        Wrong("sum 1", _weigh_with(scale=lambda w, p: w / w.sum()), """
            Your weights sum to 1. They are no probabilities: what must be 1 is the mean weight of a pixel, (frequency
            * weights).sum()."""),
        Wrong("by frequency", _weigh_with(invert=lambda m: m), """
            Your weights grow with the frequency: gray, which is everywhere, would count most. Take the inverse of the
            mixed frequency."""),
        Wrong("mixed the wrong way round", _weigh_with(mixed_of=lambda p, s: (1 - s) * p + s / len(p)), """
            The mixture is the wrong way round: strength belongs to the frequency, 1 - strength to the uniform 1/Q.
            Test: strength 0 must give equal weights. (Zhang et al.'s lambda is our 1 - strength.)"""),
        Wrong("no mixture", _weigh_with(mixed_of=lambda p, s: p.clamp(min=1e-6)),
            also=(_weigh_with(mixed_of=lambda p, s: p),), hint="""
            You take the inverse of the frequency itself, whatever the strength: a bin that hardly occurs then
            outweighs all the others. Mix with the uniform 1/Q first."""),
        Wrong("uniform without Q", _weigh_with(mixed_of=lambda p, s: s * p + (1 - s)), """
            You mix with 1 in place of 1/Q: the uniform distribution over Q bins has 1/Q for each, and sums to 1 as
            the frequency does."""),
        Wrong("mixed after the inverse", change=("return rebalancing(frequency, strength)",
            "weights = strength / frequency.clamp(min=1e-6) + (1 - strength); return weights / (frequency * weights).sum()"), hint="""
            You take the inverse first, and mix afterwards: a rare bin's huge inverse survives that. Mix the
            frequencies, then take the inverse."""),
        Wrong("a power instead", change=("return rebalancing(frequency, strength)",
            "weights = frequency.clamp(min=1e-6) ** -strength; return weights / (frequency * weights).sum()"), hint="""
            You take the frequency to the power of -strength: a weighting that exists, but another one. Here the
            frequency is mixed with 1/Q, and then inverted."""),
        Wrong("square root of the inverse", _weigh_with(invert=lambda m: m**-0.5), """
            You take the square root of the inverse; the inverse itself is asked for."""),
    ),
    hints=(
        "Three steps: mix the frequency with the uniform distribution, take the inverse, and set the scale.",
        """mixed = strength * frequency + (1 - strength) / Q with Q = len(frequency); weights = 1 / mixed. The mean
        weight of a pixel is (frequency * weights).sum().""",
        """weights = 1 / (strength * frequency + (1 - strength) / len(frequency)); return weights / (frequency *
        weights).sum()""",
    ),
    praise="Because the mean weight of a pixel is 1, the learning rate needs no change.",
)  # fmt: skip


def soft_labels(ab: Tensor, centres: Tensor, neighbours: int = 5, sigma: float = 5.0) -> Tensor:
    """ab (M, 2), centres (Q, 2) -> (M, Q): Gaussian weights on the nearest centres, rows summing to 1, else 0."""
    distance = torch.cdist(ab, centres)
    nearest, index = distance.topk(neighbours, dim=1, largest=False)
    weight = torch.exp(-(nearest**2) / (2 * sigma**2))
    return torch.zeros(len(ab), len(centres)).scatter(1, index, weight / weight.sum(dim=1, keepdim=True))


def _plane(generator: torch.Generator) -> list[tuple[Tensor, Tensor, int, float]]:
    cases = []
    for m, side, neighbours, sigma in ((3, 4, 5, 5.0), (6, 3, 4, 5.0), (4, 5, 5, 7.0), (1, 4, 3, 4.0)):
        line = 10.0 * torch.arange(side)
        centres = torch.cartesian_prod(line, line)
        centres = centres[torch.randperm(len(centres), generator=generator)][: len(centres) - 1]  # not a full square
        cases.append((10.0 * (side - 1) * torch.rand(m, 2, generator=generator), centres, neighbours, sigma))
    return cases


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


def _soft_with(
    kernel: Callable = lambda d, s: torch.exp(-(d**2) / (2 * s**2)),
    largest: bool = False,
    normalize: bool = True,
    count: Callable = lambda k, q: k,
) -> Callable:
    def soft(ab, centres, neighbours, sigma):
        distance = torch.cdist(ab, centres)
        nearest, index = distance.topk(count(neighbours, len(centres)), dim=1, largest=largest)
        weight = kernel(nearest, sigma)
        weight = weight / weight.sum(dim=1, keepdim=True) if normalize else weight
        return torch.zeros(len(ab), len(centres)).scatter(1, index, weight)

    return soft


def _normalized_too_early(ab, centres, neighbours, sigma):
    whole = _soft_with(count=lambda k, q: q)(ab, centres, neighbours, sigma)
    value, index = whole.topk(neighbours, dim=1)
    return torch.zeros_like(whole).scatter(1, index, value)


def _normalized_columns(ab, centres, neighbours, sigma):
    weight = _soft_with(normalize=False)(ab, centres, neighbours, sigma)
    return weight / weight.sum(dim=0, keepdim=True).clamp(min=1e-12)


def _softmax_of_weights(ab, centres, neighbours, sigma):
    nearest, index = torch.cdist(ab, centres).topk(neighbours, dim=1, largest=False)
    weight = torch.exp(-(nearest**2) / (2 * sigma**2)).softmax(dim=1)
    return torch.zeros(len(ab), len(centres)).scatter(1, index, weight)


def _weights_alone(ab, centres, neighbours, sigma):
    nearest = torch.cdist(ab, centres).topk(neighbours, dim=1, largest=False).values
    weight = torch.exp(-(nearest**2) / (2 * sigma**2))
    return weight / weight.sum(dim=1, keepdim=True)


def _right_alone_wrong_together(answer: Callable, cases: list) -> bool:
    """Right for each point alone, and wrong in a batch: rows depend on each other."""
    ab, centres, neighbours, sigma = cases[1]
    alone = torch.cat([answer(point[None], centres, neighbours, sigma) for point in ab])
    right = soft_labels(ab, centres, neighbours, sigma)
    return torch.allclose(alone, right, atol=1e-4) and not torch.allclose(
        answer(ab, centres, neighbours, sigma), right, atol=1e-4
    )


def _neighbours_of_the_first(ab, centres, neighbours, sigma):
    distance = torch.cdist(ab, centres)
    index = distance[0].topk(neighbours, largest=False).indices
    weight = torch.zeros_like(distance)
    weight[:, index] = torch.exp(-(distance[:, index] ** 2) / (2 * sigma**2))
    return weight / weight.sum(dim=1, keepdim=True)


soft_labels_of_colours = Check(
    name="5.6 soft labels",
    reference=soft_labels, cases=_plane, rights=(_soft_in_loop, _soft_by_softmax, _soft_by_mask),
    wrongs=(
        Wrong("not normalized", _soft_with(normalize=False), """
            Your rows don't sum to 1: a label is a distribution. Divide the weights of the nearest centres by their
            sum."""),
        Wrong("normalized too early", _normalized_too_early, """
            You divide by the sum over *all* centres, and keep the nearest afterwards: what is left no longer sums to
            1. Choose first, then divide."""),
        Wrong("all centres", _soft_with(count=lambda k, q: q), """
            Every centre gets a share. Only the nearest few count, the others get 0: topk(neighbours, largest=False)
            finds them."""),
        Wrong("hard label", _soft_with(count=lambda k, q: 1), """
            You give everything to the nearest centre: that is the hard label. A colour between two bins belongs to
            both, by distance."""),
        Wrong("farthest centres", _soft_with(largest=True), """
            You take the farthest centres: topk takes the largest unless you say largest=False."""),
        Wrong("2 forgotten", _soft_with(kernel=lambda d, s: torch.exp(-(d**2) / s**2)), """
            The Gaussian's exponent is -d**2 / (2 * sigma**2): the 2 is missing."""),
        Wrong("sigma not squared", _soft_with(kernel=lambda d, s: torch.exp(-(d**2) / (2 * s))), """
            sigma isn't squared: the Gaussian's exponent is -d**2 / (2 * sigma**2)."""),
        Wrong("distance not squared", _soft_with(kernel=lambda d, s: torch.exp(-d / (2 * s**2))),
            also=(_soft_with(kernel=lambda d, s: torch.exp(-d / s)),), hint="""
            The distance isn't squared: the Gaussian's exponent is -d**2 / (2 * sigma**2). (torch.cdist gives
            distances, not their squares.)"""),
        Wrong("by inverse distance", _soft_with(kernel=lambda d, s: 1 / d), """
            You weigh by the inverse of the distance, which is infinite at a centre. Use the Gaussian, exp(-d**2 / (2
            * sigma**2))."""),
        Wrong("equal shares", _soft_with(kernel=lambda d, s: torch.ones_like(d)), """
            The nearest centres all get the same share: weigh them by a Gaussian of their distance."""),
        Wrong("softmax of the weights", _softmax_of_weights, """
            You put the Gaussian weights through a softmax, which is exp once more: divide them by their sum instead.
            (A softmax of -d**2 / (2 * sigma**2) would do both at once.)"""),
        Wrong("columns sum to 1", _normalized_columns, """
            You divide by the sum over the pixels, dimension 0: the shares of one pixel, a row, must sum to 1: dim=1,
            keepdim=True."""),
        Wrong("weights without their places", _weights_alone, """
            You return the weights of the nearest centres, (M, neighbours), without saying which they belong to: put
            them at their places in zeros of (M, Q), scatter(1, index, weight)."""),
    ),
    mistakes=(
        Mistake("one set of neighbours for all", _right_alone_wrong_together, example=_neighbours_of_the_first, hint="""
            Each colour alone is right, a batch of them isn't: every colour has neighbours of its own, so look for
            them along dimension 1 of the (M, Q) distances."""),
    ),
    hints=(
        """Distances first, (M, Q). Then the nearest few of each row, their weights, their sum, and back to their
        places.""",
        """distance.topk(neighbours, dim=1, largest=False) gives (nearest, index). Weights are exp(-nearest**2 / (2 *
        sigma**2)), divided by their sum over dim=1. zeros(M, Q).scatter(1, index, weights) puts them in place.""",
        """nearest, index = torch.cdist(ab, centres).topk(neighbours, dim=1, largest=False); w = torch.exp(-nearest**2
        / (2 * sigma**2)); return torch.zeros(len(ab), len(centres)).scatter(1, index, w / w.sum(dim=1,
        keepdim=True))""",
    ),
    close=Closeness(rtol=1e-3, atol=1e-5),
    praise="sslcourse does this once for every whole-numbered colour, and looks it up ever after.",
)  # fmt: skip
