"""What 03_evaluation shows of a Run: tables, the spread of Dice by patient, and which cases to look at.

`table` is always what `evaluation.metrics.evaluate_run` returned and `summary` what `summarise` made of it.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import Markdown

from sa2va_lab.datasets.samples import Dataset
from sa2va_lab.errors import LabError
from sa2va_lab.evaluation.honesty import was_seen
from sa2va_lab.evaluation.judging import Evaluation
from sa2va_lab.evaluation.metrics import Pair, compute_scores, count_pixels, pair_up, summarise
from sa2va_lab.evaluation.questions import pick_prompts
from sa2va_lab.evaluation.sequences import LEAST_FRAMES
from sa2va_lab.language import join_sentences, join_words, tr
from sa2va_lab.reports.answers import Answer, Evaluated, Refused, say_refused, say_sample
from sa2va_lab.runs.read import Run
from sa2va_lab.views import style
from sa2va_lab.views.comparisons import MEANS, report_baselines
from sa2va_lab.views.findings import describe_finding, report_finding
from sa2va_lab.views.overlays import name_case
from sa2va_lab.views.tables import Table, name_metric, show, tabulate, tabulate_facts

SHOWN_METRICS = ("dice", "iou", "precision", "recall")
SEEN = {
    "no": "By the data set's own splits, these images were not in its training part.",
    "yes": "These images include the training part of the data set: this number says how well they were learnt, "
    "not how well new patients will do.",
    "unknown": "Whether the model was trained on these images is not known: the data set names no training part.",
    "foreign": "These images come from outside the demo model's training data.",
}


def answer_run(found: Evaluation) -> Answer:
    """The answer: one sentence with Dice, interval, N, threshold and split, every alarm, and all numbers behind it."""
    run = found.own.run
    evaluated = Evaluated(
        summary=found.summary,
        split=run.split,
        phrase=run.phrase,
        prompt=run.maker.prompt,
        seen=found.seen[0],
        n_asked=len(run.sample_ids),
        n_finished=len(run.records),
        run=run.folder.name,
        weights_sha256=run.meta["segmenter"]["weights_sha256"],
        manifest_sha256=run.meta["dataset"]["manifest_sha256"],
        threshold=found.threshold,
        baselines=report_baselines(found.baselines),
        honesty=[report_finding(finding) for finding in found.findings],
        verified=describe_finding(found.own.verified),
        refused=Refused(**found.own.refused),
        beside={rival.name: summarise(rival.table)["dice"] for rival in found.rivals},
        prompts=pick_prompts(found.own.wordings),
        phrases={judged.name: judged.phrases for judged in (found.own, *found.rivals)},
        shapes={row["metric"]: row for row in found.shapes},
        widths=found.widths,
    )
    return Answer(say_evaluated(evaluated), evaluated, stamp=run.meta["stamp"])


def say_evaluated(evaluated: Evaluated) -> str:
    """How good it is, on how many images, which ones are left out, whether they were in training, and every alarm."""
    told = [finding.sentence for finding in evaluated.honesty if finding.alarm]
    told += [evaluated.verified] if evaluated.verified not in ("", *told) else []
    said = [
        _say_dice(evaluated),
        *say_refused(evaluated.refused),
        *_say_gaps(evaluated),
        tr(SEEN[evaluated.seen]),
        *map(tr, told),
    ]
    return join_sentences(said)


def _say_dice(evaluated: Evaluated) -> str:
    """Dice, its interval, and the N of that very mean: an image without a Dice is not in it."""
    summary, dice = evaluated.summary, evaluated.summary.dice
    n_images, n_groups = (dice.n, dice.n_groups) if dice.n else (summary.n_images, summary.n_groups)
    text = (
        "Dice {dice:.3f} (95 % interval {low:.3f} to {high:.3f}) on {sample}, threshold {threshold:g}, split “{split}”."
    )
    if not dice.n:
        text = (
            "No Dice can be given: of {sample} (split “{split}”), {n_without_truth} have no annotation and {n_failed} "
            "failed."
        )
    elif "–" in (show(dice.low), show(dice.high)):
        text = (
            "Dice {dice:.3f} (no interval: it takes two patients or more) on {sample}, threshold {threshold:g}, split "
            "“{split}”."
        )
    sample = say_sample(n_images, n_groups, grouped=summary.grouped)
    values = {"dice": dice.macro, "low": dice.low, "high": dice.high, "threshold": summary.threshold}
    values |= {"n_failed": summary.n_failed, "n_without_truth": summary.n_without_truth}
    return tr(text, sample=sample, split=evaluated.split, **values)


def _say_gaps(evaluated: Evaluated) -> list[str]:
    """Which images of the Run are not in its mean Dice."""
    summary, sentences = evaluated.summary, []
    if evaluated.n_finished < evaluated.n_asked:
        done = {"done": evaluated.n_finished, "total": evaluated.n_asked}
        text = tr("This Run holds {done} of the {total} images asked for; the rest is not in any number here.", **done)
        sentences.append(text)
    if not summary.dice.n:
        return sentences
    gaps = {"n_failed": summary.n_failed, "n_without_truth": summary.n_without_truth}
    if any(gaps.values()):
        sentences.append(tr("Not in this mean: {n_failed} failed and {n_without_truth} without annotation.", **gaps))
    if summary.ignored:
        text = tr("{share:.1%} of their pixels are ignored, as the data set says: in no number.", share=summary.ignored)
        sentences.append(text)
    if nothing := summary.n_images - summary.dice.n - sum(gaps.values()):
        text = tr("Nor are {count} in which nothing is annotated and nothing found: they have no Dice.", count=nothing)
        sentences.append(text)
    return sentences


def run_table(run: Run, dataset: Dataset) -> Table:
    """What was run and why: model, device, number format, images, phrase, prompt, training."""
    segmenter, data = run.meta["segmenter"], run.meta["dataset"]
    groups = {sample.group for sample in dataset if sample.id in set(run.sample_ids)}
    known = len({sample.group for sample in dataset}) < len(dataset)
    size = say_sample(len(run.sample_ids), len(groups), grouped=known)
    seen, reason = was_seen(run, dataset)
    note = tr((segmenter.get("finetune") or {}).get("note") or "")
    millions = f"{segmenter['parameters'] / 1e6:,.1f} M" if segmenter.get("parameters") else "? M"
    facts = {
        "Model": [f"{segmenter['model']} ({millions})", "; ".join(filter(None, (segmenter.get("family"), note)))],
        "Device": [segmenter["device"]["actual"], tr(segmenter["device"]["reason"])],
        "Number format": [segmenter["precision"]["actual"], tr(segmenter["precision"]["reason"])],
        "Images": [f"{size}; {tr(data['chosen'])}", tr(data["reason"])],
        "Split": [data["split"], ""],
        "Looked for": [data["phrase"], ""],
        "Prompt": [run.meta["prompt"], tr(run.meta["prompt_reason"])],
        "In training?": [tr(SEEN[seen]), tr(reason)],
        "Masks from polygons by": [tr(dataset.rasteriser), ""],
    }
    return tabulate_facts(facts, "What", "Value", "Why")


def metric_table(summary: dict) -> Table:
    """Each metric: mean over images with its interval and N, and the value of all pixels pooled."""
    rows = [{"metric": metric} | summary[metric] for metric in SHOWN_METRICS]
    return tabulate(rows, MEANS | {"All pixels pooled": "pooled"})


def list_scores(mask: np.ndarray, pair: Pair) -> dict:
    """What one mask scores against its ground truth, and its pixels, for `tabulate_facts`."""
    facts = {"Mask, px": int(mask.sum())}
    if pair.left_out:
        facts["Ignored, px"] = pair.left_out
    if pair.truth is None:
        return facts
    scores = compute_scores(**count_pixels(mask, pair.truth, pair.ignore))
    facts = {name_metric(metric): float(scores[metric]) for metric in SHOWN_METRICS} | facts
    return facts if pair.truth.any() else facts | {"Note": tr("ground truth is empty")}


def image_table(table: pd.DataFrame) -> Table:
    """Every image of the Run, worst Dice first, the ones without a Dice last."""
    columns = {"Image": "id", "Patient": "group"}
    columns |= {name_metric(metric): metric for metric in SHOWN_METRICS}
    columns |= {
        "Ground truth, px": lambda row: show(row["truth_area"], ",.0f"),
        "Mask, px": lambda row: show(row["mask_area"], ",.0f"),
        "Seconds": lambda row: show(row["seconds"], ".2f"),
        "Note": _note,
    }
    return tabulate(table.sort_values(["dice", "id"], na_position="last").to_dict("records"), columns)


def _note(row: dict) -> str:
    if row["error"]:
        return tr(row["error"])
    notes = {
        tr("answer names no mask"): row["n_seg"] == 0,
        tr("not annotated"): math.isnan(row["truth_area"]),
        tr("ground truth is empty"): row["truth_area"] == 0,
    }
    return join_words(note for note, applies in notes.items() if applies)


def choose_cases(table: pd.DataFrame, run: Run, dataset: Dataset) -> list[tuple[str, Path, Pair]]:
    """The worst, the median and the best image by Dice (fewer if there are fewer): (title, image, pair) each.

    Where no image has a Dice, the first three that have a prediction.
    """
    scored = table[table["dice"].notna()].sort_values(["dice", "id"])
    if len(scored):
        places = {0: "worst", len(scored) // 2: "median", len(scored) - 1: "best"}
        picked = [(scored.iloc[place], rank) for place, rank in sorted(places.items())]
    else:
        picked = [(row, None) for _, row in table[table["error"].isna()].head(3).iterrows()]
    cases = []
    for row, rank in picked:
        sample = dataset[row["id"]]
        title = name_case(sample.id, sample.group, dice=row["dice"], rank=rank)
        cases.append((title, sample.image, pair_up(run.prediction(sample.id), sample)))
    return cases


def spread_figure(table: pd.DataFrame, summary: dict, *, stamp: str | None = None):
    """Dice of every image, a line of dots a patient, ordered by the patient's mean; returns (figure, alt)."""
    scored = table[table["dice"].notna()]
    if not len(scored):
        raise LabError(tr("There is nothing to draw: no image has a Dice."))
    dice, means = scored["dice"], scored.groupby("group")["dice"].mean().sort_values()
    mean, low, high = (summary["dice"][name] for name in ("macro", "low", "high"))
    places = {group: place for place, group in enumerate(means.index)}
    with style.drawing(1.1 + 0.3 * max(len(means), 3), stamp=stamp) as figure:
        ax = figure.subplots()
        if not math.isnan(low):
            ax.axvspan(low, high, color=style.ACCENT, alpha=0.12, linewidth=0)
        ax.axvline(mean, color=style.ACCENT, linewidth=1.5)
        dots = dict(markersize=6, alpha=0.75, color=style.NEUTRAL, markeredgecolor="white", markeredgewidth=0.5)
        ax.plot(dice, scored["group"].map(places), "o", **dots)
        ax.plot(means, range(len(means)), "|", color="black", markersize=13, markeredgewidth=1.8)
        ax.set(xlim=(0, 1), ylim=(len(means) - 0.4, -0.6), xlabel=tr("Dice of one image"), ylabel=tr("Patient"))
        ax.set_yticks(range(len(means)), means.index)
        ax.grid(axis="x")
        text = tr("mean {dice:.3f}", dice=mean)
        ax.set_title(text if math.isnan(low) else f"{text}  [{show((low, high))}]")
    return figure, tr(
        "Dice of {n_images} images by patient: from {low:.3f} to {high:.3f}, mean {dice:.3f}; the "
        "patient with the lowest mean is {worst} ({worst_dice:.3f}), the one with the highest {best} "
        "({best_dice:.3f}).",
        n_images=len(scored),
        low=dice.min(),
        high=dice.max(),
        dice=mean,
        worst=means.index[0],
        worst_dice=means.iloc[0],
        best=means.index[-1],
        best_dice=means.iloc[-1],
    )


def show_frames(table: pd.DataFrame, dataset: Dataset, *, stamp: str | None = None):
    """Dice along each sequence, a line a sequence, the lowest named; or the sentence that there are no sequences.

    A frame's number is that of its id: the frames of a sequence in the order of their file names.
    """
    video = {sample.id: sample.video for sample in dataset}
    scored = table[table["dice"].notna()].assign(video=table["id"].map(video))
    scored = scored[scored.groupby("video")["id"].transform("size") >= LEAST_FRAMES]
    if not len(scored):
        none = "No sequence has {least} frames or more here, so there is no course to show."
        return Markdown(tr(none, least=LEAST_FRAMES))
    scored = scored.assign(frame=scored["id"].str.extract(r"(\d+)$", expand=False).astype(int)).sort_values("frame")
    videos, lowest = scored.groupby("video")["dice"], scored.loc[scored["dice"].idxmin()]
    spread = dict(within=videos.std(ddof=0).mean(), between=videos.mean().std(ddof=0))
    with style.drawing(3.2, stamp=stamp) as figure:
        ax = figure.subplots()
        for name, rows in scored.groupby("video"):
            named = name == lowest["video"]
            look = dict(color="black", alpha=1) if named else dict(color=style.NEUTRAL, alpha=0.6)
            ax.plot(rows["frame"], rows["dice"], "o-", markersize=4, linewidth=2 if named else 1, **look)
        place = (lowest["frame"], lowest["dice"])
        side = "left" if lowest["frame"] <= scored["frame"].mean() else "right"  # away from the nearer edge
        note = ax.annotate(lowest["id"], place, xytext=(0, -13), textcoords="offset points", ha=side, fontsize=9)
        style.halo(note)
        ax.set(xlabel=tr("Frame of the sequence"), ylabel=tr("Dice of one image"), ylim=(0, 1))
        title = "standard deviation within a sequence {within:.3f}, between sequences {between:.3f}"
        ax.set_title(tr(title, **spread))
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.grid(axis="y")
    alt = tr(
        "Dice along {count} sequences, {frames} frames: its standard deviation is {within:.3f} within"
        " a sequence and {between:.3f} between their means; the lowest is {dice:.3f} in {id}.",
        id=lowest["id"],
        dice=lowest["dice"],
        count=len(videos),
        frames=len(scored),
        **spread,
    )
    return style.picture(figure, alt, role="frames")


def provenance_table(run: Run) -> Table:
    """What it takes to repeat this: hashes, versions, commit, times."""
    meta, git = run.meta, run.meta["git"]
    facts = {
        "run": run.folder.name,
        "weights sha256": meta["segmenter"]["weights_sha256"],
        "data manifest sha256": meta["dataset"]["manifest_sha256"],
        "started, finished (UTC)": f"{meta['started']}, {meta['finished'] or '–'}",
        "resumed": tr("{n} times", n=len(meta["resumed"])),
        "code": f"{git['commit'] or '–'} ({tr(git['reason'])})",
        "python": meta["python"],
    }
    return tabulate_facts(facts | {name: version for name, version in meta["packages"].items() if version})
