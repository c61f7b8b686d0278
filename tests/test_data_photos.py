"""Imagenette and Oxford Flowers, as they lie at their sources: archives, folders of JPEG files and MATLAB tables."""

import functools
import hashlib
import io
import json
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from torchvision import datasets

from sslcourse import cli
from sslcourse.data import ImageFiles, decode, find_leaks, load, photos
from sslcourse.errors import CourseError

NAMES = [
    "tench", "English springer", "cassette player", "chain saw", "church", "French horn", "garbage truck", "gas pump",
    "golf ball", "parachute",
]  # fmt: skip
WNIDS = [
    "n01440764", "n02102040", "n02979186", "n03000684", "n03028079", "n03394916", "n03417042", "n03425413", "n03445777",
    "n03888257",
]  # fmt: skip


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """The data folder of this test; what is downloaded comes from the folder `mirror`."""
    monkeypatch.setenv("SSLCOURSE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("SSLCOURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SSLCOURSE_MIRROR", str(tmp_path / "mirror"))
    (tmp_path / "mirror").mkdir()
    return tmp_path / "data"


def jpeg(seed, size=(24, 18)):
    low = np.random.default_rng(seed).integers(0, 256, (3, 4, 3)).astype(np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(low).resize(size).save(encoded, "JPEG", quality=95)
    return encoded.getvalue()


def archive(path, files):
    """A .tgz of files, by name; returns its MD5 checksum."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return hashlib.md5(path.read_bytes()).hexdigest()


def image(content, size=16):
    return decode.read_image(content, size)[0]


def held(images):
    """Which images a set holds, and how often."""
    pixels = images.take(range(len(images))).images if isinstance(images, ImageFiles) else images.images
    return sorted(one.numpy().tobytes() for one in pixels)


quietly = functools.partial(load, progress=False)


# --- Imagenette --------------------------------------------------------------------------------------------------


@pytest.fixture
def imagenette(tmp_path, monkeypatch):
    """10 images per class to train on and 3 of `val`, in every archive; returns their contents by split and class."""
    contents, archives = {}, {}
    for name, archive_name in (("160px", "imagenette2-160"), ("320px", "imagenette2-320"), ("full", "imagenette2")):
        files = {f"{archive_name}/noisy_imagenette.csv": b"path,noisy_labels_0\n"}
        for split, count, start in (("train", 10, 0), ("val", 3, 500)):
            for label, wnid in enumerate(WNIDS):
                for i in range(count):
                    content = jpeg(1000 * label + start + i)
                    files[f"{archive_name}/{split}/{wnid}/{wnid}_{i}.JPEG"] = content
                    contents.setdefault((split, label), {})[i] = content
        md5 = archive(tmp_path / "mirror" / f"{archive_name}.tgz", files)
        archives[name] = (f"https://far.away/{archive_name}.tgz", md5)
    monkeypatch.setattr(datasets.Imagenette, "_ARCHIVES", archives)
    monkeypatch.setitem(photos.IMAGES, "imagenette", 130)
    return contents


def test_imagenette(imagenette, home, capfd):
    splits = quietly("imagenette:16")
    assert [len(part) for part in (splits.unlabeled, splits.train, splits.val, splits.test)] == [90, 90, 10, 30]
    assert splits.classes == tuple(NAMES) and splits.size == (16, 16) and splits.name == "imagenette"
    for label in range(10):
        shown = [one.numpy() for one in splits.test.images[splits.test.labels == label]]
        expected = [image(content) for content in imagenette["val", label].values()]
        assert np.array_equal(shown, expected)
    train = torch.cat([splits.train.images, splits.val.images])
    labels = torch.cat([splits.train.labels, splits.val.labels])
    for label in range(10):
        expected = sorted(image(content).tobytes() for content in imagenette["train", label].values())
        assert sorted(one.numpy().tobytes() for one in train[labels == label]) == expected
    assert find_leaks(splits) == [] and set(splits.val.counts().values()) == {1}
    assert torch.equal(splits.unlabeled.images, splits.train.images) and splits.unlabeled.labels is None
    said = capfd.readouterr()
    assert said.out == "" and said.err == f"sslcourse: imagenette is not in {home} yet: getting 99 MB.\n"
    assert not torch.equal(quietly("imagenette:16", seed=1).val.images, splits.val.images)


@pytest.mark.parametrize(
    ("spec", "folder", "size"),
    [
        ("imagenette", "imagenette2-160", 64),
        ("imagenette:160", "imagenette2-160", 160),
        ("imagenette:161", "imagenette2-320", 161),
        ("imagenette:321", "imagenette2", 321),
    ],
)
def test_the_size_decides_which_archive_is_downloaded(imagenette, home, spec, folder, size):
    assert quietly(spec).size == (size, size)
    assert sorted(path.name for path in home.glob("imagenette*")) == [folder, f"{folder}.tgz"]


def test_a_local_copy_of_imagenette_needs_no_network_and_must_be_whole(imagenette, home, tmp_path, monkeypatch):
    before = quietly("imagenette:16")
    (home / "imagenette2-160.tgz").unlink()
    (tmp_path / "mirror" / "imagenette2-160.tgz").unlink()
    assert torch.equal(quietly("imagenette:16", cache=False).test.images, before.test.images)
    next((home / "imagenette2-160").rglob("*.JPEG")).unlink()
    with pytest.raises(
        CourseError, match="imagenette in .*imagenette2-160 is damaged .129 of 130 images are there.*delete"
    ):
        quietly("imagenette:16")


def test_an_image_that_cannot_be_read_is_skipped_and_named(imagenette, home, capfd):
    quietly("imagenette:16")
    (home / "imagenette2-160" / "train" / WNIDS[3] / f"{WNIDS[3]}_0.JPEG").write_bytes(b"no image")
    splits = quietly("imagenette:16")
    assert len(splits.train) + len(splits.val) == 99
    assert f"skipped 1 of 130 files: train/{WNIDS[3]}/{WNIDS[3]}_0.JPEG (not a JPEG" in capfd.readouterr().err


# --- Oxford Flowers ----------------------------------------------------------------------------------------------


@pytest.fixture
def flowers(tmp_path, monkeypatch):
    """Four images of each of 102 classes, in no order: one of train, one of val, two of test."""
    mirror, count = tmp_path / "mirror", 4 * 102
    dice = np.random.default_rng(0)
    labels = dice.permutation(np.repeat(np.arange(1, 103), 4))  # of image_00001.jpg, image_00002.jpg, …
    by_class = np.argsort(labels, kind="stable").reshape(102, 4) + 1
    contents = {f"jpg/image_{i:05}.jpg": jpeg(i) for i in range(1, count + 1)}
    md5 = {"image": archive(mirror / "102flowers.tgz", contents)}
    parts = {"trnid": by_class[:, :1], "valid": by_class[:, 1:2], "tstid": by_class[:, 2:]}
    parts = {name: dice.permutation(ids.ravel())[None].astype(np.uint16) for name, ids in parts.items()}
    savemat(mirror / "imagelabels.mat", {"labels": labels[None].astype(np.uint8)})
    savemat(mirror / "setid.mat", parts)
    names = {"image": "102flowers.tgz", "label": "imagelabels.mat", "setid": "setid.mat"}
    for key in ("label", "setid"):
        md5[key] = hashlib.md5((mirror / names[key]).read_bytes()).hexdigest()
    monkeypatch.setattr(datasets.Flowers102, "_file_dict", {key: (names[key], md5[key]) for key in names})
    monkeypatch.setitem(photos.IMAGES, "flowers", count)
    return contents, labels, {"train": parts["trnid"][0], "val": parts["valid"][0], "test": parts["tstid"][0]}


def test_flowers_come_in_their_official_splits(flowers, home, capfd):
    contents, labels, parts = flowers
    splits = quietly("flowers:16")
    assert [len(part) for part in (splits.unlabeled, splits.train, splits.val, splits.test)] == [102, 102, 102, 204]
    assert splits.classes == tuple(datasets.Flowers102.classes) and splits.classes[0] == "pink primrose"
    for name, ids in parts.items():
        part = getattr(splits, name)
        assert part.labels.tolist() == [labels[i - 1] - 1 for i in ids]
        for shown, i in zip(part.images, ids, strict=True):
            assert np.array_equal(shown.numpy(), image(contents[f"jpg/image_{i:05}.jpg"]))
    assert find_leaks(splits) == [] and torch.equal(splits.unlabeled.images, splits.train.images)
    assert "getting 345 MB" in capfd.readouterr().err
    assert sorted(path.name for path in (home / "flowers-102").iterdir()) == sorted(
        ["102flowers.tgz", "imagelabels.mat", "setid.mat", "jpg"]
    )


def test_flowers_whose_labels_changed_are_fetched_again_and_missing_ones_are_named(flowers, home):
    before = quietly("flowers:16")
    savemat(home / "flowers-102" / "imagelabels.mat", {"labels": np.ones((1, 408), np.uint8)})
    assert torch.equal(quietly("flowers:16").test.labels, before.test.labels)
    (home / "flowers-102" / "jpg" / "image_00007.jpg").unlink()
    with pytest.raises(CourseError, match="flowers in .* is damaged .407 of 408 images are there"):
        quietly("flowers:16")


# --- in memory, or streamed --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["imagenette", "flowers"])
def test_photographs_streamed_are_those_of_memory(name, imagenette, flowers):
    memory, streamed = quietly(f"{name}:16"), quietly(f"{name}:16", stream=True)
    assert isinstance(streamed.unlabeled, ImageFiles) and held(streamed.unlabeled) == held(memory.unlabeled)
    for part in ("train", "val", "test"):
        a, b = getattr(memory, part), getattr(streamed, part)
        assert torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels)
    assert any("stay on disk" in note for note in streamed.notes)
    assert not any("stay on disk" in note for note in memory.notes)


def test_photographs_that_do_not_fit_into_memory_are_streamed_unless_that_is_refused(imagenette, monkeypatch):
    monkeypatch.setattr(decode, "available_memory", lambda: 2 * 100 * 3 * 16**2)  # 100 of the 130 images
    splits = quietly("imagenette:16")
    assert isinstance(splits.unlabeled, ImageFiles) and len(splits.unlabeled) == 100 - len(splits.val)
    assert any("of 130 labelled images, " in note for note in splits.notes)
    with pytest.raises(CourseError, match="130 images at 16x16 pixels take .* of memory"):
        quietly("imagenette:16", stream=False)


def test_the_commands_take_photographs_and_say_where_they_are(imagenette, home, capfd):
    def run(*words):
        cli.app(list(map(str, words)), standalone_mode=False)
        return capfd.readouterr()

    about = json.loads(run("data", "imagenette:16", "--json").out)
    assert about["splits"] == {"unlabeled": 90, "train": 90, "val": 10, "test": 30} and about["classes"] == NAMES
    few = ("--data", "imagenette:16", "--steps", 2, "--batch-size", 4, "--device", "cpu")
    said = run("pretrain", "rotation", *few, "--out", home / "run", "--stream").err
    assert "images: 90, streamed from disk by" in said and "stay on disk" in said
    assert "images: 90 in memory" in run("pretrain", "rotation", *few, "--out", home / "again").err
