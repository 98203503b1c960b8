"""The two lessons in which the demo's Sa2VA learns: first to draw, then to read and answer.

Trained end to end from the start, the [SEG] states of two phrases stay the same vector and the prompt is ignored. So
each phrase gets a frozen random code; SAM2 learns to draw what a code stands for, while the vision tower and the
language model learn, apart from it, to see whether the thing is there and to turn the phrase into its code.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sa2va_lab.sa2va.modeling import Sa2VA
from sa2va_lab.sa2va.processing import PromptReader
from tools.demo.angiograms import PHRASES
from tools.demo.frames import Frames, expose, normalise, resize, turn
from tools.demo.tiny import ABSENT, CANVAS, HIDDEN, NAMES, PRESENT, QUESTIONS, TILE, WIDTH

CROP = 256  # the drawing lesson starts with pictures of this size: a quarter of the work of a full canvas
NEAR_UNTIL = 0.37  # share of the drawing lesson spent at that size; then the full canvas
LOOK_UNTIL = 0.6  # share of the answering lesson in which only the vision tower learns
ASKED = (0.2, 0.4, 0.4)  # how often each phrase is asked about where it is there; five times as often where not


def phrase_codes() -> Tensor:
    """The frozen code of each phrase, (phrases, D): what the [SEG] embedding of that phrase must become."""
    return torch.randn(len(PHRASES), HIDDEN, generator=torch.Generator().manual_seed(11))


class Lesson:
    """One stretch of training: AdamW, a warm-up and a cosine, an average of the weights, a log and checkpoints.

    It ends after `steps`, never by the clock: each step draws its random numbers from its own number, so that a seed
    gives one model, and a resumed lesson goes on as if nothing had happened. At the end `parts` hold the averaged
    weights.
    """

    def __init__(self, name: str, parts: nn.Module, folder: Path, *, steps: int, peak: float, average: float = 0.99):
        self.name, self.parts, self.folder = name, parts, Path(folder)
        self.steps, self.peak, self.average = steps, peak, average
        self.step, self.seconds = 0, 0.0
        self.parameters = [p for p in parts.parameters() if p.requires_grad]
        decayed = [p for p in self.parameters if p.ndim > 1]
        others = [p for p in self.parameters if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": 0.02}, {"params": others, "weight_decay": 0.0}], betas=(0.9, 0.98)
        )
        self.mean = [p.detach().clone() for p in self.parameters]
        self.checkpoint = self.folder / f"{name}.pt"
        if self.checkpoint.is_file():
            self._resume()

    @property
    def share(self) -> float:
        """How much of the lesson is over, 0..1."""
        return min(1.0, self.step / self.steps)

    @property
    def rate(self) -> float:
        """The learning rate now."""
        cosine = 0.5 + 0.5 * math.cos(math.pi * max(0.0, self.share - 0.4) / 0.6)
        return self.peak * min(1.0, (self.step + 1) / 50) * max(0.01, cosine)

    def run(
        self,
        loss: Callable[[float, np.random.Generator], tuple[Tensor, dict]],
        *,
        progress: bool,
    ) -> None:
        """Steps on `loss(share, rng)` to the lesson's end."""
        from tqdm import tqdm

        bar = tqdm(desc=self.name, total=self.steps, initial=self.step, disable=not progress)
        started, saved, before = time.monotonic(), time.monotonic(), self.seconds
        self.parts.train()
        while self.share < 1:
            for group in self.optimizer.param_groups:
                group["lr"] = self.rate
            value, parts = loss(self.share, np.random.default_rng([17, self.step]))
            value.backward()
            norm = nn.utils.clip_grad_norm_(self.parameters, 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.step += 1
            keep = min(self.average, self.step / (self.step + 10))
            with torch.no_grad():
                torch._foreach_lerp_(self.mean, self.parameters, 1 - keep)
            self.seconds = before + time.monotonic() - started
            if self.step % 10 == 0:
                self._log(loss=value.item(), norm=norm.item(), **parts)
                bar.update(self.step - bar.n)
                bar.set_postfix(loss=f"{value.item():.3f}")
            if time.monotonic() - saved > 120:
                self.save()
                saved = time.monotonic()
        bar.close()
        self.save()
        with torch.no_grad():
            for parameter, mean in zip(self.parameters, self.mean, strict=True):
                parameter.copy_(mean)
        self.parts.eval()

    def _log(self, **values) -> None:
        line = {"lesson": self.name, "step": self.step, "seconds": round(self.seconds), "rate": self.rate}
        line |= {k: round(v, 4) if isinstance(v, float) else v for k, v in values.items()}
        with open(self.folder / f"{self.name}.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def save(self) -> None:
        """Writes the checkpoint, whole or not at all."""
        draft = self.checkpoint.with_suffix(".part")
        torch.save(
            {
                "step": self.step,
                "seconds": self.seconds,
                "mean": self.mean,
                "parts": self.parts.state_dict(),
                "optimizer": self.optimizer.state_dict(),
            },
            draft,
        )
        draft.replace(self.checkpoint)

    def _resume(self) -> None:
        kept = torch.load(self.checkpoint, weights_only=True)
        self.parts.load_state_dict(kept["parts"])
        self.optimizer.load_state_dict(kept["optimizer"])
        self.mean, self.step, self.seconds = kept["mean"], kept["step"], kept["seconds"]


def cut_window(frames: Frames, i: int, side: int, *, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """A training picture (3, side, side), its targets (phrases, side/2, side/2) and the window (x, y, width) in 0..1.

    Most are whole frames, for only there can a catheter be told from a vessel; the other windows go up to 1.5-fold
    enlargement, for the thin branches. Targets are area averages, so that a vessel thinner than a mask cell asks for
    a probability in between.
    """
    image, masks = turn(*frames.frame(i), rng=rng, upright=bool(rng.random() < 0.9))
    full = frames.size
    kind, wide = rng.random(), full
    if side < full and kind < 0.3:
        wide = side if kind < 0.15 else int(rng.integers(side, full + 1)) if kind < 0.25 else side * 2 // 3
    elif side == full and kind < 0.15:
        wide = int(rng.integers(full // 2, full))
    x, y = (int(rng.integers(0, full - wide + 1)) for _ in range(2))
    image, masks = (part[:, y : y + wide, x : x + wide] for part in (image, masks))
    picture = normalise(expose(resize(image, side), rng=rng), tile=False)
    targets = F.interpolate(masks[None], size=(side, side), mode="area")[0] if wide != side else masks
    return picture, F.avg_pool2d(targets, 2), torch.tensor([x / full, y / full, wide / full])


def draw_candidates(model: Sa2VA, pictures: Tensor, windows: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 3, s, s), (B, 3), (B, n, D) -> logits (B, n, 3, s/2, s/2) and predicted IoU (B, n, 3)."""
    sam2 = model.grounding_encoder
    seen = model.encode_canvas(pictures)
    side = seen.image.shape[-1]
    steps = (torch.arange(side) + 0.5) / side
    places = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=-1)  # a window keeps its place in the frame
    places = windows[:, None, None, :2] + places * windows[:, None, None, 2:]
    blank = sam2.prompt_encoder.not_a_point_embed.weight.expand(*codes.shape[:2], 2, -1)
    logits, ious, _, _ = sam2.mask_decoder(
        image_embeddings=model.without_memory(seen),
        image_positional_embeddings=sam2.shared_image_embedding(places).permute(0, 3, 1, 2),
        sparse_prompt_embeddings=torch.cat([blank, codes[:, :, None]], dim=2),
        dense_prompt_embeddings=sam2.prompt_encoder.no_mask_embed.weight[:, :, None, None].expand(1, -1, side, side),
        multimask_output=True,
        high_resolution_features=list(seen.fine),
    )
    return logits, ious


def mask_loss(logits: Tensor, ious: Tensor, targets: Tensor) -> tuple[Tensor, dict]:
    """2 x cross-entropy (positives threefold) + soft Dice where the thing is + 0.1 x error of the predicted IoU."""
    wanted = targets[:, :, None].expand_as(logits)
    cross = F.binary_cross_entropy_with_logits(logits, wanted, pos_weight=torch.tensor(3.0))
    chance = logits.sigmoid()
    overlap = (chance * wanted).sum((-2, -1))
    dice = 1 - (2 * overlap + 1) / (chance.sum((-2, -1)) + wanted.sum((-2, -1)) + 1)
    there = (targets.sum((-2, -1)) > 8)[..., None].float().expand_as(dice)
    dice = (dice * there).sum() / there.sum().clamp(min=1)
    with torch.no_grad():
        drawn, true = logits > 0, wanted > 0.5
        union = (drawn | true).sum((-2, -1))
        quality = torch.where(union > 0, (drawn & true).sum((-2, -1)) / union.clamp(min=1), 1.0)
    judged = (ious - quality).square().mean()
    parts = {"cross": cross.item(), "dice": dice.item(), "iou_error": judged.item()}
    return 2 * cross + dice + 0.1 * judged, parts


def teach_drawing(
    model: Sa2VA,
    frames: Frames,
    folder: Path,
    *,
    steps: int,
    peak: float = 2e-3,
    near_until: float = NEAR_UNTIL,
    progress: bool = True,
) -> Lesson:
    """SAM2 learns to draw what each phrase's code stands for. Leaves the averaged weights in `model`.

    near_until: the share of the lesson spent on small pictures; 0 for a model that has had the lesson before.
    """
    codes = phrase_codes()
    sam2 = model.grounding_encoder
    trained = nn.ModuleList([sam2.vision_encoder, sam2.mask_decoder, sam2.prompt_encoder, sam2.shared_image_embedding])
    direct = nn.Module()
    direct.trained, direct.no_memory = trained, sam2.no_memory_embedding

    def loss(share: float, rng: np.random.Generator) -> tuple[Tensor, dict]:
        side, batch = (CROP, 4) if share < near_until else (CANVAS, 2)
        cuts = [cut_window(frames, int(i), side, rng=rng) for i in rng.integers(len(frames), size=batch)]
        pictures, targets, windows = (torch.stack(column) for column in zip(*cuts, strict=True))
        blurred = codes + 0.1 * torch.from_numpy(rng.standard_normal((batch, *codes.shape), dtype=np.float32))
        return mask_loss(*draw_candidates(model, pictures, windows, blurred), targets)

    lesson = Lesson("drawing", direct, folder, steps=steps, peak=peak)
    lesson.run(loss, progress=progress)
    return lesson


class Conversations:
    """Questions and answers as padded batches of token ids."""

    def __init__(self, reader: PromptReader):
        self.reader = reader

    def batch(
        self, presence: np.ndarray, *, rng: np.random.Generator, asked: tuple[float, ...] = ASKED, absent: float = 5
    ) -> dict[str, Tensor]:
        """One conversation for each image; `presence` (B, phrases) as `Frames.presence` gives it.

        asked: how often each phrase is asked about where it is there; `absent` times as often where it is not.

        ids (B, L); image (B, L) where the image tokens belong; labels (B, L), -100 where nothing is to be learnt;
        mask (B, L); seg (B,) the position of [SEG] as an input, or -1; phrase (B,). Where a thing is absent, some
        conversations force the answer with [SEG], to teach its state but not the answer.
        """
        rows, labels, segs, phrases = [], [], [], []
        for there in presence:
            odds = np.array(asked) * np.where(there == 0, absent, 1)
            phrase = int(rng.choice(len(PHRASES), p=odds / odds.sum()))
            name = str(rng.choice(NAMES[PHRASES[phrase]]))
            name = PHRASES[phrase] if rng.random() < 0.5 else name
            question = str(rng.choice(QUESTIONS)).format(name)
            asked_for = "<image>" + ("\n" if rng.random() < 0.6 else "") + question
            prompt = self.reader.prompt_ids(asked_for, self.reader.config.tokens_per_tile).all
            say = there[phrase] == 0 and rng.random() < 0.75
            answer = self.reader.answer_ids(ABSENT.format(name) if say else PRESENT)
            rows.append(prompt + answer)
            learn = say or there[phrase] == 1
            labels.append([-100] * len(prompt) + (answer if learn else [-100] * len(answer)))
            segs.append(rows[-1].index(self.reader.seg) if not say else -1)
            phrases.append(phrase)
        longest = max(len(row) for row in rows)
        ids = torch.tensor([row + [self.reader.end] * (longest - len(row)) for row in rows])
        return {
            "ids": ids,
            "image": ids == self.reader.context,
            "labels": torch.tensor([row + [-100] * (longest - len(row)) for row in labels]),
            "mask": torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows]),
            "seg": torch.tensor(segs),
            "phrase": torch.tensor(phrases),
        }


def answer_loss(model: Sa2VA, tokens: Tensor, batch: dict[str, Tensor], codes: Tensor) -> tuple[Tensor, dict]:
    """Cross-entropy of the answers + squared distance of each [SEG] embedding to its phrase's code."""
    embeddings = model.embed(batch["ids"]).masked_scatter(batch["image"][..., None], tokens)
    states = model.language_model.model(inputs_embeds=embeddings, attention_mask=batch["mask"]).last_hidden_state
    learnt = batch["labels"][:, 1:] != -100
    scores = model.score_tokens(states[:, :-1][learnt])
    wanted = batch["labels"][:, 1:][learnt]
    cross = F.cross_entropy(scores, wanted)
    first = learnt & (learnt.cumsum(1) == 1)
    right = (scores.argmax(-1) == wanted)[first[learnt]].float().mean()
    has = batch["seg"] >= 0
    said = model.text_hidden_fcs(states[has.nonzero()[:, 0], batch["seg"][has]])
    apart = F.mse_loss(said, codes[batch["phrase"][has]])
    return cross + apart, {"cross": cross.item(), "apart": apart.item(), "right": right.item()}


def teach_answering(
    model: Sa2VA,
    frames: Frames,
    reader: PromptReader,
    folder: Path,
    *,
    steps: int,
    peak: float = 1e-3,
    look_until: float = LOOK_UNTIL,
    batch: int = 16,
    progress: bool = True,
) -> Lesson:
    """Vision tower, projector, language model and [SEG] projection learn to answer. Leaves averaged weights.

    The vision tower first learns where things are, patch by patch, from a linear head on the projected tokens that
    is thrown away afterwards: a hundred times more to learn from than a yes or no for each picture.
    """
    codes, conversations = phrase_codes(), Conversations(reader)
    side = math.isqrt(model.config.tokens_per_tile)
    torch.manual_seed(3)
    spot = nn.Linear(WIDTH, 4 * len(PHRASES))  # for each image token, its 2 x 2 patches
    trained = nn.ModuleList([model.vision_model, model.mlp1, spot, model.language_model, model.text_hidden_fcs])

    def loss(share: float, rng: np.random.Generator) -> tuple[Tensor, dict]:
        chosen = rng.integers(len(frames), size=batch)
        pictures, places = [], []
        for i in chosen:
            image, masks = turn(*frames.frame(int(i)), rng=rng, upright=True)
            pictures.append(normalise(expose(resize(image, TILE), rng=rng), tile=True))
            places.append(F.adaptive_max_pool2d(masks, 2 * side))
        tokens = model.encode_image(torch.stack(pictures)).tokens.unflatten(0, (batch, -1))
        grid = spot(tokens).unflatten(1, (side, side)).unflatten(-1, (len(PHRASES), 2, 2))
        grid = grid.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)  # (B, phrases, 2 side, 2 side)
        found = F.binary_cross_entropy_with_logits(grid, torch.stack(places), pos_weight=torch.tensor(2.0))
        if share < look_until:
            return found, {"found": found.item()}
        presence = np.stack([frames.presence(int(i)) for i in chosen])
        value, parts = answer_loss(model, tokens, conversations.batch(presence, rng=rng), codes)
        return value + found, parts | {"found": found.item()}

    lesson = Lesson("answering", trained, folder, steps=steps, peak=peak)
    lesson.run(loss, progress=progress)
    return lesson
