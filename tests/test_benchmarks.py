"""The table of all benchmarks: rows become cells, a busy machine is told, and what was written by hand is kept."""

import importlib.util
import json
import re

import pytest


@pytest.fixture(scope="module")
def bench(root):
    spec = importlib.util.spec_from_file_location("bench", root / "benchmarks" / "bench.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_was_written_by_hand_is_kept(bench):
    page = f"# Title\n{bench.BEGIN}\nold\n{bench.END}\n## By hand\n|  x |\n"
    new = bench.replace_table(page, "new")
    assert new == f"# Title\n{bench.BEGIN}\n\nnew\n\n{bench.END}\n## By hand\n|  x |\n"
    assert bench.replace_table(new, "new") == new
    with pytest.raises(SystemExit, match="lacks the marks"):
        bench.replace_table("# Title\n", "new")


def test_the_shipped_page_has_the_marks(bench):
    assert bench.replace_table(bench.RESULTS.read_text("utf-8"), "") != bench.RESULTS.read_text("utf-8")


def test_every_benchmark_of_the_table_gives_rows(bench, root):
    called = re.findall(r'run_benchmark\("(\w+\.py)"', (root / "benchmarks" / "bench.py").read_text("utf-8"))
    assert len(called) >= 5
    for name in called:
        source = (root / "benchmarks" / name).read_text("utf-8")
        assert '"--json"' in source, name
        assert '"rows"' in source, name


def test_a_busy_machine_is_told_row_by_row(bench):
    rows = [{"what": "load", "figure": "1 s"}, {"what": "answer", "figure": "2 s", "plain": "8 s", "ratio": "4"}]
    quiet = {"rows": rows[:1], "others": 0.02}
    stages = {"rows": rows, "others": 0.43, "device": "A processor", "threads": 2}
    table = bench.write_table({"stages": stages, "logs": quiet})
    assert "A processor, " in table
    assert "**Busy machine**: other programs took a part of it (stages 43%)" in table
    assert table.splitlines()[-3:] == [
        "| stages (busy) | load | 1 s |  |  |",
        "| stages (busy) | answer | 2 s | 8 s | 4 |",
        "| logs | load | 1 s |  |  |",
    ]
    assert "Busy" not in bench.write_table({"stages": stages | {"others": 0.0}})


def test_films_are_set_beside_frames_that_are_asked_about(root, tiny_folder, capsys):
    spec = importlib.util.spec_from_file_location("films", root / "benchmarks" / "films.py")
    films = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(films)
    films.main([str(tiny_folder), "--sides", "48", "--frames", "6", "--device", "cpu", "--json"])
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["what"] for row in rows] == [
        "a frame of 48 x 48, followed",
        "a frame of 48 x 48, followed with a full memory",
    ]
    assert all(row["ratio"].endswith("%") for row in rows)


def test_the_stages_of_a_prediction_are_measured(root, tiny_folder, capsys):
    spec = importlib.util.spec_from_file_location("stages", root / "benchmarks" / "stages.py")
    stages = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(stages)
    stages.main([str(tiny_folder), "--repeats", "1", "--device", "cpu", "--json"])
    rows = {row["what"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert float(rows["SAM2 encoder"]["figure"].split()[0]) > 0
    assert "whole first question" in rows["whole second question"]["plain"]
