"""Every way in which public data sets lie in folders is read right and said, or refused in one sentence."""

import os
import re
import shutil
import socket
import sys

import pytest
from PIL import Image, features

from sslcourse.data import load as load_data
from sslcourse.data.decode import Unreadable, read_image
from sslcourse.data.folder import survey
from sslcourse.data.layout import role_of
from sslcourse.errors import CourseError

LINKS = pytest.mark.skipif(sys.platform == "win32", reason="links and pipes are made otherwise there")


def make(top, *paths):
    """Picture files that differ in content, and by their names."""
    for i, path in enumerate(paths):
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        if path.endswith(".txt"):
            (top / path).write_text("0 0.5 0.5 1 1")
        else:
            Image.new("RGB", (8, 8), (7 * i % 256, i // 36, 9)).save(top / path)
    return top


def found(top):
    """split -> class -> the numbers that the files are called."""
    listing = survey(top)
    seen = {}
    for split, label, file in listing.rows:
        seen.setdefault(split, {}).setdefault(label, []).append(os.path.basename(file).partition(".")[0])
    return seen, " ".join(listing.notes), " ".join(listing.warnings)


def two(*folders):
    """Classes a and b in each folder, with one picture each, numbered."""
    names = [f"{folder}/{label}" if folder else label for folder in folders for label in "ab"]
    return [f"{name}/{i}.png" for i, name in enumerate(names)]


TRAIN, VAL, TEST = {"a": ["0"], "b": ["1"]}, {"a": ["2"], "b": ["3"]}, {"a": ["4"], "b": ["5"]}
READ = {
    "capitals": (two("Training", "Validation", "Testing"), dict(train=TRAIN, val=VAL, test=TEST), "Training/ as train"),
    "dev": (two("TRAIN", "dev", "Test"), dict(train=TRAIN, val=VAL, test=TEST), "dev/ as val"),
    "sets": (two("training_set", "valid-images", "test_data"), dict(train=TRAIN, val=VAL, test=TEST), "read as splits"),
    "camels": (two("TrainImages", "ValImages", "TestImages"), dict(train=TRAIN, val=VAL, test=TEST), "read as splits"),
    "years": (two("train2017", "val2017"), dict(train=TRAIN, val=VAL), "train2017/ as train"),
    "numbered": (two("01_train", "02_val", "03_test"), dict(train=TRAIN, val=VAL, test=TEST), "01_train/ as train"),
    "a word that both have": (two("asl_train", "asl_val"), dict(train=TRAIN, val=VAL), "asl_train/ as train"),
    "nested archives": (
        [*two("seg_train/seg_train", "seg_val/seg_val"), "seg_pred/seg_pred/9.png"],
        dict(train=TRAIN, val=VAL),
        "left out: seg_pred",
    ),
    "twice the same": (two("train/train", "val/val"), dict(train=TRAIN, val=VAL), ""),
    "a folder around": (two("imagenette2/train", "imagenette2/val"), dict(train=TRAIN, val=VAL), "imagenette2/ holds every"),
    "folders around folders": (two("ILSVRC/Data/CLS-LOC/train"), dict(train=TRAIN), "ILSVRC/ .*Data/ .*CLS-LOC/ holds"),
    "a folder around classes": (two("101_ObjectCategories"), dict(train=TRAIN), "101_ObjectCategories/ holds everything"),
    "a number around classes": (two("2750"), dict(train=TRAIN), "2750/ holds everything"),
    "an archive of a Mac": ([*two("d"), "__MACOSX/d/a/9.png"], dict(train=TRAIN), "d/ holds everything"),
    "checkpoints of a notebook": ([*two(""), ".ipynb_checkpoints/9.png", "a/.ipynb_checkpoints/9.png"], dict(train=TRAIN), ""),
    "splits within classes": (
        ["a/train/0.png", "b/train/1.png", "a/val/2.png", "b/val/3.png"],
        dict(train=TRAIN, val=VAL),
        "splits were found within each class",
    ),
    "folds": (two("fold1", "fold2"), dict(train={"a": ["0", "2"], "b": ["1", "3"]}), "fold1, fold2 are parts of one set"),
    "images of each class": (["a/images/0.png", "b/images/1.png"], dict(train=TRAIN), ""),
    "masks of each class": (
        ["a/images/0.png", "a/masks/9.png", "b/images/1.png", "b/masks/9.png"],
        dict(train=TRAIN),
        "annotations, and left out: masks/",
    ),
    "images and masks": (["images/0.png", "masks/0.png"], dict(unlabeled={"": ["0"]}), "annotations, and left out: masks/"),
    "images and labels": (["images/0.png", "labels/0.txt"], dict(unlabeled={"": ["0"]}), "images/ holds everything"),
    "tiny ImageNet": (
        ["train/a/images/0.png", "train/b/images/1.png", "val/images/7.png"],
        dict(train=TRAIN),
        "val/ holds no class folders with images, and was left out",
    ),
    "traffic signs": (
        ["G/Final_Training/Images/a/0.png", "G/Final_Training/Images/b/1.png", "G/Final_Test/Images/9.png"],
        dict(train=TRAIN),
        "Final_Test/ holds no class folders",
    ),
    "unlabeled, spelled otherwise": ([*two("train"), "Un-labelled/9.png"], dict(train=TRAIN, unlabeled={"": ["9"]}), ""),
    "classes with such words": (["train_cars/0.png", "test_tubes/1.png"], dict(train={"train_cars": ["0"], "test_tubes": ["1"]}), ""),
    "digits": (["0/0.png", "1/1.png"], dict(train={"0": ["0"], "1": ["1"]}), ""),
}  # fmt: skip


@pytest.mark.parametrize(("paths", "expected", "note"), READ.values(), ids=READ.keys())
def test_a_layout_is_read_right_and_said(tmp_path, paths, expected, note):
    seen, notes, _ = found(make(tmp_path / "top", *paths))
    assert seen == expected
    assert re.search(note, notes), notes


REFUSED = {
    "domains": (two("day", "night"), "day, night of .* all hold the same folders, a, b.*folder:.*day, or call them train"),
    "splits of unknown names": (two("learn", "exam"), "either could be the classes"),
    "domains with a folder between": (two("amazon/images", "dslr/images"), "either could be the classes"),
    "masks in a folder beside": (two("CUB/images", "segmentations"), "either could be the classes"),
    "domains, with one file outside": ([*two("day", "night"), *[f"day/a/x{i}.png" for i in range(20)], "day/x.png"], "either"),
    "a picture beside a folder around": ([*two("photos"), "cover.png"], "one class folder, 'photos'.*did you mean folder:.*photos"),
    "data sets": (two("x/train", "x/test", "y/train", "y/test"), "x/ has splits with class folders of its own.*folder:.*x"),
    "archives of one split each": (two("archive/train", "archive2/test"), "splits with class folders of its own"),
    "splits in some classes": (["a/train/0.png", "a/test/1.png", "b/2.png"], "splits within a/ but not within b/"),
    "parts without classes": (["part1/0.png", "part2/1.png"], "parts of one set by their names.* no class folders"),
    "splits without classes": (["train/images/0.png", "train/labels/0.txt", "valid/images/1.png"], "no class folders in train/"),
    "two for a role": (two("train", "val", "validation"), "holds both val/ and validation/"),
    "other classes in a split": ([*two("Training"), "Testing/a/9.png"], "'b' is in Training/ but not in Testing/"),
}  # fmt: skip


@pytest.mark.parametrize(("paths", "sentence"), REFUSED.values(), ids=REFUSED.keys())
def test_a_layout_that_can_be_read_in_two_ways_is_refused(tmp_path, paths, sentence):
    with pytest.raises(CourseError, match=sentence) as error:
        survey(make(tmp_path / "top", *paths))
    assert "\n" not in str(error.value) and "top" in str(error.value)


def test_a_split_of_another_name_is_not_left_out_in_silence(tmp_path):
    seen, notes, warnings = found(make(tmp_path, *two("train", "holdout"), "extra/9.png"))
    assert set(seen) == {"train"} and "left out: extra" in notes and "holdout" not in notes
    assert "holdout/ beside train/ hold the same classes and were left out; call" in warnings


@pytest.mark.parametrize("name", ["masks", "Thumbnails", "test", "validation"])
def test_classes_whose_names_are_those_of_something_else_are_warned_of(tmp_path, name):
    _, _, warnings = found(make(tmp_path / name, *two(""), f"{name}/9.png"))
    assert f"{name} are taken for classes" in warnings
    assert found(make(tmp_path / "train", "car/0.png", "train/1.png"))[2] == "", "vehicles"


def test_kinds_of_classes_are_warned_of_with_both_readings(tmp_path):
    paths = ["animals/cat/0.png", "animals/dog/1.png", "vehicles/bus/2.png", "vehicles/car/3.png"]
    seen, _, warnings = found(make(tmp_path, *paths))
    assert set(seen["train"]) == {"animals", "vehicles"}
    assert "the classes are animals, vehicles, and not cat, dog, bus, car" in warnings


def test_classes_called_train_and_test_are_warned_of(tmp_path):
    _, _, warnings = found(make(tmp_path, "train/0.png", "test/1.png", "control/2.png"))
    assert "test, train are taken for classes" in warnings


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("train", "train"), ("Train", "train"), ("TRAINING", "train"), ("train_set", "train"), ("trainset", "train"),
        ("training data", "train"), ("train-images", "train"), ("seg_train", "train"), ("train1", "train"),
        ("Validation", "val"), ("valid", "val"), ("dev", "val"), ("testing", "test"), ("test1", "test"),
        ("unlabeled", "unlabeled"), ("Unlabelled", "unlabeled"), ("un-labeled", "unlabeled"), ("UnlabeledImages", "unlabeled"),
        ("", None), ("1", None), ("trains", None), ("train_cars", None), ("tested", None), ("attest", None), ("data", None),
        ("火车", None), ("train test", None),
    ],
)  # fmt: skip
def test_names_of_splits(name, role):
    assert role_of(name) == role


# --- files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ending", [".jfif", ".jpe", ".JPG", ".mpo", ".ico", ".tga", ".pcx", ".jp2", ".dib", ".apng", ".sgi"]
)
def test_whatever_pillow_reads_is_read(tmp_path, ending):
    if ending == ".jp2" and not features.check("jpg_2000"):
        pytest.skip("this Pillow was built without it")
    kind = {".jfif": "JPEG", ".jpe": "JPEG", ".mpo": "JPEG"}.get(ending)
    for i, name in enumerate("aaaaabbbbb"):
        (tmp_path / name).mkdir(exist_ok=True)
        Image.new("RGB", (16, 16), (200, 9 * i, 40)).save(tmp_path / name / f"{i}{ending}", kind)
    splits = load_data(f"folder:{tmp_path}", progress=False, cache=False)
    assert splits.classes == ("a", "b") and sum(len(getattr(splits, part)) for part in ("train", "val", "test")) == 10
    assert abs(int(splits.train.images[:, 0].float().mean()) - 200) < 4


def test_every_file_that_is_not_read_is_counted_by_its_ending(tmp_path):
    make(tmp_path, *two(""))
    for name in ("a/x.heic", "b/y.HEIC", "a/z.svg", "notes.txt", "a/film.mp4", "b/paper.pdf", "a/page.eps", "a/plain"):
        (tmp_path / name).write_bytes(b"x")
    _, notes, _ = found(tmp_path)
    assert "can't be read were left out: 1 .eps, 2 .heic, 1 .pdf, 1 .svg; save them as JPEG" in notes
    assert "by their names were left out: 1 without an ending, 1 .mp4, 1 .txt" in notes


def test_a_format_without_signature_is_not_guessed(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.tga")
    assert read_image(tmp_path / "a.tga", 8)[0].shape == (3, 8, 8)
    (tmp_path / "a.tga").rename(tmp_path / "a.jpg")
    with pytest.raises(Unreadable, match="not a JPEG, PNG or other image that Pillow reads"):
        read_image(tmp_path / "a.jpg", 8)


@LINKS
def test_pipes_and_sockets_are_left_out_and_do_not_hang(tmp_path):
    make(tmp_path, *two(""))
    os.mkfifo(tmp_path / "a" / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as there:
        here = os.getcwd()
        os.chdir(tmp_path / "b")  # such names are short
        there.bind("socket.png")
        os.chdir(here)
        seen, notes, _ = found(tmp_path)
    assert (
        seen == {"train": TRAIN}
        and "neither file nor folder was left out, such as pipes: pipe.jpg, socket.png" in notes
    )
    for name in ("a/pipe.jpg", "b/socket.png", "a"):
        with pytest.raises(Unreadable, match="not a regular file"):
            read_image(tmp_path / name, 8)
    with pytest.raises(Unreadable, match="not a regular file"):
        read_image("/dev/null", 8)


# --- links -------------------------------------------------------------------------------------------------------


@LINKS
@pytest.mark.parametrize("name", ["0first", "zlast"])
def test_a_class_folder_that_is_a_link_to_another_gives_no_picture_two_labels(tmp_path, name):
    make(tmp_path, *two(""))
    (tmp_path / name).symlink_to(tmp_path / "a", target_is_directory=True)
    seen, notes, _ = found(tmp_path)
    assert seen == {"train": TRAIN} and f"links to folders that are read already were left out: {name}" in notes


@LINKS
def test_a_test_folder_that_is_a_link_to_train_is_no_test_set(tmp_path):
    make(tmp_path, *two("train"))
    (tmp_path / "test").symlink_to(tmp_path / "train", target_is_directory=True)
    seen, notes, _ = found(tmp_path)
    assert seen == {"train": TRAIN} and "read already were left out: test" in notes


@LINKS
def test_links_to_folders_elsewhere_are_followed_and_loops_end(tmp_path):
    make(tmp_path, *[f"top/{path}" for path in two("")], "elsewhere/7.png")
    top = tmp_path / "top"
    (top / "b" / "more").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "elsewhere" / "back").symlink_to(top, target_is_directory=True)
    for i in range(12):  # every way through these would be 12! long
        (top / "a" / f"d{i}").mkdir()
    for i in range(12):
        for j in range(12):
            (top / "a" / f"d{i}" / f"l{j}").symlink_to(top / "a" / f"d{j}", target_is_directory=True)
    assert found(top)[0] == {"train": {"a": ["0"], "b": ["1", "7"]}}


@LINKS
@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_one_file_in_two_classes_is_left_out_and_said(tmp_path, link):
    make(tmp_path, *two(""), "a/9.png", "b/8.png")
    link(tmp_path / "a" / "9.png", tmp_path / "b" / "again.png")
    link(tmp_path / "b" / "8.png", tmp_path / "b" / "copy.png")
    seen, _, warnings = found(tmp_path)
    assert seen == {"train": {"a": ["0"], "b": ["1", "8"]}}
    assert "put into two classes were left out: a/9.png." in warnings
    assert "links to files that are there already were left out: 1." in warnings


@LINKS
def test_classes_of_the_same_files_are_refused(tmp_path):
    make(tmp_path, *two(""))
    (tmp_path / "c").mkdir()
    os.link(tmp_path / "a" / "0.png", tmp_path / "c" / "0.png")
    with pytest.raises(CourseError, match="every file of class 'a' in .* is also in another class, by links"):
        survey(tmp_path)


@LINKS
def test_a_link_from_test_to_train_is_a_leak_that_is_said(tmp_path, capsys):
    paths = [f"{split}/{label}/{i}.png" for split in ("train", "test") for label in "ab" for i in range(4)]
    make(tmp_path, *paths)
    os.link(tmp_path / "test" / "a" / "0.png", tmp_path / "train" / "a" / "x.png")
    splits = load_data(f"folder:{tmp_path}", progress=False, cache=False)
    assert "1 image was dropped from train, being also in test." in splits.warnings
    assert "a/x.png" not in "".join(splits.train.names)


# --- names -------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="names are Unicode there")
def test_names_that_are_not_utf8_are_read_and_can_be_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SSLCOURSE_CACHE", str(tmp_path / "cache"))
    top = os.path.join(os.fsencode(tmp_path), b"gr\xfc\xdfe")
    for i, label in enumerate([b"caf\xe9", b"two\nlines"] * 5):
        os.makedirs(os.path.join(top, label), exist_ok=True)
        with open(os.path.join(top, label, b"\xff%d.png" % i), "wb") as file:
            Image.new("RGB", (8, 8), (i, 2 * i, 3)).save(file, "PNG")
    with open(os.path.join(top, b"caf\xe9", b"\xfe.png"), "wb") as file:
        file.write(b"broken")
    for _ in ("read", "cached"):
        splits = load_data(f"folder:{os.fsdecode(top)}", progress=False)
        assert splits.classes == ("caf\\udce9", "two\\nlines")
        text = f"{splits} {splits.notes} {splits.warnings} {splits.train.describe()}" + capsys.readouterr().err
        assert "caf\\udce9/\\udcfe.png (not a JPEG" in text
        text.encode()
        assert all(os.path.isfile(os.path.join(os.fsdecode(top), name)) for name in splits.train.names)


def test_one_class_under_two_spellings_of_its_name_is_one(tmp_path):
    make(tmp_path, "b/0.png", "caf\u00e9/1.png", "cafe\u0301/2.png")
    if len(os.listdir(tmp_path)) < 3:
        pytest.skip("this file system knows one spelling")
    assert sorted(found(tmp_path)[0]["train"]["caf\u00e9"]) == ["1", "2"]


def test_images_keep_the_names_of_their_files(tmp_path):
    paths = [f"{label}/{i}.png" for label in "ab" for i in range(5)]
    splits = load_data(f"folder:{make(tmp_path, *paths)}", progress=False, cache=False)
    names = [name for part in (splits.train, splits.val, splits.test) for name in part.names]
    assert sorted(names) == sorted(paths)
    for part in (splits.train, splits.val, splits.test):
        assert all(part.classes[label] == name[0] for label, name in zip(part.labels, part.names, strict=True))
    assert splits.unlabeled.names is None  # a path tells the class
    shutil.rmtree(tmp_path / "a")
    shutil.rmtree(tmp_path / "b")
    splits = load_data(f"folder:{make(tmp_path, '0.png', 'unlabeled/x/1.png')}", progress=False, cache=False)
    assert splits.unlabeled.names == ("0.png", "unlabeled/x/1.png")
