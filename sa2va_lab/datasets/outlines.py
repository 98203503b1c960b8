"""Masks to the polygons that Sa2VA's format can hold: each in one piece, none with a hole.

A polygon is what it draws when it is filled, so a mask with a hole is cut into touching pieces that have none; nothing
is filled in. Coordinates are those of pycocotools: pixel (row, column) covers [column, column + 1) x [row, row + 1).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
from scipy import ndimage
from skimage import measure

EIGHT = np.ones((3, 3), bool)
Piece = tuple[np.ndarray, int, int]  # bool (h, w), and the row and column of the picture that it begins at


def trace_mask(mask: np.ndarray, *, tolerance: float = 0.0) -> list[np.ndarray]:
    """Polygons float64 (2n,) that do not overlap and whose union pycocotools fills back into `mask`, bool (H, W).

    tolerance: how far, in pixels, a simplified outline may leave the traced one; 0 keeps every corner.
    """
    polygons = []
    for piece, top, left in split_holes(mask):
        # moved to its place first: simplifying breaks ties by the last bit, which the place decides
        outline = measure.find_contours(np.pad(piece, 1).astype(np.uint8), 0.5)[0] + (top, left)
        simple = measure.approximate_polygon(outline, tolerance) if tolerance else outline
        outline = simple if len(simple) > 3 else outline
        polygons.append((outline[:-1, ::-1] - 0.5).ravel())  # from centres of a padded picture to corners
    return polygons


def split_holes(mask: np.ndarray) -> list[Piece]:
    """Disjoint parts of a bool (H, W), each in one piece without a hole, that together are the mask."""
    pieces = []
    for whole in _components(mask):
        parts = list(_cut(whole))
        # a cut goes through everything on its row; what it need not have cut is put together again
        while pair := next(
            (pair for pair in combinations(range(len(parts)), 2) if _fit(*(parts[i] for i in pair))), ()
        ):
            second = parts.pop(pair[1])
            parts[pair[0]] = _unite(parts[pair[0]], second)
        pieces += parts
    return pieces


def count_holes(mask: np.ndarray) -> int:
    """How many background regions of a bool (H, W) are enclosed by it."""
    return int(ndimage.label(~np.pad(mask, 1), structure=EIGHT)[1]) - 1


def _components(mask: np.ndarray, top: int = 0, left: int = 0) -> Iterator[Piece]:
    labels, _ = ndimage.label(mask)
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        yield labels[box] == number, top + box[0].start, left + box[1].start


def _cut(piece: Piece) -> Iterator[Piece]:
    """Parts without holes: cut along the middle row of the first hole until there is none."""
    mask, top, left = piece
    background, count = ndimage.label(~np.pad(mask, 1), structure=EIGHT)
    if count == 1:
        yield piece
        return
    rows = ndimage.find_objects(background)[1][0]  # 1 is the outside: it begins in the corner
    row = (rows.start + rows.stop) // 2 - 1
    for start, half in ((0, mask[:row]), (row, mask[row:])):
        for part in _components(half, top + start, left):
            yield from _cut(part)


def _fit(one: Piece, other: Piece) -> bool:
    """Whether two parts touch and are together in one piece without a hole."""
    for axis in (0, 1):
        (low, high), (there, end) = ((p[1 + axis], p[1 + axis] + p[0].shape[axis]) for p in (one, other))
        if low > end or there > high:
            return False
    # pieces less holes; two parts that have none enclose nothing unless they touch
    return measure.euler_number(_unite(one, other)[0], connectivity=1) == 1


def _unite(one: Piece, other: Piece) -> Piece:
    top, left = (min(one[place], other[place]) for place in (1, 2))
    bottom, right = (max(p[1 + axis] + p[0].shape[axis] for p in (one, other)) for axis in (0, 1))
    union = np.zeros((bottom - top, right - left), bool)
    for mask, row, column in (one, other):
        union[row - top : row - top + mask.shape[0], column - left : column - left + mask.shape[1]] |= mask
    return union, top, left
