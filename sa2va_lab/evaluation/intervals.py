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
        reason += f"; with fewer than {FEW_GROUPS} groups it is narrower than it should be"
    return Interval(float(low), float(high), count, reason)
