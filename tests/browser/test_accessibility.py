"""axe-core finds nothing to complain about in a report's pages: light and dark, English and Chinese."""

from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from sa2va_lab import open_dataset
from sa2va_lab.evaluation.mistakes import sort_mistakes
from sa2va_lab.language import use_language
from sa2va_lab.reports.html import render_index, render_notebook
from sa2va_lab.views import gallery

AXE = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"
LOOKS = ("light", "dark")

pytestmark = pytest.mark.browser


@pytest.fixture
def complaints(page, tmp_path, give_up):
    """complaints(html, look) is what axe-core finds wrong with a page, after it has found something right."""
    if not AXE.is_file():
        give_up("axe-core is not installed: npm ci --prefix tests/browser")
    page.add_init_script(path=AXE)

    def look_at(html: str, look: str) -> list:
        (tmp_path / "page.html").write_text(html, "utf-8")
        page.emulate_media(color_scheme=look)
        page.goto((tmp_path / "page.html").as_uri())
        found = page.evaluate("axe.run()")
        assert len(found["passes"]) > 20
        return [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found["violations"]]

    return look_at


@pytest.fixture(scope="module")
def full_report():
    """A report in which every block of the index is filled."""
    import importlib.util

    place = Path(__file__).parents[1] / "reports" / "test_index.py"
    spec = importlib.util.spec_from_file_location("index_example", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.make_report()


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_index_is_accessible(full_report, complaints, lang, look):
    use_language(lang)
    assert complaints(render_index(full_report), look) == []


@pytest.mark.parametrize("look", LOOKS)
def test_a_notebooks_page_is_accessible(complaints, look):
    table = new_output("execute_result", data={"text/html": "<table><tr><th>a</th><td>7</td></tr></table>"})
    error = new_output("error", ename="ValueError", evalue="bad", traceback=["line"])
    said = new_output("stream", name="stdout", text="said")
    cells = [
        new_markdown_cell("# A title\n\nProse with `code`."),
        new_code_cell("x = 1  # why", outputs=[table, table]),
    ]
    cells += [new_code_cell("'text'", outputs=[said, error])]
    html = render_notebook(new_notebook(cells=cells), title="A title", home="index.html")
    assert complaints(html, look) == []


@pytest.mark.parametrize("look", LOOKS)
def test_the_gallery_is_accessible(drawn_run, drawn_data, complaints, tmp_path, look):
    dataset = open_dataset(drawn_data, groups=r"p(\d+)_")
    path = gallery.write_gallery(sort_mistakes(drawn_run, dataset), drawn_run, dataset, folder=tmp_path)
    assert complaints(path.read_text("utf-8"), look) == []


def test_the_check_can_fail(full_report, complaints):
    broken = render_index(full_report).replace("</main>", '<img src="data:,"></main>')
    assert [kind for kind, _ in complaints(broken, "light")] == ["image-alt"]
