"""Which device and which precision, each with its reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sa2va_lab.errors import LabError

if TYPE_CHECKING:
    import torch

PRECISIONS = ("fp32", "bf16", "fp16")
GIB = 1 << 30


def choose_device(asked: str = "auto") -> tuple[str, str]:
    """The torch device and why. Raises LabError for a device that is not there."""
    import torch

    if asked == "auto":
        if torch.cuda.is_available():
            return "cuda:0", f"cuda:0: {torch.cuda.get_device_name(0)} is there"
        return "cpu", "cpu: no CUDA device"
    try:
        device = torch.device(asked)
    except RuntimeError:
        raise LabError(f'No device is called {asked!r}: use "auto", "cpu", "cuda" or "cuda:1".') from None
    if device.type == "cuda":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= found:
            raise LabError(f'Device {asked} was asked for, but {found} CUDA devices are visible: use "cpu" or "auto".')
        return f"cuda:{device.index or 0}", "as asked"
    if device.type != "cpu":
        raise LabError(f'Device {asked} is not supported here: use "auto", "cpu" or "cuda".')
    return "cpu", "as asked"


def choose_precision(asked: str = "auto", *, device: str, parameters: int) -> tuple[str, str]:
    """The precision of weights and arithmetic, and why; `parameters` is how many numbers have to be held."""
    if asked != "auto":
        if asked not in PRECISIONS:
            raise LabError(f"Precision {asked!r} is not available: use auto, {', '.join(PRECISIONS)}.")
        return asked, "as asked"
    if device.startswith("cuda"):
        import torch

        major, minor = torch.cuda.get_device_capability(device)
        if major >= 8:
            return "bf16", f"bf16: compute capability {major}.{minor}"
        return "fp16", f"fp16: compute capability {major}.{minor} has no bf16"
    import psutil

    need, free = parameters * 4, psutil.virtual_memory().available
    if need < 0.8 * free:
        return "fp32", f"fp32: on a CPU, {need / GIB:.2f} GiB of weights in {free / GIB:.1f} GiB of free memory"
    return "bf16", f"bf16: on a CPU, fp32 would take {need / GIB:.1f} GiB and {free / GIB:.1f} GiB of memory are free"


def as_dtype(precision: str) -> torch.dtype:
    """The torch dtype of a precision."""
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
