"""Images and prompts as the network wants them: tiles, canvas, token ids. PIL and torch give the official pixels."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from sa2va_lab.errors import LabError
from sa2va_lab.files import find_film, open_image

if TYPE_CHECKING:
    from torch import Tensor

    from sa2va_lab.sa2va.family import Sa2VAConfig

THUMB = 512  # px
LONGEST = 4_000  # characters of a prompt; attention costs their square
TILE_MEAN, TILE_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# ImageNet's constants once more, but as SAM2 holds them inside Sa2VA: rounded to bfloat16, even in a float32 model
CANVAS_MEAN, CANVAS_STD = (0.484375, 0.455078125, 0.40625), (0.228515625, 0.2236328125, 0.224609375)
# one of the questions that Sa2VA was trained with, and the newline that stood before them all
TRAINING_QUESTION = "<image>\nPlease segment {phrase} in this image."
ImageLike = Path | str | Image.Image | np.ndarray
RESERVED = (
    *("<img>", "</img>", "<IMG_CONTEXT>", "<|im_start|>", "<|im_end|>", "<|endoftext|>"),
    *("<|user|>", "<|assistant|>", "<|system|>", "<|end|>", "<s>", "</s>"),
    *("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
)


def read_image(source: ImageLike) -> Image.Image:
    """An upright RGB image from a path, a PIL image or an array (H, W), (H, W, 1|3|4).

    EXIF orientation is applied. 16-bit and wider integers are stretched from their own minimum and maximum to 0..255;
    float arrays must lie in [0, 1]; alpha is dropped. Raises LabError for anything that is not an image.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, Image.Image):
        return _to_rgb(source)
    path = Path(source)
    if not path.is_file():
        raise LabError(f"No image file at {path}: check the path.")
    try:
        if film := find_film(path):
            raise LabError(f"{path} is {film}, no image: predict it as a film, or save one of its frames as an image.")
        with open_image(path) as image:
            return _to_rgb(image)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise LabError(f"{path} is not a readable image ({error}): open it in a viewer or export it again.") from None


def _to_rgb(image: Image.Image) -> Image.Image:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        return _from_array(_stretch(np.asarray(image)))
    return image.convert("RGB")


def _from_array(array: np.ndarray) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)) or 0 in array.shape:
        raise LabError(f"An array of shape {array.shape} is not an image: give (H, W), (H, W, 3) or (H, W, 4).")
    if array.dtype == bool:
        array = array.astype(np.uint8) * 255
    elif np.issubdtype(array.dtype, np.floating):
        if not (np.isfinite(array).all() and 0 <= array.min() and array.max() <= 1):
            raise LabError("A float image must lie in [0, 1] and be finite: scale it, or give uint8.")
        array = np.round(array * 255).astype(np.uint8)
    elif array.dtype != np.uint8:
        array = _stretch(array)
    return Image.fromarray(array).convert("RGB")


def _stretch(array: np.ndarray) -> np.ndarray:
    low, high = float(array.min()), float(array.max())
    if not np.isfinite([low, high]).all():
        raise LabError("The image holds values that are not finite: export it again.")
    return np.round((array.astype(np.float64) - low) * (255 / max(high - low, 1e-12))).astype(np.uint8)


class Picture:
    """An image as the network takes it. Each form is made when it is asked for, on the CPU, and kept."""

    def __init__(self, image: ImageLike, config: Sa2VAConfig):
        self.image, self._config = read_image(image), config

    @cached_property
    def digest(self) -> str:
        """Tells it from others by its pixels."""
        return hashlib.sha256(repr(self.image.size).encode() + self.image.tobytes()).hexdigest()

    @cached_property
    def pixels(self):
        """For the language branch: what `config.family.pixels` makes."""
        return self._config.family.pixels(self.image, self._config)

    @cached_property
    def levels(self) -> Tensor:
        """For SAM2: uint8 (1, 3, canvas, canvas), of which the device makes numbers."""
        return stretch(self.image, self._config)

    @cached_property
    def thumbnail(self) -> np.ndarray:
        """uint8 (h, w, 3): the image by a whole number smaller, so that no side is above THUMB; to show it by."""
        return np.asarray(self.image.reduce(math.ceil(max(self.image.size) / THUMB)))

    def drop(self, form: str) -> None:
        """Gives back the memory of a form; it would be made again."""
        vars(self).pop(form, None)

    @classmethod
    def prepare(cls, image: ImageLike, config: Sa2VAConfig) -> Picture:
        """One with all its forms."""
        made = cls(image, config)
        return made if made.digest and made.pixels is not None and made.levels is not None else made


def choose_grid(width: int, height: int, *, tile: int, max_tiles: int) -> tuple[int, int]:
    """(columns, rows) of tiles whose shape is nearest to the image's; on a tie the larger grid only if the image has
    more than half of that grid's pixels."""
    grids = [(i, j) for i in range(1, max_tiles + 1) for j in range(1, max_tiles + 1) if i * j <= max_tiles]
    best, best_gap = (1, 1), float("inf")
    for i, j in sorted(grids, key=lambda grid: grid[0] * grid[1]):
        gap = abs(width / height - i / j)
        if gap < best_gap or (gap == best_gap and width * height > 0.5 * tile * tile * i * j):
            best, best_gap = (i, j), gap
    return best


def cut_tiles(image: Image.Image, config: Sa2VAConfig) -> Tensor:
    """RGB image -> (t, 3, tile, tile) float32: the grid row by row, then the whole image once more if t > 1."""
    import torch

    side = config.tile
    columns, rows = choose_grid(*image.size, tile=side, max_tiles=config.max_tiles)
    stretched = image.resize((side * columns, side * rows), Image.Resampling.BICUBIC)
    corners = [(x * side, y * side) for y in range(rows) for x in range(columns)]
    crops = [stretched.crop((x, y, x + side, y + side)) for x, y in corners]
    if len(crops) > 1:
        crops.append(image.resize((side, side), Image.Resampling.BICUBIC))
    pixels = torch.stack([_to_tensor(crop) for crop in crops]).float() / 255
    return (pixels - _channels(TILE_MEAN)) / _channels(TILE_STD)


def stretch(image: Image.Image, config: Sa2VAConfig) -> Tensor:
    """RGB image -> uint8 (1, 3, canvas, canvas), by PIL, which decides the pixels."""
    return _to_tensor(image.resize((config.canvas, config.canvas), Image.Resampling.BICUBIC))[None]


def normalise(levels: Tensor) -> Tensor:
    """(b, 3, canvas, canvas) from 0 to 255 as SAM2 wants them; in its own dtype, as in training, and where it lies."""
    mean, deviation = (_channels(values).to(levels) for values in (CANVAS_MEAN, CANVAS_STD))
    return (levels / 255 - mean) / deviation


def _to_tensor(image: Image.Image) -> Tensor:
    import torch

    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _channels(values: tuple[float, ...]) -> Tensor:
    import torch

    return torch.tensor(values)[:, None, None]


def phrase_prompt(text: str) -> tuple[str, str]:
    """The prompt with exactly one `<image>`, and why it reads as it does.

    A bare phrase ("blood vessel") is put into a question that Sa2VA was trained with; a full prompt stays as it is,
    the image in front of it where it does not say `<image>` itself. Raises LabError for an empty prompt, more than one
    image, or reserved tokens.
    """
    if not isinstance(text, str) or not text.replace("<image>", "").strip():
        raise LabError('The prompt is empty: say what to segment, for instance "blood vessel".')
    if len(text) > LONGEST:
        raise LabError(f"The prompt has {len(text):,} characters: ask with {LONGEST:,} at most.")
    if text.count("<image>") > 1:
        raise LabError(f"The prompt asks for {text.count('<image>')} images; one image is answered at a time.")
    for token in RESERVED:
        if token in text:
            raise LabError(f"The prompt contains {token}, which is the network's own punctuation: leave it out.")
    if "<image>" in text:
        return text, "as given"
    asks = ("segment", "mask", "please", "find", "show", "where", "what", "which", "请", "分割")
    if not any(mark in text for mark in ".?!。？！\n") and not any(word in text.lower() for word in asks):
        return TRAINING_QUESTION.format(phrase=text.strip()), "a bare phrase, put into a question known from training"
    return "<image>" + text, "as given, the image in front"


@dataclass(frozen=True)
class PromptIds:
    """Token ids of one prompt. head: up to and with the image; tail: the question and the turn to the assistant.
    rows: for each of them which of the image's tokens stands in its place, -1 for none."""

    head: list[int]
    tail: list[int]
    rows: list[int]

    @property
    def all(self) -> list[int]:
        """The whole prompt."""
        return self.head + self.tail

    @property
    def keys(self) -> list[tuple[int, int]]:
        """What the language model gets: prompts with equal keys about one image are the same to it."""
        return list(zip(self.all, self.rows, strict=True))

    def starts(self, counts: Sequence[int]) -> tuple[int, ...]:
        """Where images of so many tokens begin."""
        return tuple(self.rows.index(sum(counts[:i])) for i in range(len(counts)))


class PromptReader:
    """The tokenizer of a checkpoint folder and the layout of a turn, as the model's family has them.

    added: special tokens that a fine-tune has taught and the folder's tokenizer lacks, in the order of their ids.
    """

    def __init__(self, folder: Path | str, config: Sa2VAConfig, *, added: tuple[str, ...] = ()):
        from transformers import AddedToken

        folder, self.config = Path(folder), config
        files = config.family.tokenizers
        if not any((folder / name).is_file() for name in files):
            raise LabError(f"{folder} has no {' or '.join(files)}: copy the tokenizer files of the checkpoint.")
        try:
            self.tokenizer = config.family.open_tokenizer(folder)
        except Exception as error:  # damaged files fail in as many ways as there are parsers below
            raise LabError(f"The tokenizer files in {folder} are not readable ({error}): copy them again.") from None
        if added:
            self.tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in added])
            rows = config.language["vocab_size"]
            if len(self.tokenizer) != rows:
                raise LabError(
                    f"The fine-tune has a vocabulary of {rows:,} and {folder} with {' '.join(added)} one of "
                    f"{len(self.tokenizer):,}: give the base and the config that it was trained with."
                )
        stops, rows = config.turn.stops, config.language.get("vocab_size", len(self.tokenizer))
        if len(self.tokenizer) > rows:
            raise LabError(
                f"The tokenizer in {folder} knows {len(self.tokenizer):,} tokens and config.json {rows:,}: copy the "
                "tokenizer files that belong to these weights."
            )
        self.seg = self._id("[SEG]")
        self.context = self._id(config.family.image[1])
        self.stops = {self._id(token) for token in stops}
        self.end = self._id(stops[0])

    def _id(self, token: str) -> int:
        ids = self._ids(token)
        if len(ids) != 1:
            raise LabError(f"The tokenizer has no token {token}: it is not the tokenizer of a Sa2VA model.")
        return ids[0]

    def prompt_ids(self, prompt: str, *counts: int, cells: Sequence[int] = ()) -> PromptIds:
        """Ids of a prompt, as `Family.lay_out` takes it, about an image of so many tokens (0: about none), or frames.

        cells: which tokens of the image's last tile stand in it once more, as `Family.mark` says.
        """
        counts = tuple(filter(None, counts))
        if cells:
            self._id("<vp>")  # without it the words of a region would be mere letters
        head, tail = self.config.family.lay_out(prompt, counts, self.config, self.tokenizer)
        # as one text: what a tokenizer puts before a text, or between two, belongs there once
        whole, begun = (self.tokenizer.encode(text) for text in (head + tail, head))
        count = sum(counts)
        order = iter([*range(count), *(count - self.config.tokens_per_tile + cell for cell in cells)])
        rows = [next(order) if one == self.context else -1 for one in whole]
        return PromptIds(head=begun, tail=whole[len(begun) :], rows=rows)

    def answer_ids(self, answer: str) -> list[int]:
        """Ids of a complete answer, the end of the turn included."""
        return [*self._ids(answer), self.end]

    def decode(self, ids: list[int]) -> str:
        """The answer as text, without the end of the turn; `[SEG]` stays."""
        kept = [i for i in ids if i not in self.stops]
        return self.tokenizer.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False).strip()

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)
