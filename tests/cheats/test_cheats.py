"""Planted cheats, one a function: every one must be found by name, and no honest run accused."""

import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from sa2va_lab.datasets import open_dataset
from sa2va_lab.evaluation.honesty import check_run
from sa2va_lab.evaluation.thresholds import choose_threshold, count_run
from sa2va_lab.prediction import Prediction
from sa2va_lab.runs import open_run

SQUARE = np.ones((3, 3), bool)
CROSS = ndimage.generate_binary_structure(2, 1)


def noised(truth, random, share):
    return truth ^ (random.random(truth.shape) < share)


def shrunk(truth, how, grid=64):
    """The truth on a smaller grid, as logits."""
    small = Image.fromarray(truth.astype(np.float32)).resize((grid, grid), how)
    return 8 * (np.asarray(small, np.float32) - 0.5)


# what a cheat makes of the truth, as logits on a grid of its choice, and the findings of which one must be an alarm
FROM_TRUTH = {
    "copied": (lambda t, r: np.where(t, 9.0, -9.0), {"identical_to_truth"}),
    "copied under soft probabilities": (
        lambda t, r: np.where(t, 2, -2) + r.normal(0, 0.3, t.shape),
        {"identical_to_truth"},
    ),
    "copied through the grid": (lambda t, r: shrunk(t, Image.Resampling.BOX), {"derived_by_morphology"}),
    "copied through the grid, smooth": (lambda t, r: shrunk(t, Image.Resampling.BILINEAR), {"derived_by_morphology"}),
    "copied through the grid, nearest, with noise": (
        lambda t, r: shrunk(t, Image.Resampling.NEAREST) + r.normal(0, 0.5, (64, 64)),
        {"derived_by_morphology"},
    ),
    "eroded": (
        lambda t, r: np.where(ndimage.binary_erosion(t, CROSS), 9.0, -9.0),
        {"derived_by_morphology", "one_sided_error"},
    ),
    "eroded twice": (
        lambda t, r: np.where(ndimage.binary_erosion(t, CROSS, 2), 9.0, -9.0),
        {"derived_by_morphology", "one_sided_error"},
    ),
    "dilated": (
        lambda t, r: np.where(ndimage.binary_dilation(t, CROSS), 9.0, -9.0),
        {"derived_by_morphology", "one_sided_error"},
    ),
    "dilated by a square, soft": (
        lambda t, r: np.where(ndimage.binary_dilation(t, SQUARE, 2), 2, -2) + r.normal(0, 0.3, t.shape),
        {"derived_by_morphology", "one_sided_error"},
    ),
    "opened": (
        lambda t, r: np.where(ndimage.binary_opening(t, SQUARE), 9.0, -9.0),
        {"derived_by_morphology", "one_sided_error"},
    ),
    "shifted": (
        lambda t, r: np.where(np.roll(t, (1, 1), (0, 1)), 2, -2) + r.normal(0, 0.3, t.shape),
        {"derived_by_morphology"},
    ),
    "noised": (lambda t, r: np.where(noised(t, r, 0.02), 2, -2) + r.normal(0, 0.3, t.shape), {"isolated_pixel_error"}),
    "noised more": (
        lambda t, r: np.where(noised(t, r, 0.05), 2, -2) + r.normal(0, 0.3, t.shape),
        {"isolated_pixel_error"},
    ),
    "a part of the truth left out": (
        lambda t, r: np.where(t & (np.arange(t.shape[1]) < 100), 2, -2) + r.normal(0, 0.3, t.shape),
        {"one_sided_error"},
    ),
}


@pytest.mark.parametrize("name", FROM_TRUTH)
def test_a_prediction_made_from_the_truth(name, dataset, predict, honest):
    make, expected = FROM_TRUTH[name]
    random = np.random.default_rng(2)

    class Cheat(honest):
        def predict(self, image, prompt):
            truth = next(sample.truth() for sample in dataset if sample.image == image)
            logits = np.asarray(make(truth, random), np.float32)[None]
            return Prediction(logits, truth.shape, "Sure, [SEG].", canvas=truth.shape[0])

    assert expected & alarms(predict(Cheat(), split="test"), dataset)


def alarms(run, dataset, **how):
    return {finding.kind for finding in check_run(run, dataset, **how) if finding.alarm}


def test_masks_cut_before(dataset, predict, honest):
    class Cheat(honest):
        def predict(self, image, prompt):
            found = super().predict(image, prompt)
            return Prediction(np.where(found.logits > 0, 9, -9).astype(np.float32), found.size, found.answer, canvas=64)

    assert "few_logit_values" in alarms(predict(Cheat(), split="test"), dataset)


def test_a_sweep_that_never_moves(dataset, predict, honest):
    class Cheat(honest):
        def predict(self, image, prompt):
            found = super().predict(image, prompt)
            return Prediction(
                np.where(found.logits > 0, 50, -50).repeat(2, 1).repeat(2, 2).astype(np.float32),
                found.size,
                found.answer,
                canvas=128,
            )

    assert {"threshold_insensitive", "few_logit_values"} <= alarms(predict(Cheat(), split="test"), dataset)


def test_one_probability_everywhere(dataset, predict, honest):
    class Cheat(honest):
        def predict(self, image, prompt):
            return Prediction(np.full((1, 64, 64), -1.5, np.float32), (128, 128), "Sure, [SEG].", canvas=128)

    assert {"constant_probability", "duplicate_predictions"} <= alarms(predict(Cheat(), split="test"), dataset)


def test_one_prediction_for_every_image(dataset, predict, honest):
    first = honest().predict(dataset.samples[0].image, "")

    class Cheat(honest):
        def predict(self, image, prompt):
            return first

    assert "duplicate_predictions" in alarms(predict(Cheat(), split="test"), dataset)


def test_a_mask_that_the_answer_does_not_name(dataset, predict, honest):
    class Cheat(honest):
        def predict(self, image, prompt):
            found = super().predict(image, prompt)
            return Prediction(found.logits, found.size, "There is no blood vessel.", canvas=128)

    assert "mask_without_seg" in alarms(predict(Cheat(), split="test"), dataset)


def test_a_named_mask_that_is_not_there(dataset, predict, honest):
    class Cheat(honest):
        def predict(self, image, prompt):
            found = super().predict(image, prompt)
            return Prediction(found.logits[:0], found.size, "Sure, [SEG].", canvas=128)

    assert "mask_without_seg" in alarms(predict(Cheat(), split="test"), dataset)


def test_hard_images_that_fail(dataset, predict, honest):
    hard = dataset.split("test").samples[0].image

    class Cheat(honest):
        def predict(self, image, prompt):
            if image == hard:
                raise RuntimeError("too hard")
            return super().predict(image, prompt)

    assert "failed_images" in alarms(predict(Cheat(), split="test"), dataset)


def test_images_picked_by_hand(dataset, predict, honest):
    run = predict(honest(), split="test")
    kept = run.sample_ids[1:3]
    meta = run.meta | {"dataset": run.meta["dataset"] | {"samples": kept}}
    (run.folder / "run.json").write_text(json.dumps(meta))
    lines = [json.dumps(record) + "\n" for record in run.records if record["id"] in kept]
    (run.folder / "samples.jsonl").write_text("".join(lines))
    assert "selected_images" in alarms(open_run(run.folder), dataset)


def test_predictions_put_in_place_of_the_run_s(dataset, predict, honest):
    run = predict(honest(), split="test")
    sample = dataset[run.sample_ids[0]]
    better = Prediction(np.where(sample.truth(), 9, -9).astype(np.float32)[None], (128, 128), "", canvas=128)
    (run.folder / "logits" / f"{sample.id}.npz").write_bytes(better.to_bytes())
    assert "hash_mismatch" in alarms(open_run(run.folder), dataset)


def test_a_report_on_the_training_part(dataset, predict, honest):
    assert "train_test_leak" in alarms(predict(honest(), split="train"), dataset)
    assert "train_test_leak" in alarms(predict(honest(), name="all"), dataset)


@pytest.mark.parametrize("recompressed", [False, True])
def test_training_images_under_other_names_in_the_test_part(vessels, tmp_path, predict, honest, recompressed):
    folder = tmp_path / "leaking"
    shutil.copytree(vessels, folder)
    (folder / ".sa2va-lab-key.json").unlink(missing_ok=True)
    splits = json.loads((folder / "splits.json").read_text())
    source, target = (folder / "images" / splits[name][0] for name in ("train", "test"))
    if recompressed:
        buffer = io.BytesIO()
        Image.open(source).save(buffer, "jpeg", quality=80)
        Image.open(buffer).save(target)
        assert source.read_bytes() != target.read_bytes()
    else:
        shutil.copy(source, target)
    data = open_dataset(folder)
    assert "train_test_leak" in alarms(predict(honest(), data=data, split="test"), data)


def test_the_same_image_counted_twice(vessels, tmp_path, predict, honest):
    folder = tmp_path / "twice"
    shutil.copytree(vessels, folder)
    (folder / ".sa2va-lab-key.json").unlink(missing_ok=True)
    names = json.loads((folder / "splits.json").read_text())["test"]
    shutil.copy(folder / "images" / names[0], folder / "images" / names[1])
    data = open_dataset(folder)
    assert "duplicate_predictions" in alarms(predict(honest(), data=data, split="test"), data)


def test_a_threshold_chosen_on_what_is_reported(dataset, predict, honest):
    run = predict(honest(), split="test")
    assert "threshold_tuned_on_test" in alarms(run, dataset, choice=choose_threshold(count_run(run, dataset)))


def test_another_model_that_is_the_same(dataset, predict, honest):
    run, twin = predict(honest(), split="test"), predict(honest(), split="test", name="twin")
    assert "same_model" in alarms(run, dataset, others=[twin])
    renamed = predict(honest("1" * 64), split="test", name="renamed")  # other weights, the very same predictions
    assert "same_model" in alarms(run, dataset, others=[renamed])


def test_honest_runs_are_not_accused(dataset, predict, honest):
    class Blurred(honest):
        def predict(self, image, prompt):
            found = super().predict(image, prompt)
            logits = ndimage.gaussian_filter(found.logits, (0, 1, 1))
            return Prediction(logits, found.size, found.answer, canvas=found.canvas)

    run, other = predict(honest(), split="test"), predict(Blurred("1" * 64), split="test", name="other")
    val = predict(honest(), split="val", name="val")
    choice = choose_threshold(count_run(val, dataset))
    findings = check_run(run, dataset, choice=choice, others=[other])
    assert {finding.kind for finding in findings if finding.alarm} == set()
    assert len(findings) == 15
    assert alarms(other, dataset, threshold=0.3) == set()
    assert alarms(predict(honest(), split="test", limit=3, name="some"), dataset) == set()


def test_an_answer_that_names_nothing_is_no_cheat(dataset, predict, honest):
    class Silent(honest):
        def predict(self, image, prompt):
            found = super().predict(image, prompt)
            return Prediction(found.logits[:0], found.size, "There is no blood vessel.", canvas=128)

    assert alarms(predict(Silent(), split="test"), dataset) == set()
