"""What a log alone, with the config's help, says of losses, messages, speed and checkpoints."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from sa2va_lab.training.config import TrainingConfig
from sa2va_lab.training.findings import Finding, note, warn
from sa2va_lab.training.log import Course, TrainingRun, follow
from sa2va_lab.training.readers import TOTAL

UNTRAINED = (0.9, 1.02)  # a Dice loss before training, per weight; above 1 only by rounding
SATURATED = 0.95
BF16 = 2**-7  # relative rounding of a sum in bf16
HARMLESS = ("end_of_loader", "deprecated", "warning")
CARDS = {  # GiB as the name says; TFLOP/s dense bf16 with float32 sums, by the maker's data sheet
    "RTX 3090": (24, 71),
    "RTX 4090": (24, 165),
    "A6000": (48, 155),
    "A100": (80, 312),
    "H100": (80, 989),
    "H200": (141, 989),
    "L40S": (48, 362),
}
NO_CARD = "on cards that the log does not name"


def check_losses(run: TrainingRun, config: TrainingConfig) -> Iterator[Finding]:
    """Do the parts sum to the total; do the weights explain the beginning; did the mask head learn anything."""
    fits, difference, iteration = sum_parts(run)
    parts = " + ".join(run.parts)
    if fits:
        yield note("parts_sum", parts=parts, lines=len(run.records["iteration"]), difference=difference)
    elif fits is False:
        yield warn("parts_sum.not", parts=parts, difference=difference, iteration=iteration)
    for name in run.parts:
        weight = config.loss_weights.get(name)
        if "dice" in name:
            yield from _check_dice(run, name, weight)
        elif "mask" in name and weight:
            bare = run.first(name) / weight
            ratio = bare / math.log(2)
            meaning = "as of an untrained head" if ratio >= 0.8 else "better than undecided from the first line on"
            if ratio > 1.25:
                meaning = "worse than undecided (the decoder began by being sure of the wrong pixels)"
            values = dict(name=name, first=run.first(name), weight=weight, bare=bare, ratio=ratio, meaning=meaning)
            yield note("loss_weights.mask", **values)


def sum_parts(run: TrainingRun) -> tuple[bool | None, float, int]:
    """(whether the parts sum to the total on every line but for bf16's rounding, the largest difference, where).

    None where there are no parts or no total.
    """
    if TOTAL not in run.losses or not run.parts:
        return None, 0.0, 0
    total = run.records[TOTAL]
    differences = np.abs(total - sum(run.records[name] for name in run.parts))
    differences = np.where(np.isfinite(differences), differences, 0)
    allowed = 0.5e-4 * (len(run.parts) + 1) + 1e-9 + BF16 * np.abs(total)
    worst = int(np.argmax(differences))
    fits = not np.any(differences > allowed)
    return fits, float(differences[worst]), int(run.records["iteration"][worst])


def check_course(run: TrainingRun, course: Course) -> Iterator[Finding]:
    """Phases, spikes, numbers that are none, and the state of the file."""
    if course.fast_until is not None and course.plateau_from is None:
        yield note("phases", fast=course.fast_until)
    elif course.fast_until is not None:
        yield note("phases.plateau", fast=course.fast_until, plateau=course.plateau_from)
    if course.spikes:
        iteration, value = max(course.spikes, key=lambda spike: spike[1])
        yield warn("spikes", count=len(course.spikes), value=value, iteration=iteration)
    if run.nonfinite:
        names = list(dict.fromkeys(name for _, name in run.nonfinite))
        count = f"{len(run.nonfinite)}{'+' if len(run.nonfinite) >= 100 else ''}"
        report = warn if any(name in run.losses for name in names) else note
        yield report("not_finite", count=count, names=", ".join(names), iteration=run.nonfinite[0][0])
    if not run.finished:
        yield warn("unfinished", last=run.last_iteration, planned=run.planned)
    if run.restarts:
        yield note("restarts", count=len(run.restarts), places=shorten(run.restarts, 5))
    if run.torn:
        yield note("torn")
    if run.unread:
        yield note("unread", count=run.unread)


def check_messages(run: TrainingRun) -> Iterator[Finding]:
    """Warnings counted, with what each means for training."""
    messages = run.messages
    words = [f"“{words}”" for words, _ in messages.others.most_common(3) if words]
    images = f"{messages.images:,} different images" if messages.images else "images that are not named"
    values = dict(images=images, words=", ".join(words) or "–", keys=messages.facts.get("skipped_weights"))
    for kind, count in sorted(messages.counts.items(), key=lambda item: item[0] in HARMLESS):
        yield Finding(kind, {"count": count} | values, alarm=kind not in HARMLESS)


def check_validation(run: TrainingRun) -> Iterator[Finding]:
    """A metric that never moves says that nothing was trained, or that nothing was measured."""
    for name, points in run.validation.items():
        values = [value for _, value in points if math.isfinite(value)]
        if len(values) > 1 and min(values) == max(values):
            yield warn("validation_constant", name=name, value=values[0], count=len(values))
        elif len(values) > 1:
            yield note("validation", name=name, first=values[0], last=values[-1], count=len(values))


def check_speed(run: TrainingRun, config: TrainingConfig, ranks: int | None) -> Iterator[Finding]:
    """Throughput, memory and arithmetic against what the cards have, where the log names them."""
    card = next((name for name in CARDS if name in run.messages.facts.get("gpus", "")), None)
    if {"time", "data_time"} <= run.records.keys():
        times = run.curve("time")[1]
        seconds, hours = float(np.median(times)), times.mean() * run.iterations / 3600
        waiting = run.curve("data_time")[1].sum() / max(times.sum(), 1e-9)
        images = (config.batch or 0) * (ranks or 1)
        known = images and seconds > 0
        rate = f"{images / seconds:.2f} images a second" if known else "at a batch size that is not known"
        yield note("throughput", seconds=seconds, hours=hours, rate=rate, waiting=waiting)
    parts = {"parameters": "offload_param", "the optimizer state": "offload_optimizer"}
    told = {what: config.zero.get(key) for what, key in parts.items()}
    parts = [what for what, part in told.items() if isinstance(part, dict) and part.get("device") == "cpu"]
    if parts:
        what = parts[0] if len(parts) == 1 else "parameters and optimizer state"
        yield warn("offload", what=what, stage=config.zero.get("stage", "?"))
    if "memory" in run.records:
        of = f"of {CARDS[card][0]:g} on {card}" if card else NO_CARD
        yield note("memory", used=run.curve("memory")[1].max() / 1024, of=of)
    if "tflops" in run.records:
        tflops = float(np.median(run.curve("tflops")[1]))
        share = f"{tflops / CARDS[card][1]:.0%} of what {card} can do in bf16" if card else NO_CARD
        yield note("arithmetic", tflops=tflops, share=share)


def check_checkpoints(run: TrainingRun, config: TrainingConfig, course: Course) -> Iterator[Finding]:
    """What was kept of the run, and whether anything from before the plateau is among it."""
    saved = sorted({place for place, unit in run.messages.checkpoints if unit == "iterations"})
    interval = None if config.save_by_epoch else config.save_interval
    end = run.iterations if run.finished else run.last_iteration
    if not saved and interval and 0 < end / interval < 1e6:  # else one of the two is damaged
        saved = sorted({*range(interval, end + 1, interval), *([end] if run.finished else [])})  # the end is saved too
    rule = "all that were saved"
    if config.keep and config.keep > 0 and interval:
        saved, rule = saved[-config.keep :], f"every {interval:,}, the last {config.keep} of them"
    kept = shorten(saved[-8:]) if len(saved) <= 8 else f"{saved[0]:,} ... {shorten(saved[-8:])}"
    if saved and course.plateau_from is not None and course.plateau_from < saved[0]:
        yield warn("checkpoints.late", plateau=course.plateau_from, first=saved[0], kept=kept)
    elif saved:
        yield note("checkpoints", kept=kept, rule=rule)


def shorten(numbers: tuple[int, ...] | list[int], most: int = 8) -> str:
    """The first numbers, with commas."""
    return ", ".join(f"{number:,}" for number in numbers[:most]) + (" ..." if len(numbers) > most else "")


def _check_dice(run: TrainingRun, name: str, weight: float | None) -> Iterator[Finding]:
    first, last = run.first(name), float(follow(*run.curve(name)).mean[-1])
    level = weight or first
    values = dict(name=name, first=first, weight=weight, bare=first / weight if weight else 0)
    if values["bare"] > UNTRAINED[1]:
        yield warn("loss_weights.dice_impossible", **values)
        return
    trained = "loss_weights.dice" if values["bare"] >= UNTRAINED[0] else "loss_weights.dice_trained"
    yield note(trained if weight else "loss_weights.dice_unweighted", **values)
    if level > 0 and last >= SATURATED * level:
        of = f"its weight {weight:g}" if weight else "its first value"
        yield warn("dice_saturated", name=name, last=last, share=last / level, of=of)
