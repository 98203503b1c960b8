"""What all tests share: no network, no surprises from chance, where optional data and hardware are found.

And a little world of its own: images drawn here, a classical segmenter with the Segmenter's interface, the Run that it
makes of them, and a reader for HTML pages. The file is also a script, `conftest.py DATASET FOLDER`, so that a test can
kill the process that predicts.
"""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image, ImageOps

from sa2va_lab import open_dataset
from sa2va_lab.errors import LabError
from sa2va_lab.language import use_language
from sa2va_lab.prediction import Prediction
from sa2va_lab.runs import predict_dataset

os.environ["HF_HUB_OFFLINE"] = "1"  # a test that would reach for a hub must fail, here and everywhere
settings.register_profile("lab", derandomize=True, deadline=None)
settings.load_profile("lab")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Iterator[Path]:
    """The folder with real images and official golden values, which is no part of the repository: a test that writes
    into it fails the run."""
    folder = Path(os.environ.get("SA2VA_LAB_SHARED") or ROOT.parent / "shared")
    if not folder.is_dir():
        pytest.skip(f"no shared data in {folder} (SA2VA_LAB_SHARED names another place)")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    yield folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before, f"a test has written into {folder}"


@pytest.fixture(scope="session")
def chasedb1(shared, tmp_path_factory) -> Path:
    """A copy of the eight real images: opening a data set may write a key file beside it."""
    copy = tmp_path_factory.mktemp("real") / "chasedb1"
    return shutil.copytree(shared / "real" / "chasedb1", copy, copy_function=shutil.copyfile)


@pytest.fixture(autouse=True)
def english():
    """Each test begins in English, whatever language the one before has chosen."""
    use_language("en")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """A complete official-form checkpoint with the demo's sizes and untrained weights."""
    from sa2va_lab.sa2va.weights import save_official
    from tools.demo import tiny

    base = tmp_path_factory.mktemp("tiny")
    raw = tiny.write_tokenizer(base / "tokenizer")
    return save_official(tiny.build(raw), base / "model", config=raw, tokenizer=base / "tokenizer")


@pytest.fixture(scope="session")
def family_config():
    """config.json of the demo's sizes with another family's language model, by the name of its folder in parity."""
    from tools.demo import tiny

    def make(family):
        theirs = json.loads((ROOT / "tests/parity" / family / "config.json").read_text())
        raw = tiny.config(vocab_size=1, bos=1, eos=2)
        if "text_config" in theirs:
            return theirs | {"model_type": "sa2va_chat", "sa2va_lab": raw["sa2va_lab"]}
        return raw | {"template": theirs["template"], "llm_config": theirs["llm_config"]}

    return make


@pytest.fixture(scope="session")
def write_family(family_config, tmp_path_factory):
    """The same as a folder with untrained weights: write_family("phi3"). A family is written once."""
    from sa2va_lab.sa2va.weights import save_official
    from tools.demo import tiny

    @cache
    def write(family):
        raw, folder = family_config(family), tmp_path_factory.mktemp(family) / family
        homes = (ROOT / "tests/parity" / one / "tokenizer" for one in (family, "internvl"))
        return save_official(
            tiny.build(raw), folder, config=raw, tokenizer=next(home for home in homes if home.is_dir())
        )

    return write


# Files whose tests start the kernels of notebooks. A kernel is told ports that it binds only later, so those of two
# workers could meet on one.
KERNELS = (
    "datasets/test_privacy",
    "evaluation/test_precision",
    "reports/test_notebooks",
    "reports/test_runner",
    "reports/test_settings",
    "test_docs",
    "test_stranger",
    "views/test_curves",
    "views/test_inventories",
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Tests of one file stay on one worker, in their order, for what they make together is made once; and KERNELS."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.partition(".py::")[0].removeprefix("tests/")
            return "kernels" if file in KERNELS else file

    return ByFile(config, log)


def pytest_collection_modifyitems(items):
    wanting = [item for item in items if item.get_closest_marker("gpu")]
    if not wanting:
        return
    import torch

    if not torch.cuda.is_available():
        for item in wanting:
            item.add_marker(pytest.mark.skip(reason="not run: no CUDA device"))


@pytest.fixture
def call(monkeypatch, capsys):
    """Runs sa2va-lab in this process, in the folder `here`: (status, stdout, stderr). It imports torch only once."""
    from sa2va_lab import cli  # not above: the script that this file is too has no need of it

    def run(*words, here):
        monkeypatch.chdir(here)
        monkeypatch.setattr(sys, "argv", ["sa2va-lab", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        printed = capsys.readouterr()
        return stopped.value.code or 0, printed.out, printed.err

    return run


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


GRID = 16


class Darkness:
    """Logits of how dark a pixel is, on a 16x16 grid; the prompt says how dark is dark ("dark 40")."""

    def __init__(self, *, weights="0" * 64, precision="fp32", pause=0.0):
        self.pause = pause
        self.seen = []
        self.provenance = {
            "weights_sha256": weights,
            "model": "darkness",
            "stamp": "a classical segmenter, no network",
            "parameters": 0,
            "precision": {"asked": "auto", "actual": precision, "reason": "cpu"},
            "device": {"asked": "auto", "actual": "cpu", "reason": "it needs no other"},
            "family": "classical",
        }

    def predict(self, image, prompt):
        self.seen.append((image, prompt))
        begun = time.perf_counter()
        time.sleep(self.pause)
        with Image.open(image) as opened:
            grey = ImageOps.exif_transpose(opened).convert("L")
        small = np.asarray(grey.resize((GRID, GRID), Image.Resampling.BOX), np.float32)
        level = float(prompt.split()[-1]) if prompt.split()[-1].isdigit() else 50.0
        logits = ((level - small) / 8)[None]
        named = small.min() < level  # an image without anything dark: the answer names nothing
        return Prediction(
            logits if named else logits[:0],
            (grey.height, grey.width),
            "Sure, [SEG]." if named else "Nothing here.",
            canvas=64,
            seconds={"look": time.perf_counter() - begun},
        )


def write_dataset(root, *, count=6, side=32):
    """Bright images with one dark rectangle each, drawn as a polygon on multiples of two pixels: two images a group."""
    (root / "images").mkdir(parents=True)
    random = np.random.default_rng(1)
    annotations, groups = [], {}
    for number in range(count):
        name = f"INVENTED-P{number // 2:02d}_{number:03d}.png"
        pixels = random.integers(180, 220, (side, side), np.uint8)
        left, top = 2 * random.integers(1, 5, 2)
        right, bottom = left + 2 * random.integers(3, 7), top + 2 * random.integers(3, 7)
        pixels[top:bottom, left:right] = 10
        Image.fromarray(pixels).save(root / "images" / name)
        corners = [left, top, right, top, right, bottom, left, bottom]
        annotations.append({"image": name, "mask": [[[int(value) for value in corners]]], "text": ["blood vessel"]})
        groups[name] = f"INVENTED-P{number // 2:02d}"
    (root / "annotations.json").write_text(json.dumps(annotations))
    (root / "groups.json").write_text(json.dumps(groups))
    key = {"key": f"{5:064x}", "numbers": {}}  # a key that numbers INVENTED-P00, P01, P02 in this order
    (root / ".sa2va-lab-key.json").write_text(json.dumps(key))
    names = list(groups)
    (root / "splits.json").write_text(json.dumps({"train": names[:-2], "test": names[-2:]}))
    return root


@pytest.fixture
def make_segmenter():
    """The class of the segmenter."""
    return Darkness


@pytest.fixture
def make_dataset(tmp_path):
    """Writes a data folder and returns it: make_dataset(count=6, side=32)."""
    return lambda name="data", **how: write_dataset(tmp_path / name, **how)


@pytest.fixture
def start_process():
    """Starts a process of its own that predicts a data folder into a run folder; what still runs is killed."""
    started = []

    def start(data, folder, *, pause=0.0, largest_file=None):
        command = [sys.executable, str(Path(__file__)), str(data), str(folder), str(pause), str(largest_file or 0)]
        here = os.environ | {"PYTHONPATH": str(ROOT)}
        started.append(subprocess.Popen(command, env=here, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stderr.close()


if __name__ == "__main__":
    try:
        data, folder, pause, largest_file = sys.argv[1:]
        if int(largest_file):  # from here on the disk is full for whatever grows beyond this
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(largest_file), int(largest_file)))
        predict_dataset(Darkness(pause=float(pause)), open_dataset(data), folder=folder, progress=False)
    except LabError as error:
        sys.exit(str(error))
