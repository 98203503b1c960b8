"""Texts that are looked up by a key made at run time; all others stand in English where they are used."""

# ruff: noqa: E501 - a text a line

from __future__ import annotations

from sa2va_lab.language import tr
from sa2va_lab.reports import answers
from sa2va_lab.reports.answers import say_size  # noqa: F401

TEXTS: dict[str, str] = {
    "what": "What",
    "value": "Value",
    "model": "Model",
    "device": "Device",
    "precision_row": "Number format",
    "data": "Images",
    "phrase": "Looked for",
    "prompt": "Prompt",
    "split": "Split",
    "training": "In training?",
    "rasteriser": "Masks from polygons by",
    "macro": "Mean of images",
    "interval": "95 % interval",
    "pooled": "All pixels pooled",
    "n_images": "N images",
    "n_groups": "N patients",
    "group_column": "Patient",
    "mask_area": "Mask, px",
    "seconds": "Seconds",
    "code": "code",
    "parameters": "Parameters given",
    "curve_yes": "yes",
    "inventory_complete": "{parameters} parameters: {stored} as stored, {half} in bf16. Nothing is missing for inference.",
    "inventory_finetune": "The fine-tune {file} holds {parameters} parameters ({stored}); alone it is no model.",
    "inventory_part": "Part",
    "inventory_tensors": "Tensors",
    "inventory_parameters": "Parameters",
    "inventory_stored": "As stored",
    "inventory_half": "In bf16",
    "inventory_dtypes": "Stored as",
    "inventory_origin": "Comes from",
    "inventory_total": "Together",
    "inventory_what": "What",
    "inventory_found": "In the files",
    "inventory_noted": "In your notes",
    "inventory_verdict": "Verdict",
    "inventory_agrees": "agrees",
    "inventory_differs": "does not agree",
    "inventory_yes": "yes",
    "inventory_no": "no",
    "inventory_size_fp32": "Size in fp32, GB (10⁹ bytes)",
    "inventory_billions": "Parameters of the model, billions",
    "inventory_family": "Family",
    "inventory_language_model": "Language model",
    "inventory_lora": "LoRA",
    "inventory_unknown": "not known: give the training config",
    "inventory_none": "none",
    "inventory_missing": "Missing",
    "inventory_alt": "Bytes by part, as stored and in bf16: {first} is the largest with {size}, {share:.0%} of {total}; in bf16 the whole is {half}.",
    "part_vision": "Vision tower",
    "part_projector": "Projector",
    "part_embed_tokens": "Token embeddings",
    "part_lm_head": "Output head",
    "part_language": "Language model layers",
    "part_sam2_encoder": "SAM2 image encoder",
    "part_sam2_decoder": "SAM2 mask decoder",
    "part_sam2_prompt": "SAM2 prompt encoder",
    "part_sam2_memory": "SAM2 memory (video)",
    "part_seg_projection": "[SEG] projection",
    "part_lora": "LoRA",
    "part_other": "Other",
    "plans_answer": "{ran} of {all} plans ran here, on {sample}. Least memory of its own: {least} ({least_peak}, {reference} {reference_peak}). Fastest: {fastest} ({seconds:.2f} s an image, {reference} {reference_seconds:.2f} s). Mean Dice lies between {low:.3f} and {high:.3f}; masks agree with {reference} to an IoU of {agreement:.3f} or more.",
    "plans_failed": "did not run: {reason}",
    "plans_chosen": "what “auto” takes here",
    "plans_forecast": "Forecast",
    "plans_own": "Measured peak",
    "plans_forecast_mapped": "Mapped files, forecast",
    "plans_mapped": "measured",
    "plans_load": "Load, s",
    "plans_seconds": "An image, s",
    "plans_vision": "vision",
    "plans_words": "answer",
    "plans_sam2": "SAM2",
    "plans_ratio": "Measured / forecast",
    "plans_dice": "Dice",
    "plans_agreement": "IoU with {reference}",
    "plans_difference": "Largest Δp",
    "plans_alt": "Seconds an image and mean Dice against measured memory: {points}. No other plan is both smaller and faster than {front}.",
}


def say(key: str, **values) -> str:
    """The text called `key` in the current language, its places filled with `values`."""
    return tr(TEXTS[key], **values)


def say_sample(summary: dict) -> str:
    """How many images of how many patients."""
    return answers.say_sample(summary["n_images"], summary["n_groups"])
