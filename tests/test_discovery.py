"""Discovery against explicit loops, known spectra and masks worked out by hand."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn import functional

from sslcourse import backbones
from sslcourse.device import generator
from sslcourse.errors import CourseError
from sslcourse.transfer import discovery


def scene(count=4, side=12, seed=0, dim=6):
    """Maps in which a square has features of its own, float (count, dim, side, side), and where it is."""
    dice = generator(seed)
    inside = torch.zeros(count, side, side, dtype=torch.bool)
    for i in range(count):
        top, left = torch.randint(2, side - 6, (2,), generator=dice).tolist()
        inside[i, top : top + 4, left : left + 4] = True
    unlike = torch.stack([2 * torch.eye(dim)[torch.randperm(dim, generator=dice)[:2]] for _ in range(count)])
    thing, ground = unlike.transpose(0, 1)[..., None, None]  # (count, dim, 1, 1) each
    maps = torch.where(inside[:, None], thing, ground) + 0.1 * torch.randn(count, dim, side, side, generator=dice)
    return maps, inside


# -- features of patches ------------------------------------------------------------------------------------------------


def test_patch_features_are_the_stages_on_one_grid():
    backbone = backbones.build(seed=0)
    backbone.train()
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    pixels = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8, generator=generator(0))
    both = discovery.patch_features(backbone, pixels, stages=(1, 2), device="cpu", batch_size=2)
    assert both.shape == (5, 16 + 32, 16, 16) and backbone.training
    assert all(torch.equal(v, before[k]) for k, v in backbone.state_dict().items())
    backbone.eval()
    with torch.no_grad():
        maps = backbone.stages(pixels.float() / 255)
    torch.testing.assert_close(both[:, :16], functional.normalize(maps[0], dim=1))
    second = functional.interpolate(functional.normalize(maps[1], dim=1), (16, 16), mode="bilinear")
    torch.testing.assert_close(both[:, 16:], second)
    fine = discovery.patch_features(backbone, pixels, stages=[2], enlarge=2, device="cpu")
    assert fine.shape == (5, 32, 16, 16)
    coarse = discovery.patch_features(backbone, pixels, stages=[2], enlarge=2, grid=8, device="cpu")
    torch.testing.assert_close(coarse, functional.avg_pool2d(fine, 2))
    assert discovery.patch_features(backbone, pixels, stages=[1, 4], grid=20, device="cpu").shape == (5, 144, 20, 20)


@pytest.mark.parametrize("options", [{"stages": ()}, {"stages": (0,)}, {"stages": (5,)}, {"enlarge": 0}, {"grid": 0}])
def test_patch_features_refuse(options):
    with pytest.raises(CourseError, match="whole number"):
        discovery.patch_features(backbones.build(), torch.zeros(1, 3, 32, 32, dtype=torch.uint8), **options)


def test_colours_of_patches_are_means():
    pixels = torch.randint(0, 256, (2, 3, 8, 12), dtype=torch.uint8, generator=generator(0))
    found = discovery.patch_colours(pixels, 4)
    assert found.shape == (2, 3, 4, 4)
    torch.testing.assert_close(found[1, 2, 3, 0], (pixels[1, 2, 6:8, 0:3].float() / 255).mean())
    with pytest.raises(CourseError, match="patches a side must be a whole number from 1 to 8"):
        discovery.patch_colours(pixels, 9)


# -- the graph ----------------------------------------------------------------------------------------------------------


def test_affinity_equals_a_double_loop():
    x = torch.randn(9, 5, generator=generator(0)) + 3
    found = discovery.affinity(x, 0.3, 1e-4)
    mean = x.double().mean(dim=0)
    for i in range(9):
        for j in range(9):
            a, b = x[i].double() - mean, x[j].double() - mean
            cosine = float(a @ b / (a.norm() * b.norm()))
            assert found[i, j].item() == (1.0 if cosine > 0.3 else 1e-4)
    assert torch.equal(found, found.T) and found.dtype == torch.float64


def test_the_fiedler_vector_solves_the_generalized_problem():
    x = torch.rand(12, 12, generator=generator(0)).double()
    weights = x + x.T + 0.1
    vector = discovery.fiedler(weights).numpy()
    degree = np.diag(weights.sum(dim=1).numpy())
    values, vectors = scipy.linalg.eig(degree - weights.numpy(), degree)  # the general solver
    second = np.sort(values.real)[1]
    np.testing.assert_allclose((degree - weights.numpy()) @ vector, second * degree @ vector, atol=1e-9)
    assert vector @ degree @ np.ones(12) == pytest.approx(0, abs=1e-9)  # at right angles to the constant vector
    assert vector @ degree @ vector == pytest.approx(1)


def test_the_fiedler_vector_separates_two_cliques():
    weights = torch.full((7, 7), 1e-3)
    weights[:3, :3] = weights[3:, 3:] = 1
    side = discovery.fiedler(weights) > 0
    assert side[:3].unique().tolist() != side[3:].unique().tolist() and len(side[:3].unique()) == 1


@pytest.mark.parametrize(
    "weights",
    [torch.ones(2, 3), torch.ones(1, 1), torch.tensor([[1.0, 2.0], [3.0, 1.0]]), torch.zeros(3, 3), -torch.ones(3, 3)],
)
def test_the_fiedler_vector_refuses_what_is_no_graph(weights):
    with pytest.raises(CourseError, match="symmetric table"):
        discovery.fiedler(weights)


def test_inwards_turns_a_vector_whose_object_lies_at_the_border():
    values = -torch.ones(2, 5, 5)
    values[:, 1:4, 1:4] = 1
    turned = discovery.inwards(torch.stack([values[0], -values[1]]))
    assert torch.equal(turned, values)
    assert discovery.border_share(torch.ones(5, 5) > 0) == 1
    corner = torch.zeros(4, 4, dtype=torch.bool)
    corner[0, :2] = True
    assert discovery.border_share(corner) == pytest.approx(2 / 12)


# -- the methods --------------------------------------------------------------------------------------------------------

METHODS = [discovery.spectral, discovery.two_means, discovery.seed_expansion]


@pytest.mark.parametrize("method", METHODS)
def test_each_method_finds_a_square_of_its_own_kind(method):
    maps, inside = scene()
    assert torch.equal(method(maps) > 0, inside)


@pytest.mark.parametrize("method", METHODS)
def test_each_method_treats_pictures_alone_and_repeats(method):
    maps, _ = scene(3, seed=2)
    whole = method(maps)
    assert whole.shape == (3, 12, 12) and whole.dtype == torch.float32 and whole.abs().max() <= 1 + 1e-6
    torch.testing.assert_close(whole[1:2], method(maps[1:2]))
    assert torch.equal(whole, method(maps))


@pytest.mark.parametrize("method", METHODS)
def test_each_method_survives_a_picture_of_one_colour_and_refuses_nan(method):
    flat = method(torch.ones(1, 3, 5, 5))
    assert torch.isfinite(flat).all()
    with pytest.raises(CourseError, match="NaN"):
        method(torch.full((1, 3, 5, 5), math.nan))
    with pytest.raises(CourseError, match=r"float \(N, d, h, w\)"):
        method(torch.ones(3, 5, 5))


def test_two_means_equals_a_brute_force_split():
    maps = torch.randn(1, 2, 2, 4, generator=generator(4))
    points = maps[0].flatten(1).T.double()  # (8, 2)

    def cost(mask):
        return sum(
            float((points[side] - points[side].mean(dim=0)).square().sum()) for side in (mask, ~mask) if side.any()
        )

    splits = [torch.tensor([(code >> i) & 1 for i in range(8)], dtype=torch.bool) for code in range(1, 255)]
    best = min(cost(s) for s in splits)
    found = (discovery.two_means(maps) > 0).flatten()
    assert cost(found) == pytest.approx(best, rel=0.15)


# -- masks --------------------------------------------------------------------------------------------------------------


def test_iou_by_hand():
    a = torch.tensor([[[True, True], [False, False]]])
    b = torch.tensor([[[True, False], [True, False]]])
    none = torch.zeros_like(a)
    assert discovery.iou(a, b).tolist() == pytest.approx([1 / 3])
    assert (
        discovery.iou(a, a).item() == 1 and discovery.iou(a, none).item() == 0 and discovery.iou(none, none).item() == 1
    )
    with pytest.raises(CourseError, match=r"bool \(N, H, W\)"):
        discovery.iou(a.float(), b)
    with pytest.raises(CourseError, match=r"bool \(N, H, W\)"):
        discovery.iou(a, b[:, :1])


def test_the_box_has_the_share_it_was_asked_for_and_lies_in_the_middle():
    box = discovery.centre_box(2, 32, 0.25)
    assert box.shape == (2, 32, 32) and box[0].float().mean() == 0.25
    assert torch.equal(box[0], box[0].flip(0)) and torch.equal(box[0], box[0].T)
    assert discovery.centre_box(1, 8, 1.0).all()
    with pytest.raises(CourseError, match=r"\(0, 1\]"):
        discovery.centre_box(1, 8, 0.0)


def test_masks_are_enlarged_by_the_areas_of_patches():
    assert discovery.to_masks(torch.tensor([[[-1.0, 3.2]]]), (1, 4)).tolist() == [[[False, True, True, True]]]
    assert discovery.to_masks(torch.tensor([[[-1.0, 2.8]]]), (1, 4)).tolist() == [[[False, False, True, True]]]
    values = -torch.ones(1, 4, 4)
    values[0, 1:3, 1:3] = 1
    mask = discovery.to_masks(values, (8, 8))
    assert mask.shape == (1, 8, 8) and mask[0, 2:6, 2:6].all() and not mask[0, 0].any()
    assert torch.equal(mask[0], mask[0].flip(0)) and torch.equal(mask[0], mask[0].T)


# -- learned from many pictures -----------------------------------------------------------------------------------------


def patches(maps):
    return maps.flatten(2).transpose(1, 2).flatten(0, 1)


def test_the_foreground_equals_scikit_learns_logistic_regression():
    maps, inside = scene(6, seed=1)
    learned = discovery.Foreground(patches=10**6, strength=0.5).fit(maps, inside.float() - 0.5)
    x = patches(maps).double().numpy()
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    model = LogisticRegression(C=0.5, max_iter=1000).fit(x, inside.flatten().numpy())
    want = torch.from_numpy(2 * model.predict_proba(x)[:, 1] - 1).view(inside.shape).float()
    torch.testing.assert_close(learned(maps), want, rtol=1e-3, atol=1e-3)


def test_the_foreground_outvotes_wrong_masks_of_single_pictures():
    maps, inside = scene(12, dim=2, seed=4)
    maps = torch.where(inside[:, None], torch.tensor([2.0, 0.0]).view(2, 1, 1), torch.tensor([0.0, 2.0]).view(2, 1, 1))
    maps = maps + 0.1 * torch.randn(maps.shape, generator=generator(0))
    rough = torch.where(inside, 1.0, -1.0)
    rough[0] = -rough[0]  # object and background exchanged in one picture of twelve
    found = discovery.Foreground().fit(maps, rough)(maps)
    assert torch.equal(found > 0, inside) and found.abs().max() <= 1


def test_the_foreground_is_drawn_by_its_seed():
    maps, inside = scene(4)
    rough = inside.float() - 0.5
    found = [discovery.Foreground(100, seed=s).fit(maps, rough)(maps) for s in (0, 0, 1)]
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_the_foreground_refuses():
    maps, inside = scene(2)
    with pytest.raises(CourseError, match="call fit"):
        discovery.Foreground()(maps)
    with pytest.raises(CourseError, match="there are no two sides to learn"):
        discovery.Foreground().fit(maps, torch.ones(2, 12, 12))
    with pytest.raises(CourseError, match=r"a value for each patch, \(2, 12, 12\), and are \(2, 6, 6\)"):
        discovery.Foreground().fit(maps, inside[:, ::2, ::2])
    with pytest.raises(CourseError, match="NaN"):
        discovery.Foreground().fit(maps * math.nan, inside.float())


def coloured(inside):
    """A red square on a blue ground, float (N, 3, h, w)."""
    red, blue = torch.tensor([0.9, 0.1, 0.1]).view(3, 1, 1), torch.tensor([0.1, 0.1, 0.9]).view(3, 1, 1)
    return torch.where(inside[:, None], red, blue)


def test_snapping_brings_a_blurred_mask_to_the_edges_of_the_colours():
    _, inside = scene(5, seed=3)
    blurred = functional.avg_pool2d(inside[:, None].float(), 5, stride=1, padding=2)[:, 0] * 2 - 1
    assert not torch.equal(blurred > 0, inside)
    for weight in (0.0, 0.5):
        assert torch.equal(discovery.snap(blurred, coloured(inside), weight) > 0, inside)
        assert torch.equal(
            discovery.snap(-blurred, coloured(inside), weight) > 0, ~inside
        )  # the values choose the side
    heavy = discovery.snap(torch.where(inside.flip(2), 1.0, -1.0), coloured(inside), 100.0)
    assert torch.equal(heavy > 0, inside.flip(2))  # a large weight leaves the colours no say


def test_snapping_refuses_and_survives_one_colour():
    flat = discovery.snap(torch.zeros(1, 4, 4), torch.ones(1, 3, 4, 4))
    assert torch.isfinite(flat).all()
    with pytest.raises(CourseError, match="a value for each patch of colour"):
        discovery.snap(torch.zeros(1, 4, 4), torch.ones(1, 3, 8, 8))
    for weight in (-1.0, math.nan):
        with pytest.raises(CourseError, match="weight of the values must be at least 0"):
            discovery.snap(torch.zeros(1, 4, 4), torch.ones(1, 3, 4, 4), weight)
