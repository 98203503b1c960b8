"""InternVL on Phi-3: transformers has the language model under its official names, its packed matrices included."""

from __future__ import annotations

from pathlib import Path

from sa2va_lab.sa2va.family import Sa2VAConfig, Turn
from sa2va_lab.sa2va.internvl import InternVL
from sa2va_lab.sa2va.sentencepieces import PIECES
from sa2va_lab.sa2va.sizes import refuse

LONG = ("su", "longrope")  # one way to stretch positions, called so in 2024 and since


class InternVLPhi3(InternVL):
    """A Sa2VA on InternVL2-4B."""

    architecture, network = "Phi3ForCausalLM", "Phi3"
    releases = "a Sa2VA on InternVL2-4B"
    lora = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
    bases = {(3072, 32): "InternVL2-4B"}
    tokenizers = ("tokenizer.json", PIECES)
    turns = {"phi3_chat": Turn("<|user|>\n", "<|end|>\n<|assistant|>\n", stops=("<|end|>", "<|endoftext|>"))}

    def read(self, raw: dict, name: str, folder: Path | None = None) -> Sa2VAConfig:
        config = super().read(raw, name, folder)
        heads = config.language["num_attention_heads"]
        half = config.language["hidden_size"] * config.language.get("partial_rotary_factor", 1) // heads // 2
        for key, factors in (config.language.get("rope_scaling") or {}).items():
            if isinstance(factors, list) and len(factors) != half:
                refuse(name, f"llm_config.rope_scaling.{key}", f"it has {len(factors)} numbers, not {half:g}")
        return config

    def settings(self, config: Sa2VAConfig) -> dict:
        given, theirs = super().settings(config) | {"pad_token_id": None}, config.language
        given |= {
            key: theirs[key] for key in ("original_max_position_embeddings", "partial_rotary_factor") if key in theirs
        }
        if (scaling := given.pop("rope_scaling", None)) and scaling.get("type", scaling.get("rope_type")) in LONG:
            given["rope_scaling"] = {**scaling, "type": "longrope", "rope_type": "longrope"}
        if given.get("sliding_window", 0) >= given.get("max_position_embeddings", 0):
            given.pop("sliding_window", None)  # a window that no sequence fills
        return given
