"""What all tests share: no network, no surprises from chance, where optional data and hardware are found.

And a little world of its own: images drawn here, a classical segmenter with the Segmenter's interface, the Run that it
makes of them, and a reader for HTML pages.
"""

import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

from sa2va_lab import open_dataset
from sa2va_lab.evaluation.runs import predict_dataset
from sa2va_lab.prediction import Prediction

os.environ["HF_HUB_OFFLINE"] = "1"  # a test that would reach for a hub must fail, here and everywhere
settings.register_profile("lab", derandomize=True, deadline=None)
settings.load_profile("lab")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real images and official golden values, which is no part of the repository."""
    folder = Path(os.environ.get("SA2VA_LAB_SHARED") or ROOT.parent / "shared")
    if not folder.is_dir():
        pytest.skip(f"no shared data in {folder} (SA2VA_LAB_SHARED names another place)")
    return folder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """A complete official-form checkpoint with the demo's sizes and untrained weights."""
    from sa2va_lab.demo import tiny
    from sa2va_lab.sa2va.weights import save_official

    base = tmp_path_factory.mktemp("tiny")
    raw = tiny.write_tokenizer(base / "tokenizer")
    return save_official(tiny.build(raw), base / "model", config=raw, tokenizer=base / "tokenizer")


def pytest_collection_modifyitems(items):
    wanting = [item for item in items if item.get_closest_marker("gpu")]
    if not wanting:
        return
    import torch

    if not torch.cuda.is_available():
        for item in wanting:
            item.add_marker(pytest.mark.skip(reason="not run: no CUDA device"))


NOTICE = "classical segmenter: a notice that belongs on every figure"
GROUPS = r"p(\d+)_"  # finds the patient in the drawn images' names


class DarknessSegmenter:
    """Dark is vessel: no network, but real predictions with real errors. An image that is all light has none."""

    provenance = {
        "weights_sha256": "0" * 64,
        "model": "darkness",
        "family": "classical",
        "stamp": NOTICE,
        "parameters": 1,
        "precision": {"asked": "auto", "actual": "fp32", "reason": "one number needs no less"},
        "device": {"asked": "auto", "actual": "cpu", "reason": "no CUDA device was found"},
    }

    def predict(self, image, prompt):
        picture = Image.open(image).convert("L")
        grey = np.asarray(picture.resize((32, 32), Image.Resampling.BOX), np.float32)
        if grey.min() > 150:
            return Prediction(np.zeros((0, 32, 32), np.float32), picture.size[::-1], "There is none.", canvas=64)
        logits = (140 - grey)[None] / 20
        return Prediction(logits, picture.size[::-1], "Sure, [SEG].", canvas=64, seconds={"masks": 0.01})


def draw_image(number: int) -> tuple[np.ndarray, np.ndarray]:
    """A dark line on light ground, thinner and paler with the number; uint8 and bool (48, 64)."""
    truth = np.zeros((48, 64), bool)
    truth[10 + number : 20, 8:56] = True
    image = np.full((48, 64), 200, np.uint8)
    image[truth] = 60 + 12 * number
    image[30:34, 10:20] = 90  # dark, and no vessel
    return image, truth


@pytest.fixture(scope="session")
def drawn_data(tmp_path_factory):
    """Six images of three patients as a mask folder; p03_b has an empty truth, p03_a an image without anything."""
    folder = tmp_path_factory.mktemp("drawn")
    for kind in ("images", "masks"):
        (folder / kind).mkdir()
    for number, name in enumerate(("p01_a", "p01_b", "p02_a", "p02_b", "p03_a", "p03_b")):
        image, truth = draw_image(number)
        if name == "p03_a":
            image[:] = 200
        if name == "p03_b":
            truth[:] = False
        Image.fromarray(image).save(folder / "images" / f"{name}.png")
        Image.fromarray(truth.astype(np.uint8) * 255).save(folder / "masks" / f"{name}.png")
    key = {"key": f"{1:064x}", "numbers": {}}  # a key that numbers the patients 01, 02, 03 in this order
    (folder / ".sa2va-lab-key.json").write_text(json.dumps(key))
    open_dataset(folder, groups=GROUPS)  # numbers are given on first sight: now, not by whichever test comes first
    return folder


@pytest.fixture(scope="session")
def drawn_run(drawn_data, tmp_path_factory):
    """The Run of the darkness segmenter on the drawn images."""
    folder = tmp_path_factory.mktemp("runs") / "darkness"
    dataset = open_dataset(drawn_data, groups=GROUPS)
    return predict_dataset(DarknessSegmenter(), dataset, folder=folder, progress=False)


@pytest.fixture(scope="session")
def darkness():
    """The segmenter that the drawn run was made with."""
    return DarknessSegmenter()


class Page(HTMLParser):
    """What an HTML page points at, runs, shows and says."""

    def __init__(self, text: str):
        super().__init__()
        self.addresses, self.tags, self.images, self.styles, self.words = [], [], [], [], []
        self._in_style = False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append(tag)
        self._in_style = tag == "style"
        self.addresses += [
            v for k, v in attributes.items() if k in ("src", "href", "srcset", "data", "action", "xlink:href")
        ]
        self.styles.append(attributes.get("style", ""))
        if tag == "img":
            self.images.append(attributes)

    def handle_endtag(self, tag):
        self._in_style = False

    def handle_data(self, data):
        (self.styles if self._in_style else self.words).append(data)

    @property
    def text(self) -> str:
        """All visible words, white space made single."""
        return re.sub(r"\s+", " ", " ".join(self.words))

    def assert_self_contained(self, folder):
        """Nothing from elsewhere: data addresses and files beside the page only; no scripts, no frames."""
        for address in self.addresses:
            assert address.startswith(("data:", "#")) or (folder / address).is_file(), address
        assert not {"script", "iframe", "object", "embed"} & set(self.tags)
        assert "url(" not in "".join(self.styles)
        assert "@import" not in "".join(self.styles)


@pytest.fixture(scope="session")
def read_page():
    """path -> Page."""
    return lambda path: Page(path.read_text("utf-8"))
