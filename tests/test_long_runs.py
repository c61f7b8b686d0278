"""Long runs: the program that measures them goes on where it was, and what is read from its file is what it wrote."""

import itertools
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from sslcourse import backbones, bundled, comparison, long_runs, plots, pretext, store, train
from sslcourse.errors import CourseError
from sslcourse.locking import claimed
from sslcourse.summary import Summary

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = ROOT / "benchmarks" / "long.py"
LONG = runpy.run_path(str(PROGRAM), run_name="long")


def entry(row, budget, seed, value, protocol="linear", labels=10, data="world"):
    return {
        "data": data, "row": row, "budget": budget, "seed": seed, "protocol": protocol, "labels": labels, "value": value
    }  # fmt: skip


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "long.json"
    about = {"classes": 10, "test_images": 2000}
    long_runs.add(path, "world", about, records=[entry("raw pixels", 0, 0, 0.4), entry("simclr", 4, 0, 0.7)])
    long_runs.add(path, "world", about, records=[entry("simclr", 4, 1, 0.8), entry("simclr", 16, 0, 0.9)])
    return path


# --- the file ----------------------------------------------------------------------------------------------------


def test_what_is_added_is_read_and_what_is_measured_again_replaces(file):
    long_runs.add(file, "world", {"classes": 10}, records=[entry("simclr", 4, 0, 0.6)])
    found = long_runs.read(file)
    assert long_runs.values(found, "simclr", 4, "linear", 10) == {0: 0.6, 1: 0.8}
    assert long_runs.budgets(found) == [4, 16]
    curve = long_runs.curve(found, "simclr")
    assert {budget: round(some.mean, 3) for budget, some in curve.items()} == {4: 0.7, 16: 0.9}
    assert long_runs.floor(found) == 0.4
    assert long_runs.curve(found, "simclr", data="photographs") == {}
    with pytest.raises(CourseError, match="vicreg"):
        long_runs.floor(found, "vicreg")


def test_two_processes_may_write_at_once(tmp_path):
    path = tmp_path / "long.json"
    code = (
        "import sys; from pathlib import Path; from sslcourse import long_runs\n"
        "for seed in range(8):\n"
        "    one = {'data': 'world', 'row': sys.argv[2], 'budget': 1, 'seed': seed, 'protocol': 'knn', 'labels': 10, 'value': 0.5}\n"
        "    long_runs.add(Path(sys.argv[1]), 'world', {}, records=[one])\n"
    )
    both = [subprocess.Popen([sys.executable, "-c", code, str(path), row]) for row in ("simclr", "rotation")]
    assert [process.wait(60) for process in both] == [0, 0]
    assert len(long_runs.read(path)["records"]) == 16


def test_any_other_file_is_refused(tmp_path):
    for text in ("{}", "no json", '{"format": "sslcourse compare 2"}'):
        (tmp_path / "other.json").write_text(text)
        with pytest.raises(CourseError, match="other.json"):
            long_runs.read(tmp_path / "other.json")


def test_a_comparison_is_budget_one(file):
    results = {
        "format": comparison.FORMAT, "data": "world", "labels": 10, "classes": 10, "test_images": 2000, "tasks": ["simclr"],
        "runs": {"simclr": {"0": {"backbone": "resnet-tiny"}}, "random weights": {"0": {"backbone": "resnet-tiny"}}},
        "records": [
            comparison.record("simclr", 0, "linear", 10, 0.5),
            comparison.record("raw pixels", 0, "linear", 10, 0.3),
            comparison.record("random weights", 0, "linear", 10, 0.2),
            comparison.record("random weights", 0, "finetune", 10, 0.55),
            comparison.record("simclr", 0, "factor colour", 0, 0.9),
        ],
    }  # fmt: skip
    both = long_runs.joined(long_runs.read(file), results)
    assert list(long_runs.curve(both, "simclr")) == [1, 4, 16]
    assert long_runs.floor(both, "random weights") == 0.2
    assert list(long_runs.curve(both, "random weights", "finetune")) == [1], "from scratch is trained, for one budget"
    assert long_runs.table(both) == [
        ["", "not trained", "budget 1", "budget 4", "budget 16"],
        ["raw pixels", "0.400", "", "", ""],
        ["random weights", "0.200", "", "", ""],
        ["simclr", "", "0.500", "0.750 ± 0.071 (2)", "0.900"],
    ]


def test_the_longest_run_of_a_row(file):
    budget, values = long_runs.longest(long_runs.read(file), "simclr")
    assert (budget, values.values) == (16, (0.9,))
    for row, protocol in (("raw pixels", "linear"), ("simclr", "knn"), ("vicreg", "linear")):
        with pytest.raises(CourseError, match=f"no run of {row} .*{protocol}"):
            long_runs.longest(long_runs.read(file), row, protocol)


def test_what_changes_places_between_budget_one_and_the_longest_that_is_shared(file):
    def at(row, **values):
        return [entry(row, int(budget[1:]), 0, value) for budget, value in values.items()]

    records = [
        *at("rotation", b1=0.7, b4=0.8),
        *at("simclr", b1=0.6),
        *at("mae", b1=0.65, b4=0.66),
        *at("dino", b4=0.99),
    ]
    long_runs.add(file, "world", {"test_images": 2000}, records=records)
    rows = ("dino", "mae", "rotation", "simclr", "byol")
    budget, both = long_runs.beside_budget_one(long_runs.read(file), rows)
    assert budget == 4, "SimCLR alone has 16"
    means = {row: tuple(round(some.mean, 2) for some in pair) for row, pair in both.items()}
    assert list(means.items()) == [("rotation", (0.7, 0.8)), ("simclr", (0.6, 0.75)), ("mae", (0.65, 0.66))]
    assert long_runs.overtakings(both) == [("simclr", "mae")]
    with pytest.raises(CourseError, match="fewer than half of dino, simclr"):
        long_runs.beside_budget_one(long_runs.read(file), ("dino", "simclr"))
    assert long_runs.places(long_runs.read(file), rows) == [
        ["", "budget 1", "place", "budget 4", "place", "changes places"],
        ["rotation", "0.700", "1", "0.800", "1", ""],
        ["simclr", "0.600", "3", "0.750 ± 0.071 (2)", "2", "passes mae"],
        ["mae", "0.650", "2", "0.660", "3", "falls behind simclr"],
    ]
    assert long_runs.lead(long_runs.read(file), "simclr", rows) == pytest.approx(0.75 - 0.99)
    assert long_runs.lead(long_runs.read(file), "simclr", ("rotation", "byol")) == pytest.approx(-0.05)
    with pytest.raises(CourseError, match="simclr on world .* no budget"):
        long_runs.lead(long_runs.read(file), "simclr", ("byol", "simclr"))
    long_runs.add(file, "world", {"test_images": 2000}, records=at("rotation", b16=0.85))
    assert long_runs.beside_budget_one(long_runs.read(file), rows)[0] == 4, (
        "two of five have 16: the table would be theirs"
    )
    assert long_runs.beside_budget_one(long_runs.read(file), ("rotation", "simclr", "mae"))[0] == 16


# --- the program -------------------------------------------------------------------------------------------------


@pytest.fixture
def measure(monkeypatch, tmp_path, photographs):
    """Runs the program on sixty pictures, with two steps for a recipe's; gives what the file then holds."""
    for task in pretext.tasks().values():
        monkeypatch.setitem(task.settings, "steps", 2)
    short = train.dataclasses.replace(train.FINETUNE, steps=2)
    monkeypatch.setattr(train, "FINETUNE", short)
    out = tmp_path / "long.json"

    def run(*words):
        where = ("--data", f"folder:{photographs}", "--size", "32", "--record", "two colours", "--device", "cpu")
        monkeypatch.setattr(
            sys, "argv", ["long.py", *words, *where, "--runs", str(tmp_path / "runs"), "--out", str(out)]
        )
        assert LONG["main"]() == 0
        return long_runs.read(out)

    return run


@pytest.mark.training
def test_everything_is_measured_once(measure, monkeypatch, capsys):
    asked = ("rotation", "raw pixels", "random weights", "supervised", "--budget", "1,2")
    found = measure(*asked, "--no-finetune")
    assert not long_runs.curve(found, "rotation", "finetune", data="two colours")
    trained = []
    real = train.pretrain
    monkeypatch.setattr(train, "pretrain", lambda *a, **k: trained.append(1) or real(*a, **k))
    found = measure(*asked)
    assert not trained, "the run is there, and only fine-tuning was lacking"
    for protocol, labels in [("knn", 10), ("linear", 10), ("finetune", 10), *((name, 0) for name in long_runs.SHAPE)]:
        assert list(long_runs.curve(found, "rotation", protocol, labels, "two colours")) == [1, 2], protocol
        assert list(long_runs.curve(found, "supervised", protocol, labels, "two colours")) == [1, 2], protocol
    assert list(long_runs.curve(found, "random weights", "finetune", 10, "two colours")) == [1, 2]
    assert list(long_runs.curve(found, "random weights", "linear", 10, "two colours")) == [0]
    assert long_runs.floor(found, data="two colours") > 0.5
    runs = {(run["row"], run["budget"]): run for run in found["runs"]}
    assert [runs["rotation", budget]["steps"] for budget in (1, 2)] == [2, 4]
    assert runs["rotation", 2]["learning_rate"] == runs["rotation", 1]["learning_rate"]
    assert runs["rotation", 2]["seconds"] > 0 and runs["rotation", 2]["loss"][-1][0] == 4
    capsys.readouterr()
    assert measure(*asked) == found
    assert capsys.readouterr().out == "", "nothing is measured again"


def test_what_another_process_is_at_is_left_to_it(measure, tmp_path):
    with claimed(tmp_path / "runs" / "two_colours_rotation_budget1_seed0.job", file=True):
        found = measure("rotation", "raw pixels", "--budget", "1", "--no-finetune")
    assert {one["row"] for one in found["records"]} == {"raw pixels"}


def test_what_is_lacking_of_a_run_that_is_gone_is_measured_of_the_weights_in_the_package(
    measure, monkeypatch, tmp_path
):
    found = measure("rotation", "--budget", "1", "--no-finetune")
    folder = tmp_path / "package"
    folder.mkdir()
    monkeypatch.setattr(bundled, "FOLDER", folder)
    monkeypatch.setattr(bundled, "recognition", lambda backbone: {})
    (run,) = tmp_path.glob("runs/*/run.json")
    bundled.put(backbones.load(run.parent), dict(found["runs"][0]))
    shutil.rmtree(run.parent)
    with monkeypatch.context() as patch:
        patch.setattr(train, "pretrain", lambda *a, **k: pytest.fail("it was trained again"))
        tuned = measure("rotation", "--budget", "1")
    assert list(long_runs.curve(tuned, "rotation", "finetune", data="two colours")) == [1]
    assert tuned["runs"] == found["runs"], "what made them is still said"
    (tmp_path / "long.json").unlink()
    assert measure("rotation", "--budget", "1", "--no-finetune")["runs"], "a new file has runs of its own"
    assert run.exists()


def test_a_stopped_run_goes_on(measure, monkeypatch, tmp_path):
    real = pretext.find("rotation").after_step

    class Stop(Exception):
        pass

    def stop(self, progress):
        real(self, progress)
        if progress > 0.6:
            raise Stop

    monkeypatch.setattr(
        train.TrainConfig, "__post_init__", lambda self: object.__setattr__(self, "checkpoint_every", 1)
    )
    with monkeypatch.context() as patch:
        patch.setattr(pretext.find("rotation"), "after_step", stop)
        with pytest.raises(Stop):
            measure("rotation", "--budget", "3", "--no-finetune")
    steps = []
    monkeypatch.setattr(
        pretext.find("rotation"), "after_step", lambda self, progress: steps.append(round(6 * progress))
    )
    found = measure("rotation", "--budget", "3", "--no-finetune")
    assert steps and min(steps) > 1, "it began anew"
    assert long_runs.curve(found, "rotation", data="two colours")


def test_every_row_of_an_ablation_is_a_variant_of_its_task():
    rows = LONG["rows"]()
    variants = [name for of in LONG["ABLATIONS"].values() for name in of]
    assert len(variants) == len(set(variants)) and not set(variants) & set(pretext.tasks())
    for name in variants:
        row = rows[name]
        varied, usual = row.recipe(1, 0).build(32).options(), store.recipe(row.task).build(32).options()
        assert {k: v for k, v in varied.items() if usual[k] != v} == row.options, (
            f"{name} changes something, and no more"
        )
        assert name.startswith(f"{row.task}, ")


def test_an_ablation_is_measured_beside_its_task(measure):
    found = measure("--ablation", "queue", "projector", "--budget", "1", "--no-finetune")
    options = {run["row"]: run["options"] for run in found["runs"]}
    assert options.keys() == {"moco, queue 64", "simclr, no projector"}
    assert options["moco, queue 64"]["queue"] == 64 and options["simclr, no projector"]["hidden"] == 0


def test_folders_of_runs_are_told_apart():
    given = type("Given", (), {"record": "world", "runs": Path("runs")})
    rows = LONG["rows"]()
    names = [LONG["folder_of"](LONG["Job"](row, budget, 0), given).name for row in rows.values() for budget in (1, 16)]
    assert len(names) == len(set(names)) and not any("." in name for name in names)


def test_a_folder_needs_a_name_and_a_row_must_be_known(monkeypatch, capsys):
    for words, told in ((["--data", "folder:x"], "--record"), (["rotatoin"], "rotatoin")):
        monkeypatch.setattr(sys, "argv", ["long.py", *words])
        with pytest.raises(SystemExit):
            LONG["main"]()
        assert told in capsys.readouterr().err


def test_the_rule_of_the_learning_rate():
    for name, row in LONG["rows"]().items():
        if row.task:
            short, long = row.recipe(1, 0).config, row.recipe(16, 0).config
            assert long == train.dataclasses.replace(short, steps=16 * short.steps), name


def test_seeds_and_budgets_come_in_the_order_of_their_cost():
    given = type("Given", (), {"budget": [4, 16], "seeds": 2, "rows": ["raw pixels", "rotation", "random weights"]})
    found = [str(job) for job in LONG["jobs"](given)]
    assert found[:2] == ["raw pixels, budget 0, seed 0", "random weights, budget 0, seed 0"]
    assert found.index("rotation, budget 4, seed 1") < found.index("rotation, budget 16, seed 0")
    assert not any(line.startswith("rotation, budget 0") for line in found)


# --- its figure --------------------------------------------------------------------------------------------------


def lines(axis):
    """{colour: points} of the drawn curves."""
    return {line.get_color(): line.get_xydata().tolist() for line in axis.lines if line.get_marker() not in (".", "*")}


def test_the_figure_shows_curves_floors_and_the_readers_own_point(file):
    about = {"classes": 10, "test_images": 2000}
    tuned = [entry("random weights", budget, 0, 0.5, "finetune") for budget in (1, 4)]
    long_runs.add(file, "world", about, records=[*tuned, entry("simclr", 4, 0, 0.8, "finetune")])
    figure = plots.more_training(long_runs.read(file), ["simclr"], live=("yours", 0.6, 0.55))
    left, right = figure.axes
    assert lines(left)[plots.PALETTE[0]] == [[4, pytest.approx(0.75)], [16, 0.9]]
    assert [line.get_ydata()[0] for line in left.lines if line.get_linestyle() == ":"] == [0.4]
    (star,) = [line for line in left.lines if line.get_marker() == "*"]
    assert star.get_xydata().tolist() == [[0.6, 0.55]]
    assert lines(right)[plots.PALETTE[1]] == [[1, 0.5], [4, 0.5]]
    words = {text.get_text() for axis in figure.axes for text in axis.texts}
    assert words == {"simclr", "raw pixels", "yours", "from scratch"}, "what wasn't measured isn't drawn"
    plt.close(figure)


def look_of(axis):
    """{name at the end of a curve: (colour, marker)}; the names must stand at their curves' heights."""
    low, high = axis.get_ylim()
    found = {}
    for text in axis.texts:
        near = [
            (abs((line.get_ydata()[-1] - low) / (high - low) - text.get_position()[1]), line)
            for line in axis.lines
            if line.get_marker() in plots.MARKERS[:7] and len(line.get_xdata())
        ]
        away, line = min(near, key=lambda one: one[0])
        if away < 0.01:
            found[text.get_text()] = line.get_color(), line.get_marker()
            assert tuple(text.get_color()) == pytest.approx(plots._legible(line.get_color()))
    return found


def test_a_row_looks_alike_in_every_panel(file):
    probed = {"mae": 0.5, "supervised": 0.9}
    tuned = {"rotation": 0.9, "mae": 0.2, "random weights": 0.4, "supervised": 0.7}
    new = [entry(row, 4, 0, value) for row, value in probed.items()]
    new += [entry(row, 4, 0, value, "finetune") for row, value in tuned.items()]
    new += [entry(row, 4, 0, value) for row, value in {"simclr, crop 1": 0.1, "simclr, crop 0.2": 0.2}.items()]
    long_runs.add(file, "world", {"classes": 10, "test_images": 2000}, records=new)
    found = long_runs.read(file)
    figure = plots.more_training(found, ["rotation", "mae"])  # rotation has no probe: it is drawn on the right alone
    left, right = map(look_of, figure.axes)
    assert left.keys() == {"mae", "all labels"} and right.keys() == {"mae", "all labels", "rotation", "from scratch"}
    assert all(right[name] == look for name, look in left.items())
    assert len(set(right.values())) == len(right)
    plt.close(figure)

    panels = {"Whole": {"0.7": "simclr", "1": "simclr, crop 1"}, "Alone": {"0.2": "simclr, crop 0.2"}}
    panels["Small"] = {"0.2": "simclr, crop 0.2", "whole": "simclr, crop 1", "as it is": "simclr"}
    figure = plots.variants(found, panels)
    whole, alone, small = map(look_of, figure.axes)
    assert (small["as it is"], small["whole"], small["0.2"]) == (whole["0.7"], whole["1"], alone["0.2"])
    assert len(set(small.values())) == 3, "and no two rows of a panel look alike"
    plt.close(figure)


def test_the_figure_in_words_and_each_kind_of_network_from_scratch(file):
    about = {"classes": 10, "test_images": 2000}
    scratch = ("random weights", "random weights, vit-tiny")
    tuned = [entry(row, 4, 0, 0.3 + len(row) / 100, "finetune") for row in ("mae", *scratch)]
    long_runs.add(file, "world", about, records=[*tuned, entry("mae", 4, 0, 0.6), entry("supervised", 4, 0, 0.99)])
    found = long_runs.read(file)
    assert long_runs.described(found, ["mae"], scratch=scratch) == (
        "Test accuracy against the training budget, 10 labels per class, by the linear probe on the left and fine-tuned on "
        "the right. The probe: mae: 0.60 at budget 4; raw pixels 0.40. Fine-tuned: mae: 0.33 at budget 4; from scratch: "
        "0.44 at budget 4; from scratch, vit-tiny: 0.54 at budget 4."
    )
    figure = plots.more_training(found, ["mae"], scratch=scratch)
    named = [{text.get_text() for text in axis.texts} for axis in figure.axes]
    assert named == [{"mae", "all labels", "raw pixels"}, {"mae", "from scratch", "from scratch, vit-tiny"}]
    plt.close(figure)


def test_variants_are_compared_over_the_seeds_that_all_have(file):
    about = {"classes": 10, "test_images": 2000}
    new = [
        entry("simclr, crop 0.2", 4, 1, 0.6),
        entry("simclr, crop 0.2", 64, 1, 0.9),
        entry("simclr, blurred", 4, 5, 0.1),
    ]
    long_runs.add(file, "world", about, records=new)
    found = long_runs.read(file)
    both = long_runs.paired(found, ["simclr", "simclr, crop 0.2"])
    assert {row: {b: some.values for b, some in of.items()} for row, of in both.items()} == {
        "simclr": {4: (0.8,)}, "simclr, crop 0.2": {4: (0.6,)}
    }, "seed 0 of budget 4, and budgets 16 and 64, are of one row alone"  # fmt: skip
    assert long_runs.paired(found, ["simclr", "simclr, blurred"]) == {"simclr": {}, "simclr, blurred": {}}
    panels = {"Crops": {"0.7": "simclr", "0.2": "simclr, crop 0.2"}, "Alone": {"as it is": "simclr"}}
    figure = plots.variants(found, panels)
    crops, alone = figure.axes
    assert [lines(crops)[color] for color in plots.PALETTE[:2]] == [[[4, 0.8]], [[4, 0.6]]]
    assert lines(alone)[plots.PALETTE[0]] == [[4, pytest.approx(0.75)], [16, 0.9]]
    assert [axis.get_title() for axis in figure.axes] == ["Crops", "Alone"] and crops.get_ylim() == alone.get_ylim()
    assert {text.get_text() for text in crops.texts} == {"0.7", "0.2", "raw pixels"}
    height = {text.get_text(): text.get_position()[1] for text in crops.texts}
    low, high = crops.get_ylim()
    assert height["0.7"] == pytest.approx((0.8 - low) / (high - low)), "a name stands beside its line"
    plt.close(figure)
    four = plots.variants(found, panels | {"A third": panels["Alone"]})
    assert [axis.get_title() for axis in four.axes] == ["Crops", "Alone", "A third"], "the place of a fourth is empty"
    plt.close(four)


def test_a_variant_stands_beside_its_task_and_nowhere_else(file):
    about = {"classes": 10, "test_images": 2000}

    def run(row, task, backbone="resnet-tiny"):
        return {"data": "world", "row": row, "budget": 4, "seed": 1, "task": task, "backbone": backbone}

    runs = [run("simclr", "simclr"), run("simclr, vit-tiny", "simclr", "vit-tiny")]
    runs += [run(row, "simclr") for row in ("simclr, crop 0.2", "simclr, crop 1")]
    new = [entry("simclr, crop 0.2", 4, 1, 0.6), entry("simclr, crop 0.2", 4, 1, 0.3, "knn")]
    new += [entry("simclr, crop 1", 16, 0, 0.7), entry("simclr, vit-tiny", 4, 1, 0.5)]
    long_runs.add(file, "world", about, runs=runs, records=new)
    found = long_runs.read(file)
    assert long_runs.variants_of(found) == {"simclr": ["simclr, crop 0.2", "simclr, crop 1"]}, (
        "another network is another row"
    )
    assert [line[0] for line in long_runs.table(found)] == ["", "raw pixels", "simclr", "simclr, vit-tiny"]
    assert long_runs.variants_table(found, [("probe", "linear", 10), ("kNN", "knn", 10)]) == [
        ["", "probe, budget 4", "probe, budget 16", "kNN, budget 4"],
        ["simclr", "0.800", "0.900", ""],
        ["simclr, crop 0.2", "0.600", "", ""],
        ["simclr, crop 1", "", "0.700", ""],
    ], "each column is of what was measured there; kNN was of one alone, and at one budget"  # fmt: skip


def test_no_two_of_many_curves_look_alike():
    axis = plots.training_budget({f"row {i}": {1: Summary((i / 20,))} for i in range(16)})
    looks = [(line.get_color(), line.get_marker()) for line in axis.lines if line.get_marker() != "."]
    assert len(looks) == len(set(looks)) == 16
    for text in axis.texts:  # names on white: a yellow one has to be read as well
        assert 1.05 / (plots._luminance(np.array(text.get_color())) + 0.05) > 2.99, text.get_text()
    assert plots._luminance(np.ones(3)) == pytest.approx(1) and plots._luminance(np.zeros(3)) == 0
    assert plots._legible("black") == (0, 0, 0) and plots._legible("#0072B2") == pytest.approx(to_rgb("#0072B2"))
    plt.close(axis.figure)


def test_names_at_the_end_do_not_touch():
    curves = {"far below": {1: Summary((0.0,))}} | {f"row {i}": {1: Summary((0.5 + i / 1000,))} for i in range(5)}
    axis = plots.training_budget(curves)
    heights = sorted(text.get_position()[1] for text in axis.texts)
    assert len(heights) == 6 and min(b - a for a, b in itertools.pairwise(heights)) > 0.05
    plt.close(axis.figure)


def test_a_name_that_has_no_room_beside_its_line_is_tied_to_it():
    ends = {"alone": 0.1, "upper": 0.501, "lower": 0.5, "first": 1.0}
    axis = plots.training_budget({name: {4: Summary((end,))} for name, end in ends.items()}, floors={"floor": 0.5005})
    height = {text.get_text(): text.get_position()[1] for text in axis.texts}
    assert height.keys() == {*ends, "floor"}
    ties = [(tie.xy1, tie.xy2[1]) for tie in axis.patches]
    assert ties == [((1, 0.5005), height["floor"]), ((4, 0.501), height["upper"])], (
        "the others stand beside their lines"
    )
    plt.close(axis.figure)


def test_names_at_the_end_stay_beside_the_axis():
    axis = plots.training_budget({f"row {i}": {1: Summary((0.9 - 0.4**i,))} for i in range(16)})
    heights = [text.get_position()[1] for text in sorted(axis.texts, key=lambda text: int(text.get_text()[4:]))]
    assert min(heights) > 0 and max(heights) <= 1 and heights == sorted(heights)
    assert min(b - a for a, b in itertools.pairwise(heights)) > 0.05
    plt.close(axis.figure)


def test_curves_in_words(file):
    found = long_runs.read(file)
    told = long_runs.words({row: long_runs.curve(found, row) for row in ("raw pixels", "simclr")})
    assert told == "simclr: 0.75 at budget 4, 0.90 at budget 16"


def test_a_budget_is_counted_in_pictures():
    usual = store.recipe("simclr").config
    assert store.budget_of("simclr", usual.steps, 2 * usual.batch_size) == 2
