"""Runs: predictions on disk, made once and looked at many times.

    run.json        what was run: weights, precision, device, prompt, data, code, times
    samples.jsonl   a line a finished sample, failures included; only ever appended to
    logits/<id>.npz the logits of a sample, on disk before its line is

A kill at any moment loses at most the sample in flight: a file is complete or it does not exist, and a line that was
cut off is dropped when the run goes on.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path

from sa2va_lab.errors import LabError
from sa2va_lab.prediction import Prediction

META, LINES, LOGITS = "run.json", "samples.jsonl", "logits"


@dataclass(frozen=True)
class Run:
    """A run as it lies on disk.

    meta: what run.json says. records: one per finished sample, its last attempt, each with id, image_sha256,
    error (None where it went well), precision (of the network that made it), answer, n_seg, size, canvas, seconds,
    peak_bytes, logits_sha256.
    """

    folder: Path
    meta: dict
    records: list[dict]

    @property
    def sample_ids(self) -> list[str]:
        """Every sample that the run is about, finished or not."""
        return self.meta["dataset"]["samples"]

    @property
    def failed_ids(self) -> list[str]:
        """Samples that could not be predicted."""
        return [record["id"] for record in self.records if record["error"] is not None]

    @property
    def finished(self) -> bool:
        """Whether every sample has its record."""
        return {record["id"] for record in self.records} >= set(self.sample_ids)

    def prediction(self, sample_id: str) -> Prediction:
        """What was predicted for a sample; LabError when it failed, was not reached, or was damaged since."""
        record = next((record for record in self.records if record["id"] == sample_id), None)
        if record is None:
            raise LabError(f"the run {self.folder} has no sample {sample_id} so far; see Run.sample_ids, or resume it")
        if record["error"] is not None:
            raise LabError(f"the run {self.folder} has no prediction of {sample_id}: {record['error']}")
        path = self.folder / LOGITS / f"{sample_id}.npz"
        try:
            content = path.read_bytes()
        except OSError as error:
            raise LabError(f"{path} cannot be read ({error.strerror}); predict again in a new folder") from error
        if hashlib.sha256(content).hexdigest() != record["logits_sha256"]:
            raise LabError(f"{path} is not what was predicted (its hash differs); predict again in a new folder")
        return Prediction.from_npz(
            io.BytesIO(content), answer=record["answer"], seconds=record["seconds"], peak_bytes=record["peak_bytes"]
        )


def open_run(folder: str | Path) -> Run:
    """Opens a run for reading, also while it is being made."""
    folder = Path(folder)
    if not (folder / META).is_file():
        raise LabError(f"{folder} is not a run (it has no {META}); expected a folder that a prediction wrote")
    try:
        meta = json.loads((folder / META).read_bytes())
        meta["dataset"]["samples"], meta["segmenter"]["weights_sha256"]  # what everything else stands on
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise LabError(f"{folder / META} cannot be read ({error!r}); predict again in a new folder") from error
    last = {record["id"]: record for record in read_lines(folder / LINES)[0]}  # a second attempt replaces the first
    return Run(folder, meta, list(last.values()))


def read_lines(path: Path) -> tuple[list[dict], int]:
    """The whole records of samples.jsonl, and how many bytes they take; what follows was cut off by a kill."""
    content = path.read_bytes() if path.exists() else b""
    records, taken = [], 0
    for number, line in enumerate(lines := content.splitlines(keepends=True), 1):
        try:
            if not line.endswith(b"\n"):
                break
            record = json.loads(line)
            record["id"], record["error"]  # a record has at least these
        except (ValueError, TypeError, KeyError) as error:
            if number == len(lines):
                break
            raise LabError(f"line {number} of {path} is damaged ({error}); predict again in a new folder") from error
        records.append(record)
        taken += len(line)
    return records, taken
