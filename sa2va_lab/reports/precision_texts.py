"""The sentences of 06_precision_vram in each language."""

# ruff: noqa: E501 - one line a text is easier to compare with its translation than any wrapping
TEXTS: dict[str, dict[str, str]] = {
    "plans_answer": {
        "en": "{ran} of {all} plans ran here, on {sample}. Least memory of its own: {least} ({least_peak}, {reference} {reference_peak}). Fastest: {fastest} ({seconds:.2f} s an image, {reference} {reference_seconds:.2f} s). Mean Dice lies between {low:.3f} and {high:.3f}; masks agree with {reference} to an IoU of {agreement:.3f} or more.",
        "zh": "{all} 个方案中有 {ran} 个在此运行，{sample}。自有内存最少：{least}（{least_peak}，{reference} 为 {reference_peak}）。最快：{fastest}（每幅 {seconds:.2f} 秒，{reference} 为 {reference_seconds:.2f} 秒）。平均 Dice 在 {low:.3f} 与 {high:.3f} 之间；与 {reference} 的掩膜 IoU 不低于 {agreement:.3f}。",
    },
    "plans_no_answer": {
        "en": "None of {all} plans ran here: {reason}",
        "zh": "{all} 个方案均未在此运行：{reason}",
    },
    "plans_no_cuda": {
        "en": "no CUDA device: forecast only, for a GPU of {gpu}",
        "zh": "无 CUDA 设备：仅有预测，按 {gpu} 的 GPU 计",
    },
    "plans_no_fit": {"en": "not run, as it would not fit: {reason}", "zh": "未运行，内存不足：{reason}"},
    "plans_failed": {"en": "did not run: {reason}", "zh": "未能运行：{reason}"},
    "plans_chosen": {"en": "what “auto” takes here", "zh": "“auto” 在此的选择"},
    "plans_forecast": {"en": "Forecast", "zh": "预测"},
    "plans_own": {"en": "Measured peak", "zh": "实测峰值"},
    "plans_forecast_mapped": {"en": "Mapped files, forecast", "zh": "映射文件（预测）"},
    "plans_mapped": {"en": "measured", "zh": "映射文件（实测）"},
    "plans_load": {"en": "Load, s", "zh": "加载（秒）"},
    "plans_seconds": {"en": "An image, s", "zh": "每幅（秒）"},
    "plans_vision": {"en": "vision", "zh": "视觉"},
    "plans_words": {"en": "answer", "zh": "回答"},
    "plans_sam2": {"en": "SAM2", "zh": "SAM2"},
    "plans_ratio": {"en": "Measured / forecast", "zh": "实测 / 预测"},
    "plans_dice": {"en": "Dice", "zh": "Dice"},
    "plans_agreement": {"en": "IoU with {reference}", "zh": "与 {reference} 的 IoU"},
    "plans_difference": {"en": "Largest Δp", "zh": "最大 Δp"},
    "plans_axis_memory": {"en": "Measured peak of own memory, {unit}", "zh": "实测自有内存峰值（{unit}）"},
    "plans_axis_seconds": {"en": "Seconds an image", "zh": "每幅秒数"},
    "plans_axis_dice": {"en": "Mean Dice, 95 % interval", "zh": "平均 Dice，95 % 区间"},
    "plans_front": {"en": "filled: no other plan is both smaller and faster", "zh": "实心：无其他方案既更小又更快"},
    "plans_alt": {
        "en": "Seconds an image and mean Dice against measured memory: {points}. No other plan is both smaller and faster than {front}.",
        "zh": "每幅秒数和平均 Dice 与实测内存：{points}。没有其他方案比 {front} 既小又快。",
    },
    "plans_alt_none": {"en": "No plan ran here, so there is nothing to draw.", "zh": "没有方案在此运行，无图可画。"},
}
