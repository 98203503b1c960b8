"""A checkpoint named by its hub id: weights, config.json and tokenizer are fetched, never a file of Python."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, SafetensorsParsingError

from sa2va_lab.errors import LabError
from sa2va_lab.loading.tensors import first_line
from sa2va_lab.sa2va.files import INDEX, TOKENIZER_FILES

WANTED = ("config.json", INDEX, "*.safetensors", *TOKENIZER_FILES)
SPARE = 64 << 20  # bytes that stay free on a disk


def is_hub_id(path: Path | str) -> bool:
    """Whether `path` is OWNER/NAME and nothing on this disk: neither the path nor a folder OWNER is here."""
    text = str(path)
    named = re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", text) and not text.endswith((".pth", ".pt", ".json"))
    return bool(named) and not Path(text).exists() and not Path(text).parent.exists()


def fetch_model(name: str) -> Path:
    """The folder of the hub's model `name` in the download cache; what is not there yet is downloaded.

    The size and the free disk are said on stderr before a download starts. Without a connection, a model that was
    downloaded before is used. Raises LabError where there is no connection, no such model,
    no access, or too little disk.
    """
    try:
        files = list_files(name)
    except LabError:
        try:
            return Path(snapshot_download(name, allow_patterns=list(WANTED), local_files_only=True))
        except OSError:
            pass
        raise
    left = [file for file in files if file.will_download]
    cache = Path(constants.HF_HUB_CACHE)
    if left:
        size = sum(file.file_size or 0 for file in left)
        there = next(folder for folder in (cache, *cache.parents) if folder.exists())
        free = shutil.disk_usage(there).free
        said = (
            f"{name}: {size:,} bytes ({size / 1e9:.1f} GB) in {len(left)} files go to {cache}, {free / 1e9:.1f} GB free"
        )
        print(said, file=sys.stderr)
        if size + SPARE > free:
            raise LabError(f"{said}: make room, or set HF_HOME to a folder on a larger disk.")
    try:
        return Path(snapshot_download(name, revision=files[0].commit_hash, allow_patterns=list(WANTED)))
    except OSError as error:
        raise LabError(
            f"The download of {name} broke off ({first_line(error)}): ask again, it goes on where it stopped."
        ) from None


def fetch_headers(name: str) -> tuple[dict[str, dict], Path | None, set[str]]:
    """({weight file: {tensor: huggingface_hub's TensorInfo}}, where config.json was put, all files) of a hub's model.

    Headers alone are read of the weights. Raises LabError as `fetch_model` does.
    """
    files = {file.filename: file for file in list_files(name) if "/" not in file.filename}
    headers, config, reading = {}, None, name
    try:
        for reading, file in files.items():
            if reading == "config.json":
                config = Path(hf_hub_download(name, reading, revision=file.commit_hash))
            elif reading.endswith(".safetensors"):
                about = HfApi().parse_safetensors_file_metadata(name, reading, revision=file.commit_hash)
                headers[reading] = about.tensors
    except (OSError, SafetensorsParsingError) as error:
        raise LabError(f"{reading} of {name} was not read from the hub ({first_line(error)}).") from None
    return headers, config, set(files)


def list_files(name: str) -> list:
    """huggingface_hub's DryRunFileInfo of each file that a model needs. Raises LabError where the hub names none."""
    try:
        files = snapshot_download(name, allow_patterns=list(WANTED), dry_run=True)
    except OSError as error:
        cause = error.__cause__ or error
        said = "the hub cannot be reached: `hf download NAME --local-dir FOLDER` where it can, and give FOLDER"
        if isinstance(cause, GatedRepoError):
            said = "it is on the hub, but not for everybody: ask for access, then `hf auth login`"
        elif isinstance(cause, RepositoryNotFoundError):
            said = "the hub has no public model of that name"
        raise LabError(f"There is nothing at {name}, and as a hub id it cannot be fetched, since {said}.") from None
    if not any(file.filename.endswith(".safetensors") for file in files):
        raise LabError(f"{name} on the hub has no *.safetensors: give a model that has.")
    return files
