"""The form in which a Sa2VA fine-tune leaves xtuner: a .pth with what was trained, and two logs.

Nothing here trains. The .pth is a pickle on purpose: its form is what users have.
"""

from __future__ import annotations

import datetime
import json
import sys
import types
from collections import OrderedDict, deque
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

DECODER = "grounding_encoder.sam2_model.sam_mask_decoder."
SMOOTHED = 10  # iterations that one logged figure is the mean of


class TrainingLog:
    """Writes what mmengine's LoggerHook writes: a text log and `vis_data/scalars.json`, a line every `interval`.

    Losses are logged with their weights and averaged over the last ten iterations, as mmengine does.
    """

    def __init__(self, folder: Path, *, name: str, iterations: int, interval: int = 10):
        self.text, self.scalars = folder / f"{name}.log", folder / "vis_data" / "scalars.json"
        self.iterations, self.interval = iterations, interval
        self.recent: dict[str, deque] = {}
        self.history: dict[str, list[float]] = {}
        self.scalars.parent.mkdir(parents=True, exist_ok=True)
        for path in (self.text, self.scalars):
            path.write_text("")
        self.say(f"Exp name: {name}")

    def say(self, text: str) -> None:
        """A line of the text log."""
        with open(self.text, "a", encoding="utf-8") as file:
            file.write(f"{datetime.datetime.now():%Y/%m/%d %H:%M:%S} - mmengine - INFO - {text}\n")

    def note(self, iteration: int, *, lr: float, seconds: float, data_seconds: float, losses: dict[str, float]) -> None:
        """Takes the figures of one iteration, counted from 1, and writes a line when its turn has come."""
        figures = {"lr": lr, "time": seconds, "data_time": data_seconds, **losses}
        for key, value in figures.items():
            self.recent.setdefault(key, deque(maxlen=SMOOTHED)).append(value)
            self.history.setdefault(f"train/{key}", []).append(value)
        if iteration % self.interval:
            return
        means = {key: float(np.mean(values)) for key, values in self.recent.items()} | {"lr": lr}
        left = datetime.timedelta(seconds=int(np.mean(self.history["train/time"]) * (self.iterations - iteration)))
        place = f"[{iteration:>{len(str(self.iterations))}}/{self.iterations}]"
        figures = "  ".join(f"{key}: {means[key]:.4f}" for key in ("time", "data_time", *losses))
        self.say(f"Iter(train) {place}  lr: {lr:.4e}  eta: {left}  {figures}")
        with open(self.scalars, "a", encoding="utf-8") as file:
            file.write(json.dumps(means | {"iter": iteration, "step": iteration}) + "\n")


def write_checkpoint(
    path: Path, *, trained: dict[str, Tensor], log: TrainingLog, config: str, iteration: int, epoch: int
) -> Path:
    """`iter_*.pth` as mmengine saves it: state_dict, meta, message_hub, with mmengine's own classes by name."""
    content = {
        "meta": {
            "epoch": epoch,
            "iter": iteration,
            "cfg": config,
            "seed": 0,
            "experiment_name": log.text.stem,
            "time": f"{datetime.datetime.now():%Y%m%d_%H%M%S}",
            "mmengine_version": "0.10.7",
        },
        "state_dict": OrderedDict((name, tensor.detach().clone().contiguous()) for name, tensor in trained.items()),
        "message_hub": {
            "log_scalars": OrderedDict((key, _as_history_buffer(values)) for key, values in log.history.items()),
            "runtime_info": OrderedDict(iter=iteration, epoch=epoch, max_iters=log.iterations),
            "resumed_keys": {},
        },
    }
    draft = path.with_name(f".{path.name}.part")
    torch.save(content, draft)
    draft.replace(path)
    return path


def _as_history_buffer(values: list[float]):
    """mmengine's HistoryBuffer as a pickle names it, without mmengine: a class of that name in a module so called."""
    name = "mmengine.logging.history_buffer"
    if name not in sys.modules:
        for parent in ("mmengine", "mmengine.logging", name):
            sys.modules.setdefault(parent, types.ModuleType(parent))
        kind = type("HistoryBuffer", (), {"__module__": name})
        sys.modules[name].HistoryBuffer = kind
    buffer = sys.modules[name].HistoryBuffer()
    buffer.__dict__ |= {
        "max_length": 1_000_000,
        "_log_history": np.array(values),
        "_count_history": np.ones(len(values), dtype=np.int64),
    }
    return buffer
