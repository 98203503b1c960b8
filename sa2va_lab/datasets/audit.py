"""The examination of a data set: every defect by kind and sample, what training makes of it, and what is in the data.

Every image is decoded and every truth rasterised once; nothing is changed and nothing is named but by pseudonyms.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from sa2va_lab.datasets.defects import KINDS, Account, Defect, Flaw
from sa2va_lab.datasets.drawings import CHECK, UNIT, Drawing
from sa2va_lab.datasets.formats import INVERTED
from sa2va_lab.datasets.geometry import OUTSIDE, count_holes, dice_of, examine, measure_widths, reach_outside
from sa2va_lab.datasets.pictures import look
from sa2va_lab.datasets.samples import Dataset, Sample
from sa2va_lab.datasets.splits import Fingerprint, Pair, find_near_duplicates, fingerprint, image_name
from sa2va_lab.errors import LabError
from sa2va_lab.files import write_json

MASKS = {"mask_unreadable", "mask_size", "unnamed_value"}  # kinds of a mask file that is no truth
SHOWN = 8  # ids a line on a terminal; the JSON has all
AGREEMENT = 0.95  # Dice below which a mask file and the outlines of one truth disagree
USUAL_SIZES = (512, 800, 1024)  # of angiograms, square


@dataclass
class Audit:
    """What was found. defects: by sample id, "" for what belongs to no sample. pairs: near duplicates across groups.

    rows: per sample {"id", "group", "video", "size", "share" (of vessel pixels), "objects", "polygons", "holes",
    "width" (median, pixels), "ignored" (share)}, None where there is nothing to measure. widths: of all centre-line
    pixels, at most 1,000 an image. suspected: id -> (height, width) that the outlines would fit.
    """

    dataset: Dataset
    defects: dict[str, list[Defect]] = field(default_factory=dict)
    pairs: list[Pair] = field(default_factory=list)
    rows: list[dict] = field(default_factory=list)
    widths: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    suspected: dict[str, tuple[int, int]] = field(default_factory=dict)

    def note(self, sample_id: str, kind: str, text: str) -> None:
        """Records one more defect of a sample."""
        self.defects.setdefault(sample_id, []).append(Defect(kind, text))

    def by_kind(self) -> dict[str, list[str]]:
        """Ids by kind of defect, in the order of KINDS; a defect of the folder has the id ""."""
        kinds = {name: {defect.kind for defect in defects} for name, defects in self.defects.items()}
        found = {kind: [name for name in kinds if kind in kinds[name]] for kind in KINDS}
        return {kind: ids for kind, ids in found.items() if ids}

    @property
    def accounts(self) -> list[Account]:
        """What became of all that was met, masks that turned out to be none included."""
        wrong = sum(any(each.kind in MASKS for each in defects) for defects in self.defects.values())
        return [
            replace(each, read=each.read - wrong, lost=each.lost + wrong) if each.things == "masks" else each
            for each in self.dataset.accounts
        ]

    def to_lines(self) -> list[str]:
        """What became of all that was met and what is wrong with it, for a terminal."""
        found, annotated = self.by_kind(), any(row["share"] is not None for row in self.rows)
        lines = ["; ".join(str(account) for account in self.accounts)] if self.accounts else []
        lines += [] if found else ["no defect found" + ("" if annotated else ", and nothing is annotated")]
        for kind, ids in found.items():
            shown = ", ".join(name or "the folder" for name in ids[:SHOWN]) + (" ..." if len(ids) > SHOWN else "")
            lines += [f"{kind}: {len(ids)} ({KINDS[kind].title})", f"    in training: {KINDS[kind].training}"]
            lines += [f"    repaired copy: {KINDS[kind].repair}"] if KINDS[kind].repair else []
            lines += [f"    {shown}"]
        return lines

    def to_dict(self) -> dict:
        """{samples, images, groups, accounts, problems: {kind: [ids]}, stats, ...} as plain JSON values."""
        problems = self.by_kind()
        shares = [row["share"] for row in self.rows if row["share"] is not None]
        left_out = [row["ignored"] for row in self.rows if row["ignored"]]
        return {
            "samples": len(self.rows),
            "images": sum(row["size"] is not None for row in self.rows),
            "groups": len({row["group"] for row in self.rows}),
            "accounts": [asdict(account) for account in self.accounts],
            "problems": problems,
            "training": {kind: KINDS[kind].training for kind in problems},
            "details": {name: [defect.text for defect in defects] for name, defects in self.defects.items()},
            "near_duplicates": [[pair.first, pair.second, round(pair.likeness, 4)] for pair in self.pairs],
            "stats": {
                "format": self.dataset.format,
                "phrase": self.dataset.phrase,
                "annotated": len(shares),
                "sizes": _count(f"{row['size'][1]}x{row['size'][0]}" for row in self.rows if row["size"]),
                "images_per_group": _count(Counter(row["group"] for row in self.rows).values()),
                "objects_per_image": _count(row["objects"] for row in self.rows if row["objects"] is not None),
                "polygons_per_image": _count(row["polygons"] for row in self.rows if row["polygons"] is not None),
                "images_with_holes": sum(bool(row["holes"]) for row in self.rows),
                "vessel_share": _quantiles(shares),
                "vessel_width": _quantiles(self.widths),
                "splits": {name: len(ids) for name, ids in self.dataset.splits.items()},
                "ignored": {"images": len(left_out), "mean": float(np.mean(left_out))} if left_out else None,
                "suspected_sizes": {name: [size[1], size[0]] for name, size in self.suspected.items()},
            },
        }


def audit_dataset(dataset: Dataset, *, progress: bool = False) -> Audit:
    """Looks at everything once. progress: a bar on stderr."""
    audit = Audit(dataset)
    if dataset.defects:
        audit.defects[""] = list(dataset.defects)
    prints: list[Fingerprint] = []
    widths, outlines = [], {}
    for sample in (bar := tqdm(dataset, unit="image", disable=not progress, dynamic_ncols=True)):
        bar.set_postfix_str(sample.id, refresh=False)
        noted = list(sample.defects)
        pixels, seen = look(sample.image) if sample.image.exists() else (None, [])
        noted += [defect for defect in seen if defect not in noted]
        row = dict.fromkeys(("size", "share", "objects", "polygons", "holes", "width", "ignored"))
        row |= {"id": sample.id, "group": sample.group, "video": sample.video}
        if pixels is not None:
            row["size"] = pixels.shape
            prints.append(fingerprint(pixels, id=sample.id, group=sample.group))
            noted += _check_truth(sample, pixels.shape, row, widths)
        drawing = sample.drawings.get(1)
        if isinstance(drawing, Drawing):
            noted += _check_drawing(drawing, pixels.shape if pixels is not None else drawing.own_size)
            row["objects"] = sum(thing.phrase == sample.phrase for thing in drawing.things)
            row["polygons"] = sum(len(t.polygons) + len(t.runs) for t in drawing.things if t.phrase == sample.phrase)
            if any(not thing.empty for thing in drawing.things):
                outlines.setdefault(replace(drawing.join(drawing.things), size=None).sha256(), []).append(sample.id)
        audit.rows.append(row)
        if noted:
            audit.defects[sample.id] = noted
    audit.widths = np.concatenate(widths) if widths else audit.widths
    audit.pairs = find_near_duplicates(prints)
    _check_across(audit, outlines)
    _suspect_sizes(audit)
    return audit


def _check_truth(sample: Sample, size: tuple[int, int], row: dict, widths: list[np.ndarray]) -> list[Defect]:
    """Rasterises the truth, measures it into `row` and `widths`, and compares it with a mask file beside it."""
    found, masks = [], {}
    for annotator in sorted(sample.drawings):
        source = sample.source(annotator=annotator)
        try:
            masks[annotator] = None if source is None else source.rasterise(size)
        except Flaw as flaw:
            by = {CHECK: "mask file: ", 2: "second annotator: "}.get(annotator, "")
            found.append(Defect(flaw.kind, f"{by}{flaw}"))
    truth, beside = masks.get(1), masks.get(CHECK)
    if truth is None:
        return found
    try:
        counted = sample.leave_out(np.ones_like(truth))
    except LabError as error:
        return [*found, Defect("mask_unreadable", f"what is ignored of it cannot be told: {error}")]
    row["ignored"], truth = float(1 - counted.mean()), truth & counted
    row["share"] = float(truth.sum() / max(counted.sum(), 1))
    if row["share"] > INVERTED:
        found.append(Defect("inverted_suspected", f"its ground truth covers {row['share']:.0%} of the image"))
    row["holes"] = count_holes(truth)
    across = measure_widths(truth)
    row["width"] = float(np.median(across)) if len(across) else None
    widths.append(across[:: -(-len(across) // 1000) or 1])
    beside = None if beside is None else beside & counted
    if beside is not None and (truth | beside).any():
        dice = dice_of(truth, beside)
        if dice < AGREEMENT:
            found.append(Defect("truth_disagrees", f"its mask file and its outlines have a Dice of {dice:.3f}"))
    return found


def _check_drawing(drawing: Drawing, size: tuple[int, int] | None) -> Iterator[Defect]:
    """What is wrong with usable outlines. size: (height, width) of the image, None where nobody knows."""
    if size is None and drawing.size == UNIT:
        return
    if drawing.own_size and size and tuple(drawing.size) != tuple(size):
        text = f"annotated at {drawing.size[1]}x{drawing.size[0]}, its image is {size[1]}x{size[0]}: scaled"
        yield Defect("size_mismatch", text)
    seen: set[bytes] = set()
    for number, thing in enumerate(drawing.things, 1):
        polygons = drawing.join([thing]).scaled(size or drawing.size or (0, 0))
        for defect in examine(polygons, size or drawing.size, seen)[1]:
            yield Defect(defect.kind, f"object {number}: {defect.text}")


def _check_across(audit: Audit, outlines: dict[str, list[str]]) -> None:
    """What only shows between samples: outlines copied, pictures seen twice."""
    for ids in outlines.values():
        for name in ids if len(ids) > 1 else ():
            audit.note(name, "copied_annotation", f"the same outlines as {', '.join(i for i in ids if i != name)}")
    split_of = {name: split for split, ids in audit.dataset.splits.items() for name in ids}
    for pair in audit.pairs:
        for one, other in ((pair.first, pair.second), (pair.second, pair.first)):
            text = f"nearly the same picture as {other} of another group (likeness {pair.likeness:.3f})"
            audit.note(one, "near_duplicate", text)
            here, there = split_of.get(one), split_of.get(other)
            if here and there and here != there:
                text = f'in "{here}", and nearly the same picture as {other} in "{there}"'
                audit.note(one, "split_near_duplicate", text)


def _suspect_sizes(audit: Audit) -> None:
    """Images whose outlines leave them as if drawn at another size: one that the data set has, or a usual one.

    A whole video is annotated at one size, so its other frames of the same size are suspected as well: an outline that
    happens to stay inside is in the wrong place all the same.
    """
    first = {sample.id: sample.drawings.get(1) for sample in audit.dataset}
    drawings = {name: drawing for name, drawing in first.items() if isinstance(drawing, Drawing) and not drawing.size}
    sizes = {row["size"] for row in audit.rows if row["size"]} | {(side, side) for side in USUAL_SIZES}
    outside = {name for name, defects in audit.defects.items() if any(d.kind == "out_of_bounds" for d in defects)}
    found: dict[tuple[str, tuple], tuple[int, int]] = {}
    unsized = [row for row in audit.rows if row["size"] and row["id"] in drawings]
    for row in (row for row in unsized if row["id"] in outside):
        polygons = [polygon for thing in drawings[row["id"]].things for polygon in thing.polygons]
        alike = [size for size in sizes if abs(size[0] / size[1] - row["size"][0] / row["size"][1]) < 0.02]
        fitting = [size for size in alike if max(reach_outside(polygon, size) for polygon in polygons) <= OUTSIDE]
        if fitting:
            film = row["video"], row["size"]
            found[film] = max(found.get(film, (0, 0)), min(fitting))
    for row in unsized:
        if size := found.get((row["video"], row["size"])):
            audit.suspected[row["id"]] = size
            whose = "its outlines leave" if row["id"] in outside else "the outlines of another frame of its video leave"
            text = f"{whose} the image and would fit {size[1]}x{size[0]}: say so in sizes.json if it is so"
            audit.note(row["id"], "size_suspected", text)


def write_sizes(audit: Audit) -> Path:
    """Writes sizes.json beside the data: what is suspected, to be looked at and believed from the next opening on.

    Raises LabError where there is one already, or nothing is suspected, or the format states sizes itself.
    """
    path = audit.dataset.root / "sizes.json"
    if not audit.suspected or audit.dataset.format != "sa2va":
        raise LabError("no image is suspected to be annotated at another size, so there is no sizes.json to write")
    if path.exists():
        raise LabError(f"{path} exists already; move it away first, or add to it by hand")
    sizes = {image_name(audit.dataset, name): [size[1], size[0]] for name, size in audit.suspected.items()}
    return write_json(path, sizes)


def _count(values) -> dict[str, int]:
    return {str(value): count for value, count in sorted(Counter(values).items())}


def _quantiles(values) -> dict[str, float] | None:
    values = np.asarray(values, float)
    if not len(values):
        return None
    names = ("lowest", "low_5", "median", "high_95", "highest")
    quantiles = np.quantile(values, [0, 0.05, 0.5, 0.95, 1])
    return {"mean": float(values.mean())} | {n: float(v) for n, v in zip(names, quantiles, strict=True)}
