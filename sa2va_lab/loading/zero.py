"""A DeepSpeed folder in the place of a .pth: what ZeRO stage 1 and 2 leave, after DeepSpeed's utils/zero_to_fp32.py.

`mp_rank_00_model_states.pt` holds the weights as the training computed with them, mostly in 16 bits ("module"), and
names and shapes of what was trained, a dictionary for each parameter group ("param_shapes"). The float32 numbers are
in the ranks' optimiser files: a group is one long row in that order, cut into a piece a rank and padded at its end.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from pathlib import Path

from sa2va_lab.errors import LabError
from sa2va_lab.loading.headers import check_shape

MODEL = "mp_rank_00_model_states.pt"
RANKS = "*zero_pp_rank_*_mp_rank_00_optim_states.pt"


def is_zero(path: Path) -> bool:
    """Whether `path` is a folder that DeepSpeed saved, of whatever stage."""
    return path.is_dir() and next(path.glob("*_model_states.pt"), None) is not None


def read_zero(folder: Path, read: Callable[[Path], object], join: Callable) -> tuple[dict, str]:
    """(what MODEL holds, with float32 numbers in "module" where all ranks' files are here; a sentence on which it is)

    read: opens one file. join(pieces, shape, copy): the tensor that `pieces`, (row, start, stop) each, make; copy: what
    "module" has of it, or None. Both readers, of headers and of tensors, come through here. Raises LabError for stage
    3, whose weights lie in pieces, and for files that do not belong together.
    """
    if not (folder / MODEL).is_file() or (folder / MODEL.replace("00", "01")).exists():
        raise LabError(
            f"{folder} is a DeepSpeed checkpoint of ZeRO stage 3, or of a model split over GPUs: its weights lie in "
            f"pieces. Where DeepSpeed is installed, `cd {folder.parent}`, `python zero_to_fp32.py . OUT --tag "
            f"{folder.name} --max_shard_size 999GB`, and give OUT/pytorch_model.bin."
        )
    try:
        content = read(folder / MODEL)
        state = content["module"]
        ranks = sorted(folder.glob(RANKS), key=lambda file: int(re.search(r"pp_rank_(\d+)", file.name)[1]))
        optimisers = [read(file)["optimizer_state_dict"] for file in ranks]
        count = max(map(operator.index, optimisers[0]["partition_count"])) if ranks else None
        if len(ranks) != count:
            found = f"{len(ranks)} of {count} ranks' optimiser files are" if ranks else "no optimiser file is"
            return content, f"DeepSpeed: the weights that it computed with, since {found} here, which hold float32"
        for group, shapes in enumerate(content["param_shapes"]):
            _fill(state, shapes, [rank["single_partition_of_fp32_groups"][group] for rank in optimisers], join)
        for name, same in content.get("shared_params", {}).items():
            if isinstance(same, str) and same in state:
                state[name] = state[same]
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        said = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
        raise LabError(
            f"The files in {folder} do not make one DeepSpeed checkpoint ({said}): copy the folder again."
        ) from None
    return content, f"DeepSpeed: the float32 numbers of its optimiser, from {count} rank{'s' if count > 1 else ''}"


def _fill(state: dict, shapes: dict, rows: list, join: Callable) -> None:
    """Puts a group's tensors into `state`. rows: the group's numbers by rank, (n,) each."""
    shapes = {name: check_shape(shape, name) for name, shape in shapes.items()}
    lengths = [math.prod(row.shape) for row in rows]
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
        copy = state.get(name)
        if copy is not None and tuple(copy.shape) != shape:
            raise ValueError(f"{name} is {tuple(copy.shape)} and {shape}")
        state.pop(name, None)  # put last: PEFT may have named the copy without its ".default", and the later one counts
        state[name] = join(pieces, shape, copy)
        place = end
