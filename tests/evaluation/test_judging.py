"""A model judged from end to end: everything is measured before anything is said, and a Run gives the same again."""

import json

import pytest

from sa2va_lab.datasets import open_dataset
from sa2va_lab.errors import LabError
from sa2va_lab.evaluation.judging import judge_model, weigh
from sa2va_lab.evaluation.shapes import CALIBRATION, SHAPE_METRICS
from sa2va_lab.evaluation.thresholds import count_run
from sa2va_lab.reports.answers import read_metrics
from sa2va_lab.views.scores import answer_run


@pytest.fixture
def dataset(make_dataset):
    root = make_dataset()
    names = list(json.loads((root / "groups.json").read_text()))
    (root / "splits.json").write_text(json.dumps({"train": names[:2], "val": names[2:4], "test": names[4:]}))
    return open_dataset(root)


def test_a_run_is_judged_without_its_model_as_it_was_with_it(dataset, make_segmenter, tmp_path):
    segmenter = make_segmenter()
    with_model = judge_model(segmenter, dataset, folder=tmp_path / "run", split="test")
    asked = len(segmenter.seen)
    again = judge_model(segmenter, dataset, folder=tmp_path / "run", split="test")
    # what lies there is not predicted again, but for the two images of the test split, by which it is verified
    assert len(segmenter.seen) == asked + 2
    without = judge_model(None, dataset, folder=tmp_path / "run")
    verdicts = [judged.verified.kind for judged in (with_model, again, without)]
    assert verdicts == ["made_here", "made_again", "not_verified"]
    for judged in (again, without):
        assert judged.choice == with_model.choice
        assert judged.table.equals(with_model.table)
        assert judged.phrases == with_model.phrases
        assert [row["prompt"] for row in judged.wordings] == [row["prompt"] for row in with_model.wordings]
    assert with_model.choice.origin["split"] == "val"
    assert len(with_model.wordings) == 4


def test_a_second_model_lies_beside_the_first_and_is_not_asked_in_other_words(dataset, make_segmenter, tmp_path):
    own = judge_model(make_segmenter(), dataset, folder=tmp_path / "run", split="test")
    rival = judge_model(
        make_segmenter(weights="1" * 64), dataset, folder=tmp_path / "other", split="test", beside=own.run
    )
    assert (rival.run.role, rival.run.of, rival.wordings) == ("beside", "run", [])
    found = weigh(own, dataset, rivals=[rival])
    assert "same_model" in [finding.kind for finding in found.findings]
    assert list(answer_run(found).metrics.beside) == ["the base alone"]


def test_a_forged_run_is_an_alarm_at_the_top_where_its_model_is_at_hand(dataset, make_segmenter, tmp_path):
    judged = judge_model(make_segmenter(), dataset, folder=tmp_path / "run", split="test")
    path = tmp_path / "run" / "samples.jsonl"
    path.write_text(path.read_text().replace('"Sure, [SEG]."', '"Sure, the [SEG]."'))
    judged = judge_model(make_segmenter(), dataset, folder=tmp_path / "run", split="test")
    found = weigh(judged, dataset)
    assert [finding.kind for finding in found.findings if finding.alarm] == ["made_otherwise", "edited"]
    answer = answer_run(found)
    assert "Verification failed: of 2 images" in answer.sentence
    assert answer.sentence.count("Verification failed") == 1
    looked_at = weigh(judge_model(None, dataset, folder=tmp_path / "run"), dataset)
    assert "Not verified: this Run was only looked at. sa2va-lab verify" in answer_run(looked_at).sentence


def test_a_threshold_chosen_on_these_images_is_refused_or_said(dataset, drawn_run, drawn_data, tmp_path):
    from sa2va_lab.evaluation.thresholds import choose_threshold, save_threshold

    images = open_dataset(drawn_data, groups=r"p(\d+)_")
    path = save_threshold(tmp_path, choose_threshold(count_run(drawn_run, images)))
    with pytest.raises(LabError, match="was chosen on 6 of the 6 images"):
        judge_model(None, images, folder=drawn_run.folder, threshold=str(path))
    judged = judge_model(None, images, folder=drawn_run.folder, threshold=f"seen:{path}")
    assert "was chosen on 6 of the 6 images" in judged.told


def test_shapes_and_calibration_are_measured_before_the_answer(drawn_run, drawn_data):
    images = open_dataset(drawn_data, groups=r"p(\d+)_")
    found = weigh(judge_model(None, images, folder=drawn_run.folder, threshold="0.4"), images)
    told = answer_run(found).to_dict()["metrics"]
    assert set(told["shapes"]) == {*SHAPE_METRICS, *CALIBRATION}
    assert 0 < told["shapes"]["cldice"]["macro"] < 1
    assert told["shapes"]["hd95"]["n"] < told["shapes"]["brier"]["n"] == 6  # no distance to a mask that is empty
    assert [row["width"] for row in told["widths"]]
    assert told["phrases"]["the base alone"][0]["phrase"] == images.phrase
    report = {"notebooks": {"03_evaluation": {"answer": {"metrics": told}}}}
    assert read_metrics(report).evaluated.summary.dice.n == found.summary["dice"]["n"]
