"""demo data, demo train, demo finetune: the shipped example made anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def data(
    out: Annotated[Path, typer.Argument(help="A new folder.")],
    seed: Annotated[int, typer.Option(help="Other seeds give other patients.")] = 0,
) -> None:
    """Draw the synthetic angiograms: OUT/angiograms with annotations and splits, OUT/labelme; seed 0 is the shipped."""
    from sa2va_lab.demo.albums import write_demo

    print(write_demo(out, seed=seed))


def train(
    out: Annotated[Path, typer.Argument(help="Folder for the trained checkpoint.")],
    work: Annotated[Path, typer.Option(help="Folder for frames, checkpoints and logs; resumed if it is there.")],
    start: Annotated[Path | None, typer.Option(help="A demo base to train further; new weights if not given.")] = None,
) -> None:
    """Train the tiny Sa2VA on synthetic angiograms that are not in the shipped set."""
    from sa2va_lab.demo.pretraining import train as make

    print(json.dumps(make(out, work=work, start=start), indent=1))


def finetune(
    out: Annotated[Path, typer.Argument(help="Folder for iter_*.pth, its config and its logs.")],
    base: Annotated[Path | None, typer.Option(help="The base model; the shipped one if not given.")] = None,
    data: Annotated[Path | None, typer.Option(help="The data set; the shipped one if not given.")] = None,
) -> None:
    """Fine-tune the base model with LoRA on the training patients, and leave it as xtuner would."""
    from sa2va_lab import paths
    from sa2va_lab.demo.finetune import finetune as make

    print(make(base or paths.demo_model(), data or paths.demo_data(), out))
