"""The stand-ins of six projects' files: each is read as its project's, and gives its author's features."""

import pytest
import torch

from sslcourse import backbones, weights
from sslcourse.weights import standins

HINTS = {"DINO": {"heads": 4}, "SimCLR": {"normalize": "imagenet"}}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    trained = {task: backbones.build(seed=k) for k, task in enumerate(("rotation", "vicreg", "simclr"), start=5)}
    for backbone in trained.values():  # batch norms that have counted, as after training
        backbone.train()(torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(1)))
        backbone.eval()
    return standins.write(tmp_path_factory.mktemp("files"), trained)


def test_every_file_is_known_and_gives_its_authors_features(files):
    assert list(files) == ["torchvision", "MoCo", "SimCLR", "VISSL", "DINO", "Transformers"]
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for name, file in files.items():
            backbone = weights.load(file.path, quiet=True, **HINTS.get(name, {})).eval()
            assert name.lower() in backbone.report.source.lower(), backbone.report.source
            assert torch.allclose(backbone.summary(images), file.author(images), atol=1e-5), name
            assert file.bytes > 1e5


def test_they_are_the_same_every_time_and_leave_the_global_dice_alone(files, tmp_path):
    before = torch.random.get_rng_state()
    again = standins.write(tmp_path, {task: backbones.build(seed=5) for task in ("rotation", "vicreg", "simclr")})
    assert torch.equal(before, torch.random.get_rng_state())
    first, second = (torch.load(one["torchvision"].path, weights_only=True) for one in (files, again))
    assert all(torch.equal(first[name], second[name]) for name in first)
