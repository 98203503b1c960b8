import json
import math
import os
import re
import shutil
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from sa2va_lab import open_dataset
from sa2va_lab.datasets.drawings import DrawnTruth
from sa2va_lab.errors import LabError
from sa2va_lab.evaluation.metrics import evaluate_run
from sa2va_lab.evaluation.thresholds import read_threshold
from sa2va_lab.language import use_language
from sa2va_lab.views.tuner import (
    KEPT,
    STRIP,
    Tuner,
    answer_tuner,
    build_widget,
    clean_mask,
    curve_figure,
    strip_figure,
)  # fmt: skip


@pytest.fixture(scope="module")
def dataset(drawn_data):
    return open_dataset(drawn_data, groups=r"p(\d+)_")


@pytest.fixture(scope="module")
def tuner(drawn_run, dataset):
    return Tuner(drawn_run, dataset)


@pytest.fixture
def bare(drawn_run, dataset):
    return Tuner(drawn_run, replace(dataset, samples=[replace(s, drawings={}) for s in dataset.samples]))


def find(widget, description):
    found, todo = [], [widget]
    while todo:
        one = todo.pop()
        found += [one] if getattr(one, "description", None) == description else []
        todo += getattr(one, "children", ())
    [only] = found
    return only


def moved(widget):
    """The picture, the list of images and the slider."""
    return widget.children[1].children[1], find(widget, "Image, Dice at 0.5"), find(widget, "Threshold")


def test_small_pieces_go_and_small_holes_are_filled():
    mask = np.zeros((30, 30), bool)
    mask[2:12, 2:12] = True
    mask[5:7, 5:7] = False  # a hole of 4
    mask[20:23, 20:23] = True  # a piece of 9
    assert clean_mask(mask, min_area=9).sum() == mask.sum()
    assert clean_mask(mask, min_area=10).sum() == mask.sum() - 9
    assert clean_mask(mask, holes=3).sum() == mask.sum()
    assert clean_mask(mask, holes=4).sum() == mask.sum() + 4


def test_numbers_are_those_of_the_evaluation(tuner, drawn_run, dataset):
    for threshold in (0.2, 0.5, 0.8):
        table = evaluate_run(drawn_run, dataset, threshold=threshold).set_index("id")
        for name in tuner.order:
            seen = tuner.look(name, threshold)
            assert seen.mask.sum() == table.loc[name, "mask_area"]
            dice = table.loc[name, "dice"]
            assert f">{'–' if math.isnan(dice) else format(dice, '.3f')}</td>" in seen.numbers


def test_what_is_ignored_is_in_no_number(drawn_run, dataset):
    left = np.array([0, 0, 32, 0, 32, 48, 0, 48], float)
    half = [replace(sample, ignored=DrawnTruth((left,))) for sample in dataset]
    tuner = Tuner(drawn_run, replace(dataset, samples=half))
    name = tuner.order[0]
    seen = tuner.look(name, 0.4, holes=10_000)
    assert not seen.mask[:, :32].any()
    assert re.search("Ignored, px</th><td[^>]*>1,536<", seen.numbers)
    table = evaluate_run(drawn_run, tuner.dataset, threshold=0.4).set_index("id")
    assert f"{table.loc[name, 'dice']:.3f}" in tuner.look(name, 0.4).numbers


def test_worst_is_first(tuner):
    dice = [tuner.dice[name] for name in tuner.order]
    assert dice == sorted(dice)


def test_curve_says_best_half_and_here(tuner):
    svg = tuner.draw_curve(0.25)
    choice = tuner.choice
    assert 'role="img"' in svg
    for said in (f"at {choice.value:.3f} (blue", f"{choice.at_half:.3f} at 0.5", "at 0.250 (orange)"):
        assert said in svg


def test_every_place_of_the_sliders_shows_another_part(tuner):
    for side in ("across", "down"):
        seen = {tuner.look(tuner.order[-1], 0.5, zoom=2, **{side: at}).picture for at in (0, 0.25, 0.5, 0.75, 1)}
        assert len(seen) == 5


def test_zoom_shows_a_part_as_large_as_the_whole(tuner):
    seen = [tuner.look(tuner.order[-1], 0.5, zoom=zoom) for zoom in (1, 4)]
    whole, part = (look.picture + look.beside for look in seen)
    assert whole != part
    assert part.count("<img") == 2
    assert all(re.findall(r'alt="(.+?)"', text) for text in (whole, part))


def test_memory_is_bounded(tuner):
    for name in tuner.order * 3:
        tuner.look(name, 0.5, merge="union")
    assert tuner.open_sample.cache_info().currsize <= KEPT


def test_save_and_read(tuner):
    path = tuner.save(0.37, note="looked at by hand")
    read = read_threshold(path)
    assert (read.value, read.note) == (0.37, "looked at by hand")
    assert read.reason.startswith("set by eye on ")
    assert sorted(read.origin["images"]) == sorted(tuner.counts.hashes)
    assert json.loads(path.read_text("utf-8"))["origin"]["run"] == tuner.run.folder.name
    assert read_threshold(tuner.save(tuner.choice.value)).reason == tuner.choice.reason
    path.unlink()


def test_widget_moves_together(tuner):
    widget = build_widget(tuner)
    slider, number = find(widget, "Threshold"), find(widget, "Threshold, number")
    samples = find(widget, "Image, Dice at 0.5")
    pictures = widget.children[1].children[1]
    samples.value = tuner.order[-1]  # the worst has no [SEG]: no threshold changes it
    slider.value = 0.2
    before = pictures.html
    number.value = 0.9
    assert slider.value == 0.9
    assert pictures.html != before
    find(widget, "Search").value = "p02"
    assert [name for _, name in samples.options] == [n for n in tuner.order if n.startswith("P02")]
    find(widget, "Search").value = "nothing like it"
    assert samples.options == ()
    find(widget, "Search").value = ""
    find(widget, "Save").click()
    assert "threshold.json" in widget.children[0].children[-1].value
    (tuner.run.folder / "threshold.json").unlink()


def test_keys_go_to_the_next_image_and_move_the_threshold(tuner):
    widget = build_widget(tuner)
    pictures, samples, slider = moved(widget)
    samples.value, slider.value = tuner.order[0], 0.5
    at = iter(range(99))

    def press(key, far=False):
        pictures.told = {"key": key, "far": far, "at": next(at)}

    press("Left")  # there is none before the first
    press("Right")
    assert samples.value == tuner.order[1]
    press("Up")
    assert slider.value == pytest.approx(0.505)
    press("Down", far=True)
    assert slider.value == pytest.approx(0.455)
    for _ in range(12):
        press("Down", far=True)
    assert slider.value == 0
    for _ in tuner.order:
        press("Right")
    assert samples.value == tuner.order[-1]


def test_a_view_is_held_beside_the_next(tuner):
    widget = build_widget(tuner)
    pictures, samples, slider = moved(widget)
    samples.value, slider.value = tuner.order[-1], 0.2
    assert "Probability" in pictures.html
    before = tuner.look(tuner.order[-1], 0.2).picture
    find(widget, "Hold for comparison").value = True
    slider.value = 0.8
    assert before in pictures.html
    assert tuner.look(tuner.order[-1], 0.8).picture in pictures.html
    assert f"{tuner.order[-1]}, at 0.200" in pictures.html
    find(widget, "Hold for comparison").value = False
    assert "Probability" in pictures.html


def test_the_strip_has_the_worst_images_and_opens_them(tuner):
    widget = build_widget(tuner)
    strip, samples = widget.children[1].children[-1], find(widget, "Image, Dice at 0.5")
    assert re.findall('data-name="(.+?)"', strip.html) == tuner.order[:STRIP]
    find(widget, "Search").value = "nothing like it"
    strip.told = {"name": tuner.order[2], "at": 1}
    assert samples.value == tuner.order[2]


def test_built_again_it_stands_where_it_was_left(drawn_run, dataset, tmp_path):
    run = replace(drawn_run, folder=shutil.copytree(drawn_run.folder, tmp_path / "run"))
    tuner = Tuner(run, dataset)
    assert find(build_widget(tuner), "Threshold").value == tuner.choice.value
    tuner.save(0.31)
    widget = build_widget(Tuner(replace(run, folder=shutil.copytree(run.folder, tmp_path / "copy")), dataset))
    assert find(widget, "Threshold").value == 0.31, "a new session begins with what was saved"
    find(widget, "Threshold").value = 0.62
    find(widget, "Image, Dice at 0.5").value = tuner.order[3]
    again = build_widget(Tuner(replace(run, folder=tmp_path / "copy"), dataset))
    assert (find(again, "Threshold").value, find(again, "Image, Dice at 0.5").value) == (0.62, tuner.order[3])


def test_without_truth_there_are_pictures_and_no_metrics(bare):
    assert bare.choice is None
    seen = bare.look(bare.order[0], 0.5)
    assert "Dice" not in seen.numbers
    assert "not annotated" in seen.numbers
    assert "There is no curve" in seen.curve
    with pytest.raises(LabError, match="there are none"):
        bare.save(0.5)
    widget = build_widget(bare)
    assert find(widget, "Save").disabled
    assert answer_tuner(bare).metrics.threshold is None
    for figure, alt in (curve_figure(bare), strip_figure(bare)):
        assert figure.axes
        assert alt
        assert not figure.legends, "nothing is right or wrong here"


def test_half_a_run_one_sample_and_none(drawn_run, dataset):
    one = Tuner(replace(drawn_run, records=drawn_run.records[:1]), dataset)
    assert len(one.order) == 1
    assert math.isnan(one.choice.low), "one patient has no interval"
    build_widget(one)
    with pytest.raises(LabError, match="no prediction so far"):
        Tuner(replace(drawn_run, records=[]), dataset)


def test_no_seg_and_an_empty_truth_are_said(tuner):
    seen = tuner.look("P03-V1-F001", 0.2)
    assert not seen.mask.any()
    assert "There is none." in seen.numbers
    assert "ground truth is empty" in tuner.look("P03-V1-F002", 0.2).numbers


def test_a_large_run_opens_with_counts_alone_in_memory(tuner, drawn_run, dataset, tmp_path):
    record, sample = drawn_run.records[0], dataset.samples[0]
    ids = [f"P{number // 25:03}-V1-F{number % 25:03}" for number in range(400)]
    (tmp_path / "logits").mkdir()
    for name in ids:
        os.link(drawn_run.folder / "logits" / f"{record['id']}.npz", tmp_path / "logits" / f"{name}.npz")
    meta = drawn_run.meta | {"dataset": drawn_run.meta["dataset"] | {"samples": ids}}
    run = replace(drawn_run, folder=tmp_path, meta=meta, records=[record | {"id": name} for name in ids])
    many = replace(dataset, samples=[replace(sample, id=name, group=name[:4]) for name in ids])
    tracemalloc.start()
    tuner = Tuner(run, many)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(tuner.order) == len(tuner.counts) == 400
    assert kept / 400 < 10_000, "8,000 bytes of counts an image; its probabilities would be 12,288 more"
    assert peak / 400 < 120_000
    build_widget(tuner)
    for name in tuner.order[:20]:
        tuner.look(name, 0.5)
    assert tuner.open_sample.cache_info().currsize <= 8


def test_images_moved_away(drawn_run, dataset, tmp_path):
    gone = [replace(sample, image=tmp_path / "gone.png") for sample in dataset.samples]
    tuner = Tuner(drawn_run, replace(dataset, samples=gone))
    assert tuner.choice is None
    assert "<img" in tuner.look(tuner.order[0], 0.5).picture
    build_widget(tuner)


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_answer_and_figures(drawn_run, dataset, lang):
    use_language(lang)
    tuner = Tuner(drawn_run, dataset)
    answer = answer_tuner(tuner)
    assert f"{tuner.choice.value:.3f}" in answer.sentence
    assert answer.metrics.threshold.value == tuner.choice.value
    json.dumps(answer.to_dict(), allow_nan=False)
    for figure, alt in (curve_figure(tuner), strip_figure(tuner)):
        assert figure.axes
        assert alt
