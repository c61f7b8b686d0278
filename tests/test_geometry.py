"""What says whether features have collapsed, and where a transformer looks."""

import math

import pytest
import torch

from sslcourse import backbones, geometry
from sslcourse.device import generator
from sslcourse.errors import CourseError


def test_alignment_and_uniformity_are_loops():
    a, b = (torch.randn(6, 4, generator=generator(i)) for i in (0, 1))
    unit = lambda x: x / x.norm()  # noqa: E731
    near = sum(float((unit(x) - unit(y)).square().sum()) for x, y in zip(a, b, strict=True)) / 6
    assert math.isclose(geometry.alignment(a, b), near, rel_tol=1e-5)
    pairs = [(i, j) for i in range(6) for j in range(i)]
    mean = sum(math.exp(-2 * float((unit(a[i]) - unit(a[j])).square().sum())) for i, j in pairs) / len(pairs)
    assert math.isclose(geometry.uniformity(a), math.log(mean), rel_tol=1e-4)
    assert geometry.alignment(a, 3 * a) < 1e-9 and geometry.uniformity(torch.ones(5, 3)) == 0


def test_effective_rank_counts_dimensions():
    wide = torch.randn(4000, 8, generator=generator(0))
    assert abs(geometry.effective_rank(wide) - 8) < 0.05
    flat = wide[:, :3] @ torch.linalg.qr(torch.randn(8, 3, generator=generator(1)))[0].T
    assert abs(geometry.effective_rank(flat + 5) - 3) < 0.05  # a shift changes nothing
    assert math.isclose(geometry.effective_rank(torch.arange(9.0)[:, None] * torch.ones(1, 4)), 1, abs_tol=1e-4)
    assert geometry.effective_rank(torch.full((20, 4), 3.0)) == 0


def test_attention_maps_are_shares_and_count_what_is_inside():
    images = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8, generator=generator(0))
    maps = geometry.attention_maps(backbones.build("vit-tiny"), images, batch_size=2)
    assert maps.shape == (5, 8, 8)
    torch.testing.assert_close(maps.sum((1, 2)), torch.ones(5))
    masks = torch.zeros(5, 32, 32, dtype=torch.uint8)
    masks[:, :16] = 1
    torch.testing.assert_close(geometry.share_inside(maps, masks), maps[:, :4].sum((1, 2)))
    even = torch.full((5, 8, 8), 1 / 64)
    masks[:, 16:18] = 2  # half a patch: counted by half
    torch.testing.assert_close(geometry.share_inside(even, masks), torch.full((5,), 18 / 32))
    with pytest.raises(CourseError, match="has no attention"):
        geometry.attention_maps(backbones.build(), images)


def test_a_partner_is_the_nearest_of_all_views_of_its_batch():
    z = torch.eye(8)[:6]  # six pictures, each with a direction of its own
    assert geometry.partner_accuracy(z, 3 * z, pictures=6) == 1.0
    assert geometry.partner_accuracy(z, z.roll(1, dims=0), pictures=6) == 0.0
    other = z.clone()
    other[5] = z[0]  # picture 5's second view is where both of picture 0 are
    assert math.isclose(geometry.partner_accuracy(z, other, pictures=6), 10 / 12, rel_tol=1e-6)
    assert geometry.partner_accuracy(z[:5], torch.cat([z[:4], -z[4:5]]), pictures=4) == 1.0  # the fifth is no batch
    with pytest.raises(CourseError, match="5 pictures are less than a batch of 128"):
        geometry.partner_accuracy(z[:5], z[:5])
