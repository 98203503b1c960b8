"""A finished Run is sealed: every later edit is named, none is hidden by going on, and old Runs still open."""

import json

import pytest

from sa2va_lab import open_dataset
from sa2va_lab.files import hash_splits
from sa2va_lab.runs import open_run, predict_dataset
from sa2va_lab.runs.read import list_edits, read_digest


@pytest.fixture
def dataset(make_dataset):
    return open_dataset(make_dataset())


@pytest.fixture
def run(dataset, make_segmenter, tmp_path):
    return predict_dataset(make_segmenter(), dataset, folder=tmp_path / "one", progress=False)


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return open_run(path.parent)


def test_a_finished_run_is_sealed_and_whole(run, dataset):
    assert list_edits(run) == []
    assert run.meta["seal"]["whole"] == read_digest(run)
    assert run.meta["dataset"]["splits_sha256"] == hash_splits(dataset.splits)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("run.json", '"split": "all"', '"split": "test"'),
        ("run.json", '"prompt": "blood vessel"', '"prompt": "vessel"'),
        ("samples.jsonl", '"wall": ', '"wall": 1'),
        ("samples.jsonl", "\n", "\n\n"),
    ],
)
def test_an_edit_is_named_by_its_file(run, name, old, new):
    before = read_digest(run)
    if new == "\n\n":  # a line that is gone
        path = run.folder / name
        path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
        edited = open_run(run.folder)
    else:
        edited = edit(run.folder / name, old, new)
    assert list_edits(edited) == [name]
    assert read_digest(edited) != before


def test_a_run_of_before_the_seal_opens_and_says_so(run):
    meta = json.loads((run.folder / "run.json").read_text())
    del meta["seal"], meta["dataset"]["splits_sha256"]
    (run.folder / "run.json").write_text(json.dumps(meta))
    assert list_edits(open_run(run.folder)) is None


def test_going_on_with_an_edited_run_does_not_hide_the_edit(run, dataset, make_segmenter):
    path = run.folder / "samples.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    again = predict_dataset(make_segmenter(), dataset, folder=run.folder, progress=False)
    assert list_edits(again) == []
    assert again.meta["resumed"][-1]["edited"] == ["samples.jsonl"]


def test_an_unfinished_run_has_no_seal(dataset, make_segmenter, tmp_path, monkeypatch):
    from sa2va_lab.runs import write

    monkeypatch.setattr(write, "seal_run", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        predict_dataset(make_segmenter(), dataset, folder=tmp_path / "one", progress=False)
    assert list_edits(open_run(tmp_path / "one")) is None


def test_splits_have_one_hash_in_any_order(dataset):
    other = {name: ids[::-1] for name, ids in reversed(dataset.splits.items())}
    assert hash_splits(other) == hash_splits(dataset.splits) != hash_splits({})
