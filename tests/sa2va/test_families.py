"""The seam: one place says what a family is, and all doors refuse what does not run here in the same words."""

import copy
import dataclasses
import json

import pytest
import torch

import sa2va_lab
from sa2va_lab.errors import LabError
from sa2va_lab.loading.checkpoint import Checkpoint
from sa2va_lab.sa2va.answering import write_answers
from sa2va_lab.sa2va.configuration import find_fault, parse_config
from sa2va_lab.sa2va.families import FAMILIES, find_family
from sa2va_lab.sa2va.internvl import InternVLQwen2
from sa2va_lab.sa2va.names import SPLITS, NameTable, Rule, Split, join_rows
from sa2va_lab.sa2va.parts import is_decoder_matrix, layer_of, name_officially, part_of, tell_base, tell_group
from sa2va_lab.sa2va.weights import build_empty, load_weights
from tools.demo import tiny

RAW = tiny.config(vocab_size=512, bos=1, eos=2)


def of_another_family(architecture):
    if architecture.endswith("_text"):
        return {key: value for key, value in RAW.items() if key != "llm_config"} | {
            "text_config": {"model_type": architecture}
        }
    return RAW | {"llm_config": RAW["llm_config"] | {"architectures": [architecture]}}


def test_the_registry_tells_them_apart_by_the_language_model():
    assert len({family.architecture for family in FAMILIES}) == len(FAMILIES)
    for family in FAMILIES:
        assert find_family(of_another_family(family.architecture)) is family


@pytest.mark.parametrize("architecture", ["qwen2_vl_text", "GPT2LMHeadModel", "\x1b[2J", "x" * 9999])
def test_what_does_not_run_here_is_refused_in_one_sentence(architecture):
    with pytest.raises(LabError, match="this version runs Qwen2ForCausalLM") as refused:
        parse_config(of_another_family(architecture))
    assert len(str(refused.value)) < 500
    assert "\x1b" not in str(refused.value)
    assert find_fault(of_another_family(architecture)) == str(refused.value)


@pytest.mark.parametrize(
    "change",
    [
        {"llm_config": RAW["llm_config"] | {"architectures": ["Qwen3MoeForCausalLM"]}},
        {"text_config": {"model_type": "qwen3_vl_moe_text"}},
        {"text_config": {"model_type": "qwen3_vl_text"}},
        {"llm_config": RAW["llm_config"] | {"hidden_size": None}},
    ],
    ids=["mixture of experts", "another of them", "sections of two families", "sizes"],
)
def test_inspect_plan_and_load_agree(tiny_folder, tmp_path, change):
    for file in tiny_folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps(RAW | change))
    told = [missing.source for missing in sa2va_lab.inspect(tmp_path).missing]
    for use in (sa2va_lab.plan, sa2va_lab.load):
        with pytest.raises(LabError) as refused:
            use(tmp_path)
        assert told == [str(refused.value)]


def test_a_state_before_the_final_norm(tiny_folder):
    """A family may read [SEG] before the norm: the words stay the same, and its state normed is the other's."""

    class Early(InternVLQwen2):
        before_norm = True

    config = parse_config(json.loads((tiny_folder / "config.json").read_text()))
    source, replies = Checkpoint(tiny_folder), {}
    for family in (config.family, Early()):
        model = build_empty(dataclasses.replace(config, family=family))
        load_weights(model, source, dtype=torch.float32)
        with torch.inference_mode():
            inputs = model.embed(torch.tensor([[5, 80, 200, 31, 7]]))
            [reply] = write_answers(model, inputs, model.new_cache(), draft=[9], stops=set(), limit=7)
            replies[family.before_norm] = reply.ids, reply.states, model.final_norm(reply.states)
    assert replies[True][0] == replies[False][0]
    assert not torch.allclose(replies[True][1], replies[False][1])
    torch.testing.assert_close(replies[True][2], replies[False][1], atol=1e-5, rtol=0)


def test_a_packed_matrix_is_a_split_of_the_table():
    """As InternLM2 packs it: for each key/value head its query heads, its key, its value. Cut, joined, and measured
    without data."""
    groups, width, queries = 2, 3, 4

    def cut(packed):
        heads = packed.unflatten(0, (groups, queries + 2, width))
        return [part.flatten(0, 2) for part in heads.split([queries, 1, 1], dim=1)]

    def join(parts):
        return join_rows([row for group in range(groups) for row in (part.chunk(groups)[group] for part in parts)])

    ours = tuple(f"layers.#.self_attn.{part}_proj" for part in "qkv")
    table = NameTable(
        [Rule("layers.#.attention.wqkv", ours, kind="packed")],
        own=("layers.",),
        splits=SPLITS | {"packed": Split(cut, join)},
    )
    official, name = torch.arange(36.0).view(36, 1), "layers.7.attention.wqkv.weight"
    parts = table.match([name], [pattern.replace("#", "7") + ".weight" for pattern in ours])
    made = {ours: table.assemble({name: official}.__getitem__, found) for ours, found in parts.items()}
    assert made["layers.7.self_attn.k_proj.weight"].flatten().tolist() == [12, 13, 14, 30, 31, 32]
    assert torch.equal(table.take_apart(table.official(made)[name], made), official)
    empty = table.assemble(lambda _: official.to("meta"), parts["layers.7.self_attn.q_proj.weight"])
    assert tuple(empty.shape) == (24, 1)


@pytest.mark.parametrize(
    ("name", "part", "layer", "matrix"),
    [
        ("language_model.model.layers.3.mlp.up_proj.weight", "language", 3, True),
        ("language_model.model.layers.3.self_attn.q_proj.bias", "language", 3, False),
        ("language_model.model.norm.weight", "language", None, False),
        ("language_model.model.embed_tokens.weight", "embed_tokens", None, False),
        ("language_model.lm_head.weight", "lm_head", None, False),
        ("model.model.language_model.layers.3.mlp.up_proj.weight", "language", 3, True),
        ("model.model.visual.blocks.0.attn.proj.weight", "vision", None, False),
        ("vision_model.encoder.layers.0.attn.proj.weight", "vision", None, False),
        ("grounding_encoder.sam2_model.memory_attention.layers.0.linear1.weight", "sam2_memory", None, False),
        ("text_hidden_fcs.0.weight", "seg_projection", None, False),
        ("invented.weight", "other", None, False),
    ],
)
def test_one_table_of_parts(name, part, layer, matrix):
    assert (part_of(name), layer_of(name), is_decoder_matrix(name)) == (part, layer, matrix)
    assert part_of(name_officially([f"mllm.{name}"])(f"mllm.{name}")) == part


def test_every_tensor_of_a_network_has_a_part(tiny_folder):
    names = Checkpoint(tiny_folder).names()
    assert "other" not in set(map(part_of, names))
    assert tell_group(names) == FAMILIES[0].group
    assert tell_base(3584, 28, group="internvl") == "OpenGVLab/InternVL3-8B"
    assert tell_base(3584, 28, group="qwen-vl") == "Qwen/Qwen2.5-VL-7B-Instruct"
    assert tell_base(1, 1, group="internvl") is None


def test_configs_are_equal_by_what_they_say():
    one, other = parse_config(RAW), parse_config(copy.deepcopy(RAW))
    assert one == other
    assert hash(one) == hash(other)
    assert one != parse_config(RAW | {"template": "internlm2-chat"})
    assert parse_config(RAW | {"template": "internlm2-chat"}).template == "internlm2_chat"
