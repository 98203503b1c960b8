"""Official tensor names and the network's: one table of rules.

A tensor that no rule names is called the same on both sides. The rest differs because transformers names the layers of
a model, or cuts its matrices, in its own way. torch is not needed to read names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sa2va_lab.errors import LabError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Rule:
    """What an official tensor is called in the network. `#` stands for a number, `*` for anything; a trailing `.weight`
    or `.bias` is carried along.

    kind "whole": each of `ours` is all of it; "row": it is row `#` of the one in `ours`, which has so many `rows`;
    else each of `ours` is the part of it in this place, as the table's `Split` of that kind cuts it.
    """

    official: str
    ours: tuple[str, ...]
    kind: str = "whole"
    rows: int = 0


@dataclass(frozen=True)
class Place:
    """Where one official tensor goes: to `name`, as `Rule` has the kind; index: the place of the part, or the row."""

    name: str
    kind: str = "whole"
    index: int = 0


@dataclass(frozen=True)
class Split:
    """How one official tensor is cut into parts, and parts are made one again. Works on tensors without data too."""

    cut: Callable[[Tensor], Sequence[Tensor]]
    join: Callable[[Sequence[Tensor]], Tensor]


def join_rows(parts: Sequence[Tensor]) -> Tensor:
    """Parts one below the other."""
    import torch

    return torch.cat(list(parts))


SPLITS = {"third": Split(cut=lambda tensor: tensor.chunk(3), join=join_rows)}


class NameTable:
    """The rules of one network. own: prefixes of its names below which every tensor has a rule; splits: the kinds of
    cut that the rules name."""

    def __init__(self, rules: Iterable[Rule], *, own: tuple[str, ...] = (), splits: Mapping[str, Split] = SPLITS):
        self.own, self.splits = own, splits
        self._rules = [(_compile(ours), rule, index) for rule in rules for index, ours in enumerate(rule.ours)]

    def origins(self, name: str) -> list[tuple[str, Place]]:
        """The official tensors that make the network's tensor of this name, in order; itself where no rule applies.

        Raises KeyError for a name below an `own` prefix that no rule gives.
        """
        for pattern, rule, index in self._rules:
            if match := pattern.fullmatch(name):
                *numbers, tail = match.groups(default="")
                if rule.kind == "row":
                    return [(_fill(rule.official, [str(n)]) + tail, Place(name, "row", n)) for n in range(rule.rows)]
                return [(_fill(rule.official, numbers) + tail, Place(name, rule.kind, index))]
        if name.startswith(self.own):
            raise KeyError(f"no official name is known for {name}")
        return [(name, Place(name))]

    def official(self, ours: Iterable[str]) -> dict[str, list[Place]]:
        """The official tensors that fill the network's tensors of these names, each with its places in order."""
        found: dict[str, list[Place]] = {}
        for official, place in (origin for name in ours for origin in self.origins(name)):
            found.setdefault(official, []).append(place)
        return {official: sorted(places, key=lambda place: place.index) for official, places in found.items()}

    def match(self, official: Iterable[str], ours: Iterable[str]) -> dict[str, list[tuple[str, Place]]]:
        """For each tensor of the network the official tensors that make it, in order.

        Raises LabError when one of those is not there or an official one has nowhere to go, naming up to five.
        """
        parts, official = {name: self.origins(name) for name in ours}, set(official)
        wanted = {name for made_of in parts.values() for name, _ in made_of}
        if missing := sorted(wanted - official):
            raise LabError(
                f"The checkpoint lacks {len(missing)} tensors that its config.json calls for ({_some(missing)}): "
                "a fine-tune alone is not enough, give the complete model."
            )
        if unexpected := sorted(official - wanted):
            raise LabError(
                f"The checkpoint holds {len(unexpected)} tensors that its config.json has no place for "
                f"({_some(unexpected)}): config.json and weights belong to different models."
            )
        return parts

    def assemble(self, read: Callable[[str], Tensor], parts: list[tuple[str, Place]]) -> Tensor:
        """The network's tensor that these official ones make, as `match` has them. read: official name -> tensor."""
        name, place = parts[0]
        if place.kind == "row":
            return join_rows([read(row) for row, _ in parts])
        return read(name) if place.kind == "whole" else self.splits[place.kind].cut(read(name))[place.index]

    def take_apart(self, places: Sequence[Place], ours: Mapping[str, Tensor]) -> Tensor:
        """The official tensor that has these places, as `official` has them, out of the network's."""
        kind, index, first = places[0].kind, places[0].index, ours[places[0].name]
        if kind == "row":
            return first[index : index + 1]
        return first if kind == "whole" else self.splits[kind].join([ours[place.name] for place in places])


def _compile(name: str) -> re.Pattern:
    return re.compile(re.escape(name).replace(r"\#", r"(\d+)").replace(r"\*", "(.+)") + r"(\.weight|\.bias)?")


def _fill(name: str, found: list[str]) -> str:
    for one in found:
        name = re.sub(r"[#*]", one, name, count=1)
    return name


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
