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
from sa2va_lab.loading.inventory import read_inventory
from sa2va_lab.loading.merge import merge
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


@pytest.mark.parametrize(("precision", "largest"), [("bf16", 0.1), ("int8", 0.2)])
def test_precisions(folder, plain, precision, largest):
    segmenter = sa2va_lab.load(folder, precision=precision, device="cpu")
    got = segmenter.predict(IMAGE, "blood vessel", **ASKED)
    assert np.abs(got.logits - plain.logits).max() < largest * np.abs(plain.logits).max()
    assert isinstance(segmenter.answer(IMAGE, "blood vessel", limit=4), str)
    if precision == "int8":
        dtypes = {name: tensor.dtype for name, tensor in segmenter.model.state_dict().items()}
        assert {name for name, dtype in dtypes.items() if dtype == torch.int8} == set(filter(is_decoder_matrix, dtypes))


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


@pytest.mark.parametrize("family", ["internlm2", "phi3"], scope="module")
def test_a_bare_model_grows_with_its_fine_tune(folder, tuned, tmp_path):
    """A training starts from an InternVL without SAM2 and without the tokens of Sa2VA: its own tables get longer."""
    whole, bare = Checkpoint(folder), tmp_path / "InternVL"
    shutil.copytree(folder, bare)
    said = json.loads((bare / "tokenizer_config.json").read_text())
    added = said["added_tokens_decoder"]
    said["added_tokens_decoder"] = {k: token for k, token in added.items() if token["content"] not in ADDED_TOKENS}
    (bare / "tokenizer_config.json").write_text(json.dumps(said))
    own = {name: whole.tensor(name) for name in whole.names() if not name.startswith((SAM2, "text_hidden"))}
    tables = [name for name in own if part_of(name) in ("embed_tokens", "lm_head")]
    own |= {name: own[name][:-5].clone() for name in tables}
    save_file(own, bare / "model.safetensors", metadata={"format": "pt"})
    raw = json.loads((bare / "config.json").read_text())
    raw |= {"model_type": "internvl_chat", "architectures": ["InternVLChatModel"], "template": "internvl2_5"}
    raw["llm_config"]["vocab_size"] -= 5
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
        raw[section] = raw[section] | values if isinstance(values, dict) else values
    (to / "config.json").unlink()
    (to / "config.json").write_text(json.dumps(raw))
    return to


def test_weights_of_another_family(write_family, tmp_path):
    raw = json.loads((write_family("phi3") / "config.json").read_text())
    mixed = copy(write_family("internlm2"), tmp_path / "mixed", llm_config=raw["llm_config"], template="phi3_chat")
    with pytest.raises(LabError, match="lacks .* tensors|no place for|tokenizer"):
        sa2va_lab.load(mixed)


def test_a_tokenizer_of_another_model(write_family, tmp_path):
    mixed = copy(write_family("internlm2"), tmp_path / "mixed")
    for file in ("tokenizer.model", "tokenizer_config.json"):
        (mixed / file).unlink()
        shutil.copy(write_family("phi3") / file, mixed / file)
    with pytest.raises(LabError, match="tokenizer"):
        sa2va_lab.load(mixed)


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
