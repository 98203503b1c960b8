"""A checkpoint: every tensor of it by official name, wherever it lies, described at once and read when asked for.

What most people have is not one folder but parts: the InternVL that a training started from, SAM2, and the
fine-tune. Each part is a layer, {official name: LazyTensor}; the checkpoint is their union, in which the fine-tune's
whole tensors take the place of the base's and its LoRA pairs are added to them. `inspect` describes it as it is, with
what is missing; `load`, `plan` and `merge` ask for one that is whole (`loading.whole`).
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from sa2va_lab.errors import LabError
from sa2va_lab.files import sha256
from sa2va_lab.loading.finetune import (
    FineTune,
    add_lora,
    find_alpha,
    find_training,
    is_zero,
    read_finetune,
    tell_other_base,
)
from sa2va_lab.loading.hub import fetch_headers, fetch_model, is_hub_id
from sa2va_lab.loading.parts import place_sam2
from sa2va_lab.loading.tensors import LazyTensor, Shard, describe, digest_headers, first_line
from sa2va_lab.paths import shown_name
from sa2va_lab.sa2va.configuration import parse_config, read_raw, unfold
from sa2va_lab.sa2va.families import find_family
from sa2va_lab.sa2va.family import Sa2VAConfig
from sa2va_lab.sa2va.files import list_shards, read_json
from sa2va_lab.sa2va.parts import name_officially, part_of
from sa2va_lab.sa2va.sam2 import SAM2

if TYPE_CHECKING:
    from torch import Tensor

    from sa2va_lab.training.config import TrainingConfig

WANTED = "a checkpoint folder, a .pth, or a hub id OWNER/NAME"
WANTED_SAM2 = "Meta's sam2_hiera_large.pt, or the Hugging Face folder"
WANTED_FINETUNE = "the iter_*.pth file that the training wrote"
FULL_DIGEST = 1 << 30
ADDED_TOKENS = ("[SEG]", "<p>", "</p>", "<vp>", "</vp>")  # of a released Sa2VA, in the order of their ids
GROWN = ("embed_tokens", "lm_head", "seg_projection")  # which no InternVL has, or not of the full length


@dataclass(frozen=True)
class Layer:
    """What lies at one path. kind: sa2va, base (a vision-language model without SAM2), finetune or sam2. tensors: by
    official name, those of a SAM2 as its file names them. headers: digest of what is said about them; files: where they
    lie; lost: files that an index names and that are not there; raw: config.json; beside: names of all files there;
    tuned: the fine-tune in it."""

    path: Path
    kind: str
    tensors: dict[str, LazyTensor]
    headers: str
    files: tuple[Path, ...] = ()
    lost: tuple[str, ...] = ()
    raw: dict = field(default_factory=dict)
    beside: frozenset[str] = frozenset()
    tuned: FineTune | None = None

    @cached_property
    def sha256(self) -> str:
        """Digest of every byte: of the file, or of the folder's weight files with their names."""
        if not self.path.is_dir():
            return sha256(self.path)
        return hashlib.sha256("".join(f"{path.name}\0{sha256(path)}\0" for path in self.files).encode()).hexdigest()

    @cached_property
    def identity(self) -> tuple[str, str]:
        """A digest that changes with the weights, and what it was taken of.

        Of a .pth, and of a folder of up to 1 GiB, everything is read. Above that each file's name and size, its first
        and last MiB (the header is in the first) and 64 blocks of 64 KiB between them, so that 16 GB cost no minute.
        """
        if self.tuned:
            return self.sha256, "every byte"
        digest, total = hashlib.sha256(), self.mapped_bytes()
        for path in self.files:
            size = path.stat().st_size
            digest.update(f"{path.name}\0{size}\0".encode())
            spans = [(0, size)]
            if total > FULL_DIGEST:
                spans = [(0, 1 << 20), *((size * i // 65, 1 << 16) for i in range(1, 65)), (size - (1 << 20), 1 << 20)]
            with open(path, "rb") as file:
                for start, length in spans:
                    file.seek(max(0, start))
                    digest.update(file.read(length))
        return digest.hexdigest(), "every byte" if total <= FULL_DIGEST else "headers and a sample of each file"

    def mapped_bytes(self) -> int:
        """Bytes of the files that come into memory as they are read; 0 for a .pth."""
        return sum(path.stat().st_size for path in self.files) if not self.tuned else 0


def open_layer(path: Path | str, *, wanted: str = WANTED) -> Layer:
    """A folder of safetensors, a .pth, DeepSpeed's folder, or a hub id, of which headers alone are fetched.

    wanted: what should have been given where there is nothing.
    Raises LabError for a path that is no checkpoint, for damaged or absurd files, and for a file that asks to run code.
    """
    path = Path(os.path.expanduser(path))  # which, unlike Path's, leaves a name alone that it does not know
    if not os.path.exists(path):
        if not is_hub_id(path):
            raise LabError(f"There is nothing at {path}: give {wanted}.")
        return _open_hub(path)
    if path.is_dir() and not is_zero(path):
        return _open_folder(path)
    tuned = read_finetune(path)
    names = {part_of(name) for name in tuned.tensors}
    kind = "finetune" if names & {"language", "embed_tokens", "projector", "seg_projection"} else "sam2"
    own = shown_name("fine-tune" if kind == "finetune" else kind, path)
    tensors = {name: replace(tensor, origin=(own,)) for name, tensor in tuned.tensors.items()}
    files = tuple(sorted(path.glob("*_states.pt"))) if path.is_dir() else (path,)
    return Layer(path, kind, tensors, tuned.sha256, files, tuned=tuned)


def _open_folder(folder: Path) -> Layer:
    paths, lost = list_shards(folder)
    if lost and not paths:
        raise lack_files(folder, lost, of=len(lost))
    if not paths:
        tuned = {*folder.glob("iter_*.pth"), *(file.parent for file in folder.glob("*/*_model_states.pt"))}
        tuned = sorted(tuned, key=lambda file: int(re.sub(r"\D", "", file.stem)[:9] or 0))
        hint = f"give the fine-tune in it, {tuned[-1]}" if tuned else "give a checkpoint folder, or a .pth"
        raise LabError(f"{folder} has no *.safetensors: {hint}.")
    tensors, home = {}, {}
    for path in paths:
        shard = Shard(path, origin=shown_name("model", folder))
        if twice := tensors.keys() & shard.tensors.keys():
            name = min(twice)
            raise LabError(
                f"{name} is in both {home[name]} and {path.name} of {folder}: "
                "remove the one that does not belong to this checkpoint."
            )
        tensors |= shard.tensors
        home |= dict.fromkeys(shard.tensors, path.name)
    raw = read_raw(folder) if (folder / "config.json").is_file() else {}
    beside, headers = frozenset(file.name for file in folder.iterdir() if file.is_file()), digest_headers(tensors)
    tensors = _spell(tensors, folder)
    return Layer(folder, _kind(tensors), tensors, headers, tuple(paths), tuple(lost), raw, beside)


def _spell(tensors: dict[str, LazyTensor], path: Path) -> dict[str, LazyTensor]:
    """The same by official name, whatever version of transformers wrote them."""
    official = name_officially(tensors)
    named = {official(name): tensor for name, tensor in tensors.items()}
    if len(named) < len(tensors):
        raise LabError(f"{path} holds tensors twice, by old and new names: download it again into an empty folder.")
    return named


def lack_files(folder: Path, lost: Iterable[str], *, of: int) -> LabError:
    """The error that a folder lacks these of so many weight files."""
    first, *rest = lost
    return LabError(f"{folder} lacks {1 + len(rest)} of {of} weight files ({first[:80]}): download them again.")


def _open_hub(name: Path) -> Layer:
    headers, config, files = fetch_headers(str(name))
    try:
        tensors = {
            tensor: describe(tensor, about.shape, about.dtype, name.name)
            for file in headers.values()
            for tensor, about in file.items()
        }
    except (ValueError, TypeError) as error:
        raise LabError(f"The weights of {name} on the hub have a damaged header ({first_line(error)}).") from None
    raw, headers, tensors = unfold(read_json(config)) if config else {}, digest_headers(tensors), _spell(tensors, name)
    return Layer(name, _kind(tensors), tensors, headers, raw=raw, beside=frozenset(files))


def _kind(tensors: Iterable[str]) -> str:
    names = {part_of(name) for name in tensors}
    whole = {"language", "sam2_encoder"} <= names
    return "sa2va" if whole else "base" if "language" in names else "sam2"


def digest_all(*parts: object) -> str:
    """One digest of several, or of what else tells two checkpoints apart."""
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()


class Checkpoint:
    """A base, SAM2 where it has none, and a fine-tune laid over both; nothing is loaded.

    base: a folder, a hub id (downloaded first if `download`, else its headers are fetched), or, to be looked at alone,
    a .pth. sam2: Meta's `.pt` or a Hugging Face Sam2VideoModel folder. finetune: xtuner's `iter_*.pth` or DeepSpeed's
    folder in its place. config: the training config, where LoRA's alpha stands; without it, the copy of it that
    mmengine leaves in the .pth. lora_alpha: alpha itself. Raises LabError for what cannot be read or put together.

    tensors: {official name: LazyTensor}; names, shape and tensor are the same by name. under: those that the fine-tune
    is laid over. layers: base, SAM2, fine-tune, those that there are. folder: where the base lies, with its tokenizer;
    is_bare: whether that is an InternVL that is to become a Sa2VA. tuned: the fine-tune that is laid over the base, or
    that the base is.
    """

    def __init__(
        self,
        base: Path | str,
        *,
        sam2: Path | str | None = None,
        finetune: Path | str | None = None,
        config: Path | str | None = None,
        lora_alpha: float | None = None,
        download: bool = False,
    ):
        self.given = Path(os.path.expanduser(base))
        self.base = open_layer(fetch_model(str(base)) if download and is_hub_id(base) else base)
        self.sam2 = open_layer(sam2, wanted=WANTED_SAM2) if sam2 is not None else None
        self.finetune = open_layer(finetune, wanted=WANTED_FINETUNE) if finetune is not None else None
        if self.finetune and not self.finetune.tuned:
            raise LabError(f"{finetune} is a checkpoint folder: give {WANTED_FINETUNE}, or load the folder itself.")
        self.config, self.lora_alpha = config, lora_alpha
        self.layers = [layer for layer in (self.base, self.sam2, self.finetune) if layer]
        self.folder, self.is_bare = self.base.path, self.base.kind == "base"
        self.tuned = (self.finetune or self.base).tuned
        self.under = under = dict(self.base.tensors)
        if self.sam2 is not None:
            if any(name.startswith(SAM2) for name in under):
                raise LabError(f"{self.base.path} has its own SAM2: leave {self.sam2.path} out.")
            under |= _as_official(self.sam2)
        self.tensors = self._lay_over(self.tuned) if self.finetune else under

    @property
    def name(self) -> str:
        """What to call it where others read it."""
        return self.given.name if is_hub_id(self.given) else shown_name("model", self.given)

    @cached_property
    def alpha(self) -> float | None:
        """LoRA's alpha; None where it stands nowhere."""
        return find_alpha(self.tuned.content, self.config, self.lora_alpha) if self.tuned else None

    @property
    def scale(self) -> float | None:
        """alpha / rank, by which B A is multiplied; None without LoRA, or where alpha is not known."""
        return self.alpha / self.tuned.rank if self.tuned and self.tuned.pairs and self.alpha else None

    @cached_property
    def _training(self) -> TrainingConfig | None:
        return find_training(self.tuned.content, self.config)

    @cached_property
    def note(self) -> str:
        """What is to be said of the fine-tune: how it was read, and that its config names another base."""
        if not self.finetune:
            return self.tuned.note if self.tuned else ""
        other = tell_other_base(self._training, self.given, self.base.raw or {}, bare=self.is_bare)
        return "; ".join(filter(None, (self.tuned.note, other)))

    def _lay_over(self, tuned: FineTune) -> dict[str, LazyTensor]:
        own = (shown_name("fine-tune", tuned.path),)
        tensors = self.under | {name: replace(tensor, origin=own) for name, tensor in tuned.whole.items()}
        for name, pair in tuned.pairs.items():
            if old := self.under.get(name):
                read = partial(add_lora, old, pair, self.scale)
                origin = tuple(dict.fromkeys((*old.origin, *own)))
                tensors[name] = replace(old, read=read, origin=origin, mapped=False, merged=True)
        return tensors

    def names(self) -> list[str]:
        """Official tensor names, sorted."""
        return sorted(self.tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor; no data is read."""
        return self.tensors[name].shape

    def tensor(self, name: str) -> Tensor:
        """The tensor on the CPU: float32 where LoRA was added, else as stored, and a view of its mapped file."""
        return self.tensors[name].read()

    def mapped_bytes(self) -> int:
        """Bytes of the folders' files, which come into memory as they are read."""
        return sum(layer.mapped_bytes() for layer in self.layers)

    def sha256(self) -> tuple[str, str]:
        """A digest of base, SAM2, fine-tune and scale together, and what it was taken of."""
        digest, method = self.base.identity
        if self.sam2:
            digest = digest_all(digest, self.sam2.identity[0])
            method = f"InternVL ({method}) and SAM2"
        if self.finetune:
            digest = digest_all(digest, self.finetune.sha256, self.scale)
            method = f"base ({method}), fine-tune (every byte) and LoRA scale"
        return digest, method

    def describe_sam2(self) -> dict | None:
        """What SAM2 is, for the record."""
        return {"file": shown_name("sam2", self.sam2.path), "sha256": self.sam2.identity[0]} if self.sam2 else None

    def describe_finetune(self) -> dict | None:
        """What was laid over the base, for the record: file, digest, tensors, rank, scale."""
        if not self.finetune:
            return None
        note = {"note": self.note} if self.note else {}
        return {
            "file": shown_name("fine-tune", self.tuned.path),
            "sha256": self.finetune.sha256,
            "tensors": len(self.tuned.tensors),
            "rank": self.tuned.rank,
            "scale": self.scale,
        } | note

    @cached_property
    def raw(self) -> dict:
        """config.json of the Sa2VA that these make: the folder's own, or what an InternVL and its fine-tune lead to."""
        raw = read_raw(self.folder)
        if not self.sam2:
            return raw
        family = find_family(raw, name=str(self.folder / "config.json"))
        rows = next(tensor.shape[0] for name, tensor in self.tensors.items() if part_of(name) == "embed_tokens")
        template = (self._training and self._training.template) or next(iter(family.turns))
        return family.grow(raw, rows=rows, template=template)

    @cached_property
    def sizes(self) -> Sa2VAConfig:
        """The same, read. Raises LabError for a family that is not built here, and for absurd sizes."""
        return parse_config(self.raw, name=str(self.folder / "config.json"), folder=self.folder)

    @property
    def added_tokens(self) -> tuple[str, ...]:
        """Tokens of the fine-tune that the base's tokenizer lacks, in the order of their ids."""
        if not self.sam2:
            return ()
        return tuple((self._training and self._training.special_tokens) or ADDED_TOKENS)

    def misfits(self) -> list[tuple[str, tuple[int, ...], tuple[int, ...]]]:
        """(name, shape in the fine-tune, shape in the base) where the two differ; what an InternVL grows does not."""
        differing = []
        for name, shape in (self.tuned.shapes if self.tuned else {}).items():
            old = self.under.get(name)
            grown = self.is_bare and part_of(name) in GROWN and len(shape) == 2 and old and old.shape[1:] == shape[1:]
            if old and old.shape != shape and not grown:
                differing.append((name, shape, old.shape))
        return differing


def _as_official(sam2: Layer) -> dict[str, LazyTensor]:
    """A SAM2's tensors by official name; a row of Hugging Face's is one of the official ones."""
    if sam2.kind != "sam2":
        raise LabError(f"{sam2.path} is no SAM2 but {sam2.kind}: give {WANTED_SAM2}.")
    official = {}
    for name, (stored, row) in place_sam2(sam2.tensors, str(sam2.path)).items():
        tensor = replace(sam2.tensors[stored], origin=(shown_name("sam2", sam2.path),))
        if row is not None:
            tensor = replace(tensor, shape=(1, *tensor.shape[1:]), read=partial(_read_row, tensor, row))
        official[name] = tensor
    return official


def _read_row(tensor: LazyTensor, row: int) -> Tensor:
    return tensor.read()[row : row + 1]
