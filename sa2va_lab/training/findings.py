"""What an audit may find, and its sentence in English, with its arithmetic; pages translate it.

No sentence turns a loss into a metric that was not measured.
"""

# ruff: noqa: E501 - a text a line

from __future__ import annotations

from dataclasses import dataclass, field

# before the point stands the kind of a finding, after it the case
TEXTS: dict[str, str] = {
    "arithmetic": "{tflops:.0f} TFLOP/s a GPU (median), {share}.",
    "checkpoints": "Kept checkpoints: {kept} ({rule}).",
    "checkpoints.late": "Nothing improved after iteration {plateau:,}, but the earliest checkpoint kept is {first:,}: whether an earlier one is better can no longer be measured. Kept: {kept}.",
    "config.in_log": "The config is the one that the log itself holds.",
    "config.unread": "{count} places of the config cannot be known without executing it, among them {first}.",
    "copies": "Each iteration is written {copies} times: {copies} processes, each for itself, wrote into this log.",
    "deprecated": "{count:,} notices about outdated names in libraries: without effect on training.",
    "dice_saturated": "{name} ends at {last:.4f}, {share:.0%} of {of}: the mask head learned nothing.",
    "effective_batch": "An update sees batch {batch} x accumulation {accumulation} x {found} = {effective} samples ({updates:,.0f} updates), as meant.",
    "effective_batch.other": "An update sees batch {batch} x accumulation {accumulation} x {found} = {effective} samples ({updates:,.0f} updates), not the {meant} that were meant; the learning rate was chosen for those.",
    "end_of_loader": "{count:,} x the data ran out within an epoch and began anew: ordinary where iterations, not epochs, are counted.",
    "epochs": "{iterations:,} iterations x batch {batch} x {found} = {seen:,} samples; over {samples:,} images, each was seen {times:.1f} times.",
    "launcher": "The processes were joined by the launcher “{launcher}” (GPU number: {number}).",
    "launcher.none": "The log says “Distributed launcher: none” (GPU number: {number}), while {meant} GPUs were meant: each process that was started takes itself for the only one and trains on the same samples.",
    "learning_rate": "The learning rate reaches {seen:.4g} in the log and {asked:.4g} in the config: another config was used.",
    "loss_weights.dice": "{name} begins at {first:.4f} = weight {weight:g} x {bare:.4f}: what an untrained [SEG] head gives (1 x weight).",
    "loss_weights.dice_impossible": "{name} begins at {first:.4f}; with the config's weight {weight:g} that is {bare:.4f}, and a Dice loss cannot exceed 1: this config is not the run's.",
    "loss_weights.dice_trained": "{name} begins at {first:.4f} = weight {weight:g} x {bare:.4f}, less than the 1 x weight of an untrained [SEG] head: it had been trained before.",
    "loss_weights.dice_unweighted": "{name} begins at {first:.4f}; an untrained [SEG] head gives 1 x weight, so its weight is {first:.4f} or more (the config was not given).",
    "loss_weights.mask": "{name} begins at {first:.4f} = weight {weight:g} x {bare:.4f}, that is {ratio:.2f} x ln 2 (0.6931, the cross-entropy of a head that says 0.5 everywhere): {meaning}.",
    "mask_error": "{count:,} polygons could not be drawn and were left out of the ground truth.",
    "mask_shape": "{count:,} steps had another number of predicted masks than of true ones; such a step teaches the mask head nothing.",
    "mask_text_length": "{count:,} warnings “mask length != text length” about {images}: where there are fewer phrases than polygons, the loader keeps only as many polygons as phrases, so the other branches were trained as background.",
    "memory": "At most {used:.1f} GiB of GPU memory were in use {of}.",
    "mismatched_state": "{count:,} x the loaded weights and the model did not match exactly; the lines after it in the log name the tensors.",
    "not_finite": "{count} numbers were NaN or infinite: {names}, first at iteration {iteration:,}.",
    "offload": "The config keeps {what} in CPU memory (ZeRO stage {stage}): each step copies them over the bus, which usually costs more than the computing.",
    "out_of_memory": "{count:,} x the GPU's memory was full.",
    "overflow": "{count:,} updates were skipped because gradients overflowed.",
    "parts_sum": "{parts} add up to the total on all {lines:,} lines; the largest difference is {difference:.4f}.",
    "parts_sum.not": "{parts} do not add up to the total: they differ by {difference:.4f} at iteration {iteration:,}, so a part is missing from the log or is not a part of the total.",
    "phases": "90 % of the fall was done at iteration {fast:,}; the smoothed loss still made new lows at the end.",
    "phases.plateau": "90 % of the fall was done at iteration {fast:,}; after {plateau:,} the smoothed loss made no new low by 1 % of the fall or more.",
    "ranks.as_meant": "{iterations:,} iterations = {formula}: {found}, as meant.",
    "ranks.fewer": "{iterations:,} iterations = {formula}: {found}. {meant} would have made {expected:,}. The run worked through the data as {found}, so the other GPUs stood idle or computed the same samples.",
    "ranks.fixed": "The config fixes {iterations:,} iterations (max_iters), so their number says nothing of the processes.",
    "ranks.more": "{iterations:,} iterations = {formula}: {found}, more than the {meant} that were meant ({expected:,} iterations).",
    "ranks.none": "{iterations:,} iterations fit no number of processes from 1 to 64: one would make {one:,}, {meant} would make {expected:,}. Number of samples, repeats or epochs are not those of this run.",
    "ranks.several": "{iterations:,} iterations fit {fits} processes alike; the data set is too small to tell them apart.",
    "ranks.unknown": "How many processes took part cannot be computed without {missing}.",
    "ranks_reported": "The log itself counts {reported}.",
    "restarts": "Taken up again {count} time(s), at iteration {places}; lines that were done again are counted once.",
    "skipped_weights": "{keys} tensors of the pretrained file did not fit and were skipped: those parts began from other weights than intended.",
    "spikes": "{count} spikes of the total (over ten median deviations), the highest {value:.4g} at iteration {iteration:,}.",
    "throughput": "{seconds:.2f} s an iteration (median), {hours:.1f} h in all, {rate}; {waiting:.0%} of the time was spent waiting for data.",
    "too_long": "{count:,} texts were longer than the tokenizer allows; what was cut off was not trained.",
    "torn": "The last line was cut off in writing; it was left out.",
    "traceback": "{count:,} tracebacks: something stopped with an error.",
    "unfinished": "The last line is iteration {last:,} of {planned:,}: the run was stopped, or is still going on.",
    "unread": "{count:,} training lines have no iteration or number that can be read; they were left out.",
    "validation": "{name} went from {first:.4g} to {last:.4g} over {count} validations.",
    "validation_constant": "{name} is {value:g} at all {count} validations: no gradient reached the parameters behind it, or the metric does not look at the model.",
    "warmup.as_meant": "Learning rate {rate:.4g} at iteration {iteration} is that of a warm-up of {length:,.0f} iterations: by the config, {own:,} ({own_rate:.4g}) with {found}.",
    "warmup.length": "The learning rate climbs to {lr:.4g} in a warm-up of {length:,.0f} iterations, {share:.1%} of the run.",
    "warmup.none": "Learning rate {rate:.4g} at iteration {iteration} fits no number of processes: one would give {one_rate:.4g}, {meant} would give {other_rate:.4g}. Learning rate, warm-up or epochs differ from the config.",
    "warmup.other": "Learning rate {rate:.4g} at iteration {iteration} is that of a warm-up of {length:,.0f} iterations: by the config, {own:,} ({own_rate:.4g}) with {found}, and {other:,} ({other_rate:.4g}) with {meant}.",
    "warning": "{count:,} other warnings, most often: {words}.",
}
TITLES: dict[str, str] = {
    "arithmetic": "Arithmetic",
    "checkpoints": "Checkpoints",
    "config": "Config",
    "copies": "Copies of lines",
    "deprecated": "Outdated names",
    "dice_saturated": "Mask head",
    "effective_batch": "Effective batch",
    "end_of_loader": "End of data",
    "epochs": "Each image",
    "launcher": "Launcher",
    "learning_rate": "Learning rate",
    "loss_weights": "Weights at the start",
    "mask_error": "Undrawn polygons",
    "mask_shape": "Number of masks",
    "mask_text_length": "Phrases and polygons",
    "memory": "Memory",
    "mismatched_state": "Loaded weights",
    "not_finite": "NaN and infinity",
    "offload": "Offloading",
    "out_of_memory": "Out of memory",
    "overflow": "Overflow",
    "parts_sum": "Sum of the parts",
    "phases": "Phases",
    "ranks": "Processes",
    "ranks_reported": "Processes, as logged",
    "restarts": "Restarts",
    "skipped_weights": "Skipped weights",
    "spikes": "Spikes",
    "throughput": "Speed",
    "too_long": "Cut texts",
    "torn": "Last line",
    "traceback": "Errors",
    "unfinished": "Unfinished",
    "unread": "Unreadable lines",
    "validation": "Validation",
    "validation_constant": "Validation",
    "warmup": "Warm-up",
    "warning": "Other warnings",
}


@dataclass(frozen=True)
class Finding:
    """One thing that an audit found. case: a key of TEXTS. values: what its sentence is filled with.

    alarm: it needs a look.
    """

    case: str
    values: dict = field(default_factory=dict)
    alarm: bool = False

    @property
    def kind(self) -> str:
        return self.case.partition(".")[0]

    @property
    def title(self) -> str:
        return TITLES[self.kind]

    @property
    def evidence(self) -> str:
        """The sentence in English."""
        return TEXTS[self.case].format(**self.values)

    def to_dict(self) -> dict[str, str]:
        return {"kind": self.kind, "evidence": self.evidence}


def note(case: str, **values) -> Finding:
    """A finding to know of."""
    return Finding(case, values)


def warn(case: str, **values) -> Finding:
    """A finding that needs a look."""
    return Finding(case, values, alarm=True)


def count_processes(number: int) -> str:
    """A number of processes in words, to stand in a sentence."""
    return "1 process" if number == 1 else f"{number} processes"
