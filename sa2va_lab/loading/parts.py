"""The parts of a Sa2VA: which tensor belongs to which, what inference needs, and what a set of names gives away."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice

from sa2va_lab.errors import LabError
from sa2va_lab.loading.tensors import LazyTensor
from sa2va_lab.sa2va.families import FAMILIES
from sa2va_lab.sa2va.parts import PARTS, layer_of, part_of, split_block, split_layer, tell_base, tell_group
from sa2va_lab.sa2va.sam2 import OUR_SAM2, SAM2, SAM2_TABLE, missing_sam2

BUFFER = "positional_encoding_gaussian_matrix"  # fixed numbers, not parameters
BASE_PARTS = ("vision", "projector", "language", "embed_tokens", "lm_head")
SAM2_PARTS = ("sam2_encoder", "sam2_decoder", "sam2_prompt", "sam2_memory")
MOST_GAPS = 1000
QUANTISED_MARKS = {  # who quantises: what ends the names of his tensors and of nobody else's
    "bitsandbytes": r"\.(absmax|quant_map|SCB)$|\.quant_state\.",
    "gptq": r"\.g_idx$",
    "awq": r"\.q(weight|zeros)$",
    "compressed-tensors": r"\.weight_packed$",
    "fp8": r"\.weight_scale(_inv)?$",
}


@dataclass(frozen=True)
class Part:
    """One part of a model. parameters: numbers that were learnt; bytes: as stored; dtypes: {"fp32": tensors, ...};
    origin: the files that it comes from."""

    name: str
    tensors: int
    parameters: int
    bytes: int
    dtypes: dict[str, int]
    origin: tuple[str, ...] = ()


@dataclass(frozen=True)
class Missing:
    """Parts that inference needs and that are not here, and where they usually come from."""

    parts: tuple[str, ...]
    source: str

    def __str__(self) -> str:
        return f"{', '.join(self.parts)}: {self.source}"


def place_sam2(stored: Iterable[str], path: str) -> dict[str, tuple[str, int | None]]:
    """{official name: (its name in a SAM2 checkpoint, the row of it that is meant; None for all of it)}.

    Meta's names are the official ones without their prefix. Hugging Face's are those of our network. Raises LabError
    for names that are neither; `path` is told.
    """
    stored = list(stored)
    if any(name.startswith("image_encoder.") for name in stored):
        return {SAM2 + re.sub(r"\.gamma$", ".g_weight", name): (name, None) for name in stored}
    try:
        if not any(name.startswith("vision_encoder.") for name in stored):
            raise KeyError("there is no image encoder")
        found = SAM2_TABLE.official(OUR_SAM2 + name for name in stored)
    except KeyError as error:
        raise LabError(
            f"{path} is no SAM2 ({error.args[0]}): give Meta's sam2_hiera_large.pt, or the Hugging Face folder."
        ) from None
    return {
        official: (place[0].name.removeprefix(OUR_SAM2), place[0].index if place[0].kind == "row" else None)
        for official, place in found.items()
    }


def group_parts(tensors: dict[str, LazyTensor]) -> tuple[Part, ...]:
    """The parts that are there, in order."""
    groups: dict[str, list] = {name: [] for name in (*PARTS, "lora", "other")}
    for name, tensor in tensors.items():
        groups["lora" if re.search(r"\.lora_[AB]\.", name) else part_of(name)].append((name, tensor))
    return tuple(
        Part(
            part,
            len(found),
            sum(tensor.parameters for name, tensor in found if BUFFER not in name),
            sum(tensor.bytes for _, tensor in found),
            dict(sorted(Counter(tensor.dtype for _, tensor in found).items())),
            tuple(sorted({file for _, tensor in found for file in tensor.origin})),
        )
        for part, found in groups.items()
        if found
    )


def measure_language(tensors: dict[str, LazyTensor]) -> tuple[int | None, int, int | None]:
    """(hidden size, decoder layers, rows of the vocabulary), from the tensors alone."""
    layers = {layer for layer in map(layer_of, tensors) if layer is not None}
    rows = [h.shape for n, h in tensors.items() if part_of(n) in ("embed_tokens", "lm_head") and len(h.shape) == 2]
    first = re.compile(rf".*\b({'|'.join(family.lora[0] for family in FAMILIES)})(\.lora_A)?\.weight")
    inward = [h.shape[-1] for n, h in tensors.items() if first.fullmatch(n) and layer_of(n) is not None]
    return (rows[0][1] if rows else inward[0] if inward else None), len(layers), (rows[0][0] if rows else None)


def describe_language(tensors: dict[str, LazyTensor], config: dict) -> str:
    """One line on the language model. config: config.json, or {}."""
    about = section(config, "llm_config", "text_config")
    named = about.get("architectures") or [about.get("model_type")]
    named = named[0] if isinstance(named, list) and isinstance(named[0], str) and named[0].isprintable() else None
    hidden, layers, rows = measure_language(tensors)
    if not layers:
        return "no language model"
    facts = [f"{named or 'language model'} of {layers} layers", f"width {hidden}"]
    return ", ".join([*facts, f"vocabulary {rows:,}"] if rows else facts)


def section(config: dict, *names: str) -> dict:
    """The first of these sections of config.json that is one."""
    return next((config[name] for name in names if isinstance(config.get(name), dict)), {})


def find_quantised(config: dict, tensors: dict[str, LazyTensor], path: object) -> str | None:
    """Why weights that somebody has quantised do not run here, told by config.json or by what they are; else None."""
    said = section(config, "quantization_config").get("quant_method")
    signs = [f"config.json says {said[:40]}"] if isinstance(said, str) and said.isprintable() else []
    marked = (
        (method, name)
        for method, mark in QUANTISED_MARKS.items()
        for name, tensor in tensors.items()
        if re.search(mark, name) or (method == "fp8" and tensor.dtype.startswith("fp8"))
    )
    signs += [f"{name} is {method}'s" for method, name in islice(marked, 1)]
    if not signs:
        return None
    return (
        f"{path} was quantised by others ({' and '.join(signs)}), which is not read here: give the folder that it was "
        "made from, in bf16, fp16 or fp32, and --precision int8 or nf4, which quantises while it loads."
    )


def find_missing(tensors: dict[str, LazyTensor], parts: tuple[Part, ...], config: dict) -> tuple[Missing, ...]:
    """What inference needs and is not here: whole parts, and gaps in parts that are here."""
    have = {part.name for part in parts}
    about = section(config, "llm_config", "text_config")
    tied = about.get("tie_word_embeddings") or config.get("tie_word_embeddings")
    hidden, layers, _ = measure_language(tensors)
    base = tell_base(hidden, layers, group=tell_group(tensors))
    source = "the base model that was trained on"
    if base:
        source = f"the base model {base.rpartition('/')[2]} that was trained on ({base})"
    found = []
    if lacking := tuple(p for p in BASE_PARTS if p not in have and not (p == "lm_head" and tied)):
        found.append(Missing(lacking, source))
    if lacking := tuple(part for part in SAM2_PARTS if part not in have):
        found.append(Missing(lacking, "SAM2, sam2_hiera_large.pt (facebook/sam2-hiera-large)"))
    if "seg_projection" not in have:
        found.append(Missing(("seg_projection",), "a Sa2VA folder or a fine-tune of one; no base model has it"))
    gaps = _find_gaps(tensors, split_layer, "language", about.get("num_hidden_layers")) if "language" in have else []
    seeing = section(config, "vision_config")
    gaps += _find_gaps(tensors, split_block, "vision", seeing.get("num_hidden_layers", seeing.get("depth")))
    if set(SAM2_PARTS) <= have and any(name.startswith(SAM2) for name in tensors):
        gaps += missing_sam2(tensors)
    if gaps:
        more = f" and {len(gaps) - 5} more" if len(gaps) > 5 else ""
        found.append(
            Missing((", ".join(gaps[:5]) + more,), "a gap in these weights: copy them again from their source")
        )
    return tuple(found)


def _find_gaps(tensors: dict, split: Callable, what: str, count) -> list[str]:
    """Layers that lack something which other layers of the stack have, and layers that are not there at all."""
    layers: dict[int, set[str]] = {}
    for number, tail in filter(None, map(split, tensors)):
        if "lora_" not in tail:
            layers.setdefault(number, set()).add(tail)
    usual = set().union(*layers.values()) if layers else set()
    count = count if isinstance(count, int) and 0 < count < 1000 else max(layers, default=-1) + 1
    gaps = (f"{what} layer {n}: {tail}" for n in range(count) for tail in sorted(usual - layers.get(n, set())))
    return list(islice(gaps, MOST_GAPS))
