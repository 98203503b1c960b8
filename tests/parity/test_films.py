"""Films against the official implementation's recorded outputs: what is asked once is followed to the same masks."""

import os
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

import sa2va_lab
from sa2va_lab.sa2va.memory import FilmMemory

HERE = Path(__file__).parent
DEVICE = os.environ.get("SA2VA_LAB_DEVICE", "cpu")
ASTRONAUT, RETINA = (Image.fromarray(image()) for image in (skimage.data.astronaut, skimage.data.retina))
FILMS = {
    "internvl": [ASTRONAUT.crop((20 * i, 60, 20 * i + 360, 360)) for i in range(7)],
    "qwen3vl": [RETINA.crop((200 + 60 * i, 300, 840 + 60 * i, 780)) for i in range(6)],
}
PROMPTS = {
    "internvl": "<image>Please segment the astronaut.",
    "qwen3vl": "<image>Please segment the blood vessel.",
}
ANSWERS = {"one": "Sure, [SEG].", "two": "[SEG] and [SEG]"}
KEEP = 5
DIMENSIONS = {  # of what is recorded for each [SEG] and frame
    "ious": 1,
    "object_score_logits": 1,
    "obj_ptr": 1,
    "low_res_mask_logits": 2,
    "low_res_mask_logits_every4": 2,
    "mask_packbits": 2,
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=FILMS)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def golden(family):
    return np.load(HERE / family / "video.npz")


@pytest.fixture(scope="module")
def segmenter(family, write_parity):
    """One whose SAM2 encoder, much the slowest part, runs once a frame."""
    segmenter, known = sa2va_lab.load(write_parity(family), precision="fp32", device=DEVICE), {}
    see = segmenter._see

    def look(pictures):
        key = pictures[0].digest
        if key not in known:
            known[key] = see(pictures)
        return known[key]

    segmenter._see = look
    return segmenter


@pytest.fixture
def watched(segmenter, monkeypatch):
    """{what: the tensors that went by}."""
    model, seen = segmenter.model, {}

    def watch(owner, name):
        true = getattr(owner, name)

        def watching(*given, **named):
            made = true(*given, **named)
            seen.setdefault(name, []).append((given, named, made))
            return made

        monkeypatch.setattr(owner, name, watching)

    for owner, name in (
        (model, "encode_images"),
        (model, "embed_segs"),
        (model, "choose"),
        (segmenter.reader, "prompt_ids"),
        (segmenter.reader, "answer_ids"),
        (model.grounding_encoder.memory_encoder, "forward"),
        (FilmMemory, "_encode"),
    ):
        watch(owner, name)
    return seen


def near(made, expected, far):
    np.testing.assert_allclose(torch.as_tensor(made).cpu(), expected, atol=far, rtol=0)


@pytest.mark.parametrize("count", ANSWERS)
def test_a_film_is_followed_as_the_official_code_follows_it(family, segmenter, golden, watched, count):
    if f"video_{count}/ious" not in golden:
        pytest.skip("recorded with one [SEG]")
    frames, prompt, answer = FILMS[family], PROMPTS[family], ANSWERS[count]
    made = list(segmenter.track(frames, prompt, answer=answer))
    n_seg, length = answer.count("[SEG]"), len(frames)

    # what the language model was shown and said
    [((pixels,), _, sights)] = watched["encode_images"]
    if family == "internvl":
        np.testing.assert_array_equal(torch.cat(pixels)[:, :, 100:104, 200:208], golden["video/pixel_values_slice"])
        near(torch.stack([sight.tokens for sight in sights])[:, ::32], golden["video/vit_embeds_slice"], 2e-5)
    else:
        whole = torch.cat([patches for patches, _ in pixels])
        np.testing.assert_array_equal(whole[::97, ::31], golden["video/pixel_values_slice"])
        near(torch.cat([sight.tokens for sight in sights])[::29], golden["video/visual_embeds_slice"], 2e-5)
    [(_, _, ids)] = watched["prompt_ids"]
    np.testing.assert_array_equal(ids.all, golden["video/input_ids"])
    [(_, _, said)] = watched["answer_ids"]
    np.testing.assert_array_equal(said, golden[f"video_{count}/forced_ids"])
    [(_, _, embeddings)] = watched["embed_segs"]
    near(embeddings, golden[f"video_{count}/language_embd"], 5e-4)

    # what SAM2 made of it: (objects, frames, ...) of each
    def expected(key):
        array = golden[f"video_{count}/{key}"]
        return array.reshape(n_seg, length, *array.shape[array.ndim - DIMENSIONS[key] :])

    step = 1 if f"video_{count}/low_res_mask_logits" in golden else 4
    logits = expected("low_res_mask_logits" if step == 1 else "low_res_mask_logits_every4")
    masks = np.unpackbits(expected("mask_packbits"), axis=-1)[..., : frames[0].width].astype(bool)
    for number, prediction in enumerate(made):
        far = 2e-3 if number < KEEP else 5e-3
        near(prediction.logits[:, ::step, ::step], logits[:, number], far)
        for which in range(n_seg):
            assert (prediction.mask(merge=which) != masks[which, number]).sum() <= 100
        (image, _, _), _, chosen = watched["choose"][number]
        near(chosen.ious, expected("ious")[:, number], far)
        near(chosen.scores, expected("object_score_logits")[:, number], far)
        near(watched["_encode"][number][2].pointers[:, ::4], expected("obj_ptr")[:, number], far)
        if count == "one":
            near(image[0, ::16, ::8, ::8], golden["video_one/pix_feat_slice"][number], far)
            kept = watched["forward"][number][2][0]
            near(kept[0, ::8, ::8, ::8], golden["video_one/maskmem_features_slice"][number], far)


def test_the_greedy_answer_about_a_film_is_the_official_one(family, segmenter, golden):
    if "video/greedy_sequence" not in golden:
        pytest.skip("not recorded")
    ids = golden["video/greedy_sequence"].tolist()
    first = next(segmenter.track(FILMS[family], PROMPTS[family], limit=len(ids)))
    assert first.answer == segmenter.reader.decode(ids)
