"""Against the official implementation's recorded outputs: same ids, same embeddings, same masks."""

import dataclasses
import json
import os
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

import sa2va_lab
from sa2va_lab.conversation import Question
from sa2va_lab.prediction import Prediction
from sa2va_lab.sa2va.answering import read_answers, write_answers
from sa2va_lab.sa2va.configuration import read_config
from sa2va_lab.sa2va.processing import normalise, read_image, stretch
from sa2va_lab.sa2va.weights import build_empty

HERE = Path(__file__).parent
DEVICE = os.environ.get("SA2VA_LAB_DEVICE", "cpu")  # `make gpu` names a card
PROMPT = "<image>Please segment the blood vessel."
ANSWERS = {"one": "Sure, [SEG].", "two": "[SEG] and [SEG]"}
IMAGES = {
    "retina": lambda: Image.fromarray(skimage.data.retina()),
    "coffee": lambda: Image.fromarray(skimage.data.coffee()),
    "chelsea_small": lambda: Image.fromarray(skimage.data.chelsea()).crop((100, 40, 300, 240)),
}

FAMILIES = ["internvl", "internvl_qwen3", "internlm2", "phi3", "qwen2_5_vl", "qwen3vl"]
CASES = [f"{family}/{image}" for family in FAMILIES for image in IMAGES if (HERE / family / f"{image}.npz").is_file()]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def open_family(write_parity):
    """family -> its segmenter; the last one is kept, as cases come family by family."""
    return lru_cache(maxsize=1)(lambda family: sa2va_lab.load(write_parity(family), precision="fp32", device=DEVICE))


@pytest.fixture(scope="module", params=CASES)
def which(request):
    return request.param


@pytest.fixture(scope="module")
def segmenter(which, open_family):
    return open_family(which.partition("/")[0])


@pytest.fixture(scope="module")
def case(which, segmenter):
    """(image, golden arrays, what is seen of it): the vision tower runs once an image."""
    image, golden = read_image(IMAGES[which.partition("/")[2]]()), np.load(HERE / f"{which}.npz")
    with torch.inference_mode():
        sight = segmenter.model.encode_image(segmenter.model.config.family.pixels(image, segmenter.model.config))
    return image, golden, sight


@pytest.fixture(scope="module")
def drawn():
    """{image: what SAM2 saw in it}, and the SAM2 that did: in every family it has the same weights, so that its
    encoder, much the slowest part, runs once an image."""
    return {}


def begin(segmenter, sight, question=PROMPT):
    """The embedded prompt and the cache that reads it."""
    cache, inputs = segmenter._begin([segmenter.reader.prompt_ids(question, len(sight))], [sight])
    return inputs, cache


def test_pixels_and_input_ids_are_identical(case, segmenter):
    image, golden, sight = case
    config = segmenter.model.config
    pixels, canvas = config.family.pixels(image, config), normalise(stretch(image, config).float())
    if config.family.group == "qwen-vl":
        np.testing.assert_array_equal(pixels[0][::97, ::31], golden["pixel_values_slice"])
        np.testing.assert_allclose(sight.tokens[::7], golden["visual_embeds_slice"], atol=2e-5, rtol=0)
    else:
        np.testing.assert_array_equal(pixels[:, :, 100:104, 200:208], golden["pixel_values_slice"])
        np.testing.assert_array_equal(canvas[0, :, 500:504, 300:308], golden["g_pixel_values_slice"])
    ids = segmenter.reader.prompt_ids(PROMPT, len(sight))
    np.testing.assert_array_equal(ids.all, golden["input_ids"])


def test_answers_about_one_image(which, case, segmenter, drawn):
    """Both given answers about one image."""
    (image, golden, sight), name = case, which.partition("/")[2]
    [asked], _ = segmenter._look([Question(image, PROMPT)])
    seen = asked.seen
    seen.sight = sight
    if name in drawn:
        seen.features, first = drawn[name]
        own = segmenter.model.grounding_encoder.state_dict()
        assert own.keys() == first.keys()
        assert all(torch.equal(own[key], first[key]) for key in own)
    for count, answer in ANSWERS.items():
        prediction = segmenter.predict(image, PROMPT, answer=answer)
        expected = golden[f"{count}/low_res_mask_logits"][:, 0]
        assert prediction.logits.shape == expected.shape
        np.testing.assert_allclose(prediction.logits, expected, atol=2e-3, rtol=0)
        height, width = prediction.size
        masks = np.unpackbits(golden[f"{count}/mask_packbits"], axis=-1)[..., :width].astype(bool)
        assert masks.shape == (len(expected), height, width)
        for i, mask in enumerate(masks):
            assert (prediction.mask(merge=i) != mask).sum() <= 50
        with torch.inference_mode():
            given = segmenter.reader.answer_ids(answer)
            [reply] = read_answers(segmenter.model, *begin(segmenter, sight), answer=given)
            embeddings = segmenter.model.embed_segs(reply.states_at(segmenter.reader.seg))
            masks = segmenter.model.draw_still(segmenter._seen.features, embeddings)
        drawn.setdefault(name, (segmenter._seen.features, segmenter.model.grounding_encoder.state_dict()))
        assert reply.ids == golden[f"{count}/forced_ids"].tolist()
        np.testing.assert_allclose(embeddings, golden[f"{count}/language_embd"], atol=5e-4, rtol=0)
        np.testing.assert_allclose(masks.ious, golden[f"{count}/ious"], atol=5e-4, rtol=0)


def greedy(segmenter, sight, draft, limit=12):
    with torch.inference_mode():
        stops = segmenter.reader.stops
        return write_answers(segmenter.model, *begin(segmenter, sight), draft=draft, stops=stops, limit=limit)[0]


def test_greedy_ids_are_the_official_ones_whatever_the_draft(case, segmenter):
    _, golden, sight = case
    expected = golden["greedy_sequence"].tolist()
    plain = greedy(segmenter, sight, [])
    assert plain.ids == expected
    assert plain.accepted == 0
    most = segmenter.model.config.language["vocab_size"]
    drafts = {"right": expected, "half": expected[:6], "longer": [*expected, 5, 6, 7]}
    drafts |= {f"wrong at {i}": [*expected[:i], (expected[i] + 1) % most, *expected[i + 1 :]] for i in range(12)}
    for name, draft in drafts.items():
        reply = greedy(segmenter, sight, draft)
        agreed = int(name.rpartition(" ")[2]) if name.startswith("wrong") else {"half": 6}.get(name, 12)
        assert reply.ids == expected, name
        assert reply.accepted == agreed, name
        torch.testing.assert_close(reply.states, plain.states, atol=1e-4, rtol=0)


def test_second_prompt_reuses_what_stands_before_the_question(case, segmenter):
    """Equal results with and without the memory of the image, and the cache back at its length after each."""
    image, _, sight = case
    questions, answer = [PROMPT, "<image>\nWhere is it?", PROMPT], segmenter.reader.answer_ids("Sure, [SEG].")
    segmenter.forget()
    for question in questions:
        prompt = segmenter.reader.prompt_ids(question, len(sight))
        with torch.inference_mode():
            [fresh] = read_answers(segmenter.model, *begin(segmenter, sight, question), answer=answer)
            [asked], _ = segmenter._look([Question(image, question, "Sure, [SEG].", 12)])
            asked.ids, asked.seen.sight = prompt, sight
            [again] = segmenter._answer([asked])
            [same] = read_answers(segmenter.model, *begin(segmenter, sight, question), answer=again.ids)
        assert asked.seen.cache.get_seq_length() == len(prompt.head)
        torch.testing.assert_close(again.states, same.states, atol=1e-4, rtol=0)
        torch.testing.assert_close(again.states, fresh.states, atol=1e-4, rtol=0)


def test_all_names_of_the_real_8b_model_land():
    """1,589 official tensors against the network that a released config.json builds, on the meta device."""
    official = json.loads((HERE / "internvl3_8b_tensors.json").read_text())
    assert len(official) == 1589
    base = read_config(HERE / "internvl")
    config = dataclasses.replace(
        base,
        vision=base.vision | {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
                              "num_attention_heads": 16},
        language=base.language | {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
                                  "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 151679,
                                  "bos_token_id": None, "eos_token_id": None},
    )  # fmt: skip
    ours = {name: tuple(tensor.shape) for name, tensor in build_empty(config).state_dict().items()}
    parts = config.names.match(official, ours)
    assert {name for found in parts.values() for name, _ in found} == set(official)
    for name, found in parts.items():
        theirs, place = official[found[0][0]], found[0][1]
        expected = {"whole": tuple(theirs), "third": (theirs[0] // 3, *theirs[1:]), "row": (len(found), *theirs[1:])}
        assert ours[name] == expected[place.kind], name
    counted = sum(int(np.prod(shape)) for name, shape in official.items() if "gaussian_matrix" not in name)
    assert counted == 8_182_606_130


def test_one_step_up_sampling_would_be_another_mask():
    """Why masks go up in two steps: a single step moves more pixels than the parity test allows."""
    golden = np.load(HERE / "internvl" / "retina.npz")
    prediction = Prediction(golden["one/low_res_mask_logits"][:, 0], (1411, 1411), "Sure, [SEG].")
    single = Prediction(prediction.logits, prediction.size, "", canvas=prediction.logits.shape[-1])
    assert (prediction.mask() != single.mask()).sum() > 50


def remember(segmenter, name, drawn):
    """The image as seen, if a test before has drawn on it: its SAM2 features, since SAM2 has the same weights."""
    image = read_image(IMAGES[name]())
    segmenter.forget()
    [asked], _ = segmenter._look([Question(image, PROMPT)])
    asked.seen.features = drawn[name][0] if name in drawn else None
    return image


def agrees(prediction, golden, case, logits, every=1):
    np.testing.assert_allclose(
        prediction.logits[..., ::every, ::every], golden[f"{case}/{logits}"][:, 0], atol=2e-3, rtol=0
    )
    masks = np.unpackbits(golden[f"{case}/mask_packbits"], axis=-1)[..., : prediction.size[1]].astype(bool)
    return (prediction.mask(merge=0) != masks[0]).sum() <= 50


def test_regions(open_family, drawn):
    """Two regions that overlap, as visual prompts."""
    segmenter, golden = open_family("internvl"), np.load(HERE / "internvl/vp.npz")
    image, (y, x) = remember(segmenter, "coffee", drawn), np.indices((400, 600))
    regions = [(180 <= x) & (x < 330) & (60 <= y) & (y < 220), (x - 300) ** 2 + (y - 210) ** 2 <= 130**2]
    question = "<image>Please segment the object that region1 and region2 share."
    prediction = segmenter.predict(image, question, answer="Sure, [SEG].", regions=regions)
    assert agrees(prediction, golden, "vp", "low_res_mask_logits")
    [asked], _ = segmenter._look([Question(image, question, regions=regions)])
    assert asked.cells == [cell for cells in golden["vp/region_cells_16x16"] for cell in np.flatnonzero(cells)]
    ids = segmenter.reader.prompt_ids(asked.text, len(asked.seen.sight), cells=asked.cells)
    np.testing.assert_array_equal(ids.all, golden["vp/input_ids"])
    with torch.inference_mode():
        embedded = segmenter._embed([ids], [asked.seen.sight])[0][[row >= 0 for row in ids.rows]]
    np.testing.assert_allclose(embedded[-len(asked.cells) :], golden["vp/inputs_embeds_after_image"], atol=2e-5, rtol=0)


def test_turns(open_family, drawn):
    """Text alone, and second turns; the ids that were read are those of the golden prompt and its greedy answer."""
    segmenter, golden = open_family("internvl"), np.load(HERE / "internvl/turns.npz")

    def has_read(chat, case):
        expected = [*golden[f"{case}/input_ids"], *golden[f"{case}/greedy_sequence"][:-1]]
        return [token for token, _ in chat.seen.read] == expected

    chat = segmenter.chat()
    text = chat.ask("<image>What is a blood vessel?", limit=12)
    assert text.n_seg == 0
    assert has_read(chat, "text_only")
    assert text.answer == segmenter.reader.decode(golden["text_only/greedy_sequence"].tolist())
    chat = segmenter.chat()
    chat.ask("What is a blood vessel?", answer="It carries blood.")
    chat.ask("Where is it?", limit=12)
    assert has_read(chat, "second_text_turn")
    image = remember(segmenter, "chelsea_small", drawn)
    chat = segmenter.chat(image)
    assert chat.ask("Please segment the cat.", answer="Sure, [SEG].").n_seg == 1
    assert chat.ask("What colour is it?", limit=12).n_seg == 0
    assert has_read(chat, "second_image_turn")
    del chat.turns[1:]
    third = chat.ask("Segment its nose.", answer="It is [SEG].")
    case = "second_image_turn_seg"
    assert [token for token, _ in chat.seen.read] == [*golden[f"{case}/input_ids"], *golden[f"{case}/forced_ids"][:-1]]
    assert agrees(third, golden, case, "low_res_mask_logits_every4", every=4)
