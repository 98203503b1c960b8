"""How many bytes a checkpoint takes at a precision: weights by part, and what one image needs on top.

Weights follow from names and shapes, the rest from running the network without data (`loading.activations`); nothing is
loaded. The CUDA context and fragments are estimates, which were not measured, as no CUDA device was at hand. What the
process took before it loaded (Python, torch and its libraries) is not in it.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from sa2va_lab.loading.devices import QUANTISED
from sa2va_lab.loading.parts import part_of as exact_part_of
from sa2va_lab.sa2va.configuration import Sa2VAConfig

if TYPE_CHECKING:
    from sa2va_lab.loading.activations import Activations

GIB = 1 << 30
MIB = 1 << 20
BYTES = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "int8": 1.0, "nf4": 0.5}
STORED = {"fp32": "F32", "bf16": "BF16", "fp16": "F16"}  # as safetensors headers call them
BLOCK = 64  # nf4: one float32 scale for so many weights
CUDA_CONTEXT = 500 * MIB  # driver and kernels; an estimate, no CUDA device was at hand
FRAGMENTS = 0.03  # of what is held: room that an allocator cannot use; an estimate
KERNEL = 540 << 10  # what oneDNN keeps of a product of sizes that are new to it; measured: mean of 46 in bf16
QUANTISING = 16  # bytes a number that bitsandbytes takes on a CPU while it makes nf4; measured
OBJECTS = 8 * MIB  # modules, headers, buffers of libraries; measured
DECODER = "language_model.model.layers."


@dataclass(frozen=True)
class Forecast:
    """Bytes of one replica. parts: weights by part; in_place: what of them is used where it lies in a mapped file;
    unseen: what of that an image hardly touches (the table of words, SAM2's memory of videos); layers: how many decoder
    layers there are, all alike; matrix: the largest of their matrices; activations: the most that lives at one time of
    one image; reading: the most while the decoder layers run; cache: keys and values."""

    precision: str
    parts: dict[str, int]
    in_place: dict[str, int]
    unseen: int
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
    def layer_in_place(self) -> float:
        """What of them is used where it lies in a mapped file."""
        return self.in_place.get("decoder", 0) / self.layers

    @property
    def layer_cache(self) -> float:
        """Keys and values of one decoder layer."""
        return self.cache / self.layers

    @property
    def outside(self) -> int:
        """Weights of all that is no decoder layer."""
        return self.weights - self.parts["decoder"]

    @property
    def outside_in_place(self) -> int:
        """What of them is used where it lies in a mapped file."""
        return sum(self.in_place.values()) - self.in_place.get("decoder", 0)


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
        if precision in QUANTISED:
            matrix = is_matrix(name, shape)
            scales = 4 * (shape[0] if precision == "int8" else math.ceil(count / BLOCK)) if matrix else 0
            taken = count * width + scales if matrix else count * BYTES["bf16"]
        parts[part_of(name)] = parts.get(part_of(name), 0) + taken
    return {part: int(taken) for part, taken in parts.items()}


def is_matrix(name: str, shape: tuple[int, ...]) -> bool:
    """Whether an official tensor is a matrix of a decoder layer, which int8 and nf4 quantise."""
    return name.startswith(DECODER) and len(shape) == 2


def weigh_loading(shapes: dict[str, tuple[int, ...]], stored: dict[str, str], *, precision: str) -> int:
    """Bytes that the host needs while GPUs are loaded: the largest tensor that is not stored as it is used, since one
    after another is made on the host. Where LoRA is merged that is W, B A and their sum, in float32."""

    def take(name: str) -> int:
        if stored[name] == "MERGED" and is_matrix(name, shapes[name]):
            return 3 * 4 * math.prod(shapes[name])
        as_used = stored[name] == STORED.get(precision, "BF16")
        return 0 if as_used else math.prod(shapes[name]) * (4 if precision == "fp32" else 2)

    return max(map(take, shapes), default=0)


def forecast(
    shapes: dict[str, tuple[int, ...]],
    config: Sa2VAConfig,
    *,
    precision: str,
    tiles: int = 1,
    stored: dict[str, str] | None = None,
) -> Forecast:
    """What one replica needs to answer about one image of `tiles` tiles, the thumbnail included.

    stored: {tensor: its dtype in the file, as safetensors calls it} for a replica on a CPU, None on a GPU.
    """
    on_cpu = stored is not None
    language = config.language
    matrix = language["hidden_size"] * language["intermediate_size"] * (4 if precision == "fp32" else 2)
    kind = "bf16" if precision == "nf4" or (precision == "int8" and not on_cpu) else precision  # computed as bf16
    counted = _count(json.dumps(asdict(config), sort_keys=True), kind, tiles, on_cpu)
    kept = 0
    if on_cpu:
        kept = OBJECTS + (KERNEL * counted.products if _uses_onednn(kind) else 0)
    widened = matrix if precision == "nf4" else 0  # one at a time, for its product
    rounded = QUANTISING * matrix // 2 if precision == "nf4" and on_cpu else 0  # one at a time, while it is loaded
    in_place = {name: shapes[name] for name, dtype in (stored or {}).items() if dtype == STORED.get(precision, "BF16")}
    if precision in QUANTISED:
        in_place = {name: shape for name, shape in in_place.items() if not is_matrix(name, shape)}
    return Forecast(
        precision,
        weigh(shapes, precision=precision),
        in_place=weigh(in_place, precision=precision),
        unseen=sum(weigh(_find_unseen(in_place, all_names=shapes), precision=precision).values()),
        layers=language["num_hidden_layers"],
        matrix=matrix,
        activations=max(
            counted.seeing + kept, counted.after + kept, counted.reading + widened + kept, rounded + OBJECTS
        ),
        reading=counted.reading + widened,
        cache=counted.cache,
    )


def _find_unseen(in_place: dict[str, tuple[int, ...]], *, all_names) -> dict[str, tuple[int, ...]]:
    tied = all(exact_part_of(name) != "lm_head" for name in all_names)  # then the head reads the table of words
    unseen = {"sam2_memory"} if tied else {"sam2_memory", "embed_tokens"}
    return {name: shape for name, shape in in_place.items() if exact_part_of(name) in unseen}


def _uses_onednn(kind: str) -> bool:
    """Whether matrix products at this precision go to oneDNN on this CPU; those in float32 do not."""
    from sa2va_lab.loading.arithmetic import choose_products

    if kind == "fp32":
        return False
    import torch

    return choose_products(device="cpu", dtype=torch.float16 if kind == "fp16" else torch.bfloat16)[0] == "native"


@lru_cache
def _count(config: str, kind: str, tiles: int, on_cpu: bool) -> Activations:
    from sa2va_lab.loading.activations import count_activations

    return count_activations(Sa2VAConfig(**json.loads(config)), precision=kind, tiles=tiles, on_cpu=on_cpu)
