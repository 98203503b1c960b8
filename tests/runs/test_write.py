"""Runs: what is on disk, and that nothing is lost, done twice or mixed, whatever happens in between."""

import contextlib
import hashlib
import json
import os
import random
import shutil
import subprocess
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sa2va_lab import files
from sa2va_lab.datasets import open_dataset
from sa2va_lab.errors import LabError
from sa2va_lab.loading.load import load
from sa2va_lab.prediction import Prediction
from sa2va_lab.runs import check_request, open_run, predict_dataset
from sa2va_lab.runs.write import read_git_state
from sa2va_lab.sa2va import processing


def contents(folder):
    """What must not depend on how often a run was interrupted: the logits' bytes and the records without times."""
    lines = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    records = [{name: value for name, value in line.items() if name != "seconds"} for line in lines]
    return records, {path.name: path.read_bytes() for path in sorted((folder / "logits").iterdir())}


@pytest.fixture
def dataset(make_dataset):
    return open_dataset(make_dataset())


def test_a_run_says_what_was_run(dataset, make_segmenter, tmp_path):
    segmenter = make_segmenter()
    run = predict_dataset(segmenter, dataset, folder=tmp_path / "run", split="test", progress=False)
    assert run.meta == json.loads((tmp_path / "run" / "run.json").read_text())
    assert run.meta["segmenter"] == segmenter.provenance
    assert run.meta["stamp"] == "a classical segmenter, no network"
    assert run.meta["prompt"] == "blood vessel"
    assert run.meta["prompt_reason"] == "the phrase of the data set"
    assert run.meta["dataset"]["manifest_sha256"] == dataset.split("test").manifest_sha256
    assert run.meta["dataset"]["split"] == "test"
    assert run.meta["dataset"]["chosen"] == "all 2 images"
    assert run.sample_ids == ["P03-V1-F001", "P03-V1-F002"]
    assert run.meta["packages"]["numpy"] == np.__version__
    assert set(run.meta["git"]) == {"commit", "dirty", "reason"}
    assert run.meta["started"] <= run.meta["finished"]
    assert run.meta["resumed"] == []
    assert run.finished
    record = run.records[0]
    assert record["id"] == "P03-V1-F001"
    assert record["error"] is None
    assert record["answer"] == "Sure, [SEG]."
    assert (record["n_seg"], record["size"], record["canvas"], record["peak_bytes"]) == (1, [32, 32], 64, None)
    assert record["image_sha256"] == hashlib.sha256(dataset["P03-V1-F001"].image.read_bytes()).hexdigest()
    assert set(record["seconds"]) == {"look", "wall"}
    logits = (tmp_path / "run" / "logits" / "P03-V1-F001.npz").read_bytes()
    assert record["logits_sha256"] == hashlib.sha256(logits).hexdigest()


def test_what_was_predicted_comes_back(dataset, make_segmenter, tmp_path):
    predict_dataset(make_segmenter(), dataset, folder=tmp_path / "run", progress=False)
    run = open_run(tmp_path / "run")
    for sample in dataset:
        direct, kept = make_segmenter().predict(sample.image, "blood vessel"), run.prediction(sample.id)
        assert (direct.logits == kept.logits).all()
        assert (kept.size, kept.answer, kept.canvas) == (direct.size, direct.answer, direct.canvas)
        assert (direct.mask() == kept.mask()).all()


def test_the_segmenter_gets_paths_and_the_prompt_and_nothing_else(dataset, make_segmenter, tmp_path):
    segmenter = make_segmenter()
    predict_dataset(segmenter, dataset, folder=tmp_path / "run", prompt="dark 40", progress=False)
    assert segmenter.seen == [(sample.image, "dark 40") for sample in dataset]
    assert all(isinstance(image, Path) for image, _ in segmenter.seen)
    assert open_run(tmp_path / "run").meta["prompt_reason"] == "as asked"


def test_predicting_opens_no_truth(make_segmenter, tmp_path, make_dataset):
    root = make_dataset()
    shutil.copytree(root / "images", root / "masks")
    for path in (root / "masks").iterdir():
        Image.open(path).point(lambda grey: 255 * (grey < 100)).save(path)
    (root / "annotations.json").unlink()
    (root / "splits.json").unlink()
    dataset = open_dataset(root)
    shutil.rmtree(root / "masks")  # whoever opened a truth would fail
    assert predict_dataset(make_segmenter(), dataset, folder=tmp_path / "run", progress=False).finished


def test_an_answer_that_names_nothing_is_a_result(dataset, make_segmenter, tmp_path):
    run = predict_dataset(make_segmenter(), dataset, folder=tmp_path / "run", prompt="dark 0", progress=False)
    assert [record["n_seg"] for record in run.records] == [0] * 6
    assert run.records[0]["error"] is None
    assert run.prediction("P01-V1-F001").answer == "Nothing here."
    assert not run.prediction("P01-V1-F001").mask().any()


def test_a_limit_is_spread_over_the_data(dataset, make_segmenter, tmp_path):
    run = predict_dataset(make_segmenter(), dataset, folder=tmp_path / "run", limit=3, progress=False)
    assert run.sample_ids == ["P01-V1-F001", "P02-V1-F001", "P03-V1-F001"]
    assert run.meta["dataset"]["chosen"] == "3 of 6 images, evenly spread over the ids"
    with pytest.raises(LabError, match="other images"):
        predict_dataset(make_segmenter(), dataset, folder=tmp_path / "run", progress=False)


def test_failures_are_records_without_names_and_the_others_go_on(make_dataset, make_segmenter, tmp_path):
    root = make_dataset()
    (root / "images" / "INVENTED-P00_001.png").write_bytes(b"no picture")
    (root / "images" / "INVENTED-P01_002.png").unlink()
    dataset = open_dataset(root)
    run = predict_dataset(make_segmenter(), dataset, folder=tmp_path / "run", progress=False)
    assert run.finished
    assert [record["error"] is None for record in run.records] == [True, False, False, True, True, True]
    assert run.records[1]["error"].startswith("UnidentifiedImageError: ")
    assert run.records[1]["logits_sha256"] is None
    assert run.records[2]["error"].startswith("FileNotFoundError: ")
    assert run.records[2]["image_sha256"] is None
    assert not (tmp_path / "run" / "logits" / "P01-V1-F002.npz").exists()
    with pytest.raises(LabError, match="no prediction of P01-V1-F002: UnidentifiedImageError"):
        run.prediction("P01-V1-F002")
    for path in (tmp_path / "run").rglob("*"):
        assert path.is_dir() or b"INVENTED" not in path.read_bytes()


def test_failures_alone_are_tried_again(make_dataset, make_segmenter, tmp_path):
    dataset, folder = open_dataset(make_dataset()), tmp_path / "run"

    class OutOfMemory(make_segmenter):
        def predict(self, image, prompt):
            if "P01" in image.name:
                raise MemoryError("no room")
            return super().predict(image, prompt)

    run = predict_dataset(OutOfMemory(), dataset, folder=folder, progress=False)
    assert run.failed_ids == ["P02-V1-F001", "P02-V1-F002"]
    still, roomier = OutOfMemory(), make_segmenter()
    assert predict_dataset(still, dataset, folder=folder, progress=False).failed_ids  # not asked for: left alone
    assert predict_dataset(still, dataset, folder=folder, retry_failed=True, progress=False).failed_ids
    before = (folder / "samples.jsonl").read_bytes()
    run = predict_dataset(roomier, dataset, folder=folder, retry_failed=True, progress=False)
    assert [image.name[:12] for image, _ in roomier.seen] == ["INVENTED-P01"] * 2
    assert run.failed_ids == []
    assert [record["id"] for record in run.records] == run.sample_ids
    assert (folder / "samples.jsonl").read_bytes().startswith(before)  # the failures stay on record
    assert run.prediction("P02-V1-F001").n_seg == 1


def test_logits_that_are_not_numbers_are_a_failure_and_not_an_empty_mask(dataset, make_segmenter, tmp_path):
    class Overflowing(make_segmenter):
        def predict(self, image, prompt):
            found = super().predict(image, prompt)
            return Prediction(found.logits * np.float32(np.nan), found.size, found.answer)

    run = predict_dataset(Overflowing(), dataset, folder=tmp_path / "run", progress=False)
    assert all("not finite" in record["error"] for record in run.records)


def test_a_finished_run_is_reopened_and_left_as_it_is(dataset, make_segmenter, tmp_path):
    predict_dataset(make_segmenter(), dataset, folder=tmp_path / "run", progress=False)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    segmenter = make_segmenter()
    run = predict_dataset(segmenter, dataset, folder=tmp_path / "run", progress=False)
    assert segmenter.seen == []
    assert run.finished
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_a_run_of_something_else_is_refused(make_dataset, make_segmenter, tmp_path):
    root = make_dataset()
    dataset, folder = open_dataset(root), tmp_path / "run"
    predict_dataset(make_segmenter(), dataset, folder=folder, progress=False)
    for segmenter, how, said in (
        (make_segmenter(weights="1" * 64), {}, "other weights .0000000000000000 there, 1111111111111111 here."),
        (make_segmenter(precision="bf16"), {}, "other precision .fp32 there, bf16 here."),
        (make_segmenter(), {"prompt": "dark 40"}, "other prompt .blood vessel there, dark 40 here."),
        (make_segmenter(), {"split": "test"}, "other images"),
    ):
        with pytest.raises(LabError, match=f"{said}.*choose a new folder"):
            predict_dataset(segmenter, dataset, folder=folder, progress=False, **how)
        assert segmenter.seen == []
    (root / "images" / "INVENTED-P00_000.png").write_bytes((root / "images" / "INVENTED-P00_001.png").read_bytes())
    with pytest.raises(LabError, match="other images"):
        predict_dataset(make_segmenter(), dataset, folder=folder, progress=False)


def test_bad_requests_write_nothing(dataset, make_segmenter, tmp_path):
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for folder, how, said in (
        (tmp_path / "new", {"prompt": " "}, "prompt is empty"),
        (tmp_path / "new", {"split": "val"}, 'no split "val"'),
        (tmp_path / "new", {"limit": 0}, "limit is 0"),
        (taken, {}, "holds something else"),
        (tmp_path / "file", {}, "is a file"),
        (tmp_path / "file" / "below", {}, "cannot be written"),
    ):
        with pytest.raises(LabError, match=said):
            predict_dataset(make_segmenter(), dataset, folder=folder, progress=False, **how)
    assert not (tmp_path / "new").exists()
    assert [path.name for path in taken.iterdir()] == ["notes.txt"]


def test_folders_that_are_no_run(tmp_path, dataset, make_segmenter):
    with pytest.raises(LabError, match=r"is not a run \(it has no run.json\)"):
        open_run(tmp_path)
    for content in ("[]", "{", '{"dataset": {}}'):
        (tmp_path / "run.json").write_text(content)
        with pytest.raises(LabError, match=r"run.json cannot be read"):
            open_run(tmp_path)
    predict_dataset(make_segmenter(), dataset, folder=tmp_path / "run", progress=False)
    with pytest.raises(LabError, match="no sample P99-V1-F001"):
        open_run(tmp_path / "run").prediction("P99-V1-F001")


def test_damaged_logits_are_noticed(dataset, make_segmenter, tmp_path):
    run = predict_dataset(make_segmenter(), dataset, folder=tmp_path / "run", progress=False)
    (tmp_path / "run" / "logits" / "P01-V1-F001.npz").write_bytes(
        (tmp_path / "run" / "logits" / "P01-V1-F002.npz").read_bytes()
    )
    (tmp_path / "run" / "logits" / "P02-V1-F001.npz").unlink()
    with pytest.raises(LabError, match="hash differs"):
        run.prediction("P01-V1-F001")
    with pytest.raises(LabError, match="is missing"):
        run.prediction("P02-V1-F001")


@pytest.mark.parametrize("torn", [b"", b'{"id": "P0', b'{"id": "P02-V1-F002"}\n', b"\0" * 40, b"\0" * 40 + b"\n"])
@pytest.mark.parametrize("whole", [0, 1, 3])
def test_what_a_kill_leaves_behind_is_taken_up_again(dataset, make_segmenter, tmp_path, torn, whole):
    """Every state between two steps of writing: a logits file without its line, half a file, half a line."""
    straight = tmp_path / "straight"
    predict_dataset(make_segmenter(), dataset, folder=straight, progress=False)
    killed = tmp_path / "killed"
    shutil.copytree(straight, killed)
    lines = (killed / "samples.jsonl").read_bytes().splitlines(keepends=True)
    (killed / "samples.jsonl").write_bytes(b"".join(lines[:whole]) + torn)
    for place, path in enumerate(sorted((killed / "logits").iterdir())):
        if place > whole:  # the logits of the sample in flight may be there already
            path.unlink()
    (killed / "logits" / "P03-V1-F001.npz.part").write_bytes(b"half")
    (killed / "run.json.part").write_bytes(b"half")
    assert len(open_run(killed).records) == whole  # readable as it is
    segmenter = make_segmenter()
    predict_dataset(segmenter, dataset, folder=killed, progress=False)
    assert len(segmenter.seen) == 6 - whole
    assert contents(killed) == contents(straight)
    assert len(open_run(killed).meta["resumed"]) == 1
    assert not list(killed.rglob("*.part"))


def test_a_line_is_written_after_its_logits_and_not_before(dataset, make_segmenter, tmp_path, monkeypatch):
    replace = os.replace

    def fail_at_third(source, target):
        if Path(target).name == "P02-V1-F001.npz":
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail_at_third)
    with pytest.raises(LabError, match="No space left on device"):
        predict_dataset(make_segmenter(), dataset, folder=tmp_path / "run", progress=False)
    assert [record["id"] for record in open_run(tmp_path / "run").records] == ["P01-V1-F001", "P01-V1-F002"]


def test_a_start_that_was_killed_before_its_first_file_is_no_obstacle(dataset, make_segmenter, tmp_path):
    (tmp_path / "run" / "logits").mkdir(parents=True)
    (tmp_path / "run" / "run.json.part").write_bytes(b"half")
    (tmp_path / "run" / ".lock").touch()
    assert predict_dataset(make_segmenter(), dataset, folder=tmp_path / "run", progress=False).finished


def test_damage_in_the_middle_is_not_taken_for_a_torn_line(dataset, make_segmenter, tmp_path):
    predict_dataset(make_segmenter(), dataset, folder=tmp_path / "run", progress=False)
    lines = (tmp_path / "run" / "samples.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "run" / "samples.jsonl").write_bytes(b"".join([lines[0], b"{]\n", *lines[2:]]))
    with pytest.raises(LabError, match="line 2 of .* is damaged"):
        open_run(tmp_path / "run")


def wait_for_lines(folder, count, process):
    """Until so many samples are recorded."""
    lines, patience = folder / "samples.jsonl", time.monotonic() + 60
    while not lines.exists() or lines.read_bytes().count(b"\n") < count:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < patience
        time.sleep(0.002)


def test_kill_9_at_random_moments_loses_the_sample_in_flight_at_most(
    make_dataset, make_segmenter, start_process, tmp_path
):
    root = make_dataset(count=24, side=16)
    dataset, folder = open_dataset(root), tmp_path / "run"
    moments = random.Random(7)
    recorded = 0
    for _ in range(3):
        process = start_process(root, folder, pause=0.004)
        wait_for_lines(folder, recorded + moments.randint(1, 4), process)
        time.sleep(moments.uniform(0, 0.02))
        process.kill()
        assert process.wait() == -9
        run = open_run(folder)
        assert len(run.records) > recorded  # what was recorded stays recorded
        recorded = len(run.records)
        assert recorded < 24, "the process was done before it was killed"
        for record in run.records:
            assert run.prediction(record["id"]).n_seg == 1  # a line is never there before its logits
    run = predict_dataset(make_segmenter(), dataset, folder=folder, progress=False)
    assert len(run.meta["resumed"]) == 3
    predict_dataset(make_segmenter(), dataset, folder=tmp_path / "straight", progress=False)
    assert contents(folder) == contents(tmp_path / "straight")


def test_a_second_process_is_refused_until_the_first_is_gone(make_dataset, make_segmenter, start_process, tmp_path):
    root = make_dataset()
    process = start_process(root, tmp_path / "run", pause=30.0)
    patience = time.monotonic() + 60
    while not (tmp_path / "run" / "samples.jsonl").exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < patience
        time.sleep(0.01)
    with pytest.raises(LabError, match="another process is writing"):
        predict_dataset(make_segmenter(), open_dataset(root), folder=tmp_path / "run", progress=False)
    second = start_process(root, tmp_path / "run")
    assert "another process is writing" in second.communicate()[1]
    assert second.returncode == 1
    process.kill()
    process.wait()
    assert predict_dataset(make_segmenter(), open_dataset(root), folder=tmp_path / "run", progress=False).finished


@pytest.mark.parametrize("largest", [1_000, 9_000])
def test_a_full_disk_is_one_sentence_and_the_run_goes_on_later(
    make_dataset, make_segmenter, start_process, tmp_path, largest
):
    root = make_dataset(count=30, side=16)
    open_dataset(root)  # writes the key file, so that the run is what meets the full disk
    process = start_process(root, tmp_path / "run", largest_file=largest)
    said = process.communicate()[1]
    assert process.returncode == 1
    assert "cannot be written (File too large)" in said
    assert "Traceback" not in said
    segmenter = make_segmenter()
    run = predict_dataset(segmenter, open_dataset(root), folder=tmp_path / "run", progress=False)
    assert run.finished
    assert len(run.records) == 30
    assert (len(segmenter.seen) < 30) == (largest > 1_000)  # what fitted was kept


def test_progress_shows_images(dataset, make_segmenter, tmp_path, capsys):
    predict_dataset(make_segmenter(), dataset, folder=tmp_path / "run")
    assert "6/6" in capsys.readouterr().err


def test_the_code_is_named(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.invalid"]
        subprocess.run(["git", "-C", tmp_path, *identity, *arguments], check=True, capture_output=True)

    assert read_git_state(tmp_path)["commit"] is None
    git("init")
    assert read_git_state(tmp_path) == {"commit": None, "dirty": None, "reason": "no git checkout with a commit"}
    (tmp_path / "code.py").write_text("1")
    git("add", ".")
    git("commit", "-m", "first")
    state = read_git_state(tmp_path)
    assert len(state["commit"]) == 40
    assert state["dirty"] is False
    (tmp_path / "code.py").write_text("2")
    assert read_git_state(tmp_path) == {"commit": state["commit"], "dirty": True, "reason": "uncommitted changes"}
    (tmp_path / "below").mkdir()
    assert "checkout of its own" in read_git_state(tmp_path / "below")["reason"]


class Together:
    """A segmenter whose logits hang on what lies in one batch with an image, as rounding makes them."""

    def __init__(self, make_segmenter, *, fails=()):
        self.one, self.fails, self.batches = make_segmenter(), fails, []
        self.provenance = self.one.provenance

    def predict(self, image, prompt):
        return next(self.predict_many([image], prompt, batch=1))

    def predict_many(self, images, prompt, *, batch):
        assert len(images) <= batch
        self.batches.append([image.name for image in images])
        if set(self.batches[-1]) & set(self.fails):
            raise MemoryError("no room")
        for image in images:
            made = self.one.predict(image, prompt)
            yield Prediction(made.logits + np.float32(sum(map(len, map(str, images)))), made.size, made.answer)


@pytest.mark.parametrize("whole", [0, 1, 2, 3, 4, 5])
def test_batches_are_the_same_images_wherever_a_kill_cut(make_dataset, make_segmenter, tmp_path, whole):
    dataset, how = open_dataset(make_dataset()), {"batch": 4, "progress": False}
    straight, killed = Together(make_segmenter), tmp_path / "killed"
    predict_dataset(straight, dataset, folder=tmp_path / "straight", **how)
    assert [len(batch) for batch in straight.batches] == [4, 2]
    shutil.copytree(tmp_path / "straight", killed)
    lines = (killed / "samples.jsonl").read_bytes().splitlines(keepends=True)
    (killed / "samples.jsonl").write_bytes(b"".join(lines[:whole]))
    again = Together(make_segmenter)
    predict_dataset(again, dataset, folder=killed, progress=False)  # "auto": as the run was begun
    assert again.batches == straight.batches[whole // 4 :]
    assert contents(killed) == contents(tmp_path / "straight")
    with pytest.raises(LabError, match=r"other batch \(4 there, 1 here\)"):
        predict_dataset(again, dataset, folder=killed, batch=1, progress=False)


def test_a_segmenter_chooses_its_batch_and_hears_what_comes_next(make_dataset, make_segmenter, tmp_path):
    dataset, segmenter, heard = open_dataset(make_dataset()), Together(make_segmenter), []
    segmenter.choose_batch = lambda: (4, "4: four fit")
    segmenter.prepare = lambda images: heard.append([image.name for image in images])
    run = predict_dataset(segmenter, dataset, folder=tmp_path / "run", progress=False)
    assert (run.meta["batch"], run.meta["batch_reason"]) == (4, "4: four fit")
    first, last = segmenter.batches
    assert heard == [first + last, last]  # those asked about now are told again, else they would be given back
    plain = predict_dataset(make_segmenter(), dataset, folder=tmp_path / "plain", progress=False)
    assert plain.meta["batch"] == 1
    assert "one image at a time" in plain.meta["batch_reason"]


@pytest.mark.parametrize("batch", [1, 2])
def test_pixels_of_a_run_are_made_beside_the_network(tiny_folder, drawn_data, tmp_path, monkeypatch, batch):
    """Each image once, and none by the thread that the network runs in."""
    made, asked = [], load(tiny_folder, precision="fp32", device="cpu")
    monkeypatch.setattr(asked, "keep_draft", lambda *first: contextlib.nullcontext())
    monkeypatch.setattr(asked.model, "encode_canvas", lambda canvas: pytest.fail("no [SEG] was asked for"))
    ask = partial(type(asked).predict_many, asked, answer="None.")
    monkeypatch.setattr(asked, "predict_many", ask)
    monkeypatch.setattr(asked, "predict", lambda image, prompt: next(ask([image], prompt, batch=1)))
    real = processing.read_image
    seen = lambda source: made.append((source, threading.current_thread().name)) or real(source)  # noqa: E731
    monkeypatch.setattr(processing, "read_image", seen)
    dataset = open_dataset(drawn_data)
    predict_dataset(asked, dataset, folder=tmp_path / "run", batch=batch, progress=False)
    assert [source for source, _ in made] == [sample.image for sample in dataset.samples]
    assert all(thread.startswith("pixels") for _, thread in made)


def test_one_image_does_not_cost_the_others_of_its_batch(make_dataset, make_segmenter, tmp_path):
    dataset, bad = open_dataset(make_dataset()), "INVENTED-P00_001.png"
    segmenter = Together(make_segmenter, fails=[bad])
    run = predict_dataset(segmenter, dataset, folder=tmp_path / "run", batch=3, progress=False)
    assert len(run.failed_ids) == 1
    assert [len(batch) for batch in segmenter.batches] == [3, 1, 1, 1, 3]
    assert run.finished


def test_what_needs_no_model_is_refused_without_one(dataset, make_segmenter, tmp_path):
    predict_dataset(make_segmenter(), dataset, folder=tmp_path / "run", progress=False)
    for how, said in (
        ({"prompt": ""}, "prompt is empty"),
        ({"split": "val"}, 'no split "val"'),
        ({"batch": 0}, "batch is 0"),
        ({"prompt": "dark 40"}, "other prompt"),
        ({"limit": 2}, r"other images .6, \w+ there, 2, \w+ here"),
    ):
        with pytest.raises(LabError, match=said):
            check_request(dataset, folder=tmp_path / "run", **how)
    assert len(check_request(dataset, folder=tmp_path / "new", limit=2)[0]) == 2
    assert not (tmp_path / "new").exists()


def test_an_image_is_read_once_for_its_hash(make_dataset, make_segmenter, tmp_path, monkeypatch):
    dataset, hashed = open_dataset(make_dataset()), []
    for sample in dataset:
        os.utime(sample.image, (1, 1))
    monkeypatch.setattr(files, "SETTLED", -1)  # as if the images had been written a while ago
    digest = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda handle, how: hashed.append(handle.name) or digest(handle, how))
    predict_dataset(make_segmenter(), dataset, folder=tmp_path / "run", progress=False)
    assert sorted(hashed) == sorted(str(sample.image) for sample in dataset)
