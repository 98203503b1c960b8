"""Sa2VA for still images: InternViT sees, Qwen2 answers, SAM2 draws what the answer's [SEG] tokens mean.

Four parts under their official names, so that most weights need no renaming: `vision_model` and `mlp1` turn tiles into
tokens, `language_model` reads them, `text_hidden_fcs` carries a [SEG] state over to `grounding_encoder` (SAM2).
Shapes below: t tiles, n [SEG] tokens, C the language width, D SAM2's width, g the mask grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import InternVLVisionModel, Qwen2ForCausalLM, Sam2VideoModel
from transformers.models.sam2.modeling_sam2 import Sam2MultiScaleAttention

from sa2va_lab.sa2va.configuration import Sa2VAConfig


@dataclass
class CanvasFeatures:
    """What SAM2's encoder saw in one image; serves any number of [SEG].

    image: (1, D, g/4, g/4), "no memory" already added; fine: ((1, D/8, g, g), (1, D/4, g/2, g/2)).
    """

    image: Tensor
    fine: tuple[Tensor, Tensor]


@dataclass
class Masks:
    """logits (n, g, g) float32, the best of three by predicted IoU; ious (n, 3); embeddings (n, D)."""

    logits: Tensor
    ious: Tensor
    embeddings: Tensor


class HieraAttention(Sam2MultiScaleAttention):
    """Attention in SAM2's image encoder. transformers' own also computes scores between the heads of each place, which
    nothing uses: a twentieth of the time of Hiera-L on a CPU."""

    def forward(self, hidden_states: Tensor, **kwargs) -> Tensor:
        """(windows, h, w, C) -> (windows, h, w, C'); h and w are halved where a stage begins."""
        height, width = hidden_states.shape[1:3]
        parts = self.qkv(hidden_states).flatten(1, 2).unflatten(-1, (3, self.num_attention_heads, -1))
        query, key, value = parts.unbind(2)  # (windows, h * w, heads, width of a head)
        if self.query_stride:
            maps = query.flatten(2).unflatten(1, (height, width)).permute(0, 3, 1, 2)
            pooled = F.max_pool2d(maps, self.query_stride, self.query_stride).permute(0, 2, 3, 1)
            height, width = pooled.shape[1:3]
            query = pooled.flatten(1, 2).unflatten(-1, (self.num_attention_heads, -1))
        heads = (part.transpose(1, 2) for part in (query, key, value))
        seen = F.scaled_dot_product_attention(*heads, scale=self.scale).transpose(1, 2)
        return self.proj(seen.flatten(2).unflatten(1, (height, width)))


class NoPositions(nn.Module):
    """In the place of the positions that SAM2 attaches to its features for the memory of a video. Still images have
    no such memory: at 1024 x 1024 this spares 32 MiB in bf16 that transformers would keep from image to image."""

    def forward(self, shape: torch.Size, device, dtype, mask=None) -> Tensor:
        """(n, 0, h, w) for features of `shape` (n, D, h, w)."""
        return torch.empty(shape[0], 0, *shape[2:], device=device, dtype=dtype)


class Sa2VA(nn.Module):
    """The network. Build it on the meta device and fill it with `weights.load_weights`."""

    def __init__(self, config: Sa2VAConfig):
        super().__init__()
        vision, language, sam2 = config.vision_config(), config.language_config(), config.sam2_config()
        shuffled = int(vision.hidden_size / config.downsample**2)
        self.config = config
        self.vision_model = InternVLVisionModel(vision)
        self.mlp1 = nn.Sequential(
            nn.LayerNorm(shuffled),
            nn.Linear(shuffled, language.hidden_size),
            nn.GELU(),
            nn.Linear(language.hidden_size, language.hidden_size),
        )
        self.language_model = Qwen2ForCausalLM(language)
        self.grounding_encoder = Sam2VideoModel(sam2)
        for module in self.grounding_encoder.modules():
            if type(module) is Sam2MultiScaleAttention:
                module.__class__ = HieraAttention
        self.grounding_encoder.vision_encoder.neck.position_encoding = NoPositions()
        self.text_hidden_fcs = nn.Sequential(
            nn.Linear(language.hidden_size, language.hidden_size),
            nn.ReLU(),
            nn.Linear(language.hidden_size, sam2.mask_decoder_config.hidden_size),
        )

    def see(self, tiles: Tensor) -> Tensor:
        """(t, 3, tile, tile) -> (t, tokens_per_tile, 4 x vision width). Class token dropped, no final norm."""
        seen = self.vision_model(tiles.to(_dtype(self.vision_model))).last_hidden_state[:, 1:]
        return pixel_shuffle(seen, self.config.downsample)

    def encode_tiles(self, tiles: Tensor) -> Tensor:
        """(t, 3, tile, tile) -> image tokens (t, tokens_per_tile, C)."""
        return self.mlp1(self.see(tiles))

    def encode_canvas(self, canvas: Tensor) -> CanvasFeatures:
        """(1, 3, canvas, canvas) -> features for the mask decoder."""
        sam2 = self.grounding_encoder
        fine0, fine1, coarse = sam2.get_image_features(canvas.to(_dtype(sam2)), return_dict=True).fpn_hidden_states
        maps = [
            flat.permute(1, 2, 0).unflatten(-1, (side, side))
            for flat in (fine0, fine1, coarse + sam2.no_memory_embedding)
            for side in [int(len(flat) ** 0.5)]
        ]
        return CanvasFeatures(image=maps[2], fine=(maps[0], maps[1]))

    def embed(self, token_ids: Tensor) -> Tensor:
        """(1, length) -> (1, length, C)."""
        return self.language_model.model.embed_tokens(token_ids)

    def read(self, embeddings: Tensor, cache) -> Tensor:
        """(1, length, C) after what `cache` holds -> last hidden states after the final norm, (1, length, C)."""
        return self.language_model.model(
            inputs_embeds=embeddings, past_key_values=cache, use_cache=True
        ).last_hidden_state

    def score_tokens(self, states: Tensor) -> Tensor:
        """Hidden states (..., C) -> float32 logits over the vocabulary."""
        return self.language_model.lm_head(states).float()

    def propose(self, features: CanvasFeatures, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """[SEG] embeddings (n, D) -> SAM2's three candidates for each: logits (n, 3, g, g), predicted IoU (n, 3)."""
        sam2 = self.grounding_encoder
        words = embeddings.to(features.image.dtype)[None, :, None]  # (1, n, 1, D)
        blank = sam2.prompt_encoder.not_a_point_embed.weight.expand(1, len(embeddings), 2, -1)
        no_mask, side = sam2.prompt_encoder.no_mask_embed.weight, features.image.shape[-1]
        logits, ious, _, _ = sam2.mask_decoder(
            image_embeddings=features.image,
            image_positional_embeddings=sam2.get_image_wide_positional_embeddings(),
            sparse_prompt_embeddings=torch.cat([blank, words], dim=2),
            dense_prompt_embeddings=no_mask[:, :, None, None].expand(1, -1, side, side),
            multimask_output=True,
            high_resolution_features=list(features.fine),
        )
        return logits[0], ious[0]

    def draw(self, features: CanvasFeatures, seg_states: Tensor) -> Masks:
        """[SEG] states (n, C) -> masks: of the three candidates the one with the best predicted IoU."""
        head = self.text_hidden_fcs[0].weight
        embeddings = self.text_hidden_fcs(seg_states.to(device=head.device, dtype=head.dtype))
        logits, ious = self.propose(features, embeddings)
        best = ious.argmax(dim=-1)
        rows = torch.arange(len(best), device=best.device)
        return Masks(logits=logits[rows, best].float(), ious=ious.float(), embeddings=embeddings.float())


def pixel_shuffle(tokens: Tensor, ratio: float) -> Tensor:
    """(t, s*s, c) -> (t, s*ratio*s*ratio, c/ratio**2): neighbours stacked into channels (InternVL's version 2)."""
    side = int(tokens.shape[1] ** 0.5)
    block = int(1 / ratio)
    grid = tokens.unflatten(1, (side // block, block, side // block, block))  # rows, y, columns, x
    return grid.permute(0, 1, 3, 2, 4, 5).flatten(3).flatten(1, 2)


def _dtype(part: nn.Module) -> torch.dtype:
    return next(part.parameters()).dtype
