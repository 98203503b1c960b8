"""Widths, ceilings and outlines: hand-made vessels with known answers, and the real set there and back."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from sa2va_lab.cli import app
from sa2va_lab.datasets import open_dataset
from sa2va_lab.datasets.ceilings import go_through_grid, rasteriser_ceilings, resolution_ceilings
from sa2va_lab.datasets.export import export_dataset
from sa2va_lab.datasets.geometry import (
    CLASSES,
    OTHERS,
    classify_pixels,
    count_holes,
    count_twice,
    covers_nothing,
    crosses_itself,
    fill_otherwise,
    fill_polygons,
    measure_widths,
    reach_outside,
    trace_mask,
)
from sa2va_lab.errors import LabError


def band(width, size=(64, 64), top=20):
    mask = np.zeros(size, bool)
    mask[top : top + width] = True
    return mask


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.mark.parametrize("width", [1, 2, 3, 4, 6, 9, 16])
def test_the_width_of_a_band_is_right_to_half_a_pixel(width):
    measured = measure_widths(band(width))
    assert abs(np.median(measured) - width) <= 0.5
    classes = classify_pixels(band(width))[:, 20:44]  # the centre line forks where the band ends
    assert set(np.unique(classes)) == {min(int(np.searchsorted([2, 4, 8, 16], np.median(measured))), 4)}


def test_nothing_has_no_width():
    assert len(measure_widths(np.zeros((8, 8), bool))) == 0
    assert (classify_pixels(np.zeros((8, 8), bool)) == -1).all()


def test_what_other_rasterisers_make_of_a_band_of_two_pixels():
    polygon = np.array([10.0, 20, 50, 20, 50, 22, 10, 22])
    masks = {name: fill_otherwise([polygon], (64, 64), by=name) for name in OTHERS}
    masks["pycocotools"] = fill_polygons([polygon], (64, 64))
    assert masks["pycocotools"].sum() == masks["skimage, shifted"].sum() == 80
    assert (masks["pycocotools"] == masks["skimage, shifted"]).all()
    assert masks["like cv2.fillPoly"].sum() == 3 * 41  # both borders included: rows 20 to 22, columns 10 to 50
    assert dice(masks["pycocotools"], masks["like cv2.fillPoly"]) < 0.8


def test_ceilings_by_width(make_folder):
    thin = [10, 20, 50, 20, 50, 22, 10, 22]
    thick = [10, 40, 50, 40, 50, 60, 10, 60]
    root = make_folder(
        annotations=[{"image": "a.png", "mask": [[thin], [thick]], "text": ["vessel"] * 2}], size=(64, 64)
    )
    found = {ceiling.name: ceiling for ceiling in rasteriser_ceilings(open_dataset(root))}
    assert set(found) == set(OTHERS)
    assert found["skimage, shifted"].dice == 1.0
    like = found["like cv2.fillPoly"]
    assert like.n == 1
    assert like.by_width["≤ 2 px"][0] < 0.8 < like.by_width["> 16 px"][0]
    assert [label for label in CLASSES if label in like.by_width] == list(like.by_width)
    truth = open_dataset(root)["P01-V1-F001"].truth()
    assert sum(pixels for _, pixels in like.by_width.values()) == truth.sum()


def test_the_audit_shows_them_when_asked(make_folder):
    band = [10, 20, 50, 20, 50, 22, 10, 22]
    root = make_folder(annotations=[{"image": "a.png", "mask": [[band]], "text": ["vessel"]}], size=(64, 64))
    said = CliRunner().invoke(app, ["audit", str(root), "--ceilings", "--json"]).stdout
    found = {ceiling["name"]: ceiling["dice"] for ceiling in json.loads(said)["ceilings"]}
    assert found["skimage, shifted"] == 1.0
    assert found["like cv2.fillPoly"] < 0.8
    said = CliRunner().invoke(app, ["audit", str(root), "--ceilings"]).stdout
    assert f"{found['like cv2.fillPoly']:.3f}" in next(line for line in said.splitlines() if "fillPoly" in line)


def test_a_grid_as_fine_as_the_picture_loses_nothing_and_a_coarse_one_much():
    random = np.random.default_rng(0)
    truth = random.random((64, 64)) > 0.7
    assert (go_through_grid(truth, grid=64, canvas=64) == truth).all()
    lines = np.zeros((64, 64), bool)
    lines[::5] = True
    plain, searched = (dice(go_through_grid(lines, grid=16, canvas=64, steps=n), lines) for n in (0, 6))
    assert plain < 0.8
    assert searched >= plain


def test_resolution_ceilings(drawn_data):
    averaged, searched = resolution_ceilings(open_dataset(drawn_data), grid=16, canvas=64)
    assert (averaged.name, searched.name) == ("averaged", "searched")
    assert averaged.n == 5  # one truth of six is empty
    assert 0.5 < averaged.dice <= searched.dice <= 1
    assert averaged.lowest <= averaged.dice
    assert rasteriser_ceilings(open_dataset(drawn_data)) == []  # mask files: nobody rasterises them


def ring():
    mask = np.zeros((20, 24), bool)
    mask[3:15, 4:18] = True
    mask[6:10, 8:12] = False
    mask[11, 15] = False
    return mask


def test_a_mask_with_holes_becomes_touching_outlines_without_any():
    polygons = trace_mask(ring())
    assert count_holes(ring()) == 2
    assert len(polygons) > 1
    assert (fill_polygons(polygons, ring().shape) == ring()).all()
    for polygon in polygons:
        assert count_holes(fill_polygons([polygon], ring().shape)) == 0
    assert trace_mask(np.zeros((5, 5), bool)) == []


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.95), st.integers(1, 30), st.integers(1, 30))
def test_any_mask_comes_back_from_its_outlines(seed, share, height, width):
    mask = np.random.default_rng(seed).random((height, width)) < share
    polygons = trace_mask(mask)
    assert (fill_polygons(polygons, mask.shape) == mask).all()
    assert count_twice(polygons, mask.shape) == 0


@pytest.mark.slow
def test_the_real_set_there_and_back(chasedb1, tmp_path):
    dataset = open_dataset(chasedb1)
    assert len(dataset) == 8
    changes = export_dataset(dataset, tmp_path / "sa2va").changes
    assert {change.kind for change in changes} == {"holes"}
    assert len(changes) == sum(count_holes(sample.truth()) > 0 for sample in dataset) == 8
    export_dataset(dataset, tmp_path / "coco", format="coco")
    outlines, runs = open_dataset(tmp_path / "sa2va"), open_dataset(tmp_path / "coco")
    for sample in dataset:
        assert dice(outlines[sample.id].truth(), sample.truth()) > 0.998
        assert dice(outlines[sample.id].truth(annotator=2), sample.truth(annotator=2)) > 0.998
        assert (runs[sample.id].truth() == sample.truth()).all()
        assert (runs[sample.id].truth(annotator=2) == sample.truth(annotator=2)).all()
        assert outlines[sample.id].group == sample.group


def test_the_demo_comes_back_the_same_from_both_formats(root, tmp_path):
    dataset = open_dataset(root / "data" / "demo" / "angiograms")
    part = dataset.select([sample.id for sample in dataset.samples[::9]])
    for format in ("sa2va", "coco"):
        assert export_dataset(part, tmp_path / format, format=format).changes == []
        for phrase in ("blood vessel", "catheter"):
            copy = open_dataset(tmp_path / format, phrase=phrase)
            for sample in open_dataset(root / "data" / "demo" / "angiograms", phrase=phrase).select(s.id for s in part):
                assert (copy[sample.id].truth() == sample.truth()).all()
                second = copy[sample.id].truth(annotator=2)
                assert (second is None) == (sample.truth(annotator=2) is None)
                assert second is None or (second == sample.truth(annotator=2)).all()
        assert sum(2 in sample.drawings for sample in open_dataset(tmp_path / format)) == 2
        for name, ids in open_dataset(tmp_path / format).splits.items():
            assert set(ids) == {s.id for s in part} & set(dataset.splits[name])


def test_label_images_keep_their_phrases(make_masks, tmp_path):
    labels = np.zeros((6, 8), np.uint8)
    labels[1:4, 1:4], labels[0:3, 5:8] = 1, 2
    root = make_masks({"a.png": labels})
    with pytest.raises(LabError, match=r"P01-V1-F001: its mask holds 2 values .* labels.json"):
        open_dataset(root)["P01-V1-F001"].truth()
    for table in ('{"vessel": 1, "catheter": 2}', '{"1": "vessel", "2": "catheter"}'):
        (root / "labels.json").write_text(table)
        assert open_dataset(root)["P01-V1-F001"].truth().sum() == 9
        assert open_dataset(root, phrase="catheter")["P01-V1-F001"].truth()[0:3, 5:8].all()
    export_dataset(open_dataset(root), tmp_path / "copy")
    for phrase in ("vessel", "catheter"):
        copy, original = open_dataset(tmp_path / "copy", phrase=phrase), open_dataset(root, phrase=phrase)
        assert (copy["P01-V1-F001"].truth() == original["P01-V1-F001"].truth()).all()
    for table in ("[]", "{}", '{"vessel": 0}', '{"vessel": 1, "catheter": 1}', '{"vessel": "1x"}'):
        (root / "labels.json").write_text(table)
        with pytest.raises(LabError, match=r"labels.json"):
            open_dataset(root)
    (root / "labels.json").write_text('{"vessel": 1}')
    with pytest.raises(LabError, match='no object is called "stent"'):
        open_dataset(root, phrase="stent")


def test_what_is_odd_about_an_outline():
    square = np.array([1.0, 1, 9, 1, 9, 9, 1, 9])
    bow = np.array([1.0, 1, 9, 9, 9, 1, 1, 9])
    assert not crosses_itself(square)
    assert crosses_itself(bow)
    star = np.array(
        [v for k in range(5) for v in (50 + 40 * np.sin(4 * np.pi * k / 5), 50 - 40 * np.cos(4 * np.pi * k / 5))]
    )
    assert crosses_itself(star)
    assert not crosses_itself(np.array([0.0, 0, 4, 0, 4, 4, 2, 0, 0, 4]))  # touches its own side with a corner
    assert reach_outside(square, (10, 10)) == 0
    assert reach_outside(square - 3, (10, 10)) == 2
    assert reach_outside(square, (10, 7)) == 2
    assert covers_nothing(np.array([1.0, 1, 5, 1, 3, 1]))
    assert covers_nothing(np.array([0.1, 0.1, 0.2, 0.1, 0.2, 0.2]))
    assert not covers_nothing(square)
    assert count_twice([square, square + 4], (20, 20)) == 16
    assert count_twice([square, square + np.tile([8, 0], 4)], (20, 20)) == 0  # they touch
