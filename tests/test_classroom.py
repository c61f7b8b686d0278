"""nbgrader's whole cycle, as a lecturer runs it: generate, two students hand in, autograde, feedback, export."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
from course_notebooks import ROOT, SOLUTIONS, read, role, tiny_course, without_markers, write
from make_exercises import settings, student_version

pytestmark = pytest.mark.notebooks


def nbgrader(course: Path, *command: str) -> str:
    """Run one command in the course's folder, with settings of no person or machine."""
    own = {name: str(course / ".settings" / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR")}
    # nbgrader calls `alembic` by name: as in an activated environment, its folder leads PATH
    own["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "nbgrader", *command], cwd=course, env=os.environ | own, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def hand_in(course: Path, student: str, lesson: str, solved: bool) -> None:
    """The exercise as released, with every answer written in or none."""
    exercise = read(course / "exercises" / lesson / f"{lesson}.ipynb")
    if solved:
        answers = {cell.id: cell.source for cell in read(course / "solutions" / lesson / f"{lesson}.ipynb").cells}
        for cell in exercise.cells:
            if role(cell) == "solution":
                cell.source = without_markers(answers[cell.id])
    write(course / "submitted" / student / lesson / f"{lesson}.ipynb", exercise)


@pytest.mark.parametrize("solution", [None, *SOLUTIONS[:1]], ids=lambda path: path.stem if path else "tiny")
def test_the_whole_cycle(solution, tmp_path):
    path = tiny_course(tmp_path)
    if solution is not None:
        path.unlink()
        path = write(tmp_path / solution.relative_to(ROOT), read(solution))
    lesson = path.stem
    points = sum(cell.metadata.nbgrader.points for cell in read(path).cells if role(cell) == "check")

    nbgrader(tmp_path, "generate_assignment", lesson)
    released = (tmp_path / "exercises" / lesson / f"{lesson}.ipynb").read_bytes()
    assert released == student_version(path, settings(tmp_path)).encode()  # both ways to make exercises agree

    hand_in(tmp_path, "ada", lesson, solved=True)
    hand_in(tmp_path, "ben", lesson, solved=False)
    nbgrader(tmp_path, "autograde", lesson)
    nbgrader(tmp_path, "generate_feedback", lesson)
    nbgrader(tmp_path, "export")

    with open(tmp_path / "grades.csv", encoding="utf-8", newline="") as file:
        rows = {row["student_id"]: row for row in csv.DictReader(file)}
    assert {student: float(row["score"]) for student, row in rows.items()} == {"ada": points, "ben": 0.0}
    assert all(float(row["max_score"]) == points for row in rows.values())
    feedback = {s: (tmp_path / "feedback" / s / lesson / f"{lesson}.html").read_text("utf-8") for s in rows}
    assert "not solved yet" in feedback["ben"].lower() and "passed" in feedback["ada"]
