"""Centered kernel alignment against its definition with Gram matrices, and what it must not see."""

import math

import pytest
import torch

from sslcourse.errors import CourseError
from sslcourse.transfer.similarity import cka_table, linear_cka


def features(n=40, d=7, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 3


def by_definition(x, y):
    """HSIC of the two centred Gram matrices, in loops over pairs of images (Kornblith et al., 2019, 1905.00414)."""

    def gram(z):
        k = [[sum(a * b for a, b in zip(p, q, strict=True)) for q in z] for p in z]
        n = len(k)
        row = [sum(line) / n for line in k]
        mean = sum(row) / n
        return [[k[i][j] - row[i] - row[j] + mean for j in range(n)] for i in range(n)]

    def hsic(k, m):
        return sum(a * b for p, q in zip(k, m, strict=True) for a, b in zip(p, q, strict=True))

    k, m = gram(x.tolist()), gram(y.tolist())
    return hsic(k, m) / math.sqrt(hsic(k, k) * hsic(m, m))


@pytest.mark.parametrize(("d", "e", "n"), [(7, 7, 40), (3, 11, 25), (20, 2, 9)])
def test_equals_the_definition(d, e, n):
    x, y = features(n, d), features(n, e, seed=1)
    y[:, 0] += 2 * x[:, 0]
    assert linear_cka(x, y) == pytest.approx(by_definition(x, y), abs=1e-12)


def test_rotation_reflection_shift_and_scale_change_nothing_and_stretching_one_axis_does():
    x, y = features(), features(seed=1) + features()
    turn = torch.linalg.qr(torch.randn(7, 7, generator=torch.Generator().manual_seed(2), dtype=torch.float64)).Q
    turn[:, 0] *= -1
    for same in (x @ turn, 5 * x, x - 100, x.flip(1), torch.cat([x, x], dim=1)):
        assert linear_cka(x, same) == pytest.approx(1, abs=1e-9)
        assert linear_cka(same, y) == pytest.approx(linear_cka(x, y), abs=1e-9)
    stretched = x * torch.tensor([100.0, 1, 1, 1, 1, 1, 1])
    assert linear_cka(x, stretched) < 0.7
    assert linear_cka(x.float(), y.float()) == pytest.approx(linear_cka(x, y), abs=1e-6)


def test_the_order_of_images_counts_if_only_one_is_shuffled():
    x, mixed = features(400), torch.randperm(400, generator=torch.Generator().manual_seed(3))
    assert linear_cka(x[mixed], x[mixed]) == pytest.approx(1, abs=1e-9)
    assert linear_cka(x, x[mixed]) < 0.1


@pytest.mark.parametrize("n", [8, 64, 1024])
def test_unrelated_features_are_as_alike_as_the_docstring_says(n):
    d, e = 32, 64
    found = [linear_cka(features(n, d, seed), features(n, e, seed + 100)) for seed in range(8)]
    assert sum(found) / 8 == pytest.approx(math.sqrt(d * e / ((n + d) * (n + e))), rel=0.25)


def test_table():
    sets = {"a": features(), "b": features(d=3, seed=1)}
    table = cka_table(sets)
    assert (
        table.shape == (2, 2)
        and torch.allclose(table, table.T)
        and torch.allclose(table.diag(), torch.ones(2).double())
    )
    assert torch.allclose(cka_table(sets, {"a": sets["a"]}), table[:, :1])


@pytest.mark.parametrize(
    ("x", "y", "sentence"),
    [
        (torch.rand(5, 2), torch.rand(4, 2), "first has 5 rows and the second 4"),
        (torch.rand(5), torch.rand(5, 2), "shape \\(5,\\)"),
        (torch.rand(1, 3), torch.rand(1, 3), "at least 2 rows"),
        (torch.rand(5, 2), torch.ones(5, 2) * 0.1, "second features are the same for every image"),
        (torch.zeros(5, 2), torch.rand(5, 2), "first features are the same for every image"),
        (torch.full((5, 2), math.nan), torch.rand(5, 2), "not all finite"),
    ],
)
def test_bad_features_get_one_sentence(x, y, sentence):
    with pytest.raises(CourseError, match=sentence):
        linear_cka(x, y)
