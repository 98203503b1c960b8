"""Official tensor names and ours: one table, read in both directions.

Most of the language model, `mlp1` and `text_hidden_fcs` need no rule: this network gives them their official names.
The rest differs because transformers names the layers of InternViT and SAM2 in its own way. `#` stands for a number;
a trailing `.weight` or `.bias` is carried along.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

VISION = "vision_model."
SAM2 = "grounding_encoder.sam2_model."
OUR_SAM2 = "grounding_encoder."

_VISION_NAMES = {
    "embeddings.class_embedding": "embeddings.cls_token",
    "embeddings.position_embedding": "embeddings.position_embeddings",
    "embeddings.patch_embedding": "embeddings.patch_embeddings.projection",
    "encoder.layers.#.ls1": "encoder.layer.#.lambda_1",
    "encoder.layers.#.ls2": "encoder.layer.#.lambda_2",
    "encoder.layers.#.norm1": "encoder.layer.#.layernorm_before",
    "encoder.layers.#.norm2": "encoder.layer.#.layernorm_after",
    "encoder.layers.#.attn.q_norm": "encoder.layer.#.attention.q_norm",
    "encoder.layers.#.attn.k_norm": "encoder.layer.#.attention.k_norm",
    "encoder.layers.#.attn.proj": "encoder.layer.#.attention.projection_layer",
    "encoder.layers.#.mlp.fc1": "encoder.layer.#.mlp.fc1",
    "encoder.layers.#.mlp.fc2": "encoder.layer.#.mlp.fc2",
}

_SAM2_NAMES = {
    "no_mem_embed": "no_memory_embedding",
    "no_mem_pos_enc": "no_memory_positional_encoding",
    "maskmem_tpos_enc": "memory_temporal_positional_encoding",
    "no_obj_ptr": "no_object_pointer",
    "mask_downsample": "mask_downsample",
    # Hiera and its neck
    "image_encoder.trunk.pos_embed": "vision_encoder.backbone.pos_embed",
    "image_encoder.trunk.pos_embed_window": "vision_encoder.backbone.pos_embed_window",
    "image_encoder.trunk.patch_embed.proj": "vision_encoder.backbone.patch_embed.projection",
    "image_encoder.trunk.blocks.#.norm1": "vision_encoder.backbone.blocks.#.layer_norm1",
    "image_encoder.trunk.blocks.#.norm2": "vision_encoder.backbone.blocks.#.layer_norm2",
    "image_encoder.trunk.blocks.#.attn.qkv": "vision_encoder.backbone.blocks.#.attn.qkv",
    "image_encoder.trunk.blocks.#.attn.proj": "vision_encoder.backbone.blocks.#.attn.proj",
    "image_encoder.trunk.blocks.#.mlp.layers.0": "vision_encoder.backbone.blocks.#.mlp.proj_in",
    "image_encoder.trunk.blocks.#.mlp.layers.1": "vision_encoder.backbone.blocks.#.mlp.proj_out",
    "image_encoder.trunk.blocks.#.proj": "vision_encoder.backbone.blocks.#.proj",
    "image_encoder.neck.convs.#.conv": "vision_encoder.neck.convs.#",
    # prompt encoder
    "sam_prompt_encoder.not_a_point_embed": "prompt_encoder.not_a_point_embed",
    "sam_prompt_encoder.no_mask_embed": "prompt_encoder.no_mask_embed",
    "sam_prompt_encoder.mask_downscaling.0": "prompt_encoder.mask_embed.conv1",
    "sam_prompt_encoder.mask_downscaling.1": "prompt_encoder.mask_embed.layer_norm1",
    "sam_prompt_encoder.mask_downscaling.3": "prompt_encoder.mask_embed.conv2",
    "sam_prompt_encoder.mask_downscaling.4": "prompt_encoder.mask_embed.layer_norm2",
    "sam_prompt_encoder.mask_downscaling.6": "prompt_encoder.mask_embed.conv3",
    # mask decoder
    "sam_mask_decoder.iou_token": "mask_decoder.iou_token",
    "sam_mask_decoder.mask_tokens": "mask_decoder.mask_tokens",
    "sam_mask_decoder.obj_score_token": "mask_decoder.obj_score_token",
    "sam_mask_decoder.conv_s0": "mask_decoder.conv_s0",
    "sam_mask_decoder.conv_s1": "mask_decoder.conv_s1",
    "sam_mask_decoder.output_upscaling.0": "mask_decoder.upscale_conv1",
    "sam_mask_decoder.output_upscaling.1": "mask_decoder.upscale_layer_norm",
    "sam_mask_decoder.output_upscaling.3": "mask_decoder.upscale_conv2",
    "sam_mask_decoder.transformer.norm_final_attn": "mask_decoder.transformer.layer_norm_final_attn",
    "sam_mask_decoder.transformer.layers.#.mlp.layers.0": "mask_decoder.transformer.layers.#.mlp.proj_in",
    "sam_mask_decoder.transformer.layers.#.mlp.layers.1": "mask_decoder.transformer.layers.#.mlp.proj_out",
    # memory: not used for still images, but part of every checkpoint
    "memory_attention.norm": "memory_attention.layer_norm",
    "memory_attention.layers.#.linear1": "memory_attention.layers.#.linear1",
    "memory_attention.layers.#.linear2": "memory_attention.layers.#.linear2",
    "memory_encoder.mask_downsampler.encoder.12": "memory_encoder.mask_downsampler.final_conv",
    "memory_encoder.pix_feat_proj": "memory_encoder.feature_projection",
    "memory_encoder.out_proj": "memory_encoder.projection",
    "memory_encoder.fuser.layers.#.g_weight": "memory_encoder.memory_fuser.layers.#.scale",
    "memory_encoder.fuser.layers.#.dwconv": "memory_encoder.memory_fuser.layers.#.depthwise_conv",
    "memory_encoder.fuser.layers.#.norm": "memory_encoder.memory_fuser.layers.#.layer_norm",
    "memory_encoder.fuser.layers.#.pwconv1": "memory_encoder.memory_fuser.layers.#.pointwise_conv1",
    "memory_encoder.fuser.layers.#.pwconv2": "memory_encoder.memory_fuser.layers.#.pointwise_conv2",
}
for _place in ("self_attn", "cross_attn_token_to_image", "cross_attn_image_to_token"):
    for _theirs, _ours in (("q_proj", "q_proj"), ("k_proj", "k_proj"), ("v_proj", "v_proj"), ("out_proj", "o_proj")):
        _SAM2_NAMES[f"sam_mask_decoder.transformer.layers.#.{_place}.{_theirs}"] = (
            f"mask_decoder.transformer.layers.#.{_place}.{_ours}"
        )
for _theirs, _ours in (("q_proj", "q_proj"), ("k_proj", "k_proj"), ("v_proj", "v_proj"), ("out_proj", "o_proj")):
    _SAM2_NAMES[f"sam_mask_decoder.transformer.final_attn_token_to_image.{_theirs}"] = (
        f"mask_decoder.transformer.final_attn_token_to_image.{_ours}"
    )
    for _place in ("self_attn", "cross_attn_image"):
        _SAM2_NAMES[f"memory_attention.layers.#.{_place}.{_theirs}"] = f"memory_attention.layers.#.{_place}.{_ours}"
for _n in (1, 2, 3, 4):
    _SAM2_NAMES[f"sam_mask_decoder.transformer.layers.#.norm{_n}"] = f"mask_decoder.transformer.layers.#.layer_norm{_n}"
    _SAM2_NAMES[f"memory_attention.layers.#.norm{_n}"] = f"memory_attention.layers.#.layer_norm{_n}"
for _n in range(4):  # conv, norm, activation, four times over
    _layer = f"memory_encoder.mask_downsampler.layers.{_n}"
    _SAM2_NAMES[f"memory_encoder.mask_downsampler.encoder.{3 * _n}"] = f"{_layer}.conv"
    _SAM2_NAMES[f"memory_encoder.mask_downsampler.encoder.{3 * _n + 1}"] = f"{_layer}.layer_norm"
for _theirs, _ours in (
    ("sam_mask_decoder.output_hypernetworks_mlps.#", "mask_decoder.output_hypernetworks_mlps.#"),
    ("sam_mask_decoder.iou_prediction_head", "mask_decoder.iou_prediction_head"),
    ("sam_mask_decoder.pred_obj_score_head", "mask_decoder.pred_obj_score_head"),
    ("obj_ptr_proj", "object_pointer_proj"),
):
    for _n, _layer in enumerate(("proj_in", "layers.0", "proj_out")):
        _SAM2_NAMES[f"{_theirs}.layers.{_n}"] = f"{_ours}.{_layer}"


@dataclass(frozen=True)
class Place:
    """Where one official tensor goes. kind "whole": all of it; "third": part `index` of three along the first
    dimension; "row": it is row `index` of ours."""

    name: str
    kind: str = "whole"
    index: int = 0


@cache
def _patterns() -> list[tuple[re.Pattern, str]]:
    table = [(VISION + a, VISION + b) for a, b in _VISION_NAMES.items()]
    table += [(SAM2 + a, OUR_SAM2 + b) for a, b in _SAM2_NAMES.items()]
    return [
        (re.compile(re.escape(a).replace(r"\#", r"(\d+)") + r"(\.weight|\.bias)?"), b.replace("#", "{}") + "{}")
        for a, b in table
    ]


_QKV = re.compile(re.escape(VISION) + r"encoder\.layers\.(\d+)\.attn\.qkv(\.weight|\.bias)")
_POINT = re.compile(re.escape(SAM2) + r"sam_prompt_encoder\.point_embeddings\.(\d+)\.weight")
_GAUSSIAN = SAM2 + "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"


@cache
def places(official: str) -> tuple[Place, ...]:
    """Where the official tensor goes in our network; its own name where no rule applies."""
    if match := _QKV.fullmatch(official):
        layer, tail = match.groups()
        return tuple(
            Place(f"{VISION}encoder.layer.{layer}.attention.{part}_proj{tail}", "third", i)
            for i, part in enumerate("qkv")
        )
    if match := _POINT.fullmatch(official):
        return (Place(OUR_SAM2 + "prompt_encoder.point_embed.weight", "row", int(match[1])),)
    if official == _GAUSSIAN:  # two modules look at the same matrix
        return tuple(
            Place(OUR_SAM2 + name + ".positional_embedding")
            for name in ("shared_image_embedding", "prompt_encoder.shared_embedding")
        )
    for pattern, template in _patterns():
        if match := pattern.fullmatch(official):
            return (Place(template.format(*(group or "" for group in match.groups()))),)
    return (Place(official),)


def official_names(ours: list[str]) -> dict[str, tuple[Place, ...]]:
    """The official tensors that fill exactly the tensors named in `ours`, each with its places.

    The inverse of `places`, found by reading the table backwards; raises KeyError for a name that no rule gives.
    """
    backwards = [
        (re.compile(re.escape(b).replace(r"\#", r"(\d+)") + r"(\.weight|\.bias)?"), a)
        for prefix, our_prefix, table in ((VISION, VISION, _VISION_NAMES), (SAM2, OUR_SAM2, _SAM2_NAMES))
        for a, b in ((prefix + a, our_prefix + b) for a, b in table.items())
    ]
    backwards += [
        (re.compile(re.escape(f"{VISION}encoder.layer.") + r"(\d+)\.attention\.q_proj(\.weight|\.bias)"),
         f"{VISION}encoder.layers.#.attn.qkv"),
    ]  # fmt: skip
    found = {}
    for name in ours:
        if re.fullmatch(re.escape(VISION) + r"encoder\.layer\.\d+\.attention\.[kv]_proj\.\w+", name):
            continue  # comes with q_proj
        if name.endswith("shared_embedding.positional_embedding"):
            continue  # comes with the other half of the pair
        if name == OUR_SAM2 + "shared_image_embedding.positional_embedding":
            found[_GAUSSIAN] = places(_GAUSSIAN)
            continue
        if name == OUR_SAM2 + "prompt_encoder.point_embed.weight":
            for row in range(4):
                official = f"{SAM2}sam_prompt_encoder.point_embeddings.{row}.weight"
                found[official] = places(official)
            continue
        official = name
        for pattern, template in backwards:
            if match := pattern.fullmatch(name):
                official = template.replace("#", "{}").format(*match.groups()[:-1]) + (match.groups()[-1] or "")
                break
        else:
            if name.startswith((VISION, OUR_SAM2)):
                raise KeyError(f"no official name is known for {name}")
        found[official] = places(official)
    return found


def missing_sam2(official: Iterable[str]) -> list[str]:
    """The kinds of SAM2 tensor, as this table names them, of which `official` has not one."""
    tails = [name.removeprefix(SAM2) for name in official if name.startswith(SAM2)]
    kinds = {re.sub(r"\d+", "#", re.sub(r"\.(weight|bias)$", "", tail)) for tail in tails}
    return [SAM2 + kind for kind in _SAM2_NAMES if re.sub(r"\d+", "#", kind) not in kinds]
