"""The demo's base model in the making: tokenizer, network, both lessons, export. All on 64-pixel frames."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from sa2va_lab.errors import LabError
from sa2va_lab.loading.checkpoint import Checkpoint
from sa2va_lab.sa2va.configuration import parse_config, read_config
from sa2va_lab.sa2va.processing import CANVAS_MEAN, CANVAS_STD, PromptReader, stretch
from sa2va_lab.sa2va.processing import normalise as normalise_levels
from sa2va_lab.sa2va.weights import build_empty, load_weights
from tools.demo import lessons, pretraining, tiny
from tools.demo.__main__ import app
from tools.demo.angiograms import PHRASES
from tools.demo.frames import Frames, normalise, resize, turn

SIDE = 64


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    return folder, tiny.write_tokenizer(folder)


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    return Frames(tmp_path_factory.mktemp("frames"), count=6, first=50, size=SIDE, progress=False)


@pytest.fixture
def small(monkeypatch):
    """Both sizes of the drawing lesson at 64 pixels."""
    monkeypatch.setattr(lessons, "CROP", SIDE)
    monkeypatch.setattr(lessons, "CANVAS", SIDE)


@pytest.fixture
def model(tokenizer):
    return tiny.build(tokenizer[1])


def test_tokenizer_is_loaded_offline_and_numbers_the_official_tokens_in_their_order(tokenizer):
    from transformers import AutoTokenizer

    folder, raw = tokenizer
    loaded = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    ids = loaded.convert_tokens_to_ids(tiny.SPECIAL_TOKENS)
    assert ids == list(range(len(loaded) - 36, len(loaded)))
    assert raw["llm_config"]["vocab_size"] == len(loaded)
    assert loaded.eos_token == "<|im_end|>"
    assert raw["llm_config"]["eos_token_id"] == loaded.eos_token_id
    text = "<|im_start|>user\n<img><IMG_CONTEXT></img>\nSégmente 血管 3×, please.<|im_end|>"
    assert loaded.decode(loaded.encode(text, add_special_tokens=False)) == text
    assert len(loaded.encode("Please segment the blood vessel.", add_special_tokens=False)) == 6


def test_network_is_small_and_speaks_of_its_stamp(tokenizer, model):
    config = parse_config(tokenizer[1])
    assert config.stamp == tiny.STAMP
    assert config.tokens_per_tile == (tiny.TILE // tiny.PATCH // 2) ** 2
    assert sum(p.numel() for p in model.parameters()) <= 8_000_000
    assert 4 * sum(p.numel() for p in model.parameters()) <= 20_000_000


def test_frames_continue_where_they_stopped_and_know_what_they_show(tmp_path, frames):
    Frames(tmp_path, count=2, first=50, size=SIDE, progress=False)
    again = Frames(tmp_path, count=2, first=50, size=SIDE, progress=False)
    for i in range(2):
        assert torch.equal(again.frame(i)[0], frames.frame(i)[0])
        assert torch.equal(again.frame(i)[1], frames.frame(i)[1])
    for i in range(len(frames)):
        masks = frames.frame(i)[1]
        for j in range(len(PHRASES)):
            area = int(masks[j].sum())
            assert frames.areas[i, j] == area
            assert frames.presence(i)[j] == (0 if area == 0 else 1 if area >= 400 / 64 else -1)


def test_pixels_are_those_of_the_network_s_own_processing(frames, tokenizer):
    config = parse_config(tokenizer[1])
    image, _ = frames.frame(0)
    square = resize(image, config.canvas)
    from PIL import Image

    picture = Image.fromarray((image[0].numpy() * 255).round().astype(np.uint8)).convert("RGB")
    difference = (normalise(square, tile=False) - normalise_levels(stretch(picture, config).float())[0]).abs().max()
    assert difference < 3.01 / 255 / min(CANVAS_STD)  # PIL rounds to whole grey levels, twice on the way
    assert normalise(torch.full((1, 1, 1), CANVAS_MEAN[0]), tile=False)[0].item() == 0


def test_turning_keeps_picture_and_masks_together(frames):
    image, masks = frames.frame(1)
    marked = torch.cat([image, masks])
    for seed in range(6):
        turned = torch.cat(turn(image, masks, rng=np.random.default_rng(seed)))
        options = [m for k in range(4) for r in [torch.rot90(marked, k, (1, 2))] for m in (r, r.flip(2))]
        assert any(torch.equal(turned, option) for option in options)


def test_windows_carry_their_own_part_of_the_truth(frames):
    rng = np.random.default_rng(0)
    for _ in range(8):
        picture, targets, (x, y, wide) = lessons.cut_window(frames, 2, 32, rng=rng)
        assert picture.shape == (3, 32, 32)
        assert targets.shape == (len(PHRASES), 16, 16)
        assert 0 <= x <= x + wide <= 1
        assert 0 <= y <= y + wide <= 1
        assert 0 <= targets.min()
        assert targets.max() <= 1


def test_drawing_on_the_whole_canvas_is_what_the_network_draws(model, frames):
    model.eval()
    pixels = normalise(resize(frames.frame(0)[0], tiny.CANVAS), tile=False)[None]
    states = torch.randn(2, tiny.WIDTH, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        masks = model.draw(model.encode_canvas(pixels), states)
        whole = torch.tensor([[0.0, 0.0, 1.0]])
        logits, ious = lessons.draw_candidates(model, pixels, whole, model.embed_segs(states)[None])
    best = logits[0, torch.arange(2), ious[0].argmax(-1)]
    assert torch.allclose(best, masks.logits, atol=1e-4)


def test_mask_loss_by_hand():
    targets = torch.zeros(1, 2, 4, 4)
    targets[0, 0] = 1.0  # 16 cells there; the second phrase is absent and has no Dice
    sure = torch.where(targets > 0, 40.0, -40.0)[:, :, None].expand(1, 2, 3, 4, 4)
    value, parts = lessons.mask_loss(sure, torch.ones(1, 2, 3), targets)
    assert value.item() == pytest.approx(0, abs=1e-6)
    value, parts = lessons.mask_loss(-sure, torch.ones(1, 2, 3), targets)
    assert parts["dice"] == pytest.approx(1 - 1 / 17)
    assert parts["cross"] == pytest.approx((3 * 40 + 40) / 2)
    assert parts["iou_error"] == pytest.approx(1)
    assert value.item() == pytest.approx(2 * 80 + 16 / 17 + 0.1)


def test_drawing_lesson_reaches_every_drawing_part_and_lowers_the_loss(model, frames, small, tmp_path):
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    lesson = lessons.teach_drawing(model, frames, tmp_path, steps=20, progress=False)
    lines = [json.loads(line) for line in (tmp_path / "drawing.jsonl").read_text().splitlines()]
    assert lesson.step == 20
    assert lines[-1]["loss"] < lines[0]["loss"]
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    for part in ("vision_encoder.backbone.patch_embed", "vision_encoder.neck", "mask_decoder", "no_memory_embedding"):
        assert any(name.startswith(f"grounding_encoder.{part}") for name in changed)
    assert "grounding_encoder.prompt_encoder.no_mask_embed.weight" in changed
    assert not any(name.startswith(("language_model", "vision_model", "mlp1")) for name in changed)


def test_a_lesson_interrupted_ends_like_one_that_was_not(tokenizer, frames, small, tmp_path, monkeypatch):
    ends = []
    for stops in ([3], [1, 3]):
        folder = tmp_path / str(len(stops))
        folder.mkdir()
        for seed, stop in enumerate(stops):  # once there is a checkpoint, the fresh start is of no account
            model = tiny.build(tokenizer[1], seed=seed)
            monkeypatch.setattr(lessons.Lesson, "share", property(lambda self, n=stop: float(self.step >= n)))
            lessons.teach_drawing(model, frames, folder, steps=3, progress=False)
        ends.append({k: v.clone() for k, v in model.grounding_encoder.state_dict().items()})
    taught = ("vision_encoder", "mask_decoder", "prompt_encoder", "shared_image_embedding", "no_memory_embedding")
    for name in ends[0]:
        if name.startswith(taught):
            assert torch.allclose(ends[0][name], ends[1][name], atol=1e-5), name


def test_conversations_say_what_is_to_be_learnt(tokenizer):
    reader = PromptReader(tokenizer[0], parse_config(tokenizer[1]))
    rng = np.random.default_rng(1)
    batch = lessons.Conversations(reader).batch(np.array([[1, 0, -1]] * 60), rng=rng)
    refusals = 0
    for ids, labels, mask, seg, phrase in zip(
        *(batch[k] for k in ("ids", "labels", "mask", "seg", "phrase")), strict=True
    ):
        assert (ids == reader.context).sum() == reader.config.tokens_per_tile  # `image` says where they are
        learnt = ids[labels != -100]
        assert torch.equal(labels[labels != -100], learnt)
        assert not mask[len(ids) - int((mask == 0).sum()) :].any()
        said = reader.decode(learnt.tolist())
        if phrase == 0:
            assert said == tiny.PRESENT
            assert ids[seg] == reader.seg
        elif seg < 0:
            refusals += 1
            assert phrase == 1
            assert said in {tiny.ABSENT.format(name) for name in tiny.NAMES["catheter"]}
        else:  # the answer is forced: its [SEG] is learnt, its words are not
            assert said == ""
            assert ids[seg] == reader.seg
    assert refusals > 5


def test_answering_lesson_reaches_every_answering_part_and_lowers_the_loss(model, tokenizer, frames, tmp_path):
    reader = PromptReader(tokenizer[0], parse_config(tokenizer[1]))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    lessons.teach_answering(model, frames, reader, tmp_path, steps=20, batch=4, look_until=0.0, progress=False)
    lines = [json.loads(line) for line in (tmp_path / "answering.jsonl").read_text().splitlines()]
    assert lines[-1]["loss"] < lines[0]["loss"]
    still = {name for name, p in model.named_parameters() if torch.equal(p, before[name])}
    assert {name for name in still if not name.startswith("grounding_encoder")} == set()
    assert all(name in still for name in before if name.startswith("grounding_encoder"))


def test_export_comes_back_tensor_by_tensor_and_leaves_other_folders_alone(model, tokenizer, tmp_path):
    folder, raw = tokenizer
    base = tmp_path / "base"
    pretraining.write_base(model, base, raw=raw, tokenizer=folder)
    pretraining.write_base(model, base, raw=raw, tokenizer=folder)  # a demo model may be replaced
    back = load_weights(build_empty(read_config(base)), Checkpoint(base), dtype=torch.float32)
    ours, theirs = model.state_dict(), back.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert {path.name for path in tmp_path.iterdir()} == {"base"}
    assert sum(path.stat().st_size for path in base.iterdir()) <= 20_000_000
    other = tmp_path / "mine"
    other.mkdir()
    (other / "notes.txt").write_text("not a model")
    with pytest.raises(LabError, match="not a demo model"):
        pretraining.write_base(model, other, raw=raw, tokenizer=folder)
    assert (other / "notes.txt").read_text() == "not a model"


def test_examine_counts_every_question_once(model, tokenizer, frames):
    reader = PromptReader(tokenizer[0], parse_config(tokenizer[1]))
    found = pretraining.examine(model.eval(), frames, reader, count=3)
    clear = np.stack([frames.presence(i) for i in range(3)])
    assert sum(entry["n"] for entry in found["answers"].values()) == int((clear >= 0).sum())
    assert [found["dice"][phrase]["n"] for phrase in PHRASES] == (clear == 1).sum(0).tolist()
    assert all(entry["mean"] in (None, 0.0) for entry in found["dice"].values())  # untrained, it never says "Sure"


@pytest.mark.slow
def test_a_base_is_made_from_nothing(small, tmp_path):
    """The whole of `train`, lessons of two steps, twice from the same plan."""
    plan = {
        "frames": {"count": 4, "first": 60, "size": SIDE},
        "drawing": {"steps": 2, "near_until": 0.0},
        "answering": {"steps": 2, "look_until": 0.5},
    }
    given = {"held_out": 2, "progress": False}
    made = pretraining.train(tmp_path / "base", work=tmp_path / "work", plan=plan, **given)
    assert made["steps"] == {"drawing": 2, "answering": 2}
    again = pretraining.train(tmp_path / "twin", work=tmp_path / "work2", plan=plan, **given)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("base", "twin")]
    assert weights[0] == weights[1], "one plan gives one model"
    assert made["dice"] == again["dice"]
    other = plan | {"answering": {"steps": 3}}
    with pytest.raises(LabError, match="another training"):
        pretraining.train(tmp_path / "base", work=tmp_path / "work", plan=other, **given)


def test_the_commands_are_those_of_the_page(root):
    page = (root / "data" / "demo" / "README.md").read_text("utf-8")
    commands = (
        ("data", "--seed"),
        ("train", "--work"),
        ("remember", "--work", "--base"),
        ("finetune", "--base", "--data"),
    )
    for name, *options in commands:
        assert f"python -m tools.demo {name} " in page
        told = CliRunner().invoke(app, [name, "--help"])
        assert told.exit_code == 0
        assert all(option in told.output for option in options)
