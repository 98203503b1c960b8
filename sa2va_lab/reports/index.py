"""What the index says: the notebooks' answers put in the order of a reader's questions.

Everything comes from metrics.json and the notebooks' own figures. A block whose notebook did not run, or whose numbers
are not there, stays and says why: a reader must see what was not looked at.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from sa2va_lab.language import tr
from sa2va_lab.reports.texts import say, say_size

FEW_PATIENTS = 10  # below it, an interval says more about who happened to be in the sample than about the model
MOST_MISTAKES = 3


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
    tell = partial(say)
    fills = {
        "fit": ("06_precision_vram", _fill_fit),
        "quality": ("03_evaluation", _fill_quality),
        "threshold": ("03_evaluation", _fill_threshold),
        "mistakes": ("05_error_gallery", partial(_fill_mistakes, pictures=pictures or {})),
        "precision": ("06_precision_vram", _fill_precision),
        "data": ("01_dataset", _fill_data),
        "training": ("02_loss_curves", _fill_training),
        "honesty": ("03_evaluation", _fill_honesty),
    }
    blocks = []
    for key, (stem, fill) in fills.items():
        part = report["notebooks"].get(stem)
        if key == "threshold" and not _metrics(report, stem).get("threshold"):
            stem = "04_threshold_tuning" if _metrics(report, "04_threshold_tuning").get("threshold") else stem
            part = report["notebooks"].get(stem)
        block = Block(key, tell(f"block_{key}"), page=part["page"] if part else None)
        if part and part["answer"]:
            fill(block, part["answer"], tell)
            if not (block.sentences or block.rows):
                block.absent = tell("index_no_numbers", notebook=stem)
        else:
            block.absent = _why_absent(stem, part, report, tell)
            inspected = report["notebooks"].get("00_inspect")
            if key == "fit" and inspected and inspected["answer"]:  # what is in it is half of whether it fits
                block.page, block.sentences = inspected["page"], [inspected["answer"]["sentence"]]
        blocks.append(block)
    steps = Block("next", tell("block_next"), steps=list_steps(report))
    return [*blocks[:-1], steps, blocks[-1]]


def list_steps(report: dict) -> list[str]:
    """What to do next, the most urgent first: what makes the numbers wrong comes before what makes them better."""
    tell, steps = partial(say), []
    metrics = partial(_metrics, report)
    failed = [stem for stem, part in report["notebooks"].items() if part["error"]]
    scored, audit, training = metrics("03_evaluation"), metrics("01_dataset").get("audit"), metrics("02_loss_curves")
    if failed:
        steps.append(tell("step_failed", names=", ".join(failed)))
    if any(found.get("alarm") for found in scored.get("honesty", ())):
        steps.append(tell("step_honesty"))
    if audit and "split_near_duplicate" in audit["problems"]:
        steps.append(tell("step_leak", count=len(audit["problems"]["split_near_duplicate"])))
    if audit and audit["problems"]:
        steps.append(tell("step_repair", kinds=len(audit["problems"])))
    if scored.get("seen") in ("yes", "unknown", "foreign"):
        steps.append(tell(f"step_seen_{scored['seen']}"))
    if training.get("alarms"):
        steps.append(tell("step_training", count=len(training["alarms"])))
    threshold = scored.get("threshold") or metrics("04_threshold_tuning").get("threshold")
    if isinstance(threshold, dict) and _leaves_out_zero(threshold):
        steps.append(tell("step_threshold", value=threshold["value"]))
    if 0 < (scored.get("summary") or {}).get("n_groups", 0) < FEW_PATIENTS:
        steps.append(tell("step_patients", n=scored["summary"]["n_groups"]))
    gallery = metrics("05_error_gallery")
    if gallery.get("suspect_truths"):
        steps.append(tell("step_truths", ids=", ".join(gallery["suspect_truths"][:12])))
    for mistake in gallery.get("mistakes", ())[:1]:
        steps.append(tell("step_mistake", title=mistake["title"], help=mistake.get("help", "")).strip())
    return steps or [tell("step_nothing")]


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


def _metrics(report: dict, stem: str) -> dict:
    part = report["notebooks"].get(stem) or {}
    return (part.get("answer") or {}).get("metrics") or {}


def _why_absent(stem: str, part: dict | None, report: dict, tell) -> str:
    if part:
        return tell("index_failed" if part["error"] else "index_no_answer", notebook=stem, error=part["error"] or "")
    needs = report.get("left_out", {}).get(stem)
    return tell("index_needs", notebook=stem, needs=needs) if needs else tell("index_not_run", notebook=stem)


def _fill_fit(block: Block, answer: dict, tell) -> None:
    plan = answer["metrics"].get("plan") or {}
    rungs, chosen = plan.get("rungs", ()), plan.get("chosen")
    if not rungs:
        return
    if chosen is None:
        block.alarms.append(tell("index_fits_nowhere"))
    else:
        block.sentences.append(tell("index_fits_here", precision=rungs[chosen]["precision"]))
    block.columns = [tell(key) for key in ("index_rung", "index_devices", "index_fits", "why")]
    for rung in rungs:
        devices = ", ".join(
            f"{device['name']}: {say_size(device.get('needed'))} / {say_size(device.get('budget'))}"
            for device in rung.get("devices", ())
        )
        fits = tell("curve_yes") if rung.get("fits") else tell("index_no")
        block.rows.append([str(rung.get("precision")), devices or "–", fits, tr(rung.get("reason") or "")])


def _fill_quality(block: Block, answer: dict, tell) -> None:
    metrics = answer["metrics"]
    dice = (metrics.get("summary") or {}).get("dice")
    if not dice:
        return
    block.columns = [tell(key) for key in ("index_method", "index_dice", "interval", "n_images", "n_groups")]
    counts = [str(metrics["summary"][key]) for key in ("n_images", "n_groups")]
    for title, found in ({"this model": dice} | (metrics.get("beside") or {})).items():
        block.rows.append([tr(title), _three(found.get("macro")), _span(found), *counts])
    for row in metrics.get("baselines", ()):
        counts = [str(row.get(key, "–")) for key in ("n_images", "n_groups")]
        block.rows.append([tr(row.get("title") or row.get("name", "–")), _three(row.get("dice")), _span(row), *counts])
    if not metrics.get("baselines"):
        block.sentences.append(tell("index_no_baselines"))


def _fill_threshold(block: Block, answer: dict, tell) -> None:
    found = answer["metrics"].get("threshold")
    if not isinstance(found, dict):
        return
    if found.get("origin") == "nested":
        block.sentences.append(tell("index_threshold_nested", value=found["value"]))
    else:
        origin = found.get("reason") or found.get("origin")
        block.sentences.append(tell("index_threshold", value=found["value"], origin=origin))
    if found["value"] == 0.5:  # there is nothing to compare
        return
    if found.get("low") is None or found.get("difference") is None:
        block.sentences.append(tell("index_threshold_unknown"))
        return
    key = "index_threshold_matters" if _leaves_out_zero(found) else "index_threshold_no_matter"
    block.sentences.append(tell(key, difference=found["difference"], low=found["low"], high=found["high"]))


def _fill_mistakes(block: Block, answer: dict, tell, *, pictures: dict) -> None:
    metrics = answer["metrics"]
    block.sentences = [answer["sentence"]]
    for mistake in metrics.get("mistakes", ())[:MOST_MISTAKES]:
        title = mistake["title"][:1].upper() + mistake["title"][1:]
        caption = tell("index_mistake", title=title, images=mistake.get("images", "?"))
        caption += f" {mistake['help']}" if mistake.get("help") else ""
        shown = pictures.get(mistake["kind"], {})
        block.pictures.append({"caption": caption} | shown)


def _fill_precision(block: Block, answer: dict, tell) -> None:
    keys = ("precision_row", "device", "index_forecast", "index_peak", "index_seconds", "index_dice", "interval")
    block.columns = [tell(key) for key in (*keys, "index_agreement", "why")]
    block.sentences = [answer["sentence"]]
    for row in answer["metrics"].get("precisions", ()):
        numbers = [say_size(row.get("forecast_bytes")), say_size(row.get("own_bytes"))]
        seconds = row.get("seconds")
        numbers += ["–" if seconds is None else f"{seconds:.2f}", _three(row.get("dice")), _span(row)]
        numbers += [_three(row.get("agreement")), tr(row.get("reason") or "")]
        block.rows.append([str(row.get("precision")), str(row.get("device", "–")), *numbers])


def _fill_data(block: Block, answer: dict, tell) -> None:
    block.sentences = [answer["sentence"]]


def _fill_training(block: Block, answer: dict, tell) -> None:
    block.sentences = [answer["sentence"]]
    block.alarms = list(answer["metrics"].get("alarms", ()))


def _fill_honesty(block: Block, answer: dict, tell) -> None:
    findings = answer["metrics"].get("honesty", ())
    block.alarms = [tr(found["sentence"]) for found in findings if found.get("alarm")]
    block.points = [tr(found["sentence"]) for found in findings if not found.get("alarm")]
    if findings:
        block.sentences = [tell("index_honesty", looked=len(findings), alarms=len(block.alarms))]


def _leaves_out_zero(found: dict) -> bool:
    low, high = found.get("low"), found.get("high")
    return low is not None and high is not None and (low > 0 or high < 0)


def _three(value) -> str:
    return "–" if value is None else f"{value:.3f}"


def _span(row: dict) -> str:
    return "–" if row.get("low") is None else f"{row['low']:.3f} – {row['high']:.3f}"
