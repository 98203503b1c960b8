"""What one annotator said about one image, of every phrase at once: outlines, or an image file whose values are things.

`Drawing` and `MaskFile` are what the readers of the formats make; `truth(phrase)` of either is what there is to find.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from pycocotools import mask as coco
from skimage.transform import resize

from sa2va_lab import files
from sa2va_lab.datasets.defects import Defect, Flaw
from sa2va_lab.datasets.folders import as_table, is_size
from sa2va_lab.datasets.geometry import fill_polygons, rasteriser, read_polygon
from sa2va_lab.errors import LabError

UNIT = (1, 1)  # the size of annotations in shares of the image's sides
UNSAID = ""  # the phrase of things whose annotations name none: what is asked for
UNNAMED = "blood vessel"  # and that where nothing is asked for
BACKGROUND, REST = "background", -1  # the name of values that are nothing, and the value of all that have no name
ORIGIN = "sa2va_lab_origin"  # the key in a file under which it says over which prediction its truths were drawn
CHECK = 0  # the annotator's number of mask files that lie beside the outlines of the same truth


@dataclass
class Thing:
    """One object: its phrase (None where nobody said) and the parts whose union it is.

    polygons: float64 (2n,) each, in pixels of the annotation. runs: compressed COCO masks, which can hold holes.
    count: of how many annotations of the file it is made.
    """

    phrase: str | None
    count: int = field(default=1, kw_only=True)
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
        scaled = [(polygon.reshape(-1, 2) * factors).ravel() for polygon in self.polygons]
        # shares have few digits: 165.9 px may come back as 165.8999, and the rasteriser rounds to fifths of a pixel
        return [np.round(polygon, 3) for polygon in scaled] if self.size == UNIT else scaled

    def rasterise(self, size: tuple[int, int]) -> np.ndarray:
        """bool (H, W), the union of all parts."""
        mask = fill_polygons(self.scaled(size), size)
        if self.runs:
            runs = coco.decode(coco.merge(list(self.runs))).astype(bool)
            mask |= resize(runs, size, order=0)  # each pixel as the nearest centre
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

    labels: in a label image, the values of each phrase; of BACKGROUND what is nothing beside 0; REST stands for
    all that are not named. phrase: the one that is meant. threshold: of a grey mask, the value from which on it is the
    thing. outside: whether what is meant is the rest, as of a field of view that says where to look.
    """

    path: Path
    labels: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    phrase: str | None = None
    threshold: float | None = None
    outside: bool = False
    defects = ()
    size = None  # a file is never scaled: its size must be the image's
    counts = ("masks", 1, 0)

    @property
    def phrases(self) -> Counter[str]:
        """The phrases that the file may hold, with 0 each: what it does hold is not known before it is read."""
        return Counter(dict.fromkeys(self.labels.keys() - {BACKGROUND}, 0))

    def truth(self, phrase: str | None) -> MaskFile:
        """What there is to find; nothing where the labels do not name the phrase."""
        return replace(self, phrase=phrase) if self.labels else self

    def rasterise(self, size: tuple[int, int]) -> np.ndarray:
        """bool (H, W); a Flaw when the file has another size, cannot be read, or is not a mask."""
        try:
            with files.open_image(self.path) as opened:
                frames = getattr(opened, "n_frames", 1)
                image = ImageOps.exif_transpose(opened)
                alpha = image.getextrema()[-1] if image.mode in ("LA", "PA", "RGBA") else (255, 255)
                pixels = read_values(image, by_index=bool(self.labels))
        except Exception as error:  # Pillow raises many kinds for a damaged file
            said = str(error).replace(str(self.path), "the file")
            raise Flaw("mask_unreadable", f"its mask cannot be read ({said}); replace the file") from None
        if alpha[0] != alpha[1] or frames > 1:
            what = f"file holds {frames} pictures" if frames > 1 else "shape is drawn in its transparency"
            raise Flaw("mask_unreadable", f"its mask's {what}; expected one grey image, save it as one")
        if pixels.shape != tuple(size):
            raise Flaw(
                "mask_size",
                f"its mask is {pixels.shape[1]}x{pixels.shape[0]} but its image is {size[1]}x{size[0]}; "
                "expected equal sizes, export one of them again",
            )
        mask = self._choose(pixels)
        return ~mask if self.outside else mask

    def _choose(self, pixels: np.ndarray) -> np.ndarray:
        """The pixels that are meant, by their values."""
        if self.threshold is not None:
            return pixels >= self.threshold
        values = set(np.unique(pixels).tolist()) - {0}
        if not self.labels and len(values) > 1:
            raise Flaw(
                "mask_unreadable",
                f"its mask holds {len(values)} values besides 0; expected one (0/255 or 0/1): save it as a two-valued "
                'mask, or say what the values are in labels.json, such as {"blood vessel": [1, 2], "catheter": 3}; of '
                'smooth edges or a JPEG say from which grey value on it is foreground ({"mask_threshold": 128})',
            )
        if not self.labels:
            return pixels != 0
        unnamed = sorted(values.difference(*self.labels.values()))
        meant = self.labels.get(self.phrase, ())
        mask = np.isin(pixels, [*meant, *unnamed] if REST in meant else meant)
        if unnamed and not any(REST in values for values in self.labels.values()):
            raise Flaw(
                "unnamed_value",
                f"its mask holds {len(unnamed)} of {len(values)} values that labels.json does not name, such as "
                f"{unnamed[0]:g}; name them there, if only as background",
                mask if 2 * len(unnamed) <= len(values) else None,
            )
        return mask

    def sha256(self) -> str:
        """Hash of the file's bytes, and of what is meant of it; LabError where it cannot be read."""
        try:
            digest = files.sha256(self.path)
        except OSError as error:
            raise LabError(f"the mask of an image cannot be read ({error.strerror}); restore its file") from None
        said = [str(value) for value in self.labels.get(self.phrase, (-1,))] if self.labels else []
        said += [f">={self.threshold}"] * (self.threshold is not None) + ["outside"] * self.outside
        return hashlib.sha256(" ".join([digest, *said]).encode()).hexdigest() if said else digest


def read_values(image: Image.Image, *, by_index: bool) -> np.ndarray:
    """The value of every pixel of a mask, (H, W): grey values; of colours red + 256 green + 65,536 blue.

    A palette's colours are values too, unless by_index: then, and where no colour that is used is black, its indices.
    """
    if image.mode == "P":
        index = np.asarray(image)
        palette = np.asarray(image.getpalette("RGB"), np.int64).reshape(-1, 3)
        used = np.unique(index)
        if by_index or used.max() >= len(palette) or palette[used].any(axis=1).all() or not palette[0].any():
            return index
        image = image.convert("RGB")
    if image.mode in ("1", "L", "I", "F") or image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint8) if image.mode == "1" else np.asarray(image)
    channels = np.asarray(image.convert("RGB"), np.int64)
    grey = (channels == channels[..., :1]).all()
    return channels[..., 0] if grey else channels @ [1, 256, 65536]


@dataclass
class Drawing:
    """Everything that one annotator's file says about one image.

    size: (height, width) that the file states, None where it does not. aside: how many annotations were read as what is
    to be ignored.
    """

    things: list[Thing] = field(default_factory=list)
    defects: list[Defect] = field(default_factory=list)
    size: tuple[int, int] | None = None
    aside: int = 0

    @property
    def phrases(self) -> Counter[str]:
        """How many objects each phrase has."""
        return Counter(thing.phrase for thing in self.things if thing.phrase)

    @property
    def own_size(self) -> tuple[int, int] | None:
        """(height, width) in pixels, None where the file states none."""
        return None if self.size == UNIT else self.size

    @property
    def counts(self) -> tuple[str, int, int]:
        """That these are annotations, how many were read, and how many came to nothing, which is noted."""
        lost = sum(thing.count for thing in self.things if thing.empty or thing.phrase is None)
        read = sum(thing.count for thing in self.things) - lost + self.aside
        return "annotations", read, lost if self.defects else 0

    def state_size(self, size: list) -> None:
        """Takes the [width, height] that a file states; what is none is noted."""
        if not is_size(size):
            self.note("wrong_type", "its file states no size for it: taken as the image's own")
            return
        if self.size not in (None, (size[1], size[0])):
            self.note("size_mismatch", "its annotation files state different sizes: the last one is taken")
        self.size = (size[1], size[0])

    def note(self, kind: str, text: str) -> None:
        """Records that something is wrong."""
        self.defects.append(Defect(kind, text))

    def add(self, phrase: str | None, label: str) -> Thing:
        """One more object; that one without a phrase is left out is noted."""
        if phrase is None:
            self.note("text_type", f"{label} has no phrase that is known: left out")
        self.things.append(Thing(phrase))
        return self.things[-1]

    def keep_polygons(self, drawn: object, label: str) -> list[np.ndarray]:
        """The usable ones of a list of polygons; the others are noted."""
        if not isinstance(drawn, list):
            self.note("wrong_type", f"{label} is not a list of polygons")
            return []
        if not drawn:
            self.note("empty_object", f"{label} has no polygon")
        elif type(drawn[0]) in (int, float):
            drawn = [drawn]
            if all(defect.kind != "flat_nesting" for defect in self.defects):
                self.note("flat_nesting", f"{label} is a flat polygon (object > coordinates), perhaps others as well")
        kept = (self.keep_polygon(values, f"{label}, polygon {n}") for n, values in enumerate(drawn, 1))
        return [polygon for one in kept for polygon in one]

    def keep_polygon(self, values: object, label: str) -> list[np.ndarray]:
        """A polygon, if it is usable; else that is noted."""
        polygon, defect = read_polygon(values)
        if defect:
            self.note(defect.kind, f"{label} {defect.text}: skipped")
        return [] if defect else [polygon]

    def truth(self, phrase: str | None) -> DrawnTruth | None:
        """What there is to find; None when something was drawn of which nothing is usable, which is not "nothing"."""
        chosen = [thing for thing in self.things if thing.phrase == phrase]
        if all(thing.empty for thing in chosen) and any(thing.phrase in (phrase, None) for thing in self.things):
            return None
        return self.join(chosen)

    def join(self, things: Iterable[Thing]) -> DrawnTruth:
        """Some of its things together."""
        things = list(things)
        polygons = tuple(polygon for thing in things for polygon in thing.polygons)
        return DrawnTruth(polygons, tuple(runs for thing in things for runs in thing.runs), self.size)


def read_phrase(value: object) -> str | None:
    """A phrase as a file says it; None for what is none."""
    return value.strip() or None if isinstance(value, str) else None


def read_origin(value: object) -> dict[str, str | float] | None:
    """`Sample.origin` as a file says it; None for anything else."""
    kinds = {"weights_sha256": str, "model": str, "threshold": float, "prompt": str}
    found = {name: said for name, said in as_table(value).items() if type(said) is kinds.get(name)}
    return found if "weights_sha256" in found else None


def open_entry(drawings: dict[str, Drawing], image: str, size: tuple[int, int] | None = None) -> Drawing:
    """The drawing that one more entry about an image goes into; a second entry is a defect."""
    if image not in drawings:
        drawings[image] = Drawing(size=size)
    elif all(defect.kind != "duplicate_entry" for defect in drawings[image].defects):
        drawings[image].note("duplicate_entry", "annotated more than once: the objects are joined")
    return drawings[image]


@dataclass
class Found:
    """What a format's reader hands over.

    words: what was recognised, for the data set's reason. drawings: by annotator and image name.
    phrases: how many objects each has, the first one the default; None counts those of the first annotator.
    unnamed: what to find where the annotations name no phrase; "" where that must be asked for.
    ignored, prompts, origins: what `Sample` says of them, by image name, of those that have any.
    splits: image names by split, where the files say so. met: how many annotations or files there are. lost: those of
    them of which nothing could be made, and no drawing says so.
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
    origins: dict[str, Mapping] = field(default_factory=dict)
    splits: dict[str, list[str]] = field(default_factory=dict)
    met: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)

    def stray(self, things: str, lost: list, total: int, wrong: str, pair: str, *, noted: bool = False) -> None:
        """Notes those of all things of a file that fit nothing, unless their drawings do.

        Raises LabError, with a pair to show, where they are more than half of them: then it is how they were read.
        """
        if 2 * len(lost) > total:
            raise LabError(f"{wrong.format(n=f'{len(lost)} of {total}')}: {pair}; correct one of the two")
        if lost and not noted:
            self.defects.append(Defect("orphan_file", wrong.format(n=len(lost))))
            self.lost[things] += len(lost)

    def drawn(self) -> Iterator[Drawing]:
        """Everything that was drawn as outlines."""
        drawings = (drawing for by_image in self.drawings.values() for drawing in by_image.values())
        return (drawing for drawing in drawings if isinstance(drawing, Drawing))

    def count_phrases(self) -> dict[str, int]:
        """Objects of each phrase, the most frequent first."""
        if self.phrases is not None:
            return self.phrases
        total = Counter(phrase for one in self.drawings.get(1, {}).values() for phrase in one.phrases.elements())
        return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))
