"""Films in Runs: asked once, followed frame by frame, resumed at the start of a film, never taken for other Runs."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from sa2va_lab.datasets import open_dataset
from sa2va_lab.errors import LabError
from sa2va_lab.evaluation import evaluate_run
from sa2va_lab.evaluation.questions import ask_otherwise, predict_others
from sa2va_lab.evaluation.thresholds import settle_threshold
from sa2va_lab.evaluation.verification import verify_run
from sa2va_lab.runs import open_run, predict_dataset
from sa2va_lab.runs.shares import Rank, predict_share


def contents(run):
    """The records without their times, and the bytes of the logits."""
    records = [{name: value for name, value in record.items() if name != "seconds"} for record in run.records]
    return records, {path.name: path.read_bytes() for path in run.folder.glob("logits/*")}


def track(segmenter, dataset, folder, **how):
    return predict_dataset(segmenter, dataset, folder=folder, track=True, progress=False, **how)


def test_each_film_is_asked_once_and_each_frame_has_its_place(films, make_follower, tmp_path):
    segmenter, dataset = make_follower(), open_dataset(films)
    run = track(segmenter, dataset, tmp_path / "run")
    assert segmenter.asked == [("blood vessel", 5)] * 3
    assert run.meta["tracked"] == {"keep": 5, "sample": None}
    assert run.meta["dataset"]["chosen"] == "all 11 images, as 3 films"
    for record, sample in zip(run.records, dataset, strict=True):
        assert (record["id"], record["video"]) == (sample.id, sample.video)
        assert int(np.asarray(Image.open(sample.image)).min()) == 7 + record["frame"]  # as it was drawn
        assert record["seconds"].keys() == {"follow", "wall"}
    assert len(evaluate_run(run, dataset)) == 11
    assert track(make_follower(), dataset, tmp_path / "run").meta == run.meta


def test_a_film_that_was_cut_through_is_tracked_again_whole(films, make_follower, tmp_path):
    dataset = open_dataset(films)
    straight = track(make_follower(), dataset, tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        track(make_follower(stop_after=3), dataset, tmp_path / "run")
    cut = open_run(tmp_path / "run").records
    assert cut[-1]["frame"] in (2, 3)  # the last one may have waited for its turn to be written
    segmenter = make_follower()
    run = track(segmenter, dataset, tmp_path / "run")
    whole = {record["video"] for record in cut} - {cut[-1]["video"]}
    assert len(segmenter.asked) == 3 - len(whole)
    assert contents(run) == contents(straight)
    assert len((run.folder / "samples.jsonl").read_text().splitlines()) == 11


def test_a_broken_frame_is_a_record_and_the_film_goes_on(films, make_follower, tmp_path):
    dataset = open_dataset(films)
    broken = dataset.samples[1]
    broken.image.write_bytes(broken.image.read_bytes()[:50])
    run = track(make_follower(), dataset, tmp_path / "run")
    assert run.failed_ids == [broken.id]
    assert "cannot be read" in run.records[1]["error"] or "not a readable image" in run.records[1]["error"]
    assert "INVENTED" not in json.dumps(run.records)
    assert [record["frame"] for record in run.records if record["video"] == broken.video] == list(
        range(1, 1 + sum(sample.video == broken.video for sample in dataset))
    )
    whole = make_follower()
    again = track(whole, open_dataset(films), tmp_path / "run", retry_failed=True)
    assert len(whole.asked) == 1
    assert again.failed_ids == [broken.id]


def test_what_stops_a_film_costs_its_later_frames_only(films, make_follower, tmp_path):
    class Failing(make_follower):
        def predict(self, image, prompt):
            made = super().predict(image, prompt)
            if len(self.given) == 3:
                raise RuntimeError("no room left")
            if len(self.given) == 5:
                made.logits[:] = np.nan
            return made

    dataset = open_dataset(films)
    run = track(Failing(), dataset, tmp_path / "run")
    lengths = [sum(sample.video == video for sample in dataset) for video in dict.fromkeys(s.video for s in dataset)]
    errors = [record["error"] for record in run.records]
    first = lengths[0]
    assert errors[:2] == [None, None]
    assert errors[2:first] == ["RuntimeError: no room left"] * (first - 2)
    assert [error for error in errors[first:] if error] == [
        "the logits hold values that are not finite; a higher precision may help"
    ]


def test_no_other_run_is_taken_for_a_tracked_one(films, make_follower, tmp_path):
    dataset = open_dataset(films)
    tracked = track(make_follower(), dataset, tmp_path / "tracked")
    single = predict_dataset(make_follower(), dataset, folder=tmp_path / "single", progress=False)
    assert tracked.maker.differences(single.maker) == ["tracking"]
    with pytest.raises(LabError, match="made with other tracking .image by image there, keep 5 here"):
        track(make_follower(), dataset, single.folder)
    with pytest.raises(LabError, match="made with other tracking .keep 5 there, image by image here"):
        predict_dataset(make_follower(), dataset, folder=tracked.folder, progress=False)
    with pytest.raises(LabError, match="made with other tracking .keep 5 there, keep 9 here"):
        predict_dataset(make_follower(), dataset, folder=tracked.folder, track={"keep": 9}, progress=False)


@pytest.mark.parametrize("how", [{"limit": 3}, {"batch": 2}])
def test_films_are_tracked_whole(films, make_follower, tmp_path, how):
    with pytest.raises(LabError, match="films are tracked whole"):
        track(make_follower(), open_dataset(films), tmp_path / "run", **how)
    assert not (tmp_path / "run").exists()


def test_a_threshold_is_chosen_on_films_that_were_followed_alike(films, make_follower, tmp_path):
    splits = {"val": [], "test": []}
    for sample in open_dataset(films):
        splits["val" if sample.group == "P01" else "test"].append(sample.image.name)
    (films / "splits.json").write_text(json.dumps(splits))
    dataset = open_dataset(films)
    run = track(make_follower(), dataset, tmp_path / "run", split="test")
    choice = settle_threshold("", run, dataset, make_follower(), progress=False)
    assert choice.origin["tracking"] == "keep 5"
    assert open_run(tmp_path / "run_val").meta["tracked"] == {"keep": 5, "sample": None}
    single = predict_dataset(make_follower(), dataset, folder=tmp_path / "single", split="test", progress=False)
    shutil.copytree(tmp_path / "run_val", tmp_path / "single_val")
    meta = json.loads((tmp_path / "single_val" / "run.json").read_text())
    (tmp_path / "single_val" / "run.json").write_text(json.dumps(meta | {"of": "single"}))
    assert settle_threshold("", single, dataset).origin == {"default": True}


def test_other_words_and_other_things_are_asked_of_films_or_not_at_all(films, make_follower, tmp_path):
    dataset = open_dataset(films)
    run = track(make_follower(), dataset, tmp_path / "run")
    assert ask_otherwise(make_follower(), run, dataset) == []
    both = replace(dataset, objects={"blood vessel": 11, "dark 40": 1})
    [(other, _)] = predict_others(segmenter := make_follower(), both, run=run)
    assert segmenter.asked == [("dark 40", 5)] * 3
    assert other.meta["tracked"] == run.meta["tracked"]


def test_processes_share_by_film(films, make_follower, tmp_path):
    dataset = open_dataset(films)
    straight = track(make_follower(), dataset, tmp_path / "straight")
    segmenters = [make_follower() for _ in range(2)]
    how = {"folder": tmp_path / "shared", "track": True, "progress": False}
    for number, segmenter in enumerate(segmenters):
        run = predict_share(segmenter, dataset, rank=Rank(number, 2), **how)
    assert [len(segmenter.asked) for segmenter in segmenters] == [2, 1]
    assert contents(run) == contents(straight)
    assert run.meta["tracked"] == {"keep": 5, "sample": None}
    assert verify_run(run, dataset, lambda precision: make_follower(), images=11).kind == "made_again"


def test_verifying_tracks_the_whole_film_again(films, make_follower, tmp_path):
    dataset = open_dataset(films)
    run = track(make_follower(), dataset, tmp_path / "run")
    made = []

    def load(precision):
        made.append(make_follower())
        return made[-1]

    found = verify_run(run, dataset, load, images=1)
    assert (found.kind, found.values["n"]) == ("made_again", 1)
    [one] = made
    video = next(record["video"] for record in run.records if record["id"] == found.values["ids"][0])
    assert len(one.given) == sum(sample.video == video for sample in dataset)
    lines = (run.folder / "samples.jsonl").read_text()
    (run.folder / "samples.jsonl").write_text(lines.replace("Sure, [SEG].", "Sure, it is [SEG]."))
    assert verify_run(open_run(run.folder), dataset, load, images=1).kind == "made_otherwise"
