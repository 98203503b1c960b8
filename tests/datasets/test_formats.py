"""Data folders: both formats, every defect named on its sample, nothing read outside the folder."""

import json
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sa2va_lab.datasets import Dataset, open_dataset
from sa2va_lab.errors import LabError


def entry(image="a.png", mask=None, text=None):
    return {"image": image, "mask": mask, "text": text}


def test_official_annotations(make_folder, square):
    other = [5, 0, 8, 0, 8, 3, 5, 3]
    root = make_folder(
        annotations=[
            entry("b.png", [[square, other], [other]], ["blood vessel", "catheter"]),
            entry("a.png", [[other]], ["catheter"]),
            entry("d.png", [[square], [square]], ["blood vessel", "blood vessel"]),
        ],
        images=("c.png", "a.png", "b.png", "d.png"),
    )
    dataset = open_dataset(root)
    assert dataset.format == "sa2va"
    assert dataset.phrase == "blood vessel"
    assert "most frequent: 3 of 5 objects" in dataset.reason
    assert dataset.rasteriser.startswith("pycocotools ")
    assert [(sample.id, sample.image.name) for sample in dataset] == [
        ("P01-V1-F001", "a.png"),
        ("P02-V1-F001", "b.png"),
        ("P03-V1-F001", "c.png"),
        ("P04-V1-F001", "d.png"),
    ]
    a, b, c, d = (sample.truth() for sample in dataset)
    assert a.shape == (6, 8)
    assert not a.any()  # annotated, and holds no blood vessel
    assert b.sum() == 18
    assert b[1:4, 1:4].all()
    assert b[0:3, 5:8].all()
    assert c is None  # nobody annotated it
    assert d.sum() == 9
    assert dataset["P03-V1-F001"].problems == ("nobody annotated it",)
    assert dataset["P02-V1-F001"].problems == ()
    assert open_dataset(root, phrase="catheter")["P01-V1-F001"].truth().sum() == 9


def test_images_may_lie_beside_the_annotations_and_the_file_may_be_named(make_folder, square):
    root = make_folder(annotations=[entry("a.png", [[square]], ["vessel"])], below=".")
    for path in (root, root / "annotations.json"):
        dataset = open_dataset(path)
        assert len(dataset) == 3
        assert dataset["P01-V1-F001"].truth().sum() == 9


def test_a_name_may_state_the_image_folder_or_a_folder_below(make_folder, square):
    root = make_folder(
        images=("x/a.png", "b.png"),
        annotations=[entry("x/a.png", [[square]], ["vessel"]), entry("images/b.png", [[square]], ["vessel"])],
    )
    dataset = open_dataset(root)
    assert [sample.truth().sum() for sample in dataset] == [9, 9]


def test_a_relative_path_opens_the_same(make_folder, square, monkeypatch):
    root = make_folder(annotations=[entry("a.png", [[square]], ["vessel"])], splits={"test": ["a.png", "c.png"]})
    there = open_dataset(root)
    monkeypatch.chdir(root)
    for here in (open_dataset("."), open_dataset("annotations.json")):
        assert here.manifest_sha256 == there.manifest_sha256
        assert here.splits == there.splits == {"test": ["P01-V1-F001", "P03-V1-F001"]}


def test_the_users_flat_nesting_is_recognised(make_folder, square):
    other = [5, 0, 8, 0, 8, 3, 5, 3]
    root = make_folder(annotations=[entry("a.png", [square, other], ["vessel", "vessel"])])
    dataset = open_dataset(root)
    assert "flat polygons (object > coordinates) in 1 of 1 images" in dataset.reason
    assert dataset["P01-V1-F001"].truth().sum() == 18
    assert [defect.kind for defect in dataset["P01-V1-F001"].defects] == ["flat_nesting"]


@pytest.mark.parametrize(
    ("mask", "text", "area", "said"),
    [
        ([["S"], ["S"]], "vessel", 9, "one string instead of a list"),
        ([["S"], ["T"]], ["vessel"], 9, "1 phrases for 2 objects: objects without a phrase are left out"),
        ([["S"]], ["vessel", "catheter"], 9, "2 phrases for 1 objects"),
        ([["S"], ["T"]], ["vessel", 7], 9, "empty or not text"),
        ([["S"], ["T"]], ["vessel", "  "], 9, "empty or not text"),
        ([["S"]], None, None, "no list of phrases"),
        ([["S"]], [], None, "0 phrases for 1 objects"),
        ([["S", [1, 1]]], ["vessel"], 9, "object 1, polygon 2 has 1 of the 3 points it needs: skipped"),
        ([["S", [1, 1, float("nan"), 2, 3, 3]]], ["vessel"], 9, "polygon 2 holds something other than finite numbers"),
        ([[[1, 1]]], ["vessel"], None, "the truth is unknown"),
        ([[]], ["vessel"], None, "object 1 has no polygon"),
        ([{"counts": "x"}], ["vessel"], None, "object 1 is not a list of polygons"),
        ("nothing", ["vessel"], None, "not a list of objects"),
        ([], [], 0, None),
    ],
)
def test_a_defect_is_named_and_never_a_silently_empty_truth(make_folder, square, mask, text, area, said):
    shapes = {"S": square, "T": [5, 0, 8, 0, 8, 3, 5, 3]}

    def fill(value):
        return [fill(v) for v in value] if isinstance(value, list) else shapes.get(str(value), value)

    good = entry("b.png", [[square]], ["vessel"])
    dataset = open_dataset(make_folder(annotations=[entry("a.png", fill(mask), text), good]))
    sample = dataset["P01-V1-F001"]
    truth = sample.truth()
    assert (None if truth is None else truth.sum()) == area
    if said is None:
        assert sample.problems == ()
    else:
        assert said in " | ".join(sample.problems)
        assert "2 images with problems" in dataset.reason  # this one, and c.png that nobody annotated
    assert not any("a.png" in problem for problem in sample.problems)


def test_a_second_annotator_beside_the_annotations(make_folder, square):
    root = make_folder(
        annotations=[entry("a.png", [[square]], ["vessel"]), entry("b.png", [[square]], ["vessel"])],
        annotations_obs2=[entry("a.png", [[[1, 1, 3, 1, 3, 4, 1, 4]], [[0, 0]]], ["vessel", "vessel"])],
    )
    dataset = open_dataset(root)
    a, b, _ = dataset
    assert (a.truth().sum(), a.truth(annotator=2).sum()) == (9, 6)
    assert b.truth(annotator=2) is None
    assert a.problems == ("second annotator: object 2, polygon 1 has 1 of the 3 points it needs: skipped",)
    assert "a second annotator for 1 images" in dataset.reason
    assert "most frequent: 2 of 2 objects" in dataset.reason  # the first annotator's, who is the truth


def test_an_image_annotated_twice_has_all_its_objects(make_folder, square):
    other = [5, 0, 8, 0, 8, 3, 5, 3]
    root = make_folder(annotations=[entry("a.png", [[square]], ["vessel"]), entry("a.png", [[other]], ["vessel"])])
    sample = open_dataset(root)["P01-V1-F001"]
    assert sample.truth().sum() == 18
    assert sample.problems == ("annotated more than once: the objects are joined",)


def test_an_annotation_without_its_image_stays_visible(make_folder, square):
    drawn = [entry(name, [[square]], ["vessel"]) for name in ("gone.png", "a.png", "away.png")]
    dataset = open_dataset(make_folder(images=("a.png",), annotations=drawn[:2]))
    assert dataset["P02-V1-F001"].problems == ("its image file is missing",)
    assert dataset["P02-V1-F001"].image_sha256() is None
    with pytest.raises(LabError, match=r'2 of the 3 images that are annotated are not there: one is called like ".*xx'):
        open_dataset(make_folder(images=("a.png",), annotations=drawn))


def test_phrases(make_folder, square):
    root = make_folder(
        annotations=[entry("a.png", [[square]], [" dongmai "]), entry("b.png", [[square]], ["blood vessel"])]
    )
    assert open_dataset(root).phrase == "blood vessel"  # as frequent as the other: the first by name
    assert open_dataset(root, phrase="dongmai")["P01-V1-F001"].truth().sum() == 9
    with pytest.raises(LabError, match='no object is called "catheter".*"dongmai"'):
        open_dataset(root, phrase="catheter")
    with pytest.raises(LabError, match="phrase is empty"):
        open_dataset(root, phrase=" ")


def test_groups_and_splits(make_folder, square):
    root = make_folder(
        annotations=[entry("a.png", [[square]], ["vessel"])],
        groups={"a.png": "INVENTED-P07", "b.png": "INVENTED-P07"},
        splits={"train": ["b.png", "a.png"], "test": ["images/c.png"], "none": []},
    )
    dataset = open_dataset(root)
    by_name = {sample.image.name: sample for sample in dataset}
    a, b, c = by_name["a.png"], by_name["b.png"], by_name["c.png"]
    assert a.group == b.group != c.group
    assert "INVENTED" not in repr(dataset)  # a group is a pseudonym as well
    assert ".png" not in repr(dataset.samples)
    assert "1 images that it leaves out are groups of their own" in dataset.reason
    assert dataset.splits["train"] == [a.id, b.id] == [f"{a.group}-V1-F001", f"{a.group}-V1-F002"]
    assert list(dataset.split("test")) == [c]
    assert dataset.split("test").split_name == "test"
    assert len(dataset.split("all")) == 3
    with pytest.raises(LabError, match='no split "val".*its splits are: none, test, train'):
        dataset.split("val")
    with pytest.raises(LabError, match="holds no image"):
        dataset.split("none")
    with pytest.raises(LabError, match="no sample P99-V1-F001"):
        dataset["P99-V1-F001"]


def test_groups_by_a_pattern(make_folder, square):
    root = make_folder(
        images=("P1_a.png", "P1_b.png", "P2_a.png"), annotations=[entry("P1_a.png", [[square]], ["vessel"])]
    )
    assert len({sample.group for sample in open_dataset(root)}) == 3
    first, second, third = sorted(open_dataset(root, groups=r"^P(\d)_"), key=lambda sample: sample.image.name)
    assert first.group == second.group != third.group
    again = open_dataset(root)  # what was said once need not be said again
    assert [sample.id for sample in again] == [sample.id for sample in open_dataset(root, groups=r"^P(\d)_")]
    assert "2 groups as they were given when this folder was opened before" in again.reason
    for pattern, said in (
        (r"^P(2)_", "finds nothing in the name of image 1 of 3"),
        ("P", "0 capture groups"),
        ("(", "expected a regular"),
    ):
        with pytest.raises(LabError, match=said):
            open_dataset(root, groups=pattern)


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"splits": {"train": ["a.png"], "test": ["b.png"]}, "groups": {"a.png": 1, "b.png": 1}}, "in the splits"),
        ({"splits": {"train": ["a.png"], "test": ["a.png"]}}, "in the splits"),
        ({"splits": {"train": ["zzz.png"]}}, "not in the data folder"),
        ({"splits": {"train": "a.png"}}, "not a table of splits"),
        ({"splits": {"all": ["a.png"]}}, "is taken"),
        ({"splits": ["a.png"]}, "not a table of splits"),
        ({"splits": {"train": [3]}}, "expected a file name"),
        ({"splits": {"train": ["../a.png"]}}, "leads out"),
        ({"groups": ["a.png"]}, "not a table"),
        ({"groups": {"a.png": [1]}}, "not a table"),
        ({"groups": {"../../a.png": "x"}}, "leads out"),
    ],
)
def test_tables_that_cannot_be(make_folder, square, tables, said):
    root = make_folder(annotations=[entry("a.png", [[square]], ["vessel"])], **tables)
    with pytest.raises(LabError, match=said):
        open_dataset(root)


@pytest.mark.parametrize(
    ("annotations", "said"),
    [
        ({"images": []}, "is not a list|holds a table"),
        ("text", "holds text"),
        (None, "holds null"),
        ([], "names no phrase"),
        ([["a.png"]], "entry 1 .* names null as its image"),
        ([{}], "names null as its image"),
        ([{"image": ""}], "expected a file name"),
        ([{"image": "."}], "is a folder"),
        ([{"image": 3}], "expected a file name"),
        ([{"image": "../other/z.png"}], "leads out of the data folder"),
        ([{"image": "/etc/passwd"}], "leads out of the data folder"),
        ([{"image": "a\0.png"}], "not a possible file name"),
        ([{"image": "\ud800.png"}], "not a possible file name"),
        ([{"image": "a.png", "mask": [[[0, 0, 1, 1, 2, 0]]]}], "names no phrase"),
    ],
)
def test_annotations_that_cannot_be(make_folder, annotations, said):
    root = make_folder()
    (root / "annotations.json").write_text(json.dumps(annotations))
    with pytest.raises(LabError, match=said):
        open_dataset(root)


@pytest.mark.parametrize("content", [b"", b"[", b"\xff\xfe[", b"[" * 100_000, b"[1,]"])
def test_what_is_not_json(make_folder, content):
    root = make_folder()
    (root / "annotations.json").write_bytes(content)
    with pytest.raises(LabError, match="not JSON"):
        open_dataset(root)


def test_no_symbolic_link_leads_out(make_folder, square, tmp_path):
    outside = tmp_path / "outside.png"
    root = make_folder(annotations=[entry("a.png", [[square]], ["vessel"])])
    outside.write_bytes((root / "images" / "a.png").read_bytes())
    os.symlink(root / "images" / "b.png", root / "images" / "inside.png")
    assert len(open_dataset(root)) == 4  # a link that stays inside is an image like any other
    os.symlink(outside, root / "images" / "link.png")
    with pytest.raises(LabError, match=r"a symbolic link in .*images \(file 5 by name\) leads out"):
        open_dataset(root)


@pytest.mark.parametrize("name", ["images", "annotations.json", "splits.json"])
def test_no_part_of_the_folder_is_a_link_that_leads_out(make_folder, square, tmp_path, name):
    root = make_folder(annotations=[entry("a.png", [[square]], ["vessel"])], splits={"test": ["a.png"]})
    (root / name).rename(tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", root / name)
    with pytest.raises(LabError, match="leads out"):
        open_dataset(root)


def test_a_linked_data_folder_is_a_data_folder(make_folder, square, tmp_path):
    root = make_folder(annotations=[entry("a.png", [[square]], ["vessel"])])
    os.symlink(root, tmp_path / "shortcut")
    assert open_dataset(tmp_path / "shortcut").manifest_sha256 == open_dataset(root).manifest_sha256


def test_a_folder_of_masks(make_masks):
    one, two = np.zeros((6, 8)), np.zeros((6, 8))
    one[1:3, 2:5] = 255
    two[1:3, 2:4] = 1
    root = make_masks({"a.png": one, "b.png": one}, {"a.png": two}, images=("a.png", "b.png", "c.png"))
    dataset = open_dataset(root)
    assert dataset.format == "mask folder"
    assert dataset.phrase == "blood vessel"
    assert dataset.rasteriser == "none: the truths are mask files"
    assert "a second annotator for 1 images" in dataset.reason
    a, b, c = dataset
    assert a.truth().sum() == 6
    assert a.truth(annotator=2).sum() == 4
    assert b.truth(annotator=2) is None
    assert c.truth() is None
    assert open_dataset(root, phrase="catheter").samples[0].phrase == "catheter"


def test_masks_and_images_that_do_not_pair(make_masks, make_folder):
    root = make_masks({"a.png": np.eye(6, 8), "z.png": np.eye(6, 8)}, images=("a.png",))
    assert open_dataset(root).problems == ("1 masks belong to no image",)
    make_folder(images=("a.jpg",))
    with pytest.raises(LabError, match="1 files whose stem another one has"):
        open_dataset(root)


def test_folders_that_are_no_data_set(tmp_path, make_folder):
    with pytest.raises(LabError, match="does not exist"):
        open_dataset(tmp_path / "nowhere")
    with pytest.raises(LabError, match="no format that is read"):
        open_dataset(tmp_path)
    root = make_folder(images=())
    (root / "masks").mkdir()
    with pytest.raises(LabError, match="holds no image"):
        open_dataset(root)


words = st.sampled_from(["image", "mask", "text", "a.png", "b.png", "vessel", "../x.png", "images", ""])
numbers = st.floats() | st.integers() | st.integers(0, 8)
anything = st.recursive(
    st.none() | st.booleans() | numbers | words | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(words, inner, max_size=4),
    max_leaves=20,
)
nearly = st.lists(
    st.fixed_dictionaries(
        {"image": st.sampled_from(["a.png", "b.png", "new.png"])},
        optional={
            "mask": anything | st.lists(st.lists(st.lists(numbers, max_size=9), max_size=3), max_size=3),
            "text": anything | st.lists(words, max_size=3),
        },
    ),
    max_size=4,
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(anything | nearly)
def test_any_json_is_a_data_set_or_one_sentence(make_folder, content):
    root = make_folder()
    (root / "annotations.json").write_text(json.dumps(content))
    try:
        dataset = open_dataset(root)
    except LabError:
        return  # anything else that is raised fails the test
    assert isinstance(dataset, Dataset)
    for sample in dataset:
        truth = sample.truth() if sample.image.exists() else None
        assert truth is None or (truth.shape == (6, 8) and truth.dtype == bool)
        assert sample.source() is not None or sample.problems  # no truth is never without a reason


def test_a_real_set_opens(chasedb1):
    dataset = open_dataset(chasedb1, groups=r"Image_(\d+)")
    assert len(dataset) == 8
    assert len({sample.group for sample in dataset}) == 4
    sample = dataset["P01-V1-F001"]
    first, second = sample.truth(), sample.truth(annotator=2)
    assert first.shape == second.shape == sample.image_size() == (960, 999)
    assert 0.05 < first.mean() < 0.1
    assert 2 * (first & second).sum() / (first.sum() + second.sum()) > 0.7
