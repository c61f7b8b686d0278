"""nbgrader's whole cycle, as docs/teaching.md has it for a lecturer: generate, hand in, collect, autograde, feedback, export."""

from __future__ import annotations

import csv
import io
import os
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from course_notebooks import ROOT, SOLUTIONS, read, role, tiny_course, without_markers, write
from make_exercises import settings, student_version
from submissions import checks_in, collect, handed_in

TEACHING = (ROOT / "docs" / "teaching.md").read_text(encoding="utf-8")


def commands(heading: str) -> list[list[str]]:
    """The words of every command below a heading of docs/teaching.md."""
    section = TEACHING.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for block in re.findall(r"```sh\n(.*?)```", section, re.DOTALL) for line in block.splitlines()]
    return [shlex.split(line) for line in lines if line]


def in_course(course: Path, words: list[str]) -> None:
    """Run one command in the course's folder, with settings of no person or machine."""
    own = {name: str(course / ".settings" / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR")}
    # as in an activated environment, its folder leads PATH: nbgrader calls `alembic` by name
    own["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    programs = {"nbgrader": [sys.executable, "-m", "nbgrader"], "python": [sys.executable]}
    program, *words = [str(ROOT / word) if word.startswith("tools/") else word for word in words]
    words = [*programs[program], *words]
    done = subprocess.run(words, cwd=course, env=os.environ | own, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout


def hand_in(course: Path, place: str, lesson: str, solved: bool) -> None:
    """The exercise as released, with every answer written in or none, under whatever name a platform gave it."""
    name = f"exercises_{lesson[:2]}.ipynb"
    exercise = read(course / "exercises" / lesson / name)
    if solved:
        answers = {cell.id: cell.source for cell in read(course / "solutions" / lesson / name).cells}
        for cell in exercise.cells:
            if role(cell) == "solution":
                cell.source = without_markers(answers[cell.id])
    write(course / "handed-in" / place, exercise)


@pytest.mark.notebooks
@pytest.mark.parametrize("solution", [None, *SOLUTIONS[:1]], ids=lambda path: path.stem if path else "tiny")
def test_the_whole_cycle(solution, tmp_path):
    path = tiny_course(tmp_path)
    if solution is not None:
        path.unlink()
        path = write(tmp_path / solution.relative_to(ROOT), read(solution))
    lesson = path.parent.name
    points = sum(cell.metadata.nbgrader.points for cell in read(path).cells if role(cell) == "check")
    generate, *others = [words for words in commands("nbgrader, step by step") if words[0] in ("nbgrader", "python")]
    assert [words[:2] for words in (generate, *others)] == [
        ["nbgrader", "generate_assignment"],
        ["python", "tools/submissions.py"],
        ["nbgrader", "autograde"],
        ["nbgrader", "generate_feedback"],
        ["nbgrader", "export"],
    ]

    def of_this_lesson(words):
        return [{"02_rotation_mathematics": lesson, "02": lesson[:2]}.get(word, word) for word in words]

    in_course(tmp_path, of_this_lesson(generate))
    released = (tmp_path / "exercises" / lesson / path.name).read_bytes()
    assert released == student_version(path, settings(tmp_path)).encode()  # both ways to make exercises agree

    hand_in(tmp_path, "ada.ipynb", lesson, solved=True)
    hand_in(tmp_path, f"ben/{lesson} (1).ipynb", lesson, solved=False)  # the name that exercises had once, downloaded
    for words in others:
        in_course(tmp_path, of_this_lesson(words))

    with open(tmp_path / "grades.csv", encoding="utf-8", newline="") as file:
        rows = {row["student_id"]: row for row in csv.DictReader(file)}
    assert {student: float(row["score"]) for student, row in rows.items()} == {"ada": points, "ben": 0.0}
    assert all(float(row["max_score"]) == points for row in rows.values())
    feedback = {s: (tmp_path / "feedback" / s / lesson / f"{path.stem}.html").read_text("utf-8") for s in rows}
    assert "not solved yet" in feedback["ben"].lower() and "passed" in feedback["ada"]


def test_what_was_handed_in_is_known_by_its_cells(tmp_path, capsys):
    path = tiny_course(tmp_path)
    exercise, handed = read(path), tmp_path / "handed-in"
    write(handed / "Ada Lovelace.ipynb", exercise)
    write(handed / "ben" / "99_tiny.ipynb", exercise)
    write(handed / "ben" / ".ipynb_checkpoints" / "99_tiny.ipynb", exercise)
    (handed / "cem.ipynb").write_text("not a notebook")
    write(handed / "dora" / "one.ipynb", exercise)
    write(handed / "dora" / "two.ipynb", exercise)
    assert set(handed_in(handed)) == {"Ada_Lovelace", "ben", "cem", "dora"} and len(checks_in(path)) == 2
    assert collect(handed, "99", tmp_path) == 2
    printed = capsys.readouterr().out
    assert "cem: 0 files" in printed and "dora: 2 files" in printed
    taken = {file.relative_to(tmp_path / "submitted").as_posix() for file in (tmp_path / "submitted").rglob("*.ipynb")}
    assert taken == {f"{name}/99_tiny/exercises_99.ipynb" for name in ("Ada_Lovelace", "ben")}
    with pytest.raises(SystemExit, match="there is no exercise 98"):
        collect(handed, "98", tmp_path)


def test_the_archive_for_learners_has_no_solutions(tmp_path):
    (archive,) = [words for words in commands("nbgrader, step by step") if words[0] == "git"]
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone")
    words = [word for word in archive[1:] if not word.startswith("--output")]
    done = subprocess.run(["git", "-c", f"safe.directory={ROOT}", *words], cwd=ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr
    names = zipfile.ZipFile(io.BytesIO(done.stdout)).namelist()
    assert any("exercises_02.ipynb" in name for name in names) and any(
        name.endswith("sslcourse/work.py") for name in names
    )
    assert not [name for name in names if "/solutions/" in name]


def test_every_other_command_for_lecturers_names_what_is_there():
    """Making a wheelhouse and building an image need a network: their files, and what those copy, are there."""
    for heading in ("Thirty machines without a network", "A container"):
        for words in commands(heading):
            assert words[0] in ("sh", ".", "make", "podman"), words
            assert all((ROOT / word).is_file() for word in words[1:] if word.startswith(("tools/", "docs/"))), words
    container = (ROOT / "docs" / "Containerfile").read_text(encoding="utf-8")
    for line in re.findall(r"^COPY (.*) \S+$", container, re.MULTILINE):
        assert all((ROOT / word).exists() for word in line.split()), line


@pytest.mark.skipif(os.name != "posix", reason="a script for sh")
def test_the_wheelhouse_leaves_pytorch_to_uv():
    words = ["sh", "tools/environment.sh", "--without-torch", "requirements.lock"]
    lock = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = re.findall(r"^([a-z0-9][\w.-]*)==", lock, re.MULTILINE)
    whole = re.findall(r"^([a-z0-9][\w.-]*)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert {"numpy", "jupyterlab"} <= set(names) and set(whole) - set(names) >= {"torch", "torchvision"}
    assert not [name for name in names if name.startswith(("nvidia", "torch=", "triton"))]
    assert subprocess.run(["sh", "-n", "tools/wheelhouse.sh"], cwd=ROOT).returncode == 0
