"""LabelMe and its kin (X-AnyLabeling, ReasonSeg): for each image a JSON file of the same stem with its shapes, each of
which has a label.

Of a file only the shapes and the stated size are kept: a copy of the image (`imageData`) and the path on the
annotator's machine (`imagePath`) are read past and dropped.
"""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco

from sa2va_lab.datasets.defects import Defect
from sa2va_lab.datasets.drawings import ORIGIN, Drawing, DrawnTruth, Found, Thing, open_entry, read_origin, read_phrase
from sa2va_lab.datasets.folders import Folder, as_table
from sa2va_lab.datasets.geometry import fill_polygons
from sa2va_lab.datasets.naming import SECOND

NAME = "labelme"
IGNORE = "ignore"  # the label of ReasonSeg's regions that are neither
TWO_OR_FOUR = ("rectangle", "rotation", "oriented_rectangle", "quadrilateral")  # by two corners or by all four
CIRCLE_POINTS = 64


def find(folder: Folder, file: Path | None) -> Found | None:
    """What the folder's LabelMe files say; None where it is no LabelMe folder."""
    paths = {path.relative_to(folder.root).as_posix(): path for path in ([] if file else folder.annotation_files())}
    contents = {n: as_table(folder.attempt(path)) for n, path in paths.items() if path.name != "annotations.json"}
    read = sum("shapes" in content for content in contents.values())
    if not read:
        return None
    found = Found(NAME, f"LabelMe, {read} files: ", {1: {}})
    matches = folder.pair(contents)
    strangers = []
    for name, content in contents.items():
        match = matches[name]
        drawings = found.drawings.setdefault(2 if match and match.role == SECOND else 1, {})
        if "shapes" in content:
            # a path from another machine: its end may name an image, and the path itself is never opened
            stated = str(content.get("imagePath")).replace("\\", "/").rpartition("/")[2]
            stated = stated if stated in folder.listed else name.rpartition(".")[0].removeprefix("images/") + ".png"
            image = match.image if match else stated
            shapes = content["shapes"]
            found.met["annotations"] += len(shapes) if isinstance(shapes, list) else 1
            _add(open_entry(drawings, image), content)
            _add_question(folder, found, image, content)
            found.origins[image] = read_origin(content.get(ORIGIN))
        elif match is None:
            strangers.append(name)
        else:
            drawing = open_entry(drawings, match.image)
            drawing.things.append(Thing(None, count=0))
            drawing.note("unreadable_annotation", "its annotation file is damaged: not JSON, or not LabelMe's")
    if strangers:
        found.defects.append(Defect("orphan_file", f"{len(strangers)} JSON files are no annotation of an image"))
    return found


def _add_question(folder: Folder, found: Found, image: str, content: dict) -> None:
    """ReasonSeg's sentence, and its regions that are neither the thing nor not: of the shapes the smaller ones lie on
    top, as in its authors' loader."""
    text = content.get("text")
    if "is_sentence" not in content or not isinstance(text, list):
        return
    drawing = found.drawings[1][image]
    asked = next(filter(None, map(read_phrase, text)), None)
    if asked is None:
        drawing.note("text_type", "it brings no question")
    else:
        found.prompts[image] = {thing.phrase: asked for thing in drawing.things if thing.phrase}
    ignored = [thing for thing in drawing.things if thing.phrase == IGNORE]
    if ignored:
        shapes = [(polygon, thing.phrase == IGNORE) for thing in drawing.things for polygon in thing.polygons]
        drawing.things = [thing for thing in drawing.things if thing.phrase != IGNORE]
        drawing.aside = sum(thing.count for thing in ignored)
        found.ignored[image] = _paint(shapes, drawing.size or folder.size(image))


def _paint(shapes: list[tuple[np.ndarray, bool]], size: tuple[int, int] | None) -> DrawnTruth:
    """What is ignored of outlines that are ignored or not, the smaller ones on top, on a picture of (height, width)."""
    if size is None:
        return DrawnTruth(tuple(polygon for polygon, ignored in shapes if ignored))
    drawn = [(fill_polygons([polygon], size), ignored) for polygon, ignored in shapes]
    canvas = np.zeros(size, np.uint8, order="F")
    for mask, ignored in sorted(drawn, key=lambda each: -each[0].sum()):
        canvas[mask] = ignored
    return DrawnTruth((), (coco.encode(canvas),), size)


def _add(drawing: Drawing, content: dict) -> None:
    size = [content.get("imageWidth"), content.get("imageHeight")]
    if size != [None, None]:
        drawing.state_size(size)
    if content.get("imageData") or re.search(r"[\\/]", str(content.get("imagePath") or "")):
        drawing.note("private_metadata", "its annotation file holds a copy of the image or a path: dropped")
    shapes = content["shapes"]
    if not isinstance(shapes, list):
        drawing.note("wrong_type", "its shapes are not a list")
        drawing.things.append(Thing(None))
        return
    together: dict[tuple, Thing] = {}
    for number, shape in enumerate(shapes, 1):
        label = f"shape {number}"
        if not isinstance(shape, dict):
            drawing.note("wrong_type", f"{label} is not a shape: skipped")
            drawing.things.append(Thing(None))
            continue
        phrase, group = read_phrase(shape.get("label")), shape.get("group_id")
        part_of = (phrase, group if isinstance(group, int) else label)  # one object in several parts
        if part_of in together:
            together[part_of].count += 1
        else:
            together[part_of] = drawing.add(phrase, label)
        _add_shape(drawing, together[part_of], shape, label)


def _add_shape(drawing: Drawing, thing: Thing, shape: dict, label: str) -> None:
    kind = shape.get("shape_type") or "polygon"
    points = shape.get("points")
    if not isinstance(points, list) or not all(isinstance(point, list) and len(point) == 2 for point in points):
        drawing.note("wrong_type", f"{label}: its points are not a list of x and y: skipped")
        return
    flat = [value for point in points for value in point]
    finite = all(type(value) in (int, float) and abs(value) < 1e6 for value in flat)
    two = finite and len(flat) == 4
    if kind == "mask":
        _add_mask(drawing, thing, shape.get("mask"), flat[:2] if finite else [], label)
        return
    if kind in TWO_OR_FOUR and two:
        (left, top), (right, bottom) = points
        flat = [left, top, right, top, right, bottom, left, bottom]
    elif kind == "circle" and two:
        turns = np.linspace(0, 2 * np.pi, CIRCLE_POINTS, endpoint=False)
        radius = float(np.hypot(flat[2] - flat[0], flat[3] - flat[1]))
        flat = np.stack([flat[0] + radius * np.cos(turns), flat[1] + radius * np.sin(turns)], 1).ravel()
    elif kind not in ("polygon", *TWO_OR_FOUR):
        drawing.note("not_an_area", f"{label} is no outline and encloses nothing: left out")
        return
    thing.polygons += drawing.keep_polygon(flat, label)


def _add_mask(drawing: Drawing, thing: Thing, encoded: object, first: list, label: str) -> None:
    """A shape of LabelMe's kind "mask": a PNG in base64 that lies with its first pixel on the first point."""
    try:
        left, top = map(int, first)
        if drawing.size is None or left < 0 or top < 0:
            raise ValueError
        with Image.open(io.BytesIO(base64.b64decode(encoded, validate=True))) as opened:
            piece = np.asarray(opened.convert("L")) > 0
        whole = np.zeros(drawing.size, np.uint8, order="F")
        part = whole[top : top + piece.shape[0], left : left + piece.shape[1]]
        part[:] = piece[: part.shape[0], : part.shape[1]]
    except (TypeError, ValueError, OSError, SyntaxError, Image.DecompressionBombError):
        drawing.note("wrong_type", f"{label} is a mask that cannot be read: skipped")
        return
    thing.runs.append(coco.encode(whole))
