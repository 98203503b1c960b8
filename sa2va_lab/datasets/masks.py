"""Masks as image files of the images' stems: images/ and masks/, a second annotator's in masks_obs2/."""

from __future__ import annotations

import os
from pathlib import Path

from sa2va_lab.datasets.defects import Defect
from sa2va_lab.datasets.drawings import CHECK, Found, MaskFile
from sa2va_lab.datasets.folders import Folder, kind_of
from sa2va_lab.errors import LabError

NAME = "mask folder"
PLACES = {1: "masks", 2: "masks_obs2"}
UNNAMED = "blood vessel"  # what masks are of where nobody says


def find(folder: Folder, file: Path | None) -> Found | None:
    """The folder's mask files; None where it has no images/ and masks/ beside each other."""
    if file or folder.images == folder.root or not (folder.root / PLACES[1]).is_dir():
        return None
    words, labels = "images/ and masks/ of the same stems: ", {}
    table = folder.table("labels.json")
    if table is not None:
        labels = _read_labels(folder, table)
        words += f"label images of {len(labels)} values, "
    found = Found(NAME, words, unnamed=UNNAMED, rasteriser="none: the truths are mask files")
    found.phrases = dict.fromkeys(sorted(labels, key=labels.get), 0)  # how many there are is not known before reading
    for annotator, place in PLACES.items():
        found.drawings[annotator] = _pair(folder, place, found.defects, labels)
    return found


def add_checks(folder: Folder, found: Found) -> None:
    """Adds mask files that lie beside outlines: the same truth drawn once more, to be compared with them."""
    if folder.images != folder.root:
        found.drawings[CHECK] = _pair(folder, PLACES[1], found.defects, {})


def _pair(folder: Folder, place: str, defects: list[Defect], labels: dict[str, int]) -> dict[str, MaskFile]:
    """Mask files by the name of their image; those of no image are a defect."""
    where = folder.root / place
    masks = _by_stem(folder.files(where), where) if where.is_dir() else {}
    names = {stem: image for image, stem in zip(folder.listed, _by_stem(folder.listed, folder.images), strict=True)}
    orphans = len(masks.keys() - names.keys())
    if orphans:
        defects.append(Defect("orphan_file", f"{orphans} masks belong to no image"))
    return {names[stem]: MaskFile(Path(path), labels=labels) for stem, path in masks.items() if stem in names}


def _by_stem(files: dict[str, str], where: Path) -> dict[str, str]:
    stems = {os.path.splitext(name)[0]: path for name, path in files.items()}
    if len(stems) < len(files):
        count = len(files) - len(stems)
        raise LabError(f"{where} holds {count} files whose stem another one has; expected one each, move them away")
    return stems


def _read_labels(folder: Folder, table: object) -> dict[str, int]:
    """{phrase: value}, from that or from {value: phrase}."""
    labels = {}
    for key, value in table.items() if isinstance(table, dict) else ():
        phrase, number = (key, value) if isinstance(value, int) else (value, key)
        if isinstance(phrase, str) and phrase.strip() and str(number).isdecimal() and 0 < int(number) < 65536:
            labels[phrase.strip()] = int(number)
    if not labels or len(labels) != len(table) or len(set(labels.values())) != len(labels):
        raise LabError(
            f"{folder.root / 'labels.json'} is {kind_of(table)} of something else; expected a value from 1 for each "
            'phrase, such as {"blood vessel": 1, "catheter": 2}'
        )
    return labels
