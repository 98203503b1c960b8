"""From images to answers: one record for each, whatever happens, and what was predicted where it went well."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from types import MappingProxyType

import numpy as np

from sa2va_lab.errors import LabError
from sa2va_lab.files import sha256
from sa2va_lab.prediction import Prediction
from sa2va_lab.sa2va.processing import read_image

Pair = tuple[dict, Prediction | None]


def predict_samples(
    segmenter, samples: Sequence, prompt: str, own: Mapping[str, str] = MappingProxyType({}), **how
) -> list[Pair]:
    """A record for each sample and what was predicted, None where that failed: the one way from images to answers.

    own: by id, what is asked instead of `prompt`; such images are asked one by one. how: more that `predict` takes.
    Where a batch fails, its images are asked one by one: one must not cost the others.
    """
    if len(samples) > 1 and any(sample.id in own for sample in samples):
        return [pair for sample in samples for pair in predict_samples(segmenter, [sample], prompt, own, **how)]
    prompt = own.get(samples[0].id, prompt)
    begun, images = time.perf_counter(), [sample.image for sample in samples]
    try:
        if len(images) == 1:
            made = [segmenter.predict(images[0], prompt, **how)]
        else:
            made = list(segmenter.predict_many(images, prompt, batch=len(images), **how))
        _check_logits(made)
    except Exception as error:  # whatever happened is the record
        if len(samples) > 1:
            return [pair for sample in samples for pair in predict_samples(segmenter, [sample], prompt, **how)]
        made = [error]
    wall = (time.perf_counter() - begun) / len(samples)
    pairs = [_tell(segmenter, *each, wall) for each in zip(samples, made, strict=True)]
    return [(record | ({"prompt": prompt} if record["id"] in own else {}), made) for record, made in pairs]


def track_samples(
    segmenter, samples: Iterable, prompt: str, own: Mapping[str, str] = MappingProxyType({}), **how
) -> Iterator[Pair]:
    """As `predict_samples`, for the frames of one film in their order, each as soon as it is there; the film is asked
    once. Records say their place in it (`frame`, from 1).

    samples: may be lazy, and an image among them an exception, of a frame that could not be read. Such frames are
    records with their error, and the film goes on without them. own: the first frame's question is the film's. how:
    more that `Segmenter.track` takes.
    """
    samples = iter(samples)
    first = next(samples)
    asked = own.get(first.id, prompt)
    left = enumerate(chain([first], samples), 1)
    waiting: deque[tuple[int, object, Exception | None]] = deque()  # given to the network, or not to be read

    def frames() -> Iterator:
        for number, sample in left:
            try:
                image = sample.image
                if isinstance(image, Exception):
                    raise image
                image = read_image(image)
            except Exception as error:
                waiting.append((number, sample, error))
                continue
            waiting.append((number, sample, None))
            yield image

    def pair(number: int, sample, made: Prediction | Exception) -> Pair:
        record, prediction = _tell(segmenter, sample, made, time.perf_counter() - begun)
        more = {"video": getattr(sample, "video", ""), "frame": number}
        return record | more | ({"prompt": asked} if sample.id in own else {}), prediction

    failure: Exception = LabError("the film was not tracked to its end")
    begun = time.perf_counter()
    try:
        for made in segmenter.track(frames(), asked, **how):
            while waiting[0][2] is not None:
                yield pair(*waiting.popleft())
            try:
                _check_logits([made])
            except LabError as error:
                made = error
            yield pair(*waiting.popleft()[:2], made)
            begun = time.perf_counter()
    except Exception as error:  # whatever happened is the record of the frames that are left
        failure = error
    for number, sample, error in chain(waiting, ((*each, None) for each in left)):
        yield pair(number, sample, error or failure)


def list_films(samples: Iterable) -> list[list]:
    """The samples of each sequence (`sample.video`), in their order."""
    films: dict[str, list] = {}
    for sample in samples:
        films.setdefault(sample.video, []).append(sample)
    return list(films.values())


def _check_logits(made: Sequence[Prediction]) -> None:
    if not all(np.isfinite(one.logits).all() for one in made):  # a mask of NaN would look like "nothing found"
        raise LabError("the logits hold values that are not finite; a higher precision may help")


def _tell(segmenter, sample, made: Prediction | Exception, wall: float) -> Pair:
    """The record of one sample. wall: the seconds that it took."""
    said = None
    if isinstance(made, Exception):
        said = str(made) if isinstance(made, LabError) else f"{type(made).__name__}: {made}"
        said, made = _without_names(said, sample), None
    record = {"id": sample.id, "image_sha256": hash_image(_find_file(sample)), "error": said}
    record |= dict.fromkeys(("answer", "n_seg", "size", "canvas", "peak_bytes", "logits_sha256"))
    record |= {"seconds": {"wall": wall}, "precision": segmenter.provenance.get("precision", {}).get("actual")}
    if made:
        record |= {name: getattr(made, name) for name in ("answer", "n_seg", "peak_bytes")}
        record |= {"size": [int(side) for side in made.size], "canvas": int(made.canvas)}
        stages = {stage: float(spent) for stage, spent in made.seconds.items()}
        record["seconds"] = stages | record["seconds"]
    return record, made


def _find_file(sample) -> Path:
    return getattr(sample, "file", None) or sample.image


def hash_image(path: Path) -> str | None:
    """Hash of the bytes of an image's file as they are now; None where it cannot be read."""
    try:
        return sha256(path) if path.is_file() else None
    except OSError:
        return None


def _without_names(text: str, sample) -> str:
    """An error's text with the image's pseudonym for its file name, which may name a patient."""
    image = _find_file(sample)
    for name in (os.path.realpath(image), str(image), image.name, image.stem):
        if len(name) > 3:  # a stem such as "1" would be replaced everywhere, and names nobody
            text = text.replace(name, sample.id)
    return text
