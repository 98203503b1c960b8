import json
import subprocess
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from sa2va_lab.errors import LabError
from sa2va_lab.reports import runner

ANSWERING = """
from sa2va_lab.reports.answers import Answer, Metrics
Answer(f"The number is {number}, {word}.", Metrics(number=number, sure=sure, some=some, share=share))
"""


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A root with two small notebooks: one answers from its parameters, the other fails on its way."""
    folder = tmp_path / "root" / "notebooks"
    folder.mkdir(parents=True)
    parameters = new_code_cell(
        'number: int = 1\nword: str = "one"\nsure: bool = True\nsome: list = []\nshare: float = 0.5\ndata: str = ""\n',
        metadata={"tags": ["parameters"]},
    )
    _write(folder / "00_good.ipynb", new_markdown_cell("# Good"), parameters, new_code_cell(ANSWERING))
    _write(folder / "01_bad.ipynb", new_markdown_cell("# Bad"), new_code_cell("raise ValueError('no luck\\nat all')"))
    monkeypatch.setattr(runner, "find_root", lambda: tmp_path / "root")
    return tmp_path


def _write(path, *cells):
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=list(cells), metadata=kernel), path)


def _check(lab, **parameters):
    return runner.check_parameters({"00_good": lab / "root/notebooks/00_good.ipynb"}, parameters)["00_good"]


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ({"number": "3"}, 3),
        ({"number": 3.0}, 3),
        ({"share": "1e-1"}, 0.1),
        ({"share": 1}, 1.0),
        ({"sure": "no"}, False),
        ({"sure": True}, True),
        ({"word": 7}, "7"),
        ({"some": [1]}, [1]),
    ],
)
def test_values_get_the_declared_type(lab, given, taken):
    [value] = _check(lab, **given).values()
    assert value == taken
    assert type(value) is type(taken)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"numbr": 3}, "no parameter is called 'numbr' in 00_good; did you mean number?"),
        ({"xyz": 3}, "known are: data, number, share, some, sure, word"),
        ({"number": "3.5"}, "number is '3.5'; expected a value of type int"),
        ({"number": True}, "number is True; expected a value of type int"),
        ({"number": "inf"}, "expected a value of type int"),
        ({"share": "half"}, "share is 'half'; expected a value of type float"),
        ({"sure": "perhaps"}, "sure is 'perhaps'; expected a value of type bool"),
        ({"data": "no/such/folder"}, "data is no/such/folder, which does not exist"),
    ],
)
def test_bad_parameters_are_refused_before_anything_is_written(lab, given, sentence):
    with pytest.raises(LabError) as caught:
        runner.run_report(["00_good"], parameters=given, outputs=lab / "out", name="x")
    assert sentence in str(caught.value)
    assert not (lab / "out").exists()


def test_unknown_notebook_is_refused_with_a_suggestion(lab):
    with pytest.raises(LabError, match="no notebook is called '00_god'; did you mean 00_good"):
        runner.run_report(["00_god"], parameters={}, outputs=lab / "out", name="x")
    with pytest.raises(LabError, match="no notebook was named"):
        runner.run_report([], parameters={}, outputs=lab / "out", name="x")


def test_relative_paths_are_the_callers(lab, monkeypatch):
    (lab / "my data").mkdir()
    monkeypatch.chdir(lab)
    assert _check(lab, data="my data") == {"data": str(lab / "my data")}


def test_several_logs_are_several_paths(lab, monkeypatch):
    parameters = new_code_cell('log: str = ""\n', metadata={"tags": ["parameters"]})
    _write(lab / "root/notebooks/02_log.ipynb", parameters)
    for name in ("a.log", "b.log"):
        (lab / name).touch()
    monkeypatch.chdir(lab)
    notebook = {"02_log": lab / "root/notebooks/02_log.ipynb"}
    taken = runner.check_parameters(notebook, {"log": "a.log; b.log"})["02_log"]
    assert taken == {"log": f"{lab / 'a.log'};{lab / 'b.log'}"}
    with pytest.raises(LabError, match="log is c.log, which does not exist"):
        runner.check_parameters(notebook, {"log": "a.log;c.log"})


def test_a_folder_whose_name_ends_in_a_blank_is_that_folder(lab, monkeypatch):
    parameters = new_code_cell('data: str = ""\n', metadata={"tags": ["parameters"]})
    _write(lab / "root/notebooks/01_data.ipynb", parameters)
    (lab / "mine ").mkdir()
    monkeypatch.chdir(lab)
    notebook = {"01_data": lab / "root/notebooks/01_data.ipynb"}
    assert runner.check_parameters(notebook, {"data": "mine "})["01_data"] == {"data": str(lab / "mine ")}


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({}, {}),
        ({"threshold": 0.3}, {}),
        ({"model": "m"}, {"02_loss_curves": "log"}),
        ({"data": "d", "log": "l"}, {}),
        (
            {"run": "r", "log": "l"},
            {"00_inspect": "model", "06_precision_vram": "model", "08_explore": "model", "07_films": "model"},
        ),
        (
            {"run": "r", "tracked": "t", "log": "l"},
            {"00_inspect": "model", "06_precision_vram": "model", "08_explore": "model"},
        ),
        ({"run": "r", "model": "m", "data": "d"}, {"02_loss_curves": "log"}),
    ],
)
def test_a_report_on_ones_own_has_no_chapter_on_the_demo(given, missing):
    names, left = runner.choose_notebooks(given)
    assert left == missing
    assert not set(names) & set(left)
    assert "03_evaluation" in names


@pytest.mark.slow
def test_a_run_that_a_notebook_makes_is_handed_to_those_after_it(lab):
    making = "from pathlib import Path\nfrom sa2va_lab.reports.answers import Answer, Metrics\n"
    making += "(Path(outputs) / 'runs' / 'new').mkdir(parents=True)\nAnswer('made', Metrics(run='new'))"
    taking = "from sa2va_lab.reports.answers import Answer, Metrics\nAnswer(run, Metrics())"
    for stem, name, code in (("02_before", "run", taking), ("03_make", "outputs", making), ("04_take", "run", taking)):
        declared = f'{name}: str = ""\nlang: str = ""\n'  # alone in its cell, `run: ...` would be IPython's %run
        parameters = new_code_cell(declared, metadata={"tags": ["parameters"]})
        _write(lab / f"root/notebooks/{stem}.ipynb", parameters, new_code_cell(code))
    names = ["02_before", "03_make", "04_take"]
    index = runner.run_report(names, parameters={}, outputs=lab / "out", name="x", left_out={"05_more": "model"})
    report = json.loads((index.parent / "metrics.json").read_text("utf-8"))
    said = {stem: part["answer"]["sentence"] for stem, part in report["notebooks"].items()}
    assert said == {"02_before": "", "03_make": "made", "04_take": "outputs/runs/new"}
    told = "".join(path.read_text("utf-8") for path in index.parent.iterdir() if path.is_file())
    assert str(lab) not in told, "a report is handed on: where things lie on this machine is nobody's business"
    assert report["left_out"] == {"05_more": "model"}


@pytest.mark.slow
def test_a_failing_notebook_does_not_stop_the_others(lab, read_page):
    with pytest.raises(LabError) as caught:
        runner.run_report(
            ["01_bad", "00_good"], parameters={"number": "41", "word": "一"}, outputs=lab / "out", name="两 words"
        )
    [folder] = (lab / "out" / "reports").iterdir()  # nothing else is left there, hidden or not
    assert folder.name.endswith("Z_两-words")
    assert "1 of 2 notebooks failed (01_bad: ValueError: no luck)" in str(caught.value)
    assert str(caught.value).endswith(str(folder / "index.html"))
    assert {path.name for path in folder.iterdir()} == {
        "index.html", "metrics.json", "00_good.html", "00_good.ipynb", "01_bad.html", "01_bad.ipynb",
    }  # fmt: skip
    report = json.loads((folder / "metrics.json").read_text("utf-8"))["notebooks"]
    assert report["00_good"]["error"] is None
    assert report["00_good"]["answer"]["metrics"] == {"number": 41, "sure": True, "some": [], "share": 0.5}
    assert report["01_bad"]["error"] == "ValueError: no luck"
    index = read_page(folder / "index.html")
    assert "The number is 41, 一." in index.text
    assert "failed: ValueError: no luck" in index.text
    for page in folder.glob("*.html"):
        read_page(page).assert_self_contained(folder)
    assert "ValueError: no luck" in read_page(folder / "01_bad.html").text
    assert ".part" not in (folder / "00_good.ipynb").read_text("utf-8")


@pytest.mark.slow
def test_notebooks_run_in_this_interpreter_whatever_kernels_are_installed(lab, tmp_path, monkeypatch):
    import sys

    wrong = tmp_path / "jupyter" / "kernels" / "python3"
    wrong.mkdir(parents=True)
    spec = {"argv": ["/bin/false", "{connection_file}"], "display_name": "x", "language": "python"}
    (wrong / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    code = "import sys\nfrom sa2va_lab.reports.answers import Answer, Metrics\nAnswer(sys.executable, Metrics())"
    _write(lab / "root/notebooks/02_where.ipynb", new_code_cell(code))
    index = runner.run_report(["02_where"], parameters={}, outputs=lab / "out", name="where")
    report = json.loads((index.parent / "metrics.json").read_text("utf-8"))
    assert report["notebooks"]["02_where"]["answer"]["sentence"] == sys.executable


@pytest.mark.slow
def test_a_kernel_that_dies_is_a_failed_notebook(lab):
    _write(lab / "root/notebooks/03_dies.ipynb", new_code_cell("import os\nos._exit(9)"))
    with pytest.raises(LabError, match="1 of 1 notebooks failed .03_dies: DeadKernelError"):
        runner.run_report(["03_dies"], parameters={}, outputs=lab / "out", name="dies")


UNTIL_FOUND = """
import os, pathlib, signal
begun = pathlib.Path(run_folder)
begun.mkdir(parents=True, exist_ok=True)
begun.joinpath(f"start{{len(list(begun.iterdir()))}}").touch()
if not pathlib.Path(data).joinpath("found").exists():
    {misfortune}
from sa2va_lab.reports.answers import Answer, Metrics
Answer("found", Metrics())
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "misfortune", ["raise ValueError('not found')", "os.kill(os.getppid(), signal.SIGKILL)"], ids=["fails", "killed"]
)
def test_a_report_is_taken_up_where_it_ended(lab, misfortune):
    """In one case the second notebook fails, in the other it kills the whole report; the first is not run again."""
    declared = 'data: str = ""\nrun_folder: str = ""\n'
    parameters = new_code_cell(declared, metadata={"tags": ["parameters"]})
    _write(lab / "root/notebooks/02_seek.ipynb", parameters, new_code_cell(UNTIL_FOUND.format(misfortune=misfortune)))
    (lab / "mine").mkdir()
    asked = {"parameters": {"data": str(lab / "mine")}, "outputs": str(lab / "out"), "name": "x"}
    program = (
        "import pathlib; from sa2va_lab.reports import runner\n"
        f"runner.find_root = lambda: pathlib.Path({str(lab / 'root')!r})\n"
        f"runner.run_report(['00_good', '02_seek'], **{asked!r}, resume=RESUME)"
    )
    first = subprocess.run([sys.executable, "-c", program.replace("RESUME", "False")], capture_output=True, text=True)
    assert first.returncode == (-9 if "kill" in misfortune else 1)
    [begun] = (lab / "out/reports").iterdir()
    written = (begun / "00_good.html").stat().st_mtime_ns
    (lab / "mine" / "found").touch()
    second = subprocess.run([sys.executable, "-c", program.replace("RESUME", "True")], capture_output=True, text=True)
    assert second.returncode == 0, second.stderr
    [ended] = (lab / "out/reports").iterdir()
    assert ended.name == begun.name.removeprefix(".").removesuffix(".part")
    assert (ended / "00_good.html").stat().st_mtime_ns == written
    report = json.loads((ended / "metrics.json").read_text("utf-8"))
    assert {stem: part["error"] for stem, part in report["notebooks"].items()} == {"00_good": None, "02_seek": None}
    [run] = (lab / "out/runs").iterdir()  # the second start went on where the first one was
    assert (run.name, len(list(run.iterdir()))) == (ended.name, 2)
    third = subprocess.run([sys.executable, "-c", program.replace("RESUME", "True")], capture_output=True, text=True)
    assert third.returncode == 0, third.stderr
    assert len(list((lab / "out/reports").iterdir())) == 2, "a report that is complete is not taken up: a new one is"
