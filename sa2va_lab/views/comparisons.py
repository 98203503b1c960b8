"""What stands beside a Run's number in 03_evaluation: other models, baselines, thresholds, findings, widths."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from sa2va_lab.errors import LabError
from sa2va_lab.evaluation.intervals import Difference, bootstrap_mean, compare_paired
from sa2va_lab.evaluation.thresholds import BINS, FLAT, THRESHOLDS, Choice, Counts, calibrate
from sa2va_lab.language import tr
from sa2va_lab.reports.texts import say
from sa2va_lab.training.sources import audit_logs, find_logs
from sa2va_lab.views import style
from sa2va_lab.views.findings import describe_finding
from sa2va_lab.views.tables import Table, show_interval

if TYPE_CHECKING:
    import pandas as pd

    from sa2va_lab.evaluation.honesty import Finding
    from sa2va_lab.runs.read import Run

BASELINES = {
    "nothing": "All background",
    "everything": "All foreground",
    "training": "Mean training mask",
    "frangi": "Frangi filter and Otsu",
    "shuffled": "Another image's truth (chance)",
    "observer": "Second annotator",
}


def threshold_table(choice: Choice, weighed: dict, said: str) -> Table:
    """The threshold of this report, how sure the choice is, and what it is worth (`weigh_threshold`).

    said: what `refuse_seen` let pass."""
    rows = [("threshold_used", f"{choice.value:g}", choice.reason)]
    if not math.isnan(choice.low):
        rows.append(
            (
                "threshold_interval",
                f"{choice.low:g} – {choice.high:g}",
                tr("the patients it was chosen on, drawn again"),
            )
        )
    if not math.isnan(choice.flat[0]):
        ends = f"{choice.flat[0]:g} – {choice.flat[1]:g}"
        rows.append(("threshold_flat", ends, tr("less than {least:g} is lost there", least=FLAT)))
    if weighed["origin"] == "nested":
        rows.append(("threshold_nested", f"{weighed['value']:g}", weighed["reason"]))
    apart = f"{weighed['difference']:+.3f} [{_three(weighed['low'])}, {_three(weighed['high'])}]"
    rows.append(("threshold_worth", f"{_three(weighed['dice'])}; {_three(weighed['dice_at_half'])}", apart))
    if said:
        rows.append(("threshold_seen", tr("YES"), said))
    heads = [tr(text) for text in ("What", "Value", "Why")]
    return Table(heads, [[say(key), *rest] for key, *rest in rows])


def name_side(run: Run) -> str:
    """What the model beside the report's own is, in English: the base alone, or the base with a fine-tune."""
    tuned = run.meta["segmenter"].get("finetune")
    return f"with its fine-tune {tuned['file']}" if tuned else "the base alone"


def report_baselines(baselines: list[dict]) -> list[dict]:
    """What metrics.json keeps of `baselines.measure_baselines`: with a title, without the images' own scores."""
    kept = [{key: value for key, value in row.items() if key != "scores"} for row in baselines]
    return [{"title": BASELINES[row["name"]]} | row for row in kept]


def comparison_table(
    table: pd.DataFrame, others: dict[str, pd.DataFrame], baselines: list[dict], *, name: str
) -> Table:
    """The model, other models and baselines on the same images: Dice, N, and how far each is from the model.

    Each model stands at the threshold that its table was made with."""
    interval = bootstrap_mean(table["dice"], table["group"])
    name, *titles = [
        tr("{who}, threshold {threshold:g}", who=tr(who), threshold=made.attrs["threshold"])
        for who, made in {name: table, **others}.items()
    ]
    rows = [_row(name, float(table["dice"].mean()), interval.low, interval.high, table["dice"].notna().sum(), None)]
    mine = table.set_index("id")
    rest = [(title, other.set_index("id")["dice"]) for title, other in zip(titles, others.values(), strict=True)]
    rest += [(tr(BASELINES[row["name"]]), row["scores"]) for row in baselines]
    for title, scores in rest:
        theirs = np.array([dict(scores).get(sample_id, np.nan) for sample_id in mine.index])
        around = bootstrap_mean(theirs, mine["group"])
        found = compare_paired(mine["dice"], theirs, mine["group"])
        shown = float(np.nanmean(theirs)) if np.isfinite(theirs).any() else math.nan
        rows.append(_row(title, shown, around.low, around.high, np.isfinite(theirs).sum(), found))
    keys = ("compare_who", "compare_dice", "interval", "n_images", "compare_difference", "compare_words")
    return Table([say(key) for key in keys], rows)


def _row(title: str, dice: float, low: float, high: float, n: int, found: Difference | None) -> list[str]:
    row = [title, _three(dice), show_interval(low, high), str(int(n))]
    if found is None:
        return [*row, "–", tr("the model of this report")]
    apart = f"{found.mean:+.3f} [{_three(found.low)}, {_three(found.high)}]" if found.n_images else "–"
    words = "compare_clear" if found.distinguishable else "compare_unclear"
    if found.distinguishable and found.p > 0.05:
        words = "compare_few"
    return [*row, apart, say(words, p=found.p, n=found.n_groups)]


def phrase_table(asked: dict[str, list[dict]]) -> Table:
    """By model, each thing asked for by its own name: rows of `phrases.measure_phrase`."""
    rows = [
        [
            tr(name), told["phrase"], _three(told["dice"]), show_interval(told["low"], told["high"]),
            tr("{images} images / {groups} patients", images=told["n_there"], groups=told["n_groups"]),
            tr("{refused} of {n_absent}", **told) if told["n_absent"] else "–",
        ]
        for name, things in asked.items()
        for told in things
    ]  # fmt: skip
    keys = ("compare_who", "phrase_asked", "compare_dice", "interval", "phrase_where", "phrase_refusals")
    return Table([say(key) for key in keys], rows)


def wording_table(compared: list[dict]):
    """What each phrasing gave (`wordings.compare_wordings`), and what was answered; or why there is nothing to see."""
    if not compared:
        return _say_instead("wording_none")
    rows = []
    for row in compared:
        answers = "; ".join(f"“{text}” × {count}" for text, count in row["answers"].items())
        numbers = (row[key] for key in ("dice", "low", "high", "n_images", "difference"))
        line = _row(_show_prompt(row["prompt"]), *numbers)
        rows.append([line[0], answers or "–", *line[1:]])
    rows[0][-1] = tr("as in this report")
    heads = ("wording_prompt", "wording_answers", "compare_dice", "interval", "n_images", "wording_difference")
    return Table([say(key) for key in (*heads, "compare_words")], rows)


def loss_table(log: str, measured: dict[str, dict], *, config: str = "", demo: bool = False):
    """The last mask and Dice losses of a training log above the Dice that was measured; or why there are none.

    measured: {model: `summarise`d table}. demo: whether no log means the demo's. Nothing is computed from the losses.
    """
    if not (log or demo):
        return _say_instead("loss_no_log")
    try:
        found = audit_logs(find_logs(log)[:1], config=config)[0]
    except LabError as error:
        return _say_instead("loss_unread", error=error)
    rows = []
    for part in found.run.parts:
        if any(word in part for word in ("mask", "dice")):
            weight = found.weights.get(part)
            title = say("loss_part" if weight else "loss_weighted", part=part)
            why = tr("training images, iteration {iteration:,}", iteration=found.run.last_iteration)
            rows.append([title, _three(found.run.last(part) / (weight or 1)), why])
    for name, summary in measured.items():
        why = tr(
            "{n_images} images of this report, masks at {threshold:g}",
            n_images=summary["n_images"],
            threshold=summary["threshold"],
        )
        rows.append([tr("Mean Dice, measured: {who}", who=tr(name)), _three(summary["dice"]["macro"]), why])
    return Table([tr(text) for text in ("What", "Value", "Of what")], rows)


def _say_instead(key: str, **values):
    from IPython.display import Markdown

    return Markdown(say(key, **values))


def _show_prompt(prompt: str) -> str:
    return prompt.replace("<image>", "").strip()


def finding_table(findings: list[Finding]) -> Table:
    """Every honesty check with what it saw; alarms first."""
    rows = [[f.kind, tr("YES") if f.alarm else tr("no"), tr(describe_finding(f))] for f in findings]
    return Table([tr(text) for text in ("Checked for", "Found", "What was seen")], rows)


def extras_table(extras: pd.DataFrame) -> Table:
    """Shape and calibration: mean over images, interval, N."""
    rows = []
    for metric in extras.columns.drop(["id", "group"]):
        values = extras[metric]
        interval = bootstrap_mean(values, extras["group"])
        row = [say(f"extra_{metric}"), _three(float(values.mean()))]
        rows.append([*row, show_interval(interval.low, interval.high), str(int(values.notna().sum()))])
    return Table([tr(text) for text in ("Metric", "Mean of images", "95 % interval", "N images")], rows)


def width_table(widths: pd.DataFrame) -> Table:
    """Share of the annotated pixels that were found, by the width of their vessel."""
    rows = [
        [row["width"], _three(row["found"] / row["there"]), f"{row['there']:,}"]
        for row in widths.to_dict("records")
        if row["there"]
    ]
    return Table([tr(text) for text in ("Vessel width", "Share found", "Annotated pixels")], rows)


def threshold_figure(counts: Counts, choice: Choice, *, stamp: str | None = None):
    """Mean Dice at every threshold, precision against recall, and calibration; returns (figure, alt)."""

    figure = style.new_figure(style.WIDTH, 3.6)
    curve, half = counts.curve(), counts.curve()[BINS // 2]
    with style.figure_settings():
        sweep, tradeoff, calibration = figure.subplots(1, 3)
        sweep.plot(THRESHOLDS, curve, color="black")
        if not math.isnan(choice.low):
            sweep.axvspan(choice.low, choice.high, color=style.ACCENT, alpha=0.15, linewidth=0)
        sweep.axvline(choice.value, color=style.ACCENT, label=f"{choice.value:g}")
        sweep.axvline(0.5, color=style.NEUTRAL, linestyle="--", label="0.5")
        sweep.set(xlabel=tr("Threshold"), ylabel=tr("Mean Dice"), ylim=(0, 1))
        sweep.legend(loc="lower center", frameon=True, framealpha=1, edgecolor="none")  # over the lines
        tradeoff.plot(counts.curve("recall", "pooled"), counts.curve("precision", "pooled"), color="black")
        place = round(choice.value * BINS)
        tradeoff.plot(counts.curve("recall", "pooled")[place], counts.curve("precision", "pooled")[place], "o")
        tradeoff.set(xlabel=tr("Recall, pooled"), ylabel=tr("Precision, pooled"))
        tradeoff.set(xlim=(0, 1), ylim=(0, 1.02))
        said, found = calibrate(counts)
        calibration.plot([0, 1], [0, 1], color=style.NEUTRAL, linestyle="--")
        calibration.plot(said, found, "o-", color="black", markersize=4)
        calibration.set(xlabel=tr("Probability said"), ylabel=tr("Share that is vessel"))
        calibration.set(xlim=(0, 1), ylim=(0, 1))
        style.stamp(figure, stamp)
    best = int(np.nanargmax(curve))
    values = dict(value=choice.value, dice=curve[place], half=half, best=THRESHOLDS[best], top=curve[best])
    return figure, tr(
        "Mean Dice is {dice:.3f} at the threshold {value:g} and {half:.3f} at 0.5; on these very "
        "images {best:g} would be best ({top:.3f}). Beside it precision against recall, and how often"
        " a probability comes true.",
        **values,
    )


def _three(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"
