"""An xtuner/mmengine config as data: base model, LoRA, loss weights, data sets, schedule. Nothing in it is executed.

The syntax tree is read (`syntax`); what cannot be known that way is listed in `TrainingConfig.unread`, never guessed.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path

from sa2va_lab.errors import LabError
from sa2va_lab.files import read_as, read_json
from sa2va_lab.paths import real
from sa2va_lab.training.syntax import Symbol, Unread, read_assignments

LARGEST = 1 << 20  # characters of a config
MOST_DATA = 1000  # data sets


@dataclass(frozen=True)
class TrainingConfig:
    """What a config says; None wherever it does not say, or cannot be read (then `unread` tells why).

    data: (repeats, samples) of each data set; samples are counted from its annotations, None where those are absent.
    base, weights: the model that training began from, and Sa2VA's weights where those came in a file of their own.
    loss_weights: {loss name: weight}. sampler_group: samples that xtuner's LengthGroupedSampler keeps together on a
    process (batch size x accumulation), None for a plain sampler. warmup: {"begin", "end", "start_factor", "by_epoch"}
    as written. zero: what DeepSpeed's ZeRO was told.
    """

    unread: tuple[str, ...]
    base: str | None = None
    weights: str | None = None
    template: str | None = None
    special_tokens: tuple[str, ...] = ()
    lora: dict = field(default_factory=dict)
    loss_weights: dict[str, float] = field(default_factory=dict)
    data: tuple[tuple[float | None, int | None], ...] = ()
    epochs: float | None = None
    max_iterations: int | None = None
    batch: int | None = None
    accumulation: int | None = None
    sampler_group: int | None = None
    lr: float | None = None
    warmup: dict = field(default_factory=dict)
    zero: dict = field(default_factory=dict)
    launcher: str | None = None
    save_interval: int | None = None
    save_by_epoch: bool = False
    keep: int | None = None

    @property
    def lora_alpha(self) -> float | None:
        return _at(self.lora, "lora_alpha", float)

    @property
    def repeats(self) -> float | None:
        """How often an epoch goes through each image; None where data sets differ."""
        found = {repeats for repeats, _ in self.data}
        return found.pop() if len(found) == 1 else None

    def epoch_samples(self, samples: int | None = None) -> int | None:
        """Samples of one epoch, repeats included. samples: images, for a config with one value of repeats."""
        if samples is not None:
            return None if self.repeats is None else int(samples * self.repeats)
        known = self.data and all(None not in part for part in self.data)
        return sum(int(repeats * count) for repeats, count in self.data) if known else None

    @property
    def samples(self) -> int | None:
        """Images of all data sets together, None where one of them could not be counted."""
        counts = [count for _, count in self.data]
        return sum(counts) if counts and None not in counts else None


NO_CONFIG = TrainingConfig(())  # it says nothing


def read_config(path: Path | str) -> TrainingConfig:
    """Reads a config file without executing it; LabError for a file that is none."""

    def parse(content: bytes) -> TrainingConfig:
        return parse_config(content.decode("utf-8-sig", "replace"), path=Path(path))

    return read_as("an xtuner config", path, parse, limit=LARGEST)


def parse_config(source: str, *, path: Path | None = None) -> TrainingConfig:
    """The same from text, such as the config that mmengine writes into its log.

    Raises LabError for text that is too long, is not Python, or sets none of model, train_dataloader, optim_wrapper.
    """
    name = path or "the config in the log"
    if len(source) > LARGEST:
        raise LabError(f"{name} has more than {LARGEST >> 20} MB: that is no xtuner config.")
    try:
        values, unread = read_assignments(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        where = f" (line {error.lineno})" if getattr(error, "lineno", None) else ""
        raise LabError(f"{name} is not Python{where}: give the config that the training was started with.") from None
    if not {"model", "train_dataloader", "optim_wrapper"} & set(values):
        raise LabError(
            f"{name} sets none of model, train_dataloader and optim_wrapper, so it is not an xtuner config: "
            "give the one that the training was started with."
        )
    return _interpret(path, values, tuple(unread))


def _interpret(path: Path | None, values: dict, unread: tuple[str, ...]) -> TrainingConfig:
    """Looks up what the workbench needs to know; anything of the wrong type counts as not said."""
    model, optim = _at(values, "model", dict) or {}, _at(values, "optim_wrapper", dict) or {}
    loader, sampler = _at(values, "train_dataloader", dict) or {}, _at(values, "train_dataloader.sampler", dict) or {}
    saving, strategy = _at(values, "default_hooks.checkpoint", dict) or {}, _at(values, "strategy", dict) or {}
    lora = _at(model, "mllm.llm_lora", dict) or _at(model, "llm_lora", dict) or {}
    weights = {name: _at(part, "loss_weight", float) for name, part in model.items()}
    used = values.get("prompt_template")  # PROMPT_TEMPLATE.<name> is what training used
    grouped = (_kind(sampler) or "").endswith("LengthGroupedSampler")
    return TrainingConfig(
        unread=unread,
        base=_at(model, "mllm.model_path", str) or _at(model, "llm.pretrained_model_name_or_path", str),
        weights=_at(model, "pretrained_pth", str),
        template=used.short if isinstance(used, Symbol) else _at(values, "template", str),
        special_tokens=tuple(token for token in _at(model, "special_tokens", list) or () if isinstance(token, str)),
        lora={key: value for key, value in lora.items() if not isinstance(value, Symbol | Unread)},
        loss_weights={name: weight for name, weight in weights.items() if weight is not None},
        data=tuple(_find_data(_at(loader, "dataset", dict), path)),
        epochs=_at(values, "train_cfg.max_epochs", float),
        max_iterations=_at(values, "train_cfg.max_iters", int),
        batch=_at(loader, "batch_size", int),
        accumulation=_at(optim, "accumulative_counts", int) or _at(strategy, "gradient_accumulation_steps", int),
        sampler_group=_at(sampler, "per_device_batch_size", int) if grouped else None,
        lr=_at(optim, "optimizer.lr", float),
        warmup=_find_warmup(_at(values, "param_scheduler", list) or _at(values, "param_scheduler", dict)),
        zero=_at(strategy, "zero_optimization", dict) or _at(strategy, "config.zero_optimization", dict) or {},
        launcher=_at(values, "launcher", str),
        save_interval=_at(saving, "interval", int),
        save_by_epoch=_at(saving, "by_epoch", bool) is not False,
        keep=_at(saving, "max_keep_ckpts", int),
    )


def _at(values, path: str, kind: type):
    """The value at a dotted path, None unless it is there and of the kind; an int is a float too, a bool neither."""
    for key in path.split("."):
        values = values.get(key) if isinstance(values, dict) else None
    if kind in (int, float):
        there = type(values) in (int, kind) and abs(values) < 1e18  # beyond all measure, or NaN, is as not said
        return kind(values) if there else None
    return values if isinstance(values, kind) else None


def _kind(part: dict) -> str | None:
    """The `type` of a part, without its modules."""
    kind = part.get("type")
    return kind.short if isinstance(kind, Symbol) else kind.rsplit(".", 1)[-1] if isinstance(kind, str) else None


def _find_data(dataset: dict | None, config: Path | None, budget: list[int] | None = None) -> list[tuple]:
    """(repeats, samples) of the data sets inside a dataset, however many concatenations are around them."""
    budget = budget or [MOST_DATA]  # the same one may stand in another many times over
    budget[0] -= 1
    if dataset is None or budget[0] < 0:
        return []
    inner = _at(dataset, "datasets", list)
    if inner is None and _at(dataset, "dataset", dict):
        inner = [dataset["dataset"]]
    if inner is not None:
        return [found for part in inner if isinstance(part, dict) for found in _find_data(part, config, budget)]
    root, file = _at(dataset, "data_root", str), _at(dataset, "ann_file", str) or _at(dataset, "data_path", str)
    repeats = _at(dataset, "repeats", float) if "repeats" in dataset else 1.0
    return [(repeats, _count_samples(root, file, config))]


def _count_samples(root: str | None, file: str | None, config: Path | None) -> int | None:
    """Entries of an annotation file: as the path stands, or seen from the config's folder or one above it, for such
    paths are relative to where the training was started; None if it is not there."""
    if not file:
        return None
    for folder in (Path(), *(real(config).parents if config else ())):
        with contextlib.suppress(LabError):
            content = read_json(folder / (root or "") / file)
            content = content.get("images") if isinstance(content, dict) else content
            if isinstance(content, list):
                return len(content)
    return None


def _find_warmup(schedulers: list | dict | None) -> dict:
    """The linear warm-up among the schedulers, as written."""
    for part in schedulers if isinstance(schedulers, list) else [schedulers]:
        if isinstance(part, dict) and (_kind(part) or "").startswith("Linear"):
            wanted = {"begin": float, "end": float, "start_factor": float, "by_epoch": bool}
            return {key: _at(part, key, kind) for key, kind in wanted.items() if _at(part, key, kind) is not None}
    return {}
