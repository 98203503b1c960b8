"""What a log alone, with the config's help, says of losses, messages, speed and checkpoints; each as a Finding."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sa2va_lab.training.config import TrainingConfig
from sa2va_lab.training.log import TrainingRun
from sa2va_lab.training.phrases import NOTHING, Finding
from sa2va_lab.training.readers import TOTAL
from sa2va_lab.training.trends import Course, follow

UNTRAINED = (0.9, 1.02)  # a Dice loss before training, per weight; above 1 only by rounding
SATURATED = 0.95
BF16 = 2**-7  # relative rounding of a sum in bf16
HARMLESS = ("end_of_loader", "deprecated", "warning")


@dataclass(frozen=True)
class Card:
    """memory: GiB as its name says. tflops: dense bf16 with float32 sums, by the maker's data sheet."""

    memory: float
    tflops: float


CARDS = {
    "RTX 3090": Card(24, 71),
    "RTX 4090": Card(24, 165),
    "A6000": Card(48, 155),
    "A100": Card(80, 312),
    "H100": Card(80, 989),
    "H200": Card(141, 989),
    "L40S": Card(48, 362),
}


def check_losses(run: TrainingRun, config: TrainingConfig | None) -> Iterator[Finding]:
    """Do the parts sum to the total; do the weights explain the beginning; did the mask head learn anything."""
    difference, iteration = sum_difference(run)
    if difference is not None:
        fits = parts_sum(run)
        values = dict(parts=" + ".join(run.parts), lines=len(run.records["iteration"]), difference=difference)
        if fits:
            yield Finding("parts_sum", "parts_sum", values)
        else:
            yield Finding("parts_sum", "parts_differ", values | {"iteration": iteration}, alarm=True)
    weights = config.loss_weights if config else {}
    for name in run.parts:
        weight = weights.get(name)
        if "dice" in name:
            yield from _check_dice(run, name, weight)
        elif "mask" in name and weight:
            yield _explain_mask_start(run, name, weight)


def sum_difference(run: TrainingRun) -> tuple[float | None, int]:
    """(largest difference between the total and the sum of its parts, where); (None, 0) where there is no sum."""
    if TOTAL not in run.losses or not run.parts:
        return None, 0
    total = run.records[TOTAL]
    differences = np.abs(total - sum(run.records[name] for name in run.parts))
    differences = np.where(np.isfinite(differences), differences, 0)
    worst = int(np.argmax(differences))
    return float(differences[worst]), int(run.records["iteration"][worst])


def parts_sum(run: TrainingRun) -> bool | None:
    """Whether the parts sum to the total on every line, but for the rounding of bf16; None where there are no parts."""
    if TOTAL not in run.losses or not run.parts:
        return None
    total = run.records[TOTAL]
    differences = np.abs(total - sum(run.records[name] for name in run.parts))
    allowed = 0.5e-4 * (len(run.parts) + 1) + 1e-9 + BF16 * np.abs(total)
    return bool(np.all((differences <= allowed) | ~np.isfinite(differences)))


def check_course(run: TrainingRun, course: Course) -> Iterator[Finding]:
    """Phases, spikes, numbers that are none, and the state of the file."""
    if course.fast_until is not None:
        case = "falling" if course.plateau_from is None else "plateau"
        yield Finding("phases", case, {"fast": course.fast_until, "plateau": course.plateau_from})
    if course.spikes:
        iteration, value = max(course.spikes, key=lambda spike: spike[1])
        values = dict(count=len(course.spikes), value=value, iteration=iteration)
        yield Finding("spikes", "spikes", values, alarm=True)
    if run.nonfinite:
        names = ", ".join(dict.fromkeys(name for _, name in run.nonfinite))
        losses = any(name in run.losses for _, name in run.nonfinite)
        count = f"{len(run.nonfinite)}{'+' if len(run.nonfinite) >= 100 else ''}"
        values = dict(count=count, names=names, iteration=run.nonfinite[0][0])
        yield Finding("not_finite", "not_finite", values, alarm=losses)
    if not run.finished:
        values = dict(last=run.last_iteration, planned=run.planned)
        yield Finding("unfinished", "unfinished", values, alarm=True)
    if run.restarts:
        places = ", ".join(f"{place:,}" for place in run.restarts[:5]) + (" ..." if len(run.restarts) > 5 else "")
        yield Finding("restarts", "restarts", {"count": len(run.restarts), "places": places})
    if run.torn:
        yield Finding("torn", "torn")
    if run.unread:
        yield Finding("unread", "unread", {"count": run.unread})


def check_messages(run: TrainingRun) -> Iterator[Finding]:
    """Warnings counted, with what each means for training."""
    messages = run.messages
    for kind, count in sorted(messages.counts.items(), key=lambda item: item[0] in HARMLESS):
        values: dict = {"count": count}
        if kind == "mask_text_length":
            about = Finding(kind, "about_images", {"images": messages.images}) if messages.images else NOTHING
            values["images"] = about
        if kind == "skipped_weights":
            values["keys"] = messages.facts["skipped_weights"]
        if kind == "warning":
            common = [f"“{words}”" for words, _ in messages.others.most_common(3) if words]
            values["words"] = ", ".join(common) or "–"
        yield Finding(kind, kind, values, alarm=kind not in HARMLESS)


def check_validation(run: TrainingRun) -> Iterator[Finding]:
    """A metric that never moves says that nothing was trained, or that nothing was measured."""
    for name, points in run.validation.items():
        values = np.array([value for _, value in points])
        values = values[np.isfinite(values)]
        if len(values) < 2:
            continue
        if np.ptp(values) == 0:
            found = dict(name=name, value=values[0], count=len(values))
            yield Finding("validation_constant", "validation_constant", found, alarm=True)
        else:
            found = dict(name=name, first=values[0], last=values[-1], count=len(values))
            yield Finding("validation", "validation_moves", found)


def check_speed(run: TrainingRun, config: TrainingConfig | None, ranks: int | None) -> Iterator[Finding]:
    """Throughput, memory and arithmetic against what the cards have, where the log names them."""
    name, card = find_card(run)
    if "time" in run.records:
        _, seconds = run.curve("time")
        iterations = run.iterations
        waiting = run.curve("data_time")[1].sum() / seconds.sum() if "data_time" in run.records else math.nan
        batch = config.batch if config else None
        rate = batch * (ranks or 1) / np.median(seconds) if batch and np.median(seconds) > 0 else 0
        values = dict(seconds=np.median(seconds), hours=seconds.mean() * iterations / 3600, waiting=waiting)
        images = Finding("", "images_a_second", {"rate": rate}) if rate else NOTHING
        if math.isfinite(waiting):
            yield Finding("throughput", "throughput", values | {"images": images})
    if config and (parts := _offloaded(config)):
        what = Finding("", parts[0] if len(parts) == 1 else "offload_both")
        values = dict(what=what, stage=config.zero.get("stage", "?"))
        yield Finding("offload", "offload", values, alarm=True)
    if "memory" in run.records:
        used = run.curve("memory")[1].max() / 1024
        of = Finding("", "of_card", {"memory": card.memory, "card": name}) if card else NOTHING
        yield Finding("memory", "memory", {"used": used, "of": of})
    if "tflops" in run.records:
        tflops = float(np.median(run.curve("tflops")[1]))
        of = Finding("", "of_peak", {"share": tflops / card.tflops, "card": name}) if card else NOTHING
        yield Finding("arithmetic", "arithmetic", {"tflops": tflops, "of": of})


def find_card(run: TrainingRun) -> tuple[str, Card | None]:
    """(name, card) of the GPUs that the log names; ("", None) where it names none that is known here."""
    named = run.messages.facts.get("gpus", "")
    return next(((name, card) for name, card in CARDS.items() if name in named), ("", None))


def check_checkpoints(run: TrainingRun, config: TrainingConfig | None, course: Course) -> Iterator[Finding]:
    """What was kept of the run, and whether anything from before the plateau is among it."""
    kept, rule = kept_checkpoints(run, config)
    if not kept:
        return
    shown = ", ".join(f"{place:,}" for place in kept[-8:])
    shown = f"{kept[0]:,} ... {shown}" if len(kept) > 8 else shown
    if course.plateau_from is not None and course.plateau_from < kept[0]:
        values = dict(plateau=course.plateau_from, first=kept[0], kept=shown)
        yield Finding("checkpoints", "checkpoints_late", values, alarm=True)
    else:
        yield Finding("checkpoints", "checkpoints", {"kept": shown, "rule": rule})


def kept_checkpoints(run: TrainingRun, config: TrainingConfig | None) -> tuple[list[int], Finding]:
    """(iterations whose checkpoints exist at the end, the rule behind it): from the log, else from the config."""
    saved = sorted({place for place, unit in run.messages.checkpoints if unit == "iterations"})
    interval = config.save_interval if config and not config.save_by_epoch else None
    if not saved and interval and interval > 0:
        end = run.iterations if run.finished else run.last_iteration
        saved = [*range(interval, end + 1, interval)]
        if run.finished and end not in saved:
            saved.append(end)  # mmengine saves the end as well
    keep = config.keep if config and config.keep and config.keep > 0 else None
    if keep and interval:
        return saved[-keep:], Finding("", "checkpoints_rule", {"interval": interval, "keep": keep})
    return saved, NOTHING


def _check_dice(run: TrainingRun, name: str, weight: float | None) -> Iterator[Finding]:
    first = run.first(name)
    if weight:
        bare = first / weight
        values = dict(name=name, first=first, weight=weight, bare=bare)
        if bare > UNTRAINED[1]:
            yield Finding("loss_weights", "dice_start_impossible", values, alarm=True)
            return
        yield Finding("loss_weights", "dice_start" if bare >= UNTRAINED[0] else "dice_start_known", values)
    else:
        yield Finding("loss_weights", "dice_start_unweighted", dict(name=name, first=first))
    level = weight or first
    last = float(follow(*run.curve(name)).mean[-1])
    if level > 0 and last >= SATURATED * level:
        of = Finding("", "of_weight", {"weight": weight}) if weight else Finding("", "of_first")
        yield Finding(
            "dice_saturated", "dice_saturated", dict(name=name, last=last, share=last / level, of=of), alarm=True
        )


def _explain_mask_start(run: TrainingRun, name: str, weight: float) -> Finding:
    first = run.first(name)
    ratio = first / weight / math.log(2)
    meaning = "meaning_random" if 0.8 <= ratio <= 1.25 else "meaning_wrong" if ratio > 1 else "meaning_known"
    values = dict(name=name, first=first, weight=weight, bare=first / weight, ratio=ratio)
    return Finding("loss_weights", "mask_start", values | {"meaning": Finding("", meaning)})


def _offloaded(config: TrainingConfig) -> list[str]:
    parts = {key: config.zero.get(key) for key in ("offload_param", "offload_optimizer")}
    return [key for key, part in parts.items() if isinstance(part, dict) and part.get("device") == "cpu"]


def course_of(run: TrainingRun) -> Course:
    """The course of the total, or of the first loss where there is no total."""
    return follow(*run.curve(run.losses[0]))
