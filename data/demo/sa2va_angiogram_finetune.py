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
path = "data/demo/base"
pretrained_pth = None
template = "qwen_chat"
prompt_template = PROMPT_TEMPLATE.qwen_chat
max_length = 2048
special_tokens = ["[SEG]", "<p>", "</p>", "<vp>", "</vp>"]

# data
DATA_ROOT = "data/demo/angiograms/"
repeats = 20
batch_size = 1
accumulative_counts = 4
dataloader_num_workers = 0

# schedule
max_epochs = 1
optim_type = AdamW
lr = 4e-05
betas = (0.9, 0.999)
weight_decay = 0.05
max_norm = 1
warmup_ratio = 0.05
save_steps = 480

tokenizer = dict(type=AutoTokenizer.from_pretrained, pretrained_model_name_or_path=path, padding_side="right")
extra_image_processor = dict(type=DirectResize, target_length=512)

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
            r=8,
            lora_alpha=16,
            lora_dropout=0.05,
            bias="none",
            task_type="CAUSAL_LM",
            target_modules=['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'],
            modules_to_save=["embed_tokens", "lm_head"],
        ),
    ),
    tokenizer=tokenizer,
    grounding_encoder=dict(type=SAM2TrainRunner),
    loss_mask=dict(type=CrossEntropyLoss, use_sigmoid=True, reduction="mean", loss_weight=3.0),
    loss_dice=dict(
        type=DiceLoss, use_sigmoid=True, activate=True, reduction="mean", naive_dice=True, eps=1.0,
        loss_weight=1.0,
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
