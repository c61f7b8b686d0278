"""Defects: what is planted, and scores against explicit loops, scikit-learn and the mathematics."""

import math

import pytest
import torch
from sklearn.covariance import LedoitWolf

from sslcourse.device import generator
from sslcourse.errors import CourseError
from sslcourse.transfer import defects


def pictures(count=8, side=32, seed=0):
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator(seed))


# -- planting -----------------------------------------------------------------------------------------------------------


def test_planting_changes_the_mask_and_nothing_else():
    pixels = pictures(12)
    before = pixels.clone()
    planted = defects.plant(pixels)
    assert torch.equal(pixels, before)
    assert planted.images.dtype == torch.uint8 and planted.images.shape == pixels.shape
    assert torch.equal((planted.images != pixels).any(dim=1), planted.masks)
    assert planted.names == ("scratch", "missing patch", "blot", "wrong hue")
    assert planted.kinds.tolist() == [0, 1, 2, 3] * 3
    share = planted.masks.float().mean(dim=(1, 2))
    assert (share > 0.005).all() and (share < 0.2).all()


def test_planting_depends_on_seed_and_place_alone():
    pixels = pictures(8)
    a, b = defects.plant(pixels, seed=3), defects.plant(pixels[:5], seed=3)
    assert torch.equal(a.images[:5], b.images)
    assert not torch.equal(a.images, defects.plant(pixels, seed=4).images)


@pytest.mark.parametrize("size", [(16, 48), (64, 64)])
def test_planting_takes_other_sizes(size):
    pixels = torch.randint(0, 256, (4, 3, *size), dtype=torch.uint8, generator=generator(0))
    assert defects.plant(pixels).masks.flatten(1).any(dim=1).all()


def test_defects_are_centred_where_they_may_be():
    pixels, where = pictures(20), torch.zeros(20, 32, 32, dtype=torch.bool)
    where[:, 25, 6] = True
    planted = defects.plant(pixels, ["missing patch", "blot"], where=where)
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    for mask in planted.masks:
        assert abs(rows[mask].mean() - 25) < 0.6 and abs(columns[mask].mean() - 6) < 0.6


def test_each_kind_is_what_its_name_says():
    pixels = pictures(4)
    middle = torch.zeros(4, 32, 32, dtype=torch.bool)
    middle[:, 16, 16] = True
    made = {kind: defects.plant(pixels, kind, where=middle) for kind in defects.KINDS}
    hue = made["wrong hue"]
    for image, spoiled, mask in zip(pixels, hue.images, hue.masks, strict=True):
        assert torch.equal(spoiled[:, mask], image[[2, 0, 1]][:, mask])
        assert torch.equal(spoiled.sum(dim=0), image.sum(dim=0))  # brightness stays
    for image, spoiled, mask in zip(pixels, made["missing patch"].images, made["missing patch"].masks, strict=True):
        mean = image.float().mean(dim=(1, 2)).round().to(torch.uint8)
        assert (spoiled[:, mask] == mean[:, None]).all()
        rows, columns = mask.nonzero().T
        assert rows.max() - rows.min() == columns.max() - columns.min()
    for image, spoiled, mask in zip(pixels, made["blot"].images, made["blot"].masks, strict=True):
        assert spoiled[:, mask].float().mean() < image[:, mask].float().mean()
    for mask in made["scratch"].masks:
        rows, columns = mask.nonzero().T.float()
        points = torch.stack([rows - rows.mean(), columns - columns.mean()])
        thin, long = torch.linalg.svdvals(points).flip(0) / len(rows) ** 0.5
        assert long > 3 * thin


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"kinds": ["scrach"]}, "'scrach' is unknown .did you mean 'scratch'"),
        ({"kinds": "blots"}, "'blots' is unknown"),
        ({"where": torch.zeros(8, 32, 32, dtype=torch.bool)}, "no pixel to centre"),
        ({"where": torch.ones(8, 16, 16, dtype=torch.bool)}, "where must be bool"),
    ],
)
def test_planting_refuses(arguments, message):
    with pytest.raises(CourseError, match=message):
        defects.plant(pictures(), **arguments)


def test_planting_refuses_floats_and_nothing():
    with pytest.raises(CourseError, match="uint8 images"):
        defects.plant(pictures().float())
    with pytest.raises(CourseError, match="at least one"):
        defects.plant(pictures()[:0])


# -- scores -------------------------------------------------------------------------------------------------------------


def test_the_nearest_normal_equals_a_double_loop():
    normal, asked = torch.randn(20, 4, generator=generator(0)) * 3 + 1, torch.randn(6, 4, generator=generator(1))
    found = defects.NearestNormal(3).fit(normal).score(asked)
    mean, scale = normal.mean(dim=0), normal.std(dim=0)
    for i, row in enumerate(asked):
        away = sorted(float(((row - other) / scale).norm()) for other in normal)
        assert found[i] == pytest.approx(sum(away[:3]) / 3, rel=1e-4)
    assert mean.shape == (4,)


def test_mahalanobis_equals_scikit_learns_distance():
    mix = torch.randn(5, 5, generator=generator(0))
    normal, asked = (torch.randn(n, 5, generator=generator(n)) @ mix + 2 for n in (60, 9))
    found = defects.Mahalanobis().fit(normal).score(asked)
    mean, scale = normal.mean(dim=0), normal.std(dim=0)
    want = LedoitWolf(assume_centered=True).fit(((normal - mean) / scale).double().numpy())
    want = torch.from_numpy(want.mahalanobis(((asked - mean) / scale).double().numpy())).sqrt()
    torch.testing.assert_close(found.double(), want, rtol=1e-4, atol=1e-4)
    assert defects.Mahalanobis().fit(normal).score(mean[None]).item() == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("scorer", [defects.NearestNormal(), defects.Mahalanobis()])
def test_scorers_see_what_is_strange_whatever_the_units(scorer):
    normal = torch.randn(80, 6, generator=generator(0))
    units = torch.tensor([1.0, 100.0, 0.01, 1.0, 5.0, 1.0])
    good, bad = torch.randn(20, 6, generator=generator(1)), torch.randn(20, 6, generator=generator(2)) * 0.3 + 4
    score = scorer.fit(normal).score(torch.cat([good, bad]))
    assert defects.auroc(score, torch.arange(40) >= 20) == 1
    torch.testing.assert_close(
        scorer.fit(normal * units).score(torch.cat([good, bad]) * units), score, rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("scorer", [defects.NearestNormal(), defects.Mahalanobis()])
def test_scoring_learns_nothing_from_what_it_scores(scorer):
    normal, asked = torch.randn(50, 3, generator=generator(0)), torch.randn(10, 3, generator=generator(1))
    scorer.fit(normal)
    torch.testing.assert_close(scorer.score(torch.cat([asked, asked + 50]))[:10], scorer.score(asked))


def test_a_column_that_never_varied_still_counts():
    normal = torch.randn(40, 2, generator=generator(0))
    normal[:, 1] = 7.0
    for scorer in (defects.NearestNormal(), defects.Mahalanobis()):
        a, b = scorer.fit(normal).score(torch.tensor([[0.0, 7.0], [0.0, 9.0]]))
        assert b > a


def test_the_memory_is_drawn_by_the_seed():
    normal, asked = torch.randn(100, 3, generator=generator(0)), torch.randn(10, 3, generator=generator(1))
    kept = [defects.NearestNormal(memory=30, seed=s).fit(normal) for s in (0, 0, 1)]
    assert len(kept[0].bank) == 30
    assert torch.equal(kept[0].score(asked), kept[1].score(asked))
    assert not torch.equal(kept[0].score(asked), kept[2].score(asked))
    assert (kept[0].score(asked) >= defects.NearestNormal().fit(normal).score(asked) - 1e-5).all()


@pytest.mark.parametrize("scorer", [defects.NearestNormal, defects.Mahalanobis])
def test_scorers_refuse(scorer):
    good = torch.randn(9, 3, generator=generator(0))
    for bad, message in (
        (good[:1], "at least 2 rows"),
        (torch.full((9, 3), math.nan), "NaN or infinity"),
        (good[0], r"\(N, d\)"),
    ):
        with pytest.raises(CourseError, match=message):
            scorer().fit(bad)
    with pytest.raises(CourseError, match=r"call fit\(normal\) first"):
        scorer().score(good)
    assert torch.equal(scorer().fit(good.numpy()).score(good.numpy()), scorer().fit(good).score(good))
    with pytest.raises(CourseError, match="2 columns, and those learned from had 3"):
        scorer().fit(good).score(good[:, :2])
    with pytest.raises(CourseError, match="k must be a whole number of at least 1, and is 0"):
        defects.NearestNormal(0)
    with pytest.raises(CourseError, match="at least 5 rows"):
        defects.NearestNormal(5).fit(good[:4])


# -- patches ------------------------------------------------------------------------------------------------------------


def test_heat_maps_put_every_patch_in_its_place():
    maps = torch.randn(5, 3, 4, 6, generator=generator(0))
    scorer = defects.NearestNormal().fit(defects.rows(torch.randn(8, 3, 4, 6, generator=generator(1))))
    heat = defects.heat_maps(scorer, maps)
    assert heat.shape == (5, 4, 6)
    assert heat[3, 2, 5] == pytest.approx(scorer.score(maps[3, :, 2, 5][None]).item(), rel=1e-5)
    assert torch.equal(defects.worst_patch(heat), heat.flatten(1).max(dim=1).values)
    with pytest.raises(CourseError, match=r"\(N, d, h, w\)"):
        defects.rows(maps[0])


def test_pixel_patches_are_the_windows():
    pixels = pictures(2, 12)
    found = defects.pixel_patches(pixels, 4, 2)
    assert found.shape == (2, 48, 5, 5)
    window = pixels[1, :, 2:6, 4:8].float() / 255
    torch.testing.assert_close(found[1, :, 1, 2], window.flatten())
    with pytest.raises(CourseError, match="don't fit"):
        defects.pixel_patches(pixels, 13)


def test_a_planted_defect_is_the_strangest_place_of_a_plain_picture():
    plain = torch.full((12, 3, 32, 32), 120, dtype=torch.uint8) + torch.randint(
        0, 20, (12, 3, 32, 32), dtype=torch.uint8, generator=generator(0)
    )
    scorer = defects.NearestNormal().fit(defects.rows(defects.pixel_patches(plain)))
    planted = defects.plant(plain, ["scratch", "blot"])
    heat = defects.heat_maps(scorer, defects.pixel_patches(planted.images))
    for h, mask in zip(heat, planted.masks, strict=True):
        row, column = divmod(int(h.argmax()), h.shape[1])
        assert mask[2 * row : 2 * row + 4, 2 * column : 2 * column + 4].any()


# -- AUROC --------------------------------------------------------------------------------------------------------------


def test_auroc_is_the_share_of_pairs_in_the_right_order():
    dice = generator(0)
    scores = torch.randint(0, 8, (30,), generator=dice).float()
    bad = torch.rand(30, generator=dice) < 0.4
    pairs = [(b > g) + 0.5 * (b == g) for b in scores[bad].tolist() for g in scores[~bad].tolist()]
    assert defects.auroc(scores, bad) == pytest.approx(sum(pairs) / len(pairs))
    assert defects.auroc(-scores, bad) == pytest.approx(1 - sum(pairs) / len(pairs))
    assert defects.auroc(scores.exp(), bad) == pytest.approx(defects.auroc(scores, bad))


@pytest.mark.parametrize(
    "scores, bad, message",
    [
        (torch.rand(4), torch.ones(4, dtype=torch.bool), "one of the two is missing"),
        (torch.rand(4), torch.zeros(4, dtype=torch.bool), "one of the two is missing"),
        (torch.rand(4), torch.ones(4), "AUROC needs"),
        (torch.rand(4), torch.ones(3, dtype=torch.bool), "AUROC needs"),
        (torch.full((4,), math.nan), torch.arange(4) > 1, "NaN or infinity"),
    ],
)
def test_auroc_refuses(scores, bad, message):
    with pytest.raises(CourseError, match=message):
        defects.auroc(scores, bad)


def test_the_threshold_lets_the_asked_share_of_normal_pictures_through():
    scores = torch.arange(1000.0)
    cut = defects.threshold_for(scores, 0.05)
    assert (scores > cut).float().mean().item() == pytest.approx(0.05, abs=0.002)
    for bad in (0.0, 1.0, math.nan):
        with pytest.raises(CourseError, match=r"share in \(0, 1\)"):
            defects.threshold_for(scores, bad)
    with pytest.raises(CourseError, match="needs scores"):
        defects.threshold_for(scores[:0])
