"""Texts that are looked up by a key made at run time; all others stand in English where they are used."""

from __future__ import annotations

from sa2va_lab.language import tr
from sa2va_lab.reports import answers
from sa2va_lab.reports.answers import say_size  # noqa: F401

TEXTS: dict[str, str] = {
    "what": "What",
    "value": "Value",
    "model": "Model",
    "device": "Device",
    "precision_row": "Number format",
    "data": "Images",
    "phrase": "Looked for",
    "prompt": "Prompt",
    "split": "Split",
    "training": "In training?",
    "rasteriser": "Masks from polygons by",
    "macro": "Mean of images",
    "interval": "95 % interval",
    "pooled": "All pixels pooled",
    "n_images": "N images",
    "n_groups": "N patients",
    "group_column": "Patient",
    "mask_area": "Mask, px",
    "seconds": "Seconds",
    "code": "code",
    "parameters": "Parameters given",
    "curve_yes": "yes",
}


def say(key: str, **values) -> str:
    """The text called `key` in the current language, its places filled with `values`."""
    return tr(TEXTS[key], **values)


def say_sample(summary: dict) -> str:
    """How many images of how many patients."""
    return answers.say_sample(summary["n_images"], summary["n_groups"])
