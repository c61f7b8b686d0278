"""Training from scratch, the floor of the course's tables: whole, as the program measures it."""

import importlib.util
import sys
from pathlib import Path

import pytest

from sslcourse import compare, comparison
from sslcourse.data import world
from sslcourse.data.splits import Splits

PROGRAM = Path(__file__).resolve().parents[1] / "benchmarks" / "scratch.py"


@pytest.fixture
def program():
    spec = importlib.util.spec_from_file_location("benchmarks_scratch", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_stored_curve_is_whole(program):
    found = comparison.scratch()
    curve = comparison.curve(found, comparison.SCRATCH, "finetune")
    assert tuple(curve) == compare.BUDGETS and all(len(its.values) == 5 for its in curve.values())
    assert (found["lengths"], found["learning_rates"]) == (list(program.LENGTHS), list(compare.RATES))
    assert comparison.accuracies(found, comparison.SCENES, "finetune", 500).mean > 0.9
    # with more steps to choose from it isn't worse than `compare`'s, which has as many as fine-tuning
    short = comparison.curve(comparison.stored(), comparison.RANDOM, "finetune")
    assert all(curve[labels].mean > short[labels].mean - 0.01 for labels in curve)


def test_what_is_measured_is_not_measured_again(program, monkeypatch, tmp_path):
    asked = []

    def measured(network, splits, labels, seed, *args, **options):
        asked.append((labels, seed, options.get("lengths")))
        return 0.5

    few = world.draw("test", 4)
    monkeypatch.setattr(program, "load", lambda name: Splits(few, few, few, few, name))
    monkeypatch.setattr(program.evaluate, "finetune_accuracy", measured)
    out = tmp_path / "scratch.json"
    monkeypatch.setattr(sys, "argv", ["scratch.py", "--seeds", "2", "--labels", "10", "--out", str(out)])
    program.main()
    assert asked == [(10, 0, (200, 800)), (10, 1, (200, 800)), (500, 0, None)]
    program.main()
    assert len(asked) == 3
