"""The course of a curve: smoothed with its spread, where it fell, where it stood still, where it jumped.

Rules, so that two people get the same answer: the smoothed curve is the mean over a window of 1/50 of all lines (at
least 5). A curve falls if it ends lower by more than twice its usual spread. The fast fall ends where 90 % of the whole
fall is done. The plateau begins after the last new low that was lower than the one before by 1 % of the whole fall or
more. A spike comes after the fast fall, and stands above the median of the 51 lines around it by more than ten times
their median deviation, by half of it, and by 10 % of the whole fall.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import median_filter

WINDOW_SHARE, LEAST_WINDOW = 50, 5
FAST_SHARE = 0.9
STEP_SHARE = 0.01
SPIKE_LINES, SPIKE_DEVIATIONS, SPIKE_SHARE, SPIKE_SHARE_OF_FALL = 51, 10, 0.5, 0.1
LEAST_LINES = 10  # fewer lines have no course


@dataclass(frozen=True)
class Course:
    """A curve's course. iterations, mean, spread: (lines,), the spread as one standard deviation within the window.

    lowest: (iteration, smoothed value). fast_until: where the fast fall ends, None where nothing fell. plateau_from:
    the iteration after which nothing improved, None where it improved to the end. spikes: [(iteration, value)].
    """

    iterations: np.ndarray
    mean: np.ndarray
    spread: np.ndarray
    window: int
    lowest: tuple[int, float]
    fast_until: int | None
    plateau_from: int | None
    spikes: list[tuple[int, float]]


def follow(iterations: np.ndarray, values: np.ndarray) -> Course:
    """The course of a curve of finite values (lines,), at least one."""
    window = min(max(LEAST_WINDOW, len(values) // WINDOW_SHARE), len(values))
    mean, spread = smooth(values, window)
    lows = np.minimum.accumulate(mean)
    fall = mean[0] - lows[-1]
    fast, plateau = None, None
    if len(values) >= LEAST_LINES and fall > 2 * np.median(spread):
        fast = int(iterations[np.argmax(lows <= mean[0] - FAST_SHARE * fall)])
        last = _last_step(lows, STEP_SHARE * fall)
        # within one window of the end nobody can tell
        plateau = int(iterations[last]) if last < len(values) - 1 - window else None
    best = int(np.argmin(mean))
    spikes = _find_spikes(iterations, values, least=max(SPIKE_SHARE_OF_FALL * fall, 1e-3))
    spikes = [spike for spike in spikes if fast is None or spike[0] > fast]
    return Course(iterations, mean, spread, window, (int(iterations[best]), float(mean[best])), fast, plateau, spikes)


def smooth(values: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation over a window around each value; at the ends the window is what there is of it."""
    import pandas as pd

    around = pd.Series(values).rolling(window // 2 * 2 + 1, center=True, min_periods=1)
    return around.mean().to_numpy(), around.std(ddof=0).to_numpy()


def _last_step(lows: np.ndarray, step: float) -> int:
    """Where a falling curve last went below its former level by `step` or more."""
    last, level = 0, lows[0]
    changes = np.flatnonzero(np.diff(lows) < 0) + 1
    for place in changes:
        if lows[place] <= level - step:
            last, level = int(place), lows[place]
    return last


def _find_spikes(iterations: np.ndarray, values: np.ndarray, *, least: float) -> list[tuple[int, float]]:
    if len(values) < LEAST_LINES:
        return []
    middle = median_filter(values, SPIKE_LINES, mode="nearest")
    distance = values - middle
    usual = 1.4826 * median_filter(np.abs(distance), SPIKE_LINES, mode="nearest")
    high = (distance > SPIKE_DEVIATIONS * usual) & (distance > SPIKE_SHARE * np.abs(middle)) & (distance > least)
    return [(int(iterations[place]), float(values[place])) for place in np.flatnonzero(high)]
