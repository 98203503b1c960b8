"""The demo's fine-tune in xtuner's form: what is trained is what comes back, merged, through `load`."""

import json

import numpy as np
import pytest
import torch

import sa2va_lab
from sa2va_lab import paths
from sa2va_lab.errors import LabError
from sa2va_lab.loading.finetune import read_finetune
from sa2va_lab.loading.pickles import read_pth
from tools.demo import finetune as tuning
from tools.demo import tiny
from tools.demo.albums import write_dataset
from tools.demo.finetune import _load_for_training, _trained_tensors, config_text, finetune
from tools.demo.xtuner import DECODER


@pytest.fixture(scope="module")
def tuned(tiny_folder, tmp_path_factory):
    """Eight iterations on two frames."""
    work = tmp_path_factory.mktemp("tuned")
    data = write_dataset(work / "data", patients=[4, 5, 6], frames=1, sizes=(256,), shares=(0.4, 0.3, 0.3))
    return finetune(tiny_folder, data, work / "out", repeats=8, progress=False), work / "data"


def test_the_layout_is_xtuners(tuned):
    path, _ = tuned
    assert path.name == "iter_8.pth"
    found = read_finetune(path)
    assert found.rank == 8
    assert len(found.pairs) == 3 * 7  # every linear layer of three decoder layers
    assert sum(name.startswith(DECODER) for name in found.whole) == 131  # as in a real one
    expected = {"language_model.model.embed_tokens.weight", "language_model.lm_head.weight"}
    expected |= {f"mlp1.{i}.{tail}" for i in (0, 1, 3) for tail in ("weight", "bias")}
    expected |= {f"text_hidden_fcs.{i}.{tail}" for i in (0, 2) for tail in ("weight", "bias")}
    assert {name for name in found.whole if not name.startswith(DECODER)} == expected


def test_the_config_is_the_shipped_one_and_says_the_constants(root, tmp_path):
    shipped = root / "data" / "demo" / f"{tuning.NAME}.py"
    same = config_text(paths.demo_model(), paths.demo_data(), repeats=20, epochs=1, iterations=480)
    assert same == shipped.read_text("utf-8")
    other = config_text(tmp_path / "b", tmp_path / "d", repeats=3, epochs=2, iterations=12).splitlines()
    changed = [line for line, kept in zip(other, same.splitlines(), strict=True) if line != kept]
    assert changed == ['path = "b"', 'DATA_ROOT = "d/"', "repeats = 3", "max_epochs = 2", "save_steps = 12"]
    for name, value in {
        "accumulative_counts": tuning.ACCUMULATION, "lr": tuning.LR, "warmup_ratio": tuning.WARMUP,
        "max_norm": int(tuning.MAX_NORM), "weight_decay": tuning.WEIGHT_DECAY,
    }.items():  # fmt: skip
        assert f"{name} = {value}" in other
    inside = same.replace(" ", "")
    for part in (f"r={tuning.RANK},", f"lora_alpha={tuning.ALPHA},", f"lora_dropout={tuning.DROPOUT},"):
        assert part in inside
    assert f"target_modules={tuning.TARGETS}".replace(" ", "") in inside
    assert f"loss_weight={tuning.MASK_WEIGHT})" in inside
    assert f"loss_weight={tuning.DICE_WEIGHT}," in inside
    assert f"target_length={tiny.CANVAS})" in inside


def test_text_log_and_scalars_are_the_same_figures(tuned):
    path, _ = tuned
    assert [
        line for line in (path.parent / "sa2va_angiogram_finetune.log").read_text().splitlines() if "Saving" in line
    ]
    assert (path.parent / "vis_data" / "scalars.json").read_text() == ""  # eight iterations, a line every ten


def test_merged_answers_as_the_trained_model_did(tiny_folder, tuned):
    """Train a little in memory, write, load base + .pth: equal masks."""
    path, _ = tuned
    state = read_pth(path)[0]["state_dict"]
    model, wrapped = _load_for_training(tiny_folder)
    names = _trained_tensors(model, wrapped)
    assert set(names) == set(state)
    with torch.no_grad():
        for name, tensor in names.items():
            tensor.copy_(state[name].read())
    merged = sa2va_lab.load(tiny_folder, finetune=path, lora_alpha=16, precision="fp32", device="cpu")
    image = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    expected = merged.predict(image, "catheter", answer="Sure, [SEG].").logits
    merged.forget()
    merged.model = model.eval()
    np.testing.assert_allclose(merged.predict(image, "catheter", answer="Sure, [SEG].").logits, expected, atol=2e-4)
    plain = sa2va_lab.load(tiny_folder, precision="fp32", device="cpu").predict(
        image, "catheter", answer="Sure, [SEG]."
    )
    assert np.abs(plain.logits - expected).max() > 1e-3


def test_a_fine_tune_is_not_overwritten(tiny_folder, tuned):
    path, data = tuned
    with pytest.raises(LabError, match="holds a fine-tune already"):
        finetune(tiny_folder, data, path.parent, progress=False)


def test_the_figures_add_up(tuned, tiny_folder, tmp_path):
    _, data = tuned
    path = finetune(tiny_folder, data, tmp_path / "longer", repeats=20, progress=False)
    lines = [json.loads(line) for line in (path.parent / "vis_data" / "scalars.json").read_text().splitlines()]
    assert [line["iter"] for line in lines] == [10, 20]
    for line in lines:
        assert line["loss"] == pytest.approx(line["loss_mask"] + line["loss_dice"] + line["llm_loss"], abs=1e-6)
    text = (path.parent / "sa2va_angiogram_finetune.log").read_text()
    assert f"loss_mask: {lines[1]['loss_mask']:.4f}" in text
    assert "Iter(train) [20/20]" in text
