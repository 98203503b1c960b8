"""The table of tensor names."""

import pytest

from sa2va_lab.errors import LabError
from sa2va_lab.loading.checkpoint import Checkpoint
from sa2va_lab.sa2va.configuration import parse_config, read_config
from sa2va_lab.sa2va.names import Place
from sa2va_lab.sa2va.weights import build_empty
from tools.demo import tiny

NAMES = parse_config(tiny.config(vocab_size=512, bos=1, eos=2)).names


def test_known_names():
    assert NAMES.origins("language_model.model.norm.weight") == [
        ("language_model.model.norm.weight", Place("language_model.model.norm.weight"))
    ]
    for i, part in enumerate("qkv"):
        ours = f"vision_model.encoder.layer.7.attention.{part}_proj.bias"
        assert NAMES.origins(ours) == [("vision_model.encoder.layers.7.attn.qkv.bias", Place(ours, "third", i))]
    prompts = "grounding_encoder.sam2_model.sam_prompt_encoder"
    ours = "grounding_encoder.prompt_encoder.point_embed.weight"
    assert NAMES.origins(ours) == [
        (f"{prompts}.point_embeddings.{row}.weight", Place(ours, "row", row)) for row in range(4)
    ]
    ours = "grounding_encoder.object_pointer_proj.layers.0.bias"
    assert NAMES.origins(ours) == [("grounding_encoder.sam2_model.obj_ptr_proj.layers.1.bias", Place(ours))]
    shared = ("shared_image_embedding", "prompt_encoder.shared_embedding")
    shared = NAMES.official(f"grounding_encoder.{one}.positional_embedding" for one in shared)
    assert list(shared) == [f"{prompts}.pe_layer.positional_encoding_gaussian_matrix"]
    assert len(*shared.values()) == 2


def test_our_own_names_are_not_official_ones():
    """A rule that also matched our names would load a checkpoint saved under them, with holes."""
    ours = "grounding_encoder.mask_decoder.transformer.layers.0.layer_norm1.weight"
    with pytest.raises(LabError, match=r"lacks 1 tensors .*sam_mask_decoder\.transformer\.layers\.0\.norm1\.weight"):
        NAMES.match([ours], [ours])


def test_backwards_gives_what_the_checkpoint_holds(tiny_folder):
    ours = list(build_empty(read_config(tiny_folder)).state_dict())
    backwards, stored = NAMES.official(ours), Checkpoint(tiny_folder).names()
    assert set(backwards) == set(stored)
    assert {place.name for found in backwards.values() for place in found} == set(ours)
    assert set(NAMES.match(stored, ours)) == set(ours)


def test_a_name_that_no_rule_gives():
    with pytest.raises(KeyError, match="no official name"):
        NAMES.official(["grounding_encoder.invented.weight"])
