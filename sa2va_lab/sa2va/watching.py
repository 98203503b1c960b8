"""What a network's work takes, and where it leaves its memory or the range of its numbers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

from sa2va_lab.errors import LabError


class Overflow(LabError):
    """The network's numbers left the range of their format."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the host."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    said = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in said or "can't allocate memory" in said)


@contextmanager
def watch_overflow(network: nn.Module) -> Iterator[list[str]]:
    """Within it, the list gets the name of the first module that gave what is not finite."""
    found: list[str] = []

    def look(name: str):
        def hook(module, given, out) -> None:
            first = out[0] if isinstance(out, tuple) else getattr(out, "last_hidden_state", out)
            if not found and isinstance(first, Tensor) and not torch.isfinite(first).all():
                found.append(name)

        return hook

    handles = [module.register_forward_hook(look(name)) for name, module in network.named_modules()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def in_full(dtype: torch.dtype) -> Iterator[None]:
    """fp32 means fp32: left alone, cuDNN rounds what convolutions take to TF32, which moves logits by 2.5e-2 (H100)."""
    products = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [product.allow_tf32 for product in products]
    for product, allowed in zip(products, before, strict=True):
        product.allow_tf32 = allowed and dtype != torch.float32
    try:
        yield
    finally:
        for product, allowed in zip(products, before, strict=True):
            product.allow_tf32 = allowed


_LISTENER: ContextVar[Callable[[str], None]] = ContextVar("listener", default=lambda stage: None)


@contextmanager
def hear_stages(tell: Callable[[str], None]) -> Iterator[None]:
    """Within it, `tell` is called with the name of each stage as it begins."""
    before = _LISTENER.set(tell)
    try:
        yield
    finally:
        _LISTENER.reset(before)


@contextmanager
def timed(device: torch.device, seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Writes down how long the stage took, until the device was done with it."""
    _LISTENER.get()(stage)
    start = time.perf_counter()
    yield
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    seconds[stage] = time.perf_counter() - start


def watch_memory(network: nn.Module) -> Callable[[], int | None]:
    """Ask it for the most memory of accelerators that was held since now, in bytes; None without one."""
    if not torch.cuda.is_initialized():
        return lambda: None
    cards = {tensor.device for tensor in network.parameters() if tensor.device.type == "cuda"}
    for card in cards:
        torch.cuda.reset_peak_memory_stats(card)
    return lambda: sum(map(torch.cuda.max_memory_allocated, cards)) or None
