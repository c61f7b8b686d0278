"""Backbones against torchvision; files that can't be read safely are refused."""

import pickle

import pytest
import safetensors.torch
import torch
import torchvision

from sslcourse import backbones
from sslcourse.errors import CourseError


@pytest.mark.parametrize("arch", ["resnet18", "resnet34", "resnet50"])
def test_imagenet_resnets_equal_torchvision(arch):
    theirs = getattr(torchvision.models, arch)(weights=None)
    theirs.fc = torch.nn.Identity()
    for module in theirs.modules():  # statistics that matter, or a swapped pair of layers wouldn't show
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.5, 1.5)
    ours = backbones.build(arch, stem="imagenet")
    ours.trunk.load_state_dict(theirs.state_dict())  # the same keys, all of them
    images = torch.rand(2, 3, 64, 64)
    normal = torchvision.transforms.functional.normalize(images, backbones.IMAGENET_MEAN, backbones.IMAGENET_STD)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(images), theirs.eval()(normal), atol=1e-5, rtol=1e-5)


def test_tiny_has_the_shapes_of_the_design():
    backbone = backbones.build("resnet-tiny")
    maps = backbone.stages(torch.rand(2, 3, 32, 32))
    assert [tuple(m.shape) for m in maps] == [(2, 16, 16, 16), (2, 32, 8, 8), (2, 64, 4, 4), (2, 128, 2, 2)]
    assert backbone(torch.rand(2, 3, 32, 32)).shape == (2, backbone.dim) == (2, 128)


def test_weights_depend_on_the_seed_alone():
    state = torch.get_rng_state()
    a, b, c = (backbones.build(seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(a.trunk.conv1.weight, c.trunk.conv1.weight)


def test_the_stem_follows_the_image_size():
    assert backbones.build("resnet18", image_size=32).stem == "small"
    assert backbones.build("resnet18", image_size=224).stem == "imagenet"


def test_preprocessing_travels_with_the_weights(tmp_path):
    backbone = backbones.build(seed=3)
    backbone.mean.fill_(0.25)
    backbones.save(backbone, tmp_path / "b.safetensors", task="rotation", steps=7)
    again = backbones.load(tmp_path / "b.safetensors")
    images = torch.rand(3, 3, 32, 32)
    assert torch.equal(backbone.eval()(images), again.eval()(images))
    assert again.notes == {"task": "rotation", "steps": 7}


@pytest.mark.parametrize(
    "bad", [torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.rand(3, 8, 8), torch.rand(2, 1, 8, 8)]
)
def test_wrong_images_are_refused_in_a_sentence(bad):
    with pytest.raises(CourseError, match="a backbone takes float images"):
        backbones.build()(bad)


def test_unknown_names_get_the_nearest():
    with pytest.raises(CourseError, match="did you mean 'resnet18'"):
        backbones.build("resnet-18")
    with pytest.raises(CourseError, match="stem 'huge' is unknown"):
        backbones.build(stem="huge")


class Evil:
    def __reduce__(self):
        return (exec, ("raise SystemExit('executed')",))


def test_files_that_are_not_ours_get_a_sentence_and_are_never_run(tmp_path):
    path = tmp_path / "x.safetensors"
    with pytest.raises(CourseError, match="there is no backbone"):
        backbones.load(path)
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(CourseError, match="not a readable safetensors file"):
        backbones.load(path)
    backbones.save(backbones.build(), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CourseError, match="not a readable safetensors file"):
        backbones.load(path)
    path.write_bytes(b"")
    with pytest.raises(CourseError, match="not a readable safetensors file"):
        backbones.load(path)
    safetensors.torch.save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(CourseError, match="not in the layout"):
        backbones.load(path)
