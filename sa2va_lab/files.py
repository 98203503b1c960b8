"""Files, read and written in one way each: a file is there whole or not at all, and it is the file that was meant."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import math
import os
import re
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, UnidentifiedImageError
from pydantic import ValidationError

from sa2va_lab.errors import LabError

PART = ".part"  # the ending of what is being written; a kill leaves it, a new start removes it
JSON_LIMIT = 512 << 20  # bytes
# what is larger is refused: a picture becomes some forty times as many bytes. Whoever has the memory sets another limit
MOST_PIXELS = int(os.environ.get("SA2VA_LAB_MOST_PIXELS") or 50_000_000)
# FFmpeg's reader by ending: left to guess, it would also take a playlist, which names other files and addresses
VIDEOS = {".mp4": "mov", ".m4v": "mov", ".mov": "mov", ".avi": "avi", ".mkv": "matroska", ".webm": "matroska"}
DICOMS = frozenset({".dcm", ".dicom"})
Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS or 0, MOST_PIXELS)
DEEPEST = 100  # lists and tables within each other; what is deeper was made to break a reader
SETTLED = 2_000_000_000  # nanoseconds after which a file is no longer being written


def write_whole(path: Path | str, content: bytes | str, *, mode: int = 0o666) -> Path:
    """Writes a file so that a reader sees the old one or the new one, never a half; returns its path.

    mode: its permissions, less what the umask takes away. The draft has a name that nobody can foresee and is
    created anew (O_EXCL), so no link is followed.
    Raises OSError, with nothing changed, where the folder cannot be written to.
    """
    path = Path(path)
    # what is no text in a name is written as JSON and YAML do
    data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    draft = path.with_name(f".{path.name[:80]}.{secrets.token_hex(4)}{PART}")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(draft, path)
        _flush_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise
    return path


def _flush_folder(folder: Path) -> None:
    """Without it the new name may be lost in a power cut, while what was written after it is there."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path | str, value, *, mode: int = 0o666) -> Path:
    """`write_whole` of a value as JSON; see `plain` for what JSON has no word for."""
    return write_whole(path, json.dumps(plain(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n", mode=mode)


def read_json(path: Path | str, *, limit: int = JSON_LIMIT, encodings: Counter[str] | None = None) -> object:
    """What a JSON file holds; NaN, which Python alone would write, is None. LabError as `read_as` says.

    encodings: read what is not UTF-8 as well (see `decode`), and count here which it was."""

    def parse(content: bytes) -> object:
        text, encoding = (content.decode("utf-8-sig"), "") if encodings is None else decode(content)
        value = json.loads(text, parse_constant=lambda name: None)
        if encodings is not None:
            encodings[encoding] += 1
        return value

    return read_as("JSON", path, parse, limit=limit)


def read_as(form: str, path: Path | str, parse: Callable[[bytes], object], *, limit: int) -> object:
    """What `parse` makes of a file's bytes; a ValueError is its word for what is not of this form.

    LabError for a file that is missing, no regular file, larger than `limit` bytes, not of the form, or nested beyond
    DEEPEST.
    """
    path = Path(path)
    try:
        if not path.is_file():  # reading from a pipe would wait for ever
            raise LabError(f"{path} is not a file; expected {form}")
        if path.stat().st_size > limit:
            raise LabError(f"{path} has {path.stat().st_size:,} bytes; expected at most {limit:,} of {form}")
        content = parse(path.read_bytes())
        if _is_deep(content):
            raise ValueError(f"nested more than {DEEPEST} deep")
    except OSError as error:
        raise LabError(f"{path} cannot be read ({error.strerror}); restore the file or its permissions") from None
    except (ValueError, RecursionError) as error:  # broken, not UTF-8, or nested without end
        raise LabError(f"{path} is not {form} ({error}); write it again") from None
    return content


def tell_fault(error: Exception) -> str:
    """What is wrong, of a pydantic ValidationError with the place of the first fault."""
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(step)[:40] for step in first["loc"])
    return f"{place}: {first['msg']}" if place else first["msg"]


def _is_deep(content: object) -> bool:
    level = [[content]]
    for _ in range(DEEPEST + 1):
        inner = [outer.values() if type(outer) is dict else outer for outer in level]
        level = [item for items in inner for item in items if type(item) is list or type(item) is dict]
        if len(level) > 1 << 16:  # YAML may repeat one, and that another
            level = list({id(item): item for item in level}.values())
    return bool(level)


def decode(content: bytes) -> tuple[str, str]:
    """Text in whatever encoding programs write on people's machines, and which it was; ValueError where in none.

    UTF-8 and UTF-16 are known for sure. Of the others a byte says little: it is GB18030 unless its letters beyond ASCII
    stand singly or in the middle of words, as those of a European language do.
    """
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return content.decode("utf-16"), "UTF-16"
    with contextlib.suppress(UnicodeDecodeError):
        return content.decode("utf-8-sig"), "UTF-8"
    western = content.decode("cp1252", "replace")
    runs = re.findall(r"([a-z]?)([^\x00-\x7f]+)", western)
    europe = all(run.isalpha() and (before or len(run) == 1) for before, run in runs)
    if not europe:
        with contextlib.suppress(UnicodeDecodeError):
            return content.decode("gb18030"), "GB18030"
    return content.decode("cp1252"), "cp1252"


@contextmanager
def open_image(path: Path | str) -> Iterator[Image.Image]:
    """Pillow's image of a regular file; OSError for anything else and for more than MOST_PIXELS, ValueError or
    SyntaxError for damaged ones.

    Opened without its name: of a named file Pillow maps uncompressed pixels into memory, and then turns a TIFF wrongly.
    """
    if not Path(path).is_file():  # reading from a pipe would wait for ever
        raise FileNotFoundError("there is no regular file")
    try:
        with open(path, "rb") as handle, Image.open(handle) as image:
            if image.width * image.height > MOST_PIXELS:
                size = f"{image.width}x{image.height}"
                raise OSError(
                    f"{size} pixels, more than {MOST_PIXELS:,}; make it smaller, or set SA2VA_LAB_MOST_PIXELS"
                )
            yield image
    except UnidentifiedImageError:
        raise UnidentifiedImageError("it is of no known image format") from None


def find_film(path: Path | str) -> str:
    """What a regular file is where it is a film and no image, such as "a video", "a DICOM"; "" otherwise."""
    path = Path(path)
    if path.suffix.lower() in VIDEOS and path.is_file():
        return "a video"
    if is_dicom(path):
        return "a DICOM"
    return f"a file of {frames} pictures" if (frames := count_frames(path)) > 1 else ""


def is_dicom(path: Path) -> bool:
    """Whether a regular file is a DICOM: by its content or, where that lacks the usual beginning, by its name."""
    if not path.is_file():
        return False
    with open(path, "rb") as handle:
        return handle.read(132)[128:] == b"DICM" or path.suffix.lower() in DICOMS


def count_frames(path: Path | str) -> int:
    """How many pictures an image's file holds, by its headers; 1 where it cannot be read, which is told elsewhere.

    The second picture in a telephone's JPEG (MPO) is its preview."""
    try:
        with open_image(path) as image:
            return 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    except Exception:  # Pillow raises many kinds for a damaged file
        return 1


def sha256(path: Path | str) -> str:
    """Hash of a file's bytes, as hexadecimal digits; OSError where it cannot be read.

    A file that did not change since it was read for this is not read again. What was written within the last seconds
    is: it may change once more within the clock's grain.
    """
    facts = os.stat(path)
    changed = max(facts.st_mtime_ns, facts.st_ctime_ns)
    read = _sha256 if time.time_ns() - changed > SETTLED else _sha256.__wrapped__
    return read(os.path.abspath(path), facts.st_dev, facts.st_ino, facts.st_size, changed)


def hash_if_readable(path: Path) -> str | None:
    """`sha256` of a regular file's bytes as they are now; None where they cannot be read."""
    try:
        return sha256(path) if path.is_file() else None
    except OSError:
        return None


@functools.lru_cache(maxsize=1 << 16)
def _sha256(path: str, *state: int) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def hash_value(value) -> str:
    """Hash of a value as JSON, whatever the order of its keys; see `plain`."""
    return hashlib.sha256(json.dumps(plain(value), sort_keys=True).encode()).hexdigest()


def hash_splits(splits: Mapping[str, Iterable[str]]) -> str:
    """Hash of which images are in which split; the order of either is none of it."""
    return hash_value({name: sorted(ids) for name, ids in splits.items()})


def plain(value):
    """The same as values that JSON has: NaN and infinities become None, paths text, numpy numbers numbers."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item"):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
