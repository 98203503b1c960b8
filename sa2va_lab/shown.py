"""How an object shows itself: its facts in a terminal, and in JupyterLab what `views.shown` makes of them."""

from __future__ import annotations

import importlib

from sa2va_lab.errors import harmless

MOST, BROAD = 10, 110  # lines of a text, and characters of a line


class Shown:
    """A base for what a person holds in a notebook. `facts`, {what, in plain English: its value}, is all that a class
    says: texts without file names, of what is in memory anyway."""

    @property
    def facts(self) -> dict[str, str]:
        """What there is to say of it."""
        raise NotImplementedError

    def __repr__(self) -> str:
        name = type(self).__name__
        facts = {harmless(what, keep=""): harmless(value, keep="") for what, value in self.facts.items()}
        line = f"{name}({', '.join(f'{what}: {value}' for what, value in facts.items())})"
        if len(line) <= BROAD:
            return line
        wide = max(map(len, facts))
        lines = [f"  {what:<{wide}}  {value}" for what, value in facts.items()]
        if len(lines) >= MOST:
            lines[MOST - 2 :] = [f"  and {len(lines) - MOST + 2} more"]
        return "\n".join([name, *(line if len(line) <= BROAD else line[: BROAD - 1] + "…" for line in lines)])

    def _repr_html_(self) -> str | None:
        try:  # the core stands without the rooms above it
            views = importlib.import_module("sa2va_lab.views.shown")
        except ImportError:
            return None
        return views.draw(self)
