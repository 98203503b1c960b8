"""COCO: one JSON file with images, categories and annotations, each a list of polygons or run lengths."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from sa2va_lab.datasets.annotations import is_size
from sa2va_lab.datasets.defects import Defect
from sa2va_lab.datasets.drawings import Drawing, Thing
from sa2va_lab.datasets.folders import Folder, kind_of
from sa2va_lab.datasets.polygons import read_runs
from sa2va_lab.errors import LabError


def is_coco(content: object) -> bool:
    """Whether JSON looks like COCO."""
    return isinstance(content, dict) and {"images", "annotations"} <= content.keys()


def read_coco(folder: Folder, path: Path, content: dict) -> tuple[dict[str, Drawing], list[Defect]]:
    """What the file says by image name, and what belongs to no image; LabError where the file as a whole fails.

    An image of the file without an annotation is annotated all the same: COCO has no other way to say "nothing".
    """
    for part in ("images", "annotations", "categories"):
        if not isinstance(content.get(part, []), list):
            raise LabError(f'"{part}" in {path} is {kind_of(content[part])}; expected a list')
    phrases = _read_categories(content.get("categories", []))
    drawings: dict[str, Drawing] = {}
    by_id: dict[object, Drawing] = {}
    defects = []
    for number, image in enumerate(content["images"], 1):
        where = f"image {number} of {path.name}"
        if not isinstance(image, dict) or type(image.get("id")) not in (int, str):
            raise LabError(f"{where} is {kind_of(image)} without an id; expected id, file_name, width and height")
        name = folder.image(image.get("file_name"), where)
        drawing = drawings.setdefault(name, Drawing(entries=0))
        drawing.entries += 1
        if image["id"] in by_id:
            raise LabError(f"{where} has the id of another image; expected an id for each, export the file again")
        if drawing.entries == 2:
            drawing.note("duplicate_entry", "annotated more than once: the objects are joined")
        by_id[image["id"]] = drawing
        size = [image.get("width"), image.get("height")]
        if is_size(size):
            drawing.size = (size[1], size[0])
        else:
            drawing.note("wrong_type", "the file states no size for it: taken as the image's own")
    strangers: Counter[str] = Counter()
    for annotation in content["annotations"]:
        if not isinstance(annotation, dict):
            strangers["are not annotations"] += 1
            continue
        owner = annotation.get("image_id")
        drawing = by_id.get(owner) if type(owner) in (int, str) else None
        if drawing is None:
            strangers["belong to no image"] += 1
        else:
            _add(drawing, annotation, phrases)
    for what, count in strangers.items():
        defects.append(Defect("orphan_file", f"{count} annotations {what}"))
    return drawings, defects


def _read_categories(categories: list) -> dict[object, str]:
    phrases = {}
    for category in categories:
        if isinstance(category, dict) and type(category.get("id")) in (int, str):
            name = category.get("name")
            if isinstance(name, str) and name.strip():
                phrases[category["id"]] = name.strip()
    return phrases


def _add(drawing: Drawing, annotation: dict, phrases: dict[object, str]) -> None:
    label = f"object {len(drawing.things) + 1}"
    category = annotation.get("category_id")
    phrase = phrases.get(category) if type(category) in (int, str) else None
    if phrase is None:
        drawing.note("text_type", f"{label} is of no known category: left out")
    thing = Thing(phrase)
    drawing.things.append(thing)
    drawn = annotation.get("segmentation")
    if isinstance(drawn, dict):
        if drawing.size is None:
            drawing.note("wrong_type", f"{label} has run lengths, but its image no size: skipped")
            return
        runs, defect = read_runs(drawn, drawing.size)
        if defect:
            drawing.note(defect.kind, f"{label} {defect.text}: skipped")
        else:
            thing.runs.append(runs)
    else:
        thing.polygons = drawing.keep_polygons(drawn, label)
