"""Checks of the exercises of lesson 07: the loss inside a hole, patches, masking, gaps, the target, attention."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sslcourse.checks.compare import Closeness
from sslcourse.checks.framework import Check, Forbidden, Wrong, yourself
from sslcourse.pretext.inpainting import inside_error


def _holes(generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    for n, c, h, w in [(2, 3, 4, 5), (3, 1, 6, 4), (5, 3, 7, 6), (4, 2, 5, 8)]:
        predicted, truth = (torch.rand(n, c, h, w, generator=generator) for _ in range(2))
        hole = torch.rand(n, 1, h, w, generator=generator) < torch.linspace(0.15, 0.7, n)[:, None, None, None]
        hole[:, :, 0, 0], hole[:, :, -1, -1] = True, False  # every picture has both
        yield predicted, truth, hole


def inside(predicted: Tensor, truth: Tensor, hole: Tensor) -> Tensor:
    """predicted, truth (N, C, H, W), hole bool (N, 1, H, W), True inside -> the mean squared error inside, a scalar."""
    squared = (predicted - truth).square() * hole  # (N, C, H, W)
    return squared.sum() / (hole.sum() * truth.shape[1])


def _inside_by_index(predicted, truth, hole):
    mask = hole.expand_as(truth)
    return (predicted[mask] - truth[mask]).square().mean()


def _inside_in_loop(predicted, truth, hole):
    total, count = torch.zeros(()), 0
    for p, t, h in zip(predicted, truth, hole, strict=True):
        for channel in range(len(t)):
            total = total + (p[channel] - t[channel])[h[0]].square().sum()
            count += int(h.sum())
    return total / count


inside_the_hole = Check(
    name="7.1 the loss inside the hole", reference=inside, cases=_holes,
    forbidden=(Forbidden("inside_error used", (inside_error,),
        "The text asks you to do without inside_error: write out what it does."),),
    rights=(_inside_by_index, _inside_in_loop),
    wrongs=(
        Wrong("mask inverted", lambda predicted, truth, hole: inside(predicted, truth, ~hole),
            "You measure outside the hole, where the network saw the answer: hole is True inside."),
        Wrong("whole picture", lambda predicted, truth, hole: (predicted - truth).square().mean(),
            "You average over the whole picture and never use the hole: most of that loss rewards copying."),
        Wrong("divided by all pixels", lambda predicted, truth, hole: ((predicted - truth).square() * hole).mean(),
            """The sum is right, and you divide by all pixels: the zeros outside count as perfect answers. Divide by the
            number of pixels inside."""),
        Wrong("channels forgotten",
            lambda predicted, truth, hole: ((predicted - truth).square() * hole).sum() / hole.sum(),
            "Your value is C times too large: hole.sum() counts each pixel once, and each has C channels."),
        Wrong("mean of means", change=("squared.sum() / (hole.sum() * truth.shape[1])",
            "(squared.sum((1, 2, 3)) / (hole.sum((1, 2, 3)) * truth.shape[1])).mean()"),
            hint="""You average inside each picture, then over pictures: a pixel in a small hole counts for more than
            one in a large hole. Sum over the batch first, then divide once."""),
        Wrong("not squared", lambda predicted, truth, hole: (predicted - truth).abs()[hole.expand_as(truth)].mean(),
            "You average absolute differences; here the error is squared."),
        Wrong("summed", lambda predicted, truth, hole: ((predicted - truth).square() * hole).sum(),
            "You sum and don't divide: the loss would grow with the batch. Divide by how many values are inside."),
    ),
    hints=(
        "Square the difference, set what is outside the hole to zero, sum; then divide by how many values were left.",
        "hole is (N, 1, H, W) and stretches over the channels by itself in a product, but not in hole.sum().",
        "((predicted - truth).square() * hole).sum() / (hole.sum() * truth.shape[1])",
    ),
    praise="What is outside gets no gradient: nothing is earned by copying.",
)


def _grids(generator: torch.Generator) -> list[tuple[Tensor, int]]:
    sizes = [(2, 3, 4, 6, 2), (3, 2, 6, 3, 3), (4, 3, 8, 12, 4), (1, 5, 6, 10, 2)]
    return [(torch.rand(n, c, h, w, generator=generator), p) for n, c, h, w, p in sizes]


def _patchify_in_loop(images, patch):
    rows, columns = images.shape[2] // patch, images.shape[3] // patch
    cut = [
        images[:, :, r * patch : (r + 1) * patch, c * patch : (c + 1) * patch].permute(0, 2, 3, 1).flatten(1)
        for r in range(rows)
        for c in range(columns)
    ]
    return torch.stack(cut, dim=1)


def _patchify_by_unfold(images, patch):
    cut = images.unfold(2, patch, patch).unfold(3, patch, patch)  # (N, C, rows, columns, p, p)
    return cut.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)


def cut(images: Tensor, patch: int) -> Tensor:
    """images (N, C, H, W), patch dividing H and W -> (N, patches, patch * patch * C): row, column, channel."""
    n, c, h, w = images.shape
    pieces = images.reshape(n, c, h // patch, patch, w // patch, patch)
    return pieces.permute(0, 2, 4, 3, 5, 1).reshape(n, -1, patch * patch * c)


patchify = Check(
    name="7.2 cut into patches", reference=cut, cases=_grids, forbidden=(yourself("sslcourse.patches"),),
    rights=(_patchify_in_loop, _patchify_by_unfold),
    wrongs=(
        Wrong("reshape alone", lambda images, patch: images.reshape(len(images), -1, patch * patch * images.shape[1]),
            """The shape is right, but a reshape alone takes pixels in the order in which they lie in memory, row by row
            of the picture: cut both sides in two dimensions each, then permute."""),
        Wrong("channels first", change=("0, 2, 4, 3, 5, 1", "0, 2, 4, 1, 3, 5"),
            hint="Within a patch the channels come first in yours; here they come last: row, column, channel."),
        Wrong("columns first", change=("0, 2, 4, 3, 5, 1", "0, 4, 2, 3, 5, 1"),
            hint="Your patches run down the columns; they are counted row by row, as one reads."),
        Wrong("transposed inside", change=("0, 2, 4, 3, 5, 1", "0, 2, 4, 5, 3, 1"),
            hint="Each patch is transposed: inside it, too, the row comes before the column."),
        Wrong("channels between", change=("0, 2, 4, 3, 5, 1", "0, 2, 4, 3, 1, 5"), hint="""Within a patch the channels
            stand between row and column in yours; the order is row, column, channel."""),
        Wrong("interleaved", change=("0, 2, 4, 3, 5, 1", "0, 3, 5, 2, 4, 1"),
            hint="""You gather pixels that lie a whole patch apart: after the reshape, the number of the patch comes
            before the place inside it, (H / p, p), so dimensions 2 and 4 count patches."""),
    ),
    hints=(
        """Cut H into (H / p, p) and W into (W / p, p) with one reshape; then bring dimensions that belong together side
        by side.""",
        "After the reshape the dimensions are (N, C, row of patches, row inside, column of patches, column inside).",
        "images.reshape(n, c, h // p, p, w // p, p).permute(0, 2, 4, 3, 5, 1).reshape(n, -1, p * p * c)",
    ),
    praise="A picture is now a sentence of patches.",
)


def masking(noise: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """noise (N, L) -> kept patches, int64 (N, keep), those of the lowest noise first; restore, int64 (N, L)."""
    shuffle = noise.argsort(dim=1)
    return shuffle[:, :keep], shuffle.argsort(dim=1)


def _masking_scattered(noise, keep):
    shuffle = noise.argsort(dim=1)
    places = torch.arange(noise.shape[1]).expand_as(shuffle)
    return shuffle[:, :keep], torch.empty_like(shuffle).scatter_(1, shuffle, places)


def _masking_in_loop(noise, keep):
    kept, restore = [], []
    for row in noise.tolist():
        order = sorted(range(len(row)), key=row.__getitem__)
        kept.append(order[:keep])
        restore.append([order.index(j) for j in range(len(row))])
    return torch.tensor(kept), torch.tensor(restore)


random_masking = Check(
    name="7.3 random masking, and back", reference=masking,
    cases=lambda g: [(torch.rand(n, places, generator=g), k)
            for n, places, k in [(3, 6, 2), (4, 9, 5), (5, 16, 4)]],
    close=Closeness(dtype="exact"), rights=(_masking_scattered, _masking_in_loop),
    wrongs=(
        Wrong("shuffle for restore", change=("shuffle.argsort(dim=1)", "shuffle"),
            also=(("shuffle.argsort(dim=1)", "shuffle.argsort(dim=1).argsort(dim=1)"),), hint="""Your restore is the
            shuffle itself; it must undo it: the inverse permutation is the argsort of the shuffle."""),
        Wrong("ranks for kept", change=("shuffle[:, :keep]", "shuffle.argsort(dim=1)[:, :keep]"), hint="""Your kept ones
            come from restore: the first places of restore say where patches stand, not which are kept."""),
        Wrong("the last kept", change=("[:, :keep]", "[:, -keep:]"), hint="""You keep the last of the shuffled row; the
            first `keep` are kept, so that restore < keep tells which."""),
        Wrong("hidden for kept", change=("[:, :keep]", "[:, keep:]"), hint="""You return the hidden patches: shuffle[:,
            keep:] is what is taken away, shuffle[:, :keep] what stays."""),
        Wrong("highest noise", change=("noise.argsort", "(-noise).argsort"),
            hint="You sort from the highest noise down; here the lowest come first."),
        Wrong("shuffled batch", change=("dim=1", "dim=0"),
            hint="You sort down the batch, dim=0; each picture's patches are sorted among themselves, dim=1."),
    ),
    hints=(
        """Sorting random numbers shuffles: argsort says which patch comes first, second, third. The inverse says where
        patch j went.""",
        "The inverse of a permutation is its argsort.",
        "shuffle = noise.argsort(dim=1); return shuffle[:, :keep], shuffle.argsort(dim=1)",
    ),
    praise="Patch j was kept exactly if restore[j] < keep.",
)


def fill_gaps(tokens: Tensor, blank: Tensor, restore: Tensor) -> Tensor:
    """Tokens (N, K, d) of the kept patches in the shuffled order, one blank (d,), restore (N, L) -> (N, L, d)."""
    count, kept, width = tokens.shape
    every = torch.cat([tokens, blank.expand(count, restore.shape[1] - kept, -1)], dim=1)  # (N, L, d)
    return every.gather(1, restore[:, :, None].expand(-1, -1, width))


def _gaps(generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    for n, places, kept, width in [(2, 6, 3, 4), (3, 9, 4, 2), (4, 7, 5, 3)]:
        tokens, blank = torch.randn(n, kept, width, generator=generator), torch.randn(width, generator=generator)
        yield tokens, blank, torch.rand(n, places, generator=generator).argsort(dim=1)


def _gaps_in_loop(tokens, blank, restore):
    both = zip(tokens, restore.tolist(), strict=True)
    return torch.stack([torch.stack([row[at] if at < len(row) else blank for at in order]) for row, order in both])


def _gaps_by_where(tokens, blank, restore):
    last = tokens.shape[1] - 1
    taken = tokens[torch.arange(len(tokens))[:, None], restore.clamp(max=last)]  # (N, L, d), wrong where hidden
    return torch.where((restore <= last)[:, :, None], taken, blank)


gaps = Check(
    name="7.4 mask tokens, and everything in order", reference=fill_gaps, cases=_gaps, gradients=True,
    rights=(_gaps_in_loop, _gaps_by_where),
    wrongs=(
        Wrong("not put back", change=("every.gather(1, restore[:, :, None].expand(-1, -1, width))", "every"),
            hint="""You line up kept tokens and mask tokens, and leave them so: every token must go to the place of its
            patch."""),
        Wrong("the shuffle again", change=("restore[:, :, None]", "restore.argsort(dim=1)[:, :, None]"),
            also=(("every.gather(1, restore[:, :, None].expand(-1, -1, width))",
            "torch.zeros_like(every).scatter(1, restore[:, :, None].expand(-1, -1, width), every)"),), hint="""You apply
            the inverse of restore, which is the shuffle: place j shows what stands at restore[j] of the row."""),
        Wrong("blanks first", change=("[tokens, blank.expand(count, restore.shape[1] - kept, -1)]",
            "[blank.expand(count, restore.shape[1] - kept, -1), tokens]"), hint="""You put the mask tokens first; the
            kept ones come first in the shuffled row, so that restore < K means kept."""),
        Wrong("zeros", change=("blank.expand", "torch.zeros_like(blank).expand"),
            hint="Your hidden places hold zeros; they hold the mask token, which is learned."),
        Wrong("as they come", change=("return every.gather(1, restore[:, :, None].expand(-1, -1, width))",
            "every = blank.repeat(*restore.shape, 1); every[restore < kept] = tokens.flatten(0, 1); return every"),
            hint="""Your mask tokens are right, but the kept tokens stand in the order
            in which they come; restore says which of them belongs to which place."""),
        Wrong("one order for all", change=("restore[:, :, None]", "restore[:1].expand_as(restore)[:, :, None]"),
            hint="You use the first picture's restore for all; each picture was shuffled in its own way."),
    ),
    hints=(
        """Line up the K tokens and L - K copies of the mask token: that is the shuffled row. Then place j shows element
        restore[j].""",
        "blank.expand(n, L - K, -1) copies without copying. every.gather(1, index) wants an index of every's shape.",
        """every = torch.cat([tokens, blank.expand(n, L - K, -1)], dim=1); every.gather(1, restore[:, :,
        None].expand(-1, -1, d))""",
    ),
    praise="This is what the decoder gets, before positions are added.",
)


def normalized(pixels: Tensor) -> Tensor:
    """Patches (N, L, P): each without its mean, divided by sqrt(its unbiased variance + 1e-6)."""
    variance, mean = torch.var_mean(pixels, dim=2, keepdim=True)
    return (pixels - mean) / (variance + 1e-6).sqrt()


def _flat_patches(generator: torch.Generator) -> Iterator[tuple[Tensor]]:
    for n, places, size in [(2, 4, 6), (3, 9, 12), (4, 5, 48)]:
        contrast = torch.logspace(-3, 0, places)[:, None]  # from nearly flat, where 1e-6 counts, to lively
        yield (contrast * (1 + torch.rand(n, places, size, generator=generator)),)


def _normalized_in_loop(pixels):
    return torch.stack([torch.stack([(p - p.mean()) / (p.var() + 1e-6) ** 0.5 for p in image]) for image in pixels])


def _normalized_by_sums(pixels):
    centred = pixels - pixels.sum(-1, keepdim=True) / pixels.shape[-1]
    return centred * ((centred**2).sum(-1, keepdim=True) / (pixels.shape[-1] - 1) + 1e-6).rsqrt()


normalized_target = Check(
    name="7.5 the normalized target", reference=normalized, cases=_flat_patches,
    rights=(_normalized_in_loop, _normalized_by_sums),
    wrongs=(
        Wrong("over the batch", change=("dim=2", "dim=0"),
            hint="You normalize over the batch; each patch has its own mean and spread: dim=2."),
        Wrong("over the patches", change=("dim=2", "dim=1"),
            hint="You normalize over the patches of a picture; each patch has its own: dim=2."),
        Wrong("over the picture", change=("dim=2", "dim=(1, 2)"),
            hint="You normalize each picture as a whole; each patch has its own: dim=2."),
        Wrong("biased variance", change=("dim=2", "dim=2, correction=0"), hint="""You divide the sum of squares by P;
            the variance here is the unbiased one, divided by P - 1, torch.var's default."""),
        Wrong("epsilon outside", change=("(variance + 1e-6).sqrt()", "(variance.sqrt() + 1e-6)"),
            hint="""You add 1e-6 to the standard deviation; it belongs to the variance, under the root, where it matters
            for flat patches."""),
        Wrong("variance for spread", change=(".sqrt()", ""),
            hint="You divide by the variance; the root of it is the standard deviation."),
        Wrong("mean alone", change=(" / (variance + 1e-6).sqrt()", ""),
            hint="You take the mean off and forget to divide by the spread."),
    ),
    hints=(
        "One mean and one variance for each patch: over its P numbers, the last dimension.",
        "torch.var_mean(pixels, dim=2, keepdim=True) gives both, (N, L, 1) each. Add 1e-6 before the root.",
        "(pixels - mean) / (variance + 1e-6).sqrt()",
    ),
    praise="How light a patch is no longer counts; what is drawn in it does.",
)


def attention(queries: Tensor, keys: Tensor) -> Tensor:
    """queries (N, T, d), keys (N, S, d) -> how much each query looks at each key, (N, T, S), rows summing to 1."""
    return (queries @ keys.transpose(1, 2) / queries.shape[2] ** 0.5).softmax(dim=2)


def _queries(generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    sizes = [(2, 3, 5, 4), (3, 6, 4, 8), (4, 5, 5, 2)]  # as many keys as queries only once
    return [tuple(torch.randn(n, t, d, generator=generator) for t in (a, b)) for n, a, b, d in sizes]


def _attention_in_loop(queries, keys):
    rows = []
    for q_all, k_all in zip(queries, keys, strict=True):
        scores = [torch.stack([(q * k).sum() for k in k_all]).div(len(q_all[0]) ** 0.5) for q in q_all]
        rows.append(torch.stack([s.exp() / s.exp().sum() for s in scores]))
    return torch.stack(rows)


attention_weights = Check(
    name="7.6 attention weights", reference=attention, cases=_queries,
    rights=(_attention_in_loop,
        lambda queries, keys: torch.einsum("ntd,nsd->nts", queries * queries.shape[-1] ** -0.5, keys).softmax(-1)),
    wrongs=(
        Wrong("not scaled", lambda q, k: (q @ k.transpose(1, 2)).softmax(2),
            "You don't scale: divide the products by sqrt(d), or the softmax gets sharper the wider the tokens are."),
        Wrong("divided by d", lambda q, k: (q @ k.transpose(1, 2) / q.shape[2]).softmax(2),
            "You divide by d; it is the square root of d."),
        Wrong("softmax over queries", lambda q, k: (q @ k.transpose(1, 2) / q.shape[2] ** 0.5).softmax(1),
            "Your columns sum to 1; each query shares its attention among the keys: softmax over the last dimension."),
        Wrong("queries and keys swapped", lambda q, k: attention(k, q),
            "Queries and keys are swapped: row t belongs to query t."),
        Wrong("no softmax", lambda q, k: q @ k.transpose(1, 2) / q.shape[2] ** 0.5,
            "These are the scores; a softmax makes them weights that sum to 1."),
        Wrong("scaled afterwards", lambda q, k: (q @ k.transpose(1, 2)).softmax(2) / q.shape[2] ** 0.5,
            "You scale after the softmax, so that the rows no longer sum to 1: scale the products, before it."),
    ),
    hints=(
        "Every query times every key, scaled by the root of their width; then each row becomes shares that sum to 1.",
        "queries @ keys.transpose(1, 2) is (N, T, S). The softmax goes over the keys, the last dimension.",
        "(queries @ keys.transpose(1, 2) / queries.shape[2] ** 0.5).softmax(dim=2)",
    ),
    praise="That is what `vit.Attention.weights` computes for each of its heads.",
)
