"""runs, evaluate, compare: what was predicted, how good it is, and which of two is better."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from sa2va_lab.commands import options as o
from sa2va_lab.datasets.formats import open_dataset
from sa2va_lab.errors import LabError
from sa2va_lab.evaluation.accounting import find_twin
from sa2va_lab.evaluation.intervals import compare_paired
from sa2va_lab.evaluation.metrics import evaluate_run, summarise
from sa2va_lab.evaluation.thresholds import refuse_seen, take_threshold
from sa2va_lab.runs import Run, open_run, walk_runs
from sa2va_lab.runs.find import open_named, runs_folder
from sa2va_lab.views.findings import describe_finding, report_finding


def runs(outputs: o.Outputs = None, as_json: o.AsJson = False) -> None:
    """List the Runs: when, which weights, precision, data and split, how many images are done and how many failed."""
    folder = runs_folder(outputs)
    rows = [_describe(path, found) for path, found in walk_runs(folder)]
    if as_json:
        o.print_json(rows)
        return
    for row in rows:
        if row["error"]:
            print(f"{row['name']}: {row['error']}")
            continue
        tuned = f" + {row['finetune']}" if row["finetune"] else ""
        role = "" if row["role"] == "main" else f" ({row['role']})"
        count = f"{row['done']} of {row['of']} images, {row['failed']} failed"
        model = f"weights {row['weights']}{tuned} {row['precision']}"
        print(f"{row['name']}{role}: {model}, {row['phrase']!r} on {row['split']}, {count}")
    if not rows:
        print(f"no Runs in {folder}; `sa2va-lab predict DATA --model CHECKPOINT` makes one.")


def _describe(path: Path, run: Run | LabError) -> dict:
    """A row of the list; of a damaged Run only what is wrong with it."""
    if isinstance(run, LabError):
        return {"name": path.name, "error": str(run)}
    return {
        "name": path.name,
        "role": run.role,
        "started": run.meta["started"],
        "weights": run.maker.weights[:12],
        "finetune": (run.meta["segmenter"].get("finetune") or {}).get("file"),
        "precision": run.maker.precision,
        "phrase": run.phrase or run.maker.prompt,
        "split": run.split,
        "done": len(run.records),
        "of": len(run.sample_ids),
        "failed": len(run.failed_ids),
        "error": None,
    }


def evaluate(
    run: Annotated[Path, typer.Argument(help="A Run folder, as a report writes to outputs/runs/.")],
    data: Annotated[Path, typer.Option(help="The data set that was predicted, with its annotations.")],
    threshold: Annotated[str, typer.Option(help="A number, or a threshold.json chosen on other images.")] = "0.5",
    allow_same_images: Annotated[
        bool, typer.Option("--allow-same-images", help="Even a threshold chosen on these images; the title says so.")
    ] = False,
    groups: o.Groups = None,
    as_json: o.AsJson = False,
) -> None:
    """Compare a Run with the ground truth: Dice, IoU, precision and recall, with N and interval."""
    made, choice = open_run(run), take_threshold(threshold)
    said = refuse_seen(choice, made, allow=allow_same_images)
    table = evaluate_run(made, open_dataset(data, phrase=made.phrase, groups=groups), threshold=choice.value)
    summary = summarise(table)
    if as_json:
        told = {"threshold": {"value": choice.value, "reason": choice.reason, "warning": said}, "summary": summary}
        o.print_json(told | {"samples": json.loads(table.to_json(orient="records"))})
        return
    if said:
        print(f"TOO GOOD TO REPORT: {said}")
    if table.attrs.get("stamp"):
        print(table.attrs["stamp"])
    counted = f"{summary['n_images']} images of {summary['n_groups']} patients"
    print(f"{counted}, threshold {choice.value:g} ({choice.reason}); ", end="")
    print(f"{summary['n_failed']} failed, {summary['n_without_truth']} without truth")
    for name in ("dice", "iou", "precision", "recall"):
        score = summary[name]
        interval = f"[{score['low']:.4f}, {score['high']:.4f}]"
        print(f"{name:>10}  macro {score['macro']:.4f} {interval}  pooled {score['pooled']:.4f}")


def compare(
    first: Annotated[Path, typer.Argument(help="A Run: folder or name.")],
    second: Annotated[Path, typer.Argument(help="Another Run over the same images.")],
    data: Annotated[Path, typer.Option(help="The data set that both were made on, with its annotations.")],
    threshold: Annotated[float, typer.Option(help="A pixel is in the mask above this probability.")] = 0.5,
    groups: o.Groups = None,
    outputs: o.Outputs = None,
    as_json: o.AsJson = False,
) -> None:
    """Dice of two Runs on the same images: paired difference with interval over patients; refused for other images."""
    pair = [open_named(named, runs_folder(outputs)) for named in (first, second)]
    ids = [set(made.sample_ids) for made in pair]
    if ids[0] != ids[1]:
        names = " and ".join(made.folder.name for made in pair)
        raise LabError(
            f"{names} are over other images ({len(ids[0])} and {len(ids[1])}, {len(ids[0] & ids[1])} in both): no "
            "ranking would be fair; predict both over one split."
        )
    images = open_dataset(data, phrase=pair[0].phrase, groups=groups)
    tables = [evaluate_run(made, images, threshold=threshold).set_index("id") for made in pair]
    own, other = tables[0], tables[1].loc[tables[0].index]
    found, twin = compare_paired(own["dice"], other["dice"], own["group"]), find_twin(*pair)
    means = {made.folder.name: float(table["dice"].mean()) for made, table in zip(pair, tables, strict=True)}
    if as_json:
        o.print_json({"dice": means, "difference": dataclasses.asdict(found), "twin": report_finding(twin)})
        return
    for made, table in zip(pair, tables, strict=True):
        print(f"{made.folder.name}: Dice {table['dice'].mean():.4f} at threshold {threshold}")
    interval = f"[{found.low:+.4f}, {found.high:+.4f}], p = {found.p:.3f}"
    counted = f"{found.n_images} images of {found.n_groups} patients"
    print(f"difference {found.mean:+.4f} {interval}, {counted}" + "; not distinguishable" * (not found.distinguishable))
    prompts = [made.maker.prompt for made in pair]
    if prompts[0] != prompts[1]:
        print(f"asked differently: {prompts[0]!r} and {prompts[1]!r}")
    elif twin.alarm:
        print(describe_finding(twin))
