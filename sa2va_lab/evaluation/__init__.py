"""How good what was predicted is."""

from sa2va_lab.evaluation.metrics import evaluate_run, summarise

__all__ = ["evaluate_run", "summarise"]
