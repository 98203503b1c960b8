"""SAM2's memory of a film, used as the official Sa2VA uses it: drawn where the language model asks, then followed.

On a few conditioning frames each [SEG] is drawn as in a still image. Every mask is then remembered together with what
SAM2 saw. On all other frames nothing is asked: SAM2 looks at what it remembers of the conditioning frames, whichever
they are, and of the last six others, and draws on. Nothing older is kept, so that a film may be as long as it likes.

Plain torch, with gradients where the caller has them on. Shapes: n [SEG], D SAM2's width, M that of its memory, s x s
places of its coarse features, g the mask grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoPositionEmbeddingSine

from sa2va_lab.sa2va.modeling import CanvasFeatures, Masks, Sa2VA
from sa2va_lab.sa2va.watching import Overflow

POINTERS = 15  # so many frames back a pointer is still looked at; those of conditioning frames always


@dataclass
class _Held:
    """Of one frame: seen (s*s, n, M) bfloat16, the features with the masks, None where they are too far back; pointers
    (n, D), what each mask is of."""

    seen: Tensor | None
    pointers: Tensor


class FilmMemory:
    """What SAM2 remembers of n things in one film; each has a memory of its own.

    First `condition` on the conditioning frames, then `follow` on the others in their order; frames go by their numbers
    in the film, and one may be missing. For each of n things it holds 11 frames of s*s*M bfloat16 at most, which is
    5.5 MiB in released models. While it looks at them, keys and values take 44 MiB in bf16.
    embeddings: (n, D), what is asked for (`Sa2VA.embed_segs`).
    """

    def __init__(self, model: Sa2VA, embeddings: Tensor):
        self.embeddings = embeddings
        self._conditioning: dict[int, _Held] = {}
        self._followed: dict[int, _Held] = {}
        self.run_on(model)

    def run_on(self, model: Sa2VA) -> None:
        """Goes on with this network, which may be the same in another precision or place."""
        self.model, self._sam2 = model, model.grounding_encoder
        side = self._sam2.config.vision_config.backbone_feature_sizes[-1][0]
        like = self._sam2.no_memory_embedding
        self._here, self._there = (
            _places(side, width).to(like) for width in (self._sam2.hidden_dim, self._sam2.mem_dim)
        )

    def condition(self, number: int, features: CanvasFeatures) -> Masks:
        """Draws what is asked for on frame `number` as in a still image, and remembers it for good."""
        masks = self.model.draw_still(features, self.embeddings)
        self._conditioning[number] = self._encode(features, masks)
        return masks

    def follow(self, number: int, features: CanvasFeatures) -> Masks:
        """Draws what is remembered on frame `number`, and remembers that for as long as SAM2 looks back."""
        many = len(self.embeddings)
        fine = tuple(level.expand(many, -1, -1, -1) for level in features.fine)
        nothing = features.image.new_zeros(many, 1, 0, features.image.shape[1])
        masks = self.model.choose(self._recall(number, features.image), fine, nothing)
        self._followed[number] = self._encode(features, masks)
        for old in [one for one in self._followed if one <= number - POINTERS]:
            del self._followed[old]
        for old, held in self._followed.items():
            if old <= number - self._back:
                held.seen = None
        return masks

    @property
    def _back(self) -> int:
        """How many frames back features are looked at."""
        return self._sam2.num_maskmem - 1

    def _encode(self, features: CanvasFeatures, masks: Masks) -> _Held:
        sam2, config = self._sam2, self._sam2.config
        side = features.image.shape[-1] * config.mask_downsampler_total_stride  # the canvas, in released models
        wide = F.interpolate(masks.logits[:, None], size=(side, side), mode="bilinear", align_corners=False)
        shown = wide.sigmoid() * config.sigmoid_scale_for_mem_enc + config.sigmoid_bias_for_mem_enc
        seen, _ = sam2.memory_encoder(features.image, shown.to(features.image))
        if not (torch.isfinite(seen).all() and torch.isfinite(masks.logits).all()):
            kind = str(seen.dtype).removeprefix("torch.")
            raise Overflow(f"numbers left the range of {kind}, first in the memory of a film")
        pointers = torch.where(masks.scores > 0, sam2.object_pointer_proj(masks.tokens), sam2.no_object_pointer)
        # rounded as in training, whatever the network's own precision
        return _Held(seen.to(torch.bfloat16).flatten(2).permute(2, 0, 1), pointers)

    def _recall(self, number: int, image: Tensor) -> Tensor:
        """Features (1, D, s, s) of frame `number` -> the same in the light of what is remembered (n, D, s, s)."""
        attention, ages = self._sam2.memory_attention, self._sam2.memory_temporal_positional_encoding
        seen = [(held.seen, self._back) for held in self._conditioning.values()]
        back = (number - steps for steps in range(self._back, 0, -1))
        seen += [(self._followed[one].seen, number - one - 1) for one in back if one in self._followed]
        pointers = [held.pointers for one, held in self._conditioning.items() if one < number]
        back = (number - steps for steps in range(1, POINTERS + 1))
        pointers += [self._followed[one].pointers for one in back if one in self._followed]
        # a pointer is cut into pieces as wide as the memory, one after the other
        pieces = [pointer.unflatten(1, (-1, self._sam2.mem_dim)).transpose(0, 1) for pointer in pointers]
        held = torch.cat([part.to(image) for part in (*(one for one, _ in seen), *pieces)])
        count = len(held) - sum(len(one) for one, _ in seen)
        places = torch.cat([*(self._there + ages[age] for _, age in seen), held.new_zeros(count, 1, held.shape[-1])])
        recalled = attention(
            current_vision_features=image.flatten(2).permute(2, 0, 1).expand(-1, len(self.embeddings), -1),
            current_vision_position_embeddings=self._here,
            memory=held,
            memory_posision_embeddings=places,
            num_object_pointer_tokens=count,
        )  # (1, n, s*s, D)
        return recalled[0].transpose(1, 2).unflatten(2, image.shape[-2:])


def _places(side: int, width: int) -> Tensor:
    """Where each of side x side places is, (side * side, 1, width) float32."""
    encode = Sam2VideoPositionEmbeddingSine(width // 2, normalize=True)
    return encode((1, width, side, side), "cpu", torch.float32).flatten(2).permute(2, 0, 1)
