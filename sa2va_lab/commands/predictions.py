"""predict and evaluate: from images to masks, from masks to numbers."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from sa2va_lab.commands.options import AsJson, Device, FineTuned, LoraAlpha, Model, Precision, Sam2, TrainingConfig
from sa2va_lab.errors import LabError


def predict(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    model: Model,
    prompt: Annotated[str, typer.Option(help='What to segment: a phrase ("blood vessel") or a full question.')],
    out: Annotated[Path, typer.Option(help="Folder for <stem>.npz, <stem>_overlay.png and predictions.jsonl.")],
    answer: Annotated[str | None, typer.Option(help='Take this answer ("Sure, [SEG].") instead of asking.')] = None,
    sam2: Sam2 = None,
    finetune: FineTuned = None,
    config: TrainingConfig = None,
    lora_alpha: LoraAlpha = None,
    precision: Precision = "auto",
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Segment images: masks as logits, overlays to look at, a line an image."""
    from sa2va_lab.snapshots import check_request, predict_images

    check_request(images, prompt, out)
    from sa2va_lab.loading.load import load
    from sa2va_lab.views.overlays import save_overlay

    tuned = {"sam2": sam2, "finetune": finetune, "config": config, "lora_alpha": lora_alpha}
    segmenter = load(model, **tuned, precision=precision, device=device, progress=not as_json)
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


def evaluate(
    run: Annotated[Path, typer.Argument(help="A Run folder, as a report writes to outputs/runs/.")],
    data: Annotated[Path, typer.Option(help="The data set that was predicted, with its annotations.")],
    threshold: Annotated[float, typer.Option(help="A pixel is in the mask above this probability.")] = 0.5,
    groups: Annotated[str | None, typer.Option(help="Regular expression for the patient in a file name.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare a Run with the truth: Dice, IoU, precision and recall, with N and interval."""
    from sa2va_lab.datasets.formats import open_dataset
    from sa2va_lab.evaluation.metrics import evaluate_run, summarise
    from sa2va_lab.evaluation.runs import open_run

    made = open_run(run)
    table = evaluate_run(
        made, open_dataset(data, phrase=made.meta["dataset"]["phrase"], groups=groups), threshold=threshold
    )
    summary = summarise(table)
    if as_json:
        samples = json.loads(table.to_json(orient="records"))
        print(json.dumps({"summary": summary, "samples": samples}, ensure_ascii=False, default=str))
        return
    if table.attrs.get("stamp"):
        print(table.attrs["stamp"])
    counted = f"{summary['n_images']} images of {summary['n_groups']} patients, threshold {threshold}"
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
