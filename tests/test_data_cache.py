"""The cache: what comes out is what went in, or it is made again; it never costs a run."""

import multiprocessing
import os
import subprocess
import sys

import numpy as np
import pytest

from sslcourse.data import cache

KEY = {"name": "squares", "size": 4}


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("SSLCOURSE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def squares():
    return {"a": np.arange(4, dtype=np.uint8) ** 2, "empty": np.empty((0, 3), np.float32), "text": cache.pack(["é", 1])}


def never():
    raise AssertionError("made again, though it was in the cache")


def assert_same(arrays):
    assert arrays.keys() == squares().keys()
    for name, array in squares().items():
        assert arrays[name].dtype == array.dtype and np.array_equal(arrays[name], array)


def test_the_second_time_it_is_read():
    cache.load_or_make(KEY, squares)
    arrays = cache.load_or_make(dict(reversed(KEY.items())), never)
    assert_same(arrays)
    assert cache.unpack(arrays["text"]) == ["é", 1]
    arrays["a"][0] = 1  # and can be written to


def test_another_key_is_another_entry():
    cache.load_or_make(KEY, squares)
    with pytest.raises(AssertionError, match="made again"):
        cache.load_or_make({**KEY, "size": 5}, never)


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "foreign"])
def test_a_damaged_entry_is_made_again_with_one_line(damage, capsys):
    cache.load_or_make(KEY, squares)
    path = cache.entry(KEY)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes({"flip": content, "cut": content[:-3], "empty": b"", "foreign": b"x" * 100}[damage])
    assert_same(cache.load_or_make(KEY, squares))
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and "damaged" in said.err and str(path) in said.err
    assert_same(cache.load_or_make(KEY, never))


def test_a_cache_that_cannot_be_written_costs_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SSLCOURSE_CACHE", str(tmp_path / "file" / "cache"))
    assert_same(cache.load_or_make(KEY, squares))
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "could not write to the cache" in said


def test_a_full_disk_leaves_nothing_half_written(place, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert_same(cache.load_or_make(KEY, squares))
    assert list(place.iterdir()) == []
    assert "No space left on device" in capsys.readouterr().err


def test_what_was_read_longest_ago_goes_first(place, monkeypatch):
    def make():
        return {"a": np.zeros(1000, np.uint8)}

    monkeypatch.setattr(cache, "LIMIT", 3500)
    keys = [{"name": f"k{i}"} for i in range(4)]
    for i, key in enumerate(keys[:3]):
        cache.load_or_make(key, make)
        os.utime(cache.entry(key), (1000 + i, 1000 + i))
    cache.load_or_make(keys[0], never)  # read now, so k1 is the oldest
    cache.load_or_make(keys[3], make)
    assert sorted(path.name[:2] for path in place.iterdir()) == ["k0", "k2", "k3"]


def test_an_entry_above_the_limit_is_not_kept(place, monkeypatch, capsys):
    cache.load_or_make(KEY, squares)
    monkeypatch.setattr(cache, "LIMIT", 500)
    cache.load_or_make({"name": "large"}, lambda: {"a": np.zeros(501, np.uint8)})
    assert [path.name[:7] for path in place.iterdir()] == ["squares"]
    assert "more than" in capsys.readouterr().err


def test_what_a_killed_process_left_is_swept_away_when_old(place):
    cache.load_or_make(KEY, squares)
    for name, age in ((".new.part", None), (".old.part", (1000, 1000))):
        (place / name).write_bytes(b"half")
        if age:
            os.utime(place / name, age)
    cache.load_or_make({"name": "next"}, squares)
    assert {path.name for path in place.glob(".*")} == {".new.part"}


def _make_it(_):
    cache.load_or_make(KEY, squares, notice=pytest.fail)


def test_processes_at_once_do_no_harm():
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.map(_make_it, range(8))
    assert_same(cache.load_or_make(KEY, never))


def test_the_cache_is_had_without_torch():
    code = "import sys, sslcourse.data, sslcourse.data.cache; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
