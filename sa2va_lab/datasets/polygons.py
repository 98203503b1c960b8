"""Outlines to masks, by one rasteriser; and what another one would have made of them.

pycocotools is the rasteriser that Sa2VA trains with. Two rasterisers differ by up to a pixel along every outline,
which on vessels two pixels wide is a quarter of the Dice; so there is one here, and every report names it.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

import numpy as np
from PIL import Image, ImageDraw
from pycocotools import mask as coco
from skimage import draw

from sa2va_lab.datasets.defects import Defect

# pycocotools walks an outline in fifths of a pixel with 32-bit integers: past these bounds it overflows or takes
# gigabytes. A real outline is thousands of times shorter.
FARTHEST_COORDINATE = 1e6
LONGEST_OUTLINE = 1e6
LARGEST_IMAGE = 2**28  # pixels; pycocotools counts them in 32 bits, and a mask of this size takes 256 MiB

RASTERISERS = {
    "pycocotools": "pixels whose centre lies inside; what Sa2VA trains with",
    "skimage": "pixels whose centre lies inside, half a pixel off: (0, 0) is the centre of its first pixel",
    "skimage, shifted": "skimage with that half pixel taken back",
    "like cv2.fillPoly": "corners cut off to whole pixels, and every pixel that the outline touches",
}


def rasteriser() -> str:
    """Name and version of what turns polygons into masks."""
    return f"pycocotools {version('pycocotools')}"


def read_polygon(values: object) -> tuple[np.ndarray | None, Defect | None]:
    """One polygon [x0, y0, x1, y1, ...] in pixels as float64 (2n,), or None with what is wrong with it."""
    if not isinstance(values, (list, tuple, np.ndarray)):
        return None, Defect("wrong_type", "is not a list of coordinates")
    try:
        polygon = np.asarray(values)
    except (ValueError, OverflowError, RecursionError):
        return None, Defect("bad_coordinates", "mixes numbers and lists, or holds an impossible number")
    if polygon.size == 0:
        return None, Defect("few_points", "is empty")
    if polygon.ndim == 1 and polygon.dtype == object and None in values:  # NaN, for which JSON has no word
        said = "has a coordinate that is not a finite number, or holds something other than numbers"
        return None, Defect("bad_coordinates", said)
    if polygon.ndim != 1 or polygon.dtype.kind not in "iuf":
        return None, Defect("bad_coordinates", "holds something other than numbers")
    if len(polygon) % 2:
        return None, Defect("bad_coordinates", f"has an odd number of coordinates ({len(polygon)})")
    if len(polygon) < 6:
        return None, Defect("few_points", f"has {len(polygon) // 2} of the 3 points it needs")
    polygon = polygon.astype(np.float64)
    farthest = np.abs(polygon).max()
    if not np.isfinite(farthest):
        return None, Defect("bad_coordinates", "has a coordinate that is not a finite number")
    if farthest > FARTHEST_COORDINATE or _outline_length(polygon, farthest) > LONGEST_OUTLINE:
        return None, Defect("bad_coordinates", "has coordinates that belong to no image")
    return polygon, None


def read_runs(value: object, size: tuple[int, int]) -> tuple[dict | None, Defect | None]:
    """A COCO mask in run-length form ({"size": [H, W], "counts": a list or a string}), compressed; or what is wrong.

    size: (height, width) that its image is said to have.
    """
    if not isinstance(value, dict) or "counts" not in value:
        return None, Defect("wrong_type", "is neither a list of polygons nor run lengths")
    stated, counts = value.get("size"), value["counts"]
    if stated != list(size):
        return None, Defect("wrong_type", f"has run lengths for the size {stated} of an image of {list(size)}")
    if size[0] * size[1] > LARGEST_IMAGE:
        return None, Defect("wrong_type", f"belongs to an image of {size[1]}x{size[0]}, which cannot be")
    if isinstance(counts, str):
        counts = _read_counts(counts)
    whole = isinstance(counts, list) and all(type(count) is int and count >= 0 for count in counts)
    if not whole or sum(counts) != size[0] * size[1]:
        return None, Defect("wrong_type", "has run lengths that do not add up to its image")
    return coco.frPyObjects({"size": list(size), "counts": counts}, *size), None


def fill_polygons(polygons: Sequence[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """The union of polygons as bool (H, W): a pixel that two of them cover is covered once.

    polygons: as `read_polygon` returns them; none gives an empty mask. What lies outside the image is cut off.
    size: (height, width).
    """
    if not len(polygons):
        return np.zeros(size, bool)
    runs = coco.merge(coco.frPyObjects(list(polygons), *size))
    return coco.decode(runs).astype(bool)


def dice_of(one: np.ndarray, other: np.ndarray) -> float:
    """Dice of two masks; 0 where both are empty."""
    return float(2 * np.count_nonzero(one & other) / max(np.count_nonzero(one) + np.count_nonzero(other), 1))


def fill_otherwise(polygons: Sequence[np.ndarray], size: tuple[int, int], *, by: str) -> np.ndarray:
    """The same as bool (H, W) by one of RASTERISERS, to see what the choice is worth; no metric is made of it."""
    if by == "pycocotools":
        return fill_polygons(polygons, size)
    if by == "like cv2.fillPoly":
        picture = Image.new("1", size[::-1])
        for polygon in polygons:
            corners = [tuple(corner) for corner in np.floor(polygon).astype(int).reshape(-1, 2).tolist()]
            ImageDraw.Draw(picture).polygon(corners, fill=1, outline=1)
        return np.asarray(picture)
    shift = 0.5 if by == "skimage, shifted" else 0.0
    mask = np.zeros(size, bool)
    for polygon in polygons:
        mask[draw.polygon(polygon[1::2] - shift, polygon[0::2] - shift, size)] = True
    return mask


def _read_counts(text: str) -> list[int] | None:
    """The run lengths of a compressed COCO string, None where it is not one; pycocotools itself trusts any string."""
    counts, value, shift = [], 0, 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 30:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            counts.append(value + counts[-2] if len(counts) > 2 else value)
            value, shift = 0, 0
    return None if shift else counts


def _outline_length(polygon: np.ndarray, farthest: float) -> float:
    """Length in steps of a pixel, diagonals counting one; an upper bound where that is short enough."""
    bound = len(polygon) * farthest  # points times the longest step there can be, 2 * farthest
    if bound <= LONGEST_OUTLINE:
        return bound
    points = polygon.reshape(-1, 2)
    return float(np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum())
