"""Tables that read well in JupyterLab, in a report and through a screen reader: nothing is cut short."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from html import escape

_NUMBER = re.compile(r"[-−+]?[\d,]*\.?\d+( ?(%|[KMG]iB))?|–")


@dataclass(frozen=True)
class Table:
    """columns: the headers. rows: one sequence of texts a row, the first of which names the row.

    Columns that hold nothing but numbers, shares, sizes in memory and dashes are set to the right.
    """

    columns: list[str]
    rows: list[list[str]]

    def __post_init__(self):
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"a row has {len(row)} cells, expected {len(self.columns)}: {row}")

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
        numbers = place > 0 and {"–"} < {"–", *cells} and all(map(_NUMBER.fullmatch, cells))
        return ' class="number" style="text-align:right"' if numbers else ' style="text-align:left"'


def show_interval(low: float, high: float) -> str:
    """The two ends with three digits, or one dash where there is no interval."""
    return "–" if math.isnan(low) or math.isnan(high) else f"{low:.3f} – {high:.3f}"
