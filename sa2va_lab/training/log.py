"""Opening a training log, whichever of the usual forms it has, as a TrainingRun.

Read as a stream: a log of 5 GB needs no more memory than one of 500 MB.
"""

from __future__ import annotations

import gzip
import zlib
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np

from sa2va_lab.errors import LabError
from sa2va_lab.training.lines import TextLog
from sa2va_lab.training.messages import Messages
from sa2va_lab.training.records import TOTAL, Records, is_loss
from sa2va_lab.training.scalars import Scalars, parse_json, read_trainer_state

CHUNK = 4 << 20  # bytes read at a time
LONGEST = 16 << 20  # bytes of one line; what is longer is no log
LARGEST_STATE = 512 << 20  # bytes of a trainer_state.json, which cannot be read line by line
CONTROLS = bytes({*range(9), *range(14, 27), *range(28, 32)})  # what no text has; not the escape of colours


@dataclass(frozen=True)
class TrainingRun:
    """What a log says of one training run.

    records: {name: float64 (lines,)}, "iteration" among them and rising; NaN where a line lacks the number; lines
    that a restart took back are gone. planned: iterations asked for, None where the log does not say. restarts:
    iterations at which it was taken up again. copies: how many processes wrote each line into this file. validation:
    {metric: [(iteration, value)]}. lines: training lines read. every: 2, 4 ... where so long a log was thinned out,
    else 1. nonfinite: (iteration, name) of the first hundred numbers that were NaN or infinite. torn: the last line
    was cut off.
    """

    path: Path
    format: str
    records: dict[str, np.ndarray]
    planned: int | None = None
    restarts: tuple[int, ...] = ()
    copies: int = 1
    validation: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    messages: Messages = field(default_factory=Messages)
    lines: int = 0
    every: int = 1
    nonfinite: tuple[tuple[int, str], ...] = ()
    torn: bool = False

    @cached_property
    def losses(self) -> tuple[str, ...]:
        """Names of the losses, the total first if there is one."""
        return tuple(sorted((name for name in self.records if is_loss(name)), key=lambda name: name != TOTAL))

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the losses that the total is made of."""
        return tuple(name for name in self.losses if name != TOTAL)

    @property
    def last_iteration(self) -> int:
        return int(self.records["iteration"][-1])

    @property
    def iterations(self) -> int:
        """Planned iterations; the last one logged where the log does not name a plan."""
        return self.planned or self.last_iteration

    @property
    def interval(self) -> int:
        """Iterations from one line to the next."""
        steps = np.diff(self.records["iteration"])
        return int(max(np.median(steps), 1)) if len(steps) else 1

    @property
    def finished(self) -> bool:
        """Whether no further line was to come; True where the log names no plan."""
        return self.planned is None or self.last_iteration + self.interval > self.planned

    def curve(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """(iterations, values) of the lines in which this number is there and finite."""
        values = self.records[name]
        there = np.isfinite(values)
        return self.records["iteration"][there], values[there]

    def first(self, name: str) -> float:
        """The first finite value."""
        return float(self.curve(name)[1][0])

    def last(self, name: str) -> float:
        """The last finite value."""
        return float(self.curve(name)[1][-1])

    def drop_percent(self, name: str) -> float | None:
        """By how much of its first value this fell, in percent; negative where it rose, None from zero."""
        first = self.first(name)
        return 100 * (1 - self.last(name) / first) if first else None


def read_log(path: Path | str) -> TrainingRun:
    """Reads a log of xtuner/mmengine (text or scalars.json), Hugging Face (trainer_state.json) or DeepSpeed.

    A gzip file is unpacked on the way.
    Raises LabError when there is no such file, when it is empty, binary or of no known form, when no loss is in it, or
    when lines of different runs are mixed in it.
    """
    path = Path(path)
    if path.is_dir():
        logs = sorted(path.rglob("*.log"))
        hint = f"give the log itself, such as {logs[-1]}" if logs else "give the log itself; there is no *.log in it"
        raise LabError(f"{path} is a folder: {hint}.")
    try:
        with open(path, "rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rb") if packed else open(path, "rb") as file:
            return _read(path, file)
    except (gzip.BadGzipFile, zlib.error, EOFError):
        raise LabError(f"{path} begins like a gzip file but is damaged: unpack or copy it again.") from None
    except OSError as error:
        raise LabError(f"{path} cannot be read ({error.strerror or error}): give the path of a training log.") from None


def _read(path: Path, file: BinaryIO) -> TrainingRun:
    head = file.read(CHUNK)
    if not head.strip():
        raise LabError(f"{path} is empty: give the log of a training that has begun.")
    start = head[: 1 << 16]
    if len(start.translate(None, CONTROLS)) < 0.95 * len(start):
        raise LabError(f"{path} is a binary file, not a log: give the text log, scalars.json or trainer_state.json.")
    if head.lstrip()[:1] == b"{":
        return _read_json(path, file, head)
    log = TextLog()
    for chunk, whole in _whole_lines(path, file, head):
        log.read(chunk, whole=whole)
    log.messages.finish()
    mmengine = log.records.count > 0
    records = log.records if mmengine else log.steps
    planned = _single_total(path, log.totals) if mmengine else None
    return _finish(
        path,
        "mmengine text" if mmengine else "DeepSpeed text",
        records,
        planned=planned,
        validation=log.validation,
        messages=log.messages,
        torn=log.torn,
    )


def _whole_lines(path: Path, file: BinaryIO, head: bytes):
    """(chunk, whole) from a file whose first bytes are already read; carriage returns count as ends of lines."""
    carry, chunk = b"", head
    while chunk:
        if b"\r" in chunk:
            chunk = chunk.replace(b"\r", b"\n")
        lines, end, rest = chunk.rpartition(b"\n")
        if end:
            yield carry + lines + end, True
            carry = rest
        else:
            carry += rest
        if len(carry) > LONGEST:
            raise LabError(f"{path} has a line of more than {LONGEST >> 20} MB: that is not a training log.")
        chunk = file.read(CHUNK)
    if carry:
        yield carry, False


def _single_total(path: Path, totals: Counter[int]) -> int | None:
    """The total of iterations that the lines name. A stray damaged line is forgiven, a second run is not."""
    (total, lines), *others = totals.most_common() or [(None, 0)]
    for other, count in others:
        if count > 1 or lines == 1:
            raise LabError(
                f"{path} mixes lines of different runs ({total:,} iterations in {lines:,} lines, {other:,} in "
                f"{count:,}): give each run a file of its own."
            )
    return total


def _read_json(path: Path, file: BinaryIO, head: bytes) -> TrainingRun:
    """scalars.json, which has an object a line, or one object: trainer_state.json."""
    content = parse_json(head.lstrip().partition(b"\n")[0].rstrip(b"\r"))
    if isinstance(content, dict) and "log_history" not in content:
        scalars = Scalars()
        for chunk, _ in _whole_lines(path, file, head):
            scalars.read(chunk)
        validation, torn = scalars.validation, bool(scalars.broken)
        return _finish(path, "mmengine scalars.json", scalars.records, validation=validation, torn=torn)
    text = head + file.read(LARGEST_STATE - len(head) + 1)
    if len(text) > LARGEST_STATE:
        raise LabError(f"{path} is one JSON text of more than {LARGEST_STATE >> 20} MB: that is no trainer_state.json.")
    state = read_trainer_state(text)
    if state is None:
        raise LabError(
            f"{path} is JSON, but neither mmengine's scalars.json (an object a line) nor a trainer_state.json with a "
            "log_history: give one of these, or the text log."
        )
    records, validation, planned = state
    return _finish(path, "Hugging Face trainer_state.json", records, planned=planned, validation=validation)


def _finish(path: Path, form: str, records: Records, *, planned: int | None = None, **rest) -> TrainingRun:
    """Puts the lines of copies and restarts in order; LabError where there is no loss to speak of."""
    columns = records.to_columns()
    place = columns.get("iteration", np.empty(0))
    # a line stays if no later line has the same or a lower iteration: a restart does some of them again
    later = np.minimum.accumulate(place[::-1])[::-1]
    keep = np.append(place[:-1] < later[1:], True)[: len(place)]
    kept = {name: column[keep] for name, column in columns.items() if np.isfinite(column[keep]).any()}
    if not any(is_loss(name) for name in kept):
        lines = f"{records.count:,} training lines" if records.count else "no training lines"
        raise LabError(
            f"{path} has {lines} and no loss: give the log that xtuner/mmengine, Hugging Face or DeepSpeed wrote while "
            "training."
        )
    steps = np.diff(place)
    copies = _count_copies(place) if records.every == 1 else 1
    restarts = tuple(int(value) for value in place[1:][steps < 0])
    return TrainingRun(
        path=path,
        format=form,
        records=kept,
        planned=planned,
        restarts=restarts,
        copies=copies,
        lines=records.count,
        every=records.every,
        nonfinite=tuple(records.nonfinite),
        **rest,
    )


def _count_copies(place: np.ndarray) -> int:
    """How many times over most iterations are written directly after one another: one for each process."""
    borders = np.flatnonzero(np.append(True, np.diff(place) != 0))
    return int(np.median(np.diff(np.append(borders, len(place)))))
