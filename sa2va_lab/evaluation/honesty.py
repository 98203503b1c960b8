"""Whether numbers can be believed: a Run held against its data set, and hints that are worth a look.

What a Run says of itself is not believed where the data can say it: the split is looked up in the data, images are told
by their bytes, and what should be there is counted. None of this proves honesty. An alarm is a fact that does not add
up. A hint is a signature in the masks; benchmarks/hints.py measures how often each accuses honest evaluations, and one
that did so in more than 1 % is not here. What settles a doubt is to predict again (`evaluation.verification`). What a
finding means is said where pages are (`views.findings`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from sa2va_lab.datasets.samples import Dataset
from sa2va_lab.datasets.splits import find_near_duplicates, fingerprint_dataset
from sa2va_lab.errors import LabError
from sa2va_lab.evaluation.metrics import match_samples, pair_up
from sa2va_lab.evaluation.thresholds import Choice, refuse_seen
from sa2va_lab.files import hash_splits
from sa2va_lab.paths import is_demo_data
from sa2va_lab.runs import Run, choose_samples
from sa2va_lab.runs.read import list_edits

MOST_FAILED = 0.05  # share of failed images above which the rest may be the easy ones
ALIKE = 1e-3  # of the spread of an image's logits: two models differ by more, one model's copies by less
HALF = 0.5
LEAST_RIM = 100  # border pixels of a truth that nobody meets by luck


@dataclass(frozen=True)
class Finding:
    """kind: what was looked for. alarm: whether it was seen, and no number counts until it is explained. look: whether
    something was seen that is worth a look and proves nothing. values: numbers, and ids of samples."""

    kind: str
    alarm: bool
    values: dict
    look: bool = False


def sort_findings(found: Iterable[Finding]) -> list[Finding]:
    """Alarms first, then what is worth a look."""
    return sorted(found, key=lambda finding: (not finding.alarm, not finding.look))


def account_for(run: Run, dataset: Dataset) -> list[Finding]:
    """What does not add up between a Run and the whole data set that it was made on; each kind is in the list, seen or
    not. Logits are left to whoever reads them."""
    records, total = run.records, len(run.sample_ids)
    images = [record["image_sha256"] for record in records if record["image_sha256"]]
    unhashed = [record["id"] for record in records if record["error"] is None and not record["image_sha256"]]
    answered = [record for record in records if record["n_seg"] is not None]
    odd = [record["id"] for record in answered if (record["n_seg"] > 0) != ("[SEG]" in record["answer"])]
    manifest = dataset.select(run.sample_ids).manifest_sha256 == run.meta["dataset"]["manifest_sha256"]
    splits = run.meta["dataset"].get("splits_sha256") in (None, hash_splits(dataset.splits))
    again, failed = len(images) - len(set(images)), run.failed_ids
    return [
        *_find_edits(run),
        *_find_picked(run, dataset),
        _find_missing(run),
        Finding("image_unhashed", bool(unhashed), {"n": len(unhashed), "of": len(records), "ids": unhashed}),
        Finding("other_manifest", not manifest, {"of": total}),
        Finding("other_splits", not splits, {"n": len(dataset.splits)}),
        Finding("image_repeated", again > 0, {"n": again, "of": len(images)}),
        Finding("mask_without_seg", bool(odd), {"n": len(odd), "of": total, "ids": odd}),
        Finding("failed_images", len(failed) > MOST_FAILED * total, {"n": len(failed), "of": total, "ids": failed}),
        find_leak(run, dataset),
        *_find_origins(run, dataset),
    ]


def _find_edits(run: Run) -> list[Finding]:
    """Whether the seal holds; edits that were there when a Run was gone on with stay in its own list of starts."""
    edits, before = list_edits(run), [name for start in run.meta["resumed"] for name in start.get("edited", ())]
    if files := ", ".join(dict.fromkeys([*(edits or []), *before])):
        return [Finding("edited", True, {"files": files})]
    if edits is None:
        return [Finding("unsealed", False, {}, look=True)] if run.meta["finished"] else []
    return [Finding("edited", False, {"files": ""})]


def _find_picked(run: Run, dataset: Dataset) -> list[Finding]:
    """Whether the split that the Run names is one of the data set's, and its images are that split, or evenly spread
    over it."""
    split, asked = run.split, set(run.sample_ids)
    try:
        whole = dataset if dataset.split_name == split else dataset.split(split)
    except LabError:
        return [Finding("unknown_split", True, {"split": split, "known": ", ".join(sorted(dataset.splits)) or "none"})]
    expected = {sample.id for sample in choose_samples(whole, len(asked))[0]}
    values = {"n": len(asked - expected), "of": len(whole), "asked": len(asked), "split": split}
    return [Finding("selected_images", asked != expected, values)]


def _find_origins(run: Run, dataset: Dataset) -> list[Finding]:
    """Truths that a person drew over a prediction: of this very model, or of another one."""
    over = {sample.id: sample.origin for sample in dataset.select(run.sample_ids) if sample.origin}
    own = [name for name, origin in over.items() if origin["weights_sha256"] == run.maker.weights]
    values = {"of": len(run.sample_ids)}
    found = [Finding("truth_over_own", True, values | {"n": len(own), "ids": own})] if own else []
    if others := sorted(over.keys() - set(own)):
        models = ", ".join(sorted({str(over[name].get("model", "")) for name in others}))
        found.append(Finding("truth_over_other", False, values | {"n": len(others), "models": models}, look=True))
    return found


def _find_missing(run: Run) -> Finding:
    """Images that were asked for and have no line: lost from a finished Run, not there yet in an unfinished one."""
    missing = sorted(set(run.sample_ids) - {record["id"] for record in run.records})
    finished = run.meta["finished"] is not None
    values = {"n": len(missing), "of": len(run.sample_ids), "ids": missing}
    kind = "lines_missing" if finished else "unfinished"
    return Finding(kind, bool(missing) and finished, values, look=bool(missing) and not finished)


def find_leak(run: Run, dataset: Dataset) -> Finding:
    """Images of the Run that are in the training part: the same, byte for byte, or hardly to be told apart."""
    train = dataset.select(dataset.splits.get("train", ()))
    reported = set(run.sample_ids)
    named = reported & {sample.id for sample in train}
    hashes = {sample.image_sha256() for sample in train} - {None}
    same = {record["id"] for record in run.records if record["image_sha256"] in hashes}
    rest = dataset.select(reported - named - same)
    alike = find_near_duplicates(fingerprint_dataset(rest), fingerprint_dataset(train)) if len(train) else []
    ids = sorted(named | same | {pair.first for pair in alike})
    return Finding("train_test_leak", bool(ids), {"n": len(ids), "of": len(reported), "train": len(train), "ids": ids})


def find_contradictions(choice: Choice, run: Run, dataset: Dataset) -> Finding:
    """A threshold's own words about where it was chosen, held against the data set and the maker of the Run."""
    origin, own, why = choice.origin, run.maker, []
    listed = origin.get("images", [])
    there = {sample.image_sha256(): sample for sample in dataset}
    known = [there[image] for image in listed if image in there]
    for name, value, said in (
        ("weights_sha256", own.weights, "it was chosen for other weights"),
        ("precision", own.precision, "it was chosen for another number format"),
        ("prompt", own.prompt, "it was chosen for another prompt"),
        ("tracking", own.tracking, "it was chosen for films that were followed in another way"),
    ):
        why += [] if origin.get(name) in (None, value) else [said]
    if not listed or choice.n_images > len(listed):
        why.append(f"it counts {choice.n_images} images and lists {len(listed)}")
    if len(known) == len(listed) and choice.n_groups > (groups := len({sample.group for sample in known})):
        why.append(f"it counts {choice.n_groups} patients and lists images of {groups}")
    inside = set(dataset.splits.get(split := str(origin.get("split")), ()))
    if split in dataset.splits and (outside := len(listed) - sum(sample.id in inside for sample in known)):
        why.append(f"{outside} of its images are not in the split {split} that it names")
    return Finding("threshold_contradicts", bool(why), {"why": ", ".join(why), "n": len(listed)})


def find_twin(run: Run, other: Run) -> Finding:
    """Two Runs shown as two: whether they are one model asked one thing, or say the same as no two models do.

    n, near: images with the very same logits, and with logits that differ by less than ALIKE of their spread, of those
    that both hold with a mask. One model at two precisions, or asked in two ways, is a comparison; the same bits are
    not, whoever made them.
    """
    masks = [{record["id"] for record in made.records if record["n_seg"]} for made in (run, other)]
    equal = near = 0
    for name in sorted(masks[0] & masks[1]):
        first, second = (made.prediction(name).logits for made in (run, other))
        if first.shape == second.shape and np.ptp(first) > 0:
            apart = float(np.abs(first - second).max())
            equal, near = equal + (apart == 0), near + (0 < apart < ALIKE * float(first.std()))
    differences = run.maker.differences(other.maker)
    copied = "weights" in differences and equal + near > HALF * len(masks[0] & masks[1])
    values = {"n": equal, "near": near, "of": len(masks[0] & masks[1]), "other": other.folder.name}
    values["apart"] = ", ".join(differences) or "nothing"
    return Finding("same_model", not differences or equal > 0 or copied, values)


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
        truth = np.zeros((1, 1), bool) if pair.truth is None else pair.truth
        if np.count_nonzero(truth & ~ndimage.binary_erosion(truth)) >= LEAST_RIM:
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
