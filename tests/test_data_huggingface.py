"""Directories as Hugging Face's `datasets` writes them, and everything that can be odd about one."""

import functools
import io
import pickle
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from sslcourse.data import ImageFiles, decode, find_leaks, load
from sslcourse.errors import CourseError

hf = pytest.importorskip("datasets")
parquet = pytest.importorskip("pyarrow.parquet")

CLASSES = ("ant", "bee", "cat")
quietly = functools.partial(load, progress=False)


@pytest.fixture(autouse=True)
def own_folders(tmp_path_factory, monkeypatch):
    place = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("SSLCOURSE_CACHE", str(place / "ours"))
    monkeypatch.setattr(hf.config, "HF_DATASETS_CACHE", str(place / "theirs"))


def picture(seed, size=(20, 16)):
    low = np.random.default_rng(seed).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    return Image.fromarray(low).resize(size)


def encoded(seed, kind="PNG"):
    file = io.BytesIO()
    picture(seed).save(file, kind)
    return file.getvalue()


def table(count, start=0, labels=None, classes=CLASSES, **columns):
    """`count` PNG images with labels 0, 1, 2, 0, …; without where `labels` is False."""
    features = {"image": hf.Image(), **{name: hf.Value("string") for name in columns}}
    content = {"image": [{"bytes": encoded(start + i), "path": None} for i in range(count)], **columns}
    if labels is not False:
        features["label"] = hf.ClassLabel(names=list(classes))
        content["label"] = labels or [i % len(classes) for i in range(count)]
    return hf.Dataset.from_dict(content, features=hf.Features(features))


def saved(path, data):
    (hf.DatasetDict(data) if isinstance(data, dict) else data).save_to_disk(path)
    return f"huggingface:{path}"


def expected(seeds, size=16):
    return np.stack([decode.read_image(encoded(seed), size)[0] for seed in seeds])


def held(images):
    pixels = images.take(range(len(images))).images if isinstance(images, ImageFiles) else images.images
    return sorted(one.numpy().tobytes() for one in pixels)


def counts(splits):
    return tuple(len(getattr(splits, name)) for name in ("unlabeled", "train", "val", "test"))


FOUR = {"train": (30, 0), "validation": (6, 100), "test": (9, 200), "unlabeled": (12, 300)}


@pytest.fixture
def four(tmp_path):
    """A DatasetDict with all four splits; those that are unlabeled have no column of labels."""
    return saved(
        tmp_path / "four",
        {name: table(n, start, labels=name != "unlabeled" and None) for name, (n, start) in FOUR.items()},
    )


# --- what is read ------------------------------------------------------------------------------------------------


def test_a_dataset_dict_with_all_four_splits(four, capfd):
    splits = quietly(f"{four}", size=16)
    assert counts(splits) == (12, 30, 6, 9) and splits.classes == CLASSES and splits.name == four
    for name, theirs in (("unlabeled", "unlabeled"), ("train", "train"), ("val", "validation"), ("test", "test")):
        n, start = FOUR[theirs]
        part = getattr(splits, name)
        assert np.array_equal(part.images.numpy(), expected(range(start, start + n)))
        assert part.labels is None if name == "unlabeled" else part.labels.tolist() == [i % 3 for i in range(n)]
    assert splits.notes == splits.warnings == () and find_leaks(splits) == []
    said = capfd.readouterr()
    assert said.out == said.err == ""


def test_one_dataset_is_split_three_ways(tmp_path):
    splits = quietly(saved(tmp_path / "one", table(30)), size=16)
    assert counts(splits) == (18, 18, 6, 6)
    assert sorted(held(splits.train) + held(splits.val) + held(splits.test)) == sorted(
        one.tobytes() for one in expected(range(30))
    )
    assert any("val (20%) and test (20%) cut" in note for note in splits.notes)


def test_a_missing_split_is_cut_from_train(tmp_path):
    assert counts(quietly(saved(tmp_path / "two", {"train": table(30), "test": table(9, 200)}), size=16)) == (
        27,
        27,
        3,
        9,
    )


def test_parquet_files_as_they_come_from_the_hub(tmp_path, capfd):
    (tmp_path / "hub" / "data").mkdir(parents=True)
    for name, count, start in (("train", 30, 0), ("test", 9, 200)):
        table(count, start).to_parquet(tmp_path / "hub" / "data" / f"{name}-00000-of-00001.parquet")
    capfd.readouterr()
    splits = quietly(f"huggingface:{tmp_path / 'hub'}", size=16)
    assert counts(splits) == (27, 27, 3, 9) and splits.classes == CLASSES
    assert np.array_equal(splits.test.images.numpy(), expected(range(200, 209)))
    assert splits.test.labels.tolist() == [i % 3 for i in range(9)]
    said = capfd.readouterr()
    assert said.out == said.err == "" and not hf.are_progress_bars_disabled()


def test_other_columns_names_formats_and_encodings_do_not_matter(tmp_path):
    data = table(30, text=["x"] * 30).rename_columns({"image": "photo", "label": "species"})
    data = data.cast_column("photo", hf.Image(mode="L")).with_format("pandas")
    jpegs = hf.Dataset.from_dict(
        {"species": [2, 1, 0], "photo": [picture(i) for i in range(200, 203)]},  # encoded by datasets
        features=hf.Features({"species": hf.ClassLabel(names=list(CLASSES)), "photo": hf.Image()}),
    )
    splits = quietly(saved(tmp_path / "odd", {"train": data, "test": jpegs}), size=16)
    assert splits.test.labels.tolist() == [2, 1, 0]
    assert np.array_equal(splits.test.images.numpy(), expected(range(200, 203)))


def test_images_that_are_paths_are_followed(tmp_path):
    for i in range(12):
        picture(i).save(tmp_path / f"{i}.png")
    features = hf.Features({"image": hf.Image(), "label": hf.ClassLabel(names=list(CLASSES))})
    cells = [{"bytes": None, "path": str(tmp_path / f"{i}.png")} for i in range(12)]
    data = hf.Dataset.from_dict({"image": cells, "label": [i % 3 for i in range(12)]}, features=features)
    (tmp_path / "hub").mkdir()
    parquet.write_table(data.data.table, tmp_path / "hub" / "train.parquet")  # to_parquet would embed the files
    for stream in (False, True):
        splits = quietly(f"huggingface:{tmp_path / 'hub'}", size=16, stream=stream)
        assert held(splits.unlabeled) == held(splits.train)
        shown = held(splits.train) + held(splits.val) + held(splits.test)
        assert sorted(shown) == sorted(one.tobytes() for one in expected(range(12)))


def test_a_label_keeps_its_class_where_some_classes_have_no_images(tmp_path):
    names = ("none", "ant", "no one", "bee")
    data = {"train": table(30, labels=[1, 3] * 15, classes=names), "test": table(4, 200, [3, 1, 1, 3], classes=names)}
    splits = quietly(saved(tmp_path / "gaps", data), size=16)
    assert splits.classes == ("ant", "bee") and splits.test.labels.tolist() == [1, 0, 0, 1]


# --- without labels ----------------------------------------------------------------------------------------------


def test_images_without_labels_can_be_pretrained_on(tmp_path):
    splits = quietly(saved(tmp_path / "bare", table(8, labels=False)), size=16)
    assert counts(splits) == (8, 0, 0, 0) and np.array_equal(splits.unlabeled.images.numpy(), expected(range(8)))
    assert any("nothing can be measured" in note for note in splits.notes)


def test_labels_of_another_type_are_not_taken_and_that_is_said(tmp_path):
    splits = quietly(saved(tmp_path / "words", table(4, labels=False, kind=["a", "b", "a", "b"])), size=16)
    assert counts(splits) == (4, 0, 0, 0)
    assert any("class_encode_column makes one (of kind)" in note for note in splits.notes)


def test_single_images_without_a_label_are_unlabeled_and_those_of_test_left_out(tmp_path):
    labels = [i % 3 for i in range(30)]
    labels[4], labels[7] = -1, None
    data = {"train": table(30, labels=labels), "test": table(9, 200, [-1] * 9), "validation": table(3, 100)}
    splits = quietly(saved(tmp_path / "some", data), size=16)
    assert len(splits.unlabeled) == 2 and np.array_equal(splits.unlabeled.images.numpy(), expected([4, 7]))
    assert len(splits.train) + len(splits.test) == 28 and len(splits.val) == 3
    assert any("without a label, which are unlabeled here: 2" in note for note in splits.notes)
    assert any("images of test without a label, which were left out: 9" in note for note in splits.notes)


def test_a_test_split_is_no_help_without_labels_to_learn_from(tmp_path):
    splits = quietly(saved(tmp_path / "odd", {"train": table(5, labels=False), "test": table(9, 200)}), size=16)
    assert counts(splits) == (5, 0, 0, 0)
    assert any("left out, there being no labels in train: test" in note for note in splits.notes)


# --- streamed ----------------------------------------------------------------------------------------------------


def test_rows_are_streamed_by_workers_as_they_are_in_memory(four):
    memory, streamed = quietly(four, size=16), quietly(four, size=16, stream=True)
    assert isinstance(streamed.unlabeled, ImageFiles) and held(streamed.unlabeled) == held(memory.unlabeled)
    assert torch.equal(streamed.train.images, memory.train.images)
    files = streamed.unlabeled
    files.workers = 1
    (batch,) = files.batches(lambda step: torch.tensor([3, 11, 3]), 0, 1)
    assert torch.equal(batch, memory.unlabeled.images[[3, 11, 3]])
    again = pickle.loads(pickle.dumps(files))  # as workers that aren't forked get them
    assert torch.equal(again.take([5]).images, memory.unlabeled.images[[5]])
    assert again.fingerprint() == files.fingerprint()


def test_copies_of_measured_images_are_not_streamed(tmp_path):
    data = {
        "train": table(30),
        "validation": table(3, 100),
        "test": table(3, 200),
        "unlabeled": table(5, 199, labels=False),
    }
    splits = quietly(saved(tmp_path / "leaky", data), size=16, stream=True)
    assert len(splits.unlabeled) == 2  # 199 and 203; 200, 201 and 202 are in test
    assert any("3 files left out of unlabeled" in line for line in splits.warnings)


def test_what_does_not_fit_into_memory_is_streamed(four, monkeypatch):
    monkeypatch.setattr(decode, "available_memory", lambda: 2 * 50 * 3 * 16**2)  # 50 of the 57 images
    assert isinstance(quietly(four, size=16).unlabeled, ImageFiles)
    with pytest.raises(CourseError, match="57 images at 16x16 pixels take"):
        quietly(four, size=16, stream=False)


def test_a_row_that_holds_no_image_is_skipped_and_named(tmp_path, capfd):
    data = table(30)
    cells = [{"bytes": encoded(i), "path": None} for i in range(30)]
    cells[3], cells[4] = None, {"bytes": b"no image", "path": None}
    features = data.features
    data = hf.Dataset.from_dict({"image": cells, "label": [i % 3 for i in range(30)]}, features=features)
    splits = quietly(saved(tmp_path / "holes", data), size=16)
    assert len(splits.train) + len(splits.val) + len(splits.test) == 28
    assert "skipped 2 of 30 files: train/3 (empty file), train/4 (not a JPEG" in capfd.readouterr().err


def test_changed_data_is_read_anew(tmp_path):
    spec = saved(tmp_path / "same", table(30))
    first = quietly(spec, size=16)
    saved(tmp_path / "other", table(30, 500))
    (tmp_path / "same").rename(tmp_path / "old")
    (tmp_path / "other").rename(tmp_path / "same")
    second = quietly(spec, size=16)
    assert not set(held(first.train)) & set(held(second.train))


# --- what can't be read ------------------------------------------------------------------------------------------


def two_images(path):
    cells = [{"bytes": encoded(i), "path": None} for i in range(6)]
    return saved(path, table(6).add_column("mask", cells, feature=hf.Image()))


def two_labels(path):
    return saved(path, table(6).add_column("coarse", [0, 1] * 3, feature=hf.ClassLabel(names=["x", "y"])))


def no_images(path):
    return saved(path, table(6).remove_columns("image"))


def damaged(path):
    spec = saved(path, table(6))
    (path / "state.json").write_text("{")
    return spec


def folder_of_images(path):
    path.mkdir()
    picture(0).save(path / "0.png")
    return f"huggingface:{path}"


WRONG = {
    "none": (lambda path: f"huggingface:{path}", "there is no directory .*on this machine"),
    "no table": (folder_of_images, "holds neither what Dataset.save_to_disk writes nor parquet.*use folder:"),
    "damaged": (damaged, "datasets can't read .*save it again"),
    "no images": (no_images, "train of .* has no column of the type Image, where one is needed.*cast_column"),
    "two images": (two_images, "has 2 columns of the type Image .image, mask.*remove_columns"),
    "two labels": (two_labels, "has 2 columns of the type ClassLabel .label, coarse.*remove_columns"),
    "other splits": (
        lambda p: saved(p, {"holdout": table(6)}),
        "has the splits holdout; it needs one called train or unlabeled",
    ),
    "test alone": (lambda p: saved(p, {"test": table(6)}), "has no images to learn from.*train or unlabeled"),
    "one class": (lambda p: saved(p, table(6, labels=[1] * 6)), "has one class, 'bee'"),
    "twice": (
        lambda p: saved(p, {"train": table(9), "val": table(3, 50), "validation": table(3, 60)}),
        "two splits for val, 'validation' among them",
    ),
    "other names": (
        lambda p: saved(p, {"train": table(9), "test": table(3, 50, classes=("ant", "cat", "bee"))}),
        "train and test of .* have different class names",
    ),
    "new class": (
        lambda p: saved(p, {"train": table(8, labels=[0, 1] * 4), "test": table(3, 50)}),
        "class 'cat' of .* is in test but not in train",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_used_is_said_in_one_sentence(tmp_path, case):
    make, sentence = WRONG[case]
    with pytest.raises(CourseError, match=sentence) as error:
        quietly(make(tmp_path / "data"), size=16)
    assert "\n" not in str(error.value)


def test_without_datasets_one_sentence_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(CourseError, match="needs the package datasets, which isn't installed.*pip install datasets"):
        quietly(f"huggingface:{tmp_path}")


def test_other_splits_are_named_and_left_out(tmp_path):
    splits = quietly(saved(tmp_path / "more", {"train": table(30), "extra": table(3, 50)}), size=16)
    assert "splits that were left out: extra." in splits.notes
