"""The form over a notebook's parameters: what is set holds, what does not fit is said and does not hold."""

import nbformat
import pytest

from sa2va_lab.views.forms import show_form


@pytest.fixture
def namespace(root):
    cells = nbformat.read(root / "notebooks" / "03_evaluation.ipynb", as_version=4).cells
    source = next(cell.source for cell in cells if "parameters" in cell.metadata.get("tags", ()))
    names = {}
    exec(compile(source, "parameters", "exec"), names)
    return names | {
        "In": ["", "%matplotlib inline", source + "\n\nlimit = 4  # a line more", "limit = 3", "x: int = 3"],
        "limit": 3,
    }  # 3: injected


def rows_of(form):
    said, *rows = form.children[0].children
    return said, {row.children[0].description: row for row in rows}


def test_every_parameter_has_a_control_with_its_value_and_words(namespace):
    _, rows = rows_of(show_form(namespace))
    assert set(rows) == {name for name in namespace["__annotations__"]}
    assert rows["limit"].children[0].value == 3
    assert rows["limit"].children[1].value == "so many images at most; 0 is no limit"


def test_what_is_set_holds_for_the_cells_below(namespace, tmp_path):
    said, rows = rows_of(show_form(namespace))
    rows["limit"].children[0].value = 7
    rows["data"].children[0].value = str(tmp_path)
    assert (namespace["limit"], namespace["data"]) == (7, str(tmp_path))
    assert f"data = {str(tmp_path)!r}" in said.value.replace("&#x27;", "'")
    rows["data"].children[0].value = str(tmp_path / "nowhere")
    assert namespace["data"] == str(tmp_path)
    assert "does not exist" in said.value
    assert "role='alert'" in said.value


def test_it_speaks_the_language_that_was_chosen_in_it(namespace):
    said, rows = rows_of(show_form(namespace))
    rows["lang"].children[0].value = "zh"
    rows["data"].children[0].value = "nowhere"
    assert "不存在" in said.value
    assert rows_of(show_form(namespace))[1]["limit"].children[1].value == "最多的图像数；0 为不限"


@pytest.mark.parametrize("how", ["voila", "no notebook", "on paper"])
def test_there_is_none_where_nobody_could_use_it(how, namespace, monkeypatch):
    if how == "voila":
        monkeypatch.setenv("SERVER_SOFTWARE", "voila/0.5.8")
    elif how == "on paper":
        namespace["In"].append("# Parameters\nlimit = 3\n")  # as papermill writes it
    else:
        del namespace["In"]
    assert show_form(namespace) is None
