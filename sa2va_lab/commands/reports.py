"""training and report: what the log says, and all of it on one page."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from sa2va_lab.commands import options as o
from sa2va_lab.datasets.formats import open_dataset
from sa2va_lab.errors import LabError
from sa2va_lab.language import use_language
from sa2va_lab.paths import find_root, real
from sa2va_lab.reports.runner import choose_notebooks, keep_relevant, run_report
from sa2va_lab.reports.settings import FILE, Settings, read_settings, write_settings
from sa2va_lab.training.audit import audit_logs

Language = Annotated[str | None, typer.Option(help="en or zh.")]


def training(
    logs: Annotated[list[Path], typer.Argument(metavar="LOG...", help="Training logs: text, scalars.json, gzip.")],
    config: Annotated[Path | None, typer.Option(help="The xtuner config; it is read, never executed.")] = None,
    samples: Annotated[int | None, typer.Option(help="Images; from the config's annotations if not given.")] = None,
    ranks: Annotated[int, typer.Option(help="Processes that were meant, one a GPU.")] = 4,
    as_json: o.AsJson = False,
) -> None:
    """Audit training logs: how the losses fell, how many processes took part, what went wrong unseen."""
    audits = audit_logs(logs, config=config, samples=samples, ranks=ranks)
    lines = []
    for found in audits:
        lines.append(f"{found.run.path.name}: {found.iterations:,} iterations ({found.run.format})")
        lines += [*(f"{what}: {text}" for what, text in found.told), ""]
    lines.append(
        "A training loss is no metric: how good the masks are, only a Run on images with ground truth can say."
    )
    o.tell({"runs": [found.to_dict() for found in audits]}, lines, as_json=as_json)


def report(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME...]", help="Notebooks.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All notebooks; so it is too if none is named.")] = False,
    parameter: Annotated[
        list[str] | None, typer.Option("--parameter", "-p", metavar="KEY=VALUE", help="A notebook's parameter.")
    ] = None,
    model: Annotated[Path | None, typer.Option(help="Checkpoint folder; the demo's if not given.")] = None,
    sam2: o.Sam2 = None,
    finetune: o.FineTuned = None,
    config: o.TrainingConfig = None,
    data: Annotated[Path | None, typer.Option(help="Data set; the demo's if not given.")] = None,
    log: Annotated[Path | None, typer.Option(help="A training log; the demo's if nothing is given.")] = None,
    run: Annotated[Path | None, typer.Option(help="An existing Run: no model is loaded.")] = None,
    lang: Language = None,
    outputs: Annotated[Path | None, typer.Option(help="Where results go; outputs/ of the clone if not given.")] = None,
    settings: Annotated[Path | None, typer.Option(help="A lab.yml; the one in this folder if there is one.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the last report that was not finished.")] = False,
) -> None:
    """Run the notebooks into one report and print where it is."""
    if names and everything:
        raise LabError(f"--all and {', '.join(names)} were given: name notebooks, or ask for all of them.")
    if settings is None and Path(FILE).is_file():
        settings = Path(FILE)
    said = {} if settings is None else read_settings(settings).as_parameters()
    chosen = {"model": model, "sam2": sam2, "finetune": finetune, "config": config, "data": data, "log": log}
    chosen |= {"run": run, "lang": lang, "outputs": outputs}
    asked = _parse_pairs(parameter or []) | {k: str(value) for k, value in chosen.items() if value is not None}
    if "run" in asked and "model" not in asked:  # a Run is looked at as it is: with a model it would be resumed
        said = {key: value for key, value in said.items() if key not in ("model", "sam2", "finetune")}
    left_out = {}
    if not names:
        names, left_out = choose_notebooks(said | asked)
    given = keep_relevant(said, names) | asked
    given.pop("outputs", None)
    where = Path((said | asked).get("outputs") or find_root() / "outputs")
    own = given.get("run") or given.get("data") or given.get("model")
    title = real(own).name if own else "demo"
    if settings is not None:
        print(f"settings: {settings}", file=sys.stderr)
    given = {"lang": "en"} | given
    print(run_report(names, parameters=given, outputs=where, name=title, resume=resume, left_out=left_out))


def init(
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("lab.yml"),
    model: Annotated[Path | None, typer.Option(help="Checkpoint folder.")] = None,
    sam2: o.Sam2 = None,
    finetune: o.FineTuned = None,
    config: o.TrainingConfig = None,
    data: Annotated[Path | None, typer.Option(help="Images and annotations.")] = None,
    log: Annotated[Path | None, typer.Option(help="The training log.")] = None,
    phrase: o.Phrase = None,
    groups: o.Groups = None,
    lang: Language = "en",
) -> None:
    """Write a lab.yml with your own paths, so that `sa2va-lab report` needs no options."""
    use_language(lang)
    given = {"model": model, "sam2": sam2, "finetune": finetune, "config": config, "data": data, "log": log}
    for name, path in given.items():
        if path is not None and not path.exists():
            raise LabError(f"{name} is {path}, which does not exist: give the path of what is there.")
    if finetune is not None and config is None:
        print("Without the training config LoRA's alpha is unknown: add config, or parameters: {lora_alpha: 128}.")
    if data is not None:
        opened = open_dataset(data, phrase=phrase, groups=groups)
        phrase = phrase or opened.phrase
        print(opened.reason)
    print(write_settings(out, Settings(**given, phrase=phrase, groups=groups, lang=lang)))
    print("Next: sa2va-lab report")


def _parse_pairs(pairs: list[str]) -> dict[str, str]:
    for pair in pairs:
        if "=" not in pair.lstrip("="):
            raise LabError(f"The parameter {pair!r} has no value: write it as key=value.")
    return dict(pair.split("=", 1) for pair in pairs)
