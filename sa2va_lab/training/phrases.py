"""What a finding says, in each language: one sentence or two with its arithmetic. JSON carries the English one.

No sentence here turns a loss into a metric that was not measured.
"""

from __future__ import annotations

from dataclasses import dataclass, field

# ruff: noqa: E501 - one line a text is easier to compare with its translation than any wrapping
PHRASES: dict[str, dict[str, str]] = {
    "process": {"en": "1 process", "zh": "1 个进程"},
    "processes": {"en": "{number} processes", "zh": "{number} 个进程"},
    "nothing": {"en": "", "zh": ""},
    "parts_sum": {
        "en": "{parts} add up to the total on all {lines:,} lines; the largest difference is {difference:.4f}.",
        "zh": "{parts} 在全部 {lines:,} 行中之和等于总损失；最大差异为 {difference:.4f}。",
    },
    "parts_differ": {
        "en": "{parts} do not add up to the total: they differ by {difference:.4f} at iteration {iteration:,}, so a part is missing from the log or is not a part of the total.",
        "zh": "{parts} 之和不等于总损失：第 {iteration:,} 次迭代相差 {difference:.4f}，说明日志缺少某一部分，或某一项不属于总损失。",
    },
    "dice_start": {
        "en": "{name} begins at {first:.4f} = weight {weight:g} x {bare:.4f}: what an untrained [SEG] head gives (1 x weight).",
        "zh": "{name} 起始为 {first:.4f} = 权重 {weight:g} x {bare:.4f}：与未训练的 [SEG] 头一致（1 x 权重）。",
    },
    "dice_start_known": {
        "en": "{name} begins at {first:.4f} = weight {weight:g} x {bare:.4f}, less than the 1 x weight of an untrained [SEG] head: it had been trained before.",
        "zh": "{name} 起始为 {first:.4f} = 权重 {weight:g} x {bare:.4f}，低于未训练 [SEG] 头的 1 x 权重：之前已训练过。",
    },
    "dice_start_impossible": {
        "en": "{name} begins at {first:.4f}; with the config's weight {weight:g} that is {bare:.4f}, and a Dice loss cannot exceed 1: this config is not the run's.",
        "zh": "{name} 起始为 {first:.4f}；按配置权重 {weight:g} 折算为 {bare:.4f}，而 Dice 损失不可能超过 1：该配置不属于此次训练。",
    },
    "dice_start_unweighted": {
        "en": "{name} begins at {first:.4f}; an untrained [SEG] head gives 1 x weight, so its weight is {first:.4f} or more (the config was not given).",
        "zh": "{name} 起始为 {first:.4f}；未训练的 [SEG] 头为 1 x 权重，因此权重至少为 {first:.4f}（未提供配置）。",
    },
    "mask_start": {
        "en": "{name} begins at {first:.4f} = weight {weight:g} x {bare:.4f}, that is {ratio:.2f} x ln 2 (0.6931, the cross-entropy of a head that says 0.5 everywhere){meaning}.",
        "zh": "{name} 起始为 {first:.4f} = 权重 {weight:g} x {bare:.4f}，即 {ratio:.2f} x ln 2（0.6931，处处输出 0.5 的交叉熵）{meaning}。",
    },
    "meaning_random": {"en": ": as of an untrained head", "zh": "：与未训练的头一致"},
    "meaning_wrong": {
        "en": ": worse than undecided, so the decoder began by being sure of the wrong pixels",
        "zh": "：比不确定更差，说明解码器起初对错误像素很有把握",
    },
    "meaning_known": {"en": ": better than undecided from the first line on", "zh": "：从第一行起就优于不确定"},
    "ranks_as_meant": {
        "en": "{iterations:,} iterations = {formula}: {found}, as meant.",
        "zh": "{iterations:,} 次迭代 = {formula}：{found}，与预期一致。",
    },
    "ranks_other": {
        "en": "{iterations:,} iterations = {formula}: {found}. {meant} would have made {expected:,}. The run worked through the data as {found}, so the other GPUs stood idle or computed the same samples.",
        "zh": "{iterations:,} 次迭代 = {formula}：{found}。若为 {meant} 个进程应为 {expected:,} 次。训练实际按 {found}运行，其余 GPU 空闲或在重复计算相同样本。",
    },
    "ranks_more": {
        "en": "{iterations:,} iterations = {formula}: {found}, more than the {meant} that were meant ({expected:,} iterations).",
        "zh": "{iterations:,} 次迭代 = {formula}：{found}，多于预期的 {meant} 个（{expected:,} 次迭代）。",
    },
    "ranks_none": {
        "en": "{iterations:,} iterations fit no number of processes from 1 to 64: one would make {one:,}, {meant} would make {expected:,}. Number of samples, repeats or epochs are not those of this run.",
        "zh": "{iterations:,} 次迭代与 1 至 64 个进程均不符：1 个进程应为 {one:,}，{meant} 个应为 {expected:,}。样本数、重复次数或轮数与此次训练不符。",
    },
    "ranks_several": {
        "en": "{iterations:,} iterations fit {fits} processes alike; the data set is too small to tell them apart.",
        "zh": "{iterations:,} 次迭代与 {fits} 个进程同样相符；数据集太小，无法区分。",
    },
    "ranks_unknown": {
        "en": "How many processes took part cannot be computed without {missing}.",
        "zh": "缺少 {missing}，无法计算有多少个进程参与训练。",
    },
    "ranks_fixed": {
        "en": "The config fixes {iterations:,} iterations (max_iters), so their number says nothing of the processes.",
        "zh": "配置固定了 {iterations:,} 次迭代（max_iters），因此次数不能说明进程数。",
    },
    "ranks_reported": {
        "en": "The log itself counts {reported}.",
        "zh": "日志自身记录为 {reported}。",
    },
    "warmup_fits": {
        "en": "Learning rate {rate:.4g} at iteration {iteration} is that of a warm-up of {length:,.0f} iterations: by the config, {own:,} ({own_rate:.4g}) with {found}, and {other:,} ({other_rate:.4g}) with {meant}.",
        "zh": "第 {iteration} 次迭代的学习率 {rate:.4g} 对应 {length:,.0f} 次迭代的预热；{found}为 {own:,}（{own_rate:.4g}），{meant} 个为 {other:,}（{other_rate:.4g}）。",
    },
    "warmup_as_meant": {
        "en": "Learning rate {rate:.4g} at iteration {iteration} is that of a warm-up of {length:,.0f} iterations: by the config, {own:,} ({own_rate:.4g}) with {found}.",
        "zh": "第 {iteration} 次迭代的学习率 {rate:.4g} 对应 {length:,.0f} 次迭代的预热，与 {found} 相符（{own:,}，{own_rate:.4g}）。",
    },
    "warmup_none": {
        "en": "Learning rate {rate:.4g} at iteration {iteration} fits no number of processes: one would give {one_rate:.4g}, {meant} would give {other_rate:.4g}. Learning rate, warm-up or epochs differ from the config.",
        "zh": "第 {iteration} 次迭代的学习率 {rate:.4g} 与任何进程数都不符：1 个为 {one_rate:.4g}，{meant} 个为 {other_rate:.4g}。学习率、预热或轮数与配置不同。",
    },
    "warmup_length": {
        "en": "The learning rate climbs to {lr:.4g} in a warm-up of {length:,.0f} iterations, {share:.1%} of the run.",
        "zh": "学习率在 {length:,.0f} 次迭代的预热中升至 {lr:.4g}，占整个训练的 {share:.1%}。",
    },
    "launcher_none": {
        "en": "The log says “Distributed launcher: none”{processes}, while {meant} GPUs were meant: each process that was started takes itself for the only one and trains on the same samples.",
        "zh": "日志写明“Distributed launcher: none”{processes}，而预期使用 {meant} 块 GPU：每个启动的进程都以为自己是唯一的，并在相同样本上训练。",
    },
    "launcher_there": {
        "en": "The processes were joined by the launcher “{launcher}”{processes}.",
        "zh": "进程由启动器“{launcher}”连接{processes}。",
    },
    "batch": {
        "en": "An update sees batch {batch} x accumulation {accumulation} x {found} = {effective} samples ({updates:,.0f} updates), as meant.",
        "zh": "每次更新包含 批量 {batch} x 累积 {accumulation} x {found} = {effective} 个样本（共 {updates:,.0f} 次更新），与预期一致。",
    },
    "batch_differs": {
        "en": "An update sees batch {batch} x accumulation {accumulation} x {found} = {effective} samples ({updates:,.0f} updates), not the {meant} that were meant; the learning rate was chosen for those.",
        "zh": "每次更新包含 批量 {batch} x 累积 {accumulation} x {found} = {effective} 个样本（共 {updates:,.0f} 次更新），而非预期的 {meant} 个；学习率是按后者选定的。",
    },
    "epochs": {
        "en": "{iterations:,} iterations x batch {batch} x {found} = {seen:,} samples; over {samples:,} images, each was seen {times:.1f} times.",
        "zh": "{iterations:,} 次迭代 x 批量 {batch} x {found} = {seen:,} 个样本；共 {samples:,} 幅图像，每幅见过 {times:.1f} 次。",
    },
    "mask_text_length": {
        "en": "{count:,} warnings “mask length != text length”{images}: where there are fewer phrases than polygons, the loader keeps only as many polygons as phrases, so the other branches were trained as background.",
        "zh": "{count:,} 条“mask length != text length”警告{images}：短语少于多边形时，加载器只保留与短语数量相同的多边形，其余分支被当作背景训练。",
    },
    "about_images": {"en": " about {images:,} different images", "zh": "，涉及 {images:,} 幅不同图像"},
    "skipped_weights": {
        "en": "{keys} tensors of the pretrained file did not fit and were skipped: those parts began from other weights than intended.",
        "zh": "预训练文件中有 {keys} 个张量形状不符而被跳过：这些部分并非从预期权重开始。",
    },
    "mismatched_state": {
        "en": "{count:,} x the loaded weights and the model did not match exactly; the lines after it in the log name the tensors.",
        "zh": "{count:,} 次加载的权重与模型不完全匹配；日志随后几行列出了张量。",
    },
    "mask_error": {
        "en": "{count:,} polygons could not be drawn and were left out of the truth.",
        "zh": "{count:,} 个多边形无法绘制，未进入真值。",
    },
    "mask_shape": {
        "en": "{count:,} steps had another number of predicted masks than of true ones; such a step teaches the mask head nothing.",
        "zh": "{count:,} 步中预测掩膜数与真值掩膜数不同；这样的步骤对掩膜头没有训练作用。",
    },
    "end_of_loader": {
        "en": "{count:,} x the data ran out within an epoch and began anew: ordinary where iterations, not epochs, are counted.",
        "zh": "{count:,} 次数据用尽后重新开始：按迭代计数时属正常。",
    },
    "out_of_memory": {"en": "{count:,} x the GPU's memory was full.", "zh": "{count:,} 次 GPU 显存不足。"},
    "overflow": {
        "en": "{count:,} updates were skipped because gradients overflowed.",
        "zh": "{count:,} 次更新因梯度溢出而被跳过。",
    },
    "too_long": {
        "en": "{count:,} texts were longer than the tokenizer allows; what was cut off was not trained.",
        "zh": "{count:,} 段文本超过分词器上限；被截断部分未参与训练。",
    },
    "deprecated": {
        "en": "{count:,} notices about outdated names in libraries: without effect on training.",
        "zh": "{count:,} 条库内旧名称提示：不影响训练。",
    },
    "traceback": {
        "en": "{count:,} tracebacks: something stopped with an error.",
        "zh": "{count:,} 次异常回溯：有程序出错中止。",
    },
    "warning": {
        "en": "{count:,} other warnings, most often: {words}.",
        "zh": "{count:,} 条其他警告，最常见：{words}。",
    },
    "dice_saturated": {
        "en": "{name} ends at {last:.4f}, {share:.0%} of {of}: the mask head learned nothing.",
        "zh": "{name} 结束于 {last:.4f}，为{of}的 {share:.0%}：掩膜头没有学到任何东西。",
    },
    "of_weight": {"en": "its weight {weight:g}", "zh": "其权重 {weight:g}"},
    "of_first": {"en": "its first value", "zh": "其初始值"},
    "validation_constant": {
        "en": "{name} is {value:g} at all {count} validations: no gradient reached the parameters behind it, or the metric does not look at the model.",
        "zh": "{name} 在全部 {count} 次验证中均为 {value:g}：没有梯度到达相应参数，或该指标并未考察模型。",
    },
    "validation_moves": {
        "en": "{name} went from {first:.4g} to {last:.4g} over {count} validations.",
        "zh": "{name} 在 {count} 次验证中由 {first:.4g} 变为 {last:.4g}。",
    },
    "throughput": {
        "en": "{seconds:.2f} s an iteration (median), {hours:.1f} h in all{images}; {waiting:.0%} of the time was spent waiting for data.",
        "zh": "每次迭代 {seconds:.2f} 秒（中位数），共 {hours:.1f} 小时{images}；等待数据占 {waiting:.0%}。",
    },
    "images_a_second": {"en": ", {rate:.2f} images a second", "zh": "，每秒 {rate:.2f} 幅图像"},
    "offload": {
        "en": "The config keeps {what} in CPU memory (ZeRO stage {stage}): each step copies them over the bus, which usually costs more than the computing.",
        "zh": "配置把 {what} 放在 CPU 内存中（ZeRO 第 {stage} 阶段）：每步都要经总线拷贝，通常比计算本身更耗时。",
    },
    "offload_both": {"en": "parameters and optimizer state", "zh": "参数与优化器状态"},
    "offload_param": {"en": "parameters", "zh": "参数"},
    "offload_optimizer": {"en": "the optimizer state", "zh": "优化器状态"},
    "memory": {
        "en": "At most {used:.1f} GiB of GPU memory were in use{of}.",
        "zh": "GPU 显存最多使用 {used:.1f} GiB{of}。",
    },
    "of_card": {"en": " of {memory:g} on {card}", "zh": "，{card} 共 {memory:g} GiB"},
    "arithmetic": {
        "en": "{tflops:.0f} TFLOP/s a GPU (median){of}.",
        "zh": "每块 GPU {tflops:.0f} TFLOP/s（中位数）{of}。",
    },
    "of_peak": {"en": ", {share:.0%} of what {card} can do in bf16", "zh": "，为 {card} bf16 峰值的 {share:.0%}"},
    "checkpoints": {
        "en": "Kept checkpoints: {kept}{rule}.",
        "zh": "保留的检查点：{kept}{rule}。",
    },
    "checkpoints_rule": {
        "en": " (every {interval:,}, the last {keep} of them)",
        "zh": "（每 {interval:,} 次保存，保留最后 {keep} 个）",
    },
    "checkpoints_late": {
        "en": "Nothing improved after iteration {plateau:,}, but the earliest checkpoint kept is {first:,}: whether an earlier one is better can no longer be measured. Kept: {kept}.",
        "zh": "第 {plateau:,} 次迭代后不再改善，但最早保留的检查点是 {first:,}：更早的是否更好已无法测量。保留：{kept}。",
    },
    "unfinished": {
        "en": "The last line is iteration {last:,} of {planned:,}: the run was stopped, or is still going on.",
        "zh": "最后一行是第 {last:,} 次迭代（共 {planned:,} 次）：训练被中止或仍在进行。",
    },
    "restarts": {
        "en": "Taken up again {count} time(s), at iteration {places}; lines that were done again are counted once.",
        "zh": "重新启动 {count} 次，位于第 {places} 次迭代；重复的行只计一次。",
    },
    "copies": {
        "en": "Each iteration is written {copies} times: {copies} processes, each for itself, wrote into this log.",
        "zh": "每次迭代被写了 {copies} 遍：{copies} 个互不相连的进程写入了该日志。",
    },
    "not_finite": {
        "en": "{count} numbers were NaN or infinite: {names}, first at iteration {iteration:,}.",
        "zh": "{count} 个数为 NaN 或无穷：{names}，首次出现在第 {iteration:,} 次迭代。",
    },
    "spikes": {
        "en": "{count} spikes of the total (over ten median deviations), the highest {value:.4g} at iteration {iteration:,}.",
        "zh": "总损失有 {count} 个尖峰（超过十倍中位偏差），最高 {value:.4g}，位于第 {iteration:,} 次迭代。",
    },
    "plateau": {
        "en": "90 % of the fall was done at iteration {fast:,}; after {plateau:,} the smoothed loss made no new low by 1 % of the fall or more.",
        "zh": "到第 {fast:,} 次迭代已完成 90 % 的下降；第 {plateau:,} 次之后，平滑损失再没有低出总降幅 1 % 以上的新低。",
    },
    "falling": {
        "en": "90 % of the fall was done at iteration {fast:,}; the smoothed loss still made new lows at the end.",
        "zh": "到第 {fast:,} 次迭代已完成 90 % 的下降；平滑损失到结束时仍在创新低。",
    },
    "lr_differs": {
        "en": "The learning rate reaches {seen:.4g} in the log and {asked:.4g} in the config: another config was used.",
        "zh": "日志中学习率最高为 {seen:.4g}，配置为 {asked:.4g}：使用的是另一份配置。",
    },
    "torn": {
        "en": "The last line was cut off in writing; it was left out.",
        "zh": "最后一行未写完，已略去。",
    },
    "unread": {
        "en": "{count:,} training lines have no iteration or number that can be read; they were left out.",
        "zh": "{count:,} 行训练记录没有可读的迭代数或数值，已略去。",
    },
    "config_unread": {
        "en": "{count} places of the config cannot be known without executing it, among them {first}.",
        "zh": "配置中有 {count} 处不执行就无法得知，例如 {first}。",
    },
    "config_in_log": {
        "en": "The config is the one that the log itself holds.",
        "zh": "配置取自日志本身。",
    },
}

TITLES: dict[str, dict[str, str]] = {
    "arithmetic": {"en": "Arithmetic", "zh": "算力"},
    "checkpoints": {"en": "Checkpoints", "zh": "检查点"},
    "config": {"en": "Config", "zh": "配置"},
    "copies": {"en": "Copies of lines", "zh": "重复的行"},
    "deprecated": {"en": "Outdated names", "zh": "旧名称"},
    "dice_saturated": {"en": "Mask head", "zh": "掩膜头"},
    "effective_batch": {"en": "Effective batch", "zh": "有效批量"},
    "end_of_loader": {"en": "End of data", "zh": "数据用尽"},
    "epochs": {"en": "Each image", "zh": "每幅图像"},
    "launcher": {"en": "Launcher", "zh": "启动器"},
    "learning_rate": {"en": "Learning rate", "zh": "学习率"},
    "loss_weights": {"en": "Weights at the start", "zh": "起始处的权重"},
    "mask_error": {"en": "Undrawn polygons", "zh": "无法绘制的多边形"},
    "mask_shape": {"en": "Number of masks", "zh": "掩膜数量"},
    "mask_text_length": {"en": "Phrases and polygons", "zh": "短语与多边形"},
    "memory": {"en": "Memory", "zh": "显存"},
    "mismatched_state": {"en": "Loaded weights", "zh": "加载的权重"},
    "not_finite": {"en": "NaN and infinity", "zh": "NaN 与无穷"},
    "offload": {"en": "Offloading", "zh": "卸载"},
    "out_of_memory": {"en": "Out of memory", "zh": "显存不足"},
    "overflow": {"en": "Overflow", "zh": "溢出"},
    "parts_sum": {"en": "Sum of the parts", "zh": "各项之和"},
    "phases": {"en": "Phases", "zh": "阶段"},
    "ranks": {"en": "Processes", "zh": "进程数"},
    "ranks_reported": {"en": "Processes, as logged", "zh": "日志记录的进程数"},
    "restarts": {"en": "Restarts", "zh": "重新启动"},
    "skipped_weights": {"en": "Skipped weights", "zh": "被跳过的权重"},
    "spikes": {"en": "Spikes", "zh": "尖峰"},
    "throughput": {"en": "Speed", "zh": "速度"},
    "too_long": {"en": "Cut texts", "zh": "被截断的文本"},
    "torn": {"en": "Last line", "zh": "最后一行"},
    "traceback": {"en": "Errors", "zh": "错误"},
    "unfinished": {"en": "Unfinished", "zh": "未完成"},
    "unread": {"en": "Unreadable lines", "zh": "无法读取的行"},
    "validation": {"en": "Validation", "zh": "验证"},
    "validation_constant": {"en": "Validation", "zh": "验证"},
    "warmup": {"en": "Warm-up", "zh": "预热"},
    "warning": {"en": "Other warnings", "zh": "其他警告"},
}


@dataclass(frozen=True)
class Finding:
    """One thing that an audit found. kind: what it is about. case: which sentence of PHRASES. alarm: needs a look.

    values: what the sentence is filled with; a Finding among them is said in the same language.
    """

    kind: str
    case: str
    values: dict = field(default_factory=dict)
    alarm: bool = False

    def say(self) -> str:
        values = {k: v.say() if isinstance(v, Finding) else v for k, v in self.values.items()}
        return PHRASES[self.case]["en"].format(**values)

    @property
    def evidence(self) -> str:
        """The sentence in English, with its arithmetic."""
        return self.say()

    def to_dict(self) -> dict[str, str]:
        return {"kind": self.kind, "evidence": self.evidence}


NOTHING = Finding("", "nothing")


def processes(number: int) -> Finding:
    """A number of processes in words, to stand in another finding's sentence."""
    return Finding("", "process" if number == 1 else "processes", {"number": number})
