import json
import math

import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from sa2va_lab.reports.answers import MIME, Answer, find_answer, plain


def test_plain_json_values():
    given = {"a": np.float32(0.5), "b": math.nan, "c": (np.int64(2), math.inf), "d": np.bool_(True), 3: None}
    assert plain(given) == {"a": 0.5, "b": None, "c": [2, None], "d": True, "3": None}


def test_an_answer_is_shown_saved_and_found_again(tmp_path):
    answer = Answer("Dice < 1.", {"dice": math.nan, "n": 3}, stamp="a notice").save(tmp_path)
    written = json.loads((tmp_path / "metrics.json").read_text("utf-8"))
    assert written == {"sentence": "Dice < 1.", "stamp": "a notice", "metrics": {"dice": None, "n": 3}}
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]
    data = answer._repr_mimebundle_()
    assert data["text/plain"] == "Dice < 1."
    assert "Dice &lt; 1." in data["text/html"]
    notebook = new_notebook(cells=[new_code_cell("x", outputs=[new_output("execute_result", data=data)])])
    assert find_answer(notebook) == data[MIME] == written


def test_a_folder_that_cannot_be_written_costs_a_warning(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="was not written to .*file .Not a directory."):
        answer = Answer("One.", {}).save(tmp_path / "file")
    assert answer.sentence == "One."


def test_no_answer_is_none():
    assert find_answer(new_notebook(cells=[new_code_cell("x")])) is None
