"""YOLO's segmentation in: classes, shares of the sides, folders of splits, and every line accounted for."""

import numpy as np
import pytest

from sa2va_lab.datasets import open_dataset
from sa2va_lab.datasets.audit import audit_dataset
from sa2va_lab.datasets.geometry import fill_polygons
from sa2va_lab.errors import LabError

SQUARE = "0.125 0.16666667 0.5 0.16666667 0.5 0.66666667 0.125 0.66666667"  # 3x3 pixels of 8x6


@pytest.fixture
def label(make_folder):
    def make(labels, names="names: [vessel, catheter]", **how):
        root = make_folder(**how)
        for name, lines in labels.items():
            path = root / "labels" / f"{name}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(lines)
        if names:
            (root / "data.yaml").write_text(names)
        return root

    return make


@pytest.mark.parametrize("names", ["names: [vessel, catheter]", "names:\n  0: vessel\n  1: catheter\n"])
def test_polygons_classes_and_images_without_any(label, names):
    root = label({"a": f"0 {SQUARE}\n1 {SQUARE}\n0 {SQUARE}\n", "b": ""}, names)
    dataset = open_dataset(root)
    assert dataset.format == "yolo"
    assert dataset.reason.startswith('YOLO, 2 label files: phrase "vessel" (the most frequent: 2 of 3 objects)')
    a, b, c = dataset
    assert (a.truth().sum(), b.truth().sum(), c.truth()) == (9, 0, None)
    assert a.truth()[1:4, 1:4].all()
    assert open_dataset(root, phrase="catheter")["P01-V1-F001"].truth().sum() == 9
    found = audit_dataset(dataset).by_kind()
    assert set(found) == {"duplicate_annotation", "unannotated", "image_blank"}
    assert str(dataset.accounts[0]) == "3 annotations: 3 read"


def test_shares_of_six_digits_give_the_pixels_that_were_drawn(label):
    """pycocotools rounds to fifths of a pixel: 0.9 px lies between two of them, and a digit too few would flip it."""
    drawn = np.array([0.9, 0.9, 900.3, 2.7, 700.5, 590.1, 40.9, 310.7])
    shares = " ".join(f"{share:.6f}" for share in (drawn.reshape(-1, 2) / (960, 600)).ravel())
    sample = open_dataset(label({"a": f"0 {shares}"}, size=(960, 600))).samples[0]
    assert (sample.truth() == fill_polygons([drawn], (600, 960))).all()


def test_without_names_all_is_what_is_asked_for(label):
    root = label({"a": f"0 {SQUARE}"}, names=None)
    assert "no data.yaml names the classes" in open_dataset(root).reason
    assert open_dataset(root, phrase="stenosis").samples[0].truth().sum() == 9
    (root / "labels" / "b.txt").write_text(f"3 {SQUARE}")
    assert open_dataset(root).phrases == ["0", "3"]


def test_folders_of_splits(label):
    how = {"images": ["train/a.png", "val/b.png"]}
    dataset = open_dataset(label({"train/a": f"0 {SQUARE}", "val/b": f"0 {SQUARE}"}, **how))
    assert {name: len(ids) for name, ids in dataset.splits.items()} == {"train": 1, "val": 1}
    assert [int(sample.truth().sum()) for sample in dataset] == [9, 9]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("0 0.5 0.5 0.2 0.2", "not_an_area"),
        ("0 0.1 0.1 0.2", "bad_coordinates"),
        ("0", "few_points"),
        ("0 0.1 0.1 0.2 x 0.3 0.3", "bad_coordinates"),
        ("0 1 1 40 1 40 40", "bad_coordinates"),
        ("0 nan 0.1 0.2 0.2 0.3 0.3", "bad_coordinates"),
        (f"7 {SQUARE}", "text_type"),
        (f"vessel {SQUARE}", "text_type"),
    ],
)
def test_a_line_that_is_no_outline_is_a_named_defect(label, line, kind):
    dataset = open_dataset(label({"a": line, "b": f"0 {SQUARE}"}))
    sample = dataset["P01-V1-F001"]
    assert sample.truth() is None
    assert {defect.kind for defect in sample.defects} == {kind, "unknown_truth"}
    assert str(dataset.accounts[0]) == "2 annotations: 1 read, 1 not"


def test_files_and_classes_that_fit_nothing_are_errors_with_a_pair(label):
    with pytest.raises(LabError, match="1 of 1 label files belong to no image: one is called like"):
        open_dataset(label({"x": f"0 {SQUARE}"}))
    with pytest.raises(LabError, match="2 of 3 annotations are of no known class: the classes are such as '0'"):
        open_dataset(label({"a": f"0 {SQUARE}\n5 {SQUARE}\n5 {SQUARE}", "x": "0"}))
    with pytest.raises(LabError, match=r"data\.yaml is not YAML"):
        open_dataset(label({"a": f"0 {SQUARE}"}, names="names: [a"))
