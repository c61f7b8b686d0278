"""ONNX files and exported programs: they give what the network gives, with everything inside, or aren't kept."""

import io
import json

import pytest
import torch
from test_weights import shaken
from torch import nn

from sslcourse import backbones, classify, data, evaluate, weights
from sslcourse.classify import deployment
from sslcourse.classify.model import LinearHead, Model, NeighbourHead
from sslcourse.errors import CourseError
from sslcourse.weights.networks import MeasuredVit, VitMeasures


def small(arch="resnet-tiny", side=32):
    backbone = shaken(backbones.build(arch, image_size=side))
    backbone.mean.copy_(torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1))
    return backbone


def classifier(head="linear", stage=4, arch="resnet-tiny", side=32):
    backbone = small(arch, side)
    dim = backbone.features(torch.zeros(1, 3, side, side), stage).shape[1]
    dice = torch.Generator().manual_seed(1)
    if head == "linear":
        made = LinearHead(dim, 3)
        made.weight.data.normal_(generator=dice)
    else:
        made = NeighbourHead(dim, 3, 12, 5)
        made.bank.copy_(nn.functional.normalize(torch.randn(12, dim, generator=dice), dim=1))
        made.labels.copy_(torch.arange(12) % 3)
    return Model(backbone, made, ("cat", "dog", "größte"), image_size=side, stage=stage, temperature=1.7).eval()


def reader(backbone, stage, side=32):
    return Model(backbone, nn.Identity(), (), image_size=side, stage=stage).eval()


def answers(path, format, images):
    """What the file makes of images, by the library alone, and what it says about itself."""
    if format == "onnx":
        onnxruntime = pytest.importorskip("onnxruntime")
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        about = session.get_modelmeta().custom_metadata_map["sslcourse"]
        return torch.from_numpy(session.run(None, {"images": images.numpy()})[0]), json.loads(about)
    extra = {"sslcourse.json": ""}
    program = torch.export.load(path, extra_files=extra)
    return program.module()(images).detach(), json.loads(extra["sslcourse.json"])


@pytest.fixture(autouse=True)
def installed(request):
    if "onnx" in request.node.name:
        for package in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(package)


@pytest.mark.parametrize("format", ["onnx", "torch-export"])
@pytest.mark.parametrize(
    ("head", "stage", "arch"),
    [("knn", "all", "resnet-tiny"), pytest.param("linear", "class", "vit-tiny", marks=pytest.mark.weights)],
)
def test_a_classifier_gives_its_probabilities_from_pixels(tmp_path, format, head, stage, arch):
    model = classifier(head, stage, arch)
    path = tmp_path / "model"
    about = deployment.save(model, path, format)
    for count in (1, 2, 5):  # any number of pictures
        images = deployment.pictures(count, 32)
        theirs, said = answers(path, format, images)
        with torch.no_grad():
            ours = model.probabilities(images.float() / 255)
        torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=0)
        torch.testing.assert_close(theirs.sum(1), torch.ones(count))
    assert said == about and said["classes"] == ["cat", "dog", "größte"] and said["stage"] == stage
    assert (said["temperature"], said["image_size"]) == (1.7, 32)


@pytest.mark.weights
@pytest.mark.parametrize("format", ["onnx", "torch-export"])
def test_a_file_takes_one_size_alone(tmp_path, format):
    deployment.save(reader(small(), 4), tmp_path / "model", format)
    with pytest.raises(Exception, match="32|[Dd]imension|shape"):
        answers(tmp_path / "model", format, deployment.pictures(1, 40))


@pytest.mark.weights
def test_every_part_that_a_transformer_may_have_goes_through_onnx(tmp_path):
    """Registers, rotary positions, attention pooling, other activations, and positions in between at another size."""
    plain = {"image_size": 32, "patch": 8, "width": 32, "depth": 1, "heads": 2, "hidden": 64, "eps": 1e-5}
    kinds = [
        {"registers": 2, "layer_scale": True, "activation": "quick-gelu"},
        {
            "class_token": False,
            "placed": 0,
            "rotary": True,
            "pooled": True,
            "activation": "gelu-tanh",
            "first_norm": True,
        },
    ]
    for kind in kinds:
        torch.manual_seed(0)
        trunk = MeasuredVit(VitMeasures(**plain | kind))
        for parameter in trunk.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
        backbone = backbones.Backbone(trunk, trunk.measures.name, "patch8")
        model, path = reader(backbone, "class", 48), tmp_path / "vit.onnx"
        deployment.save(model, path, "onnx", overwrite=True)
        images = deployment.pictures(2, 48)
        with torch.no_grad():
            expected = backbone.eval().summary(images.float() / 255)
        torch.testing.assert_close(answers(path, "onnx", images)[0], expected, atol=1e-4, rtol=1e-4)


def test_a_file_that_answers_differently_is_not_kept(tmp_path, monkeypatch):
    real = deployment._exported

    def off(network, side, about):
        content, answer = real(network, side, about)
        return content, lambda images: answer(images) + 3e-4 * (len(images) == 3)  # one number of pictures alone

    monkeypatch.setattr(deployment, "_exported", off)
    with pytest.raises(CourseError, match="differs from the network by 0.0003.*was not written"):
        deployment.save(classifier(), tmp_path / "model.pt2", "torch-export")
    assert list(tmp_path.iterdir()) == []


def test_the_model_stays_as_it_was(tmp_path):
    model = classifier()
    model.train()
    model.backbone.trunk.bn1.eval()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    deployment.save(model, tmp_path / "model.pt2", "torch-export")
    assert model.training and not model.backbone.trunk.bn1.training
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


def test_what_cannot_be_exported_is_said_in_one_sentence(tmp_path):
    model = classifier()
    with pytest.raises(CourseError, match="did you mean 'onnx'"):
        deployment.save(model, tmp_path / "a", "onx")
    (tmp_path / "there").write_bytes(b"mine")
    with pytest.raises(CourseError, match="is there already"):
        deployment.save(model, tmp_path / "there", "torch-export")
    assert (tmp_path / "there").read_bytes() == b"mine"
    deployment.save(model, tmp_path / "there", "torch-export", overwrite=True)
    with pytest.raises(CourseError, match="is a directory"):
        deployment.save(model, tmp_path, "torch-export")
    with pytest.raises(CourseError, match="resize them to multiples of 4"):
        deployment.save(reader(small("vit-tiny"), 4, 30), tmp_path / "b", "torch-export")
    with pytest.raises(CourseError, match="the side of the images in pixels must be a whole number"):
        deployment.save(reader(small(), 4, 0), tmp_path / "b", "torch-export")
    with pytest.raises(CourseError, match="has no class token"):
        reader(small(), "class")
    broken = classifier()
    broken.head.weight.data.fill_(float("nan"))
    with pytest.raises(CourseError, match="differs from the network by nan"):
        deployment.save(broken, tmp_path / "b", "torch-export")
    assert not (tmp_path / "b").exists()


def test_without_its_packages_the_sentence_says_what_to_install(tmp_path, monkeypatch):
    import builtins

    real = builtins.__import__

    def missing(name, *rest):
        if name.split(".")[0] in ("onnxruntime", "onnxscript", "onnx"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(CourseError, match="needs the package onnx.*python -m pip install onnx onnxscript onnxruntime"):
        deployment.save(classifier(), tmp_path / "a.onnx", "onnx")


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.commands
def test_a_run_is_exported_at_the_stage_and_size_that_its_probe_used(call, tmp_path):
    few = ("--data", "digits", "--size", 24, "--steps", 1, "--batch-size", 8, "--device", "cpu")
    assert call("pretrain", "rotation", "--out", "run", *few)[0] == 0
    code, out, err = call("export", "run", "run.pt2", "--format", "torch-export")
    assert code == 0 and "features of stage all" in out and "uint8 (N, 3, 24, 24)" in out, err
    images = deployment.pictures(3, 24)
    theirs, about = answers(tmp_path / "run.pt2", "torch-export", images)
    ours = evaluate.extract(backbones.load(tmp_path / "run"), images, device="cpu")  # the default of every probe
    torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=1e-4)
    assert (about["stage"], about["image_size"]) == ("all", 24)
    assert call("export", "run", "two.pt2", "--format", "torch-export", "--stage", 2)[0] == 0
    assert answers(tmp_path / "two.pt2", "torch-export", images)[0].shape == (3, 32)
    code, _, err = call("export", "run", "hf", "--stage", 2)
    assert code == 2 and "choose onnx or torch-export" in err


def test_a_classifier_is_exported_as_it_is_and_as_nothing_else(call, tmp_path):
    model = classifier(stage=2)
    model.save(tmp_path / "m.safetensors")
    code, out, _ = call("export", "m.safetensors", "m.pt2", "--format", "torch-export")
    assert code == 0 and "classes: cat, dog, größte" in out
    images = deployment.pictures(2, 32)
    with torch.no_grad():
        ours = classify.load(tmp_path / "m.safetensors").probabilities(images.float() / 255)
    torch.testing.assert_close(answers(tmp_path / "m.pt2", "torch-export", images)[0], ours, atol=1e-4, rtol=0)
    for options in (("--stage", 4), ("--image-size", 64), ("--heads", 3)):
        code, _, err = call("export", "m.safetensors", "n.pt2", "--format", "torch-export", *options)
        assert code == 2 and f"leave {options[0]} out" in err
    code, _, err = call("export", "m.safetensors", "n")
    assert code == 2 and "m.safetensors is a classifier" in err


def test_other_peoples_networks_ask_for_a_size(call, tmp_path):
    torch.save(backbones.build("resnet-tiny").trunk.state_dict(), tmp_path / "theirs.pth")
    code, _, err = call("export", "theirs.pth", "a.pt2", "--format", "torch-export")
    assert code == 2 and "--image-size PIXELS" in err
    assert call("export", "theirs.pth", "a.pt2", "--format", "torch-export", "--image-size", 40)[0] == 0
    theirs, _ = answers(tmp_path / "a.pt2", "torch-export", deployment.pictures(1, 40))
    with torch.no_grad():
        ours = weights.load(tmp_path / "theirs.pth").eval().features(deployment.pictures(1, 40).float() / 255, "all")
    torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=1e-4)


def test_the_size_of_a_picture_from_disk_to_the_file(tmp_path):
    """What the file says of its input is what decoding a photograph gives."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (50, 40), "red").save(buffer, "PNG")
    pixels, _ = data.decode.read_image(buffer.getvalue(), 32)
    deployment.save(reader(small(), 4), tmp_path / "a.pt2", "torch-export")
    assert answers(tmp_path / "a.pt2", "torch-export", torch.from_numpy(pixels.copy())[None])[0].shape == (1, 128)
