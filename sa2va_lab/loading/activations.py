"""What one image takes besides the weights: the network is run without data, and the tensors that live are counted.

The real forward on the meta device, from pixels to masks; nothing is computed. Attention is counted as fused kernels
do it, which keep no matrix of scores. Layers that are alike take alike, so a few of each kind stand for all.
"""

from __future__ import annotations

import dataclasses
import weakref
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sa2va_lab.loading.arithmetic import set_arithmetic
from sa2va_lab.loading.devices import as_dtype
from sa2va_lab.sa2va.answering import read_answers
from sa2va_lab.sa2va.family import Sa2VAConfig
from sa2va_lab.sa2va.sam2 import HIERA_L
from sa2va_lab.sa2va.weights import build_empty

QUESTION = 64  # tokens of question and answer around the image
ANSWER = 7  # of them tokens of the answer: "Sure, [SEG]."
FEW = 2  # layers that stand for all of their kind
_ATEN = torch.ops.aten
_COPY_UNORDERED = {_ATEN.native_layer_norm.default, _ATEN.max_pool2d_with_indices.default}
_PRODUCTS = {_ATEN.addmm.default, _ATEN.mm.default, _ATEN.bmm.default}


@dataclass(frozen=True)
class Activations:
    """Bytes. seeing: the most that lives at one time until the image is tokens; after: from then on, without the cache;
    reading: what of it the decoder layers take; cache: keys and values; ahead: pixels of the next image, which wait on
    the host. products: how many matrix products of different sizes there are, those of integers aside. events: for each
    of three stages (seeing, reading, drawing) the tensors as they come and go, (number, bytes) and (number, 0)."""

    seeing: int
    after: int
    reading: int
    cache: int
    ahead: int
    products: int
    events: tuple[list[tuple[int, int]], ...] = field(default=(), compare=False, repr=False)


def count_activations(config: Sa2VAConfig, *, precision: str, tiles: int, on_cpu: bool = False) -> Activations:
    """Runs one image of `tiles` tiles, the thumbnail included, through the network at `precision`.

    on_cpu: with the arithmetic that this CPU needs for it; nf4 is counted as bf16.
    """
    dtype, layers = as_dtype(precision), config.language["num_hidden_layers"]
    config = shorten(config)
    model = build_empty(config).to(device="meta", dtype=dtype)
    if on_cpu and precision != "nf4":
        set_arithmetic(model, precision=precision, device="cpu")
    model.language_model.model.rotary_emb.rope_type = "default"  # a dynamic one looks at positions, which have no value
    parts = tree_leaves(config.family.blank(tiles, config))
    ahead = 3 * config.canvas**2 + sum(part.nbytes for part in parts if isinstance(part, Tensor))
    words = torch.zeros(1, QUESTION - ANSWER, dtype=torch.long, device="meta")
    held = _Held(model)
    # a caller's inference mode would hide what operators are made of
    with torch.inference_mode(False), torch.no_grad(), _Fused(), held:
        sight = model.encode_image(config.family.blank(tiles, config))
        inputs = torch.cat([model.embed(words), sight.tokens[None]], dim=1)
        seeing, before = held.start_over(), held.now
        cache = model.new_cache(sight, starts=[words.shape[1]])
        [reply] = read_answers(model, inputs, cache, answer=[0] * ANSWER)
        kept = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
        answering = held.start_over()
        model.score_tokens(reply.states)
        canvas = torch.empty(1, 3, config.canvas, config.canvas, dtype=dtype, device="meta")
        model.draw(model.encode_canvas(canvas), reply.states[:1])
        drawing = held.start_over()
    return Activations(
        seeing=seeing,
        after=max(answering, drawing) - kept,
        reading=max(answering - before - kept, 0),
        cache=kept * layers // config.language["num_hidden_layers"],
        ahead=ahead,
        products=len(held.products),
        events=tuple(held.stages),
    )


def shorten(config: Sa2VAConfig) -> Sa2VAConfig:
    """The same network with few layers of each kind: what lives at one time is the same, but for the cache."""
    backbone = HIERA_L | config.sam2.get("backbone", {})
    everywhere, blocks, whole, begin = backbone["global_attention_blocks"], [], [], 0
    for count in backbone["blocks_per_stage"]:
        wide = any(begin < number < begin + count for number in everywhere)  # the first of a stage is never one
        blocks.append(min(count, FEW + wide))
        begin += count
        if wide:
            whole.append(sum(blocks) - 1)
    backbone |= {"blocks_per_stage": blocks, "global_attention_blocks": whole}
    shorter = config.family.shorten(config, FEW)
    return dataclasses.replace(shorter, sam2=config.sam2 | {"backbone": backbone})


class _Held(TorchDispatchMode):
    """Bytes of the storages that operators made and that still live, and the most at one time.

    Some operators copy what does not lie in order for as long as they run. given: a network, whose own tensors do not
    count.
    """

    def __init__(self, given: torch.nn.Module):
        super().__init__()
        self.now = self.peak = self._numbers = 0
        self.products: set = set()
        self.stages: list[list[tuple[int, int]]] = []
        self.events: list[tuple[int, int]] = []
        own = (*given.parameters(), *given.buffers())
        self._seen = {tensor.untyped_storage()._cdata: None for tensor in own}

    def start_over(self) -> int:
        """The most since the beginning or the last call; a stage is over."""
        found, self.peak = self.peak, self.now
        self.stages.append(self.events)
        self.events = []
        return found

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._hold(tensor.untyped_storage())
        if func in _COPY_UNORDERED and not _lies_in_order(args[0]):
            self.peak = max(self.peak, self.now + args[0].nbytes)
        if func in _PRODUCTS:
            self.products.add((func, *(tuple(given.shape) for given in args)))
        return made

    def _hold(self, storage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._seen:
            self._numbers += 1
            number = self._numbers
            self._seen[key] = weakref.ref(storage, lambda _: self._release(key, size, number))
            self.events.append((number, size))
            self.now += size
            self.peak = max(self.peak, self.now)

    def _release(self, key: int, size: int, number: int) -> None:
        self._seen.pop(key, None)
        self.events.append((number, 0))
        self.now -= size


class _Fused(TorchFunctionMode):
    """Attention as one operator that makes nothing but its result."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.scaled_dot_product_attention:
            query, _, value = args[:3]
            return query.new_empty(*query.shape[:-1], value.shape[-1])
        return func(*args, **(kwargs or {}))


def _lies_in_order(tensor: Tensor) -> bool:
    images = tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    return images or tensor.is_contiguous()
