"""Executed notebooks and their index as HTML pages that need nothing from outside.

nbconvert's own page templates drop the alt text of figures and load scripts from the web, so only its text filters are
used here, under a small template of our own (`template/`): prose and figures open, code and side messages folded.
"""

from __future__ import annotations

import re
from functools import cache
from html import escape
from pathlib import Path

from markupsafe import Markup

from sa2va_lab.language import current_language, tr
from sa2va_lab.reports.index import build_blocks, find_pictures

MAIN = "03_evaluation"  # the notebook whose sentence is a report's answer
HTML_LANG = {"en": "en", "zh": "zh-Hans"}


def render_notebook(notebook, *, title: str, home: str | None = None) -> str:
    """An executed notebook (nbformat 4) as one self-contained page. home: link back to the index, if there is one."""
    return render("notebook.html.j2", steps=_group(notebook.cells), title=title, home=home)


def render_index(report: dict, *, folder: Path | None = None) -> str:
    """The index of a report from what its metrics.json holds (`runner.run_report` says what that is).

    folder: where the executed notebooks lie; without it the index has no pictures.
    """
    answers = {stem: part["answer"] for stem, part in report["notebooks"].items() if part["answer"]}
    first = [answers[MAIN]] if MAIN in answers else list(answers.values())
    metrics = answers.get(MAIN, {}).get("metrics", {})
    blocks = build_blocks(report, pictures=find_pictures(folder, report) if folder else None)
    return render(
        "index.html.j2",
        title=tr("Report “{name}”", name=report["name"]),
        report=report,
        answers=[answer["sentence"] for answer in first],
        stamps=list(dict.fromkeys(tr(answer["stamp"]) for answer in answers.values() if answer["stamp"])),
        blocks=blocks,
        warnings=[text for block in blocks if block.key == "honesty" for text in block.alarms],
        sources={key: metrics[key] for key in ("run", "weights_sha256", "manifest_sha256") if metrics.get(key)},
    )


def find_title(notebook, default: str) -> str:
    """The text of a notebook's first heading; `default` if it has none."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and (heading := re.match(r"#\s+(.+)", cell.source)):
            return heading[1].strip()
    return default


def headline(output) -> str:
    """An error output in one line: our own errors speak for themselves, others with their kind in front."""
    said = next((line for line in str(output["evalue"]).splitlines() if line.strip()), "")
    return said if output["ename"] == "LabError" else f"{output['ename']}: {said}".rstrip(": ")


def _group(cells) -> list[dict]:
    """Cells as {"prose"} or {"codes", "said", "outputs"}: code that shows nothing is folded into the code after it.

    "said" is what a program says on the side (progress, warnings); "outputs" is what there is to see.
    """
    steps, codes, said = [], [], []
    for cell in cells:
        if cell.cell_type == "markdown":
            steps.append({"prose": cell.source})
        elif cell.cell_type == "code":
            aside = [o for o in cell.outputs if o.output_type == "stream" and o.name == "stderr"]
            outputs = [o for o in cell.outputs if o not in aside]
            codes += [cell.source] if cell.source.strip() else []
            said += [o.text for o in aside]
            if outputs:
                steps.append({"codes": codes, "said": said, "outputs": outputs})
                codes, said = [], []
    return [*steps, {"codes": codes, "said": said, "outputs": []}] if codes else steps


def render(template: str, **values) -> str:
    """A page from one of our templates, in the current language."""
    page = _environment().get_template(template)
    return page.render(tr=tr, html_lang=HTML_LANG[current_language()], **values)


@cache
def _environment():
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from nbconvert.filters import Highlight2HTML, markdown2html, strip_ansi

    loader = PackageLoader("sa2va_lab.reports", "template")
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, undefined=StrictUndefined)
    code = Highlight2HTML(pygments_lexer="python")
    environment.filters |= {
        "markdown": _as_markup(lambda text: _ANCHOR.sub("", markdown2html(text))),
        "highlight": _as_markup(code),
        "plain": lambda text: strip_ansi(_last_lines(text)),
        "headline": headline,
        "code": _as_markup(lambda text: re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))),
    }
    return environment


_ANCHOR = re.compile(r'<a class="anchor-link".*?</a>')  # a pilcrow behind each heading


def _as_markup(function):
    return lambda text: Markup(function(text))


def _last_lines(text: str) -> str:
    """What a terminal would show in the end: a progress bar rewrites its line after each carriage return."""
    return "\n".join(line.rstrip("\r").rsplit("\r", 1)[-1] for line in text.split("\n")).rstrip()
