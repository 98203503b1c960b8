"""What 08_explore shows around an `explorer.Explorer`: controls, in JupyterLab and in Voila; and on paper, where nobody
can ask, the answers to a fixed script of questions."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from html import escape
from textwrap import shorten

import ipywidgets as w
import numpy as np

from sa2va_lab.datasets.samples import Sample
from sa2va_lab.errors import LabError
from sa2va_lab.language import tr
from sa2va_lab.sa2va.watching import hear_stages
from sa2va_lab.views import overlays
from sa2va_lab.views.explorer import BRUSH, Explorer, Shown
from sa2va_lab.views.live import Live
from sa2va_lab.views.tables import Table, show, tabulate

MOST_PHRASES, MOST_FRAMES = 3, 6
WIDEST = 44  # characters above a panel; the table has the answer whole
STAGES = {
    "pixels": "reading the image",
    "vision": "looking at the image",
    "answer": "writing the answer",
    "canvas": "looking at it again with SAM2",
    "masks": "drawing the masks",
}


def build_explorer(explorer: Explorer) -> w.HBox:
    """Controls around an Explorer: image, question, threshold, objects, regions, frames, keep. Each has a label and is
    in reach of the keyboard, but for drawing on the picture."""

    def control(kind: type, *value, label: str, **how):
        shape = {"style": {"description_width": "8em"}, "layout": w.Layout(width="27em")}
        return kind(*value, description=label, **shape, **how)

    def button(label: str, **how) -> w.Button:
        return w.Button(description=label, layout=w.Layout(width="auto"), **how)

    image = control(w.Select, rows=8, options=list(explorer.images), value=None, label=tr("Image"))
    upload = w.FileUpload(accept="image/*", description=tr("Upload an image"), layout=w.Layout(width="auto"))
    ideas = [("–", ""), *((one.removeprefix("<image>\n"), one) for one in explorer.suggest())]
    idea = control(w.Dropdown, options=ideas, label=tr("Suggestions"))
    question = control(w.Textarea, rows=2, label=tr("Question"))
    go_on = control(w.Checkbox, False, indent=False, label=tr("Go on with the conversation"))
    ask, track, keep, clear = map(button, map(tr, ("Ask", "Follow through the sequence", "Keep", "Clear regions")))
    tool = control(
        w.ToggleButtons, options=[(tr("Look"), ""), (tr("Box"), "box"), (tr("Brush"), "brush")], label=tr("Draw")
    )
    tool.style.button_width = "5em"
    threshold = control(w.FloatSlider, 0.5, min=0, max=0.999, step=0.001, readout_format=".3f", label=tr("Threshold"))
    objects = control(w.SelectMultiple, options=[], rows=3, label="[SEG]")
    frame = control(w.IntSlider, 1, min=1, max=1, label=tr("Frame"))
    picture, told, status, past = Live(label=tr("Picture"), brush=BRUSH), w.HTML(), w.HTML(), w.HTML()

    def say(text: str, role: str = "status") -> None:
        status.value = f"<p role='{role}'>{escape(text)}</p>"

    def draw(_=None) -> None:
        if explorer.pixels is None:
            return
        chosen = objects.value if objects.options else None
        place = frame.value - 1 if explorer.shown and len(explorer.shown.predictions) > 1 else 0
        picture.html, told.value = explorer.look(threshold=threshold.value, objects=chosen, place=place)

    def refresh() -> None:
        shown = explorer.shown
        count, frames = (shown.predictions[0].n_seg, len(shown.predictions)) if shown else (0, 1)
        numbers = list(range(count)) if count > 1 else []
        objects.options = [(str(number + 1), number) for number in numbers]
        objects.value, frame.max = numbers, frames
        objects.layout.display = "" if numbers else "none"
        frame.layout.display = "" if frames > 1 else "none"
        keep.disabled, track.disabled = shown is None, len(explorer.list_sequence()) < 2
        lines = (
            f"<li><b>{escape(text.removeprefix('<image>'))}</b> {escape(said)}</li>" for text, said in explorer.turns
        )
        past.value = f"<ol>{''.join(lines)}</ol>"
        draw()

    def attempt(action: Callable[[], object], done: Callable[[object], str]) -> None:
        """Does what a button asks for; a mistake and a step down the ladder are said in the view."""
        steps = len(explorer.segmenter.provenance.get("steps", ()))
        try:
            made = action()
        except Exception as error:  # nobody sees a traceback of a button
            kind = "" if isinstance(error, LabError) else f"{type(error).__name__}: "
            say(kind + tr(str(error)), "alert")
        else:
            stepped = explorer.segmenter.provenance.get("steps", ())[steps:]
            down = (
                tr("went from {before} to {after}: {why}.", before=s["from"], after=s["to"], why=s["why"])
                for s in stepped
            )
            say(" ".join([done(made), *down]))
        refresh()

    def open_image(_=None) -> None:
        if image.value is not None:
            attempt(lambda: explorer.open(image.value), lambda _: tr("{name} is open.", name=image.value))

    def take_upload(_) -> None:
        def take() -> None:
            name = explorer.upload(bytes(upload.value[-1]["content"]))
            image.options = list(explorer.images)
            image.value = name

        if upload.value:
            attempt(take, lambda _: tr("The upload is open; it stays in this session."))

    def put(action: Callable[[str], Shown]) -> None:
        with hear_stages(lambda stage: say(tr("at work: {stage}", stage=tr(STAGES.get(stage, stage))))):
            attempt(lambda: action(question.value), lambda shown: shown.tell())

    def follow(_) -> None:
        put(explorer.track)
        if explorer.shown and explorer.name in explorer.shown.names:
            frame.value = min(explorer.shown.names.index(explorer.name) + 1, frame.max)

    def mark(tool: str, points: list) -> None:
        explorer.mark(tool, points)
        say(tr("Region {n} is marked: ask about region{n}.", n=len(explorer.regions)))
        draw()

    for one, act in ((image, open_image), (upload, take_upload), (threshold, draw), (objects, draw), (frame, draw)):
        one.observe(act, "value")
    idea.observe(lambda change: setattr(question, "value", change.new or question.value), "value")
    tool.observe(lambda change: setattr(picture, "tool", change.new), "value")
    picture.on("tool", mark)
    ask.on_click(lambda _: put(lambda text: explorer.ask(text, go_on=go_on.value)))
    track.on_click(follow)
    keep.on_click(
        lambda _: attempt(
            lambda: explorer.keep(threshold=threshold.value), lambda path: tr("Kept in {folder}.", folder=path.name)
        )
    )
    clear.on_click(lambda _: attempt(explorer.clear, lambda _: ""))
    image.value = next(iter(explorer.images), None)
    refresh()
    asking = [image, upload, idea, question, go_on, w.HBox([ask, track])]
    looking = [threshold, objects, frame, tool, w.HBox([clear, keep]), status, told]
    left = w.VBox(asking + looking, layout=w.Layout(flex="0 0 28em"))
    stamp = w.HTML(f"<p><em>{escape(tr(explorer.segmenter.stamp or ''))}</em></p>")
    return w.HBox([left, w.VBox([stamp, picture, past], layout=w.Layout(flex="1 1 0", min_width="0"))])


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
