"""What the files of each form hold that a data set, or a Run's masks, can be written in.

A writer takes copies one after another and yields (name below the new folder, content): a table for JSON, a text, or
bool or uint8 pixels for PNG. `export` lays the images beside it. Where a form has no place for a second annotator, that
one's view is masks_obs2/.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import yaml
from pycocotools import mask as coco

from sa2va_lab.datasets.drawings import ORIGIN
from sa2va_lab.datasets.geometry import count_holes, dice_of, fill_polygons, trace_mask
from sa2va_lab.errors import LabError

SECOND = "_obs2"
LEAST = 0.999  # Dice of an outline with its mask; below it the outline is drawn finer
TOLERANCES = (0.4, 0.3, 0)  # pixels that an outline may leave its mask by; at 0.3 it is nearly always exact


@dataclass
class CopiedThing:
    """One object in pixels of the image. mask: bool (H, W), where polygons do not say it. dice: of the mask with the
    outline that was made of it."""

    phrase: str
    polygons: list[np.ndarray] = field(default_factory=list)
    mask: np.ndarray | None = None
    dice: float = 1.0

    @property
    def holes(self) -> int:
        """How many holes it has, which no polygon can say."""
        return 0 if self.mask is None else count_holes(self.mask)

    def outline(self) -> list[list[float]]:
        """Its polygons, traced from the mask where it has one: the coarsest of TOLERANCES that LEAST allows."""
        drawn = self.polygons
        for tolerance in () if self.mask is None else TOLERANCES:
            drawn = [np.round(polygon, 2) for polygon in trace_mask(self.mask, tolerance=tolerance)]
            self.dice = dice_of(fill_polygons(drawn, self.mask.shape), self.mask)
            if self.dice >= LEAST:
                break
        return [polygon.tolist() for polygon in drawn]

    def draw(self, size: tuple[int, int]) -> np.ndarray:
        """Its mask, bool (H, W)."""
        return fill_polygons(self.polygons, size) if self.mask is None else self.mask


@dataclass
class Copy:
    """A sample as it is written anew. objects: by annotator; an annotator who is not there did not look at the image,
    or nothing usable came of it.

    id: what its files are called. origin: of `Sample.origin`. apart: whether its objects are files of their own, too.
    name: of the image that its files are about, where that is not <id>.png.
    """

    id: str
    size: tuple[int, int]
    objects: dict[int, list[CopiedThing]]
    origin: Mapping | None = None
    apart: bool = False
    name: str = ""

    @property
    def image(self) -> str:
        """The name of its image."""
        return self.name or f"{self.id}.png"


def write_sa2va(copies: Iterable[Copy], phrases: list[str]) -> Iterator[tuple[str, object]]:
    """annotations.json as Sa2VA trains on; a hole is left by touching parts around it."""
    entries: dict[int, list] = {1: []}
    for copy in copies:
        for annotator, things in copy.objects.items():
            drawn = [(thing.phrase, outline) for thing in things if (outline := thing.outline())]
            masks, text = [outline for _, outline in drawn], [phrase for phrase, _ in drawn]
            entries.setdefault(annotator, []).append({"image": copy.image, "mask": masks, "text": text})
    for annotator, written in entries.items():
        yield f"annotations{SECOND * (annotator == 2)}.json", written


def write_coco(copies: Iterable[Copy], phrases: list[str]) -> Iterator[tuple[str, object]]:
    """annotations.json as COCO: what is a mask as run lengths, what was drawn as polygons.

    COCO has no way to say that nobody looked: images that the annotator did not annotate are not in the file.
    """
    files: dict[int, dict[str, list]] = {1: {"images": [], "annotations": []}}
    origins = {}
    for copy in copies:
        for annotator, things in copy.objects.items():
            written = files.setdefault(annotator, {"images": [], "annotations": []})
            number = len(written["images"]) + 1
            about = {"id": number, "file_name": copy.image, "width": copy.size[1], "height": copy.size[0]}
            written["images"].append(about)
            for thing in things:
                annotation = {"id": len(written["annotations"]) + 1, "image_id": number}
                annotation["category_id"] = phrases.index(thing.phrase) + 1
                written["annotations"].append(annotation | _describe_thing(thing, copy.size))
        if copy.origin:
            origins[copy.image] = dict(copy.origin)
    categories = [{"id": number, "name": phrase} for number, phrase in enumerate(phrases, 1)]
    for annotator, written in files.items():
        info = {"info": {ORIGIN: origins}} if origins and annotator == 1 else {}
        yield f"annotations{SECOND * (annotator == 2)}.json", info | written | {"categories": categories}


def _describe_thing(thing: CopiedThing, size: tuple[int, int]) -> dict:
    runs = coco.encode(np.asfortranarray(thing.draw(size).astype(np.uint8)))
    whole = {"size": list(size), "counts": runs["counts"].decode()}
    return {
        "segmentation": thing.outline() if thing.mask is None else whole,
        "area": int(coco.area(runs)),
        "bbox": [float(side) for side in coco.toBbox(runs)],
        "iscrowd": int(thing.holes > 0),
    }


def write_labelme(copies: Iterable[Copy], phrases: list[str]) -> Iterator[tuple[str, object]]:
    """LabelMe's file beside each image; an object's parts have a group_id in common."""
    for copy in copies:
        yield from _draw_second(copy)
        shapes = []
        for number, thing in enumerate(copy.objects.get(1, ()), 1):
            outlines = thing.outline()
            of = {"label": thing.phrase, "group_id": number if len(outlines) > 1 else None}
            of |= {"shape_type": "polygon", "flags": {}}
            shapes += [of | {"points": np.reshape(outline, (-1, 2)).tolist()} for outline in outlines]
        content = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": copy.image.rpartition("/")[2]}
        content |= {"imageData": None, "imageHeight": copy.size[0], "imageWidth": copy.size[1]}
        content |= {ORIGIN: dict(copy.origin)} if copy.origin else {}
        if 1 in copy.objects:
            yield f"images/{copy.id}.json", content


def _draw_second(copy: Copy) -> Iterator[tuple[str, object]]:
    if 2 in copy.objects:
        masks = [thing.draw(copy.size) for thing in copy.objects[2]]
        yield f"masks{SECOND}/{copy.id}.png", np.any([np.zeros(copy.size, bool), *masks], axis=0)


def write_png(copies: Iterable[Copy], phrases: list[str]) -> Iterator[tuple[str, object]]:
    """masks/<id>.png: 255 is the thing; of several phrases each has its value, and labels.json says which."""
    values = {phrase: number for number, phrase in enumerate(phrases, 1)} if len(phrases) > 1 else {}
    for copy in copies:
        for annotator, things in copy.objects.items():
            pixels = np.zeros(copy.size, np.uint8 if len(values) < 256 else np.uint16)
            for thing in things:
                mask, value = thing.draw(copy.size), values.get(thing.phrase, 255)
                if not np.isin(pixels[mask], (0, value)).all():
                    raise LabError(
                        f"{copy.id}: two phrases share pixels there, which one mask cannot say; choose one of them "
                        "with --phrase, or another form"
                    )
                pixels[mask] = value
            yield f"masks{SECOND * (annotator == 2)}/{copy.id}.png", pixels
        for number, thing in enumerate(copy.objects.get(1, ()) if copy.apart else (), 1):
            yield f"objects/{copy.id}_{number}.png", thing.draw(copy.size).astype(np.uint8) * 255
    if values:
        yield "labels.json", values


def write_yolo(copies: Iterable[Copy], phrases: list[str]) -> Iterator[tuple[str, object]]:
    """labels/<id>.txt, a line a polygon: class, then x and y as shares of the image's sides; and data.yaml."""
    for copy in copies:
        yield from _draw_second(copy)
        lines = []
        for thing in copy.objects.get(1, ()):
            for outline in thing.outline():
                shares = np.reshape(outline, (-1, 2)) / (copy.size[1], copy.size[0])
                numbers = " ".join(f"{share:.8f}" for share in np.clip(shares, 0, 1).ravel())
                lines.append(f"{phrases.index(thing.phrase)} {numbers}\n")
        if 1 in copy.objects:
            yield f"labels/{copy.id}.txt", "".join(lines)
    table = {"path": ".", "train": "images", "val": "images", "names": dict(enumerate(phrases))}
    yield "data.yaml", yaml.safe_dump(table, allow_unicode=True, sort_keys=False)


WRITERS = {"sa2va": write_sa2va, "coco": write_coco, "labelme": write_labelme, "png": write_png, "yolo": write_yolo}
OUTLINES = ("sa2va", "labelme", "yolo")  # forms in which masks become outlines without holes, which lose a little
