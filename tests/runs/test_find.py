"""Which Run is looked at: the one asked for, the newest, or the validation part of the same model."""

import json
from dataclasses import replace

import pytest

from sa2va_lab import open_dataset
from sa2va_lab.errors import LabError
from sa2va_lab.runs import choose_run, find_runs, open_run, predict_dataset, walk_runs


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
    made = {"20260101T000000Z_b": None, "20260102T000000Z_a": None, "second": "beside", "first": "validation"}
    how, main = {"limit": 1, "progress": False}, None
    for name, role in made.items():
        said = {"role": role, "of": main} if role else {}
        run = predict_dataset(darkness, dataset, folder=tmp_path / name, **said, **how)
        main = main if role else run
    third = predict_dataset(darkness, dataset, folder=tmp_path / "third", role="validation", of=run, **how)
    assert [run.folder.name for run in find_runs(tmp_path)] == [
        main.folder.name,
        "first",
        "second",
        "third",
        *["20260101T000000Z_b"],
    ]
    assert [run.folder.name for run in find_runs(tmp_path, role="validation", of=main)] == ["first"]
    assert [run.folder.name for run in find_runs(tmp_path, of=run)] == ["third"] == [third.folder.name]
    assert choose_run("", dataset, runs=tmp_path)[0].folder.name == "20260102T000000Z_a"


def test_runs_of_before_they_said_their_role_are_found_by_their_names(dataset, darkness, tmp_path):
    names = {
        "a_beside_val": ("validation", "a_beside"), "a_beside": ("beside", "a"), "a": ("main", None),
        "a_val": ("validation", "a"), "a_blood-vessel": ("phrase", "a"), "asked/a_2": ("asked", "a"),
        "other_val": ("main", None),
    }  # fmt: skip
    for name in names:
        folder = predict_dataset(darkness, dataset, folder=tmp_path / name, limit=1, progress=False).folder
        meta = json.loads((folder / "run.json").read_text())
        for field in ("role", "of", "batch"):
            del meta[field]
        (folder / "run.json").write_text(json.dumps(meta))
    found = {str(run.folder.relative_to(tmp_path)): (run.role, run.of) for run in find_runs(tmp_path)}
    assert found == names
    again = predict_dataset(darkness, dataset, folder=tmp_path / "a", limit=1, progress=False)
    assert "role" not in again.meta  # looked at, and left as it was


def test_a_damaged_run_hides_no_other(dataset, darkness, tmp_path):
    for name in "abc":
        predict_dataset(darkness, dataset, folder=tmp_path / name, limit=1, progress=False)
    (tmp_path / "b" / "run.json").write_text("{")
    walked = {path.name: run for path, run in walk_runs(tmp_path)}
    assert isinstance(walked["b"], LabError)
    assert [run.folder.name for run in find_runs(tmp_path)] == ["c", "a"]
    assert choose_run("", dataset, runs=tmp_path)[0].folder.name == "c"


def test_validation_of_the_same_model_goes_first_where_a_threshold_is_chosen(dataset, darkness, tmp_path):
    test = predict_dataset(darkness, dataset, folder=tmp_path / "a", split="test", progress=False).folder
    assert choose_run(test, dataset, runs=tmp_path, split="val")[1].startswith("as asked; no Run of the same model")
    assert choose_run("", dataset, runs=tmp_path, split="val")[0].folder == test
    predict_dataset(
        darkness, dataset, folder=tmp_path / "a_val", role="validation", of=open_run(test), split="val", progress=False
    )
    predict_dataset(darkness, dataset, folder=tmp_path / "b", prompt="line", split="val", progress=False)
    for asked, name in ((test, "a_val"), ("", "b"), (tmp_path / "b", "b")):
        assert choose_run(asked, dataset, runs=tmp_path, split="val")[0].folder.name == name
    assert choose_run(test, dataset, runs=tmp_path)[0].folder == test
    gone = [replace(sample, image=tmp_path / "gone.png") for sample in dataset.samples]
    assert choose_run(test, replace(dataset, samples=gone), runs=tmp_path, split="val")[0].folder == test
