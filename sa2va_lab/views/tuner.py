"""A dimmer for the threshold: move it and see vessels appear, with what that does to this image and to the split.

`Tuner` looks at a Run and needs no model. `Tuner.look` is what one position of all controls shows; `build_widget` puts
controls around it, each with a label and in reach of the keyboard; the figures say the same on paper.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from html import escape
from pathlib import Path

import ipywidgets as w
import numpy as np
from skimage.morphology import remove_small_holes, remove_small_objects

from sa2va_lab.datasets.samples import Dataset
from sa2va_lab.errors import LabError
from sa2va_lab.evaluation.metrics import Pair, compute_scores, pair_up
from sa2va_lab.evaluation.thresholds import BINS, choose_threshold, count_run, read_threshold, save_threshold
from sa2va_lab.language import tr
from sa2va_lab.reports.answers import Answer, Tuned, say_sample
from sa2va_lab.runs.read import Run
from sa2va_lab.views import overlays, style
from sa2va_lab.views.comparisons import draw_sweep
from sa2va_lab.views.live import Live
from sa2va_lab.views.scores import list_scores
from sa2va_lab.views.tables import show, tabulate_facts

KEPT = 8  # samples in memory at a time, whatever the size of the Run
STEP, FAR = 0.005, 0.05  # of the threshold, by an arrow key alone and with shift
WIDE = 768  # px that a picture is drawn with at least
STRIP, THUMB = 8, 96  # worst cases in the strip, and their px
STEPS = (0.1, 0.3, 0.5, 0.7, 0.9)  # of the strip on paper
_LEFT: dict[Path, dict] = {}  # where each Run's controls were left in this session


@dataclass(frozen=True)
class Look:
    """What one position of the controls shows: HTML of two pictures, of the numbers and of the curve; the mask.

    picture: right and wrong. beside: the probability.
    """

    picture: str
    beside: str
    numbers: str
    curve: str
    mask: np.ndarray


def clean_mask(mask: np.ndarray, *, min_area: int = 0, holes: int = 0) -> np.ndarray:
    """bool (H, W) without connected pieces below `min_area` pixels and with holes of up to `holes` pixels filled."""
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
            self._curve = np.nan_to_num(self.counts.curve())
            dice = dict(zip(self.counts.ids, compute_scores(**self.counts.at(0.5))["dice"], strict=True))
            self.reason = self.choice.reason
        except LabError as error:  # no truth, or images moved away: there is still much to look at
            self.reason = str(error)
        self.dice = {record["id"]: dice.get(record["id"], math.nan) for record in run.records if not record["error"]}
        if not self.dice:
            raise LabError(f"the run {run.folder} holds no prediction so far; resume it, or name another run")
        self.order = sorted(self.dice, key=lambda i: (math.isnan(self.dice[i]), self.dice[i], i))
        self.open_sample = lru_cache(KEPT)(self._open_sample)

    def look(
        self, sample_id: str, threshold: float, *, min_area: int = 0, holes: int = 0, merge: str | int = "union",
        zoom: int = 1, across: float = 0.5, down: float = 0.5,
    ) -> Look:  # fmt: skip
        """What there is to see of a sample. zoom: 1 is the whole image; across, down: which part, 0 to 1."""
        pixels, pair = self.open_sample(sample_id, merge)
        mask = clean_mask(pair.mask(threshold), min_area=min_area, holes=holes)
        mask = mask if pair.ignore is None else mask & ~pair.ignore
        sides = [max(1, side // zoom) for side in mask.shape]
        places = zip(sides, (down, across), mask.shape, strict=True)
        middle = [side // 2 + round(at * (whole - side)) for side, at, whole in places]
        part = overlays.window(mask.shape, sides, middle)
        scale = max(1, math.ceil(WIDE / mask[part].shape[1]))
        drawn, ignore = (None if area is None else area[part] for area in (pair.truth, pair.ignore))
        layer = overlays.encode_layer(overlays.paint_errors(mask[part], drawn, ignore=ignore, scale=scale))
        said = overlays.describe_case(overlays.name_case(sample_id, self.dataset[sample_id].group), mask, pair.truth)
        under, near = overlays.encode_photo(pixels[part], quality=90), f"{tr('Probability')}, {sample_id}"
        picture = overlays.show_picture(layer, said, under=under, sharp=scale > 1)
        beside = overlays.show_picture(overlays.encode_probability(pair.probability[part]), near, sharp=scale > 1)
        answer = next(record["answer"] for record in self.run.records if record["id"] == sample_id)
        facts = list_scores(mask, pair) | ({"Note": tr("not annotated")} if pair.truth is None else {})
        numbers = tabulate_facts(facts | {"Answer": answer or "–"})._repr_html_()
        return Look(picture, beside, numbers, self.draw_curve(threshold), mask)

    def draw_strip(self, threshold: float) -> str:
        """The worst images, small, as buttons that have their id for a name: HTML."""
        buttons = []
        for name in self.order[:STRIP]:
            pixels, pair = self.open_sample(name)
            step = math.ceil(max(pair.probability.shape) / THUMB)
            small = [None if area is None else area[::step, ::step] for area in (pair.truth, pair.ignore)]
            layer = overlays.paint_errors(pair.mask(threshold)[::step, ::step], small[0], ignore=small[1])
            picture = overlays.show_picture(overlays.lay_over(pixels[::step, ::step], layer), "", most=THUMB)
            said = name if math.isnan(self.dice[name]) else f"{name}  {self.dice[name]:.3f}"
            buttons.append(
                f'<button data-name="{escape(name)}" style="display:flex;flex-direction:column;width:{THUMB + 16}px;'
                f'padding:4px;font-size:11px;background:none;color:inherit;border:1px solid">{picture}'
                f"<span>{escape(said)}</span></button>"
            )
        return f'<div style="display:flex;flex-wrap:wrap;gap:6px">{"".join(buttons)}</div>'

    def draw_curve(self, threshold: float) -> str:
        """The split's mean Dice over the threshold, with the best, its interval, 0.5 and where the slider is: HTML."""
        if self.choice is None:
            return f"<p>{escape(tr('There is no curve and no number here: {reason}', reason=tr(self.reason)))}</p>"
        here = float(self._curve[min(round(threshold * BINS), BINS - 1)])
        said = tr(
            "Split “{split}”, {n} images, without minimum area and hole filling: mean Dice {dice:.3f} at "
            "{threshold:.3f} (orange); best {score:.3f} at {best:.3f} (blue, band: 95 % interval of the "
            "choice); {half:.3f} at 0.5 (dashed).",
            split=self.run.meta["dataset"]["split"],
            n=len(self.counts),
            threshold=threshold,
            dice=here,
            best=self.choice.value,
            score=self.choice.score,
            half=self.choice.at_half,
        )
        address, left, top, width, height = self._sweep
        across, down = left + threshold * width, top + (1 - here) * height
        return (
            f'<div role="img" aria-label="{escape(said)}" style="position:relative;max-width:570px">'
            f'<img src="{address}" alt="" style="width:100%;display:block">'
            f'<span style="position:absolute;left:{across:.2%};top:{top:.2%};height:{height:.2%};'
            f'border-left:2.5px solid {style.FALSE_POSITIVE}"></span>'
            f'<span style="position:absolute;left:{across:.2%};top:{down:.2%};width:9px;height:9px;margin:-5px;'
            f'border-radius:50%;border:1px solid #000;background:{style.FALSE_POSITIVE}"></span></div>'
            f"<p>{escape(said)}</p>"
        )

    @cached_property
    def _sweep(self) -> tuple[str, float, float, float, float]:
        """The curve as a picture's address, and where in it the axes lie: left, top, width, height as shares."""
        with style.drawing(2.2, width=5.7) as figure:
            ax = figure.subplots()
            draw_sweep(ax, self.counts, self.choice)
            address = overlays.encode(style.to_png(figure), "png")
            box = ax.get_position()
        return address, box.x0, 1 - box.y1, box.width, box.height

    def save(self, threshold: float, *, note: str = "", merge: str | int = "union"):
        """Writes threshold.json into the Run's folder, with where it was chosen; returns its path.

        LabError where no image has a truth: a threshold without an origin could not be told from a fair one.
        """
        if self.choice is None:
            saved = "A threshold is saved with the images it was chosen on, and there are none: {reason}"
            raise LabError(tr(saved, reason=tr(self.reason)))
        choice, place = self.choice, round(threshold * BINS)
        if not math.isclose(threshold, choice.value):
            nothing = dict(low=math.nan, high=math.nan, flat=None)
            where = f"{len(self.counts)} images of {len(set(self.counts.groups))} patients"
            choice = replace(choice, value=place / BINS, reason=f"set by eye on {where}", **nothing)
            choice = replace(choice, score=float(self._curve[place]), rule="macro")
        return save_threshold(self.run.folder, replace(choice, origin=choice.origin | {"merge": merge}), note=note)

    def _open_sample(self, sample_id: str, merge: str | int = "union") -> tuple[np.ndarray, Pair]:
        """Pixels uint8 (H, W, 3), and the prediction beside its truth; the last KEPT are at hand."""
        sample, prediction = self.dataset[sample_id], self.run.prediction(sample_id)
        try:
            return overlays.read_pixels(sample.image), pair_up(prediction, sample, merge=merge)
        except (LabError, OSError):  # moved away: the mask on grey
            pair = Pair(prediction.probability(merge), None, None)
            return np.full((*pair.probability.shape, 3), 128, np.uint8), pair


def answer_tuner(tuner: Tuner) -> Answer:
    """The best threshold on this Run, its interval, what it brings over 0.5, and what it may be used for."""
    run, choice = tuner.run, tuner.choice
    if choice is None:
        said = tr("There is no curve and no number here: {reason}", reason=tuner.reason)
        return Answer(said, Tuned(threshold=None, reason=tuner.reason), stamp=run.meta["stamp"])
    numbers = {"value": choice.value, "rule": choice.rule, "reason": choice.reason, "dice": choice.score}
    numbers |= {"dice_at_half": choice.at_half, "difference": choice.score - choice.at_half}
    numbers |= {"choice_low": choice.low, "choice_high": choice.high, "flat": choice.flat, "split": run.split}
    said = tr(
        "On {sample}, split “{split}”, threshold {value:.3f} gives the best mean Dice, {dice:.3f}; 0.5 gives "
        "{dice_at_half:.3f}, and from {low:.3f} to {high:.3f} it is within 0.005 of the best. It may be reported on "
        "other patients only.",
        sample=say_sample(choice.n_images, choice.n_groups),
        low=choice.flat[0],
        high=choice.flat[1],
        **numbers,
    )
    return Answer(said, Tuned(threshold=numbers), stamp=run.meta["stamp"])


def curve_figure(tuner: Tuner):
    """Mean Dice over the threshold, the best with its interval, and 0.5; (figure, alt)."""
    with style.drawing(3.6, stamp=tuner.run.meta["stamp"]) as figure:
        ax, choice = figure.subplots(), tuner.choice
        ax.grid()
        if choice is not None:
            draw_sweep(ax, tuner.counts, choice)
            ax.set_title(f"{choice.value:.3f}: Dice {choice.score:.3f}   0.5: Dice {choice.at_half:.3f}")
    return figure, answer_tuner(tuner).sentence


def strip_figure(tuner: Tuner):
    """The median image by Dice at five thresholds; (figure, alt)."""
    scored = [name for name in tuner.order if not math.isnan(tuner.dice[name])] or tuner.order
    name = scored[len(scored) // 2]
    pixels, pair = tuner.open_sample(name)
    told = [f"{step:g}" for step in STEPS]
    if not math.isnan(tuner.dice[name]):
        scores = tuner.counts.scores()[tuner.counts.ids.index(name)]
        told = [f"{step:g}: Dice {show(scores[round(step * BINS)], '.2f')}" for step in STEPS]
    panels = [(said, pixels, pair, step) for said, step in zip(told, STEPS, strict=True)]
    figure = overlays.panels_figure(panels, across=len(STEPS), stamp=tuner.run.meta["stamp"])
    return figure, tr("{id} at five thresholds: {steps}.", id=name, steps=", ".join(told))


def build_widget(tuner: Tuner) -> w.HBox:
    """Widgets for a Tuner: choose a sample, move the threshold, clean the mask, zoom, hold a view for comparison, save.

    With the focus on the picture, arrow keys go to the next image and move the threshold. Built again in the same
    session, for this Run, it stands where it was left; else at the threshold that was saved, or the best one.
    """

    def control(kind: type, *value, label: str, **how):
        shape = {"style": {"description_width": "11em"}, "layout": w.Layout(width="27em")}
        return kind(*value, description=label, **shape, **how)

    union, best_here = (tr("all together"), "union"), 0.5 if tuner.choice is None else tuner.choice.value
    start = best_here
    with suppress(LabError):
        start = read_threshold(tuner.run.folder).value
    left = _LEFT.setdefault(tuner.run.folder, {"threshold": start, "held": None})
    start, chosen = left["threshold"], left.get("sample")
    steps, pixels = dict(min=0, max=0.999, step=0.001), dict(min=0, max=100_000, step=10)
    slider = dict(min=0, max=1, step=0.05, readout=False)
    orders = [(tr("worst first"), "worst"), (tr("by patient"), "patient")]
    by = control(w.Dropdown, options=orders, label=tr("Order"))
    search = control(w.Text, label=tr("Search"))
    sample = control(w.Select, rows=9, options=[], label=tr("Image, Dice at 0.5"))
    threshold = control(w.FloatSlider, start, readout=False, label=tr("Threshold"), **steps)
    number = control(w.BoundedFloatText, start, label=tr("Threshold, number"), **steps)
    how = {  # what `Tuner.look` takes beside a threshold
        "merge": control(w.Dropdown, options=[union], label="[SEG]"),
        "min_area": control(w.BoundedIntText, 0, label=tr("Minimum area, px"), **pixels),
        "holes": control(w.BoundedIntText, 0, label=tr("Fill holes up to, px"), **pixels),
        "zoom": control(w.Dropdown, options=[1, 2, 4, 8], label=tr("Zoom")),
        "across": control(w.FloatSlider, 0.5, label=tr("Across"), **slider),
        "down": control(w.FloatSlider, 0.5, label=tr("Down"), **slider),
    }
    note = control(w.Text, label=tr("Note"))
    half, best, save = (w.Button(description=text) for text in ("0.5", tr("Best here"), tr("Save")))
    hold = w.ToggleButton(
        left["held"] is not None, description=tr("Hold for comparison"), layout=w.Layout(width="auto")
    )
    best.disabled = save.disabled = tuner.choice is None
    wide = w.Layout(flex="1 1 0", min_width="0")
    numbers, curve = w.HTML(layout=w.Layout(flex="0 0 13em")), w.HTML(layout=wide)
    hint = tr(
        "Arrow keys on the picture: left and right for images, up and down for the threshold, with shift farther."
    )
    pictures, status = Live(label=hint), w.HTML()
    strip = Live(html=tuner.draw_strip(start), label=tr("The worst images"))

    def fill(_=None) -> None:
        ids = sorted(tuner.order) if by.value == "patient" else tuner.order
        ids = [name for name in ids if search.value.strip().lower() in name.lower()]
        chosen = sample.value
        sample.options = [(i if math.isnan(tuner.dice[i]) else f"{i}  {tuner.dice[i]:.3f}", i) for i in ids]
        sample.value = chosen if chosen in ids else next(iter(ids), None)

    def open_sample(_=None) -> None:
        if sample.value is not None:
            count = tuner.run.prediction(sample.value).n_seg
            how["merge"].options = [union, *((f"{k + 1}", k) for k in range(count if count > 1 else 0))]
        draw()

    def draw(_=None) -> None:
        if sample.value is None or how["merge"].value is None:
            return
        seen = tuner.look(sample.value, threshold.value, **{name: one.value for name, one in how.items()})
        here = seen.picture, tr("{id}, at {threshold:.3f}", id=sample.value, threshold=threshold.value)
        left.update(sample=sample.value, threshold=threshold.value, seen=here)
        beside, widths = (left["held"], (320, 320)) if left["held"] else ((seen.beside, tr("Probability")), (420, 210))
        pictures.html = overlays.side_by_side((*here, widths[0]), (*beside, widths[1]))
        numbers.value, curve.value = seen.numbers, seen.curve

    def hold_view(change) -> None:
        left["held"] = left["seen"] if change.new else None
        draw()

    def press(key: str, far: bool) -> None:
        if key in ("Up", "Down"):
            moved = threshold.value + (FAR if far else STEP) * (1 if key == "Up" else -1)
            threshold.value = min(max(moved, threshold.min), threshold.max)
        elif sample.options:
            place = (sample.index or 0) + (1 if key == "Right" else -1)
            sample.index = min(max(place, 0), len(sample.options) - 1)

    def choose(name: str) -> None:
        search.value = ""
        sample.value = name

    def keep(_) -> None:
        words, area, holes = note.value, how["min_area"].value, how["holes"].value
        if area or holes:
            words += f" [looked at with minimum area {area} px, holes up to {holes} px filled]"
        try:
            path = tuner.save(threshold.value, note=words.strip(), merge=how["merge"].value)
            said = tr("Saved {path} in the Run {run}.", path=path.name, run=path.parent.name)
            status.value = f"<p role='status'>{said}</p>"
        except LabError as error:
            status.value = f"<p role='alert'>{error}</p>"

    w.link((threshold, "value"), (number, "value"), transform=[lambda value: round(value, 3)] * 2)
    for one, changed in ((by, fill), (search, fill), (sample, open_sample), (hold, hold_view)):
        one.observe(changed, "value")
    for one in (threshold, *how.values()):
        one.observe(draw, "value")
    half.on_click(lambda _: setattr(threshold, "value", 0.5))
    best.on_click(lambda _: setattr(threshold, "value", best_here))
    pictures.on("key", press)
    strip.on("name", choose)
    save.on_click(keep)
    fill()
    if chosen in tuner.order:
        sample.value = chosen
    open_sample()
    left_side = [by, search, sample, threshold, number, w.HBox([half, best]), hold, *how.values(), note, save, status]
    stamp, told = w.HTML(f"<p><em>{tuner.run.meta['stamp'] or ''}</em></p>"), w.HTML(f"<p>{escape(hint)}</p>")
    right = w.VBox([stamp, pictures, told, w.HBox([numbers, curve]), strip], layout=wide)
    return w.HBox([w.VBox(left_side, layout=w.Layout(min_width="28em")), right])
