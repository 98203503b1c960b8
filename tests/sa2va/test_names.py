"""The table of tensor names, read forwards and backwards."""

import pytest

from sa2va_lab.loading.checkpoint import Checkpoint
from sa2va_lab.sa2va.configuration import read_config
from sa2va_lab.sa2va.names import Place, official_names, places
from sa2va_lab.sa2va.weights import build_empty


def test_known_names():
    assert places("language_model.model.norm.weight") == (Place("language_model.model.norm.weight"),)
    assert places("vision_model.encoder.layers.7.attn.qkv.bias") == tuple(
        Place(f"vision_model.encoder.layer.7.attention.{part}_proj.bias", "third", i) for i, part in enumerate("qkv")
    )
    assert places("grounding_encoder.sam2_model.sam_prompt_encoder.point_embeddings.2.weight") == (
        Place("grounding_encoder.prompt_encoder.point_embed.weight", "row", 2),
    )
    assert places("grounding_encoder.sam2_model.obj_ptr_proj.layers.1.bias") == (
        Place("grounding_encoder.object_pointer_proj.layers.0.bias"),
    )
    shared = places("grounding_encoder.sam2_model.sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix")
    assert [place.name.split(".")[1] for place in shared] == ["shared_image_embedding", "prompt_encoder"]


def test_our_own_names_are_not_official_ones():
    """A rule that also matched our names would load a checkpoint saved under them, with holes."""
    ours = "grounding_encoder.mask_decoder.transformer.layers.0.layer_norm1.weight"
    assert places(ours) == (Place(ours),)


def test_backwards_gives_what_the_checkpoint_holds(tiny_folder):
    ours = list(build_empty(read_config(tiny_folder)).state_dict())
    backwards = official_names(ours)
    assert set(backwards) == set(Checkpoint(tiny_folder).names())
    assert all(places(name) == found for name, found in backwards.items())
    assert {place.name for found in backwards.values() for place in found} == set(ours)


def test_a_name_that_no_rule_gives():
    with pytest.raises(KeyError, match="no official name"):
        official_names(["grounding_encoder.invented.weight"])
