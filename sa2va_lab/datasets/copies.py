"""A sample as it is written anew: upright pixels, and its objects, mended where a repair is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from sa2va_lab.datasets.defects import KINDS, Defect
from sa2va_lab.datasets.drawings import CHECK, Drawing, DrawnTruth, MaskFile
from sa2va_lab.datasets.geometry import examine
from sa2va_lab.datasets.outlines import count_holes, trace_mask
from sa2va_lab.datasets.pictures import look, to_eight_bits
from sa2va_lab.datasets.polygons import fill_polygons
from sa2va_lab.datasets.samples import Sample
from sa2va_lab.files import open_image

DECIMALS = 2
LEAST = 0.999  # Dice of an outline with its mask; below it the outline is drawn finer
FINE = 0.3  # pixels of tolerance at which an outline is nearly always exact, with a third of the corners
REDRAWN = {"overlap", "self_intersection", "out_of_bounds"}  # outlines that are traced from their mask


@dataclass(frozen=True)
class Change:
    """One thing that the copy has otherwise than the original. kind: of KINDS, or "holes" or "traced"."""

    id: str
    kind: str
    change: str


@dataclass
class CopiedThing:
    """One object in pixels of the image. mask: bool (H, W), where polygons do not say it. dice: of the mask with the
    outline that was made of it."""

    phrase: str
    polygons: list[np.ndarray] = field(default_factory=list)
    mask: np.ndarray | None = None
    dice: float = 1.0

    @property
    def holes(self) -> int:
        """How many holes it has, which no polygon can say."""
        return 0 if self.mask is None else count_holes(self.mask)

    def outline(self, tolerance: float) -> list[list[float]]:
        """Its polygons, traced from the mask where it has one: as coarse as `tolerance` (pixels) and LEAST allow."""
        if self.mask is None:
            return [polygon.tolist() for polygon in self.polygons]
        for step in (tolerance, min(tolerance, FINE), 0):
            drawn = [np.round(polygon, DECIMALS) for polygon in trace_mask(self.mask, tolerance=step)]
            again = fill_polygons(drawn, self.mask.shape)
            self.dice = 2 * np.count_nonzero(again & self.mask) / max(again.sum() + self.mask.sum(), 1)
            if self.dice >= LEAST:
                break
        return [polygon.tolist() for polygon in drawn]

    def draw(self, size: tuple[int, int]) -> np.ndarray:
        """Its mask, bool (H, W)."""
        return fill_polygons(self.polygons, size) if self.mask is None else self.mask


@dataclass
class Copy:
    """objects: by annotator; an annotator who is not there did not look at the image, or nothing usable came of it.

    id: what its files are called. origin: of `Sample.origin`. apart: whether its objects are files of their own, too.
    name: of the image that its files are about, where that is not <id>.png.
    """

    id: str
    size: tuple[int, int]
    objects: dict[int, list[CopiedThing]] = field(default_factory=dict)
    origin: Mapping | None = None
    apart: bool = False
    name: str = ""

    @property
    def image(self) -> str:
        """The name of its image."""
        return self.name or f"{self.id}.png"


def copy_sample(sample: Sample, folder: Path) -> tuple[Copy | None, list[Change]]:
    """Writes the image into a folder and gathers its objects; None where there is no image to write."""
    kinds = [defect.kind for defect in sample.defects if not defect.text.startswith("second annotator")]
    size, mended = copy_image(sample, folder / f"{sample.id}.png")
    kinds += mended
    copy, left_out = Copy(sample.id, size, origin=sample.origin) if size else None, []
    for annotator, drawing in sample.drawings.items():
        if copy is None or annotator == CHECK:
            continue
        if isinstance(drawing, MaskFile):
            things, defects = _read_masks(drawing, sample.phrase, size)
            left_out += [Change(sample.id, defect.kind, "its mask is left out") for defect in defects]
        else:
            things, mended = _mend_things(drawing, size)
            kinds += mended if annotator == 1 else []
            things = None if drawing.truth(sample.phrase) is None else things
        copy.objects |= {} if things is None else {annotator: things}
    changes = [Change(sample.id, kind, KINDS[kind].repair) for kind in kinds if KINDS[kind].repair]
    return copy, list(dict.fromkeys(changes + left_out))


def copy_image(sample: Sample, path: Path) -> tuple[tuple[int, int] | None, list[str]]:
    """Upright pixels of 8 bits as a bare PNG: its size, None where there is none; and the kinds of what was wrong."""
    if not sample.image.exists():
        return None, ["missing_image"]
    pixels, defects = look(sample.image)
    if pixels is not None:
        with open_image(sample.image) as opened:
            image = to_eight_bits(ImageOps.exif_transpose(opened))
            image = image if image.mode == "L" else image.convert("L" if image.mode == "1" else "RGB")
            Image.fromarray(np.asarray(image)).save(path)  # through an array: nothing but pixels comes along
    return None if pixels is None else pixels.shape, [defect.kind for defect in defects]


def _read_masks(file: MaskFile, phrase: str, size: tuple[int, int]) -> tuple[list[CopiedThing] | None, list[Defect]]:
    """An object for each phrase that a mask file holds; None where it cannot be read."""
    things = []
    for each in file.phrases or [phrase]:
        mask, defect = file.truth(each).read(size)
        if defect:
            return None, [defect]
        things += [CopiedThing(each, mask=mask)] if mask.any() else []
    return things, []


def _mend_things(drawing: Drawing, size: tuple[int, int]) -> tuple[list[CopiedThing], list[str]]:
    """The usable objects, in pixels of the image, and the kinds of what was mended."""
    kinds = ["size_mismatch"] if drawing.own_size not in (None, tuple(size)) else []
    seen: set[bytes] = set()
    things = []
    for thing in drawing.things:
        if thing.phrase is None or thing.empty:
            continue
        polygons, odd = examine(DrawnTruth(tuple(thing.polygons), (), drawing.size).scaled(size), size, seen)
        kinds += [defect.kind for defect in odd]
        if thing.runs or REDRAWN & {defect.kind for defect in odd}:
            mask = DrawnTruth(tuple(polygons)).rasterise(size)
            mask |= DrawnTruth((), tuple(thing.runs), drawing.size).rasterise(size)
            things += [CopiedThing(thing.phrase, mask=mask)] if mask.any() else []
        elif polygons:
            things.append(CopiedThing(thing.phrase, polygons))
    return things, kinds
