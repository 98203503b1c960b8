"""A widget of HTML that can be steered: arrow keys while it has the focus, clicks on parts that have a name, and boxes
and strokes drawn on a picture. anywidget carries it into JupyterLab and Voila without a build step of ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anywidget
import traitlets

from sa2va_lab.language import tr


class Live(anywidget.AnyWidget):
    """html: what it shows; parts with `data-name` can be clicked, one with `data-sketch` can be drawn on. label: what a
    screen reader calls it. tool: "box", "brush", or "" for none; brush: its width as a share of the picture's."""

    _esm = Path(__file__).with_name("live.js")
    html = traitlets.Unicode().tag(sync=True)
    label = traitlets.Unicode().tag(sync=True)
    tool = traitlets.Unicode().tag(sync=True)
    brush = traitlets.Float(0.04).tag(sync=True)
    gone = traitlets.Unicode().tag(sync=True)  # what is said when the kernel was stopped or restarted
    told = traitlets.Dict().tag(sync=True)  # {"key", "far"}, {"name"} or {"tool", "points"}; and "at", a time

    @traitlets.default("gone")
    def _say_gone(self) -> str:
        return tr("The kernel was restarted, so nothing here works any more: run the cells again.")

    def on(self, what: str, act: Callable[..., None]) -> None:
        """Calls act at each arrow "key" ("Left", "Right", "Up", "Down") with far, whether with shift; at each click on
        a part that has a "name"; at each mark with its "tool" and points, [[x, y], ...] from 0 to 1, of a box its first
        and last corner."""

        def hear(change) -> None:
            if what in change.new:
                act(**{key: value for key, value in change.new.items() if key != "at"})

        self.observe(hear, "told")
