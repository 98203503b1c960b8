"""The sentences of 05_error_gallery in each language."""

# ruff: noqa: E501 - one line a text is easier to compare with its translation than any wrapping
TEXTS: dict[str, dict[str, str]] = {
    "mistake_no_seg": {"en": "no [SEG]", "zh": "无 [SEG]"},
    "mistake_no_seg_rule": {
        "en": "The answer has no [SEG]: everything annotated is missed.",
        "zh": "回答中没有 [SEG]：所有标注均漏检。",
    },
    "mistake_no_seg_help": {
        "en": "Ask in a phrasing of the training; train on questions about things that are there.",
        "zh": "使用训练时的问法；训练中多问存在的目标。",
    },
    "mistake_gap": {"en": "broken continuity", "zh": "血管中断"},
    "mistake_gap_rule": {
        "en": "A piece of the truth's centre line, more than a pixel from the mask, with found ends on both sides.",
        "zh": "真值中心线的一段，离掩膜超过一个像素，而两端均被找到。",
    },
    "mistake_gap_help": {
        "en": "A lower threshold; a loss on centre lines (clDice); a second look at crossings.",
        "zh": "降低阈值；使用中心线损失（clDice）；检查交叉处。",
    },
    "mistake_thin": {"en": "thin branch missed", "zh": "漏检细分支"},
    "mistake_thin_rule": {
        "en": "Centre line not found and not between found ends, vessel at most 4 px wide (at 512).",
        "zh": "中心线未找到且不在两个已找到端之间，血管宽度不超过 4 像素（按 512 计）。",
    },
    "mistake_thin_help": {
        "en": "A lower threshold; larger images or tiles: Sa2VA decides on a grid of 256.",
        "zh": "降低阈值；更大的图像或分块：Sa2VA 在 256 网格上判断。",
    },
    "mistake_broad": {"en": "wide branch missed", "zh": "漏检粗分支"},
    "mistake_broad_rule": {
        "en": "The same, vessel wider than 4 px (at 512).",
        "zh": "同上，血管宽于 4 像素（按 512 计）。",
    },
    "mistake_broad_help": {
        "en": "More patients with this view or contrast; check that the truth is right here.",
        "zh": "增加该视角或对比度的患者；检查此处真值。",
    },
    "mistake_tight": {"en": "outline too narrow", "zh": "轮廓偏窄"},
    "mistake_tight_rule": {
        "en": "Missed, but the nearest point of the truth's centre line is found.",
        "zh": "漏检，但真值中心线上最近点已找到。",
    },
    "mistake_tight_help": {
        "en": "A lower threshold; two annotators differ by as much: compare with the human baseline.",
        "zh": "降低阈值；两名标注者的差异也可达此程度：与人工基线比较。",
    },
    "mistake_sparse_truth": {
        "en": "truth nearly empty: perhaps an annotation error",
        "zh": "真值几乎为空：可能是标注错误",
    },
    "mistake_sparse_truth_rule": {
        "en": "Truth below 1/5 of the data set's median area, mask at least 5 times the truth.",
        "zh": "真值面积不足数据集中位数的 1/5，掩膜超过真值的 5 倍。",
    },
    "mistake_sparse_truth_help": {"en": "Look at the annotation first.", "zh": "先检查标注。"},
    "mistake_loose": {"en": "outline too wide", "zh": "轮廓偏宽"},
    "mistake_loose_rule": {
        "en": "Made up within 2 px of the truth (at 512).",
        "zh": "误报，距真值不超过 2 像素（按 512 计）。",
    },
    "mistake_loose_help": {
        "en": "A higher threshold; outlines traced along the edge of the vessel.",
        "zh": "提高阈值；标注时沿血管边缘勾画。",
    },
    "mistake_other_thing": {"en": "another thing taken for it, such as a catheter", "zh": "误认其他物体（如导管）"},
    "mistake_other_thing_rule": {
        "en": "Made up within 2 px (at 512) of what is annotated under another phrase; not measurable where nothing else is annotated.",
        "zh": "误报，距其他名称的标注不超过 2 像素（按 512 计）；若无其他标注则无法测量。",
    },
    "mistake_other_thing_help": {
        "en": "Annotate the other thing and train on questions about both.",
        "zh": "标注该物体，并就两者提问训练。",
    },
    "mistake_blob": {"en": "isolated blob", "zh": "孤立斑块"},
    "mistake_blob_rule": {
        "en": "A connected piece of the mask that comes nowhere within 2 px of the truth (at 512).",
        "zh": "掩膜的一个连通块，任何部分距真值均超过 2 像素（按 512 计）。",
    },
    "mistake_blob_help": {
        "en": "A minimum area (try it in 04_threshold_tuning); negatives in training.",
        "zh": "设置最小面积（在 04_threshold_tuning 中尝试）；训练中加入负例。",
    },
    "mistake_beyond": {"en": "goes on beyond the truth", "zh": "超出真值继续延伸"},
    "mistake_beyond_rule": {
        "en": "The rest that is made up: farther than 2 px from the truth (at 512), in a piece that touches it.",
        "zh": "其余误报：距真值超过 2 像素（按 512 计），但所在连通块与真值相接。",
    },
    "mistake_beyond_help": {
        "en": "Often a branch that nobody drew: look at the annotation, then at the threshold.",
        "zh": "常为未标注的分支：先检查标注，再看阈值。",
    },
    "mistake_kind": {"en": "Kind", "zh": "类型"},
    "mistake_rule": {"en": "Rule", "zh": "规则"},
    "mistake_help": {"en": "What would help", "zh": "改进方法"},
    "mistake_images": {"en": "Largest in, images", "zh": "为主的图像数"},
    "mistake_any": {"en": "Occurs in, images", "zh": "出现的图像数"},
    "mistake_share": {"en": "Share of wrong pixels", "zh": "占错误像素"},
    "mistake_gain": {"en": "Mean Dice without it", "zh": "消除后平均 Dice"},
    "mistake_none": {"en": "nothing wrong", "zh": "无错误"},
    "suspect_empty": {"en": "empty truth, but the model is sure of a vessel", "zh": "真值为空，但模型确信有血管"},
    "suspect_sparse": {"en": "nearly empty truth", "zh": "真值几乎为空"},
    "suspect_sure": {
        "en": "much that the model is sure of (probability from 0.9) is not annotated",
        "zh": "大量模型确信（概率不低于 0.9）的区域未标注",
    },
    "suspect_defect": {"en": "the annotation has a defect", "zh": "标注有缺陷"},
    "suspect_why": {"en": "Why", "zh": "原因"},
    "suspect_none": {"en": "no truth looks wrong by these rules", "zh": "按这些规则没有可疑真值"},
    "gallery_answer": {
        "en": "The commonest mistake is “{kind}”: {share:.0%} of the wrong pixels in {sample}, the largest in {images} images; without it mean Dice would be {after:.3f} instead of {dice:.3f}. Truths to look at again: {suspects}.",
        "zh": "最常见的错误是“{kind}”：在 {sample} 中占错误像素的 {share:.0%}，在 {images} 幅图像中为主；若消除，平均 Dice 将由 {dice:.3f} 升至 {after:.3f}。需重新检查的真值：{suspects}。",
    },
    "gallery_no_answer": {
        "en": "No mistake can be named: no image of this Run has both a prediction and an annotation in which anything is wrong.",
        "zh": "无法指出错误：该运行中没有同时具备预测和标注且有错误的图像。",
    },
    "gallery_title": {"en": "Error gallery of {name}", "zh": "{name} 的错误图库"},
    "gallery_written": {
        "en": "Gallery of {cases} cases, {size:.1f} MB: {path}",
        "zh": "{cases} 例图库，{size:.1f} MB：{path}",
    },
    "gallery_all": {"en": "all", "zh": "全部"},
    "gallery_place": {"en": "Place by Dice", "zh": "Dice 位次"},
    "gallery_worst": {"en": "worst third", "zh": "最差三分之一"},
    "gallery_median": {"en": "middle third", "zh": "中间三分之一"},
    "gallery_best": {"en": "best third", "zh": "最好三分之一"},
    "gallery_search": {"en": "Search", "zh": "搜索"},
    "gallery_suspects": {"en": "suspect truths only", "zh": "仅可疑真值"},
    "gallery_shown": {"en": "cases shown", "zh": "例显示"},
    "gallery_close": {"en": "Close", "zh": "关闭"},
    "gallery_previous": {"en": "Previous picture", "zh": "上一幅"},
    "gallery_next": {"en": "Next picture", "zh": "下一幅"},
    "gallery_said": {"en": "Answer", "zh": "回答"},
    "gallery_keys": {
        "en": "Tab and Enter enlarge a picture, the arrow keys go to the next, Esc closes. Black: found and there. Orange with stripes: made up. Blue with dots: missed. On centre lines: black found, blue lost, purple a gap.",
        "zh": "Tab 与 Enter 放大图像，方向键切换，Esc 关闭。黑色：找到且存在；橙色条纹：误报；蓝色点：漏检。中心线：黑色找到，蓝色丢失，紫色中断。",
    },
    "gallery_truth": {"en": "Truth", "zh": "真值"},
    "gallery_mask": {"en": "Prediction", "zh": "预测"},
    "gallery_errors": {"en": "Right and wrong", "zh": "对与错"},
    "gallery_line": {"en": "Centre line: found, lost, gaps", "zh": "中心线：找到、丢失、中断"},
    "gallery_alt_line": {
        "en": "Centre line of {id}: {breaks:.0f} gaps, {lost:.0%} of its length lost.",
        "zh": "{id} 的中心线：{breaks:.0f} 处中断，{lost:.0%} 长度丢失。",
    },
    "gallery_alt_kind": {
        "en": "“{kind}” in {id}: {pixels} pixels, {share:.0%} of what is wrong there; the part with most of it enlarged.",
        "zh": "{id} 中的“{kind}”：{pixels} 像素，占该图错误的 {share:.0%}；放大其最多之处。",
    },
}
