"""What differs between the released Sa2VAs: the seam that everything else speaks to.

A `Family` is one kind of vision-language model below one kind of Sa2VA. It says how config.json is read, what the
network is made of, what its tensors are called, which pixels and which text go in, and where an answer's [SEG] is read
from. Nothing outside this room names a family: weights, answers, masks, plans and forecasts ask `config.family`.
To add one, write a module with its `Family` and a line in `families.py`.

Whatever the family, the network has its language model under one layout, `language_model.model.{embed_tokens, layers,
norm}` and `language_model.lm_head`, as `NameTable` makes it from the official names. torch is not imported here.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sa2va_lab.errors import LabError
from sa2va_lab.sa2va.names import NameTable
from sa2va_lab.sa2va.sam2 import CANVAS, sam2_config
from sa2va_lab.sa2va.sentencepieces import PIECES, open_pieces
from sa2va_lab.sa2va.sizes import find_section, refuse

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from PIL import Image
    from torch import Tensor, nn
    from transformers import Sam2VideoConfig

    from sa2va_lab.sa2va.modeling import Sa2VA

LAYERS = "language_model.model.layers."  # decoder layers, in the network's own names
TILE, MAX_TILES = 448, 12  # constants of the official code, whatever config.json says
EXTRA_KEY = "sa2va_lab"  # our own section of config.json, which no released checkpoint has
NEEDED = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
LANGUAGE = (
    *NEEDED,
    *("num_key_value_heads", "head_dim", "vocab_size", "max_position_embeddings", "hidden_act", "rms_norm_eps"),
    *("rope_theta", "rope_scaling", "rope_parameters", "tie_word_embeddings"),
    *("use_sliding_window", "sliding_window", "max_window_layers"),
)


@dataclass(frozen=True)
class Turn:
    """The text before the user's message, the text between it and the answer, and the tokens that end an answer."""

    before: str
    after: str
    stops: tuple[str, ...]


CHAT = Turn("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n", stops=("<|im_end|>", "<|endoftext|>"))


@dataclass(frozen=True)
class Sight:
    """An image as the language model gets it: tokens (n, C), which take the places of the image's ids.

    grid: their rows and columns, where their positions lie in a plane. deep: (n, C) each, added at those places to what
    the first decoder layers give, one each. Of several images that are read together all have a dimension in front.
    frames: what is shown of a film, one image after the other, where it is that; all else is in them, but for tokens.
    """

    tokens: Tensor | None = None
    grid: tuple[int, int] | None = None
    deep: tuple[Tensor, ...] = ()
    frames: tuple[Sight, ...] = ()

    def __len__(self) -> int:
        return 0 if self.tokens is None else self.tokens.shape[-2]

    @property
    def parts(self) -> tuple[Sight, ...]:
        """The images: one, or none, or those of a film."""
        return self.frames or ((self,) if len(self) else ())

    @property
    def counts(self) -> tuple[int, ...]:
        """How many tokens each of them has."""
        return tuple(map(len, self.parts))


class Family(ABC):
    """One kind of vision-language model with a Sa2VA on it; the methods say what they must give.

    group: its kin, as inventories and Runs record it. architecture: what config.json calls its language model;
    releases: the Sa2VAs built on it. parts: {part: pattern of its official names}, for `parts.py`; blocks: the pattern
    of what a layer of the vision tower begins with, up to its number; marks: that of names which no other group has.
    spelling: what to replace, one after the other, in names that a training or an older library gave, to have official
    ones. lora: the official names of the matrices that LoRA is trained on, the first with the hidden size as its input.
    bases: {(hidden size, decoder layers): the model that a training starts from}; hub: whose models these are; bare:
    their `model_type`. turns: {template of config.json: Turn}; image: the tokens before, for and after what an image
    becomes. tokenizers, processors: files of which one is needed. before_norm: whether [SEG] is read before the
    language model's final norm. tiled: whether an image is tiles, seen without a look at the others.
    """

    group: str
    architecture: str
    releases: str
    parts: dict[str, str]
    blocks: str
    marks: str
    spelling: tuple[tuple[str, str], ...]
    lora: tuple[str, ...]
    bases: dict[tuple[int, int], str]
    hub: str
    bare: str
    turns: dict[str, Turn]
    image: tuple[str, str, str]
    tokenizers: tuple[str, ...] = ("tokenizer.json", "vocab.json")
    processors: tuple[str, ...] = ()
    before_norm: bool = False
    tiled: bool = False

    @abstractmethod
    def read(self, raw: dict, name: str, folder: Path | None = None) -> Sa2VAConfig:
        """config.json, whose family is this one, and from `folder` what else of it says how an image is prepared.

        folder: None for what such a folder usually says. LabError, with `name` in it, for sizes that make no sense.
        """

    def settings(self, config: Sa2VAConfig) -> dict:
        """What config.json says of the language model in words that transformers' configurations share; all else in
        it, such as how somebody wanted attention computed, is not handed on."""
        return {key: config.language[key] for key in LANGUAGE if config.language.get(key) is not None}

    @abstractmethod
    def grow(self, raw: dict, *, rows: int, template: str) -> dict:
        """config.json of the Sa2VA that a training makes of a bare model with this one; rows: of its vocabulary."""

    @abstractmethod
    def shorten(self, config: Sa2VAConfig, few: int) -> Sa2VAConfig:
        """The same network with at most `few` layers in each stack of vision tower and language model."""

    @abstractmethod
    def build(self, config: Sa2VAConfig) -> dict[str, nn.Module]:
        """The network's modules but for SAM2 and the [SEG] projection, by name; "language_model" among them."""

    @abstractmethod
    def names(self, config: Sa2VAConfig) -> NameTable:
        """Official tensor names and the network's, SAM2 included."""

    @abstractmethod
    def pixels(self, image: Image.Image, config: Sa2VAConfig):
        """An RGB image as the language branch sees it, on the CPU in float32; `encode` knows what it is."""

    @abstractmethod
    def count_tiles(self, width: int, height: int, config: Sa2VAConfig) -> int:
        """How many tiles an image of that size becomes, a thumbnail included: the measure of what it costs."""

    @abstractmethod
    def most_tiles(self, config: Sa2VAConfig) -> int:
        """The largest of these counts."""

    @abstractmethod
    def blank(self, tiles: int, config: Sa2VAConfig):
        """Pixels of an image of so many tiles on the meta device, to count what it takes."""

    @abstractmethod
    def encode(self, model: Sa2VA, pixels) -> Sight:
        """Pixels -> n image tokens."""

    def of_film(self, config: Sa2VAConfig) -> Sa2VAConfig:
        """The config by which `pixels` prepares those frames of a film that the language model sees."""
        return config

    @abstractmethod
    def lay_out(self, prompt: str, counts: Sequence[int], config: Sa2VAConfig, tokenizer) -> tuple[str, str]:
        """A turn as text, with an image of so many tokens, or with several, which are the frames of a film: what comes
        up to the last one's end, and what follows it.

        prompt: has `<image>` once; or never, where there is no image, and all of it follows. Of a conversation it is
        all from the first question to the last, with what stands between turns.
        """

    def mark(self, regions: Sequence[np.ndarray], size: tuple[int, int], config: Sa2VAConfig) -> tuple[str, list[int]]:
        """Regions (bool (H, W) each) of an image of `size` (H, W) as the words that follow it, in which tokens of the
        image stand once more, and which tokens of its last tile these are, in order. LabError where there is no way."""
        raise LabError(f"Regions are known to a Sa2VA on an InternVL only, and this is {self.releases}: ask in words.")

    def open_tokenizer(self, folder: Path):
        """The tokenizer of a checkpoint folder, which holds one of the `tokenizers`."""
        if PIECES in self.tokenizers:
            return open_pieces(folder)
        from transformers import Qwen2Tokenizer  # of all models that grew out of Qwen2

        return Qwen2Tokenizer.from_pretrained(str(folder), local_files_only=True)


@dataclass(frozen=True)
class Sa2VAConfig:
    """What is needed to build one network and to prepare its inputs.

    vision, language: the dictionaries of config.json; processor: that of how an image is prepared, where a family has
    a file for it. tile: side of a language-branch tile in pixels, canvas: side of
    the square that SAM2 sees. sam2: changes to SAM2's sizes (`backbone`, `vision`, `prompt_encoder`, `mask_decoder`,
    and top-level keys such as `hidden_size`); empty for released models. stamp: a text that belongs on every figure
    made with this model, or None.
    """

    family: Family
    vision: dict
    language: dict
    processor: dict = field(default_factory=dict)
    template: str = "qwen_chat"
    downsample: float = 0.5
    tile: int = TILE
    max_tiles: int = MAX_TILES
    canvas: int = CANVAS
    sam2: dict = field(default_factory=dict)
    stamp: str | None = None

    def __hash__(self) -> int:
        return hash(json.dumps([self.vision, self.language, self.sam2], sort_keys=True))

    @property
    def tokens_per_tile(self) -> int:
        """How many image tokens stand for one tile (256 in released models)."""
        return int((self.tile // self.vision.get("patch_size", 14)) ** 2 * self.downsample**2)

    @property
    def turn(self) -> Turn:
        """What stands around a question."""
        return self.family.turns[self.template]

    @property
    def tied(self) -> bool:
        """Whether the head is the table of words once more, so that no head is stored."""
        return bool(self.language.get("tie_word_embeddings"))

    @property
    def names(self) -> NameTable:
        """Official tensor names and the network's."""
        return self.family.names(self)

    def sam2_config(self) -> Sam2VideoConfig:
        """transformers' configuration of SAM2."""
        return sam2_config(self.canvas, self.sam2)


def read_common(raw: dict, key: str, *, name: str) -> tuple[dict, dict, dict]:
    """What all families read alike in config.json: the language model's section, our own one, and of that one what has
    its place in every Sa2VAConfig."""
    language = find_section(raw, key, name=name, needed=NEEDED)
    extra = find_section(raw, EXTRA_KEY, name=name, most=CANVAS)
    heads = language["num_attention_heads"]
    if heads % (language.get("num_key_value_heads") or heads):
        refuse(name, key, "num_attention_heads is no multiple of num_key_value_heads")
    return language, extra, {one: extra[one] for one in ("canvas", "sam2", "stamp") if one in extra}
