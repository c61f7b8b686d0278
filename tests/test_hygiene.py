"""The form in which notebooks are committed. Each rule is shown to catch its flaw.

nbval has silent holes: a cell that never ran is not compared, nor is one whose tag was forgotten, and `raises-exception`
alone passes when nothing is raised. These rules close them, and keep figures described and outputs free of this machine.
"""

from __future__ import annotations

import importlib
import re
from copy import deepcopy

import nbformat
import pytest
from course_notebooks import (
    LESSONS,
    ROOT,
    SOLUTIONS,
    code,
    exercises_of,
    markdown,
    notebook_of,
    read,
    role,
    tiny_assignment,
)
from make_exercises import make
from nbformat import NotebookNode
from nbformat.v4 import new_output
from nbnormalise import machine_traces, normalise
from stored_outputs import MACHINE, NAMES, WIDER

failed_outputs = importlib.import_module("claims").failed_outputs  # of tools/, which course_notebooks put on the path

CLAIM, RAISES = "nbval-check-output", "raises-exception"
LOOSER = MACHINE, NAMES  # how closely an output is compared with the stored one
SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
HEX = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){0,3}(-[0-9a-f]{12})?")  # as editors make them
LARGEST = 1_500_000  # bytes


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tags(cell: NotebookNode) -> set[str]:
    return set(cell.metadata.get("tags", ()))


# -- the rules: each yields a sentence for every flaw -----------------------------------------------------------------


def is_normal(notebook):
    if nbformat.writes(normalise(deepcopy(notebook))) != nbformat.writes(notebook):
        yield "not in the normal form: run python tools/nbnormalise.py"


def is_small(notebook):
    size = len(nbformat.writes(notebook).encode())
    if size > LARGEST:
        yield f"{size} bytes; {LARGEST} at most, so that a clone stays small"


def has_a_title(notebook):
    first = notebook.cells[0]
    if first.cell_type != "markdown" or not re.match(r"# \d\d · \S", first.source):
        yield "the first cell must be text that begins with '# NN · Title'"


def has_stable_ids(notebook):
    ids = [cell.id for cell in notebook.cells]
    yield from (
        f"cell id {i!r} is no slug such as 'claim-log4'" for i in ids if not SLUG.fullmatch(i) or HEX.fullmatch(i)
    )
    yield from (f"cell id {i!r} stands twice" for i in sorted(set(ids)) if ids.count(i) > 1)


def was_run_in_order(notebook):
    counts = [cell.execution_count for cell in code_cells(notebook)]
    if counts != list(range(1, len(counts) + 1)):
        yield f"the cells must have been run once, in order; their counts are {counts}"


def has_known_tags(notebook):
    for cell in notebook.cells:
        if unknown := {tag for tag in tags(cell) - {CLAIM, RAISES, *LOOSER} if not WIDER.fullmatch(tag)}:
            yield f"cell {cell.id!r} has the tags {sorted(unknown)}, which nobody reads"
        if RAISES in tags(cell) and CLAIM not in tags(cell):
            yield f"cell {cell.id!r} must also be tagged {CLAIM!r}: nbval doesn't notice when nothing is raised"


def raises_only_on_purpose(notebook):
    for cell in code_cells(notebook):
        raised = any(output.output_type == "error" for output in cell.outputs)
        if raised != (RAISES in tags(cell)):
            yield f"cell {cell.id!r} {'raises, untagged' if raised else 'is tagged ' + RAISES + ' and raises nothing'}"


def has_claims(notebook):
    claims = [cell for cell in code_cells(notebook) if CLAIM in tags(cell)]
    if not any(RAISES not in tags(cell) for cell in claims):
        yield f"no claim: a lesson has at least one cell tagged {CLAIM!r}"
    for cell in claims:
        if not cell.outputs:
            yield f"claim {cell.id!r} has no output, so nothing is compared"
        for output in cell.outputs:
            plain = output.output_type in ("stream", "error") or set(output.data) == {"text/plain"}
            if not plain:
                yield f"claim {cell.id!r} has an output that isn't text: {sorted(output.data)}"


def claims_what_holds(notebook):
    yield from failed_outputs(notebook, notebook.cells[0].source[2:4])


def is_of_no_machine(notebook):
    yield from machine_traces(notebook)


def has_no_warnings(notebook):
    for cell in code_cells(notebook):
        for output in cell.outputs:
            if output.output_type == "stream" and output.name == "stderr":
                yield f"cell {cell.id!r} has written to stderr: {output.text[:80]!r}"


def describes_figures(notebook):
    for cell in code_cells(notebook):
        for output in cell.outputs:
            for kind in output.get("data", {}):
                alt = output.metadata.get(kind, {}).get("alt", "") if kind.startswith("image/") else "none needed"
                if len(alt.strip()) < 10:
                    yield f"cell {cell.id!r} has a figure without alternative text: show it with plots.show(figure, alt=...)"


def ends_no_cell_with_a_semicolon(notebook):
    for cell in code_cells(notebook):
        if cell.source.rstrip().endswith(";"):
            yield f"cell {cell.id!r} ends with ';', which Jupyter heeds and nbval doesn't: write '_ = ...' to show nothing"


def checks_every_exercise(notebook):
    found = exercises_of(notebook)
    if not found:
        yield "no exercise"
    yield from (f"exercise {exercise!r} has no check" for exercise, checks in found.items() if not checks)
    for cell in notebook.cells:
        if role(cell) == "check" and not cell.metadata.nbgrader.points > 0:
            yield f"check {cell.metadata.nbgrader.grade_id!r} gives no points"
        if role(cell) == "solution" and "### BEGIN SOLUTION" not in cell.source:
            yield f"exercise {cell.metadata.nbgrader.grade_id!r} marks no solution"
        if role(cell) and cell.metadata.nbgrader.grade_id != cell.id:
            yield f"cell {cell.id!r} has another grade_id, {cell.metadata.nbgrader.grade_id!r}"


EVERYWHERE = (
    is_normal,
    is_small,
    has_a_title,
    has_stable_ids,
    was_run_in_order,
    has_known_tags,
    raises_only_on_purpose,
    is_of_no_machine,
    has_no_warnings,
    describes_figures,
    ends_no_cell_with_a_semicolon,
)
LESSON_RULES = (*EVERYWHERE, has_claims, claims_what_holds)
SOLUTION_RULES = (*EVERYWHERE, checks_every_exercise)


# -- the notebooks of the course ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_lessons(path):
    notebook = read(path)
    assert [flaw for rule in LESSON_RULES for flaw in rule(notebook)] == []


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_solutions(path):
    notebook = read(path)
    assert [flaw for rule in SOLUTION_RULES for flaw in rule(notebook)] == []
    assert (ROOT / "notebooks" / f"{path.parent.name}.ipynb").exists(), "the folder is named after the lesson"
    assert path.stem == f"exercises_{path.parent.name[:2]}", "the file isn't, so that two tabs don't look alike"


def test_exercises_are_what_the_solutions_give():
    assert make(ROOT, check=True) == []


def test_every_lesson_from_02_on_has_exercises():
    needed = {path.stem for path in LESSONS if path.stem[:2] >= "02"}
    assert needed <= {path.parent.name for path in SOLUTIONS}


# -- the rules can fail -------------------------------------------------------------------------------------------------


def good_lesson() -> NotebookNode:
    figure = new_output("display_data", {"image/png": "aGVsbG8=", "text/plain": "<Figure>"})
    figure.metadata["image/png"] = {"alt": "A line that rises from 0 to 1."}
    notebook = notebook_of(
        markdown("title", "# 99 · A tiny lesson"),
        code("imports", "import torch"),
        code("figure", "plots.show(figure, alt='...')"),
        code("claim-one", "print('1.000: holds')", (CLAIM,)),
        code("broken", "1 / 0", (RAISES, CLAIM)),
    )
    outputs = ([], [figure], [new_output("stream", name="stdout", text="1.000: holds\n")])
    error = new_output(
        "error", ename="ZeroDivisionError", evalue="division by zero", traceback=["ZeroDivisionError: division by zero"]
    )
    for count, (cell, its) in enumerate(zip(code_cells(notebook), (*outputs, [error]), strict=True), start=1):
        cell.execution_count, cell.outputs = count, its
    return notebook


def good_solution() -> NotebookNode:
    notebook = tiny_assignment()
    for count, cell in enumerate(code_cells(notebook), start=1):
        cell.execution_count = count
    return notebook


def test_good_notebooks_have_no_flaw():
    assert [flaw for rule in LESSON_RULES for flaw in rule(good_lesson())] == []
    assert [flaw for rule in SOLUTION_RULES for flaw in rule(good_solution())] == []


def cell_of(notebook: NotebookNode, slug: str) -> NotebookNode:
    return next(cell for cell in notebook.cells if cell.id == slug)


def plant(slug: str, **changes):
    """A flaw: fields of one cell changed."""

    def change(notebook: NotebookNode) -> None:
        for field, value in changes.items():
            cell_of(notebook, slug)[field] = value

    return change


def printed(text: str, name: str = "stdout"):
    return [new_output("stream", name=name, text=text)]


@pytest.mark.parametrize(
    ("rule", "flaw"),
    [
        (is_normal, lambda notebook: notebook.metadata.update(widgets={})),
        (is_normal, plant("imports", metadata={"execution": {"iopub.status.busy": "2030"}})),
        (is_normal, lambda notebook: notebook.metadata.language_info.update(version="3.13.1")),
        (is_normal, plant("imports", outputs=printed(" 10%|#\r 20%|##", "stderr"))),
        (is_small, plant("imports", outputs=printed("x" * LARGEST))),
        (has_a_title, plant("title", source="A tiny lesson")),
        (has_stable_ids, plant("imports", id="a1b2c3d4")),
        (has_stable_ids, plant("imports", id="The_Imports")),
        (has_stable_ids, plant("imports", id="figure")),
        (was_run_in_order, plant("claim-one", execution_count=None)),
        (was_run_in_order, plant("claim-one", execution_count=7)),
        (has_known_tags, plant("claim-one", metadata={"tags": ["nbval-skip"]})),
        (has_known_tags, plant("imports", metadata={"tags": ["tolerance-much"]})),
        (has_known_tags, plant("broken", metadata={"tags": [RAISES]})),
        (raises_only_on_purpose, plant("broken", metadata={})),
        (raises_only_on_purpose, plant("broken", outputs=[])),
        (has_claims, plant("claim-one", metadata={})),
        (has_claims, plant("claim-one", outputs=[])),
        (
            has_claims,
            lambda notebook: cell_of(notebook, "claim-one").outputs.extend(cell_of(notebook, "figure").outputs),
        ),
        (claims_what_holds, plant("claim-one", outputs=printed("holds: one\nFAILS: the other\n"))),
        (is_of_no_machine, plant("imports", outputs=printed("saved to /home/ada/runs/1"))),
        (is_of_no_machine, plant("imports", outputs=printed("<object at 0x7f3a2b1c0d>"))),
        (is_of_no_machine, plant("imports", outputs=printed("C:\\Users\\ada"))),
        (has_no_warnings, plant("imports", outputs=printed("UserWarning", "stderr"))),
        (describes_figures, lambda notebook: cell_of(notebook, "figure").outputs[0].update(metadata={})),
        (ends_no_cell_with_a_semicolon, plant("imports", source="answer();\n")),
    ],
)
def test_flaws_of_lessons_are_caught(rule, flaw):
    notebook = good_lesson()
    flaw(notebook)
    assert list(rule(notebook))


@pytest.mark.parametrize(
    "flaw",
    [
        lambda notebook: notebook.cells.remove(cell_of(notebook, "check-answer")),
        lambda notebook: cell_of(notebook, "check-answer").metadata.nbgrader.update(points=0),
        lambda notebook: cell_of(notebook, "check-answer").metadata.nbgrader.update(grade_id="other"),
        plant("answer", source="answer = 42"),
    ],
)
def test_flaws_of_solutions_are_caught(flaw):
    notebook = good_solution()
    flaw(notebook)
    assert list(checks_every_exercise(notebook))


def test_normalising_twice_changes_nothing():
    notebook = good_lesson()
    notebook.cells[1].outputs = [*printed("a"), *printed("b"), *printed("bar\r", "stderr")]
    notebook.cells[4].outputs[0].traceback = ["a long", "traceback", "/home/ada/x.py"]
    notebook.metadata["widgets"] = {"state": {}}
    once = nbformat.writes(normalise(notebook))
    assert nbformat.writes(normalise(nbformat.reads(once, as_version=4))) == once
    assert '"ab"' in once and "/home/ada" not in once and "widgets" not in once and "bar" not in once
