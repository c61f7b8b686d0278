"""What the tests of notebooks share: where they are, how one is run, and a tiny assignment that proves the machinery."""

from __future__ import annotations

import re
import sys
from copy import deepcopy
from pathlib import Path
from textwrap import dedent

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))  # the tools are scripts, not a package

LESSONS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SOLUTIONS = sorted((ROOT / "solutions").glob("*/*.ipynb"))


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def write(path: Path, notebook: NotebookNode) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((nbformat.writes(notebook).rstrip("\n") + "\n").encode())
    return path


def role(cell: NotebookNode) -> str:
    """ "solution", "check" or "" (neither)."""
    graded = cell.metadata.get("nbgrader", {})
    return "solution" if graded.get("solution") else "check" if graded.get("grade") else ""


def exercises_of(notebook: NotebookNode) -> dict[str, list[str]]:
    """Every exercise's solution cell (its grade_id) and the checks between it and the next one."""
    found: dict[str, list[str]] = {}
    for cell in notebook.cells:
        if role(cell) == "solution":
            found[cell.metadata.nbgrader.grade_id] = []
        elif role(cell) == "check":
            found[list(found)[-1]].append(cell.metadata.nbgrader.grade_id)
    return found


def error_of(cell: NotebookNode) -> NotebookNode | None:
    return next((output for output in cell.get("outputs", []) if output.output_type == "error"), None)


def run(notebook: NotebookNode, folder: Path) -> NotebookNode:
    """A copy of the notebook, run in a fresh kernel from `folder`; a cell that fails doesn't stop the others."""
    notebook = deepcopy(notebook)
    place = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", allow_errors=True, resources=place).execute()
    return notebook


def without_markers(source: str) -> str:
    """A solution as a student would hand it in."""
    return "\n".join(line for line in source.split("\n") if not re.search(r"### (BEGIN|END) SOLUTION", line))


# -- a tiny assignment --------------------------------------------------------------------------------------------------


def markdown(slug: str, text: str) -> NotebookNode:
    return new_markdown_cell(dedent(text).strip(), id=slug)


def code(slug: str, text: str, tags: tuple[str, ...] = ()) -> NotebookNode:
    return new_code_cell(dedent(text).strip(), id=slug, metadata={"tags": list(tags)} if tags else {})


def graded(slug: str, text: str, **options) -> NotebookNode:
    cell = code(slug, text)
    base = {"grade": False, "grade_id": slug, "locked": False, "schema_version": 3, "solution": False, "task": False}
    cell.metadata["nbgrader"] = base | options
    return cell


def notebook_of(*cells: NotebookNode) -> NotebookNode:
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    return new_notebook(cells=list(cells), metadata={"kernelspec": kernel, "language_info": {"name": "python"}})


def tiny_assignment() -> NotebookNode:
    """Two exercises, a function (2 points) and a value (1 point), with a hidden test."""
    return notebook_of(
        markdown("title", "# 99 · Exercises: a tiny assignment"),
        code(
            "setup",
            """
            import torch
            from types import SimpleNamespace
            from sslcourse.checks import Check, ValueCheck, Wrong

            check = SimpleNamespace(
                double=Check(
                    name="99.1 double",
                    reference=lambda x: 2 * x,
                    cases=lambda generator: [(torch.rand(n, generator=generator),) for n in (2, 3, 5)],
                    wrongs=(Wrong("square", lambda x: x * x, "You square x; doubling adds it to itself."),),
                    hints=("Add.", "Add x to x.", "return x + x"),
                ),
                answer=ValueCheck(name="99.2 the answer", reference=42),
            )
            """,
        ),
        markdown("double-task", "## 99.1 Double · 1 minute"),
        graded(
            "double",
            """
            def double(x):
                ### BEGIN SOLUTION
                return x + x
                ### END SOLUTION
            """,
            solution=True,
        ),
        graded(
            "check-double",
            """
            check.double(double)
            ### BEGIN HIDDEN TESTS
            check.double(double, seed=1)
            ### END HIDDEN TESTS
            """,
            grade=True,
            locked=True,
            points=2,
        ),
        markdown("answer-task", "## 99.2 The answer · 1 minute"),
        graded("answer", "### BEGIN SOLUTION\nanswer = 6 * 7\n### END SOLUTION", solution=True),
        graded("check-answer", "check.answer(answer)", grade=True, locked=True, points=1),
        code("afterwards", "print('every ordinary cell runs')"),
    )


def tiny_course(root: Path) -> Path:
    """A course in `root` with the committed nbgrader_config.py and the tiny assignment; returns the solution's path."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "nbgrader_config.py").write_bytes((ROOT / "nbgrader_config.py").read_bytes())
    return write(root / "solutions" / "99_tiny" / "exercises_99.ipynb", tiny_assignment())
