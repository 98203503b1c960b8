"""Intervals: Student's where every patient has as many images, and true as often as they say, few patients or many."""

import numpy as np
import pytest
from scipy import stats

from benchmarks.coverage import LAYOUTS, SKEWS, count_hits
from sa2va_lab.evaluation.intervals import compare_paired, mean_interval

NONE = (-np.inf, np.inf)


def test_with_as_many_images_a_patient_it_is_students_interval_of_the_patients_means():
    values = np.random.default_rng(3).beta(8, 2, (6, 5))
    ours = mean_interval(values.ravel(), np.repeat(np.arange(6), 5), bounds=NONE)
    theirs = stats.ttest_1samp(values.mean(axis=1), 0).confidence_interval(0.95)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))
    assert ours.reason == "95% t interval over 6 groups, 5.0 degrees of freedom (CR2)"


def test_unequal_patients_by_hand():
    """Two patients, one image and three; N = 4, mean 3/4, sums of residuals -3/4 and 3/4, shares 1/4 and 3/4. The
    variance is (9/16) / 16 x (4/3 + 4) = 3/16. Two sums that add up to 0 move as one: 1 degree of freedom."""
    ours = mean_interval([0, 1, 1, 1], list("abbb"), bounds=NONE)
    reach = stats.t.ppf(0.975, 1) * np.sqrt(3 / 16)
    assert (ours.low, ours.high) == pytest.approx((0.75 - reach, 0.75 + reach))


@pytest.mark.parametrize("skew", SKEWS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_95_per_cent_are_95_per_cent(layout, skew):
    """The share of data sets in which the true mean lies inside; few patients are where bootstraps fail."""
    assert 0.92 <= count_hits(LAYOUTS[layout], SKEWS[skew], repeats=1_000) <= 0.97


def test_images_of_few_patients_give_a_wider_interval_than_as_many_patients():
    random = np.random.default_rng(5)
    patients = np.repeat(np.arange(12), 25)
    values = random.normal(0.7, 0.1, 12)[patients] + random.normal(0, 0.01, len(patients))
    clustered = mean_interval(values, patients)
    rows = mean_interval(values, np.arange(len(values)))
    assert (clustered.high - clustered.low) > 3 * (rows.high - rows.low)  # sqrt(25) = 5 in theory
    assert clustered.low < values.mean() < clustered.high


def test_the_order_of_images_says_nothing():
    values, groups = np.linspace(0, 1, 15), list("aaabbbcccdddeee")
    there, back = mean_interval(values, groups), mean_interval(values[::-1], groups[::-1])
    assert (there.low, there.high) == pytest.approx((back.low, back.high))


def test_a_mean_of_equal_values_has_no_width():
    interval = mean_interval([0.5] * 6, list("aabbcc"))
    assert (interval.low, interval.high) == (0.5, 0.5)


@pytest.mark.parametrize(
    ("values", "groups", "count"),
    [([0.1, 0.2, 0.3], ["a"] * 3, 1), ([0.1, np.nan], ["a", "b"], 1), ([np.nan, np.nan], ["a", "b"], 0), ([], [], 0)],
)
def test_fewer_than_two_groups_have_no_interval(values, groups, count):
    interval = mean_interval(values, groups)
    assert np.isnan([interval.low, interval.high]).all()
    assert interval.n_groups == count
    assert interval.reason.startswith("no interval")


def test_undefined_values_count_for_nothing():
    values, groups = [0.2, 0.4, 0.6, 0.8], list("abcd")
    with_undefined = mean_interval([*values, np.nan, np.nan], [*groups, "a", "e"])
    assert with_undefined == mean_interval(values, groups)


def test_it_never_leaves_the_bounds_and_is_longer_where_there_is_room():
    values, groups = [0.9, 1.0, 0.6], list("abc")
    interval = mean_interval(values, groups)
    assert 0 < interval.low < interval.high < 1
    assert np.mean(values) - interval.low > interval.high - np.mean(values)
    assert mean_interval(values, groups, bounds=NONE).high > 1
    assert mean_interval([0, 9, 1], groups, bounds=(0, np.inf)).low == 0
    assert mean_interval([1, 1, 1], groups).low == 1


def test_a_paired_difference_by_hand():
    # three patients, differences 1, 1, 1: of the 8 patterns of signs only +++ and --- are as far from 0
    found = compare_paired([1, 1, 1], [0, 0, 0], list("abc"))
    assert (found.mean, found.low, found.high, found.p) == (1.0, 1.0, 1.0, 0.25)
    assert found.distinguishable
    # 1 and -1: nothing is nearer to 0 than their sum
    found = compare_paired([1, 0], [0, 1], list("ab"))
    assert (found.mean, found.p, found.distinguishable) == (0.0, 1.0, False)


def test_an_undefined_value_leaves_its_image_out_of_both():
    found = compare_paired([0.5, np.nan, 0.7], [0.4, 0.1, np.nan], list("abc"))
    assert (found.n_images, found.n_groups) == (1, 1)
    assert found.mean == pytest.approx(0.1)
    assert np.isnan([found.low, found.p]).all()
    assert not found.distinguishable


def test_the_p_value_is_small_about_as_often_as_it_says():
    random = np.random.default_rng(8)
    small = 0
    for _ in range(200):
        patients = np.repeat(np.arange(14), 3)
        apart = random.normal(0, 0.1, 14)[patients] + random.normal(0, 0.02, 42)
        small += compare_paired(apart, 0 * apart, patients).p <= 0.05
    assert small <= 20  # 5 % of 200, and room for chance
