"""plan: does it fit, here or on hardware that is not here?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from sa2va_lab.commands.options import AsJson, FineTuned, LoraAlpha, Sam2, TrainingConfig
from sa2va_lab.errors import LabError


def plan(
    model: Annotated[Path, typer.Argument(help="Checkpoint folder; only headers are read.")],
    gpu: Annotated[str | None, typer.Option(help="Memory of one GPU that is not here, such as 24GiB.")] = None,
    gpus: Annotated[int | None, typer.Option(help="How many of them; without --gpu, of those that are here.")] = None,
    cpu: Annotated[str | None, typer.Option(help="Memory of the host, such as 64GiB.")] = None,
    tiles: Annotated[int | None, typer.Option(help="Tiles of an image; the most there can be if not given.")] = None,
    sam2: Sam2 = None,
    finetune: FineTuned = None,
    config: TrainingConfig = None,
    lora_alpha: LoraAlpha = None,
    as_json: AsJson = False,
) -> None:
    """Print every rung of the ladder: what it needs, whether it fits, by how much."""
    from sa2va_lab.loading.forecast import GIB
    from sa2va_lab.loading.plan import plan as make_plan

    tuned = {"sam2": sam2, "finetune": finetune, "config": config, "lora_alpha": lora_alpha}
    made = make_plan(model, **tuned, gpu=gpu, gpus=gpus, cpu=cpu, tiles=tiles)
    if as_json:
        print(json.dumps(made.to_dict()))
        return
    for place, rung in enumerate(made.rungs):
        mark = "->" if place == made.chosen else "  "
        free = min(share.budget for share in rung.shares)
        print(f"{mark} {rung.precision:<5}{_name(rung):<15}{free / GIB:7.2f} GiB free  {rung.reason}")
    if made.chosen is None:
        raise LabError(made.explain_none())


def _name(rung) -> str:
    """The devices in short: "cuda:0", "cuda:0-3", "cpu + files"."""
    many = rung.layout.devices[1:]
    return rung.device + (f"-{many[-1].partition(':')[2]}" if many else "") + " + files" * (rung.layout.kept_back > 0)
