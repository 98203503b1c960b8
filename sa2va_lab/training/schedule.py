"""Arithmetic of a schedule: the iterations that a data set gives on so many processes, and the warm-up.

xtuner's LengthGroupedSampler hands each process whole groups of `group` samples, so an epoch of S samples on r
processes has ceil(S / (group r)) group / batch iterations. The formulas were held against real logs: they give every
digit of the learning rates in them.
"""

from __future__ import annotations

import math

RANKS = range(1, 65)
GROUPS = range(1, 65)


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
