"""Talking to a loaded model: real answers of the demo model, regions, a conversation, what is kept, and mistakes."""

import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from sa2va_lab import load, open_dataset, paths
from sa2va_lab.datasets.drawings import DrawnTruth
from sa2va_lab.errors import LabError
from sa2va_lab.prediction import Prediction
from sa2va_lab.sa2va.watching import hear_stages
from sa2va_lab.views.explorer import BRUSH, Explorer, Shown
from sa2va_lab.views.exploring import ask_script, build_explorer, script_figures, script_table


@pytest.fixture(scope="module")
def segmenter():
    return load(paths.demo_model(), device="cpu")


@pytest.fixture(scope="module")
def dataset():
    return open_dataset(paths.demo_data()).split("test")


@pytest.fixture
def explorer(segmenter, dataset, tmp_path):
    segmenter.forget()
    explorer = Explorer(segmenter, dataset, folder=tmp_path / "explored")
    explorer.open(dataset.samples[2].id)
    return explorer


def find(widget, description):
    todo, found = [widget], []
    while todo:
        one = todo.pop()
        found += [one] if getattr(one, "description", None) == description else []
        todo += getattr(one, "children", ())
    [only] = found
    return only


def said(widget):
    return widget.children[0].children[-2].value


def test_what_is_asked_is_answered_and_held_against_the_ground_truth(explorer, segmenter, dataset):
    shown = explorer.ask("blood vessel")
    own = segmenter.predict(dataset.samples[2].image, "blood vessel")
    assert np.array_equal(shown.predictions[0].logits, own.logits)
    truth = dataset.samples[2].truth("blood vessel")
    for threshold in (0.3, 0.7):
        mask = own.mask(threshold)
        dice = 2 * (mask & truth).sum() / (mask.sum() + truth.sum())
        picture, told = explorer.look(threshold=threshold)
        assert f">{dice:.3f}<" in told
        assert "of the annotated pixels are found" in picture
    explorer.ask("Where is the moon?")
    assert explorer.pair(explorer.shown).truth is None
    assert "Dice" not in explorer.look()[1]


def test_the_threshold_moves_without_the_model_and_a_known_image_is_not_seen_again(explorer, segmenter, monkeypatch):
    first = explorer.ask("blood vessel")
    again = explorer.ask("catheter")
    assert first.saved == 0
    assert again.saved > 0
    assert f"{again.saved:.2f} s were saved" in again.tell()
    monkeypatch.setattr(segmenter, "model", None)
    assert explorer.look(threshold=0.2)[0] != explorer.look(threshold=0.9)[0]


def test_objects_are_switched_on_and_off(explorer):
    logits = np.full((2, 64, 64), -9, np.float32)
    logits[0, :32], logits[1, 32:] = 9, 9
    shown = explorer.ask("blood vessel")
    explorer.shown = replace(shown, predictions=(Prediction(logits, (512, 512), "[SEG] [SEG]", canvas=512),))
    covered = [
        int(re.search(r"Mask, px.*?>([\d,]+)<", explorer.look(objects=o)[1])[1].replace(",", ""))
        for o in ([0], [1], [0, 1], [])
    ]
    assert covered == [512 * 256, 512 * 256, 512 * 512, 0]


def test_boxes_and_strokes_become_regions_that_the_model_is_asked_about(explorer):
    explorer.mark("box", [[0.75, 0.5], [0.25, 0.25]])
    box = explorer.regions[0]
    rows, columns = np.nonzero(box)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (128, 256, 128, 384)
    explorer.mark("brush", [[0.1, 0.875], [0.9, 0.875]])
    height = np.nonzero(explorer.regions[1][:, 256])[0]
    assert abs(len(height) - BRUSH * 512) <= 2
    plain = explorer.look()[0]
    explorer.ask("What is region1?")
    assert len(explorer.shown.regions) == 2
    explorer.clear()
    assert explorer.regions == []
    assert explorer.look()[0] != plain
    explorer.ask("What is region1?")  # a question about nothing that is marked is a question like any other


def test_a_conversation_goes_on_and_another_question_begins_anew(explorer):
    explorer.ask("blood vessel")
    explorer.ask("Is there a catheter?", go_on=True)
    assert [text for text, _ in explorer.turns] == ["blood vessel", "Is there a catheter?"]
    explorer.ask("sternal wire")
    assert [text for text, _ in explorer.turns] == ["sternal wire"]


def test_two_views_on_one_model_do_not_disturb_each_other(explorer, segmenter, dataset, tmp_path):
    other = Explorer(segmenter, dataset, folder=tmp_path)
    other.open(dataset.samples[9].id)
    alone = explorer.ask("blood vessel").predictions[0].logits
    other.ask("blood vessel")
    assert np.abs(explorer.ask("blood vessel", go_on=False).predictions[0].logits - alone).max() < 1e-3
    assert other.name != explorer.name


def test_what_is_kept_is_enough_to_look_again_and_names_nobody(explorer, dataset):
    with pytest.raises(LabError, match="no answer to keep"):
        explorer.keep()
    explorer.mark("box", [[0.2, 0.2], [0.4, 0.4]])
    shown = explorer.ask("blood vessel")
    folder = explorer.keep(threshold=0.4)
    name = explorer.name
    with Image.open(folder / f"{name}_mask.png") as mask:
        assert np.array_equal(np.asarray(mask) > 0, shown.predictions[0].mask(0.4))
    assert np.array_equal(Prediction.from_npz(folder / f"{name}.npz").logits, shown.predictions[0].logits)
    told = json.loads((folder / "provenance.json").read_text("utf-8"))
    assert (told["prompt"], told["threshold"], told["answers"]) == ("blood vessel", 0.4, {name: "Sure, [SEG]."})
    assert told["segmenter"]["weights_sha256"] == explorer.segmenter.provenance["weights_sha256"]
    assert (folder / "region1.png").exists()
    private = dataset[name].image.stem
    for path in folder.iterdir():
        assert private not in path.name
        assert private.encode() not in path.read_bytes()
    assert explorer.keep() != folder


def test_uploads_and_mistakes_are_said(explorer):
    with pytest.raises(LabError, match="cannot be read as an image"):
        explorer.upload(b"no image")
    buffer = io.BytesIO()
    Image.new("L", (40, 30), 90).save(buffer, format="png")
    name = explorer.upload(buffer.getvalue())
    explorer.open(name)
    assert explorer.ask("blood vessel").predictions[0].size == (30, 40)
    assert explorer.pair(explorer.shown).truth is None
    assert explorer.list_sequence() == []
    for wrong in ("", "  "):
        with pytest.raises(LabError, match="nothing was asked"):
            explorer.ask(wrong)
    with pytest.raises(LabError, match="belongs to no sequence"):
        explorer.track("blood vessel")
    with pytest.raises(LabError, match="no image is open"):
        Explorer(explorer.segmenter, folder=explorer.folder).ask("blood vessel")


def test_the_controls_do_what_they_say(explorer, segmenter, dataset, monkeypatch):
    widget = build_explorer(explorer)
    picture = widget.children[1].children[1]
    assert explorer.name == dataset.samples[0].id
    assert find(widget, "Keep").disabled
    find(widget, "Ask").click()
    assert "role='alert'" in said(widget)
    assert "nothing was asked" in said(widget)
    find(widget, "Image").value = dataset.samples[2].id
    assert f"{dataset.samples[2].id} is open." in said(widget)
    before = picture.html
    find(widget, "Suggestions").value = "blood vessel"
    find(widget, "Ask").click()
    assert "Answered in" in said(widget)
    assert picture.html != before
    assert "Sure, [SEG]." in widget.children[0].children[-1].value
    picture.told = {"tool": "box", "points": [[0.1, 0.1], [0.5, 0.5]], "at": 1}
    assert "ask about region1" in said(widget)
    find(widget, "Question").value = "What is region1?"
    find(widget, "Go on with the conversation").value = True
    find(widget, "Ask").click()
    assert widget.children[1].children[2].value.count("<li>") == 2
    find(widget, "Keep").click()
    assert "Kept in" in said(widget)
    assert len(list(explorer.folder.glob("*/provenance.json"))) == 1

    def step_down(*_, **__):
        segmenter.provenance.setdefault("steps", []).append({"from": "fp32", "to": "bf16", "why": "out of memory"})
        return Prediction(np.zeros((1, 64, 64), np.float32), (512, 512), "[SEG]", canvas=512)

    monkeypatch.setattr(explorer._talk, "_answer", step_down)
    find(widget, "Go on with the conversation").value = False
    find(widget, "Ask").click()
    assert "went from fp32 to bf16: out of memory." in said(widget)
    segmenter.provenance.pop("steps")
    monkeypatch.setattr(explorer._talk, "_answer", lambda _: (_ for _ in ()).throw(RuntimeError("out of memory")))
    find(widget, "Ask").click()
    assert "RuntimeError: out of memory" in said(widget)


def test_stages_are_told_while_the_model_is_at_work(explorer, segmenter):
    heard = []
    with hear_stages(heard.append):
        explorer.ask("blood vessel")
    explorer.ask("catheter")
    assert heard == ["pixels", "vision", "answer", "canvas", "masks"]


def test_a_sequence_is_followed_and_each_frame_can_be_looked_at(explorer, dataset):
    shown = explorer.track("blood vessel")
    frames = [sample.id for sample in dataset if sample.video == explorer.find(explorer.name).video]
    assert list(shown.names) == frames
    assert len({explorer.look(place=place)[0] for place in range(len(frames))}) == len(frames)
    assert f"followed through {len(frames)} frames" in shown.tell()
    kept = {path.name for path in explorer.keep().iterdir()}
    assert {f"{name}{end}" for name in frames for end in (".png", "_mask.png", ".npz")} < kept


def test_the_script_on_paper_asks_for_what_is_there_and_what_is_not(explorer, dataset):
    asked = ask_script(explorer)
    assert [one.prompt for one in asked] == [*dataset.phrases, "What is region1?", dataset.phrases[0]]
    truths = [explorer.pair(one).truth for one in asked[:3]]
    assert {truth.any() for truth in truths} == {True, False}
    assert len(asked[3].regions) == 1
    assert len(asked[4].predictions) == 6
    figures = list(script_figures(explorer, asked))
    assert len(figures) == 2
    assert all("“blood vessel”" in alt for _, alt in figures)
    assert len(script_table(asked).rows) == 5
    refused = Shown("What is region1?", ("P01",), (), 0, error="No regions here.")
    assert script_table([refused]).rows[0][2] == "No regions here."


def test_a_broken_frame_is_said_without_its_name_and_the_others_are_shown(segmenter, dataset, tmp_path):
    broken = tmp_path / "INVENTED-NAME_F00.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n")
    film = [sample for sample in dataset if sample.video == dataset.samples[2].video]
    samples = [replace(sample, image=broken) if place == 1 else sample for place, sample in enumerate(film)]
    explorer = Explorer(segmenter, replace(dataset, samples=samples), folder=tmp_path / "explored")
    with pytest.raises(LabError) as caught:
        explorer.open(film[1].id)
    assert "INVENTED" not in str(caught.value)
    assert film[1].id in str(caught.value)
    asked = ask_script(explorer)
    assert len(list(script_figures(explorer, asked))) == 2
    picture, told = explorer.look(place=1)
    assert picture == ""
    assert "this frame cannot be read" in told
    kept = sorted(path.name for path in explorer.keep().iterdir())
    assert not any(film[1].id in name or "INVENTED" in name for name in kept)
    assert "INVENTED" not in (next(explorer.folder.iterdir()) / "provenance.json").read_text("utf-8")


def test_a_data_set_of_which_nothing_can_be_read_makes_a_page_that_says_so(segmenter, dataset, tmp_path):
    broken = tmp_path / "INVENTED-NAME_F00.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n")
    alone = replace(dataset, samples=[replace(dataset.samples[2], image=broken)])
    explorer = Explorer(segmenter, alone, folder=tmp_path / "explored")
    asked = ask_script(explorer)
    [row] = script_table(asked).rows
    assert dataset.samples[2].id in row[2]
    assert "INVENTED" not in str(row)
    assert list(script_figures(explorer, asked)) == []


def test_what_is_ignored_is_in_no_number(segmenter, dataset, tmp_path):
    left = DrawnTruth((np.array([0, 0, 400, 0, 400, 800, 0, 800], float),))
    explorer = Explorer(
        segmenter, replace(dataset, samples=[replace(dataset.samples[2], ignored=left)]), folder=tmp_path
    )
    explorer.open(dataset.samples[2].id)
    explorer.ask("blood vessel")
    pair = explorer.pair(explorer.shown)
    assert pair.ignore.any()
    mask, truth = pair.mask(0.5), pair.truth
    assert not (mask & pair.ignore).any()
    assert f">{2 * (mask & truth).sum() / (mask.sum() + truth.sum()):.3f}<" in explorer.look()[1]
