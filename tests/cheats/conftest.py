"""An honest run over drawn vessels, and the means to make a dishonest one of any prediction."""

import json

import numpy as np
import pytest
from PIL import Image, ImageFilter
from scipy import ndimage
from skimage.draw import line

from sa2va_lab.datasets import open_dataset
from sa2va_lab.prediction import Prediction
from sa2va_lab.runs import predict_dataset

SIDE, GRID = 128, 64


def draw_vessels(random):
    """A tree of wandering lines, 2 to 6 pixels wide: bool (SIDE, SIDE)."""
    truth = np.zeros((SIDE, SIDE), bool)
    for width in (1, 1, 2, 3):
        y, x = random.integers(20, SIDE - 20, 2)
        for _ in range(6):
            to_y, to_x = np.clip([y, x] + random.integers(-40, 41, 2), 2, SIDE - 3)
            stroke = np.zeros_like(truth)
            stroke[line(y, x, to_y, to_x)] = True
            truth |= ndimage.binary_dilation(stroke, iterations=width)
            y, x = to_y, to_x
    return truth


def draw_image(truth, random):
    """Dark vessels on uneven light ground, blurred and noisy."""
    ground = 150 + 40 * ndimage.gaussian_filter(random.standard_normal(truth.shape), 12) / 0.02
    image = np.clip(ground, 120, 200) - 70 * ndimage.gaussian_filter(truth.astype(float), 1.2)
    return (np.clip(image, 0, 255) + random.normal(0, 4, truth.shape)).clip(0, 255).astype(np.uint8)


class Honest:
    """Darker than its surroundings is vessel: classical, and it never sees a truth."""

    def __init__(self, weights="0" * 64):
        self.provenance = {
            "weights_sha256": weights,
            "model": "honest",
            "family": "classical",
            "stamp": None,
            "parameters": 1,
            "precision": {"asked": "auto", "actual": "fp32", "reason": "cpu"},
            "device": {"asked": "auto", "actual": "cpu", "reason": "cpu"},
        }

    def predict(self, image, prompt):
        picture = Image.open(image).convert("L")
        around = np.asarray(picture.filter(ImageFilter.GaussianBlur(10)), np.float32)
        near = np.asarray(picture.filter(ImageFilter.GaussianBlur(1)), np.float32)
        small = Image.fromarray(around - near - 12).resize((GRID, GRID), Image.Resampling.BOX)
        logits = np.asarray(small, np.float32)[None] / 6
        return Prediction(logits, picture.size[::-1], "Sure, [SEG].", canvas=SIDE)


@pytest.fixture(scope="session")
def vessels(tmp_path_factory):
    """Twelve images of six invented patients as a mask folder, with splits."""
    folder, random = tmp_path_factory.mktemp("vessels"), np.random.default_rng(11)
    for kind in ("images", "masks"):
        (folder / kind).mkdir()
    names = [f"INVENTED{patient}_V1_F{frame:02d}.png" for patient in range(6) for frame in range(2)]
    for name in names:
        truth = draw_vessels(random)
        Image.fromarray(draw_image(truth, random)).save(folder / "images" / name)
        Image.fromarray(truth.astype(np.uint8) * 255).save(folder / "masks" / name)
    (folder / "splits.json").write_text(json.dumps({"train": names[:4], "val": names[4:6], "test": names[6:]}))
    return folder


@pytest.fixture(scope="session")
def dataset(vessels):
    """The drawn vessels, opened."""
    return open_dataset(vessels)


@pytest.fixture
def predict(dataset, tmp_path):
    """Runs a segmenter over the test split."""
    return lambda segmenter, **how: predict_dataset(
        segmenter, how.pop("data", dataset), folder=tmp_path / how.pop("name", "run"), progress=False, **how
    )


@pytest.fixture(scope="session")
def honest():
    """The class of the honest segmenter."""
    return Honest
