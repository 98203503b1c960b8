"""What 08_explore shows on paper, where nobody can ask: a fixed script of questions, and the answers as figures."""

from __future__ import annotations

from contextlib import suppress
from textwrap import shorten

import numpy as np

from sa2va_lab.datasets.samples import Sample
from sa2va_lab.errors import LabError
from sa2va_lab.language import tr
from sa2va_lab.views import overlays
from sa2va_lab.views.explorer import Explorer, Shown
from sa2va_lab.views.tables import Table, show, tabulate

MOST_PHRASES, MOST_FRAMES = 3, 6
WIDEST = 44  # characters above a panel; the table has the answer whole


def ask_script(explorer: Explorer) -> list[Shown]:
    """Each phrase of the data set about one image, a region where the first was found, and the image's sequence.

    The image is one in which a phrase is annotated and another is not there, if there is such a one. What the model
    refuses, or a data set without an image that can be read, is a `Shown` without predictions that says so.
    """
    phrases = (explorer.dataset.phrases or [explorer.suggest()[0]])[:MOST_PHRASES]
    try:
        _open_image(explorer, phrases)
    except LabError as error:
        return [Shown(phrases[0], ("–",), (), 0, error=str(error))]
    asked = [explorer.ask(phrase) for phrase in phrases]
    found = next((one.predictions[0].mask() for one in asked if one.predictions[0].mask().any()), None)
    if found is not None:
        (height, width), (rows, columns) = found.shape, np.nonzero(found)
        explorer.mark(
            "box", [[columns.min() / width, rows.min() / height], [columns.max() / width, rows.max() / height]]
        )
        try:
            asked.append(explorer.ask("What is region1?"))
        except LabError as error:
            asked.append(Shown("What is region1?", (explorer.name,), (), 0, error=str(error)))
        explorer.clear()
    if len(explorer.list_sequence()) > 1:
        asked.append(explorer.track(phrases[0]))
    return asked


def _open_image(explorer: Explorer, phrases: list[str]) -> None:
    """Opens the first image that can be read and holds some phrase and not another, else the first that can be read."""

    def is_plain(sample: Sample) -> bool:
        with suppress(LabError):
            truths = [truth for phrase in phrases if (truth := sample.truth(phrase)) is not None]
            return len({bool(truth.any()) for truth in truths}) < 2
        return True

    failure = LabError("no image can be read; replace the damaged files")
    for sample in sorted(explorer.dataset, key=is_plain):
        try:
            return explorer.open(sample.id)
        except LabError as error:
            failure = error
    raise failure


def script_table(asked: list[Shown]) -> Table:
    """A row a question: what was answered, how many masks, and how long it took."""
    return tabulate(
        asked,
        {
            "Question": "prompt",
            "About": lambda one: one.names[0] + (f" – {one.names[-1]}" if len(one.names) > 1 else ""),
            "Answer": lambda one: one.predictions[0].answer if one.predictions else tr(one.error),
            "[SEG]": lambda one: one.predictions[0].n_seg if one.predictions else None,
            "Seconds": lambda one: show(one.seconds, ".2f"),
            "Saved, s": lambda one: show(one.saved, ".2f"),
        },
        nothing="Nothing was asked by script: the controls are above.",
    )


def script_figures(explorer: Explorer, asked: list[Shown], *, threshold: float = 0.5):
    """The answers about the image side by side, and the sequence as a strip: yields (figure, alt)."""
    single = [(one, 0) for one in asked if len(one.predictions) == 1]
    films = [
        [(one, place) for place, made in enumerate(one.predictions) if not made.error]
        for one in asked
        if len(one.predictions) > 1
    ]
    for panels in filter(None, (single, *films)):
        spread = np.unique(np.linspace(0, len(panels) - 1, min(len(panels), MOST_FRAMES)).round().astype(int))
        yield _draw_panels(explorer, [panels[place] for place in spread], threshold)


def _draw_panels(explorer: Explorer, panels: list[tuple[Shown, int]], threshold: float):
    drawn, told = [], []
    for shown, place in panels:
        name, pair = shown.names[place], explorer.pair(shown, place)
        answer = shorten(shown.predictions[place].answer, WIDEST)
        title = name if len(shown.names) > 1 else f"{shown.prompt}\n{answer}"
        drawn.append((title, explorer.read(name), pair, threshold))
        told.append(f"“{shown.prompt}”: {explorer.tell(name, pair.mask(threshold), pair.truth)}")
    figure = overlays.panels_figure(drawn, across=min(len(panels), 3), stamp=explorer.segmenter.stamp)
    for ax, (shown, _) in zip(figure.axes, panels, strict=False):
        for region in shown.regions:
            ax.contour(region, levels=[0.5], colors=[overlays.GAP], linewidths=1.5)
    return figure, " ".join(told)
