"""What names of files and folders say: which is an image, which a mask of which image, by whom, of which split.

One table for every layout. A mask (or a JSON or text file) belongs to the image of the same place and stem, where
"place" leaves out the folders that say what lies in them (`images`, `masks`), and the stem may have an ending or a
beginning of the table (`f0_mask` is of `f0`). Nothing is left out of a stem that fits as it is.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from difflib import SequenceMatcher, get_close_matches
from pathlib import Path
from typing import NamedTuple

from sa2va_lab.errors import LabError

IMAGES, FIRST, SECOND, FIELD = "images", "masks", "masks of a second annotator", "fields of view"
FOLDERS = {
    IMAGES: "images image imgs img stare-images original originals",
    FIRST: "masks mask labels label labels-ah gt gts groundtruth ground_truth ground-truth annotations annotation "
    "1st_manual manual manual1 manual_1 segmentation segmentations segmentationclass json",
    SECOND: "masks_obs2 labels-vk 2nd_manual manual2 manual_2",
    FIELD: "fov",
}
ENDINGS = {
    SECOND: ("_2ndHO", ".vk", "_manual2", "_obs2"),
    FIRST: ("_1stHO", ".ah", "_manual1", "_mask", "-mask", "_masks", "_gt", "_seg", "_label", "_labels", "_annotation"),
    FIELD: ("_fov",),
}
BEGINNINGS = ("mask_", "gt_", "seg_", "label_")
SPLITS = {"train": "train training", "val": "val valid validation", "test": "test testing"}
WEAK = ("mask", "_mask")  # a field of view where the image has another truth, as in DRIVE and HRF

_ROLE_OF = {name: role for role, names in FOLDERS.items() for name in names.split()}
_SPLIT_OF = {name: split for split, names in SPLITS.items() for name in names.split()}


class Place(NamedTuple):
    """role: of FOLDERS, "" where no folder says. dirs: the folders that say nothing, and splits. split: or ""."""

    role: str
    dirs: tuple[str, ...]
    split: str
    stem: str
    weak: bool = False


def role_of(folder: str) -> str:
    """What lies in a folder of this name: of FOLDERS, or ""."""
    return _ROLE_OF.get(folder.lower(), "")


def split_of(name: str, *, whole: bool = False) -> str:
    """The split that a file is named after, such as "val" for `instances_val2017`, or ""; whole: by nothing else."""
    words = re.findall(r"[a-z]+", name.lower())
    return next((_SPLIT_OF[word] for word in words if word in _SPLIT_OF and not (whole and len(words) > 1)), "")


def read_place(name: str) -> Place:
    """What the folders of a file (with forward slashes, below the data folder) say."""
    *folders, last = name.split("/")
    roles = [role_of(folder) for folder in folders]
    dirs = tuple(folder for folder, role in zip(folders, roles, strict=True) if not role)
    split = next((said for each in dirs if (said := split_of(each, whole=True))), "")
    weak = any(folder.lower() in WEAK for folder in folders)
    stem = unicodedata.normalize("NFC", os.path.splitext(last)[0])  # macOS writes letters and their marks apart
    return Place(next((role for role in reversed(roles) if role), ""), dirs, split, stem, weak)


def shorten(stem: str) -> dict[str, tuple[str, str]]:
    """{what a stem is without one of ENDINGS or BEGINNINGS: (the role that this says, or "", the ending)}."""
    found = {}
    for role, endings in ENDINGS.items():
        for ending in endings:
            if stem.lower().endswith(ending.lower()) and len(stem) > len(ending):
                found.setdefault(stem[: -len(ending)], (role, ending))
    for beginning in BEGINNINGS:
        if stem.lower().startswith(beginning) and len(stem) > len(beginning):
            found.setdefault(stem[len(beginning) :], ("", beginning))
    return found


def part_images(files: Iterable[str]) -> tuple[list[str], list[str], list[str]]:
    """Image files by name, as (images, masks, others): what lies in folders of images where there are such folders,
    else what lies in none of masks; beside its image a file with one of ENDINGS or BEGINNINGS is a mask."""
    places = {name: read_place(name) for name in files}
    marked = any(place.role == IMAGES for place in places.values())
    images = [name for name, place in places.items() if place.role == (IMAGES if marked else "")]
    masks = [name for name, place in places.items() if place.role not in ("", IMAGES)]
    stems = {(places[name].dirs, places[name].stem) for name in images}
    beside = {n for n in images if any((places[n].dirs, short) in stems for short in shorten(places[n].stem))}
    others = [name for name, place in places.items() if marked and not place.role]
    return [name for name in images if name not in beside], masks + sorted(beside), others


class Match(NamedTuple):
    """A file's image; its role; the ending or beginning that its stem has more; and whether it is of WEAK."""

    image: str
    role: str
    ending: str
    weak: bool


def match_files(files: Iterable[str], images: Mapping[str, str]) -> dict[str, Match | None]:
    """The image of every file, None where no one image fits; see the module for the rule.

    images: {name below the data folder: what to return for it}. Raises LabError where two images have the place and
    stem that a file has.
    """
    exact: dict[tuple, list[str]] = {}
    anywhere: dict[str, list[str]] = {}
    for name in images:
        place = read_place(name)
        for stem in (stem for stem, said in _read_stems(place.stem).items() if said == ("", "")):
            exact.setdefault((place.dirs, stem), []).append(name)
        anywhere.setdefault(place.stem, []).append(name)
    only = {stem: names for stem, names in anywhere.items() if len(names) == 1}
    found: dict[str, Match | None] = {}
    for file in files:
        place = read_place(file)
        stems = _read_stems(place.stem)
        tried = [(exact.get((place.dirs, stem)), said) for stem, said in stems.items()]
        # files by patient, images all in one folder; or the other way round
        tried += [(exact.get(((), s)) if place.dirs else only.get(s), said) for s, said in stems.items()]
        hits, (role, ending) = next((pair for pair in tried if pair[0]), ([], ("", "")))
        if len(hits) > 1:
            raise LabError(f"the images hold {len(hits) - 1} files whose stem another one has; move them away")
        roles = {role, place.role}
        role = next((each for each in (FIELD, SECOND) if each in roles), FIRST)
        weak = place.weak or (ending in WEAK and place.role in ("", IMAGES))
        found[file] = Match(images[hits[0]], role, ending, weak) if hits else None
    return found


def _read_stems(stem: str) -> dict[str, tuple[str, str]]:
    """As `shorten` the stem itself and what it may be, each also without the name of a split (`_training` in DRIVE)."""
    found = {stem: ("", "")} | shorten(stem)
    for short, said in list(found.items()):
        ends = [f"_{name}" for name in _SPLIT_OF if short.lower().endswith(f"_{name}")]
        found |= {short[: -len(end)]: said for end in ends if len(short) > len(end)}
    return found


def pair_up(lost: Collection[str], there: Collection[str]) -> str:
    """One of the lost names beside the likest of those that are there, what both share left out: it may be a person's
    name."""
    if not there or not lost:
        return "there are none at all"
    stems = [Path(name).stem for name in lost]
    there = {Path(name).stem: Path(name).suffix for name in sorted(there)[:500]}
    own, [other] = stems[0], get_close_matches(stems[0], there, 1, 0)
    same = SequenceMatcher(None, own, other).find_longest_match()
    rest = own[same.a + same.size :]
    rest = rest if len(stems) > 1 and all(stem.endswith(rest) for stem in stems) else shape(rest)  # of all: no name
    dots, ending = "..." * (same.size > 0), Path(next(iter(lost))).suffix
    own = f"{shape(own[: same.a])}{dots}{rest}"
    said = f"{shape(other[: same.b])}{dots}{shape(other[same.b + same.size :])}"
    return f'one is called like "{own}{ending}", and what is there like "{said}{there[other]}"'


def shape(text: str) -> str:
    """A text without what it says, which may be a person's name: a letter is x and beside letters a digit 9."""
    named = re.search(r"[^\W\d_]", text)
    return re.sub(r"[^\W\d_]", "x", re.sub(r"\d", "9", text)) if named else text
