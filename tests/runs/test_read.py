"""Runs from elsewhere: whatever was done to one, it is read, or refused in a sentence that says where it is damaged."""

import hashlib
import io
import json
import os

import numpy as np
import pytest

from sa2va_lab import open_dataset
from sa2va_lab.errors import LabError
from sa2va_lab.runs import open_run, predict_dataset, walk_runs

GONE = object()


@pytest.fixture
def run(make_dataset, make_segmenter, tmp_path):
    dataset = open_dataset(make_dataset())
    return predict_dataset(make_segmenter(), dataset, folder=tmp_path / "runs" / "one", progress=False)


def change(path, place, value):
    """Sets what lies at `place` ("dataset.samples") of a JSON file, or takes it out; the first line of several."""
    first, *rest = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    content = json.loads(first)
    *way, last = place.split(".")
    inner = content
    for step in way:
        inner = inner[step]
    if value is GONE:
        del inner[last]
    else:
        inner[last] = value
    path.write_text("\n".join([json.dumps(content), *rest]) + "\n")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("started", GONE), ("started", 4), ("stamp", GONE), ("prompt", None), ("prompt", ""), ("resumed", {}),
        ("resumed", [{"edited": 4}]), ("seal", ["x"]), ("dataset.splits_sha256", 7),
        ("format", 2), ("role", "judge"), ("of", "../elsewhere"), ("batch", 0), ("packages", []), ("git", "main"),
        ("segmenter", []), ("segmenter.finetune", "x.pth"), ("segmenter.weights_sha256", ["a"]),
        ("segmenter.precision", "fp32"), ("segmenter.precision", {"actual": 16}), ("dataset.samples", 4),
        ("dataset.samples", ["a", ["b"]]), ("dataset.samples", ["../../etc/passwd"]), ("dataset.samples", [".."]),
        ("dataset.split", GONE), ("dataset.phrase", 7),
    ],
)  # fmt: skip
def test_a_damaged_run_json_is_refused_with_the_place(run, place, value):
    change(run.folder / "run.json", place, value)
    with pytest.raises(LabError, match=r"run.json cannot be read \(" + place.split(".")[0]):
        open_run(run.folder)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("id", [1]), ("id", "../P01"), ("id", "a\0b"), ("id", ""), ("seconds", GONE), ("seconds", {"wall": "long"}),
        ("seconds", {"wall": float("nan")}), ("seconds", {"wall": -1}), ("n_seg", -1), ("n_seg", None), ("n_seg", True),
        ("size", [10**6, 10**6]), ("size", [0, 4]), ("size", "32x32"), ("size", [32]), ("canvas", 10**6),
        ("logits_sha256", None), ("answer", 4), ("error", 4),
    ],
)  # fmt: skip
def test_a_damaged_line_is_refused_with_its_number(run, place, value):
    change(run.folder / "samples.jsonl", place, value)
    with pytest.raises(LabError, match="line 1 of .*samples.jsonl is damaged"):
        open_run(run.folder)
    [(path, error)] = walk_runs(run.folder.parent)
    assert path == run.folder
    assert isinstance(error, LabError)


def test_a_line_about_a_sample_of_another_run_is_refused(run):
    change(run.folder / "samples.jsonl", "id", "P09-V1-F001")
    with pytest.raises(LabError, match=r"1 samples that are not in run.json \(P09-V1-F001\)"):
        open_run(run.folder)


@pytest.mark.parametrize(
    "arrays",
    [
        {"logits": np.zeros((1, 16, 16), np.float64)},
        {"logits": np.zeros((16, 16), np.float32)},
        {"logits": np.zeros((2, 16, 16), np.float32)},
        {"size": np.array([10**6, 10**6])},
        {"size": np.array(4)},
        {"canvas": np.array([1, 2])},
        {"canvas": np.int64(10**6)},
    ],
)
def test_logits_that_are_not_those_of_their_line_are_refused_though_their_hash_is_right(run, arrays):
    path = run.folder / "logits" / f"{run.sample_ids[0]}.npz"
    buffer = io.BytesIO()
    np.savez(buffer, **dict(np.load(path)) | arrays)
    path.write_bytes(buffer.getvalue())
    change(run.folder / "samples.jsonl", "logits_sha256", hashlib.sha256(buffer.getvalue()).hexdigest())
    with pytest.raises(LabError, match=path.name):
        open_run(run.folder).prediction(run.sample_ids[0])


def test_pipes_in_place_of_files_are_not_waited_for(run):
    for name in ("logits/P01-V1-F001.npz", "run.json"):
        (run.folder / name).unlink()
        os.mkfifo(run.folder / name)
        with pytest.raises(LabError):
            run.prediction("P01-V1-F001") if "npz" in name else open_run(run.folder)


def test_a_run_is_not_written_through_links(run, make_dataset, make_segmenter, tmp_path):
    """A received Run, half finished, whose files lead elsewhere."""
    dataset, precious = open_dataset(make_dataset("more")), tmp_path / "precious"
    precious.write_text("precious")
    for name in ("samples.jsonl", ".lock"):
        (run.folder / name).rename(run.folder / "aside")
        (run.folder / name).symlink_to(precious)
        with pytest.raises(LabError, match=f"{name} is a link"):
            predict_dataset(make_segmenter(), dataset, folder=run.folder, progress=False)
        (run.folder / "aside").replace(run.folder / name)
    assert precious.read_text() == "precious"


def test_the_maker_is_weights_precision_prompt_and_code(run, make_segmenter, make_dataset, tmp_path):
    assert (run.maker.weights, run.maker.precision, run.maker.prompt) == ("0" * 64, "fp32", "blood vessel")
    assert run.maker.code.startswith(run.meta["packages"]["sa2va-lab"] or "None")
    dataset = open_dataset(make_dataset("again"))
    made = {"weights": make_segmenter(weights="1" * 64), "precision": make_segmenter(precision="int8")}
    for name, segmenter in made.items():
        other = predict_dataset(segmenter, dataset, folder=tmp_path / name, progress=False)
        assert run.maker.differences(other.maker) == [name]
    asked = predict_dataset(make_segmenter(), dataset, folder=tmp_path / "asked", prompt="dark 40", progress=False)
    assert run.maker.differences(asked.maker) == ["prompt"]
    change(run.folder / "run.json", "git.commit", "f" * 40)
    assert open_run(run.folder).maker != run.maker
    assert open_run(run.folder).maker.differences(run.maker) == []  # other code: noted, and no other model
