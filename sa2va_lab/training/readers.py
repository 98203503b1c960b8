"""What stands in a log, line by line: mmengine's text, DeepSpeed's text, scalars.json and trainer_state.json.

Besides numbers: messages counted by kind, checkpoints saved, how the run was started. File names stay out of it:
Sa2VA's data loader writes the path of an image into its warnings, and paths hold names of patients.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

TOTAL = "loss"
NOT_METRICS = ("time", "data_time", "memory", "eta", "lr", "base_lr", "iter", "step", "epoch", "iteration")
BESIDE = ("val/", "eval_", "train_")  # numbers of a validation, or of a summary of the whole training
TIMINGS = ("_runtime", "_per_second")
_ITERATION = re.compile(r"(Iter|Epoch)\((train|val)\) *(?:\[ *(\d{1,6})\] *)?\[ *(\d{1,12})/(\d{1,12})\](.*)")
_NUMBER = r"[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d{1,3})?|nan|inf)"
_PAIR = re.compile(rf"([A-Za-z_][\w./@-]{{0,60}}+): +({_NUMBER})(?=\s|$)")
_DEEPSPEED = (
    re.compile(rf"step=(?P<iteration>\d{{1,12}}), skipped=(?P<skipped>\d{{1,12}}), lr=\[(?P<lr>{_NUMBER})"),
    re.compile(
        rf"steps: (?P<iteration>\d{{1,12}}) loss: +(?P<loss>{_NUMBER}) iter time \(s\): +(?P<time>{_NUMBER}) "
        rf"samples/sec: +(?P<samples_per_sec>{_NUMBER})"
    ),
)
_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")  # the codes that colour a terminal

KINDS = {
    "mask_text_length": r"mask length \(\d+\) != text length \(\d+\)",
    "skipped_weights": r"Skipped \d+ mismatched keys",
    "mismatched_state": r"The model and loaded state dict do not match exactly",
    "mask_error": r"ERROR processing mask",
    "mask_shape": r"Pred mask shape .* is not equal to gt_mask shape",
    "end_of_loader": r"Reach the end of the dataloader",
    "out_of_memory": r"CUDA out of memory|OutOfMemoryError",
    "overflow": r"OVERFLOW!|Gradient overflow",
    "too_long": r"Token indices sequence length is longer than",
    "deprecated": r"(?:will be|is) deprecated|is the alias of",
    "traceback": r"Traceback \(most recent call last\)",
}
_ANY_KIND = re.compile("|".join(f"(?P<{kind}>{pattern})" for kind, pattern in KINDS.items()))
_WARNING = re.compile(r"\bWARNING\b[ :-]+(.*)")
_PRIVATE = re.compile(r"""[\d/\\"'`(\[{<:=]|[^\x00-\x7f]|\b(?:image|images|img|file|path|for|of)\b|(?<=.)\b[A-Z]""")
_CHECKPOINT = re.compile(r"Saving checkpoint at (\d{1,12}) (iterations|epochs)")
_FACTS = {
    "launcher": re.compile(r"Distributed launcher: *(\w+)"),
    "distributed": re.compile(r"Distributed training: *(\w+)"),
    "processes": re.compile(r"GPU number: *(\d{1,6})"),
    "world_size": re.compile(r"\bworld_size *(?:\.{2,}|=|:) *(\d{1,6})"),
    "gpus": re.compile(r"^ +GPU (\d{1,3}(?:,\d{1,3})*: *[^\n]{1,80})"),
    "samples": re.compile(r"Num train samples:? *(\d{1,12})"),
    "skipped_weights": re.compile(r"Skipped (\d{1,12}) mismatched keys"),
}
_CONFIG = "- mmengine - INFO - Config:"
_STAMP = re.compile(r"(?:\d{4}/)?\d\d/\d\d \d\d:\d\d:\d\d - ")


class Messages:
    """Collects from lines.

    counts: kind -> how often (a key of KINDS, or "warning" for all others). others: the wording of other warnings, cut
    before anything private, -> how often. checkpoints: [(number, "iterations" | "epochs")]. facts: what of _FACTS was
    found first, as text. config: the text of the config that mmengine writes into its log, or None.
    """

    def __init__(self):
        self.counts: Counter[str] = Counter()
        self.others: Counter[str] = Counter()
        self.checkpoints: list[tuple[int, str]] = []
        self.facts: dict[str, str] = {}
        self.config: str | None = None
        self._images: set[int] = set()
        self._config: list[str] | None = None

    @property
    def images(self) -> int:
        """How many different images the warnings about masks and texts name."""
        return len(self._images)

    def read(self, line: str) -> None:
        """Takes in a line."""
        if self._config is not None and self.config is None:  # it follows its heading, until a line begins with a time
            if not _STAMP.match(line):
                self._config.append(line)
                return
            self.finish()
        elif self._config is None and _CONFIG in line:
            self._config = []
        if match := _ANY_KIND.search(line):
            self.counts[match.lastgroup] += 1
            _, named, image = line[match.end() :].partition(" for image ")
            if match.lastgroup == "mask_text_length" and named:
                self._images.add(hash(image.strip()))  # the hash alone is kept
        elif warning := _WARNING.search(line):
            private = _PRIVATE.search(warning[1])
            self.counts["warning"] += 1
            self.others[warning[1][: private.start() if private else 80].strip()[:80]] += 1
        if match := _CHECKPOINT.search(line):
            self.checkpoints.append((int(match[1]), match[2]))
        for name, pattern in _FACTS.items():
            if name not in self.facts and (match := pattern.search(line)):
                self.facts[name] = match[1]

    def finish(self) -> None:
        """To be called after the last line."""
        if self._config is not None and self.config is None:
            self.config = "".join(self._config)


@dataclass
class Content:
    """What was read of a log. rows: {name: number} of each training line, "iteration" among them, in the file's order.

    totals: {planned iterations: lines that name them}. validation: {metric: [(iteration, value)]}. torn: the last line
    was cut off in writing, and is left out. unread: training lines whose iteration or numbers cannot be read.
    """

    format: str
    rows: list[dict[str, float]] = field(default_factory=list)
    totals: Counter[int] = field(default_factory=Counter)
    validation: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    messages: Messages = field(default_factory=Messages)
    torn: bool = False
    unread: int = 0

    def add_metrics(self, iteration: int, numbers: dict[str, float]) -> None:
        """Notes the numbers of a validation, without its durations."""
        for name, value in numbers.items():
            if name.removeprefix("val/") not in NOT_METRICS and not name.endswith(TIMINGS):
                self.validation.setdefault(name, []).append((iteration, value))


def is_loss(name: str) -> bool:
    """mmengine's own rule: whatever has "loss" in its name; a scale of losses is none."""
    return "loss" in name and "scale" not in name


def read_text(lines: Iterable[str]) -> Content:
    """A text log, such as `Iter(train) [  10/12192]  lr: 2.0e-05  eta: 2 days, 16:41:05  time: 17.8  loss: 14.2`.

    DeepSpeed's own lines count only where none of mmengine's is there: both would count a step twice.
    """
    content, steps, before, last, line = Content("mmengine text"), {}, "", "", ""
    for line in lines:
        if "\x1b" in line:
            line = _ANSI.sub("", line)
        if "(train)" in line:
            before, last = last, line
            rows, unread = len(content.rows), content.unread
        if "(train)" in line or "(val)" in line:
            _read_iteration(line, content)
        else:
            content.messages.read(line)
            if "step" in line:
                _read_deepspeed(line, steps)
    content.messages.finish()
    if last and line is last and _is_torn(line, before):
        content.torn, content.unread = True, unread
        del content.rows[rows:]
    if steps and not content.rows:
        content.format, content.rows = "DeepSpeed text", list(steps.values())
    return content


def read_json(text: str) -> Content | None:
    """scalars.json, which has an object a line, or trainer_state.json, which is one; None for JSON that is neither."""
    state = _parse(text)
    if isinstance(state, dict) and isinstance(state.get("log_history"), list):
        content, entries = Content("Hugging Face trainer_state.json"), state["log_history"]
        planned = state.get("max_steps")
        if type(planned) is int and 0 < planned < 10**12:
            content.totals[planned] = len(entries)
    else:
        content, entries = Content("mmengine scalars.json"), [_parse(line) for line in text.splitlines() if line]
        if not any(isinstance(entry, dict) for entry in entries):
            return None
        content.torn = not isinstance(entries[-1], dict)
    place = 0
    for entry in entries[: len(entries) - content.torn]:
        numbers = _numbers(entry) if isinstance(entry, dict) else {}
        steps = [numbers.pop(name) for name in ("iter", "step", "global_step") if name in numbers]
        step = next((int(step) for step in steps if 0 < step < 1e12), None)
        place = step or place
        training = any(map(is_loss, numbers)) and not any(name.startswith(BESIDE) for name in numbers)
        if not isinstance(entry, dict) or (training and not step):
            content.unread += 1
        elif training:
            content.rows.append(numbers | {"iteration": step})
        elif "train_runtime" not in numbers:  # else it is the summary that Hugging Face writes at the end
            content.add_metrics(place, numbers)
    return content


def _read_iteration(line: str, content: Content) -> None:
    """A line of mmengine's, of training or of a validation, which counts at the training line before it."""
    match = _ITERATION.search(line)
    if match is None:
        content.unread += "(train)" in line
        return
    kind, phase, epoch, iteration, total, rest = match.groups()
    numbers = {name: float(text) for name, text in _PAIR.findall(rest) if name != "eta"}
    if phase == "val":
        content.add_metrics(int(content.rows[-1]["iteration"]) if content.rows else 0, numbers)
        return
    place = int(iteration)
    if kind == "Iter":
        content.totals[int(total)] += 1
    elif epoch:
        place += max(int(epoch) - 1, 0) * int(total)
    if numbers:
        content.rows.append(numbers | {"iteration": place})
    elif ": " in rest:
        content.unread += 1


def _is_torn(line: str, before: str) -> bool:
    """Whether a file's last training line was cut off: a whole one has the names of the one before it, down to the
    decimals of its last number."""
    if line.endswith("\n"):
        return False
    pair = [text.rstrip() for text in (before or line, line)]
    names = [[name for name, _ in _PAIR.findall(text.rpartition("(train)")[2])] for text in pair]
    decimals = [len(text.rpartition(".")[2]) for text in pair]
    return names[0] != names[1] or decimals[1] < decimals[0]


def _read_deepspeed(line: str, steps: dict[int, dict[str, float]]) -> None:
    for match in filter(None, (pattern.search(line) for pattern in _DEEPSPEED)):
        numbers = {name: float(text) for name, text in match.groupdict().items()}
        steps.setdefault(int(numbers["iteration"]), {}).update(numbers)


def _parse(text: str):
    """What a JSON text holds, None if it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _numbers(entry: dict) -> dict[str, float]:
    """What is a number in an entry, under mmengine's names; an integer of 400 digits is none."""
    return {
        "lr" if name == "learning_rate" else name.removeprefix("train/"): float(value)
        for name, value in entry.items()
        if isinstance(value, float) or (type(value) is int and abs(value) < 1e300)
    }
