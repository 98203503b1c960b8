"""How many bytes a checkpoint takes at a precision: weights by part, and what one image needs on top.

Everything follows from names, shapes and config.json; nothing is loaded. Weights and the cache are counted exactly.
Activations are an estimate: the widest tensors that one layer holds at once. So are the CUDA context and fragments,
which were not measured, as no CUDA device was at hand. What the process itself takes (Python, torch) is not in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from sa2va_lab.sa2va.configuration import Sa2VAConfig

GIB = 1 << 30
MIB = 1 << 20
BYTES = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "int8": 1.0, "nf4": 0.5}
BLOCK = 64  # nf4: one float32 scale for so many weights
CUDA_CONTEXT = 500 * MIB  # driver and kernels; an estimate, no CUDA device was at hand
FRAGMENTS = 0.03  # of what is held: room that an allocator cannot use; an estimate
QUESTION = 64  # tokens of question and answer around the image
DECODER = "language_model.model.layers."


@dataclass(frozen=True)
class Forecast:
    """Bytes of one replica. parts: weights by part; layers: how many decoder layers there are, all alike; matrix: the
    largest of their matrices; activations: the largest stage of one image; reading: what a decoder layer holds besides
    its weights; cache: keys and values."""

    precision: str
    parts: dict[str, int]
    layers: int
    matrix: int
    activations: int
    reading: int
    cache: int

    @property
    def weights(self) -> int:
        """Bytes of all weights."""
        return sum(self.parts.values())

    @property
    def layer(self) -> float:
        """Weights of one decoder layer."""
        return self.parts["decoder"] / self.layers

    @property
    def layer_cache(self) -> float:
        """Keys and values of one decoder layer."""
        return self.cache / self.layers

    @property
    def outside(self) -> int:
        """Weights of all that is no decoder layer."""
        return self.weights - self.parts["decoder"]


def part_of(name: str) -> str:
    """The part that an official tensor belongs to."""
    heads = {
        "vision_model": "vision",
        "mlp1": "projector",
        "grounding_encoder": "sam2",
        "text_hidden_fcs": "seg projection",
    }
    if name.startswith("language_model."):
        return "decoder" if name.startswith(DECODER) else "embeddings" if "embed_tokens" in name else "head"
    return heads.get(name.partition(".")[0], "other")


def weigh(shapes: dict[str, tuple[int, ...]], *, precision: str) -> dict[str, int]:
    """Bytes of the weights by part. Matrices of the decoder layers alone are quantised; the rest is then bf16."""
    parts: dict[str, float] = {}
    for name, shape in shapes.items():
        count, width = math.prod(shape), BYTES[precision]
        taken = count * width
        if precision in ("int8", "nf4"):
            matrix = name.startswith(DECODER) and len(shape) == 2
            scales = 4 * (shape[0] if precision == "int8" else math.ceil(count / BLOCK)) if matrix else 0
            taken = count * width + scales if matrix else count * BYTES["bf16"]
        parts[part_of(name)] = parts.get(part_of(name), 0) + taken
    return {part: int(taken) for part, taken in parts.items()}


def forecast(shapes: dict[str, tuple[int, ...]], config: Sa2VAConfig, *, precision: str, tiles: int = 1) -> Forecast:
    """What one replica needs to answer about one image of `tiles` tiles, the thumbnail included."""
    width = 4 if precision == "fp32" else 2
    language, vision = config.language, config.vision
    tokens = tiles * config.tokens_per_tile + QUESTION
    hidden, wide = language["hidden_size"], language["intermediate_size"]
    heads = language["num_attention_heads"]
    kept = language.get("num_key_value_heads", heads) * (hidden // heads)
    cache = 2 * language["num_hidden_layers"] * tokens * kept * width
    patches = (config.tile // vision.get("patch_size", 14)) ** 2 + 1
    reading = tokens * (4 * hidden + 3 * wide) * width
    stages = {
        "vision": tiles * patches * (4 * vision["hidden_size"] + 2 * vision["intermediate_size"]) * width,
        "reading": reading + language["vocab_size"] * 4 * 8,
        "canvas": _canvas_bytes(config, width),
    }
    return Forecast(
        precision,
        weigh(shapes, precision=precision),
        layers=language["num_hidden_layers"],
        matrix=hidden * wide * width,
        activations=max(stages.values()),
        reading=reading,
        cache=cache,
    )


def _canvas_bytes(config: Sa2VAConfig, width: int) -> int:
    """SAM2's encoder: its first stage holds the most, as the map is widest there: the pixels, the map itself, its
    normalised copy, and the four-fold widening of the MLP before and after the activation."""
    backbone = config.sam2_config().vision_config.backbone_config
    side = config.canvas // backbone.patch_stride[0]
    return config.canvas**2 * 3 * width + side * side * backbone.embed_dim_per_stage[0] * 10 * width
