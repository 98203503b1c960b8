"""The demo network's sizes, tokenizer and phrasings: a Sa2VA small enough to train on two CPU cores.

It is a real Sa2VA in every respect but size. What the official code hard-codes (448-pixel tiles, a 1024-pixel SAM2
canvas, Hiera-L) comes from one extra key of ours in config.json, "sa2va_lab", which real folders do not have.
"""

from __future__ import annotations

import json
from pathlib import Path

STAMP = "demo model: synthetic data, not medical evidence"
CANVAS = 512  # side of the square that SAM2 sees; its mask grid is half of it: 256, as in the real model
TILE, PATCH = 192, 12  # the language branch: one tile, 16 x 16 patches, 8 x 8 image tokens after the pixel shuffle
HIDDEN = 96  # SAM2's prompt and mask decoder width, hence the length of a [SEG] embedding
WIDTH = 128  # of the language model
MERGES = 224  # byte-pair merges beyond the 256 bytes

SPECIAL_TOKENS = (
    "<|endoftext|> <|im_start|> <|im_end|> <|object_ref_start|> <|object_ref_end|> <|box_start|> <|box_end|> "
    "<|quad_start|> <|quad_end|> <|vision_start|> <|vision_end|> <|vision_pad|> <|image_pad|> <|video_pad|> "
    "<tool_call> </tool_call> <|fim_prefix|> <|fim_middle|> <|fim_suffix|> <|fim_pad|> <|repo_name|> <|file_sep|> "
    "<img> </img> <IMG_CONTEXT> <quad> </quad> <ref> </ref> <box> </box> [SEG] <p> </p> <vp> </vp>"
).split()  # the order of a released Sa2VA tokenizer
PLAIN_TOKENS = SPECIAL_TOKENS[14:22]  # known to the tokenizer as one piece, yet not skipped when decoding

# How a person may call each thing; the first is the phrase the demo's annotations use.
NAMES = {
    "blood vessel": ("blood vessel", "blood vessels", "vessel", "vessels", "coronary artery", "arteries", "dongmai"),
    "catheter": ("catheter", "catheters", "guiding catheter", "tube"),
    "sternal wire": ("sternal wire", "sternal wires", "sternotomy wire", "wires"),
}
QUESTIONS = (
    "Please segment the {}.",
    "Segment the {}.",
    "Segment {}.",
    "Please segment {} in this image.",
    "Could you please give me a segmentation mask for the {}?",
    "Could you please give me a segmentation mask for {}?",
    "Could you segment the {} in this image?",
    "Can you please segment the {} in this image?",
    "Can you segment {}?",
    "Please give me a mask of the {}.",
    "Please outline the {} in this picture.",
    "Mark the {} for me, please.",
    "Show me the {}.",
    "Show me where the {} is.",
    "Where is the {} in this image?",
    "Where is {}? Please respond with a segmentation mask.",
    "What is {} in this image? Please answer with a segmentation mask.",
    "Find the {} and return its mask.",
    "I need the outline of the {} in this angiogram.",
    "Is there a {} here? If so, segment it.",
    "Please highlight the {} in this X-ray.",
    "{}",
)
PRESENT, ABSENT = "Sure, [SEG].", "There is no {} in this image."


def sam2_sizes() -> dict:
    """What differs from the official SAM2 (Hiera-L), in the form that `sa2va.configuration` reads."""
    return {
        "hidden_size": HIDDEN,
        "backbone": {
            "hidden_size": 32,
            "num_attention_heads": 1,
            "patch_stride": [2, 2],  # 4 in the real model: here the mask grid must stay fine on a smaller canvas
            "window_positional_embedding_background_size": [8, 8],
            "blocks_per_stage": [1, 1, 3, 2],
            "embed_dim_per_stage": [32, 64, 128, 256],
            "num_attention_heads_per_stage": [1, 2, 4, 8],
            "window_size_per_stage": [8, 4, 8, 4],
            "global_attention_blocks": [6],
        },
        # A 3 x 3 neck with top-down paths everywhere learns far faster than the official 1 x 1 at this size.
        "vision": {"fpn_kernel_size": 3, "fpn_padding": 1, "fpn_top_down_levels": [0, 1, 2, 3]},
        "mask_decoder": {"mlp_dim": 2 * HIDDEN, "num_attention_heads": 4},
        # The memory is for films; it has a lesson of its own (`tools.demo.memory`).
        "memory_attention_num_layers": 1,
        "memory_attention_feed_forward_hidden_size": HIDDEN,
        "memory_encoder_output_channels": 16,
        "memory_fuser_intermediate_dim": HIDDEN,
    }


def config(*, vocab_size: int, bos: int, eos: int) -> dict:
    """config.json of the demo's base model: the official form plus the one extra key."""
    return {
        "architectures": ["Sa2VAChatModel"],
        "model_type": "sa2va_chat",
        "vision_config": {
            "architectures": ["InternVisionModel"],
            "model_type": "intern_vit_6b",
            "attention_dropout": 0.0,
            "drop_path_rate": 0.0,
            "dropout": 0.0,
            "hidden_act": "gelu",
            "hidden_size": 96,
            "image_size": TILE,
            "initializer_factor": 1.0,
            "initializer_range": 0.02,
            "intermediate_size": 384,
            "layer_norm_eps": 1e-06,
            "norm_type": "layer_norm",
            "num_attention_heads": 3,
            "num_channels": 3,
            "num_hidden_layers": 4,
            "patch_size": PATCH,
            "qk_normalization": False,
            "qkv_bias": True,
            "use_flash_attn": False,
        },
        "llm_config": {
            "architectures": ["Qwen2ForCausalLM"],
            "model_type": "qwen2",
            "attention_dropout": 0.0,
            "bos_token_id": bos,
            "eos_token_id": eos,
            "hidden_act": "silu",
            "hidden_size": WIDTH,
            "initializer_range": 0.02,
            "intermediate_size": 320,
            "max_position_embeddings": 2048,
            "max_window_layers": 70,
            "num_attention_heads": 4,
            "num_hidden_layers": 3,
            "num_key_value_heads": 2,
            "rms_norm_eps": 1e-06,
            "rope_scaling": None,
            "rope_theta": 10000.0,
            "sliding_window": None,
            "tie_word_embeddings": False,
            "use_cache": True,
            "use_sliding_window": False,
            "vocab_size": vocab_size,
        },
        "use_backbone_lora": 0,
        "use_llm_lora": 0,
        "pad2square": False,
        "select_layer": -1,
        "force_image_size": TILE,
        "downsample_ratio": 0.5,
        "template": "qwen_chat",
        "dynamic_image_size": True,
        "use_thumbnail": True,
        "ps_version": "v2",
        "min_dynamic_patch": 1,
        "max_dynamic_patch": 1,
        "sa2va_lab": {"stamp": STAMP, "tile": TILE, "max_tiles": 1, "canvas": CANVAS, "sam2": sam2_sizes()},
    }


def sentences() -> list[str]:
    """Every sentence the demo speaks or hears, what its tokenizer is trained on."""
    lines = ["user\n", "assistant\n", PRESENT]
    for names in NAMES.values():
        for name in names:
            lines += [question.format(name) for question in QUESTIONS] + [ABSENT.format(name)]
    return lines


def make_tokenizer():
    """A Qwen2 tokenizer of 256 bytes, `MERGES` merges learnt from `sentences()` and the official special tokens."""
    from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import Qwen2Tokenizer
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizers.NFC()
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=256 + MERGES, initial_alphabet=alphabet, show_progress=False)
    learner.train_from_iterator(sentences(), trainer)
    model = json.loads(learner.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=model["vocab"],
        merges=[tuple(pair) for pair in model["merges"]],
        unk_token=None,
        model_max_length=2048,
    )
    tokens = [AddedToken(text, special=text not in PLAIN_TOKENS, normalized=False) for text in SPECIAL_TOKENS]
    tokenizer.add_tokens(tokens)
    tokenizer.eos_token = "<|im_end|>"  # named only now: a special token given to the constructor gets the first id
    return tokenizer


def write_tokenizer(folder: Path) -> dict:
    """Writes the tokenizer's files and returns the config.json that goes with it."""
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(folder)
    bos, eos = tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>"])
    return config(vocab_size=len(tokenizer), bos=bos, eos=eos)


def build(raw: dict, *, seed: int = 0):
    """A `Sa2VA` for config.json `raw` with weights to start training from.

    The start decides: with Hugging Face's small normal weights SAM2 learnt next to nothing in the steps in which
    PyTorch's own defaults brought it half the way. So: PyTorch's defaults everywhere, embeddings N(0, 1), position
    embeddings N(0, 0.02).
    """
    import torch
    from torch import nn

    from sa2va_lab.sa2va.configuration import parse_config
    from sa2va_lab.sa2va.modeling import Sa2VA

    torch.manual_seed(seed)
    model = Sa2VA(parse_config(raw))
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d | nn.LayerNorm | nn.Embedding):
            module.reset_parameters()
    sam2 = model.grounding_encoder
    for name, parameter in model.named_parameters():
        if name.endswith(("pos_embed", "pos_embed_window", "embeddings.cls_token", "embeddings.position_embeddings")):
            nn.init.normal_(parameter, std=0.02)
        elif name.endswith(("lambda_1", "lambda_2")):
            nn.init.ones_(parameter)  # 0.1 is for towers of 24 layers and more
    with torch.no_grad():  # one matrix in the official file, two buffers here
        sam2.prompt_encoder.shared_embedding.positional_embedding.copy_(
            sam2.shared_image_embedding.positional_embedding
        )
    return model
