"""The sentences of 03_evaluation about thresholds, baselines and honesty; `texts.say` looks them up like any other."""

# ruff: noqa: E501 - one line a text is easier to compare with its translation than any wrapping
TEXTS: dict[str, dict[str, str]] = {
    "honest_copied_alarm": {
        "en": "{n} of {of} masks equal the annotation pixel for pixel: the truth was very likely copied.",
        "zh": "{of} 个掩膜中有 {n} 个与标注逐像素相同：很可能复制了标注。",
    },
    "honest_copied_clean": {
        "en": "No mask equals its annotation ({of} looked at).",
        "zh": "没有掩膜与标注完全相同（检查了 {of} 个）。",
    },
    "honest_child_alarm": {
        "en": "{n} of {of} masks are the annotation itself on the model's grid: copied, eroded, dilated or shifted.",
        "zh": "{of} 个掩膜中有 {n} 个在模型网格上就是标注本身：复制、腐蚀、膨胀或平移而来。",
    },
    "honest_child_clean": {
        "en": "No more than {n} of {of} masks look like an eroded, dilated, opened, closed or shifted annotation.",
        "zh": "{of} 个掩膜中至多 {n} 个像是由标注腐蚀、膨胀、开闭运算或平移而来。",
    },
    "honest_inside_alarm": {
        "en": "In {n} of {of} images the mask lies exactly inside the annotation, or holds all of it: it was very likely made from it.",
        "zh": "{of} 幅图像中有 {n} 幅的掩膜恰好完全在标注之内或完全包含标注：很可能由标注得来。",
    },
    "honest_inside_clean": {
        "en": "Masks are wrong on both sides of the annotation's border (but for {n} of {of}).",
        "zh": "掩膜在标注边界两侧都有错误（{of} 个中 {n} 个除外）。",
    },
    "honest_noised_alarm": {
        "en": "In {n} of {of} images most wrong pixels stand alone: an annotation with noise on it, not a model's mistakes.",
        "zh": "{of} 幅图像中有 {n} 幅的错误像素多为孤立点：像是加噪的标注，而非模型的错误。",
    },
    "honest_noised_clean": {
        "en": "Wrong pixels lie together, as a model's do (but for {n} of {of} images).",
        "zh": "错误像素成片出现，符合模型的特征（{of} 幅中 {n} 幅除外）。",
    },
    "honest_binary_alarm": {
        "en": "In {n} of {of} images the logits hold a handful of values only: masks that somebody cut before, so no threshold can be swept.",
        "zh": "{of} 幅图像中有 {n} 幅的 logits 只有寥寥几个取值：掩膜早已被二值化，无法扫描阈值。",
    },
    "honest_binary_clean": {
        "en": "Probabilities are graded ({n} of {of} images are not).",
        "zh": "概率是连续分级的（{of} 幅中 {n} 幅不是）。",
    },
    "honest_constant_alarm": {
        "en": "In {n} of {of} images every pixel has the same probability.",
        "zh": "{of} 幅图像中有 {n} 幅所有像素概率相同。",
    },
    "honest_constant_clean": {
        "en": "No image has one probability for all pixels ({of} looked at).",
        "zh": "没有图像的所有像素概率相同（检查了 {of} 幅）。",
    },
    "honest_damaged_alarm": {
        "en": "{n} of {of} predictions on disk are not what was predicted: their hashes differ.",
        "zh": "磁盘上 {of} 个预测中有 {n} 个不是当时的预测：哈希不符。",
    },
    "honest_damaged_clean": {
        "en": "All predictions on disk have the hash of the day they were made.",
        "zh": "磁盘上所有预测的哈希与生成时一致。",
    },
    "honest_unnamed_alarm": {
        "en": "In {n} of {of} images there is a mask that the answer does not name, or a name without a mask.",
        "zh": "{of} 幅图像中有 {n} 幅的掩膜未被回答提及，或回答提及却无掩膜。",
    },
    "honest_unnamed_clean": {
        "en": "Every mask belongs to a [SEG] of its answer; an answer without one counts as an empty mask.",
        "zh": "每个掩膜都对应回答中的 [SEG]；没有 [SEG] 的回答按空掩膜计。",
    },
    "honest_failed_alarm": {
        "en": "{n} of {of} images failed and are in no mean: the rest may be the easy ones.",
        "zh": "{of} 幅图像中有 {n} 幅失败而未计入均值：余下的可能较容易。",
    },
    "honest_failed_clean": {"en": "{n} of {of} images failed.", "zh": "{of} 幅图像中有 {n} 幅失败。"},
    "honest_still_alarm": {
        "en": "No pixel changes between the thresholds 0.05 and 0.95: nothing was swept.",
        "zh": "阈值从 0.05 到 0.95 没有任何像素变化：扫描没有意义。",
    },
    "honest_still_clean": {
        "en": "Masks change with the threshold: {n:,} pixels above 0.05, {of:,} above 0.95.",
        "zh": "掩膜随阈值变化：高于 0.05 的像素 {n:,} 个，高于 0.95 的 {of:,} 个。",
    },
    "honest_repeated_alarm": {
        "en": "{n} of {of} images, or whole predictions, occur more than once: N is smaller than it says.",
        "zh": "{of} 幅图像中有 {n} 幅图像或预测重复出现：实际 N 更小。",
    },
    "honest_repeated_clean": {
        "en": "All {of} images and predictions are different ones.",
        "zh": "{of} 幅图像及其预测互不相同。",
    },
    "honest_picked_alarm": {
        "en": "{n} images are not those that an even choice from the split's {of} would be: they may be hand-picked.",
        "zh": "有 {n} 幅图像不符合从该划分 {of} 幅中的均匀选取：可能是人工挑选。",
    },
    "honest_picked_clean": {
        "en": "The images are the split's {of}, all of them or evenly spread.",
        "zh": "图像为该划分的 {of} 幅，全部或均匀选取。",
    },
    "honest_leak_alarm": {
        "en": "{n} of {of} images are in the training part ({train} images), as they are or as near copies.",
        "zh": "{of} 幅图像中有 {n} 幅出现在训练部分（{train} 幅）中，相同或近似。",
    },
    "honest_leak_clean": {
        "en": "None of {of} images is in the training part that the data set names ({train} images), by hash or by likeness.",
        "zh": "按哈希与相似度，{of} 幅图像均不在数据集标明的训练部分（{train} 幅）中。",
    },
    "honest_tuned_alarm": {
        "en": "The threshold was chosen on images that are reported here: the number is too good.",
        "zh": "阈值是在此处报告的图像上选定的：该数字偏高。",
    },
    "honest_tuned_clean": {
        "en": "The threshold was chosen on {n} other images.",
        "zh": "阈值在另外 {n} 幅图像上选定。",
    },
    "honest_twin_alarm": {
        "en": "The “other” model {other} has the same weights or gives the same prediction in {n} of {of} images: nothing is compared.",
        "zh": "“另一个”模型 {other} 权重相同，或在 {of} 幅图像中有 {n} 幅预测相同：并未比较任何东西。",
    },
    "honest_twin_clean": {
        "en": "{other} is another model: other weights, and equal predictions in {n} of {of} images.",
        "zh": "{other} 是另一个模型：权重不同，{of} 幅图像中 {n} 幅预测相同。",
    },
    "baseline_nothing": {"en": "All background", "zh": "全部为背景"},
    "baseline_everything": {"en": "All foreground", "zh": "全部为前景"},
    "baseline_training": {"en": "Mean training mask", "zh": "训练掩膜均值"},
    "baseline_frangi": {"en": "Frangi filter and Otsu", "zh": "Frangi 滤波加 Otsu"},
    "baseline_shuffled": {"en": "Another image's truth (chance)", "zh": "其他图像的标注（随机水平）"},
    "baseline_observer": {"en": "Second annotator", "zh": "第二标注者"},
    "phrase_asked": {"en": "Asked for", "zh": "所问之物"},
    "phrase_where": {"en": "Where it is there", "zh": "存在于"},
    "phrase_counted": {"en": "{images} images / {groups} patients", "zh": "{images} 幅图像 / {groups} 名患者"},
    "phrase_refusals": {"en": "Refused where it is not", "zh": "不存在时拒绝"},
    "phrase_refused": {"en": "{refused} of {n_absent}", "zh": "{refused} / {n_absent}"},
    "compare_who": {"en": "Who", "zh": "方法"},
    "compare_dice": {"en": "Mean Dice", "zh": "平均 Dice"},
    "compare_difference": {"en": "The model's Dice less this", "zh": "模型的 Dice 减去它"},
    "compare_words": {"en": "In words", "zh": "结论"},
    "compare_reference": {"en": "the model of this report", "zh": "本报告的模型"},
    "compare_clear": {"en": "different (p = {p:.2g})", "zh": "有差异（p = {p:.2g}）"},
    "compare_few": {
        "en": "different by its interval (p = {p:.2g}, the least that {n} patients can give)",
        "zh": "按区间有差异（p = {p:.2g}，{n} 名患者所能给出的最小值）",
    },
    "compare_unclear": {"en": "not distinguishable (p = {p:.2g})", "zh": "无法区分（p = {p:.2g}）"},
    "finding_name": {"en": "Looked for", "zh": "检查项"},
    "finding_result": {"en": "Found", "zh": "结果"},
    "finding_said": {"en": "What was seen", "zh": "所见"},
    "finding_alarm": {"en": "YES", "zh": "是"},
    "finding_clean": {"en": "no", "zh": "否"},
    "extra_cldice": {"en": "clDice (centre lines: Zhang and Suen)", "zh": "clDice（中心线：Zhang–Suen）"},
    "extra_hd95": {"en": "HD95, px", "zh": "HD95（像素）"},
    "extra_surface_dice": {"en": "Surface Dice within 2 px", "zh": "2 像素内的表面 Dice"},
    "extra_betti0_error": {"en": "Pieces too many or too few", "zh": "连通块数之差"},
    "extra_area_error": {"en": "Area, relative error", "zh": "面积相对误差"},
    "extra_brier": {"en": "Brier score", "zh": "Brier 分数"},
    "extra_ece": {"en": "Expected calibration error", "zh": "期望校准误差"},
    "width_class": {"en": "Vessel width", "zh": "血管宽度"},
    "width_found": {"en": "Share found", "zh": "找到的比例"},
    "width_there": {"en": "Annotated pixels", "zh": "标注像素"},
    "axis_threshold": {"en": "Threshold", "zh": "阈值"},
    "axis_mean_dice": {"en": "Mean Dice", "zh": "平均 Dice"},
    "axis_recall": {"en": "Recall, pooled", "zh": "召回率（合并）"},
    "axis_precision": {"en": "Precision, pooled", "zh": "精确率（合并）"},
    "axis_said": {"en": "Probability said", "zh": "预测概率"},
    "axis_found": {"en": "Share that is vessel", "zh": "实际占比"},
    "alt_threshold": {
        "en": "Mean Dice is {dice:.3f} at the threshold {value:g} and {half:.3f} at 0.5; on these very images {best:g} would be best ({top:.3f}). Beside it precision against recall, and how often a probability comes true.",
        "zh": "阈值 {value:g} 处平均 Dice 为 {dice:.3f}，0.5 处为 {half:.3f}；在这些图像上 {best:g} 最好（{top:.3f}）。旁边为精确率与召回率，以及概率的校准情况。",
    },
    "side_base": {"en": "the base alone", "zh": "仅基础模型"},
    "side_finetune": {"en": "with its fine-tune {file}", "zh": "叠加微调 {file}"},
}
