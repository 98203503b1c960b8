"""A model judged on a data set from end to end: predicted, given its threshold, asked again, measured, checked.

`judge_model` is once for each model, `weigh` puts everything together that 03_evaluation shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from sa2va_lab.datasets.samples import Dataset
from sa2va_lab.errors import LabError
from sa2va_lab.evaluation import questions
from sa2va_lab.evaluation.baselines import measure_baselines
from sa2va_lab.evaluation.honesty import Finding, check_run, sort_findings, was_seen
from sa2va_lab.evaluation.metrics import evaluate_run, summarise
from sa2va_lab.evaluation.shapes import measure_extras, summarise_extras
from sa2va_lab.evaluation.thresholds import Choice, Counts, count_run, refuse_seen, settle_threshold, weigh_threshold
from sa2va_lab.evaluation.verification import verify_run
from sa2va_lab.runs import META, Run, open_run, predict_dataset

SEEN = "seen:"  # before a threshold that may have been chosen on the images that are reported


@dataclass(frozen=True)
class Judged:
    """What one model did on the images of a data set.

    choice: the threshold that it stands at. told: what `refuse_seen` let pass. table: of `evaluate_run` at that
    threshold. phrases: a row of `measure_phrase` for each thing asked for. wordings: of `compare_wordings`. refused:
    of `measure_refused`. verified: whether the Run was made here, made again in part, or only looked at.
    """

    run: Run
    choice: Choice
    told: str
    table: pd.DataFrame
    phrases: list[dict]
    wordings: list[dict]
    refused: dict
    verified: Finding

    @property
    def name(self) -> str:
        """Which of two models it is, in English: the base alone, or the base with a fine-tune."""
        tuned = self.run.meta["segmenter"].get("finetune")
        return f"with its fine-tune {tuned['file']}" if tuned else "the base alone"


@dataclass(frozen=True)
class Evaluation:
    """Everything that is said of a model in a report, measured before anything is said.

    summary: of `summarise`. seen: of `was_seen`. threshold: of `weigh_threshold`. baselines, findings: of
    `measure_baselines` and `check_run`. shapes, widths: of `summarise_extras` and `measure_extras`.
    """

    own: Judged
    rivals: Sequence[Judged]
    summary: dict
    seen: tuple[str, str]
    counts: Counts
    threshold: dict
    baselines: list[dict]
    findings: list[Finding]
    shapes: list[dict]
    widths: list[dict]


def judge_model(
    segmenter,
    dataset: Dataset,
    *,
    folder: Path | str,
    split: str = "all",
    prompt: str | None = None,
    limit: int | None = None,
    threshold: str = "",
    beside: Run | None = None,
) -> Judged:
    """Predicts a split into `folder` and into Runs beside it whatever else is asked: the validation split for the
    threshold, other things, other words. What lies there already is not predicted again, except for a few images by
    which it is verified.

    segmenter: None looks at the Run in `folder`, and at those beside it, as they are. threshold: as `settle_threshold`
    takes it; with "seen:" before it, it may have been chosen on these very images, otherwise that is a LabError.
    beside: the Run that this one is a second model to; it is not asked in other words.
    """
    how = {"prompt": prompt, "limit": limit}
    before = len(open_run(folder).records) if (Path(folder) / META).exists() else 0
    if segmenter is None:
        run = open_run(folder)
        others = questions.find_others(run, dataset)
    else:
        role = {"role": "beside", "of": beside} if beside else {}
        run = predict_dataset(segmenter, dataset, folder=folder, split=split, **how, **role)
        others = questions.predict_others(segmenter, dataset, run=run, limit=limit)
    choice = settle_threshold(threshold.removeprefix(SEEN), run, dataset, segmenter, **how)
    told = refuse_seen(choice, run, allow=threshold.startswith(SEEN))
    table = evaluate_run(run, dataset, threshold=choice.value)
    if segmenter is not None and not beside:
        asked = questions.ask_otherwise(segmenter, run, dataset, refused=questions.list_refused(table))
    else:
        asked = [] if beside else questions.find_asked(run)
    return Judged(
        run=run,
        choice=choice,
        told=told,
        table=table,
        phrases=[questions.measure_phrase(made, of, threshold=choice.value) for made, of in [(run, dataset), *others]],
        wordings=questions.compare_wordings(run, asked, dataset, threshold=choice.value),
        refused=questions.measure_refused(table, asked),
        verified=_verify(segmenter, run, dataset, before),
    )


def _verify(segmenter, run: Run, dataset: Dataset, before: int) -> Finding:
    """Whether a Run was predicted before our eyes, made again in part, or only looked at. before: how many images of it
    lay there already."""
    if segmenter is not None and not before:
        return Finding("made_here", False, {"of": len(run.records)})
    if segmenter is not None:
        with suppress(LabError):  # on its way the Run stepped down to a number format that is not the one at hand
            return verify_run(run, dataset, lambda precision: segmenter)
    return Finding("not_verified", False, {"of": len(run.records)}, look=True)


def weigh(own: Judged, dataset: Dataset, *, rivals: Sequence[Judged] = ()) -> Evaluation:
    """Measures everything about a judged model. rivals: others on the same images."""
    run, choice = own.run, own.choice
    counts = count_run(run, dataset)
    others = [rival.run for rival in rivals]
    checked = check_run(run, dataset, choice=choice, others=others, threshold=choice.value)
    shapes, widths = measure_extras(run, dataset, threshold=choice.value)
    return Evaluation(
        own=own,
        rivals=rivals,
        summary=summarise(own.table),
        seen=was_seen(run, dataset),
        counts=counts,
        threshold=weigh_threshold(choice, own.table, counts),
        baselines=measure_baselines(dataset, set(run.sample_ids) - {*run.failed_ids}),
        findings=sort_findings([own.verified, *checked]),
        shapes=summarise_extras(shapes),
        widths=widths.to_dict("records"),
    )
