"""The audit of a training run: how many processes really took part, what they saw, and everything that `checks` knows.

    audit(read_log("train.log"), config=read_config("vessel.py"), samples=1219, ranks=4).findings

xtuner's LengthGroupedSampler hands each process whole groups of `group` samples, so an epoch of S samples on r
processes has ceil(S / (group r)) group / batch iterations. The formulas were held against real logs: they give every
digit of the learning rates in them.

Nothing here is a metric: a training loss says how training went, not how good the masks are.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from sa2va_lab.errors import LabError
from sa2va_lab.paths import find_given, find_root, real, shown_name
from sa2va_lab.shown import Shown
from sa2va_lab.training import checks
from sa2va_lab.training.checks import shorten
from sa2va_lab.training.config import NO_CONFIG, TrainingConfig, parse_config, read_config
from sa2va_lab.training.findings import Finding, count_processes, note, warn
from sa2va_lab.training.log import Course, TrainingRun, follow, read_log

RANKS = range(1, 65)
GROUPS = range(1, 65)
MEANT_RANKS = 4
RATE_TOLERANCE = 0.003  # reports often give a learning rate with three digits


@dataclass(frozen=True, repr=False)
class Audit(Shown):
    """A run with what was found. implied_ranks: processes that its iterations give away, None where they do not.

    config: the one given, else the one in the log, else NO_CONFIG. samples: images, None where not known. iterations:
    those of the log's plan; without one, those that the config gives for implied_ranks, else the last one logged.
    """

    run: TrainingRun
    config: TrainingConfig
    samples: int | None
    ranks: int
    iterations: int
    implied_ranks: int | None
    course: Course
    findings: tuple[Finding, ...]

    @property
    def facts(self) -> dict[str, str]:
        """See `Shown`; what needs a look first."""
        facts = {"Log": f"{shown_name('log', self.run.path)}, {self.iterations:,} iterations"}
        facts["Processes"] = str(self.implied_ranks or "not known")
        return facts | dict(self.told)

    @property
    def told(self) -> list[tuple[str, str]]:
        """(what, text): how each loss went, and every finding, the alarms first and marked."""
        drops = {name: self.run.drop_percent(name) for name in self.run.losses}
        changes = {name: "" if drop is None else f" ({-drop:+.2f} %)" for name, drop in drops.items()}
        told = [(name, f"{self.run.first(name):.4f} → {self.run.last(name):.4f}{changes[name]}") for name in changes]
        found = sorted(self.findings, key=lambda finding: not finding.alarm)
        return told + [(f"{'! ' if one.alarm else ''}{one.kind}", one.evidence) for one in found]

    @property
    def alarms(self) -> tuple[Finding, ...]:
        """Findings that need a look."""
        return tuple(finding for finding in self.findings if finding.alarm)

    @property
    def weights(self) -> dict[str, float]:
        """{loss: weight} from the config, of losses in the log whose weight is not zero."""
        return {name: weight for name in self.run.parts if (weight := self.config.loss_weights.get(name))}

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
            "parts_sum_to_total": checks.sum_parts(run)[0],
            "implied_ranks": self.implied_ranks,
            "findings": [finding.to_dict() for finding in self.findings],
        }


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
        with contextlib.suppress(LabError):  # cut off, or of another tool: the audit goes on without
            config = parse_config(run.messages.config)
            notes.append(note("config.in_log"))
    config = config or NO_CONFIG
    if config.unread:
        notes.append(note("config.unread", count=len(config.unread), first=config.unread[0]))
    reported = _whole(run.messages.facts.get("world_size")) or _whole(run.messages.facts.get("processes"))
    iterations, implied, found = _find_ranks(run, config, samples, ranks, reported)
    run = replace(run, planned=iterations) if run.planned is None and implied else run
    samples, course = config.samples if samples is None else samples, follow(*run.curve(run.losses[0]))
    known = Audit(run, config, samples, ranks, iterations, implied, course, ())
    findings = (
        *found,
        *_check_warmup(known),
        *_check_launcher(known, reported),
        *_check_batch(known),
        *checks.check_losses(run, config),
        *checks.check_messages(run),
        *checks.check_validation(run),
        *checks.check_course(run, course),
        *checks.check_checkpoints(run, config, course),
        *checks.check_speed(run, config, implied),
        *notes,
    )
    return replace(known, findings=findings)


def count_iterations(samples: int, *, ranks: int, batch: int, group: int | None, epochs: float = 1) -> int:
    """Iterations that a run has, as its log numbers them: forward passes of one process, whatever is accumulated.

    samples: of one epoch, repeats included. group: samples a group on one process (xtuner: batch size x accumulation);
    None for a plain sampler, which deals the samples out one by one. epochs may be a fraction.
    """
    unit = group or 1
    per_rank = math.ceil(samples / (unit * ranks)) * unit
    return math.ceil(epochs * math.ceil(per_rank / batch))


def fit_ranks_of_any_group(iterations: int, samples: int) -> list[int]:
    """Numbers of processes that would have given exactly these iterations with batch size 1, one epoch, any group.

    For a log without its config: accumulation is not known then.
    """
    return [
        rank
        for rank in RANKS
        if any(count_iterations(samples, ranks=rank, batch=1, group=group) == iterations for group in GROUPS)
    ]


def warmup_rate(iteration: int, *, lr: float, length: int, start_factor: float = 1e-5) -> float:
    """The learning rate that mmengine logs at an iteration (from 1) of a linear warm-up of `length` iterations.

    The line of iteration i is written before the schedule's i-th step, so it shows i - 1 steps of length - 1.
    """
    steps = max(length - 1, 1)
    done = min(iteration - 1, steps)
    return lr * (start_factor + (1 - start_factor) * done / steps)


def fit_warmup(iteration: int, rate: float, *, lr: float, start_factor: float = 1e-5) -> float | None:
    """The length of the linear warm-up in which this rate stands at this iteration; None where it cannot."""
    share = (rate / lr - start_factor) / (1 - start_factor) if start_factor != 1 else 1
    return (iteration - 1) / share + 1 if 0 < share < 1 and iteration > 1 else None


@dataclass(frozen=True)
class _Plan:
    """Iterations by the number of processes. count: processes -> iterations. formula: the same in writing. fits: the
    numbers of processes that give the run's iterations. missing: in words, what it would take to know."""

    count: Callable[[int], int] = lambda ranks: 0
    formula: Callable[[int], str] = lambda ranks: ""
    fits: tuple[int, ...] = ()
    missing: str = ""


def _find_ranks(
    run: TrainingRun, config: TrainingConfig, samples: int | None, meant: int, reported: int | None
) -> tuple[int, int | None, list[Finding]]:
    """(iterations, processes or None, findings), from the iterations and from what the log itself counts."""
    found, iterations = [], run.iterations
    if run.copies > 1:
        found.append(warn("copies", copies=run.copies))
    if reported:
        report = note if reported == meant else warn
        found.append(report("ranks_reported", reported=count_processes(reported)))
    if config.max_iterations:
        return iterations, reported, [*found, note("ranks.fixed", iterations=config.max_iterations)]
    plan = _plan(run, config, samples)
    if plan.missing:
        return iterations, reported, [*found, note("ranks.unknown", missing=plan.missing)]
    expected = plan.count(meant)
    if not plan.fits:
        values = dict(iterations=iterations, one=plan.count(1), meant=meant, expected=expected)
        return iterations, reported, [*found, warn("ranks.none", **values)]
    iterations = plan.count(plan.fits[0])
    if len(plan.fits) > 1 and meant not in plan.fits:
        implied = reported if reported in plan.fits else None
        return iterations, implied, [*found, warn("ranks.several", iterations=iterations, fits=shorten(plan.fits))]
    implied = meant if meant in plan.fits else plan.fits[0]
    values = dict(iterations=iterations, formula=plan.formula(implied), found=count_processes(implied))
    if implied == meant:
        return iterations, implied, [*found, note("ranks.as_meant", **values)]
    case = "ranks.fewer" if implied < meant else "ranks.more"
    return iterations, implied, [*found, warn(case, **values, meant=meant, expected=expected)]


def _plan(run: TrainingRun, config: TrainingConfig, samples: int | None) -> _Plan:
    total = samples if config is NO_CONFIG else config.epoch_samples(samples)
    total = total or _whole(run.messages.facts.get("samples"))
    if config is NO_CONFIG:
        if total is None:
            return _Plan(missing="the config and the number of samples")
        fits = fit_ranks_of_any_group(run.iterations, total)
        if not fits:
            iterations, share = run.iterations, run.iterations / total
            return _Plan(missing=f"the config ({iterations:,} iterations are {share:.2f} x {total:,} samples)")
        return _Plan(
            lambda r: math.ceil(total / r),
            lambda r: f"{total:,} samples / {r} (rounded up to whole groups)",
            tuple(fits),
        )
    batch, epochs, group = config.batch, config.epochs, config.sampler_group
    wanted = {"the number of samples (--samples)": total, "the batch size": batch, "the epochs": epochs}
    if missing := [word for word, value in wanted.items() if not value or value < 0]:
        return _Plan(missing=", ".join(missing))

    def count(ranks: int) -> int:
        return count_iterations(total, ranks=ranks, batch=batch, group=group, epochs=epochs)

    def formula(ranks: int) -> str:
        times = "" if epochs == 1 else f"{epochs:g} x "
        parts = f"ceil({total:,} / ({group or 1} x {ranks})) x {group or 1}"
        return f"{times}{parts}" + ("" if batch == 1 else f" / {batch}")

    # without a plan in the log, the run may have gone on up to where the next line would have stood
    last = run.last_iteration
    possible = range(run.planned, run.planned + 1) if run.planned else range(last, last + run.interval)
    return _Plan(count, formula, tuple(ranks for ranks in RANKS if count(ranks) in possible))


def _check_warmup(known: Audit) -> Iterator[Finding]:
    """Whether the first learning rate fits: the warm-up is a share of an epoch, so it tells of processes too."""
    run, config, meant, implied = known.run, known.config, known.ranks, known.implied_ranks
    name = next((name for name in ("base_lr", "lr") if name in run.records), None)
    if name is None:
        return
    places, rates = run.curve(name)
    peak, place, rate = float(rates.max()), int(places[0]), float(rates[0])
    if config.lr and len(rates) > 2 and peak > config.lr * 1.01:
        yield warn("learning_rate", seen=peak, asked=config.lr)
        return
    end, total = config.warmup.get("end"), config.epoch_samples(known.samples)
    if not (config.lr and end and total and config.batch and place > 1):
        climbs = len(rates) > 2 and rates[1] > rates[0] and place > 1 and peak > rates[-1]
        length = fit_warmup(place, rate, lr=peak) if climbs else None
        if length and length < run.iterations:
            yield note("warmup.length", lr=peak, length=length, share=length / run.iterations)
        return
    start = config.warmup.get("start_factor", 1e-5)
    length = fit_warmup(place, rate, lr=config.lr, start_factor=start)
    if length is None or not config.warmup.get("by_epoch", True):
        return

    def expect(ranks: int) -> tuple[int, float]:
        epoch = count_iterations(total, ranks=ranks, batch=config.batch, group=config.sampler_group)
        length = int(end * epoch)
        return length, warmup_rate(place, lr=config.lr, length=length, start_factor=start)

    fits = [ranks for ranks in RANKS if abs(expect(ranks)[1] - rate) <= RATE_TOLERANCE * rate]
    values = dict(rate=rate, iteration=place, meant=meant, length=length)
    values["other"], values["other_rate"] = expect(meant)
    if not fits:
        yield warn("warmup.none", **values, one_rate=expect(1)[1])
        return
    found = implied if implied in fits else meant if meant in fits else fits[0]
    values["own"], values["own_rate"] = expect(found)
    report, case = (note, "warmup.as_meant") if found == meant else (warn, "warmup.other")
    yield report(case, **values, found=count_processes(found))


def _check_launcher(known: Audit, reported: int | None) -> Iterator[Finding]:
    launcher = known.run.messages.facts.get("launcher") or known.config.launcher
    number = reported or "–"
    if launcher == "none" and known.ranks > 1:
        yield warn("launcher.none", number=number, meant=known.ranks)
    elif launcher and launcher != "none":
        yield note("launcher", launcher=launcher, number=number)


def _check_batch(known: Audit) -> Iterator[Finding]:
    """Effective batch, and how often each image was seen, by the processes that really took part."""
    run, config, meant, implied = known.run, known.config, known.ranks, known.implied_ranks
    if not (config.batch and implied):
        return
    batch, accumulation = config.batch, config.accumulation or 1
    each, found = batch * accumulation, count_processes(implied)
    values = dict(batch=batch, accumulation=accumulation, found=found, effective=each * implied)
    values |= dict(updates=run.iterations / accumulation, meant=each * meant)
    yield note("effective_batch", **values) if implied == meant else warn("effective_batch.other", **values)
    if known.samples:
        seen = run.iterations * batch * implied
        values = dict(iterations=run.iterations, batch=batch, found=found, seen=seen, samples=known.samples)
        yield note("epochs", **values, times=seen / known.samples)


def _whole(text: str | None) -> int | None:
    return int(text) if text and int(text) > 0 else None


def find_logs(named: str) -> list[Path]:
    """The logs that a notebook's parameter names, several of them with `;` between; "" is the demo's own log.

    A relative path is seen from the working directory, from where the command was started, and from the checkout.
    """
    parts = [find_given(part.strip()) for part in named.split(";") if part.strip()]
    if not parts and not (parts := sorted((find_root() / "data" / "demo").glob("*.log"))[:1]):
        raise LabError("there is no training log of the demo in data/demo: give a log of your own (log=...).")
    return parts


def audit_logs(
    logs: list[Path], *, config: Path | str | None = None, samples: int | None = None, ranks: int | None = None
) -> list[Audit]:
    """Reads and audits logs of one config.

    config: "" or None is the demo's own for the demo's log, and none otherwise. ranks: processes that were meant; None
    is one for the demo and four otherwise.
    """
    audits = []
    for path in logs:
        demo = is_demo_log(path)
        beside = next((file for folder in path.parents[:2] for file in sorted(folder.glob("*.py"))), None)
        chosen = find_given(str(config)) if config else beside if demo else None
        meant = ranks if ranks is not None else 1 if demo else MEANT_RANKS
        made = read_config(chosen) if chosen else None
        audits.append(audit(read_log(path), config=made, samples=samples, ranks=meant))
    return audits


def is_demo_log(path: Path) -> bool:
    """Whether a log is the shipped one."""
    try:
        return real(find_root() / "data" / "demo") in real(path).parents
    except LabError:  # installed without a checkout: there is no demo
        return False
