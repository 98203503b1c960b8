"""Numbers by name and logged line, gathered in pieces and kept within bounds however long the log is."""

from __future__ import annotations

import io

import numpy as np

LIMIT = 500_000  # lines kept; beyond it every second one goes, so that 5 GB of log fit into some 100 MB
MOST_NAMES = 200  # a log has twenty names or so; a damaged one may seem to have a new one in each line
MOST_NONFINITE = 100
LARGEST = 1e30  # what is beyond it counts as infinite; a square of it must not overflow
TOTAL = "loss"
MANY = 5_000  # numbers from which pandas' parser is worth its import


class Records:
    """A table that grows by pieces. `iteration` is always a column; a line that lacks a number has NaN there.

    count: lines taken in. every: 1, or 2, 4, 8 ... once lines were thinned out; the first and the last line stay.
    nonfinite: the first hundred (iteration, name) whose number was NaN or infinite, seen before any thinning.
    """

    def __init__(self, *, limit: int = LIMIT):
        self.limit, self.count, self.every = limit, 0, 1
        self.nonfinite: list[tuple[int, str]] = []
        self._pieces: list[dict[str, np.ndarray]] = []
        self._names: dict[str, None] = {"iteration": None}
        self._kept = 0
        self._last: dict[str, np.ndarray] = {}

    def add(self, shapes: list[tuple[tuple[str, ...], list[int] | slice, np.ndarray]]) -> None:
        """Takes in lines, sorted by which names they have: [(names, places, numbers (lines, names) float64)].

        names begins with "iteration". places say where each line stands among all lines of this call, from 0; a slice
        over everything is quicker where there is but one sort.
        """
        rows = sum(len(numbers) for _, _, numbers in shapes)
        if not rows:
            return
        piece: dict[str, np.ndarray] = {}
        for names, places, numbers in shapes:
            numbers = np.where(np.abs(numbers) > LARGEST, np.inf, numbers)
            for name, column in zip(names, numbers.T, strict=True):
                if name not in self._names:
                    if len(self._names) >= MOST_NAMES:
                        continue
                    self._names[name] = None
                if name not in piece:
                    piece[name] = np.full(rows, np.nan)
                piece[name][places] = column
            self._note_nonfinite(names, numbers)
        offset = -self.count % self.every
        self.count += rows
        # copies, for a view would keep the whole piece in memory
        self._last = {name: column[-1:].copy() for name, column in piece.items()}
        self._pieces.append({name: column[offset :: self.every].copy() for name, column in piece.items()})
        self._kept += len(self._pieces[-1]["iteration"])
        while self._kept > self.limit:
            self.every *= 2
            self._pieces = [{name: column[::2].copy() for name, column in _join(self._pieces, self._names).items()}]
            self._kept = len(self._pieces[0]["iteration"])

    def to_columns(self) -> dict[str, np.ndarray]:
        """Every name with its float64 column (lines,), in the order of the file."""
        last_is_missing = self.count and (self.count - 1) % self.every
        return _join([*self._pieces, self._last] if last_is_missing else self._pieces, self._names)

    def _note_nonfinite(self, names: tuple[str, ...], numbers: np.ndarray) -> None:
        if len(self.nonfinite) < MOST_NONFINITE and not np.isfinite(numbers).all():
            bad = np.argwhere(~np.isfinite(numbers))[: MOST_NONFINITE - len(self.nonfinite)]
            self.nonfinite += [(int(numbers[row, 0]), names[column]) for row, column in bad]


def is_loss(name: str) -> bool:
    """mmengine's own rule: whatever has "loss" in its name; a scale of losses is none."""
    return "loss" in name and "scale" not in name


def by_names(lines: list[dict[str, float]]) -> list[tuple[tuple[str, ...], list[int], np.ndarray]]:
    """Lines, each a dictionary of numbers with its "iteration", as `Records.add` takes them."""
    found: dict[tuple[str, ...], list[int]] = {}
    for place, line in enumerate(lines):
        found.setdefault(("iteration", *(name for name in line if name != "iteration")), []).append(place)
    return [
        (names, places, np.array([[lines[place][name] for name in names] for place in places], np.float64))
        for names, places in found.items()
    ]


def to_numbers(texts: list[tuple[bytes, ...]]) -> np.ndarray:
    """Equally long tuples of numbers as text, as float64 (lines, numbers). ValueError where one is not a number."""
    if len(texts) * len(texts[0]) < MANY:
        return np.array([[float(text) for text in row] for row in texts])
    import pandas as pd

    # four times as fast as float(); at worst the last of 53 bits differs, in a file that holds four decimals
    joined = io.BytesIO(b"\n".join(map(b" ".join, texts)))
    table = pd.read_csv(
        joined, sep=" ", header=None, keep_default_na=False, na_values=["nan", "-nan", "NaN"], quoting=3
    )
    numbers = table.to_numpy()
    if numbers.dtype == object or numbers.shape != (len(texts), len(texts[0])):
        raise ValueError("not all of it is numbers")
    return numbers.astype(np.float64)


def _join(pieces: list[dict[str, np.ndarray]], names: dict[str, None]) -> dict[str, np.ndarray]:
    lengths = [len(piece["iteration"]) for piece in pieces]
    return {
        name: np.concatenate([piece.get(name, np.full(n, np.nan)) for piece, n in zip(pieces, lengths, strict=True)])
        for name in names
        if pieces
    }
