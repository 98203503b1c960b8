import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from sa2va_lab import open_dataset
from sa2va_lab.errors import LabError
from sa2va_lab.evaluation.mistakes import KINDS, sort_mistakes
from sa2va_lab.language import use_language
from sa2va_lab.views import gallery, overlays


@pytest.fixture(scope="module")
def looked_at(drawn_run, drawn_data):
    dataset = open_dataset(drawn_data, groups=r"p(\d+)_")
    return sort_mistakes(drawn_run, dataset), drawn_run, dataset


def test_layers_say_right_and_wrong_by_pattern_and_hue():
    mask, truth = np.zeros((20, 20), bool), np.zeros((20, 20), bool)
    mask[2:8, 2:8] = truth[2:8, 5:11] = True
    layer = overlays.paint_errors(mask, truth, scale=2)
    assert layer.shape == (40, 40)
    assert set(np.unique(layer[4:16, 4:10])) == {overlays.FALSE, overlays.STRIPE}
    assert set(np.unique(layer[4:16, 10:16])) == {overlays.RIGHT}
    assert set(np.unique(layer[4:16, 16:22])) == {overlays.MISSED, overlays.DOT}
    assert layer[2, 2] == overlays.HALO
    assert set(np.unique(overlays.paint_errors(mask, None))) == {overlays.MASK, overlays.HALO, overlays.VEIL}


def test_a_layer_keeps_its_places_as_a_png():
    import base64
    import io

    from PIL import Image

    layer = np.arange(10, dtype=np.uint8).reshape(2, 5)
    head, body = overlays.encode_layer(layer).split(",")
    assert head == "data:image/png;base64"
    colours = np.asarray(Image.open(io.BytesIO(base64.b64decode(body))).convert("RGBA")).reshape(10, 4)
    expected = [(255, 255, 255, 120), (230, 159, 0, 255), (0, 114, 178, 255)]
    assert colours[[0, 3, 5]].tolist() == [list(colour) for colour in expected]


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_page_and_csv(looked_at, tmp_path, read_page, lang):
    use_language(lang)
    table, run, dataset = looked_at
    path = gallery.write_gallery(table, run, dataset, folder=tmp_path / "g")
    text = path.read_text("utf-8")
    page = read_page(path)
    assert all(address.startswith("data:") for address in page.addresses)
    assert "default-src 'none'" in text
    assert text.count('<section class="case"') == 6
    assert all(image["alt"] for image in page.images)
    assert run.meta["stamp"] in page.text
    assert not re.search(r"p0\d_[ab]", text), "no file name of the data set"
    written = pd.read_csv(tmp_path / "g" / "cases.csv")
    assert list(written["id"]) == list(table["id"])
    assert set(KINDS) <= set(written)


def test_no_more_cases_than_asked_and_every_patient_among_them(looked_at, tmp_path):
    table = looked_at[0]
    chosen = gallery.choose_cases(table, most=4)
    assert len(chosen) == 4
    assert list(chosen["dice"]) == sorted(chosen["dice"])
    assert set(gallery.choose_cases(table)["place"]) == {"worst", "median", "best"}
    assert set(gallery.choose_cases(table)["group"]) == {"P01", "P02", "P03"}


def test_many_patients_are_spread_from_worst_to_best():
    rows = range(240)
    table = pd.DataFrame({"id": [f"S{row:03}" for row in rows], "group": [f"P{row // 4:02}" for row in rows]})
    table = table.assign(dice=[row / 240 for row in rows], suspect="", **dict.fromkeys(KINDS, 0.0))
    table.loc[200, "gap"] = 7.0  # the only gap of all is no extreme of its patient
    chosen = gallery.choose_cases(table.sample(frac=1, random_state=0), most=40)
    assert len(chosen) == 40
    assert "S200" in set(chosen["id"])
    count = chosen["group"].value_counts()
    assert {"P00", "P59"} <= set(count.index[count >= 3])
    assert chosen["place"].value_counts().min() >= 12


def test_answer_has_what_the_index_reads(looked_at):
    table, run, _ = looked_at
    answer = gallery.answer_gallery(table, run)
    first = answer.metrics.mistakes[0].model_dump()
    assert {"kind", "title", "images", "share", "help"} <= set(first)
    assert first["title"] in answer.sentence
    assert answer.metrics.cases == table["dice"].notna().sum()
    json.dumps(answer.to_dict(), allow_nan=False)
    nothing = gallery.answer_gallery(table.assign(dice=np.nan, **dict.fromkeys(KINDS, 0.0)), run)
    assert nothing.sentence.startswith("No mistake can be named")


def test_truths_to_look_at_again(looked_at):
    table = looked_at[0]
    rows = {row[0]: row[2] for row in gallery.suspect_table(table).rows}
    assert set(rows) == set(table.loc[table["suspect"] != "", "id"])
    assert "P03-V1-F002" in rows, "its truth is empty and the model sees a vessel"
    assert gallery.suspect_table(table.assign(suspect="")).rows[0][0] == "no annotation looks wrong by these rules"


def test_figures_state_the_finding(looked_at):
    found = list(gallery.kind_figures(*looked_at))
    assert len(found) == 3
    assert all(re.search(r"in P0\d-V1-F00\d: \d+ pixels", alt) for _, _, alt in found)


def test_a_run_half_finished_of_one_image_or_without_truth(looked_at, tmp_path):
    _, run, dataset = looked_at
    for finished in (2, 1):
        part = replace(run, records=run.records[:finished])
        table = sort_mistakes(part, dataset)
        assert table["error"].notna().sum() == 6 - finished
        page = gallery.write_gallery(table, part, dataset, folder=tmp_path / str(finished))
        assert page.read_text("utf-8").count("<section") == finished
    bare = replace(dataset, samples=[replace(sample, drawings={}) for sample in dataset.samples])
    table = sort_mistakes(run, bare)
    assert gallery.answer_gallery(table, run).metrics.mistakes == []
    assert gallery.write_gallery(table, run, bare, folder=tmp_path / "bare").read_text("utf-8").count("<section") == 6
    assert list(gallery.kind_figures(table, run, bare)) == []


def test_images_moved_away(looked_at, tmp_path):
    table, run, dataset = looked_at
    gone = replace(dataset, samples=[replace(sample, image=tmp_path / "p9_name.png") for sample in dataset.samples])
    with pytest.raises(LabError, match="cannot be read") as told:
        sort_mistakes(run, gone)
    assert "p9_name" not in str(told.value)
    with pytest.raises(LabError, match="cannot be read"):  # a truth cannot be laid on an image of unknown size
        gallery.write_gallery(table, run, gone, folder=tmp_path / "gone")
    assert not (tmp_path / "gone").exists(), "nothing half-written"
