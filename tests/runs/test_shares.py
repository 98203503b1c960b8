"""Several processes, one Run: without a network by hand, and with the tiny one under both launchers."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sa2va_lab.datasets import open_dataset
from sa2va_lab.errors import LabError
from sa2va_lab.loading.load import load
from sa2va_lab.paths import demo_model
from sa2va_lab.runs import check_request, open_run, predict_dataset
from sa2va_lab.runs.shares import Rank, check_share, claim_folder, find_rank, predict_share

BIN = Path(sys.executable).parent


def records_of(run):
    return [{name: value for name, value in record.items() if name != "seconds"} for record in run.records]


@pytest.fixture
def dataset(make_dataset):
    return open_dataset(make_dataset(count=6))


@pytest.fixture
def alone(dataset, make_segmenter, tmp_path):
    return predict_dataset(make_segmenter(), dataset, folder=tmp_path / "alone", progress=False)


@pytest.mark.parametrize("count", [2, 4, 9])
def test_shares_make_the_run_of_a_process_alone(dataset, alone, make_segmenter, tmp_path, count):
    segmenters = [make_segmenter() for _ in range(count)]
    made = [
        predict_share(one, dataset, rank=Rank(number, count), folder=tmp_path / "run", progress=False)
        for number, one in enumerate(segmenters)
    ]
    assert [run is None for run in made] == [number != min(count, 6) - 1 for number in range(count)]
    seen = [image for one in segmenters for image, _ in one.seen]
    assert sorted(seen) == sorted(sample.image for sample in dataset)
    assert max(len(one.seen) for one in segmenters) - min(len(one.seen) for one in segmenters[:6]) <= 1
    run = open_run(tmp_path / "run")
    assert records_of(run) == records_of(alone)
    assert run.meta["dataset"] == alone.meta["dataset"]
    assert [rank["images"] for rank in run.meta["ranks"]] == [len(one.seen) for one in segmenters[:6]]
    assert run.finished
    assert run.meta["finished"]
    for sample in dataset:
        assert (run.prediction(sample.id).logits == alone.prediction(sample.id).logits).all()
    assert sorted(path.name for path in run.folder.iterdir() if path.name[0] != ".") == [
        "logits",
        "run.json",
        "samples.jsonl",
    ]
    again = [make_segmenter() for _ in range(2)]
    opened = [
        predict_share(one, dataset, rank=Rank(n, 2), folder=run.folder, progress=False) for n, one in enumerate(again)
    ]
    assert opened[0].meta == run.meta
    assert opened[1] is None
    assert not any(one.seen for one in again)


def test_a_killed_share_is_resumed_and_nothing_is_done_twice(dataset, alone, make_segmenter, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    folder, dying = tmp_path / "run", make_segmenter()
    true = dying.predict

    def die_at_second(image, prompt):
        if len(dying.seen) == 1:
            raise Killed
        return true(image, prompt)

    monkeypatch.setattr(dying, "predict", die_at_second)
    with pytest.raises(Killed):
        predict_share(dying, dataset, rank=Rank(0, 2), folder=folder, progress=False)
    assert predict_share(make_segmenter(), dataset, rank=Rank(1, 2), folder=folder, progress=False) is None
    with pytest.raises(LabError, match="was begun by 2 processes, and this is one of 3: start 2 again"):
        predict_share(make_segmenter(), dataset, rank=Rank(0, 3), folder=folder, progress=False)
    check_share(dataset, folder=folder)  # as before the model is loaded to go on
    with pytest.raises(LabError, match="holds something else"):
        check_request(dataset, folder=folder)  # by a process alone
    second = make_segmenter()
    run = predict_share(second, dataset, rank=Rank(0, 2), folder=folder, progress=False)
    assert records_of(run) == records_of(alone)
    assert {image for image, _ in second.seen}.isdisjoint(image for image, _ in dying.seen)
    assert len(run.meta["resumed"]) == 1


def test_a_share_is_not_taken_from_a_process_that_still_writes(dataset, alone, make_segmenter, tmp_path):
    folder, how = tmp_path / "run", {"progress": False}
    predict_share(make_segmenter(), dataset, rank=Rank(1, 2), folder=folder, **how)
    meta = folder / "ranks" / "2of2" / "run.json"
    meta.write_text(json.dumps(json.loads(meta.read_text()) | {"finished": None}))  # after its last line
    assert predict_share(make_segmenter(), dataset, rank=Rank(0, 2), folder=folder, **how) is None
    assert records_of(predict_share(make_segmenter(), dataset, rank=Rank(1, 2), folder=folder, **how)) == records_of(
        alone
    )


def test_a_kill_while_the_shares_are_put_together_costs_nothing(dataset, alone, make_segmenter, tmp_path, monkeypatch):
    from sa2va_lab.runs import shares

    folder = tmp_path / "run"
    predict_share(make_segmenter(), dataset, rank=Rank(0, 2), folder=folder, progress=False)
    with monkeypatch.context() as patch:
        patch.setattr(shares, "seal_run", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            predict_share(make_segmenter(), dataset, rank=Rank(1, 2), folder=folder, progress=False)
    late = make_segmenter()
    run = predict_share(late, dataset, rank=Rank(1, 2), folder=folder, progress=False)
    assert records_of(run) == records_of(alone)
    assert not late.seen
    assert run.prediction(run.sample_ids[0]).n_seg == 1


def test_what_launchers_say():
    assert find_rank({}) is None
    assert find_rank({"RANK": "0", "WORLD_SIZE": "1"}) is None
    assert find_rank({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}) == Rank(5, 8, 1)
    for bad in ({"RANK": "2", "WORLD_SIZE": "2"}, {"WORLD_SIZE": "many"}, {"RANK": "-1", "WORLD_SIZE": "2"}):
        with pytest.raises(LabError, match="expected RANK from 0 to below WORLD_SIZE"):
            find_rank(bad)


def test_all_processes_find_one_folder(tmp_path):
    first = claim_folder(tmp_path / "runs", "mine")
    assert first.is_dir()
    assert claim_folder(tmp_path / "runs", "mine") == first
    assert claim_folder(tmp_path / "runs", "other") != first


def test_each_process_takes_a_gpu_of_its_machine(monkeypatch):
    import torch

    assert Rank(1, 2, 1).choose_device("cpu") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert [Rank(n, 8, n % 4).choose_device() for n in (0, 3, 5)] == ["cuda:0", "cuda:3", "cuda:1"]


@pytest.fixture(scope="module")
def alone_with_the_network(drawn_data, tmp_path_factory):
    """What one process alone makes of the drawn images."""
    segmenter = load(demo_model(), precision="fp32", device="cpu", progress=False)
    dataset = open_dataset(drawn_data, groups=r"p(\d+)_")
    return predict_dataset(segmenter, dataset, folder=tmp_path_factory.mktemp("alone") / "run", progress=False)


def free_port():
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return tried.getsockname()[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [
        [BIN / "torchrun", "--nproc-per-node", "2", "--master-port", "PORT", "-m", "--"],
        [BIN / "accelerate", "launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
         "--main_process_port", "PORT", "--mixed_precision", "no", "--dynamo_backend", "no", "-m"],
    ],
    ids=["torchrun", "accelerate"],
)  # fmt: skip
def test_launchers(root, launcher, drawn_data, alone_with_the_network, tmp_path):
    if not launcher[0].exists():
        pytest.skip(f"{launcher[0].name} is not installed beside python")
    words = ["sa2va_lab.cli", "predict", drawn_data, "--model", demo_model(), "--run", "mine", "--json"]
    words += ["--outputs", tmp_path, "--precision", "fp32", "--device", "cpu", "--groups", r"p(\d+)_"]
    words = [free_port() if word == "PORT" else word for word in [*launcher, *words]]
    here = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*map(str, words)], env=here, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    [folder] = (tmp_path / "runs").glob("*_mine")
    run = open_run(folder)
    assert run.finished
    assert [rank["images"] for rank in run.meta["ranks"]] == [3, 3]
    assert not run.failed_ids
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert told == [{"run": str(folder), "images": 6, "failed": 0}]
    others = {record["id"]: record for record in alone_with_the_network.records}
    assert set(others) == {record["id"] for record in run.records}
    for one in run.records:
        for key in ("answer", "n_seg", "image_sha256"):
            assert one[key] == others[one["id"]][key]
