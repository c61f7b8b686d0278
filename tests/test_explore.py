"""What features say about pictures without labels: neighbours, copies, outliers, and what to label next."""

import pytest
import torch

from sslcourse import explore
from sslcourse.errors import CourseError


@pytest.fixture
def heap():
    """Four groups of 30, 20, 10 and 5 rows around far apart centres, and one row far from all."""
    generator = torch.Generator().manual_seed(0)
    centres = 8 * torch.eye(4)
    rows = [c + 0.3 * torch.randn(n, 4, generator=generator) for c, n in zip(centres, (30, 20, 10, 5), strict=True)]
    return torch.cat([*rows, torch.tensor([[-40.0, -40, -40, -40]])])


def group(number):
    return sum(int(number >= edge) for edge in (30, 50, 60, 65))


def test_neighbours_are_those_of_a_loop(heap):
    x = explore.unit(heap)
    similarity, number = explore.nearest(x, x[:7], 4)
    for i in range(7):
        order = sorted(range(len(x)), key=lambda j: -float(x[i].double() @ x[j].double()))[:4]
        assert number[i].tolist() == order and number[i, 0] == i
        assert similarity[i].tolist() == pytest.approx([float(x[i] @ x[j]) for j in order], abs=1e-6)


def test_in_parts_as_at_once(heap, monkeypatch):
    whole = explore.near_duplicates(heap, least=0.9), explore.oddness(heap, 3)
    monkeypatch.setattr(explore, "ROWS", 7)
    parts = explore.near_duplicates(heap, least=0.9), explore.oddness(heap, 3)
    assert [p[:2] for p in whole[0]] == [p[:2] for p in parts[0]]
    assert torch.allclose(whole[1], parts[1], atol=1e-6)


def test_copies_are_found_once_and_not_with_themselves(heap):
    copied = torch.cat([heap, heap[[3, 40]]])
    pairs = explore.near_duplicates(copied, least=0.999999)
    assert {(3, 66), (40, 67)} <= {p[:2] for p in pairs} and all(i < j for i, j, _ in pairs)
    assert pairs[0][2] >= pairs[-1][2]


def test_of_very_many_pairs_the_most_alike_are_kept(heap, monkeypatch):
    every = explore.near_duplicates(heap, least=-1.0)
    monkeypatch.setattr(explore, "ROWS", 7)
    kept = explore.near_duplicates(heap, least=-1.0, most=5)
    assert [s for _, _, s in kept] == pytest.approx([s for _, _, s in every[:5]], abs=1e-6)
    assert len(every) == len(heap) * (len(heap) - 1) // 2


def test_the_odd_one_out_is_the_oddest(heap):
    distance = explore.oddness(heap, 5)
    assert distance.argmax() == 65
    x = explore.unit(heap)
    want = sorted(1 - float(x[4] @ x[j]) for j in range(len(x)) if j != 4)[:5]
    assert float(distance[4]) == pytest.approx(sum(want) / 5, abs=1e-5)
    assert torch.isfinite(explore.oddness(heap[:3], 10)).all()  # fewer others than neighbours
    assert explore.oddness(torch.ones(4, 3)).tolist() == pytest.approx([1.0] * 4)  # no direction left at all


def test_typiclust_takes_one_of_each_group_the_largest_first(heap):
    chosen = explore.choose(heap[:65], 4, seed=1)
    assert [group(i) for i in chosen.tolist()] == [0, 1, 2, 3]
    more = explore.choose(heap[:65], 2, labelled=torch.tensor([0, 64]), seed=1)
    assert sorted(group(i) for i in more.tolist()) == [1, 2]


def test_k_center_is_the_greedy_of_a_loop(heap):
    x = explore.unit(heap)
    chosen = [5]
    while len(chosen) < 5:
        distance = [min(1 - float(x[i] @ x[c]) for c in chosen) for i in range(len(x))]
        chosen.append(max((i for i in range(len(x)) if i not in chosen), key=lambda i: distance[i]))
    assert explore.choose(heap, 4, labelled=torch.tensor([5]), how="k-center").tolist() == chosen[1:]
    assert len(set(explore.choose(heap, 66, how="k-center").tolist())) == 66


@pytest.mark.parametrize("how", ["typiclust", "k-center", "random"])
def test_choices_are_new_different_and_repeatable(heap, how):
    labelled = torch.tensor([1, 33, 65])
    chosen = explore.choose(heap, 20, labelled=labelled, how=how, seed=3)
    assert len(set(chosen.tolist())) == 20 and not set(chosen.tolist()) & set(labelled.tolist())
    assert torch.equal(chosen, explore.choose(heap, 20, labelled=labelled, how=how, seed=3))
    everything = explore.choose(heap, 63, labelled=labelled, how=how)
    assert sorted([*everything.tolist(), *labelled.tolist()]) == list(range(66))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: explore.unit(x[0]), r"\(N, d\)"),
        (lambda x: explore.unit([1, 2]), "list was given"),
        (lambda x: explore.unit(x[:0]), r"\(0, 4\)"),
        (lambda x: explore.unit(torch.where(x > 5, torch.nan, x)), "pictures aren't finite"),
        (lambda x: explore.oddness(x[:1]), "no neighbours"),
        (lambda x: explore.oddness(x, 0), "at least 1"),
        (lambda x: explore.near_duplicates(x, least=2), "from -1 to 1"),
        (lambda x: explore.choose(x, 67), "66 have no label"),
        (lambda x: explore.choose(x, True), "whole number"),
        (lambda x: explore.choose(x, 1, labelled=torch.tensor([66])), "0 to 65"),
        (lambda x: explore.choose(x, 1, how="typclust"), "did you mean 'typiclust'"),
    ],
)
def test_what_cannot_be_explored_is_said(heap, call, words):
    with pytest.raises(CourseError, match=words):
        call(heap)
