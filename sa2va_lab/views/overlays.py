"""Masks drawn on images: true positives, false positives, false negatives.

All masks are bool (H, W) and lie on their image pixel for pixel. Nothing here knows where a mask came from. Figures are
matplotlib's. For a browser there are layers, small transparent pictures that it lays over the image: fast to paint,
small to send. A layer is uint8 (H, W) of places in PALETTE. What is wrong has a pattern as well as a hue.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch
from PIL import Image
from scipy.ndimage import maximum_filter
from skimage.segmentation import find_boundaries

from sa2va_lab.errors import LabError
from sa2va_lab.evaluation.metrics import Pair
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
BACKDROP = 0.5  # how strongly the image shows through: 1 is as it is, 0 is white
RANKS = {"worst": "Worst: {case}", "median": "Median: {case}", "best": "Best: {case}"}
GAP = "#CC79A7"  # Okabe and Ito's reddish purple: a vessel that is broken
VEIL, RIGHT, FALSE, STRIPE, MISSED, DOT, MASK, HALO, BROKEN, FAINT, HATCH, CLEAR = range(12)
PALETTE = [
    # (colour, opacity 0 to 255) by the names above
    ("#FFFFFF", 120),
    (style.TRUE_POSITIVE, 190),
    (style.FALSE_POSITIVE, 130),
    (style.FALSE_POSITIVE, 255),
    (style.FALSE_NEGATIVE, 130),
    (style.FALSE_NEGATIVE, 255),
    (style.PREDICTION, 190),
    ("#FFFFFF", 235),
    (GAP, 255),
    ("#5F6B73", 90),
    (style.NEUTRAL, 200),
    ("#FFFFFF", 0),
]
COLOURS = np.array([[*bytes.fromhex(colour[1:]), opacity] for colour, opacity in PALETTE], np.uint8)


def name_case(id: str, group: str, *, dice: float = math.nan, rank: str | None = None) -> str:
    """Which image this is, of which patient, and how well it did. rank: "worst", "median", "best" or None."""
    words = tr("{id}, patient {group}", id=id, group=group)
    if not math.isnan(dice):
        words += tr(", Dice {dice:.3f}", dice=dice)
    return words if rank is None else tr(RANKS[rank], case=words)


def read_pixels(image) -> np.ndarray:
    """uint8 (H, W, 3), upright: exactly what the model is shown, from a path, a PIL image or an array."""
    return np.asarray(read_image(image))


def split_errors(mask: np.ndarray, truth: np.ndarray) -> dict[str, np.ndarray]:
    """Where the mask is right and where it is wrong: three bool (H, W) by the names in ERRORS."""
    return {"true_positive": mask & truth, "false_positive": mask & ~truth, "false_negative": ~mask & truth}


def window(shape: tuple[int, int], sides: Sequence[int], centre: Sequence[int]) -> tuple[slice, slice]:
    """The part (rows, columns) of an image of `shape` that has these sides and, as far as it can, this centre."""
    sides = [min(side, whole) for side, whole in zip(sides, shape, strict=True)]
    starts = [min(max(at - side // 2, 0), whole - side) for at, side, whole in zip(centre, sides, shape, strict=True)]
    return tuple(slice(int(start), int(start) + side) for start, side in zip(starts, sides, strict=True))


def draw_comparison(image, pair: Pair, threshold: float, *, ax) -> None:
    """Draws the image in pale grey on `ax` with true positives, false positives and false negatives over it.

    Each kind has a colour, a contour of its own line style and a hatch. Without a truth the mask alone is drawn, in the
    colour for predictions. What is ignored is hatched.
    """
    mask = pair.mask(threshold)
    areas = {"prediction": mask} if pair.truth is None else split_errors(mask, pair.truth)
    areas |= {} if pair.ignore is None else {"ignored": pair.ignore}
    grey = 1 - BACKDROP * (1 - read_pixels(image) @ np.array([0.299, 0.587, 0.114]) / 255)
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


def comparison_figure(case: tuple[str, object, Pair], *, threshold: float, stamp: str | None = None):
    """The image, the probability with its colour bar, the comparison with the truth. case: (title, image, pair).

    Returns (figure, alt), alt being the sentence that says what is to be seen.
    """
    title, image, pair = case
    pixels = read_pixels(image)
    with style.drawing(6.4, stamp=stamp) as figure:
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        panels = figure.subplot_mosaic([["image", "comparison"], ["probability", "comparison"]], width_ratios=[1, 2.1])
        panels["image"].imshow(pixels)
        probability, comparison = panels["probability"], panels["comparison"]
        scale = probability.imshow(pair.probability, cmap=style.PROBABILITY, vmin=0, vmax=1)
        place = dict(location="bottom", fraction=0.05, pad=0.03, ticks=sorted({0, threshold, 1}))
        bar = figure.colorbar(scale, ax=probability, **place)
        bar.ax.axvline(threshold, color="white", linewidth=1.5)
        draw_comparison(pixels, pair, threshold, ax=comparison)
        for name, text in (("image", tr("Image")), ("probability", tr("Probability"))):
            panels[name].set_axis_off()
            panels[name].set_title(text)
        if pair.truth is None:
            comparison.set_title(tr("Mask at {threshold:g} (not annotated)", threshold=threshold))
        else:
            comparison.set_title(tr("Right and wrong at {threshold:g}", threshold=threshold))
            add_legend(figure, pair.ignore)
    return figure, describe_case(title, pair.mask(threshold), pair.truth)


def panels_figure(panels: Sequence[tuple[str, object, Pair, float]], *, across: int, stamp: str | None = None):
    """Comparisons beside and below each other under one legend. panels: (title, image, pair, threshold) each."""
    down = math.ceil(len(panels) / across)
    with style.drawing(0.7 + 9.3 * down / across, stamp=stamp) as figure:
        axes = figure.subplots(down, across, squeeze=False).flatten()
        for ax in axes[len(panels) :]:
            ax.set_axis_off()
        for ax, (title, image, pair, threshold) in zip(axes, panels, strict=False):
            draw_comparison(image, pair, threshold, ax=ax)
            ax.set_title(title, fontsize=9)
        if any(pair.truth is not None for _, _, pair, _ in panels):
            add_legend(figure, *(pair.ignore for _, _, pair, _ in panels))
    return figure


def describe_case(title: str, mask: np.ndarray, truth: np.ndarray | None) -> str:
    """What a sighted reader takes from a mask beside its truth, in one sentence with numbers."""
    if truth is None:
        alone = "{title}: the mask covers {share:.1%} of the image; there is no annotation to compare it with."
        return tr(alone, title=title, share=mask.mean())
    right, false, missed = (int(area.sum()) for area in split_errors(mask, truth).values())
    if not truth.any():
        return tr("{title}: the annotation is empty and {false} pixels are predicted.", title=title, false=false)
    if not mask.any():
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


def paint_errors(
    mask: np.ndarray, truth: np.ndarray | None, *, ignore: np.ndarray | None = None, scale: int = 1
) -> np.ndarray:
    """What is right and wrong, each pixel enlarged `scale` times; without a ground truth the mask in its own colour.
    What is ignored is hatched."""
    any_of = mask if truth is None else mask | truth
    layer = np.where(maximum_filter(any_of, 3), HALO, VEIL)
    if truth is None:
        layer[mask] = MASK
    else:
        areas = split_errors(mask, truth)
        for kind, place in (("true_positive", RIGHT), ("false_positive", FALSE), ("false_negative", MISSED)):
            layer[areas[kind]] = place
    layer = enlarge(layer, scale)
    down, right = np.ogrid[: layer.shape[0], : layer.shape[1]]
    layer[(layer == FALSE) & ((down + right) % 5 < 2)] = STRIPE
    layer[(layer == MISSED) & (down % 4 < 2) & (right % 4 < 2)] = DOT
    if ignore is not None:
        layer[enlarge(ignore, scale).astype(bool) & (((down + right) % 8 < 1) | ((down - right) % 8 < 1))] = HATCH
    return layer


def paint_line(line, truth: np.ndarray) -> np.ndarray:
    """A `mistakes.CentreLine` on its truth: found black, lost blue, gaps purple, three pixels wide."""
    layer = np.where(truth, FAINT, VEIL).astype(np.uint8)
    for part, place in ((line.found, RIGHT), (line.lost, DOT), (line.gap, BROKEN)):
        layer[maximum_filter(part, 3)] = place
    return layer


def encode_layer(layer: np.ndarray) -> str:
    """A layer as the address (data:) of a PNG."""
    picture = Image.fromarray(layer.astype(np.uint8)).convert("P")
    picture.putpalette(COLOURS[:, :3].tobytes())
    return _address(picture, "png", transparency=COLOURS[:, 3].tobytes(), compress_level=3)


def encode_probability(probability: np.ndarray) -> str:
    """Probabilities in [0, 1] in cividis, as the address of a JPEG."""
    return encode_photo(matplotlib.colormaps[style.PROBABILITY](probability, bytes=True)[..., :3])


def encode_photo(pixels: np.ndarray, *, quality: int = 80) -> str:
    """uint8 (H, W, 3) as the address of a JPEG."""
    return _address(Image.fromarray(pixels), "jpeg", quality=quality)


def lay_over(pixels: np.ndarray, layer: np.ndarray) -> str:
    """A layer painted on its image, uint8 (H, W, 3), as the address of one JPEG."""
    share = COLOURS[layer][..., 3:] / 255
    return encode_photo((pixels * (1 - share) + COLOURS[layer][..., :3] * share).astype(np.uint8), quality=90)


def _address(picture, kind: str, **how) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, **how)
    return encode(buffer.getvalue(), kind)


def encode(content: bytes, kind: str) -> str:
    """A picture file as an address (data:). kind: "png" or "jpeg"."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def show_picture(
    address: str, alt: str, *, under: str = "", sharp: bool = False, most: int = 900, more: str = ""
) -> str:
    """A picture, over another one where there is one `under` it. sharp: enlarged pixels stay squares, while a smaller
    picture is smoothed. most: px that it is wide at most. more: attributes of the element."""
    how = f"background:url({under}) center/100% 100%;" if under else ""
    how += f"display:block;width:100%;max-width:{most}px;" + ("image-rendering:pixelated" if sharp else "")
    return f'<img src="{address}" alt="{escape(alt)}" draggable="false" style="{how}"{more}>'


def side_by_side(*parts: tuple[str, str, int]) -> str:
    """HTML of pictures, each with a line below and the px that it needs; two of them share what more there is."""
    grows = len(parts) == 2
    cells = [
        f'<div style="flex:{width * grows} 1 {width}px;min-width:0">{picture}{escape(line)}</div>'
        for picture, line, width in parts
    ]
    return f'<div style="display:flex;flex-wrap:wrap;align-items:flex-start;gap:12px">{"".join(cells)}</div>'


def enlarge(layer: np.ndarray, scale: int) -> np.ndarray:
    """uint8, each pixel as a square of `scale` pixels a side."""
    return np.repeat(np.repeat(layer.astype(np.uint8), scale, axis=0), scale, axis=1)
