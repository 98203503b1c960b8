"""What the index says: the notebooks' answers put in the order of a reader's questions.

Everything comes from metrics.json and the notebooks' own figures. A block whose notebook did not run, or whose numbers
are not there, stays and says why: a reader must see what was not looked at.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from sa2va_lab.language import join_words, tr
from sa2va_lab.reports.answers import Evaluated, Mistake, Planned, Threshold, read_metrics, say_refused, say_size, show

FEW_PATIENTS = 10  # below it, an interval says more about who happened to be in the sample than about the model
MOST_MISTAKES = 3
IF_SEEN = {
    "yes": "Measure again on patients that were not in training; this Dice says how well the images were learnt.",
    "unknown": "Write down which images the model was trained on (a split called “train”); sa2va-lab split parts them "
    "by patient.",
    "foreign": "Put your own checkpoint in the place of the demo model: --model. The demo has never seen such images.",
}


@dataclass
class Block:
    """One question and its answer. alarms are shown in the colour of a warning, points as a list; absent: why there is
    nothing."""

    key: str
    title: str
    page: str | None = None
    sentences: list[str] = field(default_factory=list)
    alarms: list[str] = field(default_factory=list)
    points: list[str] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    pictures: list[dict] = field(default_factory=list)
    absent: str | None = None


def build_blocks(report: dict, *, pictures: dict[str, dict] | None = None) -> list[Block]:
    """The blocks of the index in their order.

    report: what metrics.json holds. pictures: as `find_pictures` gives them; each is shown where its role is named.
    """
    said = read_metrics(report)
    scored, threshold = said.evaluated, said.evaluated.threshold or said.tuned.threshold
    chooser = "04_threshold_tuning" if said.tuned.threshold and not scored.threshold else "03_evaluation"
    fit = _open(report, "fit", tr("Can it run here?"), "06_precision_vram")
    quality = _open(report, "quality", tr("How good is it, and against what?"), "03_evaluation")
    chosen = _open(report, "threshold", tr("Which threshold, and does it matter?"), chooser)
    mistakes = _open(report, "mistakes", tr("Where does it fail?"), "05_error_gallery", says=True)
    precision = _open(
        report, "precision", tr("What does a smaller number format cost?"), "06_precision_vram", says=True
    )
    films = _open(report, "films", tr("Frame by frame, or followed?"), "07_films", says=True)
    data = _open(report, "data", tr("Are the data right?"), "01_dataset", says=True)
    training = _open(report, "training", tr("What did the training log reveal?"), "02_loss_curves", says=True)
    following = Block("next", tr("What to do next, in this order"), steps=list_steps(report))
    honesty = _open(report, "honesty", tr("Can these numbers be believed?"), "03_evaluation")
    _fill_fit(fit, said.planned)
    _fill_quality(quality, scored)
    _fill_threshold(chosen, threshold)
    _fill_mistakes(mistakes, said.sorted.mistakes, pictures or {})
    _fill_precision(precision, said.planned)
    training.alarms = [tr(alarm) for alarm in said.trained.alarms]
    _fill_honesty(honesty, scored)
    for block, stem in ((fit, "06_precision_vram"), *((one, "03_evaluation") for one in (quality, chosen, honesty))):
        if not (block.absent or block.sentences or block.rows or block.alarms):
            block.absent = tr("Not known: {notebook} says nothing about it.", notebook=stem)
    inspected = report["notebooks"].get("00_inspect")
    if fit.absent and inspected and inspected["answer"]:  # what is in it is half of whether it fits
        fit.page, fit.sentences = inspected["page"], [inspected["answer"]["sentence"]]
    return [fit, quality, chosen, mistakes, precision, films, data, training, following, honesty]


def _open(report: dict, key: str, title: str, stem: str, *, says: bool = False) -> Block:
    """A block with its notebook's page, and why it is empty if it is. says: the notebook's own sentence answers it."""
    part = report["notebooks"].get(stem)
    block = Block(key, title, page=part["page"] if part else None)
    if part and part["answer"]:
        block.sentences = [part["answer"]["sentence"]] if says else []
    elif part and part["error"]:
        block.absent = tr("Not known: {notebook} failed ({error}).", notebook=stem, error=part["error"])
    elif part:
        block.absent = tr("Not known: {notebook} gave no answer.", notebook=stem)
    elif needs := report.get("left_out", {}).get(stem):
        told = {"notebook": stem, "needs": needs}
        block.absent = tr("Not in this report: {notebook} needs `{needs}`, which was not given.", **told)
    else:
        block.absent = tr("Not in this report: {notebook} was not run.", notebook=stem)
    return block


def list_steps(report: dict) -> list[str]:
    """What to do next, the most urgent first: what makes the numbers wrong comes before what makes them better."""
    said = read_metrics(report)
    scored, gallery, problems = said.evaluated, said.sorted, said.audited.audit.problems
    alarms, threshold = said.trained.alarms, scored.threshold or said.tuned.threshold
    failed = [stem for stem, part in report["notebooks"].items() if part["error"]]
    leaking, worst = problems.get("split_near_duplicate", ()), next(iter(gallery.mistakes), None)
    patients = scored.summary.dice.n_groups or scored.summary.n_groups
    steps = [
        failed
        and tr(
            "Let the failed notebooks run: {names}. The same command with --resume tries them again.",
            names=join_words(failed),
        ),
        any(finding.alarm for finding in scored.honesty)
        and tr("Explain the marked findings under “Can these numbers be believed?”. Until then no number here counts."),
        leaking
        and tr(
            "Part the splits again: {count} images are nearly the same as one in another split.", count=len(leaking)
        ),
        problems
        and tr(
            "Repair the annotations ({kinds} kinds of defect): sa2va-lab audit DATA --fix NEW_FOLDER writes a repaired "
            "copy.",
            kinds=len(problems),
        ),
        scored.seen in IF_SEEN and tr(IF_SEEN[scored.seen]),
        alarms
        and tr(
            "Before training again, settle what the log reveals; findings that need a look: {count}.", count=len(alarms)
        ),
        threshold
        and threshold.matters
        and tr(
            "Use threshold {value:g} from now on, and do not choose it again on the images that you report.",
            value=threshold.value,
        ),
        0 < patients < FEW_PATIENTS
        and tr("Annotate more patients rather than more frames: {n} patients make a wide interval.", n=patients),
        gallery.suspect_truths
        and tr("Look again at annotations that seem wrong: {ids}.", ids=join_words(gallery.suspect_truths[:12])),
        worst and tr("Work on the commonest mistake, {title}. {help}", title=worst.title, help=worst.help).strip(),
    ]
    return [step for step in steps if step] or [tr("Nothing here asks for an action.")]


def find_pictures(folder: Path, report: dict) -> dict[str, dict]:
    """{role: {"data", "alt"}}: the figures of the executed notebooks that carry a role (`views.style.picture`)."""
    found = {}
    for part in report["notebooks"].values():
        notebook = json.loads((folder / part["notebook"]).read_text("utf-8"))
        outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", ())]
        for output in outputs:
            about = output.get("metadata", {}).get("image/png", {})
            if about.get("role"):
                data = output["data"]["image/png"]
                picture = {"data": "".join(data).replace("\n", ""), "alt": about.get("alt", "")}
                found.setdefault(about["role"], picture)
    return found


def _fill_fit(block: Block, planned: Planned) -> None:
    rungs, chosen = planned.plan.rungs, planned.plan.chosen
    if not rungs:
        return
    if chosen is None:
        block.alarms.append(tr("No: at no number format does it fit into the memory that is here."))
    else:
        precision = rungs[chosen].precision
        block.sentences.append(tr("Yes: left to choose, it runs at {precision} here.", precision=precision))
    block.columns = [tr("Number format"), tr("Needed / there"), tr("Fits"), tr("Why")]
    for rung in rungs:
        devices = [f"{one.name}: {say_size(one.needed)} / {say_size(one.budget)}" for one in rung.devices]
        fits = tr("yes") if rung.fits else tr("no")
        block.rows.append([rung.precision, ", ".join(devices) or "–", fits, tr(rung.reason)])


def _fill_quality(block: Block, scored: Evaluated) -> None:
    if scored.summary.dice.macro is None:
        return
    block.columns = [tr("What predicts"), tr("Dice, mean of images"), tr("95 % interval")]
    block.columns += [tr("N images"), tr("N patients")]
    for title, mean in {"this model": scored.summary.dice, **scored.beside}.items():
        block.rows.append([tr(title), *map(show, (mean.macro, (mean.low, mean.high), mean.n, mean.n_groups))])
    for row in scored.baselines:
        numbers = (row.dice, (row.low, row.high), row.n_images, row.n_groups)
        block.rows.append([tr(row.title or row.name), *map(show, numbers)])
    block.sentences += [tr(scored.verified)] if scored.verified else []
    block.alarms = say_refused(scored.refused)
    if not scored.baselines:
        block.sentences.append(
            tr("No baseline was measured in this report, so nothing says yet what a simpler method would reach.")
        )


def _fill_threshold(block: Block, found: Threshold | None) -> None:
    if found is None:
        return
    chosen = "A pixel counts as found above {value:g} ({origin})."
    if found.origin == "nested":
        chosen = (
            "A pixel counts as found above 0.5, for want of a validation split. Chosen for each patient on all others, "
            "the threshold would be {value:g} at the median."
        )
    block.sentences.append(tr(chosen, value=found.value, origin=tr(found.reason or found.origin)))
    if found.value == 0.5:  # there is nothing to compare
        return
    weight = "It matters: against 0.5, Dice changes by {difference:+.3f} (95 % interval {low:+.3f} to {high:+.3f})."
    if None in (found.difference, found.low, found.high):
        weight = "Whether it matters is not known: it was not compared with 0.5."
    elif not found.matters:
        weight = (
            "It hardly matters: against 0.5, Dice changes by {difference:+.3f}, which cannot be told from none (95 % "
            "interval {low:+.3f} to {high:+.3f})."
        )
    block.sentences.append(tr(weight, difference=found.difference, low=found.low, high=found.high))


def _fill_mistakes(block: Block, found: list[Mistake], pictures: dict) -> None:
    for mistake in found[:MOST_MISTAKES]:
        title = mistake.title[:1].upper() + mistake.title[1:]
        caption = tr("{title}: {images} images.", title=title, images=show(mistake.images))
        block.pictures.append({"caption": f"{caption} {mistake.help}".strip()} | pictures.get(mistake.kind, {}))


def _fill_precision(block: Block, planned: Planned) -> None:
    block.columns = [tr("Number format"), tr("Device"), tr("Memory, forecast"), tr("Memory, measured")]
    block.columns += [tr("Seconds an image"), tr("Dice, mean of images"), tr("95 % interval")]
    block.columns += [tr("Same mask as fp32 (IoU)"), tr("Why")]
    for row in planned.precisions:
        sizes = [say_size(row.forecast_bytes), say_size(row.own_bytes), show(row.seconds, ".2f")]
        numbers = map(show, (row.dice, (row.low, row.high), row.agreement))
        block.rows.append([row.precision, row.device, *sizes, *numbers, tr(row.reason)])


def _fill_honesty(block: Block, scored: Evaluated) -> None:
    block.alarms = [tr(finding.sentence) for finding in scored.honesty if finding.alarm]
    block.points = [tr(finding.sentence) for finding in scored.honesty if not finding.alarm]
    if scored.honesty:
        counts = dict(looked=len(scored.honesty), alarms=len(block.alarms))
        counts["looks"] = sum(finding.look for finding in scored.honesty)
        block.sentences = [
            tr(
                "{looked} things were looked at; {alarms} of them need an answer before any number here is used, "
                "{looks} are worth a look.",
                **counts,
            )
        ]
