"""Intervals: against scipy where both apply, and wider where images come in groups."""

import numpy as np
import pytest
from scipy import stats

from sa2va_lab.evaluation.intervals import bootstrap_bca, bootstrap_mean, bootstrap_ratio, compare_paired


def test_with_one_image_a_group_it_is_scipys_percentile_bootstrap():
    values = np.random.default_rng(3).beta(8, 2, 40)
    ours = bootstrap_mean(values, np.arange(40))
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=10_000, method="percentile", vectorized=True, rng=np.random.default_rng(4)
    ).confidence_interval
    assert ours.low == pytest.approx(theirs.low, abs=0.003)
    assert ours.high == pytest.approx(theirs.high, abs=0.003)
    assert ours.n_groups == 40
    assert ours.reason == "95% percentile bootstrap over 40 groups, 10,000 resamples, seed 0"


def test_images_of_few_patients_give_a_wider_interval_than_as_many_patients():
    random = np.random.default_rng(5)
    patients = np.repeat(np.arange(12), 25)
    values = random.normal(0.7, 0.1, 12)[patients] + random.normal(0, 0.01, len(patients))
    clustered = bootstrap_mean(values, patients)
    rows = bootstrap_mean(values, np.arange(len(values)))
    assert (clustered.high - clustered.low) > 3 * (rows.high - rows.low)  # sqrt(25) = 5 in theory
    assert clustered.low < values.mean() < clustered.high


def test_it_covers_the_truth_about_as_often_as_it_says():
    random = np.random.default_rng(6)
    covered = 0
    for trial in range(200):
        patients = np.repeat(np.arange(30), 3)
        values = random.normal(0.7, 0.1, 30)[patients] + random.normal(0, 0.02, 90)
        interval = bootstrap_mean(values, patients, resamples=1_000, seed=trial)
        covered += interval.low <= 0.7 <= interval.high
    assert 0.88 <= covered / 200 <= 0.99


def test_the_seed_decides_and_nothing_else():
    values, groups = np.linspace(0, 1, 15), list("aaabbbcccdddeee")
    assert bootstrap_mean(values, groups) == bootstrap_mean(values, groups)
    assert bootstrap_mean(values, groups) == bootstrap_mean(values[::-1], groups[::-1])
    assert bootstrap_mean(values, groups, seed=1) != bootstrap_mean(values, groups)


def test_a_mean_of_equal_values_has_no_width():
    interval = bootstrap_mean([0.5] * 6, list("aabbcc"))
    assert (interval.low, interval.high) == (0.5, 0.5)
    assert "fewer than 10 groups" in interval.reason


@pytest.mark.parametrize(
    ("values", "groups", "count"),
    [([0.1, 0.2, 0.3], ["a"] * 3, 1), ([0.1, np.nan], ["a", "b"], 1), ([np.nan, np.nan], ["a", "b"], 0), ([], [], 0)],
)
def test_fewer_than_two_groups_have_no_interval(values, groups, count):
    interval = bootstrap_mean(values, groups)
    assert np.isnan([interval.low, interval.high]).all()
    assert interval.n_groups == count
    assert interval.reason.startswith("no interval")


def test_undefined_values_count_for_nothing():
    values, groups = [0.2, 0.4, 0.6, 0.8], list("abcd")
    with_undefined = bootstrap_mean([*values, np.nan, np.nan], [*groups, "a", "e"])
    assert with_undefined == bootstrap_mean(values, groups)


def test_a_ratio_of_sums_weighs_groups_by_their_size():
    above, below, groups = [9, 9, 0], [10, 10, 1000], list("abc")
    interval = bootstrap_ratio(above, below, groups)
    assert interval.low == 0.0  # the large group drawn three times
    assert interval.high == pytest.approx(0.9)  # never drawn
    assert bootstrap_ratio([1, 1, 5], [1, 1, 0], groups).n_groups == 2


def test_a_level_is_a_share():
    values, groups = np.linspace(0, 1, 12), np.arange(12)
    half, most = bootstrap_mean(values, groups, level=0.5), bootstrap_mean(values, groups, level=0.99)
    assert most.low < half.low < half.high < most.high
    with pytest.raises(ValueError, match="level is 95"):
        bootstrap_mean(values, groups, level=95)


def test_bca_with_one_image_a_group_is_scipys():
    values = np.random.default_rng(3).beta(8, 2, 40)
    ours = bootstrap_bca(values, np.arange(40))
    theirs = stats.bootstrap((values,), np.mean, n_resamples=10_000, method="BCa", rng=np.random.default_rng(4))
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.003)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.003)
    assert ours.low != bootstrap_mean(values, np.arange(40)).low


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
    for trial in range(200):
        patients = np.repeat(np.arange(14), 3)
        apart = random.normal(0, 0.1, 14)[patients] + random.normal(0, 0.02, 42)
        small += compare_paired(apart, 0 * apart, patients, resamples=500, seed=trial).p <= 0.05
    assert small <= 20  # 5 % of 200, and room for chance
