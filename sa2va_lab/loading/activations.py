"""What one image takes besides the weights: the network is run without data, and the tensors that live are counted.

The real forward on the meta device, from pixels to masks; nothing is computed. Attention is counted as fused kernels
do it, which keep no matrix of scores. What kernels take for themselves while they run is not seen.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import DynamicCache

from sa2va_lab.sa2va.answering import read_answer
from sa2va_lab.sa2va.configuration import Sa2VAConfig
from sa2va_lab.sa2va.weights import build_empty

QUESTION = 64  # tokens of question and answer around the image
ANSWER = 7  # of them tokens of the answer: "Sure, [SEG]."


@dataclass(frozen=True)
class Activations:
    """Bytes. peak: the most that lives at one time, cache included; reading: the most while the decoder layers run,
    without their cache; cache: keys and values."""

    peak: int
    reading: int
    cache: int


def count_activations(config: Sa2VAConfig, *, dtype: torch.dtype, tiles: int) -> Activations:
    """Runs one image of `tiles` tiles, the thumbnail included, through the network in `dtype`."""
    model = build_empty(config).to(device="meta", dtype=dtype)
    model.language_model.model.rotary_emb.rope_type = "default"  # a dynamic one looks at positions, which have no value
    words = torch.zeros(1, QUESTION - ANSWER, dtype=torch.long, device="meta")
    with torch.inference_mode(), _Fused(), _Held() as held:
        tokens = model.encode_tiles(torch.empty(tiles, 3, config.tile, config.tile, device="meta"))
        inputs = torch.cat([model.embed(words), tokens.flatten(0, 1)[None]], dim=1)
        cache = DynamicCache(config=model.language_model.config)
        before, highest = held.now, held.peak
        held.peak = held.now
        reply = read_answer(model, inputs, cache, answer=[0] * ANSWER)
        kept = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
        reading, held.peak = held.peak - before - kept, max(highest, held.peak)
        model.score_tokens(reply.states)
        features = model.encode_canvas(torch.empty(1, 3, config.canvas, config.canvas, dtype=dtype, device="meta"))
        model.draw(features, reply.states[:1])
    return Activations(peak=held.peak, reading=max(reading, 0), cache=kept)


class _Held(TorchDispatchMode):
    """Bytes of the storages that operators made and that still live, and the most at one time."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self._seen: dict[int, weakref.ref] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._hold(tensor.untyped_storage())
        return made

    def _hold(self, storage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._seen:
            self._seen[key] = weakref.ref(storage, lambda _: self._release(key, size))
            self.now += size
            self.peak = max(self.peak, self.now)

    def _release(self, key: int, size: int) -> None:
        self._seen.pop(key, None)
        self.now -= size


class _Fused(TorchFunctionMode):
    """Attention as one operator that makes nothing but its result."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.scaled_dot_product_attention:
            query, _, value = args[:3]
            return query.new_empty(*query.shape[:-1], value.shape[-1])
        return func(*args, **(kwargs or {}))
