"""Data folders on disk to a Dataset.

Two formats: Sa2VA's own `annotations.json` (a list of {"image", "mask": objects > polygons > x0, y0, x1, ..., "text":
a phrase per object}) and a folder with `images/` and `masks/` of the same stems. A second annotator's view lies beside
the first, as `annotations_obs2.json` or `masks_obs2/`. A defect in one annotation is
recorded on its sample; what makes the folder as a whole unreadable raises LabError.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np

from sa2va_lab.datasets.folders import Folder, read_json
from sa2va_lab.datasets.polygons import rasteriser, read_polygon
from sa2va_lab.datasets.samples import Dataset, MaskTruth, PolygonTruth, Sample
from sa2va_lab.errors import LabError

MASK_FOLDERS = {1: "masks", 2: "masks_obs2"}
MASK_FOLDER_PHRASE = "blood vessel"


def open_dataset(path: str | Path, *, phrase: str | None = None, groups: str | None = None) -> Dataset:
    """Recognises what is at `path` and opens it; no image and no truth is decoded yet.

    path: a data folder, or its annotations file.
    phrase: what to find. None takes the most frequent phrase of the annotations ("blood vessel" for mask folders).
    groups: a regular expression with one capture group that finds the patient in an image's name, such as
        r"Image_(\\d+)"; it overrides groups.json. With neither, every image is a group of its own.
    Raises LabError for a folder that is neither format, annotations that are not what they should be, and any name
    that leads out of the data folder.
    """
    path = Path(path)
    if not path.exists():
        raise LabError(f"{path} does not exist; expected a data folder or its annotations.json")
    if phrase is not None and not phrase.strip():
        raise LabError("the phrase is empty; expected what to find, such as 'blood vessel', or no phrase at all")
    phrase = phrase and phrase.strip()
    if path.is_file():
        return _open_annotations(Folder(path.parent), path, phrase, groups)
    folder = Folder(path)
    if (path / "annotations.json").is_file():
        return _open_annotations(folder, path / "annotations.json", phrase, groups)
    if (path / "images").is_dir() and (path / "masks").is_dir():
        return _open_mask_folder(folder, phrase or MASK_FOLDER_PHRASE, groups)
    raise LabError(f"{path} holds neither annotations.json nor the folders images/ and masks/; expected one of the two")


@dataclass
class _Annotated:
    """All that the annotations say about one image: (phrase or None, its usable polygons) by object."""

    objects: list[tuple[str | None, list[np.ndarray]]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    entries: int = 0
    flat: bool = False

    def add(self, entry: dict) -> None:
        """Takes one entry in, noting every defect."""
        self.entries += 1
        if self.entries == 2:
            self.problems.append("annotated more than once: the objects are joined")
        masks = entry.get("mask")
        if not isinstance(masks, list):
            self.problems.append("its mask is not a list of objects")
            self.objects.append((None, []))
            return
        phrases = self._phrases(entry.get("text"), len(masks))
        for number, (drawn, phrase) in enumerate(zip(masks, phrases, strict=True), 1):
            self.objects.append((phrase, self._polygons(drawn, f"object {number}")))

    def _phrases(self, text: object, count: int) -> list[str | None]:
        if isinstance(text, str):
            self.problems.append("its text is one string instead of a list: taken as the phrase of every object")
            text = [text] * count
        elif not isinstance(text, list):
            self.problems.append("it has no list of phrases: its objects belong to no phrase")
            text = [None] * count
        elif len(text) != count:
            rest = "objects without a phrase are left out" if len(text) < count else "the phrases left over are ignored"
            self.problems.append(f"{len(text)} phrases for {count} objects: {rest}")
        phrases = [word.strip() if isinstance(word, str) and word.strip() else None for word in text[:count]]
        if None in phrases and text.count(None) < count:
            self.problems.append("a phrase is empty or not text: its object is left out")
        return phrases + [None] * (count - len(phrases))

    def _polygons(self, drawn: object, label: str) -> list[np.ndarray]:
        if not isinstance(drawn, list):
            self.problems.append(f"{label} is not a list of polygons")
            return []
        if drawn and not isinstance(drawn[0], list):
            self.flat = True
            drawn = [drawn]
        if not drawn:
            self.problems.append(f"{label} has no polygon")
        kept = []
        for number, values in enumerate(drawn, 1):
            polygon, problem = read_polygon(values)
            if problem:
                self.problems.append(f"{label}, polygon {number} {problem}: skipped")
            else:
                kept.append(polygon)
        return kept

    def truth(self, phrase: str) -> PolygonTruth | None:
        """What there is to find; None when something was drawn of which nothing is usable, which is not "nothing"."""
        polygons = [polygon for said, kept in self.objects if said == phrase for polygon in kept]
        if not polygons and any(said in (phrase, None) for said, _ in self.objects):
            self.problems.append("nothing usable was drawn: the truth is unknown")
            return None
        return PolygonTruth(tuple(polygons))


def _open_annotations(folder: Folder, path: Path, phrase: str | None, groups: str | None) -> Dataset:
    annotated = _read_annotations(folder, path)
    other = path.with_name(f"{path.stem}_obs2{path.suffix}")
    second = _read_annotations(folder, other) if other.is_file() else {}
    phrase, phrase_reason = _choose_phrase(annotated.values(), phrase, path)
    flat = sum(found.flat for found in annotated.values())
    nesting = f"flat polygons (object > coordinates) in {flat} of {len(annotated)} images, " if flat else ""

    def describe(image: str) -> tuple[dict, list[str]]:
        truths, noted = {}, [] if image in annotated else ["nobody annotated it"]
        for annotator, found, by in ((1, annotated.get(image), ""), (2, second.get(image), "second annotator: ")):
            if found is not None:
                truth = found.truth(phrase)
                truths |= {} if truth is None else {annotator: truth}
                noted += [by + problem for problem in found.problems]
        missing = [] if image in folder.listed or folder.path(image).exists() else ["its image file is missing"]
        return truths, noted + missing

    reason = f"Sa2VA annotations.json: {nesting}{phrase_reason}"
    if second:
        reason += f", a second annotator for {len(annotated.keys() & second.keys())} images"
    return _assemble(
        folder, "sa2va", reason, phrase, {*annotated, *folder.listed}, describe, groups=groups, rasteriser=rasteriser()
    )


def _read_annotations(folder: Folder, path: Path) -> dict[str, _Annotated]:
    entries = read_json(Path(folder.inside(path)))
    if not isinstance(entries, list):
        raise LabError(f"{path} holds {_kind(entries)}; expected a list of entries with image, mask and text")
    annotated: dict[str, _Annotated] = {}
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, dict):
            raise LabError(f"entry {number} of {path} is {_kind(entry)}; expected image, mask and text in braces")
        image = folder.image(entry.get("image"), f"entry {number} of {path.name}")
        annotated.setdefault(image, _Annotated()).add(entry)
    return annotated


def _open_mask_folder(folder: Folder, phrase: str, groups: str | None) -> Dataset:
    stems = _by_stem(folder.listed, folder.images)
    masks: dict[int, dict[str, str]] = {}
    for annotator, name in MASK_FOLDERS.items():
        where = folder.root / name
        masks[annotator] = _by_stem(folder.files(where), where) if where.is_dir() else {}
    orphans = sum(stem not in stems for found in masks.values() for stem in found)

    def describe(image: str) -> tuple[dict, list[str]]:
        stem = os.path.splitext(image)[0]
        truths = {annotator: MaskTruth(Path(found[stem])) for annotator, found in masks.items() if stem in found}
        return truths, [] if 1 in truths else ["nobody annotated it"]

    reason = f'images/ and masks/ of the same stems: phrase "{phrase}"'
    if masks[2]:
        reason += f", a second annotator for {sum(stem in stems for stem in masks[2])} images"
    problems = (f"{orphans} masks belong to no image",) if orphans else ()
    made_by = "none: the truths are mask files"
    return _assemble(
        folder,
        "mask folder",
        reason,
        phrase,
        folder.listed,
        describe,
        groups=groups,
        rasteriser=made_by,
        problems=problems,
    )


def _assemble(
    folder: Folder,
    format: str,
    reason: str,
    phrase: str,
    images: Iterable[str],
    describe: Callable[[str], tuple[dict, list[str]]],
    *,
    groups: str | None,
    rasteriser: str,
    problems: tuple[str, ...] = (),
) -> Dataset:
    """Pseudonyms, groups and splits: what all formats share."""
    images = sorted(images)
    if not images:
        raise LabError(f"{folder.images} holds no image; expected files such as .png or .jpg")
    group_of, group_reason = _find_groups(folder, images, groups)
    numbers = {group: number for number, group in enumerate(sorted(set(group_of.values())), 1)}
    samples = []
    for number, image in enumerate(images, 1):
        truths, noted = describe(image)
        group = f"G{numbers[group_of[image]]:03d}"
        samples.append(
            Sample(f"S{number:04d}", folder.path(image), phrase, group, tuple(noted), MappingProxyType(truths))
        )
    splits = _read_splits(folder, dict(zip(images, samples, strict=True)))
    odd = sum(bool(sample.problems) for sample in samples)
    reason = f"{reason}, {len(samples)} images, {group_reason}" + (f", {odd} images with problems" if odd else "")
    return Dataset(folder.root, format, reason, phrase, samples, splits, problems=problems, rasteriser=rasteriser)


def _choose_phrase(annotated: Iterable[_Annotated], phrase: str | None, path: Path) -> tuple[str, str]:
    said = Counter(word for found in annotated for word, _ in found.objects if word is not None)
    if phrase is None:
        if not said:
            raise LabError(f"{path} names no phrase, so what to find is unknown; give a phrase such as 'blood vessel'")
        phrase, count = min(said.items(), key=lambda item: (-item[1], item[0]))
        return phrase, f'phrase "{phrase}" (the most frequent: {count} of {said.total()} objects)'
    if said and phrase not in said:
        known = ", ".join(f'"{word}"' for word, _ in said.most_common(5))
        raise LabError(f'no object is called "{phrase}" in {path}; the phrases there are {known}; choose one of them')
    return phrase, f'phrase "{phrase}" (as asked: {said[phrase]} of {said.total()} objects)'


def _find_groups(folder: Folder, images: list[str], pattern: str | None) -> tuple[dict[str, str], str]:
    if pattern is not None:
        try:
            compiled = re.compile(pattern)
        except re.error as error:
            raise LabError(f"groups is {pattern!r}, not a regular expression ({error}); correct it") from error
        if compiled.groups != 1:
            raise LabError(f"groups is {pattern!r} with {compiled.groups} capture groups; expected exactly one")
        found = {}
        for image in images:
            match = compiled.search(image)
            if match is None or match[1] is None:
                raise LabError(f"groups is {pattern!r}, which finds nothing in {image!r}; widen it")
            found[image] = match[1]
        return found, f"{len(set(found.values()))} groups by the pattern given"
    table = folder.table("groups.json")
    alone = {image: f"alone: {image}" for image in images}
    if table is None:
        return alone, "each image a group of its own (no groups.json)"
    if not isinstance(table, dict) or not all(isinstance(group, (str, int)) for group in table.values()):
        raise LabError(f"{folder.root / 'groups.json'} is not a table; expected image names with one group each")
    stated = {folder.image(name, "groups.json"): f"named: {group}" for name, group in table.items()}
    missing = sum(image not in stated for image in images)
    reason = f"{len(set(stated.values()))} groups by groups.json"
    return alone | {image: stated[image] for image in images if image in stated}, reason + (
        f" ({missing} images that it leaves out are groups of their own)" if missing else ""
    )


def _read_splits(folder: Folder, samples: dict[str, Sample]) -> dict[str, list[str]]:
    table = folder.table("splits.json")
    if table is None:
        return {}
    if not isinstance(table, dict) or not all(isinstance(names, list) for names in table.values()) or "all" in table:
        raise LabError(
            f"{folder.root / 'splits.json'} is not a table of splits; expected lists of image names such as "
            '{"train": [...], "test": [...]} (the name "all" is taken)'
        )
    splits, split_of_group = {}, {}
    for split, names in table.items():
        chosen = {}
        for name in names:
            sample = samples.get(folder.image(name, f'split "{split}"'))
            if sample is None:
                raise LabError(f'split "{split}" names {name}, which is not in the data folder; correct splits.json')
            chosen[sample.id] = None
            other = split_of_group.setdefault(sample.group, split)
            if other != split:
                raise LabError(
                    f'group {sample.group} ({name}) is in the splits "{other}" and "{split}"; expected each group '
                    "(and each image) in one split only, or a test would be on what was trained; correct splits.json"
                )
        splits[split] = sorted(chosen)
    return splits


def _by_stem(files: dict[str, str], where: Path) -> dict[str, str]:
    stems = {os.path.splitext(name)[0]: path for name, path in files.items()}
    if len(stems) < len(files):
        twice = next(stem for stem, count in Counter(os.path.splitext(name)[0] for name in files).items() if count > 1)
        raise LabError(f"{where} holds several files with the stem {twice!r}; expected one, move the others away")
    return stems


def _kind(value: object) -> str:
    names = {dict: "a table", list: "a list", str: "text", type(None): "null", bool: "true or false"}
    return names.get(type(value), "a number")
