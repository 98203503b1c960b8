"""What the findings about a Run mean, in sentences: one for an alarm, one for what was looked at and not seen."""

from __future__ import annotations

from sa2va_lab.evaluation.honesty import Finding
from sa2va_lab.language import join_words, tr
from sa2va_lab.views.tables import Table, tabulate_facts

ALWAYS = {
    # kind: the one thing that it says
    "unsealed": "The Run has no seal, so no edit can be told: it is older than seals, or it was taken off.",
    "unknown_split": "The Run says that it is of split “{split}”; the data set has: {known}.",
    "unfinished": "{n} of the {of} images asked for have no line yet: the Run is unfinished.",
    "truth_over_own": "{n} of {of} ground truths were drawn by hand over a prediction of this very model: a part of "
    "the agreement is the model's with itself.",
    "truth_over_other": "{n} of {of} ground truths were drawn by hand over a prediction of another model ({models}).",
    "made_here": "Made in this very report: the model predicted all {of} images just now.",
    "made_again": "Verified: {n} of {of} images, drawn by lot after the Run was finished, were made again, bit for bit "
    "the same. A forgery of a third of the images ({third}) would have been missed in {missed:.2%} of such draws.",
    "made_again_nearly": "Verified: {n} of {of} images, drawn by lot after the Run was finished, were made again; the "
    "largest difference of a logit is {largest:.1e}, and rounding explains {explained:.1e}, measured on these images. "
    "A forgery of a third of the images ({third}) would have been missed in {missed:.2%} of such draws.",
    "made_otherwise": "Verification failed: of {n} images, drawn by lot from {of} and made again, {odd} are not what "
    "this model says ({names}).",
    "made_unexplained": "Not verified: {n} of {of} images were made again, and no bit pattern is the same (largest "
    "difference of a logit {largest:.1e}); what rounding explains could not be measured here. sa2va-lab verify RUN "
    "--model CHECKPOINT --data DATA does so.",
    "not_verified": "Not verified: this Run was only looked at. sa2va-lab verify RUN --model CHECKPOINT --data DATA "
    "makes some of its {of} images again.",
}
SENTENCES = {
    # kind: (where it was seen, where it was not)
    "edited": (
        "The Run was changed after it was finished: {files}.",
        "The Run is as it was when it was finished, by its seal, which names edits and does not say who made the Run.",
    ),
    "selected_images": (
        "The Run's {asked} images are not an even choice from the {of} of split “{split}” ({n} of them should not "
        "be there): they may be hand-picked.",
        "The images are the split's {of}, all of them or evenly spread, by the data set's own list.",
    ),
    "lines_missing": (
        "{n} of the {of} images asked for have no line, though the Run was finished: they were taken out.",
        "All {of} images asked for have their line.",
    ),
    "image_unhashed": (
        "{n} of {of} lines do not say which image they are of: its hash was taken out.",
        "Every line names its image by its bytes, and they are the data set's ({of} compared).",
    ),
    "other_manifest": (
        "The Run was made on other images, words or ids than the data set has now.",
        "Images, words and ids are those that the Run was made on ({of} images).",
    ),
    "other_splits": (
        "The data set's splits are not those of the day when the Run was made.",
        "The data set's {n} splits are those of the day when the Run was made.",
    ),
    "image_repeated": (
        "{n} of {of} images occur more than once, byte for byte: N is smaller than it says.",
        "All {of} images are different ones.",
    ),
    "mask_without_seg": (
        "In {n} of {of} images there is a mask that the answer does not name, or a name without a mask.",
        "Every mask belongs to a [SEG] of its answer; an answer without one counts as an empty mask.",
    ),
    "failed_images": (
        "{n} of {of} images failed and are in no mean: the rest may be the easy ones.",
        "{n} of {of} images failed.",
    ),
    "hash_mismatch": (
        "{n} of {of} predictions on disk are not what was predicted: their hashes differ.",
        "All predictions on disk have the hash of the day they were made.",
    ),
    "train_test_leak": (
        "{n} of {of} images are in the training part ({train} images), as they are or as near copies.",
        "None of {of} images is in the training part that the data set names ({train} images), by hash or by likeness.",
    ),
    "threshold_tuned_on_test": (
        "The threshold was chosen on images that are reported here: the number is too good.",
        "The threshold was chosen on {n} other images.",
    ),
    "threshold_contradicts": (
        "What the threshold says of itself does not fit the data and this Run: {why}.",
        "What the threshold says of itself fits the data and this Run ({n} images).",
    ),
    "same_model": (
        "{other} is no other model, or not one that was asked otherwise (they differ in: {apart}): the same logits "
        "in {n} of {of} images, nearly the same in {near}.",
        "{other} is another model, or the same one asked otherwise (they differ in: {apart}): the same logits in "
        "{n} of {of} images, nearly the same in {near}.",
    ),
    "identical_to_truth": (
        "Worth a look: {n} of {of} masks equal the annotation pixel for pixel. Predicting again settles it "
        "(sa2va-lab verify).",
        "No mask equals its annotation ({of} looked at).",
    ),
    "repeated_predictions": (
        "Worth a look: {n} of {of} predictions occur more than once, for different images. Predicting again "
        "settles it (sa2va-lab verify).",
        "All {of} predictions are different ones.",
    ),
}


def describe_finding(finding: Finding) -> str:
    """What was seen, or looked at and not seen, in English; pages say it with `tr`."""
    seen, clean = SENTENCES.get(finding.kind) or [ALWAYS[finding.kind]] * 2
    return (seen if finding.alarm or finding.look else clean).format(**finding.values)


def verification_table(finding: Finding) -> Table:
    """What was made again, and what it takes to draw the same images once more."""
    facts = {"Made again?": tr(describe_finding(finding))}
    if ids := finding.values.get("ids"):
        facts |= {"Images drawn": join_words(ids), "Drawn at (UTC)": finding.values["time"]}
        facts |= {"Digest of the Run": finding.values["digest"], "Seed": finding.values["seed"]}
    return tabulate_facts(facts)


def report_finding(finding: Finding) -> dict:
    """For metrics.json."""
    about = {"kind": finding.kind, "alarm": finding.alarm, "look": finding.look}
    return about | {"sentence": describe_finding(finding), "values": finding.values}
