"""Which Run is looked at: the one asked for, the newest, or the validation part of the same model."""

from dataclasses import replace

import pytest

from sa2va_lab import open_dataset
from sa2va_lab.errors import LabError
from sa2va_lab.runs import predict_dataset
from sa2va_lab.runs.find import choose_run


@pytest.fixture
def dataset(drawn_data):
    opened = open_dataset(drawn_data, groups=r"p(\d+)_")
    names = [sample.id for sample in opened.samples]
    return replace(opened, splits={"val": names[:2], "test": names[2:]})


def test_the_newest_run_of_these_images_is_chosen(dataset, darkness, tmp_path):
    with pytest.raises(LabError, match="make one with 03_evaluation"):
        choose_run("", dataset, runs=tmp_path)
    for name in ("20260101T000000Z_a", "20260102T000000Z_b"):
        predict_dataset(darkness, dataset, folder=tmp_path / name, limit=1, progress=False)
    assert choose_run("", dataset, runs=tmp_path)[0].folder.name == "20260102T000000Z_b"
    asked, reason = choose_run(tmp_path / "20260101T000000Z_a", dataset, runs=tmp_path)
    assert (asked.folder.name, reason) == ("20260101T000000Z_a", "as asked")


def test_of_runs_made_together_the_one_that_the_others_accompany(dataset, darkness, tmp_path):
    for name in ("20260101T000000Z_b", "20260102T000000Z_a_beside", "20260102T000000Z_a", "20260102T000000Z_a_val"):
        predict_dataset(darkness, dataset, folder=tmp_path / name, limit=1, progress=False)
    assert choose_run("", dataset, runs=tmp_path)[0].folder.name == "20260102T000000Z_a"


def test_validation_of_the_same_model_goes_first_where_a_threshold_is_chosen(dataset, darkness, tmp_path):
    test = predict_dataset(darkness, dataset, folder=tmp_path / "a", split="test", progress=False).folder
    assert choose_run(test, dataset, runs=tmp_path, split="val")[1].startswith("as asked; no Run of the same model")
    assert choose_run("", dataset, runs=tmp_path, split="val")[0].folder == test
    predict_dataset(darkness, dataset, folder=tmp_path / "a_val", split="val", progress=False)
    predict_dataset(darkness, dataset, folder=tmp_path / "b", prompt="line", split="val", progress=False)
    for asked, name in ((test, "a_val"), ("", "b"), (tmp_path / "b", "b")):
        assert choose_run(asked, dataset, runs=tmp_path, split="val")[0].folder.name == name
    assert choose_run(test, dataset, runs=tmp_path)[0].folder == test
    gone = [replace(sample, image=tmp_path / "gone.png") for sample in dataset.samples]
    assert choose_run(test, replace(dataset, samples=gone), runs=tmp_path, split="val")[0].folder == test
