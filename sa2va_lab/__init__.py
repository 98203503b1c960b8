"""sa2va_lab: run a Sa2VA checkpoint on the hardware at hand, and find out honestly how good it is."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from sa2va_lab.errors import LabError

if TYPE_CHECKING:
    from sa2va_lab.datasets.formats import open_dataset
    from sa2va_lab.evaluation.verification import verify_run as verify
    from sa2va_lab.loading.inventory import read_inventory as inspect
    from sa2va_lab.loading.load import load
    from sa2va_lab.loading.plan import plan
    from sa2va_lab.runs import open_run

__version__ = "0.1.0"
__all__ = ["LabError", "inspect", "load", "open_dataset", "open_run", "plan", "verify"]

_HOMES = {  # torch comes when it is needed, not with the import
    "inspect": ("sa2va_lab.loading.inventory", "read_inventory"),
    "load": ("sa2va_lab.loading.load", "load"),
    "open_dataset": ("sa2va_lab.datasets.formats", "open_dataset"),
    "open_run": ("sa2va_lab.runs", "open_run"),
    "plan": ("sa2va_lab.loading.plan", "plan"),
    "verify": ("sa2va_lab.evaluation.verification", "verify_run"),
}


def __getattr__(name: str):
    if name in _HOMES:
        module, function = _HOMES[name]
        return getattr(importlib.import_module(module), function)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
