"""Which Run to look at when none was named: predict once, look many times."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sa2va_lab import paths
from sa2va_lab.errors import LabError
from sa2va_lab.evaluation.runs import META, Run, open_run, predict_dataset

if TYPE_CHECKING:
    from sa2va_lab.datasets.samples import Dataset


def choose_run(asked: str | Path, dataset: Dataset, *, runs: Path | str, split: str = "") -> tuple[Run, str]:
    """The Run to look at, and why: the one asked for; else the newest in `runs` that was made on this data set; else,
    on the shipped images, a new one of the demo model.

    split: only Runs of this split, and the one to predict; empty is any, and test where there is one.
    Raises LabError where none is named or found and the data are not the demo's.
    """
    if asked:
        return open_run(asked), "as asked"
    known = {sample.id: sample for sample in dataset.samples}
    for path in sorted(Path(runs).glob(f"*/{META}"), reverse=True):
        run = open_run(path.parent)
        data, images = run.meta["dataset"], {record["id"]: record["image_sha256"] for record in run.records}
        fits = data["phrase"] == dataset.phrase and images and set(run.sample_ids) <= set(known)
        if fits and split in ("", data["split"]) and _same_images(images, known):
            return run, f"the newest Run of these images in {Path(runs).name}/"
    if not paths.is_demo_data(dataset.root):
        raise LabError(f"no Run of these images lies in {runs}; make one with 03_evaluation, or name one as run")
    from sa2va_lab.loading.load import load

    part = dataset.choose_split(split)[0]
    folder = paths.new_folder(runs, "demo")
    return predict_dataset(
        load(paths.demo_model()), dataset, folder=folder, split=part
    ), "predicted now: there was none"


def _same_images(hashes: dict, known: dict) -> bool:
    first = next(iter(hashes))  # ids are pseudonyms that another data set may use as well; bytes are not
    return hashes[first] == known[first].image_sha256()
