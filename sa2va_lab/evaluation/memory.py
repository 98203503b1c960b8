"""What a process holds: anonymous memory and pages of mapped files.

Pages of libraries come in when their code runs for the first time. They are no model's, every process shares them, and
they are told apart.
"""

from __future__ import annotations

import re
import threading
from contextlib import suppress
from pathlib import Path

import psutil

STATUS, MAPS, REFS = (Path("/proc/self") / name for name in ("status", "smaps", "clear_refs"))
EVERY = 0.02  # seconds between two looks


class Watch(threading.Thread):
    """The highest anonymous and mapped bytes of this process between `start` and `stop`.

    The system keeps the highest sum itself, so that nothing short is missed; which of the two it was is looked at again
    and again.
    """

    def __init__(self):
        super().__init__(daemon=True)
        self.libraries, self.over = count_libraries(), threading.Event()
        with suppress(OSError):
            REFS.write_text("5")  # the highest sum is counted from now on (proc_pid_clear_refs(5))
        self.before = look()
        self.peak = self.top = self.before

    def run(self) -> None:
        """Looks again and again."""
        while not self.over.wait(EVERY):
            self.note()

    def note(self) -> None:
        """Looks once."""
        now = look()
        self.peak = tuple(map(max, self.peak, now))
        self.top = max(self.top, now, key=sum)  # the two need not be highest at one time

    def stop(self) -> dict:
        """Bytes above the beginning: anonymous_bytes, mapped_bytes, peak_bytes (of both together), all without
        libraries_bytes; and before_bytes. None where /proc does not tell."""
        self.over.set()
        self.join()
        self.note()
        libraries = count_libraries() - self.libraries
        anonymous, mapped = (high - low for high, low in zip(self.peak, self.before, strict=True))
        highest = max(sum(self.top), read_status().get("VmHWM", 0)) - sum(self.before)
        anonymous = max(anonymous, highest - mapped)  # mapped pages hardly ever leave, so they were there at that time
        names = {"anonymous_bytes": anonymous, "mapped_bytes": mapped - libraries, "libraries_bytes": libraries}
        names |= {"peak_bytes": highest - libraries, "before_bytes": sum(self.before)}
        return names if sum(self.before) else dict.fromkeys(names)


def look() -> tuple[int, int]:
    """Anonymous and mapped bytes now; zeros where /proc does not tell."""
    held = read_status()
    return held.get("RssAnon", 0), held.get("RssFile", 0)


def read_status() -> dict[str, int]:
    """{"RssAnon", "RssFile", "VmHWM" (the highest sum), ...} in bytes; empty where /proc does not tell."""
    lines = STATUS.read_text().splitlines() if STATUS.exists() else ()
    parts = (line.partition(":") for line in lines)
    return {name: int(rest.split()[0]) << 10 for name, _, rest in parts if rest.endswith("kB")}


def count_libraries() -> int:
    """Bytes of mapped pages that hold code or constants of libraries, not weights; 0 where /proc does not tell."""
    maps = psutil.Process().memory_maps() if MAPS.exists() else ()
    return sum(part.rss for part in maps if re.search(r"\.so(\.|$)", part.path))
