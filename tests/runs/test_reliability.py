"""Runs under what happens to machines: kills, full and read-only disks, clocks that jump; and what a Run may read."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sa2va_lab.datasets import open_dataset
from sa2va_lab.errors import LabError
from sa2va_lab.evaluation import evaluate_run
from sa2va_lab.loading.load import load
from sa2va_lab.paths import demo_data, demo_model
from sa2va_lab.runs import open_run, predict_dataset, write
from sa2va_lab.sa2va.weights import save_official
from tools.demo import tiny

ROOT = Path(__file__).resolve().parents[2]
HERE = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
KILLS, IMAGES = 20, 26
Forks = namedtuple("Forks", "start wait")


def contents(folder):
    """samples.jsonl without its times, line by line, and the bytes of every logits file."""
    lines = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    timeless = [json.dumps({name: value for name, value in line.items() if name != "seconds"}) for line in lines]
    return timeless, {path.name: path.read_bytes() for path in sorted((folder / "logits").iterdir())}


def grown(folder):
    """Logits files, and bytes of samples.jsonl."""
    lines = folder / "samples.jsonl"
    return len(list(folder.glob("logits/*.npz"))), lines.stat().st_size if lines.exists() else 0


@pytest.fixture(scope="module")
def forks(tmp_path_factory):
    """start(data, folder) -> pid of a process that predicts with the tiny network; wait() -> its exit status."""
    base = tmp_path_factory.mktemp("small")
    raw = tiny.write_tokenizer(base / "tokenizer")
    raw["sa2va_lab"]["canvas"] = 128  # a sixteenth of the demo's pixels: twenty-odd images take seconds
    model = save_official(tiny.build(raw), base / "model", config=raw, tokenizer=base / "tokenizer")
    command = [sys.executable, str(Path(__file__).with_name("forking.py")), str(model)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=HERE, **pipes) as process:
        assert process.stdout.readline() == "ready\n"

        def start(data, folder, *, opened=os.devnull, peek=False, batch="auto", track=False):
            print(json.dumps([str(data), str(folder), str(opened), peek, batch, track]), file=process.stdin, flush=True)
            return int(process.stdout.readline())

        yield Forks(start, lambda: int(process.stdout.readline()))
        process.stdin.close()


@pytest.mark.slow
@pytest.mark.parametrize(("batch", "kills"), [(1, KILLS), (4, 6)])
def test_twenty_kills_and_every_sample_exactly_once(forks, make_dataset, tmp_path, batch, kills):
    """The network's own processes, killed at seeded moments: half of them anywhere from the start on, half of them
    within milliseconds of what is written first for a sample, before or after what belongs to it."""
    data, folder, straight = make_dataset(count=IMAGES, side=16), tmp_path / "run", tmp_path / "straight"
    begun = time.monotonic()
    forks.start(data, straight, batch=batch)
    assert forks.wait() == 0
    an_image = (time.monotonic() - begun) / IMAGES
    moments = random.Random(20)
    for number in range(kills):
        before = grown(folder)
        pid = forks.start(data, folder, batch=batch)
        if number % 2:
            time.sleep(moments.uniform(0, 2 * an_image))
        else:
            patience = time.monotonic() + 60
            while grown(folder) == before and time.monotonic() < patience:
                time.sleep(0.0005)
            time.sleep(moments.uniform(0, 0.003))
        os.kill(pid, signal.SIGKILL)
        assert forks.wait() == -signal.SIGKILL, "it was done before it was killed"
    run = open_run(folder)
    assert 0 < len(run.records) < IMAGES
    for record in run.records:
        assert run.prediction(record["id"]).n_seg == 1  # a line is never there before its logits
    forks.start(data, folder, batch=batch)
    assert forks.wait() == 0
    assert contents(folder) == contents(straight)
    assert [record["id"] for record in open_run(folder).records] == open_run(straight).sample_ids
    assert len((folder / "samples.jsonl").read_bytes().splitlines()) == IMAGES
    assert not list(folder.rglob("*.part"))


@pytest.mark.slow
def test_kills_in_a_film_and_the_same_bytes(forks, tmp_path):
    """The network's own memory of a film: what a kill cut through is tracked again from the film's first frame."""
    data, folder, straight = tmp_path / "data", tmp_path / "run", tmp_path / "straight"
    for name in ("images", "masks"):
        (data / name).mkdir(parents=True)
    for film, shade in {"A_V1": 40, "A_V2": 90, "B_V1": 140}.items():
        for number in range(1, 11):
            pixels = np.full((16, 16), 200, np.uint8)
            pixels[2:9, number % 9 :][:, :6] = shade + number
            name = f"INVENTED_{film}_F{number}.png"
            Image.fromarray(pixels).save(data / "images" / name)
            Image.fromarray((pixels < 200).astype(np.uint8) * 255).save(data / "masks" / name)
    forks.start(data, straight, track=True)
    assert forks.wait() == 0
    moments, inside = random.Random(5), 0
    for _ in range(6):
        before = grown(folder)
        pid = forks.start(data, folder, track=True)
        patience = time.monotonic() + 60
        while grown(folder) == before and time.monotonic() < patience:
            time.sleep(0.0005)
        time.sleep(moments.uniform(0, 0.02))
        os.kill(pid, signal.SIGKILL)
        assert forks.wait() == -signal.SIGKILL, "it was done before it was killed"
        inside += 0 < len(open_run(folder).records) % 10
    assert inside
    forks.start(data, folder, track=True)
    assert forks.wait() == 0
    assert contents(folder) == contents(straight)
    assert [record["frame"] for record in open_run(folder).records] == [*range(1, 11)] * 3


@pytest.mark.slow
def test_where_a_start_began_moves_no_bit(tmp_path):
    """The demo's network answers by itself here, and a draft of another kind is left over from an earlier question."""
    segmenter = load(demo_model(), device="cpu", precision="fp32", progress=False)
    dataset, straight = open_dataset(demo_data()), tmp_path / "straight"
    how = {"limit": 3, "progress": False}
    predict_dataset(segmenter, dataset, folder=straight, **how)
    for done in (1, 2):
        folder = shutil.copytree(straight, tmp_path / f"after {done}")
        lines = (folder / "samples.jsonl").read_bytes().splitlines(keepends=True)
        (folder / "samples.jsonl").write_bytes(b"".join(lines[:done]))
        segmenter.draft = segmenter.reader.answer_ids("There is no catheter in this image.")
        predict_dataset(segmenter, dataset, folder=folder, **how)
        assert contents(folder) == contents(straight)


@pytest.mark.slow
def test_predicting_opens_images_and_no_truth(forks, drawn_data, tmp_path):
    """What is shown: from before the data set is opened until the Run is finished, no Python code of the predicting
    process opens a mask. What is not: files that a library in C or Rust opens itself are not seen by an audit hook
    (the weights are such files), and of a data set of outlines the process holds the outlines that it read itself."""
    data = shutil.copytree(drawn_data, tmp_path / "data")
    opened = {}
    for peek in (False, True):
        forks.start(data, tmp_path / f"run {peek}", opened=tmp_path / "opened.json", peek=peek)
        assert forks.wait() == 0
        paths = [Path(path) for path in json.loads((tmp_path / "opened.json").read_text())]
        opened[peek] = {path.relative_to(data).parts[0] for path in paths if data in path.parents}
        images = {path for path in paths if path.parent == data / "images"}
        assert images == set((data / "images").iterdir())
    assert "masks" not in opened[False]
    assert "masks" in opened[True]  # the same process, one truth looked at: the hook would have seen it


def run_on(mount: str, place: Path, *command) -> subprocess.CompletedProcess:
    """Runs a command with `mount` done on `place`, in a mount namespace of its own: root is not exempt from it."""
    words = ["unshare", "--map-root-user", "--mount", "sh", "-c", f'{mount} "$0" && exec "$@"', str(place)]
    try:
        probe = subprocess.run([*words, "true"], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no unshare here (util-linux)")
    if probe.returncode:
        pytest.skip(f"no mount namespace for this user: {probe.stderr.strip()}")
    return subprocess.run([*words, *map(str, command)], capture_output=True, text=True, env=HERE)


def predicting(data, folder) -> list:
    return [sys.executable, ROOT / "tests" / "conftest.py", data, folder, "0", "0"]


@pytest.mark.slow
def test_a_disk_that_is_really_full(make_dataset, make_segmenter, tmp_path):
    """A file system of 64 KiB, which the Run outgrows; what it had is kept, and goes on elsewhere."""
    data, place = make_dataset(count=40, side=16), tmp_path / "disk"
    open_dataset(data)
    place.mkdir()
    kept = tmp_path / "kept"
    script = f'"$@"; status=$?; cp -r {place}/run {kept}; exit $status'
    mount = "mount -t tmpfs -o size=64k none"
    done = run_on(mount, place, "sh", "-c", script, "sh", *predicting(data, place / "run"))
    assert done.returncode == 1
    assert "cannot be written (No space left on device)" in done.stderr
    assert "Traceback" not in done.stderr
    before = len(open_run(kept).records)
    assert 0 < before < 40
    segmenter = make_segmenter()
    assert predict_dataset(segmenter, open_dataset(data), folder=kept, progress=False).finished
    assert len(segmenter.seen) == 40 - before
    predict_dataset(make_segmenter(), open_dataset(data), folder=tmp_path / "straight", progress=False)
    assert contents(kept) == contents(tmp_path / "straight")


READ_ONLY = 'bind() { mount --bind "$1" "$1" && mount -o remount,bind,ro "$1"; }; bind'


@pytest.mark.slow
def test_a_read_only_folder_is_one_sentence_and_can_still_be_read(make_dataset, make_segmenter, tmp_path):
    data, place = make_dataset(), tmp_path / "archive"
    place.mkdir()
    predict_dataset(make_segmenter(), open_dataset(data), folder=place / "whole", progress=False)
    cut = shutil.copytree(place / "whole", place / "cut")
    lines = (cut / "samples.jsonl").read_bytes().splitlines(keepends=True)
    (cut / "samples.jsonl").write_bytes(b"".join(lines[:2]))
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    for name in ("new", "cut"):
        done = run_on(READ_ONLY, place, *predicting(data, place / name))
        assert done.returncode == 1
        assert "cannot be written (Read-only file system)" in done.stderr
        assert "Traceback" not in done.stderr
    assert run_on(READ_ONLY, place, *predicting(data, place / "whole")).returncode == 0  # nothing is to be done there
    words = [sys.executable, "-m", "sa2va_lab.cli", "evaluate", place / "whole", "--data", data]
    done = run_on(READ_ONLY, place, *words)
    assert done.returncode == 0, done.stderr
    assert "6 images of 3 patients" in done.stdout
    assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before


def test_logits_that_were_damaged_since_are_in_no_number(make_dataset, make_segmenter, tmp_path):
    """One bit, half a file, none: each is named, and neither scored nor taken for an empty mask."""
    dataset, folder = open_dataset(make_dataset()), tmp_path / "run"
    run = predict_dataset(make_segmenter(), dataset, folder=folder, progress=False)
    path = folder / "logits" / f"{run.sample_ids[2]}.npz"
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for content in (bytes(flipped), whole[: len(whole) // 2], b""):
        path.write_bytes(content)
        with pytest.raises(LabError, match=f"{path.name} is not what was predicted"):
            evaluate_run(run, dataset)
    path.unlink()
    with pytest.raises(LabError, match=f"{path.name} is not what was predicted .*missing"):
        evaluate_run(run, dataset)


def test_a_clock_that_jumps_changes_nothing_but_what_it_says(make_dataset, make_segmenter, tmp_path, monkeypatch):
    """Years back between two starts: the Run goes on, and nothing is done twice, lost or measured as negative."""
    dataset, folder = open_dataset(make_dataset()), tmp_path / "run"

    class Jumping(datetime):
        now_is = datetime(2026, 5, 4, tzinfo=UTC)

        @classmethod
        def now(cls, tz=None):
            cls.now_is -= timedelta(days=900)
            return cls.now_is

    class Stopping(make_segmenter):
        def predict(self, image, prompt):
            if len(self.seen) == 2:
                raise KeyboardInterrupt
            return super().predict(image, prompt)

    monkeypatch.setattr(write, "datetime", Jumping)
    with contextlib.suppress(KeyboardInterrupt):
        predict_dataset(Stopping(), dataset, folder=folder, progress=False)
    segmenter = make_segmenter()
    run = predict_dataset(segmenter, dataset, folder=folder, progress=False)
    assert run.meta["finished"] < run.meta["resumed"][0]["started"] < run.meta["started"]  # as the clock said
    assert len(segmenter.seen) == 4
    assert [record["id"] for record in run.records] == run.sample_ids
    assert all(spent >= 0 for record in run.records for spent in record["seconds"].values())
    assert predict_dataset(make_segmenter(), dataset, folder=folder, progress=False).meta == run.meta
