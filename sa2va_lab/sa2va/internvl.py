"""Sa2VA on an InternVL: an InternViT sees an image as tiles, two linear layers make them words of a language model.

`InternVL` is a family but for its language model, which a subclass says; one that needs more than data has a module of
its own. Sizes that the official code has as constants (448-pixel tiles, at most 12) are constants here, whatever
config.json says; only our own key `sa2va_lab`, which no released checkpoint has, may change them.
"""

from __future__ import annotations

import dataclasses
import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from sa2va_lab.errors import LabError
from sa2va_lab.sa2va.family import CHAT, MAX_TILES, NEEDED, TILE, Family, Sa2VAConfig, Sight, read_common
from sa2va_lab.sa2va.names import SPLITS, NameTable, Rule, Split
from sa2va_lab.sa2va.processing import choose_grid, cut_tiles
from sa2va_lab.sa2va.sam2 import OUR_SAM2, SAM2_RULES
from sa2va_lab.sa2va.sizes import find_section, refuse

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from PIL import Image
    from torch import Tensor, nn

    from sa2va_lab.sa2va.modeling import Sa2VA

VISION = "vision_model."
_OF_THE_BASE = ("auto_map", "_name_or_path", "_commit_hash", "transformers_version", "system_message")
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
VISION_RULES = (
    *(Rule(VISION + theirs, (VISION + ours,)) for theirs, ours in _VISION_NAMES.items()),
    Rule(
        f"{VISION}encoder.layers.#.attn.qkv",
        tuple(f"{VISION}encoder.layer.#.attention.{part}_proj" for part in "qkv"),
        kind="third",
    ),
)
SAME = (
    *NEEDED,
    *("num_channels", "patch_size", "hidden_act", "norm_type", "layer_norm_eps"),  # called so in transformers too
)


class InternVL(Family):
    """An InternVL but for the language model, which a subclass names. network: what transformers calls it; rules: what
    of it has other names in the network than in official checkpoints."""

    group = "internvl"
    parts = {
        "vision": r"vision_model\.",
        "projector": r"mlp1\.",
        "embed_tokens": r".*\bembed_tokens\.",
        "lm_head": r"(language_model\.|model\.)?lm_head\.",
        "language": r"language_model\.|model\.(layers|norm)\.",
    }
    marks = r"vision_model\.|mlp1\.|language_model\."
    spelling = ((r"^mllm\.(model\.)?", ""), (r"language_model\.base_model\.model\.", "language_model."))
    blocks = r"vision_model\.encoder\.layers\."
    hub, bare, tiled = "OpenGVLab", "internvl_chat", True
    image = ("<img>", "<IMG_CONTEXT>", "</img>")
    turns = {"qwen_chat": CHAT, "internlm2_chat": CHAT}
    network: str
    rules: tuple[Rule, ...] = ()

    def read(self, raw: dict, name: str, folder: Path | None = None) -> Sa2VAConfig:
        vision = find_section(raw, "vision_config", name=name, needed=NEEDED)
        language, extra, common = read_common(raw, "llm_config", name=name)
        template = raw.get("template", next(iter(self.turns)))
        known = template.replace("-", "_") if isinstance(template, str) else template
        if not isinstance(known, str) or known not in self.turns:
            raise LabError(f"{name} asks for the prompt template {template!r}; known are {', '.join(self.turns)}.")
        config = Sa2VAConfig(
            family=self,
            vision=vision,
            language=language,
            template=known,
            downsample=raw.get("downsample_ratio", 0.5),
            tile=extra.get("tile", TILE),
            max_tiles=extra.get("max_tiles", MAX_TILES),
            **common,
        )
        side, ratio = config.tile // vision.get("patch_size", 14), config.downsample
        whole = type(ratio) in (int, float) and 0 < ratio <= 1 and (1 / ratio).is_integer()  # one token for 1, 4, 9 ...
        if not whole or side < 1 or side % round(1 / ratio):
            refuse(name, "downsample_ratio", f"it is {ratio!r:.40}, and a tile has {side} x {side} patches")
        return config

    def grow(self, raw: dict, *, rows: int, template: str) -> dict:
        kept = {key: value for key, value in raw.items() if key not in _OF_THE_BASE}
        whole = {"architectures": ["Sa2VAChatModel"], "model_type": "sa2va_chat", "template": template}
        return kept | whole | {"llm_config": raw["llm_config"] | {"vocab_size": rows}}

    def shorten(self, config: Sa2VAConfig, few: int) -> Sa2VAConfig:
        vision, language = (
            {key: min(value, few) if key == "num_hidden_layers" else value for key, value in part.items()}
            for part in (config.vision, config.language)
        )
        return dataclasses.replace(config, vision=vision, language=language)

    def build(self, config: Sa2VAConfig) -> dict[str, nn.Module]:
        import transformers
        from torch import nn

        language = getattr(transformers, f"{self.network}Config")(**self.settings(config))
        theirs = config.vision
        vision = transformers.InternVLVisionConfig(
            **{key: theirs[key] for key in SAME if key in theirs},
            image_size=config.tile,
            attention_bias=theirs.get("qkv_bias", True),
            use_qk_norm=theirs.get("qk_normalization", False),
            use_mean_pooling=True,  # which, in transformers, means: no norm after the last layer
        )
        shuffled, width = int(vision.hidden_size / config.downsample**2), config.language["hidden_size"]
        return {
            "vision_model": transformers.InternVLVisionModel(vision),
            "mlp1": nn.Sequential(
                nn.LayerNorm(shuffled), nn.Linear(shuffled, width), nn.GELU(), nn.Linear(width, width)
            ),
            "language_model": getattr(transformers, f"{self.network}ForCausalLM")(language),
        }

    @lru_cache(maxsize=4)  # noqa: B019  (families live as long as the process)
    def names(self, config: Sa2VAConfig) -> NameTable:
        rules = (*VISION_RULES, *self.rules, *SAM2_RULES)
        return NameTable(rules, own=(VISION, OUR_SAM2), splits=SPLITS | self.splits(config))

    def splits(self, config: Sa2VAConfig) -> dict[str, Split]:
        """The ways of its own in which `rules` cut matrices."""
        return {}

    def pixels(self, image: Image.Image, config: Sa2VAConfig) -> Tensor:
        """(t, 3, tile, tile): see `cut_tiles`."""
        return cut_tiles(image, config)

    def count_tiles(self, width: int, height: int, config: Sa2VAConfig) -> int:
        columns, rows = choose_grid(width, height, tile=config.tile, max_tiles=config.max_tiles)
        return columns * rows + (columns * rows > 1)

    def most_tiles(self, config: Sa2VAConfig) -> int:
        return config.max_tiles + (config.max_tiles > 1)

    def blank(self, tiles: int, config: Sa2VAConfig) -> Tensor:
        import torch

        return torch.empty(tiles, 3, config.tile, config.tile, device="meta")

    def encode(self, model: Sa2VA, pixels: Tensor) -> Sight:
        """(t, 3, tile, tile) -> image tokens (t x tokens_per_tile, C)."""
        return Sight(model.mlp1(see(model, pixels)).flatten(0, 1))

    def of_film(self, config: Sa2VAConfig) -> Sa2VAConfig:
        """A frame of a film is one tile, whatever its shape."""
        return dataclasses.replace(config, max_tiles=1)

    def lay_out(self, prompt: str, counts: Sequence[int], config: Sa2VAConfig, tokenizer) -> tuple[str, str]:
        if not counts:
            return "", config.turn.before + prompt + config.turn.after
        before, after = prompt.split("<image>")
        opening, token, closing = self.image
        seen = "\n".join(opening + token * count + closing for count in counts)
        return config.turn.before + before + seen, after + config.turn.after

    def mark(self, regions: Sequence[np.ndarray], size: tuple[int, int], config: Sa2VAConfig) -> tuple[str, list[int]]:
        side, cells, words = math.isqrt(config.tokens_per_tile), [], []
        down, across = (np.arange(side) * length // side for length in size)  # the nearest pixel, as torch counts
        for number, region in enumerate(map(np.asarray, regions), 1):
            if region.shape != size or region.dtype != bool:
                raise LabError(
                    f"Region {number} is {region.dtype} {region.shape}: give a bool mask of the image's size, {size}."
                )
            covered = np.flatnonzero(region[np.ix_(down, across)]).tolist()
            if not covered:
                raise LabError(
                    f"Region {number} ({region.sum():,} pixels) covers none of the {side} x {side} cells in which the "
                    "model sees the whole image: mark a larger part."
                )
            cells += covered
            words.append(f"region{number}<vp>{self.image[1] * len(covered)}</vp>")
        return f"\nThere are {len(words)} part regions in the picture: {', '.join(words)}.\n", cells


class InternVLQwen2(InternVL):
    """Sa2VA-InternVL3 and the releases on Qwen2.5."""

    architecture, network = "Qwen2ForCausalLM", "Qwen2"
    releases = "Sa2VA-InternVL3 and the Qwen2.5-based Sa2VA releases"
    lora = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    bases = {
        (896, 24): "InternVL3-1B",
        (1536, 28): "InternVL3-2B",
        (3584, 28): "InternVL3-8B",
        (5120, 48): "InternVL3-14B",
        (5120, 64): "InternVL3-38B",
        (8192, 80): "InternVL3-78B",
    }


class InternVLQwen3(InternVLQwen2):
    """A Sa2VA on InternVL3.5, its mixtures of experts aside: as on Qwen2, with a norm for the queries and keys of each
    head, whose width config.json says."""

    architecture, network = "Qwen3ForCausalLM", "Qwen3"
    releases = "a Sa2VA on InternVL3.5"
    bases = {
        (1024, 28): "InternVL3_5-1B",
        (2048, 28): "InternVL3_5-2B",
        (2560, 36): "InternVL3_5-4B",
        (4096, 36): "InternVL3_5-8B",
        (5120, 40): "InternVL3_5-14B",
    }

    def settings(self, config: Sa2VAConfig) -> dict:
        return super().settings(config) | {"attention_bias": config.language.get("attention_bias", False)}


def see(model: Sa2VA, tiles: Tensor) -> Tensor:
    """(t, 3, tile, tile) -> (t, tokens_per_tile, 4 x vision width). Class token dropped, no final norm."""
    first = model.vision_model.embeddings.cls_token
    states = model.vision_model(tiles.to(device=first.device, dtype=first.dtype)).last_hidden_state[:, 1:]
    return pixel_shuffle(states, model.config.downsample)


def pixel_shuffle(tokens: Tensor, ratio: float) -> Tensor:
    """(t, s*s, c) -> (t, s*ratio*s*ratio, c/ratio**2): neighbours stacked into channels (InternVL's version 2)."""
    side = int(tokens.shape[1] ** 0.5)
    block = int(1 / ratio)
    grid = tokens.unflatten(1, (side // block, block, side // block, block))  # rows, y, columns, x
    return grid.permute(0, 1, 3, 2, 4, 5).flatten(3).flatten(1, 2)
