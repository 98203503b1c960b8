"""`load`: a checkpoint folder becomes a Segmenter."""

from __future__ import annotations

import warnings
from pathlib import Path

from tqdm.auto import tqdm
from transformers.utils import logging

from sa2va_lab.errors import LabError
from sa2va_lab.loading.devices import choose_device, find_budgets, parse_size
from sa2va_lab.loading.ladder import Ladder
from sa2va_lab.loading.plan import PRECISIONS, climb_down
from sa2va_lab.loading.whole import open_whole
from sa2va_lab.sa2va.processing import PromptReader
from sa2va_lab.segmenter import Segmenter


def load(
    path: Path | str,
    *,
    sam2: Path | str | None = None,
    finetune: Path | str | None = None,
    config: Path | str | None = None,
    lora_alpha: float | None = None,
    precision: str = "auto",
    device: str = "auto",
    gpus: int | None = None,
    spread: bool = False,
    max_memory: dict[str, str] | None = None,
    tiles: int | None = None,
    compile: bool = False,
    progress: bool = False,
) -> Segmenter:
    """The Sa2VA checkpoint in `path`, ready to answer. A hub id ("ByteDance/Sa2VA-InternVL3-8B") is downloaded first.

    sam2: Meta's `.pt` or a Hugging Face Sam2VideoModel folder, where `path` has none, which then needs a
    fine-tune as well. finetune: xtuner's `iter_*.pth`, laid over the checkpoint while it loads; config: the training
    config, where LoRA's alpha stands (it is read, never executed; mmengine leaves a copy in the .pth, which serves
    where none is given), or lora_alpha: alpha itself. precision: "auto", "fp32", "bf16", "fp16", "int8" or "nf4";
    device: "auto", "cpu", "cuda", "cuda:1". gpus: the first so many GPUs, all if not given; the decoder
    layers are spread over them where one is not enough, or where `spread` asks for it. max_memory: budgets in the place
    of what is free, as {"cuda:0": "20GiB"};
    layers that fit nowhere stay in the checkpoint's files and are read at each pass. tiles: plan for images of so many,
    the thumbnail included; for the most that the model cuts if not given. compile: vision tower and SAM2's encoder by
    torch.compile, which needs a C++ compiler and some minutes at the first image; for many images on a GPU, no faster
    on a CPU, equal within rounding, and its memory is in no forecast. When memory runs out, here or in a
    prediction, the next rung of the plan takes over, with a warning. What was chosen and why is in
    `Segmenter.provenance`. Only safetensors, config.json, the tokenizer files and the tensors of a .pth or .pt are
    read; Python in the folder is never imported. Raises LabError for parts that do not make a complete Sa2VA of a
    family that runs here, for a fine-tune that does not fit it, and for devices that are not there.
    """
    opened = open_whole(path, sam2=sam2, finetune=finetune, config=config, lora_alpha=lora_alpha)
    reader = PromptReader(opened.folder, opened.sizes, added=opened.added_tokens)
    device = str(device)  # it may be a torch.device as well
    if gpus is not None and device != "auto":
        raise LabError(f"device {device} and gpus {gpus} were given: leave one of them out.")
    chosen_device, device_reason = choose_device(device)
    if precision not in ("auto", *PRECISIONS):
        raise LabError(f"Precision {precision!r} is not available: use auto, {', '.join(PRECISIONS)}.")
    budgets = find_budgets(gpus)
    if unknown := set(max_memory or {}) - set(budgets):
        raise LabError(f"max_memory names {', '.join(sorted(unknown))}, but here are only {', '.join(budgets)}.")
    budgets |= {name: parse_size(text) for name, text in (max_memory or {}).items()}
    wanted = "auto" if device == "auto" else chosen_device
    made = climb_down(opened, budgets=budgets, precision=precision, device=wanted, tiles=tiles, spread=spread)
    start = made.start(precision, wanted)
    if start is None:
        raise LabError(made.explain_none())
    ladder = Ladder(
        opened,
        made,
        start=start,
        tell=warnings.warn,
        compiled=compile,
        progress=(lambda names: tqdm(names, desc="load weights", unit="tensor")) if progress else iter,
    )
    before = logging.get_verbosity()
    logging.set_verbosity_error()  # building on the meta device warns about things that the weights then settle
    try:
        model = ladder.load()
    finally:
        logging.set_verbosity(before)
    digest, method = opened.sha256()
    provenance = {
        "model": opened.name,
        "family": opened.sizes.family.group,
        "parameters": sum(tensor.parameters for tensor in opened.tensors.values()),
        "weights_sha256": digest,
        "weights_sha256_of": method,
        "finetune": opened.describe_finetune(),
        "sam2": opened.describe_sam2(),
        "stamp": opened.sizes.stamp,
        "precision": {"asked": precision},
        "device": {"asked": device, "actual": chosen_device, "reason": device_reason},
    }
    ladder.note(provenance)
    return Segmenter(model, reader, provenance=provenance, ladder=ladder)
