"""The part of a Sa2VA that an official tensor belongs to, by its name alone, whatever the family: one table for all."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache, reduce

from sa2va_lab.sa2va.families import FAMILIES

MOST = 20_000  # names of which the answers are kept; a forecast asks for each again and again
_SAM2 = r"(grounding_encoder\.(sam2_model\.)?)?"
_SAM2_PARTS = {
    "sam2_encoder": r"(image_encoder|vision_encoder)\.",
    "sam2_decoder": r"(sam_)?mask_decoder\.",
    "sam2_prompt": r"((sam_)?prompt_encoder|shared_image_embedding)\.",
    "sam2_memory": r"(memory_|maskmem_|no_mem|no_obj|obj_ptr|object_pointer|mask_downsample)",
}
_LANGUAGE = ("vision", "projector", "embed_tokens", "lm_head", "language")
PARTS = {  # the first that fits counts
    **{part: "|".join(dict.fromkeys(family.parts[part] for family in FAMILIES)) for part in _LANGUAGE},
    **{part: _SAM2 + rule for part, rule in _SAM2_PARTS.items()},
    "seg_projection": r"text_hidden_fcs\.",
}
_PATTERNS = {part: re.compile(rule) for part, rule in PARTS.items()}
_MATRICES = {module for family in FAMILIES for module in family.lora}
_LAYER = re.compile(r"((model\.)*language_model\.(model\.)?|model\.)layers\.(?P<layer>[0-9]{1,3})\.(?P<tail>.+)")
_BLOCK = re.compile(
    f"({'|'.join(dict.fromkeys(family.blocks for family in FAMILIES))})" r"(?P<layer>[0-9]{1,3})\.(?P<tail>.+)"
)


def part_of(name: str) -> str:
    """The part that a tensor of that official name belongs to: a key of `PARTS`, or "other"."""
    return next((part for part, pattern in _PATTERNS.items() if pattern.match(name)), "other")


def split_layer(name: str) -> tuple[int, str] | None:
    """(number of the decoder layer, the tensor's name in it) for a tensor of one, by its official name or the
    network's; None for all others."""
    match = _LAYER.fullmatch(name)
    return (int(match["layer"]), match["tail"]) if match else None


def split_block(name: str) -> tuple[int, str] | None:
    """The same for a layer of the vision tower, by its official name."""
    match = _BLOCK.fullmatch(name)
    return (int(match["layer"]), match["tail"]) if match else None


@lru_cache(MOST)
def layer_of(name: str) -> int | None:
    """The number of the decoder layer that a tensor belongs to; None for all others."""
    layer = split_layer(name)
    return layer[0] if layer else None


@lru_cache(MOST)
def is_decoder_matrix(name: str) -> bool:
    """Whether a tensor is a matrix of a decoder layer, which int8 and nf4 quantise."""
    owner, _, leaf = name.rpartition(".")
    module = owner.rpartition(".")[2]
    return leaf == "weight" and layer_of(name) is not None and (module.endswith("_proj") or module in _MATRICES)


def name_officially(names: Iterable[str]) -> Callable[[str], str]:
    """What makes names of tensors and modules that came together in a file those of the official folder: of xtuner's,
    and of those of an older transformers."""
    group = tell_group(names)
    spelling = next((family.spelling for family in FAMILIES if family.group == group), FAMILIES[0].spelling)
    changes = [(re.compile(theirs), ours) for theirs, ours in (*spelling, (r"\.gamma$", ".g_weight"))]
    return lambda name: reduce(lambda one, change: change[0].sub(change[1], one), changes, name)


def tell_group(names: Iterable[str]) -> str:
    """internvl, qwen-vl or unknown, by the names."""
    names, marks = list(names), {family.group: family.marks for family in FAMILIES}
    return next((group for group, own in marks.items() if any(re.match(own, name) for name in names)), "unknown")


def tell_base(hidden: int | None, layers: int, *, group: str) -> str | None:
    """The hub's name of the model that a training of these sizes starts from (OWNER/NAME)."""
    kin = (family for family in FAMILIES if family.group == group and (hidden, layers) in family.bases)
    return next((f"{family.hub}/{family.bases[hidden, layers]}" for family in kin), None)
