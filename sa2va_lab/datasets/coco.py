"""COCO: one JSON file with images, categories and annotations, each a list of polygons or run lengths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pycocotools import mask as coco

from sa2va_lab.datasets.copies import Copy
from sa2va_lab.datasets.defects import Defect
from sa2va_lab.datasets.drawings import Drawing, Found, Thing, open_entry
from sa2va_lab.datasets.folders import Folder, is_size, kind_of, second_file
from sa2va_lab.datasets.polygons import read_runs
from sa2va_lab.errors import LabError

NAME = "coco"
HOLDS_HOLES = True  # as run lengths
PLACES = ("annotations.json", "_annotations.coco.json", "coco.json", "annotations/*.json", "*.coco.json")


def find(folder: Folder, file: Path | None) -> Found | None:
    """What the folder's first COCO file says, or the file that was named; None where it is of another format."""
    files = [path for place in PLACES for path in sorted(folder.root.glob(place)) if not path.stem.endswith("_obs2")]
    for path in files if file is None else [file]:
        if not is_coco(folder.read(path)):
            if path == folder.root / "annotations.json":
                return None
            continue
        first, defects = _read(folder, path)
        found = Found(NAME, f"COCO ({path.name}): ", {1: first}, defects)
        other = second_file(path)
        if other.is_file():
            if not is_coco(folder.read(other)):
                raise LabError(f"{other} is not COCO as {path.name} is; expected images and annotations")
            found.drawings[2], more = _read(folder, other)
            found.defects += [Defect(defect.kind, f"second annotator: {defect.text}") for defect in more]
        return found
    return None


def write(copies: list[Copy], annotator: int, *, tolerance: float) -> dict:
    """What an annotator drew; objects with holes as run lengths.

    COCO has no way to say that nobody looked: images that the annotator did not annotate are not in the file.
    """
    things = [(copy, thing) for copy in copies for thing in copy.objects[annotator]]
    phrases = list(dict.fromkeys(thing.phrase for _, thing in things))
    numbers = {copy.id: number for number, copy in enumerate(copies, 1)}
    images = [
        {"id": numbers[copy.id], "file_name": copy.image, "width": copy.size[1], "height": copy.size[0]}
        for copy in copies
    ]
    annotations = []
    for number, (copy, thing) in enumerate(things, 1):
        if thing.mask is None:
            runs = coco.merge(coco.frPyObjects(thing.polygons, *copy.size))
        else:
            runs = coco.encode(np.asfortranarray(thing.mask.astype(np.uint8)))
        whole = {"size": list(copy.size), "counts": runs["counts"].decode()}
        annotations.append(
            {
                "id": number,
                "image_id": numbers[copy.id],
                "category_id": phrases.index(thing.phrase) + 1,
                "segmentation": whole if thing.holes else thing.outline(tolerance),
                "area": int(coco.area(runs)),
                "bbox": [float(side) for side in coco.toBbox(runs)],
                "iscrowd": int(thing.holes > 0),
            }
        )
    categories = [{"id": number, "name": phrase} for number, phrase in enumerate(phrases, 1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def is_coco(content: object) -> bool:
    """Whether JSON looks like COCO."""
    return isinstance(content, dict) and {"images", "annotations"} <= content.keys()


def _read(folder: Folder, path: Path) -> tuple[dict[str, Drawing], list[Defect]]:
    """What the file says by image name, and what belongs to no image; LabError where the file as a whole fails.

    An image of the file without an annotation is annotated all the same: COCO has no other way to say "nothing".
    """
    content = folder.read(path)
    for part in ("images", "annotations", "categories"):
        if not isinstance(content.get(part, []), list):
            raise LabError(f'"{part}" in {path} is {kind_of(content[part])}; expected a list')
    phrases = _read_categories(path, content.get("categories", []))
    drawings: dict[str, Drawing] = {}
    by_id: dict[object, Drawing] = {}
    for number, image in enumerate(content["images"], 1):
        where = f"image {number} of {path.name}"
        if not isinstance(image, dict) or type(image.get("id")) not in (int, str):
            raise LabError(f"{where} is {kind_of(image)} without an id; expected id, file_name, width and height")
        if image["id"] in by_id:
            raise LabError(f"{where} has the id of another image; expected an id for each, export the file again")
        drawing = open_entry(drawings, folder.image(image.get("file_name"), where))
        by_id[image["id"]] = drawing
        size = [image.get("width"), image.get("height")]
        if is_size(size):
            drawing.size = (size[1], size[0])
        else:
            drawing.note("wrong_type", "the file states no size for it: taken as the image's own")
    strangers = 0
    for annotation in content["annotations"]:
        owner = annotation.get("image_id") if isinstance(annotation, dict) else None
        drawing = by_id.get(owner) if type(owner) in (int, str) else None
        if drawing is None:
            strangers += 1
        else:
            _add(drawing, annotation, phrases)
    text = f"{strangers} annotations belong to no image"
    return drawings, [Defect("orphan_file", text)] if strangers else []


def _read_categories(path: Path, categories: list) -> dict[object, str]:
    phrases = {}
    for category in categories:
        if isinstance(category, dict) and type(category.get("id")) in (int, str):
            name = category.get("name")
            if not isinstance(name, str) or not name.strip():
                continue
            if phrases.setdefault(category["id"], name.strip()) != name.strip():
                raise LabError(
                    f"the category id {category['id']} stands for two names in {path.name}; "
                    "expected an id for each, export the file again"
                )
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
