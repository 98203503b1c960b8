"""Images that are nearly the same, by the correlation of their thumbnails' details."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from sa2va_lab.datasets.pictures import look
from sa2va_lab.datasets.samples import Dataset

SIDE = 48  # of the thumbnail
FINE, COARSE = 0.8, 3.0  # pixels of the thumbnail: noise finer and shading coarser than this say nothing
RIM = 2
# Copies that were resized, recompressed or shifted by 3 pixels have 0.98 and more; different retinas, which resemble
# each other far more than angiograms, 0.85 at most.
LEAST_LIKENESS = 0.93
CHUNK = 512  # images that are compared at once: all of 20,000 would take two gigabytes


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
    """Fingerprints of all images that can be read; the audit reports the others."""
    seen = ((sample, look(sample.image)[0]) for sample in dataset)
    return [fingerprint(grey, id=sample.id, group=sample.group) for sample, grey in seen if grey is not None]


def find_near_duplicates(first: list[Fingerprint], second: list[Fingerprint] | None = None) -> list[Pair]:
    """Pairs that look alike, the most alike first: between two lists, or between the groups of one."""
    others = first if second is None else second
    if not first or not others:
        return []
    there = np.stack([found.thumbnail for found in others])
    pairs = []
    for start in range(0, len(first), CHUNK):
        likeness = np.stack([found.thumbnail for found in first[start : start + CHUNK]]) @ there.T
        for row, column in np.argwhere(likeness >= LEAST_LIKENESS):
            one, other = first[start + row], others[column]
            if second is not None or (start + row < column and one.group != other.group):
                pairs.append(Pair(one.id, other.id, float(likeness[row, column])))
    return sorted(pairs, key=lambda pair: (-pair.likeness, pair.first, pair.second))
