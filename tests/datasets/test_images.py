"""Images that nobody annotated as a data set, and every phrase of a data set that was opened once."""

import os

import numpy as np
import pytest

from sa2va_lab.datasets import open_dataset
from sa2va_lab.errors import LabError

OTHER = [5, 0, 8, 0, 8, 3, 5, 3]


def test_a_folder_of_images_is_a_data_set_without_truths(make_folder):
    root = make_folder(images=("a.png", "b.png"))
    dataset = open_dataset(root)
    assert (dataset.format, dataset.phrase, dataset.phrases) == ("images", None, [])
    assert "images without annotations" in dataset.reason
    assert [(sample.id, sample.truth(), sample.defects) for sample in dataset] == [
        ("P01-V1-F001", None, ()),
        ("P02-V1-F001", None, ()),
    ]
    assert [sample.phrase for sample in open_dataset(root, phrase="vessel")] == ["vessel", "vessel"]
    assert open_dataset(root).manifest_sha256 != open_dataset(root, phrase="vessel").manifest_sha256


def test_image_files_have_the_ids_of_their_folder_in_the_order_given(make_folder, square):
    root = make_folder(annotations=[{"image": "a.png", "mask": [[square]], "text": ["vessel"]}])
    ids = {sample.image.name: sample.id for sample in open_dataset(root)}
    given = [root / "images" / name for name in ("c.png", "a.png", "c.png")]
    dataset = open_dataset(given)
    assert [sample.id for sample in dataset] == [ids["c.png"], ids["a.png"]]
    assert dataset.format == "images"
    assert [sample.truth() for sample in dataset] == [None, None]
    (single,) = open_dataset(given[1])
    assert single.id == ids["a.png"]
    assert len(open_dataset([root])) == 3  # a list of one data set is that data set
    assert len(open_dataset([root / "annotations.json"])) == 3


def test_image_files_that_are_not_there_are_called_by_their_place(make_folder, tmp_path):
    root = make_folder(images=("a.png",))
    dataset = open_dataset([root / "images" / "a.png", root / "images" / "gone.png", tmp_path / "nowhere" / "x.png"])
    assert [sample.id for sample in dataset] == ["P01-V1-F001", "image-2", "image-3"]
    assert dataset["image-2"].problems == ("its image file is missing",)
    with pytest.raises(LabError, match="no image was given"):
        open_dataset([])


def test_image_files_of_two_folders_with_the_same_id_are_refused(make_folder, tmp_path):
    root = make_folder(images=("a.png",))
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "b.png").write_bytes((root / "images" / "a.png").read_bytes())
    with pytest.raises(LabError, match="two folders have the same id"):
        open_dataset([root / "images" / "a.png", tmp_path / "more" / "b.png"])


def test_pipes_are_no_images(make_folder, square):
    root = make_folder(annotations=[{"image": "a.png", "mask": [[square]], "text": ["vessel"]}])
    for name in ("images/pipe.png", "images/pipe.json", "pipe.tif"):
        os.mkfifo(root / name)
    assert len(open_dataset(root)) == 3
    make_folder(annotations=[{"image": "images/pipe.png", "mask": [[square]], "text": ["vessel"]}])
    with pytest.raises(LabError, match="another thing than a file"):
        open_dataset(root)
    (root / "annotations.json").unlink()
    assert open_dataset(root).format == "images"
    (sample,) = open_dataset([root / "images" / "pipe.png"])
    with pytest.raises(LabError, match="no regular file"):
        sample.image_size()
    assert sample.image_sha256() is None


def test_every_phrase_of_a_data_set_that_was_opened_once(make_folder, square):
    entries = [
        {"image": "a.png", "mask": [[square], [OTHER]], "text": ["vessel", "catheter"]},
        {"image": "b.png", "mask": [[square], [[1, 1]]], "text": ["vessel", "catheter"]},
    ]
    root = make_folder(
        annotations=entries, annotations_obs2=[{"image": "a.png", "mask": [[OTHER]], "text": ["vessel"]}]
    )
    dataset = open_dataset(root)
    assert (dataset.phrase, dataset.phrases) == ("catheter", ["catheter", "vessel"])  # as frequent: the first by name
    a, b, c = dataset.about("vessel")
    assert (a.truth().sum(), a.truth("catheter").sum(), a.truth(annotator=2).sum()) == (9, 9, 9)
    assert not (a.truth() & a.truth("catheter")).any()
    assert c.truth("catheter") is None
    assert (b.truth().sum(), b.truth("catheter")) == (9, None)  # something was drawn, and nothing of it is usable
    assert "unknown" not in " ".join(b.problems)
    assert "the truth is unknown" in " ".join(dataset[b.id].problems)
    other, opened = dataset.about("vessel"), open_dataset(root, phrase="vessel")
    assert other.reason == opened.reason
    assert (other.manifest_sha256, other.truth_sha256) == (opened.manifest_sha256, opened.truth_sha256)
    with pytest.raises(LabError, match='no object is called "stent"'):
        dataset.about("stent")


def test_every_phrase_of_label_images(make_masks):
    labels = np.zeros((6, 8), np.uint8)
    labels[1:4, 1:4], labels[0:3, 5:8] = 1, 2
    root = make_masks({"a.png": labels})
    (root / "labels.json").write_text('{"wire": 2, "blood vessel": 1}')
    dataset = open_dataset(root)
    assert (dataset.phrase, dataset.phrases) == ("blood vessel", ["blood vessel", "wire"])
    (sample,) = dataset.about("wire")
    assert sample.truth()[0:3, 5:8].all()
    assert sample.truth("blood vessel")[1:4, 1:4].all()
