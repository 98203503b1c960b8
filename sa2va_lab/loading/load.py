"""`load`: a checkpoint folder becomes a Segmenter."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from sa2va_lab.loading.plan import as_dtype, choose_device, choose_precision

if TYPE_CHECKING:
    from sa2va_lab.segmenter import Segmenter


def load(
    path: Path | str,
    *,
    finetune: Path | str | None = None,
    config: Path | str | None = None,
    lora_alpha: float | None = None,
    precision: str = "auto",
    device: str = "auto",
    progress: bool = False,
) -> Segmenter:
    """The Sa2VA checkpoint in `path`, ready to answer.

    finetune: xtuner's `iter_*.pth`, laid over the checkpoint while it loads; config: the training config, where LoRA's
    alpha stands (it is read, never executed; mmengine leaves a copy in the .pth, which serves where none is given), or
    lora_alpha: alpha itself. precision: "auto", "fp32", "bf16" or "fp16";
    device: "auto", "cpu", "cuda", "cuda:1". What was chosen and why is in `Segmenter.provenance`. Only safetensors,
    config.json, the tokenizer files and the tensors of a .pth are read; Python in the folder is never imported. Raises
    LabError for a folder that is not a complete Sa2VA checkpoint of the InternVL family, and for a fine-tune that does
    not fit it.
    """
    from tqdm import tqdm
    from transformers.utils import logging

    from sa2va_lab.loading.finetune import FineTune, Merged
    from sa2va_lab.loading.inventory import find_alpha
    from sa2va_lab.sa2va.configuration import read_config
    from sa2va_lab.sa2va.processing import PromptReader
    from sa2va_lab.sa2va.weights import OfficialFolder, build_empty, load_weights
    from sa2va_lab.segmenter import Segmenter

    folder = Path(path).expanduser()
    sizes = read_config(folder)
    source = OfficialFolder(folder)
    laid_over = None
    if finetune is not None:
        tuned = FineTune(finetune)
        source = Merged(source, tuned, alpha=find_alpha(tuned.content, config, lora_alpha))
        laid_over = source.describe()
    reader = PromptReader(folder, sizes)
    parameters = sum(math.prod(source.shape(name)) for name in source.names())
    chosen_device, device_reason = choose_device(device)
    chosen, precision_reason = choose_precision(precision, device=chosen_device, parameters=parameters)
    before = logging.get_verbosity()
    logging.set_verbosity_error()  # building on the meta device warns about things that the weights then settle
    try:
        model = load_weights(
            build_empty(sizes),
            source,
            dtype=as_dtype(chosen),
            device=chosen_device,
            progress=(lambda names: tqdm(names, desc="load weights", unit="tensor")) if progress else iter,
        )
    finally:
        logging.set_verbosity(before)
    digest, method = source.sha256()
    provenance = {
        "model": folder.resolve().name,
        "family": "internvl",
        "parameters": parameters,
        "weights_sha256": digest,
        "weights_sha256_of": method,
        "finetune": laid_over,
        "stamp": sizes.stamp,
        "precision": {"asked": precision, "actual": chosen, "reason": precision_reason},
        "device": {"asked": device, "actual": chosen_device, "reason": device_reason},
    }
    return Segmenter(model, reader, provenance=provenance)
