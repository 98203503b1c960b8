"""What thresholds, metrics and the rasteriser cost, beside the same work written the usual way.

    python benchmarks/evaluation.py [--repeats 5] [--side 512] [--json]

Both ways get the same smooth random probabilities and the demo's outlines, in turn, and their results are compared.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from scipy.ndimage import gaussian_filter
from skimage import draw
from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score

from sa2va_lab import open_dataset, paths
from sa2va_lab.datasets.geometry import fill_polygons
from sa2va_lab.evaluation.metrics import compute_scores, count_pixels
from sa2va_lab.evaluation.thresholds import THRESHOLDS, Counts, choose_threshold, count_image

IMAGES, PATIENTS = 1219, 36  # as many as the data set that this was built for
EDGES = THRESHOLDS.astype(np.float32)
SCIKIT_LEARN = (f1_score, jaccard_score, precision_score, recall_score, partial(recall_score, pos_label=0))


def main() -> None:
    """Reads the arguments, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    rows = measure(asked.repeats, asked.side)
    print(json.dumps({"rows": rows}) if asked.json else "\n".join(str(row) for row in rows))


def measure(repeats: int, side: int) -> list[dict[str, str]]:
    """A row a comparison."""
    chance, size = np.random.default_rng(0), f"{side}x{side}"
    field = gaussian_filter(chance.standard_normal((side, side)), side / 64)
    probability = ((field - field.min()) / np.ptp(field)).astype(np.float32)
    truth = field + gaussian_filter(chance.standard_normal((side, side)), side / 64) > field.std()
    mask = probability > 0.7
    samples = [sample for sample in open_dataset(paths.demo_data()) if 1 in sample.truths][:12]
    outlines = [(sample.truths[1].polygons, sample.image_size()) for sample in samples]
    counts = repeat_counts(*count_image(probability, truth), truth)
    [curve], [chosen] = time_ways(1, counts.curve), time_ways(1, lambda: choose_threshold(counts))
    return [
        compare(
            f"1,000 thresholds of an image, {size}",
            "a mask and two sums for each",
            ours=lambda: np.array(count_image(probability, truth)),
            plain=lambda: np.array([count_mask(probability > threshold, truth) for threshold in EDGES]).T,
            repeats=repeats,
        ),
        {"what": f"mean Dice of {IMAGES:,} images at 1,000 thresholds, from counts", "figure": f"{curve[0]:.3f} s"},
        {"what": f"threshold chosen on them, {PATIENTS} patients drawn 2,000 times", "figure": f"{chosen[0]:.3f} s"},
        compare(
            f"five metrics of an image, {size}",
            "scikit-learn, a call a metric",
            ours=lambda: np.array([*compute_scores(**count_pixels(mask, truth)).values()]),
            plain=lambda: np.array([score(truth.ravel(), mask.ravel()) for score in SCIKIT_LEARN]),
            repeats=repeats,
        ),
        compare(
            f"masks of {len(outlines)} images from outlines",
            "skimage.draw.polygon, outline by outline",
            ours=lambda: np.array([fill_polygons(polygons, shape).mean() for polygons, shape in outlines]),
            plain=lambda: np.array([fill_loop(polygons, shape).mean() for polygons, shape in outlines]),
            repeats=repeats,
            allowed=0.02,  # half a pixel of every outline: it is another rasteriser
        ),
    ]


def repeat_counts(inside: np.ndarray, outside: np.ndarray, truth: np.ndarray) -> Counts:
    """One image's counts as those of IMAGES images of PATIENTS patients."""
    names = tuple(str(number) for number in range(IMAGES))
    groups = tuple(str(number % PATIENTS) for number in range(IMAGES))
    tp, fp = np.tile(inside, (IMAGES, 1)), np.tile(outside, (IMAGES, 1))
    areas, sizes = np.full(IMAGES, truth.sum()), np.full(IMAGES, truth.size)
    return Counts(names, groups, names, tp, fp, areas, sizes)


def count_mask(mask: np.ndarray, truth: np.ndarray) -> tuple[int, int]:
    """Pixels of the mask inside and outside the truth."""
    return (mask & truth).sum(), (mask & ~truth).sum()


def fill_loop(polygons: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """The union of outlines, bool (H, W), one after another."""
    mask = np.zeros(size, bool)
    for polygon in polygons:
        mask[draw.polygon(polygon[1::2], polygon[0::2], size)] = True
    return mask


def compare(what: str, usual: str, *, ours: Callable, plain: Callable, repeats: int, allowed: float = 1e-9) -> dict:
    """A row of the table; AssertionError where the two ways' results differ by more than `allowed`."""
    np.testing.assert_allclose(ours(), plain(), rtol=0, atol=allowed)
    seconds = time_ways(repeats, ours, plain)
    ratios = [slow / fast for fast, slow in zip(*seconds, strict=True)]
    fast, slow = (statistics.median(taken) for taken in seconds)
    return {
        "what": what,
        "figure": as_milliseconds(fast),
        "plain": f"{as_milliseconds(slow)}: {usual}",
        "ratio": f"{statistics.median(ratios):,.1f} ({min(ratios):,.1f} to {max(ratios):,.1f})",
    }


def as_milliseconds(seconds: float) -> str:
    """Three digits, or whole milliseconds."""
    value = 1000 * seconds
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.3g} ms"


def time_ways(repeats: int, *ways: Callable) -> list[list[float]]:
    """Seconds of each way, all of them in turn, `repeats` times."""
    seconds = [[] for _ in ways]
    for _ in range(repeats):
        for way, spent in zip(ways, seconds, strict=True):
            begun = time.perf_counter()
            way()
            spent.append(time.perf_counter() - begun)
    return seconds


if __name__ == "__main__":
    main()
