"""Intervals against the formula written out, and against data made so that the truth is known."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sslcourse.errors import CourseError
from sslcourse.summary import Summary, of_accuracies, paired_difference, rank_correlation

SHARES = st.lists(st.floats(0, 1), min_size=1, max_size=6)


@pytest.mark.parametrize(("values", "images"), [((0.5, 0.7, 0.6), 40), ((0.9, 0.95), 200), ((0.2, 0.2, 0.2, 0.2), 30)])
def test_the_interval_is_that_of_the_formula(values, images):
    n, mean = len(values), sum(values) / len(values)
    between = sum((value - mean) ** 2 for value in values) / (n - 1) / n
    share = (images * mean + 2) / (images + 4)
    within = share * (1 - share) / images
    freedom = (n - 1) * (between + within) ** 2 / between**2 if between else 1e9
    half = stats.t.ppf(0.975, freedom) * math.sqrt(between + within)
    found = of_accuracies(values, images)
    assert found.half_width == pytest.approx(half)
    assert found.interval == pytest.approx((max(0, mean - half), min(1, mean + half)))


def test_equal_values_on_few_images_are_no_certainty():
    low, high = of_accuracies((0.5, 0.5), 40).interval
    assert low < 0.36 and high > 0.64
    low, high = of_accuracies((1.0, 1.0, 1.0), 40).interval
    assert low < 0.95 and high == 1.0
    assert (
        of_accuracies((0.5, 0.6), 10_000).half_width > of_accuracies((0.5, 0.6, 0.5, 0.6, 0.5, 0.6), 10_000).half_width
    )


def test_without_a_word_on_test_images_it_is_the_usual_interval():
    values = (0.5, 0.7, 0.6, 0.65)
    usual = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert Summary(values).interval == pytest.approx(usual)
    assert of_accuracies(values, None).interval == pytest.approx(usual)


@given(SHARES, st.none() | st.integers(1, 10**6), st.data())
def test_intervals_stay_within_what_can_be_and_records_are_plain_json(values, images, data):
    others = data.draw(st.lists(st.floats(0, 1), min_size=len(values), max_size=len(values)))
    one, other = of_accuracies(values, images), of_accuracies(others, images)
    for summary, least in ((one, 0), (paired_difference(one, other), -1)):
        record = json.loads(json.dumps(summary.record(), allow_nan=False))
        assert record["test_images"] == images and len(record["values"]) == len(values)
        if len(values) == 1:
            assert record["interval95"] is record["std"] is None and "1 seed" in record["caution"]
        else:
            low, high = record["interval95"]
            assert least <= low <= record["mean"] + 1e-9 and record["mean"] - 1e-9 <= high <= 1


def test_a_difference_adds_the_test_sets_parts():
    a, b = of_accuracies((0.8, 0.7, 0.75), 50), of_accuracies((0.6, 0.55, 0.5), 50)
    gain = paired_difference(a, b)
    assert gain.values == pytest.approx((0.2, 0.15, 0.25)) and gain.test_images == 50
    assert gain.sampling == pytest.approx(a.sampling + b.sampling) and gain.sampling > 0
    assert gain.half_width > paired_difference(a.values, b.values).half_width
    assert paired_difference(a, of_accuracies(b.values, 60)).sampling == 0, "not the same images: nothing is known"
    for sides in (((1, 2), (1, 2, 3)), ((), ())):
        with pytest.raises(CourseError, match=r"as many values on both sides, at least one, and got \d and \d"):
            paired_difference(*sides)


def test_too_few_are_said_to_be_too_few():
    assert of_accuracies((0.5,) * 5, 1000).caution == ""
    assert of_accuracies((0.5,), 1000).caution.startswith("too few to tell: 1 seed")
    assert "2 seeds" in of_accuracies((0.5, 0.6), 1000).caution
    assert "one of 40 test images is worth 2.5 points" in of_accuracies((0.5,) * 5, 40).caution
    gain = paired_difference(of_accuracies((0.5, 0.6), 40), of_accuracies((0.4, 0.6), 40))
    assert "2 seeds" in gain.caution and "40 test images" in gain.caution


@pytest.mark.parametrize(("seeds", "images", "luck"), [(2, 40, 0.1), (3, 40, 0.3), (5, 40, 0.3), (5, 400, 0.5)])
def test_nineteen_of_twenty_intervals_hold_the_truth(seeds, images, luck):
    """Images are more or less hard for two networks and all seeds, and seeds more or less lucky; the truth is over all."""
    generator = np.random.default_rng(0)

    def chances(skill, hard, lucky):
        return 1 / (1 + np.exp(-(skill + hard + lucky)))

    skills = np.array([0.5, 0.9])[:, None, None]
    truth = chances(skills, generator.normal(0, 2, 200_000), generator.normal(0, luck, 200_000)).mean(axis=(1, 2))
    held = differences_held = usual_held = 0
    for _ in range(300):
        hard, lucky = generator.normal(0, 2, (1, 1, images)), generator.normal(0, luck, (1, seeds, 1))
        right = generator.random((2, seeds, images)) < chances(skills, hard, lucky)
        one, other = (of_accuracies(values, images) for values in right.mean(axis=2))
        difference, usual = paired_difference(other, one), Summary(one.values)
        held += one.interval[0] <= truth[0] <= one.interval[1]
        differences_held += difference.interval[0] <= truth[1] - truth[0] <= difference.interval[1]
        usual_held += usual.interval[0] <= truth[0] <= usual.interval[1]
    assert held >= 0.93 * 300 and differences_held >= 0.93 * 300
    if (seeds, images) == (5, 40):
        assert usual_held < 0.93 * 300, "seeds alone don't know that the images could have been others"


def test_rank_correlation_is_spearmans_and_its_interval_that_of_the_bootstrap():
    first, second = [3.0, 1.0, 2.0, 5.0, 4.0, 4.0, 9.0], [2.0, 1.0, 3.0, 8.0, 2.0, 5.0, 7.0]
    value, interval = rank_correlation(first, second, draws=200)
    assert value == pytest.approx(stats.spearmanr(first, second).statistic, abs=1e-12)
    draws = np.random.default_rng(0).integers(7, size=(200, 7))
    each = [stats.spearmanr(np.array(first)[d], np.array(second)[d]).statistic for d in draws]
    assert interval == pytest.approx(np.nanpercentile(each, (2.5, 97.5)), abs=1e-9)


def test_rank_correlation_refuses_what_has_no_ranks():
    with pytest.raises(CourseError, match="four pairs"):
        rank_correlation([1, 2, 3], [1, 2, 3])
    with pytest.raises(CourseError, match="differ on both sides"):
        rank_correlation([1, 1, 1, 1], [1, 2, 3, 4])
    with pytest.raises(CourseError, match="got 4 and 5"):
        rank_correlation([1, 2, 3, 4], [1, 2, 3, 4, 5])
