"""Shape metrics: hand-drawn masks with every expected value written out."""

import numpy as np
import pytest

from sa2va_lab.evaluation.shapes import measure_calibration, measure_shapes, recall_by_width


def drawn(*rows):
    return np.array([[character == "#" for character in row] for row in rows])


LINE = drawn(".......", "#######", ".......", ".......", ".......")
LOWER = drawn(".......", ".......", ".......", "#######", ".......")
BROKEN = drawn(".......", "###.###", ".......", ".......", ".......")
NOTHING = np.zeros((5, 7), bool)

CASES = {
    "the same": (LINE, LINE, dict(cldice=1.0, hd95=0.0, surface_dice=1.0, betti0_error=0.0, area_error=0.0)),
    "two pixels lower": (LOWER, LINE, dict(cldice=0.0, hd95=2.0, surface_dice=1.0, betti0_error=0.0, area_error=0.0)),
    # the mask's line lies all inside, 6 of the truth's 7 pixels are found: 2 * 1 * 6/7 / (1 + 6/7) = 12/13
    "broken": (BROKEN, LINE, dict(cldice=12 / 13, hd95=0.7, surface_dice=1.0, betti0_error=1.0, area_error=-1 / 7)),
    "missed": (NOTHING, LINE, dict(cldice=0.0, hd95=np.nan, surface_dice=0.0, betti0_error=1.0, area_error=-1.0)),
    "made up": (LINE, NOTHING, dict(cldice=0.0, hd95=np.nan, surface_dice=0.0, betti0_error=1.0, area_error=np.nan)),
    "nothing": (
        NOTHING,
        NOTHING,
        dict(cldice=np.nan, hd95=np.nan, surface_dice=np.nan, betti0_error=0.0, area_error=np.nan),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_hand_drawn(name):
    mask, truth, expected = CASES[name]
    assert measure_shapes(mask, truth) == pytest.approx(expected, nan_ok=True)


def test_the_surface_dice_counts_what_is_within_two_pixels():
    far = drawn("#######", ".......", ".......", ".......", "...#...")
    # of 8 border pixels of the mask 7 are 1 away, the last 3 away; all 7 of the truth are 1 away: 14 of 15
    assert measure_shapes(far, LINE)["surface_dice"] == pytest.approx(14 / 15)
    assert measure_shapes(far, LINE)["betti0_error"] == 1.0


def test_recall_by_width_tells_thin_from_wide():
    truth = np.zeros((40, 60), bool)
    truth[2, 5:55] = True
    truth[20:32, 5:55] = True
    mask = truth.copy()
    mask[2] = False
    found = recall_by_width(mask, truth)
    assert found["≤ 2 px"][0] == 0
    assert found["≤ 2 px"][1] >= 50
    assert sum(there for _, there in found.values()) == truth.sum()
    assert sum(got for got, _ in found.values()) == mask.sum()


def test_calibration_by_hand():
    truth = np.array([[True, True, False, False]])
    sure = measure_calibration(np.array([[1.0, 1.0, 0.0, 0.0]], np.float32), truth)
    assert sure == {"brier": 0.0, "ece": 0.0}
    half = measure_calibration(np.full((1, 4), 0.5, np.float32), truth)
    assert half == {"brier": 0.25, "ece": 0.0}  # half of them are: calibrated, and useless
    wrong = measure_calibration(np.array([[0.75, 0.75, 0.75, 0.75]], np.float32), truth)
    assert wrong == {"brier": pytest.approx((2 * 0.0625 + 2 * 0.5625) / 4), "ece": 0.25}
