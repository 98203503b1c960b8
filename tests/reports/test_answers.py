import json
import math

import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from sa2va_lab.files import plain
from sa2va_lab.reports.answers import MIME, Answer, Evaluated, Metrics, find_answer, read_metrics, say_size


def test_plain_json_values():
    given = {"a": np.float32(0.5), "b": math.nan, "c": (np.int64(2), math.inf), "d": np.bool_(True), 3: None}
    assert plain(given) == {"a": 0.5, "b": None, "c": [2, None], "d": True, "3": None}


def test_an_answer_is_shown_saved_and_found_again(tmp_path):
    answer = Answer("Dice < 1.", Metrics(dice=math.nan, n=3), stamp="a notice").save(tmp_path)
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
        answer = Answer("One.", Metrics()).save(tmp_path / "file")
    assert answer.sentence == "One."


def test_no_answer_is_none():
    assert find_answer(new_notebook(cells=[new_code_cell("x")])) is None


def test_what_is_written_has_the_keys_that_were_given_and_no_default(tmp_path):
    given = {"summary": {"dice": {"macro": math.nan, "n": 0}, "iou": {"macro": 0.1}}, "run": "x"}
    assert Answer("One.", Evaluated(**given)).to_dict()["metrics"] == plain(given)


def test_a_number_of_another_type_is_refused_when_written_and_left_out_when_read():
    with pytest.raises(ValueError, match="threshold"):
        Evaluated(threshold=0.5)
    report = {"notebooks": {"03_evaluation": {"answer": {"metrics": {"threshold": 0.5, "seen": "no", "beside": [1]}}}}}
    said = read_metrics(report)
    assert (said.evaluated.threshold, said.evaluated.seen, said.evaluated.beside) == (None, "no", {})
    assert said.trained.alarms == []


@pytest.mark.parametrize(
    ("count", "said"),
    [(None, "–"), (0, "–"), (10_160, "9.9 KiB"), (1 << 20, "1.0 MiB"), (16_365_212_516, "15.24 GiB")],
)
def test_sizes_are_said_in_the_unit_that_shows_them(count, said):
    assert say_size(count) == said
