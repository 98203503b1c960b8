import numpy as np
import pytest

from sa2va_lab.training.log import follow, smooth


def test_smooth_is_the_mean_and_deviation_of_each_window():
    values = np.random.default_rng(0).normal(1e6, 1, 50)
    mean, spread = smooth(values, 7)
    for place in range(50):
        window = values[max(place - 3, 0) : place + 4]
        assert mean[place] == pytest.approx(window.mean(), abs=1e-8)
        assert spread[place] == pytest.approx(window.std(), abs=1e-5)


def test_phases_of_a_curve_drawn_by_hand():
    """From 10 down to 1 in a straight line over 100 lines, then level: 90 % of the fall is done at line 90."""
    values = np.concatenate([np.linspace(10, 1, 101), np.ones(400)])
    course = follow(np.arange(len(values)) * 10, values)
    assert course.window == 10
    assert course.fast_until == pytest.approx(900, abs=10)
    assert course.plateau_from == pytest.approx(1000, abs=60)
    assert course.lowest[1] == pytest.approx(1)
    assert course.spikes == []


def test_a_curve_that_falls_to_the_end_has_no_plateau():
    course = follow(np.arange(200), np.linspace(5, 1, 200))
    assert course.plateau_from is None
    assert course.fast_until == pytest.approx(180, abs=3)


@pytest.mark.parametrize("values", [np.linspace(1, 5, 200), np.ones(200), np.random.default_rng(1).normal(5, 1, 200)])
def test_a_curve_that_does_not_fall_has_no_phases(values):
    course = follow(np.arange(200), values)
    assert (course.fast_until, course.plateau_from) == (None, None)


def test_spikes_are_found_and_noise_is_not():
    values = 1 + np.random.default_rng(0).normal(0, 0.02, 500)
    assert follow(np.arange(500), values).spikes == []
    values[[100, 300]] = 4.0, 7.0
    assert follow(np.arange(500) * 10, values).spikes == [(1000, 4.0), (3000, 7.0)]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_lines(count):
    course = follow(np.arange(count), np.linspace(3, 1, count))
    assert len(course.mean) == count
    assert course.spikes == []
