"""The linear probe of single patches: its targets, its closed form, and what it must not see."""

import pytest
import torch

from sslcourse.data import world
from sslcourse.device import generator
from sslcourse.errors import CourseError
from sslcourse.transfer import patchwise, segmentation


@pytest.fixture(scope="module")
def images():
    return world.draw("train", 24)


def test_a_patch_has_the_class_of_most_of_its_pixels(images):
    found, masks = patchwise.patch_classes(images, 8), segmentation.semantic_masks(images)
    for n, i, j in [(0, 0, 0), (3, 4, 4), (5, 3, 6), (7, 5, 2)]:
        assert found[n, i, j] == masks[n, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4].flatten().bincount().argmax()
    assert found.unique().numel() > 2
    with pytest.raises(CourseError, match="7 patches in a row don't tile masks of 32x32 pixels"):
        patchwise.patch_classes(images, 7)


def test_what_the_features_say_is_read_and_noise_says_nothing(images):
    truth = torch.nn.functional.one_hot(patchwise.patch_classes(images, 8), 11).movedim(3, 1).float()
    noise = torch.randn(24, 5, 8, 8, generator=generator(0))
    probe = patchwise.PatchProbe().fit(
        100 + torch.cat([3 * truth, noise], 1), images, 100 + torch.cat([3 * truth, noise], 1), images
    )
    assert probe.mean_iou(100 + torch.cat([3 * truth, noise], 1), images) > 0.99
    other = torch.randn(24, 5, 8, 8, generator=generator(1))
    assert patchwise.PatchProbe().fit(noise, images, other, images).mean_iou(other, images) < 0.15


def test_it_is_ridge_regression_and_the_penalty_is_chosen_on_validation(images):
    from sklearn.linear_model import Ridge

    maps, val = (torch.randn(24, 6, 8, 8, generator=generator(i)) for i in (2, 3))
    probe = patchwise.PatchProbe((7.0,)).fit(maps, images, val, images)
    x = maps.movedim(1, 3).flatten(0, 2).double()
    x = (x - x.mean(0)) / x.std(0)
    y = torch.nn.functional.one_hot(patchwise.patch_classes(images, 8).flatten(), 11).double()
    theirs = Ridge(7.0, fit_intercept=False).fit(torch.cat([x, torch.ones(len(x), 1)], 1).numpy(), y.numpy())
    torch.testing.assert_close(probe.weight, torch.from_numpy(theirs.coef_.T), atol=1e-6, rtol=1e-5)
    several = patchwise.PatchProbe((1.0, 1e6)).fit(maps, images, val, images)
    scores = {p: patchwise.PatchProbe((p,)).fit(maps, images, val, images).mean_iou(val, images) for p in (1.0, 1e6)}
    assert several.penalty == max(scores, key=scores.get)
