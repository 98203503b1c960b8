"""What every data set looks like once it is open, whatever it was on disk.

Nothing here decodes an image or a truth before somebody asks for it: a data set of a thousand images opens at the
cost of reading its annotations.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from sa2va_lab.datasets.defects import Defect
from sa2va_lab.datasets.drawings import Drawing, DrawnTruth
from sa2va_lab.errors import LabError
from sa2va_lab.files import sha256

EXIF_ORIENTATION = 0x0112
CHECK = 0  # the annotator's number of mask files that lie beside the outlines of the same truth


@dataclass(frozen=True)
class MaskTruth:
    """A truth drawn as an image file: 0 is background, its one other value is the thing.

    value: in a label image, the value of the thing that is meant; None for a mask of two values.
    """

    path: Path
    value: int | None = None

    def rasterise(self, size: tuple[int, int]) -> np.ndarray:
        """bool (H, W); LabError when the file has another size, cannot be read, or is not a mask."""
        mask, defect = self.read(size)
        if defect:
            raise LabError(defect.text)
        return mask

    def read(self, size: tuple[int, int]) -> tuple[np.ndarray | None, Defect | None]:
        """The mask, or what is wrong with it."""
        from PIL import Image, ImageOps

        try:
            with Image.open(self.path) as opened:
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
        """Hash of the file's bytes, and of the value that is meant."""
        if self.value is None:
            return file_sha256(self.path)
        return hashlib.sha256(f"{file_sha256(self.path)} {self.value}".encode()).hexdigest()


@dataclass(frozen=True)
class Sample:
    """One image and one thing to find in it.

    id: a pseudonym such as P07-V2-F011, stable as long as the key beside the data is; never the file name, which may
        name a patient.
    phrase: what to find. group: pseudonym of what must not be cut apart (a patient), shared by its images.
    video: pseudonym of the sequence that the image is a frame of. defects: what is wrong, without file names.
    truths: by annotator, 1 the first; empty where nobody annotated the image. CHECK is a mask file beside outlines.
    """

    id: str
    image: Path = field(repr=False)  # its name may be a person's
    phrase: str
    group: str
    defects: tuple[Defect, ...] = ()
    truths: Mapping[int, DrawnTruth | MaskTruth] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    video: str = ""

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with it, in words."""
        return tuple(defect.text for defect in self.defects)

    @property
    def annotated_size(self) -> tuple[int, int] | None:
        """(height, width) of the picture that the first annotator drew on; None where the annotation does not say."""
        return getattr(self.truths.get(1), "size", None)

    def scale(self) -> tuple[float, float]:
        """By what the annotation's (y, x) are multiplied to fit the image; (1, 1) where it says no other size."""
        height, width = self.image_size()
        drawn = self.annotated_size or (height, width)
        return height / drawn[0], width / drawn[1]

    def truth(self, annotator: int = 1) -> np.ndarray | None:
        """bool (H, W) as that annotator drew it, rasterised now; None where that annotator drew nothing.

        An image that was annotated and does not hold the phrase has an all-False truth, which is not None.
        Raises LabError when the image or the truth cannot be read.
        """
        source = self.truths.get(annotator)
        if source is None:
            return None
        size = self.image_size()
        try:
            return source.rasterise(size)
        except LabError as error:
            raise LabError(f"{self.id}: {error}")

    def image_size(self) -> tuple[int, int]:
        """(height, width) as a person sees it, EXIF orientation applied; reads the file's header only."""
        from PIL import Image

        try:
            with Image.open(self.image) as opened:
                width, height = opened.size
                # Pillow swaps the sides of a TIFF itself. PngImageFile.getexif would decode the whole picture.
                turned = opened.format != "TIFF" and Image.Image.getexif(opened).get(EXIF_ORIENTATION) in (5, 6, 7, 8)
        except Exception as error:  # Pillow raises many kinds for a damaged file
            said = f"{type(error).__name__}: {error}".replace(str(self.image), "the file")
            raise LabError(f"the image of {self.id} cannot be read ({said}); replace the file") from None
        return (width, height) if turned else (height, width)

    def image_sha256(self) -> str | None:
        """Hash of the image file's bytes as they are now; None when it cannot be read."""
        try:
            return file_sha256(self.image)
        except LabError:
            return None


@dataclass(frozen=True)
class Dataset:
    """Samples in a fixed order, and what was recognised on the way.

    format: "sa2va", "labelme", "coco" or "mask folder". reason: what was recognised and chosen, without file names.
    splits: ids by split name, as the data folder states them; often empty. split_name: the part that this is.
    defects: what belongs to no single sample. rasteriser: what makes the masks, with its version.
    drawings: by annotator and id, everything that was drawn, whatever its phrase; empty for mask folders.
    labels: in a folder of label images, the value of each phrase. pseudonyms: what the ids stand on, in words.
    """

    root: Path
    format: str
    reason: str
    phrase: str
    samples: list[Sample]
    splits: dict[str, list[str]] = field(default_factory=dict)
    split_name: str = "all"
    defects: tuple[Defect, ...] = ()
    rasteriser: str = ""
    drawings: Mapping[int, Mapping[str, Drawing]] = field(default_factory=dict, repr=False)
    labels: Mapping[str, int] = field(default_factory=dict)
    pseudonyms: str = ""

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong and belongs to no single sample, in words."""
        return tuple(defect.text for defect in self.defects)

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    def __getitem__(self, sample_id: str) -> Sample:
        for sample in self.samples:
            if sample.id == sample_id:
                return sample
        raise LabError(f"no sample {sample_id} among the {len(self)} of this data set; see Dataset.samples for the ids")

    def split(self, name: str) -> Dataset:
        """The part called `name`; "all" is everything that this data set holds."""
        if name == "all":
            return self
        if name not in self.splits:
            known = ", ".join(sorted(self.splits)) or "none (there is no splits.json)"
            raise LabError(f'no split "{name}" in this data set; its splits are: {known}; choose one of them, or "all"')
        part = self.select(self.splits[name])
        if not part.samples:
            raise LabError(f'split "{name}" holds no image of this data set; correct splits.json')
        return replace(part, split_name=name)

    def choose_split(self, asked: str = "") -> tuple[str, str]:
        """The split to look at, and why: the one asked for; else "test" where there is one, else "all"."""
        if asked:
            return asked, "as asked"
        if "test" in self.splits:
            return "test", "the data set has a test split"
        return "all", "the data set has no test split"

    def select(self, ids: Iterable[str]) -> Dataset:
        """The samples with these ids, in this data set's order."""
        wanted = set(ids)
        return replace(self, samples=[sample for sample in self.samples if sample.id in wanted])

    def spread(self, count: int) -> Dataset:
        """So many samples at most, evenly spread over the ids, so that they are not all of one patient."""
        count = min(count, len(self))
        return self.select([self.samples[place * len(self) // count].id for place in range(count)])

    @property
    def manifest_sha256(self) -> str:
        """Hash of what a model is given: ids, phrases, and the bytes of the images, read now.

        The truths are left out on purpose. A process that predicts needs this hash and must not open a truth.
        """
        return _hash([[sample.id, sample.phrase, sample.image_sha256()] for sample in self.samples])

    @property
    def truth_sha256(self) -> str:
        """Hash of what the predictions are compared with: every annotator's polygons or mask bytes, read now."""
        return _hash([[s.id, s.phrase, [[k, s.truths[k].sha256()] for k in sorted(s.truths)]] for s in self.samples])


def file_sha256(path: Path) -> str:
    """Hash of a file's bytes; LabError when it cannot be read."""
    try:
        return sha256(path)
    except OSError as error:
        # without its name, which may be a patient's
        raise LabError(f"a file of the data cannot be read ({error.strerror}); restore it or its permissions") from None


def _hash(rows: list) -> str:
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()
