"""What stands beside a Run's number: thresholds weighed, phrasings, losses and sequences, each with its reason."""

import re
from dataclasses import replace

import numpy as np
import pytest

from sa2va_lab import open_dataset
from sa2va_lab.evaluation.judging import judge_model, weigh
from sa2va_lab.evaluation.metrics import compute_scores, evaluate_run
from sa2va_lab.evaluation.questions import ask_otherwise, compare_wordings, measure_refused, pick_prompts
from sa2va_lab.evaluation.thresholds import Choice, count_run, nest_thresholds, weigh_threshold
from sa2va_lab.language import use_language
from sa2va_lab.views import comparisons, scores

DEFAULT = Choice(0.5, "there is no validation split to choose it on", origin={"default": True})


@pytest.fixture(scope="module")
def images(drawn_data):
    return open_dataset(drawn_data, groups=r"p(\d+)_")


@pytest.fixture(scope="module")
def counts(drawn_run, images):
    return count_run(drawn_run, images)


def test_without_a_validation_split_the_threshold_is_weighed_nested_by_patient(drawn_run, images, counts):
    table = evaluate_run(drawn_run, images)
    found = weigh_threshold(DEFAULT, table, counts)
    places, reason = nest_thresholds(counts)
    dice = compute_scores(**counts.at(places))["dice"]
    assert (found["origin"], found["reason"], found["value"]) == ("nested", reason, np.median(places))
    assert found["dice"] == pytest.approx(np.nanmean(dice))
    assert found["dice_at_half"] == pytest.approx(table["dice"].mean())
    assert found["difference"] == pytest.approx(found["dice"] - found["dice_at_half"])
    shown = repr(comparisons.threshold_table(DEFAULT, found, ""))
    assert reason in shown
    assert "there is no validation split" in shown


def test_a_chosen_threshold_is_weighed_at_itself_and_a_seen_one_is_said(drawn_run, images, counts):
    choice = Choice(0.3, "best", low=0.2, high=0.4, flat=(0.25, 0.35), origin={"split": "val", "images": ["x"]})
    table = evaluate_run(drawn_run, images, threshold=0.3)
    found = weigh_threshold(choice, table, counts)
    assert (found["origin"], found["value"], found["dice"]) == ("validation", 0.3, table["dice"].mean())
    shown = repr(comparisons.threshold_table(choice, found, "chosen on 4 of the 6 images"))
    for said in ("0.2 – 0.4", "0.25 – 0.35", "chosen on 4 of the 6 images"):
        assert said in shown
    assert "these masks were cut before" not in shown
    cut = {name: np.repeat(getattr(counts, name)[:, 500:501], 1000, axis=1) for name in ("tp", "fp")}
    still = weigh_threshold(choice, table, replace(counts, **cut))
    assert "no pixel changes between 0.05 and 0.95: these masks were cut before" in repr(
        comparisons.threshold_table(choice, still, "")
    )


def test_each_model_stands_at_its_own_threshold(drawn_run, images):
    own, rival = (judge_model(None, images, folder=drawn_run.folder, threshold=value) for value in ("0.5", "0.3"))
    found = comparisons.comparison_table(weigh(own, images, rivals=[rival]))
    assert [row[0] for row in found.rows[:3]] == [
        "darkness, threshold 0.5",
        "the base alone, threshold 0.3",
        "All background",
    ]


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_phrasings_stand_with_their_answers_or_say_that_nobody_was_asked(drawn_run, images, darkness, lang):
    use_language(lang)
    asked = ask_otherwise(darkness, drawn_run, images, prompts=["Find the {phrase}."], limit=3)
    compared = compare_wordings(drawn_run, asked, images)
    table = comparisons.wording_table(compared)
    assert [row[0] for row in table.rows] == [images.phrase, f"Find the {images.phrase}."]
    assert table.rows[1][1] == "“Sure, [SEG].” × 2; “There is none.” × 1"
    assert table.rows[0][-1] != table.rows[1][-1]
    assert pick_prompts(compared)[1]["answers"] == {"Sure, [SEG].": 2, "There is none.": 1}
    assert comparisons.wording_table([]).data
    refused = measure_refused(evaluate_run(drawn_run, images), asked)  # p03_a shows nothing of what was drawn
    assert comparisons.refusal_table(refused).rows == [["P03-V1-F001", "Find the blood vessel.", "There is none."]]
    assert len(comparisons.refusal_table({"said": []}).rows) == 1


def test_losses_stand_above_what_was_measured_and_are_not_turned_into_it(drawn_run, images):
    found = weigh(judge_model(None, images, folder=drawn_run.folder, threshold="0.4"), images)
    assert "No training log" in comparisons.loss_table("", found).data
    assert "is not shown" in comparisons.loss_table("/nowhere.log", found).data
    table = comparisons.loss_table("", found, demo=True)
    *losses, measured = table.rows
    assert {re.match(r"\w+", row[0])[0] for row in losses} == {"loss_mask", "loss_dice"}
    assert all("training images" in row[2] for row in losses)
    assert measured[:2] == ["Mean Dice, measured: darkness", f"{found.summary['dice']['macro']:.3f}"]


def test_a_sequence_needs_frames(drawn_run, images):
    table = evaluate_run(drawn_run, images)
    assert "No sequence has 3 frames" in scores.show_frames(table, images).data
    ids = [f"P0{1 + number // 3}-V1-F00{number % 3 + 1}" for number in range(6)]
    videos = dict(zip(table["id"], ids, strict=True))
    made = table.assign(id=ids, dice=[0.9, 0.7, 0.8, 0.2, 0.3, 0.4])
    named = [sample for sample in images if sample.id in videos]
    renamed = [
        type(sample)(ids[k], sample.image, sample.phrase, "g", video=ids[k][:6]) for k, sample in enumerate(named)
    ]
    alt = scores.show_frames(made, renamed).alt
    # 0.9, 0.7, 0.8 and 0.2, 0.3, 0.4: both spread by sqrt(2/3) / 10; their means .8 and .3 lie .25 from the middle
    assert alt.startswith(
        "Dice along 2 sequences, 6 frames: its standard deviation is 0.082 within a sequence and 0.250"
    )
    assert alt.endswith("the lowest is 0.200 in P02-V1-F001.")
