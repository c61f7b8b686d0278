"""Checks of the exercises of lesson 14: overlap of boxes, mirrored boxes, mIoU, focal loss, NMS, average precision."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional
from torchvision import ops

from sslcourse.checks.cases import normal, uniform, whole
from sslcourse.checks.compare import Closeness
from sslcourse.checks.framework import Check, Forbidden, Wrong, yourself


def _boxes(count: int, generator: torch.Generator, side: float = 32.0) -> Tensor:
    """Boxes (count, 4) of 2 to 14 pixels a side, inside a picture of `side` pixels."""
    extent = uniform(generator, count, 2, low=2, high=14)
    corner = uniform(generator, count, 2) * (side - extent)
    return torch.cat([corner, corner + extent], dim=1)


def box_iou(a: Tensor, b: Tensor) -> Tensor:
    """a float (M, 4), b float (N, 4): left, top, right, bottom -> IoU of every two, float (M, N)."""
    low, high = torch.maximum(a[:, None, :2], b[:, :2]), torch.minimum(a[:, None, 2:], b[:, 2:])  # (M, N, 2)
    both = (high - low).clamp(min=0).prod(dim=2)
    either = _area(a)[:, None] + _area(b) - both
    return both / either


def _pairs(generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    apart = torch.tensor([[0.0, 0, 4, 4], [20, 18, 25, 27]])  # apart in both directions: two negative sides
    inside = torch.tensor([[2.0, 2, 12, 10], [4, 4, 8, 8]])
    return [(apart, inside), (_boxes(4, generator), _boxes(3, generator)), (_boxes(2, generator), _boxes(7, generator))]


def _area(boxes):
    return (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)


def _iou_by_edges(a, b):
    (l1, t1, r1, b1), (l2, t2, r2, b2) = a[:, :, None].unbind(1), b.unbind(1)  # (M, 1) and (N,) each
    both = (r1.minimum(r2) - l1.maximum(l2)).clamp(0) * (b1.minimum(b2) - t1.maximum(t2)).clamp(0)
    return both / ((r1 - l1) * (b1 - t1) + (r2 - l2) * (b2 - t2) - both)


def _iou_in_loop(a, b):
    result = torch.zeros(len(a), len(b))
    for i, (l1, t1, r1, b1) in enumerate(a.tolist()):
        for j, (l2, t2, r2, b2) in enumerate(b.tolist()):
            both = max(0.0, min(r1, r2) - max(l1, l2)) * max(0.0, min(b1, b2) - max(t1, t2))
            result[i, j] = both / ((r1 - l1) * (b1 - t1) + (r2 - l2) * (b2 - t2) - both)
    return result


intersection_over_union = Check(
    name="14.1 intersection over union", reference=box_iou, cases=_pairs,
    forbidden=(yourself("torchvision.ops.boxes"),), rights=(_iou_by_edges, _iou_in_loop),
    wrongs=(
        Wrong("negative sides", change=(".clamp(min=0)", ""),
            hint="""Boxes that don't meet get a score: where they are apart in both directions, two negative sides
            multiply to a positive area. A side of the intersection is at least 0: clamp both before you multiply."""),
        Wrong("intersection counted twice", change=("_area(b) - both", "_area(b)"),
            hint="""Two identical boxes get 0.5 from you: the sum of both areas counts the intersection twice. The union
            is the sum of the areas minus the intersection."""),
        Wrong("Dice", change=((" - both", ""), ("both / either", "2 * both / either")),
            hint="""That is the Dice score, twice the intersection over the sum of the areas. It is a good score, and
            another one: divide the intersection by the union."""),
        Wrong("one pixel more", change=(("high - low", "high - low + 1"), ("- boxes[:, :2]", "- boxes[:, :2] + 1")),
            hint="""You add 1 to every side, as if right and bottom were the last pixels inside. Here they are edges:
            the width is right - left."""),
        Wrong("over one of the boxes",
            change=("_area(a)[:, None] + _area(b) - both", "torch.minimum(_area(a)[:, None], _area(b))"),
            also=(("_area(a)[:, None] + _area(b) - both", "_area(a)[:, None]"),
            ("_area(a)[:, None] + _area(b) - both", "_area(b)")), hint="""You divide by the area of one box (the
            smaller, or the first). A tiny box inside a huge one would then score 1; divide by the union of both."""),
        Wrong("over the enclosing box", change=("_area(a)[:, None] + _area(b) - both",
            "(torch.maximum(a[:, None, 2:], b[:, 2:]) - torch.minimum(a[:, None, :2], b[:, :2])).prod(dim=2)"),
            hint="""You divide by the smallest box around both. The union is what the two boxes cover together, and it
            is smaller: the sum of the areas minus the intersection."""),
        Wrong("rows and columns exchanged", change=("both / either", "(both / either).T"),
            hint="The table is turned: row m belongs to box m of `a`, column n to box n of `b`."),
    ),
    hints=(
        """Draw two boxes that overlap. Which of the two left edges is the left edge of the intersection? And which
        right edge?""",
        """Left and top of the intersection are the larger ones of both, right and bottom the smaller ones. With a[:,
        None] and b[None] every box of one meets every box of the other.""",
        """sides = (torch.minimum(a[:, None, 2:], b[:, 2:]) - torch.maximum(a[:, None, :2], b[:, :2])).clamp(min=0); the
        intersection is sides.prod(dim=2), the union is the sum of the areas minus that.""",
    ),
)


def mirror(boxes: Tensor, labels: Tensor, width: int) -> Tensor:
    """boxes float (N, K, 4), labels int64 (N, K), -1 where there is no object -> the boxes in the mirrored pictures."""
    left, top, right, bottom = boxes.unbind(dim=2)
    moved = torch.stack([width - right, top, width - left, bottom], dim=2)
    return torch.where(labels[:, :, None] < 0, 0.0, moved)


def _annotated(generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor, int]]:
    for n, k, width in [(3, 4, 32), (2, 6, 40), (5, 3, 33)]:
        labels = whole(generator, 10, n, k)
        labels[:, 0], labels[:, k - 1] = 0, -1  # class 0 is an object
        boxes = _boxes(n * k, generator).view(n, k, 4) * (labels >= 0)[:, :, None]
        yield boxes, labels, width


def _mirror_in_loop(boxes, labels, width):
    moved = torch.zeros_like(boxes)
    for i in range(len(boxes)):
        for k in range(boxes.shape[1]):
            if labels[i, k] >= 0:
                left, top, right, bottom = boxes[i, k]
                moved[i, k] = torch.stack([width - right, top, width - left, bottom])
    return moved


def _mirror_by_index(boxes, labels, width):
    moved = boxes.clone()
    moved[..., [0, 2]] = width - boxes[..., [2, 0]]
    moved[labels == -1] = 0
    return moved


mirrored_boxes = Check(
    name="14.2 mirror boxes", reference=mirror, cases=_annotated, rights=(_mirror_in_loop, _mirror_by_index),
    wrongs=(
        Wrong("left stays left", change=("width - right, top, width - left", "width - left, top, width - right"),
            hint="""Your boxes have their left edge on the right: width - left is where the *right* edge comes to lie.
            The new left edge is width - right."""),
        Wrong("pixels instead of edges", change=("width -", "width - 1 -"),
            hint="""All boxes are one pixel too far left: width - 1 - x mirrors the numbers of pixels, and these are
            edges, which run from 0 to width. Leave the 1 out."""),
        Wrong("empty places mirrored", change=("torch.where(labels[:, :, None] < 0, 0.0, moved)", "moved"),
            hint="The places without an object (label -1) have become [width, 0, width, 0]. They must stay zeros."),
        Wrong("upside down",
            change=("width - right, top, width - left, bottom", "left, width - bottom, right, width - top"),
            hint="You turned the boxes upside down. A mirror exchanges left and right; top and bottom stay."),
        Wrong("one edge alone", change=("width - left", "right"),
            hint="You moved the left edge and kept the right one. Both move, and they exchange their parts."),
        Wrong("edges exchanged, not mirrored", change=("width - right, top, width - left", "right, top, left"),
            hint="""You exchanged left and right, and the box is still where it was, with its left edge on the right.
            Count both from the other side: width minus the edge."""),
        Wrong("not mirrored", lambda boxes, labels, width: boxes.clone(), """Nothing has moved. The picture is mirrored;
            boxes that stay behind teach the detector to look in the wrong place."""),
    ),
    hints=(
        "Draw a box near the left side of a picture, and its mirror image. How far is each edge from the right side?",
        """The new left edge is width - right, the new right edge is width - left. Afterwards put zeros where the label
        is -1.""",
        """torch.stack([width - right, top, width - left, bottom], dim=2) with left, top, right, bottom =
        boxes.unbind(dim=2); then moved[labels < 0] = 0""",
    ),
)


def mean_iou(predicted: Tensor, truth: Tensor, classes: int) -> float:
    """predicted, truth int64 (N, H, W) in 0..classes - 1 -> mean over the classes that occur, a number."""
    table = torch.bincount(truth.flatten() * classes + predicted.flatten(), minlength=classes**2)
    table = table.view(classes, classes).double()
    both, found, there = table.diag(), table.sum(dim=0), table.sum(dim=1)
    either = found + there - both
    return (both[either > 0] / either[either > 0]).mean().item()


def _masks(generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor, int]]:
    for n, h, w, used, classes in [(3, 4, 5, 3, 5), (2, 6, 6, 4, 6), (4, 5, 3, 4, 4)]:
        truth = torch.randint(0, used, (n, h, w), generator=generator)
        truth[0] = truth[0].clamp(max=1)  # not every class is in every image
        swapped = torch.rand(n, h, w, generator=generator) < 0.4
        predicted = torch.where(swapped, torch.randint(0, used, (n, h, w), generator=generator), truth)
        if used < classes:
            predicted[0, 0, 0] = used  # a class that is found and never there
        yield predicted, truth, classes


def _mean_iou_in_loop(predicted, truth, classes):
    scores = []
    for c in range(classes):
        both = ((predicted == c) & (truth == c)).sum().item()
        either = ((predicted == c) | (truth == c)).sum().item()
        if either:
            scores.append(both / either)
    return sum(scores) / len(scores)


def _mean_iou_one_hot(predicted, truth, classes):
    a, b = (functional.one_hot(x, classes).bool().flatten(0, 2) for x in (predicted, truth))
    return ((a & b).sum(0) / (a | b).sum(0)).nanmean()


mean_intersection_over_union = Check(
    name="14.3 mean intersection over union", reference=mean_iou, cases=_masks,
    rights=(_mean_iou_in_loop, _mean_iou_one_hot),
    wrongs=(
        Wrong("absent classes count", change=("both[either > 0] / either[either > 0]", "both / either.clamp(min=1)"),
            also=(("both[either > 0] / either[either > 0]", "torch.where(either > 0, both / either, 1.0)"),),
            hint="""A class that is neither found nor there counts in your mean, as 0 or as 1. It has no IoU, 0 / 0:
            leave it out."""),
        Wrong("pixel accuracy", lambda predicted, truth, classes: (predicted == truth).double().mean().item(),
            """That is the share of right pixels. A picture that is three quarters background scores 0.75 by answering
            *background* everywhere. Work out intersection over union for each class, then average over classes."""),
        Wrong("a mean of images",
            lambda predicted, truth, classes: sum(map(mean_iou, predicted, truth, [classes] * len(truth))) / len(truth),
            """You worked out mIoU for each image and averaged. Count the pixels of all images together first: one wrong
            pixel in an image must not cost as much as a whole object."""),
        Wrong("background left out", change=(("found + there - both", "(found + there - both)[1:]"),
            ("both[either", "both[1:][either")),
            hint="You leave class 0 out. Here the background is a class like the others, as in PASCAL VOC."),
        Wrong("recall", change=("found + there - both", "there"),
            hint="""You divide by the pixels that truly are of the class: that is recall, and painting everything with
            one class costs nothing. Divide by the pixels where either of the two says so."""),
        Wrong("only the true classes", change=("[either > 0]", "[there > 0]"), hint="""You average over the classes of
            the truth alone. A class that was found and isn't there has an IoU too: 0."""),
        Wrong("Dice", change=("found + there - both", "(found + there) / 2"), hint="""That is the Dice score, 2 both /
            (found + there). IoU divides by the union: both / (found + there - both)."""),
        Wrong("one ratio for all",
            change=("(both[either > 0] / either[either > 0]).mean()", "(both.sum() / either.sum())"),
            hint="""You add up intersections and unions of all classes and divide once, so that large classes decide.
            Divide class by class, then take the mean."""),
    ),
    hints=(
        "For one class: which pixels count above the line, and which below?",
        """For each class c, both = ((predicted == c) & (truth == c)).sum() and either = ... | .... Leave out the
        classes where either is 0, and average the rest.""",
        "scores = [both / either for each c with either > 0]; sum(scores) / len(scores)",
    ),
)


def focal_loss(logits: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """logits float (M, C), targets float (M, C) of 0 and 1 -> the sum over all M * C of them, a scalar."""
    p = logits.sigmoid()
    p_true = torch.where(targets == 1, p, 1 - p)
    weight = torch.where(targets == 1, alpha, 1 - alpha)
    return (weight * (1 - p_true) ** gamma * -p_true.log()).sum()


def _answers(generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor, float, float]]:
    for m, c, alpha, gamma in [(6, 3, 0.25, 2.0), (4, 5, 0.4, 1.0), (9, 2, 0.25, 3.0)]:
        logits = 2 * torch.randn(m, c, generator=generator)
        yield logits, (torch.rand(m, c, generator=generator) < 0.3).float(), alpha, gamma


def _focal_by_sign(logits, targets, alpha=0.25, gamma=2.0):
    log_p = functional.logsigmoid((2 * targets - 1) * logits)
    weight = (1 - alpha) + (2 * alpha - 1) * targets
    return -(weight * (1 - log_p.exp()) ** gamma * log_p).sum()


def _focal_by_bce(logits, targets, alpha=0.25, gamma=2.0):
    bce = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    a = alpha * targets + (1 - alpha) * (1 - targets)
    return (a * (1 - (-bce).exp()) ** gamma * bce).sum()


the_focal_loss = Check(
    name="14.4 the focal loss", reference=focal_loss, cases=_answers,
    forbidden=(yourself("torchvision.ops.focal_loss"),), rights=(_focal_by_sign, _focal_by_bce),
    wrongs=(
        Wrong("the easy ones weighed up", change=("(1 - p_true) ** gamma", "p_true**gamma"),
            hint="""You weigh with p_t ** gamma: answers that are already right count most. It should be the other way
            round, (1 - p_t) ** gamma."""),
        Wrong("no alpha", change=("weight * ", ""),
            hint="alpha is missing: positives (target 1) are weighed by alpha, negatives by 1 - alpha."),
        Wrong("one alpha for all", change=("weight * ", "alpha * "), hint="""You weigh everything by alpha, and that
            only scales the loss. Positives get alpha, negatives 1 - alpha."""),
        Wrong("alpha exchanged", change=("alpha, 1 - alpha", "1 - alpha, alpha"),
            hint="alpha and 1 - alpha are exchanged: alpha belongs to the positives (target 1)."),
        Wrong("no focus", change=("* (1 - p_true) ** gamma", ""), also=(("weight * (1 - p_true) ** gamma *", ""),),
            hint="""The factor (1 - p_t) ** gamma is missing: this is cross-entropy, weighed or not, in which thousands
            of easy cells of background drown the few hard ones."""),
        Wrong("a mean", change=(".sum()", ".mean()"), hint="""You take the mean over all answers. Here it is the sum:
            the caller divides by the number of cells that hold an object, not by the number of cells."""),
        Wrong("positives alone", change=("-p_true.log()", "-p_true.log() * targets"), hint="""You leave out the targets
            that are 0. They are what the loss is for: the cells must learn to say no, too."""),
        Wrong("softmax", change=("sigmoid()", "softmax(dim=1)"), hint="""You use a softmax over the classes. Each class
            is a question of its own here, yes or no: take the sigmoid."""),
    ),
    hints=(
        """p_t is the probability that the network gives to the right answer: p where the target is 1, 1 - p where it is
        0.""",
        "Each answer costs -log(p_t), weighed by (1 - p_t) ** gamma, and by alpha (target 1) or 1 - alpha (target 0).",
        """p = logits.sigmoid(); p_t = torch.where(targets == 1, p, 1 - p); a = torch.where(targets == 1, alpha, 1 -
        alpha); (a * (1 - p_t) ** gamma * -p_t.log()).sum()""",
    ),
)


def nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """boxes float (M, 4), scores float (M,) -> which stay, int64, best first."""
    overlap, kept = box_iou(boxes, boxes), []
    for i in scores.argsort(descending=True).tolist():
        if all(overlap[i, j] <= threshold for j in kept):
            kept.append(i)
    return torch.tensor(kept)


def _crowded(generator: torch.Generator) -> list[tuple[Tensor, Tensor, float]]:
    chain = torch.tensor([[0.0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10], [0, 20, 10, 30], [1, 20, 11, 30]])
    half = torch.tensor([[0.0, 0, 8, 8], [0, 0, 8, 4], [20, 20, 24.5, 26.25], [20.5, 20, 25, 26.5]])  # 0.5 exactly
    best = torch.tensor([0.9, 0.8, 0.7, 0.5, 0.95])
    cases = [(chain, best, 0.3), (half, torch.tensor([0.9, 0.4, 0.6, 0.7]), 0.5), (chain / 16, best, 0.3)]
    for count, threshold in [(12, 0.3), (20, 0.5)]:
        boxes = _boxes(count // 4, generator).repeat(4, 1) + 1.5 * normal(generator, count // 4 * 4, 4)
        boxes = torch.cat([torch.minimum(boxes[:, :2], boxes[:, 2:] - 1), boxes[:, 2:]], dim=1) - 12  # some left of 0
        cases.append((boxes, uniform(generator, len(boxes)), threshold))
    return cases


def _nms_in_loop(boxes, scores, threshold):
    order, kept = scores.argsort(descending=True).tolist(), []
    while order:
        best = order.pop(0)
        kept.append(best)
        order = [i for i in order if ops.box_iou(boxes[[best]], boxes[[i]]).item() <= threshold]
    return torch.tensor(kept)


def _nms_by_mask(boxes, scores, threshold):
    order, overlap = scores.argsort(descending=True), ops.box_iou(boxes, boxes)
    free = torch.ones(len(boxes), dtype=torch.bool)
    for place, i in enumerate(order.tolist()):
        rest = order[place + 1 :]
        free[rest] &= (overlap[i, rest] <= threshold) | ~free[i]
    return order[free[order]]


non_maximum_suppression = Check(
    name="14.5 non-maximum suppression", reference=nms, cases=_crowded, close=Closeness(dtype="exact"),
    forbidden=(Forbidden("torchvision's nms used", (ops.nms, ops.batched_nms), """
        You let torchvision do the work: here ops.box_iou is yours to use, and ops.nms isn't."""),),
    rights=(_nms_in_loop, _nms_by_mask),
    wrongs=(
        Wrong("the suppressed suppress",
            change=("for j in kept", "for j in range(len(boxes)) if scores[j] > scores[i]"), hint="""A box that was
            thrown out throws out others in your answer. In a row of three where each overlaps the next, the first
            removes the second, and then nothing stands in the third's way: compare with the boxes that are *kept*."""),
        Wrong("worst first", change=("descending=True", "descending=False"), hint="""You begin with the lowest score, so
            that the worst box of each heap survives. Sort downwards: descending=True."""),
        Wrong("in the order of the list", change=("scores.argsort(descending=True).tolist()", "range(len(boxes))"),
            hint="""You take the boxes in the order in which they come, whatever their scores. The best of all remaining
            boxes goes first."""),
        Wrong("sorted by number", change=("torch.tensor(kept)", "torch.tensor(sorted(kept))"),
            hint="The right boxes stay, in the wrong order: give their numbers best score first."),
        Wrong("only the last one kept", change=("for j in kept", "for j in kept[-1:]"),
            hint="You compare each box with the last one that was kept. It must be compared with all of them."),
        Wrong("the near ones kept", change=("<= threshold", "> threshold"), hint="""You throw out the boxes that *don't*
            overlap the best one, and keep its duplicates. Keep those whose IoU with it is at most the threshold."""),
        Wrong("nothing suppressed", lambda boxes, scores, threshold: scores.argsort(descending=True),
            "All boxes stay, sorted. Throw out each that overlaps a better, kept one by more than the threshold."),
        Wrong("a mask", change=("torch.tensor(kept)", "torch.isin(torch.arange(len(boxes)), torch.tensor(kept))"),
            hint="""You give True and False for each box; the numbers of the boxes that stay are needed, best first
            (int64)."""),
    ),
    hints=(
        "Take the box with the best score. Which others show the same thing again?",
        """Again and again: keep the best of the remaining boxes, and throw out all that overlap it by more than the
        threshold. torchvision.ops.box_iou gives the overlaps of all with all.""",
        """for i in scores.argsort(descending=True).tolist(): if all(overlap[i, j] <= threshold for j in kept):
        kept.append(i)""",
    ),
)


def average_precision(hits: Tensor, scores: Tensor, count: int) -> float:
    """hits bool (M,), scores float (M,) of all that was found, count of true boxes -> average precision, a number."""
    ranked = hits[scores.argsort(descending=True)].double()  # (M,)
    right = ranked.cumsum(dim=0)
    precision, recall = right / torch.arange(1, len(ranked) + 1), right / count
    return _at_levels(precision, recall, 101).item()


def _at_levels(precision: Tensor, recall: Tensor, levels: int) -> Tensor:
    """The mean, over `levels` levels of recall from 0 to 1, of the best precision at that recall or more."""
    reached = recall >= torch.linspace(0, 1, levels, dtype=torch.float64)[:, None] - 1e-9  # (levels, M)
    return torch.where(reached, precision, 0.0).amax(dim=1).mean()


def _found(generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor, int]]:
    # primes: no recall lies on a level, but for rounding; of 4, a quarter and a half lie on theirs exactly
    for m, count in [(8, 7), (15, 11), (24, 13), (9, 4)]:
        scores = torch.rand(m, generator=generator)
        hits = torch.zeros(m, dtype=torch.bool)
        likely = (scores + 0.6 * torch.rand(m, generator=generator)).argsort(descending=True)
        hits[likely[: count - 2]] = True
        best = int(scores.argmax())
        hits[best] = False  # a false alarm ranks first: precision rises before it falls
        yield hits, scores, count


def _ap_in_loop(hits, scores, count):
    right, points = 0, []
    for n, i in enumerate(scores.argsort(descending=True).tolist(), start=1):
        right += int(hits[i])
        points.append((right / count, right / n))
    total = 0.0
    for k in range(101):
        total += max([p for r, p in points if r >= k / 100 - 1e-9], default=0.0)
    return total / 101


def _ap_from_the_right(hits, scores, count):
    ranked = hits[scores.argsort(descending=True)].double()
    right = ranked.cumsum(0)
    precision = (right / torch.arange(1, len(ranked) + 1)).flip(0).cummax(0).values.flip(0)
    places = torch.searchsorted(right / count, torch.arange(101).double() / 100 - 1e-9)
    return torch.cat([precision, torch.zeros(1)])[places].mean()


average_precision_of_a_class = Check(
    name="14.6 average precision of one class", reference=average_precision, cases=_found,
    rights=(_ap_in_loop, _ap_from_the_right),
    wrongs=(
        Wrong("not sorted", change=("hits[scores.argsort(descending=True)]", "hits"),
            hint="""You go through the boxes in the order in which they come. Average precision goes through them by
            score, best first: sort the hits by the scores."""),
        Wrong("worst first", change=("descending=True", "descending=False"),
            hint="You begin with the lowest score. argsort sorts upwards unless you say descending=True."),
        Wrong("recall of what was found", change=("/ count", "/ hits.sum()"), also=(("/ count", "/ len(hits)"),),
            hint="""Your recall divides by what was found. Recall is the share of all *true* boxes, `count` of them, so
            that what was missed costs."""),
        Wrong("precision where recall is reached", change=("torch.where(reached, precision, 0.0).amax(dim=1)",
            "(precision[reached.int().argmax(dim=1)] * reached.any(dim=1))"),
            hint="""You take the precision at the first place where the recall is reached. COCO takes the *best*
            precision at that recall or a higher one, so that a false alarm before a hit doesn't count twice."""),
        Wrong("eleven levels", change=("101", "11"),
            hint="You use eleven levels of recall, as PASCAL VOC did until 2009. Here there are 101: 0, 0.01, ..., 1."),
        Wrong("levels never reached left out", change=("amax(dim=1)", "amax(dim=1)[reached.any(dim=1)]"),
            hint="""You average over the levels of recall that were reached. A level that is never reached counts with
            precision 0, or finding one sure box would be enough."""),
        Wrong("precision at the hits",
            change=("_at_levels(precision, recall, 101)", "((precision * ranked).sum() / count)"),
            hint="""You average the precision at each hit: that is average precision as in information retrieval. COCO
            averages the best precision over 101 levels of recall."""),
        Wrong("the area under the raw curve",
            change=("_at_levels(precision, recall, 101)", "torch.trapezoid(precision, recall)"), hint="""That is the
            area under the curve as it zigzags. Take, at each of the 101 levels, the best precision to the right."""),
        Wrong("precision of everything", lambda hits, scores, count: hits.double().mean().item(),
            """That is the precision of all boxes together, one point of the curve. Work out precision and recall after
            each box, best score first."""),
    ),
    hints=(
        """Go through the boxes from the surest to the least sure. After each: how many of those so far are hits, and
        what share of the true boxes is found?""",
        """Precision after n boxes is hits so far / n, recall is hits so far / count. For each level 0, 0.01, ..., 1
        take the largest precision among the places whose recall is at least that; 0 if there is none. Average over 101
        levels.""",
        """right = hits[scores.argsort(descending=True)].cumsum(0); precision = right / torch.arange(1, len(hits) + 1);
        recall = right / count; then max([p for r, p in zip(recall, precision) if r >= level], default=0) for each
        level""",
    ),
)
