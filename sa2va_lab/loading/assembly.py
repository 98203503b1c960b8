"""The weights that a model is made of, opened as one source: a Sa2VA folder, or an InternVL folder and a SAM2.

What most people have is the second: the base that the training started from. The [SEG] token, the longer vocabulary and
the [SEG] projection are in neither, so such a base needs a fine-tune to become a Sa2VA.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from sa2va_lab.errors import LabError
from sa2va_lab.loading.digests import digest_file
from sa2va_lab.loading.finetune import FineTune, Merged, read_pickle
from sa2va_lab.loading.hub import fetch_model, is_hub_id
from sa2va_lab.loading.inventory import find_alpha, find_training
from sa2va_lab.loading.parts import find_state, part_of, place_sam2
from sa2va_lab.sa2va.configuration import Sa2VAConfig, parse_config, read_raw
from sa2va_lab.sa2va.names import OUR_SAM2, SAM2, official_names
from sa2va_lab.sa2va.weights import OfficialFolder, build_empty, match_names

ADDED_TOKENS = ("[SEG]", "<p>", "</p>", "<vp>", "</vp>")  # of a released Sa2VA, in the order of their ids
GROWN = ("embed_tokens", "lm_head", "seg_projection")
_NOT_OURS = ("auto_map", "_name_or_path", "_commit_hash", "transformers_version", "system_message")


class Sam2:
    """SAM2's tensors by official name: Meta's `.pt` with {"model": {...}}, or a Hugging Face Sam2VideoModel folder.

    Raises LabError for anything else, and for a file that asks to run code.
    """

    def __init__(self, path: Path | str):
        self.path = Path(os.path.expanduser(path))
        if not self.path.exists():
            raise LabError(f"No SAM2 at {self.path}: give Meta's sam2_hiera_large.pt, or the Hugging Face folder.")
        if self.path.is_dir():
            self._stored = OfficialFolder(self.path)
            stored = self._stored.names()
        else:
            self._stored = find_state(read_pickle(self.path), Tensor, self.path)
            stored = list(self._stored)
        self._places = place_sam2(stored, str(self.path))

    def names(self) -> list[str]:
        """Official tensor names, sorted."""
        return sorted(self._places)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor."""
        stored, row = self._places[name]
        shape = self._stored.shape(stored) if self.path.is_dir() else tuple(self._stored[stored].shape)
        return shape if row is None else (1, *shape[1:])

    def dtype(self, name: str) -> str:
        """As safetensors calls it; "PICKLED" in a `.pt`, which is read whole and is no mapped file."""
        return self._stored.dtype(self._places[name][0]) if self.path.is_dir() else "PICKLED"

    def tensor(self, name: str) -> Tensor:
        """The tensor on the CPU in its stored dtype."""
        stored, row = self._places[name]
        tensor = self._stored.tensor(stored) if self.path.is_dir() else self._stored[stored]
        return tensor if row is None else tensor[row : row + 1]

    def mapped_bytes(self) -> int:
        """Bytes of the folder's files, which come into memory as they are read; 0 for a `.pt`, which is read whole."""
        return self._stored.mapped_bytes() if self.path.is_dir() else 0

    def sha256(self) -> str:
        """Digest of the weights."""
        return self._stored.sha256()[0] if self.path.is_dir() else digest_file(self.path)


class Assembled:
    """A vision-language model, a SAM2 and what a fine-tune adds to both, with the interface of `OfficialFolder`.

    grown: {official name: tensor}: vocabulary and [SEG] projection, which take the place of the base's or are new.
    """

    def __init__(self, language: OfficialFolder, sam2: Sam2, grown: dict[str, Tensor]):
        self.language, self.sam2, self.grown, self.folder = language, sam2, grown, language.folder

    def names(self) -> list[str]:
        """Official tensor names, sorted."""
        return sorted({*self.language.names(), *self.sam2.names(), *self.grown})

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor."""
        return tuple(self.grown[name].shape) if name in self.grown else self._home(name).shape(name)

    def dtype(self, name: str) -> str:
        """As safetensors calls it; "GROWN" for what the fine-tune brings, which is no view of any file."""
        return "GROWN" if name in self.grown else self._home(name).dtype(name)

    def tensor(self, name: str) -> Tensor:
        """The tensor on the CPU in its stored dtype."""
        return self.grown[name] if name in self.grown else self._home(name).tensor(name)

    def mapped_bytes(self) -> int:
        """Bytes of the files of both."""
        return self.language.mapped_bytes() + self.sam2.mapped_bytes()

    def sha256(self) -> tuple[str, str]:
        """A digest of base and SAM2 together, and what it was taken of."""
        digest, method = self.language.sha256()
        return hashlib.sha256(f"{digest}\0{self.sam2.sha256()}".encode()).hexdigest(), f"InternVL ({method}) and SAM2"

    def _home(self, name: str) -> OfficialFolder | Sam2:
        return self.sam2 if name.startswith(SAM2) else self.language


@dataclass(frozen=True)
class Opened:
    """What was opened.

    name: what to call it; folder: where it lies. source: the weights; raw: config.json of the Sa2VA that they make;
    sizes: the same, read; added: tokens that the folder's tokenizer lacks; finetune, sam2: what they are, for the
    record.
    """

    name: str
    folder: Path
    source: OfficialFolder | Assembled | Merged
    raw: dict
    sizes: Sa2VAConfig
    added: tuple[str, ...] = ()
    finetune: dict | None = None
    sam2: dict | None = None


def open_model(
    base: Path | str,
    *,
    sam2: Path | str | None = None,
    finetune: Path | str | None = None,
    config: Path | str | None = None,
    lora_alpha: float | None = None,
) -> Opened:
    """The weights of `base`, with SAM2 where it has none, and with the fine-tune laid over; nothing is loaded.

    base: a folder, or a hub id, which is downloaded. Raises LabError for parts that do not make one complete Sa2VA of
    the InternVL family, naming what is wrong.
    """
    folder = Path(os.path.expanduser(base))
    name = folder.resolve().name
    if is_hub_id(base):
        folder = fetch_model(str(base))
    raw = read_raw(folder)
    bare = raw.get("model_type") == "internvl_chat"
    if bare and (sam2 is None or finetune is None):
        lacking = "SAM2 (sam2=, --sam2)" if sam2 is None else "a fine-tune, which brings [SEG] (finetune=, --finetune)"
        raise LabError(
            f"{folder} is a bare InternVL, no Sa2VA: add {lacking}, or give a complete Sa2VA folder as the base."
        )
    if sam2 is None:
        sizes, source, added, about = (
            parse_config(raw, name=str(folder / "config.json")),
            OfficialFolder(folder),
            (),
            None,
        )
        tuned = FineTune(finetune) if finetune is not None else None
    else:
        if finetune is None:
            raise LabError(f"{sam2} was given as SAM2 without a fine-tune: only that brings [SEG] (--finetune).")
        language, mask, tuned = OfficialFolder(folder), Sam2(sam2), FineTune(finetune)
        if any(name.startswith(SAM2) for name in language.names()):
            raise LabError(f"{folder} has its own SAM2: leave {sam2} out.")
        raw, added = _describe_whole(raw, tuned, config, has=language)
        sizes = parse_config(raw, name=str(folder / "config.json"))
        grown = {name: tensor for name, tensor in tuned.whole.items() if part_of(name) in GROWN}
        source = Assembled(language, mask, grown)
        _check_fit(source, sizes)
        about = {"file": mask.path.name, "sha256": mask.sha256()}
    laid_over = None
    if tuned is not None:
        source = Merged(source, tuned, alpha=find_alpha(tuned.content, config, lora_alpha))
        laid_over = source.describe()
    return Opened(name, folder, source, raw, sizes, added, laid_over, about)


def list_expected(sizes: Sa2VAConfig, official: list[str]) -> dict[str, Tensor]:
    """The network's own tensors that weights of these official names must fill, empty; a tied head is not asked for."""
    expected = build_empty(sizes).state_dict()
    if sizes.language.get("tie_word_embeddings") and "language_model.lm_head.weight" not in official:
        expected.pop("language_model.lm_head.weight")
    return expected


def _describe_whole(raw: dict, tuned: FineTune, config, *, has: OfficialFolder) -> tuple[dict, tuple[str, ...]]:
    """(config.json of the Sa2VA that the fine-tune makes of an InternVL, the tokens that it adds)."""
    lacking = {"embed_tokens", "lm_head", "seg_projection"} - {part_of(name) for name in tuned.whole}
    if "language_model.lm_head.weight" not in has.names():
        lacking -= {"lm_head"}
    if lacking:
        raise LabError(
            f"{tuned.path} does not hold {', '.join(sorted(lacking))} in full, which an InternVL has not for [SEG]: "
            "give the .pth of a whole Sa2VA fine-tune, or a complete Sa2VA folder as the base."
        )
    training = find_training(tuned.content, config)
    language = raw.get("llm_config")
    if isinstance(language, dict):
        rows = len(tuned.whole["language_model.model.embed_tokens.weight"])
        raw = raw | {"llm_config": language | {"vocab_size": rows}}
    kept = {key: value for key, value in raw.items() if key not in _NOT_OURS}
    template = (training and training.template) or "qwen_chat"  # all templates that are known give the same text
    whole = kept | {"architectures": ["Sa2VAChatModel"], "model_type": "sa2va_chat", "template": template}
    return whole, (training and training.special_tokens) or ADDED_TOKENS


def _check_fit(source: Assembled, sizes: Sa2VAConfig) -> None:
    """LabError where SAM2 is not the one that Sa2VA is built on, or a tensor has another shape than the network."""
    expected, path = list_expected(sizes, source.names()), source.sam2.path
    wanted = set(official_names([name for name in expected if name.startswith(OUR_SAM2)]))
    for said, names in (("lacks", wanted - set(source.sam2.names())), ("has", set(source.sam2.names()) - wanted)):
        if names:
            raise LabError(
                f"{path} is another SAM2 than Sa2VA is built on (it {said} {min(names).removeprefix(SAM2)}): give "
                "sam2_hiera_large.pt of SAM 2.0, or the folder of facebook/sam2-hiera-large."
            )
    for ours, parts in match_names(source.names(), expected).items():
        name, place = parts[0]
        if place.kind == "whole" and source.shape(name) != tuple(expected[ours].shape):
            where = path if name.startswith(SAM2) else source.folder
            raise LabError(
                f"{name} is {source.shape(name)} and the model needs {tuple(expected[ours].shape)}: "
                f"{where} belongs to a model of another size."
            )
