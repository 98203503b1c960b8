"""SAM2 as every Sa2VA has it: its sizes, and its tensors' names in official checkpoints and in transformers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from sa2va_lab.sa2va.names import NameTable, Rule

if TYPE_CHECKING:
    from transformers import Sam2VideoConfig

CANVAS = 1024
SAM2 = "grounding_encoder.sam2_model."
OUR_SAM2 = "grounding_encoder."
HIERA_L = {
    "hidden_size": 144,
    "num_attention_heads": 2,
    "blocks_per_stage": [2, 6, 36, 4],
    "embed_dim_per_stage": [144, 288, 576, 1152],
    "num_attention_heads_per_stage": [2, 4, 8, 16],
    "window_size_per_stage": [8, 4, 16, 8],
    "global_attention_blocks": [23, 33, 43],
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
    "image_encoder.trunk.blocks.#.norm#": "vision_encoder.backbone.blocks.#.layer_norm#",
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
    "sam_mask_decoder.transformer.layers.#.norm#": "mask_decoder.transformer.layers.#.layer_norm#",
    "sam_mask_decoder.transformer.norm_final_attn": "mask_decoder.transformer.layer_norm_final_attn",
    "sam_mask_decoder.transformer.layers.#.mlp.layers.0": "mask_decoder.transformer.layers.#.mlp.proj_in",
    "sam_mask_decoder.transformer.layers.#.mlp.layers.1": "mask_decoder.transformer.layers.#.mlp.proj_out",
    # memory: not used for still images, but part of every checkpoint
    "memory_attention.norm": "memory_attention.layer_norm",
    "memory_attention.layers.#.norm#": "memory_attention.layers.#.layer_norm#",
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
_LAYER = tuple(f"layers.#.{part}" for part in ("self_attn", "cross_attn_token_to_image", "cross_attn_image_to_token"))
for _theirs, _ours in (("q_proj", "q_proj"), ("k_proj", "k_proj"), ("v_proj", "v_proj"), ("out_proj", "o_proj")):
    for _place in (*_LAYER, "final_attn_token_to_image"):
        _SAM2_NAMES[f"sam_mask_decoder.transformer.{_place}.{_theirs}"] = f"mask_decoder.transformer.{_place}.{_ours}"
    for _place in ("memory_attention.layers.#.self_attn", "memory_attention.layers.#.cross_attn_image"):
        _SAM2_NAMES[f"{_place}.{_theirs}"] = f"{_place}.{_ours}"
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

SAM2_RULES = (
    *(Rule(SAM2 + theirs, (OUR_SAM2 + ours,)) for theirs, ours in _SAM2_NAMES.items()),
    Rule(
        f"{SAM2}sam_prompt_encoder.point_embeddings.#", (f"{OUR_SAM2}prompt_encoder.point_embed",), kind="row", rows=4
    ),
    Rule(  # two modules look at the same matrix
        f"{SAM2}sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
        (
            f"{OUR_SAM2}shared_image_embedding.positional_embedding",
            f"{OUR_SAM2}prompt_encoder.shared_embedding.positional_embedding",
        ),
    ),
)
SAM2_TABLE = NameTable(SAM2_RULES, own=(OUR_SAM2,))


def sam2_config(canvas: int, changed: dict) -> Sam2VideoConfig:
    """transformers' configuration of SAM2: Hiera-L without occlusion embedding, unless `changed` says otherwise.

    changed: as `Sa2VAConfig.sam2` holds it. canvas: side of the square that SAM2 sees.
    """
    from transformers import Sam2VideoConfig, Sam2VideoMaskDecoderConfig, Sam2VideoPromptEncoderConfig

    changes = {"backbone": {}, "vision": {}, "prompt_encoder": {}, "mask_decoder": {}, **changed}
    top = {k: v for k, v in changes.items() if k not in ("backbone", "vision", "prompt_encoder", "mask_decoder")}
    hidden = top.pop("hidden_size", 256)
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "image_size": [canvas, canvas],
        **HIERA_L,
        **changes["backbone"],
    }
    stride = backbone.get("patch_stride", [4, 4])[0]
    grids = [canvas // stride // 2**level for level in range(3)]
    stages = len(backbone["embed_dim_per_stage"])
    patch = stride * 2 ** (stages - 2)  # features go to the decoder from the last stage but one
    vision = {
        "model_type": "sam2_vision_model",
        "backbone_config": backbone,
        "backbone_channel_list": backbone["embed_dim_per_stage"][::-1],
        "backbone_feature_sizes": [[grid, grid] for grid in grids],
        "fpn_hidden_size": hidden,
        **changes["vision"],
    }
    return Sam2VideoConfig(
        **{
            "image_size": canvas,
            "enable_occlusion_spatial_embedding": False,
            "enable_temporal_pos_encoding_for_object_pointers": False,
            "memory_attention_hidden_size": hidden,
            "memory_encoder_hidden_size": hidden,
            "mask_downsampler_embed_dim": hidden,
            "memory_fuser_embed_dim": hidden,
            "memory_fuser_intermediate_dim": hidden * 4,
            "memory_encoder_output_channels": hidden // 4,
            "memory_attention_rope_feat_sizes": [grids[-1], grids[-1]],
            **top,
        },
        vision_config=vision,
        prompt_encoder_config=Sam2VideoPromptEncoderConfig(
            **{"hidden_size": hidden, "image_size": canvas, "patch_size": patch, **changes["prompt_encoder"]}
        ),
        mask_decoder_config=Sam2VideoMaskDecoderConfig(
            **{"hidden_size": hidden, "iou_head_hidden_dim": hidden, **changes["mask_decoder"]}
        ),  # objects, not dictionaries: transformers 5.17 takes this dictionary for a prompt encoder's
    )


def missing_sam2(official: Iterable[str]) -> list[str]:
    """The kinds of SAM2 tensor, as this table names them, of which `official` has not one."""
    tails = [name.removeprefix(SAM2) for name in official if name.startswith(SAM2)]
    kinds = {re.sub(r"\d+", "#", re.sub(r"\.(weight|bias)$", "", tail)) for tail in tails}
    return [SAM2 + kind for kind in _SAM2_NAMES if re.sub(r"\d+", "#", kind) not in kinds]
