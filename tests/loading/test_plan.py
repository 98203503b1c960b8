"""Forecast and ladder: arithmetic against what really lies in memory, and steps down with nothing lost."""

import json
import math
import re
import shutil
from contextlib import nullcontext
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import sa2va_lab
from sa2va_lab import cli
from sa2va_lab.errors import LabError
from sa2va_lab.loading import arithmetic, ladder
from sa2va_lab.loading import plan as plans
from sa2va_lab.loading.arithmetic import (
    WIDENED,
    Int8Linear,
    RowLinear,
    check_quantised,
    choose_products,
    set_arithmetic,
)
from sa2va_lab.loading.checkpoint import Checkpoint
from sa2va_lab.loading.devices import can_quantise, is_int8_faster, parse_size
from sa2va_lab.loading.forecast import GIB, weigh, weigh_loading
from sa2va_lab.loading.plan import plan
from sa2va_lab.loading.tensors import LazyTensor
from sa2va_lab.sa2va.configuration import read_config, read_raw
from sa2va_lab.sa2va.weights import build_empty, load_weights, save_official

ANSWER = "Sure, [SEG]."


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 255, (64, 80), np.uint8)


def held_bytes(model) -> int:
    """Bytes of all distinct tensors of a network; a bitsandbytes weight counts its scales and theirs."""
    held = {}
    for tensor in (*model.parameters(), *model.buffers()):
        held[tensor.data_ptr()] = tensor.nbytes
        state = getattr(tensor, "quant_state", None)
        if state is not None:
            for scales in (state.absmax, state.state2.absmax):  # by block, and by group of blocks
                held[scales.data_ptr()] = scales.nbytes
    return sum(held.values())


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16", "int8", "nf4"])
def test_weights_take_what_the_forecast_says(tiny_folder, precision):
    if precision == "nf4":
        pytest.importorskip("bitsandbytes", reason="nf4 needs the extra `quant`")
    source = Checkpoint(tiny_folder)
    said = sum(weigh({name: source.shape(name) for name in source.names()}, precision=precision).values())
    held = held_bytes(sa2va_lab.load(tiny_folder, precision=precision, device="cpu").model)
    assert abs(held / said - 1) < 0.05, (held, said)


def test_real_8b_numbers(root):
    shapes = json.loads((root / "tests/parity/internvl3_8b_tensors.json").read_text())
    parts = weigh(shapes, precision="bf16")
    assert sum(parts.values()) == 2 * (8_182_606_130 + 256)
    assert parts["decoder"] == 28 * 2 * 233_057_792
    assert parts["embed_tokens"] == parts["lm_head"] == 2 * 151_679 * 3584
    assert parts["language"] == 2 * 3584  # the last norm


def test_nf4_has_a_byte_for_each_block_and_a_float32_for_each_group_of_them():
    """bitsandbytes rounds the scales too: 7,168 numbers, 112 blocks of 64, one group."""
    name = "language_model.model.layers.0.mlp.up_proj.weight"
    assert weigh({name: (64, 112)}, precision="nf4") == {"decoder": 3584 + 112 + 4}


def test_plan_for_hardware_that_is_not_here(tiny_folder):
    made = plan(tiny_folder, gpu="24GiB", gpus=4, cpu="64GiB", spread=True).to_dict()
    assert (made["chosen"], made["why"].split("; ")[1]) == (0, "spread, as asked.")
    four = [f"cuda:{number}" for number in range(4)]
    assert [(rung["precision"], [device["name"] for device in rung["devices"]]) for rung in made["rungs"]] == [
        *((kind, four) for kind in ("bf16", "int8", "nf4")),
        *((kind, ["cuda:0"]) for kind in ("bf16", "int8", "nf4")),
        *((kind, ["cpu"]) for kind in ("fp32", "bf16", "int8", "nf4", "bf16")),
    ]
    assert made["rungs"][-1]["layers"] == {"files": 3}
    for rung in made["rungs"]:
        assert all(device["total"] == device["weights"] + device["activations"] for device in rung["devices"])
        assert rung["fits"] == all(device["needed"] <= device["budget"] for device in rung["devices"])


def test_several_cards_are_used_only_where_they_must(real_folder):
    one = plan(real_folder, gpu="24GiB", gpus=4)
    assert one.explain() == "bf16 on cuda:0: the most precise that fits; one card is enough: give each card a replica."
    assert plan(real_folder, gpu="24GiB").explain() == "bf16 on cuda:0: the most precise that fits."
    four = plan(real_folder, gpu="8GiB", gpus=4)
    assert four.rungs[four.chosen].layout.devices == tuple(f"cuda:{number}" for number in range(4))
    assert four.explain().endswith("cuda:3: the most precise that fits; spread, as no card alone holds it.")
    assert plan(real_folder, cpu="64GiB").explain().endswith("on cpu: the least work before it runs.")
    assert plan(real_folder, gpu="1GiB").explain().startswith("Nothing fits: ")


def test_every_rung_is_a_line(real_folder, monkeypatch, capsys):
    monkeypatch.setattr(plans, "can_quantise", lambda precision, *, device: precision != "nf4")
    given = ["--gpu", "8GiB", "--gpus", "4", "--cpu", "64GiB"]
    monkeypatch.setattr("sys.argv", ["sa2va-lab", "plan", str(real_folder), *given])
    with pytest.raises(SystemExit):
        cli.main()
    *rungs, why = capsys.readouterr().out.splitlines()
    assert all(re.match(r"(->|  ) (fp32|bf16|int8|nf4) +(cuda:0|cpu)", line) for line in rungs)
    assert rungs[1].startswith("-> bf16 cuda:0 + cuda:1 + cuda:2 + cuda:3: ")
    assert "fits, 2.86 GiB to spare; decoder layers: 1+9+9+9" in rungs[1]
    assert why.startswith("bf16 on cuda:0")


def test_the_host_must_hold_what_is_made_for_a_gpu(tiny_folder):
    source = Checkpoint(tiny_folder)
    largest = max(math.prod(source.shape(name)) for name in source.names())
    rung = plan(tiny_folder, gpu="24GiB", cpu="64GiB").rungs[0]
    assert (rung.host.needed, rung.host.budget) == (2 * largest, 64 << 30)  # stored in fp32, made in bf16
    assert f"{2 * largest / (1 << 30):.2f} GiB of the host while loading" in rung.reason
    poor = plan(tiny_folder, gpu="24GiB", cpu=f"{2 * largest // 1024 - 1}KiB")
    assert not poor.rungs[0].fits
    assert "on cpu" in poor.explain_none()
    assert plan(tiny_folder, gpu="24GiB").rungs[0].host is None  # nothing was said about the host


def test_the_host_holds_two_layers_that_wait_for_a_gpu(real_folder):
    rung = next(made for made in plan(real_folder, gpu="8GiB", cpu="64GiB").rungs if made.layout.kept_back)
    matrices = 2 * (3 * 3584 * 18944 + 2 * 3584 * 3584 + 2 * 3584 * 512)  # bytes of a layer in bf16
    widest = 2 * 3584 * 18944
    assert rung.host.needed == pytest.approx(2 * matrices + widest, rel=0.03)
    assert rung.reason.endswith(f"{rung.host.needed / GIB:.2f} GiB of the host for layers in the files")
    poor = plan(real_folder, gpu="8GiB", cpu="900MiB")
    assert not next(made for made in poor.rungs if made.layout.kept_back).fits


@pytest.mark.parametrize(("precision", "count"), [("fp32", 1), ("bf16", 1), ("auto", 1)])
def test_what_is_asked_for_waits_for_no_other_forecast(tiny_folder, monkeypatch, precision, count):
    """Rungs below are forecast when they are needed: when memory runs out."""
    made, real = [], plans.forecast
    told = lambda *given, **how: made.append(how["precision"]) or real(*given, **how)  # noqa: E731
    monkeypatch.setattr(plans, "forecast", told)
    segmenter = sa2va_lab.load(tiny_folder, precision=precision, device="cpu")
    assert len(made) == count
    assert segmenter._ladder.helps(MemoryError())
    assert len(made) > count


@pytest.mark.parametrize(
    ("dtype", "precision", "count"),
    [("bf16", "bf16", 0), ("fp32", "bf16", 2 * 32), ("bf16", "fp32", 4 * 32), ("merged", "bf16", 3 * 4 * 32)],
)
def test_what_the_host_makes_of_a_matrix(dtype, precision, count):
    name = "language_model.model.layers.0.mlp.up_proj.weight"
    merged = dtype == "merged"
    tensor = LazyTensor((4, 8), "fp32" if merged else dtype, mapped=not merged, merged=merged)
    assert weigh_loading({name: tensor}, precision=precision) == count


@pytest.mark.parametrize(
    ("known", "told"), [({"avx512_vnni"}, True), ({"avx512_vnni", "amx_bf16"}, False), ((), False)]
)
def test_what_a_smaller_format_costs_is_said_where_it_is_chosen(tiny_folder, monkeypatch, known, told):
    """On a GPU that it is slower; on a CPU with VNNI that it would be faster, which "auto" does not take on its own."""
    with monkeypatch.context() as other:
        other.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(known, True))
        assert is_int8_faster() == told
    monkeypatch.setattr(plans, "is_int8_faster", lambda: told)
    made = plan(tiny_folder, gpu="24GiB", cpu="8GiB")
    slow = {rung.precision for rung in made.rungs if "slower than bf16" in rung.reason}
    assert slow == {rung.precision for rung in made.rungs if rung.device == "cuda:0"} - {"bf16"}
    alone = plan(tiny_folder, cpu="8GiB")
    assert alone.rungs[alone.chosen].precision == "fp32"
    fast = {rung.precision for rung in alone.rungs if "int8 answers faster on this CPU, but rounds" in rung.notes}
    assert fast == ({"fp32", "bf16"} if told else set())


def test_nothing_fits_and_the_least_is_named(tiny_folder):
    made = plan(tiny_folder, gpu="1MiB")
    assert made.chosen is None
    assert "bf16 on cuda:0 + files comes nearest" in made.explain_none()
    with pytest.raises(LabError, match="Nothing fits"):
        sa2va_lab.load(tiny_folder, device="cpu", max_memory={"cpu": "1MiB"})


@pytest.mark.parametrize("make", [plan, sa2va_lab.load])
def test_an_image_has_a_tile(tiny_folder, make):
    with pytest.raises(LabError, match="tiles is 0; expected at least 1"):
        make(tiny_folder, tiles=0)


@pytest.mark.parametrize(("text", "count"), [("24GiB", 24 << 30), ("1.5 GB", 1_500_000_000), ("512MiB", 512 << 20)])
def test_sizes(text, count):
    assert parse_size(text) == count


@pytest.mark.parametrize("text", ["", "24", "GiB", "-1GiB", "many"])
def test_no_sizes(text):
    with pytest.raises(LabError, match="is not a size"):
        parse_size(text)


def test_mapped_weights_need_no_memory_of_their_own(tiny_folder):
    stored, other, *_ = [rung.shares[0] for rung in plan(tiny_folder, cpu="8GiB").rungs]
    assert stored.needed == stored.activations
    assert other.needed == other.total


def test_what_is_stored_as_it_is_used_stays_in_the_file(tiny_folder, tmp_path):
    """As released folders are: the vision tower in bf16, all else in fp32."""
    mixed = shutil.copytree(tiny_folder, tmp_path / "mixed")
    tensors = load_file(mixed / "model.safetensors")
    vision = {name: tensor.bfloat16() for name, tensor in tensors.items() if name.startswith("vision_model.")}
    save_file(tensors | vision, mixed / "model.safetensors", metadata={"format": "pt"})
    size = sum(tensor.nbytes for tensor in vision.values())  # in bf16
    for rung in plan(mixed, cpu="8GiB").rungs[:3]:
        share, wide = rung.shares[0], rung.precision == "fp32"
        own = share.needed - share.activations
        if rung.precision != "int8":  # where decoder matrices are neither
            assert own == (2 * size if wide else share.weights - size)
        model = sa2va_lab.load(mixed, precision=rung.precision, device="cpu").model
        mapped = open_addresses(model.state_dict().values(), mixed / "model.safetensors")
        assert share.weights - own == pytest.approx(mapped, rel=0.01)


def test_auto_takes_what_costs_least_on_a_cpu(tiny_folder, tmp_path):
    stored = save_official(
        sa2va_lab.load(tiny_folder, precision="bf16", device="cpu").model,
        tmp_path / "bf16",
        config=read_raw(tiny_folder),
        tokenizer=tiny_folder,
    )
    made = plan(stored, cpu="8GiB")
    assert [rung.precision for rung in made.rungs] == [
        "fp32",
        "bf16",
        "int8",
        "nf4",
    ]  # no layer needs to be left behind
    assert [rung.effort for rung in made.rungs] == [1, 0, 1, 1]
    assert made.rungs[made.chosen].precision == "bf16"  # fp32 would fit, and tell nothing more
    asis, small = (made.rungs[place].shares[0].total for place in (1, 2))
    tight = plan(stored, cpu=f"{(asis + small) // 2 >> 10}KiB")
    assert tight.rungs[1].fits
    assert tight.rungs[1].reason.endswith("the disk is read at each image")
    assert tight.rungs[tight.chosen].precision == "int8"
    assert plan(tiny_folder, cpu="8GiB").chosen == 0  # stored in fp32


def open_addresses(tensors, path) -> int:
    """Bytes of tensors that lie where this process has mapped a file."""
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(str(path))]
    spans = [tuple(int(end, 16) for end in line[0].split("-")) for line in maps]
    return sum(t.nbytes for t in tensors if any(low <= t.data_ptr() < high for low, high in spans))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rows_are_as_exact_as_float32(dtype, monkeypatch):
    monkeypatch.setattr(arithmetic, "ROWS", 7)  # several blocks, the last one short
    linear = torch.nn.Linear(33, 40).to(dtype)
    given = torch.randn(2, 5, 33).to(dtype)
    expected = torch.nn.functional.linear(given.float(), linear.weight.float(), linear.bias.float())
    before = linear.weight.data_ptr()
    linear.__class__ = RowLinear
    torch.testing.assert_close(linear(given), expected.to(dtype), atol=0, rtol=0.01)
    assert linear.weight.data_ptr() == before


@pytest.mark.parametrize(
    "layer",
    [
        torch.nn.Conv2d(6, 8, 3, stride=2, padding=1, groups=2),
        torch.nn.Conv2d(6, 8, 1, bias=False),
        torch.nn.ConvTranspose2d(6, 8, 2, stride=2),
        torch.nn.ConvTranspose2d(6, 8, 3, stride=2, output_padding=1, bias=False),
    ],
    ids=["strided", "no bias", "enlarging", "padded"],
)
def test_wide_convolutions_are_as_exact_as_float32(layer):
    exact = layer.bfloat16().float()
    given = torch.randn(2, 6, 9, 9).bfloat16()
    expected = exact(given.float()).bfloat16()
    layer.bfloat16().__class__ = WIDENED[type(layer)]
    assert torch.equal(layer(given), expected)


def test_int8_products_are_near():
    torch.manual_seed(0)
    linear = torch.nn.Linear(256, 64)
    given = torch.randn(3, 9, 256)
    expected, got = linear(given), Int8Linear(linear)(given)
    assert got.shape == expected.shape
    assert (got - expected).norm() / expected.norm() < 0.02


def test_products_follow_the_cpu(monkeypatch):
    for known, expected in (({"avx512_bf16": True}, "native"), ({"amx_bf16": True}, "native"), ({}, "rows")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda known=known: known)
        chosen, reason = choose_products(device="cpu", dtype=torch.bfloat16)
        assert chosen == expected
        assert reason.startswith(expected)
    assert choose_products(device="cpu", dtype=torch.float32)[0] == "native"
    assert choose_products(device="cpu", dtype=torch.float16)[0] == "rows"


def test_only_decoder_matrices_are_quantised_and_the_check_sees_it(tiny_folder):
    model = load_weights(
        build_empty(read_config(tiny_folder)), Checkpoint(tiny_folder), dtype=torch.bfloat16, device="cpu"
    )
    layers = len(model.language_model.model.layers)
    with pytest.raises(LabError, match="was not quantised"):
        check_quantised(model)
    set_arithmetic(model, precision="int8", device="cpu")
    assert check_quantised(model)["quantised"] == 7 * layers
    model.mlp1[1] = Int8Linear(model.mlp1[1])
    with pytest.raises(LabError, match=r"mlp1\.1 was quantised"):
        check_quantised(model)


@pytest.mark.parametrize("precision", ["bf16", "fp16", "int8"])
def test_precisions_agree_with_fp32(tiny_folder, image, precision):
    expected = sa2va_lab.load(tiny_folder, precision="fp32", device="cpu").predict(image, "x", answer=ANSWER)
    got = sa2va_lab.load(tiny_folder, precision=precision, device="cpu").predict(image, "x", answer=ANSWER)
    difference = np.abs(got.probability() - expected.probability()).max()
    assert 0 < difference < 0.1


def test_a_compiled_network_says_the_same_within_rounding(tiny_folder, image, monkeypatch):
    """Here with a backend that needs no C++ compiler; what a graph would write over is kept apart."""
    monkeypatch.setattr(arithmetic, "COMPILED", {"backend": "eager", "dynamic": False})
    plain, made = (sa2va_lab.load(tiny_folder, precision="bf16", device="cpu", compile=on) for on in (False, True))
    expected, got = (segmenter.predict(image, "x", answer=ANSWER) for segmenter in (plain, made))
    assert np.abs(got.logits - expected.logits).max() < 0.02 * np.abs(expected.logits).max()
    assert "compiled" in made.provenance["arithmetic"]
    assert "compiled" not in plain.provenance["arithmetic"]
    assert {type(tower._compiled_call_impl).__name__ for tower in _towers(made)} == {"function"}
    raw = made.model.grounding_encoder.vision_encoder
    kept, seen = [], raw.register_forward_hook(lambda module, given, out: kept.extend(out.fpn_hidden_states))
    features = made.model.encode_canvas(torch.zeros(1, 3, 512, 512))
    seen.remove()
    assert features.image.untyped_storage().data_ptr() not in {one.untyped_storage().data_ptr() for one in kept}


def _towers(segmenter) -> list:
    return [segmenter.model.vision_model, segmenter.model.grounding_encoder.vision_encoder]


def test_rows_in_a_whole_network(tiny_folder, image, monkeypatch):
    expected = sa2va_lab.load(tiny_folder, precision="fp32", device="cpu").predict(image, "x", answer=ANSWER)
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    segmenter = sa2va_lab.load(tiny_folder, precision="bf16", device="cpu")
    assert "no bf16 instructions" in segmenter.provenance["arithmetic"]
    got = segmenter.predict(image, "x", answer=ANSWER)
    assert np.abs(got.probability() - expected.probability()).max() < 0.1


def _note_device(fill, devices: list):
    def run(tensor, *given, **how):
        devices.append(tensor.device.type)
        return fill(tensor, *given, **how)

    return run


@pytest.mark.parametrize("precision", ["bf16", "int8", "nf4"])
def test_no_weight_is_filled_with_random_numbers_first(tiny_folder, monkeypatch, precision):
    """Which for int8 and nf4 took most of a minute; nor is a parameter ever made elsewhere than without memory."""
    if precision == "nf4":
        pytest.importorskip("bitsandbytes")
    made, fill = [], ("normal_", "uniform_", "trunc_normal_", "kaiming_uniform_", "xavier_uniform_", "random_")
    for owner in (torch.Tensor, torch.nn.init):
        for name in filter(partial(hasattr, owner), fill):
            monkeypatch.setattr(owner, name, _note_device(getattr(owner, name), made))
    sa2va_lab.load(tiny_folder, precision=precision, device="cpu")
    assert set(made) <= {"meta"}


def test_out_of_memory_while_loading_steps_down(tiny_folder, image, monkeypatch):
    true = ladder.load_weights
    failures = iter([MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")])

    def fail_twice(*given, **named):
        if (error := next(failures, None)) is not None:
            raise error
        return true(*given, **named)

    monkeypatch.setattr(ladder, "load_weights", fail_twice)
    with pytest.warns(UserWarning, match="out of memory while loading: from fp32 on cpu to bf16 on cpu"):
        segmenter = sa2va_lab.load(tiny_folder, precision="fp32", device="cpu")
    assert segmenter.provenance["precision"]["asked"] == "fp32"
    assert segmenter.provenance["precision"]["actual"] == "int8"
    assert [step["to"] for step in segmenter.provenance["steps"]] == ["bf16 on cpu", "int8 on cpu"]
    assert segmenter.predict(image, "x", answer=ANSWER).n_seg == 1


@pytest.mark.parametrize("stage", ["encode_images", "read", "encode_canvas", "draw"])
def test_out_of_memory_at_any_stage_costs_no_image(tiny_folder, image, monkeypatch, stage):
    from sa2va_lab.sa2va.modeling import Sa2VA

    segmenter = sa2va_lab.load(tiny_folder, precision="fp32", device="cpu")
    expected = sa2va_lab.load(tiny_folder, precision="bf16", device="cpu").predict(image, "x", answer=ANSWER)
    true, failures = getattr(Sa2VA, stage), iter([torch.OutOfMemoryError("CUDA out of memory")])

    def fail_once(*given, **named):
        if (error := next(failures, None)) is not None:
            raise error
        return true(*given, **named)

    monkeypatch.setattr(Sa2VA, stage, fail_once)
    with pytest.warns(UserWarning, match="out of memory in a prediction: from fp32 on cpu to bf16 on cpu"):
        got = segmenter.predict(image, "x", answer=ANSWER)
    np.testing.assert_array_equal(got.logits, expected.logits)
    assert [step["why"] for step in segmenter.provenance["steps"]] == ["out of memory in a prediction"]


def test_at_the_last_rung_the_error_is_said_and_the_network_stays(tiny_folder, image, monkeypatch):
    from sa2va_lab.sa2va.modeling import Sa2VA

    segmenter = sa2va_lab.load(tiny_folder, precision="fp32", device="cpu")
    segmenter._ladder.place = len(segmenter._ladder.rungs) - 1
    with monkeypatch.context() as patch:
        patch.setattr(Sa2VA, "read", lambda *_: (_ for _ in ()).throw(MemoryError()))
        with pytest.raises(MemoryError):
            segmenter.predict(image, "x", answer=ANSWER)
    assert segmenter.predict(image, "x", answer=ANSWER).n_seg == 1


def test_a_run_names_the_precision_of_every_record_and_the_steps_at_once(
    tiny_folder, drawn_data, tmp_path, monkeypatch
):
    from sa2va_lab.runs import open_run, predict_dataset
    from sa2va_lab.sa2va.modeling import Sa2VA

    true, looks, seen = Sa2VA.encode_canvas, [], []
    folder = tmp_path / "run"

    def fail_third(*given, **named):
        looks.append(1)
        if len(looks) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if len(looks) == 6:  # two images after the step: its line waits for no more than one
            seen.extend(open_run(folder).meta["steps"])
        return true(*given, **named)

    segmenter = sa2va_lab.load(tiny_folder, precision="fp32", device="cpu")
    monkeypatch.setattr(Sa2VA, "encode_canvas", fail_third)
    true_predict = type(segmenter).predict
    monkeypatch.setattr(type(segmenter), "predict", lambda self, *given: true_predict(self, *given, answer=ANSWER))
    with pytest.warns(UserWarning, match="from fp32 on cpu to bf16 on cpu"):
        run = predict_dataset(segmenter, sa2va_lab.open_dataset(drawn_data), folder=folder, progress=False)
    assert [record["precision"] for record in run.records] == ["fp32"] * 2 + ["bf16"] * 4
    assert not run.failed_ids
    assert [step["to"] for step in run.meta["steps"]] == [step["to"] for step in seen] == ["bf16 on cpu"]
    assert segmenter.provenance["precision"] == {
        "asked": "fp32",
        "actual": "bf16",
        "reason": "bf16: out of memory in a prediction",
    }


def test_a_segmenter_that_lost_its_network_says_so_and_comes_back(tiny_folder, image, monkeypatch):
    from sa2va_lab.sa2va.modeling import Sa2VA

    segmenter = sa2va_lab.load(tiny_folder, precision="fp32", device="cpu")
    with monkeypatch.context() as patch:
        patch.setattr(Sa2VA, "read", lambda *_: (_ for _ in ()).throw(MemoryError()))
        patch.setattr(ladder, "load_weights", lambda *_, **__: (_ for _ in ()).throw(MemoryError()))
        for turn in range(2):
            with (
                pytest.warns(UserWarning, match="out of memory") if turn == 0 else nullcontext(),
                pytest.raises(LabError, match="no rung is"),
            ):
                segmenter.predict(image, "x", answer=ANSWER)
    assert segmenter.predict(image, "x", answer=ANSWER).n_seg == 1
    assert segmenter.provenance["precision"]["actual"] == segmenter._ladder.rungs[-1].precision


def test_a_rung_without_its_library_is_none(tiny_folder, monkeypatch):
    for room in (ladder, plans):
        monkeypatch.setattr(room, "can_quantise", lambda precision, *, device: precision != "nf4")
    segmenter = sa2va_lab.load(tiny_folder, precision="fp32", device="cpu")
    assert [rung.precision for rung in segmenter._ladder.rungs] == ["fp32", "bf16", "int8"]
    small = plan(tiny_folder, cpu="8GiB").rungs[3]
    assert small.reason.endswith("needs bitsandbytes, which is not installed: pip install 'sa2va_lab[quant]'")
    only = plans.Plan([small])
    assert only.chosen is None
    assert only.explain_none().startswith("Only nf4 on cpu fits, and it needs bitsandbytes")
    assert can_quantise("int8", device="cpu")
    assert can_quantise("nf4", device="cpu") == (find_spec("bitsandbytes") is not None)


def test_a_budget_for_a_device_that_is_not_there(tiny_folder):
    with pytest.raises(LabError, match="max_memory names cuda:7, but here are only"):
        sa2va_lab.load(tiny_folder, max_memory={"cuda:7": "20GiB"})


def test_other_errors_step_nowhere(tiny_folder):
    segmenter = sa2va_lab.load(tiny_folder, precision="fp32", device="cpu")
    with pytest.raises(LabError, match="No image file"):
        segmenter.predict("nowhere.png", "x")
    assert segmenter.provenance["steps"] == []


def test_overflow_in_fp16_is_named_and_steps_to_bf16(tiny_folder, image):
    def blow_up(segmenter):
        layer = segmenter.model.language_model.model.layers[1].mlp.down_proj
        layer.weight = torch.nn.Parameter(layer.weight * 1e9, requires_grad=False)

    segmenter = sa2va_lab.load(tiny_folder, precision="fp16", device="cpu")
    blow_up(segmenter)
    with pytest.warns(UserWarning, match=r"float16, first in language_model\.model\.layers\.1\.mlp\.down_proj"):
        got = segmenter.predict(image, "x", answer=ANSWER)
    expected = sa2va_lab.load(tiny_folder, precision="bf16", device="cpu").predict(image, "x", answer=ANSWER)
    np.testing.assert_array_equal(got.logits, expected.logits)
    assert segmenter.provenance["steps"][0]["to"] == "bf16 on cpu"
    full = sa2va_lab.load(tiny_folder, precision="fp32", device="cpu")
    full.model.mlp1[1].weight.data = full.model.mlp1[1].weight * float("inf")
    with pytest.raises(LabError, match="range of float32"):
        full.predict(image, "x", answer=ANSWER)


def test_the_command(tiny_folder, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["sa2va-lab", "plan", str(tiny_folder), "--gpu", "1MiB"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    said = capsys.readouterr()
    assert re.search(r"^   bf16 cuda:0: 0\.\d\d GiB of weights, .* does not fit, 0\.\d\d GiB too much", said.out, re.M)
    assert said.err.startswith("sa2va-lab: Nothing fits")


@pytest.mark.parametrize(("spare", "batch"), [(0, 1), (1, 2), (2, 2), (3, 4), (6, 4), (7, 8), (99, 8)])
def test_a_batch_is_what_has_room_beside_one_image(spare, batch):
    from sa2va_lab.loading.ladder import Ladder
    from sa2va_lab.loading.plan import Plan, Rung, Share
    from sa2va_lab.loading.shards import Layout

    home = Share("cuda:0", 10 * GIB, 2 * GIB, 12 * GIB, (12 + spare) * GIB, context=GIB)
    rung = Rung("bf16", Layout("cuda:0", ("cuda:0",)), (home,))
    found, why = Ladder(SimpleNamespace(sizes=None), Plan([rung]), start=0, tell=print).choose_batch(8)
    assert found == batch
    assert why == f"{batch}: an image takes 1.00 GiB, and {spare:.2f} are free beside one"


def test_int8_that_overflows_on_a_gpu_goes_down_a_rung():
    from sa2va_lab.loading.ladder import Ladder
    from sa2va_lab.loading.plan import Plan, Rung
    from sa2va_lab.loading.shards import Layout
    from sa2va_lab.sa2va.watching import Overflow

    def stand(*rungs):
        made = [Rung(precision, Layout(device, (device,)), ()) for precision, device in rungs]
        return Ladder(SimpleNamespace(sizes=None), Plan(made), start=0, tell=print)

    error = Overflow("numbers left the range of float16")
    assert stand(("int8", "cuda:0"), ("bf16", "cpu")).helps(error)
    assert not stand(("int8", "cuda:0")).helps(error)
    assert not stand(("int8", "cpu"), ("bf16", "cpu")).helps(error)
    assert stand(("fp16", "cuda:0")).helps(error)
    assert not stand(("bf16", "cuda:0"), ("bf16", "cpu")).helps(error)
