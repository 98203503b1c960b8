"""What 06_precision_vram shows: which plans ran, what each took, and what it changed."""

from __future__ import annotations

import math
from functools import partial
from itertools import cycle

from sa2va_lab.language import tr
from sa2va_lab.loading.forecast import GIB
from sa2va_lab.loading.matrix import advise
from sa2va_lab.loading.shards import FILES
from sa2va_lab.reports.answers import Answer, Planned, say_sample, say_size
from sa2va_lab.views import style
from sa2va_lab.views.tables import Table, show, tabulate

MARKERS = "osD^vPX"
FORMATS = (
    ("o", style.ACCENT, style.ACCENT),
    ("s", style.ACCENT, "white"),
    ("D", style.NEUTRAL, "white"),
)  # by precision


def answer_plans(measured: dict, *, stamp: str | None = None) -> Answer:
    """The answer from what `measure_plans` returned; its plan and rows are the metrics."""
    rows, said = _ran(measured), [_say_released(measured["released"])]
    values = {"all": len(measured["precisions"])}
    if rows:
        least = min(rows, key=lambda row: row["own_bytes"] or 0)
        fastest, first = min(rows, key=lambda row: row["seconds"]), rows[0]
        sample = say_sample(first["n_images"], first["n_groups"], grouped=first.get("grouped", False))
        values |= {"ran": len(rows), "least": least["precision"], "least_peak": say_size(least["own_bytes"])}
        values |= {"reference": first["precision"], "reference_peak": say_size(first["own_bytes"])}
        values |= {
            "fastest": fastest["precision"],
            "seconds": fastest["seconds"],
            "reference_seconds": first["seconds"],
        }
        values |= {"low": min(row["dice"] for row in rows), "high": max(row["dice"] for row in rows)}
        text = (
            "{ran} of {all} plans ran here, on {sample}. Least memory of its own: {least} ({least_peak}, {reference} "
            "{reference_peak}). Fastest: {fastest} ({seconds:.2f} s an image, {reference} {reference_seconds:.2f} s). "
            "Mean Dice lies between {low:.3f} and {high:.3f}; masks agree with {reference} to an IoU of "
            "{agreement:.3f} or more."
        )
        said.append(tr(text, sample=sample, agreement=min(row["agreement"] for row in rows), **values))
    else:
        reason = tr(measured["precisions"][0]["reason"])
        said.append(tr("None of {all} plans ran here: {reason}", reason=reason, **values))
    return Answer(" ".join(said), Planned(**measured), stamp=stamp)


def _say_released(asked: dict) -> str:
    """Whether the released model fits the card that was asked about."""
    values = {"model": asked["name"], "card": f"{asked['card'] / GIB:.4g} GiB", "tiles": asked["tiles"]}
    best = next((rung for rung in asked["rungs"] if rung["fits"]), None)
    if best is None:
        return tr("{model} does not fit a card of {card} at any number format (tiles: {tiles}).", **values)
    values |= {"precision": best["precision"], "spare": say_size(-best["lacking"])}
    if best["layers"].get(FILES):
        return tr("{model} fits a card of {card} only with layers left in the files (tiles: {tiles}).", **values)
    return tr("{model} fits a card of {card} in {precision}, {spare} to spare (tiles: {tiles}).", **values)


def rungs_table(made: dict) -> Table:
    """A row a rung of a plan. made: `Plan.to_dict()`."""
    columns = {
        "Number format": "precision",
        "Device": lambda rung: " + ".join(share["name"] for share in rung["devices"]),
        "Needed": lambda rung: say_size(max(share["needed"] for share in rung["devices"])),
        "There": lambda rung: say_size(min(share["budget"] for share in rung["devices"])),
        "To spare, GiB": lambda rung: f"{-rung['lacking'] / GIB:+.2f}",
        "Note": lambda rung: "; ".join(map(tr, rung["notes"])) or "–",
    }
    return tabulate(made["rungs"], columns)


def releases_table(rows: list[dict], *, gpus: int = 1, image: str | None = None) -> Table:
    """A row a released model: for each kind of card the most precise format that it holds, with what is to spare (GiB),
    or how many cards do. rows: of `weigh_releases`; image: which one's, the first if not given. Of one kind of card
    alone also what each format needs."""
    rows = [row for row in rows if row["image"] == (image or rows[0]["image"])]
    models = [[row for row in rows if row["model"] == name] for name in dict.fromkeys(row["model"] for row in rows)]
    sizes = [card["size"] for card in rows[0]["cards"]]
    alone, times = len(sizes) == 1, f"{gpus} × " if gpus > 1 and len(sizes) == 1 else ""
    columns = {"Model": lambda of: of[0]["model"], "Numbers": lambda of: f"{of[0]['parameters'] / 1e9:.3g} B"}
    for at, row in enumerate(models[0] if alone else ()):
        columns[row["precision"]] = partial(lambda place, of: f"{of[place]['needed'] / GIB:.1f}", at)
    columns |= {f"{times}{size / GIB:g} GiB": partial(_say_fit, size, gpus, alone) for size in sizes}
    return tabulate(models, columns)


def _say_fit(size: int, gpus: int, whole: bool, rows: list[dict]) -> str:
    """How one model fits a kind of card. whole: in words."""
    found = advise(rows, size, gpus=gpus)
    spare = (found["spare"] or 0) / GIB
    sign = f"× {found['cards']}" if (found["cards"] or 1) > 1 else f"{spare:+.{int(abs(spare) < 10)}f}"
    short = f"{found['precision'] or rows[-1]['precision']} {sign}"
    return f"{short}: {tr(found['said'])}" if whole else short


def releases_figure(rows: list[dict]):
    """What one card must have free for each released model and format, from the smallest to the largest image, against
    the cards that people have; (figure, alt). rows: of `weigh_releases`."""
    names, kinds = (list(dict.fromkeys(row[key] for row in rows)) for key in ("model", "precision"))
    sizes = [card["size"] / GIB for card in rows[0]["cards"]]
    with style.drawing(0.9 + 0.36 * len(names)) as figure:
        axes, told = figure.subplots(), []
        for place, name in enumerate(names):
            for kind, (marker, colour, fill) in zip(kinds, FORMATS, strict=True):
                needs = [row["needed"] / GIB for row in rows if (row["model"], row["precision"]) == (name, kind)]
                axes.plot([min(needs), max(needs)], [place, place], color=colour, linewidth=3, solid_capstyle="butt")
                how = {"marker": marker, "color": colour, "markerfacecolor": fill, "markersize": 8, "linestyle": "none"}
                axes.plot(min(needs), place, **how, label=kind if place == 0 else None)
                told.append(f"{name} {kind} {min(needs):.1f} – {max(needs):.1f}")
                if kind in (kinds[0], kinds[-1]):
                    at, side, gap = (max(needs), "left", 7) if kind == kinds[0] else (min(needs), "right", -8)
                    about = {"xytext": (gap, 0), "textcoords": "offset points", "ha": side, "va": "center"}
                    text = axes.annotate(f"{max(needs):.1f}", (at, place), fontsize=8, color=style.NEUTRAL, **about)
                    style.halo(text)
        axes.set_xscale("log")
        axes.set_xticks(sizes, [f"{size:g}" for size in sizes], minor=False)
        axes.set_xticks([], minor=True)
        axes.set_xlim(2, 1.15 * max(sizes))
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.grid(axis="x", color=style.NEUTRAL, linewidth=0.6)
        axes.set_xlabel(tr("GiB that one card must have free: symbol the smallest image, line and number the largest"))
        axes.legend(loc="lower right", ncols=len(kinds), facecolor="white", framealpha=1, frameon=True)
    points = "; ".join(told)
    return figure, tr("GiB that one card needs, from the smallest to the largest image: {points}.", points=points)


def memory_table(measured: dict) -> Table:
    """A row a plan: forecast against measured peak of own memory and of mapped files, or why it did not run."""
    return tabulate(
        measured["precisions"],
        {
            "Number format": _name,
            "Forecast": lambda row: say_size(row["forecast_bytes"]),
            "Measured peak": lambda row: say_size(row.get("own_bytes")),
            "Measured / forecast": lambda row: show((row.get("own_bytes") or math.nan) / row["forecast_bytes"], ".2f"),
            "Mapped files, forecast": lambda row: say_size(row.get("forecast_mapped_bytes")),
            "measured": lambda row: say_size(row.get("mapped_bytes")),
            "Why": lambda row: tr(row["reason"]) or "–",
        },
    )


def change_table(measured: dict) -> Table:
    """A row a plan that ran: seconds by stage, Dice, agreement with the most precise one."""
    columns = {
        "Number format": _name,
        "Load, s": lambda row: show(row["load_seconds"], ".2f"),
        "An image, s": lambda row: show(row["seconds"], ".2f"),
        "vision": lambda row: show(row["stages"]["vision"], ".2f"),
        "answer": lambda row: show(row["stages"]["answer"], ".2f"),
        "SAM2": lambda row: show(row["stages"]["canvas"] + row["stages"]["masks"], ".2f"),
        "Dice": "dice",
        tr("IoU with {reference}", reference=measured["reference"] or "–"): lambda row: row["agreement"],
        "Largest Δp": "difference",
    }
    return tabulate(_ran(measured), columns)


def pareto_figure(measured: dict, *, stamp: str | None = None):
    """Memory against seconds, and the Dice of each plan that ran; (figure, alt)."""
    rows = [row for row in _ran(measured) if row["own_bytes"]]
    costs = [(row["own_bytes"], row["seconds"]) for row in rows]
    front = [not any(o != c and o[0] <= c[0] and o[1] <= c[1] for o in costs) for c in costs]
    with style.drawing(3.6, stamp=stamp) as figure:
        if not rows:
            return figure, tr("No plan ran here, so there is nothing to draw.")
        speed, quality = figure.subplots(1, 2)
        unit, word = style.memory_unit(max(own for own, _ in costs))
        for place, (row, best, marker) in enumerate(zip(rows, front, cycle(MARKERS))):
            fill = style.ACCENT if best else "white"
            kind = {"marker": marker, "color": style.ACCENT, "markerfacecolor": fill, "linestyle": "none"}
            speed.plot(row["own_bytes"] / unit, row["seconds"], label=_name(row), markersize=8, **kind)
            below, above = row["dice"] - row["low"], row["high"] - row["dice"]
            quality.errorbar(place, row["dice"], [[below], [above]], capsize=3, **kind)
        labels = [_name(row).replace(" + ", "\n+ ").replace(", ", "\n") for row in rows]
        quality.set_xticks(range(len(rows)), labels)
        quality.set(title=tr("Mean Dice, 95 % interval"), ylim=(0, 1), xlim=(-0.5, len(rows) - 0.5))
        quality.grid(axis="y")
        speed.set(title=tr("Seconds an image"), xlabel=tr("Measured peak of own memory, {unit}", unit=word))
        speed.set_xlim(0, 1.15 * max(own for own, _ in costs) / unit)
        speed.set_ylim(0, 1.15 * max(seconds for _, seconds in costs))
        speed.grid()
        speed.legend(loc="lower left", handletextpad=0.2)
        text = tr("filled: no other plan is both smaller and faster")
        figure.text(0.01, 0.0, text, fontsize=8, color=style.NEUTRAL, va="bottom")
    points = [f"{_name(row)} {say_size(row['own_bytes'])}, {row['seconds']:.2f} s, {row['dice']:.3f}" for row in rows]
    return figure, tr(
        "Seconds an image and mean Dice against measured memory: {points}. No other plan is both "
        "smaller and faster than {front}.",
        points="; ".join(points),
        front="; ".join(_name(row) for row, best in zip(rows, front, strict=True) if best),
    )


def _name(row: dict) -> str:
    return f"{row['precision']}, {row['device']}"


def _ran(measured: dict) -> list[dict]:
    return [row for row in measured["precisions"] if row["ran"]]
