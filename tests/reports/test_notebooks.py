"""Every notebook: short cells that call the package, parameters that papermill understands. 03_evaluation for real."""

import ast
import html
import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from sa2va_lab.reports.runner import run_report

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def test_there_are_notebooks():
    assert "03_evaluation" in [path.stem for path in NOTEBOOKS]


def test_cells_are_short_and_define_nothing(notebook):
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        parameters = "parameters" in cell.metadata.get("tags", [])
        assert len(cell.source.splitlines()) <= (16 if parameters else 15), cell.source
        if parameters:
            assert all(isinstance(node, ast.AnnAssign) for node in ast.parse(cell.source).body), cell.source
        forbidden = ast.FunctionDef | ast.ClassDef | ast.Lambda | ast.Try
        assert not [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, forbidden)], cell.source


def test_notebooks_are_kept_without_outputs(notebook):
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in notebook.cells)


def test_parameters_have_types_that_papermill_reads(notebook, tmp_path):
    from papermill import inspect_notebook

    path = tmp_path / "copy.ipynb"
    nbformat.write(notebook, path)
    declared = inspect_notebook(str(path))
    assert {"outputs", "lang"} <= set(declared)
    assert {about["inferred_type_name"] for about in declared.values()} <= {"str", "int", "float", "bool"}
    assert all(about["help"] for about in declared.values()), "each parameter says what it is"


@pytest.fixture(scope="module")
def report(drawn_run, drawn_data, tmp_path_factory):
    parameters = {"run": str(drawn_run.folder), "data": str(drawn_data), "groups": r"p(\d+)_", "threshold": "0.4"}
    outputs = tmp_path_factory.mktemp("outputs")
    names = ["03_evaluation", "04_threshold_tuning", "05_error_gallery"]
    return run_report(names, parameters=parameters, outputs=outputs, name="drawn").parent


@pytest.mark.slow
def test_tuning_and_gallery_on_paper(report, drawn_run, read_page):
    parts = json.loads((report / "metrics.json").read_text("utf-8"))["notebooks"]
    assert parts["04_threshold_tuning"]["answer"]["metrics"]["threshold"]["split"] == "all"
    found = parts["05_error_gallery"]["answer"]["metrics"]
    assert (found["threshold"], found["run"]) == (0.4, drawn_run.folder.name)
    for stem, pictures in (("04_threshold_tuning", 2), ("05_error_gallery", 3)):
        page = read_page(report / f"{stem}.html")
        page.assert_self_contained(report)
        assert len([image for image in page.images if image["alt"]]) == pictures
        assert "jupyter-widgets" not in (report / f"{stem}.html").read_text("utf-8")
        assert parts[stem]["answer"]["sentence"] in page.text


@pytest.mark.slow
def test_report_of_an_existing_run(report, drawn_run, drawn_data, read_page):
    """What the page says is what evaluate_run says, and no model was at hand."""
    from sa2va_lab import open_dataset
    from sa2va_lab.evaluation.metrics import evaluate_run, summarise

    dataset = open_dataset(drawn_data, groups=r"p(\d+)_")
    summary = summarise(evaluate_run(drawn_run, dataset, threshold=0.4))
    dice = summary["dice"]
    assert 0.3 < dice["macro"] < 0.95  # a real result, neither nothing nor all
    parts = json.loads((report / "metrics.json").read_text("utf-8"))["notebooks"]
    metrics = parts["03_evaluation"]["answer"]["metrics"]
    assert metrics["summary"]["dice"] == dice
    expected = (
        f"Dice {dice['macro']:.3f} (95 % interval {dice['low']:.3f} to {dice['high']:.3f}) on 6 images of 3 patients, "
        "threshold 0.4, split “all”."
    )
    for name in ("index.html", "03_evaluation.html"):
        page = read_page(report / name)
        page.assert_self_contained(report)
        assert expected in page.text
    assert metrics == json.loads((drawn_run.folder / "metrics.json").read_text("utf-8"))["metrics"]


@pytest.mark.slow
def test_page_answers_first_and_describes_its_figures(report, drawn_run, read_page):
    executed = nbformat.read(report / "03_evaluation.ipynb", as_version=4)
    outputs = [o for cell in executed.cells for o in cell.get("outputs", []) if o.get("name") != "stderr"]
    assert outputs[0].data["text/plain"].startswith("Dice 0.")
    page = read_page(report / "03_evaluation.html")
    assert [image["alt"].split(":")[0].split(".")[0] for image in page.images] == [
        "Mean Dice is 0",
        "Dice of 6 images by patient",
        "Worst",
        "Median",
        "Best",
    ]
    assert "nothing is predicted, and all 288 annotated pixels are missed." in page.images[2]["alt"]
    for note in ("truth is empty", "answer names no mask"):
        assert note in page.text
    assert page.text.count(drawn_run.meta["stamp"]) == 1
    assert drawn_run.meta["dataset"]["manifest_sha256"] in page.text


ENGLISH = re.compile(r"\b[A-Za-z][a-z']+(?:[ -][a-z'(]{2,}\)?)+")  # two words or more, the first perhaps large
NAMES = (
    "blood vessel",
    "facebook",
    "hiera",
    "like cv",
    "lab-key",
    "lab audit",
    "lab verify",
    "weights sha",
)  # also commands
NAMES += ("is there any", "there is none")  # what was asked and answered
NAMES += ("classical segmenter", "notice that belongs", "device was found", "one number needs no less")  # the fixture's


@pytest.mark.slow
def test_a_chinese_report_is_chinese_throughout(drawn_run, drawn_data, tmp_path, read_page):
    """Nothing on the index or on any page is English but names, identifiers, questions and answers, code."""
    parameters = {"run": str(drawn_run.folder), "data": str(drawn_data), "groups": r"p(\d+)_", "lang": "zh"}
    names = [path.stem for path in NOTEBOOKS if path.stem[:2] in ("00", "01", "03", "04", "05")]
    index = run_report(names, parameters=parameters, outputs=tmp_path, name="drawn")
    for name in ("index", *names):
        text = re.sub(
            r"<(pre|code|details|style|script)\b.*?</\1>", " ", index.with_name(f"{name}.html").read_text(), flags=re.S
        )
        seen = re.sub(r"<[^>]*>", "\n", text)
        left = [found for found in ENGLISH.findall(html.unescape(seen)) if not any(n in found.lower() for n in NAMES)]
        assert left == [], name
    assert "效果有多好" in read_page(index.with_name("03_evaluation.html")).text
    assert "效果有多好" in read_page(index).text


@pytest.mark.slow
def test_no_file_name_of_the_data_set_gets_into_the_report(report):
    for path in filter(Path.is_file, report.rglob("*")):
        text = path.read_bytes().decode("utf-8", "ignore")
        assert not [name for name in ("p01_a", "p02_b", "p03_a") if name in text], path.name


@pytest.mark.slow
def test_plain_papermill_runs_it_from_anywhere(drawn_run, drawn_data, tmp_path):
    command = [sys.executable, "-m", "papermill", str(ROOT / "notebooks/03_evaluation.ipynb"), "out.ipynb"]
    command += ["-p", "run", str(drawn_run.folder), "-p", "data", str(drawn_data), "-p", "lang", "zh"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    executed = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    assert any("95 % 区间" in str(cell.get("outputs")) for cell in executed.cells)


@pytest.mark.slow
def test_the_demo_gives_a_stamped_report(tmp_path, read_page):
    """No parameter at all: the shipped model on the shipped images, two of them here."""
    index = run_report(["03_evaluation"], parameters={"limit": 2}, outputs=tmp_path, name="demo")
    report = json.loads((index.parent / "metrics.json").read_text("utf-8"))["notebooks"]["03_evaluation"]
    assert report["answer"]["stamp"]
    metrics = report["answer"]["metrics"]
    assert (metrics["split"], metrics["seen"], metrics["summary"]["n_images"]) == ("test", "no", 2)
    assert report["answer"]["stamp"] in read_page(index).text
    made = {path.name.partition("demo")[2] for path in (tmp_path / "runs").iterdir() if path.name != "asked"}
    assert {"", "_beside", "_beside_val", "_val"} <= made  # each model has its own threshold
    assert len(list((tmp_path / "runs" / "asked").iterdir())) == len(metrics["prompts"]) - 1 == 3
    assert {"threshold", "baselines", "honesty", "beside"} <= set(metrics)
    assert metrics["threshold"]["origin"] == "validation"
    assert len(metrics["beside"]) == 1
    assert not [finding for finding in metrics["honesty"] if finding["alarm"]]
