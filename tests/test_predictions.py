"""Predictions are kept and compared; gaps go on with the course's own line."""

import importlib
import inspect
import json
import re

import pytest
from course_notebooks import LESSONS, code, notebook_of, read
from nbformat.v4 import new_output

from sslcourse import gaps, notebook, predictions, progress
from sslcourse.checks import lesson02 as check
from sslcourse.errors import CourseError
from sslcourse.losses import cross_entropy


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("SSLCOURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SSLCOURSE_WORK", str(tmp_path))


def field_of(box):
    return box.children[1]


def test_a_number_is_kept_and_compared(capsys):
    box = predictions.ask("02/blossom", "How much will the blossom cost?", unit="nats")
    field_of(box).value = "1,5"
    predictions.compare("02/blossom", 2.0)
    assert "You predicted 1.5 nats; it came out as 2 nats: you were 0.5 too low." in capsys.readouterr().out
    entry = json.loads(progress.file().read_text(encoding="utf-8"))["predictions"]["02/blossom"]
    assert entry == {"asked": "How much will the blossom cost?", "unit": "nats", "predicted": 1.5, "measured": 2.0}
    assert field_of(predictions.ask("02/blossom", "How much will the blossom cost?", unit="nats")).value == "1.5"


@pytest.mark.parametrize(
    ("typed", "unit", "kept"),
    [
        ("30%", "(0 to 1)", 0.3),
        ("30 %", "%", 30.0),
        ("7%", "points", 7.0),
        ("7 points", "points", 7.0),
        ("log 4", "nats", 1.3863),
        ("ln(4)", "nats (0 to 4.16)", 1.3863),
        ("~1,4 Nats", "nats", 1.4),
        ("1/4", "(0 to 1)", 0.25),
        ("log 1/2", "", -0.6931),
        ("1e-3", "", 0.001),
    ],
)
def test_a_number_is_understood_as_people_write_it(typed, unit, kept):
    box = predictions.ask("00/share", "Which share?", unit=unit)
    field_of(box).value = typed
    assert progress.predictions()["00/share"]["predicted"] == pytest.approx(kept, abs=1e-4)


def test_a_range_beside_the_field_is_left_out_of_the_sentence(capsys):
    field = field_of(predictions.ask("11/centring", "The entropy?", unit="nats (0 to 4.16)"))
    assert field.style.description_width == "initial"  # Jupyter gives it 80 pixels, and cuts what is longer
    field.value = "4"
    field_of(predictions.ask("00/share", "Which share?", unit="(0 to 1)")).value = "0.4"
    predictions.compare("11/centring", 0.25)
    predictions.compare("00/share", 0.6)
    assert capsys.readouterr().out == (
        "You predicted 4 nats; it came out as 0.25 nats: you were 3.8 too high.\n"
        "You predicted 0.4; it came out as 0.6: you were 0.2 too low.\n"
    )


@pytest.mark.parametrize(
    ("typed", "unit", "words"),
    [
        ("7", "(0 to 1)", "7 can't be: the answer lies between 0 and 1 (60% is 0.6)."),
        ("60", "of 1", "60 can't be"),
        ("-0.1", "accuracy", "between 0 and 1"),
        ("8", "of 7", "between 0 and 7."),
        ("4.2", "nats (0 to 4.16)", "between 0 and 4.16."),
        ("-2", "nats", "-2 can't be: the answer is 0 or more."),
        ("101", "points", "between -100 and 100."),
    ],
)
def test_what_cannot_be_is_not_kept(typed, unit, words):
    box = predictions.ask("00/share", "Which share?", unit=unit)
    field_of(box).value = typed
    assert progress.predictions() == {} and words in box.children[2].value


@pytest.mark.parametrize(
    ("typed", "unit"),
    [
        ("0", "(0 to 1)"),
        ("1", "of 1"),
        ("4.16", "nats (0 to 4.16)"),
        ("-3", "points"),
        ("9", "(1: a tie)"),
        ("-9", ""),
        ("120%", "%"),
    ],
)
def test_what_is_unlikely_is_kept(typed, unit):
    field_of(predictions.ask("00/share", "Which share?", unit=unit)).value = typed
    assert "00/share" in progress.predictions()


def test_no_line_is_longer_than_a_small_window(capsys):
    field_of(predictions.ask("11/centring", "The entropy?", unit="nats (0 to 4.16)")).value = "log 64"
    predictions.compare("11/centring", 0.272)
    said = capsys.readouterr().out
    assert said == "You predicted 4.16 nats; it came out as 0.272 nats: you were 3.9 too\nhigh.\n"


@pytest.mark.parametrize(
    "typed", ["much", "nan", "", "1.2.3", "%", "log", "log 0", "log -1", "1/0", "/2", "1/2/3", "catalog 4"]
)
def test_what_is_no_number_is_not_kept(typed):
    box = predictions.ask("02/blossom", "How much?")
    field_of(box).value = "x"
    field_of(box).value = typed
    assert progress.predictions() == {} and "number is needed" in box.children[2].value


@pytest.mark.parametrize(("picked", "says"), [("one", "as you said"), ("four", "not as you said")])
def test_a_choice_is_kept_and_compared(picked, says, capsys):
    field_of(predictions.ask("02/which", "Which?", choices=("four", "one"))).value = picked
    predictions.compare("02/which", "one")
    assert says in capsys.readouterr().out


def test_without_a_prediction_the_lesson_goes_on(capsys):
    predictions.compare("02/blossom", 2.376, unit="nats")
    assert capsys.readouterr().out == "No prediction was entered; it came out as 2.38 nats.\n"
    assert not progress.file().exists()


def test_another_prediction_replaces_the_first_and_leaves_the_rest():
    progress.keep("solved", "2.1", passed=True)
    for typed in ("1", "2"):
        field_of(predictions.ask("02/a", "?")).value = typed
    assert progress.predictions()["02/a"]["predicted"] == 2.0 and progress.read()["solved"] == {"2.1": {"passed": True}}


def test_what_was_kept_in_the_cache_folder_before_is_read_and_taken_along():
    progress.former_file().parent.mkdir()
    old = {"format": progress.FORMAT, "predictions": {"02/a": {"predicted": 1.0}}}
    progress.former_file().write_text(json.dumps(old), encoding="utf-8")
    assert progress.predictions()["02/a"]["predicted"] == 1.0
    progress.keep("predictions", "02/b", predicted=2.0)
    assert set(progress.predictions()) == {"02/a", "02/b"} and progress.file().exists()


@pytest.mark.parametrize("content", ["no json", "[]", '{"format": "another"}'])
def test_a_file_that_is_none_of_ours_is_refused(content):
    progress.file().parent.mkdir()
    progress.file().write_text(content, encoding="utf-8")
    with pytest.raises(CourseError, match="move it away"):
        predictions.compare("02/a", 1.0)


def test_a_number_is_not_compared_with_a_choice():
    field_of(predictions.ask("02/a", "?")).value = "1"
    with pytest.raises(CourseError, match="can't be compared"):
        predictions.compare("02/a", "one")


# -- gaps ---------------------------------------------------------------------------------------------------------------


def open_gap(logits, labels):
    raise NotImplementedError("Not solved yet")


def wrong(logits, labels):
    return cross_entropy(logits.softmax(dim=1), labels)


def right(logits, labels):
    return cross_entropy(logits, labels)


@pytest.mark.parametrize(
    ("mine", "goes_on_with", "says"),
    [
        (right, right, "passed"),
        (open_gap, check.cross_entropy.reference, "Where to begin: check.cross_entropy.hint(1)"),
        (wrong, check.cross_entropy.reference, "Until then"),
    ],
)
def test_a_gap(mine, goes_on_with, says, capsys):
    assert gaps.filled(check.cross_entropy, mine) is goes_on_with
    printed = capsys.readouterr().out
    assert says in printed
    cell = code("gap", "cross_entropy = gaps.filled(check.cross_entropy, cross_entropy)")
    cell.outputs = [new_output("stream", name="stdout", text=printed)]
    assert notebook.gaps(notebook_of(cell)) == {"cross_entropy": mine is right}  # what `sslcourse progress` counts
    assert not progress.file().exists()


def test_a_gap_names_its_arguments_as_its_check_does():
    """A message says "turns[i]": that must be a name which the learner has before them."""
    seen = 0
    for path in LESSONS:
        text = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "code")
        module = re.search(r"from sslcourse.checks import (lesson\d\d) as check", text)
        for name, mine in re.findall(r"gaps\.filled\(check\.(\w+), (\w+)\)", text):
            its = getattr(importlib.import_module(f"sslcourse.checks.{module[1]}"), name)
            wanted = its.arguments or tuple(inspect.signature(its.reference).parameters)
            written = re.search(rf"def {mine}\((.*?)\):", text, re.DOTALL)[1]
            assert tuple(re.findall(r"\w+(?=,|$)", written)) == tuple(wanted), (path.name, mine)
            seen += 1
    assert seen > 10
