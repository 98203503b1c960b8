"""A data folder as a closed room: every name is looked up inside it, and none leads out."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from glob import glob
from pathlib import Path

from sa2va_lab.datasets.naming import IMAGES, Match, match_files, part_images, role_of, split_of
from sa2va_lab.datasets.pictures import read_size
from sa2va_lab.errors import LabError
from sa2va_lab.files import DICOMS, MOST_PIXELS, VIDEOS, is_dicom, read_json

TABLES = frozenset(
    f"{n}.json" for n in ("annotations", "splits", "groups", "labels", "sizes", "folds", "changes", "provenance")
)
IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".ppm", ".pgm", ".pbm", ".pnm"}
)
FILMS = DICOMS.union(VIDEOS)
TEXT_SUFFIXES = frozenset({".json", ".txt", ".yaml", ".yml"})
ALL_SUFFIXES = IMAGE_SUFFIXES | TEXT_SUFFIXES | FILMS | {".gz"}
DEEPEST = 6  # folders below the data folder


class Outside(LabError):
    """A name leads out of the data folder."""


class Folder:
    """A data folder that no name leads out of.

    images: the folder that the names of images are below. listed: the images; masks: image files that are masks by
    their place or name; texts: JSON, text and YAML files. Paths by name: of images below `images`, of the others below
    the folder. words: what else was seen, for the data set's reason. encodings: how often JSON was no UTF-8.
    """

    def __init__(self, root: Path):
        self.root = root
        self.real = os.path.realpath(root)
        self.images = root / "images" if (root / "images").is_dir() else root
        self.words = ""
        self.encodings: Counter[str] = Counter()
        self._read: dict[Path, object] = {}
        files = self._walk()
        endings = {name: os.path.splitext(name)[1].lower() for name in files}
        self.texts = {name: path for name, path in files.items() if endings[name] in TEXT_SUFFIXES}
        images, masks, others = part_images(name for name in files if endings[name] in IMAGE_SUFFIXES)
        self.listed = {_below(files[name], os.path.normpath(self.images)): files[name] for name in images}
        self.masks = {name: files[name] for name in masks}
        packed = sum(ending == ".gz" for ending in endings.values())
        films = sum(ending in FILMS or not ending for ending in endings.values())
        self.words += f"{len(others)} image files outside the folders of images left out, " if others else ""
        self.words += f"{packed} packed files (.gz) left out: unpack them, " if packed else ""
        self.words += f"{films} films (videos, DICOM) left out: predict them as films, " if films else ""

    def _walk(self) -> dict[str, str]:
        """Paths of all files by name, as far as they may belong to the data (see `naming` for the folders): nothing
        hidden, regular files and links to them, and of linked folders those at the top that say what lies in them.

        Where the folder itself holds images and no folder of images or splits, it is all there is, but for folders of
        masks and annotations: it may be anybody's folder of anything.
        """
        top = self.inside(self.root)
        found = {}
        for here, folders, names in os.walk(top, onerror=_refuse, followlinks=True):
            names = [name for name in names if name[0] != "."]
            folders[:] = [name for name in folders if name[0] != "."]
            links = {name for name in folders if os.path.islink(os.path.join(here, name))}
            if here == top:
                folders[:] = [name for name in folders if name not in links or role_of(name)]
                roles = {name: IMAGES if split_of(name, whole=True) else role_of(name) for name in folders}
                if any(map(is_image, names)) or IMAGES in roles.values():
                    folders[:] = [name for name in folders if roles[name]]
                others = [os.path.join(top, name) for name in roles.keys() - {*folders}]
                elsewhere = sum(is_image(n) for other in others for p in ("*", "*/*") for n in glob(p, root_dir=other))
                self.words += f"{elsewhere} image files in other folders left out, " if elsewhere else ""
            elif here.count(os.sep) - top.count(os.sep) == DEEPEST:
                folders.clear()
            else:
                folders[:] = [name for name in folders if name not in links]
            for number, path in enumerate((os.path.join(here, name) for name in sorted(names)), 1):
                ending = os.path.splitext(path)[1].lower()
                if ending in ALL_SUFFIXES or (not ending and is_dicom(Path(path))):
                    if os.path.islink(path):
                        self.inside(path, f"a symbolic link in {here} (file {number} by name)")
                    found |= {_below(path, top): path} if os.path.isfile(path) else {}
            for name in links.intersection(folders):
                self.inside(os.path.join(here, name))
        return dict(sorted(found.items()))

    def annotation_files(self) -> list[Path]:
        """The JSON files that may be annotations of any format."""
        tables = TABLES - {"annotations.json"}
        return [
            self.root / name
            for name in sorted(self.texts)
            if name.lower().endswith(".json") and os.path.basename(name) not in tables
        ]

    def inside(self, path: str | Path, what: str = "") -> str:
        """`path` without `..`, or LabError when it leads elsewhere, by its name or by a symbolic link.

        what: how to speak of it where its name may be a patient's.
        """
        shown = what or f"{str(path)!r}"
        try:
            real = os.path.realpath(path)
        except (OSError, ValueError):
            raise LabError(f"{shown} is not a possible file name; correct it") from None
        if os.path.commonpath([self.real, real]) != self.real:
            raise Outside(f"{shown} leads out of the data folder {self.root}; copy the file into that folder")
        return os.path.normpath(path)

    def image(self, name: object, where: str, near: Path | None = None) -> str:
        """The name, as `listed` has it, of what an annotation or a table calls `name`; the file need not exist.

        near: the folder of the file that says so, where its names are looked up first.
        """
        if not isinstance(name, str) or not name.strip():
            raise LabError(f"{where} names {kind_of(name)} as its image; expected a file name")
        if name in self.listed and (near in (None, self.root) or self.images != self.root):
            return name
        what = f"the image that {where} names"
        bases = [self.images, self.root]
        if near is not None and near != self.root:
            bases = [near / "images", near.parent / "images", near, near.parent, *bases]
        candidates = [self.inside(os.path.join(base, name), what) for base in bases]
        path = next((each for each in candidates if os.path.exists(each)), candidates[-2])
        if os.path.exists(path) and not os.path.isfile(path):
            raise LabError(f"{what} is a folder, or another thing than a file; expected a file name")
        return _below(path, os.path.normpath(self.images))

    def match(self, names: Iterable[tuple[object, str]], near: Path) -> list[str]:
        """The images that an annotation file in the folder `near` speaks of, given as (name, where it stands).

        A name of another machine (`images\\a.jpg`, `/data/upload/4/a.jpg`) is the image of its base name, where there
        is one such image that no other name of the file fits. What is found nowhere stays what it is called.
        """
        names, found = list(names), []
        for name, where in names:
            try:
                found.append(self.image(name, where, near))
            except Outside as error:
                found.append(error)
        taken = set(found) & self.listed.keys()
        asked = Counter(_base(name) for name in {name for name, _ in names})
        there: dict[str, list[str]] = {}
        for image in self.listed.keys() - taken:
            there.setdefault(_base(image), []).append(image)
        moved = 0
        for number, (name, _) in enumerate(names):
            fits = there.get(_base(name), [])
            if found[number] not in taken and len(fits) == asked[_base(name)] == 1:
                found[number], moved = fits[0], moved + 1
            if isinstance(found[number], Outside):
                raise found[number]
        self.words += f"{moved} images found by their base names, " if moved else ""
        return found

    def path(self, name: str) -> Path:
        """Where the image of a name lies, or would."""
        return Path(self.listed.get(name) or os.path.normpath(os.path.join(self.images, name)))

    def pair(self, files: Iterable[str]) -> dict[str, Match | None]:
        """The image of each file by `naming.match_files`."""
        prefix = "" if self.images == self.root else f"{self.images.name}/"
        return match_files(files, {prefix + image: image for image in self.listed})

    def size(self, image: str) -> tuple[int, int] | None:
        """(height, width) of an image, by its header; None where it cannot be read."""
        try:
            return read_size(self.path(image))
        except Exception:  # Pillow raises many kinds for a damaged file
            return None

    def read(self, path: Path) -> object:
        """What a JSON file of the folder holds, read once, in whatever encoding; LabError where it leads out, or cannot
        be read. Of a picture that is stored in it (LabelMe's imageData) only stays that there was one."""
        if path not in self._read:
            content = read_json(self.inside(path), encodings=self.encodings)
            if as_table(content).get("imageData"):
                content["imageData"] = True
            self._read[path] = content
        return self._read[path]

    def attempt(self, path: Path) -> object | None:
        """As `read`; None for what cannot be read."""
        with suppress(LabError):
            return self.read(path)

    def table(self, name: str) -> object | None:
        """What a table beside the data holds; None where there is none."""
        path = self.root / name
        return self.read(path) if path in self._read or os.path.isfile(self.inside(path)) else None

    def expect(self, name: str, right: bool, what: str) -> None:
        """LabError unless a table beside the data is `right`."""
        if not right:
            raise LabError(f"{self.root / name} is not a table of {what}; correct it")

    def overrule(self, name: str, said: dict) -> None:
        """Adds to what a table beside the data holds, for this opening."""
        self._read[self.root / name] = as_table(self.table(name)) | said


def as_table(value: object) -> dict:
    """What JSON holds, if it is a table; else an empty one."""
    return value if isinstance(value, dict) else {}


def kind_of(value: object) -> str:
    """What JSON calls a value, for a sentence."""
    names = {dict: "a table", list: "a list", str: "text", type(None): "null", bool: "true or false"}
    return names.get(type(value), "a number")


def is_size(value: object) -> bool:
    """Whether something is [width, height] in pixels of an image that can be."""
    width, height = value if isinstance(value, list) and len(value) == 2 else (0, 0)
    return all(type(s) is int and 0 < s < 2**15 for s in (width, height)) and width * height <= MOST_PIXELS


def second_file(path: Path) -> Path:
    """Where a second annotator's file lies, if there is one."""
    return path.with_name(f"{path.stem}_obs2{path.suffix}")


def is_image(name: str) -> bool:
    """Whether a file is an image by its name."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def _refuse(error: OSError) -> None:
    raise LabError(f"{error.filename} cannot be read ({error.strerror}); correct its permissions") from error


def _base(name: str) -> str:
    return unicodedata.normalize("NFC", re.split(r"[\\/]", name)[-1])


def _below(path: str, base: str) -> str:
    """A path's name below a folder, with forward slashes."""
    prefix = base + os.sep
    return (path[len(prefix) :] if path.startswith(prefix) else os.path.relpath(path, base)).replace(os.sep, "/")
