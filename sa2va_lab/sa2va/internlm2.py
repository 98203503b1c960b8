"""InternVL on InternLM2: transformers' Llama, whose matrices InternLM2 packs in its own order and calls otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sa2va_lab.errors import LabError
from sa2va_lab.sa2va.family import CHAT, LAYERS, Sa2VAConfig, Turn
from sa2va_lab.sa2va.internvl import InternVL
from sa2va_lab.sa2va.names import Rule, Split, join_rows
from sa2va_lab.sa2va.sentencepieces import PIECES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

_NAMES = {
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_TURN = Turn(CHAT.before, CHAT.after, stops=("<|im_end|>", "</s>"))


class InternVLInternLM2(InternVL):
    """The first Sa2VA-8B and -26B."""

    architecture, network = "InternLM2ForCausalLM", "Llama"
    releases = "Sa2VA-8B and -26B"
    lora = ("wqkv", "wo", "w1", "w2", "w3")
    bases = {(2048, 24): "InternVL2_5-2B", (4096, 32): "InternVL2_5-8B", (6144, 48): "InternVL2_5-26B"}
    tokenizers = ("tokenizer.json", PIECES)
    turns = {"internlm2_chat": _TURN, "qwen_chat": _TURN}
    parts = {
        **InternVL.parts,
        "embed_tokens": r"language_model\.model\.tok_embeddings\.",
        "lm_head": r"language_model\.output\.",
    }
    rules = (
        Rule("language_model.model.tok_embeddings", ("language_model.model.embed_tokens",)),
        Rule("language_model.output", ("language_model.lm_head",)),
        *(Rule(f"{LAYERS}#.{theirs}", (f"{LAYERS}#.{ours}",)) for theirs, ours in _NAMES.items()),
        Rule(f"{LAYERS}#.attention.wqkv", tuple(f"{LAYERS}#.self_attn.{part}_proj" for part in "qkv"), kind="grouped"),
    )

    def splits(self, config: Sa2VAConfig) -> dict[str, Split]:
        """wqkv has, for each key/value head, the rows of its query heads, of its key and of its value."""
        heads = config.language["num_attention_heads"]
        groups = config.language.get("num_key_value_heads") or heads
        shares = [heads // groups, 1, 1]

        def cut(packed: Tensor) -> list[Tensor]:
            if len(packed) % (groups * sum(shares)):
                raise LabError(
                    f"wqkv has {len(packed)} rows, which do not divide among {groups} key/value heads with {shares[0]} "
                    "query heads each: config.json and weights belong to different models."
                )
            grouped = packed.unflatten(0, (groups, sum(shares), -1))
            return [part.flatten(0, 2) for part in grouped.split(shares, dim=1)]

        def join(parts: Sequence[Tensor]) -> Tensor:
            return join_rows(
                [rows for group in zip(*(part.chunk(groups) for part in parts), strict=True) for rows in group]
            )

        return {"grouped": Split(cut, join)}

    def settings(self, config: Sa2VAConfig) -> dict:
        return super().settings(config) | {
            "attention_bias": config.language.get("bias", False),
            "pad_token_id": None,
        }
