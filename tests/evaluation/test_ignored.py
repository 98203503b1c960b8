"""What is ignored is in no number: neither what was drawn there nor what was predicted there changes any."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sa2va_lab import open_dataset
from sa2va_lab.datasets.audit import audit_dataset
from sa2va_lab.datasets.ceilings import resolution_ceilings
from sa2va_lab.datasets.drawings import Drawing, DrawnTruth, Thing
from sa2va_lab.evaluation.baselines import measure_baselines
from sa2va_lab.evaluation.honesty import check_run
from sa2va_lab.evaluation.metrics import count_pixels, evaluate_run, pair_up, summarise
from sa2va_lab.evaluation.mistakes import find_others, sort_mistakes
from sa2va_lab.evaluation.questions import measure_phrase
from sa2va_lab.evaluation.shapes import measure_calibration, measure_extras
from sa2va_lab.evaluation.thresholds import calibrate, choose_threshold, count_run
from sa2va_lab.files import plain
from sa2va_lab.runs import predict_dataset

WIDTH = 32  # pixels of the drawn images' 64 that are ignored: 16 columns of the grid's 32


class Noisy:
    """The darkness segmenter with something else in the grid's columns that only ignored pixels are made of."""

    def __init__(self, darkness, seed):
        self.darkness, self.seed, self.provenance = darkness, seed, darkness.provenance

    def predict(self, image, prompt):
        made = self.darkness.predict(image, prompt)
        logits = made.logits.copy()
        if self.seed is not None:
            logits[:, :, :14] = np.random.default_rng(self.seed).normal(0, 5, logits[:, :, :14].shape)
        return dataclasses.replace(made, logits=logits)


def ignoring(dataset, seed=None, folder=None):
    """The data with their left half ignored; with a seed, other truths are drawn there."""
    left = np.array([0, 0, WIDTH, 0, WIDTH, 48, 0, 48], float)
    samples = [dataclasses.replace(sample, ignored=DrawnTruth((left,))) for sample in dataset]
    for number, sample in enumerate(samples if seed is not None else ()):
        masks = {}
        for annotator, file in sample.drawings.items():
            mask = np.asarray(Image.open(file.path)).copy()
            noise = np.random.default_rng([seed, number, annotator])
            mask[:, :WIDTH] = 255 * (noise.random((48, WIDTH)) < noise.random())
            Image.fromarray(mask).save(folder / f"{number}_{annotator}.png")
            masks[annotator] = dataclasses.replace(file, path=folder / f"{number}_{annotator}.png")
        samples[number] = dataclasses.replace(sample, drawings=masks)
    return dataclasses.replace(dataset, samples=samples, splits={"train": [s.id for s in samples[:2]]})


def measure(run, dataset):
    """Every number that is said of a run and of its data, as one text."""
    table, counts = evaluate_run(run, dataset, threshold=0.4), count_run(run, dataset)
    mistakes = sort_mistakes(run, dataset, threshold=0.4)
    rows, widths = measure_extras(run, dataset, threshold=0.4)
    tables = [each.drop(columns="seconds", errors="ignore").to_dict("records") for each in (mistakes, rows, widths)]
    said = {"summary": summarise(table), "tables": tables, "usual": mistakes.attrs["usual"]}
    said |= {name: getattr(counts, name).tolist() for name in ("tp", "fp", "truth", "size")}
    said |= {
        "choice": choose_threshold(counts).value,
        "bars": [b.tolist() for b in calibrate(counts)],
    }
    said |= {"baselines": measure_baselines(dataset, run.sample_ids), "phrase": measure_phrase(run, dataset)}
    said["findings"] = [[found.kind, found.alarm, found.values] for found in check_run(run, dataset, threshold=0.4)]
    said["ceilings"] = [ceiling.to_dict() for ceiling in resolution_ceilings(dataset)]
    audit = audit_dataset(dataset)
    said["audit"] = [audit.rows, audit.widths.tolist(), audit.to_dict()["stats"]]
    return json.dumps(plain(said))


@pytest.fixture(scope="module")
def world(drawn_data, darkness, tmp_path_factory):
    """The drawn data, half of them ignored; what is measured; and a folder."""
    dataset, folder = open_dataset(drawn_data), tmp_path_factory.mktemp("ignored")
    run = predict_dataset(darkness, dataset, folder=folder / "run", progress=False)
    return dataset, folder, measure(run, ignoring(dataset))


@settings(max_examples=4)
@given(drawn=st.none() | st.integers(0, 9), predicted=st.none() | st.integers(0, 9))
def test_no_number_sees_what_is_ignored(world, darkness, drawn, predicted):
    dataset, folder, before = world
    run = predict_dataset(Noisy(darkness, predicted), dataset, folder=folder / f"run_{predicted}", progress=False)
    assert measure(run, ignoring(dataset, drawn, folder)) == before


def test_numbers_do_see_what_is_not_ignored(world, darkness):
    dataset, folder, before = world
    run = predict_dataset(Noisy(darkness, 1), dataset, folder=folder / "run_1", progress=False)
    assert measure(run, dataset) != before


def test_what_is_ignored_counts_as_nothing_not_as_background(drawn_run, drawn_data):
    dataset = open_dataset(drawn_data)
    half = ignoring(dataset)
    counts, table = count_run(drawn_run, half), evaluate_run(drawn_run, half)
    assert set(counts.size) == {48 * WIDTH}
    counted = table.dropna(subset="tp")
    assert set(counted[["tp", "fp", "fn", "tn"]].sum(axis=1)) == {48 * WIDTH}
    assert set(counted["ignored_area"]) == {48 * WIDTH}
    assert summarise(table)["ignored"] == 0.5
    assert summarise(evaluate_run(drawn_run, dataset))["ignored"] == 0


def test_baselines_are_measured_where_it_counts(drawn_data):
    half = ignoring(open_dataset(drawn_data))
    rows = {row["name"]: row for row in measure_baselines(half, [sample.id for sample in half])}
    sample = half.samples[0]
    there = np.count_nonzero(sample.truth())
    assert rows["everything"]["scores"][sample.id] == pytest.approx(2 * there / (there + 48 * WIDTH))


def test_another_thing_that_is_ignored_explains_no_mistake(drawn_data):
    dataset = open_dataset(drawn_data)
    sample = ignoring(dataset).samples[0]
    lines = [np.array([x, 4, x + 9, 4, x + 9, 9, x, 9], float) for x in (5, 45)]
    drawing = Drawing([Thing("catheter", polygons=lines)])
    for each, area in ((dataclasses.replace(sample, ignored=None), 90), (sample, 45)):
        each = dataclasses.replace(each, drawings={1: drawing})
        data = dataclasses.replace(dataset, samples=[each])
        assert find_others(data, each.id, (48, 64)).sum() == area


def test_counts_by_hand():
    mask, truth, ignore = (np.array([bits], bool) for bits in ([1, 1, 0, 0, 1], [1, 0, 1, 0, 1], [0, 0, 0, 0, 1]))
    assert count_pixels(mask, truth) == {"tp": 2, "fp": 1, "fn": 1, "tn": 1}
    assert count_pixels(mask, truth, ignore) == {"tp": 1, "fp": 1, "fn": 1, "tn": 1}
    probability = np.array([[1, 1, 0, 0, 0.3]], np.float32)
    assert measure_calibration(probability, truth, ignore)["brier"] == 0.5


def test_a_pair_is_blank_where_it_is_ignored(drawn_run, drawn_data):
    sample = ignoring(open_dataset(drawn_data)).samples[0]
    pair = pair_up(drawn_run.prediction(sample.id), sample)
    assert pair.ignore[:, :WIDTH].all()
    assert not pair.probability[:, :WIDTH].any()
    assert not pair.truth[:, :WIDTH].any()
    assert pair.mask(0.4).any()
    assert pair.truth.any()
