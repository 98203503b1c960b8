import math

import pandas as pd
import pytest

from sa2va_lab import open_dataset
from sa2va_lab.errors import LabError
from sa2va_lab.evaluation.honesty import was_seen
from sa2va_lab.evaluation.metrics import evaluate_run, summarise
from sa2va_lab.views import scores


@pytest.fixture(scope="module")
def looked_at(drawn_run, drawn_data):
    dataset = open_dataset(drawn_data, groups=r"p(\d+)_")
    table = evaluate_run(drawn_run, dataset)
    return drawn_run, dataset, table, summarise(table)


def test_run_table_says_what_was_run_and_why(looked_at):
    run, dataset, _, _ = looked_at
    rows = {row[0]: row[1:] for row in scores.run_table(run, dataset).rows}
    assert rows["Model"][0] == "darkness (0.0 M)"
    assert rows["Device"] == ["cpu", "no CUDA device was found"]
    assert rows["Number format"] == ["fp32", "one number needs no less"]
    assert rows["Images"][0] == "6 images of 3 patients; all 6 images"
    assert rows["Prompt"] == ["blood vessel", "the phrase of the data set"]


def test_metric_table_has_interval_and_n(looked_at):
    summary = looked_at[3]
    table = scores.metric_table(summary)
    assert table.columns == [
        "Metric",
        "Mean of images",
        "95 % interval",
        "N images",
        "All pixels pooled",
    ]
    dice = summary["dice"]
    interval = f"{dice['low']:.3f} – {dice['high']:.3f}"
    assert table.rows[0] == ["Dice", f"{dice['macro']:.3f}", interval, str(dice["n"]), f"{dice['pooled']:.3f}"]


def test_image_table_is_worst_first_and_says_why_numbers_are_missing(looked_at):
    rows = scores.image_table(looked_at[2]).rows
    assert len(rows) == 6
    numbers = [row[2] for row in rows]
    assert numbers == sorted(numbers)
    notes = {row[0]: row[-1] for row in rows}
    assert notes["P03-V1-F002"] == "ground truth is empty"
    assert notes["P03-V1-F001"] == "answer names no mask"
    assert notes["P01-V1-F001"] == ""


def test_cases_are_worst_median_and_best(looked_at):
    run, dataset, table, _ = looked_at
    cases = scores.choose_cases(table, run, dataset)
    dice = table.set_index("id")["dice"]
    expected = {"Worst": dice.min(), "Median": dice.sort_values().iloc[3], "Best": dice.max()}
    for (title, image, pair), (rank, value) in zip(cases, expected.items(), strict=True):
        assert title.startswith(f"{rank}: ")
        assert title.endswith(f", Dice {value:.3f}")
        assert image == next(sample.image for sample in dataset if sample.id in title)
        assert pair.truth.shape == pair.probability.shape == (48, 64)


def test_cases_of_few_and_of_none_with_a_dice(looked_at):
    run, dataset, table, _ = looked_at
    attrs = table.attrs
    one = table[table["id"] == "P01-V1-F001"].copy()
    one.attrs = attrs
    assert len(scores.choose_cases(one, run, dataset)) == 1
    bare = table.assign(dice=math.nan)
    bare.attrs = attrs
    titles = [title for title, _, _ in scores.choose_cases(bare, run, dataset)]
    assert [title.partition(",")[0] for title in titles] == list(table["id"][:3])


def test_spread_names_the_extremes(looked_at):
    _, _, table, summary = looked_at
    figure, alt = scores.spread_figure(table, summary, stamp="a notice")
    means = table.groupby("group")["dice"].mean()
    assert f"lowest mean is {means.idxmin()} ({means.min():.3f})" in alt
    [axes] = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == list(means.sort_values().index)
    with pytest.raises(LabError, match="nothing to draw"):
        scores.spread_figure(table.assign(dice=math.nan), summary)


def test_provenance_is_enough_to_repeat(looked_at):
    run = looked_at[0]
    rows = dict(scores.provenance_table(run).rows)
    assert rows["weights sha256"] == "0" * 64
    assert rows["data manifest sha256"] == run.meta["dataset"]["manifest_sha256"]
    assert {"python", "torch", "numpy", "code"} <= set(rows)


@pytest.mark.parametrize(
    ("train", "stamp", "seen"),
    [
        ([], None, "unknown"),
        (["P09-V1-F001"], None, "no"),
        (["P01-V1-F002", "P09-V1-F001"], None, "yes"),
        (["P01-V1-F002"], "demo", "foreign"),
    ],
)
def test_whether_images_were_in_training(looked_at, train, stamp, seen):
    from dataclasses import replace

    run, dataset, _, _ = looked_at
    run = replace(run, meta=run.meta | {"stamp": stamp})
    dataset = replace(dataset, splits={"train": train} if train else {})
    assert was_seen(run, dataset)[0] == seen


def test_tables_of_failures():
    row = {"id": "P01-V1-F001", "group": "P01", "error": "it broke", "n_seg": math.nan, "seconds": math.nan}
    row |= dict.fromkeys(("dice", "iou", "precision", "recall", "truth_area", "mask_area"), math.nan)
    [only] = scores.image_table(pd.DataFrame([row])).rows
    assert only == ["P01-V1-F001", "P01", *"–" * 7, "it broke"]
