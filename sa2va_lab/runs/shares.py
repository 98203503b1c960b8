"""One Run by several processes: each predicts its share into a Run of its own, and the last one puts them together.

torchrun, `accelerate launch` and Slurm say to each process which of how many it is. The shares follow from that alone,
so the processes never talk to each other and torch.distributed is not needed; the folder is where they meet. A share is
an ordinary Run in `ranks/<number>of<count>/` of the folder: what was killed is resumed by the same start once more.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sa2va_lab.errors import LabError
from sa2va_lab.files import write_whole
from sa2va_lab.runs.asking import list_films
from sa2va_lab.runs.find import name_folder
from sa2va_lab.runs.read import LINES, LOGITS, META, Run, open_run, seal_run
from sa2va_lab.runs.write import check_request, choose_samples, lock_folder, predict_dataset

RANKS, LOCK = "ranks", ".ranks.lock"


@dataclass(frozen=True)
class Rank:
    """Which process this is: `number` of `count`, from 0; `local`: its number among those of this machine."""

    number: int
    count: int
    local: int = 0

    def choose_device(self, asked: str = "auto") -> str:
        """The device for this process: with "auto" the GPUs of its machine in turn, one replica each."""
        import torch

        visible = torch.cuda.device_count() if torch.cuda.is_available() else 0
        return f"cuda:{self.local % visible}" if asked == "auto" and visible else asked


def find_rank(environment: Mapping[str, str] = os.environ) -> Rank | None:
    """What a launcher put into the environment (RANK, WORLD_SIZE, LOCAL_RANK); None for a process alone. Raises
    LabError for numbers that cannot be."""
    usual = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    said = [environment.get(name, default) for name, default in usual.items()]
    try:
        number, count, local = map(int, said)
    except ValueError:
        number, count, local = -1, 0, 0
    if not 0 <= number < count or local < 0:
        raise LabError(
            f"RANK, WORLD_SIZE and LOCAL_RANK are {', '.join(said)}; expected RANK from 0 to below WORLD_SIZE: start "
            "with torchrun or accelerate launch, which set them, or unset them."
        )
    return Rank(number, count, local) if count > 1 else None


def predict_share(
    segmenter, dataset, *, rank: Rank, folder: str | Path, split: str = "all", limit: int | None = None, **how
) -> Run | None:
    """Predicts this process's share of a split; every `count`-th image (or film, where they are tracked), so that all
    are about equally long at work.

    folder: of the whole Run, the same for all processes, on a disk that all see. how: as `predict_dataset` takes it.
    Returns the whole Run from the process that finished last, else None. Where the whole is there already, the first
    process takes it up as a process alone would. Raises LabError as `predict_dataset` does, and for a Run that was
    begun by another number of processes.
    """
    folder = Path(folder)
    if (folder / META).exists():
        whole = {"folder": folder, "split": split, "limit": limit}
        return None if rank.number else predict_dataset(segmenter, dataset, **whole, **how)
    begun = {path.name.partition("of")[2] for path in folder.glob(f"{RANKS}/*of*")} - {str(rank.count)}
    if begun:
        first = min(begun)
        raise LabError(
            f"{folder} was begun by {first} processes, and this is one of {rank.count}: start {first} again."
        )
    track = how.get("track", False)
    chosen, spread = choose_samples(dataset.split(split), limit)
    parts = deal_samples(chosen.samples, rank.count, films=bool(track))
    shares = [folder / RANKS / f"{number + 1}of{rank.count}" for number in range(len(parts))]
    if rank.number < len(shares):
        share = chosen.select(sample.id for sample in parts[rank.number])
        predict_dataset(segmenter, share, folder=shares[rank.number], **how)
    folder.mkdir(parents=True, exist_ok=True)
    with lock_folder(folder, LOCK, wait=True):
        done = [open_run(path) for path in shares if (path / META).exists()]
        # a share whose last line is written is not done before its run.json says so: its process still writes there
        if (folder / META).exists() or len(done) < len(shares) or not all(run.meta["finished"] for run in done):
            return None
        return _put_together(done, chosen, spread, folder)


def deal_samples(samples: Sequence, count: int, *, films: bool) -> list[list]:
    """The samples of each of `count` processes, or of fewer where there are not so many images or films."""
    dealt = list_films(samples) if films else [[sample] for sample in samples]
    parts = [dealt[number::count] for number in range(min(count, len(dealt)))]
    return [[sample for group in part for sample in group] for part in parts]


def check_share(dataset, *, folder: Path, **how) -> None:
    """`check_request` for a folder that other processes of this launch, or of one that was killed, may have begun."""
    check_request(dataset, folder=folder if (folder / META).exists() else folder / RANKS / "new", **how)


def _put_together(shares: list[Run], chosen, spread: str, folder: Path) -> Run:
    """Moves the shares' records and logits into one Run; run.json comes last: a kill before it costs nothing."""
    (folder / LOGITS).mkdir(exist_ok=True)
    for path in folder.glob(f"{RANKS}/*/{LOGITS}/*.npz"):
        os.replace(path, folder / LOGITS / path.name)
    records = {record["id"]: record for run in shares for record in run.records}
    lines = [json.dumps(records[sample.id]) + "\n" for sample in chosen.samples]
    write_whole(folder / LINES, "".join(lines).encode())
    metas = [run.meta for run in shares]
    about = {
        "manifest_sha256": chosen.manifest_sha256,
        "chosen": spread,
        "samples": [sample.id for sample in chosen.samples],
    }
    ranks = [{"images": len(run.records), "device": run.meta["segmenter"].get("device")} for run in shares]
    meta = metas[0] | {"dataset": metas[0]["dataset"] | about, "ranks": ranks}
    meta |= {name: [step for one in metas for step in one.get(name, [])] for name in ("resumed", "steps")}
    asked = next((one for one in metas if one.get("own_prompts")), metas[0])  # a share may hold none of those images
    meta |= {name: asked[name] for name in ("prompt_reason", "own_prompts") if name in asked}
    meta |= {"started": min(one["started"] for one in metas), "finished": max(one["finished"] for one in metas)}
    seal_run(folder, meta)
    shutil.rmtree(folder / RANKS)
    return open_run(folder)


def claim_folder(runs: Path, name: str) -> Path:
    """The folder in `runs` that all processes of one launch write to: the newest that ends with `name`, else a new one,
    which the first process makes."""
    runs.mkdir(parents=True, exist_ok=True)
    with lock_folder(runs, LOCK, wait=True):
        folder = name_folder(runs, name)
        folder.mkdir(exist_ok=True)
        return folder
