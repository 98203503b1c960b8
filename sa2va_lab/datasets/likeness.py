"""Images that are nearly the same, by the correlation of their thumbnails' details."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps
from scipy.ndimage import gaussian_filter

from sa2va_lab.datasets.samples import Dataset
from sa2va_lab.files import open_image

SIDE = 48  # of the thumbnail
FINE, COARSE = 0.8, 3.0  # pixels of the thumbnail: noise finer and shading coarser than this say nothing
RIM = 2
# Copies that were resized, recompressed or shifted by 3 pixels have 0.98 and more; different retinas, which resemble
# each other far more than angiograms, 0.85 at most.
LEAST_LIKENESS = 0.93
CHUNK = 512


@dataclass(frozen=True)
class Fingerprint:
    """id and group of a sample; thumbnail: its details, float32 (n,) of unit length."""

    id: str
    group: str
    thumbnail: np.ndarray


@dataclass(frozen=True)
class Pair:
    """Two samples that look alike; likeness: correlation of their thumbnails, at most 1."""

    first: str
    second: str
    likeness: float


def fingerprint(grey: np.ndarray, *, id: str, group: str) -> Fingerprint:
    """The fingerprint of a picture, (H, W) of any number type."""
    picture = Image.fromarray(np.asarray(grey, np.float32))
    small = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BOX), np.float64)
    details = gaussian_filter(small, FINE) - gaussian_filter(small, COARSE)
    details = details[RIM:-RIM, RIM:-RIM]
    details = (details - details.mean()).ravel()
    length = np.linalg.norm(details)
    return Fingerprint(id, group, (details / length if length > 1e-6 else 0 * details).astype(np.float32))


def fingerprint_dataset(dataset: Dataset) -> list[Fingerprint]:
    """Fingerprints of all images that can be read."""
    found = []
    for sample in dataset:
        try:
            with open_image(sample.image) as opened:
                grey = np.asarray(ImageOps.exif_transpose(opened).convert("L"))
        except Exception:  # Pillow raises many kinds for a damaged file, which the audit reports
            continue
        found.append(fingerprint(grey, id=sample.id, group=sample.group))
    return found


def find_near_duplicates(first: list[Fingerprint], second: list[Fingerprint] | None = None) -> list[Pair]:
    """Pairs that look alike, the most alike first: between two lists, or between the groups of one."""
    own = second is None
    second = first if own else second
    if not first or not second:
        return []
    there = np.stack([found.thumbnail for found in second])
    pairs = []
    for start in range(0, len(first), CHUNK):
        likeness = np.stack([found.thumbnail for found in first[start : start + CHUNK]]) @ there.T
        for row, column in np.argwhere(likeness >= LEAST_LIKENESS):
            one, other = first[start + row], second[column]
            if not own or (start + row < column and one.group != other.group):
                pairs.append(Pair(one.id, other.id, float(likeness[row, column])))
    return sorted(pairs, key=lambda pair: (-pair.likeness, pair.first, pair.second))


def pairs_across(pairs: Iterable[Pair], splits: Mapping[str, Iterable[str]]) -> list[tuple[Pair, str, str]]:
    """Those pairs whose two images are in different splits, with the names of the splits."""
    place = {sample_id: name for name, ids in splits.items() for sample_id in ids}
    found = [(pair, place.get(pair.first), place.get(pair.second)) for pair in pairs]
    return [(pair, one, other) for pair, one, other in found if one and other and one != other]
