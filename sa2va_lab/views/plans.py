"""What 06_precision_vram shows: which plans ran, what each took, and what it changed."""

from __future__ import annotations

from sa2va_lab.reports.answers import Answer
from sa2va_lab.reports.texts import say, say_sample
from sa2va_lab.views import style
from sa2va_lab.views.tables import Table

UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"))


def answer_plans(measured: dict, *, stamp: str | None = None, lang: str = "en") -> Answer:
    """The answer from what `measure_plans` returned; its plan and rows are the metrics."""
    rows = _ran(measured)
    if not rows:
        reason = measured["precisions"][0]["reason"]
        said = say("plans_no_answer", lang=lang, all=len(measured["precisions"]), reason=reason)
        return Answer(said, measured, stamp=stamp)
    least = min(rows, key=lambda row: row["peak_bytes"] or 0)
    fastest, first = min(rows, key=lambda row: row["seconds"]), rows[0]
    dices = [row["dice"] for row in rows]
    values = {"ran": len(rows), "all": len(measured["precisions"]), "sample": say_sample(first, lang=lang)}
    values |= {"least": least["precision"], "least_peak": _size(least["peak_bytes"])}
    values |= {"reference": first["precision"], "reference_peak": _size(first["peak_bytes"])}
    values |= {"fastest": fastest["precision"], "seconds": fastest["seconds"], "reference_seconds": first["seconds"]}
    values |= {"low": min(dices), "high": max(dices), "agreement": min(row["agreement"] for row in rows)}
    return Answer(say("plans_answer", lang=lang, **values), measured, stamp=stamp)


def memory_table(measured: dict, *, lang: str = "en") -> Table:
    """A row a plan: forecast against measured peak; those that were not run with the reason."""
    keys = ("forecast", "peak", "ratio", "anonymous", "mapped")
    lines = []
    for row in measured["precisions"]:
        held = [_size(row.get(f"{name}_bytes")) for name in ("forecast", "peak", "anonymous", "mapped")]
        peak = row.get("peak_bytes")
        ratio = f"{peak / row['forecast_bytes']:.2f}" if peak else "–"
        lines.append([f"{row['precision']}, {row['device']}", *held[:2], ratio, *held[2:], row["reason"] or "–"])
    columns = [say(f"plans_{key}", lang=lang) for key in keys]
    return Table([say("precision_row", lang=lang), *columns, say("why", lang=lang)], lines)


def change_table(measured: dict, *, lang: str = "en") -> Table:
    """A row a plan that ran: seconds by stage, Dice, agreement with the most precise one."""
    keys = ("load", "seconds", "vision", "words", "sam2", "dice", "agreement", "difference")
    lines = []
    for row in _ran(measured):
        stages = row["stages"]
        spent = [row["load_seconds"], row["seconds"], stages["vision"], stages["answer"]]
        spent.append(stages["canvas"] + stages["masks"])
        scores = [row[name] for name in ("dice", "agreement", "difference")]
        line = [f"{number:.2f}" for number in spent] + [f"{number:.3f}" for number in scores]
        lines.append([f"{row['precision']}, {row['device']}", *line])
    columns = [say(f"plans_{key}", lang=lang, reference=measured["reference"] or "–") for key in keys]
    return Table([say("precision_row", lang=lang), *columns], lines)


def pareto_figure(measured: dict, *, stamp: str | None = None, lang: str = "en"):
    """Memory against seconds and against Dice, a point a plan that ran; (figure, alt)."""
    import matplotlib

    rows = [row for row in _ran(measured) if row["peak_bytes"]]
    shown, _ = style.figure_language(lang)
    figure = style.new_figure(style.WIDTH, 3.4, lang=lang)
    if not rows:
        return style.stamp(figure, stamp), say("plans_alt_none", lang=lang)
    unit, word = UNITS[0] if max(row["peak_bytes"] for row in rows) >= UNITS[0][0] else UNITS[1]
    front = [row for row in rows if not any(_beats(other, row) for other in rows)]
    with matplotlib.rc_context(style.rc(lang)):
        speed, quality = figure.subplots(1, 2)
        for row in rows:
            place, fill = row["peak_bytes"] / unit, style.ACCENT if row in front else "white"
            kind = {"marker": "o", "color": style.ACCENT, "markerfacecolor": fill, "linestyle": "none"}
            speed.plot(place, row["seconds"], **kind)
            below, above = row["dice"] - row["low"], row["high"] - row["dice"]
            quality.errorbar(place, row["dice"], [[below], [above]], capsize=3, **kind)
            for ax, height in ((speed, row["seconds"]), (quality, row["dice"])):
                ax.annotate(row["precision"], (place, height), (3, 5), textcoords="offset points", rotation=50)
        for ax, key in ((speed, "plans_axis_seconds"), (quality, "plans_axis_dice")):
            ax.set(xlabel=say("plans_axis_memory", lang=shown, unit=word), title=say(key, lang=shown))
            ax.margins(x=0.2)
            ax.set_xlim(left=0)
            ax.grid(color="#E3E7EA", linewidth=0.8)
        speed.set_ylim(bottom=0, top=1.25 * max(row["seconds"] for row in rows))
        quality.set_ylim(0, 1)
        figure.text(0.01, 0.0, say("plans_front", lang=shown), fontsize=8, color=style.NEUTRAL, va="bottom")
        style.stamp(figure, stamp)
    points = "; ".join(
        f"{r['precision']} {_size(r['peak_bytes'])}, {r['seconds']:.2f} s, {r['dice']:.3f}" for r in rows
    )
    names = ", ".join(row["precision"] for row in front)
    return figure, say("plans_alt", lang=lang, points=points, front=names)


def _ran(measured: dict) -> list[dict]:
    return [row for row in measured["precisions"] if row["ran"]]


def _beats(one: dict, other: dict) -> bool:
    pairs = [(one[key], other[key]) for key in ("peak_bytes", "seconds")]
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def _size(count: int | None) -> str:
    if count is None:
        return "–"
    unit, word = UNITS[0] if count >= UNITS[0][0] else UNITS[1]
    return f"{count / unit:.{2 if unit == UNITS[0][0] else 1}f} {word}"
