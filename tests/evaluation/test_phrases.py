"""Each thing asked for by its own name: worked out by hand on drawn images, with a segmenter that looks at pixels."""

import json

import numpy as np
import pytest
from PIL import Image

from sa2va_lab.datasets.formats import open_dataset
from sa2va_lab.evaluation.questions import measure_phrase, predict_others
from sa2va_lab.prediction import Prediction
from sa2va_lab.runs import predict_dataset

SQUARE = [8, 8, 16, 8, 16, 16, 8, 16]  # pixels 8..15 both ways


@pytest.fixture
def two_things(tmp_path):
    """Four 32x32 images: a dark square (bone) in all; a black one (wire) in images 0 and 1."""
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    listed = []
    for number in range(4):
        pixels = np.full((32, 32), 200, np.uint8)
        pixels[8:16, 8:16] = 60
        things, masks = ["bone"], [[[SQUARE]]]
        if number < 2:
            pixels[20:28, 20:28] = 0
            things, masks = ["bone", "wire"], [[SQUARE], [[20, 20, 28, 20, 28, 28, 20, 28]]]
        Image.fromarray(pixels).save(folder / "images" / f"p{number % 2}_{number}.png")
        masks = [[SQUARE], [[20, 20, 28, 20, 28, 28, 20, 28]]] if number < 2 else [[SQUARE]]
        listed.append({"image": f"p{number % 2}_{number}.png", "mask": masks, "text": things})
    (folder / "annotations.json").write_text(json.dumps(listed))
    return folder


class ByDarkness:
    """Finds what is darker than the thing asked for; says so where nothing is. blind_to: the end of a file's name."""

    def __init__(self, darkness, levels, *, blind_to="-"):
        self.provenance, self.levels, self.blind_to = darkness.provenance, levels, blind_to

    def predict(self, image, prompt):
        grey = np.asarray(Image.open(image).convert("L"), np.float32)
        if grey.min() > self.levels[prompt] or image.stem.endswith(self.blind_to):
            return Prediction(np.zeros((0, 32, 32), np.float32), grey.shape, "There is none.", canvas=64)
        return Prediction((self.levels[prompt] - grey)[None], grey.shape, "Sure, [SEG].", canvas=64)


def test_found_where_it_is_and_refused_where_it_is_not(two_things, darkness, tmp_path):
    model = ByDarkness(darkness, {"bone": 100, "wire": 30})
    images = open_dataset(two_things, groups=r"(p\d)_")
    run = predict_dataset(model, images, folder=tmp_path / "run", progress=False)
    ((other, wires),) = predict_others(model, images, run=run)
    assert other.folder.name == "run_wire"
    told = measure_phrase(other, wires)
    assert (told["phrase"], told["n_there"], told["n_groups"]) == ("wire", 2, 2)
    assert (told["refused"], told["n_absent"]) == (2, 2)
    assert told["dice"] > 0.9
    bone = measure_phrase(run, images)
    assert (bone["n_there"], bone["n_absent"], bone["refused"]) == (4, 0, 0)
    assert bone["dice"] < 0.9  # in two images it takes the wire for bone as well


def test_a_refusal_of_what_is_there_costs_its_dice_and_a_mask_where_nothing_is_is_no_refusal(
    two_things, darkness, tmp_path
):
    wires = open_dataset(two_things, phrase="wire", groups=r"(p\d)_")

    def ask(**blind):
        model = ByDarkness(darkness, {"wire": 100}, **blind)
        folder = tmp_path / ("run" + "".join(blind))
        return measure_phrase(predict_dataset(model, wires, folder=folder, progress=False), wires)

    seeing, half_blind = ask(), ask(blind_to="_0")
    assert half_blind["dice"] == pytest.approx(seeing["dice"] / 2)  # both images hold the same picture
    assert (half_blind["refused"], half_blind["n_absent"]) == (0, 2)
