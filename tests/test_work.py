"""A person's own copy of the course: what they wrote is never lost, and nothing else grows old."""

import base64
import io
import json
import os
import re
import threading
from pathlib import Path

import numpy as np
import pytest
from course_notebooks import code, graded, markdown, notebook_of, read, write
from nbformat.v4 import new_output
from PIL import Image

from sslcourse import notebook as notebooks
from sslcourse import overview, work
from sslcourse.errors import CourseError
from sslcourse.work import Changes

LESSON, EXERCISE, OTHER = "notebooks/02_b.ipynb", "exercises/02_b/exercises_02.ipynb", "notebooks/00_a.ipynb"
PICTURE = new_output("display_data", {"image/png": "aGVsbG8=\n", "text/plain": "<Figure>"})
PICTURE.metadata["image/png"] = {"alt": 'a "house"'}


def lesson(number, text="print(1)"):
    shown = code("figure", text)
    shown.outputs, shown.execution_count = [PICTURE], 1
    header = f"# {number} · A lesson\n\n| | |\n|---|---|\n| to read | 25 minutes |"
    return notebook_of(markdown("title", header), shown)


def exercise():
    check = graded("check-double", "check.double(double)", grade=True, locked=True, points=2)
    return notebook_of(
        markdown("title", "# 02 · Exercises"), graded("double", "raise NotImplementedError", solution=True), check
    )


@pytest.fixture
def course(tmp_path):
    """A course of two lessons, one with an exercise, and a document."""
    folder = tmp_path / "course"
    write(folder / OTHER, lesson("00"))
    write(folder / LESSON, lesson("02"))
    write(folder / EXERCISE, exercise())
    (folder / "README.md").write_text("read me")
    return folder


@pytest.fixture
def mine(course, tmp_path):
    """The copy of it, as it is when it was opened once."""
    return work.begin(course, tmp_path / "work")[0]


def change(path, source):
    """Write in the last cell of a notebook."""
    found = read(path)
    found.cells[-1].source = source
    write(path, found)


def run(path, text="2"):
    """What running and saving does: the output is another, the text of the cells isn't."""
    found = read(path)
    found.cells[-1].outputs = [new_output("stream", name="stdout", text=text)]
    write(path, found)


def test_the_first_time_everything_is_copied_and_links_between_files_hold(course, tmp_path):
    folder, changes = work.begin(course, tmp_path / "work")
    assert set(changes.new) == {OTHER, LESSON, EXERCISE, "README.md"} and not changes.renewed + changes.kept
    assert all((folder / name).is_file() for name in changes.new)
    assert work.begin(course, tmp_path / "work")[1] == Changes()


def test_opening_changes_nothing_in_the_course(course, tmp_path):
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in course.rglob("*") if path.is_file()}
    folder, _ = work.begin(course, tmp_path / "work")
    change(folder / LESSON, "mine")
    work.reset("02", course, folder)
    overview.of(folder, course)
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in course.rglob("*") if p.is_file()} == before


def test_a_new_version_is_taken_where_nothing_was_written(course, mine):
    change(course / LESSON, "print('new')")
    (course / "README.md").write_text("read me again")
    assert work.begin(course, mine)[1] == Changes(renewed=[LESSON, "README.md"])
    assert (
        read(mine / LESSON).cells[-1].source == "print('new')" and (mine / "README.md").read_text() == "read me again"
    )
    assert not (mine / "kept").exists()


def test_a_notebook_that_was_only_run_is_renewed_and_the_run_is_kept(course, mine):
    run(mine / LESSON)
    assert work.begin(course, mine)[1] == Changes()  # there is no new version
    change(course / LESSON, "print('new')")
    assert work.begin(course, mine)[1] == Changes(renewed=[LESSON])
    (kept,) = (mine / "kept").iterdir()
    assert read(kept).cells[-1].outputs[0].text == "2" and read(mine / LESSON).cells[-1].source == "print('new')"


@pytest.mark.parametrize("written", ["print('mine')", "print(1) ", ""])
def test_what_was_written_in_stays_and_is_said_until_it_is_reset(course, mine, written):
    change(mine / LESSON, written + "# mine")
    before = (mine / LESSON).read_bytes()
    change(course / LESSON, "print('new')")
    for _ in range(2):
        assert work.begin(course, mine)[1] == Changes(kept=[LESSON])
        assert (mine / LESSON).read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"not a notebook", b"[]", b'{"cells": [1]}', b"\xff"])
def test_a_file_that_is_no_notebook_any_more_stays(course, mine, content):
    (mine / LESSON).write_bytes(content)
    change(course / LESSON, "print('new')")
    assert work.begin(course, mine)[1] == Changes(kept=[LESSON]) and (mine / LESSON).read_bytes() == content


def test_who_wrote_what_the_new_version_says_has_it(course, mine):
    change(mine / LESSON, "print('new')")
    change(course / LESSON, "print('new')")
    assert work.begin(course, mine)[1].kept == []


@pytest.mark.parametrize("known", [None, b"{", b"[]"])
def test_without_a_record_of_what_was_copied_nothing_that_differs_is_replaced(course, mine, known):
    record = mine / ".sslcourse" / "delivered.json"
    record.unlink() if known is None else record.write_bytes(known)
    change(mine / LESSON, "print('mine')")
    assert work.begin(course, mine)[1].kept == [LESSON]


def test_a_file_that_was_deleted_comes_back(course, mine):
    (mine / LESSON).unlink()
    assert work.begin(course, mine)[1] == Changes(new=[LESSON]) and (mine / LESSON).is_file()


def test_an_exercise_under_its_former_name_is_read(course, tmp_path):
    solved = exercise()
    solved.cells[1].source = "def double(x): return 2 * x"
    former = write(tmp_path / "work" / "exercises" / "02_b" / "02_b.ipynb", solved)
    folder, changes = work.begin(course, tmp_path / "work")
    assert changes.kept == [EXERCISE] and not former.exists()
    assert read(folder / EXERCISE).cells[1].source == solved.cells[1].source


def test_reset_gives_a_fresh_lesson_and_exercise_and_keeps_the_old_ones(course, mine):
    change(mine / LESSON, "first")
    change(mine / EXERCISE, "answer")
    change(course / LESSON, "print('new')")
    names, kept = work.reset("2", course, mine)
    assert names == [LESSON, EXERCISE] and [read(path).cells[-1].source for path in kept] == ["first", "answer"]
    assert read(mine / LESSON).cells[-1].source == "print('new')"
    assert work.begin(course, mine)[1] == Changes()
    change(mine / LESSON, "second")  # twice on one day
    (again,) = work.reset("02", course, mine)[1]
    assert again not in kept and read(again).cells[-1].source == "second" and read(kept[0]).cells[-1].source == "first"
    assert work.reset("02", course, mine)[1] == []  # nothing of theirs is in them


def test_reset_of_a_lesson_that_was_never_opened(course, tmp_path):
    names, kept = work.reset("00", course, tmp_path / "work")
    assert names == [OTHER] and kept == [] and (tmp_path / "work" / OTHER).is_file()
    with pytest.raises(CourseError, match="no lesson '7'.*there are 00, 02"):
        work.reset("7", course, tmp_path / "work")


def test_who_works_in_the_course_itself_gets_no_copies(course):
    assert work.begin(course, course) == (course, Changes())
    with pytest.raises(CourseError, match="is the course itself"):
        work.reset("02", course, course)
    assert not (course / ".sslcourse").exists() and not (course / "kept").exists()


def test_places_that_can_not_be_written_are_named(course, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(CourseError, match="is a file.*SSLCOURSE_WORK"):
        work.begin(course, tmp_path / "file")
    with pytest.raises(CourseError, match="can't be written.*SSLCOURSE_WORK"):
        work.begin(course, tmp_path / "file" / "below")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "notebooks").write_text("x")
    with pytest.raises(CourseError, match="can't be written.*SSLCOURSE_WORK"):
        work.begin(course, tmp_path / "work")
    with pytest.raises(CourseError, match="come with the repository"):
        work.begin(tmp_path / "nowhere", tmp_path / "work2")


def test_two_that_open_at_once_take_nothing_for_written_in(course, tmp_path):
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(work.begin(course, tmp_path / "work")[1])) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(len(changes.new) for changes in found) == [0, 4] and not any(changes.kept for changes in found)


# -- pictures with words -----------------------------------------------------------------------------------------------


def test_a_copy_holds_the_words_of_a_picture_where_a_page_reads_them(course, mine):
    (output,) = read(mine / LESSON).cells[-1].outputs
    assert output.data["text/html"].startswith('<img alt="a &quot;house&quot;" src="data:image/png;base64,aGVsbG8="')
    assert output.data["image/png"] == "aGVsbG8=\n"  # for whoever shows pictures alone
    (course_output,) = read(course / LESSON).cells[-1].outputs
    assert "text/html" not in course_output.data  # the committed form holds a picture once
    back = notebooks.without_twins(notebooks.read((mine / LESSON).read_bytes()))
    assert back == notebooks.read((course / LESSON).read_bytes())


def test_what_is_saved_of_a_widget_is_its_still_picture_or_words():
    view, said = {notebooks.WIDGET: {"model_id": "1"}}, {"text/plain": "100%|###| 2/2"}
    shown = [view | {"image/png": "x"}, view | {"text/plain": "VBox(children=(...))"}, view | said, dict(said)]
    outputs = [*({"data": data} for data in shown), {"name": "stdout", "text": "x"}]
    notebooks.keep_stills({"type": "notebook", "content": {"cells": [{"outputs": outputs}, {}]}}, path="a.ipynb")
    assert shown == [{"image/png": "x"}, {"text/plain": notebooks.AGAIN}, said, said]
    notebooks.keep_stills({"type": "file", "content": "text"})
    notebooks.keep_stills({"type": "notebook", "content": None})


# -- progress ------------------------------------------------------------------------------------------------------------


def test_what_passed_is_counted_and_shows_where_to_go_on(course, mine):
    first = overview.of(mine, course)
    assert [one.number for one in first] == ["00", "02"] and overview.next_one(first) == 0
    assert (first[1].solved, len(first[1].checks), first[1].minutes, first[1].title) == (0, 1, 25, "A lesson")
    run(mine / OTHER)
    assert overview.next_one(overview.of(mine, course)) == 1  # a lesson without exercises is finished when it was run
    run(mine / EXERCISE, "2.1 double: passed\nin all 3 cases.")
    solved = overview.of(mine, course)
    assert solved[1].checks == {"check-double": True} and solved[1].finished
    work.reset("02", course, mine)
    assert overview.of(mine, course)[1].solved == 0


@pytest.mark.parametrize("printed", ["2.1 double: not yet.", "", "passed"])
def test_what_did_not_pass_is_not_counted(course, mine, printed):
    run(mine / EXERCISE, printed)
    assert overview.of(mine, course)[1].solved == 0


def with_gaps(path):
    """A lesson with two gaps, neither of them filled."""
    found = read(path)
    found.cells.append(code("first", "double = gaps.filled(check.doubled, double)\nprint(double(2))"))
    found.cells.append(code("second", "# gaps.filled(check.former, f)\nhalve = gaps.filled(lesson02.halved, halve)"))
    write(path, found)


def test_gaps_that_are_filled_in_a_lesson_are_counted(course, mine):
    with_gaps(mine / LESSON)
    assert overview.of(mine, course)[1].gaps == {"doubled": False, "halved": False}
    run(mine / LESSON, "2.2 halve: not yet.\nUntil then the lesson goes on with the course's own line.")
    assert overview.of(mine, course)[1].gaps["halved"] is False
    run(mine / LESSON, "2.2 halve:\npassed in all 3 cases.")
    run(mine / EXERCISE, "2.1 double: passed")
    lessons = overview.of(mine, course)
    assert lessons[1].gaps == {"doubled": False, "halved": True} and not lessons[1].finished
    assert overview.table(lessons)[-2:] == [
        ["02 A lesson", "1 of 1", "1 of 2", ""],
        ["in all", "1 of 1", "1 of 2", "0"],
    ]
    assert "| 1 of 1 | 1 of 2 |  |" in overview.index(lessons)
    work.reset("02", course, mine)
    assert overview.of(mine, course)[1].gaps == {}


def test_a_lesson_comes_with_its_gaps_open_and_each_of_them_is_seen():
    for one in overview.of(work.COURSE):
        calls = sum(text.count("gaps.filled(") for _, text in notebooks.sources(read(work.COURSE / one.notebook)))
        assert len(one.gaps) == calls and not any(one.gaps.values()), one.number


def test_every_link_of_the_index_leads_somewhere():
    folder, _ = work.begin()
    lessons = overview.of(folder)
    text = overview.index(lessons)
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert len(links) > 2 * len(lessons) - 4 and [link for link in links if not (folder / link).is_file()] == []
    assert "next: [01" in text and text.count("[exercises ") == sum(one.exercise is not None for one in lessons)
    assert [one.number for one in lessons] == sorted((one.number for one in lessons), key=work._place)


def test_predictions_are_counted_and_shown_with_what_came_out(call, started):
    call("lab")
    from sslcourse.progress import keep

    keep("predictions", "02/blossom", asked="How much?", unit="nats", predicted=1.5, measured=2.5)
    keep("predictions", "02/which", asked="Which?", predicted="the house")
    out = call("progress")[1]
    assert "02/blossom: How much? You said 1.5 nats; it came out as 2.5 nats: you were 1 too low." in out
    assert "02/which: Which? You said the house." in out and "go on: sslcourse lab 02" in out
    assert "as they were saved last" in out
    assert max(map(len, out.partition("Solved is")[0].splitlines())) <= 90  # the table fits into a terminal
    assert json.loads(call("progress", "--json")[1])["predictions"]["02/blossom"]["measured"] == 2.5


# -- the commands --------------------------------------------------------------------------------------------------------


@pytest.fixture
def started(monkeypatch, tmp_path):
    """The commands of JupyterLab that would have been started."""
    monkeypatch.setenv("SSLCOURSE_WORK", str(tmp_path / "work"))
    calls = []
    monkeypatch.setattr("subprocess.call", lambda words, cwd: calls.append((words, cwd)) or 0)
    return calls


def test_the_lab_opens_the_index_of_a_copy_and_with_teach_the_course(call, started, tmp_path):
    code, out, err = call("lab", "--no-browser")
    assert code == 0 and out == "" and str(tmp_path / "work") in err
    assert call("lab", "--no-browser")[2] == ""  # said once
    words, folder = started[0]
    assert f"--ServerApp.root_dir={tmp_path / 'work'}" in words and "--LabApp.default_url=/lab/tree/index.md" in words
    assert folder == tmp_path / "work" and (folder / "index.md").is_file()
    settings = Path(next(word for word in words if "app_settings_dir" in word).partition("=")[2])
    assert json.loads((settings / "page_config.json").read_text())["disabledExtensions"] == {"@jupyter/nbgrader": True}
    overrides = json.loads(
        (settings / "overrides.json").read_text()
    )  # no code is hidden beyond the edge of a small screen
    assert overrides["@jupyterlab/notebook-extension:tracker"]["codeCellConfig"]["lineWrap"] is True
    assert call("lab", "--teach")[0] == 0
    words, folder = started[-1]
    assert folder == work.COURSE and not any("app_settings_dir" in word for word in words)


def test_the_commands_say_what_is_kept_and_what_is_solved(call, started, tmp_path):
    assert "sslcourse lab" in call("progress")[1]
    call("lab")
    mine = tmp_path / "work" / work.lesson("02")
    change(mine, "# mine")
    code, out, err = call("reset", "2")
    assert code == 0 and err == "" and str(tmp_path / "work" / "kept" / mine.stem) in out
    run(mine)
    code, out, _ = call("progress")
    assert code == 0 and "go on: sslcourse lab 02" in out and "0 of 6" in out and "0 of 2" in out
    found = json.loads(call("progress", "--json")[1])
    assert found["lessons"]["02"]["gaps"] == {"four_rotations": False, "logits_gradient": False}
    assert found["next"] == "02" and found["lessons"]["02"]["solved"] == 0
    assert "02" in (tmp_path / "work" / "index.md").read_text()
    code, _, err = call("reset", "77")
    assert code == 2 and "there is no lesson '77'" in err


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="a system without root")
@pytest.mark.parametrize("user", [0, 1000])
def test_root_is_allowed_where_there_is_nobody_else(call, started, monkeypatch, user):
    monkeypatch.setattr("os.geteuid", lambda: user)
    call("lab", "--no-browser", "--port", "9123")
    words, _ = started[0]
    assert ("--ServerApp.allow_root=True" in words) == (user == 0) and "--ServerApp.port=9123" in words


@pytest.mark.parametrize("opaque", [True, False])
def test_an_opaque_picture_loses_its_alpha_and_no_pixel(opaque):
    pixels = np.random.default_rng(0).integers(256, size=(20, 30, 4), dtype=np.uint8)
    if opaque:
        pixels[..., 3] = 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    found = notebooks.without_alpha(base64.b64encode(buffer.getvalue()).decode())
    assert found == notebooks.without_alpha(buffer.getvalue())
    assert (found == buffer.getvalue()) != opaque and len(found) <= len(buffer.getvalue())
    picture = Image.open(io.BytesIO(found))
    assert picture.mode == ("RGB" if opaque else "RGBA")
    assert np.array_equal(np.asarray(picture), pixels[..., : len(picture.mode)])
