"""The families that run here, a line each, and those that are known and do not run yet."""

from __future__ import annotations

from sa2va_lab.errors import LabError
from sa2va_lab.sa2va.family import Family
from sa2va_lab.sa2va.internlm2 import InternVLInternLM2
from sa2va_lab.sa2va.phi3 import InternVLPhi3
from sa2va_lab.sa2va.qwen2 import InternVLQwen2
from sa2va_lab.sa2va.qwen3 import InternVLQwen3
from sa2va_lab.sa2va.sizes import find_section

FAMILIES: tuple[Family, ...] = (InternVLQwen2(), InternVLQwen3(), InternVLInternLM2(), InternVLPhi3())
NOT_YET = {  # what config.json calls the language model: what that is
    "qwen2_5_vl_text": "the Qwen-VL family, Qwen2.5-VL",
    "qwen3_vl_text": "the Qwen-VL family, Qwen3-VL",
}
OTHER_PARTS = {  # of models whose family does not run here, or which have transformers' names
    "vision": r"(model\.)*visual\.(?!merger|deepstack)|(model\.)?vision_tower\.",
    "projector": r"(model\.)*visual\.(merger|deepstack)|(model\.)?multi_modal_projector\.",
    "language": r"(model\.)*language_model\.",
}
OTHER_MARKS = {"qwen-vl": r"(model\.)*visual\.|model\.model\."}


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
    known = f" ({NOT_YET[architecture]})" if architecture in NOT_YET else ""
    runs = "; ".join(f"{family.architecture} ({family.releases})" for family in FAMILIES)
    raise LabError(f"{name} has the language model {architecture[:80]}{known}; this version runs {runs} only.")
