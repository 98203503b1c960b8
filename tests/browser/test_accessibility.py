"""axe-core finds nothing to complain about in a report's pages: light and dark, English and Chinese."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from sa2va_lab.reports.html import render_index, render_notebook

AXE = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
LOOKS = {"light": [], "dark": ["--force-dark-mode", "--blink-settings=preferredColorScheme=0"]}
COLLECT = """axe.run().then(found => {
  const said = found.violations.map(one => [one.id, one.nodes.map(node => node.html.slice(0, 200))]);
  document.body.innerHTML = '<pre id="found"></pre>';
  document.getElementById('found').textContent = JSON.stringify([found.passes.length, said]);
})"""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not AXE.is_file(), reason="axe-core is not installed: npm install --prefix tests/browser"),
    pytest.mark.skipif(not CHROMIUM, reason="chromium was not found"),
]


def complaints(html: str, folder: Path, *, look: str) -> list:
    """What axe-core finds wrong with a page, after it has found something right."""
    page = folder / "page.html"
    scripts = f"<script>{AXE.read_text('utf-8')}</script><script>{COLLECT}</script>"
    page.write_text(html.replace("</body>", scripts + "</body>"), "utf-8")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += [*LOOKS[look], "--virtual-time-budget=30000", "--dump-dom", page.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    passes, found = json.loads(re.search(r'<pre id="found">(.*?)</pre>', shown, re.S)[1].replace("&amp;", "&"))
    assert passes > 20
    return found


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
def test_the_index_is_accessible(full_report, tmp_path, lang, look):
    assert complaints(render_index(full_report, lang=lang), tmp_path, look=look) == []


@pytest.mark.parametrize("look", LOOKS)
def test_a_notebooks_page_is_accessible(tmp_path, look):
    table = new_output("execute_result", data={"text/html": "<table><tr><th>a</th><td>7</td></tr></table>"})
    error = new_output("error", ename="ValueError", evalue="bad", traceback=["line"])
    said = new_output("stream", name="stdout", text="said")
    cells = [
        new_markdown_cell("# A title\n\nProse with `code`."),
        new_code_cell("x = 1  # why", outputs=[table, table]),
    ]
    cells += [new_code_cell("'text'", outputs=[said, error])]
    html = render_notebook(new_notebook(cells=cells), title="A title", home="index.html")
    assert complaints(html, tmp_path, look=look) == []


def test_the_check_can_fail(full_report, tmp_path):
    broken = render_index(full_report).replace("</main>", '<img src="data:,"></main>')
    assert [kind for kind, _ in complaints(broken, tmp_path, look="light")] == ["image-alt"]
