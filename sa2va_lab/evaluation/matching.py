"""A run's predictions beside the truths of its data set: the only place where the two meet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from sa2va_lab.errors import LabError

if TYPE_CHECKING:
    from sa2va_lab.datasets.samples import Dataset, Sample
    from sa2va_lab.runs.read import Run


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


def read_truth(sample: Sample, size: tuple[int, int]) -> np.ndarray | None:
    """The truth, bool (H, W), None where nobody annotated; LabError when it is not of the prediction's size."""
    truth = sample.truth()
    if truth is not None and truth.shape != tuple(size):
        raise LabError(
            f"the prediction of {sample.id} is {size[1]}x{size[0]} but its truth is "
            f"{truth.shape[1]}x{truth.shape[0]}; expected equal sizes, predict again in a new folder"
        )
    return truth


def iterate_pairs(run: Run, dataset: Dataset, *, merge: str | int = "union", progress: bool = False):
    """(sample, probability float32 (H, W), truth bool (H, W)) of every sample that has both."""
    from tqdm import tqdm

    matched = [(sample, record) for sample, record in match_samples(run, dataset) if record and not record["error"]]
    for sample, _ in tqdm(matched, desc="measure", unit="image", disable=not progress, dynamic_ncols=True):
        prediction = run.prediction(sample.id)
        truth = read_truth(sample, prediction.size)
        if truth is not None:
            yield sample, prediction.probability(merge), truth
