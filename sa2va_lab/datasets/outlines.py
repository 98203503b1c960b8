"""Masks to the polygons that Sa2VA's format can hold: each in one piece, none with a hole.

A polygon is what it draws when it is filled, so a mask with a hole is cut into touching pieces that have none; nothing
is filled in. Coordinates are those of pycocotools: pixel (row, column) covers [column, column + 1) x [row, row + 1).
"""

from __future__ import annotations

import numpy as np

EIGHT = np.ones((3, 3), bool)


def trace_mask(mask: np.ndarray, *, tolerance: float = 0.0) -> list[np.ndarray]:
    """Polygons float64 (2n,) whose union pycocotools fills back into `mask`, bool (H, W).

    tolerance: how far, in pixels, a simplified outline may leave the traced one; 0 keeps every corner.
    """
    from scipy import ndimage
    from skimage import measure

    polygons = []
    labels, _ = ndimage.label(mask)
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        for piece, top, left in _cut(np.pad(labels[box] == number, 1), box[0].start - 1, box[1].start - 1):
            outline = measure.find_contours(piece.astype(np.uint8), 0.5)[0]
            if tolerance:
                simple = measure.approximate_polygon(outline, tolerance)
                outline = simple if len(simple) > 3 else outline
            polygons.append((outline[:-1, ::-1] + (left + 0.5, top + 0.5)).ravel())  # 0.5: from a centre to its edge
    return polygons


def count_holes(mask: np.ndarray) -> int:
    """How many background regions of a bool (H, W) are enclosed by it."""
    from scipy import ndimage

    return int(ndimage.label(~np.pad(mask, 1), structure=EIGHT)[1]) - 1


def _cut(piece: np.ndarray, top: int, left: int) -> list[tuple[np.ndarray, int, int]]:
    """Parts without holes, each in one piece: cut along the column of the first hole until there is none.

    piece: bool (h, w) with an empty rim, whose first row and column are top and left of the picture; so are the parts.
    """
    from scipy import ndimage

    waiting, done = [(piece, top, left)], []
    while waiting:
        piece, top, left = waiting.pop()
        background, count = ndimage.label(~piece, structure=EIGHT)
        if count == 1:
            done.append((piece, top, left))
            continue
        hole = ndimage.find_objects(background)[1]  # 1 is the outside: it begins in the corner
        column = (hole[1].start + hole[1].stop) // 2
        for start, half in ((0, piece[:, :column]), (column, piece[:, column:])):
            labels, _ = ndimage.label(half)
            for number, box in enumerate(ndimage.find_objects(labels), 1):
                part = np.pad(labels[box] == number, 1)
                waiting.append((part, top + box[0].start - 1, left + start + box[1].start - 1))
    return done
