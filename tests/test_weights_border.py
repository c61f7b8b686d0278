"""Files of weights that are damaged, odd or hostile: a backbone or one sentence, never a traceback, never anything run."""

import json
import pickle
import warnings

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sslcourse import backbones, weights
from sslcourse.errors import CourseError

TRUNK = backbones.build("resnet-tiny", seed=1).trunk.state_dict()


def loaded(path, **options):
    """The backbone, or the sentence that says why there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return weights.load(path, quiet=True, **options)
        except CourseError as error:
            assert "\n" not in str(error) and len(str(error)) < 1500
            return str(error)


def saved(path, state):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(state, path)
    return path


def changed(name, tensor):
    return TRUNK | {name: tensor}


CONV, VARIANCE, COUNT = "layer2.0.conv1.weight", "layer1.0.bn1.running_var", "bn1.num_batches_tracked"
ODD = {
    "sparse": lambda t: t.to_sparse(),
    "compressed": lambda t: t.flatten(1).to_sparse_csr(),
    "quantized": lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
    "without numbers": lambda t: t.to("meta"),
    "complex": lambda t: t.to(torch.complex64),
    "nan": lambda t: torch.full_like(t, torch.nan),
    "infinite": lambda t: torch.full_like(t, -torch.inf),
    "too large": lambda t: torch.full_like(t, 1e300, dtype=torch.float64),
    "whole numbers": lambda t: t.to(torch.int8),
    "truths": lambda t: t > 0,
    "empty": lambda t: t[:0],
    "a scalar": lambda t: torch.tensor(1.0),
    "one number repeated": lambda t: torch.zeros(1).expand(t.shape),
    "another shape": lambda t: t.repeat(2, *[1] * (t.dim() - 1)),
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("name", ["conv1.weight", CONV])
def test_a_tensor_that_no_network_holds_is_named(tmp_path, kind, name):
    sentence = loaded(saved(tmp_path / "x.pth", changed(name, ODD[kind](TRUNK[name]))))
    assert isinstance(sentence, str) and ("x.pth" in sentence or "shape" in sentence)


def test_a_variance_below_zero_is_refused(tmp_path):
    assert "variance below 0" in loaded(saved(tmp_path / "x.pth", changed(VARIANCE, -TRUNK[VARIANCE])))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_read(tmp_path, dtype):
    state = {name: t.to(dtype) if t.is_floating_point() else t for name, t in TRUNK.items()}
    found = loaded(saved(tmp_path / "x.pth", state))
    torch.testing.assert_close(found.trunk.conv1.weight, TRUNK["conv1.weight"], atol=1e-2, rtol=1e-2)
    assert found.trunk.conv1.weight.dtype == torch.float32


def test_what_is_odd_in_a_head_is_left_alone(tmp_path):
    for kind in ("sparse", "quantized", "nan", "complex"):
        state = TRUNK | {"fc.weight": ODD[kind](torch.rand(3, 128)), "fc.bias": torch.zeros(3)}
        assert not isinstance(loaded(saved(tmp_path / "x.pth", state)), str), kind


def circle():
    tree = dict(TRUNK)
    tree["again"] = tree
    return tree


def deep():
    tree = dict(TRUNK)
    for _ in range(200):
        tree = {"model": tree}
    return tree


TREES = {
    "a circle": (circle, "levels"),
    "deep": (deep, "levels"),
    "keys that are no words": (lambda: {1: TRUNK, (2, 3): TRUNK, None: 1}, "no weights in it"),
    "a tensor alone": (lambda: torch.zeros(3), "holds a Tensor"),
    "a number": (lambda: 3, "holds a int"),
    "None": (lambda: None, "holds a NoneType"),
    "strange names": (lambda: {"\udcff\n" + "x" * 9000: torch.zeros(3)}, "no residual network"),
    "many blocks": (lambda: TRUNK | {"layer1.9999.conv1.weight": torch.zeros(1)}, "some are missing"),
    "more blocks than there are": (lambda: TRUNK | {"layer1.99999999999.conv1.weight": torch.zeros(1)}, "neither part"),
    "numbers without end": (lambda: TRUNK | {f"layer1.{'9' * 5000}.conv1.weight": torch.zeros(1)}, "neither part"),
    "a first layer of no shape": (lambda: changed("conv1.weight", torch.tensor(1.0)), "shape"),
    "two first layers": (lambda: {"a": TRUNK, "b": TRUNK}, "2 networks"),
    "a hundred networks": (lambda: {f"n{i}": TRUNK for i in range(100)}, "100 networks"),
}


@pytest.mark.parametrize("name", TREES)
def test_odd_trees(tmp_path, name):
    tree, sentence = TREES[name]
    assert sentence in loaded(saved(tmp_path / "x.pth", tree()))


CONTENT = {".pth": pickle.dumps(None), ".safetensors": safetensors.torch.save(TRUNK)}


@settings(max_examples=60)
@given(
    ending=st.sampled_from([".pth", ".safetensors", ".bin", ".tar"]),
    cut=st.integers(0, 3000),
    place=st.integers(0, 3000),
    noise=st.binary(min_size=1, max_size=8),
    own=st.booleans(),
)
def test_damaged_files(tmp_path_factory, ending, cut, place, noise, own):
    """Cut anywhere, and overwritten anywhere near the beginning or the end, where headers and tables lie."""
    folder = tmp_path_factory.getbasetemp() / "damaged"
    folder.mkdir(exist_ok=True)
    path = folder / f"x{ending}"
    if ending != ".safetensors":
        content = bytearray(saved(path, {"state_dict": {"conv1.weight": torch.zeros(2, 3, 3, 3)}}).read_bytes())
    elif own:
        backbones.save(backbones.build(seed=1), path)
        content = bytearray(path.read_bytes())
    else:
        content = bytearray(safetensors.torch.save(TRUNK))
    content[place : place + len(noise)] = noise
    path.write_bytes(content[: len(content) - cut])
    loaded(path)


@settings(max_examples=40)
@given(content=st.binary(max_size=200))
def test_files_of_noise(tmp_path_factory, content):
    for ending in (".pth", ".safetensors"):
        path = tmp_path_factory.getbasetemp() / f"noise{ending}"
        path.write_bytes(content)
        assert isinstance(loaded(path), str)


ABOUT = {"format": "sslcourse backbone 1", "arch": "resnet-tiny", "stem": "tiny", "notes": {}}
VALUES = [None, 3, -1, 1e99, True, "", "x", "\ud800", [], [1], {}, {"x": 1}, "resnet50", "9" * 400]


@pytest.mark.parametrize("name", ["format", "arch", "stem", "notes", "image_size"])
def test_a_file_of_ours_that_says_something_odd(tmp_path, name):
    own = {f"trunk.{key}": value for key, value in TRUNK.items()}
    own |= {"mean": torch.zeros(1, 3, 1, 1), "std": torch.ones(1, 3, 1, 1)}
    path = tmp_path / "backbone.safetensors"
    for value in VALUES:
        about = json.dumps(ABOUT | {name: value})
        path.write_bytes(safetensors.torch.save(own, metadata={"sslcourse": about}))
        loaded(path)
    for about in ("", "{", "3", "[]", "null", "[" * 100_000):
        path.write_bytes(safetensors.torch.save(own, metadata={"sslcourse": about}))
        assert isinstance(loaded(path), str)
    for entry, odd in (("std", torch.zeros(1, 3, 1, 1)), ("mean", torch.full((1, 3, 1, 1), torch.nan))):
        path.write_bytes(safetensors.torch.save(own | {entry: odd}, metadata={"sslcourse": json.dumps(ABOUT)}))
        assert isinstance(loaded(path), str)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A directory of Transformers, and its two files of settings."""
    folder = tmp_path_factory.mktemp("exported")
    weights.save(backbones.build("vit-tiny", seed=1), folder / "vit")
    weights.save(backbones.build("resnet-tiny", stem="imagenet", seed=1), folder / "resnet")
    return folder


@pytest.mark.parametrize("kind", ["vit", "resnet"])
@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json"])
def test_settings_of_any_kind(directory, kind, file):
    path = directory / kind / file
    whole = path.read_text()
    try:
        for name in json.loads(whole) | {"use_swiglu_ffn": 0, "pretrained_cfg": 0, "model_args": 0}:
            for value in [*VALUES, [0, 0, 0], [1, "a", None], 0.0]:
                path.write_text(json.dumps(json.loads(whole) | {name: value}))
                loaded(directory / kind)
        for text in ("", "{", "3", "[]", "null", "[" * 100_000, "\x00"):
            path.write_text(text)
            assert isinstance(loaded(directory / kind), str)
    finally:
        path.write_text(whole)
    assert not isinstance(loaded(directory / kind), str)


@pytest.mark.parametrize(
    "index", ["", "{", "[]", '{"weight_map": 3}', '{"weight_map": {"a": 3}}', '{"weight_map": {"a": ".."}}']
)
def test_indices_of_any_kind(tmp_path, index):
    (tmp_path / "model.safetensors.index.json").write_text(index)
    assert isinstance(loaded(tmp_path), str)


@pytest.mark.parametrize(
    "place", ["", "a**b", "[", "x" * 300, "null\0byte", "~nobody-here/x", "\udcff", 3, None, b"bytes"]
)
def test_places_of_any_kind(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    assert isinstance(loaded(place), str)


def test_options_of_any_kind(tmp_path):
    path = saved(tmp_path / "x.pth", {"state_dict": TRUNK})
    for option in ("network", "prefix", "stem", "normalize", "heads"):
        for value in [*VALUES, -3, 2.5, (0.5, 0.5), ((0, 0, 0), (0, 0, 0)), ((torch.nan,) * 3, (1, 1, 1)), b"x"]:
            loaded(path, **{option: value})
    vit = saved(tmp_path / "vit.pth", backbones.build("vit-tiny").trunk.state_dict())
    for heads in [*VALUES, -3, 2.5, 0, 10**30]:
        loaded(vit, heads=heads)


def test_what_is_asked_of_an_export(tmp_path):
    backbone = backbones.build("resnet-tiny", stem="imagenet")
    for size in [*VALUES, 0, -5, 2.5]:
        if size is not None and size != 3:
            with pytest.raises(CourseError, match="image_size"):
                weights.save(backbone, tmp_path / "x", image_size=size)
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder.pth").mkdir()
    for place, format in (("file", "auto"), ("folder.pth", "torchvision"), ("file/x", "auto"), ("file/x.pth", "torchvision"),
                          ("", "auto"), ("x", "onnx"), ("x", None), ("x", 3)):  # fmt: skip
        with pytest.raises(CourseError):
            weights.save(backbone, tmp_path / place if place else "", format)
