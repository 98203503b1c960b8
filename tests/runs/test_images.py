"""Single images: what lies in the folder is always that of the image that it is said to be of."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sa2va_lab.datasets import open_dataset
from sa2va_lab.errors import LabError
from sa2va_lab.runs import predict_dataset
from sa2va_lab.runs.images import Picture, check_images, predict_images
from sa2va_lab.sa2va.processing import read_image


@pytest.fixture
def draw(tmp_path):
    """draw("a/one.png", 40) -> a Picture of that grey with a dark half; no two greys look alike."""

    def make(name, grey, id=None):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((20, 30), grey, np.uint8)
        pixels[:10] = 20
        Image.fromarray(pixels).save(path)
        return Picture(id or path.stem, path)

    return make


@pytest.fixture
def predict(make_segmenter):
    """predict(out, *pictures) -> the lines, written with a file for each overlay."""

    def run(out, *pictures, prompt="dark 60", segmenter=None):
        how = {"folder": out, "save_overlay": lambda path, image, mask: path.write_bytes(mask.tobytes())}
        return list(predict_images(segmenter or make_segmenter(), pictures, prompt, **how))

    return run


def listed(out):
    return [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]


def test_another_image_of_the_same_name_is_refused_before_it_takes_a_place(draw, predict, tmp_path):
    out, first, other = tmp_path / "out", draw("a/one.png", 100), draw("b/one.png", 200)
    predict(out, first)
    before = {path: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(LabError, match="holds one of another image: predict this one into another folder"):
        predict(out, draw("c/two.png", 90), other)
    assert {path: path.read_bytes() for path in out.iterdir()} == before
    same = Picture("one", tmp_path / "d" / "one.png")
    same.image.parent.mkdir()
    same.image.write_bytes(first.image.read_bytes())
    predict(out, same)  # the same picture by another path
    assert [line["image"] for line in listed(out)] == [str(same.image)]


def test_a_relative_name_may_be_another_image_from_another_folder(draw, predict, tmp_path, monkeypatch):
    out, first, other = tmp_path / "out", draw("a/one.png", 100), draw("b/one.png", 200)
    monkeypatch.chdir(first.image.parent)
    predict(out, first._replace(image=Path("one.png")))
    monkeypatch.chdir(other.image.parent)
    with pytest.raises(LabError, match="holds one of another image"):
        predict(out, other._replace(image=Path("one.png")))


def test_a_film_is_never_taken_for_its_first_frame(draw, predict, make_segmenter, tmp_path):
    first = draw("a/one.png", 100)
    frames = [Image.fromarray(np.full((20, 30), grey, np.uint8)) for grey in (90, 120, 150)]
    cine = Picture("cine", tmp_path / "a" / "cine.gif")
    frames[0].save(cine.image, save_all=True, append_images=frames[1:])

    class Reading(make_segmenter):  # as the Segmenter reads
        def predict(self, image, prompt):
            read_image(image)
            return super().predict(image, prompt)

    lines = predict(tmp_path / "out", first, cine, segmenter=Reading())
    assert lines[0]["error"] is None
    assert "is a file of 3 pictures, no image: predict it as a film" in lines[1]["error"]
    dataset = open_dataset([first.image, cine.image], phrase="dark 60")
    run = predict_dataset(Reading(), dataset, folder=tmp_path / "run", progress=False)
    assert run.failed_ids == [dataset.samples[1].id]
    assert "cine" not in run.records[1]["error"]


def test_a_preview_in_a_telephones_picture_makes_no_film(tmp_path):
    pictures = [Image.fromarray(np.full((20, 30), grey, np.uint8)) for grey in (30, 30)]
    pictures[0].save(tmp_path / "a.jpg", "mpo", save_all=True, append_images=pictures[1:])
    assert read_image(tmp_path / "a.jpg").size == (30, 20)


def test_pseudonyms_are_told_apart_by_the_images_bytes(draw, predict, tmp_path):
    """Two folders with a key each may call two images the same."""
    out = tmp_path / "outputs" / "mine"
    first, other = draw("a/INVENTED.png", 100, "P01-V1-F001"), draw("b/INVENTED.png", 200, "P01-V1-F001")
    predict(out, first)
    assert [line["image"] for line in listed(out)] == ["P01-V1-F001"]
    with pytest.raises(LabError, match="holds P01-V1-F001 of another image"):
        check_images([other], "dark 60", out)
    predict(out, first)
    assert all(b"INVENTED" not in path.read_bytes() for path in out.iterdir())


def test_an_image_that_changed_is_predicted_anew_and_its_line_replaced(draw, predict, tmp_path):
    out, kept = tmp_path / "out", draw("a/kept.png", 100)
    predict(out, kept, draw("a/one.png", 100))
    old = listed(out)[1]
    predict(out, draw("a/one.png", 40), prompt="dark 10")
    assert [line["image"] for line in listed(out)] == [str(kept.image), old["image"]]
    assert listed(out)[1]["image_sha256"] != old["image_sha256"]
    assert listed(out)[1]["n_seg"] == 0


def test_a_kill_leaves_lines_that_the_next_call_takes_up(draw, predict, make_segmenter, tmp_path):
    class Killed(BaseException):
        pass

    class Dying(make_segmenter):
        def predict(self, image, prompt):
            if len(self.seen) == 1:
                raise Killed
            return super().predict(image, prompt)

    out, pictures = tmp_path / "out", [draw(f"a/{name}.png", 100) for name in ("one", "two", "three")]
    predict(out, *pictures)
    with pytest.raises(Killed):
        predict(out, *pictures, segmenter=Dying(), prompt="dark 10")
    with open(out / "predictions.jsonl", "a") as lines:
        lines.write('{"image": "cut o')
    predict(out, pictures[2])
    assert {line["image"]: line["n_seg"] for line in listed(out)} == {
        str(picture.image): number for picture, number in zip(pictures, (0, 1, 1), strict=True)
    }


def test_a_link_in_the_folder_is_not_followed(draw, predict, tmp_path):
    out, precious = tmp_path / "out", tmp_path / "precious"
    out.mkdir()
    precious.write_text("precious")
    for name in ("predictions.jsonl", "one.npz"):
        (out / name).symlink_to(precious)
    predict(out, draw("a/one.png", 100))
    assert precious.read_text() == "precious"
    assert len(listed(out)) == 1
