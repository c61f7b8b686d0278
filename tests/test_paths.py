"""What a person types as a path, where the package keeps things, and names on a console that can't show them."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sslcourse.console import let_print, printable, say, shown
from sslcourse.errors import CourseError
from sslcourse.paths import cache_folder, data_folder, typed, work_folder

FOLDERS = {"SSLCOURSE_CACHE": cache_folder, "SSLCOURSE_DATA": data_folder, "SSLCOURSE_WORK": work_folder}


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    return tmp_path


def test_a_tilde_at_the_beginning_is_the_home_folder(home):
    assert typed("~/runs") == home / "runs" and typed(Path("~/runs")) == home / "runs" and typed("~") == home
    assert typed("a/~/b") == Path("a/~/b") and typed("./~x") == Path("./~x")


@pytest.mark.parametrize("variable", FOLDERS)
def test_a_tilde_in_an_environment_variable_is_the_home_folder(home, monkeypatch, variable):
    monkeypatch.setenv(variable, "~/kept")
    assert FOLDERS[variable]() == home / "kept"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "an empty one was given"),
        ("  ", "an empty one was given"),
        ("~nobody-of-this-name/x", "home folder that ~nobody-of-this-name/x begins with isn't known"),
        ("a\0b", r"a\\x00b holds a character that no path can have"),
        ("\ud800", "holds a character that no path can have"),
        ("x" * 5000, "too long for a path"),
        (3, "a path is text such as 'photos', and 3 was given"),
        (None, "a path is text such as 'photos', and None was given"),
    ],
)
def test_what_is_no_path_is_refused_in_one_sentence(text, sentence):
    with pytest.raises(CourseError, match=sentence) as error:
        typed(text)
    assert "\n" not in str(error.value)
    str(error.value).encode()


def test_a_variable_that_is_no_path_is_named(monkeypatch):
    monkeypatch.setenv("SSLCOURSE_CACHE", "~nobody-of-this-name")
    with pytest.raises(CourseError, match="^SSLCOURSE_CACHE: the home folder"):
        cache_folder()


@pytest.mark.parametrize("variable", FOLDERS)
@pytest.mark.parametrize("value", ["", " "])
def test_without_a_variable_and_a_home_folder_there_is_a_temporary_place(monkeypatch, tmp_path, variable, value):
    monkeypatch.setenv(variable, value)
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda *_, **__: "~/.cache/sslcourse")
    monkeypatch.setattr("platformdirs.user_data_dir", lambda *_, **__: "~/.local/share/sslcourse")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert FOLDERS[variable]().parent == tmp_path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("猫", "猫"),
        ("می‌خواهم", "می‌خواهم"),
        (os.fsdecode(b"caf\xe9"), "caf\\udce9"),
        ("two\nlines\t\x1b[31m", "two\\nlines\\t\\x1b[31m"),
        ("\u2028", "\\u2028"),
        (Path("a/b"), str(Path("a/b"))),
        (b"caf\xe9", "caf\\udce9"),
    ],
)
def test_a_name_stays_on_one_line_and_can_be_encoded(name, text):
    assert shown(name) == text
    shown(name).encode()


def console(encoding):
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict", newline="")


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
@pytest.mark.parametrize("text", ["猫 and café", os.fsdecode(b"caf\xe9")])
def test_printing_never_raises(monkeypatch, encoding, text):
    for stream in ("stderr", "stdout"):
        monkeypatch.setattr(sys, stream, console(encoding))
    say(text)
    sys.stderr.write(printable(text, sys.stderr))
    let_print(sys.stdout, None, io.BytesIO())
    print(text)
    sys.stdout.flush()
    assert b"and caf" in sys.stdout.buffer.getvalue() or b"\\udce9" in sys.stdout.buffer.getvalue()


@pytest.mark.commands
def test_the_command_line_prints_any_name_on_any_console(tmp_path):
    from PIL import Image

    for c, name in enumerate(["猫", "犬"]):
        for i in range(5):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.new("RGB", (8, 8), (40 * c, 20 * i, 0)).save(tmp_path / name / f"{i}.png")
    command = [sys.executable, "-m", "sslcourse", "data", f"folder:{tmp_path}"]
    own = {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0", "SSLCOURSE_CACHE": str(tmp_path / ".cache")}
    done = subprocess.run(command, capture_output=True, env=os.environ | own)
    assert done.returncode == 0, done.stderr
    assert rb"2 classes: \u72ac, \u732b" in done.stdout
