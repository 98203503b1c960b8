"""What users have: an InternVL folder, a SAM2, a fine-tune. The demo taken apart is the demo put together."""

import json
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

import sa2va_lab
from sa2va_lab.errors import LabError
from sa2va_lab.loading.checkpoint import ADDED_TOKENS, Checkpoint
from sa2va_lab.loading.inventory import read_inventory
from sa2va_lab.loading.merge import merge
from sa2va_lab.loading.parts import place_sam2
from sa2va_lab.loading.whole import open_whole
from sa2va_lab.sa2va.sam2 import SAM2

EMBEDDINGS = ("language_model.model.embed_tokens.weight", "language_model.lm_head.weight")
GAMMA = ".g_weight"
ANSWER = {"answer": "Sure, [SEG]."}


@pytest.fixture(scope="module")
def apart(root, tmp_path_factory):
    """The demo's base as its parts come in reality: a folder in InternVL's form, Meta's .pt, Hugging Face's folder."""
    folder, base = tmp_path_factory.mktemp("apart"), root / "data/demo/base"
    whole, internvl = Checkpoint(base), folder / "InternVL"
    shutil.copytree(base, internvl)
    tokenizer = json.loads((base / "tokenizer.json").read_text())
    tokenizer["added_tokens"] = [t for t in tokenizer["added_tokens"] if t["content"] not in ADDED_TOKENS]
    (internvl / "tokenizer.json").write_text(json.dumps(tokenizer))
    rows = Tokenizer.from_file(str(internvl / "tokenizer.json")).get_vocab_size()
    language = {n: whole.tensor(n) for n in whole.names() if not n.startswith(("grounding", "text_hidden"))}
    language |= {name: language[name][:rows].clone() for name in EMBEDDINGS}
    save_file(language, internvl / "model.safetensors", metadata={"format": "pt"})
    raw = json.loads((base / "config.json").read_text())
    raw |= {"model_type": "internvl_chat", "architectures": ["InternVLChatModel"], "template": "internvl2_5"}
    raw["auto_map"] = {"AutoModel": "modeling_internvl_chat.InternVLChatModel"}
    raw["llm_config"]["vocab_size"] = rows
    (internvl / "config.json").write_text(json.dumps(raw))
    meta = {n.removeprefix(SAM2): whole.tensor(n) for n in whole.names() if n.startswith(SAM2)}
    meta = {n.replace(GAMMA, ".gamma") if n.endswith(GAMMA) else n: t for n, t in meta.items()}
    torch.save({"model": meta}, folder / "sam2_hiera_large.pt")
    sam2 = sa2va_lab.load(base, precision="fp32").model.grounding_encoder
    prompts = sam2.prompt_encoder.shared_embedding  # the released folder has this matrix twice
    prompts.positional_embedding = prompts.positional_embedding.clone()
    sam2.save_pretrained(folder / "sam2-hiera-large")
    (tuned,) = (root / "data/demo").glob("iter_*.pth")
    image = sorted((root / "data/demo/angiograms/images").iterdir())[0]
    wanted = sa2va_lab.load(base, finetune=tuned, precision="fp32").predict(image, "blood vessel", **ANSWER)
    return SimpleNamespace(
        folder=folder, internvl=internvl, base=base, tuned=tuned, image=image, wanted=wanted, rows=rows, meta=meta
    )


FORMS = ("sam2_hiera_large.pt", "sam2-hiera-large")


@pytest.mark.parametrize("form", FORMS)
def test_the_parts_predict_what_the_whole_predicts(apart, form):
    """Equal logits, not nearly equal ones."""
    made = sa2va_lab.load(apart.internvl, sam2=apart.folder / form, finetune=apart.tuned, precision="fp32")
    found = made.predict(apart.image, "blood vessel", **ANSWER)
    assert np.array_equal(found.logits, apart.wanted.logits)
    assert found.n_seg == 1
    assert made.predict(apart.image, "blood vessel").answer == "Sure, [SEG]."
    assert made.provenance["sam2"]["file"] == form


@pytest.mark.parametrize("form", FORMS)
def test_every_tensor_is_that_of_the_whole(apart, form):
    whole = open_whole(apart.base, finetune=apart.tuned)
    parts = open_whole(apart.internvl, sam2=apart.folder / form, finetune=apart.tuned)
    assert parts.names() == whole.names()
    assert all(torch.equal(parts.tensor(name), whole.tensor(name)) for name in whole.names())
    assert all(parts.shape(name) == whole.shape(name) for name in whole.names())


def test_the_merged_folder_is_whole(apart, tmp_path):
    """It needs nothing beside it: tokenizer with [SEG], config.json of a Sa2VA, and the same logits."""
    out = tmp_path / "merged"
    said = merge(apart.internvl, out, sam2=apart.folder / FORMS[0], finetune=apart.tuned, precision="fp32")
    assert said["largest_difference"] <= said["allowed"] < 1e-4
    found = sa2va_lab.load(out, precision="fp32").predict(apart.image, "blood vessel", **ANSWER)
    written, wanted = Checkpoint(out), open_whole(apart.base, finetune=apart.tuned)
    assert all(torch.equal(written.tensor(name), wanted.tensor(name)) for name in wanted.names())
    # Equal weights at other places of a mapped file: kernels may sum in another order.
    np.testing.assert_allclose(found.logits, apart.wanted.logits, atol=1e-5)
    inventory = read_inventory(out)
    assert inventory.complete
    assert inventory.parameters == read_inventory(apart.base).parameters
    raw, wanted = (json.loads((folder / "config.json").read_text()) for folder in (out, apart.base))
    assert raw == wanted | {"torch_dtype": "float32"}
    record = json.loads((out / "merged_from.json").read_text())
    assert (record["base"], record["sam2"]["file"]) == ("InternVL", FORMS[0])


@pytest.mark.parametrize("form", FORMS)
def test_the_inventory_says_where_each_part_comes_from(apart, form):
    found = read_inventory(apart.internvl, sam2=apart.folder / form, finetune=apart.tuned)
    assert found.complete
    assert found.parameters == read_inventory(apart.base).parameters
    origins = {part.name: part.origin for part in found.parts}
    pth = (apart.tuned.name,)
    assert origins["vision"] == ("InternVL",)
    assert origins["language"] == ("InternVL", apart.tuned.name)
    assert origins["sam2_encoder"] == origins["sam2_memory"] == (form,)
    assert origins["embed_tokens"] == origins["sam2_decoder"] == origins["seg_projection"] == pth
    without = read_inventory(apart.internvl, sam2=apart.folder / form)
    assert [missing.parts for missing in without.missing] == [("seg_projection",)]


def test_the_real_names_are_metas(real_shapes):
    """All that the released folder has under SAM2's prefix, from Meta's own names."""
    official = [name for name in real_shapes if name.startswith(SAM2)]
    meta = [name.removeprefix(SAM2).replace(GAMMA, ".gamma") for name in official]
    assert set(place_sam2(meta, "x.pt")) == set(official)


def refuse(apart, **given):
    given = {"sam2": apart.folder / FORMS[0], "finetune": apart.tuned} | given
    with pytest.raises(LabError) as refused:
        open_whole(given.pop("base", apart.internvl), **given)
    return str(refused.value)


def test_parts_that_make_no_whole_are_named(apart, tmp_path, tiny_folder):
    assert "bare InternVL" in refuse(apart, sam2=None)
    assert "a fine-tune, which brings [SEG]" in refuse(apart, finetune=None)
    assert "has its own SAM2" in refuse(apart, base=apart.base)
    assert "give Meta's sam2_hiera_large.pt" in refuse(apart, sam2=tmp_path / "none.pt")
    assert "is no SAM2" in refuse(apart, sam2=apart.tuned)
    assert "is no SAM2" in refuse(apart, sam2=tiny_folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m | {"no_obj_embed_spatial": torch.zeros(1, 96)}, "another SAM2.*it has no_obj_embed_spatial"),
        (lambda m: {n: t for n, t in m.items() if n != "no_mem_embed"}, "another SAM2.*it lacks no_mem_embed"),
        (lambda m: m | {"no_mem_embed": torch.zeros(1, 1, 7)}, r"no_mem_embed gives shape \(1, 1, 7\).*another model"),
    ],
)
def test_another_sam2_is_refused(apart, tmp_path, change, said):
    torch.save({"model": change(apart.meta)}, tmp_path / "other.pt")
    with pytest.raises(LabError, match=said):
        open_whole(apart.internvl, sam2=tmp_path / "other.pt", finetune=apart.tuned)


def test_a_tokenizer_of_another_base_is_refused(apart, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(apart.internvl, other)
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    tokenizer["added_tokens"].pop()
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(LabError, match=f"vocabulary of {apart.rows + 5}"):
        sa2va_lab.load(other, sam2=apart.folder / FORMS[0], finetune=apart.tuned)


def test_commands(apart, tmp_path, capsys, monkeypatch):
    from sa2va_lab import cli

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["sa2va-lab", *map(str, words)])
        with pytest.raises(SystemExit) as done:
            cli.main()
        assert not done.value.code
        return capsys.readouterr().out

    said = run("inspect", apart.internvl, apart.folder / FORMS[0], apart.tuned, "--json")
    assert json.loads(said)["inventories"][-1]["complete"]
    run("merge", apart.internvl, tmp_path / "out", "--sam2", apart.folder / FORMS[1], "--finetune", apart.tuned)
    assert read_inventory(tmp_path / "out").complete
