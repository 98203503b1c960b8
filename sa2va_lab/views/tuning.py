"""What a threshold does: the table and curves of 03_evaluation, and what 04_threshold_tuning says on paper."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from sa2va_lab.evaluation.thresholds import BINS, FLAT, THRESHOLDS, Choice, Counts, calibrate
from sa2va_lab.language import tr
from sa2va_lab.reports.answers import Answer, Tuned, say_sample
from sa2va_lab.views import overlays, style
from sa2va_lab.views.tables import Table, show, tabulate_facts

if TYPE_CHECKING:
    from sa2va_lab.views.tuner import Tuner

STEPS = (0.1, 0.3, 0.5, 0.7, 0.9)


def threshold_table(choice: Choice, weighed: dict, said: str) -> Table:
    """The threshold of this report, how sure the choice is, and what it is worth (`thresholds.weigh_threshold`).

    said: what `refuse_seen` let pass."""
    facts = {"Threshold of this report": [f"{choice.value:g}", tr(choice.reason)]}
    if not math.isnan(choice.low):
        again = tr("the patients it was chosen on, drawn again")
        facts["95 % interval of the choice"] = [show((choice.low, choice.high), "g"), again]
    if choice.flat:
        facts["As good as the best"] = [show(choice.flat, "g"), tr("less than {least:g} is lost there", least=FLAT)]
    if weighed["origin"] == "nested":
        nested = [f"{weighed['value']:g}", tr(weighed["reason"])]
        facts["Chosen for each patient on the others (median)"] = nested
    apart = f"{weighed['difference']:+.3f} [{show(weighed['low'])}, {show(weighed['high'])}]"
    facts["Mean Dice at it; at 0.5"] = [f"{show(weighed['dice'])}; {show(weighed['dice_at_half'])}", apart]
    if not weighed["sweeps"]:
        why = "no pixel changes between 0.05 and 0.95: these masks were cut before"
        facts["Can a threshold change these masks?"] = [tr("no"), tr(why)]
    if said:
        facts["Chosen on reported images"] = [tr("YES"), tr(said)]
    return tabulate_facts(facts, "What", "Value", "Why")


def draw_sweep(ax, counts: Counts, choice: Choice) -> np.ndarray:
    """Mean Dice over the threshold, with the choice, its interval, and 0.5; returns the curve, float64 (1000,)."""
    curve = counts.curve()
    if not math.isnan(choice.low):
        ax.axvspan(choice.low, choice.high, color=style.ACCENT, alpha=0.15, linewidth=0)
    ax.plot(THRESHOLDS, curve, color="black")
    ax.axvline(choice.value, color=style.ACCENT, label=f"{choice.value:g}")
    ax.axvline(0.5, color=style.NEUTRAL, linestyle="--", label="0.5")
    ax.set(xlabel=tr("Threshold"), ylabel=tr("Mean Dice"), xlim=(0, 1), ylim=(0, 1))
    ax.legend(loc="lower center", frameon=True, framealpha=1, edgecolor="none")  # over the lines
    return curve


def threshold_figure(counts: Counts, choice: Choice, *, stamp: str | None = None):
    """Mean Dice at every threshold, precision against recall, and calibration; returns (figure, alt)."""
    with style.drawing(3.6, stamp=stamp) as figure:
        sweep, tradeoff, calibration = figure.subplots(1, 3)
        curve, place = draw_sweep(sweep, counts, choice), round(choice.value * BINS)
        recall, precision = counts.pooled("recall"), counts.pooled("precision")
        tradeoff.plot(recall, precision, color="black")
        tradeoff.plot(recall[place], precision[place], "o")
        tradeoff.set(xlabel=tr("Recall, pooled"), ylabel=tr("Precision, pooled"), xlim=(0, 1), ylim=(0, 1.02))
        said, found = calibrate(counts)
        calibration.plot([0, 1], [0, 1], color=style.NEUTRAL, linestyle="--")
        calibration.plot(said, found, "o-", color="black", markersize=4)
        calibration.set(xlabel=tr("Probability said"), ylabel=tr("Share that is vessel"), xlim=(0, 1), ylim=(0, 1))
    best = int(np.nanargmax(curve))
    return figure, tr(
        "Mean Dice is {dice:.3f} at the threshold {value:g} and {half:.3f} at 0.5; on these very "
        "images {best:g} would be best ({top:.3f}). Beside it precision against recall, and how often"
        " a probability comes true.",
        dice=curve[place],
        value=choice.value,
        half=curve[BINS // 2],
        best=THRESHOLDS[best],
        top=curve[best],
    )


def answer_tuner(tuner: Tuner) -> Answer:
    """The best threshold on this Run, its interval, what it brings over 0.5, and what it may be used for."""
    run, choice = tuner.run, tuner.choice
    if choice is None:
        said = tr("There is no curve and no number here: {reason}", reason=tuner.reason)
        return Answer(said, Tuned(threshold=None, reason=tuner.reason), stamp=run.meta["stamp"])
    split = run.meta["dataset"]["split"]
    numbers = {"value": choice.value, "rule": choice.rule, "reason": choice.reason, "dice": choice.score}
    numbers |= {"dice_at_half": choice.at_half, "difference": choice.score - choice.at_half}
    numbers |= {"choice_low": choice.low, "choice_high": choice.high, "flat": choice.flat, "split": split}
    sample = say_sample(choice.n_images, choice.n_groups)
    values = dict(best=choice.value, score=choice.score, half=choice.at_half, sample=sample, split=split)
    said = tr(
        "On {sample}, split “{split}”, threshold {best:.3f} gives the best mean Dice, {score:.3f}; "
        "0.5 gives {half:.3f}, and from {low:.3f} to {high:.3f} it is within 0.005 of the best. It "
        "may be reported on other patients only.",
        low=choice.flat[0],
        high=choice.flat[1],
        **values,
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
