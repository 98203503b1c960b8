"""Metrics of shape: what pixel counts do not see. Distances are in pixels, masks bool (H, W); undefined is NaN.

SHAPE_POLICY says what each metric is where a mask or a truth is empty.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from os import cpu_count

import numpy as np
import pandas as pd
from scipy.ndimage import binary_erosion, distance_transform_edt, label
from skimage.morphology import skeletonize

from sa2va_lab.datasets.geometry import CLASSES, classify_pixels
from sa2va_lab.evaluation.intervals import mean_interval
from sa2va_lab.evaluation.metrics import iterate_pairs

SHAPE_METRICS = ("cldice", "hd95", "surface_dice", "betti0_error", "area_error")
CALIBRATION = ("brier", "ece")
SHARES = ("cldice", "surface_dice", *CALIBRATION)  # metrics from 0 to 1
TOLERANCE = 2.0  # pixels, of the surface Dice
EIGHT = np.ones((3, 3))  # neighbours of a pixel in one component
BINS = 10  # of the expected calibration error
LEAST_IMAGES = 25  # a process that is given fewer takes longer to start than it saves

# What each metric is when the truth or the mask is empty ("none"); "some" is any other, the full one too, whose border
# is the picture's. A word stands for the ordinary value. No distance exists to nothing: NaN. Of the shares 0 is right:
# all of the one border or line that there is was missed, or made up. Both empty is no case of drawing well: NaN.
SHAPE_POLICY = {
    # (truth, mask): {metric: value}
    ("none", "none"): dict(cldice=np.nan, hd95=np.nan, surface_dice=np.nan, betti0_error=0.0, area_error=np.nan),
    ("none", "some"): dict(cldice=0.0, hd95=np.nan, surface_dice=0.0, betti0_error="pieces", area_error=np.nan),
    ("some", "none"): dict(cldice=0.0, hd95=np.nan, surface_dice=0.0, betti0_error="pieces", area_error=-1.0),
    ("some", "some"): dict(
        cldice="ratio", hd95="distance", surface_dice="ratio", betti0_error="pieces", area_error="ratio"
    ),
}


def measure_shapes(mask: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """The SHAPE_METRICS of one mask against its truth."""
    distances = _surface_distances(mask, truth)
    return {
        "cldice": compute_cldice(mask, truth),
        "hd95": np.nan if distances is None else float(max(np.percentile(part, 95) for part in distances)),
        "surface_dice": _surface_dice(distances, mask, truth),
        "betti0_error": float(abs(label(mask, EIGHT)[1] - label(truth, EIGHT)[1])),
        "area_error": float(mask.sum() / truth.sum() - 1) if truth.any() else np.nan,
    }


def compute_cldice(mask: np.ndarray, truth: np.ndarray) -> float:
    """Centre-line Dice (Shit et al. 2021) on scikit-image's Zhang and Suen skeletons: harmonic mean of the share of
    the mask's line inside the truth and of the truth's line inside the mask."""
    if not mask.any() or not truth.any():
        return np.nan if mask.any() == truth.any() else 0.0
    precision = float(truth[skeletonize(mask, method="zhang")].mean())
    recall = float(mask[skeletonize(truth, method="zhang")].mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def recall_by_width(mask: np.ndarray, truth: np.ndarray) -> dict[str, tuple[int, int]]:
    """{width class of the truth: (pixels found, pixels there)}, classes of `datasets.geometry`; empty ones left out."""
    classes = classify_pixels(truth)
    there = np.bincount(classes[truth], minlength=len(CLASSES))
    found = np.bincount(classes[truth & mask], minlength=len(CLASSES))
    return {name: (int(f), int(t)) for name, f, t in zip(CLASSES, found, there, strict=True) if t}


def measure_calibration(
    probability: np.ndarray, truth: np.ndarray, ignore: np.ndarray | None = None
) -> dict[str, float]:
    """Brier score (mean squared error of the probabilities) and expected calibration error (10 equal bins); NaN where
    every pixel is ignored."""
    counted = slice(None) if ignore is None else ~ignore
    flat, there = probability[counted].ravel().astype(np.float64), truth[counted].ravel()
    if not flat.size:
        return {"brier": np.nan, "ece": np.nan}
    place = np.minimum((flat * BINS).astype(int), BINS - 1)
    said, found = np.bincount(place, flat, BINS), np.bincount(place, there, BINS)
    return {"brier": float(np.mean((flat - there) ** 2)), "ece": float(np.abs(said - found).sum() / flat.size)}


def measure_extras(run, dataset, *, threshold: float, workers: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Shapes and calibration of a run: a row a sample (id, group, metrics), and a row a width class (found, there).

    workers: processes; 0 takes one for every LEAST_IMAGES images, at most one a core. The result does not depend on
    it. A script that asks for more than one needs the usual `if __name__ == "__main__":`.
    """
    workers = workers or max(1, min(cpu_count() or 1, len(run.records) // LEAST_IMAGES))
    work = ((sample.id, sample.group, pair, threshold) for sample, pair in iterate_pairs(run, dataset))
    rows, widths = [], {name: np.zeros(2, np.int64) for name in CLASSES}
    for row, found in map(_measure_image, work) if workers == 1 else _spread(work, workers):
        rows.append(row)
        for name, pair in found.items():
            widths[name] += pair
    table = pd.DataFrame(rows, columns=["id", "group", *SHAPE_METRICS, *CALIBRATION])
    counted = pd.DataFrame([(name, *pair) for name, pair in widths.items()], columns=["width", "found", "there"])
    return table, counted


def summarise_extras(table: pd.DataFrame) -> list[dict]:
    """For each metric of `measure_extras`: metric, macro (mean over the n images, of n_groups patients, where it is
    defined), low and high (95 % interval over patients)."""
    rows = []
    for metric in (*SHAPE_METRICS, *CALIBRATION):
        bounds = (0.0, 1.0) if metric in SHARES else (-np.inf, np.inf)
        found = mean_interval(table[metric], table["group"], bounds=bounds)
        row = {"metric": metric, "macro": found.mean, "low": found.low, "high": found.high}
        rows.append(row | {"n": found.n_images, "n_groups": found.n_groups})
    return rows


def _measure_image(work: tuple) -> tuple[dict, dict]:
    sample_id, group, pair, threshold = work
    mask, truth = pair.mask(threshold), pair.truth
    row = {"id": sample_id, "group": group} | measure_shapes(mask, truth)
    return row | measure_calibration(pair.probability, truth, pair.ignore), recall_by_width(mask, truth)


def _spread(work, workers: int):
    """_measure_image of all, in order, a few images of each process in memory at a time."""
    fresh = get_context("spawn")  # a fork may hang beside torch's threads
    with ProcessPoolExecutor(workers, mp_context=fresh) as pool:
        while some := list(islice(work, 4 * workers)):
            yield from pool.map(_measure_image, some)


def _surface_distances(mask: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Distance of each border pixel of one mask to the other's border, both ways; None where one is empty.

    A border pixel is one of the mask with a neighbour (of four) outside it; beyond the picture counts as outside.
    """
    if not mask.any() or not truth.any():
        return None
    first, second = mask & ~binary_erosion(mask), truth & ~binary_erosion(truth)
    return distance_transform_edt(~second)[first], distance_transform_edt(~first)[second]


def _surface_dice(distances, mask: np.ndarray, truth: np.ndarray) -> float:
    if distances is None:
        return np.nan if mask.any() == truth.any() else 0.0
    near = sum(np.count_nonzero(part <= TOLERANCE) for part in distances)
    return near / sum(map(len, distances))
