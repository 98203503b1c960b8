"""Runs: what a model predicted about a data set, on disk; made once and looked at many times."""

from sa2va_lab.runs.find import choose_run
from sa2va_lab.runs.read import LINES, LOGITS, META, Run, open_run
from sa2va_lab.runs.write import choose_samples, predict_dataset

__all__ = ["LINES", "LOGITS", "META", "Run", "choose_run", "choose_samples", "open_run", "predict_dataset"]
