"""Checks of the exercises of lesson 12: votes of neighbours, labels, learning rates, intervals, and honest choices."""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch
from scipy import stats
from sklearn.metrics import recall_score
from torch import Tensor

from sslcourse.checks import lesson03
from sslcourse.checks.cases import normal, uniform, whole
from sslcourse.checks.compare import EXACT, Closeness
from sslcourse.checks.framework import Check, Wrong, yourself

NUMBER = Closeness(rtol=1e-4, atol=1e-6, dtype="any")


def balanced_draw(labels: Tensor, dice: Tensor, k: int) -> Tensor:
    """labels int64 (N,), dice float (N,) -> int64 (C * k,): each class's k of the lowest dice, class after class."""
    chosen = []
    for c in labels.unique():  # sorted
        members = (labels == c).nonzero()[:, 0]  # (n_c,)
        chosen.append(members[dice[members].argsort()[:k]])
    return torch.cat(chosen)


def _labelled(generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor, int]]:
    for counts, k in (((9, 5, 7), 2), ((4, 12, 6, 5), 3), ((6, 3, 8), 1)):
        classes = torch.arange(len(counts)) + (torch.arange(len(counts)) >= k)  # the numbers of classes have a gap
        labels = torch.repeat_interleave(classes, torch.tensor(counts))
        labels = labels[torch.randperm(len(labels), generator=generator)]
        yield labels, uniform(generator, len(labels)), k


def _draw_by_sorting(labels, dice, k):
    order = dice.argsort()
    return torch.cat([order[labels[order] == c][:k] for c in range(int(labels.max()) + 1)])


def _draw_in_loop(labels, dice, k):
    chosen = []
    for c in sorted(set(labels.tolist())):
        members = [i for i, y in enumerate(labels.tolist()) if y == c]
        chosen += sorted(members, key=lambda i: dice[i].item())[:k]
    return torch.tensor(chosen)


a_balanced_draw = Check(
    name="12.1 a balanced draw of labels", reference=balanced_draw, cases=_labelled, close=EXACT,
    rights=(_draw_by_sorting, _draw_in_loop),
    wrongs=(
        Wrong("drawn from all together", lambda labels, dice, k: dice.argsort()[: k * len(labels.unique())],
            also=(lambda labels, dice, k: (
                (c := dice.argsort()[: k * len(labels.unique())])[labels[c].argsort(stable=True)]),
            lambda labels, dice, k: dice.argsort()[:k]), hint="""You draw C * k pictures from all classes together: a
            frequent class gets many and a rare one perhaps none. Go through the classes, and take k of each."""),
        Wrong("the first of each class", change=("members[dice[members].argsort()[:k]]", "members[:k]"),
            hint="""You take the first k of each class in the order of the set, and the dice play no part: every seed
            gives the same pictures. Take those with the lowest dice."""),
        Wrong("the highest dice", change=("argsort()", "argsort(descending=True)"),
            hint="""You take the k with the *highest* dice of each class; the exercise asks for the lowest. (Both are
            fair draws. But whoever wants to repeat yours has to know which.)"""),
        Wrong("places within the class", change=("members[dice[members].argsort()[:k]]", "dice[members].argsort()[:k]"),
            hint="""Your numbers are places within a class: dice[labels == c].argsort() counts the members of the class
            from 0. Turn them into numbers of pictures: members = (labels == c).nonzero()[:, 0], then members[...]."""),
        Wrong("classes counted off", change=("labels.unique()", "range(len(labels.unique()))"),
            hint="""You go over the classes 0 to C - 1, and their numbers may have gaps: a class that isn't there gives
            nothing, and the last one is left out. Go over labels.unique()."""),
        Wrong("order of the classes lost", change=("torch.cat(chosen)", "torch.cat(chosen).sort().values"),
            hint="""The pictures are the right ones, and you sorted their numbers at the end. Keep them class after
            class, the lowest dice first: then the first pictures of a class with k + 1 are those with k."""),
        Wrong("a mask", change=("torch.cat(chosen)", "torch.isin(torch.arange(len(labels)), torch.cat(chosen))"),
            hint="""You return a mask, True for each chosen picture. Numbers of pictures are asked for, int64, class
            after class; a mask can't hold that order."""),
    ),
    hints=(
        """What must be true of the number of pictures of each class in the result? Then a loop over classes is a good
        beginning.""",
        """For class c, members = (labels == c).nonzero()[:, 0] are its pictures, and dice[members] their dice. argsort
        says in which order to take them.""",
        "for each c in labels.unique(): chosen.append(members[dice[members].argsort()[:k]]); then torch.cat(chosen)",
    ),
)


def report(val: Tensor, test: Tensor) -> Tensor:
    """val, test float (S, V), for S seeds and V variants -> float (S,): each seed's choice on val, measured on test."""
    return test.gather(1, val.argmax(dim=1, keepdim=True)).squeeze(1)


def _grids(generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    for seeds, variants in ((5, 4), (3, 6), (6, 3), (9, 5)):
        truth = uniform(generator, seeds, variants, low=0.5, high=0.6)
        val, test = (truth + 0.1 * normal(generator, seeds, variants) for _ in range(2))
        for s in range(len(val) if variants < 5 else 2):  # validation and test disagree, and so do the seeds
            val[s, s % variants] = 0.9 + 0.01 * s
            test[s, (s + 1) % variants] = 0.95 - 0.01 * s
        yield val, test


choose_on_validation = Check(
    name="12.2 choose on validation, measure on test", reference=report, cases=_grids, close=NUMBER,
    rights=(
        lambda val, test: torch.stack([test[s, val[s].argmax()] for s in range(len(val))]),
        lambda val, test: test[torch.arange(len(val)), val.max(dim=1).indices]),
    wrongs=(
        Wrong("chosen on test", lambda val, test: test.amax(dim=1),
            also=(lambda val, test: test[:, test.mean(dim=0).argmax()], (", val", ", (val + test)")),
            hint="""You choose the variant that is best on test: that reports luck, and is too good. Choose by `val`,
            and read off `test` at that place."""),
        Wrong("validation reported", lambda val, test: val.amax(dim=1),
            """You report the validation accuracy of the chosen variant. It was chosen for being high there, so it is
            too good as well. Report `test` at the same place."""),
        Wrong("one variant for all seeds", lambda val, test: test[:, val.mean(dim=0).argmax()], """You choose one
            variant for all seeds, by the mean over them. That is honest, too, but not what is asked: each seed chooses
            for itself, as if it were the only one, so that the choice's own luck is in the spread."""),
        Wrong("the worst chosen", change=("argmax", "argmin"),
            hint="You take the variant that is *worst* on validation. argmin is for losses; accuracies want argmax."),
        Wrong("the number of the variant", lambda val, test: val.argmax(dim=1),
            "You return which variant was chosen, and not what it achieves: look up `test` there."),
        Wrong("seeds averaged", lambda val, test: report(val, test).mean(),
            "The mean alone is a single number, and the spread over seeds is gone. Return one value per seed, (S,)."),
        Wrong("along the wrong dimension", lambda val, test: test.gather(0, val.argmax(dim=0, keepdim=True)).squeeze(0),
            """You choose among seeds, for each variant: that is 'the best seed'. Rows are seeds and columns are
            variants: argmax(dim=1)."""),
    ),
    hints=(
        "Which of the two tables may influence the choice? And which one may be read once the choice is made?",
        "val.argmax(dim=1) is each seed's choice, (S,). Then take from row s of `test` the value in that column.",
        "test[torch.arange(len(val)), val.argmax(dim=1)]",
    ),
)


def rate_of(name: str, base: float, decay: float) -> float:
    """The learning rate of the parameter called `name` in a classifier whose backbone has a stem and stages 1 to 4."""
    found = re.search(r"layer(\d+)\.", name)
    depth = 5 if name.startswith("head.") else int(found[1]) if found else 0
    return base * decay ** (5 - depth)


PARAMETERS = (
    "head.weight",
    "backbone.trunk.layer4.0.conv1.weight",
    "backbone.trunk.layer3.1.bn2.bias",
    "backbone.trunk.layer2.0.downsample.0.weight",
    "backbone.trunk.layer1.0.conv2.weight",
    "backbone.trunk.conv1.weight",
    "backbone.trunk.bn1.weight",
    "head.bias",
    "backbone.trunk.layer1.1.bn1.weight",
)


def _parameters(generator: torch.Generator) -> list[tuple[str, float, float]]:
    settings = [(0.01, 0.5), (0.002, 0.7)]
    return [(name, *settings[i % 2]) for i, name in enumerate(PARAMETERS)]


def _rate_by_table(name, base, decay):
    depth = {"conv1": 0, "bn1": 0, "layer1": 1, "layer2": 2, "layer3": 3, "layer4": 4}
    steps = 0 if "head" in name else 5 - depth[name.split(".")[2]]
    return base * decay**steps


def _rate_in_loop(name, base, decay):
    rate = base
    for part in ("head.", "layer4.", "layer3.", "layer2.", "layer1."):
        if part in name:
            return rate
        rate *= decay
    return rate


layerwise_rates = Check(
    name="12.3 a learning rate for each layer", reference=rate_of, cases=_parameters,
    close=Closeness(rtol=1e-6, atol=1e-12, plain=True), forbidden=(yourself("sslcourse.train", "sslcourse.supervised"),),
    rights=(_rate_by_table, _rate_in_loop),
    wrongs=(
        Wrong("early layers fastest", change=("5 - depth", "depth"),
            hint="""The order is reversed: your stem moves fastest and the head slowest. The head begins knowing nothing
            and has to move far; each step *away from the head* multiplies by decay."""),
        Wrong("last stage at the full rate", change=("5 - depth", "max(0, 4 - depth)"),
            hint="""Stage 4 gets the full rate, as the head does. The head alone has `base`; stage 4 is one step away
            from it, so it gets base * decay."""),
        Wrong("head decayed", change=("5 - depth", "6 - depth"),
            hint="Everything is multiplied once too often: the head is 0 steps away from itself, and gets `base`."),
        Wrong("linear in the depth", change=("decay ** (5 - depth)", "max(0.0, 1 - (1 - decay) * (5 - depth))"),
            also=(("decay ** (5 - depth)", "(decay * (5 - depth) if depth < 5 else 1)"),),
            hint="""You multiply by the number of steps, or take the same amount off at each. Each step multiplies by
            `decay` once more: base * decay ** steps."""),
        Wrong("one factor for the backbone", change=("decay ** (5 - depth)", "(decay if depth < 5 else 1)"),
            hint="""The whole backbone has one rate. Each stage should have its own: the power of decay is the number of
            steps from the head."""),
        Wrong("conv1 taken for stage 1", change=(r"layer(\d+)\.", r"(\d+)"),
            hint="""Your stem gets the rate of stage 1, and is one step farther from the head: five. If you look for the
            first digit in a name: that of backbone.trunk.conv1.weight is no stage's. Look for `layer` and a digit."""),
        Wrong("stem at the full rate", change=("decay ** (5 - depth)", "(decay ** (5 - depth) if depth else 1)"),
            hint="The stem gets the full rate. It is the farthest from the head, five steps, and should move least."),
    ),
    hints=(
        "Count steps from the head: the head 0, stage 4 one, stage 3 two, ... and the stem?",
        (
        "re.search(r'layer(\\d+)\\.', name) finds the stage; where it finds nothing, the parameter is of the head (its "
        "name begins with 'head.') or of the stem."),
        "depth = 5 for the head, the stage's number, 0 for the stem; base * decay ** (5 - depth)",
    ),
)


def balanced_accuracy(predicted: Tensor, labels: Tensor) -> float:
    """predicted, labels int64 (N,) -> the mean, over the classes that occur in labels, of the share found of each."""
    recalls = [(predicted[labels == c] == c).float().mean() for c in labels.unique()]
    return torch.stack(recalls).mean().item()


def _answers(generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    for counts in ((30, 5, 3), (4, 0, 25, 8), (12, 6, 2, 0, 3)):  # a class may not occur
        labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
        labels = labels[torch.randperm(len(labels), generator=generator)]
        wrong = uniform(generator, len(labels)) < 0.4
        predicted = torch.where(wrong, whole(generator, len(counts), len(labels)), labels)
        predicted[-1] = 1  # class 1 is answered somewhere, even where it doesn't occur
        yield predicted, labels


def _balanced_by_sklearn(predicted, labels):
    return float(recall_score(labels.numpy(), predicted.numpy(), labels=labels.unique().numpy(), average="macro"))


def _balanced_by_counting(predicted, labels):
    right = torch.bincount(labels[predicted == labels], minlength=int(labels.max()) + 1)
    there = torch.bincount(labels)
    return (right[there > 0] / there[there > 0]).mean().item()


macro_average = Check(
    name="12.4 balanced accuracy", reference=balanced_accuracy, cases=_answers,
    close=Closeness(rtol=1e-4, atol=1e-6, plain=True), rights=(_balanced_by_sklearn, _balanced_by_counting),
    wrongs=(
        Wrong("plain accuracy", lambda predicted, labels: (predicted == labels).float().mean().item(),
            """That is plain accuracy: each picture counts the same, so the frequent class decides. Each *class* should
            count the same: the share found of each, then their mean."""),
        Wrong("precision in place of recall", change=(("predicted[labels == c]", "labels[predicted == c]"),
            ("labels.unique()", "labels.unique() if c in predicted")),
            also=((("predicted[labels == c]", "labels[predicted == c]"), ("labels.unique()", "predicted.unique()")),),
            hint="""You take, of the pictures *called* c, the share that are c: precision. Asked for is, of the pictures
            that *are* c, the share found: select by labels == c."""),
        Wrong("an absent class counts as zero",
            change=(("labels.unique()", "range(int(torch.cat([predicted, labels]).max()) + 1)"),
            ("torch.stack(recalls)", "torch.stack(recalls).nan_to_num()")),
            hint="""A class without a single picture counts as a failure, with 0. Nothing of it could be found: average
            over the classes that occur in `labels`."""),
        Wrong("an absent class gives nan",
            change=("labels.unique()", "range(int(torch.cat([predicted, labels]).max()) + 1)"),
            hint="""A class without a single picture gives nan (the mean of nothing), and that spreads to the average.
            Go over labels.unique() alone."""),
        Wrong("true negatives counted", change=("predicted[labels == c] == c", "(predicted == c) == (labels == c)"),
            hint="""For each class you also count the pictures that rightly are *not* called c. With many classes nearly
            all of them are, so that this is high for anybody. Only the pictures of class c count."""),
        Wrong("the worst class", change=(".mean().item()", ".min().item()"), hint="""That is the share found of the
            worst class, which is worth knowing, too. Here the mean over classes is asked for."""),
        Wrong("chance taken off",
            lambda predicted, labels: 1 - (1 - balanced_accuracy(predicted, labels)) / (1 - 1 / len(labels.unique())),
            "You scaled it so that guessing has 0 (adjusted=True). The mean of the shares itself is asked for."),
    ),
    hints=(
        "Take one class. Of the pictures that really are of it, how many are called so?",
        """predicted[labels == c] == c says, for the pictures of class c, which were found. Go over the classes in
        labels.unique().""",
        "torch.stack([(predicted[labels == c] == c).float().mean() for c in labels.unique()]).mean().item()",
    ),
)


# lesson 03 asks for the same
weighted_knn = Check(
    name="12.5 weighted kNN", reference=lesson03.weighted_vote, cases=lesson03.knn_vote.cases,
    close=lesson03.knn_vote.close, forbidden=(yourself("sslcourse.evaluate"),), rights=lesson03.knn_vote.rights,
    wrongs=lesson03.knn_vote.wrongs,
    hints=(
        """Do it for one query first, in a loop: its cosine with each picture of the bank, the k largest, a vote for
        each.""",
        """Normalized, the cosines are one matrix product, (M, N). topk gives values and places, (M, k); labels[index]
        are the classes that they vote for; scatter_add_ sums the votes.""",
        """votes = torch.zeros(len(queries), classes).scatter_add_(1, labels[index], (nearest / temperature).exp());
        then divide by votes.sum(dim=1, keepdim=True)""",
    ),
)


def _interval_by_scipy(a, b):
    found = stats.ttest_rel(a, b).confidence_interval(0.95)
    return found.low, found.high


def _interval_by_t(a, b):
    d = [x - y for x, y in zip(a, b, strict=True)]
    middle = sum(d) / len(d)
    error = (sum((x - middle) ** 2 for x in d) / (len(d) - 1) / len(d)) ** 0.5
    return stats.t.interval(0.95, len(d) - 1, loc=middle, scale=error)


the_paired_interval = Check(
    name="12.6 the paired interval", reference=lesson03.interval_ends, cases=lesson03.paired_difference.cases,
    close=Closeness(rtol=1e-6, atol=1e-9, dtype="any"), rights=(_interval_by_scipy, _interval_by_t),
    wrongs=(
        Wrong("two samples", lambda a, b: tuple(stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)),
            """Your interval isn't paired: it takes the scatter of a and the scatter of b, and shared luck stays in
            both. Take the differences seed by seed first, and only their scatter."""),
        Wrong("middle and half", change=("middle - half, middle + half", "middle, half"),
            hint="You return the middle and half of the width: both ends are asked for, (middle - half, middle + half)."),
        *(w for w in lesson03.paired_difference.wrongs if w.name not in lesson03.OF_THE_PAIR),
    ),
    hints=(
        "Which n numbers is the interval about? Not 2n: the same seed belongs together.",
        """d = a - b, seed by seed; its mean; its standard deviation with n - 1; divided by sqrt(n) that is the standard
        error; times a quantile.""",
        "half = stats.t.ppf(0.975, n - 1) * d.std(ddof=1) / math.sqrt(n); (d.mean() - half, d.mean() + half)",
    ),
)
