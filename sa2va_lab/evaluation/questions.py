"""What else the images of a Run are asked, in Runs beside it.

The other things that the data set names: is each found where it is, and refused where it is not? And the same thing in
other words: do the answer, and the mask, hang on the phrasing?
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sa2va_lab.datasets.samples import Dataset
from sa2va_lab.evaluation.intervals import compare_paired, mean_interval
from sa2va_lab.evaluation.metrics import evaluate_run
from sa2va_lab.paths import as_file_name
from sa2va_lab.runs import Run, choose_samples, find_beside, predict_dataset

if TYPE_CHECKING:
    import pandas as pd

MOST = 3  # things asked for, the most frequent first: a data set may name dozens
# Four of the eight questions that Sa2VA was trained with, the newline after the image included; the others are these
# with a word or a full stop less.
QUESTIONS = (
    "<image>\nPlease segment {phrase} in this image.",
    "<image>\nCan you segment the {phrase} in this image?",
    "<image>\nCould you provide a segmentation mask for the {phrase} in this image?",
    "<image>\nWhere is the {phrase} in this picture? Please respond with a segmentation mask.",
)
IMAGES = 6  # of the run, evenly spread: enough to see that a phrasing breaks, far too few to rank phrasings
FOLDER = "asked"


def predict_others(segmenter, dataset: Dataset, *, run: Run, limit: int | None = None) -> list[tuple[Run, Dataset]]:
    """Asks the images of `run` for the other things of its data set, each into a Run beside it; with its data set.

    limit: as it was given for `run`. Raises what `predict_dataset` raises.
    """
    made = []
    for phrase in [phrase for phrase in dataset.phrases if phrase != dataset.phrase][: MOST - 1]:
        other = dataset.about(phrase)
        folder = Path(f"{run.folder}_{as_file_name(phrase)}")
        how = {"split": run.split, "limit": limit, "role": "phrase", "of": run}
        how["track"] = run.meta.get("tracked") or False
        asked = predict_dataset(segmenter, other, folder=folder, **how)
        made.append((asked, other))
    return made


def find_others(run: Run, dataset: Dataset) -> list[tuple[Run, Dataset]]:
    """What `predict_others` made for this run before, where the model is no longer at hand; finished ones only."""
    by_phrase = {made.phrase: made for made in find_beside(run, "phrase", but=["prompt"])}
    return [(by_phrase[phrase], dataset.about(phrase)) for phrase in dataset.phrases if phrase in by_phrase]


def measure_phrase(run: Run, dataset: Dataset, *, threshold: float = 0.5) -> dict:
    """How well one thing is found where it is annotated, and how often it is refused where it is not.

    phrase; dice, low, high, n_there and n_groups: macro mean over the images in which something of it is annotated
    (no mask counts as 0), 95 % bootstrap over patients; refused of n_absent: answers without [SEG] where an annotated
    image shows nothing of it. Images that failed or that nobody annotated count nowhere. Undefined is NaN.
    """
    table = evaluate_run(run, dataset, threshold=threshold)
    there, absent = table[table["truth_area"] > 0], table[table["truth_area"] == 0]
    found = mean_interval(there["dice"], there["group"])
    return {
        "phrase": run.phrase,
        "dice": found.mean,
        "low": found.low,
        "high": found.high,
        "n_there": len(there),
        "n_groups": found.n_groups,
        "refused": int((absent["n_seg"] == 0).sum()),
        "n_absent": len(absent),
    }


def ask_otherwise(
    segmenter,
    run: Run,
    dataset: Dataset,
    *,
    prompts: Sequence[str] = QUESTIONS,
    limit: int = IMAGES,
    refused: Sequence[str] = (),
) -> list[Run]:
    """A run for each of the prompts over a few of the run's images; they lie in `asked/` beside it, and resume.

    prompts: questions, in which {phrase} stands for what the data set looks for. The one that the run asked anyway is
    left out. limit: images, evenly spread over the run's. refused: of these (`list_refused`) so many are asked apart
    that are not among them. None of a run that tracked films: single images would differ by more than their words.
    """
    if run.meta.get("tracked"):
        return []
    from sa2va_lab.sa2va.processing import phrase_prompt

    phrase, spread = run.meta["dataset"]["phrase"], choose_samples(dataset.select(run.sample_ids), limit)[0]
    apart = set(refused) - {sample.id for sample in spread}
    asked = [phrase_prompt(prompt.format(phrase=phrase))[0] for prompt in prompts]
    others = [prompt for prompt in asked if prompt != phrase_prompt(run.meta["prompt"])[0]]
    folder, how = run.folder.parent / FOLDER, {"limit": limit, "role": "asked", "of": run}
    return [
        predict_dataset(
            segmenter, dataset.select(ids), folder=folder / f"{run.folder.name}_{part}{number}", prompt=prompt, **how
        )
        for part, ids in (("", run.sample_ids), ("refused_", apart))
        if ids
        for number, prompt in enumerate(others, 1)
    ]


def find_asked(run: Run) -> list[Run]:
    """What `ask_otherwise` made for this run before, where the model is no longer at hand; unfinished ones left out."""
    return sorted(find_beside(run, "asked", but=["prompt"]), key=lambda made: made.folder.name)


def list_refused(table: pd.DataFrame) -> list[str]:
    """Images of an `evaluate_run` in which something is annotated and that were answered without a mask."""
    return table.loc[(table["n_seg"] == 0) & (table["truth_area"] > 0), "id"].tolist()


def measure_refused(table: pd.DataFrame, asked: Sequence[Run]) -> dict:
    """What was refused although it is annotated, and what other words gave there.

    ids: of `list_refused`, n of the `of` images in which something is annotated. said: [{id, prompt, answer, named}],
    a row for each of them that a run of `asked` holds. asked, named: of how many images there is such a row, and how
    many of those were given a mask by some of the other words.
    """
    ids = list_refused(table)
    said = [
        {"id": record["id"], "prompt": made.meta["prompt"], "answer": record["answer"], "named": record["n_seg"] > 0}
        for made in asked
        for record in made.records
        if record["id"] in ids and record["error"] is None
    ]
    counts = {"n": len(ids), "of": int((table["truth_area"] > 0).sum()), "asked": len({row["id"] for row in said})}
    return counts | {"named": len({row["id"] for row in said if row["named"]}), "ids": ids, "said": said}


def compare_wordings(run: Run, asked: Sequence[Run], dataset: Dataset, *, threshold: float = 0.5) -> list[dict]:
    """What each prompt gave on the images that all of them were asked about, the run's own first.

    [{prompt, n_images, n_groups, dice, low, high, answers {text: images}, difference}]: difference is a `Difference`,
    Dice of the prompt less that of the run's own, image by image; None for the run's own.
    """
    if not asked:
        return []
    first = evaluate_run(run, dataset, threshold=threshold)
    refused = set(list_refused(first))  # those are asked apart as well
    asked = [made for made in asked if not set(made.sample_ids) <= refused] or asked
    others = [evaluate_run(made, dataset, threshold=threshold) for made in asked]
    tables = [table.set_index("id") for table in (first, *others)]
    shared = [name for name in tables[0].index if all(name in table.index for table in tables[1:])]
    own, rows = tables[0].loc[shared], []
    for made, table in zip((run, *asked), tables, strict=True):
        here = table.loc[shared]
        found = mean_interval(here["dice"], here["group"])
        row = {"prompt": made.maker.prompt, "n_images": found.n_images, "n_groups": found.n_groups}
        row |= {"dice": found.mean, "low": found.low, "high": found.high}
        row["answers"] = dict(Counter(here["answer"].dropna()).most_common())
        row["difference"] = None if made is run else compare_paired(here["dice"], own["dice"], own["group"])
        rows.append(row)
    return rows


def pick_prompts(compared: list[dict]) -> list[dict]:
    """What metrics.json keeps of `compare_wordings`."""
    return [{key: row[key] for key in ("prompt", "dice", "low", "high", "n_images", "answers")} for row in compared]
