"""What 03_evaluation shows of a Run: tables, the spread of Dice by patient, and which cases to look at.

`table` is always what `evaluation.metrics.evaluate_run` returned and `summary` what `summarise` made of it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from sa2va_lab.errors import LabError
from sa2va_lab.evaluation.honesty import was_seen
from sa2va_lab.language import join_sentences, tr
from sa2va_lab.reports.answers import Answer
from sa2va_lab.reports.texts import say, say_answer, say_sample
from sa2va_lab.views import style
from sa2va_lab.views.overlays import Case
from sa2va_lab.views.tables import Table, show_interval

if TYPE_CHECKING:
    import pandas as pd

    from sa2va_lab.datasets.samples import Dataset
    from sa2va_lab.runs.read import Run

SHOWN_METRICS = ("dice", "iou", "precision", "recall")
INTERVALS = (("low", "high"), ("bca_low", "bca_high"))
AREAS = ("truth_area", "mask_area")
LEAST_FRAMES = 3  # a sequence of fewer has no course


def answer_run(run: Run, dataset: Dataset, summary: dict, *, more: dict | None = None) -> Answer:
    """The answer of a Run: one sentence with Dice, interval, N, threshold and split, and the numbers behind it.

    more: further metrics; alarms in its "honesty" are said right after the answer.
    """
    metrics = {
        "summary": summary,
        "split": run.meta["dataset"]["split"],
        "phrase": run.meta["dataset"]["phrase"],
        "prompt": run.meta["prompt"],
        "seen": was_seen(run, dataset)[0],
        "n_asked": len(run.sample_ids),
        "n_finished": len(run.records),
        "run": run.folder.name,
        "weights_sha256": run.meta["segmenter"]["weights_sha256"],
        "manifest_sha256": run.meta["dataset"]["manifest_sha256"],
    }
    metrics |= more or {}
    alarms = [tr(finding["sentence"]) for finding in metrics.get("honesty", ()) if finding["alarm"]]
    sentence = join_sentences([say_answer(metrics), *alarms])
    return Answer(sentence, metrics, stamp=run.meta["stamp"])


def run_table(run: Run, dataset: Dataset) -> Table:
    """What was run and why: model, device, number format, images, phrase, prompt, training."""
    segmenter, data = run.meta["segmenter"], run.meta["dataset"]
    groups = {sample.group for sample in dataset if sample.id in set(run.sample_ids)}
    size = say_sample({"n_images": len(run.sample_ids), "n_groups": len(groups)})
    seen, reason = was_seen(run, dataset)
    rows = [
        ("model", f"{segmenter['model']} ({_millions(segmenter.get('parameters'))})", segmenter.get("family", "")),
        ("device", segmenter["device"]["actual"], segmenter["device"]["reason"]),
        ("precision_row", segmenter["precision"]["actual"], segmenter["precision"]["reason"]),
        ("data", f"{size}; {data['chosen']}", data["reason"]),
        ("split", data["split"], ""),
        ("phrase", data["phrase"], ""),
        ("prompt", run.meta["prompt"], run.meta["prompt_reason"]),
        ("training", say(f"seen_{seen}"), reason),
        ("rasteriser", dataset.rasteriser, ""),
    ]
    names = [tr(text) for text in ("What", "Value", "Why")]
    return Table(names, [[say(key), *rest] for key, *rest in rows])


def metric_table(summary: dict) -> Table:
    """Each metric: mean over images with its two intervals and N, and the value of all pixels pooled.

    The percentile interval is the report's. BCa stands beside it here and nowhere else, as a check: it allows for the
    skew of scores that end at 1, and where the two part there are too few patients for either.
    """
    rows = []
    for metric in SHOWN_METRICS:
        numbers = summary[metric]
        intervals = [show_interval(numbers[low], numbers[high]) for low, high in INTERVALS]
        name, count = _metric_name(metric), str(numbers["n"])
        rows.append([name, _three(numbers["macro"]), *intervals, count, _three(numbers["pooled"])])
    heads = ("metric", "macro", "interval", "interval_bca", "n_images", "pooled")
    return Table([say(key) for key in heads], rows)


def image_table(table: pd.DataFrame) -> Table:
    """Every image of the Run, worst Dice first, the ones without a Dice last."""
    names = [tr(text) for text in ("Image", "Patient")]
    names += [_metric_name(metric) for metric in SHOWN_METRICS]
    names += [tr(text) for text in ("Truth, px", "Mask, px", "Seconds", "Note")]
    rows = []
    for row in table.sort_values(["dice", "id"], na_position="last").to_dict("records"):
        numbers = [*(_three(row[metric]) for metric in SHOWN_METRICS), *(_whole(row[k]) for k in AREAS)]
        rows.append([row["id"], row["group"], *numbers, _digits(row["seconds"], 2), _note(row)])
    return Table(names, rows)


def choose_cases(table: pd.DataFrame, run: Run, dataset: Dataset) -> list[Case]:
    """The worst, the median and the best image by Dice (fewer if there are fewer), ready to be drawn.

    Where no image has a Dice, the first three that have a prediction.
    """
    scored = table[table["dice"].notna()].sort_values(["dice", "id"])
    if len(scored):
        places = {0: "worst", len(scored) // 2: "median", len(scored) - 1: "best"}
        picked = [(scored.iloc[place], rank) for place, rank in sorted(places.items())]
    else:
        picked = [(row, None) for _, row in table[table["error"].isna()].head(3).iterrows()]
    threshold = table.attrs["threshold"]
    return [_open_case(row, rank, run, dataset, threshold) for row, rank in picked]


def spread_figure(table: pd.DataFrame, summary: dict, *, stamp: str | None = None):
    """Dice of every image, a line of dots a patient, ordered by the patient's mean; returns (figure, alt)."""
    import seaborn

    scored = table[table["dice"].notna()]
    if not len(scored):
        raise LabError(tr("There is nothing to draw: no image has a Dice."))

    means = scored.groupby("group")["dice"].mean().sort_values()
    mean, low, high = (summary["dice"][name] for name in ("macro", "low", "high"))
    figure = style.new_figure(style.WIDTH, 1.1 + 0.3 * max(len(means), 3))
    with style.figure_settings():
        ax = figure.subplots()
        if not math.isnan(low):
            ax.axvspan(low, high, color=style.ACCENT, alpha=0.12, linewidth=0)
        ax.axvline(mean, color=style.ACCENT, linewidth=1.5)
        seaborn.stripplot(
            data=scored, x="dice", y="group", order=list(means.index), ax=ax, color=style.NEUTRAL, size=6, alpha=0.75,
            edgecolor="white", linewidth=0.5, jitter=False,
        )  # fmt: skip
        ax.plot(means.to_numpy(), np.arange(len(means)), "|", color="black", markersize=13, markeredgewidth=1.8)
        ax.set_xlim(0, 1)
        ax.set_ylim(len(means) - 0.4, -0.6)
        ax.set_xlabel(tr("Dice of one image"))
        ax.set_ylabel(tr("Patient"))
        ax.grid(axis="x", color="#E3E7EA", linewidth=0.8)
        ax.set_axisbelow(True)
        text = tr("mean {dice:.3f}", dice=mean)
        ax.set_title(text if math.isnan(low) else f"{text}  [{low:.3f} – {high:.3f}]")
        style.stamp(figure, stamp)
    ends = dict(worst=means.index[0], worst_dice=means.iloc[0], best=means.index[-1], best_dice=means.iloc[-1])
    dice = scored["dice"]
    return figure, tr(
        "Dice of {n_images} images by patient: from {low:.3f} to {high:.3f}, mean {dice:.3f}; the "
        "patient with the lowest mean is {worst} ({worst_dice:.3f}), the one with the highest {best} "
        "({best_dice:.3f}).",
        n_images=len(scored),
        low=dice.min(),
        high=dice.max(),
        dice=mean,
        **ends,
    )


def show_frames(table: pd.DataFrame, dataset: Dataset, *, stamp: str | None = None):
    """Dice along each sequence, a line a sequence, the lowest named; or the sentence that there are no sequences.

    A frame's number is that of its id: the frames of a sequence in the order of their file names.
    """
    from IPython.display import Markdown

    video = {sample.id: sample.video for sample in dataset}
    scored = table[table["dice"].notna()].assign(video=table["id"].map(video))
    scored = scored[scored.groupby("video")["id"].transform("size") >= LEAST_FRAMES]
    if not len(scored):
        return Markdown(
            tr("No sequence has {least} frames or more here, so there is no course to show.", least=LEAST_FRAMES)
        )
    scored = scored.assign(frame=scored["id"].str.extract(r"(\d+)$", expand=False).astype(int)).sort_values("frame")
    videos, lowest = scored.groupby("video")["dice"], scored.loc[scored["dice"].idxmin()]
    within, between = videos.std(ddof=0).mean(), videos.mean().std(ddof=0)

    figure = style.new_figure(style.WIDTH, 3.2)
    with style.figure_settings():
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
        ax.set_title(
            tr(
                "standard deviation within a sequence {within:.3f}, between sequences {between:.3f}",
                within=within,
                between=between,
            )
        )
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.grid(axis="y", color="#E3E7EA", linewidth=0.8)
        ax.set_axisbelow(True)
        style.stamp(figure, stamp)
    values = dict(count=len(videos), frames=len(scored), within=within, between=between)
    alt = tr(
        "Dice along {count} sequences, {frames} frames: its standard deviation is {within:.3f} within"
        " a sequence and {between:.3f} between their means; the lowest is {dice:.3f} in {id}.",
        id=lowest["id"],
        dice=lowest["dice"],
        **values,
    )
    return style.picture(figure, alt, role="frames")


def provenance_table(run: Run) -> Table:
    """What it takes to repeat this: hashes, versions, commit, times."""
    meta, git = run.meta, run.meta["git"]
    rows = {
        "run": run.folder.name,
        "weights sha256": meta["segmenter"]["weights_sha256"],
        "data manifest sha256": meta["dataset"]["manifest_sha256"],
        "started, finished (UTC)": f"{meta['started']}, {meta['finished'] or '–'}",
        "resumed": f"{len(meta['resumed'])} times",
        "code": f"{git['commit'] or '–'} ({git['reason']})",
        "python": meta["python"],
    } | {name: found for name, found in meta["packages"].items() if found}
    return Table([tr(text) for text in ("What", "Value")], [[key, text] for key, text in rows.items()])


def _open_case(row, rank: str | None, run: Run, dataset: Dataset, threshold: float) -> Case:
    sample, prediction = dataset[row["id"]], run.prediction(row["id"])
    return Case(
        id=sample.id,
        group=sample.group,
        image=sample.image,
        probability=prediction.probability(),
        mask=prediction.mask(threshold),
        truth=sample.truth(),
        rank=rank,
        dice=row["dice"],
    )


def _note(row: dict) -> str:
    if row["error"]:
        return row["error"]
    notes = {
        "note_no_seg": row["n_seg"] == 0,
        "note_no_truth": math.isnan(row["truth_area"]),
        "note_empty_truth": row["truth_area"] == 0,
    }
    return ", ".join(say(key) for key, applies in notes.items() if applies)


def _metric_name(metric: str) -> str:
    return "IoU" if metric == "iou" else metric.capitalize()


def _digits(value: float, places: int) -> str:
    return "–" if math.isnan(value) else f"{value:.{places}f}"


def _three(value: float) -> str:
    return _digits(value, 3)


def _whole(value: float) -> str:
    return "–" if math.isnan(value) else f"{int(value):,}"


def _millions(count: int | None) -> str:
    return "? M" if count is None else f"{count / 1e6:,.1f} M"
