"""Official tensor names and the network's: one table, read in both directions.

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
        self._rules = list(rules)
        self._forwards = [(_compile(rule.official), rule) for rule in self._rules]
        self._backwards = [(_compile(ours), rule) for rule in self._rules for ours in rule.ours]
        self._known: dict[str, tuple[Place, ...]] = {}

    def places(self, official: str) -> tuple[Place, ...]:
        """Where an official tensor goes in the network; its own name where no rule applies."""
        if official not in self._known:
            self._known[official] = self._place(official)
        return self._known[official]

    def _place(self, official: str) -> tuple[Place, ...]:
        for pattern, rule in self._forwards:
            if match := pattern.fullmatch(official):
                *numbers, tail = match.groups(default="")
                index = int(numbers[0]) if rule.kind == "row" else None
                names = (_fill(ours, numbers) + tail for ours in rule.ours)
                return tuple(Place(name, rule.kind, i if index is None else index) for i, name in enumerate(names))
        return (Place(official),)

    def official(self, ours: Iterable[str]) -> dict[str, tuple[Place, ...]]:
        """The official tensors that fill the network's tensors of these names, each with its places.

        Raises KeyError for a name below an `own` prefix that no rule gives.
        """
        return {name: self.places(name) for one in ours for name in self._origins(one)}

    def _origins(self, name: str) -> list[str]:
        for pattern, rule in self._backwards:
            if match := pattern.fullmatch(name):
                *numbers, tail = match.groups(default="")
                if rule.kind == "row":
                    return [_fill(rule.official, [str(row)]) + tail for row in range(rule.rows)]
                return [_fill(rule.official, numbers) + tail]
        if name.startswith(self.own):
            raise KeyError(f"no official name is known for {name}")
        return [name]

    def match(self, official: Iterable[str], ours: Iterable[str]) -> dict[str, list[tuple[str, Place]]]:
        """For each tensor of the network the official tensors that make it, in order.

        Raises LabError when one gets nothing or an official one has nowhere to go, naming up to five.
        """
        parts: dict[str, list[tuple[str, Place]]] = {name: [] for name in ours}
        unexpected = []
        for name in official:
            for place in self.places(name):
                if place.name in parts:
                    parts[place.name].append((name, place))
                else:
                    unexpected.append(name)
        missing = [name for name, made_of in parts.items() if not made_of]
        if missing:
            wanted = sorted(self.official(missing)) or missing
            raise LabError(
                f"The checkpoint lacks {len(wanted)} tensors that its config.json calls for ({_some(wanted)}): "
                "a fine-tune alone is not enough, give the complete model."
            )
        if unexpected:
            raise LabError(
                f"The checkpoint holds {len(unexpected)} tensors that its config.json has no place for "
                f"({_some(unexpected)}): config.json and weights belong to different models."
            )
        for made_of in parts.values():
            made_of.sort(key=lambda pair: pair[1].index)
        return parts

    def assemble(self, read: Callable[[str], Tensor], parts: list[tuple[str, Place]]) -> Tensor:
        """The network's tensor that these official ones make, as `match` has them. read: official name -> tensor."""
        name, place = parts[0]
        if place.kind == "row":
            return join_rows([read(row) for row, _ in parts])
        return read(name) if place.kind == "whole" else self.splits[place.kind].cut(read(name))[place.index]

    def take_apart(self, official: str, ours: Mapping[str, Tensor]) -> Tensor:
        """The official tensor of that name, out of the network's."""
        places = self.places(official)
        first = ours[places[0].name]
        if places[0].kind == "row":
            return first[places[0].index : places[0].index + 1]
        return first if places[0].kind == "whole" else self.splits[places[0].kind].join([ours[p.name] for p in places])


def _compile(name: str) -> re.Pattern:
    return re.compile(re.escape(name).replace(r"\#", r"(\d+)").replace(r"\*", "(.+)") + r"(\.weight|\.bias)?")


def _fill(name: str, found: list[str]) -> str:
    for one in found:
        name = re.sub(r"[#*]", one, name, count=1)
    return name


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
