"""Public objects in JupyterLab: their facts as a table, with pictures where there is something to see.

Nothing is loaded, and an image is read once. Colours are inherited, so that light and dark themes read alike.
"""

from __future__ import annotations

import dataclasses
import math
from html import escape

from sa2va_lab.errors import LabError, harmless
from sa2va_lab.language import tr
from sa2va_lab.views import overlays
from sa2va_lab.views.inventories import PARTS
from sa2va_lab.views.overlays import read_pixels
from sa2va_lab.views.tables import tabulate_facts

STRIP, THUMB, SIDE = 8, 144, 384  # samples of a data set, their px, and those of a picture that stands alone


def draw(thing) -> str:
    """HTML of an object with `facts` (`sa2va_lab.shown.Shown`): self-contained, each picture with its alt text."""
    names = [cls.__name__ for cls in type(thing).__mro__]
    pictures = next((draw_all(thing) for name, draw_all in PICTURES.items() if name in names), [])
    facts = {PARTS.get(what, what): tr(harmless(value)) for what, value in thing.facts.items()}
    table = tabulate_facts(facts, names[0], "")._repr_html_()
    return f"<div>{overlays.side_by_side(*pictures) if pictures else ''}{table}</div>"


def _draw_prediction(prediction) -> list:
    """[(picture, line, px)]: the mask on the image, where it is at hand, and the probability."""
    if prediction.error or 0 in prediction.size:
        return []
    small = prediction.thumbnail
    share = min(1, SIDE / max(prediction.size))
    size = tuple(max(1, round(side * share)) for side in prediction.size) if small is None else small.shape[:2]
    probability, width = dataclasses.replace(prediction, size=size).probability(), size[1]
    said = "; ".join(f"{tr(what)}: {tr(harmless(value))}" for what, value in prediction.facts.items())
    likely = overlays.encode_probability(probability)
    found = [(overlays.show_picture(likely, said, most=width), tr("Probability"), width)]
    if small is not None:
        address = overlays.lay_over(small, overlays.paint_errors(probability > 0.5, None))
        found.insert(0, (overlays.show_picture(address, said, most=width), tr("Prediction"), width))
    return found


def _draw_samples(samples: list, side: int) -> list:
    """The same of samples: the ground truth on the image, or why there is no picture."""
    found = []
    for sample in samples:
        line = sample.id
        try:
            pixels = read_pixels(sample.image)
            source = sample.source()
            truth = None if source is None else source.rasterise(pixels.shape[:2])
        except (LabError, OSError):
            found.append((f"<p>{escape(tr('cannot be read'))}</p>", line, side))
            continue
        step = math.ceil(max(pixels.shape[:2]) / side)
        small, alt = pixels[::step, ::step], tr("{id}, not annotated", id=line)
        address = overlays.encode_photo(small)
        if truth is not None:
            alt = tr("{id}, {share:.1%} annotated", id=line, share=truth.mean())
            address = overlays.lay_over(small, overlays.paint_errors(truth[::step, ::step], None))
        found.append((overlays.show_picture(address, alt, most=small.shape[1]), line, small.shape[1]))
    return found


PICTURES = {
    "Prediction": _draw_prediction,
    "Sample": lambda sample: _draw_samples([sample], SIDE),
    "Dataset": lambda dataset: _draw_samples(list(dataset.spread(STRIP)), THUMB),
}
