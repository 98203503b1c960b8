"""Which patient and which video an image belongs to: by a table, by a pattern, or by the file names.

Frames of one patient resemble each other, so nothing may count them as independent and no split may part them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath

from sa2va_lab.datasets.folders import Folder, as_table
from sa2va_lab.datasets.naming import read_place, split_of
from sa2va_lab.datasets.pseudonyms import ALONE
from sa2va_lab.errors import LabError

# Tried in this order on the name without its ending; the first that fits every image is used, and the reason shows it.
PATTERNS = {
    "patient_V#_F#": r"^(?P<patient>.+?)[_\-. ]+[Vv](?:ideo)?(?P<video>\d+)[_\-. ]+[Ff](?:rame)?\d+$",
    "patient_video_frame": r"^(?P<patient>.*[^\W\d_].*?)[_\- ]+(?P<video>\d{1,3})[_\- ]+\d{1,5}$",
    "video_frame": r"^(?P<patient>.*[^\W\d_].*?)[_\- ]+(?:[Ff]rame)?\d{1,5}$",
}


def find_groups(
    folder: Folder, images: Sequence[str], pattern: str | None
) -> tuple[dict[str, tuple[str, str]], str, bool]:
    """(patient, video) by image name, where that comes from in words without file names, and whether it was stated.

    pattern: a regular expression with one capture group (the patient), or with the groups `patient` and `video` by
    name. It overrides groups.json ({image: patient} or {image: {"patient": ..., "video": ...}}), which overrides the
    PATTERNS. Where nothing is known every image is a patient of its own.
    """
    if pattern is not None:
        places = _by_pattern(images, pattern)
        return places, f"{_count(places)} groups by the pattern given", True
    table = folder.table("groups.json")
    if table is not None:
        return *_by_table(folder, images, table), True
    by_folder = _by_folder(images)
    for name, expression in PATTERNS.items() if _count(by_folder) < 2 else [next(iter(PATTERNS.items()))]:
        found = {image: re.search(expression, PurePath(image).stem) for image in images}
        places = {image: _place(match) for image, match in found.items() if match}
        patients = _count(places)
        if len(places) == len(images) > patients and (patients > 1 or name == "patient_V#_F#"):
            return places, f'{patients} groups by the file names, read as "{name}"', False
    if _count(by_folder) > 1:
        return by_folder, f"{_count(by_folder)} groups by the folders that the images lie in", False
    alone = {image: (ALONE + image, "") for image in images}
    return alone, "each image a group of its own (no groups.json, and the file names show none)", False


def _by_folder(images: Sequence[str]) -> dict[str, tuple[str, str]]:
    """(patient, video) of the images where all lie in folders that are no splits; else nothing."""
    dirs = {image: [each for each in read_place(image).dirs if not split_of(each, whole=True)] for image in images}
    return {image: (said[0], "/".join(said[1:])) for image, said in dirs.items()} if all(dirs.values()) else {}


def _by_pattern(images: Sequence[str], pattern: str) -> dict[str, tuple[str, str]]:
    try:
        compiled = re.compile(pattern)
        named = set(compiled.groupindex)
        if named - {"video"} != {"patient"} and (named or compiled.groups != 1):
            raise re.error(f"it has {compiled.groups} capture groups")
    except re.error as error:
        expected = "expected a regular expression with one capture group, or (?P<patient>...) and (?P<video>...)"
        raise LabError(f"groups is {pattern!r} ({error}); {expected}") from None
    places = {}
    for number, image in enumerate(images, 1):
        match = compiled.search(image)
        if match is None or _place(match)[0] is None:
            which = f"image {number} of {len(images)}"
            raise LabError(f"groups is {pattern!r}, which finds nothing in the name of {which} by name; widen it")
        places[image] = _place(match)
    return places


def _by_table(folder: Folder, images: Sequence[str], table: object) -> tuple[dict[str, tuple[str, str]], str]:
    said = {name: value if isinstance(value, dict) else {"patient": value} for name, value in as_table(table).items()}
    words = [word for value in said.values() for word in (value.get("patient"), *value.values())]
    right = isinstance(table, dict) and all(isinstance(word, (str, int)) for word in words)
    folder.expect("groups.json", right, 'patients: image names with one each, or with {"patient": ..., "video": ...}')
    stated = {}
    for number, (name, value) in enumerate(said.items(), 1):
        image = folder.image(name, f"entry {number} of groups.json")
        by_name = re.search(PATTERNS["patient_V#_F#"], PurePath(image).stem)
        video = value.get("video", by_name["video"] if by_name else "")
        stated[image] = (f"named: {value['patient']}", str(video))
    missing = sum(image not in stated for image in images)
    places = {image: stated.get(image, (ALONE + image, "")) for image in images}
    reason = f"{_count(stated)} groups by groups.json"
    return places, reason + (f" ({missing} images that it leaves out are groups of their own)" if missing else "")


def _place(match: re.Match) -> tuple[str, str]:
    named = match.groupdict()
    return named.get("patient", match[1]), named.get("video") or ""


def _count(places: dict[str, tuple[str, str]]) -> int:
    return len({patient for patient, _ in places.values()})
