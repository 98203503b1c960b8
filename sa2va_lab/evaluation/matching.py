"""A run's predictions beside the truths of its data set: the only place where the two meet.

What is ignored is blank on both sides from here on: there nothing is found and nothing is missed, and whoever counts
what is neither leaves those pixels out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from tqdm.auto import tqdm

from sa2va_lab.datasets.samples import Dataset, Sample
from sa2va_lab.errors import LabError
from sa2va_lab.prediction import Prediction
from sa2va_lab.runs.read import Run


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
