"""config.json as data: families told apart, damage said in a sentence, nothing executed."""

import contextlib
import copy
import functools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sa2va_lab.errors import LabError
from sa2va_lab.loading.forecast import forecast
from sa2va_lab.loading.tensors import LazyTensor
from sa2va_lab.sa2va.configuration import parse_config, read_config
from tools.demo import tiny

RAW = tiny.config(vocab_size=512, bos=1, eos=2)


def test_released_sizes_are_constants():
    """Without our extra key, tiles and canvas are the official ones whatever else config.json says."""
    released = {key: value for key, value in RAW.items() if key != "sa2va_lab"}
    released |= {"max_dynamic_patch": 3, "vision_config": RAW["vision_config"] | {"patch_size": 14}}
    config = parse_config(released)
    assert (config.tile, config.max_tiles, config.canvas, config.stamp) == (448, 12, 1024, None)
    trunk = config.sam2_config().vision_config.backbone_config
    assert (trunk.embed_dim_per_stage, trunk.blocks_per_stage) == ([144, 288, 576, 1152], [2, 6, 36, 4])
    assert config.sam2_config().prompt_encoder_config.patch_size == 16


def test_our_extra_key_changes_them():
    config = parse_config(RAW)
    assert (config.tile, config.max_tiles, config.canvas) == (tiny.TILE, 1, tiny.CANVAS)
    assert config.tokens_per_tile == 64
    assert "not medical evidence" in config.stamp
    assert config.sam2_config().vision_config.backbone_feature_sizes[0] == [256, 256]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"text_config": {"model_type": "qwen3_vl_moe_text"}}, "qwen3_vl_moe_text"),
        ({"llm_config": {"architectures": ["Qwen3MoeForCausalLM"]}}, "Qwen3MoeForCausalLM"),
        ({"llm_config": {}}, "language model unknown"),
        ({"template": "phi3_chat"}, "phi3_chat"),
    ],
)
def test_other_families_are_named(change, said):
    with pytest.raises(LabError, match=said):
        parse_config(RAW | change)


LAYER = "language_model.model.layers.0.mlp.up_proj.weight"
BAD = [None, 0, {}, [], -1, 1.5, True, "x", float("nan"), 10**12]
SIZED = {
    "vision_config": ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "patch_size"),
    "llm_config": ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size"),
    "sa2va_lab": ("tile", "max_tiles", "canvas"),
}
PLACES = [(section, key) for section, keys in SIZED.items() for key in keys]
PLACES += [("vision_config",), ("llm_config",), ("downsample_ratio",)]


def changed(place, value):
    """config.json of the tiny model with something else in one place."""
    raw = copy.deepcopy(RAW)
    *sections, key = place
    functools.reduce(dict.__getitem__, sections, raw)[key] = value
    return raw


@pytest.mark.parametrize("value", BAD, ids=repr)
@pytest.mark.parametrize("place", PLACES, ids=".".join)
def test_what_is_no_size_is_one_sentence(place, value):
    with pytest.raises(
        LabError, match=r"^config\.json has (no sensible sizes in|the language model unknown)"
    ) as refused:
        parse_config(changed(place, value))
    assert len(str(refused.value)) < 400
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("section", ["vision_config", "llm_config"])
def test_sizes_that_no_network_can_do_without(section):
    for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"):
        raw = copy.deepcopy(RAW)
        del raw[section][key]
        with pytest.raises(LabError, match=rf"in {section}\.{key} \(it is not there\)"):
            parse_config(raw)


def leaves(value, place=()):
    """Every place in config.json that holds something, sections included."""
    if place:
        yield place
    for key, inner in value.items() if isinstance(value, dict) else ():
        yield from leaves(inner, (*place, key))


@settings(max_examples=60)
@given(place=st.sampled_from(list(leaves(RAW))), value=st.sampled_from(BAD))
def test_any_value_anywhere_is_a_network_or_a_sentence(place, value):
    """Whatever stands in config.json, one image can be counted through, or a LabError says why not."""
    with contextlib.suppress(LabError):
        config = parse_config(changed(place, value))
        forecast({LAYER: LazyTensor((1, 1), "fp32")}, config, precision="fp32")


@pytest.mark.parametrize(
    ("content", "said"),
    [("{", "is not JSON"), ("[]", "holds a list"), ('{"model_type": "bert"}', "not a Sa2VA checkpoint")],
)
def test_bad_files(tmp_path, content, said):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(LabError, match=said):
        read_config(tmp_path)


def test_no_folder_and_no_file(tmp_path):
    with pytest.raises(LabError, match="No checkpoint folder"):
        read_config(tmp_path / "nowhere")
    with pytest.raises(LabError, match=r"no config\.json"):
        read_config(tmp_path)


def test_python_beside_config_is_never_imported(tiny_folder, tmp_path):
    import shutil

    import sa2va_lab

    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    trap = tmp_path / "ran"
    code = f"open({str(trap)!r}, 'w').write('ran')\n"
    for name in ("configuration_sa2va_chat.py", "modeling_sa2va_chat.py", "tokenization_qwen2.py", "__init__.py"):
        (folder / name).write_text(code)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "modeling_sa2va_chat.X", "AutoConfig": "configuration_sa2va_chat.Y"}
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer["auto_map"] = {"AutoTokenizer": ["tokenization_qwen2.T", None]}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    sa2va_lab.load(folder)
    assert not trap.exists()
