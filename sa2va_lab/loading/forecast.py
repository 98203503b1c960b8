"""How many bytes a checkpoint takes at a precision: weights by part, and what one image needs on top.

Weights follow from names and shapes, the rest from running the network without data (`loading.activations`); nothing is
loaded. On a GPU both go through torch's allocator as it would hand them out (`loading.allocator`); what lies outside it
was measured. What the process took of the host before it loaded (Python, torch and its libraries) is not in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

from sa2va_lab.errors import LabError
from sa2va_lab.loading.activations import FEW, Activations, count_activations
from sa2va_lab.loading.allocator import MIB, Allocator, round_up
from sa2va_lab.loading.arithmetic import choose_products
from sa2va_lab.loading.devices import QUANTISED, as_dtype
from sa2va_lab.loading.tensors import LazyTensor
from sa2va_lab.sa2va.family import Sa2VAConfig
from sa2va_lab.sa2va.parts import is_decoder_matrix, layer_of, part_of

GIB = 1 << 30
BYTES = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "int8": 1.0, "nf4": 0.5}
BLOCK = 64  # nf4: one float32 scale for so many weights
GROUP = 256  # of these scales, which are rounded to a byte each: one float32
KERNEL = 540 << 10  # what oneDNN keeps of a product of sizes that are new to it; measured: mean of 46 in bf16
QUANTISING = 16  # bytes a number that bitsandbytes takes on a CPU while it makes nf4; measured
# What a GPU shows besides what torch's allocator holds (driver, kernels, the libraries' handles), the same where
# bitsandbytes multiplies in int8, and what the allocator lends cuBLAS; measured: H100 80GB, torch 2.11.0+cu130
CONTEXT, CONTEXT_INT8, WORKSPACE = 695 * MIB, 759 * MIB, 32 * MIB
OBJECTS = 8 * MIB  # modules, headers, buffers of libraries; measured


@dataclass(frozen=True)
class Forecast:
    """Bytes of one replica. outside: weights of all that is no decoder layer; layer: of one of those, which are all
    alike; outside_own, layer_own: what of them is not used where it lies in a mapped file; unseen: mapped weights that
    an image hardly touches (the table of words, SAM2's memory of videos); matrix: the largest of a decoder layer;
    activations: the most that lives at one time of one image; reading: the most while the decoder layers run; cache:
    keys and values of one layer. On a GPU also context: outside the allocator; rounding: what the allocator holds more
    for the weights of a decoder layer than they are long; peak: the most that it has given out at one time, were all on
    one GPU; and activations is what it holds at home more than weights."""

    layers: int
    outside: int
    outside_own: int
    layer: float
    layer_own: float
    unseen: int
    matrix: int
    activations: int
    reading: int
    cache: float
    context: int = 0
    rounding: float = 0.0
    peak: int = 0

    def own(self, layers: int, at_home: bool) -> float:
        """Weights that need memory of their own on a device: of so many layers and, at home, of all else."""
        return layers * self.layer_own + (self.outside_own if at_home else 0)

    def needed(self, layers: int, at_home: bool, kept_back: int = 0) -> float:
        """All that must be free there. kept_back: layers that stay in the files; their cache is at home, and one matrix
        at a time comes in."""
        passing = self.activations if at_home else self.reading
        passing += self.matrix if kept_back else 0
        cache = (layers + kept_back) * self.cache
        return self.context + self.own(layers, at_home) + layers * self.rounding + passing + cache


def weigh(shapes: dict[str, tuple[int, ...]], *, precision: str) -> dict[str, int]:
    """Bytes of the weights by part, "decoder" for the decoder layers. Of those alone matrices are quantised; the rest
    is then bf16."""
    parts: dict[str, int] = {}
    for name, shape in shapes.items():
        part = part_of(name) if layer_of(name) is None else "decoder"
        parts[part] = parts.get(part, 0) + sum(_weigh_one(name, shape, precision))
    return parts


def _weigh_one(name: str, shape: tuple[int, ...], precision: str) -> tuple[int, ...]:
    """Bytes of the tensors that one tensor becomes: itself, and its scales where it is quantised."""
    count, small = math.prod(shape), precision in QUANTISED
    if not small or not is_decoder_matrix(name):
        return (count * int(BYTES["bf16" if small else precision]),)
    if precision == "int8":
        return count, 4 * shape[0]
    blocks = math.ceil(count / BLOCK)
    return math.ceil(count / 2), blocks, 4 * math.ceil(blocks / GROUP)


def is_used_as_it_lies(tensor: LazyTensor, *, precision: str) -> bool:
    """Whether a tensor can stay a view of its mapped file, were it not quantised."""
    return tensor.mapped and tensor.dtype == ("bf16" if precision in QUANTISED else precision)


def weigh_loading(tensors: dict[str, LazyTensor], *, precision: str) -> int:
    """Bytes that the host needs while GPUs are loaded: the largest tensor that is not stored as it is used, since one
    after another is made on the host. Where LoRA is merged that is W, B A and their sum, in float32."""

    def take(tensor: LazyTensor) -> int:
        if tensor.merged:
            return 3 * 4 * tensor.parameters
        as_used = is_used_as_it_lies(tensor, precision=precision)
        return 0 if as_used else tensor.parameters * (4 if precision == "fp32" else 2)

    return max(map(take, tensors.values()), default=0)


def forecast(
    tensors: dict[str, LazyTensor], config: Sa2VAConfig, *, precision: str, tiles: int = 1, device: str = "cuda:0"
) -> Forecast:
    """What one replica needs to answer about one image of `tiles` tiles, the thumbnail included.

    device: "cpu", where weights that are stored as they are used stay in the mapped file; else a GPU, whichever.
    """
    on_cpu = device == "cpu"
    quantised, layers = precision in QUANTISED, config.language["num_hidden_layers"]
    matrix = config.language["hidden_size"] * config.language["intermediate_size"] * (4 if precision == "fp32" else 2)
    kind = "bf16" if precision == "nf4" or (precision == "int8" and not on_cpu) else precision  # computed as bf16
    counted = _count(config, kind, tiles, on_cpu)
    # products in float32 do not go to oneDNN
    onednn = kind != "fp32" and choose_products(device="cpu", dtype=as_dtype(kind))[0] == "native"
    kept = OBJECTS + counted.ahead + KERNEL * counted.products * onednn if on_cpu else 0
    widened = matrix if precision == "nf4" else 0  # one at a time, for its product
    rounded = QUANTISING * matrix // 2 if precision == "nf4" and on_cpu else 0  # one at a time, while it is loaded
    in_place = {
        name: tensor.shape
        for name, tensor in tensors.items()
        if on_cpu and is_used_as_it_lies(tensor, precision=precision) and not (quantised and is_decoder_matrix(name))
    }
    weights = weigh({name: tensor.shape for name, tensor in tensors.items()}, precision=precision)
    lying = weigh(in_place, precision=precision)
    decoder, mapped = weights.pop("decoder"), lying.pop("decoder", 0)
    tied = all(part_of(name) != "lm_head" for name in tensors)  # then the head reads the table of words
    unseen = ("sam2_memory",) if tied else ("sam2_memory", "embed_tokens")
    made = Forecast(
        layers=layers,
        outside=sum(weights.values()),
        outside_own=sum(weights.values()) - sum(lying.values()),
        layer=decoder / layers,
        layer_own=(decoder - mapped) / layers,
        unseen=sum(lying.get(part, 0) for part in unseen),
        matrix=matrix,
        activations=max(
            counted.seeing + kept, counted.after + kept, counted.reading + widened + kept, rounded + OBJECTS
        ),
        reading=counted.reading + widened,
        cache=counted.cache / layers,
    )
    if on_cpu:
        return made
    how = {"precision": precision, "widened": widened}
    bare, full = (_run_allocator(tensors, counted, layers=count, **how) for count in (0, layers))
    return replace(
        made,
        context=CONTEXT_INT8 if precision == "int8" else CONTEXT,
        activations=bare.reserved - made.outside,
        reading=round_up(made.reading, 2 * MIB) + WORKSPACE,
        rounding=max(0, (full.reserved - bare.reserved) / layers - made.layer - made.cache),
        peak=full.peak,
    )


def _run_allocator(
    tensors: dict[str, LazyTensor], counted: Activations, *, precision: str, layers: int, widened: int
) -> Allocator:
    """Torch's allocator after a GPU was loaded and one image answered. layers: decoder layers on it, all or none."""
    allocator, alive = Allocator(), {}
    for name in sorted(name for name in tensors if layers or layer_of(name) is None):  # as they are loaded
        sizes = _weigh_one(name, tensors[name].shape, precision)
        passing = [2 * tensors[name].parameters] if len(sizes) > 1 else []  # comes as bf16, and is quantised there
        passing += [4 * sizes[1]] if len(sizes) > 2 else []  # with scales in float32, before these are rounded
        passing = [allocator.take(size) for size in passing]
        for size in sizes:
            allocator.take(size)
        for piece in passing:
            allocator.give_back(*piece)
    allocator.take(WORKSPACE)
    for stage, events in enumerate(counted.events):
        for _ in range(2 * (layers - FEW) if stage == 1 else 0):  # keys and values of the layers that were not counted
            allocator.take(counted.cache // layers // 2)
        wide = allocator.take(widened) if stage == 1 and widened else None
        for number, size in events:
            if size:
                alive[number] = allocator.take(size)
            elif number in alive:
                allocator.give_back(*alive.pop(number))
        if wide:
            allocator.give_back(*wide)
    return allocator


@lru_cache
def _count(config: Sa2VAConfig, kind: str, tiles: int, on_cpu: bool) -> Activations:
    try:
        return count_activations(config, precision=kind, tiles=tiles, on_cpu=on_cpu)
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise LabError(
            f"config.json describes no network that can be run ({type(error).__name__}: {str(error).strip()[:200]}): "
            "copy the file again from its source."
        ) from error
