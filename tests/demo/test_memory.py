"""The demo's memory in the making: what it learns through is the product's own, and nothing else changes."""

import hashlib
import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from sa2va_lab.loading.checkpoint import Checkpoint
from sa2va_lab.sa2va.configuration import read_config
from sa2va_lab.sa2va.memory import FilmMemory
from sa2va_lab.sa2va.modeling import CanvasFeatures
from sa2va_lab.sa2va.weights import build_empty, load_weights
from tools.demo import memory
from tools.demo.lessons import phrase_codes

PLAN = {"films": {"count": 1, "first": 2_000_001, "frames": 7}, "remembering": {"steps": 2, "near_until": 0.5}}
OWN = ("memory_attention", "memory_encoder", "obj_ptr_proj", "maskmem_tpos_enc")  # what the lesson trains
# sha256 of names and bytes of all else, before the memory had its lesson
OTHERS = "1873dbc5a81109333daf4f65cd7fc4bf00368d92102264dacd5227d9cac3479f"


@pytest.fixture(scope="module")
def taught(root, tmp_path_factory):
    """(what `teach` returned, folder of the result, folder of the work): one film of seven frames, two steps."""
    place = tmp_path_factory.mktemp("taught")
    told = memory.teach(root / "data/demo/base", place / "base", work=place / "work", plan=PLAN, progress=False)
    return told, place / "base", place / "work"


def load(folder):
    return load_weights(build_empty(read_config(folder)), Checkpoint(folder), dtype=torch.float32)


def test_only_the_memory_changes_and_files_keep_every_other_byte(root, taught):
    told, folder, _ = taught
    own = ("memory_attention", "memory_encoder", "object_pointer_proj", "memory_temporal_positional_encoding")
    assert all(name.removeprefix("grounding_encoder.").startswith(own) for name in told["changed"])
    assert {name.split(".")[1] for name in told["changed"]} == set(own)
    before, after = load(root / "data/demo/base").state_dict(), load(folder).state_dict()
    assert [name for name in before if not torch.equal(before[name], after[name])] == told["changed"]
    assert (folder / "config.json").read_bytes() == (root / "data/demo/base/config.json").read_bytes()


def test_the_shipped_base_is_to_the_byte_what_it_was_before_it_could_follow(root):
    tensors, found = load_file(root / "data/demo/base/model.safetensors"), hashlib.sha256()
    for name in sorted(tensors):
        if not name.removeprefix("grounding_encoder.sam2_model.").startswith(OWN):
            found.update(name.encode() + tensors[name].numpy().tobytes())
    assert found.hexdigest() == OTHERS


def test_a_window_of_the_whole_frame_is_what_the_network_remembers(taught):
    """The lesson's way through a film and `FilmMemory`, frames 5 and 6 after three that were asked for."""
    _, folder, work = taught
    model, film = load(folder), memory.Films(work / "films", None, **PLAN["films"])[0]
    codes, sam2 = phrase_codes()[:1], model.grounding_encoder
    whole = memory.Window(0, 0, 64, 64)
    theirs = FilmMemory(model, codes)
    parts = [[film[name][k : k + 1].float() for name in ("coarse", "fine0", "fine1")] for k in range(7)]
    frames = [CanvasFeatures(coarse, tuple(fine)) for coarse, *fine in parts]
    with torch.inference_mode():
        sam2.memory_temporal_positional_encoding.normal_(generator=torch.Generator().manual_seed(0))  # to be felt
        drawn = [theirs.condition(k, frames[k]) for k in range(3)]
        drawn += [theirs.follow(k, frames[k]) for k in (5, 6)]
        ours = memory.Recall(sam2, whole)
        for k in range(3):
            ours.keep(frames[k].image, drawn[k].logits, drawn[k].tokens, drawn[k].scores, back=0)
        for k, expected in zip((5, 6), drawn[3:], strict=True):
            logits, ious, tokens, score = memory.follow(sam2, ours.change(frames[k].image), frames[k].fine, whole)
            best = 0, 0, ious[0, 0].argmax()
            # the product rounds what it remembers to bfloat16
            assert (logits[best] - expected.logits[0]).abs().max() < 5e-4 * expected.logits.std()
            assert score[0, 0] == pytest.approx(expected.scores[0], abs=1e-4)
            if k == 5:
                ours.keep(frames[k].image, logits[best][None], tokens[best][None], score[:, 0], back=1)
    assert len(ours.maps) == 4


def test_a_window_is_its_part_of_every_map():
    window = memory.Window(1, 2, 2, 4)
    coarse = torch.arange(16).reshape(1, 4, 4)
    assert window.cut(coarse).tolist() == [[[6, 7], [10, 11]]]
    assert window.cut(coarse.repeat_interleave(4, 1).repeat_interleave(4, 2)).shape == (1, 8, 8)
    assert replace(window, y=0, x=0, side=4).cut(coarse).equal(coarse)


def test_the_lesson_is_logged_and_its_features_begin_as_the_decoder_knows_them(taught):
    _, folder, work = taught
    assert json.loads((work / "plan.json").read_text()) == PLAN
    assert torch.load(work / "remembering.pt", weights_only=True)["step"] == 2
    model, films = load(folder), memory.Films(work / "films", None, **PLAN["films"])
    sam2 = model.grounding_encoder
    memory.begin(sam2, films)
    known = films[0]["coarse"][6].float().flatten(1).T
    norm = sam2.memory_attention.layer_norm
    with torch.no_grad():
        misfit = (norm(known) - known - sam2.no_memory_embedding[0]).std() / known.std()
    assert misfit < 0.3
