"""Polygons to masks: hand-drawn cases, areas against the analytic ones, and anything JSON may hold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sa2va_lab.datasets.geometry import LONGEST_OUTLINE, fill_polygons, rasteriser, read_polygon

SQUARE = [1, 1, 4, 1, 4, 4, 1, 4]


def draw(*polygons, size=(6, 8)):
    kept = [read_polygon(values)[0] for values in polygons]
    return fill_polygons([polygon for polygon in kept if polygon is not None], size)


def test_a_square_covers_the_pixels_between_its_corners():
    expected = np.zeros((6, 8), bool)
    expected[1:4, 1:4] = True
    assert (draw(SQUARE) == expected).all()


def test_overlapping_polygons_are_a_union_and_not_a_sum():
    shifted = [value + 1 for value in SQUARE]
    mask = draw(SQUARE, shifted)
    assert mask.dtype == bool
    assert mask.sum() == 9 + 9 - 4
    assert (mask == (draw(SQUARE) | draw(shifted))).all()


def test_no_polygon_is_an_empty_mask_of_the_images_size():
    assert draw(size=(3, 5)).shape == (3, 5)
    assert not draw(size=(3, 5)).any()


def test_what_lies_outside_the_image_is_cut_off():
    assert draw([-5, -5, 100, -5, 100, 100, -5, 100]).all()
    assert not draw([100, 100, 110, 100, 110, 110]).any()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([], "empty"),
        ([1, 2], "1 of the 3 points"),
        ([1, 2, 3, 4], "2 of the 3 points"),
        ([1, 2, 3, 4, 5, 6, 7], "odd number"),
        ([1, 2, 3, float("nan"), 5, 6], "other than finite numbers"),
        ([1, 2, 3, float("inf"), 5, 6], "other than finite numbers"),
        ([1, 2, "3", 4, 5, 6], "other than finite numbers"),
        ([1, 2, None, 4, 5, 6], "other than finite numbers"),
        ([[1, 2], [3, 4], [5, 6]], "other than finite numbers"),
        ([1, 2, [3, 4], 5, 6], "other than finite numbers"),
        ([1, 2, 10**400, 4, 5.0, 6], "other than finite numbers"),
        ([10**30, 0, 0, 0, 1, 1], "other than finite numbers|belong to no image"),
        ([1e12, 1e12, 1e12, 0, 0, 0], "belong to no image"),
        ([-5e5, 0, 5e5, 0, -5e5, 1, 5e5, 1], "belong to no image"),
        ("M 0 0", "not a list"),
        (None, "not a list"),
        ({"size": [5, 5], "counts": "abc"}, "not a list"),
    ],
)
def test_an_unusable_polygon_is_named(values, said):
    import re

    polygon, problem = read_polygon(values)
    assert polygon is None
    assert re.search(said, problem.text), problem


def test_a_long_but_possible_outline_is_kept():
    zigzag = [coordinate for x in range(400) for coordinate in (x, 2000 * (x % 2))]
    polygon, problem = read_polygon(zigzag)
    assert problem is None
    assert 400 * 2000 < LONGEST_OUTLINE
    assert polygon.dtype == np.float64
    assert polygon.shape == (800,)


def test_the_rasteriser_has_a_name_and_a_version():
    name, number = rasteriser().split()
    assert name == "pycocotools"
    assert number[0].isdigit()


inside = st.floats(2, 60, allow_nan=False)


@settings(max_examples=100, deadline=None)
@given(st.lists(inside, min_size=6, max_size=6))
def test_the_area_of_a_triangle_is_the_analytic_one_within_its_boundary(corners):
    x, y = corners[0::2], corners[1::2]
    area = abs((x[1] - x[0]) * (y[2] - y[0]) - (x[2] - x[0]) * (y[1] - y[0])) / 2
    boundary = sum(abs(x[i] - x[i - 1]) + abs(y[i] - y[i - 1]) for i in range(3))
    assert abs(draw(corners, size=(64, 64)).sum() - area) <= boundary / 2 + 3


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(1, 30), min_size=3, max_size=40), st.floats(30, 34), st.floats(30, 34))
def test_the_area_of_a_star_is_the_analytic_one_within_its_boundary(radii, x, y):
    angles = np.linspace(0, 2 * np.pi, len(radii), endpoint=False)
    corners = np.stack([x + radii * np.cos(angles), y + radii * np.sin(angles)], 1)  # seen from (x, y): never crosses
    after = np.roll(corners, -1, axis=0)
    area = abs((corners[:, 0] * after[:, 1] - corners[:, 1] * after[:, 0]).sum()) / 2
    boundary = np.abs(after - corners).sum()
    assert abs(draw(corners.ravel().tolist(), size=(70, 70)).sum() - area) <= boundary / 2 + 3


@settings(max_examples=100, deadline=None)
@given(inside, inside, inside, inside)
def test_the_area_of_a_rectangle_is_the_analytic_one_within_its_boundary(left, top, right, bottom):
    mask = draw([left, top, right, top, right, bottom, left, bottom], size=(64, 64))
    width, height = abs(right - left), abs(bottom - top)
    assert abs(mask.sum() - width * height) <= width + height + 2


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(inside, min_size=6, max_size=12), min_size=1, max_size=4))
def test_more_polygons_never_take_pixels_away(polygons):
    whole = draw(*polygons, size=(64, 64))
    for polygon in polygons:
        assert not (draw(polygon, size=(64, 64)) & ~whole).any()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(width=64), max_size=30) | st.lists(st.integers() | st.text(max_size=2) | st.none()))
def test_any_list_is_either_rasterised_or_named(values):
    polygon, problem = read_polygon(values)
    assert (polygon is None) == (problem is not None)
    if polygon is not None:
        assert fill_polygons([polygon], (16, 16)).shape == (16, 16)
