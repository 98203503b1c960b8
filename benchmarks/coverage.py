"""How often an interval that says 95 % holds the true mean: ours beside the bootstraps that it took the place of.

Patients' mean Dice is drawn from Beta(12, 3), whose mean is .8, frames within a patient from a Beta of concentration 40
around it; "skewed" draws patients from Beta(4, 1). One line a layout: 1,000 data sets for ours, 200 for the bootstraps.

    python benchmarks/coverage.py
"""

from __future__ import annotations

import numpy as np
from scipy import stats

from sa2va_lab.evaluation.intervals import mean_interval

LAYOUTS = {
    "4 patients x 6 frames": [6] * 4,
    "5 x 6": [6] * 5,
    "10 x 20": [20] * 10,
    "36 x 34": [34] * 36,
    "5, of 2 to 30 frames": [2, 4, 6, 12, 30],
    "10, of 2 to 60": [2, 5, 8, 12, 16, 20, 28, 36, 48, 60],
    "36, of 1 to 72": list(range(1, 73, 2)),
}
SKEWS = {"": (12, 3), ", skewed": (4, 1)}
CONCENTRATION = 40


def draw(random: np.random.Generator, frames: list[int], skew: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """(Dice of every frame, its patient)."""
    means = np.repeat(random.beta(*skew, len(frames)), frames)
    return random.beta(CONCENTRATION * means, CONCENTRATION * (1 - means)), np.repeat(np.arange(len(frames)), frames)


def count_hits(
    frames: list[int], skew: tuple[float, float], *, repeats: int, method: str = "t", seed: int = 0
) -> float:
    """Share of data sets whose interval holds the true mean .8."""
    random, hits = np.random.default_rng(seed), 0
    for _ in range(repeats):
        values, patients = draw(random, frames, skew)
        if method == "t":
            interval = mean_interval(values, patients)
            low, high = interval.low, interval.high
        else:
            sums, counts = np.bincount(patients, values), np.bincount(patients)
            low, high = stats.bootstrap(
                (sums, counts),
                lambda s, n, axis: s.sum(axis) / n.sum(axis),
                paired=True,
                vectorized=True,
                n_resamples=2_000,
                method=method,
                rng=random,
            ).confidence_interval
        hits += low <= 0.8 <= high
    return hits / repeats


def main() -> None:
    print("layout                      ours    percentile   BCa")
    for skewed, skew in SKEWS.items():
        for name, frames in LAYOUTS.items():
            ours = count_hits(frames, skew, repeats=1_000)
            others = [count_hits(frames, skew, repeats=200, method=method) for method in ("percentile", "BCa")]
            print(f"{name + skewed:26s}  {ours:.3f}   {others[0]:.3f}        {others[1]:.3f}")


if __name__ == "__main__":
    main()
