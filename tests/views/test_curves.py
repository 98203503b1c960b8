import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest

from sa2va_lab.errors import LabError
from sa2va_lab.language import use_language
from sa2va_lab.reports.runner import run_report
from sa2va_lab.training import audit
from sa2va_lab.training.audit import audit_logs, find_logs
from sa2va_lab.views import curves, style

HERE = Path(__file__).resolve()
spec = importlib.util.spec_from_file_location("curves_logs", HERE.parents[1] / "training" / "synthetic.py")
synthetic = importlib.util.module_from_spec(spec)
spec.loader.exec_module(synthetic)

SECOND = {"loss_mask": (4.8402, 0.4839), "loss_dice": (0.9979, 0.3120), "llm_loss": (7.9219, 0.2838)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """first.log of 12,192 iterations with finetune.py; second.log of 3,672; the first as scalars.json."""
    folder = tmp_path_factory.mktemp("logs")
    lines = synthetic.make_lines()
    (folder / "first.log").write_text(synthetic.as_text(lines))
    (folder / "second.log").write_text(synthetic.as_text(synthetic.make_lines(3672, ends=SECOND), 3672))
    (folder / "20251123" / "vis_data").mkdir(parents=True)
    (folder / "20251123" / "vis_data" / "scalars.json").write_text(synthetic.as_scalars(lines))
    values = dict(repeats=10, epochs=1, mask_weight=3.0, dice_weight=1.0)
    (folder / "finetune.py").write_text(synthetic.CONFIG.format(**values))
    return folder


@pytest.fixture(scope="module")
def audits(folder):
    logs = [folder / "first.log", folder / "second.log"]
    return audit_logs(logs, config=folder / "finetune.py", samples=1219)


@pytest.fixture
def measured(tmp_path):
    """A Run folder with the result of an evaluation."""
    dice = {"macro": 0.61, "low": 0.55, "high": 0.67}
    metrics = {"summary": {"n_images": 100, "dice": dice}, "split": "test"}
    (tmp_path / "metrics.json").write_text(json.dumps({"sentence": "", "metrics": metrics}))
    return tmp_path


def _axes(figure):
    return [ax for ax in figure.axes if ax.axison]


def test_answer(audits):
    answer = curves.answer_audits(audits[:1])
    assert answer.sentence == (
        "first.log: the loss fell from 14.2463 to 1.7884 (-87.45 %) in 12,192 iterations; they fit ONE process, not "
        f"the 4 that were meant; findings that need a look: {len(audits[0].alarms)}. "
        "No metric follows from a training loss."
    )
    assert answer.stamp is None
    assert answer.metrics.runs[0]["implied_ranks"] == 1
    with use_language("zh"):
        assert "只与一个进程相符" in curves.answer_audits(audits).sentence


def test_table_of_losses(audits):
    table = curves.loss_table(audits)
    rows = {(row[0], row[1]): row[2:] for row in table.rows}
    assert rows["loss", "first.log"][:3] == ["14.2463", "1.7884", "−87.45"]
    assert rows["loss_mask", "first.log"] == ["5.0226", "1.0294", "−79.50", *rows["loss_mask", "first.log"][3:5],
                                              "1.6742", "0.3431"]  # fmt: skip
    assert rows["llm_loss", "first.log"][-2:] == ["–", "–"]
    assert rows["loss", "second.log"][:2] == ["13.7600", "1.0797"]


def test_text_and_scalars_give_the_same_tables(folder):
    options = dict(config=folder / "finetune.py", samples=1219)
    [text] = audit_logs([folder / "first.log"], **options)
    [scalars] = audit_logs([folder / "20251123" / "vis_data" / "scalars.json"], **options)
    tables = [curves.loss_table([found]).rows for found in (text, scalars)]
    assert tables[0] == tables[1]
    assert curves.finding_table(text).rows == curves.finding_table(scalars).rows
    assert (curves.run_name(text), curves.run_name(scalars)) == ("first.log", "20251123")


def test_findings_that_need_a_look_come_first(audits):
    rows = curves.finding_table(audits[0]).rows
    marks = [row[1] for row in rows]
    assert marks == sorted(marks, reverse=True)
    assert rows[0][:2] == ["Processes", "yes"]
    with use_language("zh"):
        assert curves.finding_table(audits[0]).rows[0][0] == "进程数"


def test_curves_show_what_the_log_has(audits):
    figure, alt = curves.curves_figure(audits[0])
    titles = [ax.get_title(loc="left") for ax in _axes(figure)]
    assert titles == [
        "loss   14.2463 → 1.7884",
        "loss_mask   5.0226 → 1.0294",
        "loss_dice   0.9987 → 0.4997",
        "llm_loss   8.2250 → 0.2593",
        "Parts ÷ their weights",
        "Share of the total",
        "Learning rate",
        "Seconds an iteration",
        "GPU memory, GiB",
    ]
    by_title = dict(zip(titles, _axes(figure), strict=True))
    raw, mean = [line.get_ydata() for line in by_title["loss_mask   5.0226 → 1.0294"].lines]
    assert np.array_equal(raw, audits[0].run.records["loss_mask"])
    assert np.std(np.diff(mean)) < np.std(np.diff(raw))
    assert by_title["llm_loss   8.2250 → 0.2593"].get_yscale() == "log"
    assert by_title["loss_dice   0.9987 → 0.4997"].get_yscale() == "linear"
    bare = {line.get_label(): line.get_ydata() for line in by_title["Parts ÷ their weights"].lines}
    assert bare["loss_mask ÷ 3"][-1] == pytest.approx(1.0294 / 3, rel=0.05)
    assert alt.startswith("Losses of first.log: the total goes from 14.25 to 1.788 over 12,192 iterations; 90 %")
    assert style.to_png(figure).startswith(b"\x89PNG")


def test_restarts_and_spikes_are_marked(tmp_path):
    lines = synthetic.make_lines(1000)
    lines[80]["loss"] = 30.0
    path = tmp_path / "x.log"
    path.write_text(synthetic.as_text(lines[:60], 1000) + synthetic.as_text(lines[50:], 1000))
    figure, _ = curves.curves_figure(audit_logs([path])[0])
    total = figure.axes[0]
    assert "taken up again" in [text.get_text() for text in total.get_legend().get_texts()]
    assert any(list(line.get_xdata()) == [510, 510] for line in total.lines)
    assert any(list(line.get_ydata()) == [30.0] for line in total.lines)


def test_a_log_with_one_loss_only(tmp_path):
    path = tmp_path / "x.log"
    path.write_text("".join(f"Iter(train) [{n}/30]  loss: {1 / n:.4f}\n" for n in range(1, 31)))
    figure, alt = curves.curves_figure(audit_logs([path])[0])
    assert len(_axes(figure)) == 1
    assert "from 1 to 0.0333 over 30" in alt


def test_several_runs_on_one_axis(audits):
    figure, alt = curves.comparison_figure(audits)
    assert [line.get_label() for line in figure.axes[0].lines] == ["first.log", "second.log"]
    assert alt.startswith("Smoothed total losses of 2 runs: first.log 13.9 → 1.78; second.log")


def test_measured_dice_stands_beside_the_loss(audits, measured):
    figure, alt = curves.dice_figure(audits[0], measured)
    left, right = figure.axes
    assert left.lines[0].get_ydata()[-1] == 0.4997
    assert [list(line.get_ydata()) for line in right.lines] == [[0.55, 0.67], [0.61]]
    assert "ends at 0.500" in alt
    assert "Dice as measured on split “test”: 0.610, N = 100. Neither follows from the other." in alt


def test_dice_needs_an_evaluation_a_weight_and_a_dice_loss(audits, measured, tmp_path, folder):
    with pytest.raises(LabError, match="run 03_evaluation on this Run first"):
        curves.dice_figure(audits[0], tmp_path / "absent")
    with pytest.raises(LabError, match="the weight of loss_dice is not known"):
        curves.dice_figure(audit_logs([folder / "first.log"])[0], measured)
    bare = tmp_path / "x.log"
    bare.write_text("Iter(train) [1/2]  loss: 2.0\nIter(train) [2/2]  loss: 1.0\n")
    with pytest.raises(LabError, match="no Dice part"):
        curves.dice_figure(audit_logs([bare])[0], measured)
    empty = {"metrics": {"summary": {"dice": {"macro": None}}, "split": "test"}}
    (measured / "metrics.json").write_text(json.dumps(empty))
    with pytest.raises(LabError, match="holds no Dice"):
        curves.measured_dice(measured)


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_files_to_take_away(audits, tmp_path, lang):
    use_language(lang)
    paths = curves.save_files(audits, tmp_path / "out")
    assert [path.name for path in paths] == [
        "training_curves.png", "training_curves_2.png", "training_comparison.png", "training_summary.md"
    ]  # fmt: skip
    text = paths[-1].read_text("utf-8")
    assert "| loss | first.log | 14.2463 | 1.7884 | −87.45 |" in text
    assert "](training_curves_2.png)" in text
    assert str(tmp_path) not in text
    columns = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert columns == {10, 4}


def test_logs_by_name(folder, tmp_path, monkeypatch):
    both = find_logs(f"{folder / 'first.log'}; {folder / 'second.log'}")
    assert both == [folder / "first.log", folder / "second.log"]
    monkeypatch.setenv("PWD", str(folder))  # where the command was started, though a kernel runs in notebooks/
    assert find_logs("first.log") == [folder / "first.log"]
    assert find_logs("absent.log") == [Path("absent.log")]


@pytest.fixture
def demo(tmp_path, monkeypatch):
    """A checkout whose demo has a log, as the fine-tune writes it, and its config."""
    place = tmp_path / "data" / "demo"
    place.mkdir(parents=True)
    monkeypatch.setattr(audit, "find_root", lambda: tmp_path)
    return place


def test_the_demo_log_is_the_default(demo):
    with pytest.raises(LabError, match="there is no training log of the demo"):
        find_logs("")
    (demo / "finetune.log").write_text(synthetic.as_text(synthetic.make_lines()))
    values = dict(repeats=10, epochs=1, mask_weight=3.0, dice_weight=1.0)
    (demo / "finetune.py").write_text(synthetic.CONFIG.format(**values))
    [log] = find_logs("")
    [found] = audit_logs([log], samples=1219)
    assert found.ranks == found.implied_ranks == 1  # one process was meant
    answer = curves.answer_audits([found])
    assert answer.stamp == "demo model: synthetic data, not medical evidence"
    assert "they fit one process, as meant" in answer.sentence
    figure, _ = curves.curves_figure(found)
    assert figure.get_supxlabel() == answer.stamp


@pytest.mark.slow
def test_notebook_on_the_figures_of_the_real_run(folder, measured, tmp_path, read_page):
    parameters = {"log": f"{folder / 'first.log'};{folder / 'second.log'}", "config": str(folder / "finetune.py")}
    parameters |= {"samples": "1219", "run": str(measured)}
    index = run_report(["02_loss_curves"], parameters=parameters, outputs=tmp_path / "out", name="curves")
    page = read_page(index.with_name("02_loss_curves.html"))
    page.assert_self_contained(index.parent)
    for figure in ("14.2463", "1.7884", "−87.45", "−79.50", "−49.96", "−96.85", "ONE process", "0.610"):
        assert figure in page.text or figure in str(page.images), figure
    starts = [
        "Losses of first.log:",
        "Losses of second.log:",
        "Smoothed total losses of 2 runs:",
        "Left, the Dice part",
    ]
    assert all(image["alt"].startswith(start) for image, start in zip(page.images, starts, strict=True))
    [made] = (tmp_path / "out" / "training").iterdir()
    assert {path.name for path in made.iterdir()} >= {"training_curves.png", "training_summary.md"}
    said = page.text + " ".join(image["alt"] for image in page.images)
    assert not re.search(r"(?i)(expected|estimated) (dice|iou)", said)


@pytest.mark.slow
def test_notebook_without_a_log_says_so(folder, tmp_path):
    with pytest.raises(LabError, match="absent.log, which does not exist"):
        run_report(["02_loss_curves"], parameters={"log": "absent.log"}, outputs=tmp_path, name="none")
