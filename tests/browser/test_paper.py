"""What is printed is whole: there is no scrolling on paper."""

import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from sa2va_lab.reports.html import render_notebook
from sa2va_lab.views import plans

PAPER = 718  # CSS pixels between the margins of an upright A4
WIDEST = "Math.max(...[...document.querySelectorAll('.scroll')].map(x => x.scrollWidth - x.clientWidth))"

pytestmark = pytest.mark.browser


def test_the_widest_table_ends_on_the_paper(page, tmp_path):
    lacking = "did not run: nf4 needs bitsandbytes: pip install 'sa2va_lab[quant]', or use bf16."
    row = {"precision": "bf16", "device": "cpu + files", "reason": lacking, "forecast_bytes": 110_000_000}
    row |= {"own_bytes": 112_000_000, "forecast_mapped_bytes": 18_000_000, "mapped_bytes": 18_000_000}
    table = plans.memory_table({"precisions": [row, row | {"reason": ""}]})._repr_html_()
    shown = new_output("execute_result", data={"text/html": table})
    html = render_notebook(new_notebook(cells=[new_code_cell("x", outputs=[shown])]), title="t", home="index.html")
    (tmp_path / "page.html").write_text(html, "utf-8")
    page.set_viewport_size({"width": PAPER, "height": 1000})
    page.goto((tmp_path / "page.html").as_uri())
    assert page.evaluate(WIDEST) > 0  # on a screen of that width it is scrolled
    page.emulate_media(media="print")
    assert page.evaluate(WIDEST) <= 0
