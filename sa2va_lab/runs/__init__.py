"""Runs: what a model predicted about a data set, on disk; made once and looked at many times."""

from sa2va_lab.runs.find import choose_run, find_beside, find_runs, walk_runs
from sa2va_lab.runs.read import LINES, LOGITS, META, Maker, Run, open_run
from sa2va_lab.runs.write import check_request, choose_samples, predict_dataset

__all__ = [
    "LINES",
    "LOGITS",
    "META",
    "Maker",
    "Run",
    "check_request",
    "choose_run",
    "choose_samples",
    "find_beside",
    "find_runs",
    "open_run",
    "predict_dataset",
    "walk_runs",
]
