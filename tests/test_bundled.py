"""The backbones that come with the package: each is what its record says, small, and found by name."""

import json
import shutil
import zipfile
from pathlib import Path

import pytest
import torch

from sslcourse import backbones, bundled, pretext, store
from sslcourse.data import world
from sslcourse.errors import CourseError, Damaged

THERE = bundled.listed()
NAMES = [one.path.stem for one in THERE]
MOST = {"resnet-tiny": 1_000_000, "vit-tiny": 2_000_000}  # bytes of one file
IN_ALL = 14_000_000


@pytest.fixture(scope="module")
def pictures():
    """The same few pictures for all of them."""
    real, drawn = world.draw, {"train": world.draw("train", bundled.BANK), "val": world.draw("val", bundled.ASKED)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world, "draw", lambda split, n: drawn.get(split) or real(split, n))
        yield


@pytest.mark.parametrize("one", THERE, ids=NAMES)
def test_each_is_what_its_record_says(one, pictures):
    backbone = store.pretrained(one.task, backbone=one.backbone, budget=one.budget)
    assert not backbone.training and backbone.arch == one.backbone
    assert all(value.dtype == torch.float32 for value in backbone.state_dict().values() if value.is_floating_point())
    assert bundled.recognition(backbone)["knn"] == pytest.approx(one.record["recognized by"]["knn"], abs=0.01)
    assert one.record["recognized by"]["knn"] > 0.2, "chance is 0.1: these weights have learned something"


@pytest.mark.parametrize("one", THERE, ids=NAMES)
def test_each_says_what_made_it(one):
    record = one.record
    assert set(record) >= {"command", "commit", "device", "seconds", "sha256", "loss", "measured", "torch", "options"}
    assert record["command"].startswith("python benchmarks/long.py ") and str(record["budget"]) in record["command"]
    assert record["budget"] > 1 and record["seed"] == 0 and record["data"] == "world"
    assert record["steps"] == record["budget"] * store.recipe(record["task"]).config.steps
    assert record["loss"][-1][0] == record["steps"] and record["seconds"] > 0
    assert {"knn, 10", "linear, 10"} <= set(record["measured"])
    assert not record["commit"].endswith("+"), "made by code that is in no commit"


def test_they_are_small():
    files = list(bundled.FOLDER.glob("*.safetensors"))
    assert len(files) == len(THERE) > 0
    assert all(one.path.stat().st_size < MOST[one.backbone] for one in THERE)
    assert sum(path.stat().st_size for path in files) < IN_ALL


def test_a_budget_that_is_not_there_is_refused_with_those_that_are():
    one = THERE[0]
    with pytest.raises(CourseError, match=rf"budget of 1000 comes.*budget={one.budget} \(backbone='{one.backbone}'\)"):
        store.pretrained(one.task, backbone=one.backbone, budget=1000)
    with pytest.raises(CourseError, match="resnet50"):
        store.pretrained(one.task, backbone="resnet50", budget=one.budget)
    for wrong in (0, -4, 2.5, "16"):
        with pytest.raises(CourseError, match="budget"):
            store.pretrained(one.task, budget=wrong)
    with pytest.raises(CourseError, match="rotation"):
        store.pretrained("rotatoin", budget=4)


@pytest.mark.parametrize("given", [{"seed": 1}, {"steps": 30}, {"crop": 0.5}, {"data": "digits"}])
def test_what_it_was_not_trained_with_is_refused(given):
    with pytest.raises(CourseError, match=next(iter(given))):
        store.pretrained("simclr", budget=4, **given)


def test_budget_one_is_trained_as_ever(monkeypatch, tmp_path):
    monkeypatch.setenv("SSLCOURSE_CACHE", str(tmp_path))
    images = world.draw("unlabeled", 16)
    one, usual = (
        store.pretrained("rotation", images, steps=2, **given, progress=False) for given in ({"budget": 1}, {})
    )
    assert torch.equal(one.state_dict()["trunk.conv1.weight"], usual.state_dict()["trunk.conv1.weight"])


def test_they_are_found_whatever_the_code_is(monkeypatch):
    monkeypatch.setattr(store, "code_digest", lambda task: "another")
    monkeypatch.setattr(torch, "__version__", "99.0.0")
    one = THERE[0]
    assert isinstance(store.pretrained(one.task, backbone=one.backbone, budget=one.budget), backbones.Backbone)


@pytest.fixture
def own(monkeypatch, tmp_path):
    """A folder of its own, with one backbone that was put there."""
    monkeypatch.setattr(bundled, "FOLDER", tmp_path)
    monkeypatch.setattr(bundled, "recognition", lambda backbone: {"knn": 0.5})
    backbone = backbones.build("resnet-tiny", seed=3)
    record = {"task": "simclr", "backbone": "resnet-tiny", "budget": 4, "seed": 0, "steps": 4000, "data": "world"}
    return bundled.put(backbone, record), backbone, record


def test_what_is_put_there_is_what_is_read(own):
    path, backbone, record = own
    (one,) = bundled.listed()
    found = one.load().state_dict()
    for name, value in backbone.state_dict().items():
        assert torch.allclose(found[name].float(), value.float(), rtol=1e-3, atol=1e-6), name
    assert backbone.state_dict()["trunk.conv1.weight"].dtype == torch.float32, "the one that was given is as it was"
    assert path.stat().st_size < 700_000
    later = bundled.put(backbone, record | {"budget": 16})
    assert [one.budget for one in bundled.listed()] == [16] and later.is_file() and not path.exists()


def test_an_altered_file_is_refused(own):
    path, *_ = own
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(Damaged, match="record"):
        bundled.find("simclr", "resnet-tiny", 4).load()
    path.unlink()
    with pytest.raises(Damaged, match="install"):
        bundled.find("simclr", "resnet-tiny", 4).load()


def test_the_command_lists_them(call, monkeypatch, tmp_path):
    code, out, _ = call("store")
    assert code == 0 and all(one.task in out for one in THERE)
    code, out, _ = call("store", "--json")
    assert [one["sha256"] for one in json.loads(out)] == [one.record["sha256"] for one in THERE]
    monkeypatch.setattr(bundled, "FOLDER", tmp_path)
    code, out, _ = call("store")
    assert code == 0 and "no backbone" in out


def test_they_go_into_the_wheel(tmp_path):
    flit = pytest.importorskip("flit_core.wheel")
    root = tmp_path / "course"
    shutil.copytree(
        bundled.FOLDER.parents[1] / "sslcourse", root / "sslcourse", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(bundled.FOLDER.parents[1] / name, root / name)
    with (tmp_path / "wheel").open("wb") as file:
        flit.WheelBuilder.from_ini_path(Path(root / "pyproject.toml"), file).build()
    inside = zipfile.ZipFile(tmp_path / "wheel").namelist()
    assert {f"sslcourse/bundled/{one.path.name}" for one in THERE} <= set(inside)
    assert {f"sslcourse/bundled/{one.path.stem}.json" for one in THERE} <= set(inside)


def test_every_task_that_has_one_is_a_task():
    assert {one.task for one in THERE} <= set(pretext.tasks())
