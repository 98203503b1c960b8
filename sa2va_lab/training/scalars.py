"""Logs in JSON: mmengine's scalars.json, an object a line, and Hugging Face's trainer_state.json, one object."""

from __future__ import annotations

import contextlib
import json
import math
import re

import numpy as np

from sa2va_lab.training.lines import NOT_METRICS
from sa2va_lab.training.records import TOTAL, Records, by_names, is_loss, to_numbers

PLACES = ("iter", "step", "global_step")
TIMINGS = ("_runtime", "_per_second")


class Scalars:
    """Collects from chunks of whole lines. records, validation: see `log.TrainingRun`. broken: lines without an object.

    As in text logs, most lines have the same names, so the form of a line is learned and held against the next chunk.
    """

    def __init__(self):
        self.records, self.broken = Records(), 0
        self.validation: dict[str, list[tuple[int, float]]] = {}
        self._place = 0
        self._form: tuple[tuple[str, ...], re.Pattern] | None = None

    def read(self, chunk: bytes) -> None:
        """Takes in a chunk."""
        self._form = self._form or _learn(chunk.partition(b"\n")[0])
        if self._read_uniform(chunk):
            return
        found = []
        for line in _parse_lines(chunk):
            if line is None:
                self.broken += 1
            elif numbers := _numbers(line):
                self._place = _pop_place(numbers) or self._place
                if any(map(is_loss, numbers)) and not any(name.startswith("val/") for name in numbers):
                    found.append(numbers | {"iteration": self._place})
                else:
                    _note_validation(self.validation, self._place, numbers)
        self.records.add(by_names(found))

    def _read_uniform(self, chunk: bytes) -> bool:
        """The quick way for a chunk whose lines all have the form of the first; False if they have not."""
        if self._form is None:
            return False
        names, pattern = self._form
        found = pattern.findall(chunk)
        if len(found) != len(chunk.rstrip(b"\n").split(b"\n")):
            return False
        try:
            numbers = to_numbers(found)
        except ValueError:
            return False
        column = names.index("iteration")
        if not np.isfinite(numbers[:, column]).all():
            return False
        self._place = int(numbers[-1, column])
        order = [column, *(other for other in range(len(names)) if other != column)]
        self.records.add([(tuple(names[other] for other in order), slice(None), numbers[:, order])])
        return True


def read_trainer_state(text: bytes) -> tuple[Records, dict, int | None] | None:
    """(records, validation, planned iterations) of a trainer_state.json; None for text that is none."""
    state = parse_json(text)
    history = state.get("log_history") if isinstance(state, dict) else None
    if not isinstance(history, list):
        return None
    records, validation, found = Records(), {}, []
    for entry in history:
        numbers = _numbers(entry) if isinstance(entry, dict) else {}
        place = _pop_place(numbers)
        if not place:
            continue
        if TOTAL in numbers:
            found.append(
                {("lr" if name == "learning_rate" else name): value for name, value in numbers.items()}
                | {"iteration": place}
            )
        else:
            scores = {n: v for n, v in numbers.items() if n.startswith("eval_") and not n.endswith(TIMINGS)}
            _note_validation(validation, place, scores)
    records.add(by_names(found))
    planned = state.get("max_steps")
    return records, validation, planned if isinstance(planned, int) and 0 < planned < 10**12 else None


def parse_json(text: bytes):
    """What a JSON text holds, None if it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _learn(line: bytes) -> tuple[tuple[str, ...], re.Pattern] | None:
    """(names, pattern) of a training line in which `iter` or `step` comes somewhere; None for any other line."""
    content = parse_json(line)
    if not isinstance(content, dict) or not any(name in content for name in PLACES) or not any(map(is_loss, content)):
        return None
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in content.values()):
        return None
    place = next(name for name in PLACES if name in content)
    kept = [name for name in content if name == place or name not in PLACES]
    names = tuple("iteration" if name == place else name.removeprefix("train/") for name in kept)
    if len(set(names)) < len(names):
        return None
    parts = [
        re.escape(json.dumps(name).encode()) + (rb": ([^,}\s]++)" if name in kept else rb": [^,}\s]++")
        for name in content
    ]
    return names, re.compile(rb"^\{" + rb", ".join(parts) + rb"\}$", re.M)


def _parse_lines(chunk: bytes) -> list[dict | None]:
    """The object on each line; None for a line that holds none."""
    lines = [line for line in chunk.split(b"\n") if line.strip()]
    at_once = parse_json(b"[" + b",".join(lines) + b"]")
    if not isinstance(at_once, list) or len(at_once) != len(lines):
        at_once = [parse_json(line) for line in lines]
    return [line if isinstance(line, dict) else None for line in at_once]


def _numbers(entry: dict) -> dict[str, float]:
    """What is a number in an entry, by name without "train/"."""
    numbers = {}
    for name, value in entry.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            with contextlib.suppress(OverflowError):  # an integer of 400 digits
                numbers[name.removeprefix("train/")] = float(value)
    return numbers


def _pop_place(numbers: dict[str, float]) -> int:
    """The iteration, taken out of an entry's numbers; 0 where it has none."""
    places = [numbers.pop(name, math.nan) for name in PLACES]
    return next((int(place) for place in places if 0 < place < 1e12), 0)


def _note_validation(validation: dict[str, list[tuple[int, float]]], place: int, numbers: dict[str, float]) -> None:
    for name, value in numbers.items():
        if name.removeprefix("val/") not in NOT_METRICS:
            validation.setdefault(name, []).append((place, value))
