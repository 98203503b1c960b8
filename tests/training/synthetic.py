"""Logs and configs in the exact forms of mmengine: what the real run left, and what it would have been."""

import json

import numpy as np

from sa2va_lab.training.audit import warmup_rate

REAL = {  # the figures that the real fine-tune reported: first, last
    "loss": (14.2463, 1.7884),
    "loss_mask": (5.0226, 1.0294),
    "loss_dice": (0.9987, 0.4997),
    "llm_loss": (8.2250, 0.2593),
}
PARTS = ("loss_mask", "loss_dice", "llm_loss")
CONFIG = """\
from mmengine.hooks import CheckpointHook, LoggerHook
from mmengine.optim import AmpOptimWrapper, CosineAnnealingLR, LinearLR
from peft import LoraConfig
from projects.sa2va.datasets import Sa2VAFinetuneDataset
from projects.sa2va.datasets.data_utils import ConcatDatasetSa2VA
from projects.sa2va.models import InternVLMLLM, Sa2VAModel
from third_parts.mmdet.models.losses import CrossEntropyLoss, DiceLoss
from torch.optim import AdamW
from xtuner.dataset.samplers import LengthGroupedSampler
from xtuner.engine.runner import TrainLoop
from xtuner.utils import PROMPT_TEMPLATE

path = "models/InternVL3-8B"
prompt_template = PROMPT_TEMPLATE.qwen_chat
batch_size = 1
accumulative_counts = 8
max_epochs = {epochs}
lr = 2e-5
warmup_ratio = 0.1
special_tokens = ["[SEG]", "<p>", "</p>", "<vp>", "</vp>"]
model = dict(
    type=Sa2VAModel,
    special_tokens=special_tokens,
    pretrained_pth=None,
    mllm=dict(type=InternVLMLLM, model_path=path, llm_lora=dict(type=LoraConfig, r=64, lora_alpha=128)),
    loss_mask=dict(type=CrossEntropyLoss, use_sigmoid=True, loss_weight={mask_weight}),
    loss_dice=dict(type=DiceLoss, use_sigmoid=True, loss_weight={dice_weight}),
)
DATA_ROOT = "data/"
shared = dict(special_tokens=special_tokens, prompt_template=prompt_template)
vessels = [
    dict(type=Sa2VAFinetuneDataset, name="Vessels", data_root=DATA_ROOT + "vessels/", ann_file="annotations.json",
         repeats={repeats}, **shared)
]
train_dataloader = dict(
    batch_size=batch_size,
    dataset=dict(type=ConcatDatasetSa2VA, datasets=[*vessels]),
    sampler=dict(type=LengthGroupedSampler, per_device_batch_size=batch_size * accumulative_counts),
)
optim_wrapper = dict(
    type=AmpOptimWrapper, optimizer=dict(type=AdamW, lr=lr), accumulative_counts=accumulative_counts
)
param_scheduler = [
    dict(type=LinearLR, start_factor=1e-5, by_epoch=True, begin=0, end=warmup_ratio * max_epochs,
         convert_to_iter_based=True),
    dict(type=CosineAnnealingLR, eta_min=0.0, by_epoch=True, begin=warmup_ratio * max_epochs, end=max_epochs),
]
train_cfg = dict(type=TrainLoop, max_epochs=max_epochs)
default_hooks = dict(
    logger=dict(type=LoggerHook, interval=10),
    checkpoint=dict(type=CheckpointHook, by_epoch=False, interval=500, max_keep_ckpts=5),
)
strategy = dict(
    type="DeepSpeedStrategy",
    zero_optimization=dict(stage=3, offload_optimizer=dict(device="cpu"), offload_param=dict(device="cpu")),
)
"""


def make_lines(iterations=12192, *, interval=10, ends=REAL, lr=2e-5, warmup=None, seed=0, shape=6.0, **more):
    """The numbers of a run, a dictionary a line: losses fall from their first to their last figure, parts sum up."""
    places = np.arange(interval, iterations + 1, interval)
    share = (places - places[0]) / max(places[-1] - places[0], 1)
    fall = (np.exp(-shape * share) - np.exp(-shape)) / (1 - np.exp(-shape))
    noise = np.random.default_rng(seed).normal(0, 0.03, (len(PARTS), len(places)))
    noise[:, [0, -1]] = 0
    columns = {}
    for name, wave in zip(PARTS, noise, strict=True):
        first, last = ends[name]
        columns[name] = np.round((last + (first - last) * fall) * (1 + wave), 4)
    columns["loss"] = np.round(sum(columns.values()), 4)
    warmup = warmup or int(0.1 * iterations)
    peak = [warmup_rate(int(place), lr=lr, length=warmup) for place in places]
    rates = np.where(places < warmup, peak, lr * 0.5 * (1 + np.cos(np.pi * np.clip(places / iterations, 0, 1))))
    order = ("loss", *PARTS)
    return [
        {"iter": int(place), "lr": float(rate), "time": 17.8, "data_time": 0.02, "memory": 19793}
        | {name: float(columns[name][line]) for name in order}
        | {name: value for name, value in more.items()}
        for line, (place, rate) in enumerate(zip(places, rates, strict=True))
    ]


def as_text(lines, iterations=12192, *, file=True):
    """Lines as mmengine's text log has them; file: with the year, as in the log file, not as on the console."""
    stamp = "2025/11/23 08:52:15" if file else "11/23 08:52:15"
    width = len(str(iterations))
    out = []
    for line in lines:
        rest = "  ".join(f"{k}: {v:.4f}" for k, v in line.items() if k not in ("iter", "lr", "memory"))
        time, _, losses = rest.partition("  loss: ")
        out.append(
            f"{stamp} - mmengine - INFO - Iter(train) [{line['iter']:>{width}}/{iterations}]  lr: {line['lr']:.4e}  "
            f"eta: 2 days, 16:41:05  {time}  memory: {line['memory']}  loss: {losses}"
        )
    return "\n".join(out) + "\n"


def as_scalars(lines):
    """The same as vis_data/scalars.json."""
    return "".join(json.dumps(line | {"step": line["iter"]}) + "\n" for line in lines)
