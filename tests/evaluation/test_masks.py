"""A Run's masks as files: whoever reads them back, with our readers or with others, has the same masks."""

import json

import numpy as np
import pytest
import yaml
from PIL import Image
from pycocotools.coco import COCO
from scipy.ndimage import gaussian_filter
from skimage import draw

from sa2va_lab import open_dataset
from sa2va_lab.datasets.export import export_dataset
from sa2va_lab.datasets.geometry import fill_polygons
from sa2va_lab.errors import LabError
from sa2va_lab.evaluation.honesty import check_run
from sa2va_lab.evaluation.masks import export_run
from sa2va_lab.evaluation.thresholds import Choice
from sa2va_lab.prediction import Prediction
from sa2va_lab.runs import open_run, predict_dataset
from sa2va_lab.views.findings import describe_finding

CHOICE = Choice(0.4, "as given")


class Blots:
    """Two [SEG] of blots with holes, another one for each image; one image has none, and one fails."""

    provenance = {
        "weights_sha256": "b" * 64,
        "model": "blots",
        "stamp": None,
        "precision": {"asked": "auto", "actual": "fp32", "reason": "cpu"},
        "device": {"asked": "auto", "actual": "cpu", "reason": "cpu"},
    }

    def predict(self, image, prompt):
        number = sum(image.name.encode())
        if image.name == "p02_a.png":
            raise ValueError("no picture")
        noise = np.random.default_rng(number).normal(0, 9, (2, 32, 32))
        logits = np.array([gaussian_filter(one, 1.2) for one in noise], np.float32)
        count = 0 if image.name == "p03_a.png" else 2
        return Prediction(logits[:count], (48, 64), "[SEG] [SEG]" if count else "none", canvas=64)


@pytest.fixture(scope="module")
def data(drawn_data):
    return open_dataset(drawn_data, groups=r"p(\d+)_")


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    return predict_dataset(Blots(), data, folder=tmp_path_factory.mktemp("runs") / "blots", progress=False)


@pytest.fixture(scope="module")
def masks(run):
    done = [record["id"] for record in run.records if record["error"] is None]
    return {name: run.prediction(name).mask(0.4) for name in done}


def dice(one, other):
    return 1.0 if not (one | other).any() else 2 * (one & other).sum() / (one.sum() + other.sum())


def fill(points, size, shift=0.5):
    """A polygon of (n, 2) by scikit-image, whose first pixel has its centre at 0."""
    mask = np.zeros(size, bool)
    mask[draw.polygon(points[:, 1] - shift, points[:, 0] - shift, size)] = True
    return mask


def read_png(out, name, size):
    return np.asarray(Image.open(out / "masks" / f"{name}.png")) == 255


def read_coco(out, name, size):
    read = COCO(out / "annotations.json")
    [image] = [each["id"] for each in read.dataset["images"] if each["file_name"] == f"{name}.png"]
    drawn = [read.annToMask(annotation).astype(bool) for annotation in read.loadAnns(read.getAnnIds([image]))]
    return np.any([np.zeros(size, bool), *drawn], axis=0)


def read_labelme(out, name, size):
    content = json.loads((out / "images" / f"{name}.json").read_text())
    assert (content["imageHeight"], content["imageWidth"]) == size
    assert {shape["shape_type"] for shape in content["shapes"]} <= {"polygon"}
    drawn = [fill(np.array(shape["points"]), size) for shape in content["shapes"]]
    return np.any([np.zeros(size, bool), *drawn], axis=0)


def read_yolo(out, name, size):
    """Ultralytics' text form: a class and x, y as shares of width and height."""
    drawn = []
    for line in (out / "labels" / f"{name}.txt").read_text().splitlines():
        number, *shares = line.split()
        assert yaml.safe_load((out / "data.yaml").read_text())["names"][int(number)] == "blood vessel"
        drawn.append(fill(np.array(shares, float).reshape(-1, 2) * (size[1], size[0]), size))
    return np.any([np.zeros(size, bool), *drawn], axis=0)


OTHERS = {"png": read_png, "coco": read_coco, "labelme": read_labelme, "yolo": read_yolo}
EXACT = ("png", "coco")


@pytest.mark.parametrize("form", OTHERS)
@pytest.mark.parametrize("apart", [False, True], ids=["together", "apart"])
def test_other_programs_read_the_same_masks(run, masks, tmp_path, form, apart):
    made = export_run(run, tmp_path / "out", form=form, choice=CHOICE, keep_objects=apart)
    assert made.images == len(masks) == 5
    for name, mask in masks.items():
        again = OTHERS[form](tmp_path / "out", name, mask.shape)
        assert dice(again, mask) >= (1 if form in EXACT else 0.99), name
    assert bool(made.loss) == (form not in EXACT)
    assert min(made.dice.values(), default=1) >= 0.999


@pytest.mark.parametrize("form", ["png", "coco", "labelme", "sa2va", "yolo"])
def test_our_readers_read_the_same_masks(run, masks, data, tmp_path, form):
    export_run(run, tmp_path / "out", form=form, choice=CHOICE, dataset=data)
    again = open_dataset(tmp_path / "out")
    for name, mask in masks.items():
        [sample] = [each for each in again if each.image.stem == name]
        assert dice(sample.truth("blood vessel"), mask) >= (1 if form in EXACT else 0.999)
        assert np.array_equal(np.asarray(Image.open(sample.image)), np.asarray(Image.open(data[name].image)))
    assert len(again) == len(masks)


def test_each_seg_may_be_an_object(run, masks, tmp_path):
    export_run(run, tmp_path / "png", form="png", choice=CHOICE, keep_objects=True)
    export_run(run, tmp_path / "coco", form="coco", choice=CHOICE, keep_objects=True)
    export_run(run, tmp_path / "labelme", form="labelme", choice=CHOICE, keep_objects=True)
    name = next(iter(masks))
    apart = [run.prediction(name).mask(0.4, merge) for merge in (0, 1)]
    for number, mask in enumerate(apart, 1):
        assert np.array_equal(np.asarray(Image.open(tmp_path / "png/objects" / f"{name}_{number}.png")) == 255, mask)
    read = COCO(tmp_path / "coco" / "annotations.json")
    assert [np.array_equal(read.annToMask(read.anns[n]), apart[n - 1]) for n in (1, 2)] == [True, True]
    shapes = json.loads((tmp_path / "labelme/images" / f"{name}.json").read_text())["shapes"]
    assert {shape["group_id"] for shape in shapes} == {1, 2}


def test_it_is_said_where_masks_come_from_and_nobody_is_named(run, tmp_path):
    for form in OTHERS:
        out = tmp_path / form
        export_run(run, out, form=form, choice=CHOICE)
        about = json.loads((out / "provenance.json").read_text())
        assert (about["weights_sha256"], about["threshold"], about["prompt"]) == ("b" * 64, 0.4, "blood vessel")
        assert (about["from"], about["failed"], about["images"]) == ("prediction", 1, 5)
        written = [path for path in out.rglob("*") if path.is_file()]
        assert not any("p0" in path.name or b"p01_a" in path.read_bytes() for path in written)
        assert not (out / "images").exists() or form == "labelme"


def test_names_on_request_only(run, masks, data, tmp_path):
    with pytest.raises(LabError, match="give the data set"):
        export_run(run, tmp_path / "out", form="png", choice=CHOICE, with_names=True)
    export_run(run, tmp_path / "out", form="png", choice=CHOICE, dataset=data, with_names=True)
    assert {path.name for path in (tmp_path / "out/masks").iterdir()} == {data[name].image.name for name in masks}
    export_run(run, tmp_path / "coco", form="coco", choice=CHOICE, dataset=data, with_names=True)
    named = json.loads((tmp_path / "coco/annotations.json").read_text())["images"]
    assert {image["file_name"] for image in named} == {data[name].image.name for name in masks}
    assert not (tmp_path / "coco/images").exists()


def test_nothing_is_overwritten_or_half_there(run, data, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("x")
    with pytest.raises(LabError, match="not empty"):
        export_run(run, tmp_path / "out", form="png", choice=CHOICE)
    with pytest.raises(LabError, match="in the data set itself"):
        export_run(run, data.root / "out", form="png", choice=CHOICE, dataset=data)
    with pytest.raises(LabError, match="expected one of sa2va, coco, labelme, png, yolo"):
        export_run(run, tmp_path / "new", form="dicom", choice=CHOICE)
    name = run.sample_ids[-1]
    (run.folder / "logits" / f"{name}.npz").rename(tmp_path / "kept.npz")
    with pytest.raises(LabError, match="is missing or empty"):
        export_run(run, tmp_path / "new", form="png", choice=CHOICE)
    (tmp_path / "kept.npz").rename(run.folder / "logits" / f"{name}.npz")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_the_command(run, data, masks, call, tmp_path):
    status, said, _ = call("export", run.folder, "png", "--threshold", "0.4", here=tmp_path)
    assert status == 0
    assert "5 images at threshold 0.4 (as given), 1 failed and left out: png" in said
    assert "every pixel is as it was predicted" in said
    assert len(list((tmp_path / "png" / "masks").iterdir())) == 5
    status, said, _ = call("export", run.folder, "yolo", "--to", "yolo", "--json", here=tmp_path)
    assert "outlines: Dice 0.99" in json.loads(said)["loss"] or "outlines: Dice 1.0" in json.loads(said)["loss"]
    assert call("export", run.folder, "png", here=tmp_path)[0] == 2
    assert open_run(run.folder).finished


def test_an_outline_through_shares_of_the_sides_fills_the_same_pixels(run, masks, tmp_path):
    export_run(run, tmp_path / "yolo", form="yolo", choice=CHOICE)
    for name, mask in masks.items():
        lines = (tmp_path / "yolo/labels" / f"{name}.txt").read_text().splitlines()
        drawn = [np.array(line.split()[1:], float) * np.tile([64, 48], len(line.split()) // 2) for line in lines]
        assert dice(fill_polygons(drawn, mask.shape), mask) >= 0.999


def correct(out, form):
    """What a person does: an object is moved a little, in the program's own file; what that file carries stays."""
    path = out / "annotations.json" if form == "coco" else min((out / "images").glob("*.json"))
    content = json.loads(path.read_text())
    if form == "coco":
        content["annotations"][0]["segmentation"] = [[2, 2, 30, 2, 30, 20, 2, 20]]
    else:
        content["shapes"][0]["points"] = [[2, 2], [30, 2], [30, 20], [2, 20]]
    path.write_text(json.dumps(content))
    (out / "provenance.json").unlink()


@pytest.mark.parametrize("form", ["labelme", "coco"])
def test_a_prediction_that_a_person_corrects_is_a_truth_that_says_so(run, data, tmp_path, form):
    export_run(run, tmp_path / "out", form=form, choice=CHOICE, dataset=data)
    correct(tmp_path / "out", form)
    drawn = open_dataset(tmp_path / "out")
    assert "5 truths drawn by hand over a prediction of blots" in drawn.reason
    assert {sample.origin["weights_sha256"] for sample in drawn} == {"b" * 64}
    assert {(sample.origin["threshold"], sample.origin["prompt"]) for sample in drawn} == {(0.4, "blood vessel")}
    own, other = Blots(), Blots()
    other.provenance = Blots.provenance | {"weights_sha256": "c" * 64}
    told = {}
    for name, segmenter in (("own", own), ("other", other)):
        judged = predict_dataset(segmenter, drawn, folder=tmp_path / name, progress=False)
        told[name] = [found for found in check_run(judged, drawn) if found.kind.startswith("truth_over")]
    assert [(found.kind, found.alarm, found.values["n"]) for found in told["own"]] == [("truth_over_own", True, 5)]
    assert [(found.kind, found.look, found.values["n"]) for found in told["other"]] == [("truth_over_other", True, 5)]
    assert "5 of 5 ground truths were drawn by hand over a prediction of this very model" in describe_finding(
        *told["own"]
    )
    for again in ("labelme", "coco", "png", "sa2va", "yolo"):
        export_dataset(drawn, tmp_path / again, format=again)
        assert [sample.origin for sample in open_dataset(tmp_path / again)] == [sample.origin for sample in drawn]


def test_what_is_no_origin_is_none(run, data, tmp_path):
    export_run(run, tmp_path / "out", form="labelme", choice=CHOICE, dataset=data)
    for number, path in enumerate(sorted((tmp_path / "out/images").glob("*.json"))):
        said = [[], {"weights_sha256": 3}, "x", {}, None][number]
        path.write_text(json.dumps(json.loads(path.read_text()) | {"sa2va_lab_origin": said}))
    (tmp_path / "out/provenance.json").write_text('{"origins": []}')
    assert [sample.origin for sample in open_dataset(tmp_path / "out")] == [None] * 5
