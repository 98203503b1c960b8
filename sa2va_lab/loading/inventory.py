"""What is in a checkpoint: tensors, parameters and bytes by part, what is stored twice, and what is missing.

Headers only: no weight is loaded and torch is not imported. `Inventory.tensors` holds every tensor's shape and dtype by
its official name, and `layer_bytes` the decoder layers, so that a planner can count and shard.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from sa2va_lab.errors import LabError
from sa2va_lab.loading.digests import digest_file, digest_files
from sa2va_lab.loading.headers import TensorHeader, read_pth, read_safetensors
from sa2va_lab.loading.hub import fetch_headers, is_hub_id
from sa2va_lab.loading.parts import (
    LAYER,
    TOKENIZERS,
    Missing,
    Part,
    describe_language,
    find_missing,
    find_state,
    group_parts,
    sort_trained,
    tell_family,
)
from sa2va_lab.loading.union import add_sam2, lay_over
from sa2va_lab.loading.zero import is_zero, read_zero
from sa2va_lab.sa2va.files import list_shards, read_json

if TYPE_CHECKING:
    from sa2va_lab.training.config import TrainingConfig


@dataclass(frozen=True)
class Inventory:
    """kind: sa2va, base (a vision-language model without SAM2), finetune or sam2; family: internvl, qwen-vl or unknown.

    tensors: {official name: header}; a LoRA tensor keeps `.lora_A` or `.lora_B` in its name. parts: those that are
    there, in the order of `PARTS`, then "lora" and "other". lora: {rank, targets, tensors, alpha, scale}, None without
    any. duplicates: what only repeats another module, in this file or in the base that it needs. language: one line on
    the language model. sha256: {"headers": ..., "content": None unless asked for}. note: what was read of a DeepSpeed
    folder.
    """

    path: Path
    kind: str
    family: str
    language: str
    tensors: dict[str, TensorHeader] = field(repr=False)
    parts: tuple[Part, ...]
    lora: dict | None
    duplicates: dict
    missing: tuple[Missing, ...]
    sha256: dict
    config: dict = field(default_factory=dict, repr=False)
    note: str = ""

    @property
    def complete(self) -> bool:
        """Whether all that inference needs is here."""
        return not self.missing

    @property
    def parameters(self) -> int:
        """Learnt numbers in all parts; a fixed buffer of SAM2 is not among them."""
        return sum(part.parameters for part in self.parts)

    @property
    def bytes(self) -> int:
        """Bytes of tensors, as stored."""
        return sum(part.bytes for part in self.parts)

    @property
    def layer_bytes(self) -> tuple[int, ...]:
        """Stored bytes of each decoder layer, in order."""
        found: dict[int, int] = {}
        for name, header in self.tensors.items():
            if (match := LAYER.fullmatch(name)) and "lora_" not in name:
                layer = int(match[1] or match[3])
                found[layer] = found.get(layer, 0) + header.bytes
        return tuple(found[layer] for layer in sorted(found))

    def part(self, name: str) -> Part:
        """The part of that name; one with nothing in it where there is none."""
        return next((part for part in self.parts if part.name == name), Part(name, 0, 0, 0, {}))

    def to_dict(self) -> dict:
        """Plain JSON values."""
        parts = [
            {"name": p.name, "tensors": p.tensors, "parameters": p.parameters, "bytes": p.bytes}
            | {"dtypes": p.dtypes, "origin": list(p.origin)}
            for p in self.parts
        ]
        return {
            "path": str(self.path),
            "kind": self.kind,
            "family": self.family,
            "language_model": self.language,
            "parameters": self.parameters,
            "bytes": self.bytes,
            "parts": parts,
            "lora": self.lora,
            "duplicates": self.duplicates,
            "complete": self.complete,
            "missing": [str(missing) for missing in self.missing],
            "sha256": self.sha256,
            "note": self.note,
        }

    def to_lines(self) -> list[str]:
        """For a terminal."""
        lines = [
            f"{self.path}: {self.kind}, family {self.family}; {self.language}",
            f"{self.parameters:,} parameters, {self.bytes:,} bytes ({self.bytes / (1 << 30):.2f} GiB)",
        ]
        for p in self.parts:
            dtypes = ", ".join(f"{name} ({count})" for name, count in p.dtypes.items())
            origin = f"  from {', '.join(p.origin)}" if len({o for q in self.parts for o in q.origin}) > 1 else ""
            lines.append(
                f"  {p.name:<14} {p.tensors:>5} tensors {p.parameters:>14,} {p.bytes:>15,} bytes  {dtypes}{origin}"
            )
        if self.lora:
            alpha = (
                f"alpha {self.lora['alpha']:g}, scale {self.lora['scale']:g}" if self.lora["alpha"] else "alpha unknown"
            )
            targets = ", ".join(self.lora["targets"])
            lines.append(f"LoRA: rank {self.lora['rank']}, {alpha}; {self.lora['tensors']} tensors on {targets}")
        if self.duplicates["parameters"]:
            lines.append(
                f"stored twice: {self.duplicates['parameters']:,} parameters ({self.duplicates['bytes']:,} bytes)"
            )
        lines += [f"missing: {missing}" for missing in self.missing] or ["complete: nothing is missing for inference"]
        lines += [self.note] if self.note else []
        return [*lines, f"sha256 of headers {self.sha256['headers']}"]


def read_inventory(
    path: Path | str,
    *,
    finetune: Path | str | None = None,
    sam2: Path | str | None = None,
    config: Path | str | None = None,
    lora_alpha: float | None = None,
    content: bool = False,
) -> Inventory:
    """The inventory of a checkpoint folder, a .pth, or (with `finetune`, `sam2`) of the model that they make together.

    path: may be DeepSpeed's folder in the place of a .pth, or a hub id, of which headers alone are fetched. sam2:
    Meta's .pt or a Hugging Face folder, where the checkpoint is a bare InternVL. config: the training config, where
    LoRA's alpha stands; without it, the copy of it that mmengine leaves in the .pth. content: also digest every byte.
    Raises LabError for a path that is no checkpoint, for damaged or absurd files, and for a fine-tune that asks to run
    code.
    """
    path = Path(os.path.expanduser(path))  # which, unlike Path's, leaves a name alone that it does not know
    if not os.path.exists(path):
        if not is_hub_id(path):
            raise LabError(f"There is nothing at {path}: give a checkpoint folder, a .pth, or a hub id OWNER/NAME.")
        if content:
            raise LabError(f"{path} is on the hub and only its headers are read: to digest every byte, download it.")
        with TemporaryDirectory() as own:
            folder = Path(own) / path.name
            folder.mkdir()
            fetch_headers(str(path), folder)
            found = replace(_read_folder(folder), path=path)
    else:
        folder = path.is_dir() and not is_zero(path)
        found = _read_folder(path) if folder else _read_trained(path, config=config, lora_alpha=lora_alpha)
    if content:
        found = replace(found, sha256=found.sha256 | {"content": _digest(path)})
    if sam2 is not None:
        found = add_sam2(found, read_inventory(sam2, content=content))
    if finetune is None:
        return found
    return lay_over(found, read_inventory(finetune, config=config, lora_alpha=lora_alpha, content=content))


def _read_folder(folder: Path) -> Inventory:
    paths, absent = list_shards(folder)
    lost = [Missing(tuple(absent), "weight files that the index names: download them again")] if absent else []
    if not paths:
        tuned = {*folder.glob("iter_*.pth"), *(file.parent for file in folder.glob("*/*_model_states.pt"))}
        tuned = sorted(tuned, key=lambda file: int(re.sub(r"\D", "", file.stem)[:9] or 0))
        hint = f"give the fine-tune in it, {tuned[-1]}" if tuned else "give a checkpoint folder, or a .pth"
        raise LabError(f"{folder} has no *.safetensors: {hint}.")
    tensors, digest = {}, hashlib.sha256()
    for path in paths:
        found, header = read_safetensors(path)
        if twice := tensors.keys() & found.keys():
            raise LabError(f"{min(twice)} is in two files of {folder} ({path.name}): remove the one that is foreign.")
        tensors |= found
        digest.update(f"{path.name}\0{header}\0".encode())
    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    parts = group_parts(tensors, dict.fromkeys(tensors, (folder.resolve().name,)))
    names = {part.name for part in parts}
    kind = "base" if "language" in names else "sam2"
    kind = "sa2va" if {"language", "sam2_encoder"} <= names else kind
    missing = [*lost, *find_missing(tensors, parts, config)]
    if not config:
        missing.append(Missing(("config.json",), "the folder that the weights come from"))
    if kind != "sam2" and not any((folder / name).is_file() for name in TOKENIZERS):
        missing.append(Missing(("tokenizer",), "the folder that the weights come from"))
    return Inventory(
        path=folder,
        kind=kind,
        family=tell_family(tensors),
        language=describe_language(tensors, config),
        tensors=tensors,
        parts=parts,
        lora=None,
        duplicates={"parameters": 0, "bytes": 0},
        missing=tuple(missing),
        sha256={"headers": digest.hexdigest(), "content": None},
        config=config,
    )


def _read_trained(path: Path, *, config: Path | str | None, lora_alpha: float | None) -> Inventory:
    if path.suffix == ".safetensors" and path.is_file():
        raise LabError(f"{path} is one file of a checkpoint: give its folder, {path.parent}.")
    digests, note = [], ""

    def read(file: Path) -> object:
        content, digest = read_pth(file)
        digests.append(digest)
        return content

    if path.is_dir():
        content, note = read_zero(path, read, lambda pieces, shape, copy: TensorHeader(shape, pieces[0][0].dtype))
        digests = [hashlib.sha256("".join(digests).encode()).hexdigest()]
    else:
        content = read(path)
    found = sort_trained(find_state(content, TensorHeader, path), path)
    pairs = {name.removesuffix(".weight"): pair for name, pair in found.pairs.items()}
    tensors = found.whole | {f"{name}.lora_{half}.weight": pair[half] for name, pair in pairs.items() for half in pair}
    parts = group_parts(tensors, dict.fromkeys(tensors, (path.name,)))
    names = {part.name for part in parts}
    kind = "sam2" if not {"language", "embed_tokens", "lora", "projector", "seg_projection"} & names else "finetune"
    alpha = find_alpha(content, config, lora_alpha)
    return Inventory(
        path=path,
        kind=kind,
        family=tell_family(tensors),
        language=describe_language(tensors, {}),
        tensors=tensors,
        parts=parts,
        lora={
            "rank": found.rank,
            "targets": sorted({name.rsplit(".", 1)[-1] for name in pairs}),
            "tensors": 2 * len(pairs),
            "alpha": alpha,
            "scale": alpha / found.rank if alpha else None,
        }
        if pairs
        else None,
        duplicates={
            "parameters": sum(h.parameters for h in found.doubled),
            "bytes": sum(h.bytes for h in found.doubled),
        },
        missing=find_missing(tensors, parts, {}) + (Missing(("config.json", "tokenizer"), "the base model's folder"),),
        sha256={"headers": digests[0], "content": None},
        note=note,
    )


def find_alpha(content: object, config: Path | str | None = None, lora_alpha: float | None = None) -> float | None:
    """LoRA's alpha as given, from the config, or from the copy of the config that mmengine leaves in the .pth.

    content: what the .pth holds. None where it stands nowhere.
    """
    alpha = lora_alpha or (find_training(content, config).lora_alpha if config else None)
    if not alpha and (kept := find_training(content)):
        alpha = kept.lora_alpha
    if alpha is not None and not 0 < alpha < math.inf:
        raise LabError(f"LoRA's alpha is {alpha:g}: give the one that was trained with (--lora-alpha).")
    return alpha


def find_training(content: object, config: Path | str | None = None) -> TrainingConfig | None:
    """The training config: the one given, or the copy that mmengine leaves in the .pth, None where there is none."""
    from sa2va_lab.training.config import LARGEST, parse_config, read_config

    if config:
        return read_config(config)
    meta = content.get("meta") if isinstance(content, dict) else None
    text = meta.get("cfg") if isinstance(meta, dict) else None
    try:
        return parse_config(text) if isinstance(text, str) and 0 < len(text) <= LARGEST else None
    except LabError:
        return None


def _digest(path: Path) -> str:
    """sha256 of every byte: of the file, or of a folder's weight files with their names."""
    if not path.is_dir():
        return digest_file(path)
    return digest_files(path.glob("*_states.pt" if is_zero(path) else "*.safetensors"))
