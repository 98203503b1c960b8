"""A base and its fine-tune written as one official-form folder; without a fine-tune, the base at another precision."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from sa2va_lab.errors import LabError
from sa2va_lab.files import write_json
from sa2va_lab.loading.checkpoint import Checkpoint
from sa2va_lab.loading.devices import as_dtype
from sa2va_lab.loading.whole import open_whole
from sa2va_lab.sa2va.files import PROCESSOR_FILES
from sa2va_lab.sa2va.processing import PromptReader
from sa2va_lab.sa2va.weights import build_empty, copy_files, match_parts, write_folder

TORCH_NAMES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
RECORD = "merged_from.json"


def merge(
    base: Path | str,
    out: Path | str,
    *,
    sam2: Path | str | None = None,
    finetune: Path | str | None = None,
    config: Path | str | None = None,
    lora_alpha: float | None = None,
    precision: str = "bf16",
    shard_bytes: int = 4 << 30,
    progress: Callable[[Iterable], Iterable] = iter,
) -> dict:
    """Writes the checkpoint that `load(base, sam2=..., finetune=...)` would run into the new folder `out`.

    LoRA is added in float32 and rounded once, to `precision` ("fp32", "bf16", "fp16"). One shard of at most
    `shard_bytes` is in memory at a time. `merged_from.json` beside the weights says what went in. Returns
    {"folder", "bytes", "tensors", "lora_layers", "checked", "largest_difference", "allowed"}: the last three are
    `check_merge`'s. Raises LabError for weights that do not make a complete Sa2VA, a disk that is too full, a folder
    that is not empty, and a merge that does not hold; then nothing is left behind.
    """
    base, out = Path(base).expanduser(), Path(out).expanduser()
    if precision not in TORCH_NAMES:
        raise LabError(f"Precision {precision!r} cannot be written: use {', '.join(TORCH_NAMES)}.")
    dtype = as_dtype(precision)
    opened = open_whole(base, sam2=sam2, finetune=finetune, config=config, lora_alpha=lora_alpha)
    match_parts(build_empty(opened.sizes), opened)
    bytes_of = {name: opened.tensors[name].parameters * dtype.itemsize for name in opened.names()}
    with TemporaryDirectory() as own:
        if opened.added_tokens:
            PromptReader(opened.folder, opened.sizes, added=opened.added_tokens).tokenizer.save_pretrained(own)
            copy_files(PROCESSOR_FILES, opened.folder, Path(own))
        write_folder(
            out,
            lambda name: opened.tensor(name).to(dtype),
            bytes_of,
            config=opened.raw | {"torch_dtype": TORCH_NAMES[precision]},
            tokenizer=own if opened.added_tokens else opened.folder,
            shard_bytes=shard_bytes,
            progress=progress,
        )
    record = {"base": opened.name, "base_sha256": opened.base.identity, "sam2": opened.describe_sam2()}
    write_json(out / RECORD, record | {"finetune": opened.describe_finetune(), "precision": precision})
    pairs = opened.tuned.pairs if opened.tuned else {}
    said = {"folder": str(out), "bytes": sum(bytes_of.values()), "tensors": len(bytes_of), "lora_layers": len(pairs)}
    try:
        return said | check_merge(out, opened, dtype=dtype)
    except LabError:
        shutil.rmtree(out)
        raise


def check_merge(folder: Path | str, source: Checkpoint, *, dtype: torch.dtype) -> dict:
    """Reads layers of a written folder back and compares them with base + scale B A, worked out in float64.

    Three are read, from the first to the last that has LoRA (of all tensors, where there is none). The largest
    difference may be the rounding of the layer's largest value to `dtype`, plus float32's own over the sum.
    Returns {"checked": names, "largest_difference", "allowed"}; LabError where the difference is larger, or a tensor is
    not there.
    """
    written, pairs = Checkpoint(folder), source.tuned.pairs if source.tuned else {}
    if written.names() != source.names():
        raise LabError(f"{folder} does not hold the tensors that were to be written: merge again.")
    names = sorted(pairs) or source.names()
    checked = list(dict.fromkeys((names[0], names[(len(names) - 1) // 2], names[-1])))
    worst, allowed = 0.0, 0.0
    for name in checked:
        if name in pairs:
            a, b = (pairs[name][half].read().double() for half in "AB")
            wanted = source.under[name].read().double() + source.scale * (b @ a)
        else:
            wanted = source.tensor(name).double()
        found = written.tensor(name).double()
        room = (torch.finfo(dtype).eps + 8 * torch.finfo(torch.float32).eps) * float(wanted.abs().max())
        gap = float((found - wanted).abs().max()) if found.shape == wanted.shape else math.inf
        if not gap <= room:
            raise LabError(
                f"{name} in {folder} differs by {gap:.3g} from base + scale B A, more than rounding explains "
                f"({room:.3g}): merge again, on another disk if it happens twice."
            )
        if gap >= worst:
            worst, allowed = gap, room
    return {"checked": checked, "largest_difference": worst, "allowed": allowed}
