"""What a lesson prints against what is stored in it: other definitions are found, another processor's noise isn't."""

import subprocess
import sys

import pytest
from course_notebooks import ROOT, code, notebook_of, write
from nbformat.v4 import new_output
from stored_outputs import differences, differences_of, near


@pytest.mark.parametrize(
    ("stored", "now", "times", "same"),
    [
        ("0.200", "0.243", 0, False),  # all four stages in place of the last: what lesson 02 had stored
        ("0.243", "0.251", 0, True),
        ("0.200", "0.243", 2, True),
        ("10,000", "9,999", 0, False),
        ("702", "699", 0, False),
        ("702", "699", 1, True),
        ("5.6e-17", "2.8e-17", 0, True),
        ("2.94", "-2.94", 0, False),
        ("nan", "nan", 0, True),
        ("nan", "0.00", 0, False),
    ],
)
def test_numbers(stored, now, times, same):
    assert near(stored, now, times) is same


@pytest.mark.parametrize(
    ("stored", "now", "found"),
    [
        (["random features  0.200 ± 0.020"], ["random features  0.243 ± 0.026"], 1),
        (["random features  0.243 ± 0.026"], ["random features 0.250 ± 0.020"], 0),
        (["tree 0.99", "car 0.98"], ["car 0.99", "tree 0.98"], 0),  # sorted by a number that wavers
        (["tree 0.99"], ["car 0.99"], 2),
        (["tree 0.99", "car 0.98"], ["tree 0.99"], 1),
        (["step 75: loss 0.6"], ["step 80: loss 0.6"], 1),
    ],
)
def test_lines(stored, now, found):
    assert len(list(differences(stored, now))) == found


def stored_cell(text, *tags):
    cell = code("cell", "...", tags)
    cell.outputs = [new_output("stream", name="stdout", text=text)]
    return cell


@pytest.mark.parametrize(
    ("tags", "found"), [((), 1), (("of-this-machine",), 0), (("tolerance-9",), 0), (("nbval-check-output",), 0)]
)
def test_tags_widen(tags, found):
    assert len(differences_of(stored_cell("0.2\n", *tags), stored_cell("0.3\n").outputs)) == found


def test_names_may_vary_where_a_tag_says_so():
    now = stored_cell("cheapest 0.01 (cat)\n").outputs
    assert differences_of(stored_cell("cheapest 0.01 (dog)\n"), now)
    assert not differences_of(stored_cell("cheapest 0.01 (dog)\n", "names-vary"), now)


def test_tables_are_compared_and_figures_are_not():
    shown = [new_output("display_data", {"text/html": "<table>", "text/plain": "pixels  0.4"})]
    picture = [new_output("display_data", {"image/png": "aGVsbG8=", "text/plain": "<Figure size 640x480>"})]
    cell = code("cell", "...")
    cell.outputs = shown + picture
    assert not differences_of(cell, shown + picture)
    assert differences_of(cell, [new_output("display_data", {"text/plain": "pixels  0.5"})])


@pytest.mark.notebooks
def test_the_run_that_is_made_anyway_finds_a_stale_number(tmp_path):
    cell = code("cell", "print(0.5)")
    cell.outputs, cell.execution_count = [new_output("stream", name="stdout", text="0.4\n")], 1
    path = write(tmp_path / "lesson.ipynb", notebook_of(cell))
    words = "-m pytest -q -p no:cacheprovider -p tests.stored_outputs --nbval-lax --nbval-current-env".split()
    run = subprocess.run([sys.executable, *words, path], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 1 and "stored '0.4', and now '0.5'" in run.stdout


@pytest.mark.parametrize(
    ("stored", "now", "close"),
    [
        ("+1.2", "+4.1", True),
        ("+1.2", "+4.3", False),  # 3.1 points
        ("-0.5", "+2.6", False),
        ("1.2", "1.45", False),  # unsigned, and so no points
        ("+0.012", "+0.052", False),
    ],
)
def test_points_are_compared_as_accuracies(stored, now, close):
    assert near(stored, now) is close
