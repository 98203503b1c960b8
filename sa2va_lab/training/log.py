"""Opening a training log, whichever of the usual forms it has, as a TrainingRun; and the course of its curves: smoothed
with its spread, where it fell, where it stood still, where it jumped.

Rules, so that two people get the same answer: the smoothed curve is the mean over a window of 1/50 of all lines (at
least 5). A curve falls if it ends lower by more than twice its usual spread. The fast fall ends where 90 % of the whole
fall is done. The plateau begins after the last new low that was lower than the one before by 1 % of the whole fall or
more. A spike comes after the fast fall, and stands above the median of the 51 lines around it by more than ten times
their median deviation, by half of it, and by 10 % of the whole fall.
"""

from __future__ import annotations

import gzip
import io
import math
import zlib
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
from scipy.ndimage import median_filter

from sa2va_lab.errors import LabError
from sa2va_lab.files import read_as
from sa2va_lab.training.readers import TOTAL, Content, Messages, is_loss, read_json, read_text

WINDOW_SHARE, LEAST_WINDOW = 50, 5
FAST_SHARE = 0.9
STEP_SHARE = 0.01
SPIKE_LINES, SPIKE_DEVIATIONS, SPIKE_SHARE, SPIKE_SHARE_OF_FALL = 51, 10, 0.5, 0.1
LEAST_LINES = 10  # fewer lines have no course
LIMIT = 512 << 20  # bytes, unpacked; 12,192 iterations make 0.3 MB
LONGEST = 16 << 20  # characters of one line; what is longer is no log
CONTROLS = bytes({*range(9), *range(14, 27), *range(28, 32)})  # what no text has; not the escape of colours
UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # how a file begins that PowerShell wrote with >
MOST_NAMES = 200  # a log has twenty names or so; a damaged one may seem to have a new one in each line
MOST_NONFINITE = 100
LARGEST = 1e30  # what is beyond it counts as infinite; a square of it must not overflow


@dataclass(frozen=True)
class TrainingRun:
    """What a log says of one training run.

    records: {name: float64 (lines,)}, "iteration" among them and rising; NaN where a line lacks the number; lines
    that a restart took back are gone. planned: iterations asked for, None where the log does not say. restarts:
    iterations at which it was taken up again. copies: how many processes wrote each line into this file. validation:
    {metric: [(iteration, value)]}. lines: training lines read. nonfinite: (iteration, name) of the first hundred
    numbers that were NaN or infinite. torn: the last line was cut off. unread: training lines that could not be read.
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
    nonfinite: tuple[tuple[int, str], ...] = ()
    torn: bool = False
    unread: int = 0

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

    A gzip file is unpacked on the way; UTF-8 and UTF-16 are read.
    Raises LabError when there is no such file, when it is empty, too large, binary or of no known form, when no loss
    is in it, or when lines of different runs are mixed in it.
    """
    if Path(path).is_dir():
        logs = sorted(Path(path).rglob("*.log"))
        hint = f"give the log itself, such as {logs[-1]}" if logs else "give the log itself; there is no *.log in it"
        raise LabError(f"{path} is a folder: {hint}.")
    return read_as("a training log", path, lambda content: _read(Path(path), content), limit=LIMIT)


def _read(path: Path, content: bytes) -> TrainingRun:
    """A ValueError is its word for what is no log."""
    if content.startswith(b"\x1f\x8b"):
        try:
            with gzip.open(io.BytesIO(content)) as file:
                content = file.read(LIMIT + 1)
        except (OSError, zlib.error, EOFError):
            raise ValueError("it begins like a gzip file but is damaged") from None
    head, wide = content[: 1 << 16], content.startswith(UTF_16)
    if not wide and len(head.translate(None, CONTROLS)) < 0.95 * len(head):
        raise ValueError("it is a binary file")
    if not content.strip() or len(content) > LIMIT:
        raise ValueError(f"it is empty, or has more than {LIMIT >> 20} MB of text")
    text = content.decode("utf-16" if wide else "utf-8-sig", "replace")
    lines = list(io.StringIO(text, newline=None))  # whatever their ends: a progress bar's carriage return is one too
    if max(map(len, lines)) > LONGEST:
        raise ValueError(f"it has a line of more than {LONGEST >> 20} MB")
    if not text.lstrip().startswith("{"):
        return _to_run(path, read_text(lines))
    if made := read_json("".join(lines)):
        return _to_run(path, made)
    raise ValueError(
        "it is JSON, but neither mmengine's scalars.json (an object a line) nor a trainer_state.json with a log_history"
    )


def _to_run(path: Path, content: Content) -> TrainingRun:
    """Puts the lines of copies and restarts in order; LabError where there is no loss to speak of."""
    columns = _to_columns(content.rows)
    place = columns["iteration"]
    # a line stays if no later line has the same or a lower iteration: a restart does some of them again
    later = np.minimum.accumulate(place[::-1])[::-1]
    keep = np.append(place[:-1] < later[1:], True)[: len(place)]
    kept = {name: column[keep] for name, column in columns.items() if np.isfinite(column[keep]).any()}
    if not any(map(is_loss, kept)):
        raise LabError(f"{path} {_say_missing(content, [name for name in columns if is_loss(name)])}")
    borders = np.flatnonzero(np.append(True, np.diff(place) != 0))
    named = ((row["iteration"], name, value) for row in content.rows for name, value in row.items())
    nonfinite = ((int(place), name) for place, name, value in named if not abs(value) <= LARGEST)
    return TrainingRun(
        path=path,
        records=kept,
        planned=_single_total(path, content.totals),
        restarts=tuple(int(value) for value in place[1:][np.diff(place) < 0]),
        # most iterations are written so many times directly after one another: once by each process
        copies=int(np.median(np.diff(np.append(borders, len(place))))),
        lines=len(content.rows),
        nonfinite=tuple(islice(nonfinite, MOST_NONFINITE)),
        **{name: getattr(content, name) for name in ("format", "validation", "messages", "torn", "unread")},
    )


def _to_columns(rows: list[dict[str, float]]) -> dict[str, np.ndarray]:
    """{name: float64 (lines,)}, "iteration" first; NaN where a line lacks the number."""
    names = dict.fromkeys(["iteration", *(name for row in rows for name in row)])
    columns = {name: np.array([row.get(name, math.nan) for row in rows]) for name in islice(names, MOST_NAMES)}
    return {name: np.where(np.abs(column) > LARGEST, np.inf, column) for name, column in columns.items()}


def _say_missing(content: Content, losses: list[str]) -> str:
    """What a log without any usable loss has instead."""
    if losses:
        return (
            f"has {len(content.rows):,} training lines, and {', '.join(losses)} are NaN or infinite on all of them, "
            f"from iteration {int(content.rows[0]['iteration']):,} on: the training broke before its first line, so "
            "look at the learning rate, the precision and the loaded weights."
        )
    unread = f", and {content.unread:,} that cannot be read" if content.unread else ""
    return (
        f"has {len(content.rows):,} training lines{unread}, and no loss: give the log that xtuner/mmengine, Hugging "
        "Face or DeepSpeed wrote in training."
    )


def _single_total(path: Path, totals: Counter[int]) -> int | None:
    """The total of iterations that the lines name. A stray damaged line is forgiven, a second run is not."""
    (total, lines), *others = totals.most_common() or [(None, 0)]
    for other, count in others:
        if count > 1 or lines == 1:
            raise LabError(
                f"{path} mixes lines of different runs ({total:,} iterations in {lines:,} lines, {other:,} in "
                f"{count:,}): give each run a file of its own."
            )
    return total or None


@dataclass(frozen=True)
class Course:
    """A curve's course. iterations, mean, spread: (lines,), the spread as one standard deviation within the window.

    lowest: (iteration, smoothed value). fast_until: where the fast fall ends, None where nothing fell. plateau_from:
    the iteration after which nothing improved, None where it improved to the end. spikes: [(iteration, value)].
    """

    iterations: np.ndarray
    mean: np.ndarray
    spread: np.ndarray
    window: int
    lowest: tuple[int, float]
    fast_until: int | None
    plateau_from: int | None
    spikes: list[tuple[int, float]]


def follow(iterations: np.ndarray, values: np.ndarray) -> Course:
    """The course of a curve of finite values (lines,), at least one."""
    window = min(max(LEAST_WINDOW, len(values) // WINDOW_SHARE), len(values))
    mean, spread = smooth(values, window)
    lows = np.minimum.accumulate(mean)
    fall = mean[0] - lows[-1]
    fast, plateau = None, None
    if len(values) >= LEAST_LINES and fall > 2 * np.median(spread):
        fast = int(iterations[np.argmax(lows <= mean[0] - FAST_SHARE * fall)])
        last = _last_step(lows, STEP_SHARE * fall)
        # within one window of the end nobody can tell
        plateau = int(iterations[last]) if last < len(values) - 1 - window else None
    best = int(np.argmin(mean))
    spikes = _find_spikes(iterations, values, least=max(SPIKE_SHARE_OF_FALL * fall, 1e-3))
    spikes = [spike for spike in spikes if fast is None or spike[0] > fast]
    return Course(iterations, mean, spread, window, (int(iterations[best]), float(mean[best])), fast, plateau, spikes)


def smooth(values: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation over a window around each value; at the ends the window is what there is of it."""
    import pandas as pd

    around = pd.Series(values).rolling(window // 2 * 2 + 1, center=True, min_periods=1)
    return around.mean().to_numpy(), around.std(ddof=0).to_numpy()


def _last_step(lows: np.ndarray, step: float) -> int:
    """Where a falling curve last went below its former level by `step` or more."""
    last, level = 0, lows[0]
    changes = np.flatnonzero(np.diff(lows) < 0) + 1
    for place in changes:
        if lows[place] <= level - step:
            last, level = int(place), lows[place]
    return last


def _find_spikes(iterations: np.ndarray, values: np.ndarray, *, least: float) -> list[tuple[int, float]]:
    if len(values) < LEAST_LINES:
        return []
    middle = median_filter(values, SPIKE_LINES, mode="nearest")
    distance = values - middle
    usual = 1.4826 * median_filter(np.abs(distance), SPIKE_LINES, mode="nearest")
    high = (distance > SPIKE_DEVIATIONS * usual) & (distance > SPIKE_SHARE * np.abs(middle)) & (distance > least)
    return [(int(iterations[place]), float(values[place])) for place in np.flatnonzero(high)]
