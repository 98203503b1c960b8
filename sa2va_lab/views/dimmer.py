"""The controls around a Tuner, for JupyterLab and Voila; every one has a label and can be reached by keyboard."""

from __future__ import annotations

from sa2va_lab.errors import LabError
from sa2va_lab.language import tr
from sa2va_lab.reports.texts import say
from sa2va_lab.views.tuner import Tuner


def build_widget(tuner: Tuner):
    """ipywidgets for a Tuner: choose a sample, move the threshold, clean the mask, zoom, save."""
    import ipywidgets as w

    def text(key: str) -> str:
        return say(f"tuner_{key}")

    wide = {"style": {"description_width": "11em"}, "layout": w.Layout(width="27em")}
    start = 0.5 if tuner.choice is None else tuner.choice.value
    by = w.Dropdown(
        options=[(text("worst_first"), "worst"), (text("by_patient"), "patient")], description=text("order"), **wide
    )
    search = w.Text(description=text("search"), **wide)
    sample = w.Select(rows=9, description=text("sample"), options=[], **wide)
    threshold = w.FloatSlider(start, min=0, max=0.999, step=0.001, readout=False, description=text("threshold"), **wide)
    number = w.BoundedFloatText(start, min=0, max=0.999, step=0.001, description=text("number"), **wide)
    merge = w.Dropdown(options=[(text("union"), "union")], description="[SEG]", **wide)
    area = w.BoundedIntText(0, min=0, max=100_000, step=10, description=text("min_area"), **wide)
    holes = w.BoundedIntText(0, min=0, max=100_000, step=10, description=text("holes"), **wide)
    zoom = w.Dropdown(options=[1, 2, 4, 8], description=text("zoom"), **wide)
    across = w.FloatSlider(0.5, min=0, max=1, step=0.05, readout=False, description=text("across"), **wide)
    down = w.FloatSlider(0.5, min=0, max=1, step=0.05, readout=False, description=text("down"), **wide)
    note = w.Text(description=text("note"), **wide)
    half, best, save = (
        w.Button(description="0.5"),
        w.Button(description=text("best")),
        w.Button(description=text("save")),
    )
    best.disabled = save.disabled = tuner.choice is None
    numbers, curve = w.HTML(layout=w.Layout(flex="0 0 13em")), w.HTML(layout=w.Layout(flex="1 1 0", min_width="0"))
    pictures, status = w.HTML(), w.HTML()

    def fill(_=None) -> None:
        ids = sorted(tuner.order) if by.value == "patient" else tuner.order
        ids = [name for name in ids if search.value.strip().lower() in name.lower()]
        chosen = sample.value
        sample.options = [(f"{i}  {tuner.dice[i]:.3f}" if tuner.dice[i] == tuner.dice[i] else i, i) for i in ids]
        sample.value = chosen if chosen in ids else next(iter(ids), None)

    def open_sample(_=None) -> None:
        if sample.value is not None:
            places = range(tuner.count_masks(sample.value))
            merge.options = [(text("union"), "union"), *((f"{k + 1}", k) for k in places if len(places) > 1)]
        draw()

    def draw(_=None) -> None:
        if sample.value is None or merge.value is None:
            return
        how = dict(min_area=area.value, holes=holes.value, merge=merge.value, zoom=zoom.value)
        seen = tuner.look(sample.value, threshold.value, across=across.value, down=down.value, **how)
        pictures.value, numbers.value, curve.value = seen.pictures, seen.numbers, seen.curve

    def keep(_) -> None:
        words = note.value
        if area.value or holes.value:
            words += f" [looked at with minimum area {area.value} px, holes up to {holes.value} px filled]"
        try:
            path = tuner.save(threshold.value, note=words.strip(), merge=merge.value)
            status.value = (
                f"<p role='status'>{tr('Saved {path} in the Run {run}.', path=path.name, run=path.parent.name)}</p>"
            )
        except LabError as error:
            status.value = f"<p role='alert'>{error}</p>"

    w.link((threshold, "value"), (number, "value"), transform=[lambda value: round(value, 3)] * 2)
    for control in (by, search):
        control.observe(fill, "value")
    sample.observe(open_sample, "value")
    for control in (threshold, merge, area, holes, zoom, across, down):
        control.observe(draw, "value")
    half.on_click(lambda _: setattr(threshold, "value", 0.5))
    best.on_click(lambda _: setattr(threshold, "value", start))
    save.on_click(keep)
    fill()
    open_sample()
    left = [by, search, sample, threshold, number, w.HBox([half, best]), merge, area, holes, zoom, across, down]
    column = w.VBox([*left, note, save, status], layout=w.Layout(min_width="28em"))
    stamp = w.HTML(f"<p><em>{tuner.run.meta['stamp'] or ''}</em></p>")
    right = w.VBox([stamp, pictures, w.HBox([numbers, curve])], layout=w.Layout(flex="1 1 0", min_width="0"))
    return w.HBox([column, right])
