"""Writes reference.md from the code: commands, lab.yml, notebook parameters, files, and what --json prints.

    python docs/make_reference.py             # --print: to the screen instead

The keys of JSON are those that the commands print on the demo, so this runs a model for a minute.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path

import typer
from papermill import inspect_notebook
from typer.testing import CliRunner

from sa2va_lab import paths
from sa2va_lab.cli import app
from sa2va_lab.reports import settings
from sa2va_lab.reports.runner import list_notebooks
from sa2va_lab.runs import images, read

HERE = Path(__file__).resolve().parent
PAGE = HERE / "reference.md"
HEAD = """# Reference

Made from the code by `python docs/make_reference.py`; a test says when it is out of date.

Exit status: 0 when all went well, 2 when something was refused or a part failed, with one sentence on stderr that says
what was found, what was expected and what to do.
"""
LATER = """
A report lies in `outputs/reports/<utc>_<name>/`: `index.html`, one page and one executed `.ipynb` a notebook, and
`metrics.json` with every number. `threshold.json` beside a Run is a chosen threshold and where it was chosen. Audits,
figures of a training run, galleries and measured plans lie in `audits`, `training`, `galleries`, `plans` of `outputs`.
"""
LISTED = re.compile(r"^\s*[\w<>/]+\.(?:jsonl?|npz|png)\s.*", re.M)  # a line of a docstring that names a file


def build() -> str:
    """The whole page."""
    with tempfile.TemporaryDirectory() as folder:
        told = call_commands(Path(folder))
    parts = [HEAD, "## Commands\n", *list_commands(typer.main.get_command(app), "sa2va-lab")]
    parts += ["## lab.yml\n", "`sa2va-lab init` writes it; paths are relative to it, the command line wins over it.\n"]
    keys = [(f"`{name}`", field.description) for name, field in settings.Settings.model_fields.items()]
    parts.append(write_table(("key", "meaning"), keys))
    parts += ["## Parameters of the notebooks\n", "Given as `-p key=value`, or in lab.yml. Empty is the demo's.\n"]
    parts.append(write_table(("parameter", "default", "meaning", "notebooks"), list_parameters()))
    parts += ["## Files\n", "A Run, `outputs/runs/<utc>_<name>/`:\n", find_block(read.__doc__)]
    parts += ["\n`predict` over single images:\n", find_block(images.__doc__), LATER]
    parts += [
        "## JSON\n",
        "Keys are English; `[]` is a list, `{}` an object, … stands for keys that depend on the data.\n",
    ]
    parts.append(write_table(("command or file", "keys"), [(f"`{name}`", f"`{keys}`") for name, keys in told]))
    return "\n".join(parts)


def list_commands(command, name: str) -> list[str]:
    """A heading, a sentence and a table for each command, those of groups included."""
    if hasattr(command, "commands"):
        return [line for key, item in command.commands.items() for line in list_commands(item, f"{name} {key}")]
    arguments = [one for one in command.params if not one.opts[0].startswith("-")]
    options = [one for one in command.params if one not in arguments and one.name != "help"]
    rows = [(f"`{one.metavar or one.name.upper()}`", "", one.help) for one in arguments]
    for one in options:
        default = "required" if one.required else "" if one.default in (None, False, "") else f"`{one.default}`"
        rows.append((f"`{', '.join(one.opts)}`", default, one.help))
    return [f"### {name}\n", f"{command.help}\n", write_table(("", "default", "meaning"), rows)]


def list_parameters() -> list[tuple[str, str, str, str]]:
    """(parameter, default, meaning, numbers of the notebooks that have it), one row where all three agree."""
    rows: dict[tuple, list[str]] = {}
    for stem in list_notebooks():
        found = inspect_notebook(str(paths.find_root() / "notebooks" / f"{stem}.ipynb"))
        for name, about in found.items():
            rows.setdefault((f"`{name}`", f"`{about['default']}`", about["help"]), []).append(stem[:2])
    return [(*row, ", ".join(stems)) for row, stems in sorted(rows.items())]


def call_commands(folder: Path) -> list[tuple[str, str]]:
    """(command or file, keys of its JSON), from calls on the demo."""
    demo = paths.find_root() / "data" / "demo"
    base, data, tuning = demo / "base", demo / "angiograms", paths.demo_tuning()
    image = sorted((data / "images").iterdir())[-1]
    model, here = ("--model", base), ("--outputs", folder)
    run = Path(call("predict", data, *model, *here, "--limit", 2)["run"])
    told = {
        "inspect": call("inspect", tuning["finetune"], "--config", tuning["config"]),
        "plan": call("plan", base),
        "merge": call("merge", base, folder / "merged"),
        "predict IMAGE": call("predict", image, *model, "--prompt", "blood vessel", "--out", folder / "out"),
        "predict DATA": {"run": "", "images": 0, "failed": 0},
        "evaluate": call("evaluate", run, "--data", data),
        "runs": call("runs", *here),
        "compare": call("compare", run, run, "--data", data),
        "audit": call("audit", data),
        "training": call("training", next(demo.glob("*.log"))),
        read.META: json.loads((run / read.META).read_text("utf-8")),
        read.LINES: json.loads((run / read.LINES).read_text("utf-8").splitlines()[0]),
    }
    return [(name, list_keys(content)) for name, content in told.items()]


def call(*words) -> dict | list:
    """What a command prints with --json."""
    done = CliRunner().invoke(app, [*map(str, words), "--json"])
    if done.exit_code:
        raise SystemExit(f"sa2va-lab {words[0]} failed: {done.exception or done.output}")
    return json.loads(done.stdout.splitlines()[-1])


def list_keys(value) -> str:
    """`{a, b{c}, d[{e}]}` for nested JSON; the items of a list are taken together."""
    if isinstance(value, list):
        items = [item for item in value if isinstance(item, dict)]
        return f"[{list_keys({key: one for item in items for key, one in item.items()}) if items else ''}]"
    if not isinstance(value, dict):
        return ""
    if not all(str(key).isidentifier() for key in value) or not value:
        return "{…}"
    return "{" + ", ".join(f"{key}{list_keys(one)}" for key, one in value.items()) + "}"


def find_block(text: str) -> str:
    """The lines of a docstring that name a file, as a code block."""
    return "\n".join(f"    {line.strip()}" for line in LISTED.findall(text))


def write_table(head: tuple, rows: list[tuple]) -> str:
    """Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in row)} |" for row in lines) + "\n"


if __name__ == "__main__":
    if "--print" in sys.argv:
        print(build(), end="")
    else:
        PAGE.write_text(build(), "utf-8")
