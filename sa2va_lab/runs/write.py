"""Predicting a data set into a Run, so that a kill at any moment loses at most the sample in flight.

A file is complete or it does not exist, and a line that was cut off is dropped when the Run goes on.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sa2va_lab.errors import LabError
from sa2va_lab.files import PART, write_json, write_whole
from sa2va_lab.runs.read import LINES, LOGITS, META, Run, open_run, read_lines

if TYPE_CHECKING:
    from sa2va_lab.datasets.samples import Dataset, Sample

LOCK = ".lock"
PACKAGES = ("sa2va-lab", "torch", "transformers", "tokenizers", "safetensors", "numpy", "pillow")


def predict_dataset(
    segmenter,
    dataset: Dataset,
    *,
    folder: str | Path,
    prompt: str | None = None,
    split: str = "all",
    limit: int | None = None,
    retry_failed: bool = False,
    progress: bool = True,
) -> Run:
    """Predicts every sample of a split once and returns the run; what a former start finished is not done again.

    segmenter: has `predict(image_path, prompt) -> Prediction` and `provenance`; it is given nothing else. Where it has
    `keep_draft`, the first image is asked once more at each start, so that no logits hang on where a start began.
    prompt: for every image; None takes the phrase of the data set.
    limit: so many samples at most, evenly spread over the split, so that they are not all of one patient.
    A sample that cannot be predicted gets a record with its error, and the others go on. retry_failed: samples whose
    last record is an error are tried once more; the new record is appended, and the last record of a sample counts.
    Raises LabError, before anything is written, for an empty prompt, an unknown split, a folder that holds something
    else, and a run of other weights, precision, prompt or data; also when another process writes to the same run.
    """
    folder = Path(folder)
    if prompt is not None and not prompt.strip():
        raise LabError("the prompt is empty; expected what to find, such as 'blood vessel', or no prompt at all")
    chosen, how = choose_samples(dataset.split(split), limit)
    _refuse_foreign(folder)
    meta = _describe(segmenter, chosen, prompt=prompt, how=how)
    if (folder / META).exists():
        run = open_run(folder)
        _refuse_other(run, meta)
        if run.finished and run.meta["finished"] and not (retry_failed and run.failed_ids):
            return run
    try:
        (folder / LOGITS).mkdir(parents=True, exist_ok=True)
        with _only_writer(folder):
            _start(folder, meta)
            _predict_rest(segmenter, chosen, prompt, folder, retry_failed=retry_failed, progress=progress)
            run = open_run(folder)
            write_json(folder / META, run.meta | {"finished": _now()})
            return open_run(folder)
    except OSError as error:  # of the folder: what goes wrong with an image is caught where it is predicted
        raise LabError(
            f"the run {folder} cannot be written ({error.strerror}); make room or choose another folder: "
            "what is finished is kept, and a second start there resumes"
        ) from error


def choose_samples(dataset: Dataset, limit: int | None) -> tuple[Dataset, str]:
    """The samples that a limit leaves, and how they were chosen; LabError for a limit below 1."""
    if limit is not None and limit < 1:
        raise LabError(f"the limit is {limit}; expected at least 1 image, or no limit at all")
    if limit is None or limit >= len(dataset):
        return dataset, f"all {len(dataset)} images"
    spread = [dataset.samples[place * len(dataset) // limit].id for place in range(limit)]
    return dataset.select(spread), f"{limit} of {len(dataset)} images, evenly spread over the ids"


def _describe(segmenter, dataset: Dataset, *, prompt: str | None, how: str) -> dict:
    provenance = segmenter.provenance
    return {
        "format": 1,
        "stamp": provenance.get("stamp"),
        "segmenter": provenance,
        "prompt": prompt or dataset.phrase,
        "prompt_reason": "as asked" if prompt else "the phrase of the data set",
        "dataset": {
            "manifest_sha256": dataset.manifest_sha256,
            "format": dataset.format,
            "reason": dataset.reason,
            "phrase": dataset.phrase,
            "split": dataset.split_name,
            "chosen": how,
            "samples": [sample.id for sample in dataset],
        },
        "seed": provenance.get("seed"),
        "started": _now(),
        "finished": None,
        "resumed": [],
        **_describe_code(),
    }


def _describe_code() -> dict:
    installed = {found.name.lower(): found.version for found in distributions()}
    return {
        "python": platform.python_version(),
        "packages": {name: installed.get(name) for name in PACKAGES},
        "git": read_git_state(Path(__file__).resolve().parents[2]),
    }


def read_git_state(checkout: Path) -> dict:
    """{"commit", "dirty", "reason"} of the top folder of a git checkout; None, None and why where it is not one."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(checkout), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")) != checkout:
            return {"commit": None, "dirty": None, "reason": "the package is not in a git checkout of its own"}
        commit, dirty = git("rev-parse", "--verify", "HEAD"), bool(git("status", "--porcelain"))
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None, "reason": "no git checkout with a commit"}
    return {"commit": commit, "dirty": dirty, "reason": "uncommitted changes" if dirty else "as committed"}


def _refuse_foreign(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise LabError(f"{folder} is a file; expected a folder for the run, choose another name")
    # a start that was killed before its run.json leaves these and an empty logits/
    ours = {LOCK} | ({LOGITS} if not list(folder.glob(f"{LOGITS}/*")) else set())
    others = [path.name for path in folder.iterdir() if path.name not in ours and path.suffix != PART]
    if others and not (folder / META).exists():
        raise LabError(
            f"{folder} holds something else ({len(others)} entries, no {META}); expected a new or empty folder "
            "or a run to resume, choose another name"
        )


def _refuse_other(run: Run, meta: dict) -> None:
    def facts(of: dict) -> dict[str, str]:
        return {
            "weights": str(of["segmenter"]["weights_sha256"]),
            "precision": str(of["segmenter"].get("precision", {}).get("actual")),
            "prompt": of["prompt"],
            "images": of["dataset"]["manifest_sha256"],
        }

    there, here = facts(run.meta), facts(meta)
    differ = [name for name in there if there[name] != here[name]]
    if differ:
        told = ", ".join(f"other {name} ({there[name][:16]} there, {here[name][:16]} here)" for name in differ)
        raise LabError(f"the run {run.folder} was made with {told}; choose a new folder, or delete this one")


@contextmanager
def _only_writer(folder: Path) -> Iterator[None]:
    with open(folder / LOCK, "a") as handle:  # the lock ends with the process, however that ends
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LabError(
                f"another process is writing to the run {folder}; wait until it is done, or choose another folder"
            ) from None
        yield


def _start(folder: Path, meta: dict) -> None:
    """Brings the folder to where a former start left it: no half-written file, no cut-off line."""
    for path in (*folder.glob(f"*{PART}"), *(folder / LOGITS).glob(f"*{PART}")):
        path.unlink()
    if not (folder / META).exists():
        write_json(folder / META, meta)
        return
    run = open_run(folder)
    _refuse_other(run, meta)
    if (folder / LINES).exists():
        os.truncate(folder / LINES, read_lines(folder / LINES)[1])
    again = {name: meta[name] for name in ("started", "python", "packages", "git")}
    again["device"] = meta["segmenter"].get("device")
    write_json(folder / META, run.meta | {"resumed": [*run.meta["resumed"], again]})


def _predict_rest(
    segmenter, dataset: Dataset, prompt: str | None, folder: Path, *, retry_failed: bool, progress: bool
) -> None:
    from tqdm import tqdm

    run = open_run(folder)
    done = {record["id"] for record in run.records} - (set(run.failed_ids) if retry_failed else set())
    before, noted = run.meta.get("steps", []), None
    rest, first = [sample for sample in dataset if sample.id not in done], next(iter(dataset), None)
    keep = getattr(segmenter, "keep_draft", None) if rest else None  # always by the first sample of all, done or not
    bar = tqdm(total=len(dataset), initial=len(done), unit="image", disable=not progress, dynamic_ncols=True)
    kept = keep(first.image, prompt or first.phrase) if keep else nullcontext()
    with bar, kept, open(folder / LINES, "ab") as lines:
        for sample in rest:
            record, logits = _predict_one(segmenter, sample, prompt or sample.phrase)
            record["precision"] = segmenter.provenance.get("precision", {}).get("actual")
            if logits is not None:
                write_whole(folder / LOGITS / f"{sample.id}.npz", logits)
            steps = segmenter.provenance.get("steps", [])
            if len(steps) != noted:  # down the ladder: said before the first line that it made
                write_json(folder / META, open_run(folder).meta | {"steps": [*before, *steps]})
                noted = len(steps)
            lines.write(json.dumps(record).encode() + b"\n")
            lines.flush()
            os.fsync(lines.fileno())
            bar.update()


def _predict_one(segmenter, sample: Sample, prompt: str) -> tuple[dict, bytes | None]:
    record = {"id": sample.id, "image_sha256": sample.image_sha256(), "error": None}
    record |= dict.fromkeys(("answer", "n_seg", "size", "canvas", "peak_bytes", "logits_sha256"))
    begun = time.perf_counter()
    try:
        prediction = segmenter.predict(sample.image, prompt)
        if not np.isfinite(prediction.logits).all():  # a mask of NaN would look like "nothing found"
            raise LabError("the logits hold values that are not finite; a higher precision may help")
    except Exception as error:  # one image must not cost the others: what happened is the record
        said = str(error) if isinstance(error, LabError) else f"{type(error).__name__}: {error}"
        return record | {"error": _without_names(said, sample), "seconds": {"wall": time.perf_counter() - begun}}, None
    logits = prediction.to_bytes()
    return record | {
        "answer": prediction.answer,
        "n_seg": prediction.n_seg,
        "size": [int(side) for side in prediction.size],
        "canvas": int(prediction.canvas),
        "seconds": {stage: float(spent) for stage, spent in prediction.seconds.items()}
        | {"wall": time.perf_counter() - begun},
        "peak_bytes": prediction.peak_bytes,
        "logits_sha256": hashlib.sha256(logits).hexdigest(),
    }, logits


def _without_names(text: str, sample: Sample) -> str:
    """An error's text with the image's pseudonym for its file name, which may name a patient."""
    image = sample.image
    for name in (str(image.resolve()), str(image), image.name, image.stem):
        if len(name) > 3:  # a stem such as "1" would be replaced everywhere, and names nobody
            text = text.replace(name, sample.id)
    return text


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
