"""A fine-tune in xtuner's form (`iter_*.pth`), opened without running anything in it, and laid over a base model.

The .pth holds only what was trained: LoRA pairs, whole copies of some modules, and parts trained in full. `Merged`
looks like the base checkpoint with the fine-tune applied, so it loads through the same door; nothing is written.
"""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from sa2va_lab.errors import LabError
from sa2va_lab.loading.digests import digest_file
from sa2va_lab.loading.headers import KNOWN, Inert, read_pth
from sa2va_lab.loading.inventory import read_inventory
from sa2va_lab.loading.parts import COPY, LORA, official_name
from sa2va_lab.sa2va.weights import OfficialFolder

HALVES = ("A", "B")


class FineTune:
    """The tensors of one .pth by official name.

    pairs: {official weight name: {"A": (r, in), "B": (out, r)}}; whole: {official name: tensor}. Raises LabError for a
    file that is not a checkpoint, that asks to run code, or whose LoRA pairs are incomplete.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        if self.path.is_dir():
            read_inventory(self.path)  # says what a DeepSpeed or any other folder is
            raise LabError(
                f"{self.path} is a checkpoint folder: give the fine-tune, a .pth, or load the folder itself."
            )
        self.content = state = read_pickle(self.path)
        state = state.get("state_dict", state) if isinstance(state, dict) else state
        tensors = {k: v for k, v in state.items() if isinstance(v, Tensor)} if isinstance(state, dict) else {}
        if not tensors:
            raise LabError(f"{self.path} holds no tensors by name: give the .pth that the training wrote.")
        self.pairs: dict[str, dict[str, Tensor]] = {}
        self.whole: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            if match := LORA.fullmatch(name):
                self.pairs.setdefault(official_name(match["module"]) + ".weight", {})[match["half"]] = tensor
            elif match := COPY.fullmatch(name):
                self.whole[f"{official_name(match['module'])}.{match['tail']}"] = tensor
            elif ".original_module." not in name:  # the untrained twin of a copied module
                self.whole[official_name(name)] = tensor
        broken = [name for name, pair in self.pairs.items() if set(pair) != set(HALVES)]
        if broken:
            raise LabError(f"{self.path} holds only half of the LoRA pair for {broken[0]}: the file is incomplete.")

    @property
    def rank(self) -> int | None:
        """The rank of the LoRA pairs, None where there are none; LabError when they differ."""
        ranks = {len(pair["A"]) for pair in self.pairs.values()}
        if len(ranks) > 1:
            raise LabError(f"{self.path} mixes LoRA ranks {sorted(ranks)}: one scale cannot fit them all.")
        return next(iter(ranks), None)

    def sha256(self) -> str:
        """Digest of the whole file."""
        return digest_file(self.path)


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

    def dtypes(self) -> set[str]:
        """ "MERGED" is among them where LoRA is added: such a tensor is no view of any file."""
        return self.base.dtypes() | ({"MERGED"} if self.finetune.pairs else set())

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
        }

    def sha256(self) -> tuple[str, str]:
        """A digest of base, fine-tune and scale together, and what it was taken of."""
        digest, method = self.base.sha256()
        parts = f"{digest}\0{self.finetune.sha256()}\0{self.scale}"
        return hashlib.sha256(parts.encode()).hexdigest(), f"base ({method}), fine-tune (every byte) and LoRA scale"


def read_pickle(path: Path) -> object:
    """What a .pth holds, read with torch's restricted unpickler; nothing in the file can run."""
    if not path.is_file():
        raise LabError(f"No fine-tune at {path}: give the iter_*.pth file that the training wrote.")
    read_pth(path)  # absurd sizes and calls are refused here, before torch allots anything
    try:
        with torch.serialization.safe_globals([(Inert, name) for name in KNOWN]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # what the header did not give away
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise LabError(f"{path} is damaged or cut short ({said}): copy the file again from its source.") from None
