"""From domain to domain: the matrix against a loop, and batch-norm statistics against their definition."""

from __future__ import annotations

import copy

import pytest
import torch

from sslcourse import augment, backbones, evaluate
from sslcourse.data.imageset import ImageSet
from sslcourse.data.splits import Splits
from sslcourse.device import generator
from sslcourse.errors import CourseError
from sslcourse.transfer import domains


def part(n, seed, shift, classes=("a", "b", "c")):
    """Class c is bright in channel (c + shift) % 3: domains whose shifts differ contradict each other."""
    dice = generator(seed)
    labels = torch.arange(n) % 3
    images = torch.randint(0, 60, (n, 3, 8, 8), dtype=torch.uint8, generator=dice)
    images[torch.arange(n), (labels + shift) % 3] += 150
    return ImageSet(images, labels, classes, f"toy {shift}")


def toy(shift):
    labelled = part(60, 0, shift)
    return Splits(labelled.without_labels(), labelled, part(15, 1, shift), part(30, 2, shift), f"toy {shift}")


def colours(splits):
    """Three numbers of an image: the mean of each channel."""
    return evaluate.Features(*(s.images.float().mean(dim=(2, 3)) for s in (splits.train, splits.val, splits.test)))


@pytest.fixture(scope="module")
def world():
    splits = {"plain": toy(0), "same": toy(0), "shifted": toy(1)}
    return {name: colours(s) for name, s in splits.items()}, splits


# -- the matrix -----------------------------------------------------------------------------------------------------


def test_the_matrix_reads_from_source_to_target(world):
    features, splits = world
    found = domains.transfer_matrix(features, splits, labels_per_class=5, seeds=2)
    assert set(found) == {(s, t) for s in splits for t in splits}
    for source, target in found:
        same = (source == "shifted") == (target == "shifted")
        assert found[source, target].mean == (1.0 if same else 0.0), (source, target)
        assert len(found[source, target].values) == 2


def test_the_diagonal_is_the_probe_of_evaluate():
    splits, backbone = toy(0), backbones.build()
    features = evaluate.Features.of(backbone, splits, stage=1)
    found = domains.transfer_matrix({"toy": features}, {"toy": splits}, 2, seeds=(3, 8))
    assert found["toy", "toy"].values == tuple(evaluate.probe_accuracy(features, splits, 2, s) for s in (3, 8))


def test_the_target_gives_nothing_but_test_features(world):
    """Other labelled images, and other validation images, of a target must not change what is measured on it."""
    features, splits = world
    before = domains.transfer_matrix(features, splits, 3, seeds=1)
    noise = evaluate.Features(torch.randn(60, 3), torch.randn(15, 3), features["shifted"].test)
    after = domains.transfer_matrix(features | {"shifted": noise}, splits, 3, seeds=1)
    assert before["plain", "shifted"].values == after["plain", "shifted"].values


def test_what_the_matrix_refuses(world):
    features, splits = world
    with pytest.raises(CourseError, match="need the same domains, and name plain and plain, same"):
        domains.transfer_matrix({"plain": features["plain"]}, {n: splits[n] for n in ("plain", "same")})
    with pytest.raises(CourseError, match="name none and none"):
        domains.transfer_matrix({}, {})
    short = evaluate.Features(features["same"].train[:9], features["same"].val, features["same"].test)
    with pytest.raises(CourseError, match="features of same have 9 rows for train, and there are 60"):
        domains.transfer_matrix(features | {"same": short}, splits)
    renamed = Splits(*(part(n, 0, 0, ("a", "b", "d")) for n in (60, 60, 15, 30)), "renamed")
    with pytest.raises(CourseError, match="same has other classes than plain: a, b, d"):
        domains.transfer_matrix(features, splits | {"same": renamed})
    with pytest.raises(CourseError, match="at least one seed"):
        domains.transfer_matrix(features, splits, seeds=0)
    with pytest.raises(CourseError, match="21 images per class were asked for"):
        domains.transfer_matrix(features, splits, labels_per_class=21)


# -- batch norm -----------------------------------------------------------------------------------------------------


def statistics(network):
    return {name: value for name, value in network.state_dict().items() if "running" in name}


def test_adapted_statistics_are_the_mean_and_variance_of_the_images():
    backbone, images = backbones.build(), part(90, 4, 1)
    adapted = domains.adapt_batch_norm(backbone, images)
    with torch.no_grad():
        x = adapted.trunk.conv1(adapted.preprocess(augment.to_float(images.images)))  # (90, 16, 4, 4)
    torch.testing.assert_close(adapted.trunk.bn1.running_mean, x.mean(dim=(0, 2, 3)))
    torch.testing.assert_close(adapted.trunk.bn1.running_var, x.var(dim=(0, 2, 3)))
    with torch.no_grad():  # and so every channel leaves the first norm with mean 0 and variance 1
        y = adapted.trunk.bn1(x)
    torch.testing.assert_close(y.mean(dim=(0, 2, 3)), torch.zeros(16), atol=1e-4, rtol=0)
    torch.testing.assert_close(y.var(dim=(0, 2, 3)), torch.ones(16), atol=1e-2, rtol=0)


def test_adapting_changes_statistics_alone_and_a_copy_alone():
    backbone = backbones.build().train()
    before = copy.deepcopy(backbone.state_dict())
    adapted = domains.adapt_batch_norm(backbone, part(40, 0, 0), batch_size=16)
    assert all(torch.equal(before[name], value) for name, value in backbone.state_dict().items()) and backbone.training
    assert not adapted.training
    moved = {name for name, value in adapted.state_dict().items() if not torch.equal(before[name], value)}
    assert moved and all("running" in name or "num_batches" in name for name in moved)
    assert {m.momentum for m in adapted.modules() if hasattr(m, "momentum")} == {0.1}


def test_adapting_twice_is_adapting_once_and_order_does_not_count():
    images = part(80, 3, 0)
    once = domains.adapt_batch_norm(backbones.build(), images)
    twice = domains.adapt_batch_norm(once, images)
    mixed = domains.adapt_batch_norm(backbones.build(), images.select(torch.randperm(80, generator=generator(0))))
    for name, value in statistics(once).items():
        torch.testing.assert_close(statistics(twice)[name], value)
        torch.testing.assert_close(statistics(mixed)[name], value, atol=1e-4, rtol=1e-3)


def test_images_sorted_by_class_do_not_shrink_the_variance():
    images = part(90, 4, 0)
    by_class = images.select(images.labels.argsort(stable=True))
    whole = domains.adapt_batch_norm(backbones.build(), images).trunk.bn1.running_var
    parts = domains.adapt_batch_norm(backbones.build(), by_class, batch_size=30).trunk.bn1.running_var
    torch.testing.assert_close(parts, whole, rtol=0.1, atol=0)


def test_an_uneven_last_batch_does_not_weigh_more():
    images = torch.randint(0, 256, (65, 3, 8, 8), dtype=torch.uint8, generator=generator(0))
    images[64:] = 255
    whole = domains.adapt_batch_norm(backbones.build(), images).trunk.bn1.running_mean
    parts = domains.adapt_batch_norm(backbones.build(), images, batch_size=32).trunk.bn1.running_mean
    torch.testing.assert_close(parts, whole, rtol=0.05, atol=0.02)


def test_what_adapting_refuses():
    with pytest.raises(CourseError, match="need at least two images, and 1 was given"):
        domains.adapt_batch_norm(backbones.build(), part(1, 0, 0))
    with pytest.raises(CourseError, match="vit-tiny has no batch norm"):
        domains.adapt_batch_norm(backbones.build("vit-tiny"), part(4, 0, 0))
