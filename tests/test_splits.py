"""Splits: right sizes, class by class, from a seed, and never the same image on both sides."""

import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sslcourse.data import ImageSet, Leak, Splits, find_leaks
from sslcourse.data.splits import apportion, complete, fingerprints, groups_of, joined, stratified_split, without
from sslcourse.errors import CourseError

PARTS = st.lists(st.integers(1, 9), min_size=1, max_size=4)
SEEDS = st.integers(0, 2**40)


def images(*contents, labels=None, classes=("a", "b")):
    """One 4x4 image per number; equal numbers are equal images."""
    pixels = torch.tensor(contents, dtype=torch.int64).reshape(-1, 1, 1, 1).expand(-1, 3, 4, 4).contiguous()
    pixels[:, 0] //= 251
    pixels[:, 1:] %= 251
    labels = None if labels is None else torch.tensor(labels)
    return ImageSet(pixels.to(torch.uint8), labels, classes if labels is not None else ())


@given(st.integers(0, 500), PARTS)
def test_apportion_is_within_one_of_the_exact_share_or_mends_an_empty_part(count, parts):
    sizes = apportion(count, parts)
    assert sum(sizes) == count and min(sizes) >= 0
    exact = [count * part / sum(parts) for part in parts]
    if count >= len(parts):
        assert min(sizes) >= 1
    if min(exact) >= 1 or count < len(parts):
        assert all(abs(size - share) < 1 for size, share in zip(sizes, exact, strict=True))


@pytest.mark.parametrize(
    ("count", "sizes"),
    [(0, [0, 0, 0]), (1, [1, 0, 0]), (2, [1, 1, 0]), (3, [1, 1, 1]), (5, [3, 1, 1]), (10, [6, 2, 2])],
)
def test_apportion_by_hand(count, sizes):
    assert apportion(count, (3, 1, 1)) == sizes


@given(st.lists(st.integers(0, 4), max_size=80), PARTS, SEEDS)
def test_a_split_holds_every_index_once_and_every_class_in_its_share(labels, parts, seed):
    labels = torch.tensor(labels, dtype=torch.int64)
    cut = stratified_split(labels, parts, seed)
    assert torch.equal(torch.cat(cut).sort().values, torch.arange(len(labels)))
    for label in labels.unique().tolist():
        expected = apportion(int((labels == label).sum()), parts)
        assert [int((labels[part] == label).sum()) for part in cut] == expected


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 15)), max_size=60), SEEDS)
def test_groups_stay_together(rows, seed):
    labels = torch.tensor([label for label, _ in rows], dtype=torch.int64)
    groups = torch.tensor([group for _, group in rows], dtype=torch.int64)
    cut = stratified_split(labels, (3, 1, 1), seed, groups)
    seen = [set(groups[part].tolist()) for part in cut]
    assert torch.equal(torch.cat(cut).sort().values, torch.arange(len(labels)))
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])


@given(st.lists(st.integers(0, 20), max_size=60), PARTS, SEEDS)
def test_each_class_is_divided_by_its_groups(groups, parts, seed):
    groups = torch.tensor(groups, dtype=torch.int64)
    labels = groups % 3
    cut = stratified_split(labels, parts, seed, groups)
    for label in labels.unique().tolist():
        counted = [len(groups[part][labels[part] == label].unique()) for part in cut]
        assert counted == apportion(len(groups[labels == label].unique()), parts)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=25))
def test_joined_groups_are_the_connected_parts(rows):
    a, b = (torch.tensor([row[i] for row in rows], dtype=torch.int64) for i in (0, 1))
    linked = (a[:, None] == a) | (b[:, None] == b)  # (N, N)
    for _ in rows:
        linked = (linked.float() @ linked.float()) > 0
    found = joined(a, b)
    assert torch.equal(found[:, None] == found, linked)


def test_what_belongs_together_is_never_cut_apart():
    contents, labels = list(range(60)), [i % 2 for i in range(60)]
    whole = ImageSet(images(*contents).images, torch.tensor(labels), ("a", "b"), groups=torch.arange(60) // 4)
    splits = complete("x", whole)
    seen = [set(getattr(splits, part).groups.tolist()) for part in ("train", "val", "test")]
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2]) and len(seen[0] | seen[1] | seen[2]) == 15
    assert splits.unlabeled.groups is None


def test_a_group_that_given_splits_tear_apart_is_dropped_from_train_and_said():
    def part(*contents, groups):
        found = images(*contents, labels=[i % 2 for i in range(len(contents))])
        return ImageSet(found.images, found.labels, found.classes, groups=torch.tensor(groups))

    train, test = part(1, 2, 3, 4, 5, 6, groups=[0, 0, 1, 1, 2, 2]), part(7, 8, groups=[2, 3])
    splits = complete("x", train, val=part(9, 10, groups=[4, 5]), test=test)
    assert splits.train.groups.tolist() == [0, 0, 1, 1] and len(splits.test) == 2
    assert "2 images were dropped from train, being of a group that is also in test." in splits.warnings
    with pytest.raises(CourseError, match="every image of train in x is of a group that is also in"):
        complete("x", part(1, 2, groups=[2, 2]), val=part(9, 10, groups=[4, 5]), test=test)


def test_a_split_follows_its_seed():
    labels = torch.arange(60) % 3
    same, again, other = (stratified_split(labels, (1, 1), seed)[0] for seed in (1, 1, 2))
    assert torch.equal(same, again) and not torch.equal(same, other)


def test_fingerprints_tell_every_pixel_apart_and_nothing_else():
    pixels = torch.randint(0, 256, (8, 3, 5, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels[3] = pixels[0]
    pixels[5] = pixels[0]
    pixels[5, 2, 4, 4] ^= 1
    assert groups_of(fingerprints(pixels)).tolist() == [0, 1, 2, 0, 3, 4, 5, 6]
    assert fingerprints(pixels.permute(0, 1, 3, 2).contiguous().permute(0, 1, 3, 2)) == fingerprints(pixels)


def test_leaks_are_found_where_something_is_measured_and_only_there():
    splits = Splits(
        unlabeled=images(1, 2, 30, 20),
        train=images(1, 2, 31),
        val=images(20, 21, 32, 21),
        test=images(30, 31, 32, 33),
    )
    assert find_leaks(splits) == [
        Leak("val", 2, "test", 2),
        Leak("train", 2, "test", 1),
        Leak("unlabeled", 2, "test", 0),
        Leak("unlabeled", 3, "val", 0),
    ]


@settings(max_examples=60)
@given(*[st.lists(st.integers(0, 40), min_size=1, max_size=15) for _ in range(4)], SEEDS)
def test_complete_never_leaks_and_keeps_test_whole(train, val, test, unlabeled, seed):
    def labelled(contents):
        return images(*contents, labels=[content % 2 for content in contents])

    given_splits = {"val": labelled(val), "test": labelled(test), "unlabeled": images(*unlabeled)}
    try:
        splits = complete("x", labelled(train), **given_splits, seed=seed)
    except CourseError as error:
        assert "is also in a split that is measured on" in str(error)
        return
    assert find_leaks(splits) == []
    assert torch.equal(splits.test.images, given_splits["test"].images)
    before = len(train) + len(val) + len(unlabeled)
    after = len(splits.train) + len(splits.val) + len(splits.unlabeled)
    assert (before > after) == bool(splits.warnings)


@settings(max_examples=60)
@given(st.lists(st.integers(0, 60), min_size=2, max_size=60), SEEDS)
def test_a_cut_split_never_leaks_and_loses_nothing(contents, seed):
    splits = complete("x", images(*contents, labels=[content % 2 for content in contents]), seed=seed)
    assert find_leaks(splits) == [] and splits.warnings == ()
    assert len(splits.train) + len(splits.val) + len(splits.test) == len(contents)
    assert splits.unlabeled.labels is None and torch.equal(splits.unlabeled.images, splits.train.images)


def test_a_class_too_small_for_three_splits_is_noted():
    splits = complete("x", images(*range(12), labels=[0] * 10 + [1] * 2))
    assert any("class 'b' has too few different images" in note for note in splits.notes)
    assert not any("class 'a'" in note for note in splits.notes)


def test_splits_describe_themselves():
    splits = complete("x", images(*range(10), labels=[0, 1] * 5))
    assert str(splits) == "x: 6 unlabeled, 6 train, 2 val, 2 test; 2 classes, 4x4 pixels"
    assert splits.classes == ("a", "b") and splits.size == (4, 4)


def test_notes_are_left_out_by_what_they_are_about_and_not_by_their_words():
    train = images(*range(40), labels=[0, 1] * 20)
    splits = complete("toy", train=train, notes=["a file cut from the training images by seed.csv was left out."])
    assert len(splits.notes) == 3 and [getattr(note, "about", "") for note in splits.notes] == [
        "",
        "a cut",
        "unlabeled",
    ]
    assert splits.notes_of_all == splits.notes[:1] and without(splits.notes, "unlabeled") == splits.notes[:2]
    again = pickle.loads(pickle.dumps(splits.notes))
    assert again == splits.notes and again[1].about == "a cut"
