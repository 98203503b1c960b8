import math

import pytest

from sa2va_lab.training.audit import count_iterations, fit_ranks_of_any_group, fit_warmup, warmup_rate


@pytest.mark.parametrize(("ranks", "iterations"), [(1, 12192), (2, 6096), (3, 4064), (4, 3048)])
def test_iterations_of_the_real_data_set(ranks, iterations):
    """1,219 images x 10, batch 1, accumulation 8: ceil(12190 / (8 r)) x 8."""
    assert count_iterations(12190, ranks=ranks, batch=1, group=8) == iterations


def _deal(samples, *, ranks, batch, group):
    """A sampler and a loader, the long way: pad, deal out in turn, count the batches of the first process."""
    unit = group or 1
    padded = math.ceil(samples / ranks / unit) * unit * ranks
    own = list(range(padded))[0::ranks]
    return len([own[start : start + batch] for start in range(0, len(own), batch)])


@pytest.mark.parametrize("samples", [1, 7, 64, 1219, 12190])
@pytest.mark.parametrize("ranks", [1, 3, 4])
@pytest.mark.parametrize(("batch", "group"), [(1, 8), (2, 8), (1, None), (4, None), (3, 12)])
def test_iterations_as_a_sampler_deals_them_out(samples, ranks, batch, group):
    counted = count_iterations(samples, ranks=ranks, batch=batch, group=group)
    assert counted == _deal(samples, ranks=ranks, batch=batch, group=group)


def test_epochs():
    assert count_iterations(1219, ranks=1, batch=1, group=8, epochs=3) == 3672
    assert count_iterations(100, ranks=1, batch=1, group=None, epochs=0.5) == 50


def test_any_group():
    assert fit_ranks_of_any_group(12192, 12190) == [1]
    assert fit_ranks_of_any_group(3048, 12190) == [4]
    assert fit_ranks_of_any_group(12192, 1219) == []


@pytest.mark.parametrize(
    ("name", "iterations"),
    [("xtuner_llama3_8b_qlora.log", 1920), ("xtuner_llama3_agent.log", 37002), ("xtuner_llava_llama3_qlora.log", 500)],
)
def test_warmup_gives_every_digit_of_real_logs(shared, name, iterations):
    """lr 2e-4, warm-up over 3 % of one epoch, as xtuner's configs of these runs have it."""
    length = int(0.03 * iterations)
    seen = 0
    for line in (shared / "logs" / name).read_text().splitlines():
        if "Iter(train)" in line:
            place = int(line.split("[")[1].split("/")[0])
            if place < length:
                seen += 1
                assert f"lr: {warmup_rate(place, lr=2e-4, length=length):.4e}  " in line
    assert seen >= 2


def test_warmup_of_the_reported_run(shared):
    """3,672 iterations in three epochs, warm-up over 0.1 of them, 2e-5: 4.92e-07 at iteration 10, as was reported."""
    reported = (shared / "logs" / "rlsa2va_reported_points.txt").read_text()
    rate = warmup_rate(10, lr=2e-5, length=int(0.3 * 1224))
    assert f"{rate:.2e}" == "4.92e-07"
    assert "4.92e-07" in reported
    assert fit_warmup(10, rate, lr=2e-5) == pytest.approx(367)


def test_warmup_ends_at_the_peak():
    assert warmup_rate(100, lr=1e-3, length=100) == pytest.approx(1e-3)
    assert warmup_rate(5000, lr=1e-3, length=100) == pytest.approx(1e-3)
    assert fit_warmup(10, 2e-3, lr=1e-3) is None
