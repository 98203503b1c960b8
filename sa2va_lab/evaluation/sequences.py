"""One model on films twice: every frame asked for itself, and every film asked once and then followed.

Both Runs are of the same frames. Patients are the units of every interval, as everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from sa2va_lab.datasets.samples import Dataset
from sa2va_lab.errors import LabError
from sa2va_lab.evaluation.intervals import Difference, compare_paired
from sa2va_lab.evaluation.metrics import compute_scores, count_pixels, match_samples, pair_up
from sa2va_lab.runs.asking import list_films
from sa2va_lab.runs.read import Run
from sa2va_lab.shown import Shown

WAYS = ("still", "tracked")
LEAST_FRAMES = 3  # a sequence of fewer has no course


@dataclass(frozen=True)
class Measure:
    """The mean of a number over frames in both ways. difference: tracked less still, frame by frame, over the frames
    that have both; None of seconds. truth: the same number of the ground truth, NaN where it has none."""

    still: float
    tracked: float
    difference: Difference | None
    truth: float = np.nan


@dataclass(frozen=True, repr=False)
class Comparison(Shown):
    """table: a row a frame: id, group, video, frame (its place in the film, from 1), shown (whether the language model
    saw it when the film was tracked), and for each of `WAYS` dice_, changed_ and seconds_; changed_truth beside them.
    measures: "dice", "dice_followed" (frames that memory alone drew), "changed", "seconds". keep: how many frames of a
    film the language model saw. threshold: of both ways."""

    table: pd.DataFrame
    measures: dict[str, Measure]
    keep: int
    threshold: float
    stamp: str | None

    @property
    def facts(self) -> dict[str, str]:
        """See `Shown`."""
        films = self.table["video"].nunique()
        facts = {"Frames": f"{len(self.table)} of {films} films, at threshold {self.threshold:g}"}
        for name, found in self.measures.items():
            facts[name] = f"{found.still:.3f} frame by frame, {found.tracked:.3f} tracked"
            facts[name] += f": {found.difference.told}" if found.difference else ""
        return facts

    @property
    def asked(self) -> dict[str, int]:
        """By way, how often the language model was asked."""
        return {"still": len(self.table), "tracked": self.table["video"].nunique()}


def list_sequences(dataset: Dataset) -> dict[str, list[str]]:
    """{sequence: ids of its frames in their order}, of those that have `LEAST_FRAMES` or more."""
    films = [film for film in list_films(dataset) if film[0].video and len(film) >= LEAST_FRAMES]
    return {film[0].video: [sample.id for sample in film] for film in films}


def whole_films(dataset: Dataset, run: Run | None = None) -> Dataset | None:
    """The sequences of a data set, without those of which a run lacks a frame; None where nothing is left."""
    there = {sample.id for sample in dataset} if run is None else set(run.sample_ids)
    kept = [ids for ids in list_sequences(dataset).values() if there.issuperset(ids)]
    return dataset.select(sum(kept, [])) if kept else None


def share_changed(before: np.ndarray, now: np.ndarray) -> float:
    """How much of two masks, bool (H, W), lies in one of them only: 1 - |A and B| / |A or B|, NaN where both are empty.

    That is the distance of Jaccard (1912, The New Phytologist 11), here of one frame's mask to the next one's. A heart
    that beats changes the truth too, so it is read beside the same number of the truth: what lies above is flicker,
    what lies below is a mask that lags.
    """
    either = np.count_nonzero(before | now)
    return 1 - np.count_nonzero(before & now) / either if either else np.nan


def compare_sequences(still: Run, tracked: Run, dataset: Dataset, *, threshold: float = 0.5) -> Comparison:
    """Sets two Runs of one model on the same frames side by side.

    still: every frame was asked. tracked: every film was asked once (`run.meta["tracked"]`). Frames that failed in one
    of them are in no number, nor are changes to or from them. Raises LabError where the two are not such a pair, where
    they have no frame of a sequence in common, or as `match_samples` does.
    """
    import pandas as pd

    _refuse_strangers(still, tracked)
    places = {one: (video, k) for video, ids in list_sequences(dataset).items() for k, one in enumerate(ids, 1)}
    rows, last = [], {}
    theirs = {sample.id: record for sample, record in match_samples(tracked, dataset)}
    for sample, record in match_samples(still, dataset):
        records = dict(zip(WAYS, (record, theirs.get(sample.id)), strict=True))
        if sample.id not in places or any(each is None or each["error"] for each in records.values()):
            continue
        video, frame = places[sample.id]
        row = {"id": sample.id, "group": sample.group, "video": video, "frame": frame}
        row |= {"shown": "answer" in records["tracked"]["seconds"]}  # a frame that is followed has no such stage
        row |= {f"seconds_{way}": each["seconds"].get("wall", np.nan) for way, each in records.items()}
        masks = {}
        for way, run in zip(WAYS, (still, tracked), strict=True):
            pair = pair_up(run.prediction(sample.id), sample)
            masks[way] = pair.mask(threshold)
            if pair.truth is not None:
                masks["truth"] = pair.truth
                counts = count_pixels(masks[way], pair.truth, pair.ignore)
                row |= {f"dice_{way}": compute_scores(**counts, metrics=["dice"])["dice"]}
        before = last.get((video, frame - 1), {})
        row |= {f"changed_{name}": share_changed(before[name], masks[name]) for name in masks if name in before}
        last = {(video, frame): masks}
        rows.append(row)
    if not rows:
        raise LabError("the two runs have no frame of a sequence in common; predict the same images in both ways")
    names = [f"{name}_{way}" for name in ("dice", "changed", "seconds") for way in WAYS] + ["changed_truth"]
    table = pd.DataFrame(rows, columns=["id", "group", "video", "frame", "shown", *names])
    table = table.astype(dict.fromkeys(names, float))
    measures = {name: _measure(name, table) for name in ("dice", "changed", "seconds")}
    measures["dice_followed"] = _measure("dice", table[~table["shown"]])
    return Comparison(table, measures, tracked.meta["tracked"]["keep"], threshold, still.meta["stamp"])


def _measure(name: str, table: pd.DataFrame) -> Measure:
    both = [f"{name}_{way}" for way in WAYS]
    kept = table[table[both].notna().all(axis=1)]
    still, tracked = (kept[column].to_numpy(float) for column in both)
    truth = float(kept["changed_truth"].mean()) if name == "changed" else np.nan
    means = (float(values.mean()) if len(kept) else np.nan for values in (still, tracked))
    apart = None if name == "seconds" else compare_paired(tracked, still, kept["group"])
    return Measure(*means, apart, truth)


def _refuse_strangers(still: Run, tracked: Run) -> None:
    """LabError where the two are not of one model asked one thing, once image by image and once tracked."""
    ways = ("asked frame by frame", "tracked")
    for wanted, run in enumerate((still, tracked)):
        if (found := bool(run.meta.get("tracked"))) != wanted:
            said = f"the run {run.folder.name} was {ways[found]}, but a run that was {ways[wanted]} is needed"
            raise LabError(f"{said} in its place; name the two runs the other way round, or predict again")
    if apart := [name for name in still.maker.differences(tracked.maker) if name != "tracking"]:
        raise LabError(f"the two runs differ in {' and '.join(apart)}; expected one model that was asked one thing")
