"""Inspection of several products: against loops over single pieces, and what may not be learned from."""

import pytest
import torch

from sslcourse.data.imageset import ImageSet
from sslcourse.device import generator
from sslcourse.errors import CourseError
from sslcourse.transfer import defects, inspection

PRODUCTS = torch.tensor([0, 2] * 20)


def line(seed):
    """Forty gray pieces of two products, 0 and 2: those of one are dark, those of the other bright and less alike."""
    noise = torch.randint(0, 20, (40, 3, 8, 8), dtype=torch.uint8, generator=generator(seed))
    bright = (PRODUCTS == 2)[:, None, None, None]
    return ImageSet(torch.where(bright, 100 + 3 * noise, noise), PRODUCTS, ("a", "b", "c"))


def brightness(images):
    return images.float().mean(dim=(2, 3))  # (N, 3)


@pytest.fixture(scope="module")
def inspector():
    return inspection.Inspector(brightness, defects.NearestNormal).fit(line(0), line(1))


@pytest.fixture(scope="module")
def scores(inspector):
    pieces = line(2)
    return inspector.inspect(pieces, {kind: defects.plant(pieces, kind) for kind in ("blot", "scratch")})


def test_a_score_is_of_its_own_product_in_deviations_of_held_out_good_pieces(scores):
    pieces = line(2)
    for i in (0, 1, 17):
        mine = PRODUCTS == PRODUCTS[i]
        scorer = defects.NearestNormal().fit(brightness(line(0).images[mine]))
        held_out = scorer.score(brightness(line(1).images[mine]))
        spoiled = defects.plant(pieces, "blot").images
        for name, images in {"good": pieces.images, "blot": spoiled}.items():
            asked = scorer.score(brightness(images[i : i + 1])).item()
            expected = (asked - held_out.mean().item()) / held_out.std().item()
            assert scores[name][i].item() == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_areas_are_those_of_each_product(scores):
    areas = inspection.areas(scores, PRODUCTS)
    assert list(areas) == ["blot", "scratch", "all"]
    for place, product in enumerate((0, 2)):
        mine = PRODUCTS == product
        both = torch.cat([scores["good"][mine], scores["blot"][mine], scores["scratch"][mine]])
        assert areas["blot"].values[place] == defects.auroc(both[:40], torch.arange(40) >= 20)
        assert areas["all"].values[place] == defects.auroc(both, torch.arange(60) >= 20)


def test_nothing_is_learned_from_what_is_inspected(inspector, scores):
    pieces = line(2)
    alone = inspector.score(pieces.images[:3], PRODUCTS[:3])
    assert torch.allclose(alone, scores["good"][:3], atol=1e-5)


def test_what_cant_be_inspected_is_said(inspector):
    one = inspection.Inspector(brightness, defects.NearestNormal)
    with pytest.raises(CourseError, match="product 0.*fit"):
        one.score(line(0).images, PRODUCTS)
    with pytest.raises(CourseError, match="product 1"):
        inspector.score(line(0).images[:1], torch.tensor([1]))
    with pytest.raises(CourseError, match="0 held-out"):
        one.fit(line(0), line(1).select(PRODUCTS == 2))
    with pytest.raises(CourseError, match="no labels"):
        one.fit(line(0), ImageSet(line(1).images))
    with pytest.raises(CourseError, match="only good"):
        inspection.areas({"good": torch.rand(40)}, PRODUCTS)


def test_a_picture_is_as_strange_as_its_strangest_patch():
    maps = torch.randn(30, 2, 3, 3, generator=generator(0))
    scorer = defects.StrangestPatch(20).fit(maps)
    patches = defects.Mahalanobis().fit(defects.rows(maps[:20])).score(defects.rows(maps))
    assert torch.allclose(scorer.score(maps), patches.view(30, 9).amax(dim=1))
    with pytest.raises(CourseError, match="fit"):
        defects.StrangestPatch().score(maps)
