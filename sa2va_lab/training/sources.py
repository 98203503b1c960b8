"""Which log and which config are meant: the ones named, or the demo's own."""

from __future__ import annotations

from pathlib import Path

from sa2va_lab.errors import LabError
from sa2va_lab.paths import find_given, find_root, real
from sa2va_lab.training.audit import Audit, audit
from sa2va_lab.training.config import read_config
from sa2va_lab.training.log import read_log

SEPARATOR = ";"
MEANT_RANKS = 4


def find_logs(named: str) -> list[Path]:
    """The logs that a notebook's parameter names, several of them with `;` between; "" is the demo's own log.

    A relative path is seen from the working directory, from where the command was started, and from the checkout.
    """
    if not named.strip():
        return [demo_log()]
    return [find_given(part.strip()) for part in named.split(SEPARATOR) if part.strip()]


def demo_log() -> Path:
    """The text log that the demo's fine-tune wrote; LabError where it was not shipped."""
    folder = find_root() / "data" / "demo"
    logs = sorted([*folder.glob("*.log"), *folder.glob("*/*.log")])
    if not logs:
        raise LabError(f"there is no training log of the demo in {folder}: give a log of your own (log=...).")
    return logs[0]


def audit_logs(
    logs: list[Path], *, config: Path | str | None = None, samples: int | None = None, ranks: int | None = None
) -> list[Audit]:
    """Reads and audits logs of one config.

    config: "" or None is the demo's own for the demo's log, and none otherwise. ranks: processes that were meant; None
    is one for the demo and four otherwise.
    """
    audits = []
    for path in logs:
        demo = is_demo_log(path)
        chosen = find_given(str(config)) if config else _demo_config(path) if demo else None
        meant = ranks if ranks is not None else 1 if demo else MEANT_RANKS
        made = read_config(chosen) if chosen else None
        audits.append(audit(read_log(path), config=made, samples=samples, ranks=meant))
    return audits


def is_demo_log(path: Path) -> bool:
    """Whether a log is the shipped one."""
    try:
        return real(find_root() / "data" / "demo") in real(path).parents
    except LabError:  # installed without a checkout: there is no demo
        return False


def _demo_config(log: Path) -> Path | None:
    return next((path for folder in log.parents[:2] for path in sorted(folder.glob("*.py"))), None)
