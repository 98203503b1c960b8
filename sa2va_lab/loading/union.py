"""Inventories put together: what an InternVL, a SAM2 and a fine-tune make, with the origin of each part."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from sa2va_lab.errors import LabError
from sa2va_lab.loading.parts import Missing, describe_language, find_missing, group_parts, part_of, place_sam2

if TYPE_CHECKING:
    from sa2va_lab.loading.inventory import Inventory


def add_sam2(base: Inventory, sam2: Inventory) -> Inventory:
    """A bare vision-language model and a SAM2, side by side."""
    if base.part("sam2_encoder").tensors:
        raise LabError(f"{base.path} has its own SAM2: leave {sam2.path} out.")
    if sam2.kind != "sam2":
        raise LabError(f"{sam2.path} is no SAM2 but {sam2.kind}: give Meta's sam2_hiera_large.pt, or its folder.")
    added = {}
    for official, (stored, row) in place_sam2(sam2.tensors, str(sam2.path)).items():
        header = sam2.tensors[stored]
        added[official] = header if row is None else replace(header, shape=(1, *header.shape[1:]))
    tensors = base.tensors | added
    origins = dict.fromkeys(base.tensors, (base.path.resolve().name,)) | dict.fromkeys(added, (sam2.path.name,))
    parts = group_parts(tensors, origins)
    kept = tuple(m for m in base.missing if {"config.json", "tokenizer"} & set(m.parts))
    return replace(
        base,
        tensors=tensors,
        parts=parts,
        missing=find_missing(tensors, parts, base.config) + kept,
        sha256=_digest_both(base, sam2),
    )


def _digest_both(one: Inventory, other: Inventory) -> dict:
    """One digest of two; of the content, where both have it."""
    pairs = {key: (one.sha256[key], other.sha256[key]) for key in ("headers", "content")}
    return {
        key: hashlib.sha256("\0".join(pair).encode()).hexdigest() if all(pair) else None for key, pair in pairs.items()
    }


def lay_over(base: Inventory, tuned: Inventory) -> Inventory:
    """The model that a base and a fine-tune make: LoRA goes into the base, whole tensors take their place."""
    whole = {name: header for name, header in tuned.tensors.items() if not re.search(r"\.lora_[AB]\.", name)}
    tensors = base.tensors | whole
    own = (tuned.path.name,)
    origins = {name: part.origin for part in base.parts for name in base.tensors if part_of(name) == part.name}
    for name in tuned.tensors.keys() - whole.keys():
        module = re.sub(r"\.lora_[AB]\.weight$", ".weight", name)
        origins[module] = (*origins.get(module, ()), *own)
    parts = group_parts(tensors, origins | dict.fromkeys(whole, own))
    shapes = [n for n, h in whole.items() if n in base.tensors and base.tensors[n].shape != h.shape]
    if base.kind == "base":  # a Sa2VA's vocabulary is longer than that of the InternVL which it began with
        shapes = [n for n in shapes if base.tensors[n].shape[1:] != whole[n].shape[1:] or len(whole[n].shape) != 2]
    missing = find_missing(tensors, parts, base.config)
    missing += tuple(m for m in base.missing if {"config.json", "tokenizer"} & set(m.parts))
    if shapes:
        missing += (Missing(tuple(shapes[:5]), "the shape differs: trained on another model than this base"),)
    if tuned.lora and not tuned.lora["scale"]:
        missing += (Missing(("LoRA's alpha",), "the training config (--config), or --lora-alpha"),)
    return replace(
        base,
        kind="sa2va",
        language=describe_language(tensors, base.config),
        tensors=tensors,
        parts=parts,
        lora=tuned.lora,
        duplicates=tuned.duplicates,
        missing=missing,
        sha256=_digest_both(base, tuned),
        note=tuned.note,
    )
