"""Each thing of a data set asked for by its own name: is it found where it is, and refused where it is not?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sa2va_lab.evaluation.intervals import mean_interval
from sa2va_lab.evaluation.metrics import evaluate_run
from sa2va_lab.paths import as_file_name
from sa2va_lab.runs import Run, find_beside, predict_dataset

if TYPE_CHECKING:
    from sa2va_lab.datasets.samples import Dataset

MOST = 3  # things asked for, the most frequent first: a data set may name dozens


def predict_others(
    segmenter,
    dataset: Dataset,
    *,
    run: Run,
    limit: int | None = None,
    progress: bool = True,
) -> list[tuple[Run, Dataset]]:
    """Asks the images of `run` for the other things of its data set, each into a Run beside it; with its data set.

    limit: as it was given for `run`. Raises what `predict_dataset` raises.
    """
    made = []
    for phrase in [phrase for phrase in dataset.phrases if phrase != dataset.phrase][: MOST - 1]:
        other = dataset.about(phrase)
        folder = Path(f"{run.folder}_{as_file_name(phrase)}")
        how = {"split": run.split, "limit": limit, "role": "phrase", "of": run, "progress": progress}
        how["track"] = run.meta.get("tracked") or False
        asked = predict_dataset(segmenter, other, folder=folder, **how)
        made.append((asked, other))
    return made


def find_others(run: Run, dataset: Dataset) -> list[tuple[Run, Dataset]]:
    """What `predict_others` made for this run before, where the model is no longer at hand; finished ones only."""
    by_phrase = {made.phrase: made for made in find_beside(run, "phrase", but=["prompt"])}
    return [(by_phrase[phrase], dataset.about(phrase)) for phrase in dataset.phrases if phrase in by_phrase]


def measure_phrase(run: Run, dataset: Dataset, *, threshold: float = 0.5) -> dict:
    """How well one thing is found where it is annotated, and how often it is refused where it is not.

    phrase; dice, low, high, n_there and n_groups: macro mean over the images in which something of it is annotated
    (no mask counts as 0), 95 % bootstrap over patients; refused of n_absent: answers without [SEG] where an annotated
    image shows nothing of it. Images that failed or that nobody annotated count nowhere. Undefined is NaN.
    """
    table = evaluate_run(run, dataset, threshold=threshold)
    there, absent = table[table["truth_area"] > 0], table[table["truth_area"] == 0]
    found = mean_interval(there["dice"], there["group"])
    return {
        "phrase": run.phrase,
        "dice": found.mean,
        "low": found.low,
        "high": found.high,
        "n_there": len(there),
        "n_groups": found.n_groups,
        "refused": int((absent["n_seg"] == 0).sum()),
        "n_absent": len(absent),
    }
