"""predict and evaluate: from images to masks, from masks to numbers."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from sa2va_lab.commands.options import (
    AsJson,
    Device,
    FineTuned,
    Gpus,
    LoraAlpha,
    Model,
    Precision,
    Sam2,
    TrainingConfig,
)
from sa2va_lab.errors import LabError


def predict(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...|DATASET", help="Image files, or one data set.")],
    model: Model,
    prompt: Annotated[
        str | None, typer.Option(help="A phrase or a full question; a data set's own phrase if not given.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Images: folder for <stem>.npz, <stem>_overlay.png, predictions.jsonl.")
    ] = None,
    split: Annotated[str, typer.Option(help="Data set: which split; test if there is one.")] = "",
    run: Annotated[str | None, typer.Option(help="Data set: the Run's name; the same name resumes it.")] = None,
    phrase: Annotated[str | None, typer.Option(help="Data set: what to find, if it names several things.")] = None,
    groups: Annotated[str | None, typer.Option(help="Data set: regular expression for the patient.")] = None,
    limit: Annotated[int | None, typer.Option(help="Data set: so many images at most.")] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Data set: failures once more.")] = False,
    outputs: Annotated[Path | None, typer.Option(help="Data set: where runs/ lies; outputs/ of the clone.")] = None,
    answer: Annotated[str | None, typer.Option(help='Take this answer ("Sure, [SEG].") instead of asking.')] = None,
    sam2: Sam2 = None,
    finetune: FineTuned = None,
    config: TrainingConfig = None,
    lora_alpha: LoraAlpha = None,
    precision: Precision = "auto",
    device: Device = "auto",
    gpus: Gpus = None,
    as_json: AsJson = False,
) -> None:
    """Segment images (masks as logits, overlays to look at, a line an image), or a data set into a Run."""
    from sa2va_lab.snapshots import check_request, predict_images

    how = {"sam2": sam2, "finetune": finetune, "config": config, "lora_alpha": lora_alpha}
    how |= {"precision": precision, "device": device, "gpus": gpus}
    over_data = len(images) == 1 and (images[0].is_dir() or images[0].suffix == ".json")
    if over_data:
        if out is not None or answer is not None:
            raise LabError("--out and --answer are for single images; a data set goes into a Run: use --run NAME.")
        from sa2va_lab.commands.runs import predict_data, runs_folder
        from sa2va_lab.loading.load import load
        from sa2va_lab.runs.shares import claim_folder, find_rank

        rank = find_rank()
        if rank is None:
            folder = _choose_folder(run or images[0].resolve().stem, runs_folder(outputs), named=run is not None)
        elif run is None:
            raise LabError(f"{rank.count} processes were started: give the Run a name (--run), by which they find it.")
        else:
            folder, how["device"] = claim_folder(runs_folder(outputs), run), rank.choose_device(device)
        segmenter = load(model, **how)
        made = predict_data(
            segmenter, images[0], folder=folder, prompt=prompt, split=split, phrase=phrase, groups=groups,
            limit=limit, retry_failed=retry_failed, progress=not as_json, rank=rank,
        )  # fmt: skip
        if made is None:
            print(f"process {rank.number + 1} of {rank.count} is done; the last one puts {folder} together")
            return
        told = {"run": str(made.folder), "images": len(made.records), "failed": len(made.failed_ids)}
        print(json.dumps(told) if as_json else f"{told['images']} images, {told['failed']} failed: {made.folder}")
        return
    if prompt is None or out is None:
        raise LabError("images need --prompt (what to segment) and --out (a folder); a data set needs neither.")
    of_data = {"split": split, "run": run, "phrase": phrase, "groups": groups, "limit": limit, "outputs": outputs}
    if misplaced := [name for name, value in of_data.items() if value]:
        raise LabError(f"--{misplaced[0]} is for a data set, and images were given: leave it out, or name a folder.")
    check_request(images, prompt, out)
    from sa2va_lab.loading.load import load
    from sa2va_lab.views.overlays import save_overlay

    segmenter = load(model, **how, progress=not as_json)
    if not as_json:
        _say_what_runs(segmenter.provenance)
    failed = 0
    for line in predict_images(segmenter, images, prompt, folder=out, save_overlay=save_overlay, answer=answer):
        failed += line["error"] is not None
        if as_json:
            print(json.dumps(line, ensure_ascii=False), flush=True)
        elif line["error"] is None:
            print(f"{line['image']}: {line['answer']}  ({sum(line['seconds'].values()):.2f} s)", flush=True)
        else:
            print(f"{line['image']}: {line['error']}", file=sys.stderr, flush=True)
    if failed:
        raise LabError(f"{failed} of {len(images)} images were not predicted; {out}/predictions.jsonl says why.")
    if not as_json:
        print(f"{len(images)} predictions in {out}")


def _choose_folder(name: str, runs: Path, *, named: bool) -> Path:
    """The newest Run of that name, to be resumed, if the name was given; else a new one."""
    from sa2va_lab.paths import as_file_name, new_folder

    tail = as_file_name(name)
    there = sorted(path for path in runs.glob("*_*") if path.name.partition("_")[2] == tail) if named else []
    return there[-1] if there else new_folder(runs, name)


def evaluate(
    run: Annotated[Path, typer.Argument(help="A Run folder, as a report writes to outputs/runs/.")],
    data: Annotated[Path, typer.Option(help="The data set that was predicted, with its annotations.")],
    threshold: Annotated[str, typer.Option(help="A number, or a threshold.json chosen on other images.")] = "0.5",
    allow_same_images: Annotated[
        bool, typer.Option("--allow-same-images", help="Even a threshold chosen on these images; the title says so.")
    ] = False,
    groups: Annotated[str | None, typer.Option(help="Regular expression for the patient in a file name.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare a Run with the truth: Dice, IoU, precision and recall, with N and interval."""
    from sa2va_lab.datasets.formats import open_dataset
    from sa2va_lab.evaluation.metrics import evaluate_run, summarise
    from sa2va_lab.evaluation.thresholds import refuse_seen, take_threshold
    from sa2va_lab.runs import open_run

    made, choice = open_run(run), take_threshold(threshold)
    said = refuse_seen(choice, made, allow=allow_same_images)
    images = open_dataset(data, phrase=made.meta["dataset"]["phrase"], groups=groups)
    table = evaluate_run(made, images, threshold=choice.value)
    summary = summarise(table)
    if as_json:
        told = {"threshold": {"value": choice.value, "reason": choice.reason, "warning": said}, "summary": summary}
        told["samples"] = json.loads(table.to_json(orient="records"))
        print(json.dumps(told, ensure_ascii=False, default=str))
        return
    if said:
        print(f"TOO GOOD TO REPORT: {said}")
    if table.attrs.get("stamp"):
        print(table.attrs["stamp"])
    counted = (
        f"{summary['n_images']} images of {summary['n_groups']} patients, threshold {choice.value:g} ({choice.reason})"
    )
    print(f"{counted}; {summary['n_failed']} failed, {summary['n_without_truth']} without truth")
    for name in ("dice", "iou", "precision", "recall"):
        score = summary[name]
        print(
            f"{name:>10}  macro {score['macro']:.4f} [{score['low']:.4f}, {score['high']:.4f}]"
            f"  pooled {score['pooled']:.4f}"
        )


def _say_what_runs(provenance: dict) -> None:
    precision, device = provenance["precision"], provenance["device"]
    if provenance["stamp"]:
        print(provenance["stamp"])
    print(f"{provenance['model']}: {provenance['parameters']:,} parameters; {precision['reason']}; {device['reason']}")
