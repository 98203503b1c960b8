"""One network on several devices: the decoder layers are spread, all else stays together on one, the home.

Nothing but the states between decoder layers crosses devices, and one place moves them: accelerate's hooks, which
`connect` attaches. A layer that fits nowhere stays in the checkpoint's files and is read from them at each pass,
converted and merged as it would be while loading. Nothing is written, so no disk can be too full for it; whether the
files lie in memory (the page cache) or on the disk is the system's affair.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module, attach_align_device_hook
from torch import Tensor

from sa2va_lab.sa2va.family import LAYERS
from sa2va_lab.sa2va.modeling import Sa2VA
from sa2va_lab.sa2va.parts import layer_of
from sa2va_lab.sa2va.weights import match_parts

PAGE = 4096  # bytes
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


def spread(
    count: int, *, size: float, held: dict[str, float], budgets: dict[str, float], files: bool = True
) -> tuple[str, ...]:
    """A device for each of `count` decoder layers of `size` bytes, in the order of `budgets`; FILES for those that fit
    nowhere, or with `files` off a device all the same, to say what is lacking.

    held: what each device must hold besides. Each layer goes where the budget is used least, so that all are filled
    to about the same share; neighbours stay together, as each border costs a move.
    """
    taken = dict.fromkeys(budgets, 0)

    def share(name: str) -> float:
        return (held[name] + (taken[name] + 1) * size) / max(budgets[name], 1)

    for _ in range(count):
        least = min(budgets, key=share)
        if files and share(least) > 1:
            break
        taken[least] += 1
    placed = [name for name, layers in taken.items() for _ in range(layers)]
    return (*placed, *[FILES] * (count - len(placed)))


class Shelf(Mapping):
    """The tensors of decoder layers that stay in the files, by name; read each time, the next layer ahead of its turn.

    A thread reads a layer while the one before it computes, the first after the last, so that two are in memory at
    most; what goes wrong there is raised where the tensor is asked for. pinned: where a GPU fetches them without help.
    """

    def __init__(self, model: Sa2VA, source, dtype: torch.dtype, *, layers: Iterable[int], pinned: bool):
        self._source, self._dtype, self._names, self._pinned = source, dtype, model.config.names, pinned
        self._parts: dict[int, dict] = {layer: {} for layer in layers}
        for name, parts in match_parts(model, source).items():
            if (layer := layer_of(name)) in self._parts:
                self._parts[layer][name] = parts
        self._next = dict(zip(self._parts, [*self._parts][1:] + [*self._parts][:1], strict=True))
        self._thread, self._reading = ThreadPoolExecutor(1, "layers"), {}

    def __getitem__(self, name: str) -> Tensor:
        layer = layer_of(name)
        if layer not in self._parts:
            raise KeyError(name)
        wanted = dict.fromkeys((layer, self._next[layer]))
        self._reading = {one: self._reading.get(one) or self._thread.submit(self._read, one) for one in wanted}
        try:
            return self._reading[layer].result()[name]
        except Exception:
            self._reading.clear()  # the next image tries again
            raise

    def _read(self, layer: int) -> dict[str, Tensor]:
        return {name: self._make(parts) for name, parts in self._parts[layer].items()}

    def _make(self, parts: list) -> Tensor:
        tensor = self._names.assemble(self._source.tensor, parts).to(self._dtype)
        if self._pinned:
            return tensor.pin_memory()
        tensor.reshape(-1).view(torch.uint8)[::PAGE].sum()  # a view of the file comes into memory by being looked at
        return tensor

    def __iter__(self) -> Iterator[str]:
        return (name for parts in self._parts.values() for name in parts)

    def __len__(self) -> int:
        return sum(map(len, self._parts.values()))


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
