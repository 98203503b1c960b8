"""The form in which a Sa2VA fine-tune leaves xtuner: a .pth with what was trained, a config in Python, two logs.

Nothing here trains. The .pth is a pickle on purpose: its form is what users have.
"""

from __future__ import annotations

import datetime
import json
import sys
import types
from collections import OrderedDict, deque
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

DECODER = "grounding_encoder.sam2_model.sam_mask_decoder."
SMOOTHED = 10  # iterations that one logged figure is the mean of


class TrainingLog:
    """Writes what mmengine's LoggerHook writes: a text log and `vis_data/scalars.json`, a line every `interval`.

    Losses are logged with their weights and averaged over the last ten iterations, as mmengine does.
    """

    def __init__(self, folder: Path, *, name: str, iterations: int, interval: int = 10):
        self.text, self.scalars = folder / f"{name}.log", folder / "vis_data" / "scalars.json"
        self.iterations, self.interval = iterations, interval
        self.recent: dict[str, deque] = {}
        self.history: dict[str, list[float]] = {}
        self.scalars.parent.mkdir(parents=True, exist_ok=True)
        for path in (self.text, self.scalars):
            path.write_text("")
        self.say(f"Exp name: {name}")

    def say(self, text: str) -> None:
        """A line of the text log."""
        with open(self.text, "a", encoding="utf-8") as file:
            file.write(f"{datetime.datetime.now():%Y/%m/%d %H:%M:%S} - mmengine - INFO - {text}\n")

    def note(self, iteration: int, *, lr: float, seconds: float, data_seconds: float, losses: dict[str, float]) -> None:
        """Takes the figures of one iteration, counted from 1, and writes a line when its turn has come."""
        figures = {"lr": lr, "time": seconds, "data_time": data_seconds, **losses}
        for key, value in figures.items():
            self.recent.setdefault(key, deque(maxlen=SMOOTHED)).append(value)
            self.history.setdefault(f"train/{key}", []).append(value)
        if iteration % self.interval:
            return
        means = {key: float(np.mean(values)) for key, values in self.recent.items()} | {"lr": lr}
        left = datetime.timedelta(seconds=int(np.mean(self.history["train/time"]) * (self.iterations - iteration)))
        place = f"[{iteration:>{len(str(self.iterations))}}/{self.iterations}]"
        figures = "  ".join(f"{key}: {means[key]:.4f}" for key in ("time", "data_time", *losses))
        self.say(f"Iter(train) {place}  lr: {lr:.4e}  eta: {left}  {figures}")
        with open(self.scalars, "a", encoding="utf-8") as file:
            file.write(json.dumps(means | {"iter": iteration, "step": iteration}) + "\n")


def write_checkpoint(
    path: Path, *, trained: dict[str, Tensor], log: TrainingLog, config: str, iteration: int, epoch: int
) -> Path:
    """`iter_*.pth` as mmengine saves it: state_dict, meta, message_hub, with mmengine's own classes by name."""
    content = {
        "meta": {
            "epoch": epoch,
            "iter": iteration,
            "cfg": config,
            "seed": 0,
            "experiment_name": log.text.stem,
            "time": f"{datetime.datetime.now():%Y%m%d_%H%M%S}",
            "mmengine_version": "0.10.7",
        },
        "state_dict": OrderedDict((name, tensor.detach().clone().contiguous()) for name, tensor in trained.items()),
        "message_hub": {
            "log_scalars": OrderedDict((key, _as_history_buffer(values)) for key, values in log.history.items()),
            "runtime_info": OrderedDict(iter=iteration, epoch=epoch, max_iters=log.iterations),
            "resumed_keys": {},
        },
    }
    draft = path.with_name(f".{path.name}.part")
    torch.save(content, draft)
    draft.replace(path)
    return path


def _as_history_buffer(values: list[float]):
    """mmengine's HistoryBuffer as a pickle names it, without mmengine: a class of that name in a module so called."""
    name = "mmengine.logging.history_buffer"
    if name not in sys.modules:
        for parent in ("mmengine", "mmengine.logging", name):
            sys.modules.setdefault(parent, types.ModuleType(parent))
        kind = type("HistoryBuffer", (), {"__module__": name})
        sys.modules[name].HistoryBuffer = kind
    buffer = sys.modules[name].HistoryBuffer()
    buffer.__dict__ |= {
        "max_length": 1_000_000,
        "_log_history": np.array(values),
        "_count_history": np.ones(len(values), dtype=np.int64),
    }
    return buffer


def language_name(peft_name: str) -> str:
    """A tensor of the LoRA-wrapped language model as xtuner names it."""
    return f"mllm.model.language_model.{peft_name}"


CONFIG = """\
# The demo's fine-tune in the form of an xtuner config: what was trained, on what, and how.
# It is read as data; nothing imports or runs it.
from mmengine.hooks import CheckpointHook, IterTimerHook, LoggerHook, ParamSchedulerHook
from mmengine.optim import AmpOptimWrapper, CosineAnnealingLR, LinearLR
from peft import LoraConfig
from torch.optim import AdamW
from transformers import AutoTokenizer

from projects.sa2va.datasets import Sa2VAFinetuneDataset, sa2va_collect_fn
from projects.sa2va.models import DirectResize, InternVLMLLM, SAM2TrainRunner, Sa2VAModel
from third_parts.mmdet.models.losses import CrossEntropyLoss, DiceLoss
from xtuner.dataset import ConcatDataset
from xtuner.dataset.samplers import LengthGroupedSampler
from xtuner.engine.runner import TrainLoop
from xtuner.utils import PROMPT_TEMPLATE

# model
path = "{base}"
pretrained_pth = None
template = "qwen_chat"
prompt_template = PROMPT_TEMPLATE.qwen_chat
max_length = 2048
special_tokens = ["[SEG]", "<p>", "</p>", "<vp>", "</vp>"]

# data
DATA_ROOT = "{data}/"
repeats = {repeats}
batch_size = 1
accumulative_counts = {accumulation}
dataloader_num_workers = 0

# schedule
max_epochs = {epochs}
optim_type = AdamW
lr = {lr}
betas = (0.9, 0.999)
weight_decay = 0.05
max_norm = 1
warmup_ratio = {warmup}
save_steps = {iterations}

tokenizer = dict(type=AutoTokenizer.from_pretrained, pretrained_model_name_or_path=path, padding_side="right")
extra_image_processor = dict(type=DirectResize, target_length={canvas})

model = dict(
    type=Sa2VAModel,
    training_bs=batch_size,
    special_tokens=special_tokens,
    pretrained_pth=pretrained_pth,
    loss_sample_points=False,
    frozen_sam2_decoder=False,
    mllm=dict(
        type=InternVLMLLM,
        model_path=path,
        freeze_llm=True,
        freeze_visual_encoder=True,
        llm_lora=dict(
            type=LoraConfig,
            r={rank},
            lora_alpha={alpha},
            lora_dropout={dropout},
            bias="none",
            task_type="CAUSAL_LM",
            target_modules={targets},
            modules_to_save=["embed_tokens", "lm_head"],
        ),
    ),
    tokenizer=tokenizer,
    grounding_encoder=dict(type=SAM2TrainRunner),
    loss_mask=dict(type=CrossEntropyLoss, use_sigmoid=True, reduction="mean", loss_weight={mask_weight}),
    loss_dice=dict(
        type=DiceLoss, use_sigmoid=True, activate=True, reduction="mean", naive_dice=True, eps=1.0,
        loss_weight={dice_weight},
    ),
)

train_dataset = dict(
    type=ConcatDataset,
    datasets=[
        dict(
            type=Sa2VAFinetuneDataset,
            data_root=DATA_ROOT,
            data_prefix=dict(img_path="images"),
            ann_file="annotations_train.json",
            tokenizer=tokenizer,
            special_tokens=special_tokens,
            extra_image_processor=extra_image_processor,
            prompt_template=prompt_template,
            max_length=max_length,
            repeats=repeats,
        )
    ],
)
train_dataloader = dict(
    batch_size=batch_size,
    num_workers=dataloader_num_workers,
    dataset=train_dataset,
    sampler=dict(
        type=LengthGroupedSampler,
        length_property="modality_length",
        per_device_batch_size=batch_size * accumulative_counts,
    ),
    collate_fn=dict(type=sa2va_collect_fn),
)

optim_wrapper = dict(
    type=AmpOptimWrapper,
    optimizer=dict(type=optim_type, lr=lr, betas=betas, weight_decay=weight_decay),
    clip_grad=dict(max_norm=max_norm, error_if_nonfinite=False),
    accumulative_counts=accumulative_counts,
    loss_scale="dynamic",
    dtype="float32",
)
param_scheduler = [
    dict(
        type=LinearLR, start_factor=1e-5, by_epoch=True, begin=0, end=warmup_ratio * max_epochs,
        convert_to_iter_based=True,
    ),
    dict(
        type=CosineAnnealingLR, eta_min=0.0, by_epoch=True, begin=warmup_ratio * max_epochs, end=max_epochs,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type=TrainLoop, max_epochs=max_epochs)
default_hooks = dict(
    timer=dict(type=IterTimerHook),
    logger=dict(type=LoggerHook, log_metric_by_epoch=False, interval=10),
    param_scheduler=dict(type=ParamSchedulerHook),
    checkpoint=dict(type=CheckpointHook, save_optimizer=False, by_epoch=False, interval=save_steps, max_keep_ckpts=1),
)
launcher = "none"
log_processor = dict(by_epoch=False)
"""
