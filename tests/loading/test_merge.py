"""What is written is what would have been run: equal logits, exact sums, whole folders or none."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch

import sa2va_lab
from sa2va_lab.errors import LabError
from sa2va_lab.loading.checkpoint import Checkpoint
from sa2va_lab.loading.inventory import read_inventory
from sa2va_lab.loading.merge import RECORD, check_merge, merge
from sa2va_lab.loading.whole import open_whole
from sa2va_lab.sa2va.weights import write_folder

Q_PROJ = "language_model.model.layers.1.self_attn.q_proj.weight"


def test_the_demo_merged_predicts_as_it_does_on_the_fly(root, tmp_path):
    """Equal logits in float32, not nearly equal ones; alpha comes from the .pth itself."""
    (tuned,) = (root / "data/demo").glob("iter_*.pth")
    base = root / "data/demo/base"
    said = merge(base, tmp_path / "merged", finetune=tuned, precision="fp32", shard_bytes=1 << 22)
    assert said["largest_difference"] <= said["allowed"] < 1e-4
    image = sorted((root / "data/demo/angiograms/images").iterdir())[0]
    asked = {"answer": "Sure, [SEG]."}
    fresh = sa2va_lab.load(tmp_path / "merged", precision="fp32").predict(image, "blood vessel", **asked)
    flying = sa2va_lab.load(base, finetune=tuned, precision="fp32").predict(image, "blood vessel", **asked)
    plain = sa2va_lab.load(base, precision="fp32").predict(image, "blood vessel", **asked)
    assert np.array_equal(fresh.logits, flying.logits)
    assert not np.array_equal(fresh.logits, plain.logits)
    assert len(list((tmp_path / "merged").glob("*.safetensors"))) > 1
    found = read_inventory(tmp_path / "merged")
    assert found.complete
    assert found.parameters == read_inventory(base).parameters


def test_every_tensor_is_base_plus_scale_b_a(tiny_folder, pth, tmp_path):
    merge(tiny_folder, tmp_path / "out", finetune=pth, lora_alpha=6, precision="fp32")
    written = Checkpoint(tmp_path / "out")
    wanted = open_whole(tiny_folder, finetune=pth, lora_alpha=6)
    assert written.names() == wanted.names()
    assert all(torch.equal(written.tensor(name), wanted.tensor(name)) for name in wanted.names())
    record = json.loads((tmp_path / "out" / RECORD).read_text())
    assert (record["finetune"]["file"], record["finetune"]["scale"]) == ("iter_24.pth", 3.0)


def test_without_a_fine_tune_it_converts(tiny_folder, tmp_path):
    said = merge(tiny_folder, tmp_path / "half", precision="bf16")
    found = read_inventory(tmp_path / "half")
    assert {dtype for part in found.parts for dtype in part.dtypes} == {"bf16"}
    assert said["bytes"] == found.bytes == read_inventory(tiny_folder).bytes // 2
    assert json.loads((tmp_path / "half/config.json").read_text())["torch_dtype"] == "bfloat16"
    wanted = Checkpoint(tiny_folder).tensor(Q_PROJ).bfloat16()
    assert torch.equal(Checkpoint(tmp_path / "half").tensor(Q_PROJ), wanted)


def test_the_check_finds_a_wrong_merge(tiny_folder, pth, tmp_path):
    """The same fine-tune at another scale, and at one bit's difference of what rounding allows."""
    merge(tiny_folder, tmp_path / "out", finetune=pth, lora_alpha=6, precision="fp32")
    other = open_whole(tiny_folder, finetune=pth, lora_alpha=6.01)
    with pytest.raises(LabError, match="more than rounding explains"):
        check_merge(tmp_path / "out", other, dtype=torch.float32)


def test_no_scale_no_merge(tiny_folder, pth, tmp_path):
    with pytest.raises(LabError, match="--lora-alpha"):
        merge(tiny_folder, tmp_path / "out", finetune=pth)
    assert list(tmp_path.iterdir()) == [pth]


def test_a_full_disk_is_told_before_anything_is_written(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Disk", (), {"free": 1000}))
    with pytest.raises(LabError, match=r"needs 0\.1 GB and its disk has 0\.0 GB"):
        merge(tiny_folder, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_nothing_half_written_stays(tmp_path, tiny_folder):
    def make(name):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_folder(tmp_path / "out", make, {"a": 4}, config={}, tokenizer=tiny_folder)
    assert not list(tmp_path.iterdir())


def test_a_folder_in_use_is_left_alone(tiny_folder, tmp_path):
    (tmp_path / "mine").write_text("kept")
    with pytest.raises(LabError, match="not empty"):
        merge(tiny_folder, tmp_path)
    assert (tmp_path / "mine").read_text() == "kept"


def test_command(tiny_folder, pth, tmp_path, capsys, monkeypatch):
    from sa2va_lab import cli

    words = ["sa2va-lab", "merge", tiny_folder, tmp_path / "out", "--finetune", pth, "--lora-alpha", 4]
    monkeypatch.setattr(sys, "argv", [str(word) for word in words])
    with pytest.raises(SystemExit) as done:
        cli.main()
    said = capsys.readouterr().out
    assert not done.value.code
    assert "LoRA merged into 2 layers" in said
    assert "base + scale B A" in said


def test_a_precision_that_no_folder_has(tiny_folder, tmp_path):
    with pytest.raises(LabError, match="'int8' cannot be written: use fp32, bf16, fp16"):
        merge(tiny_folder, tmp_path / "out", precision="int8")
