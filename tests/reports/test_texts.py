import math

import pytest

from sa2va_lab.language import use_language
from sa2va_lab.reports import texts
from sa2va_lab.views.scores import say_answer


def _metrics(*, dice=0.5, low=0.4, high=0.6, n_images=10, n_groups=3, failed=0, bare=0, seen="no"):
    summary = {
        "n_images": n_images, "n_groups": n_groups, "n_failed": failed, "n_without_truth": bare, "threshold": 0.5,
        "dice": {"macro": dice, "low": low, "high": high},
    }  # fmt: skip
    return {"summary": summary, "split": "test", "seen": seen}


def test_answer_has_dice_interval_n_threshold_split_and_training():
    assert say_answer(_metrics()) == (
        "Dice 0.500 (95 % interval 0.400 to 0.600) on 10 images of 3 patients, threshold 0.5, split “test”. "
        "By the data set's own splits, these images were not in its training part."
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"low": math.nan, "high": math.nan, "n_groups": 1}, "no interval: it takes two patients or more"),
        ({"low": None, "high": None}, "no interval"),
        ({"dice": math.nan, "bare": 10}, "No Dice can be given: of 10 images of 3 patients"),
        ({"failed": 2, "bare": 1}, "Not in this mean: 2 failed and 1 without annotation."),
        ({"n_groups": 10}, "10 images, each counted as one patient"),
        ({"seen": "yes"}, "not how well new patients will do"),
        ({"seen": "unknown"}, "is not known"),
        ({"seen": "foreign"}, "outside the demo model's training data"),
    ],
)
def test_answer_says_what_limits_it(changes, words):
    assert words in say_answer(_metrics(**changes))


def test_answer_of_an_unfinished_run():
    said = say_answer(_metrics() | {"n_asked": 10, "n_finished": 7})
    assert "This Run holds 7 of the 10 images asked for" in said


def test_answer_in_chinese():
    with use_language("zh"):
        said = say_answer(_metrics())
    assert said.startswith("Dice 0.500（95 % 区间 0.400 至 0.600），3 名患者的 10 幅图像")


@pytest.mark.parametrize(
    ("count", "said"),
    [(None, "–"), (0, "–"), (10_160, "9.9 KiB"), (1 << 20, "1.0 MiB"), (16_365_212_516, "15.24 GiB")],
)
def test_sizes_are_said_in_the_unit_that_shows_them(count, said):
    assert texts.say_size(count) == said
