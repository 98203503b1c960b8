"""sha256 of every byte of a file, kept beside its size and times, so that 16 GB are read once."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

SMALL = 64 << 20  # bytes; what is quickly read is not worth a line in the cache


def digest_file(path: Path) -> str:
    """sha256 of every byte; from the cache, where path, size, inode and times are those of the last reading.

    Files of up to 64 MB are read each time. The cache is digests.json in $XDG_CACHE_HOME/sa2va_lab (~/.cache if not
    set); one that cannot be read or written is as none.
    """
    about = path.stat()
    key = f"{path.resolve()}\0{about.st_size}\0{about.st_ino}\0{about.st_mtime_ns}\0{about.st_ctime_ns}"
    known = _read_cache()
    if isinstance(kept := known.get(key), str):
        return kept
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if about.st_size > SMALL:
        _write_cache(_read_cache() | {key: digest})
    return digest


def digest_files(paths: Iterable[Path]) -> str:
    """sha256 over the names and contents of several files, in order of their names."""
    told = "".join(f"{path.name}\0{digest_file(path)}\0" for path in sorted(paths))
    return hashlib.sha256(told.encode()).hexdigest()


def _place() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sa2va_lab" / "digests.json"


def _read_cache() -> dict:
    try:
        found = json.loads(_place().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write_cache(known: dict) -> None:
    place = _place()
    draft = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(known, indent=1), encoding="utf-8")
        draft.replace(place)
    except OSError:
        with suppress(OSError):
            draft.unlink()
