"""InternViT-6B's form (Sa2VA-26B): RMS norms, normed queries and keys without bias; against a float64 of its own."""

import math

import numpy as np
import pytest
import torch

from sa2va_lab.sa2va.configuration import parse_config
from sa2va_lab.sa2va.weights import build_empty
from tools.demo import tiny

HEADS, EPS = 3, 1e-6


@pytest.fixture(scope="module")
def config():
    raw = tiny.config(vocab_size=512, bos=1, eos=2)
    form = {"norm_type": "rms_norm", "qk_normalization": True, "qkv_bias": False, "layer_norm_eps": EPS}
    return parse_config(raw | {"vision_config": raw["vision_config"] | form})


@pytest.fixture(scope="module")
def official(config):
    """The tower's tensors under official names, with values that make every one of them count."""
    wanted = {name: tensor for name, tensor in build_empty(config).state_dict().items() if name.startswith("vision_")}
    made, tensors = np.random.default_rng(3), {}
    for name, places in config.names.official(wanted).items():
        rows = sum(wanted[place.name].shape[0] for place in places)
        shape = (rows, *wanted[places[0].name].shape[1:])
        about = 1.0 if "norm" in name else 0.0
        tensors[name] = about + made.standard_normal(shape) / math.sqrt(max(np.prod(shape[1:]), 25))
    return tensors


def rms(values, weight):
    return values / np.sqrt((values**2).mean(-1, keepdims=True) + EPS) * weight


def attend(states, read):
    """(n, C) -> (n, C). Queries and keys are normed over all heads at once, before they are parted."""
    query, key, value = np.split(states @ read("attn.qkv.weight").T, 3, axis=-1)
    query, key = rms(query, read("attn.q_norm.weight")), rms(key, read("attn.k_norm.weight"))
    query, key, value = (part.reshape(len(part), HEADS, -1).transpose(1, 0, 2) for part in (query, key, value))
    scores = query @ key.transpose(0, 2, 1) / math.sqrt(query.shape[-1])
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    seen = weights / weights.sum(-1, keepdims=True) @ value
    return seen.transpose(1, 0, 2).reshape(len(states), -1) @ read("attn.proj.weight").T + read("attn.proj.bias")


def see(tile, official, layers):
    """(3, s, s) -> (n, C): the tower from pixels to the states of its patches, in float64."""
    size = tiny.PATCH
    side = tile.shape[-1] // size
    patches = tile.reshape(3, side, size, side, size).transpose(1, 3, 0, 2, 4).reshape(side * side, -1)
    start = "vision_model.embeddings."
    kernel = official[start + "patch_embedding.weight"].reshape(-1, 3 * size * size)
    states = patches @ kernel.T + official[start + "patch_embedding.bias"]
    states = np.concatenate([official[start + "class_embedding"][0], states])
    states = states + official[start + "position_embedding"][0]
    erf = np.vectorize(math.erf)
    for layer in range(layers):

        def read(name, layer=layer):
            return official[f"vision_model.encoder.layers.{layer}.{name}"]

        states = states + read("ls1") * attend(rms(states, read("norm1.weight")), read)
        wide = rms(states, read("norm2.weight")) @ read("mlp.fc1.weight").T + read("mlp.fc1.bias")
        wide = wide * (1 + erf(wide / math.sqrt(2))) / 2
        states = states + read("ls2") * (wide @ read("mlp.fc2.weight").T + read("mlp.fc2.bias"))
    return states[1:]


def test_its_names_are_those_of_the_6b_tower(official):
    layer = {name.removeprefix("vision_model.encoder.layers.0.") for name in official if ".layers.0." in name}
    assert layer == {
        *("attn.qkv.weight", "attn.q_norm.weight", "attn.k_norm.weight", "attn.proj.weight", "attn.proj.bias"),
        *("norm1.weight", "norm2.weight", "ls1", "ls2"),
        *("mlp.fc1.weight", "mlp.fc1.bias", "mlp.fc2.weight", "mlp.fc2.bias"),
    }


def test_the_tower_against_a_float64_of_its_own(config, official):
    model = build_empty(config).vision_model.float()
    tensors = {name: torch.from_numpy(np.asarray(value, np.float32)) for name, value in official.items()}
    prefix = "vision_model."
    names = [prefix + name for name in model.state_dict()]
    parts = config.names.match(tensors, names)
    state = {
        name.removeprefix(prefix): config.names.assemble(tensors.__getitem__, found) for name, found in parts.items()
    }
    model.load_state_dict(state, assign=True)
    tile = np.random.default_rng(4).standard_normal((3, tiny.TILE, tiny.TILE)).astype(np.float32)
    with torch.inference_mode():
        got = model(torch.from_numpy(tile)[None]).last_hidden_state[0, 1:].double().numpy()
    wanted = see(tile.astype(np.float64), official, config.vision["num_hidden_layers"])
    assert wanted.std() > 0.1
    np.testing.assert_allclose(got, wanted, atol=2e-4 * np.abs(wanted).max(), rtol=0)


SIZES = {  # vision: width, layers, heads, inner; language: width, layers, heads, key/value heads, inner, words
    "Sa2VA-8B": ((1024, 24, 16, 4096), (4096, 32, 32, 8, 14336, 92558), 8.30e9),
    "Sa2VA-26B": ((3200, 45, 25, 12800), (6144, 48, 48, 8, 16384, 92558), 25.74e9),
}


@pytest.mark.parametrize("name", SIZES)
def test_the_networks_of_released_sizes(name):
    """InternVL2.5-8B and -26B have 8.08 and 25.5 billion parameters, SAM2 0.22: what is built here has as many."""
    eye, words, expected = SIZES[name]
    keys = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    vision = dict(zip(keys, eye, strict=True))
    if name == "Sa2VA-26B":
        vision |= {"norm_type": "rms_norm", "qk_normalization": True, "qkv_bias": False}
    keys = (*keys[:3], "num_key_value_heads", keys[3], "vocab_size")
    language = dict(zip(keys, words, strict=True)) | {"architectures": ["InternLM2ForCausalLM"]}
    model = build_empty(parse_config({"vision_config": vision, "llm_config": language, "template": "internlm2_chat"}))
    assert sum(tensor.numel() for tensor in model.state_dict().values()) == pytest.approx(expected, rel=0.01)
