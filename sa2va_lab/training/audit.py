"""The audit of a training run: how many processes really took part, what they saw, and everything that `checks` knows.

    audit(read_log("train.log"), config=read_config("vessel.py"), samples=1219, ranks=4).findings

Nothing here is a metric: a training loss says how training went, not how good the masks are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from sa2va_lab.errors import LabError
from sa2va_lab.training import checks, schedule
from sa2va_lab.training.config import TrainingConfig, parse_config
from sa2va_lab.training.log import TrainingRun
from sa2va_lab.training.phrases import Finding, processes
from sa2va_lab.training.trends import Course

RATE_TOLERANCE = 0.003  # reports often give a learning rate with three digits


@dataclass(frozen=True)
class Audit:
    """A run with what was found. implied_ranks: processes that its iterations give away, None where they do not.

    config: the one given, else the one in the log, else None. samples: images, None where not known. iterations: those
    of the log's plan; without one, those that the config gives for implied_ranks, else the last one logged.
    """

    run: TrainingRun
    config: TrainingConfig | None
    samples: int | None
    ranks: int
    iterations: int
    implied_ranks: int | None
    course: Course
    findings: tuple[Finding, ...]

    @property
    def alarms(self) -> tuple[Finding, ...]:
        """Findings that need a look."""
        return tuple(finding for finding in self.findings if finding.alarm)

    @property
    def weights(self) -> dict[str, float]:
        """{loss: weight} from the config, of losses in the log whose weight is not zero."""
        known = self.config.loss_weights if self.config else {}
        return {name: known[name] for name in self.run.parts if known.get(name)}

    def to_dict(self) -> dict:
        """One entry of the command's `runs`."""
        run = self.run
        ends = {
            word: {"iteration": int(run.records["iteration"][place])} | {name: end(name) for name in run.losses}
            for word, place, end in (("first", 0, run.first), ("last", -1, run.last))
        }
        drops = {name: run.drop_percent(name) for name in run.losses}
        return {
            "iterations": self.iterations,
            **ends,
            "drop_percent": {name: None if drop is None else round(drop, 2) for name, drop in drops.items()},
            "parts_sum_to_total": checks.parts_sum(run),
            "implied_ranks": self.implied_ranks,
            "findings": [finding.to_dict() for finding in self.findings],
        }

    def to_lines(self) -> list[str]:
        """The same for a terminal; what needs a look is marked."""
        run = self.run
        lines = [f"{run.path.name}: {self.iterations:,} iterations ({run.format}, {run.lines:,} lines)"]
        width = max(map(len, run.losses))
        for name in run.losses:
            drop = run.drop_percent(name)
            change = "" if drop is None else f"  {-drop:+.2f} %"
            lines.append(f"  {name:>{width}}  {run.first(name):.4f} -> {run.last(name):.4f}{change}")
        lines += [f"{'! ' if found.alarm else '  '}{found.kind}: {found.evidence}" for found in self.findings]
        return lines


def audit(
    run: TrainingRun, *, config: TrainingConfig | None = None, samples: int | None = None, ranks: int = 4
) -> Audit:
    """Audits a run. samples: images, else those that the config's annotations hold. ranks: processes that were meant.

    Raises LabError for numbers below one.
    """
    for word, number in (("samples", samples), ("ranks", ranks)):
        if number is not None and number < 1:
            raise LabError(f"{word} is {number}; expected a number from 1 up.")
    notes = []
    if config is None and run.messages.config:
        try:
            config = parse_config(run.messages.config)
            notes.append(Finding("config", "config_in_log"))
        except LabError:  # cut off, or of another tool: the audit goes on without
            pass
    course = checks.course_of(run)
    iterations, implied, found = _find_ranks(run, config, samples, ranks)
    run = replace(run, planned=iterations) if run.planned is None and implied else run
    if samples is None and config:
        samples = config.samples
    findings = [
        *found,
        *_check_warmup(run, config, samples, ranks, implied),
        *_check_launcher(run, config, ranks),
        *_check_batch(run, config, samples, ranks, implied),
        *checks.check_losses(run, config),
        *checks.check_messages(run),
        *checks.check_validation(run),
        *checks.check_course(run, course),
        *checks.check_checkpoints(run, config, course),
        *checks.check_speed(run, config, implied),
        *notes,
    ]
    if config and config.unread:
        findings.append(Finding("config", "config_unread", {"count": len(config.unread), "first": config.unread[0]}))
    return Audit(run, config, samples, ranks, iterations, implied, course, tuple(findings))


def _find_ranks(
    run: TrainingRun, config: TrainingConfig | None, samples: int | None, meant: int
) -> tuple[int, int | None, list[Finding]]:
    """(iterations, processes or None, findings), from the iterations and from what the log itself counts."""
    found = []
    reported = _reported(run)
    if run.copies > 1:
        found.append(Finding("copies", "copies", {"copies": run.copies}, alarm=True))
    if reported:
        found.append(
            Finding("ranks_reported", "ranks_reported", {"reported": processes(reported)}, alarm=reported != meant)
        )
    if config and config.max_iterations:
        found.append(Finding("ranks", "ranks_fixed", {"iterations": config.max_iterations}))
        return run.iterations, reported, found
    plan = _plan(run, config, samples)
    if isinstance(plan, str):
        found.append(Finding("ranks", "ranks_unknown", {"missing": plan}))
        return run.iterations, reported, found
    fits, formula, count = plan
    iterations, expected = count(fits[0]) if fits else run.iterations, count(meant)
    if not fits:
        values = dict(iterations=iterations, one=count(1), meant=meant, expected=expected)
        found.append(Finding("ranks", "ranks_none", values, alarm=True))
        return run.iterations, reported, found
    if len(fits) > 1 and meant not in fits:
        found.append(Finding("ranks", "ranks_several", dict(iterations=iterations, fits=_list(fits)), alarm=True))
        return iterations, reported if reported in fits else None, found
    implied = meant if meant in fits else fits[0]
    case = "ranks_as_meant" if implied == meant else "ranks_other" if implied < meant else "ranks_more"
    values = dict(
        iterations=iterations, formula=formula(implied), found=processes(implied), meant=meant, expected=expected
    )
    found.append(Finding("ranks", case, values, alarm=implied != meant))
    return iterations, implied, found


def _plan(run: TrainingRun, config: TrainingConfig | None, samples: int | None):
    """(fitting ranks, ranks -> formula, ranks -> iterations), or in words what is missing for it."""
    if config is None:
        total = samples or _whole(run.messages.facts.get("samples"))
        if total is None:
            return "the config and the number of samples"
        fits = schedule.fit_ranks_of_any_group(run.iterations, total)
        if not fits:
            return f"the config ({run.iterations:,} iterations are {run.iterations / total:.2f} x {total:,} samples)"
        return fits, lambda r: f"{total:,} samples / {r}, rounded up to whole groups", lambda r: math.ceil(total / r)
    total = config.epoch_samples(samples) or _whole(run.messages.facts.get("samples"))
    missing = [
        word
        for word, value in (
            ("the number of samples (--samples)", total),
            ("the batch size", config.batch),
            ("the epochs", config.epochs),
        )
        if not value
    ]
    if missing:
        return ", ".join(missing)
    batch, epochs, group = config.batch, config.epochs, config.sampler_group

    def count(ranks: int) -> int:
        return schedule.count_iterations(total, ranks=ranks, batch=batch, group=group, epochs=epochs)

    def formula(ranks: int) -> str:
        times = "" if epochs == 1 else f"{epochs:g} x "
        parts = f"ceil({total:,} / ({group or 1} x {ranks})) x {group or 1}"
        return f"{times}{parts}" + ("" if batch == 1 else f" / {batch}")

    possible = _possible_iterations(run)
    return [ranks for ranks in schedule.RANKS if count(ranks) in possible], formula, count


def _possible_iterations(run: TrainingRun) -> range:
    """What the run may have had: the plan, or without one anything up to where the next line would have stood."""
    if run.planned:
        return range(run.planned, run.planned + 1)
    return range(run.last_iteration, run.last_iteration + run.interval)


def _check_warmup(
    run: TrainingRun, config: TrainingConfig | None, samples: int | None, meant: int, implied: int | None
) -> Iterator[Finding]:
    """Whether the first learning rate fits: the warm-up is a share of an epoch, so it tells of processes too."""
    name = next((name for name in ("base_lr", "lr") if name in run.records), None)
    if name is None:
        return
    places, rates = run.curve(name)
    peak = float(rates.max())
    climbs = len(rates) > 2 and rates[1] > rates[0] and places[0] > 1
    if config and config.lr and len(rates) > 2 and peak > config.lr * 1.01:
        yield Finding("learning_rate", "lr_differs", {"seen": peak, "asked": config.lr}, alarm=True)
        return
    place, rate = int(places[0]), float(rates[0])
    end = config.warmup.get("end") if config else None
    total = config.epoch_samples(samples) if config else None
    if not (config and config.lr and end and total and config.batch and place > 1):
        length = schedule.fit_warmup(place, rate, lr=peak) if climbs and peak > rates[-1] else None
        if length and length < run.iterations:
            values = dict(lr=peak, length=length, share=length / run.iterations)
            yield Finding("warmup", "warmup_length", values)
        return
    start = config.warmup.get("start_factor", 1e-5)
    by_epoch = config.warmup.get("by_epoch", True)

    def expect(ranks: int) -> tuple[int, float]:
        epoch = schedule.count_iterations(total, ranks=ranks, batch=config.batch, group=config.sampler_group)
        length = schedule.warmup_length(end, by_epoch=by_epoch, epoch=epoch)
        return length, schedule.warmup_rate(place, lr=config.lr, length=length, start_factor=start)

    length = schedule.fit_warmup(place, rate, lr=config.lr, start_factor=start)
    fits = [ranks for ranks in schedule.RANKS if abs(expect(ranks)[1] - rate) <= RATE_TOLERANCE * rate]
    if length is None or not by_epoch:
        return
    (_, one_rate), (other, other_rate) = expect(1), expect(meant)
    if not fits:
        values = dict(rate=rate, iteration=place, one_rate=one_rate, meant=meant, other_rate=other_rate)
        yield Finding("warmup", "warmup_none", values, alarm=True)
        return
    found = implied if implied in fits else meant if meant in fits else fits[0]
    own, own_rate = expect(found)
    values = dict(rate=rate, iteration=place, length=length, found=processes(found), own=own, own_rate=own_rate)
    if found == meant:
        yield Finding("warmup", "warmup_as_meant", values)
    else:
        more = dict(meant=meant, other=other, other_rate=other_rate)
        yield Finding("warmup", "warmup_fits", values | more, alarm=True)


def _check_launcher(run: TrainingRun, config: TrainingConfig | None, meant: int) -> Iterator[Finding]:
    launcher = run.messages.facts.get("launcher") or (config.launcher if config else None)
    if launcher is None:
        return
    reported = _reported(run)
    processes = f" (GPU number: {reported})" if reported else ""
    if launcher == "none" and meant > 1:
        yield Finding("launcher", "launcher_none", {"processes": processes, "meant": meant}, alarm=True)
    elif launcher != "none":
        yield Finding("launcher", "launcher_there", {"launcher": launcher, "processes": processes})


def _check_batch(
    run: TrainingRun, config: TrainingConfig | None, samples: int | None, meant: int, implied: int | None
) -> Iterator[Finding]:
    """Effective batch, and how often each image was seen, by the processes that really took part."""
    if not (config and config.batch and implied):
        return
    accumulation = config.accumulation or 1
    each = config.batch * accumulation
    values = dict(batch=config.batch, accumulation=accumulation, found=processes(implied), effective=each * implied)
    values |= dict(updates=run.iterations / accumulation, meant=each * meant)
    case = "batch" if implied == meant else "batch_differs"
    yield Finding("effective_batch", case, values, alarm=implied != meant)
    if samples:
        seen = run.iterations * config.batch * implied
        values = dict(
            iterations=run.iterations, batch=config.batch, found=processes(implied), seen=seen, samples=samples
        )
        yield Finding("epochs", "epochs", values | {"times": seen / samples})


def _reported(run: TrainingRun) -> int | None:
    """How many processes the log itself counts: DeepSpeed's world size, else mmengine's "GPU number"."""
    facts = run.messages.facts
    return _whole(facts.get("world_size")) or _whole(facts.get("processes"))


def _whole(text: str | None) -> int | None:
    return int(text) if text and int(text) > 0 else None


def _list(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:8])) + (" ..." if len(numbers) > 8 else "")
