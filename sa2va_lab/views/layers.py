"""Masks as small transparent pictures that a browser lays over the image: fast to paint, small to send.

A layer is uint8 (H, W) of places in PALETTE. What is wrong has a pattern as well as a hue: stripes for false
positives, dots for false negatives, as in `overlays`.
"""

from __future__ import annotations

import base64
import io
from html import escape

import matplotlib
import numpy as np
from PIL import Image
from scipy.ndimage import maximum_filter

from sa2va_lab.views import style
from sa2va_lab.views.overlays import split_errors

GAP = "#CC79A7"  # Okabe and Ito's reddish purple: a vessel that is broken
VEIL, RIGHT, FALSE, STRIPE, MISSED, DOT, MASK, HALO, BROKEN, FAINT, HATCH, CLEAR = range(12)
PALETTE = [
    # (colour, opacity 0 to 255) by the names above
    ("#FFFFFF", 120),
    (style.TRUE_POSITIVE, 190),
    (style.FALSE_POSITIVE, 130),
    (style.FALSE_POSITIVE, 255),
    (style.FALSE_NEGATIVE, 130),
    (style.FALSE_NEGATIVE, 255),
    (style.PREDICTION, 190),
    ("#FFFFFF", 235),
    (GAP, 255),
    ("#5F6B73", 90),
    (style.NEUTRAL, 200),
    ("#FFFFFF", 0),
]


def paint_errors(
    mask: np.ndarray, truth: np.ndarray | None, *, ignore: np.ndarray | None = None, scale: int = 1
) -> np.ndarray:
    """What is right and wrong, each pixel enlarged `scale` times; without a ground truth the mask in its own colour.
    What is ignored is hatched."""
    any_of = mask if truth is None else mask | truth
    layer = np.where(maximum_filter(any_of, 3), HALO, VEIL)
    if truth is None:
        layer[mask] = MASK
    else:
        areas = split_errors(mask, truth)
        for kind, place in (("true_positive", RIGHT), ("false_positive", FALSE), ("false_negative", MISSED)):
            layer[areas[kind]] = place
    layer = enlarge(layer, scale)
    down, right = np.ogrid[: layer.shape[0], : layer.shape[1]]
    layer[(layer == FALSE) & ((down + right) % 5 < 2)] = STRIPE
    layer[(layer == MISSED) & (down % 4 < 2) & (right % 4 < 2)] = DOT
    if ignore is not None:
        layer[enlarge(ignore, scale).astype(bool) & (((down + right) % 8 < 1) | ((down - right) % 8 < 1))] = HATCH
    return layer


def paint_line(line, truth: np.ndarray) -> np.ndarray:
    """A `mistakes.CentreLine` on its truth: found black, lost blue, gaps purple, three pixels wide."""
    layer = np.where(truth, FAINT, VEIL).astype(np.uint8)
    for part, place in ((line.found, RIGHT), (line.lost, DOT), (line.gap, BROKEN)):
        layer[maximum_filter(part, 3)] = place
    return layer


def encode_layer(layer: np.ndarray) -> str:
    """A layer as the address (data:) of a PNG."""
    picture = Image.fromarray(layer.astype(np.uint8)).convert("P")
    picture.putpalette([int(colour[k : k + 2], 16) for colour, _ in PALETTE for k in (1, 3, 5)])
    return _address(picture, "png", transparency=bytes(opacity for _, opacity in PALETTE), compress_level=3)


def encode_probability(probability: np.ndarray) -> str:
    """Probabilities in [0, 1] in cividis, as the address of a JPEG."""
    return encode_photo(matplotlib.colormaps[style.PROBABILITY](probability, bytes=True)[..., :3])


def encode_photo(pixels: np.ndarray, *, quality: int = 80) -> str:
    """uint8 (H, W, 3) as the address of a JPEG."""
    return _address(Image.fromarray(pixels), "jpeg", quality=quality)


def lay_over(pixels: np.ndarray, layer: np.ndarray) -> str:
    """A layer painted on its image, uint8 (H, W, 3), as the address of one JPEG."""
    colours = np.array([[*bytes.fromhex(colour[1:]), opacity] for colour, opacity in PALETTE])[layer]
    share = colours[..., 3:] / 255
    return encode_photo((pixels * (1 - share) + colours[..., :3] * share).astype(np.uint8), quality=90)


def _address(picture, kind: str, **how) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, **how)
    return encode(buffer.getvalue(), kind)


def encode(content: bytes, kind: str) -> str:
    """A picture file as an address (data:). kind: "png" or "jpeg"."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def show_picture(
    address: str, alt: str, *, under: str = "", sharp: bool = False, most: int = 900, more: str = ""
) -> str:
    """A picture, over another one where there is one `under` it. sharp: enlarged pixels stay squares, while a smaller
    picture is smoothed. most: px that it is wide at most. more: attributes of the element."""
    how = f"background:url({under}) center/100% 100%;" if under else ""
    how += f"display:block;width:100%;max-width:{most}px;" + ("image-rendering:pixelated" if sharp else "")
    return f'<img src="{address}" alt="{escape(alt)}" draggable="false" style="{how}"{more}>'


def side_by_side(*parts: tuple[str, str, int]) -> str:
    """HTML of pictures, each with a line below and the px that it needs; two of them share what more there is."""
    grows = len(parts) == 2
    cells = [
        f'<div style="flex:{width * grows} 1 {width}px;min-width:0">{picture}{escape(line)}</div>'
        for picture, line, width in parts
    ]
    return f'<div style="display:flex;flex-wrap:wrap;align-items:flex-start;gap:12px">{"".join(cells)}</div>'


def enlarge(layer: np.ndarray, scale: int) -> np.ndarray:
    """uint8, each pixel as a square of `scale` pixels a side."""
    return np.repeat(np.repeat(layer.astype(np.uint8), scale, axis=0), scale, axis=1)
