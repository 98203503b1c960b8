"""A fine-tune in xtuner's form (`iter_*.pth`), opened without running anything in it, and laid over a base model.

The .pth holds only what was trained: LoRA pairs, whole copies of some modules, and parts trained in full. `Merged`
looks like the base checkpoint with the fine-tune applied, so it loads through the same door; nothing is written.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from sa2va_lab.errors import LabError
from sa2va_lab.loading.digests import digest_file, digest_files
from sa2va_lab.loading.headers import KNOWN, Inert, is_zip, read_pth
from sa2va_lab.loading.inventory import read_inventory
from sa2va_lab.loading.parts import find_state, sort_trained
from sa2va_lab.loading.zero import is_zero, read_zero
from sa2va_lab.sa2va.weights import OfficialFolder


class FineTune:
    """The tensors of one .pth, or of the DeepSpeed folder in its place, by official name: pairs, whole and rank as
    `parts.Trained` has them. note: what was read, where that is not plain.

    Raises LabError for a file that is no checkpoint, that asks to run code, or whose LoRA pairs are incomplete.
    """

    def __init__(self, path: Path | str):
        self.path, self.note = Path(path), ""
        if is_zero(self.path):
            self.content, self.note = read_zero(self.path, read_pickle, _join)
        elif self.path.is_dir():
            read_inventory(self.path)  # says what any other folder is
            raise LabError(
                f"{self.path} is a checkpoint folder: give the fine-tune, a .pth, or load the folder itself."
            )
        else:
            self.content = read_pickle(self.path)
        found = sort_trained(find_state(self.content, Tensor, self.path), self.path)
        self.pairs, self.whole, self.rank = found.pairs, found.whole, found.rank

    def sha256(self) -> str:
        """Digest of the whole file, or of the DeepSpeed folder's."""
        return digest_files(self.path.glob("*_states.pt")) if self.path.is_dir() else digest_file(self.path)


class Merged:
    """A base checkpoint with a fine-tune laid over it, with the interface of `OfficialFolder`.

    alpha: LoRA's alpha, which the .pth does not hold; the scale is alpha / rank. Merged in float32: W + scale B A.
    Raises LabError naming every tensor of the fine-tune that the base has no place for, or whose shape differs.
    """

    def __init__(self, base: OfficialFolder, finetune: FineTune, *, alpha: float | None):
        self.base, self.finetune = base, finetune
        if finetune.pairs and alpha is None:
            raise LabError(
                f"{finetune.path} holds LoRA of rank {finetune.rank}, but alpha stands only in the training config: "
                "give the config, or alpha itself (--lora-alpha)."
            )
        self.scale = alpha / finetune.rank if finetune.pairs else None
        known = set(base.names())
        if not any(name.startswith("grounding_encoder.") for name in known):
            raise LabError(
                f"{base.folder} has no SAM2, so it is a bare vision-language model: add SAM2 (sam2=, --sam2), or give "
                "a complete Sa2VA folder as the base."
            )
        lost = [name for name in (*finetune.whole, *finetune.pairs) if name not in known]
        if lost:
            raise LabError(
                f"{len(lost)} tensors of {finetune.path} have no place in {base.folder} ({lost[0]}): "
                "it was trained on another model."
            )
        shapes = {name: tuple(tensor.shape) for name, tensor in finetune.whole.items()}
        shapes |= {name: (len(pair["B"]), pair["A"].shape[1]) for name, pair in finetune.pairs.items()}
        for name, shape in shapes.items():
            if base.shape(name) != shape:
                raise LabError(
                    f"{name} is {shape} in {finetune.path} and {base.shape(name)} in {base.folder}: "
                    "it was trained on a model of another size."
                )

    def names(self) -> list[str]:
        """Official tensor names, sorted."""
        return self.base.names()

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor."""
        return self.base.shape(name)

    def dtype(self, name: str) -> str:
        """As safetensors calls it; "MERGED" where the fine-tune has the tensor, which then is no view of any file."""
        ours = name in self.finetune.pairs or name in self.finetune.whole
        return "MERGED" if ours else self.base.dtype(name)

    def tensor(self, name: str) -> Tensor:
        """The merged tensor on the CPU: float32 where LoRA was added, else as stored."""
        if name in self.finetune.whole:
            return self.finetune.whole[name]
        if name in self.finetune.pairs:
            pair = self.finetune.pairs[name]
            return self.base.tensor(name).float() + self.scale * (pair["B"].float() @ pair["A"].float())
        return self.base.tensor(name)

    def describe(self) -> dict:
        """What was laid over the base, for the record: file, digest, tensors, rank, scale."""
        return {
            "file": self.finetune.path.name,
            "sha256": self.finetune.sha256(),
            "tensors": len(self.finetune.whole) + 2 * len(self.finetune.pairs),
            "rank": self.finetune.rank,
            "scale": self.scale,
        } | ({"note": self.finetune.note} if self.finetune.note else {})

    def mapped_bytes(self) -> int:
        """Bytes of the base's files, which come into memory as they are read."""
        return self.base.mapped_bytes()

    def sha256(self) -> tuple[str, str]:
        """A digest of base, fine-tune and scale together, and what it was taken of."""
        digest, method = self.base.sha256()
        parts = f"{digest}\0{self.finetune.sha256()}\0{self.scale}"
        return hashlib.sha256(parts.encode()).hexdigest(), f"base ({method}), fine-tune (every byte) and LoRA scale"


def _join(pieces: list[tuple[Tensor, int, int]], shape: tuple, copy: Tensor | None) -> Tensor:
    """A tensor of a DeepSpeed folder; ValueError where its first numbers do not round to those of its 16-bit copy."""
    cut = [row[start:stop] for row, start, stop in pieces]
    made = (cut[0] if len(cut) == 1 else torch.cat(cut)).view(shape)
    if copy is not None:
        one, other, exact = made.flatten()[:64].float(), copy.flatten()[:64].float(), torch.finfo(copy.dtype)
        if not torch.allclose(one, other, rtol=exact.eps, atol=exact.tiny, equal_nan=True):
            raise ValueError("the optimiser's numbers are not those of the weights")
    return made


def read_pickle(path: Path) -> object:
    """What a .pth holds, read with torch's restricted unpickler; nothing in the file can run."""
    if not path.is_file():
        raise LabError(f"No fine-tune at {path}: give the iter_*.pth file that the training wrote.")
    read_pth(path)  # absurd sizes and calls are refused here, before torch allots anything
    try:
        with torch.serialization.safe_globals([(Inert, name) for name in KNOWN]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip(path))
    except Exception as error:  # what the header did not give away
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise LabError(f"{path} is damaged or cut short ({said}): copy the file again from its source.") from None
