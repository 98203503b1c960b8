"""Inputs as people really have them: the small cases of the shared folder, each with the area that it should have."""

import shutil

import pytest

from sa2va_lab.datasets import open_dataset
from sa2va_lab.datasets.audit import audit_dataset
from sa2va_lab.evaluation import evaluate_run
from sa2va_lab.evaluation.metrics import summarise
from sa2va_lab.runs import predict_dataset

AREAS = {"f0": 2027, "f1": 1701, "f2": 2547}
CASES = {
    "02/strid": "ids of different types matched by their values",
    "02b/flat": 'phrase "blood vessel"',
    "02b/cat0": "the one category taken for category_id 1",
    "02b/floatid": "COCO",
    "03/backslash": "1 images found by their base names",
    "03/media": "1 images found by their base names",
    "04/trainval": "COCO (instances_train.json, instances_val.json)",
    "07": "1 files read as GB18030",
    "08/annotations_dir": "LabelMe, 1 files",
    "08/nested": "LabelMe, 1 files",
    "09": "by their names: _mask",
    "10/palette": "images and their masks",
    "19": 'phrase "target"',
}


@pytest.fixture(scope="module")
def cases(shared, tmp_path_factory):
    """A copy: the shared folder is never written to."""
    root = tmp_path_factory.mktemp("cases") / "cases"
    return shutil.copytree(shared / "cases", root, copy_function=shutil.copyfile)


@pytest.mark.parametrize("name", CASES)
def test_a_case_has_the_truth_that_it_should_have(cases, name):
    dataset = open_dataset(cases / name)
    assert CASES[name] in dataset.reason
    got = {sample.image.stem: int(sample.truth().sum()) for sample in dataset}
    if len(dataset) == 1:
        assert list(got.values()) == [AREAS["f0"]]
    elif name == "19":
        assert list(got.values()) == [AREAS["f0"], AREAS["f1"]] or list(got.values()) == [AREAS["f1"], AREAS["f0"]]
        assert {sample.prompt for sample in dataset} == {"outline the tube that carries the blood"}
        assert sum(int(sample.ignore().sum()) for sample in dataset) == 3196 + 3500
    else:
        assert got == {image: AREAS[image] for image in got}
    if name == "04/trainval":
        assert [len(ids) for ids in dataset.splits.values()] == [2, 1]
    assert set(audit_dataset(dataset).by_kind()) <= {"flat_nesting", "private_metadata", "zero_area"}
    assert all(account.closed for account in dataset.accounts)


def test_categories_that_are_numbers(cases):
    dataset = open_dataset(cases / "01" / "syntax")
    assert "a name without a letter says nothing to a model" in dataset.reason
    assert [len(ids) for ids in dataset.splits.values()] == [2, 1]
    (cases / "01" / "syntax" / "labels.json").write_text('{"*": "blood vessel"}')
    whole = open_dataset(cases / "01" / "syntax")
    assert sorted(int(sample.truth().sum()) for sample in whole) == sorted(AREAS.values())
    assert len(open_dataset(cases / "01" / "syntax" / "val" / "annotations" / "val.json", phrase="1")) == 1


def test_rectangles_values_and_frames(cases):
    assert open_dataset(cases / "06" / "rect4").samples[0].truth().sum() == 100 * 40
    assert open_dataset(cases / "06" / "mixed").samples[0].truth().sum() == 100 * 40 + 10 * 10
    assert "inverted_suspected" in audit_dataset(open_dataset(cases / "10" / "inverted")).by_kind()
    assert set(audit_dataset(open_dataset(cases / "11")).by_kind()) == {"unnamed_value"}
    (cases / "11" / "labels.json").write_text('{"blood vessel": [1, 2], "background": 0}')
    assert sorted(int(sample.truth().sum()) for sample in open_dataset(cases / "11")) == [AREAS["f1"], AREAS["f0"]]
    assert open_dataset(cases / "14" / "cine.gif").samples[0].problems == (
        "it is a file of 3 pictures, no image: predict it as a film, or save the right one of its pictures alone",
    )


def test_each_mean_of_17_has_its_own_count(cases, darkness, tmp_path):
    """Two of four truths are empty: recall is a mean of two, Dice of the images that have one, and neither of four."""
    dataset = open_dataset(cases / "17")
    areas = {sample.image.stem: int(sample.truth().sum()) for sample in dataset}
    assert areas == {"f0": AREAS["f0"], "f1": AREAS["f1"], "f2": 0, "g": 0}
    run = predict_dataset(darkness, dataset, folder=tmp_path / "run", progress=False)
    table = evaluate_run(run, dataset)
    summary = summarise(table)
    assert (summary["n_images"], summary["recall"]["n"]) == (4, 2)
    assert summary["dice"]["n"] == table["dice"].notna().sum()
    assert summary["dice"]["macro"] == pytest.approx(table["dice"].mean())
