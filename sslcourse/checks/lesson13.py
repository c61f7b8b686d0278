"""Checks of the exercises of lesson 13: episodes, labels, prototypes, intervals, batch norm, and the transfer gap."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional

from sslcourse.checks.cases import normal, uniform, whole
from sslcourse.checks.compare import Closeness
from sslcourse.checks.framework import Check, Forbidden, Wrong, yourself

EXACT = Closeness(rtol=0, atol=0, dtype="exact")


def support_and_query(
    labels: Tensor, order: Tensor, classes: Tensor, shots: int, queries: int
) -> tuple[Tensor, Tensor]:
    """labels, order int64 (M,), classes int64 (N,) -> numbers of images: support (N, shots) and query (N, queries)."""
    rows = [order[labels[order] == c] for c in classes]  # the images of each class, as they come in `order`
    support = torch.stack([row[:shots] for row in rows])
    query = torch.stack([row[shots : shots + queries] for row in rows])
    return support, query


def _sets(generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor, Tensor, int, int]]:
    for count, kinds, ways, shots, queries in [(60, 5, 3, 2, 4), (80, 6, 4, 1, 3), (90, 5, 5, 3, 2)]:
        labels = (torch.arange(count) % kinds)[torch.randperm(count, generator=generator)]
        order = torch.randperm(count, generator=generator)
        classes = torch.arange(kinds - 1, -1, -1)[:ways]  # never ascending
        yield labels, order, classes, shots, queries


def _sets_in_loop(labels, order, classes, shots, queries):
    support, query = [], []
    for c in classes.tolist():
        mine, asked = [], []
        for i in order.tolist():
            if labels[i] == c:
                if len(mine) < shots:
                    mine.append(i)
                elif len(asked) < queries:
                    asked.append(i)
        support.append(mine)
        query.append(asked)
    return torch.tensor(support), torch.tensor(query)


def _sets_by_split(labels, order, classes, shots, queries):
    shuffled = labels[order]
    rows = torch.stack([order[(shuffled == c).nonzero()[: shots + queries, 0]] for c in classes])
    return rows.split([shots, queries], dim=1)


draw_an_episode = Check(
    name="13.1 draw an episode", reference=support_and_query, cases=_sets, close=EXACT,
    rights=(_sets_in_loop, _sets_by_split),
    wrongs=(
        Wrong("support leaks into the query", change=("shots : shots + queries", ":queries"), hint="""Support images are
            among the queries: both begin at the first image of the class. A picture that was given with its label is no
            question any more. Begin the queries after the support: [shots : shots + queries]."""),
        Wrong("one image leaks", change=("shots : shots + queries", "shots - 1 : shots - 1 + queries"),
            hint="""The last image of each support is the first query as well. A slice ends before its end: the queries
            begin at `shots`, not at `shots - 1`."""),
        Wrong("order ignored", change=("order[labels[order] == c]", "(labels == c).nonzero()[:, 0]"),
            hint="""You take the images as the set has them, and `order` changes nothing: every episode would hold the
            same pictures. Go through the images as `order` says."""),
        Wrong("places instead of images", change=("order[labels[order] == c]", "(labels[order] == c).nonzero()[:, 0]"),
            hint="You return places in `order`; an image's number is what lies there: order[place]."),
        Wrong("labels of other images", change=("labels[order] == c", "labels == c"),
            hint="""labels == c is a mask over images, and you apply it to places in `order`: the images that you get
            are of any class. labels[order] == c is the mask over places."""),
        Wrong("queries before support", change=(("shots : shots + queries", ":queries"),
            ("row[:shots]", "row[queries : queries + shots]")),
            hint="""You give the first images of a class to the query. Here the support comes first: with more shots it
            would otherwise be drawn from other images than the exercise says."""),
        Wrong("queries from the end", change=("shots : shots + queries", "-queries:"),
            hint="""You take the queries from the end of each class. They should follow the support at once: from the
            end they meet the support as soon as a class is small."""),
        Wrong("classes sorted", change=("in classes", "in classes.sort().values"),
            hint="""Your rows are in ascending order of class; row n belongs to classes[n], in the order given, or the
            labels 0..N-1 mean other classes than the caller thinks."""),
        Wrong("the first classes", change=("in classes", "in range(len(classes))"), hint="""You draw classes 0..N-1 of
            the set. The episode's classes are those in `classes`: row n holds images of classes[n]."""),
        Wrong("flat", change=("return support, query", "return support.flatten(), query.flatten()"), hint="""The images
            are right, and the shape isn't: a row for each class, so support (N, shots) and query (N, queries)."""),
    ),
    hints=(
        "Take one class. Which of its images come first as you go through `order`?",
        """labels[order] are the labels as they come. order[labels[order] == c] are the images of class c, in that
        order: the first `shots` are its support, and the next `queries` its queries.""",
        """rows = [order[labels[order] == c] for c in classes]; torch.stack([r[:shots] for r in rows]),
        torch.stack([r[shots : shots + queries] for r in rows])""",
    ),
)


def relabel(labels: Tensor, classes: Tensor) -> Tensor:
    """labels int64 (M,), all of them in classes int64 (N,) -> int64 (M,): the place in `classes`, 0..N-1."""
    return (labels[:, None] == classes).int().argmax(dim=1)


def _relabelled(generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    for kinds, count in [((7, 2, 9), 8), ((5, 0, 3, 8), 11), ((3, 1, 0, 2, 4), 14)]:
        classes = torch.tensor(kinds)
        chosen = torch.cat([torch.arange(len(kinds)), whole(generator, len(kinds), count)])
        yield classes[chosen[torch.randperm(len(chosen), generator=generator)]], classes


def _relabel_by_dict(labels, classes):
    place = {c: n for n, c in enumerate(classes.tolist())}
    return torch.tensor([place[c] for c in labels.tolist()])


def _relabel_by_table(labels, classes):
    table = torch.zeros(int(classes.max()) + 1, dtype=torch.int64)
    table[classes] = torch.arange(len(classes))
    return table[labels]


labels_within = Check(
    name="13.2 labels within an episode", reference=relabel, cases=_relabelled, close=EXACT,
    rights=(_relabel_by_dict, _relabel_by_table),
    wrongs=(
        Wrong("labels not remapped", lambda labels, classes: labels.clone(), """These are still the classes of the whole
            set. A head with N outputs has no output 7 when N is 3: within an episode classes are called 0..N-1."""),
        Wrong("numbered by size", lambda labels, classes: torch.searchsorted(classes.sort().values, labels),
            also=(lambda labels, classes: labels.unique(return_inverse=True)[1],),
            hint="""You number the classes in ascending order. Class n of the episode is classes[n], as given:
            prototypes and scores come in that order, and would be read as other classes'."""),
        Wrong("counted from one", change=("argmax(dim=1)", "argmax(dim=1) + 1"),
            hint="Your classes are 1..N; the first is 0, as everywhere in PyTorch."),
        Wrong("remainder", lambda labels, classes: labels % len(classes),
            "A remainder gives two classes the same name as soon as they differ by N: look each one up in `classes`."),
        Wrong("numbered by appearance", change=("== classes", "== torch.tensor(list(dict.fromkeys(labels.tolist())))"),
            hint="""You number the classes as they appear in `labels`, so that the queries, in another order, would get
            other names than the support. `classes` says which comes first."""),
        Wrong("shifted", lambda labels, classes: labels - classes.min(), """You take the smallest class off. That is
            enough only where the classes have no gaps and come in order; here they are any classes, in any order."""),
        Wrong("one column per class", change=("int().argmax(dim=1)", "long()"), hint="""That is a table of ones and
            zeros, (M, N). Asked for is the number of the column where the one stands."""),
    ),
    hints=(
        "Write down classes = [7, 2, 9] and the label 9. At which place does it stand?",
        """labels[:, None] == classes is a table (M, N) with one True in each row; its column is the answer. A
        dictionary {class: place} does it, too.""",
        "(labels[:, None] == classes).int().argmax(dim=1)",
    ),
)


def prototype_scores(support: Tensor, labels: Tensor, queries: Tensor, ways: int) -> Tensor:
    """support (S, d), labels int64 (S,) in 0..ways-1, queries (Q, d) -> minus the squared distance, (Q, ways)."""
    centres = torch.stack([support[labels == n].mean(dim=0) for n in range(ways)])  # (ways, d)
    squared = (queries[:, None] - centres).square().sum(dim=2)  # (Q, ways)
    return -squared


def _supports(generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor, Tensor, int]]:
    for ways, shots, dim, asked in [(3, 2, 4, 5), (4, 3, 2, 6), (2, 5, 6, 3)]:
        labels = torch.arange(ways).repeat(shots)[torch.randperm(ways * shots, generator=generator)]
        support = normal(generator, ways * shots, dim) + labels[:, None]
        yield support, labels, normal(generator, asked, dim) + 1, ways


def _scores_in_loop(support, labels, queries, ways):
    result = torch.zeros(len(queries), ways)
    for n in range(ways):
        members = [x for x, c in zip(support, labels, strict=True) if c == n]
        centre = sum(members) / len(members)
        for q, query in enumerate(queries):
            result[q, n] = -((query - centre) ** 2).sum()
    return result


def _scores_by_one_hot(support, labels, queries, ways):
    one_hot = nn.functional.one_hot(labels, ways).to(support.dtype)  # (S, ways)
    centres = one_hot.T @ support / one_hot.sum(dim=0)[:, None]
    return -(torch.cdist(queries, centres) ** 2)


def _scores_by_products(support, labels, queries, ways):
    centres = torch.stack([support[labels == n].mean(dim=0) for n in range(ways)])
    return 2 * queries @ centres.T - queries.square().sum(1, keepdim=True) - centres.square().sum(1)


prototypes_and_scores = Check(
    name="13.3 scores by prototypes", reference=prototype_scores, cases=_supports,
    close=Closeness(rtol=1e-4, atol=1e-4), forbidden=(yourself("sslcourse.transfer"),),
    rights=(_scores_in_loop, _scores_by_one_hot, _scores_by_products),
    wrongs=(
        Wrong("sum instead of mean", change=(".mean(", ".sum("), hint="""Your prototypes are sums: with 5 shots they lie
            five times as far out, beyond all images. The prototype is the mean."""),
        Wrong("sign of the distance", change=("-squared", "squared"), hint="""You give the distance itself, so that
            argmax takes the *farthest* class. A score is larger for what is nearer: put a minus before it."""),
        Wrong("distance not squared", change=("-squared", "-squared.sqrt()"),
            hint="""You give minus the distance, and its square is asked for. The nearest class is the same, and a
            softmax isn't: with the square it is that of equally wide Gaussians."""),
        Wrong("support in rows by class",
            change=("torch.stack([support[labels == n].mean(dim=0) for n in range(ways)])",
            "support.view(ways, -1, support.shape[1]).mean(dim=1)"), hint="""You reshape the support as if it came class
            after class. It comes in any order: `labels` says which image belongs to which class."""),
        Wrong("nearest image", change=("return -squared", "away = torch.cdist(queries, support).square(); "
            "return -torch.stack([away[:, labels == n].amin(dim=1) for n in range(ways)], dim=1)"),
            hint="""You compare with the nearest support image of each class: that is one nearest neighbour. A prototype
            is the mean of the features, taken first."""),
        Wrong("mean of distances", change=("return -squared", "away = torch.cdist(queries, support).square(); "
            "return -torch.stack([away[:, labels == n].mean(dim=1) for n in range(ways)], dim=1)"),
            hint="""You average distances to the images; prototypes average the *images'* features. The mean squared
            distance is larger, by how widely the class scatters, so a wide class would be punished."""),
        Wrong("scalar product", change=("-squared", "queries @ centres.T"),
            hint="""You give scalar products with the prototypes. They leave out |c|², and so favour the class whose
            prototype is longest; minus the squared distance is 2 q·c - |q|² - |c|²."""),
        Wrong("cosine", change=("-squared", "torch.cosine_similarity(queries[:, None], centres, dim=2)"),
            hint="""You give cosines. They are a good choice too, as the lesson measured; here minus the squared
            distance is asked for."""),
        Wrong("mean over all dimensions", change=(".sum(dim=2)", ".mean(dim=2)"),
            hint="You average the squares over the dimensions; the squared distance is their sum."),
        Wrong("queries and classes exchanged", change=("-squared", "-squared.T"),
            hint="Rows and columns are exchanged: a row for each query, a column for each class."),
        Wrong("classes instead of scores", change=("return -squared", "return squared.argmin(dim=1)"),
            hint="""You answer already which class is nearest. Return the scores, (Q, ways): whoever calls may want a
            softmax of them."""),
    ),
    hints=(
        "Two steps: one mean feature per class, then one number for every query and every class.",
        "support[labels == n].mean(dim=0) is prototype n. queries[:, None] - centres has the shape (Q, ways, d).",
        """centres = torch.stack([support[labels == n].mean(0) for n in range(ways)]); -(queries[:, None] -
        centres).square().sum(dim=2)""",
    ),
)


def interval(values: Tensor) -> tuple[float, float]:
    """values float (n,), n > 1 -> (mean, half-width of the 95% interval of the mean, by Student's t)."""
    n = len(values)
    error = values.std().item() / math.sqrt(n)
    return values.mean().item(), float(stats.t.ppf(0.975, n - 1)) * error


def _interval_by_scipy(values):
    low, high = stats.t.interval(0.95, len(values) - 1, loc=values.mean().item(), scale=stats.sem(values.numpy()))
    return (low + high) / 2, (high - low) / 2


def _interval_by_hand(values):
    x = values.tolist()
    mean = sum(x) / len(x)
    variance = sum((v - mean) ** 2 for v in x) / (len(x) - 1)
    return mean, stats.t(len(x) - 1).ppf(0.975) * (variance / len(x)) ** 0.5


interval_of_the_mean = Check(
    name="13.4 the interval of a mean", reference=interval,
    cases=lambda g: [(uniform(g, n, low=0.2, high=0.8).double(),) for n in (4, 7, 12)],
    close=Closeness(rtol=1e-4, atol=1e-6, plain=True), rights=(_interval_by_scipy, _interval_by_hand),
    wrongs=(
        Wrong("without the root of n", change=(" / math.sqrt(n)", ""),
            hint="""You didn't divide by sqrt(n). What you have says how much single *episodes* scatter, however many
            there are; the mean of n of them scatters sqrt(n) times less."""),
        Wrong("the standard deviation alone",
            change=("float(stats.t.ppf(0.975, n - 1)) * error", "values.std().item()"),
            hint="""That is the standard deviation of the episodes. The interval of their mean needs two more factors:
            1/sqrt(n), and the t quantile."""),
        Wrong("the standard error alone", change=("float(stats.t.ppf(0.975, n - 1)) * error", "error"),
            hint="""That is the standard error: it covers the true mean about two times in three. For 95% multiply it by
            the quantile stats.t.ppf(0.975, n - 1)."""),
        Wrong("1.96", change=("float(stats.t.ppf(0.975, n - 1))", "1.96"),
            also=(("float(stats.t.ppf(0.975, n - 1))", "stats.norm.ppf(0.975)"),
            ("float(stats.t.ppf(0.975, n - 1))", "2")),
            hint="""1.96 is the quantile of a normal distribution whose width is known. Yours is estimated from a few
            values: take Student's t with n - 1 degrees of freedom (3.18 for four values)."""),
        Wrong("divided by n", change=("math.sqrt(n)", "n"),
            hint="You divide by n. Variances of a mean fall as 1/n, so widths fall as 1/sqrt(n)."),
        Wrong("deviation with n", change=("std()", "std(correction=0)"),
            hint="""Your standard deviation divides by n, as NumPy's does unless told otherwise. The mean was taken from
            the same values: divide by n - 1 (ddof=1; torch's std does it)."""),
        Wrong("one-sided quantile", change=("0.975", "0.95"), hint="""0.95 as a quantile leaves 5% on *one* side, so
            your interval covers 90%. Two sides with 2.5% each need 0.975."""),
        Wrong("n degrees of freedom", change=("n - 1", "n"),
            hint="You give t n degrees of freedom. One was spent on the mean: n - 1 are left."),
        Wrong("whole width", change=("* error", "* error * 2"), hint="""That is the whole width of the interval, from
            end to end; asked for is half of it, what stands after ±."""),
        Wrong("as if every episode were one coin",
            lambda values: (mean := values.mean().item(), 1.96 * math.sqrt(mean * (1 - mean) / len(values))),
            """That is the interval of a share of n yes-or-no answers. An episode's accuracy is a number in between, and
            how much it scatters stands in the values: use their standard deviation."""),
    ),
    hints=(
        "How much do the values scatter? And how much less does the mean of n of them?",
        """Standard error: values.std() / sqrt(n), with n - 1 under the deviation. Multiply by the quantile of Student's
        t that leaves 2.5% on each side.""",
        "values.mean().item(), stats.t.ppf(0.975, n - 1) * values.std().item() / math.sqrt(n)",
    ),
)


def adapted_norm(unlabeled: Tensor, test: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Maps unlabeled (U, C, H, W) and test (M, C, H, W); weight, bias (C,) -> test normalized, (M, C, H, W)."""
    mean = unlabeled.mean(dim=(0, 2, 3), keepdim=True)  # (1, C, 1, 1)
    variance = unlabeled.var(dim=(0, 2, 3), keepdim=True)
    return (test - mean) / (variance + eps).sqrt() * weight[:, None, None] + bias[:, None, None]


def _maps(generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor, float]]:
    for u, m, c, h, w in [(5, 3, 4, 3, 2), (6, 2, 3, 2, 4), (4, 4, 2, 3, 5)]:
        scale, shift = uniform(generator, c, 1, 1, low=0.3, high=1.3), 2 * normal(generator, c, 1, 1)
        unlabeled = normal(generator, u, c, h, w) * scale + shift
        test = normal(generator, m, c, h, w) * 1.5 * scale + shift + 0.5
        yield unlabeled, test, 0.5 + uniform(generator, c), normal(generator, c), 0.1


def _adapted_by_scale(unlabeled, test, weight, bias, eps):
    variance, mean = torch.var_mean(unlabeled, dim=(0, 2, 3))
    scale = weight / (variance + eps).sqrt()
    return test * scale[:, None, None] + (bias - mean * scale)[:, None, None]


def _adapted_in_loop(unlabeled, test, weight, bias, eps):
    result = torch.empty_like(test)
    for c in range(test.shape[1]):
        seen = unlabeled[:, c].flatten()
        result[:, c] = (test[:, c] - seen.mean()) / torch.sqrt(seen.var() + eps) * weight[c] + bias[c]
    return result


batch_norm_in_a_new_domain = Check(
    name="13.5 batch norm in a new domain", reference=adapted_norm, cases=_maps, close=Closeness(rtol=1e-4, atol=1e-5),
    forbidden=(
        yourself("sslcourse.transfer"),
        Forbidden("a module of PyTorch", (functional.batch_norm,), """
            You let PyTorch's batch norm do it: here it is to be written by hand, from a mean and a variance."""),
    ),
    rights=(_adapted_by_scale, _adapted_in_loop),
    wrongs=(
        Wrong("statistics of the test images", change=("unlabeled.", "test."), also=((("unlabeled.", "test."),
            (".var(", ".var(correction=0, ")),), hint="""Mean and variance are those of the test images themselves. Then
            what is said of one picture depends on which others are tested with it, and the score on pictures that
            nobody was to look at beforehand. Take them from `unlabeled`."""),
        Wrong("test images among the others", change=("unlabeled.", "torch.cat([unlabeled, test])."),
            hint="""You put the test images among the unlabeled ones before you take mean and variance. Even without
            their labels they would help to answer about themselves: `unlabeled` alone."""),
        Wrong("statistics of each picture", change=(("unlabeled.", "test."), ("(0, 2, 3)", "(2, 3)"),
            (".var(", ".var(correction=0, ")), hint="""You normalize each picture by its own mean and variance: that is
            instance normalization, and it wipes out what pictures of the domain differ in. One mean and one variance
            per channel, from all of `unlabeled`."""),
        Wrong("one statistic per position", change=("(0, 2, 3)", "0"),
            hint="""You average over images alone, and get a mean for every *position*. A batch norm has one per
            channel: average over images, rows and columns, dim=(0, 2, 3)."""),
        Wrong("one statistic for all channels", change=("(0, 2, 3)", "(0, 1, 2, 3)"),
            hint="""You average over channels as well. Each channel is a quantity of its own, and has a mean and a
            variance of its own: leave dimension 1 out of dim=(0, 2, 3)."""),
        Wrong("divided by the variance", change=(".sqrt()", ""),
            hint="You divide by the variance; dividing by its root, the standard deviation, brings the spread to 1."),
        Wrong("eps forgotten", change=(" + eps", ""), hint="""eps is missing: a channel that is the same everywhere has
            variance 0, and you would divide by it. Under the root: sqrt(variance + eps)."""),
        Wrong("eps outside of the root", change=("(variance + eps).sqrt()", "(variance.sqrt() + eps)"),
            hint="""eps belongs under the root, as in every batch norm: sqrt(variance + eps), not sqrt(variance) + eps.
            Weights that were trained with one don't fit the other."""),
        Wrong("mean alone", change=(" / (variance + eps).sqrt()", ""), hint="""You take the mean off and leave the
            spread as it is. Night is darker *and* has less contrast: divide by sqrt(variance + eps) as well."""),
        Wrong("scale and shift forgotten", change=(" * weight[:, None, None] + bias[:, None, None]", ""),
            hint="""weight and bias are left out. They were learned, and the next layer counts on them: * weight + bias,
            per channel."""),
        Wrong("the wrong images", change=("test - mean", "unlabeled - mean"), hint="""You return the unlabeled images
            normalized. They lend their statistics; what is asked about are the test images."""),
    ),
    hints=(
        "Which images may you look at before the test? And over which dimensions does a batch norm average?",
        """One mean and one variance per channel, over images, rows and columns of `unlabeled`: dim=(0, 2, 3),
        keepdim=True. Then the test maps, with weight and bias as weight[:, None, None].""",
        "(test - mean) / (variance + eps).sqrt() * weight[:, None, None] + bias[:, None, None]",
    ),
)


def transfer_gap(correct: Tensor) -> Tensor:
    """correct bool (D, D, M), [source, target, image] -> float (D,): accuracy at home minus the mean abroad."""
    accuracy = correct.float().mean(dim=2)  # (D, D)
    home = accuracy.diagonal()
    abroad = (accuracy.sum(dim=1) - home) / (len(accuracy) - 1)
    return home - abroad


def _answers(generator: torch.Generator) -> list[tuple[Tensor]]:
    cases = []
    for domains, images in [(3, 40), (4, 25), (5, 30)]:
        rate = uniform(generator, domains, domains, 1, low=0.2, high=0.6) + 0.3 * torch.eye(domains)[:, :, None]
        cases.append((uniform(generator, domains, domains, images) < rate,))
    return [*cases, (~cases[0][0],)]  # abroad better than at home: gaps below 0


def _gap_in_loop(correct):
    gaps = []
    for s in range(len(correct)):
        others = [correct[s, t].float().mean().item() for t in range(len(correct)) if t != s]
        gaps.append(correct[s, s].float().mean().item() - sum(others) / len(others))
    return torch.tensor(gaps)


def _gap_by_mask(correct):
    accuracy = correct.double().mean(dim=2)
    off = ~torch.eye(len(accuracy), dtype=torch.bool)
    return (accuracy.diagonal() - accuracy[off].view(len(accuracy), -1).mean(dim=1)).float()


what_a_domain_costs = Check(
    name="13.6 what a new domain costs", reference=transfer_gap, cases=_answers, rights=(_gap_in_loop, _gap_by_mask),
    wrongs=(
        Wrong("home among the others",
            change=("(accuracy.sum(dim=1) - home) / (len(accuracy) - 1)", "accuracy.mean(dim=1)"),
            hint="""The mean abroad holds the accuracy at home as well, so your gap is too small. Leave the diagonal
            out: divide by D - 1."""),
        Wrong("sources and targets exchanged", change=("sum(dim=1)", "sum(dim=0)"),
            hint="""You average over the sources of each target. The first dimension is the source: a row of the table
            is one classifier, tested everywhere."""),
        Wrong("sign", change=("home - abroad", "abroad - home"),
            hint="The sign is the other way round: a gap is what is lost, so it is at home minus abroad."),
        Wrong("one number for all", change=("return home - abroad", "return (home - abroad).mean()"),
            hint="""You average over the sources as well. One gap per source, (D,): a classifier that carries over and
            one that doesn't would hide each other."""),
        Wrong("worst case", change=("(accuracy.sum(dim=1) - home) / (len(accuracy) - 1)", "accuracy.amin(dim=1)"),
            hint="""You compare with the worst target. That is worth knowing, too; asked for is the mean over the other
            targets."""),
        Wrong("share of what was there", change=("return home - abroad", "return (home - abroad) / home"),
            hint="You divide by the accuracy at home. Asked for is the difference itself, in points of accuracy."),
        Wrong("sum over the others", change=(" / (len(accuracy) - 1)", ""),
            hint="You subtract the sum of the accuracies abroad; take their mean, the sum divided by D - 1."),
        Wrong("numbers of images", change=("mean(dim=2)", "sum(dim=2)"),
            hint="You count images. Accuracy is a share: the mean over the last dimension."),
    ),
    hints=(
        "Make the D x D table of accuracies first. Where in it are the accuracies at home?",
        "accuracy = correct.float().mean(dim=2). The diagonal is at home; the rest of row s is where source s went.",
        "home = accuracy.diagonal(); home - (accuracy.sum(dim=1) - home) / (len(accuracy) - 1)",
    ),
)
