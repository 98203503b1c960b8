"""Films, in whatever they lie: a folder of frames, an animated or many-paged picture, a video, a DICOM.

One frame is decoded at a time, so a film may be longer than memory. A frame that cannot be decoded is a defect that
says which, and the film goes on. Nothing but pixels is taken along: no text, tag or name of a file.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from sa2va_lab import files
from sa2va_lab.datasets.defects import Defect
from sa2va_lab.datasets.folders import Folder
from sa2va_lab.datasets.pseudonyms import ALONE, name_images, natural
from sa2va_lab.errors import LabError

MOST_FRAMES = 100_000  # an hour of a video; what says that it holds more was made to keep a reader busy
EXTRA = 'reading {what} needs {name}, which is not installed: pip install "sa2va_lab[{extra}]"'


class Frame(NamedTuple):
    """id: the film's name and the frame's number, such as cine-F012. image: a PIL image, or uint8 (H, W) or (H, W, 3),
    None where it cannot be decoded; error: why. file: which holds it, alone or with the others. video: what the film
    is called in lines about it."""

    id: str
    image: Image.Image | np.ndarray | None
    error: str | None
    file: Path
    video: str


@dataclass(frozen=True)
class Film:
    """What `open_film` found. Each iteration decodes the frames anew, one after the other.

    reason: what was recognised, without file names. rate: frames a second, None where nothing says it. files: one, or
    one a frame. name: what results are called, and shown: what the film is called in lines about it; both may be its
    file's. defects: what is wrong with the film, and with the frames that were decoded so far.
    """

    path: Path = field(repr=False)
    reason: str
    count: int
    files: tuple[Path, ...] = field(repr=False)
    decode: Callable[[], Iterator] = field(repr=False)  # an image or an exception for each frame
    rate: float | None = None
    defects: list[Defect] = field(default_factory=list)
    name: str = field(default="", repr=False)
    shown: str = field(default="", repr=False)

    def __len__(self) -> int:
        return self.count

    def places(self) -> list[Frame]:
        """The frames without their images: nothing is decoded."""
        files = self.files if len(self.files) > 1 else self.files * self.count
        return [Frame(f"{self.name}-F{n:03d}", None, None, file, self.shown) for n, file in enumerate(files, 1)]

    def __iter__(self) -> Iterator[Frame]:
        decoded = self.decode()
        for number, place in enumerate(self.places(), 1):
            try:
                image = next(decoded, EOFError("the file ends before it"))
            except Exception as error:  # of the file as a whole; the frames after it are told by the line above
                image = error
            if not isinstance(image, Exception):
                yield place._replace(image=image)
                continue
            said = str(image) if isinstance(image, LabError | EOFError) else type(image).__name__
            defect = Defect("unreadable_image", f"frame {number} of {self.count} cannot be read ({said})")
            if defect not in self.defects:  # it may be iterated again
                self.defects.append(defect)
            yield place._replace(error=defect.text)


def open_film(path: Path | str) -> Film:
    """Recognises what is at `path`, by its content where that says it; decodes no frame.

    path: a folder whose images are the frames, in natural order (F2 before F10); a GIF, TIFF, WebP or PNG of several
    pictures; mp4, mov, avi, mkv (needs PyAV); a DICOM (needs pydicom), whose window is applied.
    Raises LabError for anything else, more than MOST_FRAMES frames or files.MOST_PIXELS pixels, and what is missing.
    """
    path = Path(path)
    if path.is_dir():
        film = _open_folder(path)
    elif not path.is_file():
        raise LabError(f"{path} does not exist; expected a film: a folder of frames, a GIF, TIFF, video or DICOM")
    elif files.is_dicom(path):
        try:
            from sa2va_lab.datasets.dicom import open_dicom
        except ImportError:
            raise LabError(EXTRA.format(what="a DICOM", name="pydicom", extra="dicom")) from None
        film = open_dicom(path)
    elif path.suffix.lower() in files.VIDEOS:
        film = _open_video(path)
    else:
        film = _open_pages(path)
    if not 0 < film.count <= MOST_FRAMES:
        raise LabError(f"{path} says that it holds {film.count:,} frames; expected 1 to {MOST_FRAMES:,}: cut the film")
    return replace(film, name=path.stem, shown=str(path))


def open_films(paths: Sequence[Path], *, hidden: bool) -> list[Film]:
    """Films whose results are called by their names, or `hidden` by pseudonyms like those of a data set's sequences
    (P07-V1), which the key file beside the films keeps. LabError as `open_film`."""
    films = [open_film(path) for path in paths]
    if not hidden:
        return films
    names = {}
    for root in {path.parent for path in paths}:
        places = {path.name: (ALONE + path.name, "") for path in paths if path.parent == root}
        found, _ = name_images(root, places, stated=False)
        names |= {root / name: pseudonym.sequence for name, pseudonym in found.items()}
    return [replace(film, name=names[film.path], shown=names[film.path]) for film in films]


def _open_folder(path: Path) -> Film:
    folder = Folder(path)
    if folder.masks or folder.annotation_files() or folder.images != path:
        raise LabError(f"{path} is a data set, no film: leave out --out and use --run NAME (and --track)")
    if deeper := {os.path.dirname(name) for name in folder.listed} - {""}:
        raise LabError(f"{path} holds images in {len(deeper)} folders; expected one film: give one folder of frames")
    frames = tuple(Path(folder.listed[name]) for name in sorted(folder.listed, key=natural))
    if not frames:
        said = folder.words.removesuffix(", ") or "no image in it"
        raise LabError(f"{path} is no folder of frames ({said}); give a folder of images, or one film's file")

    def decode() -> Iterator:
        for frame in frames:
            yield from _turn_pages(frame, 1)

    reason = f"a folder of {len(frames)} frames, in natural order of their names"
    beside = f", {folder.words}".removesuffix(", ")
    return Film(path, reason + beside, len(frames), frames, decode)


def _open_pages(path: Path) -> Film:
    count = files.count_frames(path)
    try:
        with files.open_image(path) as opened:
            form, lasts = opened.format, opened.info.get("duration")
    except Exception as error:  # Pillow raises many kinds for a damaged file
        raise LabError(f"{path} is no film that can be read ({error}); expected a GIF, TIFF, video or DICOM") from None
    if count == 1:
        raise LabError(f"{path} holds one picture and is no film: predict it as an image, or give its folder")
    rate = 1000 / lasts if isinstance(lasts, int | float) and lasts > 0 else None
    return Film(path, f"{form} of {count} pictures", count, (path,), lambda: _turn_pages(path, count), rate)


def _turn_pages(path: Path, count: int) -> Iterator:
    """Each of `count` pictures of an image's file, upright, or the exception that it raises."""
    try:
        with files.open_image(path) as opened:
            for number in range(count):
                try:
                    with warnings.catch_warnings(action="ignore"):  # a truncated EXIF and the like: the pixels decide
                        opened.seek(number)
                        if opened.width * opened.height > files.MOST_PIXELS:
                            raise LabError(f"more than {files.MOST_PIXELS:,} pixels")
                        image = ImageOps.exif_transpose(opened)
                    yield image
                except Exception as error:  # Pillow raises many kinds for a damaged file
                    yield error
    except Exception as error:
        yield error


def refuse_large(path: Path, pixels: int) -> None:
    """LabError for frames of more pixels than files.MOST_PIXELS."""
    if pixels > files.MOST_PIXELS:
        raise LabError(f"{path} has {pixels:,} pixels a frame, more than {files.MOST_PIXELS:,}; make it smaller")


def _open_video(path: Path) -> Film:
    try:
        with _open_container(path) as container:
            stream = container.streams.video[0]
            pixels, rate = stream.width * stream.height, stream.average_rate
            # a packet is a frame, and says when it is shown; what a broken one held is known by the gap it leaves
            packets = [_time(packet) for packet in container.demux(stream) if packet.size]
            count, form = max(stream.frames, len(packets)), stream.codec_context.name
    except ImportError:
        raise LabError(EXTRA.format(what="a video", name="PyAV", extra="films")) from None
    except Exception as error:  # PyAV raises many kinds for a damaged file
        raise LabError(f"{path} is no video that can be read ({type(error).__name__}); export it again") from None
    refuse_large(path, pixels)
    places = {time: place for place, time in enumerate(sorted(packets))}
    reason = f"{path.suffix.lower()[1:]} video ({form}) of {count} frames"
    return Film(path, reason, count, (path,), lambda: _decode_video(path, places), rate and float(rate))


@contextmanager
def _open_container(path: Path) -> Iterator:
    import av

    how = {"format": files.VIDEOS[path.suffix.lower()], "metadata_errors": "replace"}
    with open(path, "rb") as handle, av.open(handle, **how) as container:
        yield container


def _decode_video(path: Path, places: dict[int, int]) -> Iterator:
    reached, damaged = 0, False
    with _open_container(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.options = {"max_pixels": str(files.MOST_PIXELS)}  # of each frame, whatever the head says
        for packet in container.demux(stream):
            try:
                decoded = packet.decode()
            except Exception:  # PyAV raises many kinds for a damaged packet
                decoded, damaged = [], True
            for frame in decoded:
                place = places.get(_time(frame), reached)
                # what follows a loss is made from it, up to the next frame that stands for itself
                damaged = frame.is_corrupt or packet.is_corrupt or (damaged and not frame.key_frame)
                for _ in range(reached, place):
                    yield LabError("its data are damaged")
                if place >= reached:
                    made_from = LabError("its data are damaged, or those of a frame that it was made from")
                    yield made_from if damaged else frame.to_ndarray(format="rgb24")
                reached = max(reached, place + 1)


def _time(packet_or_frame) -> int:
    return packet_or_frame.pts if packet_or_frame.pts is not None else packet_or_frame.dts
