"""The released Sa2VAs, known without a file and without a network: catalogue.json has the sizes of each, and sources.

Tensors, parameters and bytes follow from building each on the meta device. What was published of each is beside its
sizes, and the tests hold the two together.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from sa2va_lab.errors import LabError
from sa2va_lab.loading.parts import BUFFER
from sa2va_lab.loading.tensors import LazyTensor
from sa2va_lab.sa2va.configuration import parse_config
from sa2va_lab.sa2va.family import Sa2VAConfig
from sa2va_lab.sa2va.files import read_json
from sa2va_lab.sa2va.modeling import HEAD
from sa2va_lab.sa2va.parts import part_of
from sa2va_lab.sa2va.weights import build_empty

FILE = Path(__file__).with_name("catalogue.json")


@dataclass(frozen=True)
class Released:
    """One released model. raw: its entry in catalogue.json, which reads as a config.json."""

    name: str
    raw: dict

    @cached_property
    def sizes(self) -> Sa2VAConfig:
        """The same, read. Raises LabError for a family that does not run here."""
        return parse_config(self.raw, name=f"config.json of {self.name}")

    @cached_property
    def tensors(self) -> dict[str, LazyTensor]:
        """Official names, and what a released folder says of them: float32, but for InternVL's vision tower in bf16."""
        ours, names = build_empty(self.sizes).state_dict(), self.sizes.names
        if self.sizes.tied:
            ours.pop(HEAD)
        half = "vision" if "llm_config" in self.raw else None
        return {
            name: LazyTensor(
                tuple(names.take_apart(places, ours).shape), "bf16" if part_of(name) == half else "fp32", mapped=True
            )
            for name, places in names.official(ours).items()
        }

    @property
    def parameters(self) -> int:
        """How many numbers were learnt."""
        return sum(tensor.parameters for name, tensor in self.tensors.items() if BUFFER not in name)

    def mapped_bytes(self) -> int:
        """Bytes of its weight files."""
        return sum(tensor.bytes for tensor in self.tensors.values())


@cache
def read_catalogue() -> dict[str, Released]:
    """Every released model by name."""
    content = read_json(FILE)
    for raw in content["models"].values():
        raw["vision_config"] = dict(content["vision"][raw["vision_config"]])
        if "text_config" in raw:
            raw["vision_config"]["out_hidden_size"] = raw["text_config"]["hidden_size"]
    return {name: Released(name, raw | {"model_type": "sa2va_chat"}) for name, raw in content["models"].items()}


def find_released(name: object) -> Released | None:
    """The released model of that name, with or without its owner on the hub; None where that can be something else: a
    path or a hub id. Raises LabError for a bare name that nothing here and no release has."""
    text = str(name)
    known = {} if Path(text).exists() else {key.casefold(): model for key, model in read_catalogue().items()}
    found = known.get(text.removeprefix("ByteDance/").casefold())
    if known and not found and len(Path(text).parts) == 1:
        raise LabError(f"{text} is neither a checkpoint here nor a released model: {', '.join(read_catalogue())}.")
    return found
