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
from PIL import Image, ImageOps

from sa2va_lab.datasets.defects import KINDS, Flaw
from sa2va_lab.datasets.drawings import CHECK, Drawing, DrawnTruth
from sa2va_lab.datasets.geometry import examine, fill_polygons
from sa2va_lab.datasets.pictures import look, to_eight_bits
from sa2va_lab.datasets.samples import Dataset, Sample
from sa2va_lab.datasets.splits import ABOUT
from sa2va_lab.datasets.writers import OUTLINES, WRITERS, CopiedThing, Copy
from sa2va_lab.errors import LabError
from sa2va_lab.files import hash_splits, open_image, write_whole

PROVENANCE = "provenance.json"
REDRAWN = {"overlap", "self_intersection", "out_of_bounds"}  # outlines that are traced from their mask


@dataclass(frozen=True)
class Change:
    """One thing that the copy has otherwise than the original. kind: of KINDS, or "holes", "ignored", "prompt"."""

    id: str
    kind: str
    change: str


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


def export_dataset(dataset: Dataset, out: str | Path, *, format: str = "sa2va", phrase: str | None = None) -> Export:
    """Writes a repaired copy of a data set into a new folder and returns what was changed.

    images/<pseudonym>.png, the annotations in one of WRITERS, groups.json, splits.json where there are splits,
    changes.json. Objects of all phrases are written, or of `phrase` alone; what KINDS says a repair for is mended. What
    is ignored is the black of fov/<pseudonym>.png. Truths that are masks stay masks in "coco" and "png"; elsewhere they
    are traced into outlines, which are cut into touching parts where there are holes (a change named "holes").
    Raises LabError for a folder that is not new or lies in the data set, and when it cannot be written.
    """
    drawn = {p for sample in dataset for drawing in sample.drawings.values() for p in drawing.phrases}
    phrases = list(dict.fromkeys([*dataset.phrases, *sorted(drawn)])) or [dataset.phrase or ""]
    phrases = phrases if phrase is None else [phrase]
    changes: list[Change] = []

    def copy_all(folder: Path) -> Iterator[Copy]:
        (folder / "images").mkdir()
        for sample in dataset:
            copy = _copy_sample(sample, folder / "images", changes)
            if copy is None:
                continue
            for things in copy.objects.values():
                things[:] = [thing for thing in things if thing.phrase in phrases]
            if (ignore := sample.ignore()) is not None:
                write_content(folder / "fov" / f"{sample.id}.png", ~ignore)
                changes.append(Change(sample.id, "ignored", "what is ignored is the black of its image in fov/"))
            if sample.prompt:
                changes.append(Change(sample.id, "prompt", "its question is left out"))
            yield copy

    def tell(made: Export, folder: Path) -> dict[str, object]:
        kept = {path.stem for path in (folder / "images").iterdir()}
        groups = {f"{s.id}.png": {"patient": s.group, "video": s.video} for s in dataset if s.id in kept}
        splits = {name: [f"{i}.png" for i in ids if i in kept] for name, ids in dataset.splits.items()}
        tables = {"groups.json": groups, "changes.json": [asdict(change) for change in changes]}
        tables |= {"splits.json": splits | {ABOUT: {"sha256": hash_splits(dataset.splits)}}} if splits else {}
        return tables | ({PROVENANCE: {"origins": made.origins}} if made.origins else {})

    return _write(copy_all, tell, out, format, phrases, changes, dataset.root)


def export_masks(
    draw: Callable[[Path], Iterable[Copy]], out: str | Path, *, format: str, about: Mapping, root: Path | None = None
) -> Export:
    """Writes masks that were predicted into a new folder: the files of one of WRITERS, and provenance.json.

    draw: gives a copy an image; it is called with the folder, in which it may put images/. about: goes into
    provenance.json; its "phrase" is what every mask is of. root: a folder that must not hold `out`. Raises LabError as
    `export_dataset` does.
    """

    def tell(made: Export, folder: Path) -> dict[str, object]:
        told = {"origins": made.origins, "images": made.images, "changes": [asdict(each) for each in made.changes]}
        return {PROVENANCE: dict(about) | {"form": format} | told | {"loss": made.loss}}

    return _write(draw, tell, out, format, [about["phrase"]], [], root)


def _write(draw, tell, out: str | Path, form: str, phrases: list[str], changes: list[Change], root) -> Export:
    """Writes the copies that `draw` yields for a folder in a form, and the files, by name, that `tell` of them."""
    if form not in WRITERS:
        raise LabError(f"the form is {form!r}; expected one of {', '.join(WRITERS)}")
    made = Export(changes=changes)

    def watch(copies: Iterable[Copy]) -> Iterator[Copy]:
        for copy in copies:
            yield copy
            made.images += 1
            made.origins |= {copy.image: dict(copy.origin)} if copy.origin else {}
            things = [thing for things in copy.objects.values() for thing in things if thing.mask is not None]
            if form in OUTLINES and things:
                made.dice[copy.id] = min(thing.dice for thing in things)
                if holes := sum(thing.holes for thing in copy.objects.get(1, ())):
                    text = f"{holes} holes: the format holds none, so their objects are cut into touching parts"
                    changes.append(Change(copy.id, "holes", text))

    with _new_folder(out, root) as working:
        for name, content in WRITERS[form](watch(draw(working)), phrases):
            write_content(working / name, content)
        for name, content in tell(made, working).items():
            write_content(working / name, content)
    return made


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
        os.replace(working, out)
    except OSError as error:
        raise LabError(f"{out} cannot be written ({error.strerror}); make room or choose another folder") from error
    finally:
        shutil.rmtree(working, ignore_errors=True)


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


def _copy_sample(sample: Sample, folder: Path, changes: list[Change]) -> Copy | None:
    """Writes the image into a folder and gathers its objects, mended; None where there is no image to write."""
    kinds = [defect.kind for defect in sample.defects]
    size, seen = copy_image(sample, folder / f"{sample.id}.png")
    kinds += seen
    copy = Copy(sample.id, size, {}, sample.origin) if size else None
    for annotator, drawing in sample.drawings.items() if copy else ():
        if isinstance(drawing, Drawing):
            things, mended = _mend_things(drawing, size)
            kinds += mended
            copy.objects |= {} if drawing.truth(sample.phrase) is None else {annotator: things}
        elif annotator != CHECK:
            phrases = drawing.phrases or [sample.phrase]
            try:
                things = [CopiedThing(phrase, mask=drawing.truth(phrase).rasterise(size)) for phrase in phrases]
                copy.objects[annotator] = [thing for thing in things if thing.mask.any()]
            except Flaw as flaw:
                changes.append(Change(sample.id, flaw.kind, "its mask is left out"))
    changes += [Change(sample.id, kind, KINDS[kind].repair) for kind in dict.fromkeys(kinds) if KINDS[kind].repair]
    return copy


def copy_image(sample: Sample, path: Path) -> tuple[tuple[int, int] | None, list[str]]:
    """Upright pixels of 8 bits as a bare PNG: its size, None where there is none; and the kinds of what was wrong."""
    pixels, defects = look(sample.image) if sample.image.exists() else (None, [])
    if pixels is not None:
        with open_image(sample.image) as opened:
            image = to_eight_bits(ImageOps.exif_transpose(opened))
            image = image if image.mode == "L" else image.convert("L" if image.mode == "1" else "RGB")
            Image.fromarray(np.asarray(image)).save(path)  # through an array: nothing but pixels comes along
    return None if pixels is None else pixels.shape, [defect.kind for defect in defects]


def _mend_things(drawing: Drawing, size: tuple[int, int]) -> tuple[list[CopiedThing], list[str]]:
    """The usable objects, in pixels of the image, and the kinds of what was mended."""
    kinds = ["size_mismatch"] if drawing.own_size not in (None, tuple(size)) else []
    seen: set[bytes] = set()
    things = []
    for thing in drawing.things:
        if thing.phrase is None or thing.empty:
            continue
        polygons, odd = examine(drawing.join([thing]).scaled(size), size, seen)
        kinds += [defect.kind for defect in odd]
        if thing.runs or REDRAWN & {defect.kind for defect in odd}:
            mask = fill_polygons(polygons, size) | DrawnTruth((), tuple(thing.runs), drawing.size).rasterise(size)
            things += [CopiedThing(thing.phrase, mask=mask)] if mask.any() else []
        elif polygons:
            things.append(CopiedThing(thing.phrase, polygons))
    return things, kinds
