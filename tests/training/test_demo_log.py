"""The demo's own log, which a real training wrote in both of mmengine's forms, and the config beside it."""

import json

import numpy as np
import pytest

from sa2va_lab.training.audit import audit
from sa2va_lab.training.config import read_config
from sa2va_lab.training.log import read_log


@pytest.fixture
def demo(root):
    return root / "data" / "demo"


def test_text_and_scalars_give_one_table(demo):
    """Equal on every line, as far as the text has decimals."""
    text, scalars = read_log(demo / "sa2va_angiogram_finetune.log"), read_log(demo / "vis_data" / "scalars.json")
    assert text.lines == scalars.lines == 48
    assert text.losses == scalars.losses == ("loss", "loss_mask", "loss_dice", "llm_loss")
    for name in ("iteration", *text.losses):
        np.testing.assert_allclose(text.records[name], scalars.records[name], atol=5.001e-5, rtol=0)
    np.testing.assert_allclose(text.records["lr"], scalars.records["lr"], rtol=5e-5, atol=1e-12)


def test_the_run_did_what_its_config_says(demo, monkeypatch, tmp_path):
    """From any working directory: a notebook's kernel does not run where the command does."""
    monkeypatch.chdir(tmp_path)
    run, config = read_log(demo / "sa2va_angiogram_finetune.log"), read_config(demo / "sa2va_angiogram_finetune.py")
    assert (config.samples, config.repeats, config.sampler_group, config.lora_alpha) == (24, 20, 4, 16)
    assert config.loss_weights["loss_mask"] == 3.0
    found = audit(run, config=config, ranks=1).to_dict()
    assert json.loads(json.dumps(found))["implied_ranks"] == 1
    assert found["parts_sum_to_total"] is True


def test_the_pth_beside_it_is_of_that_run(demo):
    from sa2va_lab.loading.finetune import read_finetune

    config = read_config(demo / "sa2va_angiogram_finetune.py")
    tuned = read_finetune(demo / "iter_480.pth")
    assert tuned.rank == config.lora["r"]
    assert read_log(demo / "sa2va_angiogram_finetune.log").iterations == 480
