"""What 01_dataset shows of a `datasets.audit.Audit` and of ceilings: the answer and tables; `truths` has pictures."""

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
from sa2va_lab.reports.answers import Answer, Audited, say_sample
from sa2va_lab.views.tables import Table, show, tabulate, tabulate_facts


def answer_audit(audit: Audit, ceilings: Sequence[Ceiling]) -> Answer:
    """What is there, what is wrong with it, and what no model can beat, in two or three sentences."""
    said = audit.to_dict()
    found = audit.by_kind()
    sample = say_sample(said["samples"], said["groups"])
    values = dict(sample=sample, annotated=said["stats"]["annotated"])
    if found:
        most = max(found, key=lambda kind: len(found[kind]))
        values |= dict(odd=len(set(audit.defects) - {""}), kinds=len(found), count=len(found[most]))
        sentences = [
            tr(
                "{sample}, {annotated} annotated: {odd} images have defects of {kinds} kinds, most often "
                "“{most}” ({count}).",
                most=tr(KINDS[most].title),
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
    metrics = Audited(audit=said, ceilings=[ceiling.to_dict() for ceiling in ceilings])
    return Answer(join_sentences(sentences), metrics)


def overview_table(audit: Audit) -> Table:
    """What is in the data set: format, sizes, frames a patient, objects, vessels."""
    dataset, rows = audit.dataset, audit.rows
    sizes = Counter(f"{row['size'][1]}x{row['size'][0]}" for row in rows if row["size"])
    frames = list(Counter(row["group"] for row in rows).values())
    known = {key: [row[key] for row in rows if row[key] is not None] for key in ("share", "objects", "polygons")}
    facts = {
        "Format": tr(dataset.reason),
        "Images": say_sample(len(rows), len(frames)),
        "Looked for": dataset.phrase,
        "Annotated for the phrase": len(known["share"]),
        "Sizes, px": ", ".join(f"{size} ({count})" for size, count in sizes.most_common()),
        "Images a patient": _range(frames, ".0f"),
        "Objects an image": _range(known["objects"], ".0f"),
        "Outlines an image": _range(known["polygons"], ".0f"),
        "Images whose vessels enclose holes": sum(bool(row["holes"]) for row in rows),
        "Share of vessel pixels": _range(known["share"], ".2%"),
        "Vessel width along centrelines, px": _range(audit.widths, ".1f"),
    }
    if left_out := [row["ignored"] for row in rows if row["ignored"]]:
        facts["Share of pixels that are ignored"] = _range(left_out, ".1%")
    return tabulate_facts(facts)


def defect_table(audit: Audit) -> Table:
    """Every kind of defect that was found: how many images, what it is, in training, in a repaired copy."""
    return tabulate(
        audit.by_kind().items(),
        {
            "Defect": lambda found: found[0],
            "Number of images": lambda found: len(found[1]),
            "What it is": lambda found: tr(KINDS[found[0]].title),
            "What training makes of it": lambda found: tr(KINDS[found[0]].training),
            "In the repaired copy": lambda found: tr(KINDS[found[0]].repair or "for a person to decide"),
        },
        nothing="none was found",
    )


def detail_table(audit: Audit, *, most: int = 40) -> Table:
    """What was noted for each image with a defect; `most` images at most, those with most defects first."""
    worst = sorted(audit.defects.items(), key=lambda item: (item[0] != "", -len(item[1]), item[0]))[:most]
    columns = {"Image": lambda item: item[0] or tr("the folder")}
    columns["What was noted"] = lambda item: "; ".join(tr(defect.text) for defect in item[1])
    return tabulate(worst, columns, nothing="none was found")


def split_table(audit: Audit) -> Table:
    """Each split: images, patients, mean share of vessel, and near duplicates of its images in other splits."""
    by_id = {row["id"]: row for row in audit.rows}
    leaks = set(audit.by_kind().get("split_near_duplicate", ()))
    parts = dict(audit.dataset.splits)
    rest = set(by_id) - {i for ids in parts.values() for i in ids}
    if rest:
        parts[tr("not in any")] = sorted(rest)

    def share(ids: Sequence[str]) -> str:
        shares = [by_id[i]["share"] for i in ids if by_id[i]["share"] is not None]
        return f"{np.mean(shares):.2%}" if shares else "–"

    return tabulate(
        parts.items(),
        {
            "Split": lambda part: part[0],
            "Images": lambda part: len(part[1]),
            "Patients": lambda part: len({by_id[i]["group"] for i in part[1]}),
            "Mean share of vessel": lambda part: share(part[1]),
            "Near duplicates in other splits": lambda part: len(leaks.intersection(part[1])),
        },
    )


def ceiling_table(ceilings: Sequence[Ceiling]) -> Table:
    """Mean and worst Dice of each ceiling, and its Dice by vessel width."""
    columns = {"Compared with the ground truth": name_ceiling, "N": "n", "Dice": "dice", "Worst image": "lowest"}
    for label in CLASSES:
        if any(label in ceiling.by_width for ceiling in ceilings):
            columns[label] = lambda ceiling, label=label: ceiling.by_width.get(label, (None,))[0]
    return tabulate(ceilings, columns)


def source_table(dataset: Dataset) -> Table:
    """What it takes to know these data again: hashes, the rasteriser, what the ids stand on."""
    return tabulate_facts(
        {
            "data manifest sha256": dataset.manifest_sha256,
            "ground truth sha256": dataset.truth_sha256,
            "Masks from polygons by": tr(dataset.rasteriser),
            "Ids": tr(dataset.pseudonyms),
        }
    )


def name_ceiling(ceiling: Ceiling) -> str:
    """What a ceiling compares with the ground truth, in words."""
    if ceiling.name == "averaged":
        return tr("{grid} x {grid} grid, share of each cell", grid=GRID)
    if ceiling.name == "searched":
        return tr("{grid} x {grid} grid, best logits found", grid=GRID)
    return tr("same outlines: {name}", name=ceiling.name)


def _range(values: Sequence[float], form: str) -> str:
    if not len(values):
        return "–"
    low, median, high = (show(float(value), form) for value in np.quantile(values, [0, 0.5, 1]))
    return low if low == high else tr("{low} to {high}, median {median}", low=low, median=median, high=high)
