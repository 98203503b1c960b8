"""lab.yml: where a user's own model, data and log lie, written once instead of on every command line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sa2va_lab.errors import LabError, suggest
from sa2va_lab.files import read_as, write_whole

FILE = "lab.yml"
LARGEST = 1 << 20  # bytes


class Settings(BaseModel):
    """What lab.yml may say; everything is optional, and what is not said is the demo's or a notebook's default."""

    model_config = ConfigDict(extra="forbid")

    model: Path | None = Field(None, description="checkpoint folder: a Sa2VA, or an InternVL or Qwen-VL")
    sam2: Path | None = Field(None, description="SAM2 checkpoint (.pt or folder), where the model has none")
    finetune: Path | None = Field(None, description="xtuner's iter_*.pth, laid over the model")
    config: Path | None = Field(
        None, description="the training config (.py): LoRA's alpha stands there; never executed"
    )
    data: Path | None = Field(None, description="images and annotations: a folder, or the annotations file")
    log: Path | None = Field(None, description="the training log: text or scalars.json")
    run: Path | None = Field(None, description="an existing Run: no model is loaded")
    tracked: Path | None = Field(None, description="an existing Run in which the films of `run` were tracked")
    phrase: str | None = Field(None, description="what to find, if the data set names several things")
    groups: str | None = Field(None, description=r"regular expression that finds the patient in a file name: 'p(\d+)_'")
    split: str | None = Field(None, description="which split to report on; test if there is one")
    prompt: str | None = Field(None, description="the question; the phrase if not given")
    lang: Literal["en", "zh"] | None = Field(None, description="language of the report: en or zh")
    outputs: Path | None = Field(
        None, description="where runs and reports go; outputs/ beside the notebooks if not given"
    )
    parameters: dict[str, str | int | float | bool] = Field(
        default_factory=dict, description="any other notebook parameter, as {threshold: 0.4}"
    )

    def as_parameters(self) -> dict:
        """Notebook parameters: what was said, paths as text."""
        said = self.model_dump(exclude_none=True, exclude={"parameters"}, mode="json")
        return said | self.parameters


PATHS = tuple(name for name, field in Settings.model_fields.items() if "Path" in str(field.annotation))


def read_settings(path: Path | str) -> Settings:
    """Reads lab.yml; its paths are relative to the folder that it lies in.

    Raises LabError for a file that is not there or no YAML, an unknown key (with a suggestion), a value that does not
    fit, and a path that does not exist.
    """
    path = Path(path)
    if not path.exists():
        raise LabError(f"{path} is not there; `sa2va-lab init` writes one.")
    content = read_as("YAML", path, _parse, limit=LARGEST) or {}
    if not isinstance(content, dict):
        raise LabError(f"{path} holds {type(content).__name__}; expected lines such as data: my/images.")
    for key in content:
        if key not in Settings.model_fields:
            hint = suggest(str(key), Settings.model_fields)
            raise LabError(f"{path} says {key!r:.80}, which means nothing here; {hint}")
    try:
        settings = Settings(**content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][:2])
        raise LabError(f"{path}: {place} is {first['input']!r:.80}; {first['msg'].lower()}") from None
    for name in PATHS:
        if (given := getattr(settings, name)) is not None:
            whole = Path(os.path.normpath(path.absolute().parent / given.expanduser()))
            if name != "outputs" and not whole.exists():
                raise LabError(f"{path}: {name} is {given}, which does not exist (looked for {whole}).")
            setattr(settings, name, whole)
    return settings


def write_settings(path: Path | str, settings: Settings) -> Path:
    """Writes lab.yml with every key that there is and what it means; what is not set stands there as a comment.

    Paths are written relative to the file where they lie below it. Raises LabError where there is a file already.
    """
    path = Path(path)
    lines = ["# What `sa2va-lab report` works on. Paths are relative to this file; the command line wins over it.", ""]
    for name, field in Settings.model_fields.items():
        value = getattr(settings, name)
        if name in PATHS and value is not None:
            whole = Path(os.path.normpath(Path.cwd() / value.expanduser()))
            below = whole.is_relative_to(path.absolute().parent)
            value = str(whole.relative_to(path.absolute().parent) if below else whole)
        lines.append(f"# {field.description}")
        said = yaml.safe_dump({name: value}, allow_unicode=True, default_flow_style=False, sort_keys=False).strip()
        lines += [said if value else f"# {name}:", ""]
    if os.path.lexists(path):
        raise LabError(f"{path} is there already: edit it, or give another name with --out.")
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_whole(path, "\n".join(lines))


def _parse(content: bytes) -> object:
    try:
        return yaml.safe_load(content)
    except yaml.YAMLError as error:
        raise ValueError(str(error).splitlines()[0]) from None
