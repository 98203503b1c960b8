"""How often honest evaluations are accused, and forged ones are seen: alarms and hints over data sets drawn here.

Honest: classical segmenters that never see a truth, good and bad ones, on smooth blobs and on drawn vessels, at native
resolution and on a grid, with soft, saturated and binary logits, int8 beside fp32. Forged: the same with something of
the truth in it. Each evaluation is a data set of its own on disk, predicted into a Run, and held against everything.

    python benchmarks/hints.py [--runs 200] [--side 512] [--images 6] [--forged 5] [--json]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage
from skimage.draw import line
from skimage.filters import frangi, threshold_otsu

from sa2va_lab import open_dataset
from sa2va_lab.evaluation.honesty import check_run
from sa2va_lab.evaluation.verification import VERDICTS, verify_run
from sa2va_lab.prediction import Prediction
from sa2va_lab.runs import predict_dataset

GRID = 64


def draw_blob(random: np.random.Generator, side: int) -> tuple[np.ndarray, np.ndarray]:
    """A large smooth organ and its truth: uint8 and bool (side, side); contrast 70, noise 5 to 25, blur 1.5 to 8."""
    y, x = np.mgrid[:side, :side] - side / 2 + random.uniform(-0.1, 0.1, (2, 1, 1)) * side
    angle, radius = np.arctan2(y, x), random.uniform(80, 130) * side / 512
    waves = sum(random.uniform(0, 0.12) * np.cos(k * angle + random.uniform(0, 7)) for k in (2, 3, 4))
    truth = np.hypot(y, x) < radius * (1 + waves)
    soft = ndimage.gaussian_filter(truth.astype(float), random.uniform(1.5, 8))
    return _expose(90 + 70 * soft, random.uniform(5, 25), random), truth


def draw_vessels(random: np.random.Generator, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Bright wandering lines, 3 to 7 pixels wide, on uneven ground, and their truth."""
    truth = np.zeros((side, side), bool)
    for width in (1, 1, 2, 3):
        y, x = random.integers(side // 8, side - side // 8, 2)
        for _ in range(6):
            there = np.clip([y, x] + random.integers(-side // 3, side // 3 + 1, 2), 2, side - 3)
            stroke = np.zeros_like(truth)
            stroke[line(y, x, *there)] = True
            truth |= ndimage.binary_dilation(stroke, iterations=width)
            y, x = there
    ground = 90 + 4 * ndimage.gaussian_filter(random.standard_normal(truth.shape), side / 12) * side / 12
    return _expose(
        ground + 70 * ndimage.gaussian_filter(truth.astype(float), 1.2), random.uniform(3, 12), random
    ), truth


def _expose(light: np.ndarray, noise: float, random: np.random.Generator) -> np.ndarray:
    return (light + random.normal(0, noise, light.shape)).clip(0, 255).astype(np.uint8)


def _shrink(logits: np.ndarray) -> np.ndarray:
    picture = Image.fromarray(logits.astype(np.float32))
    return np.asarray(picture.resize((GRID, GRID), Image.Resampling.BOX))


def _cut(grey: np.ndarray, smooth: float = 1.5, offset: float = 0.0) -> np.ndarray:
    """How far a smoothed image lies above Otsu's threshold; offset: grey levels."""
    near = ndimage.gaussian_filter(grey.astype(float), smooth)
    return (near - threshold_otsu(near) - offset) / 5


HONEST: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    # what a segmenter says of an image, as logits on a grid of its choice
    "Otsu": lambda g: _cut(g),
    "Otsu, 20 too high": lambda g: _cut(g, offset=20),
    "Otsu, 20 too low": lambda g: _cut(g, offset=-20),
    "Otsu on the grid": lambda g: _shrink(_cut(g)),
    "Otsu on the grid, too low": lambda g: _shrink(_cut(g, offset=-20)),
    "Otsu, yes or no": lambda g: np.where(_cut(g) > 0, 9.0, -9.0),
    "Otsu, saturated": lambda g: np.clip(20 * _cut(g), -30, 30),
    "Otsu, in steps as of int8": lambda g: np.round(_cut(g) * 8) / 8,
    "Otsu without smoothing": lambda g: _cut(g, smooth=0.01),
    "median": lambda g: _cut(ndimage.median_filter(g, 5), smooth=0.01),
    "very smooth": lambda g: _cut(g, smooth=6),
    "darker than around": lambda g: (g - ndimage.gaussian_filter(g.astype(float), 20)) / 8,
    "soft Frangi": lambda g: _shrink(2 * np.log10(1e-4 + frangi(g / 255, sigmas=(2, 4), black_ridges=False)) + 5),
    "says little of anything": lambda g: _shrink(ndimage.gaussian_filter(g.astype(float), 9) - 200) / 50,
}
FORGED: dict[str, Callable] = {
    # what a cheat makes of truth (t), an honest segmenter's logits (m) and chance (r)
    "truth": lambda t, m, r: np.where(t, 9.0, -9.0),
    "truth through the grid": lambda t, m, r: _shrink(np.where(t, 9.0, -9.0)),
    "truth and noise": lambda t, m, r: np.where(t ^ (r.random(t.shape) < 0.02), 2, -2) + r.normal(0, 0.3, t.shape),
    "truth, eroded": lambda t, m, r: np.where(ndimage.binary_erosion(t), 2, -2) + r.normal(0, 0.3, t.shape),
    "components chosen by the truth": lambda t, m, r: np.where(_touch(m > 0, t), m, -3.0),
    "mean of model and truth": lambda t, m, r: (m + np.where(t, 9.0, -9.0)) / 2,
    "one moved pixel": lambda t, m, r: np.where(np.arange(m.size).reshape(m.shape) == m.size // 2, -m, m),
    "truth on half of the images": lambda t, m, r: np.where(t, 9.0, -9.0),
}


def _touch(mask: np.ndarray, truth: np.ndarray) -> np.ndarray:
    pieces, _ = ndimage.label(mask)
    return np.isin(pieces, np.unique(pieces[truth & mask])) & mask


class Segmenter:
    """One of HONEST with a Segmenter's interface."""

    def __init__(self, name: str, *, weights: str = "0" * 64, precision: str = "fp32"):
        self.say = HONEST[name]
        actual = {"asked": precision, "actual": precision, "reason": "as asked"}
        self.provenance = {"weights_sha256": weights, "model": name, "family": "classical", "stamp": None}
        self.provenance |= {"parameters": 1, "precision": actual, "device": {"actual": "cpu", "reason": "no other"}}

    def predict(self, image: Path, prompt: str) -> Prediction:
        grey = np.asarray(Image.open(image).convert("L"))
        logits = np.ascontiguousarray(self.say(grey), np.float32)
        return Prediction(logits[None], grey.shape, "Sure, [SEG].", canvas=max(logits.shape))


class Cheat(Segmenter):
    """The same with something of the truth in it; truths: by image, those of the images that it forges."""

    def __init__(self, name: str, forge: Callable, truths: dict, random: np.random.Generator):
        super().__init__(name)
        self.forge, self.truths, self.random = forge, truths, random

    def predict(self, image: Path, prompt: str) -> Prediction:
        own = super().predict(image, prompt)
        if image not in self.truths:
            return own
        forged = np.asarray(self.forge(self.truths[image], own.logits[0], self.random), np.float32)
        return Prediction(forged[None], own.size, own.answer, canvas=own.canvas)


def write_data(folder: Path, draw: Callable, random: np.random.Generator, *, images: int, side: int):
    """A data set of `images` test images, two a patient, and two for training, opened."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    names = [f"INVENTED{number // 2:02d}_V1_F{number % 2:02d}.png" for number in range(images + 2)]
    for name in names:
        image, truth = draw(random, side)
        Image.fromarray(image).save(folder / "images" / name)
        Image.fromarray(truth.astype(np.uint8) * 255).save(folder / "masks" / name)
    (folder / "splits.json").write_text(json.dumps({"train": names[:2], "test": names[2:]}))
    return open_dataset(folder)


def measure(*, runs: int, forged: int, images: int, side: int, seed: int = 0) -> list[dict]:
    """A row a kind: of `runs` honest evaluations how many had an alarm or were said to be worth a look, and by what;
    of `forged` evaluations of each forgery how many were seen by accounting or a hint, and by verification."""
    random, rows = np.random.default_rng(seed), []
    alarms, looks, tried = Counter(), Counter(), 0
    with tempfile.TemporaryDirectory() as temporary:
        for number in range(runs):
            name = list(HONEST)[number % len(HONEST)]
            draw = (draw_blob, draw_vessels)[number // len(HONEST) % 2]
            folder = Path(temporary) / f"honest{number}"
            data = write_data(folder, draw, random, images=images, side=side)
            how = {"split": "test", "progress": False}
            run = predict_dataset(Segmenter(name), data, folder=folder / "run", **how)
            int8 = Segmenter("Otsu, in steps as of int8" if name == "Otsu" else name, precision="int8")
            others = [predict_dataset(int8, data, folder=folder / "int8", **how)] if name == "Otsu" else []
            found = [*check_run(run, data, others=others), _verify(run, data, name, images=5)]
            alarms.update(finding.kind for finding in found if finding.alarm)
            looks.update(finding.kind for finding in found if finding.look)
            tried += any(finding.alarm or finding.look for finding in found)
        told = {"alarms": sum(alarms.values()), "looks": sum(looks.values()), "accused": tried}
        rows.append({"what": "honest", "of": runs} | told | {"by": dict(alarms + looks)})
        for what, forge in FORGED.items():
            seen, caught = Counter(), 0
            for number in range(forged):
                folder = Path(temporary) / f"{what}{number}"
                draw = (draw_blob, draw_vessels)[number % 2]
                data = write_data(folder, draw, random, images=images, side=side)
                part = list(data.split("test"))[:: 2 if "half" in what else 1]
                truths = {sample.image: sample.truth() for sample in part}
                cheat = Cheat("Otsu", forge, truths, random)
                run = predict_dataset(cheat, data, folder=folder / "run", split="test", progress=False)
                seen.update(finding.kind for finding in check_run(run, data) if finding.alarm or finding.look)
                caught += _verify(run, data, "Otsu", images=min(5, images)).alarm
            rows.append({"what": what, "of": forged, "verification": caught, "by": dict(seen)})
    return rows


def _verify(run, data, name: str, *, images: int):
    found = verify_run(run, data, lambda precision: Segmenter(name, precision=precision), images=images, time="now")
    assert found.kind in VERDICTS
    return found


def main() -> None:
    """Reads the arguments, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("runs", 200), ("side", 512), ("images", 6), ("forged", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--json", action="store_true")
    asked = vars(parser.parse_args())
    as_json = asked.pop("json")
    rows = measure(**asked)
    print(json.dumps({"rows": rows}) if as_json else "\n".join(str(row) for row in rows))


if __name__ == "__main__":
    main()
