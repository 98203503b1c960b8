"""A .pth of torch, read without running anything in it: descriptions without torch, tensors when they are asked for.

The pickle inside the zip is read by an unpickler that knows a short list of names and builds nothing but descriptions;
tensors are views of the mapped file. Whatever a file claims is held against its real size before it is believed.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import mmap
import pickle
import sys
import zipfile
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from sa2va_lab.errors import LabError
from sa2va_lab.loading.tensors import BITS, DTYPES, LARGEST_NUMBER, LazyTensor, check_shape, damaged

if TYPE_CHECKING:
    from torch import Tensor

LARGEST_PICKLE = 128 << 20  # bytes of a .pth that are not tensors: logs of a long training are some MB
MOST_STEPS = 1_000_000  # of a pickle, each one object at most; the 1,589 tensors of the 8 B model take 88,631
MOST_ENTRIES = 200_000  # files in one .pth
# What mmengine and DeepSpeed keep beside the weights, and what numpy and pickle need to describe it; no other opens.
KNOWN = (
    "deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler",
    "deepspeed.runtime.fp16.loss_scaler.LossScaler",
    "deepspeed.runtime.zero.config.ZeroStageEnum",
    "deepspeed.utils.tensor_fragment.fragment_address",
    "mmengine.config.config.ConfigDict",
    "mmengine.logging.history_buffer.HistoryBuffer",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "numpy.ndarray",
    "numpy.dtype",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "builtins.getattr",
    "__builtin__.getattr",
    "_codecs.encode",
)


class Inert:
    """Stands in for whatever a training framework keeps beside the weights; takes anything, does nothing."""

    def __init__(self, *given, **named):
        pass


def read_pth(path: Path) -> tuple[object, str]:
    """(what a .pth holds, with a LazyTensor in the place of each tensor; sha256 of all but the tensors' data).

    The digest covers the zip's own checksums, so it changes with the weights as well. LabError for a file that is
    damaged, or that asks for anything beyond a checkpoint's ordinary contents: it is named, and nothing ran.
    """
    if not path.is_file():
        raise LabError(f"No fine-tune at {path}: give the iter_*.pth file that the training wrote.")
    try:
        with open(path, "rb") as file:
            if file.read(4) != b"PK\3\4":  # as torch tells, where Python's own zipfile looks at the last bytes
                raise LabError("is no zip file, as torch has written since 1.6: give the .pth that the training wrote.")
        with zipfile.ZipFile(path) as archive:
            return _read_zip(archive, path)
    except LabError as error:
        raise LabError(f"{path} {error}") from None
    except Exception as error:  # a damaged pickle fails wherever the damage happens to be
        raise damaged(path, error) from None


class _Data:
    """The bytes of a file, mapped when the first tensor is asked for. places: where each storage begins and how many
    bytes it has."""

    def __init__(self, path: Path, places: dict[str, tuple[int, int]]):
        self.path, self.places = path, places

    @cached_property
    def mapped(self) -> mmap.mmap:
        with open(self.path, "rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)  # torch asks for memory that can be written

    def read(self, key: str, dtype: str, offset: int, shape: tuple, stride: tuple) -> Tensor:
        """A tensor of a storage: a view of the file."""
        import torch

        kind = getattr(torch, DTYPES[dtype][2])
        start, room = self.places[key]
        count = room // kind.itemsize
        if not math.prod(shape) or not count:
            return torch.empty(shape, dtype=kind)
        try:
            whole = torch.frombuffer(self.mapped, dtype=kind, count=count, offset=start)
            return whole.as_strided(shape, stride, offset)
        except (ValueError, RuntimeError, OSError) as error:
            raise damaged(self.path, error) from None


def _read_zip(archive: zipfile.ZipFile, path: Path) -> tuple[object, str]:
    entries, size = archive.infolist(), path.stat().st_size
    pickles = [entry for entry in entries if entry.filename.split("/")[1:] == ["data.pkl"]]
    if len(pickles) != 1 or len(entries) > MOST_ENTRIES:
        raise LabError("is a zip file, but not one that torch wrote: give the .pth that the training wrote.")
    packed = [entry for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
    if packed:
        raise LabError(
            f"holds compressed data ({packed[0].filename}), which torch never writes: it was refused unopened."
        )
    if pickles[0].file_size > LARGEST_PICKLE:
        raise LabError(f"holds {pickles[0].file_size:,} bytes beside its tensors: that is no checkpoint of a training.")
    if sum(entry.file_size for entry in entries) > size:
        raise LabError(f"declares more data than its {size:,} bytes: it is cut short, or made to deceive.")
    folder = pickles[0].filename.removesuffix("data.pkl")
    order = {entry.filename: entry for entry in entries}.get(f"{folder}byteorder")
    if order and archive.read(order) != sys.byteorder.encode():
        raise LabError("was written on a machine with another order of bytes: save it again on one like this.")
    places = {e.filename.removeprefix(f"{folder}data/"): (_find_start(archive.fp, e), e.file_size) for e in entries}
    raw = archive.read(pickles[0])
    digest = hashlib.sha256(raw)
    digest.update(json.dumps([(e.filename, e.file_size, e.CRC) for e in entries]).encode())
    return _Reader(_Metered(raw), _Data(path, places)).load(), digest.hexdigest()


def _find_start(file, entry: zipfile.ZipInfo) -> int:
    """Where an entry's data begins: behind its own header, whose last four bytes say how long name and extras are."""
    file.seek(entry.header_offset)
    header = file.read(30)
    return entry.header_offset + 30 + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:], "little")


class _Metered(io.BytesIO):
    """A pickle that can be read in so many steps only: a byte may ask for an object that takes a hundred."""

    steps = 0

    def read(self, size=-1):
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise ValueError(f"more than {MOST_STEPS:,} steps to read it")
        return super().read(size)


@dataclass(frozen=True)
class _Storage:
    data: _Data
    key: str
    dtype: str | None


class _Reader(pickle._Unpickler):
    """Builds descriptions only. The Python class, as its memo is a dict: the C one's can be made to fill memory."""

    dispatch = {
        code: read
        for code, read in pickle._Unpickler.dispatch.items()
        if code not in {ord(op) for op in "\x82\x83\x84\x8f\x90\x91\x95\x96\x97\x98i"}
    }  # without copyreg's numbers, sets, frames, bytearrays of any length, outside buffers and INST: torch writes none

    def __init__(self, file, data: _Data):
        super().__init__(file)
        self.data = data

    def load_build(self):
        """State is dropped: it could change what the reader itself is made of."""
        self.stack.pop()

    def load_setitems(self):
        items = self.pop_mark()
        self.stack[-1].update(_pair(items[::2], items[1::2]))

    def load_setitem(self):
        value, key = self.stack.pop(), self.stack.pop()
        self.stack[-1].update(_pair([key], [value]))

    dispatch |= {pickle.BUILD[0]: load_build, pickle.SETITEMS[0]: load_setitems, pickle.SETITEM[0]: load_setitem}

    def find_class(self, module: str, name: str):
        full = f"{module}.{name}"
        if full not in BUILT:
            raise LabError(
                f"asks to run {full[:200]}, which no list of weights needs: it was refused and nothing ran. Do not use "
                "this file."
            )
        return BUILT[full]

    def persistent_load(self, key):
        kind, about, place, _, count = key
        told = kind == "storage" and about in (None, *DTYPES) and type(place) is str and type(count) is int
        if not told or not 0 <= count < LARGEST_NUMBER:
            raise ValueError("a storage that is not valid")
        needed = count * BITS.get(about, 8) // 8
        if needed > self.data.places.get(place, (0, -1))[1]:
            raise ValueError(f"{needed:,} bytes of numbers that are not in the file")
        return _Storage(self.data, place, about)


def _pair(keys, values) -> dict:
    """A dict whose keys are texts and numbers: to hash a tuple within tuples may take longer than the world lasts."""
    if not all(type(key) in (str, bytes, int, float, bool, type(None)) for key in keys):
        raise ValueError("a key that is neither text nor number")
    return dict(zip(keys, values, strict=True))


def _rebuild(storage, offset, shape, stride, *rest) -> LazyTensor:
    """A tensor's description; ValueError where it would reach beyond its storage or share one place among values."""
    dtype = storage.dtype or next((item for item in rest if type(item) is str and item in DTYPES), None)
    shape, stride = check_shape(shape, "a tensor"), check_shape(stride, "a tensor's stride")
    if dtype is None or type(offset) is not int or not 0 <= offset < LARGEST_NUMBER or len(shape) != len(stride):
        raise ValueError("not a valid tensor")
    made = LazyTensor(shape, dtype, partial(storage.data.read, storage.key, dtype, offset, shape, stride))
    last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True)) + 1 if made.parameters else 0
    needed, room = max(last * BITS[dtype] // 8, made.bytes), storage.data.places[storage.key][1]
    if needed > room:
        raise ValueError(f"a tensor of {needed:,} bytes in {room:,} bytes of data")
    return made


_STORAGES = {"Double": "fp64", "Float": "fp32", "BFloat16": "bf16", "Half": "fp16", "Bool": "bool", "Byte": "uint8"}
_STORAGES |= {"Long": "int64", "Int": "int32", "Short": "int16", "Char": "int8"}
BUILT = {  # all that a pickle may name, and what is built in its place; a type is our name of its numbers
    **dict.fromkeys((*KNOWN, "torch.device", "torch.serialization._get_layout", "builtins.set"), Inert),
    **{f"torch.{row[2]}": name for name, row in DTYPES.items()},
    **{f"torch.{name}Storage": ours for name, ours in _STORAGES.items()},
    **dict.fromkeys(("torch.storage.UntypedStorage", "torch.storage.TypedStorage")),  # whose tensors say their type
    **{f"torch._utils._rebuild_tensor{version}": _rebuild for version in ("", "_v2", "_v3")},
    **{f"torch._utils._rebuild_parameter{state}": lambda tensor, *_: tensor for state in ("", "_with_state")},
    "torch.Size": tuple,
    "collections.OrderedDict": lambda pairs=(): _pair(*zip(*pairs, strict=True)) if pairs else {},
}
