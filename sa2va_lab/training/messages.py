"""What a log says besides numbers: messages counted by kind, checkpoints saved, how the run was started.

File names stay out of it: Sa2VA's data loader writes the path of an image into its warnings, and paths hold names of
patients.
"""

from __future__ import annotations

import re
from collections import Counter

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
            if match.lastgroup == "mask_text_length":
                self._note_image(line[match.end() :])
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

    def _note_image(self, rest: str) -> None:
        _, named, image = rest.partition(" for image ")
        if named:
            self._images.add(hash(image.strip()))  # the hash alone is kept
