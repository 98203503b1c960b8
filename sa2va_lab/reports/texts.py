"""Every sentence that a report or a figure shows, in each language. Identifiers and JSON stay English.

`say(key, lang=..., **values)` is the only way in; a key that lacks a language fails in the tests, not before a reader.
"""

from __future__ import annotations

import difflib
import math

from sa2va_lab.errors import LabError
from sa2va_lab.reports import (
    dataset_texts,
    evaluation_texts,
    gallery_texts,
    index_texts,
    inventory_texts,
    precision_texts,
    tuner_texts,
)

LANGUAGES = {"en": "English", "zh": "简体中文"}

# ruff: noqa: E501 - one line a text is easier to compare with its translation than any wrapping
TEXTS: dict[str, dict[str, str]] = {
    # the answer
    "answer": {
        "en": "Dice {dice:.3f} (95 % interval {low:.3f} to {high:.3f}) on {sample}, threshold {threshold:g}, split “{split}”.",
        "zh": "Dice {dice:.3f}（95 % 区间 {low:.3f} 至 {high:.3f}），{sample}，阈值 {threshold:g}，数据划分“{split}”。",
    },
    "answer_no_interval": {
        "en": "Dice {dice:.3f} (no interval: it takes two patients or more) on {sample}, threshold {threshold:g}, split “{split}”.",
        "zh": "Dice {dice:.3f}（无区间：至少需要两名患者），{sample}，阈值 {threshold:g}，数据划分“{split}”。",
    },
    "answer_no_dice": {
        "en": "No Dice can be given: of {sample} (split “{split}”), {n_without_truth} have no annotation and {n_failed} failed.",
        "zh": "无法给出 Dice：{sample}（数据划分“{split}”）中，{n_without_truth} 幅没有标注，{n_failed} 幅失败。",
    },
    "answer_gaps": {
        "en": "Not in this mean: {n_failed} failed and {n_without_truth} without annotation.",
        "zh": "未计入该均值：{n_failed} 幅失败，{n_without_truth} 幅没有标注。",
    },
    "sample_of_patients": {
        "en": "{n_images} images of {n_groups} patients",
        "zh": "{n_groups} 名患者的 {n_images} 幅图像",
    },
    "sample_ungrouped": {
        "en": "{n_images} images, each counted as one patient",
        "zh": "{n_images} 幅图像（每幅按一名患者计）",
    },
    "seen_no": {
        "en": "By the data set's own splits, these images were not in its training part.",
        "zh": "按数据集自带的划分，这些图像不在训练部分。",
    },
    "seen_yes": {
        "en": "These images include the training part of the data set: this number says how well they were learnt, not how well new patients will do.",
        "zh": "这些图像包含数据集的训练部分：该数字反映学得如何，不代表对新患者的效果。",
    },
    "seen_unknown": {
        "en": "Whether the model was trained on these images is not known: the data set names no training part.",
        "zh": "无法得知模型是否用这些图像训练过：数据集没有指明训练部分。",
    },
    "seen_foreign": {
        "en": "These images come from outside the demo model's training data.",
        "zh": "这些图像不属于演示模型的训练数据。",
    },
    # tables
    "what": {"en": "What", "zh": "项目"},
    "value": {"en": "Value", "zh": "内容"},
    "why": {"en": "Why", "zh": "原因"},
    "model": {"en": "Model", "zh": "模型"},
    "device": {"en": "Device", "zh": "设备"},
    "precision_row": {"en": "Number format", "zh": "数值精度"},
    "data": {"en": "Images", "zh": "图像"},
    "phrase": {"en": "Looked for", "zh": "目标"},
    "prompt": {"en": "Prompt", "zh": "提示词"},
    "split": {"en": "Split", "zh": "数据划分"},
    "training": {"en": "In training?", "zh": "训练中见过？"},
    "rasteriser": {"en": "Masks from polygons by", "zh": "多边形栅格化"},
    "metric": {"en": "Metric", "zh": "指标"},
    "macro": {"en": "Mean of images", "zh": "逐图均值"},
    "interval": {"en": "95 % interval", "zh": "95 % 区间"},
    "pooled": {"en": "All pixels pooled", "zh": "全部像素合并"},
    "n_images": {"en": "N images", "zh": "图像数"},
    "n_groups": {"en": "N patients", "zh": "患者数"},
    "sample_column": {"en": "Image", "zh": "图像"},
    "group_column": {"en": "Patient", "zh": "患者"},
    "truth_area": {"en": "Truth, px", "zh": "标注像素"},
    "mask_area": {"en": "Mask, px", "zh": "预测像素"},
    "seconds": {"en": "Seconds", "zh": "秒"},
    "note_column": {"en": "Note", "zh": "备注"},
    "note_empty_truth": {"en": "truth is empty", "zh": "标注为空"},
    "note_no_truth": {"en": "not annotated", "zh": "未标注"},
    "note_no_seg": {"en": "answer names no mask", "zh": "回答未给出掩膜"},
    # pictures
    "panel_image": {"en": "Image", "zh": "图像"},
    "panel_probability": {"en": "Probability", "zh": "概率"},
    "panel_comparison": {"en": "Right and wrong at {threshold:g}", "zh": "阈值 {threshold:g} 处的对与错"},
    "panel_mask": {"en": "Mask at {threshold:g} (not annotated)", "zh": "阈值 {threshold:g} 的掩膜（未标注）"},
    "true_positive": {"en": "found (true positive)", "zh": "找到（真阳性）"},
    "false_positive": {"en": "made up (false positive)", "zh": "误报（假阳性）"},
    "false_negative": {"en": "missed (false negative)", "zh": "漏检（假阴性）"},
    "case_worst": {"en": "Worst: ", "zh": "最差："},
    "case_median": {"en": "Median: ", "zh": "中位："},
    "case_best": {"en": "Best: ", "zh": "最好："},
    "case_title": {"en": "{id}, patient {group}", "zh": "{id}，患者 {group}"},
    "case_dice": {"en": ", Dice {dice:.3f}", "zh": "，Dice {dice:.3f}"},
    "axis_dice": {"en": "Dice of one image", "zh": "单幅图像的 Dice"},
    "axis_patient": {"en": "Patient", "zh": "患者"},
    "mean_line": {"en": "mean {dice:.3f}", "zh": "均值 {dice:.3f}"},
    "alt_comparison": {
        "en": "{title}: {found:.0%} of the annotated pixels are found, and {made_up:.0%} of the predicted pixels are not in the annotation.",
        "zh": "{title}：标注像素中有 {found:.0%} 被找到，预测像素中有 {made_up:.0%} 不在标注内。",
    },
    "alt_nothing_there": {
        "en": "{title}: the annotation is empty and {made_up} pixels are predicted.",
        "zh": "{title}：标注为空，预测了 {made_up} 个像素。",
    },
    "alt_nothing_found": {
        "en": "{title}: nothing is predicted, and all {truth} annotated pixels are missed.",
        "zh": "{title}：没有任何预测，{truth} 个标注像素全部漏检。",
    },
    "alt_mask": {
        "en": "{title}: the mask covers {share:.1%} of the image; there is no annotation to compare it with.",
        "zh": "{title}：掩膜覆盖图像的 {share:.1%}；没有标注可供比较。",
    },
    "alt_spread": {
        "en": "Dice of {n_images} images by patient: from {low:.3f} to {high:.3f}, mean {dice:.3f}; the patient with the lowest mean is {worst} ({worst_dice:.3f}), the one with the highest {best} ({best_dice:.3f}).",
        "zh": "{n_images} 幅图像按患者的 Dice：{low:.3f} 至 {high:.3f}，均值 {dice:.3f}；均值最低的患者为 {worst}（{worst_dice:.3f}），最高的为 {best}（{best_dice:.3f}）。",
    },
    "nothing_to_draw": {
        "en": "There is nothing to draw: no image has a Dice.",
        "zh": "没有可绘制的内容：没有任何图像有 Dice。",
    },
    "run_incomplete": {
        "en": "This Run holds {done} of the {total} images asked for; the rest is not in any number here.",
        "zh": "该运行只包含所要求的 {total} 幅图像中的 {done} 幅；其余未计入任何数字。",
    },
    # the page around it
    "report_title": {"en": "Report “{name}”", "zh": "报告“{name}”"},
    "report_answer": {"en": "The answer", "zh": "结论"},
    "report_parts": {"en": "The notebooks behind it", "zh": "所依据的笔记本"},
    "report_provenance": {"en": "Where this comes from", "zh": "来源"},
    "report_failed": {"en": "failed", "zh": "失败"},
    "report_done": {"en": "done in {seconds:.0f} s", "zh": "完成，用时 {seconds:.0f} 秒"},
    "report_nothing": {
        "en": "No notebook gave an answer; the reason stands below.",
        "zh": "没有笔记本给出结论；原因见下。",
    },
    "report_as_page": {"en": "read", "zh": "阅读"},
    "report_as_notebook": {"en": "notebook", "zh": "笔记本"},
    "report_created": {"en": "Written (UTC)", "zh": "生成时间（UTC）"},
    "table": {"en": "table", "zh": "表格"},
    "report_all_numbers": {"en": "All numbers as JSON", "zh": "全部数据（JSON）"},
    "report_back": {"en": "back to the answer", "zh": "返回结论"},
    "code": {"en": "code", "zh": "代码"},
    "messages": {"en": "messages while running", "zh": "运行时消息"},
    "traceback": {"en": "where it happened", "zh": "出错位置"},
    "parameters": {"en": "Parameters given", "zh": "所给参数"},
    "none_given": {"en": "none: the demo", "zh": "无：演示"},
    # training logs
    "training_answer": {
        "en": "{name}: the loss fell from {first:.4f} to {last:.4f} ({change:+.2f} %) in {iterations:,} iterations; {processes}; findings that need a look: {alarms}.",
        "zh": "{name}：损失在 {iterations:,} 次迭代中由 {first:.4f} 变为 {last:.4f}（{change:+.2f} %）；{processes}；有 {alarms} 项发现需要查看。",
    },
    "training_as_meant": {"en": "they fit {ranks} processes, as meant", "zh": "与预期的 {ranks} 个进程相符"},
    "training_as_meant_one": {"en": "they fit one process, as meant", "zh": "与预期的一个进程相符"},
    "training_one": {
        "en": "they fit ONE process, not the {meant} that were meant",
        "zh": "只与一个进程相符，而非预期的 {meant} 个",
    },
    "training_other": {"en": "they fit {ranks} processes, not {meant}", "zh": "与 {ranks} 个进程相符，而非 {meant} 个"},
    "training_unknown": {"en": "how many processes took part is not known", "zh": "无法得知有多少个进程参与"},
    "training_no_metric": {"en": "No metric follows from a training loss.", "zh": "由训练损失不能推出任何指标。"},
    "curve_loss": {"en": "Loss", "zh": "损失"},
    "curve_log": {"en": "Log", "zh": "日志"},
    "curve_first": {"en": "First", "zh": "起始"},
    "curve_last": {"en": "Last", "zh": "结束"},
    "curve_change": {"en": "Change, %", "zh": "变化（%）"},
    "curve_lowest": {"en": "Lowest, smoothed", "zh": "最低（平滑后）"},
    "curve_at_iteration": {"en": "at iteration", "zh": "所在迭代"},
    "curve_bare_first": {"en": "First ÷ weight", "zh": "起始 ÷ 权重"},
    "curve_bare_last": {"en": "Last ÷ weight", "zh": "结束 ÷ 权重"},
    "curve_about": {"en": "About", "zh": "关于"},
    "curve_finding": {"en": "What the log says", "zh": "日志说明"},
    "curve_needs_look": {"en": "Look at it", "zh": "需查看"},
    "curve_yes": {"en": "yes", "zh": "是"},
    "curve_iteration": {"en": "Iteration", "zh": "迭代"},
    "curve_bare_losses": {"en": "Parts ÷ their weights", "zh": "各项 ÷ 其权重"},
    "curve_loss_shares": {"en": "Share of the total", "zh": "占总损失的比例"},
    "curve_learning_rate": {"en": "Learning rate", "zh": "学习率"},
    "curve_seconds_iteration": {"en": "Seconds an iteration", "zh": "每次迭代秒数"},
    "curve_gpu_memory": {"en": "GPU memory, GiB", "zh": "GPU 显存（GiB）"},
    "curve_fast_fall": {"en": "90 % of the fall", "zh": "降幅 90 %"},
    "curve_plateau": {"en": "nothing new after", "zh": "此后无改善"},
    "curve_restart": {"en": "taken up again", "zh": "重新启动"},
    "curve_total_losses": {"en": "Total loss, smoothed", "zh": "总损失（平滑后）"},
    "curve_measured_dice": {"en": "Dice, measured by a Run", "zh": "Dice（由运行测得）"},
    "curve_dice_loss": {"en": "Training loss of the Dice part ÷ weight", "zh": "训练中 Dice 项损失 ÷ 权重"},
    "curve_alt_curves": {
        "en": "Losses of {name}: the total goes from {first:.4g} to {last:.4g} over {iterations:,} iterations; {course}",
        "zh": "{name} 的损失：总损失在 {iterations:,} 次迭代中由 {first:.4g} 变为 {last:.4g}；{course}",
    },
    "curve_alt_runs": {
        "en": "Smoothed total losses of {count} runs: {ends}.",
        "zh": "{count} 次训练的总损失（平滑后）：{ends}。",
    },
    "curve_alt_dice": {
        "en": "Left, the Dice part of the training loss ends at {loss:.3f}; right, Dice as measured on split “{split}”: {dice:.3f}, N = {n}. Neither follows from the other.",
        "zh": "左：训练损失的 Dice 项结束于 {loss:.3f}；右：在数据划分“{split}”上测得的 Dice：{dice:.3f}，N = {n}。二者不能互相推出。",
    },
    "training_demo": {
        "en": "demo model: synthetic data, not medical evidence",
        "zh": "演示模型：合成数据，不是医学证据",
    },
}

for room in (
    dataset_texts,
    evaluation_texts,
    gallery_texts,
    index_texts,
    inventory_texts,
    precision_texts,
    tuner_texts,
):
    TEXTS |= room.TEXTS


def check_language(lang: str) -> str:
    """Returns `lang` if there are texts in it; LabError otherwise."""
    if lang not in LANGUAGES:
        known = ", ".join(f"{code} ({name})" for code, name in LANGUAGES.items())
        raise LabError(f"language {lang!r} was asked for; there are texts in {known}")
    return lang


def say(key: str, *, lang: str = "en", **values) -> str:
    """The text called `key` in `lang`, its places filled with `values`. KeyError for a key that does not exist."""
    check_language(lang)
    if key not in TEXTS:
        near = difflib.get_close_matches(key, TEXTS, n=1)
        raise KeyError(f"no text is called {key!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    return TEXTS[key][lang].format(**values)


def say_size(count: int | None) -> str:
    """Bytes as "15.24 GiB", "107.3 MiB" or "9.9 KiB"; a dash for none."""
    if not count:
        return "–"
    for unit, word, places in ((1 << 30, "GiB", 2), (1 << 20, "MiB", 1)):
        if count >= unit:
            return f"{count / unit:.{places}f} {word}"
    return f"{count / 1024:.1f} KiB"


def say_sample(summary: dict, *, lang: str = "en") -> str:
    """How many images of how many patients a summary (see `evaluation.metrics.summarise`) is about."""
    key = "sample_ungrouped" if summary["n_groups"] == summary["n_images"] else "sample_of_patients"
    return say(key, lang=lang, n_images=summary["n_images"], n_groups=summary["n_groups"])


def say_answer(metrics: dict, *, lang: str = "en") -> str:
    """The answer of 03_evaluation in one to three sentences, from what it wrote to metrics.json.

    metrics: {"summary": as `summarise` gives it, "split", "seen": "yes" | "no" | "unknown" | "foreign", and, where the
    Run may be unfinished, "n_asked" and "n_finished"}.
    """
    summary, split = metrics["summary"], metrics["split"]
    dice, low, high = (_number(summary["dice"].get(name)) for name in ("macro", "low", "high"))
    values = dict(sample=say_sample(summary, lang=lang), threshold=summary["threshold"], split=split)
    gaps = dict(n_failed=summary["n_failed"], n_without_truth=summary["n_without_truth"])
    if math.isnan(dice):
        return say("answer_no_dice", lang=lang, **values, **gaps)
    if math.isnan(low) or math.isnan(high):
        sentences = [say("answer_no_interval", lang=lang, dice=dice, **values)]
    else:
        sentences = [say("answer", lang=lang, dice=dice, low=low, high=high, **values)]
    if metrics.get("n_finished", 0) < metrics.get("n_asked", 0):
        sentences.append(say("run_incomplete", lang=lang, done=metrics["n_finished"], total=metrics["n_asked"]))
    if any(gaps.values()):
        sentences.append(say("answer_gaps", lang=lang, **gaps))
    sentences.append(say(f"seen_{metrics['seen']}", lang=lang))
    return ("" if lang == "zh" else " ").join(sentences)


def _number(value) -> float:
    """A float; JSON has no NaN, so None stands for it."""
    return math.nan if value is None else float(value)
