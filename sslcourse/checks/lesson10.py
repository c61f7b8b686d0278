"""Checks of the exercises of lesson 10: the stopped gradient, cross-correlation, variance, covariance, and Sinkhorn."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from sslcourse import losses
from sslcourse.checks.compare import Closeness
from sslcourse.checks.framework import Check, Wrong, value_and_gradients, yourself


def agreement(first: Tensor, second: Tensor, weight: Tensor) -> Tensor:
    """SimSiam's loss of projections (N, d) with the predictor z @ weight, weight (d, d): a scalar, -1 at best."""
    cosine = functional.cosine_similarity
    one = cosine(first @ weight, second.detach(), dim=1).mean()
    other = cosine(second @ weight, first.detach(), dim=1).mean()
    return -(one + other) / 2


def _projections(generator: torch.Generator) -> list[tuple[Tensor, Tensor, Tensor]]:
    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) * (0.5 + torch.rand(shape[0], 1, generator=generator))

    return [(draw(n, d), draw(n, d), draw(d, d)) for n, d in [(3, 2), (5, 4), (4, 3)]]


def _agree_together(first, second, weight):
    z = torch.cat([first, second])
    return losses.negative_cosine(z @ weight, z.detach().roll(len(first), dims=0))


def _agree_in_loop(first, second, weight):
    total = 0.0
    for a, b in ((first, second), (second, first)):
        for i in range(len(a)):
            p, z = a[i] @ weight, b[i].detach()
            total = total - (p @ z) / (p.norm() * z.norm()) / (2 * len(a))
    return total


def _agree_normalized(first, second, weight):
    p = [functional.normalize(z @ weight, dim=1) for z in (first, second)]
    t = [functional.normalize(z, dim=1).detach() for z in (first, second)]
    return -((p[0] * t[1]).sum() + (p[1] * t[0]).sum()) / (2 * len(first))


stop_the_gradient = Check(
    name="10.1 predict the other view, and stop the gradient", reference=agreement, cases=_projections,
    run=value_and_gradients, rights=(_agree_together, _agree_in_loop, _agree_normalized),
    wrongs=(
        Wrong("stop-gradient forgotten", change=(".detach()", ""), hint="""The value is right, and the gradient flows
            into the target as well: then both sides move towards each other, and the quickest way to agree is to be the
            same for all pictures. The target is data: .detach() it."""),
        Wrong("gradient stopped on the wrong side",
            change=(("first @ weight, second.detach()", "(first @ weight).detach(), second"),
            ("second @ weight, first.detach()", "(second @ weight).detach(), first")),
            hint="""You stop the gradient of the prediction and let the target learn. It is the other way round: the
            target, which has not gone through the predictor, is detached."""),
        Wrong("stopped before the predictor", change=(("first @", "first.detach() @"),
            ("second @", "second.detach() @")),
            hint="""Only your predictor gets a gradient, because the projection is detached before it goes in. Detach a
            projection where it is the target, and leave it whole where it is predicted from."""),
        Wrong("predictor on both sides", change=(("second.detach()", "(second @ weight).detach()"),
            ("first.detach()", "(first @ weight).detach()")), also=((("second.detach()", "second @ weight"),
            ("first.detach()", "first @ weight")),),
            hint="""The target has gone through the predictor, too. Then nothing is left to be predicted, and the two
            sides are alike again. The target is the projection itself."""),
        Wrong("predictor forgotten", change=(" @ weight", ""), hint="""You compare the projections themselves: the
            predictor, z @ weight, is missing on the side that learns."""),
        Wrong("each view with itself", change=(("first @ weight", "second @ weight"),
            ("other = cosine(second @", "other = cosine(first @")), hint="""Each view predicts its own projection. It
            has to predict the *other* view's; otherwise the views ask nothing."""),
        Wrong("one direction alone", change=("(one + other) / 2", "one"), also=(("(one + other) / 2", "other"),),
            hint="""One view predicts the other, and not the other way round. Both directions count: take the mean of
            both."""),
        Wrong("sum of the directions", change=(" / 2", ""),
            hint="You add up the two directions; their mean is asked for, so that -1 is the best possible value."),
        Wrong("sign", change=("-(one", "(one"),
            hint="Your value rises when the views agree. A loss has to fall: the *negative* cosine."),
        Wrong("scalar products", change=("functional.cosine_similarity", "lambda p, z, dim: (p * z).sum(dim)"),
            hint="""You take scalar products without dividing by the lengths: longer vectors alone would make the loss
            fall. Take the cosine."""),
        Wrong("cosine along the batch", change=("dim=1", "dim=0"), hint="""Your cosine runs along the pictures (dim=0)
            and compares dimensions. Each picture's row is compared with its partner's: dim=1."""),
    ),
    hints=(
        "Two sums of the same form: the first view predicts the second, and the second predicts the first.",
        """The side that learns is z @ weight; the side that is predicted is z.detach(), without the predictor.
        functional.cosine_similarity(a, b, dim=1) gives one cosine for each picture.""",
        """one = cosine_similarity(first @ weight, second.detach(), dim=1).mean(); the other direction likewise; -(one +
        other) / 2""",
    ),
)


def cross_correlation(first: Tensor, second: Tensor) -> Tensor:
    """first, second (N, d) -> C (d, d), C[i, j] the correlation of dimension i of one with dimension j of the other."""
    a, b = ((z - z.mean(dim=0)) / z.std(dim=0, correction=0) for z in (first, second))
    return a.T @ b / len(a)


def _clouds(generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    def cloud(n: int, d: int) -> Tensor:  # each dimension with a mean and a scale of its own
        scale, shift = 0.5 + 2 * torch.rand(2, d, generator=generator)
        return torch.randn(n, d, generator=generator) * scale + shift

    return [(cloud(n, d), cloud(n, d)) for n, d in [(6, 3), (9, 4), (5, 5)]]


def _corr_in_loop(first, second):
    d = first.shape[1]
    c = torch.zeros(d, d)
    for i in range(d):
        for j in range(d):
            a, b = first[:, i] - first[:, i].mean(), second[:, j] - second[:, j].mean()
            c[i, j] = (a * b).sum() / (a.square().sum() * b.square().sum()).sqrt()
    return c


def _corr_by_norm(first, second):
    a, b = (functional.normalize(z - z.mean(dim=0), dim=0) for z in (first, second))
    return a.T @ b


def _corr_by_einsum(first, second):
    a, b = ((z - z.mean(dim=0)) / z.var(dim=0, correction=0).sqrt() for z in (first, second))
    return torch.einsum("ni,nj->ij", a, b) / len(first)


correlate_two_views = Check(
    name="10.2 cross-correlation", reference=cross_correlation, cases=_clouds, close=Closeness(rtol=1e-3, atol=1e-4),
    forbidden=(yourself("sslcourse.losses"),), rights=(_corr_in_loop, _corr_by_norm, _corr_by_einsum),
    wrongs=(
        Wrong("not standardized", change=("(z - z.mean(dim=0)) / z.std(dim=0, correction=0)", "z"),
            hint="""You multiply the embeddings as they are. A correlation needs each dimension with mean 0 and standard
            deviation 1 over the batch: subtract and divide first, for each view."""),
        Wrong("centred, not scaled", change=(" / z.std(dim=0, correction=0)", ""),
            hint="""That is a covariance: means are taken off, and the scale is left. Divide each dimension by its
            standard deviation, so that the entries lie in [-1, 1]."""),
        Wrong("scaled, not centred", change=("(z - z.mean(dim=0))", "z"),
            hint="""You divide by the standard deviation and leave the mean in: then even dimensions that have nothing
            to do with each other go together. Subtract the mean over the batch first."""),
        Wrong("standardized per picture", change=(("mean(dim=0", "mean(dim=1, keepdim=True"),
            ("std(dim=0", "std(dim=1, keepdim=True")),
            also=(("(z - z.mean(dim=0)) / z.std(dim=0, correction=0)", "functional.normalize(z, dim=1)"),
            lambda first, second: functional.normalize(first, dim=1).T @ functional.normalize(second, dim=1)),
            hint="""You standardize each picture's row (dim=1). It is each *dimension* that needs mean 0 and standard
            deviation 1, over the pictures of the batch: dim=0."""),
        Wrong("N - 1 in one place, N in the other", change=(", correction=0", ""),
            hint="""Your standard deviation divides by N - 1 and your matrix by N, so even a dimension with itself
            doesn't reach 1. Take the same count in both: correction=0 with len(first)."""),
        Wrong("sum instead of mean", change=(" / len(a)", ""),
            hint="You add over the pictures and don't divide: the entries grow with the batch. Divide by N."),
        Wrong("divided by the dimensions", change=("len(a)", "a.shape[1]"),
            hint="You divide by the number of dimensions; the sum runs over the pictures, so divide by N."),
        Wrong("pictures against pictures", change=("a.T @ b", "a @ b.T"),
            also=(("a.T @ b / len(a)", "a @ b.T / a.shape[1]"),), hint="""You get (N, N): pictures against pictures, as
            contrastive methods have it. Barlow Twins compares *dimensions*: a.T @ b is (d, d)."""),
        Wrong("rows and columns swapped", change=("a.T @ b", "b.T @ a"),
            hint="Your matrix is transposed: row i belongs to dimension i of the *first* view, a.T @ b."),
        Wrong("one view with itself", change=("(first, second))", "(first, first))"),
            hint="""You correlate the first view with itself: its diagonal is 1 whatever the network does. The second
            view belongs on the other side."""),
    ),
    hints=(
        "Standardize first. For the mean of *one dimension over the pictures*, along which axis do you go?",
        """Mean and standard deviation along dim=0, for each view by itself, with correction=0. Then each entry is a
        mean, over the pictures, of a product.""",
        "a = (first - first.mean(dim=0)) / first.std(dim=0, correction=0); b likewise; a.T @ b / len(a)",
    ),
)


def barlow(c: Tensor, redundancy: float) -> Tensor:
    """C (d, d) and the weight of what is beside the diagonal -> the loss, a scalar."""
    return (1 - c.diagonal()).square().sum() + redundancy * (c - c.diag().diag()).square().sum()


def _barlow_in_loop(c, redundancy):
    total = torch.zeros(())
    for i in range(len(c)):
        for j in range(len(c)):
            total = total + ((1 - c[i, j]) ** 2 if i == j else redundancy * c[i, j] ** 2)
    return total


def _barlow_by_weights(c, redundancy):
    identity = torch.eye(len(c))
    return ((c - identity).square() * (identity + redundancy * (1 - identity))).sum()


def _barlow_by_difference(c, redundancy):
    diagonal = c.diagonal()
    return (1 - diagonal).square().sum() + redundancy * (c.square().sum() - diagonal.square().sum())


barlow_from_c = Check(
    name="10.3 Barlow Twins' loss", reference=barlow,
    cases=lambda g: [(2 * torch.rand(d, d, generator=g) - 1, r) for d, r in [(3, 0.1), (5, 0.02), (4, 0.5)]],
    forbidden=(yourself("sslcourse.losses"),), rights=(_barlow_in_loop, _barlow_by_weights, _barlow_by_difference),
    wrongs=(
        Wrong("diagonal counted with the rest", change=("- c.diag().diag()", ""),
            hint="""Your second sum holds the diagonal as well, so the loss pulls it towards 1 and towards 0 at once.
            What is beside the diagonal has i different from j."""),
        Wrong("distance of the diagonal twice", change=("c.diag().diag()", "torch.eye(len(c))"),
            hint="""Your second sum holds the diagonal's distance from 1 again, since C minus the identity keeps it.
            Beside the diagonal is C minus its own diagonal, c.diag().diag()."""),
        Wrong("no weight", change=("redundancy * ", ""), hint="""`redundancy` is missing: with d * (d - 1) entries
            beside the diagonal and d on it, the first would drown the second."""),
        Wrong("everything weighted", lambda c, redundancy: redundancy * (c - torch.eye(len(c))).square().sum(),
            """You weigh the diagonal by `redundancy` as well; then it changes nothing but the scale. It belongs before
            the second sum alone."""),
        Wrong("weight on the diagonal", change=(("redundancy * ", ""), ("(1 -", "redundancy * (1 -")),
            hint="`redundancy` weighs the wrong sum: it belongs to what is beside the diagonal."),
        Wrong("diagonal to zero", change=("1 - c.diagonal()", "c.diagonal()"),
            hint="You push the diagonal to 0: the views would have to disagree. On the diagonal the goal is 1."),
        Wrong("not squared", change=(".square()", ""), also=((".square()", ".abs()"),),
            hint="The squares are missing: a negative correlation would then lower the loss. Square before you add."),
        Wrong("half of the matrix", change=("- c.diag().diag()", ".triu(1)"),
            hint="""You count one half beside the diagonal alone. C isn't symmetric: C[i, j] and C[j, i] compare
            different pairs of dimensions, and both count."""),
        Wrong("means", change=(("diagonal()).square().sum", "diagonal()).square().mean"),
            ("(c - c.diag().diag()).square().sum", "losses.off_diagonal(c).square().mean")), hint="""You take means; the
            formula has sums. With means, `redundancy` would weigh something else for every d."""),
        Wrong("diagonal alone", change=(" + redundancy * (c - c.diag().diag()).square().sum()", ""),
            hint="The second sum is missing: without it all dimensions may say the same thing."),
    ),
    hints=(
        "Two sums. What should stand on the diagonal of C, and what beside it?",
        "c.diagonal() gives the diagonal; c - c.diag().diag() is C with zeros there.",
        "(1 - c.diagonal()).square().sum() + redundancy * (c - c.diag().diag()).square().sum()",
    ),
)


def variance_hinge(z: Tensor, epsilon: float) -> Tensor:
    """z (N, d) -> the mean over dimensions of max(0, 1 - sqrt(var + epsilon)), a scalar; var with N - 1."""
    return (1 - (z.var(dim=0) + epsilon).sqrt()).clamp(min=0).mean()


def _hinge_clouds(generator: torch.Generator) -> Iterator[tuple[Tensor, float]]:
    for n, d, epsilon in [(6, 5, 0.04), (9, 6, 0.01), (5, 7, 0.02)]:
        scale = torch.linspace(0.1, 1.9, d)  # some dimensions below the goal, some above
        yield torch.randn(n, d, generator=generator) * scale + 3 * torch.rand(d, generator=generator), epsilon
    yield torch.full((4, 3), 2.0), 0.01  # collapsed


def _hinge_in_loop(z, epsilon):
    total = torch.zeros(())
    for column in z.T:
        variance = (column - column.mean()).square().sum() / (len(column) - 1)
        total = total + max(torch.zeros(()), 1 - (variance + epsilon).sqrt())
    return total / z.shape[1]


def _hinge_by_relu(z, epsilon):
    centred = z - z.mean(dim=0)
    return functional.relu(1 - (centred.square().sum(dim=0) / (len(z) - 1) + epsilon).sqrt()).mean()


the_variance_hinge = Check(
    name="10.4 the variance hinge", reference=variance_hinge, cases=_hinge_clouds, run=value_and_gradients,
    rights=(_hinge_in_loop, _hinge_by_relu),
    wrongs=(
        Wrong("variance instead of deviation", change=(".sqrt()", ""),
            also=(("(z.var(dim=0) + epsilon).sqrt()", "z.var(dim=0)"),),
            hint="""Your hinge is on the variance. Take the square root first: the gradient of a variance goes to zero
            where all embeddings are alike, and with it the help against collapse."""),
        Wrong("epsilon missing", change=("(z.var(dim=0) + epsilon).sqrt()", "z.std(dim=0)"),
            hint="""The square root has no epsilon: where all embeddings are the same, its slope is infinite and the
            gradient isn't a number. Add epsilon to the variance, under the root."""),
        Wrong("epsilon outside the root", change=("(z.var(dim=0) + epsilon).sqrt()", "(z.std(dim=0) + epsilon)"),
            hint="""You add epsilon to the standard deviation; it belongs under the root, where it keeps the slope
            finite."""),
        Wrong("averaged over the wrong axis", change=("dim=0", "dim=1"),
            hint="""You take the variance within each picture's row (dim=1). All pictures could then have the same row.
            It is each dimension that has to vary over the pictures: dim=0."""),
        Wrong("divided by N", change=("dim=0", "dim=0, correction=0"),
            hint="Your variance divides by N; N - 1 is asked for, as torch.var does by itself."),
        Wrong("no hinge", change=(".clamp(min=0)", ""), hint="""The hinge is missing: a dimension that varies more than
            1 gets a reward, and the embeddings grow without end. Nothing below 0 counts: clamp(min=0)."""),
        Wrong("hinge after the mean", change=("clamp(min=0).mean()", "mean().clamp(min=0)"), hint="""You clamp the mean.
            Then one wide dimension makes up for several dead ones. Clamp each dimension, and average after."""),
        Wrong("distance from 1", change=("clamp(min=0)", "abs()"),
            hint="You punish dimensions that vary more than 1 as well. A hinge has one side: max(0, 1 - deviation)."),
        Wrong("the wrong side", change=("1 - (z.var(dim=0) + epsilon).sqrt()", "(z.var(dim=0) + epsilon).sqrt() - 1"),
            hint="""Your hinge punishes deviations *above* 1, and a collapse costs nothing. It is 1 minus the
            deviation."""),
        Wrong("sum instead of mean", change=(".mean", ".sum"),
            hint="You add over the dimensions; their mean is asked for."),
    ),
    hints=(
        "One number for each dimension first: how much does it vary over the pictures?",
        "z.var(dim=0) has shape (d,). Epsilon under the root; then 1 minus that; nothing below 0; the mean at the end.",
        "(1 - (z.var(dim=0) + epsilon).sqrt()).clamp(min=0).mean()",
    ),
)


def covariance_penalty(z: Tensor) -> Tensor:
    """z (N, d) -> the sum of the squared covariances of different dimensions, divided by d: a scalar."""
    centred = z - z.mean(dim=0)
    covariance = centred.T @ centred / (len(z) - 1)
    return (covariance - covariance.diag().diag()).square().sum() / z.shape[1]


def _cov_in_loop(z):
    n, d = z.shape
    total = torch.zeros(())
    for i in range(d):
        for j in range(d):
            if i != j:
                product = (z[:, i] - z[:, i].mean()) * (z[:, j] - z[:, j].mean())
                total = total + (product.sum() / (n - 1)) ** 2
    return total / d


def _cov_by_torch(z):
    covariance = torch.cov(z.T)
    return (covariance.square().sum() - covariance.diagonal().square().sum()) / len(covariance)


def _cov_by_mask(z):
    centred, d = z - z.mean(dim=0), z.shape[1]
    covariance = centred.T @ centred / (len(z) - 1)
    return covariance.square()[~torch.eye(d, dtype=torch.bool)].sum() / d


the_covariance_penalty = Check(
    name="10.5 covariances of different dimensions", reference=covariance_penalty,
    cases=lambda g: [(pair[0],) for pair in _clouds(g)], forbidden=(yourself("sslcourse.losses"),),
    rights=(_cov_in_loop, _cov_by_torch, _cov_by_mask),
    wrongs=(
        Wrong("divided by N", change=("len(z) - 1", "len(z)"),
            hint="You divide by N; the unbiased covariance, which the formula has, divides by N - 1."),
        Wrong("diagonal left in", change=("(covariance - covariance.diag().diag())", "covariance"),
            hint="""The diagonal is still in it. There stand the variances, so your penalty pushes them to 0, towards
            the collapse that the variance term has to prevent. Only i different from j counts."""),
        Wrong("not centred", change=(" - z.mean(dim=0)", ""), hint="""You don't subtract the means: two dimensions that
            never vary would have a covariance. Centre over the batch, dim=0."""),
        Wrong("centred per picture", change=("mean(dim=0)", "mean(dim=1, keepdim=True)"), hint="""You subtract each
            picture's own mean (dim=1). It is the mean of each *dimension* over the pictures: dim=0."""),
        Wrong("correlations", change=("z - z.mean(dim=0)", "(z - z.mean(dim=0)) / z.std(dim=0)"),
            hint="""You divide by the standard deviations: those are correlations, as in Barlow Twins. VICReg leaves the
            scale to its variance term, and takes covariances."""),
        Wrong("not squared", change=(".square()", ""), also=((".square()", ".abs()"),),
            hint="The squares are missing: a negative covariance would then be a reward. Square each, then add."),
        Wrong("not divided by d", change=(" / z.shape[1]", ""), hint="""The division by d is missing: without it the
            penalty grows faster with the dimensions than the other terms do."""),
        Wrong("mean over the pairs", change=("(covariance - covariance.diag().diag()).square().sum() / z.shape[1]",
            "losses.off_diagonal(covariance).square().mean()"),
            hint="You take the mean over all d * (d - 1) pairs; the formula divides their sum by d."),
        Wrong("half of the matrix", change=("(covariance - covariance.diag().diag())", "covariance.triu(1)"),
            hint="You count each pair of dimensions once; the sum runs over i and j, so each counts twice."),
        Wrong("pictures against pictures", change=("centred.T @ centred", "centred @ centred.T"), hint="""Your matrix is
            (N, N): pictures against pictures. Covariances of dimensions are (d, d): centred.T @ centred."""),
    ),
    hints=(
        "Three steps: take off the means, multiply dimensions with dimensions, leave out the diagonal.",
        "centred.T @ centred / (N - 1) is (d, d). covariance.diag().diag() holds its diagonal and zeros elsewhere.",
        "c = centred.T @ centred / (len(z) - 1); (c - c.diag().diag()).square().sum() / z.shape[1]",
    ),
)


def sinkhorn(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    """scores (N, P) -> assignments (N, P), rows summing to 1, every prototype used about equally."""
    plan = (scores / epsilon).exp()
    for _ in range(iterations):
        plan = plan / plan.sum(dim=0, keepdim=True)
        plan = plan / plan.sum(dim=1, keepdim=True)
    return plan


def _scores(generator: torch.Generator) -> Iterator[tuple[Tensor, float, int]]:
    for n, p, epsilon, iterations in [(6, 3, 0.3, 3), (8, 4, 0.5, 2), (5, 5, 0.4, 1), (7, 3, 0.25, 4)]:
        favourite = torch.linspace(0.5, -0.5, p)  # one prototype is everybody's favourite
        scores = (torch.rand(n, p, generator=generator) - 0.5 + favourite).clamp(-1, 1)
        yield scores, epsilon, iterations


def _sink_logarithms(scores, epsilon, iterations):
    plan = scores / epsilon
    for _ in range(iterations):
        plan = plan - plan.logsumexp(dim=0, keepdim=True)
        plan = plan - plan.logsumexp(dim=1, keepdim=True)
    return plan.exp()


def _sink_as_published(scores, epsilon, iterations):
    plan = (scores / epsilon).exp().T  # (P, N)
    plan = plan / plan.sum()
    for _ in range(iterations):
        plan = plan / plan.sum(dim=1, keepdim=True) / len(plan)
        plan = plan / plan.sum(dim=0, keepdim=True) / plan.shape[1]
    return (plan * plan.shape[1]).T


def _sink_in_loop(scores, epsilon, iterations):
    plan = ((scores - scores.max()) / epsilon).exp()
    for _ in range(iterations):
        for j in range(plan.shape[1]):
            plan[:, j] = plan[:, j] / plan[:, j].sum()
        for i in range(len(plan)):
            plan[i] = plan[i] / plan[i].sum()
    return plan


assign_with_sinkhorn = Check(
    name="10.6 Sinkhorn", reference=sinkhorn, cases=_scores, forbidden=(yourself("sslcourse.losses"),),
    rights=(_sink_logarithms, _sink_as_published, _sink_in_loop),
    wrongs=(
        Wrong("rows before columns", change=(("dim=0", "dim=-1"), ("dim=1", "dim=0")),
            hint="""The order is the wrong one: you end with the columns, so the rows of your result don't sum to 1, and
            a view's assignment is no distribution. In each iteration, columns first and rows after."""),
        Wrong("rows alone", change=("dim=0", "dim=1"),
            hint="""You scale the rows alone: that is a softmax. Nothing keeps the favourite prototype from taking
            everything. Scale the columns (dim=0) as well, before the rows."""),
        Wrong("columns alone", change=("dim=1", "dim=0"),
            hint="""You scale the columns alone: every prototype is used equally, and a view's assignment is no
            distribution. Scale the rows (dim=1) after them, in every iteration."""),
        Wrong("epsilon forgotten", change=(" / epsilon", ""), hint="""Epsilon is missing from the exponent: exp(scores /
            epsilon). Cosines without it lie so near each other that all assignments come out nearly uniform."""),
        Wrong("multiplied by epsilon", change=(" / epsilon", " * epsilon"),
            hint="You multiply by epsilon; it divides, as a temperature does: the smaller, the sharper."),
        Wrong("exponential forgotten", change=(".exp()", ""), hint="""The exponential is missing: scores can be
            negative, and shares can't. Begin with exp(scores / epsilon)."""),
        Wrong("sign of the exponent", change=("scores /", "-scores /"),
            hint="""There is a minus in your exponent: with it, views go to the prototypes that they are *least* like.
            It belongs there for costs; these are scores."""),
        Wrong("one pass", change=("range(iterations)", "range(1)"), also=(("    plan = plan / plan.sum(dim=1",
            "for _ in range(iterations): plan = plan / plan.sum(dim=1"),),
            hint="""You come to what one scaling of the columns and one of the rows give, whatever `iterations` says.
            Scaling the rows disturbs the columns, so they have to take turns: repeat the pair."""),
        Wrong("one iteration too many", change=("range(iterations)", "range(iterations + 1)"),
            hint="You do one pair of scalings too many: after exp come exactly `iterations` of them."),
        Wrong("the whole sums to 1", change=("return plan", "return plan / plan.sum()"),
            hint="Your whole table sums to 1; each row has to, since each view's assignment is a distribution."),
        Wrong("hard assignments",
            change=("return plan", "return functional.one_hot(plan.argmax(dim=1), plan.shape[1]).float()"),
            hint="""You round to one prototype for each view. SwAV keeps the shares: its authors found the soft ones
            better here."""),
    ),
    hints=(
        "Two wishes: each column has the same sum, and each row sums to 1. Satisfy one, then the other, and again.",
        """Begin with exp(scores / epsilon). Dividing by plan.sum(dim=0, keepdim=True) makes the columns equal; with
        dim=1, the rows.""",
        """plan = (scores / epsilon).exp(); in a loop: plan = plan / plan.sum(dim=0, keepdim=True), then the same with
        dim=1""",
    ),
)
