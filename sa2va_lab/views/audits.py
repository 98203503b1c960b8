"""What 01_dataset shows in words and numbers: the answer, and tables of an `datasets.audit.Audit` and of ceilings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from sa2va_lab.datasets.audit import Audit
from sa2va_lab.datasets.ceilings import GRID, Ceiling
from sa2va_lab.datasets.defects import KINDS
from sa2va_lab.datasets.samples import Dataset
from sa2va_lab.datasets.widths import CLASSES
from sa2va_lab.language import join_sentences, tr
from sa2va_lab.reports.answers import Answer, Audited
from sa2va_lab.reports.texts import say, say_sample
from sa2va_lab.views.tables import Table


def answer_audit(audit: Audit, ceilings: Sequence[Ceiling]) -> Answer:
    """What is there, what is wrong with it, and what no model can beat, in two or three sentences."""
    said = audit.to_dict()
    found = audit.by_kind()
    sample = say_sample({"n_images": said["samples"], "n_groups": said["groups"]})
    values = dict(sample=sample, annotated=said["stats"]["annotated"])
    if found:
        most = max(found, key=lambda kind: len(found[kind]))
        values |= dict(odd=len(set(audit.defects) - {""}), kinds=len(found), count=len(found[most]))
        sentences = [
            tr(
                "{sample}, {annotated} annotated: {odd} images have defects of {kinds} kinds, most often "
                "“{most}” ({count}).",
                most=describe_kind(most)[0],
                **values,
            )
        ]
    else:
        sentences = [tr("{sample}, {annotated} annotated: no defect was found.", **values)]
    if audit.pairs:
        sentences.append(
            tr(
                "{pairs} pairs of nearly the same picture lie under different patients; see “Does a split "
                "leak?” below.",
                pairs=len(audit.pairs),
            )
        )
    by_name = {ceiling.name: ceiling for ceiling in ceilings}
    if {"averaged", "searched"} <= set(by_name):
        plain, searched = by_name["averaged"], by_name["searched"]
        numbers = dict(grid=GRID, plain=plain.dice, searched=searched.dice, n=plain.n)
        sentences.append(
            tr(
                "On Sa2VA's {grid} x {grid} grid, Dice {plain:.3f} is what a model that knows each cell's "
                "share of vessel would reach here ({searched:.3f} with the best logits that were found), on "
                "{n} images.",
                **numbers,
            )
        )
    metrics = Audited(audit=said, ceilings=[_as_dict(ceiling) for ceiling in ceilings])
    return Answer(join_sentences(sentences), metrics)


def overview_table(audit: Audit) -> Table:
    """What is in the data set: format, sizes, frames a patient, objects, vessels."""
    dataset, rows = audit.dataset, audit.rows
    sizes = Counter(f"{row['size'][1]}x{row['size'][0]}" for row in rows if row["size"])
    frames = list(Counter(row["group"] for row in rows).values())
    shares = [row["share"] for row in rows if row["share"] is not None]
    lines = [
        ("audit_format", dataset.reason),
        ("audit_images", say_sample({"n_images": len(rows), "n_groups": len(frames)})),
        ("phrase", dataset.phrase),
        ("audit_annotated", str(len(shares))),
        ("audit_sizes", ", ".join(f"{size} ({count})" for size, count in sizes.most_common())),
        ("audit_frames", _range(frames, "{:.0f}")),
        ("audit_objects", _range([row["objects"] for row in rows if row["objects"] is not None], "{:.0f}")),
        ("audit_polygons", _range([row["polygons"] for row in rows if row["polygons"] is not None], "{:.0f}")),
        ("audit_holes", str(sum(bool(row["holes"]) for row in rows))),
        ("audit_share", _range(shares, "{:.2%}")),
        ("audit_width", _range(audit.widths, "{:.1f}")),
    ]
    return Table([tr("What"), tr("Value")], [[say(k), v] for k, v in lines])


def defect_table(audit: Audit) -> Table:
    """Every kind of defect that was found: how many images, what it is, in training, in a repaired copy."""
    keys = ("audit_kind", "audit_count", "audit_meaning", "audit_training", "audit_repair")
    names = [say(key) for key in keys]
    rows = []
    for kind, ids in audit.by_kind().items():
        title, training, repair = describe_kind(kind)
        rows.append([kind, str(len(ids)), title, training, repair or tr("for a person to decide")])
    return Table(names, rows or [[tr("none was found"), "0", "–", "–", "–"]])


def detail_table(audit: Audit, *, most: int = 40) -> Table:
    """What was noted for each image with a defect; `most` images at most, those with most defects first."""
    names = [tr(text) for text in ("Image", "What was noted")]
    worst = sorted(audit.defects.items(), key=lambda item: (item[0] != "", -len(item[1]), item[0]))[:most]
    rows = [[i or tr("the folder"), "; ".join(defect.text for defect in found)] for i, found in worst]
    return Table(names, rows or [[tr("none was found"), "–"]])


def split_table(audit: Audit) -> Table:
    """Each split: images, patients, mean share of vessel, and near duplicates of its images in other splits."""
    keys = ("split", "audit_images", "audit_patients", "audit_mean_share", "audit_pairs")
    by_id = {row["id"]: row for row in audit.rows}
    leaks = set(audit.by_kind().get("split_near_duplicate", ()))
    parts = dict(audit.dataset.splits)
    rest = set(by_id) - {i for ids in parts.values() for i in ids}
    if rest:
        parts[tr("not in any")] = sorted(rest)
    rows = []
    for name, ids in parts.items():
        shares = [by_id[i]["share"] for i in ids if by_id[i]["share"] is not None]
        mean = f"{np.mean(shares):.2%}" if shares else "–"
        patients = len({by_id[i]["group"] for i in ids})
        rows.append([name, str(len(ids)), str(patients), mean, str(len(leaks.intersection(ids)))])
    return Table([say(key) for key in keys], rows)


def ceiling_table(ceilings: Sequence[Ceiling]) -> Table:
    """Mean and worst Dice of each ceiling, and its Dice by vessel width."""
    shown = [label for label in CLASSES if any(label in ceiling.by_width for ceiling in ceilings)]
    names = [tr("Compared with the truth"), "N", "Dice", tr("Worst image"), *shown]
    rows = []
    for ceiling in ceilings:
        by_width = [f"{ceiling.by_width[label][0]:.3f}" if label in ceiling.by_width else "–" for label in shown]
        name = name_ceiling(ceiling)
        rows.append([name, str(ceiling.n), f"{ceiling.dice:.3f}", f"{ceiling.lowest:.3f}", *by_width])
    return Table(names, rows)


def source_table(dataset: Dataset) -> Table:
    """What it takes to know these data again: hashes, the rasteriser, what the ids stand on."""
    rows = [
        ("source_data", dataset.manifest_sha256),
        ("source_truth", dataset.truth_sha256),
        ("rasteriser", dataset.rasteriser),
        ("audit_ids", dataset.pseudonyms),
    ]
    return Table([tr("What"), tr("Value")], [[say(k), v] for k, v in rows])


def name_ceiling(ceiling: Ceiling) -> str:
    """What a ceiling compares with the truth, in words."""
    if ceiling.name in ("averaged", "searched"):
        return say(f"ceiling_{ceiling.name}", grid=GRID)
    return tr("same outlines: {name}", name=ceiling.name)


def describe_kind(kind: str) -> tuple[str, str, str]:
    """Title, what training makes of it, what the repaired copy does."""
    found = KINDS[kind]
    return tr(found.title), tr(found.training), tr(found.repair) if found.repair else ""


def _range(values, form: str) -> str:
    values = np.asarray(values, float)
    if not len(values):
        return "–"
    low, median, high = (form.format(value) for value in np.quantile(values, [0, 0.5, 1]))
    return low if low == high else tr("{low} to {high}, median {median}", low=low, median=median, high=high)


def _as_dict(ceiling: Ceiling) -> dict:
    by_width = {label: {"dice": dice, "pixels": pixels} for label, (dice, pixels) in ceiling.by_width.items()}
    return {"name": ceiling.name, "n": ceiling.n, "dice": ceiling.dice, "lowest": ceiling.lowest, "by_width": by_width}
