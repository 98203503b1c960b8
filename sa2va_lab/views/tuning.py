"""What 04_threshold_tuning says on paper: the answer, the split's curve, one image at five thresholds."""

from __future__ import annotations

import math

import numpy as np

from sa2va_lab.evaluation.thresholds import BINS, THRESHOLDS
from sa2va_lab.language import tr
from sa2va_lab.reports.answers import Answer
from sa2va_lab.reports.texts import say_sample
from sa2va_lab.views import overlays, style
from sa2va_lab.views.tuner import Tuner

STEPS = (0.1, 0.3, 0.5, 0.7, 0.9)


def answer_tuner(tuner: Tuner) -> Answer:
    """The best threshold on this Run, its interval, what it brings over 0.5, and what it may be used for."""
    run, choice = tuner.run, tuner.choice
    if choice is None:
        said = tr("There is no curve and no number here: {reason}", reason=tuner.reason)
        return Answer(said, {"threshold": None, "reason": tuner.reason}, stamp=run.meta["stamp"])
    split = run.meta["dataset"]["split"]
    numbers = {"value": choice.value, "rule": choice.rule, "reason": choice.reason, "dice": choice.score}
    numbers |= {"dice_at_half": choice.at_half, "difference": choice.score - choice.at_half}
    numbers |= {"choice_low": choice.low, "choice_high": choice.high, "flat": choice.flat, "split": split}
    sample = say_sample({"n_images": choice.n_images, "n_groups": choice.n_groups})
    values = dict(best=choice.value, score=choice.score, half=choice.at_half, sample=sample, split=split)
    said = tr(
        "On {sample}, split “{split}”, threshold {best:.3f} gives the best mean Dice, {score:.3f}; "
        "0.5 gives {half:.3f}, and from {low:.3f} to {high:.3f} it is within 0.005 of the best. It "
        "may be reported on other patients only.",
        low=choice.flat[0],
        high=choice.flat[1],
        **values,
    )
    return Answer(said, {"threshold": numbers}, stamp=run.meta["stamp"])


def curve_figure(tuner: Tuner):
    """Mean Dice over the threshold, the best with its interval, and 0.5; (figure, alt)."""

    choice = tuner.choice
    figure = style.new_figure(style.WIDTH, 3.6)
    with style.figure_settings():
        ax = figure.subplots()
        if choice is not None:
            if not math.isnan(choice.low):
                ax.axvspan(choice.low, choice.high, color=style.ACCENT, alpha=0.13, linewidth=0)
            ax.plot(THRESHOLDS, tuner.counts.curve(), color="black")
            ax.axvline(choice.value, color=style.ACCENT)
            ax.axvline(0.5, color=style.NEUTRAL, linestyle="--")
            ax.set_title(f"{choice.value:.3f}: Dice {choice.score:.3f}   0.5: Dice {choice.at_half:.3f}")
        ax.set_xlim(0, 1)
        ax.set_ylim(0, 1)
        ax.set_xlabel(tr("Threshold"))
        ax.set_ylabel(tr("Mean Dice of the split"))
        ax.grid(color="#E3E7EA", linewidth=0.8)
        style.stamp(figure, tuner.run.meta["stamp"])
    return figure, answer_tuner(tuner).sentence


def strip_figure(tuner: Tuner):
    """The median image by Dice at five thresholds; (figure, alt)."""

    scored = [name for name in tuner.order if not math.isnan(tuner.dice[name])] or tuner.order
    name = scored[len(scored) // 2]

    figure = style.new_figure(style.WIDTH, 2.6)
    pixels, probability, truth = tuner.open_sample(name)
    told = []
    with style.figure_settings():
        for ax, step in zip(figure.subplots(1, len(STEPS)), STEPS, strict=True):
            overlays.draw_comparison(pixels, probability > step, truth, ax=ax)
            said = f"{step:g}"
            if name in (tuner.counts.ids if tuner.counts else ()):
                dice = tuner.counts.select([name]).scores()[0, round(step * BINS)]
                said += "" if np.isnan(dice) else f": Dice {dice:.2f}"
            ax.set_title(said)
            told.append(said)
        if truth is not None:
            figure.legend(handles=overlays.legend_handles(), loc="outside lower left", ncols=3, fontsize=8)
        style.stamp(figure, tuner.run.meta["stamp"])
    return figure, tr("{id} at five thresholds: {steps}.", id=name, steps=", ".join(told))
