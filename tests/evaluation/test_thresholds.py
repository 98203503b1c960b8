"""Thresholds: counts equal to thresholding again, choices checked by hand, and where they may not be used."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sa2va_lab.datasets import open_dataset
from sa2va_lab.errors import LabError
from sa2va_lab.evaluation import evaluate_run
from sa2va_lab.evaluation.metrics import COUNTS, METRICS, compute_scores, count_pixels
from sa2va_lab.evaluation.thresholds import (
    BINS,
    THRESHOLDS,
    Choice,
    Counts,
    choose_threshold,
    count_image,
    count_run,
    nest_thresholds,
    read_threshold,
    refuse_seen,
    save_threshold,
    settle_threshold,
    take_threshold,
)
from sa2va_lab.runs import predict_dataset

STEPS = np.append(THRESHOLDS, 1.0).astype(np.float32)
NEIGHBOURS = np.concatenate([STEPS, np.nextafter(STEPS, np.float32(0)), np.nextafter(STEPS, np.float32(1))])
PROBABILITIES = st.floats(0, 1, width=32) | st.sampled_from([float(value) for value in NEIGHBOURS])


@given(
    probability=arrays.arrays(np.float32, (4, 5), elements=PROBABILITIES),
    truth=arrays.arrays(bool, (4, 5)),
    place=st.integers(0, BINS - 1),
)
def test_counts_are_what_thresholding_again_gives(probability, truth, place):
    inside, outside = count_image(probability, truth)
    counts = count_pixels(probability > float(THRESHOLDS[place]), truth)
    assert (inside[place], outside[place]) == (counts["tp"], counts["fp"])


def test_every_edge_and_its_neighbours_at_every_threshold():
    probability, truth = NEIGHBOURS[None], (np.arange(len(NEIGHBOURS)) % 2 == 0)[None]
    inside, outside = count_image(probability, truth)
    masks = probability[0] > THRESHOLDS.astype(np.float32)[:, None]
    assert (inside == (masks & truth).sum(axis=1)).all()
    assert (outside == (masks & ~truth).sum(axis=1)).all()


def test_probabilities_out_of_range_are_refused():
    for probability in (np.full((2, 2), 1.5, np.float32), np.full((2, 2), np.nan, np.float32)):
        with pytest.raises(ValueError, match="in .0, 1."):
            count_image(probability, np.zeros((2, 2), bool))


def counts_of(images, groups, *, hashes=None):
    """images: (probability, truth) pairs, each a list of pixels."""
    rows = [count_image(np.array([p], np.float32), np.array([t], bool)) for p, t in images]
    truths = [np.array(t, bool) for _, t in images]
    ids = tuple(f"S{number}" for number in range(len(images)))
    return Counts(
        ids,
        tuple(groups),
        tuple(hashes or (f"{number:064x}" for number in range(len(images)))),
        np.array([inside for inside, _ in rows]),
        np.array([outside for _, outside in rows]),
        np.array([t.sum() for t in truths]),
        np.array([t.size for t in truths]),
        {"split": "val", "weights_sha256": "0" * 64},
    )


@pytest.fixture
def by_hand():
    """Dice by hand: A is best for .3 <= t < .7 (1.0), B for .2 <= t < .4 (1.0; at .4 and above its vessel is lost)."""
    return counts_of([([0.7, 0.3], [1, 0]), ([0.4, 0.2], [1, 0])], ["a", "b"])


def test_the_best_mean_is_the_one_worked_out_by_hand(by_hand):
    curve = by_hand.curve()
    assert curve[[0, 250, 300, 350, 399, 400, 500, 700]] == pytest.approx([2 / 3, 5 / 6, 1, 1, 1, 0.5, 0.5, 0])
    choice = choose_threshold(by_hand)
    assert choice.value == 0.399  # of the equally good .300 to .399 the nearest to .5
    assert (choice.score, choice.at_half) == (1.0, 0.5)
    assert choice.flat == (0.3, 0.399)
    assert (choice.n_images, choice.n_groups) == (2, 2)
    assert choice.reason == 'best mean Dice on 2 images of 2 patients, split "val"'
    # patients drawn again: (a, a) would choose .5, (b, b) .399, (a, b) .399
    assert (choice.low, choice.high) == (0.399, 0.5)


def test_pooled_and_macro_differ_where_images_differ_in_size():
    large = ([0.6] * 90 + [0.3] * 10, [1] * 90 + [0] * 10)
    small = ([0.2, 0.1], [1, 0])
    counts = counts_of([large, small], ["a", "b"])
    assert choose_threshold(counts).value == 0.199
    pooled = counts.pooled("dice")
    assert pooled[500] == pooled.max() > pooled[199]  # one pixel is lost, ten false ones are avoided
    assert pooled[500] == pytest.approx(180 / 181)
    assert counts.scores("iou").mean(axis=0)[150] == pytest.approx((90 / 100 + 1) / 2)


def test_an_image_without_anything_counts_only_where_something_is_found(by_hand):
    counts = counts_of([([0.7, 0.3], [1, 0]), ([0.45, 0.2], [0, 0])], ["a", "b"])
    assert counts.curve()[[400, 450]] == pytest.approx([0.5, 1.0])
    choice = choose_threshold(counts)
    assert (choice.value, choice.n_images, choice.n_groups) == (0.5, 1, 1)  # the other has no Dice there
    assert choice.reason == 'best mean Dice on 1 images of 1 patients, split "val"'


def test_one_patient_has_no_interval():
    choice = choose_threshold(counts_of([([0.7, 0.3], [1, 0])], ["a"]))
    assert np.isnan([choice.low, choice.high]).all()
    with pytest.raises(LabError, match="at least two"):
        nest_thresholds(counts_of([([0.7, 0.3], [1, 0])], ["a"]))


def test_nested_choices_never_see_their_own_patient(by_hand):
    chosen, reason = nest_thresholds(by_hand)
    assert chosen.tolist() == [0.399, 0.5]  # a by b's images, b by a's
    assert reason == "for each of 2 patients on the others, from 0.399 to 0.5"
    found = by_hand.at(chosen)
    assert compute_scores(**found)["dice"].tolist() == [1.0, 0.0]
    spoilt = counts_of([([0.0, 1.0], [1, 0]), ([0.4, 0.2], [1, 0])], ["a", "b"])
    assert nest_thresholds(spoilt)[0][0] == chosen[0]  # whatever a's own images are


def test_what_cannot_be_chosen_is_refused(by_hand):
    with pytest.raises(LabError, match="no image with a truth"):
        choose_threshold(counts_of([([0.0], [0])], "a"))
    for threshold in (-0.1, 1.0, np.nan, 0.1234):
        with pytest.raises(LabError, match="the threshold is"):
            by_hand.at(threshold)


@pytest.fixture
def made(make_dataset, make_segmenter, tmp_path):
    dataset = open_dataset(make_dataset())
    return predict_dataset(make_segmenter(), dataset, folder=tmp_path / "run", progress=False), dataset


def test_counts_of_a_run_agree_with_its_table(made):
    run, dataset = made
    counts = count_run(run, dataset)
    assert counts.origin["weights_sha256"] == run.meta["segmenter"]["weights_sha256"]
    for threshold in (0.0, 0.001, 0.37, 0.5, 0.999):
        table, found = evaluate_run(run, dataset, threshold=threshold), counts.at(threshold)
        assert list(counts.ids) == list(table["id"])
        for name in COUNTS:
            assert (table[name] == found[name]).all(), (threshold, name)
        for metric in METRICS:
            column = counts.scores(metric)[:, round(threshold * BINS)]
            assert np.array_equal(column, table[metric].to_numpy(), equal_nan=True)


def test_a_threshold_goes_to_disk_and_comes_back(made, tmp_path):
    run, dataset = made
    choice = choose_threshold(count_run(run, dataset))
    path = save_threshold(tmp_path, choice, note="looked at by eye")
    assert path == tmp_path / "threshold.json"
    back = read_threshold(tmp_path)
    assert back.note == "looked at by eye"
    assert back.value == choice.value
    assert back.flat == choice.flat
    assert back.origin["images"] == sorted(record["image_sha256"] for record in run.records)
    assert json.loads(path.read_text())["created"]
    alone = Choice(0.5, "by eye", origin={"images": []})
    assert np.isnan(read_threshold(save_threshold(tmp_path / "alone.json", alone)).low)
    before = json.loads((tmp_path / "alone.json").read_text()) | {"flat": [None, None]}  # as it was written once
    (tmp_path / "before.json").write_text(json.dumps(before))
    assert read_threshold(tmp_path / "before.json").value == 0.5


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "Expecting"),
        ("[]", "list"),
        ('{"value": 1.5, "reason": "", "origin": {}}', "value: .*less than or equal to 1"),
        ('{"value": true, "reason": "", "origin": {}}', "value: .*valid number"),
        ('{"value": 0.5, "reason": ""}', "origin"),
        ('{"value": 0.5, "reason": "", "origin": {"images": [1]}}', "valid string"),
        ('{"value": 0.5, "origin": {"images": []}}', "reason"),
    ],
)
def test_a_damaged_threshold_file_is_one_sentence(tmp_path, content, said):
    (tmp_path / "threshold.json").write_text(content)
    with pytest.raises(LabError, match=rf"is not (a threshold\.json|JSON) .*{said}"):
        read_threshold(tmp_path)


def test_a_missing_or_unwritable_place_is_one_sentence(tmp_path):
    with pytest.raises(LabError, match="is not a file; expected JSON"):
        read_threshold(tmp_path / "none.json")
    with pytest.raises(LabError, match="cannot be written"):
        save_threshold(tmp_path / "no" / "folder.json", Choice(0.5, "by eye"))


def test_a_threshold_is_refused_on_the_images_it_was_chosen_on(make_dataset, make_segmenter, tmp_path):
    dataset = open_dataset(make_dataset())
    train = predict_dataset(make_segmenter(), dataset, folder=tmp_path / "train", split="train", progress=False)
    test = predict_dataset(make_segmenter(), dataset, folder=tmp_path / "test", split="test", progress=False)
    both = predict_dataset(make_segmenter(), dataset, folder=tmp_path / "both", progress=False)
    choice = read_threshold(save_threshold(tmp_path, choose_threshold(count_run(train, dataset))))
    assert refuse_seen(choice, test) == ""
    for run, shared, total in ((train, 4, 4), (both, 4, 6)):
        with pytest.raises(LabError, match=f"chosen on {shared} of the {total} images reported"):
            refuse_seen(choice, run)
        assert f"chosen on {shared} of the {total} images" in refuse_seen(choice, run, allow=True)


def test_a_threshold_is_a_number_or_a_file(tmp_path, monkeypatch):
    assert (take_threshold("0.37").value, take_threshold("0.37").reason) == (0.37, "as given")
    path = save_threshold(tmp_path / "threshold.json", Choice(0.25, "by eye", origin={"images": []}))
    assert take_threshold(path).reason == take_threshold(str(tmp_path)).reason == "by eye"
    monkeypatch.setenv("PWD", str(tmp_path))  # where the command was started; a notebook runs elsewhere
    assert take_threshold("threshold.json").reason == "by eye"
    for asked, said in (
        ("1.5", "the threshold is 1.5"),
        ("nan", "the threshold is nan"),
        ("half", "the threshold is half"),
    ):
        with pytest.raises(LabError, match=said):
            take_threshold(asked)


def test_it_is_settled_on_the_validation_split_and_found_again_without_a_model(make_dataset, make_segmenter, tmp_path):
    root = make_dataset()
    names = list(json.loads((root / "groups.json").read_text()))
    (root / "splits.json").write_text(json.dumps({"train": names[:2], "val": names[2:4], "test": names[4:]}))
    dataset, folder = open_dataset(root), tmp_path / "run"
    run = predict_dataset(make_segmenter(), dataset, folder=folder, split="test", progress=False)
    assert settle_threshold("0.3", run, dataset).value == 0.3
    unknown = settle_threshold("", run, dataset)
    assert (unknown.value, unknown.reason) == (0.5, "the validation split was not predicted")
    choice = settle_threshold("", run, dataset, make_segmenter(), progress=False)
    assert choice.reason == 'best mean Dice on 2 images of 1 patients, split "val"'
    assert refuse_seen(choice, run) == ""
    assert settle_threshold("", run, dataset) == choice  # its Run lies beside this one
    other = predict_dataset(
        make_segmenter(weights="1" * 64), dataset, folder=tmp_path / "x", split="test", progress=False
    )
    assert run.maker.weights != other.maker.weights
    moved = json.loads((tmp_path / "run_val" / "run.json").read_text()) | {"of": "x"}
    shutil.copytree(tmp_path / "run_val", tmp_path / "x_val")
    (tmp_path / "x_val" / "run.json").write_text(json.dumps(moved))
    assert settle_threshold("", other, dataset).origin == {"default": True}  # another model's Run
    whole = predict_dataset(make_segmenter(), dataset, folder=tmp_path / "whole", progress=False)
    assert settle_threshold("", whole, dataset, make_segmenter()).reason == 'split "all" is reported'


def test_a_validation_run_of_another_precision_sets_no_threshold(make_dataset, make_segmenter, tmp_path):
    root = make_dataset()
    names = list(json.loads((root / "groups.json").read_text()))
    (root / "splits.json").write_text(json.dumps({"train": names[:2], "val": names[2:4], "test": names[4:]}))
    dataset, how = open_dataset(root), {"progress": False}
    run = predict_dataset(make_segmenter(precision="fp32"), dataset, folder=tmp_path / "run", split="test", **how)
    val = {"folder": tmp_path / "run_val", "split": "val", "role": "validation", "of": run}
    predict_dataset(make_segmenter(precision="int8"), dataset, **val, **how)
    assert settle_threshold("", run, dataset).origin == {"default": True}
    shutil.rmtree(tmp_path / "run_val")
    stepping = make_segmenter(precision="fp32")
    true = stepping.predict

    def step_down(image, prompt):  # as the ladder does where memory runs out on the way
        stepping.provenance = stepping.provenance | {"precision": {"actual": "int8"}}
        return true(image, prompt)

    stepping.predict = step_down
    assert predict_dataset(stepping, dataset, **val, **how).maker.precision == "int8"
    assert settle_threshold("", run, dataset).origin == {"default": True}
    shutil.rmtree(tmp_path / "run_val")
    made = predict_dataset(make_segmenter(precision="fp32"), dataset, **val, **how)
    assert settle_threshold("", run, dataset).note == ""
    meta = json.loads((made.folder / "run.json").read_text())
    meta["git"]["commit"] = "f" * 40
    (made.folder / "run.json").write_text(json.dumps(meta))
    choice = settle_threshold("", run, dataset)  # other code of the same model chooses it, and that is said
    assert choice.origin["run"] == "run_val"
    assert "f" * 40 in choice.note
