"""What a notebook hands to its report: one sentence that answers, and the numbers behind it.

The last word of a notebook is an output like any other, so it survives in the .ipynb, and a report needs no second
way to get at results. In JupyterLab the sentence is shown; the numbers ride along under a type of their own. They are
written, and read by the index, through the models below: the numbers that the index needs have a name and a type.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from html import escape
from numbers import Integral
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from sa2va_lab.files import plain, write_json
from sa2va_lab.language import join_words, tr

MIME = "application/vnd.sa2va-lab.answer+json"
FILE = "metrics.json"
MOST_IDS = 5  # in a sentence


class Metrics(BaseModel):
    """The numbers of a notebook. Any others may stand beside those named; what was not measured is left out."""

    model_config = ConfigDict(extra="allow")

    @field_validator("*", mode="wrap")
    @classmethod
    def _pass_by(cls, value, handler, info):
        """What was read from a file and has another type counts as not measured: an index always has a page."""
        try:
            return handler(value)
        except ValidationError:
            if not info.context:
                raise
            return cls.model_fields[info.field_name].get_default(call_default_factory=True)


class Mean(Metrics):
    """A mean over the n images, of n_groups patients, in which it is defined, with its 95 % interval."""

    macro: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    n_groups: int | None = None


class Summary(Metrics):
    """What `evaluation.metrics.summarise` gives; n_images is the whole Run, whatever has a Dice."""

    n_images: int = 0
    n_groups: int = 0
    n_failed: int = 0
    n_without_truth: int = 0
    ignored: float = 0.0
    grouped: bool = False
    threshold: float | None = None
    dice: Mean = Mean()


class Row(Metrics):
    """A baseline, or a plan with its forecast and what was measured; `reason` where it did not run."""

    name: str = "–"
    title: str = ""
    precision: str = "–"
    device: str = "–"
    reason: str = ""
    dice: float | None = None
    low: float | None = None
    high: float | None = None
    n_images: int | None = None
    n_groups: int | None = None
    forecast_bytes: int | None = None
    own_bytes: int | None = None
    seconds: float | None = None
    agreement: float | None = None


class Refused(Metrics):
    """Images that were refused although something is annotated: n of `of`; of `asked` that were asked in other words,
    `named` were given a mask."""

    n: int = 0
    of: int = 0
    asked: int = 0
    named: int = 0
    ids: list[str] = []


class Threshold(Metrics):
    """difference, low, high: the mean Dice at `value` less that at 0.5, with its interval."""

    value: float
    origin: str = ""
    reason: str = ""
    difference: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def matters(self) -> bool:
        """Whether the interval of the difference leaves out 0."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


class Finding(Metrics):
    """A check of `evaluation.honesty`, in an English sentence; alarm: whether it was seen; look: worth a look."""

    kind: str = ""
    alarm: bool = False
    look: bool = False
    sentence: str = ""


class Mistake(Metrics):
    """A kind of mistake and in how many images it occurs."""

    kind: str
    title: str
    help: str = ""
    images: int | None = None


class Device(Metrics):
    """Bytes that a plan needs of a device, and that are there."""

    name: str
    needed: int | None = None
    budget: int | None = None


class Rung(Metrics):
    """One plan of the ladder."""

    precision: str
    fits: bool = False
    reason: str = ""
    devices: list[Device] = []


class Plan(Metrics):
    """The ladder on this machine; chosen: the place of the rung that "auto" takes."""

    rungs: list[Rung] = []
    chosen: int | None = None


class Audit(Metrics):
    """problems: {kind of defect: ids}."""

    problems: dict[str, list[str]] = {}


class Audited(Metrics):
    """Of 01_dataset."""

    audit: Audit = Audit()


class Trained(Metrics):
    """Of 02_loss_curves."""

    alarms: list[str] = []


class Evaluated(Metrics):
    """Of 03_evaluation. beside: {other model: its Dice}. seen: whether the images were in training. verified: what was
    made again, in an English sentence."""

    summary: Summary = Summary()
    split: str = ""
    n_asked: int = 0
    n_finished: int = 0
    seen: str = ""
    threshold: Threshold | None = None
    baselines: list[Row] = []
    beside: dict[str, Mean] = {}
    honesty: list[Finding] = []
    verified: str = ""
    refused: Refused = Refused()


class Tuned(Metrics):
    """Of 04_threshold_tuning."""

    threshold: Threshold | None = None


class Sorted(Metrics):
    """Of 05_error_gallery."""

    mistakes: list[Mistake] = []
    suspect_truths: list[str] = []
    refused: Refused = Refused()


class Planned(Metrics):
    """Of 06_precision_vram."""

    plan: Plan = Plan()
    precisions: list[Row] = []


class Said(Metrics):
    """The numbers of a report's notebooks that the index reads; of those that did not run the defaults."""

    audited: Audited = Field(Audited(), alias="01_dataset")
    trained: Trained = Field(Trained(), alias="02_loss_curves")
    evaluated: Evaluated = Field(Evaluated(), alias="03_evaluation")
    tuned: Tuned = Field(Tuned(), alias="04_threshold_tuning")
    sorted: Sorted = Field(Sorted(), alias="05_error_gallery")
    planned: Planned = Field(Planned(), alias="06_precision_vram")


@dataclass(frozen=True)
class Answer:
    """sentence: for people, in their language. metrics: numbers and facts. stamp: a notice, or None."""

    sentence: str
    metrics: Metrics
    stamp: str | None = None

    def to_dict(self) -> dict:
        """Plain JSON values; NaN, which JSON lacks, becomes None."""
        numbers = self.metrics.model_dump(exclude_unset=True)
        return plain({"sentence": self.sentence, "stamp": self.stamp, "metrics": numbers})

    def save(self, folder: Path | str) -> Answer:
        """Writes metrics.json into a folder (a Run's, as a rule) and returns itself.

        A folder that cannot be written to, such as a Run on a read-only disk, costs a warning, not the answer.
        """
        try:
            write_json(Path(folder) / FILE, self.to_dict())
        except OSError as error:
            warnings.warn(f"{FILE} was not written to {folder} ({error.strerror}); its numbers are in this notebook")
        return self

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        notice = f'<p class="stamp">{escape(tr(self.stamp))}</p>' if self.stamp else ""
        return {
            MIME: self.to_dict(),
            "text/html": f'{notice}<p class="answer"><strong>{escape(self.sentence)}</strong></p>',
            "text/plain": self.sentence,
        }


def find_answer(notebook) -> dict | None:
    """The answer in an executed notebook's outputs, None if it did not get that far; the last one counts."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    answers = [output["data"][MIME] for output in outputs if MIME in output.get("data", {})]
    return answers[-1] if answers else None


def read_metrics(report: dict) -> Said:
    """The numbers of a report's notebooks, from what its own metrics.json holds (see `runner.run_report`)."""
    answers = {stem: part["answer"]["metrics"] for stem, part in report["notebooks"].items() if part["answer"]}
    return Said.model_validate(answers, context={"read": True})


def show(value, form: str = ".3f") -> str:
    """A value as it stands in tables: texts as they are, counts in full, other numbers by `form`, the two ends of an
    interval as one text; a dash for what is not defined."""
    if isinstance(value, str):
        return value
    if isinstance(value, tuple):
        ends = [show(end, form) for end in value]
        return "–" if "–" in ends else " – ".join(ends)
    if value is None or math.isnan(value):
        return "–"
    return f"{value:,}" if isinstance(value, Integral) else f"{value:{form}}"


def say_size(count: int | None) -> str:
    """Bytes as "15.24 GiB", "107.3 MiB" or "9.9 KiB"; a dash for none."""
    if not count:
        return "–"
    for unit, word, places in ((1 << 30, "GiB", 2), (1 << 20, "MiB", 1)):
        if count >= unit:
            return f"{count / unit:.{places}f} {word}"
    return f"{count / 1024:.1f} KiB"


def say_refused(found: Refused) -> list[str]:
    """The worst mistake, in a line of its own, with what other words gave; nothing where nothing was refused."""
    if not found.n:
        return []
    told = {"n": found.n, "of": found.of, "ids": join_words(found.ids[:MOST_IDS]) + " …" * (found.n > MOST_IDS)}
    said = [tr("Refused although something is annotated there: {n} of {of} images ({ids}).", **told)]
    counts = {"asked": found.asked, "named": found.named}
    return said + [tr("Asked in other words, {named} of {asked} got a mask.", **counts)] * bool(found.asked)


def say_sample(n_images: int, n_groups: int, *, grouped: bool = False) -> str:
    """How many images of how many patients; grouped: whether the data know patients."""
    if n_images == n_groups and not grouped:
        return tr("{n_images} images, each counted as one patient", n_images=n_images)
    return tr("{n_images} images of {n_groups} patients", n_images=n_images, n_groups=n_groups)
