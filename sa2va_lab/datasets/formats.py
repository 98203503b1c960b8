"""Data folders on disk to a Dataset: what is there is recognised and said, whatever its format.

A format is one module: `find(folder, file)` reads it, or returns None where the folder is of another one;
`writers` says what a copy has. The first of FORMATS that finds something is taken. A second annotator's view lies
beside the first, as `annotations_obs2.json` or `masks_obs2/`. A defect in one annotation is recorded on its
sample; what makes the folder as a whole unreadable raises LabError.

Nothing is silently empty: every annotation, file and image that a reader met is read, left out on request, or wrong; a
sum that does not close is a defect of its own. Where more than half of them fit nothing, it is not they that are wrong
but how they were read, and that is an error that shows one of them.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from sa2va_lab.datasets import annotations, coco, labelme, masks, yolo
from sa2va_lab.datasets.defects import Account, Defect, Flaw
from sa2va_lab.datasets.drawings import CHECK, UNNAMED, UNSAID, Found, MaskFile, read_origin
from sa2va_lab.datasets.folders import Folder, as_table, is_image
from sa2va_lab.datasets.naming import FIRST, pair_up, role_of
from sa2va_lab.datasets.pictures import note_frames
from sa2va_lab.datasets.pseudonyms import Pseudonym, find_groups, name_images
from sa2va_lab.datasets.samples import Dataset, Sample
from sa2va_lab.datasets.splits import read_splits
from sa2va_lab.errors import LabError
from sa2va_lab.files import find_film

FORMATS = (coco, annotations, labelme, yolo, masks)
EXPECTED = (
    "annotations.json (Sa2VA's or COCO's), LabelMe's JSON files, YOLO's text files in labels/, or masks as image files"
)
MANY_FRAMES = {".gif", ".tif", ".tiff", ".webp"}  # files that may hold more pictures than one
BARE = "images"  # the format of images that nobody annotated
NO_TRUTH = "none: there is no truth"
INVERTED = 0.5  # share of foreground above which a mask may be meant the other way round
LOOKED_AT = 12  # truths that an opening looks at, at least
MISSING = Defect("missing_image", "its image file is missing")


def open_dataset(
    path: str | Path | Sequence[str | Path],
    *,
    phrase: str | None = None,
    groups: str | None = None,
    mask_threshold: float | None = None,
    truths: bool = True,
) -> Dataset:
    """Recognises what is at `path` and opens it; a few truths are looked at, and no image is decoded.

    path: a data folder, or its annotations file; or an image file or a list of them, which have no truths.
    phrase: what to find. None takes the most frequent phrase of the annotations ("blood vessel" for mask folders, no
        phrase for images that nobody annotated); `Dataset.about` has the same data with another one.
    groups: a regular expression with one capture group that finds the patient in an image's name, such as
        r"Image_(\\d+)"; it overrides groups.json, which overrides what the file names show (`pseudonyms.find_groups`).
    mask_threshold: of grey masks, the value from which on a pixel is foreground; labels.json can say it for good.
    truths: whether to look at some truths, so that nothing is silently empty; a process that predicts does not.
    Ids are pseudonyms; the first opening writes their key file into the folder (`pseudonyms.name_images`).
    Raises LabError for a folder that is of no known format, annotations that are not what they should be or fit nothing
    for the most part, a phrase without a pixel in any truth, and any name that leads out of the data folder.
    """
    if phrase is not None and not phrase.strip():
        raise LabError("the phrase is empty; expected what to find, such as 'blood vessel', or no phrase at all")
    phrase = phrase and phrase.strip()
    listed = not isinstance(path, str | Path)
    given = [Path(each) for each in path] if listed else [Path(path)]
    if not given:
        raise LabError("no image was given; expected a data folder, its annotations.json, or image files")
    place = given[0]
    of_data = place.is_dir() or place.suffix == ".json"
    if len(given) > 1 or (not of_data and (listed or (is_image(place.name) and place.is_file()))):
        return _open_images(given, phrase, groups)
    if not place.exists():
        raise LabError(f"{place} does not exist; expected a data folder or its annotations.json")
    if film := find_film(place):
        raise LabError(f"{place} is {film} and no data set: predict it as a film, or save its frames as images")
    folder, found = _recognise(place, mask_threshold)
    for drawing in found.drawn():
        for thing in drawing.things:
            thing.phrase = phrase or UNNAMED if thing.phrase == UNSAID else thing.phrase
    dataset = _assemble(folder, found, groups)
    if phrase is None:
        phrase = next(iter(dataset.objects), found.unnamed)
        if phrase == "":
            raise LabError(f"{place} names no phrase, so what to find is unknown; give a phrase such as 'blood vessel'")
    dataset = dataset.about(phrase)
    odd = _look_at_truths(dataset) if truths else []
    return replace(dataset, defects=(*dataset.defects, *odd)).about(phrase) if odd else dataset


def _recognise(path: Path, threshold: float | None) -> tuple[Folder, Found]:
    """The data folder of a path, and what its format's reader found in it."""
    file = path if path.is_file() else None
    folder = Folder(path.parent if file else path)
    if file and role_of(path.parent.name) == FIRST and coco.is_coco(folder.read(path)):
        folder = Folder(path.parent.parent)
    if threshold is not None:
        folder.overrule("labels.json", {masks.THRESHOLD: threshold})
    found = next((found for kind in FORMATS if (found := kind.find(folder, file)) is not None), None)
    if found is None and folder.listed:
        words = f"images without annotations of a known format ({EXPECTED}): "
        found = Found(BARE, words, unnamed=None, rasteriser=NO_TRUTH)
        text = f"{len(folder.annotation_files())} JSON files are annotations of no known format"
        found.defects += [Defect("unreadable_annotation", text)] if folder.annotation_files() else []
    elif found is not None and found.format in (masks.NAME, yolo.NAME) and folder.annotation_files():
        found.words += f"{len(folder.annotation_files())} other JSON files left out, "
    if found is None:
        packed = f" ({folder.words.removesuffix(', ')})" if folder.words else ""
        raise LabError(f"{path} is of no format that is read; expected {EXPECTED}, or images{packed}")
    if any(found.drawn()):
        _rename(found, folder.table("labels.json"))
        masks.add_checks(folder, found)
    return folder, found


def _rename(found: Found, table: object) -> None:
    """One phrase for several labels, as labels.json beside outlines says; "*" stands for every other label."""
    names = dict(masks.read_labels(table))
    renamed = 0
    for thing in (thing for drawing in found.drawn() for thing in drawing.things if thing.phrase):
        name = names.get(thing.phrase, names.get("*", thing.phrase))
        renamed += name != thing.phrase
        thing.phrase = name
    found.words += f"{renamed} objects renamed by labels.json, " if renamed else ""


def _name(folder: Folder, images: Sequence[str], groups: str | None) -> tuple[Mapping[str, Pseudonym], str, str]:
    """Pseudonyms by image name; what the groups and what the ids stand on, in words."""
    places, group_reason, stated = find_groups(folder, images, groups)
    names, reason = name_images(folder.root, places, stated=stated)
    known = len({name.group for name in names.values()})
    if known != len({patient for patient, _ in places.values()}):
        group_reason = f"{known} groups as they were given when this folder was opened before"
    return names, group_reason, reason


def _assemble(folder: Folder, found: Found, groups: str | None) -> Dataset:
    """Pseudonyms, groups and splits: what all formats share. The phrase is still to be chosen."""
    first, second = found.drawings.get(1, {}), found.drawings.get(2, {})
    images = sorted({*folder.listed, *first})
    if not images:
        raise LabError(f"{folder.images} holds no image; expected files such as .png or .jpg")
    accounts, defects = _settle(folder, found)
    names, group_reason, pseudonym_reason = _name(folder, images, groups)
    samples, origins = {}, as_table(as_table(folder.table("provenance.json")).get("origins"))
    for image in sorted(images, key=names.get):
        name, path = names[image], folder.path(image)
        noted = [Defect("unannotated", "nobody annotated it")] if image not in first and found.format != BARE else []
        noted += [MISSING] if image not in folder.listed and not path.exists() else []
        noted += note_frames(path) if path.suffix.lower() in MANY_FRAMES else []
        drawings = {annotator: drawn[image] for annotator, drawn in found.drawings.items() if image in drawn}
        samples[image] = Sample(
            name.id,
            path,
            None,
            name.group,
            tuple(noted),
            MappingProxyType(drawings),
            name.sequence,
            found.ignored.get(image),
            MappingProxyType(found.prompts.get(image, {})),
            found.origins.get(image) or (read_origin(origins.get(image)) if image in first else None),
        )
    beside = [f"a second annotator for {len(second.keys() & samples.keys())} images"] if second else []
    beside += [f"mask files beside {len(found.drawings[CHECK])} outlines"] if found.drawings.get(CHECK) else []
    over = Counter(str(sample.origin.get("model", "")) for sample in samples.values() if sample.origin)
    beside += [f"{count} truths drawn by hand over a prediction of {model}" for model, count in over.items()]
    beside += [f"{len(samples)} images", group_reason]
    odd = {name: count for name, count in folder.encodings.items() if name != "UTF-8"}
    beside += [f"{count} files read as {name}" for name, count in odd.items()]
    return Dataset(
        folder.root,
        found.format,
        list(samples.values()),
        objects=found.count_phrases(),
        splits=read_splits(folder, samples, found.splits),
        defects=(*found.defects, *defects),
        accounts=tuple(accounts),
        rasteriser=found.rasteriser,
        pseudonyms=pseudonym_reason,
        words=(found.words + folder.words, "".join(f", {part}" for part in beside)),
    )


def _settle(folder: Folder, found: Found) -> tuple[list[Account], list[Defect]]:
    """The accounts of all that was read, and what is wrong with them.

    Raises LabError where more than half of the images that were annotated are not there.
    """
    first = found.drawings.get(1, {})
    missing = [image for image in first if image not in folder.listed and not folder.path(image).exists()]
    if 2 * len(missing) > len(first):
        raise LabError(
            f"{len(missing)} of the {len(first)} images that are annotated are not there: "
            f"{pair_up(missing, folder.listed)}; copy them into the data folder, or correct their names"
        )
    every = [drawing for by_image in found.drawings.values() for drawing in by_image.values()]
    read, lost = Counter(), Counter(found.lost)
    for drawing in every + [ignored for ignored in found.ignored.values() if isinstance(ignored, MaskFile)]:
        things, used, useless = drawing.counts
        read[things], lost[things] = read[things] + used, lost[things] + useless
    accounts = [Account(things, met, read[things], lost[things]) for things, met in found.met.items()]
    unsettled = [account for account in accounts if not account.closed]
    odd = [Defect("unaccounted", f"of {a.met} {a.things} {a.read} were read and {a.lost} not") for a in unsettled]
    images, whole = len({*folder.listed, *first}), len(first) - len(missing)
    return [*accounts, Account("images", images, whole, images - whole)], odd


def _look_at_truths(dataset: Dataset) -> list[Defect]:
    """What is odd about all truths alike; reads a few, and only where these are empty the others.

    Raises LabError where the phrase has no pixel in any truth, or most of the masks that were looked at are none.
    Where an image cannot be read nobody knows.
    """
    drawn = [sample for sample in dataset if sample.source() is not None]
    step = max(len(drawn) // LOOKED_AT, 1)
    order = drawn[::step] + [sample for place, sample in enumerate(drawn) if place % step]
    shares, unknown, refused = [], 0, []
    for place, sample in enumerate(order, 1):
        if place > LOOKED_AT and (any(shares) or refused):
            break
        try:
            size = sample.image_size()
        except LabError:
            unknown += 1
            continue
        try:
            shares.append(sample.source().rasterise(size).mean())
        except Flaw as flaw:
            if flaw.mask is None:
                refused.append(f"{sample.id}: {flaw}")
            else:  # of the named values only: the audit says which are not
                shares.append(flaw.mask.mean())
    looked = len(shares) + len(refused)
    if 2 * len(refused) > looked:
        raise LabError(f"{len(refused)} of {looked} masks that were looked at cannot be used: {refused[0]}")
    if drawn and not any(shares) and not unknown and not refused:
        raise LabError(
            f'"{dataset.phrase}" has not one pixel in any of the {len(drawn)} images that are annotated; '
            "expected some: choose another phrase, or look at what the annotations are made of"
        )
    wide = sum(share > INVERTED for share in shares)
    text = f"{wide} of {len(shares)} ground truths that were looked at cover more than half of the image"
    return [Defect("inverted_suspected", text)] if 2 * wide > len(shares) else []


def _open_images(paths: Sequence[Path], phrase: str | None, groups: str | None) -> Dataset:
    """Image files as a data set, in the order given, without truths.

    Their ids are those that they have when their folder is opened as a data set; what is not there, or is no image by
    its name, is called by its place in the list. LabError where two folders give the same id.
    """
    real = {os.path.realpath(path): path for path in paths}
    roots = {path.parent.parent if path.parent.name == "images" else path.parent for path in real.values()}
    named, reasons = {}, {}
    for root in sorted(root for root in roots if root.is_dir()):
        folder = Folder(root)
        names, _, reasons[root] = _name(folder, sorted(folder.listed), groups)
        named |= {os.path.realpath(path): names[name] for name, path in folder.listed.items()}
    samples = []
    for number, place in enumerate(real, 1):
        noted = tuple(note_frames(real[place])) if real[place].is_file() else (MISSING,)
        if place in named:
            name = named[place]
            samples.append(Sample(name.id, real[place], phrase, name.group, noted, video=name.sequence))
        else:
            samples.append(Sample(f"image-{number}", real[place], phrase, f"image-{number}", noted))
    if len({sample.id for sample in samples}) < len(samples):
        raise LabError("images of two folders have the same id; give those of one folder at a time")
    root = next(iter(roots)) if len(roots) == 1 else Path(os.path.commonpath([os.path.abspath(r) for r in roots]))
    pseudonyms = "; ".join(dict.fromkeys(reasons.values()))
    words = ("image files without annotations: ", f", {len(samples)} images")
    return Dataset(root, BARE, samples, rasteriser=NO_TRUTH, pseudonyms=pseudonyms, words=words).about(phrase)
