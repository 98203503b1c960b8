"""Predictions beside the truths of their data set, and numbers from counts: how much of the truth was found, and how
much of what was found is true.

This is the only place where the two meet. What is ignored is blank on both sides from here on: there nothing is found
and nothing is missed, and whoever counts what is neither leaves those pixels out.

Everything here is a ratio of the four pixel counts. A ratio of 0 to 0 is NaN, "undefined", and is left out of means;
no other convention is hidden anywhere. POLICY says what that means for each kind of image.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from tqdm.auto import tqdm

from sa2va_lab.datasets.samples import Dataset, Sample
from sa2va_lab.errors import LabError
from sa2va_lab.evaluation.intervals import mean_interval
from sa2va_lab.prediction import Prediction
from sa2va_lab.runs.read import Run

if TYPE_CHECKING:
    import pandas as pd

COUNTS = ("tp", "fp", "fn", "tn")
AREAS = ("truth_area", "mask_area", "ignored_area")
METRICS = ("dice", "iou", "precision", "recall", "specificity")

# What each metric is when the truth or the mask is empty ("none"), partial ("some") or covers the image ("all").
# A word stands for the ordinary ratio. Why not 1 for "nothing there, nothing found": empty images would then raise a
# mean Dice that is meant to say how well vessels are outlined; NaN leaves them to specificity, which sees them.
# Why 0 and not NaN for "nothing there, something found": the ratio is defined, and it is a mistake that must cost.
# Precision is NaN for an empty mask: a model that says nothing is not precise. Read it beside recall, which is 0 there.
POLICY = {
    # (truth, mask): {metric: value}
    ("none", "none"): {"dice": np.nan, "iou": np.nan, "precision": np.nan, "recall": np.nan, "specificity": 1.0},
    ("none", "some"): {"dice": 0.0, "iou": 0.0, "precision": 0.0, "recall": np.nan, "specificity": "ratio"},
    ("none", "all"): {"dice": 0.0, "iou": 0.0, "precision": 0.0, "recall": np.nan, "specificity": 0.0},
    ("some", "none"): {"dice": 0.0, "iou": 0.0, "precision": np.nan, "recall": 0.0, "specificity": 1.0},
    ("some", "some"): dict.fromkeys(METRICS, "ratio"),
    ("some", "all"): {"dice": "ratio", "iou": "ratio", "precision": "ratio", "recall": 1.0, "specificity": 0.0},
    ("all", "none"): {"dice": 0.0, "iou": 0.0, "precision": np.nan, "recall": 0.0, "specificity": np.nan},
    ("all", "some"): {"dice": "ratio", "iou": "ratio", "precision": 1.0, "recall": "ratio", "specificity": np.nan},
    ("all", "all"): {"dice": 1.0, "iou": 1.0, "precision": 1.0, "recall": 1.0, "specificity": np.nan},
}


@dataclass(frozen=True)
class Pair:
    """A prediction beside its truth, as `pair_up` makes it.

    probability: float32 (H, W), 0 where ignored. truth: bool (H, W), False where ignored; None where nobody annotated.
    ignore: bool (H, W), None where every pixel counts.
    """

    probability: np.ndarray
    truth: np.ndarray | None
    ignore: np.ndarray | None

    @property
    def left_out(self) -> int:
        """How many pixels are ignored."""
        return 0 if self.ignore is None else int(np.count_nonzero(self.ignore))

    def mask(self, threshold: float) -> np.ndarray:
        """bool (H, W): probability strictly above the threshold, nowhere where it is ignored."""
        return self.probability > float(threshold)


def match_samples(run: Run, dataset: Dataset) -> Iterator[tuple[Sample, dict | None]]:
    """Every sample of the run with its record, None where it was not predicted yet.

    Raises LabError when the data set is not the one that was predicted: another phrase, other ids, other images.
    """
    if run.meta["dataset"]["phrase"] != dataset.phrase:
        raise LabError(
            f'the run {run.folder} looked for "{run.meta["dataset"]["phrase"]}" but the data set was opened for '
            f'"{dataset.phrase}"; open the data set with the run\'s phrase'
        )
    samples = {sample.id: sample for sample in dataset.samples}
    absent = [name for name in run.sample_ids if name not in samples]
    if absent:
        raise LabError(
            f"the run {run.folder} holds {len(absent)} samples that the data set lacks (the first is {absent[0]}); "
            "open the data set, or the split of it, that the run was made on"
        )
    records = {record["id"]: record for record in run.records}
    for name in run.sample_ids:
        sample, record = samples[name], records.get(name)
        if record and record["image_sha256"] is not None:
            now = sample.image_sha256()
            if now is None:
                raise LabError(f"the image of {name} cannot be read; bring the images back to where they were")
            if now != record["image_sha256"]:
                raise LabError(
                    f"the image of {name} is not the one that was predicted (its bytes changed); "
                    "open the data set that the run was made on, or predict again in a new folder"
                )
        yield sample, record


def pair_up(prediction: Prediction, sample: Sample, *, merge: str | int = "union") -> Pair:
    """A prediction beside the truth of its sample; LabError when that is not of the prediction's size."""
    probability, truth, ignore = prediction.probability(merge), sample.truth(), sample.ignore()
    size = probability.shape
    for drawn in (truth, ignore):
        if drawn is not None and drawn.shape != size:
            raise LabError(
                f"the prediction of {sample.id} is {size[1]}x{size[0]} but its truth is "
                f"{drawn.shape[1]}x{drawn.shape[0]}; expected equal sizes, predict again in a new folder"
            )
    if ignore is not None:
        probability[ignore] = 0
    return Pair(probability, truth, ignore)


def iterate_pairs(run: Run, dataset: Dataset, *, progress: bool = False) -> Iterator[tuple[Sample, Pair]]:
    """Every sample that has a prediction and a truth, with the two."""
    matched = [(sample, record) for sample, record in match_samples(run, dataset) if record and not record["error"]]
    bar = tqdm(matched, desc="measure", unit="image", disable=not progress, dynamic_ncols=True)
    for sample, _ in bar:
        bar.set_postfix_str(sample.id, refresh=False)
        pair = pair_up(run.prediction(sample.id), sample)
        if pair.truth is not None:
            yield sample, pair


def count_pixels(mask: np.ndarray, truth: np.ndarray, ignore: np.ndarray | None = None) -> dict[str, int]:
    """tp, fp, fn, tn of two bool (H, W) of one shape, but for the pixels of a third that are left out."""
    if mask.shape != truth.shape or mask.dtype != bool or truth.dtype != bool:
        raise ValueError(
            f"mask is {mask.dtype} {mask.shape} and truth {truth.dtype} {truth.shape}; expected two bool of one shape"
        )
    if ignore is not None:
        mask, truth = mask[~ignore], truth[~ignore]
    found, there = int(np.count_nonzero(mask)), int(np.count_nonzero(truth))
    tp = int(np.count_nonzero(mask & truth))
    return {"tp": tp, "fp": found - tp, "fn": there - tp, "tn": mask.size - found - there + tp}


def score_parts(metric: str, tp, fp, fn, tn) -> tuple:
    """Numerator and denominator of a metric: each is such a ratio, so a pooled one is the ratio of the sums."""
    match metric:
        case "dice":
            return 2 * tp, 2 * tp + fp + fn
        case "iou":
            return tp, tp + fp + fn
        case "precision":
            return tp, tp + fp
        case "recall":
            return tp, tp + fn
        case "specificity":
            return tn, tn + fp
    raise LabError(f"{metric!r} is not made of pixel counts; choose one of {', '.join(METRICS)}")


def compute_scores(tp, fp, fn, tn, *, metrics=METRICS) -> dict[str, float | np.ndarray]:
    """The metrics of counts, numbers or arrays of one shape; 0/0 is NaN, and so is anything of a NaN count."""
    counts = [np.asarray(count, float) for count in (tp, fp, fn, tn)]
    scores = {}
    with np.errstate(invalid="ignore"):
        for metric in metrics:
            above, below = score_parts(metric, *counts)
            scores[metric] = np.divide(above, below)
    return {name: float(score) if np.ndim(score) == 0 else score for name, score in scores.items()}


def evaluate_run(run: Run, dataset: Dataset, *, threshold: float = 0.5) -> pd.DataFrame:
    """The predictions of a run against the truths of the data set that it was made on, a row a sample.

    Columns: id, group, phrase, error, answer, n_seg, seconds, tp, fp, fn, tn, dice, iou, precision, recall,
    specificity, truth_area, mask_area, ignored_area (pixels, none of which is in any other column). Every sample of the
    run has a row. A failed or missing prediction has its error and NaN; an image that nobody annotated has its
    mask_area and NaN; an answer without [SEG] is an empty mask. `table.attrs` says threshold,
    rasteriser, the share that is ignored, where truths and predictions came from, and the demo stamp.

    Raises LabError when the data set is not the one that was predicted (other images, other phrase), when a truth
    cannot be read, or when a prediction on disk was damaged.
    """
    import pandas as pd

    rows = []
    for sample, record in match_samples(run, dataset):
        row = {"id": sample.id, "group": sample.group, "phrase": sample.phrase}
        if record is None:
            rows.append(row | {"error": "not predicted yet: the run is unfinished"})
            continue
        row |= {"error": record["error"], "seconds": record["seconds"].get("wall", np.nan)}
        if record["error"] is None:
            row |= {"answer": record["answer"], "n_seg": record["n_seg"]}
            pair = pair_up(run.prediction(sample.id), sample)
            mask = pair.mask(threshold)
            row |= {"mask_area": int(mask.sum()), "ignored_area": pair.left_out}
            if pair.truth is not None:
                row |= count_pixels(mask, pair.truth, pair.ignore) | {"truth_area": int(pair.truth.sum())}
        rows.append(row)
    words, numbers = ["error", "answer"], ["n_seg", "seconds", *COUNTS, *METRICS, *AREAS]
    table = pd.DataFrame(rows, columns=["id", "group", "phrase", *words, *numbers])
    table = table.astype(dict.fromkeys(words, object) | dict.fromkeys(numbers, float))
    table[words] = table[words].where(table[words].notna(), None)
    table = table.assign(**compute_scores(*(table[count] for count in COUNTS)))
    left_out = table.loc[table["truth_area"].notna(), "ignored_area"].sum()
    table.attrs = {
        "ignored": float(left_out / (table[list(COUNTS)].sum(axis=None) + left_out)) if left_out else 0.0,
        "threshold": threshold,
        "rasteriser": dataset.rasteriser,
        "truth_sha256": dataset.truth_sha256,
        "weights_sha256": run.meta["segmenter"]["weights_sha256"],
        "split": run.meta["dataset"]["split"],
        "stamp": run.meta["stamp"],
        "grouped": len({sample.group for sample in dataset}) < len(dataset),
    }
    return table


def summarise(table: pd.DataFrame) -> dict:
    """The overall numbers of what `evaluate_run` returned, as plain Python values.

    grouped (whether the data know patients), n_images, n_groups, n_failed, n_without_truth, n_without_seg, ignored
    (share of the pixels of the images with a truth), threshold, rasteriser, and for each metric: macro (mean over the n
    images, of n_groups patients, where it is defined), pooled (of the summed counts), low and high (95 % interval of
    macro over groups, `intervals.mean_interval`) and the interval's reason. Undefined is NaN.
    """
    failed = table["error"].notna()
    summary = {
        "n_images": len(table),
        "n_groups": int(table["group"].nunique()),
        "n_failed": int(failed.sum()),
        "n_without_truth": int((~failed & table["truth_area"].isna()).sum()),
        "n_without_seg": int((~failed & (table["n_seg"] == 0)).sum()),
        "ignored": table.attrs.get("ignored", 0.0),
        "grouped": table.attrs.get("grouped", False),
        "threshold": table.attrs.get("threshold"),
        "rasteriser": table.attrs.get("rasteriser"),
    }
    pooled = compute_scores(*(table[count].sum() for count in COUNTS))
    for metric in METRICS:
        found = mean_interval(table[metric], table["group"])
        summary[metric] = {"macro": found.mean, "pooled": pooled[metric], "low": found.low, "high": found.high}
        summary[metric] |= {"n": found.n_images, "n_groups": found.n_groups, "reason": found.reason}
    return summary
