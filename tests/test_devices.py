"""The contract of device.py, on a device that isn't the CPU: who computes moves, and gives back what it was given."""

import itertools

import pretend_device
import pytest
import torch
from torch import nn

from sslcourse import backbones, pretext, train
from sslcourse import device as devices
from sslcourse.data.imageset import ImageSet

SHORT = train.TrainConfig(steps=2, batch_size=4, log_every=1, checkpoint_every=1)
SMALL = {"dino": {"outputs": 16, "local": 1}, "swav": {"prototypes": 8}, "moco": {"queue": 16}}


@pytest.fixture(autouse=True)
def far():
    with pretend_device.chosen() as device:
        yield device


def pictures(n=12, side=16, seed=0):
    return torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, generator=devices.generator(seed))


def state(module):
    """Where each part of a module is, its mode, and which parameters learn."""
    tensors = itertools.chain(module.named_parameters(), module.named_buffers())
    return (
        {name: (tensor.device.type, tensor.requires_grad) for name, tensor in tensors},
        {name: part.training for name, part in module.named_modules()},
    )


def mixed_modes(module):
    """The module with every third of its parts in evaluation mode, and the first of its parameters frozen."""
    for part in list(module.modules())[::3]:
        part.training = False
    next(module.parameters()).requires_grad_(False)
    return module


# --- the context manager ---------------------------------------------------------------------------------------------


def test_every_part_comes_back_where_it_was_and_as_it_was(far):
    module = mixed_modes(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.Linear(4, 2))))
    module[2].to(far)
    before, parameters = state(module), list(module.parameters())
    with devices.on(far, module):
        assert {place for place, _ in state(module)[0].values()} == {"pretend"}
        module.eval()
    assert state(module) == before and before[0]["2.0.weight"][0] == "pretend"
    assert all(a is b for a, b in zip(parameters, module.parameters(), strict=True))


@pytest.mark.parametrize("stop", [RuntimeError, KeyboardInterrupt])
def test_a_stop_on_the_way_gives_back_too(far, stop):
    module = mixed_modes(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
    before = state(module)
    with pytest.raises(stop), devices.on(far, module):
        module.train()
        raise stop
    assert state(module) == before


# --- pretraining -----------------------------------------------------------------------------------------------------


def built(name):
    return pretext.build(name, backbones.build(pretext.find(name).arch, image_size=16), **SMALL.get(name, {}))


@pytest.mark.parametrize("name", pretext.tasks())
def test_every_task_trains_there_stops_and_goes_on_and_comes_back(name, far, tmp_path):
    def stop(record):
        assert {place for place, _ in state(task)[0].values()} == {"pretend"}  # it was there
        raise KeyboardInterrupt

    task = mixed_modes(built(name))
    before = state(task)
    with pytest.raises(KeyboardInterrupt):
        train.pretrain(task, pictures(), SHORT, out=tmp_path, progress=False, on_log=stop)
    assert state(task) == before
    resumed = mixed_modes(built(name))
    history = train.pretrain(resumed, pictures().to(far), SHORT, out=tmp_path, resume=True, progress=False)
    assert history.column("step") == [1, 2] and state(resumed) == before
    assert {x.device.type for x in backbones.load(tmp_path).state_dict().values()} == {"cpu"}


def test_a_task_that_is_there_stays_there(far):
    task = built("rotation").to(far)
    train.pretrain(task, ImageSet(pictures()), SHORT, progress=False)
    assert {place for place, _ in state(task)[0].values()} == {"pretend"}
