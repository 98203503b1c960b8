"""inspect: what is in a checkpoint, before anything is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from sa2va_lab.commands.options import AsJson, LoraAlpha, TrainingConfig


def inspect(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Checkpoint folders and .pth files.")],
    config: TrainingConfig = None,
    lora_alpha: LoraAlpha = None,
    content: Annotated[bool, typer.Option("--content", help="Also digest every byte; 32 GB take minutes.")] = False,
    as_json: AsJson = False,
) -> None:
    """What is in it, what is missing, what is stored twice: from headers, in seconds. A base and a .pth: also both."""
    from sa2va_lab.loading.inventory import read_inventory

    given = {"config": config, "lora_alpha": lora_alpha, "content": content}
    found = [read_inventory(path, **given) for path in paths]
    bases = [item.path for item in found if item.kind in ("sa2va", "base")]
    tuned = [item.path for item in found if item.kind == "finetune"]
    if len(bases) == len(tuned) == 1:
        found.append(read_inventory(bases[0], finetune=tuned[0], **given))
    if as_json:
        said = [item.to_dict() for item in found]
        print(json.dumps(said[0] if len(said) == 1 else {"inventories": said}, ensure_ascii=False))
        return
    print("\n\n".join("\n".join(item.to_lines()) for item in found))
