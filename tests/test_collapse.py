"""A task is looked at while it trains, and stays as it was."""

import copy

import torch

from sslcourse import backbones, collapse, pretext
from sslcourse.data import world
from sslcourse.train import TrainConfig


def parts():
    images = world.draw("train", 96)
    return images, images.select(slice(32)), images.select(slice(32, 96))


def task_of(**options):
    return pretext.build("simsiam", backbones.build(seed=0), **options)


def test_a_look_changes_nothing_and_sees_a_collapse():
    _, asked, bank = parts()
    task = task_of(last_norm=False).eval()
    before = copy.deepcopy(task.state_dict())
    seen = collapse.look(task, asked, bank)
    assert not task.training and all(torch.equal(before[name], now) for name, now in task.state_dict().items())
    assert seen["spread"] > 0.05 and 0 <= seen["kNN"] <= 1
    torch.nn.init.zeros_(task.projector[-1].weight)  # the same for all
    one = collapse.look(task, asked, bank)
    assert (one["spread"], one["deviation"], one["effective rank"]) == (0, 0, 0) and one["kNN"] == seen["kNN"]


def test_pictures_find_themselves_by_their_features():
    _, asked, bank = parts()
    assert collapse.look(task_of(), asked, asked)["kNN"] > collapse.look(task_of(), asked, bank)["kNN"]


def test_it_is_watched_before_and_every_few_steps_and_at_the_end():
    images, asked, bank = parts()
    config = TrainConfig(steps=5, batch_size=8, log_every=2)
    seen = collapse.watch(task_of(), images, config, asked, bank)
    assert [record["step"] for record in seen] == [0, 2, 4, 5]
    assert all({"spread", "deviation", "effective rank", "kNN"} <= set(record) for record in seen)
    assert "loss" in seen[-1] and seen[0]["spread"] != seen[-1]["spread"]
