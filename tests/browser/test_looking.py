"""The tuner in Voila: a real page, real keys."""

import shutil

import nbformat
import pytest

from sa2va_lab.evaluation.thresholds import read_threshold

pytestmark = pytest.mark.browser


@pytest.fixture
def tuning(drawn_run, drawn_data, root, tmp_path):
    """The notebook with a Run of its own, ready to be opened; (notebook, Run folder)."""
    run = shutil.copytree(drawn_run.folder, tmp_path / "run")
    notebook = nbformat.read(root / "notebooks" / "04_threshold_tuning.ipynb", as_version=4)
    cell = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    cell.source += f'\nrun, data, groups = {str(run)!r}, {str(drawn_data)!r}, r"p(\\d+)_"'
    cell.source += f"\noutputs = {str(tmp_path)!r}"
    (tmp_path / "notebooks").mkdir()
    path = tmp_path / "notebooks" / "tuning.ipynb"
    nbformat.write(notebook, path)
    return path, run


def move_and_save(page, run, screenshots, name):
    number = page.get_by_label("Threshold, number")
    number.wait_for()
    overlay = page.locator(".widget-html img").first
    overlay.wait_for()
    page.get_by_label("Search").last.fill("p01")  # the worst image has no [SEG]: no threshold changes it
    page.locator(".widget-html img[alt*='P01']").first.wait_for()
    number.scroll_into_view_if_needed()
    page.screenshot(path=screenshots / f"{name}_before.png")
    picture, said = overlay.get_attribute("src"), page.locator(".widget-html svg").get_attribute("aria-label")
    handle = page.locator(".widget-slider .noUi-handle").first
    handle.focus()
    before = float(number.input_value())
    page.keyboard.press("ArrowRight")
    page.wait_for_function(f"[...document.querySelectorAll('input')].some(i => i.value == '{before + 0.001:.3f}')")
    number.fill("0.9")
    number.press("Tab")
    page.wait_for_function(
        "old => document.querySelector('.widget-html svg').getAttribute('aria-label') !== old", arg=said
    )
    page.wait_for_function("old => document.querySelector('.widget-html img').src !== old", arg=picture)
    assert "at 0.900 (orange)" in page.locator(".widget-html svg").get_attribute("aria-label")
    page.get_by_role("button", name="Save").last.focus()
    page.keyboard.press("Enter")
    page.get_by_text("Saved threshold.json").wait_for()
    page.screenshot(path=screenshots / f"{name}_after.png")
    saved = read_threshold(run)
    assert saved.value == 0.9
    assert saved.origin["run"] == run.name
    assert saved.reason.startswith("set by eye")


def test_tuner_in_voila(tuning, serve, page, screenshots):
    notebook, run = tuning
    page.goto(serve("voila", str(notebook)))
    move_and_save(page, run, screenshots, "voila")
