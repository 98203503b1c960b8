"""The error gallery: which mistakes a model makes, with examples; one offline page to look through, and a CSV.

`table` is always what `evaluation.mistakes.sort_mistakes` returned.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sa2va_lab.errors import LabError
from sa2va_lab.evaluation.mistakes import KINDS, find_others, sort_pixels, summarise_mistakes, trace_line
from sa2va_lab.language import current_language, tr
from sa2va_lab.reports.answers import Answer, Sorted
from sa2va_lab.reports.html import HTML_LANG
from sa2va_lab.reports.texts import say, say_sample
from sa2va_lab.views import layers, overlays, style
from sa2va_lab.views.tables import Table

if TYPE_CHECKING:
    import pandas as pd

    from sa2va_lab.datasets.samples import Dataset
    from sa2va_lab.runs.read import Run

SIDE = 512  # px: a larger image is made smaller for the page, so that 100 cases stay below 15 MB
WINDOW = 128  # px of the part that an example shows enlarged
SHOWN = ("dice", "iou", "precision", "recall")


def answer_gallery(table: pd.DataFrame, run: Run) -> Answer:
    """The commonest mistake, what it costs, how many truths to look at again; the numbers of every kind."""
    found = summarise_mistakes(table)
    scored = table[table["dice"].notna()]
    suspects = table.loc[table["suspect"] != "", "id"].tolist()
    mistakes = [
        row
        | {"title": say(f"mistake_{row['kind']}"), "help": say(f"mistake_{row['kind']}_help")}
        | {"images": row["any"], "largest": row["images"], "pixel_share": row["share"]}
        | {"share": row["any"] / len(scored)}
        for row in found
        if row["pixels"]
    ]
    metrics = {"mistakes": mistakes, "cases": len(scored), "suspect_truths": suspects, "run": run.folder.name}
    metrics |= {"threshold": table.attrs["threshold"], "usual_truth_area": table.attrs["usual"]}
    metrics = Sorted(**metrics)
    if not mistakes:
        return Answer(
            tr(
                "No mistake can be named: no image of this Run has both a prediction and an annotation in "
                "which anything is wrong."
            ),
            metrics,
            stamp=run.meta["stamp"],
        )
    first, dice = mistakes[0], float(scored["dice"].mean())
    sample = say_sample({"n_images": len(scored), "n_groups": scored["group"].nunique()})
    values = dict(kind=first["title"], share=first["pixel_share"], images=first["largest"], sample=sample)
    sentence = tr(
        "The commonest mistake is “{kind}”: {share:.0%} of the wrong pixels in {sample}, the largest "
        "in {images} images; without it mean Dice would be {after:.3f} instead of {dice:.3f}. Truths "
        "to look at again: {suspects}.",
        dice=dice,
        after=dice + first["gain"],
        suspects=len(suspects),
        **values,
    )
    return Answer(sentence, metrics, stamp=run.meta["stamp"])


def mistake_table(table: pd.DataFrame) -> Table:
    """Every kind: in how many images, its share of the wrong pixels, and the mean Dice if it alone were gone."""
    dice = float(table["dice"].mean())
    keys = ("mistake_kind", "mistake_images", "mistake_any", "mistake_share", "mistake_gain")
    rows = [
        [
            say(f"mistake_{row['kind']}"), str(row["images"]), str(row["any"]), f"{row['share']:.1%}",
            "–" if math.isnan(row["gain"]) else f"{dice + row['gain']:.3f}",
        ]
        for row in summarise_mistakes(table)
    ]  # fmt: skip
    return Table([say(key) for key in keys], rows)


def rule_table() -> Table:
    """The rule of every kind, and what would help."""
    rows = [[say(f"mistake_{kind}{end}") for end in ("", "_rule", "_help")] for kind in KINDS]
    return Table([tr(text) for text in ("Kind", "Rule", "What would help")], rows)


def suspect_table(table: pd.DataFrame) -> Table:
    """Truths that look wrong, for re-annotation."""
    found = table[table["suspect"] != ""].sort_values(["suspect", "id"])
    rows = [[r["id"], r["group"], say(f"suspect_{r['suspect']}")] for r in found.to_dict("records")]
    names = [tr(text) for text in ("Image", "Patient", "Why")]
    return Table(names, rows or [[tr("no truth looks wrong by these rules"), "–", "–"]])


def kind_figures(table: pd.DataFrame, run: Run, dataset: Dataset, *, most: int = 3):
    """An example of each of the `most` commonest kinds: yields (kind, figure, alt), the image with most of it."""
    for row in summarise_mistakes(table)[:most]:
        if row["pixels"]:
            example = table.loc[table[row["kind"]].idxmax()]
            yield row["kind"], *_draw_kind(row["kind"], example, table.attrs, run, dataset)


def _draw_kind(kind: str, row, attrs: dict, run: Run, dataset: Dataset):
    from matplotlib.patches import Rectangle
    from scipy import ndimage

    sample, prediction = dataset[row["id"]], run.prediction(row["id"])
    mask, truth = prediction.mask(attrs["threshold"]), sample.truth()
    other = find_others(dataset, sample.id, truth.shape)
    named = prediction.n_seg > 0
    area = sort_pixels(mask, truth, other=other, named=named, usual=attrs["usual"]) == KINDS.index(kind)
    side = min(WINDOW * max(mask.shape) // 512, *mask.shape)
    y, x = np.unravel_index(ndimage.gaussian_filter(area.astype(np.float32), side / 4).argmax(), area.shape)
    top = int(np.clip(y - side // 2, 0, mask.shape[0] - side))
    left = int(np.clip(x - side // 2, 0, mask.shape[1] - side))

    pixels = overlays.read_pixels(sample.image)
    figure = style.new_figure(style.WIDTH, 3.6)
    with style.figure_settings():
        whole, near, compared = figure.subplots(1, 3)
        whole.imshow(pixels)
        frame = Rectangle((left - 0.5, top - 0.5), side, side, fill=False, edgecolor="black", linewidth=1.2)
        style.halo(frame, 3)
        whole.add_patch(frame)
        near.imshow(pixels)
        overlays.draw_comparison(pixels, mask, truth, ax=compared)
        for ax in (near, compared):
            ax.set_xlim(left - 0.5, left + side - 0.5)
            ax.set_ylim(top + side - 0.5, top - 0.5)
        for ax in (whole, near, compared):
            ax.set_axis_off()
        whole.set_title(sample.id)
        near.set_title(f"{side} × {side} px")
        compared.set_title(tr("Right and wrong at {threshold:g}", threshold=attrs["threshold"]))
        figure.suptitle(say(f"mistake_{kind}"), x=0.01, ha="left", fontweight="bold")
        figure.legend(handles=overlays.legend_handles(), loc="outside lower left", ncols=3, fontsize=8)
        style.stamp(figure, attrs["stamp"])
    wrong = row["fp"] + row["fn"]
    values = dict(kind=say(f"mistake_{kind}"), id=sample.id, pixels=int(row[kind]), share=row[kind] / wrong)
    return figure, tr(
        "“{kind}” in {id}: {pixels} pixels, {share:.0%} of what is wrong there; the part with most of it enlarged.",
        **values,
    )


def choose_cases(table: pd.DataFrame, *, most: int = 100) -> pd.DataFrame:
    """At most so many rows for the page, worst first: each kind's strongest, each patient's worst, median and best,
    every suspect truth, then the worst of the rest. Where there is no room for three of each patient, of patients
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
    rows = choose_cases(table, most=most)
    cards = [_make_card(row, table.attrs, run, dataset) for row in rows.to_dict("records")]
    present = [kind for kind in KINDS if any(card["kind"] == kind for card in cards)]
    page = _template().render(
        say=lambda key, **values: say(key, **values),
        html_lang=HTML_LANG[current_language()],
        title=tr("Error gallery of {name}", name=run.folder.name),
        stamp=run.meta["stamp"],
        cards=cards,
        kinds=present,
        groups=sorted({card["group"] for card in cards}),
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        table.drop(columns=["seconds"]).to_csv(folder / "cases.csv", index=False)
        unfinished = folder / ".gallery.html.part"
        unfinished.write_text(page, "utf-8")
        os.replace(unfinished, folder / "gallery.html")
    except OSError as error:
        raise LabError(f"{folder} cannot be written ({error.strerror}); choose another outputs folder") from None
    return folder / "gallery.html"


def _template():
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("sa2va_lab.reports", "template")
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, undefined=StrictUndefined)
    return environment.get_template("gallery.html.j2")


def _make_card(row: dict, attrs: dict, run: Run, dataset: Dataset) -> dict:
    sample, prediction = dataset[row["id"]], run.prediction(row["id"])
    probability = prediction.probability()
    mask, truth = probability > attrs["threshold"], sample.truth()
    step = max(1, math.ceil(max(mask.shape) / SIDE))
    try:
        photo = layers.encode_photo(overlays.read_pixels(sample.image)[::step, ::step], quality=70)
    except (LabError, OSError):  # moved away since: masks and numbers are still worth a look
        photo = layers.encode_photo(np.full((*mask[::step, ::step].shape, 3), 128, np.uint8))
    case = overlays.Case(sample.id, sample.group, None, probability, mask, truth, dice=row["dice"])
    said = overlays.describe_case(case)
    small = mask[::step, ::step]
    pictures = [("panel_image", "", f"{sample.id}")]
    if truth is not None:
        line = trace_line(mask, truth)
        length = max(int(line.line.sum()), 1)
        alt = dict(id=sample.id, breaks=row["breaks"], lost=line.lost.sum() / length)
        drawn = truth[::step, ::step]
        pictures += [
            ("gallery_truth", layers.encode_layer(layers.paint_errors(drawn, None)), f"{sample.id}"),
            ("gallery_mask", layers.encode_layer(layers.paint_errors(small, None)), f"{sample.id}"),
            ("gallery_errors", layers.encode_layer(layers.paint_errors(small, drawn, scale=2)), said),
            ("gallery_line", layers.encode_layer(layers.paint_line(line, truth)[::step, ::step]), ""),
        ]
        pictures[-1] = (
            *pictures[-1][:2],
            tr("Centre line of {id}: {breaks:.0f} gaps, {lost:.0%} of its length lost.", **alt),
        )
    else:
        pictures.append(("gallery_mask", layers.encode_layer(layers.paint_errors(small, None)), said))
    pictures.append(("panel_probability", layers.encode_probability(probability[::step, ::step]), sample.id))
    wrong = max(sum(row[kind] for kind in KINDS), 1) if truth is not None else 1
    shares = sorted(((row[kind] / wrong, kind) for kind in KINDS if row[kind] > 0), reverse=True)
    return {
        "id": sample.id,
        "group": sample.group,
        "kind": row["kind"] or "",
        "place": row["place"],
        "suspect": row["suspect"],
        "answer": row["answer"] or "",
        "photo": photo,
        "size": (small.shape[1], small.shape[0]),
        "pictures": [
            {
                "title": say(key),
                "layer": layer,
                "alt": alt if alt != sample.id else f"{say(key)}, {alt}",
            }
            for key, layer, alt in pictures
        ],
        "numbers": [
            ("IoU" if name == "iou" else name.capitalize(), "–" if math.isnan(row[name]) else f"{row[name]:.3f}")
            for name in SHOWN
        ],
        "shares": [(kind, f"{share:.0%}") for share, kind in shares[:4]],
    }


def show_link(page: Path, *, beside: bool = False):
    """Where the gallery lies, as a link that works in a report: `beside` its pages, or in `galleries/` elsewhere."""
    from html import escape

    from IPython.display import HTML

    count = page.read_text("utf-8").count('<section class="case"')
    near = f"{page.parent.name}/{page.name}"
    there = near if beside else f"{page.parent.parent.name}/{near}"
    said = tr(
        "Gallery of {cases} cases, {size:.1f} MB: {path}", cases=count, size=page.stat().st_size / 1e6, path=there
    )
    return HTML(f'<p><a href="{"" if beside else "../../"}{escape(there)}">{escape(said)}</a></p>')
