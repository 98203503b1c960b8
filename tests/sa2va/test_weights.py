"""Loading refuses, by name, whatever would leave a tensor wrong or empty; saving gives the same weights back."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from sa2va_lab.errors import LabError
from sa2va_lab.loading.checkpoint import Checkpoint
from sa2va_lab.sa2va.configuration import read_config
from sa2va_lab.sa2va.weights import INDEX, build_empty, load_weights, save_official


def load(folder, dtype=torch.float32):
    return load_weights(build_empty(read_config(folder)), Checkpoint(folder), dtype=dtype)


@pytest.fixture
def copy(tiny_folder, tmp_path):
    return shutil.copytree(tiny_folder, tmp_path / "model")


def rewrite(folder, change):
    tensors = load_file(folder / "model.safetensors")
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_every_tensor_is_the_stored_one(tiny_folder):
    model = load(tiny_folder)
    stored = load_file(tiny_folder / "model.safetensors")
    ours = model.state_dict()
    assert not [name for name, tensor in ours.items() if tensor.is_meta]
    qkv = stored["vision_model.encoder.layers.1.attn.qkv.weight"].chunk(3)
    for part, expected in zip("qkv", qkv, strict=True):
        assert torch.equal(ours[f"vision_model.encoder.layer.1.attention.{part}_proj.weight"], expected)
    points = "grounding_encoder.sam2_model.sam_prompt_encoder.point_embeddings.{}.weight"
    expected = torch.cat([stored[points.format(i)] for i in range(4)])
    assert torch.equal(ours["grounding_encoder.prompt_encoder.point_embed.weight"], expected)
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_same_dtype_on_cpu_is_a_view_of_the_file(tiny_folder):
    """No second copy: two loads of one mapped file share its bytes, a conversion does not."""
    source = Checkpoint(tiny_folder)
    name = "language_model.lm_head.weight"
    model = load_weights(build_empty(read_config(tiny_folder)), source, dtype=torch.float32)
    assert model.language_model.lm_head.weight.data_ptr() == source.tensor(name).data_ptr()
    half = load_weights(build_empty(read_config(tiny_folder)), source, dtype=torch.bfloat16)
    assert half.language_model.lm_head.weight.dtype == torch.bfloat16
    assert half.language_model.lm_head.weight.data_ptr() != source.tensor(name).data_ptr()


def test_saved_in_shards_and_loaded_again(tiny_folder, tmp_path):
    model = load(tiny_folder)
    config = json.loads((tiny_folder / "config.json").read_text())
    folder = save_official(model, tmp_path / "again", config=config, tokenizer=tiny_folder, shard_bytes=4 << 20)
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    for name, tensor in load(folder).state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name
    assert Checkpoint(folder).names() == Checkpoint(tiny_folder).names()
    with pytest.raises(LabError, match="not empty"):
        save_official(model, folder, config=config, tokenizer=tiny_folder)


def test_tied_embeddings_need_no_head(copy):
    config = json.loads((copy / "config.json").read_text())
    config["llm_config"]["tie_word_embeddings"] = True
    (copy / "config.json").write_text(json.dumps(config))
    rewrite(copy, lambda tensors: tensors.pop("language_model.lm_head.weight"))
    model = load(copy)
    assert torch.equal(model.language_model.lm_head.weight, model.language_model.model.embed_tokens.weight)


def test_missing_tensors_are_named_officially(copy):
    rewrite(copy, lambda tensors: tensors.pop("vision_model.encoder.layers.1.attn.qkv.weight"))
    with pytest.raises(LabError, match=r"lacks 1 tensors .*vision_model\.encoder\.layers\.1\.attn\.qkv\.weight"):
        load(copy)


def test_one_missing_row_is_missing(copy):
    name = "grounding_encoder.sam2_model.sam_prompt_encoder.point_embeddings.2.weight"
    rewrite(copy, lambda tensors: tensors.pop(name))
    with pytest.raises(LabError, match="point_embeddings"):
        load(copy)


def test_unexpected_tensors_are_named(copy):
    rewrite(copy, lambda tensors: tensors.update({"language_model.model.layers.9.mlp.up_proj.weight": torch.zeros(2)}))
    with pytest.raises(LabError, match=r"no place for .*layers\.9"):
        load(copy)


def test_other_shape(copy):
    rewrite(copy, lambda tensors: tensors.update({"language_model.lm_head.weight": torch.zeros(7, 128)}))
    with pytest.raises(LabError, match=r"lm_head\.weight gives shape \(7, 128\)"):
        load(copy)


def test_no_weights(copy):
    (copy / "model.safetensors").unlink()
    with pytest.raises(LabError, match=r"no \*\.safetensors"):
        Checkpoint(copy)


@pytest.mark.parametrize("keep", [0, 5, 1000, -1000])
def test_cut_short(copy, keep):
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(LabError, match="damaged or cut short"):
        Checkpoint(copy)


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ({"weight_map": {"a": "model-00002-of-00002.safetensors"}}, "lacks 1 of 1 weight files"),
        ({"weight_map": {"a": "../model.safetensors"}}, "outside its own folder"),
        ({"weight_map": []}, "not a readable index"),
        ([], "holds a list, not an object"),
    ],
)
def test_bad_index(copy, index, said):
    (copy / INDEX).write_text(json.dumps(index))
    with pytest.raises(LabError, match=said):
        Checkpoint(copy)


def test_one_tensor_in_two_files(copy):
    shutil.copyfile(copy / "model.safetensors", copy / "other.safetensors")
    with pytest.raises(LabError, match="is in both"):
        Checkpoint(copy)


def test_digest_changes_with_one_value(copy):
    before, method = Checkpoint(copy).sha256()
    assert method == "every byte"
    rewrite(copy, lambda tensors: tensors["text_hidden_fcs.0.bias"].add_(1e-3))
    assert Checkpoint(copy).sha256()[0] != before
