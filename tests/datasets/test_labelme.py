"""LabelMe folders: shapes and labels to truths, sizes scaled, nothing private kept, every defect named."""

import base64
import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sa2va_lab.datasets import open_dataset
from sa2va_lab.datasets.audit import audit_dataset
from sa2va_lab.errors import LabError
from tools.demo.albums import write_labelme
from tools.demo.angiograms import make_patient

POINTS = [[1, 1], [4, 1], [4, 4], [1, 4]]


def shape(points=POINTS, label="dongmai", **more):
    return {"label": label, "points": points, "shape_type": "polygon", "group_id": None} | more


def content(*shapes, **more):
    about = {"version": "5.5.0", "imagePath": "a.png", "imageData": None, "imageWidth": 8, "imageHeight": 6}
    return about | {"shapes": list(shapes)} | more


@pytest.fixture
def labelled(make_folder):
    """A LabelMe folder of a.png, b.png and c.png from what the JSON files of a.png and b.png hold."""

    def make(a, b=None):
        root = make_folder(below=".")
        for name, said in (("a", a), ("b", b)):
            if said is not None:
                (root / f"{name}.json").write_text(said if isinstance(said, str) else json.dumps(said))
        return root

    return make


def test_the_demo_patient_opens(tmp_path):
    dataset = open_dataset(write_labelme(tmp_path / "labelme", patient=2, frames=2, size=128), phrase="dongmai")
    assert dataset.format == "labelme"
    assert dataset.reason.startswith('LabelMe, 2 files: phrase "dongmai" (as asked: ')
    assert [sample.id for sample in dataset] == ["P01-V1-F001", "P01-V1-F002"]
    for sample, frame in zip(dataset, make_patient(2, frames=2, size=128), strict=True):
        truth, drawn = sample.truth(), frame.masks["blood vessel"]
        assert 2 * (truth & drawn).sum() / (truth.sum() + drawn.sum()) > 0.97
        assert sample.problems == ()


def test_shapes_labels_and_groups(labelled):
    other = [[5, 0], [8, 0], [8, 3], [5, 3]]
    root = labelled(
        content(shape(group_id=1), shape(other, group_id=1), shape(other, label="catheter")),
        content(shape([[1, 1], [4, 4]], shape_type="rectangle")),
    )
    dataset = open_dataset(root)
    a, b, c = dataset
    assert "most frequent: 2 of 3 objects" in dataset.reason  # two shapes of one group are one object
    assert (a.truth().sum(), b.truth().sum(), c.truth()) == (18, 9, None)
    assert open_dataset(root, phrase="catheter")["P01-V1-F001"].truth().sum() == 9


def test_several_labels_can_be_one_phrase(labelled):
    root = labelled(content(shape(label="blood vessel")), content(shape()))
    assert not open_dataset(root, phrase="blood vessel")["P02-V1-F001"].truth().any()
    (root / "labels.json").write_text('{"dongmai": "blood vessel", "other": 3}')
    dataset = open_dataset(root)
    assert "1 objects renamed by labels.json, " in dataset.reason
    assert [sample.truth().sum() for sample in dataset.samples[:2]] == [9, 9]
    for table in ("[1]", "3", "null"):
        (root / "labels.json").write_text(table)
        assert "renamed" not in open_dataset(root).reason


def test_coordinates_are_scaled_to_the_image(labelled):
    root = labelled(content(shape([[2, 2], [8, 2], [8, 8], [2, 8]]), imageWidth=16, imageHeight=12))
    sample = open_dataset(root)["P01-V1-F001"]
    assert sample.source().size == (12, 16)
    assert sample.truth().sum() == 9
    assert sample.truth()[1:4, 1:4].all()
    assert "size_mismatch" in audit_dataset(open_dataset(root)).by_kind()


def test_circles_and_masks(labelled):
    buffer = io.BytesIO()
    Image.fromarray(np.array([[255, 255], [0, 255]], np.uint8)).save(buffer, "png")
    drawn = base64.b64encode(buffer.getvalue()).decode()
    root = labelled(
        content(shape([[4, 3], [4, 1]], shape_type="circle")),
        content(shape([[2, 1], [3, 2]], shape_type="mask", mask=drawn)),
    )
    a, b, _ = open_dataset(root)
    assert abs(a.truth().sum() - np.pi * 4) < 3
    assert [tuple(place) for place in np.argwhere(b.truth())] == [(1, 2), (1, 3), (2, 3)]
    b = open_dataset(labelled(content(shape([[2, 1]], shape_type="mask", mask=drawn)))).samples[0]  # the first will do
    assert [tuple(place) for place in np.argwhere(b.truth())] == [(1, 2), (1, 3), (2, 3)]


CORNERS = [[1, 1], [4, 1], [4, 4], [1, 4]]


@pytest.mark.parametrize("kind", ["rectangle", "rotation", "oriented_rectangle", "quadrilateral"])
def test_a_rectangle_by_its_four_corners(labelled, kind):
    a = open_dataset(labelled(content(shape(CORNERS, shape_type=kind)))).samples[0]
    assert (a.truth().sum(), a.problems) == (9, ())
    assert open_dataset(labelled(content(shape(CORNERS[::2], shape_type=kind)))).samples[0].truth().sum() == 9


@pytest.mark.parametrize(
    ("encoding", "label", "said"),
    [
        ("gb18030", "血管", "GB18030"),
        ("gb18030", "左冠脉 (LAD)", "GB18030"),
        ("cp1252", "Gefäß", "cp1252"),
        ("cp1252", "sténose", "cp1252"),
        ("utf-8-sig", "血管", None),
        ("utf-16", "血管", "UTF-16"),
    ],
)
def test_a_file_in_the_encoding_of_somebodys_machine(make_folder, encoding, label, said):
    root = make_folder(images=["病例 0 (左).png"], below=".")
    text = json.dumps(
        content(shape(label=label), imagePath="病例 0 (左).png" if said != "cp1252" else "é.png"), ensure_ascii=False
    )
    (root / "病例 0 (左).json").write_bytes(text.encode(encoding))
    dataset = open_dataset(root)
    assert (dataset.phrase, int(dataset.samples[0].truth().sum())) == (label, 9)
    assert (f"1 files read as {said}" in dataset.reason) == (said is not None)


@pytest.mark.parametrize(
    ("image", "file", "group"),
    [
        ("images/f0.png", "annotations/f0.json", "each image a group of its own"),
        ("images/p1/f0.png", "images/p1/f0.json", "each image"),
        ("images/p1/f0.png", "labels/p1/f0.json", "each image"),
        ("p1/f0.png", "p1/f0.json", "each image"),
        ("train/images/f0.png", "train/json/f0.json", "each image"),
    ],
)
def test_where_the_files_may_lie(make_folder, image, file, group):
    root = make_folder(images=[image], below=".")
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(json.dumps(content(shape())))
    dataset = open_dataset(root)
    assert dataset.samples[0].truth().sum() == 9
    assert group in dataset.reason


def test_a_second_annotators_file(labelled):
    root = labelled(content(shape()))
    (root / "a_obs2.json").write_text(json.dumps(content(shape([[1, 1], [3, 1], [3, 3], [1, 3]]))))
    sample = open_dataset(root).samples[0]
    assert (sample.truth().sum(), sample.truth(annotator=2).sum()) == (9, 4)


def test_reasonseg_brings_its_question_and_what_to_ignore(labelled):
    """As its authors paint it: of target and ignore the smaller one lies on top."""
    asked = {"text": ["where does the blood flow?", "another"], "is_sentence": True}
    about = {key: None for key in ("imageWidth", "imageHeight")}
    row = [shape([[0, y], [8, y], [8, y + 1], [0, y + 1]], "ignore") for y in (5,)]
    small = shape([[1, 1], [2, 1], [2, 2], [1, 2]], "ignore")
    around = shape([[0, 0], [8, 0], [8, 6], [0, 6]], "ignore")
    a = content(shape(label="target"), small, *row, **asked, **about)
    b = content(shape(label="target"), around, text=[" "], is_sentence=True)
    dataset = open_dataset(labelled(a, b))
    first, second, _ = dataset
    assert (dataset.phrase, first.prompt, second.prompt) == ("target", "where does the blood flow?", None)
    assert (first.truth().sum(), first.ignore().sum(), bool(first.ignore()[1, 1])) == (8, 9, True)
    assert (second.truth().sum(), second.ignore().sum()) == (9, 48 - 9)
    assert "it brings no question" in second.problems
    assert [str(account) for account in dataset.accounts] == ["5 annotations: 5 read", "3 images: 2 read, 1 not"]


def test_what_is_private_is_dropped_and_the_path_is_never_followed(labelled, tmp_path):
    secret = tmp_path / "secret.png"
    Image.new("L", (8, 6)).save(secret)
    root = labelled(content(shape(), imagePath=str(secret), imageData="aW52ZW50ZWQ="))
    dataset = open_dataset(root)
    assert len(dataset) == 3
    assert all(sample.image.parent == root for sample in dataset)
    assert [defect.kind for defect in dataset["P01-V1-F001"].defects] == ["private_metadata"]
    assert "secret" not in repr(dataset)


def test_the_path_names_the_image_where_the_stem_does_not(labelled):
    root = labelled(content(shape()))
    (root / "a.json").rename(root / "export_1.json")
    changed = json.loads((root / "export_1.json").read_text()) | {"imagePath": "C:\\pictures\\b.png"}
    (root / "export_1.json").write_text(json.dumps(changed))
    assert open_dataset(root)["P02-V1-F001"].truth().sum() == 9


@pytest.mark.parametrize(
    ("said", "kind", "area"),
    [
        ("{", "unreadable_annotation", None),
        ("[]", "unreadable_annotation", None),
        ({"version": "5"}, "unreadable_annotation", None),
        (content() | {"shapes": None}, "wrong_type", None),
        (content() | {"shapes": [3]}, "wrong_type", None),
        (content(shape(), imageWidth="8"), "wrong_type", 9),
        (content(shape(), imageWidth=-8), "wrong_type", 9),
        (content(shape(), shape(label=None)), "text_type", 9),
        (content(shape(), shape(label="  ")), "text_type", 9),
        (content(shape(), shape(points=None)), "wrong_type", 9),
        (content(shape(), shape(points=[1, 1, 4, 1, 4, 4])), "wrong_type", 9),
        (content(shape(), shape(points=[[1, 1, 1], [2, 2, 2], [3, 3, 3]])), "wrong_type", 9),
        (content(shape(), shape(points=[])), "few_points", 9),
        (content(shape(), shape(points=[[1, 1]])), "few_points", 9),
        (content(shape(), shape(points=[[1, 1], [2, 2]])), "few_points", 9),
        (content(shape(), shape(points=[[1, 1], [2, None], [3, 3]])), "bad_coordinates", 9),
        (content(shape(), shape(points=[[1, 1], [2, float("inf")], [3, 3]])), "bad_coordinates", 9),
        (content(shape(), shape(points=[["1", "1"], ["2", "1"], ["2", "2"]])), "bad_coordinates", 9),
        (content(shape(), shape([[2, 2]], shape_type="point")), "not_an_area", 9),
        (content(shape(), shape(shape_type="linestrip")), "not_an_area", 9),
        (content(shape(), shape([[2, 2]], shape_type="circle")), "not_an_area", 9),
        (content(shape(), shape([[2, 2], [3, float("nan")]], shape_type="circle")), "not_an_area", 9),
        (content(shape(), shape(shape_type="mask")), "wrong_type", 9),
        (content(shape(), shape(shape_type="mask", mask="no base64!")), "wrong_type", 9),
        (content(shape(), shape(shape_type="mask", mask="aGVsbG8=")), "wrong_type", 9),
        (content(shape([[1, 1]])), "unknown_truth", None),
        (content(shape(), imageData="aW52ZW50ZWQ="), "private_metadata", 9),
    ],
)
def test_a_malformed_file_is_a_named_problem_and_never_a_silently_empty_mask(labelled, said, kind, area):
    dataset = open_dataset(labelled(said, content(shape())))
    sample = dataset["P01-V1-F001"]
    truth = sample.truth()
    assert (None if truth is None else truth.sum()) == area
    assert kind in {defect.kind for defect in sample.defects}
    assert not any("a.png" in problem for problem in sample.problems)
    assert kind in audit_dataset(dataset).by_kind()


def test_files_that_belong_to_no_image(labelled):
    root = labelled(content(shape()))
    (root / "z.json").write_text(json.dumps(content(shape(), imagePath="z.png")))
    (root / "notes.json").write_text("{}")
    (root / "more.json").write_text("broken")
    dataset = open_dataset(root)
    assert [defect.kind for defect in dataset.defects] == ["orphan_file"]
    assert "2 JSON files" in dataset.problems[0]
    assert [sample.problems for sample in dataset if not sample.image.exists()] == [("its image file is missing",)]


def test_a_folder_without_a_phrase_is_one_sentence(labelled):
    with pytest.raises(LabError, match="names no phrase"):
        open_dataset(labelled(content()))


anything = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers(-9, 99) | st.sampled_from(["polygon", "mask", "circle", "x"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["label", "points"]), inner),
    max_leaves=12,
)
shapes = st.fixed_dictionaries(
    {"label": st.sampled_from(["dongmai", ""]) | anything},
    optional={"points": anything | st.lists(st.lists(st.floats(), max_size=3), max_size=5), "shape_type": anything}
    | {"group_id": anything, "mask": anything},
)


@given(st.fixed_dictionaries({"shapes": anything | st.lists(shapes, max_size=3)}, optional={"imageWidth": anything}))
def test_any_shapes_are_a_data_set_or_one_sentence(tmp_path_factory, said):
    root = tmp_path_factory.mktemp("labelme")
    Image.new("L", (8, 6)).save(root / "a.png")
    (root / "a.json").write_text(json.dumps(said))
    try:
        dataset = open_dataset(root)
    except LabError:
        return
    for sample in dataset:
        assert sample.truth() is None or sample.truth().shape == (6, 8)
        assert sample.source() is not None or sample.problems
