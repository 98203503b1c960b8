"""Weights: a checkpoint's tensors in, straight into the network, and out again under official names.

Nothing is copied that need not be: a tensor whose dtype already fits stays a view of the memory-mapped file on a CPU,
and goes to a GPU one at a time. Every tensor must land and every place must be filled, else loading fails by name.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import torch
from accelerate import init_empty_weights
from huggingface_hub import split_state_dict_into_shards_factory
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.initialization import no_init_weights

from sa2va_lab.errors import LabError
from sa2va_lab.files import write_json
from sa2va_lab.paths import real
from sa2va_lab.sa2va.family import Sa2VAConfig
from sa2va_lab.sa2va.files import INDEX, TOKENIZER_FILES
from sa2va_lab.sa2va.modeling import HEAD, Sa2VA
from sa2va_lab.sa2va.names import Place

SPARE = 64 << 20  # bytes that stay free on a disk


def build_empty(config: Sa2VAConfig) -> Sa2VA:
    """The network with every parameter on the meta device (no memory); computed buffers, as RoPE's, are real."""
    try:
        with init_empty_weights(include_buffers=False), no_init_weights():
            return Sa2VA(config).eval()
    except Exception as error:  # transformers raises whatever a nonsensical size leads to
        raise LabError(
            f"config.json describes no network ({type(error).__name__}: {str(error).strip()[:200]}): "
            "copy the file again from its source."
        ) from None


def load_weights(
    model: Sa2VA,
    source,
    *,
    dtype: torch.dtype,
    device: torch.device | str | Callable[[str], torch.device | str] = "cpu",
    progress: Callable[[Iterable], Iterable] = iter,
    settle: Callable[[str], object] = lambda name: None,
) -> Sa2VA:
    """Fills `model` (from `build_empty`) with every tensor of `source`, converted to `dtype` on `device`.

    source: a `Checkpoint`, or what else has `names()`, `shape(name)` and `tensor(name)` by official names.
    device: one for all, or a function of a tensor's name in the network; what it puts on "meta" is not read. settle:
    called with the name of each tensor that has come to its place; a layer's weight comes after its bias. Raises
    LabError naming the tensors that are missing from the checkpoint, that the network has no place for, or whose shape
    differs.
    """
    where = device if callable(device) else lambda name: device
    expected, names, parts = model.state_dict().keys(), model.config.names, match_parts(model, source)
    for name in progress(sorted(parts)):
        kept_back = str(where(name)) == "meta"
        tensor = names.assemble(partial(_describe, source) if kept_back else source.tensor, parts[name])
        _put(model, name, tensor.to(device=where(name), dtype=dtype))  # what comes later takes the dtype that is here
        if not kept_back:
            settle(name)
    if model.language_model.lm_head.weight.is_meta:  # tied: one tensor for both
        model.language_model.lm_head.weight = model.language_model.model.embed_tokens.weight
    for name, buffer in list(model.named_buffers()):
        if name not in expected and not buffer.is_meta:
            _put(model, name, buffer.to(where(name)))
    return model.requires_grad_(False)


def match_parts(model: Sa2VA, source) -> dict[str, list[tuple[str, Place]]]:
    """For each tensor of a network the official ones that make it, by names and shapes alone; a tied head may be left
    out. LabError where the two do not belong together."""
    official, wanted, names = source.names(), model.state_dict(), model.config.names
    if model.config.tied and not any(name in official for name, _ in names.origins(HEAD)):
        wanted.pop(HEAD)
    parts = names.match(official, wanted)
    for name, made_of in parts.items():
        shape, expected = names.assemble(partial(_describe, source), made_of).shape, wanted[name].shape
        if shape != expected:
            raise LabError(
                f"{made_of[0][0]} gives shape {tuple(shape)} where config.json leads to {tuple(expected)}: "
                "these weights belong to another model than this config.json."
            )
    return parts


def _describe(source, name: str) -> Tensor:
    return torch.empty(source.shape(name), device="meta")


def _put(model: Sa2VA, name: str, tensor: Tensor) -> None:
    owner, _, leaf = name.rpartition(".")
    module = model.get_submodule(owner)
    setattr(module, leaf, tensor if leaf in module._buffers else nn.Parameter(tensor, requires_grad=False))


def save_official(
    model: Sa2VA,
    folder: Path | str,
    *,
    config: dict,
    tokenizer: Path | str,
    dtype: torch.dtype | None = None,
    shard_bytes: int = 4 << 30,
) -> Path:
    """Writes `model` as an official-form checkpoint folder: config.json, tokenizer files, safetensors.

    config: the dictionary to write as config.json; tokenizer: a folder whose tokenizer files are copied; dtype: None
    keeps what the model has. Shards hold at most `shard_bytes` each. Raises LabError as `write_folder` does.
    """
    ours, names = model.state_dict(), model.config.names
    if model.config.tied:
        ours.pop(HEAD)

    places = names.official(ours)

    def make(name: str) -> Tensor:
        return names.take_apart(places[name], ours).to(device="cpu", dtype=dtype)

    sizes = {name: make(name).nbytes for name in sorted(places)}
    return write_folder(folder, make, sizes, config=config, tokenizer=tokenizer, shard_bytes=shard_bytes)


def write_folder(
    folder: Path | str,
    make: Callable[[str], Tensor],
    sizes: dict[str, int],
    *,
    config: dict,
    tokenizer: Path | str,
    shard_bytes: int = 4 << 30,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Path:
    """Writes a checkpoint folder tensor by tensor; no more than one shard is in memory.

    make: official name -> CPU tensor; sizes: {official name: its bytes}, in the order to write. Written beside `folder`
    first and moved there at the end; raises LabError when `folder` exists and is not empty, or the disk is too full.
    """
    folder = Path(folder)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise LabError(f"{folder} is not empty: give a new folder for the checkpoint.")
    draft = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        needed, free = sum(sizes.values()) + SPARE, shutil.disk_usage(draft).free
        if needed > free:
            raise LabError(
                f"{folder} needs {needed / 1e9:.1f} GB and its disk has {free / 1e9:.1f} GB free: "
                "make room, choose another disk, or a smaller precision."
            )
        _write_shards(draft, make, sizes, shard_bytes=shard_bytes, progress=progress)
        write_json(draft / "config.json", config)
        copy_files(TOKENIZER_FILES, Path(tokenizer), draft)
        if folder.exists():
            folder.rmdir()
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def copy_files(names: Iterable[str], source: Path, to: Path) -> None:
    """Copies those of the files that are there. Refuses a link out of their folder: what it points at would be handed
    on. The hub's cache keeps files in blobs/."""
    roots = (real(source), real(source).parent.parent / "blobs")
    for path in (source / name for name in names if (source / name).is_file()):
        if not any(real(path).is_relative_to(root) for root in roots):
            raise LabError(
                f"{path} is a link to a file outside its folder: put a copy of that file there, if it belongs."
            )
        shutil.copyfile(path, to / path.name)


def _write_shards(draft: Path, make: Callable, sizes: dict[str, int], *, shard_bytes: int, progress: Callable) -> None:
    split = split_state_dict_into_shards_factory(
        sizes, get_storage_size=int, filename_pattern="model{suffix}.safetensors", max_shard_size=shard_bytes
    )
    bar = iter(progress(list(sizes)))
    for file, names in split.filename_to_tensors.items():
        tensors = {}
        for name in names:
            next(bar, None)
            made = make(name)  # a tensor that shares its storage with another would be refused, hence the copy
            tensors[name] = made.clone(memory_format=torch.contiguous_format)
        try:
            save_file(tensors, draft / file, metadata={"format": "pt"})
        except SafetensorError as error:  # its word for what the disk refused
            raise LabError(f"{draft / file} cannot be written ({error}): make room or choose another disk.") from None
    next(bar, None)
    if split.is_sharded:
        write_json(draft / INDEX, {"metadata": split.metadata, "weight_map": split.tensor_to_filename})
