"""Hostile values at every border of the data: each ends in splits or in one sentence."""

import contextlib
import os
import stat
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sslcourse.data import cache, decode, fetch, load, spec, world
from sslcourse.data.options import LoadOptions
from sslcourse.data.stream import ImageFiles
from sslcourse.errors import CourseError

SPECS = [
    "", " ", ":", ",", "world:", "world:,", "world::", "world:0", "world:-1", "world:1000000000", "world:" + "9" * 5000,
    "world:nan", "world:crowd,crowd", "world:٣٢", "folder:", "folder: ", "folder:/nonexistent", "folder:a\0b",
    "folder:\ud800", "folder:~nobody-of-this-name", "folder:" + "x" * 5000, "folder:/dev/null", "huggingface:",
    "huggingface:/nonexistent", "huggingface:/dev/null", "huggingface:nonsense", "huggingface:a\0b", "digits:0",
    "digits:7", "digits:513", "digits:64,64", "digits:nan", "cifar100", "C:\\photos", "猫", "wrld", "folder:a\nb",
    None, 3, 1.5, b"world", ["world"], {"world": 1}, np.array(["world"]),
]  # fmt: skip


@pytest.mark.parametrize("hostile", SPECS, ids=lambda value: ascii(value)[:30])
def test_a_hostile_specification_is_one_sentence(hostile):
    with pytest.raises(CourseError) as error:
        load(hostile, progress=False, cache=False, size=16 if hostile in ("world:", "world:,", "world::") else None)
    assert "\n" not in str(error.value) and str(error.value).endswith((".", "?", ")"))
    str(error.value).encode()


@given(st.one_of(st.none(), st.text(max_size=12), st.text(alphabet="world:,32folderdigits/~ ", max_size=16)))
@settings(max_examples=150, deadline=None)
def test_any_text_is_a_specification_or_a_sentence(text):
    with contextlib.suppress(CourseError):
        assert spec.parse(text).kind in spec.KINDS


HOSTILE = [-1, 1.5, float("nan"), "3", True, np.float32(3), np.array([3, 4]), [3]]


@pytest.mark.parametrize("value", [*HOSTILE, 0, 7, 513, 2**70], ids=repr)
def test_sizes_that_are_none(value):
    with pytest.raises(CourseError, match="the size in pixels must be a whole number from 8 to 512"):
        load("digits", size=value)


@pytest.mark.parametrize("value", [*HOSTILE, None], ids=repr)
def test_seeds_that_are_none(value):
    with pytest.raises(CourseError, match="the seed must be a whole number from 0"):
        load("digits", seed=value)
    with pytest.raises(CourseError, match="the seed must be a whole number"):
        world.draw("train", 1, seed=value)


@pytest.mark.parametrize("name", ["cache", "progress", "stream"])
@pytest.mark.parametrize("value", [1, 0, "yes", np.array([True]), float("nan")], ids=repr)
def test_switches_are_true_or_false(name, value):
    with pytest.raises(CourseError, match=f"{name} must be True or False"):
        LoadOptions(**{name: value})


def test_numbers_of_numpy_count_as_well(tmp_path):
    splits = load("digits", size=np.int64(16), seed=np.uint8(3))
    assert splits.size == (16, 16) and splits.test.images.equal(load("digits", size=16, seed=3).test.images)
    drawn = world.split("train", np.int16(3), seed=np.int64(1), size=np.int32(32), workers=np.int8(1))
    assert drawn.images.equal(world.draw("train", 3, seed=1).images)
    files = [tmp_path / f"{i}.png" for i in range(3)]
    for i, path in enumerate(files):
        Image.new("RGB", (8, 8), (i, i, i)).save(path)
    assert len(ImageFiles(files, np.int64(8), workers=np.int64(0)).sample(np.int64(2))) == 2


@pytest.mark.parametrize("value", HOSTILE, ids=repr)
def test_streams_of_no_size(tmp_path, value):
    for wrong in (dict(size=value), dict(size=8, workers=value)):
        with pytest.raises(CourseError, match="must be a whole number"):
            ImageFiles([tmp_path / "a.png"], **wrong)


@pytest.mark.parametrize("value", HOSTILE, ids=repr)
def test_numbers_of_pictures_that_are_none(value):
    with pytest.raises(CourseError, match="the number of pictures must be a whole number"):
        world.draw("train", value)


# --- environment variables, caches that are damaged or not one's own -------------------------------------------------


def run(code, **environment):
    own = {key: value for key, value in os.environ.items() if key not in ("HOME", "SSLCOURSE_CACHE", "XDG_CACHE_HOME")}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=own | environment)


@pytest.mark.skipif(sys.platform == "win32", reason="folders have other names there")
@pytest.mark.parametrize("home", [None, "", "/nonexistent"])
def test_without_a_home_folder_data_is_read(home, tmp_path):
    code = "from sslcourse.data import cache; cache.load_or_make({'name': 'x'}, lambda: {}); print(cache.folder())"
    done = run(code, TMPDIR=str(tmp_path), **({} if home is None else {"HOME": home}))
    assert done.returncode == 0, done.stderr
    assert os.path.isabs(done.stdout.strip()) and not os.path.exists("~")


@pytest.mark.parametrize("value", ["~nobody-of-this-name/x", "x" * 5000])
def test_a_variable_that_is_no_path_is_named(monkeypatch, value):
    monkeypatch.setenv("SSLCOURSE_CACHE", value)
    with pytest.raises(CourseError, match="^SSLCOURSE_CACHE: "):
        world.split("train", 1000)
    monkeypatch.setenv("SSLCOURSE_DATA", value)
    with pytest.raises(CourseError, match="^SSLCOURSE_DATA: "):
        load("cifar10")
    if value.startswith("~"):
        monkeypatch.delenv("SSLCOURSE_DATA")
        monkeypatch.setenv("SSLCOURSE_MIRROR", value)
        with pytest.raises(CourseError, match="^SSLCOURSE_MIRROR"):
            fetch.origin(fetch.Remote("https://example.org/a", "0", "a"))


@pytest.mark.parametrize(
    "damage", [lambda path: path.write_bytes(b""), lambda path: path.write_bytes(b"\xff" * 999), lambda path: path.unlink(),
               lambda path: path.write_bytes(path.read_bytes()[:-1]), lambda path: (path.unlink(), path.mkdir())],
)  # fmt: skip
def test_a_damaged_entry_costs_time_alone(tmp_path, monkeypatch, damage):
    monkeypatch.setenv("SSLCOURSE_CACHE", str(tmp_path))
    key, said = {"name": "x"}, []
    made = cache.load_or_make(key, lambda: {"a": np.arange(3)}, said.append)
    damage(cache.entry(key))
    again = cache.load_or_make(key, lambda: {"a": np.arange(3)}, said.append)
    assert np.array_equal(made["a"], again["a"]) and all("\n" not in line for line in said)


@pytest.mark.parametrize("place", ["/dev/null", "/dev/null/x", "/proc/nothing"])
@pytest.mark.skipif(sys.platform != "linux", reason="there are no such places")
def test_a_cache_that_cannot_be_written_costs_time_alone(monkeypatch, capsys, place):
    monkeypatch.setenv("SSLCOURSE_CACHE", place)
    assert cache.load_or_make({"name": "x"}, lambda: {"a": np.arange(3)})["a"].tolist() == [0, 1, 2]
    assert "could not write to the cache folder" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="modes are other ones there")
def test_cached_images_have_the_mode_that_the_umask_gives(tmp_path, monkeypatch):
    monkeypatch.setenv("SSLCOURSE_CACHE", str(tmp_path / "cache"))
    for i, label in enumerate("ab" * 5):
        (tmp_path / "top" / label).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (i, i, i)).save(tmp_path / "top" / label / f"{i}.png")
    before = os.umask(0o027)
    try:
        load(f"folder:{tmp_path / 'top'}", progress=False)
    finally:
        os.umask(before)
    (entry,) = (tmp_path / "cache").iterdir()
    assert stat.S_IMODE(entry.stat().st_mode) == 0o640


def test_an_entry_that_someone_else_keeps_to_himself_is_said_and_made_again(tmp_path, monkeypatch):
    monkeypatch.setenv("SSLCOURSE_CACHE", str(tmp_path))
    key, said = {"name": "x"}, []
    cache.load_or_make(key, lambda: {"a": np.arange(3)})

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(cache, "safe_open", refuse)
    assert cache.load_or_make(key, lambda: {"a": np.arange(3)}, said.append)["a"].tolist() == [0, 1, 2]
    assert "belongs to someone who doesn't let you read it" in said[0]


def test_no_message_of_a_decoder_breaks_a_line():
    assert decode._reason(ValueError("\n")) == "damaged"
    assert decode._reason(ValueError("\ud800\nx")) == "damaged (\\ud800)"
