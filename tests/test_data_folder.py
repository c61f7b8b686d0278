"""A folder of images: every layout, every kind of file, and everything that can be wrong with one."""

import os
import re
import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from sslcourse.data import decode, find_leaks
from sslcourse.data import load as load_data
from sslcourse.data.decode import Unreadable, read_image
from sslcourse.data.folder import survey
from sslcourse.errors import CourseError
from sslcourse.evaluate import refuse_unlabelled

COLOURS = {"ant": (200, 40, 40), "bee": (40, 200, 40), "cat": (40, 40, 200)}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    place = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("SSLCOURSE_CACHE", str(place))
    return place


def picture(colour=(128, 128, 128), seed=0, size=(32, 32)):
    """A noisy picture that is mostly of one colour; no two seeds give the same."""
    noise = np.random.default_rng(seed).integers(-30, 30, (size[1], size[0], 3))
    return Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8))


def save(path, image=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    (image or picture()).save(path, **options)
    return path


def fill(top, classes=("ant", "bee", "cat"), count=5, start=0):
    for c, name in enumerate(classes):
        for i in range(count):
            save(top / name / f"{i}.png", picture(COLOURS.get(name, (90, 90, 90)), seed=1000 * c + start + i))
    return top


def load(top, **options):
    return load_data(f"folder:{top}", progress=False, **options)


def assert_labels_true(images):
    """Every image has the colour of the class that its label names."""
    mean = images.images.float().mean(dim=(2, 3))
    colours = torch.tensor([COLOURS[name] for name in images.classes]).float()
    assert torch.equal(torch.cdist(mean, colours).argmin(dim=1), images.require_labels())


def counts(splits):
    return tuple(len(getattr(splits, name)) for name in ("unlabeled", "train", "val", "test"))


# --- layouts ---------------------------------------------------------------------------------------------------


def test_class_folders_are_split_by_seed(tmp_path):
    splits = load(fill(tmp_path))
    assert counts(splits) == (9, 9, 3, 3)
    assert splits.classes == ("ant", "bee", "cat")
    for part in (splits.train, splits.val, splits.test):
        assert_labels_true(part)
        assert len(set(part.counts().values())) == 1
    assert splits.unlabeled.labels is None
    assert torch.equal(splits.unlabeled.images, splits.train.images)
    assert any("without their labels" in note for note in splits.notes)
    assert find_leaks(splits) == []


def test_the_split_depends_on_the_seed_alone(tmp_path):
    first = fill(tmp_path / "first", count=8)
    second = tmp_path / "second"
    for file in sorted(first.rglob("*.png"), reverse=True):  # made in another order
        (second / file.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, second / file.parent.name)
    a, b, c = load(first, seed=1), load(second, seed=1), load(first, seed=2)
    assert torch.equal(a.test.images, b.test.images) and torch.equal(a.train.labels, b.train.labels)
    assert not torch.equal(a.test.images, c.test.images)


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Val"])
def test_split_folders_are_taken_as_they_are(tmp_path, val):
    for i, part in enumerate(("train", val, "test")):
        fill(tmp_path / part, count=i + 1, start=10 * i)
    splits = load(tmp_path)
    assert counts(splits) == (3, 3, 6, 9)
    for part in (splits.train, splits.val, splits.test):
        assert_labels_true(part)


@pytest.mark.parametrize(("given", "cut"), [("test", "val"), ("val", "test")])
def test_a_missing_split_is_cut_from_train(tmp_path, given, cut):
    fill(tmp_path / "train", count=10)
    fill(tmp_path / given, count=2, start=50)
    splits = load(tmp_path)
    assert len(splits.train) == 27 and len(getattr(splits, given)) == 6 and len(getattr(splits, cut)) == 3
    assert_labels_true(getattr(splits, cut))
    assert any(f"{cut} (10%)" in note for note in splits.notes)


def test_train_alone_is_split_three_ways(tmp_path):
    fill(tmp_path / "train")
    assert counts(load(tmp_path)) == (9, 9, 3, 3)


@pytest.mark.parametrize("name", ["unlabeled", "Unlabelled"])
@pytest.mark.parametrize("inner", ["", "train"])
def test_unlabeled_has_no_labels_whatever_its_folders_are_called(tmp_path, name, inner):
    fill(tmp_path / inner)
    fill(tmp_path / name, ("ant", "zebra"), count=4, start=500)
    splits = load(tmp_path)
    assert counts(splits) == (8, 9, 3, 3)
    assert splits.unlabeled.labels is None and splits.classes == ("ant", "bee", "cat")


@pytest.mark.parametrize("inner", ["", "unlabeled"])
def test_images_without_classes_can_be_pretrained_on_only(tmp_path, inner):
    for i in range(4):
        save(tmp_path / inner / f"{i}.jpg", picture(seed=i))
    splits = load(tmp_path)
    assert counts(splits) == (4, 0, 0, 0)
    assert splits.train.labels is None and any("nothing can be measured on them" in note for note in splits.notes)
    with pytest.raises(CourseError, match="labelled images in train, val and test.* one folder per class"):
        refuse_unlabelled(splits)


def test_a_class_may_be_called_train(tmp_path):
    fill(tmp_path, ("train", "plane"))
    assert load(tmp_path).classes == ("plane", "train")


def test_files_may_lie_deeper_in_a_class_folder(tmp_path):
    fill(tmp_path)
    save(tmp_path / "ant" / "holiday" / "2024" / "x.png", picture(COLOURS["ant"], seed=77))
    splits = load(tmp_path)
    assert sum(counts(splits)[1:]) == 16
    assert_labels_true(splits.train)


def test_hidden_and_foreign_files_are_left_out(tmp_path):
    fill(tmp_path)
    save(tmp_path / ".thumbnails" / "a" / "0.png")
    save(tmp_path / "__MACOSX" / "a" / "0.png")
    save(tmp_path / "ant" / "._0.png")
    (tmp_path / "ant" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "labels.csv").write_text("a,b")
    (tmp_path / "empty").mkdir()
    assert sum(counts(load(tmp_path))[1:]) == 15


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_links_in_a_circle_end(tmp_path):
    fill(tmp_path)
    (tmp_path / "ant" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "ant" / "self").symlink_to(tmp_path / "ant", target_is_directory=True)
    assert len(survey(tmp_path).files["train"]) == 15


def test_what_is_left_out_is_said(tmp_path):
    fill(tmp_path / "train", count=5)
    save(tmp_path / "more" / "x.png")
    save(tmp_path / "loose.png")
    (tmp_path / "train" / "ant" / "IMG_1.HEIC").write_bytes(b"x")
    notes = " ".join(load(tmp_path).notes)
    assert (
        "left out: more" in notes and "outside of every class folder were left out: 1." in notes and "1 .heic" in notes
    )


# --- what is refused, in one sentence ---------------------------------------------------------------------------


def nothing(top):
    top.rmdir()


def a_file(top):
    top.rmdir()
    save(top.with_suffix(".png")).rename(top)


def heic(top):
    (top / "ant").mkdir()
    (top / "ant" / "a.heic").write_bytes(b"x")


def all_broken(top):
    for name in ("ant", "bee"):
        (top / name).mkdir()
        (top / name / "a.jpg").write_bytes(b"")


def one_class_broken(top):
    fill(top, ("ant", "bee"))
    (top / "cat").mkdir()
    (top / "cat" / "a.jpg").write_bytes(b"not an image")


def mismatch(top):
    fill(top / "train", ("ant", "bee"))
    fill(top / "test", ("ant", "bees"), start=50)


def two_vals(top):
    for part in ("train", "val", "valid"):
        fill(top / part, count=1)


def loose_train(top):
    for part in ("train", "test"):
        save(top / part / "0.png")


REFUSED = {
    "no folder": (nothing, "there is no folder"),
    "a file": (a_file, "is a file"),
    "empty": (lambda top: None, "holds no images; needed are class folders"),
    "empty classes": (lambda top: [(top / name).mkdir() for name in "ab"], "holds no images"),
    "empty train": (lambda top: (top / "train").mkdir(), "holds no images"),
    "no kind that is read": (heic, r"holds no images.*1 \.heic; save them as JPEG or PNG"),
    "one class": (lambda top: fill(top, ("ant",)), "one class folder, 'ant'; measuring needs .* two classes"),
    "one class in train": (lambda top: fill(top / "train", ("ant",)), "one class folder, 'ant'"),
    "one class a folder too high": (lambda top: fill(top / "photos", ("ant",)), "one class folder, 'ant'"),
    "no classes in train": (loose_train, "images but no class folders in train/ and test/ of"),
    "test without train": (lambda top: fill(top / "test"), "holds test/ but no class folders in train/"),
    "other classes": (mismatch, r"'bee' is in train/ but not in test/ of .*did you mean 'bees'"),
    "two folders for val": (two_vals, "holds both val/ and valid/"),
    "nothing readable": (all_broken, r"none of the 2 image files .*a.jpg \(empty file\)"),
    "a class unreadable": (one_class_broken, "class 'cat' in .* has no image in train that can be read"),
}


@pytest.mark.parametrize(("make", "sentence"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(tmp_path, make, sentence):
    top = tmp_path / "photos0"
    top.mkdir()
    make(top)
    with pytest.raises(CourseError, match=sentence) as error:
        load(top)
    assert "\n" not in str(error.value) and "photos0" in str(error.value)


def test_a_misspelt_path_is_recognized(tmp_path):
    fill(tmp_path / "photos")
    with pytest.raises(CourseError, match="did you mean 'photos'"):
        load(tmp_path / "fotos")


def test_more_than_fits_into_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(decode, "available_memory", lambda: 100_000)
    with pytest.raises(CourseError, match=r"15 images at 64x64 .* choose a smaller size"):
        load(fill(tmp_path), size=64)
    load(tmp_path, size=16)


# --- files that are skipped -------------------------------------------------------------------------------------


def truncated(path):
    save(path, picture(size=(200, 200)))
    path.write_bytes(path.read_bytes()[:-500])


SKIPPED = {
    "empty": (lambda path: path.write_bytes(b""), "empty file"),
    "text": (lambda path: path.write_text("hello"), "not a JPEG, PNG or other image"),
    "truncated": (truncated, "damaged .*truncated"),
    "postscript": (lambda path: path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), "not a JPEG"),
    "link to nothing": (lambda path: path.symlink_to(path.with_name("gone.jpg")), "a link to nothing"),
}


@pytest.mark.parametrize(("make", "reason"), SKIPPED.values(), ids=SKIPPED.keys())
def test_a_broken_file_is_skipped_named_and_counted(tmp_path, capsys, make, reason):
    fill(tmp_path)
    make(tmp_path / "bee" / "00.jpg")
    splits = load(tmp_path)
    assert sum(counts(splits)[1:]) == 15
    for part in (splits.train, splits.val, splits.test):
        assert_labels_true(part)
    note = rf"skipped 1 of 16 files: {re.escape(os.path.join('bee', '00.jpg'))} \({reason}"
    for text in (" ".join(splits.warnings), capsys.readouterr().err):
        assert re.search(note, text), text


def test_many_broken_files_are_counted_and_the_first_named(tmp_path):
    fill(tmp_path)
    for i in range(20):
        (tmp_path / "cat" / f"x{i:02}.jpg").write_bytes(b"")
    notes = " ".join(load(tmp_path).warnings)
    assert "skipped 20 of 35 files (more than half)" in notes
    assert "x07.jpg" in notes and "x08.jpg" not in notes and "and 12 more" in notes


def test_a_huge_image_is_skipped(tmp_path, monkeypatch):
    save(tmp_path / "huge.png", picture(size=(300, 300)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30_000)
    with pytest.raises(Unreadable, match="more than 0 million pixels"):
        read_image(tmp_path / "huge.png", 32)


def test_a_file_without_permission_is_skipped(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(Unreadable, match="no permission"):
        read_image(path, 32)


def test_tiny_images_are_enlarged_and_named(tmp_path):
    fill(tmp_path)
    save(tmp_path / "ant" / "tiny.png", picture(COLOURS["ant"], seed=9, size=(5, 40)))
    splits = load(tmp_path)
    assert sum(counts(splits)[1:]) == 16
    assert any("less than 8 pixels were enlarged: 1" in n and "tiny.png" in n for n in splits.warnings)


# --- kinds of files -----------------------------------------------------------------------------------------------


def gradient(size=32):
    return np.linspace(0, 255, size * size).reshape(size, size).round().astype(np.uint8)


def read(path, size=32):
    return read_image(path, size)[0].transpose(1, 2, 0).astype(int)


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "gif", "pgm", "webp"])
def test_gray(tmp_path, ending):
    path = save(
        tmp_path / f"a.{ending}", Image.fromarray(gradient()), **({"lossless": True} if ending == "webp" else {})
    )
    assert np.array_equal(read(path), np.repeat(gradient()[..., None], 3, 2))


@pytest.mark.parametrize("ending", ["png", "tif", "pgm"])
def test_16_bits_are_scaled_and_not_clipped(tmp_path, ending):
    wide = np.linspace(0, 65535, 1024).reshape(32, 32).round().astype(np.uint16)
    path = save(tmp_path / f"a.{ending}", Image.fromarray(wide))
    expected = np.repeat((wide / 257).round().astype(int)[..., None], 3, 2)
    assert np.array_equal(read(path), expected)


def test_big_endian_16_bits(tmp_path):
    (tmp_path / "a.pgm").write_bytes(b"P5 32 32 65535\n" + np.full((32, 32), 0x8000, ">u2").tobytes())
    assert np.unique(read(tmp_path / "a.pgm")).tolist() == [128]


def test_floats_in_the_unit_interval_are_scaled_and_others_refused(tmp_path):
    unit = np.linspace(0, 1, 1024, dtype=np.float32).reshape(32, 32)
    assert np.array_equal(read(save(tmp_path / "a.tif", Image.fromarray(unit)))[..., 0], (unit * 255).round())
    with pytest.raises(Unreadable, match=r"outside \[0, 1\]"):
        read(save(tmp_path / "b.tif", Image.fromarray(unit * 1000)))
    with pytest.raises(Unreadable, match="32-bit"):
        read(save(tmp_path / "c.tif", Image.fromarray((unit * 1e6).astype(np.int32))))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_laid_on_white(tmp_path, mode):
    image = Image.new("RGBA", (32, 32), (10, 10, 10, 255))
    image.paste((0, 0, 0, 0), (0, 0, 32, 16))
    if mode == "P":
        image = image.convert("RGB").quantize(4)
        transparent = image.getpixel((0, 0))
        path = save(tmp_path / "a.png", image, transparency=transparent)
    else:
        path = save(tmp_path / "a.png", image.convert(mode))
    assert (read(path)[:16] == 255).all() and (read(path)[16:] == 10).all()


def test_half_transparent_is_mixed_with_white(tmp_path):
    path = save(tmp_path / "a.png", Image.new("RGBA", (32, 32), (0, 0, 0, 128)))
    assert np.abs(read(path) - 127).max() <= 1


def test_cmyk_jpeg(tmp_path):
    path = save(tmp_path / "a.jpg", Image.new("RGB", (32, 32), (200, 60, 30)).convert("CMYK"), quality=95)
    assert np.abs(read(path) - (200, 60, 30)).max() <= 8


def test_one_bit_and_palette(tmp_path):
    assert (read(save(tmp_path / "a.png", Image.new("1", (32, 32), 1))) == 255).all()
    assert (read(save(tmp_path / "b.gif", Image.new("RGB", (32, 32), (255, 0, 0)).quantize(2))) == (255, 0, 0)).all()


def test_the_first_frame_of_an_animation_counts(tmp_path):
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    path = save(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    assert (read(path) == (255, 0, 0)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "tif", "jpg"])
def test_exif_orientation(tmp_path, orientation, ending):
    image = Image.fromarray(np.stack([gradient(), gradient().T, gradient() * 0], 2)).resize((48, 32))
    exif = Image.Exif()
    exif[decode.ORIENTATION] = orientation
    path = save(tmp_path / f"a.{ending}", image, exif=exif)
    with Image.open(path) as stored:
        upright = ImageOps.exif_transpose(stored).convert("RGB")
    assert np.array_equal(read(path), np.asarray(ImageOps.fit(upright, (32, 32), Image.Resampling.BILINEAR)))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_damaged_exif_block_is_overlooked(tmp_path):
    path = save(tmp_path / "a.jpg", picture(), exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff\x00")
    assert read(path).shape == (32, 32, 3)


# --- sizes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "chosen"),
    [
        ([(28, 28)], 28),
        ([(96, 96)], 96),
        ([(97, 97)], 64),
        ([(40, 32)], 64),
        ([(32, 32), (48, 48)], 64),
        ([(6, 6)], 64),
    ],
)
def test_the_default_size(tmp_path, sizes, chosen):
    for i in range(4):
        save(tmp_path / f"{i}.png", picture(seed=i, size=sizes[i % len(sizes)]))
    splits = load(tmp_path)
    assert splits.size == (chosen, chosen)
    assert load(tmp_path, size=16).size == (16, 16)


def test_the_centre_is_cut_out(tmp_path):
    image = Image.new("RGB", (96, 32), "red")
    image.paste((0, 0, 255), (32, 0, 64, 32))
    assert (read(save(tmp_path / "wide.png", image)) == (0, 0, 255)).all()
    assert (read(save(tmp_path / "tall.png", image.rotate(90, expand=True))) == (0, 0, 255)).all()


def test_shrinking_is_antialiased(tmp_path):
    board = np.indices((256, 256)).sum(0) % 2 * 255
    path = save(tmp_path / "a.png", Image.fromarray(board.astype(np.uint8)))
    assert np.abs(read(path) - 127.5).max() < 3


def test_a_large_jpeg_is_read_reduced_and_looks_the_same(tmp_path):
    smooth = Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8))
    image = smooth.resize((1200, 1200), Image.Resampling.BICUBIC)
    exact = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(read(save(tmp_path / "a.jpg", image, quality=95)) - exact).max() < 8


# --- leaks --------------------------------------------------------------------------------------------------------


def test_an_image_of_test_is_dropped_from_all_that_trains(tmp_path, capsys):
    fill(tmp_path / "train", count=10)
    fill(tmp_path / "test", count=3, start=50)
    fill(tmp_path / "unlabeled", count=3, start=90)
    shutil.copy(tmp_path / "test" / "ant" / "0.png", tmp_path / "train" / "bee" / "copy.png")
    Image.open(tmp_path / "test" / "cat" / "1.png").save(tmp_path / "unlabeled" / "saved again.bmp")
    splits = load(tmp_path)
    assert counts(splits) == (9, 27, 3, 9)
    assert find_leaks(splits) == []
    for part in (splits.train, splits.val, splits.test):
        assert_labels_true(part)
    for text in (" ".join(splits.warnings), capsys.readouterr().err):
        assert "1 image was dropped from train, being also in test." in text
        assert "1 image was dropped from unlabeled, being also in test." in text


def test_copies_go_to_one_side_of_a_seeded_split(tmp_path):
    fill(tmp_path, count=6)
    for file in list(tmp_path.rglob("*.png")):
        for i in range(3):
            shutil.copy(file, file.with_name(f"{file.stem} copy {i}.png"))
    for seed in range(5):
        splits = load(tmp_path, seed=seed)
        assert find_leaks(splits) == [] and sum(counts(splits)[1:]) == 72


def test_a_test_folder_that_is_the_train_folder_is_refused(tmp_path):
    fill(tmp_path / "train")
    shutil.copytree(tmp_path / "train", tmp_path / "test")
    with pytest.raises(CourseError, match="every image of train .* is also in a split that is measured on"):
        load(tmp_path)


# --- cache --------------------------------------------------------------------------------------------------------


def test_the_second_load_reads_no_image(tmp_path, monkeypatch):
    (fill(tmp_path) / "ant" / "broken.jpg").write_bytes(b"")
    first = load(tmp_path)
    monkeypatch.setattr(decode, "read_image", None)
    second = load(tmp_path)
    assert torch.equal(first.train.images, second.train.images) and first.warnings == second.warnings != ()
    third = load(tmp_path, seed=1)
    assert not torch.equal(first.test.images, third.test.images)


def test_a_changed_file_is_read_again(tmp_path):
    path = save(fill(tmp_path) / "ant" / "x.bmp", picture(COLOURS["ant"], seed=50))
    before = load(tmp_path)
    size = path.stat().st_size
    save(path, picture((0, 0, 0), seed=51))
    os.utime(path, (1, 1))
    assert path.stat().st_size == size
    after = load(tmp_path)

    def darkest(splits):
        return min(part.images.float().mean((1, 2, 3)).min() for part in (splits.train, splits.val, splits.test))

    assert darkest(before) > 60 and darkest(after) < 30


def test_without_cache_nothing_is_kept(tmp_path, own_cache):
    load(fill(tmp_path), cache=False)
    assert list(own_cache.iterdir()) == []
    load(tmp_path)
    assert len(list(own_cache.iterdir())) == 1
