"""The devices of this machine: which to take, what they compute best, how much they hold free."""

from __future__ import annotations

import os
import re
from importlib.util import find_spec

import psutil
import torch

from sa2va_lab.errors import LabError

QUANTISED = ("int8", "nf4")
MIB = 1 << 20
# Large tensors on a processor in pages of 2 MiB, where Linux gives them: a fifth less time an image of the demo, and no
# more memory. torch reads it once, at the first such tensor.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def choose_device(asked: str = "auto") -> tuple[str, str]:
    """The torch device and why. Raises LabError for a device that is not there."""
    if asked == "auto":
        if torch.cuda.is_available():
            return "cuda:0", f"cuda:0: {torch.cuda.get_device_name(0)} is there"
        return "cpu", "cpu: no CUDA device"
    if not re.fullmatch(r"cpu(:0)?|cuda(:\d{1,3})?", asked):
        raise LabError(f'No device is called {asked!r} here: use "auto", "cpu", "cuda" or "cuda:1".')
    if asked.startswith("cpu"):
        return "cpu", "as asked"
    number, found = int(asked[5:] or 0), torch.cuda.device_count() if torch.cuda.is_available() else 0
    if number >= found:
        raise LabError(f'Device {asked} was asked for, but {found} CUDA devices are visible: use "cpu" or "auto".')
    return f"cuda:{number}", "as asked"


def choose_precision(device: str) -> tuple[str, str]:
    """The precision in which a CUDA device of this machine computes best, and why."""
    major, minor = torch.cuda.get_device_capability(device)
    if major >= 8:
        return "bf16", f"bf16: compute capability {major}.{minor}"
    return "fp16", f"fp16: compute capability {major}.{minor} has no bf16"


def can_quantise(precision: str, *, device: str) -> bool:
    """Whether what is installed can make this precision; int8 on a CPU is our own, the rest is bitsandbytes'."""
    own = precision not in QUANTISED or (precision == "int8" and device == "cpu")
    return own or find_spec("bitsandbytes") is not None


def is_int8_faster() -> bool:
    """Whether this CPU multiplies int8 faster than bf16: with VNNI (6.5 against 9.9 s for the 8 B model's answer), not
    with AMX (83 against 61 ms for one of its matrices and 320 rows, one thread)."""
    known = torch.cpu.get_capabilities()
    return bool(known.get("avx512_vnni")) and not known.get("amx_bf16")


def as_dtype(precision: str) -> torch.dtype:
    """The torch dtype of a precision; what is not quantised in int8 and nf4 stays bf16."""
    return {"fp32": torch.float32, "fp16": torch.float16}.get(precision, torch.bfloat16)


def is_here(device: str) -> bool:
    """Whether a GPU of that name can be one of this machine."""
    return device.startswith("cuda") and torch.cuda.is_available()


def find_budgets(gpus: int | None = None) -> dict[str, int]:
    """Free bytes of each visible device of this machine, the CPU last; 10 % of the host's memory is left alone.

    gpus: the first so many, all if not given; CUDA_VISIBLE_DEVICES says which those are. Raises LabError where there
    are fewer.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus is not None and not 0 < gpus <= count:
        raise LabError(
            f"gpus is {gpus}, and {count} CUDA devices are visible: ask for 1 to that many, or leave gpus out "
            "(CUDA_VISIBLE_DEVICES says which are visible)."
        )
    found = {f"cuda:{number}": torch.cuda.mem_get_info(number)[0] for number in range(count if gpus is None else gpus)}
    return found | {"cpu": int(0.9 * psutil.virtual_memory().available)}


def parse_size(text: str) -> int:
    """Bytes of "24GiB", "24 GB" or "512MiB". Raises LabError for anything else."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT])(i?)B?\s*", str(text), re.IGNORECASE)
    if not match:
        raise LabError(f"{text!r} is not a size: write it as 24GiB or 512MiB.")
    return int(float(match[1]) * (1024 if match[3] else 1000) ** ("KMGT".index(match[2].upper()) + 1))
