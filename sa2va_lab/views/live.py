"""A widget of HTML that can be steered: arrow keys while it has the focus, and clicks on parts that have a name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anywidget
import traitlets


class Live(anywidget.AnyWidget):
    """html: what it shows; parts with `data-name` can be clicked. label: what a screen reader calls it."""

    _esm = Path(__file__).with_name("live.js")
    html = traitlets.Unicode().tag(sync=True)
    label = traitlets.Unicode().tag(sync=True)
    told = traitlets.Dict().tag(sync=True)  # {"key": "Left", "far": whether with shift} or {"name": ...}, and "at"

    def on_key(self, act: Callable[[str, bool], None]) -> None:
        """Calls act("Left" | "Right" | "Up" | "Down", whether with shift) at each arrow key."""
        self.observe(lambda change: act(change.new["key"], change.new["far"]) if "key" in change.new else None, "told")

    def on_click(self, act: Callable[[str], None]) -> None:
        """Calls act(name) at each click on a part that has one."""
        self.observe(lambda change: act(change.new["name"]) if "name" in change.new else None, "told")
