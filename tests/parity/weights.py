"""A Sa2VA checkpoint whose every value follows from a tensor's official name and shape.

The recorded outputs in `internvl/` are the official implementation's on exactly these values (float32, CPU), so the
statistics below must not be touched. Writing it takes some seconds and 861 MiB.
"""

from __future__ import annotations

import json
import re
import shutil
import zlib
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

HERE = Path(__file__).parent

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
    r"(embed_tokens|visual\.pos_embed)\.weight$": (0.0, 0.5),
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
}


def value(name: str, shape: list[int]) -> np.ndarray:
    """The float32 value of one official tensor."""
    mean, deviation = _statistics(name, shape)
    seed = zlib.crc32((name + ("#6" if "sam_mask_decoder" in name else "")).encode())
    noise = np.random.default_rng(seed).standard_normal(tuple(shape), dtype=np.float32)
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


def write_checkpoint(folder: Path, *, shards: int = 3) -> Path:
    """An official-form folder: config.json, tokenizer, `shards` safetensors files and their index."""
    manifest = json.loads((HERE / "internvl" / "manifest.json").read_text())
    folder.mkdir(parents=True, exist_ok=True)
    for file in [HERE / "internvl" / "config.json", *(HERE / "internvl" / "tokenizer").iterdir()]:
        shutil.copyfile(file, folder / file.name)
    weight_map = {}
    for i in range(shards):
        part = {name: value(name, manifest[name]) for name in sorted(manifest)[i::shards]}
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        save_file(part, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder
