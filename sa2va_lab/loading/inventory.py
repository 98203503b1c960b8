"""What is in a checkpoint: tensors, parameters and bytes by part, what is stored twice, and what is missing.

Headers only: no weight is loaded and torch is not imported. `Inventory.tensors` holds every tensor's shape and dtype by
its official name.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import reduce
from pathlib import Path

from sa2va_lab.errors import LabError
from sa2va_lab.loading.checkpoint import Checkpoint, digest_all
from sa2va_lab.loading.parts import Missing, Part, describe_language, find_missing, find_quantised, group_parts
from sa2va_lab.loading.tensors import LazyTensor
from sa2va_lab.sa2va.configuration import find_fault
from sa2va_lab.sa2va.families import FAMILIES
from sa2va_lab.sa2va.files import TOKENIZERS
from sa2va_lab.sa2va.parts import tell_group
from sa2va_lab.shown import Shown


@dataclass(frozen=True, repr=False)
class Inventory(Shown):
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
    tensors: dict[str, LazyTensor] = field(repr=False)
    parts: tuple[Part, ...]
    lora: dict | None
    duplicates: dict
    missing: tuple[Missing, ...]
    sha256: dict
    config: dict = field(default_factory=dict, repr=False)
    note: str = ""

    @property
    def facts(self) -> dict[str, str]:
        """See `Shown`."""
        missing = ", ".join(part for one in self.missing for part in one.parts) or "nothing"
        facts = {"Family": f"{self.kind}, {self.family}", "Language model": self.language, "Missing": missing}
        sizes = [("Together", self.parameters, self.bytes), *((p.name, p.parameters, p.bytes) for p in self.parts)]
        return facts | {name: f"{count:,} parameters, {size / (1 << 20):,.1f} MiB" for name, count, size in sizes}

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

    def part(self, name: str) -> Part:
        """The part of that name; one with nothing in it where there is none."""
        return next((part for part in self.parts if part.name == name), Part(name, 0, 0, 0, {}))

    def to_dict(self) -> dict:
        """Plain JSON values."""
        return {
            "path": str(self.path),
            "kind": self.kind,
            "family": self.family,
            "language_model": self.language,
            "parameters": self.parameters,
            "bytes": self.bytes,
            "parts": [asdict(part) for part in self.parts],
            "lora": self.lora,
            "duplicates": self.duplicates,
            "complete": self.complete,
            "missing": [str(missing) for missing in self.missing],
            "sha256": self.sha256,
            "note": self.note,
        }

    def to_lines(self) -> list[str]:
        """For a terminal."""
        several = len({file for part in self.parts for file in part.origin}) > 1
        lines = [
            f"{self.path}: {self.kind}, family {self.family}; {self.language}",
            f"{self.parameters:,} parameters, {self.bytes:,} bytes ({self.bytes / (1 << 30):.2f} GiB)",
        ]
        for p in self.parts:
            dtypes = ", ".join(f"{name} ({count})" for name, count in p.dtypes.items())
            counts = f"{p.tensors:>5} tensors {p.parameters:>14,} {p.bytes:>15,} bytes"
            lines.append(f"  {p.name:<14} {counts}  {dtypes}" + (f"  from {', '.join(p.origin)}" if several else ""))
        if lora := self.lora:
            alpha = f"alpha {lora['alpha']:g}, scale {lora['scale']:g}" if lora["alpha"] else "alpha unknown"
            lines.append(
                f"LoRA: rank {lora['rank']}, {alpha}; {lora['tensors']} tensors on {', '.join(lora['targets'])}"
            )
        if twice := self.duplicates["parameters"]:
            lines.append(f"stored twice: {twice:,} parameters ({self.duplicates['bytes']:,} bytes)")
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

    The arguments are those of `Checkpoint`; of a hub id headers alone are fetched. content: also digest every byte.
    Raises LabError for a path that is no checkpoint, for damaged or absurd files, and for a fine-tune that asks to run
    code.
    """
    opened = Checkpoint(path, sam2=sam2, finetune=finetune, config=config, lora_alpha=lora_alpha)
    base, tuned = opened.base, opened.tuned
    if content and not all(layer.files for layer in opened.layers):
        raise LabError(f"{base.path} is on the hub and only its headers are read: to digest every byte, download it.")
    parts = group_parts(opened.tensors)
    kind = "sa2va" if opened.finetune else base.kind
    doubled, lora = tuned.doubled if tuned else [], None
    if tuned and tuned.pairs:
        targets = {name.removesuffix(".weight").rsplit(".", 1)[-1] for name in tuned.pairs}
        lora = {"rank": tuned.rank, "targets": sorted(targets), "tensors": 2 * len(tuned.pairs)}
        lora |= {"alpha": opened.alpha, "scale": opened.scale}
    return Inventory(
        path=base.path,
        kind=kind,
        family=tell_group(base.tensors),
        language=describe_language(opened.tensors, base.raw),
        tensors=opened.tensors,
        parts=parts,
        lora=lora,
        duplicates={"parameters": sum(t.parameters for t in doubled), "bytes": sum(t.bytes for t in doubled)},
        missing=_find_missing(opened, parts),
        sha256={
            "headers": reduce(digest_all, (layer.headers for layer in opened.layers)),
            "content": reduce(digest_all, (layer.sha256 for layer in opened.layers)) if content else None,
        },
        config=base.raw,
        note=opened.note,
    )


def _find_missing(opened: Checkpoint, parts: tuple[Part, ...]) -> tuple[Missing, ...]:
    """What inference needs and is not here: files, parts, gaps in parts, and what was trained on something else."""
    base, source = opened.base, "the folder that the weights come from"
    missing = []
    if base.lost and len(opened.layers) == 1:
        missing.append(Missing(base.lost, "weight files that the index names: download them again"))
    missing += find_missing(opened.tensors, parts, base.raw)
    if base.tuned:
        missing.append(Missing(("config.json", "tokenizer"), "the base model's folder"))
    elif not base.raw:
        missing.append(Missing(("config.json",), source))
    elif fault := find_quantised(base.raw, base.tensors, base.path):
        missing.append(Missing(("weights that are not quantised",), fault))
    if not base.tuned and base.kind != "sam2":
        own = next((family for family in FAMILIES if family.group == tell_group(base.tensors)), FAMILIES[0])
        needed = {"tokenizer": TOKENIZERS, "the image processor's settings": own.processors}
        lacking = [what for what, files in needed.items() if files and not base.beside & {*files}]
        folder = base.path if base.files and not lacking else None
        if base.raw and (fault := find_fault(base.raw, name=str(base.path / "config.json"), folder=folder)):
            missing.append(Missing(("a config.json that can be run",), fault))
        missing += [Missing((what,), source) for what in lacking]
    if misfits := opened.misfits():
        names = tuple(name for name, *_ in misfits[:5])
        missing.append(Missing(names, "the shape differs: trained on another model than this base"))
    if opened.finetune and opened.tuned.pairs and opened.scale is None:
        missing.append(Missing(("LoRA's alpha",), "the training config (--config), or --lora-alpha"))
    return tuple(missing)
