"""Each family of language models through all that is done with a checkpoint, on small untrained networks."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import sa2va_lab
from sa2va_lab.errors import LabError
from sa2va_lab.loading.checkpoint import ADDED_TOKENS, Checkpoint
from sa2va_lab.loading.devices import can_quantise
from sa2va_lab.loading.forecast import forecast
from sa2va_lab.loading.inventory import read_inventory
from sa2va_lab.loading.merge import merge
from sa2va_lab.loading.plan import climb_down
from sa2va_lab.loading.whole import open_whole
from sa2va_lab.sa2va.configuration import read_config
from sa2va_lab.sa2va.parts import is_decoder_matrix, layer_of, part_of
from sa2va_lab.sa2va.processing import PromptReader
from sa2va_lab.sa2va.sam2 import SAM2
from sa2va_lab.sa2va.weights import save_official

ASKED = {"answer": "Sure, [SEG]."}
IMAGE = np.random.default_rng(0).integers(0, 255, (64, 80), np.uint8)
TARGETS = {
    "internvl_qwen3": ("self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
    "internlm2": ("attention.wqkv", "attention.wo", "feed_forward.w1", "feed_forward.w2", "feed_forward.w3"),
    "phi3": ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj"),
    "qwen2_5_vl": ("self_attn.q_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj"),
    "qwen3vl": ("self_attn.k_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
}


@pytest.fixture(scope="module", params=list(TARGETS))
def family(request):
    return request.param


@pytest.fixture(scope="module")
def folder(family, write_family):
    return write_family(family)


@pytest.fixture(scope="module")
def plain(folder):
    """What the folder says in float32."""
    return sa2va_lab.load(folder, precision="fp32", device="cpu").predict(IMAGE, "blood vessel", **ASKED)


@pytest.fixture(scope="module")
def tuned(family, folder, tmp_path_factory):
    """A fine-tune as xtuner writes it: LoRA of rank 2 on a layer, copies of the two tables of words, the projector."""
    made, base = torch.Generator().manual_seed(5), Checkpoint(folder)

    def noise(*shape, size=0.1):
        return size * torch.randn(*shape, generator=made)

    # xtuner has the adapter around InternVL's language model, and around the whole of a Qwen-VL
    qwen = read_config(folder).family.group == "qwen-vl"
    state, peft = {}, "mllm.model.base_model.model." if qwen else "mllm.model.language_model.base_model.model."
    start, layers = ("model.", "model.language_model.") if qwen else ("language_model.", "model.")
    for target in TARGETS[family]:
        module = f"{layers}layers.1.{target}"
        rows, columns = base.shape(f"{start}{module}.weight")
        state[f"{peft}{module}.lora_A.default.weight"] = noise(2, columns)
        state[f"{peft}{module}.lora_B.default.weight"] = noise(rows, 2)
    for name in base.names():
        if part_of(name) in ("embed_tokens", "lm_head"):
            module = name.removeprefix(start).removesuffix(".weight")
            state[f"{peft}{module}.modules_to_save.default.weight"] = noise(*base.shape(name), size=1)
            state[f"{peft}{module}.original_module.weight"] = noise(4, 4)
    state |= {"text_hidden_fcs.2.bias": noise(96)} | ({} if qwen else {"mllm.model.mlp1.0.bias": noise(384)})
    path = tmp_path_factory.mktemp("tuned") / "iter_24.pth"
    torch.save({"state_dict": state, "meta": {"iter": 24}}, path)
    return path


@pytest.mark.parametrize(("precision", "largest"), [("bf16", 0.1), ("fp16", 0.02), ("int8", 0.2), ("nf4", 0.5)])
def test_precisions(folder, plain, precision, largest):
    if not can_quantise(precision, device="cpu"):
        pytest.skip("not run: bitsandbytes is not installed")
    segmenter = sa2va_lab.load(folder, precision=precision, device="cpu")
    got = segmenter.predict(IMAGE, "blood vessel", **ASKED)
    assert np.abs(got.logits - plain.logits).max() < largest * np.abs(plain.logits).max()
    assert isinstance(segmenter.answer(IMAGE, "blood vessel", limit=4), str)
    if precision == "int8":
        dtypes = {name: tensor.dtype for name, tensor in segmenter.model.state_dict().items()}
        assert {name for name, dtype in dtypes.items() if dtype == torch.int8} == set(filter(is_decoder_matrix, dtypes))


def test_a_batch_gives_what_one_at_a_time_gives(folder):
    """Two images of one size are read together, the third is alone."""
    segmenter = sa2va_lab.load(folder, precision="fp32", device="cpu")
    images = [IMAGE, IMAGE[::-1], np.concatenate([IMAGE, IMAGE, IMAGE])]
    for asked in (ASKED, {"limit": 4}):
        alone = [segmenter.predict(image, "x", **asked) for image in images]
        many = segmenter.predict_many(images, "x", batch=3, **asked)
        for one, other in zip(alone, many, strict=True):
            assert one.answer == other.answer
            np.testing.assert_allclose(other.logits, one.logits, atol=1e-3 * np.abs(one.logits).max(initial=1), rtol=0)


def test_layers_in_the_files(folder, plain, tuned):
    """Room for all but the decoder layers; a fine-tune that is merged as they are read."""
    given = {"finetune": tuned, "lora_alpha": 4}
    rungs = climb_down(open_whole(folder, **given), budgets={"cpu": 8 << 30}, precision="fp32").rungs
    budget = {"cpu": f"{rungs[-1].shares[0].needed // 1024 + 1}KiB"}
    expected = sa2va_lab.load(folder, **given, precision="fp32", device="cpu").predict(IMAGE, "x", **ASKED)
    segmenter = sa2va_lab.load(folder, **given, precision="fp32", device="cpu", max_memory=budget)
    assert segmenter.provenance["device"]["actual"] == "cpu + files"
    assert (
        np.abs(segmenter.predict(IMAGE, "x", **ASKED).logits - expected.logits).max()
        < 1e-4 * np.abs(expected.logits).max()
    )
    assert not np.array_equal(expected.logits, plain.logits)


def test_the_forecast_follows_the_image(folder):
    """More pixels take more, and no image more than the most that the plan counts with."""
    opened = open_whole(folder)
    family, most = opened.sizes.family, opened.sizes.family.most_tiles(opened.sizes)
    counts = [family.count_tiles(width, width, opened.sizes) for width in (64, 800, 6000)]
    assert counts == sorted(counts)
    assert counts[-1] <= most
    few, many = (forecast(opened.tensors, opened.sizes, precision="bf16", tiles=tiles) for tiles in (1, 1 + most))
    assert few.activations <= many.activations
    assert few.cache < many.cache
    pixels = family.pixels(Image.fromarray(IMAGE).convert("RGB"), opened.sizes)
    tiles = family.count_tiles(*IMAGE.shape[::-1], opened.sizes)
    real, blank = (one[0] if isinstance(one, tuple) else one for one in (pixels, family.blank(tiles, opened.sizes)))
    assert blank.shape[1:] == real.shape[1:]
    assert 0.5 < blank.shape[0] / real.shape[0] < 2


def test_a_fine_tune_merges_to_what_it_is_on_the_fly(folder, plain, tuned, tmp_path):
    said = merge(folder, tmp_path / "merged", finetune=tuned, lora_alpha=4, precision="fp32")
    assert said["largest_difference"] <= said["allowed"]
    flying = sa2va_lab.load(folder, finetune=tuned, lora_alpha=4, precision="fp32").predict(IMAGE, "x", **ASKED)
    fresh = sa2va_lab.load(tmp_path / "merged", precision="fp32").predict(IMAGE, "x", **ASKED)
    assert np.array_equal(fresh.logits, flying.logits)
    assert not np.array_equal(fresh.logits, plain.logits)
    assert read_inventory(folder, finetune=tuned, lora_alpha=4).complete


def test_commands(family, folder, tuned, tmp_path, call):
    (tmp_path / "images").mkdir()
    Image.fromarray(IMAGE).save(tmp_path / "images" / "one.png")
    code, out, _ = call("inspect", folder, tuned, "--lora-alpha", 4, "--json", here=tmp_path)
    assert code == 0
    both = json.loads(out)["inventories"][-1]
    assert both["complete"] is True
    assert both["lora"]["targets"] == sorted(target.rpartition(".")[2] for target in TARGETS[family])
    code, out, _ = call("plan", folder, "--gpu", "8GiB", "--json", here=tmp_path)
    assert code == 0
    assert json.loads(out)["rungs"][0]["fits"] is True
    asked = ("--model", folder, "--prompt", "blood vessel", "--answer", ASKED["answer"], "--out", "drawn")
    code, _, said = call("predict", "images/one.png", *asked, here=tmp_path)
    assert code == 0, said
    assert (tmp_path / "drawn" / "one.npz").is_file()
    code, _, said = call("merge", folder, "merged", "--finetune", tuned, "--lora-alpha", 4, here=tmp_path)
    assert code == 0, said
    assert read_inventory(tmp_path / "merged").complete


def as_before_4_52(name):
    """A tensor of a Qwen-VL as folders of former versions of transformers call it."""
    return name.replace("model.model.visual.", "visual.").replace("model.model.language_model.", "model.")


@pytest.mark.parametrize("family", ["internlm2", "phi3", "qwen2_5_vl", "qwen3vl"], scope="module")
def test_a_bare_model_grows_with_its_fine_tune(folder, tuned, tmp_path):
    """A training starts from a model without SAM2 and without the tokens of Sa2VA: its own tables get longer."""
    whole, bare, kind = Checkpoint(folder), tmp_path / "InternVL", read_config(folder).family
    shutil.copytree(folder, bare)
    said = json.loads((bare / "tokenizer_config.json").read_text())
    added = said["added_tokens_decoder"]
    said["added_tokens_decoder"] = {k: token for k, token in added.items() if token["content"] not in ADDED_TOKENS}
    (bare / "tokenizer_config.json").write_text(json.dumps(said))
    if (bare / "tokenizer.json").is_file():
        said = json.loads((bare / "tokenizer.json").read_text())
        said["added_tokens"] = [token for token in said["added_tokens"] if token["content"] not in ADDED_TOKENS]
        (bare / "tokenizer.json").write_text(json.dumps(said))
    own = {name: whole.tensor(name) for name in whole.names() if not name.startswith((SAM2, "text_hidden"))}
    tables = [name for name in own if part_of(name) in ("embed_tokens", "lm_head")]
    own |= {name: own[name][:-5].clone() for name in tables}
    if kind.bare == "qwen2_5_vl":
        own = {as_before_4_52(name).replace("model.lm_head", "lm_head"): tensor for name, tensor in own.items()}
    save_file(own, bare / "model.safetensors", metadata={"format": "pt"})
    raw = json.loads((bare / "config.json").read_text())
    raw |= {"model_type": kind.bare, "architectures": ["ItsModel"], "template": "internvl2_5"}
    language = "llm_config" if "llm_config" in raw else "text_config"
    raw[language]["vocab_size"] -= 5
    if kind.bare == "qwen2_5_vl":  # whose config.json had no section for it
        raw = raw.pop(language) | raw
    (bare / "config.json").write_text(json.dumps(raw))
    meta = {name.removeprefix(SAM2): whole.tensor(name) for name in whole.names() if name.startswith(SAM2)}
    meta = {re.sub(r"\.g_weight$", ".gamma", name): tensor for name, tensor in meta.items()}
    torch.save({"model": meta}, tmp_path / "sam2.pt")
    state = torch.load(tuned)["state_dict"]
    state = {name: whole.tensor(name) for name in whole.names() if name.startswith("text_hidden")} | state
    torch.save({"state_dict": state}, tmp_path / "iter_24.pth")
    given = {"sam2": tmp_path / "sam2.pt", "finetune": tmp_path / "iter_24.pth", "lora_alpha": 4}
    wanted = sa2va_lab.load(folder, finetune=tuned, lora_alpha=4, precision="fp32").predict(IMAGE, "x", **ASKED)
    grown = sa2va_lab.load(bare, **given, precision="fp32")
    assert np.array_equal(grown.predict(IMAGE, "x", **ASKED).logits, wanted.logits)
    merge(bare, tmp_path / "merged", **given, precision="fp32")
    merged = sa2va_lab.load(tmp_path / "merged", precision="fp32")
    np.testing.assert_allclose(merged.predict(IMAGE, "x", **ASKED).logits, wanted.logits, atol=1e-5)
    assert json.loads((tmp_path / "merged/config.json").read_text())["template"] == merged.model.config.template
    merged_files = {file.name for file in (tmp_path / "merged").iterdir()}
    assert {name for name in kind.processors if (bare / name).is_file()} <= merged_files
    text = "<image>\nPlease segment the blood vessel."
    assert merged.reader.prompt_ids(text, 4) == PromptReader(folder, merged.model.config).prompt_ids(text, 4)


def test_every_tensor_has_its_part_and_comes_back(folder, tmp_path):
    opened = Checkpoint(folder)
    assert "other" not in set(map(part_of, opened.names()))
    matrices = [name for name in opened.names() if is_decoder_matrix(name)]
    assert {layer_of(name) for name in matrices} == set(range(read_config(folder).language["num_hidden_layers"]))
    inward = {name for name in opened.names() if layer_of(name) is not None and len(opened.shape(name)) == 2}
    assert inward == set(matrices)
    model = sa2va_lab.load(folder, precision="fp32", device="cpu").model
    raw = json.loads((folder / "config.json").read_text())
    again = Checkpoint(save_official(model, tmp_path / "again", config=raw, tokenizer=folder))
    assert again.names() == opened.names()
    assert all(torch.equal(again.tensor(name), opened.tensor(name)) for name in opened.names())


def copy(folder, to, **changed):
    """The folder once more, with links to its weights; changed: sections of config.json."""
    to.mkdir()
    for file in folder.iterdir():
        (to / file.name).symlink_to(file)
    raw = json.loads((folder / "config.json").read_text())
    for section, values in changed.items():
        raw[section] = raw.get(section, {}) | values if isinstance(values, dict) else values
    (to / "config.json").unlink()
    (to / "config.json").write_text(json.dumps(raw))
    return to


def refuse(folder):
    """The one sentence that inspect, plan and load all have."""
    told = [missing.source for missing in sa2va_lab.inspect(folder).missing]
    for use in (sa2va_lab.plan, sa2va_lab.load):
        with pytest.raises(LabError) as refused:
            use(folder)
        assert told == [str(refused.value)]
    return told[0]


@pytest.mark.parametrize(
    ("weights", "config"),
    [("internlm2", "phi3"), ("qwen2_5_vl", "qwen3vl"), ("qwen3vl", "qwen2_5_vl"), ("internvl_qwen3", "qwen3vl")],
)
def test_weights_of_another_family(write_family, tmp_path, weights, config):
    mixed = copy(write_family(weights), tmp_path / "mixed")
    for file in write_family(config).iterdir():
        if file.suffix != ".safetensors":
            (mixed / file.name).unlink(missing_ok=True)
            shutil.copy(file, mixed)
    with pytest.raises(LabError, match="lacks .* tensors that its config.json calls for|no place for"):
        sa2va_lab.load(mixed)


@pytest.mark.parametrize(("family", "theirs"), [("internlm2", "phi3"), ("qwen2_5_vl", "phi3"), ("qwen3vl", "internvl")])
def test_a_tokenizer_of_another_model(write_family, root, tmp_path, family, theirs):
    mixed = copy(write_family(family), tmp_path / "mixed")
    for file in mixed.glob("*token*"):
        file.unlink()
    for file in (root / "tests/parity" / theirs / "tokenizer").iterdir():
        shutil.copy(file, mixed)
    with pytest.raises(LabError, match="tokenizer"):
        sa2va_lab.load(mixed)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3vl"], scope="module")
def test_names_of_former_versions(folder, tmp_path):
    """Named as transformers before 4.52 named them, and as the official conversion did with that."""
    new = Checkpoint(folder)
    own = {name: new.tensor(name) for name in new.names() if name.startswith("model.")}
    for number, prefix in enumerate(("", "model.")):
        old = copy(folder, tmp_path / str(number))
        (old / "model.safetensors").unlink()
        rest = {name: new.tensor(name) for name in new.names() if name not in own}
        named = {prefix + as_before_4_52(name.replace("model.lm_head", "lm_head")): own[name] for name in own}
        save_file(rest | named, old / "model.safetensors", metadata={"format": "pt"})
        opened = Checkpoint(old)
        assert opened.names() == new.names()
        assert all(torch.equal(opened.tensor(name), new.tensor(name)) for name in own)
        assert sa2va_lab.inspect(old).complete


def test_a_tensor_by_two_names(write_family, tmp_path):
    folder = copy(write_family("qwen3vl"), tmp_path / "both")
    save_file({"visual.merger.norm.bias": torch.zeros(64)}, folder / "old.safetensors")
    with pytest.raises(LabError, match="twice, by old and new names"):
        Checkpoint(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (None, "has no preprocessor_config.json or processor_config.json"),
        ({"patch_size": 7}, "patch_size 7 and config.json 14"),
        ({"image_mean": [0.5]}, "1 numbers in image_mean"),
        ({"image_std": [0, 1, 1]}, "input should be greater than 0"),
        ({"do_resize": False}, "do_resize False"),
        ({"resample": "x"}, "resample 'x'"),
        ({"rescale_factor": 1.0}, "rescale_factor 1"),
    ],
)
def test_an_image_processor_that_is_missing_or_of_another_model(write_family, tmp_path, change, said):
    folder = copy(write_family("qwen2_5_vl"), tmp_path / "odd")
    raw = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    if change is None:
        assert "image processor" in str(sa2va_lab.inspect(folder).missing[0])
        for use in (sa2va_lab.plan, sa2va_lab.load):
            with pytest.raises(LabError, match=said):
                use(folder)
    else:  # as transformers 5 writes it
        (folder / "processor_config.json").write_text(json.dumps({"image_processor": raw | change}))
        assert said in refuse(folder)


QUANTISED = {
    "bitsandbytes": {"up_proj.weight.absmax": (8, torch.float32), "up_proj.weight": (32, torch.uint8)},
    "gptq": {"up_proj.qweight": (32, torch.int32), "up_proj.g_idx": (8, torch.int32)},
    "awq": {"up_proj.qweight": (32, torch.int32), "up_proj.qzeros": (4, torch.int32)},
    "fp8": {"up_proj.weight": (32, torch.float8_e4m3fn)},
    "compressed-tensors": {"up_proj.weight_packed": (32, torch.int32)},
}


@pytest.mark.parametrize("family", ["qwen3vl"], scope="module")
@pytest.mark.parametrize("method", QUANTISED)
@pytest.mark.parametrize("told", ["config", "tensors"])
def test_a_folder_that_others_have_quantised(folder, tmp_path, method, told):
    said = {"quantization_config": {"quant_method": method}} if told == "config" else {}
    made, opened = copy(folder, tmp_path / "small", **said), Checkpoint(folder)
    if told == "tensors":
        (made / "model.safetensors").unlink()
        start = "model.model.language_model.layers.0.mlp."
        left = {n: opened.tensor(n) for n in opened.names() if not n.startswith(f"{start}up_proj")}
        left |= {start + name: torch.zeros(size).to(dtype) for name, (size, dtype) in QUANTISED[method].items()}
        save_file(left, made / "model.safetensors")
    told = [missing.source for missing in sa2va_lab.inspect(made).missing]
    for use in (sa2va_lab.plan, sa2va_lab.load):
        with pytest.raises(LabError, match=f"{method}.*--precision int8 or nf4") as refused:
            use(made)
        assert str(refused.value) in told


def test_packed_rows_that_do_not_divide(write_family, tmp_path):
    heads = {"num_attention_heads": 16, "num_key_value_heads": 2}
    folder = copy(write_family("internlm2"), tmp_path / "odd", llm_config=heads)
    with pytest.raises(LabError, match="wqkv has 192 rows, which do not divide among 2 key/value heads"):
        sa2va_lab.load(folder)


def test_factors_of_another_length(write_family, tmp_path):
    scaling = {"type": "su", "short_factor": [1.0] * 7, "long_factor": [1.0] * 8}
    folder = copy(write_family("phi3"), tmp_path / "odd", llm_config={"rope_scaling": scaling})
    with pytest.raises(LabError, match="short_factor .it has 7 numbers, not 8"):
        read_config(folder)
