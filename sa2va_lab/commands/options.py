"""Options that several commands share, and how a result is said as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

Data = Annotated[Path, typer.Argument(metavar="DATASET", help="A data folder, or its annotations file.")]
Out = Annotated[Path, typer.Argument(help="A new folder.")]
Model = Annotated[Path, typer.Option(help="Checkpoint folder: config.json, tokenizer, *.safetensors.")]
Precision = Annotated[str, typer.Option(help="auto, fp32, bf16, fp16, int8 or nf4.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1.")]
Gpus = Annotated[int | None, typer.Option(help="The first so many GPUs; all if not given.")]
Spread = Annotated[bool, typer.Option("--spread", help="Spread the decoder layers though one GPU is enough.")]
Compile = Annotated[
    bool, typer.Option("--compile", help="torch.compile; for many images on a GPU, some minutes first.")
]
Sam2 = Annotated[Path | None, typer.Option(help="SAM2 (.pt or folder), where the checkpoint has none.")]
FineTuned = Annotated[Path | None, typer.Option(help="xtuner's iter_*.pth, laid over the checkpoint.")]
TrainingConfig = Annotated[Path | None, typer.Option(help="The training config; it is read, never executed.")]
LoraAlpha = Annotated[float | None, typer.Option(help="LoRA's alpha, where there is no config.")]
Phrase = Annotated[str | None, typer.Option(help="What to find, if the data set names several things.")]
Groups = Annotated[str | None, typer.Option(help="Regular expression for the patient in a file name.")]
Share = Annotated[float, typer.Option(help="Share of the images; 0 makes no such split.")]
Outputs = Annotated[Path | None, typer.Option(help="Where runs/ lies; outputs/ of the clone if not given.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON only.")]


def print_json(content) -> None:
    """One line of JSON, at once: another process may be waiting for it. What a terminal would obey is escaped in it."""
    text = json.dumps(content, ensure_ascii=False, default=str)
    print("".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text), flush=True)


def tell(told, lines: Iterable[str], *, as_json: bool) -> None:
    """Prints a result: as JSON, or the lines for a person."""
    if as_json:
        print_json(told)
    else:
        print("\n".join(lines))
