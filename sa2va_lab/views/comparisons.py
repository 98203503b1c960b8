"""What stands beside a Run's number in 03_evaluation: other models, baselines, phrasings, losses, findings, shapes.

Rows of `intervals.compare_scores`, `wordings.compare_wordings` and `phrases.measure_phrase` say what they hold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from IPython.display import Markdown

from sa2va_lab.errors import LabError
from sa2va_lab.evaluation.intervals import Difference, bootstrap_mean, compare_scores
from sa2va_lab.language import tr
from sa2va_lab.training.sources import audit_logs, find_logs
from sa2va_lab.views.findings import describe_finding
from sa2va_lab.views.tables import Table, show, tabulate

if TYPE_CHECKING:
    import pandas as pd

    from sa2va_lab.evaluation.honesty import Finding
    from sa2va_lab.runs.read import Run

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
    own, *titles = [
        tr("{who}, threshold {threshold:g}", who=tr(who), threshold=made.attrs["threshold"])
        for who, made in {name: table, **others}.items()
    ]
    scores = [dict(zip(made["id"], made["dice"], strict=True)) for made in others.values()]
    beside = dict(zip(titles, scores, strict=True))
    beside |= {tr(BASELINES[row["name"]]): row["scores"] for row in baselines}
    columns = {"Who": lambda row: own if row["difference"] is None else row["name"]}
    return tabulate(compare_scores(table, beside), columns | _compare("The model's Dice less this"))


def wording_table(compared: list[dict]):
    """What each phrasing gave and what was answered; or why there is nothing to see."""
    if not compared:
        return Markdown(tr("Not asked: no model was loaded for this report."))
    columns = {
        "Asked": lambda row: row["prompt"].replace("<image>", "").strip(),
        "Answers": lambda row: "; ".join(f"“{text}” × {n}" for text, n in row["answers"].items()) or "–",
    }
    return tabulate(compared, columns | _compare("Its Dice less the first row's", own="as in this report"))


def _compare(heading: str, *, own: str = "the model of this report") -> dict:
    """Columns of a comparison. heading: of the difference; own: what stands in words for what has none."""
    return {
        "Mean Dice": lambda row: row["dice"],
        "95 % interval": lambda row: (row["low"], row["high"]),
        "N images": lambda row: row["n_images"],
        heading: lambda row: show_difference(row["difference"]),
        "In words": lambda row: _judge(row["difference"]) if row["difference"] else tr(own),
    }


def show_difference(found: Difference | None) -> str:
    """A mean difference with its interval; a dash where nothing is compared."""
    if found is None or not found.n_images:
        return "–"
    return f"{found.mean:+.3f} [{show(found.low)}, {show(found.high)}]"


def _judge(found: Difference) -> str:
    if not found.distinguishable:
        return tr("not distinguishable (p = {p:.2g})", p=found.p)
    if found.p > 0.05:
        said = "different by its interval (p = {p:.2g}, the least that {n} patients can give)"
        return tr(said, p=found.p, n=found.n_groups)
    return tr("different (p = {p:.2g})", p=found.p)


def phrase_table(asked: dict[str, list[dict]]) -> Table:
    """By model, each thing asked for by its own name."""
    where, refused = "{images} images / {groups} patients", "{refused} of {n_absent}"
    return tabulate(
        [{"model": name} | told for name, things in asked.items() for told in things],
        {
            "Who": lambda row: tr(row["model"]),
            "Asked for": lambda row: row["phrase"],
            "Mean Dice": lambda row: row["dice"],
            "95 % interval": lambda row: (row["low"], row["high"]),
            "Where it is there": lambda row: tr(where, images=row["n_there"], groups=row["n_groups"]),
            "Refused where it is not": lambda row: tr(refused, **row) if row["n_absent"] else "–",
        },
    )


def loss_table(log: str, measured: dict[str, dict], *, config: str = "", demo: bool = False):
    """The last mask and Dice losses of a training log above the Dice that was measured; or why there are none.

    measured: {model: `summarise`d table}. demo: whether no log means the demo's. Nothing is computed from the losses.
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
    for name, summary in measured.items():
        why = tr("{n_images} images of this report, masks at {threshold:g}", **summary)
        rows.append((tr("Mean Dice, measured: {who}", who=tr(name)), summary["dice"]["macro"], why))
    return tabulate(rows, {"What": lambda row: row[0], "Value": lambda row: row[1], "Of what": lambda row: row[2]})


def finding_table(findings: list[Finding]) -> Table:
    """Every honesty check with what it saw; alarms first."""
    return tabulate(
        findings,
        {
            "Checked for": lambda found: found.kind,
            "Found": lambda found: tr("YES") if found.alarm else tr("no"),
            "What was seen": lambda found: tr(describe_finding(found)),
        },
    )


def extras_table(extras: pd.DataFrame) -> Table:
    """Shape and calibration: mean over images, interval, N."""
    return tabulate(
        extras.columns.drop(["id", "group"]),
        {
            "Metric": lambda metric: tr(EXTRAS[metric]),
            "Mean of images": lambda metric: extras[metric].mean(),
            "95 % interval": lambda metric: _interval(extras[metric], extras["group"]),
            "N images": lambda metric: extras[metric].notna().sum(),
        },
    )


def _interval(values, groups) -> tuple[float, float]:
    found = bootstrap_mean(values, groups)
    return found.low, found.high


def width_table(widths: pd.DataFrame) -> Table:
    """Share of the annotated pixels that were found, by the width of their vessel."""
    return tabulate(
        widths[widths["there"] > 0].to_dict("records"),
        {
            "Vessel width": lambda row: row["width"],
            "Share found": lambda row: row["found"] / row["there"],
            "Annotated pixels": lambda row: row["there"],
        },
    )
