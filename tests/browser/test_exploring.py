"""Asking the demo model in JupyterLab and in Voila: a question, the threshold, a box, a film, and what is kept."""

import json
import re

import nbformat
import pytest

pytestmark = pytest.mark.browser


@pytest.fixture
def exploring(root, tmp_path):
    """The notebook, whose results go to a folder of the test; (notebook, folder of what is kept)."""
    notebook = nbformat.read(root / "notebooks" / "08_explore.ipynb", as_version=4)
    cell = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    cell.source += f"\noutputs = {str(tmp_path)!r}"
    (tmp_path / "notebooks").mkdir()
    path = tmp_path / "notebooks" / "exploring.ipynb"
    nbformat.write(notebook, path)
    return path, tmp_path / "explored"


def ask_and_keep(page, kept, screenshots, name):
    from playwright.sync_api import expect

    view = page.locator(".jupyter-widgets.widget-hbox").filter(has=page.get_by_label("Suggestions")).first
    picture, said = view.locator("[role=group] img").first, view.locator("[role=status]")
    picture.wait_for()

    def see(action):
        """Acts, and waits until another picture is there."""
        before = picture.get_attribute("src")
        action()
        expect(picture).not_to_have_attribute("src", before)

    view.get_by_label("Image", exact=True).select_option(index=2)
    expect(said).to_contain_text("is open")
    view.get_by_role("button", name="Ask").click()
    expect(view.locator("[role=alert]")).to_contain_text("nothing was asked")
    view.get_by_label("Suggestions").select_option(label="blood vessel")
    see(lambda: view.get_by_role("button", name="Ask").click())
    expect(said).to_contain_text("Answered in")
    expect(view.locator("table").first).to_contain_text("Dice")
    page.screenshot(path=screenshots / f"{name}_asked.png")

    view.locator(".noUi-handle").first.focus()
    see(lambda: page.keyboard.press("PageUp"))

    view.get_by_role("button", name="Box").click()
    view.get_by_label("Suggestions").scroll_into_view_if_needed()  # the picture itself is replaced as it is drawn
    box = picture.bounding_box()

    def drag():
        page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.3 * box["height"])
        page.mouse.down()
        page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.4 * box["height"], steps=4)
        page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.55 * box["height"])
        page.mouse.up()

    see(drag)
    expect(said).to_contain_text("ask about region1")
    view.get_by_label("Question").fill("Please segment region1.")
    page.keyboard.press("Tab")
    see(lambda: view.get_by_role("button", name="Ask").click())
    expect(view.locator("ol")).to_contain_text("region1")
    page.screenshot(path=screenshots / f"{name}_region.png")

    view.get_by_role("button", name="Keep").click()
    expect(said).to_contain_text("Kept in")
    [folder] = kept.iterdir()
    told = json.loads((folder / "provenance.json").read_text("utf-8"))
    assert told["prompt"] == "Please segment region1."
    assert {"region1.png", "provenance.json"} < {path.name for path in folder.iterdir()}
    return view, picture, said, see


def test_exploring_in_jupyterlab(exploring, serve, page, screenshots, tmp_path):
    from playwright.sync_api import expect

    notebook, kept = exploring
    quiet = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}  # it asks for news
    (tmp_path / "jupyter" / "CONFIG" / "labconfig").mkdir(parents=True)
    (tmp_path / "jupyter" / "CONFIG" / "labconfig" / "page_config.json").write_text(json.dumps(quiet))
    where = f"--ServerApp.root_dir={notebook.parent}"
    address = serve("jupyterlab", where, "--IdentityProvider.token=", "--allow-root")
    page.goto(f"{address}/lab/tree/{notebook.name}")
    page.get_by_role("heading", name="Ask it yourself").wait_for()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    view, picture, said, see = ask_and_keep(page, kept, screenshots, "explore_jupyterlab")
    view.get_by_label("Question").fill("blood vessel")
    page.keyboard.press("Tab")
    see(lambda: view.get_by_role("button", name="Follow through the sequence").click())
    expect(said).to_contain_text(re.compile(r"followed through 6 frames"))
    view.locator(".noUi-handle").nth(1).focus()
    expect(picture).to_have_attribute("alt", re.compile("F003"))  # the frame that was open
    see(lambda: page.keyboard.press("ArrowRight"))
    expect(picture).to_have_attribute("alt", re.compile("F004"))
    page.screenshot(path=screenshots / "explore_film.png")

    page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.get_by_text("Restart Kernel…", exact=True).click()
    page.locator(".jp-Dialog .jp-mod-accept").click()
    expect(page.locator("[role=alert]").filter(has_text="The kernel was restarted")).to_be_visible()


def test_exploring_in_voila(exploring, serve, page, screenshots):
    notebook, kept = exploring
    page.goto(serve("voila", str(notebook)))
    ask_and_keep(page, kept, screenshots, "explore_voila")
