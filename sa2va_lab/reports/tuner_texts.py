"""The sentences of 04_threshold_tuning in each language."""

# ruff: noqa: E501 - one line a text is easier to compare with its translation than any wrapping
TEXTS: dict[str, dict[str, str]] = {
    "tuner_answer": {
        "en": "On {sample}, split “{split}”, threshold {best:.3f} gives the best mean Dice, {score:.3f}; 0.5 gives {half:.3f}, and from {low:.3f} to {high:.3f} it is within 0.005 of the best. It may be reported on other patients only.",
        "zh": "在 {sample}（数据划分“{split}”）上，阈值 {best:.3f} 的平均 Dice 最高，为 {score:.3f}；0.5 时为 {half:.3f}，{low:.3f} 至 {high:.3f} 之间与最佳相差不超过 0.005。该阈值只能用于报告其他患者。",
    },
    "tuner_no_curve": {
        "en": "There is no curve and no number here: {reason}",
        "zh": "此处没有曲线和数字：{reason}",
    },
    "tuner_no_save": {
        "en": "A threshold is saved with the images it was chosen on, and there are none: {reason}",
        "zh": "保存阈值时须注明选择所用的图像，而此处没有：{reason}",
    },
    "tuner_curve": {
        "en": "Split “{split}”, {n} images, without minimum area and hole filling: mean Dice {dice:.3f} at {threshold:.3f} (orange); best {score:.3f} at {best:.3f} (blue, band: 95 % interval of the choice); {half:.3f} at 0.5 (dashed).",
        "zh": "数据划分“{split}”，{n} 幅图像，不含最小面积与填孔：{threshold:.3f} 处平均 Dice {dice:.3f}（橙色）；最佳 {score:.3f}，位于 {best:.3f}（蓝色，色带为选择的 95 % 区间）；0.5 处 {half:.3f}（虚线）。",
    },
    "tuner_saved": {"en": "Saved {path} in the Run {run}.", "zh": "已在运行 {run} 中保存 {path}。"},
    "tuner_alt_strip": {"en": "{id} at five thresholds: {steps}.", "zh": "{id} 的五个阈值：{steps}。"},
    "tuner_mean_dice": {"en": "Mean Dice of the split", "zh": "数据划分的平均 Dice"},
    "tuner_order": {"en": "Order", "zh": "顺序"},
    "tuner_worst_first": {"en": "worst first", "zh": "最差在前"},
    "tuner_by_patient": {"en": "by patient", "zh": "按患者"},
    "tuner_search": {"en": "Search", "zh": "搜索"},
    "tuner_sample": {"en": "Image, Dice at 0.5", "zh": "图像（0.5 处 Dice）"},
    "tuner_threshold": {"en": "Threshold", "zh": "阈值"},
    "tuner_number": {"en": "Threshold, number", "zh": "阈值（数字）"},
    "tuner_union": {"en": "all together", "zh": "合并"},
    "tuner_min_area": {"en": "Minimum area, px", "zh": "最小面积（像素）"},
    "tuner_holes": {"en": "Fill holes up to, px", "zh": "填孔上限（像素）"},
    "tuner_zoom": {"en": "Zoom", "zh": "放大"},
    "tuner_across": {"en": "Across", "zh": "水平位置"},
    "tuner_down": {"en": "Down", "zh": "垂直位置"},
    "tuner_note": {"en": "Note", "zh": "备注"},
    "tuner_best": {"en": "Best here", "zh": "此处最佳"},
    "tuner_save": {"en": "Save", "zh": "保存"},
}
