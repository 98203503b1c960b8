"""Planted cheats: each is named by making images again, or by accounting, and no honest run is accused."""

import io
import json
import shutil
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from sa2va_lab.datasets import open_dataset
from sa2va_lab.errors import LabError
from sa2va_lab.evaluation.honesty import Finding, check_run, find_contradictions
from sa2va_lab.evaluation.thresholds import choose_threshold, count_run
from sa2va_lab.evaluation.verification import draw_images, miss_chance, verify_run
from sa2va_lab.prediction import Prediction
from sa2va_lab.runs import open_run
from sa2va_lab.runs.read import seal_run
from sa2va_lab.runs.shares import Rank, predict_share
from sa2va_lab.views.findings import describe_finding

SQUARE = np.ones((3, 3), bool)


def noised(truth, random, share):
    return truth ^ (random.random(truth.shape) < share)


def shrunk(truth, grid=64):
    """The truth on a smaller grid, as logits."""
    small = Image.fromarray(truth.astype(np.float32)).resize((grid, grid), Image.Resampling.BOX)
    return 8 * (np.asarray(small, np.float32) - 0.5)


def soft(mask, random):
    return np.where(mask, 2, -2) + random.normal(0, 0.3, mask.shape)


def kept_by(truth, logits):
    """The model's own connected components, of which those stay that the truth knows."""
    pieces, _ = ndimage.label(logits > 0)
    inside = np.asarray(Image.fromarray(truth).resize(logits.shape[::-1], Image.Resampling.NEAREST))
    return np.where(np.isin(pieces, np.unique(pieces[inside])), logits, -3.0)


def moved(logits):
    """One pixel of the model's own answer on the other side."""
    changed = logits.copy()
    changed[30, 30] *= -1
    return changed


# what a cheat makes of truth (t), the model's own logits (m) and chance (r)
FORGERIES = {
    "the truth": lambda t, m, r: np.where(t, 9.0, -9.0),
    "the truth through the grid": lambda t, m, r: shrunk(t),
    "the truth and noise": lambda t, m, r: soft(noised(t, r, 0.02), r),
    "the truth, eroded": lambda t, m, r: soft(ndimage.binary_erosion(t, SQUARE), r),
    "the truth, dilated": lambda t, m, r: soft(ndimage.binary_dilation(t, SQUARE), r),
    "the truth, shifted": lambda t, m, r: soft(np.roll(t, (1, 1), (0, 1)), r),
    "a part of the truth": lambda t, m, r: soft(t & (np.arange(t.shape[1]) < 100), r),
    "components chosen by the truth": lambda t, m, r: kept_by(t, m),
    "one moved pixel": lambda t, m, r: moved(m),
    "the mean of model and truth": lambda t, m, r: (m + shrunk(t)) / 2,
    "masks cut before": lambda t, m, r: np.where(m > 0, 9.0, -9.0),
    "one probability everywhere": lambda t, m, r: np.full((64, 64), -1.5),
}


def again(segmenter):
    """What `verify_run` asks for a model; this one does not round."""

    def load(precision):
        found = copy(segmenter)
        found.provenance = found.provenance | {"precision": {"actual": precision, "reason": "as asked"}}
        return found

    return load


@pytest.fixture
def forge(dataset, predict, honest):
    """Runs a cheat: make(truth, logits, random) in the model's place, on those images of the test split that `of` names
    by place."""

    def run(make, *, of=lambda place: True, truth=lambda sample: sample.truth(), **how):
        random = np.random.default_rng(2)
        places = {sample.image: (place, sample) for place, sample in enumerate(dataset.split("test"))}

        class Cheat(honest):
            def predict(self, image, prompt):
                own = super().predict(image, prompt)
                place, sample = places[image]
                if not of(place):
                    return own
                logits = np.asarray(make(truth(sample), own.logits[0], random), np.float32)[None]
                return Prediction(logits, own.size, own.answer, canvas=own.canvas)

        return predict(Cheat(), split="test", **how)

    return run


def alarms(run, dataset, **how):
    return {finding.kind for finding in check_run(run, dataset, **how) if finding.alarm}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forgery_is_not_what_the_model_says_again(name, forge, dataset, honest):
    found = verify_run(forge(FORGERIES[name]), dataset, again(honest()))
    assert (found.kind, found.alarm, found.values["odd"]) == ("made_otherwise", True, 5)


def test_the_truth_on_half_of_the_images(forge, dataset, honest):
    run = forge(FORGERIES["the truth and noise"], of=lambda place: place % 2)
    for second in range(10):  # five of six cannot miss three
        found = verify_run(run, dataset, again(honest()), time=f"2026-11-26T12:00:{second:02d}")
        assert found.kind == "made_otherwise"
        assert found.values["odd"] == len(set(found.values["ids"]) & set(run.sample_ids[1::2]))


def test_the_second_annotator_s_truth(vessels, tmp_path, forge, dataset, honest):
    run = forge(FORGERIES["the truth"], truth=lambda sample: ndimage.binary_dilation(sample.truth(), iterations=1))
    assert verify_run(run, dataset, again(honest())).kind == "made_otherwise"


def test_three_of_thirty_are_caught_as_often_as_the_formula_says():
    ids, forged, caught = [f"P{n:02d}" for n in range(30)], {"P03", "P11", "P29"}, 0
    for draw in range(200):
        drawn, seed = draw_images(ids, digest="f" * 64, time=f"2026-11-26T12:{draw // 60:02d}:{draw % 60:02d}")
        assert len(set(drawn)) == 5
        caught += bool(forged & set(drawn))
    assert miss_chance(30, 3, 5) == pytest.approx(27 * 26 * 25 * 24 * 23 / (30 * 29 * 28 * 27 * 26))
    expected = 200 * (1 - miss_chance(30, 3, 5))  # 86.7; three standard deviations of 200 draws are 21
    assert abs(caught - expected) < 21
    assert miss_chance(30, 10, 5) == pytest.approx(0.1088, abs=1e-4)
    assert draw_images(ids, digest="f" * 64, time="now") == draw_images(ids, digest="f" * 64, time="now")
    assert draw_images(ids, digest="e" * 64, time="now")[0] != draw_images(ids, digest="f" * 64, time="now")[0]


def test_an_honest_run_is_verified_bit_for_bit(dataset, predict, honest):
    run = predict(honest(), split="test")
    found = verify_run(run, dataset, again(honest()), time="2026-11-26T12:00:00")
    assert (found.kind, found.alarm, found.look, found.values["largest"]) == ("made_again", False, False, 0)
    three = describe_finding(verify_run(run, dataset, again(honest()), images=3))
    assert "3 of 6 images" in three
    assert "(2) would have been missed in 20.00% of such draws" in three  # C(4, 3) / C(6, 3) = 4 / 20
    everything = verify_run(run, dataset, again(honest()), images=99)
    assert (everything.values["n"], everything.values["missed"]) == (6, 0)


class Rounded:
    """A model whose logits carry the rounding of a number format and of a device; both seeded by the image."""

    def __init__(self, inner, *, step, device):
        self.inner, self.step, self.device = inner, step, device
        self.provenance = inner.provenance

    def predict(self, image, prompt):
        found = self.inner.predict(image, prompt)
        random = np.random.default_rng([self.device, int(1e6 * self.step), *image.name.encode()])
        noise = self.step * random.uniform(-1, 1, found.logits.shape)
        return Prediction((found.logits + noise).astype(np.float32), found.size, found.answer, canvas=found.canvas)


@pytest.mark.parametrize(
    ("recorded", "steps"),
    [("bf16", {"bf16": 0.05, "fp32": 0}), ("int8", {"int8": 0.05, "fp32": 0}), ("fp32", {"fp32": 1e-5, "bf16": 0.5})],
)
def test_another_device_is_explained_and_a_forgery_on_it_is_not(recorded, steps, dataset, predict, honest):
    step = steps[recorded]

    def made_on(number, precision=recorded):
        model = honest()
        model.provenance = model.provenance | {"precision": {"actual": precision, "reason": ""}}
        return Rounded(model, step=steps[precision], device=number)

    run = predict(made_on(1), split="test")
    found = verify_run(run, dataset, partial(made_on, 2))
    assert (found.kind, found.alarm) == ("made_again_nearly", False)
    assert 0 < found.values["largest"] <= found.values["explained"] < 20 * step
    assert "rounding explains" in describe_finding(found)

    class Cheat(Rounded):
        def predict(self, image, prompt):
            honestly = super().predict(image, prompt)
            return Prediction(moved(honestly.logits[0])[None], honestly.size, honestly.answer, canvas=honestly.canvas)

    cheat = Cheat(made_on(1).inner, step=step, device=1)
    forged = verify_run(predict(cheat, split="test", name="forged"), dataset, partial(made_on, 2), images=6)
    assert forged.kind == "made_otherwise"

    def only(precision):
        if precision != recorded:
            raise LabError("it does not fit here")
        return made_on(2)

    left_open = verify_run(run, dataset, only)
    assert (left_open.kind, left_open.alarm, left_open.look) == ("made_unexplained", False, True)


def test_where_one_image_has_the_same_bits_rounding_explains_no_other(forge, dataset, honest):
    run = forge(lambda t, m, r: m + 1e-6, of=lambda place: place == 0)
    asked = []

    def load(precision):
        asked.append(precision)
        return honest()

    found = verify_run(run, dataset, load, images=6)
    assert (found.kind, found.values["odd"], asked) == ("made_otherwise", 1, ["fp32"])

    def load_on_a_gpu(precision):  # which may add in another order at each look
        model = Rounded(honest(), step={"fp32": 0, "bf16": 0.5}[precision], device=1)
        told = {"precision": {"actual": precision, "reason": ""}, "device": {"actual": "cuda:0"}}
        model.provenance = model.provenance | told
        return model

    assert verify_run(run, dataset, load_on_a_gpu, images=6).kind == "made_again_nearly"


def test_other_answers_failures_and_batches_are_compared_too(dataset, predict, honest):
    hard = dataset.split("test").samples[0].image

    class Fails(honest):
        def predict(self, image, prompt):
            if image == hard:
                raise RuntimeError("too hard")
            return super().predict(image, prompt)

        def predict_many(self, images, prompt, batch):
            return [self.predict(image, prompt) for image in images]

    run = predict(Fails(), split="test", batch=3)
    assert verify_run(run, dataset, again(Fails()), images=6).kind == "made_again"
    hidden = verify_run(run, dataset, again(honest()), images=6)  # a hard image that was said to fail
    assert hidden.values["names"] == run.sample_ids[0]
    assert "failed_images" in alarms(run, dataset)

    class Silent(honest):
        def predict(self, image, prompt):
            found = super().predict(image, prompt)
            return Prediction(found.logits[:0], found.size, "There is no blood vessel.", canvas=128)

    silent = predict(Silent(), split="test", name="silent")
    assert verify_run(silent, dataset, again(honest())).values["odd"] == 5
    assert alarms(silent, dataset) == set()  # an answer that names nothing is no cheat


def test_an_image_is_made_again_in_its_company_and_after_its_first_question(dataset, predict, honest, tmp_path):
    class Company(honest):
        shift = 0.0

        def predict(self, image, prompt):
            return self.predict_many([image], prompt, 1)[0]

        def predict_many(self, images, prompt, batch):
            made = [super(Company, self).predict(image, prompt) for image in images]
            return [replace(one, logits=one.logits + np.float32(len(images) + self.shift)) for one in made]

        @contextmanager
        def keep_draft(self, image, prompt):
            self.shift = float(image == dataset.split("test").samples[0].image)
            yield
            self.shift = 0.0

    run = predict(Company(), split="test", batch=3)
    assert verify_run(run, dataset, again(Company()), images=2).kind == "made_again"
    how = {"folder": tmp_path / "shared", "split": "test", "batch": 3, "progress": False}
    for number in range(2):  # every second image is another process's, after a first one of its own
        shared = predict_share(Company(), dataset, rank=Rank(number, 2), **how)
    assert verify_run(shared, dataset, again(Company()), images=6).kind == "made_again"
    assert not np.array_equal(*(made.prediction(run.sample_ids[1]).logits for made in (run, shared)))


def test_what_cannot_be_verified_is_refused_or_said(dataset, predict, honest):
    run = predict(honest(), split="test")
    with pytest.raises(LabError, match="other weights"):
        verify_run(run, dataset, again(honest("1" * 64)))
    with pytest.raises(LabError, match="expected at least 1"):
        verify_run(run, dataset, again(honest()), images=0)
    other = honest()
    other.provenance = other.provenance | {"precision": {"actual": "int8", "reason": "too little memory"}}
    with pytest.raises(LabError, match="the Run was made in fp32, which cannot run here"):
        verify_run(run, dataset, lambda precision: other)
    assert "sa2va-lab verify" in describe_finding(Finding("not_verified", False, {"of": 6}, look=True))
    assert "all 6 images just now" in describe_finding(Finding("made_here", False, {"of": 6}))


# accounting: what is done to the files of an honest run, and what must be said of it


def rewrite(run, *, meta=None, lines=None, sealed=True):
    """Changes a run's files; `sealed` makes its seal again, as a cheat would."""
    if lines is not None:
        records = [changed for record in run.records if (changed := lines(dict(record))) is not None]
        (run.folder / "samples.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    if meta is not None:
        about = json.loads((run.folder / "run.json").read_text())
        meta(about)
        (run.folder / "run.json").write_text(json.dumps(about))
    if sealed:
        seal_run(run.folder, json.loads((run.folder / "run.json").read_text()))
    return open_run(run.folder)


@pytest.fixture(scope="module")
def honest_run(dataset, honest, tmp_path_factory):
    from sa2va_lab.runs import predict_dataset

    return predict_dataset(
        honest(), dataset, folder=tmp_path_factory.mktemp("runs") / "run", split="test", progress=False
    )


@pytest.fixture
def run(honest_run, tmp_path):
    """An honest run over the test split, to be spoilt."""
    shutil.copytree(honest_run.folder, tmp_path / "copy")
    return open_run(tmp_path / "copy")


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize(
    ("kind", "meta", "lines"),
    [
        ("lines_missing", None, lambda r: None if r["id"].endswith("F001") else r),
        ("image_unhashed", None, lambda r: r | {"image_sha256": None}),
        ("mask_without_seg", None, lambda r: r | {"answer": "There is no blood vessel."}),
        ("unknown_split", lambda m: m["dataset"].update(split="holdout"), None),
        ("selected_images", lambda m: m["dataset"].update(split="train"), None),
        ("selected_images", lambda m: m["dataset"].update(split="all"), None),
        ("other_manifest", lambda m: m["dataset"].update(manifest_sha256="0" * 64), None),
        ("other_splits", lambda m: m["dataset"].update(splits_sha256="0" * 64), None),
    ],
)
def test_what_was_done_to_the_files_is_named(kind, meta, lines, sealed, run, dataset):
    found = alarms(rewrite(run, meta=meta, lines=lines, sealed=sealed), dataset)
    assert kind in found
    assert ("edited" in found) != sealed


def test_lines_of_no_image_of_the_run_are_refused(run):
    (run.folder / "samples.jsonl").open("a").write(json.dumps(run.records[0] | {"id": "P99-V1-F000"}) + "\n")
    with pytest.raises(LabError, match="samples that are not in run.json"):
        open_run(run.folder)


def test_images_picked_by_hand(run, dataset):
    kept = run.sample_ids[1:3]
    spoilt = rewrite(
        run, meta=lambda m: m["dataset"].update(samples=kept), lines=lambda r: r if r["id"] in kept else None
    )
    assert "selected_images" in alarms(spoilt, dataset)


def test_train_and_test_swapped_in_the_data(vessels, dataset, tmp_path, honest):
    from sa2va_lab.runs import predict_dataset

    folder = shutil.copytree(vessels, tmp_path / "swapped")
    splits = json.loads((folder / "splits.json").read_text())
    data = open_dataset(folder)
    run = predict_dataset(honest(), data, folder=tmp_path / "run", split="train", progress=False)
    rewrite(run, meta=lambda m: m["dataset"].update(split="test"))
    (folder / "splits.json").write_text(json.dumps(splits | {"train": splits["test"], "test": splits["train"]}))
    assert "other_splits" in alarms(open_run(run.folder), open_dataset(folder))


def test_a_run_without_a_seal_is_said_and_no_alarm(run, dataset):
    rewrite(run, meta=lambda m: (m.pop("seal"), m["dataset"].pop("splits_sha256")), sealed=False)
    found = {finding.kind: finding for finding in check_run(open_run(run.folder), dataset)}
    assert (found["unsealed"].alarm, found["unsealed"].look) == (False, True)
    assert not [finding for finding in found.values() if finding.alarm]


def test_an_unfinished_run_is_said_and_no_alarm(run, dataset):
    half = rewrite(
        run,
        meta=lambda m: m.update(finished=None, seal=None),
        lines=lambda r: r if r["id"] < "P03" else None,
        sealed=False,
    )
    found = {finding.kind: finding for finding in check_run(half, dataset)}
    assert (found["unfinished"].alarm, found["unfinished"].look) == (False, True)
    assert "images asked for have no line yet" in describe_finding(found["unfinished"])


def test_predictions_put_in_place_of_the_run_s(run, dataset):
    sample = dataset[run.sample_ids[0]]
    better = Prediction(np.where(sample.truth(), 9, -9).astype(np.float32)[None], (128, 128), "", canvas=128)
    (run.folder / "logits" / f"{sample.id}.npz").write_bytes(better.to_bytes())
    assert "hash_mismatch" in alarms(open_run(run.folder), dataset)


def test_a_report_on_the_training_part(dataset, predict, honest):
    assert "train_test_leak" in alarms(predict(honest(), split="train"), dataset)
    assert "train_test_leak" in alarms(predict(honest(), name="all"), dataset)


@pytest.mark.parametrize("recompressed", [False, True])
def test_training_images_under_other_names_in_the_test_part(vessels, tmp_path, predict, honest, recompressed):
    folder = tmp_path / "leaking"
    shutil.copytree(vessels, folder)
    (folder / ".sa2va-lab-key.json").unlink(missing_ok=True)
    splits = json.loads((folder / "splits.json").read_text())
    source, target = (folder / "images" / splits[name][0] for name in ("train", "test"))
    if recompressed:
        buffer = io.BytesIO()
        Image.open(source).save(buffer, "jpeg", quality=80)
        Image.open(buffer).save(target)
        assert source.read_bytes() != target.read_bytes()
    else:
        shutil.copy(source, target)
    data = open_dataset(folder)
    assert "train_test_leak" in alarms(predict(honest(), data=data, split="test"), data)


def test_the_same_image_counted_twice(vessels, tmp_path, predict, honest):
    folder = tmp_path / "twice"
    shutil.copytree(vessels, folder)
    (folder / ".sa2va-lab-key.json").unlink(missing_ok=True)
    names = json.loads((folder / "splits.json").read_text())["test"]
    shutil.copy(folder / "images" / names[0], folder / "images" / names[1])
    data = open_dataset(folder)
    assert "image_repeated" in alarms(predict(honest(), data=data, split="test"), data)


def test_a_threshold_chosen_on_what_is_reported(run, dataset):
    assert "threshold_tuned_on_test" in alarms(run, dataset, choice=choose_threshold(count_run(run, dataset)))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda c, d: {"images": []}, "lists 0"),
        (lambda c, d: {"split": ["val"], "images": c["images"][:1]}, "lists 1"),
        (lambda c, d: {"images": c["images"][:1]}, "it counts 2 images and lists 1"),
        (lambda c, d: {"weights_sha256": "1" * 64}, "other weights"),
        (lambda c, d: {"precision": "int8"}, "another number format"),
        (lambda c, d: {"prompt": "bone"}, "another prompt"),
        (
            lambda c, d: {"images": sorted(sample.image_sha256() for sample in d.split("train"))},
            "4 of its images are not in the split val",
        ),
    ],
)
def test_a_threshold_whose_own_origin_contradicts_it(spoil, said, run, dataset, predict, honest):
    choice = choose_threshold(count_run(predict(honest(), split="val", name="val"), dataset))
    assert not alarms(run, dataset, choice=choice)
    spoilt = replace(choice, origin=choice.origin | spoil(choice.origin, dataset))
    found = {finding.kind: finding for finding in check_run(run, dataset, choice=spoilt)}["threshold_contradicts"]
    assert found.alarm
    assert said in describe_finding(found)


def test_a_threshold_that_counts_more_patients_than_its_images_have(run, dataset, predict, honest):
    choice = choose_threshold(count_run(predict(honest(), split="val", name="val"), dataset))
    found = find_contradictions(replace(choice, n_groups=choice.n_groups + 1), run, dataset)
    assert found.values["why"] == f"it counts {choice.n_groups + 1} patients and lists images of {choice.n_groups}"


def test_another_model_that_is_the_same(run, dataset, predict, honest):
    twin = predict(honest(), split="test", name="twin")
    assert "same_model" in alarms(run, dataset, others=[twin])
    renamed = predict(honest("1" * 64), split="test", name="renamed")  # other weights, the very same predictions
    assert "same_model" in alarms(run, dataset, others=[renamed])
    asked = predict(honest(), split="test", name="asked", prompt="vessel")  # another prompt does not silence it
    assert "same_model" in alarms(run, dataset, others=[asked])


def test_a_twin_is_said_in_shares_and_another_precision_is_none(run, dataset, forge, predict, honest):
    half = forge(lambda t, m, r: m + r.normal(0, 1e-5, m.shape), of=lambda place: place < 5, name="half")
    rewrite(half, meta=lambda m: m["segmenter"].update(weights_sha256="1" * 64))
    found = {f.kind: f for f in check_run(run, dataset, others=[open_run(half.folder)])}["same_model"]
    assert (found.alarm, found.values["n"], found.values["near"], found.values["of"]) == (True, 1, 5, 6)
    assert "the same logits in 1 of 6 images, nearly the same in 5" in describe_finding(found)
    coarse = honest()
    coarse.provenance = coarse.provenance | {"precision": {"actual": "bf16", "reason": ""}}
    other = predict(Rounded(coarse, step=1e-4, device=1), split="test", name="bf16")
    found = {f.kind: f for f in check_run(run, dataset, others=[other])}["same_model"]
    assert (found.alarm, found.values["apart"], found.values["near"]) == (False, "precision", 6)


def test_copies_are_worth_a_look_and_no_alarm(forge, dataset, honest):
    copied = {f.kind: f for f in check_run(forge(FORGERIES["the truth"]), dataset)}
    assert (copied["identical_to_truth"].alarm, copied["identical_to_truth"].look) == (False, True)
    first = honest().predict(dataset.samples[0].image, "").logits[0]
    same = {f.kind: f for f in check_run(forge(lambda t, m, r: first, name="same"), dataset)}
    assert same["repeated_predictions"].look
    assert "sa2va-lab verify" in describe_finding(same["repeated_predictions"])


def test_honest_runs_are_not_accused(dataset, predict, honest):
    class Blurred(honest):
        def predict(self, image, prompt):
            found = super().predict(image, prompt)
            logits = ndimage.gaussian_filter(found.logits, (0, 1, 1))
            return Prediction(logits, found.size, found.answer, canvas=found.canvas)

    run, other = predict(honest(), split="test"), predict(Blurred("1" * 64), split="test", name="other")
    val = predict(honest(), split="val", name="val")
    choice = choose_threshold(count_run(val, dataset))
    for found in (
        check_run(run, dataset, choice=choice, others=[other]),
        check_run(other, dataset, threshold=0.3),
        check_run(predict(honest(), split="test", limit=3, name="some"), dataset),
        check_run(run, dataset.split("test")),
    ):
        assert [finding.kind for finding in found if finding.alarm or finding.look] == []
        assert all(describe_finding(finding) for finding in found)
