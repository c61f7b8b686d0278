"""Checks of the exercises of lesson 10: the stopped gradient, cross-correlation, variance, covariance, and Sinkhorn."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from sslcourse import losses
from sslcourse.checks.framework import Check, Wrong, value_and_gradients

# --- 10.1 predict the other view, and stop the gradient ----------------------------------------------------------


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


def _agree_by(predicted, target, pairs=((0, 1), (1, 0)), factor=0.5):
    def answer(first, second, weight):
        views = first, second
        return factor * sum(
            losses.negative_cosine(predicted(views[a], weight), target(views[b], weight)) for a, b in pairs
        )

    return answer


def _predict(z, weight):
    return z @ weight


def _stopped(z, weight):
    return z.detach()


_agree_no_stop = _agree_by(_predict, lambda z, w: z)
_agree_wrong_side = _agree_by(lambda z, w: (z @ w).detach(), lambda z, w: z)
_agree_stop_before = _agree_by(lambda z, w: z.detach() @ w, _stopped)
_agree_both_predicted = _agree_by(_predict, lambda z, w: (z @ w).detach())
_agree_both_predicted_no_stop = _agree_by(_predict, _predict)
_agree_no_predictor = _agree_by(lambda z, w: z, _stopped)
_agree_same_view = _agree_by(_predict, _stopped, pairs=((0, 0), (1, 1)))
_agree_one_direction = _agree_by(_predict, _stopped, pairs=((0, 1),), factor=1.0)
_agree_other_direction = _agree_by(_predict, _stopped, pairs=((1, 0),), factor=1.0)
_agree_sum = _agree_by(_predict, _stopped, factor=1.0)
_agree_sign = _agree_by(_predict, _stopped, factor=-0.5)


def _agree_dots(first, second, weight):
    pairs = (first, second), (second, first)
    return -sum(((a @ weight) * b.detach()).sum(dim=1).mean() for a, b in pairs) / 2


def _agree_along_batch(first, second, weight):
    pairs = (first, second), (second, first)
    return -sum(functional.cosine_similarity(a @ weight, b.detach(), dim=0).mean() for a, b in pairs) / 2


stop_the_gradient = Check(
    name="10.1 predict the other view, and stop the gradient",
    reference=agreement,
    cases=_projections,
    run=value_and_gradients,
    rights=(_agree_together, _agree_in_loop, _agree_normalized),
    wrongs=(
        Wrong(
            "stop-gradient forgotten",
            _agree_no_stop,
            "The value is right, and the gradient flows into the target as well: then both sides move towards each other, and "
            "the quickest way to agree is to be the same for all pictures. The target is data: .detach() it.",
        ),
        Wrong(
            "gradient stopped on the wrong side",
            _agree_wrong_side,
            "You stop the gradient of the prediction and let the target learn. It is the other way round: the target, which "
            "has not gone through the predictor, is detached.",
        ),
        Wrong(
            "stopped before the predictor",
            _agree_stop_before,
            "Only your predictor gets a gradient, because the projection is detached before it goes in. Detach a projection "
            "where it is the target, and leave it whole where it is predicted from.",
        ),
        Wrong(
            "predictor on both sides",
            _agree_both_predicted,
            "The target has gone through the predictor, too. Then nothing is left to be predicted, and the two sides are alike "
            "again. The target is the projection itself.",
            also=(_agree_both_predicted_no_stop,),
        ),
        Wrong(
            "predictor forgotten",
            _agree_no_predictor,
            "You compare the projections themselves: the predictor, z @ weight, is missing on the side that learns.",
        ),
        Wrong(
            "each view with itself",
            _agree_same_view,
            "Each view predicts its own projection. It has to predict the *other* view's; otherwise the views ask nothing.",
        ),
        Wrong(
            "one direction alone",
            _agree_one_direction,
            "One view predicts the other, and not the other way round. Both directions count: take the mean of both.",
            also=(_agree_other_direction,),
        ),
        Wrong(
            "sum of the directions",
            _agree_sum,
            "You add up the two directions; their mean is asked for, so that -1 is the best possible value.",
        ),
        Wrong(
            "sign",
            _agree_sign,
            "Your value rises when the views agree. A loss has to fall: the *negative* cosine.",
        ),
        Wrong(
            "scalar products",
            _agree_dots,
            "You take scalar products without dividing by the lengths: longer vectors alone would make the loss fall. Take the "
            "cosine.",
        ),
        Wrong(
            "cosine along the batch",
            _agree_along_batch,
            "Your cosine runs along the pictures (dim=0) and compares dimensions. Each picture's row is compared with its "
            "partner's: dim=1.",
        ),
    ),
    hints=(
        "Two sums of the same form: the first view predicts the second, and the second predicts the first.",
        "The side that learns is z @ weight; the side that is predicted is z.detach(), without the predictor. "
        "functional.cosine_similarity(a, b, dim=1) gives one cosine for each picture.",
        "one = cosine_similarity(first @ weight, second.detach(), dim=1).mean(); the other direction likewise; -(one + other) / 2",
    ),
)


# --- 10.2 cross-correlation --------------------------------------------------------------------------------------


def cross_correlation(first: Tensor, second: Tensor) -> Tensor:
    """first and second (N, d) -> C (d, d), C[i, j] the correlation of dimension i of one with dimension j of the other."""
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


def _corr_by(standard, finish=lambda a, b: a.T @ b / len(a)):
    return lambda first, second: finish(standard(first), standard(second))


def _z_score(z):
    return (z - z.mean(dim=0)) / z.std(dim=0, correction=0)


_corr_plain = _corr_by(lambda z: z)
_corr_centred = _corr_by(lambda z: z - z.mean(dim=0))
_corr_scaled = _corr_by(lambda z: z / z.std(dim=0, correction=0))
_corr_per_sample = _corr_by(lambda z: (z - z.mean(dim=1, keepdim=True)) / z.std(dim=1, correction=0, keepdim=True))
_corr_unit_rows = _corr_by(lambda z: functional.normalize(z, dim=1))
_corr_unit_rows_sum = _corr_by(lambda z: functional.normalize(z, dim=1), lambda a, b: a.T @ b)
_corr_other_count = _corr_by(lambda z: (z - z.mean(dim=0)) / z.std(dim=0))
_corr_sum = _corr_by(_z_score, lambda a, b: a.T @ b)
_corr_by_dims = _corr_by(_z_score, lambda a, b: a.T @ b / a.shape[1])
_corr_samples = _corr_by(_z_score, lambda a, b: a @ b.T / len(a))
_corr_samples_dims = _corr_by(_z_score, lambda a, b: a @ b.T / a.shape[1])
_corr_swapped = _corr_by(_z_score, lambda a, b: b.T @ a / len(a))
_corr_self = lambda first, second: cross_correlation(first, first)  # noqa: E731


correlate_two_views = Check(
    name="10.2 cross-correlation",
    reference=cross_correlation,
    cases=_clouds,
    rights=(_corr_in_loop, _corr_by_norm, _corr_by_einsum),
    wrongs=(
        Wrong(
            "not standardized",
            _corr_plain,
            "You multiply the embeddings as they are. A correlation needs each dimension with mean 0 and standard deviation 1 "
            "over the batch: subtract and divide first, for each view.",
        ),
        Wrong(
            "centred, not scaled",
            _corr_centred,
            "That is a covariance: means are taken off, and the scale is left. Divide each dimension by its standard deviation, "
            "so that the entries lie in [-1, 1].",
        ),
        Wrong(
            "scaled, not centred",
            _corr_scaled,
            "You divide by the standard deviation and leave the mean in: then even dimensions that have nothing to do with each "
            "other go together. Subtract the mean over the batch first.",
        ),
        Wrong(
            "standardized per picture",
            _corr_per_sample,
            "You standardize each picture's row (dim=1). It is each *dimension* that needs mean 0 and standard deviation 1, "
            "over the pictures of the batch: dim=0.",
            also=(_corr_unit_rows, _corr_unit_rows_sum),
        ),
        Wrong(
            "N - 1 in one place, N in the other",
            _corr_other_count,
            "Your standard deviation divides by N - 1 and your matrix by N, so even a dimension with itself doesn't reach 1. "
            "Take the same count in both: correction=0 with len(first).",
        ),
        Wrong(
            "sum instead of mean",
            _corr_sum,
            "You add over the pictures and don't divide: the entries grow with the batch. Divide by N.",
        ),
        Wrong(
            "divided by the dimensions",
            _corr_by_dims,
            "You divide by the number of dimensions; the sum runs over the pictures, so divide by N.",
        ),
        Wrong(
            "pictures against pictures",
            _corr_samples,
            "You get (N, N): pictures against pictures, as contrastive methods have it. Barlow Twins compares *dimensions*: "
            "a.T @ b is (d, d).",
            also=(_corr_samples_dims,),
        ),
        Wrong(
            "rows and columns swapped",
            _corr_swapped,
            "Your matrix is transposed: row i belongs to dimension i of the *first* view, a.T @ b.",
        ),
        Wrong(
            "one view with itself",
            _corr_self,
            "You correlate the first view with itself: its diagonal is 1 whatever the network does. The second view belongs on "
            "the other side.",
        ),
    ),
    hints=(
        "Standardize first. For the mean of *one dimension over the pictures*, along which axis do you go?",
        "Mean and standard deviation along dim=0, for each view by itself, with correction=0. Then each entry is a mean, over "
        "the pictures, of a product.",
        "a = (first - first.mean(dim=0)) / first.std(dim=0, correction=0); b likewise; a.T @ b / len(a)",
    ),
)


# --- 10.3 Barlow Twins' loss -------------------------------------------------------------------------------------


def barlow(c: Tensor, redundancy: float) -> Tensor:
    """C (d, d) and the weight of what is beside the diagonal -> the loss, a scalar."""
    return (1 - c.diagonal()).square().sum() + redundancy * (c - c.diag().diag()).square().sum()


def _matrices(generator: torch.Generator) -> list[tuple[Tensor, float]]:
    return [(2 * torch.rand(d, d, generator=generator) - 1, r) for d, r in [(3, 0.1), (5, 0.02), (4, 0.5)]]


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


def _barlow_diagonal_twice(c, redundancy):
    return (1 - c.diagonal()).square().sum() + redundancy * c.square().sum()


def _barlow_frobenius(c, redundancy):
    return (c - torch.eye(len(c))).square().sum()


def _barlow_all_weighted(c, redundancy):
    return redundancy * (c - torch.eye(len(c))).square().sum()


def _barlow_diagonal_to_zero(c, redundancy):
    return c.diagonal().square().sum() + redundancy * losses.off_diagonal(c).square().sum()


def _barlow_not_squared(c, redundancy):
    return (1 - c.diagonal()).sum() + redundancy * losses.off_diagonal(c).sum()


def _barlow_absolute(c, redundancy):
    return (1 - c.diagonal()).abs().sum() + redundancy * losses.off_diagonal(c).abs().sum()


def _barlow_half(c, redundancy):
    return (1 - c.diagonal()).square().sum() + redundancy * c.triu(1).square().sum()


def _barlow_weight_on_diagonal(c, redundancy):
    return redundancy * (1 - c.diagonal()).square().sum() + losses.off_diagonal(c).square().sum()


def _barlow_mean(c, redundancy):
    return (1 - c.diagonal()).square().mean() + redundancy * losses.off_diagonal(c).square().mean()


def _barlow_diagonal_alone(c, redundancy):
    return (1 - c.diagonal()).square().sum()


barlow_from_c = Check(
    name="10.3 Barlow Twins' loss",
    reference=barlow,
    cases=_matrices,
    rights=(_barlow_in_loop, _barlow_by_weights, _barlow_by_difference),
    wrongs=(
        Wrong(
            "diagonal counted with the rest",
            _barlow_diagonal_twice,
            "Your second sum holds the diagonal as well, so the loss pulls it towards 1 and towards 0 at once. What is beside "
            "the diagonal has i different from j.",
        ),
        Wrong(
            "no weight",
            _barlow_frobenius,
            "`redundancy` is missing: with d * (d - 1) entries beside the diagonal and d on it, the first would drown the second.",
        ),
        Wrong(
            "everything weighted",
            _barlow_all_weighted,
            "You weigh the diagonal by `redundancy` as well; then it changes nothing but the scale. It belongs before the second "
            "sum alone.",
        ),
        Wrong(
            "weight on the diagonal",
            _barlow_weight_on_diagonal,
            "`redundancy` weighs the wrong sum: it belongs to what is beside the diagonal.",
        ),
        Wrong(
            "diagonal to zero",
            _barlow_diagonal_to_zero,
            "You push the diagonal to 0: the views would have to disagree. On the diagonal the goal is 1.",
        ),
        Wrong(
            "not squared",
            _barlow_not_squared,
            "The squares are missing: a negative correlation would then lower the loss. Square before you add.",
            also=(_barlow_absolute,),
        ),
        Wrong(
            "half of the matrix",
            _barlow_half,
            "You count one half beside the diagonal alone. C isn't symmetric: C[i, j] and C[j, i] compare different pairs of "
            "dimensions, and both count.",
        ),
        Wrong(
            "means",
            _barlow_mean,
            "You take means; the formula has sums. With means, `redundancy` would weigh something else for every d.",
        ),
        Wrong(
            "diagonal alone",
            _barlow_diagonal_alone,
            "The second sum is missing: without it all dimensions may say the same thing.",
        ),
    ),
    hints=(
        "Two sums. What should stand on the diagonal of C, and what beside it?",
        "c.diagonal() gives the diagonal; c - c.diag().diag() is C with zeros there.",
        "(1 - c.diagonal()).square().sum() + redundancy * (c - c.diag().diag()).square().sum()",
    ),
)


# --- 10.4 the variance hinge -------------------------------------------------------------------------------------


def variance_hinge(z: Tensor, epsilon: float) -> Tensor:
    """z (N, d) -> the mean over dimensions of max(0, 1 - sqrt(var + epsilon)), a scalar; var with N - 1."""
    return (1 - (z.var(dim=0) + epsilon).sqrt()).clamp(min=0).mean()


def _hinge_clouds(generator: torch.Generator) -> list[tuple[Tensor, float]]:
    cases = []
    for n, d, epsilon in [(6, 5, 0.04), (9, 6, 0.01), (5, 7, 0.02)]:
        scale = torch.linspace(0.1, 1.9, d)  # some dimensions below the goal, some above
        cases.append((torch.randn(n, d, generator=generator) * scale + 3 * torch.rand(d, generator=generator), epsilon))
    return [*cases, (torch.full((4, 3), 2.0), 0.01)]  # collapsed


def _hinge_in_loop(z, epsilon):
    total = torch.zeros(())
    for column in z.T:
        variance = (column - column.mean()).square().sum() / (len(column) - 1)
        total = total + max(torch.zeros(()), 1 - (variance + epsilon).sqrt())
    return total / z.shape[1]


def _hinge_by_relu(z, epsilon):
    centred = z - z.mean(dim=0)
    return functional.relu(1 - (centred.square().sum(dim=0) / (len(z) - 1) + epsilon).sqrt()).mean()


def _hinge_on_variance(z, epsilon):
    return (1 - (z.var(dim=0) + epsilon)).clamp(min=0).mean()


def _hinge_on_plain_variance(z, epsilon):
    return (1 - z.var(dim=0)).clamp(min=0).mean()


def _hinge_no_epsilon(z, epsilon):
    return (1 - z.std(dim=0)).clamp(min=0).mean()


def _hinge_epsilon_outside(z, epsilon):
    return (1 - (z.std(dim=0) + epsilon)).clamp(min=0).mean()


def _hinge_per_sample(z, epsilon):
    return (1 - (z.var(dim=1) + epsilon).sqrt()).clamp(min=0).mean()


def _hinge_other_count(z, epsilon):
    return (1 - (z.var(dim=0, correction=0) + epsilon).sqrt()).clamp(min=0).mean()


def _hinge_no_clamp(z, epsilon):
    return (1 - (z.var(dim=0) + epsilon).sqrt()).mean()


def _hinge_clamped_late(z, epsilon):
    return (1 - (z.var(dim=0) + epsilon).sqrt()).mean().clamp(min=0)


def _hinge_absolute(z, epsilon):
    return (1 - (z.var(dim=0) + epsilon).sqrt()).abs().mean()


def _hinge_wrong_way(z, epsilon):
    return ((z.var(dim=0) + epsilon).sqrt() - 1).clamp(min=0).mean()


def _hinge_sum(z, epsilon):
    return (1 - (z.var(dim=0) + epsilon).sqrt()).clamp(min=0).sum()


the_variance_hinge = Check(
    name="10.4 the variance hinge",
    reference=variance_hinge,
    cases=_hinge_clouds,
    run=value_and_gradients,
    rights=(_hinge_in_loop, _hinge_by_relu),
    wrongs=(
        Wrong(
            "variance instead of deviation",
            _hinge_on_variance,
            "Your hinge is on the variance. Take the square root first: the gradient of a variance goes to zero where all "
            "embeddings are alike, and with it the help against collapse.",
            also=(_hinge_on_plain_variance,),
        ),
        Wrong(
            "epsilon missing",
            _hinge_no_epsilon,
            "The square root has no epsilon: where all embeddings are the same, its slope is infinite and the gradient isn't a "
            "number. Add epsilon to the variance, under the root.",
        ),
        Wrong(
            "epsilon outside the root",
            _hinge_epsilon_outside,
            "You add epsilon to the standard deviation; it belongs under the root, where it keeps the slope finite.",
        ),
        Wrong(
            "averaged over the wrong axis",
            _hinge_per_sample,
            "You take the variance within each picture's row (dim=1). All pictures could then have the same row. It is each "
            "dimension that has to vary over the pictures: dim=0.",
        ),
        Wrong(
            "divided by N",
            _hinge_other_count,
            "Your variance divides by N; N - 1 is asked for, as torch.var does by itself.",
        ),
        Wrong(
            "no hinge",
            _hinge_no_clamp,
            "The hinge is missing: a dimension that varies more than 1 gets a reward, and the embeddings grow without end. "
            "Nothing below 0 counts: clamp(min=0).",
        ),
        Wrong(
            "hinge after the mean",
            _hinge_clamped_late,
            "You clamp the mean. Then one wide dimension makes up for several dead ones. Clamp each dimension, and average after.",
        ),
        Wrong(
            "distance from 1",
            _hinge_absolute,
            "You punish dimensions that vary more than 1 as well. A hinge has one side: max(0, 1 - deviation).",
        ),
        Wrong(
            "the wrong side",
            _hinge_wrong_way,
            "Your hinge punishes deviations *above* 1, and a collapse costs nothing. It is 1 minus the deviation.",
        ),
        Wrong(
            "sum instead of mean",
            _hinge_sum,
            "You add over the dimensions; their mean is asked for.",
        ),
    ),
    hints=(
        "One number for each dimension first: how much does it vary over the pictures?",
        "z.var(dim=0) has shape (d,). Epsilon under the root; then 1 minus that; nothing below 0; the mean at the end.",
        "(1 - (z.var(dim=0) + epsilon).sqrt()).clamp(min=0).mean()",
    ),
)


# --- 10.5 covariances of different dimensions --------------------------------------------------------------------


def covariance_penalty(z: Tensor) -> Tensor:
    """z (N, d) -> the sum of the squared covariances of different dimensions, divided by d: a scalar."""
    centred = z - z.mean(dim=0)
    covariance = centred.T @ centred / (len(z) - 1)
    return (covariance - covariance.diag().diag()).square().sum() / z.shape[1]


def _one_cloud(generator: torch.Generator) -> list[tuple[Tensor]]:
    return [(pair[0],) for pair in _clouds(generator)]


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


def _cov_by(centre=lambda z: z - z.mean(dim=0), count=lambda z: len(z) - 1, finish=None):
    def answer(z):
        centred = centre(z)
        covariance = centred.T @ centred / count(z)
        if finish is not None:
            return finish(covariance)
        return losses.off_diagonal(covariance).square().sum() / len(covariance)

    return answer


_cov_by_n = _cov_by(count=len)
_cov_diagonal_in = _cov_by(finish=lambda c: c.square().sum() / len(c))
_cov_not_centred = _cov_by(centre=lambda z: z)
_cov_centred_rows = _cov_by(centre=lambda z: z - z.mean(dim=1, keepdim=True))
_cov_correlation = _cov_by(centre=lambda z: (z - z.mean(dim=0)) / z.std(dim=0))
_cov_not_squared = _cov_by(finish=lambda c: losses.off_diagonal(c).sum() / len(c))
_cov_absolute = _cov_by(finish=lambda c: losses.off_diagonal(c).abs().sum() / len(c))
_cov_not_divided = _cov_by(finish=lambda c: losses.off_diagonal(c).square().sum())
_cov_mean = _cov_by(finish=lambda c: losses.off_diagonal(c).square().mean())
_cov_half = _cov_by(finish=lambda c: c.triu(1).square().sum() / len(c))


def _cov_pictures(z):
    centred = z - z.mean(dim=0)
    return losses.off_diagonal(centred @ centred.T / (len(z) - 1)).square().sum() / z.shape[1]


the_covariance_penalty = Check(
    name="10.5 covariances of different dimensions",
    reference=covariance_penalty,
    cases=_one_cloud,
    rights=(_cov_in_loop, _cov_by_torch, _cov_by_mask),
    wrongs=(
        Wrong(
            "divided by N",
            _cov_by_n,
            "You divide by N; the unbiased covariance, which the formula has, divides by N - 1.",
        ),
        Wrong(
            "diagonal left in",
            _cov_diagonal_in,
            "The diagonal is still in it. There stand the variances, so your penalty pushes them to 0, towards the collapse that "
            "the variance term has to prevent. Only i different from j counts.",
        ),
        Wrong(
            "not centred",
            _cov_not_centred,
            "You don't subtract the means: two dimensions that never vary would have a covariance. Centre over the batch, dim=0.",
        ),
        Wrong(
            "centred per picture",
            _cov_centred_rows,
            "You subtract each picture's own mean (dim=1). It is the mean of each *dimension* over the pictures: dim=0.",
        ),
        Wrong(
            "correlations",
            _cov_correlation,
            "You divide by the standard deviations: those are correlations, as in Barlow Twins. VICReg leaves the scale to its "
            "variance term, and takes covariances.",
        ),
        Wrong(
            "not squared",
            _cov_not_squared,
            "The squares are missing: a negative covariance would then be a reward. Square each, then add.",
            also=(_cov_absolute,),
        ),
        Wrong(
            "not divided by d",
            _cov_not_divided,
            "The division by d is missing: without it the penalty grows faster with the dimensions than the other terms do.",
        ),
        Wrong(
            "mean over the pairs",
            _cov_mean,
            "You take the mean over all d * (d - 1) pairs; the formula divides their sum by d.",
        ),
        Wrong(
            "half of the matrix",
            _cov_half,
            "You count each pair of dimensions once; the sum runs over i and j, so each counts twice.",
        ),
        Wrong(
            "pictures against pictures",
            _cov_pictures,
            "Your matrix is (N, N): pictures against pictures. Covariances of dimensions are (d, d): centred.T @ centred.",
        ),
    ),
    hints=(
        "Three steps: take off the means, multiply dimensions with dimensions, leave out the diagonal.",
        "centred.T @ centred / (N - 1) is (d, d). covariance.diag().diag() holds its diagonal and zeros elsewhere.",
        "c = centred.T @ centred / (len(z) - 1); (c - c.diag().diag()).square().sum() / z.shape[1]",
    ),
)


# --- 10.6 Sinkhorn -----------------------------------------------------------------------------------------------


def sinkhorn(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    """scores (N, P) -> assignments (N, P), rows summing to 1, every prototype used about equally."""
    plan = (scores / epsilon).exp()
    for _ in range(iterations):
        plan = plan / plan.sum(dim=0, keepdim=True)
        plan = plan / plan.sum(dim=1, keepdim=True)
    return plan


def _scores(generator: torch.Generator) -> list[tuple[Tensor, float, int]]:
    cases = []
    for n, p, epsilon, iterations in [(6, 3, 0.3, 3), (8, 4, 0.5, 2), (5, 5, 0.4, 1), (7, 3, 0.25, 4)]:
        favourite = torch.linspace(0.5, -0.5, p)  # one prototype is everybody's favourite
        scores = (torch.rand(n, p, generator=generator) - 0.5 + favourite).clamp(-1, 1)
        cases.append((scores, epsilon, iterations))
    return cases


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


def _sink_by(start, axes=(0, 1), times=lambda i: i, finish=lambda plan: plan):
    def answer(scores, epsilon, iterations):
        plan = start(scores, epsilon)
        for _ in range(times(iterations)):
            for axis in axes:
                plan = plan / plan.sum(dim=axis, keepdim=True)
        return finish(plan)

    return answer


def _weights(scores, epsilon):
    return (scores / epsilon).exp()


_sink_rows_first = _sink_by(_weights, axes=(1, 0))
_sink_rows_alone = _sink_by(_weights, axes=(1,))
_sink_columns_alone = _sink_by(_weights, axes=(0,))
_sink_no_epsilon = _sink_by(lambda s, e: s.exp())
_sink_times_epsilon = _sink_by(lambda s, e: (s * e).exp())
_sink_no_exponent = _sink_by(lambda s, e: s / e)
_sink_minus = _sink_by(lambda s, e: (-s / e).exp())
_sink_once_more = _sink_by(_weights, times=lambda i: i + 1)
_sink_total = _sink_by(_weights, finish=lambda plan: plan / plan.sum())
_sink_not_repeated = _sink_by(_weights, times=lambda i: 1)


def _sink_separate(scores, epsilon, iterations):
    plan = _weights(scores, epsilon)
    for _ in range(iterations):
        plan = plan / plan.sum(dim=0, keepdim=True)
    for _ in range(iterations):
        plan = plan / plan.sum(dim=1, keepdim=True)
    return plan


def _sink_hard(scores, epsilon, iterations):
    return functional.one_hot(sinkhorn(scores, epsilon, iterations).argmax(dim=1), scores.shape[1]).float()


assign_with_sinkhorn = Check(
    name="10.6 Sinkhorn",
    reference=sinkhorn,
    cases=_scores,
    rights=(_sink_logarithms, _sink_as_published, _sink_in_loop),
    wrongs=(
        Wrong(
            "rows before columns",
            _sink_rows_first,
            "The order is the wrong one: you end with the columns, so the rows of your result don't sum to 1, and a view's "
            "assignment is no distribution. In each iteration, columns first and rows after.",
        ),
        Wrong(
            "rows alone",
            _sink_rows_alone,
            "You scale the rows alone: that is a softmax. Nothing keeps the favourite prototype from "
            "taking everything. Scale the columns (dim=0) as well, before the rows.",
        ),
        Wrong(
            "columns alone",
            _sink_columns_alone,
            "You scale the columns alone: every prototype is used equally, and a view's assignment is no distribution. Scale the "
            "rows (dim=1) after them, in every iteration.",
        ),
        Wrong(
            "epsilon forgotten",
            _sink_no_epsilon,
            "Epsilon is missing from the exponent: exp(scores / epsilon). Cosines without it lie so near each other that all "
            "assignments come out nearly uniform.",
        ),
        Wrong(
            "multiplied by epsilon",
            _sink_times_epsilon,
            "You multiply by epsilon; it divides, as a temperature does: the smaller, the sharper.",
        ),
        Wrong(
            "exponential forgotten",
            _sink_no_exponent,
            "The exponential is missing: scores can be negative, and shares can't. Begin with exp(scores / epsilon).",
        ),
        Wrong(
            "sign of the exponent",
            _sink_minus,
            "There is a minus in your exponent: with it, views go to the prototypes that they are *least* like. It belongs there "
            "for costs; these are scores.",
        ),
        Wrong(
            "one pass",
            _sink_not_repeated,
            "You come to what one scaling of the columns and one of the rows give, whatever `iterations` says. Scaling the rows "
            "disturbs the columns, so they have to take turns: repeat the pair.",
            also=(_sink_separate,),
        ),
        Wrong(
            "one iteration too many",
            _sink_once_more,
            "You do one pair of scalings too many: after exp come exactly `iterations` of them.",
        ),
        Wrong(
            "the whole sums to 1",
            _sink_total,
            "Your whole table sums to 1; each row has to, since each view's assignment is a distribution.",
        ),
        Wrong(
            "hard assignments",
            _sink_hard,
            "You round to one prototype for each view. SwAV keeps the shares: its authors found the soft ones better here.",
        ),
    ),
    hints=(
        "Two wishes: each column has the same sum, and each row sums to 1. Satisfy one, then the other, and again.",
        "Begin with exp(scores / epsilon). Dividing by plan.sum(dim=0, keepdim=True) makes the columns equal; with dim=1, the rows.",
        "plan = (scores / epsilon).exp(); in a loop: plan = plan / plan.sum(dim=0, keepdim=True), then the same with dim=1",
    ),
)
