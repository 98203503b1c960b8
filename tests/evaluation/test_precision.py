"""Every plan in a process of its own: the plumbing without a network, and the notebook for real."""

import json
import subprocess
import sys

import pytest

from sa2va_lab.evaluation import precision
from sa2va_lab.evaluation.precision import look
from sa2va_lab.reports.runner import run_report
from sa2va_lab.views import plans


def row(kind, peak, seconds, dice):
    return {
        "precision": kind,
        "device": "cpu",
        "forecast_bytes": 10 << 20,
        "ran": True,
        "reason": "",
        "forecast_mapped_bytes": 0,
        "own_bytes": peak << 20,
        "load_seconds": 1.0,
        "seconds": seconds,
        "stages": dict.fromkeys(precision.STAGES, seconds / 5),
        **{"dice": dice, "low": dice - 0.1, "high": dice + 0.1, "agreement": 0.9, "difference": 0.1},
        **{"n_images": 4, "n_groups": 2},
    }


@pytest.fixture
def measured():
    rows = [row("fp32", 40, 2.0, 0.8), row("bf16", 20, 3.0, 0.7), row("int8", 30, 4.0, 0.6)]
    rows.append({"precision": "nf4", "device": "cuda:0", "forecast_bytes": 5 << 30, "ran": False, "reason": "no card"})
    rung = {"precision": "bf16", "fits": True, "lacking": -7 << 30, "layers": {"cuda:0": 32}, "notes": []}
    rung |= {"devices": [{"name": "cuda:0", "needed": 17 << 30, "budget": 24 << 30}]}
    released = {"name": "Sa2VA-8B", "card": 24 << 30, "tiles": 5, "rungs": [rung]}
    return {"plan": {"rungs": [], "chosen": 0}, "precisions": rows, "reference": "fp32", "released": released}


def test_the_front_leaves_out_what_is_larger_and_slower(measured):
    _, alt = plans.pareto_figure(measured)
    assert alt.endswith("than fp32, cpu; bf16, cpu.")
    assert "int8, cpu 30.0 MiB, 4.00 s, 0.600" in alt


def test_the_answer_names_least_and_fastest(measured):
    said = plans.answer_plans(measured).sentence
    lead, _, said = said.partition("). ")
    assert lead == "Sa2VA-8B fits a card of 24 GiB in bf16, 7.00 GiB to spare (tiles: 5"
    assert said.startswith("3 of 4 plans ran here, on 4 images of 2 patients. Least memory of its own: bf16 (20.0 MiB")
    assert "Fastest: fp32 (2.00 s" in said
    assert "between 0.600 and 0.800" in said


def test_what_did_not_run_stands_in_the_table_with_its_reason(measured):
    rows = plans.memory_table(measured).rows
    assert [line[0] for line in rows] == ["fp32, cpu", "bf16, cpu", "int8, cpu", "nf4, cuda:0"]
    assert rows[3][1:] == ["5.00 GiB", *["–"] * 4, "no card"]
    assert rows[1][1:4] == ["10.0 MiB", "20.0 MiB", "2.00"]
    assert [line[:3] for line in plans.change_table(measured).rows][1] == ["bf16, cpu", "1.00", "3.00"]


def test_whether_the_released_model_fits_is_said_first(measured):
    rung = measured["released"]["rungs"][0]
    assert plans.rungs_table(measured["released"]).rows == [["bf16", "cuda:0", "17.00 GiB", "24.00 GiB", "+7.00", "–"]]
    rung["layers"] = {"cuda:0": 8, "files": 24}
    assert "only with layers left in the files (tiles: 5)." in plans.answer_plans(measured).sentence
    rung["fits"] = False
    assert plans.answer_plans(measured).sentence.startswith("Sa2VA-8B does not fit a card of 24 GiB at any")


def test_a_card_is_measured_as_a_whole_and_cpu_plans_run_there_only_if_asked(
    tiny_folder, drawn_data, tmp_path, monkeypatch
):
    """On a machine that claims a card of 4 GiB; the child's numbers are invented."""
    budgets = {"cuda:0": 4 << 30, "cpu": 8 << 30}
    monkeypatch.setattr("sa2va_lab.loading.devices.find_budgets", lambda: budgets)
    told = {"peak_bytes": 5, "reserved_bytes": 7, "outside_bytes": None, "own_bytes": 7}
    monkeypatch.setattr(
        precision, "_run_child", lambda task: (dict(told), "") if task["device"] != "cpu" else (None, "no")
    )
    monkeypatch.setattr(precision, "open_run", lambda folder: None)
    monkeypatch.setattr(precision, "_score", lambda *_: {})
    data = {"path": str(drawn_data), "phrase": "", "groups": "", "split": "all"}
    found = precision.measure_plans(tiny_folder, data, folder=tmp_path, limit=1, released="Sa2VA-1B")
    first, *rest = found["precisions"]
    assert (first["device"], first["ran"], first["own_bytes"]) == ("cuda:0", True, 7 + (695 << 20))
    assert first["reason"].endswith("so that is forecast")
    assert {row["reason"].partition(":")[2][1:11] for row in rest if row["device"].startswith("cpu")} == {"where ther"}
    assert (found["released"]["name"], found["released"]["card"]) == ("Sa2VA-1B", 4 << 30)
    asked = precision.measure_plans(
        tiny_folder, data, folder=tmp_path, limit=1, cpu=True, gpu="2GiB", released="Sa2VA-1B"
    )
    assert {row["reason"] for row in asked["precisions"] if row["device"] == "cpu"} == {"did not run: no"}
    assert asked["released"]["card"] == 2 << 30


def test_nothing_ran(measured):
    measured["precisions"] = measured["precisions"][3:]
    assert plans.answer_plans(measured).sentence.endswith("(tiles: 5). None of 1 plans ran here: no card")
    assert "nothing to draw" in plans.pareto_figure(measured)[1]


WATCHED = """
import json
from sa2va_lab.evaluation.precision import Watch
watch = Watch()
watch.start()
held = bytearray(b"x") * (64 << 20)
watch.note()
del held
print(json.dumps(watch.stop()))
"""


def test_memory_that_was_taken_and_given_back_is_seen():
    """In a process of its own: one that has freed memory before takes from what it still holds."""
    if not sum(look()):
        pytest.skip("this system has no /proc/self/status")
    done = subprocess.run([sys.executable, "-c", WATCHED], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert 60 << 20 < found["anonymous_bytes"] < 90 << 20
    assert found["peak_bytes"] >= 60 << 20


@pytest.mark.slow
def test_a_plan_that_fails_says_why(tmp_path, tiny_folder):
    task = {"model": str(tmp_path), "folder": str(tmp_path / "run"), "limit": 1, "precision": "fp32", "device": "cpu"}
    data = {"path": str(tmp_path / "none"), "phrase": "", "groups": "", "split": "all"}
    measured, reason = precision._run_child(task | {"data": data, "tuning": {}})
    assert measured is None
    assert "none" in reason


@pytest.mark.slow
def test_the_notebook_measures_every_plan_of_the_demo(tmp_path, read_page):
    index = run_report(["06_precision_vram"], parameters={"limit": 2}, outputs=tmp_path, name="demo")
    answer = json.loads((index.parent / "metrics.json").read_text("utf-8"))["notebooks"]["06_precision_vram"]["answer"]
    rows = answer["metrics"]["precisions"]
    ran = [line for line in rows if line["ran"]]
    assert {"fp32", "bf16", "int8"} <= {line["precision"] for line in ran if line["device"] == "cpu"}
    assert (ran[0]["agreement"], ran[0]["difference"]) == (1.0, 0.0)
    assert all(line["agreement"] > 0.8 and 0 < line["difference"] < 0.5 for line in ran[1:3])
    assert all(0.75 < line["own_bytes"] / line["forecast_bytes"] < 1.3 and line["load_seconds"] > 0 for line in ran)
    assert all(line["reason"] for line in rows if not line["ran"])
    page = read_page(index.with_name("06_precision_vram.html"))
    page.assert_self_contained(index.parent)
    assert [image["alt"].split(":")[0] for image in page.images] == [
        "GiB that one card needs, from the smallest to the largest image",
        "Seconds an image and mean Dice against measured memory",
    ]
    assert answer["sentence"].startswith("Sa2VA-8B fits a card of")
    assert len(answer["metrics"]["releases"]) == 99
    assert "What does a smaller number format cost?" in read_page(index).text
