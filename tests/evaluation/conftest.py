"""A real segmenter without a network, a data set it can be run on, and a process to run it in.

`Darkness` is classical, not a mock: it looks at nothing but the pixels and answers with how dark they are. It has the
interface that runs need (predict and provenance), so runs are tested with true predictions and true failures. The
file is also a script, `conftest.py DATASET FOLDER`, so that a test can kill the process that predicts.
"""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from sa2va_lab.prediction import Prediction

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
        here = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
        started.append(subprocess.Popen(command, env=here, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stderr.close()


if __name__ == "__main__":
    from sa2va_lab.datasets import open_dataset
    from sa2va_lab.errors import LabError
    from sa2va_lab.evaluation import predict_dataset

    try:
        data, folder, pause, largest_file = sys.argv[1:]
        if int(largest_file):  # from here on the disk is full for whatever grows beyond this
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(largest_file), int(largest_file)))
        predict_dataset(Darkness(pause=float(pause)), open_dataset(data), folder=folder, progress=False)
    except LabError as error:
        sys.exit(str(error))
