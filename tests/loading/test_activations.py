"""The count without data against the same count of a real prediction."""

import dataclasses

import numpy as np
import pytest
import torch

import sa2va_lab
from sa2va_lab.loading import activations
from sa2va_lab.loading.activations import _Held, count_activations, shorten
from sa2va_lab.sa2va.configuration import read_config
from sa2va_lab.sa2va.sam2 import HIERA_L


@pytest.fixture
def config(tiny_folder):
    return read_config(tiny_folder)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16", "int8"])
def test_what_lives_in_a_real_prediction_is_what_was_counted(tiny_folder, precision):
    segmenter = sa2va_lab.load(tiny_folder, precision=precision, device="cpu")
    image = np.random.default_rng(0).integers(0, 255, (200, 200), np.uint8)
    held = _Held(segmenter.model)
    with held:
        segmenter.predict(image, "x", answer="Sure, [SEG].")
    said = count_activations(segmenter.model.config, precision=precision, tiles=1, on_cpu=True)
    assert held.peak == pytest.approx(said.after + said.cache, rel=0.05)
    assert 0 < said.cache < said.after
    assert 0 < said.reading < said.after
    assert 0 < said.seeing < said.after


def test_positions_that_scale_as_they_grow_change_nothing(config):
    scaled = {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}  # as InternVL's config.json has it
    dynamic = dataclasses.replace(config, language=config.language | scaled)
    one, other = (count_activations(of, precision="bf16", tiles=1) for of in (config, dynamic))
    assert one == other


def test_the_mode_of_the_caller_changes_nothing(config):
    with torch.inference_mode():
        inside = count_activations(config, precision="bf16", tiles=1)
    assert inside == count_activations(config, precision="bf16", tiles=1)


def test_more_tiles_take_more(config):
    one, five = (count_activations(config, precision="bf16", tiles=tiles) for tiles in (1, 5))
    assert five.reading > 3 * one.reading
    assert five.cache > 2 * one.cache
    assert five.seeing > 3 * one.seeing
    assert five.after >= one.after


@pytest.mark.parametrize("on_cpu", [False, True])
@pytest.mark.parametrize("everywhere", [[], [4, 9, 12]], ids=["none", "several"])
def test_few_layers_stand_for_all(config, monkeypatch, on_cpu, everywhere):
    depth = {"num_hidden_layers": 5}
    backbone = HIERA_L | config.sam2["backbone"]
    backbone |= {"blocks_per_stage": [2, 3, 6, 3], "global_attention_blocks": everywhere}
    deep = dataclasses.replace(
        config,
        vision=config.vision | depth,
        language=config.language | depth,
        sam2=config.sam2 | {"backbone": backbone},
    )
    few = count_activations(deep, precision="int8", tiles=2, on_cpu=on_cpu)
    monkeypatch.setattr(activations, "shorten", lambda config: config)
    assert few == count_activations(deep, precision="int8", tiles=2, on_cpu=on_cpu)


def test_a_shortened_network_keeps_a_layer_of_each_kind(config):
    backbone = shorten(dataclasses.replace(config, sam2={})).sam2["backbone"]
    assert backbone["blocks_per_stage"] == [2, 2, 3, 2]
    assert backbone["global_attention_blocks"] == [6]  # the last of the third stage


def test_what_lies_out_of_order_is_copied():
    linear = torch.nn.LayerNorm(8, device="meta")
    given = torch.empty(4, 8, 8, device="meta")
    for turned, copied in ((given, 0), (given.transpose(0, 1), given.nbytes)):
        with torch.no_grad(), _Held(linear) as held:
            linear(turned)
        assert held.peak == pytest.approx(given.nbytes + copied, abs=2 * 4 * 32)  # and means and deviations
