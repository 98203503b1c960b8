"""Tables that read well in JupyterLab, in a report and through a screen reader: nothing is cut short."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from html import escape

from sa2va_lab.language import tr
from sa2va_lab.reports.answers import show

_NUMBER = re.compile(r"[-−+]?[\d,]*\.?\d+( ?(%|[KMG]iB))?|–")


@dataclass(frozen=True)
class Table:
    """columns: the headers. rows: one sequence of texts a row, the first of which names the row.

    Columns that hold nothing but numbers, shares, sizes in memory and dashes are set to the right.
    """

    columns: list[str]
    rows: list[list[str]]

    def _repr_html_(self) -> str:
        sides = [self._side(place) for place in range(len(self.columns))]
        heads = [f'<th scope="col"{side}>{escape(text)}</th>' for text, side in zip(self.columns, sides, strict=True)]
        lines = []
        for name, *cells in self.rows:
            rest = [f"<td{side}>{escape(text)}</td>" for text, side in zip(cells, sides[1:], strict=True)]
            whole = ' style="white-space:nowrap"' if " " not in name else ""  # an id is not broken at its dashes
            lines.append(f'<tr><th scope="row"{whole}>{escape(name)}</th>{"".join(rest)}</tr>')
        head, body = "".join(heads), "\n".join(lines)
        return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"

    def __repr__(self) -> str:
        widths = [max(map(len, column)) for column in zip(self.columns, *self.rows, strict=True)]
        lines = [self.columns, *self.rows]
        return "\n".join("  ".join(t.ljust(w) for t, w in zip(line, widths, strict=True)).rstrip() for line in lines)

    def _side(self, place: int) -> str:
        cells = [row[place] for row in self.rows]
        numbers = place > 0 and any(cell != "–" for cell in cells) and all(map(_NUMBER.fullmatch, cells))
        return ' class="number" style="text-align:right"' if numbers else ' style="text-align:left"'


def tabulate(items: Iterable, columns: dict[str, str | Callable], *, nothing: str = "") -> Table:
    """A row an item. columns: {heading in English: key or attribute of an item, or a function of it, for `show`}.

    nothing: what the only row says, in English, where there is no item.
    """
    rows = [[show(_look_up(item, what)) for what in columns.values()] for item in items]
    if nothing and not rows:
        rows = [[tr(nothing), *"–" * (len(columns) - 1)]]
    return Table([tr(heading) for heading in columns], rows)


def _look_up(item, what: str | Callable):
    if callable(what):
        return what(item)
    return item[what] if isinstance(item, dict) else getattr(item, what)


def tabulate_facts(facts: dict[str, object], *heads: str) -> Table:
    """A row a fact. facts: {name in English: its value, or a list with a value for each further column}."""
    rows = [[tr(name), *map(show, value if isinstance(value, list) else [value])] for name, value in facts.items()]
    return Table([tr(head) for head in heads or ("What", "Value")], rows)


def name_metric(metric: str) -> str:
    """ "dice" is Dice, and "iou" is IoU."""
    return "IoU" if metric == "iou" else metric.capitalize()
