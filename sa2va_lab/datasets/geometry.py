"""Outlines and masks: one rasteriser and what others would have made, what is odd about an outline, masks back to
outlines, and how wide vessels are.

pycocotools is the rasteriser that Sa2VA trains with. Two rasterisers differ by up to a pixel along every outline,
which on vessels two pixels wide is a quarter of the Dice; so there is one here, and every report names it. Its pixel
(row, column) covers [column, column + 1) x [row, row + 1).

Sa2VA's format can hold polygons in one piece without a hole. A polygon is what it draws when it is filled, so a mask
with a hole is cut into touching pieces that have none; nothing is filled in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import version
from itertools import combinations

import numpy as np
from PIL import Image, ImageDraw
from pycocotools import mask as coco
from scipy import ndimage
from skimage import draw, measure
from skimage.morphology import skeletonize

from sa2va_lab.datasets.defects import Defect

# pycocotools walks an outline in fifths of a pixel with 32-bit integers: past these bounds it overflows or takes
# gigabytes. A real outline is thousands of times shorter.
FARTHEST_COORDINATE = 1e6
LONGEST_OUTLINE = 1e6

OUTSIDE = 1.0  # pixels that an outline may leave the image by: annotators click on the border
OVERLAP = 0.002  # share of an object that may be covered twice: outlines that touch share a pixel here and there
OTHERS = ("skimage", "skimage, shifted", "like cv2.fillPoly")  # other rasterisers, see `fill_otherwise`
EIGHT = np.ones((3, 3), bool)
Piece = tuple[np.ndarray, int, int]  # bool (h, w), and the row and column of the picture that it begins at
EDGES = (2.0, 4.0, 8.0, 16.0)  # pixels; the classes are up to 2, 2 to 4, ..., more than 16
CLASSES = ("≤ 2 px", "2–4 px", "4–8 px", "8–16 px", "> 16 px")


def rasteriser() -> str:
    """Name and version of what turns polygons into masks."""
    return f"pycocotools {version('pycocotools')}"


def read_polygon(values: object) -> tuple[np.ndarray | None, Defect | None]:
    """One polygon [x0, y0, x1, y1, ...] in pixels as float64 (2n,), or None with what is wrong with it."""
    if not isinstance(values, (list, tuple, np.ndarray)):
        return None, Defect("wrong_type", "is not a list of coordinates")
    try:
        polygon = np.asarray(values)
    except (ValueError, OverflowError, RecursionError):  # lists among numbers, or an impossible number
        polygon = np.asarray([None])
    if polygon.size == 0:
        return None, Defect("few_points", "is empty")
    if polygon.ndim != 1 or polygon.dtype.kind not in "iuf" or not np.isfinite(polygon).all():
        return None, Defect("bad_coordinates", "holds something other than finite numbers")
    if len(polygon) % 2:
        return None, Defect("bad_coordinates", f"has an odd number of coordinates ({len(polygon)})")
    if len(polygon) < 6:
        return None, Defect("few_points", f"has {len(polygon) // 2} of the 3 points it needs")
    polygon = polygon.astype(np.float64)
    if np.abs(polygon).max() <= FARTHEST_COORDINATE:
        points = polygon.reshape(-1, 2)
        if np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum() <= LONGEST_OUTLINE:
            return polygon, None
    return None, Defect("bad_coordinates", "has coordinates that belong to no image")


def read_runs(value: dict, size: tuple[int, int]) -> dict | None:
    """A COCO mask in run-length form ({"size": [H, W], "counts": a list or a string}), compressed; None where it is
    none of an image of `size` (height, width)."""
    counts = value.get("counts")
    counts = _read_counts(counts) if isinstance(counts, str) else counts
    whole = isinstance(counts, list) and all(type(count) is int and count >= 0 for count in counts)
    if not whole or value.get("size") != list(size) or sum(counts) != size[0] * size[1]:
        return None
    return coco.frPyObjects({"size": list(size), "counts": counts}, *size)


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
    """The same as bool (H, W) by one of OTHERS, to see what the choice is worth; no metric is made of it.

    "skimage" puts the centre of the first pixel at (0, 0), half a pixel off; "shifted" takes that back. cv2.fillPoly
    cuts corners off to whole pixels and takes every pixel that the outline touches.
    """
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
        if size and (away := reach_outside(polygon, size)) > OUTSIDE:
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


def measure_widths(mask: np.ndarray) -> np.ndarray:
    """Width in pixels at every pixel of the centre lines of a bool (H, W), float32 (n,), right to half a pixel.

    The centre line is scikit-image's skeleton (Zhang and Suen); the width is twice the distance from there to the
    background, less half a pixel: a line of one or two pixels has 1.5, one of three or four 3.5.
    """
    line, distance = find_lines(mask)
    return (2 * distance[line] - 0.5).astype(np.float32)


def classify_pixels(mask: np.ndarray) -> np.ndarray:
    """The width class of the nearest centre line for every pixel of the picture: int8 (H, W), -1 without a mask."""
    line, distance = find_lines(mask)
    if not line.any():
        return np.full(mask.shape, -1, np.int8)
    rows, columns = ndimage.distance_transform_edt(~line, return_distances=False, return_indices=True)
    width = 2 * distance[rows, columns] - 0.5
    return np.searchsorted(EDGES, width).astype(np.int8)


def find_lines(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centre lines, bool (H, W), and the distance of every pixel of the mask to the background."""
    if not mask.any():
        return np.zeros(mask.shape, bool), np.zeros(mask.shape)
    # the picture goes on beyond its border: a vessel that leaves it is not thin there
    wide = np.pad(mask, 1, mode="edge")
    return skeletonize(mask), ndimage.distance_transform_edt(wide)[1:-1, 1:-1]
