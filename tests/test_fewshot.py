"""Episodes, prototypes and the three ways to answer, against loops, scikit-learn and what must not change."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import NearestCentroid

from sslcourse import backbones, train
from sslcourse.data.imageset import ImageSet
from sslcourse.device import generator
from sslcourse.errors import CourseError
from sslcourse.transfer import fewshot

LABELS = torch.arange(70) % 7


def toy(n=60, seed=0):
    """Three classes that colour tells apart, named a, b and c."""
    dice = generator(seed)
    labels = torch.arange(n) % 3
    images = torch.randint(0, 60, (n, 3, 8, 8), dtype=torch.uint8, generator=dice)
    images[torch.arange(n), labels] += 150
    return ImageSet(images, labels, ("a", "b", "c"), "toy")


def clouds(spread=0.4, dim=6, seed=0):
    """Features of LABELS: a cloud around a random centre for each class."""
    dice = generator(seed)
    return torch.randn(7, dim, generator=dice)[LABELS] + spread * torch.randn(len(LABELS), dim, generator=dice)


# -- episodes -------------------------------------------------------------------------------------------------------


@given(ways=st.integers(2, 7), shots=st.integers(1, 5), queries=st.integers(1, 5), seed=st.integers(0, 2**62))
def test_an_episode_holds_what_it_promises(ways, shots, queries, seed):
    drawn = fewshot.episode(LABELS, ways=ways, shots=shots, queries=queries, seed=seed)
    assert drawn.support.shape == (ways, shots) and drawn.query.shape == (ways, queries)
    assert len(drawn.classes.unique()) == ways
    assert torch.equal(LABELS[drawn.support], drawn.classes[:, None].expand(-1, shots))
    assert torch.equal(LABELS[drawn.query], drawn.classes[:, None].expand(-1, queries))
    everyone = torch.cat([drawn.support.flatten(), drawn.query.flatten()])
    assert len(everyone.unique()) == len(everyone), "an image is there twice"
    assert torch.equal(drawn.classes[drawn.support_labels], LABELS[drawn.support.flatten()])
    assert torch.equal(drawn.classes[drawn.query_labels], LABELS[drawn.query.flatten()])


def test_an_episode_depends_on_its_seed_alone():
    first = fewshot.episode(LABELS, shots=2, queries=3, seed=5)
    torch.rand(3)
    again, other = (fewshot.episode(LABELS, shots=2, queries=3, seed=s) for s in (5, 6))
    for name in ("classes", "support", "query"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    assert not torch.equal(first.query, other.query)


def test_more_shots_add_to_the_support_and_leave_the_queries():
    one, five = (fewshot.episode(LABELS, shots=k, queries=4, seed=1) for k in (1, 5))
    assert torch.equal(one.classes, five.classes) and torch.equal(one.query, five.query)
    assert torch.equal(one.support, five.support[:, :1])


def test_labels_need_not_begin_at_zero_nor_be_without_gaps():
    drawn = fewshot.episode(LABELS * 3 + 2, ways=7, shots=1, queries=1)
    assert sorted(drawn.classes.tolist()) == [2, 5, 8, 11, 14, 17, 20]
    assert drawn.support_labels.tolist() == list(range(7))


def test_every_class_and_every_image_is_drawn_sooner_or_later_and_about_equally_often():
    many = fewshot.episodes(LABELS, 400, ways=3, shots=1, queries=2)
    classes = torch.bincount(torch.cat([e.classes for e in many]), minlength=7) / 400
    assert (classes - 3 / 7).abs().max() < 0.1
    images = torch.bincount(torch.cat([e.query.flatten() for e in many]), minlength=70) / 400
    assert (images - 3 / 7 * 2 / 10).abs().max() < 0.06
    assert len({tuple(e.query.flatten().tolist()) for e in many}) == 400


def test_a_larger_count_adds_to_a_smaller_one():
    for few, more in zip(fewshot.episodes(LABELS, 3, queries=2), fewshot.episodes(LABELS, 5, queries=2), strict=False):
        assert torch.equal(few.query, more.query)


def test_what_episodes_refuse():
    ask = fewshot.episode
    for options, message in [
        ({"ways": 1}, "ways must be a whole number of at least 2, and is 1"),
        ({"shots": 0}, "shots must be a whole number of at least 1, and is 0"),
        ({"queries": True}, "queries must be a whole number of at least 1, and is True"),
        ({"ways": 8, "queries": 1}, "8 ways were asked for, and the labels have 7 classes"),
        ({"shots": 6, "queries": 5}, r"class 0 has 10 images, and an episode takes 6 \+ 5 of a class"),
    ]:
        with pytest.raises(CourseError, match=message):
            ask(LABELS, **options)
    for labels in (LABELS.float(), LABELS[:, None], LABELS[:0], LABELS > 3):
        with pytest.raises(CourseError, match="labels must be whole numbers"):
            ask(labels)
    with pytest.raises(CourseError, match=r"labels must count from 0, and these lie in -1\.\."):
        ask(LABELS - 1)
    with pytest.raises(CourseError, match="episodes must be a whole number of at least 1, and is 0"):
        fewshot.episodes(LABELS, 0)


def test_the_support_as_a_set_of_its_own():
    images = toy()
    drawn = fewshot.Episode(torch.tensor([2, 0]), torch.tensor([[2, 5], [0, 3]]), torch.tensor([[8], [6]]))
    support = fewshot.support_set(images, drawn)
    assert torch.equal(support.images, images.images[[2, 5, 0, 3]])
    assert support.labels.tolist() == [0, 0, 1, 1] and support.classes == ("c", "a")
    assert repr(drawn) == "Episode(2-way 2-shot, 1 queries per class, classes [2, 0])"


# -- prototypes -----------------------------------------------------------------------------------------------------


def test_prototypes_equal_a_loop():
    support = torch.randn(4, 3, 5, generator=generator(0))
    slow = [[sum(support[n, k, j].item() for k in range(3)) / 3 for j in range(5)] for n in range(4)]
    torch.testing.assert_close(fewshot.prototypes(support), torch.tensor(slow))
    torch.testing.assert_close(fewshot.prototypes(support[:, :1]), support[:, 0])


def test_scores_equal_a_loop():
    dice = generator(1)
    queries, centres = torch.randn(6, 5, generator=dice), torch.randn(4, 5, generator=dice)
    euclidean, cosine = (fewshot.scores(queries, centres, m) for m in fewshot.METRICS)
    for m, q in enumerate(queries.double().numpy()):
        for n, c in enumerate(centres.double().numpy()):
            assert euclidean[m, n].item() == pytest.approx(-((q - c) ** 2).sum(), rel=1e-5)
            assert cosine[m, n].item() == pytest.approx(q @ c / np.linalg.norm(q) / np.linalg.norm(c), abs=1e-6)


def test_by_prototype_equals_scikit_learn():
    features = clouds(spread=1.0)
    drawn = fewshot.episode(LABELS, ways=5, shots=3, queries=6, seed=2)
    x, asked = features[drawn.support.flatten()].numpy(), features[drawn.query.flatten()].numpy()
    trusted = NearestCentroid().fit(x, drawn.support_labels.numpy()).predict(asked)
    found = fewshot.by_prototype(features, drawn)
    assert found.dtype == torch.int64 and found.tolist() == trusted.tolist()
    assert 0.4 < (found == drawn.query_labels).float().mean() < 1, "no error to agree in"


def test_what_the_metrics_do_not_see():
    features = clouds(spread=1.0)
    drawn = fewshot.episode(LABELS, shots=2, queries=4)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=generator(3))).Q
    shifted = features @ turn + 5
    assert torch.equal(fewshot.by_prototype(features, drawn), fewshot.by_prototype(shifted, drawn))
    one = fewshot.episode(LABELS, shots=1, queries=4)
    stretched = features * torch.rand(70, 1, generator=generator(4)).add(0.1)
    answers = [fewshot.by_prototype(f, one, "cosine") for f in (features, stretched)]
    assert torch.equal(*answers)
    assert not torch.equal(*(fewshot.by_prototype(f, one) for f in (features, stretched)))


def test_distances_survive_features_far_from_zero():
    features = clouds()
    drawn = fewshot.episode(LABELS, shots=2, queries=4)
    assert torch.equal(fewshot.by_prototype(features, drawn), fewshot.by_prototype(features + 1000, drawn))


def test_what_prototypes_refuse():
    with pytest.raises(CourseError, match=r"prototypes need the features of the support as \(N, K, d\)"):
        fewshot.prototypes(torch.zeros(4, 5))
    with pytest.raises(CourseError, match="'cosin' is unknown .did you mean 'cosine'"):
        fewshot.scores(torch.zeros(1, 2), torch.zeros(1, 2), "cosin")
    drawn = fewshot.episode(LABELS, queries=5)
    with pytest.raises(CourseError, match=r"the features are \(10, 4\); give the features \(M, d\) of the whole set"):
        fewshot.by_prototype(torch.zeros(10, 4), drawn)


# -- the other two ways, and the mean over episodes -------------------------------------------------------------------


@pytest.mark.parametrize("answer", [fewshot.by_prototype, fewshot.by_linear_head])
def test_far_clouds_are_told_apart_and_noise_is_not(answer):
    drawn = fewshot.episodes(LABELS, 30, shots=3, queries=5)
    assert fewshot.accuracy(lambda e: answer(clouds(0.05), e), drawn).mean > 0.97
    noise = torch.randn(70, 6, generator=generator(9))
    assert abs(fewshot.accuracy(lambda e: answer(noise, e), drawn).mean - 0.2) < 0.06


def test_the_linear_head_sees_no_length_and_no_query():
    features = clouds(spread=1.0)
    drawn = fewshot.episode(LABELS, shots=3, queries=5)
    found = fewshot.by_linear_head(features, drawn)
    lengths = torch.rand(70, 1, generator=generator(4)).add(0.1)
    assert torch.equal(found, fewshot.by_linear_head(features * lengths, drawn))
    first = dataclasses.replace(drawn, query=drawn.query[:, :1])
    assert torch.equal(fewshot.by_linear_head(features, first), found.view(5, 5)[:, 0])


def test_fine_tuning_on_the_support_learns_and_leaves_the_backbone_alone():
    images, backbone = toy(), backbones.build()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    drawn = fewshot.episode(images.labels, ways=2, shots=4, queries=6, seed=1)
    config = train.TrainConfig(steps=15, batch_size=64, learning_rate=3e-3)
    found = fewshot.by_finetuning(backbone, images, drawn, config)
    assert (found == drawn.query_labels).float().mean() > 0.9
    assert torch.equal(found, fewshot.by_finetuning(backbone, images, drawn, config))
    fewshot.by_finetuning(backbone, images, drawn, config, tune="head")
    assert all(torch.equal(before[name], value) for name, value in backbone.state_dict().items())


def test_accuracy_is_a_value_per_episode():
    drawn = fewshot.episodes(LABELS, 4, queries=4)
    wrong = iter(range(4))

    def answer(one):
        given = one.query_labels.clone()
        given[: next(wrong)] += 1
        return given

    assert fewshot.accuracy(answer, drawn).values == pytest.approx((1.0, 0.95, 0.9, 0.85))
    with pytest.raises(CourseError, match="there is no episode to measure"):
        fewshot.accuracy(answer, [])
    with pytest.raises(CourseError, match=r"is 20 classes, one per query, and got \(20, 5\)"):
        fewshot.accuracy(lambda e: torch.zeros(20, 5), drawn)
