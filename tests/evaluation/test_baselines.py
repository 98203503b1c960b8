"""Baselines: their Dice on drawn images is worked out by hand, and none of them cheats."""

import numpy as np
import pytest
from PIL import Image

from sa2va_lab.datasets import open_dataset
from sa2va_lab.evaluation.baselines import filter_vessels, measure_baselines


@pytest.fixture
def dataset(make_dataset):
    return open_dataset(make_dataset())


def rows_of(dataset, ids=None):
    ids = ids or [sample.id for sample in dataset]
    return {row["name"]: row for row in measure_baselines(dataset, ids)}


def test_nothing_and_everything(dataset):
    rows = rows_of(dataset)
    assert rows["nothing"]["dice"] == 0.0
    shares = [sample.truth().mean() for sample in dataset]
    assert rows["everything"]["dice"] == pytest.approx(np.mean([2 * share / (1 + share) for share in shares]))
    assert rows["everything"]["low"] <= rows["everything"]["dice"] <= rows["everything"]["high"]
    assert (rows["everything"]["n_images"], rows["everything"]["n_groups"]) == (6, 3)
    assert "observer" not in rows  # there is no second annotator here


def test_the_mean_training_mask_is_made_without_the_reported_images(dataset):
    test = dataset.splits["test"]
    rows = rows_of(dataset, test)
    assert 0 < rows["training"]["dice"] < 1
    assert "training" not in rows_of(dataset, dataset.splits["train"])  # nothing is left to make it of


def test_chance_is_another_patients_truth(dataset):
    rows = rows_of(dataset)
    assert rows["shuffled"]["dice"] < 1
    assert "shuffled" not in rows_of(dataset, dataset.splits["test"])  # one patient: there is no other


def test_the_filter_finds_a_dark_line_and_nothing_in_an_even_image(tmp_path, dataset):
    sample = dataset.samples[0]
    image = np.full((128, 128), 180, np.uint8)
    Image.fromarray(image).save(sample.image)
    assert not filter_vessels(sample).any()
    image[60:64, 10:118] = 60
    Image.fromarray(image).save(sample.image)
    found = filter_vessels(sample)
    assert found[61:63, 20:108].mean() > 0.9
    assert found.mean() < 0.1


def test_an_image_that_cannot_be_read_counts_for_nothing(make_dataset):
    root = make_dataset()
    dataset = open_dataset(root)
    dataset[dataset.splits["train"][0]].image.write_bytes(b"")
    rows = rows_of(open_dataset(root), dataset.splits["test"])
    assert "training" in rows
    assert rows_of(open_dataset(root))["everything"]["n_images"] == 5
