"""What is odd about an outline: it crosses itself, leaves the image, covers nothing, or lies over another one.

Polygons are float64 (2n,) in pixels, as `polygons.read_polygon` returns them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pycocotools import mask as coco

from sa2va_lab.datasets.defects import Defect
from sa2va_lab.datasets.polygons import fill_polygons

OUTSIDE = 1.0  # pixels that an outline may leave the image by: annotators click on the border
OVERLAP = 0.002  # share of an object that may be covered twice: outlines that touch share a pixel here and there


def examine(
    polygons: Sequence[np.ndarray], size: tuple[int, int] | None, seen: set[bytes]
) -> tuple[list[np.ndarray], list[Defect]]:
    """The outlines of one object that are worth keeping, and what is odd about them.

    size: (height, width) of the image, None where nobody knows. seen: the outlines of the image so far; grows.
    """
    kept, odd = [], []
    for place, polygon in enumerate(polygons, 1):
        if polygon.tobytes() in seen:
            odd.append(Defect("duplicate_annotation", f"polygon {place} is there already"))
            continue
        seen.add(polygon.tobytes())
        if covers_nothing(polygon):
            odd.append(Defect("zero_area", f"polygon {place} covers no pixel"))
            continue
        kept.append(polygon)
        if crosses_itself(polygon):
            odd.append(Defect("self_intersection", f"polygon {place} crosses itself"))
        if size and reach_outside(polygon, size) > OUTSIDE:
            away = reach_outside(polygon, size)
            odd.append(Defect("out_of_bounds", f"polygon {place} leaves the image by {away:.0f} pixels"))
    twice = count_twice(kept, size) if size else 0
    if twice:
        text = f"{twice} pixels are covered by more than one of its {len(kept)} polygons"
        odd.append(Defect("overlap", text))
    return kept, odd


def crosses_itself(polygon: np.ndarray, *, most: int = 1500) -> bool:
    """Whether two sides of a polygon (2n,) properly cross; sides that only touch do not.

    An outline of more than `most` points is thinned first, which may hide a very small crossing.
    """
    points = polygon.reshape(-1, 2)
    points = points[:: -(-len(points) // most)]
    after = np.roll(points, -1, axis=0)
    step = after - points
    # side[i, j]: on which side of the line through edge i the start of edge j lies
    side = np.sign(
        step[:, None, 0] * (points[None, :, 1] - points[:, None, 1])
        - step[:, None, 1] * (points[None, :, 0] - points[:, None, 0])
    )
    apart = side * np.roll(side, -1, axis=1) < 0
    return bool((apart & apart.T).any())


def reach_outside(polygon: np.ndarray, size: tuple[int, int]) -> float:
    """How far an outline leaves an image of (height, width), in pixels; 0 where it does not."""
    x, y = polygon[0::2], polygon[1::2]
    return float(max(-x.min(), -y.min(), x.max() - size[1], y.max() - size[0], 0))


def covers_nothing(polygon: np.ndarray) -> bool:
    """Whether an outline covers not one pixel, wherever the image ends."""
    x, y = polygon[0::2], polygon[1::2]
    corner = np.floor([x.min(), y.min()])
    sides = np.ceil([np.ptp(y), np.ptp(x)]).astype(int) + 2
    if sides.prod() > 2**24:  # so wide and covering nothing: drawn on its own picture it would be seen
        return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) < 1
    return not fill_polygons([polygon - np.tile(corner, len(x))], (int(sides[0]), int(sides[1]))).any()


def count_twice(polygons: Sequence[np.ndarray], size: tuple[int, int]) -> int:
    """How often pixels of an image of (height, width) are covered again by another of the polygons; 0 for a few."""
    if len(polygons) < 2:
        return 0
    drawn = coco.frPyObjects(list(polygons), *size)
    union = int(coco.area(coco.merge(drawn)))
    twice = sum(int(coco.area(each)) for each in drawn) - union  # one by one: of 256 and more its count overflows
    return twice if twice > max(OVERLAP * union, 2) else 0
