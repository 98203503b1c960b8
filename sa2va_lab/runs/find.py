"""Which Run to look at when none was named: predict once, look many times."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sa2va_lab import paths
from sa2va_lab.errors import LabError
from sa2va_lab.runs.read import META, Run, open_run
from sa2va_lab.runs.write import predict_dataset

if TYPE_CHECKING:
    from sa2va_lab.datasets.samples import Dataset


def choose_run(asked: str | Path, dataset: Dataset, *, runs: Path | str, split: str = "") -> tuple[Run, str]:
    """The Run to look at, and why: the one asked for; else the newest in `runs` that was made on this data set; else,
    on the shipped images, a new one of the demo model.

    split: the part to look at where there is a choice. The Run asked for then gives way to one that lies beside it and
    was made by the same model, with the same prompt, on that part: a threshold is chosen on val and reported on test.
    Raises LabError where none is named or found and the data are not the demo's.
    """
    if asked:
        return _step_aside(open_run(asked), dataset, split)
    found = _find_runs(runs, dataset)
    for run in found:
        if run.meta["dataset"]["split"] == split:
            return run, f'the newest Run of these images, split "{split}", in {Path(runs).name}/'
    if found:
        return found[0], f"the newest Run of these images in {Path(runs).name}/"
    if not paths.is_demo_data(dataset.root):
        raise LabError(f"no Run of these images lies in {runs}; make one with 03_evaluation, or name one as run")
    from sa2va_lab.loading.load import load

    part = split if split in dataset.splits else dataset.choose_split()[0]
    folder = paths.new_folder(runs, "demo")
    return predict_dataset(
        load(paths.demo_model()), dataset, folder=folder, split=part
    ), "predicted now: there was none"


def _step_aside(run: Run, dataset: Dataset, split: str) -> tuple[Run, str]:
    if split in ("", run.meta["dataset"]["split"]):
        return run, "as asked"
    for other in _find_runs(run.folder.parent, dataset):
        if other.meta["dataset"]["split"] == split and _made_by(other) == _made_by(run):
            return other, f'split "{split}" of the same model, beside the Run {run.folder.name}'
    return run, f'as asked; no Run of the same model on split "{split}" lies beside it'


def _find_runs(folder: Path | str, dataset: Dataset) -> list[Run]:
    """The Runs in a folder that were made on this data set or a part of it, newest first."""
    known, found = {sample.id: sample for sample in dataset.samples}, []
    names = sorted((path.parent.name for path in Path(folder).glob(f"*/{META}")), key=len)
    # of those made together the shortest name is first: 03_evaluation makes NAME, and NAME_val and NAME_beside with it
    for name in sorted(names, key=lambda name: name.split("_")[0], reverse=True):
        run = open_run(Path(folder) / name)
        images = {record["id"]: record["image_sha256"] for record in run.records}
        fits = run.meta["dataset"]["phrase"] == dataset.phrase and images and set(run.sample_ids) <= set(known)
        if fits and _same_images(images, known):
            found.append(run)
    return found


def _made_by(run: Run) -> tuple:
    model = run.meta["segmenter"]
    return model["weights_sha256"], model.get("precision", {}).get("actual"), run.meta["prompt"]


def _same_images(hashes: dict, known: dict) -> bool:
    first = next(iter(hashes))  # ids are pseudonyms that another data set may use as well; bytes are not
    return hashes[first] == known[first].image_sha256()
