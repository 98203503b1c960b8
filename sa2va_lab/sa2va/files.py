"""The files of a checkpoint folder, held against what they claim before any is opened; torch is not needed."""

from __future__ import annotations

import os
from pathlib import Path

from sa2va_lab import files
from sa2va_lab.errors import LabError

INDEX = "model.safetensors.index.json"
TOKENIZERS = ("tokenizer.json", "vocab.json", "tokenizer.model")  # one of which makes a tokenizer
PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")
TOKENIZER_FILES = (  # and those of the image processor
    *TOKENIZERS,
    *("tokenizer_config.json", "merges.txt", "added_tokens.json", "special_tokens_map.json", "chat_template.jinja"),
    *("chat_template.json", *PROCESSOR_FILES),
)
# bytes; the index of the 8 B folder has 0.2 MB, and lists of nothing would fill 30 times as much
LARGEST_JSON = 8 << 20


def read_json(path: Path) -> dict:
    """A JSON object. LabError for a file that is too large, damaged, or holds something else."""
    content = files.read_json(path, limit=LARGEST_JSON)
    if not isinstance(content, dict):
        raise LabError(f"{path} holds a {type(content).__name__}, not an object: copy the file again from its source.")
    return content


def list_shards(folder: Path) -> tuple[list[Path], list[str]]:
    """(weight files of a folder, names that its index lists and that are not there); links to files are followed.

    Raises LabError for an index that names a file outside the folder.
    """
    if not (folder / INDEX).is_file():
        return [path for path in sorted(folder.glob("*.safetensors")) if path.is_file()], []
    listed = read_json(folder / INDEX).get("weight_map")
    names = list(listed.values()) if isinstance(listed, dict) else [None]
    if not all(isinstance(name, str) for name in names):
        raise LabError(f"{folder / INDEX} is not a readable index: copy the file again from its source.")
    if foreign := [name for name in names if Path(name).name != name or not name.isprintable()]:
        raise LabError(f"{folder / INDEX} names {foreign[0][:80]!r}, outside its own folder: refuse this checkpoint.")
    names = sorted(set(names))
    there = [name for name in names if os.path.isfile(folder / name)]  # which, unlike Path's, is False for absurd names
    return [folder / name for name in there], sorted(set(names) - set(there))
