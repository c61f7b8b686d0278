"""Losses that compare views: equal to a loop over the formula, to lightly's, and to what the mathematics says."""

import math

import lightly.loss
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from sslcourse import losses
from sslcourse.device import generator

CLOSE = {"atol": 1e-5, "rtol": 0}


def pair(n=6, d=5, seed=0, dtype=torch.float32):
    dice = generator(seed)
    return (torch.randn(n, d, generator=dice, dtype=dtype) for _ in range(2))


# --- NT-Xent -----------------------------------------------------------------------------------------------------


def nt_xent_by_loop(first, second, temperature):
    views = [row / row.norm() for row in [*first, *second]]
    total, count = 0.0, len(first)
    for i, view in enumerate(views):
        partner = (i + count) % (2 * count)
        below = sum(math.exp(float(view @ other) / temperature) for k, other in enumerate(views) if k != i)
        total -= math.log(math.exp(float(view @ views[partner]) / temperature) / below)
    return total / len(views)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("n", [1, 2, 7])
def test_nt_xent_is_a_double_loop_and_lightlys(n, temperature):
    a, b = pair(n)
    ours = losses.nt_xent(a, b, temperature).item()
    assert abs(ours - nt_xent_by_loop(a, b, temperature)) < 1e-5
    assert abs(ours - lightly.loss.NTXentLoss(temperature=temperature)(a, b).item()) < 1e-5


@pytest.mark.parametrize("n", [2, 8, 64])
def test_embeddings_that_are_all_alike_cost_log_2n_minus_1(n):
    z = torch.ones(n, 7)
    assert math.isclose(losses.nt_xent(z, z).item(), math.log(2 * n - 1), rel_tol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 50))
def test_nt_xent_takes_views_in_either_order_images_in_any_order_and_any_length(seed, scale):
    a, b = pair(seed=seed, dtype=torch.float64)
    order = torch.randperm(len(a), generator=generator(seed))
    value = losses.nt_xent(a, b)
    for same in (losses.nt_xent(b, a), losses.nt_xent(a[order], b[order]), losses.nt_xent(scale * a, b)):
        torch.testing.assert_close(same, value)


# --- MoCo --------------------------------------------------------------------------------------------------------


def test_info_nce_is_a_loop():
    q, k = pair()
    queue = torch.randn(9, 5, generator=generator(3))
    unit = lambda x: x / x.norm()  # noqa: E731
    total = 0.0
    for i in range(len(q)):
        positive = math.exp(float(unit(q[i]) @ unit(k[i])) / 0.2)
        negatives = sum(math.exp(float(unit(q[i]) @ unit(other)) / 0.2) for other in queue)
        total -= math.log(positive / (positive + negatives))
    assert abs(losses.info_nce(q, k, queue, 0.2).item() - total / len(q)) < 1e-5


def test_info_nce_is_lightlys_with_a_memory_bank():
    q, k = pair(8, 5)
    theirs = lightly.loss.NTXentLoss(temperature=0.2, memory_bank_size=(32, 5))
    theirs(q, k.requires_grad_(False))  # makes the bank
    bank = theirs.memory_bank.bank.clone()  # (5, 32) or (32, 5), as the version has it
    queue = bank if bank.shape[1] == 5 else bank.T
    expected = theirs(q.requires_grad_(), k)
    torch.testing.assert_close(losses.info_nce(q, k, queue, 0.2), expected, **CLOSE)


def test_info_nce_gives_keys_and_queue_no_gradient():
    q, k = (x.requires_grad_() for x in pair())
    queue = torch.randn(9, 5, requires_grad=True)
    losses.info_nce(q, k, queue).backward()
    assert k.grad is None and queue.grad is None and q.grad.abs().sum() > 0


# --- without negatives -------------------------------------------------------------------------------------------


def test_negative_cosine_is_lightlys_and_minus_one_at_best():
    a, b = pair()
    torch.testing.assert_close(losses.negative_cosine(a, b), lightly.loss.NegativeCosineSimilarity()(a, b), **CLOSE)
    assert math.isclose(losses.negative_cosine(a, 3 * a).item(), -1, rel_tol=1e-6)


def barlow_by_loop(a, b, redundancy):
    n, d = a.shape
    a, b = ((z - z.mean(0)) / (z.var(0, unbiased=False) + 1e-5).sqrt() for z in (a, b))
    total = 0.0
    for i in range(d):
        for j in range(d):
            c = sum(float(a[k, i] * b[k, j]) for k in range(n)) / n
            total += (1 - c) ** 2 if i == j else redundancy * c**2
    return total


def test_barlow_twins_is_a_loop_and_lightlys():
    a, b = pair(16, 4)
    ours = losses.barlow_twins(a, b, 5e-3)
    assert abs(ours.item() - barlow_by_loop(a, b, 5e-3)) < 1e-5
    torch.testing.assert_close(ours, lightly.loss.BarlowTwinsLoss(lambda_param=5e-3)(a, b), **CLOSE)


def test_barlow_twins_is_zero_for_the_identity_and_blind_to_scale_and_shift():
    z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)  # uncorrelated columns
    assert losses.barlow_twins(z, z).item() < 1e-9
    a, b = pair(16, 4, dtype=torch.float64)
    scaled = 100 * a * torch.tensor([1.0, 2.0, 3.0, 4.0]) + 5
    torch.testing.assert_close(losses.barlow_twins(scaled, b), losses.barlow_twins(a, b), atol=1e-4, rtol=0)


def test_off_diagonal_is_what_is_left():
    matrix = torch.arange(16.0).view(4, 4)
    assert losses.off_diagonal(matrix).tolist() == [x for i, x in enumerate(range(16)) if i % 5]


def vicreg_by_loop(a, b):
    n, d = a.shape
    invariance = sum(float((a[i, j] - b[i, j]) ** 2) for i in range(n) for j in range(d)) / (n * d)
    variance = covariance = 0.0
    for z in (a, b):
        mean = z.mean(0)
        for j in range(d):
            var = sum(float((z[i, j] - mean[j]) ** 2) for i in range(n)) / (n - 1)
            variance += max(0.0, 1 - math.sqrt(var + 1e-4)) / d / 2
            for k in range(d):
                if j != k:
                    c = sum(float((z[i, j] - mean[j]) * (z[i, k] - mean[k])) for i in range(n)) / (n - 1)
                    covariance += c**2 / d
    return 25 * invariance + 25 * variance + covariance


def test_vicreg_is_a_loop_and_lightlys():
    a, b = (0.5 * z for z in pair(16, 4))
    ours = losses.vicreg(a, b)
    assert abs(ours.item() - vicreg_by_loop(a, b)) < 1e-4
    torch.testing.assert_close(ours, lightly.loss.VICRegLoss()(a, b), **CLOSE)


def test_a_constant_embedding_costs_one_minus_the_root_of_epsilon():
    assert math.isclose(losses.variance_hinge(torch.full((8, 3), 7.0)).item(), 1 - math.sqrt(1e-4), rel_tol=1e-5)


# --- clusters and distillation -----------------------------------------------------------------------------------


def test_sinkhorn_uses_prototypes_equally_and_is_lightlys():
    from lightly.loss.swav_loss import sinkhorn

    scores = torch.rand(32, 8, generator=generator(0)) * 2 - 1
    ours = losses.sinkhorn(scores, 0.05, 3)
    torch.testing.assert_close(ours.sum(1), torch.ones(32))
    torch.testing.assert_close(ours, sinkhorn(scores, iterations=3, epsilon=0.05), **CLOSE)
    torch.testing.assert_close(losses.sinkhorn(scores, 0.5, 200).sum(0), torch.full((8,), 4.0), atol=1e-3, rtol=0)


def test_swapped_prediction_is_lightlys():
    first, second = (functional.normalize(torch.randn(16, 8, generator=generator(i)), dim=1) for i in (0, 1))
    ours = sum(losses.distillation(s, losses.sinkhorn(o), 0.1) for s, o in ((first, second), (second, first))) / 2
    theirs = lightly.loss.SwaVLoss(temperature=0.1, sinkhorn_iterations=3, sinkhorn_epsilon=0.05)([first, second], [])
    torch.testing.assert_close(ours, theirs.squeeze(), **CLOSE)


def test_sinkhorn_survives_large_scores():
    assert losses.sinkhorn(torch.tensor([[1e4, -1e4], [-1e4, 1e4]])).isfinite().all()


def test_distillation_is_a_loop_and_uniform_costs_log_k():
    student, teacher = (torch.randn(4, 6, generator=generator(i)) for i in (0, 1))
    target = teacher.softmax(1)
    by_loop = -sum(
        float(target[i, k]) * math.log(math.exp(student[i, k] / 0.1) / sum(math.exp(x / 0.1) for x in student[i]))
        for i in range(4)
        for k in range(6)
    )
    assert abs(losses.distillation(student, target, 0.1).item() - by_loop / 4) < 1e-4
    flat = torch.zeros(4, 6)
    assert math.isclose(losses.distillation(flat, flat.softmax(1)).item(), math.log(6), rel_tol=1e-6)


def test_dino_is_lightlys_and_skips_the_same_view():
    student = [torch.randn(6, 9, generator=generator(i)) for i in range(5)]
    teacher = [torch.randn(6, 9, generator=generator(10 + i)) for i in range(2)]
    center = torch.randn(1, 9, generator=generator(20))
    theirs = lightly.loss.DINOLoss(
        9, warmup_teacher_temp=0.04, teacher_temp=0.04, student_temp=0.1, center_momentum=0.9
    )
    theirs.center.copy_(center.view_as(theirs.center))
    target = [((t - center) / 0.04).softmax(1) for t in teacher]
    torch.testing.assert_close(losses.dino(student, target, 0.1), theirs(teacher, student, epoch=0), **CLOSE)
    by_loop = [losses.distillation(student[s], target[t], 0.1) for t in range(2) for s in range(5) if s != t]
    torch.testing.assert_close(losses.dino(student, target, 0.1), sum(by_loop) / 8)
    flat = [torch.zeros(3, 9)] * 2
    assert math.isclose(losses.dino(flat, [f.softmax(1) for f in flat]).item(), math.log(9), rel_tol=1e-6)


def test_spread_is_zero_for_one_point_and_about_one_for_all_directions():
    assert losses.spread(torch.ones(50, 20)).item() < 1e-6
    assert abs(losses.spread(torch.randn(4000, 20, generator=generator(0))).item() - 1) < 0.02


# --- predicting features ---------------------------------------------------------------------------------------------


def test_ibots_patch_loss_is_a_loop_and_lightlys():
    student, teacher = (torch.randn(3, 6, 5, generator=generator(i)) for i in (0, 1))
    center = torch.randn(1, 5, generator=generator(2))
    hidden = torch.tensor([[1, 1, 0, 0, 0, 0], [0, 1, 1, 1, 0, 1], [0, 0, 0, 0, 0, 1]]).bool()  # 2, 4 and 1 of 6
    target = ((teacher - center) / 0.07).softmax(2)
    found = losses.ibot(student, target, hidden, 0.1)
    by_loop = [
        sum(
            losses.distillation(s[None], t[None], 0.1)
            for s, t in zip(student[n][hidden[n]], target[n][hidden[n]], strict=True)
        )
        / hidden[n].sum()
        for n in range(3)
    ]
    torch.testing.assert_close(found, sum(by_loop) / 3)
    theirs = lightly.loss.IBOTPatchLoss(5, teacher_temp=0.07, student_temp=0.1)
    theirs.center.value.copy_(center)
    expected = theirs(teacher[hidden], student[hidden], hidden.view(3, 2, 3))
    torch.testing.assert_close(found, expected, **CLOSE)
    assert losses.ibot(student, target, torch.zeros_like(hidden)).item() == 0  # nothing hidden, nothing asked


@pytest.mark.parametrize("d", [2, 16])
def test_koleo_is_a_loop_and_lightlys(d):
    z = torch.randn(9, d, generator=generator(d))
    unit = [row / row.norm() for row in z]
    nearest = [min(float((a - b).norm()) for j, b in enumerate(unit) if j != i) for i, a in enumerate(unit)]
    assert abs(losses.koleo(z).item() + sum(map(math.log, nearest)) / 9) < 1e-5
    ours, theirs = (z.clone().requires_grad_() for _ in range(2))
    losses.koleo(ours).backward(), lightly.loss.KoLeoLoss()(theirs).backward()
    torch.testing.assert_close(losses.koleo(z), lightly.loss.KoLeoLoss()(z), **CLOSE)
    torch.testing.assert_close(ours.grad, theirs.grad, **CLOSE)


def epps_pulley_by_quadrature(numbers, reach):
    """N * the integral, by scipy, of what one direction shows."""
    from scipy.integrate import quad

    def integrand(t):
        seen = sum(complex(math.cos(t * s), math.sin(t * s)) for s in numbers) / len(numbers)
        return abs(seen - math.exp(-t * t / 2)) ** 2 * math.exp(-t * t / 2)

    return len(numbers) * quad(integrand, -reach, reach, epsabs=1e-12, epsrel=1e-12, limit=200)[0]


def epps_pulley_by_hand(numbers):
    """The same over all t, worked out: every pair of points repels, and the middle attracts."""
    n = len(numbers)
    pairs = sum(math.exp(-((a - b) ** 2) / 2) for a in numbers for b in numbers)
    middle = sum(math.exp(-(a**2) / 4) for a in numbers)
    return math.sqrt(2 * math.pi) * pairs / n - 2 * math.sqrt(math.pi) * middle + n * math.sqrt(2 * math.pi / 3)


@pytest.mark.parametrize("numbers", [[0.0], [-1.0, 1.0], [0.3, 0.3, 2.0, -1.4], [5.0, 5.1, 4.9]])
def test_sigreg_is_the_integral_in_one_dimension(numbers):
    z = torch.tensor(numbers, dtype=torch.float64)[:, None]
    one = torch.ones(1, 1, dtype=torch.float64)
    for reach in (3.0, 9.0):
        found = losses.sigreg(z, one, knots=4001, reach=reach).item()
        assert abs(found - epps_pulley_by_quadrature(numbers, reach)) < 1e-5
    assert abs(found - epps_pulley_by_hand(numbers)) < 1e-5
    assert abs(losses.sigreg(z, one).item() - epps_pulley_by_quadrature(numbers, 3.0)) < 0.03 * len(numbers)


def test_sigreg_and_the_distance_to_the_centre_are_lightlys():
    z = torch.randn(3, 12, 6, generator=generator(0)) * 1.5 + 0.2  # two large views and a small one
    theirs = lightly.loss.lejepa_loss.LeJEPALoss(lambda_param=0.05, sigreg_num_vectors=40)
    torch.manual_seed(7)
    expected = theirs(global_proj=z[:2], local_proj=z[2:])
    torch.manual_seed(7)
    directions = torch.randn(6, 40).T  # as they draw them
    found = 0.05 * losses.sigreg(z, directions) + 0.95 * losses.to_centre(z, 2)
    torch.testing.assert_close(found, expected, **CLOSE)


def test_sigreg_is_small_for_a_normal_cloud_alone():
    normal = torch.randn(512, 8, generator=generator(0))
    directions = torch.randn(64, 8, generator=generator(1))
    least = losses.sigreg(normal, directions)
    others = {
        "one point": torch.zeros(512, 8), "too wide": 3 * normal, "too narrow": normal / 3, "off the middle": normal + 1,
        "two points": torch.sign(normal[:, :1]).expand(-1, 8), "a line": normal[:, :1].expand(-1, 8) / 8**0.5,
    }  # fmt: skip
    assert all(losses.sigreg(z, directions) > 3 * least for z in others.values())


def test_gram_asks_which_patches_are_alike_and_of_nothing_else():
    z = torch.randn(2, 5, 4, generator=generator(0))
    turn = torch.linalg.qr(torch.randn(4, 4, generator=generator(1)))[0]
    assert losses.gram(3 * z @ turn, z).item() < 1e-10  # turned and longer: as alike as before
    cosines = lambda x: [[float(functional.cosine_similarity(a, b, dim=0)) for b in x] for a in x]  # noqa: E731
    other = torch.randn(2, 5, 4, generator=generator(2))
    pairs = [
        (a, b)
        for n in (0, 1)
        for x, y in zip(cosines(z[n]), cosines(other[n]), strict=True)
        for a, b in zip(x, y, strict=True)
    ]
    assert abs(losses.gram(z, other).item() - sum((a - b) ** 2 for a, b in pairs) / 50) < 1e-5


# --- gradients ---------------------------------------------------------------------------------------------------

GRADIENTS = {  # name: (the loss of two embeddings, whether the second one gets a gradient)
    "nt_xent": (losses.nt_xent, True),
    "info_nce": (lambda a, b: losses.info_nce(a, b, b.flip(0)), False),
    "negative_cosine": (losses.negative_cosine, True),
    "barlow_twins": (losses.barlow_twins, True),
    "vicreg": (lambda a, b: losses.vicreg(0.3 * a, 0.3 * b), True),
    "distillation": (lambda a, b: losses.distillation(a, b.softmax(1)), False),
    "swav": (lambda a, b: losses.distillation(a, losses.sinkhorn(b).double()), False),
    "ibot": (lambda a, b: losses.ibot(a[None], b[None].softmax(2), torch.tensor([[True, False, True, True]])), False),
    "sigreg": (lambda a, b: losses.sigreg(torch.stack([a, b]), torch.eye(3, dtype=a.dtype)), True),
    "to_centre": (lambda a, b: losses.to_centre(torch.stack([a, b, a * b]), 2), True),
    "koleo": (lambda a, b: losses.koleo(torch.cat([a, b])), True),
    "gram": (lambda a, b: losses.gram(a[None], b[None]), False),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_are_right(name):
    loss, both = GRADIENTS[name]
    a, b = pair(4, 3, dtype=torch.float64)
    if both:
        assert torch.autograd.gradcheck(loss, (a.requires_grad_(), b.requires_grad_()))
    else:
        assert torch.autograd.gradcheck(lambda a: loss(a, b), a.requires_grad_())
        loss(a, b.requires_grad_()).backward()
        assert b.grad is None


def test_under_autocast_the_losses_keep_their_precision():
    a, b, queue = (torch.randn(16, 8, generator=generator(i)) for i in range(3))
    for loss, tensors in (
        (losses.nt_xent, (a, b, 0.1)),
        (losses.info_nce, (a, b, queue, 0.1)),
        (losses.barlow_twins, (a, b)),
        (losses.vicreg, (a, b)),
        (losses.sigreg, (a, b)),
        (losses.koleo, (a,)),
        (losses.gram, (a[None], b[None])),
    ):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = loss(*tensors)
        assert found.dtype == torch.float32 and torch.equal(found, loss(*tensors)), loss
