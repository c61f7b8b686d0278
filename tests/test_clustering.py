"""Clustering against brute force, scikit-learn and the mathematics; DeepCluster with its guards and without them."""

import dataclasses
import itertools
import math

import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from sslcourse import backbones, train
from sslcourse.data.imageset import ImageSet
from sslcourse.device import generator
from sslcourse.errors import CourseError
from sslcourse.transfer import clustering


def blobs(count=60, clusters=3, dim=4, seed=0, apart=12.0):
    """Well separated groups: features float (count, dim), and the group of each, int64 (count,)."""
    dice = generator(seed)
    centres = apart * torch.eye(dim)[:clusters]
    which = torch.arange(count) % clusters
    return centres[which] + torch.randn(count, dim, generator=dice), which


def colours(count=48, seed=0):
    """Three kinds of noisy one-coloured pictures, uint8 (count, 3, 32, 32), and the kind of each."""
    which = torch.arange(count) % 3
    pixels = torch.randint(0, 60, (count, 3, 32, 32), dtype=torch.uint8, generator=generator(seed))
    pixels[torch.arange(count), which] += 150
    return pixels, which


# -- k-means ------------------------------------------------------------------------------------------------------------


def test_k_means_finds_separated_groups_whatever_the_seed():
    features, which = blobs()
    for seed in range(3):
        found = clustering.k_means(features, 3, seed=seed)
        assert clustering.accuracy(which, found.labels) == 1
        assert found.sizes.tolist() == [20, 20, 20]


def test_k_means_is_a_fixed_point_of_lloyds_step():
    features = torch.randn(200, 5, generator=generator(1))
    found = clustering.k_means(features, 7, seed=3)
    nearest = torch.tensor(
        [min(range(7), key=lambda k: float((x - found.centres[k]).norm())) for x in features.double()]
    )
    assert torch.equal(found.labels, nearest) and torch.equal(found.assign(features), nearest)
    for k in range(7):
        torch.testing.assert_close(found.centres[k], features[nearest == k].double().mean(dim=0), rtol=1e-6, atol=1e-6)
    inertia = sum(float((x - found.centres[k]).square().sum()) for x, k in zip(features.double(), nearest, strict=True))
    assert found.inertia == pytest.approx(inertia, rel=1e-6)


def test_k_means_depends_on_the_seed_alone_and_more_starts_are_no_worse():
    features = torch.randn(150, 6, generator=generator(0))
    a, b = (clustering.k_means(features, 12, seed=5, starts=1) for _ in range(2))
    assert torch.equal(a.labels, b.labels) and torch.equal(a.centres, b.centres)
    assert clustering.k_means(features, 12, seed=5, starts=8).inertia <= a.inertia + 1e-9
    others = [clustering.k_means(features, 12, seed=seed, starts=1).inertia for seed in range(5)]
    assert len({round(value, 6) for value in others}) > 1


def test_k_means_leaves_no_cluster_empty():
    features = torch.cat([torch.zeros(50, 2), torch.eye(2) * 9])  # two outliers, and a heap
    assert clustering.k_means(features, 3).sizes.min() >= 1


@pytest.mark.parametrize(
    "features, clusters, message",
    [
        (torch.ones(20, 3), 2, "only 1 rows are different"),
        (torch.ones(3, 2), 4, "4 clusters were asked for, and there are 3 rows"),
        (torch.full((5, 2), torch.nan), 2, "NaN or infinity"),
        (torch.full((5, 2), torch.inf), 2, "NaN or infinity"),
        (torch.ones(5), 2, r"\(N, d\)"),
        (torch.ones(0, 3), 2, r"\(N, d\)"),
        (torch.randn(9, 2), 0, "clusters must be a whole number of at least 1, and is 0"),
        (torch.randn(9, 2), 2.5, "and is 2.5"),
        (torch.randn(9, 2), True, "and is True"),
    ],
)
def test_k_means_refuses_in_one_sentence(features, clusters, message):
    with pytest.raises(CourseError, match=message):
        clustering.k_means(features, clusters)


def test_assigning_features_of_another_width_is_refused():
    with pytest.raises(CourseError, match="5 columns, and those learned from had 4"):
        clustering.k_means(blobs()[0], 3).assign(torch.randn(2, 5))


# -- whitening ----------------------------------------------------------------------------------------------------------


def test_whitening_equals_scikit_learns_and_gives_unit_rows():
    features = torch.randn(80, 9, generator=generator(0)) * torch.linspace(0.1, 5, 9)
    white = clustering.Whitening(4, unit=False).fit(features)(features)
    want = torch.from_numpy(PCA(4, whiten=True, random_state=0).fit_transform(features.double().numpy()))
    torch.testing.assert_close(white, want)
    torch.testing.assert_close(white.T.cov(), torch.eye(4, dtype=torch.float64))
    unit = clustering.Whitening(4).fit(features)(features)
    torch.testing.assert_close(unit.norm(dim=1), torch.ones(80, dtype=torch.float64))
    plain = clustering.Whitening(4, whiten=False, unit=False).fit(features)(features)
    assert (plain.var(dim=0)[:-1] > plain.var(dim=0)[1:]).all()


def test_whitening_learns_from_what_it_was_fitted_on_and_not_from_what_it_is_given():
    features, _ = blobs()
    white = clustering.Whitening(2).fit(features)
    together = white(torch.cat([features[:5], 1000 + features[5:9]]))
    torch.testing.assert_close(together[:5], white(features[:5]))


def test_whitening_leaves_out_directions_that_are_rounding():
    features = torch.zeros(50, 6)
    features[:, :2] = torch.randn(50, 2, generator=generator(0))
    features[:, 5] = 1e-6 * torch.randn(50, generator=generator(1))
    assert clustering.Whitening(6).fit(features)(features).shape == (50, 2)
    with pytest.raises(CourseError, match="all rows of the features are the same"):
        clustering.Whitening(2).fit(torch.ones(9, 3))
    with pytest.raises(CourseError, match=r"call fit\(features\) first"):
        clustering.Whitening(2)(features)
    with pytest.raises(CourseError, match="at least 2 rows"):
        clustering.Whitening(2).fit(torch.ones(1, 3))


# -- clusters against classes -------------------------------------------------------------------------------------------


def test_the_match_is_the_best_of_all_permutations():
    dice = generator(0)
    for _ in range(20):
        labels, clusters = torch.randint(4, (2, 30), generator=dice)
        labels[:4] = clusters[:4] = torch.arange(4)
        best = max(
            sum(order[k] == y for k, y in zip(clusters.tolist(), labels.tolist(), strict=True))
            for order in itertools.permutations(range(4))
        )
        assert clustering.accuracy(labels, clusters) == pytest.approx(best / 30)


def test_the_match_beats_the_greedy_one_and_names_each_class_once():
    #              cluster 0  1
    # class 0               5  4     greedy: class 0 takes cluster 0 (5), class 1 is left with cluster 1 (0): 5 of 13
    # class 1               4  0     best: class 0 takes cluster 1, class 1 takes cluster 0: 8 of 13
    labels = torch.tensor([0] * 9 + [1] * 4)
    clusters = torch.tensor([0] * 5 + [1] * 4 + [0] * 4)
    assert clustering.contingency(labels, clusters).tolist() == [[5, 4], [4, 0]]
    assert clustering.match(labels, clusters).tolist() == [1, 0]
    assert clustering.accuracy(labels, clusters) == pytest.approx(8 / 13)
    assert clustering.purity(labels, clusters) == pytest.approx(9 / 13)


def test_more_clusters_than_classes_raise_purity_and_not_accuracy():
    labels = torch.arange(60) % 3
    alone = torch.arange(60)
    assert clustering.purity(labels, alone) == 1
    assert clustering.accuracy(labels, alone) == pytest.approx(3 / 60)
    assert sorted(clustering.match(labels, alone).tolist())[-4:] == [-1, 0, 1, 2]
    assert clustering.accuracy(labels, torch.zeros(60, dtype=torch.int64)) == pytest.approx(1 / 3)


def test_scores_are_scikit_learns_and_ignore_the_numbers_of_clusters():
    dice = generator(3)
    labels = torch.randint(5, (200,), generator=dice)
    clusters = torch.where(torch.rand(200, generator=dice) < 0.6, labels, torch.randint(5, (200,), generator=dice))
    found = clustering.scores(labels, clusters)
    assert found["nmi"] == pytest.approx(normalized_mutual_info_score(labels, clusters))
    assert found["ari"] == pytest.approx(adjusted_rand_score(labels, clusters))
    other = torch.tensor([3, 0, 4, 1, 2])[clusters]
    assert clustering.scores(labels, other) == pytest.approx(found)
    assert clustering.scores(labels, labels) == pytest.approx(dict.fromkeys(("accuracy", "nmi", "ari", "purity"), 1.0))
    chance = clustering.scores(labels, torch.randint(5, (200,), generator=dice))
    assert abs(chance["ari"]) < 0.03 and chance["nmi"] < 0.08


@pytest.mark.parametrize(
    "labels, clusters, message",
    [
        (torch.zeros(3, dtype=torch.int64), torch.zeros(4, dtype=torch.int64), "3 labels and 4 clusters"),
        (torch.zeros(3), torch.zeros(3, dtype=torch.int64), "labels must be whole numbers"),
        (torch.zeros(3, dtype=torch.int64), torch.tensor([0, -1, 0]), "the smallest is -1"),
        (torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), "labels must be whole numbers"),
    ],
)
def test_scores_refuse_what_are_no_labels(labels, clusters, message):
    with pytest.raises(CourseError, match=message):
        clustering.scores(labels, clusters)


# -- DeepCluster --------------------------------------------------------------------------------------------------------

QUICK = train.TrainConfig(steps=4, batch_size=16, learning_rate=5e-3, weight_decay=0.0)


def learn(seed=0, **options):
    pixels, which = colours()
    backbone = backbones.build(seed=seed)
    said = []
    settings = {"clusters": 3, "rounds": 2, "config": QUICK, "device": "cpu", "progress": False} | options
    rounds = clustering.deepcluster(backbone, pixels, on_round=lambda i, r: said.append(i), **settings)
    return backbone, rounds, which, said


def test_deepcluster_trains_and_tells_what_it_did():
    before = backbones.build(seed=0)
    backbone, rounds, which, said = learn()
    assert said == [0, 1] and len(rounds) == 2 and backbone.training, "in the mode that it was in"
    assert all(r.labels.shape == (48,) and r.sizes.sum() == 48 and r.sizes.min() > 0 for r in rounds)
    assert math.isnan(rounds[0].agreement)
    assert rounds[1].agreement == pytest.approx(normalized_mutual_info_score(rounds[0].labels, rounds[1].labels))
    changed = [not torch.equal(a, b) for a, b in zip(before.parameters(), backbone.parameters(), strict=True)]
    assert all(changed)
    assert all(0 < r.loss < 3 * math.log(3) for r in rounds)


def test_deepcluster_depends_on_the_seeds_alone_and_never_looks_at_labels():
    pixels, which = colours()
    _, first, _, _ = learn()
    torch.manual_seed(99)
    labelled = ImageSet(pixels, which, ("a", "b", "c"))
    backbone = backbones.build(seed=0)
    second = clustering.deepcluster(backbone, labelled, 3, 2, QUICK, device="cpu", progress=False)
    assert all(torch.equal(a.labels, b.labels) and a.loss == b.loss for a, b in zip(first, second, strict=True))


def test_balanced_sampling_draws_every_label_equally_often():
    """The batches of a lopsided labelling, seen through an augmentation that counts."""
    pixels, _ = colours(100)
    pixels[:, 0] = 0
    pixels[:5, 0] = 255  # marks the rare label
    labels = torch.ones(100, dtype=torch.int64)
    labels[:5] = 0
    share = {}
    for balanced in (True, False):
        seen = []

        def count(images, generator, seen=seen):
            seen.append((images[:, 0].mean(dim=(1, 2)) > 0.9).float())
            return images

        classifier = train.Classifier(backbones.build(seed=0), 2)
        config = train.TrainConfig(steps=12, batch_size=100, learning_rate=1e-3)
        options = {"balanced": balanced, "augmentation": count, "device": "cpu", "progress": False}
        clustering._train_on(classifier, pixels, labels, config, **options)
        share[balanced] = torch.cat(seen).mean().item()
    assert 0.44 < share[True] < 0.56 and share[False] < 0.1


def test_which_images_a_step_draws_depends_on_seed_and_step_alone(monkeypatch):
    pixels, labels = colours()
    orders = []

    def fit_nothing(model, loss, images, annotations, config, *, order, **options):
        orders.append(order)
        return train.History([{"step": 1, "loss": 0.0}])

    monkeypatch.setattr(train, "fit_supervised", fit_nothing)
    classifier = train.Classifier(backbones.build(seed=0), 3)
    for seed in (0, 0, 1):
        config = dataclasses.replace(QUICK, seed=seed)
        clustering._train_on(classifier, pixels, labels, config, balanced=True, augmentation=lambda x, generator: x)
    first, again, other = orders
    assert torch.equal(first(3), again(3)) and first(0).shape == (16,)
    assert torch.equal(first(3), again(3)), "whatever was drawn before"
    assert not torch.equal(first(3), first(4)) and not torch.equal(first(3), other(3))


def test_labels_that_died_out_stay_away_when_the_classifier_relabels():
    _, rounds, _, _ = learn(relabel="classifier", balanced=False, rounds=5)
    alive = [set(r.labels.unique().tolist()) for r in rounds]
    assert all(later <= earlier for earlier, later in itertools.pairwise(alive))


def test_deepcluster_refuses_what_it_cant_do():
    with pytest.raises(CourseError, match="relabel must be one of k-means, classifier, and is 'kmeans'"):
        learn(relabel="kmeans")
    with pytest.raises(CourseError, match="rounds must be a whole number of at least 1"):
        learn(rounds=0)
    with pytest.raises(CourseError, match="49 clusters were asked for, and there are 48 rows"):
        learn(clusters=49)
