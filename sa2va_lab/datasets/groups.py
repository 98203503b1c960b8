"""Which patient and which video an image belongs to: by a table, by a pattern, or by the file names.

Frames of one patient resemble each other, so nothing may count them as independent and no split may part them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from sa2va_lab.datasets.folders import Folder
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
        return *_by_pattern(images, pattern), True
    table = folder.table("groups.json")
    if table is not None:
        return *_by_table(folder, images, table), True
    folders = _by_folder(images)
    for name, expression in PATTERNS.items() if len(folders) < 2 else [next(iter(PATTERNS.items()))]:
        found = [re.search(expression, _stem(image)) for image in images]
        patients = {match["patient"] for match in found if match}
        some = len(patients) > 1 or name == "patient_V#_F#"
        if all(found) and some and len(patients) < len(images):
            places = {image: _place(match) for image, match in zip(images, found, strict=True)}
            return places, f'{len(patients)} groups by the file names, read as "{name}"', False
    if len(folders) > 1:
        places = {image: place for each in folders.values() for image, place in each.items()}
        return places, f"{len(folders)} groups by the folders that the images lie in", False
    alone = {image: (ALONE + image, "") for image in images}
    return alone, "each image a group of its own (no groups.json, and the file names show none)", False


def _by_folder(images: Sequence[str]) -> dict[str, dict[str, tuple[str, str]]]:
    """(patient, video) of the images by patient, where all lie in folders that are no splits; else nothing."""
    found: dict[str, dict[str, tuple[str, str]]] = {}
    for image in images:
        dirs = [each for each in read_place(image).dirs if not split_of(each, whole=True)]
        if not dirs:
            return {}
        found.setdefault(dirs[0], {})[image] = (dirs[0], "/".join(dirs[1:]))
    return found


def _by_pattern(images: Sequence[str], pattern: str) -> tuple[dict[str, tuple[str, str]], str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise LabError(f"groups is {pattern!r}, not a regular expression ({error}); correct it") from error
    named = set(compiled.groupindex)
    if (named and not {"patient"} <= named <= {"patient", "video"}) or (not named and compiled.groups != 1):
        raise LabError(
            f"groups is {pattern!r} with {compiled.groups} capture groups; expected exactly one, "
            "or (?P<patient>...) and (?P<video>...)"
        )
    places = {}
    for number, image in enumerate(images, 1):
        match = compiled.search(image)
        if match is None or match["patient" if named else 1] is None:
            raise LabError(
                f"groups is {pattern!r}, which finds nothing in the name of image {number} of {len(images)} "
                "by name; widen it"
            )
        places[image] = _place(match) if named else (match[1], "")
    return places, f"{_count(places)} groups by the pattern given"


def _by_table(folder: Folder, images: Sequence[str], table: object) -> tuple[dict[str, tuple[str, str]], str]:
    if not isinstance(table, dict) or not all(_states(value) for value in table.values()):
        raise LabError(
            f"{folder.root / 'groups.json'} is not a table; expected image names with one patient each, "
            'or with {"patient": ..., "video": ...}'
        )
    stated = {}
    for number, (name, value) in enumerate(table.items(), 1):
        said = value if isinstance(value, dict) else {"patient": value}
        image = folder.image(name, f"entry {number} of groups.json")
        stated[image] = (f"named: {said['patient']}", str(said.get("video", _video(image))))
    missing = sum(image not in stated for image in images)
    places = {image: stated.get(image, (ALONE + image, "")) for image in images}
    reason = f"{len({patient for patient, _ in stated.values()})} groups by groups.json"
    return places, reason + (f" ({missing} images that it leaves out are groups of their own)" if missing else "")


def _states(value: object) -> bool:
    if isinstance(value, dict):
        return "patient" in value and all(isinstance(word, (str, int)) for word in value.values())
    return isinstance(value, (str, int))


def _video(image: str) -> str:
    """The video as an image's own name says it, empty where it does not."""
    match = re.search(PATTERNS["patient_V#_F#"], _stem(image))
    return match["video"] if match else ""


def _place(match: re.Match) -> tuple[str, str]:
    return match["patient"], (match.groupdict().get("video") or "")


def _stem(image: str) -> str:
    return os.path.splitext(os.path.basename(image))[0]


def _count(places: dict[str, tuple[str, str]]) -> int:
    return len({patient for patient, _ in places.values()})
