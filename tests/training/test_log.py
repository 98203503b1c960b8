import contextlib
import gzip
import json
import math
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sa2va_lab.errors import LabError
from sa2va_lab.training import log as log_module
from sa2va_lab.training.log import TrainingRun, read_log


def _same_table(one, other, *, decimals=4):
    assert one.keys() == other.keys()
    for name in one:
        if name != "lr":
            assert np.array_equal(np.round(one[name], decimals), np.round(other[name], decimals), equal_nan=True), name
        else:
            assert np.allclose(one[name], other[name], rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "lines", "last", "final"),
    [
        ("xtuner_llama3_8b_qlora.log", 11, 1920, 0.0004),
        ("xtuner_llama3_agent.log", 10, 100, 0.9432),
        ("xtuner_llava_llama3_qlora.log", 51, 500, 0.0),
    ],
)
def test_real_excerpts_to_the_last_line(shared, name, lines, last, final):
    path = shared / "logs" / name
    written = [line for line in path.read_text().splitlines() if "Iter(train)" in line]
    run = read_log(path)
    assert run.lines == len(run.records["iteration"]) == len(written) == lines
    assert run.last_iteration == last == int(written[-1].split("[")[1].split("/")[0])
    assert run.last("loss") == final == float(written[-1].split("loss: ")[1].split()[0])
    for number, line in enumerate(written):  # every number of every line, told apart by plain string search
        for key in ("lr", "time", "data_time", "memory", "loss", "grad_norm", "tflops", "tokens_per_sec"):
            if f" {key}: " in line:
                assert run.records[key][number] == float(line.split(f" {key}: ")[1].split()[0]), (line, key)
            elif key in run.records:
                assert math.isnan(run.records[key][number])
    assert not run.torn


def test_messages_of_a_real_excerpt(shared):
    run = read_log(shared / "logs" / "xtuner_llama3_8b_qlora.log")
    assert run.messages.counts == {"deprecated": 3, "end_of_loader": 1} or run.messages.counts == {
        "deprecated": 2,
        "end_of_loader": 1,
    }
    assert run.messages.checkpoints == [(1920, "iterations")]
    assert read_log(shared / "logs" / "xtuner_llava_llama3_qlora.log").planned == 500


def test_reported_points_are_no_log(shared):
    with pytest.raises(LabError, match="has 0 training lines, and no loss"):
        read_log(shared / "logs" / "rlsa2va_reported_points.txt")


def test_the_figures_of_the_real_run(synthetic, write):
    run = read_log(write(synthetic.as_text(synthetic.make_lines())))
    assert (run.format, run.planned, run.iterations, run.last_iteration) == ("mmengine text", 12192, 12192, 12190)
    assert run.losses == ("loss", "loss_mask", "loss_dice", "llm_loss")
    for name, (first, last) in synthetic.REAL.items():
        assert (run.first(name), run.last(name)) == (first, last)
    drops = {name: round(run.drop_percent(name), 2) for name in run.losses}
    # from the four decimals above, dice falls by 49.96 %
    assert drops == {"loss": 87.45, "loss_mask": 79.5, "loss_dice": 49.96, "llm_loss": 96.85}
    assert run.finished


def test_text_and_scalars_give_the_same_table(synthetic, write):
    lines = synthetic.make_lines(2000)
    text = read_log(write(synthetic.as_text(lines, 2000)))
    scalars = read_log(write(synthetic.as_scalars(lines), "vis_data/scalars.json"))
    assert scalars.format == "mmengine scalars.json"
    _same_table(text.records, scalars.records)


@pytest.mark.parametrize("how", ["console", "crlf", "progress bars", "colours", "gzip", "powershell"])
def test_one_table_however_it_was_written(synthetic, write, how):
    lines = synthetic.make_lines(1000)
    plain = synthetic.as_text(lines, 1000)
    expected = read_log(write(plain, "plain.log")).records
    made = {
        "console": synthetic.as_text(lines, 1000, file=False),
        "crlf": plain.replace("\n", "\r\n"),
        "progress bars": "".join(f" 10%|#   | {n}/10\r{line}\n" for n, line in enumerate(plain.splitlines())),
        "colours": "".join(f"\x1b[32m{line.replace('INFO', chr(27) + '[1;31mINFO' + chr(27) + '[0m')}\x1b[0m\n"
                           for line in plain.splitlines()),
        "gzip": gzip.compress(plain.encode()),
        "powershell": plain.replace("\n", "\r\n").encode("utf-16"),
    }  # fmt: skip
    _same_table(expected, read_log(write(made[how])).records)


def test_extra_names_in_any_order(write):
    text = (
        "Iter(train) [1/9]  base_lr: 1.0e-05 lr: 2.0e-05  eta: 1 day, 2:03:04  loss: 2.0  loss_aux: 0.5\n"
        "Iter(train) [2/9]  lr: 3.0e-05  loss_aux: 0.25  my/thing@1: 7  loss: 1.0  grad_norm: inf  loss_scale: 65536\n"
        "Iter(train) [3/9]  lr: 3.0e-05  loss: nan  loss_aux: 0.125  note: none\n"
    )
    run = read_log(write(text))
    assert run.losses == ("loss", "loss_aux")
    assert list(run.records["loss"][:2]) == [2.0, 1.0]
    assert list(run.records["loss_aux"]) == [0.5, 0.25, 0.125]
    assert list(run.records["lr"]) == [2e-5, 3e-5, 3e-5]
    assert run.records["base_lr"][0] == 1e-5
    assert run.records["my/thing@1"][1] == 7
    assert "eta" not in run.records
    assert run.nonfinite == ((2, "grad_norm"), (3, "loss"))
    assert run.last("loss") == 1.0


def test_epochs_and_validation(write):
    text = (
        "2025/01/01 00:00:00 - mmengine - INFO - Epoch(train)  [1][10/20]  lr: 1.0e-03  loss: 1.0\n"
        "2025/01/01 00:00:00 - mmengine - INFO - Epoch(train)  [1][20/20]  lr: 1.0e-03  loss: 0.8\n"
        "2025/01/01 00:00:00 - mmengine - INFO - Epoch(val)  [1][5/5]    dice: 0.5000  mIoU: 0.3  time: 1.0\n"
        "2025/01/01 00:00:00 - mmengine - INFO - Epoch(train)  [2][10/20]  lr: 1.0e-03  loss: 0.7\n"
        "2025/01/01 00:00:00 - mmengine - INFO - Epoch(val)  [2][5/5]    dice: 0.5000  mIoU: 0.4  time: 1.0\n"
    )
    run = read_log(write(text))
    assert list(run.records["iteration"]) == [10, 20, 30]
    assert run.validation == {"dice": [(20, 0.5), (30, 0.5)], "mIoU": [(20, 0.3), (30, 0.4)]}
    assert run.planned is None


def test_restarts_are_counted_once(synthetic, write):
    lines = synthetic.make_lines(1000)
    again = synthetic.make_lines(1000, seed=1)
    text = synthetic.as_text(lines[:60], 1000) + "Traceback (most recent call last):\n"
    text += synthetic.as_text(again[50:80], 1000) + synthetic.as_text(lines[80:], 1000)
    run = read_log(write(text))
    assert run.restarts == (510,)
    assert list(run.records["iteration"]) == list(range(10, 1001, 10))
    assert run.records["loss"][49] == lines[49]["loss"]
    assert run.records["loss"][50] == again[50]["loss"]  # what was done again replaces what was lost
    assert run.lines == 110
    assert run.messages.counts["traceback"] == 1


def test_four_processes_that_write_into_one_log(synthetic, write):
    text = "".join(f"{line}\n" * 4 for line in synthetic.as_text(synthetic.make_lines(500), 500).splitlines())
    run = read_log(write(text))
    assert run.copies == 4
    assert len(run.records["iteration"]) == 50
    assert run.restarts == ()


@pytest.mark.parametrize(("cut", "torn"), [(0, False), (1, True), (3, True), (25, True), (60, True)])
def test_torn_last_line(synthetic, write, cut, torn):
    text = synthetic.as_text(synthetic.make_lines(100), 100).rstrip("\n")
    run = read_log(write(text[: len(text) - cut]))
    assert run.torn == torn
    assert run.lines == 10 - torn
    assert run.last_iteration == 100 - 10 * torn


def test_interleaved_warnings_and_privacy(synthetic, write):
    lines = synthetic.as_text(synthetic.make_lines(100), 100).splitlines()
    secret = "INVENTED-ZHANG-0042"
    noise = [
        f"Warning: mask length (3) != text length (1) for image /data/{secret}/a b.png",
        f"Warning: mask length (2) != text length (1) for image /data/{secret}/a b.png",
        f"Warning: mask length (2) != text length (1) for image /data/{secret}/c.png",
        f"11/23 08:52:15 - mmengine - WARNING - cannot read {secret}.png",
        f"11/23 08:52:15 - mmengine - WARNING - Broken frame of the patient {secret}",
        "11/23 08:52:15 - mmengine - WARNING - Reach the end of the dataloader, it will be restarted",
        "Skipped 17 mismatched keys due to shape mismatch:",
    ]
    mixed = [part for pair in zip(lines, [*noise, "", "", ""], strict=True) for part in pair]
    run = read_log(write("\n".join(mixed) + "\n"))
    assert run.lines == 10
    counts = {"mask_text_length": 3, "warning": 2, "end_of_loader": 1, "skipped_weights": 1}
    assert run.messages.counts == counts
    assert run.messages.images == 2
    assert run.messages.facts["skipped_weights"] == "17"
    assert secret not in str(vars(run.messages))


def test_how_it_was_started(synthetic, write):
    text = (
        "2025/11/23 08:52:12 - mmengine - INFO - \n"
        "------------------------------------------------------------\n"
        "System environment:\n    CUDA available: True\n    GPU 0,1,2,3: NVIDIA GeForce RTX 3090\n\n"
        "Runtime environment:\n    Distributed launcher: none\n    Distributed training: False\n    GPU number: 1\n"
        "------------------------------------------------------------\n\n"
        "2025/11/23 08:52:12 - mmengine - INFO - Config:\n" + synthetic.CONFIG.format(
            epochs=1, repeats=10, mask_weight=3.0, dice_weight=1.0
        ) + "\n" + synthetic.as_text(synthetic.make_lines(100), 100)
    )  # fmt: skip
    run = read_log(write(text))
    assert run.messages.facts == {
        "launcher": "none",
        "distributed": "False",
        "processes": "1",
        "gpus": "0,1,2,3: NVIDIA GeForce RTX 3090",
    }
    assert run.messages.config.startswith("from mmengine.hooks")
    assert run.messages.config.rstrip().endswith(")")
    assert "Iter(train)" not in run.messages.config


def test_hugging_face(write):
    history = [
        {"epoch": 0.1, "grad_norm": 2.0, "learning_rate": 1e-5, "loss": 3.0, "step": 10},
        {"epoch": 0.2, "grad_norm": 1.0, "learning_rate": 2e-5, "loss": 2.0, "step": 20},
        {"epoch": 0.2, "eval_loss": 2.5, "eval_accuracy": 0.5, "eval_runtime": 3.0, "step": 20},
        {"epoch": 0.3, "grad_norm": float("nan"), "learning_rate": 1e-5, "loss": 1.5, "step": 30},
        {"train_runtime": 9.0, "total_flos": 1e18, "step": 30},
    ]
    for indent in (None, 2):
        state = json.dumps({"max_steps": 40, "global_step": 30, "log_history": history}, indent=indent)
        run = read_log(write(state, "trainer_state.json"))
        assert (run.format, run.planned, run.lines) == ("Hugging Face trainer_state.json", 40, 3)
        assert list(run.records["loss"]) == [3.0, 2.0, 1.5]
        assert list(run.records["lr"]) == [1e-5, 2e-5, 1e-5]
        assert run.validation == {"eval_loss": [(20, 2.5)], "eval_accuracy": [(20, 0.5)]}
        assert not run.finished


def test_deepspeed(write):
    text = (
        "  world_size ................... 4\n"
        "[2025-11-23 08:52:12,001] [INFO] [logging.py:96:log_dist] [Rank 0] step=10, skipped=1, lr=[2e-05], mom=[]\n"
        "steps: 10 loss: 1.5000 iter time (s): 0.500 samples/sec: 16.000\n"
        "[2025-11-23 08:52:22,001] [INFO] [logging.py:96:log_dist] [Rank 0] step=20, skipped=1, lr=[1e-05], mom=[]\n"
        "steps: 20 loss: 1.2500 iter time (s): 0.600 samples/sec: 13.333\n"
    )
    run = read_log(write(text))
    assert run.format == "DeepSpeed text"
    assert run.messages.facts["world_size"] == "4"
    assert {name: list(column) for name, column in run.records.items()} == {
        "iteration": [10, 20],
        "skipped": [1, 1],
        "lr": [2e-5, 1e-5],
        "loss": [1.5, 1.25],
        "time": [0.5, 0.6],
        "samples_per_sec": [16.0, 13.333],
    }


def test_deepspeed_lines_within_mmengine_do_not_count_twice(synthetic, write):
    lines = synthetic.as_text(synthetic.make_lines(100), 100).splitlines()
    extra = "[2025-11-23 08:52:12,001] [INFO] [logging.py:96:log_dist] [Rank 0] step=1, skipped=0, lr=[2e-05], mom=[]"
    run = read_log(write("\n".join(part for line in lines for part in (extra, line)) + "\n"))
    assert (run.format, run.lines) == ("mmengine text", 10)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (bytes(range(256)) * 64, "is a binary file"),
        (b"PK\x03\x04" + bytes(5000), "is a binary file"),
        (b"hello\nworld\n", "has 0 training lines, and no loss"),
        (b"Iter(train) [1/9]  lr: 1.0e-05  time: 1.0\n", "has 1 training lines, and no loss"),
        (b'{"a": 1}\n', "has 0 training lines, and no loss"),
        (b'{"a": \n', "neither mmengine's scalars.json"),
        (b"\x1f\x8b damaged", "damaged"),
        (gzip.compress(b"Iter(train) [1/9]  loss: 1\n" * 9999)[:-20], "damaged"),
        (
            b"Iter(train) [1/9]  loss: 1.0\n" * 3 + b"Iter(train) [2/8]  loss: 1.0\n" * 2,
            "mixes lines of different runs",
        ),
        (b"x" * (17 << 20), "line of more than 16 MB"),
    ],
)
def test_bad_input_gets_one_sentence(write, content, sentence):
    path = write(content)
    with pytest.raises(LabError, match=sentence) as error:
        read_log(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


def test_no_file_and_a_folder(tmp_path, write):
    with pytest.raises(LabError, match="is not a file; expected a training log"):
        read_log(tmp_path / "absent.log")
    with pytest.raises(LabError, match=r"is a folder.*no \*\.log"):
        read_log(tmp_path)
    write("x", "work/20250101.log")
    with pytest.raises(LabError, match=r"such as .*20250101\.log"):
        read_log(tmp_path)


def test_a_stray_damaged_total_is_forgiven(synthetic, write):
    text = synthetic.as_text(synthetic.make_lines(100), 100).replace("[ 50/100]", "[ 50/900]")
    assert read_log(write(text)).planned == 100


def test_a_log_beyond_the_limit_is_refused(synthetic, write, monkeypatch):
    text = synthetic.as_text(synthetic.make_lines(100), 100)
    monkeypatch.setattr(log_module, "LIMIT", 1 << 20)
    assert read_log(write(text)).lines == 10
    for content in (text * 1000, gzip.compress((text * 1000).encode())):
        with pytest.raises(LabError, match="at most 1,048,576 of a training log|more than 1 MB of text"):
            read_log(write(content))


def test_a_log_that_powershell_wrote(shared):
    run = read_log(shared / "cases" / "12" / "powershell_utf16.log")
    assert run.lines == len(run.records["iteration"]) > 10
    assert "loss" in run.losses


def test_losses_that_are_all_nan_are_said_to_be(shared):
    with pytest.raises(LabError, match="loss, loss_mask, loss_dice are NaN or infinite on all of them") as error:
        read_log(shared / "attacks" / "logs" / "num_nan_all.log")
    assert "training lines" in str(error.value)


@pytest.mark.parametrize("step", ["-10", "9" * 400])
def test_iterations_that_are_none(write, synthetic, step):
    """Alone they are a sentence; among others they are left out and counted."""
    text, scalars = f"Iter(train) [{step}/100]  loss: 1.0\n", f'{{"iter": {step}, "loss": 1.0}}\n'
    lines = synthetic.make_lines(100)
    for bad, good in ((text, synthetic.as_text(lines, 100)), (scalars, synthetic.as_scalars(lines))):
        with pytest.raises(LabError, match="has 0 training lines, and 1 that cannot be read, and no loss"):
            read_log(write(bad))
        run = read_log(write(bad + good))
        assert (run.lines, run.unread) == (10, 1)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.log")
    with pytest.raises(LabError, match="is not a file"):
        read_log(tmp_path / "pipe.log")


def _read(content, name):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(content)
        with contextlib.suppress(LabError):
            run = read_log(path)
            assert isinstance(run, TrainingRun)
            assert len({len(column) for column in run.records.values()}) == 1
            assert run.losses
            assert np.all(np.diff(run.records["iteration"]) > 0)


@given(st.binary(max_size=2000))
def test_random_bytes_give_a_run_or_a_sentence(content):
    _read(content, "x.log")


@given(st.data())
def test_flipped_bits_give_a_run_or_a_sentence(synthetic, data):
    lines = synthetic.make_lines(120)
    kinds = [
        synthetic.as_text(lines, 120).encode(),
        synthetic.as_scalars(lines).encode(),
        gzip.compress(synthetic.as_text(lines, 120).encode()),
        json.dumps({"log_history": [{"step": n, "loss": 1 / n} for n in range(1, 9)], "max_steps": 9}).encode(),
        b"step=10, skipped=1, lr=[2e-05], mom=[]\nsteps: 10 loss: 1.5 iter time (s): 0.500 samples/sec: 16.000\n" * 3,
    ]
    content = bytearray(data.draw(st.sampled_from(kinds)))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    end = data.draw(st.integers(0, len(content)))
    _read(bytes(content[:end] if data.draw(st.booleans()) else content), "x.log")
