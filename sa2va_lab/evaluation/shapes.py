"""Metrics of shape: what pixel counts do not see. Distances are in pixels, masks bool (H, W); undefined is NaN.

Where one of the two masks is empty, distances, surface Dice and clDice have no surface or centre line to stand on: NaN
for the distance, 0 for surface Dice and clDice (everything is missed or made up); both empty is NaN for all three.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from sa2va_lab.datasets.widths import CLASSES, classify_pixels

SHAPE_METRICS = ("cldice", "hd95", "surface_dice", "betti0_error", "area_error")
CALIBRATION = ("brier", "ece")
TOLERANCE = 2.0  # pixels, of the surface Dice
BINS = 10  # of the expected calibration error


def measure_shapes(mask: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """The SHAPE_METRICS of one mask against its truth."""
    distances = _surface_distances(mask, truth)
    return {
        "cldice": compute_cldice(mask, truth),
        "hd95": np.nan if distances is None else float(max(np.percentile(part, 95) for part in distances)),
        "surface_dice": _surface_dice(distances, mask, truth),
        "betti0_error": float(abs(_count_components(mask) - _count_components(truth))),
        "area_error": float(mask.sum() / truth.sum() - 1) if truth.any() else np.nan,
    }


def compute_cldice(mask: np.ndarray, truth: np.ndarray) -> float:
    """Centre-line Dice (Shit et al. 2021) on scikit-image's Zhang and Suen skeletons: harmonic mean of the share of
    the mask's line inside the truth and of the truth's line inside the mask."""
    from skimage.morphology import skeletonize

    if not mask.any() or not truth.any():
        return np.nan if mask.any() == truth.any() else 0.0
    precision = float(truth[skeletonize(mask, method="zhang")].mean())
    recall = float(mask[skeletonize(truth, method="zhang")].mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def recall_by_width(mask: np.ndarray, truth: np.ndarray) -> dict[str, tuple[int, int]]:
    """{width class of the truth: (pixels found, pixels there)}, classes of `datasets.widths`; empty ones left out."""
    classes = classify_pixels(truth)
    there = np.bincount(classes[truth], minlength=len(CLASSES))
    found = np.bincount(classes[truth & mask], minlength=len(CLASSES))
    return {name: (int(f), int(t)) for name, f, t in zip(CLASSES, found, there, strict=True) if t}


def measure_calibration(probability: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Brier score (mean squared error of the probabilities) and expected calibration error (10 equal bins)."""
    flat, there = probability.ravel().astype(np.float64), truth.ravel()
    place = np.minimum((flat * BINS).astype(int), BINS - 1)
    said, found = np.bincount(place, flat, BINS), np.bincount(place, there, BINS)
    return {"brier": float(np.mean((flat - there) ** 2)), "ece": float(np.abs(said - found).sum() / flat.size)}


def measure_extras(run, dataset, *, threshold: float, progress: bool = False) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Shapes and calibration of a run: a row a sample (id, group, metrics), and a row a width class (found, there)."""
    from sa2va_lab.evaluation.matching import iterate_pairs

    rows, widths = [], {name: np.zeros(2, np.int64) for name in CLASSES}
    for sample, probability, truth in iterate_pairs(run, dataset, progress=progress):
        mask = probability > threshold
        rows.append({"id": sample.id, "group": sample.group} | measure_shapes(mask, truth))
        rows[-1] |= measure_calibration(probability, truth)
        for name, pair in recall_by_width(mask, truth).items():
            widths[name] += pair
    table = pd.DataFrame(rows, columns=["id", "group", *SHAPE_METRICS, *CALIBRATION])
    counted = pd.DataFrame([(name, *pair) for name, pair in widths.items()], columns=["width", "found", "there"])
    return table, counted


def _surface_distances(mask: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Distance of each border pixel of one mask to the other's border, both ways; None where one is empty.

    A border pixel is one of the mask with a neighbour (of four) outside it; beyond the picture counts as outside.
    """
    from scipy.ndimage import binary_erosion, distance_transform_edt

    if not mask.any() or not truth.any():
        return None
    first, second = mask & ~binary_erosion(mask), truth & ~binary_erosion(truth)
    return distance_transform_edt(~second)[first], distance_transform_edt(~first)[second]


def _surface_dice(distances, mask: np.ndarray, truth: np.ndarray) -> float:
    if distances is None:
        return np.nan if mask.any() == truth.any() else 0.0
    near = sum(np.count_nonzero(part <= TOLERANCE) for part in distances)
    return near / sum(map(len, distances))


def _count_components(mask: np.ndarray) -> int:
    from scipy.ndimage import label

    return label(mask, np.ones((3, 3)))[1]
