"""Polygons to masks, by one rasteriser.

pycocotools is the rasteriser that Sa2VA trains with. Two rasterisers differ by up to a pixel along every outline,
which on vessels two pixels wide is a quarter of the Dice; so there is one here, and every report names it.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

import numpy as np

# pycocotools walks an outline in fifths of a pixel with 32-bit integers: past these bounds it overflows or takes
# gigabytes. A real outline is thousands of times shorter.
FARTHEST_COORDINATE = 1e6
LONGEST_OUTLINE = 1e6


def rasteriser() -> str:
    """Name and version of what turns polygons into masks."""
    return f"pycocotools {version('pycocotools')}"


def read_polygon(values: object) -> tuple[np.ndarray | None, str | None]:
    """One polygon [x0, y0, x1, y1, ...] in pixels as float64 (2n,), or None with what is wrong with it."""
    if not isinstance(values, (list, tuple, np.ndarray)):
        return None, "is not a list of coordinates"
    try:
        polygon = np.asarray(values)
    except (ValueError, OverflowError, RecursionError):
        return None, "mixes numbers and lists, or holds an impossible number"
    if polygon.size == 0:
        return None, "is empty"
    if polygon.ndim != 1 or polygon.dtype.kind not in "iuf":
        return None, "holds something other than numbers"
    if len(polygon) % 2:
        return None, f"has an odd number of coordinates ({len(polygon)})"
    if len(polygon) < 6:
        return None, f"has {len(polygon) // 2} of the 3 points it needs"
    polygon = polygon.astype(np.float64)
    farthest = np.abs(polygon).max()
    if not np.isfinite(farthest):
        return None, "has a coordinate that is not a finite number"
    if farthest > FARTHEST_COORDINATE or _outline_length(polygon, farthest) > LONGEST_OUTLINE:
        return None, "has coordinates that belong to no image"
    return polygon, None


def fill_polygons(polygons: Sequence[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """The union of polygons as bool (H, W): a pixel that two of them cover is covered once.

    polygons: as `read_polygon` returns them; none gives an empty mask. What lies outside the image is cut off.
    size: (height, width).
    """
    if not len(polygons):
        return np.zeros(size, bool)
    from pycocotools import mask as coco

    runs = coco.merge(coco.frPyObjects(list(polygons), *size))
    return coco.decode(runs).astype(bool)


def _outline_length(polygon: np.ndarray, farthest: float) -> float:
    """Length in steps of a pixel, diagonals counting one; an upper bound where that is short enough."""
    bound = len(polygon) * farthest  # points times the longest step there can be, 2 * farthest
    if bound <= LONGEST_OUTLINE:
        return bound
    points = polygon.reshape(-1, 2)
    return float(np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum())
