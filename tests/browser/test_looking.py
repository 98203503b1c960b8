"""The tuner in Voila and in JupyterLab, the gallery from a file: real pages, real keys."""

import json
import re
import shlex
import shutil

import nbformat
import pytest

from sa2va_lab import open_dataset
from sa2va_lab.evaluation.mistakes import sort_mistakes
from sa2va_lab.evaluation.thresholds import read_threshold
from sa2va_lab.views import gallery

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
    """Searches an image, moves the slider by key and the number by hand, saves; each waits until it is seen."""
    from playwright.sync_api import expect

    # JupyterLab has a "Search" and a "Save" of its own, and the form over the parameters is made of boxes, too
    tuner = page.locator(".jupyter-widgets.widget-hbox").filter(has=page.get_by_label("Threshold, number"))
    widget = tuner.first
    number, curve = widget.get_by_label("Threshold, number"), widget.locator(".widget-html [role=img]")
    overlay, numbers = widget.locator("[role=group] img").first, widget.locator(".widget-html table").first
    overlay.wait_for()
    widget.get_by_label("Search").fill("p01")  # the worst image has no [SEG]: no threshold changes it
    widget.locator("img[alt*='P01']").first.wait_for()
    number.scroll_into_view_if_needed()
    page.screenshot(path=screenshots / f"{name}_before.png")
    widget.locator(".noUi-handle").first.focus()
    after_key = f"{float(number.input_value()) + 0.001:.3f}"
    page.keyboard.press("ArrowRight")
    expect(number).to_have_value(after_key)
    expect(curve).to_have_attribute("aria-label", containing(f"at {after_key} (orange)"))
    widget.get_by_text("Hold for comparison").click()
    held = widget.get_by_text(f"at {after_key}", exact=False)
    expect(held).to_have_count(2)  # the one that is held, and the one that moves
    overlay.click()
    page.keyboard.press("ArrowUp")
    expect(number).to_have_value(f"{float(after_key) + 0.005:.3f}")
    page.keyboard.press("ArrowRight")
    widget.locator("img[alt*='P01-V1-F001']").first.wait_for()
    page.screenshot(path=screenshots / f"{name}_held.png")
    widget.get_by_text("Hold for comparison").click()
    widget.locator("[data-name^=P02]").first.click()
    widget.locator("img[alt*='P02']").first.wait_for()
    widget.get_by_label("Search").fill("p01")
    widget.locator("img[alt*='P01']").first.wait_for()
    picture, said = overlay.get_attribute("src"), numbers.inner_text()
    number.fill("0.9")
    number.press("Tab")
    expect(curve).to_have_attribute("aria-label", containing("at 0.900 (orange)"))
    expect(overlay).not_to_have_attribute("src", picture)
    expect(numbers).not_to_have_text(said, use_inner_text=True)
    widget.get_by_role("button", name="Save", exact=True).focus()
    page.keyboard.press("Enter")
    widget.get_by_text("Saved threshold.json").wait_for()
    saved = read_threshold(run)
    assert saved.value == 0.9
    assert saved.origin["run"] == run.name
    assert saved.reason.startswith("set by eye")


def containing(text):
    return re.compile(re.escape(text))


def test_tuner_in_voila(tuning, serve, page, screenshots):
    notebook, run = tuning
    page.goto(serve("voila", str(notebook)))
    move_and_save(page, run, screenshots, "voila")


def test_tuner_in_jupyterlab(tuning, serve, page, screenshots, tmp_path):
    notebook, run = tuning
    quiet = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}  # it asks for news
    (tmp_path / "jupyter" / "CONFIG" / "labconfig").mkdir(parents=True)
    (tmp_path / "jupyter" / "CONFIG" / "labconfig" / "page_config.json").write_text(json.dumps(quiet))
    where = f"--ServerApp.root_dir={notebook.parent}"
    address = serve("jupyterlab", where, "--IdentityProvider.token=", "--allow-root")
    page.goto(f"{address}/lab/tree/{notebook.name}")
    page.get_by_role("heading", name="From which probability").wait_for()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    page.get_by_text("Parameters as a form").click()
    page.get_by_label("choose_on").fill("test")
    page.keyboard.press("Enter")
    page.get_by_text("choose_on = 'test'").wait_for()
    page.screenshot(path=screenshots / "form.png")
    move_and_save(page, run, screenshots, "jupyterlab")


def test_lab_opens_where_it_says_which_notebook_answers_what(serve, page, root, screenshots):
    [line] = [line for line in (root / "Makefile").read_text("utf-8").splitlines() if "jupyter lab" in line]
    options = shlex.split(line.partition("jupyter lab ")[2])
    assert options[0] == "--notebook-dir=notebooks"
    where = f"--ServerApp.root_dir={root / 'notebooks'}"
    address = serve("jupyterlab", where, *options[1:], "--IdentityProvider.token=", "--allow-root")
    page.goto(address)
    page.get_by_role("heading", name="Which notebook answers your question?").wait_for()
    page.screenshot(path=screenshots / "way_in.png")
    page.get_by_role("link", name="04_threshold_tuning").click()
    page.get_by_role("heading", name="From which probability").wait_for()


def test_gallery_without_a_network(drawn_run, drawn_data, page, tmp_path, screenshots):
    from playwright.sync_api import expect

    dataset = open_dataset(drawn_data, groups=r"p(\d+)_")
    table = sort_mistakes(drawn_run, dataset)
    path = gallery.write_gallery(table, drawn_run, dataset, folder=tmp_path)
    asked, wrong = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.context.set_offline(True)
    page.goto(path.as_uri())
    cards, filters = page.locator(".case:visible"), page.locator("#filters")
    expect(cards).to_have_count(6)
    kinds = table["kind"].value_counts()
    for kind, images in kinds.items():
        filters.get_by_label("Kind").select_option(kind)
        expect(cards).to_have_count(images)
        expect(filters.locator("#count")).to_have_text(str(images))
    assert len(kinds) > 1
    filters.get_by_label("Kind").select_option("")
    filters.get_by_label("Patient").select_option("P02")
    expect(cards).to_have_count(2)
    filters.get_by_label("Patient").select_option("")
    filters.get_by_label("Search").fill("p03-v1-f001")
    expect(cards).to_have_count(1)
    filters.get_by_label("Search").fill("")
    filters.get_by_label("suspect").check()
    expect(cards).to_have_count(int((table["suspect"] != "").sum()))
    filters.get_by_label("suspect").uncheck()
    page.screenshot(path=screenshots / "gallery.png")

    pictures, about, large = page.locator(".picture"), page.locator("#about"), page.get_by_role("dialog")
    pictures.nth(3).focus()
    page.keyboard.press("Enter")
    expect(about).to_have_text(containing("Right and wrong"))
    page.screenshot(path=screenshots / "gallery_enlarged.png")
    page.keyboard.press("ArrowRight")
    expect(about).to_have_text(containing("Centreline"))
    page.keyboard.press("Escape")
    expect(large).to_be_hidden()
    expect(pictures.nth(4)).to_be_focused()
    assert wrong == []
    assert all(address.startswith(("file:", "data:")) for address in asked)
