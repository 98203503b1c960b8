"""What a weights file says about its tensors, read without torch and without their data; nothing in it can run.

safetensors: the JSON header. A .pth: the pickle inside the zip, read by an unpickler that knows a short list of names
and builds nothing but descriptions. Whatever a file claims is held against its real size before it is believed.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import pickle
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from sa2va_lab.errors import LabError

LARGEST_HEADER = 8 << 20  # bytes; the whole 8 B folder has 0.2 MB
LARGEST_PICKLE = 128 << 20  # bytes of a .pth that are not tensors: logs of a long training are some MB
MOST_STEPS = 1_000_000  # of a pickle, each one object at most; the 1,589 tensors of the 8 B model take 88,631
LARGEST_NUMBER = 1 << 63
MOST_ENTRIES = 200_000  # files in one .pth
BITS = {
    "fp64": 64, "fp32": 32, "bf16": 16, "fp16": 16, "fp8": 8, "int64": 64, "int32": 32, "int16": 16, "int8": 8,
    "uint64": 64, "uint32": 32, "uint16": 16, "uint8": 8, "bool": 8,
}  # fmt: skip
_SAFETENSORS_TYPES = {
    "F64": "fp64", "F32": "fp32", "BF16": "bf16", "F16": "fp16", "F8_E4M3": "fp8", "F8_E5M2": "fp8", "I64": "int64",
    "I32": "int32", "I16": "int16", "I8": "int8", "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8",
    "BOOL": "bool",
}  # fmt: skip
_TORCH_TYPES = {
    "double": "fp64", "float": "fp32", "bfloat16": "bf16", "half": "fp16", "long": "int64", "int": "int32",
    "short": "int16", "char": "int8", "byte": "uint8", "bool": "bool",
    "float64": "fp64", "float32": "fp32", "float16": "fp16", "int64": "int64", "int32": "int32", "int16": "int16",
    "int8": "int8", "uint8": "uint8", "float8_e4m3fn": "fp8", "float8_e5m2": "fp8",
}  # fmt: skip
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


@dataclass(frozen=True, slots=True)
class TensorHeader:
    """One tensor as its file describes it. shape: lengths; dtype: "fp32", "bf16", ...; file: where it lies."""

    shape: tuple[int, ...]
    dtype: str
    file: str = ""

    @property
    def parameters(self) -> int:
        """How many numbers."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Bytes of data."""
        return self.parameters * BITS[self.dtype] // 8


class Inert:
    """Stands in for whatever a training framework keeps beside the weights; takes anything, does nothing."""

    def __new__(cls, *given, **named):
        return super().__new__(cls)

    def __init__(self, *given, **named):
        pass

    def __setstate__(self, state):
        pass


def read_safetensors(path: Path) -> tuple[dict[str, TensorHeader], str]:
    """({name: header}, sha256 of the file's header). LabError for a file that is damaged, cut short or absurd."""
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(LARGEST_HEADER, size - 8):
                raise ValueError(f"a header of {length:,} bytes in a file of {size:,}")
            raw = file.read(length)
        return _parse_safetensors(raw, size - 8 - length, file=path.name), hashlib.sha256(raw).hexdigest()
    except OSError as error:
        raise LabError(f"{path} cannot be read ({error.strerror or error}): check the path.") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        said = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise LabError(f"{path} is damaged or cut short ({said}): download this file again.") from None


def _parse_safetensors(raw: bytes, room: int, *, file: str) -> dict[str, TensorHeader]:
    """The tensors of a header; `room` bytes of data follow it, all of which the tensors must cover."""
    content = json.loads(raw.decode("utf-8"))
    content.pop("__metadata__", None)
    found, spans = {}, []
    for name, about in content.items():
        if not name.isprintable():
            raise ValueError(f"a tensor called {name[:40]!a}")
        start, end = about["data_offsets"]
        header = TensorHeader(check_shape(about["shape"], name), _SAFETENSORS_TYPES[about["dtype"]], file)
        if header.bytes != end - start:
            raise ValueError(f"{name} takes {header.bytes:,} bytes and was given {end - start:,}")
        found[name] = header
        spans.append((start, end))
    place = 0
    for start, end in sorted(spans):
        if start != place:
            raise ValueError(f"tensors overlap or leave a gap at byte {place:,}")
        place = end
    if place != room:
        raise ValueError(f"its tensors need {place:,} bytes of data and {room:,} are there")
    return found


def check_shape(shape: object, name: str) -> tuple[int, ...]:
    """`shape` as a tuple. ValueError, which does not print it, for anything but whole numbers from 0, 16 at most."""
    sound = isinstance(shape, list | tuple) and len(shape) <= 16
    if not (sound and all(type(n) is int and 0 <= n < LARGEST_NUMBER for n in shape)):
        raise ValueError(f"{name} has a shape that is none")
    return tuple(shape)


def read_pth(path: Path) -> tuple[object, str]:
    """(what a .pth holds, with a TensorHeader in the place of each tensor; sha256 of all but the tensors' data).

    The digest covers the zip's own checksums, so it changes with the weights as well. LabError for a file that is
    damaged, or that asks for anything beyond a checkpoint's ordinary contents: it is named, and nothing ran.
    """
    if not path.is_file():
        raise LabError(f"No fine-tune at {path}: give the iter_*.pth file that the training wrote.")
    try:
        with open(path, "rb") as file:
            if not is_zip(path):
                return _read_legacy(file, size=path.stat().st_size)
            with zipfile.ZipFile(file) as archive:
                return _read_zip(archive, size=path.stat().st_size)
    except LabError as error:
        raise LabError(f"{path} {error}") from None
    except Exception as error:  # a damaged pickle fails wherever the damage happens to be
        said = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise LabError(f"{path} is damaged or cut short ({said}): copy the file again from its source.") from None


def is_zip(path: Path) -> bool:
    """Whether torch takes a file for a zip: by its first bytes, where Python's own zipfile looks at the last."""
    with open(path, "rb") as file:
        return file.read(4) == b"PK\3\4"


def _read_zip(archive: zipfile.ZipFile, *, size: int) -> tuple[object, str]:
    entries = archive.infolist()
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
    room = {e.filename.removeprefix(f"{folder}data/"): e.file_size for e in entries}
    raw = archive.read(pickles[0])
    digest = hashlib.sha256(raw)
    digest.update(json.dumps([(e.filename, e.file_size, e.CRC) for e in entries]).encode())
    return _Reader(_Metered(raw), room=room).load(), digest.hexdigest()


def _read_legacy(file, *, size: int) -> tuple[object, str]:
    """torch's form before 1.6: pickles one after another, then the data."""
    raw = file.read(LARGEST_PICKLE)
    stream = _Metered(raw)
    if _Reader(stream, room={}).load() != 0x1950A86A20F9469CFC6C:
        raise LabError("is no checkpoint of torch: give the .pth that the training wrote.")
    for _ in range(2):  # protocol, machine
        _Reader(stream, room={}).load()
    content = _Reader(stream, room={}, spare=size).load()
    return content, hashlib.sha256(raw[: stream.tell()]).hexdigest()


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
    dtype: str | None
    room: int


@dataclass(frozen=True)
class _Type:
    name: str | None


class _Reader(pickle._Unpickler):
    """Builds descriptions only. The Python class, as its memo is a dict: the C one's can be made to fill memory."""

    dispatch = {
        code: read
        for code, read in pickle._Unpickler.dispatch.items()
        if code not in {ord(op) for op in "\x82\x83\x84\x8f\x90\x91\x95\x96\x97\x98i"}
    }  # without copyreg's numbers, sets, frames, bytearrays of any length, outside buffers and INST: torch writes none

    def __init__(self, file, *, room: dict[str, int], spare: int = 0):
        """room: bytes of each storage; spare: bytes for storages that it does not name."""
        super().__init__(file)
        self.room, self.spare = room, spare

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
        full = f"{module}.{name}"[:200]
        if full == "collections.OrderedDict":
            return lambda pairs=(): OrderedDict(_pair(*zip(*pairs, strict=True))) if pairs else OrderedDict()
        if module == "torch._utils" and name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3"):
            return _rebuild
        if module == "torch._utils" and name in ("_rebuild_parameter", "_rebuild_parameter_with_state"):
            return _first
        if full == "torch.Size":
            return tuple
        if full in ("torch.storage.UntypedStorage", "torch.storage.TypedStorage"):
            return _Type(None)
        if module == "torch" and name.removesuffix("Storage").lower() in _TORCH_TYPES:
            return _Type(_TORCH_TYPES[name.removesuffix("Storage").lower()])
        if full in KNOWN or full in ("torch.device", "torch.serialization._get_layout", "builtins.set"):
            return Inert
        raise LabError(
            f"asks to run {full}, which no list of weights needs: it was refused and nothing ran. Do not use this file."
        )

    def persistent_load(self, key):
        kind, about, place, _, count = key[:5]
        told = kind == "storage" and isinstance(about, _Type) and type(place) is str and type(count) is int
        if not told or not 0 <= count < LARGEST_NUMBER:
            raise ValueError("a storage that is none")
        needed = count * BITS.get(about.name, 8) // 8
        if place not in self.room:
            self.spare, self.room[place] = self.spare - needed, needed
        if self.spare < 0 or needed > self.room[place]:
            raise ValueError(f"{needed:,} bytes of numbers that are not in the file")
        return _Storage(about.name, self.room[place])


def _pair(keys, values) -> dict:
    """A dict whose keys are texts and numbers: to hash a tuple within tuples may take longer than the world lasts."""
    if not all(type(key) in (str, bytes, int, float, bool, type(None)) for key in keys):
        raise ValueError("a key that is neither text nor number")
    return dict(zip(keys, values, strict=True))


def _first(*given):
    return given[0]


def _rebuild(storage, offset, shape, stride, *rest) -> TensorHeader:
    """A tensor's description; ValueError where it would reach beyond its storage or share one place among values."""
    stated = [item.name for item in rest if isinstance(item, _Type)]
    dtype = storage.dtype or (stated[0] if stated else None)
    shape, stride = check_shape(shape, "a tensor"), check_shape(stride, "a tensor's stride")
    if dtype is None or type(offset) is not int or not 0 <= offset < LARGEST_NUMBER or len(shape) != len(stride):
        raise ValueError("a tensor that is none")
    header = TensorHeader(shape, dtype)
    last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True)) + 1 if header.parameters else 0
    needed = max(last * BITS[dtype] // 8, header.bytes)
    if needed > storage.room:
        raise ValueError(f"a tensor of {needed:,} bytes in {storage.room:,} bytes of data")
    return header
