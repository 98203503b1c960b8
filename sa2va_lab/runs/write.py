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
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tqdm.auto import tqdm

from sa2va_lab.errors import LabError
from sa2va_lab.files import PART, hash_splits, write_json, write_whole
from sa2va_lab.runs.asking import Told, ask_run, list_films
from sa2va_lab.runs.read import LINES, LOGITS, META, Maker, Role, Run, list_edits, open_run, read_lines, seal_run
from sa2va_lab.sa2va.processing import phrase_prompt

LOCK = ".lock"
KEEP = 5  # frames of a film that the language model sees, as the official code shows them
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
    track: bool | Mapping = False,
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
    manifest_sha256, `split(name)`, `select(ids)`, `spread(count)` and samples, each with an id that may name a file
    and an image (its path).
    prompt: for every image; None asks each the question that it brings (`sample.prompt`), else the data set's phrase.
    limit: so many samples at most, evenly spread over the split, so that they are not all of one patient.
    batch: so many images at once, always the same ones: what lies together moves logits by rounding, so a batch that a
    kill cut through is predicted again whole. "auto": what a former start took, else what the segmenter's
    `choose_batch() -> (batch, reason)` says, where it has that, else 1. track: asks each sequence of the data set
    once and follows it with `segmenter.track(frames, prompt)`, or with more that this takes, such as {"keep": 5}; a
    film that a kill cut through is tracked again whole. role, of: what the run is for, and for which other
    (`Run.role`).
    A sample that cannot be predicted gets a record with its error, and the others go on. retry_failed: samples whose
    last record is an error are tried once more; the new record is appended, and the last record of a sample counts.
    Raises LabError, before anything is written, for what `check_request` refuses, and a run of other weights,
    precision or images; also when another process writes to the same run.
    """
    folder = Path(folder)
    asked = {"prompt": prompt, "split": split, "limit": limit, "batch": batch, "track": track}
    chosen, how = check_request(dataset, folder=folder, **asked)
    meta = _describe(segmenter, chosen, prompt=prompt, how=how)
    batch, why = (1, "1: a film goes frame by frame") if track else _choose_batch(segmenter, batch, folder)
    meta |= {"tracked": tell_tracking(track)} if track else {}
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
    track: bool | Mapping = False,
) -> tuple:
    """The samples that would be predicted, and how they were chosen; nothing is written.

    Raises LabError for an empty prompt, an unknown split, a limit or batch below 1, a folder that holds something else,
    and a run in it that is damaged or was asked something else or about other samples; where films are to be tracked
    also for a limit or batch, which take images singly.
    """
    folder = Path(folder)
    if prompt is not None:
        check_prompt(prompt)
    if batch != "auto" and not (isinstance(batch, int) and batch > 0):
        raise LabError(f'the batch is {batch}; expected "auto", or at least 1 image at once')
    chosen, how = choose_samples(dataset.split(split), limit)
    if track:
        if limit is not None or batch != "auto":
            raise LabError("a limit or a batch takes images singly, and films are tracked whole: leave it out")
        how = f"{how}, as {len(list_films(chosen.samples))} films"
    if not (prompt or chosen.phrase):
        raise LabError("nothing says what to find in these images: give a prompt, such as 'blood vessel'")
    check_prompt(prompt or chosen.phrase)
    _refuse_foreign(folder)
    if (folder / META).exists():
        run = open_run(folder)
        now = {"own_prompts": False, "tracked": tell_tracking(track)} | _choose_prompt(chosen, prompt)
        here = Maker.read(run.meta | now)
        asked = {"prompt": here.prompt, "tracking": here.tracking}
        asked["images"] = f"{len(chosen.samples)}, {chosen.manifest_sha256}"
        _refuse_other(run, asked if batch == "auto" else asked | {"batch": str(batch)})
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
    return dataset.spread(limit), f"{limit} of {count} images, evenly spread over the ids"


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


def tell_tracking(track: bool | Mapping) -> dict | None:
    """What run.json says of how films are tracked."""
    return {"keep": KEEP, "sample": None} | (dict(track) if isinstance(track, Mapping) else {}) if track else None


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
    for what in here:
        if there[what] != here[what]:
            raise LabError(
                f"the run {run.folder} was made with other {what} ({there[what][:16]} there, {here[what][:16]} here); "
                "choose a new folder, or delete this one"
            )


def _list_facts(meta: dict) -> dict[str, str]:
    """What makes a Run; other code alone does not make another one."""
    facts = vars(Maker.read(meta)) | {"batch": str(meta.get("batch", 1))}
    facts["images"] = f"{len(meta['dataset']['samples'])}, {meta['dataset']['manifest_sha256']}"
    return {name: fact for name, fact in facts.items() if name != "code"}


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
    run, samples = open_run(folder), chosen.samples
    done = {record["id"] for record in run.records} - (set(run.failed_ids) if retry_failed else set())
    before, noted = run.meta.get("steps", []), None
    bar = tqdm(total=len(samples), initial=len(done), unit="image", disable=not progress, dynamic_ncols=True)
    asked = ask_run(segmenter, samples, meta, {sample.id for sample in samples} - done)

    def write(made: list[Told], steps: list[dict]) -> None:
        nonlocal noted
        for _, record, prediction in made:
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
    with bar, closing(asked), open(folder / LINES, "ab") as lines, ThreadPoolExecutor(1) as writer:
        writing = writer.submit(list)
        for made in asked:
            bar.set_postfix_str(made[-1].sample.id)
            writing.result()  # at most one batch waits to be written; a full disk ends the run here
            writing = writer.submit(write, made, list(segmenter.provenance.get("steps", [])))
        writing.result()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
