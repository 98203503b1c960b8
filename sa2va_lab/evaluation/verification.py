"""A Run made again, in part: the one thing that shows that a model said what stands there.

Some images, drawn by lot after the Run was finished, are predicted once more with the recorded weights, prompt, number
format and batch. It stands here and not in `runs`, which stay small, since what comes out is a judgement, in the words
of `honesty`; nothing of it opens a truth.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import chain
from math import ceil, comb

import numpy as np

from sa2va_lab.datasets.samples import Dataset
from sa2va_lab.errors import LabError
from sa2va_lab.evaluation.honesty import Finding
from sa2va_lab.evaluation.metrics import match_samples
from sa2va_lab.runs.asking import ask_run
from sa2va_lab.runs.read import Run, read_digest
from sa2va_lab.runs.shares import deal_samples

FILE = "verification.json"
IMAGES = 5
VERDICTS = ("made_here", "made_again", "made_again_nearly", "made_otherwise", "made_unexplained", "not_verified")
# What rounding may do, as a multiple of how far apart two number formats are on the same images. Another device rounds
# as coarsely as this one, in other places: twice the distance to fp32. For fp32 itself the distance to bf16 is taken,
# which has 8 significant bits for 24: twice 2**-16 of it, and eight times that for kernels that add in another order.
COARSE, FINE = ("fp32", 2.0), ("bf16", 16 / 2**16)


def miss_chance(total: int, forged: int, drawn: int) -> float:
    """Chance that `drawn` of `total` images, drawn without replacement, hold none of the `forged` (hypergeometric)."""
    return comb(total - forged, drawn) / comb(total, drawn)


def draw_images(ids: Sequence[str], *, digest: str, time: str, count: int = IMAGES) -> tuple[list[str], str]:
    """Which images are made again, in their order, and the seed: of the Run's content and the time, so that nobody who
    made the Run could foresee it."""
    seed = hashlib.sha256(f"{digest} {time}".encode()).hexdigest()
    drawn = np.random.default_rng(int(seed, 16)).choice(len(ids), size=min(count, len(ids)), replace=False)
    return [ids[place] for place in sorted(drawn)], seed


def verify_run(run: Run, dataset: Dataset, load: Callable, *, images: int = IMAGES, time: str | None = None) -> Finding:
    """Predicts some images of a Run once more and compares: one of VERDICTS, with what was drawn, seed, time, largest
    difference of a logit and what rounding explains.

    load: a function that gives a segmenter of the Run's model, asked as `load(precision="bf16")` for the number formats
    that the Run used. Where bits differ, another machine may have made the Run: then the images are predicted twice,
    and in a second format, by which rounding is measured; what `load` cannot load then (LabError) leaves the verdict
    open. Where one image has the same bits and nothing moves them (`_is_steady`), rounding explains no other.
    time: now, if not given.
    Raises LabError for other weights, other images, an empty Run, and fewer than 1 image.
    """
    if images < 1 or not run.records:
        raise LabError(f"{images} of {len(run.records)} images were to be made again; expected at least 1 of 1")
    time = time or datetime.now(UTC).isoformat()
    records = {record["id"]: record for record in run.records}
    drawn, seed = draw_images(list(records), digest=read_digest(run), time=time, count=images)
    samples = {sample.id: sample for sample, _ in match_samples(run, dataset)}
    began = str(run.meta["segmenter"].get("precision", {}).get("actual"))
    formats = {name: records[name].get("precision") or began for name in drawn}
    apart, explained = {}, 0.0
    for precision in dict.fromkeys(formats.values()):
        of_it = [name for name in drawn if formats[name] == precision]
        segmenter = _load(run, load, precision)
        again = _predict(run, samples, segmenter, of_it)
        apart |= {name: _compare(run, records[name], *again[name]) for name in of_it}
        masks = [apart[name] for name in of_it if again[name][1] is not None and again[name][1].n_seg]
        if any(0 < value < np.inf for value in masks) and not (0 in masks and _is_steady(run, segmenter)):
            repeated, other = _predict(run, samples, segmenter, of_it), FINE if precision == "fp32" else COARSE
            del segmenter  # two large models need not fit at once
            explained = max(explained, _measure_rounding(run, samples, load, other, again, repeated))
    largest = max([value for value in apart.values() if np.isfinite(value)], default=0.0)
    odd = [name for name in drawn if apart[name] > explained or apart[name] == np.inf]
    kind = "made_again" if not largest else "made_again_nearly" if np.isfinite(explained) else "made_unexplained"
    kind = "made_otherwise" if odd else kind
    third = ceil(len(records) / 3)
    values = {"n": len(drawn), "of": len(records), "ids": drawn, "seed": seed, "time": time, "third": third}
    values |= {"odd": len(odd), "names": ", ".join(sorted(odd)), "largest": largest, "explained": explained}
    values |= {"missed": miss_chance(len(records), third, len(drawn)), "digest": read_digest(run)}
    return Finding(kind, bool(odd), values, look=kind == "made_unexplained")


def _load(run: Run, load: Callable, precision: str):
    segmenter = load(precision=precision)
    weights, actual = (segmenter.provenance[name] for name in ("weights_sha256", "precision"))
    if weights != run.maker.weights:
        raise LabError(
            f"the model given has other weights ({weights[:12]}) than the Run says ({run.maker.weights[:12]}); "
            "give the checkpoint, and the fine-tune, that the Run was made with"
        )
    if actual["actual"] != precision:
        raise LabError(
            f"the Run was made in {precision}, which cannot run here ({actual['reason']}); use a machine for it"
        )
    return segmenter


def _is_steady(run: Run, segmenter) -> bool:
    """Whether an image's bits are the same each time: a GPU may add in any order, and may have halved a batch that it
    had no room for."""
    places = [(about.get("device") or {}).get("actual") for about in (run.meta["segmenter"], segmenter.provenance)]
    return places == ["cpu", "cpu"] and run.meta.get("batch", 1) == 1


def _predict(run: Run, samples: dict, segmenter, names: Sequence[str]) -> dict[str, tuple]:
    """(record, prediction) of the named images, each in the company and after the first question that it had."""
    ranks, tracked, made = max(1, len(run.meta.get("ranks", ()))), bool(run.meta.get("tracked")), {}
    for part in deal_samples([samples[name] for name in run.sample_ids], ranks, films=tracked):
        for told in chain.from_iterable(ask_run(segmenter, part, run.meta, names)):
            made |= {told.sample.id: (told.record, told.prediction)} if told.sample.id in names else {}
    return {name: made[name] for name in names}


def _compare(run: Run, before: dict, now: dict, prediction) -> float:
    """The largest difference of a logit; infinite where the two are not about the same, or one failed."""
    if before["error"] is not None or now["error"] is not None:
        return 0.0 if before["error"] is not None and now["error"] is not None else np.inf
    if any(before[name] != now[name] for name in ("answer", "n_seg", "size", "canvas", "image_sha256")):
        return np.inf
    try:
        there = run.prediction(before["id"]).logits
    except LabError:  # its bytes are not those of its line
        return np.inf
    return _distance(there, prediction.logits)


def _distance(first: np.ndarray, second: np.ndarray) -> float:
    return np.inf if first.shape != second.shape else float(np.abs(first - second).max(initial=0.0))


def _measure_rounding(run: Run, samples: dict, load: Callable, other: tuple, own: dict, repeated: dict) -> float:
    """How far apart two honest predictions of these images may be; infinite where that cannot be measured here. other:
    a number format, and how much of the distance to it."""
    try:
        measured = _predict(run, samples, _load(run, load, other[0]), list(own))
    except LabError:
        return np.inf
    trios = [[made[name][1] for made in (own, repeated, measured)] for name in own]
    logits = [[made.logits for made in trio] for trio in trios if None not in trio]
    distances = [other[1] * _distance(first, far) + _distance(first, second) for first, second, far in logits]
    return max((value for value in distances if np.isfinite(value)), default=np.inf)
