"""Losses, each written as its formula. Natural logarithms throughout: values are in nats."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean of -log softmax(logits)[label], as log-sum-exp minus the label's logit.

    logits (N, C) float, labels (N,) int64 in [0, C); or (N, C, H, W) and (N, H, W), a label for each pixel. Returns a
    scalar, at least 0; log(C) for equal logits. Equal to torch.nn.functional.cross_entropy, whose sum over pixels has
    another order each time on a GPU.
    """
    chosen = logits.gather(1, labels[:, None]).squeeze(1)  # (N,)
    return (torch.logsumexp(logits, dim=1) - chosen).mean()


def soft_cross_entropy(logits: Tensor, index: Tensor, share: Tensor, weight: Tensor) -> Tensor:
    """Mean of -weight * sum_k share_k log softmax(logits)[index_k]: labels that are spread over a few classes.

    logits (M, C); index (M, K) int64, the classes that have a share; share (M, K), rows summing to 1; weight (M,).
    """
    expected = (share * logits.gather(1, index)).sum(dim=1)  # (M,)
    return (weight * (torch.logsumexp(logits, dim=1) - expected)).mean()


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """The share of rows of logits (N, C) whose largest entry is at the label (N,); a scalar in [0, 1]."""
    return (logits.argmax(dim=1) == labels).float().mean()


# --- comparing views ---------------------------------------------------------------------------------------------


def without_autocast(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The loss in the precision of what it is given: of a cosine, over a temperature of 0.1, sixteen bits leave two digits."""

    @functools.wraps(loss)
    def computed(*given: Tensor | float, **named: Tensor | float) -> Tensor:
        first = next(iter((*given, *named.values())))
        with torch.autocast(first.device.type, enabled=False):
            return loss(*given, **named)

    return computed


@without_autocast
def nt_xent(first: Tensor, second: Tensor, temperature: float = 0.5) -> Tensor:
    """SimCLR's loss: each of the 2N views must find its partner among the 2N - 1 others (Chen et al., 2020, 2002.05709).

    first and second are embeddings (N, d) of two views of the same N images, of any length. Mean over all 2N views of
    -log(exp(s_partner / T) / sum_other exp(s_other / T)), s being the cosine. log(2N - 1) when all are alike.
    """
    z = functional.normalize(torch.cat([first, second]), dim=1)  # (2N, d)
    similarity = z @ z.T / temperature  # (2N, 2N)
    similarity = similarity.masked_fill(torch.eye(len(z), dtype=torch.bool, device=z.device), -math.inf)
    partner = torch.arange(len(z), device=z.device).roll(len(first))  # (2N,): N, ..., 2N - 1, 0, ..., N - 1
    return cross_entropy(similarity, partner)


@without_autocast
def info_nce(queries: Tensor, keys: Tensor, queue: Tensor, temperature: float = 0.2) -> Tensor:
    """MoCo's loss: find the key of the same image among itself and the queue (He et al., 2019, 1911.05722).

    queries (N, d), keys (N, d) of other views of the same images, queue (K, d) of other images' keys, of any length.
    Mean of -log(exp(q.k / T) / (exp(q.k / T) + sum_j exp(q.queue_j / T))). The keys get no gradient.
    """
    q, k, others = (functional.normalize(x, dim=1) for x in (queries, keys.detach(), queue.detach()))
    positive = (q * k).sum(dim=1, keepdim=True)  # (N, 1)
    logits = torch.cat([positive, q @ others.T], dim=1) / temperature  # (N, 1 + K)
    return cross_entropy(logits, torch.zeros(len(q), dtype=torch.long, device=q.device))


@without_autocast
def clip(images: Tensor, texts: Tensor, scale: Tensor | float, wrong: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """CLIP's loss: each image must find its text among the batch's, and each text its image (Radford et al., 2021, 2103.00020).

    images and texts are embeddings (N, d), row i of both of one pair, of any length; scale multiplies the cosines. The mean of
    both cross-entropies: log(N) when all are alike. wrong: embeddings (M, d) of texts that fit no image of the batch, and
    which of them count, bool (M,); images have to tell their text from these as well (Yuksekgonul et al., 2022, 2210.01936).
    """
    i, t = functional.normalize(images, dim=1), functional.normalize(texts, dim=1)
    to_texts = to_images = scale * i @ t.T  # (N, N)
    if wrong is not None:
        more = scale * i @ functional.normalize(wrong[0], dim=1).T  # (N, M)
        to_texts = torch.cat([to_texts, more.masked_fill(~wrong[1], -math.inf)], dim=1)  # (N, N + M)
    own = torch.arange(len(i), device=i.device)
    return (cross_entropy(to_texts, own) + cross_entropy(to_images.T, own)) / 2


@without_autocast
def siglip(
    images: Tensor,
    texts: Tensor,
    scale: Tensor | float,
    bias: Tensor | float,
    wrong: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """SigLIP's loss: of every pair, do the two belong together? (Zhai et al., 2023, 2303.15343)

    -1/N sum_ij log sigmoid(y_ij (scale cos_ij + bias)), y_ij being 1 for i = j and -1 elsewhere: each pair by itself, none
    of them normalized by the others. images, texts and wrong are as `clip`'s; texts in `wrong` belong to no image.
    """
    i, t = functional.normalize(images, dim=1), functional.normalize(texts, dim=1)
    belongs = 2 * torch.eye(len(i), device=i.device) - 1  # (N, N), 1 and -1
    total = functional.logsigmoid(belongs * (scale * i @ t.T + bias)).sum()
    if wrong is not None:
        more = scale * i @ functional.normalize(wrong[0], dim=1).T + bias  # (N, M)
        total = total + (functional.logsigmoid(-more) * wrong[1]).sum()
    return -total / len(i)


def negative_cosine(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean of -cos(predicted, target) over rows of (N, d): -1 at best. Stopping the target's gradient is the caller's."""
    return -functional.cosine_similarity(predicted, target, dim=1).mean()


@without_autocast
def cross_correlation(first: Tensor, second: Tensor, epsilon: float = 1e-5) -> Tensor:
    """C (d, d): how dimension i of the first view goes with dimension j of the second, over the batch; in [-1, 1]."""
    a, b = (
        (z - z.mean(dim=0)) / (z.var(dim=0, correction=0) + epsilon).sqrt() for z in (first, second)
    )  # (N, d) each: as batch norm without scale and shift
    return a.T @ b / len(a)


def barlow_twins(first: Tensor, second: Tensor, redundancy: float = 5e-3) -> Tensor:
    """Bring C to the identity: sum_i (1 - C_ii)^2 + redundancy * sum_{i != j} C_ij^2 (Zbontar et al., 2021, 2103.03230)."""
    c = cross_correlation(first, second)  # (d, d)
    return (1 - c.diagonal()).square().sum() + redundancy * off_diagonal(c).square().sum()


def off_diagonal(matrix: Tensor) -> Tensor:
    """What a square matrix (d, d) has beside its diagonal, as (d * (d - 1),)."""
    return matrix.flatten()[:-1].view(len(matrix) - 1, len(matrix) + 1)[:, 1:].flatten()


def variance_hinge(z: Tensor, target: float = 1.0, epsilon: float = 1e-4) -> Tensor:
    """Mean over dimensions of max(0, target - sqrt(var + epsilon)), for z (N, d): 1 - sqrt(epsilon) for a constant z."""
    return (target - (z.var(dim=0) + epsilon).sqrt()).clamp(min=0).mean()


@without_autocast
def covariance_penalty(z: Tensor) -> Tensor:
    """Sum of the squared covariances of different dimensions of z (N, d), divided by d."""
    centred = z - z.mean(dim=0)
    covariance = centred.T @ centred / (len(z) - 1)  # (d, d)
    return off_diagonal(covariance).square().sum() / z.shape[1]


def vicreg(
    first: Tensor, second: Tensor, invariance: float = 25.0, variance: float = 25.0, covariance: float = 1.0
) -> Tensor:
    """Variance, invariance, covariance (Bardes, Ponce and LeCun, 2021, 2105.04906); first and second are (N, d).

    invariance * mean squared difference + variance * mean of both variance hinges + covariance * sum of both penalties.
    """
    return (
        invariance * (first - second).square().mean()
        + variance * (variance_hinge(first) + variance_hinge(second)) / 2
        + covariance * (covariance_penalty(first) + covariance_penalty(second))
    )


@torch.no_grad()
def sinkhorn(scores: Tensor, epsilon: float = 0.05, iterations: int = 3) -> Tensor:
    """Assign N views to P prototypes, all prototypes equally used: (N, P) -> (N, P), rows summing to 1.

    exp(scores / epsilon), its columns and rows scaled in turn (Caron et al., 2020, 2006.09882; Cuturi, 2013,
    1306.0895). In logarithms, so that nothing overflows.
    """
    plan = scores.float() / epsilon  # (N, P), logarithms
    for _ in range(iterations):
        plan = plan - plan.logsumexp(dim=0, keepdim=True)  # every prototype gets the same amount
        plan = plan - plan.logsumexp(dim=1, keepdim=True)  # every view gives 1
    return plan.exp()


def distillation(student: Tensor, teacher: Tensor, temperature: float = 0.1) -> Tensor:
    """Cross-entropy of softmax(student / T) with the distributions `teacher`: both (N, K), mean over N. No gradient to the teacher."""
    return _distilled(student, teacher, temperature).mean()


def _distilled(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """The cross-entropy of each distribution: (..., K) twice -> (...)."""
    return -(teacher.detach() * (student / temperature).log_softmax(dim=-1)).sum(dim=-1)


def dino(student: Sequence[Tensor], teacher: Sequence[Tensor], temperature: float = 0.1) -> Tensor:
    """Mean distillation over every pair of a student's view and another one of the teacher's (Caron et al., 2021, 2104.14294).

    student   logits (N, K) for each view, those that the teacher has seen as well first, in the same order
    teacher   distributions (N, K) for each view that it has seen
    """
    pairs = [(s, t) for t in range(len(teacher)) for s in range(len(student)) if s != t]  # never the same view
    return sum(distillation(student[s], teacher[t], temperature) for s, t in pairs) / len(pairs)


def spread(z: Tensor) -> Tensor:
    """Collapse made visible: mean standard deviation per dimension of the directions of z (N, d), times sqrt(d).

    About 1 when they point everywhere, 0 when all are the same (Chen and He, 2020, 2011.10566). No gradient.
    """
    unit = functional.normalize(z.detach().float(), dim=1)
    return unit.std(dim=0, correction=min(1, len(z) - 1)).mean() * z.shape[1] ** 0.5  # of one image 0, and not NaN


# --- predicting features -------------------------------------------------------------------------------------------


def ibot(student: Tensor, teacher: Tensor, hidden: Tensor, temperature: float = 0.1) -> Tensor:
    """Distillation of each hidden patch: of every picture the mean over these, and the mean of the pictures.

    student  logits (N, L, K) of every patch of pictures in which some patches were hidden
    teacher  distributions (N, L, K), of one who saw the pictures whole; gets no gradient
    hidden   bool (N, L), True where the student saw nothing
    (Zhou et al., 2021, 2111.07832)
    """
    cost = _distilled(student, teacher, temperature) * hidden  # (N, L)
    return (cost.sum(dim=1) / hidden.sum(dim=1).clamp(min=1)).mean()


@without_autocast
def sigreg(z: Tensor, directions: Tensor, knots: int = 17, reach: float = 3.0) -> Tensor:
    """How far embeddings are from a standard normal distribution: Epps and Pulley's statistic along each direction.

    z (..., N, d), directions (M, d) of any length. N times the integral of |c(t) - exp(-t^2 / 2)|^2 exp(-t^2 / 2) for t from
    -reach to reach, where c(t), the mean of exp(i t s) over the N numbers s of one direction, is the characteristic
    function of what was seen, and exp(-t^2 / 2) that of a normal distribution. The mean over directions, and whatever
    stands before N. The integral is taken by trapezoids between `knots` points of its positive half, since it is even
    (Balestriero and LeCun, 2025, 2511.08544; Epps and Pulley, 1983).
    """
    t = torch.linspace(0, reach, knots, dtype=z.dtype, device=z.device)
    normal = (-t.square() / 2).exp()  # (knots,)
    angle = (z @ functional.normalize(directions, dim=1).T)[..., None] * t  # (..., N, M, knots)
    error = (angle.cos().mean(dim=-3) - normal).square() + angle.sin().mean(dim=-3).square()  # (..., M, knots)
    return 2 * z.shape[-2] * torch.trapezoid(error * normal, t).mean()


def to_centre(views: Tensor, large: int) -> Tensor:
    """Mean squared distance of every view from the mean of the `large` first ones of its picture: (V, N, d) -> a scalar."""
    return (views - views[:large].mean(dim=0)).square().mean()


@without_autocast
def koleo(z: Tensor, epsilon: float = 1e-8) -> Tensor:
    """Minus the mean logarithm of each row's distance from its nearest other, on the unit sphere: rows of (N, d) push apart.

    After Kozachenko and Leonenko's estimate of an entropy (Sablayrolles et al., 2018, 1806.03198).
    """
    z = functional.normalize(z, dim=1)
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    nearest = (z @ z.T).masked_fill(itself, -math.inf).argmax(dim=1)  # (N,)
    # A product instead of z[nearest]: several rows have the same nearest one, and a GPU would add them up in any order.
    chosen = (nearest[:, None] == torch.arange(len(z), device=z.device)).to(z.dtype)  # (N, N), one 1 in each row
    distance = (z - chosen @ z + epsilon).norm(dim=1)  # (N,)
    return -(distance + epsilon).log().mean()


@without_autocast
def gram(student: Tensor, anchor: Tensor) -> Tensor:
    """Mean squared difference of the cosines of all pairs of patches of a picture: (N, L, d) twice. No gradient to the anchor.

    Which patches are alike stays as it was; what their features are may change (Siméoni et al., 2025, 2508.10104).
    """
    own, kept = (functional.normalize(x, dim=2) for x in (student, anchor.detach()))
    return (own @ own.mT - kept @ kept.mT).square().mean()
