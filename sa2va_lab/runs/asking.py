"""From images to answers: one record for each, whatever happens, and what was predicted where it went well."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from itertools import zip_longest
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from sa2va_lab.errors import LabError
from sa2va_lab.files import hash_if_readable
from sa2va_lab.prediction import Prediction


class Told(NamedTuple):
    """What became of a sample: its record, and what was predicted, None where that failed."""

    sample: object
    record: dict
    prediction: Prediction | None


def ask_run(segmenter, samples: Sequence, meta: Mapping, wanted: Collection[str]) -> Iterator[list[Told]]:
    """What became of the wanted samples of a Run, and of those that lie with them in a batch or a film, group by group.

    samples: all of the Run, or of one process's share of it. meta: what run.json says. wanted: ids. The first sample of
    all is asked first, wanted or not (`keep_draft`): no logits hang on which samples are wanted.
    """
    prompt, batch, tracked = meta["prompt"], meta.get("batch", 1), meta.get("tracked")
    own = {sample.id: sample.prompt for sample in samples if sample.prompt} if meta.get("own_prompts") else {}
    groups = list_films(samples) if tracked else [samples[k : k + batch] for k in range(0, len(samples), batch)]
    groups = [group for group in groups if any(sample.id in wanted for sample in group)]
    keep = getattr(segmenter, "keep_draft", None) if groups else None
    prepare = getattr(segmenter, "prepare", lambda images: None)
    with keep(samples[0].image, own.get(samples[0].id, prompt)) if keep else nullcontext():
        for group, following in zip_longest(groups, groups[1:], fillvalue=()):
            if tracked:  # of a film all frames hang on each other: it is tracked whole
                yield from ([told] for told in track_samples(segmenter, group, prompt, own, **tracked))
            else:
                prepare([sample.image for sample in (*group, *following)])
                yield predict_samples(segmenter, group, prompt, own)


def predict_samples(
    segmenter, samples: Sequence, prompt: str, own: Mapping[str, str] = MappingProxyType({}), **how
) -> list[Told]:
    """What became of each sample: the one way from images to answers.

    own: by id, what is asked instead of `prompt`; such images are asked one by one. how: more that `predict` takes.
    Where a batch fails, its images are asked one by one: one must not cost the others.
    """
    if len(samples) > 1 and any(sample.id in own for sample in samples):
        return [told for sample in samples for told in predict_samples(segmenter, [sample], prompt, own, **how)]
    prompt = own.get(samples[0].id, prompt)
    begun, images = time.perf_counter(), [sample.image for sample in samples]
    try:
        if len(images) == 1:
            made = [segmenter.predict(images[0], prompt, **how)]
        else:
            made = list(segmenter.predict_many(images, prompt, batch=len(images), **how))
        if fault := next(filter(None, map(_find_fault, made)), None):
            raise fault
    except Exception as error:  # whatever happened is the record
        if len(samples) > 1:
            return [told for sample in samples for told in predict_samples(segmenter, [sample], prompt, **how)]
        made = [error]
    wall = (time.perf_counter() - begun) / len(samples)
    return [
        _tell(segmenter, sample, one, wall, {"prompt": prompt} if sample.id in own else {})
        for sample, one in zip(samples, made, strict=True)
    ]


def track_samples(
    segmenter, samples: Collection, prompt: str, own: Mapping[str, str] = MappingProxyType({}), **how
) -> Iterator[Told]:
    """As `predict_samples`, for the frames of one film in their order, each as soon as it is there; the film is asked
    once. Records say their place in it (`frame`, from 1); a frame that cannot be read has its error, and the film goes
    on; what stops the film is the error of all later frames.

    samples: iterated more than once, so that a long film need not be held. own: the first frame's question is the
    film's. how: more that `Segmenter.track` takes.
    """
    asked = own.get(next(iter(samples)).id, prompt)
    tracked = None
    made: Prediction | Exception | None = None
    for number, sample in enumerate(samples, 1):
        begun = time.perf_counter()
        if not isinstance(made, Exception):
            try:
                tracked = tracked or iter(segmenter.track(samples, asked, **how))
                made = next(tracked)
            except Exception as error:  # whatever happened is the record
                made = error
        more = {"video": sample.video, "frame": number} | ({"prompt": asked} if sample.id in own else {})
        yield _tell(segmenter, sample, made, time.perf_counter() - begun, more)


def list_films(samples: Iterable) -> list[list]:
    """The samples of each sequence (`sample.video`), in their order."""
    films: dict[str, list] = {}
    for sample in samples:
        films.setdefault(sample.video, []).append(sample)
    return list(films.values())


def _find_fault(made: Prediction | Exception) -> Exception | None:
    """Why there is no prediction of an image: what was raised, what is said of a frame, or numbers that are none."""
    if isinstance(made, Exception):
        return made
    if not made.error and not np.isfinite(made.logits).all():  # a mask of NaN would look like "nothing found"
        return LabError("the logits hold values that are not finite; a higher precision may help")
    return LabError(made.error) if made.error else None


def _tell(segmenter, sample, made: Prediction | Exception, wall: float, more: dict) -> Told:
    """What became of one sample. wall: the seconds that it took; more: of its record."""
    said = None
    if fault := _find_fault(made):
        said = str(fault) if isinstance(fault, LabError) else f"{type(fault).__name__}: {fault}"
        said, made = hide_names(said, sample), None
    record = {"id": sample.id, "image_sha256": hash_if_readable(find_file(sample)), "error": said}
    record |= dict.fromkeys(("answer", "n_seg", "size", "canvas", "peak_bytes", "logits_sha256"))
    record |= {"seconds": {"wall": wall}, "precision": segmenter.provenance.get("precision", {}).get("actual")}
    if made:
        record |= {name: getattr(made, name) for name in ("answer", "n_seg", "peak_bytes")}
        record |= {"size": [int(side) for side in made.size], "canvas": int(made.canvas)}
        stages = {stage: float(spent) for stage, spent in made.seconds.items()}
        record["seconds"] = stages | record["seconds"]
    return Told(sample, record | more, made)


def find_file(sample) -> Path:
    """The file that holds an image, which itself may be in memory."""
    return getattr(sample, "file", None) or sample.image


def hide_names(text: str, sample) -> str:
    """An error's text with the image's pseudonym for its file name, which may name a patient."""
    image = find_file(sample)
    for name in (os.path.realpath(image), str(image), image.name, image.stem):
        if len(name) > 3:  # a stem such as "1" would be replaced everywhere, and names nobody
            text = text.replace(name, sample.id)
    return text
