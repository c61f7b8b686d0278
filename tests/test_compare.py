"""The comparison: every number where it belongs, nothing measured twice, nothing old taken for new."""

import dataclasses
import json

import pytest
import torch

from sslcourse import backbones, compare, comparison, evaluate, locking, store
from sslcourse.data.imageset import ImageSet
from sslcourse.data.splits import Splits
from sslcourse.errors import CourseError

FEW = {"seeds": 2, "labels": 2, "budgets": (1, 2), "finetune": (), "scratch": (), "steps": 2, "progress": False}


def toy(count=60, seed=0):
    """Pictures of three classes told by red, with a factor that green tells and one that nothing tells."""
    dice = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (count, 3, 16, 16), dtype=torch.uint8, generator=dice)
    labels, green = torch.arange(count) % 3, torch.randint(2, (count,), generator=dice)
    images[:, 0] = (labels * 80).to(torch.uint8)[:, None, None]
    images[:, 1] = (green * 200).to(torch.uint8)[:, None, None]
    factors = {"green": green, "size": torch.rand(count, generator=dice)}
    return ImageSet(images, labels, ("a", "b", "c"), "toy", factors=factors, factor_values={"green": ("no", "yes")})


@pytest.fixture(autouse=True)
def toy_world(tmp_path, monkeypatch):
    monkeypatch.setenv("SSLCOURSE_CACHE", str(tmp_path / "cache"))
    splits = Splits(toy(90).without_labels(), toy(60, 1), toy(30, 2), toy(30, 3), name="toy")
    monkeypatch.setattr(compare, "load", lambda data, size=None, labels=None: splits)
    return splits


def of(row, results):
    """All that the results hold of a row."""
    return results["runs"][row], [record for record in results["records"] if record["row"] == row]


@pytest.fixture
def counted(monkeypatch):
    """How many measurements were made."""
    calls = []
    for name in ("probe_accuracy", "finetune_accuracy", "factor_probe"):
        original = getattr(evaluate, name)
        monkeypatch.setattr(
            evaluate, name, lambda *a, original=original, name=name, **k: (calls.append(name), original(*a, **k))[1]
        )
    return calls


def test_each_number_is_the_one_that_evaluate_gives(toy_world):
    results = compare.run(["rotation"], **FEW)
    backbone = store.pretrained("rotation", toy_world.unlabeled, seed=1, steps=2)
    features = evaluate.Features.of(backbone, toy_world)
    assert compare.values(results, "rotation", "linear")[1] == evaluate.probe_accuracy(features, toy_world, 2, 1)
    assert compare.values(results, "rotation", "linear", 1)[1] == evaluate.probe_accuracy(features, toy_world, 1, 1)
    assert compare.values(results, "rotation", "knn")[1] == evaluate.probe_accuracy(features, toy_world, 2, 1, "knn")
    random = evaluate.Features.of(backbones.build(image_size=16, seed=1000), toy_world)
    assert compare.values(results, "random weights", "linear")[0] == evaluate.probe_accuracy(random, toy_world, 2, 0)
    factors = evaluate.factor_probe(features, toy_world)
    read = {name: compare.values(results, "rotation", f"factor {name}", 0)[1] for name in factors}
    assert read == {name: factor["score"] for name, factor in factors.items()}
    assert results["chance"] == {name: factor["chance"] for name, factor in factors.items()}
    paired = compare.gain(results, "rotation", "linear")
    ours, theirs = (compare.values(results, row, "linear") for row in ("rotation", "random weights"))
    assert paired.values == tuple(a - b for a, b in zip(ours, theirs, strict=True))
    lost = [one for one in results["records"] if (one["row"], one["seed"]) != ("random weights", 0)]
    assert compare.gain(results | {"records": lost}, "rotation", "linear").values == paired.values[1:], (
        "pairs are of a seed"
    )


def test_fine_tuning_is_beside_training_from_scratch(toy_world):
    few = FEW | {"seeds": 1, "finetune": (2,), "scratch": (1, 2)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare.train, "FINETUNE", compare.train.TrainConfig(steps=2, batch_size=4))
        patch.setattr(compare, "PASSES", 0)
        results = compare.run(["simclr"], **few)
    assert list(compare.curve(results, "random weights", "finetune")) == [1, 2]
    assert list(compare.curve(results, "simclr", "finetune")) == [2]
    assert compare.gain(results, "simclr", "finetune").values[0] == (
        compare.values(results, "simclr", "finetune")[0] - compare.values(results, "random weights", "finetune")[0]
    )
    assert compare.values(results, "raw pixels", "finetune") == []


def test_a_transformer_is_measured_against_a_random_transformer():
    results = compare.run(["mae"], **(FEW | {"seeds": 1}))
    assert set(results["runs"]) == {
        "raw pixels",
        "colour histogram",
        "random weights",
        "random weights, vit-tiny",
        "mae",
    }
    ours, theirs = (compare.values(results, row, "linear")[0] for row in ("mae", "random weights, vit-tiny"))
    assert compare.gain(results, "mae", "linear").values == (ours - theirs,)


@pytest.mark.commands
def test_nothing_that_stands_in_the_file_is_measured_again(tmp_path, counted):
    out = tmp_path / "results.json"
    first = compare.run(["rotation"], out=out, **FEW)
    once = len(counted)
    assert compare.run(["rotation"], out=out, **FEW) == first
    assert len(counted) == once
    more = compare.run(["rotation", "simclr"], out=out, **FEW)
    assert len(counted) == once + 2 * 4  # two seeds of two budgets, kNN and the factors
    assert of("rotation", more) == of("rotation", first)
    compare.run(["rotation"], out=out, **(FEW | {"seeds": 3, "budgets": (1, 2, 3)}))
    assert of("simclr", compare.read(out)) == of("simclr", more), "what wasn't asked for stays"


@pytest.mark.commands
def test_a_kill_loses_at_most_the_measurement_at_work(tmp_path, counted, monkeypatch):
    out, whole = tmp_path / "results.json", compare.run(["rotation"], **FEW)
    counted.clear()

    class Kill(Exception):
        pass

    def kill_at_the_tenth(*a, original=evaluate.probe_accuracy, **k):
        if len(counted) == 9:
            raise Kill
        return original(*a, **k)

    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "probe_accuracy", kill_at_the_tenth)
        with pytest.raises(Kill):
            compare.run(["rotation"], out=out, **FEW)
    assert compare.run(["rotation"], out=out, **FEW) == whole
    all_of_it = (
        2 * (4 * 3) + 2 * 2 + 2
    )  # runs of four rows; probed factors of two networks twice, of two pixel rows once
    assert len(counted) == all_of_it


@pytest.mark.commands
def test_other_weights_are_measured_again(tmp_path, counted, monkeypatch):
    out = tmp_path / "results.json"
    compare.run(["rotation"], out=out, **FEW)
    counted.clear()
    monkeypatch.setattr(store, "code_digest", lambda task: "new")
    compare.run(["rotation"], out=out, **FEW)
    assert len(counted) == 2 * 4, "the task's runs, and not the baselines'"
    assert compare.run(["rotation"], out=out, **(FEW | {"steps": 3}))["runs"]["rotation"]["0"]["steps"] == 3


def test_other_data_does_not_get_into_the_same_file(tmp_path):
    out = tmp_path / "results.json"
    compare.run(["rotation"], out=out, **FEW)
    before = out.read_bytes()
    with pytest.raises(CourseError, match="choose another file"):
        compare.run(["rotation"], "digits", out=out, **FEW)
    with pytest.raises(CourseError, match="labels"):
        compare.run(["rotation"], out=out, **(FEW | {"labels": 1}))
    assert out.read_bytes() == before


@pytest.mark.parametrize("content", ["{}", "[1]", "not json", '{"format": "another"}'])
def test_a_file_that_is_no_comparison_is_left_alone(tmp_path, content):
    out = tmp_path / "results.json"
    out.write_text(content)
    with pytest.raises(CourseError, match="choose another file"):
        compare.run(["rotation"], out=out, **FEW)
    assert out.read_text() == content


def test_a_task_that_refuses_the_images_is_left_out_and_says_why(toy_world, monkeypatch):
    gray = [ImageSet(p.images[:, :1].repeat(1, 3, 1, 1), p.labels, p.classes) for p in (toy_world.train,) * 4]
    monkeypatch.setattr(
        compare, "load", lambda data, size=None, labels=None: Splits(gray[0].without_labels(), *gray[1:])
    )
    results = compare.run(["rotation", "colorization"], **(FEW | {"seeds": 1}))
    assert "colorization" not in results["runs"] and "rotation" in results["runs"]
    assert "gray" in results["refused"]["colorization"]
    assert "colorization was left out" in compare.text(results)
    with pytest.raises(CourseError, match="none of the tasks"):
        compare.run(["colorization"], **FEW)


def test_what_cannot_be_measured_is_refused_before_anything_is_trained(toy_world, monkeypatch):
    for wrong, message in (
        ({"tasks": ["rotatoin"]}, "rotation"),
        ({"seeds": 0}, "one seed"),
        ({"labels": 100}, "smallest class has 20"),
    ):
        with pytest.raises(CourseError, match=message):
            compare.run(**({"tasks": ["rotation"]} | FEW | wrong))
    bare = Splits(*(part.without_labels() for part in (toy_world.unlabeled,) * 4), name="bare")
    monkeypatch.setattr(compare, "load", lambda data, size=None, labels=None: bare)
    with pytest.raises(CourseError, match="labelled"):
        compare.run(["rotation"], **FEW)
    assert not store.folder().exists()


def test_the_histogram_counts_colours_and_nothing_else():
    images = torch.randint(256, (5, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = compare.colour_histogram(images)
    for image, histogram in zip(images, found, strict=True):
        slow = torch.zeros(64)
        for y in range(8):
            for x in range(8):
                r, g, b = (int(v) // 64 for v in image[:, y, x])
                slow[16 * r + 4 * g + b] += 1 / 64
        torch.testing.assert_close(histogram, slow)
    mixed = images.flatten(2)[:, :, torch.randperm(64)].view_as(images)
    assert torch.equal(compare.colour_histogram(mixed), found), "where a pixel lies doesn't count"


def test_wide_features_are_narrowed_by_train_alone():
    features = evaluate.Features(*(torch.randn(n, 40, generator=torch.Generator().manual_seed(n)) for n in (30, 9, 8)))
    assert compare.narrowed(features, 40) is features
    narrow = compare.narrowed(features, 5)
    assert [tuple(part.shape) for part in (narrow.train, narrow.val, narrow.test)] == [(30, 5), (9, 5), (8, 5)]
    other = evaluate.Features(features.train, features.val * 2, features.test - 1)
    assert torch.equal(compare.narrowed(other, 5).train, narrow.train)


def test_the_table_says_what_was_measured(capsys):
    results = compare.run(["rotation", "simclr"], **FEW)
    cells = compare.table(results)
    assert [line[0] for line in cells][1:4] == ["raw pixels", "colour histogram", "random weights"]
    best, worse = (evaluate.Summary(tuple(compare.values(results, line[0], "linear"))).mean for line in cells[4:])
    assert best >= worse, "the best linear probe first"
    low, high = (100 * end for end in compare.gain(results, cells[4][0], "linear").interval)
    assert f"({low:+.1f} to {high:+.1f})" in cells[4][3]
    assert cells[3][3] == "", "random weights have nothing to be measured against"
    assert {line[0] for line in compare.matrix_table(results)[1:]} >= {"chance", "rotation", "raw pixels"}
    text = compare.text(results)
    assert "3 seeds" not in text and "2 seeds" in text and "green" in text
    rows = compare.markdown(cells).splitlines()
    assert len(rows) == len(cells) + 1 and len({row.count("|") for row in rows}) == 1
    json.dumps(results)


def test_the_toy_factors_are_read_where_they_are(toy_world):
    matrix = compare.matrix(compare.run([], **(FEW | {"seeds": 1})))
    assert matrix["colour histogram"]["green"].mean > 0.9
    assert abs(matrix["colour histogram"]["size"].mean) < 0.5


# --- the file ----------------------------------------------------------------------------------------------------


def nested(results):
    """The same results as the first format had them: values within runs."""
    runs = {row: {seed: dict(run) for seed, run in by_seed.items()} for row, by_seed in results["runs"].items()}
    for record in results["records"]:
        run, protocol = runs[record["row"]][str(record["seed"])], record["protocol"]
        if protocol.startswith("factor "):
            name = protocol.removeprefix("factor ")
            score = {"score": record["value"], "chance": results["chance"][name]}
            run.setdefault("factors", {})[name] = score
        else:
            run.setdefault(protocol, {})[str(record["labels"])] = record["value"]
    kept = {name: value for name, value in results.items() if name not in ("records", "chance", "test_images", "notes")}
    return kept | {"format": "sslcourse compare 1", "runs": runs}


def test_a_record_says_what_it_is_of(tmp_path):
    out = tmp_path / "results.json"
    results = compare.run(["rotation"], out=out, **FEW)
    assert json.loads(out.read_text()) == compare.read(out) == results
    assert all(set(record) == {"row", "seed", "protocol", "labels", "value"} for record in results["records"])
    places = [tuple(record.values())[:4] for record in results["records"]]
    assert len(set(places)) == len(places)
    assert sum('"row"' in line for line in out.read_text().splitlines()) == len(places), "a line for each"


def test_a_file_of_the_first_format_is_read_and_gone_on_with(tmp_path, counted):
    old, whole = tmp_path / "old.json", compare.run(["rotation"], **FEW)
    old.write_text(json.dumps(nested(whole)))
    counted.clear()
    found = compare.read(old)
    for row in whole["runs"]:
        for protocol in ("linear", "knn"):
            assert compare.values(found, row, protocol) == compare.values(whole, row, protocol)
            assert compare.values(nested(whole), row, protocol) == compare.values(whole, row, protocol)
    assert compare.matrix(found) == compare.matrix(whole) and compare.order(found) == compare.order(whole)
    assert compare.curve(found, "rotation", "linear")[1].values == compare.curve(whole, "rotation", "linear")[1].values
    again = compare.run(["rotation"], out=old, **FEW)
    assert not counted, "nothing was measured again"
    assert all(of(row, again) == of(row, found) for row in whole["runs"])


def test_two_comparisons_never_write_one_file(tmp_path):
    out = tmp_path / "results.json"
    with locking.claimed(out, file=True), pytest.raises(locking.Claimed, match="another run is writing"):
        compare.run(["rotation"], out=out, **FEW)
    assert not out.exists()


def test_budgets_that_the_data_cannot_give_are_named():
    results = compare.run([], **(FEW | {"seeds": 1, "budgets": (1, 2, 21, 50), "factors": False}))
    (note,) = results["notes"]
    assert (
        note == "The linear probe with 21, 50 labels per class was left out: the smallest class has 20 images in train."
    )
    assert note in compare.text(results)
    assert compare.run([], **(FEW | {"seeds": 1, "factors": False}))["notes"] == []


@pytest.mark.commands
def test_the_bar_ends_at_its_total(monkeypatch):
    bars = []

    class Bar(compare.tqdm):
        def __init__(self, *given, **options):
            super().__init__(*given, **options)
            bars.append(self)

    monkeypatch.setattr(compare, "tqdm", Bar)
    compare.run(["rotation", "simclr"], **(FEW | {"progress": True, "budgets": (1, 2, 3, 7)}))
    assert bars[0].n == bars[0].total and isinstance(bars[0].total, int)


def test_intervals_know_the_test_set_and_text_says_when_there_is_too_little():
    results = compare.run(["rotation"], **FEW)
    summary = compare.curve(results, "rotation", "linear")[2]
    assert results["test_images"] == summary.test_images == 30 and summary.half_width > 0
    assert compare.gain(results, "rotation", "linear").test_images == 30
    text = compare.text(results)
    assert "on 30 images" in text and "too few to tell: 2 seeds" in text and "one of 30 test images" in text


def test_a_class_without_images_is_named(toy_world, monkeypatch):
    parts = [ImageSet(p.images, p.labels, ("a", "b", "c", "nobody"), "toy") for p in (toy_world.train,) * 3]
    monkeypatch.setattr(
        compare, "load", lambda data, size=None, labels=None: Splits(toy_world.unlabeled, *parts, name="toy")
    )
    with pytest.raises(CourseError, match="no image of 'nobody'"):
        compare.run(["rotation"], **FEW)


# --- what a practitioner compares ----------------------------------------------------------------------------------


@pytest.fixture
def theirs(tmp_path):
    """Two files of published weights: of the course's own network, and of one that no task builds."""
    backbones.save(backbones.build(image_size=16, seed=77), tmp_path / "one.safetensors", image_size=16)
    torch.save(backbones.build("resnet18", stem="imagenet", seed=5).trunk.state_dict(), tmp_path / "two.pth")
    return [str(tmp_path / name) for name in ("one.safetensors", "two.pth")]


@pytest.mark.commands
def test_published_weights_are_rows_beside_own_pretraining_and_scratch(toy_world, theirs, tmp_path, counted, capsys):
    out, few = tmp_path / "results.json", FEW | {"factors": False}
    results = compare.run(["rotation"], published=theirs, out=out, **few)
    assert list(results["runs"]) == ["raw pixels", "colour histogram", "random weights", "rotation", *theirs]
    features = evaluate.Features.of(backbones.load(theirs[0]), toy_world)
    assert compare.values(results, theirs[0], "linear") == [
        evaluate.probe_accuracy(features, toy_world, 2, seed) for seed in (0, 1)
    ]
    assert compare.architecture(results, theirs[1]) == "resnet18"
    assert compare.gain(results, theirs[0], "linear") is not None and compare.gain(results, theirs[1], "linear") is None
    counted.clear()
    assert compare.run(["rotation"], published=theirs, out=out, **few) == results and not counted
    backbones.save(backbones.build(image_size=16, seed=78), tmp_path / "one.safetensors", image_size=16)
    again = compare.run(["rotation"], published=theirs, out=out, **few)
    assert len(counted) == 2 * 3, "another file under the same name is measured again, and nothing else"
    assert of(theirs[1], again) == of(theirs[1], results)


def test_published_weights_are_read_at_the_stage_that_evaluate_reads(toy_world, tmp_path, counted, capsys):
    network = backbones.build(image_size=16, seed=77)
    backbones.save(network, tmp_path / "one.safetensors", image_size=16, stage="2")  # where their own probe read them
    name, few = str(tmp_path / "one.safetensors"), FEW | {"factors": False, "finetune": ()}
    for asked, stage in ((None, 2), (3, 3)):
        results = compare.run([], published=[name], stage=asked, out=tmp_path / "results.json", **few)
        features = evaluate.Features.of(network, toy_world, stage=stage)
        want = [evaluate.probe_accuracy(features, toy_world, 2, seed) for seed in (0, 1)]
        assert compare.values(results, name, "linear") == want, stage
    results = compare.run([], published=[name], stage="class", **few)
    assert name not in results["runs"] and "has no class token" in compare.text(results)


def test_features_of_published_weights_are_computed_once(theirs, monkeypatch):
    original, taken = compare.features_of, []
    monkeypatch.setattr(compare, "features_of", lambda row, *rest: (taken.append(row.name), original(row, *rest))[1])
    compare.run([], published=theirs[:1], **(FEW | {"factors": False}))
    assert taken.count(theirs[0]) == 1 and taken.count("random weights") == 2


def test_weights_that_do_not_take_these_images_are_left_out_and_named(tmp_path):
    backbones.save(backbones.build("vit-tiny", image_size=40), tmp_path / "vit.safetensors")  # patches of 5 pixels
    results = compare.run([], published=[tmp_path / "vit.safetensors"], **(FEW | {"factors": False}))
    name = str(tmp_path / "vit.safetensors")
    assert name not in results["runs"] and f"{name} was left out" in compare.text(results)
    with pytest.raises(CourseError, match="nowhere"):
        compare.run([], published=["nowhere"], **FEW)


@pytest.mark.commands
def test_another_backbone_stem_batch_and_options(toy_world):
    few = FEW | {"seeds": 1, "factors": False}
    asked = {"backbone": "resnet18", "stem": "tiny", "batch_size": 8}
    results = compare.run(["rotation"], **asked, options={"rotation": {"hidden": 16}}, **few)
    assert list(results["runs"]) == ["raw pixels", "colour histogram", "random weights, resnet18", "rotation"]
    run = results["runs"]["rotation"]["0"]
    assert run["backbone"] == "resnet18" and run["batch_size"] == 8
    mine = store.pretrained("rotation", toy_world.unlabeled, seed=0, steps=2, hidden=16, **asked)
    assert mine.stem == "tiny" and mine.arch == "resnet18"
    features = evaluate.Features.of(mine, toy_world)
    assert compare.values(results, "rotation", "linear") == [evaluate.probe_accuracy(features, toy_world, 2, 0)]
    random = evaluate.Features.of(backbones.build("resnet18", stem="tiny", image_size=16, seed=1000), toy_world)
    assert compare.values(results, "random weights, resnet18", "linear")[0] == (
        evaluate.probe_accuracy(random, toy_world, 2, 0)
    )
    with pytest.raises(CourseError, match="did you mean 'resnet18'"):
        compare.run([], backbone="resnet-18", **few)


def test_another_stem_is_measured_again(tmp_path, counted):
    few = FEW | {"seeds": 1, "factors": False, "out": tmp_path / "results.json"}
    compare.run([], backbone="resnet18", **few)
    counted.clear()
    compare.run([], backbone="resnet18", stem="tiny", **few)
    assert len(counted) == 3  # the network of chance: two numbers of labels and kNN


def made_up(images=10000, **rows):
    """Results with these accuracies, a list for each "row protocol"; rows that begin with random or raw are baselines."""
    records, runs = [], {}
    for name, values in rows.items():
        row, protocol = name.rsplit("_", 1)
        row = {"random": "random weights", "raw": "raw pixels"}.get(row, row)
        runs.setdefault(row, {str(seed): {"backbone": "resnet-tiny"} for seed in range(len(values))})
        records += [compare.record(row, seed, protocol, 10, value) for seed, value in enumerate(values)]
    tasks = [row for row in runs if row not in ("random weights", "raw pixels")]
    about = {"tasks": tasks, "labels": 10, "test_images": images, "format": compare.FORMAT}
    return about | {"runs": runs, "records": records}


@pytest.mark.parametrize(
    ("results", "sentence"),
    [
        (
            made_up(a_linear=[0.8, 0.81, 0.8], b_finetune=[0.6, 0.61, 0.62], random_finetune=[0.4, 0.41, 0.4]),
            "Use a with a linear probe (0.803), against b with fine-tuning (0.610) as the next best "
            "(10 labels per class, 10,000 test images, 3 seeds).",
        ),
        (
            made_up(30, a_linear=[0.8, 0.81, 0.8], b_linear=[0.79, 0.8, 0.79], random_finetune=[0.2, 0.21, 0.2]),
            "Too few to tell: a with a linear probe (0.803) is highest, and b with a linear probe (0.793) can't be told "
            "from it (10 labels per class, 30 test images, 3 seeds; "
            "`sslcourse evaluate --folds 5` would test on every label).",
        ),
        (
            made_up(30, a_linear=[0.8, 0.81], random_finetune=[0.8, 0.79], raw_linear=[0.7, 0.71]),
            "Too few to tell: a with a linear probe (0.805) is highest, and training from scratch (0.795), raw pixels with "
            "a linear probe (0.705) can't be told from it (10 labels per class, 30 test images, 2 seeds; "
            "`sslcourse evaluate --folds 5` would test on every label); so pretraining "
            "isn't shown to help here.",
        ),
        (made_up(a_linear=[0.9], b_linear=[0.1]), "Too few to tell: a"),
        (
            made_up(random_finetune=[0.9, 0.9, 0.91], a_knn=[0.5, 0.5, 0.51]),
            "Use training from scratch (0.903), against a with nearest neighbours (0.503) as the next best",
        ),
        (made_up(), "Nothing was measured"),
    ],
)
def test_it_ends_with_a_sentence_on_what_to_use(results, sentence):
    assert compare.advice(results).startswith(sentence)


def test_the_text_has_the_test_size_intervals_and_the_advice():
    results = made_up(200, a_linear=[0.8, 0.81, 0.8], random_finetune=[0.4, 0.41, 0.4])
    text = compare.text(results | {"data": "mine"})
    low, high = compare.curve(results, "a", "linear")[10].interval
    assert "on 200 images" in text and f"{low:.3f} to {high:.3f}" in text
    assert text.splitlines()[-1] == compare.advice(results)


def test_what_was_measured_on_other_labels_is_not_beside_these(toy_world):
    """Of rows that aren't measured this time, too; a file from before labels were looked at is gone on with."""
    on, earlier = compare._data_digests(toy_world)
    labels = toy_world.train.labels.flip(0)
    other = dataclasses.replace(toy_world, train=dataclasses.replace(toy_world.train, labels=labels))
    runs = {row: {"0": {"key": f"{row} on {data}", "backbone": ""}} for row, data in (("new", on), ("old", earlier))}
    runs["other"] = {"0": {"key": f"x on {compare._data_digests(other)[0]}", "backbone": ""}}
    results = {"runs": runs, "tasks": sorted(runs), "published": []}
    results["records"] = [comparison.record(row, 0, "linear", 1, 0.5) for row in runs]
    (sentence,) = compare._forget_other_data(results, toy_world)
    assert sentence.startswith("What was known of other is of other images or labels")
    assert set(results["runs"]) == {"new", "old"} == {one["row"] for one in results["records"]} == set(results["tasks"])
    assert compare._forget_other_data(results, toy_world) == []
    row = compare.Row("new", pixels=compare.raw_pixels)
    for data, kept in (((on, earlier), True), (compare._data_digests(other), False)):
        key = f"new {torch.__version__} on {on}"
        found = results | {"runs": {"new": {"0": {"key": key, "backbone": ""}}}}
        compare._forget_other_weights(found, row, 0, toy_world, data, None)
        assert bool(found["records"] and any(one["row"] == "new" for one in found["records"])) == kept


@pytest.mark.parametrize(
    "content",
    [
        "{}",
        '{"runs": [], "records": []}',
        '{"runs": {"a": {"0": 1}}, "records": []}',
        '{"runs": {}, "records": [{"row": 1}]}',
        '{"runs": {}, "records": [{"row": "a", "seed": 0, "protocol": "knn", "labels": 3, "value": "high"}]}',
    ],
)
def test_a_damaged_comparison_is_one_sentence(tmp_path, content):
    (tmp_path / "r.json").write_text(f'{{"format": "{comparison.FORMAT}", {content.strip()[1:]}'.replace(", }", "}"))
    with pytest.raises(CourseError, match="is damaged.*choose another file") as error:
        compare.read(tmp_path / "r.json")
    assert "\n" not in str(error.value)
