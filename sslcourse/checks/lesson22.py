"""Checks of the exercises of lesson 22: Wilson's interval, folds that keep groups together, the calibration error."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from sslcourse.checks import cases
from sslcourse.checks.compare import Closeness
from sslcourse.checks.framework import Check, Wrong, yourself


def interval(right: Tensor, count: Tensor, z: float) -> tuple[Tensor, Tensor]:
    """right and count (N,), right of count pictures; z = 1.96 for 95% -> lower and upper ends (N,) each."""
    share, scale = right / count, 1 + z * z / count
    middle = (share + z * z / (2 * count)) / scale
    half = z / scale * (share * (1 - share) / count + z * z / (4 * count * count)).sqrt()
    return middle - half, middle + half


def _shares(generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor, float]]:
    for n, z in [(3, 1.96), (5, 1.645), (4, 2.576)]:
        count = 4 + cases.whole(generator, 60, n)
        count[1] = 2  # fewer than z squared
        right = (cases.uniform(generator, n) * (count + 1)).long().clamp(max=count)
        right[0] = 0
        yield right, count, z


def _interval_by_roots(right, count, z):
    # The ends are the shares p with (right / count - p)^2 = z^2 p (1 - p) / count: a quadratic equation.
    a, b, c = 1 + z * z / count, -(2 * right / count + z * z / count), (right / count) ** 2
    root = (b * b - 4 * a * c).sqrt()
    return (-b - root) / (2 * a), (-b + root) / (2 * a)


def _interval_one_by_one(right, count, z):
    low, high = [], []
    for k, n in zip(right.tolist(), count.tolist(), strict=True):
        middle = (k + z * z / 2) / (n + z * z)
        half = z / (n + z * z) * math.sqrt(k * (n - k) / n + z * z / 4)
        low.append(middle - half)
        high.append(middle + half)
    return torch.tensor(low), torch.tensor(high)


how_sure_of_a_share = Check(
    name="22.1 how sure of a share", reference=interval, cases=_shares,
    forbidden=(yourself("sslcourse.classify.measures"),), rights=(_interval_by_roots, _interval_one_by_one),
    wrongs=(
        Wrong("the normal interval", change=(("(share + z * z / (2 * count)) / scale", "share"), ("z / scale *", "z *"),
            (" + z * z / (4 * count * count)", "")), hint="""You compute share ± z sqrt(p (1 - p) / n). With none right
            of 12 it has no width, as if you knew for sure; and it leaves [0, 1]. Wilson's interval moves the middle
            towards a half and adds z² / 4n² under the root."""),
        Wrong("around the share", change=("middle = (share + z * z / (2 * count)) / scale", "middle = share"),
            hint="""Your interval lies around the share itself. Its middle is drawn towards a half: (p + z² / 2n) / (1 +
            z² / n)."""),
        Wrong("middle without scale", change=("(share + z * z / (2 * count)) / scale", "share + z * z / (2 * count)"),
            hint="Your middle isn't divided by 1 + z² / n, so that it moves up always, and not towards a half."),
        Wrong("half without scale", change=("z / scale *", "z *"), hint="Your half-width isn't divided by 1 + z² / n."),
        Wrong("z forgotten", change=("z / scale *", "1 / scale *"),
            hint="Your half-width lacks its factor z, the number of deviations: 1.96 for 95%."),
        Wrong("variance in place of deviation", change=(".sqrt()", ""),
            hint="Your half-width is a variance. The root of it is a deviation."),
        Wrong("nothing added under the root", change=(" + z * z / (4 * count * count)", ""),
            hint="You leave out z² / 4n² under the root; with none right the interval then has no width."),
        Wrong("count under the root not squared", change=("(4 * count * count)", "(4 * count)"),
            hint="Under the root stands z² / 4n²: the number of pictures is squared there."),
        Wrong("brackets under the root", change=("z * z / (4 * count * count)", "z * z / 4 * count * count"),
            hint="Under the root you multiply by n² where it divides: z**2 / 4 * n**2 is read from left to right."),
        Wrong("upper end first", change=("middle - half, middle + half", "middle + half, middle - half"),
            hint="You return the upper end first; the lower one is asked for first."),
    ),
    hints=(
        """Which shares p would make what you saw no surprise? Those whose own deviation reaches as far as the share you
        saw.""",
        """With n pictures and p = right / n: the middle is (p + z²/2n) / (1 + z²/n), the half-width is z / (1 + z²/n)
        times the root of p (1 - p) / n + z²/4n².""",
        "half = z / scale * (share * (1 - share) / count + z * z / (4 * count**2)).sqrt()",
    ),
)


def fold_of(groups: Tensor, order: Tensor, folds: int) -> Tensor:
    """groups int64 (N,) of the pictures, order int64 (G,) in which groups are dealt out -> each picture's fold (N,)."""
    place = (groups[:, None] == order).long().argmax(dim=1)  # (N,), of the picture's group in the order
    return place % folds


def _groups(generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor, int]]:
    for n, count, folds in [(11, 5, 2), (17, 7, 3), (23, 9, 4)]:
        order = torch.randperm(count, generator=generator)
        groups = torch.cat([torch.arange(count), cases.whole(generator, count, n)])
        yield groups[torch.randperm(len(groups), generator=generator)], order, folds


def _fold_in_loop(groups, order, folds):
    dealt = {group: k % folds for k, group in enumerate(order.tolist())}
    return torch.tensor([dealt[group] for group in groups.tolist()])


def _fold_by_inverse(groups, order, folds):
    fold_of_group = torch.empty_like(order)
    fold_of_group[order] = torch.arange(len(order)) % folds
    return fold_of_group[groups]


what_belongs_together = Check(
    name="22.2 what belongs together", reference=fold_of, cases=_groups, close=Closeness(dtype="exact"),
    rights=(_fold_in_loop, _fold_by_inverse),
    wrongs=(
        Wrong("pictures dealt out", change=("place % folds", "torch.arange(len(groups)) % folds"), hint="""You deal out
            pictures, one after the other, so that the shots of a burst land in different folds: what a model is asked
            about, it has nearly seen. Deal out groups, and give each picture the fold of its group."""),
        Wrong("the order ignored", change=("return place", "return groups"),
            hint="""You take the number of the group for its place in the order. The groups are dealt out as `order`
            says: its first one goes to fold 0, the next to fold 1."""),
        Wrong("the order read the wrong way",
            change=("(groups[:, None] == order).long().argmax(dim=1)", "order[groups]"),
            hint="""You look up order[group], which is the group at that *place*. Asked for is the place of that group:
            where `order` holds it."""),
        Wrong("one fold after the other", change=("place % folds", "place * folds // len(order)"),
            hint="""You fill one fold after the other. Deal them out in turn: places 0, 1, 2, ... go to folds 0, 1, ...,
            and round again."""),
        Wrong("a fold for every group", change=(" % folds", ""), hint="""You give each group a fold of its own. There
            are `folds` of them: after the last comes the first again."""),
        Wrong("counted from 1", change=("place % folds", "(place + 1) % folds"),
            hint="Your folds are one too far: the first group of the order goes to fold 0."),
    ),
    hints=(
        "Forget the pictures for a moment and deal out the groups, like cards. Then each picture follows its group.",
        """The group at place k of `order` goes to fold k % folds. A dictionary from group to fold is enough, or an
        array that is filled at the places `order`.""",
        "dealt = {group: k % folds for k, group in enumerate(order.tolist())}",
    ),
)


def calibration_error(probabilities: Tensor, labels: Tensor, bins: int) -> Tensor:
    """probabilities (N, C), rows sum to 1; labels int64 (N,) -> the expected calibration error, a scalar."""
    confidence, named = probabilities.max(dim=1)  # (N,) each
    right = (named == labels).float()
    place = (confidence * bins).long().clamp(max=bins - 1)  # bin b begins at b / bins
    off = torch.zeros(bins).index_add(0, place, confidence - right)  # (bins,), summed over its pictures
    return off.abs().sum() / len(labels)


def _probabilities(generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor, int]]:
    for n, classes, bins in [(9, 3, 4), (14, 5, 6), (20, 4, 10)]:
        probabilities = (1.5 * cases.normal(generator, n, classes)).softmax(dim=1)
        yield probabilities, torch.randint(classes, (len(probabilities),), generator=generator), bins
    top = torch.tensor([0.5, 0.45, 0.4, 0.75, 0.7, 0.65, 1.0, 0.9, 0.8])[:, None]  # at both ends of bins, and between
    at_ends = torch.cat([top, (1 - top) * 0.625, (1 - top) * 0.375], dim=1)
    labels = torch.tensor([0, 1, 0, 2, 0, 1, 1, 0, 0])
    yield at_ends, labels, 4
    yield at_ends.clone(), cases.whole(generator, 3, 9), 2


def _error_bin_by_bin(probabilities, labels, bins):
    confidence, named = probabilities.max(dim=1)
    place, total = (confidence * bins).floor(), torch.tensor(0.0)
    for b in range(bins):
        here = (place == b) | ((place == bins) & (b == bins - 1))
        if here.any():
            accuracy = (named[here] == labels[here]).float().mean()
            total = total + here.float().mean() * (confidence[here].mean() - accuracy).abs()
    return total


def _error_by_table(probabilities, labels, bins):
    confidence, named = probabilities.amax(dim=1), probabilities.argmax(dim=1)
    edges = torch.arange(1, bins) / bins
    member = torch.nn.functional.one_hot(torch.bucketize(confidence, edges, right=True), bins).float()  # (N, bins)
    return (member.T @ (confidence - (named == labels).float())).abs().sum() / len(labels)


how_far_off_are_probabilities = Check(
    name="22.3 how far off probabilities are", reference=calibration_error, cases=_probabilities,
    forbidden=(yourself("sslcourse.classify.calibration"),), rights=(_error_bin_by_bin, _error_by_table),
    wrongs=(
        Wrong("a mean over bins", change=("off.abs().sum() / len(labels)",
            "(off / place.bincount(minlength=bins).clamp(min=1)).abs().sum() / len(place.unique())"),
            also=(("off.abs().sum() / len(labels)", "(off / place.bincount(minlength=bins).clamp(min=1)).abs().mean()"),
            ("off.abs().sum() / len(labels)", "(off / place.bincount(minlength=bins).clamp(min=1)).abs().sum()")),
            hint="""You give every bin the same weight. A bin with two pictures would count as much as one with two
            hundred: weigh each by its share of the pictures."""),
        Wrong("upper ends",
            change=("(confidence * bins).long().clamp(max=bins - 1)", "(confidence * bins).ceil().long() - 1"),
            hint="""Your bins hold their upper ends. Here bin b holds b / bins, where it begins: with two bins, a
            confidence of exactly a half is in the second."""),
        Wrong("the largest distance", change=("off.abs().sum() / len(labels)",
            "(off / place.bincount(minlength=bins).clamp(min=1)).abs().max()"), hint="""You return the distance of the
            worst bin. The expected error adds up all of them, each weighed by its share of the pictures."""),
        Wrong("empty bins", change=("off.abs().sum() / len(labels)",
            "(off / (n := place.bincount(minlength=bins))).abs().mul(n / len(labels)).sum()"), hint="""Your result is
            nan: a bin without pictures has no mean, and 0 / 0 is nan, whatever weighs it. Leave such bins out."""),
        Wrong("middles of the bins", change=("confidence - right", "(place + 0.5) / bins - right"), hint="""You take the
            middle of each bin for its confidence. Take the mean confidence of the pictures that lie in it."""),
        Wrong("the surest left out", change=("confidence - right)", "(confidence - right) * (confidence < 1))"),
            hint="""A confidence of exactly 1 falls into no bin of yours: 1 * bins is one place beyond the last. The
            last bin holds 1 as well, for instance by clamp(max=bins - 1)."""),
        Wrong("no bins", change=("off.abs().sum()", "off.sum().abs()"), hint="""You add up the bins before you take the
            distance, so that too sure in one bin cancels too modest in another. The distance of each bin first."""),
        Wrong("picture by picture", change=("confidence - right)", "(confidence - right).abs())"),
            hint="""You take the distance of each picture, and a picture is right or wrong, never 80%. Mean confidence
            and accuracy of a bin first, and then their distance."""),
        Wrong("the label's probability", change=("right = (named == labels).float()",
            "right = (named == labels).float(); confidence = probabilities.gather(1, labels[:, None])[:, 0]"),
            hint="""You take the probability of the label. Confidence is the probability of the class that is *named*,
            right or not: at prediction time nobody knows the label."""),
        Wrong("wrong ones counted", change=("named == labels", "named != labels"),
            hint="You compare confidence with the share of wrong ones. Compare it with the share of right ones."),
        Wrong("not divided", change=(" / len(labels)", ""), hint="You add up over pictures; divide by their number."),
        Wrong("divided by the bins", change=("/ len(labels)", "/ bins"),
            hint="You divide by the number of bins. What was added up are pictures: divide by their number."),
        Wrong("squared", change=("off.abs()", "off.square()"),
            hint="You square the distances; their absolute values are asked for."),
    ),
    hints=(
        "Of all pictures that were called with about 80%, how many are right? And with about 60%?",
        """Confidence is the largest probability of a row. Put the pictures into bins by it; for each bin the distance
        of mean confidence and share of right ones; add up, each weighed by its share of the pictures.""",
        "sum over bins of here.float().mean() * (confidence[here].mean() - right[here].mean()).abs()",
    ),
)
