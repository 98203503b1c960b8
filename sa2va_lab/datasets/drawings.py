"""What one annotator said about one image, of every phrase at once: outlines, or an image file whose values are things.

`Drawing` and `MaskFile` are what the readers of the formats make; `truth(phrase)` of either is what there is to find.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import ImageOps
from pycocotools import mask as coco

from sa2va_lab import files
from sa2va_lab.datasets.defects import Defect
from sa2va_lab.datasets.polygons import fill_polygons, rasteriser, read_polygon
from sa2va_lab.errors import LabError

CHECK = 0  # the annotator's number of mask files that lie beside the outlines of the same truth


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


@dataclass(frozen=True)
class MaskFile:
    """An image file that is a truth: 0 is background, its one other value is the thing.

    labels: in a label image, the value of each phrase. value: the one that is meant; None for a mask of two values.
    """

    path: Path
    value: int | None = None
    labels: Mapping[str, int] = field(default_factory=dict)
    defects = ()
    size = None  # a file is never scaled: its size must be the image's

    @property
    def phrases(self) -> Counter[str]:
        """The phrases that the file may hold, with 0 each: what it does hold is not known before it is read."""
        return Counter(dict.fromkeys(self.labels, 0))

    def truth(self, phrase: str | None) -> MaskFile:
        """What there is to find; a value that no pixel has where the labels do not name the phrase."""
        return replace(self, value=self.labels.get(phrase, -1)) if self.labels else self

    def rasterise(self, size: tuple[int, int]) -> np.ndarray:
        """bool (H, W); LabError when the file has another size, cannot be read, or is not a mask."""
        mask, defect = self.read(size)
        if defect:
            raise LabError(defect.text)
        return mask

    def read(self, size: tuple[int, int]) -> tuple[np.ndarray | None, Defect | None]:
        """The mask, or what is wrong with it."""
        try:
            with files.open_image(self.path) as opened:
                image = ImageOps.exif_transpose(opened)
                alpha = image.getextrema()[-1] if image.mode in ("LA", "PA", "RGBA") else (255, 255)
                keep = ("1", "L", "I", "I;16", "F", "P") if self.value is not None else ("1", "L", "I", "I;16", "F")
                if image.mode not in keep:
                    image = image.convert("L")  # a palette by its colours: its index 0 need not be the background
                pixels = np.asarray(image)
        except Exception as error:  # Pillow raises many kinds for a damaged file
            said = str(error).replace(str(self.path), "the file")
            return None, Defect("mask_unreadable", f"its mask cannot be read ({said}); replace the file")
        if alpha[0] != alpha[1]:
            text = "its mask is drawn in its transparency; expected a grey image, save it as one"
            return None, Defect("mask_unreadable", text)
        if pixels.shape != tuple(size):
            text = (
                f"its mask is {pixels.shape[1]}x{pixels.shape[0]} but its image is {size[1]}x{size[0]}; "
                "expected equal sizes, export one of them again"
            )
            return None, Defect("mask_size", text)
        if self.value is not None:
            return pixels == self.value, None
        truth = pixels != 0
        values = np.unique(pixels[truth])
        if len(values) > 1:
            text = (
                f"its mask holds {len(values)} values besides 0; expected one (0/255 or 0/1): save it as a two-valued "
                'mask, or say what the values are in labels.json, such as {"blood vessel": 1, "catheter": 2}'
            )
            return None, Defect("mask_unreadable", text)
        return truth, None

    def sha256(self) -> str:
        """Hash of the file's bytes, and of the value that is meant; LabError where it cannot be read."""
        try:
            digest = files.sha256(self.path)
        except OSError as error:
            raise LabError(f"the mask of an image cannot be read ({error.strerror}); restore its file") from None
        return digest if self.value is None else hashlib.sha256(f"{digest} {self.value}".encode()).hexdigest()


@dataclass
class Drawing:
    """Everything that one annotator's file says about one image.

    size: (height, width) that the file states, None where it does not. entries: how often the image is annotated.
    """

    things: list[Thing] = field(default_factory=list)
    defects: list[Defect] = field(default_factory=list)
    size: tuple[int, int] | None = None
    entries: int = 1

    @property
    def phrases(self) -> Counter[str]:
        """How many objects each phrase has."""
        return Counter(thing.phrase for thing in self.things if thing.phrase)

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

    def truth(self, phrase: str | None) -> DrawnTruth | None:
        """What there is to find; None when something was drawn of which nothing is usable, which is not "nothing"."""
        chosen = [thing for thing in self.things if thing.phrase == phrase]
        if all(thing.empty for thing in chosen) and any(thing.phrase in (phrase, None) for thing in self.things):
            return None
        polygons = tuple(polygon for thing in chosen for polygon in thing.polygons)
        runs = tuple(runs for thing in chosen for runs in thing.runs)
        return DrawnTruth(polygons, runs, self.size)


def open_entry(drawings: dict[str, Drawing], image: str, size: tuple[int, int] | None = None) -> Drawing:
    """The drawing that one more entry about an image goes into; a second entry is a defect."""
    drawing = drawings.setdefault(image, Drawing(entries=0, size=size))
    drawing.entries += 1
    if drawing.entries == 2:
        drawing.note("duplicate_entry", "annotated more than once: the objects are joined")
    return drawing


@dataclass
class Found:
    """What a format's reader hands over.

    words: what was recognised, for the data set's reason. drawings: by annotator and image name.
    phrases: how many objects each has, the first one the default; None counts those of the first annotator.
    unnamed: what to find where the annotations name no phrase; "" where that must be asked for.
    ignored, prompts: `Sample.ignored` and `Sample.prompts` by image name, of those that have any.
    """

    format: str
    words: str
    drawings: dict[int, dict[str, Drawing | MaskFile]] = field(default_factory=dict)
    defects: list[Defect] = field(default_factory=list)
    phrases: dict[str, int] | None = None
    unnamed: str | None = ""
    rasteriser: str = field(default_factory=rasteriser)
    ignored: dict[str, DrawnTruth | MaskFile] = field(default_factory=dict)
    prompts: dict[str, dict[str | None, str]] = field(default_factory=dict)

    def count_phrases(self) -> dict[str, int]:
        """Objects of each phrase, the most frequent first."""
        if self.phrases is not None:
            return self.phrases
        total: Counter[str] = Counter()
        for drawing in self.drawings.get(1, {}).values():
            total.update(drawing.phrases)
        return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))


def _decode(runs: tuple[dict, ...]) -> np.ndarray:
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
