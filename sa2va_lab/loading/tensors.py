"""One tensor of a checkpoint, described without torch and read when it is asked for; files of safetensors."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from sa2va_lab.errors import LabError

if TYPE_CHECKING:
    from torch import Tensor

LARGEST_HEADER = 8 << 20  # bytes; the whole 8 B folder has 0.2 MB
LARGEST_NUMBER = 1 << 63
DTYPES = {  # our name: (bits, safetensors' name, torch's name)
    "fp64": (64, "F64", "float64"),
    "fp32": (32, "F32", "float32"),
    "bf16": (16, "BF16", "bfloat16"),
    "fp16": (16, "F16", "float16"),
    "fp8_e4m3": (8, "F8_E4M3", "float8_e4m3fn"),
    "fp8_e5m2": (8, "F8_E5M2", "float8_e5m2"),
    "bool": (8, "BOOL", "bool"),
}
DTYPES |= {f"int{bits}": (bits, f"I{bits}", f"int{bits}") for bits in (64, 32, 16, 8)}
DTYPES |= {f"uint{bits}": (bits, f"U{bits}", f"uint{bits}") for bits in (64, 32, 16, 8)}
BITS = {name: row[0] for name, row in DTYPES.items()}
_SAFETENSORS_TYPES = {row[1]: name for name, row in DTYPES.items()}


@dataclass(frozen=True, slots=True)
class LazyTensor:
    """One tensor as its file describes it; its numbers are read when they are asked for.

    shape: lengths; dtype: "fp32", "bf16", ...; read: makes it, on the CPU and as stored; origin: the files that it
    comes from; mapped: whether it is a view of a checkpoint's mapped file, which needs no memory of its own; merged:
    whether it is worked out from a base and LoRA.
    """

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], Tensor] | None = field(default=None, compare=False, repr=False)
    origin: tuple[str, ...] = field(default=(), compare=False)
    mapped: bool = field(default=False, compare=False)
    merged: bool = field(default=False, compare=False)

    @property
    def parameters(self) -> int:
        """How many numbers."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Bytes of data."""
        return self.parameters * BITS[self.dtype] // 8


class Shard:
    """One safetensors file. tensors: {name: LazyTensor}.

    Raises LabError for a file that is damaged, cut short or absurd.
    """

    def __init__(self, path: Path, *, origin: str):
        self.path = path
        try:
            self._size = _check_header(path)
            with safe_open(path, framework="np") as opened:
                slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118  (it is no dict)
                self.tensors = {
                    name: describe(name, about.get_shape(), about.get_dtype(), origin, partial(self._read, name))
                    for name, about in slices.items()
                }
        except OSError as error:
            raise LabError(f"{path} cannot be read ({error.strerror or error}): check the path.") from None
        except (SafetensorError, ValueError) as error:
            raise damaged(path, error) from None

    @cached_property
    def _opened(self):
        return safe_open(self.path, framework="pt", device="cpu")

    def _read(self, name: str) -> Tensor:
        try:
            if self.path.stat().st_size != self._size:  # to touch what a mapped file has lost would end the process
                raise LabError(f"{self.path} has changed since it was opened: load the model again.")
            return self._opened.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise LabError(f"{self.path} can no longer be read ({first_line(error)}): load the model again.") from None


def describe(name: str, shape: object, dtype: str, origin: str, read: Callable | None = None) -> LazyTensor:
    """A tensor of a safetensors file from its header's entry. ValueError for what cannot be one."""
    if not name.isprintable() or dtype not in _SAFETENSORS_TYPES:
        raise ValueError(f"a tensor called {name[:40]!a} of {dtype[:40]!a}")
    return LazyTensor(check_shape(shape, name), _SAFETENSORS_TYPES[dtype], read, (origin,), mapped=True)


def digest_headers(tensors: dict[str, LazyTensor]) -> str:
    """sha256 of what the headers say: names, dtypes and shapes. Other numbers in the same network have the same."""
    told = sorted((name, tensor.dtype, tensor.shape) for name, tensor in tensors.items())
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def _check_header(path: Path) -> int:
    """The file's bytes. ValueError where its header cannot be one."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > min(LARGEST_HEADER, size - 8):
        raise ValueError(f"a header of {length:,} bytes in a file of {size:,}")
    return size


def first_line(error: BaseException) -> str:
    """The first line of what an error says, of 200 letters at most; its name where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def damaged(path: Path, error: BaseException) -> LabError:
    """What is said of a file that cannot be read as what it is."""
    return LabError(f"{path} is damaged or cut short ({first_line(error)}): copy the file again from its source.")


def check_shape(shape: object, name: str) -> tuple[int, ...]:
    """`shape` as a tuple. ValueError, which does not print it, for anything but whole numbers from 0, 16 at most."""
    sound = isinstance(shape, list | tuple) and len(shape) <= 16
    if not (sound and all(type(n) is int and 0 <= n < LARGEST_NUMBER for n in shape)):
        raise ValueError(f"{name} has no valid shape")
    return tuple(shape)
