"""What anybody gets without a model, measured like the model: on the same images, by the same metric.

frangi: Frangi's vessel filter with Otsu's threshold (scikit-image). training: the mean training mask, cut where its
own Dice on the training part is best. observer: the second annotator. shuffled: another image's truth (chance).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from PIL import Image, ImageOps
from skimage.filters import frangi, threshold_otsu

from sa2va_lab.datasets.samples import Dataset, Sample
from sa2va_lab.evaluation.intervals import mean_interval
from sa2va_lab.evaluation.metrics import compute_scores, count_pixels
from sa2va_lab.files import open_image

GRID = 128  # the mean training mask is kept on so many cells a side: images differ in size
SIGMAS = (2, 3, 4, 6)  # pixels at 512; half the widths that Frangi's filter answers to
NAMES = ("nothing", "everything", "training", "frangi", "shuffled", "observer")


def measure_baselines(dataset: Dataset, ids: Iterable[str]) -> list[dict]:
    """[{name, dice, low, high, n_images, n_groups, scores {id: Dice}}] on the samples with these ids.

    dataset: the whole data set; its training part is looked at for the mean mask. A baseline that cannot be made (no
    training part, no second annotator) is left out. Images without a truth, or that cannot be read, count for nothing.
    """
    chosen = list(dataset.select(ids).truths())
    mean = _mean_training_mask(dataset, {sample.id for sample, _ in chosen})
    order = _derange(len(chosen), [sample.group for sample, _ in chosen], np.random.default_rng(0))
    found: dict[str, dict[str, float]] = {name: {} for name in NAMES}
    for place, (sample, truth) in enumerate(chosen):
        masks = {"nothing": np.zeros_like(truth), "everything": np.ones_like(truth), "frangi": filter_vessels(sample)}
        masks["training"] = None if mean is None else _resize(mean, truth.shape) > 0.5
        masks["shuffled"] = None if order is None else _resize(chosen[order[place]][1], truth.shape) > 0.5
        masks["observer"], ignore = sample.truth(annotator=2), sample.ignore()
        for name, mask in masks.items():
            if mask is not None and mask.shape == truth.shape:
                found[name][sample.id] = compute_scores(**count_pixels(mask, truth, ignore))["dice"]
    groups = {sample.id: sample.group for sample, _ in chosen}
    rows = []
    for name, scores in found.items():
        if not scores:
            continue
        mean = mean_interval([*scores.values()], [groups[sample_id] for sample_id in scores])
        row = {"name": name, "dice": mean.mean, "low": mean.low, "high": mean.high}
        rows.append(row | {"n_images": mean.n_images, "n_groups": mean.n_groups, "scores": scores})
    return rows


def filter_vessels(sample: Sample) -> np.ndarray:
    """Dark ridges of the image, bool (H, W): Frangi's filter, cut by Otsu's rule; it sees no truth."""
    with open_image(sample.image) as opened:
        grey = np.asarray(ImageOps.exif_transpose(opened).convert("L"), np.float32) / 255
    answer = frangi(grey, sigmas=[sigma * max(grey.shape) / 512 for sigma in SIGMAS], black_ridges=True)
    answer = np.sqrt(answer)  # its values spread over many powers of ten
    return answer > threshold_otsu(answer) if np.ptp(answer) else np.zeros(grey.shape, bool)


def _mean_training_mask(dataset: Dataset, reported: set[str]) -> np.ndarray | None:
    """bool (GRID, GRID) of the pixels that are vessel often enough; never from an image that is reported."""
    part = dataset.select(set(dataset.splits.get("train", ())) - reported)
    pairs = [(truth, sample.leave_out(np.ones_like(truth))) for sample, truth in part.truths()]
    if not pairs:
        return None
    stack, counted = (np.stack([_resize(mask, (GRID, GRID)) for mask in masks]) for masks in zip(*pairs, strict=True))
    mean = stack.sum(axis=0) / np.maximum(counted.sum(axis=0), 1e-6)
    cuts = np.unique(np.quantile(mean, np.linspace(0.5, 0.99, 50)))
    both = list(zip(stack, counted, strict=True))
    dice = [np.mean([2 * (m * (mean >= c)).sum() / (m.sum() + (k * (mean >= c)).sum()) for m, k in both]) for c in cuts]
    return mean >= cuts[int(np.argmax(dice))]


def _derange(count: int, groups: list[str], random: np.random.Generator) -> np.ndarray | None:
    """For each image another one, of another patient; None where all are of one patient."""
    if len(set(groups)) < 2:
        return None
    others = [[k for k in range(count) if groups[k] != group] for group in groups]
    return np.array([random.choice(choices) for choices in others])


def _resize(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    picture = Image.fromarray(mask.astype(np.float32))
    return np.asarray(picture.resize(shape[::-1], Image.Resampling.BOX), np.float32)
