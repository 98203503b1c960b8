"""Data sets written anew: Sa2VA's annotations.json or COCO, images as plain pixels under their pseudonyms.

The copy holds no file name, no EXIF, no text of the original, so it can be shared as far as its pixels can. Every
change that was made on the way is returned and lies beside the data as changes.json; the original is never touched.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from sa2va_lab.datasets.defects import KINDS
from sa2va_lab.datasets.drawings import Drawing, DrawnTruth
from sa2va_lab.datasets.geometry import OUTSIDE, count_twice, covers_nothing, crosses_itself, reach_outside
from sa2va_lab.datasets.outlines import count_holes, trace_mask
from sa2va_lab.datasets.pictures import look, to_eight_bits
from sa2va_lab.datasets.samples import Dataset, MaskTruth, Sample
from sa2va_lab.datasets.splits import ABOUT, hash_splits
from sa2va_lab.errors import LabError

TOLERANCE = 0.4  # pixels: outlines traced from masks come back with a Dice above 0.998 and a quarter of the points
DECIMALS = 2
FORMATS = ("sa2va", "coco")


@dataclass(frozen=True)
class Change:
    """One thing that the copy has otherwise than the original. kind: of KINDS, or "holes" or "traced"."""

    id: str
    kind: str
    change: str


@dataclass
class _Copy:
    """What is known of one sample of the copy: objects as (phrase, polygons, mask or None where polygons say all)."""

    sample: Sample
    size: tuple[int, int]
    objects: list[tuple[str, list[np.ndarray], np.ndarray | None]]
    annotated: bool
    second: list[tuple[str, list[np.ndarray], np.ndarray | None]] | None = None
    changes: list[Change] = field(default_factory=list)


def export_dataset(
    dataset: Dataset, out: str | Path, *, format: str = "sa2va", tolerance: float = TOLERANCE, repair: bool = True
) -> list[Change]:
    """Writes a copy of a data set into a new folder and returns what was changed.

    images/<pseudonym>.png, annotations.json of the format ("sa2va" or "coco"), groups.json, splits.json where there
    are splits, changes.json. Objects of all phrases are written. Truths that are masks are traced into outlines;
    COCO keeps those with holes as run lengths, Sa2VA's format cuts them into touching parts (a change named "holes").
    tolerance: in pixels, of tracing. repair: also mend what KINDS says a repair for; without it, only what the format
    cannot hold is left out.
    Raises LabError for a folder that is not new or lies in the data set, and when it cannot be written.
    """
    out = Path(out)
    if format not in FORMATS:
        raise LabError(f"the format is {format!r}; expected {' or '.join(FORMATS)}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise LabError(f"{out} exists and is not empty; expected a new folder, choose another name")
    if Path(os.path.realpath(out)).is_relative_to(os.path.realpath(dataset.root)):
        raise LabError(f"{out} lies in the data set itself; choose a folder outside {dataset.root}")
    working = out.with_name(f".{out.name}.part")
    shutil.rmtree(working, ignore_errors=True)
    try:
        (working / "images").mkdir(parents=True)
        copies, changes = [], []
        for sample in dataset:
            copy, made = _copy_sample(dataset, sample, working / "images", tolerance=tolerance, repair=repair)
            changes += made
            copies += [copy] if copy else []
        write = _write_sa2va if format == "sa2va" else _write_coco
        changes += write(working, copies, tolerance=tolerance)
        _write_tables(dataset, working, copies)
        _write_json(working / "changes.json", [asdict(change) for change in changes])
        if out.exists():
            out.rmdir()
        os.replace(working, out)
    except OSError as error:
        raise LabError(f"{out} cannot be written ({error.strerror}); make room or choose another folder") from error
    finally:
        shutil.rmtree(working, ignore_errors=True)
    return changes


def _copy_sample(
    dataset: Dataset, sample: Sample, folder: Path, *, tolerance: float, repair: bool
) -> tuple[_Copy | None, list[Change]]:
    """Writes the image and gathers its objects; None where there is no image to write."""
    changes = [
        Change(sample.id, defect.kind, KINDS[defect.kind].repair)
        for defect in dict.fromkeys(sample.defects)
        if KINDS[defect.kind].repair and not defect.text.startswith("second annotator")
    ]
    size, told = _copy_image(sample, folder / f"{sample.id}.png")
    if size is None:
        left_out = Change(sample.id, told, KINDS[told].repair)
        return None, changes if left_out in changes else [*changes, left_out]
    changes += [Change(sample.id, kind, KINDS[kind].repair) for kind in told]
    copy = _Copy(sample, size, [], annotated=1 in sample.truths)
    drawing = dataset.drawings.get(1, {}).get(sample.id)
    if drawing is not None:
        copy.annotated = not any(defect.kind == "unknown_truth" for defect in sample.defects)
        copy.objects = list(_objects(drawing, size, copy, repair=repair))
    elif isinstance(sample.truths.get(1), MaskTruth):
        copy.objects = list(_labels(dataset, sample, size, changes))
        copy.annotated = bool(copy.objects) or copy.annotated
    second = dataset.drawings.get(2, {}).get(sample.id)
    if second is not None:
        copy.second = list(_objects(second, size, _Copy(sample, size, [], True), repair=repair))
    elif isinstance(sample.truths.get(2), MaskTruth):
        mask, _ = sample.truths[2].read(size)
        copy.second = [] if mask is None else [(sample.phrase, [], mask)] if mask.any() else []
    return copy, list(dict.fromkeys(changes + copy.changes))


def _copy_image(sample: Sample, path: Path) -> tuple[tuple[int, int] | None, str | list[str]]:
    """Upright pixels of 8 bits as a bare PNG: (size, kinds of what was mended), or (None, the kind of what failed)."""
    from PIL import Image, ImageOps

    if not sample.image.exists():
        return None, "missing_image"
    pixels, defects = look(sample.image)
    if pixels is None:
        return None, "unreadable_image"
    with Image.open(sample.image) as opened:
        image = to_eight_bits(ImageOps.exif_transpose(opened))
        image = image if image.mode == "L" else image.convert("L" if image.mode == "1" else "RGB")
        Image.fromarray(np.asarray(image)).save(path)  # through an array: nothing but pixels comes along
    return pixels.shape, [defect.kind for defect in defects if KINDS[defect.kind].repair]


def _objects(drawing: Drawing, size: tuple[int, int], copy: _Copy, *, repair: bool) -> Iterator[tuple]:
    """(phrase, polygons, mask or None) of each usable object, in pixels of the image."""
    if drawing.size and tuple(drawing.size) != tuple(size):
        copy.changes.append(Change(copy.sample.id, "size_mismatch", KINDS["size_mismatch"].repair))
    seen: set[bytes] = set()
    for thing in drawing.things:
        if thing.phrase is None or thing.empty:
            continue
        truth = DrawnTruth(tuple(thing.polygons), tuple(thing.runs), drawing.size)
        polygons, why = truth.scaled(size), []
        if repair:
            polygons, why = _mend(polygons, size, seen)
            copy.changes += [Change(copy.sample.id, kind, KINDS[kind].repair) for kind in why]
        redraw = thing.runs or {"overlap", "self_intersection", "out_of_bounds"} & set(why)
        if redraw:
            mask = DrawnTruth(tuple(polygons)).rasterise(size) | DrawnTruth((), truth.runs, truth.size).rasterise(size)
            if mask.any():
                yield thing.phrase, [], mask
        elif polygons:
            yield thing.phrase, polygons, None


def _mend(polygons: list, size: tuple[int, int], seen: set[bytes]) -> tuple[list[np.ndarray], list[str]]:
    """The polygons worth keeping, and the kinds of what is wrong with them."""
    kept, why = [], []
    for polygon in polygons:
        if polygon.tobytes() in seen:
            why.append("duplicate_annotation")
            continue
        seen.add(polygon.tobytes())
        if covers_nothing(polygon):
            why.append("zero_area")
            continue
        why += ["self_intersection"] if crosses_itself(polygon) else []
        why += ["out_of_bounds"] if reach_outside(polygon, size) > OUTSIDE else []
        kept.append(polygon)
    if count_twice(kept, size):
        why.append("overlap")
    return kept, list(dict.fromkeys(why))


def _labels(dataset: Dataset, sample: Sample, size: tuple[int, int], changes: list[Change]) -> Iterator[tuple]:
    """The objects of a mask file: one for each phrase that it holds."""
    source = sample.truths[1]
    for phrase, value in (dataset.labels or {sample.phrase: None}).items():
        mask, defect = MaskTruth(source.path, value).read(size)
        if defect:
            changes.append(Change(sample.id, defect.kind, "its mask is left out"))
            return
        if mask.any():
            yield phrase, [], mask


def _write_sa2va(folder: Path, copies: list[_Copy], *, tolerance: float) -> list[Change]:
    changes, entries, second = [], [], []
    for copy in copies:
        name = f"{copy.sample.id}.png"
        for objects, into in ((copy.objects if copy.annotated else None, entries), (copy.second, second)):
            if objects is None:
                continue
            things = [(phrase, _outline(polygons, mask, tolerance)) for phrase, polygons, mask in objects]
            things = [(phrase, outline) for phrase, outline in things if outline]
            into.append({"image": name, "mask": [o for _, o in things], "text": [phrase for phrase, _ in things]})
        holes = sum(count_holes(mask) for _, _, mask in copy.objects if mask is not None)
        if holes:
            text = f"{holes} holes: the format holds none, so their objects are cut into touching parts"
            changes.append(Change(copy.sample.id, "holes", text))
    _write_json(folder / "annotations.json", entries)
    if second:
        _write_json(folder / "annotations_obs2.json", second)
    return changes


def _write_coco(folder: Path, copies: list[_Copy], *, tolerance: float) -> list[Change]:
    # COCO has no way to say that nobody looked: images without an annotation are left out of the file
    first = [(copy, copy.objects) for copy in copies if copy.annotated]
    second = [(copy, copy.second) for copy in copies if copy.second is not None]
    _write_json(folder / "annotations.json", _as_coco(first, tolerance))
    if second:
        _write_json(folder / "annotations_obs2.json", _as_coco(second, tolerance))
    return []


def _as_coco(drawn_on: list[tuple[_Copy, list]], tolerance: float) -> dict:
    from pycocotools import mask as coco

    phrases = list(dict.fromkeys(phrase for _, objects in drawn_on for phrase, _, _ in objects))
    images, annotations = [], []
    for number, (copy, objects) in enumerate(drawn_on, 1):
        height, width = copy.size
        images.append({"id": number, "file_name": f"{copy.sample.id}.png", "width": width, "height": height})
        for phrase, polygons, mask in objects:
            runs = coco.merge(coco.frPyObjects(polygons, height, width)) if mask is None else None
            runs = runs or coco.encode(np.asfortranarray(mask.astype(np.uint8)))
            whole = mask is not None and count_holes(mask)
            drawn = {"size": [height, width], "counts": runs["counts"].decode()}
            outline = drawn if whole else _outline(polygons, mask, tolerance)
            annotations.append(
                {
                    "id": len(annotations) + 1, "image_id": number, "category_id": phrases.index(phrase) + 1,
                    "segmentation": outline, "area": int(coco.area(runs)),
                    "bbox": [float(side) for side in coco.toBbox(runs)], "iscrowd": int(bool(whole)),
                }
            )  # fmt: skip
    categories = [{"id": number, "name": phrase} for number, phrase in enumerate(phrases, 1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _outline(polygons: list[np.ndarray], mask: np.ndarray | None, tolerance: float) -> list[list[float]]:
    drawn = polygons if mask is None else trace_mask(mask, tolerance=tolerance)
    return [np.round(polygon, DECIMALS).tolist() for polygon in drawn]


def _write_tables(dataset: Dataset, folder: Path, copies: list[_Copy]) -> None:
    kept = {copy.sample.id for copy in copies}
    groups = {f"{s.id}.png": {"patient": s.group, "video": s.video} for s in dataset if s.id in kept}
    _write_json(folder / "groups.json", groups)
    if dataset.splits:
        splits = {name: [f"{i}.png" for i in ids if i in kept] for name, ids in dataset.splits.items()}
        _write_json(folder / "splits.json", splits | {ABOUT: {"sha256": hash_splits(dataset.splits)}})


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")
