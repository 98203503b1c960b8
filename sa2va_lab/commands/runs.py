"""runs, evaluate, compare, verify: what was predicted, how good it is, which of two is better, and was it so?"""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from sa2va_lab.commands import options as o
from sa2va_lab.datasets.formats import open_dataset
from sa2va_lab.errors import LabError
from sa2va_lab.evaluation.honesty import Finding, account_for, check_run, find_twin
from sa2va_lab.evaluation.intervals import compare_paired
from sa2va_lab.evaluation.metrics import evaluate_run, summarise
from sa2va_lab.evaluation.questions import find_asked, list_refused, measure_refused
from sa2va_lab.evaluation.thresholds import refuse_seen, take_threshold
from sa2va_lab.evaluation.verification import FILE, IMAGES, verify_run
from sa2va_lab.files import write_json
from sa2va_lab.reports.answers import Refused, say_refused
from sa2va_lab.runs import Run, open_run, walk_runs
from sa2va_lab.runs.find import open_named, runs_folder
from sa2va_lab.views.findings import describe_finding, report_finding


def runs(outputs: o.Outputs = None, as_json: o.AsJson = False) -> None:
    """List the Runs: when, which weights, precision, data and split, how many images are done and how many failed."""
    folder = runs_folder(outputs)
    rows = [_describe(path, found) for path, found in walk_runs(folder)]
    lines = [f"no Runs in {folder}; `sa2va-lab predict DATA --model CHECKPOINT` makes one."] * (not rows)
    for row in rows:
        if row["error"]:
            lines.append(f"{row['name']}: {row['error']}")
            continue
        tuned = f" + {row['finetune']}" if row["finetune"] else ""
        role = "" if row["role"] == "main" else f" ({row['role']})"
        count = f"{row['done']} of {row['of']} images, {row['failed']} failed"
        model = f"weights {row['weights']}{tuned} {row['precision']}"
        lines.append(f"{row['name']}{role}: {model}, {row['phrase']!r} on {row['split']}, {row['tracking']}, {count}")
    o.tell(rows, lines, as_json=as_json)


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
        "tracking": run.maker.tracking,
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
    images = open_dataset(data, phrase=made.phrase, groups=groups)
    table = evaluate_run(made, images, threshold=choice.value)
    summary, found = summarise(table), check_run(made, images, choice=choice, threshold=choice.value)
    if as_json:
        told = {"threshold": {"value": choice.value, "reason": choice.reason, "warning": said}, "summary": summary}
        told |= {
            "phrase": made.phrase,
            "prompt": made.maker.prompt,
            "tracking": made.maker.tracking,
            "refused": list_refused(table),
        }
        told["findings"] = [report_finding(finding) for finding in found]
        o.print_json(told | {"samples": json.loads(table.to_json(orient="records"))})
        _refuse_nothing(summary)
        return
    if said:
        print(f"TOO GOOD TO REPORT: {said}")
    if table.attrs.get("stamp"):
        print(table.attrs["stamp"])
    followed = f", films tracked ({made.maker.tracking})" if made.meta.get("tracked") else ""
    print(f"{made.phrase or made.maker.prompt!r}, asked as {made.maker.prompt!r}, split {made.split!r}{followed}")
    gaps = f"{summary['n_failed']} failed, {summary['n_without_truth']} without truth"
    print(f"{len(made.records)} of {summary['n_images']} images predicted, {gaps}; threshold ", end="")
    print(f"{choice.value:g} ({choice.reason})")
    if summary["ignored"]:
        print(f"{summary['ignored']:.1%} of the pixels are ignored and in no number")
    _refuse_nothing(summary)
    for name in ("dice", "iou", "precision", "recall"):
        score = summary[name]
        interval = f"[{score['low']:.4f}, {score['high']:.4f}]"
        counted = f"N {score['n']} images of {score['n_groups']} patients"
        print(f"{name:>10}  macro {score['macro']:.4f} {interval}  {counted}  pooled {score['pooled']:.4f}")
    for sentence in say_refused(Refused(**measure_refused(table, find_asked(made)))):
        print(sentence)
    _print_findings(found)
    print(f"not verified: sa2va-lab verify {run} --model CHECKPOINT --data {data} makes some of its images again")


def _refuse_nothing(summary: dict) -> None:
    """LabError where no image has both a prediction and a truth: there is no number, and no success."""
    failed, bare = summary["n_failed"], summary["n_without_truth"]
    if summary["n_images"] == failed + bare:
        raise LabError(
            f"no image could be counted: of {summary['n_images']}, {failed} failed or were not predicted and {bare} "
            "have no ground truth; evaluate a Run of annotated images"
        )


def _print_findings(found: list[Finding], name: str = "") -> None:
    """Alarms, and what is worth a look; of the others how many there were."""
    told = [finding for finding in found if finding.alarm or finding.look]
    for finding in told:
        print(f"{name}{'ALARM: ' * finding.alarm}{describe_finding(finding)}")
    print(f"{name}{len(found)} things looked at, {len(found) - len(told)} of them without a finding")


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
    both = own["dice"].notna() & other["dice"].notna()  # an image that one of them lacks is in neither mean
    names = [made.folder.name for made in pair]
    means = {name: float(table["dice"][both].mean()) for name, table in zip(names, (own, other), strict=True)}
    if as_json:
        told = {"dice": means, "difference": dataclasses.asdict(found), "twin": report_finding(twin)}
        accounts = [[report_finding(one) for one in account_for(made, images)] for made in pair]
        o.print_json(told | {"findings": dict(zip(names, accounts, strict=True))})
        return
    for name, mean in means.items():
        print(f"{name}: Dice {mean:.4f} at threshold {threshold}")
    counted = f"{found.n_images} images of {found.n_groups} patients"
    print(f"difference {found.told}, {counted}" + "; not distinguishable" * (not found.distinguishable))
    print(describe_finding(twin))
    for made in pair:
        _print_findings(account_for(made, images), f"{made.folder.name}: ")


def verify(
    run: Annotated[Path, typer.Argument(help="A Run: folder or name.")],
    model: o.Model,
    data: Annotated[Path, typer.Option(help="The data set that it was made on; no annotation is opened.")],
    images: Annotated[int, typer.Option(help="So many images are made again.")] = IMAGES,
    sam2: o.Sam2 = None,
    finetune: o.FineTuned = None,
    config: o.TrainingConfig = None,
    lora_alpha: o.LoraAlpha = None,
    device: o.Device = "auto",
    groups: o.Groups = None,
    outputs: o.Outputs = None,
    as_json: o.AsJson = False,
) -> None:
    """Make some images of a Run again, drawn by lot, and say whether the model says the same; status 1 if it does not.

    What was drawn and seen is written to verification.json in the Run's folder.
    """
    from sa2va_lab.loading.load import load  # torch comes with it

    made = open_named(run, runs_folder(outputs))
    tuning = {"sam2": sam2, "finetune": finetune, "config": config, "lora_alpha": lora_alpha, "device": device}
    dataset = open_dataset(data, phrase=made.phrase, groups=groups)
    found = verify_run(made, dataset, partial(load, model, **tuning), images=images)
    told = report_finding(found)
    write_json(made.folder / FILE, told)
    drawn = f"drawn at {found.values['time']} with seed {found.values['seed']}: {', '.join(found.values['ids'])}"
    o.tell(told, [told["sentence"], drawn], as_json=as_json)
    if found.alarm:
        raise typer.Exit(1)
