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
    parts = [find_given(part.strip()) for part in named.split(SEPARATOR) if part.strip()]
    if not parts and not (parts := sorted((find_root() / "data" / "demo").glob("*.log"))[:1]):
        raise LabError("there is no training log of the demo in data/demo: give a log of your own (log=...).")
    return parts


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
        beside = next((file for folder in path.parents[:2] for file in sorted(folder.glob("*.py"))), None)
        chosen = find_given(str(config)) if config else beside if demo else None
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
