"""inspect and merge: what is in a checkpoint, and a fine-tune made one with its base."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from sa2va_lab.commands.options import AsJson, FineTuned, LoraAlpha, Sam2, TrainingConfig


def inspect(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Checkpoint folders and .pth files.")],
    config: TrainingConfig = None,
    lora_alpha: LoraAlpha = None,
    content: Annotated[bool, typer.Option("--content", help="Also digest every byte; 32 GB take minutes.")] = False,
    as_json: AsJson = False,
) -> None:
    """What is in it, what is missing, what is stored twice: from headers. A base, SAM2, a .pth: also together."""
    from sa2va_lab.loading.inventory import read_inventory

    given = {"config": config, "lora_alpha": lora_alpha, "content": content}
    found = [read_inventory(path, **given) for path in paths]
    bases = [item.path for item in found if item.kind in ("sa2va", "base")]
    tuned = [item.path for item in found if item.kind == "finetune"]
    masks = [item.path for item in found if item.kind == "sam2"]
    if len(bases) == 1 and max(len(tuned), len(masks)) == 1:
        found.append(read_inventory(bases[0], sam2=_only(masks), finetune=_only(tuned), **given))
    if as_json:
        said = [item.to_dict() for item in found]
        print(json.dumps(said[0] if len(said) == 1 else {"inventories": said}, ensure_ascii=False))
        return
    print("\n\n".join("\n".join(item.to_lines()) for item in found))


def _only(paths: list[Path]) -> Path | None:
    return paths[0] if paths else None


def merge(
    base: Annotated[Path, typer.Argument(help="A complete Sa2VA folder, or with --sam2 an InternVL folder.")],
    out: Annotated[Path, typer.Argument(help="A new folder.")],
    sam2: Sam2 = None,
    finetune: FineTuned = None,
    config: TrainingConfig = None,
    lora_alpha: LoraAlpha = None,
    precision: Annotated[str, typer.Option(help="fp32, bf16 or fp16.")] = "bf16",
    shard_gb: Annotated[float, typer.Option(help="Size of a weight file at most; one is in memory at a time.")] = 4.0,
    as_json: AsJson = False,
) -> None:
    """Write base and fine-tune as one folder in the official form; without a fine-tune, the base at PRECISION."""
    from tqdm import tqdm

    from sa2va_lab.loading.merge import merge as make

    done = make(
        base,
        out,
        sam2=sam2,
        finetune=finetune,
        config=config,
        lora_alpha=lora_alpha,
        precision=precision,
        shard_bytes=max(1, int(shard_gb * (1 << 30))),
        progress=iter if as_json else lambda names: tqdm(names, desc="write", unit="tensor"),
    )
    if as_json:
        print(json.dumps(done, ensure_ascii=False))
        return
    print(f"{done['tensors']} tensors, {done['bytes']:,} bytes in {out}; LoRA merged into {done['lora_layers']} layers")
    print(
        f"read back: {', '.join(done['checked'])} differ by {done['largest_difference']:.3g} at most from "
        f"{'base + scale B A' if done['lora_layers'] else 'the base'} (rounding allows {done['allowed']:.3g})"
    )
