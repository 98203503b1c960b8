"""A checkpoint that is to run must be one complete Sa2VA; what keeps it from that is said by name."""

from __future__ import annotations

from sa2va_lab.errors import LabError
from sa2va_lab.loading.checkpoint import GROWN, WANTED_SAM2, Checkpoint, lack_files
from sa2va_lab.loading.parts import find_quantised
from sa2va_lab.sa2va.configuration import read_raw
from sa2va_lab.sa2va.families import FAMILIES
from sa2va_lab.sa2va.parts import part_of
from sa2va_lab.sa2va.sam2 import OUR_SAM2, SAM2, SAM2_TABLE
from sa2va_lab.sa2va.weights import build_empty, match_parts

BARE = {family.bare for family in FAMILIES}  # what config.json calls a model without [SEG] and SAM2


def open_whole(base, **parts) -> Checkpoint:
    """The `Checkpoint` of these parts, downloaded where it is on the hub; nothing is loaded.

    Raises LabError for parts that do not make one complete Sa2VA of a family that runs here, naming what is wrong.
    """
    opened = Checkpoint(base, **parts, download=True)
    folder, sam2, layer = opened.folder, opened.sam2, opened.base
    raw = read_raw(folder)  # says what a base is that is no folder with a config.json
    if layer.lost:
        raise lack_files(folder, layer.lost, of=len(layer.lost) + len(layer.files))
    if fault := find_quantised(raw, layer.tensors, folder):
        raise LabError(fault)
    if (opened.is_bare or raw.get("model_type") in BARE) and not (sam2 and opened.finetune):
        lacking = "a fine-tune, which brings [SEG] (finetune=, --finetune)" if sam2 else "SAM2 (sam2=, --sam2)"
        raise LabError(
            f"{folder} has no SAM2 of its own or is a bare InternVL or Qwen-VL, no Sa2VA: add {lacking}, or give a "
            "complete Sa2VA folder as the base."
        )
    if sam2 and not opened.finetune:
        raise LabError(f"{sam2.path} was given as SAM2 without a fine-tune: only that brings [SEG] (--finetune).")
    if sam2 and not sam2.files:
        raise LabError(f"There is nothing at {sam2.path}: give {WANTED_SAM2}.")
    if sam2:
        _check_grown(opened)
    _ = opened.sizes  # or a sentence on what in config.json makes no network
    if opened.finetune:
        _check_finetune(opened)
    if sam2:
        _check_network(opened)
    return opened


def _check_grown(opened: Checkpoint) -> None:
    """LabError where the fine-tune does not bring in full what an InternVL has not."""
    lacking = {*GROWN} - {part_of(name) for name in opened.tuned.whole}
    if "lm_head" not in {part_of(name) for name in opened.base.tensors}:
        lacking -= {"lm_head"}
    if lacking:
        raise LabError(
            f"{opened.tuned.path} does not hold {', '.join(sorted(lacking))} in full, which a model "
            "without [SEG] lacks: give the .pth of a whole Sa2VA fine-tune, or a complete Sa2VA folder as the base."
        )


def _check_network(opened: Checkpoint) -> None:
    """LabError where SAM2 is not the one that Sa2VA is built on, or a tensor has another shape than the network."""
    network = build_empty(opened.sizes)
    wanted = set(SAM2_TABLE.official(name for name in network.state_dict() if name.startswith(OUR_SAM2)))
    there = {name for name in opened.under if name.startswith(SAM2)}
    for said, names in (("lacks", wanted - there), ("has", there - wanted)):
        if names:
            raise LabError(
                f"{opened.sam2.path} is another SAM2 than Sa2VA is built on (it {said} "
                f"{min(names).removeprefix(SAM2)}): give sam2_hiera_large.pt of SAM 2.0, or the folder of "
                "facebook/sam2-hiera-large."
            )
    match_parts(network, opened)


def _check_finetune(opened: Checkpoint) -> None:
    """LabError where alpha is unknown, or a tensor has no place in the base or another shape."""
    tuned, where = opened.tuned, opened.folder
    if tuned.pairs and opened.scale is None:
        raise LabError(
            f"{tuned.path} holds LoRA of rank {tuned.rank}, but alpha stands only in the training config: "
            "give the config, or alpha itself (--lora-alpha)."
        )
    new = [name for name in tuned.shapes if name not in opened.under]
    if lost := [name for name in new if not (opened.is_bare and part_of(name) in GROWN)]:
        raise LabError(
            f"{len(lost)} tensors of {tuned.path} have no place in {where} ({lost[0]}): "
            "it was trained on another model."
        )
    for name, shape, old in opened.misfits():
        raise LabError(
            f"{name} is {shape} in {tuned.path} and {old} in {where}: it was trained on a model of another size."
        )
    for name, tensor in tuned.tensors.items():
        if not tensor.dtype.startswith(("fp", "bf")):
            raise LabError(f"{name} in {tuned.path} is stored as {tensor.dtype}, which no weight is: copy it again.")
