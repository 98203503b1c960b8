"""Every sa2va-lab command in the documentation is run, on the demo's files in place of the words in capitals."""

import re
import shlex
import subprocess
import sys

import pytest
from PIL import Image

from sa2va_lab.evaluation.thresholds import Choice, save_threshold

PAGES = ("README.md", "README.zh-CN.md", "docs/how-to.md", "data/README.md")


def commands_of(text: str) -> list[str]:
    """Lines of code blocks that start with sa2va-lab, without comments."""
    found = re.findall(r"^(?: {4}|\t)+(sa2va-lab .*)$", text, re.M)
    return [re.split(r"\s{2,}|\s#", line.strip())[0] for line in found]


def pytest_generate_tests(metafunc):
    if "command" in metafunc.fixturenames:
        root = metafunc.config.rootpath
        found = [command for page in PAGES for command in commands_of((root / page).read_text("utf-8"))]
        metafunc.parametrize("command", list(dict.fromkeys(found)))


@pytest.fixture(scope="module")
def places(root, drawn_data, drawn_run, tmp_path_factory):
    demo = root / "data" / "demo"
    other = tmp_path_factory.mktemp("other") / "other"
    film = other.with_name("film.gif")
    first, *later = (Image.open(path) for path in sorted((demo / "films" / "images").iterdir())[4:7])
    first.save(film, save_all=True, append_images=later)
    return {
        "CHECKPOINT": demo / "base",
        "FINETUNE": sorted(demo.glob("iter_*.pth"))[-1],
        "CONFIG": demo / "sa2va_angiogram_finetune.py",
        "LOG": demo / "sa2va_angiogram_finetune.log",
        "IMAGE": sorted((demo / "angiograms" / "images").iterdir())[-1],
        "FILM": film,
        "DATA": drawn_data,
        "OTHER": demo / "angiograms",
        "RUN": drawn_run.folder,
        "NEW": other,
        "OUT": other.with_name("out"),
    }


def test_the_way_in_names_every_notebook(root):
    page = (root / "notebooks" / "README.ipynb").read_text("utf-8")
    stems = sorted(path.stem for path in (root / "notebooks").glob("[0-9]*.ipynb"))
    assert re.findall(r"\[(\w+)\]\(\1\.ipynb\)", page) == stems


def test_commands_are_found(root):
    assert len(commands_of((root / "docs/how-to.md").read_text("utf-8"))) >= 10
    assert commands_of("    sa2va-lab audit DATA   every defect\ntext\n    sa2va-lab report # all\n") == [
        "sa2va-lab audit DATA",
        "sa2va-lab report",
    ]


@pytest.mark.slow
def test_every_command_works(command, places, tmp_path, drawn_data, call):
    """A report without names would be all notebooks: here it gets one; the whole is tested elsewhere."""
    name, *words = shlex.split(command)[1:]
    fresh = {"NEW": tmp_path / "new", "OUT": tmp_path / "out"}
    words = [str((places | fresh).get(word, word)) for word in words]
    if name == "report":
        named = [word for word in words if re.match(r"\d\d_", word)]
        words += ["-p", "limit=2"] if named else ["01_dataset"]
        words += ["--outputs", str(tmp_path), "-p", "groups=p(\\d+)_"]
        (tmp_path / "lab.yml").write_text(f"model: {places['CHECKPOINT']}\ndata: {drawn_data}\n")
    save_threshold(tmp_path, Choice(0.4, "chosen on other images", origin={"images": ["0" * 64]}))
    status, _, said = call(name, *words, here=tmp_path)
    assert status == 0, said[-2000:]


@pytest.mark.slow
def test_the_reference_is_that_of_the_code(root):
    page, script = root / "docs" / "reference.md", root / "docs" / "make_reference.py"
    made = subprocess.run([sys.executable, str(script), "--print"], capture_output=True, text=True, check=True).stdout
    assert made == page.read_text("utf-8"), "run: python docs/make_reference.py"


@pytest.mark.parametrize("page", [*PAGES, "docs/explanation.md", "docs/reference.md"])
def test_links_lead_somewhere(page, root):
    text = (root / page).read_text("utf-8")
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        assert target.startswith("https://") or (root / page).parent.joinpath(target).exists(), target
