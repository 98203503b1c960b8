"""Data sets written anew: images as plain pixels under their pseudonyms, annotations in a format that has a writer.

The copy holds no file name, no EXIF, no text of the original, so it can be shared as far as its pixels can. Every
change that was made on the way is returned and lies beside the data as changes.json; the original is never touched.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from dataclasses import asdict
from pathlib import Path

from sa2va_lab.datasets.copies import Change, Copy, copy_sample
from sa2va_lab.datasets.formats import FORMATS
from sa2va_lab.datasets.samples import Dataset
from sa2va_lab.datasets.splits import ABOUT, hash_splits
from sa2va_lab.errors import LabError
from sa2va_lab.files import write_whole

TOLERANCE = 0.4  # pixels: outlines traced from masks come back with a Dice above 0.998 and a quarter of the points
WRITERS = {kind.NAME: kind for kind in FORMATS if hasattr(kind, "write")}
FILES = {1: "annotations.json", 2: "annotations_obs2.json"}
HOLES = "holes: the format holds none, so their objects are cut into touching parts"


def export_dataset(
    dataset: Dataset, out: str | Path, *, format: str = "sa2va", tolerance: float = TOLERANCE
) -> list[Change]:
    """Writes a repaired copy of a data set into a new folder and returns what was changed.

    images/<pseudonym>.png, annotations.json of the format (one of WRITERS), groups.json, splits.json where there are
    splits, changes.json. Objects of all phrases are written, and what KINDS says a repair for is mended. Truths that
    are masks are traced into outlines; COCO keeps those with holes as run lengths, Sa2VA's format cuts them into
    touching parts (a change named "holes"). tolerance: in pixels, of tracing.
    Raises LabError for a folder that is not new or lies in the data set, and when it cannot be written.
    """
    out = Path(out)
    if format not in WRITERS:
        raise LabError(f"the format is {format!r}; expected {' or '.join(WRITERS)}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise LabError(f"{out} exists and is not empty; expected a new folder, choose another name")
    if Path(os.path.realpath(out)).is_relative_to(os.path.realpath(dataset.root)):
        raise LabError(f"{out} lies in the data set itself; choose a folder outside {dataset.root}")
    working = out.with_name(f".{out.name}.{secrets.token_hex(4)}.part")
    try:
        (working / "images").mkdir(parents=True)
        pairs = [copy_sample(sample, working / "images") for sample in dataset]
        copies = [copy for copy, _ in pairs if copy]
        changes = [change for _, made in pairs for change in made]
        _write_annotations(working, copies, WRITERS[format], tolerance)
        if not WRITERS[format].HOLDS_HOLES:
            holes = {copy.id: sum(thing.holes for thing in copy.objects.get(1, ())) for copy in copies}
            changes += [Change(name, "holes", f"{count} {HOLES}") for name, count in holes.items() if count]
        _write_tables(working, dataset, {copy.id for copy in copies})
        _write(working / "changes.json", [asdict(change) for change in changes])
        if out.exists():
            out.rmdir()
        os.replace(working, out)
    except OSError as error:
        raise LabError(f"{out} cannot be written ({error.strerror}); make room or choose another folder") from error
    finally:
        shutil.rmtree(working, ignore_errors=True)
    return changes


def _write_annotations(folder: Path, copies: list[Copy], kind, tolerance: float) -> None:
    for annotator, name in FILES.items():
        drawn_on = [copy for copy in copies if annotator in copy.objects]
        if drawn_on or annotator == 1:
            _write(folder / name, kind.write(drawn_on, annotator, tolerance=tolerance))


def _write_tables(folder: Path, dataset: Dataset, kept: set[str]) -> None:
    groups = {f"{s.id}.png": {"patient": s.group, "video": s.video} for s in dataset if s.id in kept}
    _write(folder / "groups.json", groups)
    if dataset.splits:
        splits = {name: [f"{i}.png" for i in ids if i in kept] for name, ids in dataset.splits.items()}
        _write(folder / "splits.json", splits | {ABOUT: {"sha256": hash_splits(dataset.splits)}})


def _write(path: Path, content: object) -> None:
    write_whole(path, json.dumps(content, ensure_ascii=False) + "\n")  # on one line: outlines have many numbers
