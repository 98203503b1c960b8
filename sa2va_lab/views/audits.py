"""What 01_dataset shows of a `datasets.audit.Audit` and of ceilings: the answer, tables and pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter

from sa2va_lab.datasets.audit import Audit
from sa2va_lab.datasets.ceilings import GRID, Ceiling
from sa2va_lab.datasets.defects import KINDS
from sa2va_lab.datasets.drawings import DrawnTruth
from sa2va_lab.datasets.geometry import CLASSES, EDGES, classify_pixels, trace_mask
from sa2va_lab.datasets.samples import Dataset, Sample
from sa2va_lab.errors import LabError
from sa2va_lab.language import join_sentences, tr
from sa2va_lab.reports.answers import Answer, Audited, say_sample
from sa2va_lab.views import style
from sa2va_lab.views.overlays import read_pixels, window
from sa2va_lab.views.tables import Table, show, tabulate, tabulate_facts

CLOSEST = 24  # pixels a side at the last zoom: single pixels can be counted
OUTLINE = style.FALSE_POSITIVE  # orange: seen on the grey of an angiogram, and not the yellow of predictions
MARKERS = ("o", "s", "^", "D", "v")
NOTHING = "There is nothing to draw: no image has an annotation with anything in it."


def answer_audit(audit: Audit, ceilings: Sequence[Ceiling]) -> Answer:
    """What is there, what is wrong with it, and what no model can beat, in two or three sentences."""
    told, found = audit.to_dict(), audit.by_kind()
    said = "{sample}, {annotated} annotated: no defect was found."
    values = {"sample": say_sample(told["samples"], told["groups"]), "annotated": told["stats"]["annotated"]}
    if found:
        said = (
            "{sample}, {annotated} annotated: {odd} images have defects of {kinds} kinds, most often “{most}” "
            "({count})."
        )
        most = max(found, key=lambda kind: len(found[kind]))
        values |= {"most": tr(KINDS[most].title), "count": len(found[most])}
        values |= {"odd": len(set(audit.defects) - {""}), "kinds": len(found)}
    sentences = [tr(said, **values)]
    if audit.pairs:
        leak = "{pairs} pairs of nearly the same picture lie under different patients; see “Does a split leak?” below."
        sentences.append(tr(leak, pairs=len(audit.pairs)))
    by_name = {ceiling.name: ceiling for ceiling in ceilings}
    if {"averaged", "searched"} <= set(by_name):
        plain, searched = by_name["averaged"], by_name["searched"]
        limit = (
            "On Sa2VA's {grid} x {grid} grid, Dice {plain:.3f} is what a model that knows each cell's share of vessel "
            "would reach here ({searched:.3f} with the best logits that were found), on {n} images."
        )
        sentences.append(tr(limit, grid=GRID, plain=plain.dice, searched=searched.dice, n=plain.n))
    metrics = Audited(audit=told, ceilings=[ceiling.to_dict() for ceiling in ceilings])
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
    rows = pd.DataFrame(audit.rows).set_index("id").astype({"share": float})
    leaks = set(audit.by_kind().get("split_near_duplicate", ()))
    parts = dict(audit.dataset.splits)
    if rest := set(rows.index).difference(*parts.values()):
        parts[tr("not in any")] = sorted(rest)
    return tabulate(
        parts.items(),
        {
            "Split": lambda part: part[0],
            "Images": lambda part: len(part[1]),
            "Patients": lambda part: rows.loc[list(part[1]), "group"].nunique(),
            "Mean share of vessel": lambda part: show(rows.loc[list(part[1]), "share"].mean(), ".2%"),
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


def choose_example(audit: Audit) -> Sample:
    """The annotated image whose share of vessel is in the middle; LabError where nothing is annotated."""
    known = sorted((row["share"], row["id"]) for row in audit.rows if row["share"])
    if not known:
        raise LabError(tr(NOTHING))
    return audit.dataset[known[len(known) // 2][1]]


def zoom_figure(sample: Sample):
    """Outline, mask and both on the image at three zooms, down to single pixels; returns (figure, alt)."""
    truth, pixels = sample.truth(), read_pixels(sample.image)
    source = sample.source()
    drawn = source.scaled(truth.shape) if isinstance(source, DrawnTruth) and source.polygons else None
    polygons = trace_mask(truth) if drawn is None else drawn

    height, width = truth.shape
    centre = _find_thin_place(truth)
    sides = [max(height, width), max(min(height, width) // 5, CLOSEST), CLOSEST]
    with style.drawing(style.WIDTH * 1.06) as figure:
        panels = figure.subplots(3, 3)
        titles = (
            tr("Outline, traced from the mask") if drawn is None else tr("Polygon, as it was drawn"),
            tr("Mask, as training sees it"),
            tr("Both on the image"),
        )
        for ax, title in zip(panels[0], titles, strict=True):
            ax.set_title(title)
        for level, side in enumerate(sides):
            part = window(truth.shape, (side, side), centre)
            for place, ax in enumerate(panels[level]):
                _draw_panel(ax, place, pixels, truth, polygons, part, grid=level == 2)
            label = tr("whole image") if level == 0 else tr("{side} x {side} pixels", side=side)
            panels[level][0].set_ylabel(label)
            if level:  # where this row looks
                rows, columns = part
                place, look = (columns.start, rows.start), dict(fill=False, edgecolor=style.ACCENT, linewidth=1.4)
                for ax in panels[level - 1]:
                    ax.add_patch(Rectangle(place, columns.stop - columns.start, rows.stop - rows.start, **look))
    return figure, tr(
        "{id} at three zooms, from the whole {width} x {height} image to {side} x {side} pixels: "
        "{polygons} outlines with {points} corners become a mask of {area} pixels ({share:.1%} of the"
        " image); at the closest zoom the outline cuts through pixels that the mask has either whole "
        "or not at all.",
        id=sample.id,
        width=width,
        height=height,
        side=CLOSEST,
        polygons=len(polygons),
        points=sum(len(polygon) // 2 for polygon in polygons),
        area=int(truth.sum()),
        share=float(truth.mean()),
    )


def distribution_figure(audit: Audit):
    """Histograms of vessel width and of vessel share; returns (figure, alt)."""
    shares = np.array([row["share"] for row in audit.rows if row["share"] is not None])
    with style.drawing(3.2) as figure:
        left, right = figure.subplots(1, 2)
        most = float(np.quantile(audit.widths, 0.995))
        weights = np.full(len(audit.widths), 1 / len(audit.widths))
        left.hist(np.minimum(audit.widths, most), bins=30, weights=weights, color=style.NEUTRAL)
        for edge in EDGES:
            left.axvline(edge, color=style.ACCENT, linewidth=0.8, linestyle=(0, (4, 3)))
        left.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        left.set(xlabel=tr("Width of a vessel, pixels"), ylabel=tr("Share of the centrelines"))
        right.hist(shares, bins=min(20, max(5, len(shares) // 3)), color=style.NEUTRAL)
        right.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        right.yaxis.set_major_locator(MaxNLocator(integer=True))
        right.set(xlabel=tr("Share of vessel pixels in an image"), ylabel=tr("Number of images"))
    return figure, tr(
        "Left: vessel widths, median {width:.1f} pixels, {thin:.0%} of the centrelines at most 4 "
        "pixels wide. Right: share of vessel pixels in {n} images, from {low:.1%} to {high:.1%}, mean"
        " {mean:.1%}.",
        width=float(np.median(audit.widths)),
        thin=float((audit.widths <= EDGES[1]).mean()),
        n=len(shares),
        low=shares.min(),
        high=shares.max(),
        mean=shares.mean(),
    )


def matrix_figure(audit: Audit):
    """Patients by images: vessel share as colour, crosses where nothing is annotated, rings where there is a defect.

    Returns (figure, alt).
    """
    rows = pd.DataFrame(audit.rows).astype({"share": float})
    rows["frame"] = rows.groupby("group").cumcount()
    shares = rows.pivot(index="group", columns="frame", values="share")
    shares = shares.sort_index(key=lambda names: names.map(lambda name: (len(name), name)))
    groups, most = list(shares.index), len(shares.columns)
    rows["patient"] = rows["group"].map(groups.index)
    bare, odd = rows[rows["share"].isna()], rows[rows["id"].isin(audit.defects)]

    with style.drawing(1.4 + min(0.28 * len(groups), 12)) as figure:
        ax = figure.subplots()
        colours = colormaps[style.PROBABILITY].with_extremes(bad="white")
        drawn = ax.imshow(shares, aspect="auto", cmap=colours, vmin=0, interpolation="nearest")
        cross, ring = dict(marker="x", color=style.NEUTRAL), dict(marker="o", facecolors="none", edgecolors="black")
        for some, look, label in ((bare, cross, tr("not annotated")), (odd, ring, tr("has a defect"))):
            if len(some):
                ax.scatter(some["frame"], some["patient"], s=28, **look, label=label)
        if len(bare) or len(odd):
            figure.legend(loc="outside upper right", ncols=2)
        bar = figure.colorbar(drawn, ax=ax, pad=0.02)
        bar.ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        bar.set_label(tr("Share of vessel pixels in an image"))
        ax.set_yticks(range(len(groups)), groups, fontsize=8 if len(groups) <= 45 else 4)
        ax.set_xticks(np.unique(np.linspace(0, most - 1, min(most, 10)).astype(int)))
        ax.xaxis.set_major_formatter(lambda value, _: f"{value + 1:.0f}")
        ax.set(xlabel=tr("Frame of the sequence"), ylabel=tr("Patient"))
    means = shares.mean(axis=1)
    full, empty = means.idxmax(), means.idxmin()
    return figure, tr(
        "{groups} patients by {most} images: share of vessel in each image; {bare} images are not "
        "annotated and {odd} have a defect; the patient with most vessel is {full} ({full_share:.1%} "
        "on average), the one with least {empty} ({empty_share:.1%}).",
        groups=len(groups),
        most=most,
        bare=len(bare),
        odd=len(odd),
        full=full,
        full_share=means[full],
        empty=empty,
        empty_share=means[empty],
    )


def ceiling_figure(ceilings: Sequence[Ceiling]):
    """Dice that is left by vessel width, a line a ceiling; returns (figure, alt)."""
    if not ceilings:
        raise LabError(tr(NOTHING))
    labels = [label for label in CLASSES if any(label in ceiling.by_width for ceiling in ceilings)]
    colours = (style.ACCENT, style.FALSE_POSITIVE, "black", style.NEUTRAL, "#CC79A7")
    with style.drawing(4.0) as figure:
        ax = figure.subplots()
        for number, ceiling in enumerate(ceilings):
            places = [place for place, label in enumerate(labels) if label in ceiling.by_width]
            heights = [ceiling.by_width[labels[place]][0] for place in places]
            look = dict(color=colours[number % 5], marker=MARKERS[number % 5])
            look["linestyle"] = "solid" if ceiling.name in ("averaged", "searched") else (0, (5, 2))
            ax.plot(places, heights, **look, label=name_ceiling(ceiling))
        ax.set_xticks(range(len(labels)), labels)
        ax.set(xlabel=tr("Width of a vessel, pixels"), ylabel=tr("Dice that is left"))
        ax.set_ylim(top=1.005)
        ax.grid(axis="y")
        ax.legend(loc="lower right")
    values = [(dice, label, c) for c in ceilings for label, (dice, _) in c.by_width.items()]
    low, label, worst = min(values, key=lambda value: value[0])
    return figure, tr(
        "Dice that is left by vessel width, for {count} ways of changing the ground truth; the lowest is "
        "{low:.2f} for {label} in “{name}”.",
        count=len(ceilings),
        low=low,
        label=label,
        name=name_ceiling(worst),
    )


def _draw_panel(ax, place: int, pixels, truth, polygons, part: tuple[slice, slice], *, grid: bool) -> None:
    """One panel in pycocotools' coordinates: pixel (row, column) covers [column, column + 1) x [row, row + 1)."""
    rows, columns = part
    extent = (0, truth.shape[1], truth.shape[0], 0)
    if place == 1:
        ax.imshow(truth, extent=extent, cmap="gray_r", vmin=0, vmax=1.4, interpolation="nearest")
    else:
        ax.imshow(pixels, extent=extent, interpolation="nearest")
    if place == 2:
        veil = np.zeros((*truth.shape, 4))
        veil[truth] = (0.941, 0.894, 0.259, 0.45)
        ax.imshow(veil, extent=extent, interpolation="nearest")
    if place != 1 or grid:
        thin = columns.stop - columns.start > 200
        for polygon in polygons:
            points = np.vstack([polygon.reshape(-1, 2), polygon[:2]])
            ax.plot(*points.T, color=OUTLINE, linewidth=0.6 if thin else 1.4)
            if not thin:
                ax.plot(*points.T, ".", color=OUTLINE, markersize=3 if not grid else 6)
    ax.set_xlim(columns.start, columns.stop)
    ax.set_ylim(rows.stop, rows.start)
    if grid:
        ax.set_xticks(np.arange(columns.start, columns.stop + 1), minor=True)
        ax.set_yticks(np.arange(rows.start, rows.stop + 1), minor=True)
        ax.grid(which="minor", color=style.NEUTRAL, linewidth=0.25)
    ax.tick_params(which="both", length=0, labelbottom=False, labelleft=False)
    for side in ax.spines.values():
        side.set_visible(False)


def _find_thin_place(truth: np.ndarray) -> tuple[int, int]:
    """Row and column of a vessel that is thin, but not the thinnest, as far from the image's border as can be."""
    classes = np.where(truth, classify_pixels(truth), 99)
    rows, columns = np.nonzero(classes == min(max(classes[truth].min(), 1), classes[truth].max()))
    if not len(rows):
        rows, columns = np.nonzero(truth)
    height, width = truth.shape
    centre = np.argmin(np.hypot(rows - height / 2, columns - width / 2))
    return int(rows[centre]), int(columns[centre])
