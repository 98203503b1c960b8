import io
import warnings

import numpy as np
import pytest
from PIL import Image

from sa2va_lab.language import current_language, use_language
from sa2va_lab.views import style


def _luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def blank_figure(width, height, *, stamp=None):
    with style.drawing(height, width=width, stamp=stamp) as figure:
        pass
    return figure


def test_roles_have_okabe_and_itos_colours():
    assert (style.FALSE_POSITIVE, style.FALSE_NEGATIVE) == ("#E69F00", "#0072B2")
    palette = {"#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"}
    roles = [style.TRUE_POSITIVE, style.FALSE_POSITIVE, style.FALSE_NEGATIVE, style.PREDICTION]
    assert set(roles) <= palette
    assert len(set(roles)) == len(roles)


def test_right_and_wrong_differ_in_lightness_too():
    """Whoever sees no hue, or prints in grey, still tells the three apart."""
    light = sorted(_luminance(c) for c in (style.TRUE_POSITIVE, style.FALSE_NEGATIVE, style.FALSE_POSITIVE))
    assert (light[1] + 0.05) / (light[0] + 0.05) > 3
    assert (light[2] + 0.05) / (light[1] + 0.05) > 2


def test_picture_carries_its_sentence_and_not_without():
    figure = blank_figure(2, 1)
    image = style.picture(figure, "Dice is 0.5.")
    data, metadata = image._repr_mimebundle_()
    assert metadata["image/png"]["alt"] == "Dice is 0.5."
    assert metadata["image/png"]["width"] == 200
    with pytest.raises(ValueError, match="a sentence"):
        style.picture(figure, "  ")


def test_same_figure_same_bytes():
    def draw():
        figure = blank_figure(2, 1)
        figure.subplots().plot([0, 1])
        return style.to_png(figure)

    assert draw() == draw()


def test_stamp_is_drawn_only_when_there_is_one():
    def ink(text):
        pixels = np.asarray(Image.open(io.BytesIO(style.to_png(blank_figure(4, 1, stamp=text)))).convert("L"))
        return int((pixels < 200).sum())

    assert ink(None) == ink("") == 0
    assert ink("demo model") > 100


def test_a_role_rides_along_for_the_index():
    figure = blank_figure(1, 1)
    _, about = style.picture(figure, "A finding.", role="border_shift")._repr_mimebundle_()
    assert (about["image/png"]["role"], about["image/png"]["alt"]) == ("border_shift", "A finding.")
    assert "role" not in style.picture(figure, "A finding.")._repr_mimebundle_()[1]["image/png"]


def test_halo_is_a_white_edge():
    axes = blank_figure(1, 1).subplots()
    [effect] = style.halo(axes.text(0, 0, "x")).get_path_effects()
    assert effect._gc["foreground"] == "white"


@pytest.fixture
def look_for_fonts(monkeypatch):
    """Gives the list of Chinese fonts to look for; what was found before is forgotten, and so is this afterwards."""
    style._find_chinese_font.cache_clear()
    yield lambda *names: monkeypatch.setattr(style, "_CHINESE_FONTS", names)
    style._find_chinese_font.cache_clear()


def test_chinese_without_a_font_warns_once_and_speaks_english(look_for_fonts):
    look_for_fonts("No Such Font")
    with use_language("zh"):
        with pytest.warns(UserWarning, match="no Chinese font was found"), style.drawing(1):
            assert current_language() == "en"
        with warnings.catch_warnings(), style.drawing(1):
            warnings.simplefilter("error")
            assert current_language() == "en"
        assert current_language() == "zh"


def test_chinese_with_a_font_uses_it(look_for_fonts):
    look_for_fonts("DejaVu Serif")  # stands for any font that is installed
    with use_language("zh"), style.drawing(1):
        assert current_language() == "zh"
        assert style.rc()["font.family"][0] == "DejaVu Serif"
