"""A data folder as a closed room: every name is looked up inside it, and none leads out."""

from __future__ import annotations

import os
from pathlib import Path

from sa2va_lab.errors import LabError
from sa2va_lab.files import read_json

TABLES = frozenset(f"{n}.json" for n in ("annotations", "splits", "groups", "labels", "sizes", "folds", "changes"))
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif"})


class Folder:
    """A data folder that no name leads out of, and its images by name."""

    def __init__(self, root: Path):
        self.root = root
        self.real = os.path.realpath(root)
        self.images = root / "images" if (root / "images").is_dir() else root
        self.listed = self.files(self.images, nested=self.images != root)
        self._read: dict[Path, object] = {}

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
            raise LabError(f"{shown} leads out of the data folder {self.root}; copy the file into that folder")
        return os.path.normpath(path)

    def files(self, folder: Path, *, nested: bool = True) -> dict[str, str]:
        """Paths of the image files in a folder by their names below it; regular files and links to them only."""
        found, waiting = {}, [self.inside(folder)]
        for here in waiting:
            try:
                entries = list(os.scandir(here))
            except OSError as error:
                raise LabError(f"{here} cannot be read ({error.strerror}); correct its permissions") from error
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    waiting += [entry.path] if nested else []
                elif os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES:
                    link = f"a symbolic link in {folder} (image file {len(found) + 1} of those read)"
                    path = self.inside(entry.path, link) if entry.is_symlink() else entry.path
                    if entry.is_file():
                        found[_below(path, waiting[0])] = path
        return found

    def image(self, name: object, where: str) -> str:
        """The name, as `listed` has it, of what an annotation or a table calls `name`; the file need not exist."""
        if not isinstance(name, str) or not name.strip():
            raise LabError(f"{where} names {kind_of(name)} as its image; expected a file name")
        if name in self.listed:
            return name
        what = f"the image that {where} names"
        try:
            candidates = [self.inside(os.path.join(base, name), what) for base in (self.images, self.root)]
            path = next((candidate for candidate in candidates if os.path.exists(candidate)), candidates[0])
        except OSError as error:
            raise LabError(f"{what} cannot be looked up ({error.strerror}); expected a file name") from None
        if os.path.exists(path) and not os.path.isfile(path):
            raise LabError(f"{what} is a folder, or another thing than a file; expected a file name")
        return _below(path, str(self.images))

    def path(self, name: str) -> Path:
        """Where the image of a name lies, or would."""
        return Path(self.listed.get(name) or os.path.normpath(os.path.join(self.images, name)))

    def read(self, path: Path) -> object:
        """What a JSON file of the folder holds, read once; LabError where it leads out, or cannot be read."""
        if path not in self._read:
            self._read[path] = read_json(self.inside(path))
        return self._read[path]

    def table(self, name: str) -> object | None:
        """What a table beside the data holds; None where there is none."""
        path = self.root / name
        return self.read(path) if os.path.isfile(self.inside(path)) else None


def kind_of(value: object) -> str:
    """What JSON calls a value, for a sentence."""
    names = {dict: "a table", list: "a list", str: "text", type(None): "null", bool: "true or false"}
    return names.get(type(value), "a number")


def is_size(value: object) -> bool:
    """Whether something is [width, height] in pixels of an image that can be."""
    return isinstance(value, list) and len(value) == 2 and all(type(side) is int and 0 < side < 2**15 for side in value)


def second_file(path: Path) -> Path:
    """Where a second annotator's file lies, if there is one."""
    return path.with_name(f"{path.stem}_obs2{path.suffix}")


def _below(path: str, base: str) -> str:
    """A path's name below a folder, with forward slashes."""
    prefix = base + os.sep
    return (path[len(prefix) :] if path.startswith(prefix) else os.path.relpath(path, base)).replace(os.sep, "/")
