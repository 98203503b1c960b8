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

from sa2va_lab.datasets.polygons import fill_polygons
from sa2va_lab.errors import LabError

EXIF_ORIENTATION = 0x0112


@dataclass(frozen=True)
class PolygonTruth:
    """A truth drawn as polygons, float64 (2n,) each; without polygons it says that there is nothing to find."""

    polygons: tuple[np.ndarray, ...]

    def rasterise(self, size: tuple[int, int]) -> np.ndarray:
        """bool (H, W), the union of the polygons."""
        return fill_polygons(self.polygons, size)

    def sha256(self) -> str:
        """Hash of the coordinates."""
        digest = hashlib.sha256()
        for polygon in self.polygons:
            digest.update(len(polygon).to_bytes(8, "little") + polygon.astype("<f8").tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class MaskTruth:
    """A truth drawn as an image file: 0 is background, its one other value is the thing."""

    path: Path

    def rasterise(self, size: tuple[int, int]) -> np.ndarray:
        """bool (H, W); LabError when the file has another size, cannot be read, or is not a mask."""
        from PIL import Image, ImageOps

        try:
            with Image.open(self.path) as opened:
                image = ImageOps.exif_transpose(opened)
                alpha = image.getextrema()[-1] if image.mode in ("LA", "PA", "RGBA") else (255, 255)
                if image.mode not in ("1", "L", "I", "I;16", "F"):
                    image = image.convert("L")  # a palette by its colours: its index 0 need not be the background
                pixels = np.asarray(image)
        except Exception as error:  # Pillow raises many kinds for a damaged file
            raise LabError(f"mask {self.path} cannot be read ({error}); replace the file") from error
        if alpha[0] != alpha[1]:
            raise LabError(f"mask {self.path} is drawn in its transparency; expected a grey image, save it as one")
        if pixels.shape != tuple(size):
            raise LabError(
                f"mask {self.path} is {pixels.shape[1]}x{pixels.shape[0]} but its image is {size[1]}x{size[0]}; "
                "expected equal sizes, export one of them again"
            )
        truth = pixels != 0
        values = np.unique(pixels[truth])
        if len(values) > 1:
            raise LabError(
                f"mask {self.path} holds {len(values)} values besides 0; expected one (0/255 or 0/1), "
                "save it as a two-valued mask"
            )
        return truth

    def sha256(self) -> str:
        """Hash of the file's bytes."""
        return file_sha256(self.path)


@dataclass(frozen=True)
class Sample:
    """One image and one thing to find in it.

    id: a pseudonym, stable for one content of the folder; never the file name, which may name a patient.
    phrase: what to find. group: pseudonym of what must not be cut apart (a patient), shared by its images.
    problems: what is wrong with its annotation, in words, without file names.
    truths: by annotator, 1 the first; empty where nobody annotated the image.
    """

    id: str
    image: Path
    phrase: str
    group: str
    problems: tuple[str, ...] = ()
    truths: Mapping[int, PolygonTruth | MaskTruth] = field(default_factory=lambda: MappingProxyType({}), repr=False)

    def truth(self, annotator: int = 1) -> np.ndarray | None:
        """bool (H, W) as that annotator drew it, rasterised now; None where that annotator drew nothing.

        An image that was annotated and does not hold the phrase has an all-False truth, which is not None.
        Raises LabError when the image or the truth cannot be read.
        """
        source = self.truths.get(annotator)
        return None if source is None else source.rasterise(self.image_size())

    def image_size(self) -> tuple[int, int]:
        """(height, width) as a person sees it, EXIF orientation applied; reads the file's header only."""
        from PIL import Image

        try:
            with Image.open(self.image) as opened:
                width, height = opened.size
                # Pillow swaps the sides of a TIFF itself. PngImageFile.getexif would decode the whole picture.
                turned = opened.format != "TIFF" and Image.Image.getexif(opened).get(EXIF_ORIENTATION) in (5, 6, 7, 8)
        except Exception as error:  # Pillow raises many kinds for a damaged file
            raise LabError(f"image {self.image} cannot be read ({error}); replace the file") from error
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

    format: "sa2va" or "mask folder". reason: what was recognised and chosen, in words, without file names.
    splits: ids by split name, as the data folder states them; often empty. split_name: the part that this is.
    problems: what belongs to no single sample. rasteriser: what makes the masks, with its version.
    """

    root: Path
    format: str
    reason: str
    phrase: str
    samples: list[Sample]
    splits: dict[str, list[str]] = field(default_factory=dict)
    split_name: str = "all"
    problems: tuple[str, ...] = ()
    rasteriser: str = ""

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
        with open(path, "rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError as error:
        raise LabError(f"{path} cannot be read ({error.strerror}); restore the file or its permissions") from error


def _hash(rows: list) -> str:
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()
