"""Regions, questions without an image, and conversations: what is read, what is kept, what is refused."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import sa2va_lab
from sa2va_lab.conversation import Question
from sa2va_lab.errors import LabError
from sa2va_lab.prediction import Prediction
from sa2va_lab.sa2va.modeling import CanvasFeatures, Sa2VA

ONE, TWO = "Sure, [SEG].", "[SEG] and [SEG]"


@pytest.fixture(autouse=True)
def without_sam2(monkeypatch):
    """A mask is the [SEG] state that it would be drawn from, over and over: SAM2 takes nine tenths of the time."""

    def draw(self, features, states):
        side = self.grounding_encoder.config.vision_config.backbone_feature_sizes[0][0]
        logits = states.float().repeat(1, side**2 // states.shape[1] + 1)[:, : side**2]
        return SimpleNamespace(logits=logits.unflatten(1, (side, side)))

    monkeypatch.setattr(Sa2VA, "draw", draw)
    monkeypatch.setattr(Sa2VA, "encode_canvas", lambda self, canvas: CanvasFeatures(canvas, (canvas, canvas)))


@pytest.fixture
def read(tiny_segmenter, monkeypatch):
    """How many tokens the language model reads, pass by pass."""
    whole, counts = Sa2VA.read, []

    def count(self, embeddings, cache):
        counts.append(embeddings.shape[1])
        return whole(self, embeddings, cache)

    monkeypatch.setattr(Sa2VA, "read", count)
    tiny_segmenter.forget()
    return counts


@pytest.fixture
def halves(grey_image):
    """Two regions with as many pixels each: left and right."""
    left = np.zeros(grey_image.shape, bool)
    left[:, :45] = True
    return left, ~left


def same(one, other):
    np.testing.assert_allclose(one.logits, other.logits, atol=1e-4)
    return one.answer == other.answer


def read_out(segmenter, question):
    """(text, ids) as the network gets them."""
    [asked], failure = segmenter._look([question])
    assert failure is None
    return asked.text, segmenter.reader.prompt_ids(asked.text, 0 if question.image is None else 64, cells=asked.cells)


def test_a_turn_reads_what_is_new_and_nothing_else(tiny_segmenter, grey_image, read):
    chat, encode = tiny_segmenter.chat(grey_image), tiny_segmenter.reader._ids
    first = chat.ask("blood vessel", answer=TWO)
    assert first.n_seg == 2
    assert chat.ask("What colour is it?", answer="It is grey.").n_seg == 0  # the [SEG] before are past
    new = encode("<|im_end|>\n<|im_start|>user\nWhat colour is it?<|im_end|>\n<|im_start|>assistant\nIt is grey.")
    assert read[1:] == [len(new)]
    third = chat.ask("Segment it.", answer=ONE)
    assert len(third.logits) == 1
    assert chat.turns == [("blood vessel", TWO), ("What colour is it?", "It is grey."), ("Segment it.", ONE)]
    del chat.turns[2:]
    chat.forget()
    assert same(chat.ask("Segment it.", answer=ONE), third)
    assert sum(read[:3]) == read[3]  # after that all was read once more
    alone = tiny_segmenter.predict(grey_image, "Segment it.", answer=ONE)
    assert not np.allclose(alone.logits, third.logits, atol=1e-4)  # what came before counts


def test_generated_answers_are_those_of_one_long_prompt(tiny_segmenter, grey_image, monkeypatch):
    monkeypatch.setattr(tiny_segmenter.reader, "stops", set())  # untrained weights babble on to the limit
    chat = tiny_segmenter.chat(grey_image)
    answers = [chat.ask(f"What is {name}?", limit=9).answer for name in "abc"]
    assert len(set(answers)) > 1
    again = tiny_segmenter.chat(grey_image)
    for (question, answer), expected in zip(chat.turns, answers, strict=True):
        again.forget()
        assert again.ask(question, limit=9).answer == answer == expected


def test_conversations_do_not_disturb_each_other(tiny_segmenter, grey_image):
    questions, images = ("Segment it.", "And the other?", "Both."), (grey_image, np.fliplr(grey_image))
    alone = []
    for image in images:
        chat = tiny_segmenter.chat(image)
        alone.append([chat.ask(question, answer=TWO) for question in questions])
    chats, between = (
        [tiny_segmenter.chat(image) for image in images],
        tiny_segmenter.predict(grey_image, "x", answer=TWO),
    )
    for turn, question in enumerate(questions):
        for chat, expected in zip(chats, alone, strict=True):
            assert same(chat.ask(question, answer=TWO), expected[turn])
        assert same(tiny_segmenter.predict(grey_image, "x", answer=TWO), between)
        if turn == 1:
            tiny_segmenter.forget()
            assert [chat.seen for chat in chats] == [None, None]


def test_a_conversation_goes_on_over_a_step_of_the_ladder(tiny_folder, grey_image, monkeypatch):
    after = sa2va_lab.load(tiny_folder, precision="bf16", device="cpu").chat(grey_image)
    expected = [after.ask(question, answer=TWO) for question in ("Segment it.", "Again.")][1]
    segmenter = sa2va_lab.load(tiny_folder, precision="fp32", device="cpu")
    chats = [segmenter.chat(grey_image), segmenter.chat(grey_image)]
    for chat in chats:
        chat.ask("Segment it.", answer=TWO)
    whole, failures = Sa2VA.read, iter([1])

    def read(self, embeddings, cache):
        if next(failures, None):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(self, embeddings, cache)

    monkeypatch.setattr(Sa2VA, "read", read)
    with pytest.warns(UserWarning, match="out of memory"):
        first = chats[0].ask("Again.", answer=TWO)
    for prediction in (first, chats[1].ask("Again.", answer=TWO)):
        np.testing.assert_allclose(prediction.logits, expected.logits, atol=0.2)  # bf16, read in other portions
    assert segmenter.provenance["precision"]["actual"] == "bf16"


def test_what_is_refused_is_no_turn(tiny_segmenter, grey_image, halves, monkeypatch):
    chat = tiny_segmenter.chat(grey_image)
    chat.ask("Segment it.", answer=ONE)
    expected = chat.ask("Again.", answer=ONE)
    del chat.turns[1:]
    for text, options, said in (
        ("Again.", {"answer": " "}, "given answer is empty"),
        ("", {}, "prompt is empty"),
        ("<|im_end|>", {}, "own punctuation"),
        ("Again.", {"regions": [halves[0][1:]]}, "Region 1 is bool"),
    ):
        with pytest.raises(LabError, match=said):
            chat.ask(text, **options)
    chat.turns += [("word " * 750, ONE)] * 3
    with pytest.raises(LabError, match="tokens, and the model reads 2,048 with its answer: begin a new conversation"):
        chat.ask("Again.")
    del chat.turns[1:]
    assert chat.regions == []
    assert same(chat.ask("<image>\nAgain.", answer=ONE), expected)  # there is one image, in the first turn
    monkeypatch.setattr(tiny_segmenter.model.language_model.config, "max_position_embeddings", len(chat.seen.read) + 40)
    monkeypatch.setattr(tiny_segmenter.reader, "stops", set())
    assert chat.ask("More.").answer  # as far as there is room
    assert len(chat.seen.read) == tiny_segmenter.model.language_model.config.max_position_embeddings - 1


def test_an_answer_cannot_stand_for_an_image(tiny_segmenter, grey_image):
    chat = tiny_segmenter.chat(grey_image)
    chat.ask("Segment it.", answer="<image> <IMG_CONTEXT> [SEG].")
    assert chat.ask("Again.", answer=ONE).n_seg == 1
    chat.ask("x", answer=ONE)
    assert chat.turns[0][1] == "<image> <IMG_CONTEXT> [SEG]."


def test_without_an_image_there_is_text_alone(tiny_segmenter, read):
    prediction = tiny_segmenter.predict(None, "blood vessel", answer=ONE)
    assert (prediction.n_seg, prediction.size, prediction.answer) == (0, (0, 0), ONE)
    assert prediction.mask().shape == prediction.probability().shape == (0, 0)
    assert Prediction.from_npz(io.BytesIO(prediction.to_bytes())).size == (0, 0)
    text, ids = read_out(tiny_segmenter, Question(None, "<image>blood vessel", ONE))
    assert text == "blood vessel"
    assert tiny_segmenter.reader.tokenizer.decode(ids.all) == (
        "<|im_start|>user\nblood vessel<|im_end|>\n<|im_start|>assistant\n"
    )
    chat = tiny_segmenter.chat()
    chat.ask("What is it?", answer="A line.")
    read.clear()
    chat.ask("Where?", answer="Here.")
    assert read == [len(tiny_segmenter.reader._ids("<|im_end|>\n<|im_start|>user\nWhere?<|im_end|>\n"
                                                   "<|im_start|>assistant\nHere."))]  # fmt: skip
    with pytest.raises(LabError, match="prompt is empty"):
        tiny_segmenter.predict(None, "<image>")
    with pytest.raises(LabError, match="parts of an image, and this question has none"):
        chat.ask("region1?", regions=[np.ones((4, 4), bool)])


def test_regions_are_told_apart_by_what_they_cover(tiny_segmenter, grey_image, halves, read):
    left, right = ([half] for half in halves)
    ask = {"prompt": "Segment region1.", "answer": ONE}
    first = tiny_segmenter.predict(grey_image, regions=left, **ask)
    other = tiny_segmenter.predict(grey_image, regions=right, **ask)
    assert read[1] < read[0] - 64  # the image is read once, though the ids of both are the same
    assert not np.allclose(first.logits, other.logits, atol=1e-4)
    tiny_segmenter.forget()
    assert same(tiny_segmenter.predict(grey_image, regions=right, **ask), other)
    many = list(tiny_segmenter.predict_many([grey_image, np.fliplr(grey_image)], batch=2, regions=left, **ask))
    assert same(many[0], first)
    chat = tiny_segmenter.chat(grey_image)
    chat.ask(ask["prompt"], answer=ONE, regions=left)
    chat.turns.clear()
    chat.regions.clear()
    assert same(chat.ask(ask["prompt"], answer=ONE, regions=right), other)  # where the cache has read the left one
    text, ids = read_out(tiny_segmenter, Question(grey_image, "Look: <image>it", ONE, regions=halves))
    assert text.startswith("Look: <image>\nThere are 2 part regions in the picture: region1<vp><IMG_CONTEXT>")
    assert text.endswith("<IMG_CONTEXT></vp>.\nit")
    assert sorted(row for row in ids.rows if row >= 0) == sorted([*range(64)] * 2)  # of one tile of 8 x 8


def test_a_later_region_stands_beside_the_first(tiny_segmenter, grey_image, halves, read):
    chat = tiny_segmenter.chat(grey_image)
    chat.ask("Segment region1.", answer=ONE, regions=halves[:1])
    second = chat.ask("And region2?", answer=ONE, regions=halves[1:])
    assert read[1] < read[0]  # not the image again
    assert len(chat.regions) == 2
    again = tiny_segmenter.chat(grey_image)
    again.turns, again.regions = chat.turns[:1], list(halves)
    assert same(again.ask("And region2?", answer=ONE), second)


@pytest.mark.parametrize(
    ("region", "said"),
    [
        (
            np.ones((60, 90), np.uint8),
            r"Region 1 is uint8 \(60, 90\): give a bool mask of the image's size, \(60, 90\)",
        ),
        (np.ones((90, 60), bool), r"Region 1 is bool \(90, 60\)"),
        (np.ones(90, bool), r"Region 1 is bool \(90,\)"),
        (np.zeros((60, 90), bool), r"Region 1 \(0 pixels\) covers none of the 8 x 8 cells"),
        (np.arange(5400).reshape(60, 90) == 91, r"Region 1 \(1 pixels\) covers none"),
    ],
)
def test_a_region_that_says_nothing_is_refused(tiny_segmenter, grey_image, region, said):
    with pytest.raises(LabError, match=said):
        tiny_segmenter.predict(grey_image, "Segment region1.", regions=[region])


def test_a_qwen_vl_talks_and_knows_no_regions(write_family, grey_image, halves):
    segmenter = sa2va_lab.load(write_family("qwen3vl"), precision="fp32", device="cpu")
    with pytest.raises(LabError, match="on an InternVL only, and this is a Sa2VA on Qwen3-VL"):
        segmenter.predict(grey_image, "Segment region1.", regions=halves)
    chat = segmenter.chat(grey_image)
    chat.ask("Segment it.", answer=ONE)
    second = chat.ask("Again.", answer=ONE)
    tokens = segmenter.reader.tokenizer.decode([token for token, _ in chat.seen.read])
    assert tokens.replace("<|image_pad|>", "") == (
        "<|im_start|>user\n<|vision_start|><|vision_end|>Segment it.<|im_end|>\n<|im_start|>assistant\nSure, [SEG]."
        "<|im_end|>\n<|im_start|>user\nAgain.<|im_end|>\n<|im_start|>assistant\nSure, [SEG]."
    )
    del chat.turns[1:]
    chat.forget()
    assert same(chat.ask("Again.", answer=ONE), second)
    assert segmenter.predict(None, "What is a vessel?", answer="A line.").size == (0, 0)
    assert read_out(segmenter, Question(None, "What?", ONE))[1].head == []
