"""A loaded model to talk to: choose an image, ask, look, mark a region, ask again, keep what is worth it.

`Explorer` knows the model, the images and the conversation; `exploring` puts controls around it.
"""

from __future__ import annotations

import io
import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import maximum_filter
from skimage.segmentation import find_boundaries

from sa2va_lab.datasets.export import write_content
from sa2va_lab.datasets.samples import Dataset, Sample
from sa2va_lab.errors import LabError
from sa2va_lab.evaluation.metrics import Pair, pair_up
from sa2va_lab.evaluation.questions import QUESTIONS
from sa2va_lab.files import write_json, write_whole
from sa2va_lab.language import tr
from sa2va_lab.paths import new_folder
from sa2va_lab.prediction import Prediction
from sa2va_lab.runs.asking import hide_names
from sa2va_lab.sa2va.processing import phrase_prompt
from sa2va_lab.segmenter import Segmenter
from sa2va_lab.views import overlays
from sa2va_lab.views.scores import list_scores
from sa2va_lab.views.tables import tabulate_facts

DESCRIBE = "<image>\nPlease describe the image."  # one of the questions of the training that ask for no mask
BRUSH = 0.04  # of the picture's width
WIDE = 768  # px that a picture is drawn with at least


@dataclass(frozen=True)
class Shown:
    """An answer as it was asked for. predictions: one, or one a frame. names: of the images that they are about.

    seconds: until it was there. saved: of them, how many less than the first question about this image took before
    the language model read it, because the image was known. regions: bool (H, W) each.
    error: why there is no prediction.
    """

    prompt: str
    names: tuple[str, ...]
    predictions: tuple[Prediction, ...]
    seconds: float
    saved: float = 0.0
    regions: tuple[np.ndarray, ...] = ()
    error: str = ""

    def tell(self) -> str:
        """What it took, in a sentence."""
        values = dict(seconds=self.seconds, frames=len(self.predictions), saved=self.saved)
        if len(self.predictions) > 1:
            return tr("Asked once and followed through {frames} frames in {seconds:.2f} s.", **values)
        if self.saved > 0:
            return tr("Answered in {seconds:.2f} s; {saved:.2f} s were saved, because the image was known.", **values)
        return tr("Answered in {seconds:.2f} s.", **values)


class Explorer:
    """A model and images to ask it about. images: what can be chosen, by name; the names are pseudonyms.

    dataset: None where there is none. folder: where what is kept goes.
    """

    def __init__(self, segmenter: Segmenter, dataset: Dataset | None = None, *, folder: Path | str):
        self.segmenter, self.dataset, self.folder = segmenter, dataset, Path(folder)
        self.images: dict[str, object] = {sample.id: sample.image for sample in dataset or ()}
        self.name, self.pixels, self.shown = "", None, None
        self.regions: list[np.ndarray] = []
        self._talk, self._first = None, 0.0

    def find(self, name: str) -> Sample | None:
        """An image in the data set; None for one that was uploaded."""
        return next((one for one in self.dataset or () if one.id == name), None)

    @property
    def turns(self) -> list[tuple[str, str]]:
        """[(question, answer)] of the conversation so far."""
        return self._talk.turns if self._talk else []

    def suggest(self) -> list[str]:
        """What could be asked: the data set's phrases, then questions that Sa2VA was trained with."""
        phrases = self.dataset.phrases if self.dataset else []
        phrase = phrases[0] if phrases else "blood vessel"
        return [*phrases, *(question.format(phrase=phrase) for question in QUESTIONS), DESCRIBE]

    def upload(self, content: bytes) -> str:
        """Takes in an image file's bytes and returns the name it has here; LabError for what is no image."""
        try:
            image = Image.open(io.BytesIO(content))
            image.load()
        except Exception as error:  # Pillow raises many kinds
            raise LabError(f"the upload cannot be read as an image ({error}); upload a PNG, JPEG or TIFF") from None
        name = f"upload-{sum(str(known).startswith('upload-') for known in self.images) + 1}"
        self.images[name] = image
        return name

    def open(self, name: str) -> None:
        """Makes an image the one that is asked about, with a new conversation; LabError where it cannot be read."""
        self.pixels = self.read(name)
        self.name, self.shown, self.regions, self._first = name, None, [], 0.0
        self._talk = self.segmenter.chat(Image.fromarray(self.pixels))

    def read(self, name: str) -> np.ndarray:
        """uint8 (H, W, 3) of an image; LabError where it cannot be read, without its file's name."""
        try:
            return overlays.read_pixels(self.images[name])
        except (LabError, OSError) as error:
            sample = self.find(name)
            raise LabError(hide_names(str(error), sample) if sample else str(error)) from None

    def mark(self, tool: str, points: Sequence[Sequence[float]]) -> None:
        """Adds a region: "box" with two corners or "brush" with a stroke, [x, y] as shares of the image's sides."""
        height, width = self.pixels.shape[:2]
        drawn = Image.new("1", (width, height))
        pen, places = ImageDraw.Draw(drawn), [(x * width, y * height) for x, y in points]
        if tool == "box":
            (left, right), (top, bottom) = (sorted(side) for side in zip(*places, strict=True))
            pen.rectangle([left, top, right, bottom], fill=1)
        else:
            thick = max(round(BRUSH * width), 1)
            pen.line(places, fill=1, width=thick, joint="curve")
            for x, y in places:
                pen.ellipse([x - thick / 2, y - thick / 2, x + thick / 2, y + thick / 2], fill=1)
        self.regions.append(np.asarray(drawn, bool))

    def ask(self, text: str, *, go_on: bool = False) -> Shown:
        """The answer about the open image, with its regions. go_on: as the next turn of the conversation.

        Raises LabError for an empty question and whatever `Segmenter.predict` refuses.
        """
        if self._talk is None:
            raise LabError("no image is open; choose one, or upload one")
        if not text.strip():
            raise LabError('nothing was asked; write a phrase such as "blood vessel", or a question')
        begun, regions = time.perf_counter(), tuple(self.regions)
        if not go_on:
            self._talk.turns, self._talk.regions = [], []
        prediction = self._talk.ask(text, regions=regions[len(self._talk.regions) :])
        before = sum(prediction.seconds.get(stage, 0.0) for stage in ("pixels", "vision", "canvas"))
        self._first = max(self._first, before)
        saved, seconds = self._first - before, time.perf_counter() - begun
        self.shown = Shown(text, (self.name,), (prediction,), seconds, saved, regions)
        return self.shown

    def clear(self) -> None:
        """Takes the regions back, and with them the conversation about them."""
        if self.regions:
            self.regions, self._talk.turns, self._talk.regions = [], [], []

    def list_sequence(self) -> list[Sample]:
        """The frames of the sequence that the open image belongs to, in order; empty where it belongs to none."""
        own = self.find(self.name)
        return [one for one in self.dataset if one.video == own.video] if own and own.video else []

    def track(self, text: str) -> Shown:
        """Asks once about the open image's sequence and follows the mask through all of its frames."""
        frames = self.list_sequence()
        if len(frames) < 2:
            raise LabError("the open image belongs to no sequence; choose one that does")
        phrase_prompt(text)
        begun = time.perf_counter()
        found = tuple(self.segmenter.track([frame.image for frame in frames], text))
        self.shown = Shown(text, tuple(one.id for one in frames), found, time.perf_counter() - begun)
        return self.shown

    def pair(self, shown: Shown, place: int = 0, objects: Sequence[int] | None = None) -> Pair:
        """An answer beside the ground truth of what was asked for, blank where that is ignored; the truth is None where
        the data set has none for it. objects: which [SEG] count, all if not given."""
        prediction, asked = shown.predictions[place], shown.prompt.lower()
        if objects is not None:
            prediction = replace(prediction, logits=prediction.logits[list(objects)])
        phrases = self.dataset.phrases if self.dataset else []
        named = [phrase for phrase in phrases if re.search(rf"\b{re.escape(phrase.lower())}\b", asked)]
        sample = self.find(shown.names[place])
        if sample is None or not named:
            return Pair(prediction.probability(), None, None)
        return pair_up(prediction, replace(sample, phrase=max(named, key=len)))

    def look(self, *, threshold: float = 0.5, objects: Sequence[int] | None = None, place: int = 0) -> tuple[str, str]:
        """(HTML of the picture, HTML of what is told). objects: which [SEG] are shown, all if not given. place: which
        frame. What was marked is outlined in purple; the ground truth is set beside the mask where there is one."""
        if self.shown is None:
            layer, said = np.full(self.pixels.shape[:2], overlays.CLEAR, np.uint8), tr("Image") + f", {self.name}"
            return _draw(self._outline(layer, 1), said, self.pixels), ""
        prediction, name = self.shown.predictions[place], self.shown.names[place]
        if prediction.error:  # a frame that cannot be read
            facts = {"Answer": tr("this frame cannot be read; the others were followed")}
            return "", tabulate_facts(facts)._repr_html_()
        pixels = self.pixels if name == self.name else self.read(name)
        pair = self.pair(self.shown, place, objects)
        mask = pair.mask(threshold)
        scale = max(1, math.ceil(WIDE / mask.shape[1]))
        layer = overlays.paint_errors(mask, pair.truth, ignore=pair.ignore, scale=scale)
        layer = self._outline(layer, scale) if name == self.name else layer
        said = self.tell(name, mask, pair.truth)
        facts = {"Answer": prediction.answer or "–", "[SEG]": prediction.n_seg} | list_scores(mask, pair)
        return _draw(layer, said, pixels), tabulate_facts(facts)._repr_html_()

    def keep(self, *, threshold: float = 0.5) -> Path:
        """Writes what is shown into a new folder: image, mask and logits of each frame, and what it came from.

        Returns the folder. Names in it are the pseudonyms.
        """
        if self.shown is None:
            raise LabError("there is no answer to keep; ask something first")
        folder = new_folder(self.folder, self.shown.names[0])
        folder.mkdir(parents=True)
        for name, prediction in zip(self.shown.names, self.shown.predictions, strict=True):
            if prediction.error:
                continue
            image = Image.fromarray(self.read(name))
            write_content(folder / f"{name}.png", np.asarray(image))
            write_content(folder / f"{name}_mask.png", prediction.mask(threshold))
            write_whole(folder / f"{name}.npz", prediction.to_bytes())
        for number, region in enumerate(self.shown.regions, 1):
            write_content(folder / f"region{number}.png", region)
        told = {
            "prompt": self.shown.prompt,
            "answers": {n: p.answer for n, p in zip(self.shown.names, self.shown.predictions, strict=True)},
            "turns": [list(turn) for turn in self.turns],
            "threshold": threshold,
            "segmenter": self.segmenter.provenance,
        }
        write_json(folder / "provenance.json", told)
        return folder

    def tell(self, name: str, mask: np.ndarray, truth: np.ndarray | None) -> str:
        """An image's answer in words."""
        sample = self.find(name)
        return overlays.describe_case(overlays.name_case(name, sample.group if sample else name), mask, truth)

    def _outline(self, layer: np.ndarray, scale: int) -> np.ndarray:
        for region in self.regions:
            edge = find_boundaries(overlays.enlarge(region, scale), mode="inner")
            layer[maximum_filter(edge, 3)] = overlays.BROKEN
        return layer


def _draw(layer: np.ndarray, said: str, pixels: np.ndarray) -> str:
    under, sharp = overlays.encode_photo(pixels, quality=90), layer.shape[1] > pixels.shape[1]
    return overlays.show_picture(overlays.encode_layer(layer), said, under=under, sharp=sharp, more=" data-sketch")
