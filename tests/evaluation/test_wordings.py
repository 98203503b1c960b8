"""Asked in other words: the same images, paired with the run's own, what was said counted."""

from dataclasses import replace

import pytest

from sa2va_lab.datasets import open_dataset
from sa2va_lab.evaluation.metrics import evaluate_run
from sa2va_lab.evaluation.questions import (
    QUESTIONS,
    ask_otherwise,
    compare_wordings,
    find_asked,
    list_refused,
    measure_refused,
)
from sa2va_lab.runs import predict_dataset


@pytest.fixture
def made(make_dataset, make_segmenter, tmp_path):
    dataset = open_dataset(make_dataset(count=12))
    run = predict_dataset(make_segmenter(), dataset, folder=tmp_path / "runs" / "run", progress=False)
    return run, dataset


def test_a_phrasing_that_changes_the_mask_is_seen_and_one_that_does_not_is_told_apart(made, make_segmenter):
    run, dataset = made
    segmenter = make_segmenter()
    prompts = ["Where is the {phrase}? dark 50", "The {phrase}? dark 205", "Find the {phrase}. dark 0"]
    asked = ask_otherwise(segmenter, run, dataset, prompts=prompts, limit=4)
    ids = asked[0].sample_ids
    assert ids == [run.sample_ids[place] for place in (0, 3, 6, 9)]
    assert {prompt for _, prompt in segmenter.seen} == {
        "<image>Where is the blood vessel? dark 50",
        "<image>The blood vessel? dark 205",
        "<image>Find the blood vessel. dark 0",
    }
    own, same, wide, none = compare_wordings(run, asked, dataset)
    assert own["prompt"] == "blood vessel"
    assert own["difference"] is None
    assert (own["n_images"], own["n_groups"]) == (4, 4)
    table = evaluate_run(run, dataset).set_index("id")
    assert own["dice"] == pytest.approx(table.loc[ids, "dice"].mean())
    assert (same["dice"], same["difference"].mean) == (own["dice"], 0.0)
    assert not same["difference"].distinguishable
    assert none["answers"] == {"Nothing here.": 4}
    assert (none["dice"], none["difference"].mean) == (0.0, pytest.approx(-own["dice"]))
    assert none["difference"].distinguishable
    assert wide["difference"].mean < 0  # everything below 205 is a vessel then


def test_the_runs_own_question_is_not_asked_twice(made, make_segmenter):
    run, dataset = made
    segmenter = make_segmenter()
    asked = ask_otherwise(segmenter, run, dataset)
    assert len(asked) == len(QUESTIONS) - 1  # "blood vessel" becomes the first of them
    assert [made.folder.parent for made in asked] == [run.folder.parent / "asked"] * 3  # no Run that a list would show
    assert len(segmenter.seen) == 18
    assert [made.meta for made in find_asked(run)] == [made.meta for made in asked]  # later, without the model
    assert compare_wordings(run, [], dataset) == []


def test_the_first_question_is_the_one_that_a_bare_phrase_becomes():
    from sa2va_lab.sa2va.processing import TRAINING_QUESTION

    assert QUESTIONS[0] == TRAINING_QUESTION


def test_what_was_refused_although_annotated_is_asked_apart(make_dataset, make_segmenter, tmp_path):
    dataset = open_dataset(make_dataset())

    class Shy(make_segmenter):
        def predict(self, image, prompt):
            found = super().predict(image, prompt)
            if prompt != "blood vessel" or image != dataset.samples[1].image:
                return found
            return replace(found, logits=found.logits[:0], answer="There is none.")

    run = predict_dataset(Shy(), dataset, folder=tmp_path / "run", progress=False)
    table = evaluate_run(run, dataset)
    assert list_refused(table) == [dataset.samples[1].id]
    prompts = ["Find the {phrase}.", "Find what is darker than 1"]  # nothing is: refused as well
    asked = ask_otherwise(Shy(), run, dataset, prompts=prompts, limit=3, refused=list_refused(table))
    assert [made.sample_ids for made in asked[2:]] == [[dataset.samples[1].id]] * 2
    found = measure_refused(table, find_asked(run))
    assert (found["n"], found["of"], found["asked"], found["named"]) == (1, 6, 1, 1)
    assert [row["named"] for row in found["said"]] == [True, False]
    rows = compare_wordings(run, find_asked(run), dataset)
    assert [row["n_images"] for row in rows] == [3, 3, 3]  # the one that was asked apart is in no comparison
    assert measure_refused(table, [])["asked"] == 0
    whole = predict_dataset(Shy(), dataset, folder=tmp_path / "whole" / "run", progress=False)
    spread = ask_otherwise(Shy(), whole, dataset, prompts=prompts, limit=6, refused=list_refused(table))
    assert len(spread) == 2  # it is among those that are asked anyway
