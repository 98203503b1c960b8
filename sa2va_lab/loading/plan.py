"""The ladder of ways to run, each with what it needs, whether that fits, and why."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sa2va_lab.errors import LabError
from sa2va_lab.loading.devices import QUANTISED, can_quantise, choose_precision, find_budgets, is_here, parse_size
from sa2va_lab.loading.forecast import BYTES, CUDA_CONTEXT, FRAGMENTS, GIB, STORED, Forecast, forecast, weigh_loading
from sa2va_lab.loading.shards import FILES, Layout, spread

if TYPE_CHECKING:
    from sa2va_lab.sa2va.configuration import Sa2VAConfig

PRECISIONS = tuple(BYTES)
NO_QUANTISER = "needs bitsandbytes, which is not installed: pip install 'sa2va_lab[quant]'"


@dataclass(frozen=True)
class Share:
    """What one device must hold; bytes. needed: what must be free there, at most `budget` to fit; weights that are used
    where they lie in a mapped file need nothing. activations: everything on top of weights, cache and device context
    included. mapped: pages of files that are looked at, which the system takes back when it needs room."""

    name: str
    weights: int
    activations: int
    needed: int
    budget: int
    mapped: int = 0

    @property
    def total(self) -> int:
        """Weights and all on top."""
        return self.weights + self.activations


@dataclass(frozen=True)
class Rung:
    """One way to run: at `precision`, with the parts where `layout` says. shares: a device each, the home first; host:
    what the host must have free while GPUs are loaded. Nothing is written, so no disk is needed."""

    precision: str
    layout: Layout
    shares: tuple[Share, ...]
    host: Share | None
    reason: str

    @property
    def device(self) -> str:
        """The home: where everything but decoder layers is."""
        return self.layout.home

    @property
    def where(self) -> str:
        """The devices, for a sentence."""
        names = " + ".join(self.layout.devices)
        return f"{names} + {FILES}" if self.layout.kept_back else names

    @property
    def total(self) -> int:
        """Bytes on all devices."""
        return sum(share.total for share in self.shares)

    @property
    def lacking(self) -> int:
        """Bytes that the fullest device lacks; below 0 is room to spare."""
        return max(share.needed - share.budget for share in self.all_shares)

    @property
    def all_shares(self) -> tuple[Share, ...]:
        """Those of the devices, and of the host where that only helps to load."""
        return (*self.shares, self.host) if self.host else self.shares

    @property
    def fits(self) -> bool:
        """Whether the forecast is within the budget of every device."""
        return self.lacking <= 0

    @property
    def can_be_made(self) -> bool:
        """Whether the libraries for it are installed."""
        return can_quantise(self.precision, device=self.device)

    @property
    def effort(self) -> int:
        """What it takes besides memory. 0: nothing; 1: the weights are converted on a CPU first; 2: they are read from
        the disk at each image, as the mapped file does not fit into the memory of the CPU either."""
        home = self.shares[0]
        if home.name != "cpu":
            return 0
        return 2 if home.total > home.budget else int(home.needed > home.activations)

    def to_dict(self) -> dict:
        """As `sa2va-lab plan --json` prints it; bytes."""
        devices = [asdict(share) | {"total": share.total} for share in self.shares]
        layers = list(self.layout.layers)
        return {
            "precision": self.precision,
            "devices": devices,
            "host": asdict(self.host) if self.host else None,
            "layers": {name: layers.count(name) for name in dict.fromkeys(layers)},
            "fits": self.fits,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class Plan:
    """The ladder for one checkpoint on one machine, best rung first."""

    rungs: list[Rung]

    @property
    def chosen(self) -> int | None:
        """The place of the rung that fits with the least effort, the first of several; None where none fits or can be
        made by what is installed."""
        fitting = [place for place, rung in enumerate(self.rungs) if rung.fits and rung.can_be_made]
        return min(fitting, key=lambda place: (self.rungs[place].effort, place), default=None)

    def start(self, precision: str, device: str) -> int | None:
        """The rung to begin with where precision and device are as asked ("auto": whichever): the first that fits, else
        the first, which then is tried all the same; None where all was left open and nothing fits."""
        if precision == "auto":
            return self.chosen
        asked = [i for i, r in enumerate(self.rungs) if r.precision == precision and device in ("auto", r.device)]
        return next((place for place in asked if self.rungs[place].fits), asked[0])

    def to_dict(self) -> dict:
        """{rungs: [{precision, devices: [{name, weights, activations, total, budget, ..}], fits, reason}], chosen}"""
        return {"rungs": [rung.to_dict() for rung in self.rungs], "chosen": self.chosen}

    def explain_none(self) -> str:
        """What the least demanding rung would need, as a sentence."""
        least = min(self.rungs, key=lambda rung: rung.lacking)
        if least.fits:
            return f"Only {least.precision} on {least.where} fits, and it {NO_QUANTISER}."
        fullest = max(least.all_shares, key=lambda share: share.needed - share.budget)
        return (
            f"Nothing fits: {least.precision} on {least.where} comes nearest and needs {fullest.needed / GIB:.2f} "
            f"GiB on {fullest.name}, {least.lacking / GIB:.2f} GiB more than there is; free memory, or use a larger "
            "machine."
        )


def plan(
    path: Path | str,
    *,
    sam2: Path | str | None = None,
    finetune: Path | str | None = None,
    config: Path | str | None = None,
    lora_alpha: float | None = None,
    gpu: str | None = None,
    gpus: int | None = None,
    cpu: str | None = None,
    tiles: int | None = None,
) -> Plan:
    """The ladder for the checkpoint in `path`, from headers alone; nothing is loaded.

    sam2, finetune, config, lora_alpha: as `load` takes them. gpu, cpu: memory of one GPU and of the host ("24GiB"), for
    hardware that is not here; neither: this machine. gpus: how many GPUs, 1 of those that are not here and all of those
    that are if not given. tiles: of one image, the thumbnail included; the most that the model cuts if not given.
    Raises LabError for an unreadable checkpoint or size, and for more GPUs than there are.
    """
    from sa2va_lab.loading.assembly import open_model

    opened = open_model(path, sam2=sam2, finetune=finetune, config=config, lora_alpha=lora_alpha)
    if gpu or cpu:
        names = [f"cuda:{number}" for number in range(1 if gpus is None else gpus)] if gpu else []
        if gpus is not None and gpus < 1:
            raise LabError(f"gpus is {gpus}; expected at least 1.")
        budgets = {name: parse_size(gpu) for name in names} | ({"cpu": parse_size(cpu)} if cpu else {})
    else:
        budgets = find_budgets(gpus)
    return climb_down(opened.source, opened.sizes, budgets=budgets, gpus=gpus, tiles=tiles)


def climb_down(
    source,
    config: Sa2VAConfig,
    *,
    budgets: dict[str, int],
    precision: str = "auto",
    device: str = "auto",
    gpus: int | None = None,
    tiles: int | None = None,
) -> Plan:
    """The rungs for a source of weights (with `names`, `shape`, `dtype`) on devices with so many free bytes.

    What was asked for comes first: with `gpus` above 1 the layers are spread over them. Then one GPU, all GPUs, one at
    falling precision, all with the layers that do not fit left in the files; then the CPU, at last with all layers
    left in the files. On a CPU, weights that are stored as they are used stay in the mapped file and need no free
    memory, only patience where they do not fit into it.
    """
    if tiles is not None and tiles < 1:
        raise LabError(f"tiles is {tiles}; expected at least 1.")
    shapes = {name: source.shape(name) for name in source.names()}
    stored = {name: source.dtype(name) for name in shapes}
    tiles = tiles or (config.max_tiles + 1 if config.max_tiles > 1 else 1)
    cuda = [name for name in budgets if name.startswith("cuda") and device in ("auto", name)]
    ways: list[tuple[str, list[str], bool]] = []  # precision, devices, whether layers may stay in the files
    if cuda:
        first, *rest = _falling(precision, cuda[0])
        best, wide = [max(cuda, key=budgets.get)], "bf16" if first in QUANTISED else first
        ways += [(kind, cuda, False) for kind in (first, *rest) if (gpus or 1) > 1]
        ways += [(first, best, False), (first, cuda, False), *((kind, best, False) for kind in rest)]
        ways += [(wide, cuda, True)]
    if "cpu" in budgets:
        ways += [(kind, ["cpu"], False) for kind in _falling(precision, "cpu")]
        ways += [(precision if precision in STORED else "bf16", ["cpu"], True)]
    rungs = {}
    for kind, names, files in ways:
        on_cpu = names == ["cpu"]
        made = forecast(shapes, config, precision=kind, tiles=tiles, stored=stored if on_cpu else None)
        if not (files and (made.layer_in_place == made.layer or kind in QUANTISED)):  # they are there already
            own = {name: budgets[name] for name in names}
            host = None
            if "cpu" in budgets and not on_cpu:
                loading = weigh_loading(shapes, stored, precision=kind)
                host = Share("cpu", 0, loading, loading, budgets["cpu"])
            rung = _make_rung(kind, made, own, files=files, mapped=source.mapped_bytes() - made.unseen, host=host)
            rungs.setdefault((kind, rung.layout), rung)
    return Plan(list(rungs.values()))


def _make_rung(
    kind: str, made: Forecast, budgets: dict[str, int], *, files: bool, mapped: int, host: Share | None
) -> Rung:
    home = max(budgets, key=budgets.get)
    budgets = {home: budgets[home]} | budgets
    context, slack = (0, 1.0) if home == "cpu" else (CUDA_CONTEXT, 1 + FRAGMENTS)
    outside, layer = made.outside - made.outside_in_place, made.layer - made.layer_in_place
    held = {name: context + slack * (outside + made.activations) for name in budgets if name == home}
    held |= {name: context + slack * made.reading for name in budgets if name != home}
    if files:  # one matrix at a time comes in, and the cache of such layers is at home
        held[home] += slack * (made.matrix + made.cache)
    size = slack * (layer + made.layer_cache)
    places = spread(made.layers, size=size, held=held, budgets=budgets)
    if files and home == "cpu":
        places = (FILES,) * made.layers
    elif FILES in places and not files:  # it does not fit: spread all the same, to say what is lacking
        roomy = {name: budget + held[name] + made.layers * size for name, budget in budgets.items()}
        places = spread(made.layers, size=size, held=held, budgets=roomy)
    layout, shares = Layout(home, places), []
    for name in layout.devices:
        kept_back, layers = (layout.kept_back if name == home else 0), places.count(name)
        weights = layers * made.layer + (made.outside if name == home else 0)
        own = layers * layer + (outside if name == home else 0)
        on_top = (made.activations if name == home else made.reading) + (made.matrix if kept_back else 0)
        on_top = context + slack * (own + on_top + (layers + kept_back) * made.layer_cache) - own
        sizes = {"weights": weights, "activations": on_top, "needed": own + on_top}
        sizes |= {"budget": budgets[name], "mapped": mapped if name == "cpu" else 0}
        shares.append(Share(name, **{key: int(size) for key, size in sizes.items()}))
    rung = Rung(kind, layout, tuple(shares), host, "")
    return replace(rung, reason=_tell(rung))


def _falling(precision: str, device: str) -> list[str]:
    order = ["bf16", "int8", "nf4"] if device != "cpu" else ["fp32", "bf16", "int8", "nf4"]
    if precision == "auto":
        return [choose_precision(device)[0], *order[1:]] if is_here(device) else order
    return [precision, *(kind for kind in order if BYTES[kind] < BYTES[precision])]


def _tell(rung: Rung) -> str:
    weights = sum(share.weights for share in rung.shares)
    in_place = rung.total - sum(share.needed for share in rung.shares)
    what = f"{weights / GIB:.2f} GiB of weights, {(rung.total - weights) / GIB:.2f} GiB on top"
    if in_place > 0:
        which = "the weights" if in_place == weights else f"{in_place / GIB:.2f} GiB of the weights"
        what += f"; {which} stay in the mapped file and take no memory of their own"
    layers = [f"{rung.layout.layers.count(name)} on {name}" for name in dict.fromkeys(rung.layout.layers)]
    if len(layers) > 1 or rung.layout.kept_back:
        what += f"; decoder layers: {', '.join(layers).replace(f'on {FILES}', 'left in the files')}"
    if rung.host and rung.host.needed:
        what += f"; {rung.host.needed / GIB:.2f} GiB of the host while loading"
    fits = "fits" if rung.fits else "does not fit"
    what += f": {fits}, {abs(rung.lacking) / GIB:.2f} GiB {'to spare' if rung.fits else 'too much'}"
    if rung.fits and rung.effort == 2:
        what += "; but not with the file, so the disk is read at each image"
    return what if rung.can_be_made else f"{what}; {NO_QUANTISER}"
