"""Sa2VA on a Qwen-VL: an image keeps its shape, as patches of a grid, and its tokens have places in a plane.

The official code resizes twice, by a library of Qwen's and by the image processor, whose bounds it sets itself. All
else of the processor, and the chat template, are the folder's own; a template is rendered by transformers in its
sandbox. What elsewhere is a tile is here what costs as much: 256 image tokens.
"""

from __future__ import annotations

import dataclasses
import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from sa2va_lab.errors import LabError
from sa2va_lab.sa2va.family import CHAT, Family, Sa2VAConfig, Sight, read_common
from sa2va_lab.sa2va.files import read_json
from sa2va_lab.sa2va.names import NameTable, Rule
from sa2va_lab.sa2va.sam2 import OUR_SAM2, SAM2_RULES
from sa2va_lab.sa2va.sizes import find_section, refuse

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor, nn

    from sa2va_lab.sa2va.modeling import Sa2VA

CELL = 28 * 28  # pixels of a token in Qwen2.5-VL; all bounds are counted in them
FIRST, SECOND = (4 * CELL, 16_384 * CELL), (512 * CELL, 2048 * CELL)  # bounds of the two resizes
MOST_STRETCHED = 200  # times as long as broad
TOKENS = 256  # that count as one tile
NEEDED = ("depth", "hidden_size", "intermediate_size", "num_heads", "out_hidden_size", "patch_size")
VISION = (
    *NEEDED,
    *("hidden_act", "in_channels", "spatial_merge_size", "temporal_patch_size", "window_size"),
    *("fullatt_block_indexes", "num_position_embeddings", "deepstack_visual_indexes"),
)
USUAL = {"in_channels": 3, "spatial_merge_size": 2, "temporal_patch_size": 2}  # where config.json says nothing
SAME = {"patch_size": "patch_size", "temporal_patch_size": "temporal_patch_size", "merge_size": "spatial_merge_size"}
ALWAYS = {"do_resize": True, "do_rescale": True, "do_normalize": True, "resample": 3, "rescale_factor": 1 / 255}


class QwenVL(Family):
    """A Qwen-VL but for its generation, which a subclass names."""

    group = "qwen-vl"
    parts = {
        "vision": r"model\.model\.visual\.(?!merger|deepstack)",
        "projector": r"model\.model\.visual\.(merger|deepstack)",
        "embed_tokens": r".*\bembed_tokens\.",
        "lm_head": r"model\.lm_head\.",
        "language": r"model\.model\.language_model\.",
    }
    marks = r"((mllm|(base_)?model)\.)*visual\.|mllm\.model\.((base_)?model|lm_head)\.|model\.model\."
    spelling = (  # transformers before 4.52 had `visual` and the language model one level higher
        (r"^(mllm\.)?((base_)?model\.)*(?=(visual|language_model|layers|embed_tokens|norm|lm_head)(\.|$))", "model."),
        (r"^model\.(?=(layers|embed_tokens|norm)\.)", "model.language_model."),
        (r"^model\.(?=(visual|language_model)\.)", "model.model."),
    )
    blocks = r"model\.model\.visual\.blocks\."
    lora = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    hub = "Qwen"
    image = ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>")
    turns = {"qwen_chat": CHAT}
    processors = ("preprocessor_config.json", "processor_config.json")
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def read(self, raw: dict, name: str, folder: Path | None = None) -> Sa2VAConfig:
        vision = USUAL | find_section(raw, "vision_config", name=name, needed=NEEDED)
        language, _, common = read_common(raw, "text_config", name=name)
        if vision["out_hidden_size"] != language["hidden_size"]:
            refuse(name, "vision_config.out_hidden_size", f"the language model has {language['hidden_size']}")
        tied = bool(raw.get("tie_word_embeddings", language.get("tie_word_embeddings")))
        processor = self._read_processor(folder) if folder else {}
        for key, ours in SAME.items():
            if (said := processor.get(key, vision[ours])) != vision[ours]:
                raise LabError(
                    f"The image processor in {folder} has {key} {said} and config.json {vision[ours]}: copy the "
                    "processor's files that belong to these weights."
                )
        return Sa2VAConfig(
            family=self,
            vision=vision,
            language=language | {"tie_word_embeddings": tied},
            processor=processor,
            **common,
        )

    def _read_processor(self, folder: Path) -> dict:
        """What the folder says of images. LabError where it says nothing, or what no Sa2VA does."""
        file = next((folder / name for name in self.processors if (folder / name).is_file()), None)
        if file is None:
            raise LabError(f"{folder} has no {' or '.join(self.processors)}: copy the processor's files as well.")
        raw = read_json(file)
        said = find_section({file.name: raw.get("image_processor", raw)}, file.name, name=str(file), most=1 << 32)
        for key, value in ALWAYS.items():
            given = said.get(key)
            number = given if isinstance(given, int | float) else math.nan
            if given is not None and not math.isclose(number, value, rel_tol=1e-6):
                raise LabError(f"{file} has {key} {given!r:.40}, and Sa2VA runs with {value:.6g}: copy it again.")
        for key in ("image_mean", "image_std"):
            if said.get(key) is not None and len(said[key]) != 3:
                raise LabError(f"{file} has {len(said[key])} numbers in {key}, not 3: copy it again.")
        return said

    def grow(self, raw: dict, *, rows: int, template: str) -> dict:
        whole = {"architectures": ["Sa2VAChatModelQwen"], "model_type": "sa2va_chat", "template": template}
        own = {"vocab_size": rows, "tie_word_embeddings": False}
        return raw | whole | {"text_config": raw["text_config"] | own, "tie_word_embeddings": False}

    def shorten(self, config: Sa2VAConfig, few: int) -> Sa2VAConfig:
        deep = len(config.vision.get("deepstack_visual_indexes", ()))
        depth = max(few, deep)
        vision = config.vision | {"depth": depth, "fullatt_block_indexes": [depth - 1]}
        vision["deepstack_visual_indexes"] = list(range(deep))
        language = config.language | {"num_hidden_layers": min(few, config.language["num_hidden_layers"])}
        return dataclasses.replace(config, vision=vision, language=language)

    def build(self, config: Sa2VAConfig) -> dict[str, nn.Module]:
        from torch import nn

        language = nn.Module()
        visual, language.model = self.build_towers(
            {key: config.vision[key] for key in VISION if key in config.vision}, self.settings(config), config
        )
        language.config = language.model.config
        language.lm_head = nn.Linear(language.config.hidden_size, language.config.vocab_size, bias=False)
        return {"visual": visual, "language_model": language}

    def build_towers(self, vision: dict, language: dict, config: Sa2VAConfig) -> tuple[nn.Module, nn.Module]:
        """transformers' classes for what sees and for what reads, without its head."""
        raise NotImplementedError

    @lru_cache(maxsize=4)  # noqa: B019  (families live as long as the process)
    def names(self, config: Sa2VAConfig) -> NameTable:
        rules = (
            Rule("model.model.visual.*", ("visual.*",)),
            Rule("model.model.language_model.*", ("language_model.model.*",)),
            Rule("model.lm_head", ("language_model.lm_head",)),
        )
        return NameTable((*rules, *SAM2_RULES), own=("visual.", "language_model.", OUR_SAM2))

    def pixels(self, image: Image.Image, config: Sa2VAConfig) -> tuple[Tensor, tuple[int, int]]:
        """(patches (rows x columns, channels x frames x side x side) float32, (rows, columns)): those of a cell of
        tokens beside each other, an image twice where the tower takes two frames."""
        import torch

        once = fit(*image.size, side=28, bounds=FIRST)
        width, height = fit(*once, side=_cell(config), bounds=SECOND)
        levels = torch.from_numpy(np.array(image.resize(once, Image.Resampling.BICUBIC))).permute(2, 0, 1)[None]
        if (width, height) != once:  # in whole levels, as torchvision does it
            levels = torch.nn.functional.interpolate(levels, size=(height, width), mode="bicubic", antialias=True)
        mean, deviation = (
            torch.tensor(config.processor.get(key) or usual)[:, None, None] * 255
            for key, usual in (("image_mean", self.mean), ("image_std", self.deviation))
        )
        side, merge = config.vision["patch_size"], config.vision["spatial_merge_size"]
        values = (levels[0].float() - mean) / deviation
        cells = values.unflatten(2, (-1, merge, side)).unflatten(1, (-1, merge, side))
        cells = cells.permute(1, 4, 2, 5, 0, 3, 6)  # down and across the cells, then the patches in one
        twice = cells.unsqueeze(5).expand(*cells.shape[:5], config.vision["temporal_patch_size"], side, side)
        return twice.flatten(0, 3).flatten(1), (height // side, width // side)

    def count_tiles(self, width: int, height: int, config: Sa2VAConfig) -> int:
        wide, high = fit(*fit(width, height, side=28, bounds=FIRST), side=_cell(config), bounds=SECOND)
        return math.ceil(wide * high / _cell(config) ** 2 / TOKENS)

    def most_tiles(self, config: Sa2VAConfig) -> int:
        return math.ceil(SECOND[1] / _cell(config) ** 2 / TOKENS)

    def blank(self, tiles: int, config: Sa2VAConfig) -> tuple[Tensor, tuple[int, int]]:
        import torch

        side, merge = config.vision["patch_size"], config.vision["spatial_merge_size"]
        rows, columns = 16 * merge * tiles, TOKENS // 16 * merge
        numbers = config.vision["in_channels"] * config.vision["temporal_patch_size"] * side**2
        return torch.empty(rows * columns, numbers, device="meta"), (rows, columns)

    def encode(self, model: Sa2VA, pixels: tuple[Tensor, tuple[int, int]]) -> Sight:
        """What `pixels` gives -> a token for each cell of patches."""
        import torch
        from transformers import vision_utils

        (patches, grid), first = pixels, model.visual.patch_embed.proj.weight
        merge = model.config.vision["spatial_merge_size"]
        shape = torch.tensor([[1, *grid]])  # on the CPU, as what follows from it alone and is no input of a product
        given = {"position_ids": vision_utils.get_vision_position_ids(shape, merge)}
        if hasattr(model.visual, "pos_embed"):
            given["interp_indices"], given["interp_weights"] = (
                vision_utils.get_vision_interpolation_indices_and_weights(
                    shape, model.visual.num_grid_per_side, "bilinear", align_corners=True, spatial_merge_size=merge
                )
            )
        placed = {name: tensor.to(first.device) for name, tensor in given.items()}
        seen = model.visual(patches.to(first), grid_thw=shape, **placed)
        deep = tuple(getattr(seen, "deepstack_features", None) or ())
        return Sight(seen.pooler_output, (grid[0] // merge, grid[1] // merge), deep)

    def lay_out(self, prompt: str, counts: Sequence[int], config: Sa2VAConfig, tokenizer) -> tuple[str, str]:
        """The image comes first, wherever `<image>` stands, as the official code has it; so do frames."""
        question, token = prompt.replace("<image>", ""), self.image[1]
        content = [*({"type": "image"} for _ in counts), {"type": "text", "text": question}]
        turn = [{"role": "user", "content": content}]
        try:
            text = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
            *before, after = text.split(token) if counts else [text]
            if len(before) != len(counts) or question.strip() not in after:
                raise ValueError("it gives no image and then the question")
        except Exception as error:  # a template may fail in as many ways as a program
            raise LabError(f"The folder's chat template cannot be rendered ({error}): copy it again.") from None
        return "".join(part + token * count for part, count in zip(before, counts, strict=True)), after

    def open_tokenizer(self, folder: Path):
        made = super().open_tokenizer(folder)
        older = folder / "chat_template.json"
        if older.is_file() and not (folder / "chat_template.jinja").is_file():
            made.chat_template = read_json(older).get("chat_template")
        return made


class Qwen2VL(QwenVL):
    """A Sa2VA on Qwen2.5-VL: attention in windows, in all layers of the tower but some."""

    architecture = "qwen2_5_vl_text"
    releases = "a Sa2VA on Qwen2.5-VL"
    bases = {(2048, 36): "Qwen2.5-VL-3B-Instruct", (3584, 28): "Qwen2.5-VL-7B-Instruct"}
    bare = "qwen2_5_vl"
    mean, deviation = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

    def build_towers(self, vision: dict, language: dict, config: Sa2VAConfig) -> tuple[nn.Module, nn.Module]:
        from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl as theirs

        return (
            theirs.Qwen2_5_VisionTransformerPretrainedModel(theirs.Qwen2_5_VLVisionConfig(**vision)),
            theirs.Qwen2_5_VLTextModel(theirs.Qwen2_5_VLTextConfig(**language, bos_token_id=None, eos_token_id=None)),
        )


class Qwen3VL(QwenVL):
    """A Sa2VA on Qwen3-VL: positions learnt for a square grid, and what lower layers of the tower saw given on as well;
    [SEG] is read before the final norm, as transformers 4.57 gave the states that it was trained with."""

    architecture = "qwen3_vl_text"
    releases = "a Sa2VA on Qwen3-VL"
    bases = {
        (2048, 28): "Qwen3-VL-2B-Instruct",
        (2560, 36): "Qwen3-VL-4B-Instruct",
        (4096, 36): "Qwen3-VL-8B-Instruct",
    }
    bare = "qwen3_vl"
    before_norm = True
    mean = deviation = (0.5, 0.5, 0.5)

    def build_towers(self, vision: dict, language: dict, config: Sa2VAConfig) -> tuple[nn.Module, nn.Module]:
        from transformers.models.qwen3_vl import modeling_qwen3_vl as theirs

        bias = config.language.get("attention_bias", False)
        return (
            theirs.Qwen3VLVisionModel(theirs.Qwen3VLVisionConfig(**vision)),
            theirs.Qwen3VLTextModel(theirs.Qwen3VLTextConfig(**language, attention_bias=bias)),
        )


def fit(width: int, height: int, *, side: int, bounds: tuple[int, int]) -> tuple[int, int]:
    """The size in multiples of `side` nearest to an image's, with a number of pixels within `bounds`.

    Rounded as qwen_vl_utils and transformers do. LabError for an image that is far longer than broad.
    """
    if max(width, height) > MOST_STRETCHED * min(width, height):
        raise LabError(
            f"The image is {width} x {height}, more than {MOST_STRETCHED} times as long as broad: cut it into pieces."
        )
    fewest, most = bounds
    wide, high = (max(side, round(length / side) * side) for length in (width, height))
    if wide * high > most:
        factor = math.sqrt(width * height / most)
        wide, high = (max(side, math.floor(length / factor / side) * side) for length in (width, height))
    elif wide * high < fewest:
        factor = math.sqrt(fewest / (width * height))
        wide, high = (math.ceil(length * factor / side) * side for length in (width, height))
    return wide, high


def _cell(config: Sa2VAConfig) -> int:
    """The side of a token in pixels."""
    return config.vision["patch_size"] * config.vision["spatial_merge_size"]
