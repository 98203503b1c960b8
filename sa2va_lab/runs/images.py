"""Predictions about single images, beside each other in a folder that a person looks into; no Run, since further
images may join them at any time.

<stem>.npz            logits, size, canvas (see `Prediction`)
<stem>_overlay.png    the mask at 0.5 on the image
predictions.jsonl     a line an image: image, image_sha256, answer, n_seg, seconds, error; of a film's frame also frame,
                      from 1, and its files are <stem>-F001.npz and so on

Under a folder called `outputs` nothing names anybody: there <stem> and "image" are the image's pseudonym.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sa2va_lab import files
from sa2va_lab.errors import LabError
from sa2va_lab.paths import real
from sa2va_lab.runs.asking import find_file, predict_samples, track_samples
from sa2va_lab.runs.write import check_prompt
from sa2va_lab.sa2va.processing import ImageLike

LINES = "predictions.jsonl"


class Picture(NamedTuple):
    """An image file that belongs to no data set, as a sample. id: what its files are called."""

    id: str
    image: Path


def hides_names(folder: Path | str) -> bool:
    """Whether files in this folder are called by pseudonyms: it is to be shown to others."""
    return "outputs" in real(folder).parts


def check_images(samples: Sequence[Picture], prompt: str, folder: Path | str) -> None:
    """Raises LabError for what can be refused before a model is loaded: no prompt, a folder that holds something else,
    and images that would take the place of another image's result."""
    check_prompt(prompt)
    folder = Path(folder)
    twice = [name for name, count in Counter(sample.id for sample in samples).items() if count > 1]
    if twice:
        raise LabError(
            f"{len(twice)} file names occur twice ({twice[0]}) and would overwrite each other: "
            "predict them into two folders."
        )
    if folder.exists() and not folder.is_dir():
        raise LabError(f"{folder} is a file: name a folder for the predictions.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / LINES).is_file():
        raise LabError(f"{folder} holds something else (no {LINES} in it): name a new or empty folder.")
    lines = _read_lines(folder / LINES)
    for sample in samples:
        line, file = lines.get(sample.id), find_file(sample)
        if line is None or line.get("image_sha256") == files.hash_if_readable(file) is not None:
            continue
        told_by_name = not hides_names(folder) and file.is_absolute()  # another folder has its own "one.png"
        if not told_by_name or line["image"] != (getattr(sample, "video", "") or str(file)):
            raise LabError(f"{folder} holds {sample.id} of another image: predict this one into another folder.")


def predict_images(
    segmenter,
    samples: Sequence[Picture],
    prompt: str,
    *,
    folder: Path | str,
    save_overlay: Callable[[Path, ImageLike, np.ndarray], object],
    film: bool = False,
    **how,
) -> Iterator[dict]:
    """Predicts each image into `folder` and yields its line as it is written; an image that fails is a line with its
    error, and the others go on. Lines of other images stay; those of these images are replaced.

    film: `samples` is an open film, which is tracked: iterated, it gives frames with id, image or error, file and
    video, and `places` gives the same without images. how: more that `segmenter.predict` takes, or `track`.
    Raises LabError as `check_images` does, and where the folder cannot be written.
    """
    check_images(samples.places() if film else samples, prompt, folder)
    folder = Path(folder)
    if film:
        told = track_samples(segmenter, samples, prompt, **how)
    else:
        told = (each for sample in samples for each in predict_samples(segmenter, [sample], prompt, **how))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lines = _read_lines(folder / LINES)
        _write_lines(folder, lines)  # without what a kill cut off
        for sample, record, prediction in told:
            try:
                if prediction is not None:
                    files.write_whole(folder / f"{sample.id}.npz", prediction.to_bytes())
                    save_overlay(folder / f"{sample.id}_overlay.png", sample.image, prediction.mask())
                    del record["seconds"]["wall"]  # its stages are told
            except LabError as error:  # of the image, which may have changed since it was predicted
                record["error"] = str(error)
            if film:
                line = {"image": sample.video, "frame": record["frame"]}
            else:
                line = {"image": sample.id if hides_names(folder) else str(sample.image)}
            line |= {name: record[name] for name in ("image_sha256", "answer", "n_seg", "seconds", "error")}
            line["seconds"] = {stage: round(spent, 4) for stage, spent in record["seconds"].items()}
            with open(folder / LINES, "a", encoding="utf-8") as handle:
                handle.write(json.dumps(line, ensure_ascii=False) + "\n")
                handle.flush()
                os.fsync(handle.fileno())
            lines.pop(sample.id, None)  # the last line of an image counts, and stands last
            lines[sample.id] = line
            yield line
        _write_lines(folder, lines)
    except OSError as error:
        raise LabError(f"{folder} cannot be written ({error.strerror}); make room or name another folder.") from error


def _read_lines(path: Path) -> dict[str, dict]:
    """The last line of each image, by the name of its files."""
    lines = {}
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        try:
            line = json.loads(text)
            frame = f"-F{line['frame']:03d}" if "frame" in line else ""
            lines[Path(line["image"]).stem + frame] = line
        except (ValueError, TypeError, KeyError, RecursionError):
            continue  # a line that a killed process did not finish
    return lines


def _write_lines(folder: Path, lines: dict[str, dict]) -> None:
    files.write_whole(folder / LINES, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines.values()))
