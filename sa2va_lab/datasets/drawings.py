"""What one annotator drew on one image: objects of any phrase, as they came, with what is wrong with them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np

from sa2va_lab.datasets.defects import Defect
from sa2va_lab.datasets.polygons import fill_polygons, read_polygon


@dataclass
class Thing:
    """One object: its phrase (None where nobody said) and the parts whose union it is.

    polygons: float64 (2n,) each, in pixels of the annotation. runs: compressed COCO masks, which can hold holes.
    """

    phrase: str | None
    polygons: list[np.ndarray] = field(default_factory=list)
    runs: list[dict] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        """Whether nothing usable was drawn."""
        return not self.polygons and not self.runs


@dataclass(frozen=True)
class DrawnTruth:
    """A truth drawn as polygons or run lengths; without any it says that there is nothing to find.

    size: (height, width) of the picture it was drawn on, None where the annotation does not say. Where the image has
    another size, it is scaled to the image.
    """

    polygons: tuple[np.ndarray, ...]
    runs: tuple[dict, ...] = ()
    size: tuple[int, int] | None = None

    def scaled(self, size: tuple[int, int]) -> list[np.ndarray]:
        """The polygons in pixels of an image of (height, width)."""
        if self.size is None or tuple(self.size) == tuple(size):
            return list(self.polygons)
        factors = size[1] / self.size[1], size[0] / self.size[0]
        return [(polygon.reshape(-1, 2) * factors).ravel() for polygon in self.polygons]

    def rasterise(self, size: tuple[int, int]) -> np.ndarray:
        """bool (H, W), the union of all parts."""
        mask = fill_polygons(self.scaled(size), size)
        if self.runs:
            mask |= _stretch(_decode(self.runs), size)
        return mask

    def sha256(self) -> str:
        """Hash of what was drawn."""
        digest = hashlib.sha256()
        for polygon in self.polygons:
            digest.update(len(polygon).to_bytes(8, "little") + polygon.astype("<f8").tobytes())
        for runs in self.runs:
            digest.update(repr(runs["size"]).encode() + runs["counts"])
        if self.size is not None:
            digest.update(repr(tuple(self.size)).encode())
        return digest.hexdigest()


@dataclass
class Drawing:
    """Everything that one annotator's file says about one image.

    size: (height, width) that the file states, None where it does not. entries: how often the image is annotated.
    """

    things: list[Thing] = field(default_factory=list)
    defects: list[Defect] = field(default_factory=list)
    size: tuple[int, int] | None = None
    entries: int = 1

    def note(self, kind: str, text: str) -> None:
        """Records that something is wrong."""
        self.defects.append(Defect(kind, text))

    def keep_polygons(self, drawn: object, label: str) -> list[np.ndarray]:
        """The usable ones of a list of polygons; the others are noted."""
        if not isinstance(drawn, list):
            self.note("wrong_type", f"{label} is not a list of polygons")
            return []
        if not drawn:
            self.note("empty_object", f"{label} has no polygon")
        kept = []
        for number, values in enumerate(drawn, 1):
            polygon, defect = read_polygon(values)
            if defect:
                self.note(defect.kind, f"{label}, polygon {number} {defect.text}: skipped")
            else:
                kept.append(polygon)
        return kept

    def truth(self, phrase: str) -> tuple[DrawnTruth | None, list[Defect]]:
        """What there is to find; None when something was drawn of which nothing is usable, which is not "nothing"."""
        chosen = [thing for thing in self.things if thing.phrase == phrase]
        if all(thing.empty for thing in chosen) and any(thing.phrase in (phrase, None) for thing in self.things):
            return None, [Defect("unknown_truth", "nothing usable was drawn: the truth is unknown")]
        polygons = tuple(polygon for thing in chosen for polygon in thing.polygons)
        runs = tuple(runs for thing in chosen for runs in thing.runs)
        return DrawnTruth(polygons, runs, self.size), []


def _decode(runs: tuple[dict, ...]) -> np.ndarray:
    from pycocotools import mask as coco

    return coco.decode(coco.merge(list(runs))).astype(bool)


def _stretch(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask at another size, each pixel taking the value of the nearest centre."""
    if mask.shape == tuple(size):
        return mask
    rows, columns = (
        np.minimum(((np.arange(new) + 0.5) * old / new).astype(int), old - 1)
        for new, old in zip(size, mask.shape, strict=True)
    )
    return mask[np.ix_(rows, columns)]
