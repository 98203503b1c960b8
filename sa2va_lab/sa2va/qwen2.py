"""InternVL on Qwen2 and Qwen2.5: transformers has the language model under its official names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sa2va_lab.sa2va.internvl import InternVL

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from sa2va_lab.sa2va.family import Sa2VAConfig


class InternVLQwen2(InternVL):
    """Sa2VA-InternVL3 and the releases on Qwen2.5."""

    architecture = "Qwen2ForCausalLM"
    releases = "Sa2VA-InternVL3 and the Qwen2.5-based Sa2VA releases"
    lora = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    bases = {
        (896, 24): "InternVL3-1B",
        (1536, 28): "InternVL3-2B",
        (3584, 28): "InternVL3-8B",
        (5120, 48): "InternVL3-14B",
        (5120, 64): "InternVL3-38B",
        (8192, 80): "InternVL3-78B",
    }
    tokenizers = ("tokenizer.json", "vocab.json")

    def build_language(self, config: Sa2VAConfig) -> nn.Module:
        from transformers import Qwen2Config, Qwen2ForCausalLM

        return Qwen2ForCausalLM(Qwen2Config(**self.settings(config)))

    def open_tokenizer(self, folder: Path):
        return open_qwen2(folder)


def open_qwen2(folder: Path):
    """The tokenizer of all models that grew out of Qwen2."""
    from transformers import Qwen2Tokenizer

    return Qwen2Tokenizer.from_pretrained(str(folder), local_files_only=True)
