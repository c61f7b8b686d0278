"""Widgets: each is built, and each of its controls changes the picture."""

from __future__ import annotations

import ipywidgets
import pytest
import torch

from sslcourse import widgets
from sslcourse.data.world import draw
from sslcourse.errors import CourseError


def controls(box):
    """The controls above the picture, by description."""
    return {control.description: control for control in box.children[0].children}


def other_value(control):
    """A value that the control doesn't have now."""
    if isinstance(control, ipywidgets.FloatLogSlider):
        return control.value / 3
    if hasattr(control, "options"):
        return next(value for _, value in control._options_full if value != control.value)
    return control.min if control.value > control.min else control.max


def assert_every_control_redraws(box):
    picture = box.children[1]
    assert picture.value[:8] == b"\x89PNG\r\n\x1a\n" and picture.alt
    assert controls(box)
    for name, control in controls(box).items():
        before = picture.value
        control.value = other_value(control)
        assert picture.value != before, f"moving {name!r} changes nothing"


# -- lesson 08 ----------------------------------------------------------------------------------------------------------


def test_similarity_temperature_slider():
    situations = {"ahead": torch.tensor([0.9, 0.2, 0.1]), "behind": torch.tensor([0.3, 0.8, 0.1, -0.5])}
    assert_every_control_redraws(widgets.similarity_temperature_slider(situations))
    with pytest.raises(CourseError, match="at least one row"):
        widgets.similarity_temperature_slider({})


def test_view_strength_slider():
    images = draw("val", 3).images
    assert_every_control_redraws(widgets.view_strength_slider(images, views=3))
    with pytest.raises(CourseError, match="at least one image"):
        widgets.view_strength_slider(images[:0])


def test_views_of_the_slider_begin_with_the_picture_and_repeat():
    image = draw("val", 1).images[0]
    weak, strong = (widgets.draw_views(image, 4, crop, 0.0, 0.0) for crop in (1.0, 0.2))
    assert weak.shape == strong.shape == (5, 3, 32, 32)
    assert torch.equal((weak[0] * 255).round().to(torch.uint8), image)
    assert torch.equal(strong, widgets.draw_views(image, 4, 0.2, 0.0, 0.0))
    change = [torch.minimum((v[1:] - v[0]).abs().mean(), (v[1:] - v[0].flip(-1)).abs().mean()) for v in (weak, strong)]
    assert change[0] < change[1]


# -- lesson 09 ----------------------------------------------------------------------------------------------------------


def test_neighbour_explorer():
    images = draw("val", 8).images
    pixels = images.flatten(1).float()
    box = widgets.neighbour_explorer(images, {"pixels": pixels, "noise": torch.randn(8, 4)}, torch.arange(8) % 2)
    assert_every_control_redraws(box)
    with pytest.raises(CourseError, match="at least two images"):
        widgets.neighbour_explorer(images[:1], {"pixels": pixels[:1]})
    with pytest.raises(CourseError, match="'pixels' has 7 rows, and there are 8"):
        widgets.neighbour_explorer(images, {"pixels": pixels[:7]})


def test_neighbours_are_the_nearest_and_never_the_picture_itself():
    images = draw("val", 4).images
    features = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 2.0], [5.0, 0.1]])
    figure = widgets.draw_neighbours(images, {"two numbers": features}, 0, 2, torch.tensor([0, 1, 1, 0]))
    drawn = [torch.from_numpy(axis.images[0].get_array().copy()).movedim(-1, 0) for axis in figure.axes]
    assert all(torch.equal(one, images[i]) for one, i in zip(drawn, (0, 3, 1), strict=True))
    assert [axis.get_title() for axis in figure.axes] == ["picture", "1.00 same", "0.99"]
