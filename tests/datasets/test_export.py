"""Ground truth in another form: the same masks come back, and what a form has no place for is said."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from sa2va_lab.datasets import open_dataset
from sa2va_lab.datasets.drawings import DrawnTruth
from sa2va_lab.datasets.export import export_dataset
from sa2va_lab.datasets.geometry import fill_polygons
from sa2va_lab.datasets.writers import WRITERS
from sa2va_lab.errors import LabError


def dice(one, other):
    return 1.0 if not (one | other).any() else 2 * (one & other).sum() / (one.sum() + other.sum())


def ring(number, side=40):
    down, right = np.ogrid[:side, :side]
    away = np.hypot(down - 20, right - 18 - number)
    return (away < 13.3) & (away > 6.1)


@pytest.fixture
def rings(make_masks):
    """Two images with a ring each, which a second annotator drew thinner; an image with nothing."""
    first = {f"{name}.png": ring(n) * np.uint8(255) for n, name in enumerate("ab")}
    root = make_masks(first | {"c.png": np.zeros((40, 40), np.uint8)}, {"a.png": ring(1) * np.uint8(255)})
    for path in (root / "images").iterdir():
        Image.fromarray(np.full((40, 40), 99, np.uint8)).save(path)
    return open_dataset(root)


@pytest.mark.parametrize("form", ["sa2va", "coco", "labelme", "png", "yolo"])
def test_masks_come_back(rings, tmp_path, form):
    made = export_dataset(rings, tmp_path / "new", format=form)
    again = open_dataset(tmp_path / "new", phrase="blood vessel")
    exact = form in ("coco", "png")
    assert bool(made.loss) != exact
    for sample in rings:
        copy = again[sample.id]
        assert dice(copy.truth(), sample.truth()) >= (1 if exact else 0.999)
        assert copy.group == sample.group
    holes = {change.id for change in made.changes if change.kind == "holes"}
    assert holes == (set() if exact else {sample.id for sample in rings if sample.truth().any()})
    [second] = [sample for sample in rings if 2 in sample.drawings]
    other = again[second.id].truth(annotator=2)
    assert dice(other, second.truth(annotator=2)) >= (0.999 if form == "sa2va" else 1)


def test_yolo_says_what_it_has_no_place_for(rings, tmp_path):
    made = export_dataset(rings, tmp_path / "new", format="yolo")
    assert {change.kind for change in made.changes} == {"holes"}
    assert len(list((tmp_path / "new/masks_obs2").iterdir())) == 1
    for sample in rings:
        lines = (tmp_path / "new/labels" / f"{sample.id}.txt").read_text().splitlines()
        drawn = [np.array(line.split()[1:], float) * 40 for line in lines]
        assert dice(fill_polygons(drawn, (40, 40)), sample.truth()) >= 0.999
        assert (tmp_path / "new/images" / f"{sample.id}.png").is_file()


def drawn(*boxes):
    return [[[left, top, right, top, right, bottom, left, bottom]] for top, left, bottom, right in boxes]


def test_several_phrases_are_values_and_overlaps_are_refused(make_folder, tmp_path):
    apart = {"image": "a.png", "mask": drawn((0, 0, 2, 3), (3, 4, 6, 8)), "text": ["vessel", "catheter"]}
    over = {"image": "b.png", "mask": drawn((0, 0, 3, 3), (1, 1, 4, 4)), "text": ["vessel", "catheter"]}
    root = make_folder(images=("a.png",), annotations=[apart])
    export_dataset(open_dataset(root), tmp_path / "values", format="png")
    for phrase in ("vessel", "catheter"):
        [copy], [sample] = open_dataset(tmp_path / "values", phrase=phrase), open_dataset(root, phrase=phrase)
        assert np.array_equal(copy.truth(), sample.truth())
    export_dataset(open_dataset(root, phrase="catheter"), tmp_path / "one", format="png", phrase="catheter")
    [sample] = open_dataset(root, phrase="catheter")
    [mask] = (tmp_path / "one/masks").iterdir()
    assert np.array_equal(np.asarray(Image.open(mask)), sample.truth() * np.uint8(255))
    both = open_dataset(make_folder(images=("a.png", "b.png"), annotations=[apart, over]))
    with pytest.raises(LabError, match="two phrases share pixels there"):
        export_dataset(both, tmp_path / "refused", format="png")
    assert not (tmp_path / "refused").exists()


def test_what_is_ignored_and_what_is_asked_are_not_lost_in_silence(make_folder, tmp_path, square):
    root = make_folder(images=("a.png",), annotations=[{"image": "a.png", "mask": [[square]], "text": ["vessel"]}])
    dataset = open_dataset(root)
    left = DrawnTruth((np.array([0, 0, 3, 0, 3, 6, 0, 6], float),))
    [sample] = dataset
    sample = dataclasses.replace(sample, ignored=left, prompts={"vessel": "What is dark?"})
    for form in WRITERS:
        made = export_dataset(dataclasses.replace(dataset, samples=[sample]), tmp_path / form, format=form)
        assert {change.kind for change in made.changes} == {"ignored", "prompt"}
        [again] = open_dataset(tmp_path / form, phrase="vessel" if form != "png" else None)
        assert np.array_equal(again.ignore(), sample.ignore())
        assert np.array_equal(again.truth(), sample.truth())


def test_an_unknown_form_is_refused(rings, tmp_path):
    with pytest.raises(LabError, match="the form is 'dicom'; expected one of sa2va, coco, labelme, png, yolo"):
        export_dataset(rings, tmp_path / "new", format="dicom")
