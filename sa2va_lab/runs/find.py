"""Which Runs lie in a folder, and which of them to look at when none was named: predict once, look many times."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path

from sa2va_lab import paths
from sa2va_lab.errors import LabError
from sa2va_lab.runs.read import META, Role, Run, open_run
from sa2va_lab.runs.write import predict_dataset

PLACES = (f"*/{META}", f"asked/*/{META}")  # questions in other words lie apart, so that they fill no list of files


def walk_runs(folder: Path | str) -> Iterator[tuple[Path, Run | LabError]]:
    """Every Run in a folder with its place, by name, those in other words last. For a damaged one what is wrong: it
    hides no other."""
    for path in (path for place in PLACES for path in sorted(Path(folder).glob(place))):
        try:
            yield path.parent, open_run(path.parent)
        except LabError as error:
            yield path.parent, error


def find_runs(folder: Path | str, *, role: Role | None = None, of: Run | None = None) -> list[Run]:
    """The Runs in a folder that can be read, those made last first; of those made together, the main one first.

    role, of: only those of this role, and those made for that Run.
    """
    found = [run for _, run in walk_runs(folder) if isinstance(run, Run)]
    known = {run.folder.name: run for run in found if run.role != "asked"}

    def age(run: Run) -> tuple:
        steps = 0  # to the main Run; as many as there are Runs only in a circle, which nobody made by predicting
        while run.of in known and steps < len(known):
            run, steps = known[run.of], steps + 1
        return run.meta["started"], run.folder.name, -steps

    found.sort(key=age, reverse=True)
    return [run for run in found if role in (None, run.role) and (of is None or run.of == of.folder.name)]


def find_beside(run: Run, role: Role, *, but: Collection[str] = ()) -> list[Run]:
    """The finished Runs of a role that were made for `run`, by the same model, asked the same but for `but`."""
    made = find_runs(run.folder.parent, role=role, of=run)
    return [one for one in made if one.finished and set(one.maker.differences(run.maker)) <= set(but)]


def runs_folder(outputs: Path | str | None) -> Path:
    """runs/ under `outputs`, or under outputs/ of the clone."""
    return Path(outputs or paths.find_root() / "outputs") / "runs"


def name_folder(runs: Path, name: str, *, new: bool = False) -> Path:
    """Where the Run of that name is: the newest folder that ends with it, to be resumed, else one that is to be made;
    always that with `new`. LabError for a name of which no folder's name can be made."""
    if not re.search(r"\w", name):
        raise LabError(f"the Run's name is {name!r}; expected one with letters or digits")
    there = [path for path in runs.glob("*_*") if path.name.partition("_")[2] == paths.as_file_name(name)]
    return max(there) if there and not new else paths.new_folder(runs, name)


def open_named(named: Path | str, runs: Path) -> Run:
    """A Run given by its folder, or by its name or the end of its name in `runs`; LabError where none fits."""
    if Path(named).is_dir():
        return open_run(named)
    known = [path for path, _ in walk_runs(runs)]
    fits = [path for path in known if str(named) in (path.name, path.name.partition("_")[2])]
    if not fits:
        told = ", ".join([path.name for path in known if path.parent == runs][-5:]) or "none so far"
        raise LabError(f"no Run is called {named} in {runs} (the newest there: {told}); give its folder or name.")
    return open_run(fits[-1])


def choose_run(asked: str | Path, dataset, *, runs: Path | str, split: str = "") -> tuple[Run, str]:
    """The Run to look at, and why: the one asked for; else the newest in `runs` that was made on this data set; else,
    on the shipped images, a new one of the demo model.

    split: the part to look at where there is a choice. The Run asked for then gives way to one that lies beside it and
    was made by the same model, with the same prompt, on that part: a threshold is chosen on val and reported on test.
    Raises LabError where none is named or found and the data are not the demo's.
    """
    if asked:
        run = open_run(asked)
        if split in ("", run.split):
            return run, "as asked"
        for other in _find_of(run.folder.parent, dataset):
            if other.split == split and not other.maker.differences(run.maker):
                return other, f'split "{split}" of the same model, beside the Run {run.folder.name}'
        return run, f'as asked; no Run of the same model on split "{split}" lies beside it'
    found = _find_of(runs, dataset)
    for run in found:
        if run.split == split:
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


def _find_of(folder: Path | str, dataset) -> list[Run]:
    """The Runs in a folder that were made on this data set or a part of it with its own words, newest first."""
    known, found = {sample.id: sample for sample in dataset.samples}, []
    for run in find_runs(folder):
        images = {record["id"]: record["image_sha256"] for record in run.records}
        fits = run.phrase == dataset.phrase and run.role != "asked" and images and set(run.sample_ids) <= set(known)
        # ids are pseudonyms that another data set may use as well; bytes are not
        if fits and images[first := next(iter(images))] == known[first].image_sha256():
            found.append(run)
    return found
