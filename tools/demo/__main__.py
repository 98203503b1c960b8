"""The shipped example made anew, from the root: python -m tools.demo data | train | remember | finetune."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from sa2va_lab import paths
from sa2va_lab.errors import LabError

app = typer.Typer(
    help="Make the demo anew: synthetic patients, a tiny Sa2VA that learned.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.command()
def data(
    out: Annotated[Path, typer.Argument(help="A new folder.")],
    seed: Annotated[int, typer.Option(help="Other seeds give other patients.")] = 0,
) -> None:
    """Draw the synthetic angiograms: OUT/angiograms with annotations and splits, OUT/labelme; seed 0 is the shipped."""
    from tools.demo.albums import write_demo

    print(write_demo(out, seed=seed))


@app.command()
def train(
    out: Annotated[Path, typer.Argument(help="Folder for the trained checkpoint.")],
    work: Annotated[Path, typer.Option(help="Folder for frames, checkpoints and logs; resumed if it is there.")],
) -> None:
    """Train the tiny Sa2VA on synthetic angiograms that are not in the shipped set."""
    from tools.demo.pretraining import train as make

    print(json.dumps(make(out, work=work), indent=1))


@app.command()
def remember(
    out: Annotated[Path, typer.Argument(help="Folder for the checkpoint.")],
    work: Annotated[Path, typer.Option(help="Folder for films, checkpoint and log; resumed if it is there.")],
    base: Annotated[
        Path | None, typer.Option(help="The model that is to follow; the shipped one if not given.")
    ] = None,
) -> None:
    """Train SAM2's memory of the tiny Sa2VA on synthetic films; everything else of it stays as it is."""
    from tools.demo.memory import teach

    print(json.dumps(teach(base or paths.demo_model(), out, work=work), indent=1))


@app.command()
def finetune(
    out: Annotated[Path, typer.Argument(help="Folder for iter_*.pth, its config and its logs.")],
    base: Annotated[Path | None, typer.Option(help="The base model; the shipped one if not given.")] = None,
    data: Annotated[Path | None, typer.Option(help="The data set; the shipped one if not given.")] = None,
) -> None:
    """Fine-tune the base model with LoRA on the training patients, and leave it as xtuner would."""
    from tools.demo.finetune import finetune as make

    print(make(base or paths.demo_model(), data or paths.demo_data(), out))


if __name__ == "__main__":
    try:
        app(prog_name="python -m tools.demo")
    except LabError as error:
        raise SystemExit(f"tools.demo: {error}") from None
