"""Writes the pictures of the READMEs: the median case of 03_evaluation and the top of index.html, from a report; and
which released model fits which card.

python docs/make_pictures.py outputs/reports/<utc>_demo        # needs chromium
python docs/make_pictures.py cards
"""

from __future__ import annotations

import base64
import io
import shutil
import sys
from pathlib import Path

import nbformat
from PIL import Image

FOLDER = Path(__file__).resolve().parent / "pictures"
CASES = "choose_cases"  # in the cell that shows the worst, the median and the best image
WIDTH, HEIGHT, QUALITY = 900, 900, 85


def main(report: Path) -> None:
    """Both pictures, as JPEG: a README is looked at, not measured."""
    FOLDER.mkdir(exist_ok=True)
    notebook = nbformat.read(report / "03_evaluation.ipynb", as_version=4)
    [cell] = (cell for cell in notebook.cells if cell.cell_type == "code" and CASES in cell.source)
    figures = [output.data["image/png"] for output in cell.outputs if "image/png" in output.get("data", {})]
    save(base64.b64decode(figures[1]), "case.jpg")
    save(photograph(report / "index.html"), "index.jpg")


def draw_cards() -> None:
    """The figure of 06_precision_vram, in both languages."""
    from sa2va_lab.language import use_language
    from sa2va_lab.loading.matrix import weigh_releases
    from sa2va_lab.views.plans import releases_figure
    from sa2va_lab.views.style import to_png

    rows = weigh_releases(gpus=1)
    for language in ("en", "zh"):
        with use_language(language):
            save(to_png(releases_figure(rows)[0]), f"cards_{language}.png")


def photograph(page: Path) -> bytes:
    """The top of a page as a PNG, in light colours."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"])
        opened = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        opened.goto(page.resolve().as_uri())
        return opened.screenshot()


def save(content: bytes, name: str) -> None:
    """At most WIDTH wide."""
    image = Image.open(io.BytesIO(content)).convert("RGB")
    image.thumbnail((WIDTH, 10 * WIDTH), Image.Resampling.LANCZOS)
    image.save(FOLDER / name, quality=QUALITY, optimize=True)
    print(FOLDER / name, (FOLDER / name).stat().st_size)


if __name__ == "__main__":
    draw_cards() if sys.argv[1] == "cards" else main(Path(sys.argv[1]))
