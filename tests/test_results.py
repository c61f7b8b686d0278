"""The committed results: whole, and what README and benchmarks say of them."""

import re
import runpy
from pathlib import Path

import nbformat
import pytest
from stored_outputs import printed

from sslcourse import compare, evaluate, long_runs, pretext, tables

ROOT = Path(__file__).resolve().parent.parent
TOOL = runpy.run_path(str(ROOT / "tools" / "write_results.py"))


@pytest.fixture(scope="module")
def results():
    return compare.read(ROOT / "benchmarks" / "results.json")


@pytest.mark.parametrize("name", TOOL["FILES"])
def test_prose_and_file_hold_together(name, results):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert TOOL["BLOCK"].search(text), "a file without a table has nothing to hold"
    assert TOOL["written"](text, results) == text, "run tools/write_results.py"


@pytest.mark.parametrize("name", TOOL["FILES"])
def test_another_result_would_be_noticed(name, results):
    text = (ROOT / name).read_text(encoding="utf-8")
    digit = next(m for m in re.finditer(r"0\.\d\d(\d) ±", text[TOOL["BLOCK"].search(text).start() :]))
    place = TOOL["BLOCK"].search(text).start() + digit.start(1)
    wrong = text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :]
    assert TOOL["written"](wrong, results) == text


def test_every_task_was_measured_over_five_seeds(results):
    assert set(results["tasks"]) == set(pretext.tasks())
    for row in results["tasks"]:
        for protocol in ("knn", "linear", "finetune"):
            assert len(compare.values(results, row, protocol)) == 5, f"{row}, {protocol}"
        assert len(compare.gain(results, row, "linear").values) == 5
        for name in results["chance"]:
            assert len(compare.values(results, row, f"factor {name}", 0)) == 5, f"{row}, {name}"


def test_the_settings_are_those_of_the_package(results):
    for row in results["tasks"]:
        assert {run["steps"] for run in results["runs"][row].values()} == {pretext.find(row).settings["steps"]}


def test_lesson_12_shows_what_the_file_says(results):
    lesson = nbformat.read(ROOT / "notebooks" / "12_evaluation.ipynb", as_version=4)
    shown = {cell.id: "\n".join(printed(cell.outputs)) for cell in lesson.cells if cell.cell_type == "code"}
    assert shown["read"].endswith(tables.aligned(tables.table(results)))
    matrix = compare.matrix(results)
    for line in shown["heat-change"].splitlines()[1:]:
        row, colour, lighting, *_ = re.split(" {2,}", line)
        assert (colour, lighting) == tuple(f"{matrix[row][factor].mean:.2f}" for factor in ("colour", "lighting"))
    assert "FAILS" not in shown["claims"]


def test_the_gain_of_masked_autoencoding_over_its_own_scratch_is_that_of_the_long_runs():
    found = long_runs.read(ROOT / "benchmarks" / "long.json")
    sides = [long_runs.values(found, row, 4, "finetune", 10) for row in ("mae", "random weights, vit-tiny")]
    tuned, scratch = ([its[seed] for seed in sorted(its)] for its in sides)
    gain = evaluate.paired_difference(tuned, scratch)
    low, high = (100 * end for end in gain.interval)
    text = " ".join((ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8").split())
    assert sides[0].keys() == sides[1].keys() == {0, 1, 2}
    assert (
        f"above by {100 * gain.mean:.1f} points at budget 4 (95% interval {low:.1f} to {high:.1f}, three seeds" in text
    )
