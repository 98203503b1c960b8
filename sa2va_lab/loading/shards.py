"""One network on several devices: the decoder layers are spread, all else stays together on one, the home.

Nothing but the states between decoder layers crosses devices, and one place moves them: accelerate's hooks, which
`connect` attaches. A layer that fits nowhere stays in the checkpoint's files and is read from them at each pass,
converted and merged as it would be while loading. Nothing is written, so no disk can be too full for it; whether the
files lie in memory (the page cache) or on the disk is the system's affair.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module, attach_align_device_hook
from torch import Tensor

from sa2va_lab.sa2va.family import LAYERS
from sa2va_lab.sa2va.modeling import Sa2VA
from sa2va_lab.sa2va.parts import layer_of
from sa2va_lab.sa2va.weights import match_parts

FILES = "files"  # the place of a decoder layer that fits nowhere


@dataclass(frozen=True)
class Layout:
    """Where the parts are. home: the device of everything but the decoder layers; layers: for each decoder layer its
    device, or FILES."""

    home: str
    layers: tuple[str, ...]

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices, home first."""
        return tuple(name for name in dict.fromkeys((self.home, *self.layers)) if name != FILES)

    @property
    def kept_back(self) -> int:
        """How many layers stay in the files."""
        return self.layers.count(FILES)

    def place(self, name: str) -> str:
        """The device of one of the network's tensors; "meta" for what stays in the files."""
        layer = layer_of(name)
        device = self.home if layer is None else self.layers[layer]
        return "meta" if device == FILES else device


def spread(count: int, *, size: float, held: dict[str, float], budgets: dict[str, float]) -> tuple[str, ...]:
    """A device for each of `count` decoder layers of `size` bytes, in the order of `budgets`; FILES for the rest.

    held: what each device must hold besides. Each layer goes where the budget is used least, so that all are filled
    to about the same share; neighbours stay together, as each border costs a move.
    """
    taken = dict.fromkeys(budgets, 0)

    def share(name: str) -> float:
        return (held[name] + (taken[name] + 1) * size) / max(budgets[name], 1)

    for _ in range(count):
        least = min(budgets, key=share)
        if share(least) > 1:
            break
        taken[least] += 1
    placed = [name for name, layers in taken.items() for _ in range(layers)]
    return (*placed, *[FILES] * (count - len(placed)))


class Shelf(Mapping):
    """The network's tensors by name, read from their source each time they are asked for."""

    def __init__(self, model: Sa2VA, source, dtype: torch.dtype):
        self._source, self._dtype, self._names = source, dtype, model.config.names
        self._parts = match_parts(model, source)

    def __getitem__(self, name: str) -> Tensor:
        return self._names.assemble(self._source.tensor, self._parts[name]).to(self._dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)


def connect(model: Sa2VA, layout: Layout, shelf: Mapping) -> None:
    """Makes a network whose tensors lie as `layout` says run as one; shelf: the tensors of layers in the files.

    Each decoder layer takes what it is given to its own device, and the norm after them takes it home. The key/value
    cache is left alone: each layer keeps its part where it runs.
    """
    if set(layout.layers) == {layout.home}:
        return
    cache = "past_key_values"
    for number, (layer, place) in enumerate(zip(model.layers, layout.layers, strict=True)):
        device = layout.home if place == FILES else place
        add_hook_to_module(layer, AlignDevicesHook(device, skip_keys=cache))
        if place == FILES:
            given = {"execution_device": device, "weights_map": shelf, "module_name": f"{LAYERS}{number}"}
            attach_align_device_hook(layer, offload=True, skip_keys=cache, **given)
    add_hook_to_module(model.final_norm, AlignDevicesHook(layout.home))
