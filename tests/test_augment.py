"""Augmentations against torchvision, against a loop, and against the mathematics."""

import pytest
import torch
import torch.nn.functional as F
import torchvision.transforms.v2.functional as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from sslcourse import augment
from sslcourse.device import generator


def random_images(n=5, height=32, width=32, seed=0):
    return torch.rand(n, 3, height, width, generator=generator(seed))


def test_rotate90_is_counter_clockwise_and_exact():
    image = torch.tensor([[1, 2], [3, 4]], dtype=torch.uint8).expand(1, 3, 2, 2)
    turned = augment.rotate90(image, torch.tensor([1]))
    assert turned[0, 0].tolist() == [[2, 4], [1, 3]]  # the right column has become the top row


@given(seed=st.integers(0, 1000), n=st.integers(1, 9), side=st.integers(1, 9))
@settings(max_examples=30, deadline=None)
def test_rotations_form_the_cyclic_group_of_four(seed, n, side):
    images = (random_images(n, side, side, seed) * 255).to(torch.uint8)
    turns = torch.randint(0, 4, (n,), generator=generator(seed))
    once = augment.rotate90(images, torch.ones(n, dtype=torch.long))
    for _ in range(3):
        once = augment.rotate90(once, torch.ones(n, dtype=torch.long))
    assert torch.equal(once, images)  # four quarter turns
    assert torch.equal(augment.rotate90(augment.rotate90(images, turns), -turns), images)  # the inverse
    by_loop = torch.stack([torch.rot90(x, int(t), (-2, -1)) for x, t in zip(images, turns, strict=True)])
    assert torch.equal(augment.rotate90(images, turns), by_loop)


def test_square_symmetries_are_eight_closed_and_invertible():
    image = torch.arange(9.0).reshape(1, 1, 3, 3)
    orbit = {tuple(augment.one_symmetry(image, e).flatten().tolist()): e for e in range(8)}
    assert len(orbit) == 8
    products = set()
    for a in range(8):
        row = [
            orbit[tuple(augment.one_symmetry(augment.one_symmetry(image, a), b).flatten().tolist())] for b in range(8)
        ]
        assert sorted(row) == list(range(8))  # a Latin square: closed, with inverses
        products.add(tuple(row))
    assert len(products) == 8
    assert torch.equal(augment.one_symmetry(image, 4), image.flip(-1))
    assert torch.equal(augment.one_symmetry(image, 6), image.flip(-2))


@pytest.mark.parametrize(
    ("top", "left", "height", "width", "out"),
    [(3, 5, 20, 22, 32), (0, 0, 32, 40, 16), (4, 1, 28, 30, 12), (2, 2, 7, 9, 33), (0, 0, 32, 40, 32)],
)
def test_crop_and_resize_equal_torch_antialiased_interpolation(top, left, height, width, out):
    images = random_images(4, 32, 40)
    cropped = images[:, :, top : top + height, left : left + width]
    expected = F.interpolate(cropped, (out, out), mode="bilinear", antialias=True, align_corners=False)
    column = torch.full((4,), 1.0)
    rows = augment.resampling_matrix(column * top, column * height, 32, out)
    columns = augment.resampling_matrix(column * left, column * width, 40, out)
    mirrored = augment.resampling_matrix(column * (left + width), -column * width, 40, out)
    torch.testing.assert_close(augment.resample(images, rows, columns), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(augment.resample(images, rows, mirrored), expected.flip(-1), atol=1e-5, rtol=0)


def test_blur_equals_torchvision_away_from_the_border():
    images = random_images(3, 31, 31)
    sigma = torch.tensor([0.5, 1.0, 1.5])
    matrix = augment.blur_matrix(sigma, 31)
    ours = augment.resample(images, matrix, matrix)
    for i, s in enumerate(sigma.tolist()):
        expected = reference.gaussian_blur(images[i], [21, 21], [s, s])
        torch.testing.assert_close(ours[i, :, 10:-10, 10:-10], expected[:, 10:-10, 10:-10], atol=1e-4, rtol=0)


def test_no_blur_is_the_identity():
    torch.testing.assert_close(augment.blur_matrix(torch.zeros(2), 7), torch.eye(7).expand(2, 7, 7))


def linear(images, brightness=1.0, saturation=1.0, hue=0.0):
    one = torch.ones(len(images))
    matrix = augment.color_matrix(one * brightness, one * saturation, one * hue)
    return (matrix @ images.flatten(2)).view_as(images)


def test_brightness_and_saturation_equal_torchvision():
    images = random_images() * 0.6 + 0.2  # nothing is clipped
    torch.testing.assert_close(linear(images, 0.7), reference.adjust_brightness(images, 0.7))
    # torchvision's weights of gray are 0.2989, 0.587, 0.114: a little under one in sum
    torch.testing.assert_close(linear(images, 1, 0.3), reference.adjust_saturation(images, 0.3), atol=2e-4, rtol=0)


def test_hue_turns_chroma_and_keeps_gray():
    images = random_images()
    luma = torch.tensor(augment.LUMA)
    for hue in (0.1, -0.3, 0.5):
        gray = torch.einsum("c,nchw->nhw", luma, images)
        torch.testing.assert_close(torch.einsum("c,nchw->nhw", luma, linear(images, hue=hue)), gray, atol=1e-5, rtol=0)
    torch.testing.assert_close(linear(images, hue=1.0), images, atol=1e-5, rtol=0)
    torch.testing.assert_close(linear(linear(images, hue=0.2), hue=-0.2), images, atol=1e-5, rtol=0)


def test_contrast_equals_torchvision():
    images = random_images() * 0.2 + 0.4
    dice = generator(3)
    ours = augment.color_jitter(images, dice, 0, 0.4, 0, 0, probability=1, gray=0)
    middle = torch.einsum("c,nchw->nhw", torch.tensor(augment.LUMA), images).mean((1, 2))[:, None, None, None]
    factor = ((ours - middle) / (images - middle)).flatten(1).median(dim=1).values
    assert factor.min() >= 0.6 and factor.max() <= 1.4 and factor.std() > 0.01
    for i, f in enumerate(factor.tolist()):
        torch.testing.assert_close(ours[i], reference.adjust_contrast(images[i], f), atol=1e-3, rtol=0)


@given(
    seed=st.integers(0, 10_000), n=st.integers(1, 6), height=st.integers(4, 40), width=st.integers(4, 40),
    size=st.integers(1, 40),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_augmentations_keep_shape_and_range_and_obey_their_generator(seed, n, height, width, size):
    images = random_images(n, height, width, seed)
    before = images.clone()

    def every(dice):
        crop = augment.random_resized_crop(images, dice, size, blur=0.5)
        jitter = augment.color_jitter(images, dice, 0.8, 0.8, 0.8, 0.2)
        sun = augment.solarize(images, dice, 0.5)
        return crop, jitter, sun, augment.random_flip(images, dice), augment.random_shift(images, dice, 2)

    first, second = every(generator(seed)), every(generator(seed))
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)
        assert a.min() >= -1e-6 and a.max() <= 1 + 1e-5
    assert first[0].shape == (n, 3, size, size)
    assert all(x.shape == images.shape for x in first[1:])
    assert torch.equal(images, before)


def test_augmentations_leave_the_global_generator_alone():
    state = torch.get_rng_state()
    augment.color_jitter(augment.random_resized_crop(random_images(), generator(0)), generator(1))
    assert torch.equal(torch.get_rng_state(), state)


def test_constant_images_stay_constant_under_geometry():
    images = torch.full((6, 3, 20, 20), 0.3)
    crop = augment.random_resized_crop(images, generator(0), 13, blur=1.0)
    torch.testing.assert_close(crop, torch.full_like(crop, 0.3))
    assert torch.equal(augment.random_shift(images, generator(0)), images)


def test_random_shift_moves_by_whole_pixels():
    images = random_images(50, 12, 12)
    moved = augment.random_shift(images, generator(0), pixels=2)
    inner = images[:, :, 4:8, 4:8]
    seen = set()
    for i in range(50):
        place = [
            (dy, dx)
            for dy in range(-2, 3)
            for dx in range(-2, 3)
            if torch.equal(moved[i, :, 4 + dy : 8 + dy, 4 + dx : 8 + dx], inner[i])
        ]
        assert len(place) == 1
        seen.add(place[0])
    assert len(seen) > 15


def test_to_float_scales_bytes_and_passes_floats():
    assert augment.to_float(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [0.0, 1.0]
    x = torch.tensor([0.5])
    assert augment.to_float(x) is x


RECIPES = [{}, {"blur": 0.5, "solarized": 0.3}, {"jitter": 0.0, "gray": 0.0}, {"size": 12, "scale": (0.1, 0.4)}]


@pytest.mark.parametrize("recipe", RECIPES)
def test_views_drawn_together_are_those_drawn_one_after_the_other(recipe):
    images = (random_images(6, 24, 20) * 255).to(torch.uint8)
    together, dice = augment.view(images, generator(4), times=3, **recipe), generator(4)
    one_by_one = [augment.view(images, dice, **recipe) for _ in range(3)]
    torch.testing.assert_close(together, torch.cat(one_by_one), atol=1e-6, rtol=0)
    assert not torch.equal(one_by_one[0], one_by_one[1])


def test_a_view_is_a_crop_then_jitter_then_solarization_from_one_source_of_chance():
    images, dice = random_images(6), generator(4)
    found = augment.view(images, generator(4), jitter=1.0, blur=0.5, solarized=0.5)
    crop = augment.random_resized_crop(images, dice, scale=(0.2, 1.0), blur=0.5, sigma=(0.1, 32 / 112))
    jittered = augment.color_jitter(crop, dice, 0.8, 0.8, 0.8, 0.2)
    torch.testing.assert_close(found, augment.solarize(jittered, dice, 0.5), atol=1e-6, rtol=0)


def test_resampling_is_the_triangle_within_the_crop():
    """The formula as it is written down, with a mask, and as two sums over pixels."""
    start, length = torch.tensor([0.0, 3.3, 20.0, 5.0]), torch.tensor([32.0, 17.9, -12.5, 3.0])
    matrix = augment.resampling_matrix(start, length, 32, 8)
    pixel, target = torch.arange(32) + 0.5, (torch.arange(8) + 0.5) / 8
    centre, reach = start[:, None] + target * length[:, None], (length.abs() / 8).clamp(min=1)[:, None, None]
    low, high = torch.minimum(start, start + length), torch.maximum(start, start + length)
    weight = (1 - (centre[..., None] - pixel).abs() / reach).clamp(min=0)
    weight = weight * ((pixel > low[:, None, None]) & (pixel < high[:, None, None]))
    torch.testing.assert_close(matrix, weight / weight.sum(-1, keepdim=True), atol=1e-6, rtol=0)
    images = random_images(4)
    expected = torch.einsum("nhH,nwW,ncHW->nchw", matrix, matrix, images)
    torch.testing.assert_close(augment.resample(images, matrix, matrix), expected, atol=1e-5, rtol=0)
    lines = augment.in_lines(images)
    assert torch.equal(lines, images)
    assert torch.equal(augment.resample(lines, matrix, matrix), augment.resample(images, matrix, matrix))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_flip_mirrors_whole_images(dtype):
    images = (random_images(40, 5, 6) * 255).to(dtype)
    mirrored = torch.rand(40, generator=generator(2)) < 0.5
    expected = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
    assert torch.equal(augment.random_flip(images, generator(2)), expected)
