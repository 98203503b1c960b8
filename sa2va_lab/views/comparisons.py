"""What stands beside a Run's number in 03_evaluation: models, phrasings, thresholds, losses, findings, shapes.

Rows of `intervals.compare_scores`, `questions.compare_wordings` and `questions.measure_phrase` say what they hold.
"""

from __future__ import annotations

import math

import numpy as np
from IPython.display import Markdown

from sa2va_lab.errors import LabError
from sa2va_lab.evaluation.honesty import Finding
from sa2va_lab.evaluation.intervals import Difference, compare_scores
from sa2va_lab.evaluation.judging import Evaluation, Judged
from sa2va_lab.evaluation.metrics import summarise
from sa2va_lab.evaluation.thresholds import BINS, FLAT, THRESHOLDS, Choice, Counts, calibrate
from sa2va_lab.language import tr
from sa2va_lab.training.audit import audit_logs, find_logs
from sa2va_lab.views import style
from sa2va_lab.views.findings import describe_finding
from sa2va_lab.views.tables import Table, name_metric, show, tabulate, tabulate_facts

BASELINES = {
    "nothing": "All background",
    "everything": "All foreground",
    "training": "Mean training mask",
    "frangi": "Frangi filter and Otsu",
    "shuffled": "Another image's ground truth (chance)",
    "observer": "Second annotator",
}
EXTRAS = {
    "cldice": "clDice (centrelines: Zhang and Suen)",
    "hd95": "HD95, px",
    "surface_dice": "Surface Dice within 2 px",
    "betti0_error": "Connected components too many or too few",
    "area_error": "Area, relative error",
    "brier": "Brier score",
    "ece": "Expected calibration error",
}

MEANS = {  # columns of a table of metrics
    "Metric": lambda row: tr(EXTRAS[row["metric"]]) if row["metric"] in EXTRAS else name_metric(row["metric"]),
    "Mean of images": "macro",
    "95 % interval": lambda row: (row["low"], row["high"]),
    "N images": "n",
}


def report_baselines(baselines: list[dict]) -> list[dict]:
    """What metrics.json keeps of `baselines.measure_baselines`: with a title, without the images' own scores."""
    kept = [{key: value for key, value in row.items() if key != "scores"} for row in baselines]
    return [{"title": BASELINES[row["name"]]} | row for row in kept]


def comparison_table(found: Evaluation) -> Table:
    """The model, other models and baselines on the same images: Dice, N, and how far each is from the model.

    Each model stands at its own threshold."""
    own = _name_at(found.own.run.meta["segmenter"]["model"], found.own)
    beside = {
        _name_at(tr(rival.name), rival): dict(zip(rival.table["id"], rival.table["dice"], strict=True))
        for rival in found.rivals
    }
    beside |= {tr(BASELINES[row["name"]]): row["scores"] for row in found.baselines}
    columns = {"Who": lambda row: own if row["difference"] is None else row["name"]}
    return tabulate(compare_scores(found.own.table, beside), columns | _compare("The model's Dice less this"))


def _name_at(name: str, judged: Judged) -> str:
    return tr("{who}, threshold {threshold:g}", who=name, threshold=judged.choice.value)


def wording_table(compared: list[dict]):
    """What each phrasing gave and what was answered; or why there is nothing to see."""
    if not compared:
        return Markdown(tr("Not asked: no model was loaded for this report."))
    columns = {
        "Asked": lambda row: row["prompt"].replace("<image>", "").strip(),
        "Answers": lambda row: "; ".join(f"“{text}” × {n}" for text, n in row["answers"].items()) or "–",
    }
    return tabulate(compared, columns | _compare("Its Dice less the first row's", own="as in this report"))


def refusal_table(refused: dict) -> Table:
    """What other words gave where something is annotated and was refused: rows of `measure_refused`."""
    columns = {"Image": "id", "Asked": lambda row: row["prompt"].replace("<image>", "").strip(), "Answers": "answer"}
    return tabulate(refused["said"], columns, nothing="no image was refused, or none was asked in other words")


def _compare(heading: str, *, own: str = "the model of this report") -> dict:
    """Columns of a comparison. heading: of the difference; own: what stands in words for what has none."""
    return {
        "Mean Dice": "dice",
        "95 % interval": lambda row: (row["low"], row["high"]),
        "N images": "n_images",
        heading: lambda row: show_difference(row["difference"]),
        "In words": lambda row: judge_difference(row["difference"]) if row["difference"] else tr(own),
    }


def show_difference(found: Difference | None) -> str:
    """A mean difference with its interval; a dash where nothing is compared."""
    if found is None or not found.n_images:
        return "–"
    return f"{found.mean:+.3f} [{show(found.low)}, {show(found.high)}]"


def judge_difference(found: Difference) -> str:
    """Whether a difference is one, in words, with its p."""
    if not found.distinguishable:
        return tr("not distinguishable (p = {p:.2g})", p=found.p)
    if found.p > 0.05:
        said = "different by its interval (p = {p:.2g}, the least that {n} patients can give)"
        return tr(said, p=found.p, n=found.n_groups)
    return tr("different (p = {p:.2g})", p=found.p)


def phrase_table(found: Evaluation) -> Table:
    """By model, each thing asked for by its own name."""
    where, refused = "{images} images / {groups} patients", "{refused} of {n_absent}"
    return tabulate(
        [{"model": side.name} | told for side in (found.own, *found.rivals) for told in side.phrases],
        {
            "Who": lambda row: tr(row["model"]),
            "Asked for": "phrase",
            "Mean Dice": "dice",
            "95 % interval": lambda row: (row["low"], row["high"]),
            "Where it is there": lambda row: tr(where, images=row["n_there"], groups=row["n_groups"]),
            "Refused where it is not": lambda row: tr(refused, **row) if row["n_absent"] else "–",
        },
    )


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


def loss_table(log: str, evaluated: Evaluation, *, config: str = "", demo: bool = False):
    """The last mask and Dice losses of a training log above the Dice that was measured; or why there are none.

    demo: whether no log means the demo's. Nothing is computed from the losses.
    """
    if not (log or demo):
        return Markdown(tr("No training log was given (`log`), so there is no loss to show."))
    try:
        found = audit_logs(find_logs(log)[:1], config=config)[0]
    except LabError as error:
        return Markdown(tr("The training log is not shown: {error}", error=error))
    rows = []
    for part in found.run.parts:
        if any(word in part for word in ("mask", "dice")):
            weight, last = found.weights.get(part), found.run.last(part)
            known = "{part}, last logged, without its weight"
            title = tr(known if weight else "{part}, last logged, its weight unknown", part=part)
            why = tr("training images, iteration {iteration:,}", iteration=found.run.last_iteration)
            rows.append((title, last / (weight or 1), why))
    measured = {evaluated.own.run.meta["segmenter"]["model"]: evaluated.summary}
    measured |= {rival.name: summarise(rival.table) for rival in evaluated.rivals}
    for name, summary in measured.items():
        counted = {"n_images": summary["dice"]["n"], "threshold": summary["threshold"]}
        why = tr("{n_images} images of this report, masks at {threshold:g}", **counted)
        rows.append((tr("Mean Dice, measured: {who}", who=tr(name)), summary["dice"]["macro"], why))
    return tabulate(rows, {"What": lambda row: row[0], "Value": lambda row: row[1], "Of what": lambda row: row[2]})


def finding_table(findings: list[Finding]) -> Table:
    """Every honesty check with what it saw; alarms first."""
    return tabulate(
        findings,
        {
            "Checked for": "kind",
            "Found": lambda found: tr("YES" if found.alarm else "worth a look" if found.look else "no"),
            "What was seen": lambda found: tr(describe_finding(found)),
        },
    )


def shape_table(shapes: list[dict]) -> Table:
    """Shape and calibration: rows of `shapes.summarise_extras`."""
    return tabulate(shapes, MEANS)


def width_table(widths: list[dict]) -> Table:
    """Share of the annotated pixels that were found, by the width of their vessel."""
    return tabulate(
        [row for row in widths if row["there"]],
        {"Vessel width": "width", "Share found": lambda row: row["found"] / row["there"], "Annotated pixels": "there"},
    )
