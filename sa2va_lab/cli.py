"""The command line: parse, call, print. What a command does is in the rooms below."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from sa2va_lab.errors import LabError

app = typer.Typer(
    help="Run a Sa2VA checkpoint on the hardware at hand, and find out honestly how good it is.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
demo = typer.Typer(help="Make the demo anew: synthetic patients, a tiny Sa2VA that learned.", no_args_is_help=True)
app.add_typer(demo, name="demo")

Model = Annotated[Path, typer.Option(help="Checkpoint folder: config.json, tokenizer, *.safetensors.")]
Precision = Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1.")]
FineTuned = Annotated[Path | None, typer.Option(help="xtuner's iter_*.pth, laid over the checkpoint.")]
TrainingConfig = Annotated[Path | None, typer.Option(help="The training config; it is read, never executed.")]
LoraAlpha = Annotated[float | None, typer.Option(help="LoRA's alpha, where there is no config.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON only.")]


@app.command()
def predict(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    model: Model,
    prompt: Annotated[str, typer.Option(help='What to segment: a phrase ("blood vessel") or a full question.')],
    out: Annotated[Path, typer.Option(help="Folder for <stem>.npz, <stem>_overlay.png and predictions.jsonl.")],
    answer: Annotated[str | None, typer.Option(help='Take this answer ("Sure, [SEG].") instead of asking.')] = None,
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

    tuned = {"finetune": finetune, "config": config, "lora_alpha": lora_alpha}
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


@app.command()
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


@app.command()
def audit(
    data: Annotated[Path, typer.Argument(metavar="DATASET", help="A data folder, or its annotations file.")],
    fix: Annotated[Path | None, typer.Option(help="Write a repaired copy into this new folder.")] = None,
    phrase: Annotated[str | None, typer.Option(help="What to look for; the most frequent phrase if not given.")] = None,
    groups: Annotated[str | None, typer.Option(help="Regular expression for the patient in a file name.")] = None,
    names: Annotated[bool, typer.Option("--names", help="Say which file each id is: for your eyes only.")] = False,
    write_sizes: Annotated[
        bool,
        typer.Option("--write-sizes", help="Believe the suspected sizes: write sizes.json beside the data."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Examine images and annotations: every defect by kind, and what training makes of it."""
    from sa2va_lab.datasets import audit as examination
    from sa2va_lab.datasets.export import export_dataset
    from sa2va_lab.datasets.formats import open_dataset

    dataset = open_dataset(data, phrase=phrase, groups=groups)
    found = examination.audit_dataset(dataset, progress=not as_json)
    if write_sizes:
        examination.write_sizes(found)
        dataset = open_dataset(data, phrase=phrase, groups=groups)
        found = examination.audit_dataset(dataset, progress=not as_json)
    changes = [] if fix is None else export_dataset(dataset, fix)
    if as_json:
        files = {"files": {sample.id: str(sample.image) for sample in dataset}} if names else {}
        print(json.dumps(found.to_dict() | {"changes": len(changes)} | files, ensure_ascii=False))
        return
    print(f"{dataset.reason}\nids: {dataset.pseudonyms}")
    print("\n".join(found.to_lines(names=names)))
    if fix is not None:
        print(f"{len(changes)} changes in the copy {fix}; changes.json there lists them")


@app.command()
def convert(
    data: Annotated[Path, typer.Argument(metavar="DATASET", help="A data folder, or its annotations file.")],
    out: Annotated[Path, typer.Argument(help="A new folder.")],
    to: Annotated[str, typer.Option(help="sa2va (annotations.json as Sa2VA trains on) or coco.")] = "sa2va",
    groups: Annotated[str | None, typer.Option(help="Regular expression for the patient in a file name.")] = None,
) -> None:
    """Write a data set of any format anew, with pseudonyms for file names and nothing but pixels in the images."""
    from sa2va_lab.datasets.export import export_dataset
    from sa2va_lab.datasets.formats import open_dataset

    dataset = open_dataset(data, groups=groups)
    changes = export_dataset(dataset, out, format=to)
    print(f"{dataset.reason}\n{len(changes)} changes on the way to {out}; changes.json there lists them")


@app.command()
def split(
    data: Annotated[Path, typer.Argument(metavar="DATASET", help="A data folder without a splits.json.")],
    train: Annotated[float, typer.Option(help="Share of the images.")] = 0.6,
    val: Annotated[float, typer.Option(help="Share of the images; 0 makes no such split.")] = 0.2,
    test: Annotated[float, typer.Option(help="Share of the images; 0 makes no such split.")] = 0.2,
    seed: Annotated[int, typer.Option(help="Another seed gives another split.")] = 0,
    groups: Annotated[str | None, typer.Option(help="Regular expression for the patient in a file name.")] = None,
) -> None:
    """Split by patient, stratified by vessel share; writes splits.json beside the data, with its seed and hash."""
    from sa2va_lab.datasets.formats import open_dataset
    from sa2va_lab.datasets.splits import draw_splits, write_splits

    dataset = open_dataset(data, groups=groups)
    shares = {name: share for name, share in (("train", train), ("val", val), ("test", test)) if share}
    splits, reason = draw_splits(dataset, shares=shares, seed=seed)
    print(f"{reason}\n{write_splits(dataset, splits, seed=seed, reason=reason)}")


@app.command()
def training(
    logs: Annotated[list[Path], typer.Argument(metavar="LOG...", help="Training logs: text, scalars.json, gzip.")],
    config: Annotated[Path | None, typer.Option(help="The xtuner config; it is read, never executed.")] = None,
    samples: Annotated[int | None, typer.Option(help="Images; from the config's annotations if not given.")] = None,
    ranks: Annotated[int, typer.Option(help="Processes that were meant, one a GPU.")] = 4,
    as_json: AsJson = False,
) -> None:
    """Audit training logs: how the losses fell, how many processes took part, what went wrong unseen."""
    from sa2va_lab.training.sources import audit_logs

    audits = audit_logs(logs, config=config, samples=samples, ranks=ranks)
    if as_json:
        print(json.dumps({"runs": [found.to_dict() for found in audits]}, ensure_ascii=False, allow_nan=False))
        return
    print("\n\n".join("\n".join(found.to_lines()) for found in audits))
    print("\nA training loss is no metric: how good the masks are, only a Run on images with a truth can say.")


@app.command()
def report(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME...]", help="Notebooks; all if none.")] = None,
    parameter: Annotated[
        list[str] | None, typer.Option("--parameter", "-p", metavar="KEY=VALUE", help="A notebook's parameter.")
    ] = None,
    model: Annotated[Path | None, typer.Option(help="Checkpoint folder; the demo's if not given.")] = None,
    finetune: FineTuned = None,
    config: TrainingConfig = None,
    data: Annotated[Path | None, typer.Option(help="Data set; the demo's if not given.")] = None,
    log: Annotated[Path | None, typer.Option(help="A training log; the demo's if nothing is given.")] = None,
    run: Annotated[Path | None, typer.Option(help="An existing Run: no model is loaded.")] = None,
    lang: Annotated[str, typer.Option(help="en or zh.")] = "en",
    outputs: Annotated[Path | None, typer.Option(help="Where results go; outputs/ of the clone if not given.")] = None,
) -> None:
    """Run the notebooks into one report and print where it is."""
    from sa2va_lab import paths
    from sa2va_lab.reports.runner import choose_notebooks, run_report

    given = _parse_pairs(parameter or [])
    chosen = {"model": model, "finetune": finetune, "config": config, "data": data, "log": log, "run": run}
    given |= {key: str(value) for key, value in chosen.items() if value is not None}
    names = names or choose_notebooks(given)
    title = Path(given.get("run") or given.get("data") or "demo").resolve().name if given else "demo"
    index = run_report(
        names,
        parameters={**given, "lang": lang},
        outputs=outputs or paths.find_root() / "outputs",
        name=title,
    )
    print(index)


@demo.command("data")
def demo_data(
    out: Annotated[Path, typer.Argument(help="A new folder.")],
    seed: Annotated[int, typer.Option(help="Other seeds give other patients.")] = 0,
) -> None:
    """Draw the synthetic angiograms with annotations and splits; seed 0 gives the shipped ones."""
    from sa2va_lab.demo.albums import write_demo

    print(write_demo(out, seed=seed))


@demo.command("train")
def demo_train(
    out: Annotated[Path, typer.Argument(help="Folder for the trained checkpoint.")],
    work: Annotated[Path, typer.Option(help="Folder for frames, checkpoints and logs; resumed if it is there.")],
    hours: Annotated[float, typer.Option(help="Wall time for the mask path, by far the longest part.")] = 1.5,
) -> None:
    """Train the tiny Sa2VA on synthetic angiograms that are not in the shipped set."""
    from sa2va_lab.demo.pretraining import train

    print(json.dumps(train(out, work=work, drawing_hours=hours), indent=1))


@demo.command("finetune")
def demo_finetune(
    out: Annotated[Path, typer.Argument(help="Folder for iter_*.pth, its config and its logs.")],
    base: Annotated[Path | None, typer.Option(help="The base model; the shipped one if not given.")] = None,
    data: Annotated[Path | None, typer.Option(help="The data set; the shipped one if not given.")] = None,
) -> None:
    """Fine-tune the base model with LoRA on the training patients, and leave it as xtuner would."""
    from sa2va_lab import paths
    from sa2va_lab.demo.finetune import finetune

    print(finetune(base or paths.demo_model(), data or paths.demo_data(), out))


def _parse_pairs(pairs: list[str]) -> dict[str, str]:
    for pair in pairs:
        if "=" not in pair.lstrip("="):
            raise LabError(f"The parameter {pair!r} has no value: write it as key=value.")
    return dict(pair.split("=", 1) for pair in pairs)


def _say_what_runs(provenance: dict) -> None:
    precision, device = provenance["precision"], provenance["device"]
    if provenance["stamp"]:
        print(provenance["stamp"])
    print(f"{provenance['model']}: {provenance['parameters']:,} parameters; {precision['reason']}; {device['reason']}")


def main() -> None:
    """The `sa2va-lab` command. A user's mistake is one sentence on stderr and exit status 2, never a traceback."""
    try:
        app()
    except LabError as error:
        print(f"sa2va-lab: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("sa2va-lab: stopped; what was finished is kept.", file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
