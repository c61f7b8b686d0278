"""Scores of attention against masks: by hand, against a loop over pixels, and blind to sharpness."""

import pytest
import torch
from sklearn.metrics import roc_auc_score

from sslcourse import attention, backbones
from sslcourse.data import world
from sslcourse.errors import CourseError


@pytest.fixture(scope="module")
def some():
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(6, 4, 4, generator=generator).softmax(dim=2)
    maps[0, 0, 0] = maps[0, 2, 1]  # a tie
    masks = torch.zeros(6, 16, 16, dtype=torch.uint8)
    for n in range(6):
        masks[n, n : n + 7, 2 : 9 + n] = 1 + n % 2
    return maps, masks


def pixels_of(maps):
    return maps.repeat_interleave(4, dim=1).repeat_interleave(4, dim=2)


def test_auc_is_that_of_the_pixels(some):
    maps, masks = some
    wanted = [roc_auc_score((m != 0).flatten(), p.flatten()) for m, p in zip(masks, pixels_of(maps), strict=True)]
    assert attention.auc(maps, masks).tolist() == pytest.approx(wanted, abs=1e-6)


def test_jaccard_is_that_of_the_pixels(some):
    maps, masks = some
    for mass in (0.2, 0.6, 0.9):
        for n, (level, mask) in enumerate(zip(maps, masks, strict=True)):
            share, kept, left = level / level.sum(), torch.zeros(4, 4, dtype=torch.bool), 0.0
            for place in level.flatten().argsort().tolist():
                left += share.flatten()[place].item()
                kept.view(-1)[place] = left > 1 - mass
            chosen, thing = pixels_of(kept[None])[0], mask != 0
            wanted = ((chosen & thing).sum() / (chosen | thing).sum()).item()
            assert attention.jaccard(maps[n : n + 1], masks[n : n + 1], mass).item() == pytest.approx(wanted, abs=1e-6)


def test_auc_does_not_see_sharpness(some):
    maps, masks = some
    assert torch.allclose(attention.auc(maps**20, masks), attention.auc(maps, masks), atol=1e-6)
    assert torch.allclose(attention.auc(-maps, masks), 1 - attention.auc(maps, masks), atol=1e-6)


def test_a_map_that_knows_nothing_and_one_that_knows_all(some):
    _, masks = some
    masks = masks.clone()
    masks[:] = 0
    masks[:, 4:8, 8:16] = 3
    flat, right = torch.ones(6, 4, 4), attention.covered(masks, 4)
    assert attention.auc(flat, masks).tolist() == [0.5] * 6
    assert attention.auc(right, masks).tolist() == [1.0] * 6
    assert attention.jaccard(right, masks).tolist() == [1.0] * 6
    empty = attention.auc(flat, torch.zeros_like(masks))
    assert empty.isnan().all()
    assert attention.mean_scores(flat, masks) == {"AUC": 0.5, "Jaccard": pytest.approx(2 / 16, abs=0.1)}


def test_controls():
    maps = torch.rand(24, 2, 8, 8)
    assert torch.equal(attention.others(maps)[1], maps[0])
    gray = torch.full((1, 3, 16, 16), 100, dtype=torch.uint8)
    gray[0, 0, :4, :4] = 255
    contrast = attention.colour_contrast(gray, 4)
    assert contrast[0].argmax() == 0 and contrast[0, 1:].std() < 1e-6


def test_a_transformer_is_compared_with_maps_that_did_not_look():
    shown, other = world.draw("val", 24, mode="crowd"), world.draw("train", 24, mode="crowd")
    vit = backbones.build("vit-tiny")
    found = attention.compared({"random": vit}, shown, other, device="cpu")
    assert set(found) == {"random", "random, another picture's", "mean mask", "colour contrast"}
    heads = attention.by_head(vit, shown, device="cpu")
    scores = [attention.mean_scores(heads[:, h], shown.instances) for h in range(4)]
    chosen = attention.auc(
        attention.by_head(vit, other, device="cpu").flatten(0, 1), other.instances.repeat_interleave(4, 0)
    )
    assert found["random"] == scores[chosen.view(24, 4).nanmean(dim=0).argmax()], (
        "the head is chosen on the other pictures"
    )
    assert all(0.5 < found[name]["AUC"] < 1 for name in ("mean mask", "colour contrast"))
    with pytest.raises(CourseError, match="masks"):
        attention.compared({}, world.draw("unlabeled", 4), other)


def test_heads_one_by_one():
    backbone = backbones.build("vit-tiny").train()
    images = world.draw("val", 5)
    maps = attention.by_head(backbone, images, batch_size=2, device="cpu")
    assert maps.shape == (5, 4, 8, 8) and backbone.training
    assert (maps > 0).all() and (maps.sum(dim=(2, 3)) < 1).all()
    mean = attention.attention_maps(backbone, images, device="cpu")
    assert torch.allclose(mean, maps.mean(dim=1) / maps.mean(dim=1).sum(dim=(1, 2), keepdim=True), atol=1e-6)
    with pytest.raises(CourseError, match="vit-tiny"):
        attention.by_head(backbones.build("resnet-tiny"), images)
