"""How every figure looks: colours by role, fonts, the stamp, and the way into a page with its alt text.

Colours are Okabe and Ito's, which stay apart for colour-blind readers; red never stands against green. A role has one
colour everywhere, and never the colour alone: fills come with contours and line styles (`overlays`).
"""

from __future__ import annotations

import io
import warnings
from contextlib import contextmanager
from functools import cache

import matplotlib
from IPython.display import Image
from matplotlib import font_manager, patheffects
from matplotlib.figure import Figure

from sa2va_lab.language import current_language, tr, use_language

TRUE_POSITIVE = "#000000"  # black, the palette's ink: what is right needs no alarm, and errors stand out against it
FALSE_POSITIVE = "#E69F00"  # orange: found, not there
FALSE_NEGATIVE = "#0072B2"  # blue: there, not found
PREDICTION = "#F0E442"  # yellow: what the model says where no truth is at hand
NEUTRAL = "#5F6B73"
ACCENT = "#0072B2"
PROBABILITY = "cividis"  # colour map for probabilities, 0 to 1

DPI = 160
WIDTH = 9.0  # inches: what a page holds

_CHINESE_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Microsoft YaHei",
    "PingFang SC",
    "SimHei",
)


@cache
def _find_chinese_font() -> str | None:
    """A font on this machine that has Chinese characters; None, with one warning that says which would help."""
    manager = font_manager.fontManager
    for fresh in (False, True):
        if fresh:  # matplotlib keeps a list of fonts from its first start; one installed since is not in it
            listed = {font.fname for font in manager.ttflist}
            for path in set(font_manager.findSystemFonts()) - listed:
                manager.addfont(path)
        known = {font.name for font in manager.ttflist}
        if found := [name for name in _CHINESE_FONTS if name in known]:
            return found[0]
    warnings.warn("no Chinese font was found, so figures are labelled in English; install for example Noto Sans CJK SC")
    return None


@contextmanager
def drawing(height: float, *, width: float = WIDTH, stamp: str | None = None):
    """An empty figure (inches) to draw on inside the `with`; it belongs to no window and needs no closing.

    Inside, matplotlib has our settings and figures a language that they can be labelled in: boxes in place of Chinese
    characters are never drawn. stamp: a notice (such as the demo model's) at its foot. Nothing outside changes.
    """
    shown = current_language() if current_language() == "en" or _find_chinese_font() else "en"
    with use_language(shown), matplotlib.rc_context(rc()):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        if stamp:
            figure.supxlabel(tr(stamp), x=0.995, ha="right", fontsize=8, color=NEUTRAL, style="italic")


def rc() -> dict:
    """matplotlib settings for `matplotlib.rc_context`, so that nothing outside our figures changes."""
    font = _find_chinese_font() if current_language() == "zh" else None
    return {
        # by name, not "sans-serif": a text keeps these names, while the generic one is looked up when it is drawn
        "font.family": [font, "DejaVu Sans"] if font else ["DejaVu Sans"],
        "axes.unicode_minus": False,
        "font.size": 10,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": NEUTRAL,
        "axes.axisbelow": True,
        "grid.color": "#E3E7EA",
        "figure.facecolor": "white",
        "savefig.facecolor": "white",
        "hatch.linewidth": 0.6,
        "legend.frameon": False,
    }


def memory_unit(count: int) -> tuple[int, str]:
    """The unit in which a figure shows up to `count` bytes: how many bytes it has, and its name."""
    return (1 << 30, "GiB") if count >= 1 << 28 else (1 << 20, "MiB")


def halo(text, width: float = 2.5):
    """Puts a white edge around a text or line, so that it can be read on any grey; returns it."""
    text.set_path_effects([patheffects.withStroke(linewidth=width, foreground="white")])
    return text


def to_png(figure) -> bytes:
    """The figure as a PNG. The same figure always gives the same bytes (no date, no version inside)."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(rc()):  # hatches look up their line width only now
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def picture(figure, alt: str, *, role: str | None = None):
    """The figure as a notebook output that carries `alt`, a sentence which states what there is to see.

    matplotlib's own inline figures have no alt text; this output has it in its metadata, where JupyterLab keeps it
    and the report's template finds it. role: what the report's index looks for when it shows the figure too, such as
    the kind of mistake that it is an example of.
    """
    if not alt.strip():
        raise ValueError("a figure needs a sentence that says what it shows")
    width = round(figure.get_size_inches()[0] * 100)
    return Image(data=to_png(figure), format="png", width=width, alt=alt, metadata={"role": role} if role else None)
