"""The seal of a finished Run: digests by which any later edit is named.

Whoever edits a Run can make its seal again, so a seal tells an accident or a careless hand from a Run that is as it was
finished; that a model said what stands there is shown by predicting again (`evaluation.verification`).
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from sa2va_lab.files import hash_value, write_json
from sa2va_lab.runs.read import LINES, META, Run

WHOLE = "whole"


def seal_run(folder: Path, meta: dict) -> None:
    """Writes run.json for the last time, with digests of itself and of the lines, which hold those of the logits."""
    write_json(folder / META, meta | {"seal": _digest(folder, meta)})


def read_digest(run: Run) -> str:
    """What the whole Run is now, sealed or not; of finished, untouched ones it is what the seal says."""
    return _digest(run.folder, run.meta)[WHOLE]


def list_edits(run: Run) -> list[str] | None:
    """Files that are not as they were when the Run was finished; None where it has no seal to tell by. Logits are held
    against their lines when they are read."""
    if not run.meta.get("seal"):
        return None
    now = _digest(run.folder, run.meta)
    return [name for name in (META, LINES) if run.meta["seal"].get(name) != now[name]]


def _digest(folder: Path, meta: dict) -> dict[str, str]:
    told = {name: value for name, value in meta.items() if name != "seal"}
    lines = (folder / LINES).read_bytes() if (folder / LINES).is_file() else b""
    found = {META: hash_value(told), LINES: hashlib.sha256(lines).hexdigest()}
    return found | {WHOLE: hashlib.sha256("".join(found.values()).encode()).hexdigest()}
