"""Evaluation against brute force and against the mathematics; what is measured is left as it was."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from sslcourse import backbones, device, evaluate, train
from sslcourse.data.imageset import ImageSet
from sslcourse.data.splits import Splits
from sslcourse.device import generator
from sslcourse.errors import CourseError


def toy(n, seed, classes=3, factors=True):
    """Colour tells the class; a factor `warmth` is how red it is."""
    dice = generator(seed)
    labels = torch.arange(n) % classes
    images = torch.randint(0, 60, (n, 3, 8, 8), dtype=torch.uint8, generator=dice)
    warmth = torch.rand(n, generator=dice)
    images[:, 0] += (warmth * 150).to(torch.uint8)[:, None, None]
    for c in range(classes):
        images[labels == c, 1] += 50 * c
    known = {"class": labels, "warmth": warmth} if factors else {}
    return ImageSet(images, labels, tuple("abc"[:classes]), f"toy {seed}", factors=known)


@pytest.fixture(scope="module")
def splits():
    train_set = toy(60, 0)
    return Splits(train_set.without_labels(), train_set, toy(30, 1), toy(45, 2), "toy")


def test_knn_equals_a_double_loop():
    dice = generator(0)
    bank, queries = torch.randn(13, 5, generator=dice), torch.randn(4, 5, generator=dice)
    labels = torch.randint(3, (13,), generator=dice)
    fast = evaluate.knn_scores(bank, labels, queries, classes=3, k=6, temperature=0.2)
    for q, query in enumerate(queries):
        pairs = []
        for b, other in enumerate(bank):
            cosine = float(query @ other / (query.norm() * other.norm()))
            pairs.append((cosine, int(labels[b])))
        pairs.sort(reverse=True)
        votes = [0.0] * 3
        for cosine, label in pairs[:6]:
            votes[label] += math.exp(cosine / 0.2)
        slow = torch.tensor(votes)
        torch.testing.assert_close(fast[q] / fast[q].sum(), slow / slow.sum())


def test_the_nearest_neighbour_of_a_training_image_is_itself():
    features = torch.randn(40, 6, generator=generator(0))
    labels = torch.arange(40) % 4
    assert torch.equal(evaluate.knn_scores(features, labels, features, classes=4, k=1).argmax(1), labels)


def test_knn_ignores_the_length_of_features_and_survives_tiny_temperatures():
    dice = generator(0)
    bank, queries, labels = torch.randn(9, 4, generator=dice), torch.randn(5, 4, generator=dice), torch.arange(9) % 3
    a = evaluate.knn_scores(bank, labels, queries, classes=3, k=5)
    torch.testing.assert_close(a, evaluate.knn_scores(bank * 7, labels, queries / 3, classes=3, k=5))
    assert torch.isfinite(evaluate.knn_scores(bank, labels, queries, classes=3, k=50, temperature=1e-4)).all()


def rounding():
    """How far apart the same features may be, computed in two ways: on another device, or in batches of another size.

    In float32 sums differ by their order. CUDA's convolutions round each factor to TF32, ten bits of fraction, so that
    a product is right to 2^-11 = 0.0005; over the layers of a network some of it adds up.
    """
    on_cuda = device.pick_device().type == "cuda"
    return {"atol": 1e-2, "rtol": 1e-2} if on_cuda else {"atol": 1e-5, "rtol": 1e-4}


def test_features_do_not_depend_on_the_batch_and_leave_the_backbone_alone(splits):
    backbone = backbones.build().train()
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    a, b = (evaluate.extract(backbone, splits.train, batch_size=n) for n in (7, 512))
    torch.testing.assert_close(a, b, **rounding())
    assert a.shape == (60, 240) and backbone.training
    evaluate.evaluate(backbone, splits, labels_per_class=3, seeds=2)
    evaluate.evaluate(backbone, splits, protocol="knn", labels_per_class=3, seeds=2)
    evaluate.evaluate(
        backbone, splits, protocol="finetune", labels_per_class=3, seeds=1, config=train.TrainConfig(steps=2)
    )
    assert all(torch.equal(before[k], v) for k, v in backbone.state_dict().items())


def test_stages_are_averages_of_their_maps(splits):
    backbone = backbones.build().eval()
    with torch.no_grad():
        maps = backbone.stages(splits.test.images.float() / 255)
    means = [m.mean((2, 3)) for m in maps]
    for stage in (1, 2, 3, 4):
        found = evaluate.extract(backbone, splits.test, stage=stage)
        torch.testing.assert_close(found, means[stage - 1], **rounding())
    with torch.no_grad():
        torch.testing.assert_close(found, backbone(splits.test.images.float() / 255), **rounding())
    torch.testing.assert_close(evaluate.extract(backbone, splits.test), torch.cat(means, 1), **rounding())
    with pytest.raises(CourseError, match="stage must be one of 1, 2, 3, 4, all"):
        evaluate.extract(backbone, splits.test, stage=5)


def test_protocols_find_what_is_easy(splits):
    for protocol in ("linear", "knn"):
        summary = evaluate.evaluate(backbones.build(), splits, protocol=protocol, labels_per_class=10, seeds=3)
        assert summary.mean > 0.65, protocol  # chance is 0.33
    config = train.TrainConfig(steps=60, batch_size=32, learning_rate=3e-3)
    summary = evaluate.evaluate(
        lambda seed: backbones.build(seed=seed),
        splits,
        protocol="finetune",
        labels_per_class=10,
        seeds=1,
        config=config,
    )
    assert summary.mean > 0.8


def test_shuffled_labels_are_at_chance(splits):
    """The control: a protocol that leaked would be above it."""
    wrong = [
        ImageSet(s.images, s.labels[torch.randperm(len(s), generator=generator(i))], s.classes, s.name)
        for i, s in enumerate((splits.train, splits.val, splits.test))
    ]
    summary = evaluate.evaluate(backbones.build(), Splits(splits.unlabeled, *wrong), labels_per_class=15, seeds=5)
    assert abs(summary.mean - 1 / 3) < 0.15


def test_the_test_split_decides_nothing(splits, monkeypatch):
    """Other test labels must not change the predictions, only the score."""
    fits = []
    original = evaluate.LinearProbe.fit

    def spy(self, *tensors):
        fits.append(tuple(t.clone() for t in tensors))
        return original(self, *tensors)

    monkeypatch.setattr(evaluate.LinearProbe, "fit", spy)
    features = evaluate.Features.of(backbones.build(), splits)
    evaluate.probe_accuracy(features, splits, 5, 0)
    seen = fits[0]
    assert len(seen[0]) == 15 and torch.equal(seen[2], features.val) and torch.equal(seen[3], splits.val.labels)


def test_one_stage_of_features_that_stand_side_by_side(splits):
    backbone = backbones.build()
    together, third = (evaluate.Features.of(backbone, splits, stage=stage) for stage in ("all", 3))
    found = together.stage(3, backbone.channels)
    assert all(torch.equal(getattr(found, part), getattr(third, part)) for part in ("train", "val", "test"))
    for none in (0, 5):
        with pytest.raises(CourseError, match="from 1 to 4"):
            together.stage(none, backbone.channels)


def test_probes_of_several_seeds_are_those_of_each(splits):
    sets = [evaluate.Features.of(backbones.build(seed=seed), splits) for seed in range(2)]
    single = [evaluate.probe_accuracy(each, splits, 5, seed, "knn") for seed, each in enumerate(sets)]
    assert evaluate.probe_accuracies(sets, splits, 5, "knn").values == tuple(single)
    same = evaluate.probe_accuracies(sets[0], splits, 5, "knn", seeds=3).values
    assert len(same) == 3 and same[0] == single[0]


def test_larger_budgets_contain_smaller_ones():
    labelled = toy(60, 0)
    for seed in range(3):
        small, large = (set(labelled.indices_per_class(k, seed).tolist()) for k in (2, 9))
        assert small < large and len(small) == 6
        assert labelled.sample_per_class(2, seed).counts() == {"a": 2, "b": 2, "c": 2}
    assert labelled.indices_per_class(5, 0).tolist() != labelled.indices_per_class(5, 1).tolist()


def test_summary_equals_scipy():
    values = (0.5, 0.7, 0.6, 0.65)
    summary = evaluate.Summary(values)
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert summary.interval == pytest.approx((low, high)) and summary.std == pytest.approx(np.std(values, ddof=1))
    assert str(summary) == "0.612 ± 0.085"
    assert math.isnan(evaluate.Summary((0.5,)).half_width) and str(evaluate.Summary((0.5,))) == "0.500"


def test_paired_differences_cancel_common_luck():
    luck = np.array([0.1, 0.5, 0.3, 0.9])
    gain = evaluate.paired_difference(luck + 0.1, luck)
    assert gain.mean == pytest.approx(0.1) and gain.half_width == pytest.approx(0, abs=1e-12)
    with pytest.raises(CourseError, match="got 2 and 3"):
        evaluate.paired_difference((1, 2), (1, 2, 3))


def test_factor_probe_reads_what_is_there_and_not_what_is_not(splits):
    kept = evaluate.factor_probe(evaluate.Features.of(backbones.build(), splits), splits)
    assert kept["class"]["score"] > 0.8 and kept["class"]["chance"] == pytest.approx(1 / 3)
    assert kept["warmth"]["score"] > 0.5
    noise = evaluate.Features(*(torch.randn(n, 4, generator=generator(n)) for n in (60, 30, 45)))
    lost = evaluate.factor_probe(noise, splits)
    assert lost["class"]["score"] < 0.6 and lost["warmth"]["score"] < 0.2
    assert evaluate.factor_probe(noise, splits, ["warmth"]) == {"warmth": lost["warmth"]}
    with pytest.raises(CourseError, match="factor 'warmht' is unknown.*did you mean 'warmth'"):
        evaluate.factor_probe(noise, splits, ["warmht"])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"protocol": "liner"}, "protocol 'liner' is unknown.*did you mean 'linear'"),
        ({"labels_per_class": 21}, "21 images per class were asked for, but class 'a'.*has 20; ask for at most 20"),
        ({"labels_per_class": 0}, "at least 1, and"),
        ({"seeds": 0}, "at least one seed"),
    ],
)
def test_bad_requests_get_a_sentence(splits, options, sentence):
    with pytest.raises(CourseError, match=sentence):
        evaluate.evaluate(backbones.build(), splits, **options)


def test_unlabelled_sets_are_refused(splits):
    bare = Splits(splits.unlabeled, splits.train, splits.val, splits.test.without_labels())
    with pytest.raises(CourseError, match="test has none"):
        evaluate.evaluate(backbones.build(), bare)
    with pytest.raises(CourseError, match="no images to take features from"):
        evaluate.extract(backbones.build(), torch.zeros(0, 3, 8, 8, dtype=torch.uint8))


BANK, LABELS = torch.rand(6, 3, generator=generator(0)), torch.arange(6) % 3
KNN = {"bank": BANK, "labels": LABELS, "queries": BANK, "classes": 3}


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"k": 0}, "k must be a whole number of at least 1, and is 0"),
        ({"k": 2.0}, "k must be a whole number"),
        ({"classes": 2}, r"labels must lie in 0..1, and these lie in 0..2"),
        ({"classes": 0}, "classes must be a whole number of at least 1"),
        ({"temperature": 0.0}, "temperature must be a finite number above 0"),
        ({"temperature": math.nan}, "temperature must be a finite number above 0"),
        ({"labels": LABELS[:5]}, "there are 5 labels, and there are 6 rows"),
        ({"labels": LABELS.float()}, "whole numbers"),
        ({"queries": BANK[:, :2]}, "have 2 columns, and those learned from had 3"),
        ({"queries": BANK[0]}, r"must be numbers \(N, d\)"),
        ({"bank": BANK[:0], "labels": LABELS[:0]}, r"must be numbers \(N, d\)"),
    ],
)
def test_knn_refuses_what_does_not_fit(wrong, sentence):
    with pytest.raises(CourseError, match=sentence):
        evaluate.knn_scores(**(KNN | wrong))


def test_a_k_larger_than_the_bank_is_the_bank():
    assert torch.equal(evaluate.knn_scores(**KNN, k=100), evaluate.knn_scores(**KNN, k=6))


def test_a_probe_refuses_what_it_cannot_learn():
    for given, sentence in (
        ((BANK, torch.zeros(6, dtype=torch.int64), BANK, LABELS), "all 6 labels are 0"),
        ((BANK, LABELS, BANK[:0], LABELS[:0]), "the validation features must be numbers"),
        ((BANK, LABELS, BANK[:, :2], LABELS), "2 columns"),
        ((BANK, LABELS[:4], BANK, LABELS), "4 labels"),
    ):
        with pytest.raises(CourseError, match=sentence):
            evaluate.LinearProbe().fit(*given)
    with pytest.raises(CourseError, match="learned nothing yet"):
        evaluate.LinearProbe().predict(BANK)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"labels_per_class": -1}, "at least 1"),
        ({"labels_per_class": 1.0}, "whole number"),
        ({"labels_per_class": True}, "whole number"),
        ({"seeds": -3}, "at least one seed"),
        ({"seeds": 1.5}, "at least one seed"),
        ({"seeds": []}, "at least one seed"),
        ({"seeds": [0, "1"]}, "a seed must be a whole number"),
        ({"seeds": "12"}, "at least one seed"),
        ({"device": "tpu"}, "device 'tpu' is unknown"),
    ],
)
def test_hostile_requests_get_a_sentence(splits, options, sentence):
    with pytest.raises(CourseError, match=sentence):
        evaluate.evaluate(backbones.build(), splits, **options)


def test_budgets_count_once_and_there_is_one_at_least(splits):
    curve = evaluate.label_efficiency(backbones.build(), splits, (2, 1, 2), protocol="knn", seeds=2, device="cpu")
    assert [len(curve[budget].values) for budget in (1, 2)] == [2, 2] and list(curve) == [2, 1]
    with pytest.raises(CourseError, match="at least one number of labels per class"):
        evaluate.label_efficiency(backbones.build(), splits, ())


def test_numpys_numbers_are_numbers(splits):
    usual = evaluate.evaluate(backbones.build(), splits, labels_per_class=2, seeds=2)
    given = evaluate.evaluate(backbones.build(), splits, labels_per_class=np.int64(2), seeds=np.arange(2))
    assert given == usual and given.test_images == 45


def test_splits_that_cannot_be_measured_get_a_sentence(splits):
    none = splits.test.select([])
    lacking = ImageSet(splits.train.images, splits.train.labels, ("a", "b", "c", "d"), "lacking")
    alone = ImageSet(splits.train.images, torch.zeros(60, dtype=torch.int64), ("a",), "alone")
    for parts, sentence in (
        ((splits.train, splits.val, none), "test has none; with three different images or more of each class"),
        ((splits.train, none, splits.test), "val has none"),
        ((lacking, splits.val, splits.test), "train has no image of 'd'"),
        ((alone, alone, alone), "two classes or more, and toy has 'a' alone"),
    ):
        wrong = Splits(splits.unlabeled, *parts, "toy")
        for protocol in evaluate.PROTOCOLS:
            with pytest.raises(CourseError, match=sentence):
                evaluate.evaluate(backbones.build(), wrong, protocol=protocol, labels_per_class=1, seeds=1)
    features = evaluate.Features.of(backbones.build(), splits)
    with pytest.raises(CourseError, match="45 rows for test, and there are 60 images"):
        evaluate.probe_accuracy(features, Splits(splits.unlabeled, splits.train, splits.val, splits.train), 1, 0)
    with pytest.raises(CourseError, match="linear or knn"):
        evaluate.probe_accuracy(features, splits, 1, 0, "finetune")


@pytest.mark.parametrize("protocol", evaluate.PROTOCOLS)
def test_what_was_counted_is_seen(splits, protocol):
    """Of each measurement, in its order, and what is seen gives the accuracy; a probe's rows are probabilities."""
    seen, config = [], train.TrainConfig(steps=1, batch_size=8)
    curve = evaluate.label_efficiency(
        backbones.build(), splits, (1, 3), protocol=protocol, seeds=2, config=config, device="cpu",
        seen=lambda budget, scores: seen.append((budget, scores)),
    )  # fmt: skip
    assert [budget for budget, _ in seen] == [1, 3, 1, 3]
    for i, (budget, scores) in enumerate(seen):
        right = (scores.argmax(dim=1) == splits.test.labels).float().mean().item()
        assert right == curve[budget].values[i // 2] and bool((scores >= 0).all())
        assert protocol == "knn" or torch.allclose(scores.sum(dim=1), torch.ones(45, dtype=scores.dtype))


def test_probabilities_lie_in_the_columns_of_their_classes(splits):
    features, labels = torch.randn(30, 4, generator=generator(0)), torch.arange(30) % 2 * 2  # classes 0 and 2 of 4
    probe = evaluate.LinearProbe().fit(features, labels, features, labels)
    found = probe.probabilities(features, 4)
    assert torch.equal(found.argmax(dim=1), probe.predict(features)) and not found[:, [1, 3]].any()


@pytest.mark.parametrize(
    ("scores", "best"), [((0.1, 0.5, 0.5), 1), ((math.nan, 0.2, 0.1), 1), ((math.nan, math.nan, math.nan), 0)]
)
def test_the_best_of_rates_is_the_first_of_the_best(scores, best):
    config, rates = train.TrainConfig(steps=1), (0.1, 0.2, 0.3)
    chosen = evaluate.best_of_rates(
        lambda trial: trial.learning_rate, lambda rate: scores[rates.index(rate)], config, rates
    )
    assert chosen == rates[best]


def test_without_a_choice_of_rates_validation_is_not_asked():
    config = train.TrainConfig(steps=1)
    for rates, rate in (((), config.learning_rate), ((0.5,), 0.5)):
        assert evaluate.best_of_rates(lambda trial: trial.learning_rate, None, config, rates) == rate


def test_every_rate_is_tried_with_every_length(splits, monkeypatch):
    tried = []

    class Answers:
        def __init__(self, config):
            self.right = (config.learning_rate, config.steps) == (0.2, 7)

        def logits(self, images, device):
            labels = images.labels if self.right else (images.labels + 1) % len(images.classes)
            return torch.nn.functional.one_hot(labels, len(images.classes)).float()

    def finetune(backbone, few, config, **options):
        tried.append((config.learning_rate, config.steps, config.seed))
        return Answers(config), None

    monkeypatch.setattr(evaluate.train, "finetune", finetune)
    found = evaluate.finetune_accuracy(backbones.build(), splits, 1, 5, rates=(0.1, 0.2), lengths=(3, 7))
    assert found == 1 and sorted(tried) == [(0.1, 3, 5), (0.1, 7, 5), (0.2, 3, 5), (0.2, 7, 5)]
