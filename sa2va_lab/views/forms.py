"""A notebook's parameters as a form: the typed cell above it, with a control for each line."""

from __future__ import annotations

import os
from html import escape

import ipywidgets as w

from sa2va_lab.errors import LabError
from sa2va_lab.language import tr, use_language
from sa2va_lab.reports.runner import convert_value

CONTROLS = {"bool": w.Checkbox, "int": w.IntText, "float": w.FloatText, "str": w.Text}
LANGUAGES = [("English", "en"), ("中文", "zh")]


def show_form(namespace: dict) -> w.Accordion | None:
    """A folded form over the parameters in `namespace`, a notebook's `globals()`: what is set there holds for the cells
    below, as if the cell above had been edited.

    None where nobody could use it: outside a notebook, on paper, where papermill has set the parameters, and in Voila,
    which has run every cell already.
    """
    run = namespace.get("In", ())
    cells = [source for source in run if "\nlang: str = " in source]  # declared with its type
    on_paper = any(source.startswith("# Parameters\n") for source in run)
    if not cells or on_paper or os.environ.get("SERVER_SOFTWARE", "").startswith("voila"):
        return None
    from papermill.translators import PythonTranslator  # two seconds, most of them for a grammar of addresses

    declared = [one for one in PythonTranslator.inspect({"source": cells[-1]}) if one.inferred_type_name in CONTROLS]
    with use_language(namespace.get("lang", "en")):
        said = w.HTML(f"<p>{escape(tr('What is set here holds for the cells below: run them afterwards.'))}</p>")
        rows = [_make_row(one, namespace, said) for one in declared if one.name in namespace]
        return w.Accordion([w.VBox([said, *rows])], titles=[tr("Parameters as a form")], selected_index=None)


def _make_row(declared, namespace: dict, said: w.HTML) -> w.HBox:
    name, kind = declared.name, declared.inferred_type_name
    how = {"description": name, "style": {"description_width": "9em"}, "layout": w.Layout(width="28em")}
    if name == "lang":
        control = w.Dropdown(options=LANGUAGES, value=namespace[name], **how)
    else:
        control = CONTROLS[kind](value=namespace[name], continuous_update=False, **how)

    def take(change) -> None:
        with use_language(namespace.get("lang", "en")):
            try:
                namespace[name] = convert_value(name, change.new, kind)
                said.value = f"<p role='status'><code>{escape(f'{name} = {namespace[name]!r}')}</code></p>"
            except LabError as error:
                said.value = f"<p role='alert'>{escape(tr(str(error)))}</p>"

    control.observe(take, "value")
    return w.HBox([control, w.HTML(escape(tr(str(declared.help))))])
