"""The table of tensor names, read forwards and backwards."""

import pytest

from sa2va_lab.loading.checkpoint import Checkpoint
from sa2va_lab.sa2va.configuration import parse_config, read_config
from sa2va_lab.sa2va.names import Place
from sa2va_lab.sa2va.weights import build_empty
from tools.demo import tiny

NAMES = parse_config(tiny.config(vocab_size=512, bos=1, eos=2)).names


def test_known_names():
    assert NAMES.places("language_model.model.norm.weight") == (Place("language_model.model.norm.weight"),)
    assert NAMES.places("vision_model.encoder.layers.7.attn.qkv.bias") == tuple(
        Place(f"vision_model.encoder.layer.7.attention.{part}_proj.bias", "third", i) for i, part in enumerate("qkv")
    )
    assert NAMES.places("grounding_encoder.sam2_model.sam_prompt_encoder.point_embeddings.2.weight") == (
        Place("grounding_encoder.prompt_encoder.point_embed.weight", "row", 2),
    )
    assert NAMES.places("grounding_encoder.sam2_model.obj_ptr_proj.layers.1.bias") == (
        Place("grounding_encoder.object_pointer_proj.layers.0.bias"),
    )
    gaussian = "grounding_encoder.sam2_model.sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
    shared = NAMES.places(gaussian)
    assert [place.name.split(".")[1] for place in shared] == ["shared_image_embedding", "prompt_encoder"]


def test_our_own_names_are_not_official_ones():
    """A rule that also matched our names would load a checkpoint saved under them, with holes."""
    ours = "grounding_encoder.mask_decoder.transformer.layers.0.layer_norm1.weight"
    assert NAMES.places(ours) == (Place(ours),)


def test_backwards_gives_what_the_checkpoint_holds(tiny_folder):
    ours = list(build_empty(read_config(tiny_folder)).state_dict())
    backwards = NAMES.official(ours)
    assert set(backwards) == set(Checkpoint(tiny_folder).names())
    assert all(NAMES.places(name) == found for name, found in backwards.items())
    assert {place.name for found in backwards.values() for place in found} == set(ours)


def test_a_name_that_no_rule_gives():
    with pytest.raises(KeyError, match="no official name"):
        NAMES.official(["grounding_encoder.invented.weight"])
