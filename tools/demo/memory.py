"""The third lesson of the demo's Sa2VA: to follow through a film what was found in its first five frames.

    teach("data/demo/base", "NEW", work="outputs/demo-memory")

Only SAM2's memory learns: the encoder of memories, the attention that reads them and the pointers. Everything else is
frozen, so what the rest makes of the training films is computed once and kept in `work`. After the first five frames
SAM2's decoder gets no words any more; all it knows of the thing it is to draw must come through the features that the
memory has changed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoPositionEmbeddingSine

from sa2va_lab.loading.checkpoint import Checkpoint
from sa2va_lab.sa2va.configuration import read_config, read_raw
from sa2va_lab.sa2va.modeling import Sa2VA
from sa2va_lab.sa2va.processing import normalise, stretch
from sa2va_lab.sa2va.weights import build_empty, load_weights
from tools.demo.angiograms import PHRASES, make_patient
from tools.demo.frames import CLEAR
from tools.demo.lessons import Lesson, mask_loss, phrase_codes
from tools.demo.pretraining import refuse_other_plan, write_base

SHOWN = 5  # frames that the language model sees, and that a memory never loses
LENGTH = 12  # frames of a training film
FAR_EVERY = 5  # every fifth film is one of 800 pixels
WEIGHTS = (0.5, 0.3, 0.2)  # how often a film is asked for each phrase that it shows
PLAN = {
    "films": {"count": 24, "first": 2_000_000},
    "remembering": {"steps": 365, "near_until": 1.0},
}


class Films:
    """Invented films as the frozen network sees them, one file each; what is missing is made.

    A film is a dict: coarse (f, D, s, s) without "no memory", fine0 and fine1, targets uint8 (f, phrases, 4s, 4s) of
    255, there (phrases,) bool, and of the first five frames logits (phrases, 5, 4s, 4s) and tokens (phrases, 5, D),
    from which the memory is made. The words of a phrase are its code with a little noise, as in the lesson before.
    """

    def __init__(
        self, folder: Path, model: Sa2VA, *, count: int, first: int, frames: int = LENGTH, progress: bool = True
    ):
        from tqdm import tqdm

        self.folder, self.model, self.frames = Path(folder), model, frames
        self.folder.mkdir(parents=True, exist_ok=True)
        self.numbers = range(first, first + count)
        missing = [number for number in self.numbers if not self._path(number).is_file()]
        for number in tqdm(missing, desc="films", disable=not progress or not missing):
            draft = self._path(number).with_suffix(".part")
            torch.save(self._see(number), draft)
            draft.replace(self._path(number))

    def _path(self, number: int) -> Path:
        return self.folder / f"{number}.pt"

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, place: int) -> dict[str, Tensor]:
        return torch.load(self._path(self.numbers[place]), mmap=True, weights_only=True)

    @torch.no_grad()
    def _see(self, number: int) -> dict[str, Tensor]:
        codes = phrase_codes()
        codes = codes + 0.1 * torch.randn(codes.shape, generator=torch.Generator().manual_seed(number))
        size = 800 if number % FAR_EVERY == 0 else 512
        film = {name: [] for name in ("coarse", "fine0", "fine1", "targets", "logits", "tokens")}
        for frame in make_patient(number, frames=self.frames, size=size):
            canvas = normalise(stretch(Image.fromarray(frame.image).convert("RGB"), self.model.config).float())
            with torch.autocast("cpu", torch.bfloat16):
                seen = self.model.encode_canvas(canvas)
            masks = torch.from_numpy(np.stack([frame.masks[phrase] for phrase in PHRASES]))
            fine = seen.fine[0].shape[-1]
            film["targets"].append((F.adaptive_avg_pool2d(masks.float(), fine) * 255).round().byte())
            if frame.frame < SHOWN:
                with torch.autocast("cpu", torch.bfloat16):
                    drawn = self.model.draw_still(seen, codes)
                film["logits"].append(drawn.logits.half())
                film["tokens"].append(drawn.tokens.float())
            film["coarse"].append(seen.image[0].half())
            film["fine0"].append(seen.fine[0][0].half())
            film["fine1"].append(seen.fine[1][0].half())
        made = {name: torch.stack(parts, 1 if name in ("logits", "tokens") else 0) for name, parts in film.items()}
        area = (made["targets"] > 127).sum((-2, -1))  # (f, phrases), in cells of four canvas pixels
        seldom = torch.minimum(area[:SHOWN].max(0).values, area[SHOWN:].min(0).values)
        return made | {"there": seldom >= CLEAR / 4}


@dataclass(frozen=True)
class Window:
    """A square of `side` x `side` places of SAM2's coarse grid, which has `whole` x `whole`."""

    y: int
    x: int
    side: int
    whole: int

    def cut(self, maps: Tensor) -> Tensor:
        """Its part of maps (..., h, w), whatever their resolution."""
        scale = maps.shape[-1] // self.whole
        rows, columns = (slice(start * scale, (start + self.side) * scale) for start in (self.y, self.x))
        return maps[..., rows, columns]


def follow(sam2, image: Tensor, fine: Iterable[Tensor], window: Window) -> tuple[Tensor, ...]:
    """Features (b, D, h, w) of a window, asked nothing -> candidates: logits (b, 1, 3, 4h, 4w), their predicted IoU
    (b, 1, 3) and tokens (b, 1, 3, D); object score (b, 1, 1)."""
    blank = sam2.prompt_encoder.not_a_point_embed.weight.expand(len(image), 1, 2, -1)
    no_mask = sam2.prompt_encoder.no_mask_embed.weight[:, :, None, None]
    return sam2.mask_decoder(
        image_embeddings=image,
        image_positional_embeddings=window.cut(sam2.get_image_wide_positional_embeddings()).expand_as(image),
        sparse_prompt_embeddings=blank,
        dense_prompt_embeddings=no_mask.expand_as(image),
        multimask_output=True,
        high_resolution_features=list(fine),
    )


class Recall:
    """The memory of b things in b films, one each, as far as a window shows it."""

    def __init__(self, sam2, window: Window):
        self.sam2, self.window = sam2, window
        self.maps: list[tuple[Tensor, Tensor]] = []  # (places, b, channels) each: what is remembered, where and when
        self.pointers: list[Tensor] = []  # (tokens, b, channels) each
        grid = sam2.memory_attention.precompute_positions(sam2.config).T.unflatten(1, (window.whole, window.whole))
        sam2.memory_attention.position_ids = window.cut(grid).flatten(1).T
        self.own, self.theirs = (self._places(sam2.hidden_dim), self._places(sam2.mem_dim))

    def _places(self, channels: int) -> Tensor:
        sine = Sam2VideoPositionEmbeddingSine(channels // 2, normalize=True)
        whole = sine((1, channels, self.window.whole, self.window.whole), "cpu", torch.float32)
        return self.window.cut(whole).flatten(2).permute(2, 0, 1)  # (places, 1, channels)

    def keep(self, coarse: Tensor, logits: Tensor, token: Tensor, score: Tensor, *, back: int) -> None:
        """Adds a frame: features (b, D, h, w), mask logits (b, 4h, 4w), SAM2's token (b, D) and object score (b, 1);
        `back`: how many frames it lies back, 0 where it is one of the first."""
        sam2 = self.sam2
        chance = F.interpolate(logits[:, None], scale_factor=4.0, mode="bilinear", align_corners=False).sigmoid()
        told = chance * sam2.config.sigmoid_scale_for_mem_enc + sam2.config.sigmoid_bias_for_mem_enc
        *early, late = sam2.memory_encoder.mask_downsampler.layers
        with torch.no_grad():  # these stay as they began: random filters tell enough of a mask, and cost most of a step
            for layer in early:
                told = layer(told)
        told = sam2.memory_encoder.mask_downsampler.final_conv(late(told))
        made = sam2.memory_encoder.memory_fuser(sam2.memory_encoder.feature_projection(coarse) + told)
        flat = sam2.memory_encoder.projection(made).flatten(2).permute(2, 0, 1)
        self.maps.append((flat, self.theirs + sam2.memory_temporal_positional_encoding[back - 1]))
        pointer = torch.where(score > 0, sam2.object_pointer_proj(token), sam2.no_object_pointer)
        self.pointers.append(pointer.unflatten(1, (-1, sam2.mem_dim)).transpose(0, 1))

    def change(self, coarse: Tensor) -> Tensor:
        """Features of another frame (b, D, h, w) as the memory makes them, of the same shape."""
        places = torch.cat([place.expand_as(kept) for kept, place in self.maps] + [0 * one for one in self.pointers])
        return (
            self.sam2.memory_attention(
                current_vision_features=coarse.flatten(2).permute(2, 0, 1),
                current_vision_position_embeddings=self.own.expand(-1, len(coarse), -1),
                memory=torch.cat([kept for kept, _ in self.maps] + self.pointers),
                memory_posision_embeddings=places,  # so spelt in transformers
                num_object_pointer_tokens=sum(map(len, self.pointers)),
            )
            .squeeze(0)
            .transpose(1, 2)
            .unflatten(2, coarse.shape[-2:])
        )


def teach_remembering(
    model: Sa2VA,
    films: Films,
    folder: Path,
    *,
    steps: int,
    peak: float = 2e-3,
    near_until: float,
    progress: bool = True,
) -> Lesson:
    """SAM2's memory learns to change features so that the decoder, asked nothing, draws what the first frames showed.

    A step takes some of the first five frames of a few films, with the masks that the frozen network draws there, and
    two later frames: the first is drawn from those alone, the second from those and the first. Gradients do not go
    from frame to frame. Most of the lesson looks through windows of a quarter of the frame; the rest sees all of it.
    """
    sam2 = model.grounding_encoder
    there = [(i, int(p)) for i in range(len(films)) for p in films[i]["there"].nonzero()[:, 0]]
    odds = np.array([WEIGHTS[p] for _, p in there]) / sum(WEIGHTS[p] for _, p in there)
    whole = films[0]["coarse"].shape[-1]
    begin(sam2, films)
    for module in sam2.memory_attention.modules():  # dropout costs half the time here, and rates that are for giants
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif hasattr(module, "dropout_p"):
            module.dropout_p = 0.0

    @torch.autocast("cpu", torch.bfloat16)
    def loss(share: float, rng: np.random.Generator) -> tuple[Tensor, dict]:
        side, batch = (whole // 2, 4) if share < near_until else (whole, 1)
        window = Window(*(int(rng.integers(0, whole - side + 1)) for _ in range(2)), side=side, whole=whole)
        chosen = [there[k] for k in rng.choice(len(there), size=batch, p=odds)]
        seen = [(films[i], p) for i, p in chosen]
        length = len(seen[0][0]["coarse"])
        first = int(rng.integers(SHOWN, length - 1))
        second = int(rng.integers(first + 1, min(first + sam2.num_maskmem - 1, length - 1) + 1))
        asked = sorted(rng.choice(SHOWN, size=int(rng.integers(1, 4)), replace=False).tolist())

        def take(name: str, *place: int) -> Tensor:
            return torch.stack([window.cut(film[name][(p,) * (name == "logits") + place].float()) for film, p in seen])

        recall = Recall(sam2, window)
        for frame in asked:
            tokens = torch.stack([film["tokens"][p, frame] for film, p in seen])
            recall.keep(take("coarse", frame), take("logits", frame), tokens, torch.ones(batch, 1), back=0)
        total, told = 0.0, {}
        for name, frame in (("first", first), ("second", second)):
            coarse, fine = take("coarse", frame), [take("fine0", frame), take("fine1", frame)]
            logits, ious, tokens, score = follow(sam2, recall.change(coarse), fine, window)
            wanted = torch.stack([window.cut(film["targets"][frame, p].float() / 255) for film, p in seen])[:, None]
            value, parts = mask_loss(logits.float(), ious.float(), wanted)
            total, told = total + value / 2, told | {f"{name}_{key}": one for key, one in parts.items()}
            told |= {"least_score": min(told.get("least_score", math.inf), score.min().item())}
            if frame == first:
                best = torch.arange(batch), 0, ious[:, 0].argmax(-1)
                recall.keep(coarse, logits[best].detach(), tokens[best].detach(), score[:, 0], back=second - first)
        return total, told

    lesson = Lesson("remembering", memory_of(sam2), folder, steps=steps, peak=peak)
    lesson.run(loss, progress=progress)
    sam2.memory_attention.position_ids = sam2.memory_attention.precompute_positions(sam2.config)
    return lesson


def memory_of(sam2) -> nn.Module:
    """The parts that learn, as one module; their parameters want gradients."""
    parts = nn.Module()
    for name in ("memory_attention", "memory_encoder", "object_pointer_proj"):
        setattr(parts, name, getattr(sam2, name))
    parts.ages = sam2.memory_temporal_positional_encoding
    for parameter in parts.parameters():
        parameter.data = parameter.data.clone()  # the loaded ones are views of the read-only file
    return parts.requires_grad_(True)


def begin(sam2, films: Films) -> None:
    """Weights to start from: PyTorch's defaults, but what comes out of the memory's attention is nearly what went in.

    Its last norm then gives features of the size and the offset, channel by channel, that the decoder knows.
    """
    torch.manual_seed(5)
    parts = memory_of(sam2)
    for module in parts.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.LayerNorm):
            module.reset_parameters()
    with torch.no_grad():
        parts.ages.normal_(std=0.02)
        for layer in sam2.memory_attention.layers:
            for last in (layer.self_attn.o_proj, layer.linear2):
                last.weight.zero_(), last.bias.zero_()
        for block in sam2.memory_encoder.memory_fuser.layers:
            block.scale.fill_(0.1)
        coarse = torch.cat([films[i]["coarse"][6] for i in range(0, len(films), 8)]).unflatten(0, (-1, sam2.hidden_dim))
        flat = coarse.float().flatten(2).transpose(1, 2).flatten(0, 1)  # (places, D)
        known, norm = flat + sam2.no_memory_embedding[0], sam2.memory_attention.layer_norm
        even = F.layer_norm(flat, flat.shape[1:])
        slope = ((even - even.mean(0)) * (known - known.mean(0))).mean(0) / even.var(0, correction=0)
        norm.weight.copy_(slope)
        norm.bias.copy_(known.mean(0) - slope * even.mean(0))


def teach(
    base: Path | str,
    folder: Path | str,
    *,
    work: Path | str,
    plan: dict[str, dict] | None = None,
    progress: bool = True,
) -> dict:
    """Writes `base` with a memory that learned to `folder`, and returns the names of all tensors that differ, steps and
    seconds. plan: the films and the lesson's options, `PLAN` if not given. `work` keeps films (about 40 MB each), the
    checkpoint and the log. Raises LabError as `pretraining.train` does."""
    work, plan = Path(work), plan or PLAN
    work.mkdir(parents=True, exist_ok=True)
    refuse_other_plan(work, plan)
    model = load_weights(build_empty(read_config(base)), Checkpoint(base), dtype=torch.float32)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    films = Films(work / "films", model, **plan["films"], progress=progress)
    lesson = teach_remembering(model, films, work, **plan["remembering"], progress=progress)
    changed = [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])]
    write_base(model, folder, raw=read_raw(base), tokenizer=base)
    return {"changed": changed, "steps": lesson.step, "seconds": round(lesson.seconds)}
