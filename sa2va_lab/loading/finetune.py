"""A fine-tune as xtuner writes it: `iter_*.pth`, or DeepSpeed's folder in its place; nothing in it can run.

The .pth holds only what was trained: LoRA pairs, whole copies of some modules, and parts trained in full. A folder of
DeepSpeed (ZeRO stage 1 and 2, after its utils/zero_to_fp32.py) has the weights as the training computed with them,
mostly in 16 bits ("module" in `mp_rank_00_model_states.pt`), and names and shapes of what was trained, a dictionary for
each parameter group ("param_shapes"). The float32 numbers are in the ranks' optimiser files: a group is one long row in
that order, cut into a piece a rank and padded at its end.
"""

from __future__ import annotations

import hashlib
import math
import operator
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sa2va_lab.errors import LabError
from sa2va_lab.loading.pickles import read_pth
from sa2va_lab.loading.tensors import LazyTensor, check_shape, first_line
from sa2va_lab.paths import real, shown_name
from sa2va_lab.sa2va.parts import name_officially

if TYPE_CHECKING:
    from torch import Tensor

    from sa2va_lab.training.config import TrainingConfig

LORA = re.compile(r"(?P<module>.+)\.lora_(?P<half>[AB])(\.default)?\.weight")
COPY = re.compile(r"(?P<module>.+)\.modules_to_save\.default\.(?P<tail>\w+)")
MODEL = "mp_rank_00_model_states.pt"
RANKS = "*zero_pp_rank_*_mp_rank_00_optim_states.pt"


@dataclass(frozen=True)
class FineTune:
    """What a fine-tune holds, by official name. pairs: {name of the weight: {"A": (r, in), "B": (out, r)}}; whole:
    {name: tensor}; doubled: tensors that only repeat a module of the base; rank: None without pairs. content: all else
    in the file; sha256: of all but the tensors' data; note: what was read, where that is not plain."""

    path: Path
    pairs: dict[str, dict[str, LazyTensor]]
    whole: dict[str, LazyTensor]
    doubled: list[LazyTensor]
    rank: int | None
    content: dict
    sha256: str
    note: str

    @property
    def tensors(self) -> dict[str, LazyTensor]:
        """All but the doubled; a LoRA tensor keeps `.lora_A` or `.lora_B` in its name."""
        halves = {
            f"{name.removesuffix('.weight')}.lora_{half}.weight": tensor
            for name, pair in self.pairs.items()
            for half, tensor in pair.items()
        }
        return self.whole | halves

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor of the base that it replaces or adds to."""
        pairs = {name: (*pair["B"].shape[:1], *pair["A"].shape[1:]) for name, pair in self.pairs.items()}
        return {name: tensor.shape for name, tensor in self.whole.items()} | pairs


def is_zero(path: Path) -> bool:
    """Whether `path` is a folder that DeepSpeed saved, of whatever stage."""
    return path.is_dir() and next(path.glob("*_model_states.pt"), None) is not None


def read_finetune(path: Path) -> FineTune:
    """Raises LabError for a file that is no checkpoint, that asks to run code, or whose LoRA pairs are incomplete."""
    if path.suffix == ".safetensors" and path.is_file():
        raise LabError(f"{path} is one file of a checkpoint: give its folder, {path.parent}.")
    content, digest, note = _read_zero(path) if is_zero(path) else (*read_pth(path), "")
    pairs, whole, doubled, state = {}, {}, [], _find_state(content, path)
    official_name = name_officially(state)
    for name, tensor in state.items():
        if match := LORA.fullmatch(name):
            pairs.setdefault(official_name(match["module"]) + ".weight", {})[match["half"]] = tensor
        elif match := COPY.fullmatch(name):
            whole[f"{official_name(match['module'])}.{match['tail']}"] = tensor
            doubled.append(tensor)
        elif ".original_module." in name:  # the untrained twin of a copied module
            doubled.append(tensor)
        else:
            whole[official_name(name)] = tensor
    if broken := [name for name, pair in pairs.items() if len(pair) != 2]:
        raise LabError(f"{path} holds only half of the LoRA pair for {broken[0]}: the file is incomplete.")
    ranks = sorted({pair["A"].shape[0] if pair["A"].shape else 0 for pair in pairs.values()})
    if len(ranks) > 1 or 0 in ranks:
        raise LabError(f"{path} mixes LoRA ranks {ranks}: one scale cannot fit them all.")
    return FineTune(path, pairs, whole, doubled, ranks[0] if ranks else None, content, digest, note)


def find_alpha(content: object, config: Path | str | None = None, lora_alpha: float | None = None) -> float | None:
    """LoRA's alpha as given, from the config, or from the copy of the config that mmengine leaves in the .pth.

    content: what the .pth holds. None where it stands nowhere.
    """
    alpha = lora_alpha or (find_training(content, config).lora_alpha if config else None)
    if not alpha and (kept := find_training(content)):
        alpha = kept.lora_alpha
    if alpha is not None and not 0 < alpha < math.inf:
        raise LabError(f"LoRA's alpha is {alpha:g}: give the one that was trained with (--lora-alpha).")
    return alpha


def find_training(content: object, config: Path | str | None = None) -> TrainingConfig | None:
    """The training config: the one given, or the copy that mmengine leaves in the .pth, None where there is none."""
    from sa2va_lab.training.config import LARGEST, parse_config, read_config  # no part of what loads a plain Sa2VA

    if config:
        return read_config(config)
    meta = content.get("meta") if isinstance(content, dict) else None
    text = meta.get("cfg") if isinstance(meta, dict) else None
    try:
        return parse_config(text) if isinstance(text, str) and 0 < len(text) <= LARGEST else None
    except LabError:
        return None


def tell_other_base(training: TrainingConfig | None, given: Path, raw: dict, *, bare: bool) -> str:
    """What is to be said where a config names another base than the one given; "" where the names agree or none is
    there. Names alone are compared, for nothing in a fine-tune knows its base.

    raw: config.json of the base. bare: whether it is an InternVL, on which Sa2VA's own weights are no base.
    """
    stated = [name for name in (not bare and training.weights, training.base) if name] if training else []
    own = [str(raw.get("_name_or_path") or ""), *given.absolute().parts[-4:], real(given).name]
    if not stated or {_spell(name) for name in stated} & {_spell(name.rpartition("--")[2]) for name in own}:
        return ""
    return (
        f"the training config names {Path(stated[0]).name} as its base, and the one given is called "
        f"{shown_name('model', given)}: on another base than its own a fine-tune's answers are worthless"
    )


def _spell(path: str) -> str:
    name = re.split(r"[\\/]", path.rstrip("\\/"))[-1].lower()
    return re.sub(r"[^a-z0-9]", "", re.sub(r"\.(pth|pt|bin|safetensors)$", "", name))


def add_lora(base: LazyTensor, pair: dict[str, LazyTensor], scale: float) -> Tensor:
    """W + scale B A in float32."""
    return base.read().float() + scale * (pair["B"].read().float() @ pair["A"].read().float())


def _find_state(content: object, path: Path) -> dict[str, LazyTensor]:
    state = content if isinstance(content, dict) else {}
    state = next((state[key] for key in ("state_dict", "model", "module") if isinstance(state.get(key), dict)), state)
    tensors = {name: value for name, value in state.items() if isinstance(value, LazyTensor)}
    if not tensors or not all(isinstance(name, str) and name.isprintable() for name in tensors):
        raise LabError(f"{path} holds no tensors by name: give the .pth that the training wrote.")
    strange = [name for name in state if name not in tensors and "." in str(name)]  # no count of epochs, but weights
    if strange := [name for name in strange if not str(name).endswith("_extra_state")]:
        raise LabError(f"{path} has {strange[0]!r:.80} among its weights, which is no tensor: copy it again.")
    return tensors


def _read_zero(folder: Path) -> tuple[dict, str, str]:
    """(what MODEL holds, with float32 numbers in "module" where all ranks' files are here; digest; which it is).

    Raises LabError for stage 3, whose weights lie in pieces, and for files that do not belong together.
    """
    if not (folder / MODEL).is_file() or (folder / MODEL.replace("00", "01")).exists():
        raise LabError(
            f"{folder} is a DeepSpeed checkpoint of ZeRO stage 3, or of a model split over GPUs: its weights lie in "
            f"pieces. Where DeepSpeed is installed, `cd {folder.parent}`, `python zero_to_fp32.py . OUT --tag "
            f"{folder.name} --max_shard_size 999GB`, and give OUT/pytorch_model.bin."
        )
    try:
        ranks = sorted(folder.glob(RANKS), key=lambda file: int(re.search(r"pp_rank_(\d+)", file.name)[1]))
        read = [read_pth(file) for file in (folder / MODEL, *ranks)]
        digest = hashlib.sha256("".join(one for _, one in read).encode()).hexdigest()
        content, *optimisers = (one for one, _ in read)
        optimisers = [one["optimizer_state_dict"] for one in optimisers]
        state = content["module"]
        count = max(map(operator.index, optimisers[0]["partition_count"])) if ranks else None
        if len(ranks) != count:
            there = f"{len(ranks)} of {count} ranks' optimiser files are" if ranks else "no optimiser file is"
            note = f"DeepSpeed: the weights that it computed with, since {there} here, which hold float32"
            return content, digest, note
        for group, shapes in enumerate(content["param_shapes"]):
            _fill(state, shapes, [rank["single_partition_of_fp32_groups"][group] for rank in optimisers])
        for name, same in content.get("shared_params", {}).items():
            if isinstance(same, str) and same in state:
                state[name] = state[same]
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise LabError(
            f"The files in {folder} do not make one DeepSpeed checkpoint ({first_line(error)}): copy the folder again."
        ) from None
    plural = "s" if count > 1 else ""
    return content, digest, f"DeepSpeed: the float32 numbers of its optimiser, from {count} rank{plural}"


def _fill(state: dict, shapes: dict, rows: list[LazyTensor]) -> None:
    """Puts a group's tensors into `state`. rows: the group's numbers by rank, (n,) each."""
    shapes = {name: check_shape(shape, name) for name, shape in shapes.items()}
    lengths = [math.prod(row.shape) for row in rows]
    if any(len(row.shape) != 1 for row in rows):
        raise ValueError("a row of numbers is no row")
    spare = sum(lengths) - sum(map(math.prod, shapes.values()))
    if not 0 <= spare < 2 * len(rows):  # DeepSpeed pads a group to a multiple of twice the ranks
        raise ValueError(f"{sum(lengths):,} numbers for tensors of {sum(lengths) - spare:,}")
    place = 0
    for name, shape in shapes.items():
        end, start, pieces = place + math.prod(shape), 0, []
        for row, length in zip(rows, lengths, strict=True):
            if max(place, start) < min(end, start + length):
                pieces.append((row, max(place, start) - start, min(end, start + length) - start))
            start += length
        copy = state.pop(name, None)  # put last: PEFT may have named it without ".default", and the later one counts
        if copy is not None and copy.shape != shape:
            raise ValueError(f"{name} is {copy.shape} and {shape}")
        state[name] = LazyTensor(shape, rows[0].dtype, partial(_join, name, pieces, shape, copy))
        place = end


def _join(name: str, pieces: list[tuple[LazyTensor, int, int]], shape: tuple, copy: LazyTensor | None) -> Tensor:
    """A tensor of a DeepSpeed folder; LabError where its first numbers do not round to those of its 16-bit copy."""
    import torch

    cut = [row.read()[start:stop] for row, start, stop in pieces] or [torch.empty(0)]
    made = (cut[0] if len(cut) == 1 else torch.cat(cut)).view(shape)
    kept = copy.read() if copy is not None else None
    if kept is not None and kept.is_floating_point():
        one, other, exact = made.flatten()[:64].float(), kept.flatten()[:64].float(), torch.finfo(kept.dtype)
        if not torch.allclose(one, other, rtol=exact.eps, atol=exact.tiny, equal_nan=True):
            raise LabError(
                f"The files in the DeepSpeed folder do not belong together ({name}: the optimiser's numbers are not "
                "those of the weights): copy the folder again."
            )
    return made
