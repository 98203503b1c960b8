"""Predicting a data set into a Run, so that a kill at any moment loses at most the sample in flight.

A file is complete or it does not exist, and a line that was cut off is dropped when the Run goes on. What is asked is
checked in `check_request`, which needs no model: call it before one is loaded.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from itertools import zip_longest
from pathlib import Path
from types import MappingProxyType

import numpy as np
from tqdm.auto import tqdm

from sa2va_lab.errors import LabError
from sa2va_lab.files import PART, hash_splits, sha256, write_json, write_whole
from sa2va_lab.prediction import Prediction
from sa2va_lab.runs.read import LINES, LOGITS, META, Role, Run, describe_maker, open_run, read_lines
from sa2va_lab.runs.seal import list_edits, seal_run
from sa2va_lab.sa2va.processing import phrase_prompt

LOCK = ".lock"
PACKAGES = ("sa2va-lab", "torch", "transformers", "tokenizers", "safetensors", "numpy", "pillow")


def predict_dataset(
    segmenter,
    dataset,
    *,
    folder: str | Path,
    prompt: str | None = None,
    split: str = "all",
    limit: int | None = None,
    batch: int | str = "auto",
    role: Role = "main",
    of: Run | None = None,
    retry_failed: bool = False,
    progress: bool = True,
) -> Run:
    """Predicts every sample of a split once and returns the run; what a former start finished is not done again.

    segmenter: has `predict(image_path, prompt) -> Prediction`, for batches `predict_many(image_paths, prompt, batch=)`,
    and `provenance`; it is given nothing else. Where it has `keep_draft`, the first image is asked once more at each
    start, so that no logits hang on where a start began; where it has `prepare`, it is told which images are asked
    about now and next. dataset: has phrase (None where only a prompt says what to find), format, reason, split_name,
    manifest_sha256, `split(name)`, `select(ids)` and samples, each with an id that may name a file and an image (its
    path).
    prompt: for every image; None asks each the question that it brings (`sample.prompt`), else the data set's phrase.
    limit: so many samples at most, evenly spread over the split, so that they are not all of one patient.
    batch: so many images at once, always the same ones: what lies together moves logits by rounding, so a batch that a
    kill cut through is predicted again whole. "auto": what a former start took, else what the segmenter's
    `choose_batch() -> (batch, reason)` says, where it has that, else 1. role, of: what the run is for, and for which
    other (`Run.role`).
    A sample that cannot be predicted gets a record with its error, and the others go on. retry_failed: samples whose
    last record is an error are tried once more; the new record is appended, and the last record of a sample counts.
    Raises LabError, before anything is written, for what `check_request` refuses, and a run of other weights,
    precision or images; also when another process writes to the same run.
    """
    folder = Path(folder)
    chosen, how = check_request(dataset, folder=folder, prompt=prompt, split=split, limit=limit, batch=batch)
    meta = _describe(segmenter, chosen, prompt=prompt, how=how)
    batch, why = _choose_batch(segmenter, batch, folder)
    meta |= {"batch": batch, "batch_reason": why, "role": role, "of": of and of.folder.name}
    if (folder / META).exists():
        run = open_run(folder)
        _refuse_other(run, _list_facts(meta))
        if run.finished and run.meta["finished"] and not (retry_failed and run.failed_ids):
            return run
    try:
        (folder / LOGITS).mkdir(parents=True, exist_ok=True)
        with lock_folder(folder):
            _start(folder, meta)
            _predict_rest(segmenter, chosen, meta, folder, retry_failed=retry_failed, progress=progress)
            seal_run(folder, open_run(folder).meta | {"finished": _now()})
            return open_run(folder)
    except OSError as error:  # of the folder: what goes wrong with an image is caught where it is predicted
        raise LabError(
            f"the run {folder} cannot be written ({error.strerror}); make room or choose another folder: "
            "what is finished is kept, and a second start there resumes"
        ) from error


def check_request(
    dataset,
    *,
    folder: str | Path,
    prompt: str | None = None,
    split: str = "all",
    limit: int | None = None,
    batch: int | str = "auto",
) -> tuple:
    """The samples that would be predicted, and how they were chosen; nothing is written.

    Raises LabError for an empty prompt, an unknown split, a limit or batch below 1, a folder that holds something else,
    and a run in it that is damaged or was asked something else or about other samples.
    """
    folder = Path(folder)
    if prompt is not None:
        check_prompt(prompt)
    if batch != "auto" and not (isinstance(batch, int) and batch > 0):
        raise LabError(f'the batch is {batch}; expected "auto", or at least 1 image at once')
    chosen, how = choose_samples(dataset.split(split), limit)
    if not (prompt or chosen.phrase):
        raise LabError("nothing says what to find in these images: give a prompt, such as 'blood vessel'")
    check_prompt(prompt or chosen.phrase)
    _refuse_foreign(folder)
    if (folder / META).exists():
        run = open_run(folder)
        asked = {"prompt": describe_maker(run.meta | {"own_prompts": False} | _choose_prompt(chosen, prompt)).prompt}
        _refuse_other(run, asked if batch == "auto" else asked | {"batch": str(batch)})
        if run.sample_ids != [sample.id for sample in chosen.samples]:
            _refuse(run, "images", len(run.sample_ids), len(chosen.samples))
    return chosen, how


def check_prompt(prompt: str) -> None:
    """LabError for a prompt that asks nothing, or that no Sa2VA is asked."""
    if not prompt.strip():
        raise LabError("the prompt is empty; expected what to find, such as 'blood vessel', or no prompt at all")
    phrase_prompt(prompt)


def choose_samples(dataset, limit: int | None) -> tuple:
    """The samples that a limit leaves, and how they were chosen; LabError for a limit below 1."""
    if limit is not None and limit < 1:
        raise LabError(f"the limit is {limit}; expected at least 1 image, or no limit at all")
    count = len(dataset.samples)
    if limit is None or limit >= count:
        return dataset, f"all {count} images"
    spread = [dataset.samples[place * count // limit].id for place in range(limit)]
    return dataset.select(spread), f"{limit} of {count} images, evenly spread over the ids"


def _describe(segmenter, dataset, *, prompt: str | None, how: str) -> dict:
    provenance = segmenter.provenance
    return {
        "format": 1,
        "stamp": provenance.get("stamp"),
        "segmenter": provenance,
        **_choose_prompt(dataset, prompt),
        "dataset": {
            "manifest_sha256": dataset.manifest_sha256,
            "format": dataset.format,
            "reason": dataset.reason,
            "phrase": dataset.phrase,
            "split": dataset.split_name,
            "splits_sha256": hash_splits(getattr(dataset, "splits", {})),
            "chosen": how,
            "samples": [sample.id for sample in dataset.samples],
        },
        "seed": provenance.get("seed"),
        "started": _now(),
        "finished": None,
        "resumed": [],
        "python": platform.python_version(),
        "packages": {name: _read_version(name) for name in PACKAGES},
        "git": read_git_state(Path(__file__).resolve().parents[2]),
    }


@cache  # asked for each Run, and slow where many packages are installed
def _read_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _choose_prompt(dataset, prompt: str | None) -> dict:
    """What run.json says of what is asked: the prompt, its reason, and whether images bring a question of their own."""
    if prompt:
        return {"prompt": prompt, "prompt_reason": "as asked"}
    told = {"prompt": dataset.phrase, "prompt_reason": "the phrase of the data set"}
    if any(getattr(sample, "prompt", None) for sample in dataset.samples):
        told["prompt_reason"] += ", where an image brings no question of its own"
        told["own_prompts"] = True
    return told


def _choose_batch(segmenter, asked: int | str, folder: Path) -> tuple[int, str]:
    if asked != "auto":
        return asked, "as asked"
    if (folder / META).exists():
        return open_run(folder).meta.get("batch", 1), "as the run was begun"
    choose = getattr(segmenter, "choose_batch", None)
    return choose() if choose else (1, "1: this segmenter answers one image at a time")


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
    for name in (LINES, LOGITS, LOCK):
        if (folder / name).is_symlink():
            raise LabError(f"{folder / name} is a link, and a run is not written through links; choose a new folder")
    # a start that was killed before its run.json leaves these and an empty logits/
    ours = {LOCK} | ({LOGITS} if not list(folder.glob(f"{LOGITS}/*")) else set())
    others = [path.name for path in folder.iterdir() if path.name not in ours and path.suffix != PART]
    if others and not (folder / META).exists():
        raise LabError(
            f"{folder} holds something else ({len(others)} entries, no {META}); expected a new or empty folder "
            "or a run to resume, choose another name"
        )


def _refuse_other(run: Run, here: dict[str, str]) -> None:
    """Refuses to go on with a run that was made otherwise; here: what is known of what would be made now."""
    there = _list_facts(run.meta)
    for name in here:
        if there[name] != here[name]:
            _refuse(run, name, there[name], here[name])


def _list_facts(meta: dict) -> dict[str, str]:
    maker = describe_maker(meta)
    facts = {"weights": maker.weights, "precision": maker.precision, "prompt": maker.prompt}
    return facts | {"batch": str(meta.get("batch", 1)), "images": meta["dataset"]["manifest_sha256"]}


def _refuse(run: Run, what: str, there: object, here: object) -> None:
    raise LabError(
        f"the run {run.folder} was made with other {what} ({str(there)[:16]} there, {str(here)[:16]} here); "
        "choose a new folder, or delete this one"
    )


@contextmanager
def lock_folder(folder: Path, name: str = LOCK, *, wait: bool = False) -> Iterator[None]:
    """Within it no other process is; LabError, or with `wait` patience, while one is. It ends with the process, however
    that ends."""
    # neither through a link, nor waiting for who else has a pipe open
    with open(os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW), "rb") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
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
    _refuse_other(run, _list_facts(meta))
    edited = list_edits(run) or []  # before anything is mended: a resumed Run is sealed again, and must not hide it
    if (folder / LINES).exists():
        os.truncate(folder / LINES, read_lines(folder / LINES)[1])
    again = {name: meta[name] for name in ("started", "python", "packages", "git")}
    again |= {"device": meta["segmenter"].get("device"), "edited": edited}
    write_json(folder / META, run.meta | {"resumed": [*run.meta["resumed"], again], "seal": None})


def _predict_rest(segmenter, chosen, meta: dict, folder: Path, *, retry_failed: bool, progress: bool) -> None:
    run, samples, batch = open_run(folder), chosen.samples, meta["batch"]
    own = {sample.id: sample.prompt for sample in samples if sample.prompt} if meta.get("own_prompts") else {}
    done = {record["id"] for record in run.records} - (set(run.failed_ids) if retry_failed else set())
    before, noted = run.meta.get("steps", []), None
    batches = [samples[start : start + batch] for start in range(0, len(samples), batch)]
    rest = [group for group in batches if any(sample.id not in done for sample in group)]
    keep = getattr(segmenter, "keep_draft", None) if rest else None  # always by the first sample of all, done or not
    bar = tqdm(total=len(samples), initial=len(done), unit="image", disable=not progress, dynamic_ncols=True)
    kept = keep(samples[0].image, own.get(samples[0].id, meta["prompt"])) if keep else nullcontext()
    told = getattr(segmenter, "prepare", lambda images: None)

    def write(pairs: list[tuple[dict, Prediction | None]], steps: list[dict]) -> None:
        nonlocal noted
        for record, prediction in pairs:
            if record["id"] in done:
                continue
            if prediction is not None:
                logits = prediction.to_bytes()
                record["logits_sha256"] = hashlib.sha256(logits).hexdigest()
                write_whole(folder / LOGITS / f"{record['id']}.npz", logits)
            if len(steps) != noted:  # down the ladder: said before the first line that it made
                write_json(folder / META, open_run(folder).meta | {"steps": [*before, *steps]})
                noted = len(steps)
            lines.write(json.dumps(record).encode() + b"\n")
            lines.flush()
            os.fsync(lines.fileno())
            bar.update()

    # one thread packs and writes what is done, while the next images are with the model
    with bar, kept, open(folder / LINES, "ab") as lines, ThreadPoolExecutor(1) as writer:
        writing = writer.submit(list)
        for group, following in zip_longest(rest, rest[1:], fillvalue=()):
            told([sample.image for sample in (*group, *following)])
            bar.set_postfix_str(group[0].id)
            pairs = predict_samples(segmenter, group, meta["prompt"], own)
            writing.result()  # at most one batch waits to be written; a full disk ends the run here
            writing = writer.submit(write, pairs, list(segmenter.provenance.get("steps", [])))
        writing.result()


def predict_samples(
    segmenter, samples: Sequence, prompt: str, own: Mapping[str, str] = MappingProxyType({}), **how
) -> list[tuple[dict, Prediction | None]]:
    """A record for each sample and what was predicted, None where that failed: the one way from images to answers.

    own: by id, what is asked instead of `prompt`; such images are asked one by one. how: more that `predict` takes.
    Where a batch fails, its images are asked one by one: one must not cost the others.
    """
    if len(samples) > 1 and any(sample.id in own for sample in samples):
        return [pair for sample in samples for pair in predict_samples(segmenter, [sample], prompt, own, **how)]
    prompt = own.get(samples[0].id, prompt)
    begun, images = time.perf_counter(), [sample.image for sample in samples]
    try:
        if len(images) == 1:
            made = [segmenter.predict(images[0], prompt, **how)]
        else:
            made = list(segmenter.predict_many(images, prompt, batch=len(images), **how))
        if not all(np.isfinite(one.logits).all() for one in made):  # a mask of NaN would look like "nothing found"
            raise LabError("the logits hold values that are not finite; a higher precision may help")
    except Exception as error:  # whatever happened is the record
        if len(samples) > 1:
            return [pair for sample in samples for pair in predict_samples(segmenter, [sample], prompt, **how)]
        made = [None]
        said = str(error) if isinstance(error, LabError) else f"{type(error).__name__}: {error}"
        said = _without_names(said, samples[0])
    wall = (time.perf_counter() - begun) / len(samples)
    precision = segmenter.provenance.get("precision", {}).get("actual")
    pairs = []
    for sample, prediction in zip(samples, made, strict=True):
        record = {"id": sample.id, "image_sha256": hash_image(sample.image), "error": None if prediction else said}
        record |= dict.fromkeys(("answer", "n_seg", "size", "canvas", "peak_bytes", "logits_sha256"))
        record |= {"seconds": {"wall": wall}, "precision": precision}
        record |= {"prompt": prompt} if sample.id in own else {}
        if prediction:
            record |= {name: getattr(prediction, name) for name in ("answer", "n_seg", "peak_bytes")}
            record |= {"size": [int(side) for side in prediction.size], "canvas": int(prediction.canvas)}
            stages = {stage: float(spent) for stage, spent in prediction.seconds.items()}
            record["seconds"] = stages | record["seconds"]
        pairs.append((record, prediction))
    return pairs


def hash_image(path: Path) -> str | None:
    """Hash of the bytes of an image's file as they are now; None where it cannot be read."""
    try:
        return sha256(path) if path.is_file() else None
    except OSError:
        return None


def _without_names(text: str, sample) -> str:
    """An error's text with the image's pseudonym for its file name, which may name a patient."""
    image = sample.image
    for name in (os.path.realpath(image), str(image), image.name, image.stem):
        if len(name) > 3:  # a stem such as "1" would be replaced everywhere, and names nobody
            text = text.replace(name, sample.id)
    return text


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
