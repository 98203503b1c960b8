"""COCO: JSON files with images, categories and annotations, each a list of polygons or run lengths."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from sa2va_lab.datasets.defects import Defect
from sa2va_lab.datasets.drawings import ORIGIN, UNSAID, Drawing, Found, open_entry, read_origin, read_phrase
from sa2va_lab.datasets.folders import Folder, as_table, kind_of, second_file
from sa2va_lab.datasets.geometry import read_runs
from sa2va_lab.datasets.naming import shape, split_of
from sa2va_lab.errors import LabError

NAME = "coco"
SAID_ELSEWHERE = {"caption", "keypoints"}  # annotations that are no outlines


def find(folder: Folder, file: Path | None) -> Found | None:
    """What all COCO files of the folder say together, or the file that was named; None where there is none.

    Several files whose images differ are the data set's splits.
    """
    if file:
        folder.read(file)  # what was named is read, or said why not
    chosen, left_out, broken = _choose(folder, [file] if file else folder.annotation_files())
    if not chosen:
        return None
    found = Found(NAME, f"COCO ({', '.join(path.name for path in chosen)}): {left_out}", {1: {}})
    if broken:
        found.defects.append(Defect("unreadable_annotation", f"{broken} JSON files cannot be read"))
    for path in chosen:
        name = split_of(path.stem) or split_of(path.parent.name, whole=True) or path.stem
        found.splits.setdefault(name, []).extend(_read(folder, path, found, 1))
        if (second := second_file(path)).is_file():
            if not is_coco(folder.read(second)):
                raise LabError(f"{second} is not COCO as {path.name} is; expected images and annotations")
            _read(folder, second, found, 2)
    parts = list(found.splits.values())
    if len(parts) < 2 or len(set().union(*parts)) < sum(map(len, parts)):
        found.splits = {}
    return found


def _choose(folder: Folder, paths: list[Path]) -> tuple[list[Path], str, int]:
    """The COCO files that hold outlines, what of the others is to be said, and how many are broken."""
    chosen, elsewhere, others, broken = [], [], 0, 0
    for path in paths:
        content = folder.attempt(path)
        if content is None:
            broken += 1
        elif not is_coco(content):
            if path == folder.root / "annotations.json":
                return [], "", 0
            others += 1
        elif not path.stem.endswith("_obs2"):
            said = content["annotations"]
            first = as_table(said[0]) if isinstance(said, list) and said else {}
            (elsewhere if SAID_ELSEWHERE & first.keys() else chosen).append(path)
    chosen, elsewhere = (chosen, elsewhere) if chosen else (elsewhere, [])
    words = f"{len(elsewhere)} files of captions or key points left out, " if elsewhere else ""
    return chosen, words + (f"{others} other JSON files left out, " if others else ""), broken


def is_coco(content: object) -> bool:
    """Whether JSON looks like COCO."""
    return isinstance(content, dict) and {"images", "annotations"} <= content.keys()


def _read(folder: Folder, path: Path, found: Found, annotator: int) -> list[str]:
    """Adds what the file says to what others said; returns its images. LabError where the file as a whole fails.

    An image of the file without an annotation is annotated all the same: COCO has no other way to say "nothing".
    """
    content = folder.read(path)
    for part in ("images", "annotations", "categories"):
        if not isinstance(content.get(part, []), list):
            raise LabError(f'"{part}" in {path} is {kind_of(content[part])}; expected a list')
    images = content["images"]
    annotations = [as_table(each) for each in content["annotations"]]
    phrases = _read_categories(path, content.get("categories", []), annotations, found)
    ids = [_id(as_table(image).get("id")) for image in images]
    count = Counter(ids)
    for number, key in enumerate(ids, 1):
        if key is None or count[key] > 1:
            what = f"image {number} of {path.name} is {kind_of(images[number - 1])} without an id of its own"
            raise LabError(f"{what}; expected id, file_name, width and height: export the file again")
    origins = as_table(as_table(content.get("info")).get(ORIGIN))
    places = ((image.get("file_name"), f"image {number} of {path.name}") for number, image in enumerate(images, 1))
    names = folder.match(places, path.parent)
    drawings = found.drawings.setdefault(annotator, {})
    by_id: dict[str | None, Drawing] = {}
    for key, image, name in zip(ids, images, names, strict=True):
        drawing = by_id[key] = open_entry(drawings, name)
        found.origins[name] = read_origin(origins.get(image["file_name"]))
        drawing.state_size([image.get("width"), image.get("height")])
    strangers = []
    for annotation in annotations:
        owner = annotation.get("image_id")
        if _id(owner) in by_id:
            _add(by_id[_id(owner)], annotation, phrases)
        else:
            strangers.append(owner)
    said = [image["id"] for image in images]
    if not {kind_of(each.get("image_id")) for each in annotations} <= set(map(kind_of, said)):
        found.words += "ids of different types matched by their values, "
    found.met["annotations"] += len(annotations)
    pair = _compare(said, strangers, "images", "image_id")
    found.stray("annotations", strangers, len(annotations), "{n} annotations belong to no image", pair)
    return list(dict.fromkeys(names))


def _id(value: object) -> str | None:
    """An id in one spelling, for 1, 1.0 and "1" are met for the same; None for what can be no id."""
    if type(value) is float and value.is_integer():
        value = int(value)
    return str(value).strip() if type(value) in (int, str) else None


def _compare(ids: list, asked: list, there: str, key: str) -> str:
    """One pair of ids that should have been the same, and what differs."""
    one, other = (next(iter(values), None) for values in (ids, asked))
    kinds = "" if type(one) is type(other) else f" ({kind_of(one)} and {kind_of(other)})"
    one, other = (str(value)[:20] if value is None else shape(str(value)[:20]) for value in (one, other))
    return f"the ids of {there} are such as {one!r}, an annotation's {key} is {other!r}{kinds}"


def _read_categories(path: Path, categories: list, annotations: list[dict], found: Found) -> dict[str | None, str]:
    """Phrases by category id. Where the file names none, all objects are of the phrase that is asked for; of several
    ids each is a phrase."""
    phrases: dict[str | None, str] = {}
    for category in categories:
        key, phrase = as_table(category).get("id"), read_phrase(as_table(category).get("name"))
        if None not in (_id(key), phrase) and phrases.setdefault(_id(key), phrase) != phrase:
            raise LabError(f"the category id {key} stands for two names in {path.name}; export the file again")
    said = [annotation.get("category_id") for annotation in annotations if annotation]
    used = dict.fromkeys(key for value in said if (key := _id(value)) is not None)
    unknown = [value for value in said if _id(value) not in phrases]
    if not categories:
        found.words += "no categories are named, "
        return dict.fromkeys(used, UNSAID) if len(used) < 2 else {key: key for key in used}
    if len(unknown) == len(said) and len(used) == len(phrases) == 1:
        found.words += f"the one category taken for category_id {next(iter(used))[:20]}, "
        return dict.fromkeys(used, *phrases.values())
    pair = _compare(list(phrases), unknown, "categories", "category_id")
    found.stray("annotations", unknown, len(said), "{n} annotations are of no known category", pair, noted=True)
    return phrases


def _add(drawing: Drawing, annotation: dict, phrases: dict[str, str]) -> None:
    label = f"object {len(drawing.things) + 1}"
    thing = drawing.add(phrases.get(_id(annotation.get("category_id"))), label)
    drawn = annotation.get("segmentation")
    if isinstance(drawn, dict):
        runs = read_runs(drawn, drawing.size) if drawing.size else None
        if runs:
            thing.runs.append(runs)
        else:
            drawing.note("wrong_type", f"{label} has no run lengths that add up to the size of its image: skipped")
    else:
        thing.polygons = drawing.keep_polygons(drawn, label)
