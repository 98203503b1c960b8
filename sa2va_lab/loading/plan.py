"""The ladder of ways to run, each with what it needs, whether that fits, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

from sa2va_lab.errors import LabError
from sa2va_lab.loading.catalogue import Released, find_released
from sa2va_lab.loading.checkpoint import Checkpoint
from sa2va_lab.loading.devices import (
    QUANTISED,
    can_quantise,
    choose_precision,
    find_budgets,
    is_here,
    is_int8_faster,
    parse_size,
)
from sa2va_lab.loading.forecast import BYTES, GIB, Forecast, forecast, weigh_loading
from sa2va_lab.loading.shards import FILES, Layout, spread
from sa2va_lab.loading.whole import open_whole
from sa2va_lab.shown import Shown

PRECISIONS = tuple(BYTES)
NO_QUANTISER = "needs bitsandbytes, which is not installed: pip install 'sa2va_lab[quant]'"
SLOWER = {  # measured: one image on an H100
    "int8": "slower than bf16 (H100: 125 ms an image, not 71)",
    "nf4": "slower than bf16 (H100: 116 ms an image, not 71)",
}
ONE_IS_ENOUGH = "one card is enough: give each card a replica"


@dataclass(frozen=True)
class Share:
    """What one device must hold; bytes. needed: what must be free there, at most `budget` to fit; weights that are used
    where they lie in a mapped file need nothing. activations: everything on top of weights, cache and device context
    included. mapped: pages of files that are looked at, which the system takes back when it needs room. On a GPU,
    context: outside torch's allocator; peak: the most that this gives out at one time, 0 where layers are spread."""

    name: str
    weights: int
    activations: int
    needed: int
    budget: int
    mapped: int = 0
    context: int = 0
    peak: int = 0

    @property
    def total(self) -> int:
        """Weights and all on top."""
        return self.weights + self.activations


@dataclass(frozen=True)
class Rung:
    """One way to run: at `precision`, with the parts where `layout` says. shares: a device each, the home first; host:
    what the host must have free while GPUs are loaded. Nothing is written, so no disk is needed. instead: why it is
    there in the place of one that the plan had."""

    precision: str
    layout: Layout
    shares: tuple[Share, ...]
    host: Share | None = None
    instead: str = ""

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
    def fullest(self) -> Share:
        """The device that lacks most or has least to spare; it may be the host, where that only helps to load."""
        shares = (*self.shares, self.host) if self.host else self.shares
        return max(shares, key=lambda share: share.needed - share.budget)

    @property
    def lacking(self) -> int:
        """Bytes that the fullest device lacks; below 0 is room to spare."""
        return self.fullest.needed - self.fullest.budget

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

    @property
    def notes(self) -> list[str]:
        """What is to be known of it besides sizes."""
        layers, kept_back = [self.layout.layers.count(name) for name in self.layout.devices], self.layout.kept_back
        said = [f"decoder layers: {'+'.join(map(str, layers))}"] if len(layers) > 1 else []
        said += [f"{kept_back} decoder layers left in the files"] if kept_back else []
        if self.device != "cpu":
            said += [SLOWER[self.precision]] if self.precision in SLOWER else []
        elif self.precision not in QUANTISED and is_int8_faster():  # "auto" leaves it at that: it would move masks
            said.append("int8 answers faster on this CPU, but rounds")
        if not kept_back and any(share.needed < share.total for share in self.shares):
            said.append("weights stay in the mapped file")
        return said + ["the disk is read at each image"] * (self.fits and self.effort == 2)

    @property
    def reason(self) -> str:
        """What it needs, whether that fits, and its notes, in a sentence."""
        weights, top = (sum(getattr(one, what) for one in self.shares) for what in ("weights", "activations"))
        weights, top, apart = (f"{size / GIB:.2f}" for size in (weights, top, abs(self.lacking)))
        verdict = f"fits, {apart} GiB to spare" if self.fits else f"does not fit, {apart} GiB too much"
        head = f"{weights} GiB of weights, {top} GiB on top"
        said = [f"{head}: {verdict}", *self.notes]
        if self.host and self.host.needed:
            size, kept_back = f"{self.host.needed / GIB:.2f}", self.layout.kept_back
            said += [f"{size} GiB of the host for layers in the files"] * bool(kept_back)
            said += [f"{size} GiB of the host while loading"] * (not kept_back)
        return self.instead or "; ".join(said if self.can_be_made else [*said, NO_QUANTISER])

    def to_dict(self) -> dict:
        """As `sa2va-lab plan --json` prints it; bytes."""
        said = {name: getattr(self, name) for name in ("precision", "fits", "lacking", "notes", "reason")}
        return said | {
            "devices": [asdict(share) | {"total": share.total} for share in self.shares],
            "host": asdict(self.host) if self.host else None,
            "layers": dict(Counter(self.layout.layers)),
        }


class Rungs(Sequence):
    """Rungs that are forecast when they are first looked at: whoever stands on one waits for none below it."""

    def __init__(self, rungs: Iterable[Rung]):
        self._made, self._rest = [], iter(rungs)

    def __getitem__(self, place: int | slice):
        count = None if isinstance(place, slice) or place < 0 else max(0, place + 1 - len(self._made))
        self._made += islice(self._rest, count)
        return self._made[place]

    def __len__(self) -> int:
        return len(self[:])


@dataclass(frozen=True, repr=False)
class Plan(Shown):
    """The ladder for one checkpoint on one machine, best rung first. cards: how many GPUs were looked at."""

    rungs: Sequence[Rung]
    cards: int = 0

    @property
    def chosen(self) -> int | None:
        """The place of the rung that fits with the least effort, the first of several; None where none fits or can be
        made by what is installed."""
        best = None
        for place, rung in enumerate(self.rungs):
            if rung.fits and rung.can_be_made and (best is None or rung.effort < self.rungs[best].effort):
                best = place
            if best is not None and not self.rungs[best].effort:  # those below need not be forecast
                break
        return best

    @property
    def facts(self) -> dict[str, str]:
        """See `Shown`: why, and the ladder with a mark at the chosen rung."""
        facts = {"Chosen": self.explain()}
        for place, rung in enumerate(self.rungs):
            fullest = rung.fullest
            said = f"{fullest.needed / GIB:.2f} of {fullest.budget / GIB:.2f} GiB" + ", does not fit" * (not rung.fits)
            facts[f"{'→' if place == self.chosen else ' '} {rung.precision}, {rung.where}"] = said
        return facts

    def start(self, precision: str, device: str) -> int | None:
        """The rung to begin with where precision and device are as asked ("auto": whichever): the first that fits, else
        the first, which then is tried all the same; None where all was left open and nothing fits."""
        if precision == "auto":
            return self.chosen
        first = None
        for place, rung in enumerate(self.rungs):
            if rung.precision == precision and device in ("auto", rung.device):
                if rung.fits:
                    return place
                first = place if first is None else first
        return first

    def to_dict(self) -> dict:
        """{rungs: [{precision, devices: [{name, weights, activations, total, budget}], fits, ...}], chosen, why}"""
        return {"rungs": [rung.to_dict() for rung in self.rungs], "chosen": self.chosen, "why": self.explain()}

    def explain(self) -> str:
        """Why the chosen rung is it, in a sentence; what is lacking, where none is."""
        if self.chosen is None:
            return self.explain_none()
        best, above = self.rungs[self.chosen], self.rungs[: self.chosen]
        said = f"{best.precision} on {best.where}: "
        if best.device == "cpu":
            return f"{said}{'the least work before it runs' if best.effort < 2 else 'nothing else fits'}."
        said += "the most precise that fits"
        if len(best.layout.devices) > 1:
            alone = any(len(rung.layout.devices) == 1 for rung in above)
            return f"{said}; spread, {'as no card alone holds it' if alone else 'as asked'}."
        return f"{said}; {ONE_IS_ENOUGH}." if self.cards > 1 else f"{said}."

    def explain_none(self) -> str:
        """What the least demanding rung would need, as a sentence."""
        least = min(self.rungs, key=lambda rung: rung.lacking)
        if least.fits:
            return f"Only {least.precision} on {least.where} fits, and it {NO_QUANTISER}."
        lacks = least.fullest
        return (
            f"Nothing fits: {least.precision} on {least.where} comes nearest and needs {lacks.needed / GIB:.2f} GiB on "
            f"{lacks.name}, {least.lacking / GIB:.2f} GiB more than there is; free memory, or use a larger machine."
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
    spread: bool = False,
) -> Plan:
    """The ladder for the checkpoint in `path`, from headers alone; nothing is loaded. The name of a released model
    ("Sa2VA-8B") is enough: the catalogue has its sizes, and neither file nor network is needed.

    sam2, finetune, config, lora_alpha: as `load` takes them. gpu, cpu: memory of one GPU and of the host ("24GiB"), for
    hardware that is not here; neither: this machine. gpus: how many GPUs, 1 of those that are not here and all of those
    that are if not given. tiles: of one image, the thumbnail included; the most that the model cuts if not given.
    spread: over all GPUs, though one may be enough.
    Raises LabError for an unreadable checkpoint or size, and for more GPUs than there are.
    """
    opened = find_released(path)
    if opened is None or sam2 or finetune:
        opened = open_whole(path, sam2=sam2, finetune=finetune, config=config, lora_alpha=lora_alpha)
    if gpu or cpu:
        names = [f"cuda:{number}" for number in range(1 if gpus is None else gpus)] if gpu else []
        if gpus is not None and gpus < 1:
            raise LabError(f"gpus is {gpus}; expected at least 1.")
        budgets = {name: parse_size(gpu) for name in names} | ({"cpu": parse_size(cpu)} if cpu else {})
    else:
        budgets = find_budgets(gpus)
    return climb_down(opened, budgets=budgets, tiles=tiles, spread=spread)


def climb_down(
    opened: Checkpoint | Released,
    *,
    budgets: dict[str, int],
    precision: str = "auto",
    device: str = "auto",
    tiles: int | None = None,
    spread: bool = False,
) -> Plan:
    """The rungs for a checkpoint, or a released model, on devices with so many free bytes.

    What was asked for comes first: with `spread` the layers go over all GPUs. Then one GPU, all GPUs, one at
    falling precision, all with the layers that do not fit left in the files; then the CPU, at last with all layers
    left in the files. On a CPU, weights that are stored as they are used stay in the mapped file and need no free
    memory, only patience where they do not fit into it.
    """
    if tiles is not None and tiles < 1:
        raise LabError(f"tiles is {tiles}; expected at least 1.")
    tiles = tiles or opened.sizes.family.most_tiles(opened.sizes)
    cuda = [name for name in budgets if name.startswith("cuda") and device in ("auto", name)]
    ways: list[tuple[str, list[str], bool]] = []  # precision, devices, whether layers may stay in the files
    if cuda:
        first, *rest = _falling(precision, cuda[0])
        best, wide = [max(cuda, key=budgets.get)], "bf16" if first in QUANTISED else first
        ways += [(kind, cuda, False) for kind in (first, *rest) if spread]
        ways += [(first, best, False), (first, cuda, False), *((kind, best, False) for kind in rest)]
        ways += [(wide, cuda, True)]
    if "cpu" in budgets:
        ways += [(kind, ["cpu"], False) for kind in _falling(precision, "cpu")]
        ways += [("bf16" if precision in ("auto", *QUANTISED) else precision, ["cpu"], True)]
    return Plan(Rungs(_weigh_ways(opened, ways, budgets, tiles)), len(cuda))


def _weigh_ways(
    opened: Checkpoint | Released, ways: list[tuple[str, list[str], bool]], budgets: dict[str, int], tiles: int
) -> Iterator[Rung]:
    """A rung for each way (precision, devices, whether layers may stay in the files), none of them twice."""
    told = set()
    for kind, names, files in ways:
        made = forecast(opened.tensors, opened.sizes, precision=kind, tiles=tiles, device=names[0])
        if files and (made.layer_own == 0 or kind in QUANTISED):  # they are there already
            continue
        own, mapped = {name: budgets[name] for name in names}, opened.mapped_bytes() - made.unseen
        rung = make_rung(kind, made, own, files=files, mapped=mapped)
        if "cpu" in budgets and names != ["cpu"]:
            needed = weigh_loading(opened.tensors, precision=kind)
            if rung.layout.kept_back:  # two layers wait in pinned memory, and a matrix of the next is being made
                needed = max(needed, int(2 * made.layer + made.matrix))
            rung = replace(rung, host=Share("cpu", 0, needed, needed, budgets["cpu"]))
        if (not files or rung.layout.kept_back) and (kind, rung.layout) not in told:
            told.add((kind, rung.layout))
            yield rung


def make_rung(precision: str, made: Forecast, budgets: dict[str, int], *, files: bool = False, mapped: int = 0) -> Rung:
    """The layout of a network on devices with so many free bytes. files: whether layers that fit nowhere may stay in
    them; mapped: their bytes that are looked at."""
    home, count = max(budgets, key=budgets.get), made.layers
    budgets = {home: budgets[home]} | budgets
    held = {name: made.needed(0, name == home, count if files and name == home else 0) for name in budgets}
    size = made.needed(1, True) - made.needed(0, True)
    places = spread(count, size=size, held=held, budgets=budgets, files=files)
    layout, shares = Layout(home, (FILES,) * count if files and home == "cpu" else places), []
    for name in layout.devices:
        layers, at_home = layout.layers.count(name), name == home
        weights = layers * made.layer + (made.outside if at_home else 0)
        needed = made.needed(layers, at_home, layout.kept_back if at_home else 0)
        sizes = (weights, needed - made.own(layers, at_home), needed, budgets[name], mapped if name == "cpu" else 0)
        peak = made.peak if layers == count else 0
        shares.append(Share(name, *map(int, sizes), context=made.context, peak=peak))
    return Rung(precision, layout, tuple(shares))


def _falling(precision: str, device: str) -> list[str]:
    order = ["bf16", "int8", "nf4"] if device != "cpu" else ["fp32", "bf16", "int8", "nf4"]
    if precision == "auto":
        return [choose_precision(device)[0], *order[1:]] if is_here(device) else order
    return [precision, *(kind for kind in order if BYTES[kind] < BYTES[precision])]
