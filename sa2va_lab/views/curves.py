"""What 02_loss_curves shows of training runs: how each loss went, what it is made of, what the audit found.

Every number is a loss, a rate or a duration. Nothing here makes a metric of a loss: where a Run has measured Dice, it
is set beside the loss, not derived from it.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.ticker import LogLocator

from sa2va_lab.errors import LabError
from sa2va_lab.files import read_json, write_whole
from sa2va_lab.language import join_sentences, tr
from sa2va_lab.paths import real, shown_name
from sa2va_lab.reports.answers import FILE, Answer, Trained
from sa2va_lab.training.audit import Audit, is_demo_log
from sa2va_lab.training.log import Course, follow, smooth
from sa2va_lab.training.readers import TOTAL
from sa2va_lab.views import style
from sa2va_lab.views.tables import Table

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


def answer_audits(audits: list[Audit]) -> Answer:
    """One sentence a run: how far the loss fell, how many processes took part, how much needs a look."""
    sentences = []
    for found in audits:
        run, name = found.run, found.run.losses[0]
        values = dict(name=run_name(found), first=run.first(name), last=run.last(name), iterations=found.iterations)
        values |= dict(change=-(run.drop_percent(name) or 0), processes=_say_processes(found))
        told = tr(
            "{name}: the loss fell from {first:.4f} to {last:.4f} ({change:+.2f} %) in {iterations:,} "
            "iterations; {processes}; findings that need a look: {alarms}.",
            **values,
            alarms=len(found.alarms),
        )
        sentences.append(told)
    sentences.append(tr("No metric follows from a training loss."))
    alarms = [finding.evidence for found in audits for finding in found.alarms]
    metrics = Trained(runs=[found.to_dict() for found in audits], alarms=alarms)
    return Answer(join_sentences(sentences), metrics, stamp=_stamp(audits))


def run_name(found: Audit) -> str:
    """What a run is called: as its log (see `shown_name`), or for scalars.json as the folder that mmengine made."""
    path = real(found.run.path)
    if path.name.startswith(("scalars", "trainer_state")):
        path = path.parents[1] if path.parent.name == "vis_data" else path.parent
    return shown_name("log", path)


def loss_table(audits: list[Audit]) -> Table:
    """Each loss of each run: first and last figure, change, lowest point of the smoothed curve, figures ÷ weight."""
    rows, several = [], len(audits) > 1
    for found in audits:
        run = found.run
        for name in run.losses:
            place, low = follow(*run.curve(name)).lowest
            drop, weight = run.drop_percent(name), found.weights.get(name)
            ends = (run.first(name), run.last(name))
            change = "–" if drop is None else f"{-drop:+.2f}".replace("-", "−")
            bare = [f"{end / weight:.4f}" if weight else "–" for end in ends]
            log = [run_name(found)] if several else []
            rows.append([name, *log, *(f"{end:.4f}" for end in ends), change, f"{low:.4f}", f"{place:,}", *bare])
    heads = [tr("Loss"), *([tr("Log")] if several else []), tr("First"), tr("Last"), tr("Change, %")]
    heads += [tr("Lowest, smoothed"), tr("at iteration"), tr("First ÷ weight"), tr("Last ÷ weight")]
    return Table(heads, rows)


def finding_table(found: Audit) -> Table:
    """What the audit found, what needs a look first."""
    rows = [
        [tr(finding.title), tr("yes") if finding.alarm else "", tr(finding.evidence)]
        for finding in sorted(found.findings, key=lambda finding: not finding.alarm)
    ]
    return Table([tr("About"), tr("Look at it"), f"{tr('What the log says')} ({run_name(found)})"], rows)


def curves_figure(found: Audit):
    """Every loss raw and smoothed, what it is without weights, its share; rate, time and memory: (figure, alt)."""
    run = found.run
    panels = [partial(_draw_loss, found=found, name=name) for name in run.losses]
    if len(found.weights) > 1:
        bare = [(f"{name} ÷ {weight:g}", _follow_bare(found, name)) for name, weight in found.weights.items()]
        panels.append(partial(_draw_lines, courses=bare, title=tr("Parts ÷ their weights")))
    if TOTAL in run.losses and len(run.parts) > 1:
        panels.append(partial(_draw_shares, found=found))
    singles = {"lr": ("Learning rate", 1), "time": ("Seconds an iteration", 1), "memory": ("GPU memory, GiB", 1 / 1024)}
    for name, (title, scale) in singles.items():
        if name in run.records:
            panels.append(partial(_draw_single, found=found, name=name, title=title, scale=scale))
    rows = math.ceil(len(panels) / 2)
    with style.drawing(0.6 + 2.15 * rows, stamp=_stamp([found])) as figure:
        axes = figure.subplots(rows, 2, squeeze=False).flat
        for place, draw in enumerate(panels):
            draw(axes[place])
            _set_up(axes[place], found.iterations, label=place >= len(panels) - 2)
        for ax in axes[len(panels) :]:
            ax.set_axis_off()
    total = run.losses[0]
    course = next((tr(finding.evidence) for finding in found.findings if finding.kind == "phases"), "")
    values = dict(name=run_name(found), first=run.first(total), last=run.last(total), iterations=found.iterations)
    told = tr(
        "Losses of {name}: the total goes from {first:.4g} to {last:.4g} over {iterations:,} iterations; {course}",
        **values,
        course=course,
    )
    return figure, told.rstrip("; ；")


def comparison_figure(audits: list[Audit]):
    """The smoothed totals of several runs on one axis: (figure, alt)."""
    with style.drawing(3.6, stamp=_stamp(audits)) as figure:
        ax = figure.subplots()
        _draw_lines(ax, [(run_name(found), found.course) for found in audits], tr("Total loss, smoothed"))
        _set_up(ax, max(found.iterations for found in audits))
    ends = [f"{run_name(found)} {found.course.mean[0]:.3g} → {found.course.mean[-1]:.3g}" for found in audits]
    return figure, tr("Smoothed total losses of {count} runs: {ends}.", count=len(audits), ends="; ".join(ends))


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
    with style.drawing(2.8, stamp=_stamp([found])) as figure:
        left, right = figure.subplots(1, 2, width_ratios=(3, 1), sharey=True)
        _draw_course(left, found.run.curve(name)[1] / weight, _follow_bare(found, name))
        left.set_title(tr("Training loss of the Dice part ÷ weight"))
        left.set_ylim(0, 1.05)
        _set_up(left, found.iterations)
        if low is not None and high is not None:
            right.plot([0, 0], [low, high], color=style.ACCENT, linewidth=6, alpha=0.3, solid_capstyle="butt")
        right.plot([0], [dice], "o", color=style.ACCENT, markersize=8)
        right.annotate(f"{dice:.3f}", (0, dice), xytext=(10, 0), textcoords="offset points", va="center")
        right.set_xlim(-0.5, 1)
        right.set_xticks([0], [f"{split}\nN = {summary['n_images']}"])
        right.set_title(tr("Dice, measured by a Run"))
        right.grid(axis="y", linewidth=0.6)
    return figure, tr(
        "Left, the Dice part of the training loss ends at {loss:.3f}; right, Dice as measured on "
        "split “{split}”: {dice:.3f}, N = {n}. Neither follows from the other.",
        loss=found.run.last(name) / weight,
        dice=dice,
        n=summary["n_images"],
        split=split,
    )


def measured_dice(run_folder: Path | str) -> tuple[dict, str]:
    """(summary, split) of a Run, from the metrics.json that its evaluation wrote; LabError where there is none."""
    path = Path(run_folder) / FILE
    try:
        metrics = read_json(path)["metrics"]
        summary, split, dice = metrics["summary"], metrics["split"], metrics["summary"]["dice"]["macro"]
    except (LabError, KeyError, TypeError):
        raise LabError(f"{path} is not the result of an evaluation: run 03_evaluation on this Run first.") from None
    if dice is None:
        raise LabError(f"{path} holds no Dice: its images have no annotations.")
    return summary, split


def save_files(audits: list[Audit], folder: Path) -> list[Path]:
    """Writes the figures as PNG and a summary in Markdown into a new folder; returns their paths."""
    folder.mkdir(parents=True)
    names = [f"training_curves_{place + 1}.png" if place else "training_curves.png" for place in range(len(audits))]
    figures = dict(zip(names, map(curves_figure, audits), strict=True))
    text = [f"# {', '.join(map(run_name, audits))}", answer_audits(audits).sentence, _markdown(loss_table(audits))]
    for found, (name, (_, alt)) in zip(audits, figures.items(), strict=True):
        alt = alt.replace("[", "(").replace("]", ")")
        text += [f"## {run_name(found)}", f"![{alt}]({name})", _markdown(finding_table(found))]
    if len(audits) > 1:
        figures["training_comparison.png"] = comparison_figure(audits)
    for name, (figure, _) in figures.items():
        write_whole(folder / name, style.to_png(figure))
    summary = folder / "training_summary.md"
    write_whole(summary, "\n\n".join(text) + "\n")
    return [*(folder / name for name in figures), summary]


def _say_processes(found: Audit) -> str:
    ranks, meant = found.implied_ranks, found.ranks
    if ranks is None:
        return tr("how many processes took part is not known")
    if ranks == meant:
        one, several = tr("they fit one process, as meant"), tr("they fit {ranks} processes, as meant", ranks=ranks)
        return one if ranks == 1 else several
    if ranks == 1:
        return tr("they fit ONE process, not the {meant} that were meant", meant=meant)
    return tr("they fit {ranks} processes, not {meant}", ranks=ranks, meant=meant)


def _stamp(audits: list[Audit]) -> str | None:
    """In English; who shows it translates it."""
    demo = any(is_demo_log(found.run.path) for found in audits)
    return "demo model: synthetic data, not medical evidence" if demo else None


def _set_up(ax, iterations: int, *, label: bool = True) -> None:
    """The axis of iterations, the same in every panel."""
    ax.set_xlim(0, iterations)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    ax.grid(linewidth=0.6)
    if label:
        ax.set_xlabel(tr("Iteration"))


def _draw_loss(ax, found: Audit, name: str) -> None:
    values = found.run.curve(name)[1]
    course = follow(*found.run.curve(name))
    _draw_course(ax, values, course)
    _set_scale(ax, values)
    first = name == found.run.losses[0]
    marks = [(course.fast_until, tr("90 % of the fall"), ":"), (course.plateau_from, tr("nothing new after"), "-.")]
    for place, word, dashes in marks if first else ():
        if place is not None:
            ax.axvline(place, color="black", linestyle=dashes, linewidth=1, label=f"{word}: {place:,}")
    for number, restart in enumerate(found.run.restarts):
        label = tr("taken up again") if first and not number else None
        ax.axvline(restart, color=style.FALSE_POSITIVE, linestyle="--", linewidth=1, label=label)
    if course.spikes:
        ax.plot(*zip(*course.spikes, strict=True), "v", color=style.FALSE_POSITIVE, markersize=5)
    _add_legend(ax)
    ax.set_title(f"{name}   {values[0]:.4f} → {values[-1]:.4f}")


def _draw_course(ax, values: np.ndarray, course: Course) -> None:
    low, high = course.mean - course.spread, course.mean + course.spread
    ax.fill_between(course.iterations, low, high, color=BAND, linewidth=0)
    ax.plot(course.iterations, values, color=RAW, linewidth=0.6)
    ax.plot(course.iterations, course.mean, color=style.ACCENT, linewidth=1.8)


def _follow_bare(found: Audit, name: str) -> Course:
    iterations, values = found.run.curve(name)
    return follow(iterations, values / found.weights[name])


def _draw_lines(ax, courses: list[tuple[str, Course]], title: str) -> None:
    """Smoothed curves, each with a colour and a kind of line of its own."""
    for place, (label, course) in enumerate(courses):
        colour, dashes = LINES[place % len(LINES)]
        ax.plot(course.iterations, course.mean, color=colour, linestyle=dashes, linewidth=1.8, label=label)
    _set_scale(ax, np.concatenate([course.mean for _, course in courses]))
    _add_legend(ax)
    ax.set_title(title)


def _draw_shares(ax, found: Audit) -> None:
    run = found.run
    parts = [np.nan_to_num(np.maximum(run.records[name], 0)) for name in run.parts]
    smoothed = np.array([smooth(part, found.course.window)[0] for part in parts])
    shares = smoothed / np.maximum(smoothed.sum(axis=0), 1e-12)
    colours = [colour for colour, _ in LINES]
    stacks = ax.stackplot(run.records["iteration"], shares, labels=run.parts, colors=colours, alpha=0.55)
    for stack, hatch in zip(stacks, HATCHES, strict=False):
        stack.set(hatch=hatch, edgecolor="white", linewidth=0)
    ax.set_ylim(0, 1)
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    _add_legend(ax)
    ax.set_title(tr("Share of the total"))


def _draw_single(ax, found: Audit, name: str, title: str, scale: float) -> None:
    places, values = found.run.curve(name)
    ax.plot(places, values * scale, color=style.NEUTRAL, linewidth=1.2)
    ax.set_ylim(bottom=0)
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.set_title(tr(title))


def _add_legend(ax) -> None:
    """A legend where it hides least, and that can be read where a line runs behind it; none where nothing is named."""
    if ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize=8, loc="best", frameon=True, framealpha=0.9, edgecolor="white")


def _set_scale(ax, values: np.ndarray) -> None:
    if values.min() > 0 and values.max() > LOG_FROM * values.min():
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        ax.yaxis.set_minor_formatter("")
    else:
        ax.set_ylim(bottom=min(0, float(values.min())))


def _markdown(table: Table) -> str:
    rows = [table.columns, ["---"] * len(table.columns), *table.rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)
