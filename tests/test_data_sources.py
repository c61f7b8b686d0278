"""Data sets by name: the words of a specification, and the files of each downloadable set as its authors wrote them.

The files are made here, small, in the true formats; torchvision's list of checksums is changed to theirs. Nothing
reaches the network: every attempt fails as it does on a machine without one.
"""

import gzip
import hashlib
import inspect
import pickle
import re
import tarfile
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from sslcourse import cli
from sslcourse.data import ImageFiles, decode, find_leaks, load, sources, world
from sslcourse.data import spec as spec_module
from sslcourse.data.spec import SPECS, Spec, parse
from sslcourse.errors import CourseError


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """The data folder of this test, on a machine without a network."""

    def unreachable(*_, **__):
        raise urllib.error.URLError("Network is unreachable")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    monkeypatch.setenv("SSLCOURSE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("SSLCOURSE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "data"


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return hashlib.md5(content).hexdigest()


def noise(seed, *shape):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


# --- CIFAR-10 -----------------------------------------------------------------------------------------------------


@pytest.fixture
def cifar(home, monkeypatch):
    """Five pickled training batches and one of tests: rows of 3,072 values, all red ones first, row by row."""
    top = home / "cifar-10-batches-py"

    def batch(name, seed):
        data = noise(seed, 20, 3072)
        labels = [i % 10 for i in range(20)]
        return [name, put(top / name, pickle.dumps({"data": data, "labels": labels}))]

    monkeypatch.setattr(datasets.CIFAR10, "train_list", [batch(f"data_batch_{i}", i) for i in range(1, 6)])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [batch("test_batch", 6)])
    names = "airplane automobile bird cat deer dog frog horse ship truck".split()
    md5 = put(top / "batches.meta", pickle.dumps({"label_names": names}))
    monkeypatch.setattr(datasets.CIFAR10, "meta", {"filename": "batches.meta", "key": "label_names", "md5": md5})
    return top


def test_cifar10(cifar):
    splits = load("cifar10")
    assert [len(part) for part in (splits.unlabeled, splits.train, splits.val, splits.test)] == [90, 90, 10, 20]
    assert splits.classes[0] == "airplane" and splits.classes[9] == "truck"
    assert np.array_equal(splits.test.images.numpy(), noise(6, 20, 3, 32, 32))
    assert splits.test.labels.tolist() == [i % 10 for i in range(20)]
    assert set(splits.val.counts().values()) == {1} and set(splits.train.counts().values()) == {9}
    assert splits.unlabeled.labels is None and torch.equal(splits.unlabeled.images, splits.train.images)
    assert any("without their labels" in note for note in splits.notes)
    assert load("cifar10:16").size == load("cifar10", size=16).size == (16, 16)
    assert not torch.equal(load("cifar10", seed=1).val.images, splits.val.images)


def test_an_archive_put_there_by_hand_is_unpacked_and_standard_output_stays_clean(cifar, home, monkeypatch, capfd):
    with tarfile.open(home / "cifar-10-python.tar.gz", "w:gz") as archive:
        archive.add(cifar, cifar.name)
    for path in cifar.iterdir():
        path.unlink()
    md5 = hashlib.md5((home / "cifar-10-python.tar.gz").read_bytes()).hexdigest()
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", md5)
    download = datasets.CIFAR10.download
    monkeypatch.setattr(datasets.CIFAR10, "download", lambda self: print("Extracting") or download(self))
    assert len(load("cifar10").test) == 20
    assert capfd.readouterr().out == ""


def test_a_foreign_pickle_is_never_opened(cifar, tmp_path):
    class Attack:
        def __reduce__(self):
            return open, (str(tmp_path / "owned"), "w")

    (cifar / "test_batch").write_bytes(pickle.dumps(Attack()))
    with pytest.raises(CourseError, match="no sound copy of cifar10"):
        load("cifar10")
    assert not (tmp_path / "owned").exists()


def test_an_official_test_image_among_the_training_images_is_dropped(cifar, monkeypatch):
    data = noise(1, 20, 3072)
    data[4] = noise(6, 20, 3072)[7]
    md5 = put(cifar / "data_batch_1", pickle.dumps({"data": data, "labels": [i % 10 for i in range(20)]}))
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [["data_batch_1", md5], *datasets.CIFAR10.train_list[1:]])
    splits = load("cifar10")
    assert find_leaks(splits) == [] and len(splits.train) + len(splits.val) == 99 and len(splits.test) == 20
    assert "1 image was dropped from train, being also in test." in splits.warnings


# --- STL-10 -------------------------------------------------------------------------------------------------------


@pytest.fixture
def stl(home, monkeypatch):
    """Images of 3x96x96 values, column by column; labels from 1 to 10."""
    top = home / "stl10_binary"
    files = {"train": (20, 1), "test": (10, 2), "unlabeled": (7, 3)}
    md5 = {}
    for part, (count, seed) in files.items():
        md5[part] = put(top / f"{part}_X.bin", noise(seed, count, 3, 96, 96).transpose(0, 1, 3, 2).tobytes())
        if part != "unlabeled":
            md5[f"{part}_y"] = put(top / f"{part}_y.bin", bytes(i % 10 + 1 for i in range(count)))
    put(top / "class_names.txt", b"airplane\nbird\ncar\ncat\ndeer\ndog\nhorse\nmonkey\nship\ntruck\n")
    train = [["train_X.bin", md5["train"]], ["train_y.bin", md5["train_y"]], ["unlabeled_X.bin", md5["unlabeled"]]]
    monkeypatch.setattr(datasets.STL10, "train_list", train)
    test = [["test_X.bin", md5["test"]], ["test_y.bin", md5["test_y"]]]
    monkeypatch.setattr(datasets.STL10, "test_list", test)
    return top


def test_stl10(stl):
    splits = load("stl10")
    assert [len(part) for part in (splits.unlabeled, splits.train, splits.val, splits.test)] == [7, 10, 10, 10]
    assert np.array_equal(splits.test.images.numpy(), noise(2, 10, 3, 96, 96))
    assert np.array_equal(splits.unlabeled.images.numpy(), noise(3, 7, 3, 96, 96))
    assert splits.unlabeled.labels is None and not any("without their labels" in note for note in splits.notes)
    assert splits.test.labels.tolist() == list(range(10)) and splits.classes[7] == "monkey"


def test_stl10_is_checked_once_and_its_size_can_be_chosen(stl, monkeypatch):
    checked = []
    check = datasets.STL10._check_integrity
    monkeypatch.setattr(datasets.STL10, "_check_integrity", lambda self: checked.append(1) or check(self))
    assert load("stl10,32").size == (32, 32)
    assert len(checked) == 1


def test_stl10_streamed_is_that_of_memory(stl, monkeypatch):
    for size in (96, 32):
        memory, streamed = (
            load("stl10", size=size, progress=False),
            load("stl10", size=size, stream=True, progress=False),
        )
        files = streamed.unlabeled
        assert isinstance(files, ImageFiles) and torch.equal(files.take(range(7)).images, memory.unlabeled.images)
        assert torch.equal(streamed.train.images, memory.train.images)
    monkeypatch.setattr(decode, "available_memory", lambda: 2 * 33 * 3 * 32**2)  # 33 of the 37 images
    assert isinstance(load("stl10:32", progress=False).unlabeled, ImageFiles)
    with pytest.raises(CourseError, match="37 images at 32x32 pixels take"):
        load("stl10:32", stream=False)
    files.workers = 1
    (batch,) = files.batches(lambda step: torch.tensor([6, 0]), 0, 1)
    assert torch.equal(batch, memory.unlabeled.images[[6, 0]])


def test_an_unlabeled_image_that_is_also_measured_is_dropped(stl, monkeypatch):
    leaky = np.concatenate([noise(3, 6, 3, 96, 96), noise(2, 10, 3, 96, 96)[4:5]])
    md5 = put(stl / "unlabeled_X.bin", leaky.transpose(0, 1, 3, 2).tobytes())
    monkeypatch.setattr(datasets.STL10, "train_list", [*datasets.STL10.train_list[:2], ["unlabeled_X.bin", md5]])
    for stream in (False, True):
        splits = load("stl10", stream=stream)
        assert len(splits.unlabeled) == 6 and len(splits.test) == 10 and len(splits.warnings) == 1


# --- Fashion-MNIST ------------------------------------------------------------------------------------------------


@pytest.fixture
def fashion(home, monkeypatch):
    """Gzipped IDX files: a header of big-endian sizes, and then bytes."""
    top = home / "FashionMNIST" / "raw"
    resources = []
    for part, count, seed in (("train", 20, 1), ("t10k", 10, 2)):
        images = np.array([0x803, count, 28, 28], ">i4").tobytes() + noise(seed, count, 28, 28).tobytes()
        labels = np.array([0x801, count], ">i4").tobytes() + bytes(i % 10 for i in range(count))
        for name, content in ((f"{part}-images-idx3-ubyte.gz", images), (f"{part}-labels-idx1-ubyte.gz", labels)):
            resources.append((name, put(top / name, gzip.compress(content))))
    monkeypatch.setattr(datasets.FashionMNIST, "resources", resources)
    return top


def test_fashion_mnist(fashion, capfd):
    splits = load("Fashion-MNIST")
    assert [len(part) for part in (splits.unlabeled, splits.train, splits.val, splits.test)] == [10, 10, 10, 10]
    expected = np.pad(noise(2, 10, 28, 28), ((0, 0), (2, 2), (2, 2)))
    for channel in range(3):
        assert np.array_equal(splits.test.images[:, channel].numpy(), expected)
    assert splits.test.labels.tolist() == list(range(10)) and splits.classes[9] == "Ankle boot"
    assert capfd.readouterr().out == ""


def test_a_truncated_file_is_unpacked_again_or_without_its_archive_said_to_be_missing(fashion, capfd):
    whole = load("fashion-mnist").train.images
    path = fashion / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    assert torch.equal(load("fashion-mnist").train.images, whole)
    assert "getting" not in capfd.readouterr().err
    path.write_bytes(path.read_bytes()[:-1])
    (fashion / "train-images-idx3-ubyte.gz").unlink()
    with pytest.raises(CourseError, match="no sound copy of fashion-mnist is in .*train-images-idx3-ubyte.gz"):
        load("fashion-mnist")


# --- digits, and what every downloadable set shares ---------------------------------------------------------------


def test_digits_need_no_network():
    splits = load("digits")
    assert len(splits.train) + len(splits.val) + len(splits.test) == 1797
    assert splits.size == (32, 32) and splits.classes == tuple("0123456789")
    assert splits.train.images.min() == 0 and splits.train.images.max() > 240
    assert torch.equal(splits.train.images[:, 0], splits.train.images[:, 2])
    assert find_leaks(splits) == []
    assert load("digits:16").size == (16, 16)
    assert not torch.equal(load("digits", seed=1).test.images, splits.test.images)


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("cifar10", ["cifar-10-python.tar.gz"]),
        ("stl10", ["stl10_binary.tar.gz"]),
        ("fashion-mnist", ["FashionMNIST/raw/train-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"]),
        ("imagenette", ["imagenette2-160.tgz"]),
        ("imagenette:224", ["imagenette2-320.tgz"]),
        ("imagenette:384", ["imagenette2.tgz"]),
        ("flowers", ["flowers-102/102flowers.tgz", "flowers-102/imagelabels.mat", "flowers-102/setid.mat"]),
    ],
)
def test_without_a_network_one_sentence_says_how_to_go_on(name, files, home, capfd):
    with pytest.raises(CourseError) as error:
        load(name)
    sentence = str(error.value)
    unreachable, ways_out = "Network is unreachable", ("--data world", "folder:PATH", "SSLCOURSE_MIRROR")
    for part in (name.partition(":")[0], str(home), unreachable, *ways_out, *files):
        assert part in sentence
    assert "\n" not in sentence and capfd.readouterr().out == ""


@pytest.mark.parametrize("error", [TimeoutError("timed out"), ConnectionResetError(104, "Connection reset by peer")])
def test_a_connection_that_breaks_is_no_network(monkeypatch, error):
    def broken(*_, **__):
        raise error

    monkeypatch.setattr(urllib.request, "urlopen", broken)
    with pytest.raises(CourseError, match="could not be downloaded"):
        load("cifar10")


def test_a_data_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SSLCOURSE_DATA", str(tmp_path / "file" / "data"))
    with pytest.raises(CourseError, match="could not write cifar10 to .*SSLCOURSE_DATA"):
        load("cifar10")


def test_resizing_is_antialiased_and_keeps_constants():
    stripes = (torch.arange(64) % 4 == 0) * 255  # every fourth column: a quarter of the light
    images = torch.stack([stripes.expand(3, 64, 64), torch.full((3, 64, 64), 255)]).to(torch.uint8)
    small = sources.resize(images, 16)
    assert (small[0].float().mean() - 255 / 4).abs() < 4 and small[0].min() > 0 and (small[1] == 255).all()
    assert (sources.resize(images, 80)[1] == 255).all()


# --- specifications -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("world", Spec("world")),
        ("world:scenes", Spec("world", mode="scenes")),
        ("world:objects", Spec("world")),
        ("world:crowd,night,64", Spec("world", 64, "crowd", "night")),
        ("world:96:sketch:scenes", Spec("world", 96, "scenes", "sketch")),
        (" World, Photo ", Spec("world")),
        ("digits", Spec("digits")),
        ("digits:64", Spec("digits", 64)),
        ("cifar-10", Spec("cifar10")),
        ("STL10:64", Spec("stl10", 64)),
        ("fashionmnist", Spec("fashion-mnist")),
        ("fashion_mnist", Spec("fashion-mnist")),
        ("folder:a/b, c:d", Spec("folder", path="a/b, c:d")),
        ("folder:C:\\photos", Spec("folder", path="C:\\photos")),
        ("Folder: photos", Spec("folder", path="photos")),
        ("imagenette", Spec("imagenette")),
        ("Imagenette:160", Spec("imagenette", 160)),
        ("flowers,96", Spec("flowers", 96)),
        ("huggingface:a/b, c:d", Spec("huggingface", path="a/b, c:d")),
        ("HuggingFace: x", Spec("huggingface", path="x")),
    ],
)
def test_specifications(text, expected):
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("wrld", "'wrld' is unknown.*did you mean 'world'.*world, digits, cifar10"),
        ("cifra10", "did you mean 'cifar10'"),
        ("mnist", "did you mean 'fashion-mnist'"),
        ("", "'' is unknown; use world"),
        ("imagenet21k", "'imagenet21k' is unknown"),
        ("world:scene", "'scene' in data 'world:scene' is unknown.*did you mean 'scenes'"),
        ("world:scenes,crowd", "two values of mode, scenes and crowd"),
        ("world:32,64", "two values of size, 32 and 64"),
        ("world:", "'' in data 'world:' is unknown"),
        ("cifar10:night", "can only be a size, such as cifar10:64"),
        ("cifar10:32,64", "can only be a size"),
        ("folder:", "folder: needs the path"),
        ("folder", "folder: needs the path"),
        ("huggingface:", "huggingface: needs the path of a directory"),
        ("huggingface", "huggingface: needs the path"),
        ("flowers102", "did you mean 'flowers'"),
        ("imagenette:full", "can only be a size, such as imagenette:64"),
        (None, "None was given"),
        (3, "3 was given"),
    ],
)
def test_a_specification_that_makes_no_sense(text, sentence):
    with pytest.raises(CourseError, match=sentence) as error:
        load(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("spec", SPECS)
def test_all_data_is_named_in_the_help_the_readme_and_the_docstring(spec):
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?`) \| .* \|$", readme, re.MULTILINE)
    assert any(f"`{spec}`" in row for row in rows)
    assert spec in re.split(r"[ ,]+", cli.options.Spec.__metadata__[0].help)
    assert re.search(rf"^(\S+, )*{re.escape(spec)}(,| |$)", inspect.getdoc(spec_module), re.MULTILINE)


@pytest.mark.parametrize("size", [0, -1, 7, 513, 32.5, "32", True])
def test_a_size_that_makes_no_sense(size):
    with pytest.raises(CourseError, match="size in pixels must be a whole number from 8 to 512"):
        load("digits", size=size)


def test_a_size_said_twice_must_be_one():
    assert load("digits:16", size=16).size == (16, 16)
    with pytest.raises(CourseError, match="size 16, and size 32 was asked for beside it"):
        load("digits:16", size=32)


def test_a_path_without_folder_before_it_is_recognized(tmp_path):
    with pytest.raises(CourseError, match="did you mean folder:"):
        load(str(tmp_path))


def test_a_seed_that_makes_no_sense():
    with pytest.raises(CourseError, match="the seed must be a whole number"):
        load("digits", seed=-1)


def test_more_than_fits_into_memory_is_refused(monkeypatch):
    monkeypatch.setattr(decode, "available_memory", lambda: 10**8)
    with pytest.raises(CourseError, match="60,000 images at 32x32 pixels take 0.4 GB of memory"):
        load("cifar10")


def test_folder_by_name_and_by_path(tmp_path, capfd):
    for c in "ab":
        for i in range(3):
            (tmp_path / c).mkdir(exist_ok=True)
            Image.fromarray(noise(ord(c) + 10 * i, 32, 32, 3)).save(tmp_path / c / f"{i}.png")
    by_name, by_path = load(f"folder:{tmp_path}", progress=False), load(tmp_path, progress=False)
    assert torch.equal(by_name.test.images, by_path.test.images) and by_name.name == f"folder:{tmp_path}"
    said = capfd.readouterr()
    assert said.out == "" and said.err == ""


def test_world_has_four_splits_and_a_name_that_says_which(monkeypatch):
    few = {"unlabeled": 4, "train": 3, "val": 2, "test": 2}
    monkeypatch.setattr(world, "COUNTS", few)
    splits = load("world:crowd:night", size=64, progress=False)
    plain = load("world", progress=False)
    assert {name: len(getattr(splits, name)) for name in few} == few
    assert splits.name == "world:crowd,night,64" and plain.name == "world"
    assert splits.size == (64, 64) and splits.unlabeled.labels is None and splits.notes == splits.warnings == ()
    assert find_leaks(plain) == []
    assert torch.equal(plain.test.images, world.draw("test", 2).images)
    assert not torch.equal(load("world", seed=1, progress=False).test.images[:2], plain.test.images)
