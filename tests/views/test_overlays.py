import math
import os
import warnings

import numpy as np
import pytest
from PIL import Image

from sa2va_lab.errors import LabError
from sa2va_lab.evaluation.metrics import Pair
from sa2va_lab.language import use_language
from sa2va_lab.views import overlays, style

# drawn by hand: "x" is 1
MASK = np.array([[c == "x" for c in row] for row in ("......", ".xxx..", ".xxx..", "......")])
TRUTH = np.array([[c == "x" for c in row] for row in ("......", "..xxx.", "..xxx.", "......")])


def blank_figure(width, height):
    with style.drawing(height, width=width) as figure:
        return figure


def _case(*, mask=MASK, truth=TRUTH, rank="worst", dice=2 / 3):
    title = overlays.name_case("P01-V1-F001", "P01", rank=rank, dice=dice)
    return title, np.full((4, 6), 90, np.uint8), Pair(mask * np.float32(0.9), truth, None)


def test_errors_are_told_apart():
    errors = overlays.split_errors(MASK, TRUTH)
    assert np.argwhere(errors["true_positive"]).tolist() == [[1, 2], [1, 3], [2, 2], [2, 3]]
    assert np.argwhere(errors["false_positive"]).tolist() == [[1, 1], [2, 1]]
    assert np.argwhere(errors["false_negative"]).tolist() == [[1, 4], [2, 4]]


def test_each_kind_is_drawn_in_its_colour_line_and_hatch():
    axes = blank_figure(3, 2).subplots()
    overlays.draw_comparison(np.full((4, 6), 255, np.uint8), Pair(MASK, TRUTH, None), 0.5, ax=axes)
    [drawn] = axes.images
    pixels = np.asarray(drawn.get_array())
    white, black = pixels[0, 0], pixels[1, 2]
    assert np.allclose(white, 1)
    assert np.allclose(black, 0.25)  # 75 % black over white
    orange, blue = pixels[1, 1], pixels[1, 4]
    assert orange[0] > orange[2] + 0.3
    assert blue[2] > blue[0] + 0.3
    lines = {tuple(np.round(c.get_edgecolor()[0][:3], 2)) for c in axes.collections if len(c.get_edgecolor())}
    assert len(lines) == 3
    assert sum(bool(getattr(c, "hatches", [None])[0]) for c in axes.collections) == 2
    assert axes.get_xlim() == (-0.5, 5.5)
    assert axes.get_ylim() == (3.5, -0.5)


def test_what_is_ignored_is_hatched_and_in_the_legend():
    axes = blank_figure(3, 2).subplots()
    ignore = np.zeros(MASK.shape, bool)
    ignore[:, 4:] = True
    overlays.draw_comparison(np.full((4, 6), 255, np.uint8), Pair(MASK, TRUTH & ~ignore, ignore), 0.5, ax=axes)
    assert {getattr(c, "hatches", [None])[0] for c in axes.collections} == {None, "////", "xxxx"}
    for ignored, last in ((ignore, "ignored: in no count"), (None, "false negative")):
        figure = blank_figure(3, 2)
        overlays.add_legend(figure, None, ignored)
        assert figure.legends[0].get_texts()[-1].get_text() == last
    layer = overlays.paint_errors(np.zeros((16, 16), bool), None, ignore=np.eye(16, dtype=bool), scale=2)
    assert (layer == overlays.HATCH).any()
    assert set(np.unique(layer)) == {overlays.VEIL, overlays.HATCH}


def test_without_truth_only_the_prediction_is_drawn():
    axes = blank_figure(3, 2).subplots()
    overlays.draw_comparison(np.full((4, 6), 255, np.uint8), Pair(MASK, None, None), 0.5, ax=axes)
    pixels = np.asarray(axes.images[0].get_array())
    assert (pixels.min(axis=2) < 1).sum() == MASK.sum()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {},
            "Worst: P01-V1-F001, patient P01, Dice 0.667: 67% of the annotated pixels are found, "
            "and 33% of the predicted pixels are not in the annotation.",
        ),
        (
            {"truth": np.zeros_like(MASK), "dice": 0.0},
            "Worst: P01-V1-F001, patient P01, Dice 0.000: the annotation is empty and 6 pixels are predicted.",
        ),
        (
            {"mask": np.zeros_like(MASK), "rank": None, "dice": math.nan},
            "P01-V1-F001, patient P01: nothing is predicted, and all 6 annotated pixels are missed.",
        ),
        (
            {"truth": None, "rank": None, "dice": math.nan},
            "P01-V1-F001, patient P01: the mask covers 25.0% of the image; there is no annotation to compare it with.",
        ),
    ],
)
def test_alt_text_states_the_finding(changes, sentence):
    title, _, pair = _case(**changes)
    assert overlays.describe_case(title, pair.mask(0.5), pair.truth) == sentence


@pytest.mark.parametrize("empty", ["mask", "truth", "both", "neither"])
def test_figure_of_any_case(empty):
    blank = np.zeros_like(MASK)
    case = _case(
        mask=blank if empty in ("mask", "both") else MASK, truth=blank if empty in ("truth", "both") else TRUTH
    )
    for one, legends in ((case, 1), (_case(truth=None), 0)):
        figure, alt = overlays.comparison_figure(one, threshold=0.5, stamp="a notice")
        assert len(figure.axes) == 4
        assert len(figure.legends) == legends
        assert "P01-V1-F001" in alt
        assert style.to_png(figure).startswith(b"\x89PNG")


def test_no_boxes_in_place_of_chinese_characters():
    """Whether or not this machine has a Chinese font, every character that is drawn has a glyph."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Glyph")
        warnings.filterwarnings("ignore", message="no Chinese font")
        with use_language("zh"):
            figure, alt = overlays.comparison_figure(_case(), threshold=0.5)
        style.to_png(figure)
    assert alt.startswith("最差：P01-V1-F001")


@pytest.mark.parametrize("mode", ["path", "pil", "array"])
def test_saved_overlay_has_the_images_size_and_shows_the_mask(tmp_path, mode):
    grey = np.full((40, 60), 100, np.uint8)
    mask = np.zeros((40, 60), bool)
    mask[10:30, 20:40] = True
    Image.fromarray(grey).save(tmp_path / "in.png")
    image = {"path": tmp_path / "in.png", "pil": Image.fromarray(grey), "array": grey}[mode]
    path = overlays.save_overlay(tmp_path / "out.png", image, mask)
    pixels = np.asarray(Image.open(path))
    assert pixels.shape == (40, 60, 3)
    assert pixels[0, 0].tolist() == [100, 100, 100]  # outside: untouched
    assert pixels[20, 30].tolist() == [156, 151, 86]  # inside: 40 % of #F0E442 over 60 % of the grey
    assert pixels[10, 30].tolist() == [0xF0, 0xE4, 0x42]  # the bright edge, and the dark one around it
    assert pixels[9, 30].tolist() == [0, 0, 0]
    assert sorted(os.listdir(tmp_path)) == ["in.png", "out.png"]


def test_saved_overlay_of_an_empty_mask_is_the_image(tmp_path):
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    path = overlays.save_overlay(tmp_path / "out.png", grey, np.zeros((8, 8), bool))
    assert np.array_equal(np.asarray(Image.open(path))[..., 0], grey)


def test_overlay_of_another_size_is_refused_and_nothing_written(tmp_path):
    with pytest.raises(LabError, match="must be of one size"):
        overlays.save_overlay(tmp_path / "out.png", np.zeros((8, 8), np.uint8), MASK)
    assert not list(tmp_path.iterdir())
