"""Notebook prose in other languages: notebooks are written in English, one table holds what their cells say elsewhere.

`prose_zh.yml` maps a notebook's stem and a markdown cell's id to the text, with the fingerprint of the English cell
that it was made from. A cell that was rewritten since then stays English: no reader gets a text that is out of date.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files

import yaml


def fingerprint(source: str) -> str:
    """Eight hex digits that change with the cell's text, but not with white space at its ends."""
    return hashlib.sha256(source.strip().encode()).hexdigest()[:8]


def translate_prose(notebook, stem: str, *, lang: str) -> list[str]:
    """Puts the markdown cells of a notebook (nbformat 4, changed in place) into `lang`.

    Returns what stays English, a line a cell with the fingerprint that the table lacks. English needs nothing.
    """
    if lang == "en":
        return []
    texts, left = read_table(lang).get(stem, {}), []
    for cell in notebook.cells:
        if cell.cell_type != "markdown":
            continue
        entry, now = texts.get(str(cell.get("id"))), fingerprint(cell.source)
        if entry and entry["of"] == now:
            cell.source = entry["text"].strip()
        else:
            left.append(f"{stem} cell {cell.get('id')} (of: {now}): {cell.source[:60]!r}")
    return left


@cache
def read_table(lang: str) -> dict[str, dict[str, dict[str, str]]]:
    """{notebook's stem: {cell's id: {"of": fingerprint of the English cell, "text": markdown}}}"""
    return yaml.safe_load(files("sa2va_lab.reports").joinpath(f"prose_{lang}.yml").read_text("utf-8"))
