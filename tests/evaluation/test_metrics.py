"""Metrics: hand-drawn masks with every expected value written out, the policy row by row, whole runs."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from skimage.filters import frangi

from sa2va_lab.datasets import open_dataset
from sa2va_lab.errors import LabError
from sa2va_lab.evaluation import evaluate_run, summarise
from sa2va_lab.evaluation.metrics import COUNTS, METRICS, POLICY, compute_scores, count_pixels
from sa2va_lab.prediction import Prediction
from sa2va_lab.runs import open_run, predict_dataset


def drawn(*rows):
    return np.array([[character == "#" for character in row] for row in rows])


HAND_DRAWN = {
    "shifted by one": (
        drawn("....", ".##.", ".##.", "...."),
        drawn("....", "..##", "..##", "...."),
        {"tp": 2, "fp": 2, "fn": 2, "tn": 10},
        {"dice": 1 / 2, "iou": 1 / 3, "precision": 1 / 2, "recall": 1 / 2, "specificity": 10 / 12},
    ),
    "half of a line found": (
        drawn("....", "##..", "...."),
        drawn("....", "####", "...."),
        {"tp": 2, "fp": 0, "fn": 2, "tn": 8},
        {"dice": 2 / 3, "iou": 1 / 2, "precision": 1.0, "recall": 1 / 2, "specificity": 1.0},
    ),
    "a line drawn too thick": (
        drawn("####", "####", "####"),
        drawn("....", "####", "...."),
        {"tp": 4, "fp": 8, "fn": 0, "tn": 0},
        {"dice": 1 / 2, "iou": 1 / 3, "precision": 1 / 3, "recall": 1.0, "specificity": 0.0},
    ),
    "all right": (
        drawn("#..", ".#.", "..#"),
        drawn("#..", ".#.", "..#"),
        {"tp": 3, "fp": 0, "fn": 0, "tn": 6},
        {"dice": 1.0, "iou": 1.0, "precision": 1.0, "recall": 1.0, "specificity": 1.0},
    ),
    "all wrong": (
        drawn("##", ".."),
        drawn("..", "##"),
        {"tp": 0, "fp": 2, "fn": 2, "tn": 0},
        {"dice": 0.0, "iou": 0.0, "precision": 0.0, "recall": 0.0, "specificity": 0.0},
    ),
}


@pytest.mark.parametrize("name", HAND_DRAWN)
def test_hand_drawn_masks(name):
    mask, truth, counts, scores = HAND_DRAWN[name]
    assert count_pixels(mask, truth) == counts
    assert compute_scores(**counts) == pytest.approx(scores)


KINDS = {
    "none": drawn("...", "...", "..."),
    "some": drawn("##.", "#..", "..."),
    "all": drawn("###", "###", "###"),
}
RATIOS = {  # of the two "some" masks below, and of "some" against "all": written out, not computed
    ("none", "some"): {"specificity": 6 / 9},
    ("some", "some"): {"dice": 4 / 6, "iou": 2 / 4, "precision": 2 / 3, "recall": 2 / 3, "specificity": 5 / 6},
    ("some", "all"): {"dice": 6 / 12, "iou": 3 / 9, "precision": 3 / 9},
    ("all", "some"): {"dice": 6 / 12, "iou": 3 / 9, "recall": 3 / 9},
}


def test_the_policy_has_a_row_for_every_kind_of_image_and_a_value_for_every_metric():
    assert set(POLICY) == {(truth, mask) for truth in KINDS for mask in KINDS}
    assert all(tuple(row) == METRICS for row in POLICY.values())
    ratios = {pair: {name for name in METRICS if POLICY[pair][name] == "ratio"} for pair in POLICY}
    assert {pair: names for pair, names in ratios.items() if names} == {k: set(v) for k, v in RATIOS.items()}


@pytest.mark.parametrize("pair", POLICY, ids=" truth, ".join)
def test_every_row_of_the_policy_is_what_is_computed(pair):
    truth, mask = KINDS[pair[0]], KINDS[pair[1]]
    if pair == ("some", "some"):
        mask = drawn("##.", "...", "..#")
    scores = compute_scores(**count_pixels(mask, truth))
    for metric, stated in POLICY[pair].items():
        expected = RATIOS[pair][metric] if stated == "ratio" else stated
        assert scores[metric] == pytest.approx(expected, nan_ok=True), metric


def test_scores_of_arrays_are_the_scores_of_their_elements():
    counts = np.array([list(case[2].values()) for case in HAND_DRAWN.values()]).T
    together = compute_scores(*counts)
    for place, case in enumerate(HAND_DRAWN.values()):
        assert {name: values[place] for name, values in together.items()} == pytest.approx(case[3])
    assert all(math.isnan(score) for score in compute_scores(1, np.nan, 1, np.nan).values() if score != 0.5)


@pytest.mark.parametrize("truth", [np.zeros((2, 3), bool), np.zeros((2, 2), np.uint8)])
def test_masks_that_do_not_fit_are_refused(truth):
    with pytest.raises(ValueError, match="expected two bool of one shape"):
        count_pixels(np.zeros((2, 2), bool), truth)


@pytest.fixture
def made(make_dataset, make_segmenter, tmp_path):
    """A run over six images in three groups, the data folder, and the data set."""
    root = make_dataset()
    dataset = open_dataset(root)
    return predict_dataset(make_segmenter(), dataset, folder=tmp_path / "run", progress=False), root, dataset


def test_a_run_has_a_row_a_sample(made):
    run, _, dataset = made
    table = evaluate_run(run, dataset)
    assert (
        list(table.columns)
        == (
            "id group phrase error answer n_seg seconds tp fp fn tn dice iou precision recall specificity "
            "truth_area mask_area ignored_area"
        ).split()
    )
    assert list(table["id"]) == [sample.id for sample in dataset]
    assert list(table["group"]) == ["P01", "P01", "P02", "P02", "P03", "P03"]
    assert table["error"].isna().all()
    for row, sample in zip(table.itertuples(), dataset, strict=True):
        mask, truth = run.prediction(sample.id).mask(), sample.truth()
        assert (row.tp, row.fp, row.fn) == ((mask & truth).sum(), (mask & ~truth).sum(), (~mask & truth).sum())
        assert row.tp + row.fp + row.fn + row.tn == mask.size
        assert row.truth_area == truth.sum() == row.tp + row.fn
        assert row.mask_area == mask.sum() == row.tp + row.fp
        assert row.dice == pytest.approx(2 * row.tp / (row.truth_area + row.mask_area))
    assert table["dice"].between(0.6, 0.999).all()  # it finds the dark rectangle, on a coarse grid
    assert table.attrs["threshold"] == 0.5
    assert table.attrs["rasteriser"].startswith("pycocotools ")
    assert table.attrs["stamp"] == "a classical segmenter, no network"
    assert table.attrs["truth_sha256"] == dataset.truth_sha256


def test_a_higher_threshold_finds_less(made):
    run, _, dataset = made
    low, high = (evaluate_run(run, dataset, threshold=threshold) for threshold in (0.1, 0.9))
    assert (low["mask_area"] > high["mask_area"]).all()
    assert high.attrs["threshold"] == 0.9


def test_the_summary_is_of_the_rows(made):
    run, _, dataset = made
    table = evaluate_run(run, dataset)
    summary = summarise(table)
    assert (summary["n_images"], summary["n_groups"]) == (6, 3)
    assert (summary["n_failed"], summary["n_without_truth"], summary["n_without_seg"]) == (0, 0, 0)
    assert summary["threshold"] == 0.5
    assert summary["rasteriser"] == dataset.rasteriser
    assert set(METRICS) < set(summary)
    dice = summary["dice"]
    assert dice["macro"] == pytest.approx(table["dice"].mean())
    assert dice["pooled"] == pytest.approx(
        2 * table["tp"].sum() / (2 * table["tp"].sum() + table["fp"].sum() + table["fn"].sum())
    )
    assert dice["low"] < dice["macro"] < dice["high"]
    assert dice["n"] == 6
    assert "over 3 groups" in dice["reason"]
    assert json.loads(json.dumps(summary)) == summary
    assert summarise(table) == summary
    assert summarise(table)["dice"]["macro"] == dice["macro"]


def test_macro_and_pooled_differ_where_areas_do():
    table = pd.DataFrame(
        {"id": ["P01-V1-F001", "P01-V1-F002"], "group": ["P01", "P02"], "error": [None, None], "n_seg": [1.0, 1.0]}
        | {"tp": [10.0, 300.0], "fp": [0.0, 100.0], "fn": [0.0, 100.0], "tn": [90.0, 500.0]}
        | {"truth_area": [10.0, 400.0]}
    )
    table = table.assign(**compute_scores(*(table[name] for name in ("tp", "fp", "fn", "tn"))))
    summary = summarise(table)
    assert summary["dice"]["macro"] == pytest.approx((1 + 0.75) / 2)
    assert summary["dice"]["pooled"] == pytest.approx(620 / 820)


def test_failures_missing_truths_and_silence_are_counted_and_not_dropped(make_dataset, make_segmenter, tmp_path):
    root = make_dataset()
    names = sorted(path.name for path in (root / "images").iterdir())
    (root / "images" / names[0]).write_bytes(b"no picture")
    annotations = json.loads((root / "annotations.json").read_text())
    (root / "annotations.json").write_text(json.dumps([a for a in annotations if a["image"] != names[1]]))
    Image.new("L", (32, 32), 255).save(root / "images" / names[2])  # nothing dark: the answer names nothing
    dataset = open_dataset(root)
    run = predict_dataset(make_segmenter(), dataset, folder=tmp_path / "run", progress=False)
    table = evaluate_run(run, dataset).set_index("id")
    assert table.loc["P01-V1-F001", "error"].startswith("UnidentifiedImageError")
    assert table.loc["P01-V1-F001", ["tp", "dice", "mask_area", "n_seg"]].isna().all()
    assert table.loc["P01-V1-F002", ["tp", "dice", "truth_area"]].isna().all()
    assert table.loc["P01-V1-F002", "mask_area"] > 0
    assert table.loc["P02-V1-F001", "answer"] == "Nothing here."
    assert table.loc["P02-V1-F001", "dice"] == 0.0
    assert math.isnan(table.loc["P02-V1-F001", "precision"])
    summary = summarise(table.reset_index())
    assert summary["n_images"] == 6
    assert (summary["n_failed"], summary["n_without_truth"], summary["n_without_seg"]) == (1, 1, 1)
    assert (summary["dice"]["n"], summary["precision"]["n"]) == (4, 3)


def test_an_unfinished_run_says_what_is_missing(made):
    run, _, dataset = made
    lines = (run.folder / "samples.jsonl").read_bytes().splitlines(keepends=True)
    (run.folder / "samples.jsonl").write_bytes(b"".join(lines[:4]))
    table = evaluate_run(open_run(run.folder), dataset)
    assert list(table["error"].notna()) == [False] * 4 + [True] * 2
    assert summarise(table)["n_failed"] == 2


def test_nothing_defined_is_nan_and_not_a_number(make_dataset, make_segmenter, tmp_path):
    root = make_dataset(count=2)
    annotations = json.loads((root / "annotations.json").read_text())
    for annotation in annotations:
        annotation |= {"mask": [], "text": []}
    (root / "annotations.json").write_text(json.dumps(annotations))
    (root / "splits.json").unlink()
    with pytest.raises(LabError, match="has not one pixel in any of the 2 images"):
        open_dataset(root, phrase="blood vessel")
    dataset = open_dataset(root, phrase="blood vessel", truths=False)  # as a process that predicts opens it
    run = predict_dataset(make_segmenter(), dataset, folder=tmp_path / "run", prompt="dark 0", progress=False)
    summary = summarise(evaluate_run(run, dataset))
    for metric in ("dice", "iou", "precision", "recall"):
        assert all(math.isnan(summary[metric][number]) for number in ("macro", "pooled", "low", "high"))
        assert summary[metric]["n"] == 0
        assert summary[metric]["reason"].startswith("no interval")
    assert summary["specificity"]["macro"] == 1.0


def test_only_the_data_that_was_predicted_is_evaluated(made):
    run, root, dataset = made
    annotations = json.loads((root / "annotations.json").read_text())
    annotations[0]["text"] = ["catheter"]
    (root / "annotations.json").write_text(json.dumps(annotations))
    with pytest.raises(LabError, match='looked for "blood vessel" but the data set was opened for "catheter"'):
        evaluate_run(run, open_dataset(root, phrase="catheter"))
    with pytest.raises(LabError, match="4 samples that the data set lacks .*P01-V1-F001"):
        evaluate_run(run, dataset.split("test"))
    image = dataset["P02-V1-F001"].image
    Image.open(image).rotate(180).save(image)
    with pytest.raises(LabError, match="image of P02-V1-F001 is not the one that was predicted"):
        evaluate_run(run, dataset)


def test_a_run_over_a_split_is_evaluated_against_the_whole_or_the_part(made, make_segmenter, tmp_path):
    _, _, dataset = made
    run = predict_dataset(make_segmenter(), dataset, folder=tmp_path / "part", split="test", progress=False)
    whole, part = evaluate_run(run, dataset), evaluate_run(run, dataset.split("test"))
    assert list(whole["id"]) == ["P03-V1-F001", "P03-V1-F002"]
    pd.testing.assert_frame_equal(whole[list(METRICS)], part[list(METRICS)])


def test_a_prediction_of_another_size_is_refused(make_dataset, make_segmenter, tmp_path):
    class Careless(make_segmenter):
        def predict(self, image, prompt):
            found = super().predict(image, prompt)
            return Prediction(found.logits, (16, 16), found.answer, canvas=64)

    dataset = open_dataset(make_dataset())
    run = predict_dataset(Careless(), dataset, folder=tmp_path / "run", progress=False)
    with pytest.raises(LabError, match="prediction of P01-V1-F001 is 16x16 but its truth is 32x32"):
        evaluate_run(run, dataset)


class Vesselness:
    """Frangi's filter: a classical vessel segmenter on a 256x256 grid, for real images."""

    provenance = {"weights_sha256": "frangi", "model": "frangi", "stamp": None}

    def predict(self, image, prompt):
        with Image.open(image) as opened:
            green = np.asarray(opened.convert("RGB").resize((256, 256)), np.float32)[..., 1]
        found = frangi(green, sigmas=(2, 3))
        level = np.quantile(found, 0.9)
        logits = (found - level) / (level + 1e-9)
        return Prediction(logits[None].astype(np.float32), (opened.height, opened.width), "[SEG]", canvas=256)


def test_real_images_give_a_run_and_numbers(chasedb1, tmp_path):
    dataset = open_dataset(chasedb1, groups=r"Image_(\d+)")
    run = predict_dataset(Vesselness(), dataset, folder=tmp_path / "run", limit=4, progress=False)
    table = evaluate_run(run, dataset)
    summary = summarise(table)
    assert (summary["n_images"], summary["n_groups"], summary["n_failed"]) == (4, 4, 0)
    assert summary["rasteriser"] == "none: the truths are mask files"
    assert 0.2 < summary["dice"]["low"] <= summary["dice"]["macro"] <= summary["dice"]["high"] < 0.9
    assert 0.8 < summary["specificity"]["macro"] < 1


def test_each_mean_says_its_own_images_and_patients():
    """Two of four images have a Dice, both of one patient: the mean is theirs, whatever the Run holds."""
    nan = math.nan
    counts = {"tp": [1, 1, 0, nan], "fp": [0, 1, 0, nan], "fn": [1, 0, 0, nan], "tn": [2, 2, 4, nan]}
    rows = {"group": ["a", "a", "b", "c"], "error": [None, None, None, "it broke"], "n_seg": [1, 1, 0, nan]}
    table = pd.DataFrame(counts | rows | {"truth_area": [2, 1, 0, nan]}).assign(
        **{name: values for name, values in compute_scores(*(np.array(counts[n]) for n in COUNTS)).items()}
    )
    found = summarise(table)
    assert (found["n_images"], found["n_groups"]) == (4, 3)
    assert (found["dice"]["n"], found["dice"]["n_groups"]) == (2, 1)
    assert (found["specificity"]["n"], found["specificity"]["n_groups"]) == (3, 2)
