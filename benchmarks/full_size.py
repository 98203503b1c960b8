"""A stand-in for the real 8.18 B model: its sizes and names, random bf16 weights, 15.2 GiB on disk.

    python benchmarks/full_size.py write FOLDER

Random weights cost what trained ones cost; what the model says about an image means nothing.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from tqdm import tqdm

from sa2va_lab.demo import tiny
from sa2va_lab.sa2va.configuration import parse_config
from sa2va_lab.sa2va.names import official_names
from sa2va_lab.sa2va.weights import INDEX, build_empty

SHARD_BYTES = 1 << 30
VISION = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "image_size": 448,
    "patch_size": 14,
}
LANGUAGE = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "max_position_embeddings": 32768,
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "vocab_size": 151679,
}


def write_full_size(folder: Path | str) -> Path:
    """Writes the stand-in as an official-form folder, with the demo's tokenizer (its ids are all below the real
    vocabulary's end); a folder that is complete already is left as it is."""
    folder = Path(folder)
    if (folder / INDEX).is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    raw = tiny.write_tokenizer(folder)
    raw["vision_config"] |= VISION
    raw["llm_config"] |= LANGUAGE
    raw |= {"force_image_size": 448, "max_dynamic_patch": 12}
    del raw["sa2va_lab"]
    (folder / "config.json").write_text(json.dumps(raw, indent=1))
    shapes = dict(_official_shapes(raw))
    pool = torch.randn(1 << 24, generator=torch.Generator().manual_seed(0))
    weight_map, shard, filled = {}, {}, 0
    for number, (name, shape) in enumerate(tqdm(sorted(shapes.items()), desc="write weights", unit="tensor"), 1):
        shard[name] = _draw(name, shape, pool)
        filled += shard[name].nbytes
        if filled > SHARD_BYTES or number == len(shapes):
            file = f"model-{len(set(weight_map.values())) + 1:05d}.safetensors"
            save_file(shard, folder / file, metadata={"format": "pt"})
            weight_map |= dict.fromkeys(shard, file)
            shard, filled = {}, 0
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def _official_shapes(raw: dict) -> Iterator[tuple[str, tuple[int, ...]]]:
    ours = {name: tuple(tensor.shape) for name, tensor in build_empty(parse_config(raw)).state_dict().items()}
    for name, places in official_names(list(ours)).items():
        first, *rest = ours[places[0].name]
        rows = {"whole": first, "third": 3 * first, "row": 1}[places[0].kind]
        yield name, (rows, *rest)


def _draw(name: str, shape: tuple[int, ...], pool: torch.Tensor) -> torch.Tensor:
    """Values that keep the signal's size from layer to layer: norms near 1, biases near 0, matrices by their fan-in."""
    count = math.prod(shape)
    if name.endswith("bias"):
        mean, deviation = 0.0, 0.02
    elif len(shape) == 1:
        mean, deviation = (0.1, 0.01) if name.endswith((".ls1", ".ls2", "g_weight")) else (1.0, 0.1)
    else:
        mean, deviation = 0.0, 1 / math.sqrt(math.prod(shape[1:]))
    start = hash_of(name) % (len(pool) // 2)
    values = torch.empty(count, dtype=torch.bfloat16)
    for begin in range(0, count, len(pool) // 2):
        part = values[begin : begin + len(pool) // 2]
        part.copy_(pool[start : start + len(part)] * deviation + mean)
    return values.view(shape)


def hash_of(name: str) -> int:
    """The same number for the same name in every process."""
    return int.from_bytes(name.encode()[-8:], "little")


def main() -> None:
    """Reads the arguments and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["write"])
    parser.add_argument("folder")
    asked = parser.parse_args()
    print(write_full_size(asked.folder))


if __name__ == "__main__":
    main()
