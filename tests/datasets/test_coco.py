"""COCO files: polygons, run lengths and holes, and every defect named."""

import json

import numpy as np
import pytest
from pycocotools import mask as coco

from sa2va_lab.datasets import open_dataset
from sa2va_lab.datasets.audit import audit_dataset
from sa2va_lab.errors import LabError

SQUARE = [1, 1, 4, 1, 4, 4, 1, 4]
RING = np.zeros((6, 8), np.uint8)
RING[0:5, 1:6] = 1
RING[2, 3] = 0
RUNS = coco.encode(np.asfortranarray(RING))
COUNTS = RUNS["counts"].decode()


def image(number, name, **more):
    return {"id": number, "file_name": name, "width": 8, "height": 6} | more


def annotation(segmentation, image_id=1, category=1, **more):
    return {"id": 1, "image_id": image_id, "category_id": category, "segmentation": segmentation} | more


def content(*annotations, **more):
    categories = [{"id": 1, "name": "vessel"}, {"id": 2, "name": "catheter"}]
    about = {"images": [image(1, "a.png"), image(2, "b.png")], "categories": categories}
    return about | {"annotations": list(annotations)} | more


def plain_counts(mask):
    """Uncompressed run lengths, column by column, beginning with background."""
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.r_[0, edges, len(flat)]).tolist()
    return runs if flat[0] == 0 else [0, *runs]


def test_polygons_run_lengths_and_holes(make_folder):
    root = make_folder(
        annotations=content(
            annotation([SQUARE]),
            annotation({"size": [6, 8], "counts": COUNTS}, image_id=2),
            annotation({"size": [6, 8], "counts": plain_counts(RING)}, image_id=2, category=2),
        )
    )
    dataset = open_dataset(root)
    assert dataset.format == "coco"
    assert dataset.reason.startswith('COCO (annotations.json): phrase "vessel" (the most frequent: 2 of 3 objects)')
    a, b, c = dataset
    assert a.truth().sum() == 9
    assert (b.truth() == RING).all()  # the hole stays a hole
    assert c.truth() is None
    assert (open_dataset(root, phrase="catheter")["P02-V1-F001"].truth() == RING).all()
    assert audit_dataset(dataset).to_dict()["stats"]["images_with_holes"] == 1


@pytest.mark.parametrize("place", ["_annotations.coco.json", "annotations/instances_train.json", "mine.coco.json"])
def test_the_file_may_have_other_names(make_folder, place):
    root = make_folder()
    (root / place).parent.mkdir(exist_ok=True)
    (root / place).write_text(json.dumps(content(annotation([SQUARE]))))
    for path in (root, root / place):
        assert open_dataset(path)["P01-V1-F001"].truth().sum() == 9


def test_an_image_without_annotations_has_nothing_to_find(make_folder):
    dataset = open_dataset(make_folder(annotations=content(annotation([SQUARE]))))
    assert not dataset["P02-V1-F001"].truth().any()
    assert dataset["P03-V1-F001"].truth() is None  # the file does not know it


def test_everything_is_scaled_to_the_image(make_folder):
    whole = np.zeros((12, 16), np.uint8)
    whole[2:8, 2:8] = 1
    runs = {"size": [12, 16], "counts": coco.encode(np.asfortranarray(whole))["counts"].decode()}
    big = [image(1, "a.png", width=16, height=12), image(2, "b.png", width=16, height=12)]
    dataset = open_dataset(
        make_folder(annotations=content(annotation([[2 * v for v in SQUARE]]), annotation(runs, 2), images=big))
    )
    a, b, _ = dataset
    assert (a.truth() == b.truth()).all()
    assert a.truth().sum() == 9


@pytest.mark.parametrize(
    ("segmentation", "kind"),
    [
        (None, "wrong_type"),
        ("polygon", "wrong_type"),
        ([], "empty_object"),
        ([[]], "few_points"),
        ([[1, 1]], "few_points"),
        ([[1, 1, 2, 2]], "few_points"),
        ([[1, 1, 2, 2, 3]], "bad_coordinates"),
        ([[1, 1, 2, float("nan"), 3, 3]], "bad_coordinates"),
        ([[1, 1, 2, 1e9, 3, 3]], "bad_coordinates"),
        ([{"x": 1}], "wrong_type"),
        ({}, "wrong_type"),
        ({"size": [6, 8]}, "wrong_type"),
        ({"counts": COUNTS}, "wrong_type"),
        ({"size": [8, 6], "counts": COUNTS}, "wrong_type"),
        ({"size": [10**6, 10**6], "counts": COUNTS}, "wrong_type"),
        ({"size": [6, 8], "counts": COUNTS[:-2]}, "wrong_type"),
        ({"size": [6, 8], "counts": COUNTS + "5"}, "wrong_type"),
        ({"size": [6, 8], "counts": "\x00\x01"}, "wrong_type"),
        ({"size": [6, 8], "counts": "~~~~~~~~~~~~"}, "wrong_type"),
        ({"size": [6, 8], "counts": ""}, "wrong_type"),
        ({"size": [6, 8], "counts": [48, 1]}, "wrong_type"),
        ({"size": [6, 8], "counts": [50, -2]}, "wrong_type"),
        ({"size": [6, 8], "counts": [24.0, 24.0]}, "wrong_type"),
        ({"size": [6, 8], "counts": 48}, "wrong_type"),
    ],
)
def test_a_malformed_object_is_a_named_problem(make_folder, segmentation, kind):
    dataset = open_dataset(make_folder(annotations=content(annotation(segmentation), annotation([SQUARE], image_id=2))))
    sample = dataset["P01-V1-F001"]
    assert sample.truth() is None
    assert {defect.kind for defect in sample.defects} == {kind, "unknown_truth"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"images": {}}, '"images" .* is a table'),
        ({"annotations": None}, '"annotations" .* is null'),
        ({"categories": "x"}, '"categories" .* is text'),
        ({"images": [3]}, "image 1 of annotations.json is a number without an id"),
        ({"images": [{"file_name": "a.png"}]}, "without an id"),
        ({"images": [{"id": [], "file_name": "a.png"}]}, "without an id"),
        ({"images": [image(1, None)]}, "names null as its image"),
        ({"images": [image(1, "../other.png")]}, "leads out"),
        ({"images": [image(1, "../a.png"), image(2, "../../a.png")]}, "leads out"),  # which of them?
        (
            {"images": [image(1, "a.png"), image(1, "b.png")]},
            "image 1 .* is a table without an id of its own",
        ),
    ],
)
def test_a_file_that_cannot_be_is_one_sentence(make_folder, changes, said):
    with pytest.raises(LabError, match=said):
        open_dataset(make_folder(annotations=content(annotation([SQUARE])) | changes))


def test_annotations_of_nothing_are_counted(make_folder):
    strangers = [annotation([SQUARE], image_id=9), annotation([SQUARE], image_id=[1]), 7]
    right = [annotation([SQUARE])] * 3
    dataset = open_dataset(make_folder(annotations=content(*right, *strangers)))
    assert dataset.problems == ("3 annotations belong to no image",)
    assert [str(account) for account in dataset.accounts] == ["6 annotations: 3 read, 3 not", "3 images: 2 read, 1 not"]
    with pytest.raises(LabError, match=r"3 of 5 annotations belong to no image: .* such as '1', .* image_id is '9'"):
        open_dataset(make_folder(annotations=content(*right[1:], *strangers)))


def test_sizes_and_categories_that_are_not_stated(make_folder):
    said = content(
        annotation([SQUARE]),
        annotation([SQUARE], category=9),
        annotation({"size": [6, 8], "counts": COUNTS}),
        images=[{"id": 1, "file_name": "a.png"}, image(2, "a.png")],
    )
    sample = open_dataset(make_folder(annotations=said))["P01-V1-F001"]
    assert sample.truth().sum() >= 9
    assert {defect.kind for defect in sample.defects} >= {"wrong_type", "text_type", "duplicate_entry"}


@pytest.mark.parametrize("kind", [str, float, int])
@pytest.mark.parametrize("owner", [str, float, int])
def test_an_id_is_the_same_in_any_type(make_folder, kind, owner):
    whole = content(annotation([SQUARE], image_id=owner(1), category=owner(1)), annotation([SQUARE], owner(2)))
    for entry in whole["images"] + whole["categories"]:
        entry["id"] = kind(entry["id"])
    dataset = open_dataset(make_folder(annotations=whole))
    assert [sample.truth() is not None and int(sample.truth().sum()) for sample in dataset] == [9, 9, False]
    assert ("ids of different types" in dataset.reason) == (str in (kind, owner) and kind != owner)


def test_ids_that_never_match_are_an_error_with_one_pair_and_its_types(make_folder):
    said = r"2 of 2 annotations belong to no image: the ids of images are such as '1', an annotation's image_id is 'x'"
    with pytest.raises(LabError, match=said + r" \(a number and text\)"):
        open_dataset(make_folder(annotations=content(annotation([SQUARE], "a"), annotation([SQUARE], "b"))))
    with pytest.raises(LabError, match=r"2 of 2 annotations are of no known category: .* such as '1', .* is '7'"):
        open_dataset(make_folder(annotations=content(*[annotation([SQUARE], category=7)] * 2)))


def test_categories_that_nobody_named(make_folder):
    whole = content(annotation([SQUARE]), annotation([SQUARE], 2))
    del whole["categories"]
    root = make_folder(annotations=whole)
    assert open_dataset(root).phrase == "blood vessel"
    assert open_dataset(root, phrase="catheter")["P02-V1-F001"].truth().sum() == 9
    whole["annotations"][1]["category_id"] = 4
    root = make_folder(annotations=whole)
    dataset = open_dataset(root)
    assert dataset.phrases == ["1", "4"]
    assert "a name without a letter says nothing to a model" in dataset.reason
    with pytest.raises(LabError, match=r'no object is called "vessel".*"1", "4".*{"\*": "vessel"} for all'):
        open_dataset(root, phrase="vessel")
    (root / "labels.json").write_text('{"*": "blood vessel"}')
    assert open_dataset(root).objects == {"blood vessel": 2}


def test_one_category_counted_from_zero_is_that_of_all(make_folder):
    whole = content(annotation([SQUARE]), categories=[{"id": 0, "name": "vessel"}])
    assert "the one category taken for category_id 1" in open_dataset(make_folder(annotations=whole)).reason


def test_a_flat_polygon(make_folder):
    sample = open_dataset(make_folder(annotations=content(annotation(SQUARE))))["P01-V1-F001"]
    assert sample.truth().sum() == 9
    assert [defect.kind for defect in sample.defects] == ["flat_nesting"]


def test_names_of_another_machine_are_found_by_base_name_where_that_is_one_image(make_folder):
    far = [image(1, "..\\..\\media\\upload\\4\\a.png"), image(2, "/data/upload/b.png")]
    root = make_folder(annotations=content(annotation([SQUARE]), annotation([SQUARE], 2), images=far))
    dataset = open_dataset(root)
    assert "2 images found by their base names" in dataset.reason
    assert [int(sample.truth().sum()) for sample in dataset.samples[:2]] == [9, 9]
    root = make_folder(images=["p1/d.png"], annotations=content(annotation([SQUARE]), images=[image(1, "p2/d.png")]))
    (root / "images" / "p3").mkdir()
    (root / "images" / "a.png").rename(root / "images" / "p3" / "d.png")
    with pytest.raises(LabError, match=r"1 of the 1 images that are annotated are not there"):
        open_dataset(root)  # which of the two?


def test_several_files_are_the_splits_and_captions_are_no_annotations(make_folder):
    root = make_folder()
    (root / "annotations").mkdir()
    other = content(annotation([SQUARE], 7), images=[image(7, "c.png")])
    talk = content({"id": 1, "image_id": 1, "caption": "invented"})
    for name, whole in (("instances_train2017", content(annotation([SQUARE]))), ("instances_val2017", other)):
        (root / "annotations" / f"{name}.json").write_text(json.dumps(whole))
    (root / "annotations" / "captions_val2017.json").write_text(json.dumps(talk))
    dataset = open_dataset(root)
    assert dataset.splits == {"train": ["P01-V1-F001", "P02-V1-F001"], "val": ["P03-V1-F001"]}
    assert [int(sample.truth().sum()) for sample in dataset] == [9, 0, 9]
    assert "1 files of captions or key points left out" in dataset.reason
    one = open_dataset(root / "annotations" / "instances_val2017.json")
    assert (one["P03-V1-F001"].truth().sum(), one["P01-V1-F001"].truth(), one.splits) == (9, None, {})


def test_a_broken_file_beside_others_is_said(make_folder):
    root = make_folder(annotations=content(annotation([SQUARE])))
    (root / "log.json").write_text('{"loss": 1}\n{"loss": 2}')
    dataset = open_dataset(root)
    assert dataset.problems == ("1 JSON files cannot be read",)
    assert dataset.samples[0].truth().sum() == 9
    with pytest.raises(LabError, match="not JSON"):
        open_dataset(root / "log.json")


def test_two_files_about_the_same_images_are_joined_and_no_splits(make_folder):
    root = make_folder(annotations=content(annotation([SQUARE])))
    (root / "more.json").write_text(json.dumps(content(annotation([[5, 0, 8, 0, 8, 3, 5, 3]]))))
    dataset = open_dataset(root)
    assert (dataset.samples[0].truth().sum(), dataset.splits) == (18, {})
    assert dataset.samples[0].problems == ("annotated more than once: the objects are joined",)


def test_folders_of_splits_each_with_its_file(make_folder):
    root = make_folder(images=["train/images/1.png", "val/images/1.png"], below=".")
    for split, drawn in (("train", SQUARE), ("val", [0, 0, 2, 0, 2, 2, 0, 2])):
        (root / split / "annotations").mkdir()
        whole = content(annotation([drawn]), images=[image(1, "1.png")])
        (root / split / "annotations" / f"{split}.json").write_text(json.dumps(whole))
    dataset = open_dataset(root)
    areas = {sample.image.parts[-3]: int(sample.truth().sum()) for sample in dataset}
    assert areas == {"train": 9, "val": 4}
    assert [len(ids) for ids in dataset.splits.values()] == [1, 1]
    assert open_dataset(root / "val").samples[0].truth().sum() == 4


def test_a_category_id_of_two_names_is_refused(make_folder):
    whole = content(annotation([SQUARE]))
    whole["categories"] = [{"id": 1, "name": "vessel"}, {"id": 1, "name": "vessel"}]
    assert open_dataset(make_folder(annotations=whole)).phrase == "vessel"
    whole["categories"][1]["name"] = "catheter"
    with pytest.raises(LabError, match="the category id 1 stands for two names"):
        open_dataset(make_folder(annotations=whole))


@pytest.mark.parametrize(("second", "said"), [("{", "is not JSON"), ("[1]", "is not COCO as annotations.json is")])
def test_a_second_annotators_file_that_is_none_is_not_passed_over(make_folder, second, said):
    root = make_folder(annotations=content(annotation([SQUARE])), annotations_obs2=content(annotation([SQUARE])))
    assert "a second annotator for 2 images" in open_dataset(root).reason
    (root / "annotations_obs2.json").write_text(second)
    with pytest.raises(LabError, match=f"annotations_obs2.json {said}"):
        open_dataset(root)


def test_a_second_annotator_alone_is_no_truth(make_folder):
    dataset = open_dataset(make_folder(annotations_obs2=content(annotation([SQUARE]))))
    assert "1 JSON files are annotations of no known format" in dataset.reason
