"""What a log says besides numbers: messages counted by kind, checkpoints saved, how the run was started.

File names stay out of it: Sa2VA's data loader writes the path of an image into its warnings, and paths hold names of
patients.
"""

from __future__ import annotations

import re
from collections import Counter

# kind: (words, one of which is in every such line and quickly found; the pattern)
KINDS = {
    "mask_text_length": ((b"mask length",), rb"mask length \(\d+\) != text length \(\d+\)[^\n]*"),
    "skipped_weights": ((b"mismatched keys",), rb"Skipped (\d+) mismatched keys"),
    "mismatched_state": ((b"do not match exactly",), rb"The model and loaded state dict do not match exactly"),
    "mask_error": ((b"ERROR processing mask",), rb"ERROR processing mask"),
    "mask_shape": ((b"Pred mask shape",), rb"Pred mask shape [^\n]* is not equal to gt_mask shape"),
    "end_of_loader": ((b"Reach the end",), rb"Reach the end of the dataloader"),
    "out_of_memory": ((b"out of memory", b"OutOfMemory"), rb"CUDA out of memory|OutOfMemoryError"),
    "overflow": ((b"OVERFLOW!", b"Gradient overflow"), rb"OVERFLOW!|Gradient overflow"),
    "too_long": ((b"Token indices",), rb"Token indices sequence length is longer than"),
    "deprecated": ((b"deprecated", b"is the alias"), rb"(?:will be|is) deprecated|is the alias of"),
    "traceback": ((b"Traceback (most",), rb"Traceback \(most recent call last\)"),
}
_KINDS = {kind: (words, re.compile(pattern)) for kind, (words, pattern) in KINDS.items()}
_WARNING = re.compile(rb"\bWARNING\b[ :-]+([^\n]*)")
_PRIVATE = re.compile(rb"""[\d/\\"'`(\[{<:=]|[^\x00-\x7f]|\b(?:image|images|img|file|path|for|of)\b|(?<=.)\b[A-Z]""")
_CHECKPOINT = re.compile(rb"Saving checkpoint at (\d{1,12}) (iterations|epochs)")
_FACTS = {
    "launcher": (b"Distributed launcher:", re.compile(rb"Distributed launcher: *(\w+)")),
    "distributed": (b"Distributed training:", re.compile(rb"Distributed training: *(\w+)")),
    "processes": (b"GPU number:", re.compile(rb"GPU number: *(\d{1,6})")),
    "world_size": (b"world_size", re.compile(rb"\bworld_size *(?:\.{2,}|=|:) *(\d{1,6})")),
    "gpus": (b"  GPU ", re.compile(rb"^ +GPU (\d{1,3}(?:,\d{1,3})*): *([^\n]{1,80})", re.M)),
    "samples": (b"Num train samples", re.compile(rb"Num train samples:? *(\d{1,12})")),
}
_CONFIG = re.compile(rb"- mmengine - INFO - Config:\s*\n")
_STAMP = re.compile(rb"^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d - |^\d\d/\d\d \d\d:\d\d:\d\d - ", re.M)
MOST_DISTINCT = 100_000
MOST_CONFIG = 2_000_000  # bytes


class Messages:
    """Collects from chunks of whole lines.

    counts: kind -> how often (a key of KINDS, or "warning" for all others). images: how many different images the
    mask/text warnings were about. others: the wording of other warnings, cut before anything private, -> how often.
    checkpoints: [(number, "iterations" | "epochs")]. facts: what of _FACTS was found, as text. config: the text of the
    config that mmengine writes into its log, or None.
    """

    def __init__(self):
        self.counts: Counter[str] = Counter()
        self.others: Counter[str] = Counter()
        self.checkpoints: list[tuple[int, str]] = []
        self.facts: dict[str, str] = {}
        self.config: str | None = None
        self._images: set[int] = set()
        self._config: bytes | None = None

    @property
    def images(self) -> int:
        return len(self._images)

    def read(self, chunk: bytes) -> None:
        """Takes in a chunk that ends at the end of a line."""
        for kind, (words, pattern) in _KINDS.items():
            if any(word in chunk for word in words):
                self._count(kind, pattern, chunk)
        if b"WARNING" in chunk:
            for match in _WARNING.finditer(chunk):
                if not any(pattern.search(match[1]) for _, pattern in _KINDS.values()):
                    self._count_other(match[1])
        if b"Saving checkpoint at" in chunk and len(self.checkpoints) < MOST_DISTINCT:
            self.checkpoints += [(int(number), unit.decode()) for number, unit in _CHECKPOINT.findall(chunk)]
        self._find_facts(chunk)
        self._find_config(chunk)

    def finish(self) -> None:
        """To be called after the last chunk."""
        if self._config is not None:
            self.config = self._config.decode("utf-8", "replace")

    def _count(self, kind: str, pattern: re.Pattern, chunk: bytes) -> None:
        for match in pattern.finditer(chunk):
            self.counts[kind] += 1
            if kind == "mask_text_length" and len(self._images) < MOST_DISTINCT:
                _, found, image = match[0].partition(b" for image ")
                if found:
                    self._images.add(hash(image.strip()))
            if kind == "skipped_weights":
                self.facts["skipped_weights"] = match[1].decode()

    def _count_other(self, text: bytes) -> None:
        self.counts["warning"] += 1
        private = _PRIVATE.search(text)
        words = text[: private.start() if private else 80].decode("ascii", "replace").strip()
        if len(self.others) < 200 or words in self.others:
            self.others[words[:80]] += 1

    def _find_facts(self, chunk: bytes) -> None:
        for name, (word, pattern) in _FACTS.items():
            if name not in self.facts and word in chunk and (match := pattern.search(chunk)):
                self.facts[name] = b"|".join(match.groups()).decode("ascii", "replace")

    def _find_config(self, chunk: bytes) -> None:
        """The config follows its heading line by line, until the next line that begins with a time."""
        if self.config is not None:
            return
        if self._config is None:
            heading = _CONFIG.search(chunk) if b"Config:" in chunk else None
            if not heading:
                return
            self._config, chunk = b"", chunk[heading.end() :]
        end = _STAMP.search(chunk)
        self._config += chunk[: end.start() if end else MOST_CONFIG]
        if end or len(self._config) >= MOST_CONFIG:
            self.finish()
