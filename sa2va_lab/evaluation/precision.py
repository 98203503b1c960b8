"""What each precision costs and what it changes: every rung of the plan in a process of its own, one after another.

A process of its own, since memory that was used once is not given back in full, and since a rung that is killed must
not take the others along. The child is this module: `python -m sa2va_lab.evaluation.precision` with its task as JSON.

What a process holds is anonymous memory and pages of mapped files. Pages of libraries come in when their code runs for
the first time; they are no model's, every process shares them, and they are told apart.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil

from sa2va_lab.errors import LabError
from sa2va_lab.evaluation.metrics import evaluate_run, summarise
from sa2va_lab.runs import Run, choose_samples, open_run, predict_dataset

STATUS, MAPS, REFS = (Path("/proc/self") / name for name in ("status", "smaps", "clear_refs"))
EVERY = 0.02  # seconds between two looks
CARD = 24 << 30  # bytes: what is asked about where there is none
UNSEEN = "what lies outside the allocator was not measured (pip install 'sa2va_lab[nvml]'), so that is forecast"
STAGES = ("pixels", "vision", "answer", "canvas", "masks")


class Watch(threading.Thread):
    """The highest anonymous and mapped bytes of this process between `start` and `stop`.

    The system keeps the highest sum itself, so that nothing short is missed; which of the two it was is looked at again
    and again.
    """

    def __init__(self):
        super().__init__(daemon=True)
        self.libraries, self.over = count_libraries(), threading.Event()
        with suppress(OSError):
            REFS.write_text("5")  # the highest sum is counted from now on (proc_pid_clear_refs(5))
        self.before = look()
        self.peak = self.top = self.before

    def run(self) -> None:
        """Looks again and again."""
        while not self.over.wait(EVERY):
            self.note()

    def note(self) -> None:
        """Looks once."""
        now = look()
        self.peak = tuple(map(max, self.peak, now))
        self.top = max(self.top, now, key=sum)  # the two need not be highest at one time

    def stop(self) -> dict:
        """Bytes above the beginning: anonymous_bytes, mapped_bytes, peak_bytes (of both together), all without
        libraries_bytes; and before_bytes. None where /proc does not tell."""
        self.over.set()
        self.join()
        self.note()
        anonymous, mapped = (high - low for high, low in zip(self.peak, self.before, strict=True))
        highest = max(sum(self.top), read_status().get("VmHWM", 0)) - sum(self.before)
        libraries = count_libraries() - self.libraries  # takes memory itself
        anonymous = max(anonymous, highest - mapped)  # mapped pages hardly ever leave, so they were there at that time
        names = {"anonymous_bytes": anonymous, "mapped_bytes": mapped - libraries, "libraries_bytes": libraries}
        names |= {"peak_bytes": highest - libraries, "before_bytes": sum(self.before)}
        return names if sum(self.before) else dict.fromkeys(names)


def look() -> tuple[int, int]:
    """Anonymous and mapped bytes now; zeros where /proc does not tell."""
    held = read_status()
    return held.get("RssAnon", 0), held.get("RssFile", 0)


def read_status() -> dict[str, int]:
    """{"RssAnon", "RssFile", "VmHWM" (the highest sum), ...} in bytes; empty where /proc does not tell."""
    lines = STATUS.read_text().splitlines() if STATUS.exists() else ()
    parts = (line.partition(":") for line in lines)
    return {name: int(rest.split()[0]) << 10 for name, _, rest in parts if rest.endswith("kB")}


def count_libraries() -> int:
    """Bytes of mapped pages that hold code or constants of libraries, not weights; 0 where /proc does not tell."""
    maps = psutil.Process().memory_maps() if MAPS.exists() else ()
    return sum(part.rss for part in maps if re.search(r"\.so(\.|$)", part.path))


def measure_plans(
    model: Path | str,
    data: dict,
    *,
    folder: Path | str,
    limit: int | None = None,
    tuning: dict | None = None,
    gpu: str = "",
    cpu: bool = False,
    released: str = "Sa2VA-8B",
) -> dict:
    """Runs every rung that fits on the same images: {"plan", "precisions", "reference", "stamp", "released"}.

    data: {"path", "phrase", "groups", "split"} as `open_dataset` and `Dataset.split` take them. folder: for one Run a
    rung. tuning: {"sam2", "finetune", "config"} as `load` takes them. gpu: memory of the card that is asked about; the
    card here, or 24 GiB, if empty. cpu: where there is a card, run the plans for the CPU too. released: the released
    model that is forecast on that card, for the same images. plan: the rungs here. precisions: a row a rung, those not
    run with the reason; bytes above what the process held before it loaded: forecast_bytes and own_bytes of memory that
    must be free (anonymous on a CPU; on a GPU what the allocator held and what lay outside it),
    forecast_mapped_bytes and mapped_bytes of files; on a GPU also peak_bytes, reserved_bytes and outside_bytes.
    reference: the most precise rung that ran; agreement (mean mask IoU) and difference (largest, of probabilities) are
    with it.
    """
    from sa2va_lab.loading.catalogue import find_released
    from sa2va_lab.loading.devices import find_budgets, parse_size
    from sa2va_lab.loading.plan import climb_down
    from sa2va_lab.loading.whole import open_whole

    folder, dataset = Path(folder), _open(data)
    chosen, _ = choose_samples(dataset.split(data["split"]), limit)
    opened = open_whole(model, **(tuning or {}))
    config = opened.sizes
    tiles = max((_count_tiles(sample, config) for sample in chosen), default=1)
    budgets = find_budgets()
    cards = [size for name, size in budgets.items() if name != "cpu"]
    card = parse_size(gpu) if gpu else max(cards, default=CARD)
    here, size = climb_down(opened, budgets=budgets, tiles=tiles), f"{card / (1 << 30):g}GiB"
    absent = {} if cards else {"cuda:0": card}
    away = climb_down(opened, budgets=absent, tiles=tiles).rungs
    del opened  # the tensors of a fine-tune
    rows, reference = [], None
    for place, rung in enumerate([*here.rungs, *away]):
        row = {"precision": rung.precision, "device": rung.where, "ran": False}
        row["forecast_bytes"] = sum(share.needed for share in rung.shares)
        row["forecast_mapped_bytes"] = sum(share.mapped for share in rung.shares)
        rows.append(row)
        if place >= len(here.rungs):
            row["reason"] = f"no CUDA device: forecast only, for a GPU of {size}"
            continue
        if rung.device == "cpu" and cards and not cpu:
            row["reason"] = "not run: where there is a card, plans for the CPU run only if asked (cpu = True)"
            continue
        if not rung.fits:
            row["reason"] = f"not run, as it would not fit: {rung.reason}"
            continue
        own = folder / f"{rung.precision}_{rung.where.replace(':', '').replace(' + ', '_')}"
        task = {"model": str(model), "data": data, "folder": str(own), "limit": limit, "precision": rung.precision}
        task |= {"device": rung.device, "where": rung.where, "tuning": tuning or {}, "tiles": tiles}
        if rung.layout.kept_back:  # a budget that holds this rung, and no other of its precision
            task["max_memory"] = {share.name: f"{share.needed // 1024 + 1}KiB" for share in rung.shares}
        measured, reason = _run_child(task)
        if measured is None:
            row["reason"] = f"did not run: {reason}"
            continue
        run = open_run(own)
        reference = reference or (rung.precision, run)
        row |= {"ran": True, "reason": "what “auto” takes here" if place == here.chosen else ""}
        row |= measured | _score(run, dataset, reference[1])
        if row.get("outside_bytes", 0) is None:
            row["own_bytes"] += rung.shares[0].context
            row["reason"] = "; ".join(filter(None, (row["reason"], UNSEEN)))
    known = find_released(released) or open_whole(released)
    count = max((_count_tiles(sample, known.sizes) for sample in chosen), default=1)
    asked = climb_down(known, budgets={"cuda:0": card}, tiles=count)
    return {
        "released": asked.to_dict() | {"name": released, "card": card, "tiles": count},
        "plan": here.to_dict(),
        "precisions": rows,
        "reference": reference[0] if reference else None,
        "stamp": config.stamp,
    }


def _count_tiles(sample, config) -> int:
    """How many tiles an image is cut into; 1 where it cannot be: its record will say so."""
    try:
        height, width = sample.image_size()
        return config.family.count_tiles(width, height, config)
    except LabError:
        return 1


def _open(data: dict):
    from sa2va_lab.datasets.formats import open_dataset

    return open_dataset(data["path"], phrase=data["phrase"] or None, groups=data["groups"] or None)


def _run_child(task: dict) -> tuple[dict | None, str]:
    """What the child measured, or None and its last words."""
    command = [sys.executable, "-W", "ignore", "-m", "sa2va_lab.evaluation.precision", json.dumps(task)]
    # else glibc keeps most of what was freed, and the peak would be that of its heap
    here = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(128 << 10)}
    done = subprocess.run(command, capture_output=True, text=True, env=here)
    lines = done.stdout.splitlines()
    if done.returncode == 0 and lines:
        return json.loads(lines[-1]), ""
    said = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    return None, said


def _score(run: Run, dataset, reference: Run) -> dict:
    summary = summarise(evaluate_run(run, dataset))
    ious, largest = [], 0.0
    for record in run.records:
        if record["error"] is not None or record["id"] in reference.failed_ids:
            continue
        own, other = (found.prediction(record["id"]).probability() for found in (run, reference))
        both, either = ((own > 0.5) & (other > 0.5)).sum(), ((own > 0.5) | (other > 0.5)).sum()
        ious.append(both / either if either else 1.0)
        largest = max(largest, float(np.abs(own - other).max()))
    dice = {name: summary["dice"][key] for name, key in (("dice", "macro"), ("low", "low"), ("high", "high"))}
    agreement = float(np.mean(ious)) if ious else np.nan
    counts = {name: summary[name] for name in ("n_images", "n_groups", "n_failed", "grouped")}
    return dice | counts | {"agreement": agreement, "difference": largest if ious else np.nan}


def measure_child(task: dict) -> dict:
    """Loads and predicts in this very process, which should have done nothing else. Raises LabError when the rung that
    was asked for is not the one that answered."""
    import torch

    import sa2va_lab.loading.activations  # what is imported later would be counted as the model
    import sa2va_lab.loading.ladder
    import sa2va_lab.loading.whole
    import sa2va_lab.sa2va.processing
    import sa2va_lab.segmenter  # noqa: F401
    from sa2va_lab.loading.arithmetic import import_quantiser
    from sa2va_lab.loading.load import load

    dataset = _open(task["data"])
    if task["precision"] == "nf4":
        import_quantiser("nf4")
    before = look_at_card(task["device"])
    memory = Watch()
    memory.start()
    start = time.perf_counter()
    how = {name: task.get(name) for name in ("precision", "device", "max_memory", "tiles")}
    segmenter = load(task["model"], **how, **task["tuning"])
    load_seconds = time.perf_counter() - start
    split = task["data"]["split"]
    run = predict_dataset(segmenter, dataset, folder=task["folder"], split=split, limit=task["limit"], progress=False)
    held = memory.stop()
    held["own_bytes"] = held.pop("anonymous_bytes")
    if task["device"] != "cpu":  # loading holds no more than its end
        held = {"peak_bytes": max([record["peak_bytes"] or 0 for record in run.records], default=0)}
        held["reserved_bytes"] = torch.cuda.max_memory_reserved(task["device"])
        used = (look_at_card(task["device"]), before, torch.cuda.memory_reserved(task["device"]))
        held["outside_bytes"] = used[0] - used[1] - used[2] if None not in used else None
        held["own_bytes"] = held["reserved_bytes"] + (held["outside_bytes"] or 0)
    steps = segmenter.provenance["steps"]
    if steps:
        raise LabError(f"{steps[-1]['why']}, so {steps[-1]['to']} took over")
    if (where := segmenter.provenance["device"]["actual"]) != task["where"]:
        raise LabError(f"{task['precision']} ran on {where}, not on {task['where']}")
    good = [record["seconds"] for record in run.records if record["error"] is None]
    if not good:
        raise LabError(f"no image could be predicted: {run.records[0]['error']}")
    stages = {stage: float(np.median([seconds[stage] for seconds in good])) for stage in STAGES}
    return held | {"load_seconds": load_seconds, "seconds": float(sum(stages.values())), "stages": stages}


def look_at_card(device: str) -> int | None:
    """Bytes in use on a GPU, of all processes, as nvidia-ml tells; None on a CPU, and where it is not installed."""
    import torch

    with suppress(Exception):  # it fails in as many ways as there are drivers
        return torch.cuda.device_memory_used(device) if device != "cpu" else None
    return None


if __name__ == "__main__":
    try:
        print(json.dumps(measure_child(json.loads(sys.argv[1]))))
    except LabError as error:
        sys.exit(str(error))
