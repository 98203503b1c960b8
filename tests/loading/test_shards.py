"""Layouts over several devices: proven on devices that are not there, and on files that are."""

import os
import shutil

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily

import sa2va_lab
from sa2va_lab.errors import LabError
from sa2va_lab.loading import plan as plans
from sa2va_lab.loading.checkpoint import Checkpoint
from sa2va_lab.loading.plan import climb_down
from sa2va_lab.loading.shards import FILES, Layout, connect, spread
from sa2va_lab.loading.whole import open_whole
from sa2va_lab.sa2va.answering import read_answers
from sa2va_lab.sa2va.configuration import parse_config, read_config
from sa2va_lab.sa2va.family import Sight
from sa2va_lab.sa2va.weights import build_empty

LAYERS = 9
ANSWER = "Sure, [SEG]."


def device(number):
    """A device that exists in name only: torch keeps meta:0 and meta:1 apart, and fake tensors refuse to mix them."""
    return f"meta:{number}"


def fake(mode, tensor, where):
    return FakeTensor(mode, torch.empty(tensor.shape, dtype=tensor.dtype, device="meta"), torch.device(where))


@pytest.fixture(scope="module")
def config(tiny_folder):
    """The demo's sizes with more decoder layers, so that there is something to spread."""
    made = read_config(tiny_folder)
    made.language["num_hidden_layers"] = LAYERS
    made.language.pop("layer_types", None)
    return made


def place(mode, model, layout):
    """Puts each tensor, without data, on its device; returns those that stay in the files, on a device of their own."""
    shelf = {}
    for owner, module in model.named_modules():
        for store in (module._parameters, module._buffers):
            for leaf, tensor in [item for item in store.items() if item[1] is not None]:
                name = f"{owner}.{leaf}"
                if layout.place(name) == "meta":
                    shelf[name] = fake(mode, tensor, device(99))
                    continue
                made = fake(mode, tensor, layout.place(name))
                store[leaf] = made if store is module._buffers else nn.Parameter(made, requires_grad=False)
    return shelf


def lend(module, name, where, value=None, **_):
    """accelerate's way of placing a weight asks for the class of the old one, which a fake tensor cannot be made with;
    the true one is run in test_layers_in_the_files_give_the_same_logits."""
    old = module._parameters[name]
    module._parameters[name] = nn.Parameter((old if value is None else value).to(where), requires_grad=False)


def run(config, layout, *, connected=True):
    """One answer about one image, from pixels to masks, without data; raises where devices mix."""
    model = build_empty(config)
    model.language_model.model.rotary_emb.rope_type = "default"  # a dynamic one looks at positions, which have no value
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.inference_mode():
        seen = None
        if config.family.group == "qwen-vl":  # its tower looks at the numbers of a grid, which no fake tensor has
            with unset_fake_temporarily():
                real = model.encode_image(config.family.blank(2, config))
            made = [fake(mode, tensor, layout.home) for tensor in (real.tokens, *real.deep)]
            seen = Sight(made[0], real.grid, tuple(made[1:]))
        shelf = place(mode, model, layout)
        if connected:
            connect(model, layout, shelf)
        home = layout.home
        sight = seen or model.encode_image(torch.empty(1, 3, config.tile, config.tile, device=home))
        words = model.embed(torch.zeros(1, 12, dtype=torch.long, device=home))
        cache = model.new_cache(sight, starts=[12])
        [reply] = read_answers(model, torch.cat([words, sight.tokens[None], words], dim=1), cache, answer=[1, 2, 3])
        again = model.read(model.embed(torch.zeros(1, 1, dtype=torch.long, device=home)), cache)
        scores = model.score_tokens(again)
        features = model.encode_canvas(torch.empty(1, 3, config.canvas, config.canvas, device=home))
        masks = model.draw(features, reply.states)
    kept = [str(layer.keys.device) for layer in cache.layers]
    return {"scores": scores, "masks": masks.logits}, kept


def layouts():
    """1, 2, 4, 8 devices, uneven budgets, a home without layers, layers in the files."""
    even = {n: spread(LAYERS, size=1, held=dict.fromkeys(map(device, range(n)), 0), budgets=dict.fromkeys(
        map(device, range(n)), 9)) for n in (1, 2, 4, 8)}  # fmt: skip
    yield from ((f"{n} devices", Layout(device(0), layers)) for n, layers in even.items())
    yield "uneven", Layout(device(0), (device(0), *[device(2)] * 6, device(1), device(1)))
    yield "home last", Layout(device(3), tuple(device(n // 3) for n in range(LAYERS)))
    yield "files", Layout(device(0), (*[device(0)] * 2, *[device(1)] * 3, *[FILES] * 4))
    yield "only files", Layout(device(0), (FILES,) * LAYERS)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "layout"), list(layouts()), ids=[name for name, _ in layouts()])
def test_no_operator_sees_two_devices(config, name, layout, monkeypatch):
    monkeypatch.setattr("accelerate.hooks.set_module_tensor_to_device", lend)
    outs, kept = run(config, layout)
    assert {str(tensor.device) for tensor in outs.values()} == {layout.home}
    assert kept == [layout.home if place == FILES else place for place in layout.layers]


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("family", ["internvl_qwen3", "internlm2", "phi3", "qwen2_5_vl", "qwen3vl"])
def test_every_family_runs_spread(family_config, family, count, monkeypatch):
    monkeypatch.setattr("accelerate.hooks.set_module_tensor_to_device", lend)
    config = parse_config(family_config(family))
    config.language["num_hidden_layers"] = LAYERS
    layout = Layout(device(0), tuple(device(number * count // LAYERS) for number in range(LAYERS)))
    outs, kept = run(config, layout)
    assert {str(tensor.device) for tensor in outs.values()} == {layout.home}
    assert kept == list(layout.layers)


def test_the_proof_fails_where_nothing_moves_tensors(config):
    layout = Layout(device(0), (*[device(0)] * 4, *[device(1)] * 5))
    with pytest.raises(RuntimeError, match="meta:0 and meta:1|meta:1 and meta:0|meta:1, meta:0|meta:0, meta:1"):
        run(config, layout, connected=False)


def test_layers_fill_all_devices_to_about_the_same_share():
    held, budgets = {"a": 4, "b": 0, "c": 0}, {"a": 10, "b": 10, "c": 20}
    assert spread(9, size=2, held=held, budgets=budgets) == (*"a", *"bbb", *"ccccc")
    assert spread(28, size=1, held={"a": 1}, budgets={"a": 11}) == (*["a"] * 10, *[FILES] * 18)
    assert spread(3, size=5, held={"a": 1}, budgets={"a": 2}) == (FILES,) * 3


def test_no_gpu_is_enough_and_four_are(real_folder):
    made = plans.plan(real_folder, gpu="8GiB", gpus=4, cpu="64GiB")
    first = made.rungs[made.chosen]
    assert (first.precision, first.layout.devices) == ("bf16", tuple(f"cuda:{number}" for number in range(4)))
    assert sum(share.weights for share in first.shares) == pytest.approx(2 * 8_182_606_386, abs=8)
    used = [share.total / share.budget for share in first.shares]
    assert max(used) - min(used) < 0.1
    files = plans.plan(real_folder, gpu="8GiB").rungs[-1]
    assert files.fits
    assert 0 < files.layout.kept_back < 28
    assert f"{files.layout.kept_back} decoder layers left in the files" in files.reason


def test_uneven_budgets_and_what_was_asked(real_folder):
    opened = Checkpoint(real_folder)
    budgets = {"cuda:0": 4 << 30, "cuda:1": 12 << 30, "cuda:2": 6 << 30, "cpu": 64 << 30}
    made = climb_down(opened, budgets=budgets)
    assert [rung.fits for rung in made.rungs[:2]] == [False, True]
    assert made.rungs[0].device == made.rungs[1].device == "cuda:1"
    assert all(share.needed <= share.budget for share in made.rungs[1].shares)
    wide = climb_down(opened, budgets=budgets, spread=True).rungs[0]
    assert wide.layout == made.rungs[1].layout
    asked = climb_down(opened, budgets=budgets, device="cuda:2", precision="bf16")
    assert {rung.device for rung in asked.rungs} == {"cuda:2", "cpu"}
    assert asked.rungs[asked.start("bf16", "cuda:2")].where == "cuda:2 + files"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"gpus": 9}, "gpus is 9, and [0-8] CUDA devices are visible"),
        ({"gpus": 0}, "gpus is 0"),
        ({"gpus": 1, "device": "cpu"}, "leave one of them out"),
        ({"device": "cuda:9"}, "cuda:9 was asked for"),
    ],
)
def test_devices_that_are_not_there(tiny_folder, options, said):
    with pytest.raises(LabError, match=said):
        sa2va_lab.load(tiny_folder, **options)


@pytest.mark.parametrize(("precision", "largest"), [("fp32", 1e-4), ("bf16", 0.1)])
def test_layers_in_the_files_give_the_same_logits(root, precision, largest):
    """A budget that holds all but the decoder layers, with a fine-tune merged at each pass. Kernels sum in another
    order where weights lie at another address, so the logits are not equal bit by bit."""
    image = np.random.default_rng(0).integers(0, 255, (64, 80), np.uint8)
    demo = root / "data" / "demo"
    tuned = {"finetune": max(demo.glob("iter_*.pth")), "config": next(demo.glob("*.py")), "precision": precision}
    expected = sa2va_lab.load(demo / "base", **tuned, device="cpu")
    opened = open_whole(demo / "base", finetune=tuned["finetune"], config=tuned["config"])
    made = climb_down(opened, budgets={"cpu": 8 << 30}, precision=precision)
    needs = made.rungs[-1].shares[0].needed
    got = sa2va_lab.load(demo / "base", **tuned, device="cpu", max_memory={"cpu": f"{needs // 1024 + 1}KiB"})
    assert got.provenance["device"]["actual"] == "cpu + files"
    layers = got.model.language_model.model.layers
    shelf = layers[0].mlp.down_proj._hf_hook.weights_map
    assert torch.equal(shelf["weight"], expected.model.language_model.model.layers[0].mlp.down_proj.weight)
    answers = {segmenter.predict(image, "x").answer for segmenter in (got, expected)}
    assert len(answers) == 1
    for _ in range(2):
        logits = [segmenter.predict(image, "x", answer=ANSWER).logits for segmenter in (got, expected)]
        assert np.abs(logits[0] - logits[1]).max() < largest * np.abs(logits[1]).max()
        assert all(tensor.is_meta for tensor in layers.parameters())
        got.forget()


@pytest.fixture
def files_only(root, tmp_path):
    """The demo's base with every decoder layer left in files of its own, and the folder they lie in."""
    folder = shutil.copytree(root / "data" / "demo" / "base", tmp_path / "base")
    made = climb_down(open_whole(folder), budgets={"cpu": 8 << 30}, precision="bf16")
    needs = made.rungs[-1].shares[0].needed
    segmenter = sa2va_lab.load(folder, precision="bf16", device="cpu", max_memory={"cpu": f"{needs // 1024 + 1}KiB"})
    assert segmenter.provenance["device"]["actual"] == "cpu + files"
    return segmenter, folder


PLAIN = np.full((64, 80), 90, np.uint8)


def test_the_next_layer_is_read_ahead_and_only_two_are_held(files_only, monkeypatch):
    segmenter, _ = files_only
    shelf = segmenter.model.layers[0].mlp.down_proj._hf_hook.weights_map.dataset
    read, held = [], []
    whole = type(shelf)._read

    def note(self, layer):
        read.append(layer)
        held.append(len(self._reading))
        return whole(self, layer)

    monkeypatch.setattr(type(shelf), "_read", note)
    segmenter.predict(PLAIN, "x", answer=ANSWER)
    count = len(segmenter.model.layers)
    shelf._thread.submit(list).result()
    assert read == [*range(count), 0]  # the first again, for the next image
    assert max(held) <= 2


@pytest.mark.parametrize("damage", ["cut short", "removed"])
def test_files_that_change_while_layers_lie_in_them_are_said(files_only, damage):
    segmenter, folder = files_only
    [file] = folder.glob("*.safetensors")
    whole = file.read_bytes()
    if damage == "removed":
        file.unlink()
    else:
        os.truncate(file, len(whole) // 2)
    with pytest.raises(
        LabError, match=r"(has changed since it was opened|can no longer be read).*load the model again"
    ):
        segmenter.predict(PLAIN, "x", answer=ANSWER)
    file.write_bytes(whole)
    segmenter.forget()
    assert segmenter.predict(PLAIN, "x", answer=ANSWER).n_seg == 1  # the next image tries again
