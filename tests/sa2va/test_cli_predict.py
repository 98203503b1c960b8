"""`sa2va-lab predict` as a user meets it: what it writes, and what it says when something is wrong."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from sa2va_lab import cli
from sa2va_lab.prediction import Prediction
from sa2va_lab.runs import open_run

pytestmark = pytest.mark.usefixtures("_no_colours")


@pytest.fixture
def _no_colours(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.fixture
def call(monkeypatch, capsys, tiny_folder):
    """Runs the command in this process: (status, stdout, stderr)."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["sa2va-lab", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        printed = capsys.readouterr()
        return stopped.value.code or 0, printed.out, printed.err

    return run


@pytest.fixture
def picture(grey_image, tmp_path):
    path = tmp_path / "in" / "one.png"
    path.parent.mkdir()
    Image.fromarray(grey_image).save(path)
    return path


def test_writes_what_the_docs_say(call, picture, tiny_folder, tmp_path, grey_image):
    out = tmp_path / "out"
    asked = ["--model", tiny_folder, "--prompt", "blood vessel", "--answer", "Sure, [SEG].", "--out", out]
    status, printed, _ = call("predict", picture, *asked, "--json")
    assert status == 0
    lines = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert [json.loads(line) for line in printed.splitlines()] == lines
    assert set(lines[0]) == {"image", "image_sha256", "answer", "n_seg", "seconds", "error"}
    assert (lines[0]["answer"], lines[0]["n_seg"], lines[0]["error"]) == ("Sure, [SEG].", 1, None)
    arrays = np.load(out / "one.npz")
    assert arrays["logits"].shape == (1, 256, 256)
    assert tuple(arrays["size"]) == grey_image.shape
    assert Image.open(out / "one_overlay.png").size == grey_image.shape[::-1]
    assert sorted(path.name for path in out.iterdir()) == ["one.npz", "one_overlay.png", "predictions.jsonl"]

    second = picture.with_name("two.png")
    second.write_bytes(picture.read_bytes())
    for images in ([second], [picture]):  # a further image adds a line, the same one again replaces its own
        assert call("predict", *images, *asked)[0] == 0
    lines = [json.loads(line)["image"] for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert sorted(lines) == [str(picture), str(second)]


def test_masks_as_png(call, picture, tiny_folder, tmp_path):
    out = tmp_path / "out"
    asked = ["--model", tiny_folder, "--prompt", "blood vessel", "--png"]
    assert call("predict", picture, *asked, "--out", out, "--answer", "Sure, [SEG].")[0] == 0
    with np.load(out / "one.npz") as arrays:
        made = Prediction(arrays["logits"], tuple(arrays["size"].tolist()), "", canvas=int(arrays["canvas"]))
    assert np.array_equal(np.asarray(Image.open(out / "one_mask.png")), made.mask() * np.uint8(255))
    data = ["predict", picture.parent, *asked, "--run", "r", "--outputs", tmp_path]
    assert call(*data)[0] == 0
    [folder] = tmp_path.glob("runs/*/png")
    run = open_run(folder.parent)
    [mask] = (folder / "masks").iterdir()
    assert np.array_equal(np.asarray(Image.open(mask)) == 255, run.prediction(mask.stem).mask())
    status, _, said = call(*data)
    assert (status, "masks are never overwritten" in said) == (2, True)


def test_an_unreadable_image_does_not_stop_the_others(call, picture, tiny_folder, tmp_path):
    bad = picture.with_name("bad.png")
    bad.write_text("no image")
    out = tmp_path / "out"
    status, _, said = call(
        "predict", bad, picture, "--model", tiny_folder, "--prompt", "x", "--answer", "[SEG].", "--out", out
    )
    assert status == 2
    assert "1 of 2 images" in said
    errors = {
        line["image"]: line["error"] for line in map(json.loads, (out / "predictions.jsonl").read_text().splitlines())
    }
    assert errors[str(picture)] is None
    assert "not a readable image" in errors[str(bad)]
    assert (out / "one.npz").is_file()
    assert not (out / "bad.npz").exists()


def test_mistakes_get_one_sentence_and_write_nothing(call, picture, tiny_folder, tmp_path):
    full = tmp_path / "full"
    full.mkdir()
    (full / "thesis.tex").write_text("precious")
    file = tmp_path / "file"
    file.write_text("precious")
    out, twin = tmp_path / "out", picture.parent / "again" / "one.png"
    cut = tmp_path / "cut"
    cut.mkdir()
    for path in tiny_folder.iterdir():
        (cut / path.name).write_bytes(path.read_bytes()[: -1000 if path.suffix == ".safetensors" else None])
    cases = {
        "There is nothing at": [picture, "--model", tmp_path / "nowhere", "--prompt", "x", "--out", out],
        "no *.safetensors": [picture, "--model", full, "--prompt", "x", "--out", out],
        "damaged or cut short": [picture, "--model", cut, "--prompt", "x", "--out", out],
        "prompt is empty": [picture, "--model", tiny_folder, "--prompt", " ", "--out", out],
        "holds something else": [picture, "--model", tiny_folder, "--prompt", "x", "--out", full],
        "is a file": [picture, "--model", tiny_folder, "--prompt", "x", "--out", file],
        "occur twice": [picture, twin, "--model", tiny_folder, "--prompt", "x", "--out", out],
        "not available": [picture, "--model", tiny_folder, "--prompt", "x", "--out", out, "--precision", "int3"],
        "devices are visible": [
            picture,
            "--model",
            tiny_folder,
            "--prompt",
            "x",
            "--out",
            out,
            "--device",
            "cuda:9",
        ],
    }
    for sentence, words in cases.items():
        status, printed, said = call("predict", *words)
        assert status == 2, sentence
        assert sentence in said
        assert said.startswith("sa2va-lab: ")
        assert "Traceback" not in said
        assert printed == ""
        assert not out.exists()
    assert (full / "thesis.tex").read_text() == "precious"
    assert [path.name for path in full.iterdir()] == ["thesis.tex"]


def test_the_installed_command(tmp_path):
    """As a process of its own, from another folder."""
    words = ["predict", "x.png", "--model", "nowhere", "--prompt", "x", "--out", "o"]
    done = subprocess.run([sys.executable, "-m", "sa2va_lab.cli", *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == (
        "sa2va-lab: There is nothing at nowhere: give a checkpoint folder, a .pth, or a hub id OWNER/NAME.\n"
    )
