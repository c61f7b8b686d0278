"""The demo on other people's folders: few pictures, unequal classes, splits that are missing, names that break figures."""

import json

import numpy as np
import pytest
from PIL import Image

from sslcourse import compare, demo, evaluate, locking, train
from sslcourse.errors import CourseError

QUICK = train.TrainConfig(steps=1, batch_size=4)


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    """Fine-tuning of one step; what it gives doesn't matter here."""
    monkeypatch.setenv("SSLCOURSE_CACHE", str(tmp_path / "cache"))
    finetune = train.finetune
    monkeypatch.setattr(
        train, "finetune", lambda backbone, images, *config, **options: finetune(backbone, images, QUICK, **options)
    )


def folder(root, **classes):
    """A folder for each class of {name: how many pictures}, of noise that the folder's name decides."""
    generator = np.random.default_rng(list(root.name.encode()))
    for name, count in classes.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(root / name / f"{i}.png")
    return f"folder:{root}"


def measured(data, out, **options):
    return demo.run(data, **{"seeds": 2, "steps": 1, "out": out, "size": 8, "device": "cpu"} | options)


@pytest.mark.commands
@pytest.mark.parametrize(
    ("counts", "labels"),
    [((3, 3), 1), ((7, 7), 4), ((12, 12), 7), ((12, 3, 7), 1), ((20, 20, 20), 10)],
)
def test_a_folder_of_any_size_gives_a_table_and_a_figure(tmp_path, counts, labels):
    data = folder(tmp_path / "pictures", **{f"class {i}": count for i, count in enumerate(counts)})
    results = measured(data, tmp_path / "out")
    assert results["labels_per_class"] == labels
    assert all(
        set(curve) == {str(b) for b in {1, 5, 10, labels} if b <= labels} for curve in results["curves"].values()
    )
    assert len(results["table"]) == 4 and (tmp_path / "out" / "figure.png").stat().st_size > 10_000
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == results
    assert results["test_images"] >= len(counts)
    text = demo.text(results)
    assert "too few to tell: 2 seeds" in text and f"{results['test_images']} test images" in text
    low, high = results["gain_of_pretraining"]["interval95"]
    assert -1 <= low <= high <= 1


def test_classes_too_small_for_three_splits_get_a_sentence(tmp_path):
    data = folder(tmp_path / "pictures", a=2, b=2)
    with pytest.raises(CourseError, match="(val|test) has none; with three different images or more of each class"):
        measured(data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("missing", ["val", "test"])
def test_a_split_that_is_missing_is_cut_from_train(tmp_path, missing):
    for split in {"train", "val", "test"} - {missing}:
        folder(tmp_path / "pictures" / split, a=12 if split == "train" else 2, b=13 if split == "train" else 3)
    results = measured(f"folder:{tmp_path / 'pictures'}", tmp_path / "out", seeds=1)
    assert results["labels_per_class"] == 10 and results["gain_of_pretraining"]["interval95"] is None
    assert "too few to tell: 1 seed" in demo.text(results)
    rows = [line for line in demo.text(results).splitlines() if line.startswith("  ")]
    assert rows and not any("±" in row for row in rows), "one seed has no spread, and 0 is not it"


def test_one_class_alone_gets_a_sentence(tmp_path):
    with pytest.raises(CourseError, match="two classes"):
        measured(folder(tmp_path / "pictures", alone=12), tmp_path / "out")


def test_names_that_are_formulas_end_up_in_the_figure(tmp_path):
    data = folder(tmp_path / "pictures", **{"$10_$20": 5, "$^$": 5, "_hidden": 5, "名前" * 40: 5})
    measured(data, tmp_path / "out", seeds=1)
    assert (tmp_path / "out" / "figure.png").exists()


def test_no_steps_are_refused_and_not_taken_for_the_usual_number(tmp_path):
    with pytest.raises(CourseError, match="steps must be a whole number of at least 1, and is 0"):
        measured(folder(tmp_path / "pictures", a=5, b=5), tmp_path / "out", steps=0)


@pytest.mark.parametrize("seeds", [0, -1, 1.5, True, "2", None])
def test_a_number_of_seeds_that_is_none_is_refused(tmp_path, seeds):
    with pytest.raises(CourseError, match="at least one seed"):
        measured("digits", tmp_path / "out", seeds=seeds)


def test_a_folder_that_another_run_writes_is_left_alone(tmp_path):
    data = folder(tmp_path / "pictures", a=5, b=5)
    with locking.claimed(tmp_path / "out"), pytest.raises(locking.Claimed, match="another run is writing"):
        measured(data, tmp_path / "out")


@pytest.mark.parametrize("name", ["results.json", "figure.png"])
def test_what_somebody_else_wrote_is_left_alone(tmp_path, name):
    data = folder(tmp_path / "pictures", a=5, b=5)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("mine")
    with pytest.raises(CourseError, match=f"{name} is there already and isn't"):
        measured(data, tmp_path / "out")
    assert (tmp_path / "out" / name).read_text() == "mine"


@pytest.mark.parametrize("counts", [(3, 3), (12, 12), (12, 3, 7)])
def test_a_comparison_of_a_small_folder_says_what_it_left_out(tmp_path, counts, monkeypatch):
    monkeypatch.setattr(evaluate, "finetune_accuracy", lambda *given, **options: 0.5)
    data = folder(tmp_path / "pictures", **{f"class {i}": count for i, count in enumerate(counts)})
    most = evaluate.labels_at_most(compare.load(data, size=8))
    options = {"size": 8, "seeds": 1, "steps": 1, "labels": most, "progress": False}
    results = compare.run(["rotation"], data, **options)
    assert list(compare.curve(results, "rotation", "linear")) == sorted({1, most} | {b for b in (2, 5) if b < most})
    assert list(compare.curve(results, "rotation", "finetune")) == [most]
    text = compare.text(results)
    assert "with 10, 20, 50, 100, 500 labels per class was left out" in text.replace("5, 10", "10").replace(
        "2, 10", "10"
    )
    assert f"the smallest class has {most} image" in text
    with pytest.raises(CourseError, match=f"smallest class has {most}"):
        compare.run(["rotation"], data, **options | {"labels": most + 1})
