"""Exercises and solutions, run for real: solutions pass, stubs stop with their message, and every check can fail.

Per assignment one kernel runs, one after the other and each with an empty namespace: the solutions, the exercises as
handed out, and the solutions with one exercise unsolved, for each exercise. The tiny assignment is here to prove that.
"""

from __future__ import annotations

import re
from copy import deepcopy
from functools import lru_cache
from pathlib import Path

import pytest
from course_notebooks import ROOT, SOLUTIONS, code, error_of, exercises_of, read, role, run, tiny_course, write
from make_exercises import make, settings, student_version
from nbformat import NotebookNode, reads
from nbgrader.preprocessors import ClearSolutions

pytestmark = pytest.mark.notebooks

RESET = "get_ipython().run_line_magic('reset', '-f')"
TINY = Path("tiny")


def stubbed(notebook: NotebookNode, exercise: str, config) -> NotebookNode:
    """The solved notebook with one exercise left unsolved."""
    notebook = deepcopy(notebook)
    for cell in notebook.cells:
        if role(cell) == "solution" and cell.metadata.nbgrader.grade_id == exercise:
            ClearSolutions(config=config).preprocess_cell(cell, {"language": "python"}, 0)
    return notebook


def run_in_turn(notebooks: dict[str, NotebookNode], folder: Path) -> dict[str, NotebookNode]:
    """Run all in one kernel, emptied between them: importing torch again for each would take most of the time."""
    whole = deepcopy(next(iter(notebooks.values())))
    whole.cells = []
    for name, notebook in notebooks.items():
        whole.cells.append(code(f"reset-{len(whole.cells)}", RESET))
        for cell in notebook.cells:
            cell = deepcopy(cell)
            cell.id = f"c{len(whole.cells)}"
            cell.metadata["of"] = name
            whole.cells.append(cell)
    done = run(whole, folder)
    return {name: NotebookNode(cells=[c for c in done.cells if c.metadata.get("of") == name]) for name in notebooks}


def variants(solution: NotebookNode, path: Path, root: Path) -> dict[str, NotebookNode]:
    """The solutions, the exercises, and "without X" for every exercise X: notebooks to run."""
    config = settings(root)
    exercise = reads(student_version(write(path, solution) if root != ROOT else path, config), as_version=4)
    without = {f"without {name}": stubbed(solution, name, config) for name in exercises_of(solution)}
    return {"solution": solution, "exercise": exercise, **without}


FLAWS = {  # a flaw planted in the tiny assignment: (cell, its new source)
    "vacuous check": ("check-double", "assert callable(double)\nprint('passed')"),
    "dependent exercise": ("answer", "### BEGIN SOLUTION\nanswer = double(21)\n### END SOLUTION"),
    "needy cell": ("afterwards", "print(answer)"),
    "broken solution": ("double", "def double(x):\n    ### BEGIN SOLUTION\n    return x * x\n    ### END SOLUTION"),
    "silent check": ("check-double", "double(1)\nNone"),
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The tiny assignment, without flaw ("") and with each, all run in one kernel."""
    root = tmp_path_factory.mktemp("course")
    path = tiny_course(root)
    good = read(path)
    notebooks = {("", which): notebook for which, notebook in variants(good, path, root).items()}
    for flaw, (cell_id, source) in FLAWS.items():
        bad = deepcopy(good)
        next(cell for cell in bad.cells if cell.id == cell_id).source = source
        notebooks |= {(flaw, which): notebook for which, notebook in variants(bad, path, root).items()}
    done = run_in_turn({"/".join(key): notebook for key, notebook in notebooks.items()}, path.parent)
    return {flaw: {w: done[f"{f}/{w}"] for f, w in notebooks if f == flaw} for flaw in ("", *FLAWS)}


@lru_cache
def real(path: Path) -> dict[str, NotebookNode]:
    return run_in_turn(variants(read(path), path, ROOT), path.parent)


@pytest.fixture(params=[TINY, *SOLUTIONS], ids=lambda path: path.stem)
def done(request):
    return request.getfixturevalue("tiny")[""] if request.param == TINY else real(request.param)


def errors(notebook: NotebookNode) -> dict[str, NotebookNode]:
    return {name(cell): error for cell in notebook.cells if (error := error_of(cell)) is not None}


def name(cell: NotebookNode) -> str:
    return cell.metadata.get("nbgrader", {}).get("grade_id", cell.id)


def test_solutions_pass(done):
    assert {key: error.evalue for key, error in errors(done["solution"]).items()} == {}


def test_every_check_says_that_it_passed(done):
    for cell in done["solution"].cells:
        if role(cell) == "check":
            printed = "".join(output.get("text", "") for output in cell.outputs)
            assert "passed" in printed, f"{name(cell)} printed {printed!r}"
            # a number as the last value is partial credit to nbgrader
            assert not any(output.output_type == "execute_result" for output in cell.outputs), name(cell)


def test_unsolved_checks_fail_and_ordinary_cells_run(done):
    notebook = done["exercise"]
    failed = errors(notebook)
    for cell in notebook.cells:
        if role(cell) == "check":
            assert name(cell) in failed, f"{name(cell)} passes on an unsolved exercise"
        elif role(cell) == "":
            assert name(cell) not in failed, f"the ordinary cell {cell.source!r} needs a solved exercise"


def test_every_unsolved_exercise_says_what_to_do(done):
    failed = errors(done["exercise"])
    for exercise, checks in exercises_of(done["exercise"]).items():
        first = next(failed[cell] for cell in (exercise, *checks) if cell in failed)
        assert first.ename in ("NotImplementedError", "NotSolvedYet"), f"{exercise}: {first.ename}: {first.evalue}"
        assert "rite your answer in place of" in " ".join(first.evalue.split())
        if first.ename == "NotSolvedYet":
            shown = "\n".join(first.traceback)
            assert shown == first.evalue and not re.search(r"Traceback|framework\.py|/sslcourse/", shown)


def test_leave_one_out(done):
    """Unsolved, an exercise fails its own checks and no one else's: each can be done without the ones before."""
    exercises = exercises_of(done["solution"])
    assert exercises
    for exercise, checks in exercises.items():
        failed = set(errors(done[f"without {exercise}"])) - {exercise}
        assert checks, f"{exercise} has no check"
        assert failed == set(checks), f"without {exercise}, the cells {sorted(failed)} fail; {checks} should"


@pytest.mark.parametrize(
    ("flaw", "caught_by"),
    [
        ("vacuous check", test_unsolved_checks_fail_and_ordinary_cells_run),
        ("vacuous check", test_leave_one_out),
        ("dependent exercise", test_leave_one_out),
        ("needy cell", test_unsolved_checks_fail_and_ordinary_cells_run),
        ("broken solution", test_solutions_pass),
        ("silent check", test_every_check_says_that_it_passed),
    ],
)
def test_flaws_are_caught(flaw, caught_by, tiny):
    """The tests above can fail."""
    caught_by(tiny[""])
    with pytest.raises(AssertionError):
        caught_by(tiny[flaw])


def test_making_exercises_again_changes_nothing(tmp_path):
    path = tiny_course(tmp_path)
    assert make(tmp_path) and not make(tmp_path) and not make(tmp_path, check=True)
    exercise = tmp_path / "exercises" / "99_tiny" / "exercises_99.ipynb"
    before = exercise.read_bytes()
    assert b"SOLUTION" not in before and b"HIDDEN" not in before and b"x + x\\n" not in before.split(b"def double")[1]
    exercise.write_bytes(before + b"\n")
    assert make(tmp_path, check=True) and make(tmp_path) and exercise.read_bytes() == before
    path.unlink()
    assert make(tmp_path) and not exercise.exists()
