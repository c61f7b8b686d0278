"""Windows, tiles and patches against loops over pixels."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sslcourse import patches
from sslcourse.device import generator
from sslcourse.errors import CourseError


def pictures(n=3, height=12, width=12, channels=3):
    return torch.arange(n * channels * height * width).view(n, channels, height, width).float()


def test_windows_are_slices():
    images = pictures(3, 10, 14)
    top, left = torch.tensor([0, 4, 2]), torch.tensor([10, 0, 5])
    found = patches.windows(images, top, left, 4)
    for i in range(3):
        assert torch.equal(found[i], images[i, :, top[i] : top[i] + 4, left[i] : left[i] + 4])


@pytest.mark.parametrize("grid", [2, 3])
def test_without_a_gap_tiles_are_a_partition(grid):
    images = pictures(2, 12, 12)
    tiles = patches.tiles(images, grid, 12 // grid)
    assert torch.equal(tiles.flatten(1).sort().values, images.flatten(1).sort().values)  # every pixel once
    rows = [torch.cat(list(tiles[0, r * grid : (r + 1) * grid]), dim=2) for r in range(grid)]
    assert torch.equal(torch.cat(rows, dim=1), images[0])
    for _ in range(3):  # with no room in the cell, drawing changes nothing
        assert torch.equal(patches.tiles(images, grid, 12 // grid, generator(1)), tiles)


@pytest.mark.parametrize("grid", [2, 3])
def test_drawn_tiles_stay_in_their_cell_and_reach_all_of_it(grid):
    images = torch.arange(12 * 12).view(1, 1, 12, 12).expand(500, -1, -1, -1)
    cell, size = 12 // grid, 12 // grid - 1
    tiles = patches.tiles(images, grid, size, generator(0))
    for k in range(grid * grid):
        top, left = tiles[:, k, 0, 0, 0] // 12 - k // grid * cell, tiles[:, k, 0, 0, 0] % 12 - k % grid * cell
        assert sorted(top.unique().tolist()) == sorted(left.unique().tolist()) == [0, 1]


def test_a_tile_that_does_not_fit_is_refused():
    with pytest.raises(CourseError, match="a tile of 5 pixels doesn't fit the 4x4 pixels"):
        patches.tiles(pictures(), 3, 5)
    with pytest.raises(CourseError, match="a tile of 0 pixels"):
        patches.tiles(pictures(), 3, 0)


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))
def test_patchify_and_back_is_the_identity(patch, rows, columns, channels):
    images = pictures(2, patch * rows, patch * columns, channels)
    flat = patches.patchify(images, patch)
    assert flat.shape == (2, rows * columns, patch * patch * channels)
    assert torch.equal(patches.unpatchify(flat, patch, patch * rows, patch * columns), images)


def test_patches_are_read_row_by_row_with_the_channels_of_a_pixel_together():
    images = pictures(1, 4, 4)
    flat = patches.patchify(images, 2)
    for place, (r, c) in enumerate([(0, 0), (0, 2), (2, 0), (2, 2)]):
        expected = [images[0, ch, r + y, c + x] for y in range(2) for x in range(2) for ch in range(3)]
        assert flat[0, place].tolist() == [float(value) for value in expected]
    with pytest.raises(CourseError, match="patches of 3 pixels don't tile images of 4x4"):
        patches.patchify(images, 3)
