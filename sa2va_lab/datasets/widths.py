"""How wide the vessels are: along their centre lines, and for every pixel by the nearest centre line."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.morphology import skeletonize

EDGES = (2.0, 4.0, 8.0, 16.0)  # pixels; the classes are up to 2, 2 to 4, ..., more than 16
CLASSES = ("≤ 2 px", "2–4 px", "4–8 px", "8–16 px", "> 16 px")


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
