"""Shape metrics: hand-drawn masks with every expected value written out."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis.extra import numpy as arrays
from pandas.testing import assert_frame_equal
from scipy.ndimage import gaussian_filter

from sa2va_lab.datasets import open_dataset
from sa2va_lab.evaluation.shapes import (
    SHAPE_METRICS,
    SHAPE_POLICY,
    TOLERANCE,
    measure_calibration,
    measure_extras,
    measure_shapes,
    recall_by_width,
)


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


@given(mask=arrays.arrays(bool, (6, 7)), truth=arrays.arrays(bool, (6, 7)))
@example(NOTHING, NOTHING)
@example(NOTHING, ~NOTHING)
@example(~NOTHING, NOTHING)
@example(~NOTHING, ~NOTHING)
def test_empty_masks_follow_the_policy_and_nothing_else_is_undefined(mask, truth):
    kind = tuple("some" if one.any() else "none" for one in (truth, mask))
    found = measure_shapes(mask, truth)
    assert set(found) == set(SHAPE_POLICY[kind]) == set(SHAPE_METRICS)
    for metric, said in SHAPE_POLICY[kind].items():
        if isinstance(said, str):
            assert np.isfinite(found[metric]), metric
        else:
            assert found[metric] == pytest.approx(said, nan_ok=True), metric


@pytest.mark.slow
def test_hd95_and_surface_dice_are_monais():
    """The definitions are MONAI's: border pixels by erosion, distance to the nearest border pixel of the other, the
    larger of the two 95th percentiles; for the surface Dice all border pixels of both together."""
    monai = pytest.importorskip("monai.metrics", reason="MONAI is not installed (extra test)")
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(0)
    for trial in range(12):
        first, noise = (gaussian_filter(random.normal(size=(60, 70)), 3) for _ in range(2))
        mask, truth = first > 0.05, first + 0.6 * noise > 0.05
        mask[:trial] = True  # at the border of the picture, more and more of it
        pair = [torch.tensor(one)[None, None].float() for one in (mask, truth)]
        found = measure_shapes(mask, truth)
        hd95 = monai.compute_hausdorff_distance(*pair, include_background=True, percentile=95)
        surface = monai.compute_surface_dice(*pair, class_thresholds=[TOLERANCE], include_background=True)
        assert found["hd95"] == pytest.approx(float(hd95), rel=1e-5)
        assert found["surface_dice"] == pytest.approx(float(surface), rel=1e-5)


@pytest.mark.slow
def test_several_processes_measure_the_same(drawn_run, drawn_data):
    dataset = open_dataset(drawn_data, groups=r"p(\d+)_")
    alone, together = (measure_extras(drawn_run, dataset, threshold=0.4, workers=number) for number in (1, 2))
    for one, two in zip(alone, together, strict=True):
        assert len(one)
        assert_frame_equal(one, two, check_exact=True)
