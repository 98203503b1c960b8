"""Running notebooks into a report: parameters checked first, results on one page, nothing half-written."""

from __future__ import annotations

import json
import os
import platform
import re
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, TypeAdapter, ValidationError

from sa2va_lab.errors import LabError, suggest
from sa2va_lab.files import hash_value, plain, read_json, write_json, write_whole
from sa2va_lab.language import tr, use_language
from sa2va_lab.paths import find_root, new_folder, real, shown_name
from sa2va_lab.reports.answers import FILE, find_answer
from sa2va_lab.reports.html import find_title, headline, render_index, render_notebook
from sa2va_lab.reports.settings import PATHS

UNFINISHED = ".part"
WIDGET = "application/vnd.jupyter.widget-view+json"  # such as a progress bar: dead once its kernel is gone
FORM = "form"  # the tag of a cell that is for JupyterLab alone
NAMES = {"finetune": "fine-tune"}
PACKAGES = ("sa2va_lab", "torch", "transformers", "papermill")
NO_BOOL = BeforeValidator(lambda value: None if isinstance(value, bool) else value)
PLAIN = {"int": Annotated[int, NO_BOOL], "float": Annotated[float, NO_BOOL], "bool": bool}


def run_report(
    names: list[str],
    *,
    parameters: dict,
    outputs: Path | str,
    name: str,
    resume: bool = False,
    left_out: dict[str, str] | None = None,
) -> Path:
    """Runs notebooks, each in a kernel of its own, and returns the path of the report's index.html.

    names: stems in notebooks/ ("03_evaluation"). parameters: for all of them; each notebook gets those that it has.
    Values may be text, as from a command line. outputs: the folder for `reports/` and `runs/`. resume: go on with the
    newest report of this name, these notebooks and these parameters that was stopped or in which a notebook failed;
    what is done there is not done again. Where there is none, a new one is begun. left_out: notebooks that are not run,
    with the parameter that each would need; the index says so.

    The Run that one notebook makes is handed to those after it that take a `run`, unless one was given. It has the
    report's name, so that a resumed report goes on with the Run that is there.

    The folder `<outputs>/reports/<utc>_<name>` gets the executed notebooks, their pages, metrics.json and index.html;
    it appears when all is done. A notebook that fails does not stop the others; it shows as failed in the index, and
    in the end a LabError says which and where the report is. Before anything runs, LabError for an unknown notebook,
    an unknown parameter (with a suggestion), a value of the wrong type, or a path that does not exist.
    """
    outputs = real(outputs)
    notebooks = {stem: _find_notebook(stem) for stem in names}
    if not notebooks:
        raise LabError("no notebook was named; give at least one, such as 03_evaluation")
    given = {stem: {} for stem in notebooks} | check_parameters(notebooks, parameters)
    words = _list_words(parameters, outputs)
    use_language(str(parameters.get("lang") or "en"))
    outputs.mkdir(parents=True, exist_ok=True)
    report = {
        "name": name,
        "created": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}",
        "asked": list(notebooks),
        "parameters": _hide(plain(parameters), words),
        "versions": {"python": platform.python_version()} | {package: version(package) for package in PACKAGES},
        "notebooks": {},
        "left_out": left_out or {},
        "parameters_sha256": hash_value(plain(parameters)),
    }
    folder = _find_unfinished(outputs / "reports", report) if resume else None
    if folder is None:
        final = new_folder(outputs / "reports", name)
        folder = final.with_name(f".{final.name}{UNFINISHED}")
        folder.mkdir(parents=True)
        write_json(folder / FILE, report)
    else:
        report |= {"notebooks": read_json(folder / FILE)["notebooks"]}
    final = folder.with_name(folder.name.removeprefix(".").removesuffix(UNFINISHED))
    for stem, path in notebooks.items():
        if stem in report["notebooks"] and not report["notebooks"][stem]["error"]:
            continue
        made = {"outputs": str(outputs), "run": _find_run(report, outputs)}
        # named before it is begun, so that a report that is taken up again finds the Run that a kill cut off
        made |= {"run_folder": str(outputs / "runs" / final.name)}
        made |= {"interactive": False, "gallery_folder": str(folder / "gallery")}
        known = _accepted(path)
        filled = {key: value for key, value in made.items() if value is not None and key in known} | given[stem]
        report["notebooks"][stem] = _run_notebook(path, folder, filled, words)
        write_json(folder / FILE, report)
    report["notebooks"] = {stem: report["notebooks"][stem] for stem in notebooks}
    write_json(folder / FILE, report)
    write_whole(folder / "index.html", render_index(plain(report), folder=folder))
    os.replace(folder, final)
    index = final / "index.html"
    failed = {stem: part["error"] for stem, part in report["notebooks"].items() if part["error"]}
    if failed:
        told = "; ".join(f"{stem}: {error}" for stem, error in failed.items())
        raise LabError(
            f"{len(failed)} of {len(notebooks)} notebooks failed ({told}); the same command with "
            f"--resume tries them again; what there is stands in {index}"
        )
    return index


def _find_unfinished(folder: Path, report: dict) -> Path | None:
    """The newest report of the same name, notebooks and parameters that lacks a notebook, or has a failed one."""
    for path in sorted(folder.glob(f"*/{FILE}"), key=lambda path: path.parent.name.lstrip("."), reverse=True):
        try:
            there = read_json(path)
            same = all(there[key] == plain(report[key]) for key in ("name", "asked", "parameters_sha256"))
            done = [part["error"] is None for part in there["notebooks"].values()]
        except (LabError, KeyError, TypeError, AttributeError):  # somebody else's, or of another version
            continue
        linked = any(file.is_symlink() for file in path.parent.rglob("*"))  # by somebody else: we make none
        if same and not linked and not (len(done) == len(report["asked"]) and all(done)):
            return path.parent
    return None


def _find_run(report: dict, outputs: Path) -> str | None:
    """The folder of the Run that a notebook of this report has made."""
    answers = [part["answer"] for part in report["notebooks"].values() if part["answer"]]
    runs = [outputs / "runs" / answer["metrics"]["run"] for answer in answers if answer["metrics"].get("run")]
    return next((str(run) for run in reversed(runs) if run.is_dir()), None)


def list_notebooks() -> list[str]:
    """The stems of the notebooks that make a report, in their order."""
    return [path.stem for path in sorted((find_root() / "notebooks").glob("[0-9]*.ipynb"))]


def choose_notebooks(given: dict) -> tuple[list[str], dict[str, str]]:
    """(the notebooks to run, why each of the others is not run).

    Left out are those that would show the demo's things beside a user's own: a report on somebody's data has no chapter
    on the demo's training log, and one on an existing Run, for which no model is named, none on the demo's model.
    """
    left = {}
    if {"model", "finetune", "data", "run"} & set(given):
        needed = {"02_loss_curves": "log"}
        if "run" in given:
            needed |= {"00_inspect": "model", "06_precision_vram": "model", "08_explore": "model"}
            needed |= {} if "tracked" in given else {"07_films": "model"}
        left = {stem: key for stem, key in needed.items() if key not in given}
    return [stem for stem in list_notebooks() if stem not in left], left


def keep_relevant(parameters: dict, names: list[str]) -> dict:
    """Without those that only other notebooks than the named ones have: lab.yml speaks to all of them at once."""
    here = {key for stem in names for key in _accepted(_find_notebook(stem))}
    elsewhere = {key for stem in list_notebooks() for key in _accepted(_find_notebook(stem))} - here
    return {key: value for key, value in parameters.items() if key not in elsewhere}


def check_parameters(notebooks: dict[str, Path], parameters: dict) -> dict[str, dict]:
    """For each notebook those parameters that it has, as values of the type that it declares.

    papermill itself only logs a name that it does not know and runs with the default: a mistyped `treshold=0.3` would
    then report the wrong experiment. Raises LabError for a name that no notebook has, or for a value that does not fit.
    """
    accepted = {stem: _accepted(path) for stem, path in notebooks.items()}
    known = {key for declared in accepted.values() for key in declared}
    for key in parameters:
        if key not in known:
            raise LabError(f"no parameter is called {key!r} in {', '.join(notebooks)}; {suggest(key, sorted(known))}")
    return {
        stem: {key: convert_value(key, value, declared[key]) for key, value in parameters.items() if key in declared}
        for stem, declared in accepted.items()
    }


def _accepted(path: Path) -> dict[str, str]:
    """A notebook's parameters and their declared types, from its cell tagged `parameters`."""
    from papermill import inspect_notebook

    declared = inspect_notebook(str(path))
    return {key: about["inferred_type_name"] for key, about in declared.items()}


def convert_value(key: str, value, kind: str):
    """`value` as the type called `kind`; LabError when it cannot be."""
    if kind in PLAIN:
        try:
            return TypeAdapter(PLAIN[kind]).validate_python(value)
        except ValidationError:
            raise LabError(f"{key} is {value!r}; expected a value of type {kind}") from None
    if kind != "str":
        return value
    if key not in PATHS or not str(value):
        return str(value)
    # several logs stand with ; between them; any other name may begin or end in a blank
    parts = [part.strip() for part in str(value).split(";")] if key == "log" else [str(value)]
    paths = [real(part) for part in parts]
    for part, path in zip(parts, paths, strict=True):
        if key != "outputs" and not path.exists():
            raise LabError(f"{key} is {part}, which does not exist; give the path of what is there")
    return ";".join(map(str, paths))


def _find_notebook(stem: str) -> Path:
    path = find_root() / "notebooks" / f"{stem.removesuffix('.ipynb')}.ipynb"
    if not path.is_file():
        raise LabError(f"no notebook is called {stem!r}; {suggest(stem, list_notebooks())}")
    return path


def _list_words(parameters: dict, outputs: Path) -> dict[str, str]:
    """{place on this machine: what a report calls it}, the longest first. A report is there to be handed on."""
    words = {str(outputs): "outputs", str(find_root()): "sa2va_lab", str(Path.home()): "~"}
    for key in PATHS:
        for part in filter(None, str(parameters.get(key) or "").split(";" if key == "log" else "\0")):
            place = real(part.strip() if key == "log" else part)
            shown = place.name if key in ("data", "run", "outputs") else shown_name(NAMES.get(key, key), place)
            words |= {str(place): shown} | ({part: shown} if re.search(r"[./]|.{8}", part) else {})
    words |= {json.dumps(word)[1:-1]: shown for word, shown in words.items()}  # as papermill writes a parameter
    return {word: words[word] for word in sorted(words, key=len, reverse=True) if len(word) > 3 and word != words[word]}


def _hide(value, words: dict[str, str]):
    """The same, of text, lists and tables, with `words` put into it."""
    if isinstance(value, dict):
        return type(value)({key: _hide(item, words) for key, item in value.items()})
    if isinstance(value, list):
        return [_hide(item, words) for item in value]
    for word, shown in words.items() if isinstance(value, str) else ():
        value = value.replace(word, shown)
    return value


def _run_notebook(path: Path, folder: Path, parameters: dict, words: dict[str, str]) -> dict:
    """Executes one notebook into `folder` and writes its page; returns its entry in metrics.json. words: `_hide`s."""
    import nbformat
    from papermill import PapermillExecutionError, execute_notebook
    from papermill.execute import ERROR_MARKER_TAG

    executed = folder / path.name
    start, error = time.perf_counter(), None
    executed.unlink(missing_ok=True)
    try:
        execute_notebook(
            str(path),
            str(executed),
            parameters,
            kernel_name="python3",
            language="python",
            kernel_manager_class=_kernel_manager(),
            cwd=str(path.parent),
            progress_bar={"desc": path.stem, "unit": "cell"},
            iopub_timeout=120,  # its own 4 s fail a cell that is done, on a machine that is busy with something else
        )
    except PapermillExecutionError as failure:
        error = headline({"ename": failure.ename, "evalue": failure.evalue})
    except Exception as failure:  # a kernel that dies (out of memory) or does not start: the others still run
        error = headline({"ename": type(failure).__name__, "evalue": str(failure)})
    notebook = _hide(nbformat.read(executed if executed.exists() else path, as_version=4), words)
    # papermill's own error banner, its note of our working folder and a form to fill in say nothing to a reader
    unread = {ERROR_MARKER_TAG, FORM}
    notebook.cells = [cell for cell in notebook.cells if not unread & set(cell.metadata.get("tags", []))]
    for name in ("papermill", "widgets"):
        notebook.metadata.pop(name, None)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = tr(cell.source.strip())
        else:
            cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]
    nbformat.write(notebook, executed)
    title, page = find_title(notebook, default=path.stem), executed.with_suffix(".html")
    write_whole(page, render_notebook(notebook, title=title, home="index.html"))
    return {
        "title": title,
        "error": _hide(error, words),
        "seconds": round(time.perf_counter() - start, 1),
        "page": page.name,
        "notebook": executed.name,
        "answer": find_answer(notebook),
    }


def _kernel_manager() -> type:
    """Starts kernels with this very interpreter, whatever kernels are or are not installed for Jupyter."""
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from traitlets import default

    class SameInterpreter(AsyncKernelManager):
        @default("kernel_spec_manager")
        def _know_none_that_is_installed(self) -> KernelSpecManager:
            return KernelSpecManager(kernel_dirs=[])

        @default("transport_encryption")
        def _encrypt_where_possible(self) -> str:
            return "auto"

    return SameInterpreter
