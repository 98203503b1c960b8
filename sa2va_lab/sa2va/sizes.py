"""What stands in config.json has the kind that it must have, or is refused in one sentence before anything is built."""

from __future__ import annotations

from sa2va_lab.errors import LabError

LARGEST, MOST_LAYERS = 10_000_000, 1000  # an absurd size would be built before it fails
WHOLE = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"),
    *("head_dim", "vocab_size", "max_position_embeddings", "max_window_layers", "sliding_window", "patch_size"),
    *("num_channels", "tile", "max_tiles", "canvas", "original_max_position_embeddings"),
    *("depth", "num_heads", "in_channels", "spatial_merge_size", "temporal_patch_size", "window_size"),
    *("out_hidden_size", "num_position_embeddings", "merge_size"),
)
LISTS = (
    *("blocks_per_stage", "embed_dim_per_stage", "num_attention_heads_per_stage", "window_size_per_stage"),
    *("global_attention_blocks", "patch_stride", "fullatt_block_indexes", "deepstack_visual_indexes", "mrope_section"),
)
KINDS = {
    "a whole number above 0": (lambda value: is_whole(value) and value > 0, WHOLE),
    "a list of whole numbers": (lambda value: isinstance(value, list) and all(map(is_whole, value)) and value, LISTS),
    "a number above 0": (
        lambda value: is_number(value),
        (
            *("layer_norm_eps", "rms_norm_eps", "rope_theta", "factor", "downsample_ratio", "partial_rotary_factor"),
            "rescale_factor",
        ),
    ),
    "a list of numbers above 0": (
        lambda value: isinstance(value, list) and all(map(is_number, value)),
        ("short_factor", "long_factor", "image_mean", "image_std"),
    ),
    "true or false": (
        lambda value: isinstance(value, bool),
        ("qkv_bias", "qk_normalization", "tie_word_embeddings", "use_sliding_window", "attention_bias", "bias"),
    ),
    "a text": (lambda value: isinstance(value, str), ("hidden_act", "norm_type", "stamp")),
    "an object": (
        lambda value: isinstance(value, dict),
        ("rope_scaling", "rope_parameters", "sam2", "backbone", "vision", "prompt_encoder", "mask_decoder"),
    ),
}
MAY_BE_NULL = {"rope_scaling", "rope_parameters", "sliding_window", "num_key_value_heads", "head_dim", "stamp"}


def is_whole(value: object) -> bool:
    """Whether it is a whole number, 0 or above."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_number(value: object) -> bool:
    """Whether it is a number above 0."""
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


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
    for count in ("num_hidden_layers", "depth"):
        if section.get(count, 1) > MOST_LAYERS:
            refuse(name, f"{key}.{count}", f"expected at most {MOST_LAYERS}")
    return section


def refuse(name: str, where: str, why: str) -> None:
    """Raises the LabError for sizes that make no network."""
    raise LabError(f"{name} has no sensible sizes in {where} ({why}): copy the file again from its source.")


def _check(section: dict, where: str, *, name: str) -> None:
    for words, (fits, keys) in KINDS.items():
        for key in keys:
            value = section.get(key)
            if key in section and not fits(value) and not (value is None and key in MAY_BE_NULL):
                said = "null" if value is None else f"{value!r:.40}"
                refuse(name, f"{where}.{key}", f"it is {said}; expected {words}")
    for key, value in section.items():
        if isinstance(value, dict):
            _check(value, f"{where}.{key}", name=name)


def _find_largest(value: object) -> float:
    if isinstance(value, dict | list):
        return max(map(_find_largest, value.values() if isinstance(value, dict) else value), default=0)
    return value if isinstance(value, int | float) else 0
