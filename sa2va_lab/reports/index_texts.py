"""The sentences of a report's index in each language; `texts.say` looks them up like any other."""

# ruff: noqa: E501 - one line a text is easier to compare with its translation than any wrapping
TEXTS: dict[str, dict[str, str]] = {
    # the questions
    "block_fit": {"en": "Can it run here?", "zh": "这里能运行吗？"},
    "block_quality": {"en": "How good is it, and against what?", "zh": "效果有多好，与什么相比？"},
    "block_threshold": {"en": "Which threshold, and does it matter?", "zh": "用哪个阈值，影响大吗？"},
    "block_mistakes": {"en": "Where does it fail?", "zh": "错在哪里？"},
    "block_precision": {"en": "What does a smaller number format cost?", "zh": "降低数值精度的代价是什么？"},
    "block_data": {"en": "Are the data right?", "zh": "数据对吗？"},
    "block_training": {"en": "What did the training log reveal?", "zh": "训练日志揭示了什么？"},
    "block_next": {"en": "What to do next, in this order", "zh": "接下来做什么（按顺序）"},
    "block_honesty": {"en": "Can these numbers be believed?", "zh": "这些数字可信吗？"},
    # why a block is empty
    "index_not_run": {
        "en": "Not in this report: {notebook} was not run.",
        "zh": "本报告没有这一项：未运行 {notebook}。",
    },
    "index_needs": {
        "en": "Not in this report: {notebook} needs `{needs}`, which was not given.",
        "zh": "本报告没有这一项：{notebook} 需要 `{needs}`，但没有给出。",
    },
    "index_failed": {
        "en": "Not known: {notebook} failed ({error}).",
        "zh": "无法得知：{notebook} 失败（{error}）。",
    },
    "index_no_answer": {
        "en": "Not known: {notebook} gave no answer.{error}",
        "zh": "无法得知：{notebook} 没有给出结论。{error}",
    },
    "index_no_numbers": {
        "en": "Not known: {notebook} says nothing about it.",
        "zh": "无法得知：{notebook} 对此没有说明。",
    },
    # tables
    "index_rung": {"en": "Number format", "zh": "数值精度"},
    "index_devices": {"en": "Needed / there", "zh": "需要 / 可用"},
    "index_fits": {"en": "Fits", "zh": "放得下"},
    "index_no": {"en": "no", "zh": "否"},
    "index_method": {"en": "What predicts", "zh": "预测方法"},
    "index_this_model": {"en": "this model", "zh": "该模型"},
    "index_dice": {"en": "Dice, mean of images", "zh": "Dice（逐图均值）"},
    "index_forecast": {"en": "Memory, forecast", "zh": "内存（预测）"},
    "index_peak": {"en": "Memory, measured", "zh": "内存（实测）"},
    "index_seconds": {"en": "Seconds an image", "zh": "每幅图像秒数"},
    "index_agreement": {"en": "Same mask as fp32 (IoU)", "zh": "与 fp32 掩膜一致（IoU）"},
    # sentences
    "index_fits_here": {
        "en": "Yes: left to choose, it runs at {precision} here.",
        "zh": "可以：若自动选择，这里以 {precision} 运行。",
    },
    "index_fits_nowhere": {
        "en": "No: at no number format does it fit into the memory that is here.",
        "zh": "不可以：任何数值精度都放不进这里的内存。",
    },
    "index_no_baselines": {
        "en": "No baseline was measured in this report, so nothing says yet what a simpler method would reach.",
        "zh": "本报告没有测量基线，因此尚不知更简单的方法能达到多少。",
    },
    "index_threshold": {
        "en": "A pixel counts as found above {value:g} ({origin}).",
        "zh": "概率高于 {value:g} 的像素算作找到（{origin}）。",
    },
    "index_threshold_nested": {
        "en": "A pixel counts as found above 0.5, for want of a validation split. Chosen for each patient on all others, the threshold would be {value:g} at the median.",
        "zh": "因没有验证划分，概率高于 0.5 的像素算作找到。若对每名患者都用其余患者选择，阈值的中位数为 {value:g}。",
    },
    "index_threshold_matters": {
        "en": "It matters: against 0.5, Dice changes by {difference:+.3f} (95 % interval {low:+.3f} to {high:+.3f}).",
        "zh": "有影响：与 0.5 相比，Dice 变化 {difference:+.3f}（95 % 区间 {low:+.3f} 至 {high:+.3f}）。",
    },
    "index_threshold_no_matter": {
        "en": "It hardly matters: against 0.5, Dice changes by {difference:+.3f}, which cannot be told from none (95 % interval {low:+.3f} to {high:+.3f}).",
        "zh": "几乎没有影响：与 0.5 相比，Dice 变化 {difference:+.3f}，与没有变化无法区分（95 % 区间 {low:+.3f} 至 {high:+.3f}）。",
    },
    "index_threshold_unknown": {
        "en": "Whether it matters is not known: it was not compared with 0.5.",
        "zh": "是否有影响尚不可知：没有与 0.5 作比较。",
    },
    "index_mistake": {"en": "{title}: {images} images.", "zh": "{title}：{images} 幅图像。"},
    "index_honesty": {
        "en": "{looked} things were looked at; {alarms} of them need an answer before any number here is used.",
        "zh": "检查了 {looked} 项；其中 {alarms} 项须先有解释，此处的数字才能使用。",
    },
    # what to do next
    "step_failed": {
        "en": "Let the failed notebooks run: {names}. The same command with --resume tries them again.",
        "zh": "让失败的笔记本运行完：{names}。同一命令加 --resume 会重试。",
    },
    "step_honesty": {
        "en": "Explain the marked findings under “Can these numbers be believed?”. Until then no number here counts.",
        "zh": "先解释“这些数字可信吗？”下标出的发现。在此之前，这里的数字都不算数。",
    },
    "step_leak": {
        "en": "Part the splits again: {count} images are nearly the same as one in another split.",
        "zh": "重新划分数据：有 {count} 幅图像与另一划分中的图像几乎相同。",
    },
    "step_repair": {
        "en": "Repair the annotations ({kinds} kinds of defect): sa2va-lab audit DATA --fix NEW_FOLDER writes a repaired copy.",
        "zh": "修复标注（{kinds} 类缺陷）：sa2va-lab audit DATA --fix NEW_FOLDER 会另写一份修复后的副本。",
    },
    "step_seen_yes": {
        "en": "Measure again on patients that were not in training; this Dice says how well the images were learnt.",
        "zh": "在训练中没有出现的患者上重新测量；目前的 Dice 只说明图像学得如何。",
    },
    "step_seen_unknown": {
        "en": "Write down which images the model was trained on (a split called “train”); sa2va-lab split parts them by patient.",
        "zh": "写明模型用哪些图像训练（名为“train”的划分）；sa2va-lab split 按患者划分。",
    },
    "step_seen_foreign": {
        "en": "Put your own checkpoint in the place of the demo model: --model. The demo has never seen such images.",
        "zh": "用您自己的检查点代替演示模型：--model。演示模型从未见过这类图像。",
    },
    "step_training": {
        "en": "Before training again, settle what the log reveals; findings that need a look: {count}.",
        "zh": "再次训练之前，先处理日志揭示的问题：有 {count} 项发现需要查看。",
    },
    "step_threshold": {
        "en": "Use threshold {value:g} from now on, and do not choose it again on the images that you report.",
        "zh": "今后使用阈值 {value:g}，不要再用所报告的图像重新选择它。",
    },
    "step_patients": {
        "en": "Annotate more patients rather than more frames: {n} patients make a wide interval.",
        "zh": "标注更多患者，而不是更多帧：{n} 名患者使区间很宽。",
    },
    "step_truths": {
        "en": "Look again at annotations that seem wrong: {ids}.",
        "zh": "重新查看看似有误的标注：{ids}。",
    },
    "step_mistake": {"en": "Work on the commonest mistake, {title}. {help}", "zh": "处理最常见的错误：{title}。{help}"},
    "step_nothing": {
        "en": "Nothing here asks for an action.",
        "zh": "目前没有需要采取的行动。",
    },
}
