import base64
import io

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from sa2va_lab.language import use_language
from sa2va_lab.reports.html import find_title, headline, render_index, render_notebook


def _png() -> str:
    buffer = io.BytesIO()
    Image.new("L", (2, 2)).save(buffer, "png")
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.fixture
def notebook():
    shown = new_output("display_data", data={"image/png": _png(), "text/plain": "<Figure>"})
    shown.metadata["image/png"] = {"alt": 'A grey square, "small".', "width": 20}
    return new_notebook(
        cells=[
            new_markdown_cell("# A *title*\n\nSome **prose** with a < b."),
            new_code_cell("first = 1"),
            new_code_cell("second = 2", outputs=[shown]),
            new_code_cell("noisy()", outputs=[
                new_output("stream", name="stderr", text=" 10%|#\r 90%|###\r100%|####\nWARNING x"),
                new_output("stream", name="stdout", text="\x1b[31mred\x1b[0m & plain\n"),
            ]),
            new_code_cell("table", outputs=[new_output("execute_result", data={
                "text/html": "<table><tr><td>7</td></tr></table>", "text/plain": "7"})]),
            new_code_cell("plain", outputs=[new_output("execute_result", data={"text/plain": "<repr>"})]),
            new_code_cell("last = 3"),
        ]
    )  # fmt: skip


def test_a_notebook_becomes_one_page(notebook, tmp_path, read_page):
    nbformat.validate(notebook)
    path = tmp_path / "page.html"
    path.write_text(render_notebook(notebook, title="A title"), "utf-8")
    page = read_page(path)
    page.assert_self_contained(tmp_path)
    [image] = page.images
    assert image["alt"] == 'A grey square, "small".'
    assert image["width"] == "20"
    assert "Some prose with a < b." in page.text
    assert "¶" not in page.text
    assert "<repr>" in page.text
    assert "<Figure>" not in page.text


def test_code_is_folded_and_silent_code_joins_the_next(notebook):
    html = render_notebook(notebook, title="A title")
    folded = [part.split("</details>")[0] for part in html.split('<details class="code">')[1:]]
    assert len(folded) == 5
    assert "first" in folded[0]
    assert "second" in folded[0]
    assert "last" in folded[-1]
    outside = "".join(part.split("</details>")[-1] for part in html.split('<details class="code">'))
    assert "noisy" not in outside


def test_progress_is_folded_and_shown_as_it_ended(notebook):
    html = render_notebook(notebook, title="A title")
    assert "10%" not in html
    folded = html.split('<details class="code">')[2].split("</details>")[0]
    assert "100%|####\nWARNING x" in folded
    assert "red &amp; plain" in html
    assert "\x1b" not in html


def test_an_error_is_one_line_with_the_rest_folded():
    error = new_output("error", ename="ValueError", evalue="bad <b>\nmore", traceback=["\x1b[0mTraceback", "line 2"])
    html = render_notebook(new_notebook(cells=[new_code_cell("f()", outputs=[error])]), title="x")
    assert '<p class="failure" role="alert">ValueError: bad &lt;b&gt;</p>' in html
    assert "<pre>Traceback\nline 2</pre>" in html


@pytest.mark.parametrize(
    ("ename", "evalue", "line"),
    [
        ("LabError", "One sentence.", "One sentence."),
        ("KeyError", "'x'\nmore", "KeyError: 'x'"),
        ("MemoryError", "", "MemoryError"),
    ],
)
def test_headline(ename, evalue, line):
    assert headline({"ename": ename, "evalue": evalue}) == line


def test_language_of_the_page(notebook):
    assert '<html lang="en">' in render_notebook(notebook, title="x")
    with use_language("zh"):
        chinese = render_notebook(notebook, title="x")
    assert '<html lang="zh-Hans">' in chinese
    assert "<summary>代码</summary>" in chinese


def test_title_is_the_first_heading(notebook):
    assert find_title(notebook, default="d") == "A *title*"
    assert find_title(new_notebook(cells=[new_code_cell("# no heading")]), default="d") == "d"


def _part(**changes):
    values = {
        "title": "How good is it?", "error": None, "seconds": 3.4, "page": "a.html", "notebook": "a.ipynb",
        "answer": {"sentence": "Dice 0.123.", "stamp": "demo <model>", "metrics": {}},
    }  # fmt: skip
    return values | changes


def _report(**notebooks):
    return {
        "name": "demo", "created": "2020-01-02 03:04:05", "parameters": {"threshold": 0.3},
        "versions": {"torch": "2.x"}, "notebooks": notebooks,
    }  # fmt: skip


def test_index_has_the_answer_first():
    html = render_index(_report(a=_part()))
    assert html.index("Dice 0.123.") < html.index("How good is it?") < html.index("2020-01-02")
    assert html.count("demo &lt;model&gt;") == 1
    assert "<code>threshold=0.3</code>" in html
    assert 'href="a.html"' in html
    assert "failed" not in html


def test_index_shows_failures_and_says_when_there_is_no_answer():
    html = render_index(_report(a=_part(error="KeyError: 'x'", answer=None)))
    assert "failed: KeyError: &#39;x&#39;" in html
    assert "No notebook gave an answer" in html
    mixed = render_index(_report(a=_part(error="boom", answer=None), b=_part()))
    assert "No notebook gave an answer" not in mixed
    assert "failed: boom" in mixed
