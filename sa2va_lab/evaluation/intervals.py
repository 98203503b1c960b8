"""How far a mean would move had other patients been drawn.

Frames of one patient resemble each other, so patients are the units: the variance is taken between patients, not
between images, and the interval uses Student's t with the degrees of freedom that so few and so unequal patients leave.
Where patients are five, resampling them (percentile or BCa bootstrap) holds the true mean in 81 to 84 of 100 data sets,
this in 95 (benchmarks/coverage.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.special import expit, logit

from sa2va_lab.shown import Shown

FLIPS = 10_000  # patterns of signs that are drawn where there are too many to try them all


@dataclass(frozen=True)
class Interval:
    """low and high are NaN where no interval exists; reason says how it was made, or why there is none."""

    low: float
    high: float
    n_groups: int
    reason: str


@dataclass(frozen=True, repr=False)
class Difference(Shown):
    """mean: of first less second over the n_images that both have. low, high: its 95 % interval over patients. p:
    two-sided sign-flip test of patients. distinguishable: the interval leaves out 0, and p is at most 0.05 or the least
    that so few patients can give (2 / 2^n: 0.06 for five)."""

    mean: float
    low: float
    high: float
    p: float
    n_images: int
    n_groups: int
    distinguishable: bool
    reason: str

    @property
    def facts(self) -> dict[str, str]:
        """See `Shown`."""
        on, apart = f"{self.n_images} images of {self.n_groups} patients", "yes" if self.distinguishable else "no"
        return {"Difference": self.told, "On": on, "Distinguishable": apart}

    @property
    def told(self) -> str:
        """The mean with its interval."""
        return f"{self.mean:+.4f} [{self.low:+.4f}, {self.high:+.4f}], p = {self.p:.3f}"


def mean_interval(values, groups, *, level: float = 0.95, bounds: tuple[float, float] = (0.0, 1.0)) -> Interval:
    """Interval of the mean of `values` (n,), where NaN is "undefined" and left out; `groups` (n,) are labels.

    bounds: what such a mean cannot leave, infinite where it can; the interval stays within (`_stay_within`).
    """
    values = np.asarray(values, float)
    defined = np.isfinite(values)
    return ratio_interval(np.where(defined, values, 0.0), defined, groups, level=level, bounds=bounds)


def ratio_interval(
    numerators, denominators, groups, *, level: float = 0.95, bounds: tuple[float, float] = (0.0, 1.0)
) -> Interval:
    """Interval of sum(numerators) / sum(denominators), all (n,), when whole groups are drawn.

    A mean is such a ratio (of values to ones), and so is every pooled metric (of counts to counts). The variance is the
    cluster-robust one with the small-sample correction CR2, the degrees of freedom are Satterthwaite's (Bell and
    McCaffrey 2002; Pustejovsky and Tipton 2018), for the one regressor that a ratio has. With groups of one size and no
    bounds this is Student's interval of the groups' means. Groups with a denominator of zero are left out.
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; expected a share between 0 and 1, such as 0.95")
    above, below = _sum_groups(groups, numerators, denominators)
    above, below = above[below > 0], below[below > 0]
    count = len(below)
    if count < 2:
        return Interval(np.nan, np.nan, count, f"no interval: {count} group{'s' * (count != 1)}, at least 2 are needed")
    ratio, share = above.sum() / below.sum(), below / below.sum()
    apart = (above - ratio * below) / below.sum()
    variance = (apart**2 / (1 - share)).sum()
    # sums of residuals under equal, independent images: diag(n) - n n' / N, each weighed as in the variance
    spread = (np.diag(share) - np.outer(share, share)) / np.sqrt(np.outer(1 - share, 1 - share))
    freedom = np.trace(spread) ** 2 / (spread**2).sum()
    reach = stats.t.ppf((1 + level) / 2, freedom) * np.sqrt(variance)
    low, high = _stay_within(ratio, reach, bounds)
    reason = f"{level:.0%} t interval over {count} groups, {freedom:.1f} degrees of freedom (CR2)"
    return Interval(low, high, count, reason)


def _stay_within(middle: float, reach: float, bounds: tuple[float, float]) -> tuple[float, float]:
    """middle less and plus reach, taken on the logit scale between finite bounds (delta method), which no interval
    leaves: longer on the side where there is room, as the scores are that end at 1."""
    least, most = bounds
    if not np.isfinite(most - least) or not least < middle < most or not reach:
        return tuple(float(end) for end in np.clip([middle - reach, middle + reach], least, most))
    place = (middle - least) / (most - least)
    way = reach / (most - least) / (place * (1 - place))
    return tuple(float(least + (most - least) * expit(logit(place) + step)) for step in (-way, way))


def compare_paired(first, second, groups, *, seed: int = 0) -> Difference:
    """The mean difference of two runs on the same images: `first` and `second` (n,), NaN left out of both."""
    apart, groups = np.asarray(first, float) - np.asarray(second, float), np.asarray(groups, str)
    kept = np.isfinite(apart)
    apart, groups = apart[kept], groups[kept]
    interval = mean_interval(apart, groups, bounds=(-1.0, 1.0))
    [sums] = _sum_groups(groups, apart)
    p = _flip_signs(sums, seed=seed) if len(sums) > 1 else np.nan
    clear = bool((interval.low > 0 or interval.high < 0) and p <= max(0.05, 2 / 2 ** len(sums)))
    mean = float(apart.mean()) if len(apart) else np.nan
    return Difference(mean, interval.low, interval.high, p, len(apart), len(sums), clear, interval.reason)


def compare_scores(table, others: dict[str, dict[str, float]]) -> list[dict]:
    """[{name, dice, low, high, n_images, difference}]: the Dice of a table with its interval, then that of others.

    table: of `metrics.evaluate_run`. others: {name: {id: Dice}}, looked at on the table's images alone. difference: a
    `Difference`, Dice of the table less that of the other, image by image; None for the table's own.
    """
    own, groups, rows = table["dice"].to_numpy(float), table["group"], []
    for name, scores in {"": None, **others}.items():
        theirs = own if scores is None else np.array([scores.get(sample_id, np.nan) for sample_id in table["id"]])
        around, count = mean_interval(theirs, groups), int(np.isfinite(theirs).sum())
        row = {"name": name, "dice": float(np.nanmean(theirs)) if count else np.nan, "n_images": count}
        difference = None if scores is None else compare_paired(own, theirs, groups)
        rows.append(row | {"low": around.low, "high": around.high, "difference": difference})
    return rows


def _sum_groups(groups, *columns) -> list[np.ndarray]:
    """The sum of each column (n,) in each group, (number of groups,) each."""
    labels, index = np.unique(np.asarray(groups, str), return_inverse=True)
    return [np.bincount(index, np.asarray(column, float), minlength=len(labels)) for column in columns]


def _flip_signs(sums: np.ndarray, *, seed: int) -> float:
    """Share of sign patterns of the groups' sums that are as far from 0 as the observed one; all of them up to 12."""
    if len(sums) <= 12:
        signs = 1 - 2 * ((np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums))) & 1)
        return float(np.mean(np.abs(signs @ sums) >= abs(sums.sum()) - 1e-12))
    signs = np.random.default_rng(seed).choice([-1, 1], size=(FLIPS, len(sums)))
    return float((1 + np.sum(np.abs(signs @ sums) >= abs(sums.sum()) - 1e-12)) / (FLIPS + 1))
