"""How far a mean would move had other patients been drawn.

Frames of one patient resemble each other, so whole groups are drawn again, never single images: an interval that
resamples rows is too narrow by about the square root of the frames a patient.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
FEW_GROUPS = 10
CHUNK = 1_000


@dataclass(frozen=True)
class Interval:
    """low and high are NaN where no interval exists; reason says how it was made, or why there is none."""

    low: float
    high: float
    n_groups: int
    reason: str


def bootstrap_mean(values, groups, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Interval of the mean of `values` (n,), where NaN is "undefined" and left out; `groups` (n,) are labels."""
    values = np.asarray(values, float)
    defined = np.isfinite(values)
    return bootstrap_ratio(
        np.where(defined, values, 0.0), defined.astype(float), groups, level=level, resamples=resamples, seed=seed
    )


def bootstrap_ratio(
    numerators, denominators, groups, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Percentile interval of sum(numerators) / sum(denominators) when whole groups are drawn with replacement.

    A mean is such a ratio (of values to ones), and so is every pooled metric (of counts to counts). All (n,);
    groups with a denominator of zero say nothing and are left out. The same seed gives the same interval.
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; expected a share between 0 and 1, such as 0.95")
    labels, index = np.unique(np.asarray(groups, str), return_inverse=True)
    above = np.bincount(index, np.asarray(numerators, float), minlength=len(labels))
    below = np.bincount(index, np.asarray(denominators, float), minlength=len(labels))
    above, below = above[below > 0], below[below > 0]
    count = len(below)
    if count < 2:
        return Interval(np.nan, np.nan, count, f"no interval: {count} group{'s' * (count != 1)}, at least 2 are needed")
    random = np.random.default_rng(seed)
    ratios = []
    for start in range(0, resamples, CHUNK):  # in chunks, so that a thousand groups stay a few megabytes
        times_drawn = random.multinomial(count, np.full(count, 1 / count), size=min(CHUNK, resamples - start))
        ratios.append((times_drawn @ above) / (times_drawn @ below))
    low, high = np.quantile(np.concatenate(ratios), [(1 - level) / 2, (1 + level) / 2])
    reason = f"{level:.0%} percentile bootstrap over {count} groups, {resamples:,} resamples, seed {seed}"
    if count < FEW_GROUPS:
        reason += "; " + f"with fewer than {FEW_GROUPS} groups it is narrower than it should be"
    return Interval(float(low), float(high), count, reason)


@dataclass(frozen=True)
class Difference:
    """mean: of first less second over the n_images that both have. low, high: its 95 % BCa interval, patients drawn
    again. p: two-sided sign-flip test of patients. distinguishable: the interval leaves out 0, and p is at most 0.05
    or the least that so few patients can give (2 / 2^n: 0.06 for five)."""

    mean: float
    low: float
    high: float
    p: float
    n_images: int
    n_groups: int
    distinguishable: bool
    reason: str


def bootstrap_bca(values, groups, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Bias-corrected and accelerated interval (Efron 1987) of the mean of `values` (n,), groups drawn again.

    The acceleration is the jackknife's, a group left out at a time. NaN is undefined and left out.
    """
    from scipy.special import ndtr, ndtri

    values = np.asarray(values, float)
    kept = np.isfinite(values)
    labels, index = np.unique(np.asarray(groups, str)[kept], return_inverse=True)
    above, below = np.bincount(index, values[kept]), np.bincount(index).astype(float)
    count = len(labels)
    if count < 2:
        return Interval(np.nan, np.nan, count, f"no interval: {count} group{'s' * (count != 1)}, at least 2 are needed")
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    ratios, mean = (drawn @ above) / (drawn @ below), above.sum() / below.sum()
    if np.ptp(ratios) < 1e-12:
        return Interval(float(mean), float(mean), count, f"every one of {count} groups says the same")
    lower = np.mean(ratios < mean) + 0.5 * np.mean(ratios == mean)
    bias = ndtri(np.clip(lower, 1 / resamples, 1 - 1 / resamples))
    left_out = (above.sum() - above) / (below.sum() - below)
    apart = left_out.mean() - left_out
    squares = (apart**2).sum()
    acceleration = (apart**3).sum() / (6 * squares**1.5) if squares else 0.0
    ends = bias + ndtri([(1 - level) / 2, (1 + level) / 2])
    low, high = np.quantile(ratios, ndtr(bias + ends / (1 - acceleration * ends)))
    reason = f"{level:.0%} BCa bootstrap over {count} groups, {resamples:,} resamples, seed {seed}"
    if count < FEW_GROUPS:
        reason += "; " + f"with fewer than {FEW_GROUPS} groups it is narrower than it should be"
    return Interval(float(low), float(high), count, reason)


def compare_paired(first, second, groups, *, resamples: int = RESAMPLES, seed: int = 0) -> Difference:
    """The mean difference of two runs on the same images: `first` and `second` (n,), NaN left out of both."""
    apart, groups = np.asarray(first, float) - np.asarray(second, float), np.asarray(groups, str)
    kept = np.isfinite(apart)
    apart, groups = apart[kept], groups[kept]
    interval = bootstrap_bca(apart, groups, resamples=resamples, seed=seed)
    labels, index = np.unique(groups, return_inverse=True)
    sums = np.bincount(index, apart, minlength=len(labels))
    p = _flip_signs(sums, resamples=resamples, seed=seed) if len(labels) > 1 else np.nan
    clear = bool((interval.low > 0 or interval.high < 0) and p <= max(0.05, 2 / 2 ** len(labels)))
    mean = float(apart.mean()) if len(apart) else np.nan
    return Difference(mean, interval.low, interval.high, p, len(apart), len(labels), clear, interval.reason)


def compare_scores(table, others: dict[str, dict[str, float]]) -> list[dict]:
    """[{name, dice, low, high, n_images, difference}]: the Dice of a table with its interval, then that of others.

    table: of `metrics.evaluate_run`. others: {name: {id: Dice}}, looked at on the table's images alone. difference: a
    `Difference`, Dice of the table less that of the other, image by image; None for the table's own.
    """
    own, groups, rows = table["dice"].to_numpy(float), table["group"], []
    for name, scores in {"": None, **others}.items():
        theirs = own if scores is None else np.array([scores.get(sample_id, np.nan) for sample_id in table["id"]])
        around, count = bootstrap_mean(theirs, groups), int(np.isfinite(theirs).sum())
        row = {"name": name, "dice": float(np.nanmean(theirs)) if count else np.nan, "n_images": count}
        difference = None if scores is None else compare_paired(own, theirs, groups)
        rows.append(row | {"low": around.low, "high": around.high, "difference": difference})
    return rows


def _flip_signs(sums: np.ndarray, *, resamples: int, seed: int) -> float:
    """Share of sign patterns of the groups' sums that are as far from 0 as the observed one; all of them up to 12."""
    if len(sums) <= 12:
        signs = 1 - 2 * ((np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums))) & 1)
        return float(np.mean(np.abs(signs @ sums) >= abs(sums.sum()) - 1e-12))
    signs = np.random.default_rng(seed).choice([-1, 1], size=(resamples, len(sums)))
    return float((1 + np.sum(np.abs(signs @ sums) >= abs(sums.sum()) - 1e-12)) / (resamples + 1))
