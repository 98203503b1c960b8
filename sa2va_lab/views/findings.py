"""What the findings about a Run mean, in sentences: one for an alarm, one for what was looked at and not seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sa2va_lab.evaluation.honesty import Finding

SENTENCES = {
    # kind: (where it is an alarm, where it is not)
    "identical_to_truth": (
        "{n} of {of} masks equal the annotation pixel for pixel: the ground truth was very likely copied.",
        "No mask equals its annotation ({of} looked at).",
    ),
    "derived_by_morphology": (
        "{n} of {of} masks are the annotation itself on the model's grid: copied, eroded, dilated or shifted.",
        "{n} of {of} masks look like an eroded, dilated, opened, closed or shifted annotation.",
    ),
    "one_sided_error": (
        "In {n} of {of} images the mask lies exactly inside the annotation, or holds all of it: it was very "
        "likely made from it.",
        "In {n} of {of} images the mask is wrong on one side of the annotation's border only.",
    ),
    "isolated_pixel_error": (
        "In {n} of {of} images most wrong pixels stand alone: an annotation with noise on it, not a model's mistakes.",
        "In {n} of {of} images most wrong pixels stand alone; elsewhere they lie together, as a model's do.",
    ),
    "few_logit_values": (
        "In {n} of {of} images the logits hold a handful of values only: masks that somebody cut before, so no "
        "threshold can be swept.",
        "In {n} of {of} images the logits hold a handful of values only; elsewhere probabilities are graded.",
    ),
    "constant_probability": (
        "In {n} of {of} images every pixel has the same probability.",
        "No image has one probability for all pixels ({of} looked at).",
    ),
    "hash_mismatch": (
        "{n} of {of} predictions on disk are not what was predicted: their hashes differ.",
        "All predictions on disk have the hash of the day they were made.",
    ),
    "mask_without_seg": (
        "In {n} of {of} images there is a mask that the answer does not name, or a name without a mask.",
        "Every mask belongs to a [SEG] of its answer; an answer without one counts as an empty mask.",
    ),
    "failed_images": (
        "{n} of {of} images failed and are in no mean: the rest may be the easy ones.",
        "{n} of {of} images failed.",
    ),
    "threshold_insensitive": (
        "No pixel changes between the thresholds 0.05 and 0.95: nothing was swept.",
        "Masks change with the threshold: {n:,} pixels above 0.05, {of:,} above 0.95.",
    ),
    "duplicate_predictions": (
        "{n} of {of} images, or whole predictions, occur more than once: N is smaller than it says.",
        "All {of} images and predictions are different ones.",
    ),
    "selected_images": (
        "{n} images are not those that an even choice from the split's {of} would be: they may be hand-picked.",
        "The images are the split's {of}, all of them or evenly spread.",
    ),
    "train_test_leak": (
        "{n} of {of} images are in the training part ({train} images), as they are or as near copies.",
        "None of {of} images is in the training part that the data set names ({train} images), by hash or by likeness.",
    ),
    "threshold_tuned_on_test": (
        "The threshold was chosen on images that are reported here: the number is too good.",
        "The threshold was chosen on {n} other images.",
    ),
    "same_model": (
        "The “other” model {other} has the same weights or gives the same prediction in {n} of {of} images: "
        "nothing is compared.",
        "{other} is another model: other weights, and equal predictions in {n} of {of} images.",
    ),
}


def describe_finding(finding: Finding) -> str:
    """What was seen, or looked at and not seen, in English; pages say it with `tr`."""
    alarm, clean = SENTENCES[finding.kind]
    return (alarm if finding.alarm else clean).format(**finding.values)


def report_finding(finding: Finding) -> dict:
    """For metrics.json."""
    about = {"kind": finding.kind, "alarm": finding.alarm}
    return about | {"sentence": describe_finding(finding), "values": finding.values}
