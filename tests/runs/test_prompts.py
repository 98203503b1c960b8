"""Images that bring a question of their own: it is asked, recorded, and part of what a Run is."""

import dataclasses
import shutil

import pytest

from sa2va_lab.datasets import open_dataset
from sa2va_lab.errors import LabError
from sa2va_lab.runs import open_run, predict_dataset
from sa2va_lab.runs.shares import Rank, predict_share


@pytest.fixture
def asking(make_dataset):
    """A data set of which every other image brings its question, in which the segmenter's threshold is said."""
    dataset = open_dataset(make_dataset())
    brought = {sample.id: {dataset.phrase: f"dark {40 + n}"} for n, sample in enumerate(dataset.samples[::2])}
    samples = [dataclasses.replace(sample, prompts=brought.get(sample.id, {})) for sample in dataset]
    return dataclasses.replace(dataset, samples=samples)


def questions(dataset):
    return [sample.prompt or dataset.phrase for sample in dataset]


@pytest.mark.parametrize("batch", [1, 4])
def test_each_image_is_asked_its_own_question_and_the_run_says_so(asking, make_segmenter, tmp_path, batch):
    segmenter = make_segmenter()
    run = predict_dataset(segmenter, asking, folder=tmp_path / "run", batch=batch, progress=False)
    assert segmenter.seen == [(sample.image, asked) for sample, asked in zip(asking, questions(asking), strict=True)]
    assert [record.get("prompt") for record in run.records] == [sample.prompt for sample in asking]
    assert run.meta["prompt"] == "blood vessel"
    assert run.meta["prompt_reason"] == "the phrase of the data set, where an image brings no question of its own"
    assert run.maker.prompt == "blood vessel, or the question that an image brings"
    assert "prompt" not in run.records[1]


def test_a_prompt_that_is_asked_for_is_asked_of_every_image(asking, make_segmenter, tmp_path):
    segmenter = make_segmenter()
    run = predict_dataset(segmenter, asking, folder=tmp_path / "run", prompt="dark 50", progress=False)
    assert {asked for _, asked in segmenter.seen} == {"dark 50"}
    assert run.maker.prompt == "dark 50"
    assert not any("prompt" in record for record in run.records)


def test_a_run_goes_on_with_the_same_questions_only(asking, make_segmenter, tmp_path):
    folder, whole = tmp_path / "run", tmp_path / "whole"
    predict_dataset(make_segmenter(), asking, folder=whole, progress=False)
    shutil.copytree(whole, folder)
    lines = (folder / "samples.jsonl").read_text().splitlines(keepends=True)
    (folder / "samples.jsonl").write_text("".join(lines[:3]))
    segmenter = make_segmenter()
    run = predict_dataset(segmenter, asking, folder=folder, progress=False)
    assert [asked for _, asked in segmenter.seen] == questions(asking)[3:]
    assert [record["logits_sha256"] for record in run.records] == [r["logits_sha256"] for r in open_run(whole).records]
    plain = dataclasses.replace(asking, samples=[dataclasses.replace(s, prompts={}) for s in asking])
    with pytest.raises(LabError, match="other prompt"):
        predict_dataset(make_segmenter(), plain, folder=folder, progress=False)
    first, *rest = asking.samples
    other = dataclasses.replace(first, prompts={asking.phrase: "dark 99"})
    with pytest.raises(LabError, match="other images"):
        predict_dataset(
            make_segmenter(), dataclasses.replace(asking, samples=[other, *rest]), folder=folder, progress=False
        )


def test_shares_are_put_together_with_their_questions(asking, make_segmenter, tmp_path):
    for number in range(2):  # the first process has all images with a question of their own
        run = predict_share(
            make_segmenter(), asking, rank=Rank(number, 2), folder=tmp_path / "run", batch=1, progress=False
        )
    assert [record.get("prompt") for record in run.records] == [sample.prompt for sample in asking]
    alone = predict_dataset(make_segmenter(), asking, folder=tmp_path / "alone", progress=False)
    assert run.maker == alone.maker
    assert run.meta["prompt_reason"] == alone.meta["prompt_reason"]
