"""Films: what the language model is shown, what SAM2 remembers, and what a broken frame or a full memory may not do."""

import gc
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import sa2va_lab
from sa2va_lab.errors import LabError
from sa2va_lab.sa2va.memory import FilmMemory
from sa2va_lab.sa2va.modeling import Sa2VA
from sa2va_lab.sa2va.weights import save_official
from sa2va_lab.segmenter import Overflow

ONE, TWO = "Sure, [SEG].", "[SEG] and [SEG]"


@pytest.fixture(scope="module")
def folder(tiny_folder, tmp_path_factory):
    """The demo's network once more, with a SAM2 of a canvas of 64 and a mask grid of 16, which is a hundred times
    faster: 16 places of a memory a frame."""
    from tools.demo import tiny

    raw = tiny.config(vocab_size=501, bos=465, eos=467)
    raw["sa2va_lab"] |= {"canvas": 64}
    raw["sa2va_lab"]["sam2"] |= {
        "hidden_size": 32,
        "backbone": tiny.sam2_sizes()["backbone"] | {
            "patch_stride": [4, 4],
            "blocks_per_stage": [1, 1, 2, 1],
            "embed_dim_per_stage": [8, 16, 32, 64],
            "hidden_size": 8,
            "window_size_per_stage": [4, 4, 4, 4],
            "global_attention_blocks": [3],
        },
        "mask_decoder": {"mlp_dim": 32, "num_attention_heads": 2},
        "memory_encoder_output_channels": 8,
    }  # fmt: skip
    model = tiny.build(raw)
    torch.nn.init.normal_(model.grounding_encoder.memory_temporal_positional_encoding)
    return save_official(model, tmp_path_factory.mktemp("small") / "model", config=raw, tokenizer=tiny_folder)


@pytest.fixture(scope="module")
def small(folder):
    return sa2va_lab.load(folder, precision="fp32", device="cpu")


@pytest.fixture
def film():
    """uint8 (24, 32) each: a bright bar on its way across noise."""
    frames = np.random.default_rng(0).integers(0, 60, (30, 24, 32), np.uint8)
    for number, frame in enumerate(frames):
        frame[:, number : number + 3] = 200
    return list(frames)


def follow(segmenter, frames, answer=ONE, **how):
    return list(segmenter.track(frames, "blood vessel", answer=answer, **how))


def equal(one, other):
    return np.array_equal(one.logits, other.logits) and one.size == other.size and one.error == other.error


def test_a_film_of_one_frame_is_an_image(small, film):
    [alone] = follow(small, film[:1], TWO)
    still = small.predict(film[0], "blood vessel", answer=TWO)
    assert equal(alone, still)
    assert alone.logits.shape == (2, 16, 16)
    assert (alone.answer, alone.canvas) == (still.answer, still.canvas)
    assert list(alone.seconds) == list(still.seconds)


def test_the_model_is_asked_once_and_sees_each_frame_once(small, film):
    counted, model = Counter(), small.model
    handles = [
        model.vision_model.register_forward_hook(lambda _, given, out: counted.update(tiles=len(given[0]))),
        model.grounding_encoder.vision_encoder.register_forward_hook(lambda *_: counted.update(canvas=1)),
        model.language_model.model.register_forward_hook(lambda *_: counted.update(read=1)),
    ]
    made = follow(small, film[:9], TWO)
    for handle in handles:
        handle.remove()
    assert counted == {"tiles": 5, "canvas": 9, "read": 1}
    assert [one.n_seg for one in made] == [2] * 9
    assert [list(one.seconds) for one in made[4:6]] == [
        ["pixels", "vision", "answer", "canvas", "masks"],
        ["pixels", "canvas", "masks"],
    ]
    # the same answer, and yet other masks than frame by frame: something was remembered
    assert not np.array_equal(made[6].logits, follow(small, film[1:9], TWO)[5].logits)


def test_frames_are_read_one_at_a_time(small, film):
    taken = []
    made = small.track((taken.append(number) or frame for number, frame in enumerate(film)), "wire", answer=ONE, keep=3)
    assert taken == []
    wanted = [3, 3, 3, 4, 5, 6]
    for count in wanted:
        next(made)
        assert len(taken) == count


def test_things_are_remembered_apart(small, film):
    words = torch.randn(6, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        seen = [small._see([sa2va_lab.sa2va.processing.Picture(frame, small.reader.config)]) for frame in film[:9]]
        memories = [FilmMemory(small.model, words), *(FilmMemory(small.model, word[None]) for word in words)]
        for number, features in enumerate(seen):
            how = FilmMemory.condition if number < 5 else FilmMemory.follow
            together, *alone = [how(memory, number, features).logits for memory in memories]
            torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=0)
    assert not torch.equal(together[0], together[1])
    many = follow(small, film[:7], ", ".join(["[SEG]"] * 6))  # more than are followed at once
    assert many[-1].n_seg == 6


@pytest.fixture
def looked_at(small):
    """What SAM2 looks at on each frame that is followed: (rows, position of each, how many of them are pointers)."""
    looks, attention = [], small.model.grounding_encoder.memory_attention
    handle = attention.register_forward_pre_hook(
        lambda _, given, named: looks.append(
            (named["memory"], named["memory_posision_embeddings"], named["num_object_pointer_tokens"])
        ),
        with_kwargs=True,
    )
    yield looks
    handle.remove()


def ages(small, look):
    """Which temporal embedding each frame looked at was given; in the order of the rows."""
    rows, places, pointers = look
    sam2 = small.model.grounding_encoder
    assert len(rows) == len(places)
    assert not places[len(rows) - pointers :].any()
    memory = FilmMemory(small.model, torch.zeros(1, 32))
    blocks = places[: len(rows) - pointers].unflatten(0, (-1, 16)) - memory._there
    known = sam2.memory_temporal_positional_encoding[:, 0]
    return [(known - block[0]).abs().sum(-1).argmin().item() for block in blocks]


def test_it_looks_back_as_far_as_sam2_does(small, film, looked_at):
    follow(small, film)
    assert len(looked_at) == 25
    pieces = 32 // 8  # of a pointer
    for number, look in enumerate(looked_at, 5):
        past = number - 5
        assert ages(small, look) == [6] * 5 + list(range(min(past, 6)))[::-1]
        assert look[2] == pieces * (5 + min(past, 15))
    # rows are those of the frames before, and pointers the nearest first
    rows, _, count = looked_at[-1]
    before, _, less = looked_at[-2]
    maps, earlier = rows[: len(rows) - count], before[: len(before) - less]
    assert torch.equal(maps[: 10 * 16], torch.cat([earlier[: 5 * 16], earlier[6 * 16 :]]))
    pointers, former = rows[-count:], before[-less:]
    assert torch.equal(pointers[: 5 * pieces], former[: 5 * pieces])
    assert torch.equal(pointers[6 * pieces :], former[5 * pieces : -pieces])


def test_a_frame_that_cannot_be_read_is_told_and_left_out(small, film, looked_at, tmp_path):
    text = tmp_path / "x.png"
    text.write_text("no image")
    frames = [text, film[0], SimpleNamespace(image=None, error="frame 3 is damaged"), *film[1:6], text, *film[6:9]]
    made = list(small.track(iter(frames), "blood vessel", answer=ONE))
    assert [bool(one.error) for one in made] == [i in (0, 2, 8) for i in range(len(frames))]
    assert (made[2].error, made[0].size, made[2].answer) == ("frame 3 is damaged", (24, 32), ONE)
    assert "not a readable image" in made[0].error
    with pytest.raises(LabError, match="frame 3 is damaged"):
        made[2].mask()
    whole = follow(small, film[:9])
    assert all(map(equal, [one for one in made if not one.error][:6], whole[:6]))  # the first five, and one more
    # frames are as far back as they are, whatever was lost between
    assert [ages(small, look)[5:] for look in looked_at[:4]] == [[], [1], [2, 0], [3, 1, 0]]


def test_a_film_of_nothing_to_read_has_errors_only(small, tmp_path):
    made = follow(small, [tmp_path / "none.png"] * 7)
    assert len(made) == 7
    assert all("No image file" in one.error and one.size == (0, 0) for one in made)
    assert follow(small, []) == []


def test_no_seg_has_no_masks_and_sam2_does_not_run(small, film, monkeypatch):
    monkeypatch.setattr(Sa2VA, "encode_canvas", None)
    made = follow(small, [*film[:6], "none.png"], "There is no wire in this image.")
    assert [one.n_seg for one in made] == [0] * 7
    assert [one.error for one in made[:6]] == [None] * 6
    assert made[6].error
    assert not made[5].mask().any()


def test_the_frames_shown_may_be_spread(small, film, looked_at):
    shown, ask = [], small.model.encode_images
    small.model.encode_images = lambda pixels: shown.extend(pixels) or ask(pixels)
    try:
        made = follow(small, film, sample="spread")
    finally:
        del small.model.encode_images
    wanted = [3, 9, 15, 21, 27]
    tiles = [small.model.config.family.pixels(sa2va_lab.sa2va.processing.read_image(film[n]), small.model.config)
             for n in wanted]  # fmt: skip
    assert all(map(torch.equal, shown, tiles))
    assert len(made) == 30
    assert [bool(one.seconds.get("answer")) for one in made] == [number in wanted for number in range(30)]
    followed = dict(zip((n for n in range(30) if n not in wanted), looked_at, strict=True))
    assert ages(small, followed[0]) == [6] * 5  # all five condition the first frame, though it comes before them
    assert followed[0][2] == 0  # but pointers of what is still to come are not looked at
    assert ages(small, followed[4]) == [6] * 5 + [3, 2, 1]
    assert followed[4][2] == 4 * (1 + 3)
    assert all(map(equal, follow(small, film[:5], sample="spread"), follow(small, film[:5])))


def test_spread_frames_give_way_where_they_cannot_be_read(small, film, tmp_path):
    gone = tmp_path / "none.png"
    made = follow(small, [*film[:3], gone, *film[4:10]], sample="spread", keep=2)
    assert [bool(one.seconds.get("answer")) for one in made] == [n in (2, 7) for n in range(10)]
    made = follow(small, [gone, gone, film[2], *[film[3]] * 3], sample="spread", keep=3)
    assert [bool(one.seconds.get("answer")) for one in made] == [n in (2, 3, 5) for n in range(6)]
    made = follow(small, [film[0], *[gone] * 9], sample="spread")  # a file that ends early
    assert [bool(one.error) for one in made] == [False] + [True] * 9
    assert made[0].n_seg == 1


@pytest.mark.parametrize(
    ("frames", "how", "said"),
    [
        ([], {"sample": "random"}, "sample is 'random'"),
        (iter([]), {"sample": "spread"}, "needs the length"),
        ([], {"keep": 0}, "keep is 0"),
        ([], {"prompt": " "}, "prompt is empty"),
    ],
)
def test_what_cannot_be_asked_is_refused_at_once(small, frames, how, said):
    with pytest.raises(LabError, match=said):
        small.track(frames, **{"prompt": "vessel", **how})


@pytest.mark.parametrize("failing", [2, 7])
def test_a_film_goes_on_with_another_rung_where_it_was(folder, film, monkeypatch, failing):
    segmenter = sa2va_lab.load(folder, precision="fp32", device="cpu")
    expected = follow(segmenter, film[:9])
    see, seen = Sa2VA.encode_canvas, []

    def encode(self, canvas):
        if not canvas.is_meta:  # as in a forecast of the next rung
            seen.append(canvas.dtype)
            if len(seen) == failing + 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return see(self, canvas)

    monkeypatch.setattr(Sa2VA, "encode_canvas", encode)
    with pytest.warns(UserWarning, match="out of memory in a prediction"):
        made = follow(segmenter, iter(film[:9]))
    assert len(made) == 9
    assert seen == [torch.float32] * (failing + 1) + [torch.bfloat16] * (9 - failing)
    assert [equal(*pair) for pair in zip(made, expected, strict=True)] == [n < failing for n in range(9)]
    assert all(np.abs(one.logits - other.logits).max() < 0.5 for one, other in zip(made, expected, strict=True))
    assert segmenter.provenance["precision"]["actual"] == "bf16"


def test_numbers_that_overflow_are_not_remembered(folder, film, monkeypatch):
    segmenter = sa2va_lab.load(folder, precision="fp32", device="cpu")
    encoder = segmenter.model.grounding_encoder.memory_encoder
    calls, handles = [], []

    def overflow(module, given, out):
        calls.append(1)
        return (out[0] * float("inf"), out[1]) if len(calls) == 7 else out

    handles.append(encoder.register_forward_hook(overflow))
    made, told = segmenter.track(film[:8], "x", answer=ONE), []
    with pytest.raises(Overflow, match="the memory of a film"):
        told += made
    handles[0].remove()
    assert calls == [1] * 7


def weigh():
    """Bytes of all tensors that something holds; what another test compiled or forecast left behind has no bytes."""
    held = {}
    for one in gc.get_objects():
        if type(one) in (torch.Tensor, torch.nn.Parameter) and not one.is_meta:
            storage = one.untyped_storage()
            held[storage.data_ptr()] = storage.nbytes()
    return sum(held.values())


def test_a_long_film_takes_no_more_than_a_short_one(small, film, monkeypatch):
    """Twenty frames fill what SAM2 looks back on; a thousand hold the same."""
    features = small._see([sa2va_lab.sa2va.processing.Picture(film[0], small.reader.config)])
    monkeypatch.setattr(Sa2VA, "encode_canvas", lambda self, canvas: features)
    weights = {}
    for number, _ in enumerate(small.track((film[number % 30] for number in range(1000)), "vessel", answer=ONE)):
        if number in (19, 20, 21, 500, 999):
            gc.collect()
            weights[number] = weigh()
    assert weights[20] == weights[21] == weights[500] == weights[999]
    assert weights[999] < weights[19] + 4 * 2**10
