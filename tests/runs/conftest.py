"""What tests of Runs share: a segmenter that follows films, without a network."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from sa2va_lab.errors import LabError
from sa2va_lab.prediction import Prediction
from sa2va_lab.sa2va.processing import read_image

FILMS = {"INVENTED_A_V1": 4, "INVENTED_A_V2": 2, "INVENTED_B_V1": 5}


@pytest.fixture
def make_follower(make_segmenter):
    """A segmenter that follows: what it says of a frame hangs on all frames of the film before it."""

    class Follower(make_segmenter):
        def __init__(self, *, stop_after=None, **how):
            super().__init__(**how)
            self.asked, self.given, self.stop_after = [], [], stop_after

        def predict(self, image, prompt):
            if isinstance(image, Image.Image):
                image.save(content := io.BytesIO(), "png")
                return super().predict(content, prompt)
            return super().predict(image, prompt)

        def track(self, frames, prompt, *, keep=5, sample=None):
            self.asked.append((prompt, keep))
            memory = 0.0
            for place, frame in enumerate(frames):
                self.given.append(frame)
                try:
                    if error := getattr(frame, "error", None):
                        raise LabError(error)
                    image = read_image(frame.image)
                except LabError as error:
                    yield SimpleNamespace(error=str(error))
                    continue
                memory += float(np.asarray(image).mean())
                made = self.predict(image, prompt)
                yield Prediction(made.logits + memory / 100, made.size, made.answer, canvas=64, seconds={"follow": 0.1})
                if self.stop_after == place + 1:
                    raise KeyboardInterrupt

    return Follower


@pytest.fixture
def films(tmp_path):
    """A mask folder with three films of two patients, the frames in natural order of their names."""
    root = tmp_path / "data"
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for film, count in FILMS.items():
        for number in range(8, 8 + count):  # F10 stands before F8 in the alphabet
            pixels, truth = np.full((20, 24), 200, np.uint8), np.zeros((20, 24), np.uint8)
            pixels[number % 9 : number % 9 + 8, 4:18], truth[number % 9 : number % 9 + 8, 4:18] = number, 255
            Image.fromarray(pixels).save(root / "images" / f"{film}_F{number}.png")
            Image.fromarray(truth).save(root / "masks" / f"{film}_F{number}.png")
    return root
