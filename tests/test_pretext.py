"""Rotation and transformation prediction: what they show, what they ask, what they must not do."""

import math

import pytest
import torch
from captions import EVERY_TASK, material

from sslcourse import augment, backbones, pretext
from sslcourse.device import generator
from sslcourse.pretext.rotation import Rotation
from sslcourse.pretext.transformation import ELEMENT_NAMES, GROUPS, Transformation


def pictures(n=6, side=12):
    return torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, generator=generator(0))


def test_tasks_are_found_without_a_list():
    assert {"rotation", "transformation"} <= set(pretext.tasks())
    assert pretext.tasks()["rotation"] is Rotation


def test_all_four_rotations_of_each_image_with_balanced_labels():
    images = pictures()
    task = Rotation(backbones.build(), flip=False)
    rotated, turns = task.views(images, generator(0))
    assert torch.bincount(turns).tolist() == [6, 6, 6, 6]
    for t in range(4):
        assert torch.equal(rotated[turns == t], torch.rot90(images / 255, t, (-2, -1)))
    assert torch.equal(augment.rotate90(rotated, -turns), (images / 255).repeat(4, 1, 1, 1))  # undone, it is restored


def test_one_drawn_rotation_per_image():
    images = pictures(4000, 2)
    rotated, turns = Rotation(backbones.build(), all_rotations=False, flip=False).views(images, generator(1))
    assert rotated.shape == images.shape
    assert torch.equal(augment.rotate90(rotated, -turns), images / 255)
    assert (torch.bincount(turns) - 1000).abs().max() < 5 * math.sqrt(4000 * 0.25 * 0.75)


def test_flips_come_before_the_turn_so_that_the_label_stays_true():
    images = pictures(64)
    rotated, turns = Rotation(backbones.build()).views(images, generator(0))
    upright = augment.rotate90(rotated, -turns)
    plain, mirrored = (images / 255).repeat(4, 1, 1, 1), (images / 255).flip(-1).repeat(4, 1, 1, 1)
    is_plain, is_mirrored = ((upright == x).flatten(1).all(1) for x in (plain, mirrored))
    assert (is_plain | is_mirrored).all() and is_plain.any() and is_mirrored.any()


@pytest.mark.parametrize("group", list(GROUPS))
@pytest.mark.parametrize("every", [True, False])
def test_transformation_shows_the_elements_of_its_group(group, every):
    images = pictures(10)
    task = Transformation(backbones.build(), group=group, all_elements=every)
    moved, answer = task.views(images, generator(0))
    source = (images / 255).repeat(len(GROUPS[group]) if every else 1, 1, 1, 1)
    for x, y, a in zip(source, moved, answer, strict=True):
        assert torch.equal(y, augment.one_symmetry(x, GROUPS[group][a]))


@pytest.mark.parametrize("group", list(GROUPS))
def test_groups_are_groups(group):
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    orbit = [augment.one_symmetry(image, e) for e in GROUPS[group]]
    for x in orbit:
        for e in GROUPS[group]:
            assert any(torch.equal(augment.one_symmetry(x, e), y) for y in orbit)
    assert len(ELEMENT_NAMES) == 8


@pytest.mark.parametrize(
    ("make", "classes"),
    [(Rotation, 4), (lambda b: Rotation(b, all_rotations=False), 4), (Transformation, 8),
     (lambda b: Transformation(b, group="flips"), 4), (lambda b: Transformation(b, group="mirror"), 2)],
)  # fmt: skip
def test_the_first_loss_is_the_logarithm_of_the_number_of_answers(make, classes):
    task = make(backbones.build())
    loss, metrics = task(*task.views(pictures(), generator(0)))
    assert math.isclose(loss.item(), math.log(classes), rel_tol=1e-6)
    assert not metrics["accuracy"].requires_grad


def test_views_are_reproducible_and_leave_images_and_global_generator_alone():
    images = pictures(side=16)
    before, state = images.clone(), torch.get_rng_state()
    for name, kind in EVERY_TASK.items():
        task = pretext.build(name, backbones.build(kind.arch, image_size=16))
        a, b = (task.views(images, generator(5), *task.beside(material(name, images))) for _ in range(2))
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert torch.equal(images, before) and torch.equal(torch.get_rng_state(), state)


def test_options_rebuild_the_task():
    for name, task in EVERY_TASK.items():
        built = task(backbones.build(task.arch))
        assert built.options() == pretext.option_defaults(task), name
