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

FLIPS = 10_000  # patterns of signs: all of 13 patients; of more, so many are drawn


@dataclass(frozen=True)
class Mean:
    """A mean over the n_images, of n_groups patients, where it is defined; NaN where that is none. low, high: its 95 %
    interval, NaN where there is none; reason says how it was made, or why there is none."""

    mean: float
    low: float
    high: float
    n_images: int
    n_groups: int
    reason: str


@dataclass(frozen=True, repr=False)
class Difference(Shown, Mean):
    """The mean of first less second over the images that both have. p: two-sided sign-flip test of patients.
    distinguishable: the interval leaves out 0, and p is at most 0.05 or the least that so few patients can give
    (2 / 2^n: 0.06 for five)."""

    p: float
    distinguishable: bool

    @property
    def facts(self) -> dict[str, str]:
        """See `Shown`."""
        on, apart = f"{self.n_images} images of {self.n_groups} patients", "yes" if self.distinguishable else "no"
        return {"Difference": self.told, "On": on, "Distinguishable": apart}

    @property
    def told(self) -> str:
        """The mean with its interval."""
        return f"{self.mean:+.4f} [{self.low:+.4f}, {self.high:+.4f}], p = {self.p:.3f}"


def mean_interval(values, groups, *, bounds: tuple[float, float] = (0.0, 1.0)) -> Mean:
    """The mean of `values` (n,), where NaN is "undefined" and left out, and its interval when whole groups are drawn;
    `groups` (n,) are labels.

    bounds: what such a mean cannot leave, infinite where it can; the interval stays within (`_stay_within`). A mean is
    a ratio of sums. The variance is the cluster-robust one with the small-sample correction CR2, the degrees of freedom
    are Satterthwaite's (Bell and McCaffrey 2002; Pustejovsky and Tipton 2018), for the one regressor that a ratio has.
    With groups of one size and no bounds this is Student's interval of the groups' means.
    """
    values, groups = np.asarray(values, float), np.asarray(groups, str)
    defined = np.isfinite(values)
    values, groups = values[defined], groups[defined]
    _, above, below = sum_groups(groups, values, np.ones(len(values)))
    mean, count = float(values.mean()) if len(values) else np.nan, len(below)
    if count < 2:
        reason = f"no interval: {count} group{'s' * (count != 1)}, at least 2 are needed"
        return Mean(mean, np.nan, np.nan, len(values), count, reason)
    ratio, share = above.sum() / below.sum(), below / below.sum()
    apart = (above - ratio * below) / below.sum()
    variance = (apart**2 / (1 - share)).sum()
    # sums of residuals under equal, independent images: diag(n) - n n' / N, each weighed as in the variance
    spread = (np.diag(share) - np.outer(share, share)) / np.sqrt(np.outer(1 - share, 1 - share))
    freedom = np.trace(spread) ** 2 / (spread**2).sum()
    low, high = _stay_within(ratio, stats.t.ppf(0.975, freedom) * np.sqrt(variance), bounds)
    reason = f"95% t interval over {count} groups, {freedom:.1f} degrees of freedom (CR2)"
    return Mean(mean, low, high, len(values), count, reason)


def _stay_within(middle: float, reach: float, bounds: tuple[float, float]) -> tuple[float, float]:
    """middle less and plus reach, taken on the logit scale between finite bounds (delta method), which no interval
    leaves: longer on the side where there is room, as the scores are that end at 1."""
    least, most = bounds
    if not np.isfinite(most - least) or not least < middle < most or not reach:
        return tuple(float(end) for end in np.clip([middle - reach, middle + reach], least, most))
    place = (middle - least) / (most - least)
    way = reach / (most - least) / (place * (1 - place))
    return tuple(float(least + (most - least) * expit(logit(place) + step)) for step in (-way, way))


def compare_paired(first, second, groups) -> Difference:
    """The mean difference of two runs on the same images: `first` and `second` (n,), NaN left out of both."""
    apart, groups = np.asarray(first, float) - np.asarray(second, float), np.asarray(groups, str)
    found, p = mean_interval(apart, groups, bounds=(-1.0, 1.0)), np.nan
    if found.n_groups > 1:
        _, sums = sum_groups(groups[np.isfinite(apart)], apart[np.isfinite(apart)])
        how = {"permutation_type": "samples", "n_resamples": FLIPS, "vectorized": True, "random_state": 0}
        p = float(stats.permutation_test((sums,), np.sum, **how).pvalue)
    clear = bool((found.low > 0 or found.high < 0) and p <= max(0.05, 2 / 2**found.n_groups))
    return Difference(**vars(found), p=p, distinguishable=clear)


def compare_scores(table, others: dict[str, dict[str, float]]) -> list[dict]:
    """[{name, dice, low, high, n_images, difference}]: the Dice of a table with its interval, then that of others.

    table: of `metrics.evaluate_run`. others: {name: {id: Dice}}, looked at on the table's images alone. difference: a
    `Difference`, Dice of the table less that of the other, image by image; None for the table's own.
    """
    own, groups, rows = table["dice"].to_numpy(float), table["group"], []
    for name, scores in {"": None, **others}.items():
        theirs = own if scores is None else table["id"].map(scores).to_numpy(float)
        found = mean_interval(theirs, groups)
        row = {"name": name, "dice": found.mean, "n_images": found.n_images, "low": found.low, "high": found.high}
        rows.append(row | {"difference": None if scores is None else compare_paired(own, theirs, groups)})
    return rows


def sum_groups(groups, *columns) -> tuple[np.ndarray, ...]:
    """The groups' names, and the sum of each column (n, ...) in each group, (number of groups, ...)."""
    names, index = np.unique(np.asarray(groups, str), return_inverse=True)
    sums = [np.zeros((len(names), *np.shape(column)[1:])) for column in columns]
    for total, column in zip(sums, columns, strict=True):
        np.add.at(total, index, column)
    return names, *sums
