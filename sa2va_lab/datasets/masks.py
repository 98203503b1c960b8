"""Masks as image files beside the images, or in folders of their own; `naming` says what belongs to what."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from sa2va_lab.datasets.drawings import BACKGROUND, CHECK, REST, UNNAMED, Found, MaskFile
from sa2va_lab.datasets.folders import Folder, as_table
from sa2va_lab.datasets.naming import FIELD, FIRST, SECOND, pair_up
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


def read_labels(table: object) -> list[tuple[str, str]]:
    """(label or value of a mask, phrase) from {label: phrase}, {phrase: value} or {phrase: [values]}."""
    pairs = []
    for key, said in as_table(table).items():
        values = said if isinstance(said, list) else [said]
        pairs += [(key, said)] if isinstance(said, str) else [(str(value), key) for value in values]
    return [(label.strip(), phrase.strip()) for label, phrase in pairs if phrase.strip()]


def _read_values(folder: Folder, table: object) -> tuple[dict[str, tuple[int, ...]], float | None]:
    """The values of each phrase that labels.json names, and the threshold that it states."""
    if table is None:
        return {}, None
    threshold = as_table(table).get(THRESHOLD)
    pairs = [(label, phrase) for label, phrase in read_labels(table) if phrase != THRESHOLD]
    right = (pairs or threshold is not None) and len(dict(pairs)) == len(pairs)
    labels: dict[str, tuple[int, ...]] = {}
    for label, phrase in pairs:
        colour = re.fullmatch(r"#([0-9a-fA-F]{6})", label)
        number = REST if label == "*" else int(label) if label.isdecimal() and len(label) < 9 else None
        number = int.from_bytes(bytes.fromhex(colour[1]), "little") if colour else number
        name = BACKGROUND if phrase.lower() == BACKGROUND else phrase
        right = right and number is not None and (number != 0 or name == BACKGROUND)
        labels[name] = (*labels.get(name, ()), number)
    right = right and (threshold is None or type(threshold) in (int, float))
    folder.expect("labels.json", right, 'the values of each phrase, such as {"blood vessel": [1, 2], "catheter": 3}')
    return labels, threshold


def _pair(folder: Folder, found: Found, annotators: dict[str, int], **how) -> None:
    """Mask files by the name of their image, into `found`; those of no image are strays."""
    matches = folder.pair(folder.masks)
    fits = {name: match for name, match in matches.items() if match}
    strong = any(match.role == FIRST and not match.weak for match in fits.values())
    twice = 0
    for name, match in fits.items():
        role = FIELD if match.weak and match.role == FIRST and strong else match.role
        if role == FIELD or role in annotators:
            into = found.ignored if role == FIELD else found.drawings.setdefault(annotators[role], {})
            if match.image not in into:
                into[match.image] = MaskFile(Path(folder.masks[name]), **({"outside": True} if role == FIELD else how))
                continue
            twice += 1
        matches.pop(name)
    if twice and found.format == NAME:
        raise LabError(f"{folder.root} holds {twice} masks of images that have another one; move them away")
    found.words += f"{twice} more masks of the same images left out, " if twice else ""
    lost = [name for name, match in matches.items() if match is None]
    found.met["masks"] += len(matches)
    found.stray("masks", lost, len(matches), "{n} masks belong to no image", pair_up(lost, folder.listed))
    endings = Counter(match.ending for match in fits.values() if match.ending)
    if found.format == NAME:
        by = " ".join(endings)
        found.words = f"images and their masks (by their names: {by}): " if endings else "images and their masks: "
    found.words += "fields of view, outside of which nothing counts, " if found.ignored else ""
