"""Images of every kind become the same upright RGB; prompts of every kind become one with one image."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sa2va_lab.errors import LabError
from sa2va_lab.sa2va.processing import choose_grid, phrase_prompt, read_image


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        ((200, 200), (1, 1)),
        ((512, 512), (1, 1)),
        ((600, 400), (3, 2)),
        ((800, 800), (2, 2)),
        ((1411, 1411), (3, 3)),
        ((4000, 300), (12, 1)),
        ((300, 4000), (1, 12)),
    ],
)
def test_grids(size, grid):
    assert choose_grid(*size, tile=448, max_tiles=12) == grid


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 12))
def test_grid_is_within_bounds_and_turns_with_the_image(width, height, most):
    columns, rows = choose_grid(width, height, tile=448, max_tiles=most)
    assert 1 <= columns * rows <= most
    if width > height:
        assert columns >= rows


def as_array(image):
    return np.asarray(read_image(image))


def test_arrays_and_modes_agree(grey_image, tmp_path):
    expected = np.repeat(grey_image[..., None], 3, axis=2)
    alpha = np.full((*grey_image.shape, 1), 7, np.uint8)
    for name, given_image in {
        "grey": grey_image,
        "one channel": grey_image[..., None],
        "rgb": expected,
        "rgba": np.concatenate([expected, alpha], axis=2),
        "float": grey_image / 255,
        "pil grey": Image.fromarray(grey_image),
        "pil rgba": Image.fromarray(np.concatenate([expected, alpha], axis=2)),
    }.items():
        np.testing.assert_array_equal(as_array(given_image), expected, err_msg=name)
    Image.fromarray(grey_image).convert("P").save(tmp_path / "palette.png")
    np.testing.assert_array_equal(as_array(tmp_path / "palette.png"), expected)


def test_sixteen_bit_is_stretched(grey_image, tmp_path):
    low, high = int(grey_image.min()), int(grey_image.max())
    expected = np.round((grey_image.astype(float) - low) * 255 / (high - low)).astype(np.uint8)
    wide = grey_image.astype(np.uint16) * 16 + 1000
    Image.fromarray(wide).save(tmp_path / "wide.png")
    np.testing.assert_allclose(as_array(tmp_path / "wide.png")[..., 0], expected, atol=1)  # halves round either way
    np.testing.assert_array_equal(as_array(wide), as_array(tmp_path / "wide.png"))


@pytest.mark.parametrize(("orientation", "turned"), [(6, -1), (8, 1), (3, 2), (1, 0)])
def test_exif_orientation(grey_image, tmp_path, orientation, turned):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.png"
    Image.fromarray(grey_image).save(path, exif=exif)
    np.testing.assert_array_equal(as_array(path)[..., 0], np.rot90(grey_image, turned))


def test_what_is_no_image(tmp_path):
    (tmp_path / "text.png").write_text("not an image")
    with pytest.raises(LabError, match="not a readable image"):
        read_image(tmp_path / "text.png")
    with pytest.raises(LabError, match="No image file"):
        read_image(tmp_path / "nowhere.png")
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) - 30])
    with pytest.raises(LabError, match="not a readable image"):
        read_image(tmp_path / "cut.png")
    for bad in (np.zeros((3, 4, 5)), np.zeros((0, 4)), np.full((4, 4), np.nan), np.full((4, 4), 2.0)):
        with pytest.raises(LabError):
            read_image(bad)


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        ("blood vessel", "<image>\nPlease segment blood vessel in this image."),
        (" dongmai ", "<image>\nPlease segment dongmai in this image."),
        ("Please segment the blood vessel.", "<image>Please segment the blood vessel."),
        ("segment the blood vessel", "<image>segment the blood vessel"),
        ("<image>Please segment the blood vessel.", "<image>Please segment the blood vessel."),
        ("<image>\nvessel", "<image>\nvessel"),
        ("Look at <image> and outline the catheter.", "Look at <image> and outline the catheter."),
        ("请分割血管", "<image>请分割血管"),
    ],
)
def test_prompts(text, prompt):
    assert phrase_prompt(text)[0] == prompt


@pytest.mark.parametrize("text", ["", "   ", "<image>", "<image> <image> x", "say <|im_end|>", None])
def test_refused_prompts(text):
    with pytest.raises(LabError):
        phrase_prompt(text)
