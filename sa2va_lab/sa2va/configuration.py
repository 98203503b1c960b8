"""A checkpoint's config.json, read as data: nothing beside it is looked at, and nothing in it is run."""

from __future__ import annotations

from pathlib import Path

from sa2va_lab.errors import LabError
from sa2va_lab.sa2va.families import find_family
from sa2va_lab.sa2va.family import Sa2VAConfig
from sa2va_lab.sa2va.files import read_json


def read_config(folder: Path | str) -> Sa2VAConfig:
    """The configuration of the checkpoint in `folder`.

    Raises LabError when the folder or its config.json is missing or damaged, or when it is not a Sa2VA checkpoint of
    a family that runs here. Python files beside config.json are never looked at.
    """
    return parse_config(read_raw(folder), name=str(Path(folder) / "config.json"), folder=Path(folder))


def read_raw(folder: Path | str) -> dict:
    """config.json as it stands. Raises LabError when the folder or the file is missing or damaged."""
    folder = Path(folder)
    if not folder.is_dir():
        raise LabError(f"No checkpoint folder at {folder}: give the folder that holds config.json and *.safetensors.")
    if not (folder / "config.json").is_file():
        raise LabError(f"{folder} has no config.json: give a Sa2VA checkpoint folder (config.json, *.safetensors).")
    return unfold(read_json(folder / "config.json"))


def unfold(raw: dict) -> dict:
    """The same with a section for the language model, whose sizes stood beside the others in the first Qwen2.5-VL."""
    if "vision_config" not in raw or {"text_config", "llm_config"} & raw.keys() or "hidden_size" not in raw:
        return raw
    own = {key: value for key, value in raw.items() if key != "vision_config"}
    return raw | {"text_config": own | {"model_type": f"{raw.get('model_type')}_text"}}


def parse_config(raw: dict, *, name: str = "config.json", folder: Path | None = None) -> Sa2VAConfig:
    """The same from a dictionary; `name` is used in error messages. folder: where what else a family reads lies."""
    return find_family(raw, name=name).read(raw, name, folder)


def find_fault(raw: dict, *, name: str = "config.json", folder: Path | None = None) -> str | None:
    """Why a model with this config.json does not run here, as `parse_config` would say it; None where it does.

    The prompt's template is left aside: that of the model which a Sa2VA grew out of counts for nothing.
    """
    try:
        parse_config({key: value for key, value in raw.items() if key != "template"}, name=name, folder=folder)
    except LabError as error:
        return str(error)
    return None
