"""predict over a data set, runs, compare: Runs from the command line."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from sa2va_lab.commands.options import AsJson
from sa2va_lab.errors import LabError

Outputs = Annotated[Path | None, typer.Option(help="Where runs/ lies; outputs/ of the clone if not given.")]


def predict_data(
    segmenter, data: Path, *, folder: Path, prompt: str | None, split: str, phrase: str | None, groups: str | None,
    limit: int | None, retry_failed: bool, progress: bool, rank=None,
):  # fmt: skip
    """A Run of `segmenter` over a data set; what lies in `folder` already is taken up. rank: of several processes,
    whose last one returns the Run, and the others None."""
    from sa2va_lab.datasets.formats import open_dataset
    from sa2va_lab.runs import predict_dataset
    from sa2va_lab.runs.shares import predict_share

    images = open_dataset(data, phrase=phrase, groups=groups)
    part, reason = images.choose_split(split)
    if progress:
        print(f"{images.reason}; {part}: {reason}", file=sys.stderr)
    how = {"folder": folder, "prompt": prompt, "split": part, "limit": limit, "retry_failed": retry_failed}
    if rank is None:
        return predict_dataset(segmenter, images, **how, progress=progress)
    return predict_share(segmenter, images, rank=rank, **how, progress=progress)


def runs_folder(outputs: Path | None) -> Path:
    """runs/ under `outputs`, or under outputs/ of the clone."""
    from sa2va_lab import paths

    return (outputs or paths.find_root() / "outputs") / "runs"


def find_run(named: Path, outputs: Path | None) -> Path:
    """A Run's folder, given as a path or by its name or the end of its name in runs/; LabError where none fits."""
    if named.is_dir():
        return named
    folder = runs_folder(outputs)
    found = sorted(path.parent for path in folder.glob("*/run.json"))
    fits = [path for path in found if path.name == str(named) or path.name.partition("_")[2] == str(named)]
    if not fits:
        known = ", ".join(path.name for path in found[-5:]) or "none so far"
        raise LabError(f"no Run is called {named} in {folder} (the newest there: {known}); give its folder or name.")
    return fits[-1]


def runs(outputs: Outputs = None, as_json: AsJson = False) -> None:
    """List the Runs: when, which weights, precision, data and split, how many images are done and how many failed."""
    from sa2va_lab.runs import open_run

    rows = []
    for path in sorted(runs_folder(outputs).glob("*/run.json")):
        try:
            made = open_run(path.parent)
        except LabError as error:
            rows.append({"name": path.parent.name, "error": str(error)})
            continue
        segmenter, dataset = made.meta["segmenter"], made.meta["dataset"]
        rows.append(
            {
                "name": made.folder.name,
                "started": made.meta["started"],
                "weights": str(segmenter["weights_sha256"])[:12],
                "finetune": (segmenter.get("finetune") or {}).get("file"),
                "precision": (segmenter.get("precision") or {}).get("actual"),
                "phrase": dataset["phrase"],
                "split": dataset["split"],
                "done": len(made.records),
                "of": len(made.sample_ids),
                "failed": len(made.failed_ids),
                "error": None,
            }
        )
    if as_json:
        print(json.dumps(rows, ensure_ascii=False))
        return
    for row in rows:
        if row["error"]:
            print(f"{row['name']}: {row['error']}")
            continue
        tuned = f" + {row['finetune']}" if row["finetune"] else ""
        count = f"{row['done']} of {row['of']} images, {row['failed']} failed"
        model = f"weights {row['weights']}{tuned} {row['precision']}"
        print(f"{row['name']}: {model}, {row['phrase']!r} on {row['split']}, {count}")
    if not rows:
        print(f"no Runs in {runs_folder(outputs)}; `sa2va-lab predict DATA --model CHECKPOINT` makes one.")


def compare(
    first: Annotated[Path, typer.Argument(help="A Run: folder or name.")],
    second: Annotated[Path, typer.Argument(help="Another Run over the same images.")],
    data: Annotated[Path, typer.Option(help="The data set that both were made on, with its annotations.")],
    threshold: Annotated[float, typer.Option(help="A pixel is in the mask above this probability.")] = 0.5,
    groups: Annotated[str | None, typer.Option(help="Regular expression for the patient in a file name.")] = None,
    outputs: Outputs = None,
    as_json: AsJson = False,
) -> None:
    """Dice of two Runs on the same images: paired difference with interval over patients; refused for other images."""
    from sa2va_lab.datasets.formats import open_dataset
    from sa2va_lab.evaluation.honesty import find_twin
    from sa2va_lab.evaluation.intervals import compare_paired
    from sa2va_lab.evaluation.metrics import evaluate_run
    from sa2va_lab.runs import open_run
    from sa2va_lab.views.findings import describe_finding, report_finding

    pair = [open_run(find_run(named, outputs)) for named in (first, second)]
    asked = [set(made.sample_ids) for made in pair]
    if asked[0] != asked[1]:
        names = " and ".join(made.folder.name for made in pair)
        shared = len(asked[0] & asked[1])
        raise LabError(
            f"{names} are over other images ({len(asked[0])} and {len(asked[1])}, {shared} in both): no ranking would "
            "be fair; predict both over one split."
        )
    images = open_dataset(data, phrase=pair[0].meta["dataset"]["phrase"], groups=groups)
    tables = [evaluate_run(made, images, threshold=threshold).set_index("id") for made in pair]
    theirs = tables[1].loc[tables[0].index]
    found = compare_paired(tables[0]["dice"], theirs["dice"], tables[0]["group"])
    twin = find_twin(*pair)
    if as_json:
        means = {made.folder.name: float(table["dice"].mean()) for made, table in zip(pair, tables, strict=True)}
        told = {"dice": means, "difference": dataclasses.asdict(found), "twin": report_finding(twin)}
        print(json.dumps(told, ensure_ascii=False))
        return
    for made, table in zip(pair, tables, strict=True):
        print(f"{made.folder.name}: Dice {table['dice'].mean():.4f} at threshold {threshold}")
    words = "" if found.distinguishable else "; not distinguishable"
    print(
        f"difference {found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}], p = {found.p:.3f}, "
        f"{found.n_images} images of {found.n_groups} patients{words}"
    )
    prompts = [made.meta["prompt"] for made in pair]
    if prompts[0] != prompts[1]:
        print(f"asked differently: {prompts[0]!r} and {prompts[1]!r}")
    elif twin.alarm:
        print(describe_finding(twin))
