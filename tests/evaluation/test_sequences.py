"""Films asked frame by frame beside films that were followed: every number worked out by hand on drawn squares."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from sa2va_lab.datasets.formats import open_dataset
from sa2va_lab.errors import LabError
from sa2va_lab.evaluation.sequences import compare_sequences, list_sequences, share_changed, whole_films
from sa2va_lab.prediction import Prediction
from sa2va_lab.reports.runner import run_report
from sa2va_lab.runs import predict_dataset
from sa2va_lab.views import following as views

FRAMES = 4  # in each of two films, of a patient each; a square of 8 x 8 pixels moves 4 to the right in every one
PLACES = {"still": (4, 8, 12, 16), "tracked": (4, 8, 8, 8)}  # the followed one stands still after two frames


def square(left: int) -> np.ndarray:
    mask = np.zeros((32, 32), bool)
    mask[8:16, left : left + 8] = True
    return mask


@pytest.fixture
def films(tmp_path):
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    listed = []
    for patient in ("INVENTED-A", "INVENTED-B"):
        for frame, left in enumerate(PLACES["still"]):
            name = f"{patient}_V1_F{frame:02d}.png"
            Image.fromarray(np.full((32, 32), 100 + frame, np.uint8)).save(folder / "images" / name)
            corners = [left, 8, left + 8, 8, left + 8, 16, left, 16]
            listed.append({"image": name, "mask": [[corners]], "text": ["blood vessel"]})
    alone = "INVENTED-C_V1_F00.png"
    Image.fromarray(np.full((32, 32), 90, np.uint8)).save(folder / "images" / alone)
    listed.append({"image": alone, "mask": [[[0, 0, 4, 0, 4, 4, 0, 4]]], "text": ["blood vessel"]})
    (folder / "annotations.json").write_text(json.dumps(listed))
    return open_dataset(folder)


@pytest.fixture
def predict(films, make_segmenter, tmp_path):
    """A Run that draws each frame's square at its place. broken: the grey of frames that fail."""

    def run(way: str, *, broken=(), weights="0" * 64):
        class Draws(make_segmenter):
            def predict(self, image, prompt):
                grey = int(np.asarray(Image.open(image)).flat[0])
                if grey in broken:
                    raise LabError("broken")
                logits = np.where(square(PLACES[way][max(grey - 100, 0)]), 5, -5).astype(np.float32)
                seconds = {"answer": 0.5} if grey < 102 else {}
                return Prediction(logits[None], (32, 32), "Sure, [SEG].", canvas=32, seconds=seconds)

            def track(self, frames, prompt, **how):
                return (self.predict(frame.image, prompt) for frame in frames)

        folder = tmp_path / "outputs" / "runs" / f"{way}{len(broken)}{weights[0]}"
        how = {"track": {"keep": 2}} if way == "tracked" else {}
        made = predict_dataset(Draws(weights=weights), films, folder=folder, progress=False, **how)
        for record in made.records:
            frame = record.get("frame")
            record["seconds"] = {"wall": 2.0 if way == "still" else 4.0 if frame == 1 else 1.0}
            record["seconds"] |= {"answer": 0.5} if frame in (1, 2) else {}
        return made

    return run


def test_the_share_of_two_masks_that_changed_by_hand():
    assert share_changed(square(4), square(4)) == 0
    assert share_changed(square(4), square(8)) == pytest.approx(2 / 3)  # 64 pixels of 96 lie in one of them only
    assert share_changed(square(4), square(12)) == 1
    assert np.isnan(share_changed(np.zeros((2, 2), bool), np.zeros((2, 2), bool)))


def test_a_sequence_has_three_frames_or_more(films):
    found = list_sequences(films)
    assert [len(ids) for ids in found.values()] == [FRAMES, FRAMES]
    assert all(ids == sorted(ids) for ids in found.values())


def test_both_ways_by_hand(films, predict):
    found = compare_sequences(predict("still"), predict("tracked"), films)
    assert (found.asked, found.keep) == ({"still": 8, "tracked": 2}, 2)
    assert found.table["dice_still"].tolist() == [1.0] * 8
    assert found.table["dice_tracked"].tolist() == [1.0, 1.0, 0.5, 0.0] * 2
    assert found.table["shown"].tolist() == [True, True, False, False] * 2
    dice, followed, changed, seconds = (
        found.measures[name] for name in ("dice", "dice_followed", "changed", "seconds")
    )
    assert (dice.still, dice.tracked, dice.difference.mean) == (1.0, 0.625, -0.375)
    assert (dice.difference.n_images, dice.difference.n_groups) == (8, 2)
    assert (followed.tracked, followed.difference.mean, followed.difference.n_images) == (0.25, -0.75, 4)
    # the truth and the still masks move by two thirds each time, the followed ones only once in three
    assert changed.still == pytest.approx(2 / 3)
    assert changed.truth == pytest.approx(2 / 3)
    assert changed.tracked == pytest.approx(2 / 9)
    assert changed.difference.n_images == 6  # the first frame of a film has none before it
    assert (seconds.still, seconds.tracked, seconds.difference) == (2.0, 1.75, None)


def test_a_frame_that_failed_is_in_no_number_nor_is_the_change_across_it(films, predict):
    found = compare_sequences(predict("still", broken=(101,)), predict("tracked"), films)
    assert found.table["frame"].tolist() == [1, 3, 4] * 2
    assert found.measures["dice"].difference.n_images == 6
    assert found.measures["changed"].difference.n_images == 2  # from frame 3 to 4, in two films


def test_what_is_no_such_pair_is_refused(films, predict):
    still, tracked = predict("still"), predict("tracked")
    with pytest.raises(LabError, match="was asked frame by frame, but a run that was tracked is needed"):
        compare_sequences(still, still, films)
    with pytest.raises(LabError, match="was tracked, but a run that was asked frame by frame"):
        compare_sequences(tracked, tracked, films)
    with pytest.raises(LabError, match="differ in weights"):
        compare_sequences(predict("still", weights="1" * 64), tracked, films)


def test_what_the_notebook_says_of_both_ways(films, predict):
    runs = {"still": predict("still"), "tracked": predict("tracked")}
    found = compare_sequences(*runs.values(), films)
    answer = views.answer_films(found)
    assert answer.sentence.startswith("Followed through 2 films, Dice is 0.625; frame by frame it is 1.000 (difference")
    assert "asked 2 times instead of 8. A frame took 1.75 s instead of 2.00 s." in answer.sentence
    assert answer.metrics.measures["dice"]["difference"]["mean"] == -0.375
    rows = {row[0]: row[1:] for row in views.ways_table(found).rows}
    assert rows["Dice, frames that the language model did not see"][:2] == ["1.000", "0.250"]
    assert rows["Share of the mask that changes from frame to frame"][:3] == ["0.667", "0.222", "0.667"]
    assert rows["Times that the language model was asked"][:2] == ["8", "2"]
    alt = views.show_courses(found).alt
    assert "followed from 1.000 to 0.000; the language model saw 2 frames of each" in alt
    alt = views.show_strip(found, runs, films).alt
    assert "-V1-F004, where the ways differ most: Dice 1.000 frame by frame, 0.000 followed" in alt


def test_where_there_is_nothing_to_follow_every_part_says_so(films):
    alone = films.select(films.samples[-1].id for _ in range(1))
    assert whole_films(alone) is None
    said = "Nothing was followed: no sequence of 3 frames or more lies whole in these images, or no model was given."
    assert views.answer_films(None).sentence == said
    for shown in (views.ways_table(None), views.show_courses(None), views.show_strip(None, {}, films)):
        assert shown.data == said


def test_only_films_that_a_run_holds_whole_are_followed(films, predict):
    still = predict("still")
    first, _ = list_sequences(films).values()
    kept = [name for name in still.sample_ids if name != first[1]]
    cut = replace(still, meta=still.meta | {"dataset": still.meta["dataset"] | {"samples": kept}})
    assert [len(whole_films(films, run)) for run in (None, still, cut)] == [8, 8, 4]


def test_the_notebook_runs_on_films_and_on_what_has_none(films, predict, make_dataset, tmp_path, read_page):
    given = {"data": films.root, "run": predict("still").folder, "tracked": predict("tracked").folder}
    index = run_report(["07_films"], parameters=given, outputs=tmp_path / "outputs", name="films")
    page = read_page(index.with_name("07_films.html"))
    assert "Dice is 0.625" in page.text
    assert page.text.count("is drawn against the ground truth") == 0  # an alt text is no text
    given = {"data": make_dataset("other"), "lang": "zh"}
    index = run_report(["07_films"], parameters=given, outputs=tmp_path / "outputs", name="none")
    assert "没有进行跟踪" in read_page(index).text
