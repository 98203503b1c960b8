"""The demo's fine-tune: LoRA on the base model, on the shipped training patients, left behind as xtuner leaves it.

Trained are LoRA on every linear layer of the language model, copies of its embeddings and head, the projector `mlp1`,
SAM2's mask decoder and the [SEG] projection, with the weighted losses of a real run. Vision tower and SAM2's encoder
stay as they are, so what they see of the few images is computed once.
"""

from __future__ import annotations

import json
import math
import re
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sa2va_lab.datasets.formats import open_dataset
from sa2va_lab.errors import LabError
from sa2va_lab.loading.checkpoint import Checkpoint
from sa2va_lab.paths import find_root
from sa2va_lab.sa2va.configuration import read_config
from sa2va_lab.sa2va.internvl import see
from sa2va_lab.sa2va.modeling import CanvasFeatures, Sa2VA
from sa2va_lab.sa2va.processing import PromptReader, cut_tiles, normalise, read_image, stretch
from sa2va_lab.sa2va.sam2 import SAM2_TABLE
from sa2va_lab.sa2va.weights import build_empty, load_weights
from tools.demo.angiograms import PHRASES
from tools.demo.lessons import Conversations
from tools.demo.xtuner import DECODER, TrainingLog, write_checkpoint

NAME = "sa2va_angiogram_finetune"  # of the config and the log
RANK, ALPHA, DROPOUT = 8, 16, 0.05
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
MASK_WEIGHT, DICE_WEIGHT = 3.0, 1.0  # as in the real run
ASKED = (0.5, 0.4, 0.1)  # about vessel, catheter, wire; no training patient has wires, and that must not be the lesson
LR, WARMUP, ACCUMULATION, MAX_NORM, WEIGHT_DECAY = 4e-5, 0.05, 4, 1.0, 0.05


def finetune(
    base: Path | str, data: Path | str, out: Path | str, *, repeats: int = 20, epochs: int = 1, progress: bool = True
) -> Path:
    """Fine-tunes `base` on the training split of `data` and writes `iter_<n>.pth`, its config and its logs into `out`.

    repeats: how often an epoch goes through the images. Returns the path of the .pth. Needs peft; raises LabError
    where it is missing or where `out` holds a fine-tune already.
    """
    from tqdm import tqdm

    out = Path(out)
    if list(out.glob("iter_*.pth")):
        raise LabError(f"{out} holds a fine-tune already: give another folder, or remove iter_*.pth there.")
    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    model, wrapped = _load_for_training(Path(base))
    reader = PromptReader(base, model.config)
    examples = _look_once(model, data)
    drawn = len(examples) * repeats
    rounds = math.ceil(drawn / ACCUMULATION) * ACCUMULATION  # the sampler fills up the last group
    iterations = rounds * epochs
    config = config_text(base, data, repeats=repeats, epochs=epochs, iterations=iterations)
    (out / f"{NAME}.py").write_text(config, encoding="utf-8")
    log = TrainingLog(out, name=NAME, iterations=iterations)
    log.say(
        f"{len(examples)} images x {repeats} repeats, batch 1, accumulation {ACCUMULATION}, {iterations} iterations"
    )
    optimizer = torch.optim.AdamW(_trained(model), lr=LR, betas=(0.9, 0.999), weight_decay=WEIGHT_DECAY)
    conversations, waiting = Conversations(reader), []
    for iteration in tqdm(range(1, iterations + 1), desc="fine-tune", unit="it", disable=not progress):
        begun = time.perf_counter()
        if not waiting:
            waiting = (rng.permutation(rounds) % len(examples)).tolist()
        example = examples[waiting.pop()]
        batch = conversations.batch(example.presence[None], rng=rng, asked=ASKED, absent=1)
        lr = optimizer.param_groups[0]["lr"] = _learning_rate(iteration, iterations)
        fetched = time.perf_counter()
        losses = _losses(model, example, batch)
        (sum(losses.values()) / ACCUMULATION).backward()
        if iteration % ACCUMULATION == 0:
            torch.nn.utils.clip_grad_norm_(_trained(model), MAX_NORM)
            optimizer.step()
            optimizer.zero_grad()
        named = {"loss": sum(losses.values())} | losses
        log.note(
            iteration,
            lr=lr,
            seconds=time.perf_counter() - begun,
            data_seconds=fetched - begun,
            losses={name: value.item() for name, value in named.items()},
        )
    log.say(f"Saving checkpoint at {iterations} iterations")
    path = out / f"iter_{iterations}.pth"
    trained = _trained_tensors(model, wrapped)
    return write_checkpoint(path, trained=trained, log=log, config=config, iteration=iterations, epoch=epochs)


def _load_for_training(base: Path):
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise LabError("The fine-tune needs peft, which is not installed: pip install peft.") from None
    config = read_config(base)
    model = load_weights(build_empty(config), Checkpoint(base), dtype=torch.float32)
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()  # the loaded ones are views of the read-only file
    lora = LoraConfig(
        r=RANK,
        lora_alpha=ALPHA,
        lora_dropout=DROPOUT,
        bias="none",
        task_type="CAUSAL_LM",
        target_modules=TARGETS,
        modules_to_save=["embed_tokens", "lm_head"],
    )
    wrapped = get_peft_model(model.language_model, lora)  # changes model.language_model in place
    for part in (model.mlp1, model.text_hidden_fcs, model.grounding_encoder.mask_decoder):
        part.requires_grad_(True)
    return model.train(), wrapped


def _trained(model: Sa2VA) -> list[torch.nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


class _Example:
    """One training image: what the frozen parts see of it, its truths (phrases, g, g), its presence (phrases,)."""

    def __init__(self, seen: Tensor, features: CanvasFeatures, truths: Tensor, presence: np.ndarray):
        self.seen, self.features, self.truths, self.presence = seen, features, truths, presence


@torch.no_grad()
def _look_once(model: Sa2VA, data: Path | str) -> list[_Example]:
    by_phrase = [open_dataset(data, phrase=phrase).split("train") for phrase in PHRASES]
    examples = []
    for samples in zip(*by_phrase, strict=True):
        image = read_image(samples[0].image)
        features = model.encode_canvas(normalise(stretch(image, model.config).float()))
        masks = torch.from_numpy(np.stack([sample.truth() for sample in samples])).float()
        truths = F.interpolate(masks[None], size=features.fine[0].shape[-2:], mode="area")[0]
        presence = masks.flatten(1).any(1).numpy().astype(np.int64)
        examples.append(_Example(see(model, cut_tiles(image, model.config)), features, truths, presence))
    return examples


def _losses(model: Sa2VA, example: _Example, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """loss_mask, loss_dice and llm_loss of one conversation, weighted; a refusal has no mask to lose on."""
    tokens = model.mlp1(example.seen)
    embeddings = model.embed(batch["ids"]).masked_scatter(batch["image"][..., None], tokens)
    states = model.read(embeddings, None)
    learnt = batch["labels"][:, 1:] != -100
    said = model.score_tokens(states[:, :-1][learnt])
    llm_loss = F.cross_entropy(said, batch["labels"][:, 1:][learnt]) if learnt.any() else states.sum() * 0
    if batch["seg"][0] < 0 or not learnt.any():
        return {"loss_mask": llm_loss * 0, "loss_dice": llm_loss * 0, "llm_loss": llm_loss}
    embedding = model.text_hidden_fcs(states[:, batch["seg"][0]])
    logits, _ = model.propose(example.features, embedding)
    wanted = example.truths[batch["phrase"]][:, None].expand_as(logits)
    chance = logits.sigmoid()
    overlap = 2 * (chance * wanted).sum((-2, -1)) + 1
    dice = 1 - overlap / (chance.sum((-2, -1)) + wanted.sum((-2, -1)) + 1)
    mask = F.binary_cross_entropy_with_logits(logits, wanted)
    return {"loss_mask": MASK_WEIGHT * mask, "loss_dice": DICE_WEIGHT * dice.mean(), "llm_loss": llm_loss}


def _learning_rate(iteration: int, iterations: int) -> float:
    """Linear from 1e-5 of it over the warm-up, then a half cosine to 0."""
    warm = max(round(WARMUP * iterations), 2)
    if iteration <= warm:
        return LR * (1e-5 + (1 - 1e-5) * (iteration - 1) / (warm - 1))
    return LR * (1 + math.cos(math.pi * (iteration - warm) / (iterations - warm))) / 2


def _trained_tensors(model: Sa2VA, wrapped) -> dict[str, Tensor]:
    """What was trained, under the names that xtuner writes."""
    kept = {
        f"mllm.model.language_model.{name}": tensor
        for name, tensor in wrapped.state_dict().items()
        if "lora_" in name or "modules_to_save." in name
    }
    kept |= {f"mllm.model.mlp1.{name}": tensor for name, tensor in model.mlp1.state_dict().items()}
    decoder = {
        f"grounding_encoder.mask_decoder.{name}": tensor
        for name, tensor in model.grounding_encoder.mask_decoder.state_dict().items()
    }
    for official, (place,) in SAM2_TABLE.official(decoder).items():
        assert official.startswith(DECODER)
        kept[official] = decoder[place.name]
    return kept | {f"text_hidden_fcs.{name}": tensor for name, tensor in model.text_hidden_fcs.state_dict().items()}


def config_text(base: Path | str, data: Path | str, *, repeats: int, epochs: int, iterations: int) -> str:
    """The shipped config with what this training has of its own. The rest of it says the constants of this module."""
    own = {
        "path": _as_given(base),
        "DATA_ROOT": f"{_as_given(data)}/",
        "repeats": repeats,
        "max_epochs": epochs,
        "save_steps": iterations,
    }
    text = (find_root() / "data" / "demo" / f"{NAME}.py").read_text("utf-8")
    for name, value in own.items():
        text = re.sub(rf"^{name} = .*$", f"{name} = {json.dumps(value)}", text, flags=re.MULTILINE)
    return text


def _as_given(path: Path | str) -> str:
    """data/demo/... where the path holds that, so that the shipped config names no folder of the machine it ran on."""
    parts = Path(path).resolve().parts
    return "/".join(parts[parts.index("data") :]) if "data" in parts else Path(path).name
