"""The Segmenter: what is remembered between questions, and what may not change because of it."""

import json
import shutil
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

import sa2va_lab
from sa2va_lab import paths
from sa2va_lab.conversation import Question
from sa2va_lab.errors import LabError
from sa2va_lab.sa2va.modeling import Sa2VA
from sa2va_lab.sa2va.processing import phrase_prompt, read_image

TWO = "[SEG] and [SEG]"


@pytest.fixture
def passes(tiny_segmenter):
    """How often the vision tower and SAM2's encoder ran, and how many positions the language model read."""
    tiny_segmenter.forget()
    counted, model = Counter(), tiny_segmenter.model
    handles = [
        model.vision_model.register_forward_hook(lambda *_: counted.update(vision=1)),
        model.grounding_encoder.vision_encoder.register_forward_hook(lambda *_: counted.update(canvas=1)),
        model.language_model.model.norm.register_forward_hook(
            lambda module, given, out: counted.update(positions=out.shape[1], states=1)
        ),
    ]
    yield counted
    for handle in handles:
        handle.remove()


def test_one_image_is_encoded_once_for_several_seg_and_prompts(tiny_segmenter, grey_image, passes):
    first = tiny_segmenter.predict(grey_image, "blood vessel", answer=TWO)
    assert first.logits.shape == (2, 256, 256)
    assert first.size == grey_image.shape
    once = passes["positions"]
    for _ in range(3):
        tiny_segmenter.predict(grey_image, "catheter", answer="Sure, [SEG].")
    assert (passes["vision"], passes["canvas"], passes["states"]) == (1, 1, 4)
    assert passes["positions"] - once < once  # three more questions read less than the first one did
    tiny_segmenter.predict(np.fliplr(grey_image), "catheter", answer="Sure, [SEG].")
    assert (passes["vision"], passes["canvas"]) == (2, 2)


def test_results_do_not_depend_on_what_was_asked_before(tiny_segmenter, grey_image):
    questions = ["blood vessel", "catheter", "<image>Where is the wire?", "Look: <image> segment it.", "blood vessel"]
    tiny_segmenter.forget()
    in_a_row = [tiny_segmenter.predict(grey_image, q, answer="It is [SEG].") for q in questions]
    for question, again in zip(questions, in_a_row, strict=True):
        tiny_segmenter.forget()
        fresh = tiny_segmenter.predict(grey_image, question, answer="It is [SEG].")
        np.testing.assert_allclose(again.logits, fresh.logits, atol=1e-4)
    assert not np.array_equal(in_a_row[0].logits, in_a_row[1].logits)  # and the question does matter


@pytest.fixture
def unstopped(tiny_segmenter, monkeypatch):
    """Untrained weights may end an answer at once; without stop tokens they babble on to the limit."""
    monkeypatch.setattr(tiny_segmenter.reader, "stops", type(tiny_segmenter.reader.stops)())
    return tiny_segmenter


def test_generated_answers_do_not_depend_on_memory_or_draft(unstopped, grey_image):
    tiny_segmenter = unstopped
    tiny_segmenter.forget()
    start = tiny_segmenter.draft
    first = tiny_segmenter.predict(grey_image, "blood vessel", limit=10)
    tiny_segmenter.draft = []
    again = tiny_segmenter.predict(grey_image, "blood vessel", limit=10)
    assert first.answer == again.answer
    assert unstopped.reader.answer_ids(first.answer)
    tiny_segmenter.draft = start


def test_only_an_answer_that_ended_becomes_the_next_draft(unstopped, grey_image):
    before = unstopped.draft
    unstopped.predict(grey_image, "blood vessel", limit=3)
    assert unstopped.draft == before


def test_memory_is_given_back(tiny_segmenter, grey_image):
    import gc
    import weakref

    tiny_segmenter.predict(grey_image, "blood vessel", answer=TWO)
    kept = weakref.ref(tiny_segmenter._seen.features)
    cache = weakref.ref(tiny_segmenter._seen.cache)
    tiny_segmenter.forget()
    gc.collect()
    assert kept() is None
    assert cache() is None


def test_a_failed_prompt_leaves_the_next_one_right(tiny_segmenter, grey_image):
    expected = tiny_segmenter.predict(grey_image, "catheter", answer=TWO).logits
    with pytest.raises(LabError, match="given answer is empty"):
        tiny_segmenter.predict(grey_image, "catheter", answer=" ")
    np.testing.assert_allclose(tiny_segmenter.predict(grey_image, "catheter", answer=TWO).logits, expected, atol=1e-4)


def test_no_seg_is_a_result(tiny_segmenter, grey_image, passes):
    prediction = tiny_segmenter.predict(grey_image, "stent", answer="There is no stent.")
    assert (prediction.n_seg, prediction.answer) == (0, "There is no stent.")
    assert prediction.logits.shape == (0, 256, 256)
    assert not prediction.mask().any()
    assert passes["canvas"] == 0  # nothing to draw, nothing to encode


def test_the_answer_alone_runs_no_sam2_and_is_the_same():
    segmenter = sa2va_lab.load(paths.demo_model(), device="cpu")
    samples = sa2va_lab.open_dataset(paths.demo_data(), phrase="blood vessel")
    image = next(sample.image for sample in samples if sample.id == "P07-V1-F003")
    looks = []
    segmenter.model.grounding_encoder.vision_encoder.register_forward_hook(lambda *_: looks.append(1))
    said = segmenter.answer(image, "blood vessel")
    assert not looks
    made = segmenter.predict(image, "blood vessel")
    assert (made.answer, made.n_seg, len(looks)) == (said, 1, 1)


def test_images_of_every_kind_give_the_same(tiny_segmenter, grey_image, tmp_path):
    Image.fromarray(grey_image).save(tmp_path / "grey.png")
    expected = tiny_segmenter.predict(grey_image, "blood vessel", answer=TWO).logits
    for image in (tmp_path / "grey.png", str(tmp_path / "grey.png"), Image.fromarray(grey_image).convert("RGBA")):
        np.testing.assert_array_equal(tiny_segmenter.predict(image, "blood vessel", answer=TWO).logits, expected)


PICTURES = ("grey", "mirrored", "grey", "dark", "dark")  # a second question about the last image twice


@pytest.fixture
def pictures(grey_image):
    kinds = {"grey": grey_image, "mirrored": np.fliplr(grey_image), "dark": grey_image // 2}
    return [kinds[name] for name in PICTURES]


def same(one, other):
    """Equal but for rounding, which what lies together in a batch moves."""
    close = one.logits.shape == other.logits.shape and np.allclose(one.logits, other.logits, atol=1e-4, rtol=0)
    return one.answer == other.answer and one.size == other.size and close


@pytest.mark.parametrize("batch", [1, 2, 3, 9])
@pytest.mark.parametrize("options", [{"answer": TWO}, {"limit": 5}], ids=["answer", "limit"])
def test_a_batch_gives_what_one_at_a_time_gives(tiny_segmenter, pictures, batch, options):
    tiny_segmenter.forget()
    draft = tiny_segmenter.draft
    expected = [tiny_segmenter.predict(picture, "blood vessel", **options) for picture in pictures]
    tiny_segmenter.forget()
    tiny_segmenter.draft = draft
    many = list(tiny_segmenter.predict_many(iter(pictures), "blood vessel", batch=batch, **options))
    assert len(many) == len(expected)
    assert all(map(same, many, expected))
    assert all(one.seconds.keys() == {"pixels", "vision", "answer", "canvas", "masks"} for one in many)


def test_a_ragged_batch_answers_greedily_whatever_the_draft(root, tmp_path):
    """Real answers of the demo: masks and a refusal, images of 1 and 3 tiles, drafts that fit and do not."""
    folder = shutil.copytree(root / "data/demo/base", tmp_path / "base")
    raw = json.loads((folder / "config.json").read_text())
    raw["sa2va_lab"]["max_tiles"] = 2
    (folder / "config.json").write_text(json.dumps(raw))
    segmenter = sa2va_lab.load(folder, device="cpu", precision="fp32")
    samples = sa2va_lab.open_dataset(paths.demo_data(), phrase="catheter").split("test").samples[::15]
    images = [np.asarray(read_image(sample.image)) for sample in samples]
    images = [*images, images[0][:40], np.tile(images[0], (1, 2, 1)), np.zeros_like(images[0])]
    segmenter.draft = []
    expected = [segmenter.predict(image, "catheter", limit=12) for image in images]
    assert {one.n_seg for one in expected} == {0, 1}
    family, config = segmenter.model.config.family, segmenter.model.config
    assert {family.count_tiles(*image.shape[1::-1], config) for image in images} == {1, 3}
    for draft in ("Sure, [SEG].", "There is none of it.", TWO):
        segmenter.draft = segmenter.reader.answer_ids(draft)
        segmenter.forget()
        many = segmenter.predict_many(images, "catheter", batch=len(images), limit=12)
        assert all(map(same, many, expected)), draft
    two = [segmenter.predict(image, "catheter", answer=TWO) for image in images]
    assert all(map(same, segmenter.predict_many(images, "catheter", batch=3, answer=TWO), two))


def test_images_are_made_ready_beside_the_network(tiny_segmenter, pictures, tmp_path, monkeypatch):
    """Prepared or not, an image gives the same; what cannot be read is raised when its turn comes."""
    for number, picture in enumerate(pictures[:2]):
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    paths = [tmp_path / name for name in ("0.png", "bad.png", "1.png")]
    expected = [tiny_segmenter.predict(paths[place], "x", answer=TWO) for place in (0, 2)]
    tiny_segmenter.forget()
    tiny_segmenter.prepare(paths)
    tiny_segmenter._pool.submit(list).result()
    monkeypatch.setattr("sa2va_lab.sa2va.processing.read_image", None)  # each was read once, elsewhere
    assert same(tiny_segmenter.predict(paths[0], "x", answer=TWO), expected[0])
    with pytest.raises(LabError, match="not a readable image"):
        tiny_segmenter.predict(paths[1], "x", answer=TWO)
    assert same(tiny_segmenter.predict(paths[2], "x", answer=TWO), expected[1])


def test_batches_are_taken_lazily(tiny_segmenter, pictures):
    taken = []
    given = (taken.append(number) or picture for number, picture in enumerate(pictures))
    many = tiny_segmenter.predict_many(given, "blood vessel", batch=2, answer=TWO)
    assert taken == []
    next(many)
    assert taken == [0, 1]
    with pytest.raises(LabError, match="batch is 0; expected at least 1"):
        list(tiny_segmenter.predict_many(pictures, "x", batch=0))


def test_what_came_before_a_failure_is_handed_out_first(tiny_segmenter, pictures, tmp_path):
    many = tiny_segmenter.predict_many([*pictures[:2], tmp_path / "none.png", pictures[3]], "x", batch=4, answer=TWO)
    assert [one.n_seg for one in (next(many), next(many))] == [2, 2]
    with pytest.raises(LabError, match="No image file"):
        next(many)


def fail_above(monkeypatch, most):
    """Memory runs out wherever more than so many images are encoded for SAM2 at once."""
    whole, asked = Sa2VA.encode_canvas, []

    def encode(self, canvas):
        asked.append(len(canvas))
        if len(canvas) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(self, canvas)

    monkeypatch.setattr(Sa2VA, "encode_canvas", encode)
    return asked


DIFFERENT = 5


@pytest.mark.parametrize(("precision", "rounded"), [("fp32", False), ("bf16", True)])
def test_fp32_is_not_rounded_to_tf32(tiny_folder, grey_image, precision, rounded):
    segmenter, seen = sa2va_lab.load(tiny_folder, precision=precision, device="cpu"), []
    segmenter.model.vision_model.register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.allow_tf32))
    before = torch.backends.cudnn.allow_tf32
    assert before
    segmenter.predict(grey_image, "x", answer=TWO)
    assert seen == [rounded]
    assert torch.backends.cudnn.allow_tf32 == before


def test_a_batch_without_room_is_halved_and_no_precision_is_given_up(tiny_folder, grey_image, monkeypatch):
    images = [grey_image // (1 + number) for number in range(DIFFERENT)]
    segmenter = sa2va_lab.load(tiny_folder, precision="fp32", device="cpu")
    before = [segmenter.predict(image, "x", answer=TWO) for image in images]
    segmenter.forget()
    asked = fail_above(monkeypatch, 1)
    many = list(segmenter.predict_many(images, "x", batch=4, answer=TWO))
    assert all(map(same, many, before))
    assert asked == [4, 2, *[1] * DIFFERENT]
    assert segmenter.provenance["precision"]["actual"] == "fp32"
    assert [step["to"] for step in segmenter.provenance["steps"]] == ["2", "1"]


def test_where_one_image_has_no_room_the_next_rung_takes_over(tiny_folder, pictures, monkeypatch):
    segmenter = sa2va_lab.load(tiny_folder, precision="fp32", device="cpu")
    after = sa2va_lab.load(tiny_folder, precision="bf16", device="cpu")
    expected = [after.predict(picture, "x", answer=TWO) for picture in pictures]
    whole, failures = Sa2VA.encode_canvas, iter([2, 1])

    def encode(self, canvas):
        if next(failures, None):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(self, canvas)

    monkeypatch.setattr(Sa2VA, "encode_canvas", encode)
    with pytest.warns(UserWarning, match="out of memory in a prediction"):
        many = list(segmenter.predict_many(pictures, "x", batch=2, answer=TWO))
    assert [one.answer for one in many] == [one.answer for one in expected]
    assert segmenter.provenance["precision"]["actual"] == "bf16"
    assert [step["to"] for step in segmenter.provenance["steps"]] == ["1", "bf16 on cpu"]


def test_provenance_gives_reasons(tiny_segmenter, tiny_folder):
    said = tiny_segmenter.provenance
    assert said["precision"] == {"asked": "fp32", "actual": "fp32", "reason": "as asked"}
    assert said["device"]["actual"] == "cpu"
    assert len(said["weights_sha256"]) == 64
    assert tiny_segmenter.stamp == said["stamp"]
    assert sa2va_lab.load(tiny_folder, device=torch.device("cpu")).provenance["device"]["actual"] == "cpu"
    automatic = sa2va_lab.load(tiny_folder).provenance
    assert automatic["precision"]["actual"] in automatic["precision"]["reason"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"precision": "int3"}, "not available"),
        ({"device": "abacus"}, "No device is called"),
        ({"device": "cuda:99"}, "CUDA devices are visible"),
        ({"device": "meta"}, "No device is called"),
    ],
)
def test_impossible_wishes(tiny_folder, options, said):
    with pytest.raises(LabError, match=said):
        sa2va_lab.load(tiny_folder, **options)


def test_bf16_runs(tiny_folder, grey_image):
    prediction = sa2va_lab.load(tiny_folder, precision="bf16", device="cpu").predict(grey_image, "x", answer=TWO)
    assert prediction.logits.dtype == np.float32
    assert np.isfinite(prediction.logits).all()


def test_states_come_from_the_pass_that_read_the_answer(tiny_segmenter, grey_image):
    """One pass for a draft that is right: make the model's own answer the draft and count the passes."""
    answer = tiny_segmenter.predict(grey_image, "blood vessel", limit=8)
    before, calls = tiny_segmenter.draft, []
    prompt = tiny_segmenter.reader.prompt_ids(phrase_prompt("blood vessel")[0], len(tiny_segmenter._seen.sight))
    [asked], _ = tiny_segmenter._look([Question(grey_image, "blood vessel", limit=8)])
    asked.ids = prompt
    tiny_segmenter.draft = tiny_segmenter._answer([asked])[0].ids
    handle = tiny_segmenter.model.language_model.model.norm.register_forward_hook(lambda *_: calls.append(1))
    again = tiny_segmenter.predict(grey_image, "blood vessel", limit=8)
    handle.remove()
    tiny_segmenter.draft = before
    assert again.answer == answer.answer
    assert len(calls) == 1


def test_import_is_fast_and_light():
    """`import sa2va_lab` must not pull in torch: it comes when it is needed."""
    import subprocess
    import sys

    heavy = ("torch", "transformers", "pandas", "matplotlib")
    code = f"import sys, sa2va_lab, sa2va_lab.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_threads_are_left_alone(tiny_segmenter, grey_image):
    before = torch.get_num_threads()
    tiny_segmenter.predict(grey_image, "x", answer=TWO)
    assert torch.get_num_threads() == before
