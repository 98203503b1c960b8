"""The sentence of 03_evaluation: Dice with its interval, the N of that very mean, and what limits it."""

import math

import pytest

from sa2va_lab.language import use_language
from sa2va_lab.reports.answers import Evaluated, say_sample
from sa2va_lab.views.scores import say_evaluated


def _metrics(*, dice=0.5, low=0.4, high=0.6, n=10, n_images=None, n_groups=3, failed=0, bare=0, seen="no", **more):
    mean = {"macro": dice, "low": low, "high": high, "n": n, "n_groups": n_groups}
    summary = {
        "n_images": n_images or n + failed + bare, "n_groups": n_groups + 1, "n_failed": failed,
        "n_without_truth": bare, "threshold": 0.5, "dice": mean,
    }  # fmt: skip
    return Evaluated(summary=summary, split="test", seen=seen, **more)


def test_answer_has_dice_interval_n_threshold_split_and_training():
    assert say_evaluated(_metrics()) == (
        "Dice 0.500 (95 % interval 0.400 to 0.600) on 10 images of 3 patients, threshold 0.5, split “test”. "
        "By the data set's own splits, these images were not in its training part."
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"low": math.nan, "high": math.nan, "n_groups": 1}, "no interval: it takes two patients or more"),
        ({"low": None, "high": None}, "no interval"),
        ({"dice": math.nan, "n": 0, "bare": 10}, "No Dice can be given: of 10 images of 4 patients"),
        ({"n": 7, "failed": 2, "bare": 1}, "on 7 images of 3 patients"),
        ({"failed": 2, "bare": 1}, "Not in this mean: 2 failed and 1 without annotation."),
        ({"n_images": 12}, "on 10 images of 3 patients"),
        ({"n_images": 12}, "Nor are 2 in which nothing is annotated and nothing found: they have no Dice."),
        ({"n_groups": 10}, "10 images, each counted as one patient"),
        (
            {"refused": {"n": 1, "of": 10, "ids": ["P1"]}},
            "Refused although something is annotated there: 1 of 10 images (P1).",
        ),
        (
            {"refused": {"n": 1, "of": 10, "ids": [], "asked": 1, "named": 1}},
            "Asked in other words, 1 of 1 got a mask.",
        ),
        ({"verified": "Not verified: this Run was only looked at."}, "Not verified"),
        ({"seen": "yes"}, "not how well new patients will do"),
        ({"seen": "unknown"}, "is not known"),
        ({"seen": "foreign"}, "outside the demo model's training data"),
        ({"n_asked": 10, "n_finished": 7}, "This Run holds 7 of the 10 images asked for"),
    ],
)
def test_answer_says_what_limits_it(changes, words):
    assert words in say_evaluated(_metrics(**changes))


def test_one_image_a_patient_is_said_as_the_data_know_it():
    assert say_sample(5, 5) == "5 images, each counted as one patient"
    assert say_sample(5, 5, grouped=True) == "5 images of 5 patients"


def test_answer_in_chinese():
    with use_language("zh"):
        said = say_evaluated(_metrics())
    assert said.startswith("Dice 0.500（95 % 区间 0.400 至 0.600），3 名患者的 10 幅图像")
