"""Data folders on disk to a Dataset: what is there is recognised and said, whatever its format.

Sa2VA's own annotations.json, LabelMe's files, COCO's, and masks as image files. A second annotator's view lies beside
the first, as `annotations_obs2.json` or `masks_obs2/`. A defect in one annotation is recorded on its sample; what
makes the folder as a whole unreadable raises LabError.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from sa2va_lab.datasets.annotations import read_annotations
from sa2va_lab.datasets.coco import is_coco, read_coco
from sa2va_lab.datasets.defects import Defect
from sa2va_lab.datasets.drawings import Drawing
from sa2va_lab.datasets.folders import Folder, kind_of, read_json
from sa2va_lab.datasets.groups import find_groups
from sa2va_lab.datasets.labelme import find_labelme, read_labelme
from sa2va_lab.datasets.polygons import rasteriser
from sa2va_lab.datasets.pseudonyms import name_images
from sa2va_lab.datasets.samples import CHECK, Dataset, MaskTruth, Sample
from sa2va_lab.datasets.splits import read_splits
from sa2va_lab.errors import LabError

MASK_FOLDERS = {1: "masks", 2: "masks_obs2"}
MASK_FOLDER_PHRASE = "blood vessel"
COCO_FILES = ("annotations.json", "_annotations.coco.json", "coco.json", "annotations/*.json", "*.coco.json")
EXPECTED = (
    "annotations.json (Sa2VA's or COCO's), LabelMe's JSON files beside the images, or the folders images/ and masks/"
)


@dataclass
class _Found:
    """What a format's reader hands over. drawings: by annotator and image name. masks: likewise, paths of files."""

    format: str
    words: str
    drawings: dict[int, dict[str, Drawing]] = field(default_factory=dict)
    masks: dict[int, dict[str, str]] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    defects: list[Defect] = field(default_factory=list)


def open_dataset(path: str | Path, *, phrase: str | None = None, groups: str | None = None) -> Dataset:
    """Recognises what is at `path` and opens it; no image and no truth is decoded yet.

    path: a data folder, or its annotations file.
    phrase: what to find. None takes the most frequent phrase of the annotations ("blood vessel" for mask folders).
    groups: a regular expression with one capture group that finds the patient in an image's name, such as
        r"Image_(\\d+)"; it overrides groups.json, which overrides what the file names show (`groups.find_groups`).
    Ids are pseudonyms; the first opening writes their key file into the folder (`pseudonyms.name_images`).
    Raises LabError for a folder that is of no known format, annotations that are not what they should be, and any name
    that leads out of the data folder.
    """
    path = Path(path)
    if not path.exists():
        raise LabError(f"{path} does not exist; expected a data folder or its annotations.json")
    if phrase is not None and not phrase.strip():
        raise LabError("the phrase is empty; expected what to find, such as 'blood vessel', or no phrase at all")
    folder, found = _recognise(path)
    if found.format != "mask folder":
        phrase, reason = _choose_phrase(found.drawings[1].values(), phrase and phrase.strip(), path)
        found.words += reason
    elif found.labels:
        phrase = _choose_label(found.labels, phrase and phrase.strip())
        found.words += f'label images, phrase "{phrase}" (value {found.labels[phrase]})'
    else:
        phrase = (phrase or MASK_FOLDER_PHRASE).strip()
        found.words += f'phrase "{phrase}"'
    return _assemble(folder, found, phrase, groups)


def _recognise(path: Path) -> tuple[Folder, _Found]:
    """The data folder of a path, and what its format's reader found in it."""
    if path.is_file():
        content = read_json(path)
        if is_coco(content):
            root = path.parent.parent if path.parent.name == "annotations" else path.parent
            return _with_checks(Folder(root), _coco(Folder(root), path, content))
        folder = Folder(path.parent)
        return _with_checks(folder, _sa2va(folder, path, content))
    folder = Folder(path)
    for pattern in COCO_FILES:
        for file in sorted(file for file in path.glob(pattern) if not file.stem.endswith("_obs2")):
            content = read_json(Path(folder.inside(file)))
            if is_coco(content):
                return _with_checks(folder, _coco(folder, file, content))
            if file == path / "annotations.json":
                return _with_checks(folder, _sa2va(folder, file, content))
    files = find_labelme(folder)
    if files:
        drawings, defects = read_labelme(folder, files)
        words = f"LabelMe, {len(files)} files: "
        return _with_checks(folder, _Found("labelme", words, {1: drawings}, defects=defects))
    if (path / "images").is_dir() and (path / "masks").is_dir():
        return folder, _mask_folder(folder)
    raise LabError(f"{path} is of no format that is read; expected {EXPECTED}")


def _sa2va(folder: Folder, path: Path, content: object) -> _Found:
    drawings = {1: read_annotations(folder, path, content)}
    other = _second(path)
    if other.is_file():
        drawings[2] = read_annotations(folder, other)
    flat = sum(any(d.kind == "flat_nesting" for d in drawing.defects) for drawing in drawings[1].values())
    nesting = f"flat polygons (object > coordinates) in {flat} of {len(drawings[1])} images, " if flat else ""
    return _Found("sa2va", f"Sa2VA annotations.json: {nesting}", drawings)


def _coco(folder: Folder, path: Path, content: dict) -> _Found:
    first, defects = read_coco(folder, path, content)
    drawings, other = {1: first}, _second(path)
    if other.is_file():
        content = read_json(Path(folder.inside(other)))
        if not is_coco(content):
            raise LabError(f"{other} is not COCO as {path.name} is; expected images and annotations")
        drawings[2], found = read_coco(folder, other, content)
        defects += [Defect(defect.kind, f"second annotator: {defect.text}") for defect in found]
    return _Found("coco", f"COCO ({path.name}): ", drawings, defects=defects)


def _second(path: Path) -> Path:
    """Where a second annotator's file lies, if there is one."""
    return path.with_name(f"{path.stem}_obs2{path.suffix}")


def _mask_folder(folder: Folder) -> _Found:
    found = _Found("mask folder", "images/ and masks/ of the same stems: ")
    for annotator, name in MASK_FOLDERS.items():
        _add_masks(found, folder, name, annotator)
    table = folder.table("labels.json")
    if table is not None:
        found.labels = _read_labels(folder, table)
    return found


def _with_checks(folder: Folder, found: _Found) -> tuple[Folder, _Found]:
    """Adds what lies beside outlines: one name for several labels, and mask files of the same truth, to be compared."""
    table = folder.table("labels.json")
    names = (
        {label: phrase for label, phrase in table.items() if isinstance(phrase, str)} if isinstance(table, dict) else {}
    )
    drawn = [thing for drawings in found.drawings.values() for drawing in drawings.values() for thing in drawing.things]
    renamed = [thing for thing in drawn if names.get(thing.phrase, "").strip()]
    for thing in renamed:
        thing.phrase = names[thing.phrase].strip()
    found.words += f"{len(renamed)} objects renamed by labels.json, " if renamed else ""
    if (folder.root / "masks").is_dir() and folder.images != folder.root:
        _add_masks(found, folder, "masks", CHECK)
    return folder, found


def _add_masks(found: _Found, folder: Folder, name: str, annotator: int) -> None:
    where = folder.root / name
    masks = _by_stem(folder.files(where), where) if where.is_dir() else {}
    names = {stem: image for image, stem in zip(folder.listed, _by_stem(folder.listed, folder.images), strict=True)}
    found.masks[annotator] = {names[stem]: path for stem, path in masks.items() if stem in names}
    orphans = len(masks) - len(found.masks[annotator])
    if orphans:
        found.defects.append(Defect("orphan_file", f"{orphans} masks belong to no image"))


def _read_labels(folder: Folder, table: object) -> dict[str, int]:
    """{phrase: value}, from that or from {value: phrase}."""
    labels = {}
    for key, value in table.items() if isinstance(table, dict) else ():
        phrase, number = (key, value) if isinstance(value, int) else (value, key)
        if isinstance(phrase, str) and phrase.strip() and str(number).isdecimal() and 0 < int(number) < 65536:
            labels[phrase.strip()] = int(number)
    if not labels or len(labels) != len(table) or len(set(labels.values())) != len(labels):
        raise LabError(
            f"{folder.root / 'labels.json'} is {kind_of(table)} of something else; expected a value from 1 for each "
            'phrase, such as {"blood vessel": 1, "catheter": 2}'
        )
    return labels


def _choose_label(labels: dict[str, int], phrase: str | None) -> str:
    if phrase is not None and phrase not in labels:
        known = ", ".join(f'"{word}"' for word in labels)
        raise LabError(f'labels.json has no phrase "{phrase}"; the phrases there are {known}; choose one of them')
    return phrase or min(labels, key=labels.get)


def _choose_phrase(drawings: Iterable[Drawing], phrase: str | None, path: Path) -> tuple[str, str]:
    """The phrase asked for or the most frequent one, with the reason."""
    said = Counter(thing.phrase for drawing in drawings for thing in drawing.things if thing.phrase)
    if phrase is None:
        if not said:
            raise LabError(f"{path} names no phrase, so what to find is unknown; give a phrase such as 'blood vessel'")
        phrase, count = min(said.items(), key=lambda item: (-item[1], item[0]))
        return phrase, f'phrase "{phrase}" (the most frequent: {count} of {said.total()} objects)'
    if said and phrase not in said:
        known = ", ".join(f'"{word}"' for word, _ in said.most_common(5))
        raise LabError(f'no object is called "{phrase}" in {path}; the phrases there are {known}; choose one of them')
    return phrase, f'phrase "{phrase}" (as asked: {said[phrase]} of {said.total()} objects)'


def _assemble(folder: Folder, found: _Found, phrase: str, groups: str | None) -> Dataset:
    """Pseudonyms, groups and splits: what all formats share."""
    images = sorted({*folder.listed, *found.drawings.get(1, ())})
    if not images:
        raise LabError(f"{folder.images} holds no image; expected files such as .png or .jpg")
    places, group_reason, stated = find_groups(folder, images, groups)
    names, pseudonym_reason = name_images(folder.root, places, stated=stated)
    known = len({name.group for name in names.values()})
    if known != len({patient for patient, _ in places.values()}):
        group_reason = f"{known} groups as they were given when this folder was opened before"
    samples = {}
    for image in sorted(images, key=lambda image: names[image].order):
        truths, defects = _describe(folder, found, image, phrase)
        name = names[image]
        samples[image] = Sample(
            name.id, folder.path(image), phrase, name.group, tuple(defects), MappingProxyType(truths), name.sequence
        )
    reason = found.words
    second = {*found.drawings.get(2, ()), *found.masks.get(2, ())} & {*found.drawings.get(1, ()), *folder.listed}
    if second:
        reason += f", a second annotator for {len(second)} images"
    if found.masks.get(CHECK):
        reason += f", mask files beside {len(found.masks[CHECK])} outlines"
    odd = sum(bool(sample.defects) for sample in samples.values())
    reason += f", {len(samples)} images, {group_reason}" + (f", {odd} images with problems" if odd else "")
    return Dataset(
        folder.root,
        found.format,
        reason,
        phrase,
        list(samples.values()),
        read_splits(folder, samples),
        defects=tuple(found.defects),
        rasteriser="none: the truths are mask files" if found.format == "mask folder" else rasteriser(),
        drawings={
            annotator: {samples[image].id: drawing for image, drawing in drawn.items() if image in samples}
            for annotator, drawn in found.drawings.items()
        },
        labels=found.labels,
        pseudonyms=pseudonym_reason,
    )


def _describe(folder: Folder, found: _Found, image: str, phrase: str) -> tuple[dict, list[Defect]]:
    """The truths of one image by annotator, and what is wrong with it."""
    truths: dict = {}
    defects: list[Defect] = []
    for annotator, masks in found.masks.items():
        if image in masks:
            truths[annotator] = MaskTruth(Path(masks[image]), found.labels.get(phrase))
    for annotator, drawings in found.drawings.items():
        if image not in drawings:
            continue
        truth, noted = drawings[image].truth(phrase)
        truths |= {} if truth is None else {annotator: truth}
        by = "" if annotator == 1 else "second annotator: "
        defects += [Defect(d.kind, by + d.text) for d in (*drawings[image].defects, *noted)]
    if 1 not in truths and image not in found.drawings.get(1, ()):
        defects.insert(0, Defect("unannotated", "nobody annotated it"))
    if image not in folder.listed and not folder.path(image).exists():
        defects.append(Defect("missing_image", "its image file is missing"))
    return truths, defects


def _by_stem(files: dict[str, str], where: Path) -> dict[str, str]:
    stems = {os.path.splitext(name)[0]: path for name, path in files.items()}
    if len(stems) < len(files):
        count = len(files) - len(stems)
        raise LabError(f"{where} holds {count} files whose stem another one has; expected one each, move them away")
    return stems
