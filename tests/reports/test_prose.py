"""Prose in Chinese: every markdown cell of every notebook, no text that is out of date, none left over."""

import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from sa2va_lab.reports.prose import fingerprint, read_table, translate_prose
from sa2va_lab.reports.texts import LANGUAGES

OTHERS = [lang for lang in LANGUAGES if lang != "en"]


@pytest.fixture(scope="module")
def notebooks(root):
    return {path.stem: nbformat.read(path, as_version=4) for path in sorted((root / "notebooks").glob("*.ipynb"))}


@pytest.mark.parametrize("lang", OTHERS)
def test_every_cell_of_every_notebook_is_there_in_every_language(notebooks, lang):
    for stem, notebook in notebooks.items():
        cells = {cell.id: cell.source for cell in notebook.cells if cell.cell_type == "markdown"}
        copy = nbformat.from_dict(notebook)
        assert translate_prose(copy, stem, lang=lang) == [], "these cells are new or were changed: translate them"
        assert set(read_table(lang).get(stem, {})) == set(cells), "a text whose cell is gone"
        for cell in copy.cells:
            if cell.cell_type == "markdown":
                assert re.search(r"[\u4e00-\u9fff]", cell.source)
                english = cells[cell.id]
                assert re.findall(r"^#+ ", cell.source, re.M) == re.findall(r"^#+ ", english, re.M)
                code = re.findall(r"`[^`]+`", english)
                assert sorted(re.findall(r"`[^`]+`", cell.source)) == sorted(code), "identifiers stay as they are"
    assert set(read_table(lang)) == set(notebooks)


def test_a_rewritten_cell_stays_english_and_is_named():
    notebook = new_notebook(cells=[new_markdown_cell("# Good evening", id="0"), new_code_cell("# code", id="1")])
    [left] = translate_prose(notebook, "03_evaluation", lang="zh")
    assert notebook.cells[0].source == "# Good evening"
    assert left == f"03_evaluation cell 0 (of: {fingerprint('# Good evening')}): '# Good evening'"


def test_english_needs_no_table():
    notebook = new_notebook(cells=[new_markdown_cell("# Anything", id="0")])
    assert translate_prose(notebook, "unheard_of", lang="en") == []


def test_the_fingerprint_is_of_the_words():
    assert fingerprint("a b\n") == fingerprint(" a b") != fingerprint("a c")
