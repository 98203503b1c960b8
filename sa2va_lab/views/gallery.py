"""The error gallery: which mistakes a model makes, with examples; one offline page to look through, and a CSV.

`table` is always what `evaluation.mistakes.sort_mistakes` returned.
"""

from __future__ import annotations

import math
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import HTML
from matplotlib.patches import Rectangle
from scipy import ndimage

from sa2va_lab.datasets.samples import Dataset
from sa2va_lab.errors import LabError
from sa2va_lab.evaluation.metrics import pair_up
from sa2va_lab.evaluation.mistakes import KINDS, find_others, sort_pixels, summarise_mistakes, trace_line
from sa2va_lab.evaluation.questions import find_asked, measure_refused
from sa2va_lab.files import write_whole
from sa2va_lab.language import join_sentences, tr
from sa2va_lab.reports.answers import Answer, Refused, Sorted, say_refused, say_sample
from sa2va_lab.reports.html import render
from sa2va_lab.runs.read import Run
from sa2va_lab.views import overlays, style
from sa2va_lab.views.scores import SHOWN_METRICS
from sa2va_lab.views.tables import Table, name_metric, show, tabulate

SIDE = 512  # px: a larger image is made smaller for the page, so that 100 cases stay below 15 MB
WINDOW = 128  # px of the part that an example shows enlarged
MISTAKES = {
    # kind: (what it is called, the rule by which it is told, what would help)
    "no_seg": (
        "no [SEG]",
        "The answer has no [SEG]: everything annotated is missed.",
        "Ask in a phrasing of the training; train on questions about things that are there.",
    ),
    "gap": (
        "broken continuity",
        "A piece of the ground truth's centreline, more than a pixel from the mask, with found ends on both sides.",
        "A lower threshold; a loss on centrelines (clDice); a second look at crossings.",
    ),
    "thin": (
        "thin branch missed",
        "Centreline not found and not between found ends, vessel at most 4 px wide (at 512).",
        "A lower threshold; larger images or tiles: Sa2VA decides on a grid of 256.",
    ),
    "broad": (
        "wide branch missed",
        "The same, vessel wider than 4 px (at 512).",
        "More patients with this view or contrast; check that the ground truth is right here.",
    ),
    "tight": (
        "outline too narrow",
        "Missed, but the nearest point of the ground truth's centreline is found.",
        "A lower threshold; two annotators differ by as much: compare with the human baseline.",
    ),
    "sparse_truth": (
        "ground truth nearly empty: perhaps an annotation error",
        "Ground truth below 1/5 of the data set's median area, mask at least 5 times the ground truth.",
        "Look at the annotation first.",
    ),
    "loose": (
        "outline too wide",
        "False positive within 2 px of the ground truth (at 512).",
        "A higher threshold; outlines traced along the edge of the vessel.",
    ),
    "other_thing": (
        "another thing taken for it, such as a catheter",
        "False positive within 2 px (at 512) of what is annotated under another phrase; not measurable where nothing "
        "else is annotated.",
        "Annotate the other thing and train on questions about both.",
    ),
    "blob": (
        "isolated blob",
        "A connected component of the mask that comes nowhere within 2 px of the ground truth (at 512).",
        "A minimum area (try it in 04_threshold_tuning); negatives in training.",
    ),
    "beyond": (
        "goes on beyond the ground truth",
        "The other false positives: farther than 2 px from the ground truth (at 512), in a component that touches it.",
        "Often a branch that nobody drew: look at the annotation, then at the threshold.",
    ),
}
SUSPECTS = {
    "empty": "empty ground truth, but the model is sure of a vessel",
    "sparse": "nearly empty ground truth",
    "sure": "much that the model is sure of (probability from 0.9) is not annotated",
    "defect": "the annotation has a defect",
}


def name_kind(kind: str) -> str:
    """What a kind of mistake is called, in the current language."""
    return tr(MISTAKES[kind][0])


def answer_gallery(table: pd.DataFrame, run: Run) -> Answer:
    """The commonest mistake, what it costs, how many annotations to look at again; the numbers of every kind."""
    scored = table[table["dice"].notna()]
    suspects = table.loc[table["suspect"] != "", "id"].tolist()
    mistakes = [
        row
        | {"title": name_kind(row["kind"]), "help": tr(MISTAKES[row["kind"]][2])}
        | {"images": row["any"], "largest": row["images"], "pixel_share": row["share"]}
        | {"share": row["any"] / len(scored)}
        for row in summarise_mistakes(table)
        if row["pixels"]
    ]
    metrics = {"mistakes": mistakes, "cases": len(scored), "suspect_truths": suspects, "run": run.folder.name}
    metrics |= {"threshold": table.attrs["threshold"], "usual_truth_area": table.attrs["usual"]}
    metrics = Sorted(refused=Refused(**measure_refused(table, find_asked(run))), **metrics)
    said = [
        tr(
            "No mistake can be named: no image of this Run has both a prediction and an annotation in which anything "
            "is wrong."
        )
    ]
    if mistakes:
        first, dice = mistakes[0], float(scored["dice"].mean())
        values = {"kind": first["title"], "share": first["pixel_share"], "images": first["largest"], "dice": dice}
        values |= {"after": dice + first["gain"], "suspects": len(suspects)}
        sentence = tr(
            "The commonest mistake is “{kind}”: {share:.0%} of the wrong pixels in {sample}, the largest "
            "in {images} images; without it mean Dice would be {after:.3f} instead of {dice:.3f}. Annotations "
            "to look at again: {suspects}.",
            sample=say_sample(len(scored), scored["group"].nunique(), grouped=table.attrs.get("grouped", False)),
            **values,
        )
        said = [sentence, *say_refused(metrics.refused)]
    return Answer(join_sentences(said), metrics, stamp=run.meta["stamp"])


def mistake_table(table: pd.DataFrame) -> Table:
    """Every kind: in how many images, its share of the wrong pixels, and the mean Dice if it alone were gone."""
    dice = float(table["dice"].mean())
    return tabulate(
        summarise_mistakes(table),
        {
            "Kind": lambda row: name_kind(row["kind"]),
            "Largest in, images": "images",
            "Occurs in, images": "any",
            "Share of wrong pixels": lambda row: show(row["share"], ".1%"),
            "Mean Dice without it": lambda row: dice + row["gain"],
        },
    )


def rule_table() -> Table:
    """The rule of every kind, and what would help."""
    columns = {"Kind": name_kind, "Rule": lambda kind: tr(MISTAKES[kind][1])}
    return tabulate(KINDS, columns | {"What would help": lambda kind: tr(MISTAKES[kind][2])})


def suspect_table(table: pd.DataFrame) -> Table:
    """Annotations that look wrong, to be drawn again."""
    found = table[table["suspect"] != ""].sort_values(["suspect", "id"]).to_dict("records")
    columns = {"Image": "id", "Patient": "group", "Why": lambda row: tr(SUSPECTS[row["suspect"]])}
    return tabulate(found, columns, nothing="no annotation looks wrong by these rules")


def kind_figures(table: pd.DataFrame, run: Run, dataset: Dataset, *, most: int = 3):
    """An example of each of the `most` commonest kinds: yields (kind, figure, alt), the image with most of it."""
    for row in summarise_mistakes(table)[:most]:
        if row["pixels"]:
            example = table.loc[table[row["kind"]].idxmax()]
            yield row["kind"], *_draw_kind(row["kind"], example, table.attrs, run, dataset)


def _draw_kind(kind: str, row, attrs: dict, run: Run, dataset: Dataset):
    sample, prediction = dataset[row["id"]], run.prediction(row["id"])
    pair = pair_up(prediction, sample)
    mask, truth = pair.mask(attrs["threshold"]), pair.truth
    other = find_others(dataset, sample.id, truth.shape)
    named = prediction.n_seg > 0
    area = sort_pixels(mask, truth, other=other, named=named, usual=attrs["usual"]) == KINDS.index(kind)
    side = min(WINDOW * max(mask.shape) // 512, *mask.shape)
    centre = np.unravel_index(ndimage.gaussian_filter(area.astype(np.float32), side / 4).argmax(), area.shape)
    rows, columns = overlays.window(mask.shape, (side, side), centre)

    pixels = overlays.read_pixels(sample.image)
    with style.drawing(3.6, stamp=attrs["stamp"]) as figure:
        whole, near, compared = figure.subplots(1, 3)
        whole.imshow(pixels)
        frame = Rectangle(
            (columns.start - 0.5, rows.start - 0.5), side, side, fill=False, edgecolor="black", linewidth=1.2
        )
        style.halo(frame, 3)
        whole.add_patch(frame)
        near.imshow(pixels)
        overlays.draw_comparison(pixels, pair, attrs["threshold"], ax=compared)
        for ax in (near, compared):
            ax.set(xlim=(columns.start - 0.5, columns.stop - 0.5), ylim=(rows.stop - 0.5, rows.start - 0.5))
        for ax in (whole, near, compared):
            ax.set_axis_off()
        whole.set_title(sample.id)
        near.set_title(f"{side} × {side} px")
        compared.set_title(tr("Right and wrong at {threshold:g}", threshold=attrs["threshold"]))
        figure.suptitle(name_kind(kind), x=0.01, ha="left", fontweight="bold")
        overlays.add_legend(figure, pair.ignore)
    return figure, tr(
        "“{kind}” in {id}: {pixels} pixels, {share:.0%} of what is wrong there; the part with most of it enlarged.",
        kind=name_kind(kind),
        id=sample.id,
        pixels=int(row[kind]),
        share=row[kind] / (row["fp"] + row["fn"]),
    )


def choose_cases(table: pd.DataFrame, *, most: int = 100) -> pd.DataFrame:
    """At most so many rows for the page, worst first: each kind's strongest, each patient's worst, median and best,
    every suspect annotation, then the worst of the rest. Where there is no room for three of each patient, of patients
    evenly spread from the worst to the best. A column "place" says worst, median or best third of the Run."""
    scored = table[table["dice"].notna()].sort_values(["dice", "id"])
    if not len(scored):
        return table[table["error"].isna()].head(most).assign(place="")
    thirds = np.array(["worst", "median", "best"])[np.arange(len(scored)) * 3 // len(scored)]
    scored = scored.assign(place=thirds)
    wanted = [scored.loc[scored[kind].idxmax(), "id"] for kind in KINDS if scored[kind].max() > 0]
    groups = scored.groupby("group")["dice"].mean().sort_values(kind="stable").index
    room = max((most - len(wanted)) // 3, 1)
    for place in dict.fromkeys(np.linspace(0, len(groups) - 1, min(room, len(groups))).round().astype(int)):
        frames = scored.loc[scored["group"] == groups[place], "id"]
        wanted += [frames.iloc[at] for at in (0, len(frames) // 2, -1)]
    wanted += scored.loc[scored["suspect"] != "", "id"].tolist()
    wanted = list(dict.fromkeys([*wanted, *scored["id"]]))[:most]
    return scored[scored["id"].isin(wanted)]


def write_gallery(table: pd.DataFrame, run: Run, dataset: Dataset, *, folder: Path | str, most: int = 100) -> Path:
    """Writes cases.csv (every sample) and gallery.html (`most` cases, needing nothing from outside) into a new folder.

    One image is in memory at a time. An image that cannot be read costs its picture, not the page. Returns the page.
    """
    folder = Path(folder)
    rows = choose_cases(table, most=most).to_dict("records")
    page = render(
        "gallery.html.j2",
        title=tr("Error gallery of {name}", name=run.folder.name),
        stamp=run.meta["stamp"],
        cards=[_make_card(row, table.attrs, run, dataset) for row in rows],
        kinds={kind: name_kind(kind) for kind in KINDS if any(row["kind"] == kind for row in rows)},
        groups=sorted({row["group"] for row in rows}),
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "cases.csv", table.drop(columns=["seconds"]).to_csv(index=False))
        return write_whole(folder / "gallery.html", page)
    except OSError as error:
        raise LabError(f"{folder} cannot be written ({error.strerror}); choose another outputs folder") from None


def _make_card(row: dict, attrs: dict, run: Run, dataset: Dataset) -> dict:
    sample = dataset[row["id"]]
    pair = pair_up(run.prediction(sample.id), sample)
    mask, truth = pair.mask(attrs["threshold"]), pair.truth
    step = math.ceil(max(mask.shape) / SIDE)
    small = np.s_[::step, ::step]
    ignore = None if pair.ignore is None else pair.ignore[small]
    try:
        pixels = overlays.read_pixels(sample.image)[small]
    except (LabError, OSError):  # moved away since: masks and numbers are still worth a look
        pixels = np.full((*mask[small].shape, 3), 128, np.uint8)
    said = overlays.describe_case(overlays.name_case(sample.id, sample.group, dice=row["dice"]), mask, truth)
    pictures = [(tr("Image"), None, "")]  # (title, layer, alt, if not the title)
    if truth is None:
        pictures.append((tr("Prediction"), overlays.paint_errors(mask[small], None, ignore=ignore), said))
    else:
        line = trace_line(mask, truth)
        lost = line.lost.sum() / max(int(line.line.sum()), 1)
        broken = "Centreline of {id}: {breaks:.0f} gaps, {lost:.0%} of its length lost."
        broken = tr(broken, id=sample.id, breaks=row["breaks"], lost=lost)
        errors = overlays.paint_errors(mask[small], truth[small], ignore=ignore, scale=2)
        pictures += [
            (tr("Ground truth"), overlays.paint_errors(truth[small], None), ""),
            (tr("Prediction"), overlays.paint_errors(mask[small], None), ""),
            (tr("Right and wrong"), errors, said),
            (tr("Centreline: found, lost, gaps"), overlays.paint_line(line, truth)[small], broken),
        ]
    pictures = [(title, "" if layer is None else overlays.encode_layer(layer), alt) for title, layer, alt in pictures]
    pictures.append((tr("Probability"), overlays.encode_probability(pair.probability[small]), ""))
    wrong = sum(row[kind] for kind in KINDS)
    shares = sorted(((row[kind] / wrong, kind) for kind in KINDS if row[kind] > 0), reverse=True)
    return {
        "id": sample.id,
        "group": sample.group,
        "kind": row["kind"] or "",
        "place": row["place"],
        "suspect": tr(SUSPECTS[row["suspect"]]) if row["suspect"] else "",
        "answer": row["answer"] or "",
        "photo": overlays.encode_photo(pixels, quality=70),
        "size": (pixels.shape[1], pixels.shape[0]),
        "pictures": [{"title": t, "layer": layer, "alt": alt or f"{t}, {sample.id}"} for t, layer, alt in pictures],
        "numbers": [(name_metric(metric), show(row[metric])) for metric in SHOWN_METRICS],
        "shares": [(name_kind(kind), f"{share:.0%}") for share, kind in shares[:4]],
    }


def show_link(page: Path, *, beside: bool = False) -> HTML:
    """Where the gallery lies, as a link that works in a report: `beside` its pages, or in `galleries/` elsewhere."""
    count, size = page.read_text("utf-8").count('<section class="case"'), page.stat().st_size / 1e6
    near = f"{page.parent.name}/{page.name}"
    there = near if beside else f"{page.parent.parent.name}/{near}"
    said = tr("Gallery of {cases} cases, {size:.1f} MB: {path}", cases=count, size=size, path=there)
    return HTML(f'<p><a href="{"" if beside else "../../"}{escape(there)}">{escape(said)}</a></p>')
