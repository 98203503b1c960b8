"""What a process holds: anonymous memory, pages of mapped files, and which of those are weights."""

from __future__ import annotations

import threading
from pathlib import Path

STATUS = Path("/proc/self/status")
EVERY = 0.02  # seconds between two looks


class Watch(threading.Thread):
    """The highest anonymous and mapped bytes of this process between `start` and `stop`."""

    def __init__(self):
        super().__init__(daemon=True)
        self.before, self.over = look(), threading.Event()
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
        """Bytes above the beginning: anonymous_bytes, mapped_bytes, peak_bytes (of both together), and before_bytes;
        None where /proc does not tell."""
        self.over.set()
        self.join()
        self.note()
        anonymous, mapped = (high - low for high, low in zip(self.peak, self.before, strict=True))
        names = {"anonymous_bytes": anonymous, "mapped_bytes": mapped, "peak_bytes": sum(self.top) - sum(self.before)}
        return names | {"before_bytes": sum(self.before)} if sum(self.before) else dict.fromkeys(names)


def look() -> tuple[int, int]:
    """Anonymous and mapped bytes now; zeros where /proc does not tell."""
    lines = STATUS.read_text().splitlines() if STATUS.exists() else ()
    held = {name: int(rest.split()[0]) << 10 for name, _, rest in (x.partition(":") for x in lines) if "Rss" in name}
    return held.get("RssAnon", 0), held.get("RssFile", 0)
