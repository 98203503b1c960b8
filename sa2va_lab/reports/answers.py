"""What a notebook hands to its report: one sentence that answers, and the numbers behind it.

The last word of a notebook is an output like any other, so it survives in the .ipynb, and a report needs no second
way to get at results. In JupyterLab the sentence is shown; the numbers ride along under a type of their own.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from dataclasses import dataclass
from html import escape
from pathlib import Path

MIME = "application/vnd.sa2va-lab.answer+json"
FILE = "metrics.json"


@dataclass(frozen=True)
class Answer:
    """sentence: for people, in their language. metrics: JSON-able numbers and facts. stamp: a notice, or None."""

    sentence: str
    metrics: dict
    stamp: str | None = None

    def to_dict(self) -> dict:
        """Plain JSON values; NaN, which JSON lacks, becomes None."""
        return plain({"sentence": self.sentence, "stamp": self.stamp, "metrics": self.metrics})

    def save(self, folder: Path | str) -> Answer:
        """Writes metrics.json into a folder (a Run's, as a rule) and returns itself.

        A folder that cannot be written to, such as a Run on a read-only disk, costs a warning, not the answer.
        """
        try:
            write_json(Path(folder) / FILE, self.to_dict())
        except OSError as error:
            warnings.warn(f"{FILE} was not written to {folder} ({error.strerror}); its numbers are in this notebook")
        return self

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        notice = f'<p class="stamp">{escape(self.stamp)}</p>' if self.stamp else ""
        return {
            MIME: self.to_dict(),
            "text/html": f'{notice}<p class="answer"><strong>{escape(self.sentence)}</strong></p>',
            "text/plain": self.sentence,
        }


def find_answer(notebook) -> dict | None:
    """The answer in an executed notebook's outputs, None if it did not get that far; the last one counts."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    answers = [output["data"][MIME] for output in outputs if MIME in output.get("data", {})]
    return answers[-1] if answers else None


def plain(value):
    """The same as values that JSON has: NaN and infinities become None, paths text, numpy numbers numbers."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item"):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_json(path: Path, content) -> None:
    """Writes JSON so that the file is there whole or not at all."""
    unfinished = path.with_name(f".{path.name}.part")
    unfinished.write_text(json.dumps(plain(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")
    os.replace(unfinished, path)
