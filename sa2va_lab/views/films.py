"""Overlays of a film's frames as one film: mp4 where PyAV is there, else an animated GIF."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import chain
from pathlib import Path

from PIL import Image

from sa2va_lab.files import open_image, write_whole

RATE = 15.0  # frames a second where the film says none
FASTEST = 60.0


def save_film(path: Path, pictures: Sequence[Path], *, rate: float | None) -> tuple[Path, str]:
    """Writes pictures (image files of one size, or nearly) as a film; its path, with the ending that fits, and why.

    rate: frames a second, as the film says. One picture is in memory, but for a GIF, of which Pillow holds all.
    """
    rate, buffer = min(rate or RATE, FASTEST), io.BytesIO()
    try:
        import av
    except ImportError:
        first, *rest = _read(pictures, even=False)
        first.save(buffer, "gif", save_all=True, append_images=rest, duration=round(1000 / rate), loop=0)
        reason = 'an animated GIF, since PyAV is not installed (pip install "sa2va_lab[films]")'
        return write_whole(path.with_name(f"{path.name}.gif"), buffer.getvalue()), reason
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream(codec, rate=Fraction(rate).limit_denominator(1000))
        shown = _read(pictures, even=True)
        first = next(shown)
        stream.width, stream.height, stream.pix_fmt = *first.size, "yuv420p"
        for picture in chain([first], shown):
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode())
    return write_whole(
        path.with_name(f"{path.name}.mp4"), buffer.getvalue()
    ), f"mp4 ({codec}), {rate:g} frames a second"


def _read(pictures: Sequence[Path], *, even: bool) -> Iterator[Image.Image]:
    """The pictures in RGB, each in the size of the first; even: sides that 2 divides, as mp4 has them."""
    size = None
    for path in pictures:
        with open_image(path) as opened:
            size = size or tuple(side + (side % 2 if even else 0) for side in opened.size)
            yield opened.convert("RGB").crop((0, 0, *size))
