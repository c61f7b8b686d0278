"""From a backbone and a few labels to a classifier in a file, and to a class for every picture of a folder."""

import copy
import csv
import dataclasses
import json
import math
import shutil
import sys

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch.nn import functional

from sslcourse import backbones, classify, evaluate, files, locking, record, train, weights
from sslcourse.classify import calibration, featurefile, fitting, folds, heap, pages
from sslcourse.classify.measures import Answers, Measures, wilson_interval
from sslcourse.data.imageset import ImageSet
from sslcourse.data.splits import Splits
from sslcourse.errors import CourseError
from sslcourse.weights import classifiers

COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (40, 60, 220)}
SETTINGS = {"linear": (0.01, 0.1), "knn": (1, 3)}
FEW_STEPS = train.TrainConfig(steps=4, batch_size=8, learning_rate=3e-3, weight_decay=0.05)


def coloured(count, seed=0, side=16):
    """`count` noisy pictures of each colour: a network with random weights can tell them apart."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.tensor(list(COLOURS.values())).view(-1, 1, 3, 1, 1)
    noise = torch.randint(-60, 60, (len(COLOURS), count, 3, side, side), generator=generator)
    images = (base + noise).clamp(0, 255).to(torch.uint8).flatten(0, 1)
    labels = torch.arange(len(COLOURS)).repeat_interleave(count)
    order = torch.randperm(len(labels), generator=generator)
    return ImageSet(images[order], labels[order], classes=tuple(COLOURS), name="colours")


@pytest.fixture(scope="module")
def images():
    return coloured(12)


@pytest.fixture(scope="module")
def network():
    return backbones.build("resnet-tiny", image_size=16, seed=0)


# Calibration.


def test_temperature_is_the_minimum_that_a_grid_finds():
    generator = torch.Generator().manual_seed(1)
    logits = 6 * torch.randn(80, 4, generator=generator)
    labels = torch.where(
        torch.rand(80, generator=generator) < 0.6, logits.argmax(1), torch.randint(0, 4, (80,), generator=generator)
    )
    target = torch.full((80, 4), 1 / 84).scatter(1, labels[:, None], 81 / 84)
    grid = torch.logspace(math.log10(0.02), math.log10(50), 4000)
    losses = torch.stack([functional.cross_entropy(logits / t, target) for t in grid])
    assert calibration.fit_temperature(logits, labels) == pytest.approx(grid[losses.argmin()].item(), rel=5e-3)


def test_overconfident_scores_are_softened_and_timid_ones_sharpened():
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(4000, 3, generator=generator)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator).flatten()  # logits are true at T = 1
    for scale in (0.25, 1.0, 5.0):
        assert calibration.fit_temperature(scale * logits, labels) == pytest.approx(scale, rel=0.1)
    before = calibration.expected_calibration_error((5 * logits).softmax(1), labels)
    assert before > 0.2 > 0.05 > calibration.expected_calibration_error(logits.softmax(1), labels)


def test_a_few_right_pictures_do_not_make_certain():
    logits = torch.tensor([[2.0, 0.0], [0.0, 2.0], [3.0, 0.0]])
    t = calibration.fit_temperature(logits, torch.tensor([0, 1, 0]))
    assert (logits / t).softmax(1).max() < 0.95


def test_calibration_error_is_that_of_a_loop():
    generator = torch.Generator().manual_seed(3)
    probabilities = (3 * torch.randn(200, 5, generator=generator)).softmax(1)
    labels = torch.randint(0, 5, (200,), generator=generator)
    want = 0.0
    for b in range(10):
        inside = [
            (p.max().item(), (p.argmax() == y).item())
            for p, y in zip(probabilities, labels, strict=True)
            if b / 10 < p.max() <= (b + 1) / 10
        ]
        if inside:
            want += abs(sum(c for c, _ in inside) - sum(r for _, r in inside)) / 200
    assert calibration.expected_calibration_error(probabilities, labels, 10) == pytest.approx(want)
    certain = torch.eye(5)[labels]
    assert calibration.expected_calibration_error(certain, labels) == 0


@pytest.mark.parametrize(
    ("logits", "labels", "words"),
    [
        (torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), "at least one picture"),
        (torch.zeros(4), torch.zeros(4, dtype=torch.int64), r"\(N, C\)"),
        (torch.zeros(4, 2), torch.zeros(3, dtype=torch.int64), r"\(3,\)"),
        (torch.full((4, 2), torch.nan), torch.zeros(4, dtype=torch.int64), "4 of 4 pictures aren't finite"),
    ],
)
def test_calibration_refuses(logits, labels, words):
    with pytest.raises(CourseError, match=words):
        calibration.fit_temperature(logits, labels)


# Measures.


def test_measures_are_counted_by_hand():
    labels, predicted = torch.tensor([0, 0, 0, 1, 1, 2]), torch.tensor([0, 0, 1, 1, 0, 1])
    measures = Measures.of(predicted, labels, ("a", "b", "c"))
    assert measures.confusion.tolist() == [[2, 1, 0], [1, 1, 0], [0, 1, 0]]
    assert measures.accuracy == pytest.approx(0.5) and measures.count == 6
    a, b, c = measures.per_class()
    assert (a["precision"], a["recall"], a["images"]) == (pytest.approx(2 / 3), pytest.approx(2 / 3), 3)
    assert (b["precision"], b["recall"]) == (pytest.approx(1 / 3), pytest.approx(1 / 2))
    assert math.isnan(c["precision"]) and c["recall"] == 0  # never named
    assert measures.as_json()["per_class"][2]["precision"] is None
    assert "1 of a were called b" in measures.text()


def test_the_confusion_matrix_is_shown_where_classes_are_few():
    labels = torch.tensor([0, 0, 0, 1, 1, 2])
    measures = Measures.of(torch.tensor([0, 0, 1, 1, 0, 1]), labels, ("a", "b", "c"))
    table = measures.by_class().splitlines()
    assert [line.split()[4:] for line in table[1:4]] == [
        ["1", "2", "1", "0"],
        ["2", "1", "1", "0"],
        ["3", "0", "1", "0"],
    ]
    many = Measures.of(torch.arange(13), torch.arange(13), tuple("abcdefghijklm"))
    assert all(len(line.split()) == 4 for line in many.by_class().splitlines())


def test_answers_of_several_models_are_no_more_pictures():
    labels = torch.tensor([0, 0, 0, 1, 1, 2])
    named = torch.stack([torch.tensor([0, 0, 1, 1, 0, 1]), torch.tensor([0, 0, 0, 1, 0, 2])])
    measures = Measures.of(named, labels, ("a", "b", "c"))
    assert measures.confusion.tolist() == [[5, 1, 0], [2, 2, 0], [0, 1, 1]]
    assert measures.count == 6 and measures.accuracy == pytest.approx(8 / 12)
    assert measures.interval == pytest.approx(wilson_interval(4, 6))
    assert [row["images"] for row in measures.per_class()] == [3, 2, 1]
    assert "2 of 4 answers about b were a" in measures.text() and measures.as_json()["models"] == 2


def test_the_interval_of_a_share():
    # from the formula with z = 1.959964, by hand
    assert wilson_interval(8, 10) == pytest.approx((0.4901625, 0.9433178), abs=1e-6)
    low, high = wilson_interval(40, 40)
    assert high == 1 and 0.9 < low < 0.92  # every picture right is not certainty
    assert all(map(math.isnan, wilson_interval(0, 0)))


# Folds.


def test_folds_hold_every_picture_once_and_keep_groups_together():
    labels = torch.arange(3).repeat(20)
    groups = torch.arange(60) // 4
    seen = []
    for learned, held in folds.parts(labels, groups, 5, seed=0):
        assert not set(groups[learned].tolist()) & set(groups[held].tolist())
        assert len(labels[held].unique()) == 3
        seen += held.tolist()
    assert sorted(seen) == list(range(60))


def test_identical_pictures_are_never_on_both_sides(images):
    double = ImageSet(images.images.repeat(2, 1, 1, 1), images.labels.repeat(2), classes=images.classes)
    groups = folds.Folds.of(double).groups
    assert torch.equal(groups[:36], groups[36:])
    named = torch.arange(72)
    named[36] = 1  # the copy of picture 0 is named with picture 1: so 0, 1 and both copies are one group
    for joined in (
        folds.Folds.of(double, groups=named).groups,
        folds.Folds.of(ImageSet(double.images, double.labels, double.classes, groups=named)).groups,
    ):
        assert joined[0] == joined[36] == joined[1] == joined[37] != joined[2]


def test_what_belongs_together_is_no_evidence_of_its_own(images):
    """Twelve pictures of each of three colours, in groups of three: as sure as twelve pictures, not as thirty-six."""
    order = images.labels.argsort()
    grouped = ImageSet(images.images[order], images.labels[order], images.classes, groups=torch.arange(36) // 3)
    backbone = backbones.build("resnet-tiny", image_size=16, seed=0)
    fitted = classify.fit(backbone, grouped, protocol="linear", settings=(0.1,), device="cpu")
    assert fitted.folds == 2 and fitted.measures.independent == 12
    assert fitted.measures.interval == wilson_interval(12 * fitted.measures.accuracy, 12)
    assert "36 images, in groups that count as 12" in fitted.measures.text()
    assert fitted.measures.as_json()["independent"] == 12
    summary = classify.label_efficiency(backbone, grouped, settings=(0.1,), seeds=2, device="cpu")[None]
    assert summary.test_images == 12 and "one of 12 test images" in summary.caution


def test_few_labels_of_each_class_within_a_fold():
    cut = folds.Folds(torch.arange(3).repeat(20), torch.arange(60), ("a", "b", "c"), 4, seed=1)
    learned, _ = next(cut.parts())
    two, five = cut.few(learned, 2, 0), cut.few(learned, 5, 0)
    assert [int((cut.labels[two] == c).sum()) for c in range(3)] == [2, 2, 2]
    assert set(two.tolist()) <= set(five.tolist()) <= set(learned.tolist())
    assert set(two.tolist()) != set(cut.few(learned, 2, 1).tolist())
    with pytest.raises(CourseError, match="99 labels per class were asked for, and of 'a' a fold leaves 15"):
        cut.few(learned, 99, 0)


class Watching:
    """Learns nothing, and notes what it was shown and asked."""

    settings = (1, 2, 3)

    def __init__(self, right=2):
        self.seen, self.right = [], right

    def make(self, chosen, setting):
        def scores(numbers):
            self.seen.append((setting, set(chosen.tolist()), set(numbers.tolist())))
            return torch.eye(3)[numbers % 3] * (1 if setting == self.right else -1)

        return type("Judge", (), {"scores": staticmethod(scores)})


def test_nothing_is_asked_about_what_was_learned_from_and_choices_stay_within_the_fold():
    groups = torch.arange(60) // 3 % 15
    cut = folds.Folds(torch.arange(60) % 3, groups, ("a", "b", "c"), 3, seed=0)
    learner = Watching()
    logits, fold_of = cut.judged(learner, learner.settings)
    assert torch.equal(logits.argmax(1), cut.labels), "the setting that is right on the inner folds was taken"
    group = lambda numbers: {int(groups[i]) for i in numbers}  # noqa: E731
    assert all(not group(learned) & group(asked) for _, learned, asked in learner.seen)
    outer = [seen for seen in learner.seen if len(seen[1] | seen[2]) == 60]
    assert len(outer) == 3 and all(setting == 2 for setting, _, _ in outer)
    for fold, (_, _, held) in enumerate(outer):
        assert held == set((fold_of == fold).nonzero().flatten().tolist())
        inner = learner.seen[fold * 10 : fold * 10 + 9]  # three settings on three inner folds, before the outer model
        assert not any((learned | asked) & held for _, learned, asked in inner)
    learner = Watching()
    cut.judged(learner, learner.settings, per_class=1)  # too few to choose among settings: the one in the middle
    assert [setting for setting, _, _ in learner.seen] == [2, 2, 2]


def test_accuracy_against_labels_by_folds(images, network):
    found = classify.label_efficiency(
        network, images, (1, 4, None), protocol="linear", settings=(0.1,), folds=3, seeds=2, device="cpu"
    )
    assert list(found) == [1, 4, None] and all(len(summary.values) == 2 for summary in found.values())
    assert found[None].mean >= found[1].mean and found[None].test_images == 36
    whole = classify.fit(network, images, protocol="linear", settings=(0.1,), folds=3, seed=1, device="cpu")
    assert found[None].values[1] == pytest.approx(whole.measures.accuracy), "one implementation"
    drawn = []
    classify.label_efficiency(
        lambda seed: drawn.append(seed) or network, images, protocol="knn", settings=(1,), seeds=[3, 5], device="cpu"
    )
    assert drawn == [3, 5]
    with pytest.raises(CourseError, match="at least one number of labels per class"):
        classify.label_efficiency(network, images, ())


def test_a_class_that_a_few_pictures_lack_is_not_named_and_nothing_breaks(images, network):
    features = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    learner = fitting._Linear(network, features, torch.tensor([0, 2, 0, 2, 0, 2, 2, 2]), 3)
    named = learner.make(torch.arange(8), 0.1).scores(torch.arange(8))
    assert named.shape == (8, 3) and set(named.argmax(1).tolist()) <= {0, 2}
    assert set(learner.make(torch.tensor([1, 3]), 0.1).scores(torch.arange(8)).argmax(1).tolist()) == {2}


@pytest.mark.parametrize("protocol", ["linear", "knn"])
def test_a_frozen_classifier_learns_and_keeps_the_backbone(images, network, protocol):
    before = {name: t.clone() for name, t in network.state_dict().items()}
    fitted = classify.fit(network, images, protocol=protocol, settings=SETTINGS[protocol], device="cpu")
    assert fitted.measures.accuracy > 0.9 and fitted.measures.count == 36 and fitted.folds == 5
    assert all(torch.equal(t, before[name]) for name, t in network.state_dict().items())
    fresh = coloured(10, seed=9)
    named = fitted.model.logits(fresh.images, device="cpu").argmax(1)
    assert (named == fresh.labels).float().mean() > 0.9


def test_the_temperature_fits_the_setting_that_the_model_has():
    """Folds that choose other penalties give logits of other scales, and a temperature of the mixture fits none of them."""
    generator = torch.Generator().manual_seed(4)
    labels = torch.arange(4).repeat(20)
    features = torch.randn(80, 40, generator=generator) + functional.one_hot(labels, 4).repeat(1, 10) * 0.35
    pixels = torch.randint(0, 256, (80, 3, 8, 8), generator=generator, dtype=torch.uint8)
    noisy = ImageSet(pixels, labels, classes=tuple("abcd"))
    learner = fitting._Linear(backbones.build("resnet-tiny", image_size=8, seed=0), features, labels, 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "_learner", lambda *given: learner)
        fitted = classify.fit(learner.backbone, noisy, protocol="linear", device="cpu")
    cut = folds.Folds.of(noisy)
    inner = {cut.chosen(learner, learner.settings, learned) for learned, _ in cut.parts()}
    alike, fold_of = cut.judged(learner, (fitted.setting,))
    assert inner != {fitted.setting}  # otherwise this tests nothing
    assert fitted.model.temperature == pytest.approx(calibration.fit_temperature(alike, labels))
    assert fitted.error == pytest.approx(fitting._calibration_error(alike, labels, fold_of))


def test_no_class_is_impossible_for_neighbours_and_files_without_smoothing_stay_as_they_were(tmp_path, images, network):
    made = classify.fit(network, images, protocol="knn", settings=(3,), device="cpu").model
    votes = made.logits(images.images, device="cpu").exp()
    assert torch.allclose(votes.sum(1), torch.ones(len(images))) and votes.min() > 1 / 7  # one of 3 + 3 votes, at least
    made.head.smoothing, path = 0.0, tmp_path / "earlier.safetensors"
    bare = made.logits(images.images, device="cpu")
    assert torch.equal(bare.argmax(1), votes.argmax(1)) and bare.min() < -13
    made.save(path)
    assert torch.equal(classify.load(path).logits(images.images, device="cpu"), bare)


def test_a_linear_classifier_is_the_probe_with_its_scaler_folded_in(images, network):
    features = evaluate.extract(network, images, device="cpu")
    probe = evaluate.LinearProbe((0.1,)).fit(features, images.labels, features, images.labels)
    fitted = classify.fit(network, images, protocol="linear", settings=(0.1,), device="cpu")
    want = torch.from_numpy(probe.model.predict_proba(probe.scaler.transform(features.double().numpy())))
    got = fitted.model.logits(images.images, device="cpu").softmax(1)
    assert torch.allclose(got.double(), want, atol=1e-4)
    two = images.select(images.labels < 2)
    two = ImageSet(two.images, two.labels, classes=("red", "green"))
    features = evaluate.extract(network, two, device="cpu")
    probe = evaluate.LinearProbe((0.1,)).fit(features, two.labels, features, two.labels)
    fitted = classify.fit(network, two, protocol="linear", settings=(0.1,), device="cpu")
    want = torch.from_numpy(probe.model.predict_proba(probe.scaler.transform(features.double().numpy())))
    assert torch.allclose(fitted.model.logits(two.images, device="cpu").softmax(1).double(), want, atol=1e-4)


def test_labels_without_meaning_stay_at_chance(network):
    """With 5 folds and a penalty chosen within them, noise must not look like knowledge."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (120, 3, 16, 16), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 2, (120,), generator=generator)
    fitted = classify.fit(
        network,
        ImageSet(noise, labels, classes=("a", "b")),
        protocol="linear",
        settings=(0.1, 1.0),
        folds=3,
        device="cpu",
    )
    low, high = fitted.measures.interval
    assert low < 0.5 < high


def test_fine_tuning_gives_a_model_with_the_same_answers(images, network):
    fitted = classify.fit(network, images, protocol="finetune", folds=2, config=FEW_STEPS, device="cpu")
    classifier, _ = train.finetune(network, images, FEW_STEPS, device="cpu", progress=False)
    assert torch.equal(fitted.model.logits(images.images, device="cpu").argmax(1), classifier.predict(images))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: (s.without_labels(), {}), "no labels"),
        (lambda s: (s, {"folds": 1}), "at least 2"),
        (lambda s: (s, {"folds": 2.5}), "at least 2"),
        (lambda s: (s, {"protocol": "liner"}), "did you mean 'linear'"),
        (lambda s: (s, {"stage": 7, "protocol": "linear"}), "stage must be one of"),
        (lambda s: (s, {"stage": 2}), "fine-tuning reads the last stage"),
        (lambda s: (s, {"stage": "class", "protocol": "linear"}), "no class token"),
        (lambda s: (s, {"groups": torch.zeros(3)}), "one number per image"),
        (lambda s: (s, {"groups": ["ann"] * len(s)}), "one number per image"),
        (lambda s: (s, {"groups": torch.full((len(s),), float("nan"))}), "one number per image"),
        (lambda s: (ImageSet(s.images, 0 * s.labels, classes=("one",)), {}), "two or more"),
        (lambda s: (s.select(torch.cat([(s.labels == 0).nonzero().flatten()[:3], (s.labels > 0).nonzero().flatten()])), {}), "'red' has 3"),
    ],
)  # fmt: skip
def test_what_cannot_be_fitted_is_said(images, network, change, words):
    changed, options = change(images)
    with pytest.raises(CourseError, match=words):
        classify.fit(network, changed, device="cpu", **options)


def test_features_that_are_not_finite_are_said(images, network):
    broken = backbones.build("resnet-tiny", image_size=16, seed=0)
    with torch.no_grad():
        broken.trunk.conv1.weight[0] = torch.nan
    with pytest.raises(CourseError, match="36 of 36 images aren't finite"):
        classify.fit(broken, images, protocol="linear", device="cpu")


# One file.


@pytest.mark.parametrize("protocol", ["linear", "knn"])
@pytest.mark.parametrize("arch", ["resnet-tiny", "vit-tiny"])
def test_a_file_gives_the_same_model_again(tmp_path, images, arch, protocol):
    stage = "class" if arch == "vit-tiny" else 3
    backbone = backbones.build(arch, image_size=16, seed=1)
    model = classify.fit(
        backbone, images, protocol=protocol, stage=stage, settings=SETTINGS[protocol][:1], folds=2, device="cpu"
    ).model
    model.notes["made from"] = "a test"
    model.save(tmp_path / "model.safetensors")
    again = classify.load(tmp_path / "model.safetensors")
    assert torch.equal(again.logits(images.images, device="cpu"), model.logits(images.images, device="cpu"))
    for name in ("classes", "image_size", "stage", "temperature", "notes"):
        assert getattr(again, name) == getattr(model, name), name


@pytest.mark.parametrize("arch", ["resnet-tiny", "vit-tiny"])
def test_a_classifier_brings_its_backbone_wherever_weights_are_read(tmp_path, images, arch, capsys):
    """With its own preprocessing, size and stage: nothing about it is assumed."""
    backbone = backbones.build(arch, image_size=16, seed=1)
    backbone.mean.fill_(0.3)
    fitted = classify.fit(backbone, images, protocol="knn", stage=2, settings=(3,), folds=2, device="cpu").model
    fitted.save(tmp_path / "model.safetensors")
    again = weights.load(tmp_path / "model.safetensors", heads=7)
    said = capsys.readouterr().err
    assert "heads, as asked for, is not used" in said and "classifier, which may have learned from labels" in said
    assert torch.equal(*(evaluate.extract(one, images, device="cpu") for one in (again, fitted.backbone)))
    assert record.of(again).image_size == 16 and record.of(again).stage == 2
    content = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(content.replace(b"backbone.mean", b"backbone.maen"))
    with pytest.raises(CourseError, match="contradicts itself.*write it again"):
        weights.load(tmp_path / "model.safetensors")


def test_files_that_are_no_classifier_are_said(tmp_path, network):
    with pytest.raises(CourseError, match="no classifier at"):
        classify.load(tmp_path / "none")
    (tmp_path / "bytes").write_bytes(b"nothing of the kind")
    with pytest.raises(CourseError, match="can't be read as a classifier"):
        classify.load(tmp_path / "bytes")
    backbones.save(network, tmp_path / "backbone.safetensors")
    with pytest.raises(CourseError, match="weights and no classifier"):
        classify.load(tmp_path / "backbone.safetensors")


# A folder.


@pytest.fixture(scope="module")
def model(images, network):
    return classify.fit(network, images, protocol="linear", settings=(0.1,), folds=2, device="cpu").model


@pytest.fixture
def folder(tmp_path):
    top = tmp_path / "pictures"
    for i, (image, label) in enumerate(coloured(4, seed=5)):
        place = top / f"day {i % 2}" / f"{i:02d}, {tuple(COLOURS)[label]}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(place)
    (top / "day 0" / "broken.jpg").write_bytes(b"no picture")
    return top


def rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_picture_gets_a_row(tmp_path, folder, model):
    done = classify.predict(model, folder, tmp_path / "out.csv", device="cpu", batch_size=5, progress=False)
    table = rows(tmp_path / "out.csv")
    assert len(table) == done.pictures == 13 and [row["path"] for row in table] == sorted(row["path"] for row in table)
    for row in table:
        if row["path"].endswith("broken.jpg"):
            assert row["problem"] and not row["class"] and not row["p: red"]
        else:
            shares = {name: float(row[f"p: {name}"]) for name in COLOURS}
            assert row["class"] in row["path"] and row["class"] == max(shares, key=shares.get)
            assert sum(shares.values()) == pytest.approx(1, abs=1e-5)
            assert float(row["probability"]) == max(shares.values())
    assert done.unreadable[0][0] == "day 0/broken.jpg"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.csv", "pictures"]


@pytest.mark.parametrize("cut", [0, 7, 150, 400, 900])
def test_an_interrupted_table_goes_on(tmp_path, folder, model, monkeypatch, cut):
    classify.predict(model, folder, tmp_path / "whole.csv", device="cpu", batch_size=5, progress=False)
    real, calls = classify.prediction.decode.decode, []

    def once(*args, **kwargs):
        calls.append(len(args[0]))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(classify.prediction.decode, "decode", once)
    with pytest.raises(KeyboardInterrupt):
        classify.predict(model, folder, tmp_path / "out.csv", device="cpu", batch_size=5, progress=False)
    part = tmp_path / "out.csv.part"
    assert part.exists() and not (tmp_path / "out.csv").exists()
    part.write_bytes(part.read_bytes()[: len(part.read_bytes()) - cut])  # a kill in the middle of a line
    done = classify.predict(model, folder, tmp_path / "out.csv", device="cpu", batch_size=5, progress=False)
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert done.kept == 10 if cut == 0 else done.kept <= 10
    assert not part.exists()


def test_another_model_begins_anew(tmp_path, folder, model, images, network):
    (tmp_path / "out.csv.part").write_text("# something else\npath,class\n")
    other = classify.fit(network, images, protocol="knn", settings=(1,), folds=2, device="cpu").model
    assert classify.predict(other, folder, tmp_path / "out.csv", device="cpu", progress=False).kept == 0
    assert len(rows(tmp_path / "out.csv")) == 13


def test_a_folder_without_pictures_is_said(tmp_path, model):
    with pytest.raises(CourseError, match="no pictures in"):
        classify.predict(model, tmp_path, tmp_path / "out.csv", device="cpu")
    with pytest.raises(CourseError, match="there is no folder"):
        classify.predict(model, tmp_path / "none", tmp_path / "out.csv", device="cpu")


def test_the_page_of_mistakes(tmp_path, images, network):
    generator = np.random.default_rng(0)
    labels = images.labels.clone()
    labels[:3] = (labels[:3] + torch.from_numpy(generator.integers(1, 3, 3))) % 3  # three wrong labels
    wrong = ImageSet(images.images, labels, classes=("<red>", "green & co", "blue"))
    fitted = classify.fit(network, wrong, protocol="linear", settings=(0.01,), device="cpu")
    count = pages.mistakes(tmp_path / "page.html", fitted, wrong)
    page = (tmp_path / "page.html").read_text()
    assert count >= 3 and page.count("<img") == count and page.count('alt="') == count
    assert "<red>" not in page and "&lt;red&gt;" in page
    assert "http" not in page.replace("http-equiv", "")


def test_the_page_of_several_models_begins_with_what_they_agree_on(tmp_path):
    images = ImageSet(torch.zeros(3, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 0, 1]), classes=("cat", "dog"))
    images = dataclasses.replace(images, names=("right.png", "once.png", "twice.png"))
    scores = [torch.tensor([[4.0, 1], [1, 9], [3, 1]]), torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.7, 0.3]])]
    count = pages.wrong(tmp_path / "page.html", Answers.of(scores, images), pages.of_images(images), "two")
    page = (tmp_path / "page.html").read_text()
    assert count == 2 and "right.png" not in page and "2 of 3 pictures" in page
    assert page.index("twice.png: dog, taken for cat (75%, wrong by 2 of 2)") < page.index(
        "once.png: cat, taken for dog (90%, wrong by 1 of 2)"
    )


# Labels beside the pictures that a model is asked about.


def given_labels(folder, wrong=(), without=(), group=None):
    """A table of the right labels, but for some pictures another one or none."""
    lines = ["path,label,patient"]
    for place in sorted(folder.rglob("*.png")):
        name, label = place.relative_to(folder), place.stem.split(", ")[1]
        label = (
            ""
            if place.stem[:2] in without
            else ("red" if label != "red" else "blue")
            if place.stem[:2] in wrong
            else label
        )
        lines.append(f'"{name}",{label},{group(place) if group else ""}')
    (folder.parent / "labels.csv").write_text("\n".join(lines), encoding="utf-8")
    return folder.parent / "labels.csv"


def test_predictions_are_held_against_labels(tmp_path, folder, model):
    table = given_labels(folder, wrong=("00", "03"), without=("01",))
    done = classify.predict(
        model, folder, tmp_path / "out.csv", labels=table, mistakes=tmp_path / "p.html", device="cpu", progress=False
    )
    found = {row["path"].split("/")[-1][:2]: row for row in rows(tmp_path / "out.csv")}
    assert found["01"]["label"] == found["br"]["label"] == "" and found["02"]["label"] == found["02"]["class"]
    measures = done.answers.measures
    assert measures.count == 11 and measures.accuracy == pytest.approx(9 / 11), "no label, no class: not counted"
    assert int(measures.confusion.fill_diagonal_(0).sum()) == 2
    page = (tmp_path / "p.html").read_text()
    assert page.count("<img") == 2 and "00, " in page and "03, " in page and "the model. The 2 surest" in page


def test_pictures_of_one_patient_count_as_fewer(tmp_path, folder, model):
    table = given_labels(folder, group=lambda place: int(place.stem[:2]) // 2)
    done = classify.predict(model, folder, tmp_path / "out.csv", labels=table, device="cpu", progress=False)
    assert done.answers.measures.count == 12 and done.answers.measures.independent == 6


def test_a_folder_that_is_sorted_holds_its_own_labels(tmp_path, folder, model):
    for place in [*folder.rglob("*.png")]:
        (folder / place.stem.split(", ")[1]).mkdir(exist_ok=True)
        place.rename(folder / place.stem.split(", ")[1] / place.name)
    shutil.rmtree(folder / "day 0")
    done = classify.predict(model, folder, tmp_path / "out.csv", labels=folder, device="cpu", progress=False)
    assert done.answers.measures.confusion.tolist() == [[4, 0, 0], [0, 4, 0], [0, 0, 4]]


def test_an_interrupted_table_with_labels_goes_on_and_with_others_begins_anew(tmp_path, folder, model, monkeypatch):
    given = {
        "labels": given_labels(folder, wrong=("00", "03", "11")),
        "device": "cpu",
        "batch_size": 5,
        "progress": False,
    }
    whole = classify.predict(model, folder, tmp_path / "whole.csv", **given)
    real, calls = classify.prediction.decode.decode, []

    def once(*args, **kwargs):
        calls.append(len(args[0]))
        if len(calls) % 3 == 0:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    for labels, kept in ((given["labels"], 10), (given_labels(folder, wrong=("02",)), 0)):
        given_labels(folder, wrong=("00", "03", "11"))
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(classify.prediction.decode, "decode", once)
            classify.predict(model, folder, tmp_path / "out.csv", **given)
        if not kept:
            given_labels(folder, wrong=("02",))
        done = classify.predict(model, folder, tmp_path / "out.csv", **given | {"labels": labels})
        assert done.kept == kept
        same = (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
        assert same == torch.equal(done.answers.measures.confusion, whole.answers.measures.confusion) == bool(kept)
        calls.clear()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,label\n00.png,read\n", "classes that the model doesn't know: read .did you mean 'red'"),
        ("path,label\nnobody.png,red\n", "no row of .* names an image"),
        ("path,label\n{name},\n", "gives none of the 13 pictures"),
        (None, "is another folder than"),
    ],
)
def test_labels_that_do_not_fit_are_one_sentence(tmp_path, folder, model, text, words):
    name = next(folder.rglob("00*.png")).relative_to(folder)
    labels = tmp_path
    if text is not None:
        labels = tmp_path / "labels.csv"
        labels.write_text(text.replace("00.png", f'"{name}"').replace("{name}", f'"{name}"'), encoding="utf-8")
    given = {"device": "cpu", "progress": False}
    with pytest.raises(CourseError, match=words):
        classify.predict(model, folder, tmp_path / "out.csv", labels=labels, **given)
    with pytest.raises(CourseError, match="mistakes are known where labels are"):
        classify.predict(model, folder, tmp_path / "out.csv", mistakes=tmp_path / "p.html", **given)
    assert not (tmp_path / "out.csv").exists() and not (tmp_path / "out.csv.part").exists()


def test_features_of_a_folder_lie_in_the_rows_that_the_table_names(tmp_path, folder, network):
    done = classify.embed(
        network, folder, tmp_path / "features.npy", size=16, batch_size=5, device="cpu", progress=False
    )
    features, table = np.load(tmp_path / "features.npy"), rows(tmp_path / "features.csv")
    assert features.dtype == np.float32 and len(features) == 12 and len(table) == done.pictures == 13
    assert [row["row"] for row in table if not row["problem"]] == [str(i) for i in range(12)]
    for row in (table[0], table[-1]):
        picture = torch.from_numpy(np.array(Image.open(folder / row["path"]))).permute(2, 0, 1)[None]
        want = evaluate.extract(network, picture, device="cpu")[0]
        assert torch.allclose(torch.from_numpy(features[int(row["row"])]), want, atol=1e-5)


def test_a_npy_is_what_numpy_would_have_saved(tmp_path):
    """Rows come in batches, and the header, which says how many, comes last."""
    values = torch.randn(123, 2, 3, generator=torch.Generator().manual_seed(0))
    names = [f"{i}.png" for i in range(123)]
    with featurefile.writing(tmp_path / "a.npy", (2, 3), names, {}) as writer:
        for begin in (0, 50, 100):
            writer.add(names[begin : begin + 50], {}, values[begin : begin + 50])
    np.save(tmp_path / "b.npy", values.numpy())
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
    features, found = classify.read_features(tmp_path / "a.npy")
    assert torch.equal(features, values) and found == tuple(names)


def test_parquet_holds_what_npy_holds_and_is_read_by_others(tmp_path, folder, network):
    arrow = pytest.importorskip("pyarrow.parquet")
    given = {"size": 16, "batch_size": 5, "device": "cpu", "progress": False}
    classify.embed(network, folder, tmp_path / "f.npy", **given)
    done = classify.embed(network, folder, tmp_path / "f.parquet", **given)
    ours, names = classify.read_features(tmp_path / "f.npy")
    features, found = classify.read_features(tmp_path / "f.parquet")
    assert torch.equal(features, ours) and found == names and done.pictures == 13
    table = arrow.read_table(tmp_path / "f.parquet")
    assert table.column_names == ["path", "problem", "features"] and table.num_rows == 13
    (broken,) = [row for row in table.to_pylist() if row["problem"]]
    assert broken["path"] == "day 0/broken.jpg" and broken["features"] is None
    first = next(row for row in table.to_pylist() if not row["problem"])
    assert first["path"] == names[0] and first["features"] == ours[0].tolist()
    assert b'"stage": "all"' in table.schema.metadata[b"sslcourse"]


@pytest.mark.parametrize("suffix", ["npy", "parquet"])
def test_features_of_patches_average_to_those_of_the_picture(tmp_path, folder, network, suffix):
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    given = {"size": 16, "stage": 2, "device": "cpu", "progress": False}
    classify.embed(network, folder, tmp_path / f"whole.{suffix}", **given)
    classify.embed(network, folder, tmp_path / f"patches.{suffix}", patches=True, **given)
    whole, _ = classify.read_features(tmp_path / f"whole.{suffix}")
    patches, names = classify.read_features(tmp_path / f"patches.{suffix}")
    assert patches.shape == (12, 4, 4, 32) and len(names) == 12
    assert torch.allclose(patches.mean(dim=(1, 2)), whole, atol=1e-5)
    picture = torch.from_numpy(np.array(Image.open(folder / names[3]))).permute(2, 0, 1)[None]
    want = network.eval().stages(picture / 255)[1][0, :, 1, 2]
    assert torch.allclose(patches[3, 1, 2], want, atol=1e-4), "row 1, column 2 of the map"
    with pytest.raises(CourseError, match="holds features of patches"):
        heap.load(tmp_path / f"patches.{suffix}", folder)
    for stage in ("all", "class"):
        with pytest.raises(CourseError, match="patches are of one stage"):
            classify.embed(network, folder, tmp_path / "x", patches=True, **(given | {"stage": stage}))


def stop_at_the_second_batch(patch):
    """Ctrl-C while the second batch of pictures is decoded."""
    real, calls = classify.prediction.decode.decode, []

    def once(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    patch.setattr(classify.prediction.decode, "decode", once)


@pytest.mark.parametrize("name", ["f.npy", "f.parquet"])
def test_a_file_of_features_is_whole_or_not_there(tmp_path, folder, network, monkeypatch, name):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    stop_at_the_second_batch(monkeypatch)
    given = {"size": 16, "batch_size": 5, "device": "cpu", "progress": False}
    with pytest.raises(KeyboardInterrupt):
        classify.embed(network, folder, tmp_path / name, **given)
    assert [path.name for path in tmp_path.iterdir()] == ["pictures"]
    for picture in folder.rglob("*.png"):
        picture.write_bytes(b"no picture")
    with pytest.raises(CourseError, match="none of the 13 pictures"):
        classify.embed(network, folder, tmp_path / name, **given)
    assert [path.name for path in tmp_path.iterdir()] == ["pictures"]


def test_what_is_no_file_of_features_is_said(tmp_path, folder, network, monkeypatch):
    pytest.importorskip("pyarrow")
    for name in ("none.npy", "none.parquet", "text.npy", "text.parquet"):
        if name.startswith("text"):
            (tmp_path / name).write_text("path,row\n")
        with pytest.raises(CourseError, match=f"{name}.*can't be read as features.*sslcourse embed"):
            classify.read_features(tmp_path / name)
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"path": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(CourseError, match="can't be read as features"):
        classify.read_features(tmp_path / "other.parquet")
    with pytest.raises(CourseError, match="isn't UTF-8.*ends in .npy"):
        with featurefile.writing(tmp_path / "f.parquet", (2,), ["\udcff.png"], {}):
            pass
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(CourseError, match="f.parquet needs pyarrow.*pip install pyarrow.*ends in .npy"):
        classify.embed(network, folder, tmp_path / "f.parquet", size=16, device="cpu", progress=False)
    with pytest.raises(CourseError, match="needs pyarrow"):
        classify.read_features(tmp_path / "other.parquet")


def test_what_somebody_else_wrote_is_never_replaced(tmp_path, folder, model, network):
    pytest.importorskip("pyarrow")
    given = {"size": 16, "device": "cpu", "progress": False}
    tried = {
        "labels.csv": lambda: classify.embed(network, folder, tmp_path / "labels.npy", **given),
        "array.npy": lambda: classify.embed(network, folder, tmp_path / "array.npy", **given),
        "table.parquet": lambda: classify.embed(network, folder, tmp_path / "table.parquet", **given),
        "mine.csv": lambda: classify.predict(model, folder, tmp_path / "mine.csv", device="cpu", progress=False),
        "page.html": lambda: pages.write(tmp_path / "page.html", "", "", []),
    }
    for name, write in tried.items():
        (tmp_path / name).write_bytes(b"path,label\nmine,1\n")
        with pytest.raises(CourseError, match=f"{name} is there already and isn't .*choose another name"):
            write()
        assert (tmp_path / name).read_bytes() == b"path,label\nmine,1\n"
        (tmp_path / name).write_bytes(b"")  # an empty file is nobody's
        write()
        write()  # what was written here is


def test_what_cannot_be_read_is_not_replaced_either(tmp_path, monkeypatch):
    (tmp_path / "page.html").write_bytes(pages.START.encode())

    def closed(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files, "begins_with", closed)
    with pytest.raises(CourseError, match="page.html can't be read"):
        pages.write(tmp_path / "page.html", "", "", [])


def test_features_have_one_of_two_endings(tmp_path, folder, network):
    given = {"size": 16, "device": "cpu", "progress": False}
    assert classify.embed(network, folder, tmp_path / "f", **given).path == tmp_path / "f.npy"
    with pytest.raises(CourseError, match="f.txt ends in neither .parquet nor .npy"):
        classify.embed(network, folder, tmp_path / "f.txt", **given)


def test_two_runs_never_write_one_table(tmp_path, folder, model):
    with locking.claimed(tmp_path / "out.csv", file=True), pytest.raises(CourseError, match="another run is writing"):
        classify.predict(model, folder, tmp_path / "out.csv", device="cpu", progress=False)


def test_labelled_images_of_all_splits_keep_their_names(images):
    named = dataclasses.replace(images, names=[f"{i}.jpg" for i in range(len(images))])
    splits = Splits(named.without_labels(), named.select([0, 1]), named.select([2]), named.select([3, 4]), "named")
    assert fitting.together(splits).names == ("0.jpg", "1.jpg", "2.jpg", "3.jpg", "4.jpg")


# Files that were altered, and folders that change.


def altered(model, path, about=None, state=None):
    """The classifier's file with other words about itself, or with other tensors."""
    model.save(path)
    with safetensors.safe_open(path, framework="pt") as file:
        said = json.loads(file.metadata()[classifiers.KEY])
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    if about is not None:
        said = said | about if isinstance(about, dict) else about
    tensors |= {name: change(tensors[name]) for name, change in (state or {}).items()}
    path.write_bytes(safetensors.torch.save(tensors, metadata={classifiers.KEY: json.dumps(said)}))
    return path


LINEAR = {
    "temperature nan": ({"temperature": float("nan")}, None),
    "temperature 0": ({"temperature": 0}, None),
    "temperature below 0": ({"temperature": -1.0}, None),
    "temperature without end": ({"temperature": float("inf")}, None),
    "no size": ({"image_size": 0}, None),
    "half a pixel": ({"image_size": 17.5}, None),
    "another stage": ({"stage": 2}, None),
    "letters as classes": ({"classes": "abc"}, None),
    "one class twice": ({"classes": ["a", "a", "b"]}, None),
    "a list": ([], None),
    "nothing": (0, None),
    "variances below 0": (None, {"backbone.trunk.bn1.running_var": lambda t: -t}),
}
NEAREST = {
    "no neighbours": ({"neighbours": 0}, None),
    "fewer": ({"neighbours": -3}, None),
    "labels of other classes": (None, {"head.labels": lambda t: t + 7}),
    "labels below 0": (None, {"head.labels": lambda t: t - 1}),
    "half a label": (None, {"head.labels": lambda t: t + 0.5}),
    "another stage": ({"stage": 1}, None),
}


@pytest.fixture(scope="module")
def nearest(images, network):
    return classify.fit(network, images, protocol="knn", settings=(1,), folds=2, device="cpu").model


@pytest.mark.parametrize(("kind", "name"), [("linear", n) for n in LINEAR] + [("knn", n) for n in NEAREST])
def test_a_classifier_that_was_altered_is_refused_in_one_sentence(tmp_path, model, nearest, kind, name):
    about, state = (LINEAR if kind == "linear" else NEAREST)[name]
    path = altered(model if kind == "linear" else nearest, tmp_path / "m.safetensors", about, state)
    with pytest.raises(CourseError, match="contradicts itself|aren't finite|no classifier") as error:
        classify.load(path)
    assert "\n" not in str(error.value)
    classify.load(altered(model, path))


def test_numbers_that_are_not_finite_are_no_prediction_and_no_features(tmp_path, folder, model, network):
    bad = copy.deepcopy(model)
    with torch.no_grad():
        bad.head.weight.fill_(3e38)
    done = classify.predict(bad, folder, tmp_path / "out.csv", device="cpu", progress=False)
    table = rows(tmp_path / "out.csv")
    assert all(row["problem"] and not row["class"] for row in table) and len(done.unreadable) == len(table)
    broken = copy.deepcopy(network)
    broken.mean.fill_(float("nan"))
    with pytest.raises(CourseError, match="features of .* not all finite"):
        classify.embed(broken, folder, tmp_path / "f.npy", size=16, device="cpu", progress=False)
    for size in (0, -5, 2.5, 10**6):
        with pytest.raises(CourseError, match="the size in pixels must be a whole number from 8"):
            classify.embed(network, folder, tmp_path / "f.npy", size=size, device="cpu", progress=False)
    assert not (tmp_path / "f.npy").exists() and not (tmp_path / "f.csv").exists()


def interrupted(model, folder, table, monkeypatch):
    """Predictions of the first batch of five, and no more."""
    with monkeypatch.context() as patch:
        stop_at_the_second_batch(patch)
        with pytest.raises(KeyboardInterrupt):
            classify.predict(model, folder, table, device="cpu", batch_size=5, progress=False)


def test_a_picture_that_changed_since_the_interruption_is_predicted_again(tmp_path, folder, model, monkeypatch):
    interrupted(model, folder, tmp_path / "out.csv", monkeypatch)
    pictures = sorted(folder.rglob("*.png"))
    pictures[0].write_bytes(pictures[-1].read_bytes())
    assert classify.predict(model, folder, tmp_path / "out.csv", device="cpu", progress=False).kept == 0
    first, *_, last = (row for row in rows(tmp_path / "out.csv") if not row["problem"])
    assert {**first, "path": ""} == {**last, "path": ""}


def test_rows_so_far_survive_a_full_disk_and_foreign_ones_too(tmp_path, folder, model, monkeypatch):
    interrupted(model, folder, tmp_path / "out.csv", monkeypatch)
    part = tmp_path / "out.csv.part"
    before = part.read_bytes()

    def full(file):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        with pytest.raises(CourseError, match="No space left on device.*goes on from there"):
            classify.predict(model, folder, tmp_path / "out.csv", device="cpu", progress=False)
    assert part.read_bytes() == before
    assert classify.predict(model, folder, tmp_path / "out.csv", device="cpu", progress=False).kept == 5
    part.write_text("my notes\n")
    with pytest.raises(CourseError, match="out.csv.part is there already and isn't"):
        classify.predict(model, folder, tmp_path / "out.csv", device="cpu", progress=False)


def test_files_of_other_kinds_are_counted_and_a_link_to_itself_hurts_nobody(tmp_path, folder, model, network):
    (folder / "phone.heic").write_bytes(b"x")
    (folder / "loop.png").symlink_to("loop.png")
    done = classify.predict(model, folder, tmp_path / "out.csv", device="cpu", progress=False)
    assert any("left out: 1 .heic" in note for note in done.notes) and done.pictures == 14
    assert any(path == "loop.png" for path, _ in done.unreadable)
    done = classify.embed(network, folder, tmp_path / "f.npy", size=16, device="cpu", progress=False)
    assert any("left out: 1 .heic" in note for note in done.notes)


def test_features_belong_to_the_names_that_the_row_numbers_say(tmp_path):
    values = torch.arange(12.0).view(4, 3)
    with featurefile.writing(tmp_path / "f.npy", (3,), ["a", "b", "c", "d"], {}) as writer:
        writer.add(["a", "b", "c", "d"], {}, values)
    lines = (tmp_path / "f.csv").read_text().splitlines()
    (tmp_path / "f.csv").write_text(
        "\n".join([lines[0], *reversed(lines[1:])]), encoding="utf-8-sig"
    )  # sorted in Excel
    features, names = classify.read_features(tmp_path / "f.npy")
    assert torch.equal(features, values) and names == ("a", "b", "c", "d")
    for text in ("path,row,problem\na,0,\nb,0,\nc,1,\nd,2,\n", "path,row,problem\na,1,\nb,2,\nc,3,\nd,4,\n"):
        (tmp_path / "f.csv").write_text(text)
        with pytest.raises(CourseError, match="embed"):
            classify.read_features(tmp_path / "f.npy")


@pytest.mark.parametrize(
    "array", [np.array([["a"]]), np.zeros((1, 0)), np.zeros((0, 3)), np.zeros((1, 2), complex), np.array([[{}]])]
)
def test_arrays_that_are_no_features_are_one_sentence(tmp_path, array):
    np.save(tmp_path / "f.npy", array, allow_pickle=True)
    (tmp_path / "f.csv").write_text("path,row,problem\n" + "a.png,0,\n" * len(array))
    with pytest.raises(CourseError, match="embed") as error:
        classify.read_features(tmp_path / "f.npy")
    assert "pickle" not in str(error.value), "no advice to run what lies in a file"


def test_a_folder_in_the_place_of_a_file_is_said_before_anything_is_computed(
    tmp_path, folder, model, network, monkeypatch
):
    monkeypatch.setattr(classify.prediction.decode, "decode", None)
    given = {"device": "cpu", "progress": False}
    for name in ("out.csv", "f.npy", "g.csv"):
        (tmp_path / name).mkdir()
    tried = (
        lambda: classify.predict(model, folder, tmp_path / "out.csv", **given),
        lambda: classify.embed(network, folder, tmp_path / "f.npy", size=16, **given),
        lambda: classify.embed(network, folder, tmp_path / "g.npy", size=16, **given),
    )
    for write in tried:
        with pytest.raises(CourseError, match="is a folder, and a file is to be written there"):
            write()
