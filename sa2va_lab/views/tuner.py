"""A dimmer for the threshold: move it and see vessels appear, with what that does to this image and to the split.

`Tuner` looks at a Run and needs no model. `look` is what one position of all controls shows; `widget` puts controls
around it; the figures of `tuning` say the same on paper.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, replace
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from sa2va_lab.errors import LabError
from sa2va_lab.evaluation.metrics import compute_scores, count_pixels
from sa2va_lab.evaluation.thresholds import BINS, THRESHOLDS, Choice, choose_threshold, count_run, save_threshold
from sa2va_lab.language import tr
from sa2va_lab.views import layers, overlays, style

if TYPE_CHECKING:
    from sa2va_lab.datasets.samples import Dataset
    from sa2va_lab.runs.read import Run

KEPT = 8  # samples in memory at a time, whatever the size of the Run
SHOWN = ("dice", "iou", "precision", "recall")
WIDE, HIGH = 520, 190  # the curve's own units


@dataclass(frozen=True)
class Look:
    """What one position of the controls shows: HTML of the pictures, of the numbers and of the curve; the mask."""

    pictures: str
    numbers: str
    curve: str
    mask: np.ndarray


def clean_mask(mask: np.ndarray, *, min_area: int = 0, holes: int = 0) -> np.ndarray:
    """bool (H, W) without connected pieces below `min_area` pixels and with holes of up to `holes` pixels filled."""
    from skimage.morphology import remove_small_holes, remove_small_objects

    if min_area > 1:
        mask = remove_small_objects(mask, max_size=min_area - 1, connectivity=2)
    return remove_small_holes(mask, max_size=holes) if holes > 0 else mask


class Tuner:
    """The threshold of a Run, by eye and by count.

    counts: pixel counts at every threshold, of the images that have a truth. choice: the best threshold on them, None
    where there is no truth; reason says why. order: ids, worst Dice at 0.5 first, those without a Dice last.
    """

    def __init__(self, run: Run, dataset: Dataset, *, progress: bool = False):
        self.run, self.dataset = run, dataset
        self.counts, self.choice, self.reason, dice = None, None, "", {}
        try:
            self.counts = count_run(run, dataset, progress=progress)
            self.choice = choose_threshold(self.counts)
            self._curve = self.counts.curve()
            dice = dict(zip(self.counts.ids, compute_scores(**self.counts.at(0.5))["dice"], strict=True))
            self.reason = self.choice.reason
        except LabError as error:  # no truth, or images moved away: there is still much to look at
            self.reason = str(error)
        self.dice = {record["id"]: dice.get(record["id"], math.nan) for record in run.records if not record["error"]}
        if not self.dice:
            raise LabError(f"the run {run.folder} holds no prediction so far; resume it, or name another run")
        self.order = sorted(self.dice, key=lambda i: (math.isnan(self.dice[i]), self.dice[i], i))
        self._samples = {sample.id: sample for sample in dataset.samples}
        self._kept: OrderedDict = OrderedDict()

    def look(
        self, sample_id: str, threshold: float, *, min_area: int = 0, holes: int = 0, merge: str | int = "union",
        zoom: int = 1, across: float = 0.5, down: float = 0.5,
    ) -> Look:  # fmt: skip
        """What there is to see of a sample. zoom: 1 is the whole image; across, down: where it is centred, 0 to 1."""
        pixels, probability, truth = self.open_sample(sample_id, merge)
        mask = clean_mask(probability > threshold, min_area=min_area, holes=holes)
        part = _window(mask.shape, zoom, across, down)
        scale = max(1, math.ceil(512 / mask[part].shape[1]))
        drawn = None if truth is None else truth[part]
        layer = layers.encode_layer(layers.paint_errors(mask[part], drawn, scale=scale))
        case = overlays.Case(sample_id, self._samples[sample_id].group, None, probability, mask, truth)
        said = overlays.describe_case(case)
        about = tr("Probability")
        photo = layers.encode_photo(pixels[part], quality=90)
        pictures = (
            '<div style="display:flex;flex-wrap:wrap;align-items:flex-start;gap:12px">'
            + _picture(layer, said, under=photo, sharp=scale > 1)
            + _picture(layers.encode_probability(probability[part]), f"{about}, {sample_id}", sharp=scale > 1)
            + "</div>"
        )
        return Look(pictures, self._tell(sample_id, mask, truth), self.draw_curve(threshold), mask)

    def draw_curve(self, threshold: float) -> str:
        """The split's mean Dice over the threshold as SVG, with the best, its interval, 0.5 and where the slider is."""
        if self.choice is None:
            return f"<p>{escape(tr('There is no curve and no number here: {reason}', reason=self.reason))}</p>"
        choice, curve = self.choice, np.nan_to_num(self._curve)
        here = float(curve[min(round(threshold * BINS), BINS - 1)])
        values = dict(threshold=threshold, dice=here, best=choice.value, score=choice.score, half=choice.at_half)
        said = tr(
            "Split “{split}”, {n} images, without minimum area and hole filling: mean Dice {dice:.3f} at "
            "{threshold:.3f} (orange); best {score:.3f} at {best:.3f} (blue, band: 95 % interval of the "
            "choice); {half:.3f} at 0.5 (dashed).",
            split=self.run.meta["dataset"]["split"],
            n=len(self.counts),
            **values,
        )
        points = " ".join(
            f"{x * WIDE:.1f},{(1 - y) * HIGH:.1f}" for x, y in zip(THRESHOLDS[::5], curve[::5], strict=True)
        )
        low, high = (choice.value if math.isnan(edge) else edge for edge in (choice.low, choice.high))
        marks = [
            f'<rect x="{low * WIDE:.1f}" width="{(high - low) * WIDE:.1f}" height="{HIGH}" fill="#CCE3F0"/>',
            _upright(0.5, "#5F6B73", "4 4", 1.5),
            _upright(choice.value, style.ACCENT, "none", 1.5),
            f'<polyline points="{points}" fill="none" stroke="#000" stroke-width="1.8"/>',
            _upright(threshold, style.FALSE_POSITIVE, "none", 2.5),
            f'<circle cx="{threshold * WIDE:.1f}" cy="{(1 - here) * HIGH:.1f}" r="5" fill="#E69F00" stroke="#000"/>',
        ]
        ticks = "".join(
            f'<text x="{t * WIDE}" y="{HIGH + 15}" text-anchor="middle" font-size="11">{t:g}</text>'
            f'<text x="-6" y="{(1 - t) * HIGH + 4}" text-anchor="end" font-size="11">{t:g}</text>'
            for t in (0, 0.25, 0.5, 0.75, 1)
        )
        return (
            f'<svg viewBox="-34 -8 {WIDE + 50} {HIGH + 28}" style="width:100%;max-width:{WIDE + 50}px;background:#fff" '
            f'role="img" aria-label="{escape(said)}"><path d="M0 0V{HIGH}H{WIDE}" fill="none" stroke="#5F6B73"/>'
            f"{''.join(marks)}{ticks}</svg><p>{escape(said)}</p>"
        )

    def save(self, threshold: float, *, note: str = "", merge: str | int = "union"):
        """Writes threshold.json into the Run's folder, with where it was chosen; returns its path.

        LabError where no image has a truth: a threshold without an origin could not be told from a fair one.
        """
        if self.choice is None:
            raise LabError(
                tr(
                    "A threshold is saved with the images it was chosen on, and there are none: {reason}",
                    reason=self.reason,
                )
            )
        place, best = round(threshold * BINS), math.isclose(threshold, self.choice.value)
        choice: Choice = self.choice
        if not best:
            nothing = dict(low=math.nan, high=math.nan, flat=(math.nan, math.nan))
            where = f"{len(self.counts)} images of {len(set(self.counts.groups))} patients"
            choice = replace(choice, value=place / BINS, reason=f"set by eye on {where}", **nothing)
            choice = replace(choice, score=float(self._curve[place]), rule="macro")
        return save_threshold(self.run.folder, replace(choice, origin=choice.origin | {"merge": merge}), note=note)

    def count_masks(self, sample_id: str) -> int:
        """How many [SEG] the answer about a sample had."""
        return self.run.prediction(sample_id).n_seg

    def _tell(self, sample_id: str, mask: np.ndarray, truth: np.ndarray | None) -> str:
        rows = [(tr("Mask, px"), f"{mask.sum():,}")]
        if truth is None:
            rows.append((tr("Note"), tr("not annotated")))
        else:
            scores = compute_scores(**count_pixels(mask, truth))
            named = [("IoU" if name == "iou" else name.capitalize(), scores[name]) for name in SHOWN]
            rows = [(name, "–" if math.isnan(value) else f"{value:.3f}") for name, value in named] + rows
            if not truth.any():
                rows.append((tr("Note"), tr("ground truth is empty")))
        answer = next(record["answer"] for record in self.run.records if record["id"] == sample_id)
        rows.append((tr("Answer"), answer or "–"))
        return "<table>" + "".join(f"<tr><th>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in rows) + "</table>"

    def open_sample(self, sample_id: str, merge: str | int = "union"):
        """Pixels uint8 (H, W, 3), probability float32 (H, W), truth bool (H, W) or None; the last KEPT are at hand."""
        key = (sample_id, merge)
        if key not in self._kept:
            sample, prediction = self._samples[sample_id], self.run.prediction(sample_id)
            probability = prediction.probability(merge)
            try:
                pixels, truth = overlays.read_pixels(sample.image), sample.truth()
            except (LabError, OSError):  # moved away: the mask on grey
                pixels, truth = np.full((*probability.shape, 3), 128, np.uint8), None
            self._kept[key] = pixels, probability, truth
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]


def _window(shape: tuple[int, int], zoom: int, across: float, down: float) -> tuple[slice, slice]:
    sides = [max(1, side // zoom) for side in shape]
    starts = [
        round((whole - side) * min(max(at, 0), 1)) for whole, side, at in zip(shape, sides, (down, across), strict=True)
    ]
    return tuple(slice(start, start + side) for start, side in zip(starts, sides, strict=True))


def _picture(address: str, alt: str, *, under: str = "", sharp: bool = False) -> str:
    """Side by side where there is room; sharp: enlarged pixels stay squares, while a smaller picture is smoothed."""
    how = f"background:url({under}) center/100% 100%;" if under else ""
    how += "flex:1 1 240px;min-width:0;max-width:512px;" + ("image-rendering:pixelated" if sharp else "")
    return f'<img src="{address}" alt="{escape(alt)}" style="{how}">'


def _upright(at: float, colour: str, dashes: str, width: float) -> str:
    return (
        f'<line x1="{at * WIDE:.1f}" x2="{at * WIDE:.1f}" y1="0" y2="{HIGH}" stroke="{colour}" stroke-width="{width}" '
        f'stroke-dasharray="{dashes}"/>'
    )
