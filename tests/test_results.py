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


def probed(row, budget, protocol="linear", labels=10, data="world"):
    (value,) = long_runs.values(
        long_runs.read(ROOT / "benchmarks" / "long.json"), row, budget, protocol, labels, data
    ).values()
    return value


def test_what_is_said_of_photographs_and_of_sixteen_times_the_steps_is_in_the_long_runs():
    text = " ".join((ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8").split())
    there = {"data": long_runs.PHOTOGRAPHS}
    ahead = [
        100 * (probed("simclr, crop 0.2", 4, *asked, **there) - probed("rotation", 4, *asked, **there))
        for asked in (("linear", 100), ("linear", 10), ("knn", 100))
    ]
    said = "by {:.1f} points with 100 labels per class, {:.1f} with 10 and {:.1f} by kNN"
    assert said.format(*ahead) in text
    behind = 100 * (probed("rotation", 4, "linear", 100, **there) - probed("vicreg", 4, "linear", 100, **there))
    assert f"VICReg, level with rotation there, is {behind:.1f} points behind here" in text
    at_16 = {m: probed(m, 16) for m in "vicreg barlow mae swav simclr byol rotation moco ijepa".split()}
    assert list(at_16) == sorted(at_16, key=at_16.get, reverse=True)  # rotation is seventh
    for said in (
        "VICReg has {vicreg:.3f}, Barlow Twins {barlow:.3f},",
        "SwAV {swav:.3f}, SimCLR {simclr:.3f}, BYOL {byol:.3f}, MoCo {moco:.3f}, I-JEPA {ijepa:.3f}",
    ):
        assert said.format(**at_16) in text
    front = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert "VICReg has {vicreg:.3f} by the linear probe, Barlow Twins {barlow:.3f}".format(**at_16) in front
