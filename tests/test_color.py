"""Lab against scikit-image and against itself; bins, soft labels and colourfulness against brute force."""

import numpy as np
import pytest
import torch
from skimage import color as trusted

from sslcourse import color
from sslcourse.device import generator


def pictures(n=4, side=16, seed=0):
    return torch.rand(n, 3, side, side, generator=generator(seed))


def every_seventh():
    """Colours all over the cube, the corners included: (1, 3, 37, 37 * 37)."""
    line = torch.arange(0, 256, 7).clamp(max=255) / 255
    line = torch.cat([line, torch.ones(37 - len(line))]) if len(line) < 37 else line
    return torch.cartesian_prod(line, line, line).T.reshape(1, 3, 37, -1)


@pytest.mark.parametrize("images", [pictures(), every_seventh()], ids=["noise", "cube"])
def test_lab_is_scikit_images(images):
    lab = color.rgb_to_lab(images)
    expected = trusted.rgb2lab(images.double().numpy(), channel_axis=1)
    np.testing.assert_allclose(lab.numpy(), expected, atol=2e-4)  # float32, for values up to 110
    np.testing.assert_allclose(color.rgb_to_lab(images.double()).numpy(), expected, atol=1e-4)
    back = trusted.lab2rgb(expected, channel_axis=1)
    np.testing.assert_allclose(color.lab_to_rgb(torch.from_numpy(expected)).numpy(), back, atol=1e-4)


@pytest.mark.parametrize("images", [pictures(), every_seventh()], ids=["noise", "cube"])
def test_there_and_back_is_the_identity(images):
    torch.testing.assert_close(color.lab_to_rgb(color.rgb_to_lab(images)), images, atol=1e-4, rtol=0)


def test_gray_has_no_ab_and_white_is_100():
    gray = torch.linspace(0, 1, 256).view(1, 1, 16, 16).expand(-1, 3, -1, -1)
    lab = color.rgb_to_lab(gray)
    assert lab[:, 1:].abs().max() < 0.02 and color.chroma(lab).max() < 0.02
    assert abs(lab[:, 0].max() - 100) < 1e-3 and abs(lab[:, 0].min()) < 1e-3
    assert (lab[0, 0].flatten().diff() > 0).all()  # lighter is lighter


def test_the_table_for_whole_numbers_and_the_shortcut_to_lightness_are_the_same():
    whole = torch.arange(256 * 3, dtype=torch.int64).remainder(256).to(torch.uint8).view(1, 3, 16, 16)
    lab = color.rgb_to_lab(whole / 255)
    torch.testing.assert_close(color.rgb_to_lab(whole), lab)
    torch.testing.assert_close(color.lightness(whole), lab[:, :1])
    torch.testing.assert_close(color.lightness(whole / 255), lab[:, :1])


def test_known_colours():
    red, green, blue = (color.rgb_to_lab(torch.eye(3)[i].view(1, 3, 1, 1)).flatten() for i in range(3))
    for found, known in (
        (red, (53.24, 80.09, 67.20)),
        (green, (87.73, -86.18, 83.18)),
        (blue, (32.30, 79.19, -107.86)),
    ):
        assert (found - torch.tensor(known)).abs().max() < 0.02


def test_no_colour_of_the_screen_lies_beyond_reach():
    assert color.rgb_to_lab(every_seventh())[:, 1:].abs().max() < color.REACH


def test_colorfulness_is_the_formula_and_zero_for_gray():
    image = pictures(1)[0].double().numpy()
    rg, yb = image[0] - image[1], (image[0] + image[1]) / 2 - image[2]
    expected = np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean())
    assert abs(color.colorfulness(pictures(1)).item() - expected) < 1e-5
    assert color.colorfulness(pictures(2)[:, :1].expand(-1, 3, -1, -1)).abs().max() < 1e-6


@pytest.mark.parametrize("width", [10, 20])
def test_every_colour_has_its_bin(width):
    centres = color.bins(width)
    assert len(centres.unique(dim=0)) == len(centres)
    ab = color.rgb_to_lab(every_seventh())[:, 1:].flatten(2)[0].T  # (M, 2)
    assert torch.cdist(ab, centres).min(dim=1).values.max() <= width * 2**0.5 / 2 + 1e-3


def test_soft_labels_are_the_five_nearest_bins_weighed_by_distance():
    index, share = color.soft_assignment(10)
    torch.testing.assert_close(share.sum(1), torch.ones(len(share)))
    centres = color.bins(10)
    lab = color.rgb_to_lab(pictures(1, side=6))
    rows = color.table_rows(lab[:, 1:]).flatten()
    for row, (a, b) in zip(rows.tolist(), lab[0, 1:].flatten(1).T.round().tolist(), strict=True):
        distance = ((centres - torch.tensor([a, b])) ** 2).sum(1).sqrt()
        nearest = distance.sort().values[:5]
        torch.testing.assert_close(distance[index[row]], nearest, atol=1e-3, rtol=0)
        weight = torch.exp(-(nearest**2) / (2 * 5**2))
        torch.testing.assert_close(share[row], weight / weight.sum(), atol=1e-4, rtol=1e-3)
