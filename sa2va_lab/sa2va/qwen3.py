"""InternVL on Qwen3: as on Qwen2, with a norm for the queries and keys of each head, whose width config.json says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sa2va_lab.sa2va.qwen2 import InternVLQwen2

if TYPE_CHECKING:
    from torch import nn

    from sa2va_lab.sa2va.family import Sa2VAConfig


class InternVLQwen3(InternVLQwen2):
    """A Sa2VA on InternVL3.5, its mixtures of experts aside."""

    architecture = "Qwen3ForCausalLM"
    releases = "a Sa2VA on InternVL3.5"
    bases = {
        (1024, 28): "InternVL3_5-1B",
        (2048, 28): "InternVL3_5-2B",
        (2560, 36): "InternVL3_5-4B",
        (4096, 36): "InternVL3_5-8B",
        (5120, 40): "InternVL3_5-14B",
    }

    def build_language(self, config: Sa2VAConfig) -> nn.Module:
        from transformers import Qwen3Config, Qwen3ForCausalLM

        bias = config.language.get("attention_bias", False)
        return Qwen3ForCausalLM(Qwen3Config(**self.settings(config), attention_bias=bias))
