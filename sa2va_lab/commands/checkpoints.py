"""inspect, plan and merge: what is in a checkpoint, whether it fits, and a fine-tune made one with its base."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from sa2va_lab.commands import options as o
from sa2va_lab.errors import LabError
from sa2va_lab.loading.inventory import read_inventory


def inspect(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Checkpoint folders and .pth files.")],
    config: o.TrainingConfig = None,
    lora_alpha: o.LoraAlpha = None,
    content: Annotated[bool, typer.Option("--content", help="Also digest every byte; 32 GB take minutes.")] = False,
    as_json: o.AsJson = False,
) -> None:
    """What is in it, what is missing, what is stored twice: from headers. A base, SAM2, a .pth: also together."""
    given = {"config": config, "lora_alpha": lora_alpha, "content": content}
    found = [read_inventory(path, **given) for path in paths]
    bases = [item.path for item in found if item.kind in ("sa2va", "base")]
    parts = {name: [item.path for item in found if item.kind == name] for name in ("sam2", "finetune")}
    if len(bases) == 1 and max(map(len, parts.values())) == 1:
        only = {name: of_kind[0] if of_kind else None for name, of_kind in parts.items()}
        found.append(read_inventory(bases[0], **only, **given))
    said, lines = [item.to_dict() for item in found], "\n\n".join("\n".join(item.to_lines()) for item in found)
    o.tell(said[0] if len(said) == 1 else {"inventories": said}, [lines], as_json=as_json)


def plan(
    model: Annotated[Path, typer.Argument(help="Checkpoint folder (headers are read), or a release: Sa2VA-8B.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All releases, on that GPU or on those of today.")] = False,
    gpu: Annotated[str | None, typer.Option(help="Memory of one GPU that is not here, such as 24GiB.")] = None,
    gpus: Annotated[int | None, typer.Option(help="How many of them; without --gpu, of those that are here.")] = None,
    cpu: Annotated[str | None, typer.Option(help="Memory of the host, such as 64GiB.")] = None,
    tiles: Annotated[int | None, typer.Option(help="Tiles of an image; the most there can be if not given.")] = None,
    spread: o.Spread = False,
    sam2: o.Sam2 = None,
    finetune: o.FineTuned = None,
    config: o.TrainingConfig = None,
    lora_alpha: o.LoraAlpha = None,
    as_json: o.AsJson = False,
) -> None:
    """Print every rung of the ladder: what it needs, whether it fits, by how much."""
    from sa2va_lab.loading.plan import plan as make_plan  # torch comes with it

    if every == bool(model):
        raise LabError("plan takes a checkpoint folder or a release's name, or --all.")
    if every:
        _plan_all(gpu, gpus or 1, tiles, as_json=as_json)
        return
    tuned = {"sam2": sam2, "finetune": finetune, "config": config, "lora_alpha": lora_alpha}
    made = make_plan(model, **tuned, gpu=gpu, gpus=gpus, cpu=cpu, tiles=tiles, spread=spread)
    if as_json:
        o.print_json(made.to_dict())
        return
    for place, rung in enumerate(made.rungs):
        print(f"{'->' if place == made.chosen else '  '} {rung.precision:<5}{rung.where}: {rung.reason}")
    if made.chosen is None:
        raise LabError(made.explain())
    print(made.explain())


def _plan_all(gpu: str | None, gpus: int, tiles: int | None, *, as_json: bool) -> None:
    from sa2va_lab.loading.devices import parse_size
    from sa2va_lab.loading.matrix import CARDS, weigh_releases
    from sa2va_lab.views.plans import releases_table

    image = f"tiles: {tiles}" if tiles else "the largest image"
    rows = weigh_releases(cards=(parse_size(gpu),) if gpu else CARDS, gpus=gpus, images={image: tiles})
    head = f"{image}; the most precise format that fits, GiB to spare on one card (below 0: lacking), × cards"
    o.tell({"gpus": gpus, "rows": rows}, [head, str(releases_table(rows, gpus=gpus))], as_json=as_json)


def merge(
    base: Annotated[Path, typer.Argument(help="A complete Sa2VA folder, or with --sam2 an InternVL or Qwen-VL.")],
    out: o.Out,
    sam2: o.Sam2 = None,
    finetune: o.FineTuned = None,
    config: o.TrainingConfig = None,
    lora_alpha: o.LoraAlpha = None,
    precision: Annotated[str, typer.Option(help="fp32, bf16 or fp16.")] = "bf16",
    shard_gb: Annotated[float, typer.Option(help="Size of a weight file at most; one is in memory at a time.")] = 4.0,
    as_json: o.AsJson = False,
) -> None:
    """Write base and fine-tune as one folder in the official form; without a fine-tune, the base at PRECISION."""
    from sa2va_lab.loading.merge import merge as make  # torch comes with it

    if not 0 < shard_gb < 1e6:
        raise LabError(f"--shard-gb is {shard_gb}; expected a size above 0, such as 4")
    tuned = {"sam2": sam2, "finetune": finetune, "config": config, "lora_alpha": lora_alpha}
    how = {"precision": precision, "shard_bytes": max(1, int(shard_gb * (1 << 30)))}
    progress = iter if as_json else lambda names: tqdm(names, desc="write", unit="tensor")
    done = make(base, out, **tuned, **how, progress=progress)
    size = f"{done['tensors']} tensors, {done['bytes']:,} bytes in {out}; LoRA merged into {done['lora_layers']} layers"
    source = "base + scale B A" if done["lora_layers"] else "the base"
    largest = f"{done['largest_difference']:.3g} at most from {source} (rounding allows {done['allowed']:.3g})"
    o.tell(done, [size, f"read back: {', '.join(done['checked'])} differ by {largest}"], as_json=as_json)
