"""Tar shards in WebDataset's layout: the same images as from files, in any order, resumed to the same bits, nothing held."""

import io
import os
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from sslcourse import backbones, data, pretext, train
from sslcourse.data import decode, shards, spec, stream
from sslcourse.errors import CourseError


def picture(seed, size=(20, 16)):
    """PNG bytes of an image whose colours follow from `seed`."""
    dice = np.random.default_rng(seed)
    buffer = io.BytesIO()
    Image.fromarray(dice.integers(0, 256, (*size, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(path, files):
    """files: {name: bytes}, in their order."""
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


@pytest.fixture
def folder(tmp_path):
    """Three shards of eight samples; every third sample is in a folder, and a .json stands beside each."""
    for shard in range(3):
        files = {}
        for i in range(8):
            name = f"{'deep/' if i % 3 == 0 else ''}{shard}-{i:03d}"
            files |= {f"{name}.png": picture(8 * shard + i), f"{name}.json": b'{"width": 16}'}
        write_tar(tmp_path / f"train-{shard:02d}.tar", files)
    return tmp_path


def load(pattern, **options):
    return data.load(f"shards:{pattern}", **{"size": 16, "cache": False, "progress": False} | options)


@pytest.mark.parametrize("pattern", ["train-{00..02}.tar", "train-*.tar", "", "train-0?.tar", "train-0[0-2].tar"])
def test_every_pattern_gives_the_images_in_order(folder, pattern):
    splits = load(folder / pattern)
    expected = np.stack([decode.read_image(picture(i), 16)[0] for i in range(24)])
    assert torch.equal(splits.unlabeled.images, torch.from_numpy(expected))
    assert "3 shards, 24 images." in splits.notes and len(splits.test) == 0


def test_streamed_shards_give_the_same_images_as_shards_in_memory(folder):
    streamed = load(folder, stream=True).unlabeled
    assert isinstance(streamed, stream.ImageFiles)
    order = torch.tensor([23, 0, 7, 8, 15, 16, 3])
    assert torch.equal(streamed.take(order).images, load(folder).unlabeled.images[order])


def test_they_are_what_the_library_webdataset_reads(folder):
    webdataset = pytest.importorskip("webdataset")
    theirs = webdataset.WebDataset(sorted(map(str, folder.glob("*.tar"))), shardshuffle=False, empty_check=False)
    contents = [sample["png"] for sample in theirs]
    ours = shards.survey(folder, cache=False)
    assert [ours.shelf.file(name) for _, name in ours.files["unlabeled"]] == contents and len(contents) == 24


def test_what_webdataset_writes_is_read_with_its_classes(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    with webdataset.ShardWriter(str(tmp_path / "%04d.tar"), maxcount=10, verbose=0) as writer:
        for i in range(30):
            writer.write({"__key__": f"{i:06d}", "png": picture(i), "cls": i % 3})
    splits = load(tmp_path)
    assert splits.classes == ("0", "1", "2") and len(splits.train) + len(splits.val) + len(splits.test) == 30
    assert splits.train.counts() == {"0": 6, "1": 6, "2": 6}


def test_samples_without_a_class_are_for_pretraining_beside_those_with_one(tmp_path):
    files = {}
    for i in range(24):
        files[f"{i:03d}.png"] = picture(i)
        if i < 20:
            files[f"{i:03d}.cls"] = b"cat" if i % 2 else b"dog"
    write_tar(tmp_path / "a.tar", files)
    splits = load(tmp_path / "a.tar")
    assert splits.classes == ("cat", "dog") and len(splits.unlabeled) == 4
    assert splits.train.names[0].startswith("a.tar::")


@pytest.mark.training
def test_training_goes_on_with_the_same_bits(folder, tmp_path):
    """Stopped after three of six steps, from shards that are read by worker processes."""
    config = train.TrainConfig(steps=6, batch_size=8, checkpoint_every=3)

    def run(out, workers, **options):
        images = load(folder, stream=True).unlabeled
        images = stream.ImageFiles([images.path(i) for i in range(24)], 16, workers=workers, shelf=images.shelf)
        task = pretext.build("rotation", backbones.build("resnet-tiny", image_size=16))
        train.pretrain(task, images, options.pop("config", config), out=out, device="cpu", progress=False, **options)
        return task.state_dict()

    whole = run(tmp_path / "whole", 0)

    class Stop(Exception):
        pass

    with pytest.MonkeyPatch.context() as patch:
        real = stream.ImageFiles.batches

        def batches(self, order, start, stop_at):
            for count, images in enumerate(real(self, order, start, stop_at)):
                if start == 0 and count == 4:
                    raise Stop
                yield images

        patch.setattr(stream.ImageFiles, "batches", batches)
        with pytest.raises(Stop):
            run(tmp_path / "half", 1)
        resumed = run(tmp_path / "half", 1, resume=True)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


# --- a hundred thousand, nothing held --------------------------------------------------------------------------------


class Counted(bytes):
    """The content of a file, counted while anybody holds it."""

    held = most = 0

    def __new__(cls, content):
        cls.held += 1
        cls.most = max(cls.most, cls.held)
        return super().__new__(cls, content)

    def __del__(self):
        Counted.held -= 1


class Shelf(decode.Disk):
    """100,000 names for one small picture; it counts how many contents are held at once, and how many were asked for."""

    def __init__(self):
        self.content, self.asked = picture(0), 0

    def file(self, name):
        self.asked += 1
        return Counted(self.content)


def test_of_a_hundred_thousand_files_only_those_of_a_batch_are_held():
    Counted.held = Counted.most = 0
    shelf = Shelf()
    images = stream.ImageFiles([f"photos/{i:06d}.png" for i in range(100_000)], 16, workers=0, shelf=shelf)
    assert shelf.asked == 0 and images.paths.nbytes < 3e6  # names alone, in one block
    order = torch.randperm(100_000, generator=torch.Generator().manual_seed(0)).split(64)
    for step, batch in enumerate(images.batches(lambda step: order[step], 0, 5)):
        assert batch.shape == (64, 3, 16, 16) and shelf.asked == 64 * (step + 1)
    assert Counted.most <= 64 and Counted.held == 0


def test_no_tar_is_left_open_and_no_content_is_kept(folder):
    opened = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()
    images = load(folder, stream=True).unlabeled
    for _ in images.batches(lambda step: torch.arange(8) + 8 * step, 0, 3):
        pass
    if opened:
        assert len(set(os.listdir("/proc/self/fd")) - opened) == 0
    assert vars(images.shelf) == {}


def test_an_index_is_kept_until_its_tar_changes(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("SSLCOURSE_CACHE", str(tmp_path / "cache"))
    first = shards.survey(folder)
    walked = []
    real = shards._walked
    monkeypatch.setattr(shards, "_walked", lambda path: walked.append(path.name) or real(path))
    assert shards.survey(folder).files == first.files and walked == []
    write_tar(folder / "train-01.tar", {"x.png": picture(99)})
    os.utime(folder / "train-01.tar", (1, 1))
    again = shards.survey(folder)
    assert walked == ["train-01.tar"] and len(again.files["unlabeled"]) == 17


# --- bad input ----------------------------------------------------------------------------------------------------------


def test_shards_that_cannot_be_read_get_one_sentence(tmp_path):
    write_tar(tmp_path / "empty.tar", {"a.json": b"{}"})
    write_tar(tmp_path / "two.tar", {"a.png": picture(0), "a.jpg": picture(1)})
    write_tar(tmp_path / "one-class.tar", {"a.png": picture(0), "a.cls": b"3"})
    write_tar(tmp_path / "odd-class.tar", {"a.png": picture(0), "a.cls": b"\x00\x01" * 300})
    write_tar(tmp_path / "cut.tar", {f"{i}.png": picture(i) for i in range(9)})
    (tmp_path / "cut.tar").write_bytes((tmp_path / "cut.tar").read_bytes()[:1200])
    with tarfile.open(tmp_path / "zipped.tar", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a.png"))
    (tmp_path / "noise.tar").write_bytes(bytes(range(256)) * 9)
    (tmp_path / "nothing").mkdir()
    sentences = {
        "empty.tar": "there are no images in",
        "two.tar": "two images",
        "one-class.tar": "one class, '3'",
        "odd-class.tar": "is no class",
        "cut.tar": "tar without compression",
        "zipped.tar": "tar without compression",
        "noise.tar": "tar without compression",
        "nothing": "there is no tar file",
        "gone.tar": "there is no tar file",
        "gone-*.tar": "there is no tar file",
        "train-{3..1}.tar": "counts upwards",
        "train-{0..9}.tar": "there is no tar file",
    }
    for name, sentence in sentences.items():
        with pytest.raises(CourseError, match=sentence) as error:
            load(tmp_path / name)
        assert "\n" not in str(error.value)
    with pytest.raises(CourseError, match="shards: needs the path of tar files"):
        spec.parse("shards:")
    with pytest.raises(CourseError, match="labels from a file are for folder:PATH"):
        load(tmp_path / "two.tar", labels=tmp_path / "x.csv")


def test_an_image_that_is_damaged_is_named_with_its_tar(tmp_path, capsys):
    write_tar(tmp_path / "a.tar", {"0.png": picture(0), "1.png": b"no image", "2.png": picture(2)})
    splits = load(tmp_path / "a.tar")
    assert len(splits.unlabeled) == 2 and "a.tar::1.png@" in splits.warnings[0]
    streamed = load(tmp_path / "a.tar", stream=True).unlabeled
    assert torch.equal(streamed.take([1]).images, streamed.take([2]).images)
    (tmp_path / "a.tar").unlink()
    with pytest.raises(CourseError, match="in a row can't be read"):
        streamed.take([0])


def test_a_run_knows_its_shards(folder):
    from sslcourse import record

    assert record.canonical(f"shards:{folder}/train-{{00..02}}.tar") == f"shards:{folder}/train-{{00..02}}.tar"
    assert record.notes(f"shards:{folder}")["spec"] == f"shards:{folder}"


SAMPLES = {f"{i:02d}": (picture(i), b"cat" if i % 2 else b"dog") for i in range(12)}


def test_a_class_that_lies_apart_from_its_image_is_not_lost(tmp_path):
    """As in a tar of *.png and then *.cls, where each would be a sample of its own."""
    images = {f"{name}.png": image for name, (image, _) in SAMPLES.items()}
    classes = {f"{name}.cls": label for name, (_, label) in SAMPLES.items()}
    write_tar(tmp_path / "apart.tar", images | classes)
    with pytest.raises(CourseError, match="image and the class of 12 samples lie apart, such as 00; .*--sort=name"):
        load(tmp_path / "apart.tar")
    write_tar(tmp_path / "two.tar", {"a.png": picture(0), "a.cls": b"1", "a.CLS": b"2"})
    with pytest.raises(CourseError, match="the sample a in .* has two classes"):
        load(tmp_path / "two.tar")


def test_nothing_of_a_damaged_tar_is_passed_over(tmp_path):
    """Python's own reader takes the first header that it can't read for the end."""
    write_tar(tmp_path / "whole.tar", {f"{name}.png": image for name, (image, _) in SAMPLES.items()})
    content = (tmp_path / "whole.tar").read_bytes()
    with tarfile.open(tmp_path / "whole.tar") as tar:
        header = tar.getmembers()[7].offset
    changed = {
        "damaged": content[: header + 9] + b"\xff" + content[header + 10 :],
        "cut at a header": content[:header],
        "cut in a header": content[: header + 100],
        "two in one": content + content,
    }
    for name, bad in changed.items():
        (tmp_path / f"{name}.tar").write_bytes(bad)
        with pytest.raises(CourseError, match="is cut short, or damaged at byte .*, or two tars in one"):
            load(tmp_path / f"{name}.tar")
    assert len(load(tmp_path / "whole.tar").unlabeled) == 12


def test_what_is_passed_over_in_shards_and_beside_them_is_counted(tmp_path):
    write_tar(tmp_path / "a.TAR", {"0.png": picture(0), "1.heic": b"x", "2.json": b"{}"})
    with tarfile.open(tmp_path / "b.tar", "w") as tar:
        entry = tarfile.TarInfo("9.png")
        entry.size = len(picture(9))
        tar.addfile(entry, io.BytesIO(picture(9)))
        link = tarfile.TarInfo("8.png")
        link.type, link.linkname = tarfile.LNKTYPE, "9.png"
        tar.addfile(link)
    (tmp_path / "c.tar.gz").write_bytes(b"x")
    splits = load(tmp_path)
    assert (
        len(splits.unlabeled) == 2
        and "compressed were left out, since they can't be read: c.tar.gz" in splits.warnings[0]
    )
    notes = " ".join(splits.notes)
    assert "left out: 1 .heic; save them" in notes and "left out: 1 .json, 1 links" in notes
