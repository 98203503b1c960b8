"""The count without data against the same count of a real prediction."""

import dataclasses

import numpy as np
import pytest
import torch

import sa2va_lab
from sa2va_lab.loading.activations import _Held, count_activations


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_what_lives_in_a_real_prediction_is_what_was_counted(tiny_folder, dtype):
    precision = "fp32" if dtype == torch.float32 else "bf16"
    segmenter = sa2va_lab.load(tiny_folder, precision=precision, device="cpu")
    image = np.random.default_rng(0).integers(0, 255, (200, 200), np.uint8)
    with _Held() as held:
        segmenter.predict(image, "x", answer="Sure, [SEG].")
    said = count_activations(segmenter.model.config, dtype=dtype, tiles=1)
    assert held.peak == pytest.approx(said.peak, rel=0.05)
    assert 0 < said.cache < said.peak
    assert 0 < said.reading < said.peak


def test_positions_that_scale_as_they_grow_change_nothing(tiny_folder):
    from sa2va_lab.sa2va.configuration import read_config

    config = read_config(tiny_folder)
    scaled = {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}  # as InternVL's config.json has it
    dynamic = dataclasses.replace(config, language=config.language | scaled)
    one, other = (count_activations(of, dtype=torch.bfloat16, tiles=1) for of in (config, dynamic))
    assert one == other


def test_more_tiles_take_more(tiny_folder):
    from sa2va_lab.sa2va.configuration import read_config

    one, five = (count_activations(read_config(tiny_folder), dtype=torch.bfloat16, tiles=tiles) for tiles in (1, 5))
    assert five.reading > 3 * one.reading
    assert five.cache > 2 * one.cache
    assert five.peak >= one.peak
