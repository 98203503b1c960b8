"""Masks as image files beside the images, or in folders of their own; `naming` says what belongs to what."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from sa2va_lab.datasets.accounts import pair_up
from sa2va_lab.datasets.drawings import BACKGROUND, CHECK, REST, UNNAMED, Found, MaskFile
from sa2va_lab.datasets.folders import Folder, kind_of
from sa2va_lab.datasets.naming import FIELD, FIRST, SECOND, match_files
from sa2va_lab.errors import LabError

NAME = "mask folder"
THRESHOLD = "mask_threshold"  # the key of labels.json that says from which grey value on a mask is foreground


def find(folder: Folder, file: Path | None) -> Found | None:
    """The folder's mask files; None where there are none."""
    if file or not (folder.masks or (folder.root / "masks").is_dir()):
        return None
    found = Found(NAME, "", unnamed=UNNAMED, rasteriser="none: the truths are mask files")
    labels, threshold = _read_values(folder, folder.table("labels.json"))
    names = sorted(labels.keys() - {BACKGROUND}, key=labels.get)
    found.phrases = dict.fromkeys(names, 0)  # how many there are is not known before reading
    _pair(folder, found, {FIRST: 1, SECOND: 2}, labels=labels, threshold=threshold)
    found.words += f"label images of {len(labels)} names, " if labels else ""
    found.words += f"grey masks from {threshold} on, " if threshold is not None else ""
    return found


def add_checks(folder: Folder, found: Found) -> None:
    """Adds mask files that lie beside outlines: the same truth drawn once more, to be compared with them."""
    if folder.masks:
        _pair(folder, found, {FIRST: CHECK} | ({} if 2 in found.drawings else {SECOND: 2}))


def read_labels(table: object) -> dict[str, str]:
    """{label or value of a mask, as text: phrase}, from {label: phrase}, {phrase: value} or {phrase: [values]}."""
    names = {}
    for key, said in table.items() if isinstance(table, dict) else ():
        pairs = (
            [(key, said)] if isinstance(said, str) else [(v, key) for v in (said if isinstance(said, list) else [said])]
        )
        names |= {str(label).strip(): phrase.strip() for label, phrase in pairs if phrase.strip()}
    return names


def _read_values(folder: Folder, table: object) -> tuple[dict[str, tuple[int, ...]], float | None]:
    """The values of each phrase that labels.json names, and the threshold that it states."""
    if table is None:
        return {}, None
    threshold = table.pop(THRESHOLD, None) if isinstance(table, dict) else None
    labels: dict[str, tuple[int, ...]] = {}
    names = read_labels(table)
    right = isinstance(table, dict) and (names or threshold is not None)
    for value, phrase in names.items():
        value, phrase = value.removeprefix("#"), BACKGROUND if phrase.lower() == BACKGROUND else phrase
        colour = len(value) == 6 and f"#{value}" in names
        right = right and (value == "*" or colour or (value.isdecimal() and int(value) < 2**24))
        if right:
            number = int.from_bytes(bytes.fromhex(value), "little") if colour else REST if value == "*" else int(value)
            labels[phrase] = (*labels.get(phrase, ()), number)
    if not right or not (threshold is None or type(threshold) in (int, float)):
        raise LabError(
            f"{folder.root / 'labels.json'} is {kind_of(table)} of something else; expected the values of each "
            'phrase, such as {"blood vessel": [1, 2], "catheter": 3}'
        )
    return labels, threshold


def _pair(folder: Folder, found: Found, annotators: dict[str, int], **how) -> None:
    """Mask files by the name of their image, into `found`; those of no image are strays."""
    matches = match_files(folder.masks, {folder.named(name): name for name in folder.listed})
    fits = {name: match for name, match in matches.items() if match}
    strong = any(match.role == FIRST and not match.weak for match in fits.values())
    twice = 0
    for name, match in fits.items():
        role = FIELD if match.weak and match.role == FIRST and strong else match.role
        if role != FIELD and role not in annotators:
            matches.pop(name)
            continue
        into = found.ignored if role == FIELD else found.drawings.setdefault(annotators[role], {})
        twice += match.image in into
        path = Path(folder.masks[name])
        into[match.image] = MaskFile(path, outside=True) if role == FIELD else MaskFile(path, **how)
    if twice:
        raise LabError(
            f"{folder.root} holds {twice} masks of images that have another one; expected one for each image and "
            "annotator, move them away"
        )
    lost = [name for name, match in matches.items() if match is None]
    found.stray("masks", lost, list(matches), "belong to no image", pair_up(lost, folder.listed) if lost else "")
    endings = Counter(match.ending for match in fits.values() if match.ending)
    told = f" (by their names: {', '.join(endings)})" if endings else ""
    if found.format == NAME:
        found.words = f"images and their masks{told}: "
    found.words += "fields of view, outside of which nothing counts, " if found.ignored else ""
