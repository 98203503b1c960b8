import json
import re

import pytest

from sa2va_lab.errors import LabError
from sa2va_lab.language import tr, use_language
from sa2va_lab.training.audit import audit
from sa2va_lab.training.config import read_config
from sa2va_lab.training.findings import TEXTS, TITLES
from sa2va_lab.training.log import read_log


@pytest.fixture
def look(synthetic, write, write_config):
    """(iterations, ...) -> audit of a synthetic log; text: what else is in the log; config: keywords of the config."""

    def look(iterations=12192, *, text="", config=None, samples=1219, ranks=4, scalars=False, change=None, **lines):
        made = synthetic.make_lines(iterations, **lines)
        for line in made if change else ():
            change(line)
        if scalars:
            path = write(synthetic.as_scalars(made), "vis_data/scalars.json")
        else:
            path = write(text + synthetic.as_text(made, iterations))
        read = None if config is False else read_config(write_config(**(config or {})))
        return audit(read_log(path), config=read, samples=samples, ranks=ranks)

    return look


def _by_kind(found):
    return {finding.kind: finding for finding in found.findings}


def test_the_real_run_was_one_process(look):
    found = look()
    assert found.implied_ranks == 1
    kinds = _by_kind(found)
    assert kinds["ranks"].alarm
    assert kinds["ranks"].evidence == (
        "12,192 iterations = ceil(12,190 / (8 x 1)) x 8: 1 process. 4 would have made 3,048. The run worked through "
        "the data as 1 process, so the other GPUs stood idle or computed the same samples."
    )
    assert "8 samples (1,524 updates), not the 32 that were meant" in kinds["effective_batch"].evidence
    assert "each was seen 10.0 times" in kinds["epochs"].evidence
    assert "with 1 process" in kinds["warmup"].evidence
    assert kinds["warmup"].alarm


def test_what_four_would_have_been(look):
    found = look(3048)
    assert found.implied_ranks == 4
    kinds = _by_kind(found)
    assert not kinds["ranks"].alarm
    assert kinds["ranks"].evidence == "3,048 iterations = ceil(12,190 / (8 x 4)) x 8: 4 processes, as meant."
    assert not kinds["effective_batch"].alarm
    assert not kinds["warmup"].alarm
    assert "with 4 processes" in kinds["warmup"].evidence


def test_the_second_run_was_one_process_too(look):
    """3,672 iterations, three epochs; 4.92e-07 at iteration 10 is one process's warm-up."""
    found = look(3672, config={"repeats": 1, "epochs": 3}, warmup=367)
    assert found.implied_ranks == 1
    evidence = _by_kind(found)["warmup"].evidence
    assert evidence.startswith("Learning rate 4.92e-07 at iteration 10 is that of a warm-up of 367 iterations")
    assert "367 (4.92e-07) with 1 process, and 93 (1.957e-06) with 4" in evidence


def test_a_warmup_that_fits_nobody(look):
    kinds = _by_kind(look(12192, warmup=367))
    assert kinds["ranks"].case == "ranks.fewer"  # the iterations still say one
    assert kinds["warmup"].case == "warmup.none"
    assert "one would give 1.48e-07, 4 would give 5.943e-07" in kinds["warmup"].evidence


def test_scalars_without_a_plan_get_it_from_the_config(look):
    found = look(scalars=True)
    assert (found.iterations, found.implied_ranks) == (12192, 1)
    assert look(3048, scalars=True).to_dict()["iterations"] == 3048


def test_samples_from_the_annotations_beside_the_config(look):
    unknown = look(samples=None)
    assert unknown.implied_ranks is None
    assert look(samples=None, config={"annotations": 1219}).implied_ranks == 1
    assert "the number of samples" in _by_kind(unknown)["ranks"].evidence


def test_without_a_config(look):
    assert look(config=False, samples=12190).implied_ranks == 1
    assert look(3048, config=False, samples=12190).implied_ranks == 4
    found = look(config=False)  # 10 times the images: repeats or processes, nobody knows
    assert found.implied_ranks is None
    assert "10.00 x 1,219 samples" in _by_kind(found)["ranks"].evidence
    assert _by_kind(look(config=False, samples=None))["ranks"].case == "ranks.unknown"


def test_iterations_that_fit_nobody(look):
    found = look(5000)
    assert found.implied_ranks is None
    assert "fit no number of processes from 1 to 64: one would make 12,192, 4 would make 3,048" in (
        _by_kind(found)["ranks"].evidence
    )


def test_a_data_set_too_small_to_tell(look):
    found = look(8, config={"repeats": 1}, samples=8, interval=1)
    assert found.implied_ranks == 4  # any number fits, so what was meant is not refuted
    assert look(8, config={"repeats": 1}, samples=8, interval=1, ranks=1).implied_ranks == 1


HEAD = (
    "2025/11/23 08:52:12 - mmengine - INFO - \n    GPU 0,1,2,3: NVIDIA GeForce RTX 3090\n"
    "    Distributed launcher: {launcher}\n    Distributed training: {joined}\n    GPU number: {number}\n"
)


def test_launcher(look):
    kinds = _by_kind(look(text=HEAD.format(launcher="none", joined="False", number=1)))
    assert kinds["launcher"].alarm
    assert "“Distributed launcher: none” (GPU number: 1), while 4 GPUs were meant" in kinds["launcher"].evidence
    assert kinds["ranks_reported"].evidence == "The log itself counts 1 process."
    assert "of 24 on RTX 3090" in kinds["memory"].evidence
    joined = _by_kind(look(3048, text=HEAD.format(launcher="pytorch", joined="True", number=4)))
    assert not joined["launcher"].alarm
    assert not joined["ranks_reported"].alarm


def test_the_config_in_the_log_is_used(look, synthetic):
    written = synthetic.CONFIG.format(repeats=10, epochs=1, mask_weight=3.0, dice_weight=1.0)
    found = look(config=False, text=f"2025/11/23 08:52:12 - mmengine - INFO - Config:\n{written}\n")
    assert found.implied_ranks == 1
    assert found.weights == {"loss_mask": 3.0, "loss_dice": 1.0}
    assert "config" in _by_kind(found)


def test_parts_and_weights(look):
    found = look()
    assert found.to_dict()["parts_sum_to_total"] is True
    said = [finding.evidence for finding in found.findings if finding.kind == "loss_weights"]
    assert said[0].startswith("loss_mask begins at 5.0226 = weight 3 x 1.6742, that is 2.42 x ln 2 (0.6931")
    assert said[1].startswith("loss_dice begins at 0.9987 = weight 1 x 0.9987: what an untrained")
    # Sa2VA's own weights would make the first Dice loss 1.997, which no Dice loss can be
    impossible = look(config={"mask_weight": 2.0, "dice_weight": 0.5})
    assert "cannot exceed 1: this config is not the run's" in " ".join(f.evidence for f in impossible.alarms)


def test_parts_that_do_not_sum(look):
    found = look(change=lambda line: line.update(loss_dice=line["loss_dice"] + (line["iter"] == 500)))
    assert found.to_dict()["parts_sum_to_total"] is False
    assert "differ by 1.0000 at iteration 500" in _by_kind(found)["parts_sum"].evidence


def test_a_run_without_parts(write):
    found = audit(read_log(write("Iter(train) [1/2]  loss: 2.0\nIter(train) [2/2]  loss: 1.0\n")))
    assert found.to_dict()["parts_sum_to_total"] is None
    assert found.to_dict()["drop_percent"] == {"loss": 50.0}


def test_a_mask_head_that_learned_nothing(look):
    assert "dice_saturated" not in _by_kind(look())
    flat = {"loss_mask": (5.0, 2.0), "loss_dice": (0.9987, 0.985), "llm_loss": (8.2, 0.25)}
    finding = _by_kind(look(ends=flat))["dice_saturated"]
    assert finding.alarm
    assert "of its weight 1: the mask head learned nothing" in finding.evidence


def test_warnings_with_what_they_mean(look):
    warning = "Warning: mask length (3) != text length (1) for image /data/INVENTED-LI-01/{}.png\n"
    kinds = _by_kind(look(text="".join(warning.format(n % 131) for n in range(1310)) + "Skipped 9 mismatched keys\n"))
    assert kinds["mask_text_length"].evidence.startswith(
        "1,310 warnings “mask length != text length” about 131 different images"
    )
    assert "trained as background" in kinds["mask_text_length"].evidence
    assert kinds["skipped_weights"].evidence.startswith("9 tensors")
    assert not [f for f in kinds.values() if "INVENTED" in f.evidence]


@pytest.mark.parametrize(("values", "kind", "alarm"), [((0.5, 0.5), "validation_constant", True),
                                                       ((0.5, 0.6), "validation", False)])  # fmt: skip
def test_validation(look, values, kind, alarm):
    text = "".join(f"Iter(val) [20/20]    dice: {value:.4f}  time: 1.0\n" for value in values)
    finding = _by_kind(look(text=text))[kind]
    assert finding.alarm == alarm


def test_speed_memory_and_offloading(look):
    kinds = _by_kind(look())
    assert kinds["throughput"].evidence.startswith("17.80 s an iteration (median), 60.3 h in all, 0.06 images a second")
    assert "parameters and optimizer state in CPU memory (ZeRO stage 3)" in kinds["offload"].evidence
    assert "19.3 GiB" in kinds["memory"].evidence


def test_checkpoints(look):
    assert "10,500, 11,000, 11,500, 12,000, 12,192" in _by_kind(look())["checkpoints"].evidence
    early = look(shape=60.0)  # all the fall is over by iteration 2,000
    finding = _by_kind(early)["checkpoints"]
    assert finding.alarm
    assert early.course.plateau_from < 10500
    assert "the earliest checkpoint kept is 10,500" in finding.evidence
    saved = "".join(f"mmengine - INFO - Saving checkpoint at {n} iterations\n" for n in (4000, 8000))
    assert "4,000, 8,000" in _by_kind(look(text=saved, config=False))["checkpoints"].evidence


def test_unfinished_spikes_and_nan(look, synthetic, write):
    def spoil(line):
        line["loss"] = 30.0 if line["iter"] == 9000 else float("nan") if line["iter"] == 9500 else line["loss"]

    kinds = _by_kind(look(change=spoil))
    assert kinds["spikes"].evidence.endswith("the highest 30 at iteration 9,000.")
    assert kinds["not_finite"].alarm
    assert "loss, first at iteration 9,500" in kinds["not_finite"].evidence
    run = read_log(write(synthetic.as_text(synthetic.make_lines()[:600])))
    assert "iteration 6,000 of 12,192" in _by_kind(audit(run))["unfinished"].evidence


def test_learning_rate_of_another_config(look):
    assert "reaches 9.926e-05 in the log and 2e-05 in the config" in _by_kind(look(lr=1e-4))["learning_rate"].evidence


def test_numbers_below_one_are_refused(look):
    for values in ({"samples": 0}, {"ranks": 0}):
        with pytest.raises(LabError, match="expected a number from 1 up"):
            look(**values)


def test_json_has_the_promised_keys(look):
    entry = look().to_dict()
    assert set(entry) == {
        "iterations", "first", "last", "drop_percent", "parts_sum_to_total", "implied_ranks", "findings"
    }  # fmt: skip
    assert entry["first"] == {
        "iteration": 10, "loss": 14.2463, "loss_mask": 5.0226, "loss_dice": 0.9987, "llm_loss": 8.225
    }  # fmt: skip
    assert entry["drop_percent"]["loss"] == 87.45
    assert all(set(finding) == {"kind", "evidence"} for finding in entry["findings"])
    json.dumps(entry, allow_nan=False)


def test_no_metric_is_ever_expected(look):
    """Dice is named only as a part of the loss; no sentence sets a figure for masks."""
    for found in (look(), look(3048), look(config=False)):
        for code in ("en", "zh"):
            with use_language(code):
                said = " ".join(tr(finding.evidence) for finding in found.findings)
            assert not re.search(r"(?i)(expected|estimated|predicted|implies|预计|预期)\s*(a\s+)?(dice|iou)", said)
            assert not re.search(r"(?i)\b(dice|iou) (score )?(of|is|will|=)", said.replace("loss_dice", ""))


def test_every_case_has_a_title_and_a_use(root):
    names = ("audit", "checks", "readers")
    quoted = " ".join((root / "sa2va_lab/training" / f"{name}.py").read_text() for name in names)
    for case in TEXTS:
        assert case.partition(".")[0] in TITLES
        assert f'"{case}"' in quoted
    assert {case.partition(".")[0] for case in TEXTS} == set(TITLES)


def test_findings_are_said_in_chinese(look):
    """Whole sentences, with what stands in them: neither an optional part nor a number of processes stays English."""
    warning = "Warning: mask length (3) != text length (1)\n11/23 08:52:15 - mmengine - WARNING - Something odd\n"
    heads = [HEAD.format(launcher=launcher, joined=True, number=4) for launcher in ("none", "pytorch")]
    saved = "mmengine - INFO - Saving checkpoint at 12000 iterations\nIter(val) [9/9]  dice: 0.5\n"
    looks = [look(text=warning + heads[0]), look(3048, text=heads[1] + saved, tflops=30.0), look(5000, shape=60.0)]
    looks += [look(config=False), look(config=False, samples=None), look(config=False, samples=12190, tflops=1.0)]
    looks += [look(8, config={"repeats": 1}, samples=8, interval=1), look(warmup=367), look(samples=None)]
    names = {"loss_mask", "loss_dice", "llm_loss", "loss", "dice", "number", "TFLOP", "ceil", "ZeRO", "samples", "Dice"}
    with use_language("zh"):
        for finding in (finding for found in looks for finding in found.findings):
            said = re.sub("“[^”]*”", "", tr(finding.evidence))
            assert set(re.findall("[A-Za-z_]{4,}", said)) <= names, said
            assert tr(finding.title) != finding.title
