"""What a model answered about one image: mask logits, the answer's text, what it cost."""

from __future__ import annotations

import functools
import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sa2va_lab.errors import LabError
from sa2va_lab.shown import Shown

AT_ONCE = 16  # masks in memory at the image's size: an answer may name hundreds
LARGEST = 256 << 20  # bytes of logits; 512 masks of 256 x 256 have half of it


@dataclass(frozen=True, repr=False)
class Prediction(Shown):
    """The answer to one (image, prompt).

    logits: float32 (n_seg, g, g), the model's mask grid (g = 256 for released Sa2VA); n_seg may be 0, which is a
        result ("the model named nothing"), not a failure.
    size: (height, width) of the image in pixels, as a person sees it (EXIF orientation applied); (0, 0) without one.
    answer: the decoded text, `[SEG]` tokens included.
    canvas: side of the square that SAM2 looked at (1024 for released Sa2VA); masks go through it on the way up.
    seconds: wall time by stage. peak_bytes: accelerator memory at its highest, None where there is none to measure.
    thumbnail: the image made small, uint8 (h, w, 3), to show it by; stamp: what belongs on any picture. Neither is
        kept in a file.
    error: why there is no prediction, for a frame of a film that could not be read; whoever asks for its masks gets
        this as a LabError, for it is not one that shows nothing.
    """

    logits: np.ndarray
    size: tuple[int, int]
    answer: str
    canvas: int = 1024
    seconds: dict[str, float] = field(default_factory=dict)
    peak_bytes: int | None = None
    thumbnail: np.ndarray | None = field(default=None, compare=False)
    stamp: str | None = field(default=None, compare=False)
    error: str | None = None

    def __post_init__(self):
        if self.logits.ndim != 3 or self.logits.dtype != np.float32:
            raise ValueError(f"logits are {self.logits.dtype} {self.logits.shape}; expected float32 (n_seg, g, g)")

    @property
    def n_seg(self) -> int:
        """How many masks the answer named."""
        return len(self.logits)

    @property
    def facts(self) -> dict[str, str]:
        """See `Shown`; the share of the image is that of the mask grid, which needs no resizing."""
        facts, share = {"Answer": self.answer or "–", "Masks": "none"}, (self.logits.max(axis=0, initial=-1) > 0).mean()
        if self.error:
            facts["Masks"] = "not known: the frame cannot be read"
        elif self.n_seg:
            facts["Masks"] = f"{self.n_seg}, {share:.1%} of the image"
        facts["Image"] = "{} x {} pixels".format(*self.size[::-1]) if all(self.size) else "none"
        if self.seconds:
            stages = ", ".join(f"{stage} {spent:.2f}" for stage, spent in self.seconds.items())
            facts["Seconds"] = f"{sum(self.seconds.values()):.2f} ({stages})"
        facts |= {"GPU memory": f"{self.peak_bytes / (1 << 30):.2f} GiB at most"} if self.peak_bytes else {}
        return facts | ({"Note": self.stamp} if self.stamp else {})

    def full_logits(self, which: slice = slice(None)) -> np.ndarray:
        """Logits at the image's own resolution, float32 (n_seg, H, W), or of some of the [SEG].

        Up in two bilinear steps, grid -> canvas -> image, as the official code does; a single step moves
        about one mask pixel in two hundred.
        """
        self._refuse_lost()
        if not self.n_seg:
            return np.zeros((0, *self.size), np.float32)
        import torch

        up = torch.from_numpy(np.ascontiguousarray(self.logits[which]))[None]
        for step in ((self.canvas, self.canvas), tuple(self.size)):
            up = torch.nn.functional.interpolate(up, size=step, mode="bilinear", align_corners=False)
        return up[0].numpy()

    def probability(self, merge: str | int = "union") -> np.ndarray:
        """Probability of belonging to the thing asked for, float32 (H, W) in [0, 1].

        merge: "union" takes the largest over all [SEG]; an index takes that [SEG] alone. No [SEG]: zeros.
        """
        if merge != "union" and not isinstance(merge, int):
            raise LabError(f'merge is {merge!r}; expected "union" or the index of one [SEG]')
        self._refuse_lost()
        if not self.n_seg:
            return np.zeros(self.size, np.float32)
        if isinstance(merge, int) and not -self.n_seg <= merge < self.n_seg:
            raise LabError(f"[SEG] number {merge} was asked for, but the answer has {self.n_seg} of them")
        places = range(0, self.n_seg, AT_ONCE) if merge == "union" else [merge % self.n_seg]
        stop = AT_ONCE if merge == "union" else 1
        chosen = functools.reduce(np.maximum, (self.full_logits(slice(n, n + stop)).max(axis=0) for n in places))
        from scipy.special import expit

        return expit(chosen).astype(np.float32)

    def mask(self, threshold: float = 0.5, merge: str | int = "union") -> np.ndarray:
        """bool (H, W): probability strictly above the threshold (0.5 is logit > 0, the official mask)."""
        if not 0 <= threshold <= 1:
            raise LabError(f"threshold is {threshold}; expected a probability between 0 and 1")
        return self.probability(merge) > float(threshold)  # a numpy float64 would compare in double precision

    def to_bytes(self) -> bytes:
        """The .npz form: `logits`, `size`, `canvas`. The same prediction always gives the same bytes."""
        self._refuse_lost()
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer, logits=self.logits, size=np.asarray(self.size, np.int64), canvas=np.int64(self.canvas)
        )
        return buffer.getvalue()

    def _refuse_lost(self) -> None:
        if self.error:
            raise LabError(self.error)

    @classmethod
    def from_npz(cls, source: Path | io.BytesIO, *, answer: str = "", **rest) -> Prediction:
        """Reads what `to_bytes` wrote; raises LabError for a file that is not that."""
        try:
            with np.load(source, allow_pickle=False) as arrays:
                if sum(entry.file_size for entry in arrays.zip.infolist()) > LARGEST:
                    raise ValueError(f"more than {LARGEST:,} bytes")
                logits, size, canvas = arrays["logits"], arrays["size"], arrays["canvas"]
        except Exception as error:  # zipfile, zlib and numpy each raise their own kinds for a damaged file
            raise LabError(f"{source} is not a prediction file ({error}); delete it and run the prediction again")
        if not np.isfinite(logits).all():  # a mask of NaN would look like "nothing found"
            raise ValueError("its logits hold values that are not finite")
        return cls(logits, (int(size[0]), int(size[1])), answer, canvas=int(canvas), **rest)
