"""YOLO's segmentation: for each image a text file in labels/, a line a polygon: its class, then x and y as shares of
the image's sides. data.yaml names the classes; splits are folders."""

from __future__ import annotations

from pathlib import Path

import yaml

from sa2va_lab.datasets.drawings import UNIT, UNSAID, Drawing, Found, open_entry, read_phrase
from sa2va_lab.datasets.folders import Folder
from sa2va_lab.datasets.naming import FIRST, pair_up, read_place
from sa2va_lab.errors import LabError

NAME = "yolo"


def find(folder: Folder, file: Path | None) -> Found | None:
    """What the folder's label files say; None where there are none."""
    texts = {} if file else {name: path for name, path in folder.texts.items() if name.lower().endswith(".txt")}
    matches = folder.pair(texts)
    labels = {name for name in texts if read_place(name).role == FIRST}
    labels = labels or {name for name, match in matches.items() if match}
    names = _read_names(folder)
    if not labels or (names is None and not any(matches[name] for name in labels)):
        return None
    found = Found(NAME, f"YOLO, {len(labels)} label files: ", {1: {}})
    lines = {name: Path(texts[name]).read_text("utf-8", "replace").splitlines() for name in sorted(labels)}
    rows = {name: [row.split() for row in said if row.strip()] for name, said in lines.items()}
    used = {row[0] for said in rows.values() for row in said}
    if names is None:
        found.words += "no data.yaml names the classes, "
        names = dict.fromkeys(used, UNSAID) if len(used) < 2 else {key: key for key in used}
    lost, unknown = [name for name in rows if not matches[name]], []
    for name, said in rows.items():
        if matches[name]:
            drawing = open_entry(found.drawings[1], matches[name].image, UNIT)
            for number, row in enumerate(said, 1):
                unknown += [row[0]] if row[0] not in names else []
                _add(drawing, row, names, f"line {number}")
    total = found.met["annotations"] = sum(len(said) for name, said in rows.items() if matches[name])
    pair = pair_up(lost, folder.listed)
    found.stray("label files", lost, len(rows), "{n} label files belong to no image", pair)
    pair = f"the classes are such as {next(iter(names), '')!r}, a line begins with {next(iter(unknown), '')[:20]!r}"
    found.stray("annotations", unknown, total, "{n} annotations are of no known class", pair, noted=True)
    return found


def _read_names(folder: Folder) -> dict[str, str] | None:
    """{class: name} of the folder's YAML file that names classes; None where there is none."""
    for name in sorted(folder.texts):
        if not name.lower().endswith((".yaml", ".yml")):
            continue
        try:
            content = yaml.safe_load(Path(folder.texts[name]).read_text("utf-8-sig"))
        except (ValueError, RecursionError, yaml.YAMLError) as error:
            raise LabError(f"{folder.root / name} is not YAML ({type(error).__name__}); write it again") from None
        said = content.get("names") if isinstance(content, dict) else None
        said = dict(enumerate(said)) if isinstance(said, list) else said
        if isinstance(said, dict):
            return {str(key): phrase for key, each in said.items() if (phrase := read_phrase(each))}
    return None


def _add(drawing: Drawing, row: list[str], names: dict[str, str], label: str) -> None:
    """One line as an object: its class, and x and y from 0 to 1."""
    thing = drawing.add(names.get(row[0]), label)
    try:
        numbers = [float(word) for word in row[1:]]
    except ValueError:
        drawing.note("bad_coordinates", f"{label} holds something other than numbers: skipped")
        return
    if len(numbers) == 4:
        drawing.note("not_an_area", f"{label} is a box, no outline: left out")
        return
    thing.polygons = drawing.keep_polygon(numbers, label)
    if any(abs(polygon - 0.5).max() > 1 for polygon in thing.polygons):
        drawing.note("bad_coordinates", f"{label} has coordinates that are no shares of the image's sides: skipped")
        thing.polygons = []
