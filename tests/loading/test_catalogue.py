"""The released models: what follows from their sizes against what was published of them."""

import json

import pytest

import sa2va_lab
from sa2va_lab.errors import LabError
from sa2va_lab.loading.catalogue import find_released, read_catalogue
from sa2va_lab.sa2va.parts import part_of

OF_THE_BASE = ("vision", "projector", "language", "embed_tokens", "lm_head")


@pytest.fixture(params=read_catalogue())
def released(request):
    """Each released model."""
    return read_catalogue()[request.param]


def test_counts_are_the_published_ones(released):
    """Of the base alone, as its authors count it: with five words more here, and a head of its own where theirs is the
    table of words. Of the whole, rounded to a billion on the hub. Of the folder, in bytes, where that is known."""
    parts = {}
    for name, tensor in released.tensors.items():
        parts[part_of(name)] = parts.get(part_of(name), 0) + tensor.parameters
    tied = "tied" in released.raw["base_count_from"]
    base = sum(parts[part] for part in OF_THE_BASE if not (tied and part == "lm_head"))
    assert base == pytest.approx(released.raw["base_count"], rel=0.002)
    width = released.sizes.language["hidden_size"]
    assert parts["seg_projection"] == width * width + width + 256 * width + 256
    assert sum(count for part, count in parts.items() if part.startswith("sam2")) == 224_430_386  # with 256 not learnt
    assert round(released.parameters / 1e9) == released.raw["label"]
    if "bytes" in released.raw:
        assert released.mapped_bytes() == pytest.approx(released.raw["bytes"], rel=0.001)


def test_every_number_has_its_source():
    for model in read_catalogue().values():
        assert all(model.raw[f"{key}_from"] for key in ("sizes", "base_count"))
        assert ("bytes" in model.raw) == ("bytes_from" in model.raw)


def test_the_recorded_folder_is_rebuilt_to_the_tensor(root):
    """Names and shapes of all 1,589 tensors of a folder as released."""
    recorded = json.loads((root / "tests/parity/internvl3_8b_tensors.json").read_text())
    tensors = read_catalogue()["Sa2VA-InternVL3-8B"].tensors
    assert {name: list(tensor.shape) for name, tensor in tensors.items()} == recorded
    assert read_catalogue()["Sa2VA-InternVL3-8B"].parameters == 8_182_606_130


def test_a_plan_needs_a_name_only(monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("the network was asked"))
    made = sa2va_lab.plan("ByteDance/Sa2VA-8B", gpu="24GiB")
    best = made.rungs[made.chosen]
    assert (best.precision, best.where, best.fits) == ("bf16", "cuda:0", True)
    assert best.shares[0].weights == 2 * (8_317_666_610 + 256)
    assert made.to_dict() == sa2va_lab.plan("Sa2VA-8B", gpu="24GiB").to_dict()


def test_a_folder_of_that_name_goes_before(tmp_path, monkeypatch):
    (tmp_path / "Sa2VA-8B").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_released("Sa2VA-8B") is None
    with pytest.raises(LabError, match=r"has no config\.json|has no \*\.safetensors"):
        sa2va_lab.plan("Sa2VA-8B", gpu="24GiB")


def test_a_name_that_nothing_has():
    with pytest.raises(
        LabError, match="Sa2VA-9B is neither a checkpoint here nor a released model: Sa2VA-1B, Sa2VA-4B"
    ):
        sa2va_lab.plan("Sa2VA-9B", gpu="24GiB")
