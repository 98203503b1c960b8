"""What 02_loss_curves shows of training runs: how each loss went, what it is made of, what the audit found.

Every number is a loss, a rate or a duration. Nothing here makes a metric of a loss: where a Run has measured Dice, it
is set beside the loss, not derived from it.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from sa2va_lab.errors import LabError
from sa2va_lab.language import join_sentences, tr
from sa2va_lab.reports.answers import FILE, Answer, Trained
from sa2va_lab.reports.texts import say
from sa2va_lab.training.audit import Audit
from sa2va_lab.training.readers import TOTAL
from sa2va_lab.training.sources import is_demo_log
from sa2va_lab.training.trends import Course, follow, smooth
from sa2va_lab.views import style
from sa2va_lab.views.tables import Table

MOST_POINTS = 3000  # of a drawn curve
LOG_FROM = 20  # a curve that falls to less than 1/20 is drawn on a log axis
RAW, BAND = "#B7C0C7", "#D3E4F1"
LINES = [
    (style.ACCENT, "-"),
    (style.FALSE_POSITIVE, "--"),
    ("#000000", "-."),
    ("#009E73", ":"),
    ("#CC79A7", (0, (5, 1, 1, 1, 1, 1))),
]
HATCHES = ("", "///", "...", "xx", "\\\\\\")
HEADS = ("curve_first", "curve_last", "curve_change", "curve_lowest", "curve_at_iteration", "curve_bare_first")
HEADS += ("curve_bare_last",)
FIGURE, SUMMARY = "training_curves.png", "training_summary.md"


def answer_audits(audits: list[Audit]) -> Answer:
    """One sentence a run: how far the loss fell, how many processes took part, how much needs a look."""
    sentences = []
    for found in audits:
        run, name = found.run, found.run.losses[0]
        first, last = run.first(name), run.last(name)
        sentences.append(
            tr(
                "{name}: the loss fell from {first:.4f} to {last:.4f} ({change:+.2f} %) in {iterations:,} "
                "iterations; {processes}; findings that need a look: {alarms}.",
                name=run_name(found),
                first=first,
                last=last,
                change=-(run.drop_percent(name) or 0),
                iterations=found.iterations,
                processes=_say_processes(found),
                alarms=len(found.alarms),
            )
        )
    sentences.append(tr("No metric follows from a training loss."))
    alarms = [finding.evidence for found in audits for finding in found.alarms]
    metrics = Trained(runs=[found.to_dict() for found in audits], alarms=alarms)
    demo = any(is_demo_log(found.run.path) for found in audits)
    return Answer(
        join_sentences(sentences),
        metrics,
        stamp="demo model: synthetic data, not medical evidence" if demo else None,
    )


def run_name(found: Audit) -> str:
    """What a run is called: its log's name, or for scalars.json that of the folder that mmengine made for the run."""
    path = found.run.path.resolve()
    if path.name.startswith(("scalars", "trainer_state")):
        return path.parents[1].name if path.parent.name == "vis_data" else path.parent.name
    return path.name


def loss_table(audits: list[Audit]) -> Table:
    """Each loss of each run: first and last figure, change, lowest point of the smoothed curve, figures ÷ weight."""
    rows = []
    for found in audits:
        run = found.run
        for name in run.losses:
            place, low = follow(*run.curve(name)).lowest
            drop, weight = run.drop_percent(name), found.weights.get(name)
            ends = (run.first(name), run.last(name))
            change = "–" if drop is None else f"{-drop:+.2f}".replace("-", "−")
            bare = [f"{end / weight:.4f}" if weight else "–" for end in ends]
            log = [run_name(found)] if len(audits) > 1 else []
            rows.append([name, *log, *(f"{end:.4f}" for end in ends), change, f"{low:.4f}", f"{place:,}", *bare])
    heads = ("curve_loss", *(["curve_log"] if len(audits) > 1 else []), *HEADS)
    return Table([say(key) for key in heads], rows)


def finding_table(found: Audit) -> Table:
    """What the audit found, what needs a look first."""
    rows = [
        [tr(finding.title), tr("yes") if finding.alarm else "", tr(finding.evidence)]
        for finding in sorted(found.findings, key=lambda finding: not finding.alarm)
    ]
    heads = [tr(text) for text in ("About", "Look at it", "What the log says")]
    return Table([*heads[:2], f"{heads[2]} ({run_name(found)})"], rows)


def curves_figure(found: Audit):
    """Every loss raw and smoothed, what it is without weights, its share; rate, time and memory: (figure, alt)."""

    run = found.run
    panels = [(_draw_loss, name) for name in run.losses]
    if len(found.weights) > 1:
        panels.append((_draw_bare, None))
    if TOTAL in run.losses and len(run.parts) > 1:
        panels.append((_draw_shares, None))
    singles = (("lr", "curve_learning_rate", 1), ("time", "curve_seconds_iteration", 1))
    singles += (("memory", "curve_gpu_memory", 1 / 1024),)
    panels += [(_draw_single, single) for single in singles if single[0] in run.records]
    rows = math.ceil(len(panels) / 2)
    figure = style.new_figure(style.WIDTH, 0.6 + 2.15 * rows)
    with style.figure_settings():
        axes = figure.subplots(rows, 2, squeeze=False)
        for ax, (draw, what) in zip(axes.flat, panels, strict=False):
            draw(ax, found, what)
            ax.set_xlim(0, found.iterations)
            ax.grid(color="#E3E7EA", linewidth=0.6)
            ax.set_axisbelow(True)
            ax.xaxis.set_major_formatter(_thousands)
        for ax in axes.flat[len(panels) :]:
            ax.set_axis_off()
        for ax in axes.flat[max(len(panels) - 2, 0) : len(panels)]:
            ax.set_xlabel(tr("Iteration"))
        style.stamp(figure, _stamp(found))
    total = run.losses[0]
    course = next((tr(finding.evidence) for finding in found.findings if finding.kind == "phases"), "")
    ends = dict(first=run.first(total), last=run.last(total), iterations=found.iterations)
    return figure, tr(
        "Losses of {name}: the total goes from {first:.4g} to {last:.4g} over {iterations:,} iterations; {course}",
        name=run_name(found),
        course=course,
        **ends,
    ).rstrip("; ；")


def comparison_figure(audits: list[Audit]):
    """The smoothed totals of several runs on one axis: (figure, alt)."""

    figure = style.new_figure(style.WIDTH, 3.6)
    with style.figure_settings():
        ax = figure.subplots()
        courses = [found.course for found in audits]
        for place, (found, course) in enumerate(zip(audits, courses, strict=True)):
            colour, dashes = LINES[place % len(LINES)]
            x, y = _thin(course.iterations, course.mean)
            ax.plot(x, y, color=colour, linestyle=dashes, linewidth=1.8, label=run_name(found))
        _set_scale(ax, np.concatenate([course.mean for course in courses]))
        ax.set_title(tr("Total loss, smoothed"))
        ax.set_xlabel(tr("Iteration"))
        ax.xaxis.set_major_formatter(_thousands)
        ax.set_xlim(0, max(found.iterations for found in audits))
        ax.grid(color="#E3E7EA", linewidth=0.6)
        _add_legend(ax)
        style.stamp(figure, next((text for found in audits if (text := _stamp(found))), None))
    ends = "; ".join(f"{run_name(f)} {c.mean[0]:.3g} → {c.mean[-1]:.3g}" for f, c in zip(audits, courses, strict=True))
    return figure, tr("Smoothed total losses of {count} runs: {ends}.", count=len(audits), ends=ends)


def dice_figure(found: Audit, run_folder: Path | str):
    """The Dice part of the training loss beside the Dice that a Run measured: (figure, alt).

    LabError where the log has no Dice part, or the Run has no metrics.json (03_evaluation writes it).
    """

    name = next((name for name in found.run.parts if "dice" in name), None)
    if name is None:
        raise LabError(f"{found.run.path} logs no Dice part of the loss, so there is nothing to set beside a Run.")
    summary, split = measured_dice(run_folder)
    weight = found.weights.get(name)
    if weight is None:
        raise LabError(
            f"the weight of {name} is not known: give the training's config, and set it beside the Run then."
        )
    dice, low, high = (summary["dice"].get(key) for key in ("macro", "low", "high"))
    figure = style.new_figure(style.WIDTH, 2.8)
    with style.figure_settings():
        left, right = figure.subplots(1, 2, width_ratios=(3, 1), sharey=True)
        places, values = found.run.curve(name)
        course = follow(places, values / weight)
        _draw_course(left, *_thin(places, values / weight, course.mean, course.spread))
        left.set_title(tr("Training loss of the Dice part ÷ weight"))
        left.set_xlabel(tr("Iteration"))
        left.set_xlim(0, found.iterations)
        left.set_ylim(0, 1.05)
        left.xaxis.set_major_formatter(_thousands)
        if low is not None and high is not None:
            right.plot([0, 0], [low, high], color=style.ACCENT, linewidth=6, alpha=0.3, solid_capstyle="butt")
        right.plot([0], [dice], "o", color=style.ACCENT, markersize=8)
        right.annotate(f"{dice:.3f}", (0, dice), xytext=(10, 0), textcoords="offset points", va="center")
        right.set_xlim(-0.5, 1)
        right.set_xticks([0], [f"{split}\nN = {summary['n_images']}"])
        right.set_title(tr("Dice, measured by a Run"))
        for ax in (left, right):
            ax.grid(axis="y", color="#E3E7EA", linewidth=0.6)
            ax.set_axisbelow(True)
        style.stamp(figure, _stamp(found))
    values = dict(loss=found.run.last(name) / weight, dice=dice, n=summary["n_images"], split=split)
    return figure, tr(
        "Left, the Dice part of the training loss ends at {loss:.3f}; right, Dice as measured on "
        "split “{split}”: {dice:.3f}, N = {n}. Neither follows from the other.",
        **values,
    )


def measured_dice(run_folder: Path | str) -> tuple[dict, str]:
    """(summary, split) of a Run, from the metrics.json that its evaluation wrote; LabError where there is none."""
    path = Path(run_folder) / FILE
    try:
        metrics = json.loads(path.read_text("utf-8"))["metrics"]
        if metrics["summary"]["dice"]["macro"] is None:
            raise LabError(f"{path} holds no Dice: its images have no annotations.")
        return metrics["summary"], metrics["split"]
    except (OSError, ValueError, KeyError, TypeError):
        raise LabError(f"{path} is not the result of an evaluation: run 03_evaluation on this Run first.") from None


def save_files(audits: list[Audit], folder: Path) -> list[Path]:
    """Writes the figures as PNG and a summary in Markdown into a new folder; returns their paths."""
    folder.mkdir(parents=True)
    figures = [curves_figure(found) for found in audits]
    names = [FIGURE if not place else f"training_curves_{place + 1}.png" for place in range(len(audits))]
    if len(audits) > 1:
        figures.append(comparison_figure(audits))
        names.append("training_comparison.png")
    paths = []
    for name, (figure, _) in zip(names, figures, strict=True):
        paths.append(folder / name)
        paths[-1].write_bytes(style.to_png(figure))
    title = ", ".join(run_name(found) for found in audits)
    text = [f"# {title}", answer_audits(audits).sentence, _markdown(loss_table(audits))]
    for place, found in enumerate(audits):
        alt = figures[place][1].replace("[", "(").replace("]", ")")
        text += [f"## {run_name(found)}", f"![{alt}]({names[place]})", _markdown(finding_table(found))]
    paths.append(folder / SUMMARY)
    paths[-1].write_text("\n\n".join(text) + "\n", "utf-8")
    return paths


def _thousands(value: float, _) -> str:
    return f"{value:,.0f}"


def _say_processes(found: Audit) -> str:
    ranks, meant = found.implied_ranks, found.ranks
    if ranks is None:
        return tr("how many processes took part is not known")
    if ranks == meant:
        return say("training_as_meant_one" if ranks == 1 else "training_as_meant", ranks=ranks)
    return say("training_one" if ranks == 1 else "training_other", ranks=ranks, meant=meant)


def _stamp(found: Audit) -> str | None:
    return tr("demo model: synthetic data, not medical evidence") if is_demo_log(found.run.path) else None


def _draw_loss(ax, found: Audit, name: str) -> None:
    places, values = found.run.curve(name)
    course = follow(places, values)
    _draw_course(ax, *_thin(places, values, course.mean, course.spread))
    _set_scale(ax, values)
    if name == found.run.losses[0]:
        _mark_phases(ax, course)
    for restart in found.run.restarts:
        ax.axvline(restart, color=style.FALSE_POSITIVE, linestyle="--", linewidth=1)
    if found.run.restarts and name == found.run.losses[0]:
        ax.plot([], [], color=style.FALSE_POSITIVE, linestyle="--", label=tr("taken up again"))
    if course.spikes:
        ax.plot(*zip(*course.spikes, strict=True), "v", color=style.FALSE_POSITIVE, markersize=5)
    if ax.get_legend_handles_labels()[0]:
        _add_legend(ax)
    ax.set_title(f"{name}   {values[0]:.4f} → {values[-1]:.4f}")


def _mark_phases(ax, course: Course) -> None:
    for place, key, dashes in (
        (course.fast_until, "curve_fast_fall", ":"),
        (course.plateau_from, "curve_plateau", "-."),
    ):
        if place is not None:
            ax.axvline(place, color="black", linestyle=dashes, linewidth=1, label=f"{say(key)}: {place:,}")


def _draw_course(ax, places, values, mean, spread) -> None:
    ax.fill_between(places, mean - spread, mean + spread, color=BAND, linewidth=0)
    ax.plot(places, values, color=RAW, linewidth=0.6)
    ax.plot(places, mean, color=style.ACCENT, linewidth=1.8)


def _draw_bare(ax, found: Audit, _) -> None:
    bares = []
    for place, (name, weight) in enumerate(found.weights.items()):
        iterations, values = found.run.curve(name)
        mean = follow(iterations, values / weight).mean
        colour, dashes = LINES[place % len(LINES)]
        ax.plot(*_thin(iterations, mean), color=colour, linestyle=dashes, label=f"{name} ÷ {weight:g}")
        bares.append(mean)
    _set_scale(ax, np.concatenate(bares))
    _add_legend(ax)
    ax.set_title(tr("Parts ÷ their weights"))


def _draw_shares(ax, found: Audit, _) -> None:
    run = found.run
    parts = [np.nan_to_num(np.maximum(run.records[name], 0)) for name in run.parts]
    smoothed = np.array([smooth(part, found.course.window)[0] for part in parts])
    shares = smoothed / np.maximum(smoothed.sum(axis=0), 1e-12)
    places, shares = _thin(run.records["iteration"], shares.T)
    stacks = ax.stackplot(places, shares.T, labels=run.parts, colors=[c for c, _ in LINES], alpha=0.55)
    for stack, hatch in zip(stacks, HATCHES, strict=False):
        stack.set(hatch=hatch, edgecolor="white", linewidth=0)
    ax.set_ylim(0, 1)
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    _add_legend(ax)
    ax.set_title(tr("Share of the total"))


def _draw_single(ax, found: Audit, single: tuple[str, str, float]) -> None:
    name, key, scale = single
    places, values = found.run.curve(name)
    ax.plot(*_thin(places, values * scale), color=style.NEUTRAL, linewidth=1.2)
    ax.set_ylim(bottom=0)
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.set_title(say(key))


def _add_legend(ax) -> None:
    """A legend where it hides least, and that can be read where a line runs behind it."""
    ax.legend(fontsize=8, loc="best", frameon=True, framealpha=0.9, edgecolor="white")


def _set_scale(ax, values: np.ndarray) -> None:
    from matplotlib.ticker import LogLocator

    positive = values[values > 0]
    if len(positive) == len(values) and values.max() > LOG_FROM * values.min():
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        ax.yaxis.set_minor_formatter("")
    else:
        ax.set_ylim(bottom=min(0, float(values.min())))


def _thin(*columns: np.ndarray) -> list[np.ndarray]:
    every = max(1, len(columns[0]) // MOST_POINTS)
    return [column[::every] for column in columns]


def _markdown(table: Table) -> str:
    rows = [table.columns, ["---"] * len(table.columns), *table.rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)
