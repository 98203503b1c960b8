"""Which probability makes a mask: any threshold from one look at the pixels, chosen on images that are not reported.

Every image is reduced to how many pixels of the truth, and how many others, lie above each of 1,000 thresholds. From
there every metric made of counts, at every threshold, over any part of the images, is arithmetic.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field, TypeAdapter

from sa2va_lab.datasets.samples import Dataset
from sa2va_lab.errors import LabError
from sa2va_lab.evaluation.intervals import compare_paired, sum_groups
from sa2va_lab.evaluation.metrics import COUNTS, compute_scores, iterate_pairs
from sa2va_lab.files import read_json, tell_fault, write_json
from sa2va_lab.paths import find_given
from sa2va_lab.runs import Run, find_beside, predict_dataset

if TYPE_CHECKING:
    import pandas as pd

BINS = 1000
THRESHOLDS = np.arange(BINS) / BINS  # 0, .001, ..., .999: a pixel is in the mask strictly above its threshold
_EDGES = np.append(THRESHOLDS, np.inf).astype(np.float32)
FILE = "threshold.json"
RESAMPLES = 2_000
STEPS = 20  # bars of the calibration curve
FLAT = 0.005  # thresholds whose score is this near to the best are as good as the best


@dataclass(frozen=True)
class Counts:
    """Pixel counts of n images above each of THRESHOLDS.

    ids, groups, hashes: n texts (sample, patient, sha256 of the image file). tp, fp: int32 (n, 1000), pixels above
    each threshold inside and outside the truth. truth, size: int64 (n,), pixels of the truth and all that count.
    origin: which run, split and merge they come from.
    """

    ids: tuple[str, ...]
    groups: tuple[str, ...]
    hashes: tuple[str, ...]
    tp: np.ndarray
    fp: np.ndarray
    truth: np.ndarray
    size: np.ndarray
    origin: dict = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def at(self, threshold) -> dict[str, np.ndarray]:
        """tp, fp, fn, tn, each (n,), of the masks at one threshold, or at one an image (n,).

        The counts are exact for multiples of 0.001; another threshold is refused with a LabError.
        """
        place = np.broadcast_to(locate(threshold), len(self))
        rows = np.arange(len(self))
        return dict(zip(COUNTS, self._all(self.tp[rows, place], self.fp[rows, place]), strict=True))

    def scores(self, metric: str = "dice") -> np.ndarray:
        """The metric of every image at every threshold, float64 (n, 1000), NaN where undefined."""
        return compute_scores(*self._all(self.tp, self.fp), metrics=[metric])[metric]

    def curve(self) -> np.ndarray:
        """Mean Dice of the images that have one at every threshold, float64 (1000,)."""
        _, above, below = _sum_groups(self)
        with np.errstate(invalid="ignore"):
            return above.sum(axis=0) / below.sum(axis=0)

    def pooled(self, metric: str) -> np.ndarray:
        """The metric of the summed counts of all images at every threshold, float64 (1000,)."""
        summed = [count.sum(axis=0) for count in self._all(self.tp, self.fp)]
        return compute_scores(*summed, metrics=[metric])[metric]

    def _all(self, tp: np.ndarray, fp: np.ndarray) -> tuple[np.ndarray, ...]:
        truth, rest = (column if tp.ndim == 1 else column[:, None] for column in (self.truth, self.size - self.truth))
        return tp, fp, truth - tp, rest - fp


@dataclass(frozen=True)
class Choice:
    """A chosen threshold.

    value: in [0, 1]. score: the mean Dice at it, over n_images; at_half: the same at 0.5. low, high: 95 %
    interval of the choice itself, patients drawn again. flat: the thresholds around it that are within FLAT of the
    best. origin: run, weights_sha256, precision, prompt, code, split, merge, image hashes ("images"): where it was
    chosen.
    """

    value: Annotated[float, Field(strict=True, ge=0, le=1)]
    reason: str
    metric: str = "dice"
    rule: str = "macro"
    score: float = float("nan")
    at_half: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")
    flat: tuple[float, float] | None = None
    n_images: int = 0
    n_groups: int = 0
    origin: dict = field(default_factory=dict)
    note: str = ""


CHOICE, HASHES = TypeAdapter(Choice), TypeAdapter(list[str])


def locate(threshold) -> np.ndarray:
    """The place of a threshold (or of several) in THRESHOLDS; LabError for one that is not a multiple of 0.001."""
    place = np.round(np.asarray(threshold, float) * BINS)
    if not (np.isfinite(place).all() and (place >= 0).all() and (place < BINS).all()):
        raise LabError(f"the threshold is {threshold}; expected a probability from 0 to {THRESHOLDS[-1]}")
    if not np.allclose(place / BINS, threshold, atol=1e-9):
        raise LabError(f"the threshold is {threshold}; counts know multiples of {1 / BINS:g} only")
    return place.astype(int)


def count_image(probability: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels above each of THRESHOLDS inside and outside the truth, int32 (1000,) each.

    probability: float32 (H, W) in [0, 1]; truth: bool (H, W). Equal to counting `probability > threshold` each time.
    """
    flat = np.ascontiguousarray(probability, np.float32).ravel()
    if flat.size != truth.size or truth.dtype != bool or not (0 <= flat.min() and flat.max() <= 1):
        raise ValueError(f"probabilities {probability.shape} in [0, 1] and a bool truth of that shape, not these")
    # how many thresholds each pixel is above: guessed by a product, put right by a comparison with the very edges
    above = np.minimum(np.ceil(flat * np.float32(BINS)), BINS).astype(np.int16)
    above -= (above > 0) & (_EDGES[above - 1] >= flat)
    above += _EDGES[above] < flat
    above *= 2
    above += truth.ravel()
    histogram = np.bincount(above, minlength=2 * (BINS + 1)).reshape(BINS + 1, 2)
    outside, inside = histogram[:0:-1].cumsum(axis=0)[::-1].T.astype(np.int32)
    return inside, outside


def count_run(run: Run, dataset: Dataset, *, progress: bool = False) -> Counts:
    """One pass over a run's probabilities. Failed samples and those without a truth are left out."""
    rows = []
    for sample, pair in iterate_pairs(run, dataset, progress=progress):
        inside, outside = count_image(pair.probability, pair.truth)
        areas = np.count_nonzero(pair.truth), pair.truth.size - pair.left_out
        rows.append((sample.id, sample.group, inside, outside, *areas))
    hashes = {record["id"]: record["image_sha256"] for record in run.records}
    ids, groups, tp, fp, areas, sizes = zip(*rows, strict=True) if rows else ((), (), (), (), (), ())
    tp, fp = (np.array(counts, np.int32).reshape(len(rows), BINS) for counts in (tp, fp))
    areas, sizes = (np.array(pixels, np.int64) for pixels in (areas, sizes))
    origin = {"run": run.folder.name, "weights_sha256": run.maker.weights, "split": run.split, "merge": "union"}
    origin |= {name: getattr(run.maker, name) for name in ("precision", "prompt", "tracking", "code")}
    origin["manifest_sha256"] = run.meta["dataset"]["manifest_sha256"]
    return Counts(ids, groups, tuple(hashes[name] for name in ids), tp, fp, areas, sizes, origin)


def choose_threshold(counts: Counts) -> Choice:
    """The threshold with the best mean Dice; of equally good ones the nearest to 0.5.

    Its interval says where it would have landed with other patients: groups are drawn again and it is chosen anew.
    Raises LabError without images.
    """
    groups, above, below = _sum_groups(counts)
    if not len(counts) or not below.any():
        raise LabError("no image with a truth to choose a threshold on; give annotated images")
    with np.errstate(invalid="ignore"):
        curve = counts.curve()
        best = _find_best(curve)
        low = high = np.nan
        if len(groups) > 1:
            drawn = np.random.default_rng(0).multinomial(len(groups), [1 / len(groups)] * len(groups), RESAMPLES)
            places = np.apply_along_axis(_find_best, 1, (drawn @ above) / (drawn @ below))
            low, high = np.quantile(THRESHOLDS[places], [0.025, 0.975])
    n_images, n_groups = int(below[:, best].sum()), int((below[:, best] > 0).sum())
    worse = np.flatnonzero(~(curve >= curve[best] - FLAT))
    low_end, high_end = worse[worse < best].max(initial=-1) + 1, worse[worse > best].min(initial=BINS) - 1
    where = f"{n_images} images of {n_groups} patients"
    where += ", " + f'split "{split}"' if (split := counts.origin.get("split")) else ""
    return Choice(
        value=float(THRESHOLDS[best]),
        reason=f"best mean Dice on {where}",
        score=float(curve[best]),
        at_half=float(curve[BINS // 2]),
        low=float(low),
        high=float(high),
        flat=(float(THRESHOLDS[low_end]), float(THRESHOLDS[high_end])),
        n_images=n_images,
        n_groups=n_groups,
        origin=counts.origin | {"images": sorted(counts.hashes)},
    )


def nest_thresholds(counts: Counts) -> tuple[np.ndarray, str]:
    """Where there is no validation split: for each patient the threshold chosen on all others; (n,) and the reason."""
    groups, above, below = _sum_groups(counts)
    if len(groups) < 2:
        raise LabError(f"{len(groups)} patient: a nested choice needs at least two; give a threshold instead")
    with np.errstate(invalid="ignore"):
        curves = (above.sum(axis=0) - above) / (below.sum(axis=0) - below)
    chosen = THRESHOLDS[[_find_best(curve) for curve in curves]]
    place = {group: number for number, group in enumerate(groups)}
    reason = f"for each of {len(groups)} patients on the others, from {chosen.min():g} to {chosen.max():g}"
    return chosen[[place[group] for group in counts.groups]], reason


def save_threshold(path: Path | str, choice: Choice, *, note: str = "") -> Path:
    """Writes threshold.json, with its origin and the time; the file is there whole or not at all. Returns the path."""
    path = Path(path)
    path = path / FILE if path.is_dir() else path
    content = asdict(replace(choice, note=note or choice.note))
    created = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        write_json(path, {"format": 1, "created": created} | content)
    except OSError as error:
        raise LabError(f"{path} cannot be written ({error.strerror}); choose another place") from None
    return path


def read_threshold(path: Path | str) -> Choice:
    """Reads what `save_threshold` wrote (a file, or the folder that it is in); LabError for anything else."""
    path = Path(path)
    path = path / FILE if path.is_dir() else path
    content = read_json(path)
    try:
        HASHES.validate_python(content["origin"].get("images", []))
        # NaN is written as null; both ends of `flat` were, of a threshold that was set by eye
        return CHOICE.validate_python({n: value for n, value in content.items() if value not in (None, [None, None])})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LabError(f"{path} is not a threshold.json ({tell_fault(error)}); save the threshold again") from None


def take_threshold(asked: str | Path) -> Choice:
    """A threshold as a person gives it: a number, or a threshold.json (or its folder); LabError for anything else."""
    try:
        value = float(str(asked))
    except ValueError:
        value = np.nan
        if (path := find_given(asked)).exists():
            return read_threshold(path)
    if not 0 <= value < 1:
        raise LabError(f"the threshold is {asked}; expected a probability from 0 to {THRESHOLDS[-1]}, or a {FILE}")
    return Choice(value, "as given")


def settle_threshold(asked: str, run: Run, dataset: Dataset, segmenter=None, **how) -> Choice:
    """The threshold to report a run at: the one asked for (`take_threshold`), else the best on the validation split,
    else 0.5 with the reason.

    The validation split's Run lies beside the run. It is made by `segmenter`, where there is one (`how` goes to
    `predict_dataset`); without one it is looked at if it is there and finished. It counts only if it is of the same
    weights, at the same precision, with the same prompt: another precision has another best threshold.
    """
    if asked:
        return take_threshold(asked)
    folder, split = run.folder.with_name(f"{run.folder.name}_val"), run.split
    if split != "test" or "val" not in dataset.splits:
        reason = "there is no validation split to choose it on" if split == "test" else f'split "{split}" is reported'
        return Choice(0.5, reason, origin={"default": True})
    if segmenter is not None:
        beside = {"role": "validation", "of": run, "track": run.meta.get("tracked") or False}
        predict_dataset(segmenter, dataset, folder=folder, split="val", **beside, **how)
    val = next(iter(find_beside(run, "validation")), None)
    if val is None:
        return Choice(0.5, "the validation split was not predicted", origin={"default": True})
    choice = choose_threshold(count_run(val, dataset))
    if val.maker.code == run.maker.code:
        return choice
    return replace(choice, note=f"the validation split was predicted by other code ({val.maker.code})")


def refuse_seen(choice: Choice, run: Run, *, allow: bool = False) -> str:
    """Refuses a threshold that was chosen on images of `run`: LabError, or with `allow` the sentence to say instead.

    "" where no image is shared. Images are told by the hashes of their bytes, so renamed copies are found.
    """
    chosen_on = set(choice.origin.get("images", ()))
    shared = sum(record["image_sha256"] in chosen_on for record in run.records)
    if not shared:
        return ""
    said = f"the threshold {choice.value:g} was chosen on {shared} of the {len(run.records)} images reported"
    if not allow:
        raise LabError(f"{said}; choose it on other patients (the validation split), or allow it and have it said")
    return said


def weigh_threshold(choice: Choice, table: pd.DataFrame, counts: Counts) -> dict:
    """What a threshold is worth on the reported images: its Dice, Dice at 0.5, their paired difference and interval.

    "origin": "validation", "given" (by hand or file) or "default". Where none was chosen, for want of a validation
    split, it is the nested one: each patient at the threshold that is best on all others; "value" is then their median.
    "sweeps": whether any pixel changes between 0.05 and 0.95.
    """
    named = "default" if choice.origin.get("default") else "given"
    named = "validation" if choice.origin.get("split") == "val" else named
    told = {"value": choice.value, "origin": named, "rule": choice.rule, "reason": choice.reason}
    scores = table["dice"]
    if named == "default" and len(set(counts.groups)) > 1:
        places, reason = nest_thresholds(counts)
        told |= {"value": float(np.median(places)), "origin": "nested", "reason": reason}
        scores = table["id"].map(_score(counts, places))
    half = table["id"].map(_score(counts, 0.5))
    found = compare_paired(scores, half, table["group"])
    above = counts.tp + counts.fp
    told["sweeps"] = not above[:, 50].any() or bool((above[:, 50] != above[:, 950]).any())
    told |= {"dice": float(scores.mean()), "dice_at_half": float(half.mean())}
    return told | {"difference": found.mean, "low": found.low, "high": found.high}


def _score(counts: Counts, threshold) -> dict[str, float]:
    return dict(zip(counts.ids, compute_scores(**counts.at(threshold), metrics=["dice"])["dice"], strict=True))


def calibrate(counts: Counts) -> tuple[np.ndarray, np.ndarray]:
    """Middle of each of STEPS bars of probability, and the share of its pixels that are truth; both (STEPS,)."""
    edges = np.arange(0, BINS, BINS // STEPS)
    inside, all_of = (np.append(total, 0) for total in (counts.tp.sum(0)[edges], (counts.tp + counts.fp).sum(0)[edges]))
    with np.errstate(invalid="ignore", divide="ignore"):
        return (edges + BINS / STEPS / 2) / BINS, -np.diff(inside) / -np.diff(all_of)


def _sum_groups(counts: Counts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The groups' names, and by group sums of Dice and numbers of images that have one, float64 (n_groups, 1000)."""
    scores = counts.scores()
    return sum_groups(counts.groups, np.nan_to_num(scores), np.isfinite(scores))


def _find_best(curve: np.ndarray) -> int:
    best = np.nanmax(curve) if np.isfinite(curve).any() else np.nan
    ties = np.flatnonzero(curve == best) if np.isfinite(best) else np.arange(BINS)
    return int(ties[np.argmin(np.abs(ties - BINS // 2))])
