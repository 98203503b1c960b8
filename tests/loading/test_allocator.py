"""What a card holds: torch's allocator by hand, and the forecast against what an H100 showed."""

import json
from types import SimpleNamespace

import pytest

from sa2va_lab.loading.allocator import MIB, Allocator
from sa2va_lab.loading.forecast import GIB, forecast
from sa2va_lab.loading.plan import climb_down
from sa2va_lab.loading.tensors import LazyTensor
from sa2va_lab.sa2va.families import find_family


@pytest.mark.parametrize(
    ("size", "taken", "held"),
    [
        (1, 512, 2 * MIB),
        (513, 1024, 2 * MIB),
        (MIB, MIB, 2 * MIB),
        (MIB + 1, MIB + 512, 20 * MIB),
        (10 * MIB, 10 * MIB, 10 * MIB),
        (135_790_592, 130 * MIB, 130 * MIB),  # 129.5 MiB, and half a MiB is no piece of its own
        (24 * MIB + MIB // 2, 24 * MIB + MIB // 2, 26 * MIB),  # but one and a half are
    ],
)
def test_one_tensor(size, taken, held):
    allocator = Allocator()
    allocator.take(size)
    assert (allocator.allocated, allocator.reserved) == (taken, held)


def test_what_is_given_back_is_used_again_and_neighbours_join():
    allocator = Allocator()
    three = [allocator.take(6 * MIB) for _ in range(3)]  # of one segment of 20 MiB
    for piece in (three[0], three[2], three[1]):
        allocator.give_back(*piece)
    assert (allocator.allocated, allocator.peak, allocator.reserved) == (0, 18 * MIB, 20 * MIB)
    allocator.take(20 * MIB)
    assert (allocator.allocated, allocator.peak, allocator.reserved) == (20 * MIB, 20 * MIB, 20 * MIB)
    allocator.take(2 * MIB)
    assert allocator.reserved == 40 * MIB


def test_the_smallest_piece_that_is_large_enough_is_taken():
    allocator = Allocator()
    large, wall = allocator.take(30 * MIB), allocator.take(20 * MIB)
    allocator.give_back(*large)
    allocator.give_back(*wall)
    allocator.take(12 * MIB)  # 8 MiB are left of the 20
    allocator.take(8 * MIB)
    allocator.take(30 * MIB)
    assert (allocator.allocated, allocator.reserved) == (50 * MIB, 50 * MIB)


# The full-size network on one NVIDIA H100 80GB, torch 2.11.0+cu130, transformers 5.17.0, bitsandbytes 0.50: the most
# that the allocator gave out (torch.cuda.max_memory_allocated), what it held more than that (max_memory_reserved), and
# what the card showed besides (nvidia-ml, less what the allocator held). Images of 512x512 and 800x800.
H100 = {  # precision, tiles: (GiB given out, share held more, MiB outside)
    ("bf16", 1): (15.58, 0.018, 695),
    ("bf16", 5): (15.66, None, 695),
    ("int8", 1): (9.46, 0.029, 759),
    ("nf4", 1): (6.55, 0.018, 695),
    ("fp32", 1): (31.13, None, 697),
}


@pytest.fixture(scope="module")
def full(root):
    """The full-size network, as released."""
    shapes = json.loads((root / "tests/parity/internvl3_8b_tensors.json").read_text())
    language = {"architectures": ["Qwen2ForCausalLM"], "num_hidden_layers": 28, "hidden_size": 3584}
    language |= {"intermediate_size": 18944, "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 151679}
    vision = {"num_hidden_layers": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16}
    raw = {"model_type": "sa2va_chat", "llm_config": language, "vision_config": vision}
    tensors = {name: LazyTensor(tuple(shape), "fp32", mapped=True) for name, shape in shapes.items()}
    return SimpleNamespace(tensors=tensors, sizes=find_family(raw).read(raw, "config.json"), mapped_bytes=lambda: 0)


@pytest.mark.parametrize(("precision", "tiles"), H100)
def test_the_h100_took_what_the_forecast_says(full, precision, tiles):
    given_out, more, outside = H100[precision, tiles]
    made = forecast(full.tensors, full.sizes, precision=precision, tiles=tiles)
    assert made.peak / GIB == pytest.approx(given_out, rel=0.005)
    assert made.context / MIB == pytest.approx(outside, rel=0.005)
    share = climb_down(full, budgets={"cuda:0": 80 * GIB}, precision=precision, tiles=tiles).rungs[0].shares[0]
    assert (share.peak, share.context) == (made.peak, made.context)
    assert (share.peak + share.context) / GIB == pytest.approx(given_out + outside / 1024, rel=0.005)
    if more is not None:
        assert share.needed / GIB == pytest.approx((1 + more) * given_out + outside / 1024, rel=0.02)
