"""Which device and which precision, each with its reason; and the ladder of ways to run, each with what it needs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sa2va_lab.errors import LabError
from sa2va_lab.loading.forecast import BYTES, GIB, Forecast, forecast

if TYPE_CHECKING:
    import torch

    from sa2va_lab.sa2va.configuration import Sa2VAConfig

PRECISIONS = tuple(BYTES)
STORED = {"fp32": "F32", "bf16": "BF16", "fp16": "F16"}  # as safetensors headers call them


def choose_device(asked: str = "auto") -> tuple[str, str]:
    """The torch device and why. Raises LabError for a device that is not there."""
    import torch

    if asked == "auto":
        if torch.cuda.is_available():
            return "cuda:0", f"cuda:0: {torch.cuda.get_device_name(0)} is there"
        return "cpu", "cpu: no CUDA device"
    try:
        device = torch.device(asked)
    except RuntimeError:
        raise LabError(f'No device is called {asked!r}: use "auto", "cpu", "cuda" or "cuda:1".') from None
    if device.type == "cuda":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= found:
            raise LabError(f'Device {asked} was asked for, but {found} CUDA devices are visible: use "cpu" or "auto".')
        return f"cuda:{device.index or 0}", "as asked"
    if device.type != "cpu":
        raise LabError(f'Device {asked} is not supported here: use "auto", "cpu" or "cuda".')
    return "cpu", "as asked"


def choose_precision(device: str) -> tuple[str, str]:
    """The precision in which a CUDA device of this machine computes best, and why."""
    import torch

    major, minor = torch.cuda.get_device_capability(device)
    if major >= 8:
        return "bf16", f"bf16: compute capability {major}.{minor}"
    return "fp16", f"fp16: compute capability {major}.{minor} has no bf16"


def as_dtype(precision: str) -> torch.dtype:
    """The torch dtype of a precision; what is not quantised in int8 and nf4 stays bf16."""
    import torch

    return {"fp32": torch.float32, "fp16": torch.float16}.get(precision, torch.bfloat16)


@dataclass(frozen=True)
class Rung:
    """One way to run: at `precision` on `device`. needed: bytes that must be free there, at most `budget` to fit."""

    precision: str
    device: str
    forecast: Forecast
    needed: int
    budget: int
    reason: str

    @property
    def fits(self) -> bool:
        """Whether the forecast is within the budget."""
        return self.needed <= self.budget

    def to_dict(self) -> dict:
        """As `sa2va-lab plan --json` prints it; bytes."""
        device = {
            "name": self.device,
            "weights": self.forecast.weights,
            "activations": self.forecast.activations + self.forecast.cache + self.forecast.overhead,
            "total": self.forecast.total,
            "needed": self.needed,
            "budget": self.budget,
        }
        return {"precision": self.precision, "devices": [device], "fits": self.fits, "reason": self.reason}


@dataclass(frozen=True)
class Plan:
    """The ladder for one checkpoint on one machine, best rung first. chosen: the place of the first that fits."""

    rungs: list[Rung]

    @property
    def chosen(self) -> int | None:
        """The place of the best rung that fits, None where none does."""
        return next((place for place, rung in enumerate(self.rungs) if rung.fits), None)

    def to_dict(self) -> dict:
        """{rungs: [{precision, devices: [{name, weights, activations, total, budget, ...}], fits, reason}], chosen}"""
        return {"rungs": [rung.to_dict() for rung in self.rungs], "chosen": self.chosen}

    def explain_none(self) -> str:
        """What the least demanding rung would need, as a sentence."""
        least = min(self.rungs, key=lambda rung: rung.needed - rung.budget)
        return (
            f"Nothing fits: {least.precision} on {least.device} comes nearest and needs {least.needed / GIB:.2f} GiB, "
            f"{(least.needed - least.budget) / GIB:.2f} GiB more than there is; free memory, or use a larger machine."
        )


def plan(
    path: Path | str, *, gpu: str | None = None, gpus: int = 1, cpu: str | None = None, tiles: int | None = None
) -> Plan:
    """The ladder for the checkpoint in `path`, from headers alone; nothing is loaded.

    gpu, cpu: memory of one GPU and of the host ("24GiB"), for hardware that is not here; neither: this machine.
    gpus: how many such GPUs; each holds a replica. tiles: of one image, the thumbnail included; the most that the
    model cuts if not given. Raises LabError for an unreadable checkpoint or size.
    """
    from sa2va_lab.sa2va.configuration import read_config
    from sa2va_lab.sa2va.weights import OfficialFolder

    config, source = read_config(path), OfficialFolder(path)
    if tiles is not None and tiles < 1 or gpus < 1:
        raise LabError(f"tiles is {tiles} and gpus is {gpus}; expected at least 1 of each.")
    budgets = find_budgets()
    if gpu or cpu:
        names = [f"cuda:{number}" for number in range(gpus)] if gpu else []
        budgets = {name: parse_size(gpu) for name in names} | ({"cpu": parse_size(cpu)} if cpu else {})
    return climb_down(source, config, budgets=budgets, tiles=tiles)


def climb_down(
    source,
    config: Sa2VAConfig,
    *,
    budgets: dict[str, int],
    precision: str = "auto",
    device: str = "auto",
    tiles: int | None = None,
) -> Plan:
    """The rungs for a source of weights (with `names`, `shape`, `dtype`) on devices with so many free bytes.

    What was asked for comes first, then one GPU at falling precision, then the CPU. GPUs are alike, so one stands for
    all. Memory-mapped weights of the stored precision need no free memory on a CPU, only patience where they do not
    fit into it.
    """
    shapes = {name: source.shape(name) for name in source.names()}
    tiles = tiles or (config.max_tiles + 1 if config.max_tiles > 1 else 1)
    cuda = [name for name in budgets if name.startswith("cuda")]
    wanted = [name for name in budgets if device in ("auto", name)]
    pairs = [(p, name) for name in wanted if name in cuda[:1] or name == device for p in _falling(precision, name)]
    pairs += [(p, "cpu") for p in _falling(precision, "cpu") if "cpu" in budgets]
    rungs = []
    for kind, name in dict.fromkeys(pairs):
        made = forecast(shapes, config, precision=kind, tiles=tiles, cuda=name != "cpu")
        mapped = name == "cpu" and source.dtypes() <= {STORED.get(kind)}
        needed = made.total - (made.weights if mapped else 0)
        rungs.append(Rung(kind, name, made, needed, budgets[name], _tell(made, needed, budgets[name], mapped=mapped)))
    return Plan(rungs)


def _falling(precision: str, device: str) -> list[str]:
    order = ["bf16", "int8", "nf4"] if device != "cpu" else ["fp32", "bf16", "int8", "nf4"]
    if precision == "auto":
        return [choose_precision(device)[0], *order[1:]] if _is_here(device) else order
    return [precision, *(kind for kind in order if BYTES[kind] < BYTES[precision])]


def _is_here(device: str) -> bool:
    import torch

    return device.startswith("cuda") and torch.cuda.is_available()


def _tell(made: Forecast, needed: int, budget: int, *, mapped: bool) -> str:
    spare = budget - needed
    what = f"{made.weights / GIB:.2f} GiB of weights, {(made.total - made.weights) / GIB:.2f} GiB on top"
    if mapped:
        what += "; the weights stay in the mapped file and take no memory of their own"
    fits = "fits" if spare >= 0 else "does not fit"
    return f"{what}: {fits}, {abs(spare) / GIB:.2f} GiB {'to spare' if spare >= 0 else 'too much'}"


def find_budgets() -> dict[str, int]:
    """Free bytes of each visible device of this machine, the CPU last; 10 % of the host's memory is left alone."""
    import psutil
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    found = {f"cuda:{number}": torch.cuda.mem_get_info(number)[0] for number in range(count)}
    return found | {"cpu": int(0.9 * psutil.virtual_memory().available)}


def parse_size(text: str) -> int:
    """Bytes of "24GiB", "24 GB" or "512MiB". Raises LabError for anything else."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT])(i?)B?\s*", str(text), re.IGNORECASE)
    if not match:
        raise LabError(f"{text!r} is not a size: write it as 24GiB or 512MiB.")
    return int(float(match[1]) * (1024 if match[3] else 1000) ** ("KMGT".index(match[2].upper()) + 1))
