"""The 8.18 B sizes on a card of 24 GB: does it fit, what does it take, how fast is it.

    python -m pytest --noconftest -s -m gpu tests/gpu

needs torch, transformers, accelerate, safetensors, numpy, PIL and pytest, 16 GB of disk, and prints what belongs into
benchmarks/RESULTS.md. Without a card the same function is run on a tiny network.
"""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import full_size

CARD = int(23.68 * (1 << 30))  # what a card of 24 GB shows
card = pytest.mark.skipif(not torch.cuda.is_available(), reason="not run: no CUDA device")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return full_size.write_full_size(tmp_path_factory.mktemp("full") / "model")


def measure(folder, **how):
    """What the tests below hold to be so, printed; on any device and any size of network."""
    made = full_size.measure(folder, **how)
    print("\n" + full_size.as_text(made))
    said = sum(share["total"] for share in made["forecast"])
    assert made["memory"]["peak_bytes"] is None or made["memory"]["peak_bytes"] > 0
    assert all(spent > 0 for spent in made["seconds"].values())
    assert {"vision", "answer", "canvas", "masks"} == set(made["flops"])
    assert made["rate"] > 0 or made["where"].endswith("files")
    return made, said


@card
@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_sixteen_bits_fit_a_card_of_24_gb(folder, precision):
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, CARD / total), 0)
    made, said = measure(folder, precision=precision, device="cuda:0", max_memory={"cuda:0": "23.68GiB"})
    assert made["precision"] == precision  # no rung further down
    assert made["where"] == "cuda:0"
    assert made["memory"]["peak_bytes"] <= min(CARD, said)
    assert made["memory"]["peak_bytes"] > 0.9 * sum(share["weights"] for share in made["forecast"])


@card
@pytest.mark.gpu
def test_layers_that_do_not_fit_stay_in_the_files(folder):
    made, _ = measure(folder, precision="bf16", repeats=1, max_memory={"cuda:0": "8GiB"})
    assert made["where"] == "cuda:0 + files"
    assert made["memory"]["peak_bytes"] <= 8 << 30


@card
@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="not run: fewer than two CUDA devices")
def test_layers_spread_over_all_cards(folder):
    made, _ = measure(folder, precision="bf16", gpus=torch.cuda.device_count(), spread=True)
    assert len(made["forecast"]) == torch.cuda.device_count()


def test_the_same_on_a_tiny_network(tmp_path):
    from sa2va_lab.sa2va.weights import save_official
    from tools.demo import tiny

    raw = tiny.write_tokenizer(tmp_path / "tokenizer")
    small = save_official(tiny.build(raw), tmp_path / "model", config=raw, tokenizer=tmp_path / "tokenizer")
    made, _ = measure(small, precision="fp32", device="cpu", repeats=1)
    assert made["flops"]["canvas"] > made["flops"]["masks"] > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a card `make gpu` itself is run")
def test_make_gpu_runs_its_small_form_without_a_card(capsys):
    import gpu

    before = gpu.RESULTS.read_bytes()
    text = gpu.main()
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ") and "---" not in line]
    assert [row[0] for row in rows] == ["| plan", "| fp32", "| bf16, two [SEG]", "| int8"]
    assert all(float(row[2]) > 0 for row in rows[1:])
    assert float(rows[1][8]) > 0  # one of a data set
    assert {name for name, _ in gpu.PLANS} >= {"bf16", "fp16", "fp32", "int8", "nf4", "bf16, compiled", "bf16, 8 GiB"}
    assert "not run: no CUDA device" in text
    assert gpu.RESULTS.read_bytes() == before
