"""training and report: what the log says, and all of it on one page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from sa2va_lab.commands.options import AsJson, FineTuned, TrainingConfig
from sa2va_lab.errors import LabError


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


def _parse_pairs(pairs: list[str]) -> dict[str, str]:
    for pair in pairs:
        if "=" not in pair.lstrip("="):
            raise LabError(f"The parameter {pair!r} has no value: write it as key=value.")
    return dict(pair.split("=", 1) for pair in pairs)
