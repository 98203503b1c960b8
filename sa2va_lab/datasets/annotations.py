"""Sa2VA's own annotations.json: a list of {"image", "mask": objects > polygons > x0, y0, x1, ..., "text": phrases}.

Two nestings are met: the official one, and one flat polygon per object.
"""

from __future__ import annotations

from pathlib import Path

from sa2va_lab.datasets.drawings import Drawing, Found, Thing, open_entry, read_phrase
from sa2va_lab.datasets.folders import Folder, as_table, is_size, kind_of, second_file
from sa2va_lab.errors import LabError

NAME = "sa2va"


def find(folder: Folder, file: Path | None) -> Found | None:
    """What the folder's annotations.json says, or the file that was named; None where there is none."""
    path = file or folder.root / "annotations.json"
    if not path.exists():
        return None
    found = Found(NAME, "")
    found.drawings[1] = _read(folder, path, found)
    if second_file(path).is_file():
        found.drawings[2] = _read(folder, second_file(path), found)
    flat = sum(any(d.kind == "flat_nesting" for d in drawing.defects) for drawing in found.drawings[1].values())
    nesting = f"flat polygons (object > coordinates) in {flat} of {len(found.drawings[1])} images, " if flat else ""
    found.words = f"Sa2VA annotations.json: {nesting}"
    return found


def _read(folder: Folder, path: Path, found: Found) -> dict[str, Drawing]:
    """What the file says by image name; a defect in one entry is noted there. LabError where the whole file fails."""
    entries = folder.read(path)
    if not isinstance(entries, list):
        raise LabError(f"{path} holds {kind_of(entries)}; expected a list of entries with image, mask and text")
    sizes = _read_sizes(folder)
    drawings: dict[str, Drawing] = {}
    numbered = enumerate(entries, 1)
    places = [(as_table(entry).get("image"), f"entry {number} of {path.name}") for number, entry in numbered]
    for image, entry in zip(folder.match(places, path.parent), entries, strict=True):
        masks = entry.get("mask")
        found.met["annotations"] += len(masks) if isinstance(masks, list) else 1
        _add(open_entry(drawings, image, sizes.get(image)), entry)
    return drawings


def _add(drawing: Drawing, entry: dict) -> None:
    masks = entry.get("mask")
    if not isinstance(masks, list):
        drawing.note("wrong_type", "its mask is not a list of objects")
        drawing.things.append(Thing(None))
        return
    phrases = _phrases(drawing, entry.get("text"), len(masks))
    for number, (drawn, phrase) in enumerate(zip(masks, phrases, strict=True), 1):
        drawing.things.append(Thing(phrase, drawing.keep_polygons(drawn, f"object {number}")))


def _phrases(drawing: Drawing, text: object, count: int) -> list[str | None]:
    listed = isinstance(text, list)
    if isinstance(text, str):
        drawing.note("text_type", "its text is one string instead of a list: taken as the phrase of every object")
        text = [text] * count
    elif not listed:
        drawing.note("text_type", "it has no list of phrases: its objects belong to no phrase")
        text = [None] * count
    elif len(text) != count:
        rest = "objects without a phrase are left out" if len(text) < count else "the phrases left over are ignored"
        drawing.note("text_length", f"{len(text)} phrases for {count} objects: {rest}")
    phrases = [read_phrase(word) for word in text[:count]]
    if None in phrases and listed:
        drawing.note("text_type", "a phrase is empty or not text: its object is left out")
    return phrases + [None] * (count - len(phrases))


def _read_sizes(folder: Folder) -> dict[str, tuple[int, int]]:
    """(height, width) that images were annotated at, by the optional sizes.json ({image: [width, height]})."""
    table = folder.table("sizes.json")
    right = isinstance(table, dict | None) and all(map(is_size, as_table(table).values()))
    folder.expect("sizes.json", right, "sizes: image names with [width, height] in pixels")
    numbered = enumerate(as_table(table).items(), 1)
    return {folder.image(name, f"entry {n} of sizes.json"): (size[1], size[0]) for n, (name, size) in numbered}
