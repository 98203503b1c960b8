"""Down the ladder: a rung that runs out of memory, or whose numbers overflow, makes room for the next one."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Callable
from itertools import chain, islice

import torch

from sa2va_lab.errors import LabError
from sa2va_lab.loading.arithmetic import compile_towers, quantise_matrix, set_arithmetic
from sa2va_lab.loading.checkpoint import Checkpoint
from sa2va_lab.loading.devices import QUANTISED, as_dtype, can_quantise
from sa2va_lab.loading.forecast import GIB
from sa2va_lab.loading.plan import Plan, Rung, Rungs
from sa2va_lab.loading.shards import FILES, Shelf, connect
from sa2va_lab.sa2va.modeling import Sa2VA
from sa2va_lab.sa2va.parts import is_decoder_matrix
from sa2va_lab.sa2va.watching import Overflow, is_out_of_memory
from sa2va_lab.sa2va.weights import build_empty, load_weights


class Ladder:
    """The rungs of a plan and the one stood on. steps: what was left and why, for the record.

    A rung below the start is one that this installation can stand on: without bitsandbytes there is no nf4.

    source: where the weights come from; tell: called with each step as a sentence; progress: wraps the tensors;
    compiled: whether each rung's network is compiled (`compile_towers`).
    """

    def __init__(
        self, source: Checkpoint, made: Plan, *, start: int, tell: Callable[[str], object], progress=iter,
        compiled: bool = False,
    ):  # fmt: skip
        self.source, self.config = source, source.sizes
        above, below = islice(made.rungs, start + 1), islice(made.rungs, start + 1, None)
        makeable = (rung for rung in below if can_quantise(rung.precision, device=rung.device))
        self.rungs = Rungs(chain(above, makeable))
        self.place, self.tell, self.progress = start, tell, progress
        self.compiled, self.steps = compiled, []
        self.arithmetic = ""

    @property
    def rung(self) -> Rung:
        """The rung stood on."""
        return self.rungs[self.place]

    def load(self) -> Sa2VA:
        """The network on this rung, or on the first below it that holds. Raises LabError when none does."""
        while True:
            try:
                return self._load_rung()
            except Exception as error:  # memory runs out in as many ways as there are allocators
                if not is_out_of_memory(error):
                    raise
            self._descend("out of memory while loading")

    def helps(self, error: BaseException) -> bool:
        """Whether the network of another rung could do what failed with `error`."""
        below = self.place + 1 < len(self.rungs)
        if isinstance(error, Overflow):  # on a GPU, bitsandbytes rounds what int8 multiplies to float16 first
            precision, device = self.rung.precision, self.rung.device
            return precision == "fp16" or (below and precision == "int8" and device != "cpu")
        return is_out_of_memory(error) and below

    def step_down(self, error: BaseException) -> Sa2VA:
        """The network that helps against `error`; whoever calls has let go of the old one before."""
        if isinstance(error, Overflow) and self.rung.precision == "fp16":
            reason = f"instead of fp16, as {error}"
            instead = dataclasses.replace(self.rung, precision="bf16", instead=reason)
            self.rungs, self.place = Rungs(chain([instead], islice(self.rungs, self.place + 1, None))), 0
            self._record("fp16", self.rung.where, str(error))
        else:
            self._descend(str(error) if isinstance(error, Overflow) else "out of memory in a prediction")
        return self.load()

    def choose_batch(self, most: int) -> tuple[int, str]:
        """How many images have room together on this rung: `most`, or half of it, and so on; and why."""
        home = self.rung.shares[0]
        if home.name == "cpu":
            return 1, "1: a processor is not idle between images"  # 2 at once were no faster, 8 slower (docs/log.md)
        spare, taken = home.budget - home.needed, home.activations - home.context
        halves = (most >> shift for shift in range(most.bit_length()))
        batch = next(count for count in halves if count == 1 or (count - 1) * taken <= spare)
        return batch, f"{batch}: an image takes {taken / GIB:.2f} GiB, and {spare / GIB:.2f} are free beside one"

    def note(self, provenance: dict) -> None:
        """Writes the rung stood on into a Segmenter's provenance, which has `asked` of precision and device."""
        rung, precision, device = self.rung, provenance["precision"], provenance["device"]
        why = f"{rung.precision}: {self.steps[-1]['why'] if self.steps else rung.reason}"
        precision |= {"actual": rung.precision, "reason": "as asked" if rung.precision == precision["asked"] else why}
        if rung.where != device["actual"]:
            device |= {"actual": rung.where, "reason": why}
        provenance |= {"arithmetic": self.arithmetic, "plan": rung.to_dict(), "steps": self.steps}

    def _load_rung(self) -> Sa2VA:
        rung, layout = self.rung, self.rung.layout
        model, dtype, small = build_empty(self.config), as_dtype(rung.precision), rung.precision in QUANTISED
        kept_back = [layer for layer, place in enumerate(layout.layers) if place == FILES]
        pinned = layout.home.startswith("cuda")
        shelf = Shelf(model, self.source, dtype, layers=kept_back, pinned=pinned) if kept_back else {}

        def settle(name: str) -> None:
            if small:
                quantise_matrix(model, name, precision=rung.precision, device=layout.place(name))

        load_weights(
            model,
            self.source,
            dtype=dtype,
            device=lambda name: "cpu" if small and is_decoder_matrix(name) else layout.place(name),
            progress=self.progress,
            settle=settle,
        )
        self.arithmetic = set_arithmetic(model, precision=rung.precision, device=rung.device)
        connect(model, layout, shelf)
        if self.compiled:
            self.arithmetic += f"; {compile_towers(model)}"
        return model

    def _descend(self, why: str) -> None:
        if self.compiled:
            torch.compiler.reset()  # which holds the graphs of the network that went, and their memory
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        left = self.rung
        if self.place + 1 == len(self.rungs):
            raise LabError(
                f"{left.precision} on {left.where}: {why}, and no rung is below it: free "
                "memory, use a smaller image, or another machine."
            )
        self.place += 1
        self._record(left.precision, left.where, why)

    def _record(self, precision: str, where: str, why: str) -> None:
        step = {"from": f"{precision} on {where}", "to": f"{self.rung.precision} on {self.rung.where}", "why": why}
        self.steps.append(step)
        self.tell(f"{step['why']}: from {step['from']} to {step['to']}")
