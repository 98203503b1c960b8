"""Whether numbers can be believed: accounting against the data set, and hints that are worth a look.

None of this proves honesty. An alarm is a fact that does not add up. A hint is a signature in the masks;
benchmarks/hints.py measures how often each accuses honest evaluations, and one that did so in more than 1 % is not
here. What settles a doubt is to predict again (`evaluation.verification`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from sa2va_lab.errors import LabError
from sa2va_lab.evaluation.accounting import Finding, account_for, find_contradictions, find_twin, sort_findings
from sa2va_lab.evaluation.matching import match_samples, pair_up
from sa2va_lab.evaluation.thresholds import Choice, refuse_seen
from sa2va_lab.paths import is_demo_data

if TYPE_CHECKING:
    from sa2va_lab.datasets.samples import Dataset
    from sa2va_lab.runs.read import Run

LEAST_RIM = 100  # border pixels of a truth that nobody meets by luck


def check_run(
    run: Run, dataset: Dataset, *, choice: Choice | None = None, others: Sequence[Run] = (), threshold: float = 0.5
) -> list[Finding]:
    """All findings about a run: alarms first, then what is worth a look.

    dataset: the whole data set, so that its splits can be looked at. choice: the threshold; one that was given as a
    number has no origin to look at. others: runs that are shown beside this one as other models. Raises LabError as
    `evaluate_run` does.
    """
    damaged, copied, judged, seen = [], [], 0, []
    for sample, record in match_samples(run, dataset):
        if record is None or record["error"]:
            continue
        try:
            prediction = run.prediction(sample.id)
        except LabError:
            damaged.append(sample.id)
            continue
        if prediction.n_seg and np.ptp(prediction.logits) > 0:
            seen.append(record["logits_sha256"])
        pair = pair_up(prediction, sample)
        if pair.truth is not None and np.count_nonzero(_rim(pair.truth)) >= LEAST_RIM:
            judged += 1
            copied += [sample.id] if np.array_equal(pair.mask(threshold), pair.truth) else []
    again = len(seen) - len(set(seen))
    found = account_for(run, dataset)
    found += [
        Finding("hash_mismatch", bool(damaged), {"n": len(damaged), "of": len(run.records), "ids": damaged}),
        Finding("identical_to_truth", False, {"n": len(copied), "of": judged, "ids": copied}, look=bool(copied)),
        Finding("repeated_predictions", False, {"n": again, "of": len(seen)}, look=again > 0),
        *(find_twin(run, other) for other in others),
    ]
    if choice is not None and (choice.n_images or choice.origin.keys() & {"images", "split"}):
        seen_before = bool(refuse_seen(choice, run, allow=True))
        found.append(Finding("threshold_tuned_on_test", seen_before, {"n": choice.n_images}))
        found.append(find_contradictions(choice, run, dataset))
    return sort_findings(found)


def _rim(mask: np.ndarray) -> np.ndarray:
    return mask & ~ndimage.binary_erosion(mask)


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
