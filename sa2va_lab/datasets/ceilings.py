"""What no model can beat on these images: the Dice that is lost to rasterisers and to the model's own grid.

Rasteriser ceiling: a perfect model, scored against the same outlines drawn by another rasteriser. Resolution ceiling:
Sa2VA decides on a small grid (256 x 256 for the released models); the truth is brought down to it and up again as the
model does it, and what Dice is left is what the grid allows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image

from sa2va_lab.datasets.drawings import DrawnTruth
from sa2va_lab.datasets.geometry import CLASSES, OTHERS, classify_pixels, dice_of, fill_otherwise
from sa2va_lab.datasets.samples import Dataset, Sample
from sa2va_lab.prediction import Prediction

GRID, CANVAS = 256, 1024
STEPS = 6


@dataclass(frozen=True)
class Ceiling:
    """name: what made the second mask. dice: mean over `n` images. lowest: the worst image.

    by_width: {width class: (Dice of its pixels over all images, pixels of truth)}, classes without a pixel left out.
    """

    name: str
    n: int
    dice: float
    lowest: float
    by_width: dict[str, tuple[float, int]]

    def to_dict(self) -> dict:
        """For metrics.json."""
        by_width = {label: {"dice": dice, "pixels": pixels} for label, (dice, pixels) in self.by_width.items()}
        return {"name": self.name, "n": self.n, "dice": self.dice, "lowest": self.lowest, "by_width": by_width}


def rasteriser_ceilings(dataset: Dataset) -> list[Ceiling]:
    """A ceiling for each other rasteriser; none for truths that are mask files, which nobody rasterises."""
    return _compare(dataset, {name: partial(_draw_again, name) for name in OTHERS})


def _draw_again(name: str, sample: Sample, truth: np.ndarray) -> np.ndarray | None:
    drawn = sample.source()
    if not isinstance(drawn, DrawnTruth) or drawn.runs:
        return None
    return fill_otherwise(drawn.scaled(truth.shape), truth.shape, by=name)


def resolution_ceilings(dataset: Dataset, *, grid: int = GRID, canvas: int = CANVAS) -> list[Ceiling]:
    """Two ceilings of a model that decides on grid x grid: "averaged" and "searched".

    "averaged" is what logits would give that state how much of each grid cell is vessel. "searched" improves those
    logits in a few steps towards the truth: a model would have to know what the truth is below its own resolution, so
    no honest one is expected above it; it is a lower bound of the best that any logits could give.
    """

    def draw(sample: Sample, truth: np.ndarray, *, steps: int) -> np.ndarray:
        return go_through_grid(truth, grid=grid, canvas=canvas, steps=steps)

    return _compare(dataset, {"averaged": partial(draw, steps=0), "searched": partial(draw, steps=STEPS)})


def go_through_grid(truth: np.ndarray, *, grid: int = GRID, canvas: int = CANVAS, steps: int = 0) -> np.ndarray:
    """The mask bool (H, W) that is left of a truth after the model's grid; `steps` improve the logits, see above."""
    wanted = _bring_down(truth, grid)
    logits = wanted - np.float32(0.5)
    mask = Prediction(logits[None], truth.shape, "", canvas=canvas).mask()
    best, found = dice_of(mask, truth), mask
    for _ in range(steps):
        logits = logits + np.float32(0.7) * (wanted - _bring_down(mask, grid))
        mask = Prediction(logits[None], truth.shape, "", canvas=canvas).mask()
        if dice_of(mask, truth) > best:
            best, found = dice_of(mask, truth), mask
    return found


def _bring_down(mask: np.ndarray, grid: int) -> np.ndarray:
    """The share of each cell of a grid x grid that is mask, float32: the picture becomes a square, as Sa2VA has it."""
    picture = Image.fromarray(mask.astype(np.float32))
    return np.asarray(picture.resize((grid, grid), Image.Resampling.BOX), np.float32)


def _compare(dataset: Dataset, others: dict[str, Callable]) -> list[Ceiling]:
    """Each way of drawing every truth again, against that truth; images without anything to find say nothing."""
    scores: dict[str, list[float]] = {name: [] for name in others}
    counts = {name: np.zeros((len(CLASSES), 3), np.int64) for name in others}  # in both, drawn again, in the truth
    for sample, truth in dataset.truths():
        if not truth.any():
            continue
        classes = classify_pixels(truth)
        for name, again in others.items():
            mask = again(sample, truth)
            if mask is None:
                continue
            mask = sample.leave_out(mask)
            scores[name].append(dice_of(mask, truth))
            for place, area in enumerate((mask & truth, mask, truth)):
                counts[name][:, place] += np.bincount(classes[area], minlength=len(CLASSES))
    found = []
    for name, dice in scores.items():
        rows = zip(CLASSES, counts[name].tolist(), strict=True)
        by_width = {label: (2 * both / (drawn + there), there) for label, (both, drawn, there) in rows if there}
        found += [Ceiling(name, len(dice), float(np.mean(dice)), min(dice), by_width)] if dice else []
    return found
