"""A Sa2VA checkpoint whose every value follows from a tensor's official name and shape.

The recorded outputs beside this file, a folder for each family, are the official implementation's on exactly these
values (float32, CPU), so the statistics below must not be touched. SAM2 is the same for all: it is
written once, which takes some seconds and 855 MiB.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import zlib
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

HERE = Path(__file__).parent
FIRST, SAM2 = "internvl", "grounding_encoder."

# official name -> (mean, standard deviation); the first that matches counts
FIXED = {
    r"\.ls[12]$": (0.3, 0.03),
    r"g_weight$": (0.1, 0.01),
    r"positional_encoding_gaussian_matrix$": (0.0, 1.0),
    r"(class_embedding|position_embedding)$": (0.0, 0.3),
    r"(^|\.)(pos_embed|pos_embed_window)$": (0.0, 0.2),
    r"(maskmem_tpos_enc|no_mem_embed|no_mem_pos_enc|no_obj_ptr)$": (0.0, 0.2),
    r"(point_embeddings\.\d+|not_a_point_embed|no_mask_embed|iou_token|mask_tokens|obj_score_token)\.weight$": (
        0.0,
        0.5,
    ),
    r"(embed_tokens|tok_embeddings|visual\.pos_embed)\.weight$": (0.0, 0.5),
    r"^language_model\..*\.(q_norm|k_norm)\.weight$": (3.0, 0.3),  # Qwen3
}
# matrices and kernels: deviation gain / sqrt(fan in); the first that matches counts, else gain 1
GAINS = {
    r"image_encoder\.trunk\.blocks\.\d+\.(attn\.proj|mlp\.layers\.1)\.weight$": 0.25,
    r"image_encoder\.neck\.convs\.": 0.3,
    r"^text_hidden_fcs\.": 2.0,
    r"sam_mask_decoder\.transformer\..*\.(q_proj|k_proj|out_proj)\.weight$": 2.0,
    r"sam_mask_decoder\.(output_hypernetworks_mlps|iou_prediction_head|pred_obj_score_head)\..*weight$": 1.8,
    r"^(?!grounding_encoder).*layers\.\d+\.self_attn\.(q_proj|k_proj)\.weight$": 2.0,
    r"vision_model\..*attn\.qkv\.weight$": 1.5,
    r"^language_model\..*layers\.\d+\.attention\.wqkv\.weight$": 2.5,  # InternLM2
    r"^language_model\..*layers\.\d+\.self_attn\.qkv_proj\.weight$": 1.8,  # Phi3
}
# what is put behind a name before it becomes a seed
SEEDS = {r"sam_mask_decoder": "#6", r"^language_model\..*\.(qkv_proj|gate_up_proj)\.weight$": "#3"}


def value(name: str, shape: list[int]) -> np.ndarray:
    """The float32 value of one official tensor."""
    mean, deviation = _statistics(name, shape)
    text = name + next((mark for pattern, mark in SEEDS.items() if re.search(pattern, name)), "")
    noise = np.random.default_rng(zlib.crc32(text.encode())).standard_normal(tuple(shape), dtype=np.float32)
    return (np.float32(mean) + np.float32(deviation) * noise).astype(np.float32)


def _statistics(name: str, shape: list[int]) -> tuple[float, float]:
    for pattern, statistics in FIXED.items():
        if re.search(pattern, name):
            return statistics
    if len(shape) <= 1:
        return (0.0, 0.02) if name.endswith("bias") else (1.0, 0.1)
    if re.search(r"output_upscaling\.(0|3)\.weight$", name):
        return 0.0, 1.0 / np.sqrt(shape[0])
    gain = next((gain for pattern, gain in GAINS.items() if re.search(pattern, name)), 1.0)
    return 0.0, gain / np.sqrt(int(np.prod(shape[1:])))


def write_sam2(folder: Path) -> Path:
    """SAM2's tensors as two files, which belong to the checkpoint of every family."""
    folder.mkdir(parents=True, exist_ok=True)
    shapes = {name: shape for name, shape in _read_shapes(FIRST).items() if name.startswith(SAM2)}
    for i in range(2):
        part = {name: value(name, shapes[name]) for name in sorted(shapes)[i::2]}
        save_file(part, folder / f"model-{i + 1:05d}-of-00003.safetensors", metadata={"format": "pt"})
    return folder


def write_checkpoint(folder: Path, family: str, *, sam2: Path) -> Path:
    """An official-form folder: config.json, tokenizer, three safetensors files and their index.

    sam2: what `write_sam2` wrote; its files are linked. A family without a tokenizer here has that of the first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = next(path for one in (family, FIRST) if (path := HERE / one / "tokenizer").is_dir())
    for file in [HERE / family / "config.json", *tokenizer.iterdir()]:
        shutil.copyfile(file, folder / file.name)
    own = {name: value(name, shape) for name, shape in _read_shapes(family).items() if not name.startswith(SAM2)}
    save_file(own, folder / "model-00003-of-00003.safetensors", metadata={"format": "pt"})
    for file in sam2.iterdir():
        os.link(file, folder / file.name)
    weight_map = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="numpy") as opened:
            weight_map |= dict.fromkeys(opened.keys(), file.name)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def _read_shapes(family: str) -> dict[str, list[int]]:
    return json.loads((HERE / family / "manifest.json").read_text())
