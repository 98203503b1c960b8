"""Every wrong pixel has one kind; drawn masks with the kind that each one must have."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sa2va_lab import open_dataset
from sa2va_lab.evaluation.metrics import evaluate_run
from sa2va_lab.evaluation.mistakes import KINDS, MADE_UP, MISSED, sort_mistakes, sort_pixels, summarise_mistakes

SMALL = arrays(bool, (14, 15), elements=st.booleans())


def draw(*boxes):
    """bool (512, 512) with boxes (top, bottom, left, right) filled: lengths are as the rules say them."""
    mask = np.zeros((512, 512), bool)
    for top, bottom, left, right in boxes:
        mask[top:bottom, left:right] = True
    return mask


def count(kinds):
    return {KINDS[k]: int((kinds == k).sum()) for k in np.unique(kinds[kinds >= 0])}


VESSEL = draw((100, 110, 50, 450))  # 10 px wide
BLOB = draw((300, 310, 50, 60))


@pytest.mark.parametrize(
    ("mask", "truth", "how", "expected"),
    [
        (VESSEL, VESSEL, {}, {}),
        (VESSEL & False, VESSEL, {"named": False}, {"no_seg": 4000}),
        (draw((100, 109, 50, 450)), VESSEL, {}, {"tight": 400}),
        (draw((98, 110, 50, 450)), VESSEL, {}, {"loose": 800}),
        (VESSEL | BLOB, VESSEL, {}, {"blob": 100}),
        (VESSEL | BLOB, VESSEL, {"other": draw((295, 315, 45, 65))}, {"other_thing": 100}),
        (VESSEL, draw((0, 10, 0, 1)), {"usual": 4000}, {"sparse_truth": 4000, "thin": 10}),
        (VESSEL, draw(), {"usual": 0}, {"blob": 4000}),
    ],
)  # fmt: skip
def test_each_kind(mask, truth, how, expected):
    assert count(sort_pixels(mask, truth, **how)) == expected


def test_a_gap_lies_between_found_ends_and_a_lost_end_does_not():
    broken = count(sort_pixels(draw((100, 110, 50, 200), (100, 110, 260, 450)), VESSEL))
    assert set(broken) == {"gap", "tight"}
    assert broken["gap"] > 500
    cut = count(sort_pixels(draw((100, 110, 50, 200)), VESSEL))
    assert set(cut) == {"broad", "tight"}
    assert cut["broad"] > 2300
    branch = VESSEL | draw((110, 300, 200, 203))  # 3 px wide
    assert set(count(sort_pixels(VESSEL, branch))) == {"thin", "tight"}


def test_what_goes_on_where_the_truth_ends():
    found = count(sort_pixels(draw((100, 110, 50, 480)), VESSEL))
    assert found == {"loose": 20, "beyond": 280}


def test_lengths_go_with_the_size_of_the_image():
    double = [np.kron(m, np.ones((2, 2), bool)) for m in (draw((98, 110, 50, 450)), VESSEL)]
    assert count(sort_pixels(*double)) == {"loose": 3200}


@given(mask=SMALL, truth=SMALL, other=SMALL, named=st.booleans(), usual=st.sampled_from([0.0, 1000.0]))
def test_every_wrong_pixel_has_one_kind_of_its_side(mask, truth, other, named, usual):
    kinds = sort_pixels(mask, truth, other=other, named=named, usual=usual)
    assert np.array_equal(kinds >= 0, mask != truth)
    assert np.isin(kinds[truth & ~mask], [KINDS.index(kind) for kind in MISSED]).all()
    assert np.isin(kinds[mask & ~truth], [KINDS.index(kind) for kind in MADE_UP]).all()


@pytest.fixture(scope="module")
def sorted_run(drawn_run, drawn_data):
    dataset = open_dataset(drawn_data, groups=r"p(\d+)_")
    return sort_mistakes(drawn_run, dataset), drawn_run, dataset


def test_kinds_of_a_run_add_up_to_its_errors(sorted_run):
    table, run, dataset = sorted_run
    assert len(table) == 6
    assert (table[list(MISSED)].sum(axis=1) == table["fn"]).all()
    assert (table[list(MADE_UP)].sum(axis=1) == table["fp"]).all()
    assert table.set_index("id").loc["P03-V1-F001", "kind"] == "no_seg"
    assert table.attrs["others"] is False
    assert table["dice"].equals(evaluate_run(run, dataset)["dice"])


def test_gain_is_the_dice_without_that_kind(sorted_run):
    table = sorted_run[0]
    found = summarise_mistakes(table)
    assert [row["pixels"] for row in found] == sorted((row["pixels"] for row in found), reverse=True)
    assert sum(row["share"] for row in found) == pytest.approx(1)
    gain = {row["kind"]: row["gain"] for row in found}
    # the image without [SEG] would go from 0 to 1, the five others stay as they are
    assert gain["no_seg"] == pytest.approx(1 / table["dice"].notna().sum())
    bare = summarise_mistakes(table.assign(dice=math.nan))
    assert all(row["pixels"] == 0 and math.isnan(row["gain"]) for row in bare)
