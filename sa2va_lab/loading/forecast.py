"""How many bytes a checkpoint takes at a precision: weights by part, and what one image needs on top.

Weights follow from names and shapes, the rest from running the network without data (`loading.activations`); nothing is
loaded. The CUDA context and fragments are estimates, which were not measured, as no CUDA device was at hand. What the
process itself takes (Python, torch and its libraries) is not in it.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from sa2va_lab.sa2va.configuration import Sa2VAConfig

if TYPE_CHECKING:
    from sa2va_lab.loading.activations import Activations

GIB = 1 << 30
MIB = 1 << 20
BYTES = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "int8": 1.0, "nf4": 0.5}
BLOCK = 64  # nf4: one float32 scale for so many weights
CUDA_CONTEXT = 500 * MIB  # driver and kernels; an estimate, no CUDA device was at hand
FRAGMENTS = 0.03  # of what is held: room that an allocator cannot use; an estimate
DECODER = "language_model.model.layers."


@dataclass(frozen=True)
class Forecast:
    """Bytes of one replica. parts: weights by part; layers: how many decoder layers there are, all alike; matrix: the
    largest of their matrices; activations: the most that lives at one time of one image; reading: the most while the
    decoder layers run; cache: keys and values."""

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
    language, wide = config.language, precision == "fp32"
    counted = _count(json.dumps(asdict(config), sort_keys=True), wide, tiles)
    return Forecast(
        precision,
        weigh(shapes, precision=precision),
        layers=language["num_hidden_layers"],
        matrix=language["hidden_size"] * language["intermediate_size"] * (4 if wide else 2),
        activations=counted.peak - counted.cache,
        reading=counted.reading,
        cache=counted.cache,
    )


@lru_cache
def _count(config: str, wide: bool, tiles: int) -> Activations:
    import torch

    from sa2va_lab.loading.activations import count_activations

    dtype = torch.float32 if wide else torch.bfloat16
    return count_activations(Sa2VAConfig(**json.loads(config)), dtype=dtype, tiles=tiles)
