"""What kind of mistake each wrong pixel is: named kinds, by rules that can be measured.

Every missed or made-up pixel belongs to exactly one kind, so the kinds of an image add up to its error, and "Dice if
this kind were gone" is arithmetic on counts. Lengths are pixels of an image of 512; a larger image has them in
proportion. The centre line is scikit-image's skeleton (Zhang and Suen).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import ndimage

from sa2va_lab.datasets.geometry import find_lines
from sa2va_lab.datasets.samples import Dataset
from sa2va_lab.errors import LabError
from sa2va_lab.evaluation.metrics import compute_scores, evaluate_run, pair_up
from sa2va_lab.runs.read import Run

MISSED = ("no_seg", "gap", "thin", "broad", "tight")  # kinds of false negatives
MADE_UP = ("sparse_truth", "loose", "other_thing", "blob", "beyond")  # kinds of false positives
KINDS = (*MISSED, *MADE_UP)
REACH = 2.0  # px at 512: what lies nearer to the truth than this is a matter of the outline
THIN = 4.0  # px at 512: a vessel up to this width is thin
SPARSE = 5.0  # a truth is nearly empty below 1/5 of what is usual, when the mask holds 5 times as much
SURE = 0.9  # a model that is this sure of a vessel that nobody drew may be right
SUSPECT = 0.2  # so much of the truth's area, surely seen and not drawn, sends a truth to be looked at again
EIGHT = np.ones((3, 3), bool)


@dataclass(frozen=True)
class CentreLine:
    """The centre line of a truth beside a mask, each bool (H, W).

    found: within a pixel of the mask. gap: not found, between two found ends, so the vessel is broken there. lost:
    not found, and the vessel ends there or was not found at all. width: float32 (H, W), px, on the line.
    """

    found: np.ndarray
    gap: np.ndarray
    lost: np.ndarray
    width: np.ndarray

    @property
    def line(self) -> np.ndarray:
        """All of it."""
        return self.found | self.gap | self.lost


def trace_line(mask: np.ndarray, truth: np.ndarray) -> CentreLine:
    """Where the truth's vessels were followed, broken or lost by a mask; two bool (H, W)."""
    line, distance = find_lines(truth)
    width = np.where(line, 2 * distance - 0.5, 0).astype(np.float32)
    found = line & ndimage.binary_dilation(mask, EIGHT)
    pieces, count = ndimage.label(line & ~found, EIGHT)
    rim, _ = ndimage.label(found & ndimage.binary_dilation(pieces > 0, EIGHT), EIGHT)
    near, (rows, columns) = np.pad(rim, 1), np.nonzero(pieces)
    touched = [near[rows + down, columns + right] for down in range(3) for right in range(3)]
    contacts = np.unique([np.tile(pieces[rows, columns], 9), np.concatenate(touched)], axis=1)
    ends = np.bincount(contacts[0, contacts[1] > 0], minlength=count + 1)
    gap = (ends >= 2)[pieces] & (pieces > 0)
    return CentreLine(found, gap, (pieces > 0) & ~gap, width)


def sort_pixels(
    mask: np.ndarray,
    truth: np.ndarray,
    *,
    other: np.ndarray | None = None,
    named: bool = True,
    usual: float = 0.0,
    line: CentreLine | None = None,
) -> np.ndarray:
    """The kind of every wrong pixel: int8 (H, W), a place in KINDS, -1 where the mask is right.

    mask, truth: bool (H, W). other: bool (H, W), where another thing is annotated. named: whether the answer had a
    [SEG]. usual: the truth area, in pixels, that is usual in this data set. line: `trace_line` of the two, if at hand.
    """
    reach = REACH * max(mask.shape) / 512
    kinds = np.full(mask.shape, -1, np.int8)
    missed, made_up = truth & ~mask, mask & ~truth
    if missed.any():
        if not named:
            kinds[missed] = KINDS.index("no_seg")
        else:
            kinds[missed] = _sort_missed(trace_line(mask, truth) if line is None else line, mask.shape)[missed]
    if made_up.any():
        if truth.sum() < usual / SPARSE and mask.sum() > SPARSE * truth.sum():
            kinds[made_up] = KINDS.index("sparse_truth")
            return kinds
        away = ndimage.distance_transform_edt(~truth) if truth.any() else np.full(mask.shape, np.inf)
        pieces, _ = ndimage.label(mask, EIGHT)
        attached = np.isin(pieces, np.unique(pieces[(away <= reach) & mask]))
        elsewhere = np.zeros(mask.shape, bool)
        if other is not None and other.any():
            elsewhere = ndimage.distance_transform_edt(~other) <= reach
        rules = {"loose": away <= reach, "other_thing": elsewhere, "blob": ~attached}
        places = np.select(list(rules.values()), [KINDS.index(kind) for kind in rules], KINDS.index("beyond"))
        kinds[made_up] = places[made_up]
    return kinds


def _sort_missed(line: CentreLine, shape: tuple[int, int]) -> np.ndarray:
    """For every pixel the kind that a miss there has, by the nearest point of the centre line; int8 (H, W)."""
    if not line.line.any():
        return np.full(shape, KINDS.index("thin"), np.int8)
    thin = line.width <= THIN * max(shape) / 512
    kinds = np.select(
        [line.found, line.gap, thin], [KINDS.index(kind) for kind in ("tight", "gap", "thin")], KINDS.index("broad")
    ).astype(np.int8)
    rows, columns = ndimage.distance_transform_edt(~line.line, return_distances=False, return_indices=True)
    return kinds[rows, columns]


def sort_mistakes(run: Run, dataset: Dataset, *, threshold: float = 0.5) -> pd.DataFrame:
    """The mistakes of a Run, a row a sample, in the order of `evaluate_run`, whose columns come first.

    Added columns: a pixel count for each of KINDS; kind, the one with most pixels, None where nothing is wrong or there
    is no truth; line, gaps and lost, px of the centre line; breaks, how many gaps; sure, px with a probability of at
    least SURE that are no matter of the outline and not annotated; suspect, why the truth should be looked at again:
    "empty", "sparse", "sure", "defect" or "". One image is in memory at a time. `attrs` has `usual`, the median truth
    area, and `others`, whether other things are annotated in this data set.
    """
    table = evaluate_run(run, dataset, threshold=threshold)
    samples = {sample.id: sample for sample in dataset.samples}
    areas = table["truth_area"]
    usual = float(areas[areas > 0].median()) if (areas > 0).any() else 0.0
    numbers = [*KINDS, "line", "gaps", "lost", "breaks", "sure"]
    rows, others = [], False
    for row in table.to_dict("records"):
        if not (row["truth_area"] >= 0):  # failed, or nobody annotated it
            rows.append(dict.fromkeys(numbers, math.nan) | {"kind": None, "suspect": ""})
            continue
        sample, prediction = samples[row["id"]], run.prediction(row["id"])
        pair = pair_up(prediction, sample)
        probability, truth, mask = pair.probability, pair.truth, pair.mask(threshold)
        other = find_others(dataset, row["id"], truth.shape)
        others |= other is not None
        line = trace_line(mask, truth)
        kinds = sort_pixels(mask, truth, other=other, named=prediction.n_seg > 0, usual=usual, line=line)
        counts = dict(zip(KINDS, np.bincount(kinds[kinds >= 0], minlength=len(KINDS)).tolist(), strict=True))
        sure = (probability >= SURE) & np.isin(kinds, [KINDS.index(k) for k in ("blob", "beyond", "sparse_truth")])
        counts |= {"line": int(line.line.sum()), "gaps": int(line.gap.sum()), "lost": int(line.lost.sum())}
        counts |= {"breaks": ndimage.label(line.gap, EIGHT)[1], "sure": int(sure.sum())}
        most = max(KINDS, key=lambda kind: counts[kind])
        rows.append(counts | {"kind": most if counts[most] else None, "suspect": _suspect(sample, truth, counts)})
    added = pd.DataFrame(rows, columns=[*numbers, "kind", "suspect"], index=table.index)
    added[numbers] = added[numbers].astype(float)
    added["kind"] = added["kind"].astype(object).where(added["kind"].notna(), None)
    found = pd.concat([table, added], axis=1)
    found.attrs = table.attrs | {"usual": usual, "others": others}
    return found


def _suspect(sample, truth: np.ndarray, counts: dict) -> str:
    if not truth.any() and counts["sure"]:
        return "empty"
    if counts["sparse_truth"]:
        return "sparse"
    if counts["sure"] > SUSPECT * truth.sum():
        return "sure"
    return "defect" if sample.defects else ""


def summarise_mistakes(table: pd.DataFrame) -> list[dict]:
    """For each of KINDS, most pixels first: kind, images (in which it is the largest), any (in which it occurs),
    pixels, share of all wrong pixels, and gain: how far the mean Dice would rise if this kind alone were gone."""
    scored = table[table["dice"].notna()]
    total = scored[list(KINDS)].to_numpy(float).sum()
    found = []
    for kind in KINDS:
        pixels = scored[kind].to_numpy(float)
        tp, fp, fn = (scored[count].to_numpy(float) for count in ("tp", "fp", "fn"))
        mended = (tp + pixels, fp, fn - pixels) if kind in MISSED else (tp, fp - pixels, fn)
        # an image whose whole error was this kind may have no Dice left (nothing there, nothing found): it is perfect
        dice = np.nan_to_num(compute_scores(*mended, np.zeros_like(tp))["dice"], nan=1.0)
        found.append(
            {
                "kind": kind,
                "images": int((scored["kind"] == kind).sum()),
                "any": int((pixels > 0).sum()),
                "pixels": int(pixels.sum()),
                "share": float(pixels.sum() / total) if total else 0.0,
                "gain": float((dice - scored["dice"]).mean()) if len(scored) else math.nan,
            }
        )
    return sorted(found, key=lambda row: (-row["pixels"], KINDS.index(row["kind"])))


def find_others(dataset: Dataset, sample_id: str, size: tuple[int, int]) -> np.ndarray | None:
    """Where anything but the phrase is annotated, bool (H, W) of `size`, False where ignored; None where the data set
    names nothing else."""
    sample = dataset[sample_id]
    drawing = sample.drawings.get(1)
    others = sorted(drawing.phrases.keys() - {dataset.phrase}) if drawing else []
    truths = [truth for phrase in others if (truth := drawing.truth(phrase)) is not None]
    if not truths:
        return None
    try:
        return sample.leave_out(np.any([truth.rasterise(size) for truth in truths], axis=0))
    except LabError as error:
        raise LabError(f"{sample_id}: {error}") from None
