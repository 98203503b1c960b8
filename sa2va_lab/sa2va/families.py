"""The families that run here, a line each."""

from __future__ import annotations

from sa2va_lab.errors import LabError
from sa2va_lab.sa2va.family import Family
from sa2va_lab.sa2va.internlm2 import InternVLInternLM2
from sa2va_lab.sa2va.internvl import InternVLQwen2, InternVLQwen3
from sa2va_lab.sa2va.phi3 import InternVLPhi3
from sa2va_lab.sa2va.qwenvl import Qwen2VL, Qwen3VL
from sa2va_lab.sa2va.sizes import find_section

FAMILIES: tuple[Family, ...] = (
    InternVLQwen2(),
    InternVLQwen3(),
    InternVLInternLM2(),
    InternVLPhi3(),
    Qwen2VL(),
    Qwen3VL(),
)


def find_family(raw: dict, *, name: str = "config.json") -> Family:
    """The family that config.json describes. LabError with what it is, where that does not run here.

    `model_type` says `sa2va_chat` for every family, so the family is told by what the language model is.
    """
    if not {"llm_config", "text_config"} & raw.keys() or "vision_config" not in raw:
        raise LabError(
            f"{name} has model_type {raw.get('model_type', 'none')!r} and lacks the sections of a language model and "
            "of a vision tower: it is not a Sa2VA checkpoint; give the folder of the Sa2VA model itself."
        )
    if "text_config" in raw:
        architecture = find_section(raw, "text_config", name=name).get("model_type")
    else:
        listed = find_section(raw, "llm_config", name=name).get("architectures")
        architecture = listed[0] if isinstance(listed, list) and listed else None
    architecture = architecture if isinstance(architecture, str) else "unknown"
    for family in FAMILIES:
        if family.architecture == architecture:
            return family
    runs = "; ".join(f"{family.architecture} ({family.releases})" for family in FAMILIES)
    raise LabError(f"{name} has the language model {architecture[:80]}; this version runs {runs} only.")
