"""Sa2VA's network: the family's vision-language model answers, SAM2 draws what the answer's [SEG] tokens mean.

The parts have their official names where they can, so that most weights need no renaming: the family's modules turn
pixels into tokens, `language_model` reads them, `text_hidden_fcs` carries a [SEG] state over to `grounding_encoder`
(SAM2). Shapes below: n [SEG] tokens, C the language width, D SAM2's width, g the mask grid.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache, Sam2VideoModel

from sa2va_lab.sa2va.family import Sa2VAConfig, Sight

HEAD = "language_model.lm_head.weight"


@dataclass
class CanvasFeatures:
    """What SAM2's encoder saw in one image; serves any number of [SEG].

    image: (1, D, g/4, g/4); fine: ((1, D/8, g, g), (1, D/4, g/2, g/2)).
    """

    image: Tensor
    fine: tuple[Tensor, Tensor]

    def split(self) -> list[CanvasFeatures]:
        """Those of each image, where several were seen together."""
        parts = zip(*(part.split(1) for part in (self.image, *self.fine)), strict=True)
        return [CanvasFeatures(image, tuple(fine)) for image, *fine in parts]


@dataclass
class Masks:
    """logits (n, g, g) float32, the best of three by predicted IoU; ious (n, 3).

    tokens (n, D): what the decoder says of that mask, for a memory; scores (n, 1): whether there is anything, above 0.
    """

    logits: Tensor
    ious: Tensor
    tokens: Tensor
    scores: Tensor


class HieraAttention(nn.Module):
    """Attention in SAM2's image encoder, with the layers of transformers' own. That one also computes scores between
    the heads of each place, which nothing uses: a twentieth of the time of Hiera-L on a CPU."""

    def __init__(self, theirs: nn.Module):
        super().__init__()
        self.qkv, self.proj = theirs.qkv, theirs.proj
        self.num_attention_heads, self.scale, self.query_stride = (
            theirs.num_attention_heads,
            theirs.scale,
            theirs.query_stride,
        )

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
    """In the place of the positions that SAM2 attaches to its features for the memory of a film. Still images have no
    such memory: at 1024 x 1024 this spares 32 MiB in bf16 that transformers would keep from image to image, and a film
    needs 2 of them (see `memory.py`)."""

    def forward(self, shape: torch.Size, device, dtype, mask=None) -> Tensor:
        """(n, 0, h, w) for features of `shape` (n, D, h, w)."""
        return torch.empty(shape[0], 0, *shape[2:], device=device, dtype=dtype)


class Sa2VA(nn.Module):
    """The network. Build it on the meta device and fill it with `weights.load_weights`."""

    def __init__(self, config: Sa2VAConfig):
        super().__init__()
        self.config = config
        for name, part in config.family.build(config).items():
            self.add_module(name, part)
        width, sam2 = config.language["hidden_size"], config.sam2_config()
        self.grounding_encoder = Sam2VideoModel(sam2)
        for block in self.grounding_encoder.vision_encoder.backbone.blocks:
            block.attn = HieraAttention(block.attn)
        self.grounding_encoder.vision_encoder.neck.position_encoding = NoPositions()
        for layer in self.grounding_encoder.memory_attention.layers:
            recall = layer.cross_attn_image  # transformers gives it 64 inputs, however many channels a memory has
            recall.kv_in_dim = sam2.memory_encoder_output_channels
            for part in ("k_proj", "v_proj"):
                setattr(recall, part, nn.Linear(recall.kv_in_dim, recall.internal_dim))
        self.text_hidden_fcs = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, sam2.mask_decoder_config.hidden_size)
        )

    @property
    def layers(self) -> nn.ModuleList:
        """The decoder layers, which are spread over devices and quantised."""
        return self.language_model.model.layers

    @property
    def final_norm(self) -> nn.Module:
        """The norm after them."""
        return self.language_model.model.norm

    @property
    def dtype(self) -> torch.dtype:
        """What is not quantised has this dtype."""
        return self.final_norm.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where tokens go in."""
        return self.language_model.model.embed_tokens.weight.device

    def new_cache(self, sight: Sight | None = None, *, starts: Sequence[int] = ()) -> DynamicCache:
        """Keys and values of nothing yet; `read` adds to it. sight: the image that is to be read, or the frames of a
        film; starts: how many tokens stand before each."""
        cache = DynamicCache(config=self.language_model.config)
        cache.images = list(zip(sight.parts if sight else (), starts, strict=True))
        return cache

    @staticmethod
    def take_row(cache: DynamicCache, row: int) -> DynamicCache:
        """A cache of its own for one of several questions that were read together."""
        alone = copy.copy(cache)
        alone.layers = [copy.copy(layer) for layer in cache.layers]
        alone.batch_select_indices(torch.tensor([row]))
        return alone

    def encode_image(self, pixels) -> Sight:
        """What `config.family.pixels` made of an image -> t image tokens."""
        return self.config.family.encode(self, pixels)

    def encode_images(self, pixels: list) -> list[Sight]:
        """The same for several images, together where they are tiles."""
        if not self.config.family.tiled:
            return [self.encode_image(one) for one in pixels]
        counts = [len(tiles) * self.config.tokens_per_tile for tiles in pixels]
        return [Sight(part) for part in self.encode_image(torch.cat(pixels)).tokens.split(counts)]

    def encode_canvas(self, canvas: Tensor) -> CanvasFeatures:
        """(b, 3, canvas, canvas) -> features for the mask decoder; `split` gives those of each image."""
        sam2 = self.grounding_encoder
        flat = sam2.get_image_features(canvas.to(sam2.no_memory_embedding.dtype), return_dict=True).fpn_hidden_states
        fine0, fine1, coarse = flat
        return CanvasFeatures(image=as_map(coarse), fine=(as_map(fine0), as_map(fine1)))

    def embed(self, token_ids: Tensor) -> Tensor:
        """(b, length) -> (b, length, C)."""
        return self.language_model.model.embed_tokens(token_ids)

    def read(self, embeddings: Tensor, cache) -> Tensor:
        """(b, length, C) after what `cache` holds, which may be None -> the states that a [SEG] is read from, as many.

        Last hidden states after the final norm, or before it where the family says so.
        """
        images = getattr(cache, "images", [])
        past, states = 0 if cache is None else cache.get_seq_length(), []
        places = _place(images, torch.arange(past, past + embeddings.shape[1], device=embeddings.device))
        with ExitStack() as hooks:
            for sight, start in images:
                for layer, more in zip(self.layers, sight.deep, strict=False):
                    hooks.enter_context(layer.register_forward_hook(partial(_add, more, start - past)))
            if self.config.family.before_norm:
                hooks.enter_context(self.final_norm.register_forward_pre_hook(lambda _, given: states.append(given[0])))
            given = {"inputs_embeds": embeddings, "past_key_values": cache, "use_cache": True, "position_ids": places}
            states.append(self.language_model.model(**given).last_hidden_state)
        return states[0].to(embeddings.device)

    def score_tokens(self, states: Tensor) -> Tensor:
        """What `read` gives (..., C) -> float32 logits over the vocabulary."""
        normed = self.final_norm(states) if self.config.family.before_norm else states
        return self.language_model.lm_head(normed).float()

    def propose(self, features: CanvasFeatures, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """[SEG] embeddings (n, D) -> SAM2's three candidates for each: logits (n, 3, g, g), predicted IoU (n, 3)."""
        return self._decode(self.without_memory(features), features.fine, embeddings[None, :, None])[:2]

    def draw(self, features: CanvasFeatures, seg_states: Tensor) -> Masks:
        """[SEG] states (n, C) -> masks: of the three candidates the one with the best predicted IoU."""
        return self.draw_still(features, self.embed_segs(seg_states))

    def embed_segs(self, seg_states: Tensor) -> Tensor:
        """[SEG] states (n, C) -> what they ask SAM2 for (n, D)."""
        head = self.text_hidden_fcs[0].weight
        return self.text_hidden_fcs(seg_states.to(device=head.device, dtype=head.dtype))

    def draw_still(self, features: CanvasFeatures, embeddings: Tensor) -> Masks:
        """[SEG] embeddings (n, D) -> masks in an image that nothing came before."""
        return self.choose(self.without_memory(features), features.fine, embeddings[None, :, None])

    def choose(self, image: Tensor, fine: tuple[Tensor, Tensor], words: Tensor) -> Masks:
        """b images (b, D, s, s) with their fine features and k words for each of m masks (b, m, k, D) -> b * m masks:
        of three candidates the one with the best predicted IoU."""
        logits, ious, tokens, scores = self._decode(image, fine, words)
        best = ious.argmax(dim=-1)
        rows = torch.arange(len(best), device=best.device)
        return Masks(logits[rows, best].float(), ious.float(), tokens[rows, best], scores.float())

    def without_memory(self, features: CanvasFeatures) -> Tensor:
        """The features (b, D, s, s) of an image that nothing came before, as the mask decoder takes them."""
        return features.image + self.grounding_encoder.no_memory_embedding.reshape(1, -1, 1, 1)

    def _decode(self, image: Tensor, fine: tuple[Tensor, Tensor], words: Tensor) -> tuple[Tensor, ...]:
        """What `choose` takes -> all candidates (n, 3, g, g), their IoU (n, 3) and tokens (n, 3, D), scores (n, 1)."""
        sam2, side = self.grounding_encoder, image.shape[-1]
        blank = sam2.prompt_encoder.not_a_point_embed.weight.expand(*words.shape[:2], 2, -1)
        no_mask = sam2.prompt_encoder.no_mask_embed.weight[:, :, None, None]
        made = sam2.mask_decoder(
            image_embeddings=image,
            image_positional_embeddings=sam2.get_image_wide_positional_embeddings().expand(len(image), -1, -1, -1),
            sparse_prompt_embeddings=torch.cat([blank, words.to(blank)], dim=2),
            dense_prompt_embeddings=no_mask.expand(1, -1, side, side),
            multimask_output=True,
            high_resolution_features=list(fine),
        )
        return tuple(part.flatten(0, 1) for part in made)


def stack(sights: list[Sight]) -> Sight:
    """Several images that are as many tokens in the same grid, as one; or one film."""
    deep = zip(*(sight.deep for sight in sights), strict=True)
    tokens = torch.stack([sight.tokens for sight in sights])
    return replace(sights[0], tokens=tokens, deep=tuple(map(torch.stack, deep)))


def string(frames: list[Sight]) -> Sight:
    """Frames that are shown one after the other."""
    return Sight(torch.cat([frame.tokens for frame in frames]), frames=tuple(frames))


def as_map(flat: Tensor) -> Tensor:
    """(s*s, b, D) -> (b, D, s, s)."""
    side = int(len(flat) ** 0.5)
    return flat.permute(1, 2, 0).unflatten(-1, (side, side))


def _place(images: list[tuple[Sight, int]], order: Tensor) -> Tensor | None:
    """Positions (3, 1, m) of the tokens with these numbers (m,): in time, down and across. An image's tokens all have
    the time of its first; what follows goes on where the image's longer side ends. None: as they are numbered."""
    if not any(sight.grid for sight, _ in images):
        return None
    places, saved = order.expand(3, -1), 0  # saved: by how much less than its number a token's position is
    for sight, start in images:
        since, first, columns = order - start, start - saved, sight.grid[1]
        seen = first + torch.stack([torch.zeros_like(order), since // columns, since % columns])
        saved += len(sight) - max(sight.grid)
        places = torch.where(since < 0, places, torch.where(since < len(sight), seen, order - saved))
    return places[:, None]


def _add(more: Tensor, begin: int, layer: nn.Module, given: tuple, out: Tensor) -> None:
    """A hook that adds ([b,] n, C) to what a layer gave (b, m, C), from place `begin` on, as far as that reaches."""
    first, last = max(begin, 0), min(begin + more.shape[-2], out.shape[1])
    if first < last:
        out[:, first:last] += more[..., first - begin : last - begin, :].to(out)
