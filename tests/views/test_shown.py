"""Every public object shows itself: in ten lines of text, and in JupyterLab as HTML that needs nothing from outside."""

import dataclasses
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import sa2va_lab
from sa2va_lab import paths
from sa2va_lab.conversation import Conversation
from sa2va_lab.evaluation.intervals import compare_paired
from sa2va_lab.evaluation.sequences import Comparison, Measure
from sa2va_lab.language import use_language
from sa2va_lab.prediction import Prediction
from sa2va_lab.runs import predict_dataset
from sa2va_lab.sa2va.processing import Picture
from sa2va_lab.segmenter import Segmenter
from sa2va_lab.shown import BROAD, MOST
from sa2va_lab.training.audit import audit
from sa2va_lab.training.log import read_log
from sa2va_lab.views import shown
from sa2va_lab.views.overlays import read_pixels
from sa2va_lab.views.shown import STRIP

STAMP = "demo model: synthetic data, not medical evidence"


def segmenter():
    """One without a network: what it shows is what it says of itself."""
    made = Segmenter.__new__(Segmenter)
    made.model = None  # as where no rung of the ladder had room
    made.provenance = {
        "stamp": STAMP,
        "model": "Sa2VA-8B",
        "parameters": 8_182_606_130,
        "precision": {"asked": "auto", "actual": "int8", "reason": "int8: the most precise that fits"},
        "device": {"asked": "auto", "actual": "cuda:0", "reason": "the first of 2 GPUs"},
        "plan": {"devices": [{"name": "cuda:0", "total": 11 << 30}, {"name": "cuda:1", "total": 3 << 29}]},
        "steps": [{"from": "bf16 on cuda:0", "to": "int8 on cuda:0", "why": "out of memory"}],
    }
    return made


def prediction(**options):
    logits = np.full((2, 32, 32), -4, np.float32)
    logits[:, 8:16, 8:24] = 4
    told = {"seconds": {"vision": 0.25, "masks": 0.5}, "peak_bytes": 3 << 29, "stamp": STAMP}
    return Prediction(logits, (600, 900), "[SEG] and [SEG]", canvas=64, **told | options)


def chat():
    made = Conversation(Image.new("RGB", (90, 60)), None)
    made.turns = [("Where is it?", "Left of the spine, as far as can be told from one frame.")]
    made.turns.append(("Segment it.", "Sure, [SEG]."))
    return made


def difference():
    values = np.linspace(0.4, 0.9, 12)
    return compare_paired(values, values[::-1] - 0.1, list("aabbccddeeff"))


def comparison():
    table = pd.DataFrame({"video": ["V1"] * 3 + ["V2"] * 3})
    return Comparison(table, {"dice": Measure(0.7, 0.8, difference()), "seconds": Measure(2, 1, None)}, 5, 0.5, None)


@pytest.fixture(scope="module")
def demo():
    return sa2va_lab.open_dataset(paths.demo_data(), phrase="blood vessel")


@pytest.fixture(scope="module")
def things(demo, darkness, tmp_path_factory):
    log = next(paths.find_root().glob("data/demo/*.log"))
    part, folder = demo.select([sample.id for sample in demo.samples[:3]]), tmp_path_factory.mktemp("runs") / "mine"
    run = predict_dataset(darkness, part, folder=folder, progress=False)
    return {
        "Prediction": prediction(thumbnail=np.full((300, 450, 3), 90, np.uint8)),
        "Plan": sa2va_lab.plan("Sa2VA-8B", gpu="24GiB", gpus=2),
        "Inventory": sa2va_lab.inspect(paths.demo_model()),
        "Dataset": demo,
        "Sample": demo.samples[5],
        "Run": run,
        "Segmenter": segmenter(),
        "Conversation": chat(),
        "Difference": difference(),
        "Comparison": comparison(),
        "Audit": audit(read_log(log), samples=100, ranks=4),
    }


# name: what its text says, and what only its HTML does
SAYS = {
    "Prediction": (
        ["[SEG] and [SEG]", "2, 12.5% of the image", "900 x 600 pixels", "0.75 (vision 0.25", "1.50 GiB", STAMP],
        ["Probability", 'alt="Answer: [SEG] and [SEG]; Masks: 2'],
    ),
    "Plan": (["Chosen", "bf16 on cuda:0", "→ bf16, cuda:0 ", "of 24.00 GiB", "nf4"], []),
    "Inventory": (["sa2va, internvl", "Missing", "nothing", "Together", "and 6 more"], ["SAM2 image encoder"]),
    "Dataset": (
        ["72 images of 12 patients", "blood vessel", "train 24, val 18, test 30"],
        ["P01-V1-F001", "annotated"],
    ),
    "Sample": (["Sample(Id: P01-V1-F006", "Patient: P01", "Annotated: yes"], ["% annotated"]),
    "Run": (["mine", "darkness, fp32", "3 of 3 images, 0 failed", "classical"], []),
    "Segmenter": (
        ["8,182,606,130", "the most precise that fits", "11.00 GiB on cuda:0", "to int8 on cuda:0: out of"],
        [],
    ),
    "Conversation": (["90 x 60 pixels", "1. Where is it?", "Left of the spine"], []),
    "Difference": (["p = ", "12 images of 6 patients", "Distinguishable"], []),
    "Comparison": (["6 of 2 films", "0.700 frame by frame, 0.800 tracked", "2.000 frame by frame, 1.000 tracked"], []),
    "Audit": (["480 iterations", "loss_dice", "0.1118 → 0.0968", "more"], ["warmup"]),
}


@pytest.mark.parametrize("name", SAYS)
def test_it_shows_itself_as_text_and_as_html(things, name):
    thing, (text, more) = things[name], SAYS[name]
    lines = repr(thing).splitlines()
    assert 1 <= len(lines) <= MOST
    assert max(map(len, lines)) <= BROAD
    assert [part for part in text if part not in repr(thing)] == []
    html = thing._repr_html_()
    assert [part for part in [name, *more] if part not in html] == []
    assert re.findall(r'(?:src|href)="(?!data:)', html) == re.findall(r"https?://|url\(|<script|<style", html) == []
    assert len(re.findall(r"<img ", html)) == len(re.findall(r'<img [^>]*alt="[^"]', html))
    assert html.count("<img ") == {"Prediction": 2, "Sample": 1, "Dataset": STRIP}.get(name, 0)
    assert len(html) < 200_000


@pytest.mark.parametrize("name", SAYS)
def test_what_is_said_is_chinese_on_a_chinese_page(things, name):
    facts = things[name].facts
    with use_language("zh"):
        html = things[name]._repr_html_()
    heads = re.findall(r'<th scope="row"[^>]*>([^<]*)', html)
    own = {"Conversation": 1, "Audit": 2, "Plan": 1, "Inventory": len(facts), "Comparison": 1}.get(name, len(facts))
    assert [head for head in heads[:own] if not re.search(r"[\u4e00-\u9fff]", head) and head not in ("LoRA",)] == []


def test_pictures_are_left_out_where_there_are_none():
    assert prediction()._repr_html_().count("<img ") == 1  # the probability alone
    lost = dataclasses.replace(prediction(), error="The frame is damaged.")
    assert "<img " not in lost._repr_html_()
    assert "the frame cannot be read" in repr(lost)
    blank = Prediction(np.zeros((0, 32, 32), np.float32), (0, 0), "Left of the spine.")
    assert "<img " not in blank._repr_html_()
    assert "Image: none" in repr(blank)
    assert dataclasses.replace(blank, size=(40, 60))._repr_html_().count("<img ") == 1


def test_nothing_steers_the_terminal_or_the_page():
    bad = Prediction(np.zeros((0, 8, 8), np.float32), (4, 4), "\x1b[31m<b>red\u202e")
    assert "\x1b" not in repr(bad)
    assert "\u202e" not in repr(bad) + bad._repr_html_()
    assert "<b>red" not in bad._repr_html_()


def test_an_image_is_read_once_and_its_name_never_shown(demo, tmp_path, monkeypatch):
    image = tmp_path / "Mustermann_Max.png"
    Image.open(demo.samples[0].image).save(image)
    sample = dataclasses.replace(demo.samples[0], image=image)
    opened = []
    monkeypatch.setattr(shown, "read_pixels", lambda path: opened.append(path) or read_pixels(path))
    data = dataclasses.replace(demo, root=tmp_path, samples=[sample])
    assert "Mustermann" not in "".join([repr(sample), repr(data), sample._repr_html_(), data._repr_html_()])
    assert opened == [image] * 2  # once for each of the two pages
    image.write_bytes(b"no image")
    assert "cannot be read" in data._repr_html_()


def test_a_picture_is_made_small_by_a_whole_number():
    assert Picture(np.zeros((800, 600), np.uint8), None).thumbnail.shape == (400, 300, 3)
    assert Picture(np.zeros((50, 60), np.uint8), None).thumbnail.shape == (50, 60, 3)


def test_a_dice_stands_there_where_it_was_measured(things):
    (things["Run"].folder / "metrics.json").write_text(
        '{"metrics": {"summary": {"dice": {"macro": 0.8125}, "n_images": 3}}}'
    )
    assert "0.812 on 3 images" in repr(things["Run"])
    (things["Run"].folder / "metrics.json").write_text("[]")
    assert "Dice" not in repr(things["Run"])


def test_without_views_an_object_is_text_alone():
    code = """
import sys, numpy as np
sys.modules["sa2va_lab.views"] = None
from sa2va_lab.prediction import Prediction
thing = Prediction(np.zeros((0, 8, 8), np.float32), (4, 4), "None.")
print(thing._repr_html_(), repr(thing), sorted({"torch", "matplotlib", "pandas"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "None Prediction(Answer: None., Masks: none, Image: 4 x 4 pixels) []", done.stderr
