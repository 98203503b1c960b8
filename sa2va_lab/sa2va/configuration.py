"""A checkpoint's config.json, read as data: which family it is and how large each part of the network is.

`model_type` says `sa2va_chat` for every family, so the family is told by what the language model is. Sizes that the
official code has as constants (448-pixel tiles, a 1024-pixel canvas, Hiera-L) are constants here as well, whatever
config.json says; only our own key `sa2va_lab`, which no released checkpoint has, may change them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sa2va_lab.errors import LabError
from sa2va_lab.sa2va.files import read_json

if TYPE_CHECKING:
    from transformers import InternVLVisionConfig, Qwen2Config, Sam2VideoConfig

EXTRA_KEY = "sa2va_lab"
TILE = 448
MAX_TILES = 12
CANVAS = 1024
LARGEST_SIZE, MOST_LAYERS = 10_000_000, 1000  # of anything in config.json; an absurd one would be built before it fails
NEEDED_SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
SIZES = (
    *NEEDED_SIZES,
    "num_key_value_heads",
    "vocab_size",
    "patch_size",
    "num_channels",
    "tile",
    "max_tiles",
    "canvas",
)
SAM2_SECTIONS = ("backbone", "vision", "prompt_encoder", "mask_decoder")
TEMPLATES = {
    name: ("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n") for name in ("qwen_chat", "internlm2_chat")
}
HIERA_L = {
    "hidden_size": 144,
    "num_attention_heads": 2,
    "blocks_per_stage": [2, 6, 36, 4],
    "embed_dim_per_stage": [144, 288, 576, 1152],
    "num_attention_heads_per_stage": [2, 4, 8, 16],
    "window_size_per_stage": [8, 4, 16, 8],
    "global_attention_blocks": [23, 33, 43],
}


@dataclass(frozen=True)
class Sa2VAConfig:
    """What is needed to build one network and to prepare its inputs.

    vision, language: the dictionaries of config.json. tile: side of a language-branch tile in pixels, canvas: side of
    the square that SAM2 sees. sam2: changes to SAM2's sizes (`backbone`, `vision`, `prompt_encoder`, `mask_decoder`,
    and top-level keys such as `hidden_size`); empty for released models. stamp: a text that belongs on every figure
    made with this model, or None.
    """

    vision: dict
    language: dict
    template: str = "qwen_chat"
    downsample: float = 0.5
    tile: int = TILE
    max_tiles: int = MAX_TILES
    canvas: int = CANVAS
    sam2: dict = field(default_factory=dict)
    stamp: str | None = None

    @property
    def tokens_per_tile(self) -> int:
        """How many `<IMG_CONTEXT>` tokens stand for one tile (256 in released models)."""
        return int((self.tile // self.vision.get("patch_size", 14)) ** 2 * self.downsample**2)

    @property
    def turn(self) -> tuple[str, str]:
        """The text before the user's message and the text between it and the answer."""
        return TEMPLATES[self.template]

    def vision_config(self) -> InternVLVisionConfig:
        """transformers' configuration of the InternViT tower."""
        from transformers import InternVLVisionConfig

        theirs = self.vision
        same = {
            key: theirs[key]
            for key in (
                "hidden_size",
                "intermediate_size",
                "num_hidden_layers",
                "num_attention_heads",
                "num_channels",
                "patch_size",
                "hidden_act",
                "norm_type",
                "layer_norm_eps",
            )
            if key in theirs
        }
        return InternVLVisionConfig(
            **same,
            image_size=self.tile,
            attention_bias=theirs.get("qkv_bias", True),
            use_qk_norm=theirs.get("qk_normalization", False),
            use_mean_pooling=True,  # which, in transformers, means: no norm after the last layer
        )

    def language_config(self) -> Qwen2Config:
        """transformers' configuration of the Qwen2 language model."""
        from transformers import Qwen2Config

        dropped = {"architectures", "auto_map", "_name_or_path", "transformers_version", "torch_dtype", "dtype"}
        return Qwen2Config(**{k: v for k, v in self.language.items() if k not in dropped and v is not None})

    def sam2_config(self) -> Sam2VideoConfig:
        """transformers' configuration of SAM2 (Hiera-L without occlusion embedding, unless `sam2` says otherwise)."""
        from transformers import Sam2VideoConfig, Sam2VideoMaskDecoderConfig, Sam2VideoPromptEncoderConfig

        changes = {**dict.fromkeys(SAM2_SECTIONS, {}), **self.sam2}
        top = {k: v for k, v in changes.items() if k not in SAM2_SECTIONS}
        hidden = top.pop("hidden_size", 256)
        backbone = {
            "model_type": "sam2_hiera_det_model",
            "image_size": [self.canvas, self.canvas],
            **HIERA_L,
            **changes["backbone"],
        }
        stride = backbone.get("patch_stride", [4, 4])[0]
        grids = [self.canvas // stride // 2**level for level in range(3)]
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
                "image_size": self.canvas,
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
                **{"hidden_size": hidden, "image_size": self.canvas, "patch_size": patch, **changes["prompt_encoder"]}
            ),
            mask_decoder_config=Sam2VideoMaskDecoderConfig(
                **{"hidden_size": hidden, "iou_head_hidden_dim": hidden, **changes["mask_decoder"]}
            ),  # objects, not dictionaries: transformers 5.17 takes this dictionary for a prompt encoder's
        )


def read_config(folder: Path | str) -> Sa2VAConfig:
    """The configuration of the checkpoint in `folder`.

    Raises LabError when the folder or its config.json is missing or damaged, or when it is not a Sa2VA checkpoint of
    a family that is built here. Python files beside config.json are never looked at.
    """
    return parse_config(read_raw(folder), name=str(Path(folder) / "config.json"))


def read_raw(folder: Path | str) -> dict:
    """config.json as it stands. Raises LabError when the folder or the file is missing or damaged."""
    folder = Path(folder)
    if not folder.is_dir():
        raise LabError(f"No checkpoint folder at {folder}: give the folder that holds config.json and *.safetensors.")
    if not (folder / "config.json").is_file():
        raise LabError(f"{folder} has no config.json: give a Sa2VA checkpoint folder (config.json, *.safetensors).")
    return read_json(folder / "config.json")


def parse_config(raw: dict, *, name: str = "config.json") -> Sa2VAConfig:
    """The same from a dictionary; `name` is used in error messages."""
    check_sizes(raw, name=name)
    extra = raw.get(EXTRA_KEY, {})
    if "text_config" in raw:
        kind = raw["text_config"].get("model_type", "unknown")
        raise LabError(f"{name} describes a Qwen-VL family Sa2VA ({kind}); this version runs the InternVL family only.")
    if "llm_config" not in raw or "vision_config" not in raw:
        raise LabError(
            f"{name} has model_type {raw.get('model_type', 'none')!r} and no llm_config and vision_config: "
            "it is not a Sa2VA checkpoint of the InternVL family; give the folder of the Sa2VA model itself."
        )
    named = raw["llm_config"].get("architectures")
    architecture = named[0] if isinstance(named, list) and named else "unknown"
    if architecture != "Qwen2ForCausalLM":
        raise LabError(
            f"{name} has the language model {architecture}; this version runs Qwen2ForCausalLM only "
            "(Sa2VA-InternVL3 and the Qwen2.5-based Sa2VA releases)."
        )
    check_whole(raw, name=name)
    template = raw.get("template", "qwen_chat")
    if not isinstance(template, str) or template not in TEMPLATES:
        raise LabError(f"{name} asks for the prompt template {template!r}; known are {', '.join(TEMPLATES)}.")
    return Sa2VAConfig(
        vision=raw["vision_config"],
        language=raw["llm_config"],
        template=template,
        downsample=raw.get("downsample_ratio", 0.5),
        tile=extra.get("tile", TILE),
        max_tiles=extra.get("max_tiles", MAX_TILES),
        canvas=extra.get("canvas", CANVAS),
        sam2=extra.get("sam2", {}),
        stamp=extra.get("stamp"),
    )


def check_sizes(raw: dict, *, name: str = "config.json") -> None:
    """LabError where something else stands in a place for sizes than sizes that can be built, naming the first."""
    for section, limit in (
        ("text_config", LARGEST_SIZE),
        ("vision_config", LARGEST_SIZE),
        ("llm_config", LARGEST_SIZE),
        (EXTRA_KEY, CANVAS),
    ):
        about = raw.get(section, {})
        if not isinstance(about, dict) or _largest(about) > limit:
            raise LabError(f"{name} has no sensible sizes in {section}: copy the file again from its source.")
        for key in SIZES:
            size = about.get(key, 1)
            if type(size) is not int or size < 1 or (key == "num_hidden_layers" and size > MOST_LAYERS):
                raise _no_size(f"{section}.{key}", size, name=name)
    ratio, changes = raw.get("downsample_ratio", 0.5), raw.get(EXTRA_KEY, {}).get("sam2", {})
    if type(ratio) not in (int, float) or not 0 < ratio <= 1:
        raise _no_size("downsample_ratio", ratio, name=name)
    if not isinstance(changes, dict) or not all(isinstance(changes.get(part, {}), dict) for part in SAM2_SECTIONS):
        raise LabError(f"{name} has no sensible sizes in {EXTRA_KEY}.sam2: copy the file again from its source.")


def check_whole(raw: dict, *, name: str = "config.json") -> None:
    """LabError where one of the sizes that no network can do without is not there."""
    for section in ("llm_config", "vision_config"):
        for key in NEEDED_SIZES:
            if key not in raw.get(section, {}):
                raise _no_size(f"{section}.{key}", None, name=name)


def _no_size(key: str, value: object, *, name: str) -> LabError:
    value = "null or not there" if value is None else f"{value!r:.40}"
    return LabError(f"{name} has no sensible sizes in {key} (it is {value}): copy the file again from its source.")


def _largest(value: object) -> float:
    """The largest number in a section of config.json, however deep."""
    if isinstance(value, dict | list):
        return max(map(_largest, value.values() if isinstance(value, dict) else value), default=0)
    return value if isinstance(value, int | float) else 0
