"""predict FILM: as a person types it; nothing of a DICOM but its pixels gets out."""

import json
import sys

import numpy as np
import pytest
from PIL import Image, ImageSequence

from sa2va_lab import cli
from sa2va_lab.commands import predictions
from sa2va_lab.datasets import open_dataset
from sa2va_lab.files import open_image
from sa2va_lab.prediction import Prediction
from sa2va_lab.runs import predict_dataset
from tests.datasets.test_films import PLANTED, write_dicom, write_folder, write_pages

COUNT = 7


@pytest.fixture
def lab(monkeypatch, capfd, make_follower):
    """lab(*words) -> (exit status, stdout, stderr) of `sa2va-lab predict` with a segmenter that follows."""

    def call(*words):
        segmenter = make_follower()
        monkeypatch.setattr(predictions, "_load", lambda *_: segmenter)
        words = ["predict", *words, "--model", "none", "--prompt", "dark 100"]
        monkeypatch.setattr(sys, "argv", ["sa2va-lab", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capfd.readouterr()
        return ended.value.code or 0, said.out, said.err

    return call


def draw(count=COUNT):
    """uint8 (count, 21, 30): a dark square that moves."""
    frames = np.full((count, 21, 30), 200, np.uint8)
    for number, frame in enumerate(frames):
        frame[4:12, number : number + 9] = 10 + number
    return frames


def listed(out):
    return [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]


def names(out):
    return {path.name for path in out.iterdir()}


def test_a_film_becomes_logits_overlays_lines_and_a_film_of_overlays(lab, tmp_path):
    film, out = write_pages(tmp_path / "cine.gif", draw(), duration=100), tmp_path / "out"
    status, said, _ = lab(film, "--out", out, "--png")
    assert (status, said.splitlines()[-1]) == (0, f"7 predictions in {out}")
    assert "GIF of 7 pictures; cine_overlay.mp4: mp4 (libx264), 10 frames a second" in said
    stems = [f"cine-F{number:03d}" for number in range(1, 8)]
    files = {f"{stem}{ending}" for stem in stems for ending in (".npz", "_overlay.png", "_mask.png")}
    assert names(out) == files | {"predictions.jsonl", "cine_overlay.mp4"}
    lines = listed(out)
    assert [(line["image"], line["frame"], line["error"]) for line in lines] == [
        (str(film), number, None) for number in range(1, 8)
    ]
    assert Prediction.from_npz(out / "cine-F003.npz").size == (21, 30)
    assert lab(film, "--out", out)[0] == 0
    assert [line["frame"] for line in listed(out)] == list(range(1, 8))  # once more: replaced, not added
    other = write_pages(tmp_path / "b" / "cine.gif", draw()[::-1]) if (tmp_path / "b").mkdir() is None else None
    status, _, error = lab(other, "--out", out)
    assert status == 2
    assert "holds cine-F001 of another image" in error


def test_without_pyav_the_film_of_overlays_is_a_gif(lab, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    status, said, _ = lab(write_pages(tmp_path / "a.tif", draw()), "--out", tmp_path / "out")
    assert status == 0
    assert "a_overlay.gif: an animated GIF, since PyAV is not installed (pip install" in said
    with open_image(tmp_path / "out" / "a_overlay.gif") as opened:
        assert (opened.n_frames, opened.size) == (7, (30, 21))


def test_a_folder_of_frames_is_a_film_and_a_broken_one_is_said(lab, tmp_path):
    film, out = write_folder(tmp_path / "cine", draw()), tmp_path / "out"
    broken = film / "NOTREAL-0042_F3.png"
    broken.write_bytes(broken.read_bytes()[:60])
    status, said, error = lab(film, "--out", out, "--json")
    assert status == 2
    assert "1 of 7 frames were not predicted" in error
    lines = listed(out)
    assert [line["error"] is None for line in lines] == [True, True, False, True, True, True, True]
    assert lines[2]["error"].startswith("frame 3 of 7 cannot be read")
    last = json.loads(said.splitlines()[-1])
    assert last["reason"] == "a folder of 7 frames, in natural order of their names"
    assert last["defects"] == [lines[2]["error"]]
    assert not (out / "cine-F003.npz").exists()
    assert (out / "cine-F007.npz").exists()


def test_films_and_images_are_not_mixed_up(lab, tmp_path):
    film, out = write_pages(tmp_path / "cine.gif", draw()), tmp_path / "out"
    Image.fromarray(draw()[0]).save(tmp_path / "one.png")
    for words, said in {
        (film, tmp_path / "one.png"): "1 films were given, and 1 images: give one or the other",
        (tmp_path / "one.png", "--sample", "spread"): "0 films were given",
        (film, "--track"): "--track is for a data set",
    }.items():
        status, _, error = lab(*words, "--out", out)
        assert (status, said in error) == (2, True), error
    status, _, error = lab(film)
    assert status == 2
    assert "images need --prompt and --out" in error
    assert not out.exists()


def test_several_films_of_hidden_names(lab, tmp_path):
    films = [write_pages(tmp_path / f"NOTREAL-0042-{n}.tif", draw(n)) for n in (2, 3)]
    out = tmp_path / "outputs" / "mine"
    status, said, error = lab(*films, "--out", out, "--sample", "spread")
    assert status == 0
    assert "NOTREAL" not in said + error + "".join(names(out)) + (out / "predictions.jsonl").read_text()
    assert {line["image"] for line in listed(out)} == {"P01-V1", "P02-V1"}
    assert {"P01-V1_overlay.mp4", "P02-V1-F002.npz"} < names(out)


@pytest.mark.parametrize("damage", ["", "frames", "tags"])
def test_nothing_planted_in_a_dicom_gets_out(lab, tmp_path, damage):
    """In tags of the patient, of the study, of the pixels' own group; also where frames are lacking."""
    more = {"PatientComments": PLANTED[0], "ReferringPhysicianName": PLANTED[0], "ImageComments": PLANTED[1]}
    if damage == "tags":
        more |= {"WindowCenterWidthExplanation": PLANTED[0], "BurnedInAnnotation": PLANTED[1][:16]}
        more |= {"FrameTime": "1", "LossyImageCompressionMethod": PLANTED[1]}
    path = write_dicom(tmp_path / "IM1.dcm", draw(), **more)
    if damage == "frames":
        path.write_bytes(path.read_bytes()[:-1000])
    out = tmp_path / "out"
    status, said, error = lab(path, "--out", out)
    assert status == (2 if damage == "frames" else 0)
    assert len(listed(out)) == COUNT
    told = [said.encode(), error.encode(), *(file.read_bytes() for file in out.iterdir())]
    told += [name.encode() for name in names(out)]
    for word in PLANTED:
        assert not [one for one in told if word.encode() in one or word.encode("utf-16-le") in one]
    if damage != "tags":
        assert "the DICOM does not say that no text is burnt into it" in error


def test_a_folder_of_dicoms_is_no_data_set_and_names_nobody(lab, tmp_path):
    write_dicom(tmp_path / "IM1.dcm", draw())
    status, said, error = lab(tmp_path)
    assert status == 2
    assert "1 films (videos, DICOM) left out: predict them as films" in error
    assert not any(word in said + error for word in PLANTED)


def test_a_data_set_without_sequences_is_not_tracked(lab, tmp_path):
    for name in ("left", "right"):
        Image.fromarray(draw()[0]).save(tmp_path / f"{name}.png")
    status, _, error = lab(tmp_path, "--track", "--outputs", tmp_path / "o")
    assert status == 2
    assert "no sequence of this data set has more than one frame: leave out --track" in error


def test_a_data_set_is_tracked_into_a_run(lab, tmp_path):
    data = tmp_path / "data"
    for path in write_folder(tmp_path / "film", draw()).iterdir():
        data.mkdir(exist_ok=True)
        path.rename(data / path.name.replace("_F", "_V1_F"))
    status, said, _ = lab(data, "--track", "--sample", "spread", "--outputs", tmp_path / "o", "--run", "mine")
    assert status == 0
    assert "7 images, 0 failed" in said
    [meta] = [json.loads(path.read_text()) for path in (tmp_path / "o").rglob("run.json")]
    assert meta["tracked"] == {"keep": 5, "sample": "spread"}
    status, _, error = lab(data, "--outputs", tmp_path / "o", "--run", "mine")
    assert status == 2
    assert "made with other tracking" in error


def test_gif_overlays_move(lab, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    lab(write_pages(tmp_path / "a.gif", draw()), "--out", tmp_path / "out")
    with Image.open(tmp_path / "out" / "a_overlay.gif") as opened:
        frames = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(opened)]
    assert all((one != other).any() for one, other in zip(frames, frames[1:], strict=False))


def test_what_was_tracked_is_said_wherever_a_run_is_read(lab, films, make_follower, tmp_path, monkeypatch, capfd):
    how = {"folder": tmp_path / "runs" / "r", "track": True, "progress": False}
    run = predict_dataset(make_follower(), open_dataset(films), **how)
    for words in (["evaluate", str(run.folder), "--data", str(films)], ["runs", "--outputs", str(tmp_path)]):
        monkeypatch.setattr(sys, "argv", ["sa2va-lab", *words])
        with pytest.raises(SystemExit):
            cli.main()
        assert "keep 5" in capfd.readouterr().out
