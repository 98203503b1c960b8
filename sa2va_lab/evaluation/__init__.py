"""What a model predicted, kept on disk, and how good it is."""

from sa2va_lab.evaluation.metrics import evaluate_run, summarise
from sa2va_lab.evaluation.runs import Run, open_run, predict_dataset

__all__ = ["Run", "evaluate_run", "open_run", "predict_dataset", "summarise"]
