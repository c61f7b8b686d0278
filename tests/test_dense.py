"""The recorded figures of lesson 14: whole, and what the lesson shows of them."""

import json
import re
import runpy
from pathlib import Path

import nbformat
import pytest

from sslcourse import evaluate

ROOT = Path(__file__).resolve().parent.parent
COMMAND = runpy.run_path(str(ROOT / "benchmarks" / "dense.py"), run_name="command")
FOUND = json.loads((ROOT / "benchmarks" / "dense.json").read_text(encoding="utf-8"))


def test_every_part_was_measured_and_nothing_else():
    expected = {
        f"{kind}, {row}, {count}, {seed}"
        for kind, count, rows, seeds in COMMAND["PARTS"]
        for row in rows
        for seed in range(seeds)
    }
    assert set(FOUND["scores"]) == expected
    for kind, (_, _, rates, _, names) in COMMAND["KINDS"].items():
        for row in COMMAND["ROWS"]:
            assert FOUND["rates"][f"{kind}, {row.removesuffix(COMMAND['LONGER'])}"] in rates
        for key, scores in FOUND["scores"].items():
            if key.startswith(kind):
                assert set(names) <= set(scores) and all(0 < value < 1 for value in scores.values())


@pytest.mark.parametrize(("kind", "least"), [("segmentation", 0.05), ("detection", 0.05)])
def test_pretraining_is_worth_five_points(kind, least):
    count, name = COMMAND["KINDS"][kind][3], COMMAND["KINDS"][kind][4][0]
    best, scratch = (COMMAND["values"](FOUND, kind, COMMAND[row], count, name) for row in ("BEST", "SCRATCH"))
    gain = evaluate.paired_difference(best, scratch)
    assert len(gain.values) == 5 and gain.mean > least and gain.interval[0] > 0


def test_the_lesson_shows_what_the_file_says():
    lesson = nbformat.read(ROOT / "notebooks" / "14_dense_tasks.ipynb", as_version=4)
    shown = {
        cell.id: "\n".join(out.text if out.output_type == "stream" else out.data["text/plain"] for out in cell.outputs)
        for cell in lesson.cells
        if cell.id in ("read", "claims")
    }
    parts = dict(zip(COMMAND["KINDS"], re.split(r"\ndetection, 50", shown["read"], maxsplit=1), strict=True))
    for kind, text in parts.items():
        count, name = COMMAND["KINDS"][kind][3], COMMAND["KINDS"][kind][4][0]
        for row in COMMAND["ROWS"]:
            summary = evaluate.Summary(COMMAND["values"](FOUND, kind, row, count, name))
            assert re.search(rf"^{re.escape(row)} +{re.escape(str(summary))}", text, re.MULTILINE), (kind, row)
    assert "FAILS" not in shown["claims"]


def test_the_tables_are_made_from_the_file():
    printed = COMMAND["report"](FOUND)
    assert printed.count("| from scratch |") == 3 and "nan" not in printed
    assert re.search(r"rotation, fine-tuned \| 0\.\d{3} ± 0\.\d{3} \| \+\d", printed)
