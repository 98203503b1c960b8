"""Signatures of numbers that should not be believed: each is looked for in every report, and named with what was seen.

None of this proves honesty. A finding says what was seen; a clean one says what was looked at and not seen. The
sentences are made where pages are (`views.findings`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from scipy import ndimage

from sa2va_lab.datasets.likeness import find_near_duplicates, fingerprint_dataset
from sa2va_lab.errors import LabError
from sa2va_lab.evaluation.matching import Pair, match_samples, pair_up
from sa2va_lab.evaluation.thresholds import Choice, count_image, refuse_seen
from sa2va_lab.paths import is_demo_data
from sa2va_lab.runs import choose_samples

if TYPE_CHECKING:
    from sa2va_lab.datasets.samples import Dataset
    from sa2va_lab.runs.read import Run

LEAST_RIM = 100  # border pixels of a truth that nobody meets by luck
ALIKE = 0.985  # IoU on the model's own grid that no model reaches on such a truth
LONELY = 0.5  # share of wrong pixels without a wrong neighbour: noise has .6 and more, a model's errors lie together
LEAST_ERRORS = 30
FEW_VALUES = 3  # different logits in a whole mask
MOST_FAILED = 0.05
HALF = 0.5
SHARES = {  # an alarm when it is seen in more than this share of the images
    "identical_to_truth": 0,
    "derived_by_morphology": HALF,
    "one_sided_error": HALF,
    "isolated_pixel_error": HALF,
    "few_logit_values": HALF,
    "constant_probability": 0,
    "hash_mismatch": 0,
    "mask_without_seg": 0,
    "failed_images": MOST_FAILED,
}
FROM_TRUTH = tuple(SHARES)[:4]  # looked for only where a truth has LEAST_RIM border pixels


@dataclass(frozen=True)
class Finding:
    """kind: what was looked for. alarm: whether it was seen. values: numbers, and ids of samples."""

    kind: str
    alarm: bool
    values: dict


def check_run(
    run: Run, dataset: Dataset, *, choice: Choice | None = None, others: Sequence[Run] = (), threshold: float = 0.5
) -> list[Finding]:
    """All findings about a run, alarms first.

    dataset: the whole data set, so that its training part can be looked at. choice: the threshold's origin, if it was
    chosen. others: runs that are shown beside this one as other models. Raises LabError as `evaluate_run` does.
    """
    seen: dict[str, list[str]] = {}
    total = judged = 0
    moves = np.zeros(2)
    for sample, record in match_samples(run, dataset):
        total += 1
        if record is None or record["error"]:
            if record is not None:
                seen.setdefault("failed_images", []).append(sample.id)
            continue
        try:
            prediction = run.prediction(sample.id)
        except LabError:
            seen.setdefault("hash_mismatch", []).append(sample.id)
            continue
        if (prediction.n_seg > 0) != ("[SEG]" in record["answer"]):
            seen.setdefault("mask_without_seg", []).append(sample.id)
        pair = pair_up(prediction, sample)
        cells = _count_cells(pair, prediction.logits.shape[-1])
        kinds = _look_at_logits(prediction.logits[:, cells])
        if pair.truth is not None and prediction.n_seg:
            inside, outside = count_image(pair.probability, pair.truth)
            moves += inside[[50, 950]] + outside[[50, 950]]
            if np.count_nonzero(_rim(pair.truth)) >= LEAST_RIM:
                judged += 1
                kinds |= _look_at_truth(prediction.logits.max(axis=0), pair, cells, threshold)
        for kind in kinds:
            seen.setdefault(kind, []).append(sample.id)
    found = []
    for kind, share in SHARES.items():
        ids, of = seen.get(kind, []), judged if kind in FROM_TRUTH else total
        found.append(Finding(kind, len(ids) > share * of, {"n": len(ids), "of": of, "ids": ids}))
    still = bool(moves[0]) and moves[0] == moves[1]
    found.append(Finding("threshold_insensitive", still, {"n": int(moves[0]), "of": int(moves[1])}))
    found += [_find_repeated(run), _find_picked(run, dataset), _find_leak(run, dataset)]
    if choice is not None:
        seen_before = bool(refuse_seen(choice, run, allow=True))
        found.append(Finding("threshold_tuned_on_test", seen_before, {"n": choice.n_images, "of": total}))
    for other in others:
        found.append(find_twin(run, other))
    return sorted(found, key=lambda finding: not finding.alarm)


def _count_cells(pair: Pair, grid: int) -> np.ndarray:
    """bool (grid, grid): the cells of the model's own grid of which no pixel is ignored."""
    if pair.ignore is None:
        return np.ones((grid, grid), bool)
    picture = Image.fromarray(pair.ignore.astype(np.float32))
    return np.asarray(picture.resize((grid, grid), Image.Resampling.BOX)) < 1e-6


def _look_at_logits(logits: np.ndarray) -> set[str]:
    """logits: float32 (n_seg, cells)."""
    if not logits.size:
        return set()
    if np.ptp(logits) < 1e-6:
        return {"constant_probability"}
    return {"few_logit_values"} if any(len(np.unique(mask)) <= FEW_VALUES for mask in logits) else set()


def _look_at_truth(logits: np.ndarray, pair: Pair, cells: np.ndarray, threshold: float) -> set[str]:
    mask, truth = pair.mask(threshold), pair.truth
    if not mask.any():
        return set()
    kinds, wrong = set(), mask ^ truth
    if not wrong.any():
        kinds.add("identical_to_truth")
    both = np.count_nonzero(mask & truth)
    overlap = both / np.count_nonzero(mask | truth)
    if overlap > 0.2 and both in (np.count_nonzero(mask), np.count_nonzero(truth)):
        kinds.add("one_sided_error")
    if np.count_nonzero(wrong) >= LEAST_ERRORS and _share_lonely(wrong) >= LONELY:
        kinds.add("isolated_pixel_error")
    grid = cells & (logits > np.log(threshold / (1 - threshold) if 0 < threshold < 1 else 1))
    smalls = (small & cells for child in _children(truth) for small in _bring_down(child, len(grid)))
    if max(_overlap(grid, small) for small in smalls) >= ALIKE:
        kinds.add("derived_by_morphology")
    return kinds


def _children(truth: np.ndarray):
    """The truth, and what morphology and small shifts make of it."""
    square = np.ones((3, 3), bool)
    yield truth
    for element in (None, square):
        for times in (1, 2, 3):
            yield ndimage.binary_erosion(truth, element, times)
            yield ndimage.binary_dilation(truth, element, times)
        yield ndimage.binary_opening(truth, element)
        yield ndimage.binary_closing(truth, element)
    for step in ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (2, 2), (0, 3), (3, 0)):
        yield np.roll(truth, step, (0, 1))
        yield np.roll(truth, (-step[0], -step[1]), (0, 1))


def _bring_down(mask: np.ndarray, grid: int):
    picture = Image.fromarray(mask.astype(np.float32))
    for how in (Image.Resampling.BOX, Image.Resampling.NEAREST, Image.Resampling.BILINEAR):
        yield np.asarray(picture.resize((grid, grid), how)) > 0.5


def _overlap(first: np.ndarray, second: np.ndarray) -> float:
    either = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / either if either else 0.0


def _share_lonely(wrong: np.ndarray) -> float:
    neighbours = ndimage.convolve(wrong.astype(np.int8), np.ones((3, 3), np.int8), mode="constant")
    return float(np.mean(neighbours[wrong] == 1))


def _rim(mask: np.ndarray) -> np.ndarray:
    return mask & ~ndimage.binary_erosion(mask)


def _find_repeated(run: Run) -> Finding:
    """Images, or whole predictions of different images, that occur more than once."""
    images = [record["image_sha256"] for record in run.records if record["image_sha256"]]
    masks = [record["logits_sha256"] for record in run.records if record["n_seg"]]
    again = max(len(images) - len(set(images)), len(masks) - len(set(masks)))
    return Finding("duplicate_predictions", again > 0, {"n": again, "of": len(run.records)})


def _find_picked(run: Run, dataset: Dataset) -> Finding:
    """Whether the run's images are the split, or evenly spread over it, as it says."""
    asked, split = set(run.sample_ids), run.meta["dataset"]["split"]
    if dataset.split_name == split:
        whole = dataset
    elif split == "all" or split in dataset.splits:
        whole = dataset.split(split)
    else:
        whole = dataset.select(asked)
    expected = {sample.id for sample in choose_samples(whole, len(asked))[0]}
    return Finding("selected_images", asked != expected, {"n": len(asked - expected), "of": len(whole)})


def _find_leak(run: Run, dataset: Dataset) -> Finding:
    """Images of the run that are in the training part: the same, byte for byte, or hardly to be told apart."""
    train = dataset.select(dataset.splits.get("train", ()))
    reported = set(run.sample_ids)
    named = reported & {sample.id for sample in train}
    hashes = {sample.image_sha256() for sample in train} - {None}
    same = {record["id"] for record in run.records if record["image_sha256"] in hashes}
    rest = dataset.select(reported - named - same)
    alike = find_near_duplicates(fingerprint_dataset(rest), fingerprint_dataset(train)) if len(train) else []
    ids = sorted(named | same | {pair.first for pair in alike})
    return Finding("train_test_leak", bool(ids), {"n": len(ids), "of": len(reported), "train": len(train), "ids": ids})


def find_twin(run: Run, other: Run) -> Finding:
    """Two runs shown as two models that have the same weights, or say the very same thing about every image."""
    weights = [made.meta["segmenter"]["weights_sha256"] for made in (run, other)]
    said = [{record["id"]: record["logits_sha256"] for record in made.records} for made in (run, other)]
    shared = [name for name in said[0].keys() & said[1].keys() if said[0][name]]
    equal = sum(said[0][name] == said[1][name] for name in shared)
    alarm = weights[0] == weights[1] or (bool(shared) and equal == len(shared))
    return Finding("same_model", alarm, {"n": equal, "of": len(shared), "other": other.folder.name})


def was_seen(run: Run, dataset: Dataset) -> tuple[str, str]:
    """Whether the Run's images were in training, with the reason in English: "yes", "no", "unknown" or "foreign".

    The data set's own splits decide. "foreign" is the demo model on anything but its own images.
    """
    if run.meta["stamp"] and not is_demo_data(dataset.root):
        return "foreign", "the demo model was trained on the shipped angiograms only"
    train = set(dataset.splits.get("train", ()))
    if not train:
        return "unknown", 'the data set has no split called "train"'
    shared = train.intersection(run.sample_ids)
    return ("yes" if shared else "no"), f'{len(shared)} of {len(run.sample_ids)} images are in the split "train"'
