"""Masks drawn on images: true positives, false positives, false negatives.

All masks are bool (H, W) and lie on their image pixel for pixel. Nothing here knows where a mask came from.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch
from PIL import Image
from skimage.segmentation import find_boundaries

from sa2va_lab.errors import LabError
from sa2va_lab.evaluation.matching import Pair
from sa2va_lab.files import write_whole
from sa2va_lab.language import tr
from sa2va_lab.sa2va.processing import read_image
from sa2va_lab.views import style

ERRORS = ("true_positive", "false_positive", "false_negative")
KINDS = {
    # role: (colour, line style, hatch, opacity of the fill); a kind is known by its line as well as by its hue
    "true_positive": (style.TRUE_POSITIVE, "solid", None, 0.75),
    "false_positive": (style.FALSE_POSITIVE, "solid", "////", 0.45),
    "false_negative": (style.FALSE_NEGATIVE, (0, (2, 1)), "....", 0.45),
    "prediction": (style.PREDICTION, "solid", None, 0.6),
    "ignored": (style.NEUTRAL, "dotted", "xxxx", 0.25),
}
LABELS = {
    "true_positive": "found (true positive)",
    "false_positive": "false positive",
    "false_negative": "false negative",
    "ignored": "ignored: in no count",
}
RANKS = {"worst": "Worst: {case}", "median": "Median: {case}", "best": "Best: {case}"}


@dataclass(frozen=True)
class Case:
    """One sample, ready to be drawn. image: anything that can be opened as one. probability: float32 (H, W).

    mask: bool (H, W). truth: bool (H, W), or None where nobody annotated. ignore: bool (H, W), or None where all
    counts. rank: "worst", "median", "best" or None.
    """

    id: str
    group: str
    image: object
    probability: np.ndarray
    mask: np.ndarray
    truth: np.ndarray | None
    ignore: np.ndarray | None = None
    rank: str | None = None
    dice: float = math.nan

    def title(self) -> str:
        """Which sample this is, of which patient, and how well it did."""
        words = tr("{id}, patient {group}", id=self.id, group=self.group)
        if not math.isnan(self.dice):
            words += tr(", Dice {dice:.3f}", dice=self.dice)
        return words if self.rank is None else tr(RANKS[self.rank], case=words)


def read_pixels(image) -> np.ndarray:
    """uint8 (H, W, 3), upright: exactly what the model is shown, from a path, a PIL image or an array."""
    return np.asarray(read_image(image))


def split_errors(mask: np.ndarray, truth: np.ndarray) -> dict[str, np.ndarray]:
    """Where the mask is right and where it is wrong: three bool (H, W) by the names in ERRORS."""
    if mask.shape != truth.shape:
        raise LabError(
            f"the mask is {mask.shape} but the ground truth is {truth.shape}; they must lie on the same image"
        )
    mask, truth = mask.astype(bool), truth.astype(bool)
    return {"true_positive": mask & truth, "false_positive": mask & ~truth, "false_negative": ~mask & truth}


def window(shape: tuple[int, int], sides: Sequence[int], centre: Sequence[int]) -> tuple[slice, slice]:
    """The part (rows, columns) of an image of `shape` that has these sides and, as far as it can, this centre."""
    sides = [min(side, whole) for side, whole in zip(sides, shape, strict=True)]
    starts = [min(max(at - side // 2, 0), all - side) for at, side, all in zip(centre, sides, shape, strict=True)]
    return tuple(slice(int(start), int(start) + side) for start, side in zip(starts, sides, strict=True))


def draw_comparison(
    image, mask: np.ndarray, truth: np.ndarray | None, *, ax, ignore: np.ndarray | None = None, backdrop: float = 0.5
):
    """Draws the image in pale grey on `ax` with true positives, false positives and false negatives over it.

    Each kind has a colour, a contour of its own line style and a hatch. Without a truth the mask alone is drawn, in the
    colour for predictions. ignore: bool (H, W), hatched. backdrop: how strongly the image shows through,
    1 is as it is, 0 is white. Returns `ax`.
    """
    pixels = read_pixels(image)
    if mask.shape != pixels.shape[:2]:
        raise LabError(f"the mask is {mask.shape} but the image is {pixels.shape[:2]}; they must be of one size")
    areas = {"prediction": mask.astype(bool)} if truth is None else split_errors(mask, truth)
    areas |= {} if ignore is None else {"ignored": ignore}
    grey = 1 - backdrop * (1 - pixels @ np.array([0.299, 0.587, 0.114]) / 255)
    canvas = np.repeat(grey[..., None], 3, axis=2)
    for kind, area in areas.items():
        colour, _, _, opacity = KINDS[kind]
        canvas[area] = (1 - opacity) * canvas[area] + opacity * np.array(to_rgb(colour))
    ax.imshow(canvas, interpolation="antialiased")
    for kind, area in areas.items():
        _outline(ax, area, *KINDS[kind][:3])
    ax.set_axis_off()
    ax.set_xlim(-0.5, mask.shape[1] - 0.5)
    ax.set_ylim(mask.shape[0] - 0.5, -0.5)
    return ax


def _outline(ax, area: np.ndarray, colour: str, line, hatch: str | None) -> None:
    if not area.any():
        return
    # a rim of one pixel, so that an area which touches the border of the image is closed as well
    edge = np.pad(area, 1).astype(np.uint8)
    x, y = np.arange(-1, area.shape[1] + 1), np.arange(-1, area.shape[0] + 1)
    if hatch:
        hatched = ax.contourf(x, y, edge, levels=[0.5, 1.5], colors="none", hatches=[hatch])
        hatched.set_edgecolor(colour)
        hatched.set_linewidth(0)
    ax.contour(x, y, edge, levels=[0.5], colors=[colour], linestyles=[line], linewidths=0.8)


def add_legend(figure, *ignored: np.ndarray | None) -> None:
    """One patch for each kind, below the figure. ignored: what is, of the images drawn."""
    handles = []
    for kind in (*ERRORS, *(["ignored"] if any(each is not None for each in ignored) else [])):
        colour, line, hatch, opacity = KINDS[kind]
        look = dict(facecolor=(colour, opacity), edgecolor=colour, linestyle=line, hatch=hatch)
        handles.append(Patch(**look, label=tr(LABELS[kind])))
    figure.legend(handles=handles, loc="outside lower left", ncols=len(handles), handlelength=2.2, fontsize=8)


def comparison_figure(case: Case, *, threshold: float, stamp: str | None = None):
    """The image, the probability with its colour bar, the comparison with the truth.

    Returns (figure, alt), alt being the sentence that says what is to be seen.
    """
    pixels = read_pixels(case.image)
    with style.drawing(6.4, stamp=stamp) as figure:
        figure.suptitle(case.title(), x=0.01, ha="left", fontsize=11, fontweight="bold")
        panels = figure.subplot_mosaic([["image", "comparison"], ["probability", "comparison"]], width_ratios=[1, 2.1])
        image, probability, comparison = (panels[name] for name in ("image", "probability", "comparison"))
        image.imshow(pixels)
        scale = probability.imshow(case.probability, cmap=style.PROBABILITY, vmin=0, vmax=1)
        place = dict(location="bottom", fraction=0.05, pad=0.03, ticks=sorted({0, threshold, 1}))
        bar = figure.colorbar(scale, ax=probability, **place)
        bar.ax.axvline(threshold, color="white", linewidth=1.5)
        draw_comparison(pixels, case.mask, case.truth, ax=comparison, ignore=case.ignore)
        for ax in (image, probability):
            ax.set_axis_off()
        image.set_title(tr("Image"))
        probability.set_title(tr("Probability"))
        if case.truth is None:
            comparison.set_title(tr("Mask at {threshold:g} (not annotated)", threshold=threshold))
        else:
            comparison.set_title(tr("Right and wrong at {threshold:g}", threshold=threshold))
            add_legend(figure, case.ignore)
    return figure, describe_case(case)


def panels_figure(panels: Sequence[tuple[str, object, Pair, float]], *, across: int, stamp: str | None = None):
    """Comparisons beside and below each other under one legend. panels: (title, image, pair, threshold) each."""
    down = math.ceil(len(panels) / across)
    with style.drawing(0.7 + 9.3 * down / across, stamp=stamp) as figure:
        axes = figure.subplots(down, across, squeeze=False).flatten()
        for ax in axes[len(panels) :]:
            ax.set_axis_off()
        for ax, (title, image, pair, threshold) in zip(axes, panels, strict=False):
            draw_comparison(image, pair.mask(threshold), pair.truth, ax=ax, ignore=pair.ignore)
            ax.set_title(title, fontsize=9)
        add_legend(figure, *(pair.ignore for _, _, pair, _ in panels))
    return figure


def describe_case(case: Case) -> str:
    """What a sighted reader takes from one row of pictures, in one sentence with numbers."""
    title = case.title()
    if case.truth is None:
        return tr(
            "{title}: the mask covers {share:.1%} of the image; there is no annotation to compare it with.",
            title=title,
            share=case.mask.mean(),
        )
    right, false, missed = (int(area.sum()) for area in split_errors(case.mask, case.truth).values())
    if not case.truth.any():
        return tr("{title}: the annotation is empty and {false} pixels are predicted.", title=title, false=false)
    if not case.mask.any():
        blank = "{title}: nothing is predicted, and all {truth} annotated pixels are missed."
        return tr(blank, title=title, truth=missed)
    return tr(
        "{title}: {found:.0%} of the annotated pixels are found, and {false:.0%} of the predicted "
        "pixels are not in the annotation.",
        title=title,
        found=right / (right + missed),
        false=false / (right + false),
    )


def save_overlay(path: Path | str, image, mask: np.ndarray) -> Path:
    """Writes the image at its own size with the mask filled and outlined; no truth takes part. Returns the path.

    The file appears at once or not at all.
    """
    pixels = read_pixels(image).astype(np.float32)
    if mask.shape != pixels.shape[:2]:
        raise LabError(f"the mask is {mask.shape} but the image is {pixels.shape[:2]}; they must be of one size")
    mask = mask.astype(bool)
    colour = np.array([int(style.PREDICTION[i : i + 2], 16) for i in (1, 3, 5)], np.float32)
    pixels[mask] = 0.6 * pixels[mask] + 0.4 * colour
    # a dark edge outside a bright one: seen on light and on dark ground alike
    pixels[find_boundaries(mask, mode="outer", background=False)] = 0
    pixels[find_boundaries(mask, mode="inner", background=False)] = colour
    drawn = io.BytesIO()
    Image.fromarray(pixels.round().astype(np.uint8)).save(drawn, format="png")
    return write_whole(path, drawn.getvalue())
