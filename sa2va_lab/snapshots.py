"""Predictions about single images, written beside each other in a folder: no data set, no truth, no Run.

<stem>.npz            logits, size, canvas (see `Prediction`)
<stem>_overlay.png    the mask at 0.5 on the image
predictions.jsonl     a line an image: image, answer, n_seg, seconds, error

Under a folder called `outputs` nothing names anybody: there <stem> and "image" are the image's pseudonym, the one that
it has when its folder is opened as a data set.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sa2va_lab.datasets.groups import name_files
from sa2va_lab.errors import LabError

if TYPE_CHECKING:
    import numpy as np

    from sa2va_lab.segmenter import Segmenter

LINES = "predictions.jsonl"


def check_request(images: Sequence[Path | str], prompt: str, folder: Path | str) -> None:
    """Raises LabError for what can be refused before a model is loaded: no prompt, two images that would be written to
    the same files, an output folder that holds something else."""
    from sa2va_lab.sa2va.processing import phrase_prompt

    phrase_prompt(prompt)
    twice = [stem for stem, count in Counter(Path(image).stem for image in images).items() if count > 1]
    if twice:
        raise LabError(
            f"{len(twice)} file names occur twice ({twice[0]}) and would overwrite each other: "
            "predict them into two folders."
        )
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise LabError(f"{folder} is a file: name a folder for the predictions.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / LINES).is_file():
        raise LabError(f"{folder} holds something else (no {LINES} in it): name a new or empty folder.")


def predict_images(
    segmenter: Segmenter,
    images: Sequence[Path | str],
    prompt: str,
    *,
    folder: Path | str,
    save_overlay: Callable[[Path, Path | str, np.ndarray], object],
    answer: str | None = None,
) -> Iterator[dict]:
    """Predicts each image into `folder` and yields its line as it is written; an unreadable image is a line with its
    error, and the others go on. Lines of other images that are already there stay; those of these images are replaced.
    """
    check_request(images, prompt, folder)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    images = [Path(image) for image in images]
    names = name_files(images) if "outputs" in folder.resolve().parts else {}
    ours = {names.get(image, str(image)) for image in images}
    kept = [line for line in _read_lines(folder / LINES) if line.get("image") not in ours]
    _replace(folder / LINES, "".join(_as_line(line) for line in kept).encode())
    for image in images:
        line = {"image": names.get(image, str(image)), "answer": None, "n_seg": None, "seconds": None, "error": None}
        start = time.perf_counter()
        try:
            prediction = segmenter.predict(image, prompt, answer=answer)
            stem = names.get(image, image.stem)
            _replace(folder / f"{stem}.npz", prediction.to_bytes())
            save_overlay(folder / f"{stem}_overlay.png", image, prediction.mask())
            line |= {"answer": prediction.answer, "n_seg": prediction.n_seg}
            line["seconds"] = {stage: round(took, 4) for stage, took in prediction.seconds.items()}
        except LabError as error:
            said = str(error).replace(str(image), line["image"]) if names else str(error)
            line |= {"error": said, "seconds": {"wall": round(time.perf_counter() - start, 4)}}
        with open(folder / LINES, "a", encoding="utf-8") as lines:
            lines.write(_as_line(line))
        yield line


def _read_lines(path: Path) -> list[dict]:
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue  # a line that a killed process did not finish
    return [line for line in lines if isinstance(line, dict)]


def _as_line(line: dict) -> str:
    return json.dumps(line, ensure_ascii=False) + "\n"


def _replace(path: Path, content: bytes) -> None:
    draft = path.with_name(f".{path.name}.part")
    draft.write_bytes(content)
    os.replace(draft, path)
