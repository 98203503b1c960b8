"""Data sets written anew, and masks that were predicted: in any form of `writers.WRITERS`, under pseudonyms.

A copy holds no file name, no EXIF, no text of the original, so it can be shared as far as its pixels can. Every change
that was made on the way is returned and lies beside the data as changes.json; the original is never touched.
"""

from __future__ import annotations

import io
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from sa2va_lab.datasets.copies import Change, Copy, copy_sample
from sa2va_lab.datasets.samples import Dataset
from sa2va_lab.datasets.splits import ABOUT
from sa2va_lab.datasets.writers import OUTLINES, WRITERS
from sa2va_lab.errors import LabError
from sa2va_lab.files import hash_splits, write_whole

TOLERANCE = 0.4  # pixels that an outline may leave its mask by, where LEAST of `copies` allows it
PROVENANCE = "provenance.json"
HOLES = "holes: the format holds none, so their objects are cut into touching parts"


@dataclass
class Export:
    """What was written. origins: `Sample.origin` by name of the image. changes: what is otherwise than it was. dice: by
    image, of the outlines with the masks that they were made of; empty where nothing was outlined."""

    images: int = 0
    origins: dict[str, dict] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    dice: dict[str, float] = field(default_factory=dict)

    @property
    def loss(self) -> str:
        """What the outlines lost, in words; "" where masks and polygons are as they were."""
        if not self.dice:
            return ""
        worst, mean = min(self.dice.values()), float(np.mean(list(self.dice.values())))
        return f"outlines: Dice {mean:.5f} with the masks on average, {worst:.5f} at worst"


def export_dataset(
    dataset: Dataset, out: str | Path, *, format: str = "sa2va", phrase: str | None = None, tolerance: float = TOLERANCE
) -> Export:
    """Writes a repaired copy of a data set into a new folder and returns what was changed.

    images/<pseudonym>.png, the annotations in one of WRITERS, groups.json, splits.json where there are splits,
    changes.json. Objects of all phrases are written, or of `phrase` alone; what KINDS says a repair for is mended. What
    is ignored is the black of fov/<pseudonym>.png. Truths that are masks stay masks in "coco" and "png"; elsewhere they
    are traced into outlines, which are cut into touching parts where there are holes (a change named "holes").
    tolerance: in pixels, of tracing. Raises LabError for a folder that is not new or lies in the data set, and when it
    cannot be written.
    """
    made = _start(format)
    drawn = {p for sample in dataset for drawing in sample.drawings.values() for p in drawing.phrases}
    phrases = list(dict.fromkeys([*dataset.phrases, *sorted(drawn)])) or [dataset.phrase or ""]
    phrases = phrases if phrase is None else [phrase]

    def copy_all(folder: Path) -> Iterator[Copy]:
        for sample in dataset:
            copy, changes = copy_sample(sample, folder / "images")
            made.changes += changes
            if copy is None:
                continue
            for things in copy.objects.values():
                things[:] = [thing for thing in things if thing.phrase in phrases]
            if (ignore := sample.ignore()) is not None:
                write_content(folder / "fov" / f"{sample.id}.png", ~ignore)
                made.changes.append(Change(sample.id, "ignored", "what is ignored is the black of its image in fov/"))
            if sample.prompt:
                made.changes.append(Change(sample.id, "prompt", "its question is left out"))
            yield copy

    with _new_folder(out, dataset.root) as working:
        (working / "images").mkdir()
        _write_all(working, copy_all(working), made, phrases, format, tolerance)
        _write_tables(working, dataset)
        if made.origins:
            write_content(working / PROVENANCE, {"origins": made.origins})
        write_content(working / "changes.json", [asdict(change) for change in made.changes])
    return made


def export_masks(
    draw: Callable[[Path], Iterable[Copy]], out: str | Path, *, format: str, about: Mapping, root: Path | None = None
) -> Export:
    """Writes masks that were predicted into a new folder: the files of one of WRITERS, and provenance.json.

    draw: gives a copy an image; it is called with the folder, in which it may put images/. about: goes into
    provenance.json; its "phrase" is what every mask is of. root: a folder that must not hold `out`. Raises LabError as
    `export_dataset` does.
    """
    made = _start(format)
    with _new_folder(out, root) as working:
        _write_all(working, draw(working), made, [about["phrase"]], format, TOLERANCE)
        told = {
            "origins": made.origins,
            "images": made.images,
            "changes": [asdict(change) for change in made.changes],
            "loss": made.loss,
        }
        write_content(working / PROVENANCE, dict(about) | {"form": format} | told)
    return made


def _start(form: str) -> Export:
    if form not in WRITERS:
        raise LabError(f"the form is {form!r}; expected one of {', '.join(WRITERS)}")
    return Export()


@contextmanager
def _new_folder(out: str | Path, root: Path | None) -> Iterator[Path]:
    """Within it, a folder beside the new one to write into; it takes the new one's place when all went well."""
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise LabError(f"{out} exists and is not empty; expected a new folder, choose another name")
    if root is not None and Path(os.path.realpath(out)).is_relative_to(os.path.realpath(root)):
        raise LabError(f"{out} lies in the data set itself; choose a folder outside {root}")
    working = out.with_name(f".{out.name}.{secrets.token_hex(4)}.part")
    try:
        working.mkdir(parents=True)
        yield working
        if out.exists():
            out.rmdir()
        os.replace(working, out)
    except OSError as error:
        raise LabError(f"{out} cannot be written ({error.strerror}); make room or choose another folder") from error
    finally:
        shutil.rmtree(working, ignore_errors=True)


def _write_all(folder: Path, copies: Iterable[Copy], made: Export, phrases: list, form: str, tolerance: float) -> None:
    """The files of a form, and in `made` what they have otherwise than the copies."""

    def watch() -> Iterator[Copy]:
        for copy in copies:
            yield copy
            made.images += 1
            made.origins |= {copy.image: dict(copy.origin)} if copy.origin else {}
            things = [thing for things in copy.objects.values() for thing in things if thing.mask is not None]
            holes = sum(thing.holes for thing in copy.objects.get(1, ()))
            if form in OUTLINES and holes:
                made.changes.append(Change(copy.id, "holes", f"{holes} {HOLES}"))
            if form in OUTLINES and things:
                made.dice[copy.id] = min(thing.dice for thing in things)

    for name, content in WRITERS[form](watch(), phrases, tolerance):
        write_content(folder / name, content)


def _write_tables(folder: Path, dataset: Dataset) -> None:
    kept = {path.stem for path in (folder / "images").glob("*.png")}
    groups = {f"{s.id}.png": {"patient": s.group, "video": s.video} for s in dataset if s.id in kept}
    write_content(folder / "groups.json", groups)
    if dataset.splits:
        splits = {name: [f"{i}.png" for i in ids if i in kept] for name, ids in dataset.splits.items()}
        write_content(folder / "splits.json", splits | {ABOUT: {"sha256": hash_splits(dataset.splits)}})


def write_content(path: Path, content: object) -> None:
    """A text, bool or uint8 pixels as PNG, anything else as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, np.ndarray):
        drawn = io.BytesIO()
        Image.fromarray(content.astype(np.uint8) * 255 if content.dtype == bool else content).save(drawn, format="png")
        content = drawn.getvalue()
    elif not isinstance(content, str):
        content = json.dumps(content, ensure_ascii=False) + "\n"  # on one line: outlines have many numbers
    write_whole(path, content)
