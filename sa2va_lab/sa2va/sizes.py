"""What stands in config.json has the kind that it must have, or is refused in one sentence before anything is built."""

from __future__ import annotations

import json
from typing import Annotated

from pydantic import ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError, create_model

from sa2va_lab.errors import LabError

LARGEST, MOST_LAYERS = 10_000_000, 1000  # an absurd size would be built before it fails
KINDS = (
    (
        PositiveInt,
        *("hidden_size", "intermediate_size", "num_attention_heads", "num_heads", "vocab_size", "patch_size"),
        *("max_position_embeddings", "original_max_position_embeddings", "max_window_layers", "window_size"),
        *("num_channels", "in_channels", "tile", "max_tiles", "canvas", "spatial_merge_size", "temporal_patch_size"),
        *("merge_size", "out_hidden_size", "num_position_embeddings"),
    ),
    (PositiveInt | None, "sliding_window", "num_key_value_heads", "head_dim"),
    (Annotated[PositiveInt, Field(le=MOST_LAYERS)], "num_hidden_layers", "depth"),
    (
        Annotated[list[NonNegativeInt], Field(min_length=1)],
        *("blocks_per_stage", "embed_dim_per_stage", "num_attention_heads_per_stage", "window_size_per_stage"),
        *("global_attention_blocks", "patch_stride", "mrope_section"),
        *("fullatt_block_indexes", "deepstack_visual_indexes"),
    ),
    (
        PositiveFloat,
        *("layer_norm_eps", "rms_norm_eps", "rope_theta", "factor", "downsample_ratio", "partial_rotary_factor"),
        "rescale_factor",
    ),
    (list[PositiveFloat], "short_factor", "long_factor", "image_mean", "image_std"),
    (bool, "qkv_bias", "qk_normalization", "tie_word_embeddings", "use_sliding_window", "attention_bias", "bias"),
    (str, "hidden_act", "norm_type"),
    (str | None, "stamp"),
    (dict, "sam2", "backbone", "vision", "prompt_encoder", "mask_decoder"),
    (dict | None, "rope_scaling", "rope_parameters"),
)
_Section = create_model(
    "Section", __config__=ConfigDict(strict=True), **{key: (kind, None) for kind, *keys in KINDS for key in keys}
)


def find_section(raw: dict, key: str, *, name: str, needed: tuple[str, ...] = (), most: int = LARGEST) -> dict:
    """The object under a key of config.json, {} where there is none.

    Raises LabError for what is no object, for values of wrong kinds however deep, for sizes above `most`, and where
    one that is `needed` is not there. name: of the file, for the sentence.
    """
    section = raw.get(key, {})
    if not isinstance(section, dict):
        refuse(name, key, f"it is {section!r:.40}, not an object")
    _check(section, key, name=name)
    if (largest := _find_largest(section)) > most:
        refuse(name, key, f"{largest:g} is in it; expected at most {most:,}")
    for size in needed:
        if size not in section:
            refuse(name, f"{key}.{size}", "it is not there")
    return section


def refuse(name: str, where: str, why: str) -> None:
    """Raises the LabError for sizes that make no network."""
    raise LabError(f"{name} has no sensible sizes in {where} ({why}): copy the file again from its source.")


def _check(section: dict, where: str, *, name: str) -> None:
    try:
        _Section.model_validate(section)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, (where, *first["loc"])))
        refuse(name, place, f"it is {json.dumps(first['input'])[:40]}; {first['msg'].lower()}")
    for key, value in section.items():
        if isinstance(value, dict):
            _check(value, f"{where}.{key}", name=name)


def _find_largest(value: object) -> float:
    if isinstance(value, dict | list):
        return max(map(_find_largest, value.values() if isinstance(value, dict) else value), default=0)
    return value if isinstance(value, int | float) else 0
