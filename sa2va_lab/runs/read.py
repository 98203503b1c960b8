"""Runs: predictions on disk, made once and looked at many times.

    run.json        what was run: weights, precision, device, prompt, data, code, times, and its role beside other Runs
    samples.jsonl   a line a finished sample, failures included; only ever appended to
    logits/<id>.npz the logits of a sample, on disk before its line is

A Run may come from anywhere. What is in it is held against `Meta` and `Record` before anything is believed, and a
damaged one is a LabError that says where. A finished Run is sealed by digests, which name any later edit: whoever edits
it can seal it again, so a seal tells an accident or a careless hand from a Run that is as it was finished; that a model
said what stands there is shown by predicting again (`evaluation.verification`).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from sa2va_lab.errors import LabError
from sa2va_lab.files import hash_value, read_json, tell_fault, write_json
from sa2va_lab.paths import as_file_name
from sa2va_lab.prediction import Prediction
from sa2va_lab.shown import Shown

META, LINES, LOGITS, WHOLE = "run.json", "samples.jsonl", "logits", "whole"
OWN = "{prompt}, or the question that an image brings"
SAME = ("weights", "precision", "prompt", "tracking")  # what makes two Runs one model that is asked one thing
MOST_PIXELS = 178_956_970  # Pillow opens no larger image, so none was predicted

Role = Literal["main", "validation", "beside", "asked", "phrase"]
FileName = Annotated[str, Field(pattern=r"^[^./\\\x00-\x1f][^/\\\x00-\x1f]*$", max_length=200)]
Side = Annotated[int, Field(ge=1, le=MOST_PIXELS)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class _Segmenter(_Part):
    weights_sha256: str
    model: str = ""
    parameters: int = 0
    stamp: str | None = None
    finetune: dict[str, Any] | None = None
    sam2: dict[str, Any] | None = None
    precision: dict[str, str | None] = {}
    device: dict[str, Any] | None = None


class _Data(_Part):
    manifest_sha256: str
    format: str
    reason: str
    phrase: str | None
    split: str
    splits_sha256: str | None = None
    chosen: str
    samples: list[FileName]


class _Git(_Part):
    commit: str | None
    dirty: bool | None
    reason: str


class _Start(_Part):
    edited: list[str] = []


class Meta(_Part):
    """What stands in run.json. Defaults are for what older Runs lack."""

    format: Literal[1]
    stamp: str | None
    segmenter: _Segmenter
    prompt: Annotated[str, Field(min_length=1)]
    prompt_reason: str
    dataset: _Data
    started: str
    finished: str | None
    resumed: list[_Start]
    python: str
    packages: dict[str, str | None]
    git: _Git
    steps: list[Any] = []
    ranks: list[Any] = []
    role: Role | None = None
    of: FileName | None = None
    batch: Annotated[int, Field(ge=1)] = 1
    own_prompts: bool = False
    tracked: dict[str, Any] | None = None
    seal: dict[str, str] | None = None


class Record(_Part):
    """What stands in a line of samples.jsonl; a sample that failed has an error and no answer. prompt: what it was
    asked, where that was a question of its own. video, frame: the film that was tracked, and the place in it from 1."""

    id: FileName
    image_sha256: str | None
    error: str | None
    seconds: dict[str, Annotated[float, Field(ge=0)]]
    answer: str | None
    n_seg: Annotated[int, Field(ge=0, le=10_000)] | None
    size: Annotated[list[Side], Field(min_length=2, max_length=2)] | None
    canvas: Side | None
    logits_sha256: str | None
    peak_bytes: int | None
    precision: str | None = None
    prompt: str | None = None
    video: str | None = None
    frame: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> Record:
        answered = (self.answer, self.n_seg, self.size, self.canvas, self.logits_sha256)
        if self.error is None and None in answered:
            raise ValueError("it has neither an error nor a whole answer")
        if self.size is not None and max(self.size[0] * self.size[1], (self.canvas or 1) ** 2) > MOST_PIXELS:
            raise ValueError(f"its image has more than {MOST_PIXELS:,} pixels")
        return self


RECORD = TypeAdapter(Record)


@dataclass(frozen=True)
class Maker:
    """What made a Run. weights: digest of all of them, a fine-tune included. precision: of the network that answered,
    several with + between where it stepped down on the way. code: version and commit of this package. tracking: how
    films were followed, or that they were not."""

    weights: str
    precision: str
    prompt: str
    code: str
    tracking: str

    @classmethod
    def read(cls, meta: dict, records: list[dict] = ()) -> Maker:
        """The maker that run.json names; with records, at the precisions that they were really made at."""
        began = meta["segmenter"].get("precision", {}).get("actual")
        made = [record.get("precision") or began for record in records if record["error"] is None] or [began]
        version, git = meta["packages"].get("sa2va-lab"), meta["git"]
        tracked = sorted((meta.get("tracked") or {}).items())
        return cls(
            weights=meta["segmenter"]["weights_sha256"],
            precision="+".join(map(str, dict.fromkeys(made))),
            prompt=OWN.format(prompt=meta["prompt"]) if meta.get("own_prompts") else meta["prompt"],
            code=f"{version} {git['commit']}" + " with changes" * bool(git["dirty"]),
            tracking=", ".join(f"{name} {value}" for name, value in tracked if value) or "image by image",
        )

    def differences(self, other: Maker) -> list[str]:
        """In what two Runs are not of the same model asked the same thing: such Runs neither go on with each other nor
        choose each other's threshold. Other code is none of it: it is noted, and most of its changes move nothing."""
        return [name for name in SAME if getattr(self, name) != getattr(other, name)]


@dataclass(frozen=True, repr=False)
class Run(Shown):
    """A run as it lies on disk.

    meta: what run.json says (`Meta`). records: one per finished sample (`Record`), its last attempt, each with id,
    image_sha256, error (None where it went well), precision (of the network that made it), answer, n_seg, size, canvas,
    seconds, peak_bytes, logits_sha256.
    """

    folder: Path
    meta: dict
    records: list[dict]

    @property
    def facts(self) -> dict[str, str]:
        """See `Shown`; a mean Dice where an evaluation has left it in the folder."""
        segmenter, failed = self.meta["segmenter"], len(self.failed_ids)
        facts = {"Run": self.folder.name, "Model": f"{segmenter.get('model', '')}, {self.maker.precision}"}
        facts |= {"Asked": self.meta["prompt"], "Split": self.split}
        facts["Progress"] = f"{len(self.records) - failed} of {len(self.sample_ids)} images, {failed} failed"
        with contextlib.suppress(LabError, KeyError, TypeError):  # nobody has judged it, or in another form
            found = read_json(self.folder / "metrics.json")["metrics"]["summary"]
            facts["Mean Dice"] = f"{found['dice']['macro']:.3f} on {found['n_images']} images"
        return facts | ({"Note": self.meta["stamp"]} if self.meta["stamp"] else {})

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

    @property
    def phrase(self) -> str | None:
        """What the data set looks for; None where nobody annotated it."""
        return self.meta["dataset"]["phrase"]

    @property
    def split(self) -> str:
        """The part of the data set that was predicted."""
        return self.meta["dataset"]["split"]

    @property
    def maker(self) -> Maker:
        """Which model this is of, asked what: the identity of a Run."""
        return Maker.read(self.meta, self.records)

    @property
    def role(self) -> Role:
        """What it is for: "main", or beside another Run its "validation", a second model ("beside"), other words for
        the same thing ("asked"), another thing ("phrase")."""
        return self.meta.get("role") or _guess_role(self)[0]

    @property
    def of(self) -> str | None:
        """The name of the Run that it was made for, None for a main one."""
        return self.meta.get("of") if self.meta.get("role") else _guess_role(self)[1]

    def prediction(self, sample_id: str) -> Prediction:
        """What was predicted for a sample; LabError when it failed, was not reached, or was damaged since."""
        record = next((record for record in self.records if record["id"] == sample_id), None)
        if record is None:
            raise LabError(f"the run {self.folder} has no sample {sample_id} so far; see Run.sample_ids, or resume it")
        if record["error"] is not None:
            raise LabError(f"the run {self.folder} has no prediction of {sample_id}: {record['error']}")
        path = self.folder / LOGITS / f"{sample_id}.npz"
        told = {name: record[name] for name in ("answer", "seconds", "peak_bytes")} | {"stamp": self.meta["stamp"]}
        try:
            content = path.read_bytes() if path.is_file() else b""
            if hashlib.sha256(content).hexdigest() != record["logits_sha256"]:
                raise ValueError("its hash differs" if content else "it is missing or empty")
            made = Prediction.from_npz(io.BytesIO(content), **told)
            if (list(made.size), made.canvas, made.n_seg) != (record["size"], record["canvas"], record["n_seg"]):
                raise ValueError("another size or count of masks than in its line")
        except OSError as error:
            raise LabError(f"{path} cannot be read ({error.strerror}); restore its permissions") from error
        except (ValueError, TypeError, IndexError, OverflowError) as error:
            raise LabError(f"{path} is not what was predicted ({error}); predict again in a new folder") from None
        return made


def open_run(folder: str | Path) -> Run:
    """Opens a run for reading, also while it is being made. LabError for a folder that is none, and a damaged one."""
    folder = Path(folder)
    if not (folder / META).is_file():
        raise LabError(f"{folder} is not a run (it has no {META}); expected a folder that a prediction wrote")
    try:
        meta = read_json(folder / META)
        Meta.model_validate(meta)
    except (LabError, ValidationError) as error:
        raise LabError(f"{folder / META} cannot be read ({tell_fault(error)}); predict again in a new folder") from None
    last = {record["id"]: record for record in read_lines(folder / LINES)[0]}  # a second attempt replaces the first
    if strange := last.keys() - set(meta["dataset"]["samples"]):
        told = f"{folder / LINES} has {len(strange)} samples that are not in {META} ({min(strange)})"
        raise LabError(f"{told}; predict again in a new folder")
    return Run(folder, meta, list(last.values()))


def read_lines(path: Path) -> tuple[list[dict], int]:
    """The whole records of samples.jsonl, and how many bytes they take; what follows was cut off by a kill."""
    try:
        content = path.read_bytes() if path.is_file() else b""
    except OSError as error:
        raise LabError(f"{path} cannot be read ({error.strerror}); restore its permissions") from None
    records, taken = [], 0
    for number, line in enumerate(lines := content.splitlines(keepends=True), 1):
        try:
            if not line.endswith(b"\n"):
                break
            record = json.loads(line)
            RECORD.validate_python(record)
        except (ValueError, RecursionError) as error:  # a ValidationError is a ValueError
            if number == len(lines):
                break
            told = f"line {number} of {path} is damaged ({tell_fault(error)})"
            raise LabError(f"{told}; predict again in a new folder") from None
        records.append(record)
        taken += len(line)
    return records, taken


def seal_run(folder: Path, meta: dict) -> None:
    """Writes run.json for the last time, with digests of itself and of the lines, which hold those of the logits."""
    write_json(folder / META, meta | {"seal": _digest(folder, meta)})


def read_digest(run: Run) -> str:
    """What the whole Run is now, sealed or not; of finished, untouched ones it is what the seal says."""
    return _digest(run.folder, run.meta)[WHOLE]


def list_edits(run: Run) -> list[str] | None:
    """Files that are not as they were when the Run was finished; None where it has no seal to tell by. Logits are held
    against their lines when they are read."""
    if not run.meta.get("seal"):
        return None
    now = _digest(run.folder, run.meta)
    return [name for name in (META, LINES) if run.meta["seal"].get(name) != now[name]]


def _digest(folder: Path, meta: dict) -> dict[str, str]:
    told = {name: value for name, value in meta.items() if name != "seal"}
    lines = (folder / LINES).read_bytes() if (folder / LINES).is_file() else b""
    found = {META: hash_value(told), LINES: hashlib.sha256(lines).hexdigest()}
    return found | {WHOLE: hashlib.sha256("".join(found.values()).encode()).hexdigest()}


def _guess_role(run: Run) -> tuple[Role, str | None]:
    """Role and main Run of a Run that does not say them, from the names that were usual before it did: the only place
    where a name means something."""
    name, beside = run.folder.name, run.folder.parent
    usual: dict[str, Role] = {"_val": "validation", "_beside": "beside", f"_{as_file_name(run.phrase or '')}": "phrase"}
    if beside.name == "asked":
        beside, usual = beside.parent, {f"_{name.rpartition('_')[2]}": "asked"}
    for ending, role in usual.items():
        main = name.removesuffix(ending)
        if main not in ("", name) and (beside / main / META).is_file():
            return role, main
    return "main", None
