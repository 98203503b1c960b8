"""config.json as data: families told apart, damage said in a sentence, nothing executed."""

import json

import pytest

from sa2va_lab.errors import LabError
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
        ({"text_config": {"model_type": "qwen3_vl_text"}}, "Qwen-VL family"),
        ({"llm_config": {"architectures": ["InternLM2ForCausalLM"]}}, "InternLM2ForCausalLM"),
        ({"llm_config": {}}, "language model unknown"),
        ({"template": "phi3_chat"}, "phi3_chat"),
    ],
)
def test_other_families_are_named(change, said):
    with pytest.raises(LabError, match=said):
        parse_config(RAW | change)


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
