"""predict over a data set, runs, compare: as a person types them."""

import hashlib
import json
import re
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest

from sa2va_lab import cli
from sa2va_lab.runs import open_run, predict_dataset
from sa2va_lab.runs.find import name_folder

GROUPS = r"p(\d+)_"


@pytest.fixture
def lab(monkeypatch, capsys):
    """lab(*words) -> (exit status, stdout, stderr)."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["sa2va-lab", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return ended.value.code or 0, said.out, said.err

    return call


def test_a_name_finds_its_run_within_the_same_second(tmp_path):
    for name in ("mine", "my [best] run"):
        made = name_folder(tmp_path, name)
        made.mkdir(parents=True)
        assert name_folder(tmp_path, name) == made
        assert name_folder(tmp_path, name, new=True) != made


def test_a_data_set_takes_the_options_that_images_take(lab, tiny_folder, drawn_data, tmp_path):
    words = ("--model", tiny_folder, "--sam2", tiny_folder, "--outputs", tmp_path)
    status, _, said = lab("predict", drawn_data, *words)
    assert status == 2
    assert "has its own SAM2: leave" in said


@pytest.mark.slow
def test_a_data_set_becomes_a_run_that_its_name_takes_up(lab, tiny_folder, drawn_data, tmp_path):
    words = ("predict", drawn_data, "--model", tiny_folder, "--groups", GROUPS, "--outputs", tmp_path, "--json")
    told = json.loads(lab(*words, "--run", "mine", "--split", "all")[1])
    assert (told["images"], told["failed"]) == (6, 0)
    made = open_run(told["run"])
    assert made.folder.parent == tmp_path / "runs"
    assert made.folder.name.endswith("_mine")
    lines = (made.folder / "samples.jsonl").read_bytes()
    cut = lines[: lines.index(b"\n") + 1]
    (made.folder / "samples.jsonl").write_bytes(cut)  # as a kill after the first image would leave it
    again = json.loads(lab(*words, "--run", "mine", "--split", "all")[1])
    assert again == told
    assert (made.folder / "samples.jsonl").read_bytes().startswith(cut)
    assert [record["id"] for record in open_run(made.folder).records] == made.sample_ids
    listed = json.loads(lab("runs", "--outputs", tmp_path, "--json")[1])
    assert [(row["name"], row["done"], row["of"], row["split"]) for row in listed] == [(made.folder.name, 6, 6, "all")]
    status, _, error = lab(*words, "--run", "mine", "--split", "all", "--prompt", "something else")
    assert status == 2
    assert "other prompt" in error


def test_equal_runs_are_told_and_other_images_are_not_ranked(lab, drawn_run, drawn_data, darkness, tmp_path):
    from sa2va_lab.datasets.formats import open_dataset

    twin = shutil.copytree(drawn_run.folder, tmp_path / "runs" / "20260101T000000Z_twin")
    data = ("--data", drawn_data, "--groups", GROUPS, "--outputs", tmp_path)
    status, said, _ = lab("compare", drawn_run.folder, "twin", *data)
    assert status == 0
    assert "difference +0.0000" in said
    assert "not distinguishable" in said
    assert f"{twin.name} is no other model" in said
    assert "the same logits in 5 of 5 images" in said
    images = open_dataset(drawn_data, groups=GROUPS)
    short = predict_dataset(darkness, images, folder=tmp_path / "runs" / "x_short", limit=3, progress=False)
    status, said, error = lab("compare", "twin", "short", *data)
    assert (status, said) == (2, "")
    assert f"{twin.name} and {short.folder.name} are over other images (6 and 3, 3 in both)" in error
    status, _, error = lab("compare", "twin", "nowhere", *data)
    assert status == 2
    assert "no Run is called nowhere" in error


def test_what_belongs_to_images_is_refused_for_a_data_set_and_the_other_way_round(lab, tiny_folder, drawn_data):
    status, _, error = lab("predict", drawn_data, "--model", tiny_folder, "--out", "x")
    assert status == 2
    assert "use --run NAME" in error
    picture = next((drawn_data / "images").glob("*.png"))
    assert "images need --prompt" in lab("predict", picture, "--model", tiny_folder)[2]
    given = ("predict", picture, "--model", tiny_folder, "--prompt", "vessel", "--out", "x", "--split", "test")
    status, _, error = lab(*given)
    assert status == 2
    assert "--split is for a data set" in error


def test_no_runs_yet_says_how_to_make_one(lab, tmp_path):
    status, said, _ = lab("runs", "--outputs", tmp_path)
    assert status == 0
    assert "sa2va-lab predict DATA" in said


def test_a_threshold_chosen_on_these_images_is_refused_or_said_first(lab, drawn_run, drawn_data, tmp_path):
    from sa2va_lab.datasets.formats import open_dataset
    from sa2va_lab.evaluation.thresholds import choose_threshold, count_run, save_threshold

    choice = choose_threshold(count_run(drawn_run, open_dataset(drawn_data, groups=GROUPS)))
    path = save_threshold(tmp_path / "threshold.json", choice)
    words = ("evaluate", drawn_run.folder, "--data", drawn_data, "--groups", GROUPS, "--threshold", path)
    status, said, error = lab(*words)
    assert (status, said) == (2, "")
    assert "was chosen on 6 of the 6 images reported" in error  # the image without a mask was looked at as well
    status, said, _ = lab(*words, "--allow-same-images")
    assert status == 0
    assert said.splitlines()[0].startswith("TOO GOOD TO REPORT: the threshold")
    told = json.loads(lab(*words, "--allow-same-images", "--json")[1])
    assert told["threshold"]["value"] == choice.value
    assert "was chosen on 6 of the 6" in told["threshold"]["warning"]
    assert "threshold_tuned_on_test" in [finding["kind"] for finding in told["findings"] if finding["alarm"]]
    status, said, _ = lab(*words[:-1], "0.4")
    assert "threshold 0.4 (as given)" in said
    assert "TOO GOOD" not in said
    assert "ALARM" not in said
    assert said.splitlines()[1] == "'blood vessel', asked as 'blood vessel', split 'all'"
    assert "6 of 6 images predicted, 0 failed, 0 without truth; threshold 0.4 (as given)" in said
    assert re.search(r"dice  macro .* N 6 images of 3 patients", said)
    assert re.search(r"precision  macro .* N 5 images of 3 patients", said)  # one answer has no mask
    assert "Refused although something is annotated there: 1 of 5 images (P03-V1-F001)." in said
    assert f"sa2va-lab verify {drawn_run.folder} --model" in said


def test_every_mean_says_its_own_images_and_what_was_asked(lab, drawn_run, drawn_data, tmp_path):
    words = ("evaluate", drawn_run.folder, "--groups", GROUPS, "--data")
    status, said, _ = lab(*words, drawn_data)
    assert status == 0
    lines = {line.split()[0]: line for line in said.splitlines() if " macro " in line}
    assert "N 6 images of 3 patients" in lines["dice"]
    assert "N 5 images of 3 patients" in lines["recall"]  # one truth is empty
    bare = shutil.copytree(drawn_data, tmp_path / "bare")
    for mask in (bare / "masks").iterdir():
        (bare / "kept").mkdir(exist_ok=True)
        if "p01_a" not in mask.name:
            mask.unlink()
    run = json.loads((drawn_run.folder / "run.json").read_text())
    first = run["dataset"]["samples"][0]
    run["dataset"]["samples"] = [name for name in run["dataset"]["samples"] if name != first]
    alone = tmp_path / "alone"
    shutil.copytree(drawn_run.folder, alone)
    (alone / "run.json").write_text(json.dumps(run))
    kept = [line for line in (alone / "samples.jsonl").read_text().splitlines(True) if f'"{first}"' not in line]
    (alone / "samples.jsonl").write_text("".join(kept))
    for more in ((), ("--json",)):
        status, said, error = lab("evaluate", alone, "--groups", GROUPS, "--data", bare, *more)
        assert status == 2
        assert "no image could be counted: of 5, 0 failed or were not predicted and 5 have no ground truth" in error
        assert "macro" not in said or more


def test_a_data_set_that_cannot_be_opened_is_refused_before_a_model_is_loaded(lab, drawn_data, tmp_path, monkeypatch):
    from sa2va_lab.loading import load as loading

    def load(*given, **how):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(loading, "load", load)
    (tmp_path / "empty").mkdir()
    taken = tmp_path / "out" / "runs" / "20260101T000000Z_taken"
    taken.mkdir(parents=True)
    (taken / "notes.txt").write_text("mine")
    picture = next((drawn_data / "images").iterdir())
    model = ("--model", tmp_path, "--outputs", tmp_path / "out")
    for words, said in (
        ((tmp_path / "empty", *model), "is of no format"),
        ((drawn_data, *model, "--split", "val"), 'no split "val"'),
        ((drawn_data, *model, "--prompt", " "), "prompt is empty"),
        ((drawn_data, *model, "--limit", "0"), "limit is 0"),
        ((drawn_data, *model, "--run", "taken"), "holds something else"),
        ((picture, *model[:2], "--prompt", "x", "--out", taken), "holds something else"),
    ):
        status, _, error = lab("predict", *words)
        assert (status, said in error) == (2, True), error
    assert [path.name for path in taken.parent.iterdir()] == [taken.name]


def test_a_damaged_run_is_listed_with_its_damage_beside_the_others(lab, drawn_run, tmp_path):
    runs = tmp_path / "runs"
    for name in "abc":
        shutil.copytree(drawn_run.folder, runs / name)
    meta = json.loads((runs / "b" / "run.json").read_text())
    del meta["started"]
    (runs / "b" / "run.json").write_text(json.dumps(meta))
    status, said, _ = lab("runs", "--outputs", tmp_path)
    assert status == 0
    a, b, c = said.splitlines()
    assert "6 of 6 images" in a
    assert "6 of 6 images" in c
    assert "run.json cannot be read (started: Field required)" in b


def test_two_precisions_of_one_model_are_compared_on_the_images_that_both_hold(lab, drawn_run, drawn_data, tmp_path):
    coarse = shutil.copytree(drawn_run.folder, tmp_path / "runs" / "x_bf16")
    meta = json.loads((coarse / "run.json").read_text())
    meta["segmenter"]["precision"]["actual"] = "bf16"
    (coarse / "run.json").write_text(json.dumps(meta))
    lines = [json.loads(line) | {"precision": "bf16"} for line in (coarse / "samples.jsonl").read_text().splitlines()]
    for line in lines[1:]:  # the first one was taken out of a finished Run
        path = coarse / "logits" / f"{line['id']}.npz"
        made = open_run(drawn_run.folder).prediction(line["id"])
        path.write_bytes(replace(made, logits=made.logits * np.float32(1.01)).to_bytes())
        line["logits_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (coarse / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines[1:]))
    said = lab("evaluate", coarse, "--data", drawn_data, "--groups", GROUPS)[1]
    assert "5 of 6 images predicted" in said
    assert re.search(r"dice  macro .* N 5 images of 3 patients", said)  # never six
    words = ("compare", drawn_run.folder, coarse, "--data", drawn_data, "--groups", GROUPS)
    status, said, _ = lab(*words)
    assert status == 0
    assert "x_bf16 is another model, or the same one asked otherwise (they differ in: precision)" in said
    assert "x_bf16: ALARM: The Run was changed after it was finished: run.json, samples.jsonl." in said
    assert "x_bf16: ALARM: 1 of the 6 images asked for have no line" in said
    told = json.loads(lab(*words, "--json")[1])
    assert told["difference"]["n_images"] == 5  # of six, one was taken out
    means = told["dice"].values()
    assert max(means) - min(means) < 0.05


def test_verify_makes_images_again_and_says_what_it_saw(lab, drawn_run, drawn_data, darkness, tmp_path, monkeypatch):
    from sa2va_lab.loading import load as loading

    asked = []
    monkeypatch.setattr(loading, "load", lambda path, **how: asked.append(how["precision"]) or darkness)
    folder = shutil.copytree(drawn_run.folder, tmp_path / "runs" / "20260101T000000Z_mine")
    words = ("verify", "mine", "--model", tmp_path, "--data", drawn_data, "--groups", GROUPS, "--outputs", tmp_path)
    status, said, _ = lab(*words)
    assert (status, asked) == (0, ["fp32"])
    assert said.startswith("Verified: 5 of 6 images, drawn by lot after the Run was finished, were made again")
    told = json.loads((folder / "verification.json").read_text())
    assert f"with seed {told['values']['seed']}" in said
    assert told["kind"] == "made_again"
    lines = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    (folder / "samples.jsonl").write_text("".join(json.dumps(line | {"answer": "Yes [SEG]."}) + "\n" for line in lines))
    status, said, _ = lab(*words, "--images", "6", "--json")
    assert status == 1
    assert json.loads(said)["values"]["odd"] == 6
    status, _, error = lab(*words, "--images", "0")
    assert status == 2
    assert "expected at least 1" in error
