"""Films against the official implementation's recorded outputs: what is asked once is followed to the same masks."""

import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

import sa2va_lab
from sa2va_lab.sa2va.memory import FilmMemory
from sa2va_lab.sa2va.processing import fill_canvas

HERE = Path(__file__).parent
DEVICE = os.environ.get("SA2VA_LAB_DEVICE", "cpu")
FILMS = {
    "internvl": [Image.fromarray(skimage.data.astronaut()).crop((20 * i, 60, 20 * i + 360, 360)) for i in range(7)],
    "qwen3vl": [Image.fromarray(skimage.data.retina()).crop((200 + 60 * i, 300, 840 + 60 * i, 780)) for i in range(6)],
}
KEEP = 5

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=FILMS)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def segmenter(family, write_parity):
    return sa2va_lab.load(write_parity(family), precision="fp32", device=DEVICE)


@pytest.fixture(scope="module")
def features(family, segmenter):
    """number of a frame -> what SAM2 sees in it, once."""

    @cache
    def see(number):
        canvas = fill_canvas(FILMS[family][number], segmenter.model.config).to(DEVICE)
        with torch.inference_mode():
            return segmenter.model.encode_canvas(canvas)

    return see


def read(family, key, *, objects):
    """A golden array as (objects, frames, ...): the first axis is not there in films with one [SEG] only."""
    array = np.load(HERE / family / "video.npz")[key]
    frames = len(FILMS[family])
    return array if array.shape[:2] == (objects, frames) else array[None]


@pytest.mark.parametrize("count", [1, 2])
def test_the_memory_gives_the_official_masks(family, segmenter, features, count):
    if family == "qwen3vl" and count == 2:
        pytest.skip("recorded with one [SEG] only")
    name = {1: "video_one", 2: "video_two"}[count]
    golden = {key: read(family, f"{name}/{key}", objects=count) for key in ("ious", "object_score_logits", "obj_ptr")}
    step = {1: 1, 2: 4}[count]
    key = f"{name}/low_res_mask_logits" + ("_every4" if step > 1 else "")
    logits = read(family, key, objects=count)[:, :, 0]
    embeddings = torch.from_numpy(np.load(HERE / family / "video.npz")[f"{name}/language_embd"]).to(DEVICE)
    entered, remembered = [], []
    sam2 = segmenter.model.grounding_encoder
    handles = [
        sam2.mask_decoder.register_forward_pre_hook(
            lambda module, given, named: entered.append(named["image_embeddings"]), with_kwargs=True
        ),
        sam2.memory_encoder.register_forward_hook(lambda module, given, made: remembered.append(made[0])),
    ]
    with torch.inference_mode():
        memory = FilmMemory(segmenter.model, embeddings)
        for number in range(len(FILMS[family])):
            masks = (memory.condition if number < KEEP else memory.follow)(number, features(number))
            far = 2e-3 if number < KEEP else 5e-3
            np.testing.assert_allclose(masks.logits[:, ::step, ::step].cpu(), logits[:, number], atol=far, rtol=0)
            np.testing.assert_allclose(masks.ious.cpu(), golden["ious"][:, number], atol=far, rtol=0)
            np.testing.assert_allclose(masks.scores.cpu(), golden["object_score_logits"][:, number], atol=far, rtol=0)
            held = {**memory._conditioning, **memory._followed}[number]
            np.testing.assert_allclose(held.pointers[:, ::4].cpu(), golden["obj_ptr"][:, number], atol=far, rtol=0)
    for handle in handles:
        handle.remove()
    if count == 1:
        seen, kept = (read(family, f"{name}/{part}_slice", objects=1)[0] for part in ("pix_feat", "maskmem_features"))
        for number, (image, map_) in enumerate(zip(entered, remembered, strict=True)):
            np.testing.assert_allclose(image[0, ::16, ::8, ::8].cpu(), seen[number], atol=5e-3, rtol=0)
            np.testing.assert_allclose(map_[0, ::8, ::8, ::8].cpu(), kept[number], atol=5e-3, rtol=0)
