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
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON only.")]


@app.command()
def predict(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    model: Model,
    prompt: Annotated[str, typer.Option(help='What to segment: a phrase ("blood vessel") or a full question.')],
    out: Annotated[Path, typer.Option(help="Folder for <stem>.npz, <stem>_overlay.png and predictions.jsonl.")],
    answer: Annotated[str | None, typer.Option(help='Take this answer ("Sure, [SEG].") instead of asking.')] = None,
    precision: Precision = "auto",
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Segment images: masks as logits, overlays to look at, a line an image."""
    from sa2va_lab.snapshots import check_request, predict_images

    check_request(images, prompt, out)
    from sa2va_lab.loading.load import load
    from sa2va_lab.views.overlays import save_overlay

    segmenter = load(model, precision=precision, device=device, progress=not as_json)
    if not as_json:
        _say_what_runs(segmenter.provenance)
    failed = 0
    for line in predict_images(segmenter, images, prompt, folder=out, save_overlay=save_overlay, answer=answer):
        failed += line["error"] is not None
        if as_json:
            print(json.dumps(line, ensure_ascii=False), flush=True)
        elif line["error"] is None:
            print(f"{line['image']}: {line['answer']}  ({sum(line['seconds'].values()):.2f} s)", flush=True)
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
def report(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME...]", help="Notebooks; all if none.")] = None,
    parameter: Annotated[
        list[str] | None, typer.Option("--parameter", "-p", metavar="KEY=VALUE", help="A notebook's parameter.")
    ] = None,
    model: Annotated[Path | None, typer.Option(help="Checkpoint folder; the demo's if not given.")] = None,
    data: Annotated[Path | None, typer.Option(help="Data set; the demo's if not given.")] = None,
    run: Annotated[Path | None, typer.Option(help="An existing Run: no model is loaded.")] = None,
    lang: Annotated[str, typer.Option(help="en or zh.")] = "en",
    outputs: Annotated[Path | None, typer.Option(help="Where results go; outputs/ of the clone if not given.")] = None,
) -> None:
    """Run the notebooks into one report and print where it is."""
    from sa2va_lab import paths
    from sa2va_lab.reports.runner import run_report

    given = _parse_pairs(parameter or [])
    chosen = {"model": model, "data": data, "run": run}
    given |= {key: str(value) for key, value in chosen.items() if value is not None}
    names = names or [path.stem for path in sorted((paths.find_root() / "notebooks").glob("[0-9]*.ipynb"))]
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
    from sa2va_lab.demo.finetune import train

    print(json.dumps(train(out, work=work, drawing_hours=hours), indent=1))


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
