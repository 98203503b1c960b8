"""Text logs, a chunk of whole lines at a time: mmengine's training and validation lines, and DeepSpeed's.

A training line is `Iter(train) [  10/12192]  lr: 2.0e-05  eta: 2 days, 16:41:05  time: 17.8  ...  loss: 14.2  ...` with
any names in any order. Most lines of a log have the same names, so the form of a line is learned as a pattern and the
next lines are held against it, which is several times faster than taking each one apart.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter

import numpy as np

from sa2va_lab.training.messages import Messages
from sa2va_lab.training.records import Records, by_names, to_numbers

# possessive quantifiers (++) never try a shorter match, which makes half the speed of reading
_TRAIN_HEAD = rb"Iter\(train\) *+\[ *+(\d{1,12})/(\d{1,12})\] *+"
_TRAIN = re.compile(_TRAIN_HEAD + rb"([^\n]*)")
_EPOCH = re.compile(rb"Epoch\(train\) *\[ *(\d{1,6})\] *\[ *(\d{1,6})/(\d{1,6})\] *([^\n]*)")
_VALIDATION = re.compile(rb"(?:Iter|Epoch)\(val\) *(?:\[ *\d{1,6}\] *)?\[ *(\d{1,9})/(\d{1,9})\] *([^\n]*)")
_NAME = rb"[A-Za-z_][\w./@-]{0,60}"
_PAIR = re.compile(rb"(" + _NAME + rb"): +([^\s:]+(?: [^\s:]+){0,2}(?::\d+){0,3})(?= +" + _NAME + rb": | *$)")
_NUMBER = re.compile(rb"[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d{1,3})?|nan|inf)")
_DEEPSPEED = [
    (re.compile(rb"step=(\d{1,12}), skipped=(\d{1,12}), lr=\[([\d.eE+-]+)"), ("iteration", "skipped", "lr")),
    (
        re.compile(rb"steps: (\d{1,12}) loss: +(\S+) iter time \(s\): +(\S+) samples/sec: +(\S+)"),
        ("iteration", "loss", "time", "samples_per_sec"),
    ),
]
_ANSI = re.compile(rb"\x1b\[[0-9;?]*[ -/]*[@-~]")
MOST_FORMS = 8
MOST_VALIDATIONS = 100_000
NOT_METRICS = ("time", "data_time", "memory", "eta", "lr", "base_lr", "iter", "step", "epoch", "iteration")


class TextLog:
    """Collects from chunks of whole lines; what it found stands in its attributes.

    records: mmengine's training lines. steps: DeepSpeed's own lines, for logs without any of mmengine's. messages: see
    `messages.Messages`. totals: {total of iterations: lines that named it}. validation: {metric: [(iteration, value)]}.
    torn: whether the last line was cut off in writing, and was left out. unread: training lines without a number.
    """

    def __init__(self):
        self.records, self.steps, self.messages = Records(), Records(), Messages()
        self.totals: Counter[int] = Counter()
        self.validation: dict[str, list[tuple[int, float]]] = {}
        self.torn, self.unread = False, 0
        self._forms: list[tuple[tuple[str, ...], re.Pattern]] = []
        self._place, self._mould = 0, b""

    def read(self, chunk: bytes, *, whole: bool = True) -> None:
        """Takes in a chunk. whole: its last line is finished, which only the end of a file may lack."""
        if b"\x1b" in chunk:
            chunk = _ANSI.sub(b"", chunk)
        if whole:
            self._mould = _last_training_line(chunk) or self._mould
        else:
            chunk = self._cut_torn(chunk)
        if chunk.count(b"Iter(train)") < chunk.count(b"\n"):  # something besides training lines
            self.messages.read(chunk)
        if b"(val)" not in chunk and self._read_uniform(chunk):
            return
        starts, rows = self._find_training(chunk)
        if b"(val)" in chunk:
            self._read_validation(chunk, starts, rows)
        if rows:
            self._place = int(rows[-1][0])
            self.records.add(self._take_apart(rows))
        elif not self.records.count and (b"step=" in chunk or b"steps: " in chunk):
            self._read_deepspeed(chunk)

    def _read_uniform(self, chunk: bytes) -> bool:
        """The quick way for a chunk in which all training lines have one form; False if they have not."""
        lines = chunk.count(b"Iter(train)")
        if lines and not self._forms:
            self._learn(_TRAIN.search(chunk)[3] if _TRAIN.search(chunk) else b"")
        if not lines or not self._forms:
            return False
        names, form = self._forms[0]
        found = re.findall(_TRAIN_HEAD + form.pattern + rb"$", chunk, re.M)
        if len(found) != lines:
            return False
        try:
            numbers = to_numbers(found)
        except ValueError:
            return False
        for total, count in zip(*np.unique(numbers[:, 1], return_counts=True), strict=True):
            self.totals[int(total)] += int(count)
        self._place = int(numbers[-1, 0])
        self.records.add([(("iteration", *names), slice(None), np.delete(numbers, 1, axis=1))])
        return True

    def _find_training(self, chunk: bytes) -> tuple[list[int], list[tuple[bytes, bytes]]]:
        """Where training lines start, and (iteration, the rest of the line) of each."""
        starts, rows = [], []
        if b"Iter(train)" in chunk:
            totals: Counter[bytes] = Counter()
            for match in _TRAIN.finditer(chunk):
                iteration, total, rest = match.groups()
                totals[total] += 1
                starts.append(match.start())
                rows.append((iteration, rest))
            for total, count in totals.items():
                self.totals[int(total)] += count
        elif b"Epoch(train)" in chunk:
            for match in _EPOCH.finditer(chunk):
                epoch, iteration, length = map(int, match.groups()[:3])
                starts.append(match.start())
                rows.append((b"%d" % (max(epoch - 1, 0) * length + iteration), match[4]))
        return starts, rows

    def _take_apart(self, rows: list[tuple[bytes, bytes]]) -> list[tuple[tuple[str, ...], list[int], np.ndarray]]:
        """Lines as `Records.add` takes them."""
        found: dict[tuple[str, ...], list[tuple[bytes, ...]]] = {}
        places: dict[tuple[str, ...], list[int]] = {}
        place = 0
        for iteration, rest in rows:
            for form in self._forms:
                if match := form[1].fullmatch(rest):
                    names, texts = form[0], match.groups()
                    break
            else:
                names, texts = self._learn(rest)
            if not names:
                self.unread += 1
                continue
            if names not in found:
                found[names], places[names] = [], []
            found[names].append((iteration, *texts))
            places[names].append(place)
            place += 1
        try:
            return [(("iteration", *names), places[names], to_numbers(found[names])) for names in found]
        except ValueError:  # damaged: lines in which every number is one are kept
            good = [row for row in rows if all(_NUMBER.fullmatch(text) for text in self._texts(row[1]))]
            self.unread += len(rows) - len(good)
            return self._take_apart(good) if len(good) < len(rows) else []

    def _texts(self, rest: bytes) -> tuple[bytes, ...]:
        """What the known forms take for the numbers of a line."""
        return next((match.groups() for _, form in self._forms if (match := form.fullmatch(rest))), ())

    def _learn(self, rest: bytes) -> tuple[tuple[str, ...], tuple[bytes, ...]]:
        """(names, texts) of the numbers in a line; the line's form is kept for the lines to come."""
        numbers, parts = {}, []
        for name, text in _PAIR.findall(rest):
            number = _NUMBER.fullmatch(text)
            parts.append(re.escape(name) + (rb": ++(\S++)" if number else rb": ++[^:\n]+(?::\d+)*"))
            if number:
                numbers[name.decode()] = text
        form = re.compile(rb" ++".join(parts) + rb" *+")
        if form.groups == len(numbers) > 0 and form.fullmatch(rest):
            self._forms = [(tuple(numbers), form), *self._forms[: MOST_FORMS - 1]]
        return tuple(numbers), tuple(numbers.values())

    def _cut_torn(self, chunk: bytes) -> bytes:
        """The chunk without its last line, if that is a training line that was cut off in the middle.

        It is whole if it has the form of the line before it, down to the decimals of its last number.
        """
        before, _, last = chunk.rstrip(b" ").rpartition(b"\n")
        if b"Iter(train)" not in last and b"Epoch(train)" not in last:
            return chunk
        mould = _last_training_line(before) or self._mould or last
        names = [[name for name, _ in _PAIR.findall(line.rpartition(b"(train)")[2])] for line in (mould, last)]
        decimals = [len(line.rpartition(b".")[2]) for line in (mould, last)]
        self.torn = names[0] != names[1] or decimals[1] < decimals[0]
        return before if self.torn else chunk

    def _read_validation(self, chunk: bytes, starts: list[int], rows: list[tuple[bytes, bytes]]) -> None:
        """Metrics after a validation, at the iteration of the training line before it."""
        for match in _VALIDATION.finditer(chunk):
            before = bisect_left(starts, match.start())
            iteration = int(rows[before - 1][0]) if before else self._place
            for name, text in _PAIR.findall(match[3]):
                name = name.decode()
                if name not in NOT_METRICS and _NUMBER.fullmatch(text):
                    values = self.validation.setdefault(name, [])
                    if len(values) < MOST_VALIDATIONS:
                        values.append((iteration, float(text)))

    def _read_deepspeed(self, chunk: bytes) -> None:
        lines: dict[int, dict[str, float]] = {}
        for pattern, names in _DEEPSPEED:
            for match in pattern.finditer(chunk):
                if all(_NUMBER.fullmatch(text) for text in match.groups()):
                    numbers = dict(zip(names, map(float, match.groups()), strict=True))
                    lines.setdefault(int(numbers["iteration"]), {}).update(numbers)
        self.steps.add(by_names(list(lines.values())))


def _last_training_line(chunk: bytes) -> bytes:
    """The last training line of a chunk, b"" if it has none."""
    start = chunk.rfind(b"(train)")
    return chunk[start:].partition(b"\n")[0].rstrip() if start >= 0 else b""
