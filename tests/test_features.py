"""The border of what learns from features: NaN from a network that went wrong is one sentence, everywhere."""

import pytest
import torch

from sslcourse import backbones, evaluate, features, train
from sslcourse.data.imageset import ImageSet
from sslcourse.data.splits import Splits
from sslcourse.device import generator
from sslcourse.errors import CourseError
from sslcourse.features import checked_features, checked_labels
from sslcourse.transfer import clustering, defects, discovery, domains, fewshot, similarity


def labelled(count, seed):
    images = torch.randint(256, (count, 3, 8, 8), dtype=torch.uint8, generator=generator(seed))
    return ImageSet(images, torch.arange(count) % 2, ("a", "b"), "toy", factors={"warmth": torch.rand(count)})


@pytest.fixture(scope="module")
def splits():
    parts = [labelled(count, seed) for seed, count in enumerate((24, 12, 12))]
    return Splits(parts[0].without_labels(), *parts, "toy")


@pytest.fixture(scope="module")
def broken():
    """A backbone as divergence leaves it: NaN in one filter."""
    backbone = backbones.build(image_size=8, seed=0)
    with torch.no_grad():
        backbone.trunk.layer1[0].conv1.weight[0] = torch.nan
    return backbone


LABELS = torch.arange(12) % 2
GOOD = torch.rand(12, 4, generator=generator(0))
BAD = GOOD.clone()
BAD[3:5, 1] = torch.nan
MAPS = torch.rand(3, 4, 2, 2, generator=generator(0))
BAD_MAPS = MAPS.clone()
BAD_MAPS[1, 0, 0, 0] = torch.inf
EPISODE = fewshot.episode(LABELS, ways=2, shots=1, queries=5)

TAKES_FEATURES = {
    "kNN, bank": lambda: evaluate.knn_scores(BAD, LABELS, GOOD, classes=2),
    "kNN, queries": lambda: evaluate.knn_scores(GOOD, LABELS, BAD, classes=2),
    "probe, train": lambda: evaluate.LinearProbe().fit(BAD, LABELS, GOOD, LABELS),
    "probe, val": lambda: evaluate.LinearProbe().fit(GOOD, LABELS, BAD, LABELS),
    "probe, predict": lambda: evaluate.LinearProbe().fit(GOOD, LABELS, GOOD, LABELS).predict(BAD),
    "whitening": lambda: clustering.Whitening(2).fit(BAD),
    "whitening, new": lambda: clustering.Whitening(2).fit(GOOD)(BAD),
    "k-means": lambda: clustering.k_means(BAD, 2),
    "clusters, assign": lambda: clustering.k_means(GOOD, 2).assign(BAD),
    "nearest normal": lambda: defects.NearestNormal().fit(BAD),
    "nearest normal, score": lambda: defects.NearestNormal().fit(GOOD).score(BAD),
    "Mahalanobis": lambda: defects.Mahalanobis().fit(BAD),
    "CKA": lambda: similarity.linear_cka(GOOD, BAD),
    "prototypes": lambda: fewshot.by_prototype(BAD, EPISODE),
    "few-shot, linear": lambda: fewshot.by_linear_head(BAD, EPISODE),
    "affinity": lambda: discovery.affinity(BAD),
}


@pytest.mark.parametrize("name", TAKES_FEATURES)
def test_features_that_are_not_finite_are_counted(name):
    with pytest.raises(CourseError, match=r"not all finite numbers: 2 of 12 rows hold NaN or infinity; look at"):
        TAKES_FEATURES[name]()


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, -torch.inf])
def test_one_number_that_is_not_finite_is_found(wrong):
    rows = GOOD.clone()
    rows[7, 2] = wrong
    with pytest.raises(CourseError, match="1 of 12 rows"):
        checked_features(rows)


def test_finite_features_whose_sum_is_not_are_taken():
    large = torch.full((3, 2), torch.finfo(torch.float32).max)
    assert not large.sum().isfinite()
    assert torch.equal(checked_features(large), large)


@pytest.mark.parametrize("find", [discovery.spectral, discovery.two_means, discovery.seed_expansion])
def test_maps_that_are_not_finite_are_counted(find):
    with pytest.raises(CourseError, match="the maps are not all finite numbers: 1 of 3 rows"):
        find(BAD_MAPS)


@pytest.mark.parametrize("protocol", ["linear", "knn", "finetune"])
def test_a_backbone_that_went_wrong_is_one_sentence(splits, broken, protocol):
    with pytest.raises(CourseError, match=r"(NaN or infinity).*(look at the weights|load the weights)"):
        evaluate.evaluate(broken, splits, protocol=protocol, labels_per_class=2, seeds=1, device="cpu")


def test_what_trains_or_adapts_a_backbone_that_went_wrong_says_so(splits, broken):
    few = train.TrainConfig(steps=1, batch_size=4)
    for use in (
        lambda: evaluate.factor_probe(evaluate.Features.of(broken, splits), splits),
        lambda: train.finetune(broken, splits.train, few, device="cpu"),
        lambda: clustering.deepcluster(broken, splits.train, 2, 1, few, device="cpu", progress=False),
        lambda: domains.adapt_batch_norm(broken, splits.train, device="cpu"),
        lambda: fewshot.by_finetuning(broken, splits.train, EPISODE, few, device="cpu"),
    ):
        with pytest.raises(CourseError, match="NaN or infinity"):
            use()


def test_what_is_checked_keeps_its_precision_and_loses_its_gradient():
    x = torch.rand(3, 2, dtype=torch.float64, requires_grad=True)
    found = checked_features(x)
    assert found.dtype == torch.float64 and not found.requires_grad and torch.equal(found, x.detach())
    assert checked_features([[1, 2], [3, 4]]).shape == (2, 2)


@pytest.mark.parametrize(
    "wrong", [torch.rand(3), torch.rand(0, 2), torch.rand(3, 0), torch.rand(2, 2, dtype=torch.cfloat)]
)
def test_what_is_no_table_is_refused(wrong):
    with pytest.raises(CourseError, match=r"the features must be numbers \(N, d\) with at least 1 rows, one per image"):
        checked_features(wrong)


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (torch.tensor([0.0, 1.0]), "whole numbers"),
        (torch.tensor([True, False]), "whole numbers"),
        (torch.tensor([[0, 1]]), "whole numbers"),
        (torch.tensor([0, 1, 1]), "there are 3 labels, and there are 2 rows"),
        (torch.tensor([], dtype=torch.int64), "there are 0 labels|whole numbers"),
        (torch.tensor([0, -1]), r"lie in 0..2, and these lie in -1..0"),
        (torch.tensor([0, 3]), r"lie in 0..2, and these lie in 0..3"),
    ],
)
def test_what_are_no_labels_is_refused(labels, sentence):
    with pytest.raises(CourseError, match=sentence):
        checked_labels(labels, 2, 3)


# --- how many images at once -------------------------------------------------------------------------------------------


def test_the_batch_follows_what_a_forward_pass_takes():
    """By the network and the size of the images, not by the memory that happens to be free."""
    tiny, large = backbones.build(), backbones.build("resnet18", image_size=112)
    assert features.batch_size(tiny, (32, 32)) == features.MOST_AT_ONCE
    few = features.batch_size(large, (112, 112))
    assert features.batch_size(large, (224, 224)) < few < features.batch_size(large, (64, 64))
    widest = 64 * 28 * 28 * 4 if large.stem == "imagenet" else 64 * 112 * 112 * 4  # bytes of one map of one image
    assert few * widest * 3 < features.ROOM  # 512 of them took 2 GB


def test_measuring_the_batch_leaves_the_network_as_it_was():
    network = backbones.build().train()
    network.trunk.layer1.eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    features.batch_size(network, (32, 32))
    assert network.training and not network.trunk.layer1.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize("arch", ["resnet-tiny", "vit-tiny"])
def test_bits_do_not_depend_on_the_batch(arch, monkeypatch):
    """33 images: in parts of 16, one would be left over, whose products are rounded otherwise."""
    network = backbones.build(arch)
    images = torch.randint(0, 256, (33, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    whole = evaluate.extract(network, images, device="cpu")
    for most in (16, 11, 8):
        monkeypatch.setattr(features, "batch_size", lambda backbone, size, most=most: most)
        assert torch.equal(evaluate.extract(network, images, device="cpu"), whole)
        parts = features.in_batches(network, images)
        assert sum(map(len, parts)) == 33 and max(map(len, parts)) <= most and min(map(len, parts)) > most // 2 - 1


def test_a_class_token_is_read_wherever_features_are():
    network = backbones.build("vit-tiny")
    images = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network.eval().trunk.class_token(network.preprocess(images / 255))
    torch.testing.assert_close(evaluate.extract(network, images, stage="class", device="cpu"), expected)
    for stage in ("clas", 5, 0, True, None, 1.0):
        with pytest.raises(CourseError, match="stage must be one of 1, 2, 3, 4, all, class"):
            evaluate.extract(network, images, stage=stage, device="cpu")
    with pytest.raises(CourseError, match="resnet-tiny has no class token"):
        evaluate.extract(backbones.build(), images, stage="class", device="cpu")
