"""What a lesson claims, and the table that says how it fares on other machines: lessons and table belong together."""

from __future__ import annotations

import importlib
import json
import math
import os
import re
import subprocess
import sys
from copy import deepcopy

import pytest
import torch
from course_notebooks import ROOT, code, notebook_of

from sslcourse.claims import above, below, between, exact, holds
from sslcourse.errors import CourseError

tool = importlib.import_module("claims")  # of tools/, which course_notebooks has put on the path

TRAINED = 'holds("the probe gains more than 0.1", above(probe - chance, 0.1), *(below(x, 0.5) for x in rest))'
EXACT = 'holds("two and two is four", exact(double(2) == 4))'


# -- in a lesson --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "true"),
    [
        (above(0.07, 0.06), True),
        (above(0.06, 0.06), False),
        (below(torch.tensor(0.29), 0.3), True),
        (below(torch.tensor([0.31]), 0.3), False),
        (between(8, 5, 13), True),
        (between(5, 5, 13), False),
        (between(13, 5, 13), False),
        (above(math.nan, 0.0), False),
        (below(math.nan, 0.0), False),
        (exact(torch.tensor(True)), True),
        (exact([]), False),
    ],
)
def test_a_part_is_true_inside_its_open_interval(part, true, capsys):
    holds("so it is", part)
    assert part.true is true
    assert capsys.readouterr().out == f"{'holds' if true else 'FAILS'}: so it is\n"


def test_every_part_must_be_true(capsys):
    holds("both", above(2, 1), below(2, 1))
    assert capsys.readouterr().out == "FAILS: both\n"


@pytest.mark.parametrize("parts", [(), (True,), (above(1, 0), torch.tensor(True))])
def test_a_bare_truth_value_is_refused(parts):
    with pytest.raises(CourseError, match="above"):
        holds("a sentence", *parts)


def test_a_record_is_written_where_it_is_asked_for(tmp_path, monkeypatch, capsys):
    path = tmp_path / "12_evaluation.jsonl"
    monkeypatch.setenv("SSLCOURSE_CLAIMS", str(path))
    holds("größer", above(0.07, 0.06), between(7, 6, 12))
    holds("equal", exact(True))
    first, second = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    assert first["lesson"] == "12_evaluation" and first["sentence"] == "größer" and first["holds"]
    assert first["parts"] == [
        {"direction": "above", "value": 0.07, "thresholds": [0.06]},
        {"direction": "between", "value": 7.0, "thresholds": [6.0, 12.0]},
    ]
    assert (first["exact"], second["exact"]) == (False, True)
    monkeypatch.delenv("SSLCOURSE_CLAIMS")
    holds("no more", exact(True))
    assert len(path.read_text(encoding="utf-8").splitlines()) == 2 and "holds: no more" in capsys.readouterr().out


# -- the claims of a lesson, read without running it ---------------------------------------------------------------------


def lesson(*sources: str):
    return notebook_of(*(code(f"cell-{i}", source, ("nbval-check-output",)) for i, source in enumerate(sources)))


def test_claims_are_read_from_the_code():
    trained, plain = tool.claims_of(lesson(TRAINED, EXACT, "print(1)"), "99_tiny")
    assert trained.sentence == "the probe gains more than 0.1" and not trained.exact and trained.cell == "cell-0"
    assert [(a.direction, a.thresholds, a.starred) for a in trained.arguments] == [
        ("above", (0.1,), False),
        ("below", (0.5,), True),
    ]
    assert plain.exact and plain.sentence == "two and two is four"


@pytest.mark.parametrize(
    ("source", "thresholds"),
    [("above(x, 2 / 3)", (2 / 3,)), ("above(x, -0.5)", (-0.5,)), ("between(x, 1e-3, 2 * 3 + 1)", (1e-3, 7.0))],
)
def test_thresholds_may_be_sums_and_quotients(source, thresholds):
    (claim,) = tool.claims_of(lesson(f'holds("s", {source})'), "99_tiny")
    assert claim.arguments[0].thresholds == thresholds


@pytest.mark.parametrize("argument", ["x > 0.1", "all(above(x, 1) for x in y)", "*parts"])
def test_other_forms_are_refused(argument):
    with pytest.raises(ValueError):
        tool.claims_of(lesson(f'holds("s", {argument})'), "99_tiny")


def part(direction, value, *thresholds):
    return {"direction": direction, "value": value, "thresholds": list(thresholds)}


def test_values_go_to_the_arguments_that_they_came_from():
    source = 'holds("s", above(a, 0), *(above(b, 0) for b in c), below(d, 1), *(below(e, 2) for e in f))'
    (claim,) = tool.claims_of(lesson(source), "99_tiny")
    parts = [part("above", v, 0.0) for v in (1, 2, 3)] + [part("below", 4, 1.0)]
    assert tool.values_of(claim.arguments, parts) == [[1], [2, 3], [4], []]
    with pytest.raises(ValueError):
        tool.values_of(claim.arguments, [*parts, part("below", 5, 3.0)])


SEEDS = """
import socket, torch
from sslcourse import backbones, device, heads
weights = [next(backbones.build("resnet-tiny", seed=3).parameters()).sum().item(), torch.rand(1).item()]
print(weights, [device.derive_seed(0, kind, 5) for kind in ("views", "order", "few")], socket.socket.__name__)
"""


@pytest.mark.training
def test_a_salt_changes_weights_order_and_views_and_nothing_else():
    said = {}
    for salt in (None, "1"):
        with tool.salted(salt) as folder:
            env = os.environ | {"PYTHONPATH": str(folder)}
            done = subprocess.run([sys.executable, "-c", SEEDS], env=env, capture_output=True, text=True, check=True)
        said[salt] = done.stdout.split()
    weight, _, views, order, few, offline = zip(*said.values(), strict=True)
    assert len(set(weight)) == len(set(views)) == len(set(order)) == 2
    assert len(set(few)) == len(set(offline)) == 1, "labels stay as they are, and the network stays off"


def test_every_seed_of_a_training_is_salted():
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "sslcourse").rglob("*.py"))
    assert set(re.findall(r'derive_seed\(\s*config\.seed,\s*"(\w+)"', source)) == tool.OF_TRAINING


# -- margins ------------------------------------------------------------------------------------------------------------


def row(*values, direction="above", thresholds=(0.1,)):
    its = {f"run {i}": [value] for i, value in enumerate(values)}
    argument = {"direction": direction, "thresholds": list(thresholds), "measure": "x", "values": its}
    return {"lesson": "99_tiny", "sentence": "s", "arguments": [argument]}


def test_the_margin_is_in_spreads():
    assert tool.margin(row(0.2, 0.3, 0.4)) == pytest.approx(2.0)  # mean 0.3, spread 0.1, threshold 0.1
    assert tool.margin(row(0.2, 0.3, 0.4, direction="below", thresholds=(0.6,))) == pytest.approx(3.0)
    assert tool.margin(row(7, 8, 9, direction="between", thresholds=(5, 12))) == pytest.approx(3.0)
    assert tool.margin(row(7, 8, 9, direction="between", thresholds=(5, 9.5))) == pytest.approx(1.5)
    assert tool.margin(row(1.0, 1.0, 1.0)) == math.inf and tool.margin(row(0.0, 0.0, 0.0)) == -math.inf
    assert math.isnan(tool.margin(row(0.2, math.nan, 0.4)))
    assert tool.margin(row(0.2, 0.3)) is None


def test_the_weakest_part_counts():
    both = row(0.2, 0.3, 0.4)
    both["arguments"].append({"direction": "below", "thresholds": [1.0], "measure": "y", "values": {}})
    both["arguments"][1]["values"] = {f"run {i}": [v, 0.0] for i, v in enumerate((0.7, 0.8, 0.9))}
    assert tool.margin(both) == pytest.approx(2.0)
    both["arguments"][1]["thresholds"] = [0.95]
    assert tool.margin(both) == pytest.approx(1.5)
    assert tool.failures(both) == []
    both["arguments"][1]["values"]["run 1"] = [0.8, math.nan]
    assert tool.failures(both) == ["run 1"]


# -- lessons and table --------------------------------------------------------------------------------------------------


def records(*values):
    (claim, _) = tool.claims_of(lesson(TRAINED, EXACT), "99_tiny")
    found = {}
    for name, value in zip(tool.PERTURBATIONS, values, strict=False):
        line = {"sentence": claim.sentence, "holds": value > 0.1, "exact": False}
        line["parts"] = [part("above", value, 0.1), part("below", 0.2, 0.5), part("below", 0.3, 0.5)]
        exactly = {"sentence": "two and two is four", "holds": True, "exact": True, "parts": []}
        found[name, "99_tiny"] = tool.measured([claim], [line, exactly])
    return found


def table_of(notebook, *values, old=None):
    return tool.build(old or {}, records(*values), tool.claims_of(notebook, "99_tiny"))


def flaws(notebook, table):
    return list(tool.flaws({"99_tiny": notebook}, table))


def test_lesson_and_table_agree():
    notebook = lesson(TRAINED, EXACT)
    table = table_of(notebook, 0.3, 0.31, 0.32)
    assert flaws(notebook, table) == []
    assert json.loads(tool.text_of(table)) == json.loads(json.dumps(table))
    assert "1 have fewer than 8 runs (5 missing)" in tool.missing(table)


@pytest.mark.parametrize("values", [(), (0.3,), (0.3, 0.2)])
def test_a_row_with_few_runs_is_let_through_and_counted(values):
    notebook = lesson(TRAINED)
    table = table_of(notebook, *values)
    assert flaws(notebook, table) == [] and f"({8 - len(values)} missing)" in tool.missing(table)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (TRAINED + '\nholds("new", above(y, 1))', "no row"),
        (EXACT, "doesn't claim"),
        (TRAINED.replace("0.1)", "0.2)"), "other thresholds"),
        (TRAINED + "\n" + TRAINED, "stands twice"),
        ('holds(f"{name} gains", above(y, 1))\n' + TRAINED, "written out"),
        ('holds("s", above(y, limit))\n' + TRAINED, "written out"),
        ('holds("s", y > 1)', "is none of"),
        ("for below in range(3):\n    pass\n" + TRAINED, "binds 'below' anew"),
        ('holds("s", exact(math.factorial(3) == 6))\n' + TRAINED, "can't fail"),
    ],
)
def test_a_lesson_that_left_its_table_is_found(source, said):
    (flaw, *others) = flaws(lesson(source), table_of(lesson(TRAINED), 0.3, 0.31, 0.32))
    assert said in flaw or any(said in other for other in others)


@pytest.mark.parametrize(
    ("values", "said"),
    [((0.3, 0.05), "didn't hold under"), ((0.12, 0.2, 0.25), "spreads"), ((0.3, math.nan, 0.3), "didn't hold")],
)
def test_a_claim_that_does_not_stand_is_found(values, said):
    notebook = lesson(TRAINED)
    assert said in flaws(notebook, table_of(notebook, *values))[0]


def test_an_exact_claim_that_failed_is_found():
    notebook = lesson(TRAINED, EXACT)
    found = records(0.3)
    found["avx2", "99_tiny"][1]["holds"] = False
    table = tool.build({}, found, tool.claims_of(notebook, "99_tiny"))
    assert "two and two is four" in flaws(notebook, table)[0]


def test_a_stored_failure_is_found():
    notebook = lesson(EXACT)
    notebook.cells[0].outputs = [{"output_type": "stream", "name": "stdout", "text": "holds: a\nFAILS: b\n"}]
    assert "FAILS: b" in flaws(notebook, {"rows": []})[0]


def test_new_thresholds_and_sentences_need_no_new_run_but_new_measures_do():
    before = table_of(lesson(TRAINED), 0.3, 0.31, 0.32)
    wider = lesson(TRAINED.replace("0.1", "0.05"))  # another sentence, another threshold, the same measure
    table = tool.build(before, {}, tool.claims_of(wider, "99_tiny"))
    assert tool.runs(table["rows"][0]) == tool.runs(before["rows"][0]) and flaws(wider, table) == []
    fewer = lesson('holds("less", above(probe - chance, 0.1))')
    assert tool.runs(tool.build(before, {}, tool.claims_of(fewer, "99_tiny"))["rows"][0]) == tool.runs(
        before["rows"][0]
    )
    other = lesson(TRAINED.replace("0.1", "0.05").replace("chance", "pixels"))
    assert tool.runs(tool.build(before, {}, tool.claims_of(other, "99_tiny"))["rows"][0]) == []
    turned = lesson(TRAINED.replace("below(x", "above(x"))  # the same sentence claims something else
    assert tool.runs(tool.build(before, {}, tool.claims_of(turned, "99_tiny"))["rows"][0]) == []


def test_new_runs_join_the_old_ones():
    before = table_of(lesson(TRAINED), 0.3, 0.31, 0.32)
    old = deepcopy(before)
    for argument in old["rows"][0]["arguments"]:
        argument["values"] = {"elsewhere": argument["values"]["avx2"]}
    table = table_of(lesson(TRAINED), 0.3, old=old)
    assert tool.runs(table["rows"][0]) == ["avx2", "elsewhere"]


def test_the_lessons_of_the_course_and_their_table_agree():
    assert list(tool.flaws(tool.lessons(), tool.read_table())) == []
